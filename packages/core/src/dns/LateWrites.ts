/**
 * Writes anew what a PowerDNS server that is back may have overwritten.
 *
 * A server that was stopped in its middle, and runs again hours later, carries
 * out the requests it had taken, over what another has written since. For the
 * first seconds the publisher itself keeps such names in doubt; this is for any
 * time after. Promises: every name in a write without an answer is marked once
 * its server is back. Leaves to others: writing them (`DnsManager`), and names
 * that are gone by then, which only a comparison of the whole zone finds.
 */
import { Clock, Effect, Layer, Schedule, Stream } from "effect"
import { PowerDnsWriter } from "../powerdns/PowerDnsWriter.ts"
import { Outbox } from "./Outbox.ts"

/** Names marked in one transaction. */
const pieceNames = 1000

export const layer: Layer.Layer<never, never, Outbox | PowerDnsWriter> = Layer.effectDiscard(
  Effect.gen(function* () {
    const outbox = yield* Outbox
    const { lateWrites } = yield* PowerDnsWriter
    yield* lateWrites.pipe(
      Stream.runForEach(({ names, node, zone }) =>
        Effect.gen(function* () {
          yield* Effect.logInfo("a PowerDNS is back that may have written late; its names are written anew").pipe(
            Effect.annotateLogs({ zone, node, names: names.length })
          )
          for (let from = 0; from < names.length; from += pieceNames) {
            const nowMillis = yield* Clock.currentTimeMillis
            yield* outbox
              .recheck(zone, names.slice(from, from + pieceNames), nowMillis, "doubt")
              .pipe(Effect.retry(Schedule.spaced("1 second")))
          }
          yield* outbox.wake([zone])
        })
      ),
      Effect.orDie, // unreachable: it is tried again without end
      Effect.forkScoped
    )
  })
)
