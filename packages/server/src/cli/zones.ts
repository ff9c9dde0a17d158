/** `prism-dns zones`: what is in force for a zone, and how it is doing; changes of zones are in `zoneChanges`. */
import * as Page from "@prism-dns/core/api/Page"
import * as Contract from "@prism-dns/core/api/Zones"
import { Effect } from "effect"
import { Command, Flag } from "effect/cli"
import * as Connection from "./Connection.ts"
import { restoreZone } from "./history.ts"
import * as Input from "./Input.ts"
import * as Output from "./Output.ts"
import * as Pages from "./Pages.ts"
import * as zoneChanges from "./zoneChanges.ts"

const yesOrNo = (is: boolean): string => (is ? "yes" : "no")

const originOf = ({ origin, overridden }: Contract.Zone): string => (overridden.length > 0 ? `${origin}, API` : origin)

/** Names that differed at the last look. */
const differing = ({ reconciliation }: Contract.Zone): number | undefined => {
  if (reconciliation.last === undefined) return undefined
  const { different, duplicate, missing, unexpected } = reconciliation.last.drift
  return missing + different + unexpected + duplicate
}

const columns: ReadonlyArray<Output.Column<Contract.Zone>> = [
  { head: "ZONE", cell: ({ name }) => name },
  { head: "KIND", cell: ({ kind }) => kind },
  { head: "READY", cell: ({ publication }) => publication && yesOrNo(publication.ready) },
  { head: "PENDING", cell: ({ publication }) => publication?.pending },
  { head: "PARKED", cell: ({ publication }) => publication?.parked },
  { head: "DRIFT", cell: differing },
  { head: "LOOKED AT", cell: ({ reconciliation }) => reconciliation.last?.at },
  { head: "ERROR", cell: ({ publication }) => publication?.error },
  { head: "ORIGIN", cell: originOf }
]

const list = Command.make(
  "list",
  { ...Connection.flags, at: Input.at, limit: Pages.limit("Zones") },
  Effect.fn(function* (input) {
    const at = yield* Input.atQuery(input.at)
    yield* Connection.withClient(input, ({ zones }) =>
      Effect.gen(function* () {
        const found = yield* Pages.collect((asked) => zones.list({ query: { ...asked, ...at } }), input.limit)
        yield* Pages.print(found, input, { columns: columns, none: "There are no zones." })
      })
    )
  })
).pipe(Command.withDescription("Zones, by name: those of the configuration and those of the API."))

const show = Command.make(
  "show",
  { ...Connection.flags, zone: Input.zone, at: Input.at },
  Effect.fn(function* (input) {
    const name = yield* Input.parseName(input.zone)
    const query = yield* Input.atQuery(input.at)
    yield* Connection.withClient(input, ({ zones }) =>
      Effect.flatMap(zones.get({ params: { zone: name }, query }), ({ body: zone }) => {
        if (input.json) return Output.json(zone)
        const { policy, publication, reconciliation } = zone
        const { deleteBudget } = policy
        return Output.fields([
          ["zone", zone.name],
          ["kind", zone.kind],
          ["origin", originOf(zone)],
          [
            "set by the API",
            zone.overridden.map((pointer) => pointer.slice(1).replaceAll("/", ".")).join(", ") || undefined
          ],
          ["generation", zone.generation],
          ["so since", zone.validFrom],
          ["so until", zone.validTo],
          ["name servers", zone.nameservers.join(" ")],
          ["signed", yesOrNo(zone.dnssec)],
          ["ready", publication && yesOrNo(publication.ready)],
          ["error", publication?.error],
          ["pending", publication?.pending],
          ["parked", publication?.parked],
          ["oldest pending", publication?.oldest],
          ["last published", publication?.lastPublished],
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
          `${answer.zone} is not signed. Set dnssec for it: prism-dns zones edit ZONE --set dnssec=true.`
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
  Command.withSubcommands([list, show, ...zoneChanges.commands, records, dnssec, restoreZone])
)
