import { assert, describe, it, layer } from "@effect/vitest"
import { Api } from "@prism-dns/core/api/Api"
import * as Client from "@prism-dns/core/api/Client"
import { StorageUnavailable } from "@prism-dns/core/api/Problems"
import { Outbox } from "@prism-dns/core/dns/Outbox"
import { Plans } from "@prism-dns/core/dns/Plans"
import * as DomainName from "@prism-dns/core/domain/DomainName"
import * as IpAddress from "@prism-dns/core/domain/IpAddress"
import * as RRset from "@prism-dns/core/domain/RRset"
import { PowerDnsClient } from "@prism-dns/core/powerdns/PowerDnsClient"
import { PowerDnsMemory } from "@prism-dns/core/powerdns/PowerDnsMemory"
import { Registry } from "@prism-dns/core/registry/Registry"
import { Effect, Layer, Redacted } from "effect"
import { HttpRouter, HttpServer } from "effect/http"
import { HttpApiTest } from "effect/http-api"
import { SqlClient, SqlError } from "effect/sql"
import { waitUntil } from "../../../core/test/harness/waitUntil.ts"
import { requestCheck, routerConfig } from "../../src/http/Answers.ts"
import * as Authentication from "../../src/http/Authentication.ts"
import * as Guards from "../../src/http/Guards.ts"
import * as HostChanges from "../../src/http/HostChanges.ts"
import * as Hosts from "../../src/http/Hosts.ts"
import * as Publications from "../../src/http/Publications.ts"
import { adminToken, agentToken, otherZone, register, services, zone } from "./harness.ts"
import { audit as auditTable } from "../../../core/test/harness/audit.ts"

const handlers = Layer.mergeAll(Hosts.layer, HostChanges.layer, Publications.layer, Guards.layer).pipe(
  Layer.provideMerge(Authentication.layer),
  Layer.provideMerge(requestCheck),
  Layer.merge(HttpServer.layerServices)
)

const testLayer = handlers.pipe(Layer.provideMerge(services))

const client = HttpApiTest.groups(Api, ["hosts", "hostChanges", "publications", "guards"]).pipe(
  Effect.provideService(HttpRouter.RouterConfig, routerConfig),
  Effect.provide(Client.withToken(adminToken))
)

/** Of a change without conditions, carried out. */
const asIs = { query: {}, headers: {} } as const

const body = <B, E, R>(answer: Effect.Effect<{ readonly body: B }, E, R>) => Effect.map(answer, ({ body }) => body)

const names = (items: ReadonlyArray<{ readonly fqdn: string }>) => items.map(({ fqdn }) => fqdn)

describe("/v1/hosts", () => {
  layer(testLayer, { excludeTestServices: true })((it) => {
    it.effect("a host has the fields outsiders rely on, and says when it was applied", () =>
      Effect.gen(function* () {
        const before = Date.now()
        const host = yield* register("fields", "192.0.2.1")
        const { hosts } = yield* client
        const shown = yield* waitUntil(
          "the host is applied",
          body(hosts.get({ params: { host: host.id }, query: {} })),
          ({ publication }) => publication?.level === "applied"
        )
        const { firstSeen, lastSeen, publication, ...rest } = shown
        assert.deepStrictEqual(rest, {
          id: host.id,
          fqdn: host.fqdn,
          hostname: "fields",
          zone,
          addresses: [IpAddress.make("192.0.2.1")],
          labels: {},
          lease: "renewed",
          state: "online",
          generation: host.generation,
          owner: "rack-7"
        })
        for (const time of [firstSeen!, lastSeen!, publication!.at]) {
          assert.match(time, /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$/)
          assert.isAtLeast(Date.parse(time), before)
        }
        assert.deepStrictEqual(publication, { level: "applied", generation: host.generation, at: publication!.at })
      })
    )

    it.effect("a host shows the labels and the TTL that its agent wishes for", () =>
      Effect.gen(function* () {
        const labels = { rack: "7", role: "web" }
        const host = yield* register("wishes", "192.0.2.61", zone, { labels, ttlSeconds: 120 })
        const { hosts } = yield* client
        const shown = yield* body(hosts.get({ params: { host: host.id }, query: {} }))
        assert.deepStrictEqual([shown.labels, shown.ttlSeconds], [labels, 120])
      })
    )

    it.effect("a host is found by its id and by its full name, in any case, with or without the dot", () =>
      Effect.gen(function* () {
        const host = yield* register("by-name", "192.0.2.2")
        const { hosts } = yield* client
        for (const reference of [host.id, host.id.toUpperCase(), host.fqdn, "By-Name.HOSTS.prism.test"]) {
          assert.strictEqual(
            (yield* body(hosts.get({ params: { host: reference }, query: {} }))).id,
            host.id,
            reference
          )
        }
      })
    )

    it.effect("a bare hostname, an unknown name and text that is no name are not found", () =>
      Effect.gen(function* () {
        yield* register("bare", "192.0.2.3")
        const { hosts } = yield* client
        const references = ["bare", `nobody.${zone}`, "not a name", "0197a000-0000-7000-8000-000000000000", "a/b"]
        for (const reference of references) {
          const error = yield* Effect.flip(body(hosts.get({ params: { host: reference }, query: {} })))
          assert.strictEqual(error._tag, "HostNotFound", reference)
        }
      })
    )

    it.effect("the longest name there can be is found", () =>
      Effect.gen(function* () {
        const label = "x".repeat(63)
        const hostname = [label, label, label, "y".repeat(61 - zone.length)].join(".")
        const host = yield* register(hostname, "192.0.2.4")
        assert.strictEqual(host.fqdn.length, DomainName.nameCharactersMax + 1)
        const { hosts } = yield* client
        assert.strictEqual((yield* body(hosts.get({ params: { host: host.fqdn }, query: {} }))).hostname, hostname)
      })
    )

    it.effect("filters narrow each other down", () =>
      Effect.gen(function* () {
        yield* register("filter-a", "192.0.2.11")
        yield* register("filter-b", "192.0.2.12")
        yield* register("filter-c", "2001:db8::c", otherZone)
        const sql = yield* SqlClient.SqlClient
        yield* sql`UPDATE host SET state = 'offline' WHERE hostname = 'filter-b'`
        const { hosts } = yield* client
        const listed = Effect.fn(function* (query: Parameters<typeof hosts.list>[0]["query"]) {
          return (yield* hosts.list({ query: { q: "filter-", ...query } })).body.items.map(({ hostname }) => hostname)
        })
        assert.deepStrictEqual(yield* listed({}), ["filter-a", "filter-b", "filter-c"])
        assert.deepStrictEqual(yield* listed({ q: "FILTER-B" }), ["filter-b"])
        assert.deepStrictEqual(yield* listed({ q: "filter-b.hosts.p" }), ["filter-b"])
        assert.deepStrictEqual(yield* listed({ q: "ilter-b" }), [])
        assert.deepStrictEqual(yield* listed({ zone: otherZone }), ["filter-c"])
        assert.deepStrictEqual(yield* listed({ state: "offline" }), ["filter-b"])
        assert.deepStrictEqual(yield* listed({ state: "online", zone }), ["filter-a"])
        assert.deepStrictEqual(yield* listed({ address: IpAddress.make("192.0.2.12") }), ["filter-b"])
        assert.deepStrictEqual(yield* listed({ address: IpAddress.make("2001:db8::c"), zone }), [])
        assert.deepStrictEqual(yield* listed({ zone: DomainName.make("nowhere.test") }), [])
      })
    )

    it.effect("pages give every host once, in order, also when hosts come in between", () =>
      Effect.gen(function* () {
        yield* Effect.forEach(
          Array.from({ length: 25 }, (_, i) => i),
          (i) => register(`page-${String(i * 2).padStart(3, "0")}`, "192.0.2.20"),
          { concurrency: "unbounded" }
        )
        const { hosts } = yield* client
        const seen: Array<string> = []
        let cursor: string | undefined
        let pages = 0
        do {
          const page = yield* hosts.list({ query: { q: "page-", limit: 10, ...(cursor !== undefined && { cursor }) } })
          seen.push(...names(page.body.items))
          cursor = page.body.nextCursor
          assert.strictEqual(page.headers.link !== undefined, cursor !== undefined)
          // One before the place we are at, one behind it.
          if (pages === 0) yield* register("page-001", "192.0.2.20")
          if (pages === 0) yield* register("page-039", "192.0.2.20")
          pages += 1
        } while (cursor !== undefined)
        const numbers = [...Array.from({ length: 25 }, (_, i) => i * 2), 39].sort((a, b) => a - b)
        assert.deepStrictEqual(
          seen,
          numbers.map((n) => `page-${String(n).padStart(3, "0")}.${zone}`)
        )
        assert.strictEqual(pages, 3)
      })
    )

    it.effect("a page that just fits has no next one", () =>
      Effect.gen(function* () {
        yield* register("fit-1", "192.0.2.21")
        yield* register("fit-2", "192.0.2.21")
        const { hosts } = yield* client
        const page = yield* hosts.list({ query: { q: "fit-", limit: 2 } })
        assert.strictEqual(page.body.items.length, 2)
        assert.isFalse("nextCursor" in page.body)
      })
    )

    it.effect("a host that a person retires is withdrawn, and its name is held; one retired already is refused", () =>
      Effect.gen(function* () {
        const host = yield* register("retiring", "192.0.2.51")
        const { hostChanges } = yield* client
        const retired = yield* body(
          hostChanges.retire({ ...asIs, params: { host: host.id }, payload: { reason: "sold" } })
        )
        assert.strictEqual(retired.state, "retired")
        assert.isAbove(retired.generation, host.generation)
        const again = yield* Effect.flip(
          hostChanges.retire({ ...asIs, params: { host: host.fqdn }, payload: { reason: "sold" } })
        )
        assert.strictEqual(again._tag, "HostRetired")
        const gone = yield* Effect.flip(
          hostChanges.retire({ ...asIs, params: { host: `no.${zone}` }, payload: { reason: "sold" } })
        )
        assert.strictEqual(gone._tag, "HostNotFound")
        const sql = yield* SqlClient.SqlClient
        const audit = yield* sql`SELECT actor, reason FROM ${sql.literal(auditTable)} WHERE action = 'host.retired'`
        assert.deepStrictEqual({ ...audit[0] }, { actor: "ops", reason: "sold" })
      })
    )

    it.effect("a host that a person releases is no more, by its name or its id, and its records go", () =>
      Effect.gen(function* () {
        const { hostChanges, hosts } = yield* client
        for (const by of ["id", "fqdn"] as const) {
          const host = yield* register(`releasing-${by}`, "192.0.2.52")
          const answers = Effect.map(
            Effect.flatMap(PowerDnsClient, ({ exportZone }) => exportZone(zone)),
            (sets) => sets.some(({ name }) => name === host.fqdn)
          )
          yield* waitUntil("it is published", answers, (there) => there)
          const released = yield* hostChanges.release({
            ...asIs,
            params: { host: host[by] },
            payload: { reason: "sold" }
          })
          assert.deepStrictEqual([released.id, released.fqdn], [host.id, host.fqdn])
          assert.strictEqual(
            (yield* Effect.flip(body(hosts.get({ params: { host: host[by] }, query: {} }))))._tag,
            "HostNotFound"
          )
          yield* waitUntil("its records are gone", answers, (there) => !there)
        }
      })
    )

    it.effect("what a person does has a reason", () =>
      Effect.gen(function* () {
        const host = yield* register("no-reason", "192.0.2.53")
        const { hostChanges, hosts } = yield* client
        for (const reason of ["", " ", "x".repeat(501)]) {
          const call = hostChanges.retire({ ...asIs, params: { host: host.id }, payload: { reason } })
          assert.isTrue((yield* Effect.exit(call))._tag === "Failure", reason)
        }
        assert.strictEqual((yield* body(hosts.get({ params: { host: host.id }, query: {} }))).state, "online")
      })
    )

    it.effect("no token and an unknown one are refused, and an agent's token sees hosts alone", () =>
      Effect.gen(function* () {
        const asAgent = yield* HttpApiTest.groups(Api, ["hosts", "publications"]).pipe(
          Effect.provide(Client.withToken(agentToken))
        )
        yield* asAgent.hosts.list({ query: {} })
        assert.strictEqual((yield* Effect.flip(asAgent.publications.list({ query: {} })))._tag, "Forbidden")
        for (const token of [Redacted.make(""), Redacted.make("guess")]) {
          const { hosts, publications } = yield* HttpApiTest.groups(Api, ["hosts", "publications", "guards"]).pipe(
            Effect.provide(Client.withToken(token))
          )
          for (const call of [
            Effect.asVoid(hosts.list({ query: {} })),
            Effect.asVoid(hosts.get({ params: { host: `x.${zone}` }, query: {} })),
            Effect.asVoid(publications.list({ query: {} }))
          ]) {
            assert.strictEqual((yield* Effect.flip(call))._tag, "TokenInvalid")
          }
        }
      })
    )
  })
})

describe("/v1/publications", () => {
  layer(testLayer, { excludeTestServices: true })((it) => {
    it.effect("tells what is published, what waits with the writer's error, and what is parked with its reason", () =>
      Effect.gen(function* () {
        const memory = yield* PowerDnsMemory
        const { hosts, publications } = yield* client
        const bad = yield* register("bad", "192.0.2.31")
        yield* waitUntil(
          "nothing is pending",
          publications.list({ query: {} }),
          ({ items, zones }) =>
            items.length === 0 && zones.find((each) => each.zone === zone)?.lastPublished !== undefined
        )

        yield* memory.refuseName(bad.fqdn, "Record bad: refused for the test")
        yield* register("bad", "192.0.2.32")
        const parked = yield* waitUntil("the name is parked", publications.list({ query: { zone } }), ({ items }) =>
          items.some(({ state }) => state === "parked")
        )
        assert.deepStrictEqual(
          parked.zones.map((each) => [each.zone, each.pending, each.parked, each.ready]),
          [[zone, 0, 1, true]]
        )
        const [item] = parked.items
        assert.strictEqual(item?.name, bad.fqdn)
        assert.include(item?.reason, "refused for the test")
        const shown = yield* body(hosts.get({ params: { host: bad.id }, query: {} }))
        assert.strictEqual(shown.publication?.level, "accepted")
        assert.include(shown.publication?.error, "refused for the test")

        yield* memory.down
        yield* register("late", "203.0.113.9")
        const held = yield* waitUntil("the writer has failed", publications.list({ query: {} }), ({ zones }) =>
          zones.some(({ error }) => error !== undefined)
        )
        const forward = held.zones.find((each) => each.zone === zone)
        assert.strictEqual(forward?.pending, 1)
        assert.isString(forward?.error)
        assert.strictEqual(forward?.oldest, held.items.find(({ state }) => state === "pending")?.markedAt)
        assert.deepStrictEqual(
          held.items.map(({ name, state }) => [name, state]),
          [
            [bad.fqdn, "parked"],
            [`late.${zone}`, "pending"]
          ]
        )
        assert.deepStrictEqual((yield* publications.list({ query: { limit: 1 } })).items.length, 1)
        assert.deepStrictEqual((yield* publications.list({ query: { zone: otherZone } })).items, [])

        yield* memory.up
        const after = yield* waitUntil("the rest is published", publications.list({ query: { zone } }), ({ zones }) =>
          zones.every(({ error, pending }) => error === undefined && pending === 0)
        )
        assert.isFalse("oldest" in after.zones[0]!)
      })
    )

    it.effect("parked names are tried again by a person's word, those that a plan holds back are not", () =>
      Effect.gen(function* () {
        const memory = yield* PowerDnsMemory
        const outbox = yield* Outbox
        const { publications } = yield* client
        const parkedNames = Effect.map(publications.list({ query: { zone } }), ({ items }) =>
          items.filter(({ state }) => state === "parked").map(({ name }) => name)
        )
        const one = yield* register("again-1", "192.0.2.41")
        const two = yield* register("again-2", "192.0.2.42")
        yield* memory.refuseName(one.fqdn, "Record again-1: refused for the test")
        yield* memory.refuseName(two.fqdn, "Record again-2: refused for the test")
        yield* register("again-1", "192.0.2.43")
        yield* register("again-2", "192.0.2.44")
        yield* waitUntil("both are parked", parkedNames, (names) => names.length >= 2)

        yield* memory.acceptName(one.fqdn)
        assert.deepStrictEqual(yield* publications.retry({ query: {}, payload: { name: one.fqdn } }), { names: 1 })
        yield* waitUntil("one is published", parkedNames, (names) => !names.includes(one.fqdn))
        const mark = (yield* outbox.findMarks([{ zone, name: two.fqdn }]))[0]!
        const before = RRset.make(two.fqdn, "A", 60, ["192.0.2.42"])
        const plan = yield* (yield* Plans).hold(
          zone,
          [{ name: two.fqdn, type: "A", before, reason: "away" }],
          "over the budget"
        )
        yield* outbox.hold(zone, [mark], plan.id, "over the budget", Date.now())
        assert.deepStrictEqual(yield* publications.retry({ query: {}, payload: { zone: otherZone } }), { names: 0 })
        assert.deepStrictEqual(yield* publications.retry({ query: {}, payload: { zone, name: two.fqdn } }), {
          names: 0
        })
        assert.include(yield* parkedNames, two.fqdn)
      })
    )

    it.effect("shows what a zone left behind that is not configured any more", () =>
      Effect.gen(function* () {
        const outbox = yield* Outbox
        const gone = DomainName.make("gone.prism.test")
        yield* outbox.mark([{ zone: gone, name: DomainName.make("a.gone.prism.test") }], 1, 0, "registered")
        const { publications } = yield* client
        const { zones } = yield* publications.list({ query: { zone: gone } })
        assert.strictEqual(zones.length, 1)
        assert.include(zones[0]?.error, "not configured any more")
        assert.strictEqual(zones[0]?.pending, 1)
      })
    )
  })
})

describe("/v1/guards", () => {
  it.effect("a guard that has tripped is shown, and lets through what a person allows, with a reason", () =>
    Effect.gen(function* () {
      const { guards } = yield* client
      assert.deepStrictEqual(yield* guards.list(), { items: [] })
      const allow = guards.allow({
        params: { guard: "mass-expiry" },
        query: {},
        payload: { reason: "the rack was sold" }
      })
      assert.strictEqual((yield* Effect.flip(allow))._tag, "GuardNotTripped")

      const sql = yield* SqlClient.SqlClient
      const trippedAt = Date.now() - 1000
      yield* sql`INSERT INTO guard (kind, zone, tripped_at, detail)
        VALUES ('mass-expiry', '', ${trippedAt}, '40 of 100 hosts went silent at once')`
      const [tripped] = (yield* guards.list()).items
      assert.deepStrictEqual(tripped, {
        kind: "mass-expiry",
        trippedAt: new Date(trippedAt).toISOString(),
        detail: "40 of 100 hosts went silent at once",
        waiting: true
      })

      const tried = yield* guards.allow({
        params: { guard: "mass-expiry" },
        query: { dryRun: true },
        payload: { reason: "the rack was sold" }
      })
      assert.deepStrictEqual([tried.dryRun, tried.waiting], [true, false])
      assert.isTrue((yield* guards.list()).items[0]!.waiting)
      const allowed = yield* allow
      assert.isFalse(allowed.waiting)
      assert.isAtLeast(Date.parse(allowed.allowedBefore!), trippedAt)
      const [entry, ...others] =
        yield* sql`SELECT actor, reason FROM ${sql.literal(auditTable)} WHERE action = 'guard.allowed'`
      assert.isEmpty(others)
      assert.deepStrictEqual({ ...entry }, { actor: "ops", reason: "the rack was sold" })
    }).pipe(Effect.provide(testLayer))
  )
})

describe("a registry that fails", () => {
  const failing = (reason: SqlError.SqlError["reason"]) => {
    const fail = () => Effect.fail(new SqlError.SqlError({ reason }))
    return handlers.pipe(
      Layer.provide(Layer.mock(Registry)({ page: fail, findById: fail, findByName: fail })),
      Layer.provideMerge(services)
    )
  }

  it.effect("is reported as unavailable when a later try may succeed", () =>
    Effect.gen(function* () {
      const { hosts } = yield* client
      const error = yield* Effect.flip(hosts.list({ query: {} }))
      assert.instanceOf(error, StorageUnavailable)
      assert.notInclude(error.message, "secret.internal")
    }).pipe(
      Effect.provide(
        failing(
          new SqlError.ConnectionError({ cause: new Error("no"), message: "secret.internal", operation: "execute" })
        )
      )
    )
  )
})
