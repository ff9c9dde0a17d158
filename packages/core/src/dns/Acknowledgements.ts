/**
 * Tells who waits for a change that its records were taken, or why not.
 *
 * A ticket is opened for the records of a change before the change commits, so
 * no answer can come too early to be noticed. It lives in memory only: what is
 * durable about a publication stands in the outbox.
 */
import { Clock, Context, Effect, Layer } from "effect"
import type { DomainName } from "../domain/DomainName.ts"
import type { RecordPlace } from "./Zones.ts"

export type Acknowledgement =
  /** PowerDNS took every record of the change. */
  | { readonly _tag: "Applied"; readonly atMillis: number }
  /** PowerDNS refuses one of them, or something of someone else's stands in the way. */
  | { readonly _tag: "Parked"; readonly atMillis: number; readonly reason: string }

/** One change on its way to the DNS. */
export class Ticket {
  readonly places: ReadonlyArray<RecordPlace>
  readonly generation: number
  #remaining: number
  #outcome: Acknowledgement | undefined
  #waiting: ((outcome: Acknowledgement) => void) | undefined

  constructor(places: ReadonlyArray<RecordPlace>, generation: number) {
    this.places = places
    this.generation = generation
    this.#remaining = places.length
  }

  /** One of its records is settled. True when that settles the ticket: the last one was applied, or one is parked. */
  settle(outcome: Acknowledgement): boolean {
    this.#remaining -= 1
    if (outcome._tag === "Applied" && this.#remaining > 0) return false
    this.#outcome ??= outcome
    this.#waiting?.(this.#outcome)
    this.#waiting = undefined
    return true
  }

  /** Calls `resume` once, now or when the last record is settled. One caller at a time. */
  onSettled(resume: (outcome: Acknowledgement) => void): void {
    if (this.#outcome !== undefined) resume(this.#outcome)
    else this.#waiting = resume
  }
}

export class Acknowledgements extends Context.Service<
  Acknowledgements,
  {
    /** Opens a ticket for a change of `generation` that marks `places`. To be called before the change commits. */
    readonly open: (places: ReadonlyArray<RecordPlace>, generation: number) => Ticket
    /** Forgets a ticket nobody waits for any more. */
    readonly close: (ticket: Ticket) => void
    /** Waits until the ticket is settled; gives it up when interrupted. */
    readonly wait: (ticket: Ticket) => Effect.Effect<Acknowledgement>
    /**
     * Waits no longer than `millis` (exact to within `tickMillis`), then gives the ticket up and returns undefined. Costs
     * neither a fiber nor a timer: thousands wait at once.
     */
    readonly waitAtMost: (ticket: Ticket, millis: number) => Effect.Effect<Acknowledgement | undefined>
    /** The record at `zone`, `name` was settled at `generation`, and with it all older changes of it. */
    readonly settle: (zone: DomainName, name: DomainName, generation: number, outcome: Acknowledgement) => void
    /** Tickets open now. */
    readonly size: () => number
  }
>()("@prism-dns/core/dns/Acknowledgements") {
  static readonly layer: Layer.Layer<Acknowledgements> = Layer.effect(
    Acknowledgements,
    Effect.suspend(() => make())
  )
}

/** How often those who have waited long enough are looked for, in milliseconds. */
export const tickMillis = 50

interface Deadline {
  readonly ticket: Ticket
  readonly atMillis: number
  readonly expire: () => void
}

const make = Effect.fnUntraced(function* () {
  const clock = yield* Clock.Clock
  /** By how long they wait, each in order of their end. */
  const deadlines = new Map<number, Array<Deadline>>()
  const byRecord = new Map<string, Set<Ticket>>()
  const tickets = new Set<Ticket>()
  const keyOf = (zone: DomainName, name: DomainName) => `${zone} ${name}`

  const close = (ticket: Ticket): void => {
    if (!tickets.delete(ticket)) return
    for (const place of ticket.places) {
      const key = keyOf(place.zone, place.name)
      const waiting = byRecord.get(key)
      waiting?.delete(ticket)
      if (waiting?.size === 0) byRecord.delete(key)
    }
  }

  const expire = () => {
    const nowMillis = clock.currentTimeMillisUnsafe()
    for (const [millis, waiting] of deadlines) {
      let past = 0
      while (past < waiting.length && waiting[past]!.atMillis <= nowMillis) {
        const { expire, ticket } = waiting[past]!
        close(ticket)
        expire()
        past += 1
      }
      if (past === waiting.length) deadlines.delete(millis)
      else if (past > 0) deadlines.set(millis, waiting.slice(past))
    }
  }
  yield* Effect.sleep(tickMillis).pipe(Effect.andThen(Effect.sync(expire)), Effect.forever, Effect.forkScoped)

  return Acknowledgements.of({
    open: (places, generation) => {
      const ticket = new Ticket(places, generation)
      if (places.length > 0) tickets.add(ticket)
      for (const place of places) {
        const key = keyOf(place.zone, place.name)
        const waiting = byRecord.get(key)
        if (waiting === undefined) byRecord.set(key, new Set([ticket]))
        else waiting.add(ticket)
      }
      return ticket
    },
    close,
    wait: (ticket) =>
      Effect.callback<Acknowledgement>((resume) => {
        ticket.onSettled((outcome) => resume(Effect.succeed(outcome)))
        return Effect.sync(() => close(ticket))
      }),
    waitAtMost: (ticket, millis) =>
      Effect.callback<Acknowledgement | undefined>((resume) => {
        ticket.onSettled((outcome) => resume(Effect.succeed(outcome)))
        const deadline: Deadline = {
          ticket,
          atMillis: clock.currentTimeMillisUnsafe() + millis,
          expire: () => resume(Effect.undefined)
        }
        const waiting = deadlines.get(millis)
        if (waiting === undefined) deadlines.set(millis, [deadline])
        else waiting.push(deadline)
        return Effect.sync(() => close(ticket))
      }),
    settle: (zone, name, generation, outcome) => {
      const key = keyOf(zone, name)
      const waiting = byRecord.get(key)
      if (waiting === undefined) return
      for (const ticket of waiting) {
        if (ticket.generation > generation) continue
        waiting.delete(ticket)
        if (ticket.settle(outcome)) close(ticket)
      }
      if (waiting.size === 0) byRecord.delete(key)
    },
    size: () => tickets.size
  })
})
