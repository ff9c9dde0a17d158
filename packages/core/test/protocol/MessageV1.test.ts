import { assert, describe, it } from "@effect/vitest"
import * as MessageV1 from "@prism-dns/core/protocol/MessageV1"
import { Result } from "effect"

const bytes = (value: unknown) => new TextEncoder().encode(typeof value === "string" ? value : JSON.stringify(value))

const valid = {
  version: "1.0",
  type: "registration",
  timestamp: "2026-11-23T06:14:00.123456Z",
  hostname: "web-1"
}

const codeOf = (payload: Uint8Array) =>
  Result.match(MessageV1.decode(payload), { onSuccess: () => "accepted", onFailure: (error) => error.code })

const accepted = (fields: object) => codeOf(bytes({ ...valid, ...fields }))

describe("MessageV1", () => {
  // What clients in the field send. These stay readable for ever.
  it.each([
    [
      "client 1.1",
      '{"version": "1.0", "type": "registration", "hostname": "web-1", "client_ip": "10.1.2.3", "timestamp": "2026-11-23T06:14:00.123456+00:00", "auth_token": "s3cret"}',
      "s3cret"
    ],
    [
      "client 1.1 that does not know its address",
      '{"version": "1.0", "type": "registration", "hostname": "web-1", "client_ip": "unknown", "timestamp": "2026-11-23T06:14:00.123456+00:00", "auth_token": "s3cret"}',
      "s3cret"
    ],
    [
      "client 1.0",
      '{"version":"1.0","type":"registration","timestamp":"2026-11-23T06:14:00.123456Z","hostname":"web-1"}',
      undefined
    ]
  ])("understands %s", (_, text, authToken) => {
    assert.deepStrictEqual(Result.getOrThrow(MessageV1.decode(bytes(text))), { hostname: "web-1", authToken } as never)
  })

  it.each([
    "2026-11-23T06:14:00Z",
    "2026-11-23T06:14:00",
    "2026-11-23T06:14:00.1Z",
    "2026-11-23T06:14:00.123456789Z",
    "2026-11-23T06:14:00.5+05:30",
    "2026-11-23T06:14:00-0800"
  ])("timestamp %s is accepted", (timestamp) => assert.strictEqual(accepted({ timestamp }), "accepted"))

  it.each([
    "2026-11-23 06:14:00Z",
    "2026-11-23t06:14:00Z",
    "2026-11-23T06:14:00.1234567890Z",
    "2026-13-23T06:14:00Z",
    "2026-11-23",
    "yesterday",
    "",
    "2026-11-23T06:14:00Z\n"
  ])("timestamp %j is refused", (timestamp) => assert.strictEqual(accepted({ timestamp }), "invalid"))

  it.each(["a", "a.b", "A-1", "1", "x".repeat(63), `${"a.".repeat(126)}b`])("hostname %s is accepted", (hostname) =>
    assert.strictEqual(accepted({ hostname }), "accepted")
  )

  it.each([
    "",
    "-a",
    "a-",
    "a..b",
    "a.",
    ".a",
    "a_b",
    "*",
    "x".repeat(64),
    `${"a.".repeat(126)}bc`,
    "ä",
    "a b",
    "a\n",
    "a\u0000",
    "\u212Aelvin"
  ])("hostname %j is refused", (hostname) => assert.strictEqual(accepted({ hostname }), "invalid"))

  it.each([
    ["another version", { version: "2.0" }, "unsupported-version"],
    ["a version that is a number", { version: 1 }, "unsupported-version"],
    ["another type", { type: "heartbeat" }, "invalid"],
    ["a hostname that is no text", { hostname: 7 }, "invalid"],
    ["a token that is no text", { auth_token: 7 }, "invalid"]
  ])("%s is refused", (_, fields, code) => assert.strictEqual(accepted(fields), code))

  it.each([
    ["an empty payload", new Uint8Array(0), "empty"],
    ["bad UTF-8", new Uint8Array([0x7b, 0xff, 0x7d]), "bad-utf8"],
    ["bad JSON", bytes("{"), "bad-json"],
    ["a byte order mark", bytes("\uFEFF{}"), "bad-json"],
    ["an array", bytes("[]"), "not-an-object"],
    ["null", bytes("null"), "not-an-object"],
    ["a number", bytes("1"), "not-an-object"],
    ["arrays 10,000 deep", bytes("[".repeat(10_000) + "]".repeat(10_000)), "not-an-object"],
    ["objects 10,000 deep", bytes('{"a":'.repeat(10_000) + "1" + "}".repeat(10_000)), "invalid"]
  ])("%s is refused", (_, payload, code) => assert.strictEqual(codeOf(payload), code))

  it("the name is folded to lower case", () => {
    assert.strictEqual(Result.getOrThrow(MessageV1.decode(bytes({ ...valid, hostname: "Web-1" }))).hostname, "web-1")
  })

  it("client_ip and unknown fields are ignored, whatever they hold", () => {
    assert.strictEqual(accepted({ client_ip: { nonsense: [1] }, extra: null, __proto__: null }), "accepted")
  })

  it("of a key that comes twice the last one counts", () => {
    const text = JSON.stringify(valid).replace("}", ',"hostname":"web-2"}')
    assert.strictEqual(Result.getOrThrow(MessageV1.decode(bytes(text))).hostname, "web-2")
  })

  it("a null token is none", () => {
    assert.isUndefined(Result.getOrThrow(MessageV1.decode(bytes({ ...valid, auth_token: null }))).authToken)
  })

  it("no payload makes the decoder throw", () => {
    for (let seed = 1; seed <= 2000; seed++) {
      const payload = Uint8Array.from({ length: seed % 97 }, (_, i) => (seed * 31 + i * 17 * seed) % 256)
      assert.notStrictEqual(codeOf(payload), "accepted")
    }
  })

  it("a response is compact JSON with the known keys first and in order", () => {
    const text = MessageV1.encodeResponse(
      { status: "success", message: "done", more: { level: "applied", host: "a." } },
      Date.UTC(2026, 10, 23, 6, 14, 0, 7)
    )
    assert.strictEqual(
      text,
      '{"version":"1.0","type":"response","status":"success","message":"done","timestamp":"2026-11-23T06:14:00.007000+00:00","level":"applied","host":"a."}'
    )
  })
})
