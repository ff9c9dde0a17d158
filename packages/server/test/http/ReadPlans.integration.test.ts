import { PgClient } from "@effect/sql-pg"
import { assert, layer } from "@effect/vitest"
import { scanRowsMax } from "@prism-dns/core/registry/HostLists"
import { Effect, Layer } from "effect"
import { Reactivity } from "effect/reactivity"
import { SqlClient } from "effect/sql"
import type { Connection } from "effect/sql/SqlConnection"
import { Postgres } from "../../../core/test/harness/Postgres.ts"
import * as T from "../../../core/test/layers.ts"
import { fill } from "../../src/bench/history.ts"
import { reads } from "./ReadPlans.ts"

const hosts = 30_000
const versions = 7

/** Tables that grow with the hosts and their past; what is waiting, and guards, identities and tokens, stay few. */
const largeTables = [
  "host",
  "host_address",
  "host_history",
  "host_name",
  "host_name_address",
  "host_name_label",
  "published",
  "audit_log"
]

/** Or partitions of them. */
const isLarge = (relation: string | undefined) =>
  largeTables.some((table) => relation === table || relation?.startsWith(`${table}_`) === true)

/** Names walked, and one row looked up for each; and a page of what somebody may see of names that are passed over. */
const rowsMax = 2 * scanRowsMax.present + 1100

interface PlanNode {
  readonly "Node Type": string
  readonly "Relation Name"?: string
  readonly "Actual Rows": number
  readonly "Actual Loops": number
  readonly "Rows Removed by Filter"?: number
  readonly "Rows Removed by Index Recheck"?: number
  readonly Plans?: ReadonlyArray<PlanNode>
}

const nodes = (node: PlanNode): ReadonlyArray<PlanNode> => [node, ...(node.Plans ?? []).flatMap(nodes)]

const rowsRead = (node: PlanNode): number =>
  node["Relation Name"] === undefined
    ? 0
    : (node["Actual Rows"] + (node["Rows Removed by Filter"] ?? 0) + (node["Rows Removed by Index Recheck"] ?? 0)) *
      node["Actual Loops"]

interface Explained {
  readonly text: string
  readonly plan: PlanNode
}

const literal = (value: unknown): string =>
  typeof value === "number" || typeof value === "bigint"
    ? `${value}`
    : typeof value === "string"
      ? `'${value.replaceAll("'", "''")}'`
      : "NULL"

/** A client that has each SELECT explained as it was done, planned for its values and planned for any, before it is run. */
const explaining = Effect.fnUntraced(function* (pg: SqlClient.SqlClient, explained: Array<Explained>) {
  const wrap = (connection: Connection): Connection =>
    new Proxy(connection, {
      get: (target, key) => {
        const value: unknown = Reflect.get(target, key)
        if (typeof value !== "function") return value
        if (key !== "execute") return value.bind(target) as unknown
        const execute: Connection["execute"] = (text, params, transform) =>
          Effect.gen(function* () {
            if (/^\s*SELECT/.test(text)) {
              const run = (statement: string, values: ReadonlyArray<unknown> = []) =>
                target.executeUnprepared(statement, values, undefined)
              const analyze = "EXPLAIN (ANALYZE, FORMAT JSON)"
              const keep = (rows: ReadonlyArray<any>) =>
                void explained.push({ text, plan: rows[0]["QUERY PLAN"][0].Plan as PlanNode })
              keep(yield* run(`${analyze} ${text}`, params))
              yield* run("SET plan_cache_mode = force_generic_plan")
              yield* run(`PREPARE looked AS ${text}`)
              keep(
                yield* run(
                  `${analyze} EXECUTE looked${params.length === 0 ? "" : `(${params.map(literal).join(", ")})`}`
                )
              )
              yield* run("DEALLOCATE looked")
              yield* run("RESET plan_cache_mode")
            }
            return yield* target.execute(text, params, transform)
          })
        return execute
      }
    })
  return yield* SqlClient.make({
    acquirer: Effect.map(pg.reserve, wrap),
    compiler: PgClient.makeCompiler(),
    driver: "pg",
    spanAttributes: []
  })
})

layer(Postgres.layer(), { timeout: "120 seconds", excludeTestServices: true })("on PostgreSQL", (it) => {
  it.effect(
    "whatever is asked of hosts, of now or of the past, is found by an index, and reads no more rows than it may",
    () =>
      Effect.gen(function* () {
        const server = yield* Postgres
        const { database, url } = yield* server.createDatabase()
        const nowMillis = 1_700_000_000_000
        // A scan of so few rows is cheap where a disk has heads to move; of a million it is not, on any disk.
        yield* server.query("postgres", `ALTER DATABASE ${database} SET random_page_cost = 1.1`)
        yield* Effect.gen(function* () {
          const pg = yield* SqlClient.SqlClient
          yield* server.query(database, fill(hosts, versions, nowMillis))
          const explained: Array<Explained> = []
          const sql = yield* explaining(pg, explained)
          for (const { name, read } of reads(nowMillis)) {
            explained.length = 0
            yield* Effect.provideService(read, SqlClient.SqlClient, sql)
            assert.isAbove(explained.length, 0, name)
            for (const { plan, text } of explained) {
              const all = nodes(plan)
              // A partition that is empty may be scanned.
              const scanned = all.filter(
                (node) => node["Node Type"].includes("Seq Scan") && isLarge(node["Relation Name"]) && rowsRead(node) > 0
              )
              const said = `${name}\n${text}\n${JSON.stringify(plan, undefined, 1)}`
              assert.deepStrictEqual(
                scanned.map((node) => node["Relation Name"]),
                [],
                said
              )
              assert.isAtMost(
                all.reduce((sum, node) => sum + rowsRead(node), 0),
                rowsMax,
                said
              )
            }
          }
        }).pipe(Effect.provide(Layer.merge(T.postgresAt(url), Reactivity.layer)))
      }),
    { timeout: 240_000 }
  )
})
