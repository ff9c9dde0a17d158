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
import * as Fs from "node:fs"
import * as Path from "node:path"
import { freePort } from "../cli/DevPowerDns.ts"
import * as Resolution from "./Resolution.ts"
import { canary, canaryLines, zoneFile } from "./Rfc2136.ts"
import { type Endpoint, reverseZone, zone } from "./Servers.ts"
import { spawn } from "./Workspace.ts"

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
  Fs.writeFileSync(`${folder}/forward.zone`, zoneFile(canaryLines))
  Fs.writeFileSync(`${folder}/reverse.zone`, zoneFile(""))
  const child = yield* spawn("named", ["-f", "-c", `${folder}/named.conf`], { folder, log: "named.log" })
  const dns: Endpoint = { host: "127.0.0.1", port }
  yield* Resolution.awaitAll(dns, [canary], 1000).pipe(
    Effect.retry(Schedule.spaced("20 millis").pipe(Schedule.upTo({ duration: "10 seconds" }))),
    Effect.raceFirst(child.ended)
  )
  return { dns }
})
