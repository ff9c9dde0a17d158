/**
 * The kinds of values a setting may have, each from one line of text.
 *
 * A kind is an Effect Schema from text to a domain value, with words for
 * people (`label`) and a way to print the value that never shows a secret.
 * File, environment and flags all come here as text, so a value is written the
 * same way in each.
 */
import { ownName } from "@prism-dns/core/auth/Certificates"
import { isPattern } from "@prism-dns/core/auth/Principal"
import * as DomainName from "@prism-dns/core/domain/DomainName"
import { Duration, Effect, Redacted, Result, Schema, SchemaIssue, SchemaTransformation } from "effect"
import { IpNetwork } from "effect/net"
import * as PostgresUrl from "../database/PostgresUrl.ts"
import * as RedisUrl from "../redis/RedisUrl.ts"

export interface Kind<out A> {
  /** What may be written, for the reference page: `duration`, `port`, `auto, json or pretty`. */
  readonly label: string
  /** From text to the value, or a sentence that says what is wrong. */
  readonly parse: (text: string) => Result.Result<A, string>
  /** The value as it would be written in a file, without its secrets. */
  readonly print: (text: string) => string
}

const issues = SchemaIssue.makeFormatterStandardSchemaV1()

/** A kind from a schema; `print` shows the text as it was written unless told otherwise. */
export const make = <A>(
  label: string,
  schema: Schema.Codec<A, string>,
  print: (text: string) => string = (text) => text
): Kind<A> => {
  const decode = Schema.decodeUnknownResult(schema)
  return {
    label,
    parse: (text) =>
      Result.mapError(decode(text), (error) =>
        issues(error.issue)
          .issues.map((issue) => issue.message)
          .join("; ")
      ),
    print
  }
}

/** A schema from text by a function whose failure is a sentence. */
const fromText = <A>(
  is: (value: unknown) => value is A,
  parse: (text: string) => Result.Result<A, string>
): Schema.Codec<A, string> =>
  Schema.String.pipe(
    Schema.decodeTo(
      Schema.declare(is),
      SchemaTransformation.transformEffect<A, string>({
        decode: (text) =>
          Result.match(parse(text), {
            onFailure: (message) => Effect.fail(new SchemaIssue.InvalidValue({ message })),
            onSuccess: Effect.succeed
          }),
        encode: (value) => Effect.succeed(String(value))
      })
    )
  )

const isString = (value: unknown): value is string => typeof value === "string"
const isNumber = (value: unknown): value is number => typeof value === "number"

const filtered = (ok: (text: string) => boolean, message: string) =>
  Schema.String.check(Schema.makeFilter((text: string) => (ok(text) ? undefined : message)))

export const text: Kind<string> = make(
  "text",
  filtered((value) => value.trim().length > 0, "must not be empty")
)

export const choice = <const A extends string>(values: ReadonlyArray<A>): Kind<A> =>
  make(
    `${values.slice(0, -1).join(", ")} or ${values.at(-1)}`,
    fromText(
      (value): value is A => isString(value),
      (input) => {
        const found = values.find((value) => value === input.toLowerCase())
        return found === undefined
          ? Result.fail(`must be ${values.slice(0, -1).join(", ")} or ${values.at(-1)}, not '${input}'`)
          : Result.succeed(found)
      }
    )
  )

export const boolean: Kind<boolean> = make(
  "true or false",
  fromText(
    (value): value is boolean => typeof value === "boolean",
    (input) =>
      input === "true"
        ? Result.succeed(true)
        : input === "false"
          ? Result.succeed(false)
          : Result.fail(`must be true or false, not '${input}'`)
  )
)

export const integer = (minimum: number, maximum: number): Kind<number> =>
  make(
    `whole number, ${minimum} to ${maximum}`,
    fromText(isNumber, (input) => {
      const value = Number(input)
      return /^\d+$/.test(input) && value >= minimum && value <= maximum
        ? Result.succeed(value)
        : Result.fail(`must be a whole number from ${minimum} to ${maximum}, not '${input}'`)
    })
  )

/** A TCP or UDP port; 0 lets the system choose. */
export const port: Kind<number> = { ...integer(0, 65_535), label: "port" }

const durationUnits: Readonly<Record<string, number>> = { ms: 1, s: 1000, m: 60_000, h: 3_600_000, d: 86_400_000 }

const parseDuration = (input: string): Result.Result<Duration.Duration, string> => {
  if (!/^(?:\d+(?:\.\d+)?(?:ms|[smhd]))+$/.test(input)) {
    return Result.fail(
      /^\d+(?:\.\d+)?$/.test(input)
        ? `needs a unit, for example '${input}s'`
        : `must be a duration such as 500ms, 30s, 5m or 1h, not '${input}'`
    )
  }
  let millis = 0
  for (const part of input.matchAll(/(\d+(?:\.\d+)?)(ms|[smhd])/g)) millis += Number(part[1]) * durationUnits[part[2]!]!
  return Result.succeed(Duration.millis(millis))
}

/** A duration with its unit, from `minimum` to `maximum`. */
export const duration = (minimum: string, maximum: string): Kind<Duration.Duration> => {
  const [low, high] = [minimum, maximum].map((bound) => Result.getOrThrow(parseDuration(bound))) as [
    Duration.Duration,
    Duration.Duration
  ]
  return make(
    `duration, ${minimum} to ${maximum}`,
    fromText(Duration.isDuration, (input) =>
      Result.flatMap(parseDuration(input), (value) =>
        Duration.isGreaterThanOrEqualTo(value, low) && Duration.isLessThanOrEqualTo(value, high)
          ? Result.succeed(value)
          : Result.fail(`must be from ${minimum} to ${maximum}, not ${input}`)
      )
    )
  )
}

/** The TTL of a record as people write it; RFC 2181 allows 0 to 2147483647 s, and 0 would defeat every cache. */
export const ttl: Kind<Duration.Duration> = make(
  "duration, 1s to 2147483647s",
  fromText(Duration.isDuration, (input) =>
    Result.flatMap(parseDuration(input), (value) => {
      const seconds = Duration.toSeconds(value)
      return Number.isInteger(seconds) && seconds >= 1 && seconds <= 2_147_483_647
        ? Result.succeed(value)
        : Result.fail(`must be whole seconds from 1s to 2147483647s, not ${input}`)
    })
  )
)

const byteUnits: Readonly<Record<string, number>> = { B: 1, KiB: 1024, MiB: 1024 ** 2, GiB: 1024 ** 3 }

/** A size in bytes with its unit: `64KiB`. */
export const bytes = (minimum: number, maximum: number): Kind<number> => {
  const range = minimum === maximum ? `must be ${maximum} bytes` : `must be from ${minimum} to ${maximum} bytes`
  return make(
    minimum === maximum ? `size, always ${maximum} bytes` : `size, ${minimum} to ${maximum} bytes`,
    fromText(isNumber, (input) => {
      const match = /^(\d+)(B|KiB|MiB|GiB)?$/.exec(input)
      if (match === null) return Result.fail(`must be a size such as 65536, 64KiB or 1MiB, not '${input}'`)
      const value = Number(match[1]) * byteUnits[match[2] ?? "B"]!
      return value >= minimum && value <= maximum ? Result.succeed(value) : Result.fail(`${range}, not ${input}`)
    })
  )
}

export const domainName: Kind<DomainName.DomainName> = make(
  "domain name",
  fromText(
    (value): value is DomainName.DomainName => isString(value),
    (input) => Result.mapError(DomainName.parse(input), (error) => error.reason)
  )
)

/** A network in CIDR notation: `10.0.0.0/8`, `2001:db8::/32`. A single address is a network of its own. */
export const network: Kind<IpNetwork.IpNetwork> = make(
  "network (CIDR)",
  fromText(IpNetwork.isIpNetwork, (input) =>
    Result.match(IpNetwork.fromString(input.includes("/") ? input : `${input}/${input.includes(":") ? 128 : 32}`), {
      onFailure: () =>
        Result.fail(
          `must be a network such as 10.1.0.0/16 or 2001:db8::/32, with no bit behind the prefix, not '${input}'`
        ),
      onSuccess: Result.succeed
    })
  )
)

/** A pattern of names below a zone (`matchesPattern`); folds upper case. */
export const namePattern: Kind<string> = make(
  "pattern of names, * for any characters and # for a number within a label",
  fromText(isString, (input) => {
    const pattern = input.toLowerCase()
    return isPattern(pattern)
      ? Result.succeed(pattern)
      : Result.fail(
          `must be labels of letters, digits, hyphens, * and # with dots between them, such as web-* or *.rack-7, not '${input}'`
        )
  })
)

/** A pattern of names in which `{name}` stands for a name that is known later. */
export const ownNamePattern: Kind<string> = make(
  "pattern of names, {name} for the certificate's own",
  fromText(isString, (input) => {
    const pattern = input.toLowerCase()
    return isPattern(pattern.replaceAll(ownName, "x"))
      ? Result.succeed(pattern)
      : Result.fail(`must be a pattern of names such as {name}, {name}-* or web-*, not '${input}'`)
  })
)

/** Where agents connect, as they are given it. */
export const agentServer: Kind<string> = make(
  "HOST:PORT or tls://HOST:PORT",
  fromText(isString, (input) => {
    const match = /^(?:tls:\/\/)?(?:\[[0-9A-Fa-f:.]+\]|[^:/[\]\s]+):(\d{1,5})$/.exec(input)
    const port = Number(match?.[1])
    return match !== null && port >= 1 && port <= 65_535
      ? Result.succeed(input)
      : Result.fail(`must be HOST:PORT or tls://HOST:PORT, not '${input}'`)
  })
)

/** The base address of an HTTP service, without a slash at its end. */
export const httpUrl: Kind<string> = make(
  "http(s) URL",
  fromText(isString, (input) => {
    const url = URL.parse(input)
    if (url === null || (url.protocol !== "http:" && url.protocol !== "https:")) {
      return Result.fail(`must be a URL such as http://127.0.0.1:8081, not '${input}'`)
    }
    if (url.username !== "" || url.password !== "") return Result.fail("must not carry a user name or password")
    return Result.succeed(url.href.replace(/\/(?:api\/?(?:v1\/?)?)?$/, ""))
  })
)

/** A host (name or address) and a port. */
export interface Endpoint {
  readonly host: string
  readonly port: number
}

const parseEndpoint = (input: string, defaultPort: number): Result.Result<Endpoint, string> => {
  const match = /^(?:\[([0-9a-f:.]+)\]|([^:[\]\s]+))(?::(\d{1,5}))?$/i.exec(input)
  const port = Number(match?.[3] ?? defaultPort)
  return match === null || port < 1 || port > 65_535
    ? Result.fail(`must be HOST:PORT, for example 192.0.2.53:53 or [2001:db8::53]:53, not '${input}'`)
    : Result.succeed({ host: (match[1] ?? match[2])!, port })
}

/** The address of a DNS server; port 53 unless stated. */
export const dnsEndpoint: Kind<Endpoint> = make(
  "HOST or HOST:PORT",
  fromText(
    (value): value is Endpoint => typeof value === "object" && value !== null && "host" in value,
    (input) => parseEndpoint(input, 53)
  )
)

/** A syslog server and how to reach it. */
export interface SyslogUrl extends Endpoint {
  readonly protocol: "tcp" | "udp" | "tls"
}

const syslogPorts = { tcp: 601, udp: 514, tls: 6514 } as const

/** The usual port of each protocol unless stated. */
export const syslogUrl: Kind<SyslogUrl> = make(
  "tcp://, tls:// or udp://HOST:PORT",
  fromText(
    (value): value is SyslogUrl => typeof value === "object" && value !== null && "protocol" in value,
    (input) => {
      const found = /^(?<protocol>tcp|udp|tls):\/\/(?<rest>.*)$/.exec(input)?.groups
      if (found === undefined) return Result.fail(`must be such as tls://siem.example.net:6514, not '${input}'`)
      const protocol = found["protocol"] as SyslogUrl["protocol"]
      return Result.map(parseEndpoint(found["rest"]!, syslogPorts[protocol]), (endpoint) => ({ ...endpoint, protocol }))
    }
  )
)

/** Where the registry is kept. */
export type StorageUrl = { readonly _tag: "Sqlite"; readonly filename: string } | PostgresUrl.PostgresUrl

const parseStorageUrl = (input: string): Result.Result<StorageUrl, string> => {
  if (input.startsWith("sqlite:")) {
    const filename = input.slice("sqlite:".length).replace(/^\/\/(?=\/)/, "")
    return filename === ""
      ? Result.fail("names no file, for example sqlite:./prism.db")
      : Result.succeed({ _tag: "Sqlite", filename })
  }
  if (/^postgres(?:ql)?:\/\//.test(input)) return PostgresUrl.parse(input)
  return Result.fail("must begin with sqlite: or postgres://, for example sqlite:./prism.db")
}

const withoutPassword = (input: string): string =>
  input
    .replace(/^(postgres(?:ql)?:\/\/[^:@/]*):[^/?#]*@/, "$1:<redacted>@")
    .replace(/([?&]password=)[^&]*/, "$1<redacted>")

export const storageUrl: Kind<StorageUrl> = make(
  "sqlite:FILE, sqlite::memory: or postgres://…",
  fromText((value): value is StorageUrl => typeof value === "object" && value !== null, parseStorageUrl),
  withoutPassword
)

/** A PostgreSQL database, on one server or on several. */
export const postgresUrl: Kind<PostgresUrl.PostgresUrl> = make(
  "postgres://…",
  fromText(
    (value): value is PostgresUrl.PostgresUrl => typeof value === "object" && value !== null,
    (input) =>
      /^postgres(?:ql)?:\/\//.test(input)
        ? PostgresUrl.parse(input)
        : Result.fail("must begin with postgres://, for example postgres://prism@db.example.net/prism")
  ),
  withoutPassword
)

/** A Redis server, with or without TLS. */
export const redisUrl: Kind<RedisUrl.RedisUrl> = make(
  "redis://… or rediss://…",
  fromText((value): value is RedisUrl.RedisUrl => typeof value === "object" && value !== null, RedisUrl.parse),
  (input) => input.replace(/^(rediss?:\/\/[^:@/]*):.*@/s, "$1:<redacted>@")
)

/** A secret. It never leaves as text, except to where it is used. */
export const secret: Kind<Redacted.Redacted> = make(
  "secret",
  fromText(
    (value): value is Redacted.Redacted => Redacted.isRedacted(value),
    (input) =>
      input.length === 0
        ? Result.fail("is empty")
        : /\s/.test(input)
          ? Result.fail("contains white space")
          : Result.succeed(Redacted.make(input))
  ),
  () => "<redacted>"
)
