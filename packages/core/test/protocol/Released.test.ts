/**
 * Frames as released versions write them: each is understood for ever. A new
 * version adds a file of its own; lines that are here are not changed.
 */
import { assert, describe, it } from "@effect/vitest"
import * as MessageV1 from "@prism-dns/core/protocol/MessageV1"
import * as MessageV2 from "@prism-dns/core/protocol/MessageV2"
import { type Fields, parseObject } from "@prism-dns/core/protocol/Payload"
import { Result } from "effect"
import * as Fs from "node:fs"
import * as Path from "node:path"

const linesOf = (file: string) =>
  Fs.readFileSync(Path.join(import.meta.dirname, "released", file), "utf8")
    .trimEnd()
    .split("\n")
    .map((line, i) => [`${file}:${i + 1}`, line] as const)

const payload = (text: string) => new TextEncoder().encode(text)
const understood = (result: Result.Result<unknown, unknown>) =>
  assert.isTrue(Result.isSuccess(result), JSON.stringify(result))

describe("a released frame is understood", () => {
  it.each(linesOf("1.0-agent.jsonl"))("%s", (_, line) => understood(MessageV1.decode(payload(line))))

  const decodeBy = (decode: (fields: Fields) => Result.Result<unknown, unknown>, line: string) => {
    const decoded = Result.flatMap(parseObject(payload(line)), (fields) => decode(fields))
    understood(decoded)
    // Nothing of it is lost.
    assert.deepStrictEqual(Result.getOrThrow(decoded), JSON.parse(line))
  }
  it.each(linesOf("2.0-agent.jsonl"))("%s", (_, line) => decodeBy(MessageV2.decodeAgentMessage, line))
  it.each(linesOf("2.0-server.jsonl"))("%s", (_, line) => decodeBy(MessageV2.decodeServerMessage, line))
})

describe("a frame of a later minor version", () => {
  it("is understood as far as its fields are known, wherever the others stand", () => {
    const later = { type: "hello", id: 1, version: "2.9", colour: "red", auth: { method: "anonymous", mood: "good" } }
    assert.deepStrictEqual(Result.getOrThrow(MessageV2.decodeAgentMessage(later)), {
      type: "hello",
      id: 1,
      version: "2.9",
      auth: { method: "anonymous" }
    })
    const beat = { type: "beat", id: 1, colour: "red" }
    assert.deepStrictEqual(Result.getOrThrow(MessageV2.decodeServerMessage(beat)), { type: "beat", id: 1 })
  })

  it("of a type that is not known is told from a broken one by its code", () => {
    const result = MessageV2.decodeServerMessage({ type: "song", id: 1 })
    assert.strictEqual(Result.isFailure(result) && result.failure.code, "invalid")
  })
})
