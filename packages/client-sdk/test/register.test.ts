import { assert, describe, it } from "@effect/vitest"
import { register, RegistrationFailed, type RegisterOptions } from "@prism-dns/client-sdk"
import { FakeServer } from "@prism-dns/client-sdk/testing"
import * as ChildProcess from "node:child_process"
import * as Fs from "node:fs"
import * as Os from "node:os"
import * as Path from "node:path"
import { onTestFinished } from "vitest"

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

  it("takes a token with the line end of the file it was read from", async () => {
    await using server = await FakeServer.start({ tokens: [{ token: "t" }] })
    await using registration = await register({ server: server.address, hostname: "web-1", token: "t\n" })
    assert.strictEqual(registration.host, "web-1.hosts.prism.test.")
  })

  it("enrols a key with a token once, and later proves the key without it", async () => {
    await using server = await FakeServer.start({ tokens: [{ token: "once", usesMax: 1 }] })
    const folder = Fs.mkdtempSync(Path.join(Os.tmpdir(), "prism-sdk-"))
    onTestFinished(() => Fs.rmSync(folder, { recursive: true, force: true }))
    const stateDir = Path.join(folder, "state")
    const first = await register({ server: server.address, hostname: "web-1", token: "once", stateDir })
    const { identity } = first
    await first.close()
    const second = await register({ server: server.address, hostname: "web-1", stateDir })
    assert.match(identity ?? "", /^i-[a-z2-7]{16}$/)
    assert.strictEqual(second.identity, identity)
    await second.release()
    assert.deepStrictEqual(server.hosts, [])
  })

  it("says why it waits where a name is refused for now, since nobody can listen yet", async () => {
    await using server = await FakeServer.start()
    server.refuseNext("register", { code: "hostname-taken", message: "web-1 is another's", retryable: true })
    const warned = new Promise<Error>((resolve) => process.once("warning", resolve))
    await using registration = await register({ server: server.address, hostname: "web-1" })
    const { message, name } = await warned
    assert.strictEqual(name, "PrismDnsWarning")
    assert.include(message, "web-1 is another's (hostname-taken)")
    assert.strictEqual(registration.host, "web-1.hosts.prism.test.")
  })

  it.each([
    ["a token that is not known", { token: "other" }, "token-invalid"],
    ["no token", {}, "token-missing"],
    ["no server", { server: undefined as unknown as string }, "invalid"],
    ["a level that is none", { waitFor: "done" as "served", token: "t" }, "invalid"],
    ["a server without a port", { server: "prism.example.net" }, "invalid"],
    ["a hostname that is none", { hostname: "web_1" }, "invalid"],
    ["a label that is none", { labels: { "": "x" } }, "invalid"]
  ])("rejects for %s, since asking again does not help", async (_, options, code) => {
    await using server = await FakeServer.start({ tokens: [{ token: "t" }] })
    assert.strictEqual((await failure({ server: server.address, hostname: "web-1", ...options })).code, code)
  })
})

/** Runs a program with `register` and the address of a fake at hand; gives how it ended and what it said. */
const runProgram = (server: FakeServer, body: string, before = "") =>
  new Promise<{ readonly code: number | null; readonly said: string }>((resolve) => {
    const program = `import { register } from "@prism-dns/client-sdk"
${before}
const registration = await register({ server: "${server.address}", hostname: "web-1", ...${body}`
    const child = ChildProcess.execFile(
      process.execPath,
      ["--conditions=@prism-dns/source", "--input-type=module-typescript", "-e", program],
      { cwd: import.meta.dirname, timeout: 15_000 },
      (_, stdout, stderr) => resolve({ code: child.exitCode, said: `${stdout}${stderr}` })
    )
  })

describe("a process", () => {
  it("stays while it is registered, and ends when it is not any more", async () => {
    await using server = await FakeServer.start()
    let ended = false
    const run = runProgram(
      server,
      `{} })
registration.on("notice", () => registration.release())
await registration.update({ labels: { ready: "yes" } })`
    )
    void run.then(() => (ended = true))
    await server.until(() => server.host("web-1")?.labels["ready"] === "yes", 10_000)
    assert.isFalse(ended)
    server.notice("test", "enough")
    assert.deepStrictEqual(await run, { code: 0, said: "" })
    assert.deepStrictEqual(server.hosts, [])
  })

  it("ends for all that where it is asked to (`unref`)", async () => {
    await using server = await FakeServer.start()
    assert.deepStrictEqual(await runProgram(server, `{ unref: true } })`), { code: 0, said: "" })
    assert.strictEqual(server.count("register"), 1)
  })

  it("that nobody listens in survives a refusal, and ends", async () => {
    await using server = await FakeServer.start()
    const run = runProgram(server, `{} })\nawait registration.update({ labels: { ready: "yes" } })`)
    await server.until(() => server.host("web-1")?.labels["ready"] === "yes", 10_000)
    // Behind the answer to the update.
    server.revoke("anonymous")
    assert.deepStrictEqual(await run, { code: 0, said: "" })
  })

  it("says once why nothing happens where no server is", async () => {
    await using server = await FakeServer.start()
    await server.stop()
    const { said } = await runProgram(
      server,
      `{ signal: controller.signal, timing: { backoffBaseMillis: 10, backoffCapMillis: 10 } } }).catch(({ code }) => console.log(code))`,
      `const controller = new AbortController()
process.once("warning", () => setTimeout(() => controller.abort(), 200))`
    )
    assert.match(said, /PrismDnsWarning: 127\.0\.0\.1:\d+: .*ECONNREFUSED/)
    assert.strictEqual(said.match(/PrismDnsWarning/g)?.length, 1)
    assert.include(said, "aborted")
  })
})

describe("a registration", () => {
  it("that is aborted rejects, and leaves nothing behind", async () => {
    await using server = await FakeServer.start({ stopAt: "accepted" })
    const controller = new AbortController()
    const waiting = failure({ server: server.address, hostname: "web-1", waitFor: "served", signal: controller.signal })
    await server.until(({ sessions }) => sessions === 1)
    controller.abort()
    assert.strictEqual((await waiting).code, "aborted")
    await server.until(({ sessions }) => sessions === 0)
    const before = await failure({ server: server.address, signal: controller.signal })
    assert.strictEqual(before.code, "aborted")
  })

  it("lives on where only a wait is aborted", async () => {
    await using server = await FakeServer.start({ stopAt: "accepted" })
    await using registration = await register({ server: server.address, hostname: "web-1" })
    const controller = new AbortController()
    const waiting = registration.waitFor("served", { signal: controller.signal }).then(
      () => "reached",
      (error: unknown) => (error instanceof RegistrationFailed ? error.code : "another")
    )
    controller.abort()
    assert.strictEqual(await waiting, "aborted")
    assert.strictEqual(registration.state, "online")
  })

  it("calls listeners as often as they ask for, and not behind `off` or the end", async () => {
    await using server = await FakeServer.start()
    const registration = await register({ server: server.address, hostname: "web-1", waitFor: "served" })
    const heard: Array<string> = []
    const dropped = () => heard.push("dropped")
    registration
      .once("notice", ({ code }) => heard.push(`once ${code}`))
      .on("notice", ({ code }) => heard.push(`on ${code}`))
      .on("notice", dropped)
      .off("notice", dropped)
      .on("served", ({ host }) => heard.push(host))
    server.notice("a", "")
    server.notice("b", "")
    await server.until(() => heard.length === 4)
    await registration.close()
    assert.deepStrictEqual(heard.toSorted(), ["on a", "on b", "once a", "web-1.hosts.prism.test."])
    assert.strictEqual(registration.state, "closed")
    await server.until(({ sessions }) => sessions === 0)
    assert.strictEqual(server.hosts.length, 1)
  })

  it("is given up at the end of `await using`, or kept where it is asked to", async () => {
    await using server = await FakeServer.start()
    {
      await using _ = await register({ server: server.address, hostname: "web-1" })
    }
    assert.strictEqual(server.hosts.length, 0)
    {
      await using _ = await register({ server: server.address, hostname: "web-1", onDispose: "keep" })
    }
    assert.strictEqual(server.hosts.length, 1)
  })

  it("that cannot be given up in time says so, and is closed", async () => {
    await using server = await FakeServer.start()
    const registration = await register({ server: server.address, hostname: "web-1" })
    await server.stop()
    const code = await registration.release({ timeoutMillis: 50 }).then(
      () => "released",
      (error: unknown) => (error instanceof RegistrationFailed ? error.code : "another")
    )
    assert.deepStrictEqual([code, registration.state], ["timeout", "closed"])
  })

  it("tells the process of a listener that throws, and goes on", async () => {
    await using server = await FakeServer.start()
    const { code, said } = await runProgram(
      server,
      `{} })
process.once("uncaughtException", ({ message }) => { console.log(message, registration.state); registration.release() })
registration.on("accepted", () => { throw new Error("mine") })`
    )
    assert.deepStrictEqual([code, said], [0, "mine online\n"])
  })
})
