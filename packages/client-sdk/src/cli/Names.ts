/**
 * The names that this agent keeps: one engine for each, all with the same
 * credentials and addresses.
 *
 * Promises: the first one is connected before the others begin, so that a key
 * is enrolled once; where addresses come from interfaces, each change that has
 * settled is told to all; where the server observes them, it makes sure that
 * connections which stand on a former address are noticed at once. With the
 * scope all ends, and with `releaseOnExit` the names are given up before.
 */
import { Effect, FiberMap, type Scope } from "effect"
import * as Explanation from "../addresses/Explanation.ts"
import * as Following from "../addresses/Following.ts"
import type { Selection } from "../addresses/Selection.ts"
import * as Agent from "../Agent.ts"
import type { AgentOptions, Changes, Logger } from "../Options.ts"
import { RegistrationFailed } from "../Options.ts"
import { version } from "../Version.ts"
import type { Credentials } from "./Credentials.ts"
import { ConfigurationWrong, Refused } from "./Failure.ts"
import type { Settings } from "./Settings.ts"

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

/** Ends when the agent has a connection that stands, or has ended. */
const connected = (agent: Agent.Agent): Effect.Effect<void> =>
  Effect.callback<void>((resume) => {
    const stop = agent.subscribe((event) => {
      if (event.type === "connected") resume(Effect.void)
    })
    if (agent.snapshot().identity !== undefined) resume(Effect.void)
    return Effect.sync(stop)
  }).pipe(Effect.raceFirst(Effect.ignore(agent.ended)))

/** The first selection that has an address. */
const firstSelection = Effect.fnUntraced(function* (options: Following.FollowOptions) {
  let told = false
  while (true) {
    const selection = yield* Following.look(options)
    if (selection.addresses.length > 0) return selection
    if (!told) {
      told = true
      yield* Effect.logWarning(
        `no interface has an address that fits; waiting for one\n${Explanation.toTable(selection)}`
      )
    }
    yield* Effect.sleep("1 second")
  }
})

/** What is done beside keeping the names. */
export interface OpenOptions {
  /** Is told of each name before anything has happened to it. */
  readonly opened?: (name: Name) => void
  /** How this machine's addresses are looked at. */
  readonly following?: Pick<Following.FollowOptions, "every" | "settle" | "settleMax" | "read">
}

/** Opens the names. */
export const open = Effect.fnUntraced(function* (
  settings: Settings,
  credentials: Credentials,
  { following: looks = {}, opened = () => undefined }: OpenOptions = {}
): Effect.fn.Return<ReadonlyArray<Name>, ConfigurationWrong | Refused, Scope.Scope> {
  const following: Following.FollowOptions = {
    ...looks,
    ...(settings.addresses._tag === "Interfaces" ? settings.addresses.options : {})
  }
  const addresses =
    settings.addresses._tag === "Observed"
      ? "observed"
      : settings.addresses._tag === "Listed"
        ? settings.addresses.addresses
        : (yield* firstSelection(following)).addresses
  const names: Array<Name> = []
  const options: AgentOptions = {
    ...credentials,
    server: settings.servers,
    zone: settings.zone,
    addresses,
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
  if (settings.addresses._tag !== "Listed") yield* follow(names, addresses, following)
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

/** Tells all names what has become of this machine's addresses, for as long as the scope lasts. */
const follow = Effect.fnUntraced(function* (
  names: ReadonlyArray<Name>,
  registered: "observed" | ReadonlyArray<string>,
  options: Following.FollowOptions
) {
  // The newest change replaces one that still waits for a server.
  const updates = yield* FiberMap.make<Name>()
  const isObserved = registered === "observed"
  let known = isObserved ? undefined : registered.join(" ")
  const tell = ({ addresses }: Selection) => {
    const before = known
    known = addresses.join(" ")
    if (known === before || before === undefined) return Effect.void
    // Where the server observes, an empty change finds out whether the connection still stands.
    const changes: Changes = isObserved ? {} : { addresses }
    return Effect.andThen(
      Effect.logInfo("the addresses of this machine have changed", { addresses }),
      Effect.forEach(
        names,
        (name) =>
          FiberMap.run(
            updates,
            name,
            Effect.catch(name.agent.update(changes), ({ code, message }) =>
              Effect.logWarning("the addresses were not taken", { name: name.hostname, code, message })
            )
          ),
        { discard: true }
      )
    )
  }
  yield* Effect.forkScoped(Following.follow(options, tell))
})
