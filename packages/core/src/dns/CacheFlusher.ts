/**
 * Drops a zone's cached answers once more, a moment after each write.
 *
 * PowerDNS drops them with the write, but keeps an answer that it was just
 * giving then: seen on 4.7.3, where a resolver was told for the 20 s of the
 * packet cache that a name does not exist which was there. Every write is
 * followed by a flush at least `delayMillis` later; writes in a row share it.
 * A flush that fails is not repeated: what it would have dropped ends by itself.
 */
import { Clock, Effect } from "effect"
import type { DomainName } from "../domain/DomainName.ts"
import type { PowerDnsClient } from "../powerdns/PowerDnsClient.ts"

export interface CacheFlusher {
  /** The zone was written at this moment. */
  readonly wrote: (zone: DomainName, nowMillis: number) => void
}

interface Pending {
  dueMillis: number
  writtenMillis: number
}

/** Works until the scope closes. */
export const make = Effect.fnUntraced(function* (powerdns: PowerDnsClient["Service"], delayMillis: number) {
  const pending = new Map<DomainName, Pending>()

  const flush = (zone: DomainName) =>
    Effect.catch(powerdns.flush(zone), (error) =>
      Effect.logDebug("cached answers were not dropped").pipe(Effect.annotateLogs({ zone, reason: error.message }))
    )

  const flushDue = Effect.gen(function* () {
    const nowMillis = yield* Clock.currentTimeMillis
    for (const [zone, entry] of pending) {
      if (entry.dueMillis > nowMillis) continue
      // A write within the delay is followed by a flush of its own.
      if (entry.writtenMillis + delayMillis > nowMillis) entry.dueMillis = entry.writtenMillis + delayMillis
      else pending.delete(zone)
      yield* flush(zone)
    }
  })
  yield* Effect.sleep(delayMillis).pipe(Effect.andThen(flushDue), Effect.forever, Effect.forkScoped)

  const flusher: CacheFlusher = {
    wrote: (zone, nowMillis) => {
      const entry = pending.get(zone)
      if (entry === undefined) pending.set(zone, { dueMillis: nowMillis + delayMillis, writtenMillis: nowMillis })
      else entry.writtenMillis = nowMillis
    }
  }
  return flusher
})
