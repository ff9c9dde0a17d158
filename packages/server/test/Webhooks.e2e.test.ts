/** Webhooks of the packaged server that is killed while it delivers. */
import { assert, describe, it, layer } from "@effect/vitest"
import { Effect } from "effect"
import { Postgres } from "../../core/test/harness/Postgres.ts"
import { waitUntil } from "../../core/test/harness/waitUntil.ts"
import * as Agent from "./harness/AgentClient.ts"
import * as Deployment from "./harness/Deployment.ts"
import * as Receiver from "./harness/webhookReceiver.ts"

const hosts = 60

const nameOf = (body: { readonly data: { readonly subject: string } }): string => body.data.subject.split(".")[0]!

const settings = {
  auth: { mode: "off", adminTokens: [{ name: "test", token: Deployment.adminToken }] },
  events: { webhooks: { networks: ["127.0.0.1/32"], timeout: "1s", retryMin: "50ms", retryMax: "200ms" } }
}

const scenario = (more: Readonly<Record<string, unknown>> = {}) =>
  Effect.gen(function* () {
    const deployment = yield* Deployment.start({ ...settings, ...more })
    const receiver = yield* Receiver.start
    const made = yield* Effect.promise(async () => {
      const response = await fetch(`${deployment.prism.ready().http.url}/v1/webhooks`, {
        method: "POST",
        headers: { authorization: `Bearer ${Deployment.adminToken}`, "content-type": "application/json" },
        body: JSON.stringify({ name: "cmdb", url: receiver.url, kinds: ["host.created"], reason: "a test" })
      })
      return (await response.json()) as { readonly secret: string }
    })
    /** Which messages have no answer when they come for the first time: then the server is killed. */
    const held = new Set(["h-20", "h-40"])
    let isHeld = false
    receiver.answer = ({ body }, nth) => {
      if (held.delete(nameOf(body))) {
        isHeld = true
        return "hang"
      }
      return nth % 3 === 2 ? 500 : 200
    }
    for (let i = 0; i < hosts; i++) {
      const answer = yield* Agent.register(deployment.tcp(), `h-${i}`, { from: `127.51.0.${1 + i}` })
      assert.strictEqual(answer.status, "success", answer.message)
      if (!isHeld) continue
      yield* deployment.prism.kill("SIGKILL")
      isHeld = false
      yield* deployment.prism.restart
    }
    yield* Effect.gen(function* () {
      yield* waitUntil(
        "one is under way",
        Effect.sync(() => isHeld || held.size === 0),
        (seen) => seen
      )
      if (!isHeld) return
      yield* deployment.prism.kill("SIGKILL")
      isHeld = false
      yield* deployment.prism.restart
    }).pipe(Effect.repeat({ until: () => held.size === 0 && !isHeld }))
    const names = () => receiver.taken().map(({ body }) => nameOf(body))
    const all = Array.from({ length: hosts }, (_, i) => `h-${i}`)
    yield* waitUntil("all have arrived", Effect.sync(names), (seen) => seen.length >= hosts, { within: "40 seconds" })
    assert.deepStrictEqual(names(), all)
    assert.isTrue(receiver.received.every((received) => Receiver.isSignedBy(made.secret, received)))
    // What was under way when the server was killed came again, by the same id.
    for (const name of ["h-20", "h-40"]) {
      const ids = receiver.received
        .filter(({ body }) => nameOf(body) === name)
        .map(({ headers }) => headers["webhook-id"])
      assert.isAtLeast(ids.length, 2)
      assert.strictEqual(new Set(ids).size, 1)
    }
  }).pipe(Effect.scoped)

describe("on SQLite", () => {
  it.live(
    "a webhook gets every event in order and signed, though the server is killed while it delivers",
    () => scenario(),
    { timeout: 120_000 }
  )
})

layer(Postgres.layer({ fsync: true }), { timeout: "60 seconds", excludeTestServices: true })("on PostgreSQL", (it) => {
  it.effect(
    "a webhook gets every event in order and signed, though the server is killed while it delivers",
    () =>
      Effect.gen(function* () {
        const database = yield* (yield* Postgres).createDatabase()
        yield* scenario({ storage: { url: database.url } })
      }),
    { timeout: 120_000 }
  )
})
