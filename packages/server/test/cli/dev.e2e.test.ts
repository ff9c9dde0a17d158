import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import * as ChildProcess from "node:child_process"
import * as Fs from "node:fs"
import * as Path from "node:path"
import { waitUntil } from "../../../core/test/harness/waitUntil.ts"
import { resolve } from "../../../core/test/harness/PowerDns.ts"
import type { Ready } from "../../src/cli/Ready.ts"
import * as Agent from "../harness/AgentClient.ts"
import * as PrismAgent from "../../../client-sdk/test/harness/PrismAgent.ts"
import * as PrismServer from "../harness/PrismServer.ts"

/** Runs a line of the printed block as a person would paste it. */
const paste = (line: string) =>
  Effect.sync(() => ChildProcess.execFileSync("bash", ["-c", line], { encoding: "utf8" }).trim())

const linesOf = (output: string, start: string) =>
  output
    .split("\n")
    .map((line) => line.trim())
    .filter((line) => line.startsWith(start))

const hosts = (ready: Ready) =>
  Effect.promise(async () => {
    const response = await fetch(`${ready.http.url}/v1/hosts`, {
      headers: { Authorization: `Bearer ${ready.adminToken}` }
    })
    assert.strictEqual(response.status, 200)
    return (await response.json()) as { readonly items: ReadonlyArray<{ readonly fqdn: string; readonly id: string }> }
  })

describe("prism-dns dev", () => {
  it.live("prints lines that work as they stand: dig, reverse dig, and one that registers this machine", () =>
    Effect.gen(function* () {
      const server = yield* PrismServer.dev()
      const block = yield* waitUntil(
        "the block is printed",
        Effect.sync(() => server.output().stdout),
        (text) => text.includes("Ctrl-C")
      )
      const [hello, reverse, machine] = linesOf(block, "dig ")
      assert.strictEqual(yield* paste(hello!), "127.0.0.1")
      assert.strictEqual(yield* paste(reverse!), "hello.hosts.prism.test.")
      yield* paste(linesOf(block, "bash ")[0]!)
      yield* waitUntil("this machine resolves", paste(machine!), (answer) => answer === "127.0.0.1")
      const [, ...args] = linesOf(block, "prism-agent ")[0]!.replaceAll("'", "").split(" ")
      const ended = yield* PrismAgent.run(["once", ...args])
      assert.strictEqual(ended.code, 0, ended.stderr)
    })
  )

  it.live("the ready file names everything that answers, and is for its owner alone", () =>
    Effect.gen(function* () {
      const server = yield* PrismServer.dev(["--zone", "a.test", "--zone", "b.test", "--backend", "lmdb"])
      const ready = server.ready()
      assert.strictEqual(ready.pid, server.pid())
      assert.deepStrictEqual(ready.zones.slice(0, 2), ["a.test.", "b.test."])
      assert.strictEqual(Fs.statSync(Path.join(server.folder, "ready.json")).mode & 0o777, 0o600)
      for (const zone of ready.zones) {
        const soa = yield* resolve(ready.dns, zone, "SOA")
        assert.strictEqual(`${zone} ${soa.rcode} ${soa.isAuthoritative}`, `${zone} NOERROR true`)
      }
      assert.deepStrictEqual((yield* resolve(ready.dns, "hello.a.test.", "A")).data, ["127.0.0.1"])
      const powerdns = yield* Effect.promise(() =>
        fetch(`${ready.powerdns.url}/api/v1/servers/localhost`, { headers: { "X-API-Key": ready.powerdns.apiKey } })
      )
      assert.strictEqual(powerdns.status, 200)
      assert.lengthOf((yield* hosts(ready)).items, 1)
    })
  )

  it.live("a restart on the same folder keeps keys, hosts and records, after SIGTERM and after SIGKILL", () =>
    Effect.gen(function* () {
      const server = yield* PrismServer.dev()
      const before = server.ready()
      const known = (yield* hosts(before)).items.map(({ fqdn, id }) => [fqdn, id])
      const restartAfter = Effect.fnUntraced(function* (signal: NodeJS.Signals) {
        const ended = yield* server.kill(signal)
        const { pid, ...after } = yield* server.restart
        assert.deepStrictEqual({ pid: before.pid, ...after }, before)
        assert.deepStrictEqual(
          (yield* hosts(server.ready())).items.map(({ fqdn, id }) => [fqdn, id]),
          known
        )
        assert.deepStrictEqual((yield* resolve(after.dns, "hello.hosts.prism.test.", "A")).data, ["127.0.0.1"])
        assert.isNumber(pid)
        return ended
      })
      assert.deepStrictEqual(yield* restartAfter("SIGTERM"), { code: 0, signal: null })
      assert.deepStrictEqual(yield* restartAfter("SIGKILL"), { code: null, signal: "SIGKILL" })
    })
  )

  it.live("SIGINT, too, ends it with 0 and takes its pdns_server along", () =>
    Effect.gen(function* () {
      const server = yield* PrismServer.dev()
      const [pid] = Fs.readFileSync(Path.join(server.folder, "data/powerdns/pdns.pid"), "utf8").split(" ")
      assert.isTrue(Fs.existsSync(`/proc/${pid}`))
      assert.deepStrictEqual(yield* server.kill("SIGINT"), { code: 0, signal: null })
      assert.isFalse(Fs.existsSync(`/proc/${pid}`))
    })
  )

  it.live("a pdns_server that is killed comes back, with its records", () =>
    Effect.gen(function* () {
      const server = yield* PrismServer.dev()
      const pid = Effect.sync(() =>
        Number.parseInt(Fs.readFileSync(Path.join(server.folder, "data/powerdns/pdns.pid"), "utf8"), 10)
      )
      const before = yield* pid
      process.kill(before, "SIGKILL")
      yield* waitUntil("another process is there", pid, (now) => now !== before, { within: "10 seconds" })
      yield* waitUntil(
        "DNS answers again",
        resolve(server.ready().dns, "hello.hosts.prism.test.", "A"),
        (answer) => answer.data[0] === "127.0.0.1"
      )
      assert.deepStrictEqual(yield* server.kill("SIGTERM"), { code: 0, signal: null })
    })
  )

  it.live("takes limits from the environment, and nothing that would lead it elsewhere", () =>
    Effect.gen(function* () {
      const server = yield* PrismServer.dev([], {
        PRISM_TCP_FRAME_TIMEOUT: "300ms",
        PRISM_TCP_HOST: "0.0.0.0",
        PRISM_STORAGE_URL: "postgres://db.example.net/prism"
      })
      const { tcp } = server.ready()
      assert.strictEqual(tcp.host, "127.0.0.1")
      const silent = yield* Agent.connect(tcp)
      assert.deepInclude((yield* silent.receive())[0], { status: "error", code: "timeout" })
    }).pipe(Effect.scoped)
  )
})
