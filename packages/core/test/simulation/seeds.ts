/**
 * Many seeds, one after the other or in two threads at once: which of them break
 * a rule, and what came up on the way.
 */
import { isMainThread, parentPort, Worker, workerData } from "node:worker_threads"
import { generate, type Scenario } from "./Scenario.ts"
import { SimulatedDatabase } from "./SimulatedDatabase.ts"
import { run } from "./Simulation.ts"

/** The rules that a scenario breaks. */
export const broken = (scenario: Scenario, database: SimulatedDatabase): ReadonlyArray<string> =>
  run(scenario, database).violations.map(({ detail, rule }) => `${rule}: ${detail}`)

/** What a trace says of things that ought to come up among so many seeds: a simulation in which nothing happens proves nothing. */
export const happenings = [
  "dies, before ",
  "dies, after COMMIT",
  ", by a power cut",
  "dies, after patch ",
  "takes effect, and nobody waits for it",
  "two writes met, and both stand",
  "database is locked",
  "another PowerDNS takes the writes",
  "its names are written anew",
  "a NOTIFY is lost",
  "no answer in time",
  "Bad Request",
  "name parked",
  "(disabled)",
  "something stands below this name",
  "is deleted",
  "the reconciler holds back",
  "deletions wait for a person",
  "a person applies a plan (held-deletions)",
  "a person: adopt",
  "a person: give back",
  "too many hosts vanished at once",
  "is claimed in turn",
  "PowerDNS held something else than it should",
  "the process was paused or the clock jumped",
  "the zone's settings have changed",
  "the registry could not be written",
  // What only protocol 2 and its people do.
  " is given up at ",
  "'s at ",
  " is served",
  "as many hosts as it may have: "
]

export interface Seeds {
  readonly first: number
  readonly last: number
}

export interface Found {
  /** What was broken, with how to see it again. */
  readonly broken: ReadonlyArray<string>
  /** Those of `happenings` that came up. */
  readonly happened: ReadonlyArray<string>
}

const failuresMax = 3

export const tryAll = ({ first, last }: Seeds): Found => {
  const database = new SimulatedDatabase()
  const failures: Array<string> = []
  const happened = new Set<string>()
  for (let seed = first; seed <= last && failures.length < failuresMax; seed++) {
    const { trace, violations } = run(generate(seed), database)
    for (const { detail, rule } of violations) {
      failures.push(`./prism simulate --seed ${seed} --runs 1: ${rule}: ${detail}`)
    }
    if (happened.size === happenings.length) continue
    const text = trace.join("\n")
    for (const happening of happenings)
      if (!happened.has(happening) && text.includes(happening)) happened.add(happening)
  }
  return { broken: failures, happened: [...happened] }
}

/** The same in a thread of its own. */
export const tryAllApart = (seeds: Seeds): Promise<Found> =>
  new Promise((resolve, reject) => {
    const worker = new Worker(new URL(import.meta.url), {
      workerData: seeds,
      execArgv: ["--conditions=@prism-dns/source", "--disable-warning=ExperimentalWarning"]
    })
    worker.once("message", resolve)
    worker.once("error", reject)
  })

if (!isMainThread && parentPort !== null && isSeeds(workerData)) parentPort.postMessage(tryAll(workerData), [])

/** A runner of tests has threads of its own. */
function isSeeds(data: unknown): data is Seeds {
  return typeof data === "object" && data !== null && "first" in data && "last" in data
}
