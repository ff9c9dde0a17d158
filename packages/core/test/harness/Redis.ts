/**
 * A real redis-server on a free port of 127.0.0.1, without anything on disk.
 *
 * Promises: `kill` and `start` again on the same port; frozen it takes
 * connections and answers nothing; gone with the scope.
 */
import { Effect, type Scope } from "effect"
import * as ChildProcess from "node:child_process"
import * as Fs from "node:fs"
import { tmpdir } from "node:os"
import * as Path from "node:path"
import { freePort } from "./ports.ts"
import { environment, run } from "./Postgres.ts"
import { waitUntil } from "./waitUntil.ts"

export interface Redis {
  readonly port: number
  /** With the password. */
  readonly url: string
  readonly password: string
  readonly start: Effect.Effect<void>
  readonly kill: Effect.Effect<void>
  readonly freeze: Effect.Effect<void>
  readonly thaw: Effect.Effect<void>
  /** What redis-cli says to it. */
  readonly ask: (...words: ReadonlyArray<string>) => Effect.Effect<string>
}

const password = "secret-of-redis"

export const make = Effect.gen(function* (): Effect.fn.Return<Redis, never, Scope.Scope> {
  const folder = yield* Effect.acquireRelease(
    Effect.sync(() => Fs.mkdtempSync(Path.join(tmpdir(), "prism-redis-"))),
    (folder) => Effect.sync(() => Fs.rmSync(folder, { recursive: true, force: true }))
  )
  const port = yield* freePort
  Fs.writeFileSync(
    Path.join(folder, "redis.conf"),
    `bind 127.0.0.1\nport ${port}\nsave ""\ndir ${folder}\nrequirepass ${password}\n`
  )
  let child: ChildProcess.ChildProcess | undefined
  const killAtExit = () => void child?.kill("SIGKILL")
  yield* Effect.acquireRelease(
    Effect.sync(() => process.on("exit", killAtExit)),
    () => Effect.sync(() => process.off("exit", killAtExit))
  )
  const ask = (...words: ReadonlyArray<string>) =>
    Effect.map(
      run("redis-cli", ["-p", `${port}`, ...words], { env: { ...environment, REDISCLI_AUTH: password } }),
      (said) => said.trim()
    )
  const kill = Effect.callback<void>((resume) => {
    if (child === undefined || child.exitCode !== null || child.signalCode !== null) return resume(Effect.void)
    child.once("exit", () => resume(Effect.void))
    child.kill("SIGKILL")
  })
  const start = Effect.gen(function* () {
    child = ChildProcess.spawn("redis-server", [Path.join(folder, "redis.conf")], { env: environment, stdio: "ignore" })
    yield* waitUntil(`Redis answers on port ${port}`, ask("ping"), (said) => said === "PONG", { within: "10 seconds" })
  })
  yield* Effect.addFinalizer(() => kill)
  yield* start
  const signal = (name: NodeJS.Signals) => Effect.sync(() => void child?.kill(name))
  return {
    port,
    password,
    url: `redis://:${password}@127.0.0.1:${port}`,
    start,
    kill,
    freeze: signal("SIGSTOP"),
    thaw: signal("SIGCONT"),
    ask
  }
})
