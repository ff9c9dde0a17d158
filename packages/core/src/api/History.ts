/** What hosts and records were, and where they come from, in the HTTP API. */
import { Schema } from "effect"
import { HttpApiEndpoint, HttpApiGroup, HttpApiSchema, OpenApi } from "effect/http-api"
import { ackLevels, hostStates } from "../domain/Host.ts"
import { Authorization, Requires } from "./Authentication.ts"
import { HostVersion } from "./Hosts.ts"
import * as Page from "./Page.ts"
import {
  HostNotFoundProblem,
  PowerDnsFailedProblem,
  StorageUnavailableProblem,
  ZoneNotFoundProblem
} from "./Problems.ts"
import { Plan } from "./Plans.ts"
import * as Values from "./Values.ts"

const readsHosts = { verb: "read", resource: "hosts" } as const
const readsRecords = { verb: "read", resource: "records" } as const

/** Who made a version, as the audit has it. */
export const Change = Schema.Struct({
  actor: Schema.String,
  peer: Schema.optionalKey(
    Schema.String.annotate({ description: "The address it spoke from; for those who may read the audit." })
  ),
  reason: Schema.optionalKey(Schema.String),
  cause: Schema.optionalKey(Schema.String),
  request: Schema.optionalKey(Schema.String.annotate({ description: "The id of the API request." })),
  position: Schema.optionalKey(Schema.Int.annotate({ description: "In the audit log. Absent: not sealed yet." }))
}).annotate({ identifier: "Change" })
export type Change = typeof Change.Type

export const ChangedVersion = Schema.Struct({
  ...HostVersion.fields,
  change: Schema.optionalKey(Change.annotate({ description: "Absent where retention has taken its audit entry." }))
}).annotate({ identifier: "ChangedVersion" })
export type ChangedVersion = typeof ChangedVersion.Type

export const HostHistoryPage = Schema.Struct({
  items: Schema.Array(ChangedVersion),
  nextCursor: Schema.optionalKey(Schema.String.annotate({ description: "Absent on the last page." }))
}).annotate({ identifier: "HostHistoryPage" })
export type HostHistoryPage = typeof HostHistoryPage.Type

export const RecordSet = Schema.Struct({
  type: Schema.String,
  ttlSeconds: Schema.Int,
  contents: Schema.Array(Schema.String)
})

export const steps = ["who", "message", "audit", "marked", "applied", "served"] as const

export const ExplainStep = Schema.Struct({
  step: Schema.Literals(steps).annotate({
    description:
      "`who` said it, the `message`, the `audit` entry that keeps it, `marked` to be published, `applied`: PowerDNS took it, `served`: a name server was seen to answer so."
  }),
  at: Schema.optionalKey(Values.Timestamp),
  detail: Schema.String.annotate({ description: "A sentence." }),
  actor: Schema.optionalKey(Schema.String),
  peer: Schema.optionalKey(Schema.String),
  request: Schema.optionalKey(Schema.String),
  cause: Schema.optionalKey(Schema.String),
  generation: Schema.optionalKey(Schema.Int),
  position: Schema.optionalKey(Schema.Int.annotate({ description: "In the audit log." })),
  node: Schema.optionalKey(Schema.String.annotate({ description: "The name server." }))
}).annotate({ identifier: "ExplainStep" })
export type ExplainStep = typeof ExplainStep.Type

export const obstacleKinds = [
  "waiting",
  "parked",
  "held",
  "writer",
  "doubt",
  "node",
  "guard",
  "zone",
  "foreign"
] as const

export const Obstacle = Schema.Struct({
  kind: Schema.Literals(obstacleKinds).annotate({
    description:
      "`waiting`: to be published shortly. `parked`: refused by PowerDNS. `held`: a plan waits for a person. `writer`: the zone cannot be written. " +
      "`doubt`: a write that had no answer may still come over it; it is written once more before it is said to be served. `node`: a name server has not answered so yet. `guard`: a guard has tripped. `zone`: managed no more. `foreign`: someone else's records stand there."
  }),
  detail: Schema.String,
  since: Schema.optionalKey(Values.Timestamp),
  plan: Schema.optionalKey(Schema.String),
  node: Schema.optionalKey(Schema.String)
}).annotate({ identifier: "Obstacle" })
export type Obstacle = typeof Obstacle.Type

const chainFields = {
  zone: Values.Name,
  name: Values.Name,
  desired: Schema.Array(RecordSet).annotate({ description: "What the registry wants there." }),
  published: Schema.optionalKey(
    Schema.Array(RecordSet).annotate({ description: "What PowerDNS was last seen to take; absent: nothing of ours." })
  ),
  level: Schema.Literals(ackLevels),
  steps: Schema.Array(ExplainStep),
  obstacles: Schema.Array(Obstacle)
}

export const NameChain = Schema.Struct(chainFields).annotate({ identifier: "NameChain" })
export type NameChain = typeof NameChain.Type

export const HostExplanation = Schema.Struct({
  host: HostVersion.annotate({ description: "Its newest version; one `released` is no more." }),
  summary: Schema.String,
  steps: Schema.Array(ExplainStep),
  names: Schema.Array(NameChain).annotate({ description: "Its name, and those of its addresses." })
}).annotate({ identifier: "HostExplanation" })
export type HostExplanation = typeof HostExplanation.Type

export const Claim = Schema.Struct({
  fqdn: Values.Name,
  state: Schema.Literals(hostStates),
  since: Values.Timestamp,
  withdrawn: Schema.Boolean,
  wins: Schema.Boolean,
  reason: Schema.String
}).annotate({ identifier: "Claim" })

export const recordOrigins = [
  "host",
  "managed",
  "adopted",
  "placeholder",
  "foreign",
  "ignored",
  "going",
  "none"
] as const

export const RecordExplanation = Schema.Struct({
  ...chainFields,
  type: Schema.String,
  origin: Schema.Literals(recordOrigins).annotate({
    description:
      "Whose it is: a `host`'s, people's (`managed`, `adopted`), a `placeholder` for what stands below, someone else's (`foreign`), left alone (`ignored`), " +
      "nobody's any more and not gone yet (`going`), or there is none and none is to be (`none`)."
  }),
  owner: Schema.optionalKey(Schema.String.annotate({ description: "The host's name, or who manages the record." })),
  summary: Schema.String,
  claims: Schema.Array(Claim).annotate({ description: "Hosts with a say in it, the one that has it first." })
}).annotate({ identifier: "RecordExplanation" })
export type RecordExplanation = typeof RecordExplanation.Type

/** A record's type, in any case. */
const RecordTypeInput = Schema.String.check(Schema.isPattern(/^[A-Za-z0-9]{1,16}$/))

export const RecordVersion = Schema.Struct({
  ttlSeconds: Schema.Int,
  contents: Schema.Array(Schema.String),
  owner: Schema.String,
  origin: Schema.Literals(["managed", "adopted"]),
  generation: Schema.Int,
  validFrom: Values.Timestamp
}).annotate({ identifier: "RecordVersion" })
export type RecordVersion = typeof RecordVersion.Type

const differenceFields = {
  zone: Values.Name,
  name: Values.Name,
  change: Schema.Literals(["created", "changed", "gone"]),
  fields: Schema.Array(Schema.String).annotate({ description: "What is another, of one that was changed." })
}

export const Difference = Schema.Union([
  Schema.Struct({
    kind: Schema.tag("host"),
    ...differenceFields,
    before: Schema.optionalKey(HostVersion),
    after: Schema.optionalKey(HostVersion)
  }),
  Schema.Struct({
    kind: Schema.tag("record"),
    ...differenceFields,
    type: Schema.String,
    before: Schema.optionalKey(RecordVersion),
    after: Schema.optionalKey(RecordVersion)
  })
]).annotate({ identifier: "Difference" })
export type Difference = typeof Difference.Type

export const DifferencePage = Schema.Struct({
  items: Schema.Array(Difference),
  nextCursor: Schema.optionalKey(
    Schema.String.annotate({ description: "Absent on the last page. A page may be short, or empty, and have one." })
  )
}).annotate({ identifier: "DifferencePage" })
export type DifferencePage = typeof DifferencePage.Type

export const differenceKinds = ["hosts", "records"] as const

const explainQuery = { format: Schema.optionalKey(Schema.Literals(["json", "text"])) }
const text = Schema.String.pipe(HttpApiSchema.asText({ contentType: "text/plain" }))
const link = { link: Schema.optionalKey(Schema.String) }

export const RestoreRequest = Schema.Struct({
  at: Values.TimestampInput.pipe(Schema.annotate({ description: "What was at this time is to be again." })),
  reason: Values.Reason
}).annotate({ identifier: "RestoreRequest" })
export type RestoreRequest = typeof RestoreRequest.Type

/** The plan; one of a dry run is not kept. */
export const RestorePlan = Schema.Struct({
  ...Plan.fields,
  dryRun: Schema.optionalKey(Schema.Literal(true))
}).annotate({ identifier: "RestorePlan" })
export type RestorePlan = typeof RestorePlan.Type

const restored = HttpApiSchema.WithHeaders(RestorePlan.pipe(HttpApiSchema.status(201)), {
  location: Schema.optionalKey(Schema.String)
})

const restoreRules =
  "Changes nothing before the plan is applied. A host that is not online gets back its addresses, labels, TTL and owner, and one that was released is there " +
  "again, offline, so that its name is held and its records answer until it comes. One that is online and says otherwise is left alone, and so is one that " +
  "was not there yet: the plan lists them."

export class History extends HttpApiGroup.make("history")
  .add(
    HttpApiEndpoint.get("hostHistory", "/hosts/:host/history", {
      params: { host: Schema.String },
      query: { limit: Schema.optionalKey(Page.Limit), cursor: Schema.optionalKey(Page.PlaceCursor) },
      success: HttpApiSchema.WithHeaders(HostHistoryPage, link),
      error: [HostNotFoundProblem, StorageUnavailableProblem]
    })
      .annotate(Requires, readsHosts)
      .annotateMerge(
        OpenApi.annotations({
          summary: "What a host was",
          description:
            "Every version, the newest first, with who made it. By a name: of all hosts that had it, also when none has it now."
        })
      ),
    HttpApiEndpoint.get("explainHost", "/hosts/:host/explain", {
      params: { host: Schema.String },
      query: explainQuery,
      success: [HostExplanation, text],
      error: [HostNotFoundProblem, StorageUnavailableProblem]
    })
      .annotate(Requires, readsHosts)
      .annotateMerge(
        OpenApi.annotations({
          summary: "Why a host is as it is",
          description:
            "From who said what to what each name server answers, with times, and what stands in the way. As JSON, or in words by `format`."
        })
      ),
    HttpApiEndpoint.get("explainRecord", "/zones/:zone/records/:name/:type/explain", {
      params: { zone: Values.NameInput, name: Values.NameInput, type: RecordTypeInput },
      query: explainQuery,
      success: [RecordExplanation, text],
      error: [ZoneNotFoundProblem, PowerDnsFailedProblem, StorageUnavailableProblem]
    })
      .annotate(Requires, readsRecords)
      .annotateMerge(
        OpenApi.annotations({
          summary: "Why a record is there, or is not",
          description: "Of a record of hosts, of people, or of someone else. As JSON, or in words by `format`."
        })
      )
  )
  .add(
    HttpApiEndpoint.get("diff", "/diff", {
      query: {
        from: Values.TimestampInput,
        to: Schema.optionalKey(Values.TimestampInput),
        zone: Schema.optionalKey(Values.NameInput),
        q: Schema.optionalKey(Schema.String.check(Schema.isBetweenLength(1, 254))),
        about: Schema.optionalKey(Schema.Literals(differenceKinds)),
        limit: Schema.optionalKey(Page.Limit),
        cursor: Schema.optionalKey(Page.PlaceCursor)
      },
      success: HttpApiSchema.WithHeaders(DifferencePage, link),
      error: StorageUnavailableProblem
    })
      .annotate(Requires, readsHosts)
      .annotateMerge(
        OpenApi.annotations({
          summary: "What differs between two times",
          description:
            "Hosts, then the records that people manage, each by name: created, changed, or gone. Only both ends are compared. A request looks at 2,000 " +
            "names at the most; its cursor goes on."
        })
      )
  )
  .add(
    HttpApiEndpoint.post("restoreHost", "/hosts/:host/restore", {
      params: { host: Schema.String },
      query: { dryRun: Schema.optionalKey(Values.DryRun) },
      payload: RestoreRequest,
      success: restored,
      error: [HostNotFoundProblem, ZoneNotFoundProblem, StorageUnavailableProblem]
    })
      .annotate(Requires, { verb: "write", resource: "plans" })
      .annotateMerge(
        OpenApi.annotations({
          summary: "A plan that makes a name what it was",
          description: `Its host, and the records that people manage there. ${restoreRules}`
        })
      ),
    HttpApiEndpoint.post("restoreZone", "/zones/:zone/restore", {
      params: { zone: Values.NameInput },
      query: { dryRun: Schema.optionalKey(Values.DryRun) },
      payload: RestoreRequest,
      success: restored,
      error: [ZoneNotFoundProblem, StorageUnavailableProblem]
    })
      .annotate(Requires, { verb: "write", resource: "plans" })
      .annotateMerge(
        OpenApi.annotations({
          summary: "A plan that makes a zone what it was",
          description: `Its hosts, and the records that people manage. ${restoreRules}`
        })
      )
  )
  .middleware(Authorization)
  .prefix("/v1")
  .annotateMerge(
    OpenApi.annotations({ title: "History", description: "What hosts and records were, and where they come from." })
  ) {}
