/**
 * Names in the DNS, parsed once at the edge.
 *
 * A `DomainName` is absolute, lower case and ends in a dot, so two of them are
 * the same name exactly when they are the same string (RFC 4343). A `HostName`
 * is what a machine calls itself: letters, digits and hyphens (RFC 1123), no
 * trailing dot. Nothing else in the code takes a name as a plain string.
 */
import { Brand, Result, Schema } from "effect"

/** An absolute name in lower case, with its trailing dot: `web-1.hosts.prism.test.` */
export type DomainName = string & Brand.Brand<"DomainName">

/** A machine's own name in lower case, without a trailing dot: `web-1` or `web-1.rack-7`. */
export type HostName = string & Brand.Brand<"HostName">

/** The text is not a name. `reason` is a sentence for people. */
export class NameInvalid extends Schema.TaggedError<NameInvalid>()("NameInvalid", {
  input: Schema.String,
  reason: Schema.String
}) {
  override get message(): string {
    return this.reason
  }
}

/** Longest name in characters, without the trailing dot (RFC 1035: 255 octets on the wire). */
export const nameCharactersMax = 253

/** Longest label in characters (RFC 1035). */
export const labelCharactersMax = 63

// Both are matched before case is folded: lower case makes ASCII letters of some that are none (KELVIN SIGN).
const hostNamePattern = /^[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?(?:\.[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?)*$/i

/** Labels of a zone or record name; `/` is there for classless reverse zones (RFC 2317), `_` for service labels. */
const domainLabelPattern = /^[a-z0-9_*](?:[a-z0-9_/-]{0,61}[a-z0-9_])?$/i

/** Parses the name a machine gives itself; folds upper case. */
export const parseHostName = (input: string): Result.Result<HostName, NameInvalid> => {
  if (input.length === 0) return Result.fail(new NameInvalid({ input, reason: "hostname is empty" }))
  if (input.length > nameCharactersMax) {
    return Result.fail(
      new NameInvalid({ input: input.slice(0, 64), reason: `hostname is longer than ${nameCharactersMax} characters` })
    )
  }
  if (!hostNamePattern.test(input)) {
    return Result.fail(
      new NameInvalid({
        input,
        reason:
          "hostname must be dot-separated labels of 1 to 63 letters, digits and hyphens, no hyphen at a label's edge, no trailing dot"
      })
    )
  }
  return Result.succeed(input.toLowerCase() as HostName)
}

/** Parses a name as people write it, with or without the trailing dot; folds upper case. */
export const parse = (input: string): Result.Result<DomainName, NameInvalid> => {
  const relative = input.endsWith(".") ? input.slice(0, -1) : input
  const invalid = (reason: string) => Result.fail(new NameInvalid({ input: input.slice(0, 256), reason }))
  if (relative.length === 0) return invalid("the name is empty")
  if (relative.length > nameCharactersMax) return invalid(`the name is longer than ${nameCharactersMax} characters`)
  for (const label of relative.split(".")) {
    if (!domainLabelPattern.test(label)) {
      return invalid(
        label.length > labelCharactersMax
          ? `a label is longer than ${labelCharactersMax} characters`
          : `'${label}' is not a label of a domain name`
      )
    }
  }
  return Result.succeed(`${relative.toLowerCase()}.` as DomainName)
}

/** Like `parse`, for names that the program itself wrote down. Throws `NameInvalid`. */
export const make = (input: string): DomainName => Result.getOrThrow(parse(input))

/** `name` with a host name in front. Fails when the whole is too long for the DNS. */
export const prepend = (hostname: HostName, zone: DomainName): Result.Result<DomainName, NameInvalid> =>
  hostname.length + zone.length > nameCharactersMax
    ? Result.fail(
        new NameInvalid({
          input: hostname,
          reason: `hostname and zone together are longer than ${nameCharactersMax} characters`
        })
      )
    : Result.succeed(`${hostname}.${zone}` as DomainName)

/** True when `name` is `zone` itself or lies below it. */
export const isWithin = (name: DomainName, zone: DomainName): boolean =>
  name.endsWith(zone) && (name.length === zone.length || name[name.length - zone.length - 1] === ".")

/** The longest of `zones` that `name` lies in, or undefined. */
export const longestZone = <Z extends { readonly name: DomainName }>(
  name: DomainName,
  zones: Iterable<Z>
): Z | undefined => {
  let best: Z | undefined
  for (const zone of zones) {
    if (isWithin(name, zone.name) && (best === undefined || zone.name.length > best.name.length)) best = zone
  }
  return best
}

/** Schema of a domain name as it crosses an edge: text in any case, with or without the trailing dot. */
export const FromString = Schema.String.check(
  Schema.makeFilter((input: string) => {
    const result = parse(input)
    return Result.isSuccess(result) ? undefined : result.failure.reason
  })
)
