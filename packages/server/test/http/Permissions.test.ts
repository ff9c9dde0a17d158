/**
 * Every endpoint, for every role, about the zone that the caller is bound to
 * and about another one: through the real router, against the table of
 * `PermissionFixtures`.
 */
import { assert, describe, it } from "@effect/vitest"
import { Api } from "@prism-dns/core/api/Api"
import { Requires } from "@prism-dns/core/api/Authentication"
import { builtInRoles } from "@prism-dns/core/auth/Permissions"
import { type Grant, unlimited } from "@prism-dns/core/auth/Principal"
import { Roles } from "@prism-dns/core/auth/Roles"
import { Tokens } from "@prism-dns/core/auth/Tokens"
import { Context, Effect, Option, Redacted } from "effect"
import { IpNetwork } from "effect/net"
import { HttpAddress } from "../../src/http/HttpAddress.ts"
import { server } from "./harness.ts"
import {
  type Column,
  columns,
  here,
  keeper,
  type Place,
  type Request,
  requests,
  seeded,
  table,
  there
} from "./PermissionFixtures.ts"

const endpoints = Object.values(Api.groups).flatMap((group) =>
  Object.entries(group.endpoints).map(([name, endpoint]) => ({
    name: `${group.identifier}.${name}`,
    method: endpoint.method,
    required: Option.getOrUndefined(Context.getOption(endpoint.annotations, Requires))
  }))
)

const [head, ...rows] = table
  .split("\n")
  .filter((line) => line.trim() !== "")
  .map((line) => line.trim().split(/\s+/))

/** By endpoint, a cell for each role. */
const expected = new Map(rows.map(([name, ...cells]) => [name!, cells]))

const enough = { ratePerSecond: 1_000_000, burst: 1_000_000 }
const testLayer = server({ rateLimit: { reads: enough, changes: enough, failures: enough } })

/** The text of a token with this role. */
const tokenOf = Effect.fnUntraced(function* (column: Column, bound: "bound" | "unbound") {
  const roles = column === "none" ? [] : [column]
  // An agent may claim addresses of its networks, beside the one it speaks from.
  const networks = [IpNetwork.fromStringUnsafe("10.0.0.0/8")]
  const grant: Grant = { ...unlimited, networks, ...(bound === "bound" && { zones: [here.zone] }) }
  const role = column === "agent" ? ("agent" as const) : ("admin" as const)
  const spec = { name: `${column}-${bound}`, role, roles, allows: "bearer" as const, grant }
  const { token } = yield* (yield* Tokens).issue(spec, { name: "ops", peer: undefined }, "x")
  return Redacted.value(token)
})

const send = Effect.fnUntraced(function* (
  method: string,
  { body, headers, isStream = false, path, zoneFile }: Request,
  token: string
) {
  const { url } = yield* HttpAddress
  return yield* Effect.promise(async () => {
    const ending = new AbortController()
    const response = await fetch(`${url}${path}`, {
      method,
      signal: ending.signal,
      headers: {
        authorization: `Bearer ${token}`,
        ...(body !== undefined && { "content-type": "application/json" }),
        ...(zoneFile !== undefined && { "content-type": "text/dns" }),
        ...headers
      },
      ...(body !== undefined && { body: JSON.stringify(body) }),
      ...(zoneFile !== undefined && { body: zoneFile })
    })
    const seen = `${JSON.stringify([...response.headers])} `
    if (!isStream || response.status >= 400) return { status: response.status, seen: seen + (await response.text()) }
    const { value } = (await response.body?.getReader().read()) ?? {}
    ending.abort()
    return { status: response.status, seen: seen + new TextDecoder().decode(value) }
  })
})

const signOf = (status: number): string =>
  status >= 200 && status < 300
    ? "+"
    : status === 403
      ? "x"
      : status === 404
        ? "0"
        : status === 409
          ? "!"
          : `(${status})`

/** What an answer to somebody who may see nothing of the other zone gives away of it. */
const given = (seen: string, asked: Place, sign: string): string | undefined => {
  // A refusal repeats the name that was asked for, and nothing of what is behind it.
  const secrets =
    sign === "+" && asked === here
      ? [there.word, there.zone, there.network]
      : sign === "+"
        ? [`${there.word}-owner`, `${there.word}-role`, `${there.word}-hook`, `${there.network}.`, `${there.word}:`]
        : [`${there.word}-owner`, `${there.network}.`]
  return secrets.find((secret) => seen.includes(secret))
}

describe("permissions over the API", () => {
  it("the table has a line for each endpoint, and there is a request for each", () => {
    assert.deepStrictEqual(head, [...columns])
    for (const { name, required } of endpoints) {
      assert.isDefined(required, `${name} says by Requires what it asks of its caller`)
      assert.property(requests, name, `${name} has a request in PermissionFixtures.ts`)
      assert.isTrue(expected.has(name), `${name} has a line in the table of PermissionFixtures.ts`)
      assert.lengthOf(expected.get(name)!, columns.length, name)
    }
    const known = new Set(endpoints.map(({ name }) => name))
    for (const name of expected.keys()) assert.isTrue(known.has(name), `${name} of the table is an endpoint`)
    assert.includeMembers(
      [...columns],
      builtInRoles.map(({ name }) => name)
    )
  })

  it.live(
    "each endpoint answers each role as the table says, and nothing of another zone shows",
    () =>
      Effect.gen(function* () {
        yield* (yield* Roles).create(keeper, { actor: { name: "ops", peer: undefined }, dryRun: false })
        yield* seeded
        const callers = yield* Effect.forEach(columns, (column) =>
          Effect.all({ bound: tokenOf(column, "bound"), unbound: tokenOf(column, "unbound") })
        )
        const wrong: Array<string> = []
        const found: Array<string> = []
        for (const { method, name } of endpoints) {
          const fixture = requests[name]
          if (fixture === undefined) continue
          const cells: Array<string> = []
          for (const [i, { bound, unbound }] of callers.entries()) {
            const column = columns[i]!
            let cell = ""
            for (const [token, place] of [
              [bound, here],
              [bound, there],
              [unbound, there]
            ] as const) {
              const request = yield* fixture(place)
              const answer = yield* send(method, request, token)
              const { seen } = answer
              const status =
                request.isBatch === true && answer.status < 300
                  ? Number(/"results":\[\{"status":(\d+)/.exec(seen)?.[1])
                  : answer.status
              const sign = signOf(status)
              cell += sign
              const secret = token === bound || column === "keeper" ? given(seen, place, sign) : undefined
              if (secret !== undefined)
                wrong.push(`${name} shows ${column} ${secret} when asked about ${place.word}: ${seen.slice(0, 2000)}`)
            }
            cells.push(cell)
            const wanted = expected.get(name)?.[i]
            if (cell !== wanted) wrong.push(`${name} answers ${column} ${cell}, and the table says ${wanted}`)
          }
          found.push(`${name} ${cells.join(" ")}`)
        }
        assert.deepStrictEqual(wrong, [], found.join("\n"))
      }).pipe(Effect.provide(testLayer)),
    300_000
  )
})
