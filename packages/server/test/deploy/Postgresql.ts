/**
 * Two real PostgreSQL servers set up from `deploy/postgresql` as its README
 * says: by its files, its roles, its passwords, with TLS.
 *
 * Promises: db1 is the primary and db2 follows it, both on one machine at
 * addresses of their own; what the files name by addresses and paths of another
 * machine is replaced, and nothing else. Writes are not flushed to disk: no test
 * cuts the power. Gone with the scope.
 */
import { Effect, type Scope } from "effect"
import * as ChildProcess from "node:child_process"
import * as Fs from "node:fs"
import { userInfo } from "node:os"
import * as Path from "node:path"
import { freePort } from "../../../core/test/harness/ports.ts"
import { environment, identity, programs, run } from "../../../core/test/harness/Postgres.ts"
import * as PostgresPair from "../../../core/test/harness/PostgresPair.ts"
import { temporaryFolder } from "../../../core/test/harness/PowerDns.ts"
import { waitUntil } from "../../../core/test/harness/waitUntil.ts"
import { authority, type Authority } from "../harness/certificates.ts"

const deployed = Path.resolve(import.meta.dirname, "../../deploy/postgresql")

/** Who may log in by a password, and the passwords. */
export const passwords = {
  prism: "secret-of-prism",
  prism_read: "secret-of-prism-read",
  prism_replica: "secret-of-the-replica"
}
export type Role = keyof typeof passwords

/** What psql said, and whether it went well. */
export interface Said {
  readonly ok: boolean
  readonly text: string
}

export interface Server extends PostgresPair.Running {
  readonly name: "db1" | "db2"
  readonly host: string
  readonly port: number
  /** Folder of its Unix socket. */
  readonly socket: string
  /** Where its certificate and its files of `deploy/` are. */
  readonly settings: string
  /** Runs statements as its administrator, by the socket. An SQL error is a defect. */
  readonly query: (sql: string, database?: string) => Effect.Effect<string>
  readonly promote: Effect.Effect<void>
  /** Gets `primary.conf`, while it runs: it has a replica from now on. */
  readonly becomePrimary: Effect.Effect<void>
  /** Throws its data away, and follows `primary` from a copy of its data, as the README says. It must not be running. */
  readonly follow: (primary: Server) => Effect.Effect<void>
}

export interface Pair {
  readonly authority: Authority
  readonly db1: Server
  readonly db2: Server
  /** Waits until `primary` waits at each commit for the other one. */
  readonly isSynchronous: (primary: Server) => Effect.Effect<unknown>
  /** As Prism is told it; every password is in it. */
  readonly urlOf: (role: Role, servers: ReadonlyArray<{ readonly host: string; readonly port: number }>) => string
  /** psql by TCP, with a role's password, or another one. */
  readonly psql: (
    at: { readonly host: string; readonly port: number },
    options: {
      readonly role: string
      readonly sql: string
      readonly password?: string
      readonly database?: string
      readonly sslmode?: string
    }
  ) => Effect.Effect<Said>
}

/** PostgreSQL does not run as root: then its administrator is user postgres, as on a real machine. */
export const as = identity()
const administrator = as.uid === undefined ? userInfo().username : "postgres"

/** Where each is, and by which name of the files. */
const places = { db1: "127.0.0.1", db2: "127.0.0.2" } as const

/** The text with each of these replaced; one that is not there is a defect. */
export const replaced = (file: string, all: ReadonlyArray<readonly [string | RegExp, string]>): string => {
  let text = Fs.readFileSync(file, "utf8")
  for (const [from, to] of all) {
    if ((typeof from === "string" ? text.indexOf(from) : text.search(from)) < 0)
      throw new Error(`${file} has no ${String(from)}`)
    text = text.replaceAll(from, to)
  }
  return text
}

/** A file for user postgres alone. */
export const write = (path: string, text: string, mode = 0o600): void => {
  Fs.writeFileSync(path, text, { mode })
  if (as.uid !== undefined) Fs.chownSync(path, as.uid, as.gid!)
}

const folderFor = Effect.fnUntraced(function* (name: string) {
  const folder = yield* temporaryFolder(name)
  if (as.uid !== undefined) Fs.chownSync(folder, as.uid, as.gid!)
  return folder
})

const makeServer = Effect.fnUntraced(function* (
  name: Server["name"],
  ports: Record<Server["name"], number>,
  ca: Authority
) {
  const bin = programs()
  const folder = yield* folderFor(`prism-${name}-`)
  const settings = Path.join(folder, "settings")
  const data = Path.join(folder, "data")
  Fs.mkdirSync(settings)
  const host = places[name]
  const port = ports[name]
  const spawning = { ...as, cwd: folder, env: environment }
  const path = (file: string) => Path.join(settings, file)

  const { certificate, key } = ca.issue(name, { alternativeNames: `IP:${host}` })
  for (const [from, to] of [
    [ca.certificate, "ca.crt"],
    [certificate, "server.crt"],
    [key, "server.key"]
  ] as const) {
    write(path(to), Fs.readFileSync(from, "utf8"))
  }
  const here = ["/etc/postgresql/prism", settings] as const
  write(path("server.conf"), replaced(Path.join(deployed, "server.conf"), [here]))
  write(path("primary.conf"), replaced(Path.join(deployed, "primary.conf"), [here]))
  const other = name === "db1" ? "db2" : "db1"
  write(
    path("standby.conf"),
    replaced(Path.join(deployed, "standby.conf"), [
      here,
      ["host=db1.example.net port=5432", `host=${places[other]} port=${ports[other]}`],
      ["application_name=db2", `application_name=${name}`]
    ])
  )
  write(path("replica.pgpass"), `*:*:*:prism_replica:${passwords.prism_replica}\n`)
  write(
    path("pg_hba.conf"),
    replaced(Path.join(deployed, "pg_hba.conf"), [
      [/192\.0\.2\.\d+\/32/g, "127.0.0.1/32"],
      ...(administrator === "postgres" ? [] : [["postgres", administrator] as const])
    ])
  )
  /** A postgresql.conf of the machine, whose last line is ours. */
  const configure = (role: "server" | "primary" | "standby") =>
    write(
      path("postgresql.conf"),
      [
        `hba_file = '${path("pg_hba.conf")}'`,
        `listen_addresses = '${host}'`,
        `port = ${port}`,
        `unix_socket_directories = '${folder}'`,
        "shared_buffers = '64MB'",
        "fsync = off",
        "full_page_writes = off",
        `include '${path(`${role}.conf`)}'`,
        ""
      ].join("\n")
    )

  const query: Server["query"] = (sql, database = "postgres") =>
    run(
      `${bin}/psql`,
      ["-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-h", folder, "-p", `${port}`, "-U", administrator, database],
      { ...spawning, input: sql }
    )
  const running = yield* PostgresPair.makeRunning({
    name,
    port,
    arguments: ["-D", data, "-c", `config_file=${path("postgresql.conf")}`],
    spawning,
    logFile: Path.join(folder, "log"),
    asked: query("SELECT 1")
  })

  const promote = Effect.gen(function* () {
    yield* query("SELECT pg_promote(wait => false)")
    yield* waitUntil(`${name} takes writes`, query("SELECT pg_is_in_recovery()"), (answer) => answer.trim() === "f", {
      within: "20 seconds"
    })
  })

  const follow: Server["follow"] = Effect.fnUntraced(function* (primary) {
    Fs.rmSync(data, { recursive: true, force: true })
    const from =
      `host=${primary.host} port=${primary.port} user=prism_replica sslmode=verify-full ` +
      `sslrootcert=${path("ca.crt")} passfile=${path("replica.pgpass")}`
    yield* run(`${bin}/pg_basebackup`, ["-d", from, "-D", data, "-c", "fast", "--no-sync"], spawning)
    write(Path.join(data, "standby.signal"), "")
    configure("standby")
    yield* running.start
  })

  const init = Effect.gen(function* () {
    yield* run(
      `${bin}/initdb`,
      ["-D", data, "-U", administrator, "-E", "UTF8", "--locale=C.UTF-8", "--no-sync"],
      spawning
    )
    configure("server")
    yield* running.start
  })

  const server: Server = {
    ...running,
    name,
    host,
    port,
    socket: folder,
    settings,
    query,
    promote,
    becomePrimary: Effect.andThen(
      Effect.sync(() => configure("primary")),
      Effect.asVoid(query("SELECT pg_reload_conf()"))
    ),
    follow
  }
  /** By psql's own command, which asks for it; without a terminal it reads what it is given. */
  const setPassword = (role: Role) =>
    run(
      `${bin}/psql`,
      ["-X", "-h", folder, "-p", `${port}`, "-U", administrator, "-c", `\\password ${role}`, "postgres"],
      { ...spawning, detached: true, input: `${passwords[role]}\n${passwords[role]}\n` }
    )
  return { server, init, setPassword }
})

/** db1 with the roles and the database, and db2 that follows it. */
export const make = Effect.gen(function* (): Effect.fn.Return<Pair, never, Scope.Scope> {
  const ca = yield* authority()
  const ports = { db1: yield* freePort, db2: yield* freePort }
  const one = yield* makeServer("db1", ports, ca)
  const { server: db2 } = yield* makeServer("db2", ports, ca)
  const db1 = one.server
  yield* one.init
  yield* db1.query(Fs.readFileSync(Path.join(deployed, "roles.sql"), "utf8"))
  yield* Effect.forEach(["prism", "prism_read", "prism_replica"] as const, one.setPassword)
  yield* db2.follow(db1)
  yield* db1.becomePrimary
  const isSynchronous: Pair["isSynchronous"] = (primary) =>
    waitUntil(
      "the replica is waited for",
      primary.query("SELECT sync_state FROM pg_stat_replication"),
      (state) => state.trim() === "sync",
      { within: "20 seconds" }
    )
  yield* isSynchronous(db1)
  const bin = programs()
  return {
    authority: ca,
    db1,
    db2,
    isSynchronous,
    urlOf: (role, servers) =>
      `postgres://${role}:${passwords[role]}@${servers.map(({ host, port }) => `${host}:${port}`).join(",")}/prism?sslmode=verify-full`,
    psql: ({ host, port }, { database = "prism", password, role, sql, sslmode = "verify-full" }) =>
      Effect.callback<Said>((resume) => {
        const where = `host=${host} port=${port} user=${role} dbname=${database} sslmode=${sslmode} sslrootcert=${ca.certificate}`
        const given = password ?? (passwords as Readonly<Record<string, string>>)[role] ?? ""
        const child = ChildProcess.execFile(
          `${bin}/psql`,
          ["-X", "-q", "-A", "-t", "-w", "-v", "ON_ERROR_STOP=1", "-c", sql, where],
          { env: { ...environment, PGPASSWORD: given }, timeout: 20_000 },
          (error, stdout, stderr) => resume(Effect.succeed({ ok: error === null, text: `${stdout}${stderr}`.trim() }))
        )
        return Effect.sync(() => child.kill("SIGKILL"))
      })
  }
})
