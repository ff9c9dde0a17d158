/** The packaged server with a replica of its database for reads that may be a little old. */
import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import * as PostgresPair from "../../core/test/harness/PostgresPair.ts"
import { waitUntil } from "../../core/test/harness/waitUntil.ts"
import * as Agent from "./harness/AgentClient.ts"
import * as Deployment from "./harness/Deployment.ts"

const start = Effect.fnUntraced(function* (lagMax: string) {
  const pair = yield* PostgresPair.make()
  const { database, urlOf } = yield* pair.createDatabase()
  const deployment = yield* Deployment.start({
    storage: { url: urlOf(pair.one), replica: { url: urlOf(pair.two), lagMax } }
  })
  const ask = (path: string, options: RequestInit = {}) =>
    Effect.promise(async () => {
      const response = await fetch(`${deployment.prism.ready().http.url}${path}`, {
        ...options,
        headers: { authorization: `Bearer ${Deployment.adminToken}`, ...(options.headers as object) }
      })
      const asOf = response.headers.get("prism-as-of")
      return {
        status: response.status,
        asOf: asOf === null ? undefined : Date.parse(asOf),
        text: await response.text()
      }
    })
  const names = (answer: { readonly text: string }) =>
    (JSON.parse(answer.text) as { items: ReadonlyArray<{ fqdn: string }> }).items.map(({ fqdn }) => fqdn)
  return { ...pair, database, deployment, ask, names }
})

describe("with a replica for reads", () => {
  it.live("lists, history and audit come from it and say as of when; who has written sees what was written", () =>
    Effect.gen(function* () {
      const { ask, database, deployment, names, two } = yield* start("5s")
      assert.strictEqual((yield* Agent.register(deployment.tcp(), "first", { from: "127.51.0.1" })).status, "success")
      const registeredMillis = Date.now()
      const fqdn = `first.${Deployment.zone}.`
      const listed = yield* waitUntil(
        "the replica answers with the host",
        ask("/v1/hosts"),
        (answer) => answer.asOf !== undefined && names(answer).includes(fqdn),
        { within: "20 seconds" }
      )
      assert.isBelow(Math.abs(listed.asOf! - registeredMillis), 20_000)
      for (const path of [
        `/v1/hosts?at=${new Date().toISOString()}`,
        `/v1/hosts/${fqdn}/history`,
        `/v1/diff?from=${new Date(registeredMillis - 60_000).toISOString()}`,
        "/v1/audit"
      ]) {
        const answer = yield* ask(path)
        assert.strictEqual(answer.status, 200, path)
        assert.isDefined(answer.asOf, path)
      }
      // One thing by itself is always as it is now, and so is a list for who asks for it.
      assert.isUndefined((yield* ask(`/v1/hosts/${fqdn}`)).asOf)
      assert.isUndefined((yield* ask("/v1/hosts", { headers: { "cache-control": "no-cache" } })).asOf)

      // The replica stands still: what is written is not there, and who wrote it is not answered from there.
      yield* two.query(database, "SELECT pg_wal_replay_pause()")
      const retired = yield* ask(`/v1/hosts/${fqdn}/retire`, {
        method: "POST",
        headers: { "content-type": "application/json" },
        body: JSON.stringify({ reason: "a test" })
      })
      assert.isBelow(retired.status, 300, retired.text)
      const after = yield* ask("/v1/hosts?state=retired")
      assert.isUndefined(after.asOf)
      assert.deepStrictEqual(names(after), [fqdn])
      yield* two.query(database, "SELECT pg_wal_replay_resume()")
      const later = yield* waitUntil(
        "it answers again, with what was written",
        ask("/v1/hosts?state=retired"),
        ({ asOf }) => asOf !== undefined,
        { within: "20 seconds" }
      )
      assert.deepStrictEqual(names(later), [fqdn])
    }).pipe(Effect.scoped)
  )

  it.live("one that is too far behind, or away, is not asked, and nobody notices", () =>
    Effect.gen(function* () {
      const { ask, database, deployment, names, two } = yield* start("2s")
      const fromReplica = waitUntil("the replica answers", ask("/v1/hosts"), ({ asOf }) => asOf !== undefined, {
        within: "20 seconds"
      })
      yield* fromReplica
      yield* two.query(database, "SELECT pg_wal_replay_pause()")
      assert.strictEqual((yield* Agent.register(deployment.tcp(), "late", { from: "127.51.0.2" })).status, "success")
      const seen = yield* waitUntil("the primary answers", ask("/v1/hosts"), ({ asOf }) => asOf === undefined, {
        within: "20 seconds"
      })
      assert.deepStrictEqual(names(seen), [`late.${Deployment.zone}.`])
      yield* two.query(database, "SELECT pg_wal_replay_resume()")
      yield* fromReplica
      yield* Effect.gen(function* () {
        yield* two.freeze
        assert.strictEqual((yield* ask("/v1/hosts")).status, 200)
        yield* waitUntil("the primary answers", ask("/v1/hosts"), ({ asOf }) => asOf === undefined, {
          within: "20 seconds"
        })
      }).pipe(Effect.scoped)
      yield* fromReplica
      yield* two.kill
      const answers = yield* Effect.all(
        Array.from({ length: 20 }, () => ask("/v1/hosts")),
        { concurrency: 5 }
      )
      assert.deepStrictEqual([...new Set(answers.map(({ status }) => status))], [200])
    }).pipe(Effect.scoped)
  )
})
