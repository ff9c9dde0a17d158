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
import * as PostgresHosts from "./database/PostgresHosts.ts"

const channel = "prism_signals"

/** A connection that nothing comes over is looked after from then on. */
const keepAlive = "10 seconds"

/** Its connections end at once with the scope: what waits for one, as an UNLISTEN may on a silent database, fails. */
const applicationName = "prism-dns signals"

type Connect = Effect.Effect<PgConnection.PgConnection, SqlError.SqlError, Scope.Scope>

const open = (connect: Connect): Effect.Effect<Line, SqlError.SqlError, Scope.Scope> =>
  Effect.gen(function* () {
    const listening = yield* Scope.make()
    // Finalizers run from the last to the first: the connections are gone before the listener is.
    yield* Effect.addFinalizer((exit) => Scope.close(listening, exit))
    const ear = yield* connect
    const mouth = yield* connect
    const notifications = yield* Scope.provide(ear.listen(channel), listening)
    return {
      hear: Effect.map(Queue.takeAll(notifications), (all) => all.map(({ payload }) => payload)),
      call: (text) => Effect.asVoid(mouth.query("SELECT pg_notify($1, $2)", [channel, text]))
    }
  })

/** The line of all servers on the database at `url`, which a pool that lends connections must not stand before. */
export const layer = (url: Redacted.Redacted): Layer.Layer<SignalLine> =>
  Layer.succeed(
    SignalLine,
    SignalLine.of({ open: open(PgConnection.make({ url, keepAlive, prepare: false, applicationName })) })
  )

/** The line of all servers on the database that takes writes at present. */
export const layerPresent: Layer.Layer<SignalLine> = Layer.effect(
  SignalLine,
  Effect.map(PostgresHosts.OwnSessions, (sessions) =>
    SignalLine.of({
      open: sessions === undefined ? Effect.die("signals need PostgreSQL") : open(sessions.connection(applicationName))
    })
  )
)
