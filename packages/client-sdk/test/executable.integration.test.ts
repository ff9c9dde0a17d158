/** `prism-agent` as one executable, where no Node is. */
import { assert, describe, it } from "@effect/vitest"
import { FakeServer } from "@prism-dns/client-sdk/testing"
import { Effect } from "effect"
import * as ChildProcess from "node:child_process"
import * as Path from "node:path"
import { beforeAll } from "vitest"
import { temporaryFolder } from "../../core/test/harness/PowerDns.ts"
import * as PrismAgent from "./harness/PrismAgent.ts"

const root = Path.resolve(import.meta.dirname, "../../..")
const program = [Path.join(root, "packages/client-sdk/dist/executable/prism-agent")]

describe("the executable", () => {
  beforeAll(() => {
    ChildProcess.execFileSync(process.execPath, [Path.join(root, "scripts/agent-executable.ts")], { stdio: "pipe" })
  }, 120_000)

  it.live("says its version and registers", () =>
    Effect.gen(function* () {
      const environment = { PATH: "/nonexistent" }
      const version = yield* PrismAgent.run(["--version"], { program, environment })
      assert.match(version.stdout, /^prism-agent v\d+\.\d+\.\d+\n$/)
      const server = yield* Effect.acquireRelease(
        Effect.promise(() => FakeServer.start({ tokens: [{ token: "enrol-me" }] })),
        (server) => Effect.promise(() => server.stop())
      )
      const state = yield* temporaryFolder("prism-agent-")
      const ended = yield* PrismAgent.run(
        ["once", "--server", server.address, "--hostname", "web-1", "--state", state],
        {
          program,
          environment: { ...environment, PRISM_TOKEN: "enrol-me" }
        }
      )
      assert.strictEqual(ended.code, 0, ended.stderr)
      assert.match(ended.stdout, /^applied +web-1\.hosts\.prism\.test\. /m)
    }).pipe(Effect.scoped)
  )
})
