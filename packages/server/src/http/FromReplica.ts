/**
 * Lists, and what was, answered by a replica of the database, where there is one
 * and it is not too far behind.
 *
 * Promises: such an answer says as of when it is (`Prism-As-Of`); who sends
 * `Cache-Control: no-cache` is answered by the database that is written, and so
 * is who has written through this server since; a replica that fails is not
 * noticed.
 */
import { Caller } from "@prism-dns/core/api/Authentication"
import { ReadFrom, Replicas } from "@prism-dns/core/storage/Reads"
import { detailOf } from "@prism-dns/core/storage/SqlFailure"
import { Clock, Effect, Metric } from "effect"
import { HttpEffect, HttpServerRequest, HttpServerResponse } from "effect/http"
import { SqlError } from "effect/sql"
import * as DatabaseMetrics from "../database/DatabaseMetrics.ts"

export const header = "prism-as-of"

const count = (from: "primary" | "replica") =>
  Metric.update(Metric.withAttributes(DatabaseMetrics.listReads, { from }), 1)

/** For a handler that only reads, and may be answered from a little before. */
export const fromReplica = <A, E, R>(effect: Effect.Effect<A, E, R>) =>
  Effect.gen(function* () {
    const replicas = yield* Replicas
    if (replicas === undefined) return yield* effect
    const { headers } = yield* HttpServerRequest.HttpServerRequest
    const { name } = yield* Caller
    const mayBeOld = headers["cache-control"]?.includes("no-cache") !== true
    const replica = mayBeOld ? replicas.find(name, yield* Clock.currentTimeMillis) : undefined
    const onPrimary = Effect.andThen(count("primary"), effect)
    if (replica === undefined) return yield* onPrimary
    const asOf = new Date(replica.asOfMillis).toISOString()
    return yield* effect.pipe(
      Effect.provideService(ReadFrom, replica.client),
      Effect.tap(
        HttpEffect.appendPreResponseHandler((_request, response) =>
          Effect.succeed(HttpServerResponse.setHeader(response, header, asOf))
        )
      ),
      Effect.tap(count("replica")),
      Effect.catchIf(SqlError.isSqlError, (error) =>
        Effect.andThen(
          Effect.logWarning("a replica of the database failed to answer, and the primary does").pipe(
            Effect.annotateLogs({ reason: detailOf(error) })
          ),
          onPrimary
        )
      )
    )
  })
