/**
 * The API under load: one host asked for again and again, beside a bare
 * `node:http` server that answers with the same JSON, in turns within the same
 * seconds; and N hosts registered by one call, until all of them are applied,
 * beside the bare parts of that.
 */
import { Effect } from "effect"
import * as Fs from "node:fs"
import * as Path from "node:path"
import * as Agents from "./Agents.ts"
import * as BareParts from "./BareParts.ts"
import {
  atLeast,
  backendOf,
  below,
  BenchFailed,
  type Benchmark,
  failed,
  figure,
  median,
  type Options
} from "./Benchmark.ts"
import type { Job, Outcome } from "./HttpLoad.ts"
import type * as Resolution from "./Resolution.ts"
import * as Servers from "./Servers.ts"
import { cpuSeconds, message, nodeArguments, progress, spawn, temporaryFolder, timed } from "./Workspace.ts"

const hostsByDefault = 10_000
const secondsByDefault = 3
const connections = 64
/** Each server is asked for so long before the other's turn. */
const turns = 3
const warmMillis = 4000
const shareWanted = 0.5
const batchSecondsWanted = 3
const batchMax = 10_000

const isRecord = (value: unknown): value is Readonly<Record<string, unknown>> =>
  typeof value === "object" && value !== null

/** A process that asks. */
const asker = Effect.fnUntraced(function* (folder: string) {
  const child = yield* spawn(process.execPath, nodeArguments("HttpLoad"), { folder, log: "load.log", channel: true })
  yield* message(child, (value) => (value === "ready" ? true : undefined))
  return (job: Job) =>
    Effect.suspend(() => {
      const answer = message(child, (value) => (isRecord(value) ? value : undefined))
      child.process.send(job)
      return Effect.flatMap(answer, ({ failure, outcome }) =>
        failure === undefined
          ? Effect.succeed(outcome as Outcome)
          : Effect.fail(new BenchFailed({ detail: `the load could not be made: ${JSON.stringify(failure)}` }))
      )
    })
})

const bareHttp = Effect.fnUntraced(function* (folder: string, body: string) {
  Fs.writeFileSync(Path.join(folder, "body.json"), body)
  const child = yield* spawn(process.execPath, [...nodeArguments("BareHttp"), Path.join(folder, "body.json")], {
    folder,
    log: "bare-http.log",
    channel: true
  })
  const port = yield* message(child, (value) =>
    isRecord(value) && "port" in value ? Number(value["port"]) : undefined
  )
  return { port, pid: child.pid }
})

const getText = (server: Servers.Prism, path: string) =>
  Effect.tryPromise({
    try: async () => {
      const response = await fetch(`${server.httpUrl}/v1${path}`, {
        headers: { authorization: `Bearer ${Servers.adminToken}` }
      })
      const text = await response.text()
      if (!response.ok) throw new Error(`${response.status} ${text}`)
      return text
    },
    catch: failed("the API")
  })

const requestOf = (path: string, token?: string) =>
  `GET ${path} HTTP/1.1\r\nhost: 127.0.0.1\r\n${token === undefined ? "" : `authorization: Bearer ${token}\r\n`}\r\n`

const rateOf = ({ millis, requests }: Outcome) => (requests / millis) * 1000

/** Nobody's rates are what is measured. */
const unlimited = {
  http: { port: 0, rateLimit: { reads: { ratePerSecond: 1_000_000, burst: 10_000_000 } } }
}

/** What `effect` gives, and the processor time that a process used meanwhile, in seconds. */
const using = <A, E, R>(pid: number, effect: Effect.Effect<A, E, R>) =>
  Effect.suspend(() => {
    const before = cpuSeconds(pid) ?? Number.NaN
    return Effect.map(effect, (value) => [value, (cpuSeconds(pid) ?? Number.NaN) - before] as const)
  })

const reading = Effect.fnUntraced(function* (folder: string, options: Options) {
  const powerDns = yield* Servers.powerDns(folder, backendOf(options))
  const server = yield* Servers.prism({ folder, powerDns, profile: options.profile, more: unlimited })
  yield* Servers.post(server, "/hosts", {
    hostname: "web-1",
    addresses: ["127.0.0.9"],
    labels: { role: "web", rack: "7" },
    waitFor: "served",
    waitSeconds: 30
  })
  const path = `/v1/hosts/web-1.${Servers.zone}.`
  const body = yield* getText(server, path.slice("/v1".length))
  const yardstick = yield* bareHttp(folder, body)
  const ask = yield* asker(folder)
  const port = Number(new URL(server.httpUrl).port)
  const millis = ((options.seconds ?? secondsByDefault) * 1000) / turns
  const prism: Job = { port, request: requestOf(path, Servers.adminToken), connections, millis }
  // What nothing is shortened for: a query makes it go the long way.
  const long: Job = { ...prism, request: requestOf(`${path}?`, Servers.adminToken) }
  const bare: Job = { port: yardstick.port, request: requestOf(path), connections, millis }
  const jobs = { prism, long, bare }
  // Until their code is compiled, which takes longer the more of it there is.
  for (const job of Object.values(jobs)) yield* ask({ ...job, millis: warmMillis })
  const rounds = yield* Effect.forEach(
    Array.from({ length: options.rounds * turns }),
    Effect.fnUntraced(function* () {
      const [fast, cpu] = yield* using(server.pid, ask(prism))
      const [theirs, bareCpu] = yield* using(yardstick.pid, ask(bare))
      const slow = yield* ask(long)
      for (const { others } of [fast, theirs, slow]) {
        if (others > 0) return yield* new BenchFailed({ detail: `${others} answers were not 200` })
      }
      return { fast, theirs, slow, cpu: cpu / fast.requests, bareCpu: bareCpu / theirs.requests }
    })
  )
  yield* progress(`GET: ${Math.round(median(rounds.map(({ fast }) => rateOf(fast))))} requests a second`)
  return rounds
})

const namesOf = (hosts: number) =>
  Array.from({ length: hosts }, (_, host) => {
    const address = Agents.address(host)
    const fqdn = `${Agents.hostname(host)}.${Servers.zone}`
    const pointer = `${address.split(".").toReversed().join(".")}.in-addr.arpa`
    return {
      item: { op: "register", hostname: Agents.hostname(host), addresses: [address] },
      forward: { name: fqdn, type: "A", data: address } satisfies Resolution.Expectation,
      reverse: { name: pointer, type: "PTR", data: fqdn } satisfies Resolution.Expectation
    }
  })

interface BatchAnswer {
  readonly succeeded: number
  readonly reached?: string
}

const registering = Effect.fnUntraced(function* (folder: string, names: ReturnType<typeof namesOf>, options: Options) {
  const powerDns = yield* Servers.powerDns(folder, backendOf(options))
  const server = yield* Servers.prism({ folder, powerDns, profile: options.profile })
  const cpu = cpuSeconds(server.pid) ?? Number.NaN
  let answers: ReadonlyArray<BatchAnswer> = []
  const calls = Array.from({ length: Math.ceil(names.length / batchMax) }, (_, i) =>
    names.slice(i * batchMax, (i + 1) * batchMax)
  )
  const seconds = yield* timed(
    Effect.map(
      Effect.forEach(calls, (some) =>
        Servers.post<BatchAnswer>(server, "/hosts:batch", {
          items: some.map(({ item }) => item),
          waitFor: "applied",
          waitSeconds: 60
        })
      ),
      (all) => (answers = all)
    )
  )
  const succeeded = answers.reduce((sum, answer) => sum + answer.succeeded, 0)
  if (succeeded !== names.length || answers.some(({ reached }) => reached === "accepted")) {
    return yield* new BenchFailed({ detail: `${succeeded} of ${names.length} hosts were registered and applied` })
  }
  return { seconds, cpu: (cpuSeconds(server.pid) ?? Number.NaN) - cpu, registry: server.registry }
})

const run = Effect.fnUntraced(function* (options: Options) {
  const folder = yield* temporaryFolder
  const sub = (name: string) => {
    const path = Path.join(folder, name)
    Fs.mkdirSync(path, { recursive: true })
    return path
  }
  const reads = yield* Effect.scoped(reading(sub("reads"), options))
  const share = median(reads.map(({ fast, theirs }) => rateOf(fast) / rateOf(theirs)))
  const longShare = median(reads.map(({ slow, theirs }) => rateOf(slow) / rateOf(theirs)))

  const hosts = options.hosts ?? hostsByDefault
  const names = namesOf(hosts)
  const batches = yield* Effect.forEach(
    Array.from({ length: options.rounds }, (_, i) => i + 1),
    Effect.fnUntraced(function* (round) {
      const whole = yield* Effect.scoped(registering(sub(`batch-${round}`), names, options))
      yield* progress(`round ${round} of ${options.rounds}: ${hosts} hosts in one call ${whole.seconds.toFixed(2)} s`)
      const rows = yield* BareParts.insertRows(whole.registry, sub(`rows-${round}`))
      const patches = yield* Effect.scoped(
        Effect.gen(function* () {
          const powerDns = yield* Servers.powerDns(sub(`patches-${round}`), backendOf(options))
          yield* BareParts.createZones(powerDns)
          return yield* timed(
            Effect.andThen(
              BareParts.patch(
                powerDns,
                Servers.zone,
                names.map(({ forward }) => forward)
              ),
              BareParts.patch(
                powerDns,
                Servers.reverseZone,
                names.map(({ reverse }) => reverse)
              )
            )
          )
        })
      )
      return { ...whole, rows, patches }
    })
  )
  const seconds = median(batches.map(({ seconds }) => seconds))
  const overParts = median(batches.map(({ patches, rows, seconds }) => seconds / (rows + patches)))
  return {
    figures: {
      get_prism: figure(
        "1/s",
        reads.map(({ fast }) => rateOf(fast))
      ),
      get_bare: figure(
        "1/s",
        reads.map(({ theirs }) => rateOf(theirs))
      ),
      get_prism_long_way: figure(
        "1/s",
        reads.map(({ slow }) => rateOf(slow))
      ),
      get_prism_cpu: figure(
        "us",
        reads.map(({ cpu }) => cpu * 1e6)
      ),
      get_bare_cpu: figure(
        "us",
        reads.map(({ bareCpu }) => bareCpu * 1e6)
      ),
      get_prism_p50: figure(
        "us",
        reads.map(({ fast }) => fast.p50)
      ),
      get_prism_p99: figure(
        "us",
        reads.map(({ fast }) => fast.p99)
      ),
      get_bare_p99: figure(
        "us",
        reads.map(({ theirs }) => theirs.p99)
      ),
      batch_hosts: figure("1", hosts),
      batch_applied: figure(
        "s",
        batches.map(({ seconds }) => seconds)
      ),
      batch_server_cpu: figure(
        "s",
        batches.map(({ cpu }) => cpu)
      ),
      batch_bare_rows: figure(
        "s",
        batches.map(({ rows }) => rows)
      ),
      batch_bare_patches: figure(
        "s",
        batches.map(({ patches }) => patches)
      )
    },
    ratios: {
      get_prism_over_bare: share,
      get_long_way_over_bare: longShare,
      batch_over_bare_parts: overParts
    },
    targets: {
      get_prism_over_bare: atLeast(shareWanted, share),
      ...(hosts <= batchMax && { batch_applied: below(batchSecondsWanted, seconds) })
    }
  }
})

export const api: Benchmark = {
  name: "api",
  description: `GET of one host beside a bare node:http server, and ${hostsByDefault} hosts registered by one call.`,
  backends: ["sqlite", "lmdb"],
  run
}
