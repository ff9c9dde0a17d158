/**
 * Asks a DNS server over UDP until every name answers as it should.
 *
 * Promises: counts a name only when the answer is NOERROR with exactly the
 * record expected; asks again only for names not seen yet, in their order, and
 * slows down while the server has no news, so that asking takes little from
 * the server that is measured. Packets are made and read by hand for the same
 * reason.
 */
import { Effect } from "effect"
import * as Dgram from "node:dgram"
import { BenchFailed } from "./Benchmark.ts"
import type { Endpoint } from "./Servers.ts"

/** A question with its only right answer. */
export interface Expectation {
  /** Without the dot at the end. */
  readonly name: string
  readonly type: "A" | "PTR"
  /** An IPv4 address, or a name without the dot at the end. */
  readonly data: string
}

export const typeNumbers = { A: 1, PTR: 12 } as const

const headerBytes = 12

/** The packet that asks; its id, the first two bytes, is set when it is sent. */
export const encodeQuestion = ({ name, type }: Expectation): Buffer => {
  const packet = Buffer.alloc(headerBytes + name.length + 2 + 4)
  packet.writeUInt16BE(1, 4) // one question; recursion is not desired
  let at = headerBytes
  for (const label of name.split(".")) {
    packet[at] = label.length
    at += 1 + packet.write(label, at + 1, "latin1")
  }
  packet.writeUInt16BE(typeNumbers[type], at + 1)
  packet.writeUInt16BE(1, at + 3)
  return packet
}

/** The name at `at`, following pointers; and where what follows it begins. */
const readName = (packet: Buffer, at: number): { readonly name: string; readonly end: number } => {
  const labels: Array<string> = []
  let end: number | undefined
  // A name has at most 127 labels; a packet that points in circles ends here.
  for (let steps = 0; steps < 256; steps++) {
    const length = packet[at]
    if (length === undefined) break
    if (length === 0) return { name: labels.join("."), end: end ?? at + 1 }
    if (length >= 0xc0) {
      end ??= at + 2
      at = ((length & 0x3f) << 8) | (packet[at + 1] ?? 0)
    } else {
      labels.push(packet.toString("latin1", at + 1, at + 1 + length))
      at += 1 + length
    }
  }
  return { name: "", end: packet.length }
}

/** True when `packet` answers `question` with exactly the record that is expected. */
export const isRight = (packet: Buffer, question: Buffer, expected: Expectation): boolean => {
  if (packet.length < question.length || (packet.readUInt16BE(2) & 0x800f) !== 0x8000) return false
  if (packet.readUInt16BE(6) !== 1) return false
  if (packet.compare(question, headerBytes, question.length, headerBytes, question.length) !== 0) return false
  const owner = readName(packet, question.length)
  if (owner.name.toLowerCase() !== expected.name || packet.length < owner.end + 10) return false
  if (packet.readUInt16BE(owner.end) !== typeNumbers[expected.type]) return false
  const data = owner.end + 10
  return expected.type === "A"
    ? packet.subarray(data, data + packet.readUInt16BE(owner.end + 8)).join(".") === expected.data
    : readName(packet, data).name.toLowerCase() === expected.data
}

/** Questions under way at once; fewer than a socket's buffer holds answers. */
const windowMax = 128
/** After a name that is not there yet. */
const pauseMillis = 10
/** A question without an answer is asked again. */
const answerMillisMax = 500

/** Waits until every expectation is met, as the server at `dns` sees it; gives the number of wrong answers before. Fails after `millisMax`. */
export const awaitAll = (
  dns: Endpoint,
  expectations: ReadonlyArray<Expectation>,
  millisMax: number
): Effect.Effect<number, BenchFailed> =>
  Effect.callback((resume) => {
    const questions = expectations.map(encodeQuestion)
    const socket = Dgram.createSocket("udp4")
    /** Index of the question under way with this id, and since when. */
    const underWay = new Map<number, { readonly index: number; readonly sentMillis: number }>()
    let missed: Array<number> = []
    let next = 0
    let met = 0
    let window = windowMax
    let pausedUntil = 0
    let id = 0
    let wrong = ""
    let wrongAnswers = 0
    const startMillis = performance.now()

    let finished = false
    const close = () => {
      if (finished) return
      finished = true
      clearInterval(ticker)
      socket.close()
    }
    const finish = (result: Effect.Effect<number, BenchFailed>) => {
      close()
      resume(result)
    }

    const ask = () => {
      const now = performance.now()
      if (now < pausedUntil) return
      // What was missing is asked first: names come in about the order in which they are asked.
      const again = missed
      let taken = 0
      while (underWay.size < window) {
        const index = taken < again.length ? again[taken++]! : next < questions.length ? next++ : undefined
        if (index === undefined) break
        id = (id + 1) & 0xffff
        const question = questions[index]!
        question.writeUInt16BE(id)
        underWay.set(id, { index, sentMillis: now })
        socket.send(question)
      }
      missed = taken === 0 ? again : again.slice(taken)
    }

    const tick = () => {
      const now = performance.now()
      for (const [key, { index, sentMillis }] of underWay) {
        if (now - sentMillis < answerMillisMax) break
        underWay.delete(key)
        missed.push(index)
      }
      if (now - startMillis > millisMax) {
        const first = expectations[missed[0] ?? underWay.values().next().value?.index ?? 0]!
        return finish(
          Effect.fail(
            new BenchFailed({
              detail: `${expectations.length - met} of ${expectations.length} names were not right within ${millisMax / 1000} s, for example ${first.name} ${first.type}${wrong}`
            })
          )
        )
      }
      ask()
    }

    socket.on("error", (error) => finish(Effect.fail(new BenchFailed({ detail: `DNS: ${error.message}` }))))
    socket.on("message", (packet) => {
      const key = packet.readUInt16BE(0)
      const asked = underWay.get(key)
      if (asked === undefined) return
      underWay.delete(key)
      if (isRight(packet, questions[asked.index]!, expectations[asked.index]!)) {
        met += 1
        if (met === expectations.length) return finish(Effect.succeed(wrongAnswers))
        window = Math.min(windowMax, window * 2)
      } else {
        wrong = ` (last wrong answer: rcode ${packet.readUInt16BE(2) & 15}, ${packet.readUInt16BE(6)} records)`
        missed.push(asked.index)
        window = 1
        pausedUntil = performance.now() + pauseMillis
      }
      ask()
    })
    const ticker = setInterval(tick, pauseMillis)
    socket.connect(dns.port, dns.host, ask)
    return Effect.sync(close)
  })
