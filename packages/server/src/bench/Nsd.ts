/**
 * A yardstick of answering: NSD, which keeps everything in memory and has no
 * API. What changes is written into its zone file, which it is told to read.
 */
import { Effect, Schedule } from "effect"
import * as Fs from "node:fs"
import * as Path from "node:path"
import { freePort } from "../cli/DevPowerDns.ts"
import * as Agents from "./Agents.ts"
import * as Resolution from "./Resolution.ts"
import { type Endpoint, ttlSeconds, zone } from "./Servers.ts"
import { failed } from "./Benchmark.ts"
import { spawn } from "./Workspace.ts"

const configuration = (folder: string, port: number) => `
server:
  ip-address: 127.0.0.1@${port}
  server-count: 1
  username: ""
  chroot: ""
  zonesdir: "${folder}"
  database: ""
  pidfile: "${folder}/nsd.pid"
  xfrdfile: "${folder}/xfrd.state"
  zonelistfile: "${folder}/zone.list"
  xfrdir: "${folder}"
  logfile: "${folder}/nsd.out"
  verbosity: 0
  # What others are known to try: no limit to answers of one kind.
  rrl-ratelimit: 0
remote-control:
  control-enable: no
zone:
  name: "${zone}"
  zonefile: "forward.zone"
`

/** With so many hosts. */
export const start = Effect.fnUntraced(function* (parent: string, names: number) {
  const folder = Path.join(parent, "nsd")
  Fs.mkdirSync(folder)
  const port = yield* freePort
  const addresses = Array.from({ length: names }, (_, host) => Agents.address(host))
  let serial = 0
  const write = () => {
    serial += 1
    const head = `$ORIGIN ${zone}.\n$TTL ${ttlSeconds}\n@ SOA ns1.${zone}. hostmaster.${zone}. ${serial} 10800 3600 604800 60\n@ NS ns1.${zone}.\nns1 A 127.0.0.1\n`
    const lines = addresses.map((address, host) => `${Agents.hostname(host)} A ${address}\n`)
    // It never sees half of a file.
    Fs.writeFileSync(`${folder}/new.zone`, head + lines.join(""))
    Fs.renameSync(`${folder}/new.zone`, `${folder}/forward.zone`)
  }
  write()
  Fs.writeFileSync(`${folder}/nsd.conf`, configuration(folder, port))
  const child = yield* spawn("nsd", ["-d", "-c", `${folder}/nsd.conf`], { folder, log: "nsd.log" })
  const dns: Endpoint = { host: "127.0.0.1", port }
  const canary = { name: `${Agents.hostname(0)}.${zone}`, type: "A", data: addresses[0]! } as const
  yield* Resolution.awaitAll(dns, [canary], 1000).pipe(
    Effect.retry(Schedule.spaced("20 millis").pipe(Schedule.upTo({ duration: "10 seconds" }))),
    Effect.raceFirst(child.ended)
  )
  return {
    pid: child.pid,
    dns,
    /** Gives hosts other addresses, and has the file read again. */
    change: (moves: ReadonlyArray<{ readonly host: number; readonly address: string }>) =>
      Effect.try({
        try: () => {
          for (const { address, host } of moves) addresses[host] = address
          write()
          process.kill(child.pid, "SIGHUP")
        },
        catch: failed("NSD")
      })
  }
})
