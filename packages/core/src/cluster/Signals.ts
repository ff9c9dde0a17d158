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

/**
 * - `outbox`: zones that have marks. Words: zones.
 * - `published`: zones in which names were applied, served or parked. Words: zones.
 * - `hosts`: hosts that were written. Words: full names.
 * - `audit`: entries were committed, or sealed. No words.
 * - `zones`, `access`, `ownership`, `webhooks`, `guards`: what is kept of these in memory is to be read anew. No words.
 * - `leases`: a lease is free, or an instance came or went. No words.
 */
export const topics = [
  "outbox",
  "published",
  "hosts",
  "audit",
  "zones",
  "access",
  "ownership",
  "webhooks",
  "guards",
  "leases"
] as const
export type Topic = (typeof topics)[number]

/** What was heard: the words, or that any of them may have been missed. */
export type Heard = ReadonlySet<string> | "all"

export class Signals extends Context.Service<
  Signals,
  {
    /** To be called after the commit. Too many words at once become `all`. */
    readonly send: (topic: Topic, words?: Iterable<string>) => void
    /** Calls `listener` with what other instances send, until the scope ends. It must not wait. */
    readonly listen: (topic: Topic, listener: (heard: Heard) => void) => Effect.Effect<void, never, Scope.Scope>
    /** Whether signals of others arrive at present, as was last seen. */
    readonly isHearing: () => boolean
  }
>()("@prism-dns/core/cluster/Signals") {
  /** One server alone has nobody to tell. */
  static readonly layerNone: Layer.Layer<Signals> = Layer.succeed(
    Signals,
    Signals.of({ send: () => undefined, listen: () => Effect.void, isHearing: () => true })
  )
}
