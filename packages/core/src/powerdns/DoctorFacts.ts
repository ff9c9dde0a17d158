/**
 * What `prism-dns doctor` has seen, as plain values: of each node by its API
 * and by DNS, and of the registry's database.
 *
 * No value here is a secret: of a node's settings only those in `settingsRead`
 * are taken. Leaves to others: asking (`DoctorGather`) and judging (`Doctor`).
 */
import type { DomainName } from "../domain/DomainName.ts"
import type { IpAddress } from "../domain/IpAddress.ts"
import type { Zone } from "../domain/Zone.ts"
import type { Role } from "./PowerDnsNodes.ts"

export interface Facts {
  readonly zones: ReadonlyArray<Zone>
  /** The preferred primary first. */
  readonly nodes: ReadonlyArray<NodeFacts>
  readonly registry: RegistryFacts
  /** `powerdns.batchMax`. */
  readonly batchNamesMax: number
}

export interface NodeFacts {
  readonly name: string
  readonly role: Role
  readonly database?: string | undefined
  readonly dns: DnsFacts
  /** Undefined: it has none. */
  readonly api: ApiFacts | undefined
}

export interface DnsFacts {
  /** As it is configured: `192.0.2.53:53`. */
  readonly endpoint: string
  readonly port: number
  /** What its host name resolves to; empty when it does not. */
  readonly addresses: ReadonlyArray<string>
  readonly serials: ReadonlyMap<DomainName, SerialAnswer>
  /** Whether it gives a whole zone to this machine, unsigned; undefined: nobody was asked. */
  readonly axfr: "open" | "refused" | "silent" | undefined
}

export type SerialAnswer =
  | { readonly _tag: "Serial"; readonly serial: number }
  /** It answered, and not with an SOA of the zone: `REFUSED`. */
  | { readonly _tag: "NoZone"; readonly rcode: string }
  | { readonly _tag: "Silent" }

export type ApiFacts = { readonly url: string } & (
  | { readonly _tag: "Silent"; readonly detail: string }
  | { readonly _tag: "KeyRefused" }
  | { readonly _tag: "NotPowerDns"; readonly detail: string }
  | ({ readonly _tag: "Answers" } & ApiAnswers)
)

export interface ApiAnswers {
  readonly version: string
  /** Its clock less ours; undefined when its answers say no time. */
  readonly clockAheadMillis: number | undefined
  /** By PowerDNS's names; undefined when they could not be read. */
  readonly settings: ReadonlyMap<string, string> | undefined
  /** Whether /metrics answers without a key; undefined: not seen. */
  readonly metricsOpen: boolean | undefined
  /** Whether a question to its DNS endpoint was seen by it; undefined: it cannot be told. */
  readonly sawOurQuestion: boolean | undefined
  readonly zones: ReadonlyMap<DomainName, ZoneFacts>
}

export type ZoneFacts =
  | { readonly _tag: "Missing" }
  /** Not looked at, or in part. */
  | { readonly _tag: "Unread"; readonly detail: string }
  | ({ readonly _tag: "Found" } & FoundZone)

export interface FoundZone {
  readonly kind: string
  /** As it is answered by DNS. */
  readonly serial: number
  readonly soaEditApi: string
  readonly apiRectify: boolean
  readonly dnssec: boolean
  readonly nsec3Narrow: boolean
  readonly masters: ReadonlyArray<string>
  /** Of its metadata. */
  readonly alsoNotify: ReadonlyArray<string>
  readonly allowAxfrFrom: ReadonlyArray<string>
  /** Undefined where it was not read. */
  readonly content: ZoneContent | undefined
}

export interface ZoneContent {
  readonly records: number
  readonly soaRecords: number
  /** PowerDNS's own `a.misconfigured.dns.server.invalid` is the name server of the SOA. */
  readonly hasPlaceholderSoa: boolean
  /** The same record twice. */
  readonly duplicates: Sample
  /** A CNAME beside other data, or two CNAMEs. */
  readonly conflictingNames: Sample
}

/** How many there are, and the first few. */
export interface Sample {
  readonly count: number
  readonly first: ReadonlyArray<string>
}

export type RegistryFacts = { readonly storage: string } & (
  | { readonly _tag: "Silent"; readonly detail: string }
  /** In memory, or not made yet: a server makes it at its first start. */
  | { readonly _tag: "None"; readonly detail: string }
  | {
      readonly _tag: "Answers"
      readonly migration: number
      readonly migrationKnown: number
      /** Undefined where the clock is ours: SQLite. */
      readonly clockAheadMillis: number | undefined
      /** Undefined where the schema is not the one we know. */
      readonly state: RegistryState | { readonly _tag: "Unread"; readonly detail: string } | undefined
    }
)

export interface RegistryState {
  readonly _tag: "Read"
  readonly parked: Sample
  readonly pending: number
  readonly oldestPendingMillis: number
  readonly plansOpen: Sample
  /** Guards that wait for a person's word: which, where, why. */
  readonly guards: ReadonlyArray<{ readonly kind: string; readonly zone: string; readonly detail: string }>
  readonly addresses: ReadonlyArray<IpAddress>
  /** There are more addresses than were read. */
  readonly addressesCut: boolean
}

/** The settings of a node that are looked at; no other is kept. None is a secret. */
export const settingsRead = [
  "allow-axfr-ips",
  "also-notify",
  "api",
  "cache-ttl",
  "default-api-rectify",
  "disable-axfr",
  "enable-lua-records",
  "gpgsql-delete-rrset-query",
  "launch",
  "local-address",
  "local-port",
  "master",
  "negquery-cache-ttl",
  "primary",
  "query-cache-ttl",
  "secondary",
  "slave",
  "webserver-address",
  "webserver-allow-from",
  "webserver-max-bodysize",
  "zone-cache-refresh-interval"
] as const
export type SettingName = (typeof settingsRead)[number]
