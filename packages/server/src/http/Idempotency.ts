/**
 * `Idempotency-Key` (draft-ietf-httpapi-idempotency-key-header-07): a POST that
 * is sent again under the same key is done once.
 *
 * Promises: the same key and request gets the same answer for as long as it is
 * kept, marked by `Idempotent-Replayed`; with another request it is 422, and
 * while the first is still under way 409. The first goes on to its end also when
 * its caller has gone. A key belongs to its caller, and an answer to what that
 * caller might do when it asked: once its rights are others, it is not told what
 * it got by the former ones. What was refused before anything was done, and what failed with 5xx, is not kept: there the next one
 * is tried anew. An answer that holds a secret, or is too long, is not kept
 * either: there the next one is told so.
 *
 * A process that ends in the middle leaves its key without an answer. The same
 * instance, once it is back, does the request again at once, others once that
 * process is known to have ended (`cluster/Cluster`), and after `abandonedAfter`
 * in any case; what the first had committed by then is there. The same where
 * another database server took over in the middle, which may lack what the answer
 * tells of.
 */
import { type Problem, problems } from "@prism-dns/core/api/Problems"
import type { Authority } from "@prism-dns/core/auth/Permissions"
import { Cluster } from "@prism-dns/core/cluster/Cluster"
import * as Grants from "@prism-dns/core/auth/Grants"
import type { Grant } from "@prism-dns/core/auth/Principal"
import { Failover } from "@prism-dns/core/storage/Failover"
import { Clock, Context, Duration, Effect, Exit, Fiber, Layer, Metric } from "effect"
import { HttpServerResponse } from "effect/http"
import { SqlClient, type SqlError } from "effect/sql"
import { createHash, randomUUID } from "node:crypto"
import * as Exchange from "./Exchange.ts"
import * as HttpMetrics from "./HttpMetrics.ts"

export interface IdempotencyOptions {
  /** How long an answer is kept. */
  readonly keep: Duration.Duration
  /** Keys that are kept; a few more between two sweeps. */
  readonly keysMax: number
}

export const defaultOptions: IdempotencyOptions = { keep: Duration.hours(24), keysMax: 100_000 }

/** Characters of a key at the most. */
export const keyCharactersMax = 255

/** The body of an answer that is kept at the most, in characters. */
export const keptBodyMax = 4 * 1_048_576

/** How long another process may take over a request, before it is taken for dead: more than any request does. */
export const abandonedAfter: Duration.Duration = Duration.minutes(15)

/** A request of a server of which nothing is known is younger than what is known; beyond this age it is not, in milliseconds. */
const unknownMillisMax = 10_000

/** Clocks of servers differ by less, in milliseconds. */
const clocksMillisMax = 5000

const sweepEvery: Duration.Input = "1 minute"

export const header = "idempotency-key"
export const replayedHeader = "idempotent-replayed"

/** A key as the header holds it: a string of structured fields (RFC 8941), or the bare text. Undefined: it is none. */
export const keyOf = (value: string): string | undefined => {
  const text = value.trim()
  const quoted = /^"((?:[^"\\]|\\["\\])*)"$/.exec(text)?.[1]
  const key = quoted === undefined ? text : quoted.replaceAll(/\\(["\\])/g, "$1")
  return key.length <= keyCharactersMax && /^[\x21-\x7e]+$/.test(key) && (quoted !== undefined || !text.includes('"'))
    ? key
    : undefined
}

export const keyRule = `is to be 1 to ${keyCharactersMax} printable ASCII characters without spaces, such as a UUID`

/** What makes two requests the same. */
export const fingerprintOf = (method: string, url: string, body: string): string =>
  createHash("sha256").update(`${method}\n${url}\n`).update(body).digest("base64url")

const sorted = <A extends string>(some: ReadonlyArray<A> | undefined): ReadonlyArray<A> | undefined =>
  some === undefined ? undefined : [...new Set(some)].sort()

/** What a caller may do, as a text that is another one as soon as that is; the order in which it is said does not matter. */
export const rightsOf = ({ names, permissions, zones }: Authority, grant: Grant): string => {
  const each = permissions.map((permission) =>
    JSON.stringify([permission.verb, permission.resource, sorted(permission.zones), sorted(permission.names)])
  )
  const claims = Grants.encode({ ...grant, zones: sorted(grant.zones), names: sorted(grant.names) })
  return createHash("sha256")
    .update(JSON.stringify([sorted(each), sorted(zones), sorted(names), claims]))
    .digest("base64url")
}

/** Statuses of answers that say that nothing was done, and that the next try may be answered otherwise. */
const refusals: ReadonlySet<number> = new Set([400, 401, 403, 408, 413, 415, 429])

const isFinal = (status: number): boolean => status < 500 && !refusals.has(status)

export interface Claim {
  readonly caller: string
  readonly key: string
  /** Of the caller, now (`rightsOf`). */
  readonly rights: string
  /** Its answer holds a secret. */
  readonly secret: boolean
}

/** What is to be done with a request that has a key. */
export type Claimed =
  | { readonly _tag: "Do"; readonly claim: Claim }
  | { readonly _tag: "Replay"; readonly response: HttpServerResponse.HttpServerResponse }
  | { readonly _tag: "Refuse"; readonly problem: Problem; readonly detail: string }

export class Idempotency extends Context.Service<
  Idempotency,
  {
    /** Takes the key for a request, unless it was taken before. */
    readonly claim: (claim: Claim, fingerprint: string) => Effect.Effect<Claimed, SqlError.SqlError>
    /** Runs what answers a request to its end, also when its caller goes away, and keeps what it answered. */
    readonly toItsEnd: <E, R>(
      handler: Effect.Effect<HttpServerResponse.HttpServerResponse, E, R>
    ) => Effect.Effect<HttpServerResponse.HttpServerResponse, E, R>
    /** Forgets what is too old, and the oldest of what is too many. */
    readonly sweep: Effect.Effect<void, SqlError.SqlError>
  }
>()("@prism-dns/server/http/Idempotency") {
  /** `instance` names this server across its restarts. */
  static readonly layer = (options: Partial<IdempotencyOptions> & { readonly instance: string }) =>
    Layer.effect(Idempotency, make({ ...defaultOptions, ...options }))
}

/** Headers that are part of the answer, rather than of the exchange. */
const keptHeaders = ["content-type", "location", "etag", "link"] as const

interface Kept {
  readonly status: number
  readonly headers: Readonly<Record<string, string>>
  /** Undefined: it is not kept. */
  readonly body: string | undefined
}

/** What is kept of an answer; undefined: nothing, so that the next one is tried anew. */
const keptOf = (
  { secret }: Claim,
  { body, headers, status }: HttpServerResponse.HttpServerResponse
): Kept | undefined => {
  if (!isFinal(status)) return undefined
  const text = body._tag === "Empty" ? "" : body._tag === "Uint8Array" ? textOf(body) : undefined
  return {
    status,
    headers: Object.fromEntries(
      keptHeaders.flatMap((name) => (headers[name] === undefined ? [] : [[name, headers[name]]]))
    ),
    // An error holds no secret.
    body: text === undefined || text.length > keptBodyMax || (secret && status < 400) ? undefined : text
  }
}

const textOf = (body: { readonly text?: string | undefined; readonly body: Uint8Array }): string =>
  body.text ?? new TextDecoder().decode(body.body)

interface Row {
  readonly fingerprint: string
  readonly rights: string
  readonly process: string
  readonly status: number | string | null
  readonly headers: string | null
  readonly body: string | null
  readonly at: number | string
}

const make = Effect.fnUntraced(function* (options: IdempotencyOptions & { readonly instance: string }) {
  const sql = yield* SqlClient.SqlClient
  const scope = yield* Effect.scope
  const context: Context.Context<never> = yield* Effect.context()
  const process = `${options.instance}/${randomUUID()}`
  const cluster = yield* Cluster
  /** Whether a request that another process was given at `atMillis` has nobody any more who answers it. */
  const isLeft = Effect.fnUntraced(function* (other: string, atMillis: number, ageMillis: number) {
    if (ageMillis >= abandonedMillis) return true
    const name = other.slice(0, other.lastIndexOf("/"))
    const instances = yield* cluster.instances
    // A server alone: whoever had its name before has ended.
    if (instances.length === 0) return name === options.instance
    return (
      ageMillis >= unknownMillisMax &&
      !instances.some(
        (each) =>
          !each.isSelf &&
          each.name === name &&
          (each.state === "live" || each.state === "draining") &&
          each.startedMillis <= atMillis + clocksMillisMax
      )
    )
  })
  const keepMillis = Duration.toMillis(options.keep)
  const abandonedMillis = Duration.toMillis(abandonedAfter)
  /** Of this process, under way: the request, and how many times another database server had taken over before. */
  const running = new Map<string, { readonly fingerprint: string; readonly moves: number }>()
  let moves = 0
  const { onMoved } = yield* Failover
  yield* Effect.acquireRelease(
    Effect.sync(() => onMoved(() => (moves += 1))),
    (stop) => Effect.sync(stop)
  )
  const place = ({ caller, key }: Claim): string => `${caller}\n${key}`

  const outcomes = new Map<string, Metric.Counter<number>>()
  const count = (outcome: string): void => {
    const metric = outcomes.get(outcome) ?? Metric.withAttributes(HttpMetrics.idempotencyKeys, { outcome })
    outcomes.set(outcome, metric)
    metric.updateUnsafe(1, context)
  }

  const refuse = (outcome: string, problem: Problem, detail: string): Claimed => {
    count(outcome)
    return { _tag: "Refuse", problem, detail }
  }
  const inProgress = () =>
    refuse(
      "in-progress",
      problems.idempotencyInProgress,
      "The request with this Idempotency-Key is still being answered; try again in a moment."
    )

  const reused = () =>
    refuse(
      "reused",
      problems.idempotencyKeyReused,
      "This Idempotency-Key was sent with another request before; a new request needs a new key."
    )

  const replay = (row: Row, rights: string): Claimed => {
    if (row.rights !== rights) {
      return refuse(
        "rights-changed",
        problems.idempotencyAnswerGone,
        `The request with this Idempotency-Key was answered with ${row.status}; what its caller may do has changed since, so that the answer is not given again. ` +
          "Nothing was done now."
      )
    }
    if (row.body === null) {
      return refuse(
        "gone",
        problems.idempotencyAnswerGone,
        `The request with this Idempotency-Key was answered with ${row.status}; that answer is not kept, as it holds a secret or is too long. ` +
          "Nothing was done now."
      )
    }
    count("replayed")
    const { "content-type": contentType, ...headers } = JSON.parse(row.headers ?? "{}") as Record<string, string>
    const status = Number(row.status)
    const more = { ...headers, [replayedHeader]: "true" }
    return {
      _tag: "Replay",
      response:
        row.body === ""
          ? HttpServerResponse.empty({ status, headers: more })
          : HttpServerResponse.text(row.body, {
              status,
              headers: more,
              ...(contentType !== undefined && { contentType })
            })
    }
  }

  const claim = Effect.fn("Idempotency.claim")(function* (
    claim: Claim,
    fingerprint: string
  ): Effect.fn.Return<Claimed, SqlError.SqlError> {
    const { caller, key, rights } = claim
    const nowMillis = yield* Clock.currentTimeMillis
    const taken = Effect.sync((): Claimed => {
      running.set(place(claim), { fingerprint, moves })
      return { _tag: "Do", claim }
    })
    const underWay = running.get(place(claim))
    // A database server that took over may know nothing of it.
    if (underWay !== undefined) return underWay.fingerprint === fingerprint ? inProgress() : reused()
    const inserted = yield* sql`
      INSERT INTO idempotency (caller, key, fingerprint, rights, process, at)
      VALUES (${caller}, ${key}, ${fingerprint}, ${rights}, ${process}, ${nowMillis})
      ON CONFLICT (caller, key) DO NOTHING RETURNING key`
    if (inserted.length > 0) return yield* taken
    const [row] = yield* sql<Row>`
      SELECT fingerprint, rights, process, status, headers, body, at FROM idempotency WHERE caller = ${caller} AND key = ${key}`
    if (row === undefined) return inProgress() // given back this moment
    const ageMillis = nowMillis - Number(row.at)
    const isUnderWay =
      row.status === null &&
      (row.process === process ? running.has(place(claim)) : !(yield* isLeft(row.process, Number(row.at), ageMillis)))
    if (row.status === null ? isUnderWay : ageMillis < keepMillis) {
      if (row.fingerprint !== fingerprint) return reused()
      return row.status === null ? inProgress() : replay(row, rights)
    }
    // Too old, or left by a process that ended in the middle: whoever is first takes it over.
    const takenOver = yield* sql`
      UPDATE idempotency
      SET fingerprint = ${fingerprint}, rights = ${rights}, process = ${process}, status = NULL, headers = NULL, body = NULL, at = ${nowMillis}
      WHERE caller = ${caller} AND key = ${key} AND process = ${row.process} AND at = ${Number(row.at)} RETURNING key`
    return takenOver.length === 0 ? inProgress() : yield* taken
  })

  const settle = (claim: Claim, response: HttpServerResponse.HttpServerResponse | undefined) =>
    Effect.gen(function* () {
      const { caller, key } = claim
      const isThere = running.get(place(claim))?.moves === moves
      const kept = response === undefined || !isThere ? undefined : keptOf(claim, response)
      if (kept === undefined) {
        yield* sql`DELETE FROM idempotency WHERE caller = ${caller} AND key = ${key} AND process = ${process}`
        return
      }
      count("done")
      yield* sql`
        UPDATE idempotency
        SET status = ${kept.status}, headers = ${JSON.stringify(kept.headers)}, body = ${kept.body ?? null}
        WHERE caller = ${caller} AND key = ${key} AND process = ${process}`
    }).pipe(
      Effect.catch((error) =>
        // The answer is given all the same; the next one under this key is done anew.
        Effect.logWarning("the answer to a request with an Idempotency-Key could not be kept").pipe(
          Effect.annotateLogs({ reason: error.message })
        )
      ),
      Effect.ensuring(Effect.sync(() => running.delete(place(claim))))
    )

  const toItsEnd: Idempotency["Service"]["toItsEnd"] = Effect.fnUntraced(function* (handler) {
    const exchange = yield* Exchange.Current
    const fiber = yield* Effect.exit(handler).pipe(
      Effect.tap((exit) =>
        exchange.claim === undefined
          ? Effect.void
          : settle(exchange.claim, Exit.isSuccess(exit) ? exit.value : undefined)
      ),
      Effect.flatten,
      Effect.forkIn(scope)
    )
    return yield* Fiber.join(fiber)
  })

  const sweep = Effect.gen(function* () {
    const nowMillis = yield* Clock.currentTimeMillis
    yield* sql`DELETE FROM idempotency WHERE at < ${nowMillis - keepMillis}`
    const [limit] = yield* sql<{ readonly at: number | string }>`
      SELECT at FROM idempotency ORDER BY at DESC LIMIT 1 OFFSET ${options.keysMax}`
    if (limit !== undefined) yield* sql`DELETE FROM idempotency WHERE at <= ${Number(limit.at)} AND status IS NOT NULL`
  })

  yield* sweep.pipe(
    Effect.catchCause((cause) => Effect.logWarning("answers kept for Idempotency-Keys could not be pruned", cause)),
    Effect.delay(sweepEvery),
    Effect.forever,
    Effect.forkScoped
  )

  return Idempotency.of({ claim, toItsEnd, sweep })
})
