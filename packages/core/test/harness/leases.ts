/** A cluster in which the test says which leases this server holds. */
import { Cluster, type Held, type LeaseName, LeaseLost } from "@prism-dns/core/cluster/Cluster"
import { Effect, Fiber } from "effect"

interface Stander {
  readonly begin: (held: Held) => Fiber.Fiber<unknown, unknown>
  fiber: Fiber.Fiber<unknown, unknown> | undefined
}

interface Entry {
  held: Held | undefined
  /** Ends the validity of `held`. */
  end: () => void
  /** It has passed on, and this server does not know yet. */
  passed: boolean
  readonly standers: Set<Stander>
}

export const makeLeases = () => {
  const entries = new Map<LeaseName, Entry>()
  const entryOf = (name: LeaseName): Entry => {
    const entry = entries.get(name) ?? { held: undefined, end: () => undefined, passed: false, standers: new Set() }
    entries.set(name, entry)
    return entry
  }
  const whileHeld: Cluster["Service"]["whileHeld"] = <E, R>(
    name: LeaseName,
    work: (held: Held) => Effect.Effect<void, E, R>
  ) =>
    Effect.gen(function* () {
      const fork = Effect.runForkWith(yield* Effect.context<R>())
      const { held, standers } = entryOf(name)
      const stander: Stander = { begin: (held) => fork(work(held)), fiber: undefined }
      standers.add(stander)
      if (held !== undefined) stander.fiber = stander.begin(held)
      yield* Effect.addFinalizer(() => (stander.fiber === undefined ? Effect.void : Fiber.interrupt(stander.fiber)))
    })
  const cluster = Cluster.of({
    self: { id: "self", name: "self" },
    isAlone: () => false,
    instances: Effect.succeed([]),
    leases: Effect.succeed([]),
    held: (name) => entries.get(name)?.held,
    whileHeld,
    fence: (name) => {
      const { held, passed } = entryOf(name)
      return held === undefined || passed ? Effect.fail(new LeaseLost({ lease: name })) : Effect.void
    },
    endedMillis: () => 0,
    life: () => 0,
    proven: Effect.succeed(true),
    onNewLife: () => Effect.void,
    drain: Effect.void
  })
  const give = (name: LeaseName) =>
    Effect.sync(() => {
      const entry = entryOf(name)
      let valid = true
      const held: Held = { name, epoch: 1, isValid: () => valid, remainingMillis: () => (valid ? 3000 : 0) }
      Object.assign(entry, { held, passed: false, end: () => (valid = false) })
      for (const stander of entry.standers) stander.fiber = stander.begin(held)
    })
  /** Its time is over: the work is interrupted. */
  const take = (name: LeaseName) =>
    Effect.suspend(() => {
      const entry = entryOf(name)
      entry.end()
      entry.held = undefined
      return Effect.forEach(
        entry.standers,
        ({ fiber }) => (fiber === undefined ? Effect.void : Fiber.interrupt(fiber)),
        { discard: true }
      )
    })
  /** It is to be another's once the work has ended. */
  const hand = (name: LeaseName) =>
    Effect.suspend(() => {
      const entry = entryOf(name)
      return Effect.forEach(
        entry.standers,
        ({ fiber }) => (fiber === undefined ? Effect.void : Fiber.interrupt(fiber)),
        { discard: true }
      ).pipe(
        Effect.andThen(
          Effect.sync(() => {
            entry.end()
            entry.held = undefined
          })
        )
      )
    })
  const pass = (name: LeaseName) => Effect.sync(() => void (entryOf(name).passed = true))
  return { cluster, give, take, hand, pass }
}
