/**
 * The rules of docs/guides/access.md once more, written from that page and not
 * from `auth/Policy`: over plain text, with addresses as numbers, networks as
 * ranges of them, patterns as regular expressions, and every rule a set of
 * reasons against the claim. What the page lists (special addresses, reserved
 * names) is read from the page itself, so it cannot differ from what is decided.
 */
import * as Fs from "node:fs"
import * as Path from "node:path"

/** A case in plain text. */
export interface Case {
  readonly speaker: {
    readonly anonymous: boolean
    readonly zones: ReadonlyArray<string> | "any"
    readonly patterns: ReadonlyArray<string> | "any"
    readonly networks: ReadonlyArray<string>
  }
  readonly name: string
  readonly zone: string
  readonly addresses: ReadonlyArray<string>
  /** `unknown` when nothing can tell. */
  readonly peer: string
  readonly version: "1.0" | "2.0" | "api"
  readonly wish: number | "none"
  /** Zones of the server by name. */
  readonly zones: Readonly<Record<string, ZoneSettings>>
  /** `auth.anonymous.zone`, or `everywhere` when `auth.mode` is `off`. */
  readonly openZone: string
  readonly reserved: ReadonlyArray<string>
}

export interface ZoneSettings {
  readonly pointers: boolean
  readonly networks: ReadonlyArray<string> | "none"
  readonly labelsMax: number | "unsaid"
  readonly ttlMin: number
  readonly ttlMax: number
}

export type Opinion =
  | { readonly granted: true; readonly ttl: number | "none" }
  | { readonly granted: false; readonly rule: string; readonly code: string }

/** The cases are made of few texts, which come again and again. */
function remembered<A>(f: (text: string) => A): (text: string) => A {
  const known = new Map<string, A>()
  return (text) => {
    const value = known.get(text) ?? f(text)
    known.set(text, value)
    return value
  }
}

// --- Numbers -------------------------------------------------------------------------------------------------------

/** An address as family and number. */
interface Numbered {
  readonly bits: 32 | 128
  readonly value: bigint
}

const number = remembered((text: string): Numbered => {
  if (!text.includes(":")) {
    return { bits: 32, value: text.split(".").reduce((sum, octet) => sum * 256n + BigInt(octet), 0n) }
  }
  const groups = (part: string) => (part === "" ? [] : part.split(":"))
  const [head, tail] = text.split("::") as [string, string | undefined]
  const front = groups(head)
  const back = groups(tail ?? "")
  const zeros = Array.from({ length: tail === undefined ? 0 : 8 - front.length - back.length }, () => "0")
  return {
    bits: 128,
    value: [...front, ...zeros, ...back].reduce((sum, group) => sum * 65_536n + BigInt(`0x${group}`), 0n)
  }
})

/** First and last address of a network. */
export const range = remembered(
  (network: string): { readonly bits: 32 | 128; readonly first: bigint; readonly last: bigint } => {
    const [address, length] = network.split("/") as [string, string]
    const { bits, value } = number(address)
    return { bits, first: value, last: value + 2n ** BigInt(bits - Number(length)) - 1n }
  }
)

const lies = (address: string, network: string): boolean => {
  const { bits, value } = number(address)
  const within = range(network)
  return bits === within.bits && value >= within.first && value <= within.last
}

// --- What the page says --------------------------------------------------------------------------------------------

const page = Fs.readFileSync(Path.resolve(import.meta.dirname, "../../../../docs/guides/access.md"), "utf8")

const section = (title: string): string => page.split(/^## /m).find((part) => part.startsWith(`${title}\n`))!

/** Networks in the first column of the table of special addresses. */
export const specialOnPage: ReadonlyArray<string> = section("Special addresses")
  .split("\n")
  .filter((line) => line.startsWith("| `"))
  .flatMap((line) => Array.from(line.split("|")[1]!.matchAll(/`([^`]+)`/g), ([, network]) => network!))

/** The default list in the page's configuration. */
export const reservedOnPage: ReadonlyArray<string> = Array.from(
  section("Reserved names").matchAll(/^ {4}- (\S+)/gm),
  ([, name]) => name!
)

const isSpecial = (address: string): boolean =>
  specialOnPage.some((network) => lies(address, network)) ||
  (address.includes(":") && !lies(address, "2000::/3") && !lies(address, "fc00::/7"))

// --- Patterns ------------------------------------------------------------------------------------------------------

const expression = remembered(
  (pattern: string): RegExp =>
    new RegExp(`^${pattern.replaceAll(".", "\\.").replaceAll("*", "[a-z0-9-]*").replaceAll("#", "[0-9]+")}$`)
)

// --- The rules -----------------------------------------------------------------------------------------------------

const codes: Readonly<Record<string, string>> = {
  zone: "zone-not-allowed",
  apex: "name-not-allowed",
  labels: "name-not-allowed",
  depth: "name-not-allowed",
  reserved: "name-reserved",
  "grant-names": "name-not-allowed",
  "own-addresses": "address-not-allowed",
  "special-addresses": "address-not-allowed",
  "zone-networks": "address-not-allowed"
}

/** Everything that speaks against the claim, in no order. */
const against = (given: Case): ReadonlySet<string> => {
  const { addresses, name, openZone, peer, reserved, speaker, version } = given
  const reasons = new Set<string>()
  const settings = given.zones[given.zone]
  const holds = name === given.zone || name.endsWith(`.${given.zone}`)
  if (settings === undefined || settings.pointers || !holds) return reasons.add("zone")

  const mayBeThere = speaker.anonymous
    ? openZone === "everywhere" || openZone === given.zone
    : speaker.zones === "any" || speaker.zones.some((each) => each === given.zone)
  if (!mayBeThere) reasons.add("zone")

  if (name === given.zone) {
    reasons.add("apex")
  } else {
    const part = name.substring(0, name.length - given.zone.length - 1)
    const count = part.split(".").length
    if (!/^(?:(?!-)[a-z0-9-]{1,63}(?<!-)(?:\.|$))+$/.test(part) || part.endsWith(".")) reasons.add("labels")
    if (settings.labelsMax === "unsaid" ? version !== "1.0" && count > 1 : count > settings.labelsMax) {
      reasons.add("depth")
    }
    if (reserved.some((pattern) => expression(pattern).test(part.replace(/\..*/, "")))) reasons.add("reserved")
    if (speaker.patterns !== "any" && speaker.patterns.every((pattern) => !expression(pattern).test(part))) {
      reasons.add("grant-names")
    }
  }

  for (const address of addresses) {
    const granted = !speaker.anonymous && speaker.networks.some((network) => lies(address, network))
    if (address !== peer && !granted) reasons.add("own-addresses")
    if (settings.networks === "none") {
      if (isSpecial(address)) reasons.add("special-addresses")
    } else if (settings.networks.every((network) => !lies(address, network))) {
      reasons.add("zone-networks")
    }
  }
  return reasons
}

/** What the page says of the case. */
export const opinion = (given: Case): Opinion => {
  const reasons = against(given)
  // The page lists them in this order, and the first decides.
  for (const [rule, code] of Object.entries(codes)) if (reasons.has(rule)) return { granted: false, rule, code }
  if (given.wish === "none") return { granted: true, ttl: "none" }
  const { ttlMax, ttlMin } = given.zones[given.zone]!
  return { granted: true, ttl: given.wish < ttlMin ? ttlMin : given.wish > ttlMax ? ttlMax : given.wish }
}
