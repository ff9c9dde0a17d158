import { assert, describe, it } from "@effect/vitest"
import * as MessageV2 from "@prism-dns/core/protocol/MessageV2"
import { Result } from "effect"
import { integer } from "../arbitraries.ts"

const bytesOf = (text: string) => new TextEncoder().encode(text)

/** What the decoder makes of it. */
const decodedId = (payload: Uint8Array): number | undefined => {
  const fields = MessageV2.parseObject(payload)
  const message = Result.isSuccess(fields) ? MessageV2.decodeAgentMessage(fields.success) : undefined
  return message !== undefined && Result.isSuccess(message) && message.success.type === "heartbeat"
    ? message.success.id
    : undefined
}

describe("plainHeartbeatId", () => {
  it.prop("knows a heartbeat as agents write it", { id: integer(0, 999_999_999_999_999) }, ({ id }) => {
    assert.strictEqual(MessageV2.plainHeartbeatId(bytesOf(MessageV2.encodeText({ type: "heartbeat", id }))), id)
  })

  it.prop(
    "of anything else that differs in one byte it says what the decoder says, or nothing",
    { at: integer(0, 40), byte: integer(0, 255), id: integer(0, 999_999_999_999_999) },
    ({ at, byte, id }) => {
      const payload = bytesOf(MessageV2.encodeText({ type: "heartbeat", id }))
      payload[at % payload.length] = byte
      const plain = MessageV2.plainHeartbeatId(payload)
      if (plain !== undefined) assert.strictEqual(plain, decodedId(payload))
    }
  )

  it("leaves to the decoder what JSON would not take, and what is written otherwise", () => {
    for (const text of [
      "",
      "{}",
      '{"type":"heartbeat","id":}',
      '{"type":"heartbeat","id":01}',
      '{"type":"heartbeat","id":-1}',
      '{"type":"heartbeat","id":1.5}',
      '{"type":"heartbeat","id":1e3}',
      '{"type":"heartbeat","id":1} ',
      '{"type":"heartbeat", "id":1}',
      '{"id":1,"type":"heartbeat"}',
      '{"type":"heartbeat","id":9007199254740993}',
      '{"type":"heartbeat","id":1'
    ]) {
      assert.isUndefined(MessageV2.plainHeartbeatId(bytesOf(text)), text)
    }
  })
})
