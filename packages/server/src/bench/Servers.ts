/**
 * The servers that are measured, each as a process of its own: Prism as it is
 * run in production, and the bare one beside it.
 */
import * as PowerDnsProcess from "@prism-dns/core/powerdns/PowerDnsProcess"
import { Effect, Redacted, Schedule } from "effect"
import * as Fs from "node:fs"
import * as Path from "node:path"
import * as DevPowerDns from "../cli/DevPowerDns.ts"
import type { BareOptions } from "./BareServer.ts"
import { type Backend, BenchFailed, failed } from "./Benchmark.ts"
import type { Certificate } from "./Certificate.ts"
import * as Postgres from "./Postgres.ts"
import { type Child, message, nodeArguments, spawn } from "./Workspace.ts"

export const zone = "hosts.prism.test"
export const reverseZone = "127.in-addr.arpa"
export const token = "bench-agent-token"
export const adminToken = "bench-admin-token"

/** Of the PowerDNS that is measured. */
export const apiKey = "bench"

/** Seconds; the default of a zone, so that all yardsticks can have the same. */
export const ttlSeconds = 60

const requestMillisMax = 600_000

const pollEvery = Schedule.spaced("10 millis")

const files = { sqlite: PowerDnsProcess.sqlite, lmdb: PowerDnsProcess.lmdb }

/** Where the zones of one or several PowerDNS are kept: files, or a database on a PostgreSQL of its own. */
export const storage = (backend: Backend) =>
  backend === "pgsql" ? Postgres.forPowerDns : Effect.succeed(files[backend])

export interface Endpoint {
  readonly host: string
  readonly port: number
}

export interface PowerDns {
  readonly pid: number
  readonly url: string
  readonly apiKey: Redacted.Redacted
  readonly dns: Endpoint
}

/** A PowerDNS on what is kept in `folder/NAME`, at first without zones. */
export const powerDns = Effect.fnUntraced(function* (
  folder: string,
  backend: Backend | PowerDnsProcess.Backend,
  options: { readonly name?: string; readonly extra?: Readonly<Record<string, string>> } = {}
) {
  const running = yield* DevPowerDns.start({
    directory: Path.join(folder, options.name ?? "powerdns"),
    backend: typeof backend === "string" ? yield* storage(backend) : backend,
    dnsPort: 0,
    apiPort: 0,
    apiKey: Redacted.make(apiKey),
    extra: options.extra ?? {}
  }).pipe(Effect.mapError(failed("PowerDNS")))
  const result: PowerDns = { pid: running.pid, url: running.apiUrl, apiKey: running.apiKey, dns: running.dns }
  return result
})

export interface Memory {
  readonly rss: number
  readonly heapUsed: number
  /** Open TCP connections, of any kind. */
  readonly sockets: number
}

export interface Server {
  readonly pid: number
  readonly port: number
  /** Fails when the server ends. */
  readonly ended: Effect.Effect<never, BenchFailed>
  /** After a full garbage collection. */
  readonly memory: Effect.Effect<Memory, BenchFailed>
}

const isMemory = (value: unknown): value is { readonly memory: Memory } =>
  typeof value === "object" && value !== null && "memory" in value

const memoryOf = (child: Child): Effect.Effect<Memory, BenchFailed> =>
  Effect.suspend(() => {
    const answer = message(child, (value) => (isMemory(value) ? value.memory : undefined))
    child.process.send("memory")
    return answer
  })

/** The memory of a server once it has noticed all that was opened or closed. */
export const settledMemory = (
  server: Server,
  holds: (sockets: number) => boolean
): Effect.Effect<Memory, BenchFailed> =>
  server.memory.pipe(
    Effect.repeat({ until: ({ sockets }) => holds(sockets), schedule: Schedule.spaced("50 millis") }),
    // Memory is given back to the system step by step, one collection after another.
    Effect.andThen(Effect.repeat(server.memory, { schedule: Schedule.spaced("100 millis"), times: 5 })),
    Effect.andThen(server.memory),
    Effect.timeout("60 seconds"),
    Effect.mapError(failed("the server did not take the connections"))
  )

export interface Prism extends Server {
  /** The registry's SQLite file. */
  readonly registry: string
  /** Of the agents' port that speaks TLS; 0 when there is none. */
  readonly tlsPort: number
  readonly httpUrl: string
}

/** A PowerDNS of the configuration: the settings of one of `powerdns.nodes`. */
export const node = (name: string, role: "primary" | "secondary", powerDns: PowerDns) => ({
  name,
  role,
  api: powerDns.url,
  apiKey: Redacted.value(powerDns.apiKey),
  dns: `${powerDns.dns.host}:${powerDns.dns.port}`
})

export const bothZones = [{ name: zone }, { name: reverseZone }]

/** For hosts of protocol 2.0, where pointers are not the point. */
export const forwardOnly = [{ name: zone }]

/** The section `tls`: a port for agents beside the plain one. */
export const tls = ({ certificate, key }: Certificate) => ({ host: "127.0.0.1", port: 0, certificate, key })

export interface PrismOptions {
  /** The registry is `prism.db` in it, kept when it is there already. */
  readonly folder: string
  /** Its name, where it is one of several. */
  readonly instance?: string
  /** The registry, where it is another database. */
  readonly storage?: string
  readonly powerDns: PowerDns
  /** More of `powerdns.nodes` than that one. */
  readonly nodes?: ReadonlyArray<ReturnType<typeof node>>
  /** Settings of each zone besides name and TTL. Default: the forward and the reverse zone, without any. */
  readonly zones?: ReadonlyArray<Readonly<Record<string, unknown>> & { readonly name: string }>
  /** Names in one PATCH; undefined: as many as by default. */
  readonly batchMax?: number | undefined
  /** More settings of the agents' port. */
  readonly tcp?: Readonly<Record<string, unknown>>
  /** More settings of `auth`. */
  readonly auth?: Readonly<Record<string, unknown>>
  /** More sections of the configuration. */
  readonly more?: Readonly<Record<string, unknown>>
  readonly core?: number | undefined
  readonly profile: string | undefined
}

/** What the ready file says, as far as it is needed. */
interface Ready {
  readonly tcp: Endpoint
  readonly tls?: Endpoint
  readonly http: { readonly url: string }
}

/** Prism itself, once everything of it answers. */
export const prism = Effect.fnUntraced(function* (options: PrismOptions) {
  const { folder } = options
  const file = (name: string) => Path.join(folder, name)
  const registry = file("prism.db")
  const configuration = {
    server: { instance: options.instance ?? "bench", drainDelay: "0s" },
    tcp: { host: "127.0.0.1", port: 0, frameTimeout: "10m", ...options.tcp },
    http: { port: 0 },
    storage: { url: options.storage ?? `sqlite:${registry}` },
    powerdns: {
      nodes: [node("bench", "primary", options.powerDns), ...(options.nodes ?? [])],
      ...(options.batchMax !== undefined && { batchMax: options.batchMax })
    },
    zones: (options.zones ?? bothZones).map((each) => ({
      ttl: `${ttlSeconds}s`,
      networks: ["127.0.0.0/8"],
      ...each
    })),
    auth: {
      mode: "required",
      agentTokens: [{ name: "bench", token }],
      adminTokens: [{ name: "bench-admin", token: adminToken }],
      ...options.auth
    },
    ...options.more
  }
  // Of a server that ran here before.
  Fs.rmSync(file("ready.json"), { force: true })
  Fs.writeFileSync(file("prism.json"), JSON.stringify(configuration))
  const profile = options.profile === undefined ? [] : ["--cpu-prof", `--cpu-prof-dir=${Path.resolve(options.profile)}`]
  const args = [...profile, ...nodeArguments("../cli/main")]
  const child = yield* spawn(
    process.execPath,
    [...args, "serve", "--config", file("prism.json"), "--ready-file", file("ready.json")],
    { folder, log: "prism.log", channel: true, core: options.core }
  )
  const ready = yield* Effect.sync(() => Fs.existsSync(file("ready.json"))).pipe(
    Effect.flatMap((exists) => (exists ? Effect.void : Effect.fail("not yet"))),
    Effect.retry({ schedule: pollEvery }),
    Effect.map(() => JSON.parse(Fs.readFileSync(file("ready.json"), "utf8")) as Ready),
    Effect.timeout("120 seconds"),
    Effect.mapError(() => new BenchFailed({ detail: "the server was not ready within 120 s" })),
    Effect.raceFirst(child.ended)
  )
  const server: Prism = {
    pid: child.pid,
    port: ready.tcp.port,
    ended: child.ended,
    memory: memoryOf(child),
    registry,
    tlsPort: ready.tls?.port ?? 0,
    httpUrl: ready.http.url
  }
  return server
})

/** Posts `body` to the API, below `/v1`; gives the answer's JSON. */
export const post = <A = unknown>(server: Prism, path: string, body: unknown = {}): Effect.Effect<A, BenchFailed> =>
  Effect.tryPromise({
    try: async () => {
      const response = await fetch(`${server.httpUrl}/v1${path}`, {
        method: "POST",
        headers: { authorization: `Bearer ${adminToken}`, "content-type": "application/json" },
        body: JSON.stringify(body),
        signal: AbortSignal.timeout(requestMillisMax)
      })
      const text = await response.text()
      if (!response.ok) throw new Error(`${path}: ${response.status} ${text}`)
      return JSON.parse(text) as A
    },
    catch: failed("the API")
  })

export interface Bare extends Server {
  /** Waits until it has read `frames` frames more, from when this is run. */
  readonly reached: (frames: number) => Effect.Effect<void, BenchFailed>
}

/** The bare server, as its options say. */
export const bare = Effect.fnUntraced(function* (
  folder: string,
  options: BareOptions & { readonly core?: number | undefined } = {}
) {
  const { core, ...given } = options
  const child = yield* spawn(process.execPath, [...nodeArguments("BareServer"), JSON.stringify(given)], {
    folder,
    log: "bare.log",
    channel: true,
    core
  })
  const port = yield* message(child, (value) =>
    typeof value === "object" && value !== null && "port" in value ? Number(value.port) : undefined
  )
  const server: Bare = {
    pid: child.pid,
    port,
    ended: child.ended,
    memory: memoryOf(child),
    reached: (frames) =>
      Effect.suspend(() => {
        child.process.send({ expect: frames })
        return message(child, (value) => (value === "reached" ? true : undefined))
      }).pipe(Effect.asVoid)
  }
  return server
})
