import { assert, describe, it } from "@effect/vitest"
import { Arbitrary, Effect, Result } from "effect"
import { IpNetwork, NetAddress } from "effect/net"
import * as Policy from "@prism-dns/core/auth/Policy"
import { anonymous, type Grant, matchesPattern, type Principal, unlimited } from "@prism-dns/core/auth/Principal"
import { specialNetworkOf, specialNetworks } from "@prism-dns/core/auth/SpecialAddresses"
import type { DomainName } from "@prism-dns/core/domain/DomainName"
import * as IpAddress from "@prism-dns/core/domain/IpAddress"
import * as Zone from "@prism-dns/core/domain/Zone"
import { integer, oneOf } from "../arbitraries.ts"
import { type Case, opinion, range, reservedOnPage, specialOnPage } from "./SecondOpinion.ts"

const network = IpNetwork.fromStringUnsafe

const principal = (grant: Partial<Grant> = {}, kind: Principal["kind"] = "key"): Principal => ({
  name: "i-abcdefghijklmnop",
  kind,
  anonymous: false,
  actsFor: [],
  grant: { ...unlimited, ...grant }
})

const hosts = Zone.make("hosts.test." as DomainName)
const rules: Policy.Rules = { reservedNames: Policy.reservedNames, anonymousZone: hosts.name }

const claim = (name: string, more: Partial<Policy.Claim> = {}): Policy.Claim => ({
  fqdn: (name === "" ? hosts.name : `${name}.${hosts.name}`) as DomainName,
  zone: hosts.name,
  addresses: [IpAddress.make("10.0.0.1")],
  peer: IpAddress.make("10.0.0.1"),
  protocol: "2.0",
  ...more
})

/** The rule that decided, or `allowed`. */
const ruleOf = (verdict: Policy.Verdict) => (verdict._tag === "Allowed" ? "allowed" : verdict.rule)

const decided = (name: string, more: Partial<Policy.Claim> = {}, policy: Partial<Zone.ZonePolicy> = {}) =>
  ruleOf(Policy.decide(principal(), claim(name, more), { ...hosts, policy: { ...hosts.policy, ...policy } }, rules))

describe("what a refusal says can be done", () => {
  const messageOf = (who: Principal, addresses: ReadonlyArray<string>) => {
    const verdict = Policy.decide(who, claim("db", { addresses: addresses.map(IpAddress.make) }), hosts, rules)
    return verdict._tag === "Refused" ? verdict.message : "allowed"
  }

  it("for a key is another one, since its grant stays as it was; for a token and a certificate a wider grant", () => {
    const names = ["web-*"]
    assert.include(messageOf(principal({ names }), ["10.0.0.1"]), "or enrol a new key with a token that allows it")
    assert.include(messageOf(principal({ names }, "token"), ["10.0.0.1"]), "or have its grant widened")
    assert.include(messageOf(principal({ names }, "certificate"), ["10.0.0.1"]), "or have its grant widened")
    assert.include(messageOf(principal(), ["10.0.0.2"]), "or enrol a new key with a token that allows it")
    assert.include(messageOf(anonymous, ["10.0.0.2"]), "or come with a token, key or certificate that allows it")
  })
})

describe("patterns", () => {
  it.each([
    ["web-*", "web-1", true],
    ["web-*", "web-", true],
    ["web-*", "web", false],
    ["web-*", "web-1.rack-7", false],
    ["*.rack-7", "web-1.rack-7", true],
    ["*.rack-7", "a.b.rack-7", false],
    ["*", "anything", true],
    ["*a*b*", "xxaxxbxx", true],
    ["*a*b*", "xxbxxaxx", false],
    ["ns#", "ns1", true],
    ["ns#", "ns01", true],
    ["ns#", "ns", false],
    ["ns#", "ns1a", false],
    ["ns#", "nsqd-7", false],
    ["#*#", "7-7", true],
    ["#*#", "7", false],
    ["web", "web", true]
  ] as const)("%s and %s: %s", (pattern, name, fits) => {
    assert.strictEqual(matchesPattern(pattern, name), fits)
  })

  it("take no time that a long name and many stars could multiply", () => {
    assert.isFalse(matchesPattern(`${"*a".repeat(31)}b`, "a".repeat(63)))
  })
})

describe("names", () => {
  it.each([
    ["web-1", "allowed"],
    ["", "apex"],
    ["*", "labels"],
    ["_tcp", "labels"],
    ["a_b", "labels"],
    ["-a", "labels"],
    ["a.b", "depth"],
    ["wpad", "reserved"],
    ["ns", "reserved"],
    ["ns7", "reserved"],
    ["nsqd-7", "allowed"],
    ["dns-cache", "allowed"],
    ["mailer", "allowed"],
    ["mail", "reserved"],
    ["apiary", "allowed"]
  ])("'%s': %s", (name, rule) => assert.strictEqual(decided(name), rule))

  it("have any number of labels by protocol 1.0, unless the zone says how many", () => {
    assert.strictEqual(decided("a.b.c", { protocol: "1.0" }), "allowed")
    assert.strictEqual(decided("a.b.c", { protocol: "1.0" }, { labelsMax: 2 }), "depth")
    assert.strictEqual(decided("a.b", {}, { labelsMax: 2 }), "allowed")
    assert.strictEqual(decided("a.b", { protocol: "api" }), "depth")
  })

  it("are reserved by their first label, however deep", () => {
    assert.strictEqual(decided("wpad.rack-7", { protocol: "1.0" }), "reserved")
    assert.strictEqual(decided("db.mail", { protocol: "1.0" }), "allowed")
  })

  it("with dots in a grant's pattern do not make the zone deeper", () => {
    const dotted = principal({ names: ["*.rack-7"] })
    assert.strictEqual(ruleOf(Policy.decide(dotted, claim("web.rack-7"), hosts, rules)), "depth")
  })
})

describe("addresses", () => {
  const with_ = (...addresses: ReadonlyArray<string>) => ({ addresses: addresses.map(IpAddress.make) })

  it("are the peer's, or in the grant; for who proves nothing only the peer's", () => {
    const granted = principal({ networks: [network("10.1.0.0/16")] })
    const of = (who: Principal, more: Partial<Policy.Claim>) =>
      ruleOf(Policy.decide(who, claim("a", more), hosts, rules))
    assert.strictEqual(of(granted, with_("10.0.0.1", "10.1.2.3")), "allowed")
    assert.strictEqual(of(granted, with_("10.2.2.3")), "own-addresses")
    assert.strictEqual(of(principal(), with_("10.1.2.3")), "own-addresses")
    assert.strictEqual(of({ ...anonymous, grant: granted.grant }, with_("10.1.2.3")), "own-addresses")
    assert.strictEqual(of(principal(), { peer: undefined }), "own-addresses")
  })

  it("that are special need a zone that names their network, and one that names networks takes no others", () => {
    const loopback = { ...with_("127.0.0.1"), peer: IpAddress.make("127.0.0.1") }
    assert.strictEqual(decided("a", loopback), "special-addresses")
    assert.strictEqual(decided("a", loopback, { networks: [network("127.0.0.0/8")] }), "allowed")
    assert.strictEqual(decided("a", loopback, { networks: [network("10.0.0.0/8")] }), "zone-networks")
    assert.strictEqual(decided("a", loopback, { networks: [network("0.0.0.0/0")] }), "allowed")
    assert.strictEqual(decided("a", loopback, { networks: [network("::/0")] }), "zone-networks")
  })

  it.each(["10.1.1.1", "172.20.0.1", "192.168.0.1", "100.64.0.1", "fd00::1", "2a00::1", "8.8.8.8"])(
    "like %s are a machine's own",
    (text) => assert.isUndefined(specialNetworkOf(IpAddress.make(text)))
  )

  it("of IPv6 are special outside what is given out, without a gap", () => {
    for (let first = 0; first < 0x10000; first += 0x80) {
      const given = (first >= 0x2000 && first < 0x4000) || (first >= 0xfc00 && first < 0xfe00)
      // The tail keeps clear of small special networks at the beginning.
      const address = IpAddress.make(`${first.toString(16)}:ffff:1::1`)
      assert.strictEqual(specialNetworkOf(address) === undefined, given, address)
    }
  })

  it("that are claimed in the disguise of IPv6 are refused, and the peer's is the IPv4 address", () => {
    for (const text of ["::ffff:192.0.2.1", "::FFFF:c000:201", "0:0:0:0:0:ffff:192.0.2.1"]) {
      const failure = Result.getOrThrow(Result.flip(IpAddress.parseClaimed(text)))
      assert.strictEqual(failure._tag, "AddressMapped")
      assert.include(failure.message, "claim it as 192.0.2.1")
      assert.strictEqual(Result.getOrThrow(IpAddress.fromPeer(text)), "192.0.2.1")
    }
    assert.strictEqual(Result.getOrThrow(IpAddress.parseClaimed("2001:DB8::1")), "2001:db8::1")
    assert.strictEqual(Result.getOrThrow(Result.flip(IpAddress.parseClaimed("fe80::1%eth0")))._tag, "AddressInvalid")
  })
})

describe("zones", () => {
  const of = (who: Principal, zone: Zone.Zone | undefined, zoneRules = rules) =>
    ruleOf(Policy.decide(who, claim("a"), zone, zoneRules))
  it("are known, and for hosts", () => {
    assert.strictEqual(of(principal(), undefined), "zone")
    assert.strictEqual(of(principal(), Zone.make("10.in-addr.arpa." as DomainName)), "zone")
    assert.strictEqual(decided("a", { zone: "other.test." as DomainName }), "zone")
  })

  it("are in the grant; for who proves nothing it is the open one", () => {
    assert.strictEqual(of(principal({ zones: [hosts.name] }), hosts), "allowed")
    assert.strictEqual(of(principal({ zones: ["lab.test." as DomainName] }), hosts), "zone")
    assert.strictEqual(of(anonymous, hosts), "allowed")
    assert.strictEqual(of(anonymous, hosts, { ...rules, anonymousZone: "lab.test." as DomainName }), "zone")
    assert.strictEqual(of(anonymous, hosts, { ...rules, anonymousZone: undefined }), "allowed")
  })
})

it.each([
  [undefined, undefined],
  [1, 30],
  [300, 300],
  [86_400, 3600]
])("a wish for a TTL of %s s becomes %s s", (ttlSeconds, given) => {
  assert.deepStrictEqual(Policy.decide(principal(), claim("a", { ttlSeconds }), hosts, rules), {
    _tag: "Allowed",
    ttlSeconds: given
  })
})

it("an explanation says every rule, and the first that failed is the one that decided", () => {
  const explained = Policy.explain(principal({ names: ["web-*"] }), claim("wpad"), hosts, rules)
  assert.deepStrictEqual(
    explained.map(({ outcome, rule }) => `${rule} ${outcome}`),
    [
      "zone passed",
      "apex passed",
      "labels passed",
      "depth passed",
      "reserved failed",
      "grant-names failed",
      "own-addresses passed",
      "special-addresses passed",
      "zone-networks not-applicable",
      "ttl not-applicable"
    ]
  )
  for (const { detail } of explained) assert.isNotEmpty(detail)
})

describe("the page docs/guides/access.md", () => {
  it("lists the names that are reserved", () => {
    assert.sameMembers([...reservedOnPage], [...Policy.reservedNames])
  })

  it("lists the special networks", () => {
    // One row of the page says in words what is not listed: what is left of the IPv6 space.
    const listed = specialNetworks
      .filter(({ network, what }) => what !== "reserved" || NetAddress.isIpv4Address(network.address))
      .map(({ network }) => IpNetwork.format(network).replace("::ffff:0.0.0.0", "::ffff:0:0"))
    // Named on the page within the row of 2001::/23.
    assert.sameMembers([...specialOnPage, "2001:2::/48"], listed)
  })
})

// --- 100,000 cases against the second formulation --------------------------------------------------------------------

const text = (bits: 32 | 128, value: bigint): string =>
  bits === 32
    ? [24n, 16n, 8n, 0n].map((shift) => (value >> shift) & 255n).join(".")
    : Array.from({ length: 8 }, (_, i) => ((value >> BigInt(112 - 16 * i)) & 0xffffn).toString(16)).join(":")

/** Around the edges of a network: both ends, what lies beside them, and something within. */
const edges = (of: string): ReadonlyArray<IpAddress.IpAddress> => {
  const { bits, first, last } = range(of)
  return [first, last, first - 1n, last + 1n, (first + last) / 2n]
    .filter((value) => value >= 0n && value < 2n ** BigInt(bits))
    .map((value) => IpAddress.make(text(bits, value)))
}

// The plainest comes first everywhere: that is what a failing case is shrunk to.
const ordinary = ["10.1.2.3", "10.1.2.4", "10.2.0.1", "192.168.7.9", "2a00:1:2::7", "fd12::9", "2a00:1:3::1"].map(
  IpAddress.make
)
const special = [...specialOnPage, "4000::/3", "fc00::/7", "2000::/3", "c000::/3"].flatMap(edges)
const labels = ["web-1", "web", "db-22", "rack-7", "a", "7", "nsqd-7", "web-", "x".repeat(63)]
const strange = ["*", "_tcp", "-a", "a-", "a_b", "a/b", "y".repeat(64), "_"]
const patterns = ["*", "web-*", "web-#", "*.rack-7", "*.*", "db-22", "#", "*-#", "*.*.*"]
const networks = ["10.1.0.0/16", "10.0.0.0/8", "2a00:1:2::/48", "0.0.0.0/0", "::/0", "127.0.0.0/8", "10.1.2.3/32"]
const zoneNames = ["hosts.test.", "lab.hosts.test.", "10.in-addr.arpa.", "unknown.test."] as const

/** A list of up to `max` of `values`, the first ones more often. */
const some = <A extends string>(values: ReadonlyArray<A>, max: number, min = 0) =>
  Arbitrary.array(oneOf(values), { minLength: min, maxLength: max })

/** One of several, by weight; the first is what it shrinks to. */
const weighted = <A>(...choices: ReadonlyArray<readonly [number, Arbitrary.Arbitrary<A>]>): Arbitrary.Arbitrary<A> =>
  Arbitrary.flatMap(integer(0, choices.reduce((sum, [weight]) => sum + weight, 0) - 1), (drawn) => {
    let rest = drawn
    for (const [weight, choice] of choices) {
      if (rest < weight) return choice
      rest -= weight
    }
    return choices[0]![1]
  })

const constant = <A>(value: A): Arbitrary.Arbitrary<A> => Arbitrary.map(integer(0, 0), () => value)

const anyAddress = weighted([12, oneOf(ordinary)], [1, oneOf(special)])

const name = Arbitrary.map(
  Arbitrary.all([
    weighted<ReadonlyArray<string>>(
      [20, some(labels, 1, 1)],
      [5, some(labels, 3, 1)],
      [1, constant([])],
      [1, some(strange, 1, 1)],
      [1, some([...labels, ...strange, ...reservedOnPage.filter((each) => !/[*#]/.test(each))], 3, 1)],
      [1, some(["wpad", "ns", "ns1", "dns007", "mail", "api", "gc"], 1, 1)]
    ),
    weighted([20, constant("same")], [1, constant("other")])
  ] as const),
  ([below, where]) => ({ below, where })
)

const zoneSettings = Arbitrary.all({
  pointers: constant(false),
  networks: weighted<ReadonlyArray<string> | "none">([3, constant("none" as const)], [1, some(networks, 3, 1)]),
  labelsMax: weighted<number | "unsaid">([2, constant("unsaid" as const)], [1, integer(1, 3)]),
  ttlMin: oneOf([30, 1, 60]),
  ttlMax: oneOf([3600, 60, 86_400])
})

const cases: Arbitrary.Arbitrary<Case> = Arbitrary.map(
  Arbitrary.all({
    anonymous: weighted([4, constant(false)], [1, constant(true)]),
    grantZones: weighted<ReadonlyArray<string> | "any">([3, constant("any" as const)], [1, some(zoneNames, 2)]),
    patterns: weighted<ReadonlyArray<string> | "any">([2, constant("any" as const)], [1, some(patterns, 3)]),
    networks: weighted([1, constant<ReadonlyArray<string>>([])], [1, some(networks, 3)]),
    name,
    zone: weighted<string>([20, constant("hosts.test.")], [4, oneOf(zoneNames)]),
    peer: weighted<string>([20, anyAddress], [1, constant("unknown")]),
    others: weighted<ReadonlyArray<string>>(
      [3, constant([])],
      [1, Arbitrary.array(anyAddress, { minLength: 1, maxLength: 3 })]
    ),
    claimsPeer: weighted([12, constant(true)], [1, constant(false)]),
    version: oneOf(["2.0", "1.0", "api"]),
    wish: weighted<number | "none">([1, constant("none" as const)], [1, oneOf([60, 1, 30, 3600, 100_000])]),
    hosts: zoneSettings,
    lab: zoneSettings,
    openZone: oneOf(["everywhere", "hosts.test.", "lab.hosts.test."]),
    reserved: weighted([8, constant(reservedOnPage)], [1, constant<ReadonlyArray<string>>(["web-#"])])
  }),
  (drawn): Case => ({
    speaker: {
      anonymous: drawn.anonymous,
      zones: drawn.grantZones,
      // Who proves nothing has no patterns in its grant: nobody has given it one.
      patterns: drawn.anonymous ? "any" : drawn.patterns,
      networks: drawn.networks
    },
    name: [...drawn.name.below, drawn.name.where === "same" ? drawn.zone : "elsewhere.test."].join("."),
    zone: drawn.zone,
    addresses: [...new Set([...(drawn.claimsPeer && drawn.peer !== "unknown" ? [drawn.peer] : []), ...drawn.others])],
    peer: drawn.peer,
    version: drawn.version,
    wish: drawn.wish,
    zones: {
      "hosts.test.": drawn.hosts,
      "lab.hosts.test.": drawn.lab,
      "10.in-addr.arpa.": { ...drawn.lab, pointers: true }
    },
    openZone: drawn.openZone,
    reserved: drawn.reserved
  })
)

/** The case as `auth/Policy` takes it. */
const asked = (given: Case): Parameters<typeof Policy.decide> => {
  const { speaker } = given
  const settings = given.zones[given.zone]
  const zone =
    settings === undefined
      ? undefined
      : Zone.make(given.zone as DomainName, {
          policy: {
            networks: settings.networks === "none" ? undefined : settings.networks.map((each) => network(each)),
            labelsMax: settings.labelsMax === "unsaid" ? undefined : settings.labelsMax,
            ttlSecondsMin: settings.ttlMin,
            ttlSecondsMax: settings.ttlMax
          }
        })
  return [
    {
      name: speaker.anonymous ? "anonymous" : "somebody",
      kind: speaker.anonymous ? "anonymous" : "key",
      anonymous: speaker.anonymous,
      actsFor: [],
      grant: {
        zones: speaker.zones === "any" ? undefined : (speaker.zones as ReadonlyArray<DomainName>),
        names: speaker.patterns === "any" ? undefined : speaker.patterns,
        networks: speaker.networks.map((each) => network(each)),
        namesMax: undefined
      }
    },
    {
      fqdn: given.name as DomainName,
      zone: given.zone as DomainName,
      addresses: given.addresses as ReadonlyArray<IpAddress.IpAddress>,
      peer: given.peer === "unknown" ? undefined : (given.peer as IpAddress.IpAddress),
      protocol: given.version,
      ttlSeconds: given.wish === "none" ? undefined : given.wish
    },
    zone,
    {
      reservedNames: given.reserved,
      anonymousZone: given.openZone === "everywhere" ? undefined : (given.openZone as DomainName)
    }
  ]
}

const runs = 100_000
/** So often at least each rule has decided, of those runs. */
const eachAtLeast = 500

it.effect(
  "100,000 random cases are decided as a second formulation of the rules decides them, and explained alike",
  () =>
    Effect.gen(function* () {
      const decidedBy = new Map<string, number>()
      const result = yield* Arbitrary.checkEffect(
        cases,
        (given) =>
          Effect.sync(() => {
            const verdict = Policy.decide(...asked(given))
            const second = opinion(given)
            const rule = ruleOf(verdict)
            decidedBy.set(rule, (decidedBy.get(rule) ?? 0) + 1)
            const first = Policy.explain(...asked(given)).find(({ outcome }) => outcome === "failed")
            if ((first?.rule ?? "allowed") !== rule) return false
            return verdict._tag === "Allowed"
              ? second.granted && second.ttl === (verdict.ttlSeconds ?? "none")
              : !second.granted && second.rule === verdict.rule && second.code === verdict.code
          }),
        { runs, seed: "access", maxShrinks: 10_000 }
      )
      assert.isUndefined(Arbitrary.formatCheckFailure(result))
      assert.sameMembers([...decidedBy.keys()], ["allowed", ...Policy.ruleNames.filter((rule) => rule !== "ttl")])
      for (const [rule, times] of decidedBy) assert.isAtLeast(times, eachAtLeast, `${rule} decided`)
    }),
  120_000
)
