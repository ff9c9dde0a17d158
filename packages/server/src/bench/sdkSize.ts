/**
 * What the SDK costs whoever embeds it: bytes on disk where its tarball is
 * installed alone, packages that come with it, and the time to import it in a
 * fresh process, beside a Node that does nothing.
 */
import { Effect } from "effect"
import * as ChildProcess from "node:child_process"
import * as Fs from "node:fs"
import * as Path from "node:path"
import { promisify } from "node:util"
import { below, type Benchmark, failed, figure, median, type Options } from "./Benchmark.ts"
import { progress, temporaryFolder } from "./Workspace.ts"

const root = Path.resolve(import.meta.dirname, "../../../..")

const execute = promisify(ChildProcess.execFile)

/** Programs that keep what they have compiled would leave it behind, and start the faster the second time. */
const env = { ...process.env, NODE_DISABLE_COMPILE_CACHE: "1" }

const run = (program: string, args: ReadonlyArray<string>, cwd: string) =>
  Effect.tryPromise({
    try: async () => (await execute(program, [...args], { cwd, env, maxBuffer: 1 << 24 })).stdout,
    catch: failed(`${program} ${args.slice(0, 2).join(" ")}`)
  })

/** Fresh processes for each figure and round. */
const processesEach = 11

/** All bytes below a folder, and the packages in it. */
const measureFolder = (folder: string) => {
  const files = Fs.readdirSync(folder, { recursive: true, withFileTypes: true }).filter((entry) => entry.isFile())
  return {
    bytes: files.reduce((sum, entry) => sum + Fs.statSync(Path.join(entry.parentPath, entry.name)).size, 0),
    packages: files.filter(({ name, parentPath }) => name === "package.json" && parentPath.includes("node_modules"))
      .length
  }
}

/** Builds the package, packs it and installs it alone into `folder`. */
const install = Effect.fnUntraced(function* (folder: string) {
  yield* run(Path.join(root, "node_modules/.bin/tsc"), ["-b", "packages/client-sdk"], root)
  for (const script of ["bundle.ts", "bundleSdk.ts"]) {
    yield* run(process.execPath, [Path.join(root, "scripts", script)], root)
  }
  const told = yield* run(
    "npm",
    ["pack", "--json", "--pack-destination", folder],
    Path.join(root, "packages/client-sdk")
  )
  const [{ filename }] = JSON.parse(told) as [{ readonly filename: string }]
  Fs.writeFileSync(Path.join(folder, "package.json"), JSON.stringify({ private: true, type: "module" }))
  const options = ["--offline", "--no-audit", "--no-fund", "--loglevel=error"]
  yield* run("npm", ["install", ...options, Path.join(folder, filename)], folder)
  return {
    tarballBytes: Fs.statSync(Path.join(folder, filename)).size,
    ...measureFolder(Path.join(folder, "node_modules"))
  }
})

/** Seconds of a process from its start to its end, and what it says. */
const timed = Effect.fnUntraced(function* (folder: string, ...args: ReadonlyArray<string>) {
  const start = performance.now()
  const said = yield* run(process.execPath, args, folder)
  return { seconds: (performance.now() - start) / 1000, said }
})

const importing = (entry: string) =>
  `const start = performance.now(); await import(${JSON.stringify(entry)}); console.log((performance.now() - start) / 1000)`

/** The engine is loaded by the first `register`, here by one that is refused for its options. */
const loading = `const start = performance.now()
const { register } = await import("@prism-dns/client-sdk")
await register({ server: "" }).catch(() => undefined)
console.log((performance.now() - start) / 1000)`

const measure = Effect.fnUntraced(function* (options: Options) {
  const folder = yield* temporaryFolder
  const installed = yield* install(folder)
  yield* progress(`installed: ${installed.bytes} bytes in ${installed.packages} package(s)`)
  const rounds = Array.from({ length: options.rounds * processesEach }, (_, i) => i)
  // In turn, so that whatever else this machine does falls on both.
  const times = yield* Effect.forEach(rounds, () =>
    Effect.gen(function* () {
      const bare = yield* timed(folder, "-e", "0")
      const sdk = yield* timed(folder, "--input-type=module", "-e", importing("@prism-dns/client-sdk"))
      const engine = yield* timed(folder, "--input-type=module", "-e", loading)
      const kit = yield* timed(folder, "--input-type=module", "-e", importing("@prism-dns/client-sdk/testing"))
      return {
        bare: bare.seconds,
        sdk: sdk.seconds,
        import: Number(sdk.said),
        engine: Number(engine.said),
        kit: Number(kit.said)
      }
    })
  )
  const over = (f: (time: (typeof times)[number]) => number) => times.map(f)
  const engine = figure(
    "s",
    over((time) => time.engine)
  )
  const imported = figure(
    "s",
    over((time) => time.import)
  )
  return {
    figures: {
      tarball: figure("B", installed.tarballBytes),
      installed: figure("B", installed.bytes),
      packages: figure("1", installed.packages),
      import: imported,
      import_with_engine: engine,
      import_testing: figure(
        "s",
        over(({ kit }) => kit)
      ),
      node_with_import: figure(
        "s",
        over(({ sdk }) => sdk)
      ),
      bare_node: figure(
        "s",
        over(({ bare }) => bare)
      )
    },
    ratios: { with_import_over_bare: median(over(({ bare, sdk }) => sdk / bare)) },
    targets: {
      installed: below(2 * 1024 * 1024, installed.bytes),
      packages: below(2, installed.packages),
      import: below(0.06, imported.value),
      import_with_engine: below(0.06, engine.value)
    }
  }
})

export const sdkSize: Benchmark = {
  name: "sdk-size",
  description: `The SDK installed alone: bytes, packages, and the time to import it in ${processesEach} fresh processes a round.`,
  backends: ["sqlite"],
  run: measure
}
