/** Zones in the HTTP API: what is in force for them, what was, and how they are doing. */
import { Schema } from "effect"
import { HttpApiEndpoint, HttpApiGroup, HttpApiSchema, OpenApi } from "effect/http-api"
import { conflictPolicies } from "../domain/Zone.ts"
import { Authorization, Requires } from "./Authentication.ts"
import * as Page from "./Page.ts"
import {
  ChangedField,
  PowerDnsFailedProblem,
  PreconditionFailedProblem,
  PreconditionRequiredProblem,
  StorageUnavailableProblem,
  TooManyZonesProblem,
  ZoneConfiguredProblem,
  ZoneExistsProblem,
  ZoneInUseProblem,
  ZoneNotFoundProblem,
  ZoneOverlapsProblem
} from "./Problems.ts"
import { ZonePublication } from "./Publications.ts"
import * as Values from "./Values.ts"
import { ZonePatch, ZoneRequest } from "./ZoneSettings.ts"

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
  last: Schema.optionalKey(
    Reconciliation.annotate({
      description:
        "As known to the server that answers: absent where it has not compared the zone since its start. Of several servers the zone's writer compares it."
    })
  )
}).annotate({ identifier: "ZoneReconciliation" })
export type ZoneReconciliation = typeof ZoneReconciliation.Type

const zoneFields = {
  name: Values.Name,
  kind: Schema.Literals(["forward", "reverse"]),
  generation: Schema.Int.annotate({ description: "Of its settings: rises with each change of them." }),
  origin: Schema.Literals(["configuration", "api"]).annotate({
    description: "Where it is said that there is the zone."
  }),
  overridden: Schema.Array(Schema.String).annotate({
    description: "JSON Pointers of what the API has set in place of the configuration's; for zones of the API none."
  }),
  dnssec: Schema.Boolean.annotate({ description: "Whether PowerDNS signs the zone." }),
  nameservers: Schema.Array(Values.Name),
  createIfMissing: Schema.Boolean,
  policy: ZonePolicy,
  publication: Schema.optionalKey(ZonePublication.annotate({ description: "Absent from a zone as of a time." })),
  reconciliation: ZoneReconciliation,
  validFrom: Schema.optionalKey(
    Values.Timestamp.annotate({ description: "Of a zone as of a time: since when it was so." })
  ),
  validTo: Schema.optionalKey(
    Values.Timestamp.annotate({ description: "Of a zone as of a time: until when. Absent: it is so now." })
  )
}

export const Zone = Schema.Struct(zoneFields).annotate({ identifier: "Zone" })
export type Zone = typeof Zone.Type

/** What became of a zone, or would. */
export const ZoneChanged = Schema.Struct({
  ...zoneFields,
  namesMarked: Schema.Int.annotate({ description: "About how many names are looked at again for it." }),
  ...Values.dryRunMark
}).annotate({ identifier: "ZoneChanged" })
export type ZoneChanged = typeof ZoneChanged.Type

export const ZoneRemoved = Schema.Struct({
  name: Values.Name,
  powerdns: Schema.Literal("kept").annotate({
    description: "The zone stays in PowerDNS as it is; Prism writes it no more."
  }),
  ...Values.dryRunMark
}).annotate({ identifier: "ZoneRemoved" })
export type ZoneRemoved = typeof ZoneRemoved.Type

const nextCursor = {
  nextCursor: Schema.optionalKey(Schema.String.annotate({ description: "Absent on the last page." }))
}

export const ZoneList = Schema.Struct({ items: Schema.Array(Zone), ...nextCursor }).annotate({
  identifier: "ZoneList"
})
export type ZoneList = typeof ZoneList.Type

/** What a zone was from one moment to another. */
export const ZoneVersion = Schema.Struct({
  event: Schema.Literals(["created", "changed", "deleted"]),
  by: Schema.String.annotate({ description: "Who made it so; `configuration`: a start with another configuration." }),
  generation: Schema.Int,
  validFrom: Values.Timestamp,
  validTo: Schema.optionalKey(Values.Timestamp.annotate({ description: "Absent: it is in force." })),
  changes: Schema.Array(ChangedField).annotate({
    description: "What differs from the version before, where it is known."
  }),
  origin: zoneFields.origin,
  overridden: zoneFields.overridden,
  dnssec: Schema.Boolean,
  nameservers: Schema.Array(Values.Name),
  createIfMissing: Schema.Boolean,
  policy: ZonePolicy,
  reconciliation: Schema.Struct({ intervalSeconds: Schema.Finite, repair: Schema.Boolean })
}).annotate({ identifier: "ZoneVersion" })
export type ZoneVersion = typeof ZoneVersion.Type

export const ZoneHistory = Schema.Struct({ items: Schema.Array(ZoneVersion), ...nextCursor }).annotate({
  identifier: "ZoneHistory"
})
export type ZoneHistory = typeof ZoneHistory.Type

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
    HttpApiEndpoint.get("list", "/zones", {
      query: {
        at: Schema.optionalKey(Values.TimestampInput),
        limit: Schema.optionalKey(Page.Limit),
        cursor: Schema.optionalKey(Page.Cursor)
      },
      success: HttpApiSchema.WithHeaders(ZoneList, { link: Schema.optionalKey(Schema.String) }),
      error: StorageUnavailableProblem
    })
      .annotate(Requires, { verb: "read", resource: "zones" })
      .annotateMerge(
        OpenApi.annotations({
          summary: "Zones, by name",
          description: "Those of the configuration and those of the API, now or as they were at a time."
        })
      ),
    HttpApiEndpoint.post("create", "/zones", {
      query: { dryRun: Schema.optionalKey(Values.DryRun) },
      payload: ZoneRequest,
      success: HttpApiSchema.WithHeaders(ZoneChanged.pipe(HttpApiSchema.status(201)), {
        location: Schema.String,
        ...Values.etag
      }),
      error: [ZoneExistsProblem, ZoneOverlapsProblem, TooManyZonesProblem, StorageUnavailableProblem]
    })
      .annotate(Requires, { verb: "write", resource: "zones" })
      .annotateMerge(
        OpenApi.annotations({
          summary: "Makes a zone",
          description:
            "It is in force with the answer, takes registrations, and is made in PowerDNS if it is not there. A reverse zone gets the pointers of hosts that are there already."
        })
      ),
    HttpApiEndpoint.get("get", "/zones/:zone", {
      params: { zone: Values.NameInput },
      query: { at: Schema.optionalKey(Values.TimestampInput) },
      success: HttpApiSchema.WithHeaders(Zone, Values.etag),
      error: [ZoneNotFoundProblem, StorageUnavailableProblem]
    })
      .annotate(Requires, { verb: "read", resource: "zones" })
      .annotateMerge(
        OpenApi.annotations({
          summary: "One zone, now or as it was at a time",
          description: "As of a time it is what was set for it then, whether or not it is still managed."
        })
      ),
    HttpApiEndpoint.patch("change", "/zones/:zone", {
      params: { zone: Values.NameInput },
      query: { dryRun: Schema.optionalKey(Values.DryRun) },
      headers: Values.ifMatch,
      payload: ZonePatch,
      success: HttpApiSchema.WithHeaders(ZoneChanged, Values.etag),
      error: [ZoneNotFoundProblem, PreconditionFailedProblem, PreconditionRequiredProblem, StorageUnavailableProblem]
    })
      .annotate(Requires, { verb: "write", resource: "zones" })
      .annotateMerge(
        OpenApi.annotations({
          summary: "Changes what is set for a zone",
          description:
            "What is set here lies over the configuration until `null` takes it back. In force with the answer. Who comes with an `ETag` of before is told what changed since, by whom and when."
        })
      ),
    HttpApiEndpoint.delete("remove", "/zones/:zone", {
      params: { zone: Values.NameInput },
      query: { dryRun: Schema.optionalKey(Values.DryRun), reason: Schema.optionalKey(Values.Reason) },
      headers: Values.ifMatch,
      success: ZoneRemoved,
      error: [
        ZoneNotFoundProblem,
        ZoneConfiguredProblem,
        ZoneInUseProblem,
        PreconditionFailedProblem,
        PreconditionRequiredProblem,
        StorageUnavailableProblem
      ]
    })
      .annotate(Requires, { verb: "delete", resource: "zones" })
      .annotateMerge(
        OpenApi.annotations({
          summary: "Manages a zone of the API no more",
          description:
            "Refused while hosts or managed records are in it, or tokens, identities and roles name it. In PowerDNS it stays as it is."
        })
      ),
    HttpApiEndpoint.get("history", "/zones/:zone/history", {
      params: { zone: Values.NameInput },
      query: { limit: Schema.optionalKey(Page.Limit), cursor: Schema.optionalKey(Page.NumberCursor) },
      success: HttpApiSchema.WithHeaders(ZoneHistory, { link: Schema.optionalKey(Schema.String) }),
      error: [ZoneNotFoundProblem, StorageUnavailableProblem]
    })
      .annotate(Requires, { verb: "read", resource: "zones" })
      .annotateMerge(
        OpenApi.annotations({
          summary: "What was set for a zone, the newest first",
          description: "Of zones that are managed no more, too."
        })
      ),
    HttpApiEndpoint.get("records", "/zones/:zone/records", {
      params: { zone: Values.NameInput },
      query: {
        ownership: Schema.optionalKey(Schema.Literals(ownerships)),
        at: Schema.optionalKey(Values.TimestampInput),
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
          description:
            "For names that are not Prism's the whole zone is read from PowerDNS, for each page anew. With `at`: what hosts and people should have had then, " +
            "computed from their histories; `ownership` is then of no matter. Of a reverse zone the pointers of hosts, in the order of their addresses. What " +
            "PowerDNS held, placeholders and records of others are not known. A page may be short, or empty, and have a `nextCursor`."
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
