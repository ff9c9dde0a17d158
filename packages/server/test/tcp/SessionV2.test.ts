import { assert, describe, it } from "@effect/vitest"
import * as DomainName from "@prism-dns/core/domain/DomainName"
import { Leases } from "@prism-dns/core/registry/Leases"
import { Registry } from "@prism-dns/core/registry/Registry"
import { Effect, Option } from "effect"
import { Drain } from "../../src/Drain.ts"
import * as Agent from "../harness/AgentClient.ts"
import * as AgentV2 from "../harness/AgentV2.ts"
import { address, register, server } from "./layers.ts"

const connect = (options?: Agent.ConnectOptions) => Effect.flatMap(address, (to) => AgentV2.connect(to, options))

/** An agent that is welcomed. */
const open = Effect.fnUntraced(function* (options?: Agent.ConnectOptions) {
  const agent = yield* connect(options)
  const welcome = yield* agent.hello({ method: "anonymous" })
  assert.strictEqual(welcome.type, "welcome")
  return agent
})

const nameOf = (hostname: string) => DomainName.make(`${hostname}.hosts.prism.test`)

describe("a session", () => {
  it.live("is welcomed with what the agent has to know", () =>
    Effect.gen(function* () {
      const agent = yield* connect()
      const welcome = yield* agent.hello({ method: "anonymous" })
      assert.deepInclude(welcome, {
        type: "welcome",
        id: 1,
        version: "2.0",
        identity: { name: "anonymous", kind: "anonymous" },
        observedAddress: "127.0.0.1",
        lease: { durationSeconds: 150, beatSeconds: 60 },
        limits: { frameBytesMax: 65_536, pipelineMax: 64, addressesMax: 16, hostsMax: 100 },
        zones: ["hosts.prism.test."]
      })
    }).pipe(Effect.scoped, Effect.provide(server()))
  )

  it.live("registers a host, is told each level once and in order, and beats", () =>
    Effect.gen(function* () {
      const agent = yield* open()
      const acks = yield* agent.register("web-1")
      assert.deepStrictEqual(
        acks.map((ack) => (ack.type === "ack" ? [ack.level, ack.outcome, ack.final] : ack)),
        [
          ["accepted", "created", undefined],
          ["applied", undefined, true]
        ]
      )
      assert.deepStrictEqual(yield* agent.beat, [{ type: "beat", id: 3 }])
    }).pipe(Effect.scoped, Effect.provide(server()))
  )

  it.live("of a bearer token owns its hosts by the token's name", () =>
    Effect.gen(function* () {
      const agent = yield* connect()
      assert.deepInclude(yield* agent.hello({ method: "token", token: "good" }), {
        type: "welcome",
        identity: { name: "rack-7", kind: "token" }
      })
      yield* agent.register("owned")
      const host = yield* (yield* Registry).findByName(nameOf("owned"))
      assert.strictEqual(Option.getOrThrow(host).owner, "rack-7")
    }).pipe(Effect.scoped, Effect.provide(server()))
  )

  it.live("and a client of version 1 beside it notice nothing of each other", () =>
    Effect.gen(function* () {
      const agent = yield* open()
      assert.strictEqual((yield* register("old")).status, "success")
      yield* agent.register("new")
      assert.strictEqual((yield* register("old")).message, "lease renewed")
      assert.deepStrictEqual(yield* agent.beat, [{ type: "beat", id: 3 }])
    }).pipe(Effect.scoped, Effect.provide(server()))
  )
})

describe("a beat", () => {
  it.live("names the hosts whose lease is not known any more, once", () =>
    Effect.gen(function* () {
      const agent = yield* open()
      yield* agent.register("kept")
      yield* agent.register("lost")
      ;(yield* Leases).drop(nameOf("lost"), Number.MAX_SAFE_INTEGER)
      assert.deepStrictEqual(yield* agent.beat, [
        { type: "lease-unknown", host: nameOf("lost") },
        { type: "beat", id: 4 }
      ])
      assert.deepStrictEqual(yield* agent.beat, [{ type: "beat", id: 5 }])
    }).pipe(Effect.scoped, Effect.provide(server()))
  )
})

describe("a server that drains", () => {
  it.live("tells the sessions that are there, and those that still come", () =>
    Effect.gen(function* () {
      const agent = yield* open()
      yield* (yield* Drain).start
      assert.deepInclude(yield* agent.expect("drain"), { withinSeconds: 3 })
      const late = yield* open()
      yield* late.expect("drain")
    }).pipe(Effect.scoped, Effect.provide(server()))
  )
})
