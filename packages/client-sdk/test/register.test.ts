import { assert, describe, it } from "@effect/vitest"
import { register, RegistrationFailed, type RegisterOptions } from "@prism-dns/client-sdk"
import { FakeServer } from "@prism-dns/client-sdk/testing"
import * as Fs from "node:fs"
import * as Os from "node:os"
import * as Path from "node:path"

const failure = async (options: RegisterOptions): Promise<RegistrationFailed> => {
  try {
    await (await register(options)).close()
  } catch (error) {
    if (error instanceof RegistrationFailed) return error
    throw error
  }
  throw new Error("it was expected to fail")
}

describe("register", () => {
  it("resolves with the name once it is accepted, and tells what follows", async () => {
    await using server = await FakeServer.start()
    await using registration = await register({ server: server.address, hostname: "web-1", labels: { rack: "7" } })
    assert.strictEqual(registration.host, "web-1.hosts.prism.test.")
    assert.deepStrictEqual(registration.addresses, ["127.0.0.1"])
    const served = await new Promise((resolve) => registration.once("served", resolve))
    assert.deepInclude(served, { host: "web-1.hosts.prism.test.", level: "served", addresses: ["127.0.0.1"] })
    assert.deepInclude(server.host("web-1"), { labels: { rack: "7" }, sessions: 1 })
  })

  it("enrols a key with a token once, and later proves the key without it", async () => {
    await using server = await FakeServer.start({ tokens: [{ token: "once", usesMax: 1 }] })
    const stateDir = Path.join(Fs.mkdtempSync(Path.join(Os.tmpdir(), "prism-sdk-")), "state")
    const first = await register({ server: server.address, hostname: "web-1", token: "once", stateDir })
    const { identity } = first
    await first.close()
    const second = await register({ server: server.address, hostname: "web-1", stateDir })
    assert.match(identity ?? "", /^i-[a-z2-7]{16}$/)
    assert.strictEqual(second.identity, identity)
    await second.release()
    assert.deepStrictEqual(server.hosts, [])
  })

  it.each([
    ["a token that is not known", { token: "other" }, "token-invalid"],
    ["no token", {}, "token-missing"],
    ["a server without a port", { server: "prism.example.net" }, "invalid"],
    ["a hostname that is none", { hostname: "web_1" }, "invalid"],
    ["a label that is none", { labels: { "": "x" } }, "invalid"]
  ])("rejects for %s, since asking again does not help", async (_, options, code) => {
    await using server = await FakeServer.start({ tokens: [{ token: "t" }] })
    assert.strictEqual((await failure({ server: server.address, hostname: "web-1", ...options })).code, code)
  })
})
