/**
 * A cluster as it runs in production, small: Prism servers (the bundle) on one
 * PostgreSQL, two PowerDNS primaries on one database (by a pgbouncer) or with one
 * each, and a secondary, HAProxy in front of the agents' port, Redis. Each is a
 * real process with an address of its own, the same port everywhere.
 *
 * Verbs, for each part: start, stop, kill, freeze, thaw; for Prism servers also
 * cut, heal and setClock. All that was started ends with the scope, also after a
 * failure, also what was frozen.
 *
 * Promises: `start` returns when every part answers. Leaves to others: the load
 * (`Load`), what is to be true in the end (`EndState`, `Check`).
 */
import { pgsqlIndexes, pgsqlLock } from "@prism-dns/core/powerdns/pgsqlLock"
import * as PowerDnsProcess from "@prism-dns/core/powerdns/PowerDnsProcess"
import { Context, Effect, Exit, Layer, Redacted, Scope } from "effect"
import * as ChildProcess from "node:child_process"
import * as Fs from "node:fs"
import * as Path from "node:path"
import * as PgBouncer from "../../../core/test/harness/PgBouncer.ts"
import { freePorts } from "../../../core/test/harness/ports.ts"
import { Postgres } from "../../../core/test/harness/Postgres.ts"
import * as PostgresPair from "../../../core/test/harness/PostgresPair.ts"
import * as PowerDns from "../../../core/test/harness/PowerDns.ts"
import * as Redis from "../../../core/test/harness/Redis.ts"
import { waitUntil } from "../../../core/test/harness/waitUntil.ts"
import { adminToken } from "../harness/Deployment.ts"
import * as PrismServer from "../harness/PrismServer.ts"
import type { Endpoint } from "./Agent.ts"
import type { Write } from "./History.ts"
import * as Network from "./Network.ts"
import * as Recorder from "./Recorder.ts"

export const agentToken = "agent-token-of-a-test"

/** A process of the cluster. */
export interface Part {
  readonly name: string
  readonly isUp: () => boolean
  readonly start: Effect.Effect<void>
  /** In order: SIGTERM, and waits for the end. */
  readonly stop: Effect.Effect<void>
  readonly kill: Effect.Effect<void>
  readonly freeze: Effect.Effect<void>
  readonly thaw: Effect.Effect<void>
}

/** What a Prism server may be cut off from. */
export type Peer = "everyone" | "postgres" | "powerdns" | "haproxy"

export interface Server extends Part {
  readonly tcp: Endpoint
  readonly url: string
  readonly cut: (from: Peer) => Effect.Effect<void>
  readonly heal: Effect.Effect<void>
  /** Moves its clock by this many seconds from what is right; needs `clocks`. It is seen within a second. */
  readonly setClock: (seconds: number) => Effect.Effect<void>
  readonly output: () => string
}

export interface Name extends Part {
  readonly role: "primary" | "secondary"
  readonly dns: Endpoint
}

export interface Registry {
  /** The addresses of all of its servers. */
  readonly url: string
  /** Of whoever is the primary. */
  readonly query: (sql: string) => Effect.Effect<string>
  readonly kill: Effect.Effect<void>
  readonly start: Effect.Effect<void>
  /** The replica becomes the primary. Without `replica` a defect. */
  readonly promote: Effect.Effect<void>
}

export interface Options {
  /** Prism servers. Default 2. */
  readonly servers?: number
  /** Zones for hosts; each has a zone for the reverse. Default 2. */
  readonly zones?: number
  /** PowerDNS primaries. Default 2. */
  readonly primaries?: number
  /** Whether the primaries share a PostgreSQL, or have an LMDB each. Default: shared. */
  readonly databases?: "shared" | "own" | undefined
  /** A PowerDNS that fetches the zones. Default true. */
  readonly secondary?: boolean
  /** A PostgreSQL that follows the first, synchronously. Default false. */
  readonly replica?: boolean
  readonly redis?: boolean
  /** Clocks can be set. Default false: it costs something at each look at one. */
  readonly clocks?: boolean
  /** Further settings of all Prism servers, group by group. */
  readonly settings?: Readonly<Record<string, Readonly<Record<string, unknown>>>>
}

export interface Cluster {
  /** Why nothing can be cut; undefined: it can. */
  readonly unable: string | undefined
  readonly servers: ReadonlyArray<Server>
  readonly names: ReadonlyArray<Name>
  readonly registry: Registry
  readonly redis: Part | undefined
  readonly haproxy: Part & { readonly tcp: Endpoint }
  readonly zones: ReadonlyArray<string>
  readonly reverseZones: ReadonlyArray<string>
  /** How long a host is kept without a beat. */
  readonly leaseMillis: number
  /** What the servers wrote into PowerDNS. */
  readonly writes: ReadonlyArray<Write>
  /** Where agents that come directly have to come from. */
  readonly directFrom: string
  /** Asks the API of a server, or of the first that answers. */
  readonly get: (path: string, server?: Server) => Effect.Effect<unknown, Error>
  /** Rows of PowerDNS's database that are there more than once. */
  readonly doubled: Effect.Effect<ReadonlyArray<string>>
  /** Checks the audit's chain; what is wrong. */
  readonly verify: Effect.Effect<ReadonlyArray<string>>
}

const beatSeconds = 4
const graceSeconds = 8

/** Addresses of the parts outside, by number. */
const outside = { haproxy: 2, agents: 3, postgres: 11, replica: 12, redis: 15, names: 21, proxies: 40 }

const forwardZone = (n: number) => `z${n + 1}.prism.test`
/** Hosts of protocol 1 have the address they come from. */
const reverseZones = (zones: number) => [
  ...Array.from({ length: zones }, (_, n) => `${60 + n}.10.in-addr.arpa`),
  "127.in-addr.arpa"
]

const policy = {
  networks: ["10.0.0.0/8", "127.0.0.0/8"],
  // A lease that is lost is to be seen at once, and nobody is to be asked first.
  withdrawAfter: "0s",
  deletePercent: 100,
  quarantine: "0s"
}

const rate = { ratePerSecond: 1_000_000, burst: 1_000_000 }

const haproxyFile = Path.resolve(import.meta.dirname, "../../deploy/haproxy/haproxy.cfg")
const schemaFile = "/usr/share/pdns-backend-pgsql/schema/schema.pgsql.sql"

/** Starts all parts; gone with the scope. */
export const start = Effect.fnUntraced(function* (
  options: Options = {}
): Effect.fn.Return<Cluster, never, Scope.Scope> {
  const count = options.servers ?? 2
  const zones = Array.from({ length: options.zones ?? 2 }, (_, n) => forwardZone(n))
  const network = yield* Network.make
  const [tcpPort, httpPort, dnsPort, apiPort, redisPort, metricsPort] = (yield* freePorts(6)) as [
    number,
    number,
    number,
    number,
    number,
    number
  ]
  const writes: Array<Write> = []

  const [registry, names] = yield* Effect.all(
    [startRegistry(network, options), startNames(network, { dnsPort, apiPort }, options)],
    { concurrency: "unbounded" }
  )
  const redis = options.redis === true ? yield* startRedis(network.outside(outside.redis), redisPort) : undefined

  const directFrom = network.outside(outside.agents)
  const makeServer = Effect.fnUntraced(function* (i: number) {
    const name = `prism-${i + 1}`
    const place = yield* network.place(i + 1)
    const proxies = network.outside(outside.proxies + i)
    const nodes = yield* Effect.forEach(names.nodes, (node, n) =>
      Effect.gen(function* () {
        const listen = { host: proxies, port: apiPort + (network.unable === undefined ? n : 0) }
        const [port] = network.unable === undefined ? [listen.port] : yield* freePorts(1)
        yield* Recorder.proxy({
          server: name,
          node: node.name,
          listen: { host: proxies, port: port! },
          target: node.api,
          writes
        })
        return {
          name: node.name,
          role: node.role,
          ...(options.databases === "own" && node.role === "primary" ? { database: node.name } : {}),
          api: `http://${proxies}:${port}`,
          apiKey: names.apiKey,
          dns: `${node.dns.host}:${node.dns.port}`
        }
      })
    )
    const folder = yield* PowerDns.temporaryFolder(`prism-${name}-`)
    const clock = Path.join(folder, "clock")
    Fs.writeFileSync(clock, "+0\n")
    const groups: Record<string, Record<string, unknown>> = {
      server: { instance: name, drainDelay: "2s", shutdownTimeout: "5s", logFormat: "json" },
      tcp: {
        host: place.address,
        port: tcpPort,
        protocol1: "on",
        proxyFrom: [network.outside(outside.haproxy)]
      },
      http: { host: place.address, port: httpPort, rateLimit: { reads: rate, changes: rate, failures: rate } },
      storage: { url: registry.url },
      powerdns: { nodes },
      ...(redis === undefined ? {} : { redis: { url: Redis.urlOf(network.outside(outside.redis), redisPort) } }),
      leases: {
        beatInterval: `${beatSeconds}s`,
        grace: `${graceSeconds}s`,
        flushInterval: "1s",
        sweepInterval: "500ms",
        massExpiryPercent: 100
      },
      auth: {
        mode: "required",
        adminTokens: [{ name: "test", token: adminToken }],
        agentTokens: [
          { name: "fleet", token: agentToken, networks: ["10.0.0.0/8", "127.0.0.0/8"], namesMax: 1_000_000 }
        ],
        limits: { identity: rate, token: rate, name: rate, network: rate }
      }
    }
    for (const [group, more] of Object.entries(options.settings ?? {})) groups[group] = { ...groups[group], ...more }
    const all = {
      ...groups,
      zones: [...zones, ...reverseZones(zones.length)].map((zone) => ({ name: zone, ...policy }))
    }
    Fs.writeFileSync(Path.join(folder, "prism.yaml"), JSON.stringify(all, null, 2), { mode: 0o600 })
    return { name, place, folder, clock, proxies }
  })
  const places = yield* Effect.forEach(Array.from({ length: count }), (_, i) => makeServer(i))

  const peers = {
    everyone: undefined,
    postgres: [network.outside(outside.postgres), network.outside(outside.replica)],
    haproxy: [network.outside(outside.haproxy)]
  }
  const servers = yield* Effect.forEach(
    places,
    Effect.fnUntraced(function* ({
      clock,
      folder,
      name,
      place,
      proxies
    }): Effect.fn.Return<Server, never, Scope.Scope> {
      const running = yield* PrismServer.start(["serve", "--config", "prism.yaml"], {
        folder,
        command: place.command,
        environment: options.clocks === true ? wrongClock(clock) : {}
      })
      let isUp = true
      const signal = (word: NodeJS.Signals) => Effect.sync(() => void process.kill(running.pid(), word))
      const end = (word: NodeJS.Signals) =>
        Effect.suspend(() => {
          isUp = false
          return Effect.asVoid(running.kill(word))
        })
      return {
        name,
        tcp: { host: place.address, port: tcpPort },
        url: `http://${place.address}:${httpPort}`,
        isUp: () => isUp,
        // One that is not ready in time must not come up later, beside the next.
        start: running.restart.pipe(
          Effect.onError(() => running.kill("SIGKILL")),
          Effect.andThen(Effect.sync(() => void (isUp = true)))
        ),
        stop: end("SIGTERM"),
        kill: end("SIGKILL"),
        freeze: signal("SIGSTOP"),
        thaw: signal("SIGCONT"),
        cut: (from) =>
          network.cut(place, from === "powerdns" ? [proxies, ...names.nodes.map(({ dns }) => dns.host)] : peers[from]),
        heal: network.heal(place),
        setClock: (seconds) =>
          Effect.sync(() => {
            if (options.clocks !== true) throw new Error("this cluster was started without `clocks`")
            Fs.writeFileSync(clock, `${seconds < 0 ? "" : "+"}${seconds}\n`)
          }),
        output: () => running.output().stderr
      }
    }),
    { concurrency: "unbounded" }
  )

  const haproxy = yield* startHaproxy({
    address: network.outside(outside.haproxy),
    tcpPort,
    httpPort,
    metricsPort,
    servers
  })

  const ask = (server: Server, path: string) =>
    Effect.tryPromise({
      try: async (signal) => {
        const response = await fetch(`${server.url}${path}`, {
          headers: { authorization: `Bearer ${adminToken}` },
          signal: AbortSignal.any([signal, AbortSignal.timeout(5000)])
        })
        const text = await response.text()
        if (!response.ok) throw new Error(`GET ${path}: ${response.status} ${text}`)
        return response.headers.get("content-type")?.includes("json") === true ? (JSON.parse(text) as unknown) : text
      },
      catch: (cause) => (cause instanceof Error ? cause : new Error(String(cause)))
    })

  return {
    unable: network.unable,
    servers,
    names: names.nodes,
    registry,
    redis,
    haproxy,
    zones,
    reverseZones: reverseZones(zones.length),
    leaseMillis: (2 * beatSeconds + graceSeconds) * 1000,
    writes,
    directFrom,
    get: (path, server) =>
      server === undefined
        ? Effect.firstSuccessOf(servers.filter(({ isUp }) => isUp()).map((each) => ask(each, path)))
        : ask(server, path),
    doubled: names.doubled,
    verify: Effect.gen(function* () {
      const folder = places[0]!.folder
      const { code, stderr, stdout } = yield* PrismServer.run(["audit", "verify", "--config", "prism.yaml", "--json"], {
        folder,
        command: places[0]!.place.command
      })
      return code === 0 ? [] : [`${stdout}${stderr}`.slice(0, 2000)]
    })
  }
})

/** The file is looked at each second; time that only goes on is left alone. */
const wrongClock = (file: string) => ({
  LD_PRELOAD: "/usr/$LIB/faketime/libfaketime.so.1",
  FAKETIME_TIMESTAMP_FILE: file,
  FAKETIME_CACHE_DURATION: "1",
  FAKETIME_DONT_FAKE_MONOTONIC: "1",
  DONT_FAKE_MONOTONIC: "1"
})

// --- PostgreSQL ----------------------------------------------------------------------------------------------------

const startRegistry = Effect.fnUntraced(function* (
  network: Network.Network,
  { replica = false }: Options
): Effect.fn.Return<Registry, never, Scope.Scope> {
  const address = network.outside(outside.postgres)
  if (replica) {
    const pair = yield* PostgresPair.make({
      synchronous: true,
      addresses: [address, network.outside(outside.replica)],
      network: network.prefix
    })
    const { database, url } = yield* pair.createDatabase()
    let primary = pair.one
    return {
      url,
      query: (sql) => Effect.suspend(() => primary.query(database, sql)),
      kill: Effect.suspend(() => primary.kill),
      start: Effect.suspend(() => primary.start),
      promote: Effect.andThen(
        pair.two.promote,
        Effect.sync(() => (primary = pair.two))
      )
    }
  }
  const postgres = Context.get(
    // It is killed and not cut off from power: what is written is there, but it has to be written.
    yield* Layer.build(
      Postgres.layer({ also: { address, network: network.prefix }, settings: { synchronous_commit: "on" } })
    ),
    Postgres
  )
  const { database, url } = yield* postgres.createDatabase()
  return {
    url: url.replace("127.0.0.1", address),
    query: (sql) => postgres.query(database, sql),
    kill: postgres.stop("crash"),
    start: postgres.start,
    promote: Effect.die(new Error("there is no replica"))
  }
})

// --- PowerDNS ------------------------------------------------------------------------------------------------------

/** A part whose process comes and goes: `launch` starts it and gives its process id; it ends with the scope of that run. */
const makePart = Effect.fnUntraced(function* (
  name: string,
  launch: Effect.Effect<number, never, Scope.Scope>
): Effect.fn.Return<Part, never, Scope.Scope> {
  const outer = yield* Effect.scope
  let run: { readonly pid: number; readonly scope: Scope.Closeable } | undefined
  const signal = (word: NodeJS.Signals) =>
    Effect.sync(() => {
      if (run === undefined) return
      try {
        process.kill(run.pid, word)
      } catch {
        // it has ended
      }
    })
  const start = Effect.gen(function* () {
    const scope = yield* Scope.fork(outer)
    run = { pid: yield* Scope.provide(launch, scope), scope }
  })
  const stop = Effect.suspend(() => {
    const ended = run
    run = undefined
    return ended === undefined ? Effect.void : Scope.close(ended.scope, Exit.void)
  })
  yield* start
  // What stands still hears no SIGTERM.
  yield* Effect.addFinalizer(() => signal("SIGCONT"))
  return {
    name,
    isUp: () => run !== undefined,
    start,
    stop,
    kill: Effect.andThen(signal("SIGKILL"), stop),
    freeze: signal("SIGSTOP"),
    thaw: signal("SIGCONT")
  }
})

/** One database of all primaries. */
const sharedDatabase = Effect.gen(function* () {
  const postgres = Context.get(yield* Layer.build(Postgres.layer()), Postgres)
  const database = yield* postgres.createDatabase(
    `${Fs.readFileSync(schemaFile, "utf8")}\n${pgsqlLock}\n${pgsqlIndexes}`
  )
  // As deploy/powerdns has it: each request to the API of PowerDNS opens a connection, and PostgreSQL a process for it.
  const bouncer = yield* PgBouncer.make(database, { mode: "session", connections: 90 })
  const doubled = Effect.map(
    postgres.query(
      database.database,
      "SELECT name, type, content, COUNT(*) FROM records WHERE type IS NOT NULL GROUP BY domain_id, name, type, content HAVING COUNT(*) > 1 " +
        "UNION ALL SELECT name, type, 'start of authority', COUNT(*) FROM records WHERE type = 'SOA' GROUP BY domain_id, name, type HAVING COUNT(*) > 1"
    ),
    (text) => text.split("\n").filter((line) => line !== "")
  )
  return { backend: PowerDnsProcess.pgsql({ ...database, host: bouncer.host, port: bouncer.port }), doubled }
})

/** An LMDB for each primary. It has one value for all that is at a name, so nothing stands there twice. */
const ownDatabases = Effect.succeed({
  backend: PowerDnsProcess.lmdb,
  doubled: Effect.succeed<ReadonlyArray<string>>([])
})

const startNames = Effect.fnUntraced(function* (
  network: Network.Network,
  { apiPort, dnsPort }: { readonly apiPort: number; readonly dnsPort: number },
  { databases, primaries = 2, secondary: hasSecondary = true }: Options
) {
  const apiKey = Redacted.make(crypto.randomUUID())
  const { backend, doubled } = yield* databases === "own" ? ownDatabases : sharedDatabase
  const roles = [
    ...Array.from({ length: primaries }, () => "primary" as const),
    ...(hasSecondary ? ["secondary" as const] : [])
  ]
  const nodes = yield* Effect.forEach(
    roles,
    Effect.fnUntraced(function* (role, n) {
      const address = network.outside(outside.names + n)
      const directory = yield* PowerDns.temporaryFolder("prism-pdns-")
      const networks = `127.0.0.0/8,${network.prefix}`
      const part = yield* makePart(
        `ns${n + 1}`,
        PowerDnsProcess.start({
          directory,
          backend: role === "primary" ? backend : PowerDnsProcess.sqlite,
          address,
          dnsPort,
          apiPort,
          apiKey,
          extra: {
            "webserver-allow-from": networks,
            "query-local-address": address,
            "allow-axfr-ips": networks,
            ...(role === "primary" ? { primary: "yes" } : { secondary: "yes", "allow-notify-from": networks })
          }
        }).pipe(
          Effect.map(({ pid }) => pid),
          Effect.orDie
        )
      )
      return { ...part, role, dns: { host: address, port: dnsPort }, api: { host: address, port: apiPort } }
    }),
    { concurrency: "unbounded" }
  )
  return { nodes, apiKey: Redacted.value(apiKey), doubled }
})

// --- Others --------------------------------------------------------------------------------------------------------

const spawn = (program: string, args: ReadonlyArray<string>, folder: string) =>
  Effect.acquireRelease(
    Effect.sync(() => {
      const log = Fs.openSync(Path.join(folder, "log"), "a")
      const child = ChildProcess.spawn(program, args, { cwd: folder, stdio: ["ignore", log, log] })
      Fs.closeSync(log)
      const atExit = () => child.kill("SIGKILL")
      process.on("exit", atExit)
      child.once("exit", () => process.off("exit", atExit))
      return child
    }),
    (child) =>
      Effect.callback<void>((resume) => {
        if (child.exitCode !== null || child.signalCode !== null) return resume(Effect.void)
        child.once("exit", () => resume(Effect.void))
        child.kill("SIGKILL")
      })
  )

const startRedis = Effect.fnUntraced(function* (address: string, port: number) {
  const folder = yield* PowerDns.temporaryFolder("prism-redis-")
  return yield* makePart(
    "redis",
    Effect.gen(function* () {
      const child = yield* spawn("redis-server", [Redis.configure(folder, { address, port })], folder)
      const asking = ["-h", address, "-p", `${port}`, ...Redis.administration.arguments, "ping"]
      yield* waitUntil(
        "Redis answers",
        Effect.sync(() =>
          ChildProcess.spawnSync("redis-cli", asking, { encoding: "utf8", env: Redis.administration.environment })
        ),
        ({ stdout }) => stdout.trim() === "PONG"
      )
      return child.pid!
    })
  )
})

/** The configuration of deploy/, its addresses replaced. */
const startHaproxy = Effect.fnUntraced(function* (options: {
  readonly address: string
  readonly tcpPort: number
  readonly httpPort: number
  readonly metricsPort: number
  readonly servers: ReadonlyArray<Server>
}) {
  const { address, httpPort, metricsPort, servers, tcpPort } = options
  const folder = yield* PowerDns.temporaryFolder("prism-haproxy-")
  const lines = servers.map(({ name, tcp }) => `  server ${name} ${tcp.host}:${tcp.port} source ${address}`).join("\n")
  const text = Fs.readFileSync(haproxyFile, "utf8")
    .replace("maxconn 50000", "maxconn 9000") // a test's limit of open files
    .replace("maxconn 25000", "maxconn 9000")
    .replace("/run/haproxy/admin.sock", Path.join(folder, "admin.sock"))
    .replace("bind 192.0.2.10:8080", `bind ${address}:${tcpPort}`)
    .replace("127.0.0.1:8404", `${address}:${metricsPort}`)
    .replace("port 8081", `port ${httpPort}`)
    .replace(/( {2}server prism-\d 192\.0\.2\.1\d:8080\n?)+/, `${lines}\n`)
    // Without TLS here.
    .replace(/frontend hosts_tls[\s\S]*?(?=\n(?:#|backend|frontend))/, "")
    .replace(/backend prism_tls[\s\S]*?(?=\n(?:#|backend|frontend))/, "")
  const file = Path.join(folder, "haproxy.cfg")
  Fs.writeFileSync(file, text)
  const metrics = (child: ChildProcess.ChildProcess) =>
    Effect.tryPromise(async () => {
      if (child.exitCode !== null) throw new Error(`it has ended: ${Fs.readFileSync(Path.join(folder, "log"), "utf8")}`)
      return (await fetch(`http://${address}:${metricsPort}/metrics`)).text()
    })
  let running: ChildProcess.ChildProcess
  const part = yield* makePart(
    "haproxy",
    Effect.gen(function* () {
      const child = yield* spawn("haproxy", ["-db", "-f", file], folder)
      running = child
      yield* waitUntil("HAProxy answers", metrics(child), () => true, { within: "20 seconds" })
      return child.pid!
    })
  )
  yield* waitUntil(
    "HAProxy has all servers up",
    Effect.suspend(() => metrics(running)),
    (seen) => (seen.match(/^haproxy_server_status\{.*state="UP"\} 1$/gm) ?? []).length === servers.length,
    { within: "20 seconds" }
  )
  return { ...part, tcp: { host: address, port: tcpPort } }
})
