import { assert, describe, it } from "@effect/vitest"
import { Outbox } from "@prism-dns/core/dns/Outbox"
import * as DomainName from "@prism-dns/core/domain/DomainName"
import { PowerDnsClient } from "@prism-dns/core/powerdns/PowerDnsClient"
import { Tokens } from "@prism-dns/core/auth/Tokens"
import { Effect, type Layer, Redacted } from "effect"
import { waitUntil } from "../../../core/test/harness/waitUntil.ts"
import { ask, otherZone, register, reverseZone, server, zone } from "./harness.ts"

const lab = DomainName.make("lab.test")

const send = (method: string, path: string, body?: unknown, headers: Record<string, string> = {}, token?: string) =>
  ask(path, {
    method,
    headers: { ...headers, ...(body !== undefined && { "content-type": "application/json" }) },
    ...(body !== undefined && { body: JSON.stringify(body) }),
    ...(token !== undefined && { token })
  })

const create = (body: unknown, query = "") => send("POST", `/v1/zones${query}`, body)
const patch = (etag: string, body: unknown, query = "", token?: string) =>
  send("PATCH", `/v1/zones/lab.test${query}`, body, { "if-match": etag }, token)

/** A token for the API with one zone, and its text. */
const tokenFor = Effect.fnUntraced(function* (
  name: string,
  role: string,
  zones?: ReadonlyArray<DomainName.DomainName>
) {
  const { token } = yield* (yield* Tokens).issue(
    {
      name,
      role: "admin",
      roles: [role],
      allows: "bearer",
      grant: { zones, names: undefined, networks: [], namesMax: undefined },
      host: undefined,
      usesMax: undefined,
      expiresAtMillis: undefined
    },
    { name: "ops", peer: undefined },
    "a test"
  )
  return Redacted.value(token)
})

const test = (title: string, body: Effect.Effect<unknown, unknown, Layer.Success<ReturnType<typeof server>>>) =>
  it.live(title, () => Effect.provide(body, server()))

describe("/v1/zones", () => {
  test(
    "a zone is made, shown with its tag, takes registrations at once, and is in PowerDNS",
    Effect.gen(function* () {
      const made = yield* create({ name: "Lab.Test", policy: { ttlSeconds: 45 }, dnssec: false, reason: "a lab" })
      assert.deepStrictEqual([made.status, made.headers.get("location")], [201, "/v1/zones/lab.test"])
      assert.deepInclude(made.json, { name: lab, kind: "forward", origin: "api", overridden: [], namesMarked: 0 })
      assert.strictEqual(made.json.policy.ttlSeconds, 45)
      yield* register("web-1", "192.0.2.1", lab)
      const powerdns = yield* PowerDnsClient
      const found = yield* waitUntil(
        "its host is published",
        powerdns.rrsets(lab, [DomainName.make(`web-1.${lab}`)]),
        (sets) => sets.length === 1
      )
      assert.deepStrictEqual([found[0]?.ttlSeconds, found[0]?.contents], [45, ["192.0.2.1"]])
      const shown = yield* ask("/v1/zones/lab.test")
      assert.match(shown.headers.get("etag") ?? "", new RegExp(`^"${made.json.generation}-`))
      const again = yield* waitUntil(
        "nothing is under way",
        Effect.gen(function* () {
          const { headers } = yield* ask("/v1/zones/lab.test")
          return yield* ask("/v1/zones/lab.test", { headers: { "if-none-match": headers.get("etag")! } })
        }),
        ({ status }) => status === 304
      )
      assert.strictEqual(again.text, "")
      const list = yield* ask("/v1/zones?limit=2")
      assert.deepStrictEqual(
        list.json.items.map(({ name }: { name: string }) => name),
        [reverseZone, zone]
      )
      const rest = yield* ask(`/v1/zones?limit=2&cursor=${list.json.nextCursor}`)
      assert.deepStrictEqual(
        rest.json.items.map(({ name }: { name: string }) => name),
        [otherZone, lab]
      )
      assert.match(list.headers.get("link") ?? "", /rel="next"/)
    })
  )

  test(
    "of two people who change one zone the second is told what the first changed, who that was and when",
    Effect.gen(function* () {
      yield* create({ name: "lab.test" })
      const alice = yield* tokenFor("alice", "admin", [lab])
      const bob = yield* tokenFor("bob", "admin", [lab])
      const seen = (yield* ask("/v1/zones/lab.test", { token: alice })).headers.get("etag")!
      assert.strictEqual((yield* ask("/v1/zones/lab.test", { token: bob })).headers.get("etag"), seen)

      const first = yield* patch(seen, { policy: { ttlSeconds: 300, networks: ["10.0.0.0/8"] } }, "", alice)
      assert.strictEqual(first.status, 200)
      const second = yield* patch(seen, { policy: { ttlSeconds: 30 } }, "", bob)
      assert.strictEqual(second.status, 412)
      const now = yield* ask("/v1/zones/lab.test", { token: bob })
      assert.deepInclude(second.json, {
        type: "urn:prism-dns:problem:precondition-failed",
        etag: `"${now.json.generation}"`,
        changedBy: "alice",
        changes: [
          { pointer: "/policy/ttlSeconds", before: 60, now: 300 },
          { pointer: "/policy/networks", now: ["10.0.0.0/8"] }
        ]
      })
      assert.isAtMost(Math.abs(Date.parse(second.json.changedAt) - Date.now()), 60_000)
      assert.strictEqual(now.json.policy.ttlSeconds, 300)
      // With what it knows now it may.
      const third = yield* patch(now.headers.get("etag")!, { policy: { ttlSeconds: 30 } }, "", bob)
      assert.deepStrictEqual([third.status, third.json.policy.ttlSeconds], [200, 30])
      const history = yield* ask("/v1/zones/lab.test/history")
      assert.deepStrictEqual(
        history.json.items.map(({ by, changes, event }: any) => [event, by, changes.length]),
        [
          ["changed", "bob", 1],
          ["changed", "alice", 2],
          ["created", "ops", 0]
        ]
      )
    })
  )

  test(
    "of requests at the same instant from the same version exactly one wins",
    Effect.gen(function* () {
      yield* create({ name: "lab.test" })
      const seen = (yield* ask("/v1/zones/lab.test")).headers.get("etag")!
      const answers = yield* Effect.forEach(
        Array.from({ length: 12 }, (_, i) => 100 + i),
        (ttlSeconds) => patch(seen, { policy: { ttlSeconds } }),
        { concurrency: "unbounded" }
      )
      const won = answers.filter(({ status }) => status === 200)
      assert.deepStrictEqual([won.length, answers.filter(({ status }) => status === 412).length], [1, 11])
      const { json } = yield* ask("/v1/zones/lab.test")
      assert.strictEqual(json.policy.ttlSeconds, won[0]!.json.policy.ttlSeconds)
    })
  )

  test(
    "without If-Match nothing is changed or removed; a dry run says what would be, and changes nothing",
    Effect.gen(function* () {
      const tried = yield* create({ name: "lab.test" }, "?dryRun=true")
      assert.deepStrictEqual([tried.status, tried.json.dryRun], [201, true])
      assert.strictEqual((yield* ask("/v1/zones/lab.test")).status, 404)
      yield* create({ name: "lab.test" })
      yield* register("web-1", "192.0.2.1", lab)
      assert.strictEqual((yield* send("PATCH", "/v1/zones/lab.test", { dnssec: true })).status, 428)
      assert.strictEqual((yield* send("DELETE", "/v1/zones/lab.test")).status, 428)
      const etag = (yield* ask("/v1/zones/lab.test")).headers.get("etag")!
      const dry = yield* patch(etag, { policy: { ttlSeconds: 90 } }, "?dryRun=true")
      assert.deepInclude(dry.json, { dryRun: true, namesMarked: 1 })
      assert.strictEqual(dry.json.policy.ttlSeconds, 90)
      assert.strictEqual((yield* ask("/v1/zones/lab.test")).json.policy.ttlSeconds, 60)
      const inUse = yield* send("DELETE", "/v1/zones/lab.test?dryRun=true", undefined, { "if-match": etag })
      assert.deepInclude(inUse.json, { type: "urn:prism-dns:problem:zone-in-use", hosts: 1, records: 0 })
    })
  )

  test(
    "what is wrong is said with its place, and what stands in the way with what it is",
    Effect.gen(function* () {
      const wrong = yield* create({ name: "lab.test", policy: { ttlSeconds: 0, tll: 3 } })
      assert.deepStrictEqual(
        [wrong.status, wrong.json.errors.map(({ pointer }: { pointer: string }) => pointer).sort()],
        [400, ["/policy/tll", "/policy/ttlSeconds"]]
      )
      const bounds = yield* create({ name: "lab.test", policy: { ttlSecondsMin: 9000 } })
      assert.deepStrictEqual([bounds.status, bounds.json.errors[0].pointer], [400, "/policy/ttlSecondsMin"])
      yield* register("web.eu", "192.0.2.1", zone)
      const overlap = yield* create({ name: `eu.${zone}` })
      assert.strictEqual(overlap.status, 409)
      assert.deepInclude(overlap.json, { zone, hosts: 1, records: 0, examples: [`web.eu.${zone}`] })
      assert.strictEqual((yield* create({ name: zone })).json.type, "urn:prism-dns:problem:zone-exists")
      const etag = (yield* ask(`/v1/zones/${zone}`)).headers.get("etag")!
      const configured = yield* send("DELETE", `/v1/zones/${zone}`, undefined, { "if-match": etag })
      assert.strictEqual(configured.json.type, "urn:prism-dns:problem:zone-configured")
    })
  )

  test(
    "a zone that has gone takes no host, is found as it was, and PowerDNS keeps it",
    Effect.gen(function* () {
      yield* create({ name: "lab.test" })
      const powerdns = yield* PowerDnsClient
      yield* waitUntil("it is made", powerdns.findZone(lab), ({ _tag }) => _tag === "Some")
      const { headers, json } = yield* ask("/v1/zones/lab.test")
      const history = yield* ask("/v1/zones/lab.test/history")
      const since: string = history.json.items[0].validFrom
      yield* waitUntil(
        "a millisecond has passed",
        Effect.sync(() => Date.now()),
        (now) => now > Date.parse(since)
      )
      const removed = yield* send("DELETE", "/v1/zones/lab.test?reason=not%20needed", undefined, {
        "if-match": headers.get("etag")!
      })
      assert.deepStrictEqual(removed.json, { name: lab, powerdns: "kept" })
      assert.strictEqual((yield* ask("/v1/zones/lab.test")).status, 404)
      assert.strictEqual((yield* Effect.flip(register("web-1", "192.0.2.1", lab)))._tag, "ZoneGone")
      assert.strictEqual((yield* powerdns.findZone(lab))._tag, "Some")
      const then = yield* ask(`/v1/zones/lab.test?at=${since}`)
      assert.deepInclude(then.json, { name: lab, generation: json.generation, origin: "api", validFrom: since })
      assert.notProperty(then.json, "publication")
      const list = yield* ask(`/v1/zones?at=${since}`)
      assert.include(
        list.json.items.map(({ name }: { name: string }) => name),
        lab
      )
      const names = (yield* (yield* Outbox).backlog).map((each) => each.zone)
      assert.notInclude(names, lab)
    })
  )

  test(
    "who has another zone sees and changes nothing of it, and does not learn that it is there",
    Effect.gen(function* () {
      yield* create({ name: "lab.test" })
      yield* register("web.eu", "192.0.2.1", zone)
      const etag = (yield* ask("/v1/zones/lab.test")).headers.get("etag")!
      const other = yield* tokenFor("other", "admin", [otherZone])
      yield* send("POST", "/v1/roles", {
        name: "zoner",
        description: "Looks after zones, not into them.",
        permissions: [{ verb: "*", resource: "zones" }],
        reason: "a test"
      })
      const zoner = yield* tokenFor("zoner", "zoner")
      const viewer = yield* tokenFor("looks", "viewer", [lab])
      const unseen = [
        yield* ask("/v1/zones/lab.test", { token: other }),
        yield* ask("/v1/zones/lab.test?at=2999-01-01T00:00:00Z", { token: other }),
        yield* ask("/v1/zones/lab.test/history", { token: other }),
        yield* patch(etag, { dnssec: true }, "", other),
        yield* send("DELETE", "/v1/zones/lab.test", undefined, { "if-match": etag }, other)
      ]
      assert.deepStrictEqual(
        unseen.map(({ status }) => status),
        [404, 404, 404, 404, 404]
      )
      for (const path of ["/v1/zones", "/v1/zones?at=2999-01-01T00:00:00Z"]) {
        const list = yield* ask(path, { token: other })
        assert.deepStrictEqual(
          list.json.items.map(({ name }: { name: string }) => name),
          [otherZone]
        )
      }
      const hidden = yield* send("POST", "/v1/zones", { name: `eu.${zone}` }, {}, zoner)
      assert.strictEqual(hidden.status, 409)
      assert.notInclude(hidden.text, "web.eu")
      assert.strictEqual((yield* send("POST", "/v1/zones", { name: "new.test" }, {}, other)).status, 403)
      assert.strictEqual((yield* ask("/v1/zones/lab.test", { token: viewer })).status, 200)
      assert.strictEqual((yield* patch(etag, { dnssec: true }, "", viewer)).status, 403)
      const { json } = yield* ask("/v1/zones/lab.test")
      assert.strictEqual(json.dnssec, false)
    })
  )
})
