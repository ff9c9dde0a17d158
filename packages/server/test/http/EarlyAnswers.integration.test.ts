import { assert, layer } from "@effect/vitest"
import { type Heard, Signals } from "@prism-dns/core/cluster/Signals"
import * as Zone from "@prism-dns/core/domain/Zone"
import { Context, Duration, Effect, Layer, Result } from "effect"
import { SqlClient } from "effect/sql"
import { Postgres } from "../../../core/test/harness/Postgres.ts"
import { waitUntil } from "../../../core/test/harness/waitUntil.ts"
import * as PostgresUrl from "../../src/database/PostgresUrl.ts"
import { answeredFromMemory, applied, long, short, suite } from "./EarlyAnswersSuite.ts"
import { otherZone, register, reverseZone, server, servicesWith, zone } from "./harness.ts"

class Other extends Context.Service<
  Other,
  {
    /** SQL of another process on the same database. */
    readonly write: (sql: string) => Effect.Effect<void>
    /** What another instance says. */
    readonly say: (heard: Heard) => void
  }
>()("Other") {}

const zones = [zone, otherZone, reverseZone].map((name) => Zone.make(name))

/** As long as may be, so that what shows does not show for its age. */
const ageMax = Duration.seconds(10)

const onPostgres = Layer.unwrap(
  Effect.gen(function* () {
    const postgres = yield* Postgres
    const database = yield* postgres.createDatabase()
    const listeners = new Set<(heard: Heard) => void>()
    const signals = Layer.succeed(
      Signals,
      Signals.of({
        send: () => undefined,
        isHearing: () => true,
        listen: (topic, listener) => Effect.sync(() => void (topic === "hosts" && listeners.add(listener)))
      })
    )
    const storage = { url: Result.getOrThrow(PostgresUrl.parse(database.url)), connectionsMax: 8 }
    return server({ hostAnswers: { ageMax } }, servicesWith(zones, storage, signals)).pipe(
      Layer.provideMerge(
        Layer.succeed(
          Other,
          Other.of({
            write: (sql) => Effect.asVoid(postgres.query(database.database, sql)),
            say: (heard) => listeners.forEach((listener) => listener(heard))
          })
        )
      )
    )
  })
)

layer(Postgres.layer(), { timeout: "60 seconds", excludeTestServices: true })("on PostgreSQL", (it) => {
  it.layer(onPostgres)("a host that is asked for by its name", (it) => {
    suite(it)

    const isKept = (fqdn: string) =>
      waitUntil(
        "the answer is kept",
        Effect.flatMap(answeredFromMemory, (before) =>
          Effect.andThen(
            short(fqdn),
            Effect.map(answeredFromMemory, (after) => after - before)
          )
        ),
        (more) => more === 1
      )

    it.effect("shows what another instance has changed as soon as that says so", () =>
      Effect.gen(function* () {
        const other = yield* Other
        const { fqdn } = yield* register("elsewhere", "192.0.2.40")
        yield* applied(fqdn)
        yield* isKept(fqdn)
        yield* other.write(`UPDATE host SET labels = '{"rack":"9"}' WHERE fqdn = '${fqdn}'`)
        other.say(new Set([fqdn]))
        assert.deepStrictEqual((yield* short(fqdn)).json.labels, { rack: "9" })
      })
    )

    it.effect("shows nothing of a transaction before it is committed, and all of it from then on", () =>
      Effect.gen(function* () {
        const sql = yield* SqlClient.SqlClient
        const { fqdn } = yield* register("pending", "192.0.2.41")
        yield* applied(fqdn)
        for (let turn = 0; turn < 20; turn++) {
          const before = yield* long(fqdn)
          const during: Array<string> = []
          yield* Effect.gen(function* () {
            yield* sql`UPDATE host SET last_seen = last_seen + 1000 WHERE fqdn = ${fqdn}`
            for (let i = 0; i < 3; i++) during.push((yield* short(fqdn)).text)
          }).pipe(sql.withTransaction)
          const after = yield* short(fqdn)
          assert.deepStrictEqual(during, [before.text, before.text, before.text])
          assert.notStrictEqual(after.text, before.text)
          assert.strictEqual(after.text, (yield* long(fqdn)).text)
        }
      })
    )

    it.effect("shows what others have changed after a while, though nobody says so", () =>
      Effect.gen(function* () {
        const other = yield* Other
        const { fqdn } = yield* register("unheard", "192.0.2.42")
        yield* applied(fqdn)
        yield* isKept(fqdn)
        yield* other.write(`UPDATE host SET labels = '{"rack":"9"}' WHERE fqdn = '${fqdn}'`)
        const answer = yield* waitUntil("the change shows", short(fqdn), ({ json }) => json.labels.rack === "9", {
          within: "30 seconds"
        })
        assert.strictEqual(answer.text, (yield* long(fqdn)).text)
      })
    )

    it.effect("is answered once the database answers again, and the server stays", () =>
      Effect.gen(function* () {
        const postgres = yield* Postgres
        const { fqdn } = yield* register("away", "192.0.2.43")
        yield* applied(fqdn)
        yield* postgres.stop("fast")
        yield* waitUntil("it is told that the registry is away", short(fqdn), ({ status }) => status === 503, {
          within: "30 seconds"
        })
        yield* postgres.start
        yield* waitUntil("it is answered", short(fqdn), ({ status }) => status === 200, { within: "30 seconds" })
      })
    )
  })
})
