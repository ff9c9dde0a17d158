/**
 * The audit log as lines of JSON, with all that it takes to verify it without
 * Prism, and the reading of such lines.
 *
 * The first line is `{"start":{position,hash}}`: what the first entry follows on.
 * Then each entry, as the API shows it, with its hash; behind the last entry of
 * a batch its seal, `{"seal":{...}}`. The last line is `{"end":{position,hash}}`:
 * without it something is missing. Leaves to others: judging (`audit/Verification`).
 */
import { Effect, Option, Stream } from "effect"
import type { SqlClient, SqlError } from "effect/sql"
import * as AuditCheck from "./AuditCheck.ts"
import { canonicalJson, type EntryRow, type LogRow, textOf } from "./Chain.ts"
import * as Verification from "./Verification.ts"

/** An entry as a line. */
export const toLine = (row: LogRow): string => `${textOf(row).slice(0, -1)},"hash":${JSON.stringify(row.hash)}}`

const sealLine = ({ atMillis, firstPosition, hash, lastPosition }: Verification.Seal): string =>
  JSON.stringify({ seal: { at: new Date(atMillis).toISOString(), firstPosition, hash, lastPosition } })

/** Entries `from` to `to`, each line with its end, in pieces; what is sealed after it began is not part of it. */
export const lines = (
  sql: SqlClient.SqlClient,
  { from, to }: { readonly from?: number | undefined; readonly to?: number | undefined }
): Stream.Stream<string, SqlError.SqlError> =>
  Stream.unwrap(
    Effect.gen(function* () {
      const check = AuditCheck.make(sql)
      const { newest, oldest } = yield* check.ends
      const { start } = yield* check.startOf(from, oldest ?? newest + 1)
      const last = Math.min(to ?? newest, newest)
      let end: { readonly position: number; readonly hash: string | undefined } = start
      const body = Stream.paginate(start.position, (after) =>
        Effect.gen(function* () {
          const rows = yield* check.entries(after, last)
          const isLast = rows.length < AuditCheck.pageSize
          const reached = isLast ? last : Number(rows.at(-1)!.position)
          const seals = yield* check.seals(after, reached)
          let given = 0
          let text = ""
          for (const row of rows) {
            const position = Number(row.position)
            for (; given < seals.length && seals[given]!.lastPosition < position; given++) {
              text += `${sealLine(seals[given]!)}\n`
            }
            text += `${toLine(row)}\n`
            end = { position, hash: row.hash }
          }
          for (; given < seals.length; given++) text += `${sealLine(seals[given]!)}\n`
          return [[text], isLast ? Option.none<number>() : Option.some(reached)] as const
        })
      )
      return Stream.make(`${JSON.stringify({ start })}\n`).pipe(
        Stream.concat(body),
        Stream.concat(Stream.suspend(() => Stream.make(`${JSON.stringify({ end })}\n`)))
      )
    })
  )

type Fields = Readonly<Record<string, unknown>>

const isFields = (value: unknown): value is Fields =>
  typeof value === "object" && value !== null && !Array.isArray(value)

const text = (value: unknown): string => (typeof value === "string" ? value : "")
const textOrNull = (value: unknown): string | null => (typeof value === "string" ? value : null)
const integer = (value: unknown): number => (typeof value === "number" ? value : Number.NaN)
const json = (value: unknown): string | null => (value === undefined ? null : canonicalJson(value))

/** A text that no entry ever had in its place: what is not as an entry is written is one that was changed. */
const notSealed = "{"

const toRow = ({ hash, ...fields }: Fields): LogRow => {
  const row: EntryRow = {
    position: integer(fields["position"]),
    sequence: integer(fields["sequence"]),
    at: Date.parse(text(fields["at"])),
    actor: text(fields["actor"]),
    peer: textOrNull(fields["peer"]),
    action: text(fields["action"]),
    zone: textOrNull(fields["zone"]),
    subject: text(fields["subject"]),
    generation: integer(fields["generation"]),
    before: json(fields["before"]),
    after: json(fields["after"]),
    reason: textOrNull(fields["reason"]),
    cause: textOrNull(fields["cause"]),
    request: textOrNull(fields["request"]),
    result: text(fields["result"])
  }
  const isWhole = textOf(row) === canonicalJson(fields)
  return { ...row, before: isWhole ? row.before : notSealed, hash: text(hash) }
}

const toPoint = (value: unknown): Verification.Start | undefined =>
  isFields(value) && typeof value["position"] === "number"
    ? { position: value["position"], hash: typeof value["hash"] === "string" ? value["hash"] : undefined }
    : undefined

export interface ExportReport extends Verification.Report {
  /** What is wrong with the file as such: a sentence. */
  readonly broken: string | undefined
}

/** The seal of the last entries of a file that grows may be written yet. */
const stillToCome: Verification.Seal = { firstPosition: 0, lastPosition: 0, atMillis: 0, hash: "" }

/** Entries that stand once more in a file that grows, at the most. */
const repeatedMax = 2000

export interface ExportReader {
  /** The next line, without its end. */
  readonly line: (line: string) => void
  readonly end: () => ExportReport
}

/**
 * Verifies an export, line by line. `grows`: it is one that `audit.export` appends to, which has no end yet, and after a
 * crash has some entries once more.
 */
export const reader = (
  noted: ReadonlyArray<Verification.Point> = [],
  { grows = false }: { readonly grows?: boolean } = {}
): ExportReader => {
  let verifier: Verification.Verifier | undefined
  let broken: string | undefined
  let count = 0
  let last: Verification.Point | undefined
  let end: Verification.Start | undefined
  let sealedTo = -1
  /** The newest lines, by position. */
  const recent = new Map<number, string>()

  const remember = (position: number, given: string) => {
    recent.set(position, given)
    if (recent.size > repeatedMax) recent.delete(recent.keys().next().value!)
  }

  const wrong = (why: string) => {
    broken ??= `line ${count}: ${why}`
  }

  const line: ExportReader["line"] = (given) => {
    count += 1
    if (given.trim() === "") return
    let value: unknown
    try {
      value = JSON.parse(given)
    } catch {
      return wrong("it is no JSON; was the file cut off?")
    }
    if (!isFields(value)) return wrong("it is neither an entry nor a seal")
    if ("start" in value) {
      const start = toPoint(value["start"])
      if (grows && verifier !== undefined) return
      if (start === undefined || verifier !== undefined) return wrong("it is no beginning of an export")
      verifier = Verification.make(start, noted)
      return
    }
    if (verifier === undefined) return wrong("an export begins with its start")
    if (end !== undefined) return wrong("there is something behind the end")
    if ("end" in value) {
      end = toPoint(value["end"])
      return
    }
    const seal = value["seal"]
    if (isFields(seal)) {
      const lastPosition = integer(seal["lastPosition"])
      if (grows && lastPosition <= sealedTo) return
      sealedTo = lastPosition
      verifier.seal({
        firstPosition: integer(seal["firstPosition"]),
        lastPosition,
        atMillis: Date.parse(text(seal["at"])),
        hash: text(seal["hash"])
      })
      return
    }
    const row = toRow(value)
    if (!Number.isInteger(row.position)) return wrong("it is neither an entry nor a seal")
    if (grows && last !== undefined && row.position <= last.position && recent.get(Number(row.position)) === given)
      return
    if (grows) remember(Number(row.position), given)
    verifier.entry(row)
    last = { position: Number(row.position), hash: row.hash }
  }

  return {
    line,
    end: () => {
      const report = verifier?.end(grows ? { complete: false, following: stillToCome } : { complete: true }) ?? {
        entries: 0,
        findings: [],
        more: false,
        last: undefined
      }
      if (grows) return { ...report, broken }
      if (end === undefined) broken ??= "it has no end: lines are missing"
      else if (last !== undefined && (last.position !== end.position || last.hash !== end.hash)) {
        broken ??= `its last entry is ${last.position}, and it says that it ends with ${end.position}: lines are missing`
      }
      return { ...report, broken }
    }
  }
}
