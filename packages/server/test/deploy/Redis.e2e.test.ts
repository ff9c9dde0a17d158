/** The configuration and the access list for Redis in deploy/, with the real Redis and the packaged server. */
import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import * as ChildProcess from "node:child_process"
import * as Crypto from "node:crypto"
import * as Fs from "node:fs"
import * as Path from "node:path"
import { temporaryFolder } from "../../../core/test/harness/PowerDns.ts"
import * as Redis from "../../../core/test/harness/Redis.ts"
import { waitUntil } from "../../../core/test/harness/waitUntil.ts"
import * as AgentV2 from "../harness/AgentV2.ts"
import { authority } from "../harness/certificates.ts"
import * as Deployment from "../harness/Deployment.ts"

const deployed = Path.resolve(import.meta.dirname, "../../deploy/redis")

/** With TLS, as it stands in deploy/. */
const startRedis = Effect.fnUntraced(function* (more: ReadonlyArray<string> = []) {
  const { certificate, issue } = yield* authority()
  const pair = issue("redis", { alternativeNames: "IP:127.0.0.1" })
  return { redis: yield* Redis.makeWith({ tls: { ...pair, ca: certificate }, more }), ca: certificate }
})

describe("Redis with the configuration of deploy/", () => {
  it.live("does for Prism's user all that Prism asks", () =>
    Effect.gen(function* () {
      const { ca, redis } = yield* startRedis()
      const server = yield* Deployment.start({
        server: { instance: "one", drainDelay: "0s" },
        redis: { url: redis.url, ca }
      })
      const agent = yield* AgentV2.connect(server.tcp())
      yield* agent.hello({ method: "anonymous" })
      yield* agent.register("web-1")
      const host = (yield* waitUntil(
        "its session is known",
        server.get(`/v1/hosts/web-1.${Deployment.zone}?session=true`),
        (found) => Object.keys(found as object).includes("session")
      )) as { readonly session: { readonly instance: string } }
      assert.strictEqual(host.session.instance, "one")
      yield* waitUntil(
        "rates are exchanged",
        server.metric("prism_redis_rates_exchanged_total"),
        (count) => (count ?? 0) > 0
      )
      assert.strictEqual(yield* server.metric("prism_redis_connected"), 1)
      // Later versions are told by the library what it is, which nobody needs.
      const log = (yield* redis.ask("acl", "log")).split("\n")
      const refused = log.filter((_, i) => log[i - 1] === "object")
      assert.deepStrictEqual(
        refused.filter((command) => command !== "client|setinfo"),
        []
      )
    }).pipe(Effect.scoped)
  )

  it.live("refuses Prism's user everything else, and whoever has no password all of it", () =>
    Effect.gen(function* () {
      const { redis } = yield* startRedis()
      const mine = "prism-dns:rate:x"
      assert.strictEqual(yield* redis.askAsPrism("set", mine, "1", "px", "60000"), "OK")
      assert.strictEqual(yield* redis.askAsPrism("get", mine), "1")
      assert.strictEqual(yield* redis.ask("set", "another:key", "1"), "OK")
      for (const words of [
        ["flushall"],
        ["flushdb"],
        ["keys", "*"],
        ["scan", "0"],
        ["dbsize"],
        ["info"],
        ["config", "get", "*"],
        ["acl", "list"],
        ["client", "list"],
        ["client", "kill", "type", "normal"],
        ["script", "flush"],
        ["function", "list"],
        ["monitor"],
        ["shutdown", "nosave"],
        ["replicaof", "127.0.0.1", "1"],
        ["select", "1"],
        ["subscribe", "prism-dns:x"],
        ["publish", "prism-dns:x", "y"],
        ["get", "another:key"],
        ["set", "another:key", "2"],
        ["del", "another:key"],
        ["eval", "return redis.call('GET', KEYS[1])", "1", "another:key"],
        ["eval", "return redis.call('KEYS', '*')", "0"],
        ["eval", "return redis.call('SET', 'another:key', '2')", "0"]
      ]) {
        // An error of a script says it in words of its own.
        assert.match(yield* redis.askAsPrism(...words), /NOPERM|can't run this command|can't access/i, words.join(" "))
      }
      assert.strictEqual(yield* redis.ask("get", "another:key"), "1")
      const nobody = yield* redis.askAs([], "")("get", mine)
      assert.match(nobody, /NOAUTH/)
      assert.match(yield* redis.askAs(["--user", "prism"], "wrong")("get", mine), /WRONGPASS|NOAUTH/)
    }).pipe(Effect.scoped)
  )

  it.live("keeps nothing on disk, and takes what is new when its memory is full", () =>
    Effect.gen(function* () {
      const { redis } = yield* startRedis(["maxmemory 3mb"])
      const setting = (name: string) =>
        Effect.map(redis.ask("config", "get", name), (said) => said.split("\n")[1] ?? "")
      assert.strictEqual(yield* setting("save"), "")
      assert.strictEqual(yield* setting("appendonly"), "no")
      // Prism's own keys, more than there is room for; those of the first loop would last longest.
      const fill =
        "for i = 1, tonumber(ARGV[2]) do redis.call('SET', KEYS[1] .. i, string.rep('x', 100), 'PX', ARGV[1]) end return 'OK'"
      const filled = (name: string, millis: string) =>
        redis.askAsPrism("eval", fill, "1", `prism-dns:rate:${name}:`, millis, "2000")
      assert.strictEqual(yield* filled("lasting", "600000"), "OK")
      for (let n = 1; n <= 10; n++) assert.strictEqual(yield* filled(`soon-${n}`, "60000"), "OK")
      assert.match(yield* redis.ask("info", "stats"), /^evicted_keys:[1-9]/m)
      const kept = Number(
        yield* redis.ask("eval", "return #redis.call('KEYS', ARGV[1])", "0", "prism-dns:rate:lasting:*")
      )
      assert.isAbove(kept, 1000)
    }).pipe(Effect.scoped)
  )

  it.live("does not start before its list has the digest of a password, as the README has it made", () =>
    Effect.gen(function* () {
      const folder = yield* temporaryFolder("prism-redis-")
      const list = Path.join(folder, "users.acl")
      Fs.copyFileSync(Path.join(deployed, "users.acl"), list)
      const socket = Path.join(folder, "socket")
      const { status, stdout } = ChildProcess.spawnSync(
        "redis-server",
        ["--port", "0", "--unixsocket", socket, "--aclfile", list],
        { cwd: folder, encoding: "utf8", timeout: 20_000 }
      )
      assert.strictEqual(status, 1)
      assert.match(stdout, /users\.acl:2: The password hash must be/)

      const [, commands] = /```sh\n([\s\S]*?)```/.exec(Fs.readFileSync(Path.join(deployed, "README.md"), "utf8"))!
      const script = commands!.replaceAll(/\/etc\/(?:prism|redis)/g, folder)
      ChildProcess.execFileSync("bash", ["-euo", "pipefail", "-c", script], { cwd: folder })
      const [, password] = /^rediss:\/\/prism:([0-9a-f]{64})@cache\.example\.net:6379$/.exec(
        Fs.readFileSync(Path.join(folder, "redis-url"), "utf8")
      )!
      const digest = Crypto.createHash("sha256").update(password!).digest("hex")
      assert.include(Fs.readFileSync(list, "utf8"), `user prism on #${digest} `)
      assert.strictEqual(Fs.statSync(Path.join(folder, "redis-url")).mode & 0o777, 0o600)
    }).pipe(Effect.scoped)
  )
})
