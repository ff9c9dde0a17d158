import { assert, layer } from "@effect/vitest"
import { NodeHttpClient } from "@effect/platform-node"
import { Effect, Layer, Option, Redacted } from "effect"
import { FetchHttpClient } from "effect/http"
import { PowerDnsClient } from "@prism-dns/core/powerdns/PowerDnsClient"
import * as PowerDns from "../harness/PowerDns.ts"
import { waitUntil } from "../harness/waitUntil.ts"
import { disable, heldIn, newZone, replace, suite } from "./PowerDnsSuite.ts"

suite("PowerDNS on sqlite", PowerDns.layer("sqlite"))
suite("PowerDNS on lmdb", PowerDns.layer("lmdb"))
suite("PowerDNS on pgsql", PowerDns.layer("pgsql"))
suite(
  "PowerDNS on sqlite, by node:http",
  Layer.unwrap(
    Effect.map(PowerDns.TestPowerDns, ({ apiKey, apiUrl }) => PowerDnsClient.layer({ node: "u", url: apiUrl, apiKey }))
  ).pipe(
    Layer.provide(NodeHttpClient.layerNodeHttpOptions({ keepAlive: true })),
    Layer.provide(PowerDns.layerServer("sqlite"))
  )
)

/** The API as another program uses it. */
const raw = Effect.fnUntraced(function* (method: string, path: string, body: unknown) {
  const { apiKey, apiUrl } = yield* PowerDns.TestPowerDns
  const response = yield* Effect.promise(() =>
    fetch(`${apiUrl}/api/v1/servers/localhost${path}`, {
      method,
      headers: { "X-API-Key": Redacted.value(apiKey) },
      body: JSON.stringify(body)
    })
  )
  assert.isTrue(response.ok, `${method} ${path}: ${response.status} ${yield* Effect.promise(() => response.text())}`)
})

const options = { timeout: "60 seconds", excludeTestServices: true } as const

for (const backend of ["sqlite", "lmdb", "pgsql"] as const) {
  layer(PowerDns.layer(backend), options)(`a real PowerDNS on ${backend}`, (it) => {
    it.effect("answers DNS with a change as soon as it is made, old answers cached or not", () =>
      Effect.gen(function* () {
        const { dns } = yield* PowerDns.TestPowerDns
        const { at, client, zone } = yield* newZone
        for (const address of ["192.0.2.1", "192.0.2.2", "192.0.2.3"]) {
          yield* client.patch(zone, [replace(at("a"), "A", [address])])
          const answer = yield* PowerDns.resolve(dns, at("a"), "A")
          assert.deepStrictEqual(answer, {
            rcode: "NOERROR",
            isAuthoritative: true,
            data: [address],
            ttlSeconds: 60,
            referral: []
          })
        }
      })
    )

    it.effect("answers no disabled set, from the moment on, and answers it again once it is replaced", () =>
      Effect.gen(function* () {
        const { dns } = yield* PowerDns.TestPowerDns
        const { at, client, zone } = yield* newZone
        const ask = (label: string) =>
          Effect.map(PowerDns.resolve(dns, at(label), "A"), ({ data, rcode }) => [rcode, ...data].join(" "))
        const sets = [replace(at("a"), "A", ["192.0.2.1"]), replace(at("both"), "A", ["192.0.2.1"])]
        yield* client.patch(zone, [...sets, replace(at("both"), "AAAA", ["2001:db8::1"])])
        assert.strictEqual(yield* ask("a"), "NOERROR 192.0.2.1")
        yield* client.patch(zone, [disable(at("a"), "A", ["192.0.2.1"]), disable(at("both"), "A", ["192.0.2.1"])])
        assert.strictEqual(yield* ask("a"), "NXDOMAIN")
        assert.strictEqual(yield* ask("both"), "NOERROR")
        assert.deepStrictEqual((yield* PowerDns.resolve(dns, at("both"), "AAAA")).data, ["2001:db8::1"])
        yield* client.patch(zone, sets)
        assert.strictEqual(yield* ask("a"), "NOERROR 192.0.2.1")
        assert.strictEqual(yield* ask("both"), "NOERROR 192.0.2.1")
      })
    )

    it.effect("gives a zone that others have made the settings it needs", () =>
      Effect.gen(function* () {
        const { client, zone } = yield* newZone
        yield* raw("PUT", `/zones/${zone}`, { soa_edit_api: "EPOCH", api_rectify: true })
        yield* client.configureZone(zone)
        const found = Option.getOrThrow(yield* client.findZone(zone))
        assert.deepInclude(found, { soaEditApi: "INCREASE", apiRectify: false, kind: "Native" })
      })
    )

    it.effect(
      "leaves rectify on where a signed zone needs it, and off where answers are signed as they are asked for",
      () =>
        Effect.gen(function* () {
          const { client, zone } = yield* newZone
          yield* raw("PUT", `/zones/${zone}`, { dnssec: true, api_rectify: true })
          yield* client.configureZone(zone)
          assert.deepInclude(Option.getOrThrow(yield* client.findZone(zone)), { dnssec: true, apiRectify: true })
          yield* raw("PUT", `/zones/${zone}`, { nsec3param: "1 0 0 -", nsec3narrow: true })
          yield* client.configureZone(zone)
          assert.deepInclude(Option.getOrThrow(yield* client.findZone(zone)), { nsec3Narrow: true, apiRectify: false })
        })
    )

    it.effect("shows no disabled record, asked by name or whole", () =>
      Effect.gen(function* () {
        const { at, client, zone } = yield* newZone
        const records = [{ content: "192.0.2.1" }, { content: "192.0.2.2", disabled: true }]
        yield* raw("PATCH", `/zones/${zone}`, {
          rrsets: [
            { name: at("half"), type: "A", ttl: 60, changetype: "REPLACE", records },
            { name: at("off"), type: "A", ttl: 60, changetype: "REPLACE", records: records.slice(1) }
          ]
        })
        const expected = [`${at("half")} 60 A 192.0.2.1`]
        assert.deepStrictEqual(heldIn(yield* client.exportZone(zone), zone), expected)
        assert.deepStrictEqual(heldIn(yield* client.rrsets(zone, [at("half"), at("off")]), zone), expected)
      })
    )

    it.effect("reads foreign records with tabs and line ends in their text", () =>
      Effect.gen(function* () {
        const { at, client, zone } = yield* newZone
        yield* client.patch(zone, [
          replace(at("odd"), "TXT", ['"tab\there"', '"line\nend"']),
          replace(at("zz"), "A", ["192.0.2.1"])
        ])
        const sets = yield* client.exportZone(zone)
        assert.deepStrictEqual(
          sets.find(({ name }) => name === at("odd"))?.contents.map((text) => text.replace(/\\0\d\d|\t|\n/g, "?")),
          ['"line?end"', '"tab?here"']
        )
        assert.deepStrictEqual(sets.find(({ name }) => name === at("zz"))?.contents, ["192.0.2.1"])
      })
    )

    it.effect("keeps one record of each name when four write it at once", () =>
      Effect.gen(function* () {
        const { at, client, zone } = yield* newZone
        const names = Array.from({ length: 15 }, (_, i) => at(`h${i}`))
        for (const name of names) {
          yield* Effect.forEach(
            ["192.0.2.1", "192.0.2.2", "192.0.2.3", "192.0.2.4"],
            // SQLite refuses some of them as locked; what counts is what is left
            (address) => Effect.exit(client.patch(zone, [replace(name, "A", [address])])),
            { concurrency: "unbounded" }
          )
        }
        const sets = (yield* client.exportZone(zone)).filter(({ type }) => type === "A")
        assert.deepStrictEqual(
          sets.filter(({ contents }) => contents.length !== 1),
          []
        )
        assert.strictEqual(sets.length, names.length)
      })
    )
  })
}

layer(PowerDns.layer("sqlite", { client: { requestTimeout: "300 millis" } }), options)(
  "a PowerDNS that fails",
  (it) => {
    it.effect("is Unreachable while stopped, and answers again once it is back", () =>
      Effect.gen(function* () {
        const server = yield* PowerDns.TestPowerDns
        const { at, client, zone } = yield* newZone
        yield* server.stop
        const error = yield* Effect.flip(client.patch(zone, [replace(at("a"), "A", ["192.0.2.1"])]))
        assert.strictEqual(error.reason._tag, "Unreachable", error.message)
        yield* server.start
        yield* client.patch(zone, [replace(at("a"), "A", ["192.0.2.1"])])
        assert.strictEqual((yield* client.rrsets(zone, [at("a")])).length, 1)
      })
    )

    it.effect("is Uncertain while frozen: what it had received is applied after the thaw, late", () =>
      Effect.gen(function* () {
        const server = yield* PowerDns.TestPowerDns
        const { at, client, zone } = yield* newZone
        yield* server.freeze
        const error = yield* Effect.flip(client.patch(zone, [replace(at("a"), "A", ["192.0.2.1"])]))
        yield* server.thaw
        assert.strictEqual(error.reason._tag, "Uncertain", error.message)
        yield* waitUntil(
          "the late change is there",
          client.rrsets(zone, [at("a")]),
          (sets) => sets[0]?.contents[0] === "192.0.2.1"
        )
      })
    )

    it.effect("with another key says Unauthorized, and not the key", () =>
      Effect.gen(function* () {
        const { apiUrl } = yield* PowerDns.TestPowerDns
        const wrong = PowerDnsClient.layer({ node: "wrong", url: apiUrl, apiKey: Redacted.make("hunter2-hunter2") })
        const error = yield* Effect.gen(function* () {
          return yield* Effect.flip((yield* PowerDnsClient).server)
        }).pipe(Effect.provide(wrong.pipe(Layer.provide(FetchHttpClient.layer))))
        assert.strictEqual(error.reason._tag, "Unauthorized")
        assert.notInclude(`${error.message}${JSON.stringify(error)}${error.stack ?? ""}`, "hunter2")
      })
    )
  }
)
