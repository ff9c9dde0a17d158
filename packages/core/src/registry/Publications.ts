/**
 * How far the present generation of a host has come on its way to the DNS: as
 * the database has it, and followed from there.
 *
 * Promises: who follows a host misses nothing between what is said at first and
 * what is told afterwards. Leaves to others: telling (`dns/Acknowledgements`).
 */
import { Effect } from "effect"
import type { SqlClient } from "effect/sql"
import type { Host, Publication } from "../domain/Host.ts"
import type { Acknowledgements, Ticket } from "../dns/Acknowledgements.ts"
import * as Progress from "../dns/Progress.ts"
import type { RecordPlace, Zones } from "../dns/Zones.ts"
import { placesOf } from "./HostRecords.ts"

/** How far a host's present generation has come, and who tells of what is still to come. */
export interface Followed {
  /** Has reached what is reached already, and settles with the rest. */
  readonly ticket: Ticket
  readonly publication: Publication
}

/** How often `follow` looks at the most, when what is under way turns out to be older than the host. */
const followLooksMax = 4

/** How far the present generation of `host` has come, by the progress of its `places`. */
export const publicationOf = (
  host: Host,
  places: ReadonlyArray<RecordPlace>,
  progress: ReadonlyMap<string, Progress.Progress>
): Publication => {
  const names = places.flatMap((place) => progress.get(Progress.keyOf(place)) ?? [])
  const waiting = names.flatMap(({ markedMillis }) => markedMillis ?? [])
  if (waiting.length > 0) {
    const parked = names.find(({ parkedReason }) => parkedReason !== undefined)
    return {
      level: "accepted",
      generation: host.generation,
      atMillis: Math.min(...waiting),
      ...(parked?.parkedReason === undefined ? {} : { error: parked.parkedReason })
    }
  }
  const isServed = !names.some(({ unserved }) => unserved)
  const times = names.map(
    ({ appliedMillis, servedMillis }) => (isServed ? servedMillis : undefined) ?? appliedMillis ?? 0
  )
  // A withdrawn host has no record left that could say when.
  return {
    level: isServed ? "served" : "applied",
    generation: host.generation,
    atMillis: Math.max(host.withdrawnSinceMillis ?? 0, ...times)
  }
}

export const make = Effect.fnUntraced(function* (
  sql: SqlClient.SqlClient,
  zones: Zones["Service"],
  acknowledgements: Acknowledgements["Service"]
) {
  const publications = Effect.fn("Registry.publications")(function* (list: ReadonlyArray<Host>) {
    const places = list.map((host) => placesOf(zones, host))
    const progress = yield* Progress.find(sql, places.flat())
    return list.map((host, i) => publicationOf(host, places[i]!, progress))
  })

  const look = yield* Progress.together(sql)

  const follow = Effect.fn("Registry.follow")(function* (host: Host) {
    const places = placesOf(zones, host).filter(({ zone }) => zones.find(zone) !== undefined)
    const generations = new Map<string, number>()
    for (let looks = 1; ; looks++) {
      // Opened before the look, so that nothing comes to pass between the two that nobody tells it.
      const ticket = acknowledgements.open(
        places.map((place) => ({ ...place, generation: generations.get(Progress.keyOf(place)) })),
        host.generation
      )
      const progress = yield* Effect.onError(look(places), () => Effect.sync(() => acknowledgements.close(ticket)))
      // What is under way at an older generation, as another host's mark may be, settles no newer ticket.
      const older = places.filter((place) => {
        const key = Progress.keyOf(place)
        const { generation } = progress.get(key) ?? {}
        if (generation === undefined || generation >= (generations.get(key) ?? host.generation)) return false
        generations.set(key, generation)
        return true
      })
      if (older.length > 0 && looks < followLooksMax) {
        acknowledgements.close(ticket)
        continue
      }
      tellReached(ticket, places, progress)
      acknowledgements.committed([ticket])
      return { ticket, publication: publicationOf(host, places, progress) }
    }
  })

  /** Tells a ticket what its records had reached before it was opened, in the order in which they did. */
  const tellReached = (
    ticket: Ticket,
    places: ReadonlyArray<RecordPlace>,
    progress: ReadonlyMap<string, Progress.Progress>
  ) => {
    const reached = places.flatMap((place) => {
      const known = progress.get(Progress.keyOf(place))
      const outcome = known === undefined ? undefined : Progress.reached(known)
      return outcome === undefined ? [] : [{ place, outcome }]
    })
    reached.sort((a, b) => a.outcome.atMillis - b.outcome.atMillis)
    for (const { outcome, place } of reached) acknowledgements.tell(ticket, place, outcome)
  }

  return { publications, follow }
})
