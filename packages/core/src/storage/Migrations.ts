/**
 * The registry's schema, forward only, the same for SQLite and PostgreSQL, but
 * that what grows with time has partitions in PostgreSQL (`partitions`).
 *
 * Times are milliseconds since 1970, lists and maps are JSON text: both
 * databases hold them alike, and nothing is queried inside them.
 */
import { Clock, Effect } from "effect"
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
    withdrawn_since BIGINT,
    retired_since BIGINT
  )`
  yield* sql`CREATE INDEX host_lease ON host (last_seen) WHERE state = 'online'`
  yield* sql`CREATE INDEX host_offline ON host (zone, offline_since) WHERE state = 'offline' AND withdrawn_since IS NULL`
  yield* sql`CREATE INDEX host_away ON host (zone, offline_since) WHERE state = 'offline'`
  yield* sql`CREATE INDEX host_retired ON host (zone, retired_since) WHERE state = 'retired'`
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
    after TEXT,
    reason TEXT,
    cause TEXT
  )`
  yield* sql`CREATE INDEX audit_entry_subject ON audit_entry (subject, sequence)`

  // Names that may differ from what PowerDNS holds. Not a queue of operations: a name stands here once. Urgency 0 are new
  // and changed names, 1 are removals. A parked name waits until it changes; when `plan` is set, for that plan's approval.
  yield* sql`CREATE TABLE outbox (
    zone TEXT NOT NULL,
    name TEXT NOT NULL,
    generation BIGINT NOT NULL,
    cause TEXT NOT NULL,
    urgency SMALLINT NOT NULL,
    marked_at BIGINT NOT NULL,
    parked_at BIGINT,
    parked_reason TEXT,
    plan TEXT,
    PRIMARY KEY (zone, name)
  )`
  yield* sql`CREATE INDEX outbox_due ON outbox (zone, urgency, marked_at) WHERE parked_at IS NULL`

  // Names that are ours, with what PowerDNS was last seen to take. From a claim to its success `sent` says what is being
  // written: then what stands there is one of the two. `doubt_until`: until then a write that had no answer may still come.
  // Quarantined records are disabled: kept, and not answered. Present says that the name counts in non_terminal.
  yield* sql`CREATE TABLE published (
    zone TEXT NOT NULL,
    name TEXT NOT NULL,
    content TEXT NOT NULL,
    sent TEXT,
    doubt_until BIGINT,
    quarantined_until BIGINT,
    present SMALLINT NOT NULL,
    generation BIGINT NOT NULL,
    published_at BIGINT NOT NULL,
    served_at BIGINT,
    PRIMARY KEY (zone, name)
  )`
  yield* sql`CREATE INDEX published_doubt ON published (doubt_until, zone) WHERE doubt_until IS NOT NULL`
  yield* sql`CREATE INDEX published_quarantine ON published (quarantined_until) WHERE quarantined_until IS NOT NULL`

  // Names that PowerDNS took and that not every name server was seen to answer with yet; content is what they should say.
  yield* sql`CREATE TABLE unserved (
    zone TEXT NOT NULL,
    name TEXT NOT NULL,
    generation BIGINT NOT NULL,
    content TEXT NOT NULL,
    applied_at BIGINT NOT NULL,
    PRIMARY KEY (zone, name)
  )`

  // Names above names of ours that have several labels below the zone, with how many are below.
  yield* sql`CREATE TABLE non_terminal (
    zone TEXT NOT NULL,
    name TEXT NOT NULL,
    below BIGINT NOT NULL,
    PRIMARY KEY (zone, name)
  )`

  // Deletions that count against a zone's budget.
  yield* sql`CREATE TABLE deletion (
    sequence ${serial},
    zone TEXT NOT NULL,
    at BIGINT NOT NULL,
    names BIGINT NOT NULL
  )`
  yield* sql`CREATE INDEX deletion_zone ON deletion (zone, at)`

  // Records that people manage: adopted ones, for now. A host of the name takes precedence while it has records.
  yield* sql`CREATE TABLE record (
    zone TEXT NOT NULL,
    name TEXT NOT NULL,
    type TEXT NOT NULL,
    ttl BIGINT NOT NULL,
    contents TEXT NOT NULL,
    owner TEXT NOT NULL,
    generation BIGINT NOT NULL,
    since BIGINT NOT NULL,
    PRIMARY KEY (zone, name, type)
  )`

  // Names of a zone that Prism leaves alone.
  yield* sql`CREATE TABLE ignored (
    zone TEXT NOT NULL,
    pattern TEXT NOT NULL,
    actor TEXT NOT NULL,
    reason TEXT,
    at BIGINT NOT NULL,
    PRIMARY KEY (zone, pattern)
  )`

  // Changes thought out and kept: to be looked at, approved, applied, refused.
  yield* sql`CREATE TABLE plan (
    id TEXT PRIMARY KEY,
    zone TEXT NOT NULL,
    kind TEXT NOT NULL,
    state TEXT NOT NULL,
    made_at BIGINT NOT NULL,
    made_by TEXT NOT NULL,
    generation BIGINT NOT NULL,
    hash TEXT NOT NULL,
    reason TEXT NOT NULL,
    counts TEXT NOT NULL,
    decided_at BIGINT,
    decided_by TEXT,
    decided_reason TEXT
  )`
  yield* sql`CREATE INDEX plan_zone ON plan (zone, made_at)`
  yield* sql`CREATE TABLE plan_change (
    plan TEXT NOT NULL REFERENCES plan (id) ON DELETE CASCADE,
    ordinal BIGINT NOT NULL,
    name TEXT NOT NULL,
    type TEXT NOT NULL,
    action TEXT NOT NULL,
    before TEXT,
    after TEXT,
    reason TEXT NOT NULL,
    cause TEXT NOT NULL,
    outcome TEXT,
    PRIMARY KEY (plan, ordinal)
  )`
  yield* sql`CREATE INDEX plan_change_name ON plan_change (plan, name)`

  // A guard that has tripped and waits for a person's word. `allowed_before`: hosts last seen before that may expire.
  yield* sql`CREATE TABLE guard (
    kind TEXT NOT NULL,
    zone TEXT NOT NULL,
    tripped_at BIGINT NOT NULL,
    detail TEXT NOT NULL,
    allowed_before BIGINT,
    PRIMARY KEY (kind, zone)
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

/** Identities with their keys, managed tokens, what a host may wish for, and how many hosts there are. */
const identity = Effect.gen(function* () {
  const sql = yield* SqlClient.SqlClient

  // The TTL that a host wishes for, within its zone's bounds; NULL: the zone's own.
  yield* sql`ALTER TABLE host ADD COLUMN ttl BIGINT`
  yield* sql`ALTER TABLE host_history ADD COLUMN ttl BIGINT`
  yield* sql`CREATE INDEX host_owner ON host (owner)`

  // Whoever holds the private key of `public_key` speaks as `id`. `grants` is JSON: what it may claim.
  yield* sql`CREATE TABLE identity (
    id TEXT PRIMARY KEY,
    public_key TEXT NOT NULL UNIQUE,
    grants TEXT NOT NULL,
    enrolled_by TEXT NOT NULL,
    enrolled_at BIGINT NOT NULL,
    rotated_at BIGINT,
    last_used BIGINT,
    revoked_at BIGINT,
    revoked_reason TEXT
  )`
  yield* sql`CREATE INDEX identity_enrolled ON identity (enrolled_by)`

  // Keys that an identity had before: they are never taken again.
  yield* sql`CREATE TABLE identity_former_key (
    public_key TEXT PRIMARY KEY,
    identity TEXT NOT NULL,
    replaced_at BIGINT NOT NULL
  )`

  // Tokens made at run time; those of the configuration are not here. `hash` is the SHA-256 of the text, in base64.
  // `allows`: bearer, enrol or both. `host`: the one name that it enrols for, taking it over from whoever holds it.
  yield* sql`CREATE TABLE access_token (
    id TEXT PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    hash TEXT NOT NULL UNIQUE,
    role TEXT NOT NULL,
    allows TEXT NOT NULL,
    grants TEXT NOT NULL,
    host TEXT,
    uses_max BIGINT,
    uses BIGINT NOT NULL,
    created_at BIGINT NOT NULL,
    created_by TEXT NOT NULL,
    expires_at BIGINT,
    last_used BIGINT,
    revoked_at BIGINT,
    revoked_reason TEXT
  )`

  // Hosts by zone and by owner, kept with each change: counting them would cost time by their number.
  yield* sql`CREATE TABLE host_count (
    kind TEXT NOT NULL,
    key TEXT NOT NULL,
    hosts BIGINT NOT NULL,
    PRIMARY KEY (kind, key)
  )`
  yield* sql`INSERT INTO host_count (kind, key, hosts) SELECT 'zone', zone, COUNT(*) FROM host GROUP BY zone`
  yield* sql`INSERT INTO host_count (kind, key, hosts) SELECT 'owner', owner, COUNT(*) FROM host GROUP BY owner`
})

/** What people steer by: the sealed audit and its events, roles, zones and records by the API, and reading as of a time. */
const steering = Effect.gen(function* () {
  const sql = yield* SqlClient.SqlClient
  const serial = sql.literal(
    sql.onDialectOrElse({
      pg: () => "BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY",
      orElse: () => "INTEGER PRIMARY KEY AUTOINCREMENT"
    })
  )
  const name = sql.literal(sql.onDialectOrElse({ pg: () => 'TEXT COLLATE "C"', orElse: () => "TEXT" }))

  // Entries as transactions write them. From here they move to audit_log (`audit/Sealer`): what stands here is not
  // sealed yet. `request`: the id of the API request. `result`: `done`, or a word for what became of it.
  for (const column of ["zone TEXT", "request TEXT", "result TEXT NOT NULL DEFAULT 'done'"]) {
    yield* sql`ALTER TABLE audit_entry ADD COLUMN ${sql.literal(column)}`
  }
  yield* sql`DROP INDEX audit_entry_subject`

  // Sealed entries, never changed: positions are 1, 2, 3 ... without gaps, and each hash covers the one before it.
  yield* sql`CREATE TABLE audit_log (
    position BIGINT PRIMARY KEY,
    sequence BIGINT NOT NULL,
    at BIGINT NOT NULL,
    actor TEXT NOT NULL,
    peer TEXT,
    action TEXT NOT NULL,
    zone TEXT,
    subject TEXT NOT NULL,
    generation BIGINT NOT NULL,
    before TEXT,
    after TEXT,
    reason TEXT,
    cause TEXT,
    request TEXT,
    result TEXT NOT NULL,
    hash TEXT NOT NULL
  )`
  yield* sql`CREATE INDEX audit_log_subject ON audit_log (subject, position)`
  // Who made a version, and how it was published.
  yield* sql`CREATE INDEX audit_log_version ON audit_log (subject, generation)`
  yield* sql`CREATE INDEX audit_log_zone ON audit_log (zone, position)`
  yield* sql`CREATE INDEX audit_log_actor ON audit_log (actor, position)`
  yield* sql`CREATE INDEX audit_log_action ON audit_log (action, position)`
  yield* sql`CREATE INDEX audit_log_at ON audit_log (at, position)`
  yield* sql`CREATE INDEX audit_log_request ON audit_log (request, position) WHERE request IS NOT NULL`

  // One row for each batch that was sealed: the hash of its last entry, kept when retention takes the entries.
  yield* sql`CREATE TABLE audit_seal (
    last_position BIGINT PRIMARY KEY,
    first_position BIGINT NOT NULL,
    at BIGINT NOT NULL,
    hash TEXT NOT NULL
  )`

  // How far each target of audit.export has had the log.
  yield* sql`CREATE TABLE audit_export (target TEXT PRIMARY KEY, position BIGINT NOT NULL)`

  // What roles may do; built-in ones are not here. `permissions` is JSON. `generation` is for If-Match.
  yield* sql`CREATE TABLE access_role (
    name TEXT PRIMARY KEY,
    description TEXT NOT NULL,
    permissions TEXT NOT NULL,
    generation BIGINT NOT NULL,
    created_at BIGINT NOT NULL,
    created_by TEXT NOT NULL,
    updated_at BIGINT NOT NULL,
    updated_by TEXT NOT NULL
  )`
  // Names of roles, as JSON; NULL: as its role says. `generation` is for If-Match.
  yield* sql`ALTER TABLE access_token ADD COLUMN roles TEXT`
  yield* sql`ALTER TABLE access_token ADD COLUMN generation BIGINT NOT NULL DEFAULT 0`

  // What was set by the API: whole zones, and settings that take the place of the configuration's. `settings` is JSON.
  yield* sql`CREATE TABLE zone_setting (
    name TEXT PRIMARY KEY,
    origin TEXT NOT NULL,
    settings TEXT NOT NULL,
    generation BIGINT NOT NULL,
    created_at BIGINT NOT NULL,
    created_by TEXT NOT NULL,
    updated_at BIGINT NOT NULL,
    updated_by TEXT NOT NULL
  )`
  // What was in force for a zone, wherever it was set, with the range of time.
  yield* sql`CREATE TABLE zone_history (
    sequence ${serial},
    name ${name} NOT NULL,
    event TEXT NOT NULL,
    settings TEXT NOT NULL,
    actor TEXT NOT NULL,
    generation BIGINT NOT NULL,
    valid_from BIGINT NOT NULL,
    valid_to BIGINT
  )`
  yield* sql`CREATE INDEX zone_history_name ON zone_history (name, valid_from, sequence)`

  // `adopted`: taken over as it stood; `managed`: made by people through Prism.
  yield* sql`ALTER TABLE record ADD COLUMN origin TEXT NOT NULL DEFAULT 'adopted'`
  yield* sql`CREATE TABLE record_history (
    sequence ${serial},
    zone TEXT NOT NULL,
    name ${name} NOT NULL,
    type TEXT NOT NULL,
    event TEXT NOT NULL,
    ttl BIGINT NOT NULL,
    contents TEXT NOT NULL,
    owner TEXT NOT NULL,
    origin TEXT NOT NULL,
    generation BIGINT NOT NULL,
    valid_from BIGINT NOT NULL,
    valid_to BIGINT
  )`
  yield* sql`CREATE INDEX record_history_set ON record_history (zone, name, type, valid_from, sequence)`
  yield* sql`CREATE UNIQUE INDEX record_history_current ON record_history (zone, name, type) WHERE valid_to IS NULL`
  yield* sql`
    INSERT INTO record_history (zone, name, type, event, ttl, contents, owner, origin, generation, valid_from)
    SELECT zone, name, type, 'adopted', ttl, contents, owner, 'adopted', generation, since FROM record`
  // Record sets that were ever managed: a list as of a time walks these, and looks each one up.
  yield* sql`CREATE TABLE record_name (zone TEXT NOT NULL, name ${name} NOT NULL, type TEXT NOT NULL, PRIMARY KEY (zone, name, type))`
  yield* sql`INSERT INTO record_name (zone, name, type) SELECT zone, name, type FROM record`

  // Names that hosts ever had, and by which addresses and labels they were ever known: a list, of now or as of a time, walks
  // one of these in the order of names, and looks each name up.
  // A name is in another zone once one is made below: then it stands here twice.
  yield* sql`CREATE TABLE host_name (fqdn ${name} NOT NULL, zone TEXT NOT NULL, PRIMARY KEY (fqdn, zone))`
  yield* sql`CREATE INDEX host_name_zone ON host_name (zone, fqdn)`
  yield* sql`CREATE TABLE host_name_address (address TEXT NOT NULL, fqdn ${name} NOT NULL, PRIMARY KEY (address, fqdn))`
  // A label is `key=value` here.
  yield* sql`CREATE TABLE host_name_label (label TEXT NOT NULL, fqdn ${name} NOT NULL, PRIMARY KEY (label, fqdn))`
  yield* sql`INSERT INTO host_name (fqdn, zone) SELECT DISTINCT fqdn, zone FROM host_history`
  yield* sql.onDialectOrElse({
    pg: () => sql`
      INSERT INTO host_name_address (address, fqdn)
      SELECT DISTINCT a.value, h.fqdn FROM host_history h, jsonb_array_elements_text(h.addresses::jsonb) AS a(value)`,
    orElse: () => sql`
      INSERT INTO host_name_address (address, fqdn)
      SELECT DISTINCT a.value, h.fqdn FROM host_history h, json_each(h.addresses) a`
  })
  yield* sql.onDialectOrElse({
    pg: () => sql`
      INSERT INTO host_name_label (label, fqdn)
      SELECT DISTINCT l.key || '=' || l.value, h.fqdn FROM host_history h, jsonb_each_text(h.labels::jsonb) AS l(key, value)`,
    orElse: () => sql`
      INSERT INTO host_name_label (label, fqdn)
      SELECT DISTINCT l.key || '=' || l.value, h.fqdn FROM host_history h, json_each(h.labels) l`
  })
  // Names sort alike everywhere, or an index over them is of no use to the others.
  yield* sql.onDialectOrElse({
    pg: () => Effect.asVoid(sql`ALTER TABLE host_history ALTER COLUMN fqdn TYPE TEXT COLLATE "C"`),
    orElse: () => Effect.void
  })
  yield* sql`CREATE INDEX host_history_name ON host_history (fqdn, valid_from, sequence)`
  yield* sql`DROP INDEX host_state`
  yield* sql`CREATE INDEX host_zone_state ON host (zone, state, fqdn)`
  yield* sql`CREATE INDEX host_state ON host (state, fqdn)`

  // A host without a lease (1) never expires: it was registered by the API for a machine that does not beat.
  for (const table of ["host", "host_history"]) {
    yield* sql`ALTER TABLE ${sql(table)} ADD COLUMN is_static SMALLINT NOT NULL DEFAULT 0`
  }
  yield* sql`DROP INDEX host_lease`
  yield* sql`CREATE INDEX host_lease ON host (last_seen) WHERE state = 'online' AND is_static = 0`

  // Names of both are walked in the order of their bytes, beside those of hosts.
  yield* sql.onDialectOrElse({
    pg: () =>
      Effect.andThen(
        sql`ALTER TABLE record ALTER COLUMN name TYPE TEXT COLLATE "C"`,
        sql`ALTER TABLE published ALTER COLUMN name TYPE TEXT COLLATE "C"`
      ),
    orElse: () => Effect.void
  })

  // 1: its content has sets of other types than hosts have. What else stands at such a name need not be ours.
  yield* sql`ALTER TABLE published ADD COLUMN others SMALLINT NOT NULL DEFAULT 0`

  // When each name server was seen to answer, as JSON: for who asks how a record came about.
  yield* sql`ALTER TABLE published ADD COLUMN served_nodes TEXT`

  // Where events are sent. `position`: of the last event that was delivered or given up. `filter` is JSON.
  yield* sql`CREATE TABLE webhook (
    id TEXT PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    url TEXT NOT NULL,
    secret TEXT NOT NULL,
    filter TEXT NOT NULL,
    state TEXT NOT NULL,
    position BIGINT NOT NULL,
    attempts BIGINT NOT NULL,
    next_attempt BIGINT,
    last_error TEXT,
    last_success BIGINT,
    generation BIGINT NOT NULL,
    created_at BIGINT NOT NULL,
    created_by TEXT NOT NULL
  )`
  yield* sql`CREATE TABLE webhook_dead_letter (
    webhook TEXT NOT NULL REFERENCES webhook (id) ON DELETE CASCADE,
    position BIGINT NOT NULL,
    at BIGINT NOT NULL,
    attempts BIGINT NOT NULL,
    error TEXT NOT NULL,
    PRIMARY KEY (webhook, position)
  )`

  // Answers to requests that carried an Idempotency-Key. `fingerprint`: of the request; `rights`: of its caller then.
  yield* sql`CREATE TABLE idempotency (
    caller TEXT NOT NULL,
    key TEXT NOT NULL,
    fingerprint TEXT NOT NULL,
    rights TEXT NOT NULL,
    process TEXT NOT NULL,
    status BIGINT,
    headers TEXT,
    body TEXT,
    at BIGINT NOT NULL,
    PRIMARY KEY (caller, key)
  )`
  yield* sql`CREATE INDEX idempotency_at ON idempotency (at)`
})

/** Several servers on one registry. */
const cluster = Effect.gen(function* () {
  const sql = yield* SqlClient.SqlClient

  // One row for each start of a server. `state`: live, draining, left or dead. Times are the database's. `until`: it is not
  // declared dead before. `details` is JSON: where it listens, sessions, and the like, for people.
  yield* sql`CREATE TABLE instance (
    id TEXT PRIMARY KEY,
    name TEXT NOT NULL,
    version TEXT NOT NULL,
    state TEXT NOT NULL,
    started_at BIGINT NOT NULL,
    renewed_at BIGINT NOT NULL,
    until BIGINT NOT NULL,
    ended_at BIGINT,
    details TEXT NOT NULL
  )`
  // What only one instance does at a time: `zone/example.`, `job/sealer`. `epoch` rises with each holder.
  yield* sql`CREATE TABLE cluster_lease (
    name TEXT PRIMARY KEY,
    epoch BIGINT NOT NULL,
    instance TEXT,
    since BIGINT NOT NULL
  )`
  // One row: when leases of hosts were last looked at, until when none expires, and when some could expire last. For whoever
  // looks next.
  yield* sql`CREATE TABLE expiry (
    one SMALLINT PRIMARY KEY CHECK (one = 1),
    swept_at BIGINT NOT NULL,
    grace_until BIGINT NOT NULL,
    expired_at BIGINT NOT NULL
  )`
  // Rises with each change of what servers keep in memory, in the transaction of the change: who misses a signal sees it here.
  yield* sql`CREATE TABLE change_version (topic TEXT PRIMARY KEY, version BIGINT NOT NULL)`
})

/** Several PowerDNS databases, of which one takes the writes first. */
const databases = Effect.gen(function* () {
  const sql = yield* SqlClient.SqlClient
  const name = sql.literal(sql.onDialectOrElse({ pg: () => 'TEXT COLLATE "C"', orElse: () => "TEXT" }))

  // Names at which a database may lack what another has taken, until it has taken it too. `types` is JSON: those that are to
  // be as they are published. `generation`: of the publication; `unseen` is 1 until it was looked at what stands there.
  yield* sql`CREATE TABLE debt (
    debtor TEXT NOT NULL,
    zone TEXT NOT NULL,
    name ${name} NOT NULL,
    generation BIGINT NOT NULL,
    types TEXT NOT NULL,
    unseen BIGINT NOT NULL,
    PRIMARY KEY (debtor, zone, name)
  )`
  // Zones of which a database has had all that was published when it was first seen.
  yield* sql`CREATE TABLE debtor (
    name TEXT NOT NULL,
    zone TEXT NOT NULL,
    PRIMARY KEY (name, zone)
  )`
})

/**
 * What was, in partitions: old ones are dropped, and what is asked of some time touches few. SQLite has none, and deletes.
 *
 * What there is stays where it stands and becomes the first partition of each; only what is true of hosts now is copied. Rows
 * that no partition is made for go to the rest.
 */
const partitions = Effect.gen(function* () {
  const sql = yield* SqlClient.SqlClient
  // What hosts were before then is not known any more, or not all of it.
  yield* sql`CREATE TABLE history_start (since BIGINT NOT NULL)`
  yield* sql`INSERT INTO history_start (since) VALUES (0)`
  yield* sql.onDialectOrElse({
    pg: () => Effect.andThen(partitionAudit(sql), partitionHistory(sql)),
    orElse: () => Effect.void
  })
})

/** By positions. */
const partitionAudit = Effect.fnUntraced(function* (sql: SqlClient.SqlClient) {
  const entries = 1_000_000
  const [row] = yield* sql<{ readonly head: number | bigint | null }>`
    SELECT MAX(position) AS head FROM audit_log`
  const second = (Math.floor(Number(row?.head ?? 0) / entries) + 1) * entries
  const indexes = ["subject", "version", "zone", "actor", "action", "at", "request"]
  yield* sql`ALTER TABLE audit_log RENAME TO audit_log_first`
  yield* sql`ALTER INDEX audit_log_pkey RENAME TO audit_log_first_pkey`
  for (const index of indexes) {
    yield* sql`ALTER INDEX ${sql(`audit_log_${index}`)} RENAME TO ${sql(`audit_log_first_${index}`)}`
  }
  yield* sql`CREATE TABLE audit_log (LIKE audit_log_first, PRIMARY KEY (position)) PARTITION BY RANGE (position)`
  yield* sql`CREATE INDEX audit_log_subject ON audit_log (subject, position)`
  yield* sql`CREATE INDEX audit_log_version ON audit_log (subject, generation)`
  yield* sql`CREATE INDEX audit_log_zone ON audit_log (zone, position)`
  yield* sql`CREATE INDEX audit_log_actor ON audit_log (actor, position)`
  yield* sql`CREATE INDEX audit_log_action ON audit_log (action, position)`
  yield* sql`CREATE INDEX audit_log_at ON audit_log (at, position)`
  yield* sql`CREATE INDEX audit_log_request ON audit_log (request, position) WHERE request IS NOT NULL`
  yield* sql`CREATE TABLE audit_log_rest PARTITION OF audit_log DEFAULT`
  // It has these indexes already, which become parts of those.
  yield* sql`ALTER TABLE audit_log ATTACH PARTITION audit_log_first FOR VALUES FROM (MINVALUE) TO (${sql.literal(`${second}`)})`
  yield* sql`
    CREATE TABLE ${sql(`audit_log_${second}`)} PARTITION OF audit_log
    FOR VALUES FROM (${sql.literal(`${second}`)}) TO (${sql.literal(`${second + entries}`)})`
})

/**
 * By when it ended, and what has not ended in a partition of its own. One level of one expression, and no condition with OR:
 * PostgreSQL 15 leaves the rest of a partition of partitions away where there is one.
 */
const partitionHistory = Effect.fnUntraced(function* (sql: SqlClient.SqlClient) {
  const span = 28 * 86_400_000
  const second = (Math.floor((yield* Clock.currentTimeMillis) / span) + 1) * span
  const bound = sql.literal(`${second}`)
  const never = sql.literal("9223372036854775807")
  const ended = sql.literal("COALESCE(valid_to, 9223372036854775807)")
  const next = sql(`host_history_${new Date(second).toISOString().slice(0, 10).replaceAll("-", "")}`)
  yield* sql`ALTER TABLE host_history RENAME TO host_history_first`
  yield* sql`ALTER INDEX host_history_pkey RENAME TO host_history_first_pkey`
  yield* sql`ALTER INDEX host_history_host RENAME TO host_history_first_host`
  yield* sql`ALTER INDEX host_history_name RENAME TO host_history_first_name`
  yield* sql`DROP INDEX host_history_current`
  yield* sql`ALTER TABLE host_history_first ALTER COLUMN sequence DROP IDENTITY`
  yield* sql`CREATE TABLE host_history (LIKE host_history_first INCLUDING DEFAULTS) PARTITION BY RANGE ((${ended}))`
  yield* sql`CREATE SEQUENCE host_history_sequence OWNED BY host_history.sequence`
  yield* sql`
    SELECT setval('host_history_sequence', (SELECT COALESCE(MAX(sequence), 0) + 1 FROM host_history_first), false)`
  yield* sql`ALTER TABLE host_history ALTER COLUMN sequence SET DEFAULT nextval('host_history_sequence')`
  yield* sql`CREATE TABLE host_history_open PARTITION OF host_history FOR VALUES FROM (${never}) TO (MAXVALUE)`
  yield* sql`CREATE TABLE host_history_rest PARTITION OF host_history DEFAULT`

  yield* sql`INSERT INTO host_history_open SELECT * FROM host_history_first WHERE valid_to IS NULL`
  yield* sql`DELETE FROM host_history_first WHERE valid_to IS NULL`
  // Where a clock was ahead.
  yield* sql`INSERT INTO host_history_rest SELECT * FROM host_history_first WHERE valid_to >= ${bound}`
  yield* sql`DELETE FROM host_history_first WHERE valid_to >= ${bound}`

  // A key of the whole would have to hold what it is partitioned by: a number is unique, since nobody else gives numbers.
  yield* sql`ALTER TABLE host_history_open ADD PRIMARY KEY (sequence)`
  yield* sql`ALTER TABLE host_history_rest ADD PRIMARY KEY (sequence)`
  yield* sql`CREATE UNIQUE INDEX host_history_current ON host_history_open (host_id)`
  yield* sql`CREATE INDEX host_history_host ON host_history (host_id, valid_from)`
  yield* sql`CREATE INDEX host_history_name ON host_history (fqdn, valid_from, sequence)`
  yield* sql`ALTER TABLE host_history ATTACH PARTITION host_history_first FOR VALUES FROM (MINVALUE) TO (${bound})`
  yield* sql`CREATE TABLE ${next} (LIKE host_history_rest INCLUDING DEFAULTS INCLUDING INDEXES)`
  yield* sql`
    ALTER TABLE host_history ATTACH PARTITION ${next} FOR VALUES FROM (${bound}) TO (${sql.literal(`${second + span}`)})`
  // Not the empty ones: of a table that was never looked at PostgreSQL assumes that it is not empty for long.
  yield* sql`ANALYZE host_history_open`
})

/** Migrations by number; a released one is never edited. */
export const migrations = {
  "0001_registry": registry,
  "0002_identity": identity,
  "0003_steering": steering,
  "0004_cluster": cluster,
  "0005_databases": databases,
  "0006_partitions": partitions
}
