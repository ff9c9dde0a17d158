/**
 * A write of a writer that ended, which PowerDNS carries out after the next
 * writer's: nobody is told `served` in between.
 */
import { assert, layer } from "@effect/vitest"
import { Acknowledgements, type Ticket } from "@prism-dns/core/dns/Acknowledgements"
import { Debts } from "@prism-dns/core/dns/Debts"
import { DnsManager } from "@prism-dns/core/dns/DnsManager"
import { NameServers } from "@prism-dns/core/dns/NameServers"
import { Outbox } from "@prism-dns/core/dns/Outbox"
import { Plans } from "@prism-dns/core/dns/Plans"
import { Provisioner } from "@prism-dns/core/dns/Provisioner"
import { Serving } from "@prism-dns/core/dns/Serving"
import * as RRset from "@prism-dns/core/domain/RRset"
import { PowerDnsDatabases } from "@prism-dns/core/powerdns/PowerDnsDatabases"
import { PowerDnsNodes } from "@prism-dns/core/powerdns/PowerDnsNodes"
import { Registry } from "@prism-dns/core/registry/Registry"
import { Clock, Effect, Layer, Redacted } from "effect"
import { SecureRandom } from "effect/crypto"
import { SqlClient } from "effect/sql"
import { connect, type Socket } from "node:net"
import * as PowerDns from "../harness/PowerDns.ts"
import { waitUntil } from "../harness/waitUntil.ts"
import * as T from "../layers.ts"

const zone = T.forward
const web = T.nameOf("web")

/** How long the next writer doubts; by then the late write has been carried out. */
const doubtMillis = 6000

/** One server after the other, on the database and the PowerDNS around. */
const server = Layer.fresh(
  Layer.unwrap(
    Effect.map(PowerDns.TestPowerDns, ({ dns }) =>
      DnsManager.layer({ pollMillis: 100, doubtMillis }).pipe(
        Layer.provideMerge(Serving.layer()),
        Layer.provideMerge(NameServers.layer),
        Layer.provideMerge(Plans.layer),
        Layer.provideMerge(Provisioner.layer()),
        Layer.provideMerge(Debts.layer.pipe(Layer.orDie)),
        Layer.provideMerge(PowerDnsDatabases.layerOne),
        Layer.provideMerge(PowerDnsNodes.layerSingle(dns)),
        Layer.provideMerge(T.registry({}, [zone])),
        Layer.provide(SecureRandom.layerWebCrypto)
      )
    )
  )
)

const register = (address: string) =>
  Effect.flatMap(Registry, (registry) => registry.register(T.registration("web", address)))

/** What the name server answers, and with NXDOMAIN nothing. */
const answer = Effect.flatMap(PowerDns.TestPowerDns, ({ dns }) =>
  Effect.map(PowerDns.resolve(dns, web, "A"), ({ data }) => data.join(" "))
)

const untilAnswered = (address: string) =>
  waitUntil(`web is ${address}`, answer, (seen) => seen === address, { within: "10 seconds" })

const isServed = (ticket: Ticket) => ticket.end?._tag === "Served"

/** A PATCH on its way whose last byte has not come yet; `end` sends it. */
const patchUnderWay = Effect.fnUntraced(function* (address: string) {
  const { apiKey, apiUrl } = yield* PowerDns.TestPowerDns
  const { hostname, port } = new URL(apiUrl)
  const body = JSON.stringify({
    rrsets: [{ name: web, type: "A", ttl: 60, changetype: "REPLACE", records: [{ content: address, disabled: false }] }]
  })
  const head = [
    `PATCH /api/v1/servers/localhost/zones/${zone.name} HTTP/1.1`,
    `host: ${hostname}:${port}`,
    `x-api-key: ${Redacted.value(apiKey)}`,
    "content-type: application/json",
    `content-length: ${body.length}`,
    "connection: close"
  ]
  const socket = yield* Effect.acquireRelease(
    Effect.callback<Socket>((resume) => {
      const socket = connect(Number(port), hostname, () => resume(Effect.succeed(socket)))
    }),
    (socket) => Effect.sync(() => void socket.destroy())
  )
  let text = ""
  socket.on("data", (data) => (text += data.toString()))
  socket.write(`${head.join("\r\n")}\r\n\r\n${body.slice(0, -1)}`)
  return {
    end: Effect.sync(() => void socket.write(body.slice(-1))),
    text: Effect.sync(() => text)
  }
})

/**
 * The host is served with .1. PowerDNS stands still, with a write of .2 before it by a server that ends. The next one
 * says `what`, PowerDNS goes on, and answers `wanted`; then it carries out the write of before.
 */
const scene = Effect.fnUntraced(function* (what: Effect.Effect<Ticket | undefined, unknown, Registry>, wanted: string) {
  const powerdns = yield* PowerDns.TestPowerDns
  yield* Effect.gen(function* () {
    const { ticket } = yield* register("192.0.2.1")
    yield* (yield* Acknowledgements).wait(ticket!, "served")
  }).pipe(Effect.provide(server))

  yield* powerdns.freeze
  const sent = [RRset.make(web, "A", 60, ["192.0.2.2"])]
  yield* Effect.flatMap(Outbox, (outbox) =>
    Effect.andThen(Clock.currentTimeMillis, (nowMillis) => outbox.claim(zone.name, [{ name: web, sent }], nowMillis))
  ).pipe(Effect.provide(Outbox.layer))
  const late = yield* patchUnderWay("192.0.2.2")

  yield* Effect.gen(function* () {
    const sql = yield* SqlClient.SqlClient
    const serving = yield* Serving
    const ticket = (yield* what)!
    yield* powerdns.thaw
    const outcome = yield* (yield* Acknowledgements).wait(ticket)
    assert.strictEqual(outcome._tag, "Applied")
    yield* untilAnswered(wanted)
    yield* waitUntil("the name server was asked", serving.status, ([node]) => node!.unserved === 0)
    assert.isFalse(isServed(ticket))

    yield* late.end
    yield* untilAnswered("192.0.2.2")
    assert.match(yield* late.text, /^HTTP\/1.1 204/)
    assert.isFalse(isServed(ticket))
    assert.strictEqual((yield* sql`SELECT name FROM unserved`).length, 1)

    const end = yield* (yield* Acknowledgements).wait(ticket, "served")
    assert.strictEqual(end._tag, "Served")
    assert.strictEqual(yield* answer, wanted)
    assert.deepStrictEqual(yield* sql`SELECT name FROM unserved`, [])
    assert.deepStrictEqual(yield* sql`SELECT name FROM published WHERE sent IS NOT NULL OR doubt_until IS NOT NULL`, [])
  }).pipe(Effect.provide(server))
}, Effect.scoped)

layer(Layer.merge(PowerDns.layer("sqlite"), T.sqlite()), { timeout: "60 seconds", excludeTestServices: true })(
  "a write of a server that ended, carried out after the next one's",
  (it) => {
    it.effect(
      "does not undo what was told to be served: that is told when it can come no more, and what it left is mended",
      () =>
        scene(
          Effect.map(register("192.0.2.3"), ({ ticket }) => ticket),
          "192.0.2.3"
        ),
      60_000
    )

    it.effect(
      "does not bring back a host whose release was told to be served",
      () =>
        scene(
          Effect.flatMap(Registry, (registry) =>
            Effect.map(registry.release(web, { name: "ops", peer: undefined }, "gone"), ({ ticket }) => ticket)
          ),
          ""
        ),
      60_000
    )
  }
)
