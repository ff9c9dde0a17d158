/**
 * The sessions of protocol 2.0 that are open, by who speaks on them: for what
 * is told to all of them, and to all of one principal.
 */
import { type Principal, type PrincipalKind, principalKinds } from "@prism-dns/core/auth/Principal"
import { Revocations } from "@prism-dns/core/auth/Revocations"
import { Context, Effect, Metric } from "effect"
import { Drain } from "../Drain.ts"
import type { SessionV2 } from "./SessionV2.ts"
import * as TcpMetrics from "./TcpMetrics.ts"

export interface Sessions {
  readonly add: (session: SessionV2, principal: Principal) => void
  readonly remove: (session: SessionV2, principal: Principal) => void
  /** How many revocations there have been. */
  readonly revocations: () => number
  /** True once those that are there were told to look for another server. */
  readonly isDraining: () => boolean
  /** Tells those that are there to look for another server. */
  readonly drain: () => void
}

/** How many are open in this process, for what servers of a cluster tell each other. */
export const count = (): number =>
  principalKinds.reduce(
    (sum, kind) => sum + Metric.withAttributes(TcpMetrics.sessions, { kind }).valueUnsafe(Context.empty()).value,
    0
  )

export const make = Effect.gen(function* () {
  const context = yield* Effect.context()
  const revocations = yield* Revocations
  const drain = yield* Drain
  /** Most principals have one session: a set only for those with more. */
  const byPrincipal = new Map<string, SessionV2 | Set<SessionV2>>()
  const open = Object.fromEntries(
    principalKinds.map((kind) => [kind, { sessions: 0, gauge: Metric.withAttributes(TcpMetrics.sessions, { kind }) }])
  ) as Record<PrincipalKind, { sessions: number; readonly gauge: Metric.Gauge<number> }>

  const change = (kind: PrincipalKind, by: 1 | -1) => {
    const of = open[kind]
    of.sessions += by
    of.gauge.updateUnsafe(of.sessions, context)
  }

  const of = (principal: string): ReadonlyArray<SessionV2> => {
    const found = byPrincipal.get(principal)
    return found === undefined ? [] : found instanceof Set ? [...found] : [found]
  }

  let revoked = 0
  const stop = revocations.listen(({ certificate, code, message, principal }) => {
    revoked += 1
    for (const session of of(principal)) {
      if (certificate === undefined || session.certificate === certificate) session.end(code, message)
    }
  })
  yield* Effect.addFinalizer(() => Effect.sync(stop))

  const drainAll = () => {
    for (const found of byPrincipal.values()) {
      if (found instanceof Set) for (const session of found) session.drain()
      else found.drain()
    }
  }
  yield* Effect.forkScoped(Effect.andThen(drain.awaitDrain, Effect.sync(drainAll)))

  const sessions: Sessions = {
    add: (session, { kind, name }) => {
      const found = byPrincipal.get(name)
      if (found === undefined) byPrincipal.set(name, session)
      else if (found instanceof Set) found.add(session)
      else byPrincipal.set(name, new Set([found, session]))
      change(kind, 1)
    },
    remove: (session, { kind, name }) => {
      const found = byPrincipal.get(name)
      if (found === session) byPrincipal.delete(name)
      else if (found instanceof Set && found.delete(session) && found.size === 1) {
        byPrincipal.set(name, [...found][0]!)
      }
      change(kind, -1)
    },
    revocations: () => revoked,
    isDraining: drain.isDraining,
    drain: drainAll
  }
  return sessions
})
