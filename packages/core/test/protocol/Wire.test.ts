import { assert, describe, it } from "@effect/vitest"
import * as Wire from "@prism-dns/core/protocol/Wire"
import { Arbitrary } from "effect"
import { integer } from "../arbitraries.ts"

const bytesOf = (text: string) => new TextEncoder().encode(text)
const textOf = (frame: Wire.Frame) =>
  frame._tag === "Payload" ? new TextDecoder().decode(frame.bytes) : `too large: ${frame.announcedBytes}`

const prefixOf = (length: number): Uint8Array => {
  const prefix = new Uint8Array(4)
  new DataView(prefix.buffer).setUint32(0, length)
  return prefix
}

const concat = (parts: ReadonlyArray<Uint8Array>): Uint8Array => new Uint8Array(parts.flatMap((part) => [...part]))

/** Cuts `bytes` at the given places, which are taken modulo its length. */
const split = (bytes: Uint8Array, cuts: ReadonlyArray<number>): ReadonlyArray<Uint8Array> => {
  const places = [...new Set(cuts.map((cut) => cut % (bytes.length + 1)))].sort((a, b) => a - b)
  return [0, ...places].map((from, i) => bytes.slice(from, places[i] ?? bytes.length))
}

describe("Wire", () => {
  it.prop(
    "frames split anywhere and glued anyhow come out whole and in order",
    {
      payloads: Arbitrary.array(Arbitrary.array(integer(0, 255), { minLength: 0, maxLength: 300 }), {
        minLength: 1,
        maxLength: 8
      }),
      cuts: Arbitrary.array(integer(0, 3000), { minLength: 0, maxLength: 40 })
    },
    ({ cuts, payloads }) => {
      const stream = concat(payloads.flatMap((payload) => [prefixOf(payload.length), new Uint8Array(payload)]))
      const decoder = new Wire.FrameDecoder()
      const frames = split(stream, cuts).flatMap((chunk) => decoder.push(chunk).map((frame) => ({ ...frame })))
      assert.deepStrictEqual(
        frames.map((frame) => (frame._tag === "Payload" ? [...frame.bytes] : [])),
        payloads.map((payload) => [...payload])
      )
      assert.isFalse(decoder.isPartial)
    }
  )

  it("a frame byte by byte is one frame", () => {
    const decoder = new Wire.FrameDecoder()
    const frames = [...Wire.encode('{"a":"ä"}')].flatMap((byte) => decoder.push(new Uint8Array([byte])))
    assert.deepStrictEqual(frames.map(textOf), ['{"a":"ä"}'])
  })

  it("payloads given out earlier stay as they were when more arrives", () => {
    const decoder = new Wire.FrameDecoder()
    const [first] = decoder.push(concat([Wire.encode("first"), Wire.encode("second").subarray(0, 6)]))
    decoder.push(Wire.encode("second").subarray(6))
    decoder.push(Wire.encode("third"))
    assert.strictEqual(textOf(first!), "first")
  })

  it("65,536 bytes are accepted", () => {
    const frames = new Wire.FrameDecoder().push(Wire.encode("x".repeat(65_536)))
    assert.strictEqual(frames[0]?._tag === "Payload" ? frames[0].bytes.length : 0, 65_536)
  })

  it("65,537 bytes are refused from the prefix alone, and nothing after it is read or held", () => {
    const decoder = new Wire.FrameDecoder()
    const frames = decoder.push(concat([Wire.encode("good"), prefixOf(65_537)]))
    assert.deepStrictEqual(frames.map(textOf), ["good", "too large: 65537"])
    assert.deepStrictEqual(decoder.push(Wire.encode("later")), [])
    assert.strictEqual(decoder.heldBytes, 0)
  })

  it("a length above 2^31 is read as unsigned", () => {
    assert.deepStrictEqual(new Wire.FrameDecoder().push(prefixOf(0xffff_ffff)).map(textOf), ["too large: 4294967295"])
  })

  it("a length of zero is an empty payload", () => {
    assert.deepStrictEqual(new Wire.FrameDecoder().push(prefixOf(0)).map(textOf), [""])
  })

  it("an announced length allocates nothing: only what arrived is held", () => {
    const decoder = new Wire.FrameDecoder()
    decoder.push(prefixOf(65_536))
    decoder.push(bytesOf("xy"))
    assert.strictEqual(decoder.heldBytes, 6)
  })

  it("the prefix counts bytes, not characters", () => {
    assert.deepStrictEqual([...Wire.encode("ä€😀").subarray(0, 4)], [0, 0, 0, 9])
  })

  it("one frame alone is told from less, from more and from two", () => {
    const frame = Wire.encode("hello")
    assert.isTrue(Wire.isOneFrame(frame))
    assert.isTrue(Wire.isOneFrame(Wire.encode("")))
    for (const other of [new Uint8Array(0), frame.slice(0, 3), frame.slice(0, -1), concat([frame, frame])]) {
      assert.isFalse(Wire.isOneFrame(other))
    }
  })

  it.prop(
    "text of any kind comes out as it was, alone and among others",
    {
      codes: Arbitrary.array(Arbitrary.array(integer(0, 0xffff), { minLength: 0, maxLength: 40 }), {
        minLength: 1,
        maxLength: 5
      })
    },
    ({ codes }) => {
      const texts = codes.map((each) => String.fromCharCode(...each))
      // Half a surrogate pair is no character, and stands for nothing on the wire.
      const expected = texts.map((text) => text.toWellFormed())
      const read = (bytes: Uint8Array) => new Wire.FrameDecoder().push(bytes).map(textOf)
      assert.deepStrictEqual(read(Wire.encodeAll(texts)), expected)
      assert.deepStrictEqual(
        texts.flatMap((text) => [...read(Wire.encode(text))]),
        expected
      )
    }
  )
})
