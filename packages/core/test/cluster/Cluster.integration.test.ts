/**
 * Several clusters in one process on one real PostgreSQL. One that is killed is one whose connection is cut: it goes on,
 * and the others hear no more of it.
 */
import { assert, layer } from "@effect/vitest"
import { Cluster, type Held, type LeaseName } from "@prism-dns/core/cluster/Cluster"
import { OwnConnections } from "@prism-dns/core/cluster/OwnConnection"
import { Signals } from "@prism-dns/core/cluster/Signals"
import { Context, Effect, Exit, Layer, Scope } from "effect"
import { SecureRandom } from "effect/crypto"
import { SqlClient, SqlError } from "effect/sql"
import * as Failovers from "../harness/Failovers.ts"
import { Postgres } from "../harness/Postgres.ts"
import { waitUntil } from "../harness/waitUntil.ts"
import * as T from "../layers.ts"

const leaseMillis = 600
const renewMillis = 100
const zones: ReadonlyArray<LeaseName> = ["zone/a.test.", "zone/b.test.", "zone/c.test.", "zone/d.test."]
const within = { within: "10 seconds" as const }

/** What has been done under leases, by whom: no two at once may be at work at one. */
class Work {
  readonly at = new Map<LeaseName, string>()
  readonly clashes: Array<string> = []
  readonly epochs: Array<readonly [LeaseName, number]> = []

  /** Works under `held` until it is told to stop. */
  readonly by = (who: string) => (held: Held) =>
    Effect.acquireUseRelease(
      Effect.sync(() => {
        const other = this.at.get(held.name)
        if (other !== undefined) this.clashes.push(`${who} found ${other} at ${held.name}`)
        this.at.set(held.name, who)
        this.epochs.push([held.name, held.epoch])
      }),
      () => Effect.never,
      () => Effect.sync(() => void (this.at.get(held.name) === who && this.at.delete(held.name)))
    )

  readonly of = (who: string) => [...this.at].filter(([, by]) => by === who).map(([name]) => name)
}

const disconnected = new SqlError.SqlError({
  reason: new SqlError.ConnectionError({ cause: new Error("cut by the test") })
})

/** An instance on the database around that can be cut off from it. */
const start = Effect.fnUntraced(function* (name: string, options?: { readonly leaseMillis?: number }) {
  const sql = yield* SqlClient.SqlClient
  const scope = yield* Scope.fork(yield* Effect.scope)
  let isCut = false
  const cutting = Layer.succeed(OwnConnections, {
    open: Effect.suspend(() => (isCut ? Effect.fail(disconnected) : Effect.succeed(cuttable)))
  })
  const asked: Array<string> = []
  const cuttable = new Proxy(sql, {
    apply: (target, self, args: Parameters<typeof sql>) => {
      if (isCut) return Effect.fail(disconnected)
      const statement = Reflect.apply(target, self, args)
      if (Array.isArray(args[0])) asked.push(args[0].join("?"))
      return statement
    }
  })
  const failover = Failovers.make()
  const context = yield* Layer.build(
    Layer.fresh(
      Cluster.layerPostgres({ name, version: "1.0.0", leaseMillis, renewMillis, ...options }).pipe(
        Layer.provide(cutting),
        Layer.provide(failover.layer),
        Layer.provide(Signals.layerNone),
        Layer.provide(SecureRandom.layerWebCrypto)
      )
    )
  ).pipe(Scope.provide(scope))
  const cluster = Context.get(context, Cluster)
  return {
    name,
    cluster,
    /** Its statements, in their order. */
    asked,
    cut: Effect.sync(() => void (isCut = true)),
    heal: Effect.sync(() => void (isCut = false)),
    /** It finds that another database server has taken over. */
    move: Effect.sync(failover.move),
    stop: Scope.close(scope, Exit.void),
    /** Stands for leases until it is stopped. */
    standFor: (leases: ReadonlyArray<LeaseName>, work: (held: Held) => Effect.Effect<void>) =>
      Effect.forEach(leases, (lease) => Scope.provide(cluster.whileHeld(lease, work), scope), { discard: true })
  }
})

/** When an instance renewed its row last, as its row says. */
const renewedAt = Effect.fnUntraced(function* (name: string) {
  const sql = yield* SqlClient.SqlClient
  const [row] = yield* sql<{ readonly at: number | bigint }>`
    SELECT MAX(renewed_at) AS at FROM instance WHERE name = ${name}`
  return Number(row!.at)
})

/** Waits until an instance has had so many turns more. */
const turns = Effect.fnUntraced(function* (name: string, count: number) {
  for (let i = 0; i < count; i++) {
    const before = yield* renewedAt(name)
    yield* waitUntil(`${name} has a turn`, renewedAt(name), (at) => at !== before, within)
  }
})

/** What the rows of all who are there say after the database's clock went ahead by so much, or back. */
const clockMoved = Effect.fnUntraced(function* (millis: number) {
  const sql = yield* SqlClient.SqlClient
  yield* sql`UPDATE instance SET renewed_at = renewed_at - ${millis}, until = until - ${millis}
    WHERE state IN ('live', 'draining')`
})

const onDatabase = <A, E, R>(effect: Effect.Effect<A, E, R>) =>
  effect.pipe(Effect.scoped, Effect.provide(Layer.fresh(T.postgres)))

layer(Postgres.layer(), { timeout: "60 seconds", excludeTestServices: true })("a cluster on PostgreSQL", (it) => {
  it.effect("shares leases evenly, each at work at one place, and hands over when one more comes and one leaves", () =>
    Effect.gen(function* () {
      const work = new Work()
      const first = yield* start("first")
      yield* first.standFor(zones, work.by("first"))
      yield* waitUntil(
        "the first has all",
        Effect.sync(() => work.of("first").length),
        (n) => n === 4,
        within
      )
      assert.isTrue(first.cluster.isAlone())
      const second = yield* start("second")
      yield* second.standFor(zones, work.by("second"))
      yield* waitUntil(
        "each has two",
        Effect.sync(() => [work.of("first").length, work.of("second").length]),
        ([a, b]) => a === 2 && b === 2,
        within
      )
      yield* waitUntil(
        "both say so",
        Effect.all([first.cluster.leases, second.cluster.leases]),
        ([a, b]) => a.every(({ holder }, i) => holder !== undefined && holder.name === b[i]!.holder?.name),
        within
      )
      assert.isFalse(first.cluster.isAlone())
      yield* first.stop
      yield* waitUntil(
        "the second has all",
        Effect.sync(() => work.of("second").length),
        (n) => n === 4,
        within
      )
      assert.deepStrictEqual(work.clashes, [])
      const instances = yield* waitUntil(
        "it is known that the first left",
        second.cluster.instances,
        (all) => all.some(({ state }) => state === "left"),
        within
      )
      assert.deepStrictEqual(
        instances.map(({ isSelf, name, state }) => [name, state, isSelf]),
        [
          ["first", "left", false],
          ["second", "live", true]
        ]
      )
      assert.isAbove(second.cluster.endedMillis(), 0)
    }).pipe(onDatabase)
  )

  it.effect(
    "who is not alone looks at the others between two renewals, so that a silence is known from its beginning",
    () =>
      Effect.gen(function* () {
        const isRenewal = (text: string) => text.includes("UPDATE instance SET state =")
        const isGlance = (text: string) => text.includes("SELECT id, state, renewed_at FROM instance WHERE state IN")
        const first = yield* start("first")
        yield* turns("first", 3)
        assert.strictEqual(first.asked.filter(isGlance).length, 0)
        yield* start("second")
        const lasts = (texts: ReadonlyArray<string>) => {
          const renewals = texts.flatMap((text, i) => (isRenewal(text) ? [i] : []))
          return texts.slice(renewals.at(-2), renewals.at(-1))
        }
        yield* waitUntil(
          "it has looked twice between two renewals",
          Effect.sync(() => lasts(first.asked).filter(isGlance).length),
          (glances) => glances === 2,
          within
        )
      }).pipe(onDatabase)
  )

  it.effect("one that is cut off stops before another goes on, and begins anew as another instance", () =>
    Effect.gen(function* () {
      const work = new Work()
      const first = yield* start("first")
      yield* first.standFor(zones, work.by("first"))
      const second = yield* start("second")
      yield* second.standFor(zones, work.by("second"))
      yield* waitUntil(
        "each has two",
        Effect.sync(() => [work.of("first").length, work.of("second").length]),
        ([a, b]) => a === 2 && b === 2,
        within
      )
      const { id } = first.cluster.self
      const held = first.cluster.held(work.of("first")[0]!)!
      assert.isTrue(held.isValid())
      yield* first.cut
      yield* waitUntil(
        "the second has all",
        Effect.sync(() => work.of("second").length),
        (n) => n === 4,
        within
      )
      assert.isFalse(held.isValid())
      assert.deepStrictEqual(work.clashes, [])
      yield* first.heal
      yield* waitUntil(
        "each has two again",
        Effect.sync(() => [work.of("first").length, work.of("second").length]),
        ([a, b]) => a === 2 && b === 2,
        within
      )
      assert.deepStrictEqual(work.clashes, [])
      assert.notStrictEqual(first.cluster.self.id, id)
      assert.isFalse(held.isValid())
      for (const zone of zones) {
        const epochs = work.epochs.filter(([name]) => name === zone).map(([, epoch]) => epoch)
        assert.deepStrictEqual(
          epochs,
          [...new Set(epochs)].sort((a, b) => a - b)
        )
      }
    }).pipe(onDatabase)
  )

  it.effect("one that drains hands over all at once, and keeps it while nobody else is there", () =>
    Effect.gen(function* () {
      const work = new Work()
      const first = yield* start("first")
      yield* first.standFor(zones, work.by("first"))
      yield* waitUntil(
        "the first has all",
        Effect.sync(() => work.of("first").length),
        (n) => n === 4,
        within
      )
      yield* first.cluster.drain
      assert.strictEqual(work.of("first").length, 4)
      const second = yield* start("second")
      yield* second.standFor(zones, work.by("second"))
      yield* waitUntil(
        "the second has all",
        Effect.sync(() => work.of("second").length),
        (n) => n === 4,
        within
      )
      yield* second.cluster.drain
      assert.strictEqual(work.of("second").length, 4)
      assert.deepStrictEqual(work.clashes, [])
    }).pipe(onDatabase)
  )

  it.effect(
    "a transaction with a fence is refused once its lease has passed, and keeps it from passing meanwhile",
    () =>
      Effect.gen(function* () {
        const sql = yield* SqlClient.SqlClient
        const work = new Work()
        const [lease] = zones
        const first = yield* start("first")
        assert.strictEqual((yield* Effect.flip(first.cluster.fence(lease!)))._tag, "LeaseLost")
        yield* first.standFor([lease!], work.by("first"))
        yield* waitUntil(
          "the first has it",
          Effect.sync(() => work.of("first").length),
          (n) => n === 1,
          within
        )
        yield* sql.withTransaction(first.cluster.fence(lease!))
        const second = yield* start("second")
        yield* second.standFor([lease!], work.by("second"))
        const ended = yield* sql
          .withTransaction(
            Effect.gen(function* () {
              yield* first.cluster.fence(lease!)
              yield* first.cut
              // The transaction stands still for longer than any may: it is ended before the lease can pass.
              yield* waitUntil(
                "the second has it",
                Effect.sync(() => work.of("second").length),
                (n) => n === 1,
                within
              )
              yield* sql`SELECT 1`
            })
          )
          .pipe(Effect.exit)
        assert.isTrue(Exit.isFailure(ended))
        assert.strictEqual((yield* Effect.flip(sql.withTransaction(first.cluster.fence(lease!))))._tag, "LeaseLost")
      }).pipe(onDatabase)
  )

  it.effect("who was cut off together with the others declares nobody dead, and goes on as before", () =>
    Effect.gen(function* () {
      const work = new Work()
      const first = yield* start("first")
      const second = yield* start("second")
      yield* first.standFor(zones, work.by("first"))
      yield* second.standFor(zones, work.by("second"))
      yield* waitUntil(
        "each has two",
        Effect.sync(() => [work.of("first").length, work.of("second").length]),
        ([a, b]) => a === 2 && b === 2,
        within
      )
      const ids = [first.cluster.self.id, second.cluster.self.id]
      const before = work.of("first").sort()
      yield* first.cut
      yield* second.cut
      yield* waitUntil(
        "nobody works",
        Effect.sync(() => work.at.size),
        (n) => n === 0,
        within
      )
      // Their time has passed by the database's clock too.
      const sql = yield* SqlClient.SqlClient
      yield* waitUntil(
        "both may be declared dead",
        sql<{
          n: bigint
        }>`SELECT COUNT(*) AS n FROM instance WHERE until < EXTRACT(EPOCH FROM clock_timestamp()) * 1000`,
        ([row]) => Number(row!.n) === 2,
        within
      )
      yield* first.heal
      yield* second.heal
      yield* waitUntil(
        "each has two again",
        Effect.sync(() => [work.of("first").length, work.of("second").length]),
        ([a, b]) => a === 2 && b === 2,
        within
      )
      assert.deepStrictEqual([first.cluster.self.id, second.cluster.self.id], ids)
      assert.deepStrictEqual(work.of("first").sort(), before)
      assert.deepStrictEqual(work.clashes, [])
    }).pipe(onDatabase)
  )

  it.effect("what ended long ago is forgotten, and what it held is free", () =>
    Effect.gen(function* () {
      const sql = yield* SqlClient.SqlClient
      const [lease] = zones
      yield* sql`
        INSERT INTO instance (id, name, version, state, started_at, renewed_at, until, ended_at, details)
        VALUES ('old', 'old', '0.9.0', 'dead', 1, 2, 3, 4, '{}')`
      yield* sql`INSERT INTO cluster_lease (name, epoch, instance, since) VALUES (${lease!}, 7, 'old', 1)`
      const work = new Work()
      const first = yield* start("first")
      yield* first.standFor([lease!], work.by("first"))
      yield* waitUntil(
        "it is gone",
        sql<{ readonly id: string }>`SELECT id FROM instance`,
        (rows) => rows.length === 1 && rows[0]!.id === first.cluster.self.id,
        within
      )
      yield* waitUntil(
        "the first has it",
        Effect.sync(() => work.epochs),
        (epochs) => epochs.length === 1,
        within
      )
      assert.deepStrictEqual(work.epochs, [[lease!, 8]])
    }).pipe(onDatabase)
  )

  it.effect.each(["drain", "stop"] as const)(
    "at its %s work that takes its time to end keeps the lease until it has ended",
    (how) =>
      Effect.gen(function* () {
        const context = yield* Effect.context<SqlClient.SqlClient>()
        const first = yield* start("first")
        const [lease] = zones
        let isValidAtEnd: boolean | undefined
        const second = yield* start("second")
        let isSecondAtWork = false
        let wasSecondAtWork: boolean | undefined
        yield* first.standFor([lease!], (held) =>
          Effect.never.pipe(
            Effect.onInterrupt(() =>
              turns("first", 4).pipe(
                Effect.andThen(turns("second", 2)),
                Effect.provideContext(context),
                Effect.orDie,
                Effect.andThen(
                  Effect.sync(() => {
                    isValidAtEnd = held.isValid()
                    wasSecondAtWork = isSecondAtWork
                  })
                )
              )
            )
          )
        )
        yield* waitUntil(
          "the first has it",
          Effect.sync(() => first.cluster.held(lease!)),
          (held) => held !== undefined,
          within
        )
        yield* second.standFor([lease!], () =>
          Effect.andThen(
            Effect.sync(() => void (isSecondAtWork = true)),
            Effect.never
          )
        )
        yield* how === "stop" ? first.stop : first.cluster.drain
        yield* waitUntil(
          "the second has it",
          Effect.sync(() => isSecondAtWork),
          (is) => is,
          within
        )
        assert.deepStrictEqual([isValidAtEnd, wasSecondAtWork], [true, false])
      }).pipe(onDatabase)
  )

  it.effect("a clock of the database that goes ahead makes nobody dead whose time has not passed", () =>
    Effect.gen(function* () {
      const work = new Work()
      const first = yield* start("first")
      yield* first.standFor(zones, work.by("first"))
      const second = yield* start("second")
      yield* second.standFor(zones, work.by("second"))
      yield* waitUntil(
        "each has two",
        Effect.sync(() => [work.of("first").length, work.of("second").length]),
        ([a, b]) => a === 2 && b === 2,
        within
      )
      yield* first.cut
      yield* clockMoved(3_600_000)
      yield* waitUntil(
        "the second has all",
        Effect.sync(() => work.of("second").length),
        (n) => n === 4,
        within
      )
      assert.deepStrictEqual(work.clashes, [])
    }).pipe(onDatabase)
  )

  it.effect("who is gone is found out also when the clock of the database went back", () =>
    Effect.gen(function* () {
      const work = new Work()
      const first = yield* start("first")
      yield* first.standFor(zones, work.by("first"))
      const second = yield* start("second")
      yield* second.standFor(zones, work.by("second"))
      yield* waitUntil(
        "each has two",
        Effect.sync(() => [work.of("first").length, work.of("second").length]),
        ([a, b]) => a === 2 && b === 2,
        within
      )
      yield* first.cut
      yield* turns("second", 1)
      yield* clockMoved(-3_600_000)
      yield* waitUntil(
        "the second has all",
        Effect.sync(() => work.of("second").length),
        (n) => n === 4,
        within
      )
      assert.deepStrictEqual(work.clashes, [])
    }).pipe(onDatabase)
  )

  it.effect("who starts after an outage of the database gives the others time to say that they live", () =>
    Effect.gen(function* () {
      const sql = yield* SqlClient.SqlClient
      const work = new Work()
      const first = yield* start("first")
      yield* first.standFor(zones, work.by("first"))
      yield* waitUntil(
        "the first has all",
        Effect.sync(() => work.of("first").length),
        (n) => n === 4,
        within
      )
      const { id } = first.cluster.self
      yield* first.cut
      yield* waitUntil(
        "its time has passed",
        sql<{
          n: bigint
        }>`SELECT COUNT(*) AS n FROM instance WHERE until < EXTRACT(EPOCH FROM clock_timestamp()) * 1000`,
        ([row]) => Number(row!.n) === 1,
        within
      )
      const second = yield* start("second", { leaseMillis: 5000 })
      yield* first.heal
      yield* waitUntil(
        "the first has all again",
        Effect.sync(() => work.of("first").length),
        (n) => n === 4,
        within
      )
      yield* turns("second", 2)
      assert.strictEqual(first.cluster.self.id, id)
      assert.deepStrictEqual(
        (yield* second.cluster.instances).map(({ state }) => state),
        ["live", "live"]
      )
    }).pipe(onDatabase)
  )

  it.effect("a lease whose holder is dead passes on only when a transaction with its fence is committed", () =>
    Effect.gen(function* () {
      const sql = yield* SqlClient.SqlClient
      const work = new Work()
      const [lease] = zones
      const first = yield* start("first")
      yield* first.standFor([lease!], work.by("first"))
      yield* waitUntil(
        "the first has it",
        Effect.sync(() => work.of("first").length),
        (n) => n === 1,
        within
      )
      const { id } = first.cluster.self
      const second = yield* start("second")
      yield* second.standFor([lease!], work.by("second"))
      yield* sql.withTransaction(
        Effect.gen(function* () {
          yield* first.cluster.fence(lease!)
          yield* first.cut
          // Looking keeps the transaction busy: it does not stand still.
          yield* waitUntil(
            "the first is declared dead",
            sql<{ readonly state: string }>`SELECT state FROM instance WHERE id = ${id}`,
            ([row]) => row!.state === "dead",
            within
          )
          yield* turns("second", 3)
          assert.deepStrictEqual(work.of("second"), [])
        })
      )
      yield* waitUntil(
        "the second has it",
        Effect.sync(() => work.of("second").length),
        (n) => n === 1,
        within
      )
      assert.deepStrictEqual(work.clashes, [])
    }).pipe(onDatabase)
  )

  it.effect.each([false, true])(
    "a database server that took over without the last leases makes no two hold one (the holder knows of it: %s)",
    (isTold) =>
      Effect.gen(function* () {
        const sql = yield* SqlClient.SqlClient
        const work = new Work()
        const [lease] = zones
        const first = yield* start("first")
        yield* first.standFor([lease!], work.by("first"))
        yield* waitUntil(
          "the first has it",
          Effect.sync(() => work.of("first").length),
          (n) => n === 1,
          within
        )
        const second = yield* start("second")
        yield* second.standFor([lease!], work.by("second"))
        yield* turns("second", 2)
        const held = first.cluster.held(lease!)!
        // As it was before the lease passed on, which was committed on the server that is gone; the first does not reach the new one.
        yield* first.cut
        if (isTold) {
          yield* first.move
          assert.isFalse(held.isValid())
        }
        yield* second.move
        yield* sql`UPDATE cluster_lease SET instance = ${second.cluster.self.id}, epoch = epoch - 1 WHERE name = ${lease!}`
        yield* waitUntil(
          "the second has it again",
          Effect.sync(() => work.of("second").length),
          (n) => n === 1,
          within
        )
        assert.isFalse(held.isValid())
        assert.deepStrictEqual(work.clashes, [])
      }).pipe(onDatabase)
  )
})
