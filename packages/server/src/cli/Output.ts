/**
 * What administrative commands print: a table for people at a terminal, lines
 * with tabs for programs in a pipe, JSON where asked for.
 *
 * Promises: what came from elsewhere cannot steer the terminal: control
 * characters are written as escapes.
 */
import { Console, Effect } from "effect"
import { forTerminal } from "@prism-dns/core/domain/PlainText"

/** A cell; undefined is nothing to say. */
export type Cell = string | number | boolean | undefined

export interface Column<A> {
  readonly head: string
  readonly cell: (row: A) => Cell
}

/** Whether a person reads what is printed. */
export const isTerminal = (): boolean => process.stdout.isTTY

/** `text` on one line, without anything that a terminal would obey. */
export { forTerminal as harmless }

/** Several lines of text that came from elsewhere. */
export const harmlessLines = (text: string): string => text.split("\n").map(forTerminal).join("\n")

const textOf = (cell: Cell): string => (cell === undefined ? "" : forTerminal(String(cell)))

/** With heads and aligned, for a terminal; a column that says nothing of any row is left out. */
export const toTable = <A>(columns: ReadonlyArray<Column<A>>, rows: ReadonlyArray<A>): string => {
  const shown = columns
    .map(({ cell, head }) => ({ head, texts: rows.map((row) => textOf(cell(row))) }))
    .filter(({ texts }) => texts.some((text) => text !== ""))
    .map(({ head, texts }) => {
      const lines = [head, ...texts.map((text) => (text === "" ? "-" : text))]
      const width = Math.max(...lines.map((line) => line.length))
      return lines.map((line) => line.padEnd(width))
    })
  return [undefined, ...rows]
    .map((_, i) =>
      shown
        .map((lines) => lines[i]!)
        .join("  ")
        .trimEnd()
    )
    .join("\n")
}

/** A line for each row, with a tab between its cells and no head, for a pipe. */
export const toLines = <A>(columns: ReadonlyArray<Column<A>>, rows: ReadonlyArray<A>): string =>
  rows.map((row) => columns.map(({ cell }) => textOf(cell(row))).join("\t")).join("\n")

/** Prints rows; `none` is what a person is told where there are none. */
export const rows = <A>(columns: ReadonlyArray<Column<A>>, items: ReadonlyArray<A>, none: string) => {
  if (items.length > 0) return Console.log(isTerminal() ? toTable(columns, items) : toLines(columns, items))
  return isTerminal() ? Console.log(none) : Effect.void
}

/** Prints what there is to say of one thing, a line for each that is not undefined. */
export const fields = (entries: ReadonlyArray<readonly [string, Cell]>) =>
  Effect.suspend(() => {
    const said = entries.filter(([, cell]) => cell !== undefined)
    const width = isTerminal() ? Math.max(...said.map(([name]) => name.length)) + 2 : 0
    return Console.log(
      said
        .map(([name, cell]) => (width > 0 ? `${name.padEnd(width)}${textOf(cell)}` : `${name}\t${textOf(cell)}`))
        .join("\n")
    )
  })

/** Prints what the API answered. */
export const json = (value: unknown) => Console.log(JSON.stringify(value, null, 2))

/** Says something beside the output, for people. */
export const note = (text: string) => Effect.sync(() => void process.stderr.write(`${forTerminal(text)}\n`))

/** `1h 30m`, of seconds. */
export const seconds = (value: number): string => {
  const units = [
    ["d", 86_400],
    ["h", 3600],
    ["m", 60]
  ] as const
  let rest = Math.round(value)
  const parts: Array<string> = []
  for (const [unit, size] of units) {
    if (rest >= size) parts.push(`${Math.floor(rest / size)}${unit}`)
    rest %= size
  }
  if (rest > 0 || parts.length === 0) parts.push(`${rest}s`)
  return parts.join(" ")
}
