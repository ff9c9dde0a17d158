/** A registry whose connection to PostgreSQL is lost at the worst of times. */
import { PgClient } from "@effect/sql-pg"
import { assert, layer } from "@effect/vitest"
import { Context, Effect, Layer, Redacted, Result, type Scope } from "effect"
import { SqlClient } from "effect/sql"
import * as Net from "node:net"
import * as Asked from "@prism-dns/core/cluster/Asked"
import { Registry, type Request } from "@prism-dns/core/registry/Registry"
import type { Word } from "@prism-dns/core/registry/Words"
import { Failover } from "@prism-dns/core/storage/Failover"
import * as Loss from "@prism-dns/core/storage/Loss"
import { audit } from "../harness/audit.ts"
import { Postgres } from "../harness/Postgres.ts"
import * as T from "../layers.ts"

/** When a connection is cut: before PostgreSQL has the statement, or once it has answered, before that is heard. */
type Moment = "unsent" | "unanswered"

/** A way to PostgreSQL that is cut once at a statement. */
const breakable = (port: number): Effect.Effect<Way, never, Scope.Scope> =>
  Effect.map(
    Effect.acquireRelease(
      Effect.callback<{ readonly server: Net.Server; readonly state: State }>((resume) => {
        const state: State = { armed: undefined, cuts: 0, isClosed: false, sockets: new Set() }
        const server = Net.createServer((client) => {
          if (state.isClosed) return client.resetAndDestroy()
          const upstream = Net.connect(port, "127.0.0.1")
          let isCutting = false
          const end = () => {
            client.destroy()
            upstream.destroy()
          }
          for (const socket of [client, upstream]) {
            state.sockets.add(socket)
            socket.on("error", end)
            socket.on("close", end)
          }
          client.on("data", (chunk) => {
            const { armed } = state
            if (armed === undefined || !chunk.toString("latin1").includes(armed.word)) return upstream.write(chunk)
            state.armed = undefined
            state.cuts += 1
            state.isClosed = armed.isForGood
            if (armed.isForGood)
              for (const other of state.sockets) if (other !== client && other !== upstream) other.destroy()
            if (armed.moment === "unsent") return end()
            isCutting = true
            return upstream.write(chunk)
          })
          upstream.on("data", (chunk) => (isCutting ? end() : client.write(chunk)))
        })
        server.listen(0, "127.0.0.1", () => resume(Effect.succeed({ server, state })))
      }),
      ({ server, state }) =>
        Effect.sync(() => {
          for (const socket of state.sockets) socket.destroy()
          server.close()
        })
    ),
    ({ server, state }) => ({
      port: (server.address() as Net.AddressInfo).port,
      cutAt: (word, moment, isForGood = false) => {
        state.armed = { word, moment, isForGood }
      },
      cuts: () => state.cuts
    })
  )

interface Way {
  readonly port: number
  /** `isForGood`: with all its connections, and none is let through after it. */
  readonly cutAt: (word: string, moment: Moment, isForGood?: boolean) => void
  readonly cuts: () => number
}

interface State {
  armed: { readonly word: string; readonly moment: Moment; readonly isForGood: boolean } | undefined
  cuts: number
  isClosed: boolean
  readonly sockets: Set<Net.Socket>
}

const startWith = Effect.fnUntraced(function* (patienceMillis: number) {
  const { database, port, url, user } = yield* (yield* Postgres).createDatabase()
  const direct = Context.get(yield* Layer.build(Layer.fresh(T.postgresAt(url))), SqlClient.SqlClient)
  const way = yield* breakable(port)
  const client = PgClient.layerFrom(
    Effect.map(
      PgClient.make({
        url: Redacted.make(`postgres://${user}@127.0.0.1:${way.port}/${database}`),
        maxConnections: 4,
        // So that each statement's words pass by.
        prepare: false
      }),
      Loss.telling
    )
  )
  const services = yield* Layer.build(Layer.fresh(T.registry().pipe(Layer.provide(client)))).pipe(
    Effect.provideService(Failover, { patienceMillis, onMoved: () => () => undefined })
  )
  const registry = Context.get(services, Registry)
  const counts = Effect.map(
    direct<Record<string, number>>`
      SELECT (SELECT COUNT(*)::int FROM host) AS hosts, (SELECT COUNT(*)::int FROM host_history) AS versions,
        (SELECT COUNT(*)::int FROM ${direct.literal(audit)} WHERE action LIKE 'host.%') AS entries,
        (SELECT COUNT(*)::int FROM outbox WHERE zone = ${T.forward.name}) AS marks`,
    ([row]) => row
  )
  return { registry, way, counts }
})

const start = startWith(5000)

const actor = { name: "ops", peer: undefined }

layer(Postgres.layer(), { timeout: "60 seconds", excludeTestServices: true })(
  "a connection to PostgreSQL that is lost",
  (it) => {
    for (const [word, moment, outcome] of [
      ["INSERT INTO host ", "unsent", "created"],
      ["INSERT INTO host ", "unanswered", "created"],
      ["COMMIT", "unsent", "created"],
      // It was carried out, so who asks again has it already.
      ["COMMIT", "unanswered", "renewed"]
    ] as const) {
      it.effect(`at ${word.trim()}, ${moment}: a registration succeeds, and is there once`, () =>
        Effect.gen(function* () {
          const { counts, registry, way } = yield* start
          way.cutAt(word, moment)
          const registered = yield* registry.register(T.registration("web-1", "192.0.2.1"))
          assert.strictEqual(way.cuts(), 1)
          assert.strictEqual(registered.outcome, outcome)
          assert.deepStrictEqual(yield* counts, { hosts: 1, versions: 1, entries: 1, marks: 1 })
        }).pipe(Effect.scoped)
      )
    }

    for (const moment of ["unsent", "unanswered"] as const) {
      it.effect(`during the commit, ${moment}: what was decided by a look at a host succeeds, and is done once`, () =>
        Effect.gen(function* () {
          const { counts, registry, way } = yield* start
          const { host } = yield* registry.register(T.registration("web-1", "192.0.2.1"))
          way.cutAt("COMMIT", moment)
          const isExpected = (generation: number) => generation === host.generation
          const registered = yield* registry.register({ ...T.registration("web-1", "192.0.2.2"), isExpected })
          assert.strictEqual(way.cuts(), 1)
          assert.strictEqual(registered.outcome, moment === "unsent" ? "changed" : "renewed")
          assert.deepInclude(yield* counts, { hosts: 1, versions: 2, entries: 2 })
        }).pipe(Effect.scoped)
      )

      for (const event of ["released", "retired", "changed", "transferred"] as const) {
        it.effect(`during the commit, ${moment}: somebody's word (${event}) is carried out once, and answered so`, () =>
          Effect.gen(function* () {
            const { counts, registry, way } = yield* start
            const { host } = yield* registry.register(T.registration("web-1", "192.0.2.1"))
            way.cutAt("COMMIT", moment)
            const edits = { changed: { labels: { rack: "7" } }, transferred: { owner: "ops" } }
            const said = { fqdn: host.fqdn, actor, reason: "a test" }
            const word: Word =
              event === "released" || event === "retired"
                ? { event, ...said }
                : { event, ...said, edit: () => edits[event] }
            const { before, changed } = yield* registry.change(word)
            assert.strictEqual(way.cuts(), 1)
            assert.isTrue(changed)
            assert.strictEqual(before.generation, host.generation)
            assert.deepInclude(yield* counts, { hosts: event === "released" ? 0 : 1, versions: 2, entries: 2 })
          }).pipe(Effect.scoped)
        )
      }
    }

    it.effect("during the commit of several words: each is answered, also those that changed nothing", () =>
      Effect.gen(function* () {
        const { counts, registry, way } = yield* start
        const names = ["web-1", "web-2"]
        const registered = yield* Effect.forEach(names, (name, i) =>
          registry.register(T.registration(name, `192.0.2.${i + 1}`))
        )
        const words = [...registered.map(({ host }) => host.fqdn), T.nameOf("none")].map((fqdn): Request => ({
          _tag: "Word",
          word: { event: "released", fqdn, actor }
        }))
        way.cutAt("COMMIT", "unanswered")
        const handled = yield* registry.requestAll(words)
        assert.strictEqual(way.cuts(), 1)
        assert.deepStrictEqual(
          handled.map((each) => (Result.isSuccess(each) ? each.success.outcome : each.failure._tag)),
          ["released", "released", "HostUnknown"]
        )
        assert.deepInclude(yield* counts, { hosts: 0, versions: 4, entries: 4 })
      }).pipe(Effect.scoped)
    )

    for (const moment of ["unsent", "unanswered"] as const) {
      it.effect(`during the commit, ${moment}, and for good: it is said that somebody's word may have been done`, () =>
        Effect.gen(function* () {
          const { counts, registry, way } = yield* startWith(500)
          const { host } = yield* registry.register(T.registration("web-1", "192.0.2.1"))
          way.cutAt("COMMIT", moment, true)
          const error = yield* Effect.flip(registry.release(host.fqdn, actor, "a test"))
          assert.strictEqual(error._tag, "RegistryUnavailable")
          assert.include(error.message, "it may have been done, look before you repeat it")
          assert.deepInclude(yield* counts, { hosts: moment === "unsent" ? 1 : 0 })
        }).pipe(Effect.scoped)
      )
    }

    it.effect("before the commit: somebody's word is carried out all the same, once", () =>
      Effect.gen(function* () {
        const { counts, registry, way } = yield* start
        const { host } = yield* registry.register(T.registration("web-1", "192.0.2.1"))
        way.cutAt("DELETE FROM host", "unanswered")
        yield* registry.release(host.fqdn, actor, "a test")
        assert.strictEqual(way.cuts(), 1)
        assert.deepInclude(yield* counts, { hosts: 0, entries: 2 })
      }).pipe(Effect.scoped)
    )
  }
)

layer(Postgres.layer(), { timeout: "60 seconds", excludeTestServices: true })(
  "a transaction for a request that came before this server was taken for dead",
  (it) => {
    it.effect("is not begun, and who asks is told to ask again", () =>
      Effect.gen(function* () {
        const { url } = yield* (yield* Postgres).createDatabase()
        const client = Effect.map(PgClient.make({ url: Redacted.make(url) }), Loss.telling)
        const sql = Context.get(yield* Layer.build(PgClient.layerFrom(client)), SqlClient.SqlClient)
        yield* sql`CREATE TABLE t (x int)`
        let life = 0
        const asked = Asked.now({ life: () => life, proven: Effect.succeed(true) })
        const write = sql.withTransaction(sql`INSERT INTO t VALUES (1)`)
        const asAsked = Effect.provideService(write, Asked.Asked, asked)
        yield* asAsked
        life = 1
        const error = yield* Effect.flip(asAsked)
        assert.include(error.message, "out of touch")
        assert.isTrue(Loss.isLost(error))
        assert.isFalse(Loss.isUncertain(error))
        assert.strictEqual((yield* sql`SELECT x FROM t`).length, 1)
        yield* write
      }).pipe(Effect.scoped)
    )
  }
)
