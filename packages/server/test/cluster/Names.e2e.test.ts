/** A PowerDNS that takes the writes is killed; another takes them, and `served` says who is missing until it is back. */
import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { waitUntil } from "../../../core/test/harness/waitUntil.ts"
import { nowMillis } from "./History.ts"
import * as Trial from "./Trial.ts"

interface Status {
  readonly nodes: ReadonlyArray<{
    readonly name: string
    readonly up: boolean
    readonly unserved: number
    /** Takes the writes, or, of several databases, takes them first. */
    readonly writes?: boolean
  }>
}

describe("the PowerDNS that is written", () => {
  it.live(
    "is killed: another is written, what is missing is named, and it catches up when it is back",
    () =>
      Effect.gen(function* () {
        const trial = yield* Trial.begin({ servers: 2 })
        const { cluster, load } = trial
        yield* Trial.steady()
        const status = Effect.map(cluster.get("/v1/status"), (status) => status as Status)
        const writing = Effect.map(status, ({ nodes }) => nodes.find(({ writes }) => writes === true)?.name)
        const writer = (yield* writing)!
        const dead = cluster.names.find(({ name }) => name === writer)!
        yield* dead.kill
        const since = nowMillis()
        yield* waitUntil("another takes the writes", writing, (name) => name !== undefined && name !== writer, {
          within: "60 seconds"
        })
        // One that has a database of its own was written before too, as a copy.
        const from = Trial.databases === "own" ? nowMillis() : since
        const first = yield* waitUntil(
          "another is written",
          Effect.sync(() =>
            cluster.writes.find(
              ({ fromMillis, node, status }) => node !== writer && fromMillis > from && status === 204
            )
          ),
          (write) => write !== undefined,
          { within: "60 seconds" }
        )
        Trial.say(
          `${writer} killed: ${first!.node} is written after ${((first!.fromMillis - since) / 1000).toFixed(2)} s`
        )
        yield* Trial.steady()
        // Nobody is told that all name servers answer with what was changed while one of them is dead. A host that was
        // released before its name was published has nothing there, and is told so.
        const { requests } = load.history
        const isFollowed = ({ host }: (typeof requests)[number], askedMillis: number, untilMillis: number) =>
          requests.some(
            (each) => each.host === host && each.askedMillis > askedMillis && each.askedMillis < untilMillis
          )
        const served = requests.filter((request) => {
          const changed = request.told.find(({ level, outcome }) => level === "accepted" && outcome !== "renewed")
          const answers = request.told.find(({ level }) => level === "served")
          if (changed === undefined || answers === undefined || changed.atMillis <= since) return false
          return !isFollowed(request, request.askedMillis, answers.atMillis)
        })
        const ofHosts = requests.filter(({ host }) => served.some((each) => each.host === host))
        assert.strictEqual(served.length, 0, JSON.stringify({ since, served, ofHosts }, undefined, 1))
        const { nodes } = yield* status
        for (const { name, unserved, up } of nodes) {
          assert.strictEqual(up, name !== writer, name)
          if (name === writer) assert.isAbove(unserved, 0)
        }
        yield* dead.start
        yield* Trial.steady()
        yield* Trial.judge(trial)
      }).pipe(Effect.scoped),
    300_000
  )
})
