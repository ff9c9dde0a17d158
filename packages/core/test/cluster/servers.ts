/**
 * Several servers' parts on one database, in one process: each with its own
 * connections, its own memory and, unless it is deaf, its own ear for the others.
 */
import { Context, Effect, Layer, Redacted, type Scope } from "effect"
import { SecureRandom } from "effect/crypto"
import type { SqlClient } from "effect/sql"
import { Signals } from "@prism-dns/core/cluster/Signals"
import type { SignalsOptions } from "@prism-dns/core/cluster/SignalsLine"
import * as SignalLine from "@prism-dns/server/SignalLine"
import { Postgres } from "../harness/Postgres.ts"
import { waitUntil } from "../harness/waitUntil.ts"
import * as T from "../layers.ts"

const quick: Partial<SignalsOptions> = { trialMillis: 100, retryMillisMin: 20, retryMillisMax: 100 }

const signalsAt = (url: string) =>
  Signals.layerPostgres(quick).pipe(Layer.provide([SignalLine.layer(Redacted.make(url)), SecureRandom.layerWebCrypto]))

/** A new database, on which servers come to be. */
export const database = Effect.map(
  Effect.flatMap(Postgres, (postgres) => postgres.createDatabase()),
  ({ url }) => ({
    url,
    /** Builds `parts` for one server more. A deaf one says nothing, and hears nothing. */
    server: <A, E>(
      parts: Layer.Layer<A, E, SqlClient.SqlClient>,
      ears: "hearing" | "deaf" = "hearing"
    ): Effect.Effect<Context.Context<A | SqlClient.SqlClient>, E, Scope.Scope> =>
      Effect.gen(function* () {
        const signals = ears === "hearing" ? signalsAt(url) : Signals.layerNone
        const context = yield* Layer.build(
          Layer.fresh(parts.pipe(Layer.provideMerge(T.postgresAt(url)), Layer.provideMerge(signals)))
        )
        yield* waitUntil("it hears the others", Effect.sync(Context.get(context, Signals).isHearing), (hears) => hears)
        return context
      })
  })
)
