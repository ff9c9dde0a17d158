/**
 * Schedules of faults, drawn from a seed: which part of a cluster fails how,
 * when, and for how long. Pure; a schedule is a plain value that can be kept,
 * cut down and written by hand.
 *
 * Promises: the same seed gives the same schedule; a part has one fault at a
 * time; all is over when the schedule is; most schedules know few kinds of
 * faults, so that those come close together. Leaves to others: carrying it out
 * (`Faults`).
 */
import * as Dice from "../../../core/test/simulation/Dice.ts"

export type Fault =
  /** SIGKILL, and started again. */
  | { readonly kind: "kill"; readonly part: string }
  /** SIGTERM, and started again. */
  | { readonly kind: "stop"; readonly part: string }
  /** SIGSTOP, and SIGCONT. */
  | { readonly kind: "freeze"; readonly part: string }
  /** Nothing passes between it and this peer, without a word. */
  | { readonly kind: "cut"; readonly part: string; readonly from: "everyone" | "postgres" | "powerdns" | "haproxy" }
  /** Its clock is wrong by so much. */
  | { readonly kind: "clock"; readonly part: string; readonly seconds: number }

export interface Step {
  readonly atMillis: number
  readonly forMillis: number
  readonly fault: Fault
}

export interface Schedule {
  readonly seed: number
  readonly millis: number
  /** By `atMillis`. */
  readonly steps: ReadonlyArray<Step>
}

/** What there is to fail. */
export interface Parts {
  readonly servers: ReadonlyArray<string>
  readonly names: ReadonlyArray<string>
  readonly redis: boolean
  /** Nothing can be cut without network namespaces. */
  readonly canCut: boolean
}

type Kind = (dice: Dice.Dice, parts: Parts) => Fault

const peers = ["everyone", "postgres", "powerdns", "haproxy"] as const

const kinds: Readonly<Record<string, Kind>> = {
  killServer: (dice, { servers }) => ({ kind: "kill", part: dice.pick(servers) }),
  stopServer: (dice, { servers }) => ({ kind: "stop", part: dice.pick(servers) }),
  freezeServer: (dice, { servers }) => ({ kind: "freeze", part: dice.pick(servers) }),
  cutServer: (dice, { canCut, servers }) =>
    canCut
      ? { kind: "cut", part: dice.pick(servers), from: dice.pick(peers) }
      : { kind: "freeze", part: dice.pick(servers) },
  wrongClock: (dice, { servers }) => ({
    kind: "clock",
    part: dice.pick(servers),
    seconds: dice.pick([-3600, -60, -5, 5, 60, 3600])
  }),
  killName: (dice, { names }) => ({ kind: "kill", part: dice.pick(names) }),
  freezeName: (dice, { names }) => ({ kind: "freeze", part: dice.pick(names) }),
  killRegistry: () => ({ kind: "kill", part: "postgres" }),
  killHaproxy: () => ({ kind: "kill", part: "haproxy" }),
  killRedis: () => ({ kind: "kill", part: "redis" })
}

/** A fault lasts at least as long as that. */
const forMillisMin = 500
/** No fault lasts longer: what is away for longer than a lease has expired, which is another matter. */
const forMillisMax = 9000
/** Kinds of faults in one schedule at the most. */
const kindsMax = 4
/** A fault for each of so many milliseconds, on average. */
const everyMillis = 2500

export const generate = (seed: number, millis: number, parts: Parts): Schedule => {
  const dice = Dice.make(`schedule ${seed}`)
  const available = Object.keys(kinds).filter((kind) => kind !== "killRedis" || parts.redis)
  const chosen = Array.from({ length: dice.between(1, kindsMax) }, () => dice.pick(available))
  const steps: Array<Step> = []
  const count = Math.max(1, dice.between(1, Math.ceil((2 * millis) / everyMillis)))
  for (let i = 0; i < count; i++) {
    const fault = kinds[dice.pick(chosen)]!(dice, parts)
    const forMillis = Math.min(dice.between(forMillisMin, forMillisMax), millis)
    const atMillis = dice.between(0, millis - forMillis)
    const overlaps = steps.some(
      (step) =>
        step.fault.part === fault.part &&
        step.atMillis <= atMillis + forMillis &&
        atMillis <= step.atMillis + step.forMillis
    )
    if (!overlaps) steps.push({ atMillis, forMillis, fault })
  }
  return { seed, millis, steps: steps.sort((a, b) => a.atMillis - b.atMillis) }
}

/** The same with fewer steps: halves first, then one after the other. The shortest stand at the front. */
export const smaller = ({ steps, ...rest }: Schedule): ReadonlyArray<Schedule> => {
  const without = (from: number, count: number): Schedule => ({
    ...rest,
    steps: [...steps.slice(0, from), ...steps.slice(from + count)]
  })
  const half = steps.length >> 1
  return [
    ...(half > 1 ? [without(0, half), without(half, steps.length - half)] : []),
    ...(steps.length > 1 ? steps.map((_, i) => without(i, 1)) : [])
  ]
}

const wordOf = (fault: Fault): string => {
  switch (fault.kind) {
    case "cut":
      return `${fault.part} is cut off from ${fault.from}`
    case "clock":
      return `the clock of ${fault.part} is off by ${fault.seconds} s`
    case "freeze":
      return `${fault.part} stands still`
    case "kill":
      return `${fault.part} is killed`
    case "stop":
      return `${fault.part} is stopped`
  }
}

/** A line for each step. */
export const describe = ({ steps }: Schedule): ReadonlyArray<string> =>
  steps.map(
    ({ atMillis, fault, forMillis }) =>
      `${(atMillis / 1000).toFixed(1)} s: ${wordOf(fault)}, for ${(forMillis / 1000).toFixed(1)} s`
  )
