/**
 * The line over which servers on one PostgreSQL database call each other.
 *
 * It has two connections of its own: one that listens, and one that calls, so
 * that neither waits for queries of others. That what is called comes back over
 * the other one shows that both reach the same database, and that nobody in
 * between lends a connection to others, as pools do. Leaves to others: what is
 * called, and opening another line when one is lost (`cluster/SignalsLine`).
 */
import { PgConnection } from "@effect/sql-pg"
import { type Line, SignalLine } from "@prism-dns/core/cluster/SignalLine"
import { Effect, Layer, Queue, type Redacted, Scope } from "effect"
import type { SqlError } from "effect/sql"

const channel = "prism_signals"

/** A connection that nothing comes over is looked after from then on. */
const keepAlive = "10 seconds"

/** A connection that ends at once with the scope: what waits for it, as an UNLISTEN may on a silent database, fails. */
const connect = (url: Redacted.Redacted) =>
  PgConnection.make({ url, keepAlive, prepare: false, applicationName: "prism-dns signals" })

const open = (url: Redacted.Redacted): Effect.Effect<Line, SqlError.SqlError, Scope.Scope> =>
  Effect.gen(function* () {
    const listening = yield* Scope.make()
    // Finalizers run from the last to the first: the connections are gone before the listener is.
    yield* Effect.addFinalizer((exit) => Scope.close(listening, exit))
    const ear = yield* connect(url)
    const mouth = yield* connect(url)
    const notifications = yield* Scope.provide(ear.listen(channel), listening)
    return {
      hear: Effect.map(Queue.takeAll(notifications), (all) => all.map(({ payload }) => payload)),
      call: (text) => Effect.asVoid(mouth.query("SELECT pg_notify($1, $2)", [channel, text]))
    }
  })

/** The line of all servers on the database at `url`, which a pool that lends connections must not stand before. */
export const layer = (url: Redacted.Redacted): Layer.Layer<SignalLine> =>
  Layer.succeed(SignalLine, SignalLine.of({ open: open(url) }))
