/**
 * Words between the servers of a cluster: something of this kind has changed.
 *
 * A signal is a hint. It is sent after a commit, gathered with others for some
 * milliseconds, and may be lost: whoever listens also looks by itself, so a lost
 * one costs time and never truth. It carries names, never contents, so who hears
 * it reads what stands in the database.
 *
 * Promises: sending never waits, never fails, and is bounded; one's own signals
 * are not heard; after any time without a connection those who listen are told
 * `all`, since something may have been missed.
 */
import { Context, Effect, Layer, type Scope } from "effect"
import * as SignalsLine from "./SignalsLine.ts"
import type { Heard, Topic } from "./Topics.ts"

export { type Heard, type Topic, topics } from "./Topics.ts"

export interface SignalsService {
  /** To be called after the commit. Without words, or with too many at once: all. With none of them, nothing is sent. */
  readonly send: (topic: Topic, words?: Iterable<string>) => void
  /** Calls `listener` with what other instances send, until the scope ends. It must not wait. */
  readonly listen: (topic: Topic, listener: (heard: Heard) => void) => Effect.Effect<void, never, Scope.Scope>
  /** Whether signals of others arrive at present, as was last seen. */
  readonly isHearing: () => boolean
}

/** One server alone has nobody to tell. */
const none: SignalsService = { send: () => undefined, listen: () => Effect.void, isHearing: () => true }

/** Where nothing is said of it, a server is alone. */
export class Signals extends Context.Reference<SignalsService>("@prism-dns/core/cluster/Signals", {
  defaultValue: () => none
}) {
  static readonly layerNone: Layer.Layer<never> = Layer.succeed(Signals, none)

  /** Servers that share a PostgreSQL database call each other by LISTEN and NOTIFY. */
  static readonly layerPostgres = (options: Partial<SignalsLine.SignalsOptions> = {}) =>
    Layer.effect(Signals, SignalsLine.make(options))
}
