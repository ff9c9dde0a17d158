/**
 * The servers that share one registry, and which of them does what only one may.
 *
 * A server is an instance from its start to its end. It proves that it lives by
 * renewing one row; whoever has not done so for the length of a lease, by the
 * clock of another that looks, may be declared dead by it, once and for good: it
 * comes back as a new instance. What only one may do at a time has a name (a lease):
 * writing a zone, and each job of the cluster. A lease is held by one instance,
 * with an epoch that rises when it passes to another.
 *
 * Promises: no two instances hold one lease; `isValid` is false before another
 * can have it, by a clock that only goes on, also in a process that was stopped
 * for a while; a transaction with the `fence` of a lease commits only while its
 * epoch stands. Leaves to others: what is done under a lease (`dns/DnsManager`,
 * `audit/Sealer` and so on), and requests that are on their way to PowerDNS when
 * a lease is lost: those are doubted and written anew by the next writer.
 */
import { Context, Effect, Layer, type Scope } from "effect"
import type { SqlError } from "effect/sql"
import type { DomainName } from "../domain/DomainName.ts"
import * as ClusterPostgres from "./ClusterPostgres.ts"
import { LeaseLost } from "./LeaseLost.ts"

/** What only one instance does at a time: the writing of a zone, or a job of the cluster. */
export type LeaseName = `zone/${string}` | `job/${string}`

/** The lease of whoever writes `zone` into PowerDNS. */
export const zoneLease = (zone: DomainName): LeaseName => `zone/${zone}`

/** A lease that this instance holds, or held. */
export interface Held {
  readonly name: LeaseName
  /** Higher for each holder. */
  readonly epoch: number
  /** Whether it may still be acted under at this moment. Asked right before each act that the database cannot refuse. */
  readonly isValid: () => boolean
  /** How long it may be acted under if it is not renewed, in milliseconds; 0 or less: not any more. */
  readonly remainingMillis: () => number
}

export { LeaseLost }

export type InstanceState = "live" | "draining" | "left" | "dead"

export interface InstanceStatus {
  /** One for each start of a server. */
  readonly id: string
  /** `server.instance` of its configuration. */
  readonly name: string
  readonly state: InstanceState
  readonly version: string
  readonly startedMillis: number
  /** When it proved last that it lives, by the database's clock. */
  readonly renewedMillis: number
  /** Sessions and other figures that it told with that. */
  readonly sessions: number
  readonly isSelf: boolean
}

export interface LeaseStatus {
  readonly name: LeaseName
  readonly epoch: number
  /** Undefined: nobody, for the moment. */
  readonly holder: { readonly id: string; readonly name: string } | undefined
  readonly sinceMillis: number
}

export class Cluster extends Context.Service<
  Cluster,
  {
    readonly self: { readonly id: string; readonly name: string }
    /** No other instance was live or draining when it was looked last. */
    readonly isAlone: () => boolean
    /** Those that live, and those that ended within the last hour, as of the last look; the oldest start first. */
    readonly instances: Effect.Effect<ReadonlyArray<InstanceStatus>>
    /** Who holds what, as of the last look, by name. */
    readonly leases: Effect.Effect<ReadonlyArray<LeaseStatus>>
    /** The lease, if this instance holds it and it is valid at this moment. */
    readonly held: (name: LeaseName) => Held | undefined
    /**
     * Stands for a lease until the scope ends, and runs `work` in a fiber of its own each time it is got. `work` is
     * interrupted when the lease passes to another, is no longer valid, or is handed over (the interruption is awaited,
     * for as long as the lease is valid, before another gets it); it may never end by itself, or end: then the lease stays.
     */
    readonly whileHeld: <E, R>(
      name: LeaseName,
      work: (held: Held) => Effect.Effect<void, E, R>
    ) => Effect.Effect<void, never, R | Scope.Scope>
    /** For a transaction, as its first statement: fails unless this instance holds the lease, and keeps it so until the commit. */
    readonly fence: (name: LeaseName) => Effect.Effect<void, LeaseLost | SqlError.SqlError>
    /**
     * When an instance ended last, as far as is known, of those that end without a word or with it: hosts that it held need
     * time to turn up on another. 0: none.
     */
    readonly endedMillis: () => number
    /**
     * Rises each time this instance finds out that it was declared dead, and begins anew. What was asked of it before has
     * been given up by whoever asked, as likely as not, and perhaps asked of another since: it is not to be carried out.
     */
    readonly life: () => number
    /**
     * Whether this instance is known to live at this moment. Where the last proof has run out, as after standing still, a
     * new one is waited for; not for long: false, when there is none.
     */
    readonly proven: Effect.Effect<boolean>
    /** Calls `listener` when `life` has risen, until the scope ends. It must not wait. */
    readonly onNewLife: (listener: () => void) => Effect.Effect<void, never, Scope.Scope>
    /** Hands over all that is held, takes nothing more, and says that this instance is on its way out. */
    readonly drain: Effect.Effect<void>
  }
>()("@prism-dns/core/cluster/Cluster") {
  /** One server on a registry of its own: it holds everything, always. */
  static readonly layerAlone: Layer.Layer<Cluster> = Layer.sync(Cluster, () => {
    const held = (name: LeaseName): Held => ({
      name,
      epoch: 1,
      isValid: () => true,
      remainingMillis: () => Number.POSITIVE_INFINITY
    })
    return Cluster.of({
      self: { id: "alone", name: "alone" },
      isAlone: () => true,
      instances: Effect.succeed([]),
      leases: Effect.succeed([]),
      held,
      whileHeld: (name, work) =>
        Effect.asVoid(
          Effect.forkScoped(
            Effect.catchCause(work(held(name)), (cause) => Effect.logError(`${name} ended`, cause)),
            { startImmediately: true }
          )
        ),
      fence: () => Effect.void,
      endedMillis: () => 0,
      life: () => 0,
      proven: Effect.succeed(true),
      onNewLife: () => Effect.void,
      drain: Effect.void
    })
  })

  /** Servers that share a PostgreSQL database. */
  static readonly layerPostgres = (options: ClusterPostgres.PostgresOptions) =>
    Layer.effect(Cluster, ClusterPostgres.make(options))
}
