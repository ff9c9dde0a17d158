/** What was answered with success survives whatever dies. */
import { assert, describe, it } from "@effect/vitest"
import { Effect, Exit } from "effect"
import { waitUntil } from "../../core/test/harness/waitUntil.ts"
import * as Agent from "./harness/AgentClient.ts"
import * as Deployment from "./harness/Deployment.ts"

interface HostView {
  readonly fqdn: string
  readonly addresses: ReadonlyArray<string>
}

type Running = Effect.Success<ReturnType<typeof Deployment.start>>

const allHosts = Effect.fnUntraced(function* (deployment: Running) {
  const hosts: Array<HostView> = []
  let cursor = ""
  do {
    const page = (yield* deployment.get(`/v1/hosts?limit=1000${cursor}`)) as {
      readonly items: ReadonlyArray<HostView>
      readonly nextCursor?: string
    }
    hosts.push(...page.items)
    cursor = page.nextCursor === undefined ? "" : `&cursor=${page.nextCursor}`
  } while (cursor !== "")
  return hosts
})

const pending = (deployment: Running) =>
  Effect.map(deployment.publications, ({ zones }) => zones.reduce((sum, zone) => sum + zone.pending + zone.parked, 0))

const pointer = (address: string) => `${address.split(".").toReversed().join(".")}.in-addr.arpa`

/** Every host of the registry is in DNS, forward and reverse, and each name is there once. */
const checkAllServed = Effect.fnUntraced(function* (deployment: Running, within: "5 seconds" | "20 seconds") {
  yield* waitUntil("nothing is pending", pending(deployment), (n) => n === 0, { within })
  const hosts = yield* allHosts(deployment)
  assert.strictEqual(new Set(hosts.map((host) => host.fqdn)).size, hosts.length)
  yield* Effect.forEach(
    hosts,
    Effect.fnUntraced(function* ({ addresses, fqdn }) {
      assert.deepStrictEqual(yield* deployment.dig(fqdn, "A"), [...addresses])
      assert.deepStrictEqual(yield* deployment.dig(pointer(addresses[0]!), "PTR"), [fqdn.slice(0, -1)])
    }),
    { concurrency: 50, discard: true }
  )
  return new Map(hosts.map((host) => [host.fqdn, host.addresses[0]!]))
})

describe("a crash", () => {
  it.live("of the server at any moment of 1,000 registrations loses none that was answered, and doubles none", () =>
    Effect.gen(function* () {
      const deployment = yield* Deployment.start()
      // Moments by the number of answers, so that each falls into another mix of commits and publications.
      for (const [round, killAfter] of [1, 40, 170, 333, 600, 950].entries()) {
        const answered = new Map<string, string>()
        let killing: Promise<unknown> | undefined
        yield* Effect.forEach(
          Array.from({ length: 1000 }, (_, i) => i),
          Effect.fnUntraced(function* (i) {
            if (killing !== undefined) return
            const name = `crash-${round}-${i}`
            const from = `127.0.${50 + round * 8 + (i >> 7)}.${1 + (i & 127)}`
            const answer = yield* Effect.exit(Agent.register(deployment.tcp(), name, { from }))
            if (Exit.isFailure(answer)) return
            assert.strictEqual(answer.value.status, "success")
            answered.set(`${name}.${Deployment.zone}.`, from)
            if (answered.size >= killAfter) killing ??= Effect.runPromise(deployment.prism.kill("SIGKILL"))
          }),
          { concurrency: 100, discard: true }
        )
        yield* Effect.promise(async () => await killing)
        assert.isAtLeast(answered.size, killAfter)
        yield* deployment.prism.restart
        const served = yield* checkAllServed(deployment, "20 seconds")
        for (const [fqdn, address] of answered) assert.strictEqual(served.get(fqdn), address)
      }
    }).pipe(Effect.scoped)
  )

  it.live(
    "of PowerDNS for 60 s delays and loses nothing, and all is right within 5 s of its return",
    () =>
      Effect.gen(function* () {
        const deployment = yield* Deployment.start()
        const { powerdns, publications, tcp } = deployment
        const register = Effect.fnUntraced(function* (i: number, generation: number) {
          const from = `127.0.${100 + generation * 12 + (i >> 7)}.${1 + (i & 127)}`
          const answer = yield* Agent.register(tcp(), `patient-${i}`, { from })
          assert.strictEqual(answer.status, "success")
        })
        yield* Effect.forEach(
          Array.from({ length: 200 }, (_, i) => i),
          (i) => register(i, 0),
          {
            concurrency: 20,
            discard: true
          }
        )
        yield* checkAllServed(deployment, "5 seconds")

        yield* powerdns.stop
        const stoppedMillis = Date.now()
        let next = 0
        while (Date.now() - stoppedMillis < 60_000) {
          // New hosts, and old ones at new addresses.
          yield* Effect.forEach([next, next + 1, next + 2, next + 3, next + 4], (i) => register(i % 1200, 1), {
            concurrency: 5,
            discard: true
          })
          next += 5
          if (next % 50 === 0) {
            const told = yield* publications
            const forward = told.zones.find(({ zone }) => zone === `${Deployment.zone}.`)!
            assert.isAtLeast(forward.pending, 1)
            assert.isDefined(forward.error)
            assert.isDefined(forward.oldest)
            assert.isAbove(told.items.length, 0)
          }
          yield* Effect.sleep("100 millis")
        }
        assert.isAbove(next, 100)

        yield* powerdns.start
        const served = yield* checkAllServed(deployment, "5 seconds")
        assert.strictEqual(served.size, Math.max(200, Math.min(next, 1200)))
        assert.isUndefined((yield* publications).zones.find(({ error }) => error !== undefined))
      }).pipe(Effect.scoped),
    180_000
  )
})
