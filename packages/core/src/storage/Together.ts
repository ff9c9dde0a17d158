/**
 * One look at the database for many who ask for the same kind of thing at the
 * same moment, as sessions do that come back in a crowd.
 *
 * There is one look at a time, for all who asked during the last one: so they
 * take one connection of the database and leave the others to whoever writes,
 * and the more they are the less each costs. Promises: each look begins after it
 * was asked for. What is found knows what others asked for too. Of those who
 * wait there are no more than requests under way.
 */
import { Effect, Exit, Queue, type Scope } from "effect"

/** Who waits for a look. */
interface Waiting<Key, Found, E> {
  readonly keys: ReadonlyArray<Key>
  readonly resume: (exit: Exit.Exit<Found, E>) => void
}

/** `look` for many at once, with `keysMax` keys at the most, more or less. Ends with the scope. */
export const make = Effect.fnUntraced(function* <Key, Found, E>(
  look: (keys: ReadonlyArray<Key>) => Effect.Effect<Found, E>,
  keysMax: number
): Effect.fn.Return<(keys: ReadonlyArray<Key>) => Effect.Effect<Found, E>, never, Scope.Scope> {
  const queue = yield* Queue.unbounded<Waiting<Key, Found, E>>()

  yield* Effect.gen(function* () {
    const some: Array<Waiting<Key, Found, E>> = [yield* Queue.take(queue)]
    for (let keys = some[0]!.keys.length; keys < keysMax && Queue.sizeUnsafe(queue) > 0;) {
      const next = yield* Queue.take(queue)
      some.push(next)
      keys += next.keys.length
    }
    const exit = yield* Effect.exit(look(some.flatMap(({ keys }) => keys)))
    for (const { resume } of some) resume(exit)
  }).pipe(Effect.forever, Effect.forkScoped)

  return (keys) =>
    Effect.callback((resume) => {
      Queue.offerUnsafe(queue, { keys, resume })
    })
})
