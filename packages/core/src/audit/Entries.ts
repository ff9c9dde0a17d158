/**
 * Entries of the audit log, written with the changes they tell of: inside their
 * transaction, so that neither is there without the other.
 *
 * Promises: entries of one subject have their sequences in the order in which
 * their transactions commit, for these have its row locked, and entries are the
 * last thing a transaction writes: `inTransaction` sees to that, wherever within
 * they are written. What begins after another has committed has higher ones,
 * whatever it is about. Those of transactions side by side stand in any order,
 * also within a zone: none waits for another. They share the turns of their
 * zones until the commit (`audit/Turns`), and wait for who changes or removes
 * one. Sealed, and events, they become once they have committed (`audit/Sealer`).
 */
import { Context, Effect, Metric, Option } from "effect"
import type { SqlClient, SqlError } from "effect/sql"
import * as Generation from "../storage/Generation.ts"
import { insertRows } from "../storage/Rows.ts"
import type { Action } from "./Actions.ts"
import { canonicalJson, entryColumns } from "./Chain.ts"
import * as AuditMetrics from "./AuditMetrics.ts"
import * as Turns from "./Turns.ts"

/** Who did it. */
export interface Actor {
  /** The principal's name; `prism` for what follows from time or from what was found. */
  readonly name: string
  /** The address it spoke from; undefined for Prism itself. */
  readonly peer: string | undefined
  /** The id of the API request it came by. */
  readonly request?: string | undefined
}

export interface Entry {
  readonly actor: Actor
  readonly action: Action
  /** The zone it concerns; undefined where it concerns none. */
  readonly zone?: string | undefined
  /** What it was done to. */
  readonly subject: string
  /** Values to be written as JSON; never a secret. */
  readonly before?: unknown
  readonly after?: unknown
  readonly reason?: string | undefined
  /** What led to it: a word of `dns/Cause`, `plan:ID`, `generation:N`. */
  readonly cause?: string | undefined
  /** What became of it, where that is not `done`. */
  readonly result?: string | undefined
  /** Of the change; default: a new one for all entries of the transaction. */
  readonly generation?: number | undefined
  /** When it was, where that is not the time given for all. */
  readonly atMillis?: number | undefined
}

/** An entry by itself. */
export interface SingleEntry extends Entry {
  readonly atMillis: number
}

/** What Prism does of itself: what follows from time, and from what was found. */
export const prism: Actor = { name: "prism", peer: undefined }

const text = (value: unknown): string | null => (value === undefined ? null : canonicalJson(value))

const listeners = new WeakMap<SqlClient.SqlClient, Set<() => void>>()

/** Calls `listener` after each commit of entries in this process; what is returned ends that. A hint, never the truth. */
export const onCommitted = (sql: SqlClient.SqlClient, listener: () => void): (() => void) => {
  const known = listeners.get(sql) ?? new Set()
  listeners.set(sql, known)
  known.add(listener)
  return () => void known.delete(listener)
}

interface Timed {
  readonly entry: Entry
  readonly atMillis: number
}

interface Gathering {
  readonly entries: Array<Timed>
  /** What comes behind the entries, by what it is. */
  readonly last: Map<string, Effect.Effect<void, SqlError.SqlError>>
}

/** What the transaction around writes when it ends; undefined: it is written at once. */
const Gathered = Context.Reference<Gathering | undefined>("@prism-dns/core/audit/Entries/Gathered", {
  defaultValue: () => undefined
})

/**
 * Writes rows that many transactions write, such as a number that each of them raises, behind the entries of the transaction
 * around: once for each `key`, in the order of the keys. Whoever has such a row shares its turns already, so that no two wait
 * for each other. Outside of `inTransaction` it is done at once, and the caller has written its entries before.
 */
export const atEnd = (
  key: string,
  write: Effect.Effect<void, SqlError.SqlError>
): Effect.Effect<void, SqlError.SqlError> =>
  Effect.flatMap(Gathered, (gathered) =>
    gathered === undefined ? write : Effect.sync(() => void gathered.last.set(key, write))
  )

const end = Effect.fnUntraced(function* (sql: SqlClient.SqlClient, { entries, last }: Gathering) {
  yield* insert(sql, entries)
  for (const key of [...last.keys()].sort()) yield* last.get(key)!
})

/**
 * As `sql.withTransaction`, with the entries written within as the last write of all. One within another leaves its entries
 * to the outer one, unless it fails.
 */
export const inTransaction =
  (sql: SqlClient.SqlClient) =>
  <A, E, R>(effect: Effect.Effect<A, E, R>): Effect.Effect<A, E | SqlError.SqlError, R> =>
    Effect.flatMap(Gathered, (outer) => {
      // Anew for each attempt: a transaction may be tried again.
      const gathering: Gathering = { entries: [], last: new Map() }
      return effect.pipe(
        Effect.provideService(Gathered, gathering),
        Effect.tap(() => (outer === undefined ? end(sql, gathering) : Effect.void)),
        sql.withTransaction,
        Effect.tap(() =>
          Effect.sync(() => {
            outer?.entries.push(...gathering.entries)
            for (const [key, write] of gathering.last) outer?.last.set(key, write)
          })
        )
      )
    })

/** Ends a transaction that is not to be committed, with what was found in it. */
class Undone<A> {
  readonly _tag = "Undone"
  readonly value: A
  constructor(value: A) {
    this.value = value
  }
}

/**
 * What `effect` comes to, in a transaction that is then undone: nothing of it stays, no entry is written, and nothing follows
 * a commit.
 */
export const undone =
  (sql: SqlClient.SqlClient) =>
  <A, E, R>(effect: Effect.Effect<A, E, R>): Effect.Effect<A, E | SqlError.SqlError, R> =>
    effect.pipe(
      Effect.flatMap((value) => Effect.fail(new Undone(value))),
      inTransaction(sql),
      Effect.catchIf(
        (error): error is Undone<A> => error instanceof Undone,
        ({ value }) => Effect.succeed(value)
      )
    )

const insert = Effect.fnUntraced(function* (sql: SqlClient.SqlClient, timed: ReadonlyArray<Timed>) {
  if (timed.length === 0) return
  const isNew = timed.some(({ entry }) => entry.generation === undefined)
  const generation = isNew ? yield* Generation.next(sql) : 0
  const turns = Turns.sharing(
    sql,
    timed.map(({ entry }) => entry.zone ?? "")
  )
  yield* insertRows(
    sql,
    "audit_entry",
    entryColumns,
    timed.map(({ atMillis, entry }) => ({
      at: atMillis,
      actor: entry.actor.name,
      peer: entry.actor.peer ?? null,
      action: entry.action,
      zone: entry.zone ?? null,
      subject: entry.subject,
      generation: entry.generation ?? generation,
      before: text(entry.before),
      after: text(entry.after),
      reason: entry.reason ?? null,
      cause: entry.cause ?? null,
      request: entry.actor.request ?? null,
      result: entry.result ?? "done"
    })),
    { first: turns }
  )
  const counts = new Map<string, number>()
  for (const { entry } of timed) counts.set(entry.action, (counts.get(entry.action) ?? 0) + 1)
  yield* sql.afterCommit(
    Effect.suspend(() => {
      for (const listener of listeners.get(sql) ?? []) listener()
      return Effect.forEach(
        counts,
        ([action, count]) => Metric.update(Metric.withAttributes(AuditMetrics.auditEntries, { action }), count),
        { discard: true }
      )
    })
  )
})

/**
 * Writes entries in one statement, and counts them once the transaction around has committed. The last write of it, or
 * anywhere within `inTransaction`.
 */
export const writeAll = Effect.fnUntraced(function* (
  sql: SqlClient.SqlClient,
  entries: ReadonlyArray<Entry>,
  atMillis: number
) {
  if (entries.length === 0) return
  const timed = entries.map((entry) => ({ entry, atMillis: entry.atMillis ?? atMillis }))
  const gathered = yield* Gathered
  const isWithin = Option.isSome(yield* Effect.serviceOption(sql.transactionService))
  if (!isWithin) yield* sql.withTransaction(insert(sql, timed))
  else if (gathered === undefined) yield* insert(sql, timed)
  else gathered.entries.push(...timed)
})

/** Writes one entry. */
export const write = (sql: SqlClient.SqlClient, { atMillis, ...entry }: SingleEntry) => writeAll(sql, [entry], atMillis)
