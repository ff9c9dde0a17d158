import { assert, describe, it } from "@effect/vitest"
import * as Backoff from "../src/Backoff.ts"
import { RegistrationFailed } from "../src/Options.ts"
import * as Servers from "../src/Servers.ts"
import * as Session from "../src/Session.ts"
import * as Sleep from "../src/Sleep.ts"

describe("Backoff", () => {
  const settings = { baseMillis: 1000, capMillis: 30_000 }

  it.each([
    [1, 1000],
    [2, 2000],
    [5, 16_000],
    [6, 30_000],
    [1_000_000, 30_000]
  ])("after %i failures a wait is anything below %i ms", (failures, ceiling) => {
    assert.strictEqual(Backoff.delayMillis(failures, settings, 0), 0)
    assert.isAtMost(Backoff.delayMillis(failures, settings, 0.999_999), ceiling)
    assert.strictEqual(Backoff.delayMillis(failures, settings, 0.5), ceiling / 2)
  })

  it("what the server asks for is waited in full, up to an hour, and the jitter comes on top", () => {
    assert.strictEqual(Backoff.delayMillis(1, settings, 0, 20), 20_000)
    assert.strictEqual(Backoff.delayMillis(1, settings, 0.5, 20), 20_500)
    assert.strictEqual(Backoff.delayMillis(1, settings, 0, 1e9), 3_600_000)
    assert.strictEqual(Backoff.delayMillis(1, settings, 0, -5), 0)
  })
})

describe("Servers", () => {
  it.each([
    ["prism.example.net:8080", { host: "prism.example.net", port: 8080, tls: false }],
    ["tcp://prism.example.net:8080", { host: "prism.example.net", port: 8080, tls: false }],
    ["tls://prism.example.net:8443", { host: "prism.example.net", port: 8443, tls: true }],
    ["[2001:db8::1]:8080", { host: "2001:db8::1", port: 8080, tls: false }],
    ["tls://[::1]:8443", { host: "::1", port: 8443, tls: true }]
  ])("%s", (text, expected) => {
    assert.deepStrictEqual(Servers.parseServer(text), { text, ...expected })
  })

  it.each(["", "prism", "prism:", ":8080", "prism:0", "prism:65536", "http://prism:80", "2001:db8::1:8080", "a b:1"])(
    "'%s' is no server",
    (text) => {
      assert.throws(() => Servers.parseServers(text), RegistrationFailed)
    }
  )

  it("no server, or too many, are refused", () => {
    assert.throws(() => Servers.parseServers([]), RegistrationFailed)
    assert.throws(() => Servers.parseServers(Array.from({ length: 33 }, () => "a:1")), RegistrationFailed)
  })

  it("they are tried in their order, and from the beginning again", () => {
    assert.deepStrictEqual(
      [undefined, 0, 1, 2].map((tried) => Servers.nextIndex(3, tried)),
      [0, 1, 2, 0]
    )
    assert.strictEqual(Servers.nextIndex(1, 0), 0)
  })
})

describe("Sleep", () => {
  it.each<[string, number, number, Sleep.Verdict["_tag"]]>([
    ["both clocks agree", 5000, 5000, "Steady"],
    ["the wall clock is disciplined a little", 5400, 5000, "Steady"],
    ["the machine slept", 3_605_000, 5000, "Slept"],
    ["someone set the clock forward", 86_405_000, 5000, "Slept"],
    ["someone set the clock back", -86_395_000, 5000, "SetBack"],
    ["the process was stopped", 65_000, 65_000, "Stalled"],
    ["it was stopped, and the clock set back meanwhile", -65_000, 65_000, "Stalled"]
  ])("%s", (_, wall, monotonic, verdict) => {
    const before = { wallMillis: 1_000_000, monotonicMillis: 500 }
    const now = { wallMillis: 1_000_000 + wall, monotonicMillis: 500 + monotonic }
    assert.strictEqual(Sleep.judge(before, now, 5000)._tag, verdict)
  })
})

describe("Session", () => {
  const publicKey = "A".repeat(43)
  const key = { publicKey, identity: undefined, server: undefined, next: undefined } as Session.Credentials["key"] &
    object
  const enrolled = { ...key, identity: "i-abcdefghijklmnop" }

  it.each<[string, Session.Credentials, string]>([
    ["nothing", { key: undefined, token: undefined, certificate: false }, "anonymous"],
    ["a token", { key: undefined, token: "t", certificate: false }, "token"],
    ["a certificate and a token", { key: undefined, token: "t", certificate: true }, "certificate"],
    ["a new key and a token", { key, token: "t", certificate: false }, "enrol"],
    ["a new key alone, which a server may know all the same", { key, token: undefined, certificate: false }, "key"],
    ["an enrolled key and a token", { key: enrolled, token: "t", certificate: true }, "key"]
  ])("with %s it proves itself in the right way", (_, credentials, method) => {
    assert.strictEqual(Session.authOf(credentials).method, method)
  })
})
