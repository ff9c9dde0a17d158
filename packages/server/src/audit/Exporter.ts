/**
 * Sends the audit log to the targets of the configuration, each by a loop of its
 * own.
 *
 * Promises: each target gets every entry that the log holds, in order, from the
 * oldest on when it is new; what it has had is kept in the database, so that after
 * a crash or a broken connection it gets some entries once more and misses none.
 * A target that is away holds up nobody else; it is tried again with growing
 * pauses, and gets what it missed, as far as retention still has it: what it has
 * not is named in the log. To a webhook entries go as events (`events/Webhooks`).
 */
import * as AuditCheck from "@prism-dns/core/audit/AuditCheck"
import { AuditLog } from "@prism-dns/core/audit/AuditLog"
import * as AuditMetrics from "@prism-dns/core/audit/AuditMetrics"
import * as Jobs from "@prism-dns/core/cluster/Jobs"
import { detailOf } from "@prism-dns/core/storage/SqlFailure"
import { Cause, Clock, Effect, Layer, Metric } from "effect"
import { SqlClient } from "effect/sql"
import { nameOf, type TargetConfig } from "./TargetConfig.ts"
import * as Targets from "./Targets.ts"

export interface ExporterOptions {
  /** The name of this machine, for syslog. */
  readonly host: string
  /** Entries in one batch at the most. */
  readonly batchMax: number
  /** The first and the longest pause after a failure, in milliseconds. */
  readonly retryMillisMin: number
  readonly retryMillisMax: number
  /** How long one batch may take, in milliseconds. */
  readonly sendMillisMax: number
}

export const defaultOptions: ExporterOptions = {
  host: "-",
  batchMax: 500,
  retryMillisMin: 1000,
  retryMillisMax: 60_000,
  sendMillisMax: 60_000
}

const targetOf = (config: TargetConfig, { host }: ExporterOptions): Targets.Target =>
  config._tag === "File"
    ? Targets.file(config.path)
    : Targets.syslog(config.server, { facility: config.facility, host }, config.ca)

export const layer = (targets: ReadonlyArray<TargetConfig>, given: Partial<ExporterOptions> = {}) => {
  const options = { ...defaultOptions, ...given }
  return layerOf(
    targets.map((config) => ({ name: nameOf(config), target: targetOf(config, options) })),
    options
  )
}

/** With targets as they are, for tests. */
export const layerOf = (
  targets: ReadonlyArray<{ readonly name: string; readonly target: Targets.Target }>,
  options: ExporterOptions = defaultOptions
) =>
  Layer.effectDiscard(
    Effect.forEach(targets, ({ name, target }) => run(name, target, options), {
      discard: true
    })
  )

/** What was sent and is not known to have arrived. */
interface Sent {
  readonly position: number
  readonly atMillis: number
}

const run = Effect.fnUntraced(function* (name: string, target: Targets.Target, options: ExporterOptions) {
  const sql = yield* SqlClient.SqlClient
  const log = yield* AuditLog
  const check = AuditCheck.make(sql)
  const lag = Metric.withAttributes(AuditMetrics.exportLag, { target: name })
  const failuresTotal = Metric.withAttributes(AuditMetrics.exportFailures, { target: name })
  let failures = 0
  let sent: ReadonlyArray<Sent> = []

  const load = Effect.map(
    sql<{ readonly position: number | bigint }>`SELECT position FROM audit_export WHERE target = ${name}`,
    ([row]) => Number(row?.position ?? 0)
  )

  // A server that stood still does not take back how far another has come meanwhile.
  const save = (position: number) => sql`
    INSERT INTO audit_export (target, position) VALUES (${name}, ${position})
    ON CONFLICT (target) DO UPDATE SET position = excluded.position
    WHERE audit_export.position < excluded.position`

  /** Keeps what has arrived by now. */
  const settle = Effect.gen(function* () {
    const nowMillis = yield* Clock.currentTimeMillis
    const arrived = sent.findLast(({ atMillis }) => nowMillis - atMillis >= target.settleMillis)
    if (arrived === undefined) return
    yield* save(arrived.position)
    sent = sent.filter(({ position }) => position > arrived.position)
  })

  /** The next batch behind `position`; undefined when there is none. */
  const batchBehind = Effect.fnUntraced(function* (position: number) {
    const { newest, oldest } = yield* check.ends
    if (oldest === undefined || position >= newest) return undefined
    const from = Math.max(position + 1, oldest)
    if (from > position + 1 && position > 0) {
      yield* Effect.logError("entries of the audit were taken by its retention before they could be sent").pipe(
        Effect.annotateLogs({ target: name, from: position + 1, to: from - 1 })
      )
    }
    const { start } = yield* check.startOf(from, oldest)
    const rows = yield* check.entries(from - 1, newest, options.batchMax)
    const last = rows.at(-1)
    if (last === undefined) return undefined
    return {
      start,
      rows,
      seals: yield* check.seals(from - 1, Number(last.position)),
      last: Number(last.position),
      newest
    }
  })

  const follow = Effect.gen(function* () {
    sent = []
    let position = yield* load
    for (;;) {
      // What was sent on a connection that broke may be lost: it is sent once more.
      if (sent.length > 0 && !target.isWell())
        return yield* new Targets.TargetFailed({ detail: "the connection broke" })
      yield* settle
      const batch = yield* batchBehind(position)
      if (batch === undefined) {
        yield* Metric.update(lag, 0)
        yield* sent.length > 0
          ? Effect.sleep(target.settleMillis)
          : Effect.timeoutOption(log.awaitBeyond(position), "10 seconds")
        continue
      }
      yield* target.send(batch).pipe(
        Effect.timeoutOrElse({
          duration: options.sendMillisMax,
          orElse: () => Effect.fail(new Targets.TargetFailed({ detail: "it takes too long" }))
        })
      )
      position = batch.last
      sent = [...sent, { position, atMillis: yield* Clock.currentTimeMillis }]
      if (target.settleMillis === 0) yield* settle
      yield* Metric.update(lag, batch.newest - position)
      if (failures > 0) {
        yield* Effect.logInfo("the audit is sent again").pipe(Effect.annotateLogs({ target: name }))
        failures = 0
      }
    }
  })

  const failed = Effect.fnUntraced(function* (cause: Cause.Cause<unknown>) {
    yield* target.close
    yield* Metric.update(failuresTotal, 1)
    if (failures === 0) {
      yield* Effect.logWarning("the audit could not be sent, will try again").pipe(
        Effect.annotateLogs({ target: name, reason: detailOf(Cause.squash(cause)) })
      )
    }
    failures += 1
    yield* Effect.sleep(Math.min(options.retryMillisMax, options.retryMillisMin * 2 ** Math.min(failures - 1, 10)))
  })

  yield* Effect.addFinalizer(() => target.close)
  yield* follow.pipe(
    Effect.catchCause((cause) => (Cause.hasInterruptsOnly(cause) ? Effect.interrupt : failed(cause))),
    Effect.forever,
    Effect.ensuring(target.close),
    (loop) => Jobs.once(`audit-export/${name}`, loop)
  )
})
