/**
 * `./prism bench --report`: takes benchmarks one after another, each in a
 * process of its own, stores what they gave, and writes the page anew after
 * each, so that what was taken stays taken whatever becomes of the others.
 */
import { Effect, Schema } from "effect"
import * as ChildProcess from "node:child_process"
import * as Fs from "node:fs"
import * as Os from "node:os"
import * as Path from "node:path"
import { BenchFailed } from "./Benchmark.ts"
import * as Report from "./Report.ts"
import { type Reported, reported } from "./Reports.ts"
import { nodeArguments, progress } from "./Workspace.ts"

export interface ReportOptions {
  /** Ids; all when empty. */
  readonly ids: ReadonlyArray<string>
  readonly quick: boolean
  /** Folder of the documentation. */
  readonly docs: string
  /** Writes the page from what is stored, and measures nothing. */
  readonly pageOnly: boolean
}

const Output = Schema.Struct({
  machine: Report.Stored.fields.machine,
  figures: Report.Stored.fields.figures,
  ratios: Report.Stored.fields.ratios,
  targets: Report.Stored.fields.targets
})
const decodeOutput = Schema.decodeUnknownEffect(Schema.fromJsonString(Output))

/** The standard output of one benchmark; what it tells meanwhile goes to our stderr. */
const output = (args: ReadonlyArray<string>): Effect.Effect<string, BenchFailed> =>
  Effect.callback((resume) => {
    const child = ChildProcess.spawn(process.execPath, [...nodeArguments("main"), ...args, "--json"], {
      stdio: ["ignore", "pipe", "inherit"]
    })
    let text = ""
    child.stdout.on("data", (chunk: Buffer) => (text += chunk.toString()))
    child.once("error", (error) => resume(Effect.fail(new BenchFailed({ detail: error.message }))))
    child.once("close", (code) =>
      resume(
        code === 0
          ? Effect.succeed(text)
          : Effect.fail(new BenchFailed({ detail: `${args.join(" ")}: ended with code ${code}` }))
      )
    )
    return Effect.sync(() => void child.kill("SIGINT"))
  })

const take = Effect.fnUntraced(function* ({ args, bench, quick }: Reported, isQuick: boolean) {
  const words = [bench, ...(isQuick ? quick : args)]
  yield* progress(`--- ${words.join(" ")}`)
  const loadBefore = Number((Os.loadavg()[0] ?? 0).toFixed(2))
  const text = yield* output(words)
  const result = yield* decodeOutput(text).pipe(
    Effect.mapError((error) => new BenchFailed({ detail: `${bench}: ${error.message}` }))
  )
  const stored: Report.Stored = {
    bench,
    command: ["./prism bench", ...words].join(" "),
    date: new Date().toISOString().slice(0, 10),
    quick: isQuick,
    loadBefore,
    ...result
  }
  return stored
})

const writePage = (docs: string) =>
  Effect.sync(() => Fs.writeFileSync(Path.join(docs, Report.page), Report.render(Report.read(docs))))

/** Ends with those that could not be carried out; the others are stored. */
export const report = Effect.fnUntraced(function* ({ docs, ids, pageOnly, quick }: ReportOptions) {
  const folder = Path.join(docs, Report.folder)
  Fs.mkdirSync(folder, { recursive: true })
  const failures: Array<string> = []
  for (const each of pageOnly ? [] : reported) {
    if (ids.length > 0 && !ids.includes(each.id)) continue
    const file = Path.join(folder, `${each.id}.json`)
    // What shows only that it runs does not take the place of what says how fast.
    const isKept = quick && Report.read(docs).get(each.id)?.quick === false
    const taken = yield* Effect.result(take(each, quick))
    if (taken._tag === "Failure") {
      failures.push(`${each.id}: ${taken.failure.message}`)
      continue
    }
    if (isKept) yield* progress(`${each.id}: it runs; the stored result is of a full run, and stays`)
    else Fs.writeFileSync(file, Report.encode(taken.success))
    yield* writePage(docs)
  }
  yield* writePage(docs)
  if (failures.length > 0) return yield* new BenchFailed({ detail: failures.join("; ") })
})
