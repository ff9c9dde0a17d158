/**
 * Replicas of a PostgreSQL database that answer reads which may be a little old.
 *
 * How old a replica is, is told by its data: the servers of the cluster write
 * when they last proved that they live, twice a second, by the database's clock.
 * A replica that has that of some time has all that was committed before it,
 * whatever its log says, and whomever it follows; one that follows nobody grows
 * old. Clients are cut off from a replica that does not answer.
 */
import { PgClient, PgConnection } from "@effect/sql-pg"
import * as Loss from "@prism-dns/core/storage/Loss"
import type { Replica, Replicas } from "@prism-dns/core/storage/Reads"
import { detailOf } from "@prism-dns/core/storage/SqlFailure"
import { Cause, Clock, Duration, Effect, Metric, Schema, Scope } from "effect"
import * as Reactivity from "effect/reactivity/Reactivity"
import type { SqlClient } from "effect/sql"
import * as DatabaseMetrics from "./DatabaseMetrics.ts"
import type { PoolOptions } from "./PostgresHosts.ts"
import { makeSockets } from "./PostgresServers.ts"
import { nameOf, type PostgresHost, type PostgresUrl } from "./PostgresUrl.ts"

export interface ReplicasOptions {
  /** How far behind a replica may be, in milliseconds. */
  readonly lagMillisMax: number
  /** How often each is asked how far it has come. */
  readonly probeMillis: number
  /** How long it may take to say so, or to connect. */
  readonly answerMillisMax: number
  /** Callers that are known to have written; beyond it the oldest are forgotten, and what they see may be older than that. */
  readonly callersMax: number
}

export const defaultOptions: ReplicasOptions = {
  lagMillisMax: 5000,
  probeMillis: 500,
  answerMillisMax: 2000,
  callersMax: 10_000
}

const question = `
  SELECT
    (SELECT system_identifier::text FROM pg_control_system()) AS system,
    (SELECT MAX(renewed_at) FROM instance)::text AS renewed,
    pg_backend_pid() AS pid`

const Answer = Schema.Struct({
  system: Schema.String,
  renewed: Schema.NullOr(Schema.String),
  pid: Schema.Number
})
const decodeAnswer = Schema.decodeUnknownEffect(Answer)

const systemOf = (sql: SqlClient.SqlClient) =>
  Effect.map(
    sql<{ readonly system: string }>`SELECT system_identifier::text AS system FROM pg_control_system()`,
    ([row]) => row!.system
  )

/** Follows the replicas of `url`; `primary` is a client of the database that is written. */
export const make = Effect.fnUntraced(function* (
  url: PostgresUrl,
  pool: PoolOptions,
  primary: SqlClient.SqlClient,
  given: Partial<ReplicasOptions> = {}
): Effect.fn.Return<Replicas, never, Scope.Scope | Reactivity.Reactivity> {
  const options = { ...defaultOptions, ...given }
  const scope = yield* Effect.scope
  const reactivity = yield* Reactivity.Reactivity
  const replicas = new Map<string, Replica>()
  /** When callers wrote last, the one who wrote last at the end. */
  const writers = new Map<string, number>()
  let system: string | undefined

  const watch = Effect.fnUntraced(function* (host: PostgresHost) {
    const name = nameOf(host)
    const sockets = makeSockets(host)
    const probes = makeSockets(host)
    let client: PgClient.PgClient | undefined
    let isWarned = false

    const ask = Effect.fnUntraced(function* (connection: PgConnection.PgConnection) {
      const limit = Effect.andThen(
        Effect.sleep(options.answerMillisMax),
        Effect.sync(() => probes.cut(`it did not answer within ${options.answerMillisMax} ms`))
      )
      const { rows } = yield* Effect.scoped(
        Effect.andThen(Effect.forkScoped(limit), connection.query(question, [], false))
      )
      const answer = yield* decodeAnswer(rows[0])
      system ??= yield* systemOf(primary)
      if (answer.system !== system) return yield* Effect.fail(new Error("it holds another database"))
      if (client === undefined) {
        client = yield* PgClient.make({
          ...pool,
          ...host,
          url: url.url,
          stream: sockets.open,
          prepare: answer.pid === connection.processId
        }).pipe(
          Effect.map(Loss.telling),
          Scope.provide(scope),
          Effect.provideService(Reactivity.Reactivity, reactivity)
        )
      }
      sockets.allow()
      if (answer.renewed !== null) replicas.set(name, { client, asOfMillis: Number(answer.renewed) })
      isWarned = false
    })

    yield* Effect.gen(function* () {
      const connection = yield* PgConnection.make({
        ...host,
        url: url.url,
        stream: probes.open,
        connectTimeout: Duration.millis(options.answerMillisMax),
        applicationName: "prism-dns watch",
        prepare: false
      })
      while (true) {
        yield* ask(connection)
        yield* Effect.sleep(options.probeMillis)
      }
    }).pipe(
      Effect.scoped,
      // A fault of ours too must not end the watch.
      Effect.catchCause((cause) => {
        if (Cause.hasInterruptsOnly(cause)) return Effect.failCause(cause)
        const reason = detailOf(Cause.squash(cause))
        replicas.delete(name)
        sockets.forbid(reason)
        const warning = Effect.logWarning("a replica of the database answers no reads").pipe(
          Effect.annotateLogs({ server: name, reason })
        )
        const isFirst = !isWarned
        isWarned = true
        return isFirst ? warning : Effect.void
      }),
      Effect.andThen(Effect.sleep(options.probeMillis)),
      Effect.forever,
      Effect.forkIn(scope)
    )
  })

  for (const host of url.hosts) yield* watch(host)

  const report = Effect.gen(function* () {
    const nowMillis = yield* Clock.currentTimeMillis
    const newest = Math.max(...[...replicas.values()].map(({ asOfMillis }) => asOfMillis))
    if (Number.isFinite(newest)) {
      yield* Metric.update(DatabaseMetrics.replicaLagSeconds, Math.max(0, nowMillis - newest) / 1000)
    }
    yield* Metric.update(DatabaseMetrics.replicas, replicas.size)
  })
  yield* Effect.andThen(report, Effect.sleep(options.probeMillis)).pipe(Effect.forever, Effect.forkIn(scope))

  return {
    find: (caller, nowMillis) => {
      let best: Replica | undefined
      for (const replica of replicas.values()) {
        if (best === undefined || replica.asOfMillis > best.asOfMillis) best = replica
      }
      if (best === undefined || nowMillis - best.asOfMillis > options.lagMillisMax) return undefined
      return best.asOfMillis <= (writers.get(caller) ?? -Infinity) ? undefined : best
    },
    wrote: (caller, nowMillis) => {
      writers.delete(caller)
      writers.set(caller, nowMillis)
      if (writers.size > options.callersMax) writers.delete(writers.keys().next().value!)
    }
  }
})
