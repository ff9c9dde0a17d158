/** The main job on real parts: a host registers, and its name resolves. */
import { assert, describe, it } from "@effect/vitest"
import { Effect, Fiber, Redacted } from "effect"
import { waitUntil } from "../../core/test/harness/waitUntil.ts"
import * as Agent from "./harness/AgentClient.ts"
import * as Deployment from "./harness/Deployment.ts"

const fqdn = (host: string) => `${host}.${Deployment.zone}`
const pointer = (address: string) => `${address.split(".").toReversed().join(".")}.in-addr.arpa`

const soaSerial = (data: ReadonlyArray<string>) => (JSON.parse(data[0]!) as { readonly serial: number }).serial

describe("the main job", () => {
  it.live("a frame followed at once by FIN or by a reset becomes A and PTR within a second", () =>
    Effect.gen(function* () {
      const { tcp, untilDig } = yield* Deployment.start()
      for (const [host, how, from] of [
        ["by-fin", "fin", "127.0.20.1"],
        ["by-reset", "reset", "127.0.20.2"]
      ] as const) {
        yield* Agent.sendAndClose(tcp(), Agent.frame(host), how, { from })
        yield* untilDig(fqdn(host), "A", [from])
        yield* untilDig(pointer(from), "PTR", [fqdn(host)])
      }
    }).pipe(Effect.scoped)
  )

  it.live("over IPv6 it becomes AAAA and PTR", () =>
    Effect.gen(function* () {
      const { prism, tcp, untilDig } = yield* Deployment.start({ tcp: { host: "::", port: 0 } })
      assert.strictEqual(prism.ready().tcp.host, "::")
      for (const [host, how] of [
        ["six", "fin"],
        ["six-reset", "reset"]
      ] as const) {
        yield* Agent.sendAndClose({ host: "::1", port: tcp().port }, Agent.frame(host), how)
        yield* untilDig(fqdn(host), "AAAA", ["::1"])
        yield* untilDig(`1${".0".repeat(31)}.ip6.arpa`, "PTR", [fqdn(host)])
      }
      // The listener takes both families; an IPv4 peer is an IPv4 host.
      yield* Agent.sendAndClose({ host: "127.0.0.1", port: tcp().port }, Agent.frame("four"), "reset", {
        from: "127.0.20.9"
      })
      yield* untilDig(fqdn("four"), "A", ["127.0.20.9"])
    }).pipe(Effect.scoped)
  )

  it.live("a frame sent byte by byte becomes A and PTR", () =>
    Effect.gen(function* () {
      const { tcp, untilDig } = yield* Deployment.start()
      const client = yield* Agent.connect(tcp(), { from: "127.0.20.3" })
      for (const byte of Agent.frame("drip")) {
        yield* Effect.callback<void>((resume) => {
          client.socket.write(new Uint8Array([byte]), () => resume(Effect.void))
        })
      }
      client.socket.destroy()
      yield* untilDig(fqdn("drip"), "A", ["127.0.20.3"])
      yield* untilDig(pointer("127.0.20.3"), "PTR", [fqdn("drip")])
    }).pipe(Effect.scoped)
  )

  it.live("a host that moves is followed: never without an address, a higher serial, the old PTR gone", () =>
    Effect.gen(function* () {
      const { dig, tcp, untilDig } = yield* Deployment.start()
      yield* Agent.register(tcp(), "mover", { from: "127.0.21.1" })
      const serialBefore = soaSerial(yield* dig(Deployment.zone, "SOA"))

      // Someone asks all the time while the host goes to and fro.
      const seen = new Set<string>()
      const asking = yield* dig(fqdn("mover"), "A").pipe(
        Effect.tap((data) => Effect.sync(() => seen.add(data.join()))),
        Effect.forever,
        Effect.forkChild
      )
      for (let round = 0; round < 10; round++) {
        for (const from of ["127.0.21.2", "127.0.21.1"]) {
          const answer = yield* Agent.register(tcp(), "mover", { from })
          assert.deepInclude(answer, { status: "success", address: from, level: "applied" })
        }
      }
      yield* Agent.register(tcp(), "mover", { from: "127.0.21.2" })
      yield* untilDig(fqdn("mover"), "A", ["127.0.21.2"])
      yield* Fiber.interrupt(asking)
      assert.deepStrictEqual([...seen].sort(), ["127.0.21.1", "127.0.21.2"])
      yield* untilDig(pointer("127.0.21.2"), "PTR", [fqdn("mover")])
      yield* untilDig(pointer("127.0.21.1"), "PTR", [])
      assert.isAbove(soaSerial(yield* dig(Deployment.zone, "SOA")), serialBefore)
    }).pipe(Effect.scoped)
  )

  it.live("a host that was offline in between is right again, at the same and at another address", () =>
    Effect.gen(function* () {
      const leases = { beatInterval: "1s", grace: "500ms", sweepInterval: "200ms", flushInterval: "200ms" }
      const { get, tcp, untilDig } = yield* Deployment.start({
        leases,
        zones: [
          { name: Deployment.zone, whenOffline: "withdraw", withdrawAfter: "200ms" },
          { name: "127.in-addr.arpa" }
        ]
      })
      const state = (host: string) =>
        Effect.map(get(`/v1/hosts/${fqdn(host)}`), (body) => (body as { readonly state: string }).state)
      yield* Agent.register(tcp(), "sleeper", { from: "127.0.22.1" })
      yield* Agent.register(tcp(), "traveller", { from: "127.0.22.2" })
      for (const [host, address] of [
        ["sleeper", "127.0.22.1"],
        ["traveller", "127.0.22.2"]
      ] as const) {
        yield* waitUntil(`${host} is offline`, state(host), (seen) => seen === "offline", { within: "15 seconds" })
        yield* untilDig(fqdn(host), "A", [], "5 seconds")
        yield* untilDig(pointer(address), "PTR", [], "5 seconds")
      }
      yield* Agent.register(tcp(), "sleeper", { from: "127.0.22.1" })
      yield* Agent.register(tcp(), "traveller", { from: "127.0.22.3" })
      yield* untilDig(fqdn("sleeper"), "A", ["127.0.22.1"])
      yield* untilDig(pointer("127.0.22.1"), "PTR", [fqdn("sleeper")])
      yield* untilDig(fqdn("traveller"), "A", ["127.0.22.3"])
      yield* untilDig(pointer("127.0.22.3"), "PTR", [fqdn("traveller")])
      yield* untilDig(pointer("127.0.22.2"), "PTR", [])
      assert.strictEqual(yield* state("sleeper"), "online")
    }).pipe(Effect.scoped)
  )

  it.live("of 501 names one that PowerDNS refuses is parked with PowerDNS's reason, and the others are served", () =>
    Effect.gen(function* () {
      const { dig, powerdns, publications, tcp } = yield* Deployment.start()
      yield* Agent.register(tcp(), "first", { from: "127.0.30.1" })
      // A CNAME in the way: PowerDNS has no room for an address beside it.
      yield* Effect.promise(async () => {
        const response = await fetch(`${powerdns.apiUrl}/api/v1/servers/localhost/zones/${Deployment.zone}.`, {
          method: "PATCH",
          headers: { "X-API-Key": Redacted.value(powerdns.apiKey) },
          body: JSON.stringify({
            rrsets: [
              {
                name: `${fqdn("host-250")}.`,
                type: "CNAME",
                ttl: 60,
                changetype: "REPLACE",
                records: [{ content: "elsewhere.example." }]
              }
            ]
          })
        })
        assert.strictEqual(response.status, 204)
      })
      const hosts = Array.from({ length: 501 }, (_, i) => ({
        name: `host-${i}`,
        from: `127.0.${31 + (i >> 7)}.${1 + (i & 127)}`
      }))
      yield* Effect.forEach(hosts, ({ from, name }) => Agent.sendAndClose(tcp(), Agent.frame(name), "fin", { from }), {
        concurrency: 50
      })
      const seen = yield* waitUntil(
        "nothing is pending but the one",
        publications,
        ({ zones }) =>
          zones.reduce((sum, zone) => sum + zone.pending, 0) === 0 &&
          zones.reduce((sum, zone) => sum + zone.parked, 0) === 1,
        { within: "20 seconds" }
      )
      assert.deepInclude(seen.items[0], { name: `${fqdn("host-250")}.`, state: "parked" })
      assert.match(seen.items[0]!.reason!, /a CNAME record that Prism did not make stands at this name/)
      for (const { from, name } of hosts) {
        assert.deepStrictEqual(yield* dig(fqdn(name), "A"), name === "host-250" ? [] : [from])
        assert.deepStrictEqual(yield* dig(pointer(from), "PTR"), [fqdn(name)])
      }
    }).pipe(Effect.scoped)
  )

  it.live("records of people are answered beside those of hosts, and keep hosts from names of theirs", () =>
    Effect.gen(function* () {
      const { dig, prism, tcp, untilDig } = yield* Deployment.start()
      const { adminToken, http } = prism.ready()
      const put = (name: string, type: string, content: string) =>
        Effect.promise(async () => {
          const path = `/v1/zones/${Deployment.zone}/records/${name}/${type}?waitFor=served`
          const response = await fetch(`${http.url}${path}`, {
            method: "PUT",
            headers: { authorization: `Bearer ${adminToken}`, "content-type": "application/json" },
            body: JSON.stringify({ contents: [content] })
          })
          const body = (await response.json()) as {
            readonly record: { readonly publication: { readonly level: string } }
          }
          assert.deepStrictEqual(
            [response.status, body.record.publication.level],
            [200, "served"],
            JSON.stringify(body)
          )
        })
      yield* Agent.register(tcp(), "shop", { from: "127.0.23.1" })
      yield* put(fqdn("shop"), "MX", "10 mail.example.")
      yield* put(fqdn("buy"), "CNAME", `${fqdn("shop")}.`)
      yield* untilDig(fqdn("shop"), "A", ["127.0.23.1"])
      yield* untilDig(fqdn("buy"), "CNAME", [fqdn("shop")])
      const [mx] = yield* dig(fqdn("shop"), "MX")
      assert.deepStrictEqual(JSON.parse(mx!), { preference: 10, exchange: "mail.example" })
      const refused = yield* Agent.register(tcp(), "buy", { from: "127.0.23.2" })
      assert.deepInclude(refused, { status: "error" })
      yield* untilDig(fqdn("buy"), "CNAME", [fqdn("shop")])
    }).pipe(Effect.scoped)
  )
})
