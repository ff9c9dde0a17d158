/**
 * What an agent does when something happens: a state machine as values.
 *
 * `transition` takes where it stands, what happened and a random number, and
 * gives where it stands then and what is to be done about it. It knows no
 * socket and no clock; `Agent` carries out and reports back.
 *
 * What it promises:
 *
 * - whatever is lost is connected again, for ever, at random moments that lie
 *   further and further apart up to a cap;
 * - only what the server says cannot be had (not `retryable`) ends it, and only
 *   on the connection that counts;
 * - on `drain` the name is held by the old connection until the new one has
 *   registered it; two servers are never asked side by side, or what the one has
 *   done would be news to the other;
 * - a beat that is not answered in time is a lost connection;
 * - what was said on a connection that is left without an answer is taken back
 *   as far as it can be (`reset`), before it is said elsewhere;
 * - what the program wants last is what the server is told last. A change that
 *   the server refuses for good leaves the name as it was.
 *
 * Wishes are known here by revision only: a number that grows with each change.
 */
import * as Backoff from "./Backoff.ts"
import { RegistrationFailed, type StateName } from "./Options.ts"

export interface Settings {
  readonly connectMillis: number
  readonly answerMillis: number
  readonly backoff: Backoff.Settings
}

export type Stage =
  | "connecting"
  | "handshaking"
  /** A successor whose predecessor waits for an answer: what it is told depends on that, for a moment. */
  | "welcomed"
  /** The name has been asked for, or will be again in a moment. */
  | "registering"
  | "ready"

/** A connection, from the attempt on. */
export interface Link {
  readonly id: number
  readonly stage: Stage
  /** How often to beat, once the server has said. */
  readonly beatMillis: number | undefined
  /** A beat waits for its answer. */
  readonly beating: boolean
  /** The revision that the server has been told and has not answered. */
  readonly telling: number | undefined
  /** The name is being given up. */
  readonly releasing: boolean
}

export interface Model {
  readonly phase: "active" | "refused" | "released" | "closed"
  /** The connection that counts. */
  readonly current: Link | undefined
  /** Its successor, while `current` is at a server that drains. */
  readonly next: Link | undefined
  /** `current` has been told to go elsewhere. */
  readonly draining: boolean
  readonly failures: number
  /** Attempts so far; numbers links. */
  readonly links: number
  /** Revision of what the program wants. */
  readonly wanted: number
  /** Revision that a server accepted last; 0: the name was never held. */
  readonly held: number
  /** The name shall be given up. */
  readonly releasing: boolean
  /** Last beat interval heard, which bounds the wait between attempts. */
  readonly beatMillis: number | undefined
}

export const initial: Model = {
  phase: "active",
  current: undefined,
  next: undefined,
  draining: false,
  failures: 0,
  links: 0,
  wanted: 1,
  held: 0,
  releasing: false,
  beatMillis: undefined
}

export type Input =
  | { readonly _tag: "Start" }
  /** The transport stands. */
  | { readonly _tag: "Connected"; readonly link: number }
  /** The server knows who we are. */
  | { readonly _tag: "Welcomed"; readonly link: number; readonly beatMillis: number }
  /** What the link was told is durable in the registry. */
  | { readonly _tag: "Accepted"; readonly link: number }
  | { readonly _tag: "Released"; readonly link: number }
  | { readonly _tag: "Refused"; readonly link: number; readonly refusal: Refusal }
  | { readonly _tag: "BeatAnswered"; readonly link: number }
  | { readonly _tag: "LeaseUnknown"; readonly link: number }
  | { readonly _tag: "Drain"; readonly link: number; readonly withinMillis: number }
  | {
      readonly _tag: "Lost"
      readonly link: number
      readonly reason: string
      readonly retryAfterSeconds?: number | undefined
      /** The connection stands, and has not answered in time. */
      readonly unanswered?: boolean
    }
  /** Other servers serve the name; the next attempt goes there. */
  | { readonly _tag: "Redirected"; readonly link: number }
  | { readonly _tag: "Due"; readonly timer: Timer }
  /** Time has passed that was not lived through. */
  | { readonly _tag: "Woke" }
  /** The program wants something else than before. */
  | { readonly _tag: "Changed" }
  | { readonly _tag: "Release" }
  | { readonly _tag: "Close" }

export interface Refusal {
  /** What was refused. `session`: the connection as a whole, without a request behind it. */
  readonly of: "handshake" | "wish" | "release" | "beat" | "session"
  readonly code: string
  readonly message: string
  readonly retryable: boolean
  readonly retryAfterSeconds: number | undefined
  /** The server closes the connection behind it. */
  readonly closing: boolean
}

/** `attempt` and `successor` open a connection; the others belong to the link of their number. */
export type Timer =
  | { readonly name: "attempt" }
  | { readonly name: "successor" }
  | { readonly name: "answer" | "beat" | "again"; readonly link: number }

export type Action =
  /** Connects to the next server and proves who we are; reports `Connected`, `Welcomed`, `Refused`, `Lost`. */
  | { readonly _tag: "Open"; readonly link: number }
  /** Registers the name as of `revision`. */
  | { readonly _tag: "Register"; readonly link: number; readonly revision: number }
  /** Tells what `revision` differs in from what was accepted last. */
  | { readonly _tag: "Update"; readonly link: number; readonly revision: number }
  | { readonly _tag: "Beat"; readonly link: number }
  | { readonly _tag: "Release"; readonly link: number }
  /** `reset`: what has not been delivered is not to be any more. */
  | { readonly _tag: "Disconnect"; readonly link: number; readonly how: "close" | "reset" }
  | { readonly _tag: "Set"; readonly timer: Timer; readonly millis: number }
  | { readonly _tag: "Clear"; readonly timer: Timer }
  /** The wish goes back to what was accepted last; whoever asked for the change is told why. */
  | { readonly _tag: "Revert"; readonly refusal: Refusal }
  | { readonly _tag: "TellConnected"; readonly link: number }
  | {
      readonly _tag: "TellDisconnected"
      readonly link: number
      readonly reason: string
      readonly failures: number
      readonly retryInMillis: number | undefined
    }
  /** It is over. Everyone who waits is told. */
  | { readonly _tag: "End"; readonly how: "released" | "closed" }
  | { readonly _tag: "End"; readonly how: "refused"; readonly failure: RegistrationFailed }

export interface Step {
  readonly model: Model
  readonly actions: ReadonlyArray<Action>
}

/** The word for where a model stands. */
export const stateOf = ({ current, draining, phase }: Model): StateName => {
  if (phase !== "active") return phase
  if (current === undefined) return "waiting"
  // Whoever is welcomed registers once it is the one that counts.
  if (current.stage === "welcomed") return "registering"
  if (current.stage !== "ready") return current.stage
  return draining ? "draining" : "online"
}

const timersOf = (link: number): ReadonlyArray<Action> =>
  (["answer", "beat", "again"] as const).map((name) => ({ _tag: "Clear", timer: { name, link } }))

const set = (timer: Timer, millis: number): Action => ({ _tag: "Set", timer, millis })

/** All that is to be done about a link that is gone, or shall be. */
const drop = (link: Link | undefined, how: "close" | "reset" = "close"): ReadonlyArray<Action> =>
  link === undefined ? [] : [...timersOf(link.id), { _tag: "Disconnect", link: link.id, how }]

/**
 * How long a successor waits for what its predecessor owes, in milliseconds: a server that drains because it is cut off from
 * the registry answers nothing, and nobody hears the beats that it is sent.
 */
const patienceMillis = 1000

/** The server has been asked for something, and has not answered. */
const isAsking = (link: Link | undefined): boolean =>
  link !== undefined && (link.telling !== undefined || link.releasing)

/** How to leave a link of whose request, if one is under way, the answer is not waited for: it may not come in late. */
const howToLeave = (link: Link | undefined): "close" | "reset" => (isAsking(link) ? "reset" : "close")

/** What there is to say is for the successor of `link`, and not for `link` any more. */
const isSucceeded = ({ current, next }: Model, link: Link): boolean =>
  current?.id === link.id && (next?.stage === "welcomed" || next?.stage === "registering")

const failure = ({ code, message, retryAfterSeconds }: Refusal): RegistrationFailed =>
  new RegistrationFailed(code, message, retryAfterSeconds)

/** A wait may take half a beat at the most, so that a server that is back has everyone again within one. */
const waitSettings = (model: Model, { backoff }: Settings): Backoff.Settings =>
  model.beatMillis === undefined
    ? backoff
    : { ...backoff, capMillis: Math.min(backoff.capMillis, Math.max(backoff.baseMillis, model.beatMillis / 2)) }

/** An answer may take no longer than a beat. */
const answerMillis = (link: Link, settings: Settings): number =>
  Math.min(settings.answerMillis, link.beatMillis ?? settings.answerMillis)

/** The next beat comes within the last tenth of the interval: agents that began together drift apart. */
const nextBeat = (link: Link, random: number): Action =>
  set({ name: "beat", link: link.id }, Math.round((link.beatMillis ?? 0) * (0.9 + 0.1 * random)))

/** Of 1,000 agents that register at one moment the first beats are spread over half an interval. */
const firstBeat = (link: Link, random: number): Action =>
  set({ name: "beat", link: link.id }, Math.round((link.beatMillis ?? 0) * (0.5 + 0.5 * random)))

const open = (model: Model, as: "current" | "next", settings: Settings): Step => {
  const link: Link = {
    id: model.links + 1,
    stage: "connecting",
    beatMillis: undefined,
    beating: false,
    telling: undefined,
    releasing: false
  }
  return {
    model: { ...model, links: link.id, [as]: link },
    actions: [{ _tag: "Open", link: link.id }, set({ name: "answer", link: link.id }, settings.connectMillis)]
  }
}

const end = (model: Model, how: "released" | "closed"): Step => ({
  model: { ...model, phase: how, current: undefined, next: undefined, draining: false },
  // A name that was given up is not to be registered again by what is still under way. Who closes leaves things as said.
  actions: [
    ...finish(model, (link) => (how === "released" && link?.telling !== undefined ? "reset" : "close")),
    { _tag: "End", how }
  ]
})

const refuse = (model: Model, why: RegistrationFailed): Step => ({
  model: { ...model, phase: "refused", current: undefined, next: undefined, draining: false },
  actions: [...finish(model), { _tag: "End", how: "refused", failure: why }]
})

const finish = (
  { current, next }: Model,
  how: (link: Link | undefined) => "close" | "reset" = () => "close"
): ReadonlyArray<Action> => [
  { _tag: "Clear", timer: { name: "attempt" } },
  { _tag: "Clear", timer: { name: "successor" } },
  ...drop(current, how(current)),
  ...drop(next, how(next))
]

/** Puts a changed link back into its place. */
const put = (model: Model, link: Link): Model =>
  model.next?.id === link.id ? { ...model, next: link } : { ...model, current: link }

/** The link is gone, or of no use: what stands in for it, or when the next attempt is made. */
const lose = (
  model: Model,
  link: Link,
  reason: string,
  settings: Settings,
  random: number,
  {
    how = "close",
    retryAfterSeconds
  }: { readonly how?: "close" | "reset"; readonly retryAfterSeconds?: number | undefined } = {}
): Step => {
  const failures = model.failures + 1
  const tell = (retryInMillis: number | undefined): Action => ({
    _tag: "TellDisconnected",
    link: link.id,
    reason,
    failures,
    retryInMillis
  })
  const waiting = () => Backoff.delayMillis(failures, waitSettings(model, settings), random, retryAfterSeconds)
  if (model.next?.id === link.id) {
    // The old connection still holds the name.
    const millis = waiting()
    const further = goOn({ ...model, next: undefined, failures }, settings, random)
    return {
      model: further.model,
      actions: [tell(millis), ...drop(link, how), set({ name: "successor" }, millis), ...further.actions]
    }
  }
  if (model.releasing && model.held === 0) return end(model, "released")
  if (model.next !== undefined) {
    return {
      model: { ...model, current: model.next, next: undefined, draining: false },
      actions: [tell(undefined), ...drop(link, how), { _tag: "Clear", timer: { name: "successor" } }]
    }
  }
  const millis = waiting()
  return {
    model: { ...model, current: undefined, draining: false, failures },
    actions: [
      tell(millis),
      ...drop(link, how),
      { _tag: "Clear", timer: { name: "successor" } },
      set({ name: "attempt" }, millis)
    ]
  }
}

/** Asks for the name as the program wants it now. */
const register = (model: Model, link: Link, settings: Settings): Step => ({
  model: put(model, { ...link, stage: "registering", beating: false, telling: model.wanted }),
  actions: [
    ...timersOf(link.id),
    { _tag: "Register", link: link.id, revision: model.wanted },
    set({ name: "answer", link: link.id }, answerMillis(link, settings))
  ]
})

/** What a link that holds the name has to say next: that it is given up, or what has changed. */
const sayNext = (model: Model, link: Link, settings: Settings): Step => {
  const limit = set({ name: "answer", link: link.id }, answerMillis(link, settings))
  if (isAsking(link) || isSucceeded(model, link)) return stay(model)
  if (model.releasing) {
    return {
      model: put(model, { ...link, releasing: true }),
      actions: [
        { _tag: "Clear", timer: { name: "beat", link: link.id } },
        { _tag: "Clear", timer: { name: "again", link: link.id } },
        { _tag: "Release", link: link.id },
        limit
      ]
    }
  }
  if (model.wanted === model.held) return stay(model)
  return {
    model: put(model, { ...link, telling: model.wanted }),
    actions: [{ _tag: "Update", link: link.id, revision: model.wanted }, limit]
  }
}

/** The connection that counts has no successor any more: it says what was left to that. */
const goOn = (model: Model, settings: Settings, random: number): Step => {
  const { current } = model
  if (current === undefined || isAsking(current)) return stay(model)
  if (current.stage === "ready") return sayNext(model, current, settings)
  if (current.stage !== "registering") return stay(model)
  return { model, actions: [set({ name: "again", link: current.id }, Math.round(random * 1000))] }
}

/** A successor that was welcomed registers once its predecessor has its answer, or is gone. */
const succeed = ({ actions, model }: Step, settings: Settings): Step => {
  const { current, next, phase } = model
  const waiting = current?.stage === "welcomed" ? current : next?.stage === "welcomed" ? next : undefined
  if (phase !== "active" || waiting === undefined) return { model, actions }
  if (waiting === next && isAsking(current)) return { model, actions }
  const registered = register(model, waiting, settings)
  return { model: registered.model, actions: [...actions, ...registered.actions] }
}

const accepted = (model: Model, link: Link, settings: Settings, random: number): Step => {
  if (link.telling === undefined) return { model, actions: [] }
  const told: Link = { ...link, stage: "ready", telling: undefined }
  const wasReady = link.stage === "ready"
  const clear: ReadonlyArray<Action> = link.beating ? [] : [{ _tag: "Clear", timer: { name: "answer", link: link.id } }]
  let held: Model = { ...put(model, told), held: link.telling, failures: 0 }
  let handOver: ReadonlyArray<Action> = []
  if (held.next?.id === link.id) {
    handOver = drop(held.current)
    held = { ...held, current: told, next: undefined, draining: false }
  }
  const further = sayNext(held, told, settings)
  return {
    model: further.model,
    actions: [
      ...clear,
      ...(wasReady ? [] : [{ _tag: "TellConnected", link: link.id } as const, firstBeat(told, random)]),
      ...handOver,
      ...further.actions
    ]
  }
}

const refused = (model: Model, link: Link, refusal: Refusal, settings: Settings, random: number): Step => {
  const { closing, code, message, of, retryable, retryAfterSeconds } = refusal
  const reason = `${code}: ${message}`
  const isSuccessor = model.next?.id === link.id
  const settled: Action = { _tag: "Clear", timer: { name: "answer", link: link.id } }
  const later = (): Action =>
    set(
      { name: "again", link: link.id },
      Backoff.delayMillis(model.failures + 1, waitSettings(model, settings), random, retryAfterSeconds)
    )
  if (of === "release") {
    if (!link.releasing) return stay(model)
    // It cannot be given up because it is not ours: then it is given up.
    if (!retryable) return end(model, "released")
    if (closing) return lose(model, link, reason, settings, random, { retryAfterSeconds })
    return {
      model: { ...put(model, { ...link, releasing: false }), failures: model.failures + 1 },
      actions: [settled, later()]
    }
  }
  if (of === "wish" && !closing) {
    if (link.telling === undefined) return stay(model)
    // Somebody else has it by now: there is nothing left to give up.
    if (model.releasing && code === "hostname-taken") {
      return end(put(model, { ...link, telling: undefined }), "released")
    }
    if (retryable) {
      return {
        model: { ...put(model, { ...link, telling: undefined }), failures: model.failures + 1 },
        actions: [...(link.beating ? [] : [settled]), later()]
      }
    }
    if (model.held > 0 && link.telling !== model.held) {
      const reverted: Model = { ...put(model, { ...link, telling: undefined }), wanted: model.held }
      const revert: Action = { _tag: "Revert", refusal }
      if (link.stage === "ready") return { model: reverted, actions: [...(link.beating ? [] : [settled]), revert] }
      const again = register(reverted, { ...link, telling: undefined }, settings)
      return { model: again.model, actions: [revert, ...again.actions] }
    }
  }
  // A server that is on its way out may say anything of its successor: what counts is what the one says that we end at.
  if (retryable || isSuccessor) return lose(model, link, reason, settings, random, { retryAfterSeconds })
  if (model.releasing) return end(model, "released")
  return refuse(model, failure(refusal))
}

const find = ({ current, next }: Model, id: number): Link | undefined =>
  current?.id === id ? current : next?.id === id ? next : undefined

const stay = (model: Model): Step => ({ model, actions: [] })

/** On what came from a link, or belongs to one. What comes from a link that is gone is passed over. */
const onLink = (
  model: Model,
  link: Link,
  input: Extract<Input, { readonly link: number }>,
  settings: Settings,
  random: number
): Step => {
  switch (input._tag) {
    case "Connected":
      if (link.stage !== "connecting") return stay(model)
      return {
        model: put(model, { ...link, stage: "handshaking" }),
        actions: [set({ name: "answer", link: link.id }, answerMillis(link, settings))]
      }
    case "Welcomed": {
      if (link.stage !== "handshaking") return stay(model)
      const welcomed: Link = { ...link, stage: "welcomed", beatMillis: input.beatMillis }
      return {
        model: { ...put(model, welcomed), beatMillis: input.beatMillis },
        actions:
          model.next?.id === link.id && isAsking(model.current)
            ? [set({ name: "answer", link: link.id }, patienceMillis)]
            : []
      }
    }
    case "Accepted":
      return accepted(model, link, settings, random)
    case "Released":
      return link.releasing ? end(model, "released") : stay(model)
    case "Refused":
      return refused(model, link, input.refusal, settings, random)
    case "BeatAnswered": {
      if (!link.beating) return stay(model)
      const answered = { ...link, beating: false }
      const waits = link.telling !== undefined || link.releasing
      return {
        model: put(model, answered),
        actions: [
          ...(waits ? [] : [{ _tag: "Clear", timer: { name: "answer", link: link.id } } as const]),
          nextBeat(link, random)
        ]
      }
    }
    case "LeaseUnknown": {
      if (link.stage !== "ready" || link.releasing) return stay(model)
      // Whoever is told so is seldom alone: within a second, not at once.
      return {
        model: put(model, { ...link, stage: "registering", telling: undefined, beating: false }),
        actions: [...timersOf(link.id), set({ name: "again", link: link.id }, Math.round(random * 1000))]
      }
    }
    case "Drain":
      if (link.id === model.next?.id || link.stage !== "ready") {
        return lose(model, link, "the server is about to stop", settings, random, { how: howToLeave(link) })
      }
      if (model.draining) return stay(model)
      return {
        model: { ...model, draining: true },
        actions: [set({ name: "successor" }, Math.round(random * input.withinMillis))]
      }
    case "Lost":
      return lose(model, link, input.reason, settings, random, {
        how: input.unanswered === true ? "reset" : "close",
        retryAfterSeconds: input.retryAfterSeconds
      })
    case "Redirected": {
      if (link.stage !== "handshaking") return stay(model)
      const as = model.next?.id === link.id ? "next" : "current"
      const opened = open({ ...model, [as]: undefined }, as, settings)
      return { model: opened.model, actions: [...drop(link), ...opened.actions] }
    }
  }
}

const onTimer = (model: Model, timer: Timer, settings: Settings, random: number): Step => {
  if (timer.name === "attempt") return model.current === undefined ? open(model, "current", settings) : stay(model)
  if (timer.name === "successor") {
    return model.draining && model.next === undefined ? open(model, "next", settings) : stay(model)
  }
  const link = find(model, timer.link)
  if (link === undefined) return stay(model)
  switch (timer.name) {
    case "answer": {
      if (link.stage === "welcomed" && model.current !== undefined && model.current.id !== link.id) {
        const reason = `no answer, and its successor has waited for it for ${patienceMillis} ms`
        return lose(model, model.current, reason, settings, random, { how: "reset" })
      }
      const limit = link.stage === "connecting" ? settings.connectMillis : answerMillis(link, settings)
      return lose(model, link, `no answer within ${limit} ms`, settings, random, { how: "reset" })
    }
    case "again":
      if (isSucceeded(model, link)) return stay(model)
      return link.stage === "registering" ? register(model, link, settings) : sayNext(model, link, settings)
    case "beat":
      return beat(model, link, settings)
  }
}

const beat = (model: Model, link: Link, settings: Settings): Step => {
  if (link.stage !== "ready" || link.beating || link.releasing) return stay(model)
  return {
    model: put(model, { ...link, beating: true }),
    actions: [
      { _tag: "Clear", timer: { name: "beat", link: link.id } },
      { _tag: "Beat", link: link.id },
      set({ name: "answer", link: link.id }, answerMillis(link, settings))
    ]
  }
}

/** Time was lost: a connection that holds the name is asked at once whether it lives, a wait is over within a second. */
const woke = (model: Model, settings: Settings, random: number): Step => {
  const { current } = model
  if (current === undefined) {
    return { model: { ...model, failures: 0 }, actions: [set({ name: "attempt" }, Math.round(random * 1000))] }
  }
  // In every other stage an answer is waited for, within its limit.
  return beat(model, current, settings)
}

/** The next step. Final states take nothing more. */
export const transition = (model: Model, input: Input, settings: Settings, random: number): Step =>
  model.phase === "active" ? succeed(react(model, input, settings, random), settings) : stay(model)

const react = (model: Model, input: Input, settings: Settings, random: number): Step => {
  switch (input._tag) {
    case "Start":
      return model.links === 0 ? open(model, "current", settings) : stay(model)
    case "Due":
      return onTimer(model, input.timer, settings, random)
    case "Woke":
      return woke(model, settings, random)
    case "Changed": {
      const changed: Model = { ...model, wanted: model.wanted + 1 }
      const { current } = changed
      return current?.stage === "ready" ? sayNext(changed, current, settings) : stay(changed)
    }
    case "Release": {
      if (model.releasing) return stay(model)
      const releasing: Model = { ...model, releasing: true }
      const { current } = releasing
      if (current?.stage === "ready") return sayNext(releasing, current, settings)
      // Nothing was ever asked for, so there is nothing to give up.
      const asked = model.held > 0 || current?.telling !== undefined
      if (!asked) return end(releasing, "released")
      // Whoever gives a name up waits for it: the next attempt is made soon.
      return current === undefined
        ? { model: releasing, actions: [set({ name: "attempt" }, Math.round(random * settings.backoff.baseMillis))] }
        : stay(releasing)
    }
    case "Close":
      return end(model, "closed")
    default: {
      const link = find(model, input.link)
      return link === undefined ? stay(model) : onLink(model, link, input, settings, random)
    }
  }
}
