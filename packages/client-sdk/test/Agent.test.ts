import { assert, describe, it } from "@effect/vitest"
import { FakeRegistry, FakeServer, type FakeServerOptions } from "@prism-dns/client-sdk/testing"
import * as Wire from "@prism-dns/core/protocol/Wire"
import { Clock, Duration, Effect, Fiber, Random } from "effect"
import { TestClock } from "effect/testing"
import * as Fs from "node:fs"
import * as Net from "node:net"
import * as Os from "node:os"
import * as Path from "node:path"
import { waitUntil } from "../../core/test/harness/waitUntil.ts"
import { freePorts } from "../../core/test/harness/ports.ts"
import * as Agent from "../src/Agent.ts"
import * as Servers from "../src/Servers.ts"
import { Lookup } from "../src/Connection.ts"
import type * as Snapshot from "../src/addresses/Snapshot.ts"
import type { AgentEvent, RegistrationFailed, Timing } from "../src/Options.ts"

const fake = (options?: FakeServerOptions) =>
  Effect.acquireRelease(
    Effect.promise(() => FakeServer.start(options)),
    (server) => Effect.promise(() => server.stop())
  )

/** A server that is nothing but this. */
const plain = (onSocket: (socket: Net.Socket) => void) =>
  Effect.acquireRelease(
    Effect.promise(
      () =>
        new Promise<Net.Server>((resolve) => {
          const listener = Net.createServer(onSocket)
          listener.listen(0, "127.0.0.1", () => resolve(listener))
        })
    ),
    (listener) => Effect.sync(() => listener.close())
  ).pipe(Effect.map((listener) => `127.0.0.1:${(listener.address() as Net.AddressInfo).port}`))

/** A server that reads and answers nothing: what it has read, and how connections have ended for it, in order. */
const silent = Effect.gen(function* () {
  const ends: Array<string> = []
  let chunks = 0
  const address = yield* plain((socket) => {
    socket.on("data", () => (chunks += 1))
    socket.on("end", () => ends.push("end"))
    socket.on("error", (error: NodeJS.ErrnoException) => ends.push(error.code ?? error.message))
  })
  return { address, ends, chunks: () => chunks }
})

/** Waits that a test can live with where time is real. */
const quick: Timing = { backoffBaseMillis: 20, backoffCapMillis: 50 }

interface Started {
  readonly agent: Agent.Agent
  readonly events: Array<AgentEvent>
  readonly seen: (type: AgentEvent["type"]) => number
}

const start = Effect.fnUntraced(function* (
  options: Partial<Agent.EngineOptions> & Pick<Agent.EngineOptions, "server">
) {
  const events: Array<AgentEvent> = []
  const agent = yield* Agent.make({ hostname: "web-1", ...options })
  agent.subscribe((event) => events.push(event))
  return { agent, events, seen: (type) => events.filter((event) => event.type === type).length } satisfies Started
})

/** Waits in real time, also under a test clock. */
const until = (what: string, holds: () => boolean) =>
  TestClock.withLive(waitUntil(what, Effect.sync(holds), (held) => held)).pipe(Effect.asVoid)
const untilLive = (what: string, holds: () => boolean) =>
  Effect.asVoid(waitUntil(what, Effect.sync(holds), (held) => held))

const failureOf = <A>(effect: Effect.Effect<A, RegistrationFailed>) => Effect.flip(effect)

const stateFolder = Effect.acquireRelease(
  Effect.sync(() => Fs.mkdtempSync(Path.join(Os.tmpdir(), "prism-sdk-"))),
  (folder) => Effect.sync(() => Fs.rmSync(folder, { recursive: true, force: true }))
)

describe("an agent", () => {
  it.live("has its name again after a restart of the server, and tells no level twice", () =>
    Effect.gen(function* () {
      const server = yield* fake()
      const { agent, events, seen } = yield* start({ server: server.address, timing: quick })
      yield* agent.waitFor("served")
      yield* Effect.promise(() => server.restart())
      yield* untilLive("it is back", () => seen("connected") === 2 && agent.snapshot().state === "online")
      assert.strictEqual(server.host("web-1")?.sessions, 1)
      assert.deepStrictEqual(
        events.filter(({ type }) => ["accepted", "applied", "served"].includes(type)).map(({ type }) => type),
        ["accepted", "applied", "served"]
      )
      assert.strictEqual(seen("disconnected") >= 1, true)
    })
  )

  it.live("that a full server turns away in the words of version 1 comes again, also at the first time", () =>
    Effect.gen(function* () {
      const server = yield* fake()
      let turnedAway = 0
      const full = yield* Effect.acquireRelease(
        Effect.promise(
          () =>
            new Promise<Net.Server>((resolve) => {
              const listener = Net.createServer((socket) => {
                socket.on("error", () => socket.destroy())
                if (turnedAway === 2) {
                  const onwards = Net.connect({ host: "127.0.0.1", port: Number(server.address.split(":")[1]) })
                  onwards.on("error", () => socket.destroy())
                  socket.pipe(onwards).pipe(socket)
                  return
                }
                turnedAway += 1
                const answer = {
                  type: "response",
                  version: "1.0",
                  status: "error",
                  message: "it is full",
                  code: "capacity",
                  retryAfterSeconds: 0
                }
                socket.end(Wire.encode(JSON.stringify(answer)))
                socket.resume()
              })
              listener.listen(0, "127.0.0.1", () => resolve(listener))
            })
        ),
        (listener) => Effect.sync(() => listener.close())
      )
      const { port } = full.address() as Net.AddressInfo
      const { agent } = yield* start({ server: `127.0.0.1:${port}`, timing: quick })
      yield* agent.waitFor("accepted")
      assert.strictEqual(turnedAway, 2)
    })
  )

  it.live(
    "whose connection is refused in the words of version 1 is told the server's code, not that the server is another",
    () =>
      Effect.gen(function* () {
        const listener = yield* Effect.acquireRelease(
          Effect.promise(
            () =>
              new Promise<Net.Server>((resolve) => {
                const listener = Net.createServer((socket) => {
                  socket.on("error", () => socket.destroy())
                  const answer = {
                    type: "response",
                    status: "error",
                    message: "it has run out",
                    code: "certificate-invalid"
                  }
                  socket.end(Wire.encode(JSON.stringify(answer)))
                  socket.resume()
                })
                listener.listen(0, "127.0.0.1", () => resolve(listener))
              })
          ),
          (listener) => Effect.sync(() => listener.close())
        )
        const { port } = listener.address() as Net.AddressInfo
        const { agent } = yield* start({ server: `127.0.0.1:${port}`, timing: quick })
        const { code, message } = yield* Effect.flip(agent.waitFor("accepted"))
        assert.deepStrictEqual({ code, message }, { code: "certificate-invalid", message: "it has run out" })
      })
  )

  it.live("an update that a restart falls into is told again, and resolves", () =>
    Effect.gen(function* () {
      const server = yield* fake()
      const { agent } = yield* start({ server: server.address, timing: quick })
      yield* agent.waitFor("accepted")
      server.cutOnNext("update")
      const reached = yield* agent.update({ labels: { rack: "7" }, ttlSeconds: 30 }, "served")
      assert.strictEqual(reached.level, "served")
      assert.deepInclude(server.host("web-1"), { labels: { rack: "7" }, ttlSeconds: 30, generation: 2 })
      assert.strictEqual(server.count("register"), 2)
    })
  )

  it.live("changes that come together are told in few messages, and the last one counts", () =>
    Effect.gen(function* () {
      const server = yield* fake()
      const { agent } = yield* start({ server: server.address, timing: quick })
      yield* agent.waitFor("accepted")
      yield* Effect.forEach(
        Array.from({ length: 100 }, (_, i) => i),
        (i) => agent.update({ labels: { n: String(i) } }),
        { concurrency: "unbounded" }
      )
      assert.deepStrictEqual(server.host("web-1")?.labels, { n: "99" })
      assert.strictEqual(server.count("update"), 2)
    })
  )

  it.live("a change that the server refuses rejects with its code and leaves the name as it was", () =>
    Effect.gen(function* () {
      const server = yield* fake()
      const { agent } = yield* start({ server: server.address, timing: quick })
      yield* agent.waitFor("accepted")
      server.refuseNext("update", { code: "address-not-allowed" })
      const failed = yield* failureOf(agent.update({ addresses: ["192.0.2.1"] }))
      assert.strictEqual(failed.code, "address-not-allowed")
      assert.strictEqual(agent.snapshot().state, "online")
      yield* agent.update({ labels: { still: "here" } })
      assert.deepInclude(server.host("web-1"), { addresses: ["127.0.0.1"], labels: { still: "here" } })
    })
  )

  it.live("a name that is given up while no server is there is given up when one is", () =>
    Effect.gen(function* () {
      const server = yield* fake()
      const { agent } = yield* start({ server: server.address, timing: quick })
      yield* agent.waitFor("accepted")
      yield* Effect.promise(() => server.stop())
      yield* untilLive("it has noticed", () => agent.snapshot().state !== "online")
      const releasing = yield* Effect.forkChild(agent.release)
      yield* Effect.promise(() => server.restart())
      yield* Fiber.join(releasing)
      assert.deepStrictEqual([server.hosts.length, agent.snapshot().state], [0, "released"])
      assert.strictEqual((yield* failureOf(agent.waitFor("served"))).code, "released")
    })
  )

  it.live("a server that says accepted and dies has it registered again", () =>
    Effect.gen(function* () {
      const server = yield* fake()
      server.cutAfterNext("accepted")
      const { agent, seen } = yield* start({ server: server.address, timing: quick })
      yield* agent.waitFor("served")
      assert.deepStrictEqual([server.count("register"), seen("accepted"), agent.snapshot().state], [2, 1, "online"])
    })
  )

  it.live("goes to the next server where one is away, and on where that one goes", () =>
    Effect.gen(function* () {
      const registry = new FakeRegistry()
      const away = yield* fake({ registry })
      const second = yield* fake({ registry })
      yield* Effect.promise(() => away.stop())
      const { agent, events } = yield* start({ server: [away.address, second.address], timing: quick })
      yield* agent.waitFor("accepted")
      assert.strictEqual(second.sessions, 1)
      yield* Effect.promise(() => away.restart())
      yield* Effect.promise(() => second.stop())
      yield* untilLive("it is at the first", () => away.sessions === 1 && agent.snapshot().state === "online")
      assert.deepStrictEqual(
        events.flatMap((event) => (event.type === "connected" ? [event.data.server] : [])),
        [second.address, away.address]
      )
    })
  )

  it.live("on drain it is registered elsewhere before it leaves: the lease has no gap", () =>
    Effect.gen(function* () {
      const registry = new FakeRegistry()
      const [first, second] = [yield* fake({ registry }), yield* fake({ registry })]
      const { agent, seen } = yield* start({ server: [first.address, second.address], timing: quick })
      yield* agent.waitFor("accepted")
      first.drain(0.05)
      yield* untilLive("it has moved", () => second.sessions === 1 && first.sessions === 0)
      assert.deepInclude(registry.hosts[0], { host: "web-1.hosts.prism.test.", gaps: 0, sessions: 1 })
      assert.deepStrictEqual([agent.snapshot().state, seen("disconnected")], ["online", 0])
    })
  )

  it.live("on drain without another server it holds on to the old one until it ends", () =>
    Effect.gen(function* () {
      const server = yield* fake()
      const { agent } = yield* start({ server: server.address, timing: quick })
      yield* agent.waitFor("accepted")
      server.drain(0)
      yield* untilLive("it has tried elsewhere", () => server.connections > 2)
      assert.strictEqual(agent.snapshot().state, "draining")
      assert.deepInclude(server.host("web-1"), { gaps: 0 })
      yield* Effect.promise(() => server.restart())
      yield* untilLive("it is online", () => agent.snapshot().state === "online")
    })
  )

  it.live("goes to the servers that serve its name, and comes back when nobody is there", () =>
    Effect.gen(function* () {
      const right = yield* fake()
      let answer: ReadonlyArray<string> = [right.address]
      let greeted = 0
      const wrong = yield* Effect.acquireRelease(
        Effect.promise(
          () =>
            new Promise<Net.Server>((resolve) => {
              const listener = Net.createServer((socket) => {
                socket.on("error", () => socket.destroy())
                socket.once("data", (bytes) => {
                  greeted += 1
                  assert.deepInclude(JSON.parse(bytes.subarray(4).toString()), {
                    hostname: "web-1",
                    zone: "eu.prism.test"
                  })
                  const redirect = { type: "redirect", id: 0, zone: "eu.prism.test.", group: "eu", servers: answer }
                  socket.end(Wire.encode(JSON.stringify(redirect)))
                })
              })
              listener.listen(0, "127.0.0.1", () => resolve(listener))
            })
        ),
        (listener) => Effect.sync(() => listener.close())
      )
      const { port } = wrong.address() as Net.AddressInfo
      const [nobody] = yield* freePorts(1)
      answer = [`127.0.0.1:${nobody}`]
      const { agent, events } = yield* start({ server: `127.0.0.1:${port}`, zone: "eu.prism.test", timing: quick })
      yield* untilLive("it has come back", () => greeted >= 2)
      answer = [right.address]
      // The fake has another zone: what counts is that it came there.
      yield* untilLive("it is there", () => right.connections > 0 && right.count("hello") > 0)
      assert.strictEqual(
        events.some(({ type }) => type === "refused"),
        agent.snapshot().state === "refused"
      )
    })
  )

  it.live("is not led in circles, nor from TLS to a connection without it", () =>
    Effect.gen(function* () {
      let greeted = 0
      const circle: Net.Server = yield* Effect.acquireRelease(
        Effect.promise(
          () =>
            new Promise<Net.Server>((resolve) => {
              const listener = Net.createServer((socket) => {
                socket.on("error", () => socket.destroy())
                socket.once("data", () => {
                  greeted += 1
                  const servers = [`127.0.0.1:${socket.localPort}`]
                  socket.end(Wire.encode(JSON.stringify({ type: "redirect", id: 0, zone: "a.", group: "a", servers })))
                })
              })
              listener.listen(0, "127.0.0.1", () => resolve(listener))
            })
        ),
        (listener) => Effect.sync(() => listener.close())
      )
      const { port } = circle.address() as Net.AddressInfo
      const { events } = yield* start({ server: `127.0.0.1:${port}`, timing: quick })
      yield* untilLive("it gives up, and waits", () =>
        events.some((event) => event.type === "disconnected" && event.data.reason.includes("redirected too often"))
      )
      assert.isAtLeast(greeted, Agent.redirectsMax + 1)
      const from = Servers.parseServer("tls://127.0.0.1:8443")
      assert.strictEqual(Servers.parseRedirect(from, ["127.0.0.1:8080", "nonsense"]), undefined)
      assert.deepStrictEqual(
        Servers.parseRedirect(from, ["127.0.0.1:8080", "tls://b.test:1"])?.map(({ text }) => text),
        ["tls://b.test:1"]
      )
    })
  )

  it.live("registers again where the server does not know its lease", () =>
    Effect.gen(function* () {
      const server = yield* fake()
      const { agent } = yield* start({ server: server.address, timing: quick }).pipe(
        Effect.provideService(Random.Random, { nextDoubleUnsafe: () => 0.01, nextIntUnsafe: () => 1 })
      )
      yield* agent.waitFor("accepted")
      server.forgetLeases(true)
      yield* untilLive("it is registered", () => server.count("register") === 2)
      yield* untilLive("it holds it", () => server.host("web-1")?.sessions === 1)
      assert.strictEqual(server.connections, 1)
    })
  )

  it.live.each<[string, FakeServerOptions, string]>([
    ["a token that has run out", { tokens: [{ token: "t", expired: true }] }, "token-expired"],
    ["a token that is used up", { tokens: [{ token: "t", usesMax: 0 }] }, "token-used-up"],
    ["a token for another use", { tokens: [{ token: "t", allows: "bearer" }] }, "token-not-allowed"]
  ])("%s ends it: state, event, and whoever waits", ([, options, code]) =>
    Effect.gen(function* () {
      const server = yield* fake(options)
      const { agent, events } = yield* start({
        server: server.address,
        token: "t",
        stateDir: yield* stateFolder,
        timing: quick
      })
      assert.strictEqual((yield* failureOf(agent.waitFor("accepted"))).code, code)
      assert.strictEqual((yield* failureOf(agent.ended)).code, code)
      assert.strictEqual(agent.snapshot().state, "refused")
      assert.deepStrictEqual(
        events.flatMap((event) => (event.type === "refused" ? [event.data.code] : [])),
        [code]
      )
      assert.strictEqual(server.connections, 1)
    })
  )

  it.live("an identity that is revoked in a live session ends it", () =>
    Effect.gen(function* () {
      const server = yield* fake({ tokens: [{ token: "t" }] })
      const { agent } = yield* start({ server: server.address, token: "t", stateDir: yield* stateFolder })
      yield* agent.waitFor("accepted")
      server.revoke(agent.snapshot().identity!)
      assert.strictEqual((yield* failureOf(agent.ended)).code, "identity-revoked")
    })
  )

  it.live("a key that the server has forgotten is enrolled again where there is a token", () =>
    Effect.gen(function* () {
      const stateDir = yield* stateFolder
      const before = yield* fake({ tokens: [{ token: "t" }] })
      const first = yield* start({ server: before.address, token: "t", stateDir })
      yield* first.agent.waitFor("accepted")
      yield* first.agent.close
      const after = yield* fake({ tokens: [{ token: "t" }] })
      const second = yield* start({ server: after.address, token: "t", stateDir, timing: quick })
      yield* second.agent.waitFor("accepted")
      assert.deepStrictEqual(
        after.received
          .filter(({ type }) => type === "hello")
          .map(({ message }) => (message["auth"] as { method: string }).method),
        ["key", "enrol"]
      )
      const third = yield* fake({ tokens: [{ token: "t" }] })
      const without = yield* start({ server: third.address, stateDir, timing: quick })
      assert.strictEqual((yield* failureOf(without.agent.ended)).code, "identity-unknown")
    })
  )

  it.live("a key is replaced, and neither the name nor those that share the folder are lost", () =>
    Effect.gen(function* () {
      const stateDir = yield* stateFolder
      const server = yield* fake({ tokens: [{ token: "t", usesMax: 1 }] })
      const { agent } = yield* start({ server: server.address, token: "t", stateDir, timing: quick })
      yield* agent.waitFor("accepted")
      const other = yield* start({ server: server.address, hostname: "web-2", stateDir, timing: quick })
      yield* other.agent.waitFor("accepted")
      const file = Path.join(stateDir, "key.json")
      const before = Fs.readFileSync(file, "utf8")
      yield* agent.rotateKey
      assert.notStrictEqual(Fs.readFileSync(file, "utf8"), before)
      assert.notInclude(Fs.readFileSync(file, "utf8"), '"next"')
      server.cut()
      yield* untilLive(
        "both are back",
        () => server.sessions === 2 && server.hosts.every((host) => host.sessions === 1)
      )
      assert.strictEqual(other.agent.snapshot().identity, agent.snapshot().identity)
    })
  )

  it.live(
    "a connection that ends while the key is being replaced leaves it to the next one to find out which counts",
    () =>
      Effect.gen(function* () {
        const stateDir = yield* stateFolder
        const server = yield* fake({ tokens: [{ token: "t", usesMax: 1 }] })
        const { agent, seen } = yield* start({ server: server.address, token: "t", stateDir, timing: quick })
        yield* agent.waitFor("accepted")
        // The server has taken it, and its answer does not arrive.
        server.cutAfter("rotate")
        assert.strictEqual((yield* failureOf(agent.rotateKey)).code, "timeout")
        yield* untilLive("it is back", () => seen("connected") === 2 && agent.snapshot().state === "online")
        assert.notInclude(Fs.readFileSync(Path.join(stateDir, "key.json"), "utf8"), '"next"')
        // And where the server has not even read it.
        server.cutOnNext("rotate")
        assert.strictEqual((yield* failureOf(agent.rotateKey)).code, "timeout")
        yield* untilLive("it is back again", () => seen("connected") === 3 && agent.snapshot().state === "online")
        yield* agent.rotateKey
        assert.strictEqual(server.count("rotate"), 3)
      })
  )

  it.live("a key is not lost by a second try behind a first one that nobody waited for", () =>
    Effect.gen(function* () {
      const stateDir = yield* stateFolder
      const server = yield* fake({ tokens: [{ token: "t", usesMax: 1 }] })
      const options = { server: server.address, token: "t", stateDir, timing: quick }
      const { agent, seen } = yield* start(options)
      yield* agent.waitFor("accepted")
      // The server does what it was asked for.
      yield* Fiber.interrupt(yield* Effect.forkChild(agent.rotateKey, { startImmediately: true }))
      yield* Effect.ignore(agent.rotateKey)
      yield* untilLive("it has said so", () => server.count("rotate") > 0)
      server.cut()
      yield* untilLive("it is back", () => seen("connected") >= 2 && agent.snapshot().state === "online")
      yield* agent.rotateKey
      const again = yield* start({ ...options, hostname: "web-2" })
      yield* again.agent.waitFor("accepted")
      assert.strictEqual(again.agent.snapshot().identity, agent.snapshot().identity)
    })
  )

  it.live("of two that share a folder the one whose session knows the former key only replaces nothing", () =>
    Effect.gen(function* () {
      const stateDir = yield* stateFolder
      const server = yield* fake({ tokens: [{ token: "t", usesMax: 1 }] })
      const options = { server: server.address, token: "t", stateDir, timing: quick }
      const one = yield* start(options)
      yield* one.agent.waitFor("accepted")
      const other = yield* start({ ...options, hostname: "web-2" })
      yield* other.agent.waitFor("accepted")
      yield* one.agent.rotateKey
      assert.strictEqual((yield* failureOf(other.agent.rotateKey)).code, "busy")
      yield* untilLive(
        "it is back with the new key",
        () => other.seen("connected") === 2 && other.agent.snapshot().state === "online"
      )
      yield* other.agent.rotateKey
      const third = yield* start({ ...options, hostname: "web-3" })
      yield* third.agent.waitFor("accepted")
      assert.strictEqual(third.agent.snapshot().identity, one.agent.snapshot().identity)
    })
  )

  it.live("another server that does not know it is only a failed attempt, once one has known it", () =>
    Effect.gen(function* () {
      const stateDir = yield* stateFolder
      const server = yield* fake({ tokens: [{ token: "t" }] })
      const stranger = yield* fake()
      const enrolling = yield* start({ server: server.address, token: "t", stateDir, timing: quick })
      yield* enrolling.agent.waitFor("accepted")
      yield* enrolling.agent.close
      const { agent, seen } = yield* start({ server: [server.address, stranger.address], stateDir, timing: quick })
      yield* agent.waitFor("accepted")
      server.cut()
      yield* untilLive("it is back", () => seen("connected") === 2 && agent.snapshot().state === "online")
      assert.isAtLeast(stranger.count("hello"), 1)
    })
  )

  it.live("a name whose server moves in DNS is followed, since each attempt asks anew", () =>
    Effect.gen(function* () {
      const registry = new FakeRegistry()
      const old = yield* fake({ registry })
      const moved = yield* fake({ registry, host: "127.0.0.2", port: old.port })
      let address = "127.0.0.1"
      let asked = 0
      const lookup: Net.LookupFunction = (_, options, callback) => {
        asked += 1
        if (options.all === true) callback(null, [{ address, family: 4 }])
        else callback(null, address, 4)
      }
      const { agent } = yield* start({ server: `prism.example.net:${old.port}`, timing: quick }).pipe(
        Effect.provideService(Lookup, lookup)
      )
      yield* agent.waitFor("accepted")
      address = "127.0.0.2"
      yield* Effect.promise(() => old.stop())
      yield* untilLive("it is at the new address", () => moved.sessions === 1)
      assert.isAtLeast(asked, 2)
    })
  )

  it.live("tells what is parked, and what the server has to say", () =>
    Effect.gen(function* () {
      const server = yield* fake()
      const { agent, events, seen } = yield* start({ server: server.address })
      yield* agent.waitFor("served")
      server.park("web-1", "foreign records")
      server.notice("maintenance", "tonight")
      yield* untilLive("it was told", () => seen("parked") + seen("notice") === 2)
      const told = events.flatMap((event) => (event.type === "parked" || event.type === "notice" ? [event.data] : []))
      assert.deepStrictEqual(told, [
        { host: "web-1.hosts.prism.test.", reason: "foreign records" },
        { code: "maintenance", message: "tonight" }
      ])
    })
  )

  it.live("a listener that throws disturbs nobody, and one that changes something is heard", () =>
    Effect.gen(function* () {
      const server = yield* fake()
      const { agent } = yield* start({ server: server.address })
      agent.subscribe(() => {
        throw new Error("of the listener")
      })
      let updated = false
      agent.subscribe((event) => {
        if (event.type !== "accepted" || updated) return
        updated = true
        Effect.runFork(agent.update({ labels: { from: "a listener" } }))
      })
      yield* untilLive("it has", () => server.host("web-1")?.labels["from"] === "a listener")
    })
  )

  it.live("leaves nothing open behind its scope, also in the middle of a handshake", () =>
    Effect.gen(function* () {
      const server = yield* fake()
      server.ignoreNext("hello")
      yield* Effect.scoped(
        Effect.gen(function* () {
          yield* start({ server: server.address })
          yield* untilLive("it has said hello", () => server.count("hello") === 1)
        })
      )
      const { agent } = yield* Effect.scoped(start({ server: server.address }))
      assert.strictEqual(agent.snapshot().state, "closed")
      yield* untilLive("nothing is connected", () => server.sessions === 0)
      assert.strictEqual((yield* failureOf(agent.update({ labels: {} }))).code, "closed")
    })
  )
})

/** Lets time pass, a second for each look, until it holds. */
const pass = Effect.fnUntraced(function* (what: string, holds: () => boolean) {
  const second = Effect.provideService(TestClock.adjust("1 second"), Clock.Clock, yield* Clock.Clock)
  yield* TestClock.withLive(waitUntil(what, Effect.map(second, holds), (held) => held))
})

/** A clock whose wall can be set by hand; waits and monotonic time are those of the test clock. */
const walled = Effect.gen(function* () {
  const clock = yield* Clock.Clock
  let offsetMillis = 0
  const millis = () => clock.currentTimeMillisUnsafe() + offsetMillis
  const own: Clock.Clock = {
    sleep: (duration) => clock.sleep(duration),
    monotonicTimeNanosUnsafe: () => clock.monotonicTimeNanosUnsafe(),
    monotonicTimeNanos: clock.monotonicTimeNanos,
    currentTimeNanosUnsafe: () => BigInt(millis()) * 1_000_000n,
    currentTimeNanos: Effect.sync(() => BigInt(millis()) * 1_000_000n),
    currentTimeMillisUnsafe: millis,
    currentTimeMillis: Effect.sync(millis)
  }
  return {
    clock: own,
    jump: (duration: Duration.Input) => (offsetMillis += Duration.toMillis(Duration.fromInputUnsafe(duration)))
  }
})

describe("time", () => {
  it.effect("beats within each interval, and a beat without an answer is a lost connection", () =>
    Effect.gen(function* () {
      const server = yield* fake({ beatSeconds: 60 })
      const { agent, seen } = yield* start({ server: server.address })
      yield* until("it is online", () => agent.snapshot().state === "online")
      for (let beats = 1; beats <= 3; beats++) {
        yield* TestClock.adjust("1 minute")
        yield* until("it has beaten", () => server.count("heartbeat") >= beats)
      }
      server.freeze()
      yield* TestClock.adjust("1 minute")
      // What is frozen reads nothing; that the beat is under way shows in what its limit does.
      yield* TestClock.adjust("10 seconds")
      assert.isAtLeast(seen("disconnected"), 1)
      server.thaw()
      yield* pass("it is back", () => agent.snapshot().state === "online")
      assert.strictEqual(server.host("web-1")?.sessions, 1)
    })
  )

  it.effect("waits as long as the server asks before it tries again", () =>
    Effect.gen(function* () {
      const server = yield* fake()
      server.refuseNext("register", { code: "rate-limited", retryable: true, retryAfterSeconds: 20 })
      const { agent } = yield* start({ server: server.address })
      yield* until("it has asked", () => server.count("register") === 1)
      yield* TestClock.adjust("19 seconds")
      assert.deepStrictEqual([server.count("register"), agent.snapshot().state], [1, "registering"])
      yield* TestClock.adjust("2 seconds")
      yield* until("it has the name", () => agent.snapshot().state === "online")
      assert.strictEqual(server.connections, 1)
    })
  )

  it.effect("waits as long as a full server asks in the words of version 1 before it comes again", () =>
    Effect.gen(function* () {
      let turnedAway = 0
      const address = yield* plain((socket) => {
        socket.on("error", () => socket.destroy())
        turnedAway += 1
        const answer = { type: "response", status: "error", message: "full", code: "capacity", retryAfterSeconds: 5 }
        socket.end(Wire.encode(JSON.stringify(answer)))
        socket.resume()
      })
      const { agent, events, seen } = yield* start({ server: address })
      yield* until("it was turned away", () => seen("disconnected") === 1)
      const waits = events.flatMap((event) => (event.type === "disconnected" ? [event.data.retryInMillis!] : []))
      assert.isAtLeast(waits[0]!, 5000)
      yield* TestClock.adjust("4 seconds")
      assert.deepStrictEqual([turnedAway, agent.snapshot().state], [1, "waiting"])
      yield* pass("it comes again", () => turnedAway === 2)
    })
  )

  it.effect(
    "a server that does not answer in time has its connection reset: what was said is not delivered later",
    () =>
      Effect.gen(function* () {
        const server = yield* silent
        yield* start({ server: server.address })
        yield* until("it has said hello", () => server.chunks() > 0)
        yield* pass("it has given up", () => server.ends.length > 0)
        assert.strictEqual(server.ends[0], "ECONNRESET")
      })
  )

  it.effect("who closes while an answer is waited for ends the connection in order", () =>
    Effect.gen(function* () {
      const server = yield* silent
      const { agent } = yield* start({ server: server.address })
      yield* until("it has said hello", () => server.chunks() > 0)
      yield* agent.close
      yield* until("it is closed", () => server.ends.length > 0)
      assert.deepStrictEqual(server.ends, ["end"])
    })
  )

  it.effect("after a sleep of the machine the server is asked at once whether it still knows us", () =>
    Effect.gen(function* () {
      const server = yield* fake({ beatSeconds: 600 })
      const { clock, jump } = yield* walled
      const { agent } = yield* Effect.provideService(start({ server: server.address }), Clock.Clock, clock)
      yield* until("it is online", () => agent.snapshot().state === "online")
      jump("1 hour")
      yield* TestClock.adjust("5 seconds")
      yield* until("it has beaten", () => server.count("heartbeat") === 1)
      server.freeze()
      jump("1 hour")
      yield* TestClock.adjust("5 seconds")
      yield* TestClock.adjust("10 seconds")
      assert.notStrictEqual(agent.snapshot().state, "online")
    })
  )

  it.effect("a clock that is set back, or a little ahead, changes nothing", () =>
    Effect.gen(function* () {
      const server = yield* fake({ beatSeconds: 600 })
      const { clock, jump } = yield* walled
      const { agent, events } = yield* Effect.provideService(start({ server: server.address }), Clock.Clock, clock)
      yield* until("it is online", () => agent.snapshot().state === "online")
      const before = events.length
      jump("-2 days")
      yield* TestClock.adjust("1 minute")
      jump("1 second")
      yield* TestClock.adjust("1 minute")
      assert.deepStrictEqual([server.count("heartbeat"), events.length], [0, before])
    })
  )

  it.effect("waits for ever for a server that is away, less often with time", () =>
    Effect.gen(function* () {
      const server = yield* fake()
      yield* Effect.promise(() => server.stop())
      const { agent, events } = yield* start({ server: server.address })
      for (let failures = 1; failures <= 12; failures++) {
        yield* until("it has failed", () => events.filter(({ type }) => type === "disconnected").length >= failures)
        yield* TestClock.adjust("30 seconds")
      }
      const waits = events.flatMap((event) => (event.type === "disconnected" ? [event.data.retryInMillis!] : []))
      waits.slice(0, 12).forEach((wait, i) => assert.isAtMost(wait, Math.min(30_000, 1000 * 2 ** i)))
      yield* Effect.promise(() => server.restart())
      yield* pass("it is online", () => agent.snapshot().state === "online")
    })
  )
})

describe("many agents", () => {
  it.live("of 1,000 agents that lose one server together, the reconnects are spread", () =>
    Effect.gen(function* () {
      const count = 1000
      const server = yield* fake({ beatSeconds: 60 })
      const agents = yield* Effect.forEach(
        Array.from({ length: count }, (_, i) => i),
        (i) => Agent.make({ server: server.address, hostname: `web-${i}`, timing: { backoffBaseMillis: 2000 } }),
        { concurrency: 50 }
      )
      yield* Effect.forEach(agents, (agent) => agent.waitFor("accepted"), { concurrency: "unbounded", discard: true })
      const waits: Array<number> = []
      for (const agent of agents) {
        agent.subscribe((event) => {
          if (event.type === "disconnected" && event.data.failures === 1) waits.push(event.data.retryInMillis ?? 0)
        })
      }
      const before = server.count("hello")
      yield* Effect.promise(() => server.restart())
      yield* waitUntil(
        "all are back",
        Effect.sync(() => [server.count("hello") - before, server.sessions]),
        ([hellos, sessions]) => hellos! >= count && sessions === count,
        { within: "15 seconds" }
      )
      // When they come is drawn, and shown; when they arrive also depends on how busy this machine is.
      const bins = Array.from(
        { length: 20 },
        (_, bin) => waits.filter((millis) => Math.floor(millis / 100) === bin).length
      )
      console.log(bins.map((n, i) => `${String(i * 100).padStart(5)} ms ${"#".repeat(n / 2)} ${n}`).join("\n"))
      assert.strictEqual(waits.length, count)
      // Spread evenly a bin has 50; a herd has all of them in one.
      assert.isBelow(Math.max(...bins), 150)
      assert.isAbove(Math.min(...bins), 5)
      assert.isBelow(server.count("hello") - before, 2 * count)
    })
  )
})

describe("addresses of interfaces", () => {
  const machine = (...addresses: ReadonlyArray<string>): Snapshot.Snapshot => ({
    interfaces: {
      lo: [{ address: "127.0.0.1", internal: true }],
      eth0: addresses.map((address) => ({ address, internal: false }))
    },
    links: undefined,
    inet6: [],
    defaultRoutes: []
  })

  it.live("are registered, and followed as they change", () =>
    Effect.gen(function* () {
      const server = yield* fake()
      let now = machine("192.0.2.7")
      const { agent, events } = yield* start({
        server: server.address,
        addresses: "interfaces",
        following: { read: () => now, every: "10 millis", settle: "20 millis" }
      })
      yield* agent.waitFor("accepted")
      assert.deepStrictEqual(server.host("web-1")?.addresses, ["192.0.2.7"])
      now = machine("192.0.2.8", "2001:db8::8")
      yield* untilLive("they are followed", () => server.host("web-1")?.addresses.length === 2)
      now = machine()
      yield* agent.update({ labels: { later: "yes" } })
      assert.deepInclude(server.host("web-1"), {
        addresses: ["192.0.2.8", "2001:db8::8"],
        labels: { later: "yes" }
      })
      const changed = events.flatMap((event) => (event.type === "address" ? [event.data.previous] : []))
      assert.deepStrictEqual(changed, [["192.0.2.7"]])
    })
  )

  it.live("where none fits, the one that the server sees stands in until one does", () =>
    Effect.gen(function* () {
      const server = yield* fake()
      let now = machine()
      const { agent } = yield* start({
        server: server.address,
        addresses: "interfaces",
        following: { read: () => now, every: "10 millis", settle: "20 millis" }
      })
      yield* agent.waitFor("accepted")
      assert.deepStrictEqual(server.host("web-1")?.addresses, ["127.0.0.1"])
      now = machine("192.0.2.7")
      yield* untilLive("it is followed", () => server.host("web-1")?.addresses.join() === "192.0.2.7")
    })
  )
})
