/**
 * Cases by a seed, in the process and through sockets, and whether anything
 * grew by them.
 *
 * A case has a name, `SUBJECT/NUMBER`; by seed and name it is the same on every
 * machine. What is measured after a tenth of the cases is what has to be there
 * at the end: heap within `growthBytesMax`, no handle more.
 */
import { Effect } from "effect"
import * as Fs from "node:fs"
import { setFlagsFromString } from "node:v8"
import { runInNewContext } from "node:vm"
import * as Dice from "../../../core/test/simulation/Dice.ts"
import { authority } from "../harness/certificates.ts"
import { subjects } from "./InProcess.ts"
import * as Sockets from "./Sockets.ts"

/** More than the noise of a collector that decides for itself; a leak of 100 bytes a case would be ten times that. */
export const growthBytesMax = 12 * 1024 * 1024

export interface Options {
  readonly seed: string
  /** In the process. */
  readonly cases: number
  /** Through sockets. */
  readonly socketCases: number
  readonly say?: (line: string) => void
}

export interface Report {
  readonly cases: number
  readonly socketCases: number
  readonly casesPerSecond: number
  readonly socketCasesPerSecond: number
  /** After a tenth of the cases, and at the end. */
  readonly heapBytes: readonly [number, number]
  readonly handles: readonly [number, number]
  /** Empty when all is well. */
  readonly failures: ReadonlyArray<string>
}

const collect = (() => {
  setFlagsFromString("--expose-gc")
  return runInNewContext("gc") as () => void
})()

const heapBytes = Effect.promise(async () => {
  for (let i = 0; i < 3; i++) {
    collect()
    await new Promise((resolve) => setImmediate(resolve))
  }
  return process.memoryUsage().heapUsed
})

/** Sockets and servers; timers come and go. */
const handles = () => process.getActiveResourcesInfo().filter((name) => /TCP|Pipe/.test(name)).length

const derOf = (path: string): Uint8Array =>
  Buffer.from(Fs.readFileSync(path, "latin1").replace(/-----[^-]+-----/g, ""), "base64")

/** How many failures are told. */
const failuresMax = 5

/** In the process: cases from a share of all to another. */
const runInProcess = (seed: string, all: ReturnType<typeof subjects>, cases: number, from: number, to: number) =>
  Effect.gen(function* () {
    const failures: Array<string> = []
    for (const [name, share, subject] of all) {
      const count = Math.round(cases * share)
      for (let i = Math.floor(count * from); i < Math.floor(count * to) && failures.length < failuresMax; i++) {
        try {
          subject(Dice.make(`${seed}/${name}/${i}`))
        } catch (error) {
          failures.push(`${name}/${i}: ${error instanceof Error ? (error.stack ?? error.message) : String(error)}`)
        }
        // Others have to run too.
        if (i % 2000 === 0) yield* Effect.yieldNow
      }
    }
    return failures
  })

/** One case of the process again; throws as it did. */
export const again = (seed: string, name: string) =>
  Effect.gen(function* () {
    const ca = yield* authority()
    const [subject = ""] = name.split("/")
    const found = subjects([derOf(ca.certificate), derOf(ca.list())]).find(([each]) => each === subject)
    if (found === undefined) return yield* Effect.die(new Error(`there is no subject ${subject}`))
    found[2](Dice.make(`${seed}/${name}`))
  }).pipe(Effect.scoped)

export const run = (options: Options) =>
  Effect.gen(function* () {
    const { cases, seed, socketCases } = options
    const say = options.say ?? (() => undefined)
    const ca = yield* authority()
    const pair = ca.issue("prism", { alternativeNames: "DNS:prism.test" })
    const all = subjects([derOf(ca.certificate), derOf(pair.certificate), derOf(ca.list())])
    const hello = yield* Sockets.captureHello

    return yield* Effect.gen(function* () {
      const seconds = { inProcess: 0, sockets: 0 }
      const failures: Array<string> = []
      const part = Effect.fnUntraced(function* (from: number, to: number) {
        let startMillis = performance.now()
        failures.push(...(yield* runInProcess(seed, all, cases, from, to)))
        seconds.inProcess += (performance.now() - startMillis) / 1000
        say(`in the process: ${Math.floor(cases * to)} of ${cases} cases`)
        startMillis = performance.now()
        yield* Sockets.run({
          seed,
          ca,
          hello,
          from: Math.floor(socketCases * from),
          to: Math.floor(socketCases * to)
        })
        seconds.sockets += (performance.now() - startMillis) / 1000
        say(`through sockets: ${Math.floor(socketCases * to)} of ${socketCases} cases`)
      })
      yield* part(0, 0.1)
      const before = [yield* heapBytes, handles()] as const
      for (let tenth = 1; tenth < 10; tenth++) yield* part(tenth / 10, (tenth + 1) / 10)
      const after = [yield* heapBytes, handles()] as const
      if (after[0] - before[0] > growthBytesMax) failures.push(`the heap has grown by ${after[0] - before[0]} bytes`)
      if (after[1] > before[1]) failures.push(`there are ${after[1]} handles where there were ${before[1]}`)
      return {
        cases,
        socketCases,
        casesPerSecond: cases / seconds.inProcess,
        socketCasesPerSecond: socketCases / seconds.sockets,
        heapBytes: [before[0], after[0]],
        handles: [before[1], after[1]],
        failures
      } satisfies Report
    }).pipe(Effect.provide(Sockets.layerOf(ca, pair)))
  }).pipe(Effect.scoped)
