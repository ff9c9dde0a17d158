/**
 * What `prism-dns doctor` asks by DNS: a zone's serial, and whether a whole
 * zone is given away.
 *
 * Promises: each question ends within its limit, its socket closed. Leaves to
 * others: asking over UDP (`dns/NameServers`), and what the answers mean.
 */
import dnsPacket from "dns-packet"
import { Effect } from "effect"
import { lookup } from "node:dns/promises"
import * as Net from "node:net"
import { NameServers } from "../dns/NameServers.ts"
import type { DomainName } from "../domain/DomainName.ts"
import * as Serial from "../domain/Serial.ts"
import type { SerialAnswer } from "./DoctorFacts.ts"
import type { DnsEndpoint } from "./PowerDnsNodes.ts"

/** Addresses of a host; none when it has no name in time. */
export const addressesOf = (host: string): Effect.Effect<ReadonlyArray<string>> =>
  Effect.tryPromise(async () => (await lookup(host, { all: true })).map(({ address }) => address)).pipe(
    Effect.timeout("3 seconds"),
    Effect.orElseSucceed(() => [])
  )

/** The serial that a server answers for `zone`. `host` is an address. */
export const serial = Effect.fnUntraced(function* (endpoint: DnsEndpoint, zone: DomainName) {
  const servers = yield* NameServers
  return yield* servers.ask(endpoint, zone, "SOA").pipe(
    Effect.map(({ contents: [soa], rcode }): SerialAnswer => {
      const serial = Serial.ofSoa(soa)
      return serial === undefined ? { _tag: "NoZone", rcode } : { _tag: "Serial", serial }
    }),
    Effect.catch(() => Effect.succeed<SerialAnswer>({ _tag: "Silent" }))
  )
})

/** What one says to whoever asks for a zone. */
export type Transfer = "open" | "refused" | "silent"

const transferMillisMax = 2000
/** Longest first message that is read, its length included. */
const messageBytesMax = 2 + 65_535

/** Whether a message, with its length before it, begins to give a zone away; undefined while it is not whole. */
const readTransfer = (received: Buffer, id: number): Transfer | undefined => {
  if (received.length < 2 || received.length < 2 + received.readUInt16BE(0)) return undefined
  try {
    const packet = dnsPacket.decode(received.subarray(2, 2 + received.readUInt16BE(0)))
    const rcode = "rcode" in packet ? packet.rcode : undefined
    const [first] = packet.answers ?? []
    return packet.id === id && rcode === "NOERROR" && first?.type === "SOA" ? "open" : "refused"
  } catch {
    // What cannot be read gives nothing away.
    return "refused"
  }
}

/**
 * Whether a server gives `zone` whole to whoever asks from here, without a key. Reads no more than the first message of
 * it. `host` is an address.
 */
export const transfer = (endpoint: DnsEndpoint, zone: DomainName): Effect.Effect<Transfer> =>
  Effect.callback<Transfer>((resume) => {
    const id = Math.floor(Math.random() * 0x1_0000)
    const question = dnsPacket.streamEncode({
      type: "query",
      id,
      questions: [{ type: "AXFR", name: zone.slice(0, -1) }]
    })
    let received = Buffer.alloc(0)
    let isConnected = false
    const socket = Net.connect(endpoint.port, endpoint.host, () => {
      isConnected = true
      socket.write(question)
    })
    const end = (answer: Transfer) => {
      socket.destroy()
      resume(Effect.succeed(answer))
    }
    const none = () => end(isConnected ? "refused" : "silent")
    socket.on("data", (data: Buffer) => {
      received = Buffer.concat([received, data]).subarray(0, messageBytesMax)
      const answer = readTransfer(received, id)
      if (answer !== undefined) end(answer)
    })
    socket.on("error", none)
    // Some servers refuse by closing.
    socket.on("close", none)
    return Effect.sync(() => socket.destroy())
  }).pipe(Effect.timeoutOrElse({ duration: transferMillisMax, orElse: () => Effect.succeed("silent" as const) }))
