/** `prism-dns hosts`: the registry of hosts. */
import type { Client } from "@prism-dns/core/api/Client"
import type * as Contract from "@prism-dns/core/api/Hosts"
import { hostStates } from "@prism-dns/core/domain/Host"
import * as IpAddress from "@prism-dns/core/domain/IpAddress"
import { Effect, Option, Result } from "effect"
import { Command, Flag } from "effect/cli"
import * as Connection from "./Connection.ts"
import * as Failure from "./Failure.ts"
import { explainHost, hostHistory, restoreHost } from "./history.ts"
import * as HostChanges from "./hostChanges.ts"
import * as Input from "./Input.ts"
import * as Output from "./Output.ts"
import * as Pages from "./Pages.ts"
import { watch } from "./watch.ts"

const columns: ReadonlyArray<Output.Column<Contract.HostView>> = [
  { head: "NAME", cell: ({ fqdn }) => fqdn },
  { head: "ADDRESSES", cell: ({ addresses }) => addresses.join(" ") },
  { head: "STATE", cell: ({ state }) => state },
  { head: "DNS", cell: ({ publication }) => publication?.level },
  { head: "LAST SEEN", cell: ({ lastSeen }) => lastSeen },
  { head: "OWNER", cell: ({ owner }) => owner },
  { head: "ERROR", cell: ({ publication }) => publication?.error }
]

/** As of a time: how far a name had come is not kept, and neither is when its host was seen. */
const columnsThen: ReadonlyArray<Output.Column<Contract.HostView>> = [
  ...columns.slice(0, 3),
  { head: "SINCE", cell: ({ validFrom }) => validFrom },
  { head: "BY", cell: ({ event }) => event },
  { head: "OWNER", cell: ({ owner }) => owner }
]

/** In order of their keys; undefined when there are none. */
const labelsText = (labels: Contract.Host["labels"]): string | undefined => {
  const pairs = Object.entries(labels).sort(([a], [b]) => (a < b ? -1 : 1))
  return pairs.length === 0 ? undefined : pairs.map(([key, value]) => `${key}=${value}`).join(" ")
}

type Query = NonNullable<Parameters<Client["hosts"]["list"]>[0]>["query"]

const parseAddress = (input: string) =>
  Result.match(IpAddress.parse(input), {
    onFailure: ({ message }) => Effect.fail(new Failure.UsageWrong({ detail: `'${input}': ${message}` })),
    onSuccess: Effect.succeed
  })

const parseLabel = (input: string) =>
  /^[^=]+=/.test(input)
    ? Effect.succeed(input)
    : Effect.fail(new Failure.UsageWrong({ detail: `--label: '${input}' is to be such as role=web` }))

const optional = (name: string, metavar: string, description: string) =>
  Flag.String(name).pipe(Flag.withDescription(description), Flag.withMetavar(metavar), Flag.optional)

const list = Command.make(
  "list",
  {
    ...Connection.flags,
    zone: optional("zone", "ZONE", "Only hosts of this zone."),
    state: Flag.Literals("state", hostStates).pipe(Flag.withDescription("Only hosts in this state."), Flag.optional),
    address: optional("address", "ADDRESS", "Only hosts that have this address."),
    label: Flag.String("label").pipe(
      Flag.withDescription("Only hosts with this label; given several times, with all of them."),
      Flag.withMetavar("KEY=VALUE"),
      Flag.atLeast(0)
    ),
    at: Input.at,
    prefix: optional("prefix", "TEXT", "Only hosts whose full name begins so."),
    limit: Pages.limit("Hosts")
  },
  Effect.fn(function* (input) {
    const query: Query = {
      ...(Option.isSome(input.zone) && { zone: yield* Input.parseName(input.zone.value) }),
      ...(Option.isSome(input.state) && { state: input.state.value }),
      ...(Option.isSome(input.address) && { address: yield* parseAddress(input.address.value) }),
      ...(input.label.length > 0 && { label: yield* Effect.forEach(input.label, parseLabel) }),
      ...(yield* Input.atQuery(input.at)),
      ...(Option.isSome(input.prefix) && input.prefix.value !== "" && { q: input.prefix.value })
    }
    yield* Connection.withClient(input, ({ hosts }) =>
      Effect.gen(function* () {
        const found = yield* Pages.collect((asked) => hosts.list({ query: { ...query, ...asked } }), input.limit)
        yield* Pages.print(found, input, {
          columns: query.at === undefined ? columns : columnsThen,
          none: "There are no such hosts."
        })
      })
    )
  })
).pipe(Command.withDescription("Hosts, by name."))

const show = Command.make(
  "show",
  { ...Connection.flags, host: Input.host, at: Input.at },
  Effect.fn(function* (input) {
    const at = yield* Input.atQuery(input.at)
    const query = at.at === undefined ? { session: true } : at
    yield* Connection.withClient(input, ({ hosts }) =>
      Effect.flatMap(hosts.get({ params: { host: input.host }, query }), ({ body: host }) =>
        input.json
          ? Output.json(host)
          : Output.fields([
              ["name", host.fqdn],
              ["id", host.id],
              ["addresses", host.addresses.join(" ")],
              ["ttl", host.ttlSeconds === undefined ? "its zone's" : Output.seconds(host.ttlSeconds)],
              ["labels", labelsText(host.labels)],
              ["lease", host.lease],
              ["state", host.state],
              ["owner", host.owner],
              ["first seen", host.firstSeen],
              ["last seen", host.lastSeen],
              ["generation", host.generation],
              [
                "dns",
                host.publication === undefined ? undefined : `${host.publication.level} at ${host.publication.at}`
              ],
              ["error", host.publication?.error],
              [
                "session",
                host.session === undefined ? undefined : `on ${host.session.instance} since ${host.session.since}`
              ],
              ["by", host.event],
              ["valid from", host.validFrom],
              ["valid to", host.validTo]
            ])
      )
    )
  })
).pipe(Command.withDescription("One host, and how far its name has come."))

export const hosts = Command.make("hosts").pipe(
  Command.withDescription("The registry of hosts."),
  Command.withSubcommands([
    list,
    show,
    watch,
    hostHistory,
    explainHost,
    restoreHost,
    HostChanges.register,
    HostChanges.edit,
    HostChanges.retire,
    HostChanges.release,
    HostChanges.transfer,
    HostChanges.import_
  ])
)
