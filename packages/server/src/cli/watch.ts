/**
 * `prism-dns hosts watch`: hosts as they come, change and go.
 *
 * On a terminal a table that is always as it is now; in a pipe a line for each
 * change.
 */
import type { Event } from "@prism-dns/core/api/Events"
import type * as Contract from "@prism-dns/core/api/Hosts"
import * as EventStream from "@prism-dns/core/events/EventStream"
import { Console, Effect, Option, Stream } from "effect"
import { Command, Flag } from "effect/cli"
import * as Connection from "./Connection.ts"
import { gapText, sayState } from "./events.ts"
import * as Input from "./Input.ts"
import * as Output from "./Output.ts"
import * as Pages from "./Pages.ts"

interface Row {
  readonly fqdn: string
  readonly addresses: ReadonlyArray<string>
  readonly state: string
  readonly dns: string
  readonly changed: string
  readonly what: string
}

const columns: ReadonlyArray<Output.Column<Row>> = [
  { head: "NAME", cell: ({ fqdn }) => fqdn },
  { head: "ADDRESSES", cell: ({ addresses }) => addresses.join(" ") },
  { head: "STATE", cell: ({ state }) => state },
  { head: "DNS", cell: ({ dns }) => dns },
  { head: "CHANGED", cell: ({ changed }) => changed },
  { head: "BY", cell: ({ what }) => what }
]

const toRow = (
  host: Pick<Contract.Host, "fqdn" | "addresses" | "state"> & Partial<Pick<Contract.Host, "publication">>
): Row => ({
  fqdn: host.fqdn,
  addresses: host.addresses,
  state: host.state,
  dns: host.publication?.level ?? "",
  changed: host.publication?.at ?? "",
  what: ""
})

const textsOf = (value: unknown): ReadonlyArray<string> =>
  Array.isArray(value) ? value.filter((each) => typeof each === "string") : []

/** The row of a host after an event; undefined: it is there no longer. */
export const afterEvent = (row: Row | undefined, event: Event): Row | undefined => {
  const base = row ?? { fqdn: event.subject, addresses: [], state: "", dns: "accepted" }
  const known = { ...base, changed: event.at, what: event.kind }
  if (event.kind === "publication.applied") return row === undefined ? undefined : { ...known, dns: "applied" }
  if (event.kind === "publication.parked") return row === undefined ? undefined : { ...known, dns: "parked" }
  if (!event.kind.startsWith("host.")) return row
  if (event.kind === "host.released") return undefined
  const after = (typeof event.after === "object" && event.after !== null ? event.after : {}) as Record<string, unknown>
  return {
    ...known,
    addresses: "addresses" in after ? textsOf(after["addresses"]) : known.addresses,
    state: typeof after["state"] === "string" ? after["state"] : known.state,
    dns: "accepted"
  }
}

/** The screen anew: what changed last on top, as many as fit. */
const draw = (rows: ReadonlyMap<string, Row>) =>
  Effect.sync(() => {
    const height = Math.max(5, process.stdout.rows - 3)
    const newest = [...rows.values()].sort((a, b) => (a.changed < b.changed ? 1 : -1)).slice(0, height)
    const rest = rows.size - newest.length
    process.stdout.write(
      `\u001b[H\u001b[2J${rows.size} hosts${rest > 0 ? `, the ${newest.length} that changed last` : ""}; ^C ends\n\n` +
        `${newest.length === 0 ? "" : Output.toTable(columns, newest)}\n`
    )
  })

/** Between two drawings at the least. */
const drawMillis = 200

export const watch = Command.make(
  "watch",
  {
    ...Connection.flags,
    json: Flag.Boolean("json").pipe(
      Flag.withDescription("Print each event as JSON on a line of its own."),
      Flag.withDefault(false)
    ),
    zone: Flag.String("zone").pipe(
      Flag.withDescription("Only hosts of this zone."),
      Flag.withMetavar("ZONE"),
      Flag.optional
    ),
    limit: Pages.limit("Hosts of the beginning")
  },
  Effect.fn(function* (input) {
    const zone = Option.isSome(input.zone) ? yield* Input.parseName(input.zone.value) : undefined
    const isTable = Output.isTerminal() && !input.json
    yield* Connection.withClientForLong(input, (client) =>
      Effect.gen(function* () {
        // First where the events are, then the hosts: what changes between is seen as an event.
        const head = yield* EventStream.head(client)
        const query = zone === undefined ? {} : { zone }
        const found = isTable
          ? yield* Pages.collect((asked) => client.hosts.list({ query: { ...query, ...asked } }), input.limit)
          : { items: [] }
        const rows = new Map<string, Row>(found.items.map((host) => [host.fqdn, toRow(host)]))
        let isDirty = true

        const show = (received: EventStream.Received) => {
          if (received._tag === "Gap") return Output.note(gapText(received.gap))
          const { event } = received
          const row = afterEvent(rows.get(event.subject), event)
          if (isTable) {
            if (row === undefined) rows.delete(event.subject)
            else rows.set(event.subject, row)
            isDirty = true
            return Effect.void
          }
          if (input.json) return Console.log(JSON.stringify(event))
          const addresses = row?.addresses.join(" ") ?? ""
          return Console.log(
            [event.at, event.kind, event.subject, row?.state ?? "", addresses].map(Output.harmless).join("\t")
          )
        }

        if (isTable) {
          yield* Effect.suspend(() => {
            if (!isDirty) return Effect.void
            isDirty = false
            return draw(rows)
          }).pipe(Effect.andThen(Effect.sleep(drawMillis)), Effect.forever, Effect.forkChild)
        }
        yield* EventStream.make(client, {
          kinds: isTable ? ["host.*", "publication.*"] : ["host.*"],
          ...(zone !== undefined && { zones: [zone] }),
          since: String(head),
          onState: sayState
        }).pipe(Stream.runForEach(show))
      })
    )
  })
).pipe(Command.withDescription("Hosts as they come, change and go: a table on a terminal, lines in a pipe."))
