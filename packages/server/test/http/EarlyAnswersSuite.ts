/** What a host that is asked for by its name is answered, wherever the registry is kept. */
import { assert, type Vitest } from "@effect/vitest"
import { Tokens } from "@prism-dns/core/auth/Tokens"
import * as DomainName from "@prism-dns/core/domain/DomainName"
import * as IpAddress from "@prism-dns/core/domain/IpAddress"
import { Leases } from "@prism-dns/core/registry/Leases"
import { Registry } from "@prism-dns/core/registry/Registry"
import { Effect, type Layer, Option, Redacted } from "effect"
import { SqlClient } from "effect/sql"
import { waitUntil } from "../../../core/test/harness/waitUntil.ts"
import { HttpAddress } from "../../src/http/HttpAddress.ts"
import { agentToken, type Answer, ask, otherZone, register, server, zone } from "./harness.ts"

export const short = (name: string, init: Parameters<typeof ask>[1] = {}) => ask(`/v1/hosts/${name}`, init)
/** The same, the long way: a query, be it an empty one, is nothing for the short one. */
export const long = (name: string, init: Parameters<typeof ask>[1] = {}) => ask(`/v1/hosts/${name}?`, init)

/** Without what differs from request to request. */
const headersOf = ({ headers }: Answer) => {
  const rest = Object.fromEntries(headers.entries())
  for (const name of ["x-request-id", "date", "ratelimit"]) {
    assert.isString(rest[name], name)
    delete rest[name]
  }
  return rest
}

export const applied = (name: string) =>
  waitUntil(
    "the host is applied",
    long(name),
    (answer) => answer.status === 200 && answer.json.publication.level !== "accepted"
  )

/** How many requests were answered by what was kept. */
export const answeredFromMemory = Effect.gen(function* () {
  const { url } = yield* HttpAddress
  const text = yield* Effect.promise(async () => (await fetch(`${url}/metrics`)).text())
  return Number(/^prism_host_reads_total\{from="kept"\} (\d+)$/m.exec(text)?.[1])
})

type Services = Layer.Success<ReturnType<typeof server>>

export const suite = (it: Vitest.MethodsNonLive<Services>) => {
  it.effect("is answered as by the long way, header for header, known answers and names without their dot too", () =>
    Effect.gen(function* () {
      const { fqdn } = yield* register("same", "192.0.2.1", zone, { labels: { rack: "7" }, ttlSeconds: 90 })
      yield* applied(fqdn)
      for (const name of [fqdn, fqdn.slice(0, -1), fqdn.toUpperCase()]) {
        const [first, second, whole] = [yield* short(name), yield* short(name), yield* long(name)]
        assert.strictEqual(whole.status, 200)
        for (const answer of [first, second]) {
          assert.strictEqual(answer.status, 200)
          assert.strictEqual(answer.text, whole.text)
          assert.deepStrictEqual(headersOf(answer), headersOf(whole))
        }
        const headers = { "if-none-match": whole.headers.get("etag")! }
        const [known, knownLong] = [yield* short(name, { headers }), yield* long(name, { headers })]
        assert.deepStrictEqual([known.status, known.text, knownLong.status], [304, "", 304])
        assert.deepStrictEqual(headersOf(known), headersOf(knownLong))
      }
      const given = yield* short(fqdn, { headers: { "x-request-id": "deploy-42" } })
      assert.strictEqual(given.headers.get("x-request-id"), "deploy-42")
    })
  )

  it.effect("is counted, and takes from the rate of its caller, whichever way it goes", () =>
    Effect.gen(function* () {
      const { fqdn } = yield* register("counted", "192.0.2.2")
      yield* applied(fqdn)
      const { url } = yield* HttpAddress
      const count = Effect.promise(async () => {
        const text = await (await fetch(`${url}/metrics`)).text()
        // One line for each method.
        const counted = text.matchAll(
          /^prism_http_request_duration_seconds_count\{.*route="\/v1\/hosts\/:host".*status="200".*\} (\d+)$/gm
        )
        return counted.reduce((sum, [, requests]) => sum + Number(requests), 0)
      })
      const before = yield* count
      const keptBefore = yield* answeredFromMemory
      const left = (answer: Answer) => Number(/r=(\d+)/.exec(answer.headers.get("ratelimit")!)?.[1])
      let asked = 0
      const ask = (how: typeof short) => Effect.tap(how(fqdn), () => Effect.sync(() => void (asked += 1)))
      const first = left(yield* ask(short))
      // What another transaction of the moment has made old is read once more.
      yield* waitUntil(
        "one is answered from memory",
        Effect.andThen(ask(short), answeredFromMemory),
        (kept) => kept > keptBefore
      )
      const last = left(yield* ask(long))
      assert.isBelow(last, first + 1)
      assert.strictEqual((yield* count) - before, asked)
    })
  )

  it.effect(
    "is refused as by the long way: without a good token, from the moment it is revoked, beyond its grant",
    () =>
      Effect.gen(function* () {
        const tokens = yield* Tokens
        const { fqdn } = yield* register("secret", "192.0.2.3")
        yield* applied(fqdn)
        const ops = { name: "ops", peer: undefined }
        const grant = { zones: undefined, names: undefined, networks: [], namesMax: undefined }
        const issue = (name: string, zones: ReadonlyArray<DomainName.DomainName> | undefined) =>
          tokens.issue({ name, role: "admin", allows: "bearer", grant: { ...grant, zones } }, ops, "test")
        const { token } = yield* issue("short-lived", undefined)
        const text = Redacted.value(token)
        assert.strictEqual((yield* short(fqdn, { token: text })).status, 200)
        yield* tokens.revoke("short-lived", ops, "test")
        for (const bad of [text, "guess", ""]) {
          const [answer, whole] = [yield* short(fqdn, { token: bad }), yield* long(fqdn, { token: bad })]
          assert.deepStrictEqual([answer.status, answer.json.detail], [401, whole.json.detail])
        }
        const elsewhere = Redacted.value((yield* issue("elsewhere", [otherZone])).token)
        assert.strictEqual((yield* short(fqdn, { token: elsewhere })).status, 404)
        assert.strictEqual((yield* short(fqdn, { token: Redacted.value(agentToken) })).status, 200)
        assert.strictEqual((yield* short(`none.${zone}`)).status, 404)
      })
  )

  it.effect("is never older than what was committed, whatever is done to it and in whatever order", () =>
    Effect.gen(function* () {
      const registry = yield* Registry
      const leases = yield* Leases
      const sql = yield* SqlClient.SqlClient
      const names = ["a", "b", "c"].map((label) => `walk-${label}.${zone}`)
      for (const [i, name] of names.entries()) {
        yield* register(name.slice(0, name.indexOf(".")), `192.0.2.${100 + i}`)
        yield* applied(name)
      }
      let seed = 42
      const random = (below: number) => {
        seed = (seed * 1_103_515_245 + 12_345) % 2_147_483_648
        return Math.floor((seed / 2_147_483_648) * below)
      }
      const ops = { name: "ops", peer: undefined }
      const steps: ReadonlyArray<(name: string) => Effect.Effect<unknown, unknown>> = [
        (name) =>
          register(name.slice(0, name.indexOf(".")), `192.0.2.${100 + random(100)}`).pipe(
            Effect.provideService(Registry, registry)
          ),
        (name) =>
          registry.change({
            event: "changed",
            fqdn: DomainName.make(name),
            actor: ops,
            edit: () => ({ labels: { n: String(random(1000)) } })
          }),
        (name) =>
          registry.change({
            event: "changed",
            fqdn: DomainName.make(name),
            actor: ops,
            edit: () => ({ addresses: [IpAddress.make(`192.0.2.${100 + random(100)}`)] })
          }),
        (name) => Effect.ignore(registry.retire(DomainName.make(name), ops, "test")),
        // When it was seen last is flushed beside everything else.
        (name) => sql`UPDATE host SET last_seen = last_seen + 1 WHERE fqdn = ${name}`,
        (name) => sql`UPDATE published SET served_at = ${random(1_000_000)} WHERE name = ${name}`,
        () => Effect.sync(() => leases.size()),
        () => Effect.void
      ]
      let shortened = 0
      for (let step = 0; step < 150; step++) {
        const name = names[random(names.length)]!
        yield* Effect.orDie(steps[random(steps.length)]!(name) as Effect.Effect<unknown, Error>)
        // What is published meanwhile, in several steps perhaps, may come between two questions.
        const asked = Effect.all({ before: long(name), answer: short(name), after: long(name) })
        const { after, answer } = yield* waitUntil(
          "nothing changes between three questions",
          asked,
          ({ after, before }) => after.text === before.text
        )
        assert.strictEqual(answer.text, after.text, `step ${step}`)
        const host = Option.getOrThrow(yield* registry.findByName(DomainName.make(name)))
        assert.strictEqual(answer.json.generation, host.generation)
        if (answer.json.publication.level !== "accepted") shortened += 1
      }
      assert.isAbove(shortened, 20)
    })
  )
}
