/** Two servers, one with its clock an hour ahead: one writer at a time, and the newest change wins, not the latest time. */
import { assert, layer } from "@effect/vitest"
import { Effect } from "effect"
import { temporaryFolder } from "../../core/test/harness/PowerDns.ts"
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
    "of which one is an hour ahead: one writes at a time, no host expires by it, and no old address comes back",
    () =>
      Effect.gen(function* () {
        const postgres = yield* Postgres
        const { database, url } = yield* postgres.createDatabase()
        const first = yield* Deployment.start({
          storage: { url },
          leases: { beatInterval: "5s", grace: "2s", flushInterval: "200ms", sweepInterval: "200ms" }
        })
        const config = `${first.prism.folder}/prism.yaml`
        const tcp = first.tcp()
        const registerAll = (third: number) =>
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
        yield* registerAll(1)
        yield* untilAt(1)

        // Beside the first the other does not even begin.
        const folder = yield* temporaryFolder("prism-ahead-")
        const refused = yield* PrismServer.run(["serve", "--config", config], { folder, environment: anHourAhead })
        assert.strictEqual(refused.code, 1)
        assert.match(refused.stderr, /another server works on it/)

        // In its place it writes: its clock says that every lease passed an hour ago.
        yield* first.prism.kill("SIGKILL")
        const ahead = yield* PrismServer.start(["serve", "--config", config], { folder, environment: anHourAhead })
        yield* registerAll(2)
        yield* untilAt(2)
        assert.isAbove(
          Date.parse(((yield* first.get(`/v1/hosts/${nameOf(0)}`)) as { readonly lastSeen: string }).lastSeen),
          Date.now() + 3_000_000
        )
        yield* ahead.kill("SIGKILL")

        // Back at a clock that is right: what the other wrote seems to be of the future, and is older all the same.
        yield* first.prism.restart
        yield* untilAt(2)
        const answers = yield* registerAll(3)
        for (const answer of answers) assert.deepInclude(answer, { status: "success" })
        yield* untilAt(3)
        const expired = yield* postgres.query(
          database,
          "SELECT count(*) FROM host_history WHERE event IN ('offline', 'withdrawn', 'retired')"
        )
        assert.strictEqual(expired.trim(), "0")
      }).pipe(Effect.scoped),
    90_000
  )
})
