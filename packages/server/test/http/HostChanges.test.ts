import { assert, describe, layer } from "@effect/vitest"
import { Registry } from "@prism-dns/core/registry/Registry"
import * as DomainName from "@prism-dns/core/domain/DomainName"
import * as Zone from "@prism-dns/core/domain/Zone"
import { Effect, Option, Redacted } from "effect"
import { IpNetwork } from "effect/net"
import { SqlClient } from "effect/sql"
import { waitUntil } from "../../../core/test/harness/waitUntil.ts"
import { agentToken, type Answer, ask, otherZone, register, server as serverOf, servicesWith, zone } from "./harness.ts"

const reverseZone = DomainName.make("0.0.10.in-addr.arpa")

const server = () => serverOf({}, servicesWith([zone, otherZone, reverseZone].map((name) => Zone.make(name))))

const send = (method: string, path: string, body?: unknown, headers: Record<string, string> = {}) =>
  ask(`/v1${path}`, {
    method,
    headers: { ...(body !== undefined && { "content-type": "application/json" }), ...headers },
    ...(body !== undefined && { body: JSON.stringify(body) })
  })

const post = (body: unknown, query = "") => send("POST", `/hosts${query}`, body)
const batch = (items: ReadonlyArray<unknown>, more: Record<string, unknown> = {}, query = "") =>
  send("POST", `/hosts:batch${query}`, { items, ...more })
const get = (name: string) => send("GET", `/hosts/${name}.${zone}`)

const typeOf = (answer: Answer) => String(answer.json.type).replace("urn:prism-dns:problem:", "")

/** The audit, wherever an entry stands at the moment. */
const entries = Effect.flatMap(
  SqlClient.SqlClient,
  (sql) => sql<{ readonly action: string; readonly reason: string | null }>`
    SELECT sequence, action, subject, reason FROM audit_entry
    UNION SELECT sequence, action, subject, reason FROM audit_log ORDER BY sequence`
)

/** What a dry run must leave as it was. */
const everything = Effect.gen(function* () {
  const sql = yield* SqlClient.SqlClient
  const tables = ["host", "host_address", "host_history", "host_count", "outbox"] as const
  const rows = yield* Effect.forEach(tables, (table) => sql`SELECT * FROM ${sql(table)} ORDER BY 1, 2`)
  return JSON.stringify([rows, yield* entries])
})

describe("registering by the API", () => {
  layer(server(), { excludeTestServices: true })((it) => {
    it.effect(
      "a new host is 201 with its place and tag, without a lease, owned by the caller; the same again renews it",
      () =>
        Effect.gen(function* () {
          const spec = { hostname: "Printer-1", addresses: ["10.0.0.10"], labels: { rack: "7" }, ttlSeconds: 120 }
          const created = yield* post(spec)
          assert.strictEqual(created.status, 201, created.text)
          const { firstSeen, generation, id, lastSeen, publication, ...rest } = created.json
          assert.deepStrictEqual(rest, {
            fqdn: `printer-1.${zone}`,
            hostname: "printer-1",
            zone,
            addresses: ["10.0.0.10"],
            labels: { rack: "7" },
            ttlSeconds: 120,
            lease: "none",
            state: "online",
            owner: "ops",
            outcome: "created"
          })
          assert.strictEqual(firstSeen, lastSeen)
          assert.strictEqual(publication.level, "accepted")
          assert.strictEqual(created.headers.get("location"), `/v1/hosts/printer-1.${zone}`)
          assert.match(created.headers.get("etag")!, new RegExp(`^"${generation}-`))
          const again = yield* post(spec)
          assert.deepStrictEqual([again.status, again.json.outcome], [200, "renewed"])
          assert.deepStrictEqual([again.json.id, again.json.generation], [id, generation])
          const moved = yield* post({ ...spec, addresses: ["10.0.0.11"] })
          assert.deepStrictEqual([moved.status, moved.json.outcome], [200, "changed"])
        })
    )

    it.effect("the answer waits for the level that is asked for, and says no more than was reached", () =>
      Effect.gen(function* () {
        const applied = yield* post({ hostname: "waits", addresses: ["10.0.0.12"], waitFor: "applied" })
        assert.strictEqual(applied.json.publication.level, "applied", applied.text)
        const again = yield* post({ hostname: "waits", addresses: ["10.0.0.12"], waitFor: "applied" })
        assert.deepStrictEqual([again.json.outcome, again.json.publication.level], ["renewed", "applied"])
        // No name server is asked here, so nothing is ever served.
        const late = yield* post({ hostname: "waits", addresses: ["10.0.0.13"], waitFor: "served", waitSeconds: 1 })
        assert.deepStrictEqual([late.status, late.json.publication.level], [200, "applied"])
      })
    )

    it.effect("the zone is said, or follows from a full name", () =>
      Effect.gen(function* () {
        const other = yield* post({ hostname: "far", zone: "LAB.prism.test", addresses: ["10.0.0.14"] })
        assert.strictEqual(other.json.fqdn, "far.lab.prism.test.")
        const full = yield* post({ hostname: `full.${zone}`, addresses: ["10.0.0.15"] })
        assert.strictEqual(full.json.fqdn, `full.${zone}`)
        for (const [body, pointer] of [
          [{ hostname: "x", zone: "nowhere.test", addresses: ["10.0.0.1"] }, "/zone"],
          [{ hostname: "x", zone: reverseZone, addresses: ["10.0.0.1"] }, "/zone"],
          [{ hostname: "x" }, "/addresses"],
          [{ hostname: "x", addresses: [] }, "/addresses"],
          [{ hostname: "x", addresses: ["::ffff:10.0.0.1"] }, "/addresses/0"],
          [{ hostname: "x y", addresses: ["10.0.0.1"] }, "/hostname"],
          [{ hostname: "x", addresses: ["10.0.0.1"], owner: "a b" }, "/owner"],
          [{ hostname: "x", addresses: ["10.0.0.1"], colour: "red" }, "/colour"]
        ] as const) {
          const wrong = yield* post(body)
          assert.deepStrictEqual([wrong.status, typeOf(wrong)], [400, "request-invalid"], wrong.text)
          assert.strictEqual(wrong.json.errors[0].pointer, pointer)
        }
      })
    )

    it.effect("rules of names hold for everybody; a reserved name is given to whoever says why", () =>
      Effect.gen(function* () {
        const wpad = { hostname: "wpad", addresses: ["10.0.0.16"] }
        const refused = yield* post(wpad)
        assert.deepStrictEqual([refused.status, typeOf(refused)], [403, "claim-refused"])
        assert.deepStrictEqual([refused.json.code, refused.json.rule], ["name-reserved", "reserved"])
        assert.strictEqual((yield* post({ ...wpad, reason: "our own proxies" })).status, 201)
        const deep = yield* post({ hostname: "a.b", addresses: ["10.0.0.17"], reason: "so what" })
        assert.deepStrictEqual([deep.status, deep.json.rule], [403, "depth"])
        const loopback = yield* post({ hostname: "loop", addresses: ["127.0.0.1"] })
        assert.deepStrictEqual([loopback.status, loopback.json.rule], [403, "special-addresses"])
      })
    )

    it.effect("a name of somebody else's host is taken, and an owner is given by a transfer", () =>
      Effect.gen(function* () {
        yield* register("taken", "10.0.0.18")
        const taken = yield* post({ hostname: "taken", addresses: ["10.0.0.19"] })
        assert.deepStrictEqual([taken.status, typeOf(taken)], [409, "hostname-taken"])
        const own = yield* post({ hostname: "taken", addresses: ["10.0.0.18"], owner: "rack-7" })
        assert.deepStrictEqual([own.status, own.json.owner, own.json.lease], [200, "rack-7", "none"])
        const path = `/hosts/taken.${zone}/transfer`
        const transferred = yield* send("POST", path, { owner: "rack-8", reason: "moved over" })
        assert.deepStrictEqual([transferred.json.outcome, transferred.json.owner], ["transferred", "rack-8"])
        const same = yield* send("POST", path, { owner: "rack-8", reason: "moved over" })
        assert.deepStrictEqual([same.status, same.json.outcome], [200, "unchanged"])
      })
    )
  })
})

describe("an agent's token at the API", () => {
  const token = Redacted.value(agentToken)
  const asAgent = (method: string, path: string, body?: unknown) =>
    ask(`/v1${path}`, {
      method,
      token,
      ...(body !== undefined && { headers: { "content-type": "application/json" }, body: JSON.stringify(body) })
    })

  const here = serverOf(
    {},
    servicesWith([
      Zone.make(zone, {
        policy: {
          ...Zone.defaultPolicy,
          networks: [IpNetwork.fromStringUnsafe("127.0.0.0/8"), IpNetwork.fromStringUnsafe("10.0.0.0/8")]
        }
      })
    ])
  )

  layer(here, { excludeTestServices: true })((it) => {
    it.effect("registers the machine it speaks from, with a lease, as its own, and nothing beyond its grant", () =>
      Effect.gen(function* () {
        const own = yield* asAgent("POST", "/hosts", { hostname: "mine" })
        assert.strictEqual(own.status, 201, own.text)
        assert.deepStrictEqual(
          [own.json.addresses, own.json.owner, own.json.lease],
          [["127.0.0.1"], "rack-7", "renewed"]
        )
        const foreign = yield* asAgent("POST", "/hosts", { hostname: "mine", addresses: ["10.0.0.1"] })
        assert.deepStrictEqual([foreign.status, foreign.json.rule], [403, "own-addresses"])
        for (const more of [{ owner: "rack-8" }, { lease: "none" }]) {
          const refused = yield* asAgent("POST", "/hosts", { hostname: "mine", ...more })
          assert.deepStrictEqual([refused.status, typeOf(refused)], [403, "forbidden"])
        }
        const reserved = yield* asAgent("POST", "/hosts", { hostname: "wpad", reason: "please" })
        assert.deepStrictEqual([reserved.status, reserved.json.rule], [403, "reserved"])
      })
    )

    it.effect(
      "is an agent's also where it may look around besides, and no more than that where another role lets it",
      () =>
        Effect.gen(function* () {
          const role = {
            name: "printers",
            description: "x",
            permissions: [{ verb: "write", resource: "hosts", names: ["printer-*"] }],
            reason: "x"
          }
          assert.strictEqual((yield* send("POST", "/roles", role)).status, 201)
          const issued = yield* send("POST", "/tokens", {
            name: "rack-9",
            roles: ["agent", "viewer", "printers"],
            allows: "bearer",
            reason: "x"
          })
          assert.strictEqual(issued.status, 201, issued.text)
          const headers = { authorization: `Bearer ${issued.json.token}` }
          yield* post({ hostname: "theirs-9", addresses: ["10.0.0.90"] })
          yield* post({ hostname: "printer-9", addresses: ["10.0.0.91"] })
          const patch = (name: string) => send("PATCH", `/hosts/${name}.${zone}`, { labels: { rack: "9" } }, headers)
          assert.strictEqual((yield* patch("theirs-9")).status, 403)
          const claimed = { hostname: "web-9", addresses: ["10.0.0.92"] }
          assert.strictEqual((yield* send("POST", "/hosts", claimed, headers)).json.rule, "own-addresses")
          const given = { hostname: "web-9", owner: "rack-8" }
          assert.strictEqual((yield* send("POST", "/hosts", given, headers)).status, 403)
          assert.strictEqual((yield* send("POST", "/hosts", { hostname: "web-9" }, headers)).status, 201)
          assert.strictEqual((yield* patch("printer-9")).status, 200)
        })
    )

    it.effect("has a say in its own hosts only, and gives none away", () =>
      Effect.gen(function* () {
        yield* asAgent("POST", "/hosts", { hostname: "own" })
        yield* post({ hostname: "theirs", addresses: ["10.0.0.9"] })
        const labels = yield* asAgent("PATCH", `/hosts/own.${zone}`, { labels: { rack: "7" } })
        assert.deepStrictEqual([labels.status, labels.json.labels], [200, { rack: "7" }])
        assert.strictEqual((yield* asAgent("PATCH", `/hosts/theirs.${zone}`, { labels: { rack: "7" } })).status, 403)
        assert.strictEqual((yield* asAgent("PATCH", `/hosts/own.${zone}`, { addresses: ["10.0.0.9"] })).status, 403)
        const away = { owner: "rack-8", reason: "take it" }
        assert.strictEqual((yield* asAgent("POST", `/hosts/own.${zone}/transfer`, away)).status, 403)
        assert.strictEqual((yield* asAgent("DELETE", `/hosts/own.${zone}`)).status, 403)
        const taken = yield* asAgent("POST", "/hosts", { hostname: "theirs" })
        assert.deepStrictEqual([taken.status, typeOf(taken)], [409, "hostname-taken"])
        const many = yield* asAgent("POST", "/hosts:batch", {
          items: [
            { op: "register", hostname: "own" },
            { op: "change", host: `theirs.${zone}`, ttlSeconds: 5 }
          ]
        })
        assert.deepStrictEqual(
          many.json.results.map(({ status }: any) => status),
          [200, 403]
        )
      })
    )
  })
})

describe("changing by the API", () => {
  layer(server(), { excludeTestServices: true })((it) => {
    it.effect("a patch changes what it names and keeps the rest; null takes away", () =>
      Effect.gen(function* () {
        yield* post({ hostname: "web", addresses: ["10.0.0.20"], labels: { rack: "7", role: "web" }, ttlSeconds: 60 })
        const path = `/hosts/web.${zone}`
        const labels = yield* send("PATCH", path, { labels: { rack: null, site: "north" }, ttlSeconds: null })
        assert.strictEqual(labels.status, 200, labels.text)
        assert.deepStrictEqual(labels.json.labels, { role: "web", site: "north" })
        assert.isUndefined(labels.json.ttlSeconds)
        assert.deepStrictEqual(labels.json.addresses, ["10.0.0.20"])
        const addresses = yield* send("PATCH", path, { addresses: ["10.0.0.22", "10.0.0.21"], waitFor: "applied" })
        assert.deepStrictEqual(addresses.json.addresses, ["10.0.0.21", "10.0.0.22"])
        assert.strictEqual(addresses.json.publication.level, "applied")
        const nothing = yield* send("PATCH", path, { addresses: ["10.0.0.22", "10.0.0.21"] })
        assert.deepStrictEqual([nothing.status, nothing.json.outcome], [200, "unchanged"])
        assert.strictEqual((yield* send("PATCH", `/hosts/none.${zone}`, { ttlSeconds: 5 })).status, 404)
        const many = Object.fromEntries(Array.from({ length: 33 }, (_, i) => [`l${i}`, "x"]))
        assert.strictEqual((yield* send("PATCH", path, { labels: many })).status, 400)
      })
    )

    it.effect(
      "If-Match keeps from undoing what somebody did meanwhile, and says what that was; beats are no change",
      () =>
        Effect.gen(function* () {
          const created = yield* post({ hostname: "both", addresses: ["10.0.0.30"], labels: { rack: "7" } })
          const tag = created.headers.get("etag")!
          const path = `/hosts/both.${zone}`
          yield* post({ hostname: "both", addresses: ["10.0.0.30"], labels: { rack: "7" } })
          const first = yield* send("PATCH", path, { labels: { rack: "8" } }, { "if-match": tag })
          assert.strictEqual(first.status, 200, first.text)
          const second = yield* send("PATCH", path, { labels: { rack: "9" } }, { "if-match": tag })
          assert.deepStrictEqual([second.status, typeOf(second)], [412, "precondition-failed"])
          assert.deepStrictEqual(second.json.changes, [{ pointer: "/labels/rack", before: "7", now: "8" }])
          assert.strictEqual(second.json.changedBy, "ops")
          assert.strictEqual((yield* get("both")).json.labels.rack, "8")
          for (const [method, more] of [
            ["POST", "/retire"],
            ["POST", "/release"],
            ["DELETE", ""]
          ] as const) {
            const body = method === "POST" ? { reason: "test" } : undefined
            assert.strictEqual((yield* send(method, `${path}${more}`, body, { "if-match": tag })).status, 412)
          }
          const third = yield* send("PATCH", path, { labels: { rack: "9" } }, { "if-match": second.json.etag })
          assert.strictEqual(third.json.labels.rack, "9")
        })
    )

    it.effect("DELETE retires, with its reason in the audit, and forgets where that is asked for", () =>
      Effect.gen(function* () {
        yield* post({ hostname: "old", addresses: ["10.0.0.31"] })
        const retired = yield* send("DELETE", `/hosts/old.${zone}?reason=sold%20it`)
        assert.deepStrictEqual([retired.status, retired.json.state, retired.json.outcome], [200, "retired", "retired"])
        assert.strictEqual((yield* send("DELETE", `/hosts/old.${zone}`)).status, 409)
        assert.deepStrictEqual(
          (yield* entries).flatMap(({ action, reason }) => (action === "host.retired" ? [reason] : [])),
          ["sold it"]
        )
        const released = yield* send("DELETE", `/hosts/old.${zone}?release=true`)
        assert.deepStrictEqual([released.status, released.json.outcome], [200, "released"])
        assert.strictEqual((yield* get("old")).status, 404)
      })
    )

    it.effect("the tag of a host answers whoever has it already with 304, until something of it moves", () =>
      Effect.gen(function* () {
        yield* post({ hostname: "tagged", addresses: ["10.0.0.32"], waitFor: "applied" })
        const tag = (yield* get("tagged")).headers.get("etag")!
        const known = yield* send("GET", `/hosts/tagged.${zone}`, undefined, { "if-none-match": tag })
        assert.deepStrictEqual([known.status, known.text], [304, ""])
        yield* send("PATCH", `/hosts/tagged.${zone}`, { ttlSeconds: 77 })
        const changed = yield* send("GET", `/hosts/tagged.${zone}`, undefined, { "if-none-match": tag })
        assert.deepStrictEqual([changed.status, changed.json.ttlSeconds], [200, 77])
      })
    )
  })
})

describe("trying out", () => {
  layer(server(), { excludeTestServices: true })((it) => {
    it.effect("says what would become of a change and of the records, by the same checks; nothing is changed", () =>
      Effect.gen(function* () {
        yield* post({ hostname: "real", addresses: ["10.0.0.40"], ttlSeconds: 60, waitFor: "applied" })
        const before = yield* everything
        const created = yield* post({ hostname: "wish", addresses: ["10.0.0.41"], ttlSeconds: 60 }, "?dryRun=true")
        assert.deepStrictEqual([created.status, created.json.outcome, created.json.dryRun], [200, "created", true])
        assert.deepStrictEqual(created.json.records, [
          { zone, name: `wish.${zone}`, type: "A", after: { ttlSeconds: 60, contents: ["10.0.0.41"] } },
          {
            zone: reverseZone,
            name: `41.${reverseZone}`,
            type: "PTR",
            after: { ttlSeconds: 60, contents: [`wish.${zone}`] }
          }
        ])
        const path = `/hosts/real.${zone}`
        const moved = yield* send("PATCH", `${path}?dryRun=true`, { addresses: ["10.0.0.42"] })
        assert.deepStrictEqual(
          moved.json.records.map((r: any) => `${r.type} ${r.before?.contents ?? "-"} ${r.after?.contents ?? "-"}`),
          ["A 10.0.0.40 10.0.0.42", `PTR real.${zone} -`, `PTR - real.${zone}`]
        )
        const gone = yield* send("DELETE", `${path}?dryRun=true&release=true`)
        assert.deepStrictEqual([gone.json.outcome, gone.json.records.length], ["released", 2])
        const taken = yield* post({ hostname: "wpad", addresses: ["10.0.0.43"] }, "?dryRun=true")
        assert.strictEqual(taken.status, 403)
        const many = yield* batch(
          [
            { op: "register", hostname: "wish", addresses: ["10.0.0.41"] },
            { op: "retire", host: `real.${zone}` },
            { op: "retire", host: `none.${zone}` }
          ],
          {},
          "?dryRun=true"
        )
        assert.deepStrictEqual(
          many.json.results.map((r: any) => r.outcome ?? r.status),
          ["created", "retired", 404]
        )
        assert.strictEqual(many.json.dryRun, true)
        assert.strictEqual(yield* everything, before)
      })
    )
  })
})

describe("batches", () => {
  layer(server(), { excludeTestServices: true })((it) => {
    it.effect("each item is answered by itself, in order; one that is wrong stops no other", () =>
      Effect.gen(function* () {
        yield* post({ hostname: "known", addresses: ["10.0.0.50"] })
        yield* post({ hostname: "sold", addresses: ["10.0.0.51"] })
        const answer = yield* batch(
          [
            { op: "register", hostname: "one", addresses: ["10.0.0.52"] },
            { op: "register", hostname: "two" },
            { op: "register", hostname: "wpad", addresses: ["10.0.0.53"] },
            { op: "change", host: `known.${zone}`, labels: { rack: "1" } },
            { op: "change", host: `known.${zone}`, labels: { row: "2" } },
            { op: "change", host: `known.${zone}`, ttlSeconds: 5, ifMatch: '"1"' },
            { op: "retire", host: `nobody.${zone}` },
            { op: "release", host: `sold.${zone}`, reason: "sold" },
            { op: "dance" },
            { op: "register", hostname: "one", addresses: ["10.0.0.52"] }
          ],
          { waitFor: "applied" }
        )
        assert.strictEqual(answer.status, 200, answer.text)
        assert.deepStrictEqual(
          answer.json.results.map((r: any) => r.outcome ?? r.problem.type.replace("urn:prism-dns:problem:", "")),
          [
            "created",
            "request-invalid",
            "claim-refused",
            "changed",
            "changed",
            "precondition-failed",
            "host-not-found",
            "released",
            "request-invalid",
            "renewed"
          ]
        )
        assert.deepStrictEqual(
          answer.json.results.map((r: any) => r.status),
          [201, 400, 403, 200, 200, 412, 404, 200, 400, 200]
        )
        assert.deepStrictEqual([answer.json.succeeded, answer.json.failed, answer.json.reached], [5, 5, "applied"])
        assert.deepStrictEqual((yield* get("known")).json.labels, { rack: "1", row: "2" })
      })
    )

    it.effect("has 1 to 10,000 items", () =>
      Effect.gen(function* () {
        for (const items of [[], Array.from({ length: 10_001 }, () => ({ op: "retire", host: "x" }))]) {
          assert.strictEqual((yield* batch(items)).status, 400)
        }
      })
    )

    it.effect("of thousands is taken whole, and published", () =>
      Effect.gen(function* () {
        const items = Array.from({ length: 3000 }, (_, i) => ({
          op: "register",
          hostname: `many-${i}`,
          addresses: [`10.1.${i >> 8}.${i & 255}`]
        }))
        const answer = yield* batch(items, { waitFor: "applied", waitSeconds: 60 })
        assert.deepStrictEqual(
          [answer.json.succeeded, answer.json.reached],
          [3000, "applied"],
          answer.text.slice(0, 500)
        )
        const registry = yield* Registry
        const last = Option.getOrThrow(yield* registry.findByName(DomainName.make(`many-2999.${zone}`)))
        assert.deepStrictEqual([...last.addresses], ["10.1.11.183"])
        yield* waitUntil(
          "all are applied",
          Effect.flatMap(SqlClient.SqlClient, (sql) => sql`SELECT COUNT(*) AS n FROM outbox`),
          ([row]) => Number(row!["n"]) === 0
        )
      })
    )
  })
})
