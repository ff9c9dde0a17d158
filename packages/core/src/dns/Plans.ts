/**
 * Plans: changes thought out, kept as data, looked at, and then applied or not.
 *
 * Promises: what is applied is what was shown (the hash is computed again); a
 * name about which the registry knows something newer than the plan is refused,
 * with a sentence, and the others go on; deletions beyond the zone's budget are
 * not applied without a reason that lands in the audit; each effective change
 * has one audit entry, in the transaction that makes it; no change is applied
 * twice. Memory and transactions are those of a page, whatever the plan's size:
 * a process that ends in between leaves the rest open.
 *
 * Applying never writes to PowerDNS: it marks names, and they go the way of any
 * change. Leaves to others: finding what is to change (`dns/Reconciler`,
 * `dns/Adoption`), and publishing (`dns/DnsManager`).
 */
import { Context, Effect, Option, Schema, type Stream } from "effect"
import type { SqlError } from "effect/sql"
import type { DomainName } from "../domain/DomainName.ts"
import type * as RRset from "../domain/RRset.ts"
import type { PowerDnsError } from "../powerdns/PowerDnsError.ts"
import type { Cause } from "./Cause.ts"

/**
 * - `reconcile`: repairs what differs from what should be.
 * - `adopt`: takes records over that stand in PowerDNS; `release`: gives them back. Neither writes to PowerDNS.
 * - `ignore`: says which names to leave alone, or no longer.
 * - `held-deletions`: deletions that the zone's budget did not allow.
 */
export const planKinds = ["reconcile", "adopt", "release", "ignore", "held-deletions"] as const
export type PlanKind = (typeof planKinds)[number]

/** `superseded`: a newer plan has taken its place. */
export const planStates = ["open", "applied", "rejected", "superseded"] as const
export type PlanState = (typeof planStates)[number]

/**
 * - `create`, `update`: the name has records as they should be afterwards.
 * - `delete`: the name loses all its records of ours, and counts against the zone's budget.
 * - `repair`: records too many at a name that keeps others: doubled ones, ones with another TTL, a type too many.
 * - `adopt`, `release`: the name becomes ours, or no longer is.
 * - `ignore`, `unignore`: here `name` is the pattern, relative to the zone.
 */
export const planActions = ["create", "update", "delete", "repair", "adopt", "release", "ignore", "unignore"] as const
export type PlanAction = (typeof planActions)[number]

/** What a change is before it stands in a plan. */
export interface NewChange {
  readonly name: DomainName
  /** Record type; `*` for `ignore` and `unignore`. */
  readonly type: string
  readonly action: PlanAction
  readonly before: RRset.RRset | undefined
  readonly after: RRset.RRset | undefined
  /** A sentence. */
  readonly reason: string
  readonly cause: Cause
}

export interface PlanChange extends NewChange {
  /** Its place in the plan, from 1. */
  readonly ordinal: number
  /** Undefined: not yet; `applied`; or a sentence that says why it was not. */
  readonly outcome: string | undefined
}

/** How many changes of each action, how many names, and how many of them lose all their records. */
export interface PlanCounts extends Readonly<Record<PlanAction, number>> {
  readonly changes: number
  readonly names: number
  readonly deletedNames: number
}

export interface Plan {
  /** A UUID that sorts by time (version 7). */
  readonly id: string
  readonly zone: DomainName
  readonly kind: PlanKind
  readonly state: PlanState
  readonly madeAtMillis: number
  readonly madeBy: string
  /** What is newer than this, the plan does not know. */
  readonly generation: number
  /** Of its changes: `sha256:` and 64 hex digits. */
  readonly hash: string
  /** A sentence. */
  readonly reason: string
  readonly counts: PlanCounts
  /** The last decision about it: when, whose, why. An open plan has one when a part of it was applied. */
  readonly decidedAtMillis: number | undefined
  readonly decidedBy: string | undefined
  readonly decidedReason: string | undefined
}

/** A deletion that the zone's budget does not allow. */
export interface HeldDeletion {
  readonly name: DomainName
  readonly type: string
  readonly before: RRset.RRset
  readonly reason: string
  /** Default `withdrawn`. */
  readonly cause?: Cause
}

export class PlanNotFound extends Schema.TaggedError<PlanNotFound>()("PlanNotFound", { id: Schema.String }) {
  override get message(): string {
    return `there is no plan ${this.id}`
  }
}

/** It was applied, rejected or superseded before. */
export class PlanNotOpen extends Schema.TaggedError<PlanNotOpen>()("PlanNotOpen", {
  id: Schema.String,
  state: Schema.Literals(planStates)
}) {
  override get message(): string {
    return `plan ${this.id} is ${this.state}; make a new one`
  }
}

/** Its changes are not those whose hash was kept. */
export class PlanAltered extends Schema.TaggedError<PlanAltered>()("PlanAltered", {
  id: Schema.String,
  expected: Schema.String,
  found: Schema.String
}) {
  override get message(): string {
    return `the changes of plan ${this.id} are not those it was made with; make a new one`
  }
}

/** Nothing was applied. Say why the budget does not count, or apply without the deletions. */
export class DeleteBudgetExceeded extends Schema.TaggedError<DeleteBudgetExceeded>()("DeleteBudgetExceeded", {
  id: Schema.String,
  zone: Schema.String,
  /** Names the plan would take all records from. */
  wanted: Schema.Int,
  /** Names that may be deleted now. */
  remaining: Schema.Int,
  /** Names published in the zone. */
  published: Schema.Int,
  /** Names deleted within the window, and on their way to it. */
  deleted: Schema.Int,
  windowMillis: Schema.Finite,
  detail: Schema.String
}) {
  override get message(): string {
    return this.detail
  }
}

export interface Applied {
  readonly plan: Plan
  /** Changes applied by this call. */
  readonly applied: number
  /** Changes that this call refused; each says why in its outcome. */
  readonly refused: number
}

export class Plans extends Context.Service<
  Plans,
  {
    /**
     * Stores a plan, chunk by chunk; all changes of a name stand in one chunk. It becomes visible when it is complete.
     * One without changes is returned as `applied` and not stored. A reconcile plan takes the place of the zone's open
     * one, unless both are the same: then that one is returned.
     */
    readonly make: <E, R>(
      zone: DomainName,
      options: {
        readonly kind: PlanKind
        readonly reason: string
        readonly by: string
        /** Of the registry, before what the plan was made from was read. */
        readonly generation: number
        readonly changes: Stream.Stream<ReadonlyArray<NewChange>, E, R>
      }
    ) => Effect.Effect<Plan, E | SqlError.SqlError, R>
    readonly find: (id: string) => Effect.Effect<Option.Option<Plan>, SqlError.SqlError>
    /** Plans, the newest first; `after`: only those older than that id. */
    readonly list: (options: {
      readonly zone?: DomainName | undefined
      readonly kind?: PlanKind | undefined
      readonly state?: PlanState | undefined
      readonly limit: number
      readonly after?: string | undefined
    }) => Effect.Effect<ReadonlyArray<Plan>, SqlError.SqlError>
    /** Changes in their order; `after`: only those behind that ordinal. */
    readonly changes: (
      id: string,
      options: { readonly after?: number | undefined; readonly limit: number }
    ) => Effect.Effect<ReadonlyArray<PlanChange>, SqlError.SqlError>
    /**
     * Applies what is open of a plan, or, with `names`, only at those, or all but its deletions. The plan is `applied`
     * once every change has an outcome, and stays open until then.
     */
    readonly apply: (
      id: string,
      options: {
        readonly by: string
        /** The address the order came from. */
        readonly peer?: string | undefined
        /** Why the zone's delete budget does not count this time. */
        readonly overrideBudget?: string | undefined
        readonly names?: ReadonlyArray<DomainName> | undefined
        readonly withoutDeletions?: boolean | undefined
      }
    ) => Effect.Effect<
      Applied,
      PlanNotFound | PlanNotOpen | PlanAltered | DeleteBudgetExceeded | PowerDnsError | SqlError.SqlError
    >
    /** Nothing of it is done. Names it held back stay as they are until something changes about them. */
    readonly reject: (
      id: string,
      options: { readonly by: string; readonly peer?: string | undefined; readonly reason: string }
    ) => Effect.Effect<Plan, PlanNotFound | PlanNotOpen | SqlError.SqlError>
    /**
     * Adds deletions to the zone's open plan of held ones, or begins one. Names it already has are left as they are. The
     * caller holds the marks back with the plan's id.
     */
    readonly hold: (
      zone: DomainName,
      changes: ReadonlyArray<HeldDeletion>,
      reason: string
    ) => Effect.Effect<Plan, SqlError.SqlError>
    /** Removes plans that are not open, beyond the newest `keep` of each zone; returns how many. */
    readonly prune: (keep: number) => Effect.Effect<number, SqlError.SqlError>
  }
>()("@prism-dns/core/dns/Plans") {}
