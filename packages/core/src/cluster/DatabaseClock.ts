/**
 * The time of day as the database has it.
 *
 * Servers that share a registry compare times that others wrote: when a host was
 * last seen, until when a token is good. So all of them go by one clock, the
 * database's, and the clocks of their machines may be wrong. It is asked before
 * all else starts, and with each proof of life (`cluster/ClusterPostgres`);
 * in between the time goes on by a clock that nobody sets.
 *
 * Promises: small differences are made up for little by little, and time never
 * goes back by them; a larger one, as after a machine slept, the database's clock
 * was set, or another server took the place of the database, is followed at
 * once, back too, since servers that disagree by more would expire each other's
 * hosts. It is said when the machine's clock is wrong.
 */
import { Clock, Context, type Duration, Effect, Layer, Metric } from "effect"
import type { SqlError } from "effect/sql"
import * as ClusterMetrics from "./ClusterMetrics.ts"
import type { ClockSample } from "./ClusterPostgres.ts"
import { OwnConnections } from "./OwnConnection.ts"

/** A difference of more than this is followed at once, in milliseconds. */
export const stepMillis = 2000
/** A smaller one is made up for at this share of the time that passes. */
export const slewShare = 0.1
/** The machine's clock is said to be wrong when it differs by more, in milliseconds. */
export const warnMillis = 1000
/** How often the database is asked at the start: the quickest answer counts. */
const questions = 3

export class DatabaseClock extends Context.Service<
  DatabaseClock,
  {
    /** Notes what the database's clock said, and between which readings of the monotonic clock. */
    readonly observe: (sample: ClockSample) => Effect.Effect<void>
    /** The machine's own time of day, in milliseconds. */
    readonly machineMillis: () => number
    /** By how much the machine's clock was ahead of the database's when it was looked last, in milliseconds. */
    readonly offsetMillis: () => number
  }
>()("@prism-dns/core/cluster/DatabaseClock") {
  /** The clock of all that is built on it. */
  static readonly layer: Layer.Layer<DatabaseClock, SqlError.SqlError, OwnConnections> = Layer.effectContext(
    Effect.suspend(() => start)
  )

  /** One server alone goes by the clock of its machine. */
  static readonly layerMachine: Layer.Layer<DatabaseClock> = Layer.effect(
    DatabaseClock,
    Clock.clockWith((machine) =>
      Effect.succeed(
        DatabaseClock.of({
          observe: () => Effect.void,
          machineMillis: () => machine.currentTimeMillisUnsafe(),
          offsetMillis: () => 0
        })
      )
    )
  )
}

/** The clock over `machine`, which has to be told the time before it is read. */
export const make = (machine: Clock.Clock) => {
  const elapsed = () => Number(machine.monotonicTimeNanosUnsafe()) / 1e6
  /** The time at one moment, and what is still to be made up for from then on. */
  let anchor = { elapsed: elapsed(), millis: machine.currentTimeMillisUnsafe(), difference: 0 }
  let isSet = false
  let offset = 0
  let isWrong = false

  const at = (elapsedMillis: number): number => {
    const passed = elapsedMillis - anchor.elapsed
    const made = Math.min(Math.abs(anchor.difference), Math.max(0, passed) * slewShare)
    return anchor.millis + passed + Math.sign(anchor.difference) * made
  }

  const observe = (sample: ClockSample): Effect.Effect<void> =>
    Effect.suspend(() => {
      const now = elapsed()
      // The answer was given somewhere in between.
      const uncertain = Math.max(0, sample.afterElapsed - sample.beforeElapsed) / 2
      const wanted = sample.databaseMillis + (now - (sample.beforeElapsed + uncertain))
      const difference = wanted - at(now)
      if (!isSet || Math.abs(difference) > stepMillis + uncertain) {
        anchor = { elapsed: now, millis: wanted, difference: 0 }
      } else {
        const sure = Math.abs(difference) <= uncertain ? 0 : difference - Math.sign(difference) * uncertain
        anchor = { elapsed: now, millis: at(now), difference: sure }
      }
      isSet = true
      offset = machine.currentTimeMillisUnsafe() - wanted
      const wasWrong = isWrong
      isWrong = Math.abs(offset) > warnMillis + uncertain
      return Effect.andThen(Metric.update(ClusterMetrics.clockOffset, offset / 1000), () =>
        isWrong === wasWrong
          ? Effect.void
          : (isWrong
              ? Effect.logWarning("the clock of this machine differs from the database's, which the server goes by")
              : Effect.logInfo("the clock of this machine agrees with the database's again")
            ).pipe(Effect.annotateLogs({ aheadMillis: Math.round(offset) }))
      )
    })

  const millis = () => at(elapsed())
  const nanos = () => {
    const now = millis()
    const whole = Math.floor(now)
    return BigInt(whole) * 1_000_000n + BigInt(Math.floor((now - whole) * 1e6))
  }
  const clock: Clock.Clock = {
    currentTimeMillisUnsafe: () => Math.floor(millis()),
    currentTimeMillis: Effect.sync(() => Math.floor(millis())),
    currentTimeNanosUnsafe: nanos,
    currentTimeNanos: Effect.sync(nanos),
    monotonicTimeNanosUnsafe: () => machine.monotonicTimeNanosUnsafe(),
    monotonicTimeNanos: machine.monotonicTimeNanos,
    sleep: (duration: Duration.Duration) => machine.sleep(duration)
  }
  return {
    clock,
    service: DatabaseClock.of({
      observe,
      machineMillis: () => machine.currentTimeMillisUnsafe(),
      offsetMillis: () => offset
    })
  }
}

const start = Effect.scoped(
  Effect.gen(function* () {
    const machine = yield* Clock.Clock
    const elapsed = () => Number(machine.monotonicTimeNanosUnsafe()) / 1e6
    const sql = yield* (yield* OwnConnections).open
    const { clock, service } = make(machine)
    let best: ClockSample | undefined
    for (let i = 0; i < questions; i++) {
      const beforeElapsed = elapsed()
      const [row] = yield* sql<{ readonly at: number | bigint }>`
        SELECT CAST(EXTRACT(EPOCH FROM clock_timestamp()) * 1000 AS BIGINT) AS at`
      const sample = { databaseMillis: Number(row!.at), beforeElapsed, afterElapsed: elapsed() }
      const took = (each: ClockSample) => each.afterElapsed - each.beforeElapsed
      if (best === undefined || took(sample) < took(best)) best = sample
    }
    yield* service.observe(best!)
    return Context.make(DatabaseClock, service).pipe(Context.add(Clock.Clock, clock))
  })
)
