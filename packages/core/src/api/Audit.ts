/**
 * The audit in the HTTP API: entries, whether the log is as it was sealed, and
 * the log as lines.
 */
import { Schema } from "effect"
import { HttpApiEndpoint, HttpApiGroup, HttpApiSchema, OpenApi } from "effect/http-api"
import { faults } from "../audit/Verification.ts"
import { Authorization, Requires } from "./Authentication.ts"
import { KindPattern, Position } from "./Events.ts"
import * as Page from "./Page.ts"
import { EntryNotFoundProblem, StorageUnavailableProblem } from "./Problems.ts"
import * as Values from "./Values.ts"

export const Entry = Schema.Struct({
  position: Schema.Int.annotate({ description: "1, 2, 3 without gaps: the id of the event, too." }),
  sequence: Schema.Int.annotate({
    description: "As it was written; rises along the entries of one subject, and has gaps."
  }),
  at: Values.Timestamp,
  actor: Schema.String.annotate({ description: "Who did it; `prism`: what follows from time or from what was found." }),
  peer: Schema.optionalKey(Schema.String.annotate({ description: "The address it spoke from." })),
  action: Schema.String.annotate({ description: "Such as `host.created`; more may come." }),
  zone: Schema.optionalKey(Values.Name),
  subject: Schema.String.annotate({
    description: "What it was done to: a full name, a zone's name, a plan's id, a token's name."
  }),
  generation: Schema.Int,
  before: Schema.optionalKey(Schema.Unknown),
  after: Schema.optionalKey(Schema.Unknown),
  reason: Schema.optionalKey(Schema.String),
  cause: Schema.optionalKey(
    Schema.String.annotate({
      description: "What led to it: `plan:` and its id, `generation:` and that of the entry that caused it, or a word."
    })
  ),
  request: Schema.optionalKey(Schema.String.annotate({ description: "The id of the API request it came by." })),
  result: Schema.String.annotate({ description: "`done`, or a word for what became of it." }),
  hash: Schema.String.annotate({ description: "Of this entry and the hash before it; see docs/reference/audit.md." })
}).annotate({ identifier: "AuditEntry" })
export type Entry = typeof Entry.Type

export const EntryPage = Schema.Struct({
  items: Schema.Array(Entry),
  nextCursor: Schema.optionalKey(
    Schema.String.annotate({ description: "Absent on the last page. A page may be short." })
  )
}).annotate({ identifier: "AuditPage" })

export const Head = Schema.Struct({ position: Schema.Int, hash: Schema.String }).annotate({ identifier: "AuditHead" })

export const Finding = Schema.Struct({
  what: Schema.Literals(faults),
  position: Schema.Int,
  to: Schema.optionalKey(Schema.Int.annotate({ description: "The last position; of a swap the other one." })),
  detail: Schema.String
}).annotate({ identifier: "AuditFinding" })

export const Verified = Schema.Struct({
  ok: Schema.Boolean.annotate({ description: "Nothing is wrong from `from` to `to`." }),
  from: Schema.Int,
  to: Schema.Int,
  entries: Schema.Int.annotate({ description: "Entries that were looked at." }),
  next: Schema.optionalKey(Schema.Int.annotate({ description: "Where to go on (`from`); absent at the end." })),
  newest: Schema.Int.annotate({ description: "The position of the newest entry." }),
  last: Schema.optionalKey(
    Head.annotate({
      description: "The last entry that was looked at: note it elsewhere, and compare it later (`anchor`)."
    })
  ),
  findings: Schema.Array(Finding),
  more: Schema.Boolean.annotate({ description: "More is wrong than is named." })
}).annotate({ identifier: "AuditVerified" })
export type Verified = typeof Verified.Type

export const Anchor = Schema.String.check(
  Schema.makeFilter((text: string) =>
    /^\d{1,15}:[\w-]{43}$/.test(text) ? undefined : "is to be a position and a hash, as 1207:kT0…, noted earlier"
  )
)

/** Where a part of the log begins or ends. */
const place = (description: string) =>
  Schema.optionalKey(Schema.Int.check(Schema.isBetween({ minimum: 1, maximum: 1e15 })).annotate({ description }))

const link = { link: Schema.optionalKey(Schema.String) }

export class Audit extends HttpApiGroup.make("audit")
  .add(
    HttpApiEndpoint.get("list", "/audit", {
      query: {
        zone: Schema.optionalKey(Values.NameInput),
        actor: Schema.optionalKey(Schema.String),
        action: Schema.optionalKey(KindPattern),
        subject: Schema.optionalKey(Schema.String),
        request: Schema.optionalKey(Schema.String),
        result: Schema.optionalKey(Schema.String),
        since: Schema.optionalKey(Values.TimestampInput),
        until: Schema.optionalKey(Values.TimestampInput),
        limit: Schema.optionalKey(Page.Limit),
        cursor: Schema.optionalKey(Page.NumberCursor)
      },
      success: HttpApiSchema.WithHeaders(EntryPage, link),
      error: StorageUnavailableProblem
    })
      .annotate(Requires, { verb: "read", resource: "audit" })
      .annotateMerge(
        OpenApi.annotations({
          summary: "Who did what, when and why, the newest first",
          description:
            "`action` is one, such as `token.issued`, or all of a kind: `host.*`. Work is bounded for each page: one may be short, or empty, and still have a next one."
        })
      ),
    HttpApiEndpoint.get("verify", "/audit/verify", {
      query: {
        from: place("Default: the oldest entry."),
        to: place("Default: the newest entry."),
        anchor: Schema.optionalKey(
          Anchor.annotate({ description: "A head that was noted earlier: its position, a colon, and its hash." })
        )
      },
      success: Verified,
      error: StorageUnavailableProblem
    })
      .annotate(Requires, { verb: "read", resource: "audit" })
      .annotateMerge(
        OpenApi.annotations({
          summary: "Whether the log is as it was sealed",
          description:
            "A part of it at a time: go on with `from` at `next` until there is none. Each place at which something is wrong is named, with what it is. For callers who may read all of the audit."
        })
      ),
    HttpApiEndpoint.get("export", "/audit/export", {
      query: { from: place("Default: the oldest entry."), to: place("Default: the newest entry.") },
      success: Schema.String.pipe(HttpApiSchema.asText({ contentType: "application/jsonl" })),
      error: StorageUnavailableProblem
    })
      .annotate(Requires, { verb: "read", resource: "audit" })
      .annotateMerge(
        OpenApi.annotations({
          summary: "The log as lines of JSON, with hashes and seals",
          description:
            "Can be verified without the server: `prism-dns audit verify --file`, or as docs/reference/audit.md says. For callers who may read all of the audit."
        })
      ),
    HttpApiEndpoint.get("get", "/audit/:position", {
      params: { position: Position },
      success: Entry,
      error: [EntryNotFoundProblem, StorageUnavailableProblem]
    })
      .annotate(Requires, { verb: "read", resource: "audit" })
      .annotateMerge(OpenApi.annotations({ summary: "One entry" }))
  )
  .middleware(Authorization)
  .prefix("/v1")
  .annotateMerge(OpenApi.annotations({ title: "Audit", description: "Every change, sealed by a chain of hashes." })) {}
