/**
 * Events over the API, as a stream that comes back by itself.
 *
 * Promises: from its beginning each event that passes the filter and may be
 * seen, once and in order, however often the connection is cut, unless a `Gap`
 * says which ones are gone. A connection that is silent for too long counts as
 * cut. Ends only by an error that coming back does not mend: a token that is
 * not taken, a filter that makes no sense.
 *
 * Needs a client of the API (`api/Client`).
 */
import { Duration, Effect, Random, Schedule, Schema, Stream } from "effect"
import type { Client } from "../api/Client.ts"
import type { Block, Event, Gap } from "../api/Events.ts"
import { Forbidden, RequestInvalid, TokenInvalid } from "../api/Problems.ts"
import type { Filter } from "./Event.ts"

export interface EventStreamOptions extends Filter {
  /** The id behind which it starts, `0` for the oldest event that is kept, or a time; default: what happens from now on. */
  readonly since?: string | undefined
  /** Ends once everything up to this id has been received. Default: it goes on. */
  readonly until?: number | undefined
  /** No byte for so long is a dead connection. Default: 45 seconds, three heartbeats. */
  readonly silenceMax?: Duration.Input | undefined
  /** The first pause before coming back; it doubles with each attempt that brought nothing. Default: 250 milliseconds. */
  readonly pauseMin?: Duration.Input | undefined
  /** Default: 15 seconds. */
  readonly pauseMax?: Duration.Input | undefined
  /** Told of each connection that was lost, with what is known of the cause, and of the next one. */
  readonly onState?: ((state: StreamState) => Effect.Effect<void>) | undefined
}

export type StreamState =
  | { readonly _tag: "Connected"; readonly position: number }
  | { readonly _tag: "Disconnected"; readonly error: unknown }

/** What comes: an event, or word of events that are gone. */
export type Received = { readonly _tag: "Event"; readonly event: Event } | { readonly _tag: "Gap"; readonly gap: Gap }

const isFinal = Schema.is(Schema.Union([TokenInvalid, Forbidden, RequestInvalid]))
export type StreamError = TokenInvalid | Forbidden | RequestInvalid

export const make = (client: Client, options: EventStreamOptions = {}): Stream.Stream<Received, StreamError> => {
  const { hosts, kinds, onState = () => Effect.void, since, until = Infinity, zones } = options
  const pauseMinMillis = Duration.toMillis(options.pauseMin ?? "250 millis")
  const pauseMaxMillis = Duration.toMillis(options.pauseMax ?? "15 seconds")
  const query = {
    ...(zones !== undefined && { zone: zones }),
    ...(kinds !== undefined && { kind: kinds }),
    ...(hosts !== undefined && { host: hosts })
  }
  return Stream.suspend(() => {
    /** Up to where everything has been received. */
    let position: string | undefined
    /** Connections in a row that brought nothing. */
    let failures = 0
    let isConnected = false

    const isDone = () => position !== undefined && Number(position) >= until

    const pause = Effect.suspend(() => {
      if (failures === 0) return Effect.void
      const millis = Math.min(pauseMaxMillis, pauseMinMillis * 2 ** Math.min(failures - 1, 16))
      return Effect.flatMap(Random.nextBetween(0.5, 1), (share) => Effect.sleep(millis * share))
    })

    const connect = Effect.suspend(() =>
      client.events.stream({
        headers: position === undefined ? {} : { "last-event-id": position },
        query: { ...query, ...(position === undefined && since !== undefined && { since }) },
        sseOptions: { dispatchEmptyNamedEvents: true }
      })
    )

    const note = Effect.fnUntraced(function* (block: Block) {
      position = block.id
      failures = 0
      if (isConnected) return
      isConnected = true
      yield* onState({ _tag: "Connected", position: Number(block.id) })
    })

    const lost = (error: unknown) => {
      failures++
      isConnected = false
      return Stream.drain(Stream.fromEffect(onState({ _tag: "Disconnected", error })))
    }

    return Stream.unwrap(Effect.andThen(pause, connect)).pipe(
      Stream.timeoutOrElse({
        duration: options.silenceMax ?? "45 seconds",
        orElse: () => Stream.fail(new Error("nothing was heard for too long"))
      }),
      Stream.tap(note),
      // With the block that completes it, so that nothing is waited for behind it.
      Stream.takeUntil(isDone),
      Stream.flatMap(toReceived),
      Stream.concat(Stream.suspend(() => (isDone() ? Stream.empty : lost(undefined)))),
      Stream.catch((error) => (isFinal(error) ? Stream.fail(error) : lost(error))),
      Stream.repeat(Schedule.forever.pipe(Schedule.while(() => !isDone())))
    )
  })
}

const toReceived = ({ data }: Block): Stream.Stream<Received> => {
  if (data === "") return Stream.empty
  return Stream.succeed("kind" in data ? { _tag: "Event", event: data } : { _tag: "Gap", gap: data })
}

/** Where the log ends now: the id behind which the next event will stand. Fails when the server cannot be asked. */
export const head = (client: Client) =>
  Effect.gen(function* () {
    const stream = yield* client.events.stream({
      headers: {},
      query: {},
      sseOptions: { dispatchEmptyNamedEvents: true }
    })
    const first = yield* Stream.runHead(stream)
    return first._tag === "Some" ? Number(first.value.id) : 0
  })
