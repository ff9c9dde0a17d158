/**
 * What a PowerDNS database on PostgreSQL needs besides PowerDNS's own schema.
 *
 * Promises: writers of one zone take turns, over all servers of the database.
 * Without the lock two PATCHes of one zone at once both answer 204 and leave
 * records of each (PowerDNS/pdns#7128), on every version we tried. A server that
 * is frozen, or cut off, in its transaction gives the lock back within 10 s: seen
 * otherwise to keep the zone from every other server until it runs again. Leaves to
 * others: running it, once per database, as the owner of the tables.
 */

/** The advisory lock's first key: the name space that Prism uses in PowerDNS's database. */
export const lockNamespace = 7001

/** The setting that makes PowerDNS use the function below; `PowerDnsProcess` sets it by itself. */
export const deleteRRsetSetting = {
  name: "gpgsql-delete-rrset-query",
  value: "select pdns_delete_rrset($1,$2,$3)"
} as const

/**
 * SQL text, harmless to run again. PowerDNS's first statement for each changed RRset deletes the old one; here it
 * takes the zone's lock, which the transaction then holds to its end. The time limit is that of a pause between two
 * statements, in this transaction alone; a rectify of a million records pauses for some seconds.
 */
export const pgsqlLock = `
CREATE OR REPLACE FUNCTION pdns_delete_rrset(d int, n text, t text) RETURNS void LANGUAGE plpgsql VOLATILE AS $$
BEGIN
  PERFORM set_config('idle_in_transaction_session_timeout', '10s', true);
  PERFORM pg_advisory_xact_lock(${lockNamespace}, d);
  DELETE FROM records WHERE domain_id = d AND name = n AND type = t;
END $$;
`

/** SQL text, harmless to run again: one index instead of two makes filling a zone up to five times as fast. */
export const pgsqlIndexes = `
DROP INDEX IF EXISTS rec_name_index;
DROP INDEX IF EXISTS nametype_index;
CREATE INDEX IF NOT EXISTS rec_nt ON records (name, type, domain_id);
`
