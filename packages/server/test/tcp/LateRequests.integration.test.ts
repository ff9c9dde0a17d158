/**
 * Requests of agents that come to be carried out over something newer, which was
 * registered elsewhere since they were asked: they undo nothing of it.
 */
import { assert, layer } from "@effect/vitest"
import * as DomainName from "@prism-dns/core/domain/DomainName"
import * as HostRepo from "@prism-dns/core/registry/HostRepo"
import { Registry } from "@prism-dns/core/registry/Registry"
import { Effect, Layer, Option, Result } from "effect"
import { SqlClient } from "effect/sql"
import { meet } from "../../../core/test/harness/meet.ts"
import { Postgres } from "../../../core/test/harness/Postgres.ts"
import * as PostgresUrl from "../../src/database/PostgresUrl.ts"
import * as AgentV2 from "../harness/AgentV2.ts"
import { address, server, zone } from "./layers.ts"

const fqdn = DomainName.make(`late.${zone}`)

const onPostgres = Layer.unwrap(
  Effect.gen(function* () {
    const { url } = yield* (yield* Postgres).createDatabase()
    const database = { url: Result.getOrThrow(PostgresUrl.parse(url)), connectionsMax: 4 }
    return Layer.fresh(server({}, "open", undefined, { database }))
  })
)

layer(Postgres.layer(), { timeout: "60 seconds", excludeTestServices: true })("on PostgreSQL", (it) => {
  it.effect.each([
    { type: "release", host: fqdn },
    { type: "update", host: fqdn, ttlSeconds: 90 }
  ])("a $type that waited for a host that another server has changed meanwhile is to be asked again", (request) =>
    Effect.gen(function* () {
      const sql = yield* SqlClient.SqlClient
      const registry = yield* Registry
      const agent = yield* AgentV2.connect(yield* address)
      yield* agent.hello({ method: "anonymous" })
      yield* agent.register("late", { addresses: ["127.0.0.1"] })
      const [answer] = yield* meet(
        HostRepo.make(sql).lockByName([fqdn]),
        Effect.suspend(() => {
          agent.send({ ...request, id: 70 })
          return agent.receive()
        }),
        // What another server has written by then: it has the host in its hands, and its agent at its door.
        sql`UPDATE host SET generation = generation + 1000, labels = '{"rack":"7"}'`
      )
      assert.deepInclude(answer, { type: "error", id: 70, code: "unavailable", retryable: true })
      const host = Option.getOrThrow(yield* registry.findByName(fqdn))
      assert.deepInclude(host, { state: "online", labels: { rack: "7" }, ttlSeconds: undefined })
      // Whoever still wants it then asks for it as the host is now.
      agent.send({ ...request, id: 71 })
      const [again] = yield* agent.receive()
      assert.deepInclude(again, { type: "ack", id: 71, level: "accepted" }, JSON.stringify(again))
      const after = Option.getOrThrow(yield* registry.findByName(fqdn))
      assert.deepStrictEqual(
        request.type === "release" ? after.state : [after.labels, after.ttlSeconds],
        request.type === "release" ? "retired" : [{ rack: "7" }, 90]
      )
    }).pipe(Effect.scoped, Effect.provide(onPostgres))
  )
})
