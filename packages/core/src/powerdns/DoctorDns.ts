/**
 * The few questions that `prism-dns doctor` asks by DNS: a zone's serial, and
 * whether a whole zone is given away.
 *
 * Promises: each ends within its limit; an answer to another question is not
 * taken for ours. Leaves to others: reading any other data.
 */
import { Effect } from "effect"
import * as Dgram from "node:dgram"
import { lookup } from "node:dns/promises"
import * as Net from "node:net"
import type { SerialAnswer } from "./DoctorFacts.ts"
import type { DnsEndpoint } from "./PowerDnsNodes.ts"

const typeSoa = 6
const typeAxfr = 252
const classIn = 1
const headerBytes = 12

/** How long one question may take, and how often one by UDP is asked. */
const answerMillisMax = 1000
const attemptsMax = 2

const rcodes = ["NOERROR", "FORMERR", "SERVFAIL", "NXDOMAIN", "NOTIMP", "REFUSED", "", "", "", "NOTAUTH"]

/** A question as it goes over the wire. */
export const encodeQuestion = (id: number, name: string, type: number): Buffer => {
  const labels = name.split(".").filter((label) => label !== "")
  const header = Buffer.alloc(headerBytes)
  header.writeUInt16BE(id, 0)
  header.writeUInt16BE(1, 4)
  const end = Buffer.alloc(5)
  end.writeUInt16BE(type, 1)
  end.writeUInt16BE(classIn, 3)
  return Buffer.concat([
    header,
    ...labels.map((label) => Buffer.concat([Buffer.of(label.length), Buffer.from(label, "latin1")])),
    end
  ])
}

/** Where the name at `offset` ends. Throws when the message does. */
const skipName = (message: Buffer, offset: number): number => {
  let at = offset
  for (;;) {
    const length = message.readUInt8(at)
    if (length === 0) return at + 1
    if (length >= 0xc0) return at + 2
    at += 1 + length
  }
}

export interface Answer {
  readonly id: number
  readonly rcode: string
  readonly answers: number
  /** Of the first record, where that is an SOA. */
  readonly serial: number | undefined
}

/** What of an answer is looked at; undefined when it is none, or is cut within it. */
export const decodeAnswer = (message: Buffer): Answer | undefined => {
  try {
    const isAnswer = (message.readUInt8(2) & 0x80) !== 0
    if (!isAnswer) return undefined
    const code = message.readUInt8(3) & 0x0f
    const answers = message.readUInt16BE(6)
    let at = headerBytes
    for (let n = message.readUInt16BE(4); n > 0; n--) at = skipName(message, at) + 4
    let serial: number | undefined
    if (answers > 0) {
      at = skipName(message, at)
      // type, class, TTL, length
      if (message.readUInt16BE(at) === typeSoa) {
        serial = message.readUInt32BE(skipName(message, skipName(message, at + 10)))
      }
    }
    return { id: message.readUInt16BE(0), rcode: rcodes[code] || `RCODE ${code}`, answers, serial }
  } catch {
    // Too short for what it says it has: as good as no answer.
    return undefined
  }
}

/** Addresses of a host; none when it has no name in time. */
export const addressesOf = (host: string): Effect.Effect<ReadonlyArray<string>> =>
  Effect.tryPromise(async () => (await lookup(host, { all: true })).map(({ address }) => address)).pipe(
    Effect.timeout("3 seconds"),
    Effect.orElseSucceed(() => [])
  )

const newId = () => Math.floor(Math.random() * 0x1_0000)

const askOnce = (endpoint: DnsEndpoint, name: string): Effect.Effect<Answer | undefined> =>
  Effect.callback<Answer | undefined>((resume) => {
    const id = newId()
    const socket = Dgram.createSocket(endpoint.host.includes(":") ? "udp6" : "udp4")
    socket.on("error", () => resume(Effect.succeed(undefined)))
    socket.on("message", (message) => {
      const answer = decodeAnswer(message)
      if (answer?.id === id) resume(Effect.succeed(answer))
    })
    // Connected: a port that nobody listens on is told at once, and others' answers do not come through.
    socket.connect(endpoint.port, endpoint.host, () => socket.send(encodeQuestion(id, name, typeSoa)))
    return Effect.sync(() => socket.close())
  }).pipe(Effect.timeoutOrElse({ duration: answerMillisMax, orElse: () => Effect.succeed(undefined) }))

/** Asks for the SOA of `name` over UDP. `host` is an address. */
export const askSoa = Effect.fnUntraced(function* (endpoint: DnsEndpoint, name: string) {
  for (let attempt = 1; attempt <= attemptsMax; attempt++) {
    const answer = yield* askOnce(endpoint, name)
    if (answer !== undefined) return answer
  }
  return undefined
})

/** The serial that a server answers for `zone`. `host` is an address. */
export const serial = (endpoint: DnsEndpoint, zone: string): Effect.Effect<SerialAnswer> =>
  Effect.map(askSoa(endpoint, zone), (answer): SerialAnswer => {
    if (answer === undefined) return { _tag: "Silent" }
    return answer.serial === undefined
      ? { _tag: "NoZone", rcode: answer.rcode }
      : { _tag: "Serial", serial: answer.serial }
  })

/** True when serial `a` is not behind `b` (RFC 1982). */
export const isUpToDate = (a: number, b: number): boolean => (a - b) >>> 0 < 0x8000_0000

/**
 * Whether a server gives `zone` whole to whoever asks from here, without a key. Reads no more than the first message of
 * it. `host` is an address.
 */
export const transfer = (endpoint: DnsEndpoint, zone: string): Effect.Effect<"open" | "refused" | "silent"> =>
  Effect.callback<"open" | "refused" | "silent">((resume) => {
    const id = newId()
    const question = encodeQuestion(id, zone, typeAxfr)
    const length = Buffer.alloc(2)
    length.writeUInt16BE(question.length)
    let received = Buffer.alloc(0)
    let isConnected = false
    const socket = Net.connect(endpoint.port, endpoint.host, () => {
      isConnected = true
      socket.write(Buffer.concat([length, question]))
    })
    socket.on("data", (data) => {
      received = Buffer.concat([received, Buffer.from(data)])
      if (received.length < 2 || received.length < 2 + received.readUInt16BE(0)) return
      const answer = decodeAnswer(received.subarray(2, 2 + received.readUInt16BE(0)))
      const isOpen = answer?.id === id && answer.rcode === "NOERROR" && answer.serial !== undefined
      resume(Effect.succeed(isOpen ? "open" : "refused"))
    })
    socket.on("error", () => resume(Effect.succeed(isConnected ? "refused" : "silent")))
    // Some servers refuse by closing.
    socket.on("close", () => resume(Effect.succeed(isConnected ? "refused" : "silent")))
    return Effect.sync(() => socket.destroy())
  }).pipe(
    Effect.timeoutOrElse({ duration: answerMillisMax * attemptsMax, orElse: () => Effect.succeed("silent" as const) })
  )
