/** Backups as people make them: the packaged program beside a running server. */
import { assert, describe, it } from "@effect/vitest"
import { Effect, Fiber } from "effect"
import * as Fs from "node:fs"
import * as Path from "node:path"
import { waitUntil } from "../../../core/test/harness/waitUntil.ts"
import * as Agent from "../harness/AgentClient.ts"
import * as Deployment from "../harness/Deployment.ts"
import * as PrismServer from "../harness/PrismServer.ts"

const { zone } = Deployment

describe("a backup", () => {
  it.live(
    "made while hosts register is put back after the registry was lost; who came later registers again, and all are served",
    () =>
      Effect.gen(function* () {
        const running = yield* Deployment.start()
        const { folder } = running.prism
        const register = (i: number) =>
          waitUntil(
            `host ${i} is registered`,
            Agent.register(running.tcp(), `web-${i}`, { from: `127.0.1.${i}` }),
            ({ status }) => status === "success"
          )
        const cli = (...args: ReadonlyArray<string>) => PrismServer.run(args, { folder })
        const registry = Fs.readdirSync(folder).find((name) => name.endsWith(".db"))!
        const flags = ["--registry", registry]

        yield* Effect.forEach([1, 2, 3, 4, 5], register, { concurrency: 5, discard: true })
        const meanwhile = yield* Effect.forkChild(
          Effect.forEach([6, 7, 8, 9, 10], register, { concurrency: 5, discard: true })
        )
        const made = yield* cli("backup", ...flags, "backup.db", "--json")
        assert.strictEqual(made.code, 0, made.stderr)
        const { hosts } = JSON.parse(made.stdout) as { readonly hosts: number }
        assert.isAtLeast(hosts, 5)
        yield* Fiber.join(meanwhile)
        yield* running.untilDig(`web-10.${zone}`, "A", ["127.0.1.10"], "10 seconds")

        const refused = yield* cli("restore", ...flags, "backup.db", "--replace")
        assert.strictEqual(refused.code, 1)
        assert.include(refused.stderr, "a server works on it; stop that one first")

        yield* running.prism.kill("SIGTERM")
        for (const part of ["", "-wal", "-shm"]) Fs.rmSync(Path.join(folder, registry + part), { force: true })
        const back = yield* cli("restore", ...flags, "backup.db")
        assert.strictEqual(back.code, 0, back.stderr)
        yield* running.prism.restart

        // As they would by themselves: a host says again who it is.
        yield* Effect.forEach([6, 7, 8, 9, 10], register, { concurrency: 5, discard: true })
        for (let i = 1; i <= 10; i++) yield* running.untilDig(`web-${i}.${zone}`, "A", [`127.0.1.${i}`], "10 seconds")
        const again = yield* cli("restore", ...flags, "backup.db")
        assert.strictEqual(again.code, 1)
      }).pipe(Effect.scoped),
    120_000
  )

  it.live("of a registry in PostgreSQL is said to be PostgreSQL's own", () =>
    Effect.gen(function* () {
      const running = yield* Deployment.start()
      const { folder } = running.prism
      const environment = { PRISM_STORAGE_URL: "postgres://prism:secret-of-a-test@db.example.net/prism" }
      const configuration = Fs.readdirSync(folder).find((name) => name.endsWith(".yaml"))!
      const ended = yield* PrismServer.run(["backup", "--config", configuration, "backup.db"], { folder, environment })
      assert.strictEqual(ended.code, 2)
      assert.include(ended.stderr, "pg_dump")
      assert.notInclude(ended.stderr, "secret-of-a-test")
    }).pipe(Effect.scoped)
  )
})
