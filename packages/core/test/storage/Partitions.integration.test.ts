import { PgClient } from "@effect/sql-pg"
import { assert, layer } from "@effect/vitest"
import { Clock, Context, Effect, Exit, Layer, Metric, Redacted, Stream } from "effect"
import { Migrator, SqlClient } from "effect/sql"
import * as AuditCheck from "@prism-dns/core/audit/AuditCheck"
import * as AuditExport from "@prism-dns/core/audit/AuditExport"
import { AuditLog } from "@prism-dns/core/audit/AuditLog"
import * as Audit from "@prism-dns/core/audit/Entries"
import * as Retention from "@prism-dns/core/audit/Retention"
import { HostHistory } from "@prism-dns/core/registry/HostHistory"
import { Registry } from "@prism-dns/core/registry/Registry"
import { migrations } from "@prism-dns/core/storage/Migrations"
import * as Partitions from "@prism-dns/core/storage/Partitions"
import * as PartitionsAhead from "@prism-dns/core/storage/PartitionsAhead"
import { entry, sealAll } from "../audit/SealerSuite.ts"
import * as PgBouncer from "../harness/PgBouncer.ts"
import { Postgres } from "../harness/Postgres.ts"
import * as T from "../layers.ts"

const day = Partitions.dayMillis
/** A day on which partitions of all spans begin. */
const begin = 700 * 28 * day
const ops = { name: "ops", peer: undefined }

const clientAt = (url: string) =>
  Layer.orDie(PgClient.layer({ url: Redacted.make(url), maxConnections: 8, multiplex: false }))

const migrate = (upTo: number) =>
  Migrator.make({})({
    loader: Migrator.fromRecord(
      Object.fromEntries(Object.entries(migrations).filter(([name]) => Number.parseInt(name, 10) <= upTo))
    )
  })

const services = <R>(database: Layer.Layer<SqlClient.SqlClient, never, R>) =>
  Layer.mergeAll(T.registry(), HostHistory.layer, AuditLog.layer).pipe(Layer.provideMerge(Layer.fresh(database)))

type Services = Layer.Success<ReturnType<typeof services>>

const check = Effect.flatMap(SqlClient.SqlClient, (sql) => AuditCheck.make(sql).check({}))

const names = (table: typeof Partitions.auditLog) =>
  Effect.flatMap(SqlClient.SqlClient, (sql) =>
    Effect.map(Partitions.list(sql, table), (all) => all.map(({ name }) => name))
  )

const countOf = (table: string) =>
  Effect.flatMap(SqlClient.SqlClient, (sql) =>
    Effect.map(sql<{ readonly count: number }>`SELECT COUNT(*)::int AS count FROM ${sql(table)}`, ([row]) => row!.count)
  )

/** Hosts that come, change and go, one thing a day; gives the times at which nothing happens. */
const live = Effect.fnUntraced(function* (days: number) {
  const registry = yield* Registry
  const time = yield* T.Time
  for (let i = 0; i < days; i++) {
    yield* time.set(begin + i * day)
    const name = `h${i % 7}`
    if (i % 11 === 10) yield* Effect.ignore(registry.release(T.nameOf(name), ops, "test"))
    else yield* registry.register(T.registration(name, `192.0.2.${1 + (i % 200)}`, "fleet"))
  }
  return Array.from({ length: days }, (_, i) => begin + i * day + day / 2)
})

const past = (times: ReadonlyArray<number>) =>
  Effect.flatMap(HostHistory, (history) =>
    Effect.forEach(times, (atMillis) => Effect.map(history.list({ limit: 100 }, atMillis), ({ hosts }) => hosts))
  )

/** Partitions, and tables, that a statement would touch when it is run with any values, and for these. */
const touched = (statement: string, values: string) =>
  Effect.flatMap(SqlClient.SqlClient, (sql) =>
    Effect.gen(function* () {
      yield* sql.unsafe("SET LOCAL plan_cache_mode = force_generic_plan")
      yield* sql.unsafe(`PREPARE asked AS ${statement}`)
      const rows = yield* sql.unsafe<{ readonly "QUERY PLAN": string }>(`EXPLAIN EXECUTE asked(${values})`)
      yield* sql.unsafe("DEALLOCATE asked")
      const plan = rows.map((row) => row["QUERY PLAN"]).join("\n")
      return [...new Set([...plan.matchAll(/ on (\w+)/g)].map(([, name]) => name!))].sort()
    }).pipe(sql.withTransaction)
  )

layer(Postgres.layer(), { timeout: "60 seconds", excludeTestServices: true })("on PostgreSQL", (it) => {
  const test = <E>(title: string, body: Effect.Effect<void, E, Services | T.Time>) =>
    it.effect(title, () =>
      T.withTime(
        "still",
        Effect.gen(function* () {
          yield* (yield* T.Time).set(begin)
          yield* Effect.provide(body, services(T.postgres))
        })
      ).pipe(Effect.provideService(Metric.MetricRegistry, new Map()))
    )

  it.effect("a registry of before has its past and its sealed audit afterwards, and goes on", () =>
    T.withTime(
      "still",
      Effect.gen(function* () {
        const { url } = yield* (yield* Postgres).createDatabase()
        const time = yield* T.Time
        yield* Effect.gen(function* () {
          const sql = yield* SqlClient.SqlClient
          yield* migrate(5)
          const rows = sql`SELECT * FROM host_history ORDER BY sequence`
          const { before, history, log, times } = yield* Effect.gen(function* () {
            const times = yield* live(60)
            yield* sealAll(7)
            // Of a clock that was ahead: it ended in years.
            yield* sql`UPDATE host_history SET valid_to = ${begin + 9000 * day} WHERE sequence = 3`
            return {
              times,
              before: yield* past(times),
              history: yield* rows,
              log: yield* sql`SELECT * FROM audit_log ORDER BY position`
            }
          }).pipe(Effect.provide(services(Layer.succeed(SqlClient.SqlClient, sql))))
          assert.isAbove(history.length, 50)

          yield* migrate(6)
          assert.deepStrictEqual(yield* rows, history)
          assert.deepStrictEqual(yield* sql`SELECT * FROM audit_log ORDER BY position`, log)
          assert.strictEqual(yield* countOf("host_history_open"), yield* countOf("host"))
          assert.strictEqual(yield* countOf("host_history_rest"), 1)
          assert.deepStrictEqual(yield* names(Partitions.auditLog), ["audit_log_first", "audit_log_1000000"])
          // All indexes are those of before, or parts of them: none was built anew for what is old.
          const indexes = yield* sql<{ readonly name: string }>`
            SELECT indexrelid::regclass::text AS name FROM pg_index
            WHERE indrelid IN ('audit_log_first'::regclass, 'host_history_first'::regclass) ORDER BY 1`
          assert.deepStrictEqual(
            indexes.map(({ name }) => name),
            [
              ...["action", "actor", "at", "pkey", "request", "subject", "version", "zone"].map(
                (name) => `audit_log_first_${name}`
              ),
              ...["host", "name", "pkey"].map((name) => `host_history_first_${name}`)
            ]
          )

          yield* Effect.gen(function* () {
            const registry = yield* Registry
            assert.deepStrictEqual(yield* past(times), before)
            assert.deepStrictEqual((yield* check).findings, [])
            yield* time.set(begin + 61 * day)
            yield* registry.register(T.registration("new", "192.0.2.9"))
            yield* registry.register(T.registration("h1", "192.0.2.250", "fleet"))
            yield* sealAll()
            const report = yield* check
            assert.deepStrictEqual([report.findings, report.from, report.to], [[], 1, log.length + 2])
            const [newest] = yield* sql<{ readonly sequence: unknown; readonly fqdn: string }>`
              SELECT sequence, fqdn FROM host_history ORDER BY sequence DESC LIMIT 1`
            assert.deepStrictEqual([Number(newest!.sequence), newest!.fqdn], [history.length + 2, T.nameOf("h1")])
          }).pipe(Effect.provide(services(Layer.succeed(SqlClient.SqlClient, sql))))
        }).pipe(Effect.provide(clientAt(url)))
      })
    ).pipe(Effect.provideService(Metric.MetricRegistry, new Map()))
  )

  test(
    "partitions are made ahead, by how long rows are kept, and made once when two servers make them at once",
    Effect.gen(function* () {
      const sql = yield* SqlClient.SqlClient
      const time = yield* T.Time
      const week = yield* PartitionsAhead.make({ historyKeepMillis: 30 * day })
      assert.strictEqual(yield* week, 0, "the migration has made the first ones")
      yield* time.set(begin + 45 * day)
      const made = yield* Effect.all([week, week, week], { concurrency: 3 })
      assert.strictEqual(
        made.reduce((a, b) => a + b, 0),
        1
      )
      const [, second, third, ...others] = yield* Partitions.list(sql, Partitions.hostHistory)
      assert.deepStrictEqual(others, [])
      assert.deepStrictEqual(
        [second, third],
        [
          { name: "host_history_20230928", from: begin + 28 * day, to: begin + 56 * day },
          { name: "host_history_20231026", from: begin + 56 * day, to: begin + 63 * day }
        ]
      )
    })
  )

  test(
    "a partition of the audit holds as many entries as come in its time, and there is room for as many ahead",
    Effect.gen(function* () {
      const sql = yield* SqlClient.SqlClient
      const nowMillis = yield* Clock.currentTimeMillis
      const few = { entriesMin: 10, entriesMax: 1000 }
      yield* sql`DROP TABLE audit_log_first, audit_log_1000000`
      yield* Partitions.add(sql, Partitions.auditLog, { from: 1, to: 11 })
      const look = yield* PartitionsAhead.make(few)
      yield* Audit.writeAll(
        sql,
        Array.from({ length: 25 }, (_, i) => entry(`h${i}`, { atMillis: i < 5 ? nowMillis - 40 * day : nowMillis })),
        nowMillis
      )
      yield* sealAll()
      assert.strictEqual(yield* countOf("audit_log_rest"), 15)
      assert.strictEqual(yield* look, 2)
      assert.deepStrictEqual(yield* names(Partitions.auditLog), ["audit_log_1", "audit_log_11", "audit_log_31"])
      assert.strictEqual(yield* countOf("audit_log_rest"), 0)
      assert.strictEqual(yield* countOf("audit_log_11"), 15)
      assert.strictEqual(yield* look, 0)
      assert.deepStrictEqual((yield* check).findings, [])
    })
  )

  test(
    "what came while nobody made partitions is in the rest, is found there, and is moved into those that are made",
    Effect.gen(function* () {
      const sql = yield* SqlClient.SqlClient
      const times = yield* live(100)
      const before = yield* past(times)
      assert.isAbove(yield* countOf("host_history_rest"), 20)
      const look = yield* PartitionsAhead.make()
      assert.isAbove(yield* look, 1)
      assert.strictEqual(yield* countOf("host_history_rest"), 0)
      assert.deepStrictEqual(yield* past(times), before)
      assert.strictEqual(yield* look, 0)
      const parts = yield* Partitions.list(sql, Partitions.hostHistory)
      for (const [i, { from }] of parts.entries()) if (i > 0) assert.strictEqual(from, parts[i - 1]!.to)
    })
  )

  test(
    "what hosts were at a time is looked for in what was closed since, and now in what is open",
    Effect.gen(function* () {
      const look = yield* PartitionsAhead.make()
      for (let passed = 0; passed <= 300; passed += 20) {
        yield* (yield* T.Time).set(begin + passed * day)
        yield* look
      }
      const closed = (yield* names(Partitions.hostHistory)).toSorted()
      assert.strictEqual(closed.length, 12)
      const statement = `
        SELECT * FROM host_history WHERE fqdn = $1 AND valid_from <= $2 AND ${Partitions.ended} >= $3
        ORDER BY valid_from DESC, sequence DESC LIMIT 1`
      const at = (millis: number) => touched(statement, `'x', ${millis}, ${Partitions.reachOf(millis)}`)
      const others = ["host_history_open", "host_history_rest"]
      assert.includeMembers(yield* at(begin + 300 * day), others)
      assert.deepStrictEqual(
        (yield* at(begin + 300 * day)).filter((name) => !others.includes(name)),
        closed.filter((name) => name !== "host_history_first").slice(-2),
        "that of the time, and the one ahead"
      )
      assert.deepStrictEqual(
        (yield* at(begin + 29 * day)).filter((name) => !others.includes(name)),
        closed.filter((name) => name !== "host_history_first")
      )
      // What a change closes is looked for in what is open alone.
      assert.deepStrictEqual(
        yield* touched(`SELECT 1 FROM host_history WHERE ${Partitions.isOpen} AND host_id = $1`, "'x'"),
        ["host_history_open"]
      )
    })
  )

  test(
    "what stands between two positions of the audit is looked for in the partitions between them alone",
    Effect.gen(function* () {
      const sql = yield* SqlClient.SqlClient
      for (let from = 2_000_000; from < 8_000_000; from += 1_000_000) {
        yield* Partitions.add(sql, Partitions.auditLog, { from, to: from + 1_000_000 })
      }
      const statement = `
        SELECT * FROM audit_log
        WHERE position > $1 AND position < $2 ORDER BY position DESC LIMIT 100`
      assert.deepStrictEqual(yield* touched(statement, "3100000, 4200000"), ["audit_log_3000000", "audit_log_4000000"])
    })
  )

  test(
    "old entries of the audit go by whole partitions, with the rest of the batch that each ends in, and the rest verifies",
    Effect.gen(function* () {
      const sql = yield* SqlClient.SqlClient
      const log = yield* AuditLog
      const time = yield* T.Time
      const keepMillis = 30 * day
      yield* sql`DROP TABLE audit_log_first, audit_log_1000000`
      for (let from = 1; from < 60; from += 10) {
        yield* Partitions.add(sql, Partitions.auditLog, { from, to: from + 10 })
      }
      const write = (n: number) =>
        Effect.flatMap(Clock.currentTimeMillis, (nowMillis) =>
          Audit.writeAll(
            sql,
            Array.from({ length: n }, (_, i) => entry(`h${i}`, { atMillis: nowMillis })),
            nowMillis
          )
        )
      // Batches of three: one stands in two partitions. A partition takes a week.
      for (let week = 0; week < 4; week++) {
        yield* time.set(begin + week * 7 * day)
        yield* write(10)
        yield* sealAll(3)
      }
      const { announce, take } = yield* Retention.make({ keepMillis, restMillis: 0 })
      const look = Effect.gen(function* () {
        yield* announce
        yield* sealAll()
        yield* take
        return yield* log.oldest
      })
      yield* time.set(begin + 30 * day)
      assert.strictEqual(yield* look, 1, "nothing is old")
      yield* time.set(begin + 37 * day + 1)
      const before = yield* log.after(0, 100)
      assert.strictEqual(yield* look, 11)
      assert.notInclude(yield* names(Partitions.auditLog), "audit_log_1")
      assert.deepStrictEqual([(yield* check).findings, (yield* check).from], [[], 11])
      yield* time.set(begin + 60 * day)
      assert.isAbove(yield* look, 20)
      const report = yield* check
      assert.deepStrictEqual(report.findings, [])
      assert.deepStrictEqual(
        (yield* log.get(report.from))?.hash,
        before.find((each) => each.position === report.from)?.hash
      )
      const reader = AuditExport.reader()
      yield* Stream.runForEach(AuditExport.lines(sql, {}), (text) =>
        Effect.sync(() => text.split("\n").forEach((line) => reader.line(line)))
      )
      const exported = reader.end()
      assert.deepStrictEqual([exported.broken, exported.findings], [undefined, []])
    })
  )

  test(
    "a batch that stands in two partitions goes whole, with the first of them",
    Effect.gen(function* () {
      const sql = yield* SqlClient.SqlClient
      const log = yield* AuditLog
      const time = yield* T.Time
      yield* sql`DROP TABLE audit_log_first, audit_log_1000000`
      for (let from = 1; from < 60; from += 10) {
        yield* Partitions.add(sql, Partitions.auditLog, { from, to: from + 10 })
      }
      const nowMillis = yield* Clock.currentTimeMillis
      yield* Audit.writeAll(
        sql,
        Array.from({ length: 25 }, (_, i) => entry(`h${i}`, { atMillis: nowMillis + (i < 15 ? 0 : 20 * day) })),
        nowMillis
      )
      yield* sealAll(4)
      yield* time.set(begin + 31 * day)
      const { announce, take } = yield* Retention.make({ keepMillis: 30 * day, restMillis: 0 })
      yield* announce
      yield* sealAll()
      yield* take
      assert.strictEqual(yield* log.oldest, 13)
      assert.deepStrictEqual([(yield* check).findings, (yield* check).from], [[], 13])
      assert.deepStrictEqual((yield* names(Partitions.auditLog)).slice(0, 2), ["audit_log_11", "audit_log_21"])
    })
  )

  it.effect("who reads for long keeps a partition, and nobody waits for long; it is dropped another time", () =>
    Effect.gen(function* () {
      const { url } = yield* (yield* Postgres).createDatabase()
      const reader = Context.get(yield* Layer.build(Layer.fresh(clientAt(url))), SqlClient.SqlClient)
      yield* Effect.gen(function* () {
        yield* migrate(6)
        const sql = yield* SqlClient.SqlClient
        const [first] = yield* Partitions.list(sql, Partitions.hostHistory)
        const dropped = sql.withTransaction(Partitions.drop(sql, [first!]))
        yield* reader.withTransaction(
          Effect.gen(function* () {
            yield* reader`SELECT COUNT(*) FROM host_history`
            assert.isTrue(Exit.isFailure(yield* Effect.exit(dropped)))
            assert.strictEqual(yield* countOf("host_history"), 0, "nor does anybody else wait")
          })
        )
        yield* dropped
        assert.notInclude(yield* names(Partitions.hostHistory), "host_history_first")
      }).pipe(Effect.provide(clientAt(url)))
    }).pipe(Effect.scoped)
  )

  it.effect("all of it goes through pgbouncer in transaction mode", () =>
    T.withTime(
      "still",
      Effect.gen(function* () {
        const server = yield* Postgres
        const { database } = yield* server.createDatabase()
        const bouncer = yield* PgBouncer.make({ host: "127.0.0.1", port: server.port })
        yield* (yield* T.Time).set(begin)
        yield* Effect.gen(function* () {
          yield* migrate(6)
          const sql = yield* SqlClient.SqlClient
          yield* (yield* T.Time).set(begin + 100 * day)
          assert.isAbove(yield* yield* PartitionsAhead.make(), 1)
          const [first] = yield* Partitions.list(sql, Partitions.hostHistory)
          yield* sql.withTransaction(Partitions.drop(sql, [first!]))
          const [row] = yield* sql<{ readonly timeout: string }>`SELECT current_setting('lock_timeout') AS timeout`
          assert.strictEqual(row!.timeout, "0", "what was set for a transaction ended with it")
        }).pipe(Effect.provide(clientAt(bouncer.urlOf(database))))
      })
    ).pipe(Effect.scoped)
  )
})
