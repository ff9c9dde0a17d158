/**
 * Who speaks, once that is proven, and what it may do: the value that every
 * decision about access takes.
 *
 * A principal is made in one place for each way of proving (key, client
 * certificate, bearer token, nothing at all) and trusted from there on.
 */
import { IpNetwork } from "effect/net"
import type { DomainName } from "../domain/DomainName.ts"
import * as IpAddress from "../domain/IpAddress.ts"

/** How it was proven. */
export const principalKinds = ["key", "certificate", "token", "anonymous"] as const
export type PrincipalKind = (typeof principalKinds)[number]

/** What a principal may claim. The more is left undefined, the wider it is. */
export interface Grant {
  /** Zones it may have names in; undefined: every zone. */
  readonly zones: ReadonlyArray<DomainName> | undefined
  /** Patterns (`matchesPattern`) of names below their zone, one of which must fit; undefined: any name. */
  readonly names: ReadonlyArray<string> | undefined
  /** Networks from which it may claim addresses beside the one it speaks from. */
  readonly networks: ReadonlyArray<IpNetwork.IpNetwork>
  /** Names it may hold at once; undefined: as many as the server's `auth.limits.namesPerIdentity`. */
  readonly namesMax: number | undefined
}

/** Any name, in any zone, at the address it speaks from. */
export const unlimited: Grant = { zones: undefined, names: undefined, networks: [], namesMax: undefined }

export interface Principal {
  /** Names it in the audit and as owner of hosts; unique over all kinds. */
  readonly name: string
  readonly kind: PrincipalKind
  /** An anonymous principal has proved nothing and holds no claim to a name. */
  readonly anonymous: boolean
  /**
   * Owners whose claims have passed to it: the token that an identity was enrolled with. A machine that spoke version 1
   * with a token and now has a key of its own keeps its name.
   */
  readonly actsFor: ReadonlyArray<string>
  readonly grant: Grant
}

export const anonymous: Principal = {
  name: "anonymous",
  kind: "anonymous",
  anonymous: true,
  actsFor: [],
  grant: unlimited
}

/**
 * True when `name`, the part of a host's name below its zone, fits `pattern`: `*` stands for any run of letters, digits
 * and hyphens within one label, also for none, `#` for a number (digits, at least one), every other character for
 * itself, and each dot begins a new label. `web-*` fits `web-1`, not `web-1.rack-7`; `*.rack-7` fits `web-1.rack-7`;
 * `ns#` fits `ns1`, neither `ns` nor `ns-cache`.
 */
export const matchesPattern = (pattern: string, name: string): boolean => {
  // Nearly every name differs before the first wildcard, whole labels or not.
  const plain = pattern.search(/[*#]/)
  if (plain === -1) return pattern === name
  if (!name.startsWith(pattern.slice(0, plain))) return false
  const wanted = pattern.split(".")
  const labels = name.split(".")
  return wanted.length === labels.length && wanted.every((part, i) => matchesLabel(part, labels[i]!))
}

/**
 * True when every name that fits the pattern `inner` fits `outer` too. Sound: the wildcards of `inner` are looked at as
 * characters that only the same, or wider, wildcards of `outer` take.
 */
export const isPatternWithin = (inner: string, outer: string): boolean => matchesPattern(outer, inner)

/** True when `text` is such a pattern. */
export const isPattern = (text: string): boolean =>
  text.length <= patternCharactersMax && /^[a-z0-9_*#-]+(?:\.[a-z0-9_*#-]+)*$/.test(text)

/** As long as a name may be. */
const patternCharactersMax = 253

/** Character by character all that the pattern may have come to: time by the product of the lengths. */
const matchesLabel = (pattern: string, label: string): boolean => {
  // Nearly every label differs before the first wildcard.
  const plain = pattern.search(/[*#]/)
  if (plain === -1) return pattern === label
  if (!label.startsWith(pattern.slice(0, plain))) return false
  // `reached[l]`: the pattern so far fits the first `l` characters of the label.
  let reached = Array.from({ length: label.length + 1 }, (_, l) => l === 0)
  for (const wanted of pattern) {
    const next = [wanted === "*" && reached[0]!]
    for (let l = 1; l <= label.length; l++) {
      const character = label[l - 1]!
      if (wanted === "*") next.push(reached[l]! || next[l - 1]!)
      // No name has a `#`, only a pattern within another one.
      else if (wanted === "#") next.push(/[0-9#]/.test(character) && (reached[l - 1]! || next[l - 1]!))
      else next.push(character === wanted && reached[l - 1]!)
    }
    reached = next
  }
  return reached[label.length]!
}

/** True when `address` lies in one of `networks`. */
export const isWithinAny = (address: IpAddress.IpAddress, networks: ReadonlyArray<IpNetwork.IpNetwork>): boolean =>
  networks.some((network) => IpAddress.isWithin(address, network))
