/**
 * Events of the packaged server, to subscribers that are cut off, that do not
 * read, and that are left alone.
 */
import { assert, describe, it, layer } from "@effect/vitest"
import * as NodeHttpClient from "@effect/platform-node/NodeHttpClient"
import * as Client from "@prism-dns/core/api/Client"
import type { Event } from "@prism-dns/core/api/Events"
import * as EventStream from "@prism-dns/core/events/EventStream"
import { Effect, Redacted, Schedule, Stream } from "effect"
import { Postgres } from "../../core/test/harness/Postgres.ts"
import { waitUntil } from "../../core/test/harness/waitUntil.ts"
import * as Dice from "../../core/test/simulation/Dice.ts"
import * as Agent from "./harness/AgentClient.ts"
import * as CuttingProxy from "./harness/cuttingProxy.ts"
import * as Deployment from "./harness/Deployment.ts"
import * as EventSource from "./harness/eventSource.ts"

const many = { ratePerSecond: 100_000, burst: 100_000 }

const settings = {
  http: { rateLimit: { reads: many, changes: many } },
  auth: {
    mode: "off",
    adminTokens: [{ name: "test", token: Deployment.adminToken }],
    limits: { identity: many, token: many, name: many, network: many }
  }
}

/** A second's changes, in so many bursts, for so many seconds: each is a host that appears, with its two records. */
const changesPerSecond = 200
const burstsPerSecond = 20
const seconds = 6
const cuts = 100
/** Of an answer until it is cut; an event has some hundreds, the answer's head too. */
const bytesMax = 5000
const idle = 20

/** Registers hosts at an even pace. */
const register = (deployment: Effect.Success<ReturnType<typeof Deployment.start>>) => {
  const perBurst = changesPerSecond / burstsPerSecond
  let next = 0
  const burst = Effect.suspend(() => {
    const first = next
    next += perBurst
    return Effect.forEach(
      Array.from({ length: perBurst }, (_, i) => first + i),
      (i) =>
        Agent.register(deployment.tcp(), `h-${i}`, { from: `127.50.${i >> 7}.${1 + (i & 127)}` }).pipe(
          Effect.tap((answer) => Effect.sync(() => assert.strictEqual(answer.status, "success", answer.message)))
        ),
      { concurrency: "unbounded", discard: true }
    )
  })
  return burst.pipe(
    Effect.repeat(Schedule.fixed(1000 / burstsPerSecond).pipe(Schedule.upTo({ times: burstsPerSecond * seconds - 1 })))
  )
}

const scenario = (more: Readonly<Record<string, unknown>> = {}) =>
  Effect.gen(function* () {
    const deployment = yield* Deployment.start({ ...settings, ...more })
    const { url } = deployment.prism.ready().http
    const { hostname, port } = new URL(url)
    const dice = Dice.make("cuts")
    const proxy = yield* CuttingProxy.start(
      { host: hostname, port: Number(port) },
      { cutsMax: cuts, bytes: () => dice.between(1, bytesMax) }
    )
    const token = Redacted.make(Deployment.adminToken)
    const start = yield* EventStream.head(yield* Client.make({ baseUrl: url, token }))

    const cutOff: Array<Event> = []
    let gaps = 0
    const client = yield* Client.make({ baseUrl: proxy.url, token })
    yield* EventStream.make(client, { since: String(start), pauseMin: "5 millis", pauseMax: "50 millis" }).pipe(
      Stream.runForEach((received) =>
        Effect.sync(() => {
          if (received._tag === "Event") cutOff.push(received.event)
          else gaps++
        })
      ),
      Effect.forkScoped
    )
    const undisturbed = yield* EventSource.open(`${url}/v1/events?since=${start}`, { token: Deployment.adminToken })
    for (let i = 0; i < idle; i++) {
      const source = yield* EventSource.open(`${url}/v1/events?since=${start}`, { token: Deployment.adminToken })
      source.pause()
    }

    yield* register(deployment)
    yield* waitUntil(
      "nothing is pending",
      deployment.publications,
      ({ zones }) => zones.every(({ parked, pending }) => pending + parked === 0),
      { within: "30 seconds" }
    )
    // The cuts go on over the events that are there, should they be served faster than they are cut.
    yield* waitUntil("it was cut so often", Effect.sync(proxy.cuts), (seen) => seen === cuts, { within: "30 seconds" })
    // A commit is in the stream some milliseconds later than in the registry: the end is taken once the last host is there.
    const appeared = () => undisturbed.blocks.filter(({ data }) => data.kind === "host.created").length
    yield* waitUntil(
      "every host has appeared in the stream",
      Effect.sync(appeared),
      (count) => count >= changesPerSecond * seconds,
      { within: "30 seconds" }
    )
    const end = yield* EventStream.head(yield* Client.make({ baseUrl: url, token }))
    assert.isAtLeast(end - start, changesPerSecond * seconds)
    for (const [who, seen] of [
      ["who is cut", () => cutOff.length],
      ["who is left alone", () => undisturbed.blocks.length]
    ] as const) {
      yield* waitUntil(`${who} has all`, Effect.sync(seen), (count) => count >= end - start, { within: "30 seconds" })
    }

    // Ids have no gaps, so once and in order is: each is one more than the one before.
    assert.strictEqual(gaps, 0)
    assert.deepStrictEqual(
      cutOff.slice(0, end - start).map(({ id }) => id),
      Array.from({ length: end - start }, (_, i) => start + 1 + i)
    )
    const others = undisturbed.blocks.map(({ data }) => data)
    assert.deepStrictEqual(cutOff.slice(0, end - start), others.slice(0, end - start))
    assert.strictEqual(appeared(), changesPerSecond * seconds)
  }).pipe(Effect.scoped, Effect.provide(NodeHttpClient.layerNodeHttp))

describe("on SQLite", () => {
  it.live(
    "who is cut off a hundred times under load has every event once and in order; who does not read disturbs nobody",
    () => scenario(),
    { timeout: 120_000 }
  )
})

layer(Postgres.layer({ fsync: true }), { timeout: "60 seconds", excludeTestServices: true })("on PostgreSQL", (it) => {
  it.effect(
    "who is cut off a hundred times under load has every event once and in order; who does not read disturbs nobody",
    () =>
      Effect.gen(function* () {
        const database = yield* (yield* Postgres).createDatabase()
        yield* scenario({ storage: { url: database.url } })
      }),
    { timeout: 120_000 }
  )
})
