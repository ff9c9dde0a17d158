import { assert, describe, it } from "@effect/vitest"
import { Effect, Layer, Metric } from "effect"
import { TestClock } from "effect/testing"
import { Admission, type AdmissionOptions, networkOf } from "@prism-dns/core/auth/Admission"
import { buckets } from "@prism-dns/core/auth/AuthMetrics"
import type { Claim } from "@prism-dns/core/auth/Policy"
import { anonymous, type Principal, unlimited } from "@prism-dns/core/auth/Principal"
import { Zones } from "@prism-dns/core/dns/Zones"
import * as DomainName from "@prism-dns/core/domain/DomainName"
import * as IpAddress from "@prism-dns/core/domain/IpAddress"
import * as Zone from "@prism-dns/core/domain/Zone"

const zone = DomainName.make("hosts.test")

const admission = (options: Partial<AdmissionOptions> = {}) =>
  Admission.layer({ anonymous: "open", ...options }).pipe(
    Layer.provide(Zones.layer([Zone.make(DomainName.make("10.in-addr.arpa")), Zone.make(zone)]))
  )

const principal = (name: string, kind: Principal["kind"] = "key"): Principal => ({
  name,
  kind,
  anonymous: kind === "anonymous",
  actsFor: [],
  grant: unlimited
})

const claim = (name: string, address = "10.0.0.1"): Claim => ({
  fqdn: DomainName.make(`${name}.hosts.test`),
  zone,
  addresses: [IpAddress.make(address)],
  peer: IpAddress.make(address),
  protocol: "1.0"
})

const one = { ratePerSecond: 0.1, burst: 1 }
const fleet = { ratePerSecond: 1, burst: 10_000 }

/** The rule that decided. */
const admit = (who: Principal, what: Claim, nowMillis = 0) =>
  Effect.map(Admission, ({ admit }) => {
    const verdict = admit(who, what, nowMillis)
    return verdict._tag === "Allowed" ? "allowed" : verdict.rule
  })

describe("a claim is let in", () => {
  it.effect("when the rules grant it, and refused with their code when not", () =>
    Effect.gen(function* () {
      const { admit } = yield* Admission
      assert.deepStrictEqual(admit(principal("a"), { ...claim("web"), ttlSeconds: 5 }, 0), {
        _tag: "Allowed",
        ttlSeconds: 30
      })
      assert.deepInclude(admit(principal("a"), claim("wpad"), 0), { code: "name-reserved", rule: "reserved" })
      assert.deepInclude(admit(principal("a"), { ...claim("web"), zone: DomainName.make("other.test") }, 0), {
        code: "zone-not-allowed"
      })
    }).pipe(Effect.provide(admission()))
  )

  it.effect("at the rate of its principal, of a token as a whole fleet", () =>
    Effect.gen(function* () {
      assert.strictEqual(yield* admit(principal("key"), claim("a")), "allowed")
      assert.strictEqual(yield* admit(principal("key"), claim("b", "10.0.1.1")), "rate-principal")
      assert.strictEqual(yield* admit(principal("other"), claim("b", "10.0.1.1")), "allowed")
      for (let i = 0; i < 100; i++) {
        assert.strictEqual(yield* admit(principal("token", "token"), claim(`t-${i}`, `10.1.${i}.1`)), "allowed")
      }
      assert.strictEqual(yield* admit(principal("key"), claim("c", "10.0.2.1"), 10_000), "allowed")
    }).pipe(Effect.provide(admission({ limits: { identity: one, token: fleet, network: fleet, name: fleet } })))
  )

  it.effect("at the rate of its name, which nobody else uses up", () =>
    Effect.gen(function* () {
      assert.strictEqual(yield* admit(principal("a"), claim("web")), "allowed")
      assert.strictEqual(yield* admit(principal("a"), claim("web", "10.0.1.1")), "rate-name")
      assert.strictEqual(yield* admit(principal("b"), claim("web", "10.0.1.1")), "allowed")
    }).pipe(Effect.provide(admission({ limits: { name: one } })))
  )

  it.effect("at the rate of the network it comes from", () =>
    Effect.gen(function* () {
      assert.strictEqual(yield* admit(principal("a"), claim("a", "10.0.0.1")), "allowed")
      assert.strictEqual(yield* admit(principal("b"), claim("b", "10.0.0.200")), "rate-network")
      assert.strictEqual(yield* admit(principal("b"), claim("b", "10.0.1.1")), "allowed")
      assert.strictEqual(networkOf(IpAddress.make("2a00:1:2:3:4::9")), "2a00:1:2:3::/64")
    }).pipe(Effect.provide(admission({ limits: { network: one } })))
  )

  it.effect("without proof, only in the open zone and at one rate for all who prove nothing", () =>
    Effect.gen(function* () {
      const { anonymousZone, admit: let_ } = yield* Admission
      assert.strictEqual(anonymousZone, zone)
      assert.strictEqual(yield* admit(anonymous, claim("a")), "allowed")
      assert.deepInclude(let_(anonymous, claim("b", "10.0.1.1"), 0), {
        rule: "rate-anonymous",
        code: "rate-limited",
        retryAfterSeconds: 10
      })
      assert.strictEqual(yield* admit(principal("a"), claim("b", "10.0.1.1")), "allowed")
    }).pipe(Effect.provide(admission({ anonymous: { zone: undefined, ...one } })))
  )
})

describe("what does not count", () => {
  it.effect("is a claim that changed nothing", () =>
    Effect.gen(function* () {
      const { giveBack } = yield* Admission
      for (let i = 0; i < 5; i++) {
        assert.strictEqual(yield* admit(anonymous, claim("a")), "allowed")
        giveBack(anonymous, claim("a"))
      }
      assert.strictEqual(yield* admit(anonymous, claim("a")), "allowed")
      assert.strictEqual(yield* admit(anonymous, claim("a")), "rate-anonymous")
    }).pipe(Effect.provide(admission({ anonymous: { zone, ...one }, limits: { name: one, network: one } })))
  )

  it.effect("is one that another rate refused", () =>
    Effect.gen(function* () {
      assert.strictEqual(yield* admit(principal("a"), claim("a", "10.0.0.1")), "allowed")
      // Refused for the network; the rates of the principal and the name are as before.
      for (let i = 0; i < 5; i++) {
        assert.strictEqual(yield* admit(principal("b"), claim("b", "10.0.0.2")), "rate-network")
      }
      assert.strictEqual(yield* admit(principal("b"), claim("b", "10.0.1.2")), "allowed")
    }).pipe(Effect.provide(admission({ limits: { identity: one, name: one, network: one } })))
  )

  it.effect("is an explanation", () =>
    Effect.gen(function* () {
      const { explain } = yield* Admission
      const rates = () =>
        explain(principal("a"), claim("a")).flatMap(({ outcome, rule }) =>
          rule.startsWith("rate-") ? [`${rule} ${outcome}`] : []
        )
      const free = ["rate-principal passed", "rate-name passed", "rate-network passed"]
      assert.deepStrictEqual(rates(), free)
      assert.deepStrictEqual(rates(), free)
      yield* admit(principal("a"), claim("a"))
      assert.deepStrictEqual(rates(), ["rate-principal failed", "rate-name failed", "rate-network failed"])
      yield* TestClock.adjust("10 seconds")
      assert.deepStrictEqual(rates(), free)
    }).pipe(Effect.provide(admission({ limits: { identity: one, name: one, network: one } })))
  )
})

it.effect("rates kept in memory are bounded: those unused for longest are forgotten", () =>
  Effect.gen(function* () {
    for (let i = 0; i < 10; i++) yield* admit(principal(`p-${i}`), claim(`n-${i}`, `10.0.${i}.1`))
    // Used again, so it is not among the oldest any more.
    assert.strictEqual(yield* admit(principal("p-9"), claim("n-9", "10.0.9.1")), "rate-principal")
    for (let i = 10; i < 1009; i++) yield* admit(principal(`p-${i}`), claim(`n-${i}`, `10.0.${i % 250}.1`))
    const size = (kind: string) =>
      Effect.map(Metric.value(Metric.withAttributes(buckets, { kind })), ({ value }) => value)
    assert.strictEqual(yield* size("principal"), 1000)
    assert.strictEqual(yield* size("name"), 1000)
    assert.strictEqual(yield* admit(principal("p-9"), claim("n-9", "10.0.9.1")), "rate-principal")
    assert.strictEqual(yield* admit(principal("p-0"), claim("n-0", "10.0.0.1")), "allowed")
  }).pipe(
    Effect.provide(admission({ limits: { identity: one, name: fleet, network: fleet, bucketsMax: 1000 } })),
    Effect.provideService(Metric.MetricRegistry, new Map())
  )
)

it.effect("the limits of a new server let a fleet of 10,000 in at once, behind one address with one token", () =>
  Effect.gen(function* () {
    const { admit } = yield* Admission
    for (let i = 0; i < 10_000; i++) {
      assert.strictEqual(admit(principal("fleet", "token"), claim(`host-${i}`), 0)._tag, "Allowed")
    }
  }).pipe(Effect.provide(admission()))
)

it.effect("a principal holds as many names as its grant says, or else as is usual for its kind", () =>
  Effect.gen(function* () {
    const { hostsMax } = yield* Admission
    assert.strictEqual(hostsMax(principal("a")), 3)
    assert.strictEqual(hostsMax(principal("a", "certificate")), 3)
    assert.strictEqual(hostsMax(principal("a", "token")), 50)
    assert.strictEqual(hostsMax(anonymous), 50)
    assert.strictEqual(hostsMax({ ...principal("a"), grant: { ...unlimited, namesMax: 7 } }), 7)
  }).pipe(Effect.provide(admission({ limits: { namesPerIdentity: 3, namesPerToken: 50 } })))
)
