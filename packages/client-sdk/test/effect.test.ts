import { assert, describe, it } from "@effect/vitest"
import * as Prism from "@prism-dns/client-sdk/effect"
import { FakeServer, type FakeServerOptions } from "@prism-dns/client-sdk/testing"
import { Clock, Effect, Fiber, Stream } from "effect"
import { TestClock } from "effect/testing"
import { waitUntil } from "../../core/test/harness/waitUntil.ts"

const fake = (options?: FakeServerOptions) =>
  Effect.acquireRelease(
    Effect.promise(() => FakeServer.start(options)),
    (server) => Effect.promise(() => server.stop())
  )

const until = (what: string, holds: () => boolean) =>
  TestClock.withLive(waitUntil(what, Effect.sync(holds), (held) => held))

describe("the Effect entry", () => {
  it.live("a name lives as long as the layer that it comes from", () =>
    Effect.gen(function* () {
      const server = yield* fake()
      const during = yield* Effect.gen(function* () {
        yield* (yield* Prism.Registration).waitFor("served")
        return server.hosts.length
      }).pipe(Effect.provide(Prism.layer({ server: server.address, hostname: "web-1" })))
      assert.deepStrictEqual([during, server.hosts.length], [1, 0])
    })
  )

  it.live("or until its lease has passed, for a process that restarts", () =>
    Effect.gen(function* () {
      const server = yield* fake()
      yield* Effect.scoped(
        Effect.gen(function* () {
          const registration = yield* Prism.make({ server: server.address, hostname: "web-1", whenClosed: "keep" })
          yield* registration.waitFor("accepted")
        })
      )
      assert.strictEqual(server.hosts.length, 1)
    })
  )

  it.live("events come as a stream, which ends with the registration", () =>
    Effect.gen(function* () {
      const server = yield* fake()
      const registration = yield* Prism.make({ server: server.address, hostname: "web-1" })
      const collected = yield* Effect.forkChild(Stream.runCollect(registration.events))
      yield* registration.waitFor("served")
      yield* registration.release
      const types = (yield* Fiber.join(collected)).map(({ type }) => type).filter((type) => type !== "state")
      assert.includeMembers(types, ["accepted", "connected", "applied", "served"])
      assert.strictEqual(yield* registration.ended, "released")
    })
  )

  it.live("a refusal is a typed error of whoever waits", () =>
    Effect.gen(function* () {
      const server = yield* fake({ tokens: [{ token: "t" }] })
      const registration = yield* Prism.make({ server: server.address, hostname: "web-1" })
      const code = yield* registration.waitFor("accepted").pipe(
        Effect.map(() => "none"),
        Effect.catchTag("RegistrationFailed", (failure) => Effect.succeed(failure.code))
      )
      assert.strictEqual(code, "token-missing")
    })
  )

  it.effect("time is that of the test clock, also the limit on a release that nobody takes", () =>
    Effect.gen(function* () {
      const server = yield* fake({ beatSeconds: 60 })
      const program = Effect.gen(function* () {
        const registration = yield* Prism.Registration
        yield* registration.waitFor("accepted")
        yield* TestClock.adjust("1 minute")
        yield* until("it has beaten", () => server.count("heartbeat") === 1)
        yield* Effect.promise(() => server.stop())
      })
      const scoped = yield* Effect.forkChild(
        Effect.provide(program, Prism.layer({ server: server.address, hostname: "web-1" }))
      )
      yield* until("the server is gone", () => server.count("heartbeat") === 1 && server.connections === 1)
      const second = Effect.provideService(TestClock.adjust("1 second"), Clock.Clock, yield* Clock.Clock)
      yield* TestClock.withLive(
        waitUntil(
          "the scope has ended",
          Effect.map(second, () => scoped.pollUnsafe()),
          (exit) => exit !== undefined
        )
      )
      assert.strictEqual(server.hosts.length, 1)
    })
  )
})
