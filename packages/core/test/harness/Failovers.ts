/** Another database server that takes over, as far as one is told of it. */
import { Layer } from "effect"
import { Failover } from "@prism-dns/core/storage/Failover"

export const make = () => {
  const listeners = new Set<() => void>()
  const failover: Failover = {
    patienceMillis: 0,
    onMoved: (listener) => {
      listeners.add(listener)
      return () => void listeners.delete(listener)
    }
  }
  return {
    layer: Layer.succeed(Failover, failover),
    /** It is told of. */
    move: () => {
      for (const listener of listeners) listener()
    }
  }
}
