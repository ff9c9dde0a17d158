/**
 * Verifies the audit log of a database, a part at a time, so that each call ends
 * soon however long the log is.
 *
 * Promises: whoever goes on from `next` until there is none has verified all
 * that there was when the last call began; entries that are sealed meanwhile do
 * no harm. Where retention has taken the oldest entries, the log begins behind
 * those that the newest `audit.pruned` entry names, and with the hash it names.
 * Leaves to others: what is wrong with what is read (`audit/Verification`).
 */
import { Effect } from "effect"
import type { SqlClient } from "effect/sql"
import { columns, genesis, type LogRow } from "./Chain.ts"
import * as Verification from "./Verification.ts"

export interface CheckRequest {
  /** Default: the oldest entry. */
  readonly from?: number | undefined
  /** Default: the newest one. */
  readonly to?: number | undefined
  /** Heads of the log that were noted before. */
  readonly noted?: ReadonlyArray<Verification.Point> | undefined
  /** Positions of one call at the most; default `positionsMax`. */
  readonly positionsMax?: number | undefined
}

export interface Checked extends Verification.Report {
  /** The first position that was looked at, and the last. */
  readonly from: number
  readonly to: number
  /** Where to go on; undefined: nowhere. */
  readonly next: number | undefined
  /** Of the newest entry of the log. */
  readonly newest: number
}

/** Positions of one call at the most. */
export const positionsMax = 20_000

/** Entries read in one statement. */
export const pageSize = 500

interface SealRow {
  readonly first_position: number | bigint
  readonly last_position: number | bigint
  readonly at: number | bigint
  readonly hash: string
}

export const toSeal = (row: SealRow): Verification.Seal => ({
  firstPosition: Number(row.first_position),
  lastPosition: Number(row.last_position),
  atMillis: Number(row.at),
  hash: row.hash
})

/** What the newest `audit.pruned` entry says: up to where entries are taken, and the hash there. */
export const prunedTo = (sql: SqlClient.SqlClient) =>
  Effect.map(
    sql<{ readonly after: string | null }>`
      SELECT after FROM audit_log WHERE action = 'audit.pruned' ORDER BY position DESC LIMIT 1`,
    ([row]) => (row === undefined ? undefined : pointIn(row.after))
  )

/** The position and hash that an entry names; of one that was changed, none. */
export const pointIn = (text: string | null): Verification.Point | undefined => {
  let value: unknown
  try {
    value = JSON.parse(text ?? "null")
  } catch {
    return undefined
  }
  if (typeof value !== "object" || value === null || !("position" in value) || !("hash" in value)) return undefined
  const { hash, position } = value
  return typeof position === "number" && typeof hash === "string" ? { position, hash } : undefined
}

export const make = (sql: SqlClient.SqlClient) => {
  const all = sql.literal(columns)

  /** Entries behind `after` up to `to`, in order, a page. */
  const entries = (after: number, to: number, limit = pageSize) =>
    sql<LogRow>`
      SELECT ${all} FROM audit_log WHERE position > ${after} AND position <= ${to} ORDER BY position LIMIT ${limit}`

  /** Seals of batches that end behind `after`, up to `to`, in order. */
  const seals = (after: number, to: number) =>
    Effect.map(
      sql<SealRow>`
        SELECT first_position, last_position, at, hash FROM audit_seal
        WHERE last_position > ${after} AND last_position <= ${to} ORDER BY last_position`,
      (rows) => rows.map(toSeal)
    )

  const sealAt = (position: number) =>
    Effect.map(seals(position - 1, position), ([seal]): Verification.Seal | undefined => seal)

  const ends = Effect.map(
    sql<{
      readonly oldest: number | bigint | null
      readonly newest: number | bigint | null
      readonly sealed: number | bigint | null
    }>`
      SELECT (SELECT MIN(position) FROM audit_log) AS oldest, (SELECT MAX(position) FROM audit_log) AS newest,
        (SELECT MAX(last_position) FROM audit_seal) AS sealed`,
    ([row]) => ({
      oldest: row?.oldest == null ? undefined : Number(row.oldest),
      newest: Math.max(Number(row?.newest ?? 0), Number(row?.sealed ?? 0))
    })
  )

  /** Where the log begins, and what is wrong there already. */
  const beginning = Effect.fnUntraced(function* (oldest: number) {
    const pruned = yield* prunedTo(sql)
    const none: ReadonlyArray<Verification.Finding> = []
    const start: Verification.Start = { position: 0, hash: genesis }
    if (pruned === undefined) return { start, findings: none, noted: [] }
    if (oldest <= pruned.position) {
      // Retention is at work: what is left of what it takes leads to what was named.
      const seal = yield* sealAt(oldest - 1)
      const hash = oldest === 1 ? genesis : seal?.hash
      const start: Verification.Start = { position: oldest - 1, hash }
      return { start, findings: hash === undefined ? [noAnchor(oldest - 1)] : none, noted: [pruned] }
    }
    const anchor = yield* sealAt(pruned.position)
    const findings = anchor === undefined ? [noAnchor(pruned.position)] : none
    const other = anchor !== undefined && anchor.hash !== pruned.hash ? [otherAnchor(pruned.position)] : []
    return { start: pruned, findings: [...findings, ...other], noted: [] }
  })

  /** What comes before `from`, or before the oldest entry. */
  const startOf = Effect.fnUntraced(function* (from: number | undefined, oldest: number) {
    const first = yield* beginning(oldest)
    if (from === undefined || from <= first.start.position + 1) return first
    const position = from - 1
    const [row] = yield* entries(position - 1, position)
    const start: Verification.Start = { position, hash: row?.hash ?? (yield* sealAt(position))?.hash }
    return { start, findings: [], noted: first.noted }
  })

  const check = Effect.fn("AuditCheck.check")(function* (request: CheckRequest) {
    const { newest, oldest } = yield* ends
    const { findings: before, noted, start } = yield* startOf(request.from, oldest ?? newest + 1)
    const to = Math.min(newest, request.to ?? newest, start.position + (request.positionsMax ?? positionsMax))
    const verifier = Verification.make(start, [...noted, ...(request.noted ?? [])])
    const sealed = yield* seals(start.position, to)
    let given = 0
    for (let after = start.position; after < to;) {
      const rows = yield* entries(after, to)
      for (const row of rows) {
        const position = Number(row.position)
        for (; given < sealed.length && sealed[given]!.lastPosition < position; given++) verifier.seal(sealed[given]!)
        verifier.entry(row)
      }
      if (rows.length < pageSize) break
      after = Number(rows.at(-1)!.position)
      yield* Effect.yieldNow
    }
    for (; given < sealed.length; given++) verifier.seal(sealed[given]!)
    const complete = to >= newest
    const [following] = complete
      ? []
      : yield* Effect.map(
          sql<SealRow>`
        SELECT first_position, last_position, at, hash FROM audit_seal
        WHERE last_position > ${to} ORDER BY last_position LIMIT 1`,
          (rows) => rows.map(toSeal)
        )
    const report = verifier.end({ complete, following })
    const asked = request.to === undefined ? complete : to >= Math.min(request.to, newest)
    return {
      ...report,
      findings: [...before, ...report.findings],
      from: start.position + 1,
      to,
      next: asked ? undefined : to + 1,
      newest
    } satisfies Checked
  })

  return { check, entries, seals, ends, startOf }
}

const noAnchor = (position: number): Verification.Finding => ({
  what: "seal-missing",
  position,
  detail: `the seal of entry ${position}, behind which the log begins, is not there`
})

const otherAnchor = (position: number): Verification.Finding => ({
  what: "seal-changed",
  position,
  detail: `the seal of entry ${position}, behind which the log begins, is not the one that its removal names`
})
