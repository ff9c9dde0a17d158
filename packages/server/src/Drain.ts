/**
 * Whether the server is on its way out. Set once, never taken back: from then
 * on `/readyz` says no and new work goes elsewhere. Leaves to others: when to
 * start, and how long to wait.
 */
import { Context, Effect, Latch, Layer } from "effect"

export class Drain extends Context.Service<
  Drain,
  {
    /** Says that the server is draining; again is no change. */
    readonly start: Effect.Effect<void>
    readonly isDraining: () => boolean
    /** Waits until the server is draining. */
    readonly awaitDrain: Effect.Effect<void>
  }
>()("@prism-dns/server/Drain") {
  static readonly layer: Layer.Layer<Drain> = Layer.effect(
    Drain,
    Effect.gen(function* () {
      const latch = yield* Latch.make(false)
      let draining = false
      return Drain.of({
        start: Effect.sync(() => {
          draining = true
          latch.openUnsafe()
        }),
        isDraining: () => draining,
        awaitDrain: Effect.asVoid(latch.await)
      })
    })
  )
}
