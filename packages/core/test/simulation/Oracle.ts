/**
 * What must hold, said a second time and in another way than core says it: from
 * the rows of the registry and the answers that were given.
 *
 * Leaves to others: when it is asked (`Simulation`).
 */
import type { DomainName } from "@prism-dns/core/domain/DomainName"
import * as IpAddress from "@prism-dns/core/domain/IpAddress"
import * as Zone from "@prism-dns/core/domain/Zone"
import type { Zones } from "@prism-dns/core/dns/Zones"
import type { SimulatedDatabase } from "./SimulatedDatabase.ts"

export interface HostRow {
  readonly id: string
  readonly fqdn: DomainName
  readonly zone: DomainName
  readonly addresses: ReadonlyArray<string>
  /** The TTL that it wishes for; null: the zone's. */
  readonly ttlSeconds: number | null
  readonly owner: string
  readonly state: string
  readonly generation: number
  readonly withdrawn: boolean
}

/** What a host was at a generation, as its history has it. */
export interface Version {
  readonly generation: number
  readonly event: string
  /** The last event that said something of its records: a new owner says nothing of them. */
  readonly effect: string
  readonly atMillis: number
  readonly addresses: ReadonlyArray<string>
}

/** Record contents as `TYPE content`, sorted. */
export type Texts = ReadonlyArray<string>

export const textsOf = (addresses: ReadonlyArray<string>): Texts =>
  addresses.map((address) => `${address.includes(":") ? "AAAA" : "A"} ${address}`).sort()

export const same = (a: Texts, b: Texts): boolean => a.length === b.length && a.every((text, i) => text === b[i])

export const show = (texts: Texts): string => (texts.length === 0 ? "nothing" : texts.join(" | "))

export const typesOf = (zone: Zone.Zone): ReadonlyArray<string> => (Zone.isReverse(zone) ? ["PTR"] : ["A", "AAAA"])

export const make = (database: SimulatedDatabase, zones: Zones["Service"]) => {
  const hosts = (): ReadonlyArray<HostRow> =>
    database
      .rows("SELECT id, fqdn, zone, addresses, ttl, owner, state, generation, withdrawn_since FROM host ORDER BY fqdn")
      .map((row) => ({
        id: String(row["id"]),
        fqdn: row["fqdn"] as DomainName,
        zone: row["zone"] as DomainName,
        addresses: JSON.parse(String(row["addresses"])) as ReadonlyArray<string>,
        ttlSeconds: row["ttl"] === null ? null : Number(row["ttl"]),
        owner: String(row["owner"]),
        state: String(row["state"]),
        generation: Number(row["generation"]),
        withdrawn: row["withdrawn_since"] !== null
      }))

  const versions = (fqdn: DomainName): ReadonlyArray<Version> => {
    let effect = ""
    return database
      .rows(
        "SELECT generation, event, valid_from, addresses FROM host_history WHERE fqdn = ? ORDER BY generation",
        fqdn
      )
      .map((row) => {
        const event = String(row["event"])
        if (event !== "transferred") effect = event
        return {
          generation: Number(row["generation"]),
          event,
          effect,
          atMillis: Number(row["valid_from"]),
          addresses: JSON.parse(String(row["addresses"])) as ReadonlyArray<string>
        }
      })
  }

  const wantsRecords = (host: HostRow): boolean => !host.withdrawn && host.state !== "retired"

  /** Records that a person has taken over. */
  const adopted = (zone: Zone.Zone): Map<DomainName, Texts> => {
    const records = new Map<DomainName, Texts>()
    for (const row of database.rows(
      "SELECT name, type, contents FROM record WHERE zone = ? AND type IN ('A', 'AAAA', 'PTR')",
      zone.name
    )) {
      const name = row["name"] as DomainName
      const texts = (JSON.parse(String(row["contents"])) as ReadonlyArray<string>).map(
        (text) => `${row["type"]} ${text}`
      )
      records.set(name, [...(records.get(name) ?? []), ...texts].sort())
    }
    return records
  }

  /** The middle one of what a host wishes for and what its zone allows. */
  const ttlOf = ({ policy }: Zone.Zone, wish: number | null): number =>
    wish === null ? policy.ttlSeconds : [policy.ttlSecondsMin, policy.ttlSecondsMax, wish].sort((a, b) => a - b)[1]!

  /** What a zone should hold of ours, by name. */
  const desired = (zone: Zone.Zone): Map<DomainName, Texts> => {
    const wanted = adopted(zone)
    for (const [name, host] of holders(zone)) {
      wanted.set(name, Zone.isReverse(zone) ? [`PTR ${host.fqdn}`] : textsOf(host.addresses))
    }
    return wanted
  }

  /** The TTL of what a zone should hold of its hosts, by name. */
  const ttls = (zone: Zone.Zone): Map<DomainName, number> =>
    new Map(Array.from(holders(zone), ([name, host]) => [name, ttlOf(zone, host.ttlSeconds)]))

  /** Whose host a name of a zone is: of the name itself, or of the address that it stands for. */
  const holders = (zone: Zone.Zone): Map<DomainName, HostRow> => {
    const found = new Map<DomainName, HostRow>()
    if (!Zone.isReverse(zone)) {
      for (const host of hosts()) {
        if (host.zone === zone.name && wantsRecords(host)) found.set(host.fqdn, host)
      }
      return found
    }
    const byId = new Map(hosts().map((host) => [host.id, host]))
    const claims = database
      .rows("SELECT address, host_id, since FROM host_address")
      .map((row) => ({
        address: String(row["address"]),
        host: byId.get(String(row["host_id"]))!,
        since: Number(row["since"])
      }))
      .filter(({ host }) => wantsRecords(host))
      .sort(
        (a, b) =>
          Number(b.host.state === "online") - Number(a.host.state === "online") ||
          b.since - a.since ||
          b.host.generation - a.host.generation ||
          (a.host.fqdn < b.host.fqdn ? -1 : 1)
      )
    for (const { address, host } of claims) {
      const place = zones.placePointer(IpAddress.make(address))
      if (place?.zone === zone.name && !found.has(place.name)) found.set(place.name, host)
    }
    return found
  }

  /** The latest that was given to a change. */
  const generation = (): number => Number(database.rows("SELECT value FROM registry_generation")[0]!["value"])

  /** Names that not every server was seen to answer with yet. */
  const unserved = () =>
    database
      .rows("SELECT name, generation FROM unserved ORDER BY name")
      .map((row) => ({ name: String(row["name"]), what: `${row["name"]} at ${row["generation"]}` }))

  const marks = () =>
    database.rows("SELECT zone, name, parked_reason, cause FROM outbox ORDER BY zone, name").map((row) => ({
      zone: row["zone"] as DomainName,
      name: row["name"] as DomainName,
      cause: String(row["cause"]),
      parkedReason: row["parked_reason"] === null ? undefined : String(row["parked_reason"])
    }))

  /** Names that Prism is to leave alone. */
  const ignored = (): ReadonlySet<string> =>
    new Set(database.rows("SELECT zone, pattern FROM ignored").map((row) => `${row["pattern"]}.${row["zone"]}`))

  /** The most hosts that went offline within any one lease, with how many there were, as far as that is too many. */
  const masses = (leaseMillis: number, min: number, share: number): ReadonlyArray<string> => {
    const online = new Set<string>()
    let gone: Array<{ readonly fqdn: string; readonly atMillis: number }> = []
    const found: Array<string> = []
    for (const row of database.rows("SELECT fqdn, event, valid_from FROM host_history ORDER BY sequence")) {
      const [fqdn, event, atMillis] = [String(row["fqdn"]), String(row["event"]), Number(row["valid_from"])]
      // Whoever owns it, it is where it was.
      if (event === "transferred") continue
      if (event !== "offline") {
        if (event === "created" || event === "returned") online.add(fqdn)
        else if (event === "retired" || event === "released") online.delete(fqdn)
        // It is back, or somebody has said that it is gone.
        if (event !== "withdrawn") gone = gone.filter((each) => each.fqdn !== fqdn)
        continue
      }
      online.delete(fqdn)
      gone = [...gone.filter((each) => each.atMillis > atMillis - leaseMillis), { fqdn, atMillis }]
      const of = online.size + gone.length
      if (gone.length >= min && gone.length > of * share) found.push(`${gone.length} of ${of} at ${atMillis}`)
    }
    return found
  }

  /** Names held back for a plan. */
  const held = (): ReadonlyArray<string> =>
    database.rows("SELECT name FROM outbox WHERE plan IS NOT NULL ORDER BY name").map((row) => String(row["name"]))

  /** Names held back for a plan in which a person does not find them any more. */
  const heldByNothing = (): ReadonlyArray<string> =>
    database
      .rows(
        `SELECT name FROM outbox o WHERE plan IS NOT NULL AND NOT EXISTS (
           SELECT 1 FROM plan p JOIN plan_change c ON c.plan = p.id
           WHERE p.id = o.plan AND p.state IN ('open', 'rejected') AND c.name = o.name)
         ORDER BY name`
      )
      .map((row) => String(row["name"]))

  /** Each effective change of a host has one history row and one audit entry, and the host is what the last one says. */
  const bookkeeping = (): ReadonlyArray<string> => {
    const wrong: Array<string> = []
    const history = database
      .rows("SELECT fqdn || ' ' || generation || ' ' || event AS entry FROM host_history ORDER BY 1")
      .map((row) => String(row["entry"]))
    const audit = database
      .rows(
        `SELECT subject || ' ' || generation || ' ' || SUBSTR(action, 6) AS entry FROM audit_entry
         WHERE action LIKE 'host.%' ORDER BY 1`
      )
      .map((row) => String(row["entry"]))
    for (const entry of history) if (!audit.includes(entry)) wrong.push(`no audit entry for: ${entry}`)
    for (const entry of audit) if (!history.includes(entry)) wrong.push(`an audit entry of nothing that was: ${entry}`)
    if (new Set(audit).size !== audit.length) wrong.push("an effective change has two audit entries")
    for (const host of hosts()) {
      const last = versions(host.fqdn).at(-1)
      if (last?.generation !== host.generation) {
        wrong.push(`${host.fqdn} is at generation ${host.generation}, its history at ${last?.generation}`)
      }
    }
    return wrong
  }

  /** Where the counts that are kept differ from a count of the hosts. */
  const miscounts = (): ReadonlyArray<string> => {
    const counted = new Map<string, number>()
    for (const { owner, zone } of hosts()) {
      for (const key of [`owner ${owner}`, `zone ${zone}`]) counted.set(key, (counted.get(key) ?? 0) + 1)
    }
    const kept = new Map(
      database
        .rows("SELECT kind, key, hosts FROM host_count")
        .map((row) => [`${row["kind"]} ${row["key"]}`, Number(row["hosts"])])
    )
    return [...new Set([...counted.keys(), ...kept.keys()])]
      .filter((key) => counted.get(key) !== kept.get(key))
      .map((key) => `${key}: ${kept.get(key) ?? 0} are kept, and there are ${counted.get(key) ?? 0}`)
  }

  return {
    hosts,
    miscounts,
    ttls,
    versions,
    generation,
    unserved,
    wantsRecords,
    adopted,
    desired,
    marks,
    ignored,
    masses,
    held,
    heldByNothing,
    bookkeeping
  }
}
