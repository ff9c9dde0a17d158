/**
 * The HTTP API of one PowerDNS Authoritative Server (4.7 and later).
 *
 * Promises: every call ends, within its timeout; a failure says whether trying
 * again may help; at most `connectionsMax` requests are under way at once; a
 * request is repeated only where repeating is harmless. Leaves to others: who
 * may write a zone (one writer at a time, see `dns/DnsManager`), and what to
 * write.
 *
 * @see https://doc.powerdns.com/authoritative/http-api/
 */
import { Context, type Effect, type Option } from "effect"
import type { DomainName } from "../domain/DomainName.ts"
import type { RRset, RRsetChange } from "../domain/RRset.ts"
import type { PowerDnsError } from "./PowerDnsError.ts"

export interface ServerInfo {
  /** As the server states it, for example `4.7.3`. */
  readonly version: string
}

export interface ZoneInfo {
  readonly name: DomainName
  readonly kind: string
  readonly serial: number
  readonly dnssec: boolean
  readonly soaEditApi: string
  readonly apiRectify: boolean
}

export interface ZoneCreation {
  readonly name: DomainName
  readonly kind: "Native" | "Master"
  readonly nameservers: ReadonlyArray<DomainName>
}

export class PowerDnsClient extends Context.Service<
  PowerDnsClient,
  {
    /** The name of this node in logs, metrics and errors. */
    readonly node: string
    /** Version of the server; also the cheapest way to learn that it answers and the key is right. */
    readonly server: Effect.Effect<ServerInfo, PowerDnsError>
    /** All zones the server has, without their records. */
    readonly listZones: Effect.Effect<ReadonlyArray<ZoneInfo>, PowerDnsError>
    readonly findZone: (zone: DomainName) => Effect.Effect<Option.Option<ZoneInfo>, PowerDnsError>
    /**
     * Creates a zone that suits the publisher: SOA-EDIT-API `INCREASE` (each change raises the serial, EPOCH does not)
     * and API-RECTIFY off (a rectify per PATCH costs the whole zone). Fails with `Conflict` if it exists.
     */
    readonly createZone: (zone: ZoneCreation) => Effect.Effect<void, PowerDnsError>
    readonly deleteZone: (zone: DomainName) => Effect.Effect<void, PowerDnsError>
    /** Gives an existing zone the settings that `createZone` gives a new one, where they differ. */
    readonly configureZone: (zone: DomainName) => Effect.Effect<void, PowerDnsError>
    /**
     * The RRsets that the server holds at `names`, of every type; a name without records is simply absent.
     * Asks name by name, or reads the zone once where that is cheaper.
     */
    readonly rrsets: (
      zone: DomainName,
      names: ReadonlyArray<DomainName>
    ) => Effect.Effect<ReadonlyArray<RRset>, PowerDnsError>
    /** All RRsets of a zone. Cost grows with the zone: 0.1 s and 4 MB per 100,000 records. */
    readonly exportZone: (zone: DomainName) => Effect.Effect<ReadonlyArray<RRset>, PowerDnsError>
    /** Applies all changes or, when PowerDNS refuses one of them, none. Splits nothing: keep to `changesMax`. */
    readonly patch: (zone: DomainName, changes: ReadonlyArray<RRsetChange>) => Effect.Effect<void, PowerDnsError>
    /** Drops cached answers at and below `name` on this node. */
    readonly flush: (name: DomainName) => Effect.Effect<void, PowerDnsError>
    /** Sends NOTIFY to the zone's secondaries now, rather than within the next minute. */
    readonly notify: (zone: DomainName) => Effect.Effect<void, PowerDnsError>
    /** Recomputes ordering and empty non-terminals of the zone. Cost grows with the zone. */
    readonly rectify: (zone: DomainName) => Effect.Effect<void, PowerDnsError>
    readonly getMetadata: (zone: DomainName, kind: string) => Effect.Effect<ReadonlyArray<string>, PowerDnsError>
    readonly setMetadata: (
      zone: DomainName,
      kind: string,
      values: ReadonlyArray<string>
    ) => Effect.Effect<void, PowerDnsError>
  }
>()("@prism-dns/core/powerdns/PowerDnsClient") {}
