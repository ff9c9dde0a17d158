/** Two servers on one database, the machine of one of them an hour ahead: both go by the database's clock. */
import { assert, layer } from "@effect/vitest"
import { Effect } from "effect"
import { Postgres } from "../../core/test/harness/Postgres.ts"
import { waitUntil } from "../../core/test/harness/waitUntil.ts"
import * as Agent from "./harness/AgentClient.ts"
import * as Deployment from "./harness/Deployment.ts"
import * as PrismServer from "./harness/PrismServer.ts"

/** What the program `faketime` sets; the dynamic linker puts in $LIB. */
const anHourAhead = { LD_PRELOAD: "/usr/$LIB/faketime/libfaketime.so.1", FAKETIME: "+1h" }

const hosts = Array.from({ length: 20 }, (_, i) => i)
const nameOf = (i: number) => `c-${i}.${Deployment.zone}`

layer(Postgres.layer(), { timeout: "60 seconds", excludeTestServices: true })("two servers on one registry", (it) => {
  it.effect(
    "of which one is an hour ahead: what it writes has the right time, no host expires by it, and no old address comes back",
    () =>
      Effect.gen(function* () {
        const postgres = yield* Postgres
        const { database, url } = yield* postgres.createDatabase()
        const settings = {
          storage: { url },
          leases: { beatInterval: "5s", grace: "2s", flushInterval: "200ms", sweepInterval: "200ms" }
        }
        const first = yield* Deployment.start(settings)
        const registerAll = (third: number, tcp: { readonly host: string; readonly port: number }) =>
          Effect.forEach(hosts, (i) => Agent.register(tcp, `c-${i}`, { from: `127.80.${third}.${i + 1}` }), {
            concurrency: 10
          })
        const untilAt = (third: number) =>
          Effect.forEach(
            hosts,
            (i) =>
              waitUntil(
                `${nameOf(i)} is at its address`,
                first.dig(nameOf(i), "A"),
                (data) => data.join() === `127.80.${third}.${i + 1}`
              ),
            { concurrency: 10, discard: true }
          )
        yield* registerAll(1, first.tcp())
        yield* untilAt(1)

        // Beside the first one there is another, whose machine's clock says that every lease passed an hour ago.
        const ahead = yield* PrismServer.serve(
          { ...settings, ...first.shared, server: { instance: "ahead", drainDelay: "0s" } },
          { environment: anHourAhead }
        )
        yield* registerAll(2, ahead.ready().tcp)
        yield* untilAt(2)
        const seenMillis = Date.parse(
          ((yield* first.get(`/v1/hosts/${nameOf(0)}`)) as { readonly lastSeen: string }).lastSeen
        )
        assert.isBelow(Math.abs(seenMillis - Date.now()), 600_000)
        assert.include(ahead.output().stderr, "the clock of this machine differs from the database's")

        // Alone it looks for what has expired, and writes all zones.
        yield* first.prism.kill("SIGKILL")
        yield* registerAll(3, ahead.ready().tcp)
        yield* untilAt(3)

        yield* first.prism.restart
        const answers = yield* registerAll(4, first.tcp())
        for (const answer of answers) assert.deepInclude(answer, { status: "success" })
        yield* untilAt(4)
        const expired = yield* postgres.query(
          database,
          "SELECT count(*) FROM host_history WHERE event IN ('offline', 'withdrawn', 'retired')"
        )
        assert.strictEqual(expired.trim(), "0")
      }).pipe(Effect.scoped),
    90_000
  )
})
