/**
 * The audit of refusals: who was refused what, and why.
 *
 * `record` writes nothing itself: a loop writes entries in batches, each kind
 * of refusal once for each batch with its number. Promises: every refusal is
 * counted in the metric at once; memory and rows per second are bounded however
 * many there are, and what has no row of its own is one entry with its number;
 * what waits is written when the server stops. A database that is away delays
 * entries, within the bound. Nothing else is changed by a refusal.
 */
import { Cause, Clock, Context, Effect, Layer, Metric } from "effect"
import { SqlClient } from "effect/sql"
import { authFailures, refusalsLeftOut } from "../auth/AuthMetrics.ts"
import type { RefusalCode } from "../auth/RefusalCode.ts"
import * as Generation from "../storage/Generation.ts"
import { detailOf } from "../storage/SqlFailure.ts"
import * as Audit from "./Entries.ts"

export interface Refusal {
  readonly code: RefusalCode
  /** A sentence for people; no secrets. */
  readonly message: string
  /** The principal's name, or `anonymous`, or `unknown` when nobody has proved anything. */
  readonly actor: string
  readonly peer: string | undefined
  /** What it was about: a host's name, a token's name, the fingerprint of a public key; empty when nothing is known. */
  readonly subject: string
}

export interface RefusalsOptions {
  /** Entries in one batch at the most; what is beyond is one entry more. */
  readonly entriesMax: number
  /** Between two batches, in milliseconds. */
  readonly flushMillis: number
  /** How long the last batch may take when the server stops, in milliseconds. */
  readonly stopMillisMax: number
}

/** At the most 21 rows a second. */
export const defaultOptions: RefusalsOptions = { entriesMax: 20, flushMillis: 1000, stopMillisMax: 2000 }

/** The action of the entries. */
export const action = "access.refused"

/** Their result. */
const result = "refused"

/** Counts refusals by their code. */
const counter = Effect.map(Effect.context(), (context) => {
  /** Counts refusals by their code. */
  const counters = new Map<RefusalCode, Metric.Metric<number, unknown>>()
  return (code: RefusalCode) => {
    const known = counters.get(code)
    const metric = known ?? Metric.withAttributes(authFailures, { reason: code })
    if (known === undefined) counters.set(code, metric)
    metric.updateUnsafe(1, context)
  }
})

export class Refusals extends Context.Service<
  Refusals,
  {
    readonly record: (refusal: Refusal) => void
  }
>()("@prism-dns/core/audit/Refusals") {
  static readonly layer = (options: Partial<RefusalsOptions> = {}) => Layer.effect(Refusals, run(options))

  /** Only the metric, for tests without a database. */
  static readonly layerNone: Layer.Layer<Refusals> = Layer.effect(
    Refusals,
    Effect.map(counter, (count) => Refusals.of({ record: ({ code }) => count(code) }))
  )
}

/** Refusals of one kind: the first of them, and how many there were. */
interface Pending {
  readonly refusal: Refusal
  readonly atMillis: number
  count: number
}

/** Characters of a column at the most. What is longer was never going to be read. */
const charactersMax = 512

const shortened = (text: string): string =>
  writable(text.length > charactersMax ? `${text.slice(0, charactersMax)}…` : text)

/**
 * Text that every database takes, and that does nothing to a terminal: what was refused may have been sent by anybody, and
 * one entry that cannot be written would hold up all of them.
 */
const writable = (text: string): string => text.toWellFormed().replace(/\p{Cc}/gu, "\ufffd")

const keyOf = ({ actor, code, message, peer, subject }: Refusal): string =>
  JSON.stringify([code, actor, peer, subject, message])

/** `record`, and the turn of the loop: writes what waits; what could not be written waits on. */
export const make = Effect.fnUntraced(function* (given: Partial<RefusalsOptions> = {}) {
  const options = { ...defaultOptions, ...given }
  const sql = yield* SqlClient.SqlClient
  const clock = yield* Clock.Clock
  const context = yield* Effect.context()
  const count = yield* counter
  let pending = new Map<string, Pending>()
  /** How many have no entry of their own, by their code. */
  let leftOut = new Map<RefusalCode, number>()

  const add = (entry: Pending) => {
    const key = keyOf(entry.refusal)
    const known = pending.get(key)
    if (known !== undefined) known.count += entry.count
    else if (pending.size < options.entriesMax) pending.set(key, entry)
    else leaveOut(entry.refusal.code, entry.count)
  }

  const leaveOut = (code: RefusalCode, number: number) => leftOut.set(code, (leftOut.get(code) ?? 0) + number)

  const record: Refusals["Service"]["record"] = (refusal) => {
    count(refusal.code)
    add({ refusal, atMillis: clock.currentTimeMillisUnsafe(), count: 1 })
  }

  const write = (entries: ReadonlyArray<Pending>, rest: ReadonlyMap<RefusalCode, number>) =>
    Effect.gen(function* () {
      const nowMillis = yield* Clock.currentTimeMillis
      const generation = yield* Generation.current(sql)
      const rows = entries.map(({ atMillis, count, refusal }): Audit.Entry => ({
        atMillis,
        actor: { name: shortened(refusal.actor), peer: refusal.peer },
        action,
        subject: shortened(refusal.subject),
        generation,
        reason: shortened(`${refusal.code}: ${refusal.message}`) + (count === 1 ? "" : ` (${count} times)`),
        result
      }))
      const numbers = [...rest].map(([code, number]) => `${code} ${number}`)
      if (numbers.length > 0) {
        rows.push({
          actor: Audit.prism,
          action,
          subject: "",
          generation,
          reason: `more refusals than are written one by one: ${numbers.join(", ")}`,
          result
        })
      }
      yield* Audit.writeAll(sql, rows, nowMillis)
      const left = [...rest.values()].reduce((sum, number) => sum + number, 0)
      if (left > 0) refusalsLeftOut.updateUnsafe(left, context)
    })

  const flush = Effect.suspend(() => {
    if (pending.size === 0 && leftOut.size === 0) return Effect.void
    const entries = [...pending.values()]
    const rest = leftOut
    pending = new Map()
    leftOut = new Map()
    return write(entries, rest).pipe(
      Effect.onError(() =>
        Effect.sync(() => {
          const since = [...pending.values()]
          const sinceLeftOut = leftOut
          pending = new Map(entries.map((entry) => [keyOf(entry.refusal), entry]))
          leftOut = rest
          for (const entry of since) add(entry)
          for (const [code, number] of sinceLeftOut) leaveOut(code, number)
        })
      )
    )
  })

  return { record, flush }
})

const run = Effect.fnUntraced(function* (given: Partial<RefusalsOptions>) {
  const options = { ...defaultOptions, ...given }
  const { flush, record } = yield* make(options)
  const turn = flush.pipe(
    Effect.catchTag("SqlError", (error) =>
      Effect.logWarning("refusals could not be written to the audit, they wait").pipe(
        Effect.annotateLogs({ reason: detailOf(error) })
      )
    ),
    Effect.catchDefect((defect) =>
      Effect.logError("refusals could not be written to the audit, they wait", Cause.die(defect))
    )
  )
  yield* Effect.addFinalizer(() => Effect.timeoutOption(turn, options.stopMillisMax))
  yield* turn.pipe(Effect.delay(options.flushMillis), Effect.forever, Effect.forkScoped)
  return Refusals.of({ record })
})
