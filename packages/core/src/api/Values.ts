/** Values that several endpoints take or give, as they cross the edge. */
import { Effect, Result, Schema, SchemaIssue, SchemaTransformation } from "effect"
import * as DomainName from "../domain/DomainName.ts"
import * as IpAddress from "../domain/IpAddress.ts"

const parsed = <S extends Schema.Codec<string, string>>(
  target: S,
  parse: (input: string) => Result.Result<S["Type"], { readonly message: string }>
) =>
  Schema.String.pipe(
    Schema.decodeTo(
      target,
      SchemaTransformation.transformEffect<S["Encoded"], string>({
        decode: (input) =>
          Result.match(parse(input), {
            onFailure: ({ message }) => Effect.fail(new SchemaIssue.InvalidValue({ message }, input)),
            onSuccess: Effect.succeed
          }),
        encode: Effect.succeed
      })
    )
  )

/** An absolute name in lower case with its trailing dot, as answers hold it. */
export const Name = Schema.String.pipe(Schema.brand("DomainName"))

/** A name in any case, with or without the trailing dot, as requests may hold it. */
export const NameInput = parsed(Name, DomainName.parse)

/** Canonical text of an address. */
export const Address = Schema.String.pipe(Schema.brand("IpAddress"))

/** An address in any form it may be written in. */
export const AddressInput = parsed(Address, IpAddress.parse)

/** Addresses of one claim at the most, as in protocol 2.0. */
export const addressesMax = 16

/** An address as somebody claims it: not an IPv4 address in the form of an IPv6 one. */
export const ClaimedAddressInput = parsed(Address, IpAddress.parseClaimed)

/** The same, several with commas between them, as a query may hold them. */
export const ClaimedAddresses = Schema.String.pipe(
  Schema.decodeTo(
    Schema.Array(Address).check(Schema.isBetweenLength(1, addressesMax)),
    SchemaTransformation.transformEffect<ReadonlyArray<string>, string>({
      decode: (input) =>
        Result.match(Result.all(input.split(",").map((each) => IpAddress.parseClaimed(each.trim()))), {
          onFailure: ({ message }) => Effect.fail(new SchemaIssue.InvalidValue({ message }, input)),
          onSuccess: Effect.succeed
        }),
      encode: (addresses) => Effect.succeed(addresses.join(","))
    })
  )
)

/** Why a person does something, in a sentence; it lands in the audit. */
export const Reason = Schema.String.check(Schema.isTrimmed(), Schema.isBetweenLength(1, 500)).annotate({
  description: "Why, in a sentence; it is kept in the audit."
})

/** The query flag of every change: says what would become of it, with the same checks, and changes nothing. */
export const DryRun = Schema.Boolean

/** Stands in the answer of a change that was only tried. */
export const dryRunMark = {
  dryRun: Schema.optionalKey(
    Schema.Literal(true).annotate({ description: "Nothing was changed: this is what would become of it." })
  )
}

/** Request headers of a change that could undo another's. */
export const ifMatch = {
  "if-match": Schema.optionalKey(Schema.String.check(Schema.isMaxLength(1024))),
  "if-none-match": Schema.optionalKey(Schema.String.check(Schema.isMaxLength(1024)))
}

/** Response header of what can be changed: to be sent back as `If-Match`, or as `If-None-Match`. */
export const etag = { etag: Schema.String }

/** RFC 3339, in UTC, with milliseconds: `2026-11-23T10:48:00.000Z`. */
export const Timestamp = Schema.String.annotate({ format: "date-time" })

/** A time as requests may hold it: RFC 3339, in UTC or with an offset. */
export const TimestampInput = Schema.String.check(
  Schema.makeFilter((text: string) =>
    /^\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}(?:\.\d{1,9})?(?:Z|[+-]\d{2}:\d{2})$/.test(text) &&
    !Number.isNaN(Date.parse(text))
      ? undefined
      : "is to be a time such as 2026-11-23T10:48:00Z"
  )
).annotate({ format: "date-time" })

/** What `Timestamp` says of `millis` since 1970. */
export const timestamp = (millis: number): string => new Date(millis).toISOString()
