/**
 * Carries out a schedule of faults on a cluster under load, and judges it.
 *
 * A run is a cluster of its own from its start to its end. Leaves to others:
 * what the faults are (`Schedule`), which rules there are (`Check`).
 */
import { Cause, Duration, Effect, type Scope, Semaphore } from "effect"
import { waitUntil } from "../../../core/test/harness/waitUntil.ts"
import * as Check from "./Check.ts"
import * as Cluster from "./Cluster.ts"
import * as Schedule from "./Schedule.ts"
import * as Trial from "./Trial.ts"

export interface Options {
  readonly servers: number
  readonly redis: boolean
}

/** Parts of the cluster that `start` makes. */
const partsOf = (cluster: Cluster.Cluster): Schedule.Parts => ({
  servers: cluster.servers.map(({ name }) => name),
  names: cluster.names.map(({ name }) => name),
  redis: cluster.redis !== undefined,
  canCut: cluster.unable === undefined
})

type Verbs = Pick<Cluster.Part, "start" | "stop" | "kill" | "freeze" | "thaw">

const find = (cluster: Cluster.Cluster, name: string): Verbs | Cluster.Server => {
  const { haproxy, names, redis, registry, servers } = cluster
  const never = Effect.die(new Error(`${name} has no such fault`))
  if (name === "postgres") return { ...registry, stop: never, freeze: never, thaw: never }
  const found = [...servers, ...names, haproxy, ...(redis === undefined ? [] : [redis])].find(
    (part) => part.name === name
  )
  if (found === undefined) throw new Error(`there is no ${name}`)
  return found
}

/** What depends on others may not come up at once: whoever starts it in production tries again too. */
const startAgain = (part: Verbs) =>
  waitUntil("it is up again", part.start, () => true, { within: "60 seconds", every: "500 millis" })

const isServer = (part: Verbs | Cluster.Server): part is Cluster.Server => "cut" in part

const begin = (part: Verbs | Cluster.Server, fault: Schedule.Fault): Effect.Effect<void> => {
  switch (fault.kind) {
    case "kill":
      return part.kill
    case "stop":
      return part.stop
    case "freeze":
      return part.freeze
    case "cut":
      return isServer(part) ? part.cut(fault.from) : Effect.void
    case "clock":
      return isServer(part) ? part.setClock(fault.seconds) : Effect.void
  }
}

const end = (part: Verbs | Cluster.Server, fault: Schedule.Fault): Effect.Effect<void> => {
  switch (fault.kind) {
    case "kill":
    case "stop":
      return Effect.asVoid(startAgain(part))
    case "freeze":
      return part.thaw
    case "cut":
      return isServer(part) ? part.heal : Effect.void
    case "clock":
      return isServer(part) ? part.setClock(0) : Effect.void
  }
}

/**
 * All of its steps, each in its time; ends when the last is over. What takes longer than planned, such as to stop in order,
 * holds up what is next for the same part.
 */
const carryOut = Effect.fnUntraced(function* (cluster: Cluster.Cluster, { steps }: Schedule.Schedule) {
  const turns = new Map(steps.map(({ fault }) => [fault.part, Semaphore.makeUnsafe(1)]))
  yield* Effect.forEach(
    steps,
    ({ atMillis, fault, forMillis }) => {
      const part = find(cluster, fault.part)
      const absence = Effect.all([begin(part, fault), Effect.sleep(forMillis)], { concurrency: "unbounded" })
      return Effect.sleep(atMillis).pipe(
        Effect.andThen(turns.get(fault.part)!.withPermits(1)(Effect.andThen(absence, end(part, fault))))
      )
    },
    { concurrency: "unbounded", discard: true }
  )
})

/** After the last fault it goes on for a while: what was frozen or cut off finds out that it was. */
const afterMillis = 3000

/** What was broken; a part that does not come up, or that does not come to rest, is a fault too. */
export interface Outcome {
  readonly schedule: Schedule.Schedule
  readonly findings: ReadonlyArray<Check.Finding>
  /** It could not be judged, for this reason. */
  readonly failure: string | undefined
}

const runIn = Effect.fnUntraced(function* (
  make: (parts: Schedule.Parts) => Schedule.Schedule,
  options: Options
): Effect.fn.Return<Outcome, never, Scope.Scope> {
  const trial = yield* Trial.begin({ servers: options.servers, redis: options.redis, clocks: true })
  const schedule = make(partsOf(trial.cluster))
  for (const line of Schedule.describe(schedule)) Trial.say(line)
  const exit = yield* carryOut(trial.cluster, schedule).pipe(
    Effect.andThen(Effect.sleep(Duration.millis(afterMillis))),
    Effect.andThen(Trial.findings(trial)),
    Effect.exit
  )
  if (exit._tag === "Success") return { schedule, findings: exit.value, failure: undefined }
  const failure = Cause.pretty(exit.cause)
  const said = trial.cluster.servers.map(({ name, output }) => `${name}: ${output().split("\n").slice(-15).join("\n")}`)
  return { schedule, findings: [], failure: [failure, ...said].join("\n") }
})

/** One schedule by its seed. */
export const runSeed = (seed: number, millis: number, options: Options): Effect.Effect<Outcome> =>
  Effect.scoped(runIn((parts) => Schedule.generate(seed, millis, parts), options))

/** One that is at hand. */
export const runSchedule = (schedule: Schedule.Schedule, options: Options): Effect.Effect<Outcome> =>
  Effect.scoped(runIn(() => schedule, options))

export const isBroken = ({ failure, findings }: Outcome): boolean => failure !== undefined || findings.length > 0

/** Whether a smaller schedule shows what was seen: the same rule, or that it could not be judged. */
const isSame = (a: Outcome, b: Outcome): boolean =>
  a.failure === undefined ? b.findings.some(({ rule }) => rule === a.findings[0]?.rule) : b.failure !== undefined

/** Steps are left out as long as it still breaks; at most so many runs. */
export const shrink = Effect.fnUntraced(function* (outcome: Outcome, options: Options, runsMax: number) {
  let best = outcome
  let candidates = Schedule.smaller(best.schedule)
  for (let runs = 0; runs < runsMax && candidates.length > 0; runs++) {
    const [first, ...others] = candidates
    const tried = yield* runSchedule(first!, options)
    if (isBroken(tried) && isSame(outcome, tried)) {
      best = tried
      candidates = Schedule.smaller(best.schedule)
    } else candidates = others
  }
  return best
})

export const report = (outcome: Outcome): string =>
  [...Schedule.describe(outcome.schedule), outcome.failure ?? Check.describe(outcome.findings)].join("\n")

/** How to see it again. */
export const commandOf = ({ schedule }: Outcome): string =>
  `./prism cluster --seed ${schedule.seed} --runs 1 --seconds ${schedule.millis / 1000}`
