/** Zones in the HTTP API: what is in force for them, and how they are doing. */
import { Schema } from "effect"
import { HttpApiEndpoint, HttpApiGroup, HttpApiSchema, OpenApi } from "effect/http-api"
import { conflictPolicies } from "../domain/Zone.ts"
import { Authorization, Requires } from "./Authentication.ts"
import * as Page from "./Page.ts"
import { PowerDnsFailedProblem, StorageUnavailableProblem, ZoneNotFoundProblem } from "./Problems.ts"
import { ZonePublication } from "./Publications.ts"
import * as Values from "./Values.ts"

export const ZonePolicy = Schema.Struct({
  ttlSeconds: Schema.Int,
  ttlSecondsMin: Schema.Int.annotate({ description: "What a host's wish for a TTL is clamped to." }),
  ttlSecondsMax: Schema.Int,
  networks: Schema.optionalKey(
    Schema.Array(Schema.String).annotate({
      description: "Networks that hosts' addresses must lie in. Absent: every address that is not special."
    })
  ),
  labelsMax: Schema.optionalKey(
    Schema.Int.annotate({
      description: "Labels of a host's name below the zone at the most. Absent: one, by protocol 1.0 any number."
    })
  ),
  hostsMax: Schema.Int.annotate({ description: "Hosts at the most, whatever their state." }),
  whenOffline: Schema.Literals(["keep", "withdraw"]),
  withdrawAfterSeconds: Schema.optionalKey(
    Schema.Finite.annotate({ description: "Absent when records are kept until their host is retired." })
  ),
  conflict: Schema.Literals(conflictPolicies),
  retireAfterSeconds: Schema.Finite,
  holdForSeconds: Schema.Finite,
  deleteBudget: Schema.Struct({
    share: Schema.Finite.annotate({ description: "Of the names in the zone, 0 to 1." }),
    min: Schema.Int,
    windowSeconds: Schema.Finite
  }),
  quarantineSeconds: Schema.Finite
}).annotate({ identifier: "ZonePolicy" })
export type ZonePolicy = typeof ZonePolicy.Type

/** Names of a zone, by how they differ from what should be. */
export const Drift = Schema.Struct({
  missing: Schema.Int.annotate({ description: "Should be there, and are not." }),
  different: Schema.Int.annotate({ description: "Are there with other records." }),
  unexpected: Schema.Int.annotate({ description: "Ours, there, and should not be." }),
  duplicate: Schema.Int.annotate({ description: "Hold a record twice, or records of one set with several TTLs." }),
  foreign: Schema.Int.annotate({ description: "Not ours, and not touched." }),
  ignored: Schema.Int.annotate({ description: "Not looked at, by a person's word." })
}).annotate({ identifier: "Drift" })

/** What one look at a whole zone found. */
export const Reconciliation = Schema.Struct({
  at: Values.Timestamp,
  seconds: Schema.Finite.annotate({ description: "How long it took." }),
  drift: Drift,
  foreignNames: Schema.Array(Values.Name).annotate({ description: "Some of the foreign names." }),
  guards: Schema.Array(Schema.String).annotate({ description: "Why deletions, or the repair, were held back." }),
  plan: Schema.optionalKey(Schema.String.annotate({ description: "Id of the plan it made; absent without drift." }))
}).annotate({ identifier: "Reconciliation" })
export type Reconciliation = typeof Reconciliation.Type

export const ZoneReconciliation = Schema.Struct({
  intervalSeconds: Schema.Finite,
  repair: Schema.Boolean.annotate({ description: "Whether drift is repaired, or only reported." }),
  /** Absent until the zone was looked at since the start. */
  last: Schema.optionalKey(Reconciliation)
}).annotate({ identifier: "ZoneReconciliation" })
export type ZoneReconciliation = typeof ZoneReconciliation.Type

export const Zone = Schema.Struct({
  name: Values.Name,
  kind: Schema.Literals(["forward", "reverse"]),
  dnssec: Schema.Boolean.annotate({ description: "Whether PowerDNS signs the zone." }),
  nameservers: Schema.Array(Values.Name),
  createIfMissing: Schema.Boolean,
  policy: ZonePolicy,
  publication: ZonePublication,
  reconciliation: ZoneReconciliation
}).annotate({ identifier: "Zone" })
export type Zone = typeof Zone.Type

export const ZoneList = Schema.Struct({ items: Schema.Array(Zone) }).annotate({ identifier: "ZoneList" })
export type ZoneList = typeof ZoneList.Type

export const DnssecKey = Schema.Struct({
  id: Schema.Int.annotate({ description: "PowerDNS's number of the key." }),
  type: Schema.String.annotate({ description: "`csk`, `ksk` or `zsk`." }),
  active: Schema.Boolean,
  dnskey: Schema.String.annotate({ description: "Content of its DNSKEY record." }),
  ds: Schema.Array(Schema.String).annotate({
    description: "Contents of DS records for the parent zone, one for each digest; none for a `zsk`."
  })
}).annotate({ identifier: "DnssecKey" })
export type DnssecKey = typeof DnssecKey.Type

export const ZoneDnssec = Schema.Struct({
  zone: Values.Name,
  signed: Schema.Boolean,
  keys: Schema.Array(DnssecKey)
}).annotate({ identifier: "ZoneDnssec" })
export type ZoneDnssec = typeof ZoneDnssec.Type

/** Whose a name is. */
export const owners = ["managed", "adopted", "foreign", "ignored"] as const

export const NameRecords = Schema.Struct({
  name: Values.Name,
  owner: Schema.Literals(owners).annotate({
    description: "`adopted`: a record that people made, and that Prism has taken over."
  }),
  disabled: Schema.Boolean.annotate({ description: "Kept in PowerDNS and not answered: about to be removed." }),
  recordSets: Schema.Array(
    Schema.Struct({ type: Schema.String, ttlSeconds: Schema.Int, contents: Schema.Array(Schema.String) })
  )
}).annotate({ identifier: "NameRecords" })
export type NameRecords = typeof NameRecords.Type

export const NameRecordsPage = Schema.Struct({
  items: Schema.Array(NameRecords),
  nextCursor: Schema.optionalKey(Schema.String.annotate({ description: "Absent on the last page." }))
}).annotate({ identifier: "NameRecordsPage" })
export type NameRecordsPage = typeof NameRecordsPage.Type

export const ownerships = ["managed", "foreign", "ignored"] as const

export class Zones extends HttpApiGroup.make("zones")
  .add(
    HttpApiEndpoint.get("list", "/zones", { success: ZoneList, error: StorageUnavailableProblem })
      .annotate(Requires, { verb: "read", resource: "zones" })
      .annotateMerge(OpenApi.annotations({ summary: "The zones of the configuration" })),
    HttpApiEndpoint.get("get", "/zones/:zone", {
      params: { zone: Values.NameInput },
      success: Zone,
      error: [ZoneNotFoundProblem, StorageUnavailableProblem]
    })
      .annotate(Requires, { verb: "read", resource: "zones" })
      .annotateMerge(OpenApi.annotations({ summary: "One zone" })),
    HttpApiEndpoint.get("records", "/zones/:zone/records", {
      params: { zone: Values.NameInput },
      query: {
        ownership: Schema.optionalKey(Schema.Literals(ownerships)),
        limit: Schema.optionalKey(Page.Limit),
        cursor: Schema.optionalKey(Page.Cursor)
      },
      success: HttpApiSchema.WithHeaders(NameRecordsPage, { link: Schema.optionalKey(Schema.String) }),
      error: [ZoneNotFoundProblem, PowerDnsFailedProblem, StorageUnavailableProblem]
    })
      .annotate(Requires, { verb: "read", resource: "records" })
      .annotateMerge(
        OpenApi.annotations({
          summary: "Names of a zone with their records, by whose they are",
          description: "For names that are not Prism's the whole zone is read from PowerDNS, for each page anew."
        })
      ),
    HttpApiEndpoint.get("dnssec", "/zones/:zone/dnssec", {
      params: { zone: Values.NameInput },
      success: ZoneDnssec,
      error: [ZoneNotFoundProblem, PowerDnsFailedProblem, StorageUnavailableProblem]
    })
      .annotate(Requires, { verb: "read", resource: "zones" })
      .annotateMerge(
        OpenApi.annotations({
          summary: "The zone's DNSSEC keys",
          description: "The DS records of its keys belong into the parent zone."
        })
      )
  )
  .middleware(Authorization)
  .prefix("/v1")
  .annotateMerge(OpenApi.annotations({ title: "Zones", description: "What is in force for a zone." })) {}
