/**
 * Two servers on one PostgreSQL that register, publish, see served, flush beats and look again, all at the same names and each
 * in its own order. A deadlock would cost each of them PostgreSQL's `deadlock_timeout`, 1 s by default.
 */
import { assert, layer } from "@effect/vitest"
import { Outbox } from "@prism-dns/core/dns/Outbox"
import { Serving } from "@prism-dns/core/dns/Serving"
import type { DomainName } from "@prism-dns/core/domain/DomainName"
import * as RRset from "@prism-dns/core/domain/RRset"
import { type Registration } from "@prism-dns/core/registry/Decision"
import * as HostRepo from "@prism-dns/core/registry/HostRepo"
import { Registry } from "@prism-dns/core/registry/Registry"
import * as Generation from "@prism-dns/core/storage/Generation"
import { Context, Effect, Layer } from "effect"
import { SqlClient } from "effect/sql"
import * as FakeNodes from "../dns/FakeNodes.ts"
import { Postgres } from "../harness/Postgres.ts"
import { waitUntil } from "../harness/waitUntil.ts"
import * as T from "../layers.ts"
import * as Servers from "./servers.ts"

const rounds = 20
const zone = T.forward
/** Some below others, so that what is published makes and takes away names in between. */
const hostnames = Array.from({ length: 30 }, (_, i) => [`h${i}`, `x.h${i}`, `a.n${i}`, `n${i}.m`]).flat()

const parts = T.registry({ batchMax: 200 }, [zone]).pipe(
  Layer.provideMerge(Serving.layer({ retryMillisMin: 5 })),
  Layer.provideMerge(T.shared([zone])),
  Layer.provideMerge(FakeNodes.layer([{ name: "one" }]))
)

/** Always the same "random" numbers below `n`. */
const makeRandom = (seed: number) => {
  let state = seed
  return (n: number): number => {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0
    return Math.floor((state / 2 ** 32) * n)
  }
}

const shuffled = <A>(random: (n: number) => number, values: ReadonlyArray<A>): ReadonlyArray<A> => {
  const some = [...values]
  for (let i = some.length - 1; i > 0; i--) {
    const j = random(i + 1)
    ;[some[i], some[j]] = [some[j]!, some[i]!]
  }
  return some
}

layer(Postgres.layer(), { timeout: "60 seconds", excludeTestServices: true })("two servers at one database", (it) => {
  it.effect(
    "wait for each other at the same names, and never in a circle",
    () =>
      Effect.gen(function* () {
        const postgres = yield* Postgres
        const { server, url } = yield* Servers.database
        const database = new URL(url).pathname.slice(1)
        // A circle that came about by chance and passed within a second would not be seen.
        yield* postgres.query("postgres", `ALTER DATABASE "${database}" SET deadlock_timeout = '5ms'`)
        yield* Effect.scoped(
          Effect.gen(function* () {
            const [one, two] = [yield* server(parts), yield* server(parts)]

            const register = (
              context: typeof one,
              some: ReadonlyArray<string>,
              addressOf: (hostname: string) => string
            ) =>
              Context.get(context, Registry).requestAll(
                some.map((hostname) => ({
                  _tag: "Register" as const,
                  registration: {
                    ...T.registration(hostname, addressOf(hostname), "fleet"),
                    hostname: hostname.replaceAll(".", "-") as Registration["hostname"]
                  }
                }))
              )

            const registering = Effect.fnUntraced(function* (context: typeof one, seed: number) {
              const random = makeRandom(seed)
              for (let round = 0; round < rounds; round++) {
                yield* register(context, shuffled(random, hostnames).slice(0, 80), () => `192.0.2.${1 + random(200)}`)
              }
            })

            const beating = Effect.fnUntraced(function* (context: typeof one, seed: number) {
              const random = makeRandom(seed)
              const sql = Context.get(context, SqlClient.SqlClient)
              const { moveSeen } = HostRepo.make(sql)
              for (let round = 0; round < rounds; round++) {
                const hosts = yield* sql<{ readonly id: string; readonly generation: number | bigint }>`
                  SELECT id, generation FROM host ORDER BY id`
                yield* moveSeen(
                  shuffled(random, hosts).map(({ generation, id }) => ({
                    fqdn: "" as DomainName,
                    id,
                    generation: Number(generation),
                    atMillis: Date.now() + round
                  })),
                  "wait"
                )
              }
            })

            const publishing = Effect.gen(function* () {
              const random = makeRandom(3)
              const outbox = Context.get(one, Outbox)
              const serving = Context.get(one, Serving)
              const [node] = Context.get(one, FakeNodes.FakeNodes).nodes
              for (let round = 0; round < 3 * rounds; round++) {
                const marks = yield* outbox.due(zone.name, 100)
                const settlements = shuffled(random, marks).map(({ generation, name }) => ({
                  name,
                  generation,
                  rrsets: random(3) === 0 ? [] : [RRset.make(name, "A", 60, [`192.0.2.${1 + random(200)}`])]
                }))
                for (const { name, rrsets } of settlements) {
                  node!.remove(name, "A")
                  for (const rrset of rrsets) node!.put(rrset)
                }
                yield* outbox.claim(
                  zone.name,
                  settlements.map(({ name, rrsets }) => ({ name, sent: rrsets })),
                  Date.now()
                )
                yield* outbox.settle(zone, settlements, Date.now(), 0)
                serving.published(zone.name, settlements, "one")
                yield* outbox.doubtClaimed(zone.name, Date.now())
                yield* outbox.endDoubts(zone.name, Date.now())
              }
            })

            const looking = Effect.gen(function* () {
              const random = makeRandom(4)
              const outbox = Context.get(two, Outbox)
              const sql = Context.get(two, SqlClient.SqlClient)
              for (let round = 0; round < 2 * rounds; round++) {
                yield* outbox.markElapsed(Date.now(), 1000, 15_000)
                const names = shuffled(random, hostnames).slice(0, 60).map(T.nameOf)
                yield* outbox.recheck(zone.name, names, Date.now(), "doubt")
                const generation = yield* Generation.next(sql)
                yield* outbox
                  .mark(
                    shuffled(random, names).map((name) => ({ zone: zone.name, name })),
                    generation,
                    Date.now(),
                    "transferred"
                  )
                  .pipe(sql.withTransaction)
              }
            })

            // A new name that two servers take at the same moment is one's, and the other begins anew: that is another matter.
            yield* register(one, hostnames, () => "192.0.2.1")
            yield* Effect.all(
              [registering(one, 1), registering(two, 2), beating(one, 5), beating(two, 6), publishing, looking],
              { concurrency: "unbounded", discard: true }
            )
          })
        )
        // What a connection has seen is counted when it ends, at the latest.
        yield* waitUntil(
          "their connections have ended",
          postgres.query("postgres", `SELECT COUNT(*) FROM pg_stat_activity WHERE datname = '${database}'`),
          (count) => count.trim() === "0"
        )
        assert.strictEqual(
          (yield* postgres.query(
            "postgres",
            `SELECT deadlocks FROM pg_stat_database WHERE datname = '${database}'`
          )).trim(),
          "0"
        )
      }).pipe(Effect.scoped),
    60_000
  )
})
