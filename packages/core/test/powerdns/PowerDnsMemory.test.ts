import { assert, it } from "@effect/vitest"
import { Effect, Fiber, Option } from "effect"
import { TestClock } from "effect/testing"
import * as RRset from "@prism-dns/core/domain/RRset"
import { BackendFailed, Refused } from "@prism-dns/core/powerdns/PowerDnsError"
import { PowerDnsMemory } from "@prism-dns/core/powerdns/PowerDnsMemory"
import { heldIn, newZone, replace, suite } from "./PowerDnsSuite.ts"

suite("PowerDNS in memory", PowerDnsMemory.layer())

const test = (name: string, body: Effect.Effect<void, unknown, Effect.Services<typeof newZone> | PowerDnsMemory>) =>
  it.effect(name, () => Effect.provide(body, PowerDnsMemory.layer()))

test(
  "the next call fails as told, once, and does nothing",
  Effect.gen(function* () {
    const memory = yield* PowerDnsMemory
    const { at, client, zone } = yield* newZone
    yield* memory.failNext(new BackendFailed({ status: 500, detail: "locked" }), "patch")
    assert.isTrue(Option.isSome(yield* client.findZone(zone)), "another operation is not meant")
    const change = [replace(at("a"), "A", ["192.0.2.1"])]
    const error = yield* Effect.flip(client.patch(zone, change))
    assert.strictEqual(error.reason._tag, "BackendFailed")
    assert.isTrue(error.retryable)
    assert.deepStrictEqual(yield* client.rrsets(zone, [at("a")]), [])
    yield* client.patch(zone, change)
    assert.strictEqual((yield* client.rrsets(zone, [at("a")])).length, 1)
  })
)

test(
  "a server that is down is Unreachable, and keeps its zones until it is up",
  Effect.gen(function* () {
    const memory = yield* PowerDnsMemory
    const { client, zone } = yield* newZone
    yield* memory.down
    assert.strictEqual((yield* Effect.flip(client.server)).reason._tag, "Unreachable")
    assert.strictEqual((yield* Effect.flip(client.findZone(zone))).reason._tag, "Unreachable")
    yield* memory.up
    assert.isTrue(Option.isSome(yield* client.findZone(zone)))
  })
)

test(
  "a refused name is refused with its sentence, alone or in company, until it is accepted",
  Effect.gen(function* () {
    const memory = yield* PowerDnsMemory
    const { at, client, zone } = yield* newZone
    yield* memory.refuseName(at("bad"), "no such luck")
    const changes = [replace(at("good"), "A", ["192.0.2.1"]), replace(at("bad"), "A", ["192.0.2.2"])]
    const error = yield* Effect.flip(client.patch(zone, changes))
    assert.deepStrictEqual(error.reason, new Refused({ detail: "no such luck" }))
    yield* client.patch(zone, changes.slice(0, 1))
    yield* memory.acceptName(at("bad"))
    yield* client.patch(zone, changes)
    assert.strictEqual(heldIn(yield* client.exportZone(zone), zone).length, 2)
  })
)

test(
  "a change may be applied although its answer is lost",
  Effect.gen(function* () {
    const memory = yield* PowerDnsMemory
    const { at, client, zone } = yield* newZone
    yield* memory.applyThenTimeOut
    const error = yield* Effect.flip(client.patch(zone, [replace(at("a"), "A", ["192.0.2.1"])]))
    assert.strictEqual(error.reason._tag, "Uncertain")
    assert.strictEqual((yield* client.rrsets(zone, [at("a")])).length, 1)
  })
)

test(
  "a delayed call begins later, and sees what was done meanwhile",
  Effect.gen(function* () {
    const memory = yield* PowerDnsMemory
    const { at, client, zone } = yield* newZone
    yield* memory.delayNext("10 seconds", "rrsets")
    const slow = yield* Effect.forkChild(client.rrsets(zone, [at("a")]))
    yield* TestClock.adjust("5 seconds")
    yield* client.patch(zone, [replace(at("a"), "A", ["192.0.2.1"])])
    assert.isUndefined(slow.pollUnsafe())
    yield* TestClock.adjust("5 seconds")
    assert.strictEqual((yield* Fiber.join(slow)).length, 1)
  })
)

test(
  "something may happen while one call waits for its answer, which sees it; the next call waits for nothing",
  Effect.gen(function* () {
    const memory = yield* PowerDnsMemory
    const { at, client, zone } = yield* newZone
    const set = RRset.make(at("a"), "A", 60, ["192.0.2.1"])
    yield* memory.beforeNext(memory.put(zone, set), "rrsets")
    assert.deepStrictEqual(yield* client.rrsets(zone, [at("a")]), [set])
    yield* memory.remove(zone, at("a"), "A")
    assert.deepStrictEqual(yield* client.rrsets(zone, [at("a")]), [])
  })
)

test(
  "other writers put and remove sets unseen, and calls are told in order",
  Effect.gen(function* () {
    const memory = yield* PowerDnsMemory
    const { at, client, serial, zone } = yield* newZone
    const before = yield* serial
    yield* memory.put(zone, RRset.make(at("x"), "A", 60, ["192.0.2.1"]))
    assert.strictEqual((yield* client.rrsets(zone, [at("x")])).length, 1)
    yield* memory.remove(zone, at("x"), "A")
    assert.strictEqual((yield* client.rrsets(zone, [at("x")])).length, 0)
    assert.strictEqual(yield* serial, before)
    yield* memory.setZone(zone, { soaEditApi: "EPOCH", apiRectify: true })
    yield* client.configureZone(zone)
    const found = Option.getOrThrow(yield* client.findZone(zone))
    assert.deepInclude(found, { soaEditApi: "INCREASE", apiRectify: false })
    const operations = (yield* memory.calls).map(({ operation }) => operation)
    assert.deepStrictEqual(operations, [
      "createZone",
      "findZone",
      "rrsets",
      "rrsets",
      "findZone",
      "configureZone",
      "findZone"
    ])
  })
)
