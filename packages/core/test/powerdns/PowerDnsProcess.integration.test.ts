import { assert, describe, it } from "@effect/vitest"
import { Effect, Exit, Layer, Redacted, Scope } from "effect"
import { FetchHttpClient } from "effect/http"
import * as ChildProcess from "node:child_process"
import * as Fs from "node:fs"
import { createServer } from "node:net"
import { fileURLToPath } from "node:url"
import * as DomainName from "@prism-dns/core/domain/DomainName"
import { PowerDnsClient } from "@prism-dns/core/powerdns/PowerDnsClient"
import * as PowerDnsProcess from "@prism-dns/core/powerdns/PowerDnsProcess"
import { temporaryFolder } from "../harness/PowerDns.ts"
import { freePorts } from "../harness/ports.ts"
import { waitUntil } from "../harness/waitUntil.ts"

const options = Effect.gen(function* () {
  const directory = yield* temporaryFolder("prism-process-")
  const [dnsPort = 0, apiPort = 0] = yield* freePorts(2)
  return {
    directory,
    dnsPort,
    apiPort,
    backend: PowerDnsProcess.sqlite,
    apiKey: Redacted.make("key")
  } satisfies PowerDnsProcess.StartOptions
})

const isAlive = (pid: number): boolean => {
  try {
    process.kill(pid, 0)
    // a zombie that nobody has reaped is still a pid
    return process.platform !== "linux" || !/^\d+ \(.*\) Z/s.test(Fs.readFileSync(`/proc/${pid}/stat`, "utf8"))
  } catch {
    return false
  }
}

/** Listens on a port of TCP, as another program would. */
const occupy = (port: number) =>
  Effect.acquireRelease(
    Effect.callback<ReturnType<typeof createServer>>((resume) => {
      const server = createServer((socket) => socket.end("HTTP/1.0 200 OK\r\n\r\nhello"))
      server.listen(port, "127.0.0.1", () => resume(Effect.succeed(server)))
    }),
    (server) => Effect.sync(() => server.close())
  )

/** A program in the place of pdns_server. */
const fakeProgram = Effect.fnUntraced(function* (script: string) {
  const folder = yield* temporaryFolder("prism-fake-")
  Fs.writeFileSync(`${folder}/pdns_server`, `#!/bin/sh\n${script}\n`, { mode: 0o755 })
  return [folder]
})

const clientOf = (running: PowerDnsProcess.PowerDnsProcess) =>
  PowerDnsClient.layer({ node: "process", url: running.apiUrl, apiKey: running.apiKey }).pipe(
    Layer.provide(FetchHttpClient.layer)
  )

const test = (name: string, body: Effect.Effect<void, unknown, Scope.Scope>) => it.live(name, () => Effect.scoped(body))

describe("a pdns_server of our own", () => {
  test(
    "runs while its scope is open, and leaves neither process nor pid file",
    Effect.gen(function* () {
      const given = yield* options
      const running = yield* Effect.scoped(
        Effect.gen(function* () {
          const running = yield* PowerDnsProcess.start(given)
          assert.isTrue(isAlive(running.pid))
          assert.deepStrictEqual(running.dns, { host: "127.0.0.1", port: given.dnsPort })
          return running
        })
      )
      assert.isFalse(isAlive(running.pid))
      assert.isFalse(Fs.existsSync(`${given.directory}/pdns.pid`))
    })
  )

  test(
    "has its key in a file that only we can read, not on its command line",
    Effect.gen(function* () {
      const given = { ...(yield* options), apiKey: Redacted.make("a-very-secret-key") }
      const running = yield* PowerDnsProcess.start(given)
      const conf = `${given.directory}/pdns.conf`
      assert.strictEqual(Fs.statSync(conf).mode & 0o777, 0o600)
      assert.include(Fs.readFileSync(conf, "utf8"), "a-very-secret-key")
      const shown = ChildProcess.execFileSync("ps", ["-o", "command=", "-p", `${running.pid}`], { encoding: "utf8" })
      assert.include(shown, "pdns_server")
      assert.notInclude(shown, "a-very-secret-key")
    })
  )

  for (const backend of [PowerDnsProcess.sqlite, PowerDnsProcess.lmdb]) {
    test(
      `keeps its zones over a restart (${backend._tag})`,
      Effect.gen(function* () {
        const given = { ...(yield* options), backend }
        const zone = DomainName.make("kept.test")
        const run = <A, E>(use: (client: PowerDnsClient["Service"]) => Effect.Effect<A, E>) =>
          Effect.gen(function* () {
            const running = yield* PowerDnsProcess.start(given)
            return yield* PowerDnsClient.use(use).pipe(Effect.provide(clientOf(running)))
          }).pipe(Effect.scoped)
        yield* run((client) => client.createZone({ name: zone, kind: "Native", nameservers: [] }))
        const zones = yield* run((client) => client.listZones)
        assert.deepStrictEqual(
          zones.map(({ name }) => name),
          [zone]
        )
      })
    )
  }

  test(
    "works in a directory whose path is too long for a socket",
    Effect.gen(function* () {
      const given = yield* options
      const running = yield* PowerDnsProcess.start({ ...given, directory: `${given.directory}/${"deep/".repeat(25)}` })
      assert.isTrue(isAlive(running.pid))
    })
  )

  test(
    "tells when it ends by itself",
    Effect.gen(function* () {
      const running = yield* PowerDnsProcess.start(yield* options)
      process.kill(running.pid, "SIGKILL")
      assert.deepStrictEqual(yield* running.exited, { code: null, signal: "SIGKILL" })
    })
  )

  test(
    "that is not installed is missing, and the line to install it is said",
    Effect.gen(function* () {
      const given = yield* options
      const error = yield* Effect.flip(PowerDnsProcess.start({ ...given, searchPath: [given.directory] }))
      assert.strictEqual(error._tag, "PowerDnsMissing")
      assert.match(error.message, /^pdns_server is not installed\. .*apt-get install pdns-server pdns-backend-sqlite3/)
      for (const line of ["brew install pdns", "dnf install pdns", "apk add pdns"]) assert.include(error.message, line)
    })
  )

  test(
    "whose backend is not installed is missing too",
    Effect.gen(function* () {
      const given = yield* options
      const error = yield* Effect.flip(
        PowerDnsProcess.start({ ...given, backend: PowerDnsProcess.lmdb, extra: { launch: "nosuch" } })
      )
      assert.strictEqual(error._tag, "PowerDnsMissing")
      assert.include(error.message, "pdns-backend-lmdb")
    })
  )

  test(
    "names the DNS port that is taken",
    Effect.gen(function* () {
      const given = yield* options
      yield* occupy(given.dnsPort)
      const error = yield* Effect.flip(PowerDnsProcess.start(given))
      assert.strictEqual(error._tag, "PowerDnsStartFailed")
      assert.strictEqual(error._tag === "PowerDnsStartFailed" && error.port, given.dnsPort)
      assert.match(error.message, new RegExp(`port ${given.dnsPort} for DNS is already in use\\. Choose another`))
    })
  )

  test(
    "names the API port that is taken, and does not run on without its API",
    Effect.gen(function* () {
      const given = yield* options
      yield* occupy(given.apiPort)
      const error = yield* Effect.flip(PowerDnsProcess.start(given))
      assert.match(error.message, new RegExp(`port ${given.apiPort} for API is already in use`))
      // the scope of this test is still open, and yet it is gone
      assert.isFalse(Fs.existsSync(`${given.directory}/pdns.pid`))
      yield* occupy(given.dnsPort)
    })
  )

  test(
    "is not taken for another one that answers at its port with the same key",
    Effect.gen(function* () {
      const first = yield* PowerDnsProcess.start(yield* options)
      const second = { ...(yield* options), apiPort: Number(new URL(first.apiUrl).port) }
      const error = yield* Effect.flip(PowerDnsProcess.start(second))
      assert.match(error.message, /for API is already in use/)
      assert.isTrue(isAlive(first.pid))
    })
  )

  test(
    "says its last words when it ends at once",
    Effect.gen(function* () {
      const given = yield* options
      const error = yield* Effect.flip(PowerDnsProcess.start({ ...given, extra: { "no-such-setting": "1" } }))
      assert.match(error.message, /ended with code 1: .*unknown setting 'no-such-setting'/)
    })
  )

  test(
    "that never answers is given up, and killed when it will not stop",
    Effect.gen(function* () {
      const given = yield* options
      const searchPath = yield* fakeProgram("trap '' TERM\nwhile :; do sleep 0.05; done")
      const error = yield* Effect.flip(
        PowerDnsProcess.start({ ...given, searchPath, readyMillisMax: 200, stopMillisMax: 100 })
      )
      assert.match(error.message, /did not answer at http:\/\/127\.0\.0\.1:\d+ within 200 ms/)
      assert.isFalse(Fs.existsSync(`${given.directory}/pdns.pid`))
    })
  )

  test(
    "is refused a setting that its file cannot carry",
    Effect.gen(function* () {
      const given = yield* options
      const error = yield* Effect.flip(PowerDnsProcess.start({ ...given, apiKey: Redacted.make("a#b\nc") }))
      assert.match(error.message, /'api-key' cannot be written/)
      assert.notInclude(error.message, "a#b")
    })
  )
})

describe("a child that outlived its parent", () => {
  const holding = Effect.fnUntraced(function* (given: PowerDnsProcess.StartOptions) {
    const holder = yield* Effect.acquireRelease(
      Effect.sync(() =>
        ChildProcess.spawn(
          process.execPath,
          [
            "--conditions=@prism-dns/source",
            fileURLToPath(new URL("holdPowerDns.ts", import.meta.url)),
            given.directory,
            `${given.dnsPort}`,
            `${given.apiPort}`
          ],
          { stdio: ["ignore", "pipe", "inherit"] }
        )
      ),
      (holder) => Effect.sync(() => holder.kill("SIGKILL"))
    )
    const pid = yield* Effect.callback<number>((resume) => {
      let out = ""
      holder.stdout.on("data", (chunk: Buffer) => {
        out += chunk.toString()
        const match = /pid (\d+)\n/.exec(out)
        if (match !== null) resume(Effect.succeed(Number(match[1])))
      })
      holder.on("exit", (code) => resume(Effect.die(new Error(`the holder ended with ${code}: ${out}`))))
    })
    yield* Effect.addFinalizer(() =>
      Effect.sync(() => {
        if (isAlive(pid)) process.kill(pid, "SIGKILL")
      })
    )
    return { holder, pid }
  })

  test(
    "by kill -9 is recognised and stopped before a new one starts on its directory",
    Effect.gen(function* () {
      const given = yield* options
      const { holder, pid } = yield* holding(given)
      holder.kill("SIGKILL")
      yield* waitUntil(
        "the holder is gone",
        Effect.sync(() => isAlive(holder.pid ?? 0)),
        (alive) => !alive
      )
      assert.isTrue(isAlive(pid), "its pdns_server lives on")
      const running = yield* PowerDnsProcess.start(given)
      assert.isFalse(isAlive(pid))
      assert.isTrue(isAlive(running.pid))
    })
  )

  test(
    "is told from one whose parent is alive: that directory is in use",
    Effect.gen(function* () {
      const given = yield* options
      const { holder, pid } = yield* holding(given)
      const [dnsPort = 0, apiPort = 0] = yield* freePorts(2)
      const error = yield* Effect.flip(PowerDnsProcess.start({ ...given, dnsPort, apiPort }))
      assert.match(error.message, new RegExp(`process ${holder.pid} already runs a server \\(${pid}\\)`))
      assert.isTrue(isAlive(pid))
    })
  )

  test(
    "is not confused with a stranger that has its number now",
    Effect.gen(function* () {
      const given = yield* options
      const stranger = yield* Effect.acquireRelease(
        Effect.sync(() => ChildProcess.spawn("sleep", ["60"])),
        (stranger) => Effect.sync(() => stranger.kill("SIGKILL"))
      )
      Fs.writeFileSync(`${given.directory}/pdns.pid`, `${stranger.pid} 1\n`)
      const scope = yield* Scope.make()
      yield* PowerDnsProcess.start(given).pipe(Scope.provide(scope))
      yield* Scope.close(scope, Exit.void)
      assert.isTrue(isAlive(stranger.pid ?? 0))
    })
  )
})
