import { assert, describe, type Vitest } from "@effect/vitest"
import { Duration, Effect, Layer, Option, Stream } from "effect"
import { SecureRandom } from "effect/crypto"
import { SqlClient } from "effect/sql"
import { Outbox } from "@prism-dns/core/dns/Outbox"
import { type NewChange, pageSize, Plans } from "@prism-dns/core/dns/Plans"
import * as RRset from "@prism-dns/core/domain/RRset"
import * as Zone from "@prism-dns/core/domain/Zone"
import { PowerDnsMemory } from "@prism-dns/core/powerdns/PowerDnsMemory"
import * as Generation from "@prism-dns/core/storage/Generation"
import * as T from "../layers.ts"

const zone = Zone.make(T.forward.name, {
  policy: { deleteBudget: { share: 0.1, min: 3, window: Duration.hours(1) } }
})

const parts = Plans.layer.pipe(
  Layer.provideMerge(T.shared([zone])),
  Layer.provideMerge(PowerDnsMemory.layer()),
  Layer.provideMerge(SecureRandom.layerWebCrypto)
)

type Services = Layer.Success<typeof parts> | SqlClient.SqlClient

const a = (hostname: string, content = "192.0.2.1") => RRset.make(T.nameOf(hostname), "A", 60, [content])

const deletion = (hostname: string): NewChange => ({
  name: T.nameOf(hostname),
  type: "A",
  action: "delete",
  before: a(hostname),
  after: undefined,
  reason: "nothing wants it",
  cause: "drift"
})

const creation = (hostname: string): NewChange => ({
  ...deletion(hostname),
  action: "create",
  before: undefined,
  after: a(hostname)
})

const generation = Effect.flatMap(SqlClient.SqlClient, Generation.current)
const nextGeneration = Effect.flatMap(SqlClient.SqlClient, Generation.next)

const makePlan = (...chunks: ReadonlyArray<ReadonlyArray<NewChange>>) =>
  Effect.gen(function* () {
    return yield* (yield* Plans).make(zone.name, {
      kind: "reconcile",
      reason: "drift",
      by: "ann",
      generation: yield* generation,
      changes: Stream.fromIterable(chunks)
    })
  })

const query = <Row extends object>(text: string) =>
  Effect.flatMap(SqlClient.SqlClient, (sql) => sql.unsafe<Row>(text)).pipe(Effect.orDie)

const marked = Effect.map(
  query<{ name: string; cause: string }>("SELECT name, cause FROM outbox ORDER BY name"),
  (rows) => rows.map(({ cause, name }) => `${name} ${cause}`)
)

const outcomes = (id: string) =>
  Effect.map(
    Effect.flatMap(Plans, (plans) => plans.changes(id, { limit: 100 })),
    (changes) => changes.map(({ outcome }) => outcome)
  )

const apply = (id: string, options: { overrideBudget?: string; names?: ReadonlyArray<string> } = {}) =>
  Effect.flatMap(Plans, (plans) =>
    plans.apply(id, {
      by: "bob",
      peer: "198.51.100.9",
      overrideBudget: options.overrideBudget,
      names: options.names?.map(T.nameOf)
    })
  )

/** What plans do, on any database. Each test gets a new one. */
export const suite = <R>(
  name: string,
  it: Pick<Vitest.MethodsNonLive<R>, "effect">,
  database: Layer.Layer<SqlClient.SqlClient, never, R>
) =>
  describe(name, () => {
    const test = <E>(title: string, body: Effect.Effect<void, E, Services>) =>
      it.effect(title, () => Effect.provide(body, Layer.fresh(parts.pipe(Layer.provideMerge(database)))))

    test(
      "are kept as they were made, chunk by chunk, and found and listed, the newest first",
      Effect.gen(function* () {
        const plans = yield* Plans
        const first = yield* makePlan([creation("a")])
        const plan = yield* makePlan([creation("a"), creation("b")], [], [deletion("c")])
        assert.deepStrictEqual(Option.getOrThrow(yield* plans.find(plan.id)), plan)
        assert.strictEqual(plan.counts.changes, 3)
        assert.strictEqual(plan.counts.deletedNames, 1)
        assert.match(plan.hash, /^sha256:[0-9a-f]{64}$/)
        assert.deepStrictEqual(
          (yield* plans.list({ zone: zone.name, limit: 5 })).map(({ id, state }) => [id, state]),
          [
            [plan.id, "open"],
            [first.id, "superseded"]
          ]
        )
        assert.deepStrictEqual(
          (yield* plans.list({ after: plan.id, limit: 5 })).map(({ id }) => id),
          [first.id]
        )
        const [change, ...others] = yield* plans.changes(plan.id, { after: 2, limit: 5 })
        assert.deepStrictEqual(change, { ...deletion("c"), ordinal: 3, outcome: undefined })
        assert.strictEqual(others.length, 0)
      })
    )

    test(
      "that say the same again are the one there is",
      Effect.gen(function* () {
        const plan = yield* makePlan([creation("a")])
        assert.strictEqual((yield* makePlan([creation("a")])).id, plan.id)
        assert.strictEqual((yield* query("SELECT id FROM plan")).length, 1)
        assert.strictEqual((yield* query("SELECT plan FROM plan_change")).length, 1)
      })
    )

    test(
      "whose making fails leave nothing behind",
      Effect.gen(function* () {
        const plans = yield* Plans
        const error = yield* plans
          .make(zone.name, {
            kind: "reconcile",
            reason: "drift",
            by: "ann",
            generation: 1,
            changes: Stream.concat(Stream.make([creation("a")]), Stream.fail("broken off" as const))
          })
          .pipe(Effect.flip)
        assert.strictEqual(error, "broken off")
        assert.deepStrictEqual(yield* query("SELECT id FROM plan"), [])
        assert.deepStrictEqual(yield* query("SELECT plan FROM plan_change"), [])
      })
    )

    test(
      "applied mark their names with audit entries, once; twice is refused",
      Effect.gen(function* () {
        const plan = yield* makePlan([creation("a"), deletion("b")])
        const result = yield* apply(plan.id)
        assert.deepStrictEqual([result.applied, result.refused, result.plan.state], [2, 0, "applied"])
        assert.deepStrictEqual(yield* marked, [`a.hosts.test. plan:${plan.id}`, `b.hosts.test. plan:${plan.id}`])
        const again = yield* Effect.flip(apply(plan.id))
        assert.strictEqual(again._tag, "PlanNotOpen")
        assert.deepStrictEqual(
          (yield* query<{ action: string; actor: string; peer: string; reason: string }>(
            "SELECT action, actor, peer, reason FROM audit_entry ORDER BY sequence"
          )).map((row) => ({ ...row })),
          [
            { action: "plan.made", actor: "ann", peer: null, reason: "drift" },
            ...["plan.applied", "record.create", "record.delete"].map((action, i) => ({
              action,
              actor: "bob",
              peer: "198.51.100.9",
              reason: i === 0 ? "drift" : "nothing wants it"
            }))
          ]
        )
      })
    )

    test(
      "of several pages are applied page by page, in time that grows with their length only",
      Effect.gen(function* () {
        const changes = (from: number, to: number) =>
          Array.from({ length: to - from }, (_, i) => creation(`h${String(from + i).padStart(5, "0")}`))
        const timeOf = Effect.fnUntraced(function* (from: number, to: number) {
          const plan = yield* makePlan(changes(from, to))
          const start = performance.now()
          const { applied, plan: after } = yield* apply(plan.id)
          assert.deepStrictEqual([applied, after.state], [to - from, "applied"])
          return performance.now() - start
        })
        const small = yield* timeOf(0, 1000)
        const large = yield* timeOf(1000, 9000)
        // Eight times the changes; a join without its index took sixty times as long.
        assert.isBelow(large, small * 30 + 1000)
      })
    )

    test(
      "applied by two at the same time take effect once",
      Effect.gen(function* () {
        const plan = yield* makePlan([creation("a"), creation("b")])
        const results = yield* Effect.all([Effect.result(apply(plan.id)), Effect.result(apply(plan.id))], {
          concurrency: 2
        })
        const applied = results.map((result) => (result._tag === "Success" ? result.success.applied : 0))
        assert.deepStrictEqual(
          applied.toSorted((x, y) => x - y),
          [0, 2]
        )
        assert.strictEqual((yield* query("SELECT sequence FROM audit_entry WHERE action = 'record.create'")).length, 2)
      })
    )

    test(
      "are refused at names about which the registry knows something newer, and the others go on",
      Effect.gen(function* () {
        const outbox = yield* Outbox
        yield* nextGeneration
        const plan = yield* makePlan(["marked", "published", "host", "as-it-was"].map(creation))
        yield* outbox.mark([{ zone: zone.name, name: T.nameOf("marked") }], yield* nextGeneration, 1, "registered")
        yield* outbox.settle(
          zone,
          [{ name: T.nameOf("published"), generation: yield* nextGeneration, rrsets: [a("published")] }],
          1
        )
        yield* query(`
          INSERT INTO host (id, fqdn, hostname, zone, addresses, labels, owner, state, generation, first_seen, last_seen)
          VALUES ('1', '${T.nameOf("host")}', 'host', '${zone.name}', '[]', '{}', 'ann', 'online',
            ${yield* nextGeneration}, 1, 1)`)
        const { applied, plan: after, refused } = yield* apply(plan.id)
        assert.deepStrictEqual([applied, refused, after.state], [1, 3, "applied"])
        const said = yield* outcomes(plan.id)
        assert.match(said[0]!, /it has changed since and waits to be published: generation 2, and the plan knows of 1/)
        assert.match(said[1]!, /it was published since/)
        assert.match(said[2]!, /its host has changed since/)
        assert.strictEqual(said[3], "applied")
        assert.include(yield* marked, `as-it-was.hosts.test. plan:${plan.id}`)
        assert.strictEqual((yield* query("SELECT 1 AS n FROM audit_entry WHERE action = 'record.create'")).length, 1)
      })
    )

    test(
      "whose changes are not those that were shown are refused",
      Effect.gen(function* () {
        const plan = yield* makePlan([creation("a"), creation("b")])
        yield* query(`UPDATE plan_change SET name = '${T.nameOf("c")}' WHERE ordinal = 2`)
        const error = yield* Effect.flip(apply(plan.id))
        assert.strictEqual(error._tag, "PlanAltered")
        assert.deepStrictEqual(yield* marked, [])
      })
    )

    test(
      "beyond the zone's delete budget are refused with figures, deletions that are under way included",
      Effect.gen(function* () {
        const first = yield* makePlan(["a", "b"].map(deletion))
        yield* apply(first.id)
        const plan = yield* makePlan([...["c", "d"].map(deletion), creation("e")])
        const error = yield* Effect.flip(apply(plan.id))
        assert.strictEqual(error._tag, "DeleteBudgetExceeded")
        if (error._tag === "DeleteBudgetExceeded") {
          assert.deepStrictEqual([error.wanted, error.remaining, error.deleted], [2, 1, 2])
          assert.match(error.message, /2 of 0 published names would lose their records, the budget allows 3 in 1h/)
        }
        assert.strictEqual((yield* marked).length, 2)
        const part = yield* (yield* Plans).apply(plan.id, { by: "bob", withoutDeletions: true })
        assert.deepStrictEqual([part.applied, part.plan.state], [1, "open"])
        const one = yield* apply(plan.id, { names: ["c"] })
        assert.deepStrictEqual([one.applied, one.plan.state], [1, "open"])
        const rest = yield* apply(plan.id, { overrideBudget: "it is right" })
        assert.deepStrictEqual([rest.applied, rest.plan.state, rest.plan.decidedReason], [1, "applied", "it is right"])
        assert.strictEqual((yield* marked).length, 5)
      })
    )

    test(
      "of which a part was applied are made anew when the same differs again",
      Effect.gen(function* () {
        const plans = yield* Plans
        const chunk = [creation("a"), ...["b", "c", "d", "e"].map(deletion)]
        const first = yield* makePlan(chunk)
        assert.strictEqual((yield* makePlan(chunk)).id, first.id)
        yield* plans.apply(first.id, { by: "prism", withoutDeletions: true })
        const second = yield* makePlan(chunk)
        assert.strictEqual((yield* plans.apply(second.id, { by: "prism", withoutDeletions: true })).applied, 1)
      })
    )

    test(
      "of held deletions grow, and apply to names that are still held only",
      Effect.gen(function* () {
        const plans = yield* Plans
        const outbox = yield* Outbox
        const held = (hostname: string) => ({
          name: T.nameOf(hostname),
          type: "A",
          before: a(hostname),
          reason: "away for too long"
        })
        const hold = Effect.fnUntraced(function* (...hostnames: ReadonlyArray<string>) {
          const mine = yield* nextGeneration
          const marks = hostnames.map((name) => ({ name: T.nameOf(name), generation: mine }))
          yield* outbox.mark(
            marks.map(({ name }) => ({ zone: zone.name, name })),
            mine,
            1,
            "withdrawn"
          )
          const plan = yield* plans.hold(zone.name, hostnames.map(held), "too many")
          yield* outbox.hold(zone.name, marks, plan.id, "too many", 1)
          return plan
        })
        const first = yield* hold("a", "b")
        const second = yield* hold("b", "c", "d")
        assert.strictEqual(second.id, first.id)
        assert.strictEqual(second.counts.deletedNames, 4)
        // Its host is back.
        yield* outbox.mark([{ zone: zone.name, name: T.nameOf("b") }], yield* nextGeneration, 1, "registered")
        assert.strictEqual((yield* Effect.flip(apply(first.id)))._tag, "DeleteBudgetExceeded")
        const { applied, refused } = yield* apply(first.id, { overrideBudget: "they are gone" })
        assert.deepStrictEqual([applied, refused], [3, 1])
        assert.deepStrictEqual(yield* marked, [
          `a.hosts.test. plan:${first.id}`,
          "b.hosts.test. registered",
          `c.hosts.test. plan:${first.id}`,
          `d.hosts.test. plan:${first.id}`
        ])
        assert.match((yield* outcomes(first.id))[1]!, /no longer held back/)
        assert.notStrictEqual((yield* hold("e")).id, first.id)
      })
    )

    test(
      "of held deletions grow in time by what is added, however long they have become",
      Effect.gen(function* () {
        const plans = yield* Plans
        const outbox = yield* Outbox
        const timeOf = Effect.fnUntraced(function* (from: number, to: number) {
          const start = performance.now()
          for (let batch = from; batch < to; batch++) {
            const mine = yield* nextGeneration
            const some = Array.from({ length: 500 }, (_, i) => T.nameOf(`h${batch * 500 + i}`))
            const marks = some.map((name) => ({ zone: zone.name, name, generation: mine }))
            yield* outbox.mark(marks, mine, 1, "withdrawn")
            const changes = some.map((name) => ({ name, type: "A", before: a("a"), reason: "away" }))
            const plan = yield* plans.hold(zone.name, changes, "too many")
            yield* outbox.hold(zone.name, marks, plan.id, "too many", 1)
          }
          return performance.now() - start
        })
        const first = yield* timeOf(0, 3)
        yield* timeOf(3, 25)
        const last = yield* timeOf(25, 28)
        // PostgreSQL, with the statistics of an empty table, read the whole plan for each name: seconds a batch.
        assert.isBelow(last, first * 10 + 1000)
      })
    )

    test(
      "are neither applied nor made behind a fence that does not hold: not from the page on at which it fails",
      Effect.gen(function* () {
        const plans = yield* Plans
        const outbox = yield* Outbox
        const lost = yield* Effect.flip(
          plans.hold(
            zone.name,
            [{ name: T.nameOf("a"), type: "A", before: a("a"), reason: "away" }],
            "too many",
            Effect.fail("lost" as const)
          )
        )
        assert.strictEqual(lost, "lost")
        assert.deepStrictEqual(yield* query("SELECT id FROM plan"), [])
        const names = Array.from({ length: pageSize + 1 }, (_, i) => `h${String(i).padStart(5, "0")}`)
        const plan = yield* makePlan(names.map(creation))
        let looks = 0
        const fence = Effect.suspend(() => (++looks === 1 ? Effect.void : Effect.fail("lost" as const)))
        assert.strictEqual(yield* Effect.flip(plans.apply(plan.id, { by: "prism", fence })), "lost")
        assert.strictEqual((yield* marked).length, pageSize)
        assert.strictEqual(Option.getOrThrow(yield* plans.find(plan.id)).state, "open")
        assert.strictEqual((yield* outbox.findMarks([{ zone: zone.name, name: T.nameOf(names.at(-1)!) }])).length, 0)
      })
    )

    test(
      "of held deletions are applied as they were shown: what is added meanwhile waits for another word",
      Effect.gen(function* () {
        const plans = yield* Plans
        const outbox = yield* Outbox
        const hold = Effect.fnUntraced(function* (hostnames: ReadonlyArray<string>) {
          const mine = yield* nextGeneration
          const marks = hostnames.map((name) => ({ zone: zone.name, name: T.nameOf(name), generation: mine }))
          yield* outbox.mark(marks, mine, 1, "withdrawn")
          const plan = yield* plans.hold(
            zone.name,
            hostnames.map((name) => ({ name: T.nameOf(name), type: "A", before: a(name), reason: "away" })),
            "too many"
          )
          yield* outbox.hold(zone.name, marks, plan.id, "too many", 1)
          return plan
        })
        const shown = Array.from({ length: 2 * pageSize + 1 }, (_, i) => `h${i}`)
        const plan = yield* hold(shown)
        const begun = query<{ n: number | bigint }>(
          "SELECT COUNT(*) AS n FROM plan_change WHERE outcome IS NOT NULL"
        ).pipe(Effect.map(([row]) => Number(row!.n) > 0))
        const holdMore = Effect.gen(function* () {
          while (!(yield* begun)) yield* Effect.yieldNow
          return yield* hold(["late"])
        })
        const [result, later] = yield* Effect.all(
          [apply(plan.id, { overrideBudget: "they are gone" }), holdMore] as const,
          { concurrency: 2 }
        )
        assert.strictEqual(later.id, plan.id)
        assert.deepStrictEqual([result.applied, result.refused, result.plan.state], [shown.length, 0, "open"])
        assert.strictEqual((yield* apply(plan.id, { overrideBudget: "that one too" })).applied, 1)
      })
    )

    test(
      "to import change the records of people set by set, with history, marks and audit; a set newer than the plan is refused",
      Effect.gen(function* () {
        const plans = yield* Plans
        const change = (
          hostname: string,
          type: string,
          action: "create" | "update" | "delete",
          contents: ReadonlyArray<string>
        ): NewChange => ({
          name: T.nameOf(hostname),
          type,
          action,
          before: undefined,
          after: action === "delete" ? undefined : RRset.make(T.nameOf(hostname), type, 300, contents),
          reason: "the file has it",
          cause: "record"
        })
        const importing = Effect.fnUntraced(function* (...changes: ReadonlyArray<NewChange>) {
          return yield* plans.make(zone.name, {
            kind: "import",
            reason: "from a file",
            by: "ann",
            generation: yield* generation,
            changes: Stream.make(changes)
          })
        })
        const first = yield* importing(
          change("www", "CNAME", "create", ["web.example."]),
          change("mail", "MX", "create", ["10 mx.example."]),
          change("mail", "TXT", "create", ['"v=spf1 -all"']),
          change("www", "TXT", "create", ['"beside a CNAME"']),
          change("odd", "SOA", "create", ["x"])
        )
        const done = yield* apply(first.id)
        assert.deepStrictEqual([done.applied, done.refused, done.plan.state], [3, 2, "applied"])
        assert.match((yield* outcomes(first.id))[3]!, /has a CNAME record, which stands alone/)
        assert.deepStrictEqual(yield* marked, ["mail.hosts.test. record", "www.hosts.test. record"])

        const stale = yield* importing(
          change("www", "CNAME", "update", ["other.example."]),
          change("mail", "MX", "delete", [])
        )
        yield* apply((yield* importing(change("mail", "MX", "update", ["20 mx.example."]))).id)
        const second = yield* apply(stale.id)
        assert.deepStrictEqual([second.applied, second.refused], [1, 1])
        assert.match((yield* outcomes(stale.id))[1]!, /it has changed since: generation \d+, and the plan knows of/)
        yield* apply((yield* importing(change("mail", "TXT", "delete", []))).id)

        assert.deepStrictEqual(
          (yield* query<{ name: string; type: string; contents: string; origin: string; owner: string }>(
            "SELECT name, type, contents, origin, owner FROM record ORDER BY name, type"
          )).map((row) => Object.values(row).join(" ")),
          ['mail.hosts.test. MX ["20 mx.example."] managed bob', 'www.hosts.test. CNAME ["other.example."] managed bob']
        )
        assert.deepStrictEqual(
          (yield* query<{ event: string; open: number | bigint }>(
            "SELECT event, CASE WHEN valid_to IS NULL THEN 1 ELSE 0 END AS open FROM record_history ORDER BY sequence"
          )).map(({ event, open }) => `${event} ${open}`),
          ["created 0", "created 0", "created 0", "changed 1", "changed 1", "deleted 0"]
        )
        assert.deepStrictEqual(
          (yield* query<{ action: string }>(
            "SELECT action FROM audit_entry WHERE action NOT LIKE 'plan.%' ORDER BY sequence"
          )).map(({ action }) => action),
          ["created", "created", "created", "changed", "changed", "deleted"].map((event) => `record.${event}`)
        )
        assert.strictEqual((yield* query("SELECT name FROM record_name")).length, 3)
      })
    )

    test(
      "that were decided about hold nothing back any more",
      Effect.gen(function* () {
        const plans = yield* Plans
        const outbox = yield* Outbox
        const mine = yield* nextGeneration
        const name = T.nameOf("a")
        const parked = query<{ name: string }>("SELECT name FROM outbox WHERE parked_at IS NOT NULL")
        yield* outbox.mark([{ zone: zone.name, name }], mine, 1, "withdrawn")
        const plan = yield* plans.hold(zone.name, [{ name, type: "A", before: a("a"), reason: "away" }], "too many")
        yield* apply(plan.id)
        yield* outbox.hold(zone.name, [{ name, generation: mine }], plan.id, "too many", 1)
        assert.deepStrictEqual(yield* parked, [])
        const next = yield* plans.hold(zone.name, [{ name, type: "A", before: a("a"), reason: "away" }], "too many")
        yield* plans.reject(next.id, { by: "bob", reason: "no" })
        yield* outbox.hold(zone.name, [{ name, generation: mine }], next.id, "too many", 1)
        assert.deepStrictEqual(yield* parked, [])
      })
    )

    test(
      "of repairs leave deletions alone that another plan holds",
      Effect.gen(function* () {
        const plans = yield* Plans
        const outbox = yield* Outbox
        const mine = yield* nextGeneration
        const plan = yield* makePlan([deletion("a")])
        const name = T.nameOf("a")
        yield* outbox.mark([{ zone: zone.name, name }], mine, 1, "withdrawn")
        const held = yield* plans.hold(zone.name, [{ name, type: "A", before: a("a"), reason: "away" }], "too many")
        yield* outbox.hold(zone.name, [{ name, generation: mine }], held.id, "too many", 1)
        assert.strictEqual((yield* apply(plan.id)).refused, 1)
        assert.match((yield* outcomes(plan.id))[0]!, new RegExp(`held back by plan ${held.id}`))
      })
    )

    test(
      "rejected are not applied, and the audit has the reason",
      Effect.gen(function* () {
        const plans = yield* Plans
        const plan = yield* makePlan([creation("a")])
        const rejected = yield* plans.reject(plan.id, { by: "bob", reason: "no" })
        assert.deepStrictEqual([rejected.state, rejected.decidedBy, rejected.decidedReason], ["rejected", "bob", "no"])
        assert.strictEqual((yield* Effect.flip(apply(plan.id)))._tag, "PlanNotOpen")
        assert.strictEqual((yield* Effect.flip(plans.reject(plan.id, { by: "bob", reason: "no" })))._tag, "PlanNotOpen")
        const [entry] = yield* query<{ action: string; reason: string }>(
          "SELECT action, reason FROM audit_entry ORDER BY sequence DESC LIMIT 1"
        )
        assert.deepStrictEqual([entry?.action, entry?.reason], ["plan.rejected", "no"])
        assert.strictEqual((yield* Effect.flip(apply("none")))._tag, "PlanNotFound")
      })
    )

    test(
      "are pruned beyond a number, open ones never",
      Effect.gen(function* () {
        const plans = yield* Plans
        for (const hostname of ["a", "b", "c", "d"]) {
          yield* makePlan([creation(hostname)])
        }
        assert.strictEqual(yield* plans.prune(1), 2)
        assert.deepStrictEqual(
          (yield* plans.list({ limit: 9 })).map(({ state }) => state),
          ["open", "superseded"]
        )
        assert.strictEqual((yield* query("SELECT plan FROM plan_change")).length, 2)
      })
    )
  })
