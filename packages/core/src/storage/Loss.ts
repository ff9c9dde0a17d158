/**
 * Transactions whose connection to PostgreSQL was lost, told apart by whether
 * they may have been committed.
 *
 * The client's own word for it is a defect: it cannot undo what it has no
 * connection for. `telling` makes that a failure like any other. Lost before its
 * COMMIT was sent, nothing of a transaction is there, and it may be repeated;
 * after that nobody knows (`isUncertain`), and it may be repeated only where
 * doing it twice comes to the same, or where it can be looked up.
 */
import { Cause, Effect, Option } from "effect"
import { type SqlClient, SqlError } from "effect/sql"
import { Asked, outOfTouch } from "../cluster/Asked.ts"
import { detailOf } from "./SqlFailure.ts"

/**
 * SQLSTATEs of a server that goes, comes, or was demoted: stopped by its operator, ended with another process of it,
 * starting up, and only read. And of one that ended a transaction which stood still (`Cluster.fence`).
 */
const lostStates: ReadonlySet<unknown> = new Set(["57P01", "57P02", "57P03", "25006", "25P03"])
/** Of a server that another may take over from, or that comes back itself. */
const leavingStates: ReadonlySet<unknown> = new Set(["57P01", "57P02", "57P03", "25006"])

const stateOf = ({ reason: { cause } }: SqlError.SqlError): unknown =>
  cause instanceof Error && "code" in cause ? cause.code : undefined

/** True where the server said that it goes, comes, or takes no writes. */
export const isLeaving = (error: SqlError.SqlError): boolean => leavingStates.has(stateOf(error))

/** True where the server takes no writes, as one that was demoted: its connections are of no use, and do not end by themselves. */
export const isReadOnly = (error: SqlError.SqlError): boolean => stateOf(error) === "25006"

/** True where the server was lost, be it the connection or its right to write; another attempt may find another one. */
export const isLost = (error: unknown): error is SqlError.SqlError => {
  if (!SqlError.isSqlError(error)) return false
  return error.reason._tag === "ConnectionError" || lostStates.has(stateOf(error))
}

const uncertainWords =
  "the connection to the database was lost during the commit: it may have been done, look before you repeat it"

/** True where what was asked for may have been done. */
export const isUncertain = (error: unknown): boolean =>
  isLost(error) && error.reason.operation === "commit" && error.reason._tag === "ConnectionError"

const uncertain = (cause: SqlError.SqlError) =>
  new SqlError.SqlError({
    reason: new SqlError.ConnectionError({
      cause: new Error(`${uncertainWords} (${detailOf(cause)})`),
      message: uncertainWords,
      operation: "commit"
    })
  })

/** The loss that a cause tells of, as a failure or as a defect. */
const lossIn = (cause: Cause.Cause<unknown>): SqlError.SqlError | undefined => {
  for (const reason of cause.reasons) {
    const error: unknown = Cause.isFailReason(reason)
      ? reason.error
      : Cause.isDieReason(reason)
        ? reason.defect
        : undefined
    if (isLost(error)) return error
  }
  return undefined
}

const late = Effect.suspend(() =>
  Effect.fail(
    new SqlError.SqlError({
      reason: new SqlError.ConnectionError({
        cause: new Error(outOfTouch),
        message: outOfTouch,
        operation: "transaction"
      })
    })
  )
)

/** Looked at in the transaction: one that stands still from here on is ended when this server is taken for dead. */
const inLife = <A, E, R>(effect: Effect.Effect<A, E, R>): Effect.Effect<A, E | SqlError.SqlError, R> =>
  Effect.flatMap(Asked, (asked): Effect.Effect<A, E | SqlError.SqlError, R> => {
    if (asked === undefined) return effect
    return Effect.flatMap(asked.stands, (stands): Effect.Effect<A, E | SqlError.SqlError, R> =>
      stands ? effect : late
    )
  })

/**
 * `client`, whose transactions fail with the loss of their connection, and where they are asked for by a request of a former
 * life (`cluster/Asked`).
 */
export const telling = <A extends SqlClient.SqlClient>(client: A): A => {
  const { withTransaction } = client
  const telling: SqlClient.SqlClient["withTransaction"] = (effect) =>
    Effect.suspend(() => {
      let isDone = false
      return Effect.catchCause(
        withTransaction(inLife(Effect.tap(effect, () => Effect.sync(() => void (isDone = true))))),
        (cause) => {
          const loss = Cause.hasInterrupts(cause) ? undefined : lossIn(cause)
          if (loss === undefined) return Effect.failCause(cause)
          return Effect.flatMap(Effect.serviceOption(client.transactionService), (outer) =>
            Effect.fail(isDone && Option.isNone(outer) ? uncertain(loss) : loss)
          )
        }
      )
    })
  return Object.assign(client, { withTransaction: telling })
}
