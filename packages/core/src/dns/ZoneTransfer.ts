/**
 * A whole zone fetched from another server (AXFR, RFC 5936) over TCP.
 *
 * Promises: ends within its time; bytes and records are bounded; only a
 * transfer that begins and ends with the zone's SOA is one. No TSIG: the other
 * server lets us by our address. Leaves to others: whom one may ask
 * (`server/http/Records`), and what becomes of the records (`dns/ZoneImport`).
 */
import dnsPacket from "dns-packet"
import { Effect, Result, Schema } from "effect"
import * as Net from "node:net"
import * as DomainName from "../domain/DomainName.ts"
import * as RecordContent from "../domain/RecordContent.ts"
import * as RecordText from "./RecordText.ts"
import { gather, type ZoneContents } from "./ZoneFile.ts"

export interface Server {
  /** An address. */
  readonly host: string
  readonly port: number
}

export interface TransferOptions {
  readonly bytesMax: number
  /** From one piece to the next, in milliseconds. */
  readonly silenceMillisMax: number
  readonly totalMillisMax: number
}

export const defaultOptions: TransferOptions = {
  bytesMax: 64 * 1_048_576,
  silenceMillisMax: 10_000,
  totalMillisMax: 120_000
}

/** The zone could not be had. `reason` is a sentence. */
export class TransferFailed extends Schema.TaggedError<TransferFailed>()("TransferFailed", {
  server: Schema.String,
  reason: Schema.String
}) {
  override get message(): string {
    return `${this.server}: ${this.reason}`
  }
}

/** The text that a content had in presentation form, as far as types that people manage go. */
const addAnswer = (answer: dnsPacket.Answer, gathered: ReturnType<typeof gather>): string | undefined => {
  const name = DomainName.parse(answer.name === "." ? "." : `${answer.name}.`)
  if (Result.isFailure(name)) return `it has the name '${answer.name.slice(0, 64)}': ${name.failure.reason}`
  const { type } = answer
  if (!RecordContent.isRecordType(type) || !RecordText.isSupported(type)) {
    // The number stands where the type has no name.
    return gathered.other(name.success, type.replace(/^UNKNOWN_/, "TYPE"))
  }
  const content = RecordContent.parse(type, RecordText.fromAnswer(answer))
  if (Result.isFailure(content)) return `${name.success} ${content.failure.message}`
  return gathered.add(name.success, type, ("ttl" in answer ? answer.ttl : undefined) ?? 0, content.success)
}

/** Fetches `zone` from `server`. */
export const fetch = (
  zone: DomainName.DomainName,
  server: Server,
  given: Partial<TransferOptions> = {}
): Effect.Effect<ZoneContents, TransferFailed> =>
  Effect.callback((resume) => {
    const options = { ...defaultOptions, ...given }
    const label = Net.isIPv6(server.host) ? `[${server.host}]:${server.port}` : `${server.host}:${server.port}`
    const gathered = gather()
    const id = crypto.getRandomValues(new Uint16Array(1))[0]!
    const socket = Net.connect({ host: server.host, port: server.port, noDelay: true })
    let pieces: Array<Buffer> = []
    let waiting = 0
    let total = 0
    let soas = 0
    let over = false

    const end = (outcome: Result.Result<ZoneContents, string>) => {
      if (over) return
      over = true
      clearTimeout(timer)
      socket.destroy()
      resume(
        Result.match(outcome, {
          onFailure: (reason) => Effect.fail(new TransferFailed({ server: label, reason })),
          onSuccess: Effect.succeed
        })
      )
    }
    const fail = (reason: string) => end(Result.fail(reason))
    const timer = setTimeout(
      () => fail(`the transfer took longer than ${options.totalMillisMax / 1000} s`),
      options.totalMillisMax
    )

    /** One message; true once the zone is complete. */
    const take = (message: Buffer): boolean => {
      let packet: dnsPacket.DecodedPacket
      try {
        packet = dnsPacket.decode(message)
      } catch {
        fail("what it sent cannot be read")
        return true
      }
      const rcode = "rcode" in packet ? String(packet.rcode) : ""
      if (packet.id !== id || packet.type !== "response") fail("what it sent is no answer to the question")
      else if (rcode !== "NOERROR") fail(`it answered ${rcode}: it may not let this server transfer ${zone}`)
      else if ((packet.answers ?? []).length === 0) fail("it sent an answer without records")
      for (const answer of over ? [] : (packet.answers ?? [])) {
        if (answer.type === "SOA") {
          if (`${answer.name.toLowerCase()}.` !== zone) fail(`it sent the zone ${answer.name}.`)
          soas += 1
          if (soas === 2) {
            end(gathered.end())
            return true
          }
        } else if (soas === 0) fail("the transfer does not begin with an SOA record")
        if (over) return true
        const wrong = addAnswer(answer, gathered)
        if (wrong !== undefined) fail(wrong)
        if (over) return true
      }
      return over
    }

    socket.setTimeout(options.silenceMillisMax, () => fail(`nothing came for ${options.silenceMillisMax / 1000} s`))
    socket.on("connect", () => {
      const query = dnsPacket.encode({
        type: "query",
        id,
        questions: [{ type: "AXFR", name: zone.slice(0, -1) }]
      })
      const length = Buffer.alloc(2)
      length.writeUInt16BE(query.length)
      socket.write(Buffer.concat([length, query]))
    })
    socket.on("data", (chunk: Buffer) => {
      total += chunk.length
      if (total > options.bytesMax) return fail(`it sent more than ${options.bytesMax} bytes`)
      pieces.push(chunk)
      waiting += chunk.length
      // Messages are joined only once one is complete, or many small pieces would be copied again and again.
      while (waiting >= 2) {
        if (pieces[0]!.length < 2) pieces = [Buffer.concat(pieces)]
        const length = 2 + pieces[0]!.readUInt16BE(0)
        if (waiting < length) return
        const [all] = pieces.length === 1 ? pieces : [Buffer.concat(pieces)]
        pieces = all!.length === length ? [] : [all!.subarray(length)]
        waiting -= length
        if (take(all!.subarray(2, length))) return
      }
    })
    socket.on("error", (error) => fail(error.message))
    socket.on("close", () => fail("it closed the connection before the zone was complete"))
    return Effect.sync(() => {
      over = true
      clearTimeout(timer)
      socket.destroy()
    })
  })
