/**
 * The names that this agent keeps: one engine for each, all with the same
 * credentials and addresses.
 *
 * Promises: the first one is connected before the others begin, so that a key
 * is enrolled once; where the server observes addresses, connections which
 * stand on a former one are noticed soon. With the scope all ends, and with
 * `releaseOnExit` the names are given up before. Leaves to others: connections,
 * leases, and the addresses of interfaces as they change (`Agent`).
 */
import { Effect, FiberMap, type Scope } from "effect"
import * as Following from "../addresses/Following.ts"
import * as Agent from "../Agent.ts"
import type { AgentOptions, Logger } from "../Options.ts"
import { RegistrationFailed } from "../Options.ts"
import { version } from "../Version.ts"
import type { Credentials } from "./Credentials.ts"
import { ConfigurationWrong, Refused } from "./Failure.ts"
import type { Addresses, Settings } from "./Settings.ts"

export interface Name {
  /** What was asked for. */
  readonly hostname: string
  readonly agent: Agent.Agent
}

/** How long a server may take to hear that the names are given up. */
const releaseTimeout = "10 seconds"

/** The SDK's errors, sorted: what this machine's owner can mend is configuration. */
export const sort =
  (hostname: string) =>
  (error: RegistrationFailed): ConfigurationWrong | Refused => {
    switch (error.code) {
      case "invalid":
      case "key-insecure":
      case "key-unreadable":
        return new ConfigurationWrong({ problems: [error.message] })
      default:
        return new Refused({ host: hostname, code: error.code, detail: error.message })
    }
  }

/** The SDK's lines as lines of this program. */
const makeLogger = Effect.fnUntraced(function* (name: string) {
  const run = Effect.runSyncWith(yield* Effect.context())
  const line =
    (log: (...message: ReadonlyArray<unknown>) => Effect.Effect<void>) =>
    (message: string, fields: Readonly<Record<string, unknown>> = {}) =>
      run(Effect.annotateLogs(log(message, { ...fields }), { name }))
  const logger: Logger = {
    debug: line(Effect.logDebug),
    info: line(Effect.logInfo),
    warn: line(Effect.logWarning)
  }
  return logger
})

/** Ends when a server knows the agent, whatever it says of the name, or when the agent has ended. */
const connected = (agent: Agent.Agent): Effect.Effect<void> =>
  Effect.callback<void>((resume) => {
    const stop = agent.subscribe((event) => {
      if (event.type === "connected" || (event.type === "state" && event.data.state === "registering")) {
        resume(Effect.void)
      }
    })
    if (agent.snapshot().identity !== undefined) resume(Effect.void)
    return Effect.sync(stop)
  }).pipe(Effect.raceFirst(Effect.ignore(agent.ended)))

/** What is done beside keeping the names. */
export interface OpenOptions {
  /** Is told of each name before anything has happened to it. */
  readonly opened?: (name: Name) => void
  /** How this machine's addresses are looked at. */
  readonly following?: Pick<Following.FollowOptions, "every" | "settle" | "settleMax" | "read">
}

const addressesOf = (addresses: Addresses): Pick<AgentOptions, "addresses" | "interfaces"> => {
  switch (addresses._tag) {
    case "Observed":
      return { addresses: "observed" }
    case "Listed":
      return { addresses: addresses.addresses }
    case "Interfaces":
      return { addresses: "interfaces", interfaces: addresses.options }
  }
}

/** Opens the names. */
export const open = Effect.fnUntraced(function* (
  settings: Settings,
  credentials: Credentials,
  { following = {}, opened = () => undefined }: OpenOptions = {}
): Effect.fn.Return<ReadonlyArray<Name>, ConfigurationWrong | Refused, Scope.Scope> {
  const names: Array<Name> = []
  const options: Agent.EngineOptions = {
    ...credentials,
    ...addressesOf(settings.addresses),
    following,
    server: settings.servers,
    zone: settings.zone,
    ttlSeconds: settings.ttlSeconds,
    labels: settings.labels,
    ack: settings.ack,
    client: `prism-agent/${version}`
  }
  for (const hostname of settings.hostnames.length === 0 ? [undefined] : settings.hostnames) {
    const shown = hostname ?? "this machine"
    const agent = yield* Effect.mapError(
      Agent.make({ ...options, hostname, logger: yield* makeLogger(shown) }),
      sort(shown)
    )
    const name = { hostname: shown, agent }
    opened(name)
    names.push(name)
    if (settings.releaseOnExit) yield* Effect.addFinalizer(() => release(name))
    if (names.length < settings.hostnames.length) yield* connected(agent)
  }
  if (settings.addresses._tag === "Observed") yield* Effect.forkScoped(probe(names, following))
  return names
})

const release = ({ agent, hostname }: Name): Effect.Effect<void> =>
  agent.release.pipe(
    Effect.timeoutOrElse({
      duration: releaseTimeout,
      orElse: () => Effect.fail(new RegistrationFailed("timeout", "no server took it in time"))
    }),
    Effect.matchEffect({
      onSuccess: () => Effect.logInfo("released", { name: hostname }),
      onFailure: ({ code, message }) =>
        Effect.logWarning("not released; the name goes when its lease has passed", { name: hostname, code, message })
    })
  )

/**
 * Where the server observes addresses, a change of this machine's own is only noticed by a connection when it breaks. A
 * change of nothing, which has to be answered, finds out at once.
 */
const probe = Effect.fnUntraced(function* (names: ReadonlyArray<Name>, following: Following.FollowOptions) {
  // The newest replaces one that still waits for a server.
  const probes = yield* FiberMap.make<Name>()
  let known: string | undefined
  yield* Following.follow(following, ({ addresses }) => {
    const before = known
    known = addresses.join(" ")
    if (before === undefined) return Effect.void
    return Effect.andThen(
      Effect.logInfo("the addresses of this machine have changed", { addresses }),
      Effect.forEach(names, (name) => FiberMap.run(probes, name, Effect.ignore(name.agent.update({}))), {
        discard: true
      })
    )
  })
}, Effect.scoped)
