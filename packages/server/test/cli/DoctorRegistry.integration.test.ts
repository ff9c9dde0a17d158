/** What doctor reads of a registry on SQLite and on PostgreSQL, while a server holds its lock. */
import { assert, layer } from "@effect/vitest"
import { Context, Effect, Layer, Result } from "effect"
import { SqlClient } from "effect/sql"
import * as Net from "node:net"
import * as Path from "node:path"
import { temporaryFolder } from "../../../core/test/harness/PowerDns.ts"
import { Postgres } from "../../../core/test/harness/Postgres.ts"
import * as DoctorRegistry from "../../src/cli/DoctorRegistry.ts"
import type { PrismConfig } from "../../src/Config.ts"
import * as Database from "../../src/Database.ts"
import * as PostgresUrl from "../../src/database/PostgresUrl.ts"

type Storage = PrismConfig["storage"]

const postgres = Effect.gen(function* () {
  const { url } = yield* (yield* Postgres).createDatabase()
  return { connectionsMax: 2, url: Result.getOrThrow(PostgresUrl.parse(url)) }
})
const sqlite = Effect.gen(function* () {
  const folder = yield* temporaryFolder("prism-doctor-")
  return { connectionsMax: 1, url: { _tag: "Sqlite", filename: Path.join(folder, "prism.db") } } as const
})

/** A port that takes connections, and on which nothing is ever said. */
const mute = Effect.acquireRelease(
  Effect.callback<{ readonly server: Net.Server; readonly sockets: Set<Net.Socket> }>((resume) => {
    const sockets = new Set<Net.Socket>()
    const server = Net.createServer((socket) => void sockets.add(socket.on("error", () => undefined)))
    server.listen(0, "127.0.0.1", () => resume(Effect.succeed({ server, sockets })))
  }),
  ({ server, sockets }) =>
    Effect.sync(() => {
      for (const socket of sockets) socket.destroy()
      server.close()
    })
).pipe(Effect.map(({ server }) => (server.address() as Net.AddressInfo).port))

/** Something of each kind that a person should look at. */
const fill = Effect.gen(function* () {
  const sql = yield* SqlClient.SqlClient
  const past = Date.now() - 90_000
  yield* sql`INSERT INTO outbox (zone, name, generation, cause, urgency, marked_at) VALUES ('z.', 'a.z.', 1, '{}', 0, ${past})`
  yield* sql`INSERT INTO outbox (zone, name, generation, cause, urgency, marked_at, parked_at, parked_reason)
    VALUES ('z.', 'b.z.', 2, '{}', 0, ${past}, ${past}, 'foreign')`
  // One that a newer one took the place of, which nobody decided about, and one of which a part was applied.
  yield* sql`INSERT INTO plan (id, zone, kind, state, made_at, made_by, generation, hash, reason, counts)
    VALUES ('p0', 'z.', 'k', 'superseded', ${past}, 'prism', 1, 'h', 'r', '{}')`
  yield* sql`INSERT INTO plan (id, zone, kind, state, made_at, made_by, generation, hash, reason, counts, decided_at)
    VALUES ('p1', 'z.', 'k', 'open', ${past}, 'prism', 1, 'h', 'r', '{}', ${past})`
  // One that tripped again after it was answered, and one that was answered since.
  yield* sql`INSERT INTO guard (kind, zone, tripped_at, detail, allowed_before)
    VALUES ('mass-expiry', '', ${past}, 'many', ${past - 1})`
  yield* sql`INSERT INTO guard (kind, zone, tripped_at, detail, allowed_before)
    VALUES ('mass-expiry', 'z.', ${past}, 'answered', ${past})`
  yield* sql`INSERT INTO host (id, fqdn, hostname, zone, addresses, labels, owner, state, generation, first_seen, last_seen)
    VALUES ('h', 'a.z.', 'a', 'z.', '[]', '{}', 'o', 'online', 1, 1, 1)`
  yield* sql`INSERT INTO host_address (address, host_id, since) VALUES ('10.1.2.3', 'h', 1)`
})

layer(Postgres.layer(), { excludeTestServices: true, timeout: "60 seconds" })("the registry", (it) => {
  for (const [name, make] of [
    ["SQLite", sqlite],
    ["PostgreSQL", postgres]
  ] as const) {
    it.effect(`on ${name}: what waits, plans, guards and addresses, while a server runs`, () =>
      Effect.gen(function* () {
        const storage: Storage = yield* make
        const seen = yield* fill.pipe(
          Effect.andThen(DoctorRegistry.gather(storage)),
          Effect.provide(Database.layer(storage))
        )
        assert.isTrue(seen._tag === "Answers" && seen.state?._tag === "Read", JSON.stringify(seen))
        if (seen._tag !== "Answers" || seen.state?._tag !== "Read") return
        const { oldestPendingMillis, ...state } = seen.state
        assert.isAtLeast(oldestPendingMillis, 90_000)
        assert.strictEqual(seen.migration, seen.migrationKnown)
        assert.deepStrictEqual(state, {
          _tag: "Read",
          parked: { count: 1, first: ["b.z. (foreign)"] },
          pending: 1,
          plansOpen: { count: 1, first: ["p1 of z., open"] },
          guards: [{ kind: "mass-expiry", zone: "", detail: "many" }],
          addresses: ["10.1.2.3"] as never,
          addressesCut: false
        })
        if (name === "PostgreSQL") assert.isBelow(Math.abs(seen.clockAheadMillis!), 2000)
        else assert.isUndefined(seen.clockAheadMillis)
      })
    )

    it.effect(`on ${name}: an empty database is said to be unread, and stays empty`, () =>
      Effect.gen(function* () {
        const storage: Storage = yield* make
        const seen = yield* DoctorRegistry.gather(storage)
        if (name === "SQLite") assert.strictEqual(seen._tag, "None")
        else assert.match(seen._tag === "Silent" ? seen.detail : seen._tag, /schema_migrations/)
      })
    )
  }

  it.effect("on a database that takes the connection and says nothing: ends at its limit, and says so", () =>
    Effect.gen(function* () {
      const port = yield* mute
      const url = `postgres://prism@127.0.0.1:${port}/prism`
      const storage = { connectionsMax: 1, url: Result.getOrThrow(PostgresUrl.parse(url)) }
      const seen = yield* DoctorRegistry.gather(storage, "1 second")
      assert.deepInclude(seen, { _tag: "Silent", detail: "it does not answer within 1s" })
    }).pipe(Effect.scoped)
  )

  it.effect("on PostgreSQL, with a table that somebody holds: ends at its limit, and says so", () =>
    Effect.gen(function* () {
      const storage = yield* postgres
      const sql = yield* Effect.map(Layer.build(Database.layer(storage)), (context) =>
        Context.get(context, SqlClient.SqlClient)
      )
      const seen = yield* sql`LOCK TABLE outbox IN ACCESS EXCLUSIVE MODE`.pipe(
        Effect.andThen(DoctorRegistry.gather(storage, "1 second")),
        sql.withTransaction
      )
      assert.deepInclude(seen, { _tag: "Silent", detail: "it does not answer within 1s" })
    })
  )
})
