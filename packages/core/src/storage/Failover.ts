/**
 * That the registry's database may move to another server while we run.
 *
 * Work that is safe to repeat is repeated for as long as another server is
 * likely to take over (`patienceMillis`); where nothing can take over that is 0,
 * and who asked is told at once. What is kept in memory may be ahead of a server
 * that took over without all that was written: `onMoved` tells, and what follows
 * the database (`cluster/Versions`, `registry/Leases`) reads it as it is then.
 */
import { Context } from "effect"

export interface Failover {
  /** How long work is repeated from the moment on that the database was lost, in milliseconds. It may change: ask when it is. */
  readonly patienceMillis: number
  /** Calls `listener` each time another server has taken over; what is returned ends that. */
  readonly onMoved: (listener: () => void) => () => void
  /** Is told which timeline the writes are on, by whoever writes now and then. For an address that hides the servers behind it. */
  readonly saw?: ((timeline: string) => void) | undefined
}

export const Failover = Context.Reference<Failover>("@prism-dns/core/storage/Failover", {
  defaultValue: () => ({ patienceMillis: 0, onMoved: () => () => undefined })
})
