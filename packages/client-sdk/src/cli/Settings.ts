/**
 * What `prism-agent` is told: flags, environment, defaults, in this order of
 * precedence.
 *
 * `settings` is the one table from which come flags, their help and the names
 * of environment variables (`--token-file` is `PRISM_AGENT_TOKEN_FILE`). `read`
 * is pure and gives values of which each is checked already, or all that is
 * wrong. Secrets have no flag: arguments can be read by every user of a machine.
 *
 * Leaves to others: files and folders named here (`Credentials`).
 */
import * as DomainName from "@prism-dns/core/domain/DomainName"
import { type AckLevel, ackLevels } from "@prism-dns/core/domain/Host"
import * as IpAddress from "@prism-dns/core/domain/IpAddress"
import * as Logging from "@prism-dns/core/logging/Logging"
import * as MessageV2 from "@prism-dns/core/protocol/MessageV2"
import { type LogLevel, Redacted, Result } from "effect"
import { Flag } from "effect/cli"
import * as Path from "node:path"
import type { Family, SelectOptions } from "../addresses/Selection.ts"
import * as Servers from "../Servers.ts"

/** How the agent proves who it is. `auto`: by what there is, a key before a certificate before nothing. */
export const authMethods = ["auto", "key", "token", "certificate", "anonymous"] as const
export type AuthMethod = (typeof authMethods)[number]

const logLevels: Readonly<Partial<Record<string, LogLevel.LogLevel>>> = {
  debug: "Debug",
  info: "Info",
  warn: "Warn",
  error: "Error"
}

/** RFC 2181, 8. */
const ttlSecondsMax = 2_147_483_647

/** Names that one agent keeps at the most. */
export const hostnamesMax = 64

export interface Settings {
  /** `HOST:PORT` or `tls://HOST:PORT`, the preferred one first. */
  readonly servers: ReadonlyArray<string>
  /** Empty: this machine's own name. */
  readonly hostnames: ReadonlyArray<string>
  readonly zone: string | undefined
  readonly addresses: Addresses
  readonly auth: AuthMethod
  readonly token: Redacted.Redacted | undefined
  /** Holds the token; only where no token itself is given. */
  readonly tokenFile: string | undefined
  /** The folder for the key. */
  readonly state: string
  readonly ack: AckLevel
  readonly ttlSeconds: number | undefined
  readonly labels: Readonly<Record<string, string>> | undefined
  readonly tls: {
    readonly ca: string | undefined
    readonly cert: string | undefined
    readonly key: string | undefined
    readonly serverName: string | undefined
  }
  readonly releaseOnExit: boolean
  readonly explain: boolean
  /** Undefined: the command's own. */
  readonly logLevel: LogLevel.LogLevel | undefined
  readonly logFormat: Logging.Format
}

/** Which addresses the names get. */
export type Addresses =
  /** The one that the server sees. */
  | { readonly _tag: "Observed" }
  | { readonly _tag: "Listed"; readonly addresses: ReadonlyArray<IpAddress.IpAddress> }
  /** Those of this machine, as `addresses/Selection` decides. */
  | { readonly _tag: "Interfaces"; readonly options: SelectOptions }

/** What is wrong, a sentence each, by where it was said. */
export interface Problems {
  readonly flags: ReadonlyArray<string>
  readonly environment: ReadonlyArray<string>
}

// --- The table -----------------------------------------------------------------------------------------------------

interface Entry {
  readonly doc: string
  /** Of a value, for the help; undefined: yes or no. */
  readonly metavar?: string
  /** May be given again; in the environment with commas between. */
  readonly several?: true
}

export const settings = {
  server: {
    doc: "A server's port for agents, HOST:PORT or tls://HOST:PORT. Given again: the next to try when one is away.",
    metavar: "SERVER",
    several: true
  },
  hostname: {
    doc: "The name to have. Given again: several names. Default: this machine's own, without its domain.",
    metavar: "NAME",
    several: true
  },
  zone: { doc: "The zone of the names. Default: the server's first.", metavar: "ZONE" },
  address: {
    doc: "An address that the names get. Given again: several. 'observed' is the one that the server sees, 'interfaces' those of this machine that others can reach. Default: observed.",
    metavar: "ADDRESS",
    several: true
  },
  interfaces: {
    doc: "Only the addresses of these interfaces, such as eth0 or 'en*'; '!docker*' leaves some out. Implies --address interfaces.",
    metavar: "PATTERN",
    several: true
  },
  family: {
    doc: "With --address interfaces: ipv4 or ipv6 alone. Default: both.",
    metavar: "FAMILY"
  },
  auth: {
    doc: `How to prove who this is: ${authMethods.join(", ")}. Default: auto, by the key in the state folder, for which a token enrols it, or by the certificate.`,
    metavar: "METHOD"
  },
  "token-file": {
    doc: "A file that holds a token. The token itself may be in PRISM_TOKEN, never among the arguments.",
    metavar: "FILE"
  },
  state: {
    doc: "The folder that keeps this machine's key. Default: STATE_DIRECTORY, or for root /var/lib/prism-agent, else ~/.local/state/prism-agent.",
    metavar: "DIR"
  },
  ack: {
    doc: `What to wait for: ${ackLevels.join(", ")}. Default: applied.`,
    metavar: "LEVEL"
  },
  ttl: { doc: "How long resolvers may keep the answer, in seconds; the zone bounds it.", metavar: "SECONDS" },
  label: { doc: "A label of the hosts. May be given again.", metavar: "KEY=VALUE", several: true },
  tls: { doc: "Every server is spoken to over TLS." },
  ca: { doc: "The certificate authorities to trust (PEM). Default: those of Node.", metavar: "FILE" },
  cert: { doc: "A client certificate (PEM), where it stands for the identity.", metavar: "FILE" },
  key: { doc: "The private key of the client certificate (PEM).", metavar: "FILE" },
  "server-name": {
    doc: "The name that the server's certificate must have. Default: the host of --server.",
    metavar: "NAME"
  },
  "release-on-exit": { doc: "Give the names up when the agent ends: their records go at once." },
  explain: { doc: "Print which addresses of this machine would be registered, and why, and end." },
  "log-level": {
    doc: `The least severe lines: ${Object.keys(logLevels).join(", ")}. Default: info.`,
    metavar: "LEVEL"
  },
  "log-format": {
    doc: `${Logging.formats.join(", ")}; auto is readable on a terminal and JSON elsewhere.`,
    metavar: "FORMAT"
  }
} as const satisfies Readonly<Record<string, Entry>>

export type Name = keyof typeof settings

const names = Object.keys(settings) as ReadonlyArray<Name>

const entry = (name: Name): Entry => settings[name]

/** The environment variable of a setting. */
export const variable = (name: Name): string => `PRISM_AGENT_${name.toUpperCase().replaceAll("-", "_")}`

/** What was given by flags: every value as text, a switch as `true` or `false`. */
export type Given = Readonly<Record<Name, ReadonlyArray<string>>>

/** The flags of the table. */
export const flags: Readonly<Record<Name, Flag.Flag<ReadonlyArray<string>>>> = Object.fromEntries(
  names.map((name) => {
    const { doc, metavar } = entry(name)
    const described = `${doc} (${variable(name)})`
    const flag: Flag.Flag<ReadonlyArray<string>> =
      metavar === undefined
        ? Flag.Boolean(name).pipe(
            Flag.withDescription(described),
            Flag.map((on) => [String(on)]),
            Flag.withDefault([] as ReadonlyArray<string>)
          )
        : Flag.String(name).pipe(Flag.withDescription(described), Flag.withMetavar(metavar), Flag.atLeast(0))
    return [name, flag]
  })
) as Record<Name, Flag.Flag<ReadonlyArray<string>>>

// --- Reading -------------------------------------------------------------------------------------------------------

type Environment = Readonly<Record<string, string | undefined>>

/** Where the key is kept when nothing says where. */
export const defaultState = (environment: Environment, home: string, isRoot: boolean): string => {
  // systemd names several with colons between
  const [ofUnit] = (environment["STATE_DIRECTORY"] ?? "").split(":")
  if (ofUnit !== undefined && ofUnit !== "") return ofUnit
  if (isRoot) return "/var/lib/prism-agent"
  const ofUser = environment["XDG_STATE_HOME"]
  // A relative one is to be ignored (XDG Base Directory Specification).
  return Path.join(
    ofUser !== undefined && Path.isAbsolute(ofUser) ? ofUser : Path.join(home, ".local/state"),
    "prism-agent"
  )
}

type Parse<A> = (text: string) => Result.Result<A, string>

/** Reads one setting after the other, and keeps what is wrong. */
interface Reader {
  /** Each value as `parse` reads it. */
  readonly several: <A>(name: Name, parse: Parse<A>) => ReadonlyArray<A>
  /** The last one, where only one makes sense. */
  readonly one: <A>(name: Name, parse: Parse<A>) => A | undefined
  readonly text: (name: Name) => string | undefined
  readonly choice: <const A extends string>(name: Name, choices: ReadonlyArray<A>) => A | undefined
  readonly isOn: (name: Name) => boolean
  /** Whether anything was said of a setting, right or wrong. */
  readonly isSaid: (name: Name) => boolean
  readonly wrong: (name: Name, detail: string) => void
  readonly problems: Problems
}

const makeReader = (given: Given, environment: Environment): Reader => {
  const problems = { flags: [] as Array<string>, environment: [] as Array<string> }
  const valuesOf = (name: Name): ReadonlyArray<string> => {
    if (given[name].length > 0) return given[name]
    const text = environment[variable(name)] ?? ""
    const parts = entry(name).several === true ? text.split(",").map((part) => part.trim()) : [text]
    return parts.filter((part) => part !== "")
  }
  const wrong = (name: Name, detail: string) =>
    given[name].length > 0 || valuesOf(name).length === 0
      ? problems.flags.push(`--${name}: ${detail}`)
      : problems.environment.push(`${variable(name)}: ${detail}`)
  const several = <A>(name: Name, parse: Parse<A>): ReadonlyArray<A> =>
    valuesOf(name).flatMap((value) => {
      const parsed = parse(value)
      if (Result.isSuccess(parsed)) return [parsed.success]
      wrong(name, parsed.failure)
      return []
    })
  const one = <A>(name: Name, parse: Parse<A>): A | undefined => several(name, parse).at(-1)
  return {
    several,
    one,
    text: (name) => one(name, Result.succeed),
    choice: (name, choices) =>
      one(name, (value) => {
        const found = choices.find((each) => each === value)
        return found === undefined ? Result.fail(`'${value}' is none of ${choices.join(", ")}`) : Result.succeed(found)
      }),
    isOn: (name) =>
      one(name, (value) => {
        if (["true", "1", "yes", "on"].includes(value)) return Result.succeed(true)
        if (["false", "0", "no", "off"].includes(value)) return Result.succeed(false)
        return Result.fail(`'${value}' is neither true nor false`)
      }) ?? false,
    isSaid: (name) => valuesOf(name).length > 0,
    wrong,
    problems
  }
}

const readServers = (reader: Reader, explain: boolean): ReadonlyArray<string> => {
  const tls = reader.isOn("tls")
  const servers = reader.several("server", (value) => {
    try {
      Servers.parseServer(value)
    } catch {
      return Result.fail(`'${value}' is no HOST:PORT or tls://HOST:PORT`)
    }
    if (tls && value.startsWith("tcp://")) return Result.fail(`'${value}' is without TLS, which --tls asks for`)
    return Result.succeed(tls && !value.startsWith("tls://") ? `tls://${value}` : value)
  })
  if (!reader.isSaid("server") && !explain) {
    reader.wrong("server", `name a server, HOST:PORT; ${variable("server")} says it too`)
  }
  if (servers.length > Servers.serversMax) reader.wrong("server", `at most ${Servers.serversMax} servers`)
  return servers
}

const readHostnames = (reader: Reader): ReadonlyArray<string> => {
  const hostnames = reader.several("hostname", (value) =>
    Result.mapError(
      Result.map(DomainName.parseHostName(value), () => value),
      ({ reason }) => `'${value}': ${reason}`
    )
  )
  if (hostnames.length > hostnamesMax) reader.wrong("hostname", `one agent keeps at most ${hostnamesMax} names`)
  if (new Set(hostnames.map((name) => name.toLowerCase())).size < hostnames.length) {
    reader.wrong("hostname", "a name is given twice")
  }
  return hostnames
}

const readAddresses = (reader: Reader, explain: boolean): Addresses => {
  const patterns = reader.several<string>("interfaces", Result.succeed)
  const family: Family | undefined = reader.choice("family", ["ipv4", "ipv6"])
  const words: Array<"observed" | "interfaces"> = []
  const addresses = reader
    .several<IpAddress.IpAddress | undefined>("address", (value) => {
      if (value === "observed" || value === "interfaces") {
        words.push(value)
        return Result.succeed(undefined)
      }
      return Result.mapError(IpAddress.parse(value), ({ message }) => message)
    })
    .filter((address) => address !== undefined)
  const asked = patterns.length > 0 || family !== undefined || words.includes("interfaces")
  if (words.length + (addresses.length > 0 ? 1 : 0) > 1 || (asked && words.includes("observed"))) {
    reader.wrong("address", "observed, interfaces and addresses exclude each other")
  } else if (asked && addresses.length > 0) {
    reader.wrong("address", "either addresses, or interfaces to take them from")
  }
  if (addresses.length > MessageV2.addressesMax) {
    reader.wrong("address", `a host has at most ${MessageV2.addressesMax} addresses`)
  }
  if (asked || explain) {
    const include = patterns.filter((pattern) => !pattern.startsWith("!"))
    const exclude = patterns.filter((pattern) => pattern.startsWith("!")).map((pattern) => pattern.slice(1))
    const options: SelectOptions = {
      ...(include.length === 0 ? {} : { include }),
      ...(exclude.length === 0 ? {} : { exclude }),
      ...(family === undefined ? {} : { families: [family] })
    }
    return { _tag: "Interfaces", options }
  }
  return addresses.length === 0 ? { _tag: "Observed" } : { _tag: "Listed", addresses }
}

const parseLogLevel: Parse<LogLevel.LogLevel> = (text) => {
  const level = logLevels[text]
  return level === undefined
    ? Result.fail(`'${text}' is none of ${Object.keys(logLevels).join(", ")}`)
    : Result.succeed(level)
}

const readLabels = (reader: Reader): Readonly<Record<string, string>> | undefined => {
  const labels = reader.several("label", (text): Result.Result<readonly [string, string], string> => {
    const at = text.indexOf("=")
    return at < 1 ? Result.fail(`'${text}' is no KEY=VALUE`) : Result.succeed([text.slice(0, at), text.slice(at + 1)])
  })
  return labels.length === 0 ? undefined : Object.fromEntries(labels)
}

const readTls = (reader: Reader, auth: AuthMethod): Settings["tls"] => {
  const cert = reader.text("cert")
  const key = reader.text("key")
  if (cert === undefined && key !== undefined) reader.wrong("key", "a key needs its certificate: --cert is missing")
  if (cert !== undefined && key === undefined) reader.wrong("cert", "a certificate needs its key: --key is missing")
  if (auth === "certificate" && cert === undefined) reader.wrong("auth", "certificate needs --cert and --key")
  return { ca: reader.text("ca"), cert, key, serverName: reader.text("server-name") }
}

/** The token itself, or the file with it: a flag before the environment, the token before its file. */
const readToken = (reader: Reader, given: Given, environment: Environment): Pick<Settings, "token" | "tokenFile"> => {
  const isFlag = given["token-file"].length > 0
  // A variable that was filled from a file may have the file's last line end, as the file itself may.
  const token = [environment["PRISM_AGENT_TOKEN"], environment["PRISM_TOKEN"]]
    .map((text) => (text ?? "").trim())
    .find((text) => text !== "")
  if (token !== undefined && !isFlag) return { token: Redacted.make(token), tokenFile: undefined }
  const ofAll = environment["PRISM_TOKEN_FILE"]
  return { token: undefined, tokenFile: reader.text("token-file") ?? (ofAll === "" ? undefined : ofAll) }
}

/** Everything given, checked; or all that is wrong with it. */
export const read = (
  given: Given,
  environment: Environment,
  machine: { readonly home: string; readonly isRoot: boolean }
): Result.Result<Settings, Problems> => {
  const reader = makeReader(given, environment)
  const explain = reader.isOn("explain")
  const auth = reader.choice("auth", authMethods) ?? "auto"
  const settings: Settings = {
    servers: readServers(reader, explain),
    hostnames: readHostnames(reader),
    zone: reader.one("zone", (value) =>
      Result.mapError(
        Result.map(DomainName.parse(value), () => value),
        ({ message }) => `'${value}': ${message}`
      )
    ),
    addresses: readAddresses(reader, explain),
    auth,
    ...readToken(reader, given, environment),
    state: reader.text("state") ?? defaultState(environment, machine.home, machine.isRoot),
    ack: reader.choice("ack", ackLevels) ?? "applied",
    ttlSeconds: reader.one("ttl", (value) =>
      /^\d{1,10}$/.test(value) && Number(value) >= 1 && Number(value) <= ttlSecondsMax
        ? Result.succeed(Number(value))
        : Result.fail(`'${value}' is no number of seconds`)
    ),
    labels: readLabels(reader),
    tls: readTls(reader, auth),
    releaseOnExit: reader.isOn("release-on-exit"),
    explain,
    logLevel: reader.one("log-level", parseLogLevel),
    logFormat: reader.choice("log-format", Logging.formats) ?? "auto"
  }
  const { problems } = reader
  return problems.flags.length + problems.environment.length > 0 ? Result.fail(problems) : Result.succeed(settings)
}
