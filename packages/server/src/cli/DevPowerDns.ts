/**
 * The PowerDNS of `prism-dns dev`: a child process that is started again when
 * it ends by itself, so that killing it shows what an outage looks like and
 * not the end of the demonstration.
 *
 * Promises: fails only if the first start fails; a port that was asked for as
 * 0 is chosen once and kept. Leaves to others: the zones in it.
 */
import * as PowerDnsProcess from "@prism-dns/core/powerdns/PowerDnsProcess"
import { Effect, type Redacted, Schedule } from "effect"
import * as Dgram from "node:dgram"
import * as Net from "node:net"
import { loggerAnnotation } from "@prism-dns/core/logging/Logging"
import { PortTaken } from "./Failure.ts"

export interface Options {
  readonly directory: string
  readonly backend: PowerDnsProcess.Backend
  /** 0: any free port. */
  readonly dnsPort: number
  readonly apiPort: number
  readonly apiKey: Redacted.Redacted
  /** Further settings by PowerDNS's names. */
  readonly extra?: Readonly<Record<string, string>>
  /** Folders where `pdns_server` is looked for, in place of PATH and the usual places. */
  readonly searchPath?: ReadonlyArray<string>
}

const listening = (open: (done: (port: number | undefined) => void) => () => void) =>
  Effect.callback<number | undefined>((resume) => {
    const close = open((port) => {
      close()
      resume(Effect.succeed(port))
    })
  })

/** A port of 127.0.0.1 that is free for TCP and UDP. Another program may take it before we do; the caller then asks again. */
export const freePort: Effect.Effect<number> = Effect.gen(function* () {
  while (true) {
    const port = yield* listening((done) => {
      const server = Net.createServer().listen(0, "127.0.0.1", () => done((server.address() as Net.AddressInfo).port))
      return () => server.close()
    })
    const freeForUdp = yield* listening((done) => {
      const socket = Dgram.createSocket("udp4")
        .once("error", () => done(undefined))
        .bind(port, "127.0.0.1", () => done(port))
      return () => socket.close()
    })
    if (port !== undefined && freeForUdp !== undefined) return port
  }
})

/** Attempts at ports that we chose ourselves and that someone else was quicker to take. */
const choicesMax = 5

const startFirst = Effect.fnUntraced(function* (options: Options) {
  for (let choice = 1; ; choice++) {
    const dnsPort = options.dnsPort === 0 ? yield* freePort : options.dnsPort
    const apiPort = options.apiPort === 0 ? yield* freePort : options.apiPort
    const ports = { dnsPort, apiPort }
    const started = yield* Effect.result(PowerDnsProcess.start({ ...options, ...ports }))
    if (started._tag === "Success") return { running: started.success, ports }
    const error = started.failure
    const taken = error._tag === "PowerDnsStartFailed" ? error.port : undefined
    if (taken === undefined) return yield* error
    const flag = taken === dnsPort ? "dns-port" : "pdns-api-port"
    const chosenByUs = (flag === "dns-port" ? options.dnsPort : options.apiPort) === 0
    if (!chosenByUs || choice === choicesMax) return yield* new PortTaken({ port: taken, flag })
  }
})

const restartEvery = Schedule.min([Schedule.exponential("500 millis"), Schedule.spaced("5 seconds")])

/** Starts it, and again whenever it ends, until the scope closes. */
export const start = Effect.fn("DevPowerDns.start")(
  function* (options: Options) {
    const { ports, running } = yield* startFirst(options)
    const startAgain = Effect.scoped(
      Effect.gen(function* () {
        const again = yield* PowerDnsProcess.start({ ...options, ...ports })
        yield* Effect.logInfo(`pdns_server is back as process ${again.pid}`)
        yield* Effect.logWarning(`pdns_server ended; starting it again`, yield* again.exited)
      })
    ).pipe(
      Effect.tapError((error) => Effect.logWarning(`${error.message} Trying again.`)),
      Effect.retry(restartEvery),
      Effect.delay("1 second"),
      Effect.forever
    )
    yield* Effect.gen(function* () {
      yield* Effect.logWarning("pdns_server ended; starting it again", yield* running.exited)
      return yield* startAgain
    }).pipe(Effect.forkScoped)
    return running
  },
  (effect) => Effect.annotateLogs(effect, loggerAnnotation, "DevPowerDns")
)
