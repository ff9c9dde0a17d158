/** A selection as a table for people: each address, whether it is taken, and why. */
import type { Selection } from "./Selection.ts"

// oxlint-disable-next-line no-control-regex -- those are what is looked for; names of interfaces may have any of them
const harmless = (text: string) => text.replace(/[\u0000-\u001f\u007f-\u009f]/g, "?")

/** One line for each address or interface without one, under heads, without a line end behind the last. */
export const toTable = ({ considered }: Selection): string => {
  const rows = considered.map((each, at) => [
    each.verdict === "taken" ? `${at + 1}` : "-",
    harmless(each.address ?? "-"),
    harmless(each.interface),
    each.kind,
    each.verdict === "taken" ? `taken: ${each.detail}` : `left out (${each.verdict}): ${each.detail}`
  ])
  const all = [["#", "ADDRESS", "INTERFACE", "KIND", "WHY"], ...rows]
  const widths = all[0]!.map((_, column) => Math.max(...all.map((row) => row[column]!.length)))
  return all
    .map((row) =>
      row
        .map((cell, column) => cell.padEnd(widths[column]!))
        .join("  ")
        .trimEnd()
    )
    .join("\n")
}
