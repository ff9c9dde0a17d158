/**
 * When what was committed is safe from a power cut.
 *
 * PostgreSQL syncs its log within COMMIT (unless told otherwise). SQLite can do
 * the same, but blocks the process meanwhile, and for every transaction alike.
 * So it commits without a sync, and whoever must not go on before its commit is
 * safe asks for it here: the log is synced in another thread, once for all who
 * wait. A crash of the process loses nothing either way.
 */
import { Context, Effect } from "effect"
import type { SqlError } from "effect/sql"

/** Returns once everything that was committed before the call survives a power cut. */
export const Durability = Context.Reference<{ readonly flush: Effect.Effect<void, SqlError.SqlError> }>(
  "@prism-dns/core/storage/Durability",
  { defaultValue: () => ({ flush: Effect.void }) }
)
