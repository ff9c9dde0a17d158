/**
 * How it is in the end: registry, history, audit and what each name server says,
 * once nothing is under way any more.
 */
import { Effect } from "effect"
import { audit } from "../../../core/test/harness/audit.ts"
import { waitUntil } from "../../../core/test/harness/waitUntil.ts"
import type { Cluster } from "./Cluster.ts"
import * as Dns from "./Dns.ts"
import type { AuditRow, EndState, HostRow, Served, VersionRow } from "./History.ts"

/** Waits until all marks are cleared, all was seen served, and all entries are sealed. */
export const rest = (cluster: Cluster, within: "30 seconds" | "60 seconds" | "5 minutes" = "60 seconds") =>
  waitUntil(
    "nothing is under way",
    cluster.registry.query(
      `SELECT (SELECT COUNT(*) FROM outbox), (SELECT COUNT(*) FROM unserved), (SELECT COUNT(*) FROM audit_entry),
        (SELECT COUNT(*) FROM published WHERE sent IS NOT NULL OR doubt_until IS NOT NULL),
        (SELECT COALESCE(STRING_AGG(DISTINCT parked_reason, '; '), '') FROM outbox)`
    ),
    (counts) => counts.startsWith("0|0|0|0|"),
    { within, every: "250 millis" }
  )

const undotted = (name: string) => name.replace(/\.$/, "")

const rows = <A>(cluster: Cluster, sql: string, make: (columns: ReadonlyArray<unknown>) => A) =>
  Effect.map(cluster.registry.query(sql), (text): ReadonlyArray<A> =>
    text.trim() === "" ? [] : (JSON.parse(text) as ReadonlyArray<ReadonlyArray<unknown>>).map(make)
  )

const addressesOf = (text: unknown) => JSON.parse(String(text)) as ReadonlyArray<string>

/** Names that are parked, and what the registry knows of what PowerDNS has there. */
export const parked = (cluster: Cluster) =>
  rows(
    cluster,
    `SELECT json_agg(json_build_array(o.name, o.zone, o.cause, o.parked_reason,
        (SELECT json_agg(p) FROM published p WHERE p.zone = o.zone AND p.name = o.name),
        (SELECT json_agg(d) FROM debt d WHERE d.zone = o.zone AND d.name = o.name),
        (SELECT json_agg(h ORDER BY h.sequence) FROM host_history h WHERE h.fqdn = o.name)))
      FROM outbox o WHERE o.parked_at IS NOT NULL`,
    ([name, zone, cause, reason, published, debts, versions]) => ({
      host: undotted(String(name)),
      zone: String(zone),
      cause: String(cause),
      reason: String(reason),
      published,
      debts,
      versions
    })
  )

/** Reads all of it; `hosts` are asked for at each node too, since a transfer passes by what it has cached. */
export const read = Effect.fnUntraced(function* (
  cluster: Cluster,
  hosts: Iterable<string>
): Effect.fn.Return<EndState> {
  const all = [...new Set(hosts)]
  return {
    hosts: yield* rows(
      cluster,
      "SELECT json_agg(json_build_array(id, fqdn, zone, addresses, state, generation)) FROM host",
      ([id, fqdn, zone, addresses, state, generation]): HostRow => ({
        id: String(id),
        host: undotted(String(fqdn)),
        zone: undotted(String(zone)),
        addresses: addressesOf(addresses),
        state: String(state),
        generation: Number(generation)
      })
    ),
    versions: yield* rows(
      cluster,
      `SELECT json_agg(json_build_array(host_id, fqdn, sequence, event, addresses, state, generation, valid_to) ORDER BY generation)
        FROM host_history`,
      ([id, fqdn, sequence, event, addresses, state, generation, validTo]): VersionRow => ({
        id: String(id),
        host: undotted(String(fqdn)),
        sequence: Number(sequence),
        event: String(event),
        addresses: addressesOf(addresses),
        state: String(state),
        generation: Number(generation),
        isCurrent: validTo === null
      })
    ),
    audit: yield* rows(
      cluster,
      `SELECT json_agg(json_build_array(action, subject, generation)) FROM ${audit} WHERE action LIKE 'host.%'`,
      ([action, subject, generation]): AuditRow => ({
        action: String(action),
        subject: undotted(String(subject)),
        generation: Number(generation)
      })
    ),
    chain: yield* cluster.verify,
    served: (yield* Effect.forEach(cluster.names, (node) => servedBy(cluster, node, all), { concurrency: 3 })).flat(),
    doubled: yield* cluster.doubled
  }
})

const add = (map: Map<string, Array<string>>, key: string, value: string) => {
  const list = map.get(key)
  if (list === undefined) map.set(key, [value])
  else list.push(value)
}

const addressOf = (pointer: string) => undotted(pointer).replace(".in-addr.arpa", "").split(".").toReversed().join(".")

const servedBy = Effect.fnUntraced(function* (
  { reverseZones, zones }: Cluster,
  { dns, name }: Cluster["names"][number],
  hosts: ReadonlyArray<string>
) {
  const forward = new Map<string, Array<string>>()
  const reverse = new Map<string, Array<string>>()
  for (const zone of zones) {
    for (const [owner, , , type, data] of yield* Dns.transfer(dns, zone)) {
      if (type === "A") add(forward, undotted(owner!), data!)
    }
  }
  for (const zone of reverseZones) {
    for (const [owner, , , type, data] of yield* Dns.transfer(dns, zone)) {
      if (type === "PTR") add(reverse, addressOf(owner!), undotted(data!))
    }
  }
  const asked = yield* Effect.scoped(
    Effect.gen(function* () {
      const { ask } = yield* Dns.resolver(dns)
      const answers = yield* Effect.forEach(
        hosts,
        (host) =>
          Effect.map(
            Effect.promise(async () => (await ask(host)) ?? (await ask(host)) ?? (await ask(host)) ?? ["no answer"]),
            (answer) => [host, answer] as const
          ),
        { concurrency: 100 }
      )
      return new Map(answers.filter(([, answer]) => answer.length > 0))
    })
  )
  return [
    { node: `${name} (transfer)`, forward, reverse },
    { node: name, forward: asked, reverse: undefined }
  ] satisfies ReadonlyArray<Served>
})
