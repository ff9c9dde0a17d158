/**
 * Files of hosts to be imported: JSON, a list of what `POST /v1/hosts` takes or
 * of a batch's items, and CSV with a row of heads.
 *
 * A file is read as a whole before anything is sent: one that is wrong changes
 * nothing. What a host's fields may be is the server's to say, item by item.
 */
import { Effect, Result, Schema } from "effect"
import * as Failure from "./Failure.ts"

/** What a batch takes, before the server has looked at it. */
export type Item = Readonly<Record<string, unknown>>

const Items = Schema.Array(Schema.Record(Schema.String, Schema.Unknown))
const decodeItems = Schema.decodeUnknownResult(Schema.Union([Items, Schema.Struct({ items: Items })]))

const heads = ["hostname", "zone", "addresses", "labels", "ttl", "owner", "lease"] as const
type Head = (typeof heads)[number]

/** The cells of a CSV file (RFC 4180), row by row. */
export const parseCsv = (text: string): ReadonlyArray<ReadonlyArray<string>> => {
  const rows: Array<Array<string>> = []
  let row: Array<string> = []
  let cell = ""
  let quoted = false
  for (let i = 0; i < text.length; i++) {
    const character = text[i]!
    if (quoted) {
      if (character !== '"') cell += character
      else if (text[i + 1] === '"') {
        cell += '"'
        i += 1
      } else quoted = false
    } else if (character === '"') quoted = true
    else if (character === ",") {
      row.push(cell)
      cell = ""
    } else if (character === "\n") {
      rows.push([...row, cell.replace(/\r$/, "")])
      row = []
      cell = ""
    } else cell += character
  }
  if (cell !== "" || row.length > 0) rows.push([...row, cell.replace(/\r$/, "")])
  return rows.filter((cells) => cells.some((each) => each.trim() !== ""))
}

const several = (text: string): ReadonlyArray<string> => text.split(/[\s;]+/).filter((each) => each !== "")

const labelsOf = (text: string): Readonly<Record<string, string>> =>
  Object.fromEntries(
    several(text).map((pair) => {
      const end = pair.indexOf("=")
      return end === -1 ? [pair, ""] : [pair.slice(0, end), pair.slice(end + 1)]
    })
  )

const fieldOf = (head: Head, text: string): readonly [string, unknown] => {
  switch (head) {
    case "addresses":
      return ["addresses", several(text)]
    case "labels":
      return ["labels", labelsOf(text)]
    case "ttl":
      return ["ttlSeconds", Number(text)]
    default:
      return [head, text]
  }
}

const fromCsv = (text: string): Result.Result<ReadonlyArray<Item>, string> => {
  const [first, ...rows] = parseCsv(text)
  if (first === undefined) return Result.fail("there is nothing in it")
  const names = first.map((name) => name.trim().toLowerCase())
  const unknown = names.find((name) => !heads.some((head) => head === name))
  if (unknown !== undefined) return Result.fail(`its first row names '${unknown}'; columns are ${heads.join(", ")}`)
  if (!names.includes("hostname")) return Result.fail("its first row names no column 'hostname'")
  return Result.succeed(
    rows.map((cells) =>
      Object.fromEntries(
        cells.flatMap((cell, i) => (cell.trim() === "" ? [] : [fieldOf(names[i] as Head, cell.trim())]))
      )
    )
  )
}

const fromJson = (text: string): Result.Result<ReadonlyArray<Item>, string> => {
  const parsed = Result.try(() => JSON.parse(text) as unknown)
  if (Result.isFailure(parsed)) return Result.fail("it is no JSON")
  return Result.match(decodeItems(parsed.success), {
    onFailure: () => Result.fail("it is no list of hosts"),
    onSuccess: (list) => Result.succeed("items" in list ? list.items : list)
  })
}

/** The items of a file, by the ending of its name; what names no operation registers. */
export const read = (path: string, text: string): Effect.Effect<ReadonlyArray<Item>, Failure.UsageWrong> =>
  Result.match(/\.csv$/i.test(path) ? fromCsv(text) : fromJson(text), {
    onFailure: (reason) => Effect.fail(new Failure.UsageWrong({ detail: `${path}: ${reason}` })),
    onSuccess: (items) => Effect.succeed(items.map((item) => ("op" in item ? item : { op: "register", ...item })))
  })
