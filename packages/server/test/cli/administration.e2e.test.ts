/** The commands that steer a running server, as people and scripts call them: the packaged program against a real PowerDNS. */
import { assert, describe, it } from "@effect/vitest"
import { Effect, Redacted } from "effect"
import * as Fs from "node:fs"
import * as Path from "node:path"
import { freePort } from "../../../core/test/harness/ports.ts"
import { Postgres } from "../../../core/test/harness/Postgres.ts"
import { waitUntil } from "../../../core/test/harness/waitUntil.ts"
import * as Agent from "../harness/AgentClient.ts"
import * as Deployment from "../harness/Deployment.ts"
import * as PrismServer from "../harness/PrismServer.ts"

type Running = Effect.Success<ReturnType<typeof Deployment.start>>

const { adminToken, zone } = Deployment

/** `prism-dns ARGS`, in a pipe, against the server. */
const cli = Effect.fnUntraced(function* (
  { prism }: Running,
  args: ReadonlyArray<string>,
  environment: Readonly<Record<string, string>> = { PRISM_TOKEN: adminToken }
) {
  return yield* PrismServer.run(args, {
    folder: prism.folder,
    environment: { PRISM_SERVER: prism.ready().http.url, ...environment }
  })
})

/** The same, which must succeed; gives what it printed. */
const printed = Effect.fnUntraced(function* (running: Running, ...args: ReadonlyArray<string>) {
  const ended = yield* cli(running, args)
  assert.strictEqual(ended.code, 0, `${args.join(" ")}\n${ended.stdout}${ended.stderr}`)
  return ended.stdout.trimEnd()
})

const json = (running: Running, ...args: ReadonlyArray<string>) =>
  Effect.map(printed(running, ...args, "--json"), (text): any => JSON.parse(text))

/** Writes to PowerDNS behind our back. */
const editByHand = ({ powerdns }: Running, name: string, address: string | undefined) =>
  Effect.promise(async () => {
    const rrset = {
      name: `${name}.`,
      type: "A",
      ttl: 60,
      ...(address === undefined
        ? { changetype: "DELETE" }
        : { changetype: "REPLACE", records: [{ content: address, disabled: false }] })
    }
    const response = await fetch(`${powerdns.apiUrl}/api/v1/servers/localhost/zones/${zone}.`, {
      method: "PATCH",
      headers: { "X-API-Key": Redacted.value(powerdns.apiKey), "content-type": "application/json" },
      body: JSON.stringify({ rrsets: [rrset] })
    })
    assert.strictEqual(response.status, 204, await response.text())
  })

const registered = Effect.fnUntraced(function* (running: Running, hostname: string, address: string) {
  yield* waitUntil(
    `${hostname} is registered`,
    Agent.register(running.tcp(), hostname, { from: address }),
    ({ status }) => status === "success"
  )
  yield* running.untilDig(`${hostname}.${zone}`, "A", [address], "10 seconds")
})

describe("the command line steers a running server", () => {
  it.live(
    "a hand edit is planned, shown, applied by id, and then there is nothing to do; foreign records are adopted",
    () =>
      Effect.gen(function* () {
        const running = yield* Deployment.start()
        yield* registered(running, "web-1", "127.0.0.11")
        yield* registered(running, "web-2", "127.0.0.12")
        yield* editByHand(running, `web-1.${zone}`, "127.0.0.99")
        yield* editByHand(running, `web-2.${zone}`, undefined)
        yield* editByHand(running, `printer.${zone}`, "127.0.0.50")

        const made = yield* cli(running, ["plan", "make", zone])
        assert.strictEqual(made.code, 0, made.stderr)
        const [id, changes] = made.stdout.trimEnd().split("\t")
        assert.strictEqual(changes, "1 create, 1 update")
        assert.include(made.stderr, `printer.${zone}.`)

        const text = yield* printed(running, "plan", "show", id!)
        for (const part of [id!, `web-1.${zone}.`, "127.0.0.99", "127.0.0.11", `web-2.${zone}.`]) {
          assert.include(text, part)
        }
        assert.notInclude(text, "printer")
        assert.match(yield* printed(running, "plan", "show", id!, "--format", "markdown"), /^# /)
        assert.strictEqual((yield* json(running, "plan", "show", id!)).changes.length, 2)

        const unasked = yield* cli(running, ["plan", "apply", id!])
        assert.strictEqual(unasked.code, 2)
        assert.include(unasked.stderr, "--yes")
        assert.strictEqual(yield* printed(running, "plan", "apply", id!, "--yes"), "2 applied, 0 refused")
        yield* running.untilDig(`web-1.${zone}`, "A", ["127.0.0.11"])
        yield* running.untilDig(`web-2.${zone}`, "A", ["127.0.0.12"])
        assert.deepStrictEqual(yield* running.dig(`printer.${zone}`, "A"), ["127.0.0.50"])

        assert.include(yield* printed(running, "plan", "make", zone), "nothing to do")
        const twice = yield* cli(running, ["plan", "apply", id!, "--yes"])
        assert.strictEqual(twice.code, 1)
        assert.match(twice.stderr, /^prism-dns: Plan .* is applied/)

        const adopt = (yield* printed(running, "plan", "make", zone, "--adopt", "printer")).split("\t")
        assert.strictEqual(adopt[1], "1 adopt")
        assert.strictEqual(yield* printed(running, "plan", "apply", adopt[0]!, "--yes"), "1 applied, 0 refused")
        yield* editByHand(running, `printer.${zone}`, "127.0.0.51")
        const drift = yield* json(running, "plan", "make", zone)
        assert.deepStrictEqual([drift.counts.changes, drift.counts.update], [1, 1])
        const rejected = yield* json(running, "plan", "reject", drift.id, "it moved")
        assert.deepStrictEqual([rejected.state, rejected.decision.reason], ["rejected", "it moved"])

        const list = (yield* printed(running, "plan", "list", zone)).split("\n").map((line) => line.split("\t"))
        assert.deepStrictEqual(
          list.map(([planId, , kind, state]) => [planId, kind, state]),
          [
            [drift.id, "reconcile", "rejected"],
            [adopt[0], "adopt", "applied"],
            [id, "reconcile", "applied"]
          ]
        )
        assert.strictEqual(yield* printed(running, "plan", "list", "--open"), "")
      }).pipe(Effect.scoped),
    60_000
  )

  it.live(
    "status, zones, hosts, publications and guards say how things are",
    () =>
      Effect.gen(function* () {
        const running = yield* Deployment.start()
        yield* registered(running, "web-1", "127.0.0.11")
        const status = yield* waitUntil(
          "the node was asked",
          json(running, "status"),
          ({ nodes }) => nodes[0]?.up === true && nodes[0].unserved === 0,
          { within: "20 seconds" }
        )
        assert.deepInclude(status.nodes[0], { name: "pdns", role: "primary", writes: true })
        assert.include(
          status.zones.map((each: any) => each.zone),
          `${zone}.`
        )
        const lines = (yield* printed(running, "status")).split("\n")
        assert.isTrue(lines.some((line) => line.startsWith(`zone\t${zone}.\t`)))
        assert.isTrue(lines.some((line) => line.startsWith("node\tpdns\tprimary, writes\t")))

        assert.include(yield* printed(running, "zones", "list"), `${zone}.\tforward\tyes`)
        assert.include(yield* printed(running, "zones", "show", zone), "delete budget\t10 %, at least 10, in 1h")
        assert.strictEqual(yield* printed(running, "zones", "dnssec", zone), "")
        assert.strictEqual(yield* printed(running, "publications", "list"), "")
        assert.strictEqual(yield* printed(running, "publications", "retry"), "0 names are tried again.")
        assert.strictEqual(yield* printed(running, "guards", "list"), "")

        const host = yield* json(running, "hosts", "show", `web-1.${zone}`)
        assert.strictEqual(
          yield* printed(running, "hosts", "list", "--state", "online"),
          [host.fqdn, "127.0.0.11", "online", host.publication.level, host.lastSeen, host.owner, ""]
            .join("\t")
            .trimEnd()
        )
        assert.match(
          yield* printed(running, "hosts", "show", host.id),
          /^addresses\t127\.0\.0\.11\nttl\tits zone's\nlease\t[a-z]+\nstate\tonline$/m
        )
        assert.include(yield* printed(running, "hosts", "retire", `web-1.${zone}`, "sold"), "is retired")
        yield* running.untilDig(`web-1.${zone}`, "A", [], "10 seconds")
        assert.include(yield* printed(running, "hosts", "release", host.id, "sold"), "its name is free")
        assert.strictEqual(yield* printed(running, "hosts", "list"), "")
      }).pipe(Effect.scoped),
    60_000
  )

  it.live(
    "on PostgreSQL too, and of a signed zone it says what belongs into the parent zone",
    () =>
      Effect.gen(function* () {
        const postgres = yield* Postgres
        const signed = "signed.prism.test"
        const running = yield* Deployment.start({
          storage: { url: (yield* postgres.createDatabase()).url },
          zones: [{ name: zone }, { name: signed, dnssec: true }]
        })
        yield* registered(running, "web-1", "127.0.0.11")
        yield* editByHand(running, `printer.${zone}`, "127.0.0.50")
        assert.include(yield* printed(running, "zones", "records", zone), `web-1.${zone}.\t60\tA\t127.0.0.11\tmanaged`)
        const foreign = yield* printed(running, "zones", "records", zone, "--ownership", "foreign")
        assert.include(foreign, `printer.${zone}.\t60\tA\t127.0.0.50\tforeign`)
        assert.notInclude(foreign, "web-1")
        assert.strictEqual(yield* printed(running, "publications", "retry", "--zone", zone), "0 names are tried again.")
        assert.strictEqual(yield* printed(running, "guards", "list"), "")
        const adopt = (yield* printed(running, "plan", "make", zone, "--adopt", "printer")).split("\t")
        assert.strictEqual(yield* printed(running, "plan", "apply", adopt[0]!, "--yes"), "1 applied, 0 refused")
        assert.strictEqual((yield* json(running, "plan", "list")).items[0].id, adopt[0])

        const keys = yield* waitUntil(
          "it is signed",
          printed(running, "zones", "dnssec", signed),
          (text) => text !== "",
          {
            within: "20 seconds"
          }
        )
        const records = keys.split("\n").map((line) => line.split("\t"))
        assert.include(
          records.map(([, type]) => type),
          "DS"
        )
        for (const [name] of records) assert.strictEqual(name, `${signed}.`)
        const dnskey = records.find(([, type]) => type === "DNSKEY")!
        assert.match(dnskey[2]!, /^257 3 13 /)
      }).pipe(Effect.scoped, Effect.provide(Postgres.layer())),
    90_000
  )

  it.live(
    "hosts are registered, changed, transferred, imported and given up from the command line, and DNS follows",
    () =>
      Effect.gen(function* () {
        const running = yield* Deployment.start()
        const name = `printer-1.${zone}.`
        const dry = yield* printed(running, "hosts", "register", "printer-1", "127.0.0.20", "--dry-run")
        assert.match(dry, /would be created/)
        assert.match(dry, /printer-1.*\tA\t\t127\.0\.0\.20/)
        const created = yield* json(
          running,
          "hosts",
          "register",
          "printer-1",
          "127.0.0.20",
          "--label",
          "rack=7",
          "--wait-for",
          "served"
        )
        assert.deepStrictEqual(
          [created.outcome, created.lease, created.publication.level],
          ["created", "none", "served"]
        )
        const edited = yield* json(
          running,
          "hosts",
          "edit",
          name,
          "--address",
          "127.0.0.21",
          "--label",
          "rack",
          "--ttl",
          "90",
          "--wait-for",
          "served"
        )
        assert.deepStrictEqual([edited.addresses, edited.labels, edited.ttlSeconds], [["127.0.0.21"], {}, 90])
        assert.match(yield* printed(running, "hosts", "transfer", name, "rack-8", "moved"), /is transferred/)
        const stale = yield* cli(running, ["hosts", "edit", name, "--ttl", "5", "--if-match", '"1"'])
        assert.deepStrictEqual([stale.code, stale.stdout], [1, ""])
        assert.match(stale.stderr, /It is not as/)

        const file = Path.join(running.prism.folder, "hosts.csv")
        const rows = Array.from({ length: 1500 }, (_, i) => `import-${i},127.1.${i >> 8}.${i & 255},role=web`)
        Fs.writeFileSync(file, ["hostname,addresses,labels", ...rows].join("\n"))
        const imported = yield* cli(running, ["hosts", "import", file, "--wait-for", "applied"])
        assert.deepStrictEqual([imported.code, imported.stdout.trimEnd()], [0, "created\t1500"], imported.stderr)
        assert.match(imported.stderr, /1000 of 1500\n1500 of 1500/)
        const bad = Path.join(running.prism.folder, "bad.json")
        Fs.writeFileSync(
          bad,
          JSON.stringify([
            { hostname: "import-0", addresses: ["127.1.0.0"], labels: { role: "web" } },
            { hostname: "wpad", addresses: ["127.1.0.1"] }
          ])
        )
        const refused = yield* cli(running, ["hosts", "import", bad])
        assert.deepStrictEqual([refused.code, refused.stdout.trimEnd()], [1, "renewed\t1\nrefused\t1"])
        assert.match(refused.stderr, /item 2: 'wpad' is reserved/)

        assert.match(yield* printed(running, "hosts", "retire", name, "sold"), /is retired/)
        assert.match(yield* printed(running, "hosts", "release", name, "sold", "--dry-run"), /would be released/)
        assert.match(yield* printed(running, "hosts", "release", name, "sold"), /is released/)
        assert.strictEqual((yield* cli(running, ["hosts", "show", name])).code, 1)
      }).pipe(Effect.scoped),
    90_000
  )

  it.live(
    "what goes wrong is one sentence with the next step, and never the token",
    () =>
      Effect.gen(function* () {
        const running = yield* Deployment.start()
        const file = Path.join(running.prism.folder, "token")
        Fs.writeFileSync(file, `${adminToken}\n`, { mode: 0o600 })
        assert.strictEqual((yield* cli(running, ["zones", "list", "--token-file", file], {})).code, 0)
        assert.strictEqual((yield* cli(running, ["zones", "list", "--token", adminToken], {})).code, 0)
        const nowhere = `http://127.0.0.1:${yield* freePort}`
        for (const [args, environment, code, sentence] of [
          [["zones", "list"], {}, 2, /no token: set PRISM_TOKEN, or name a file by --token-file/],
          [
            ["zones", "list"],
            { PRISM_TOKEN: "hunter2" },
            1,
            /does not take the token\. Set PRISM_TOKEN or --token-file/
          ],
          [["zones", "list", "--token-file", "none"], {}, 1, /cannot use none: /],
          [["zones", "list", "--server", "example"], { PRISM_TOKEN: "hunter2" }, 2, /'example' is no URL/],
          [
            ["zones", "list", "--server", nowhere],
            { PRISM_TOKEN: "hunter2" },
            1,
            /cannot reach the server at .* \(ECONNREFUSED\)\. Is it running there\? --server or PRISM_SERVER/
          ],
          [["zones", "show", "nowhere.test"], undefined, 1, /nowhere\.test\. is not a zone that Prism manages/],
          [["zones", "show", "a..b"], undefined, 2, /'a\.\.b': /],
          [["hosts", "show", "nobody"], undefined, 1, /There is no host 'nobody'/],
          [["plan", "show", "nothing"], undefined, 1, /There is no plan 'nothing'/],
          [["plan", "make", zone, "--adopt", "a", "--release", "b"], undefined, 2, /a plan has one purpose/],
          [["plan", "make", zone, "--adopt", "a b"], undefined, 1, /pattern/],
          [["guards", "allow", "mass-expiry", "all is well"], undefined, 1, /There is nothing to allow/],
          [["guards", "allow", "mass-expiry", " "], undefined, 2, /a reason has 1 to 500 characters/]
        ] as const) {
          const ended = yield* cli(running, args, environment)
          assert.strictEqual(ended.code, code, `${args.join(" ")}\n${ended.stderr}`)
          assert.match(ended.stderr, sentence)
          assert.match(ended.stderr, /^prism-dns: .*\n$/, args.join(" "))
          assert.notInclude(ended.stderr, "hunter2")
          assert.strictEqual(ended.stdout, "")
        }
      }).pipe(Effect.scoped),
    60_000
  )
})
