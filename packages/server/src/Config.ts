/**
 * The server's configuration: what it consists of, and how it is read.
 *
 * `settings` is the one table from which come defaults, checks, the names of
 * environment variables and flags, and the reference page. `load` reads flags,
 * environment and file, in this order of precedence, and either gives a
 * `PrismConfig`, in which every value is a domain value already, or lists all
 * that is wrong. Leaves to others: whether the things named here exist.
 */
import { facilities } from "@prism-dns/core/audit/Syslog"
import { defaultLimits, type Limits } from "@prism-dns/core/auth/Admission"
import * as Certificates from "@prism-dns/core/auth/Certificates"
import type { CertificateGrant } from "@prism-dns/core/auth/Certificates"
import * as Policy from "@prism-dns/core/auth/Policy"
import type { Grant } from "@prism-dns/core/auth/Principal"
import type { Rate } from "@prism-dns/core/auth/TokenBucket"
import { type TokenMode, tokenModes } from "@prism-dns/core/auth/TokenMode"
import { isName as isRoleName } from "@prism-dns/core/auth/Roles"
import { reservedFor } from "@prism-dns/core/auth/TokenNames"
import * as Pace from "@prism-dns/core/dns/Pace"
import type { DomainName } from "@prism-dns/core/domain/DomainName"
import * as Zone from "@prism-dns/core/domain/Zone"
import * as Logging from "@prism-dns/core/logging/Logging"
import { Duration, Effect, type LogLevel, Redacted, Result, Runtime, Schema } from "effect"
import type { IpNetwork } from "effect/net"
import * as Fs from "node:fs"
import * as Os from "node:os"
import * as Kind from "./config/Kind.ts"
import type { PostgresUrl } from "./database/PostgresUrl.ts"
import * as Settings from "./config/Settings.ts"
import { isSafeUrl, type OidcConfig } from "./OidcConfig.ts"
import type * as Groups from "@prism-dns/core/cluster/Groups"
import { redirectServersMax } from "@prism-dns/core/protocol/MessageV2"
import * as Expiry from "@prism-dns/core/registry/Expiry"
import * as Source from "./config/Source.ts"
import * as Connections from "./http/Connections.ts"
import * as Idempotency from "./http/Idempotency.ts"
import * as HostAnswers from "./http/EarlyAnswers.ts"
import type { HostAnswersOptions } from "./http/EarlyAnswers.ts"
import type { IdempotencyOptions } from "./http/Idempotency.ts"
import * as RateLimits from "./http/RateLimits.ts"
import type { RateLimitOptions } from "./http/RateLimits.ts"
import type { RedisUrl } from "./redis/RedisUrl.ts"
import { nameOf, type TargetConfig } from "./audit/TargetConfig.ts"
import { type NameSource, nameSources } from "./tcp/ClientCertificates.ts"
import { clientCertificateModes } from "./tcp/Tls.ts"

export type { Endpoint, StorageUrl } from "./config/Kind.ts"

export interface PrismConfig {
  readonly server: {
    /** Names this process in logs, metrics and the zone writers' leases. */
    readonly instance: string
    readonly logLevel: LogLevel.Severity
    readonly logFormat: Logging.Format
    /** From the first signal until no new connection is taken, so that load balancers look elsewhere. */
    readonly drainDelay: Duration.Duration
    /** How long work under way may take to end. */
    readonly shutdownTimeout: Duration.Duration
  }
  readonly tcp: {
    readonly host: string
    /** 0: any free port; undefined: hosts have TLS only. */
    readonly port: number | undefined
    /** Load balancers, whose connections begin with a PROXY header; on the TLS port too. */
    readonly proxyFrom: ReadonlyArray<IpNetwork.IpNetwork>
    readonly connectionsMax: number
    /** From one complete frame to the next. */
    readonly frameTimeout: Duration.Duration
    readonly frameBytesMax: number
    /** Registrations of one connection that are under way at once. */
    readonly pipelineMax: number
    /** Hosts that one session of protocol 2 may hold. */
    readonly sessionHostsMax: number
    /** Whether hosts may register by protocol 1.0. */
    readonly protocol1: boolean
  }
  /** Undefined: no TLS for hosts. */
  readonly tls: TlsConfig | undefined
  readonly http: {
    readonly host: string
    /** 0: any free port. */
    readonly port: number
    readonly connectionsMax: number
    /** From a connection, or the answer before, until the head of a request is read. */
    readonly headersTimeout: Duration.Duration
    /** The same, until its body is read too. */
    readonly requestTimeout: Duration.Duration
    readonly rateLimit: RateLimitOptions
    readonly idempotency: IdempotencyOptions
    readonly hostAnswers: HostAnswersOptions
  }
  readonly storage: {
    readonly url: Kind.StorageUrl
    readonly connectionsMax: number
    /** The same database past a pool that lends connections. */
    readonly directUrl?: PostgresUrl | undefined
    readonly replica?: { readonly url: PostgresUrl | undefined; readonly lagMax: Duration.Duration }
  }
  readonly powerdns: {
    /** At least one primary; the preferred one first, each name once. */
    readonly nodes: ReadonlyArray<PowerDnsNode>
    /** The nodes that may take the writes, the preferred one first; one of them does at a time. */
    readonly primaries: readonly [Primary, ...ReadonlyArray<Primary>]
    /** How zones come to secondaries. */
    readonly transfer: {
      /** Signs transfers and NOTIFY (RFC 8945); undefined: they are allowed by address. */
      readonly tsig: TsigKey | undefined
      /** The catalog zone (RFC 9432) that tells secondaries which zones there are; undefined: each is set up by its API. */
      readonly catalog: DomainName | undefined
    }
    readonly requestTimeout: Duration.Duration
    readonly connectionsMax: number
    /** Names in one PATCH. */
    readonly batchMax: number
    /** PATCHes of one zone in a second. */
    readonly batchesPerSecond: number
    /** Where zones may be transferred from for an import, besides the nodes. */
    readonly importFrom: ReadonlyArray<IpNetwork.IpNetwork>
  }
  /** Forward and reverse zones as the file orders them; at least one is a forward zone. */
  readonly zones: ReadonlyArray<Zone.Zone>
  readonly leases: {
    /** How often a version 1 client beats. */
    readonly beatInterval: Duration.Duration
    readonly grace: Duration.Duration
    /** Two beats and the grace: how long a version 1 registration holds. */
    readonly duration: Duration.Duration
    /** How long a version 1 answer waits for PowerDNS before it says `accepted`. */
    readonly ackTimeout: Duration.Duration
    /** How often the times of beats are written down. */
    readonly flushInterval: Duration.Duration
    /** How often leases that have passed are looked for. */
    readonly sweepInterval: Duration.Duration
    /** More of all hosts than this do not expire at once without a person's word, in percent. */
    readonly massExpiryPercent: number
    /** Fewer hosts than this always may. */
    readonly massExpiryMin: number
  }
  readonly cluster: {
    /** Whoever has not proved for so long that it lives is taken for dead, and others do what it did. */
    readonly lease: Duration.Duration
    /** How often a server proves that it lives, and looks at the others. */
    readonly renewInterval: Duration.Duration
    /** Zones that other groups of servers serve. */
    readonly groups: ReadonlyArray<Groups.Group>
  }
  /** Undefined: each instance keeps to itself what Redis would have them share. */
  readonly redis:
    | {
        readonly url: RedisUrl
        /** A file in PEM; undefined: the authorities that Node knows. */
        readonly ca: string | undefined
        /** Of all keys. */
        readonly prefix: string
      }
    | undefined
  readonly auth: {
    readonly mode: TokenMode
    readonly agentTokens: ReadonlyArray<AgentToken>
    readonly adminTokens: ReadonlyArray<ApiToken>
    /** Who comes by an identity provider; undefined: nobody. */
    readonly oidc: OidcConfig | undefined
    /** Where the first administrator's token is also written; undefined: nowhere. */
    readonly bootstrapTokenFile: string | undefined
    readonly certificates: CertificateGrant
    /** What hosts without a token may do where `mode` is `optional`. */
    readonly anonymous: {
      /** The one zone they may register in; undefined: the first forward zone. */
      readonly zone: DomainName | undefined
      /** Registrations per second, over all of them. */
      readonly ratePerSecond: number
      readonly burst: number
    }
    /** Patterns of labels that no host's name begins with. */
    readonly reservedNames: ReadonlyArray<string>
    readonly limits: Limits
  }
  readonly audit: {
    /** How long entries are kept; zero: for ever. */
    readonly retention: Duration.Duration
    readonly export: ReadonlyArray<TargetConfig>
  }
  readonly history: {
    /** How long it is kept what hosts were; zero: for ever. */
    readonly retention: Duration.Duration
  }
  readonly events: {
    /** Clients that follow at once. */
    readonly subscribersMax: number
    /** Newest events in memory, for all that follow. */
    readonly recentMax: number
    /** How long a stream is silent at the most. */
    readonly heartbeat: Duration.Duration
    /** After how long a client that does not read is cut. */
    readonly stalledAfter: Duration.Duration
    readonly webhooks: {
      /** Networks that may be sent to though they are private or special. */
      readonly networks: ReadonlyArray<IpNetwork.IpNetwork>
      /** How long one delivery may take. */
      readonly timeout: Duration.Duration
      /** Deliveries of one event until it is given up. */
      readonly attemptsMax: number
      /** From the first failure to the next attempt; it doubles each time, up to `retryMax`. */
      readonly retryMin: Duration.Duration
      readonly retryMax: Duration.Duration
      /** Events given up in a row until a webhook is paused. */
      readonly deadLettersInRow: number
    }
  }
}

export interface TlsConfig {
  readonly host: string
  /** 0: any free port. */
  readonly port: number
  /** Files in PEM. */
  readonly certificate: string
  readonly key: string
  readonly clientCertificates: (typeof clientCertificateModes)[number]
  readonly clientCa: string | undefined
  readonly clientCrl: string | undefined
  /** What of a client's certificate names its holder. */
  readonly clientName: NameSource
  readonly reloadInterval: Duration.Duration
}

/**
 * - `primary`: may take writes; those with the same `database` share it.
 * - `replica`: has the primaries' data by a replication of its database; is asked and flushed, never written.
 * - `secondary`: fetches the zones by AXFR.
 */
export const nodeRoles = ["primary", "replica", "secondary"] as const

export interface NodeApi {
  /** Base address, without a slash at the end: `http://127.0.0.1:8053`. */
  readonly url: string
  readonly key: Redacted.Redacted
}

export interface PowerDnsNode {
  readonly name: string
  readonly role: (typeof nodeRoles)[number]
  /** Which database a primary writes, or a replica copies; undefined: the one that all share who do not say. */
  readonly database: string | undefined
  /** Undefined for a replica or secondary that is only asked. */
  readonly api: NodeApi | undefined
  /** Where it answers DNS. */
  readonly dns: Kind.Endpoint
}

export type Primary = PowerDnsNode & { readonly api: NodeApi }

export interface TsigKey {
  readonly name: DomainName
  readonly algorithm: (typeof tsigAlgorithms)[number]
  /** Base64. */
  readonly secret: Redacted.Redacted
}

export const tsigAlgorithms = ["hmac-sha256", "hmac-sha384", "hmac-sha512"] as const

export interface NamedToken {
  readonly name: string
  readonly token: Redacted.Redacted
}

export interface AgentToken extends NamedToken {
  /** What its holder, and each identity that is enrolled with it, may claim. */
  readonly grant: Grant
}

/** A token for people and programs that use the API. */
export interface ApiToken extends NamedToken {
  /** Names of its roles. */
  readonly roles: ReadonlyArray<string>
  /** Zones and names beyond which it may nothing. */
  readonly grant: Grant
}

/** All that is wrong with a configuration; the process ends with 78 (EX_CONFIG). */
export class ConfigInvalid extends Schema.TaggedError<ConfigInvalid>()("ConfigInvalid", {
  problems: Schema.Array(Schema.String)
}) {
  override readonly [Runtime.errorExitCode] = 78
  override get message(): string {
    return this.problems.join("\n")
  }
}

const namedToken = {
  name: Settings.required(Kind.text, {
    doc: "Names whoever holds the token, in the audit log and as owner of hosts."
  }),
  token: Settings.required(Kind.secret, { doc: "The token.", secret: true })
}

const rateSettings = (rate: Rate, doc: string, what = "Changes") =>
  Settings.group(doc, {
    ratePerSecond: Settings.setting(Kind.integer(1, 1_000_000), {
      doc: `${what} per second, in the long run.`,
      default: `${rate.ratePerSecond}`
    }),
    burst: Settings.setting(Kind.integer(1, 10_000_000), { doc: `${what} at once.`, default: `${rate.burst}` })
  })

/** Words for the severities, least severe first. */
export const logLevels = [
  ["trace", "Trace"],
  ["debug", "Debug"],
  ["info", "Info"],
  ["warn", "Warn"],
  ["error", "Error"],
  ["fatal", "Fatal"]
] as const

export const logFormats = Logging.formats

const hostName = Os.hostname()

/** Every setting there is. */
export const settings = Settings.group("", {
  server: Settings.group("The process as a whole.", {
    instance: Settings.optional(Kind.text, {
      doc: "Names this process in logs, metrics and leases; different for each instance.",
      words: "the machine's host name"
    }),
    logLevel: Settings.setting(Kind.choice(logLevels.map(([word]) => word)), {
      doc: "The least severe lines that are logged; SIGHUP reads it anew.",
      default: "info",
      flag: "log-level"
    }),
    logFormat: Settings.setting(Kind.choice(logFormats), {
      doc: "JSON lines or readable ones; auto is readable on a terminal.",
      default: "auto",
      flag: "log-format"
    }),
    drainDelay: Settings.setting(Kind.duration("0s", "10m"), {
      doc: "From SIGTERM, when /readyz turns 503, until no new connection is taken. Where there are other servers, agents have as long again to go there, at most half of `shutdownTimeout`.",
      default: "3s"
    }),
    shutdownTimeout: Settings.setting(Kind.duration("0s", "10m"), {
      doc: "How long work under way may take to end after that.",
      default: "10s"
    })
  }),
  tcp: Settings.group("The port on which hosts register.", {
    host: Settings.setting(Kind.text, { doc: "Address to listen on.", default: "0.0.0.0", flag: "tcp-host" }),
    port: Settings.optional(Kind.port, {
      doc: "Port to listen on without TLS; 0 is any free one.",
      words: "8080; where tls.certificate is set, none",
      flag: "tcp-port"
    }),
    proxyFrom: Settings.list(
      "Load balancers: each connection from there, to this port or to that of tls, begins with a PROXY header (version 1 or 2), which says whose it is. A header from elsewhere is refused.",
      {
        network: Settings.required(Kind.network, { doc: "An address or a network, such as 10.0.0.5 or 10.0.0.0/29." })
      },
      { shorthand: "network" }
    ),
    connectionsMax: Settings.setting(Kind.integer(1, 1_000_000), {
      doc: "Open connections; one more is answered with an error and closed.",
      default: "12000"
    }),
    frameTimeout: Settings.setting(Kind.duration("100ms", "1h"), {
      doc: "A connection that sends no complete frame for this long is closed.",
      default: "30s"
    }),
    frameBytesMax: Settings.setting(Kind.bytes(65_536, 65_536), {
      doc: "Largest frame; protocol 1.0 fixes it.",
      default: "64KiB"
    }),
    pipelineMax: Settings.setting(Kind.integer(1, 10_000), {
      doc: "Registrations of one connection that are under way at once; more wait unread.",
      default: "64"
    }),
    sessionHostsMax: Settings.setting(Kind.integer(1, 10_000), {
      doc: "Hosts that one session of protocol 2 may hold.",
      default: "100"
    }),
    protocol1: Settings.optional(Kind.choice(["on", "off"]), {
      doc: "Whether hosts may register by protocol 1, which shows its token in clear text and proves no key.",
      words: "on; where tls.certificate is set, off"
    })
  }),
  tls: Settings.group("TLS for hosts, on a port of its own; on where a certificate is given. TLS 1.3 only.", {
    host: Settings.setting(Kind.text, { doc: "Address to listen on.", default: "0.0.0.0", flag: "tls-host" }),
    port: Settings.setting(Kind.port, {
      doc: "Port to listen on; 0 is any free one.",
      default: "8443",
      flag: "tls-port"
    }),
    certificate: Settings.optional(Kind.text, {
      doc: "File with the server's certificate and those between it and its authority, in PEM.",
      words: "no TLS"
    }),
    key: Settings.optional(Kind.text, {
      doc: "File with its key, in PEM, without a passphrase.",
      words: "none; certificate needs one"
    }),
    clientCertificates: Settings.setting(Kind.choice(clientCertificateModes), {
      doc: "Whether clients are asked for a certificate, and refused without one.",
      default: "off"
    }),
    clientCa: Settings.optional(Kind.text, {
      doc: "File with the authorities that sign clients' certificates, in PEM; no others are trusted.",
      words: "none; clientCertificates needs one"
    }),
    clientCrl: Settings.optional(Kind.text, {
      doc: "File with their revocation lists, one for each authority, in PEM.",
      words: "no list: certificates hold until they run out"
    }),
    clientName: Settings.setting(Kind.choice(nameSources), {
      doc: "What of a client's certificate names its holder: the subject's common name, the first DNS name or the first URI.",
      default: "cn"
    }),
    reloadInterval: Settings.setting(Kind.duration("100ms", "1d"), {
      doc: "How often these files are looked at, and read anew when they have changed; SIGHUP does so at once.",
      default: "10s"
    })
  }),
  http: Settings.group("API, health and metrics.", {
    host: Settings.setting(Kind.text, { doc: "Address to listen on.", default: "127.0.0.1", flag: "http-host" }),
    port: Settings.setting(Kind.port, {
      doc: "Port to listen on; 0 is any free one.",
      default: "8081",
      flag: "http-port"
    }),
    connectionsMax: Settings.setting(Kind.integer(10, 1_000_000), {
      doc: "Open connections; one more is closed at once.",
      default: `${Connections.defaultLimits.connectionsMax}`
    }),
    headersTimeout: Settings.setting(Kind.duration("1s", "10m"), {
      doc: "A connection that does not send the head of a request for this long is closed.",
      default: Duration.format(Connections.defaultLimits.headersTimeout)
    }),
    requestTimeout: Settings.setting(Kind.duration("1s", "1h"), {
      doc: "The same, with the body of the request; at least headersTimeout.",
      default: Duration.format(Connections.defaultLimits.requestTimeout)
    }),
    rateLimit: Settings.group("How often one caller may ask; beyond it requests are answered with 429.", {
      reads: rateSettings(
        RateLimits.defaultOptions.reads,
        "Of one caller: requests that change nothing.",
        "A caller's reads"
      ),
      changes: rateSettings(RateLimits.defaultOptions.changes, "Of one caller: all others.", "A caller's changes"),
      failures: rateSettings(
        RateLimits.defaultOptions.failures,
        "Of one address (a /64 of IPv6): requests without a token that is good here.",
        "An address's requests without a good token"
      ),
      callersMax: Settings.setting(Kind.integer(100, 10_000_000), {
        doc: "Callers, and addresses, that are counted at once; beyond it those unused for longest are forgotten.",
        default: `${RateLimits.defaultOptions.callersMax}`
      })
    }),
    idempotency: Settings.group("Answers kept for who sends a POST again with the same Idempotency-Key.", {
      keep: Settings.setting(Kind.duration("1m", "30d"), {
        doc: "How long an answer is kept for who sends a POST again with the same Idempotency-Key.",
        default: Duration.format(Idempotency.defaultOptions.keep)
      }),
      keysMax: Settings.setting(Kind.integer(100, 10_000_000), {
        doc: "Answers that are kept so; beyond it the oldest are forgotten.",
        default: `${Idempotency.defaultOptions.keysMax}`
      })
    }),
    hostAnswers: Settings.group("Answers about single hosts kept in memory for who asks again.", {
      max: Settings.setting(Kind.integer(100, 10_000_000), {
        doc: "Answers that are kept, about 1 KB each; beyond it the oldest make room.",
        default: `${HostAnswers.defaultOptions.max}`
      }),
      ageMax: Settings.setting(Kind.duration("0s", "10s"), {
        doc: "On PostgreSQL: how old an answer may be that another instance has changed; 0s: none is kept. What this instance changes shows at once.",
        default: Duration.format(HostAnswers.defaultOptions.ageMax)
      })
    })
  }),
  storage: Settings.group("Where the registry is kept.", {
    url: Settings.setting(Kind.storageUrl, {
      doc: "A SQLite file (relative to the working directory) or a PostgreSQL database; of several servers (`postgres://a:5432,b:5432/prism`) the one that takes writes is used.",
      default: "sqlite:./prism.db",
      secret: true
    }),
    directUrl: Settings.optional(Kind.postgresUrl, {
      doc: "The same database past a pool that lends connections, as pgbouncer does: for what needs a session that lasts, the signals between servers.",
      words: "as `url`",
      secret: true
    }),
    replica: Settings.group("Replicas of a PostgreSQL database, for reads that may be a little old.", {
      url: Settings.optional(Kind.postgresUrl, {
        doc: "One replica, or several, that answer lists, audit and history; each such answer says as of when it is.",
        words: "none: the database that is written answers everything",
        secret: true
      }),
      lagMax: Settings.setting(Kind.duration("1s", "10m"), {
        doc: "How far behind a replica may be; beyond it the database that is written answers.",
        default: "5s"
      })
    }),
    connectionsMax: Settings.setting(Kind.integer(1, 1000), {
      doc: "Connections to PostgreSQL; SQLite has one.",
      default: "8"
    })
  }),
  powerdns: Settings.group("The PowerDNS servers that publish the zones.", {
    nodes: Settings.list(
      "At least one; all serve the same zones.",
      {
        name: Settings.optional(Kind.text, {
          doc: "Names the node in logs and metrics.",
          words: "host and port of `api`, or else of `dns`"
        }),
        role: Settings.setting(Kind.choice(nodeRoles), {
          doc: "A primary may take writes; a replica copies a primary's database; a secondary fetches zones by AXFR.",
          default: "primary"
        }),
        database: Settings.optional(Kind.text, {
          doc: "Name of the database of a primary or replica: primaries with the same name share one, others have one each, and Prism keeps them alike.",
          words: "one that all share who do not say"
        }),
        api: Settings.optional(Kind.httpUrl, {
          doc: "Base address of its HTTP API; a primary needs one.",
          words: "none"
        }),
        apiKey: Settings.optional(Kind.secret, { doc: "Its `api-key`.", secret: true, words: "none" }),
        dns: Settings.required(Kind.dnsEndpoint, { doc: "Where it answers DNS; port 53 unless stated." })
      },
      { missing: "name at least one PowerDNS server (api, apiKey or apiKeyFile, dns)" }
    ),
    primary: Settings.optional(Kind.text, {
      doc: "Name of the node that takes the writes; the other primaries do while it is away.",
      words: "the first primary"
    }),
    transfer: Settings.group("How zones come to secondaries.", {
      catalog: Settings.optional(Kind.domainName, {
        doc: "Catalog zone (RFC 9432) by which secondaries learn of zones.",
        words: "none: each zone is set up at each secondary by its API"
      }),
      tsigName: Settings.optional(Kind.domainName, {
        doc: "Name of the key (TSIG) that signs transfers.",
        words: "none: by address"
      }),
      tsigAlgorithm: Settings.setting(Kind.choice(tsigAlgorithms), {
        doc: "Algorithm of that key.",
        default: "hmac-sha256"
      }),
      tsigSecret: Settings.optional(Kind.secret, { doc: "That key, in base64.", secret: true, words: "none" })
    }),
    importFrom: Settings.list(
      "Servers from which a zone may be transferred (AXFR) for an import, besides the nodes. None: only those.",
      {
        network: Settings.required(Kind.network, { doc: "An address or a network, such as 10.0.0.5 or 10.0.0.0/29." })
      }
    ),
    requestTimeout: Settings.setting(Kind.duration("100ms", "10m"), {
      doc: "How long one request to its API may take.",
      default: "10s"
    }),
    connectionsMax: Settings.setting(Kind.integer(1, 8), {
      doc: "Requests to one node at once; PowerDNS queues no more than 10 connections.",
      default: "4"
    }),
    batchMax: Settings.setting(Kind.integer(1, 5000), { doc: "Names in one PATCH.", default: "2000" }),
    batchesPerSecond: Settings.setting(Kind.integer(1, 1000), {
      doc: "PATCHes of one zone in a second while it is busy; full ones are not held back, and a zone that was quiet is written at once. Each empties PowerDNS's caches of the zone: fewer let it answer more questions, more have a change served sooner.",
      default: `${Pace.perSecondByDefault}`
    })
  }),
  zones: Settings.list(
    "The zones Prism writes; at least one that holds hosts. Zones below in-addr.arpa and ip6.arpa take the PTR records.",
    {
      name: Settings.required(Kind.domainName, { doc: "Name of the zone." }),
      ttl: Settings.setting(Kind.ttl, {
        doc: "TTL of the records in it, of hosts that wish for none.",
        default: "60s"
      }),
      ttlMin: Settings.setting(Kind.ttl, { doc: "Shortest TTL that a host's wish leads to.", default: "30s" }),
      ttlMax: Settings.setting(Kind.ttl, { doc: "Longest TTL that a host's wish leads to.", default: "1h" }),
      networks: Settings.list(
        "Networks that hosts' addresses must lie in, special ones (loopback, documentation) too. Without any: every address that is not special.",
        { network: Settings.required(Kind.network, { doc: "A network, such as 10.0.0.0/8." }) },
        { shorthand: "network" }
      ),
      labelsMax: Settings.optional(Kind.integer(1, 100), {
        doc: "Labels of a host's name below the zone at the most.",
        words: "1; by protocol 1.0 any number"
      }),
      hostsMax: Settings.setting(Kind.integer(1, 100_000_000), {
        doc: "Hosts in the zone at the most, whatever their state.",
        default: "1000000"
      }),
      whenOffline: Settings.setting(Kind.choice(["keep", "withdraw"]), {
        doc: "What becomes of the records of a host whose lease has passed.",
        default: "withdraw"
      }),
      withdrawAfter: Settings.setting(Kind.duration("0s", "3650d"), {
        doc: "How long such a host keeps its records when they are withdrawn.",
        default: "1h"
      }),
      conflict: Settings.setting(Kind.choice(Zone.conflictPolicies), {
        doc: "Who gets a name that another owner's host holds.",
        default: "take-over-if-expired"
      }),
      retireAfter: Settings.setting(Kind.duration("0s", "3650d"), {
        doc: "How long a host is offline until it is given up; its name is then held.",
        default: "30d"
      }),
      holdFor: Settings.setting(Kind.duration("0s", "3650d"), {
        doc: "How long the name of a host that was given up is held until anyone may have it.",
        default: "7d"
      }),
      deletePercent: Settings.setting(Kind.integer(0, 100), {
        doc: "Percent of the zone's names that may lose their records by inference in one window; more waits for a person.",
        default: "10"
      }),
      deleteMin: Settings.setting(Kind.integer(0, 1_000_000), {
        doc: "Names that may do so however small the zone.",
        default: "10"
      }),
      deleteWindow: Settings.setting(Kind.duration("1s", "30d"), {
        doc: "The window for both.",
        default: "1h"
      }),
      quarantine: Settings.setting(Kind.duration("0s", "3650d"), {
        doc: "How long records deleted by inference stay in PowerDNS, disabled, before they are removed.",
        default: "1h"
      }),
      dnssec: Settings.setting(Kind.boolean, { doc: "Whether PowerDNS signs the zone.", default: "false" }),
      reconcileInterval: Settings.setting(Kind.duration("1s", "30d"), {
        doc: "How often the whole zone is compared with what PowerDNS holds.",
        default: "15m"
      }),
      repair: Settings.setting(Kind.boolean, {
        doc: "Whether what such a comparison finds is repaired, or only reported.",
        default: "true"
      }),
      create: Settings.setting(Kind.boolean, {
        doc: "Make the zone in PowerDNS when it is not there.",
        default: "true"
      }),
      nameservers: Settings.list(
        "NS records of a zone that is made; without any, ns1 in the zone itself.",
        { name: Settings.required(Kind.domainName, { doc: "Name of the name server." }) },
        { shorthand: "name" }
      )
    },
    {
      shorthand: "name",
      flag: "zone",
      missing: "name at least one zone for hosts, for example hosts.example.net"
    }
  ),
  leases: Settings.group("How long a registration holds. Version 1 hosts: two beats and the grace.", {
    beatInterval: Settings.setting(Kind.duration("1s", "1d"), {
      doc: "How often version 1 clients beat.",
      default: "60s"
    }),
    grace: Settings.setting(Kind.duration("0s", "1d"), { doc: "What is waited beyond two beats.", default: "30s" }),
    ackTimeout: Settings.setting(Kind.duration("0s", "1m"), {
      doc: "How long a version 1 answer waits for PowerDNS.",
      default: "2s"
    }),
    flushInterval: Settings.setting(Kind.duration("100ms", "10m"), {
      doc: "How often the times of beats are written down.",
      default: "10s"
    }),
    sweepInterval: Settings.setting(Kind.duration("100ms", "10m"), {
      doc: "How often leases that have passed are looked for.",
      default: "5s"
    }),
    massExpiryPercent: Settings.setting(Kind.integer(0, 100), {
      doc: "When more than this percent of all hosts vanish within one lease, none expires without a person's word; 100 switches it off.",
      default: "15"
    }),
    massExpiryMin: Settings.setting(Kind.integer(1, 1_000_000), {
      doc: "Fewer hosts than this may always expire.",
      default: "10"
    })
  }),
  auth: Settings.group("Who may register and who may administer.", {
    mode: Settings.setting(Kind.choice(tokenModes), {
      doc: "Whether a version 1 registration needs a token; optional lets hosts without one into one zone at a limited rate.",
      default: "required",
      flag: "auth-mode"
    }),
    agentTokens: Settings.list(
      "Tokens with which hosts register and enrol. What they may claim goes for each identity that is enrolled with them.",
      {
        ...namedToken,
        zones: Settings.list(
          "Zones in which names may be claimed; without any, every zone.",
          { zone: Settings.required(Kind.domainName, { doc: "Name of a zone for hosts." }) },
          { shorthand: "zone" }
        ),
        names: Settings.list(
          "Patterns of the names that may be claimed, below their zone; without any, every name.",
          { name: Settings.required(Kind.namePattern, { doc: "A pattern, such as web-* or *.rack-7." }) },
          { shorthand: "name" }
        ),
        networks: Settings.list(
          "Networks whose addresses may be claimed, beside the address a host speaks from.",
          { network: Settings.required(Kind.network, { doc: "A network, such as 10.1.0.0/16." }) },
          { shorthand: "network" }
        ),
        namesMax: Settings.optional(Kind.integer(1, 100_000_000), {
          doc: "Names held at once at the most.",
          words: "auth.limits.namesPerToken, and namesPerIdentity for an identity"
        })
      }
    ),
    adminTokens: Settings.list("Tokens for the API.", {
      ...namedToken,
      roles: Settings.list(
        "What its holder may do; without any, admin: everything.",
        { role: Settings.required(Kind.text, { doc: "Name of a role: a built-in one, or one made by the API." }) },
        { shorthand: "role" }
      ),
      zones: Settings.list(
        "Zones beyond which it may nothing; without any, no such bound.",
        { zone: Settings.required(Kind.domainName, { doc: "Name of a zone." }) },
        { shorthand: "zone" }
      ),
      names: Settings.list(
        "Patterns of names, below their zone, beyond which it may nothing; without any, no such bound.",
        { name: Settings.required(Kind.namePattern, { doc: "A pattern, such as web-* or *.rack-7." }) },
        { shorthand: "name" }
      )
    }),
    bootstrapTokenFile: Settings.optional(Kind.text, {
      doc: "File, made anew and readable for its owner alone, for the administrator's token that a first start makes where adminTokens is empty.",
      words: "none: it is printed once, on stderr"
    }),
    oidc: Settings.group("An identity provider (OpenID Connect) whose tokens let people in at the API.", {
      issuer: Settings.optional(Kind.text, {
        doc: "Its issuer, to the letter as its tokens say it: an https address.",
        words: "none: nobody comes by one"
      }),
      audience: Settings.optional(Kind.text, {
        doc: "The audience that its tokens for Prism have.",
        words: "none; issuer needs one"
      }),
      nameClaim: Settings.setting(Kind.text, {
        doc: "The claim that names somebody in the audit, behind oidc: there.",
        default: "sub"
      }),
      rolesClaim: Settings.setting(Kind.text, {
        doc: "The claim that lists roles or groups; with dots, of an object within, such as realm_access.roles.",
        default: "groups"
      }),
      roles: Settings.list("Which role somebody has here by which value of that claim; who has none is refused.", {
        value: Settings.required(Kind.text, { doc: "A value of the claim." }),
        role: Settings.required(Kind.text, { doc: "Name of a role: a built-in one, or one made by the API." }),
        zones: Settings.list(
          "Zones beyond which it may nothing by this role; without any, no such bound.",
          { zone: Settings.required(Kind.domainName, { doc: "Name of a zone." }) },
          { shorthand: "zone" }
        ),
        names: Settings.list(
          "Patterns of names, below their zone, beyond which it may nothing by this role; without any, no such bound.",
          { name: Settings.required(Kind.namePattern, { doc: "A pattern, such as web-* or *.rack-7." }) },
          { shorthand: "name" }
        )
      }),
      jwksUri: Settings.optional(Kind.text, {
        doc: "Where its keys are: an https address.",
        words: "as its discovery document says"
      }),
      clockTolerance: Settings.setting(Kind.duration("0s", "5m"), {
        doc: "By how much its clock may differ.",
        default: "30s"
      })
    }),
    certificates: Settings.group("What hosts may claim by their client certificates (tls.clientCertificates).", {
      zones: Settings.list(
        "Zones in which names may be claimed; without any, every zone. A certificate whose name lies in a zone claims in that one only.",
        { zone: Settings.required(Kind.domainName, { doc: "Name of a zone for hosts." }) },
        { shorthand: "zone" }
      ),
      names: Settings.list(
        "Patterns of the names that may be claimed, below their zone; without any, the certificate's own: {name}.",
        { name: Settings.required(Kind.ownNamePattern, { doc: "A pattern, such as {name} or {name}-*." }) },
        { shorthand: "name" }
      ),
      networks: Settings.list(
        "Networks whose addresses may be claimed, beside the address a host speaks from.",
        { network: Settings.required(Kind.network, { doc: "A network, such as 10.1.0.0/16." }) },
        { shorthand: "network" }
      ),
      namesMax: Settings.optional(Kind.integer(1, 100_000_000), {
        doc: "Names held at once at the most by one certificate's name.",
        words: "auth.limits.namesPerIdentity"
      })
    }),
    anonymous: Settings.group("Hosts without a token, where mode is optional.", {
      zone: Settings.optional(Kind.domainName, {
        doc: "The one zone they may register in.",
        words: "the first forward zone"
      }),
      ratePerSecond: Settings.setting(Kind.integer(1, 1_000_000), {
        doc: "Registrations per second over all of them.",
        default: "100"
      }),
      burst: Settings.setting(Kind.integer(1, 1_000_000), { doc: "Registrations at once.", default: "200" })
    }),
    reservedNames: Settings.list(
      "Labels that no host's name begins with; a list here takes the place of the default one.",
      { name: Settings.required(Kind.namePattern, { doc: "A label; * is any characters, # a number." }) },
      { shorthand: "name" }
    ),
    limits: Settings.group("How much is taken from whom. Beats that change nothing do not count.", {
      identity: rateSettings(defaultLimits.identity, "Changes of one key or client certificate."),
      token: rateSettings(defaultLimits.token, "Changes with one token, by all hosts that share it."),
      name: rateSettings(defaultLimits.name, "Changes of one name by one principal."),
      network: rateSettings(defaultLimits.network, "Changes from one network: a /24 of IPv4, a /64 of IPv6."),
      namesPerIdentity: Settings.setting(Kind.integer(1, 100_000_000), {
        doc: "Names of one key or client certificate at the most.",
        default: `${defaultLimits.namesPerIdentity}`
      }),
      namesPerToken: Settings.setting(Kind.integer(1, 100_000_000), {
        doc: "Names of one token, and of all hosts without one, at the most.",
        default: `${defaultLimits.namesPerToken}`
      }),
      bucketsMax: Settings.setting(Kind.integer(1000, 10_000_000), {
        doc: "Rates kept in memory for principals, for names and for networks; beyond it those unused for longest are forgotten.",
        default: `${defaultLimits.bucketsMax}`
      })
    })
  }),
  events: Settings.group("Who follows what changes: clients of /v1/events, and webhooks.", {
    subscribersMax: Settings.setting(Kind.integer(1, 100_000), {
      doc: "Clients that follow /v1/events at once.",
      default: "1000"
    }),
    recentMax: Settings.setting(Kind.integer(100, 1_000_000), {
      doc: "Newest events in memory while somebody follows; who is further behind is served from the database.",
      default: "10000"
    }),
    heartbeat: Settings.setting(Kind.duration("100ms", "5m"), {
      doc: "How long a stream is silent at the most.",
      default: "15s"
    }),
    stalledAfter: Settings.setting(Kind.duration("1s", "1h"), {
      doc: "A client that has taken nothing of what waits for it for so long is cut; it may come back and go on where it was.",
      default: "60s"
    }),
    webhooks: Settings.group("How events are delivered to webhooks.", {
      networks: Settings.list(
        "Networks that webhooks may be sent to though they are private, loopback or otherwise special. Without any, only to public addresses.",
        { network: Settings.required(Kind.network, { doc: "A network, such as 10.0.0.0/8." }) },
        { shorthand: "network" }
      ),
      timeout: Settings.setting(Kind.duration("100ms", "5m"), {
        doc: "How long one delivery may take.",
        default: "15s"
      }),
      attemptsMax: Settings.setting(Kind.integer(1, 100), {
        doc: "Deliveries of one event until it is given up and kept as a dead letter.",
        default: "15"
      }),
      retryMin: Settings.setting(Kind.duration("10ms", "1h"), {
        doc: "From the first failure to the next attempt, give or take a quarter; it doubles each time.",
        default: "1s"
      }),
      retryMax: Settings.setting(Kind.duration("10ms", "1d"), {
        doc: "The longest time between two attempts.",
        default: "10m"
      }),
      deadLettersInRow: Settings.setting(Kind.integer(1, 1000), {
        doc: "Events given up one after another until the webhook is paused.",
        default: "10"
      })
    })
  }),
  history: Settings.group("What hosts were.", {
    retention: Settings.setting(Kind.duration("0s", "36500d"), {
      doc: "How long it is kept what hosts were, counted from when it was no longer so; 0s: for ever.",
      default: "0s"
    })
  }),
  audit: Settings.group("The audit log.", {
    retention: Settings.setting(Kind.duration("0s", "36500d"), {
      doc: "How long entries are kept; 0s: for ever. What goes leaves the rest verifiable.",
      default: "400d"
    }),
    export: Settings.list("Where entries are sent as they are sealed, besides webhooks.", {
      file: Settings.optional(Kind.text, {
        doc: "A file that lines of JSON are appended to, and may be moved away at any time.",
        words: "none; syslog is given"
      }),
      syslog: Settings.optional(Kind.syslogUrl, {
        doc: "A syslog server (RFC 5424), such as tls://siem.example.net:6514, tcp://… or udp://….",
        words: "none; file is given"
      }),
      facility: Settings.setting(Kind.choice(facilities), { doc: "Of syslog messages.", default: "audit" }),
      ca: Settings.optional(Kind.text, {
        doc: "File with the authorities, in PEM, that sign the syslog server's certificate.",
        words: "those that Node.js knows"
      })
    })
  }),
  telemetry: Settings.group("Traces and metrics that are sent.", {}),
  cluster: Settings.group("Several instances on one database, and several groups of them.", {
    lease: Settings.setting(Kind.duration("1s", "60s"), {
      doc: "An instance that has not proved for so long that it lives is declared dead, and others take what it did.",
      default: "3s"
    }),
    renewInterval: Settings.setting(Kind.duration("50ms", "15s"), {
      doc: "How often an instance proves that it lives and looks at the others; at most a quarter of the lease.",
      default: "500ms"
    }),
    groups: Settings.list("Groups of servers with registries of their own, each for zones that no other serves.", {
      name: Settings.required(Kind.text, { doc: "For people, and in metrics." }),
      zones: Settings.list(
        "The zones that it serves, for hosts. One that this server manages itself counts as its own, so all groups may have the same list.",
        { zone: Settings.required(Kind.domainName, { doc: "A zone, such as eu.hosts.example.net." }) },
        { shorthand: "zone", missing: "name the zones that the group serves" }
      ),
      servers: Settings.list(
        "Where its agents connect: agents that come here with a name of its zones are sent there.",
        {
          server: Settings.required(Kind.agentServer, {
            doc: "HOST:PORT, or tls://HOST:PORT, such as tls://agents.eu.example.net:8443."
          })
        },
        { shorthand: "server", missing: "name where the agents of the group connect" }
      )
    })
  }),
  redis: Settings.group("What instances share by Redis. None is needed; see the guide on Redis.", {
    url: Settings.optional(Kind.redisUrl, {
      doc: "A Redis server, such as `redis://:secret@cache.example.net:6379/0`; `rediss://` is with TLS.",
      words: "no Redis: each instance counts for itself",
      secret: true
    }),
    ca: Settings.optional(Kind.text, {
      doc: "File in PEM with the authorities of its certificate.",
      words: "those that Node knows"
    }),
    prefix: Settings.setting(Kind.text, {
      doc: "Begins each of its keys; the same for all instances of a cluster, and another for each cluster.",
      default: "prism-dns:"
    })
  })
})

type Values = Settings.ValueOf<typeof settings>

/** How often a lease is renewed before it would end, at the least. */
const renewalsMin = 4

const severities = {
  trace: "Trace",
  debug: "Debug",
  info: "Info",
  warn: "Warn",
  error: "Error",
  fatal: "Fatal"
} as const

/** Bytes in base64 (RFC 4648, 4), padded. */
const base64 = /^(?:[A-Za-z0-9+/]{4})+(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?$/

const duplicates = (names: ReadonlyArray<string>): ReadonlySet<string> =>
  new Set(names.filter((name, i) => names.indexOf(name) !== i))

const assembleGroups = (groups: Values["cluster"]["groups"], problems: Array<string>): ReadonlyArray<Groups.Group> => {
  for (const name of duplicates(groups.map(({ name }) => name))) {
    problems.push(`cluster.groups: two groups are called ${name}`)
  }
  for (const zone of duplicates(groups.flatMap(({ zones }) => zones.map(({ zone }) => zone)))) {
    problems.push(`cluster.groups: ${zone} is there twice; a zone belongs to one group`)
  }
  for (const { name, servers } of groups) {
    if (servers.length > redirectServersMax) {
      problems.push(`cluster.groups: ${name} has more than ${redirectServersMax} servers; name a load balancer`)
    }
  }
  return groups.map(({ name, servers, zones }) => ({
    name,
    zones: zones.map(({ zone }) => zone),
    servers: servers.map(({ server }) => server)
  }))
}

/** Turns checked values into the configuration, and checks what spans several of them. */
const assemble = (values: Values): Result.Result<PrismConfig, ReadonlyArray<string>> => {
  const problems: Array<string> = []
  const { auth, leases, powerdns, server } = values

  const nodes = powerdns.nodes.map((node): PowerDnsNode => {
    const { api, apiKey, database, dns, role } = node
    const name = node.name ?? (api === undefined ? `${dns.host}:${dns.port}` : new URL(api).host)
    if (api !== undefined && apiKey === undefined) problems.push(`powerdns.nodes: ${name} has an api, but no apiKey`)
    if (api === undefined && apiKey !== undefined) problems.push(`powerdns.nodes: ${name} has an apiKey, but no api`)
    if (api === undefined && role === "primary") {
      problems.push(`powerdns.nodes: ${name} is a primary and needs api and apiKey (or apiKeyFile)`)
    }
    if (database !== undefined && role === "secondary") {
      problems.push(`powerdns.nodes: ${name} is a secondary, whose database is its own: leave database out`)
    }
    return {
      name,
      role,
      database,
      dns,
      api: api === undefined || apiKey === undefined ? undefined : { url: api, key: apiKey }
    }
  })
  for (const name of duplicates(nodes.map((node) => node.name))) {
    problems.push(`powerdns.nodes: two nodes are called ${name}`)
  }
  const primaries = nodes.filter((node): node is Primary => node.role === "primary" && node.api !== undefined)
  const preferred =
    powerdns.primary === undefined ? primaries[0] : primaries.find((node) => node.name === powerdns.primary)
  if (preferred === undefined && problems.length === 0) {
    problems.push(
      powerdns.primary === undefined
        ? "powerdns.nodes: none is a primary; one has to take the writes"
        : `powerdns.primary: no primary is called ${powerdns.primary}; there are ${primaries.map((node) => node.name).join(", ")}`
    )
  }
  const { catalog, tsigAlgorithm, tsigName, tsigSecret } = powerdns.transfer
  if ((tsigName === undefined) !== (tsigSecret === undefined)) {
    problems.push("powerdns.transfer: tsigName and tsigSecret (or tsigSecretFile) belong together")
  }
  if (tsigSecret !== undefined && !base64.test(Redacted.value(tsigSecret))) {
    problems.push("powerdns.transfer.tsigSecret: is not base64, as tsig-keygen and pdnsutil generate-tsig-key print it")
  }
  const tsig: TsigKey | undefined =
    tsigName === undefined || tsigSecret === undefined
      ? undefined
      : { name: tsigName, algorithm: tsigAlgorithm, secret: tsigSecret }

  if (new Set(primaries.map(({ database }) => database)).size > 1) {
    for (const { dnssec, name } of values.zones) {
      if (dnssec) {
        problems.push(
          `zones: ${name} has dnssec, and the primaries have several databases, each of which would make keys of its own: give them one`
        )
      }
    }
  }

  const zones = values.zones.map((zone) =>
    Zone.make(zone.name, {
      policy: {
        ttlSeconds: Duration.toSeconds(zone.ttl),
        ttlSecondsMin: Duration.toSeconds(zone.ttlMin),
        ttlSecondsMax: Duration.toSeconds(zone.ttlMax),
        networks: zone.networks.length === 0 ? undefined : zone.networks.map(({ network }) => network),
        labelsMax: zone.labelsMax,
        hostsMax: zone.hostsMax,
        whenOffline: zone.whenOffline === "keep" ? { _tag: "Keep" } : { _tag: "Withdraw", after: zone.withdrawAfter },
        conflict: zone.conflict,
        retireAfter: zone.retireAfter,
        holdFor: zone.holdFor,
        deleteBudget: { share: zone.deletePercent / 100, min: zone.deleteMin, window: zone.deleteWindow },
        quarantine: zone.quarantine
      },
      dnssec: zone.dnssec,
      reconciliation: { interval: zone.reconcileInterval, repair: zone.repair },
      createIfMissing: zone.create,
      ...(zone.nameservers.length > 0 && { nameservers: zone.nameservers.map((server) => server.name) })
    })
  )
  for (const name of duplicates(zones.map((zone) => zone.name))) problems.push(`zones: ${name} stands twice`)
  if (zones.some((zone) => zone.name === catalog)) {
    problems.push(`powerdns.transfer.catalog: ${catalog} is one of the zones; a catalog is a zone of its own`)
  }
  for (const zone of zones) {
    if (!Zone.isReverse(zone) && /(?:^|\.)(?:in-addr|ip6)\.arpa\.$/.test(zone.name)) {
      problems.push(
        `zones: ${zone.name} names no network, for example 2.0.192.in-addr.arpa or 8.b.d.0.1.0.0.2.ip6.arpa`
      )
    }
  }
  const forward = zones.filter((zone) => !Zone.isReverse(zone)).map((zone) => zone.name)
  if (forward.length === 0) {
    problems.push("zones: name at least one zone for hosts, for example hosts.example.net")
  }
  if (auth.anonymous.zone !== undefined && !forward.includes(auth.anonymous.zone)) {
    problems.push(
      `auth.anonymous.zone: ${auth.anonymous.zone} is not one of the zones for hosts: ${forward.join(", ")}`
    )
  }
  for (const zone of zones) {
    if (zone.policy.ttlSecondsMin > zone.policy.ttlSecondsMax) {
      problems.push(`zones: ${zone.name} has a ttlMin above its ttlMax`)
    }
  }
  for (const { name } of auth.reservedNames) {
    if (name.includes("."))
      problems.push(`auth.reservedNames: ${name} has a dot; a name is reserved by its first label`)
  }
  const agentTokens = auth.agentTokens.map(
    ({ name, names, namesMax, networks, token, zones: allowed }): AgentToken => ({
      name,
      token,
      grant: {
        zones: allowed.length === 0 ? undefined : allowed.map(({ zone }) => zone),
        names: names.length === 0 ? undefined : names.map((each) => each.name),
        networks: networks.map(({ network }) => network),
        namesMax
      }
    })
  )
  const adminTokens = auth.adminTokens.map(({ name, names, roles, token, zones: bounds }): ApiToken => {
    const wrong = roles.find(({ role }) => !isRoleName(role))
    if (wrong !== undefined)
      problems.push(`auth.adminTokens: ${name} has the role ${wrong.role}, which is no name of a role`)
    if (roles.some(({ role }) => role === "agent")) {
      problems.push(`auth.adminTokens: ${name} has the role agent; a token for hosts is one of auth.agentTokens`)
    }
    return {
      name,
      token,
      roles: roles.length === 0 ? ["admin"] : roles.map(({ role }) => role),
      grant: {
        zones: bounds.length === 0 ? undefined : bounds.map(({ zone }) => zone),
        names: names.length === 0 ? undefined : names.map((each) => each.name),
        networks: [],
        namesMax: undefined
      }
    }
  })
  const certificates: CertificateGrant = {
    ...Certificates.ownNameOnly,
    zones: auth.certificates.zones.length === 0 ? undefined : auth.certificates.zones.map(({ zone }) => zone),
    ...(auth.certificates.names.length > 0 && { names: auth.certificates.names.map(({ name }) => name) }),
    networks: auth.certificates.networks.map(({ network }) => network),
    namesMax: auth.certificates.namesMax
  }
  for (const zone of certificates.zones ?? []) {
    if (!forward.includes(zone)) {
      problems.push(`auth.certificates: ${zone} is not one of the zones for hosts: ${forward.join(", ")}`)
    }
  }
  for (const { grant, name } of agentTokens) {
    for (const zone of grant.zones ?? []) {
      if (!forward.includes(zone)) {
        problems.push(
          `auth.agentTokens: ${name} has the zone ${zone}, which is not one of those for hosts: ${forward.join(", ")}`
        )
      }
    }
  }
  const agents = new Set(auth.agentTokens.map(({ name }) => name))
  for (const name of new Set(auth.adminTokens.map(({ name }) => name))) {
    if (agents.has(name)) problems.push(`auth: a token for hosts and one for the API are called ${name}`)
  }
  for (const [key, tokens] of [
    ["agentTokens", agentTokens],
    ["adminTokens", auth.adminTokens]
  ] as const) {
    for (const name of duplicates(tokens.map((token) => token.name))) {
      problems.push(`auth.${key}: two tokens are called ${name}`)
    }
    const holders = new Map<string, string>()
    for (const { name, token } of tokens) {
      const reserved = reservedFor(name)
      if (reserved !== undefined) problems.push(`auth.${key}: no token may be called ${name}, which is ${reserved}`)
      const other = holders.get(Redacted.value(token))
      if (other !== undefined && other !== name) problems.push(`auth.${key}: ${other} and ${name} have the same token`)
      holders.set(Redacted.value(token), name)
    }
  }

  const tls = assembleTls(values.tls, problems)
  const oidc = assembleOidc(auth.oidc, problems)

  const redis = assembleRedis(values.redis, problems)
  const targets = assembleTargets(values.audit.export, problems)
  const groups = assembleGroups(values.cluster.groups, problems)
  if (Duration.toMillis(values.cluster.renewInterval) > Duration.toMillis(values.cluster.lease) / renewalsMin) {
    problems.push(
      `cluster.renewInterval: a lease that is renewed less than ${renewalsMin} times is lost with one failure; at most ${Duration.format(Duration.millis(Duration.toMillis(values.cluster.lease) / renewalsMin))} with cluster.lease ${Duration.format(values.cluster.lease)}`
    )
  }

  if (
    values.storage.url._tag === "Postgres" &&
    Duration.toMillis(values.leases.flushInterval) > Expiry.sharedFlushMillisMax
  ) {
    problems.push(
      `leases.flushInterval: servers that share a PostgreSQL database allow for beats that others have not written for ${Expiry.sharedFlushMillisMax / 1000} s; at most that`
    )
  }

  if (problems.length > 0 || preferred === undefined) return Result.fail(problems)
  return Result.succeed({
    server: { ...server, instance: server.instance ?? hostName, logLevel: severities[server.logLevel] },
    tcp: {
      ...values.tcp,
      port: values.tcp.port ?? (tls === undefined ? 8080 : undefined),
      protocol1: (values.tcp.protocol1 ?? (tls === undefined ? "on" : "off")) === "on",
      proxyFrom: values.tcp.proxyFrom.map(({ network }) => network)
    },
    tls,
    http: values.http,
    storage: values.storage,
    powerdns: {
      requestTimeout: powerdns.requestTimeout,
      connectionsMax: powerdns.connectionsMax,
      batchMax: powerdns.batchMax,
      batchesPerSecond: powerdns.batchesPerSecond,
      importFrom: powerdns.importFrom.map(({ network }) => network),
      nodes: [preferred, ...nodes.filter((node) => node !== preferred)],
      primaries: [preferred, ...primaries.filter((node) => node !== preferred)],
      transfer: { tsig, catalog }
    },
    zones,
    cluster: { ...values.cluster, groups },
    redis,
    leases: { ...leases, duration: Duration.sum(Duration.times(leases.beatInterval, 2), leases.grace) },
    auth: {
      ...auth,
      agentTokens,
      adminTokens,
      oidc,
      certificates,
      reservedNames: auth.reservedNames.length === 0 ? Policy.reservedNames : auth.reservedNames.map(({ name }) => name)
    },
    history: values.history,
    audit: { retention: values.audit.retention, export: targets },
    events: {
      ...values.events,
      webhooks: {
        ...values.events.webhooks,
        networks: values.events.webhooks.networks.map(({ network }) => network)
      }
    }
  })
}

/** Adds what is wrong to `problems`. */
const assembleTargets = (targets: Values["audit"]["export"], problems: Array<string>): ReadonlyArray<TargetConfig> => {
  const found = targets.flatMap(({ ca, facility, file, syslog }): ReadonlyArray<TargetConfig> => {
    if ((file === undefined) === (syslog === undefined)) {
      problems.push("audit.export: a target is either a file or a syslog server")
      return []
    }
    if (file !== undefined) return [{ _tag: "File", path: file }]
    return [{ _tag: "Syslog", server: syslog!, facility, ca }]
  })
  for (const name of duplicates(found.map(nameOf))) problems.push(`audit.export: ${name} stands twice`)
  return found
}

/** Undefined where there is no Redis. Adds what is wrong to `problems`. */
const assembleRedis = ({ ca, prefix, url }: Values["redis"], problems: Array<string>): PrismConfig["redis"] => {
  if (ca !== undefined && url?.tls !== true) {
    problems.push("redis.ca: has no effect, since redis.url does not begin with rediss://")
  }
  return url === undefined ? undefined : { url, ca, prefix }
}

/** Undefined where there is no identity provider. Adds what is wrong to `problems`. */
const assembleOidc = (oidc: Values["auth"]["oidc"], problems: Array<string>): OidcConfig | undefined => {
  const { audience, issuer, jwksUri, roles } = oidc
  if (issuer === undefined) {
    if (audience !== undefined || jwksUri !== undefined || roles.length > 0) {
      problems.push("auth.oidc.issuer: is missing; without it nothing of auth.oidc has an effect")
    }
    return undefined
  }
  for (const [key, url] of Object.entries({ issuer, jwksUri })) {
    if (url !== undefined && !isSafeUrl(url)) {
      problems.push(`auth.oidc.${key}: must be an https address, not ${url}; http is for this machine alone`)
    }
  }
  if (audience === undefined) {
    problems.push("auth.oidc.audience: is missing; else a token that was made out to anybody would do")
  }
  if (roles.length === 0) problems.push("auth.oidc.roles: is empty, so that everybody would be refused")
  for (const { role } of roles) {
    if (!isRoleName(role)) problems.push(`auth.oidc.roles: ${role} is no name of a role`)
  }
  return audience === undefined
    ? undefined
    : {
        ...oidc,
        issuer,
        audience,
        roles: roles.map(({ names, role, value, zones }) => ({
          value,
          role,
          zones: zones.length === 0 ? undefined : zones.map(({ zone }) => zone),
          names: names.length === 0 ? undefined : names.map(({ name }) => name)
        }))
      }
}

/** Undefined where TLS is off. Adds what is wrong to `problems`. */
const assembleTls = (tls: Values["tls"], problems: Array<string>): TlsConfig | undefined => {
  const { certificate, clientCa, clientCertificates, clientCrl, key } = tls
  if (certificate === undefined) {
    const given = Object.entries({ key, clientCa, clientCrl }).find(([, value]) => value !== undefined)?.[0]
    if (given !== undefined || clientCertificates !== "off") {
      problems.push(`tls.certificate: is missing; without it tls.${given ?? "clientCertificates"} has no effect`)
    }
    return undefined
  }
  if (key === undefined) problems.push("tls.key: is missing; name the file with the key of tls.certificate")
  if (clientCertificates !== "off" && clientCa === undefined) {
    problems.push("tls.clientCa: is missing; name the file with the authorities that sign clients' certificates")
  }
  if (clientCertificates === "off" && (clientCa !== undefined || clientCrl !== undefined)) {
    problems.push(
      "tls.clientCertificates: is off, so that clientCa and clientCrl have no effect; optional or required?"
    )
  }
  return key === undefined ? undefined : { ...tls, certificate, key }
}

export interface Loaded {
  readonly config: PrismConfig
  /** Each setting with its origin, secrets left out. */
  readonly printed: ReadonlyArray<Settings.Printed>
}

export interface LoadOptions {
  /** Path of the configuration file. */
  readonly file?: string | undefined
  /** Settings a command makes by itself, in place of a file. */
  readonly values?: unknown
  /** Default: none. */
  readonly environment?: Readonly<Record<string, string | undefined>> | undefined
  /** By the names of the flags, without dashes. */
  readonly flags?: Readonly<Record<string, string | ReadonlyArray<string> | undefined>> | undefined
}

const readFile = (path: string): Result.Result<string, string> => {
  try {
    return Result.succeed(Fs.readFileSync(path, "utf8"))
  } catch (error) {
    const code = error instanceof Error && "code" in error ? String(error.code) : ""
    const words: Readonly<Record<string, string>> = {
      ENOENT: "there is no such file",
      EACCES: "no permission to read it",
      EISDIR: "it is a folder"
    }
    return Result.fail(words[code] ?? String(error))
  }
}

/** Reads everything there is to read, once. Fails with all that is wrong, each with its place. */
export const loadResult = (options: LoadOptions): Result.Result<Loaded, ConfigInvalid> => {
  const invalid = (problems: ReadonlyArray<string>) => Result.fail(new ConfigInvalid({ problems }))
  let base: Source.Raw | undefined
  if (options.values !== undefined) base = Source.fromUnknown(options.values, { _tag: "Program" })
  if (options.file !== undefined) {
    const content = readFile(options.file)
    if (Result.isFailure(content)) return invalid([`cannot read ${options.file}: ${content.failure}`])
    const parsed = Source.fromFile(options.file, content.success)
    if (Result.isFailure(parsed)) return invalid(parsed.failure.map(Source.showProblem))
    base = parsed.success
  }
  const read = Settings.read(settings, {
    base,
    environment: options.environment ?? {},
    flags: options.flags ?? {},
    readFile
  })
  if (Result.isFailure(read)) return invalid(read.failure.map(Source.showProblem))
  const config = assemble(read.success.values)
  if (Result.isFailure(config)) {
    const place = options.file === undefined ? "" : `${options.file}: `
    return invalid(config.failure.map((problem) => `${place}${problem}`))
  }
  return Result.succeed({ config: config.success, printed: read.success.printed })
}

/** `loadResult` as an effect. */
export const load = (options: LoadOptions): Effect.Effect<Loaded, ConfigInvalid> =>
  Effect.suspend(() => Effect.fromResult(loadResult(options)))

/** A configuration from plain values written as in the file; for programs that embed the server, and tests. */
export const make = (values: unknown): PrismConfig => Result.getOrThrow(loadResult({ values })).config
