/** What somebody may claim, as it crosses the edge of the API. */
import { Result, Schema } from "effect"
import { IpNetwork } from "effect/net"
import { isPattern } from "../auth/Principal.ts"
import * as Values from "./Values.ts"

/** Zones, patterns and networks of one grant at the most, each. */
export const entriesMax = 100

const few = <S extends Schema.Top>(item: S) => Schema.Array(item).check(Schema.isBetweenLength(1, entriesMax))

export const NamePattern = Schema.String.check(
  Schema.makeFilter((text: string) =>
    isPattern(text)
      ? undefined
      : "is to be labels of lower-case letters, digits, hyphens, * and # with dots between them, such as web-* or *.rack-7"
  )
)

const Network = Schema.String.check(
  Schema.makeFilter((text: string) =>
    Result.isSuccess(IpNetwork.fromString(text))
      ? undefined
      : "is to be a network such as 10.1.0.0/16 or 2001:db8::/32, with no bit behind the prefix"
  )
)

const fields = {
  namesMax: Schema.optionalKey(
    Schema.Int.check(Schema.isBetween({ minimum: 1, maximum: 1_000_000 })).annotate({
      description: "Names it may hold at once. Absent: as many as the server's `auth.limits` allow."
    })
  )
}

export const Grant = Schema.Struct({
  zones: Schema.optionalKey(
    Schema.Array(Values.Name).annotate({ description: "Zones it may have names in. Absent: every zone." })
  ),
  names: Schema.optionalKey(
    Schema.Array(Schema.String).annotate({
      description: "Patterns of names below their zone, one of which must fit. Absent: any name."
    })
  ),
  networks: Schema.Array(Schema.String).annotate({
    description: "Networks that it may claim addresses from, beside the one it speaks from."
  }),
  ...fields
}).annotate({ identifier: "Grant" })
export type Grant = typeof Grant.Type

export const GrantRequest = Schema.Struct({
  zones: Schema.optionalKey(few(Values.NameInput).annotate({ description: "Default: every zone." })),
  names: Schema.optionalKey(
    few(NamePattern).annotate({
      description: "`*` stands for any run of characters within a label, `#` for a number. Default: any name."
    })
  ),
  networks: Schema.optionalKey(
    few(Network).annotate({ description: "Default: only the address that the host speaks from." })
  ),
  ...fields
}).annotate({ identifier: "GrantRequest" })
export type GrantRequest = typeof GrantRequest.Type
