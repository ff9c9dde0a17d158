/**
 * The SDK for programs on Effect: a name that lives as long as a scope.
 *
 * `make` in a scope, or `layer`, registers and returns at once; `waitFor` says
 * when the name has come to a level. At the end of the scope the name is given
 * up, unless `whenClosed` says to keep it for a process that restarts. Time and
 * randomness come from `Clock` and `Random`, so `TestClock` moves it.
 */
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Queue from "effect/Queue"
import type * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import * as Agent from "./Agent.ts"
import type { AgentEvent, AgentOptions, Changes, Level, Reached, RegistrationFailed, Snapshot } from "./Options.ts"

export {
  type AddressChanged,
  type AgentEvent,
  type AgentOptions,
  type Changes,
  type Connected,
  type Disconnected,
  type EventName,
  type Events,
  type InterfaceOptions,
  type Level,
  type Logger,
  type Notice,
  type Parked,
  type Reached,
  RegistrationFailed,
  type Snapshot,
  type StateChanged,
  type StateName,
  type Timing,
  type TlsOptions
} from "./Options.ts"

export interface RegistrationOptions extends AgentOptions {
  /** At the end of the scope: `release` (default) gives the name up, `keep` leaves it until its lease has passed. */
  readonly whenClosed?: "release" | "keep" | undefined
  /** How long the end of the scope may wait for the server to take the release. Default 10,000. */
  readonly releaseMillis?: number | undefined
}

/** Events that a slow reader may be behind; older ones are dropped then. */
const eventsMax = 1024

/** A name that this process has, or is about to have. */
export class Registration extends Context.Service<
  Registration,
  {
    /** How it stands at this moment. */
    readonly snapshot: Effect.Effect<Snapshot>
    /** All that happens from now on. Ends when the registration does. */
    readonly events: Stream.Stream<AgentEvent>
    /** Waits until the newest change has come to `level`. */
    readonly waitFor: (level: Level) => Effect.Effect<Reached, RegistrationFailed>
    /** Changes what the name has, and waits until that has come to `level`, by default `accepted`. */
    readonly update: (changes: Changes, level?: Level) => Effect.Effect<Reached, RegistrationFailed>
    /** Replaces the key in the state folder by a new one, on the session that stands. */
    readonly rotateKey: Effect.Effect<void, RegistrationFailed>
    /** Gives the name up, before the scope ends. */
    readonly release: Effect.Effect<void, RegistrationFailed>
    /** Waits for the end: given up, closed, or refused for good. */
    readonly ended: Effect.Effect<"released" | "closed", RegistrationFailed>
  }
>()("@prism-dns/client-sdk/Registration") {}

const releaseMillisByDefault = 10_000

/** Registers for as long as the scope lasts. Fails where the options or the state folder will not do. */
export const make = Effect.fnUntraced(function* (
  options: RegistrationOptions
): Effect.fn.Return<Registration["Service"], RegistrationFailed, Scope.Scope> {
  const agent = yield* Agent.make(options)
  if (options.whenClosed !== "keep") {
    yield* Effect.addFinalizer(() =>
      Effect.suspend(() => {
        const { state } = agent.snapshot()
        if (state === "released" || state === "closed" || state === "refused") return Effect.void
        return agent.release.pipe(
          Effect.timeoutOrElse({
            duration: options.releaseMillis ?? releaseMillisByDefault,
            orElse: () => Effect.void
          }),
          Effect.ignore
        )
      })
    )
  }
  const events = Stream.callback<AgentEvent>(
    (queue) =>
      Effect.gen(function* () {
        yield* Effect.acquireRelease(
          Effect.sync(() => agent.subscribe((event) => void Queue.offerUnsafe(queue, event))),
          (stop) => Effect.sync(stop)
        )
        yield* Effect.exit(agent.ended)
        yield* Queue.end(queue)
      }),
    { bufferSize: eventsMax, strategy: "sliding" }
  )
  return Registration.of({
    snapshot: Effect.sync(() => agent.snapshot()),
    events,
    waitFor: agent.waitFor,
    update: agent.update,
    rotateKey: agent.rotateKey,
    release: agent.release,
    ended: agent.ended
  })
})

/** A layer of it: the name lives as long as what the layer is provided to. */
export const layer = (options: RegistrationOptions): Layer.Layer<Registration, RegistrationFailed> =>
  Layer.effect(Registration, make(options))
