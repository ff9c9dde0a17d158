/**
 * Tells who waits for a change how far it has come: its records were taken, or
 * why not; every name server answers with them.
 *
 * A ticket is opened for the records of a change before the change commits, so
 * no answer can come too early to be noticed, and lives until its change is
 * served or parked: also when nobody waits any more, so that whoever measures
 * learns of it. There are at most `ticketsMax`; one more, and the oldest is
 * forgotten. It lives in memory only: what is durable about a publication stands
 * in the outbox and among the unserved names, from where `dns/FollowTickets` learns
 * of what another server publishes.
 */
import { Clock, Context, Effect, Layer, type Scope } from "effect"
import type { DomainName } from "../domain/DomainName.ts"
import * as DnsMetrics from "./DnsMetrics.ts"
import * as Progress from "./Progress.ts"
import type { RecordPlace } from "./Zones.ts"

/** PowerDNS took every record of the change. */
export interface Applied {
  readonly _tag: "Applied"
  readonly atMillis: number
}

/** Every name server answers with every record of it. */
export interface Served {
  readonly _tag: "Served"
  readonly atMillis: number
  /** When each of them did, in the order of the configuration. */
  readonly nodes: ReadonlyArray<{ readonly node: string; readonly atMillis: number }>
}

/** PowerDNS refuses one of its records, or something of someone else's stands in the way. */
export interface Parked {
  readonly _tag: "Parked"
  readonly atMillis: number
  readonly reason: string
}

/** Nobody will say: the change was not made after all, or too many tickets were open. */
export interface Forgotten {
  readonly _tag: "Forgotten"
}

/** What becomes of one record of a change. */
export type Acknowledgement = Applied | Served | Parked

/** How the wait for a level ends. */
export type Outcome = Acknowledgement | Forgotten

export type Level = "applied" | "served"

type Listener = (outcome: Outcome) => void

/** One change on its way to the DNS. */
export class Ticket {
  readonly places: ReadonlyArray<RecordPlace>
  readonly generation: number
  /** When its change was committed, by a clock that only goes on; undefined while that is not known. */
  committedMillis: number | undefined
  #unapplied: number
  #unserved: number
  #applied: Applied | undefined
  #end: Served | Parked | Forgotten | undefined
  #onApplied: Array<Listener> = []
  #onServed: Array<Listener> = []
  #nodes: Served["nodes"] | undefined

  constructor(places: ReadonlyArray<RecordPlace>, generation: number) {
    this.places = places
    this.generation = generation
    this.#unapplied = places.length
    this.#unserved = places.length
  }

  /** When it was applied; undefined while it is not. */
  get applied(): Applied | undefined {
    return this.#applied
  }

  /** How it ended; undefined while it has not. */
  get end(): Served | Parked | Forgotten | undefined {
    return this.#end
  }

  /** Calls once, now or later, when the change is applied, or when it is clear that it will not be. */
  onApplied(listener: Listener): void {
    const outcome = this.#applied ?? this.#end
    if (outcome === undefined) this.#onApplied.push(listener)
    else listener(outcome)
  }

  /** Calls once, now or later, when the change is served, or when it is clear that it will not be. */
  onServed(listener: Listener): void {
    if (this.#end === undefined) this.#onServed.push(listener)
    else listener(this.#end)
  }

  /** Takes a listener back. */
  off(listener: Listener): void {
    this.#onApplied = this.#onApplied.filter((each) => each !== listener)
    this.#onServed = this.#onServed.filter((each) => each !== listener)
  }

  /** One of its records was applied. */
  recordApplied(event: Applied): void {
    this.#unapplied -= 1
    if (this.#unapplied > 0 || this.#end !== undefined) return
    this.#applied = event
    this.#tell(event)
  }

  /** One of its records is served. */
  recordServed(event: Served): void {
    this.#unserved -= 1
    const before = this.#nodes
    // A record that no server has to show comes without any.
    this.#nodes =
      before === undefined || before.length === 0
        ? event.nodes
        : event.nodes.length === 0
          ? before
          : event.nodes.map((each, i) => (each.atMillis < (before[i]?.atMillis ?? 0) ? before[i]! : each))
    if (this.#unserved === 0) this.finish({ ...event, nodes: this.#nodes })
  }

  finish(end: Served | Parked | Forgotten): void {
    if (this.#end !== undefined) return
    this.#end = end
    this.#tell(end)
    const listeners = this.#onServed
    this.#onServed = []
    for (const listener of listeners) listener(end)
  }

  /** Those who wait for `applied`. */
  #tell(outcome: Outcome): void {
    const listeners = this.#onApplied
    this.#onApplied = []
    for (const listener of listeners) listener(outcome)
  }
}

export interface AcknowledgementOptions {
  /** Tickets open at once; one more, and the oldest is forgotten. */
  readonly ticketsMax: number
}

/** 50,000 tickets of two records are about 30 MB. */
export const defaultOptions: AcknowledgementOptions = { ticketsMax: 50_000 }

export class Acknowledgements extends Context.Service<
  Acknowledgements,
  {
    /**
     * Opens a ticket for a change of `generation` that marks `places`. To be called before the change commits. A place may
     * say that it stands marked at another generation.
     */
    readonly open: (
      places: ReadonlyArray<RecordPlace & { readonly generation?: number | undefined }>,
      generation: number
    ) => Ticket
    /** The changes of these tickets are committed: what the registry says of their records is about them too. */
    readonly committed: (tickets: Iterable<Ticket>) => void
    /** Forgets a ticket whose change was not made. */
    readonly close: (ticket: Ticket) => void
    /** Waits until the ticket has reached `level`, or ends otherwise. Default level: `applied`. */
    readonly wait: (ticket: Ticket, level?: Level) => Effect.Effect<Outcome>
    /**
     * Waits for `applied` no longer than `millis` (exact to within `tickMillis`); then undefined. Costs neither a fiber nor
     * a timer: thousands wait at once. The ticket stays open.
     */
    readonly waitAtMost: (ticket: Ticket, millis: number) => Effect.Effect<Outcome | undefined>
    /** The record at `zone`, `name` has come so far at `generation`, and with it all older changes of it. */
    readonly settle: (zone: DomainName, name: DomainName, generation: number, outcome: Acknowledgement) => void
    /** The same for one ticket only, whatever its generation: of what came about before it was opened. */
    readonly tell: (ticket: Ticket, place: RecordPlace, outcome: Acknowledgement) => void
    /** Calls `listener` with the zone of each record that this server has settled, until the scope ends. */
    readonly settled: (listener: (zone: DomainName) => void) => Effect.Effect<void, never, Scope.Scope>
    /**
     * Those whose changes were committed at least `millis` ago and have not come to their end, the oldest first. With
     * `zones`: those with records there.
     */
    readonly awaited: (millis: number, zones?: ReadonlySet<string>) => ReadonlyArray<Ticket>
    /**
     * Tells `tickets` how far their records have come, as was looked up after they were committed. Returns how many of them
     * have come further.
     */
    readonly looked: (
      tickets: ReadonlyArray<Ticket>,
      progress: ReadonlyMap<string, Progress.Progress>,
      nowMillis: number
    ) => number
    /** A zone is managed no more: nobody waits for its records, as if they were not part of any change. */
    readonly dropZone: (zone: DomainName, atMillis: number) => void
    /** Tickets that have not reached `level`. Default: `applied`. */
    readonly size: (level?: Level) => number
  }
>()("@prism-dns/core/dns/Acknowledgements") {
  static readonly layerWith = (options: Partial<AcknowledgementOptions>): Layer.Layer<Acknowledgements> =>
    Layer.effect(
      Acknowledgements,
      Effect.suspend(() => make({ ...defaultOptions, ...options }))
    )

  static readonly layer: Layer.Layer<Acknowledgements> = Acknowledgements.layerWith({})
}

/** How often those who have waited long enough are looked for, in milliseconds. */
export const tickMillis = 50

interface Deadline {
  readonly atMillis: number
  readonly expire: () => void
}

/** A ticket at one of its records. */
interface Entry {
  readonly ticket: Ticket
  readonly generation: number
  isApplied: boolean
}

const make = Effect.fnUntraced(function* (options: AcknowledgementOptions) {
  const clock = yield* Clock.Clock
  const context = yield* Effect.context()
  // Of a clock that only goes on: nobody waits longer because someone sets the time.
  const elapsed = () => Number(clock.monotonicTimeNanosUnsafe()) / 1e6
  /** By how long they wait, each in order of their end. */
  const deadlines = new Map<number, Array<Deadline>>()
  const byRecord = new Map<string, Array<Entry>>()
  /** In the order they were opened. */
  const tickets = new Set<Ticket>()
  const listeners = new Set<(zone: DomainName) => void>()
  let applied = 0
  const keyOf = (zone: DomainName, name: DomainName) => Progress.keyOf({ zone, name })

  /** Takes `ticket` from the records it waits for. */
  const remove = (ticket: Ticket): boolean => {
    if (!tickets.delete(ticket)) return false
    if (ticket.applied !== undefined) applied -= 1
    for (const place of ticket.places) {
      const key = keyOf(place.zone, place.name)
      const rest = byRecord.get(key)?.filter((entry) => entry.ticket !== ticket)
      if (rest === undefined || rest.length === 0) byRecord.delete(key)
      else byRecord.set(key, rest)
    }
    return true
  }

  const close = (ticket: Ticket): void => {
    if (remove(ticket)) ticket.finish({ _tag: "Forgotten" })
  }

  const apply = (entry: Entry, event: Applied): void => {
    entry.isApplied = true
    const before = entry.ticket.applied
    entry.ticket.recordApplied(event)
    if (before === undefined && entry.ticket.applied !== undefined) applied += 1
  }

  /** A record has come so far, for those of its entries that `concerns` says. */
  const settle = (
    zone: DomainName,
    name: DomainName,
    outcome: Acknowledgement,
    concerns: (entry: Entry) => boolean
  ): void => {
    const key = keyOf(zone, name)
    const waiting = byRecord.get(key)
    if (waiting === undefined) return
    const rest: Array<Entry> = []
    const ended: Array<Ticket> = []
    for (const entry of waiting) {
      const { ticket } = entry
      if (!concerns(entry)) rest.push(entry)
      else if (outcome._tag === "Applied") {
        if (!entry.isApplied) apply(entry, outcome)
        rest.push(entry)
      } else if (outcome._tag === "Served") {
        // What is served was applied, though nobody may have said so.
        if (!entry.isApplied) apply(entry, { _tag: "Applied", atMillis: outcome.atMillis })
        ended.push(ticket)
      } else if (entry.isApplied) {
        // A later change is refused here: this one stands in the DNS all the same.
        rest.push(entry)
      } else {
        ended.push(ticket)
      }
    }
    if (rest.length === 0) byRecord.delete(key)
    else byRecord.set(key, rest)
    for (const ticket of ended) {
      if (outcome._tag === "Served") ticket.recordServed(outcome)
      else if (outcome._tag === "Parked") {
        remove(ticket)
        ticket.finish(outcome)
      }
      if (ticket.end !== undefined) remove(ticket)
    }
  }

  /** What the registry says of the records of `tickets`. */
  const looked: Acknowledgements["Service"]["looked"] = (asked, progress, nowMillis) => {
    const concerned = new Set(asked)
    let further = 0
    for (const place of new Map(
      asked.flatMap((t) => t.places.map((place) => [Progress.keyOf(place), place]))
    ).values()) {
      const known = progress.get(Progress.keyOf(place))
      if (known === undefined) continue
      const tell = (outcome: Acknowledgement, concerns: (generation: number) => boolean) =>
        settle(place.zone, place.name, outcome, (entry) => {
          const isMeant = concerned.has(entry.ticket) && concerns(entry.generation)
          if (isMeant && (outcome._tag !== "Applied" || !entry.isApplied)) further += 1
          return isMeant
        })
      const atMillis = known.appliedMillis ?? nowMillis
      tell({ _tag: "Applied", atMillis }, (generation) => Progress.isApplied(known, generation))
      const served = { _tag: "Served", atMillis: known.servedMillis ?? atMillis, nodes: known.servedNodes } as const
      tell(served, (generation) => Progress.isServed(known, generation))
      if (known.parkedReason !== undefined) {
        const reason = known.parkedReason
        tell({ _tag: "Parked", atMillis: known.markedMillis ?? nowMillis, reason }, () => true)
      }
    }
    return further
  }

  const expire = () => {
    const nowMillis = elapsed()
    for (const [millis, waiting] of deadlines) {
      let past = 0
      while (past < waiting.length && waiting[past]!.atMillis <= nowMillis) {
        waiting[past]!.expire()
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
      if (places.length === 0) return ticket
      if (tickets.size >= options.ticketsMax) {
        const [oldest] = tickets
        close(oldest!)
        DnsMetrics.ticketsForgottenTotal.updateUnsafe(1, context)
      }
      tickets.add(ticket)
      for (const place of places) {
        const key = keyOf(place.zone, place.name)
        const waiting = byRecord.get(key)
        const entry = { ticket, generation: place.generation ?? generation, isApplied: false }
        if (waiting === undefined) byRecord.set(key, [entry])
        else waiting.push(entry)
      }
      return ticket
    },
    committed: (committed) => {
      const nowMillis = elapsed()
      for (const ticket of committed) ticket.committedMillis = nowMillis
    },
    close,
    wait: (ticket, level = "applied") =>
      Effect.callback<Outcome>((resume) => {
        const listener: Listener = (outcome) => resume(Effect.succeed(outcome))
        if (level === "applied") ticket.onApplied(listener)
        else ticket.onServed(listener)
        return Effect.sync(() => ticket.off(listener))
      }),
    waitAtMost: (ticket, millis) =>
      Effect.callback<Outcome | undefined>((resume) => {
        const listener: Listener = (outcome) => resume(Effect.succeed(outcome))
        ticket.onApplied(listener)
        if (ticket.applied !== undefined || ticket.end !== undefined) return undefined
        const deadline: Deadline = {
          atMillis: elapsed() + millis,
          expire: () => {
            ticket.off(listener)
            resume(Effect.undefined)
          }
        }
        const waiting = deadlines.get(millis)
        if (waiting === undefined) deadlines.set(millis, [deadline])
        else waiting.push(deadline)
        return Effect.sync(() => ticket.off(listener))
      }),
    settle: (zone, name, generation, outcome) => {
      settle(zone, name, outcome, (entry) => entry.generation <= generation)
      for (const listener of listeners) listener(zone)
    },
    settled: (listener) =>
      Effect.asVoid(
        Effect.acquireRelease(
          Effect.sync(() => listeners.add(listener)),
          () => Effect.sync(() => listeners.delete(listener))
        )
      ),
    awaited: (millis, zones) => {
      const beforeMillis = elapsed() - millis
      const found: Array<Ticket> = []
      for (const ticket of tickets) {
        if (ticket.committedMillis === undefined || ticket.committedMillis > beforeMillis) continue
        if (zones === undefined || ticket.places.some(({ zone }) => zones.has(zone))) found.push(ticket)
      }
      return found
    },
    looked,
    tell: (ticket, { name, zone }, outcome) => settle(zone, name, outcome, (entry) => entry.ticket === ticket),
    dropZone: (zone, atMillis) => {
      for (const key of byRecord.keys()) {
        const [place, name] = key.split(" ") as [DomainName, DomainName]
        if (place === zone) settle(zone, name, { _tag: "Served", atMillis, nodes: [] }, () => true)
      }
    },
    size: (level = "applied") => (level === "served" ? tickets.size : tickets.size - applied)
  })
})
