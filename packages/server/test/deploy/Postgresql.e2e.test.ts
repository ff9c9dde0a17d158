/** The configurations for PostgreSQL in deploy/, with two real servers and the packaged Prism. */
import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { waitUntil } from "../../../core/test/harness/waitUntil.ts"
import * as Agent from "../harness/AgentClient.ts"
import * as Deployment from "../harness/Deployment.ts"
import { registering } from "../harness/registering.ts"
import * as Postgresql from "./Postgresql.ts"

describe("PostgreSQL with the configuration of deploy/", () => {
  it.live(
    "hosts register and lists come from the replica, by roles with no other rights; a promotion loses nothing, and the old primary follows",
    () =>
      Effect.gen(function* () {
        const pair = yield* Postgresql.make
        const { db1, db2 } = pair
        const deployment = yield* Deployment.start(
          {
            storage: { url: pair.urlOf("prism", [db1, db2]), replica: { url: pair.urlOf("prism_read", [db2]) } },
            leases: { flushInterval: "200ms", sweepInterval: "200ms" }
          },
          { NODE_EXTRA_CA_CERTS: pair.authority.certificate }
        )
        const load = yield* registering(deployment.tcp())
        yield* load.some(100)
        yield* waitUntil("the replica answers lists", deployment.metric("prism_storage_replicas"), (n) => n === 1, {
          within: "20 seconds"
        })
        yield* deployment.get("/v1/hosts?limit=5")
        assert.isAbove((yield* deployment.metric('prism_storage_list_reads_total{from="replica"}')) ?? 0, 0)
        const clear = yield* db1.query(
          "SELECT COUNT(*) FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) WHERE NOT ssl AND usename LIKE 'prism%'"
        )
        assert.strictEqual(clear.trim(), "0")

        yield* db1.kill
        yield* db2.promote
        yield* load.some(load.acknowledged.size + 100)
        yield* load.stop
        const there = new Set((yield* db2.query("SELECT hostname FROM prism.host", "prism")).trim().split("\n"))
        for (const name of load.acknowledged.keys()) assert.isTrue(there.has(name), `${name} was acknowledged`)

        yield* db1.follow(db2)
        yield* db2.becomePrimary
        yield* pair.isSynchronous(db2)
        assert.strictEqual((yield* Agent.register(deployment.tcp(), "later", { from: "127.53.0.1" })).status, "success")
        yield* waitUntil(
          "it is on the former primary",
          db1.query("SELECT COUNT(*) FROM prism.host WHERE hostname = 'later'", "prism"),
          (count) => count.trim() === "1",
          { within: "20 seconds" }
        )
        // Nothing that Prism does all the time needs a right that it does not have.
        assert.notMatch(deployment.prism.output().stderr, /permission denied|must be (?:owner|superuser)/)
      }).pipe(Effect.scoped)
  )

  it.live("nobody comes in but by TLS, a name and its password, and to what it is for; no role may more", () =>
    Effect.gen(function* () {
      const pair = yield* Postgresql.make
      const { db1, db2, psql } = pair
      assert.deepStrictEqual(yield* psql(db1, { role: "prism", sql: "SELECT 1" }), { ok: true, text: "1" })
      for (const [why, options] of [
        ["no TLS", { role: "prism", sslmode: "disable" }],
        ["another password", { role: "prism", password: "another" }],
        ["no password", { role: "prism", password: "" }],
        ["another database", { role: "prism", database: "postgres" }],
        ["a database, for the replica's role", { role: "prism_replica" }],
        ["the administrator", { role: "postgres", database: "postgres" }]
      ] as const) {
        const said = yield* psql(db1, { ...options, sql: "SELECT 1" })
        assert.isFalse(said.ok, why)
        assert.match(said.text, /pg_hba\.conf|password/, why)
      }
      const mayNot = (role: "prism" | "prism_read", statements: ReadonlyArray<string>) =>
        Effect.forEach(statements, (sql) =>
          Effect.map(psql(db1, { role, sql }), ({ ok, text }) => {
            assert.isFalse(ok, `${role}: ${sql}`)
            assert.match(text, /permission denied|must be owner|must be superuser|read-only transaction/, sql)
          })
        )
      assert.isTrue(
        (yield* psql(db1, { role: "prism", sql: "CREATE TABLE own (a int); INSERT INTO own VALUES (1)" })).ok
      )
      yield* mayNot("prism", [
        "CREATE ROLE another",
        "CREATE DATABASE another",
        "CREATE SCHEMA another",
        "CREATE TEMPORARY TABLE another (a int)",
        "CREATE TABLE public.another (a int)",
        "DROP DATABASE prism",
        "SELECT rolpassword FROM pg_authid",
        "ALTER SYSTEM SET fsync = off",
        "COPY (SELECT 1) TO PROGRAM 'cat'",
        "SELECT pg_read_file('postgresql.auto.conf')",
        "SELECT pg_promote()"
      ])
      assert.deepStrictEqual(yield* psql(db1, { role: "prism_read", sql: "SELECT a FROM own" }), {
        ok: true,
        text: "1"
      })
      yield* mayNot("prism_read", [
        "INSERT INTO own VALUES (2)",
        "SET default_transaction_read_only = off; INSERT INTO own VALUES (2)",
        "SET default_transaction_read_only = off; CREATE TABLE another (a int)",
        "DROP TABLE own"
      ])
      // What the README says of time is in force for who comes by TCP, on both.
      for (const at of [db1, db2]) {
        const { text } = yield* psql(at, {
          role: "prism",
          sql: `SELECT current_setting('tcp_user_timeout'), current_setting('tcp_keepalives_idle'), current_setting('synchronous_commit'),
            current_setting('idle_in_transaction_session_timeout'), current_setting('hot_standby_feedback')`
        })
        assert.strictEqual(text, "20000|10|on|1min|on")
      }
      for (const at of [db1, db2]) {
        assert.strictEqual(
          (yield* at.query("SELECT COUNT(*) FROM pg_hba_file_rules WHERE error IS NOT NULL")).trim(),
          "0"
        )
      }
    }).pipe(Effect.scoped)
  )
})
