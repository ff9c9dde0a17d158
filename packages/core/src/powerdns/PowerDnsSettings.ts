/**
 * The configuration file of a `pdns_server` of our own, as a value.
 *
 * Promises: settings under which the publisher works as designed (API on, no
 * rectify per PATCH, bodies up to 16 MB, nothing asked from the internet).
 * Leaves to others: writing the file, starting the program (`PowerDnsProcess`).
 */
import { Redacted } from "effect"
import { deleteRRsetSetting } from "./pgsqlLock.ts"

/** Where PowerDNS keeps its zones. */
export type Backend =
  /** One SQLite file in the directory; its schema is loaded when the file is new. */
  | { readonly _tag: "Sqlite" }
  /** LMDB files in the directory. */
  | { readonly _tag: "Lmdb" }
  /**
   * A PostgreSQL database that has PowerDNS's schema and the lock of `pgsqlLock.ts`. `host` is a host name, an
   * address, or the folder of the Unix socket.
   */
  | {
      readonly _tag: "Pgsql"
      readonly host: string
      readonly port: number
      readonly user: string
      readonly database: string
      readonly password?: Redacted.Redacted
    }

export const sqlite: Backend = { _tag: "Sqlite" }
export const lmdb: Backend = { _tag: "Lmdb" }
export const pgsql = (options: Omit<Extract<Backend, { _tag: "Pgsql" }>, "_tag">): Backend => ({
  _tag: "Pgsql",
  ...options
})

/** PowerDNS's own name for the backend, and the packages that bring it. */
export const backendModules = {
  Sqlite: { module: "gsqlite3", debian: "pdns-backend-sqlite3", fedora: "pdns-backend-sqlite" },
  Lmdb: { module: "lmdb", debian: "pdns-backend-lmdb", fedora: "pdns-backend-lmdb" },
  Pgsql: { module: "gpgsql", debian: "pdns-backend-pgsql", fedora: "pdns-backend-postgresql" }
} as const

/** Places where distributions put SQLite's schema for PowerDNS, best first; `.gz` is tried after each. */
export const sqliteSchemaPaths: ReadonlyArray<string> = [
  "/usr/share/pdns-backend-sqlite3/schema/schema.sqlite3.sql", // Debian, Ubuntu
  "/usr/share/doc/pdns-backend-sqlite3/schema.sqlite3.sql", // Debian, Ubuntu
  "/usr/share/doc/pdns-backend-sqlite/schema.sqlite3.sql", // Fedora
  "/usr/share/doc/pdns/schema.sqlite3.sql", // Fedora, Alpine, Arch
  "/usr/share/doc/powerdns/schema.sqlite3.sql", // Arch
  "/usr/share/pdns/schema.sqlite3.sql",
  "/usr/local/share/doc/powerdns/schema.sqlite3.sql", // FreeBSD
  "/usr/local/share/doc/pdns/schema.sqlite3.sql", // built from source
  "/usr/local/opt/pdns/share/doc/pdns/schema.sqlite3.sql", // Homebrew on Intel
  "/opt/homebrew/opt/pdns/share/doc/pdns/schema.sqlite3.sql" // Homebrew on Apple silicon
]

export interface Settings {
  readonly directory: string
  readonly socketDirectory: string
  readonly backend: Backend
  readonly address: string
  readonly dnsPort: number
  readonly apiPort: number
  readonly apiKey: Redacted.Redacted
  /** Further settings by PowerDNS's names; they win over ours. */
  readonly extra: Readonly<Record<string, string>>
}

export const sqliteFile = (directory: string): string => `${directory}/pdns.sqlite3`

/**
 * The thread that takes a question answers it, instead of handing it to another: of files in memory a quarter to a third
 * less processor time. On a database elsewhere it would wait for each answer.
 */
const answeredWhereTaken = { "receiver-threads": "2", "distributor-threads": "1" }

const backendSettings = (backend: Backend, directory: string): Record<string, string> => {
  if (backend._tag === "Sqlite") {
    return {
      launch: "gsqlite3",
      "gsqlite3-database": sqliteFile(directory),
      "gsqlite3-dnssec": "yes",
      "gsqlite3-pragma-foreign-keys": "yes",
      "gsqlite3-pragma-synchronous": "1",
      ...answeredWhereTaken
    }
  }
  if (backend._tag === "Lmdb") {
    return { launch: "lmdb", "lmdb-filename": `${directory}/pdns.lmdb`, ...answeredWhereTaken }
  }
  return {
    launch: "gpgsql",
    "gpgsql-host": backend.host,
    "gpgsql-port": `${backend.port}`,
    "gpgsql-user": backend.user,
    "gpgsql-dbname": backend.database,
    "gpgsql-dnssec": "yes",
    [deleteRRsetSetting.name]: deleteRRsetSetting.value,
    ...(backend.password === undefined ? {} : { "gpgsql-password": Redacted.value(backend.password) })
  }
}

/** All settings by PowerDNS's names. */
export const entries = (settings: Settings): Record<string, string> => ({
  ...backendSettings(settings.backend, settings.directory),
  "socket-dir": settings.socketDirectory,
  "local-address": settings.address,
  "local-port": `${settings.dnsPort}`,
  api: "yes",
  "api-key": Redacted.value(settings.apiKey),
  webserver: "yes",
  "webserver-address": settings.address,
  "webserver-port": `${settings.apiPort}`,
  "webserver-allow-from": "127.0.0.0/8,::1",
  "webserver-max-bodysize": "16",
  "default-api-rectify": "no",
  // Without it new zones name a.misconfigured.dns.server.invalid; the last figure is how long "no such name" is cached.
  "default-soa-content": "ns1.@ hostmaster.@ 0 10800 3600 604800 60",
  daemon: "no",
  guardian: "no",
  "disable-syslog": "yes",
  "write-pid": "no",
  "security-poll-suffix": "", // empty: asks nobody for its version status
  ...settings.extra
})

/**
 * The first entry that the file's syntax cannot carry, or undefined: a value ends at the line's end or before a `#`,
 * loses the blanks around it, and goes on in the next line after a `\`.
 */
export const unwritable = (values: Readonly<Record<string, string>>): string | undefined =>
  Object.entries(values).find(
    ([key, value]) =>
      !/^[a-z0-9-]+$/.test(key) || /[\r\n#\0]/.test(value) || value.trim() !== value || value.endsWith("\\")
  )?.[0]

export const render = (values: Readonly<Record<string, string>>): string =>
  Object.entries(values)
    .map(([key, value]) => `${key}=${value}\n`)
    .join("")
