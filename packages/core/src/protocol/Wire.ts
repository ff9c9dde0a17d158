/**
 * Frames: a 4-byte big-endian length, then that many bytes.
 *
 * The decoder takes bytes as they come, split anywhere, and gives whole
 * frames. It holds at most one frame's bytes, and never more than arrived: a
 * length is a promise, not a reason to allocate. A length above the limit is
 * known from the prefix alone and ends the stream, because what follows cannot
 * be told apart any more.
 */

/** Bytes of the length prefix. */
export const prefixBytes = 4

/** Longest payload of protocol 1.0, inclusive. */
export const payloadBytesMax = 65_536

export type Frame =
  | { readonly _tag: "Payload"; readonly bytes: Uint8Array }
  /** The announced length is above the limit. Nothing after it can be read. */
  | { readonly _tag: "TooLarge"; readonly announcedBytes: number; readonly prefix: Uint8Array }

/** What a decoder holds between frames; shared, since most hold nothing most of the time. */
const empty = new Uint8Array(0)

export class FrameDecoder {
  readonly #payloadBytesMax: number
  #buffer = empty
  #filled = 0
  #broken = false

  constructor(payloadBytesMax_ = payloadBytesMax) {
    this.#payloadBytesMax = payloadBytesMax_
  }

  /** True while a frame has begun and is not complete. */
  get isPartial(): boolean {
    return this.#filled > 0
  }

  /** Bytes held of a frame that is not complete yet. */
  get heldBytes(): number {
    return this.#filled
  }

  /** The frames that `chunk` completes, in order. After `TooLarge` the decoder takes nothing more. */
  push(chunk: Uint8Array): ReadonlyArray<Frame> {
    if (this.#broken || chunk.length === 0) return []
    const frames: Array<Frame> = []
    const input = this.#join(chunk)
    let at = 0
    while (input.length - at >= prefixBytes) {
      const announcedBytes =
        ((input[at]! << 24) | (input[at + 1]! << 16) | (input[at + 2]! << 8) | input[at + 3]!) >>> 0
      if (announcedBytes > this.#payloadBytesMax) {
        frames.push({ _tag: "TooLarge", announcedBytes, prefix: input.slice(at, at + prefixBytes) })
        this.#broken = true
        this.#release()
        return frames
      }
      const end = at + prefixBytes + announcedBytes
      if (end > input.length) break
      frames.push({ _tag: "Payload", bytes: input.subarray(at + prefixBytes, end) })
      at = end
    }
    this.#keep(input, at)
    return frames
  }

  /** What is held and `chunk` as one run of bytes; no copy where nothing is held. */
  #join(chunk: Uint8Array): Uint8Array {
    if (this.#filled === 0) return chunk
    const length = this.#filled + chunk.length
    if (length > this.#buffer.length) {
      // Twice the size, so that bytes that drip in one by one are copied a constant number of times.
      const grown = new Uint8Array(Math.max(length, this.#buffer.length * 2))
      grown.set(this.#buffer.subarray(0, this.#filled))
      this.#buffer = grown
    }
    this.#buffer.set(chunk, this.#filled)
    this.#filled = length
    return this.#buffer.subarray(0, length)
  }

  /** Keeps the bytes of `input` from `at` on for the next chunk. */
  #keep(input: Uint8Array, at: number): void {
    const rest = input.length - at
    if (rest === 0) return this.#release()
    if (at === 0 && this.#filled === input.length) return
    // Payloads given out are views of the old buffer: the rest goes into a new one.
    this.#buffer = input.slice(at)
    this.#filled = rest
  }

  #release(): void {
    this.#buffer = empty
    this.#filled = 0
  }
}

const encoder = new TextEncoder()

/** A frame around `text`, in one piece. */
export const encode = (text: string): Uint8Array => {
  // Almost all text is ASCII, a byte a character; three bytes for each UTF-16 unit is the most that UTF-8 takes.
  return encodeWithin(text, text.length) ?? encodeWithin(text, text.length * 3)!
}

/** Undefined when the text does not fit. */
const encodeWithin = (text: string, payloadBytes: number): Uint8Array | undefined => {
  const frame = new Uint8Array(prefixBytes + payloadBytes)
  const { read, written } = encoder.encodeInto(text, frame.subarray(prefixBytes))
  if (read < text.length) return undefined
  frame[0] = written >>> 24
  frame[1] = written >>> 16
  frame[2] = written >>> 8
  frame[3] = written
  return frame.subarray(0, prefixBytes + written)
}

/** The frames around `texts`, in one piece. */
export const encodeAll = (texts: ReadonlyArray<string>): Uint8Array => {
  const frames = texts.map(encode)
  const all = new Uint8Array(frames.reduce((bytes, frame) => bytes + frame.length, 0))
  let at = 0
  for (const frame of frames) {
    all.set(frame, at)
    at += frame.length
  }
  return all
}
