/** Starts a server and holds it until killed: `node holdPowerDns.ts DIRECTORY DNS-PORT API-PORT`. Prints its pid. */
import { Effect, Redacted } from "effect"
import * as PowerDnsProcess from "@prism-dns/core/powerdns/PowerDnsProcess"

const [directory = "", dnsPort, apiPort] = process.argv.slice(2)

await Effect.gen(function* () {
  const running = yield* PowerDnsProcess.start({
    directory,
    backend: PowerDnsProcess.sqlite,
    dnsPort: Number(dnsPort),
    apiPort: Number(apiPort),
    apiKey: Redacted.make("key")
  })
  console.log(`pid ${running.pid}`)
  return yield* Effect.never
}).pipe(Effect.scoped, Effect.runPromise)
