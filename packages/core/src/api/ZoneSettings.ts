/**
 * What may be set for a zone by the API, with the bounds of the configuration's
 * own settings: all of it for a new zone, or some of it as a merge patch.
 */
import { Result, Schema, SchemaTransformation, Struct } from "effect"
import { IpNetwork } from "effect/net"
import { conflictPolicies } from "../domain/Zone.ts"
import * as Values from "./Values.ts"

/** Networks of one zone at the most. */
export const networksMax = 256

/** Name servers of one zone at the most. */
export const nameserversMax = 16

const whole = (minimum: number, maximum: number) => Schema.Int.check(Schema.isBetween({ minimum, maximum }))

const daysMax = 3650

/** Seconds, at least `minimum` and at most ten years. */
const seconds = (minimum: number, maximum = daysMax * 86_400) =>
  Schema.Finite.check(Schema.isBetween({ minimum, maximum }))

const ttl = whole(1, 2_147_483_647)

/** A network in any form it may be written in, as its canonical text. */
const Network = Schema.String.check(
  Schema.makeFilter((text: string) =>
    Result.isSuccess(IpNetwork.fromString(text))
      ? undefined
      : "is to be a network such as 10.1.0.0/16 or 2001:db8::/32, with no bit behind the prefix"
  )
).pipe(
  Schema.decodeTo(
    Schema.String,
    SchemaTransformation.transform({
      decode: (text) => IpNetwork.format(Result.getOrThrow(IpNetwork.fromString(text))),
      encode: (text) => text
    })
  )
)

const deleteBudget = {
  share: Schema.Finite.check(Schema.isBetween({ minimum: 0, maximum: 1 })),
  min: whole(0, 1_000_000),
  windowSeconds: seconds(1, 30 * 86_400)
}

const policy = {
  ttlSeconds: ttl,
  ttlSecondsMin: ttl,
  ttlSecondsMax: ttl,
  networks: Schema.Array(Network)
    .check(Schema.isMaxLength(networksMax))
    .annotate({ description: "Empty: every address that is not special." }),
  labelsMax: whole(1, 100),
  hostsMax: whole(1, 100_000_000),
  whenOffline: Schema.Literals(["keep", "withdraw"]),
  withdrawAfterSeconds: seconds(0),
  conflict: Schema.Literals(conflictPolicies),
  retireAfterSeconds: seconds(0),
  holdForSeconds: seconds(0),
  quarantineSeconds: seconds(0)
}

const reconciliation = {
  intervalSeconds: seconds(1, 30 * 86_400),
  repair: Schema.Boolean
}

const zone = {
  dnssec: Schema.Boolean.annotate({ description: "Whether PowerDNS signs the zone. One that is signed stays so." }),
  nameservers: Schema.Array(Values.NameInput)
    .check(Schema.isBetweenLength(1, nameserversMax))
    .annotate({ description: "NS records that the zone gets when it is made in PowerDNS." }),
  createIfMissing: Schema.Boolean
}

/** Each of the fields may be there. */
const some = <F extends Schema.Struct.Fields>(fields: F) => Schema.Struct(Struct.map(fields, Schema.optionalKey))

/** Each of the fields may be there, and `null` takes it back. */
const someOrNull = <F extends Schema.Struct.Fields>(fields: F) =>
  Schema.Struct(Struct.map(Struct.map(fields, Schema.NullOr), Schema.optionalKey))

const SomePolicy = Schema.Struct({
  ...some(policy).fields,
  deleteBudget: Schema.optionalKey(some(deleteBudget))
})

const PolicyPatch = Schema.Struct({
  ...someOrNull(policy).fields,
  deleteBudget: Schema.optionalKey(Schema.NullOr(someOrNull(deleteBudget)))
})

const reason = { reason: Schema.optionalKey(Values.Reason) }

/** A zone that is to be: what is left out is as the defaults of the configuration say. */
export const ZoneRequest = Schema.Struct({
  name: Values.NameInput.annotate({
    description: "Zones below in-addr.arpa and ip6.arpa take PTR records, others hold hosts."
  }),
  ...some(zone).fields,
  policy: Schema.optionalKey(SomePolicy),
  reconciliation: Schema.optionalKey(some(reconciliation)),
  ...reason
}).annotate({ identifier: "ZoneRequest" })
export type ZoneRequest = typeof ZoneRequest.Type

/** A JSON merge patch (RFC 7396) of what the API has set for a zone. */
export const ZonePatch = Schema.Struct({
  ...someOrNull(zone).fields,
  policy: Schema.optionalKey(Schema.NullOr(PolicyPatch)),
  reconciliation: Schema.optionalKey(Schema.NullOr(someOrNull(reconciliation))),
  ...reason
}).annotate({
  identifier: "ZonePatch",
  description:
    "A JSON merge patch (RFC 7396). `null` takes back what the API has set: then the configuration says, or the default."
})
export type ZonePatch = typeof ZonePatch.Type
