import { assert, describe, it } from "@effect/vitest"
import { FakeServer } from "@prism-dns/client-sdk/testing"
import { Effect } from "effect"
import * as Fs from "node:fs"
import * as Path from "node:path"
import { temporaryFolder } from "../../core/test/harness/PowerDns.ts"
import * as Certificates from "../../server/test/harness/certificates.ts"
import * as Agent from "../src/Agent.ts"
import type { TlsOptions } from "../src/Options.ts"

const read = (path: string) => Fs.readFileSync(path, "utf8")

/** A fake that speaks TLS, with a certificate for this name. */
const secured = Effect.fnUntraced(function* (alternativeNames = "IP:127.0.0.1,DNS:prism.example.net") {
  const authority = yield* Certificates.authority()
  const pair = authority.issue("server", { alternativeNames, usage: "serverAuth" })
  const ca = read(authority.certificate)
  const server = yield* Effect.acquireRelease(
    Effect.promise(() =>
      FakeServer.start({
        tokens: [{ token: "t" }],
        tls: { cert: read(pair.certificate), key: read(pair.key), clientCa: ca }
      })
    ),
    (server) => Effect.promise(() => server.stop())
  )
  return { authority, ca, server }
})

const start = (server: FakeServer, tls: TlsOptions, more: Partial<Agent.EngineOptions> = {}) =>
  Agent.make({ server: server.address, hostname: "web-1", tls, ...more })

describe("over TLS", () => {
  it.live("a key is enrolled and proven, bound to the connection", () =>
    Effect.gen(function* () {
      const { ca, server } = yield* secured()
      const stateDir = Path.join(yield* temporaryFolder("prism-sdk-"), "state")
      const first = yield* start(server, { ca }, { token: "t", stateDir })
      yield* first.waitFor("served")
      yield* first.close
      const second = yield* start(server, { ca }, { stateDir })
      yield* second.waitFor("accepted")
      assert.strictEqual(second.snapshot().identity, first.snapshot().identity)
    })
  )

  it.live("a port without TLS is told from a server that is away", () =>
    Effect.gen(function* () {
      const plain = yield* Effect.acquireRelease(
        Effect.promise(() => FakeServer.start()),
        (server) => Effect.promise(() => server.stop())
      )
      const agent = yield* Agent.make({ server: `tls://${plain.address}`, hostname: "web-1" })
      const reason = yield* Effect.callback<string>((resume) => {
        agent.subscribe((event) => {
          if (event.type === "disconnected") resume(Effect.succeed(event.data.reason))
        })
      })
      assert.strictEqual(
        reason,
        "what answers there speaks no TLS; the server's port for TLS is another (8443 unless it says so)"
      )
    })
  )

  it.live("a server that does not answer in time is left, though its connection cannot be reset", () =>
    Effect.gen(function* () {
      const { ca, server } = yield* secured()
      server.ignoreNext("hello")
      const timing = { answerMillis: 200, backoffBaseMillis: 20 }
      const agent = yield* start(server, { ca }, { token: "t", timing })
      const reasons: Array<string> = []
      agent.subscribe((event) => {
        if (event.type === "disconnected") reasons.push(event.data.reason)
      })
      yield* agent.waitFor("accepted")
      assert.include(reasons, "no answer within 200 ms")
    })
  )

  it.live("a client certificate is who it is", () =>
    Effect.gen(function* () {
      const { authority, ca, server } = yield* secured()
      const pair = authority.issue("web-1.example.net", { usage: "clientAuth" })
      const agent = yield* start(server, { ca, cert: read(pair.certificate), key: read(pair.key) })
      yield* agent.waitFor("accepted")
      assert.strictEqual(agent.snapshot().identity, "cert:web-1.example.net")
    })
  )

  it.live("the name that the certificate must have can be another than the one connected to", () =>
    Effect.gen(function* () {
      const { ca, server } = yield* secured("DNS:prism.example.net")
      const agent = yield* start(server, { ca, servername: "prism.example.net" }, { token: "t" })
      yield* agent.waitFor("accepted")
    })
  )

  it.live("a server that is not trusted, or is someone else, is refused before a secret is sent", () =>
    Effect.gen(function* () {
      const { ca, server } = yield* secured("DNS:other.example.net")
      const strange = yield* start(server, {}, { token: "t" })
      assert.strictEqual((yield* Effect.flip(strange.ended)).code, "server-untrusted")
      const other = yield* start(server, { ca }, { token: "t" })
      assert.strictEqual((yield* Effect.flip(other.ended)).code, "server-untrusted")
      assert.strictEqual(server.received.length, 0)
    })
  )
})
