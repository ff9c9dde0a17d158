/**
 * What a registration cannot do without, each part alone: the rows of the
 * registry and the record sets of PowerDNS, written in batches by nothing but
 * a loop.
 */
import { Effect, Redacted } from "effect"
import * as Path from "node:path"
import { DatabaseSync, type SQLInputValue } from "node:sqlite"
import { BenchFailed, failed } from "./Benchmark.ts"
import type { Expectation } from "./Resolution.ts"
import { type PowerDns, reverseZone, ttlSeconds, zone } from "./Servers.ts"

/** Hosts in one transaction, names in one PATCH: what Prism takes. */
const batchMax = 2000

type Row = Record<string, SQLInputValue>

/** A table, with as many rows of it as one host has. */
interface Table {
  readonly insert: string
  readonly rows: ReadonlyArray<ReadonlyArray<SQLInputValue>>
}

const table = (name: string, rows: ReadonlyArray<Row>): Table => {
  const columns = Object.keys(rows[0] ?? {})
  return {
    insert: `INSERT INTO ${name} (${columns.join(", ")}) VALUES (${columns.map(() => "?").join(", ")})`,
    rows: rows.map((row) => columns.map((column) => row[column]!))
  }
}

/** Entries of the audit as a transaction writes them, sealed or not. */
const audited = (action: string): string => {
  const columns =
    "sequence, at, actor, peer, action, zone, subject, generation, before, after, reason, cause, request, result"
  const from = (name: string) => `SELECT ${columns} FROM ${name} WHERE action LIKE '${action}'`
  return `${from("audit_log")} UNION ALL ${from("audit_entry")} ORDER BY sequence`
}

/** What a registry consists of, in the order in which it was made. */
const schemaOf = (source: DatabaseSync): ReadonlyArray<string> =>
  source
    .prepare("SELECT sql FROM sqlite_master WHERE sql IS NOT NULL AND name NOT LIKE 'sqlite_%' ORDER BY rootpage")
    .all()
    .map((row) => row["sql"] as string)

/**
 * Inserts the rows of all tables into a new database of that schema and Prism's durability, evenly in `batches`
 * transactions. Seconds for the inserts alone.
 */
const insertAll = (
  file: string,
  schema: ReadonlyArray<string>,
  tables: ReadonlyArray<Table>,
  batches: number
): number => {
  const db = new DatabaseSync(file)
  try {
    db.exec("PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA foreign_keys = ON")
    for (const sql of schema) db.exec(sql)
    const statements = tables.map(({ insert, rows }) => ({ insert: db.prepare(insert), rows }))
    const start = performance.now()
    for (let batch = 0; batch < batches; batch++) {
      db.exec("BEGIN IMMEDIATE")
      for (const { insert, rows } of statements) {
        const to = Math.ceil(((batch + 1) * rows.length) / batches)
        for (let i = Math.ceil((batch * rows.length) / batches); i < to; i++) insert.run(...rows[i]!)
      }
      db.exec("COMMIT")
    }
    return (performance.now() - start) / 1000
  } finally {
    db.close()
  }
}

const inserting = (
  registry: string,
  insert: (select: (sql: string) => ReadonlyArray<Row>, schema: ReadonlyArray<string>) => number
) =>
  Effect.try({
    try: () => {
      const source = new DatabaseSync(registry, { readOnly: true })
      try {
        return insert((sql) => source.prepare(sql).all(), schemaOf(source))
      } finally {
        source.close()
      }
    },
    catch: failed("the rows could not be inserted")
  })

/**
 * Copies what Prism wrote for its hosts into a new database of the same schema and durability, in transactions of 2000
 * hosts, and with it the outbox marks and unserved names that were there meanwhile. Seconds for the inserts alone.
 */
export const insertRows = (registry: string, folder: string): Effect.Effect<number, BenchFailed> =>
  inserting(registry, (select, schema) => {
    const hosts = select("SELECT * FROM host ORDER BY generation, rowid")
    const published = select("SELECT * FROM published ORDER BY generation, rowid")
    const tables = [
      table("host", hosts),
      table("host_address", select("SELECT * FROM host_address ORDER BY rowid")),
      table("host_history", select("SELECT * FROM host_history ORDER BY sequence")),
      table("audit_entry", select(audited("host.%"))),
      table(
        "outbox",
        published.map((row) => ({
          zone: row["zone"]!,
          name: row["name"]!,
          generation: row["generation"]!,
          cause: "registered",
          urgency: 0,
          marked_at: row["published_at"]!
        }))
      ),
      table("published", published),
      table(
        "unserved",
        published.map((row) => ({
          zone: row["zone"]!,
          name: row["name"]!,
          generation: row["generation"]!,
          content: row["content"]!,
          applied_at: row["published_at"]!
        }))
      )
    ]
    return insertAll(Path.join(folder, "rows.db"), schema, tables, Math.ceil(hosts.length / batchMax))
  })

/**
 * Copies what Prism wrote for its identities, in transactions of `size` of them: the identity, its audit entry, and a
 * token as it is once used. Seconds for the inserts alone.
 */
export const insertIdentities = (registry: string, folder: string, size: number): Effect.Effect<number, BenchFailed> =>
  inserting(registry, (select, schema) => {
    const identities = select("SELECT * FROM identity ORDER BY enrolled_at, rowid")
    const tables = [
      table("identity", identities),
      table("audit_entry", select(audited("identity.enrolled"))),
      table("access_token", select("SELECT * FROM access_token WHERE uses > 0 ORDER BY rowid"))
    ]
    const file = Path.join(folder, `identities-${size}.db`)
    return insertAll(file, schema, tables, Math.ceil(identities.length / size))
  })

const request = async (powerDns: PowerDns, method: string, path: string, body: unknown): Promise<void> => {
  const response = await fetch(`${powerDns.url}/api/v1/servers/localhost${path}`, {
    method,
    headers: { "x-api-key": Redacted.value(powerDns.apiKey), "content-type": "application/json" },
    body: JSON.stringify(body)
  })
  const text = await response.text()
  if (!response.ok) throw new Error(`${method} ${path}: ${response.status} ${text}`)
}

const talking = (f: () => Promise<void>): Effect.Effect<void, BenchFailed> =>
  Effect.tryPromise({ try: f, catch: failed("PowerDNS") })

/** Makes both zones, with the settings that Prism gives them. */
export const createZones = (powerDns: PowerDns): Effect.Effect<void, BenchFailed> =>
  talking(async () => {
    for (const name of [zone, reverseZone]) {
      await request(powerDns, "POST", "/zones?rrsets=false", {
        name: `${name}.`,
        kind: "Native",
        nameservers: [`ns1.${zone}.`],
        soa_edit_api: "INCREASE",
        api_rectify: false
      })
    }
  })

/** Writes record sets of `zone` as PowerDNS's API takes them, in PATCHes of `size`, one after another. */
export const patchRRsets = (
  powerDns: PowerDns,
  zone: string,
  rrsets: ReadonlyArray<unknown>,
  size = batchMax
): Effect.Effect<void, BenchFailed> =>
  talking(async () => {
    for (let i = 0; i < rrsets.length; i += size) {
      await request(powerDns, "PATCH", `/zones/${zone}.`, { rrsets: rrsets.slice(i, i + size) })
    }
  })

/** Writes `records` of `zone` in PATCHes of `size` names, one after another: PowerDNS has one writer for each zone. */
export const patch = (
  powerDns: PowerDns,
  zone: string,
  records: ReadonlyArray<Expectation>,
  size = batchMax
): Effect.Effect<void, BenchFailed> =>
  // Making the bodies is a part of it.
  Effect.suspend(() => {
    const rrsets = records.map(({ data, name, type }) => ({
      name: `${name}.`,
      type,
      ttl: ttlSeconds,
      changetype: "REPLACE",
      records: [{ content: type === "PTR" ? `${data}.` : data, disabled: false }]
    }))
    return patchRRsets(powerDns, zone, rrsets, size)
  })
