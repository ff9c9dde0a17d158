/**
 * What one would use instead: Knot DNS with dynamic updates (RFC 2136). It
 * keeps changes in its journal, synced, and writes no zone files meanwhile.
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
server:
  rundir: "${folder}"
  listen: 127.0.0.1@${port}
log:
  - target: stderr
    any: warning
database:
  storage: "${folder}"
  journal-db-max-size: 4G
acl:
  - id: here
    address: 127.0.0.1
    action: update
template:
  - id: default
    storage: "${folder}"
    acl: here
    zonefile-sync: -1
    zonefile-load: difference
    journal-content: all
    journal-max-usage: 2G
    journal-max-depth: 1000000
zone:
  - domain: ${zone}
    file: forward.zone
  - domain: ${reverseZone}
    file: reverse.zone
`

/** A knotd with both zones, empty but for one name. */
export const start = Effect.fnUntraced(function* (parent: string) {
  const folder = Path.join(parent, "knot")
  Fs.mkdirSync(folder)
  const port = yield* freePort
  Fs.writeFileSync(`${folder}/knot.conf`, configuration(folder, port))
  Fs.writeFileSync(`${folder}/forward.zone`, zoneFile(canaryLines))
  Fs.writeFileSync(`${folder}/reverse.zone`, zoneFile(""))
  const child = yield* spawn("knotd", ["-c", `${folder}/knot.conf`], { folder, log: "knotd.log" })
  const dns: Endpoint = { host: "127.0.0.1", port }
  yield* Resolution.awaitAll(dns, [canary], 1000).pipe(
    Effect.retry(Schedule.spaced("20 millis").pipe(Schedule.upTo({ duration: "10 seconds" }))),
    Effect.raceFirst(child.ended)
  )
  return { dns }
})
