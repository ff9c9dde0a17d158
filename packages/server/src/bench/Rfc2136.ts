/**
 * Dynamic updates (RFC 2136), one message for each record, as a client that
 * keeps its socket sends them: what hosts would do without Prism.
 *
 * Not signed: a server that checks no signature is the stricter yardstick,
 * since Prism checks a token for each host.
 */
import { Effect } from "effect"
import * as Dgram from "node:dgram"
import { BenchFailed } from "./Benchmark.ts"
import * as Resolution from "./Resolution.ts"
import { type Endpoint, reverseZone, ttlSeconds, zone } from "./Servers.ts"

const encodeName = (name: string): Buffer =>
  Buffer.concat([
    ...name.split(".").map((label) => Buffer.concat([Buffer.from([label.length]), Buffer.from(label, "latin1")])),
    Buffer.from([0])
  ])

const uint16s = (...values: ReadonlyArray<number>): Buffer => {
  const bytes = Buffer.alloc(values.length * 2)
  values.forEach((value, i) => bytes.writeUInt16BE(value, i * 2))
  return bytes
}

/** The message that adds one record to `zone` (RFC 2136, 2); its id, the first two bytes, is set when it is sent. */
const encodeUpdate = (zone: string, { data, name, type }: Resolution.Expectation): Buffer => {
  const content = type === "PTR" ? encodeName(data) : Buffer.from(data.split(".").map(Number))
  return Buffer.concat([
    uint16s(0, 0x2800, 1, 0, 1, 0),
    encodeName(zone),
    uint16s(6, 1), // SOA, IN
    encodeName(name),
    uint16s(Resolution.typeNumbers[type], 1, 0, ttlSeconds, content.length), // the TTL has 32 bits,
    content
  ])
}

/** On this machine an answer takes a millisecond. */
const answerMillisMax = 500
const attemptsMax = 20

/** A message under way. */
interface Sent {
  readonly index: number
  readonly attempts: number
  readonly timer: NodeJS.Timeout
}

/** Sends the records of one zone, at most `inFlight` of them without an answer; adding one again changes nothing. */
const updateZone = (
  dns: Endpoint,
  zone: string,
  records: ReadonlyArray<Resolution.Expectation>,
  inFlight: number
): Effect.Effect<void, BenchFailed> =>
  Effect.callback<void, BenchFailed>((resume) => {
    const socket = Dgram.createSocket("udp4")
    const underWay = new Map<number, Sent>()
    let next = 0
    let closed = false
    const close = () => {
      if (closed) return
      closed = true
      for (const { timer } of underWay.values()) clearTimeout(timer)
      socket.close()
    }
    const finish = (result: Effect.Effect<void, BenchFailed>) => {
      close()
      resume(result)
    }
    const fail = (index: number, detail: string) =>
      finish(Effect.fail(new BenchFailed({ detail: `update of ${records[index]?.name}: ${detail}` })))
    const send = (index: number, attempts: number) => {
      if (closed) return
      if (attempts > attemptsMax) return fail(index, "no answer")
      const message = encodeUpdate(zone, records[index]!)
      const id = index & 0xffff
      message.writeUInt16BE(id)
      const timer = setTimeout(() => send(index, attempts + 1), answerMillisMax)
      underWay.set(id, { index, attempts, timer })
      socket.send(message)
    }
    const more = () => {
      while (next < records.length && underWay.size < inFlight) send(next++, 1)
      if (next === records.length && underWay.size === 0) finish(Effect.void)
    }
    socket.on("error", (error) => fail(next, error.message))
    socket.on("message", (answer) => {
      const sent = answer.length < 4 ? undefined : underWay.get(answer.readUInt16BE(0))
      if (sent === undefined) return
      const rcode = answer[3]! & 15
      if (rcode !== 0) return fail(sent.index, `rcode ${rcode}`)
      clearTimeout(sent.timer)
      underWay.delete(answer.readUInt16BE(0))
      more()
    })
    socket.connect(dns.port, dns.host, more)
    return Effect.sync(close)
  })

/** Sends the records of both zones, one update each, both zones at once; each when the one before is answered, or several at once. */
export const updateEach = (
  dns: Endpoint,
  records: {
    readonly forward: ReadonlyArray<Resolution.Expectation>
    readonly reverse: ReadonlyArray<Resolution.Expectation>
  },
  inFlight = 1
): Effect.Effect<void, BenchFailed> =>
  Effect.all(
    [updateZone(dns, zone, records.forward, inFlight), updateZone(dns, reverseZone, records.reverse, inFlight)],
    { concurrency: 2, discard: true }
  )

/** What both zones begin with, as a zone file. */
export const zoneFile = (more: string): string => `$TTL ${ttlSeconds}
@ SOA ns1.${zone}. hostmaster.${zone}. 1 10800 3600 604800 60
@ NS ns1.${zone}.
${more}`

/** A name that is there from the beginning. */
export const canary = { name: `canary.${zone}`, type: "A", data: "127.0.0.1" } as const
export const canaryLines = "ns1 A 127.0.0.1\ncanary A 127.0.0.1\n"
