/** Each situation that a person can mend: one clear sentence with the next step, and the exit code. */
import { assert, describe, it } from "@effect/vitest"
import { Effect, Redacted } from "effect"
import * as Dgram from "node:dgram"
import * as Fs from "node:fs"
import * as Http from "node:http"
import * as Net from "node:net"
import * as Path from "node:path"
import { freePort, freePorts } from "../../../core/test/harness/ports.ts"
import { layerServer, temporaryFolder, TestPowerDns } from "../../../core/test/harness/PowerDns.ts"
import { waitUntil } from "../../../core/test/harness/waitUntil.ts"
import { version } from "../../src/Version.ts"
import * as PrismServer from "../harness/PrismServer.ts"

const folder = temporaryFolder("prism-failures-")

const takeTcp = Effect.acquireRelease(
  Effect.callback<Net.Server>((resume) => {
    const server = Net.createServer().listen(0, "127.0.0.1", () => resume(Effect.succeed(server)))
  }),
  (server) => Effect.sync(() => server.close())
).pipe(Effect.map((server) => (server.address() as Net.AddressInfo).port))

const takeUdp = Effect.gen(function* () {
  const port = yield* freePort
  yield* Effect.acquireRelease(
    Effect.callback<Dgram.Socket>((resume) => {
      const socket = Dgram.createSocket("udp4").bind(port, "127.0.0.1", () => resume(Effect.succeed(socket)))
    }),
    (socket) => Effect.sync(() => socket.close())
  )
  return port
})

/** It says one thing, and not how it came to know it. */
const assertSentence = (stderr: string, sentence: RegExp) => {
  const lines = stderr.trim().split("\n")
  const said = lines.filter((line) => line.startsWith("prism-dns: "))
  assert.lengthOf(said, 1, stderr)
  assert.match(said[0]!, sentence)
  assert.strictEqual(lines.at(-1), said[0])
  assert.notMatch(stderr, /^\s+at |Effect|Cause|\[object/m)
}

/** A PowerDNS that nobody needs to reach. */
const somewhere = { nodes: [{ api: "http://127.0.0.1:1", apiKey: "k", dns: "127.0.0.1:1" }] }

const serveFile = (path: string, settings: object) => {
  Fs.writeFileSync(Path.join(path, "prism.yaml"), JSON.stringify(settings, null, 2))
  return ["serve", "--config", "prism.yaml"]
}

describe("prism-dns", () => {
  it.live("a bad key of the configuration: file, line, key, the nearest right one; 78", () =>
    Effect.gen(function* () {
      const path = yield* folder
      Fs.writeFileSync(
        Path.join(path, "prism.yaml"),
        "zones:\n  - name: a.test\n    tll: 5s\npowerdns:\n  nodes:\n    - { api: http://127.0.0.1:1, apiKey: k, dns: 127.0.0.1 }\n"
      )
      for (const command of [["serve"], ["config", "check"], ["config", "print"]]) {
        const ended = yield* PrismServer.run([...command, "--config", "prism.yaml"], { folder: path })
        assert.strictEqual(ended.code, 78)
        assertSentence(
          ended.stderr,
          /^prism-dns: bad configuration: prism\.yaml:3: zones\[0\]\.tll: unknown key, did you mean ttl\?$/
        )
      }
    })
  )

  it.live("wrong usage: 2", () =>
    Effect.gen(function* () {
      const path = yield* folder
      for (const args of [
        ["serve", "--tcp-prot", "1"],
        ["sevre"],
        ["dev", "--dns-port", "70000"],
        ["dev", "--backend", "x"]
      ]) {
        assert.strictEqual((yield* PrismServer.run(args, { folder: path })).code, 2, args.join(" "))
      }
    })
  )

  it.live("a value that cannot be meant: which, and what it is to be, without asking a server; 2", () =>
    Effect.gen(function* () {
      const path = yield* folder
      const wrong: ReadonlyArray<readonly [ReadonlyArray<string>, RegExp]> = [
        [["hosts", "list", "--label", "web"], /--label: 'web' is to be such as role=web$/],
        [
          ["hosts", "list", "--at", "yesterday"],
          /'yesterday' is to be a time such as \S+, or how long ago, such as 15m$/
        ],
        [["audit", "show", "last"], /'last' is no position of an entry/],
        [["zones", "create", "lab.test", "--set", "policy.ttl=3"], /policy\.ttl: there is no such setting$/]
      ]
      for (const [args, sentence] of wrong) {
        const { code, stderr } = yield* PrismServer.run([...args, "--server", "http://127.0.0.1:1"], {
          folder: path,
          environment: { PRISM_TOKEN: "t" }
        })
        assertSentence(stderr, sentence)
        assert.strictEqual(code, 2)
      }
    })
  )

  it.live("help, version and completions: 0", () =>
    Effect.gen(function* () {
      const path = yield* folder
      for (const args of [["--help"], ["dev", "--help"], ["--completions", "bash"], ["--version"]]) {
        const ended = yield* PrismServer.run(args, { folder: path })
        assert.strictEqual(ended.code, 0)
        if (args[0] === "--version") assert.include(ended.stdout, version)
      }
    })
  )

  it.live("no pdns_server: what to install; 1", () =>
    Effect.gen(function* () {
      const path = yield* folder
      const ended = yield* PrismServer.run(["dev", "--data", "data", "--pdns-dir", "nowhere"], { folder: path })
      assert.strictEqual(ended.code, 1)
      assertSentence(
        ended.stderr,
        /^prism-dns: pdns_server is not installed\. Debian\/Ubuntu: apt-get install pdns-server/
      )
    })
  )

  const portFlags = ["tcp-port", "http-port", "dns-port", "pdns-api-port"] as const
  for (const flag of portFlags) {
    it.live(`dev, the port of --${flag} is taken: the port and the flag; 1`, () =>
      Effect.gen(function* () {
        const path = yield* folder
        const taken = flag === "dns-port" ? yield* takeUdp : yield* takeTcp
        const free = yield* freePorts(portFlags.length)
        const ports = portFlags.flatMap((each, i) => [`--${each}`, `${each === flag ? taken : free[i]}`])
        const ended = yield* PrismServer.run(["dev", "--data", "data", ...ports], { folder: path })
        assert.strictEqual(ended.code, 1)
        assertSentence(ended.stderr, new RegExp(`${taken}\\b.* in use .*--${flag}\\b`))
      })
    )
  }

  it.live("serve, a port is taken: the port, the flag and the key; 1", () =>
    Effect.gen(function* () {
      const path = yield* folder
      const taken = yield* takeTcp
      for (const section of ["tcp", "http"] as const) {
        const other = section === "tcp" ? "http" : "tcp"
        const args = serveFile(path, {
          zones: ["a.test"],
          powerdns: somewhere,
          [section]: { host: "127.0.0.1", port: taken },
          [other]: { host: "127.0.0.1", port: 0 }
        })
        const ended = yield* PrismServer.run(args, { folder: path })
        assert.strictEqual(ended.code, 1)
        assertSentence(
          ended.stderr,
          new RegExp(`127\\.0\\.0\\.1:${taken} .*in use.*--${section}-port or ${section}\\.port`)
        )
      }
    })
  )

  it.live("serve, a wrong API key: which node, and where the key is; 78", () =>
    Effect.gen(function* () {
      const path = yield* folder
      const { apiUrl, dns } = yield* TestPowerDns
      const args = serveFile(path, {
        zones: ["a.test"],
        powerdns: { nodes: [{ name: "one", api: apiUrl, apiKey: "wrong", dns: `${dns.host}:${dns.port}` }] }
      })
      const ended = yield* PrismServer.run(args, { folder: path })
      assert.strictEqual(ended.code, 78)
      assertSentence(
        ended.stderr,
        /^prism-dns: PowerDNS one \(http.*\) refuses the API key\. Set powerdns\.nodes\[\]\.apiKey/
      )
    }).pipe(Effect.provide(layerServer("sqlite")))
  )

  it.live("serve, a PowerDNS that sends us elsewhere: the API key does not go there", () =>
    Effect.gen(function* () {
      const path = yield* folder
      const asked: Array<string | undefined> = []
      const servers = [
        Http.createServer((request, response) => {
          asked.push(request.headers["x-api-key"]?.toString())
          response.end("{}")
        }),
        Http.createServer((_, response) => response.writeHead(302, { location: urlOf(servers[0]!) }).end())
      ]
      const urlOf = (server: Http.Server) => `http://127.0.0.1:${(server.address() as Net.AddressInfo).port}`
      yield* Effect.forEach(servers, (server) =>
        Effect.acquireRelease(
          Effect.callback<void>((resume) => void server.listen(0, "127.0.0.1", () => resume(Effect.void))),
          () => Effect.sync(() => server.close().closeAllConnections())
        )
      )
      const args = serveFile(path, {
        zones: ["a.test"],
        storage: { url: `postgres://prism@127.0.0.1:${yield* freePort}/prism` }, // so that it ends
        powerdns: { nodes: [{ name: "one", api: urlOf(servers[1]!), apiKey: "hunter2", dns: "127.0.0.1" }] }
      })
      assert.strictEqual((yield* PrismServer.run(args, { folder: path })).code, 1)
      assert.deepStrictEqual(asked, [])
    }).pipe(Effect.scoped)
  )

  it.live("serve, no PostgreSQL there: host and port, never the password; 1", () =>
    Effect.gen(function* () {
      const path = yield* folder
      const port = yield* freePort
      const args = serveFile(path, { zones: ["a.test"], powerdns: somewhere, tcp: { port: 0 }, http: { port: 0 } })
      const ended = yield* PrismServer.run(args, {
        folder: path,
        environment: { PRISM_STORAGE_URL: `postgres://prism:hunter2@127.0.0.1:${port}/prism` }
      })
      assert.strictEqual(ended.code, 1)
      assertSentence(ended.stderr, new RegExp(`PostgreSQL.*127\\.0\\.0\\.1:${port}.*storage\\.url`))
      assert.notInclude(ended.stderr, "hunter2")
    })
  )

  it.live("serve, PowerDNS does not answer: it starts, and says so", () =>
    Effect.gen(function* () {
      const server = yield* PrismServer.serve({ zones: ["a.test"], powerdns: somewhere }, { awaitReady: false })
      const port = JSON.parse(Fs.readFileSync(Path.join(server.folder, "prism.yaml"), "utf8")).http.port
      const ready = Effect.promise(async () => (await fetch(`http://127.0.0.1:${port}/readyz?verbose`)).text())
      yield* waitUntil("it says what is degraded", ready, (text) => /degraded/.test(text), { within: "15 seconds" })
      assert.match(server.output().stderr, /PowerDNS 127\.0\.0\.1:1 does not answer at http:\/\/127\.0\.0\.1:1/)
      assert.deepStrictEqual(yield* server.kill("SIGTERM"), { code: 0, signal: null })
    })
  )

  it.live("serve with everything there: ready, logs as JSON lines, and ends with 0 on SIGTERM", () =>
    Effect.gen(function* () {
      const { apiKey, apiUrl, dns } = yield* TestPowerDns
      const keyFile = Path.join(yield* folder, "key")
      Fs.writeFileSync(keyFile, `${Redacted.value(apiKey)}\n`)
      const server = yield* PrismServer.serve(
        {
          zones: ["a.test", "127.in-addr.arpa"],
          // Else a first start prints an administrator's token, which is for people.
          auth: { adminTokens: [{ name: "ops", token: "admin-token-of-a-test" }] },
          powerdns: { nodes: [{ api: apiUrl, apiKey: "replaced by the environment", dns: `${dns.host}:${dns.port}` }] }
        },
        { environment: { PRISM_POWERDNS_NODES_0_API_KEY_FILE: keyFile } }
      )
      assert.deepStrictEqual(server.ready().zones, ["a.test.", "127.in-addr.arpa."])
      assert.deepStrictEqual(yield* server.kill("SIGTERM"), { code: 0, signal: null })
      for (const line of server.output().stderr.trim().split("\n")) {
        assert.containsAllKeys(JSON.parse(line), ["time", "level", "msg", "logger"])
      }
    }).pipe(Effect.provide(layerServer("sqlite")))
  )
})
