/**
 * The SDK as whoever meets it first: the packed tarball in an empty folder, the
 * lines of the README, a real server.
 */
import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import * as ChildProcess from "node:child_process"
import * as Fs from "node:fs"
import * as Path from "node:path"
import { temporaryFolder } from "../../core/test/harness/PowerDns.ts"
import { waitUntil } from "../../core/test/harness/waitUntil.ts"
import * as PrismServer from "../../server/test/harness/PrismServer.ts"
import * as Package from "./harness/Package.ts"

/** Runs a program of a project until it has said `expected`, or has ended, or it took too long; gives what it said. */
const runUntil = Effect.fnUntraced(function* (project: string, file: string, expected: string) {
  const child = yield* Effect.acquireRelease(
    Effect.sync(() =>
      ChildProcess.spawn(process.execPath, [file], { cwd: project, env: { PATH: process.env["PATH"] } })
    ),
    (child) => Effect.sync(() => child.kill("SIGKILL"))
  )
  let said = ""
  child.stdout.setEncoding("utf8").on("data", (text: string) => (said += text))
  child.stderr.setEncoding("utf8").on("data", (text: string) => (said += text))
  yield* waitUntil(
    `${file} has said it`,
    Effect.sync(() => said),
    (text) => text.includes(expected) || child.exitCode !== null,
    { within: "20 seconds" }
  )
  return said
})

describe("the package", () => {
  it.live("in an empty folder: five lines type-check, register, and print when the name is served", () =>
    Effect.gen(function* () {
      const folder = yield* temporaryFolder("prism-new-user-")
      const project = Path.join(folder, "project")
      const packed = Package.pack(folder)
      assert.deepStrictEqual(Package.install(packed.tarball, project), ["@prism-dns/client-sdk"])
      assert.isBelow(packed.unpackedBytes, 2 * 1024 * 1024)

      const dev = yield* PrismServer.dev()
      const { tcp } = dev.ready()
      const [five] = Package.programsOf("packages/client-sdk/README.md")
      assert.isAtMost(five!.split("\n").filter((line) => line !== "").length, 5)
      const here = five!.replace("127.0.0.1:8080", `${tcp.host}:${tcp.port}`)
      Fs.writeFileSync(Path.join(project, "five.ts"), here)
      assert.strictEqual(Package.typeErrors(project, "five.ts"), "")
      const [, expected] = /\/\/ (.+)$/m.exec(here)!
      // As JavaScript, for a Node that runs no TypeScript.
      Fs.writeFileSync(Path.join(project, "five.js"), here)
      assert.strictEqual(yield* runUntil(project, "five.js", expected!), `${expected}\n`)
    }).pipe(Effect.scoped)
  )

  it.live("the test kit and the Effect entry type-check and run where they are installed", () =>
    Effect.gen(function* () {
      const folder = yield* temporaryFolder("prism-new-user-")
      const project = Path.join(folder, "project")
      Package.install(Package.pack(folder).tarball, project)
      Fs.writeFileSync(
        Path.join(project, "kit.ts"),
        `import { register, RegistrationFailed } from "@prism-dns/client-sdk"
import { FakeServer } from "@prism-dns/client-sdk/testing"

await using server = await FakeServer.start()
server.refuseNext("register", { code: "hostname-taken" })
try {
  await register({ server: server.address, hostname: "web-1" })
} catch (error) {
  if (error instanceof RegistrationFailed) console.log(error.code)
}
`
      )
      assert.strictEqual(Package.typeErrors(project, "kit.ts"), "")
      assert.strictEqual(yield* runUntil(project, "kit.ts", "\n"), "hostname-taken\n")

      for (const name of ["effect", "@standard-schema"]) if (Package.has(name)) Package.link(name, project)
      Fs.writeFileSync(
        Path.join(project, "effect.ts"),
        `import { Registration } from "@prism-dns/client-sdk/effect"
import * as Prism from "@prism-dns/client-sdk/effect"
import { FakeServer } from "@prism-dns/client-sdk/testing"
import { Effect } from "effect"

const server = await FakeServer.start()
const program = Effect.gen(function* () {
  const { host } = yield* (yield* Registration).waitFor("served")
  console.log(host, server.hosts.length)
})
await Effect.runPromise(Effect.provide(program, Prism.layer({ server: server.address, hostname: "web-1" })))
console.log(server.hosts.length)
await server.stop()
`
      )
      assert.strictEqual(Package.typeErrors(project, "effect.ts"), "")
      assert.strictEqual(yield* runUntil(project, "effect.ts", "\n0\n"), "web-1.hosts.prism.test. 1\n0\n")
    }).pipe(Effect.scoped)
  )
})
