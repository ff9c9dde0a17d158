/**
 * Drops a zone's cached answers once more, a moment after each write.
 *
 * PowerDNS drops them with the write, but keeps an answer that it was just
 * giving then: seen on 4.7.3, where a resolver was told for the 20 s of the
 * packet cache that a name does not exist which was there. The next write drops
 * such an answer too, so only the last of writes in a row is followed by a flush,
 * `delayMillis` later. A flush that fails is not repeated: what it would have
 * dropped ends by itself.
 */
import { Clock, Effect } from "effect"
import type { DomainName } from "../domain/DomainName.ts"
import type { PowerDnsClient } from "../powerdns/PowerDnsClient.ts"

export interface CacheFlusher {
  /** The zone was written at this moment. */
  readonly wrote: (zone: DomainName, nowMillis: number) => void
}

/** Works until the scope closes. */
export const make = Effect.fnUntraced(function* (powerdns: PowerDnsClient["Service"], delayMillis: number) {
  /** When each zone was written last, until it is flushed. */
  const written = new Map<DomainName, number>()

  const flush = (zone: DomainName) =>
    Effect.catch(powerdns.flush(zone), (error) =>
      Effect.logDebug("cached answers were not dropped").pipe(Effect.annotateLogs({ zone, reason: error.message }))
    )

  const flushDue = Effect.gen(function* () {
    const nowMillis = yield* Clock.currentTimeMillis
    for (const [zone, writtenMillis] of written) {
      if (nowMillis - writtenMillis < delayMillis) continue
      written.delete(zone)
      yield* flush(zone)
    }
  })
  yield* Effect.sleep(delayMillis).pipe(Effect.andThen(flushDue), Effect.forever, Effect.forkScoped)

  const flusher: CacheFlusher = { wrote: (zone, nowMillis) => void written.set(zone, nowMillis) }
  return flusher
})
