/**
 * Who may claim which name with which addresses.
 *
 * `decide` and `explain` run the same rules, in their order, over values: who
 * speaks, what is claimed, the zone it is claimed in, and what the server was
 * told. The first rule that fails decides. Pure; docs/guides/access.md says the
 * same in prose, and a second formulation from there is held against this one
 * in the tests.
 *
 * Leaves to others: who speaks (`auth/TokenMode`, `auth/Tokens`,
 * `auth/Identities`), how often (`auth/Admission`), and whose a name is already
 * (`registry/Decision`).
 */
import { IpNetwork } from "effect/net"
import * as DomainName from "../domain/DomainName.ts"
import * as IpAddress from "../domain/IpAddress.ts"
import * as Zone from "../domain/Zone.ts"
import { isWithinAny, matchesPattern, type Principal } from "./Principal.ts"
import type { ClaimCode } from "./RefusalCode.ts"
import { specialNetworkOf } from "./SpecialAddresses.ts"

/** What somebody wants to be true of a name. */
export interface Claim {
  readonly fqdn: DomainName.DomainName
  /** The zone that holds the name. */
  readonly zone: DomainName.DomainName
  readonly addresses: ReadonlyArray<IpAddress.IpAddress>
  /** The address it is said from; undefined when nothing can tell. */
  readonly peer: IpAddress.IpAddress | undefined
  readonly protocol: "1.0" | "2.0" | "api"
  readonly ttlSeconds?: number | undefined
  /**
   * Somebody who may write hosts claims it for a machine that does not speak: then its addresses are bound by the zone
   * alone, and a reserved name is given by whoever says why. `hasName`: of a host that has the name it is not asked whether
   * it may. Undefined: the host speaks for itself.
   */
  readonly onBehalf?: { readonly reason: string | undefined; readonly hasName: boolean } | undefined
}

/** What the server was told, beside its zones. */
export interface Rules {
  /** Patterns (`matchesPattern`) of labels that no host may begin its name with. */
  readonly reservedNames: ReadonlyArray<string>
  /** The one zone for hosts that prove nothing; undefined: any. */
  readonly anonymousZone: DomainName.DomainName | undefined
}

/** The rules in their order. */
export const ruleNames = [
  "zone",
  "apex",
  "labels",
  "depth",
  "reserved",
  "grant-names",
  "own-addresses",
  "special-addresses",
  "zone-networks",
  "ttl"
] as const
/** What is asked behind them: the rates of `auth/Admission`. */
export const rateNames = ["rate-anonymous", "rate-principal", "rate-name", "rate-network"] as const
/** And in the end what the registry has (`registry/Foresight`). */
export const registryRuleNames = ["owner", "quota"] as const
export type RuleName = (typeof ruleNames | typeof rateNames | typeof registryRuleNames)[number]

export interface Allowed {
  readonly _tag: "Allowed"
  /** What was wished for, within the zone's bounds; undefined: nothing was, the zone's own TTL is meant. */
  readonly ttlSeconds: number | undefined
}

export interface Refused {
  readonly _tag: "Refused"
  readonly rule: RuleName
  readonly code: ClaimCode
  /** A sentence that says what was wrong and what to do next. */
  readonly message: string
  /** When a retry may help; undefined: when something else has changed. */
  readonly retryAfterSeconds?: number
}

export type Verdict = Allowed | Refused

/** What one rule says of a claim. */
export interface Explanation {
  readonly rule: RuleName
  readonly outcome: "passed" | "failed" | "not-applicable"
  readonly detail: string
  /** With what it would be refused; of a rule that failed. */
  readonly code?: ClaimCode
}

/**
 * Labels that others look for by themselves (wpad, isatap, autodiscover, kerberos), that mail, names and time are found
 * under, or that people take for the network's own. `#` stands for a number.
 */
export const reservedNames: ReadonlyArray<string> = [
  "wpad",
  "isatap",
  "localhost",
  "broadcasthost",
  "autodiscover",
  "autoconfig",
  "mta-sts",
  "kerberos",
  "ldap",
  "gc",
  "ns",
  "ns#",
  "dns",
  "dns#",
  "mail",
  "smtp",
  "imap",
  "ntp",
  "time",
  "www",
  "api",
  "gateway",
  "router",
  "proxy",
  "vpn",
  "_*"
]

/** Whether the claim is granted; when not, by which rule, and what to do. */
export const decide = (principal: Principal, claim: Claim, zone: Zone.Zone | undefined, rules: Rules): Verdict => {
  const all: Given = { principal, claim, zone, rules, below: labelsBelow(claim) }
  for (const [rule, apply] of table) {
    const said = apply(all)
    if (said._tag === "Failed") return { _tag: "Refused", rule, code: said.code, message: said.detail }
  }
  return { _tag: "Allowed", ttlSeconds: clampedTtl(claim, zone) }
}

/** What each rule says of the claim, in the order in which they decide. */
export const explain = (
  principal: Principal,
  claim: Claim,
  zone: Zone.Zone | undefined,
  rules: Rules
): ReadonlyArray<Explanation> => {
  const all: Given = { principal, claim, zone, rules, below: labelsBelow(claim) }
  return table.map(([rule, apply]) => {
    const said = apply(all)
    const { _tag, detail } = said
    return { rule, outcome: outcomes[_tag], detail, ...(_tag === "Failed" && { code: said.code }) }
  })
}

const outcomes = { Passed: "passed", Failed: "failed", NotApplicable: "not-applicable" } as const

interface Given {
  readonly principal: Principal
  readonly claim: Claim
  readonly zone: Zone.Zone | undefined
  readonly rules: Rules
  /** The labels of the name below the zone, the host's own first. */
  readonly below: ReadonlyArray<string>
}

type Said =
  | { readonly _tag: "Passed"; readonly detail: string }
  | { readonly _tag: "NotApplicable"; readonly detail: string }
  | { readonly _tag: "Failed"; readonly code: ClaimCode; readonly detail: string }

const passed = (detail: string): Said => ({ _tag: "Passed", detail })
const notApplicable = (detail: string): Said => ({ _tag: "NotApplicable", detail })
const failed = (code: ClaimCode, detail: string): Said => ({ _tag: "Failed", code, detail })

const labelsBelow = ({ fqdn, zone }: Claim): ReadonlyArray<string> =>
  fqdn !== zone && DomainName.isWithin(fqdn, zone) ? fqdn.slice(0, -zone.length - 1).split(".") : []

const theZone = ({ claim, principal, rules, zone }: Given): Said => {
  if (zone === undefined || zone.name !== claim.zone) {
    return failed("zone-not-allowed", `${claim.zone} is no zone of this server; register in one that is`)
  }
  if (Zone.isReverse(zone)) {
    return failed(
      "zone-not-allowed",
      `${zone.name} is for PTR records, which follow from addresses; register in a zone for hosts`
    )
  }
  if (!DomainName.isWithin(claim.fqdn, zone.name)) {
    return failed("zone-not-allowed", `${claim.fqdn} does not lie in ${zone.name}; register in the zone that holds it`)
  }
  if (principal.anonymous) {
    return rules.anonymousZone === undefined || rules.anonymousZone === zone.name
      ? passed(`${zone.name} is open to hosts that prove nothing`)
      : failed(
          "zone-not-allowed",
          `registering in ${zone.name} needs a token or a key; without, only ${rules.anonymousZone} is open`
        )
  }
  const { zones } = principal.grant
  if (zones === undefined) return passed(`${principal.name} may register in every zone`)
  return zones.includes(zone.name)
    ? passed(`${principal.name} may register in ${zone.name}`)
    : failed(
        "zone-not-allowed",
        `${principal.name} may not register in ${zone.name}, only in ${listed(zones)}; register there, or have the zone added to its grant`
      )
}

const apex = ({ claim }: Given): Said =>
  claim.fqdn === claim.zone
    ? failed("name-not-allowed", `${claim.fqdn} is the zone itself, which no host is; register a name below it`)
    : passed("the name is not the zone's own")

const ofHosts = /^[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?$/

const labels = ({ below }: Given): Said => {
  if (below.length === 0) return notApplicable(noName)
  const wrong = below.find((label) => !ofHosts.test(label))
  if (wrong === undefined) return passed("its labels are letters, digits and hyphens")
  return wrong.includes("*")
    ? failed("name-not-allowed", `a host has no wildcard for a name; register the name itself`)
    : failed(
        "name-not-allowed",
        `'${wrong}' is not a label of a host's name; use letters, digits, and hyphens between them`
      )
}

const noName = "there is no name below the zone"
const hasName = "the host has the name already"

const depth = ({ below, claim, zone }: Given): Said => {
  if (below.length === 0 || zone === undefined) return notApplicable(noName)
  if (claim.onBehalf?.hasName === true) return notApplicable(hasName)
  const max = zone.policy.labelsMax ?? (claim.protocol === "1.0" ? undefined : 1)
  if (max === undefined) return passed("by protocol 1.0 a name may have any number of labels")
  return below.length <= max
    ? passed(`${counted(below.length, "label")} below the zone, of at most ${max}`)
    : failed(
        "name-not-allowed",
        `${claim.fqdn} has ${counted(below.length, "label")} below ${zone.name}, which takes at most ${max}; ` +
          "register a shorter name, or raise labelsMax of the zone"
      )
}

const reserved = ({ below, claim, rules }: Given): Said => {
  const own = below[0]
  if (own === undefined) return notApplicable(noName)
  if (claim.onBehalf?.hasName === true) return notApplicable(hasName)
  const pattern = rules.reservedNames.find((reservedName) => matchesPattern(reservedName, own))
  if (pattern === undefined) return passed(`'${own}' is not reserved`)
  if (claim.onBehalf?.reason !== undefined) return passed(`'${own}' is reserved (${pattern}), and given with a reason`)
  return claim.onBehalf !== undefined
    ? failed("name-reserved", `'${own}' is reserved (${pattern}), for it means something to others; say why, as reason`)
    : failed(
        "name-reserved",
        `'${own}' is reserved (${pattern}), for it means something to others; register another name, or change auth.reservedNames`
      )
}

/** How somebody comes to a grant that allows more. That of a key stays what it was when it was enrolled. */
const wider = ({ anonymous, kind }: Principal): string =>
  anonymous
    ? "come with a token, key or certificate that allows it"
    : kind === "key"
      ? "enrol a new key with a token that allows it"
      : "have its grant widened"

const grantNames = ({ below, principal }: Given): Said => {
  if (below.length === 0) return notApplicable(noName)
  const { names } = principal.grant
  if (names === undefined) return passed(`${principal.name} may have any name`)
  const name = below.join(".")
  const pattern = names.find((each) => matchesPattern(each, name))
  return pattern === undefined
    ? failed(
        "name-not-allowed",
        `${principal.name} may not have the name '${name}', only such as ${listed(names)}; register one of those, or ${wider(principal)}`
      )
    : passed(`'${name}' fits '${pattern}' of its grant`)
}

const ownAddresses = ({ claim, principal }: Given): Said => {
  if (claim.addresses.length === 0) return notApplicable(noAddress)
  if (claim.onBehalf !== undefined) return notApplicable("it is claimed for a machine that does not speak")
  // Whoever proves nothing has been given nothing.
  const networks = principal.anonymous ? [] : principal.grant.networks
  const foreign = claim.addresses.find((address) => address !== claim.peer && !isWithinAny(address, networks))
  if (foreign === undefined) {
    return passed(
      claim.addresses.every((address) => address === claim.peer)
        ? "it is the address the host speaks from"
        : `each is the address the host speaks from, or in ${formatted(networks)} of its grant`
    )
  }
  const spoken = claim.peer === undefined ? "" : ` (${claim.peer})`
  return failed(
    "address-not-allowed",
    networks.length === 0
      ? `${foreign} is not the address the host speaks from${spoken}; claim that one, or ${wider(principal)}`
      : `${foreign} is neither the address the host speaks from${spoken} nor in ${formatted(networks)}; claim one that is, or ${wider(principal)}`
  )
}

const noAddress = "no address is claimed"

const specialAddresses = ({ claim, zone }: Given): Said => {
  if (claim.addresses.length === 0) return notApplicable(noAddress)
  if (zone?.policy.networks !== undefined) return notApplicable("the zone names its networks, special ones too")
  for (const address of claim.addresses) {
    const special = specialNetworkOf(address)
    if (special === undefined) continue
    const network = IpNetwork.format(special.network)
    return failed(
      "address-not-allowed",
      `${address} is ${special.what} (${network}) and no address that others reach a host at; ` +
        `speak from another address, or name the network in networks of the zone`
    )
  }
  return passed("no address is special")
}

const zoneNetworks = ({ claim, zone }: Given): Said => {
  if (claim.addresses.length === 0) return notApplicable(noAddress)
  const networks = zone?.policy.networks
  if (zone === undefined || networks === undefined) return notApplicable("the zone names no networks")
  const outside = claim.addresses.find((address) => !isWithinAny(address, networks))
  return outside === undefined
    ? passed(`in ${formatted(networks)}`)
    : failed(
        "address-not-allowed",
        `${outside} lies outside the networks of ${zone.name}, which are ${formatted(networks)}; ` +
          "use an address within, or add its network to the zone"
      )
}

/** The TTL that is wished for, within the zone's bounds; undefined where there is no wish. */
export const clampedTtl = ({ ttlSeconds }: Claim, zone: Zone.Zone | undefined): number | undefined =>
  ttlSeconds === undefined || zone === undefined
    ? undefined
    : Math.min(Math.max(ttlSeconds, zone.policy.ttlSecondsMin), zone.policy.ttlSecondsMax)

const ttl = ({ claim, zone }: Given): Said => {
  const clamped = clampedTtl(claim, zone)
  if (clamped === undefined) return notApplicable("no TTL is wished for; the zone's own is used")
  return passed(
    clamped === claim.ttlSeconds
      ? `a TTL of ${clamped} s`
      : `a TTL of ${clamped} s: the wish for ${claim.ttlSeconds} s is beyond the zone's bounds`
  )
}

/** In the order in which they decide. */
const table: ReadonlyArray<readonly [RuleName, (given: Given) => Said]> = [
  ["zone", theZone],
  ["apex", apex],
  ["labels", labels],
  ["depth", depth],
  ["reserved", reserved],
  ["grant-names", grantNames],
  ["own-addresses", ownAddresses],
  ["special-addresses", specialAddresses],
  ["zone-networks", zoneNetworks],
  ["ttl", ttl]
]

/** Items that a sentence names at the most. */
const listedMax = 5

const listed = (items: ReadonlyArray<string>): string =>
  items.length === 0
    ? "none"
    : items.length <= listedMax
      ? items.join(", ")
      : `${items.slice(0, listedMax).join(", ")} and ${items.length - listedMax} more`

const formatted = (networks: ReadonlyArray<IpNetwork.IpNetwork>): string =>
  listed(networks.map((network) => IpNetwork.format(network)))

const counted = (count: number, noun: string): string => `${count} ${noun}${count === 1 ? "" : "s"}`
