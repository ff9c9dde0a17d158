/**
 * What the pages tell people to run, run: against a real `prism-dns dev`, page
 * by page and from top to bottom. Addresses in the text are replaced by those
 * of the test.
 */
import { assert, layer } from "@effect/vitest"
import { Context, Effect, Layer } from "effect"
import * as ChildProcess from "node:child_process"
import * as Fs from "node:fs"
import * as Path from "node:path"
import { freePorts } from "../../packages/core/test/harness/ports.ts"
import { temporaryFolder } from "../../packages/core/test/harness/PowerDns.ts"
import * as PrismAgent from "../../packages/client-sdk/test/harness/PrismAgent.ts"
import * as PrismServer from "../../packages/server/test/harness/PrismServer.ts"
import { dialogue, makeProject, promised, provideFiles } from "./examples.ts"
import { type Block, type Page, pages, read, root } from "./markdown.ts"

class Dev extends Context.Service<Dev, PrismServer.PrismServer>()("@prism-dns/docs/test/Dev") {
  static readonly layer = Layer.effect(Dev, PrismServer.dev())
}

/** The text with the addresses of the server that is there. */
const here = (text: string, { dns, http, powerdns, tcp }: ReturnType<PrismServer.PrismServer["ready"]>): string =>
  text
    .replaceAll("-p 5300", `-p ${dns.port}`)
    .replaceAll(/(?:127\.0\.0\.1|prism\.example\.net):8080/g, `${tcp.host}:${tcp.port}`)
    .replaceAll(/port: 8080\b/g, `port: ${tcp.port}`)
    .replaceAll("http://127.0.0.1:8081", http.url)
    .replaceAll("http://127.0.0.1:8053", powerdns.url)

interface Output {
  readonly status: number | null
  readonly stdout: string
  readonly stderr: string
}

/** Runs a program to its end, or until it has said `endAfter`: then it is stopped, which counts as a good end. */
const execute = (
  program: string,
  args: ReadonlyArray<string>,
  options: {
    readonly cwd?: string
    readonly env?: Readonly<Record<string, string>>
    readonly endAfter?: string
  } = {}
) =>
  Effect.callback<Output>((resume) => {
    const { endAfter, ...rest } = options
    let stopped = false
    const child = ChildProcess.execFile(
      program,
      args,
      { ...rest, env: { PATH: process.env["PATH"], ...options.env }, timeout: 20_000 },
      (_, stdout, stderr) => resume(Effect.succeed({ status: stopped ? 0 : child.exitCode, stdout, stderr }))
    )
    let said = ""
    child.stdout?.on("data", (text: string) => {
      said += text
      if (endAfter === undefined || !said.includes(endAfter) || stopped) return
      stopped = true
      child.kill()
    })
  })

/** A process that has a name runs on until it is stopped. */
const staysUp = ({ text }: Block): boolean =>
  /\bregister\(/.test(text) && !/\.(?:release|close)\(|await using/.test(text)

const runProgram = Effect.fnUntraced(function* (block: Block) {
  const ready = (yield* Dev).ready()
  const folder = yield* temporaryFolder("prism-docs-")
  makeProject(Path.join(folder, "project"), { "program.ts": here(block.text, ready) })
  const expected = promised(block).map((line) => `${line}\n`)
  const output = yield* execute(process.execPath, ["--conditions=@prism-dns/source", "program.ts"], {
    cwd: Path.join(folder, "project"),
    env: { PRISM_TOKEN: ready.agentToken ?? "", PDNS_API_KEY: ready.powerdns.apiKey },
    ...(staysUp(block) ? { endAfter: expected.join("") } : {})
  })
  assert.deepStrictEqual(output, { status: 0, stdout: expected.join(""), stderr: "" }, block.place)
}, Effect.scoped)

/** A folder with `prism-dns` and `prism-agent` in it, as where they are installed. */
const installed = Effect.map(temporaryFolder("prism-docs-bin-"), (folder) => {
  const programs = {
    "prism-dns": `'${process.execPath}' '${Path.join(root, "packages/server/dist/prism-dns.js")}'`,
    "prism-agent": PrismAgent.bundle()
      .map((word) => `'${word}'`)
      .join(" ")
  }
  for (const [name, command] of Object.entries(programs)) {
    Fs.writeFileSync(Path.join(folder, name), `#!/bin/sh\nexec ${command} "$@"\n`, { mode: 0o755 })
  }
  return folder
})

const runDialogue = Effect.fnUntraced(function* (block: Block) {
  const ready = (yield* Dev).ready()
  const env = {
    PATH: `${yield* installed}:${process.env["PATH"]}`,
    PRISM_SERVER: ready.http.url,
    PRISM_TOKEN: ready.adminToken ?? "",
    PDNS_API_KEY: ready.powerdns.apiKey,
    PRISM_AGENT_TOKEN: ready.agentToken ?? "",
    PRISM_AGENT_STATE: yield* temporaryFolder("prism-docs-agent-")
  }
  for (const { answer, command } of dialogue(block)) {
    // Without --norc bash takes a start without a terminal for one from the network, and reads the user's own file.
    const { stderr, stdout } = yield* execute("bash", ["--norc", "-c", here(command, ready)], { env })
    assert.strictEqual(`${stdout}${stderr}`.trimEnd(), answer, `${block.place}: ${command}`)
  }
}, Effect.scoped)

/** Everything on a page that runs against a server, in order; gives how many blocks that were. */
const runPage = Effect.fnUntraced(function* (page: Page) {
  let ran = 0
  for (const block of page.blocks) {
    if (block.info === "ts") yield* runProgram(block)
    else if (block.info === "console") yield* runDialogue(block)
    else continue
    ran += 1
  }
  return ran
})

/** The commands of a page's `sh` blocks, word by word; comments are none. */
const commandsOf = (page: Page): ReadonlyArray<ReadonlyArray<string>> =>
  page.blocks
    .filter(({ info }) => info === "sh")
    .flatMap(({ text }) => text.split("\n"))
    .map((line) => line.replace(/ +#.*$/, "").split(/ +/))
    .filter(([program]) => program === "prism-dns")
    .map(([, ...args]) => args)

const options = { excludeTestServices: true }

layer(Dev.layer, options)("on a fresh prism-dns dev", (it) => {
  // First, since it shows what is there before anyone else has registered.
  it.effect("README does what it shows, from top to bottom", () =>
    Effect.gen(function* () {
      const page = read("README.md")
      assert.isTrue(page.blocks.some(({ info }) => info === "console"))
      assert.strictEqual(yield* runPage(page), 2)
    })
  )

  for (const page of pages.filter(({ path }) => path !== "README.md")) {
    if (!page.blocks.some(({ info }) => info === "ts" || info === "console")) continue
    it.effect(`the examples in ${page.path} run, and print what they say`, () =>
      Effect.gen(function* () {
        assert.isAbove(yield* runPage(page), 0)
      })
    )
  }

  for (const path of ["docs/start.md", "packages/server/README.md"]) {
    it.effect(`${path}: a server starts from the file and the commands given there`, () =>
      Effect.gen(function* () {
        const page = read(path)
        const [check, serve] = commandsOf(page)
        assert.deepStrictEqual([check?.slice(0, 2), serve?.slice(0, 1)], [["config", "check"], ["serve"]])
        const { dns, powerdns } = (yield* Dev).ready()
        const folder = yield* temporaryFolder("prism-docs-")
        const [tcp, http] = yield* freePorts(2)
        const yaml = page.blocks.find(({ info }) => info === "yaml")!
        Fs.writeFileSync(
          Path.join(folder, "prism.yaml"),
          provideFiles(yaml.text, folder, { "powerdns-api-key": powerdns.apiKey })
            .replaceAll("http://127.0.0.1:8053", powerdns.url)
            .replaceAll("127.0.0.1:53", `${dns.host}:${dns.port}`)
            .replaceAll("/var/lib/prism", folder)
        )
        const environment = {
          PRISM_TCP_HOST: "127.0.0.1",
          PRISM_TCP_PORT: `${tcp}`,
          PRISM_HTTP_PORT: `${http}`,
          PRISM_SERVER_DRAIN_DELAY: "0s"
        }
        const checked = yield* PrismServer.run(check!, { folder, environment })
        assert.strictEqual(checked.code, 0, checked.stderr)
        const server = yield* PrismServer.start(serve!, { folder, environment })
        assert.include(server.ready().zones, "hosts.example.net.")
        assert.deepStrictEqual(yield* server.kill("SIGTERM"), { code: 0, signal: null })
      })
    )
  }

  it.effect("every flag of `dev` that start.md names is one", () =>
    Effect.gen(function* () {
      const { folder } = yield* Dev
      const help = yield* PrismServer.run(["dev", "--help"], { folder })
      const table = read("docs/start.md").prose.matchAll(/^\| (.*--.*?) \|/gm)
      const flags = Array.from(table, ([, cell]) =>
        Array.from(cell!.matchAll(/--[a-z][a-z-]*/g), ([flag]) => flag)
      ).flat()
      assert.isAbove(flags.length, 5)
      for (const flag of flags) assert.include(help.stdout, `${flag} `)
    })
  )

  it.effect("every metric that it shows is on the page of metrics, with these labels", () =>
    Effect.gen(function* () {
      const { http } = (yield* Dev).ready()
      const text = yield* Effect.promise(async () => (await fetch(`${http.url}/metrics`)).text())
      const rows = new Map(
        Array.from(
          read("docs/reference/metrics.md").prose.matchAll(/^\| `(prism_\w+)` \| (\w+) \| (.*?) \|/gm),
          ([, name, type, labels]) => [name!, { type, labels: labels!.replaceAll(/[`,]/g, "").trim() }]
        )
      )
      const types = Array.from(text.matchAll(/^# TYPE (prism_\w+) (\w+)$/gm))
      assert.isAbove(types.length, 10)
      for (const [, name, type] of types) assert.strictEqual(rows.get(name!)?.type, type, name)
      for (const [, series, shown] of text.matchAll(/^(prism_\w+)\{([^}]*)\}/gm)) {
        const name = rows.has(series!) ? series! : series!.replace(/_(?:bucket|sum|count)$/, "")
        const labels = Array.from(shown!.matchAll(/(\w+)="/g), ([, label]) => label!).filter((label) => label !== "le")
        assert.strictEqual(rows.get(name)?.labels, labels.sort().join(" "), series)
      }
    })
  )
})
