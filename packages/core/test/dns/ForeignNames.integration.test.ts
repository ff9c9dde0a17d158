/** What whoever takes over a zone asks a real PowerDNS before the first write. */
import { assert, describe, it } from "@effect/vitest"
import { Effect, Layer } from "effect"
import { FetchHttpClient, HttpClient } from "effect/http"
import { DnsManager } from "@prism-dns/core/dns/DnsManager"
import { Outbox } from "@prism-dns/core/dns/Outbox"
import type { DomainName } from "@prism-dns/core/domain/DomainName"
import * as RRset from "@prism-dns/core/domain/RRset"
import { PowerDnsClient } from "@prism-dns/core/powerdns/PowerDnsClient"
import { Registry } from "@prism-dns/core/registry/Registry"
import * as LargeZone from "../harness/largeZone.ts"
import * as PowerDns from "../harness/PowerDns.ts"
import { waitUntil } from "../harness/waitUntil.ts"
import * as T from "../layers.ts"

const zone = T.forward
const hosts = Array.from({ length: 20 }, (_, i) => `new-${i}`)
const address = (i: number) => `198.51.100.${i + 1}`

/** A client that notes each request, as `METHOD PATH`, in `requests`. */
const recording = (requests: Array<string>) =>
  Layer.unwrap(
    Effect.map(PowerDns.TestPowerDns, ({ apiKey, apiUrl }) =>
      PowerDnsClient.layer({ node: "test", url: apiUrl, apiKey }).pipe(
        Layer.provide(
          Layer.effect(
            HttpClient.HttpClient,
            Effect.map(
              HttpClient.HttpClient,
              HttpClient.tapRequest(({ method, url }) =>
                Effect.sync(() => void requests.push(`${method} ${url.slice(apiUrl.length)}`))
              )
            )
          ).pipe(Layer.provide(FetchHttpClient.layer))
        )
      )
    )
  )

/**
 * A zone of `count` names that a server has written, with 20 new ones that it has left to the next, of which one is somebody
 * else's in PowerDNS, and six that it may have written late; gives what the next server asked until it wrote.
 */
const takenOver = Effect.fnUntraced(function* (count: number, requests: Array<string>) {
  const client = yield* PowerDnsClient
  yield* client.createZone({ name: zone.name, kind: "Native", nameservers: [T.nameOf("ns1")] })
  const put = (rrsets: ReadonlyArray<RRset.RRset>) =>
    client.patch(
      zone.name,
      rrsets.map((rrset) => ({ _tag: "Replace", rrset }))
    )
  for (let from = 0; from < count; from += 1000) {
    const length = Math.min(1000, count - from)
    yield* put(
      Array.from({ length }, (_, i) =>
        RRset.make(LargeZone.nth(zone, from + i), "A", zone.policy.ttlSeconds, [LargeZone.addressOf(from + i)])
      )
    )
  }
  yield* LargeZone.register(zone, count)
  yield* put([RRset.make(T.nameOf("new-7"), "A", 300, ["203.0.113.7"])])
  const inDoubt = Array.from({ length: 6 }, (_, i) => LargeZone.nth(zone, i))
  yield* Effect.gen(function* () {
    const registry = yield* Registry
    yield* Effect.forEach(hosts, (host, i) => registry.register(T.registration(host, address(i))))
    yield* (yield* Outbox).recheck(zone.name, inDoubt, 1, "doubt")
  }).pipe(Effect.provide(Layer.fresh(T.registry({}, [zone]))))

  requests.length = 0
  yield* Effect.gen(function* () {
    yield* DnsManager
    const outbox = yield* Outbox
    const waiting = Effect.map(outbox.list({ limit: 50 }), (marks) =>
      marks.filter(({ parkedReason }) => parkedReason === undefined)
    )
    yield* waitUntil("all is written", waiting, ({ length }) => length === 0)
    const parked = yield* outbox.list({ limit: 50 })
    assert.deepStrictEqual(
      parked.map(({ name }) => name),
      [T.nameOf("new-7")]
    )
    assert.include(parked[0]?.parkedReason, "203.0.113.7")
  }).pipe(Effect.provide(Layer.fresh(T.publisher({ pollMillis: 100 }, [zone]))))

  const asked = requests.slice(
    0,
    requests.findIndex((request) => request.startsWith("PATCH"))
  )
  const held = yield* Effect.forEach(hosts, (host) => client.rrsets(zone.name, [T.nameOf(host)]))
  assert.deepStrictEqual(
    held.map(([only]) => only?.contents.join()),
    hosts.map((_, i) => (i === 7 ? "203.0.113.7" : address(i)))
  )
  return { asked, inDoubt }
})

/** Which of `names` were read by themselves, in their order. */
const readSingly = (asked: ReadonlyArray<string>, names: ReadonlyArray<DomainName>) =>
  names.filter((name) => asked.some((request) => request.endsWith(`?rrset_name=${name}`)))

const exportsAmong = (asked: ReadonlyArray<string>) => asked.filter((request) => request.endsWith("/export")).length

for (const backend of ["sqlite", "lmdb"] as const) {
  describe(`whoever takes over a zone on ${backend}`, () => {
    const on = (requests: Array<string>) =>
      recording(requests).pipe(Layer.provideMerge(PowerDns.layerServer(backend)), Layer.provideMerge(T.sqlite()))
    const names = hosts.map(T.nameOf)

    it.live(
      "reads its new names by themselves where it is large, not the zone, and leaves what is somebody else's",
      () => {
        const requests: Array<string> = []
        return Effect.gen(function* () {
          const { asked, inDoubt } = yield* takenOver(12_000, requests)
          assert.strictEqual(exportsAmong(asked), 0, asked.join("\n"))
          assert.deepStrictEqual(readSingly(asked, names), names)
          assert.deepStrictEqual(readSingly(asked, inDoubt), inDoubt)
        }).pipe(Effect.provide(on(requests)))
      }
    )

    it.live("reads the zone instead of its new names where it is small, and leaves what is somebody else's", () => {
      const requests: Array<string> = []
      return Effect.gen(function* () {
        const { asked } = yield* takenOver(100, requests)
        assert.isAtLeast(exportsAmong(asked), 1)
        assert.deepStrictEqual(readSingly(asked, names), [])
      }).pipe(Effect.provide(on(requests)))
    })
  })
}
