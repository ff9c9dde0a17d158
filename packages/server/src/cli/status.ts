/** `prism-dns status`: how everything is, at a glance. */
import type * as Contract from "@prism-dns/core/api/Status"
import { Console, Effect } from "effect"
import { Command } from "effect/cli"
import * as Connection from "./Connection.ts"
import * as Output from "./Output.ts"
import { summary } from "./plan.ts"

const zones: ReadonlyArray<Output.Column<Contract.ZoneWriter>> = [
  { head: "ZONE", cell: ({ zone }) => zone },
  { head: "WRITER", cell: ({ writer }) => writer },
  { head: "READY", cell: ({ ready }) => (ready ? "yes" : "no") },
  { head: "PENDING", cell: ({ pending }) => pending },
  { head: "PARKED", cell: ({ parked }) => parked },
  { head: "OLDEST", cell: ({ oldest }) => oldest },
  { head: "ERROR", cell: ({ error }) => error }
]

const nodes: ReadonlyArray<Output.Column<Contract.NodeStatus>> = [
  { head: "NODE", cell: ({ name }) => name },
  { head: "ROLE", cell: ({ role, writes }) => (writes ? `${role}, writes` : role) },
  { head: "DNS", cell: ({ dns }) => dns },
  { head: "UP", cell: ({ up }) => (up ? "yes" : "no") },
  { head: "UNSERVED", cell: ({ unserved }) => unserved },
  {
    head: "WAITS FOR",
    cell: ({ oldest }) => (oldest === undefined ? undefined : `${oldest.name} since ${oldest.since}`)
  },
  { head: "ANSWERED", cell: ({ oldest }) => oldest?.answered }
]

const instances: ReadonlyArray<Output.Column<Contract.Instance>> = [
  { head: "INSTANCE", cell: ({ name, self }) => (self ? `${name} (answers)` : name) },
  { head: "STATE", cell: ({ state }) => state },
  { head: "VERSION", cell: ({ version }) => version },
  { head: "SINCE", cell: ({ startedAt }) => startedAt },
  { head: "SEEN", cell: ({ renewedAt }) => renewedAt },
  { head: "SESSIONS", cell: ({ sessions }) => sessions },
  { head: "ID", cell: ({ id }) => id }
]

const jobs: ReadonlyArray<Output.Column<Contract.Lease>> = [
  { head: "JOB", cell: ({ name }) => name.slice("job/".length) },
  { head: "DONE BY", cell: ({ holder }) => holder },
  { head: "SINCE", cell: ({ since }) => since }
]

/** Zones stand in a table of their own. */
const jobsOf = ({ leases }: Contract.Status) => leases.filter(({ name }) => name.startsWith("job/"))

const people = (status: Contract.Status): string =>
  [
    ...(status.instances.length === 1
      ? status.instances.map(({ name, startedAt, version }) => `${name}: version ${version}, since ${startedAt}`)
      : [Output.toTable(instances, status.instances)]),
    ...(jobsOf(status).length === 0 ? [] : [Output.toTable(jobs, jobsOf(status))]),
    Output.toTable(zones, status.zones),
    Output.toTable(nodes, status.nodes),
    ...(status.writing.node === status.writing.preferred
      ? []
      : [
          `Changes go to ${status.writing.node}${status.writing.since === undefined ? "" : ` since ${status.writing.since}`}; ` +
            `${status.writing.preferred} gets its place back once it has been well for a while.`
        ]),
    ...(status.problems.length === 0
      ? []
      : [status.problems.map(({ node, reason, zone }) => Output.harmless(`${node}, ${zone}: ${reason}`)).join("\n")]),
    ...(status.plans.length === 0
      ? []
      : [
          status.plans
            .map((plan) => `${plan.zone} ${summary(plan)}: waits for a person, prism-dns plan show ${plan.id}`)
            .join("\n")
        ]),
    status.guards.length === 0
      ? "No guard has tripped."
      : status.guards.map(({ detail, kind }) => `${kind}: ${Output.harmless(detail)}`).join("\n")
  ].join("\n\n")

/** Each line says first what it is about. */
const programs = (status: Contract.Status): string =>
  [
    ...status.instances.map(
      ({ id, name, startedAt, state, version }) => `instance\t${name}\t${version}\t${startedAt}\t${state}\t${id}`
    ),
    ...jobsOf(status).map((job) => `job\t${Output.toLines(jobs, [job])}`),
    ...status.zones.map((zone) => `zone\t${Output.toLines(zones, [zone])}`),
    ...status.nodes.map((node) => `node\t${Output.toLines(nodes, [node])}`),
    ...status.problems.map(({ node, reason, zone }) => `problem\t${node}\t${zone}\t${Output.harmless(reason)}`),
    ...status.plans.map((plan) => `plan\t${plan.id}\t${plan.zone}\t${plan.kind}\t${summary(plan)}`),
    ...status.guards.map(({ detail, kind }) => `guard\t${kind}\t${Output.harmless(detail)}`)
  ].join("\n")

export const status = Command.make(
  "status",
  Connection.flags,
  Effect.fn(function* (input) {
    yield* Connection.withClient(input, (client) =>
      Effect.flatMap(client.status.get(), (answer) =>
        input.json ? Output.json(answer) : Console.log(Output.isTerminal() ? people(answer) : programs(answer))
      )
    )
  })
).pipe(
  Command.withDescription("How everything is: servers, zones and their writers, PowerDNS nodes, open plans, guards.")
)
