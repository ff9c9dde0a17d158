/**
 * A zone of many names that Prism manages and PowerDNS holds, in step, without
 * having been registered one by one: rows are written straight into both
 * databases.
 *
 * Promises: the zone itself is made and set up by Prism; what stands in the
 * registry is what it would have written for hosts that registered long ago,
 * without their history. Leaves to others: the servers that run on it.
 */
import type * as PowerDnsProcess from "@prism-dns/core/powerdns/PowerDnsProcess"
import { Effect, Schedule } from "effect"
import * as Fs from "node:fs"
import * as Path from "node:path"
import { DatabaseSync } from "node:sqlite"
import * as Agents from "./Agents.ts"
import { BenchFailed, failed } from "./Benchmark.ts"
import * as Postgres from "./Postgres.ts"
import * as Servers from "./Servers.ts"
import { run } from "./Workspace.ts"

/** Owner name of a host as the registry writes it. */
export const fqdn = (host: number): string => `${Agents.hostname(host)}.${Servers.zone}.`

/** Without what a host has that comes by itself: reconciling, expiring. */
export const quiet = {
  zones: [{ name: Servers.zone, reconcileInterval: "30d" }],
  more: { leases: { beatInterval: "1d" } }
}

/** The address of host `i` in SQL: `Agents.address`. */
const addressSql = "'127.' || (16 + (i >> 16)) || '.' || ((i >> 8) & 255) || '.' || (i & 255)"
const pointerSql = "(i & 255) || '.' || ((i >> 8) & 255) || '.' || (16 + (i >> 16)) || '.127.in-addr.arpa.'"

/** Numbers from 0, in SQLite. */
const numbers = (size: number) =>
  `WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i + 1 < ${size}),
    h AS (SELECT i, 'host-' || i AS hostname, ${addressSql} AS address, ${pointerSql} AS pointer FROM n)`

/** Writes `size` hosts and what is published of them into a registry that Prism has made, and that nobody has open. */
export const fillRegistry = (
  file: string,
  size: number,
  options: { readonly reverse: boolean }
): Effect.Effect<void, BenchFailed> =>
  Effect.try({
    try: () => {
      const nowMillis = Date.now()
      using db = new DatabaseSync(file)
      db.exec("PRAGMA cache_size = -400000; PRAGMA synchronous = OFF; BEGIN IMMEDIATE")
      db.exec(`INSERT INTO host (id, fqdn, hostname, zone, addresses, labels, owner, state, generation, first_seen, last_seen)
        ${numbers(size)}
        SELECT printf('01900000-0000-7000-8000-%012x', i), hostname || '.${Servers.zone}.', hostname, '${Servers.zone}.',
          '["' || address || '"]', '{}', 'bench', 'online', 1, ${nowMillis}, ${nowMillis}
        FROM h ORDER BY hostname`)
      db.exec(`INSERT INTO host_address (address, host_id, since) ${numbers(size)}
        SELECT address, printf('01900000-0000-7000-8000-%012x', i), ${nowMillis} FROM h ORDER BY address`)
      const publish = (zone: string, name: string, type: string, content: string) =>
        db.exec(`INSERT INTO published (zone, name, content, present, generation, published_at, served_at)
          ${numbers(size)}
          SELECT '${zone}.', ${name}, '[["${type}",${Servers.ttlSeconds},["' || ${content} || '"]]]', 1, 1,
            ${nowMillis}, ${nowMillis}
          FROM h ORDER BY 2`)
      publish(Servers.zone, `hostname || '.${Servers.zone}.'`, "A", "address")
      if (options.reverse) publish(Servers.reverseZone, "pointer", "PTR", `hostname || '.${Servers.zone}.'`)
      db.exec(`UPDATE registry_generation SET value = value + 1; COMMIT; PRAGMA wal_checkpoint(TRUNCATE)`)
    },
    catch: failed("the registry could not be filled")
  })

/** Writes the records of `size` hosts into the zone of a PowerDNS that does not run. */
const fillPowerDns = Effect.fnUntraced(function* (folder: string, backend: PowerDnsProcess.Backend, size: number) {
  const directory = Path.join(folder, "powerdns")
  if (backend._tag === "Sqlite") {
    yield* Effect.try({
      try: () => {
        using db = new DatabaseSync(Path.join(directory, "pdns.sqlite3"))
        db.exec("PRAGMA cache_size = -400000; PRAGMA synchronous = OFF; BEGIN IMMEDIATE")
        db.exec(`INSERT INTO records (domain_id, name, type, content, ttl, prio, disabled, auth) ${numbers(size)}
          SELECT (SELECT id FROM domains WHERE name = '${Servers.zone}'), hostname || '.${Servers.zone}', 'A', address,
            ${Servers.ttlSeconds}, 0, 0, 1
          FROM h`)
        db.exec("COMMIT; PRAGMA wal_checkpoint(TRUNCATE)")
      },
      catch: failed("PowerDNS could not be filled")
    })
  } else if (backend._tag === "Pgsql") {
    yield* Postgres.sql(
      backend,
      `INSERT INTO records (domain_id, name, type, content, ttl, prio, disabled, auth)
        SELECT (SELECT id FROM domains WHERE name = '${Servers.zone}'), 'host-' || i || '.${Servers.zone}', 'A',
          ${addressSql}, ${Servers.ttlSeconds}, 0, false, true
        FROM generate_series(0, ${size - 1}) AS i;
      -- Plans made for an empty table scan it.
      ANALYZE records; CHECKPOINT;`
    )
  } else {
    const file = Path.join(folder, "zone")
    yield* Effect.try({
      try: () => {
        const out = Fs.openSync(file, "w")
        const soa = `ns1.${Servers.zone}. hostmaster.${Servers.zone}. 1 10800 3600 604800 60`
        Fs.writeSync(out, `$ORIGIN ${Servers.zone}.\n@ 3600 IN SOA ${soa}\n@ 3600 IN NS ns1.${Servers.zone}.\n`)
        for (let from = 0; from < size; from += 10_000) {
          const hosts = Array.from({ length: Math.min(10_000, size - from) }, (_, i) => from + i)
          const line = (host: number) => `${Agents.hostname(host)} ${Servers.ttlSeconds} IN A ${Agents.address(host)}\n`
          Fs.writeSync(out, hosts.map(line).join(""))
        }
        Fs.closeSync(out)
      },
      catch: failed("the zone file could not be written")
    })
    yield* run("pdnsutil", [`--config-dir=${directory}`, "load-zone", Servers.zone, file], { folder })
    Fs.rmSync(file)
  }
})

/** What the API says of a zone; undefined while there is none. */
export const zoneInfo = (
  powerDns: Servers.PowerDns,
  zone: string
): Effect.Effect<{ readonly serial: number } | undefined, BenchFailed> =>
  Effect.tryPromise({
    try: async () => {
      const response = await fetch(`${powerDns.url}/api/v1/servers/localhost/zones/${zone}.?rrsets=false`, {
        headers: { "x-api-key": Servers.apiKey }
      })
      if (response.status === 404) return void (await response.text())
      if (!response.ok) throw new Error(`${response.status} ${await response.text()}`)
      return (await response.json()) as { readonly serial: number }
    },
    catch: failed("PowerDNS")
  })

/** Lets Prism make and set up its zones, in a registry without hosts. */
export const make = Effect.fnUntraced(function* (options: Servers.PrismOptions) {
  const server = yield* Servers.prism(options)
  using registry = new DatabaseSync(server.registry, { readOnly: true })
  const noted = registry.prepare("SELECT COUNT(*) AS zones FROM zone_fingerprint")
  const names = (options.zones ?? Servers.bothZones).map(({ name }) => name)
  yield* Effect.forEach(names, (name) => zoneInfo(options.powerDns, name)).pipe(
    Effect.repeat({
      schedule: Schedule.spaced("50 millis"),
      until: (found) => !found.includes(undefined) && noted.get()!["zones"] === names.length
    }),
    Effect.timeout("30 seconds"),
    Effect.mapError(failed("the zones were not made"))
  )
}, Effect.scoped)

/**
 * Makes zone and registry in `folder` (of its own), `size` names each, for a PowerDNS on `backend` in it. Registries of
 * one size are filled once, and copied from `template` afterwards.
 */
export const prepare = Effect.fnUntraced(function* (options: {
  readonly folder: string
  readonly backend: PowerDnsProcess.Backend
  readonly size: number
  readonly template: string
}) {
  const { backend, folder, size, template } = options
  const registry = Path.join(folder, "prism.db")
  yield* Effect.scoped(
    Effect.flatMap(Servers.powerDns(folder, backend), (powerDns) =>
      make({ folder, powerDns, profile: undefined, ...quiet })
    )
  )
  if (!Fs.existsSync(template)) {
    yield* fillRegistry(registry, size, { reverse: false })
    Fs.copyFileSync(registry, template)
  } else {
    for (const rest of ["-wal", "-shm"]) Fs.rmSync(`${registry}${rest}`, { force: true })
    Fs.copyFileSync(template, registry)
  }
  yield* fillPowerDns(folder, backend, size)
})
