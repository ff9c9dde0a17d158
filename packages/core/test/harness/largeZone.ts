/**
 * A zone of many names, the same in the registry's database and in PowerDNS's,
 * put there by SQL: as if each had been registered and published long ago.
 *
 * For SQLite on both sides. `nth(i)` is the i-th name, from 0; its one record
 * is `addressOf(i)`.
 */
import { Effect } from "effect"
import { SqlClient } from "effect/sql"
import { DatabaseSync } from "node:sqlite"
import type { DomainName } from "@prism-dns/core/domain/DomainName"
import type { Zone } from "@prism-dns/core/domain/Zone"
import { sqliteFile } from "@prism-dns/core/powerdns/PowerDnsSettings"

export const hostnameOf = (i: number): string => `host-${String(i).padStart(7, "0")}`

export const addressOf = (i: number): string => `10.${(i >> 16) & 255}.${(i >> 8) & 255}.${i & 255}`

export const nth = (zone: Zone, i: number): DomainName => `${hostnameOf(i)}.${zone.name}` as DomainName

const numbers = (count: number) =>
  `WITH RECURSIVE numbers(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM numbers WHERE i + 1 < ${count})`
const hostname = "printf('host-%07d', i)"
const address = "printf('10.%d.%d.%d', (i >> 16) & 255, (i >> 8) & 255, i & 255)"

/** `count` online hosts of the zone, published at generation 1. */
export const register = Effect.fnUntraced(function* (zone: Zone, count: number) {
  const sql = yield* SqlClient.SqlClient
  const fqdn = `${hostname} || '.${zone.name}'`
  const ttl = zone.policy.ttlSeconds
  yield* sql.unsafe(`
    INSERT INTO host (id, fqdn, hostname, zone, addresses, labels, owner, state, generation, first_seen, last_seen)
    ${numbers(count)}
    SELECT printf('id-%d', i), ${fqdn}, ${hostname}, '${zone.name}', '["' || ${address} || '"]', '{}', 'anonymous',
      'online', 1, 1, ${Number.MAX_SAFE_INTEGER} FROM numbers`)
  yield* sql.unsafe(`
    INSERT INTO published (zone, name, content, present, generation, published_at)
    ${numbers(count)}
    SELECT '${zone.name}', ${fqdn}, '[["A",${ttl},["' || ${address} || '"]]]', 1, 1, 1 FROM numbers`)
  yield* sql.unsafe("UPDATE registry_generation SET value = 1")
})

/** PowerDNS's own database. Others use it meanwhile, so close it soon. */
export const withPowerDnsDatabase = <A>(directory: string, use: (db: DatabaseSync) => A): Effect.Effect<A> =>
  Effect.sync(() => {
    const db = new DatabaseSync(sqliteFile(directory), { timeout: 5000 })
    try {
      return use(db)
    } finally {
      db.close()
    }
  })

/** The records of `count` hosts, in a zone that PowerDNS has. */
export const publish = (directory: string, zone: Zone, count: number): Effect.Effect<void> =>
  withPowerDnsDatabase(directory, (db) => {
    const name = zone.name.slice(0, -1)
    db.exec(`
      INSERT INTO records (domain_id, name, type, content, ttl, prio, disabled, auth)
      ${numbers(count)}
      SELECT (SELECT id FROM domains WHERE name = '${name}'), ${hostname} || '.${name}', 'A', ${address},
        ${zone.policy.ttlSeconds}, 0, 0, 1 FROM numbers`)
  })
