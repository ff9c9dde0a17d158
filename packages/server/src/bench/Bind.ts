/**
 * What one would use instead: BIND 9 with dynamic updates (RFC 2136), one
 * message for each record, sent by its own `nsupdate`.
 *
 * Everything lies in a folder of ours; any host of this machine may update.
 */
import { Effect, Schedule } from "effect"
import * as Fs from "node:fs"
import * as Path from "node:path"
import { freePort } from "../cli/DevPowerDns.ts"
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
logging { category update { null; }; category update-security { null; }; };
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
  const child = yield* spawn("named", ["-g", "-c", `${folder}/named.conf`], { folder, log: "named.log" })
  const dns: Endpoint = { host: "127.0.0.1", port }
  yield* Resolution.awaitAll(dns, [canary], 1000).pipe(
    Effect.retry(Schedule.spaced("20 millis").pipe(Schedule.upTo({ duration: "10 seconds" }))),
    Effect.raceFirst(child.ended)
  )
  return { dns }
})

/** The script that sends one update for each record. */
const script = (dns: Endpoint, zone: string, records: ReadonlyArray<Resolution.Expectation>): string =>
  [
    `server ${dns.host} ${dns.port}`,
    // Named here, no update needs to ask for the zone first.
    `zone ${zone}`,
    ...records.map(
      ({ data, name, type }) => `update add ${name}. ${ttlSeconds} ${type} ${type === "PTR" ? `${data}.` : data}\nsend`
    )
  ].join("\n")

/**
 * Sends the records of both zones, one update each: one after another within a zone, both zones at once, which is the
 * fastest that `nsupdate` can do.
 */
export const updateEach = (
  folder: string,
  dns: Endpoint,
  records: {
    readonly forward: ReadonlyArray<Resolution.Expectation>
    readonly reverse: ReadonlyArray<Resolution.Expectation>
  }
) =>
  Effect.forEach(
    [
      { name: "forward", text: script(dns, zone, records.forward) },
      { name: "reverse", text: script(dns, reverseZone, records.reverse) }
    ],
    ({ name, text }) => {
      const file = Path.join(folder, `${name}.nsupdate`)
      Fs.writeFileSync(file, text)
      return spawn("nsupdate", [file], { folder, log: `${name}.nsupdate.log` }).pipe(
        Effect.flatMap((child) => child.succeeded)
      )
    },
    { concurrency: 2, discard: true }
  )
