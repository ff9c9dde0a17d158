/**
 * The servers of a PostgreSQL database, of which one takes writes: it is found,
 * and followed when it changes.
 *
 * Each server is asked all the time, over a connection of its own, what it is;
 * who is written to is decided by `database/Standing`. Connections to a server
 * that is written no more are cut at once, so that whoever waits on one fails and
 * may try again, and nothing that is under way reaches a server that was
 * replaced. Leaves to others: clients (`database/PostgresHosts`).
 */
import { PgConnection } from "@effect/sql-pg"
import type { Failover } from "@prism-dns/core/storage/Failover"
import { detailOf } from "@prism-dns/core/storage/SqlFailure"
import { Cause, Deferred, Duration, Effect, Metric, Schema, type Scope, Semaphore } from "effect"
import { SqlError } from "effect/sql"
import * as Net from "node:net"
import * as DatabaseMetrics from "./DatabaseMetrics.ts"
import { nameOf, type PostgresHost, type PostgresUrl } from "./PostgresUrl.ts"
import * as Standing from "./Standing.ts"

export interface ServersOptions {
  /** How often each server is asked what it is, in milliseconds. */
  readonly probeMillis: number
  /** How long it may take to say so, or to connect. */
  readonly answerMillisMax: number
  /** How long the start waits for one that takes writes. */
  readonly startMillisMax: number
  /** How long work is repeated after the database was lost, in milliseconds: a promotion has to come to pass in it. */
  readonly patienceMillis: number
}

export const defaultOptions: ServersOptions = {
  probeMillis: 500,
  answerMillisMax: 2000,
  startMillisMax: 10_000,
  // Below the time after which who registers is told that it takes too long.
  patienceMillis: 8000
}

/** Between two questions to a server, however often they are asked for. */
const probeMillisMin = 100
/** Reasons of one server's silence that the log has, of each time that it is silent. */
const reasonsMax = 4
/** A connection that nothing comes over is looked after from then on. */
const keepAliveMillis = 10_000

/** What a server says of itself. Not of a replica: a log position that is its own. */
const question = `
  SELECT
    (SELECT system_identifier::text FROM pg_control_system()) AS system,
    pg_is_in_recovery() OR current_setting('default_transaction_read_only') = 'on' AS readonly,
    CASE WHEN pg_is_in_recovery()
      THEN (SELECT timeline_id FROM pg_control_checkpoint())
      ELSE ('x' || substr(pg_walfile_name(pg_current_wal_insert_lsn()), 1, 8))::bit(32)::int
    END AS timeline,
    CASE WHEN pg_is_in_recovery() THEN '0' ELSE (pg_current_wal_flush_lsn() - '0/0'::pg_lsn)::text END AS position,
    pg_postmaster_start_time()::text AS started,
    pg_backend_pid() AS pid`

const Answer = Schema.Struct({
  system: Schema.String,
  readonly: Schema.Boolean,
  timeline: Schema.Number,
  position: Schema.String,
  started: Schema.String,
  pid: Schema.Number
})
const decodeAnswer = Schema.decodeUnknownEffect(Answer)

const lost = (message: string) =>
  new SqlError.SqlError({
    reason: new SqlError.ConnectionError({ cause: new Error(message), message, operation: "connect" })
  })

/** Connections to one server, which can be cut all at once. */
export const makeSockets = ({ host, port }: PostgresHost) => {
  const sockets = new Set<Net.Socket>()
  let closedBecause: string | undefined
  return {
    open: (): Net.Socket => {
      if (closedBecause !== undefined) return new Net.Socket().destroy(new Error(closedBecause))
      const socket = host.startsWith("/")
        ? Net.connect({ path: `${host}/.s.PGSQL.${port}` })
        : Net.connect({ host, port, noDelay: true, keepAlive: true, keepAliveInitialDelay: keepAliveMillis })
      sockets.add(socket)
      // Cut beneath TLS it has nobody else who listens.
      socket.on("error", () => undefined)
      socket.once("close", () => sockets.delete(socket))
      return socket
    },
    /** Cuts all there are, and whoever asks for one fails, until `allow`. */
    forbid: (reason: string) => {
      closedBecause = reason
      for (const socket of sockets) socket.destroy(new Error(reason))
    },
    allow: () => {
      closedBecause = undefined
    },
    /** Cuts all there are. */
    cut: (reason: string) => {
      for (const socket of sockets) socket.destroy(new Error(reason))
    }
  }
}

export interface Server {
  readonly name: string
  readonly host: PostgresHost
  /** Connections for its clients: all are cut when it is written no more. */
  readonly sockets: ReturnType<typeof makeSockets>
  readonly probes: ReturnType<typeof makeSockets>
  seen: Standing.Seen
  /** Something between us and the server shares its connections: a session lasts for a transaction. */
  isPooled: boolean
}

export interface Servers {
  /** The one that is written to; fails in words that say what each is. */
  readonly present: Effect.Effect<Server, SqlError.SqlError>
  /** Has all of them asked at once: one that was written to does not answer. */
  readonly wake: Effect.Effect<void>
  readonly failover: Failover
}

const wordsOf = (seen: Standing.Seen): string => {
  switch (seen._tag) {
    case "Unseen":
      return "was not asked yet"
    case "Silent":
      return seen.detail
    case "Replica":
      return `takes no writes (timeline ${seen.timeline})`
    case "Primary":
      return `takes writes on timeline ${seen.timeline}`
  }
}

const named = ({ name }: Server) => Effect.annotateLogs({ server: name })

/** Follows the servers of `url`, from the time on that one of them takes writes; fails when none does in time. */
export const make = Effect.fnUntraced(function* (
  url: PostgresUrl,
  given: Partial<ServersOptions> = {}
): Effect.fn.Return<Servers, SqlError.SqlError, Scope.Scope> {
  const options = { ...defaultOptions, ...given }
  const scope = yield* Effect.scope
  const servers = url.hosts.map((host): Server => ({
    name: nameOf(host),
    host,
    sockets: makeSockets(host),
    probes: makeSockets(host),
    seen: { _tag: "Unseen" },
    isPooled: false
  }))
  const moved = new Set<() => void>()
  const found = yield* Deferred.make<void>()
  const oneAtATime = Semaphore.makeUnsafe(1)
  let known = Standing.nothingKnown
  let refused: ReadonlyMap<number, string> = new Map()
  let lastWritten: Server | undefined
  let isWarned = false

  const nobody = () =>
    `no PostgreSQL server takes writes: ${servers.map(({ name, seen }, at) => `${name} ${refused.get(at) ?? wordsOf(seen)}`).join("; ")}`

  const report = Effect.fnUntraced(function* (before: typeof refused) {
    const counts = { primary: 0, replica: 0, refused: 0, silent: 0 }
    for (const [at, { name, seen }] of servers.entries()) {
      const reason = refused.get(at)
      if (reason !== undefined) counts.refused += 1
      else if (at === known.current && seen._tag === "Primary") counts.primary += 1
      else if (seen._tag === "Silent" || seen._tag === "Unseen") counts.silent += 1
      else counts.replica += 1
      if (reason !== undefined && reason !== before.get(at)) {
        yield* Effect.logError("a PostgreSQL server claims to take writes, and is not written to").pipe(
          Effect.annotateLogs({ server: name, reason })
        )
      }
    }
    for (const [state, count] of Object.entries(counts)) {
      yield* Metric.update(Metric.withAttributes(DatabaseMetrics.servers, { state }), count)
    }
  })

  /** Decides anew who is written to, after something was seen. The first time once all were asked. */
  const decide = Effect.gen(function* () {
    if (servers.some(({ seen }) => seen._tag === "Unseen")) return
    const before = refused
    const choice = Standing.choose(
      known,
      servers.map(({ seen }) => seen)
    )
    known = choice.known
    refused = choice.refused
    const next = known.current === undefined ? undefined : servers[known.current]
    for (const [at, server] of servers.entries()) {
      if (server !== next) server.sockets.forbid(refused.get(at) ?? `${server.name} is not written to`)
    }
    next?.sockets.allow()
    yield* report(before)
    if (next === undefined) {
      if (!isWarned) yield* Effect.logError(nobody())
      isWarned = true
      return
    }
    isWarned = false
    if (next !== lastWritten) {
      if (lastWritten !== undefined) {
        yield* Metric.update(DatabaseMetrics.failovers, 1)
        yield* Effect.logWarning("another PostgreSQL server has taken over").pipe(
          Effect.annotateLogs({ from: lastWritten.name, to: next.name, timeline: known.timeline })
        )
        for (const listener of moved) listener()
      } else {
        yield* Effect.logInfo("the PostgreSQL server that takes writes is found").pipe(
          Effect.annotateLogs({ server: next.name, timeline: known.timeline })
        )
      }
      lastWritten = next
    }
    yield* Deferred.succeed(found, undefined)
  }).pipe((deciding) => oneAtATime.withPermit(deciding))

  /** Whoever fails to connect has all servers asked at once. */
  let woken = Deferred.makeUnsafe<void>()
  const wake = Effect.suspend(() => {
    const waited = woken
    woken = Deferred.makeUnsafe()
    return Deferred.succeed(waited, undefined)
  })

  const ask = Effect.fnUntraced(function* (server: Server, connection: PgConnection.PgConnection) {
    const limit = Effect.andThen(
      Effect.sleep(options.answerMillisMax),
      // The query is not interrupted: that would wait for the server.
      Effect.sync(() => server.probes.cut(`it did not answer within ${options.answerMillisMax} ms`))
    )
    const { rows } = yield* Effect.scoped(
      Effect.andThen(Effect.forkScoped(limit), connection.query(question, [], false))
    )
    const answer = yield* decodeAnswer(rows[0])
    server.isPooled = answer.pid !== connection.processId
    server.seen = answer.readonly
      ? { _tag: "Replica", system: answer.system, timeline: answer.timeline }
      : { ...answer, _tag: "Primary", position: BigInt(answer.position) }
  })

  const pause = Effect.andThen(
    Effect.sleep(probeMillisMin),
    Effect.suspend(() => Effect.raceFirst(Effect.sleep(options.probeMillis - probeMillisMin), Deferred.await(woken)))
  )

  const watch = Effect.fnUntraced(function* (server: Server) {
    /** What it was said to be silent for, since it answered last. */
    const said = new Set<string>()

    const hear = Effect.gen(function* () {
      const connection = yield* PgConnection.make({
        ...server.host,
        url: url.url,
        stream: server.probes.open,
        connectTimeout: Duration.millis(options.answerMillisMax),
        applicationName: "prism-dns watch",
        prepare: false
      })
      while (true) {
        yield* ask(server, connection)
        if (said.size > 0) yield* Effect.logInfo("a PostgreSQL server answers again").pipe(named(server))
        said.clear()
        yield* decide
        yield* pause
      }
    })

    const miss = Effect.fnUntraced(function* (error: unknown) {
      const reason = detailOf(error)
      server.seen = { _tag: "Silent", detail: reason }
      if (!said.has(reason) && said.size < reasonsMax) {
        said.add(reason)
        yield* Effect.logWarning("a PostgreSQL server does not answer").pipe(
          named(server),
          Effect.annotateLogs({ reason })
        )
      }
      yield* decide
    })

    return yield* hear.pipe(
      Effect.scoped,
      // A fault of ours too must not end the watch: a server that is not asked any more would be taken for what it was.
      Effect.catchCause((cause) =>
        Cause.hasInterruptsOnly(cause) ? Effect.failCause(cause) : Effect.ignoreCause(miss(Cause.squash(cause)))
      ),
      Effect.andThen(pause),
      Effect.forever
    )
  })

  for (const server of servers) yield* Effect.forkIn(watch(server), scope)
  yield* Effect.timeoutOrElse(Deferred.await(found), {
    duration: Duration.millis(options.startMillisMax),
    orElse: () => Effect.suspend(() => Effect.fail(lost(nobody())))
  })

  return {
    present: Effect.suspend(() => {
      const server = known.current === undefined ? undefined : servers[known.current]
      return server === undefined ? Effect.fail(lost(nobody())) : Effect.succeed(server)
    }),
    wake,
    failover: {
      patienceMillis: options.patienceMillis,
      onMoved: (listener) => {
        moved.add(listener)
        return () => void moved.delete(listener)
      }
    }
  }
})
