/**
 * The configurations for PowerDNS in deploy/: real primaries on one database, two by a pgbouncer each and one without, a
 * secondary, and the packaged Prism.
 */
import { assert, describe, it } from "@effect/vitest"
import { pgsqlIndexes, pgsqlLock } from "@prism-dns/core/powerdns/pgsqlLock"
import { Effect, Schedule } from "effect"
import * as ChildProcess from "node:child_process"
import * as Fs from "node:fs"
import * as Path from "node:path"
import { DatabaseSync } from "node:sqlite"
import { promisify } from "node:util"
import * as PgBouncer from "../../../core/test/harness/PgBouncer.ts"
import { freePorts } from "../../../core/test/harness/ports.ts"
import { environment, identity, programs } from "../../../core/test/harness/Postgres.ts"
import * as PowerDns from "../../../core/test/harness/PowerDns.ts"
import { waitUntil } from "../../../core/test/harness/waitUntil.ts"
import * as Agent from "../harness/AgentClient.ts"
import { zone } from "../harness/Deployment.ts"
import * as PrismServer from "../harness/PrismServer.ts"
import * as Postgresql from "./Postgresql.ts"

const deployed = Path.resolve(import.meta.dirname, "../../deploy/powerdns")
const schemas = {
  pgsql: "/usr/share/pdns-backend-pgsql/schema/schema.pgsql.sql",
  sqlite: "/usr/share/pdns-backend-sqlite3/schema/schema.sqlite3.sql"
}
const readme = Fs.readFileSync(Path.join(deployed, "README.md"), "utf8")
const execFile = promisify(ChildProcess.execFile)
/** As Debian has it, who PowerDNS runs as. */
const pdns = identity("pdns")
const password = "secret-of-pdns"

interface Ports {
  readonly dns: number
  readonly api: number
}

const ended = (child: ChildProcess.ChildProcess) =>
  Effect.callback<void>((resume) => {
    if (child.exitCode !== null || child.signalCode !== null) return resume(Effect.void)
    child.once("exit", () => resume(Effect.void))
  })

const folderOf = Effect.fnUntraced(function* (prefix: string, owner: ReturnType<typeof identity>) {
  const folder = yield* PowerDns.temporaryFolder(prefix)
  if (owner.uid !== undefined) Fs.chownSync(folder, owner.uid, owner.gid!)
  return folder
})

/** The real thing in a folder of its own, as Debian's service runs it; its addresses and paths are replaced. */
const startPowerDns = Effect.fnUntraced(function* (
  file: "primary.conf" | "secondary.conf",
  address: string,
  ports: Ports,
  more: ReadonlyArray<readonly [string | RegExp, string]>,
  files: Readonly<Record<string, string>>
) {
  const folder = yield* folderOf("prism-pdns-", pdns)
  Fs.mkdirSync(Path.join(folder, "secrets"))
  for (const [name, text] of Object.entries(files)) Fs.writeFileSync(Path.join(folder, name), text, { mode: 0o600 })
  const text = Postgresql.replaced(Path.join(deployed, file), [
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
  if (pdns.uid !== undefined) {
    for (const each of Fs.readdirSync(folder, { recursive: true, encoding: "utf8" }))
      Fs.chownSync(Path.join(folder, each), pdns.uid, pdns.gid!)
  }
  const flags = ["--guardian=no", "--daemon=no", "--disable-syslog", "--log-timestamp=no", "--write-pid=no"]
  const log = Path.join(folder, "log")
  const run = Effect.acquireUseRelease(
    Effect.sync(() => {
      const output = Fs.openSync(log, "a")
      const child = ChildProcess.spawn("pdns_server", [`--config-dir=${folder}`, `--socket-dir=${folder}`, ...flags], {
        ...pdns,
        env: environment,
        stdio: ["ignore", output, output]
      })
      Fs.closeSync(output)
      return child
    }),
    ended,
    (child) =>
      Effect.andThen(
        Effect.sync(() => void child.kill("SIGKILL")),
        ended(child)
      )
  )
  // When it has ended by itself the service starts it again: on PostgreSQL it does when that was restarted.
  yield* Effect.forkScoped(Effect.repeat(run, Schedule.spaced("1 second")))
  const api = `http://${address}:${ports.api}`
  const status = (key: string) =>
    Effect.tryPromise({
      try: async () => (await fetch(`${api}/api/v1/servers/localhost`, { headers: { "x-api-key": key } })).status,
      catch: () => new Error(Fs.readFileSync(log, "utf8"))
    })
  yield* waitUntil(`PowerDNS at ${address} answers`, status(""), (code) => code === 401, { within: "20 seconds" })
  return { api, address, status }
})

/** The database of the primaries, on a server of deploy/postgresql, as the README says. */
const startDatabase = Effect.gen(function* () {
  const pair = yield* Postgresql.make
  const { db1 } = pair
  yield* db1.query("CREATE DATABASE pdns")
  yield* db1.query(
    `${Fs.readFileSync(schemas.pgsql, "utf8")}\n${Fs.readFileSync(Path.join(deployed, "pgsql.sql"), "utf8")}`,
    "pdns"
  )
  yield* db1.query(`ALTER ROLE pdns PASSWORD '${password}'`)
  const [, line] = /`(hostssl pdns [^`]+)`/.exec(readme)!
  Fs.appendFileSync(Path.join(db1.settings, "pg_hba.conf"), `${line!.replace("192.0.2.1/32", "127.0.0.1/32")}\n`)
  yield* db1.query("SELECT pg_reload_conf()")
  return pair
})

/** pgbouncer for one primary, its addresses and paths replaced. */
const startBouncer = Effect.fnUntraced(function* ({ authority, db1 }: Postgresql.Pair) {
  const folder = yield* folderOf("prism-pgbouncer-", Postgresql.as)
  // As /run/postgresql is: whoever comes to the socket is asked who he is.
  Fs.chmodSync(folder, 0o755)
  const file = (name: string) => Path.join(folder, name)
  const text = Postgresql.replaced(Path.join(deployed, "pgbouncer.ini"), [
    ["host=db1.example.net port=5432", `host=${db1.host} port=${db1.port}`],
    ["/run/postgresql", folder],
    ["/etc/pgbouncer", folder]
  ])
  Postgresql.write(file("pgbouncer.ini"), text)
  Postgresql.write(
    file("hba.conf"),
    // Who is no root runs all of it as one user, of another name.
    Postgresql.replaced(Path.join(deployed, "pgbouncer-hba.conf"), pdns.uid === undefined ? [["peer", "trust"]] : [])
  )
  Postgresql.write(file("userlist.txt"), `"pdns" "${password}"\n`)
  Postgresql.write(file("ca.crt"), Fs.readFileSync(authority.certificate, "utf8"))
  const [, port] = /^listen_port = (\d+)$/m.exec(text)!
  const serve = PgBouncer.serve(file("pgbouncer.ini"), { path: file(`.s.PGSQL.${port}`) })
  let running = yield* serve
  /** psql by its socket; what it said, or undefined when it was refused. */
  const psql = (as: ReturnType<typeof identity>, role: string, database: string, sql: string) =>
    Effect.promise(() =>
      execFile(
        `${programs()}/psql`,
        ["-X", "-A", "-t", "-w", "-h", folder, "-p", port!, "-U", role, "-c", sql, database],
        { ...as, cwd: folder, env: environment }
      ).then(
        ({ stdout }) => stdout.trim(),
        () => undefined
      )
    )
  return {
    folder,
    psql,
    restart: Effect.suspend(() =>
      Effect.andThen(
        running.kill,
        Effect.map(serve, (next) => void (running = next))
      )
    )
  }
})

/** Both primaries with a pgbouncer each, one without, and the secondary, each with an address of its own, and the same ports. */
const start = Effect.gen(function* () {
  const [dns = 0, api = 0] = yield* freePorts(2)
  const ports = { dns, api }
  const pair = yield* startDatabase
  const apiKey = crypto.randomUUID()
  const secrets = { "secrets/secrets.conf": `api-key=${apiKey}\n` }
  const bouncers = [yield* startBouncer(pair), yield* startBouncer(pair)] as const
  const primaries = yield* Effect.forEach(
    [
      ["127.0.0.1", bouncers[0]],
      ["127.0.0.2", bouncers[1]]
    ] as const,
    ([address, { folder }]) => startPowerDns("primary.conf", address, ports, [["/run/postgresql", folder]], secrets)
  )
  // As the README says: these lines in place of those, and the password.
  const straight = Array.from(
    readme.matchAll(/`(gpgsql-(?:host|port|extra-connection-parameters)=[^`]+)`/g),
    ([, line]) => line!
  )
  const without = yield* startPowerDns(
    "primary.conf",
    "127.0.0.4",
    ports,
    [
      [/^gpgsql-host=.*\ngpgsql-port=.*$/gm, straight.join("\n")],
      ["db1.example.net", pair.db1.host],
      ["gpgsql-port=5432", `gpgsql-port=${pair.db1.port}`],
      ["/etc/powerdns", "FOLDER"]
    ],
    {
      "secrets/secrets.conf": `api-key=${apiKey}\ngpgsql-password=${password}\n`,
      "ca.crt": Fs.readFileSync(pair.authority.certificate, "utf8")
    }
  )
  const secondary = yield* startPowerDns(
    "secondary.conf",
    "127.0.0.3",
    ports,
    [
      ["/var/lib/powerdns", "FOLDER"],
      ["allow-notify-from=192.0.2.1,192.0.2.2", "allow-notify-from=127.0.0.1,127.0.0.2,127.0.0.4"]
    ],
    secrets
  )
  return { primaries: [...primaries, without], secondary, ports, apiKey, bouncers, ...pair }
})

/** A host that registers is answered by each of `all`. */
const registers = Effect.fnUntraced(function* (
  prism: PrismServer.PrismServer,
  host: string,
  all: ReadonlyArray<{ readonly address: string }>,
  ports: Ports
) {
  assert.strictEqual((yield* Agent.register(prism.ready().tcp, host, { from: "127.0.0.7" })).status, "success")
  for (const { address } of all) {
    yield* waitUntil(
      `${address} answers`,
      PowerDns.resolve({ host: address, port: ports.dns }, `${host}.${zone}`, "A"),
      ({ data }) => data.join() === "127.0.0.7",
      { within: "60 seconds" }
    )
  }
})

/** Prism on all of them: a host that registers is answered by each, and the doctor finds nothing wrong. */
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
  yield* registers(prism, "web-1", all, ports)
  Fs.copyFileSync(Path.join(prism.folder, "prism.yaml"), Path.join(prism.folder, "doctor.yaml"))
  const doctor = yield* PrismServer.run(["doctor", "--config", "doctor.yaml"], { folder: prism.folder })
  assert.match(doctor.stdout, /^0 error, 0 warning, /m)
  assert.strictEqual(doctor.code, 0, doctor.stdout)
  return prism
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
    "primaries, by pgbouncer and without, and the secondary answer what Prism writes; the doctor finds nothing wrong; strangers get nothing",
    () =>
      Effect.gen(function* () {
        const { apiKey, bouncers, db1, ports, primaries, secondary } = yield* start
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
        const prism = yield* publish(powerdns, all, ports)
        for (const { address, status } of all) {
          assert.strictEqual(yield* status(apiKey), 200)
          assert.strictEqual(yield* status(`${apiKey}x`), 401)
          const { stdout } = yield* Effect.promise(() =>
            execFile("dig", [`@${address}`, "-p", `${ports.dns}`, zone, "AXFR"])
          )
          assert.notInclude(stdout, host)
        }

        // A request to the API is no connection to PostgreSQL, where there is a pgbouncer.
        const connections = Effect.map(
          db1.query("SELECT sessions FROM pg_stat_database WHERE datname = 'pdns'"),
          (text) => Number(text.trim())
        )
        const cost = Effect.fnUntraced(function* ({ api }: (typeof all)[number]) {
          const before = yield* connections
          for (let n = 0; n < 20; n++) {
            yield* Effect.promise(async () => {
              const answer = await fetch(`${api}/api/v1/servers/localhost/zones?zone=${zone}.`, {
                headers: { "x-api-key": apiKey }
              })
              assert.strictEqual(answer.status, 200)
              await answer.arrayBuffer()
            })
          }
          return (yield* connections) - before
        })
        assert.isBelow(yield* cost(primaries[0]!), 10)
        assert.isAtLeast(yield* cost(primaries[2]!), 20)

        for (const { psql } of bouncers) {
          const tls = "SELECT current_user, ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()"
          assert.strictEqual(yield* psql(pdns, "pdns", "pdns", tls), "pdns|t")
          // Its administrator is who it runs as.
          assert.match(
            (yield* psql(Postgresql.as, "pgbouncer", "pgbouncer", "SHOW POOLS"))!,
            /^pdns\|pdns\|.*\|session$/m
          )
          assert.isUndefined(yield* psql(pdns, "pdns", "postgres", tls), "another database")
          assert.isUndefined(yield* psql(pdns, "prism", "pdns", tls), "another role")
          if (pdns.uid === undefined) continue
          for (const who of [{}, Postgresql.as])
            assert.isUndefined(yield* psql(who, "pdns", "pdns", tls), "another user")
          assert.isUndefined(yield* psql(pdns, "pgbouncer", "pgbouncer", "SHOW POOLS"), "its administration")
        }

        yield* db1.kill
        yield* db1.start
        yield* registers(prism, "web-2", all, ports)
        for (const { restart } of bouncers) yield* restart
        yield* registers(prism, "web-3", all, ports)
      }).pipe(Effect.scoped)
  )

  it("two primaries have no more connections than the role may", () => {
    const number = (file: string, pattern: RegExp) =>
      Number(pattern.exec(Fs.readFileSync(Path.join(deployed, file), "utf8"))![1])
    assert.isAtMost(
      2 * number("pgbouncer.ini", /^default_pool_size = (\d+)$/m),
      number("pgsql.sql", /CONNECTION LIMIT (\d+)/)
    )
  })

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
            { "secrets/secrets.conf": `api-key=${apiKey}\n` }
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
