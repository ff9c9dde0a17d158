/**
 * What one would use instead: BIND 9 with dynamic updates (RFC 2136), one
 * message for each record.
 *
 * Sent from here and not by BIND's own `nsupdate`: version 9.18 opens a socket
 * for each message, loses about one update in ten thousand over UDP, and takes
 * four times as long over TCP. One socket that sends again is the better
 * client, and so the stricter yardstick.
 *
 * Everything lies in a folder of ours; any host of this machine may update.
 */
import { Effect, Schedule } from "effect"
import * as Dgram from "node:dgram"
import * as Fs from "node:fs"
import * as Path from "node:path"
import { freePort } from "../cli/DevPowerDns.ts"
import { BenchFailed } from "./Benchmark.ts"
import * as Resolution from "./Resolution.ts"
import { type Endpoint, reverseZone, ttlSeconds, zone } from "./Servers.ts"
import { spawn } from "./Workspace.ts"

const canary = { name: `canary.${zone}`, type: "A", data: "127.0.0.1" } as const

const zoneFile = (canary: string) => `$TTL ${ttlSeconds}
@ SOA ns1.${zone}. hostmaster.${zone}. 1 10800 3600 604800 60
@ NS ns1.${zone}.
${canary}`

const configuration = (folder: string, port: number) => `
options {
  directory "${folder}";
  pid-file "${folder}/named.pid";
  lock-file none;
  session-keyfile "${folder}/session.key";
  managed-keys-directory "${folder}";
  listen-on port ${port} { 127.0.0.1; };
  listen-on-v6 { none; };
  recursion no;
  notify no;
  allow-transfer { none; };
  dnssec-validation no;
  empty-zones-enable no;
};
controls { };
logging {
  channel quiet { stderr; severity notice; };
  category default { quiet; };
};
zone "${zone}" { type primary; file "forward.zone"; allow-update { 127.0.0.1; }; };
zone "${reverseZone}" { type primary; file "reverse.zone"; allow-update { 127.0.0.1; }; };
`

/** A named with both zones, empty but for one name. */
export const start = Effect.fnUntraced(function* (parent: string) {
  const folder = Path.join(parent, "bind")
  Fs.mkdirSync(folder)
  const port = yield* freePort
  Fs.writeFileSync(`${folder}/named.conf`, configuration(folder, port))
  Fs.writeFileSync(`${folder}/forward.zone`, zoneFile("ns1 A 127.0.0.1\ncanary A 127.0.0.1\n"))
  Fs.writeFileSync(`${folder}/reverse.zone`, zoneFile(""))
  const child = yield* spawn("named", ["-f", "-c", `${folder}/named.conf`], { folder, log: "named.log" })
  const dns: Endpoint = { host: "127.0.0.1", port }
  yield* Resolution.awaitAll(dns, [canary], 1000).pipe(
    Effect.retry(Schedule.spaced("20 millis").pipe(Schedule.upTo({ duration: "10 seconds" }))),
    Effect.raceFirst(child.ended)
  )
  return { dns }
})

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

/** Sends the records of one zone, each when the one before is answered; adding one again changes nothing. */
const updateZone = (dns: Endpoint, zone: string, records: ReadonlyArray<Resolution.Expectation>) =>
  Effect.callback<void, BenchFailed>((resume) => {
    const messages = records.map((record) => encodeUpdate(zone, record))
    const socket = Dgram.createSocket("udp4")
    let at = 0
    let attempts = 0
    let timer: NodeJS.Timeout | undefined
    let closed = false
    const close = () => {
      if (closed) return
      closed = true
      clearTimeout(timer)
      socket.close()
    }
    const finish = (result: Effect.Effect<void, BenchFailed>) => {
      close()
      resume(result)
    }
    const fail = (detail: string) =>
      finish(Effect.fail(new BenchFailed({ detail: `BIND, update of ${records[at]?.name}: ${detail}` })))
    const send = () => {
      const message = messages[at]
      if (message === undefined) return finish(Effect.void)
      attempts += 1
      if (attempts > attemptsMax) return fail("no answer")
      message.writeUInt16BE(at & 0xffff)
      socket.send(message)
      clearTimeout(timer)
      timer = setTimeout(send, answerMillisMax)
    }
    socket.on("error", (error) => fail(error.message))
    socket.on("message", (answer) => {
      if (answer.length < 4 || answer.readUInt16BE(0) !== (at & 0xffff)) return
      const rcode = answer[3]! & 15
      if (rcode !== 0) return fail(`rcode ${rcode}`)
      at += 1
      attempts = 0
      send()
    })
    socket.connect(dns.port, dns.host, send)
    return Effect.sync(close)
  })

/** Sends the records of both zones, one update each: one after another within a zone, both zones at once. */
export const updateEach = (
  dns: Endpoint,
  records: {
    readonly forward: ReadonlyArray<Resolution.Expectation>
    readonly reverse: ReadonlyArray<Resolution.Expectation>
  }
): Effect.Effect<void, BenchFailed> =>
  Effect.all([updateZone(dns, zone, records.forward), updateZone(dns, reverseZone, records.reverse)], {
    concurrency: 2,
    discard: true
  })
