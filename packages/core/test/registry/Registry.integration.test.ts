import { assert, layer } from "@effect/vitest"
import { Cluster } from "@prism-dns/core/cluster/Cluster"
import * as Generation from "@prism-dns/core/storage/Generation"
import { Deferred, Effect, Fiber, Layer, Option } from "effect"
import { SqlClient } from "effect/sql"
import * as HostRepo from "@prism-dns/core/registry/HostRepo"
import { Registry } from "@prism-dns/core/registry/Registry"
import { meet } from "../harness/meet.ts"
import { Postgres } from "../harness/Postgres.ts"
import { waitUntil } from "../harness/waitUntil.ts"
import * as T from "../layers.ts"
import { suite } from "./RegistrySuite.ts"

/** As a registration does that is under way, holds a host; gives what ends that. */
const holding = Effect.fnUntraced(function* (hostname: string) {
  const sql = yield* SqlClient.SqlClient
  const held = yield* Deferred.make<void>()
  const done = yield* Deferred.make<void>()
  const registering = yield* Effect.forkChild(
    Effect.gen(function* () {
      yield* HostRepo.make(sql).lockByName([T.nameOf(hostname)])
      yield* Deferred.succeed(held, undefined)
      yield* Deferred.await(done)
    }).pipe(sql.withTransaction)
  )
  yield* Deferred.await(held)
  return Effect.andThen(Deferred.succeed(done, undefined), Fiber.join(registering))
})

/** Waits until something has waited so long for a host. Not in a transaction, which sees what was there when it looked first. */
const untilItWaits = Effect.fnUntraced(function* (interval: string) {
  const sql = yield* SqlClient.SqlClient
  yield* waitUntil(
    `something has waited ${interval} for a host`,
    sql<{ readonly n: number }>`
      SELECT COUNT(*)::int AS n FROM pg_stat_activity
      WHERE datname = current_database() AND wait_event_type = 'Lock'
        AND clock_timestamp() - query_start > ${interval}::interval`,
    ([row]) => row!.n > 0
  )
})

/** A server that knows of another one. */
const amongOthers = Layer.effect(
  Cluster,
  Effect.map(Cluster, (alone) => Cluster.of({ ...alone, isAlone: () => false }))
).pipe(Layer.provide(Cluster.layerAlone))

layer(Postgres.layer(), { timeout: "60 seconds", excludeTestServices: true })("on PostgreSQL", (it) => {
  suite("the registry", it, T.postgres)

  it.effect("a sweep does not wait for hosts that are being registered, and they not for it", () =>
    Effect.gen(function* () {
      const sql = yield* SqlClient.SqlClient
      const hosts = HostRepo.make(sql)
      const registry = yield* Registry
      for (const name of ["a", "b", "c"]) yield* registry.register(T.registration(name, "192.0.2.1"))
      const letGo = yield* holding("b")
      const found = yield* hosts.lockExpired(Number.MAX_SAFE_INTEGER, 10).pipe(sql.withTransaction)
      yield* letGo
      assert.sameMembers(
        found.map(({ fqdn }) => fqdn),
        [T.nameOf("a"), T.nameOf("c")]
      )
    }).pipe(Effect.provide(Layer.fresh(T.registry().pipe(Layer.provideMerge(T.postgres)))))
  )

  it.effect(
    "beats are written down in the order in which hosts are registered: neither waits for the other that waits for it",
    () =>
      Effect.gen(function* () {
        const hosts = HostRepo.make(yield* SqlClient.SqlClient)
        const registry = yield* Registry
        const seen = yield* Effect.forEach(["b", "a"], (name) =>
          Effect.map(registry.register(T.registration(name, "192.0.2.1")), ({ host: { fqdn, generation, id } }) => ({
            fqdn,
            id,
            generation,
            atMillis: 1
          }))
        )
        const flushed = yield* meet(
          hosts.lockByName([T.nameOf("a")]),
          hosts.moveSeen(seen, "wait"),
          hosts.lockByName([T.nameOf("b")])
        )
        assert.strictEqual(flushed.size, 2)
      }).pipe(Effect.provide(Layer.fresh(T.registry().pipe(Layer.provideMerge(T.postgres)))))
  )

  it.effect(
    "beats of hosts that are being registered are left for later, and told from those of hosts that have changed",
    () =>
      Effect.gen(function* () {
        const sql = yield* SqlClient.SqlClient
        const hosts = HostRepo.make(sql)
        const registry = yield* Registry
        const [free, held, changed] = yield* Effect.forEach(["a", "b", "c"], (name) =>
          Effect.map(registry.register(T.registration(name, "192.0.2.1")), ({ host: { fqdn, generation, id } }) => ({
            fqdn,
            id,
            generation,
            atMillis: Number.MAX_SAFE_INTEGER
          }))
        )
        yield* registry.register(T.registration("c", "192.0.2.2"))
        const letGo = yield* holding("b")
        assert.deepStrictEqual(yield* hosts.moveSeenOfFree([free!, held!, changed!]), {
          busy: [held!],
          moved: [changed!]
        })
        yield* letGo
        assert.deepStrictEqual(yield* hosts.moveSeenOfFree([held!]), { busy: [], moved: [] })
      }).pipe(Effect.provide(Layer.fresh(T.registry().pipe(Layer.provideMerge(T.postgres)))))
  )

  it.effect.each(
    [
      { gone: false, why: "the database has not answered for 0.3 s" },
      { gone: true, why: "whoever asked has gone" }
    ].flatMap((each) => [
      { ...each, asked: "a registration" },
      { ...each, asked: "a word" }
    ])
  )(
    "$asked that waited for the database until it was refused is not stored later: $why",
    ({ asked: what, gone, why }) =>
      Effect.gen(function* () {
        const registry = yield* Registry
        const { host } = yield* registry.register(T.registration("a", "192.0.2.1"))
        let isThere = true
        const isWanted = () => isThere
        const letGo = yield* holding("a")
        const word = { event: "retired", fqdn: host.fqdn, actor: { name: "a", peer: "192.0.2.1" } } as const
        const blocked = yield* Effect.forkChild(
          what === "a word"
            ? Effect.asVoid(registry.change(word, isWanted))
            : Effect.asVoid(registry.register(T.registration("a", "192.0.2.2"), isWanted))
        )
        yield* untilItWaits("350 milliseconds")
        isThere = !gone
        yield* letGo
        const error = yield* Effect.flip(Fiber.join(blocked))
        assert.strictEqual(error.message, `the registry could not be written: ${why}`)
        // Its turn came after what was refused, and so it finds what that has left.
        const next = yield* registry.register(T.registration("a", "192.0.2.3"))
        assert.deepStrictEqual(next.previousAddresses, host.addresses)
        assert.strictEqual(next.outcome, "changed")
      }).pipe(
        Effect.provide(
          Layer.fresh(T.registry({ answerMillisMax: gone ? 1500 : 300 }).pipe(Layer.provideMerge(T.postgres)))
        )
      )
  )

  it.effect.each([
    {
      isBefore: false,
      isAlone: false,
      outcome: "the registry could not be written: the host was changed since it was asked"
    },
    { isBefore: true, isAlone: false, outcome: "changed" },
    { isBefore: false, isAlone: true, outcome: "changed" }
  ])(
    "what waited for long is not stored over what another server has stored since it was asked: $outcome, before $isBefore, alone $isAlone",
    ({ isAlone, isBefore, outcome }) =>
      Effect.gen(function* () {
        const sql = yield* SqlClient.SqlClient
        const registry = yield* Registry
        yield* registry.register(T.registration("a", "192.0.2.1"))
        const elsewhere = Effect.gen(function* () {
          const generation = yield* Generation.next(sql)
          yield* sql`UPDATE host SET generation = ${generation}, labels = '{"rack":"7"}'`
        })
        if (isBefore) {
          yield* elsewhere
          // It has seen newer generations than that, if not that.
          yield* registry.register(T.registration("b", "192.0.2.9"))
        }
        const held = yield* Deferred.make<void>()
        const done = yield* Deferred.make<void>()
        const other = yield* Effect.forkChild(
          Effect.gen(function* () {
            yield* HostRepo.make(sql).lockByName([T.nameOf("a")])
            yield* Deferred.succeed(held, undefined)
            yield* Deferred.await(done)
            if (!isBefore) yield* elsewhere
          }).pipe(sql.withTransaction)
        )
        yield* Deferred.await(held)
        const late = yield* Effect.forkChild(registry.register(T.registration("a", "192.0.2.2"), () => true))
        yield* untilItWaits("350 milliseconds")
        yield* Deferred.succeed(done, undefined)
        yield* Fiber.join(other)
        const told = yield* Effect.match(Fiber.join(late), {
          onFailure: ({ message }) => message,
          onSuccess: ({ outcome }) => outcome
        })
        assert.strictEqual(told, outcome)
        const host = Option.getOrThrow(yield* registry.findByName(T.nameOf("a")))
        assert.deepStrictEqual(host.addresses, [T.address(outcome === "changed" ? "192.0.2.2" : "192.0.2.1")])
        // Whoever still wants it asks again.
        const again = yield* registry.register(T.registration("a", "192.0.2.2"), () => true)
        assert.strictEqual(again.outcome, outcome === "changed" ? "renewed" : "changed")
      }).pipe(
        Effect.provide(
          Layer.fresh(
            T.registry({ answerMillisMax: 1500 }, T.zones, isAlone ? Cluster.layerAlone : amongOthers).pipe(
              Layer.provideMerge(T.postgres)
            )
          )
        )
      )
  )

  it.effect("two servers that register the same new names at once give each name once, and nobody an error", () =>
    Effect.gen(function* () {
      const sql = yield* SqlClient.SqlClient
      const database = Layer.succeed(SqlClient.SqlClient, sql)
      const [one, two] = yield* Effect.all(
        [1, 2].map(() => Layer.build(Layer.fresh(T.registry({ batchMax: 30 })).pipe(Layer.provide(database))))
      )
      const names = Array.from({ length: 200 }, (_, i) => `h${i}`)
      // in opposite orders, so that each has to wait for the other
      const results = yield* Effect.all(
        [
          { context: one!, list: names },
          { context: two!, list: names.toReversed() }
        ].map(({ context, list }) =>
          Effect.provide(
            Effect.flatMap(Registry, (registry) =>
              Effect.forEach(list, (name) => registry.register(T.registration(name, "192.0.2.1")), {
                concurrency: "unbounded"
              })
            ),
            context
          )
        ),
        { concurrency: "unbounded" }
      )
      const outcomes = results.flat().map(({ host, outcome }) => ({ ...host, outcome }))
      assert.strictEqual(outcomes.filter(({ outcome }) => outcome === "created").length, 200)
      assert.strictEqual(outcomes.filter(({ outcome }) => outcome === "renewed").length, 200)
      const rows = yield* sql<{ readonly table: string; readonly n: bigint }>`
        SELECT 'host' AS table, COUNT(*) AS n FROM host UNION ALL
        SELECT 'host_history', COUNT(*) FROM host_history UNION ALL
        SELECT 'audit_entry', COUNT(*) FROM audit_entry UNION ALL
        SELECT 'host_address', COUNT(*) FROM host_address`
      for (const { n } of rows) assert.strictEqual(Number(n), 200)
      assert.strictEqual(new Set(outcomes.map(({ id }) => id)).size, 200)
    }).pipe(Effect.provide(Layer.fresh(T.postgres)))
  )

  it.effect("two servers at once give an owner as many hosts as it may have, and not one more", () =>
    Effect.gen(function* () {
      const sql = yield* SqlClient.SqlClient
      const database = Layer.succeed(SqlClient.SqlClient, sql)
      const contexts = yield* Effect.all(
        [1, 2].map(() => Layer.build(Layer.fresh(T.registry({ batchMax: 10 })).pipe(Layer.provide(database))))
      )
      const outcomes = yield* Effect.forEach(
        contexts,
        (context, server) =>
          Effect.provide(
            Effect.flatMap(Registry, (registry) =>
              Effect.forEach(
                Array.from({ length: 60 }, (_, i) => `h${server}-${i}`),
                (name) =>
                  Effect.match(registry.register({ ...T.registration(name, "192.0.2.1", "fleet"), hostsMax: 37 }), {
                    onSuccess: ({ outcome }): string => outcome,
                    onFailure: ({ _tag }): string => _tag
                  }),
                { concurrency: "unbounded" }
              )
            ),
            context
          ),
        { concurrency: "unbounded" }
      )
      const counts = Map.groupBy(outcomes.flat(), (outcome) => outcome)
      assert.deepStrictEqual(
        [counts.get("created")?.length, counts.get("QuotaExceeded")?.length, counts.size],
        [37, 83, 2]
      )
      const kept = yield* sql<{ readonly kind: string; readonly key: string; readonly hosts: bigint }>`
        SELECT kind, key, hosts FROM host_count ORDER BY kind`
      assert.deepStrictEqual(
        kept.map(({ hosts, key, kind }) => [kind, key, Number(hosts)]),
        [
          ["owner", "fleet", 37],
          ["zone", T.forward.name, 37]
        ]
      )
    }).pipe(Effect.provide(Layer.fresh(T.postgres)))
  )

  it.effect(
    "two servers that move the same hosts to and fro at once leave rising generations and a whole history",
    () =>
      Effect.gen(function* () {
        const sql = yield* SqlClient.SqlClient
        const database = Layer.succeed(SqlClient.SqlClient, sql)
        const contexts = yield* Effect.all(
          [1, 2].map(() => Layer.build(Layer.fresh(T.registry({ batchMax: 7 })).pipe(Layer.provide(database))))
        )
        const names = Array.from({ length: 20 }, (_, i) => `h${i}`)
        yield* Effect.forEach(
          contexts,
          (context, server) =>
            Effect.provide(
              Effect.flatMap(Registry, (registry) =>
                Effect.forEach(
                  Array.from({ length: 10 }, (_, round) => round),
                  (round) =>
                    Effect.forEach(
                      server === 0 ? names : names.toReversed(),
                      (name) => registry.register(T.registration(name, `192.0.2.${server * 100 + round}`)),
                      { concurrency: "unbounded" }
                    )
                )
              ),
              context
            ),
          { concurrency: "unbounded" }
        )
        const broken = yield* sql`
        SELECT a.host_id FROM host_history a JOIN host_history b ON b.sequence = (
          SELECT MIN(sequence) FROM host_history c WHERE c.host_id = a.host_id AND c.sequence > a.sequence)
        WHERE a.valid_to IS DISTINCT FROM b.valid_from OR a.generation >= b.generation OR a.valid_to < a.valid_from`
        assert.deepStrictEqual(broken, [])
        const stale = yield* sql`
        SELECT h.id FROM host h JOIN host_history c ON c.host_id = h.id AND c.valid_to IS NULL
        WHERE h.generation <> c.generation OR h.addresses <> c.addresses`
        assert.deepStrictEqual(stale, [])
      }).pipe(Effect.provide(Layer.fresh(T.postgres)))
  )
})

layer(Postgres.layer({ fsync: true }), { timeout: "60 seconds", excludeTestServices: true })(
  "while PostgreSQL is away",
  (it) => {
    it.effect("registrations are told so; once it is back they go through, and nothing accepted is lost", () =>
      Effect.gen(function* () {
        const server = yield* Postgres
        const registry = yield* Registry
        yield* registry.register(T.registration("before", "192.0.2.1"))
        yield* server.stop("crash")
        for (const name of ["during-1", "during-2"]) {
          const error = yield* Effect.flip(registry.register(T.registration(name, "192.0.2.2")))
          assert.strictEqual(error._tag, "RegistryUnavailable")
          assert.match(error.message, /ECONNREFUSED|terminat|clos/i)
        }
        yield* server.start
        yield* waitUntil(
          "a registration goes through",
          registry.register(T.registration("after", "192.0.2.3")),
          ({ host }) => host.state === "online"
        )
        const names = (yield* registry.list({ limit: 10 })).map(({ hostname }) => String(hostname))
        assert.deepStrictEqual(names, ["after", "before"])
      }).pipe(Effect.provide(T.registry().pipe(Layer.provide(Layer.fresh(T.postgres)))))
    )
  }
)
