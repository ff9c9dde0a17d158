/**
 * A line over which servers that share a database call to each other: short
 * texts, heard by everyone who listens at that moment, the caller too.
 *
 * Leaves to others: what the texts say (`cluster/Signals`), and how a line is
 * made, which is the driver's business.
 */
import { Context, type Effect, type Scope } from "effect"
import type { SqlError } from "effect/sql"

/** The longest text that a line takes, in bytes: PostgreSQL takes less than 8000. */
export const textBytesMax = 7900

export interface Line {
  /** Waits for what is called since the line was opened, or was last heard; fails when the line is lost. */
  readonly hear: Effect.Effect<ReadonlyArray<string>, SqlError.SqlError>
  /** Calls a text of at most `textBytesMax`. */
  readonly call: (text: string) => Effect.Effect<void, SqlError.SqlError>
}

export class SignalLine extends Context.Service<
  SignalLine,
  {
    /** Opens a line, and listens. It is closed with the scope. */
    readonly open: Effect.Effect<Line, SqlError.SqlError, Scope.Scope>
  }
>()("@prism-dns/core/cluster/SignalLine") {}
