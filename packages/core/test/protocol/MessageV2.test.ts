/** What an agent may send, at its bounds, and what it is told beyond them. The page of the protocol has each frame as it should be. */
import { assert, describe, it } from "@effect/vitest"
import * as MessageV2 from "@prism-dns/core/protocol/MessageV2"
import { Result } from "effect"

const register = { type: "register", id: 1, hostname: "web-1" }
const hello = { type: "hello", id: 1, version: "2.0" }
const key = "A".repeat(43)

const named = (count: number) => Object.fromEntries(Array.from({ length: count }, (_, i) => [`key-${i}`, "value"]))

describe("a message at its bounds is understood:", () => {
  it.each([
    ["as many addresses as a host may have", { ...register, addresses: Array(MessageV2.addressesMax).fill("::1") }],
    ["as many labels", { ...register, labels: named(MessageV2.labelsMax) }],
    ["the longest label", { ...register, labels: { ["k".repeat(63)]: "v".repeat(255), a: "" } }],
    ["the smallest and the largest TTL", { ...register, ttlSeconds: 2_147_483_647 }],
    ["the largest id", { ...register, id: Number.MAX_SAFE_INTEGER }],
    ["a hostname in capitals", { ...register, hostname: "WEB-1" }],
    ["fields that a later version may bring", { ...register, later: { more: true } }]
  ])("%s", (_, message) => {
    assert.isTrue(Result.isSuccess(MessageV2.decodeAgentMessage(message)))
  })
})

describe("a message beyond them is refused, with its id and the field:", () => {
  it.each([
    ["one address more", { ...register, addresses: Array(MessageV2.addressesMax + 1).fill("::1") }, /^addresses: /],
    ["no address", { ...register, addresses: [] }, /^addresses: /],
    ["one label more", { ...register, labels: named(MessageV2.labelsMax + 1) }, /^labels: a host has at most 32/],
    ["a label without a key", { ...register, labels: { "": "x" } }, /^labels/],
    ["a label that ends in a dot", { ...register, labels: { "a.": "x" } }, /^labels/],
    ["a label of 256 characters", { ...register, labels: { a: "v".repeat(256) } }, /^labels/],
    ["a TTL of nothing", { ...register, ttlSeconds: 0 }, /^ttlSeconds: /],
    ["a hostname with an underscore", { ...register, hostname: "web_1" }, /^hostname: /],
    ["a level that is none", { ...register, ack: "done" }, /^ack: /],
    ["a method that is none", { ...hello, auth: { method: "magic" } }, /^auth: method must be one of key, enrol, /],
    ["no way of proving", hello, /^auth: method must be one of/],
    ["a key that is none", { ...hello, auth: { method: "key", publicKey: "short" } }, /^auth\.publicKey: /],
    [
      "a key in another text of the same bytes",
      { ...hello, auth: { method: "key", publicKey: `${key.slice(1)}B` } },
      /./
    ],
    ["a token of 513 characters", { ...hello, auth: { method: "token", token: "t".repeat(513) } }, /^auth\.token: /]
  ])("%s", (_, message, expected) => {
    const decoded = MessageV2.decodeAgentMessage(message)
    if (Result.isSuccess(decoded)) return assert.fail(JSON.stringify(decoded.success))
    assert.deepInclude(decoded.failure, { code: "invalid", id: 1 })
    assert.match(decoded.failure.message, expected)
  })

  it("an id that is none is not repeated", () => {
    for (const id of [-1, 1.5, "1", null, Number.MAX_SAFE_INTEGER + 1]) {
      const decoded = MessageV2.decodeAgentMessage({ ...register, id })
      assert.isTrue(Result.isFailure(decoded) && decoded.failure.id === undefined)
    }
  })
})
