/** `prism-dns events --follow` and `hosts watch` against the packaged server, which goes away and comes back meanwhile. */
import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import * as ChildProcess from "node:child_process"
import * as Path from "node:path"
import { waitUntil } from "../../../core/test/harness/waitUntil.ts"
import * as Agent from "../harness/AgentClient.ts"
import * as Deployment from "../harness/Deployment.ts"

const bundle = Path.resolve(import.meta.dirname, "../../dist/prism-dns.js")

/** A command that goes on; ended with the scope. */
const follow = (url: string, args: ReadonlyArray<string>) =>
  Effect.acquireRelease(
    Effect.sync(() => {
      const child = ChildProcess.spawn(process.execPath, [bundle, ...args, "--server", url], {
        env: { PATH: process.env["PATH"] ?? "", PRISM_TOKEN: Deployment.adminToken },
        stdio: ["ignore", "pipe", "pipe"]
      })
      let out = ""
      let err = ""
      child.stdout.setEncoding("utf8").on("data", (text: string) => (out += text))
      child.stderr.setEncoding("utf8").on("data", (text: string) => (err += text))
      return { lines: () => out.split("\n").filter((line) => line !== ""), err: () => err, child }
    }),
    ({ child }) => Effect.sync(() => void child.kill("SIGKILL"))
  )

const register = (deployment: Effect.Success<ReturnType<typeof Deployment.start>>, name: string, last: number) =>
  waitUntil(
    `${name} is registered`,
    Agent.register(deployment.tcp(), name, { from: `127.52.0.${last}` }),
    ({ status }) => status === "success"
  )

describe("following on the command line", () => {
  it.live(
    "goes on across a restart of the server, with every event once",
    () =>
      Effect.gen(function* () {
        const deployment = yield* Deployment.start({ server: { drainDelay: "0s" } })
        const { url } = deployment.prism.ready().http
        const events = yield* follow(url, ["events", "--follow", "--since", "0", "--kind", "host.created", "--json"])
        const hosts = yield* follow(url, ["hosts", "watch"])
        yield* register(deployment, "a", 1)
        yield* waitUntil("it is shown", Effect.sync(events.lines), (lines) => lines.length === 1, {
          within: "20 seconds"
        })
        // Whoever watches sees what comes after it has begun.
        let n = 0
        yield* waitUntil(
          "watching has begun",
          Effect.suspend(() => Effect.andThen(register(deployment, `w-${n++}`, 9), Effect.sync(hosts.lines))),
          (lines) => lines.length > 0,
          { within: "20 seconds", every: "200 millis" }
        )
        yield* deployment.prism.kill("SIGTERM")
        yield* deployment.prism.restart
        yield* register(deployment, "b", 2)
        yield* waitUntil(
          "it is shown",
          Effect.sync(events.lines),
          (lines) => lines.some((line) => JSON.parse(line).subject === `b.${Deployment.zone}.`),
          { within: "20 seconds" }
        )
        const subjects = events.lines().map((line) => JSON.parse(line).subject as string)
        assert.strictEqual(new Set(subjects).size, subjects.length)
        assert.include(events.err(), "the connection is lost")
        yield* waitUntil(
          "the table's lines have it too",
          Effect.sync(hosts.lines),
          (lines) => lines.some((line) => line.includes(`host.created\tb.${Deployment.zone}.\tonline\t127.52.0.2`)),
          { within: "20 seconds" }
        )
      }).pipe(Effect.scoped),
    { timeout: 120_000 }
  )
})
