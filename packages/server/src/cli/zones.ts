/** `prism-dns zones`: what is in force for a zone, and how it is doing. */
import * as Page from "@prism-dns/core/api/Page"
import * as Contract from "@prism-dns/core/api/Zones"
import { Effect } from "effect"
import { Command, Flag } from "effect/cli"
import * as Connection from "./Connection.ts"
import * as Input from "./Input.ts"
import * as Output from "./Output.ts"

/** Names that differed at the last look. */
const differing = ({ reconciliation }: Contract.Zone): number | undefined => {
  if (reconciliation.last === undefined) return undefined
  const { different, duplicate, missing, unexpected } = reconciliation.last.drift
  return missing + different + unexpected + duplicate
}

const columns: ReadonlyArray<Output.Column<Contract.Zone>> = [
  { head: "ZONE", cell: ({ name }) => name },
  { head: "KIND", cell: ({ kind }) => kind },
  { head: "READY", cell: ({ publication }) => (publication.ready ? "yes" : "no") },
  { head: "PENDING", cell: ({ publication }) => publication.pending },
  { head: "PARKED", cell: ({ publication }) => publication.parked },
  { head: "DRIFT", cell: differing },
  { head: "LOOKED AT", cell: ({ reconciliation }) => reconciliation.last?.at },
  { head: "ERROR", cell: ({ publication }) => publication.error }
]

const list = Command.make(
  "list",
  Connection.flags,
  Effect.fn(function* (input) {
    yield* Connection.withClient(input, ({ zones }) =>
      Effect.flatMap(zones.list(), (answer) =>
        input.json ? Output.json(answer) : Output.rows(columns, answer.items, "There are no zones.")
      )
    )
  })
).pipe(Command.withDescription("The zones of the configuration."))

const show = Command.make(
  "show",
  { ...Connection.flags, zone: Input.zone },
  Effect.fn(function* (input) {
    const name = yield* Input.parseName(input.zone)
    yield* Connection.withClient(input, ({ zones }) =>
      Effect.flatMap(zones.get({ params: { zone: name } }), (zone) => {
        if (input.json) return Output.json(zone)
        const { policy, publication, reconciliation } = zone
        const { deleteBudget } = policy
        return Output.fields([
          ["zone", zone.name],
          ["kind", zone.kind],
          ["name servers", zone.nameservers.join(" ")],
          ["signed", zone.dnssec ? "yes" : "no"],
          ["ready", publication.ready ? "yes" : "no"],
          ["error", publication.error],
          ["pending", publication.pending],
          ["parked", publication.parked],
          ["oldest pending", publication.oldest],
          ["last published", publication.lastPublished],
          ["last looked at", reconciliation.last?.at],
          ["drift", differing(zone)],
          ["foreign names", reconciliation.last?.drift.foreign],
          ["ignored names", reconciliation.last?.drift.ignored],
          ["plan of that look", reconciliation.last?.plan],
          ["held back", reconciliation.last?.guards.join("; ") || undefined],
          ["looked at every", Output.seconds(reconciliation.intervalSeconds)],
          ["drift is", reconciliation.repair ? "repaired" : "reported"],
          ["ttl", Output.seconds(policy.ttlSeconds)],
          ["ttl by wish", `${Output.seconds(policy.ttlSecondsMin)} to ${Output.seconds(policy.ttlSecondsMax)}`],
          ["networks", policy.networks?.join(", ")],
          ["labels at most", policy.labelsMax],
          ["hosts at most", policy.hostsMax],
          [
            "when offline",
            policy.withdrawAfterSeconds === undefined
              ? policy.whenOffline
              : `withdraw after ${Output.seconds(policy.withdrawAfterSeconds)}`
          ],
          ["retired after", Output.seconds(policy.retireAfterSeconds)],
          ["name held for", Output.seconds(policy.holdForSeconds)],
          ["conflict", policy.conflict],
          [
            "delete budget",
            `${Math.round(deleteBudget.share * 1000) / 10} %, at least ${deleteBudget.min}, in ${Output.seconds(deleteBudget.windowSeconds)}`
          ],
          ["quarantine", Output.seconds(policy.quarantineSeconds)]
        ])
      })
    )
  })
).pipe(Command.withDescription("One zone: its policy, what waits, what was found at the last look."))

const dnssec = Command.make(
  "dnssec",
  { ...Connection.flags, zone: Input.zone },
  Effect.fn(function* (input) {
    const zone = yield* Input.parseName(input.zone)
    yield* Connection.withClient(input, ({ zones }) =>
      Effect.flatMap(zones.dnssec({ params: { zone } }), (answer) => {
        if (input.json) return Output.json(answer)
        // As in a zone file: it can be pasted into the parent zone.
        const records = answer.keys.flatMap(({ dnskey, ds }) => [
          ...ds.map((content) => ({ type: "DS", content })),
          { type: "DNSKEY", content: dnskey }
        ])
        return Output.rows(
          [
            { head: "NAME", cell: () => answer.zone },
            { head: "TYPE", cell: ({ type }) => type },
            { head: "CONTENT", cell: ({ content }) => content }
          ],
          records,
          `${answer.zone} is not signed. Set dnssec for it in the configuration.`
        )
      })
    )
  })
).pipe(Command.withDescription("A zone's DS records, for its parent, and its DNSKEY records."))

const records = Command.make(
  "records",
  {
    ...Connection.flags,
    zone: Input.zone,
    ownership: Flag.Literals("ownership", Contract.ownerships).pipe(
      Flag.withDescription("Whose: Prism's (managed), someone else's, or to be left alone. Default: managed."),
      Flag.withDefault("managed")
    ),
    limit: Flag.Int("limit").pipe(
      Flag.withDescription(`Names at the most, up to ${Page.limitMax}. Default: ${Page.limitDefault}.`),
      Flag.withSchema(Page.Limit),
      Flag.withDefault(Page.limitDefault)
    )
  },
  Effect.fn(function* (input) {
    const zone = yield* Input.parseName(input.zone)
    const { limit, ownership } = input
    yield* Connection.withClient(input, ({ zones }) =>
      Effect.gen(function* () {
        const { body } = yield* zones.records({ params: { zone }, query: { ownership, limit } })
        if (input.json) return yield* Output.json(body)
        const sets = body.items.flatMap(({ disabled, name, owner, recordSets }) =>
          recordSets.map((set) => ({ ...set, name, state: disabled ? `${owner}, disabled` : owner }))
        )
        yield* Output.rows(
          [
            { head: "NAME", cell: ({ name }) => name },
            { head: "TTL", cell: ({ ttlSeconds }) => ttlSeconds },
            { head: "TYPE", cell: ({ type }) => type },
            { head: "CONTENT", cell: ({ contents }) => contents.join(" ") },
            { head: "WHOSE", cell: ({ state }) => state }
          ],
          sets,
          "There are no such names."
        )
        if (body.nextCursor !== undefined) yield* Output.note(`the first ${limit} names; --limit gives more`)
      })
    )
  })
).pipe(Command.withDescription("Names of a zone with their records, by whose they are."))

export const zones = Command.make("zones").pipe(
  Command.withDescription("What is in force for a zone, and how it is doing."),
  Command.withSubcommands([list, show, records, dnssec])
)
