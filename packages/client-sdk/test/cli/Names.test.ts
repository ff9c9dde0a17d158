import { assert, describe, it } from "@effect/vitest"
import * as IpAddress from "@prism-dns/core/domain/IpAddress"
import { FakeServer } from "@prism-dns/client-sdk/testing"
import { Effect } from "effect"
import { waitUntil } from "../../../core/test/harness/waitUntil.ts"
import type { Snapshot } from "../../src/addresses/Snapshot.ts"
import * as Names from "../../src/cli/Names.ts"
import type * as Settings from "../../src/cli/Settings.ts"
import { settingsOf } from "../harness/settings.ts"

/** Settings of an agent of `server`. */
const settings = (server: FakeServer, given: Partial<Settings.Given>) =>
  settingsOf({ server: [server.address], ...given })

const fake = Effect.acquireRelease(
  Effect.promise(() => FakeServer.start({ levelMillis: 0 })),
  (server) => Effect.promise(() => server.stop())
)

const machine = (...addresses: ReadonlyArray<string>): Snapshot => ({
  interfaces: { eth0: addresses.map((address) => ({ address, internal: false })) },
  links: undefined,
  inet6: [],
  defaultRoutes: ["eth0"]
})

const until = (what: string, server: FakeServer, holds: (server: FakeServer) => boolean) =>
  waitUntil(
    what,
    Effect.sync(() => server),
    holds,
    { within: "10 seconds" }
  )

/** A machine whose addresses a test changes, looked at all the time. */
const changing = (...first: ReadonlyArray<string>) => {
  let present = machine(...first)
  let looks = 0
  const read = () => {
    looks += 1
    return present
  }
  return {
    following: { every: "5 millis", settle: "20 millis", read } as const,
    change: (...addresses: ReadonlyArray<string>) => {
      present = machine(...addresses)
    },
    /** Waits until what is there now has stood for far longer than it takes to settle. */
    settled: Effect.suspend(() => {
      const before = looks
      return waitUntil(
        "it was looked at often",
        Effect.sync(() => looks),
        (looks) => looks > before + 20
      )
    })
  }
}

describe("names of which one is refused for now", () => {
  it.live("does not hold up the others", () =>
    Effect.gen(function* () {
      const server = yield* fake
      server.refuseNext("register", { code: "hostname-taken", retryable: true, retryAfterSeconds: 60 })
      yield* Effect.forkScoped(Names.open(settings(server, { hostname: ["taken", "b"], address: ["192.0.2.1"] }), {}))
      yield* until("the other one is there", server, () => server.host("b") !== undefined)
      assert.isUndefined(server.host("taken"))
    }).pipe(Effect.scoped)
  )
})

describe("names whose addresses come from interfaces", () => {
  it.live("have each change, all of them, and keep what they had when there is none", () =>
    Effect.gen(function* () {
      const server = yield* fake
      const { change, following, settled } = changing("192.0.2.1", "fe80::1")
      yield* Names.open(settings(server, { hostname: ["a", "b"], address: ["interfaces"] }), {}, { following })
      yield* until("both have it", server, ({ hosts }) => hosts.length === 2)
      assert.deepStrictEqual(server.host("a")?.addresses, ["192.0.2.1"])
      yield* settled
      assert.strictEqual(server.count("update"), 0)
      change("192.0.2.2", "2001:db8::2")
      yield* until("both have the next", server, ({ hosts }) =>
        hosts.every(({ addresses }) => addresses.join(" ") === "192.0.2.2 2001:db8::2")
      )
      const updates = server.count("update")
      change("fe80::1")
      yield* settled
      assert.strictEqual(server.count("update"), updates)
    }).pipe(Effect.scoped)
  )

  it.live("have the one that the server sees until the first is there", () =>
    Effect.gen(function* () {
      const server = yield* fake
      const { change, following } = changing("fe80::1")
      yield* Names.open(settings(server, { hostname: ["a"], address: ["interfaces"] }), {}, { following })
      yield* until("it is there", server, (server) => server.host("a")?.addresses.join() === "127.0.0.1")
      change("fe80::1", "192.0.2.1")
      yield* until("it has its own", server, (server) => server.host("a")?.addresses.join() === "192.0.2.1")
    }).pipe(Effect.scoped)
  )

  it.live("a change while no server is there is told to the next", () =>
    Effect.gen(function* () {
      const server = yield* fake
      const { change, following, settled } = changing("192.0.2.1")
      yield* Names.open(settings(server, { hostname: ["a"], address: ["interfaces"] }), {}, { following })
      yield* until("it has the first", server, (server) => server.host("a") !== undefined)
      yield* Effect.promise(() => server.stop())
      change("192.0.2.2")
      yield* settled
      yield* Effect.promise(() => server.restart())
      yield* until("it has the next", server, (server) => server.host("a")?.addresses.join() === "192.0.2.2")
    }).pipe(Effect.scoped)
  )
})

describe("names whose addresses the server observes", () => {
  it.live("ask on a change whether their connection still stands", () =>
    Effect.gen(function* () {
      const server = yield* fake
      const { change, following } = changing("192.0.2.1")
      yield* Names.open(settings(server, { hostname: ["a"] }), {}, { following })
      yield* until("it is there", server, (server) => server.host("a")?.level === "served")
      assert.strictEqual(server.count("update"), 0)
      change("192.0.2.2")
      yield* until("it asks", server, (server) => server.count("update") === 1)
      assert.deepStrictEqual(server.host("a")?.addresses, [IpAddress.make("127.0.0.1")])
    }).pipe(Effect.scoped)
  )
})
