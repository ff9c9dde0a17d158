/**
 * The connection to Redis, which is there or not, and of which nobody depends.
 *
 * Promises: a request is answered within `answerMillisMax` or fails, and fails
 * at once while there is no connection; a Redis that does not answer, or answers
 * with an error, is given up for a new connection, after pauses that grow; what
 * is logged is one line when it is lost and one when it is back, never its
 * password. Whoever asks it is never on the way of a host or of a caller.
 *
 * It is the library that `NodeRedis` of Effect stands on, used directly: that
 * one waits at its end for the answer of a server that is silent, and logs each
 * attempt. Leaves to others: what is asked (`RedisRates`, `RedisPresence`).
 */
import {
  Cause,
  Clock,
  Context,
  Deferred,
  Duration,
  Effect,
  Exit,
  Layer,
  Metric,
  Random,
  Redacted,
  Schema
} from "effect"
import type { createClient } from "redis"
import type { RedisUrl } from "./RedisUrl.ts"
import * as RedisMetrics from "./RedisMetrics.ts"

export interface RedisOptions {
  readonly url: RedisUrl
  /** Authorities in PEM, instead of those that Node knows. */
  readonly ca?: string | undefined
  /** How long an answer may take, and a connection. */
  readonly answerMillisMax?: number
  readonly connectMillisMax?: number
  /** Between two connections, in milliseconds: from the first pause to the longest. */
  readonly retryMillisMin?: number
  readonly retryMillisMax?: number
}

const defaults = { answerMillisMax: 500, connectMillisMax: 1000, retryMillisMin: 100, retryMillisMax: 2000 }

type Client = ReturnType<typeof createClient>

/** There is no answer. `detail` has nothing of the password. */
export class RedisGone extends Schema.TaggedError<RedisGone>()("RedisGone", { detail: Schema.String }) {
  override get message(): string {
    return this.detail
  }
}

const goneBecause = (error: unknown) =>
  new RedisGone({
    detail:
      error instanceof RedisGone
        ? error.detail
        : error instanceof AggregateError && error.errors[0] instanceof Error
          ? error.errors[0].message
          : error instanceof Error
            ? error.message
            : String(error)
  })

/** What it must be able to do: run a script that writes. A replica, one that is full or one that forbids it is of no use. */
const trial = "return redis.call('SET', KEYS[1], '1', 'PX', 1000)"

/** A script, whose digest is all that is sent once the server knows it. */
export interface Script {
  readonly lua: string
  digest: string | undefined
}

export const script = (lua: string): Script => ({ lua, digest: undefined })

export class RedisLink extends Context.Service<
  RedisLink,
  {
    readonly isConnected: () => boolean
    /** Runs a script on these keys. */
    readonly run: (
      use: "rates" | "presence",
      script: Script,
      keys: ReadonlyArray<string>,
      args: ReadonlyArray<string>
    ) => Effect.Effect<unknown, RedisGone>
  }
>()("@prism-dns/server/redis/RedisLink") {
  /** Never waits for Redis. `trialKey` is written now and then. */
  static readonly layer = (options: RedisOptions, trialKey: string) => Layer.effect(RedisLink, make(options, trialKey))
}

const make = Effect.fnUntraced(function* (given: RedisOptions, trialKey: string) {
  const options = { ...defaults, ...given }
  const { url } = options
  const clock = yield* Clock.Clock
  const context = yield* Effect.context()
  // Read only where it is used.
  const redis = yield* Effect.promise(() => import("./Driver.ts"))
  let current: { readonly client: Client; readonly lost: Deferred.Deferred<never, RedisGone> } | undefined

  const lose = (client: Client, error: unknown) => {
    if (current?.client === client) Deferred.doneUnsafe(current.lost, Exit.fail(goneBecause(error)))
  }

  const within = <A>(millis: number, promise: () => Promise<A>): Effect.Effect<A, RedisGone> =>
    Effect.tryPromise({ try: promise, catch: goneBecause }).pipe(
      Effect.timeoutOrElse({
        duration: millis,
        orElse: () => Effect.fail(new RedisGone({ detail: `no answer within ${millis} ms` }))
      })
    )

  const socket = { connectTimeout: options.connectMillisMax, reconnectStrategy: false as const }
  const open = Effect.gen(function* () {
    const client = yield* Effect.acquireRelease(
      Effect.sync((): Client =>
        redis.createClient({
          url: Redacted.value(url.url),
          RESP: 2,
          name: "prism-dns",
          disableOfflineQueue: true,
          commandsQueueMaxLength: 1000,
          socket: url.tls ? { ...socket, tls: true, ...(options.ca === undefined ? {} : { ca: options.ca }) } : socket
        })
      ),
      // What it still waits for fails.
      (client) => Effect.sync(() => client.isOpen && client.destroy())
    )
    // Without a listener it would be thrown.
    client.on("error", (error: unknown) => lose(client, error))
    yield* within(options.connectMillisMax, () => client.connect())
    yield* within(options.answerMillisMax, () => client.eval(trial, { keys: [trialKey] }))
    return client
  })

  const setConnected = (value: 0 | 1) => RedisMetrics.connected.updateUnsafe(value, context)
  setConnected(0)

  /** Opens connection after connection. */
  yield* Effect.gen(function* () {
    let pause = options.retryMillisMin
    let isAnnounced = false
    while (true) {
      const exit = yield* Effect.exit(
        Effect.scoped(
          Effect.gen(function* () {
            const client = yield* open
            const lost = yield* Deferred.make<never, RedisGone>()
            yield* Effect.acquireRelease(
              Effect.sync(() => {
                current = { client, lost }
                setConnected(1)
              }),
              () =>
                Effect.sync(() => {
                  current = undefined
                  setConnected(0)
                })
            )
            pause = options.retryMillisMin
            isAnnounced = false
            yield* Effect.logInfo("Redis answers").pipe(Effect.annotateLogs({ redis: url.name }))
            return yield* Deferred.await(lost)
          })
        )
      )
      if (!isAnnounced) {
        isAnnounced = true
        // Also what should never fail is not without its reason.
        const reason = Exit.isFailure(exit) ? goneBecause(Cause.squash(exit.cause)).detail : "it was closed"
        yield* Effect.logWarning("Redis does not answer; this server does without it").pipe(
          Effect.annotateLogs({ redis: url.name, reason })
        )
      }
      // Servers that lost it at the same moment do not come back at the same moment.
      yield* Effect.sleep(Duration.millis(pause * (0.5 + (yield* Random.next) / 2)))
      pause = Math.min(pause * 2, options.retryMillisMax)
    }
  }).pipe(Effect.forkScoped)

  const evaluate = async (client: Client, given: Script, keys: ReadonlyArray<string>, args: ReadonlyArray<string>) => {
    const parameters = { keys: [...keys], arguments: [...args] }
    if (given.digest !== undefined) {
      try {
        return await client.evalSha(given.digest, parameters)
      } catch (error) {
        // It was started anew, or is another one.
        if (!(error instanceof Error && error.message.startsWith("NOSCRIPT"))) throw error
      }
    }
    given.digest = await client.scriptLoad(given.lua)
    return await client.evalSha(given.digest, parameters)
  }

  const counted = (use: string, result: "ok" | "failed") =>
    Metric.withAttributes(RedisMetrics.requestsTotal, { use, result }).updateUnsafe(1, context)

  return RedisLink.of({
    isConnected: () => current !== undefined,
    run: (use, given, keys, args) =>
      Effect.suspend(() => {
        const link = current
        if (link === undefined) return Effect.fail(new RedisGone({ detail: "there is no connection" }))
        const startNanos = clock.monotonicTimeNanosUnsafe()
        return within(options.answerMillisMax, () => evaluate(link.client, given, keys, args)).pipe(
          Effect.tap(() =>
            Effect.sync(() => {
              counted(use, "ok")
              const seconds = Number(clock.monotonicTimeNanosUnsafe() - startNanos) / 1e9
              RedisMetrics.requestDurationSeconds.updateUnsafe(seconds, context)
            })
          ),
          Effect.tapError((gone) =>
            Effect.sync(() => {
              counted(use, "failed")
              lose(link.client, gone)
            })
          )
        )
      })
  })
})
