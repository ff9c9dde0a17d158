/**
 * The registry's schema, forward only, the same for SQLite and PostgreSQL.
 *
 * Times are milliseconds since 1970, lists and maps are JSON text: both
 * databases hold them alike, and nothing is queried inside them.
 */
import { Effect } from "effect"
import { SqlClient } from "effect/sql"

const registry = Effect.gen(function* () {
  const sql = yield* SqlClient.SqlClient
  const serial = sql.literal(
    sql.onDialectOrElse({
      pg: () => "BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY",
      orElse: () => "INTEGER PRIMARY KEY AUTOINCREMENT"
    })
  )
  // Names sort by their bytes everywhere, whatever the locale of the database: pages and prefixes rely on it.
  const name = sql.literal(sql.onDialectOrElse({ pg: () => 'TEXT COLLATE "C"', orElse: () => "TEXT" }))

  yield* sql`CREATE TABLE host (
    id TEXT PRIMARY KEY,
    fqdn ${name} NOT NULL UNIQUE,
    hostname TEXT NOT NULL,
    zone TEXT NOT NULL,
    addresses TEXT NOT NULL,
    labels TEXT NOT NULL,
    owner TEXT NOT NULL,
    state TEXT NOT NULL,
    generation BIGINT NOT NULL,
    first_seen BIGINT NOT NULL,
    last_seen BIGINT NOT NULL,
    offline_since BIGINT,
    withdrawn_since BIGINT
  )`
  yield* sql`CREATE INDEX host_lease ON host (last_seen) WHERE state = 'online'`
  yield* sql`CREATE INDEX host_offline ON host (zone, offline_since) WHERE state = 'offline' AND withdrawn_since IS NULL`
  yield* sql`CREATE INDEX host_zone ON host (zone, fqdn)`
  // For counting: a scan of a million hosts takes 0.5 s, this index 0.07 s.
  yield* sql`CREATE INDEX host_state ON host (zone, state)`

  // Which hosts hold an address, and since when: decides whose name its PTR record gives.
  yield* sql`CREATE TABLE host_address (
    address TEXT NOT NULL,
    host_id TEXT NOT NULL REFERENCES host (id) ON DELETE CASCADE,
    since BIGINT NOT NULL,
    PRIMARY KEY (address, host_id)
  )`
  yield* sql`CREATE INDEX host_address_host ON host_address (host_id)`

  // What a host was, with the range of time in which it was that.
  yield* sql`CREATE TABLE host_history (
    sequence ${serial},
    host_id TEXT NOT NULL,
    fqdn TEXT NOT NULL,
    zone TEXT NOT NULL,
    event TEXT NOT NULL,
    addresses TEXT NOT NULL,
    labels TEXT NOT NULL,
    owner TEXT NOT NULL,
    state TEXT NOT NULL,
    generation BIGINT NOT NULL,
    valid_from BIGINT NOT NULL,
    valid_to BIGINT
  )`
  yield* sql`CREATE INDEX host_history_host ON host_history (host_id, valid_from)`
  yield* sql`CREATE UNIQUE INDEX host_history_current ON host_history (host_id) WHERE valid_to IS NULL`

  yield* sql`CREATE TABLE audit_entry (
    sequence ${serial},
    at BIGINT NOT NULL,
    actor TEXT NOT NULL,
    peer TEXT,
    action TEXT NOT NULL,
    subject TEXT NOT NULL,
    generation BIGINT NOT NULL,
    before TEXT,
    after TEXT
  )`
  yield* sql`CREATE INDEX audit_entry_subject ON audit_entry (subject, sequence)`

  // Names that may differ from what PowerDNS holds. Not a queue of operations: a name stands here once.
  yield* sql`CREATE TABLE outbox (
    zone TEXT NOT NULL,
    name TEXT NOT NULL,
    generation BIGINT NOT NULL,
    marked_at BIGINT NOT NULL,
    parked_at BIGINT,
    parked_reason TEXT,
    PRIMARY KEY (zone, name)
  )`
  yield* sql`CREATE INDEX outbox_due ON outbox (zone, marked_at) WHERE parked_at IS NULL`

  // Names that are ours, with what PowerDNS was last seen to take. Content is NULL between a claim and its success.
  yield* sql`CREATE TABLE published (
    zone TEXT NOT NULL,
    name TEXT NOT NULL,
    content TEXT,
    generation BIGINT NOT NULL,
    published_at BIGINT NOT NULL,
    PRIMARY KEY (zone, name)
  )`

  yield* sql`CREATE TABLE zone_publication (zone TEXT PRIMARY KEY, published_at BIGINT NOT NULL)`

  // What a zone's records were computed from when its names were last marked for it.
  yield* sql`CREATE TABLE zone_fingerprint (zone TEXT PRIMARY KEY, fingerprint TEXT NOT NULL)`

  // Generations: unique and rising over all changes of the registry.
  yield* sql.onDialectOrElse({
    pg: () => sql`CREATE SEQUENCE registry_generation`,
    orElse: () => sql`CREATE TABLE registry_generation (value INTEGER NOT NULL)`
  })
  yield* sql.onDialectOrElse({
    pg: () => Effect.void,
    orElse: () => Effect.asVoid(sql`INSERT INTO registry_generation (value) VALUES (0)`)
  })
})

/** Migrations by number; a released one is never edited. */
export const migrations = {
  "0001_registry": registry
}
