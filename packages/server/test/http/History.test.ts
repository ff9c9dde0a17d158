import { assert, describe, layer } from "@effect/vitest"
import * as Client from "@prism-dns/core/api/Client"
import { Outbox } from "@prism-dns/core/dns/Outbox"
import * as DomainName from "@prism-dns/core/domain/DomainName"
import * as IpAddress from "@prism-dns/core/domain/IpAddress"
import * as RRset from "@prism-dns/core/domain/RRset"
import { PowerDnsMemory } from "@prism-dns/core/powerdns/PowerDnsMemory"
import { Registry } from "@prism-dns/core/registry/Registry"
import { Effect, Option } from "effect"
import { FetchHttpClient } from "effect/http"
import { SqlClient } from "effect/sql"
import { waitUntil } from "../../../core/test/harness/waitUntil.ts"
import { HttpAddress } from "../../src/http/HttpAddress.ts"
import { adminToken, ask, otherZone, register, reverseZone, server, zone } from "./harness.ts"

const client = Effect.gen(function* () {
  const { url } = yield* HttpAddress
  return yield* Client.make({ baseUrl: url, token: adminToken })
}).pipe(Effect.provide(FetchHttpClient.layer))

const ops = { name: "ops", peer: "192.0.2.99", request: "req-1" }
const applied = (name: string) =>
  Effect.flatMap(client, ({ hosts }) =>
    waitUntil(
      `${name} is applied`,
      Effect.map(hosts.get({ params: { host: name }, query: {} }), ({ body }) => body),
      ({ publication }) => publication?.level !== "accepted"
    )
  )
const tick = (millis: number) =>
  waitUntil(
    "time goes on",
    Effect.sync(() => Date.now()),
    (now) => now > millis
  )

describe("/v1/hosts as of a time", () => {
  layer(server(), { excludeTestServices: true })((it) => {
    it.effect("a time of which retention has taken some is refused, and the rest is answered", () =>
      Effect.gen(function* () {
        yield* register("kept", "192.0.2.9", zone)
        const sql = yield* SqlClient.SqlClient
        const sinceMillis = Date.now()
        yield* tick(sinceMillis)
        yield* sql`UPDATE history_start SET since = ${sinceMillis}`
        const before = encodeURIComponent(new Date(sinceMillis - 1).toISOString())
        const since = encodeURIComponent(new Date(sinceMillis).toISOString())
        const paths = (at: string) => [
          `/v1/hosts?at=${at}`,
          `/v1/hosts/kept.${zone}?at=${at}`,
          `/v1/zones/${zone}/records?at=${at}`,
          `/v1/diff?from=${at}`
        ]
        for (const path of paths(before)) {
          const answer = yield* ask(path)
          assert.strictEqual(answer.status, 400, path)
          assert.include(answer.json.detail, `begins at ${new Date(sinceMillis).toISOString()}`)
        }
        for (const path of paths(since)) assert.strictEqual((yield* ask(path)).status, 200, path)
        yield* sql`UPDATE history_start SET since = 0`
      })
    )

    it.effect("a host and a list are as they were, labels, addresses and states too", () =>
      Effect.gen(function* () {
        const { hosts } = yield* client
        yield* register("then-a", "192.0.2.1", zone, { labels: { role: "web", site: "b" } })
        yield* register("then-b", "192.0.2.2", zone, { labels: { role: "db" } })
        const first = Date.now()
        yield* tick(first)
        yield* register("then-a", "192.0.2.3", zone, { labels: { role: "db" } })
        const registry = yield* Registry
        yield* registry.release(DomainName.make(`then-b.${zone}`), ops, "sold")
        const at = new Date(first).toISOString()
        const names = Effect.fn(function* (query: NonNullable<Parameters<typeof hosts.list>[0]>["query"]) {
          return (yield* hosts.list({ query: { q: "then-", ...query } })).body.items.map(({ fqdn }) => fqdn.slice(0, 6))
        })
        assert.deepStrictEqual(yield* names({ at }), ["then-a", "then-b"])
        assert.deepStrictEqual(yield* names({}), ["then-a"])
        assert.deepStrictEqual(yield* names({ at, label: ["role=web", "site=b"] }), ["then-a"])
        assert.deepStrictEqual(yield* names({ at, label: ["role=web", "site=c"] }), [])
        assert.deepStrictEqual(yield* names({ label: ["role=db"] }), ["then-a"])
        assert.deepStrictEqual(yield* names({ at, address: IpAddress.make("192.0.2.1"), state: "online", zone }), [
          "then-a"
        ])
        assert.deepStrictEqual(yield* names({ address: IpAddress.make("192.0.2.1") }), [])
        const { body: then } = yield* hosts.get({ params: { host: `then-a.${zone}` }, query: { at } })
        assert.deepStrictEqual(then.labels, { role: "web", site: "b" })
        assert.isUndefined(then.publication)
        assert.isUndefined(then.lastSeen)
        assert.strictEqual(then.event, "created")
        assert.isAtMost(Date.parse(then.validFrom!), first)
        assert.isAbove(Date.parse(then.validTo!), first)
        const gone = yield* Effect.flip(
          hosts.get({ params: { host: `then-b.${zone}` }, query: { at: new Date(Date.now() + 1000).toISOString() } })
        )
        assert.match(gone.message, /There was no host .* it was released at/)
        const wrong = yield* ask("/v1/hosts?at=yesterday&label=role", { token: "admin-token" })
        assert.strictEqual(wrong.status, 400)
        assert.includeMembers(
          wrong.json.errors.map(({ pointer }: { readonly pointer: string }) => pointer),
          ["/at", "/label"]
        )
        const repeated = yield* ask(`/v1/hosts?q=then-&label=role%3Dweb&label=site%3Db&at=${at}`, {
          token: "admin-token"
        })
        assert.strictEqual(repeated.json.items.length, 1)
      })
    )

    it.effect("what differs between two times is told of hosts and records, with what is another", () =>
      Effect.gen(function* () {
        const { history } = yield* client
        const registry = yield* Registry
        yield* register("diff-a", "192.0.2.61")
        yield* register("diff-b", "192.0.2.62")
        yield* register("diff-same", "192.0.2.64")
        const from = Date.now()
        yield* tick(from)
        yield* register("diff-a", "192.0.2.63")
        yield* registry.release(DomainName.make(`diff-b.${zone}`), ops, "sold")
        yield* register("diff-c", "192.0.2.62")
        const seen: Array<unknown> = []
        let cursor: string | undefined
        do {
          const page = yield* history.diff({
            query: { from: new Date(from).toISOString(), q: "DIFF-", limit: 2, ...(cursor !== undefined && { cursor }) }
          })
          seen.push(
            ...page.body.items.map(({ change, fields, kind, name }) => [kind, name.slice(0, 6), change, fields])
          )
          cursor = page.body.nextCursor
        } while (cursor !== undefined)
        assert.deepStrictEqual(seen, [
          ["host", "diff-a", "changed", ["addresses"]],
          ["host", "diff-b", "gone", []],
          ["host", "diff-c", "created", []]
        ])
      })
    )

    it.effect("a plan to restore that leaves everything alone is no open one, and says why of each", () =>
      Effect.gen(function* () {
        const { history, plans } = yield* client
        const host = `still.${otherZone}`
        yield* register("still", "192.0.2.91", otherZone)
        const then = Date.now()
        yield* tick(then)
        yield* register("still", "192.0.2.92", otherZone)
        const payload = { at: new Date(then).toISOString(), reason: "to try" }
        const { body: tried } = yield* history.restoreHost({ params: { host }, query: { dryRun: true }, payload })
        assert.deepStrictEqual([tried.state, tried.counts.keep, tried.counts.changes], ["applied", 1, 1])
        const { body: plan } = yield* history.restoreHost({ params: { host }, query: {}, payload })
        assert.deepStrictEqual([plan.state, plan.counts.keep, plan.counts.changes], ["applied", 1, 1])
        const found = yield* plans.get({ params: { plan: plan.id }, query: {} })
        assert.strictEqual(typeof found === "string" ? found : found.state, "applied")
        const changes = yield* plans.changes({ params: { plan: plan.id }, query: {} })
        assert.deepStrictEqual(
          changes.body.items.map(({ outcome }) => outcome),
          ["left alone: it is online and says otherwise: its own word stands"]
        )
        const refused = yield* Effect.flip(plans.apply({ params: { plan: plan.id }, query: {}, payload: {} }))
        assert.strictEqual(refused._tag, "PlanDecided")
      })
    )

    it.effect("a restored zone has its hosts as they were, but those that are online keep their word", () =>
      Effect.gen(function* () {
        const { history, hosts, plans } = yield* client
        const registry = yield* Registry
        const inZone = otherZone
        const name = (host: string) => DomainName.make(`${host}.${inZone}`)
        yield* register("moved", "192.0.2.71", inZone, { labels: { role: "web" } })
        yield* register("gone", "192.0.2.72", inZone, { labels: { role: "db" }, ttlSeconds: 120 })
        yield* register("given-up", "192.0.2.73", inZone)
        yield* register("same", "192.0.2.74", inZone)
        const then = Date.now()
        yield* tick(then)
        yield* register("moved", "192.0.2.75", inZone)
        yield* registry.release(name("gone"), ops, "a mistake")
        yield* registry.retire(name("given-up"), ops, "another one")
        yield* register("newcomer", "192.0.2.76", inZone)
        const payload = { at: new Date(then).toISOString(), reason: "the rack is back" }
        const dry = yield* history.restoreZone({ params: { zone: inZone }, query: { dryRun: true }, payload })
        assert.strictEqual(dry.body.dryRun, true)
        assert.isUndefined(dry.headers.location)
        const { body: plan } = yield* history.restoreZone({ params: { zone: inZone }, query: {}, payload })
        assert.deepStrictEqual(
          [plan.kind, plan.state, plan.counts.create, plan.counts.update, plan.counts.keep, plan.counts.changes],
          ["restore", "open", 1, 1, 2, 4]
        )
        const text = yield* plans.get({ params: { plan: plan.id }, query: { format: "text" } })
        if (typeof text !== "string") throw new Error("not in words")
        assert.match(text, /\+ gone\.lab\.prism\.test\. 120 HOST label role=db/)
        assert.match(text, /= moved\.lab\.prism\.test\. 0 HOST address 192\.0\.2\.75\n.*\n.*its own word stands/)
        const done = yield* plans.apply({ params: { plan: plan.id }, query: {}, payload: {} })
        assert.deepStrictEqual([done.applied, done.refused, done.kept, done.plan.state], [2, 0, 2, "applied"])
        assert.deepStrictEqual(done.refusals.length, 2)
        const shown = (host: string) =>
          Effect.map(hosts.get({ params: { host: name(host) }, query: {} }), ({ body }) => body)
        const back = yield* shown("gone")
        assert.deepStrictEqual(
          [back.state, back.addresses, back.labels, back.ttlSeconds, back.owner],
          ["offline", [IpAddress.make("192.0.2.72")], { role: "db" }, 120, "rack-7"]
        )
        assert.deepStrictEqual((yield* shown("given-up")).state, "offline")
        assert.deepStrictEqual((yield* shown("moved")).addresses, [IpAddress.make("192.0.2.75")])
        assert.deepStrictEqual((yield* shown("newcomer")).state, "online")
        // Its records answer until it comes.
        yield* applied(name("gone"))
        const found = yield* history.explainRecord({
          params: { zone: inZone, name: name("gone"), type: "A" },
          query: {}
        })
        if (typeof found === "string") throw new Error(found)
        assert.deepStrictEqual(found.published?.[0]?.contents, ["192.0.2.72"])
        const versions = yield* history.hostHistory({ params: { host: name("gone") }, query: {} })
        const newest = versions.body.items[0]!
        assert.deepStrictEqual(
          [newest.event, newest.change?.actor, newest.change?.cause, newest.change?.reason],
          ["created", "ops", `plan:${plan.id}`, "the rack is back"]
        )
        // What it says when it comes is taken as ever.
        assert.strictEqual((yield* register("gone", "192.0.2.72", inZone)).state, "online")
        const nothing = yield* history.restoreHost({
          params: { host: name("same") },
          query: {},
          payload: { ...payload, reason: "once more" }
        })
        assert.strictEqual(nothing.body.counts.changes, 0)
        assert.strictEqual(nothing.body.state, "applied")
      })
    )

    it.effect("nothing is restored to a time of which nothing is known, nor to one that lies ahead", () =>
      Effect.gen(function* () {
        const { history } = yield* client
        const refused = (at: string) =>
          Effect.flip(
            history.restoreZone({ params: { zone: otherZone }, query: {}, payload: { at, reason: "all of it" } })
          )
        const before = yield* refused("2020-01-01T00:00:00Z")
        assert.strictEqual(before._tag, "RequestInvalid")
        assert.match(before.message, /nothing is known of 2020-01-01T00:00:00.000Z: what the registry keeps begins at/)
        assert.match((yield* refused("2999-01-01T00:00:00Z")).message, /lies ahead/)
      })
    )

    it.effect("a plan to restore leaves a host alone that has changed, or come online, since it was made", () =>
      Effect.gen(function* () {
        const { history, plans } = yield* client
        const registry = yield* Registry
        const host = yield* register("raced", "192.0.2.81")
        const then = Date.now()
        yield* tick(then)
        yield* registry.release(host.fqdn, ops, "a mistake")
        const { body: plan } = yield* history.restoreHost({
          params: { host: host.fqdn },
          query: {},
          payload: { at: new Date(then).toISOString(), reason: "undo" }
        })
        assert.strictEqual(plan.counts.create, 1)
        yield* register("raced", "192.0.2.82")
        const done = yield* plans.apply({ params: { plan: plan.id }, query: {}, payload: {} })
        assert.strictEqual(done.applied, 0)
        assert.match(done.refusals[0]!.reason, /it has changed since/)
        assert.deepStrictEqual(
          Option.map(yield* registry.findByName(host.fqdn), ({ addresses }) => addresses),
          Option.some([IpAddress.make("192.0.2.82")])
        )
      })
    )

    it.effect(
      "the records of a zone are as they should have been then, pointers by who had claimed the address last",
      () =>
        Effect.gen(function* () {
          const { zones } = yield* client
          const registry = yield* Registry
          const first = yield* register("past-rr-1", "192.0.2.91", zone, { ttlSeconds: 120 })
          yield* tick(Date.now())
          const second = yield* register("past-rr-2", "192.0.2.91")
          const then = Date.now()
          yield* tick(then)
          yield* register("past-rr-1", "192.0.2.92")
          yield* registry.release(second.fqdn, ops, "sold")
          const at = new Date(then).toISOString()
          const all = Effect.fn(function* (inZone: DomainName.DomainName, query: { readonly at?: string }) {
            const found: Array<unknown> = []
            let cursor: string | undefined
            do {
              const page = yield* zones.records({
                params: { zone: inZone },
                query: { ...query, limit: 3, ...(cursor !== undefined && { cursor }) }
              })
              for (const { name, recordSets } of page.body.items) {
                for (const { contents, ttlSeconds, type } of recordSets) found.push([name, type, ttlSeconds, contents])
              }
              cursor = page.body.nextCursor
            } while (cursor !== undefined)
            return found
          })
          const forward = yield* all(zone, { at })
          assert.deepStrictEqual(
            forward.filter((each) => JSON.stringify(each).includes("past-rr-")),
            [
              [first.fqdn, "A", 120, ["192.0.2.91"]],
              [second.fqdn, "A", 60, ["192.0.2.91"]]
            ]
          )
          const pointer = IpAddress.reverseName(IpAddress.make("192.0.2.91"))
          assert.deepInclude(yield* all(reverseZone, { at }), [pointer, "PTR", 60, [second.fqdn]])
          const before = new Date(first.firstSeenMillis - 1).toISOString()
          assert.notInclude(JSON.stringify(yield* all(zone, { at: before })), "past-rr-")
        })
    )

    it.effect(
      "history has every version, the newest first, with who made it and why, also of a host that is no more",
      () =>
        Effect.gen(function* () {
          const { history } = yield* client
          const registry = yield* Registry
          const host = yield* register("past", "192.0.2.11")
          yield* register("past", "192.0.2.12")
          yield* registry.retire(host.fqdn, ops, "old")
          yield* registry.release(host.fqdn, ops, "sold")
          const first = yield* history.hostHistory({ params: { host: host.fqdn }, query: { limit: 3 } })
          assert.deepStrictEqual(
            first.body.items.map(({ change, event }) => [event, change?.actor, change?.reason]),
            [
              ["released", "ops", "sold"],
              ["retired", "ops", "old"],
              ["changed", "rack-7", undefined]
            ]
          )
          assert.strictEqual(first.body.items[0]?.change?.peer, "192.0.2.99")
          const rest = yield* history.hostHistory({
            params: { host: host.id },
            query: { limit: 3, cursor: first.body.nextCursor! }
          })
          assert.deepStrictEqual(
            rest.body.items.map(({ addresses, event }) => [event, addresses]),
            [["created", [IpAddress.make("192.0.2.11")]]]
          )
          assert.isFalse("nextCursor" in rest.body)
          const none = yield* Effect.flip(history.hostHistory({ params: { host: `never.${zone}` }, query: {} }))
          assert.strictEqual(none._tag, "HostNotFound")
        })
    )

    it.effect("a host is explained from who registered it to what PowerDNS took, pointer too", () =>
      Effect.gen(function* () {
        const { history } = yield* client
        const host = yield* register("why", "192.0.2.21")
        yield* applied(host.fqdn)
        const found = yield* history.explainHost({ params: { host: host.fqdn }, query: {} })
        if (typeof found === "string") throw new Error(found)
        assert.deepStrictEqual(
          found.steps.map(({ actor, step }) => [step, actor]),
          [
            ["who", "rack-7"],
            ["message", "rack-7"],
            ["audit", "rack-7"]
          ]
        )
        assert.strictEqual(found.steps[1]?.peer, "192.0.2.250")
        assert.deepStrictEqual(
          found.names.map(({ name, obstacles, steps }) => [name, steps.map(({ step }) => step), obstacles]),
          [
            [host.fqdn, ["applied"], []],
            [IpAddress.reverseName(IpAddress.make("192.0.2.21")), ["applied"], []]
          ]
        )
        const text = yield* history.explainHost({ params: { host: host.id }, query: { format: "text" } })
        if (typeof text !== "string") throw new Error("not in words")
        assert.match(text, /why\.hosts\.prism\.test\. is online at 192\.0\.2\.21 for rack-7, since /)
        assert.match(text, /applied .* PowerDNS took it at generation \d+/)
      })
    )

    it.effect(
      "a record is explained whoever's it is: a host's, the one that claimed an address last, people's, nobody's",
      () =>
        Effect.gen(function* () {
          const { history } = yield* client
          const powerdns = yield* PowerDnsMemory
          const one = yield* register("claims-1", "192.0.2.31")
          yield* tick(Date.now())
          const two = yield* register("claims-2", "192.0.2.31")
          yield* applied(two.fqdn)
          const explain = Effect.fn(function* (name: string, type: string, inZone = zone) {
            const found = yield* history.explainRecord({
              params: { zone: inZone, name: DomainName.make(name), type },
              query: {}
            })
            if (typeof found === "string") throw new Error(found)
            return found
          })
          const forward = yield* explain(two.fqdn, "a")
          assert.strictEqual(forward.origin, "host")
          assert.deepStrictEqual(forward.desired[0]?.contents, ["192.0.2.31"])
          const pointer = yield* explain(IpAddress.reverseName(IpAddress.make("192.0.2.31")), "PTR", reverseZone)
          assert.strictEqual(pointer.owner, two.fqdn)
          assert.deepStrictEqual(
            pointer.claims.map(({ fqdn, wins }) => [fqdn, wins]),
            [
              [two.fqdn, true],
              [one.fqdn, false]
            ]
          )
          assert.match(pointer.claims[1]!.reason, /claims-2.* claimed the address after it/)
          const none = yield* explain(`nothing.${zone}`, "TXT")
          assert.strictEqual(none.origin, "none")
          assert.match(none.summary, /is not there/)
          const foreign = DomainName.make(`made-by-hand.${zone}`)
          yield* powerdns.put(zone, RRset.make(foreign, "TXT", 60, ['"hello"']))
          const other = yield* explain(foreign, "TXT")
          assert.strictEqual(other.origin, "foreign")
          assert.deepStrictEqual(other.published?.[0]?.contents, ['"hello"'])
          assert.deepStrictEqual(
            other.obstacles.map(({ kind }) => kind),
            ["foreign"]
          )
          const late = DomainName.make(`late.${zone}`)
          const outbox = yield* Outbox
          yield* waitUntil("the publisher asks nothing", Effect.orDie(outbox.list({ limit: 10 })), (marks) =>
            marks.every(({ parkedReason }) => parkedReason !== undefined)
          )
          const publishing = Effect.andThen(register("late", "192.0.2.33"), applied(late))
          yield* powerdns.beforeNext(
            Effect.provide(Effect.orDie(publishing), yield* Effect.context<Effect.Services<typeof publishing>>()),
            "rrsets"
          )
          assert.strictEqual((yield* explain(late, "A")).origin, "host")
          // Sent, and not known to be taken; whoever wanted it wants it no more.
          const sent = RRset.make(DomainName.make(`sent.${zone}`), "TXT", 60, ['"hello"'])
          yield* outbox.claim(zone, [{ name: sent.name, sent: [sent] }], Date.now())
          yield* powerdns.put(zone, sent)
          assert.strictEqual((yield* explain(sent.name, "TXT")).origin, "going")
          const refused = DomainName.make(`refused.${zone}`)
          yield* powerdns.refuseName(refused, "PowerDNS does not like this name")
          yield* register("refused", "192.0.2.32")
          const parked = yield* waitUntil("it is parked", explain(refused, "A"), ({ obstacles }) =>
            obstacles.some(({ kind }) => kind === "parked")
          )
          assert.match(parked.obstacles[0]!.detail, /PowerDNS does not like this name/)
          assert.strictEqual(parked.level, "accepted")
          yield* powerdns.acceptName(refused)
          const wrong = yield* Effect.flip(
            history.explainRecord({ params: { zone, name: DomainName.make("elsewhere.test"), type: "A" }, query: {} })
          )
          assert.strictEqual(wrong._tag, "ZoneNotFound")
        })
    )
  })
})
