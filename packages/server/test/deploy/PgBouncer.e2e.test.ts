/** The configuration for pgbouncer in deploy/, beside each of two real PostgreSQL servers, and the packaged Prism. */
import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import * as Fs from "node:fs"
import * as Path from "node:path"
import { freePort } from "../../../core/test/harness/ports.ts"
import * as PgBouncer from "../../../core/test/harness/PgBouncer.ts"
import { environment, programs, run } from "../../../core/test/harness/Postgres.ts"
import { waitUntil } from "../../../core/test/harness/waitUntil.ts"
import * as Deployment from "../harness/Deployment.ts"
import { registering } from "../harness/registering.ts"
import * as Postgresql from "./Postgresql.ts"

const deployed = Path.resolve(import.meta.dirname, "../../deploy/pgbouncer")

/** The real thing for one server, its addresses and paths replaced. */
const startBouncer = Effect.fnUntraced(function* (server: Postgresql.Server) {
  const port = yield* freePort
  const file = (name: string) => Path.join(server.settings, name)
  // From the server itself: what a replica has is what its primary has.
  Postgresql.write(
    file("userlist.txt"),
    yield* server.query(Fs.readFileSync(Path.join(deployed, "userlist.sql"), "utf8"))
  )
  Postgresql.write(
    file("pgbouncer.ini"),
    Postgresql.replaced(Path.join(deployed, "pgbouncer.ini"), [
      ["/run/postgresql", server.socket],
      ["port=5432", `port=${server.port}`],
      ["listen_addr = 192.0.2.21", `listen_addr = ${server.host}`],
      ["listen_port = 6432", `listen_port = ${port}`],
      ["/etc/pgbouncer", server.settings],
      ["/etc/postgresql/prism", server.settings]
    ])
  )
  const at = { host: server.host, port }
  return { ...at, socket: server.socket, ...(yield* PgBouncer.serve(file("pgbouncer.ini"), at)) }
})

describe("pgbouncer with the configuration of deploy/", () => {
  it.live("hosts register through it, servers hear each other past it, and a promotion is followed by itself", () =>
    Effect.gen(function* () {
      const pair = yield* Postgresql.make
      const { db1, db2 } = pair
      const bouncers = [yield* startBouncer(db1), yield* startBouncer(db2)]
      const deployment = yield* Deployment.start(
        {
          storage: {
            url: pair.urlOf("prism", bouncers),
            directUrl: pair.urlOf("prism", [db1, db2]),
            replica: { url: pair.urlOf("prism_read", [bouncers[1]!]) }
          },
          leases: { flushInterval: "200ms", sweepInterval: "200ms" }
        },
        { NODE_EXTRA_CA_CERTS: pair.authority.certificate }
      )
      assert.include(deployment.prism.output().stderr, "a pool lends the connections to PostgreSQL")
      const load = yield* registering(deployment.tcp())
      const until = (metric: string) =>
        waitUntil(metric, deployment.metric(metric), (n) => n === 1, { within: "20 seconds" })
      yield* load.some(100)
      yield* until("prism_signals_hearing")
      yield* until("prism_storage_replicas")
      // What comes by TCP are LISTEN and the proofs of life; the pool has the rest.
      const direct = (yield* db1.query(
        "SELECT DISTINCT application_name FROM pg_stat_activity WHERE usename = 'prism' AND client_addr IS NOT NULL ORDER BY 1"
      )).trim()
      assert.include(direct, "prism-dns signals")
      const pooled = (yield* db1.query(
        "SELECT COUNT(*) FROM pg_stat_activity WHERE usename = 'prism' AND client_addr IS NULL"
      )).trim()
      assert.isAbove(Number(pooled), 0)

      yield* db1.kill
      yield* db2.promote
      yield* load.some(load.acknowledged.size + 100)
      yield* load.stop
      yield* Effect.log(`${load.acknowledged.size} acknowledged, ${load.refused.length} refused`)
      const there = new Set((yield* db2.query("SELECT hostname FROM prism.host", "prism")).trim().split("\n"))
      for (const name of load.acknowledged.keys()) assert.isTrue(there.has(name), `${name} was acknowledged`)
      yield* until("prism_signals_hearing")
    }).pipe(Effect.scoped)
  )

  it.live("nobody comes in but by TLS, a name and its password; there is no administrator but on the machine", () =>
    Effect.gen(function* () {
      const { db1, psql } = yield* Postgresql.make
      const bouncer = yield* startBouncer(db1)
      const list = Fs.readFileSync(Path.join(db1.settings, "userlist.txt"), "utf8")
      assert.match(list, /^"prism" "SCRAM-SHA-256\$[^"]+"\n"prism_read" "SCRAM-SHA-256\$[^"]+"\n$/)
      for (const password of Object.values(Postgresql.passwords)) assert.notInclude(list, password)
      for (const role of ["prism", "prism_read"] as const) {
        assert.deepStrictEqual(yield* psql(bouncer, { role, sql: "SELECT current_user" }), { ok: true, text: role })
      }
      // Prepared by name they would be another session's.
      for (const [why, options] of [
        ["no TLS", { role: "prism", sslmode: "disable" }],
        ["another password", { role: "prism", password: "another" }],
        ["no password", { role: "prism", password: "" }],
        ["another database", { role: "prism", database: "postgres" }],
        ["a role that is not listed", { role: "prism_replica" }],
        ["its administration", { role: "prism", database: "pgbouncer" }],
        ["its administrator", { role: "pgbouncer", database: "pgbouncer", password: "x" }]
      ] as const) {
        assert.isFalse((yield* psql(bouncer, { ...options, sql: "SHOW VERSION" })).ok, why)
      }
      // Whoever is its user on the machine may look, and have it read its files anew.
      const admin = (sql: string) =>
        run(
          `${programs()}/psql`,
          ["-X", "-A", "-t", "-h", bouncer.socket, "-p", `${bouncer.port}`, "-U", "pgbouncer", "-c", sql, "pgbouncer"],
          { ...Postgresql.as, cwd: bouncer.socket, env: environment }
        )
      assert.match(yield* admin("SHOW POOLS"), /^prism\|prism\|.*\|transaction$/m)
      yield* admin("RELOAD")
      const config = yield* admin("SHOW CONFIG")
      for (const [name, value] of [
        ["query_wait_timeout", "5"],
        ["tcp_user_timeout", "20000"],
        ["client_tls_sslmode", "require"]
      ] as const) {
        assert.include(config, `${name}|${value}|`)
      }
    }).pipe(Effect.scoped)
  )
})
