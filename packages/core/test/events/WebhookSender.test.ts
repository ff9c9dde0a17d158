import { assert, it } from "@effect/vitest"
import { addressRefusal, WebhookSender } from "@prism-dns/core/events/WebhookSender"
import * as IpAddress from "@prism-dns/core/domain/IpAddress"
import { Effect } from "effect"
import { IpNetwork } from "effect/net"
import * as Http from "node:http"
import type * as Net from "node:net"

const networks = (...list: ReadonlyArray<string>) => list.map(IpNetwork.fromStringUnsafe)

/** A server on 127.0.0.1 that takes everything, and ends each connection after so many answers. */
const receiver = Effect.acquireRelease(
  Effect.callback<{ readonly port: number; readonly connections: () => number; readonly close: () => void }>(
    (resume) => {
      let connections = 0
      const server = Http.createServer((request, response) => {
        request.resume()
        request.on("end", () => response.writeHead(204).end())
      })
      server.on("connection", () => connections++)
      server.listen(0, "127.0.0.1", () =>
        resume(
          Effect.succeed({
            port: (server.address() as Net.AddressInfo).port,
            connections: () => connections,
            close: () => {
              server.close()
              server.closeAllConnections()
            }
          })
        )
      )
    }
  ),
  ({ close }) => Effect.sync(close)
)

const post = (url: string, timeoutMillis = 5000) =>
  Effect.flatMap(WebhookSender, (sender) => sender.post({ url, headers: {}, body: "{}", timeoutMillis }))

it("public addresses are sent to, others only where a network says so", () => {
  const refusal = (address: string, ...allowed: ReadonlyArray<string>) =>
    addressRefusal(IpAddress.make(address), networks(...allowed))
  for (const address of ["8.8.8.8", "2606:4700::1111", "172.32.0.1", "100.128.0.1"]) {
    assert.isUndefined(refusal(address), address)
  }
  for (const [address, what] of [
    ["127.0.0.1", "loopback"],
    ["::1", "loopback"],
    ["10.0.0.1", "private"],
    ["172.16.0.1", "private"],
    ["192.168.1.1", "private"],
    ["100.64.0.1", "private"],
    ["fd00::1", "private"],
    ["169.254.169.254", "link-local"],
    ["fe80::1", "link-local"],
    ["224.0.0.251", "multicast"],
    ["ff02::1", "multicast"],
    ["0.0.0.0", "unspecified"],
    ["::", "unspecified"],
    ["255.255.255.255", "broadcast"],
    ["64:ff9b::a00:1", "an IPv4 address translated into IPv6"],
    ["2002:a00:1::", "an IPv4 address as 6to4"]
  ] as const) {
    assert.strictEqual(refusal(address), `${address} is ${what}, and not in events.webhooks.networks`)
  }
  assert.isUndefined(refusal("10.0.0.1", "10.0.0.0/8"))
  assert.isUndefined(refusal("::ffff:10.0.0.1", "10.0.0.0/8"))
})

it.live("what a name resolves to is looked at where the connection is made", () =>
  Effect.gen(function* () {
    const { connections, port } = yield* receiver
    const refused = yield* post(`http://localhost:${port}/`).pipe(
      Effect.provide(WebhookSender.layer({ networks: networks("10.0.0.0/8") }))
    )
    assert.deepInclude(refused, { _tag: "Failed" })
    assert.include(refused._tag === "Failed" ? refused.detail : "", "is loopback")
    assert.strictEqual(connections(), 0)
    const taken = yield* post(`http://localhost:${port}/`).pipe(
      Effect.provide(WebhookSender.layer({ networks: networks("127.0.0.0/8") }))
    )
    assert.deepStrictEqual(taken, { _tag: "Delivered", status: 204 })
  }).pipe(Effect.scoped)
)

it.live("a connection is kept for the next message", () =>
  Effect.gen(function* () {
    const { connections, port } = yield* receiver
    yield* Effect.gen(function* () {
      for (let i = 0; i < 5; i++) {
        assert.deepStrictEqual(yield* post(`http://127.0.0.1:${port}/`), { _tag: "Delivered", status: 204 })
      }
      assert.strictEqual(connections(), 1)
    }).pipe(Effect.provide(WebhookSender.layer({ networks: networks("127.0.0.0/8") })))
  }).pipe(Effect.scoped)
)

it.live("what cannot be reached is said in a sentence", () =>
  Effect.gen(function* () {
    assert.deepStrictEqual(yield* post("http://127.0.0.1:1/"), {
      _tag: "Failed",
      detail: "it cannot be reached (ECONNREFUSED)"
    })
  }).pipe(Effect.provide(WebhookSender.layer({ networks: networks("127.0.0.0/8") })))
)
