/**
 * Compares whole zones with what PowerDNS holds.
 */
import { Context, type Effect, Schema } from "effect"
import type { SqlError } from "effect/sql"
import type { DomainName } from "../domain/DomainName.ts"
import type { PowerDnsError } from "../powerdns/PowerDnsError.ts"
import type { Plan } from "./Plans.ts"

/** The zone is not one of the configuration. */
export class ZoneUnknown extends Schema.TaggedError<ZoneUnknown>()("ZoneUnknown", { zone: Schema.String }) {
  override get message(): string {
    return `${this.zone} is not a zone that Prism manages`
  }
}

/** How names of a zone differ, by kind; the words of `prism_reconcile_drift`. */
export interface Drift {
  /** Should be there, and are not. */
  readonly missing: number
  /** Are there with other records. */
  readonly different: number
  /** Ours, there, and should not be. */
  readonly unexpected: number
  /** Hold a record twice, or records of one set with several TTLs. */
  readonly duplicate: number
  /** Not ours. */
  readonly foreign: number
  /** Not looked at, by a person's word. */
  readonly ignored: number
}

/** What one look at a zone found. */
export interface Reconciliation {
  readonly zone: DomainName
  readonly startedAtMillis: number
  readonly millis: number
  readonly drift: Drift
  /** Foreign names as an example, at most some dozens. */
  readonly foreignNames: ReadonlyArray<DomainName>
  /** Why deletions, or the repair, were held back; each a sentence. */
  readonly guards: ReadonlyArray<string>
  /** Without changes when there is no drift; then it is not stored. */
  readonly plan: Plan
}

export class Reconciler extends Context.Service<
  Reconciler,
  {
    /**
     * Looks at a zone now, one at a time, and makes a plan of what differs. With `apply` the plan is applied as a
     * scheduled run would: what the guards hold back stays open.
     */
    readonly run: (
      zone: DomainName,
      options: { readonly by: string; readonly peer?: string | undefined; readonly apply?: boolean | undefined }
    ) => Effect.Effect<Reconciliation, ZoneUnknown | PowerDnsError | SqlError.SqlError>
    /** What the last look at each zone found, since the start. */
    readonly last: Effect.Effect<ReadonlyMap<DomainName, Reconciliation>>
  }
>()("@prism-dns/core/dns/Reconciler") {}
