import { assert, layer } from "@effect/vitest"
import { Effect, Layer } from "effect"
import { SecureRandom } from "effect/crypto"
import { SqlClient } from "effect/sql"
import { execFileSync } from "node:child_process"
import { Outbox } from "@prism-dns/core/dns/Outbox"
import { type PlanChange, Plans } from "@prism-dns/core/dns/Plans"
import { Reconciler } from "@prism-dns/core/dns/Reconciler"
import * as RRset from "@prism-dns/core/domain/RRset"
import * as Zone from "@prism-dns/core/domain/Zone"
import { PowerDnsClient } from "@prism-dns/core/powerdns/PowerDnsClient"
import { PowerDnsMemory } from "@prism-dns/core/powerdns/PowerDnsMemory"
import { Registry } from "@prism-dns/core/registry/Registry"
import * as LargeZone from "../harness/largeZone.ts"
import { Postgres } from "../harness/Postgres.ts"
import * as PowerDns from "../harness/PowerDns.ts"
import { waitUntil } from "../harness/waitUntil.ts"
import * as T from "../layers.ts"

const namesMax = 100_000
const zone = Zone.make(T.forward.name)

const prism = Reconciler.layer().pipe(
  Layer.provideMerge(T.publisher({ pollMillis: 100 }, [zone])),
  Layer.provideMerge(T.sqlite()),
  Layer.provide(SecureRandom.layerWebCrypto)
)

const domain = zone.name.slice(0, -1)

const nameOf = (i: number) => LargeZone.nth(zone, i)
/** As PowerDNS writes it in its database. */
const bare = (i: number) => nameOf(i).slice(0, -1)

const range = (from: number, count: number, step = 1) => Array.from({ length: count }, (_, i) => from + i * step)

const edit = (directory: string) =>
  LargeZone.withPowerDnsDatabase(directory, (db) => {
    const changed = db.prepare("UPDATE records SET content = '203.0.113.1' WHERE name = ? AND type = 'A'")
    const removed = db.prepare("DELETE FROM records WHERE name = ? AND type = 'A'")
    const added = db.prepare(`
      INSERT INTO records (domain_id, name, type, content, ttl, prio, disabled, auth)
      SELECT id, ?, ?, ?, ?, 0, 0, 1 FROM domains WHERE name = '${domain}'`)
    db.exec("BEGIN")
    for (const i of edits.changed) changed.run(bare(i))
    for (const i of edits.removed) removed.run(bare(i))
    for (const i of edits.doubled) added.run(bare(i), "A", LargeZone.addressOf(i), 60)
    for (const i of edits.mixed) added.run(bare(i), "A", "203.0.113.2", 300)
    for (const i of edits.extra) added.run(bare(i), "AAAA", "2001:db8::1", 60)
    for (const i of edits.foreign) added.run(`foreign-${i}.${domain}`, "A", "203.0.113.3", 60)
    added.run(`mail.${domain}`, "MX", "mx.example", 60)
    db.exec("COMMIT")
  })

const edits = {
  changed: range(10, 240, 300),
  removed: range(11, 240, 300),
  doubled: range(12, 60, 300),
  mixed: range(13, 60, 300),
  extra: range(14, 60, 300),
  foreign: range(0, 300),
  changedByTool: range(15, 10, 300),
  removedByTool: range(16, 10, 300),
  addedByTool: range(17, 10, 300)
}

const pdnsutil = (directory: string, ...args: ReadonlyArray<string>) =>
  Effect.sync(() => execFileSync("pdnsutil", [`--config-dir=${directory}`, ...args], { stdio: "pipe" }))

const foreignRecords = (directory: string) =>
  LargeZone.withPowerDnsDatabase(directory, (db) =>
    db
      .prepare(
        "SELECT id, name, type, content, ttl FROM records WHERE name LIKE 'foreign-%' OR type = 'MX' ORDER BY id"
      )
      .all()
      .map((row) => JSON.stringify(row))
  )

const toLine = ({ action, name, type }: PlanChange) => `${action} ${name} ${type}`

layer(PowerDns.layer("sqlite"), { timeout: "60 seconds", excludeTestServices: true })(
  "a zone of 100,000 names in a PowerDNS on sqlite",
  (it) => {
    it.effect(
      "edited by pdnsutil and SQL behind our back: the plan names exactly those; applied, a second plan is empty and foreign records are as they were",
      () =>
        Effect.gen(function* () {
          const { directory } = yield* PowerDns.TestPowerDns
          const client = yield* PowerDnsClient
          const reconciler = yield* Reconciler
          const plans = yield* Plans
          const sql = yield* SqlClient.SqlClient
          yield* client.createZone({ name: zone.name, kind: "Native", nameservers: zone.nameservers })
          yield* LargeZone.register(zone, namesMax)
          yield* LargeZone.publish(directory, zone, namesMax)

          const written = Effect.map(sql<{ readonly n: number }>`SELECT total_changes() AS n`, ([row]) => row!.n)
          const before = yield* written
          const untouched = yield* reconciler.run(zone.name, { by: "ann" })
          assert.strictEqual(untouched.plan.counts.changes, 0)
          assert.strictEqual(yield* written, before)
          // The aim is 10 s; this machine needs under one when it has nothing else to do.
          assert.isBelow(untouched.millis, 10_000)

          yield* edit(directory)
          for (const i of edits.changedByTool) {
            yield* pdnsutil(directory, "replace-rrset", domain, LargeZone.hostnameOf(i), "A", "60", "203.0.113.4")
          }
          for (const i of edits.removedByTool) {
            yield* pdnsutil(directory, "delete-rrset", domain, LargeZone.hostnameOf(i), "A")
          }
          for (const i of edits.addedByTool) {
            yield* pdnsutil(directory, "add-record", domain, LargeZone.hostnameOf(i), "A", "60", "203.0.113.5")
          }
          const foreign = yield* foreignRecords(directory)

          const { drift, plan } = yield* reconciler.run(zone.name, { by: "ann" })
          const expected = [
            ...[...edits.changed, ...edits.changedByTool, ...edits.addedByTool].map((i) => `update ${nameOf(i)} A`),
            ...[...edits.removed, ...edits.removedByTool].map((i) => `create ${nameOf(i)} A`),
            ...[...edits.doubled, ...edits.mixed].map((i) => `repair ${nameOf(i)} A`),
            ...edits.extra.map((i) => `repair ${nameOf(i)} AAAA`)
          ].sort()
          const changes = yield* plans.changes(plan.id, { limit: 10_000 })
          assert.deepStrictEqual(changes.map(toLine).sort(), expected)
          assert.deepStrictEqual(drift, {
            missing: 250,
            different: 320,
            unexpected: 0,
            duplicate: 120,
            foreign: 300,
            ignored: 0
          })

          const { applied } = yield* plans.apply(plan.id, { by: "ann" })
          assert.strictEqual(applied, expected.length)
          yield* waitUntil("nothing is pending", (yield* Outbox).list({ limit: 1 }), (rows) => rows.length === 0)
          const second = yield* reconciler.run(zone.name, { by: "ann" })
          assert.strictEqual(second.plan.counts.changes, 0)
          assert.deepStrictEqual(yield* foreignRecords(directory), foreign)
          assert.strictEqual(foreign.length, 301)
        }).pipe(Effect.provide(prism)),
      60_000
    )
  }
)

layer(Postgres.layer(), { timeout: "60 seconds", excludeTestServices: true })("a registry on PostgreSQL", (it) => {
  it.effect("a look reads it at one moment, and what it finds is mended, forward and reverse", () =>
    Effect.gen(function* () {
      const memory = yield* PowerDnsMemory
      const registry = yield* Registry
      const reconciler = yield* Reconciler
      const pending = (yield* Outbox).list({ limit: 1 })
      const settled = waitUntil("nothing is pending", pending, (rows) => rows.length === 0)
      for (const i of range(1, 20)) yield* registry.register(T.registration(`h${i}`, `192.0.2.${i}`))
      yield* settled
      yield* memory.remove(zone.name, T.nameOf("h1"), "A")
      yield* memory.put(zone.name, RRset.make(T.nameOf("h2"), "A", 60, ["203.0.113.1"]))
      yield* memory.put(zone.name, RRset.make(T.nameOf("printer"), "A", 60, ["203.0.113.2"]))
      yield* memory.put(T.reverse4.name, RRset.make(T.pointerOf("192.0.2.3"), "PTR", 60, ["other.example."]))
      const forward = yield* reconciler.run(zone.name, { by: "ann", apply: true })
      const reverse = yield* reconciler.run(T.reverse4.name, { by: "ann", apply: true })
      assert.deepStrictEqual([forward.drift.missing, forward.drift.different, forward.drift.foreign], [1, 1, 1])
      assert.deepStrictEqual([reverse.drift.different, reverse.plan.state], [1, "applied"])
      yield* settled
      for (const { name } of [zone, T.reverse4]) {
        assert.strictEqual((yield* reconciler.run(name, { by: "ann" })).plan.counts.changes, 0)
      }
    }).pipe(
      Effect.provide(
        Reconciler.layer().pipe(
          Layer.provideMerge(T.publisher({ pollMillis: 100 }, [zone, T.reverse4])),
          Layer.provideMerge(Layer.mergeAll(PowerDnsMemory.layer(), T.postgres)),
          Layer.provide(SecureRandom.layerWebCrypto)
        )
      )
    )
  )
})
