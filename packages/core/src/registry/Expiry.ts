/**
 * What time does to hosts: leases pass, and records of hosts that stay away
 * are withdrawn, as the zone's policy says.
 *
 * Promises: nothing expires within one lease after a start, nor after a pause
 * of the whole process (a suspended machine, a stopped process, a clock that
 * jumped) or of the database, because silence of ours is not silence of theirs;
 * a host that beats is not expired. The database decides; this loop only asks it in time.
 */
import { Cause, Clock, Duration, Effect, Layer } from "effect"
import { SqlClient, type SqlError } from "effect/sql"
import type { Host } from "../domain/Host.ts"
import { Outbox } from "../dns/Outbox.ts"
import { Zones } from "../dns/Zones.ts"
import * as Generation from "../storage/Generation.ts"
import { detailOf } from "../storage/SqlFailure.ts"
import type { HostEvent } from "./Decision.ts"
import { placesOf } from "./HostRecords.ts"
import * as HostRepo from "./HostRepo.ts"
import { Leases } from "./Leases.ts"

export interface ExpiryOptions {
  /** How long a host is online after its last beat. */
  readonly leaseMillis: number
  /** How often leases are looked at. */
  readonly sweepMillis: number
  /** How often `last seen` is written. */
  readonly flushMillis: number
  /** Hosts in one transaction at the most. */
  readonly batchMax: number
}

export const defaultOptions: ExpiryOptions = {
  leaseMillis: 150_000,
  sweepMillis: 5000,
  flushMillis: 10_000,
  batchMax: 500
}

const prism: HostRepo.Actor = { name: "prism", peer: undefined }

export const layer = (options: Partial<ExpiryOptions> = {}) =>
  Layer.effectDiscard(run({ ...defaultOptions, ...options }))

const run = Effect.fnUntraced(function* (options: ExpiryOptions) {
  const sql = yield* SqlClient.SqlClient
  const hosts = HostRepo.make(sql)
  const zones = yield* Zones
  const outbox = yield* Outbox
  const leases = yield* Leases

  /** Writes when hosts were last seen; false when there was nothing to write. */
  const flush = Effect.fn("Expiry.flush")(function* () {
    const seen = leases.unflushed()
    for (let i = 0; i < seen.length; i += options.batchMax) {
      const batch = seen.slice(i, i + options.batchMax)
      const flushed = yield* hosts.flushSeen(batch)
      leases.flushed(batch)
      if (flushed.size < batch.length) leases.forget(batch.filter(({ id }) => !flushed.has(id)))
      yield* Effect.yieldNow
    }
    return seen.length > 0
  })

  const change = Effect.fnUntraced(function* (
    found: ReadonlyArray<Host>,
    event: HostEvent,
    nowMillis: number,
    apply: (host: Host, generation: number) => Host
  ) {
    const generation = yield* Generation.next(sql)
    const changes = found.map((before) => ({ event, before, after: apply(before, generation), actor: prism }))
    yield* hosts.write(changes, nowMillis)
    yield* outbox.mark(
      changes.flatMap(({ after }) => placesOf(zones, after)),
      generation,
      nowMillis,
      event === "withdrawn" || changes.every(({ after }) => after.withdrawnSinceMillis !== undefined)
        ? "withdrawn"
        : "expired"
    )
  })

  const wake = (found: ReadonlyArray<Host>) =>
    outbox.wake(new Set(found.flatMap((host) => placesOf(zones, host)).map((place) => place.zone)))

  /** Turns hosts offline whose lease has passed; returns how many were looked at. */
  const expire = Effect.fn("Expiry.expire")(function* (nowMillis: number) {
    const before = nowMillis - options.leaseMillis
    const expired = yield* Effect.gen(function* () {
      const found = yield* hosts.lockExpired(before, options.batchMax)
      // A beat may have come since the flush. Whoever is dropped here goes the long way with the next beat, after us.
      const silent = found.filter((host) => leases.drop(host.fqdn, before))
      if (silent.length > 0) {
        yield* change(silent, "offline", nowMillis, (host, generation) => {
          const policy = zones.find(host.zone)?.policy.whenOffline
          const atOnce = policy?._tag === "Withdraw" && Duration.toMillis(policy.after) === 0
          return {
            ...host,
            state: "offline",
            generation,
            offlineSinceMillis: nowMillis,
            withdrawnSinceMillis: atOnce ? nowMillis : undefined
          }
        })
      }
      return silent
    }).pipe(sql.withTransaction)
    yield* wake(expired)
    yield* HostRepo.countAudit(expired.map(() => ({ event: "offline" })))
    return expired.length
  })

  /** Withdraws the records of hosts that have been offline for as long as their zone allows. */
  const withdraw = Effect.fn("Expiry.withdraw")(function* (nowMillis: number) {
    for (const zone of zones.all) {
      const policy = zone.policy.whenOffline
      if (policy._tag === "Keep") continue
      const before = nowMillis - Duration.toMillis(policy.after)
      let withdrawn: ReadonlyArray<Host>
      do {
        withdrawn = yield* Effect.gen(function* () {
          const found = yield* hosts.lockWithdrawable(zone.name, before, options.batchMax)
          if (found.length > 0) {
            yield* change(found, "withdrawn", nowMillis, (host, generation) => ({
              ...host,
              generation,
              withdrawnSinceMillis: nowMillis
            }))
          }
          return found
        }).pipe(sql.withTransaction)
        yield* wake(withdrawn)
        yield* HostRepo.countAudit(withdrawn.map(() => ({ event: "withdrawn" })))
      } while (withdrawn.length === options.batchMax)
    }
  })

  const guarded = (name: string, effect: Effect.Effect<void, SqlError.SqlError>) =>
    effect.pipe(
      Effect.catch((error) =>
        Effect.logWarning(`${name} failed, will try again`).pipe(Effect.annotateLogs({ reason: detailOf(error) }))
      ),
      // A fault of ours must not end the loop, and hosts with it stay online for ever.
      Effect.catchDefect((defect) => Effect.logError(`${name} failed, will try again`, Cause.die(defect)))
    )

  // Nobody can have renewed a lease while we were not there: count from when we came, or came back.
  let graceUntilMillis = (yield* Clock.currentTimeMillis) + options.leaseMillis
  let lastSweepMillis = yield* Clock.currentTimeMillis

  const sweep = Effect.gen(function* () {
    const nowMillis = yield* Clock.currentTimeMillis
    const pauseMillis = nowMillis - lastSweepMillis
    lastSweepMillis = nowMillis
    if (pauseMillis < 0 || pauseMillis > options.sweepMillis * 3 + 5000) {
      graceUntilMillis = nowMillis + options.leaseMillis
      yield* Effect.logWarning("the process was paused or the clock jumped; no lease expires for one lease").pipe(
        Effect.annotateLogs({ pauseMillis })
      )
    }
    if (nowMillis < graceUntilMillis) {
      yield* sql`SELECT id FROM host LIMIT 1` // whether the database is there
      return
    }
    yield* flush()
    while ((yield* expire(nowMillis)) === options.batchMax) yield* Effect.yieldNow
    yield* withdraw(nowMillis)
  }).pipe(
    // Nobody can renew a lease by a database that is away: count from when it is back.
    Effect.tapError(() =>
      Effect.map(Clock.currentTimeMillis, (nowMillis) => {
        graceUntilMillis = nowMillis + options.leaseMillis
      })
    )
  )

  yield* guarded("the sweep of leases", sweep).pipe(
    Effect.andThen(Effect.sleep(options.sweepMillis)),
    Effect.forever,
    Effect.forkScoped
  )
  yield* Effect.sleep(options.flushMillis).pipe(
    Effect.andThen(guarded("the flush of last seen", Effect.asVoid(flush()))),
    Effect.forever,
    Effect.forkScoped
  )
  // What was seen last is known after a restart too.
  yield* Effect.addFinalizer(() => guarded("the last flush of last seen", Effect.asVoid(flush())))
})
