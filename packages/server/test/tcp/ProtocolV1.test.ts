import { assert, describe, it } from "@effect/vitest"
import { Refusals } from "@prism-dns/core/audit/Refusals"
import { Admission } from "@prism-dns/core/auth/Admission"
import { Tokens } from "@prism-dns/core/auth/Tokens"
import { Cluster } from "@prism-dns/core/cluster/Cluster"
import { Acknowledgements } from "@prism-dns/core/dns/Acknowledgements"
import { Outbox } from "@prism-dns/core/dns/Outbox"
import { Zones } from "@prism-dns/core/dns/Zones"
import * as DomainName from "@prism-dns/core/domain/DomainName"
import * as IpAddress from "@prism-dns/core/domain/IpAddress"
import * as Zone from "@prism-dns/core/domain/Zone"
import { Leases } from "@prism-dns/core/registry/Leases"
import { Registry } from "@prism-dns/core/registry/Registry"
import { Duration, Effect, Layer, Redacted } from "effect"
import { SecureRandom } from "effect/crypto"
import { IpNetwork } from "effect/net"
import * as Database from "../../src/Database.ts"
import * as ProtocolV1 from "../../src/tcp/ProtocolV1.ts"

const networks = [IpNetwork.fromStringUnsafe("192.0.2.0/24")]

const services = (conflict: Zone.ConflictPolicy) =>
  Registry.layer().pipe(
    Layer.provideMerge(Layer.mergeAll(Acknowledgements.layer, Leases.layer, Outbox.layer)),
    Layer.provideMerge(
      Tokens.layerStatic(
        ["one", "two"].map((name) => ({ name, token: Redacted.make(`token-${name}`), role: "agent" as const }))
      )
    ),
    Layer.provideMerge(Layer.merge(Admission.layer({ anonymous: "open" }), Refusals.layerNone)),
    Layer.provideMerge(Zones.layer([Zone.make(DomainName.make("hosts.test"), { policy: { conflict, networks } })])),
    Layer.provideMerge(Database.layer({ url: { _tag: "Sqlite", filename: ":memory:" }, connectionsMax: 1 })),
    Layer.provide([SecureRandom.layerWebCrypto, Cluster.layerAlone]),
    Layer.orDie
  )

const protocol = ProtocolV1.make({
  mode: "required",
  ackTimeout: Duration.zero
})

/** A message from `peer` with the token of `owner`, and what it is answered. */
const beat = Effect.fnUntraced(function* (
  { answer }: Effect.Success<typeof protocol>,
  owner: string,
  peer: string,
  hostname = "web"
) {
  const message = {
    version: "1.0",
    type: "registration",
    timestamp: "2026-11-23T06:14:00.123456Z",
    hostname,
    auth_token: `token-${owner}`
  }
  const response = answer(new TextEncoder().encode(JSON.stringify(message)), IpAddress.make(peer))
  const text = typeof response === "string" ? response : yield* response
  return JSON.parse(text) as { readonly [key: string]: unknown }
})

describe("a name that is another's", () => {
  it.live("is refused by hostname-taken, and the message says what the holder's host is", () =>
    Effect.gen(function* () {
      const v1 = yield* protocol
      yield* beat(v1, "one", "192.0.2.1")
      assert.deepInclude(yield* beat(v1, "two", "192.0.2.2"), {
        status: "error",
        code: "hostname-taken",
        message: "web.hosts.test. is registered by another owner and its host is online"
      })
    }).pipe(Effect.provide(services("reject")))
  )

  it.live("becomes one with a suffix where the zone gives one: registration and beats say the name it got", () =>
    Effect.gen(function* () {
      const v1 = yield* protocol
      yield* beat(v1, "one", "192.0.2.1")
      for (const message of ["host registered", "lease renewed"]) {
        assert.deepInclude(yield* beat(v1, "two", "192.0.2.2"), {
          status: "success",
          message,
          host: "web-2.hosts.test.",
          address: "192.0.2.2"
        })
      }
      assert.deepInclude(yield* beat(v1, "one", "192.0.2.1"), { status: "success", host: "web.hosts.test." })
    }).pipe(Effect.provide(services("suffix")))
  )
})

it.live("a name that two machines claim in turn is refused by hostname-flapping, with both addresses and a time", () =>
  Effect.gen(function* () {
    const v1 = yield* protocol
    let held = 1
    let refused = yield* beat(v1, "one", "192.0.2.1")
    for (let claims = 0; refused.status === "success" && claims < 40; claims++) {
      const claimed = held === 1 ? 2 : 1
      refused = yield* beat(v1, "one", `192.0.2.${claimed}`)
      if (refused.status === "success") held = claimed
    }
    const claimed = held === 1 ? 2 : 1
    assert.deepInclude(refused, { status: "error", code: "hostname-flapping" })
    assert.include(
      String(refused.message),
      `for 192.0.2.${held} and for 192.0.2.${claimed}; it keeps 192.0.2.${held} until 2`
    )
    assert.isAbove(Number(refused.retryAfterSeconds), 0)
    assert.strictEqual((yield* beat(v1, "one", `192.0.2.${held}`)).message, "lease renewed")
  }).pipe(Effect.provide(services("take-over-if-expired")))
)
