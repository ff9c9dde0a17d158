import { assert, describe, it } from "@effect/vitest"
import { FakeServer, type FakeServerOptions } from "@prism-dns/client-sdk/testing"
import { Effect } from "effect"
import * as Fs from "node:fs"
import * as Path from "node:path"
import { temporaryFolder } from "../../../core/test/harness/PowerDns.ts"
import { waitUntil } from "../../../core/test/harness/waitUntil.ts"
import { authority } from "../../../server/test/harness/certificates.ts"
import * as PrismAgent from "../harness/PrismAgent.ts"

const fake = (options: FakeServerOptions = {}) =>
  Effect.acquireRelease(
    Effect.promise(() => FakeServer.start(options)),
    (server) => Effect.promise(() => server.stop())
  )

const start = (args: ReadonlyArray<string>, environment: Readonly<Record<string, string>> = {}) =>
  PrismAgent.start(args, { environment })
const run = (args: ReadonlyArray<string>, environment: Readonly<Record<string, string>> = {}) =>
  PrismAgent.run(args, { environment })

/** Waits until the fake server is as described. */
const until = (what: string, server: FakeServer, holds: (server: FakeServer) => boolean) =>
  waitUntil(
    what,
    Effect.sync(() => server),
    holds,
    { within: "15 seconds" }
  )

const folder = Effect.map(temporaryFolder("prism-agent-"), (path) => Path.join(path, "state"))

describe("prism-agent", () => {
  it.live("keeps a name until it is told to end, and ends with 0", () =>
    Effect.gen(function* () {
      const server = yield* fake({ beatSeconds: 0.05 })
      const agent = yield* start(
        ["--server", server.address, "--hostname", "web-1", "--label", "role=web", "--ttl", "30"],
        { PRISM_AGENT_STATE: yield* folder }
      )
      yield* until("beats keep the lease", server, (server) => server.count("heartbeat") > 5)
      assert.deepInclude(server.host("web-1"), { ttlSeconds: 30, labels: { role: "web" }, sessions: 1 })
      const ended = yield* agent.kill("SIGTERM")
      assert.include(ended, { code: 0, signal: null, stdout: "" })
      // a line for what happened, none for each beat
      assert.isBelow(agent.lines().length, 12, ended.stderr)
      assert.strictEqual(server.count("release"), 0)
    }).pipe(Effect.scoped)
  )

  it.live("gives the name up at its end where it is asked to", () =>
    Effect.gen(function* () {
      const server = yield* fake()
      const agent = yield* start(["--server", server.address, "--hostname", "web-1", "--release-on-exit"], {
        PRISM_AGENT_STATE: yield* folder
      })
      yield* agent.said("served")
      const ended = yield* agent.kill("SIGTERM")
      assert.strictEqual(ended.code, 0)
      assert.strictEqual(server.count("release"), 1)
      yield* agent.said("released", { name: "web-1" })
    }).pipe(Effect.scoped)
  )

  it.live("enrols a key with the token of a file, and needs no token afterwards", () =>
    Effect.gen(function* () {
      const server = yield* fake({ tokens: [{ token: "enrol-me", usesMax: 1 }] })
      const state = yield* folder
      const tokenFile = `${state}.token`
      Fs.writeFileSync(tokenFile, "enrol-me\n", { mode: 0o600 })
      const args = ["--server", server.address, "--state", state]
      const first = yield* start([...args, "--hostname", "web-1", "--hostname", "web-2", "--token-file", tokenFile])
      yield* until("both names are there", server, ({ hosts }) => hosts.length === 2)
      const owners = server.hosts.map(({ owner }) => owner)
      assert.strictEqual(owners[0], owners[1])
      assert.notInclude((yield* first.kill("SIGTERM")).stderr, "enrol-me")
      assert.strictEqual(Fs.statSync(Path.join(state, "key.json")).mode & 0o777, 0o600)
      Fs.unlinkSync(tokenFile)
      const second = yield* start([...args, "--hostname", "web-1"])
      assert.strictEqual((yield* second.said("connected"))["identity"], owners[0])
    }).pipe(Effect.scoped)
  )

  it.live("keeps trying where no server is, and finds it when it comes", () =>
    Effect.gen(function* () {
      const server = yield* fake()
      yield* Effect.promise(() => server.stop())
      const agent = yield* start(["--server", server.address, "--hostname", "web-1"], {
        PRISM_AGENT_STATE: yield* folder
      })
      yield* agent.said("disconnected")
      yield* Effect.promise(() => server.restart())
      yield* until("the name is there", server, (server) => server.host("web-1")?.sessions === 1)
    }).pipe(Effect.scoped)
  )

  it.live("goes to the next server when one is away", () =>
    Effect.gen(function* () {
      const gone = yield* fake()
      yield* Effect.promise(() => gone.stop())
      const server = yield* fake()
      yield* start(["--server", gone.address, "--server", server.address, "--hostname", "web-1"], {
        PRISM_AGENT_STATE: yield* folder
      })
      yield* until("the name is there", server, (server) => server.host("web-1") !== undefined)
    }).pipe(Effect.scoped)
  )

  it.live("ends with 1 and the reason when its identity is revoked", () =>
    Effect.gen(function* () {
      const server = yield* fake({ tokens: [{ token: "enrol-me" }] })
      const agent = yield* start(["--server", server.address, "--hostname", "web-1", "--state", yield* folder], {
        PRISM_TOKEN: "enrol-me"
      })
      const connected = yield* agent.said("served")
      assert.strictEqual(connected["host"], "web-1.hosts.prism.test.")
      server.revoke(server.host("web-1")!.owner)
      const ended = yield* agent.ended
      assert.strictEqual(ended.code, 1)
      assert.include(ended.stderr, "prism-agent: web-1 was refused (identity-revoked): ")
      assert.include(ended.stderr, "Move key.json out of the state folder")
    }).pipe(Effect.scoped)
  )

  it.live("once: of a name that is another's for now it says how to get it", () =>
    Effect.gen(function* () {
      const server = yield* fake()
      server.refuseNext("register", { code: "hostname-taken", retryable: true, retryAfterSeconds: 60 })
      const ended = yield* run(["once", "--server", server.address, "--hostname", "web-1", "--timeout", "1"], {
        PRISM_AGENT_STATE: yield* folder
      })
      assert.strictEqual(ended.code, 1)
      assert.include(ended.stderr, "web-1: not applied within 1 s; hostname-taken: ")
      assert.include(ended.stderr, "prism-dns identities reset")
    }).pipe(Effect.scoped)
  )

  it.live("a name that is refused does not take the others with it", () =>
    Effect.gen(function* () {
      const server = yield* fake()
      server.refuseNext("register", { code: "name-reserved" })
      const agent = yield* start(["--server", server.address, "--hostname", "wpad", "--hostname", "web-1"], {
        PRISM_AGENT_STATE: yield* folder
      })
      yield* agent.said("a name is lost; the others are kept", { name: "wpad" })
      yield* until("the other name is there", server, (server) => server.host("web-1")?.sessions === 1)
      assert.strictEqual((yield* agent.kill("SIGTERM")).code, 0)
    }).pipe(Effect.scoped)
  )

  it.live("registers the addresses that are listed, or those of an interface that is named", () =>
    Effect.gen(function* () {
      const server = yield* fake()
      const state = yield* folder
      yield* start(
        ["--server", server.address, "--hostname", "a", "--address", "192.0.2.7", "--address", "2001:db8::7"],
        {
          PRISM_AGENT_STATE: state
        }
      )
      yield* start(["--server", server.address, "--hostname", "b", "--interfaces", "lo*", "--family", "ipv4"], {
        PRISM_AGENT_STATE: state
      })
      yield* until("both are there", server, ({ hosts }) => hosts.length === 2)
      assert.deepStrictEqual(server.host("a")?.addresses, ["192.0.2.7", "2001:db8::7"])
      assert.include(server.host("b")!.addresses, "127.0.0.1")
    }).pipe(Effect.scoped)
  )

  it.live("a key that others can read is bad configuration", () =>
    Effect.gen(function* () {
      const server = yield* fake({ tokens: [{ token: "enrol-me" }] })
      const state = yield* folder
      const args = ["once", "--server", server.address, "--hostname", "web-1", "--state", state]
      assert.strictEqual((yield* run(args, { PRISM_TOKEN: "enrol-me" })).code, 0)
      Fs.chmodSync(Path.join(state, "key.json"), 0o644)
      const ended = yield* run(args)
      assert.strictEqual(ended.code, 78)
      assert.include(ended.stderr, "chmod 600")
    }).pipe(Effect.scoped)
  )

  it.live("wrong usage ends with 2, what the environment or a file says wrong with 78", () =>
    Effect.gen(function* () {
      const wrong = yield* run([])
      assert.include(wrong, { code: 2, stdout: "" })
      assert.strictEqual(
        wrong.stderr,
        "prism-agent: wrong usage: --server: name a server, HOST:PORT; PRISM_AGENT_SERVER says it too\n"
      )
      assert.strictEqual((yield* run(["--server", "a.example.net:1", "--colour"])).code, 2)
      assert.strictEqual((yield* run(["twice"])).code, 2)
      assert.strictEqual((yield* run(["once", "--server", "a.example.net:1", "--timeout", "0"])).code, 2)
      const environment = yield* run(["--server", "a.example.net:1"], { PRISM_AGENT_ACK: "soon" })
      assert.include(environment.stderr, "bad configuration: PRISM_AGENT_ACK: 'soon' is none of")
      assert.strictEqual(environment.code, 78)
      const file = yield* run(["--server", "a.example.net:1", "--token-file", "/nonexistent/token"])
      assert.include(file.stderr, "bad configuration: token-file: /nonexistent/token cannot be read")
      assert.strictEqual(file.code, 78)
    }).pipe(Effect.scoped)
  )

  it.live("explains this machine's addresses without a server, and says its version and its help", () =>
    Effect.gen(function* () {
      const explained = yield* run(["--explain"])
      assert.strictEqual(explained.code, 0)
      assert.match(explained.stdout, /^#\s+ADDRESS\s+INTERFACE\s+KIND\s+WHY\n/)
      assert.match(explained.stdout, /127\.0\.0\.1 +lo.* left out \(loopback\)/)
      assert.match((yield* run(["--version"])).stdout, /^prism-agent v\d+\.\d+\.\d+\n$/)
      const help = yield* run(["once", "--help"])
      assert.include(help.stdout, "--token-file FILE")
      assert.include(help.stdout, "--timeout SECONDS")
      assert.match((yield* run(["--completions", "bash"])).stdout, /prism-agent/)
    }).pipe(Effect.scoped)
  )
})

describe("prism-agent over TLS", () => {
  /** A fake server whose certificate is for `prism.example.net`, and takes client certificates of the same authority. */
  const secured = Effect.gen(function* () {
    const ca = yield* authority()
    const { certificate, key } = ca.issue("prism.example.net", { alternativeNames: "DNS:prism.example.net" })
    const read = (path: string) => Fs.readFileSync(path, "utf8")
    const server = yield* fake({
      tls: { cert: read(certificate), key: read(key), clientCa: read(ca.certificate) }
    })
    const [, port] = /:(\d+)$/.exec(server.address)!
    return { ca, server, args: ["once", "--json", "--tls", "--server", `127.0.0.1:${port}`, "--hostname", "web-1"] }
  })

  it.live("the server is whom the certificate says, or nothing is said to it", () =>
    Effect.gen(function* () {
      const { args, ca, server } = yield* secured
      const environment = { PRISM_AGENT_STATE: yield* folder }
      const trusting = ["--ca", ca.certificate]
      for (const wrong of [[], trusting, ["--server-name", "prism.example.net"]]) {
        const ended = yield* run([...args, ...wrong], { ...environment, PRISM_TOKEN: "not to be told" })
        assert.strictEqual(ended.code, 1)
        assert.strictEqual(JSON.parse(ended.stdout).error.code, "server-untrusted")
      }
      assert.strictEqual(server.count("hello"), 0)
      const right = yield* run(
        [...args, ...trusting, "--server-name", "prism.example.net", "--auth", "anonymous"],
        environment
      )
      assert.strictEqual(right.code, 0, right.stderr)
    }).pipe(Effect.scoped)
  )

  it.live("files that are no certificates, and a key of another, are bad configuration", () =>
    Effect.gen(function* () {
      const { args, ca, server } = yield* secured
      const environment = { PRISM_AGENT_STATE: yield* folder }
      const [one, other] = [ca.issue("web-1", { usage: "clientAuth" }), ca.issue("web-2", { usage: "clientAuth" })]
      for (const [flags, said] of [
        [["--ca", one.key], `ca: ${one.key} holds no certificate in PEM`],
        [["--cert", one.certificate, "--key", other.key], "is not the key of the certificate in"],
        [["--cert", one.certificate, "--key", one.certificate], "holds no private key in PEM"]
      ] as const) {
        const ended = yield* run([...args, ...flags], environment)
        assert.strictEqual(ended.code, 78)
        assert.include(ended.stderr, said)
        assert.notInclude(ended.stderr, "PRIVATE KEY")
      }
      assert.strictEqual(server.connections, 0)
    }).pipe(Effect.scoped)
  )

  it.live("a client certificate stands for the identity", () =>
    Effect.gen(function* () {
      const { args, ca, server } = yield* secured
      const pair = ca.issue("web-1.example.net", { usage: "clientAuth" })
      const ended = yield* run(
        [...args, "--ca", ca.certificate, "--server-name", "prism.example.net", "--cert", pair.certificate],
        { PRISM_AGENT_STATE: yield* folder, PRISM_AGENT_KEY: pair.key }
      )
      assert.strictEqual(ended.code, 0, ended.stderr)
      assert.deepInclude(server.received[0]?.message, { auth: { method: "certificate" } })
    }).pipe(Effect.scoped)
  )
})

describe("prism-agent once", () => {
  it.live("prints each level as it is reached", () =>
    Effect.gen(function* () {
      const server = yield* fake({ levelMillis: 20 })
      const ended = yield* run(["once", "--server", server.address, "--hostname", "web-1", "--ack", "served"], {
        PRISM_AGENT_STATE: yield* folder
      })
      assert.strictEqual(ended.code, 0, ended.stderr)
      const lines = ended.stdout.trim().split("\n")
      assert.deepStrictEqual(
        lines.map((line) => line.split(/\s+/).slice(0, 3)),
        ["accepted", "applied", "served"].map((level) => [level, "web-1.hosts.prism.test.", "127.0.0.1"])
      )
      for (const line of lines) assert.match(line, / [\d.]+ ms$/)
    }).pipe(Effect.scoped)
  )

  it.live("as JSON, one object with what was reached by each name, and when", () =>
    Effect.gen(function* () {
      const server = yield* fake()
      const args = ["once", "--json", "--server", server.address, "--hostname", "a", "--hostname", "b"]
      const ended = yield* run([...args, "--release-on-exit"], { PRISM_AGENT_STATE: yield* folder })
      assert.strictEqual(ended.code, 0, ended.stderr)
      const json = JSON.parse(ended.stdout)
      assert.deepInclude(json, { reached: true, level: "applied" })
      assert.isNumber(json.elapsedMillis)
      assert.deepStrictEqual(
        json.hosts.map(({ addresses, host, hostname }: Record<string, unknown>) => ({ addresses, host, hostname })),
        ["a", "b"].map((hostname) => ({
          hostname,
          host: `${hostname}.hosts.prism.test.`,
          addresses: ["127.0.0.1"]
        }))
      )
      assert.containsAllKeys(json.hosts[0].levels, ["accepted", "applied"])
      assert.isNumber(json.hosts[0].levels.applied.millis)
      assert.strictEqual(server.count("release"), 2)
    }).pipe(Effect.scoped)
  )

  it.live("ends with 1 when the level was not reached in time, and says how far it came", () =>
    Effect.gen(function* () {
      const server = yield* fake({ stopAt: "accepted" })
      const args = ["once", "--server", server.address, "--hostname", "web-1", "--timeout", "1"]
      const environment = { PRISM_AGENT_STATE: yield* folder }
      const ended = yield* run(args, environment)
      assert.strictEqual(ended.code, 1)
      assert.match(ended.stdout, /^accepted /)
      assert.include(ended.stderr, "prism-agent: web-1: not applied within 1 s")
      const json = JSON.parse((yield* run([...args, "--json"], environment)).stdout)
      assert.deepInclude(json, { reached: false, level: "applied" })
      assert.strictEqual(json.hosts[0].level, "accepted")
      assert.strictEqual(json.error.code, "not-reached")
    }).pipe(Effect.scoped)
  )

  it.live("gives up where no server is, and says why", () =>
    Effect.gen(function* () {
      const server = yield* fake()
      yield* Effect.promise(() => server.stop())
      const ended = yield* run(["once", "--server", server.address, "--hostname", "web-1", "--timeout", "1"], {
        PRISM_AGENT_STATE: yield* folder
      })
      assert.include(ended, { code: 1, stdout: "" })
      assert.include(ended.stderr, `web-1: not applied within 1 s; ${server.address}: `)
    }).pipe(Effect.scoped)
  )

  it.live("does not wait for records that PowerDNS will not have", () =>
    Effect.gen(function* () {
      const server = yield* fake({ stopAt: "accepted" })
      const agent = yield* start(["once", "--server", server.address, "--hostname", "web-1", "--log-level", "info"], {
        PRISM_AGENT_STATE: yield* folder
      })
      yield* agent.said("accepted")
      server.park("web-1", "a CNAME is there")
      const ended = yield* agent.ended
      assert.strictEqual(ended.code, 1)
      assert.include(
        ended.stderr,
        "web-1.hosts.prism.test. is accepted, but its records were not taken: a CNAME is there"
      )
    }).pipe(Effect.scoped)
  )

  it.live("a refusal ends it with 1 and the server's code", () =>
    Effect.gen(function* () {
      const server = yield* fake({ tokens: [{ token: "good" }] })
      const ended = yield* run(["once", "--json", "--server", server.address, "--hostname", "web-1"], {
        PRISM_AGENT_STATE: yield* folder,
        PRISM_TOKEN: "bad"
      })
      assert.strictEqual(ended.code, 1)
      const json = JSON.parse(ended.stdout)
      assert.include(json, { reached: false })
      assert.strictEqual(json.error.code, "token-invalid")
    }).pipe(Effect.scoped)
  )
})
