/**
 * `prism-dns dev`: all of it on one machine, from nothing. A registry in
 * SQLite, a real pdns_server as a child process, example zones, keys, and a
 * first host whose name resolves by the time anything is printed.
 */
import * as PowerDnsProcess from "@prism-dns/core/powerdns/PowerDnsProcess"
import { Console, Context, Effect, Layer, Option, Redacted, Schema } from "effect"
import { Command, Flag } from "effect/cli"
import * as Os from "node:os"
import * as Config from "../Config.ts"
import * as Logging from "@prism-dns/core/logging/Logging"
import { version } from "../Version.ts"
import * as Beat from "./Beat.ts"
import * as DevFolder from "./DevFolder.ts"
import * as DevPowerDns from "./DevPowerDns.ts"
import * as Flags from "./flags.ts"
import * as Ready from "./Ready.ts"

const defaultZone = "hosts.prism.test"

/** The networks a try-out is likely to use: loopback, private, documentation. */
const reverseZones: ReadonlyArray<string> = [
  "127.in-addr.arpa",
  "10.in-addr.arpa",
  "168.192.in-addr.arpa",
  ...Array.from({ length: 16 }, (_, i) => `${16 + i}.172.in-addr.arpa`),
  "2.0.192.in-addr.arpa",
  "100.51.198.in-addr.arpa",
  "113.0.203.in-addr.arpa",
  "0.0.0.0.0.0.0.0.ip6.arpa", // ::1
  "d.f.ip6.arpa",
  "8.b.d.0.1.0.0.2.ip6.arpa"
]

const backends = { sqlite: PowerDnsProcess.sqlite, lmdb: PowerDnsProcess.lmdb }

const firstHost = "hello"

const port = (name: string, byDefault: number, doc: string) =>
  Flag.Int(name).pipe(
    Flag.withSchema(Schema.Int.check(Schema.isBetween({ minimum: 0, maximum: 65_535 }))),
    Flag.withDescription(`${doc}; 0 is any free one. Default: ${byDefault}.`),
    Flag.withMetavar("PORT"),
    Flag.withDefault(byDefault)
  )

const input = {
  data: Flag.String("data").pipe(
    Flag.withDescription("Folder for everything that is kept. Default: ./.prism."),
    Flag.withMetavar("DIR"),
    Flag.withDefault("./.prism")
  ),
  backend: Flag.Literals("backend", ["sqlite", "lmdb"]).pipe(
    Flag.withDescription("Where PowerDNS keeps its zones."),
    Flag.withDefault("sqlite" as const)
  ),
  dnsPort: port("dns-port", 5300, "Port of DNS"),
  pdnsApiPort: port("pdns-api-port", 8053, "Port of PowerDNS's API"),
  pdnsDir: Flag.String("pdns-dir").pipe(
    Flag.withDescription("Folder of the pdns_server to run. Default: PATH and the usual places of servers."),
    Flag.withMetavar("DIR"),
    Flag.optional
  ),
  readyFile: Flags.readyFile,
  logLevel: Flag.ChoiceWithValue("log-level", Config.logLevels).pipe(
    Flag.withDescription("The least severe lines that are logged."),
    Flag.withDefault("Info" as const)
  ),
  logFormat: Flag.Literals("log-format", Config.logFormats).pipe(
    Flag.withDescription("JSON lines or readable ones; auto is readable on a terminal."),
    Flag.withDefault("auto" as const)
  ),
  flags: Flags.settingFlags(["tcp-port", "http-port", "zone"])
}

/**
 * What the environment may say to a try-out: limits, leases, who needs a token. Not where it keeps its hosts, which
 * PowerDNS it talks to or whom it listens to: variables meant for a server must not reach it from here.
 */
const environmentOfDev = (): Record<string, string | undefined> =>
  Object.fromEntries(
    Object.entries(process.env).filter(([name]) =>
      /^PRISM_(?:SERVER_|LEASES_|TCP_(?!HOST$|PORT$|PROXY_FROM)|AUTH_MODE$|AUTH_ANONYMOUS_|AUTH_LIMITS_|EVENTS_)/.test(
        name
      )
    )
  )

const unlimited = { ratePerSecond: 100_000, burst: 100_000 }

/** Runs everything in the scope; ends when the scope does. */
const start = Effect.fn("dev.start")(function* (options: {
  readonly folder: DevFolder.DevFolder
  readonly backend: "sqlite" | "lmdb"
  readonly dnsPort: number
  readonly pdnsApiPort: number
  readonly pdnsDir: Option.Option<string>
  readonly zones: ReadonlyArray<string>
  readonly flags: Record<string, string | ReadonlyArray<string>>
}) {
  const { folder } = options
  const powerdns = yield* DevPowerDns.start({
    directory: options.backend === "sqlite" ? folder.powerdns : `${folder.powerdns}-lmdb`,
    backend: backends[options.backend],
    dnsPort: options.dnsPort,
    apiPort: options.pdnsApiPort,
    apiKey: Redacted.make(folder.apiKey.value),
    ...(Option.isSome(options.pdnsDir) && { searchPath: [options.pdnsDir.value] })
  })
  const { config } = yield* Config.load({
    values: {
      server: { instance: "dev", drainDelay: "0s" },
      tcp: { host: "127.0.0.1" },
      storage: { url: `sqlite:${folder.registry}` },
      powerdns: {
        nodes: [
          {
            name: "dev",
            api: powerdns.apiUrl,
            apiKey: folder.apiKey.value,
            dns: `${powerdns.dns.host}:${powerdns.dns.port}`
          }
        ]
      },
      // Nobody else asks for these names, so any address may have one.
      zones: options.zones.map((name) => ({ name, networks: ["0.0.0.0/0", "::/0"] })),
      auth: {
        mode: "optional",
        agentTokens: [{ name: "dev-agent", token: folder.agentToken.value }],
        adminTokens: [{ name: "dev-admin", token: folder.adminToken.value }],
        // Loopback only, and whoever tries it out tries out how much it takes.
        anonymous: unlimited,
        limits: { identity: unlimited, token: unlimited, name: unlimited, network: unlimited }
      },
      // Whoever tries webhooks out has the receiver here.
      events: { webhooks: { networks: ["127.0.0.0/8", "::1/128"] } }
    },
    environment: environmentOfDev(),
    flags: options.flags
  })
  const Server = yield* Effect.promise(() => import("../Server.ts"))
  const running = Context.get(yield* Layer.build(Server.layer(config)), Server.Running)
  if (running.tcp === undefined) return yield* Effect.die(new Error("dev has no port without TLS"))
  const ready: Ready.ReadyPlain = {
    pid: process.pid,
    tcp: running.tcp,
    http: running.http,
    dns: powerdns.dns,
    powerdns: { url: powerdns.apiUrl, apiKey: folder.apiKey.value },
    zones: config.zones.map((zone) => zone.name),
    adminToken: folder.adminToken.value,
    agentToken: folder.agentToken.value
  }
  yield* Ready.awaitAnswers(ready)
  return { config, ready }
})

/** Registers the first host as any host does, waits until it resolves, and keeps its lease. */
const keepFirstHost = Effect.fnUntraced(function* (config: Config.PrismConfig, ready: Ready.ReadyPlain, token: string) {
  const beat = Beat.send(ready.tcp, firstHost, token)
  yield* beat
  const resolver = yield* Effect.promise(() => Ready.resolverFor(ready.dns))
  const name = `${firstHost}.${ready.zones[0]!.slice(0, -1)}`
  yield* Ready.until(
    `${name} in the DNS`,
    Effect.tryPromise(() => resolver.resolve4(name))
  )
  yield* beat.pipe(
    Effect.catchTag("BeatFailed", (error) => Effect.logWarning(error.message)),
    Effect.delay(config.leases.beatInterval),
    Effect.forever,
    Effect.forkScoped
  )
})

/** This machine's name as a host may be called, or a stand-in where it has none that fits. */
const machineName = (): string => {
  const label = Os.hostname()
    .split(".")[0]!
    .toLowerCase()
    .replace(/[^a-z0-9-]/g, "-")
    .replace(/^-+|-+$/g, "")
    .slice(0, 63)
  return label === "" || label === "localhost" ? "this-machine" : label
}

/** A shell word that sends one frame; its length stands in front as `printf` writes bytes. */
const frameForPrintf = (text: string): string => {
  const length = Buffer.byteLength(text)
  const prefix = [24, 16, 8, 0].map((shift) => `\\${((length >>> shift) & 255).toString(8).padStart(3, "0")}`)
  return `${prefix.join("")}${text}`
}

const block = (folder: DevFolder.DevFolder, ready: Ready.ReadyPlain): string => {
  const zone = ready.zones[0]!.slice(0, -1)
  const dig = `dig @${ready.dns.host} -p ${ready.dns.port}`
  const forward = ready.zones.filter((name) => !name.endsWith(".arpa."))
  const machine = machineName()
  const frame = frameForPrintf(Beat.message(machine, new Date().toISOString()))
  return `
Prism DNS ${version} is running, and so is a PowerDNS. All they keep is in ${folder.path}

  hosts register at    ${ready.tcp.host}:${ready.tcp.port}
  API and metrics      ${ready.http.url}
  DNS                  ${ready.dns.host} port ${ready.dns.port}
  zones                ${forward.map((name) => name.slice(0, -1)).join(", ")} and ${ready.zones.length - forward.length} reverse zones
  PowerDNS API         ${ready.powerdns.url}
  keys                 agent-token, admin-token, powerdns-api-key in ${folder.path}

A first host is registered. Ask for its address, and for the name of the address:

  ${dig} +short ${firstHost}.${zone}
  ${dig} +short -x 127.0.0.1

Register this machine as deployed clients do (bash), then ask for it:

  bash -c "printf '${frame.replaceAll('"', '\\"')}' > /dev/tcp/${ready.tcp.host}/${ready.tcp.port}"
  ${dig} +short ${machine}.${zone}

Or by the agent, which keeps the name (in a clone: ./prism agent):

  prism-agent --server ${ready.tcp.host}:${ready.tcp.port} --token-file '${folder.path}/agent-token' --state '${folder.path}/agent'

Ctrl-C stops it; the next start on the same folder goes on with the same.
`
}

export const dev = Command.make(
  "dev",
  input,
  Effect.fn(function* (input) {
    const { zone: given, ...ports } = Flags.given(input.flags)
    const zones = [...new Set([...(given === undefined ? [defaultZone] : [given].flat()), ...reverseZones])]
    const run = Effect.gen(function* () {
      const folder = yield* DevFolder.open(input.data)
      if (Option.isSome(input.readyFile)) yield* Ready.remove(input.readyFile.value)
      const { config, ready } = yield* start({ ...input, folder, zones, flags: ports })
      yield* keepFirstHost(config, ready, folder.agentToken.value)
      if (Option.isSome(input.readyFile)) yield* Ready.write(input.readyFile.value, ready)
      yield* Console.log(block(folder, ready))
      return yield* Effect.never
    })
    yield* Effect.scoped(run).pipe(Effect.provide(Logging.layer(input)))
  })
).pipe(Command.withDescription("Run everything on this machine, to try it out: server, PowerDNS, zones, a first host."))
