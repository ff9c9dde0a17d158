/** The configurations for PowerDNS in deploy/: two real primaries on one database, a secondary, and the packaged Prism. */
import { assert, describe, it } from "@effect/vitest"
import { pgsqlIndexes, pgsqlLock } from "@prism-dns/core/powerdns/pgsqlLock"
import { Context, Effect, Layer } from "effect"
import * as ChildProcess from "node:child_process"
import * as Fs from "node:fs"
import * as Path from "node:path"
import { DatabaseSync } from "node:sqlite"
import { promisify } from "node:util"
import { freePorts } from "../../../core/test/harness/ports.ts"
import { Postgres } from "../../../core/test/harness/Postgres.ts"
import * as PowerDns from "../../../core/test/harness/PowerDns.ts"
import { waitUntil } from "../../../core/test/harness/waitUntil.ts"
import * as Agent from "../harness/AgentClient.ts"
import { zone } from "../harness/Deployment.ts"
import * as PrismServer from "../harness/PrismServer.ts"
import { replaced } from "./Postgresql.ts"

const deployed = Path.resolve(import.meta.dirname, "../../deploy/powerdns")
const schemas = {
  pgsql: "/usr/share/pdns-backend-pgsql/schema/schema.pgsql.sql",
  sqlite: "/usr/share/pdns-backend-sqlite3/schema/schema.sqlite3.sql"
}
const execFile = promisify(ChildProcess.execFile)

interface Ports {
  readonly dns: number
  readonly api: number
}

/** The real thing in a folder of its own, as Debian's service runs it; its addresses and paths are replaced. */
const startPowerDns = Effect.fnUntraced(function* (
  file: "primary.conf" | "secondary.conf",
  address: string,
  ports: Ports,
  more: ReadonlyArray<readonly [string | RegExp, string]>,
  secrets: string
) {
  const folder = yield* PowerDns.temporaryFolder("prism-pdns-")
  Fs.mkdirSync(Path.join(folder, "secrets"))
  Fs.writeFileSync(Path.join(folder, "secrets/secrets.conf"), secrets, { mode: 0o600 })
  const text = replaced(Path.join(deployed, file), [
    [/192\.0\.2\.11,192\.0\.2\.12/g, "127.0.0.1"],
    [file === "primary.conf" ? "192.0.2.1" : "198.51.100.3", address],
    ["local-port=53", `local-port=${ports.dns}`],
    ["webserver-port=8081", `webserver-port=${ports.api}`],
    ["/etc/powerdns", folder],
    ...more.map(([from, to]) => [from, to.replace("FOLDER", folder)] as const)
  ])
  assert.notMatch(text, /192\.0\.2\.|198\.51\.100\.|example\.net/)
  Fs.writeFileSync(Path.join(folder, "pdns.conf"), text)
  if (text.includes("gsqlite3-database=")) {
    const database = new DatabaseSync(Path.join(folder, "pdns.sqlite3"))
    database.exec(Fs.readFileSync(schemas.sqlite, "utf8"))
    database.close()
  }
  const service = ["--guardian=no", "--daemon=no", "--disable-syslog", "--log-timestamp=no", "--write-pid=no"]
  const log = Fs.openSync(Path.join(folder, "log"), "a")
  const child = yield* Effect.acquireRelease(
    Effect.sync(() =>
      ChildProcess.spawn("pdns_server", [`--config-dir=${folder}`, `--socket-dir=${folder}`, ...service], {
        stdio: ["ignore", log, log]
      })
    ),
    (child) =>
      Effect.callback<void>((resume) => {
        if (child.exitCode !== null || child.signalCode !== null) return resume(Effect.void)
        child.once("exit", () => resume(Effect.void))
        child.kill("SIGKILL")
      })
  )
  Fs.closeSync(log)
  const api = `http://${address}:${ports.api}`
  const status = (key: string) =>
    Effect.tryPromise(async () => {
      if (child.exitCode !== null) throw new Error(Fs.readFileSync(Path.join(folder, "log"), "utf8"))
      return (await fetch(`${api}/api/v1/servers/localhost`, { headers: { "x-api-key": key } })).status
    })
  yield* waitUntil(`PowerDNS at ${address} answers`, status(""), (code) => code === 401, { within: "20 seconds" })
  return { api, address, status }
})

/** Both primaries and the secondary, each with an address of its own, and the same ports. */
const start = Effect.gen(function* () {
  const [dns = 0, api = 0] = yield* freePorts(2)
  const ports = { dns, api }
  const postgres = Context.get(yield* Layer.build(Postgres.layer()), Postgres)
  const { database, port, socketDirectory } = yield* postgres.createDatabase(
    `${Fs.readFileSync(schemas.pgsql, "utf8")}\n${Fs.readFileSync(Path.join(deployed, "pgsql.sql"), "utf8")}`
  )
  const apiKey = crypto.randomUUID()
  const secrets = `api-key=${apiKey}\n`
  const primaries = yield* Effect.forEach(["127.0.0.1", "127.0.0.2"], (address) =>
    startPowerDns(
      "primary.conf",
      address,
      ports,
      [
        ["gpgsql-host=db1.example.net", `gpgsql-host=${socketDirectory}`],
        ["gpgsql-port=5432", `gpgsql-port=${port}`],
        ["gpgsql-dbname=pdns", `gpgsql-dbname=${database}`]
      ],
      secrets
    )
  )
  const secondary = yield* startPowerDns(
    "secondary.conf",
    "127.0.0.3",
    ports,
    [
      ["/var/lib/powerdns", "FOLDER"],
      ["allow-notify-from=192.0.2.1,192.0.2.2", "allow-notify-from=127.0.0.1,127.0.0.2"]
    ],
    secrets
  )
  return { primaries, secondary, ports, apiKey }
})

/** A host that registers is answered by each of `all`, and the doctor finds nothing wrong. */
const publish = Effect.fnUntraced(function* (
  powerdns: object,
  all: ReadonlyArray<{ readonly address: string }>,
  ports: Ports
) {
  const prism = yield* PrismServer.serve({
    powerdns,
    auth: { mode: "off" },
    zones: [zone, "127.in-addr.arpa"].map((name) => ({ name, networks: ["127.0.0.0/8"] }))
  })
  assert.strictEqual((yield* Agent.register(prism.ready().tcp, "web-1", { from: "127.0.0.7" })).status, "success")
  for (const { address } of all) {
    yield* waitUntil(
      `${address} answers`,
      PowerDns.resolve({ host: address, port: ports.dns }, host, "A"),
      ({ data }) => data.join() === "127.0.0.7",
      { within: "20 seconds" }
    )
  }
  Fs.copyFileSync(Path.join(prism.folder, "prism.yaml"), Path.join(prism.folder, "doctor.yaml"))
  const doctor = yield* PrismServer.run(["doctor", "--config", "doctor.yaml"], { folder: prism.folder })
  assert.match(doctor.stdout, /^0 error, 0 warning, /m)
  assert.strictEqual(doctor.code, 0, doctor.stdout)
})

const host = `web-1.${zone}`

describe("PowerDNS with the configuration of deploy/", () => {
  it("pgsql.sql has what Prism asks for", () => {
    const plain = (text: string) =>
      text
        .replace(/^--.*$/gm, "")
        .replace(/\s+/g, " ")
        .trim()
    const file = plain(Fs.readFileSync(Path.join(deployed, "pgsql.sql"), "utf8"))
    assert.include(file, plain(pgsqlLock))
    assert.include(file, plain(pgsqlIndexes))
  })

  it.live(
    "both primaries and the secondary answer what Prism writes; the doctor finds nothing wrong; strangers get nothing",
    () =>
      Effect.gen(function* () {
        const { apiKey, ports, primaries, secondary } = yield* start
        const all = [...primaries, secondary]
        const node = ({ address, api }: (typeof all)[number]) => ({ api, apiKey, dns: `${address}:${ports.dns}` })
        const powerdns = {
          nodes: [...primaries.map(node), { role: "secondary", ...node(secondary) }],
          transfer: {
            catalog: "catalog.prism.test",
            tsigName: "xfr.prism.test",
            tsigSecret: "kp4/24gyYsEzbuTVJRUMoqGFmN3LYgVDzJ/3oRSP7ys="
          }
        }
        yield* publish(powerdns, all, ports)
        for (const { address, status } of all) {
          assert.strictEqual(yield* status(apiKey), 200)
          assert.strictEqual(yield* status(`${apiKey}x`), 401)
          const { stdout } = yield* Effect.promise(() =>
            execFile("dig", [`@${address}`, "-p", `${ports.dns}`, zone, "AXFR"])
          )
          assert.notInclude(stdout, host)
        }
      }).pipe(Effect.scoped)
  )

  it.live("primaries with databases of their own, one in SQLite and one in LMDB, answer alike", () =>
    Effect.gen(function* () {
      const [dns = 0, api = 0] = yield* freePorts(2)
      const ports = { dns, api }
      const apiKey = crypto.randomUUID()
      // As the README says: these lines of the other file in place of those.
      const [inFile] = /^launch=gsqlite3$[\s\S]*?^distributor-threads=1$/m.exec(
        Fs.readFileSync(Path.join(deployed, "secondary.conf"), "utf8")
      )!
      const inLmdb = "launch=lmdb\nlmdb-filename=/var/lib/powerdns/pdns.lmdb"
      const nodes = yield* Effect.forEach(
        [
          ["127.0.0.1", inFile],
          ["127.0.0.2", inLmdb]
        ] as const,
        ([address, lines]) =>
          startPowerDns(
            "primary.conf",
            address,
            ports,
            [
              [/^launch=gpgsql$[\s\S]*?^gpgsql-delete-rrset-query=.*$/gm, lines],
              ["/var/lib/powerdns", "FOLDER"]
            ],
            `api-key=${apiKey}\n`
          )
      )
      const powerdns = {
        nodes: nodes.map(({ address, api }, i) => ({
          database: i === 0 ? "one" : "two",
          api,
          apiKey,
          dns: `${address}:${dns}`
        }))
      }
      yield* publish(powerdns, nodes, ports)
    }).pipe(Effect.scoped)
  )
})
