/**
 * Makes plans that change whose a name is: `adopt` records that stand in
 * PowerDNS, `release` them again, `ignore` names.
 */
import { Context, type Effect, Schema } from "effect"
import type { SqlError } from "effect/sql"
import type { DomainName } from "../domain/DomainName.ts"
import type { PowerDnsError } from "../powerdns/PowerDnsError.ts"
import type { PatternInvalid } from "./Ownership.ts"
import type { Plan } from "./Plans.ts"
import type { ZoneUnknown } from "./Reconciler.ts"

/** More names than one such plan may have. */
export class TooManyNames extends Schema.TaggedError<TooManyNames>()("TooManyNames", {
  zone: Schema.String,
  namesMax: Schema.Int
}) {
  override get message(): string {
    return `the patterns match more than ${this.namesMax} names of ${this.zone}; use narrower ones`
  }
}

interface Request {
  readonly zone: DomainName
  /** Names or patterns within the zone, as people write them: `web-*`, `*.lab`, `printer.hosts.example.` */
  readonly patterns: ReadonlyArray<string>
  readonly by: string
  readonly reason: string
}

export class Adoption extends Context.Service<
  Adoption,
  {
    /** Foreign records that match: A and AAAA in forward zones, PTR in reverse zones. */
    readonly adopt: (
      request: Request
    ) => Effect.Effect<Plan, ZoneUnknown | PatternInvalid | TooManyNames | PowerDnsError | SqlError.SqlError>
    /** Adopted records that match; they stay in PowerDNS, and no longer are ours. */
    readonly release: (
      request: Request
    ) => Effect.Effect<Plan, ZoneUnknown | PatternInvalid | TooManyNames | SqlError.SqlError>
    /** Patterns to be ignored, or, with `undo`, no longer to be. */
    readonly ignore: (
      request: Request & { readonly undo?: boolean | undefined }
    ) => Effect.Effect<Plan, ZoneUnknown | PatternInvalid | SqlError.SqlError>
  }
>()("@prism-dns/core/dns/Adoption") {}
