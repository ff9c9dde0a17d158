/** `prism-dns doctor` as people run it: what it prints, and its exit code. */
import { assert, describe, it } from "@effect/vitest"
import type * as Doctor from "@prism-dns/core/powerdns/Doctor"
import { Clock, Context, Effect, Layer, Redacted } from "effect"
import * as Fs from "node:fs"
import * as Path from "node:path"
import { freePorts } from "../../../core/test/harness/ports.ts"
import { layerServer, temporaryFolder, TestPowerDns } from "../../../core/test/harness/PowerDns.ts"
import * as Agent from "../harness/AgentClient.ts"
import * as Deployment from "../harness/Deployment.ts"
import * as PrismServer from "../harness/PrismServer.ts"

interface Printed {
  readonly version: number
  readonly counts: Readonly<Record<Doctor.Severity, number>>
  readonly findings: ReadonlyArray<Doctor.Finding>
}

const write = (folder: string, settings: object) =>
  Fs.writeFileSync(Path.join(folder, "doctor.yaml"), JSON.stringify(settings), { mode: 0o600 })

const doctor = (folder: string, ...args: ReadonlyArray<string>) =>
  PrismServer.run(["doctor", "--config", "doctor.yaml", ...args], { folder })

/** Looks like no word of a sentence, and like no name. */
const secrets = {
  key: "Wr0ngKeyOfPdns",
  tsig: "VHNpZ1NlY3JldFRzaWc=",
  agent: "Ag3ntT0kenText",
  password: "P4ssw0rdOfPg"
}

describe("prism-dns doctor", () => {
  it.live("beside a running server: a table without errors, 0; and nothing is changed", () =>
    Effect.gen(function* () {
      const { powerdns, prism, tcp, untilDig } = yield* Deployment.start()
      yield* Agent.register(tcp(), "web-1", { from: "127.0.0.7" })
      yield* untilDig(`web-1.${Deployment.zone}`, "A", ["127.0.0.7"], "5 seconds")
      Fs.copyFileSync(Path.join(prism.folder, "prism.yaml"), Path.join(prism.folder, "doctor.yaml"))
      const filesBefore = Fs.readdirSync(prism.folder).toSorted()

      const table = yield* doctor(prism.folder)
      assert.strictEqual(table.code, 0, `${table.stdout}${table.stderr}`)
      assert.strictEqual(table.stderr, "")
      assert.match(table.stdout, /^ok +same-server +pdns +a question to 127\.0\.0\.1:\d+ was seen/m)
      assert.match(table.stdout, /^ok +registry +registry +.*prism\.db answers$/m)
      assert.match(table.stdout, /^0 error, 0 warning, \d+ info, \d+ ok$/m)

      const json = yield* doctor(prism.folder, "--json")
      assert.strictEqual(json.code, 0)
      const printed = JSON.parse(json.stdout) as Printed
      assert.strictEqual(printed.version, 1)
      assert.deepStrictEqual([printed.counts.error, printed.counts.warning], [0, 0])
      assert.strictEqual(printed.findings.length, printed.counts.info + printed.counts.ok)
      assert.notInclude(`${table.stdout}${json.stdout}`, Redacted.value(powerdns.apiKey))
      assert.deepStrictEqual(Fs.readdirSync(prism.folder).toSorted(), filesBefore)
    })
  )

  it.live(
    "with a wrong key, a node that is away and a database that is away: each with its fix, 1, soon, no secret",
    () =>
      Effect.gen(function* () {
        const powerdns = Context.get(yield* Layer.build(layerServer("sqlite")), TestPowerDns)
        const folder = yield* temporaryFolder("prism-doctor-")
        const [dnsPort, apiPort, databasePort] = yield* freePorts(3)
        write(folder, {
          powerdns: {
            nodes: [
              {
                name: "locked",
                api: powerdns.apiUrl,
                apiKey: secrets.key,
                dns: `${powerdns.dns.host}:${powerdns.dns.port}`
              },
              { name: "away", api: `http://127.0.0.1:${apiPort}`, apiKey: secrets.key, dns: `127.0.0.1:${dnsPort}` }
            ],
            transfer: { tsigName: "transfer.test", tsigSecret: secrets.tsig }
          },
          storage: { url: `postgres://prism:${secrets.password}@127.0.0.1:${databasePort}/prism` },
          zones: [Deployment.zone],
          auth: { agentTokens: [{ name: "t", token: secrets.agent }] }
        })
        const begun = yield* Clock.currentTimeMillis
        const table = yield* doctor(folder)
        assert.isBelow((yield* Clock.currentTimeMillis) - begun, 15_000)
        assert.strictEqual(table.code, 1)
        assert.match(table.stdout, /^error +api-key +locked .*\n +why: .*\n +fix: set powerdns\.nodes\[\]\.apiKey/m)
        assert.match(table.stderr, /^prism-dns: doctor found \d errors; each is listed with its fix\.\n$/)
        const json = yield* doctor(folder, "--json")
        assert.strictEqual(json.code, 1)
        const errors = (JSON.parse(json.stdout) as Printed).findings.filter(({ severity }) => severity === "error")
        assert.deepStrictEqual(
          errors.map(({ check, node }) => `${check} ${node}`),
          ["api away", "api-key locked", "dns away", "registry undefined"]
        )
        for (const secret of Object.values(secrets)) {
          assert.notInclude(`${table.stdout}${table.stderr}${json.stdout}${json.stderr}`, secret)
        }
      })
  )

  it.live("a bad configuration: 78", () =>
    Effect.gen(function* () {
      const folder = yield* temporaryFolder("prism-doctor-")
      write(folder, { zones: ["a.test"] })
      const { code, stderr, stdout } = yield* doctor(folder, "--json")
      assert.strictEqual(code, 78)
      assert.strictEqual(stdout, "")
      assert.match(stderr, /^prism-dns: bad configuration: .*name at least one PowerDNS server/)
    })
  )
})
