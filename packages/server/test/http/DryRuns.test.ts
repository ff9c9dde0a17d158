/** Every change of the contract, tried only: through the real router, against what the database holds. */
import { assert, describe, it } from "@effect/vitest"
import { Api } from "@prism-dns/core/api/Api"
import { Effect, type Schema, SchemaAST } from "effect"
import { SqlClient } from "effect/sql"
import { waitUntil } from "../../../core/test/harness/waitUntil.ts"
import { ask, server } from "./harness.ts"
import { here, type Request, requests, seeded } from "./PermissionFixtures.ts"

/** They are asked with a body, and change nothing. */
const changeNothing: ReadonlyArray<string> = ["access.explainRequest"]

/** A zone of the configuration does not go by the API. */
const problems: Readonly<Record<string, string>> = { "zones.remove": "urn:prism-dns:problem:zone-configured" }

const changes = Object.values(Api.groups).flatMap((group) =>
  Object.values(group.endpoints).flatMap((endpoint) => {
    const name = `${group.identifier}.${endpoint.identifier}`
    const { method, query }: { readonly method: string; readonly query: Schema.Top | undefined } = endpoint
    return ["GET", "HEAD", "OPTIONS"].includes(method) || changeNothing.includes(name) ? [] : [{ name, method, query }]
  })
)

const enough = { ratePerSecond: 1_000_000, burst: 1_000_000 }
const testLayer = server({ rateLimit: { reads: enough, changes: enough, failures: enough } })

const fieldsOf = (query: Schema.Top | undefined): ReadonlyArray<PropertyKey> =>
  query !== undefined && SchemaAST.isObjects(query.ast) ? query.ast.propertySignatures.map(({ name }) => name) : []

/** All that the database holds, by table. */
const everything = Effect.gen(function* () {
  const sql = yield* SqlClient.SqlClient
  const tables = yield* sql<{ readonly name: string }>`
    SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%' ORDER BY name`
  const held: Record<string, string> = {}
  for (const { name } of tables) {
    const rows = yield* sql`SELECT * FROM ${sql(name)}`
    // When something was last used is written from time to time, whoever asks what.
    held[name] = JSON.stringify(rows, (key, value: unknown) =>
      key === "last_used" ? undefined : typeof value === "bigint" ? String(value) : value
    )
  }
  return held
})

/** The same, once nothing is on its way any more. */
const settled = Effect.gen(function* () {
  const sql = yield* SqlClient.SqlClient
  yield* waitUntil(
    "nothing is on its way",
    sql<{ readonly under_way: number | bigint }>`
      SELECT (SELECT COUNT(*) FROM outbox WHERE parked_at IS NULL) + (SELECT COUNT(*) FROM audit_entry) AS under_way`,
    ([row]) => Number(row!.under_way) === 0,
    { within: "30 seconds" }
  )
  let last = yield* everything
  yield* waitUntil(
    "the database is at rest",
    Effect.gen(function* () {
      const before = last
      last = yield* everything
      return JSON.stringify(before) === JSON.stringify(last)
    }),
    (isSame) => isSame,
    { every: "100 millis", within: "30 seconds" }
  )
  return last
})

const tryOut = (method: string, { body, headers, path, zoneFile }: Request) =>
  ask(`${path}${path.includes("?") ? "&" : "?"}dryRun=true`, {
    method,
    body: zoneFile ?? (body === undefined ? null : JSON.stringify(body)),
    headers: {
      ...(body !== undefined && { "content-type": "application/json" }),
      ...(zoneFile !== undefined && { "content-type": "text/dns" }),
      ...headers
    }
  })

describe("dry runs", () => {
  it("every change takes dryRun", () => {
    assert.isAbove(changes.length, 30)
    for (const { name, query } of changes) {
      assert.include(fieldsOf(query), "dryRun", name)
    }
  })

  it.live(
    "every change that is only tried answers as it would, says so, and leaves the database as it was",
    () =>
      Effect.gen(function* () {
        const sql = yield* SqlClient.SqlClient
        yield* seeded
        const wrong: Array<string> = []
        for (const { method, name } of changes) {
          // One that sends what happens would have something to do.
          yield* sql`DELETE FROM webhook`
          const request = yield* requests[name]!(here)
          const before = yield* settled
          const answer = yield* tryOut(method, request)
          const isAsWanted =
            name in problems ? answer.json.type === problems[name] : answer.status < 300 && answer.json.dryRun === true
          if (!isAsWanted) {
            wrong.push(`${name} answers ${answer.status} ${answer.text}`)
          }
          const after = yield* everything
          for (const table of Object.keys(before)) {
            if (before[table] !== after[table]) wrong.push(`${name} changes ${table}`)
          }
        }
        assert.deepStrictEqual(wrong, [])
      }).pipe(Effect.provide(testLayer)),
    120_000
  )
})
