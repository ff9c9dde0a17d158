/**
 * What is done for a zone by the one server that writes it: for each zone that is
 * managed, for as long as this server holds its lease and the zone is managed.
 *
 * Promises: work for a zone begins anew each time the zone is got, and has ended
 * before another server gets it. Leaves to others: which server gets which zone
 * (`cluster/Cluster`).
 */
import { Effect, Exit, Latch, Scope } from "effect"
import { Cluster, type Held, zoneLease } from "../cluster/Cluster.ts"
import type { DomainName } from "../domain/DomainName.ts"
import { Zones } from "./Zones.ts"

/** Runs `work` for each zone while this server writes it, until the scope ends. `work` is interrupted then. */
export const whileHeld = <E, R>(
  work: (zone: DomainName, held: Held) => Effect.Effect<void, E, R>
): Effect.Effect<void, never, R | Cluster | Zones | Scope.Scope> =>
  Effect.gen(function* () {
    const cluster = yield* Cluster
    const zones = yield* Zones
    const scope = yield* Effect.scope
    const standing = new Map<DomainName, Scope.Closeable>()
    const moved = new Set<DomainName>()
    const hasMoved = yield* Latch.make(false)
    yield* zones.changed(({ after, before }) => {
      moved.add((after ?? before)!.name)
      hasMoved.openUnsafe()
    })

    const follow = Effect.fnUntraced(function* (name: DomainName) {
      const own = standing.get(name)
      if (zones.find(name) === undefined) {
        standing.delete(name)
        if (own !== undefined) yield* Scope.close(own, Exit.void)
      } else if (own === undefined) {
        const begun = yield* Scope.fork(scope)
        standing.set(name, begun)
        yield* Scope.provide(
          cluster.whileHeld(zoneLease(name), (held) => work(name, held)),
          begun
        )
      }
    })

    yield* Effect.forEach(zones.all, ({ name }) => follow(name), { discard: true })
    yield* Effect.gen(function* () {
      yield* hasMoved.await
      hasMoved.closeUnsafe()
      const names = [...moved]
      moved.clear()
      yield* Effect.forEach(names, follow, { discard: true })
    }).pipe(Effect.forever, Effect.forkScoped)
  })
