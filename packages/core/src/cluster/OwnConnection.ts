/**
 * A connection to the database that nobody else uses, and that is given up for a
 * new one whenever it does not answer in time.
 *
 * A server that cannot prove in time that it lives loses what it holds. So the
 * proof has a connection of its own: long queries of others do not keep it
 * waiting, and one that hangs, since its machine or the way to it has gone, is
 * not waited for; nor is one that hangs while it is opened: there a second attempt
 * is made beside it. Leaves to others: how a connection is made (the driver).
 */
import { Context, Effect, Exit, Fiber, Layer, Option, Scope } from "effect"
import { SqlClient, SqlError } from "effect/sql"

/** Opens connections to the registry's database besides those that are shared. */
export class OwnConnections extends Context.Service<
  OwnConnections,
  {
    readonly open: Effect.Effect<SqlClient.SqlClient, SqlError.SqlError, Scope.Scope>
  }
>()("@prism-dns/core/cluster/OwnConnections") {
  /** The shared ones: for tests, in which nobody keeps them busy. */
  static readonly layerShared: Layer.Layer<OwnConnections, never, SqlClient.SqlClient> = Layer.effect(
    OwnConnections,
    Effect.map(SqlClient.SqlClient, (sql) => OwnConnections.of({ open: Effect.succeed(sql) }))
  )
}

export interface OwnConnection {
  /** Runs `body` on the connection; after a failure, or when it takes too long, the next one has a new connection. */
  readonly use: <A>(
    body: (sql: SqlClient.SqlClient) => Effect.Effect<A, SqlError.SqlError>
  ) => Effect.Effect<A, SqlError.SqlError>
}

const tooLong = (millis: number) =>
  new SqlError.SqlError({
    reason: new SqlError.ConnectionError({
      cause: new Error(`the database did not answer within ${millis} ms`),
      message: "the database did not answer in time",
      operation: "cluster"
    })
  })

interface Opened {
  readonly sql: SqlClient.SqlClient
  readonly scope: Scope.Closeable
}

/** Opening a connection may take so many times as long as a use of one. */
const openFactor = 3

/** `millisMax`: how long each use may take, in milliseconds. Uses are one after the other. */
export const make = Effect.fnUntraced(function* (
  millisMax: number
): Effect.fn.Return<OwnConnection, never, OwnConnections | Scope.Scope> {
  const { open } = yield* OwnConnections
  let current: Opened | undefined

  const attempt = Effect.gen(function* () {
    const scope = yield* Scope.make()
    const sql = yield* Scope.provide(open, scope).pipe(
      Effect.onExit((exit) => (Exit.isSuccess(exit) ? Effect.void : Scope.close(scope, exit)))
    )
    return { sql, scope }
  })

  /** Nobody waits for an attempt any more; what it comes to is closed. */
  const leave = (fiber: Fiber.Fiber<Opened, SqlError.SqlError>) =>
    Effect.suspend(() => {
      fiber.interruptUnsafe()
      return Effect.forkDetach(
        Effect.flatMap(Fiber.await(fiber), (exit) =>
          Exit.isSuccess(exit) && exit.value !== current ? Scope.close(exit.value.scope, Exit.void) : Effect.void
        )
      )
    })

  /** One attempt, and a second one beside it when that takes longer than a use may: it may hang where another would not. */
  const attempts = Effect.acquireUseRelease(
    Effect.sync((): Array<Fiber.Fiber<Opened, SqlError.SqlError>> => []),
    (fibers) =>
      Effect.gen(function* () {
        const first = yield* Effect.forkDetach(attempt, { startImmediately: true })
        fibers.push(first)
        const early = yield* Effect.timeoutOption(Fiber.await(first), millisMax)
        if (Option.isSome(early)) return (current = yield* early.value)
        const second = yield* Effect.forkDetach(attempt, { startImmediately: true })
        fibers.push(second)
        return (current = yield* Effect.race(Fiber.join(first), Fiber.join(second)))
      }),
    (fibers) => Effect.forEach(fibers, leave, { discard: true })
  )

  const opened = Effect.suspend(() =>
    current === undefined ? Effect.map(attempts, ({ sql }) => sql) : Effect.succeed(current.sql)
  )

  /** The end of a connection that does not answer takes its time, and is not waited for. */
  const giveUp = Effect.suspend(() => {
    if (current === undefined) return Effect.void
    const { scope } = current
    current = undefined
    return Effect.asVoid(Effect.forkDetach(Scope.close(scope, Exit.void)))
  })

  yield* Effect.addFinalizer(() => giveUp)

  return {
    use: (body) =>
      Effect.suspend(() => {
        const limitMillis = current === undefined ? openFactor * millisMax : millisMax
        return Effect.flatMap(Effect.forkDetach(Effect.flatMap(opened, body), { startImmediately: true }), (fiber) =>
          Fiber.join(fiber).pipe(
            Effect.timeoutOrElse({ duration: limitMillis, orElse: () => Effect.fail(tooLong(limitMillis)) }),
            Effect.onExit((exit) => {
              if (Exit.isSuccess(exit)) return Effect.void
              fiber.interruptUnsafe()
              return giveUp
            })
          )
        )
      })
  }
})
