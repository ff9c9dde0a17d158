/** The configuration for dnsdist in deploy/, with the real dnsdist and three real PowerDNS servers. */
import { assert, describe, it } from "@effect/vitest"
import dnsPacket from "dns-packet"
import { Effect, Redacted } from "effect"
import * as ChildProcess from "node:child_process"
import { createSocket } from "node:dgram"
import * as Fs from "node:fs"
import * as Path from "node:path"
import { promisify } from "node:util"
import * as PowerDnsProcess from "../../core/src/powerdns/PowerDnsProcess.ts"
import { freePorts } from "../../core/test/harness/ports.ts"
import * as PowerDns from "../../core/test/harness/PowerDns.ts"
import { waitUntil } from "../../core/test/harness/waitUntil.ts"

const configuration = Path.resolve(import.meta.dirname, "../deploy/dnsdist/dnsdist.conf")

/** The zone that the configuration asks for. */
const zone = "hosts.example.net."
const who = `who.${zone}`
const large = `large.${zone}`

const execFile = promisify(ChildProcess.execFile)

type Server = PowerDns.TestPowerDns["Service"]

const api = (server: Server, method: string, path: string, body?: unknown) =>
  Effect.promise(async () => {
    const response = await fetch(`${server.apiUrl}/api/v1/servers/localhost${path}`, {
      method,
      headers: { "x-api-key": Redacted.value(server.apiKey) },
      ...(body === undefined ? {} : { body: JSON.stringify(body) })
    })
    assert.isBelow(response.status, 300, await response.text())
  })

const rrset = (name: string, type: string, contents: ReadonlyArray<string>) => ({
  name,
  type,
  ttl: 60,
  records: contents.map((content) => ({ content }))
})

/** The zone as a server of this name has it. */
const createZone = (server: Server, name: string) =>
  api(server, "POST", "/zones", {
    name: zone,
    kind: "Native",
    nameservers: [`ns1.${zone}`],
    rrsets: [
      rrset(who, "TXT", [`"${name}"`]),
      rrset(
        large,
        "TXT",
        Array.from({ length: 12 }, (_, i) => `"${String(i).padStart(3, "0")}${"x".repeat(200)}"`)
      )
    ]
  })

/** One that would allow all that dnsdist is to refuse. */
const startNode = Effect.fnUntraced(function* (name: string) {
  const server = yield* PowerDns.startServer(PowerDnsProcess.sqlite, {
    primary: "yes",
    "allow-axfr-ips": "127.0.0.0/8",
    dnsupdate: "yes",
    "allow-dnsupdate-from": "127.0.0.0/8"
  })
  yield* createZone(server, name)
  return { name, server }
})

/** The real thing with the configuration of deploy/, its addresses replaced. */
const startDnsdist = Effect.fnUntraced(function* (servers: ReadonlyArray<Server>) {
  const folder = yield* PowerDns.temporaryFolder("prism-dnsdist-")
  const [dns = 0, metrics, console_] = yield* freePorts(3)
  const keyFile = Path.join(folder, "console.key")
  const [one, two, three] = servers
  let text = Fs.readFileSync(configuration, "utf8")
  for (const [from, to] of [
    ["192.0.2.20:53", `127.0.0.1:${dns}`],
    ["192.0.2.1:53", `127.0.0.1:${one!.dns.port}`],
    ["192.0.2.2:53", `127.0.0.1:${two!.dns.port}`],
    ["198.51.100.3:53", `127.0.0.1:${three!.dns.port}`],
    ["127.0.0.1:8083", `127.0.0.1:${metrics}`],
    ["127.0.0.1:5199", `127.0.0.1:${console_}`],
    ["/etc/dnsdist/console.key", keyFile]
  ] as const) {
    assert.include(text, from)
    text = text.replace(from, to)
  }
  assert.notMatch(text, /192\.0\.2\.|198\.51\.100\./)
  const file = Path.join(folder, "dnsdist.conf")
  Fs.writeFileSync(file, text)
  const check = ChildProcess.spawnSync("dnsdist", ["--check-config", "-C", file], { encoding: "utf8" })
  assert.strictEqual(check.status, 0, check.stdout + check.stderr)
  yield* Effect.acquireRelease(
    Effect.sync(() =>
      ChildProcess.spawn("dnsdist", ["--supervised", "--disable-syslog", "-C", file], { stdio: "ignore" })
    ),
    (child) =>
      Effect.callback<void>((resume) => {
        if (child.exitCode !== null || child.signalCode !== null) return resume(Effect.void)
        child.once("exit", () => resume(Effect.void))
        child.kill("SIGKILL")
      })
  )
  const dig = (...args: ReadonlyArray<string>) =>
    Effect.tryPromise(async () => {
      const at = ["@127.0.0.1", "-p", `${dns}`, "+tries=1", "+time=2"]
      return (await execFile("dig", [...at, ...args])).stdout
    })
  /** The server that answers a question. */
  const whoAnswers = Effect.map(dig("+short", who, "TXT"), (text) => text.trim().replaceAll('"', ""))
  /** The servers that answer a number of questions. */
  const whoAnswerMany = Effect.map(
    Effect.forEach(Array.from({ length: 20 }), () => whoAnswers),
    (names) => [...new Set(names)].sort()
  )
  const isUp = (name: string, up: boolean) =>
    waitUntil(
      `dnsdist takes ${name} for ${up ? "well" : "gone"}`,
      Effect.tryPromise(async () => (await fetch(`http://127.0.0.1:${metrics}/metrics`)).text()),
      (seen) => new RegExp(`^dnsdist_server_status\\{server="${name}".*\\} ${up ? 1 : 0}$`, "m").test(seen),
      { within: "20 seconds", every: "100 millis" }
    )
  for (const name of ["ns1", "ns2", "ns3"]) yield* isUp(name, true)
  return { dns, metrics: metrics!, console: console_!, dig, whoAnswers, whoAnswerMany, isUp }
})

/** What a message of another kind than a question is answered with. */
const opcode = (port: number, code: number) =>
  Effect.callback<string, Error>((resume) => {
    const socket = createSocket("udp4")
    socket.on("error", (error) => resume(Effect.fail(error)))
    socket.on("message", (message) => {
      socket.close()
      resume(Effect.succeed(rcodes[message.readUInt16BE(2) & 15] ?? "other"))
    })
    const questions = [{ type: "SOA" as const, name: zone.slice(0, -1) }]
    socket.send(dnsPacket.encode({ type: "query", id: 7, flags: code << 11, questions }), port, "127.0.0.1")
    return Effect.sync(() => socket.close())
  })

const rcodes: Readonly<Record<number, string>> = { 0: "NOERROR", 4: "NOTIMP", 5: "REFUSED", 9: "NOTAUTH" }
const notify = 4
const update = 5

describe("dnsdist with the configuration of deploy/", () => {
  it.live(
    "questions are answered by whoever is well: primaries first, and then the secondary; who is back is asked again",
    () =>
      Effect.gen(function* () {
        const nodes = yield* Effect.forEach(["one", "two", "three"], startNode)
        const [one, two, three] = nodes.map(({ server }) => server) as [Server, Server, Server]
        const dnsdist = yield* startDnsdist([one, two, three])
        assert.includeMembers(["one", "two"], yield* dnsdist.whoAnswerMany)

        yield* one.kill
        yield* dnsdist.isUp("ns1", false)
        assert.deepStrictEqual(yield* dnsdist.whoAnswerMany, ["two"])

        // It runs, and has lost the zone: that is as bad.
        yield* api(two, "DELETE", `/zones/${zone}`)
        yield* dnsdist.isUp("ns2", false)
        assert.deepStrictEqual(yield* dnsdist.whoAnswerMany, ["three"])

        yield* one.start
        yield* dnsdist.isUp("ns1", true)
        assert.deepStrictEqual(yield* dnsdist.whoAnswerMany, ["one"])

        yield* createZone(two, "two")
        yield* one.freeze
        yield* dnsdist.isUp("ns1", false)
        yield* dnsdist.isUp("ns2", true)
        assert.deepStrictEqual(yield* dnsdist.whoAnswerMany, ["two"])
        yield* one.thaw
        yield* dnsdist.isUp("ns1", true)
      }),
    60_000
  )

  it.live(
    "what is too large comes by TCP, a change is answered at once, and only questions are passed on",
    () =>
      Effect.gen(function* () {
        const nodes = yield* Effect.forEach(["one", "two", "three"], startNode)
        const servers = nodes.map(({ server }) => server)
        const dnsdist = yield* startDnsdist(servers)

        const short = yield* dnsdist.dig("+ignore", "+notcp", large, "TXT")
        assert.match(short, /flags: [a-z ]*\btc\b/)
        const whole = yield* dnsdist.dig("+tcp", large, "TXT")
        assert.match(whole, /ANSWER: 12\b/)
        assert.match(yield* dnsdist.dig("+ignore", "+notcp", who, "ANY"), /flags: [a-z ]*\btc\b/)

        // Nothing is kept: neither that a name does not exist, nor what it had.
        const fresh = `fresh.${zone}`
        assert.match(yield* dnsdist.dig(fresh, "TXT"), /NXDOMAIN/)
        for (const content of ["first", "second"]) {
          for (const server of servers) {
            yield* api(server, "PATCH", `/zones/${zone}`, {
              rrsets: [{ ...rrset(fresh, "TXT", [`"${content}"`]), changetype: "REPLACE" }]
            })
          }
          assert.strictEqual((yield* dnsdist.dig("+short", fresh, "TXT")).trim(), `"${content}"`)
        }

        // The servers themselves would say yes.
        const port = `${servers[0]!.dns.port}`
        const direct = (yield* Effect.promise(() => execFile("dig", ["@127.0.0.1", "-p", port, zone, "AXFR"]))).stdout
        assert.include(direct, who)
        assert.strictEqual(yield* opcode(servers[0]!.dns.port, update), "NOERROR")
        const through = yield* dnsdist.dig("+tcp", zone, "AXFR")
        assert.notInclude(through, who)
        assert.include(through, "Transfer failed")
        assert.match(yield* dnsdist.dig("+tcp", "+qr", zone, "IXFR=1"), /Transfer failed|REFUSED/)
        assert.strictEqual(yield* opcode(dnsdist.dns, update), "REFUSED")
        assert.strictEqual(yield* opcode(dnsdist.dns, notify), "REFUSED")

        // No console without a key, and no page but the numbers.
        yield* Effect.flip(Effect.tryPromise(() => fetch(`http://127.0.0.1:${dnsdist.console}/`)))
        const status = (path: string) =>
          Effect.promise(async () => (await fetch(`http://127.0.0.1:${dnsdist.metrics}${path}`)).status)
        assert.strictEqual(yield* status("/metrics"), 200)
        assert.strictEqual(yield* status("/"), 401)
        assert.strictEqual(yield* status("/api/v1/servers/localhost/config"), 401)
      }),
    60_000
  )
})
