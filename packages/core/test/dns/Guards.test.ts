import { assert, describe, it } from "@effect/vitest"
import { Duration, Effect, Layer, Stream } from "effect"
import { SqlClient } from "effect/sql"
import { TestClock } from "effect/testing"
import type { Cause } from "@prism-dns/core/dns/Cause"
import { Outbox } from "@prism-dns/core/dns/Outbox"
import { Plans } from "@prism-dns/core/dns/Plans"
import type { DomainName } from "@prism-dns/core/domain/DomainName"
import * as RRset from "@prism-dns/core/domain/RRset"
import * as Zone from "@prism-dns/core/domain/Zone"
import { PowerDnsClient } from "@prism-dns/core/powerdns/PowerDnsClient"
import { Uncertain } from "@prism-dns/core/powerdns/PowerDnsError"
import { PowerDnsMemory } from "@prism-dns/core/powerdns/PowerDnsMemory"
import { Registry } from "@prism-dns/core/registry/Registry"
import * as T from "../layers.ts"

const zone = Zone.make(T.forward.name, {
  policy: { deleteBudget: { share: 0.1, min: 3, window: Duration.hours(1) }, quarantine: Duration.minutes(10) }
})

const outside = Layer.mergeAll(PowerDnsMemory.layer(), T.sqlite())
const parts = T.publisher({ batchNamesMax: 500 }, [zone])

type Services = Layer.Success<typeof parts> | Layer.Success<typeof outside>

const test = <E>(name: string, body: Effect.Effect<void, E, Services>) =>
  it.effect(name, () => Effect.provide(body, parts.pipe(Layer.provideMerge(outside))))

const pass = (seconds: number) => TestClock.adjust(`${seconds} seconds`)

const names = (n: number, from = 0) => Array.from({ length: n }, (_, i) => `h${from + i}`)

const registerAll = (hostnames: ReadonlyArray<string>) =>
  Effect.flatMap(Registry, (registry) =>
    Effect.forEach(hostnames, (name) => registry.register(T.registration(name, "198.51.100.1")), {
      concurrency: "unbounded",
      discard: true
    })
  )

/** What the registry does when hosts stay away for too long, or are given up. */
const withdraw = Effect.fnUntraced(function* (hostnames: ReadonlyArray<string>, cause: Cause = "withdrawn") {
  const sql = yield* SqlClient.SqlClient
  const outbox = yield* Outbox
  for (const name of hostnames) {
    yield* sql`UPDATE host SET state = 'offline', offline_since = 1, withdrawn_since = 1 WHERE fqdn = ${T.nameOf(name)}`
  }
  yield* outbox.mark(
    hostnames.map((name) => ({ zone: zone.name, name: T.nameOf(name) })),
    1000,
    1,
    cause
  )
})

/** Names with an address in PowerDNS, disabled ones left out. */
const served = Effect.flatMap(PowerDnsClient, (client) =>
  Effect.map(client.exportZone(zone.name), (rrsets) =>
    rrsets.filter(({ type }) => type === "A").map(({ name }) => name.slice(0, -zone.name.length - 1))
  )
)

const patched = Effect.flatMap(PowerDnsMemory, (memory) =>
  Effect.map(memory.calls, (calls) => calls.flatMap(({ changes }) => changes ?? []))
)

const rows = <Row extends object>(query: (sql: SqlClient.SqlClient) => Effect.Effect<ReadonlyArray<Row>, unknown>) =>
  Effect.flatMap(SqlClient.SqlClient, (sql) => Effect.orDie(query(sql)))

describe("the quarantine of a withdrawn name", () => {
  test(
    "keeps its records disabled, and removes them when its time is over",
    Effect.gen(function* () {
      const memory = yield* PowerDnsMemory
      yield* registerAll(["web"])
      yield* pass(1)
      yield* memory.forgetCalls
      yield* withdraw(["web"])
      yield* pass(2)
      assert.deepStrictEqual(yield* served, [])
      const kept = RRset.make(T.nameOf("web"), "A", 60, ["198.51.100.1"])
      assert.deepStrictEqual(yield* patched, [{ _tag: "Replace", rrset: kept, disabled: true }])
      yield* pass(590)
      assert.strictEqual((yield* patched).length, 1)
      yield* pass(20)
      assert.deepInclude(yield* patched, { _tag: "Delete", name: T.nameOf("web"), type: "A" })
      assert.deepStrictEqual(yield* rows((sql) => sql`SELECT name FROM published`), [])
      const sent = (yield* patched).length
      yield* pass(1200)
      assert.strictEqual((yield* patched).length, sent)
    })
  )

  test(
    "ends with the host's return, and nothing is removed later",
    Effect.gen(function* () {
      yield* registerAll(["web"])
      yield* pass(1)
      yield* withdraw(["web"])
      yield* pass(2)
      assert.deepStrictEqual(yield* served, [])
      yield* registerAll(["web"])
      yield* pass(2)
      assert.deepStrictEqual(yield* served, ["web"])
      yield* pass(1200)
      assert.deepStrictEqual(yield* served, ["web"])
    })
  )

  test(
    "is not for a name that was given up by somebody's word",
    Effect.gen(function* () {
      yield* registerAll(["web"])
      yield* pass(1)
      yield* withdraw(["web"], "released")
      yield* pass(2)
      assert.deepInclude(yield* patched, { _tag: "Delete", name: T.nameOf("web"), type: "A" })
    })
  )
})

describe("the delete budget", () => {
  test(
    "lets through what it allows, counted over its window",
    Effect.gen(function* () {
      yield* registerAll(names(50))
      yield* pass(2)
      yield* withdraw(names(3))
      yield* pass(2)
      assert.strictEqual((yield* served).length, 47)
      yield* withdraw(names(2, 10))
      yield* pass(2)
      assert.strictEqual((yield* served).length, 45)
      // 10 % of 50 are five, and five are gone
      yield* withdraw(names(1, 20))
      yield* pass(2)
      assert.strictEqual((yield* served).length, 45)
    })
  )

  test(
    "holds a mass of deletions back as a whole: a plan names them all and says why, and nothing was deleted",
    Effect.gen(function* () {
      const plans = yield* Plans
      yield* registerAll(names(30))
      yield* pass(2)
      yield* withdraw(names(20))
      yield* pass(5)
      assert.strictEqual((yield* served).length, 30)
      const [plan, ...others] = yield* plans.list({ zone: zone.name, limit: 10 })
      assert.deepStrictEqual(others, [])
      assert.strictEqual(plan?.kind, "held-deletions")
      assert.strictEqual(plan?.state, "open")
      assert.match(plan?.reason ?? "", /20/)
      const changes = yield* plans.changes(plan!.id, { limit: 100 })
      assert.sameMembers(
        changes.map(({ name }) => name),
        names(20).map(T.nameOf)
      )
      yield* pass(7200)
      assert.strictEqual((yield* served).length, 30)
    })
  )

  it.effect("yields to a person's word also where deleted names are kept in no quarantine", () =>
    Effect.gen(function* () {
      const plans = yield* Plans
      yield* registerAll(names(10))
      yield* pass(2)
      yield* withdraw(names(5))
      yield* pass(5)
      assert.strictEqual((yield* served).length, 10)
      const [plan] = yield* plans.list({ zone: zone.name, limit: 10 })
      assert.strictEqual(plan?.counts.deletedNames, 5)
      yield* plans.apply(plan!.id, { by: "alice", overrideBudget: "the rack is gone" })
      yield* pass(5)
      assert.strictEqual((yield* served).length, 5)
    }).pipe(
      Effect.provide(
        T.publisher({}, [
          Zone.make(zone.name, { policy: { deleteBudget: zone.policy.deleteBudget, quarantine: Duration.zero } })
        ]).pipe(Layer.provideMerge(outside))
      )
    )
  )

  test(
    "is one for what a plan takes away and what is withdrawn, also when both go in one batch",
    Effect.gen(function* () {
      const plans = yield* Plans
      const memory = yield* PowerDnsMemory
      yield* registerAll(names(30))
      yield* pass(2)
      yield* memory.down
      const sql = yield* SqlClient.SqlClient
      const gone = names(3, 20)
      for (const name of gone) yield* sql`DELETE FROM host WHERE fqdn = ${T.nameOf(name)}`
      const plan = yield* plans.make(zone.name, {
        kind: "reconcile",
        reason: "drift",
        by: "ann",
        generation: 500,
        changes: Stream.make(
          gone.map((name) => ({
            name: T.nameOf(name),
            type: "A",
            action: "delete" as const,
            before: RRset.make(T.nameOf(name), "A", 60, ["198.51.100.1"]),
            after: undefined,
            reason: "nothing wants it",
            cause: "drift" as const
          }))
        )
      })
      yield* plans.apply(plan.id, { by: "ann" })
      yield* withdraw(names(3))
      yield* memory.up
      yield* pass(10)
      assert.strictEqual((yield* served).length, 27)
    })
  )

  test(
    "yields to a person's word, given with a reason that the audit keeps",
    Effect.gen(function* () {
      const plans = yield* Plans
      yield* registerAll(names(30))
      yield* pass(2)
      yield* withdraw(names(20))
      yield* pass(5)
      const [plan] = yield* plans.list({ zone: zone.name, limit: 10 })
      const refused = yield* Effect.flip(plans.apply(plan!.id, { by: "alice" }))
      assert.strictEqual(refused._tag, "DeleteBudgetExceeded")
      assert.strictEqual((yield* served).length, 30)
      yield* plans.apply(plan!.id, { by: "alice", overrideBudget: "the rack is gone" })
      yield* pass(5)
      assert.strictEqual((yield* served).length, 10)
      const audit = yield* rows(
        (sql) => sql<{ readonly actor: string }>`SELECT actor FROM audit_entry WHERE reason LIKE '%the rack is gone%'`
      )
      assert.isAbove(audit.length, 0)
      for (const { actor } of audit) assert.strictEqual(actor, "alice")
    })
  )

  test(
    "is no matter to names given up by somebody's word, nor to hosts that return",
    Effect.gen(function* () {
      yield* registerAll(names(30))
      yield* pass(2)
      yield* withdraw(names(20))
      yield* pass(5)
      yield* withdraw(names(8, 20), "released")
      yield* pass(5)
      assert.strictEqual((yield* served).length, 22)
      yield* registerAll(names(20))
      yield* pass(5)
      assert.strictEqual((yield* served).length, 22)
      assert.deepStrictEqual(yield* rows((sql) => sql`SELECT name FROM outbox`), [])
    })
  )
})

describe("a backlog", () => {
  test(
    "goes out with new and changed names first, removals last",
    Effect.gen(function* () {
      const memory = yield* PowerDnsMemory
      yield* registerAll(names(3))
      yield* pass(2)
      yield* memory.down
      yield* withdraw(names(3))
      yield* registerAll(names(600, 100))
      yield* pass(5)
      yield* memory.forgetCalls
      yield* memory.up
      yield* pass(5)
      const batches = (yield* memory.calls).filter(({ operation }) => operation === "patch")
      assert.isTrue(batches[0]!.changes!.every((change) => change._tag === "Replace" && change.disabled !== true))
      const last = batches.at(-1)!.changes!
      assert.isTrue(last.some((change) => change._tag === "Replace" && change.disabled === true))
      assert.strictEqual((yield* served).length, 600)
    })
  )
})

describe("a deletion that waits", () => {
  test(
    "goes by the budget also when what stands above or below its name changes meanwhile",
    Effect.gen(function* () {
      const tops = names(10)
      yield* registerAll([...tops, ...tops.map((name) => `below.${name}`), "other"])
      yield* pass(2)
      yield* withdraw([...tops, "other"])
      yield* pass(2)
      assert.strictEqual((yield* served).length, 21)
      yield* withdraw(
        tops.map((name) => `below.${name}`),
        "released"
      )
      yield* pass(5)
      assert.sameMembers(yield* served, [...tops, "other"])
      const kinds = yield* rows((sql) => sql<{ readonly plan: string | null }>`SELECT plan FROM outbox`)
      assert.strictEqual(kinds.filter(({ plan }) => plan !== null).length, 11)
    })
  )

  test(
    "by an approved plan is not asked for once more because its name was in doubt",
    Effect.gen(function* () {
      const outbox = yield* Outbox
      const sql = yield* SqlClient.SqlClient
      const memory = yield* PowerDnsMemory
      yield* registerAll(names(30))
      yield* pass(2)
      yield* memory.down
      const marked = names(20).map((name) => ({ zone: zone.name, name: T.nameOf(name) }))
      yield* withdraw(names(20), "plan:approved")
      yield* sql`UPDATE published SET sent = content, doubt_until = 1`
      yield* outbox.markElapsed(10, 100, 15_000)
      const waiting = yield* rows(
        (sql) => sql<{ readonly name: DomainName; readonly cause: string }>`
          SELECT name, cause FROM outbox WHERE cause = 'plan:approved'`
      )
      assert.sameMembers(
        waiting.map(({ name }) => name),
        marked.map(({ name }) => name)
      )
      yield* memory.up
      yield* pass(10)
      assert.strictEqual((yield* served).length, 10)
    })
  )

  test(
    "in quarantine is carried out when its time is over, whatever else its name was marked for meanwhile",
    Effect.gen(function* () {
      const outbox = yield* Outbox
      const memory = yield* PowerDnsMemory
      yield* registerAll(["web"])
      yield* pass(1)
      yield* withdraw(["web"])
      yield* pass(2)
      yield* memory.down
      yield* pass(605)
      yield* outbox.mark([{ zone: zone.name, name: T.nameOf("web") }], 5000, 1, "settings")
      yield* memory.up
      yield* pass(1200)
      assert.deepStrictEqual(yield* rows((sql) => sql`SELECT name FROM published`), [])
    })
  )

  test(
    "because the name was ignored counts against the budget when it is ignored no more",
    Effect.gen(function* () {
      const plans = yield* Plans
      const ignore = Effect.fnUntraced(function* (action: "ignore" | "unignore") {
        const plan = yield* plans.make(zone.name, {
          kind: "ignore",
          reason: "a look around",
          by: "ann",
          generation: 0,
          changes: Stream.make([
            {
              name: "h*" as DomainName,
              type: "*",
              action,
              before: undefined,
              after: undefined,
              reason: "so be it",
              cause: "settings"
            }
          ])
        })
        yield* plans.apply(plan.id, { by: "ann" })
      })
      yield* registerAll(names(30))
      yield* pass(2)
      yield* ignore("ignore")
      yield* withdraw(names(20))
      yield* pass(2)
      assert.strictEqual((yield* served).length, 30)
      yield* ignore("unignore")
      yield* pass(5)
      assert.strictEqual((yield* served).length, 30)
      assert.strictEqual((yield* plans.list({ zone: zone.name, kind: "held-deletions", limit: 10 })).length, 1)
    })
  )
})

const deep = Zone.make(T.forward.name)
const textsAt = (name: DomainName) =>
  Effect.flatMap(PowerDnsClient, (client) =>
    Effect.map(client.rrsets(deep.name, [name]), (rrsets) => rrsets.map(({ type }) => type))
  )

describe("a name above others that has no records", () => {
  test(
    "gets a placeholder, which goes with the last name below it",
    Effect.gen(function* () {
      const outbox = yield* Outbox
      yield* registerAll(["a.b.c", "d.b.c"])
      yield* pass(2)
      assert.deepStrictEqual(yield* textsAt(T.nameOf("b.c")), ["TXT"])
      assert.deepStrictEqual(yield* textsAt(T.nameOf("c")), ["TXT"])
      yield* withdraw(["a.b.c"], "released")
      yield* pass(2)
      assert.deepStrictEqual(yield* textsAt(T.nameOf("b.c")), ["TXT"])
      yield* withdraw(["d.b.c"], "released")
      yield* pass(2)
      assert.deepStrictEqual(yield* textsAt(T.nameOf("b.c")), [])
      assert.deepStrictEqual(yield* textsAt(T.nameOf("c")), [])
      assert.deepStrictEqual(yield* outbox.list({ limit: 10 }), [])
      assert.deepStrictEqual(yield* rows((sql) => sql`SELECT name FROM published`), [])
    })
  )

  test(
    "has its host's records instead while there is one, and the placeholder again afterwards",
    Effect.gen(function* () {
      yield* registerAll(["a.b", "b"])
      yield* pass(2)
      assert.deepStrictEqual(yield* textsAt(T.nameOf("b")), ["A"])
      yield* withdraw(["b"], "released")
      yield* pass(2)
      assert.deepStrictEqual(yield* textsAt(T.nameOf("b")), ["TXT"])
      yield* registerAll(["b"])
      yield* pass(2)
      assert.deepStrictEqual(yield* textsAt(T.nameOf("b")), ["A"])
    })
  )

  test(
    "is left alone when something of someone else's stands there already",
    Effect.gen(function* () {
      const memory = yield* PowerDnsMemory
      yield* pass(1)
      yield* memory.put(zone.name, RRset.make(T.nameOf("b"), "TXT", 300, ['"mine"']))
      yield* memory.put(zone.name, RRset.make(T.nameOf("c"), "MX", 300, ["10 mail.test."]))
      yield* registerAll(["a.b", "a.c"])
      yield* pass(2)
      const client = yield* PowerDnsClient
      const found = yield* client.rrsets(zone.name, [T.nameOf("b"), T.nameOf("c")])
      assert.deepStrictEqual(
        found.map(({ contents, type }) => [type, ...contents]),
        [
          ["TXT", '"mine"'],
          ["MX", "10 mail.test."]
        ]
      )
      assert.deepStrictEqual(yield* (yield* Outbox).list({ limit: 10 }), [])
    })
  )
})

describe("a record that someone makes beside a placeholder", () => {
  test(
    "is not touched when the placeholder is written anew, nor when a host comes to have the name",
    Effect.gen(function* () {
      const memory = yield* PowerDnsMemory
      const outbox = yield* Outbox
      yield* registerAll(["a.b"])
      yield* pass(2)
      yield* memory.put(zone.name, RRset.make(T.nameOf("b"), "A", 300, ["203.0.113.1"]))
      yield* outbox.recheck(zone.name, [T.nameOf("b")], 1, "drift")
      yield* pass(2)
      assert.deepStrictEqual((yield* textsAt(T.nameOf("b"))).toSorted(), ["A", "TXT"])
      yield* registerAll(["b"])
      yield* pass(2)
      assert.isTrue((yield* served).includes("b"))
      const [parked] = yield* outbox.list({ limit: 10 })
      assert.match(parked?.parkedReason ?? "", /203\.0\.113\.1/)
    })
  )
})

describe("many hosts at once", () => {
  test(
    "do not take the place of a record that someone made beside a placeholder",
    Effect.gen(function* () {
      const memory = yield* PowerDnsMemory
      yield* registerAll(["a.b"])
      yield* pass(2)
      yield* memory.put(zone.name, RRset.make(T.nameOf("b"), "A", 300, ["203.0.113.1"]))
      yield* registerAll([...names(20), "b"])
      yield* pass(2)
      const client = yield* PowerDnsClient
      const found = (yield* client.rrsets(zone.name, [T.nameOf("b")])).find(({ type }) => type === "A")
      assert.deepStrictEqual(found?.contents, ["203.0.113.1"])
    })
  )
})

describe("a name in doubt", () => {
  test(
    "in quarantine is disabled once more: an older write may have come late",
    Effect.gen(function* () {
      const outbox = yield* Outbox
      const sql = yield* SqlClient.SqlClient
      const memory = yield* PowerDnsMemory
      yield* registerAll(["web"])
      yield* pass(1)
      yield* withdraw(["web"])
      yield* pass(2)
      assert.deepStrictEqual(yield* served, [])
      yield* sql`UPDATE published SET sent = content, doubt_until = 1`
      yield* memory.put(zone.name, RRset.make(T.nameOf("web"), "A", 60, ["198.51.100.1"]))
      assert.deepStrictEqual(yield* served, ["web"])
      yield* outbox.wake([zone.name])
      yield* pass(2)
      assert.deepStrictEqual(yield* served, [])
      yield* pass(610)
      assert.deepStrictEqual(yield* rows((sql) => sql`SELECT name FROM published`), [])
    })
  )

  test(
    "that is found to be someone else's no longer counts among the names below others",
    Effect.gen(function* () {
      const outbox = yield* Outbox
      const sql = yield* SqlClient.SqlClient
      const memory = yield* PowerDnsMemory
      yield* registerAll(["a.b"])
      yield* pass(2)
      assert.deepStrictEqual(yield* textsAt(T.nameOf("b")), ["TXT"])
      yield* sql`UPDATE published SET sent = content WHERE name = ${T.nameOf("a.b")}`
      yield* memory.put(zone.name, RRset.make(T.nameOf("a.b"), "A", 300, ["203.0.113.1"]))
      yield* withdraw(["a.b"], "released")
      yield* outbox.wake([zone.name])
      yield* pass(5)
      assert.deepStrictEqual(yield* served, ["a.b"])
      assert.deepStrictEqual(yield* rows((sql) => sql`SELECT name FROM non_terminal`), [])
      assert.deepStrictEqual(yield* rows((sql) => sql`SELECT name FROM published`), [])
    })
  )

  test(
    "whose host is gone meanwhile is not deleted when someone has put a record of his own there",
    Effect.gen(function* () {
      const memory = yield* PowerDnsMemory
      yield* pass(1)
      yield* memory.failNext(new Uncertain({ detail: "no answer within 10s" }), "patch")
      yield* registerAll(["web"])
      yield* pass(0.05)
      yield* memory.put(zone.name, RRset.make(T.nameOf("web"), "A", 300, ["203.0.113.1"]))
      yield* withdraw(["web"], "released")
      yield* pass(60)
      assert.deepStrictEqual(yield* served, ["web"])
      assert.deepStrictEqual(yield* rows((sql) => sql`SELECT name FROM published`), [])
    })
  )
})
