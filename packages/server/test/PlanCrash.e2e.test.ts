/** A plan is applied while the server is killed: the zone becomes right, and the audit has each change once. */
import { assert, describe, it } from "@effect/vitest"
import { Effect, Redacted } from "effect"
import { DatabaseSync } from "node:sqlite"
import { audit } from "../../core/test/harness/audit.ts"
import { waitUntil } from "../../core/test/harness/waitUntil.ts"
import * as Agent from "./harness/AgentClient.ts"
import * as Deployment from "./harness/Deployment.ts"

const hosts = Array.from({ length: 800 }, (_, i) => i)
const addressOf = (i: number) => `127.70.${i >> 7}.${1 + (i & 127)}`
const nameOf = (i: number) => `p-${i}.${Deployment.zone}`

const rounds = 8

interface PlanBody {
  readonly id: string
  readonly state: string
  readonly counts: { readonly changes: number }
}

describe("a plan that is being applied when the server is killed", () => {
  it.live(
    "leaves the zone right once it is applied to its end, and an audit entry for each change, once",
    () =>
      Effect.gen(function* () {
        const deployment = yield* Deployment.start({
          zones: [{ name: Deployment.zone, repair: false, reconcileInterval: "1h" }]
        })
        const { powerdns, prism } = deployment
        yield* Effect.forEach(hosts, (i) => Agent.register(deployment.tcp(), `p-${i}`, { from: addressOf(i) }), {
          concurrency: 50,
          discard: true
        })
        const untilPublished = waitUntil(
          "nothing is pending",
          deployment.publications,
          ({ zones }) => zones.every(({ parked, pending }) => pending + parked === 0),
          { within: "20 seconds" }
        )
        yield* untilPublished

        const post = (path: string, body: unknown) =>
          Effect.promise(async () => {
            const response = await fetch(`${prism.ready().http.url}${path}`, {
              method: "POST",
              headers: { authorization: `Bearer ${Deployment.adminToken}`, "content-type": "application/json" },
              body: JSON.stringify(body)
            })
            const text = await response.text()
            if (!response.ok) throw new Error(`POST ${path}: ${response.status} ${text}`)
            return JSON.parse(text) as unknown
          })

        /**
         * Somebody edits the zone behind our back: some records are changed, some are gone. Others in each round: names that
         * were being written when the server died are looked after by the publisher itself for a while.
         */
        const spoil = (victims: ReadonlyArray<number>) =>
          Effect.promise(async () => {
            const rrsets = victims.map((i) => {
              const name = `${nameOf(i)}.`
              if (i % 3 === 0) return { name, type: "A", changetype: "DELETE" }
              return { name, type: "A", ttl: 5, changetype: "REPLACE", records: [{ content: "203.0.113.66" }] }
            })
            const response = await fetch(`${powerdns.apiUrl}/api/v1/servers/localhost/zones/${Deployment.zone}.`, {
              method: "PATCH",
              headers: { "x-api-key": Redacted.value(powerdns.apiKey), "content-type": "application/json" },
              body: JSON.stringify({ rrsets })
            })
            assert.strictEqual(response.status, 204, await response.text())
          })
        let killedInTime = 0
        // From before the order is read to after the last write: each round a little later.
        for (let round = 0; round < rounds; round++) {
          const victims = hosts.filter((i) => i % rounds === round)
          yield* spoil(victims)
          const plan = (yield* post(`/v1/zones/${Deployment.zone}/plans`, {})) as PlanBody
          assert.strictEqual(plan.counts.changes, victims.length)
          const answer = yield* Effect.forkChild(Effect.exit(post(`/v1/plans/${plan.id}/apply`, {})))
          yield* Effect.sleep(round * 6)
          if (answer.pollUnsafe() === undefined) killedInTime += 1
          yield* prism.kill("SIGKILL")
          yield* prism.restart

          const after = (yield* deployment.get(`/v1/plans/${plan.id}`)) as PlanBody
          if (after.state === "open") yield* post(`/v1/plans/${plan.id}/apply`, {})
          yield* untilPublished
          yield* Effect.forEach(
            hosts,
            (i) =>
              Effect.map(deployment.dig(nameOf(i), "A"), (data) =>
                assert.deepStrictEqual(data, [addressOf(i)], `${nameOf(i)} in round ${round}`)
              ),
            { concurrency: 50, discard: true }
          )
          const again = (yield* post(`/v1/zones/${Deployment.zone}/plans`, {})) as PlanBody
          assert.strictEqual(again.counts.changes, 0)

          using db = new DatabaseSync(`${prism.folder}/prism.db`, { readOnly: true })
          const entries = db
            .prepare(
              `SELECT subject, COUNT(*) AS entries FROM ${audit} WHERE cause = ? AND action LIKE 'record.%' GROUP BY subject`
            )
            .all(`plan:${plan.id}`)
          assert.strictEqual(entries.length, victims.length)
          for (const { entries: count, subject } of entries) assert.strictEqual(count, 1, String(subject))
        }
        assert.isAtLeast(killedInTime, 1, "no round was killed before its answer")
      }).pipe(Effect.scoped),
    120_000
  )
})
