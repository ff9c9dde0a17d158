/** The state of the whole, in the HTTP API. */
import { Schema } from "effect"
import { HttpApiEndpoint, HttpApiGroup, OpenApi } from "effect/http-api"
import { Authorization, Requires } from "./Authentication.ts"
import { Guard } from "./Guards.ts"
import { Plan } from "./Plans.ts"
import { StorageUnavailableProblem } from "./Problems.ts"
import { ZonePublication } from "./Publications.ts"
import * as Values from "./Values.ts"

export const NodeStatus = Schema.Struct({
  name: Schema.String,
  role: Schema.Literals(["primary", "replica", "secondary"]),
  dns: Schema.String.annotate({ description: "Where it answers DNS." }),
  up: Schema.Boolean.annotate({ description: "It answered by DNS when it was asked last." }),
  writes: Schema.Boolean.annotate({ description: "Changes go to its API." }),
  lastAnswered: Schema.optionalKey(Values.Timestamp.annotate({ description: "Absent before the first time." })),
  unserved: Schema.Int.annotate({ description: "Applied names that it was not seen to answer with yet." }),
  oldest: Schema.optionalKey(
    Schema.Struct({
      zone: Values.Name,
      name: Values.Name,
      generation: Schema.Int,
      since: Values.Timestamp,
      answered: Schema.optionalKey(Schema.String)
    }).annotate({ description: "The name that waits longest for it, and what it answered instead." })
  )
}).annotate({ identifier: "NodeStatus" })
export type NodeStatus = typeof NodeStatus.Type

/** A server, from its start to its end. */
export const Instance = Schema.Struct({
  id: Schema.String.annotate({ description: "One for each start of a server." }),
  name: Schema.String.annotate({ description: "As its configuration says (`server.instance`)." }),
  state: Schema.Literals(["live", "draining", "left", "dead"]).annotate({
    description: "left: it ended in order; dead: others found that it had not proved for too long that it lives."
  }),
  self: Schema.Boolean.annotate({ description: "The one that answers." }),
  version: Schema.String,
  startedAt: Values.Timestamp,
  renewedAt: Schema.optionalKey(
    Values.Timestamp.annotate({
      description: "When it proved last that it lives; absent where there is one server only."
    })
  ),
  sessions: Schema.optionalKey(Schema.Int.annotate({ description: "Sessions of protocol 2 that it said it has." }))
}).annotate({ identifier: "Instance" })
export type Instance = typeof Instance.Type

export const ZoneWriter = Schema.Struct({
  ...ZonePublication.fields,
  writer: Schema.optionalKey(
    Schema.String.annotate({ description: "The instance that writes the zone; absent when none does." })
  )
}).annotate({ identifier: "ZoneWriter" })
export type ZoneWriter = typeof ZoneWriter.Type

/** What only one server does at a time, and which one does. */
export const Lease = Schema.Struct({
  name: Schema.String.annotate({ description: "`zone/NAME`: writing the zone; `job/NAME`: a job of the cluster." }),
  epoch: Schema.Int.annotate({ description: "Higher for each holder." }),
  holder: Schema.optionalKey(Schema.String.annotate({ description: "Its name; absent: nobody, for the moment." })),
  holderId: Schema.optionalKey(Schema.String),
  since: Values.Timestamp
}).annotate({ identifier: "Lease" })
export type Lease = typeof Lease.Type

/** Which of the primaries PowerDNS's changes go to. */
export const WritingNode = Schema.Struct({
  node: Schema.String,
  preferred: Schema.String.annotate({ description: "The one they go to when all is well." }),
  since: Schema.optionalKey(Values.Timestamp.annotate({ description: "Absent: since the start." })),
  heldUntil: Schema.optionalKey(
    Values.Timestamp.annotate({
      description: "Changes wait until then, for the last one's requests to be surely over."
    })
  )
}).annotate({ identifier: "WritingNode" })
export type WritingNode = typeof WritingNode.Type

/** What is not as it should be at a node, while publishing goes on. */
export const NodeProblem = Schema.Struct({
  node: Schema.String,
  zone: Values.Name,
  reason: Schema.String
}).annotate({ identifier: "NodeProblem" })

/** Open plans that are shown. */
export const plansShown = 20

export const Status = Schema.Struct({
  instances: Schema.Array(Instance).annotate({
    description: "Those that are there, and those that ended within the last hour; the oldest first."
  }),
  leases: Schema.Array(Lease).annotate({ description: "Of several servers on one database; else empty." }),
  zones: Schema.Array(ZoneWriter),
  nodes: Schema.Array(NodeStatus),
  writing: WritingNode,
  problems: Schema.Array(NodeProblem),
  plans: Schema.Array(Plan).annotate({
    description: `Open plans: what waits for a person. The newest first, ${plansShown} at the most.`
  }),
  guards: Schema.Array(Guard)
}).annotate({ identifier: "Status" })
export type Status = typeof Status.Type

export class StatusGroup extends HttpApiGroup.make("status")
  .add(
    HttpApiEndpoint.get("get", "/status", { success: Status, error: StorageUnavailableProblem })
      .annotate(Requires, { verb: "read", resource: "status" })
      .annotateMerge(
        OpenApi.annotations({
          summary: "How everything is",
          description:
            "Which servers there are, who writes each zone and what waits there, each PowerDNS node, open plans, and the guards that have tripped."
        })
      )
  )
  .middleware(Authorization)
  .prefix("/v1")
  .annotateMerge(OpenApi.annotations({ title: "Status", description: "The state of the whole." })) {}
