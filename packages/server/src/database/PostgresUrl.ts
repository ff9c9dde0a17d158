/**
 * The address of a PostgreSQL database, as libpq writes it: one server, or
 * several of which one takes writes.
 *
 * Parsed once, at the edge: what comes out names each server by itself, and an
 * address without them, which is the same for all.
 */
import { Redacted, Result } from "effect"

/** A server that may have the database. */
export interface PostgresHost {
  /** A name, an address, or the folder of a Unix socket. */
  readonly host: string
  readonly port: number
}

export interface PostgresUrl {
  readonly _tag: "Postgres"
  /** With the first server only, as drivers take it; the password is in it. */
  readonly url: Redacted.Redacted
  /** The first server. */
  readonly host: string
  readonly port: number
  /** All of them, in the order in which they were written. */
  readonly hosts: readonly [PostgresHost, ...ReadonlyArray<PostgresHost>]
}

/** Servers of one database at the most. */
const hostsMax = 8
const defaultPort = 5432
const example = "for example postgres://prism@db.example.net/prism, or postgres://prism@db1:5432,db2:5432/prism"

const parts = /^(?<scheme>postgres(?:ql)?:\/\/)(?:(?<user>[^/?#]*)@)?(?<hosts>[^/?#@]*)(?<rest>[/?#].*)?$/s

const decode = (text: string): string | undefined => {
  try {
    return decodeURIComponent(text)
  } catch {
    return undefined
  }
}

/** What stands there is not quoted: where an `@` was forgotten, or a `/` is not written as %2F, it is the password. */
const notPort = "has a port that is none (a / or @ in the password is written %2F, %40)"
const notHost = "has a host that is none"

const parsePort = (text: string): Result.Result<number, string> => {
  const port = Number(text)
  return /^\d+$/.test(text) && port >= 1 && port <= 65_535 ? Result.succeed(port) : Result.fail(notPort)
}

/** `HOST`, `HOST:PORT` or `[ADDRESS]:PORT`. */
const parseAuthority = (text: string): Result.Result<{ host: string; port: number | undefined }, string> => {
  const found = /^(?:\[(?<v6>[0-9a-fA-F:.]+)\]|(?<name>[^:[\]]*))(?::(?<port>.*))?$/.exec(text)?.groups
  const host = found === undefined ? undefined : decode(found["v6"] ?? found["name"] ?? "")
  if (found === undefined || host === undefined) return Result.fail(notHost)
  if (found["port"] === undefined || found["port"] === "") return Result.succeed({ host, port: undefined })
  return Result.map(parsePort(found["port"]), (port) => ({ host, port }))
}

/** As `?host=a,b&port=1,2`: one port for all, or one for each. */
const parseParameters = (hosts: string, ports: string | null, portOfUrl: number | undefined) => {
  const names = hosts.split(",")
  const given = ports === null ? [] : ports.split(",")
  if (given.length > 1 && given.length !== names.length) {
    return Result.fail(`names ${names.length} hosts and ${given.length} ports`)
  }
  return Result.all(
    names.map((host, i) => {
      const port = given[i] ?? given[0]
      return port === undefined || port === ""
        ? Result.succeed({ host, port: portOfUrl })
        : Result.map(parsePort(port), (port) => ({ host, port: port as number | undefined }))
    })
  )
}

const parseHosts = (url: URL, authority: string) =>
  Result.gen(function* () {
    const written = yield* Result.all(authority.split(",").map(parseAuthority))
    const hosts = url.searchParams.get("host")
    const ports = url.searchParams.get("port")
    if (hosts !== null) return yield* parseParameters(hosts, ports, written[0]!.port)
    // A port alone beside hosts in the authority: of those that name none.
    if (ports === null) return written
    const port = yield* parsePort(ports)
    return written.map((each) => ({ host: each.host, port }))
  })

/** What a session is to be good for: we write, and with one server there is nothing to choose. */
const writing: ReadonlyArray<string> = ["read-write", "primary"]

/** From the text of the address, or a sentence that says what is wrong; it never carries the password. */
export const parse = (input: string): Result.Result<PostgresUrl, string> =>
  Result.gen(function* () {
    const found = parts.exec(input)?.groups
    const rest = found?.["rest"] ?? ""
    // What remains has no host whose punctuation would be another one's to judge.
    const url = found === undefined ? null : URL.parse(`${found["scheme"]}host${rest}`)
    if (found === undefined || url === null) return yield* Result.fail(`is not a URL, ${example}`)
    const hosts = (yield* parseHosts(url, found["hosts"]!)).map(({ host, port }) => ({
      // A socket folder is named by a parameter, and leaves the host of the URL empty.
      host: host === "" ? "localhost" : host,
      port: port ?? defaultPort
    }))
    if (hosts.length > hostsMax) return yield* Result.fail(`names ${hosts.length} hosts, more than ${hostsMax}`)
    const names = hosts.map(nameOf)
    const twice = names.find((name, i) => names.indexOf(name) !== i)
    if (twice !== undefined) return yield* Result.fail(`names ${twice} twice`)
    const attributes = url.searchParams.get("target_session_attrs")
    if (hosts.length > 1 && attributes !== null && !writing.includes(attributes)) {
      return yield* Result.fail(
        `has target_session_attrs=${attributes}, but the registry is written: leave it out, or make it read-write`
      )
    }
    const [first, ...others] = hosts as [PostgresHost, ...Array<PostgresHost>]
    if (others.length === 0) {
      return { _tag: "Postgres" as const, url: Redacted.make(input), ...first, hosts: [first] as const }
    }
    for (const name of ["host", "port", "target_session_attrs", "load_balance_hosts"]) url.searchParams.delete(name)
    const isSocket = first.host.startsWith("/")
    if (isSocket) {
      url.searchParams.set("host", first.host)
      url.searchParams.set("port", `${first.port}`)
    }
    const user = found["user"] === undefined ? "" : `${found["user"]}@`
    const query = url.searchParams.size === 0 ? "" : `?${url.searchParams.toString()}`
    const one = `${found["scheme"]}${user}${isSocket ? "localhost" : nameOf(first)}${url.pathname}${query}`
    return { _tag: "Postgres" as const, url: Redacted.make(one), ...first, hosts: [first, ...others] as const }
  })

/** `db.example.net:5432`, `[2001:db8::1]:5432`. */
export const nameOf = ({ host, port }: PostgresHost): string => `${host.includes(":") ? `[${host}]` : host}:${port}`

/** `PostgreSQL at db1.example.net:5432, db2.example.net:5432`. */
export const describe = ({ hosts }: Pick<PostgresUrl, "hosts">): string =>
  `PostgreSQL at ${hosts.map(nameOf).join(", ")}`
