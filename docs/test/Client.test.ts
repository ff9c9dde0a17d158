/** A client whose types are made from `openapi.json` by a tool of others compiles, and works on a real server. */
import { assert, describe, it } from "@effect/vitest"
import { Effect, Redacted } from "effect"
import * as ChildProcess from "node:child_process"
import * as Fs from "node:fs"
import * as Path from "node:path"
import { promisify } from "node:util"
import { temporaryFolder } from "../../packages/core/test/harness/PowerDns.ts"
import { HttpAddress } from "../../packages/server/src/http/HttpAddress.ts"
import { adminToken, register, server, zone } from "../../packages/server/test/http/harness.ts"
import { root } from "./markdown.ts"

const execFile = promisify(ChildProcess.execFile)

/** Runs a program of the docs' own packages, or says what it said. */
const run = (folder: string, program: string, ...args: ReadonlyArray<string>) =>
  Effect.promise(async () => {
    try {
      return (await execFile(process.execPath, [program, ...args], { cwd: folder, encoding: "utf8" })).stdout
    } catch (error) {
      const { stderr, stdout } = error as { readonly stdout?: string; readonly stderr?: string }
      throw new Error(`${Path.basename(program)} ${args.join(" ")}: ${stdout}${stderr}`, { cause: error })
    }
  })

const packages = Path.join(root, "docs/node_modules")

describe("a generated client", () => {
  it.live(
    "compiles, and reads and changes what a real server holds",
    () =>
      Effect.gen(function* () {
        const folder = yield* temporaryFolder("prism-client-")
        // The packages that the program imports are those of this repository.
        Fs.symlinkSync(Path.join(root, "node_modules"), Path.join(folder, "node_modules"))
        Fs.copyFileSync(Path.join(import.meta.dirname, "client/program.ts"), Path.join(folder, "program.ts"))
        Fs.writeFileSync(Path.join(folder, "package.json"), '{ "type": "module" }')
        yield* run(
          folder,
          Path.join(packages, "openapi-typescript/bin/cli.js"),
          Path.join(root, "docs/reference/openapi.json"),
          "--output=prism.d.ts"
        )
        const options = ["--strict", "--noUncheckedIndexedAccess", "--target", "esnext", "--module", "esnext"]
        options.push("--moduleResolution", "bundler", "--types", "node", "--outDir", "built", "program.ts")
        yield* run(folder, Path.join(packages, "typescript/bin/tsc"), ...options)

        const { fqdn } = yield* register("generated", "192.0.2.1")
        const { url } = yield* HttpAddress
        const said = yield* run(folder, "built/program.js", url, Redacted.value(adminToken), fqdn)
        assert.deepStrictEqual(JSON.parse(said), {
          registered: 201,
          labels: { role: "web", site: "a" },
          name: "ops",
          addresses: ["192.0.2.1"],
          found: [`generated.${zone}`],
          state: "retired",
          again: "true",
          made: 201,
          tried: true,
          expiresAt: "2030-01-01T00:00:00.000Z",
          stale: "urn:prism-dns:problem:precondition-failed",
          missing: "urn:prism-dns:problem:host-not-found",
          status: 404
        })
      }).pipe(Effect.provide(server())),
    120_000
  )
})
