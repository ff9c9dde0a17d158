import { assert, describe, it } from "@effect/vitest"
import { Api } from "@prism-dns/core/api/Api"
import * as Client from "@prism-dns/core/api/Client"
import * as DomainName from "@prism-dns/core/domain/DomainName"
import { PowerDnsClient } from "@prism-dns/core/powerdns/PowerDnsClient"
import { PowerDnsMemory } from "@prism-dns/core/powerdns/PowerDnsMemory"
import { Effect, Layer } from "effect"
import { HttpRouter, HttpServer } from "effect/http"
import { HttpApiTest } from "effect/http-api"
import { SqlClient } from "effect/sql"
import { waitUntil } from "../../../core/test/harness/waitUntil.ts"
import { requestCheck, routerConfig } from "../../src/http/Answers.ts"
import * as Authentication from "../../src/http/Authentication.ts"
import * as Plans from "../../src/http/Plans.ts"
import * as Publications from "../../src/http/Publications.ts"
import * as Status from "../../src/http/Status.ts"
import * as Zones from "../../src/http/Zones.ts"
import { adminToken, ask, otherZone, register, server, services, zone } from "./harness.ts"
import { audit as auditTable } from "../../../core/test/harness/audit.ts"

const handlers = Layer.mergeAll(
  Plans.layer,
  Publications.layer,
  Zones.layer,
  Status.layer({ instance: "prism-1" })
).pipe(
  Layer.provideMerge(Authentication.layer),
  Layer.provideMerge(requestCheck),
  Layer.merge(HttpServer.layerServices)
)

const testLayer = handlers.pipe(Layer.provideMerge(services))

const client = HttpApiTest.groups(Api, ["plans", "publications", "zones", "status"]).pipe(
  Effect.provideService(HttpRouter.RouterConfig, routerConfig),
  Effect.provide(Client.withToken(adminToken))
)

const nameOf = (label: string) => DomainName.make(`${label}.${zone}`)

/** Registers hosts, and waits until PowerDNS has them. */
const published = Effect.fn(function* (labels: ReadonlyArray<string>) {
  yield* Effect.forEach(labels, (label, i) => register(label, `192.0.2.${i + 10}`), { concurrency: "unbounded" })
  const { publications } = yield* client
  yield* waitUntil(
    "all is published",
    publications.list({ query: {} }),
    ({ items, zones }) => items.length === 0 && zones.every(({ ready }) => ready)
  )
})

/** By hand, behind our back. */
const put = Effect.fn(function* (label: string, address: string) {
  const memory = yield* PowerDnsMemory
  yield* memory.put(zone, { name: nameOf(label), type: "A", ttlSeconds: 60, contents: [address] })
})

const addressesAt = (label: string) =>
  Effect.flatMap(PowerDnsClient, ({ rrsets }) =>
    Effect.map(rrsets(zone, [nameOf(label)]), (sets) => sets.flatMap(({ contents }) => contents))
  )

const make = Effect.fn(function* (payload?: Parameters<Client.Client["plans"]["make"]>[0]["payload"]) {
  const { plans } = yield* client
  return yield* plans.make({ params: { zone }, query: {}, payload })
})

describe("plans", () => {
  it.live("what was changed by hand is shown, applied by id, and then there is nothing more to do", () =>
    Effect.gen(function* () {
      yield* published(["web-1", "web-2", "web-3"])
      const memory = yield* PowerDnsMemory
      yield* put("web-1", "203.0.113.1")
      yield* memory.remove(zone, nameOf("web-2"), "A")
      yield* put("printer", "203.0.113.9")

      const { plans } = yield* client
      const { body: made, headers } = yield* make()
      assert.strictEqual(headers.location, `/v1/plans/${made.id}`)
      assert.deepStrictEqual([made.zone, made.kind, made.state, made.madeBy], [zone, "reconcile", "open", "ops"])
      assert.deepStrictEqual([made.counts.changes, made.counts.update, made.counts.create], [2, 1, 1])
      const { drift, foreignNames, guards } = made.reconciliation!
      assert.deepStrictEqual([drift.different, drift.missing, drift.foreign], [1, 1, 1])
      assert.deepStrictEqual([foreignNames, guards], [[nameOf("printer")], []])

      const params = { plan: made.id }
      const shown = yield* plans.get({ params, query: {} })
      if (typeof shown === "string") return assert.fail("asked for JSON")
      assert.strictEqual(shown.hash, made.hash)
      const change = shown.changes.find(({ name }) => name === nameOf("web-1"))!
      assert.deepStrictEqual(change.before, { ttlSeconds: 60, contents: ["203.0.113.1"] })
      assert.deepStrictEqual(change.after, { ttlSeconds: 60, contents: ["192.0.2.10"] })
      assert.isFalse("outcome" in change)

      const done = yield* plans.apply({ params, query: {}, payload: undefined })
      assert.deepStrictEqual([done.applied, done.refused, done.refusals], [2, 0, []])
      assert.deepStrictEqual([done.plan.state, done.plan.decision?.by], ["applied", "ops"])
      yield* waitUntil("the address is back", addressesAt("web-1"), (data) => data.join() === "192.0.2.10")
      yield* waitUntil("the name is back", addressesAt("web-2"), (data) => data.join() === "192.0.2.11")
      assert.deepStrictEqual(yield* addressesAt("printer"), ["203.0.113.9"])

      const again = yield* make()
      assert.deepStrictEqual([again.body.counts.changes, again.body.state], [0, "applied"])
      assert.isFalse("location" in again.headers)
      assert.isFalse("plan" in again.body.reconciliation!)
      const error = yield* Effect.flip(plans.apply({ params, query: {}, payload: {} }))
      assert.strictEqual(error._tag, "PlanDecided")
    }).pipe(Effect.provide(testLayer))
  )

  it.live("what changed since the plan was made is refused, with why, and the rest goes on", () =>
    Effect.gen(function* () {
      yield* published(["web-1", "web-2"])
      yield* put("web-1", "203.0.113.1")
      yield* put("web-2", "203.0.113.2")
      const { plans } = yield* client
      const { body: made } = yield* make()
      yield* register("web-1", "192.0.2.77")
      const params = { plan: made.id }
      const tried = yield* plans.apply({ params, query: { dryRun: true }, payload: {} })
      const before = yield* plans.get({ params, query: {} })
      if (typeof before === "string") return assert.fail("asked for JSON")
      assert.deepStrictEqual(
        [before.state, before.changes.some(({ outcome }) => outcome !== undefined)],
        ["open", false]
      )
      const done = yield* plans.apply({ params, query: {}, payload: {} })
      assert.deepStrictEqual([done.applied, done.refused], [1, 1])
      assert.deepStrictEqual({ ...tried, plan: tried.plan.state }, { ...done, plan: done.plan.state, dryRun: true })
      assert.deepStrictEqual(
        done.refusals.map(({ name, type }) => [name, type]),
        [[nameOf("web-1"), "A"]]
      )
      assert.isNotEmpty(done.refusals[0]!.reason)
    }).pipe(Effect.provide(testLayer))
  )

  it.live("records made by hand are adopted, released and ignored, each by a plan", () =>
    Effect.gen(function* () {
      yield* published(["web-1"])
      yield* put("printer-1", "203.0.113.1")
      yield* put("printer-2", "203.0.113.2")
      const { plans, publications } = yield* client
      const apply = (id: string) => plans.apply({ params: { plan: id }, query: {}, payload: {} })

      const adopt = yield* make({ kind: "adopt", pattern: "printer-*", reason: "they are ours now" })
      assert.deepStrictEqual([adopt.body.counts.adopt, adopt.body.reason], [2, "they are ours now"])
      assert.isFalse("reconciliation" in adopt.body)
      assert.strictEqual((yield* apply(adopt.body.id)).applied, 2)
      yield* waitUntil(
        "what was adopted is looked at",
        publications.list({ query: {} }),
        ({ items }) => items.length === 0
      )
      yield* put("printer-1", "203.0.113.99")
      assert.deepStrictEqual((yield* make()).body.counts.update, 1)

      const release = yield* make({ kind: "release", pattern: "printer-2" })
      assert.strictEqual(release.body.counts.release, 1)
      assert.strictEqual((yield* apply(release.body.id)).applied, 1)

      const ignore = yield* make({ kind: "ignore", pattern: "printer-2" })
      assert.strictEqual(ignore.body.counts.ignore, 1)
      assert.strictEqual((yield* apply(ignore.body.id)).applied, 1)
      assert.strictEqual((yield* make()).body.reconciliation!.drift.ignored, 1)
      const undo = yield* make({ kind: "ignore", pattern: "printer-2", undo: true })
      assert.strictEqual(undo.body.counts.unignore, 1)
    }).pipe(Effect.provide(testLayer))
  )

  it.live("a plan that deletes more than the budget allows is refused with figures, and goes on with a reason", () =>
    Effect.gen(function* () {
      const labels = Array.from({ length: 30 }, (_, i) => `web-${i}`)
      yield* published(labels)
      const sql = yield* SqlClient.SqlClient
      // As a registry that lost half of its hosts.
      yield* sql`DELETE FROM host WHERE hostname LIKE 'web-1%'`
      const { plans } = yield* client
      const { body: made } = yield* make()
      const params = { plan: made.id }
      const dry = { dryRun: true }
      const tried = yield* Effect.flip(plans.apply({ params, query: dry, payload: {} }))
      const error = yield* Effect.flip(plans.apply({ params, query: {}, payload: {} }))
      if (error._tag !== "DeleteBudgetExceeded") return assert.fail(error._tag)
      assert.deepInclude(tried, { _tag: error._tag, wanted: error.wanted, remaining: error.remaining })
      assert.deepStrictEqual([error.plan, error.zone, error.wanted, error.remaining], [made.id, zone, 11, 10])
      assert.include(error.detail, "11")

      const payload = { overrideBudget: "the rack was sold" }
      const would = yield* plans.apply({ params, query: dry, payload })
      assert.deepStrictEqual([would.applied, would.refused, would.plan.state], [made.counts.changes, 0, "applied"])
      const done = yield* plans.apply({ params, query: {}, payload })
      assert.strictEqual(done.refused, 0)
      assert.strictEqual(done.plan.state, "applied")
      const audit = yield* sql`SELECT reason FROM ${sql.literal(auditTable)} WHERE reason LIKE '%the rack was sold%'`
      assert.isNotEmpty(audit)
    }).pipe(Effect.provide(testLayer))
  )

  it.live("a rejected plan stays as it is, with whose decision it was and why", () =>
    Effect.gen(function* () {
      yield* published(["web-1"])
      yield* put("web-1", "203.0.113.1")
      const { plans } = yield* client
      const would = yield* plans.make({ params: { zone }, query: { dryRun: true }, payload: undefined })
      assert.deepInclude(would.body, { dryRun: true, state: "open" })
      assert.isFalse("location" in would.headers || "plan" in would.body.reconciliation!)
      assert.deepStrictEqual((yield* plans.list({ params: { zone }, query: {} })).body.items, [])

      const params = { plan: (yield* make()).body.id }
      const tried = yield* plans.reject({ params, query: { dryRun: true }, payload: { reason: "not today" } })
      assert.deepInclude(tried, { dryRun: true, state: "rejected" })
      const rejected = yield* plans.reject({ params, query: {}, payload: { reason: "not today" } })
      assert.deepStrictEqual(
        [rejected.state, rejected.decision?.by, rejected.decision?.reason],
        ["rejected", "ops", "not today"]
      )
      const apply = yield* Effect.flip(plans.apply({ params, query: {}, payload: {} }))
      assert.strictEqual(apply._tag, "PlanDecided")
      const reject = yield* Effect.flip(plans.reject({ params, query: {}, payload: { reason: "again" } }))
      assert.strictEqual(reject._tag, "PlanDecided")
      assert.deepStrictEqual(yield* addressesAt("web-1"), ["203.0.113.1"])
    }).pipe(Effect.provide(testLayer))
  )

  it.live("plans are listed the newest first, page by page; changes in their order", () =>
    Effect.gen(function* () {
      yield* published(["web-1", "web-2", "web-3"])
      const { plans } = yield* client
      const ids: Array<string> = []
      for (const round of [1, 2, 3]) {
        for (const label of ["web-1", "web-2", "web-3"].slice(0, round)) yield* put(label, `203.0.113.${round}`)
        const { body } = yield* make()
        ids.unshift(body.id)
      }
      const first = (yield* plans.list({ params: { zone }, query: { limit: 2 } })).body
      const second = (yield* plans.list({ params: { zone }, query: { limit: 2, cursor: first.nextCursor! } })).body
      assert.deepStrictEqual(
        [...first.items, ...second.items].map(({ id, state }) => [id, state]),
        ids.map((id, i) => [id, i === 0 ? "open" : "superseded"])
      )
      assert.isFalse("nextCursor" in second)
      const open = (yield* plans.listAll({ query: { state: "open" } })).body.items
      assert.deepStrictEqual(
        open.map(({ id }) => id),
        ids.slice(0, 1)
      )
      assert.deepStrictEqual((yield* plans.list({ params: { zone: otherZone }, query: {} })).body.items, [])

      const params = { plan: ids[0]! }
      const some = (yield* plans.changes({ params, query: { limit: 2 } })).body
      const rest = (yield* plans.changes({ params, query: { limit: 2, cursor: some.nextCursor! } })).body
      assert.deepStrictEqual(
        [...some.items, ...rest.items].map(({ name, ordinal }) => [ordinal, name]),
        [
          [1, nameOf("web-1")],
          [2, nameOf("web-2")],
          [3, nameOf("web-3")]
        ]
      )
    }).pipe(Effect.provide(testLayer))
  )

  it.live("what cannot be planned is refused in words: zone, pattern, plan", () =>
    Effect.gen(function* () {
      const { plans } = yield* client
      const nowhere = { params: { zone: DomainName.make("nowhere.test") } }
      assert.strictEqual((yield* Effect.flip(plans.make({ ...nowhere, query: {}, payload: {} })))._tag, "ZoneNotFound")
      assert.strictEqual((yield* Effect.flip(plans.list({ ...nowhere, query: {} })))._tag, "ZoneNotFound")
      for (const payload of [
        { kind: "adopt" },
        { kind: "adopt", pattern: "a b" },
        { kind: "release", pattern: "printer.elsewhere.test." },
        { kind: "reconcile", pattern: "web-*" },
        { pattern: "web-*" }
      ] as const) {
        const error = yield* Effect.flip(make(payload))
        assert.strictEqual(error._tag, "RequestInvalid", JSON.stringify(payload))
      }
      for (const id of ["nonsense", "0197a000-0000-7000-8000-000000000000"]) {
        const params = { plan: id }
        for (const call of [
          Effect.asVoid(plans.get({ params, query: {} })),
          Effect.asVoid(plans.changes({ params, query: {} })),
          Effect.asVoid(plans.apply({ params, query: {}, payload: {} })),
          Effect.asVoid(plans.reject({ params, query: {}, payload: { reason: "x" } }))
        ]) {
          assert.strictEqual((yield* Effect.flip(call))._tag, "PlanNotFound")
        }
      }
      const memory = yield* PowerDnsMemory
      yield* memory.down
      const failed = yield* Effect.flip(make())
      assert.strictEqual(failed._tag, "PowerDnsFailed")
    }).pipe(Effect.provide(testLayer))
  )

  it.live("text and Markdown have their media types, and the way to a new plan is in its answer", () =>
    Effect.gen(function* () {
      yield* register("web-1", "192.0.2.10")
      yield* waitUntil(
        "it is published",
        ask("/v1/publications"),
        ({ json }) => json.items.length === 0 && json.zones[0].lastPublished !== undefined
      )
      yield* put("web-1", "203.0.113.1")
      const made = yield* ask(`/v1/zones/${zone}/plans`, { method: "POST" })
      assert.strictEqual(made.status, 201, made.text)
      const location = made.headers.get("location")!
      for (const [format, type] of [
        ["text", "text/plain"],
        ["markdown", "text/markdown"],
        ["json", "application/json"]
      ] as const) {
        const answer = yield* ask(`${location}?format=${format}`)
        assert.strictEqual(answer.status, 200)
        assert.include(answer.headers.get("content-type"), type)
        assert.include(answer.text, "203.0.113.1")
      }
      assert.strictEqual((yield* ask(`${location}?format=html`)).status, 400)
    }).pipe(Effect.provide(server()))
  )
})

describe("/v1/zones", () => {
  it.live("a zone has its policy, its backlog, and what was found at the last look", () =>
    Effect.gen(function* () {
      yield* published(["web-1"])
      const { zones } = yield* client
      assert.deepStrictEqual(
        (yield* zones.list({ query: {} })).body.items.map(({ kind, name }) => [name, kind]),
        [
          ["2.0.192.in-addr.arpa.", "reverse"],
          [zone, "forward"],
          [otherZone, "forward"]
        ]
      )
      const { body: before } = yield* zones.get({ params: { zone }, query: {} })
      assert.deepStrictEqual(before.policy, {
        ttlSeconds: 60,
        ttlSecondsMin: 30,
        ttlSecondsMax: 3600,
        hostsMax: 1_000_000,
        whenOffline: "withdraw",
        withdrawAfterSeconds: 3600,
        conflict: "take-over-if-expired",
        retireAfterSeconds: 30 * 86_400,
        holdForSeconds: 7 * 86_400,
        deleteBudget: { share: 0.1, min: 10, windowSeconds: 3600 },
        quarantineSeconds: 3600
      })
      assert.deepStrictEqual(before.reconciliation, { intervalSeconds: 900, repair: true })
      assert.deepStrictEqual([before.publication?.ready, before.publication?.pending], [true, 0])

      yield* put("web-1", "203.0.113.1")
      const { body: made } = yield* make()
      const { body: after } = yield* zones.get({ params: { zone }, query: {} })
      assert.strictEqual(after.reconciliation.last?.drift.different, 1)
      assert.strictEqual(after.reconciliation.last?.plan, made.id)
      const unknown = yield* Effect.flip(zones.get({ params: { zone: DomainName.make("nowhere.test") }, query: {} }))
      assert.strictEqual(unknown._tag, "ZoneNotFound")
    }).pipe(Effect.provide(testLayer))
  )

  it.live("names are listed by whose they are, page by page", () =>
    Effect.gen(function* () {
      yield* published(["web-1", "web-2", "web-3"])
      const foreign = Array.from({ length: 25 }, (_, i) => `other-${String(i).padStart(2, "0")}`)
      for (const label of foreign.toReversed()) yield* put(label, "203.0.113.7")
      yield* put("adopted", "203.0.113.8")
      yield* put("ignored", "203.0.113.9")
      const { plans, zones } = yield* client
      for (const [kind, pattern] of [
        ["adopt", "adopted"],
        ["ignore", "ignored"]
      ] as const) {
        const { body } = yield* make({ kind, pattern })
        yield* plans.apply({ params: { plan: body.id }, query: {}, payload: undefined })
      }

      const all = Effect.fn(function* (ownership: "managed" | "foreign" | "ignored", limit: number) {
        const found: Array<readonly [string, string]> = []
        let cursor: string | undefined
        do {
          const query = { ownership, limit, ...(cursor !== undefined && { cursor }) }
          const { body } = yield* zones.records({ params: { zone }, query })
          assert.isAtMost(body.items.length, limit)
          found.push(...body.items.map(({ name, owner }) => [name, owner] as const))
          cursor = body.nextCursor
        } while (cursor !== undefined)
        return found.filter(([name]) => name !== zone && !name.startsWith("ns1."))
      })
      const named = (labels: ReadonlyArray<string>, owner: string) => labels.map((label) => [nameOf(label), owner])
      yield* waitUntil("the adopted name is published", all("managed", 2), (names) => names.length === 4)
      assert.deepStrictEqual(yield* all("managed", 2), [
        ...named(["adopted"], "adopted"),
        ...named(["web-1", "web-2", "web-3"], "managed")
      ] as never)
      for (const limit of [1, 3, 100]) {
        assert.deepStrictEqual(yield* all("foreign", limit), named(foreign, "foreign") as never)
      }
      assert.deepStrictEqual(yield* all("ignored", 10), named(["ignored"], "ignored") as never)

      const { body } = yield* zones.records({ params: { zone }, query: { limit: 1 } })
      assert.deepStrictEqual(body.items[0]?.recordSets, [{ type: "A", ttlSeconds: 60, contents: ["203.0.113.8"] }])
      const nowhere = zones.records({ params: { zone: DomainName.make("nowhere.test") }, query: {} })
      assert.strictEqual((yield* Effect.flip(nowhere))._tag, "ZoneNotFound")
    }).pipe(Effect.provide(testLayer))
  )

  it.live("an unsigned zone has no keys", () =>
    Effect.gen(function* () {
      yield* published(["web-1"])
      const { zones } = yield* client
      assert.deepStrictEqual(yield* zones.dnssec({ params: { zone } }), { zone, signed: false, keys: [] })
    }).pipe(Effect.provide(testLayer))
  )
})

describe("/v1/status", () => {
  it.live("names the plans that wait for a person, until they are decided", () =>
    Effect.gen(function* () {
      yield* published(["web-1"])
      const { plans, status } = yield* client
      const { body: made } = yield* plans.make({
        params: { zone },
        query: {},
        payload: { kind: "ignore", pattern: "web-*" }
      })
      assert.deepStrictEqual(
        (yield* status.get()).plans.map(({ counts, id, kind }) => [id, kind, counts.ignore]),
        [[made.id, "ignore", 1]]
      )
      yield* plans.reject({ params: { plan: made.id }, query: {}, payload: { reason: "not now" } })
      assert.deepStrictEqual((yield* status.get()).plans, [])
    }).pipe(Effect.provide(testLayer))
  )

  it.live("says who writes each zone, what waits, which node takes the changes, and which guards stand", () =>
    Effect.gen(function* () {
      yield* published(["web-1"])
      const { status } = yield* client
      const sql = yield* SqlClient.SqlClient
      yield* sql`INSERT INTO guard (kind, zone, tripped_at, detail) VALUES ('mass-expiry', '', 1, 'too many')`
      const shown = yield* status.get()
      assert.deepStrictEqual(
        shown.instances.map(({ name }) => name),
        ["prism-1"]
      )
      assert.deepStrictEqual(
        shown.zones.map(({ pending, writer, zone }) => [zone, writer, pending]),
        [
          [zone, "prism-1", 0],
          [otherZone, "prism-1", 0],
          ["2.0.192.in-addr.arpa.", "prism-1", 0]
        ]
      )
      assert.strictEqual(shown.writing.node, shown.writing.preferred)
      assert.deepStrictEqual(shown.problems, [])
      assert.deepStrictEqual(shown.plans, [])
      assert.deepStrictEqual(
        shown.guards.map(({ kind, waiting }) => [kind, waiting]),
        [["mass-expiry", true]]
      )
    }).pipe(Effect.provide(testLayer))
  )
})
