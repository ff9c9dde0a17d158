/**
 * A real PowerDNS for tests, on the backend asked for, and questions to it.
 *
 * Promises: free ports, a temporary folder, a client that talks to it; gone
 * with its scope. It can be stopped, started again on the same data, and
 * frozen (it takes connections and does not answer).
 */
import { Context, Effect, Exit, Layer, Redacted, Scope } from "effect"
import { FetchHttpClient } from "effect/http"
import dnsPacket from "dns-packet"
import { createSocket } from "node:dgram"
import * as Fs from "node:fs"
import { tmpdir } from "node:os"
import * as Path from "node:path"
import { pgsqlIndexes, pgsqlLock } from "@prism-dns/core/powerdns/pgsqlLock"
import { PowerDnsClient } from "@prism-dns/core/powerdns/PowerDnsClient"
import type * as PowerDnsHttp from "@prism-dns/core/powerdns/PowerDnsHttp"
import * as PowerDnsProcess from "@prism-dns/core/powerdns/PowerDnsProcess"
import { freePorts } from "./ports.ts"
import { Postgres } from "./Postgres.ts"

export type BackendName = "sqlite" | "lmdb" | "pgsql"

export interface Dns {
  readonly host: string
  readonly port: number
}

const pgsqlSchemaFile = "/usr/share/pdns-backend-pgsql/schema/schema.pgsql.sql"

/** A PostgreSQL with a database for PowerDNS, as Prism wants it. */
export const pgsqlBackend = Effect.gen(function* () {
  const postgres = yield* Postgres
  const database = yield* postgres.createDatabase(
    `${Fs.readFileSync(pgsqlSchemaFile, "utf8")}\n${pgsqlLock}\n${pgsqlIndexes}`
  )
  return PowerDnsProcess.pgsql({ ...database, host: database.socketDirectory })
})

/** The server behind the `PowerDnsClient` of the same layer. */
export class TestPowerDns extends Context.Service<
  TestPowerDns,
  {
    readonly dns: Dns
    readonly apiUrl: string
    readonly apiKey: Redacted.Redacted
    readonly directory: string
    readonly backend: PowerDnsProcess.Backend
    /** Stops it, as `systemctl stop` would. */
    readonly stop: Effect.Effect<void>
    /** Starts it again, on the same ports and data. */
    readonly start: Effect.Effect<void>
    /** Ends it in the middle of whatever it does. It may be started again. */
    readonly kill: Effect.Effect<void>
    /** Nothing is answered until `thaw`, though connections are accepted. */
    readonly freeze: Effect.Effect<void>
    readonly thaw: Effect.Effect<void>
  }
>()("@prism-dns/core/test/TestPowerDns") {}

/** A temporary folder that goes with the scope. */
export const temporaryFolder = (prefix: string) =>
  Effect.acquireRelease(
    Effect.sync(() => Fs.mkdtempSync(Path.join(tmpdir(), prefix))),
    (folder) => Effect.sync(() => Fs.rmSync(folder, { recursive: true, force: true }))
  )

/** A server until the scope closes; several may have the same `pgsqlBackend`. */
export const startServer = Effect.fnUntraced(function* (
  backend: PowerDnsProcess.Backend,
  extra: Readonly<Record<string, string>> = {}
) {
  const directory = yield* temporaryFolder("prism-pdns-")
  const [dnsPort = 0, apiPort = 0] = yield* freePorts(2)
  const apiKey = Redacted.make(crypto.randomUUID())
  const outer = yield* Effect.scope
  let inner: Scope.Closeable | undefined
  let running: PowerDnsProcess.PowerDnsProcess | undefined

  const signal = (name: NodeJS.Signals) => Effect.sync(() => void process.kill(running!.pid, name))
  const start = Effect.gen(function* () {
    inner = yield* Scope.fork(outer)
    running = yield* PowerDnsProcess.start({ directory, backend, dnsPort, apiPort, apiKey, extra }).pipe(
      Scope.provide(inner),
      Effect.orDie
    )
  })
  const stop = Effect.suspend(() => (inner === undefined ? Effect.void : Scope.close(inner, Exit.void)))
  yield* start
  return TestPowerDns.of({
    dns: running!.dns,
    apiUrl: running!.apiUrl,
    apiKey,
    directory,
    backend,
    stop,
    start,
    kill: Effect.andThen(signal("SIGKILL"), stop),
    freeze: signal("SIGSTOP"),
    thaw: signal("SIGCONT")
  })
})

export interface Options {
  /** Settings of the client, besides where the server is. */
  readonly client?: Partial<Omit<PowerDnsHttp.Options, "url" | "apiKey">>
  /** Settings of the server, by PowerDNS's names. */
  readonly extra?: Readonly<Record<string, string>>
}

/** Only the server. `pgsql` brings a PostgreSQL of its own. */
export const layerServer = (backend: BackendName, options: Options = {}): Layer.Layer<TestPowerDns> => {
  const extra = options.extra ?? {}
  if (backend === "pgsql") {
    return Layer.effect(
      TestPowerDns,
      Effect.flatMap(pgsqlBackend, (backend) => startServer(backend, extra))
    ).pipe(Layer.provide(Postgres.layer()))
  }
  return Layer.effect(
    TestPowerDns,
    startServer(backend === "lmdb" ? PowerDnsProcess.lmdb : PowerDnsProcess.sqlite, extra)
  )
}

/** A client for one of several servers. */
export const clientOf = (
  server: TestPowerDns["Service"],
  options: Options["client"] = {}
): Effect.Effect<PowerDnsClient["Service"], never, Scope.Scope> =>
  Layer.build(
    PowerDnsClient.layer({ node: "test", ...options, url: server.apiUrl, apiKey: server.apiKey }).pipe(
      Layer.provide(FetchHttpClient.layer)
    )
  ).pipe(Effect.map(Context.get(PowerDnsClient)))

/** A client for the server around. */
export const layerClient = (options: Options = {}): Layer.Layer<PowerDnsClient, never, TestPowerDns> =>
  Layer.unwrap(
    Effect.map(TestPowerDns, ({ apiKey, apiUrl }) =>
      PowerDnsClient.layer({ node: "test", ...options.client, url: apiUrl, apiKey })
    )
  ).pipe(Layer.provide(FetchHttpClient.layer))

/** The server and a client for it. */
export const layer = (backend: BackendName, options: Options = {}): Layer.Layer<TestPowerDns | PowerDnsClient> =>
  layerClient(options).pipe(Layer.provideMerge(layerServer(backend, options)))

/** What a DNS server answered. */
export interface Answer {
  /** `NOERROR`, `NXDOMAIN`, `SERVFAIL`, ... */
  readonly rcode: string
  readonly isAuthoritative: boolean
  /** Data of the answers of the type asked for, sorted; names without the trailing dot, as `dns-packet` gives them. */
  readonly data: ReadonlyArray<string>
  readonly ttlSeconds: number | undefined
  /** The name servers of a referral. */
  readonly referral: ReadonlyArray<string>
}

const ask = (dns: Dns, name: string, type: "A" | "AAAA" | "PTR" | "CNAME" | "MX" | "NS" | "SOA" | "TXT") =>
  Effect.callback<Answer, Error>((resume) => {
    const id = Math.floor(Math.random() * 65_536)
    const socket = createSocket(dns.host.includes(":") ? "udp6" : "udp4")
    socket.on("error", (error) => resume(Effect.fail(error)))
    socket.on("message", (message) => {
      const packet = dnsPacket.decode(message)
      if (packet.id !== id) return
      socket.close()
      const answers = (packet.answers ?? []).filter((answer) => answer.type === type)
      resume(
        Effect.succeed({
          rcode: "rcode" in packet ? String(packet.rcode) : "",
          isAuthoritative: packet.flag_aa,
          data: answers
            .map((answer) => {
              const data: unknown = "data" in answer ? answer.data : ""
              return typeof data === "string" ? data : JSON.stringify(data)
            })
            .sort(),
          ttlSeconds: answers.flatMap((answer) => ("ttl" in answer ? [answer.ttl ?? 0] : []))[0],
          referral: packet.flag_aa
            ? []
            : (packet.authorities ?? []).flatMap((answer) => (answer.type === "NS" ? [answer.data] : []))
        })
      )
    })
    const question = { type, name: name.endsWith(".") ? name.slice(0, -1) : name }
    socket.send(dnsPacket.encode({ type: "query", id, questions: [question] }), dns.port, dns.host)
    return Effect.sync(() => socket.close())
  })

/** Asks a server over UDP: one second for each of three attempts, and then the failure says so. */
export const resolve = (
  dns: Dns,
  name: string,
  type: "A" | "AAAA" | "PTR" | "CNAME" | "MX" | "NS" | "SOA" | "TXT"
): Effect.Effect<Answer, Error> =>
  ask(dns, name, type).pipe(
    Effect.timeoutOrElse({
      duration: "1 second",
      orElse: () => Effect.fail(new Error(`no answer from ${dns.host}:${dns.port} to ${name} ${type}`))
    }),
    Effect.retry({ times: 2 })
  )
