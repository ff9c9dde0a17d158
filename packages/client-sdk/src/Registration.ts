/// <reference lib="esnext.disposable" preserve="true" />
/**
 * The Promise API on the engine: `register`, and the handle it gives.
 *
 * Promises: no promise is left to reject without someone who waits for it; a
 * handle that was closed calls no listener any more; whoever awaits something
 * of a handle keeps the process running until it is there.
 */
import * as Cause from "effect/Cause"
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Scope from "effect/Scope"
import * as Agent from "./Agent.ts"
import {
  type AgentOptions,
  type Changes,
  type EventName,
  type Events,
  type Level,
  type Reached,
  RegistrationFailed,
  type StateName
} from "./Options.ts"
import { unrefClock } from "./UnrefClock.ts"

/** An `AbortSignal`, of Node or of a browser's types. */
export interface Signal {
  readonly aborted: boolean
  readonly addEventListener: (type: "abort", listener: () => void, options?: { readonly once?: boolean }) => void
  readonly removeEventListener: (type: "abort", listener: () => void) => void
}

export interface RegisterOptions extends AgentOptions {
  /** What `register` waits for. Default `accepted`. */
  readonly waitFor?: Level | undefined
  /** Aborted before the level is reached: `register` rejects with `aborted`, and nothing goes on. Later it is without effect. */
  readonly signal?: Signal | undefined
  /** With true, the registration alone does not keep the process running. */
  readonly unref?: boolean | undefined
  /** What `await using` does at the end: `release` (default) gives the name up, `keep` leaves it until its lease has passed. */
  readonly onDispose?: "release" | "keep" | undefined
}

export interface WaitOptions {
  /** Ends the waiting, not what is waited for. */
  readonly signal?: Signal | undefined
}

export interface UpdateOptions extends WaitOptions {
  /** Default `accepted`. */
  readonly waitFor?: Level | undefined
}

export interface ReleaseOptions {
  /** How long the server may be out of reach before it is given up on; the name then goes when its lease has passed. Default 10,000. */
  readonly timeoutMillis?: number | undefined
}

type Listener<Name extends EventName> = (event: Events[Name]) => void

/** A name that this process has, or is about to have. */
export interface Registration {
  /** The full name: `web-1.hosts.example.net.` */
  readonly host: string
  /** The addresses it has. */
  readonly addresses: ReadonlyArray<string>
  /** How far the newest accepted change has come; undefined before the first. */
  readonly level: Level | undefined
  readonly state: StateName
  /** Who the server takes us for; undefined before it has said so. */
  readonly identity: string | undefined
  /**
   * Calls `listener` with every such event from now on. An `accepted`, `applied` or `served` that has been reached already
   * is told once, to come in a moment.
   */
  readonly on: <Name extends EventName>(event: Name, listener: Listener<Name>) => Registration
  readonly once: <Name extends EventName>(event: Name, listener: Listener<Name>) => Registration
  readonly off: <Name extends EventName>(event: Name, listener: Listener<Name>) => Registration
  /** Resolves when the newest change has come to `level`, at once if it has. */
  readonly waitFor: (level: Level, options?: WaitOptions) => Promise<Reached>
  /** Changes what the name has. A change that the server refuses leaves it as it was, and rejects. */
  readonly update: (changes: Changes, options?: UpdateOptions) => Promise<Reached>
  /** Gives the name up: its records go at once. */
  readonly release: (options?: ReleaseOptions) => Promise<void>
  /** Ends it without a word to the server, which keeps the name until the lease has passed: for a process that restarts. */
  readonly close: () => Promise<void>
  /** Replaces the key in `stateDir` by a new one, signed with the old one, which is never taken again. */
  readonly rotateKey: (options?: WaitOptions) => Promise<void>
  readonly [Symbol.asyncDispose]: () => Promise<void>
}

const aborted = () => new RegistrationFailed("aborted", "it was aborted by its signal")

/** Longest interval of a Node timer. */
const timerMillisMax = 2 ** 31 - 1

/**
 * The promise of an effect; the signal interrupts it. Whoever waits for it keeps the process running, also where nothing
 * else of a registration does.
 */
const toPromise = <A>(effect: Effect.Effect<A, RegistrationFailed>, signal?: Signal): Promise<A> =>
  new Promise((resolve, reject) => {
    if (signal?.aborted === true) return reject(aborted())
    const hold = setInterval(() => undefined, timerMillisMax)
    const fiber = Effect.runFork(effect)
    const abort = () => fiber.interruptUnsafe()
    signal?.addEventListener("abort", abort, { once: true })
    fiber.addObserver((exit) => {
      clearInterval(hold)
      signal?.removeEventListener("abort", abort)
      if (Exit.isSuccess(exit)) return resolve(exit.value)
      reject(Cause.hasInterruptsOnly(exit.cause) ? aborted() : Cause.squash(exit.cause))
    })
  })

const levelOf: { readonly [Name in EventName]?: Level } = { accepted: "accepted", applied: "applied", served: "served" }

const releaseMillis = 10_000

const makeRegistration = (agent: Agent.Agent, scope: Scope.Closeable, options: RegisterOptions): Registration => {
  interface Entry {
    readonly listener: Listener<EventName>
    readonly stop: () => void
  }
  const entries = new Map<EventName, Array<Entry>>()

  const call = (listener: Listener<EventName>, data: Events[EventName]) => {
    try {
      listener(data)
    } catch (error) {
      // The program's own fault: it shall see it, and the registration shall not suffer from it.
      queueMicrotask(() => {
        throw error
      })
    }
  }

  const remove = (name: EventName, entry: Entry) => {
    entry.stop()
    const left = (entries.get(name) ?? []).filter((each) => each !== entry)
    if (left.length === 0) entries.delete(name)
    else entries.set(name, left)
  }

  const listen = (name: EventName, listener: Listener<EventName>, once: boolean) => {
    const deliver = (data: Events[EventName]) => {
      if (once) remove(name, entry)
      call(listener, data)
    }
    const unsubscribe = agent.subscribe((event) => {
      if (event.type === name) deliver(event.data)
    })
    let live = true
    const entry: Entry = {
      listener,
      stop: () => {
        live = false
        unsubscribe()
      }
    }
    entries.set(name, [...(entries.get(name) ?? []), entry])
    const level = levelOf[name]
    const reached = level === undefined ? undefined : agent.snapshot().reached[level]
    if (reached !== undefined) queueMicrotask(() => live && deliver(reached))
    return registration
  }

  const closeAll = async () => {
    await toPromise(Scope.close(scope, Exit.void))
    for (const [name, all] of entries) for (const entry of all) remove(name, entry)
  }

  const release = async ({ timeoutMillis = releaseMillis }: ReleaseOptions = {}) => {
    try {
      await toPromise(
        Effect.timeoutOrElse(agent.release, {
          duration: timeoutMillis,
          orElse: () =>
            Effect.fail(
              new RegistrationFailed(
                "timeout",
                `no server took the release within ${timeoutMillis} ms; the name goes when its lease has passed`
              )
            )
        })
      )
    } finally {
      await closeAll()
    }
  }

  const registration: Registration = {
    get host() {
      return agent.snapshot().host ?? ""
    },
    get addresses() {
      return agent.snapshot().addresses
    },
    get level() {
      return agent.snapshot().level
    },
    get state() {
      return agent.snapshot().state
    },
    get identity() {
      return agent.snapshot().identity
    },
    on: (name, listener) => listen(name, listener as Listener<EventName>, false),
    once: (name, listener) => listen(name, listener as Listener<EventName>, true),
    off: (name, listener) => {
      const entry = entries.get(name)?.find((each) => each.listener === listener)
      if (entry !== undefined) remove(name, entry)
      return registration
    },
    waitFor: (level, { signal } = {}) => toPromise(agent.waitFor(level), signal),
    update: (changes, { signal, waitFor } = {}) => toPromise(agent.update(changes, waitFor), signal),
    release,
    close: closeAll,
    rotateKey: ({ signal } = {}) => toPromise(agent.rotateKey, signal),
    [Symbol.asyncDispose]: () => (options.onDispose === "keep" ? closeAll() : release().catch(() => undefined))
  }
  return registration
}

/** Says once, where nobody listens, why nothing happens. */
const warnOnce = (agent: Agent.Agent, options: RegisterOptions) => {
  if (options.logger !== undefined) return
  const warn = (text: string) => {
    process.emitWarning(text, { type: "PrismDnsWarning" })
    stop()
  }
  const stop = agent.subscribe((event) => {
    if (event.type === "accepted") stop()
    if (event.type === "disconnected") warn(`${event.data.server}: ${event.data.reason}; trying again until it works`)
    // A name that is refused for now: the promise waits, and nobody has the registration to listen on yet.
    if (event.type === "notice") warn(`${event.data.message} (${event.data.code}); asking again until it works`)
  })
}

/**
 * Registers this process and keeps its name. Resolves when the name has come to `waitFor`; a server that cannot be
 * reached is tried until it can be. Rejects with `RegistrationFailed` when asking again does not help.
 */
export const register = async (options: RegisterOptions): Promise<Registration> => {
  if (options.signal?.aborted === true) throw aborted()
  const scope = Scope.makeUnsafe()
  const made = Agent.make(options).pipe(Scope.provide(scope))
  try {
    const agent = await toPromise(options.unref === true ? Effect.provideService(made, Clock.Clock, unrefClock) : made)
    warnOnce(agent, options)
    await toPromise(agent.waitFor(options.waitFor ?? "accepted"), options.signal)
    return makeRegistration(agent, scope, options)
  } catch (error) {
    await toPromise(Scope.close(scope, Exit.void))
    throw error
  }
}
