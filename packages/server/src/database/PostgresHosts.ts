/**
 * Clients of a PostgreSQL database, be it on one server or on several, be it
 * reached directly or by way of a pool that lends connections.
 *
 * Promises: a statement goes to the server that takes writes, or fails in words
 * that say what each server is; a transaction stays on one connection; nothing
 * is asked of a session that lasts for longer where a pool stands before it.
 * Leaves to others: finding the server (`database/PostgresServers`), repeating
 * what failed (`storage/Failover`), and keeping a replaced primary from being
 * written by programs that do not look.
 */
import { PgClient, PgConnection } from "@effect/sql-pg"
import { Failover } from "@prism-dns/core/storage/Failover"
import * as Loss from "@prism-dns/core/storage/Loss"
import { ReadFrom, Replicas } from "@prism-dns/core/storage/Reads"
import * as Writes from "@prism-dns/core/storage/Writes"
import { Clock, Context, Effect, Layer, Schema, Scope, Semaphore } from "effect"
import * as Reactivity from "effect/reactivity/Reactivity"
import { SqlClient, SqlError } from "effect/sql"
import * as PostgresClient from "./PostgresClient.ts"
import * as PostgresReplicas from "./PostgresReplicas.ts"
import * as PostgresServers from "./PostgresServers.ts"
import type { PostgresUrl } from "./PostgresUrl.ts"

/** What is the same for each connection; which server it is to is not. */
export type PoolOptions = Omit<PgClient.PgPoolConfig, "url" | "host" | "port" | "path" | "stream" | "prepare">

/**
 * Connections of one's own to the server that takes writes, each a session for as long as its scope: past a pool, where
 * `storage.directUrl` says how.
 */
export interface Sessions {
  /** Ends at once with its scope. */
  readonly connection: (
    applicationName: string
  ) => Effect.Effect<PgConnection.PgConnection, SqlError.SqlError, Scope.Scope>
  /** A client with one connection. */
  readonly client: (applicationName: string) => Effect.Effect<PgClient.PgClient, SqlError.SqlError, Scope.Scope>
}

/** Undefined where the registry is in SQLite. */
export const OwnSessions = Context.Reference<Sessions | undefined>("@prism-dns/server/database/OwnSessions", {
  defaultValue: () => undefined
})

/** A connection that nothing comes over is looked after from then on. */
const keepAlive = "10 seconds"

const PidRow = Schema.Struct({ pid: Schema.Number })
const decodePid = Schema.decodeUnknownEffect(PidRow)

/**
 * True where something lends its connections to us: then PostgreSQL gives another number to the process that serves us than
 * we were told when we connected.
 */
const isPooled = (url: PostgresUrl) =>
  Effect.scoped(
    Effect.gen(function* () {
      const connection = yield* PgConnection.make({ url: url.url, prepare: false, applicationName: "prism-dns" })
      const { rows } = yield* connection.query("SELECT pg_backend_pid() AS pid", [], false)
      const { pid } = yield* Effect.orDie(decodePid(rows[0]))
      return pid !== connection.processId
    })
  )

const sayPooled = Effect.logInfo("a pool lends the connections to PostgreSQL: no statement is prepared")

/** Connections to a server that takes no writes are cut no more often: where none does they are good for reading. */
const cutMillisMin = 1000

/**
 * A client of the one address of `url`. It may lead to one server today and to another tomorrow (a balancer, a virtual
 * address, a name, a pool): that one goes or takes no writes any more is a sign of it, and another timeline proves it.
 */
const makeOne = Effect.fnUntraced(function* (url: PostgresUrl, pool: PoolOptions, writes: Writes.Writes) {
  const pooled = yield* isPooled(url)
  if (pooled) yield* sayPooled
  const [host] = url.hosts
  const sockets = PostgresServers.makeSockets(host)
  const { patienceMillis } = PostgresServers.defaultOptions
  const clock = yield* Clock.Clock
  const elapsed = () => Number(clock.monotonicTimeNanosUnsafe()) / 1e6
  /** When it was seen last that a server goes, or takes no writes. */
  let leftElapsed = -Infinity
  let cutElapsed = -Infinity
  const failed = (error: SqlError.SqlError): void => {
    if (!Loss.isLeaving(error)) return
    const now = elapsed()
    leftElapsed = now
    if (!Loss.isReadOnly(error) || now - cutElapsed < cutMillisMin) return
    cutElapsed = now
    // Others of the pool are to the same server, and would not end by themselves.
    sockets.cut("the server takes no writes any more")
  }
  const client = Loss.telling(
    yield* PostgresClient.make(
      { ...pool, ...host, url: url.url, stream: sockets.open, prepare: !pooled },
      writes,
      failed
    )
  )
  const moved = new Set<() => void>([() => (writes.count += 1)])
  let known: string | undefined
  const failover: Failover = {
    // A pool may be told of another server without a sign.
    get patienceMillis() {
      return pooled || elapsed() - leftElapsed < 2 * patienceMillis ? patienceMillis : 0
    },
    onMoved: (listener) => {
      moved.add(listener)
      return () => void moved.delete(listener)
    },
    saw: (timeline) => {
      const before = known
      known = timeline
      if (before !== undefined && before !== timeline) for (const listener of moved) listener()
    }
  }
  return { client, failover }
})

/** A client of several servers, that goes to the one that is written to. */
const makeSeveral = Effect.fnUntraced(function* (
  url: PostgresUrl,
  pool: PoolOptions,
  servers: PostgresServers.Servers,
  writes: Writes.Writes
) {
  // Another server may not have all that the former one had.
  servers.failover.onMoved(() => (writes.count += 1))
  const scope = yield* Effect.scope
  const reactivity = yield* Reactivity.Reactivity
  const clients = new Map<PostgresServers.Server, PgClient.PgClient>()
  const oneAtATime = Semaphore.makeUnsafe(1)
  /** Made when it is written to first: it connects to nobody before. */
  const clientOf = (server: PostgresServers.Server) =>
    Effect.suspend(() => {
      const made = clients.get(server)
      if (made !== undefined) return Effect.succeed(made)
      return oneAtATime.withPermit(
        Effect.gen(function* () {
          const made = clients.get(server)
          if (made !== undefined) return made
          if (server.isPooled) yield* sayPooled
          const client = yield* PgClient.make({
            ...pool,
            ...server.host,
            url: url.url,
            stream: server.sockets.open,
            prepare: !server.isPooled
          }).pipe(Scope.provide(scope), Effect.provideService(Reactivity.Reactivity, reactivity))
          clients.set(server, client)
          return client
        }).pipe(Effect.uninterruptible)
      )
    })
  const present = Effect.flatMap(servers.present, clientOf)
  const written = Effect.tapError(
    Effect.flatMap(present, (client) => Effect.map(client.reserve, (each) => Writes.counted(each, writes))),
    () => servers.wake
  )
  const acquirer = Effect.flatMap(ReadFrom, (replica) => (replica === undefined ? written : replica.reserve))
  const first = yield* present
  const base = yield* SqlClient.make({
    acquirer,
    transactionAcquirer: acquirer,
    compiler: PgClient.makeCompiler(),
    driver: first.driver,
    prepareTransactionControls: true,
    commit: PostgresClient.commit,
    releaseSavepoint: (name) => `RELEASE SAVEPOINT ${name}`,
    spanAttributes: [["db.system.name", "postgresql"]]
  })
  const client = Object.assign(Loss.telling(base), {
    [PgClient.TypeId]: PgClient.TypeId,
    config: first.config,
    json: first.json,
    listen: (channel: string) => Effect.flatMap(present, (client) => client.listen(channel)),
    notify: (channel: string, payload: string) => Effect.flatMap(present, (client) => client.notify(channel, payload))
  }) as PgClient.PgClient
  return { client, failover: servers.failover }
})

/** Sessions with the server that `servers` find, or else with the only one of `url`. */
const ownSessions = (url: PostgresUrl, servers: PostgresServers.Servers | undefined): Sessions => {
  const where: Effect.Effect<Partial<PgConnection.Config>, SqlError.SqlError> = servers === undefined
    ? Effect.succeed({ keepAlive })
    : Effect.map(servers.present, ({ host, sockets }) => ({ ...host, stream: sockets.open }))
  return {
    connection: (applicationName) =>
      Effect.flatMap(where, (config) =>
        PgConnection.make({ ...config, url: url.url, applicationName, prepare: false })
      ),
    client: (applicationName) =>
      Effect.flatMap(where, (config) =>
        PgClient.makeClient({ ...config, url: url.url, applicationName, prepare: false })
      ).pipe(Effect.map(Loss.telling), Effect.provide(Reactivity.layer))
  }
}

export interface ClientOptions {
  readonly pool: PoolOptions
  /** A way to the same database past a pool that stands before it. */
  readonly direct?: PostgresUrl | undefined
  /** Replicas for reads that may be a little old. */
  readonly replica?: { readonly url: PostgresUrl; readonly lagMillisMax: number } | undefined
  readonly servers?: Partial<PostgresServers.ServersOptions> | undefined
}

const make = Effect.fnUntraced(function* (url: PostgresUrl, options: ClientOptions) {
  const serversOf = (url: PostgresUrl) =>
    url.hosts.length === 1 ? Effect.undefined : PostgresServers.make(url, options.servers)
  const servers = yield* serversOf(url)
  const writes: Writes.Writes = { count: 0 }
  const { client, failover } =
    servers === undefined
      ? yield* makeOne(url, options.pool, writes)
      : yield* makeSeveral(url, options.pool, servers, writes)
  const own =
    options.direct === undefined
      ? ownSessions(url, servers)
      : ownSessions(options.direct, yield* serversOf(options.direct))
  const { replica } = options
  const replicas =
    replica === undefined
      ? undefined
      : yield* PostgresReplicas.make(replica.url, options.pool, client, { lagMillisMax: replica.lagMillisMax })
  const services = Context.make(PgClient.PgClient, client).pipe(
    Context.add(Replicas, replicas),
    Context.add(SqlClient.SqlClient, client),
    Context.add(Writes.OwnWrites, writes),
    Context.add(OwnSessions, own)
  )
  return Context.add(services, Failover, failover)
})

/** A client of the database at `url`; fails when nobody takes writes in time. */
export const layer = (
  url: PostgresUrl,
  options: ClientOptions
): Layer.Layer<PgClient.PgClient | SqlClient.SqlClient, SqlError.SqlError> =>
  Layer.effectContext(make(url, options)).pipe(Layer.provide(Reactivity.layer))

/** The same for a tool, which needs nothing else. */
export const clientOf = (
  url: PostgresUrl,
  pool: PoolOptions
): Layer.Layer<PgClient.PgClient | SqlClient.SqlClient, SqlError.SqlError> => layer(url, { pool })
