/** `prism-agent` as it is installed, with `prism-dns dev` as it is: both their own processes, DNS by asking it. */
import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import * as Path from "node:path"
import { resolve, temporaryFolder } from "../../core/test/harness/PowerDns.ts"
import { waitUntil } from "../../core/test/harness/waitUntil.ts"
import * as PrismServer from "../../server/test/harness/PrismServer.ts"
import * as Names from "../src/cli/Names.ts"
import type { Snapshot } from "../src/addresses/Snapshot.ts"
import * as PrismAgent from "./harness/PrismAgent.ts"
import { settingsOf } from "./harness/settings.ts"

const zone = "hosts.prism.test."

/** An administrator's request. */
const api = (server: PrismServer.PrismServer, method: string, path: string, body?: object) =>
  Effect.promise(async () => {
    const { adminToken, http } = server.ready()
    const response = await fetch(`${http.url}${path}`, {
      method,
      headers: { Authorization: `Bearer ${adminToken}`, "Content-Type": "application/json" },
      ...(body === undefined ? {} : { body: JSON.stringify(body) })
    })
    const text = await response.text()
    assert.isTrue(response.ok, `${method} ${path}: ${response.status} ${text}`)
    return JSON.parse(text)
  })

/** A token for agents, with this grant. */
const issue = (server: PrismServer.PrismServer, name: string, fields: object) =>
  Effect.map(
    api(server, "POST", "/v1/tokens", { name, allows: "enrol", reason: "a test needs one", ...fields }),
    ({ token }) => token as string
  )

/** How an agent is called, and what it knows. */
const agentOf = (server: PrismServer.PrismServer, state: string, token?: string) => {
  const { tcp } = server.ready()
  const environment = {
    PRISM_AGENT_SERVER: `${tcp.host}:${tcp.port}`,
    PRISM_AGENT_STATE: state,
    ...(token === undefined ? {} : { PRISM_TOKEN: token })
  }
  return {
    run: (...args: ReadonlyArray<string>) => PrismAgent.run(args, { environment }),
    start: (...args: ReadonlyArray<string>) => PrismAgent.start(args, { environment })
  }
}

const stateFolder = Effect.map(temporaryFolder("prism-agent-"), (path) => Path.join(path, "state"))

const asks = (server: PrismServer.PrismServer, name: string, type: "A" | "AAAA" = "A") =>
  Effect.map(resolve(server.ready().dns, `${name}.${zone}`, type), ({ data }) => [...data].sort())

const answers = (server: PrismServer.PrismServer, name: string, expected: ReadonlyArray<string>) =>
  waitUntil(`${name} is ${expected.join(" and ")}`, asks(server, name), (data) => data.join() === expected.join(), {
    within: "15 seconds"
  })

describe("prism-agent and prism-dns dev", () => {
  it.live("the agent token enrols a key; a name is served in one go, and needs no token afterwards", () =>
    Effect.gen(function* () {
      const server = yield* PrismServer.dev()
      const state = yield* stateFolder
      const enrolling = agentOf(server, state, server.ready().agentToken)
      const first = yield* enrolling.run("once", "--hostname", "web-1", "--ack", "served", "--json")
      assert.strictEqual(first.code, 0, first.stderr)
      assert.deepStrictEqual(yield* asks(server, "web-1"), ["127.0.0.1"])
      const { hosts, reached } = JSON.parse(first.stdout)
      assert.isTrue(reached)
      assert.deepInclude(hosts[0], { host: `web-1.${zone}`, addresses: ["127.0.0.1"], level: "served" })
      assert.deepStrictEqual(Object.keys(hosts[0].levels), ["accepted", "applied", "served"])
      assert.match(hosts[0].identity, /^i-[a-z2-7]{16}$/)
      const { owner } = yield* api(server, "GET", `/v1/hosts/web-1.${zone}`)
      assert.strictEqual(owner, hosts[0].identity)

      const enrolled = agentOf(server, state)
      const second = yield* enrolled.run("once", "--hostname", "web-1", "--ack", "served", "--json")
      assert.strictEqual(second.code, 0, second.stderr)
      assert.strictEqual(JSON.parse(second.stdout).hosts[0].identity, owner)

      // Someone else does not get it.
      const other = agentOf(server, `${state}-other`, server.ready().agentToken)
      const squatter = yield* other.run("once", "--hostname", "web-1", "--timeout", "3", "--json")
      assert.strictEqual(squatter.code, 1)
      assert.strictEqual((yield* api(server, "GET", `/v1/hosts/web-1.${zone}`)).owner, owner)
    }).pipe(Effect.scoped)
  )

  it.live(
    "several names of one identity, with several addresses, are kept through a crash and given up at the end",
    () =>
      Effect.gen(function* () {
        const server = yield* PrismServer.dev([], { PRISM_LEASES_BEAT_INTERVAL: "1s" })
        const token = yield* issue(server, "rack-7", {
          grant: { names: ["db-*"], networks: ["192.0.2.0/28", "2001:db8:7::/64"] },
          usesMax: 1
        })
        const agent = yield* agentOf(server, yield* stateFolder, token).start(
          ..."--hostname db-1 --hostname db-2 --release-on-exit".split(" "),
          ..."--address 192.0.2.1 --address 192.0.2.2 --address 2001:db8:7::1".split(" ")
        )
        for (const name of ["db-1", "db-2"]) yield* answers(server, name, ["192.0.2.1", "192.0.2.2"])
        assert.deepStrictEqual(yield* asks(server, "db-1", "AAAA"), ["2001:db8:7::1"])
        const owners = yield* Effect.forEach(["db-1", "db-2"], (name) =>
          api(server, "GET", `/v1/hosts/${name}.${zone}`)
        )
        assert.strictEqual(owners[0].owner, owners[1].owner)

        yield* server.kill("SIGKILL")
        yield* agent.said("disconnected", { name: "db-2" })
        yield* server.restart
        yield* waitUntil(
          "both are connected again",
          Effect.sync(() => agent.lines().filter(({ msg }) => msg === "connected")),
          (connected) => connected.length === 4,
          { within: "15 seconds" }
        )
        for (const name of ["db-1", "db-2"]) assert.lengthOf(yield* asks(server, name), 2)

        assert.strictEqual((yield* agent.kill("SIGTERM")).code, 0)
        for (const name of ["db-1", "db-2"]) yield* answers(server, name, [])
      }).pipe(Effect.scoped)
  )

  it.live("an identity that is revoked ends the agent with 1 and the reason", () =>
    Effect.gen(function* () {
      const server = yield* PrismServer.dev()
      const state = yield* stateFolder
      const agent = yield* agentOf(server, state, server.ready().agentToken).start("--hostname", "web-1")
      const { identity } = yield* agent.said("connected")
      yield* api(server, "POST", `/v1/identities/${String(identity)}/revoke`, { reason: "stolen" })
      const ended = yield* agent.ended
      assert.strictEqual(ended.code, 1)
      assert.include(ended.stderr, "web-1 was refused (identity-revoked)")
      const again = yield* agentOf(server, state).run("once", "--hostname", "web-1")
      assert.include(again.stderr, "identity-revoked")
      assert.strictEqual(again.code, 1)
    }).pipe(Effect.scoped)
  )

  it.live("names and addresses beyond what the token allows are refused, with the code", () =>
    Effect.gen(function* () {
      const server = yield* PrismServer.dev()
      const token = yield* issue(server, "rack-7", { grant: { names: ["db-*"], networks: ["192.0.2.0/28"] } })
      const agent = agentOf(server, yield* stateFolder, token)
      const refusal = Effect.fnUntraced(function* (...args: ReadonlyArray<string>) {
        const { code, stdout } = yield* agent.run("once", "--json", ...args)
        return { code, error: JSON.parse(stdout).error.code }
      })
      assert.deepStrictEqual(yield* refusal("--hostname", "web-1"), { code: 1, error: "name-not-allowed" })
      assert.deepStrictEqual(yield* refusal("--hostname", "wpad"), { code: 1, error: "name-reserved" })
      assert.deepStrictEqual(yield* refusal("--hostname", "db-1", "--address", "192.0.2.77"), {
        code: 1,
        error: "address-not-allowed"
      })
      assert.strictEqual((yield* agent.run("once", "--hostname", "db-1", "--address", "192.0.2.7")).code, 0)
    }).pipe(Effect.scoped)
  )

  it.live("addresses of interfaces are followed into DNS", () =>
    Effect.gen(function* () {
      const server = yield* PrismServer.dev()
      const token = yield* issue(server, "anywhere", { grant: { networks: ["192.0.2.0/24"] } })
      const { tcp } = server.ready()
      const machine = (address: string): Snapshot => ({
        interfaces: { eth0: [{ address, internal: false }], docker0: [{ address: "192.0.2.200", internal: false }] },
        links: undefined,
        inet6: [],
        defaultRoutes: ["eth0"]
      })
      let present = machine("192.0.2.1")
      yield* Names.open(
        settingsOf({ server: [`${tcp.host}:${tcp.port}`], hostname: ["roaming"], address: ["interfaces"] }),
        { stateDir: yield* stateFolder, token },
        { following: { every: "20 millis", settle: "100 millis", read: () => present } }
      )
      yield* answers(server, "roaming", ["192.0.2.1"])
      present = machine("192.0.2.2")
      yield* answers(server, "roaming", ["192.0.2.2"])
    }).pipe(Effect.scoped)
  )
})
