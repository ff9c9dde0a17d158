import { assert, describe, it, layer } from "@effect/vitest"
import { Effect } from "effect"
import * as Fs from "node:fs"
import * as DomainName from "@prism-dns/core/domain/DomainName"
import * as RRset from "@prism-dns/core/domain/RRset"
import { PowerDnsClient } from "@prism-dns/core/powerdns/PowerDnsClient"
import { freePorts } from "./ports.ts"
import * as PgBouncer from "./PgBouncer.ts"
import { Postgres } from "./Postgres.ts"
import * as PostgresPair from "./PostgresPair.ts"
import * as PowerDns from "./PowerDns.ts"
import { waitUntil } from "./waitUntil.ts"

describe("ports", () => {
  it.live("are given once each", () =>
    Effect.gen(function* () {
      const ports = yield* freePorts(20)
      assert.strictEqual(new Set(ports).size, 20)
    })
  )
})

describe("waitUntil", () => {
  it.live("says what it last saw", () =>
    Effect.gen(function* () {
      const cause = yield* waitUntil("two is three", Effect.succeed({ two: 2 }), ({ two }) => two === 3, {
        within: "50 millis"
      }).pipe(Effect.sandbox, Effect.flip)
      assert.match(
        String(cause.reasons[0] && "defect" in cause.reasons[0] ? cause.reasons[0].defect : ""),
        /until two is three; last seen: \{ two: 2 \}/
      )
    })
  )
})

layer(Postgres.layer(), { timeout: "60 seconds", excludeTestServices: true })("a PostgreSQL of the harness", (it) => {
  it.effect("gives empty databases, and keeps them over a crash", () =>
    Effect.gen(function* () {
      const postgres = yield* Postgres
      const one = yield* postgres.createDatabase("CREATE TABLE t (x int); INSERT INTO t VALUES (1), (2);")
      const two = yield* postgres.createDatabase()
      assert.notStrictEqual(one.database, two.database)
      yield* postgres.query(one.database, "CHECKPOINT")
      yield* postgres.stop("crash")
      yield* postgres.start
      assert.strictEqual((yield* postgres.query(one.database, "SELECT sum(x) FROM t")).trim(), "3")
    })
  )
})

describe("a pair of PostgreSQL servers of the harness", () => {
  it.live("what was committed is on the replica, which goes on by itself once it is promoted", () =>
    Effect.gen(function* () {
      const { caughtUp, createDatabase, one, two } = yield* PostgresPair.make({ synchronous: true })
      const { database } = yield* createDatabase()
      yield* one.query(database, "CREATE TABLE t (x int); INSERT INTO t VALUES (1), (2);")
      yield* one.kill
      yield* two.promote
      yield* two.query(database, "INSERT INTO t VALUES (4)")
      assert.strictEqual((yield* two.query(database, "SELECT sum(x) FROM t")).trim(), "7")
      // The old one still takes itself for the primary; then it follows the new one.
      yield* one.start
      assert.strictEqual((yield* one.query("postgres", "SELECT pg_is_in_recovery()")).trim(), "f")
      yield* one.stop
      yield* one.follow(two)
      yield* caughtUp(two, one)
      assert.strictEqual((yield* one.query(database, "SELECT sum(x) FROM t")).trim(), "7")
    }).pipe(Effect.scoped)
  )

  it.live("pgbouncer speaks to the one it is told to", () =>
    Effect.gen(function* () {
      const { one, two } = yield* PostgresPair.make()
      const bouncer = yield* PgBouncer.make(one)
      const isReplica = Effect.map(one.query(bouncer.urlOf("postgres"), "SELECT pg_is_in_recovery()"), (answer) =>
        answer.trim()
      )
      assert.strictEqual(yield* isReplica, "f")
      yield* bouncer.moveTo(two)
      yield* waitUntil("it speaks to the other", isReplica, (answer) => answer === "t")
    }).pipe(Effect.scoped)
  )
})

layer(PowerDns.layer("sqlite"), { timeout: "60 seconds", excludeTestServices: true })(
  "a PowerDNS of the harness",
  (it) => {
    it.effect("answers questions, and keeps its zones over a restart", () =>
      Effect.gen(function* () {
        const client = yield* PowerDnsClient
        const server = yield* PowerDns.TestPowerDns
        const zone = DomainName.make("harness.test")
        const name = DomainName.make("a.harness.test")
        yield* client.createZone({ name: zone, kind: "Native", nameservers: [DomainName.make("ns1.harness.test")] })
        yield* client.patch(zone, [{ _tag: "Replace", rrset: RRset.make(name, "A", 60, ["192.0.2.7"]) }])
        const before = yield* PowerDns.resolve(server.dns, name, "A")
        assert.deepStrictEqual(before, {
          rcode: "NOERROR",
          isAuthoritative: true,
          data: ["192.0.2.7"],
          ttlSeconds: 60,
          referral: []
        })
        yield* server.stop
        yield* server.start
        assert.deepStrictEqual(yield* PowerDns.resolve(server.dns, name, "A"), before)
        assert.strictEqual((yield* PowerDns.resolve(server.dns, "no.harness.test", "A")).rcode, "NXDOMAIN")
        assert.strictEqual(Fs.statSync(`${server.directory}/pdns.conf`).mode & 0o777, 0o600)
      })
    )
  }
)
