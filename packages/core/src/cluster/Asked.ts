/**
 * In which life of this server somebody asked for what is being done.
 *
 * A server that stood still, was taken for dead and goes on has requests in
 * their middle. Whoever asked has given up, has perhaps asked another server, and
 * wanted something newer since; so what is then still to be written is not. What
 * a request writes it writes in transactions (`storage/Loss.telling`) or by the
 * registry, both of which look here. Promises: no transaction is begun for a
 * request of a former life. One that was under way has been ended by whoever took
 * this server for dead. Leaves to others: what this server does by itself, which
 * is fenced where only one may do it (`Cluster.fence`).
 */
import { Context, Effect } from "effect"
import type { Cluster } from "./Cluster.ts"

export interface Asked {
  /** `Cluster.life` when the request came. */
  readonly life: number
  /** Whether this server is known to be in that life. */
  readonly stands: Effect.Effect<boolean>
}

/** Of the request that is being carried out; undefined: nobody's. */
export const Asked = Context.Reference<Asked | undefined>("@prism-dns/core/cluster/Asked", {
  defaultValue: () => undefined
})

/** Asked at this moment. */
export const now = ({ life, proven }: Pick<Cluster["Service"], "life" | "proven">): Asked => {
  const asked = life()
  return { life: asked, stands: Effect.map(proven, (isProven) => isProven && life() === asked) }
}

export const outOfTouch = "this server was out of touch with the others; ask again"
