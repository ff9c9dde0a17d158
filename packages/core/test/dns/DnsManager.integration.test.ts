import { assert, layer } from "@effect/vitest"
import { Effect, Fiber, Layer } from "effect"
import { Acknowledgements } from "@prism-dns/core/dns/Acknowledgements"
import { DnsManager } from "@prism-dns/core/dns/DnsManager"
import { Outbox } from "@prism-dns/core/dns/Outbox"
import * as Names from "@prism-dns/core/domain/DomainName"
import * as RRset from "@prism-dns/core/domain/RRset"
import * as Zone from "@prism-dns/core/domain/Zone"
import { PowerDnsClient } from "@prism-dns/core/powerdns/PowerDnsClient"
import { Registry } from "@prism-dns/core/registry/Registry"
import * as PowerDns from "../harness/PowerDns.ts"
import { waitUntil } from "../harness/waitUntil.ts"
import * as T from "../layers.ts"

const classless = Zone.make(Names.make("128/25.2.0.192.in-addr.arpa"))
const zones = [...T.zones, classless]

/** Registry and publisher on a new database, before the PowerDNS around. */
const prism = () => Layer.fresh(T.publisher({ pollMillis: 100 }, zones).pipe(Layer.provideMerge(T.sqlite())))

const register = (...args: Parameters<typeof T.registration>) =>
  Effect.flatMap(Registry, (registry) => registry.register(T.registration(...args)))

const resolve = (name: string, type: "A" | "AAAA" | "PTR" | "SOA") =>
  Effect.flatMap(PowerDns.TestPowerDns, ({ dns }) => PowerDns.resolve(dns, name, type))

const data = (name: string, type: "A" | "AAAA" | "PTR") => Effect.map(resolve(name, type), (answer) => answer.data)

const untilServed = (
  name: string,
  type: "A" | "AAAA" | "PTR",
  expected: ReadonlyArray<string>,
  options?: Parameters<typeof waitUntil>[3]
) =>
  waitUntil(
    `${name} ${type} is ${expected.join(" ")}`,
    data(name, type),
    (seen) => seen.join(" ") === expected.join(" "),
    options
  )

const serial = Effect.map(
  Effect.flatMap(PowerDnsClient, (client) => client.findZone(T.forward.name)),
  (zone) => (zone._tag === "Some" ? zone.value.serial : 0)
)

for (const backend of ["sqlite", "lmdb"] as const) {
  layer(PowerDns.layer(backend), { timeout: "60 seconds", excludeTestServices: true })(
    `publishing to a PowerDNS on ${backend}`,
    (it) => {
      const test = <E>(
        name: string,
        body: Effect.Effect<
          void,
          E,
          Registry | Outbox | Acknowledgements | DnsManager | PowerDnsClient | PowerDns.TestPowerDns
        >
      ) => it.effect(name, () => Effect.provide(body, prism()))

      test(
        "a registration is answered by DNS when its ticket is settled, forward and reverse",
        Effect.gen(function* () {
          const first = yield* register("zero", ["192.0.2.9", "2001:db8::9"]) // makes the zones
          yield* (yield* Acknowledgements).wait(first.ticket!)
          const { ticket } = yield* register("one", ["192.0.2.1", "2001:db8::1"])
          const outcome = yield* (yield* Acknowledgements).wait(ticket!)
          assert.strictEqual(outcome._tag, "Applied")
          assert.deepStrictEqual(yield* data("one.hosts.test", "A"), ["192.0.2.1"])
          assert.deepStrictEqual(yield* data("one.hosts.test", "AAAA"), ["2001:db8::1"])
          assert.deepStrictEqual(yield* data(T.pointerOf("192.0.2.1"), "PTR"), ["one.hosts.test"])
          assert.deepStrictEqual(yield* data(T.pointerOf("2001:db8::1"), "PTR"), ["one.hosts.test"])
        })
      )

      test(
        "a pointer in a classless reverse zone is answered there",
        Effect.gen(function* () {
          yield* register("upper", "192.0.2.200")
          yield* untilServed("200.128/25.2.0.192.in-addr.arpa", "PTR", ["upper.hosts.test"])
        })
      )

      test(
        "another address follows with no moment without one, a higher serial, and the old pointer gone",
        Effect.gen(function* () {
          // Nobody asks before it is written: "no such name" of that moment would be kept for a minute (see below).
          const first = yield* register("two", "192.0.2.2")
          yield* (yield* Acknowledgements).wait(first.ticket!)
          yield* untilServed("two.hosts.test", "A", ["192.0.2.2"])
          yield* untilServed(T.pointerOf("192.0.2.2"), "PTR", ["two.hosts.test"])
          const before = yield* serial
          const seen = new Set<string>()
          const watcher = yield* data("two.hosts.test", "A").pipe(
            Effect.map((answer) => seen.add(answer.join(" "))),
            Effect.forever,
            Effect.forkChild
          )
          for (const n of [3, 4, 5]) {
            const { ticket } = yield* register("two", `192.0.2.${n}`)
            yield* (yield* Acknowledgements).wait(ticket!)
          }
          // A question that is answered while PowerDNS is written can leave the old answer in its cache for 20 s; `dns/Serving`,
          // which is not here, would have it dropped.
          yield* untilServed("two.hosts.test", "A", ["192.0.2.5"], { within: "30 seconds" })
          yield* Fiber.interrupt(watcher)
          assert.isAbove(seen.size, 0)
          for (const answer of seen) assert.match(answer, /^192\.0\.2\.[2345]$/)
          assert.isAtLeast(yield* serial, before + 3)
          for (const n of [2, 3, 4]) {
            assert.strictEqual((yield* resolve(T.pointerOf(`192.0.2.${n}`), "PTR")).rcode, "NXDOMAIN")
          }
          assert.deepStrictEqual(yield* data(T.pointerOf("192.0.2.5"), "PTR"), ["two.hosts.test"])
        })
      )

      test(
        "a name among 500 at which a CNAME stands is parked with a sentence that says so, and the others are served",
        Effect.gen(function* () {
          const client = yield* PowerDnsClient
          const bad = T.nameOf("m250")
          yield* waitUntil("the zone is there", client.findZone(T.forward.name), (zone) => zone._tag === "Some")
          yield* client.patch(T.forward.name, [
            { _tag: "Replace", rrset: RRset.make(bad, "CNAME", 60, ["elsewhere.test."]) }
          ])
          const results = yield* Effect.forEach(
            Array.from({ length: 500 }, (_, i) => `m${i}`),
            (name) => register(name, "198.51.100.1"),
            { concurrency: "unbounded" }
          )
          const outcomes = yield* Effect.forEach(
            results,
            ({ ticket }) => Effect.flatMap(Acknowledgements, ({ wait }) => wait(ticket!)),
            { concurrency: "unbounded" }
          )
          for (const [i, outcome] of outcomes.entries()) {
            assert.strictEqual(outcome._tag, i === 250 ? "Parked" : "Applied", `m${i}`)
          }
          const [parked] = yield* (yield* Outbox).list({ limit: 10 })
          assert.strictEqual(parked?.name, bad)
          assert.match(parked?.parkedReason ?? "", /a CNAME record that Prism did not make stands at this name/)
          for (const name of ["m0", "m249", "m251", "m499"]) {
            assert.deepStrictEqual(yield* data(`${name}.hosts.test`, "A"), ["198.51.100.1"])
          }
        })
      )

      test(
        "an A record that someone else made stays as it is",
        Effect.gen(function* () {
          const client = yield* PowerDnsClient
          yield* waitUntil("the zone is there", client.findZone(T.forward.name), (zone) => zone._tag === "Some")
          yield* client.patch(T.forward.name, [
            { _tag: "Replace", rrset: RRset.make(T.nameOf("theirs"), "A", 300, ["203.0.113.1"]) }
          ])
          const { ticket } = yield* register("theirs", "198.51.100.1")
          assert.strictEqual((yield* (yield* Acknowledgements).wait(ticket!))._tag, "Parked")
          assert.deepStrictEqual(yield* data("theirs.hosts.test", "A"), ["203.0.113.1"])
        })
      )

      test(
        "what is registered while PowerDNS is stopped is served within 5 s of its return",
        Effect.gen(function* () {
          const server = yield* PowerDns.TestPowerDns
          yield* register("known", "192.0.2.20")
          yield* untilServed("known.hosts.test", "A", ["192.0.2.20"])
          yield* server.stop
          yield* register("known", "192.0.2.21")
          yield* register("fresh", "192.0.2.22")
          yield* waitUntil(
            "the trouble shows",
            Effect.flatMap(DnsManager, ({ status }) => status),
            (all) => all.some(({ error, zone }) => zone === T.forward.name && error !== undefined),
            { within: "20 seconds" }
          )
          yield* server.start
          yield* untilServed("known.hosts.test", "A", ["192.0.2.21"])
          yield* untilServed("fresh.hosts.test", "A", ["192.0.2.22"])
          yield* untilServed(T.pointerOf("192.0.2.22"), "PTR", ["fresh.hosts.test"])
          yield* untilServed(T.pointerOf("192.0.2.20"), "PTR", [])
          yield* waitUntil("nothing is pending", (yield* Outbox).list({ limit: 10 }), (list) => list.length === 0)
        })
      )
    }
  )
}
