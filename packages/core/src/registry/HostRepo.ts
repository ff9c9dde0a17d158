/**
 * The statements of the registry, each over a whole batch.
 *
 * Belongs to `Registry` and `Expiry`, which decide and hold the transaction
 * open (`audit/Entries.inTransaction`: entries come last, behind the marks);
 * nothing here decides anything.
 */
import { Effect, Iterable, Option } from "effect"
import type { SqlClient, Statement } from "effect/sql"
import * as Audit from "../audit/Entries.ts"
import type { SignalsService } from "../cluster/Signals.ts"
import type { Cause } from "../dns/Cause.ts"
import type { DomainName } from "../domain/DomainName.ts"
import type { Host, HostState } from "../domain/Host.ts"
import type { IpAddress } from "../domain/IpAddress.ts"
import * as Partitions from "../storage/Partitions.ts"
import { asList, asTable, forRows, insertRows, lockOrder } from "../storage/Rows.ts"
import type { HostEvent } from "./Decision.ts"
import { type CountKey, deltasOf, type HostCount } from "./HostCounts.ts"
import * as HostLists from "./HostLists.ts"
import { fromHost, hostColumns, type HostRow, labelText, toHost } from "./HostRows.ts"
import * as HostRows from "./HostRows.ts"
import type { Seen } from "./Leases.ts"

/** A host before and after one change. After the event `released` there is none: `after` is what it was last, at the generation of its release. */
export interface HostChange {
  readonly event: HostEvent
  readonly before: Host | undefined
  readonly after: Host
}

export type { Actor } from "../audit/Entries.ts"
export type { HostFilter, HostsFound } from "./HostLists.ts"

/** A change with who made it, and why. */
export interface ActorChange extends HostChange {
  readonly actor: Audit.Actor
  readonly reason?: string | undefined
}

interface CountRow extends CountKey {
  readonly hosts: number | bigint
}

const toCount = ({ hosts, key, kind }: CountRow): HostCount => ({ kind, key, hosts: Number(hosts) })
const toRow = ({ hosts, key, kind }: HostCount) => ({ kind, key, hosts })
const keyOf = ({ key, kind }: CountKey) => ({ kind, key })

/** What an audit entry says of a host; in the order of keys, in which it is written. */
const auditView = (host: Host | undefined) =>
  host === undefined
    ? undefined
    : {
        addresses: host.addresses,
        labels: Object.keys(host.labels).length > 0 ? host.labels : undefined,
        lease: host.isStatic ? "none" : undefined,
        owner: host.owner,
        state: host.state,
        ttlSeconds: host.ttlSeconds,
        withdrawn: host.withdrawnSinceMillis !== undefined
      }

/** What a host keeps for as long as it is there. */
const fixedColumns: ReadonlyArray<string> = ["id", "fqdn", "first_seen"]

/** What asks for the host of a name. */
export const byName = (sql: SqlClient.SqlClient, fqdn: DomainName) =>
  sql<HostRow>`SELECT ${sql.literal(HostRows.columns)} FROM host WHERE fqdn = ${fqdn}`

/** With `signals` other servers are told of the hosts that were written. */
export const make = (sql: SqlClient.SqlClient, signals?: Pick<SignalsService, "send">) => {
  const columns = sql.literal(HostRows.columns)
  const forUpdate = sql.literal(sql.onDialectOrElse({ pg: () => "FOR UPDATE", orElse: () => "" }))
  const inOrder = lockOrder(sql, ["fqdn"])
  // What time does to hosts leaves those alone that are being registered at this moment: they are looked at next time.
  const free = sql.literal(sql.onDialectOrElse({ pg: () => "FOR UPDATE SKIP LOCKED", orElse: () => "" }))

  /** Hosts with these names, locked until the transaction ends, always in the same order. */
  const lockByName = (fqdns: ReadonlyArray<DomainName>) =>
    Effect.map(
      sql<HostRow>`SELECT ${columns} FROM host WHERE fqdn IN ${asList(sql, fqdns)} ORDER BY ${inOrder} ${forUpdate}`,
      (rows) => rows.map(toHost)
    )

  /** Whether a change of a host was committed at this generation, of late. */
  const hasVersion = (fqdn: DomainName, event: HostEvent, generation: number) =>
    Effect.map(
      sql`SELECT 1 FROM host_history WHERE fqdn = ${fqdn} AND generation = ${generation} AND event = ${event} LIMIT 1`,
      (rows) => rows.length > 0
    )

  /** One statement for each table, whatever the number of hosts. Gives the counts that it has changed, as they are now. */
  const write = Effect.fnUntraced(function* (changes: ReadonlyArray<ActorChange>, nowMillis: number, cause: Cause) {
    const created = changes.filter(({ before }) => before === undefined).map(({ after }) => after)
    const released = changes.filter(({ event }) => event === "released").map(({ after }) => after.id)
    const updated = changes
      .filter(({ before, event }) => before !== undefined && event !== "released")
      .map(({ after }) => after)
    if (created.length > 0) yield* insertRows(sql, "host", hostColumns, created.map(fromHost), { by: ["fqdn"] })
    if (updated.length > 0) {
      const changing = Object.keys(hostColumns).filter((column) => !fixedColumns.includes(column))
      yield* forRows(sql, hostColumns, updated.map(fromHost), {
        all: (r) =>
          sql`UPDATE host SET ${sql.literal(changing.map((column) => `${column} = r.${column}`).join(", "))} FROM ${r} WHERE host.id = r.id`,
        each: `UPDATE host SET ${Object.keys(hostColumns)
          .flatMap((column, i) => (fixedColumns.includes(column) ? [] : `${column} = ?${i + 1}`))
          .join(", ")} WHERE id = ?1`
      })
    }
    // Its addresses go with it.
    if (released.length > 0) yield* sql`DELETE FROM host WHERE id IN ${asList(sql, released)}`
    yield* writeAddresses(changes, nowMillis)
    yield* writeNames(changes)
    yield* writeHistory(changes, nowMillis)
    yield* writeAudit(changes, nowMillis, cause)
    const counts = yield* writeCounts(changes)
    if (signals !== undefined) {
      const tell = Effect.sync(() =>
        signals.send(
          "hosts",
          Iterable.map(changes, ({ after }) => after.fqdn)
        )
      )
      yield* sql.afterCommit(tell)
    }
    return counts
  })

  /** In the order of keys, so that transactions wait, but not for each other: behind the hosts, before the marks. */
  const writeCounts = Effect.fnUntraced(function* (changes: ReadonlyArray<HostChange>) {
    const deltas = deltasOf(
      changes.map(({ after, before, event }) => ({ before, after: event === "released" ? undefined : after }))
    )
    if (deltas.length === 0) return []
    const counts = yield* sql<CountRow>`
      INSERT INTO host_count (kind, key, hosts)
      SELECT kind, key, hosts FROM ${asTable(sql, "r", { kind: "text", key: "text", hosts: "bigint" }, deltas.map(toRow))}
      WHERE true ORDER BY ${lockOrder(sql, ["kind", "key"])}
      ON CONFLICT (kind, key) DO UPDATE SET hosts = host_count.hosts + excluded.hosts
      RETURNING kind, key, hosts`
    const none = counts.filter(({ hosts }) => Number(hosts) <= 0)
    if (none.length > 0) {
      // Identities come and go: what has no host is not kept.
      yield* sql`
        DELETE FROM host_count WHERE hosts <= 0 AND (kind, key) IN (
          SELECT kind, key FROM ${asTable(sql, "r", { kind: "text", key: "text" }, none.map(keyOf))})`
    }
    return counts.map(toCount)
  })

  /** The counts of `keys`; those of zero are absent. */
  const countsOf = (keys: ReadonlyArray<CountKey>) =>
    Effect.map(
      sql<CountRow>`
        SELECT kind, key, hosts FROM host_count WHERE (kind, key) IN (
          SELECT kind, key FROM ${asTable(sql, "r", { kind: "text", key: "text" }, keys.map(keyOf))})`,
      (rows) => rows.map(toCount)
    )

  const writeAddresses = Effect.fnUntraced(function* (changes: ReadonlyArray<HostChange>, nowMillis: number) {
    const pair = (host: Host) => (address: IpAddress) => ({ address, host_id: host.id })
    const lost = changes.flatMap(({ after, before }) =>
      (before?.addresses ?? []).filter((address) => !after.addresses.includes(address)).map(pair(after))
    )
    // A host that returns claims its address anew: it was someone else's to claim meanwhile.
    const gained = changes
      .filter(({ event }) => event === "created" || event === "changed" || event === "returned")
      .flatMap(({ after, before, event }) =>
        after.addresses
          .filter((address) => event === "returned" || before?.addresses.includes(address) !== true)
          .map(pair(after))
      )
    const shape = { address: "text", host_id: "text" } as const
    if (lost.length > 0) {
      yield* sql`
        DELETE FROM host_address WHERE (address, host_id) IN (
          SELECT address, host_id FROM ${asTable(sql, "r", shape, lost)})`
    }
    if (gained.length > 0) {
      yield* insertRows(
        sql,
        "host_address",
        { ...shape, since: "bigint" },
        gained.map((row) => ({ ...row, since: nowMillis })),
        { conflict: "ON CONFLICT (address, host_id) DO UPDATE SET since = excluded.since" }
      )
    }
  })

  /**
   * By which names, addresses and labels hosts were ever known, for lists. Only what a host comes to have is written; that
   * it is there already, from another time, costs a probe of the index.
   */
  const writeNames = Effect.fnUntraced(function* (changes: ReadonlyArray<HostChange>) {
    const names = changes.filter(({ after, before }) => before?.zone !== after.zone)
    const addresses = changes.flatMap(({ after, before }) =>
      after.addresses
        .filter((address) => before?.addresses.includes(address) !== true)
        .map((address) => ({ address, fqdn: after.fqdn }))
    )
    const labels = changes.flatMap(({ after, before }) =>
      Object.entries(after.labels)
        .filter(([key, value]) => before?.labels[key] !== value)
        .map((label) => ({ label: labelText(label), fqdn: after.fqdn }))
    )
    const unlessThere = { conflict: "ON CONFLICT DO NOTHING" }
    if (names.length > 0) {
      const rows = names.map(({ after: { fqdn, zone } }) => ({ fqdn, zone }))
      yield* insertRows(sql, "host_name", { fqdn: "text", zone: "text" }, rows, unlessThere)
    }
    if (addresses.length > 0) {
      yield* insertRows(sql, "host_name_address", { address: "text", fqdn: "text" }, addresses, unlessThere)
    }
    if (labels.length > 0) {
      yield* insertRows(sql, "host_name_label", { label: "text", fqdn: "text" }, labels, unlessThere)
    }
  })

  const open = sql.literal(
    sql.onDialectOrElse({ pg: () => `valid_to IS NULL AND ${Partitions.isOpen}`, orElse: () => "valid_to IS NULL" })
  )

  const writeHistory = Effect.fnUntraced(function* (changes: ReadonlyArray<HostChange>, nowMillis: number) {
    const known = changes.filter(({ before }) => before !== undefined).map(({ after }) => after.id)
    // A range begins where the one before ends, and none ends before it began, even when the clock goes back.
    const closed =
      known.length === 0
        ? []
        : yield* sql<{ readonly host_id: string; readonly valid_to: number | bigint }>`
            UPDATE host_history SET valid_to = CASE WHEN valid_from > ${nowMillis} THEN valid_from ELSE ${nowMillis} END
            WHERE ${open} AND host_id IN ${asList(sql, known)} RETURNING host_id, valid_to`
    const validFrom = new Map(closed.map((row) => [row.host_id, Number(row.valid_to)]))
    yield* insertRows(
      sql,
      "host_history",
      {
        host_id: "text",
        fqdn: "text",
        zone: "text",
        event: "text",
        addresses: "text",
        labels: "text",
        ttl: "bigint",
        owner: "text",
        is_static: "bigint",
        state: "text",
        generation: "bigint",
        valid_from: "bigint",
        valid_to: "bigint"
      },
      changes.map(({ after, event }) => {
        const fromMillis = validFrom.get(after.id) ?? nowMillis
        return {
          host_id: after.id,
          fqdn: after.fqdn,
          zone: after.zone,
          event,
          addresses: JSON.stringify(after.addresses),
          labels: JSON.stringify(after.labels),
          ttl: after.ttlSeconds ?? null,
          owner: after.owner,
          is_static: after.isStatic ? 1 : 0,
          state: after.state,
          generation: after.generation,
          valid_from: fromMillis,
          // A release is a moment: nothing is true of the host from then on.
          valid_to: event === "released" ? fromMillis : null
        }
      })
    )
  })

  const writeAudit = (changes: ReadonlyArray<ActorChange>, nowMillis: number, cause: Cause) =>
    Audit.writeAll(
      sql,
      changes.map(({ actor, after, before, event, reason }) => ({
        actor,
        action: `host.${event}` as const,
        zone: after.zone,
        subject: after.fqdn,
        generation: after.generation,
        before: auditView(before),
        after: event === "released" ? undefined : auditView(after),
        reason,
        cause
      })),
      nowMillis
    )

  const seenTable = (seen: ReadonlyArray<Seen>) =>
    asTable(
      sql,
      "r",
      { id: "text", generation: "bigint", at: "bigint" },
      seen.map(({ atMillis, generation, id }) => ({ id, generation, at: atMillis }))
    )
  const ofSeen = sql.literal("host.id = r.id AND host.generation = r.generation AND host.state = 'online'")

  /**
   * Moves `last_seen` forward, never back, of hosts that are online at the generation that was seen; returns their ids. In the
   * order in which `lockByName` takes them. `which`: what becomes of hosts that others have locked.
   */
  const moveSeen = (seen: ReadonlyArray<Seen>, which: "wait" | "skip") => {
    const r = seenTable(seen)
    const skipping = sql.literal(which === "skip" ? "SKIP LOCKED" : "")
    const locked = sql.onDialectOrElse({
      pg: () => sql`(
        SELECT host.id, r.generation, r.at FROM host JOIN ${r} ON ${ofSeen}
        ORDER BY ${inOrder} FOR UPDATE OF host ${skipping}) AS r`,
      orElse: () => r
    })
    return Effect.map(
      sql<{ readonly id: string }>`
        UPDATE host SET last_seen = CASE WHEN host.last_seen < r.at THEN r.at ELSE host.last_seen END
        FROM ${locked} WHERE ${ofSeen} RETURNING host.id`,
      (rows) => new Set(rows.map((row) => row.id))
    )
  }

  /**
   * As `moveSeen`, of those that no other transaction holds, so that nobody waits for us while we wait for others. `busy` are
   * held; `moved` are not as they were seen any more.
   */
  const moveSeenOfFree = Effect.fnUntraced(function* (seen: ReadonlyArray<Seen>) {
    const flushed = yield* moveSeen(seen, "skip")
    const left = seen.filter(({ id }) => !flushed.has(id))
    if (left.length === 0) return { busy: left, moved: left }
    const same = yield* sql.onDialectOrElse({
      pg: () => sql<{ readonly id: string }>`SELECT host.id FROM host JOIN ${seenTable(left)} ON ${ofSeen}`,
      orElse: () => Effect.succeed([])
    })
    const held = new Set(same.map(({ id }) => id))
    return { busy: left.filter(({ id }) => held.has(id)), moved: left.filter(({ id }) => !held.has(id)) }
  })

  /** Online hosts with a lease, last seen before `beforeMillis`, locked. */
  const lockExpired = (beforeMillis: number, limit: number) =>
    Effect.map(
      sql<HostRow>`
        SELECT ${columns} FROM host WHERE state = 'online' AND is_static = 0 AND last_seen < ${beforeMillis}
        ORDER BY last_seen LIMIT ${limit} ${free}`,
      (rows) => rows.map(toHost)
    )

  /** Hosts of a zone that have been offline since before `beforeMillis` with their records still there, locked. */
  const lockWithdrawable = (zone: DomainName, beforeMillis: number, limit: number) =>
    Effect.map(
      sql<HostRow>`
        SELECT ${columns} FROM host
        WHERE zone = ${zone} AND state = 'offline' AND withdrawn_since IS NULL AND offline_since <= ${beforeMillis}
        ORDER BY offline_since LIMIT ${limit} ${free}`,
      (rows) => rows.map(toHost)
    )

  /** Hosts of a zone that have been offline since before `beforeMillis`, their records withdrawn or not, locked. */
  const lockRetirable = (zone: DomainName, beforeMillis: number, limit: number) =>
    Effect.map(
      sql<HostRow>`
        SELECT ${columns} FROM host WHERE zone = ${zone} AND state = 'offline' AND offline_since <= ${beforeMillis}
        ORDER BY offline_since LIMIT ${limit} ${free}`,
      (rows) => rows.map(toHost)
    )

  /** Hosts of a zone that have been retired since before `beforeMillis`, locked. */
  const lockReleasable = (zone: DomainName, beforeMillis: number, limit: number) =>
    Effect.map(
      sql<HostRow>`
        SELECT ${columns} FROM host WHERE zone = ${zone} AND state = 'retired' AND retired_since <= ${beforeMillis}
        ORDER BY retired_since LIMIT ${limit} ${free}`,
      (rows) => rows.map(toHost)
    )

  /** Online hosts with a lease, last seen before `beforeMillis`, and not before `seenMillis`. */
  const countSilent = (beforeMillis: number, seenMillis: number) =>
    Effect.map(
      sql<{ readonly hosts: number | bigint }>`
        SELECT COUNT(*) AS hosts FROM host
        WHERE state = 'online' AND is_static = 0 AND last_seen < ${beforeMillis} AND last_seen >= ${seenMillis}`,
      (rows) => Number(rows[0]!.hosts)
    )

  /** Hosts offline since after `sinceMillis` that were not last seen before `seenMillis`. */
  const countGone = (sinceMillis: number, seenMillis: number) =>
    Effect.map(
      sql<{ readonly hosts: number | bigint }>`
        SELECT COUNT(*) AS hosts FROM host
        WHERE state = 'offline' AND offline_since > ${sinceMillis} AND last_seen >= ${seenMillis}`,
      (rows) => Number(rows[0]!.hosts)
    )

  /** Online hosts with a lease. */
  const countOnline = Effect.map(
    sql<{
      readonly hosts: number | bigint
    }>`SELECT COUNT(*) AS hosts FROM host WHERE state = 'online' AND is_static = 0`,
    (rows) => Number(rows[0]!.hosts)
  )

  const findOne = (condition: Statement.Fragment) =>
    Effect.map(sql<HostRow>`SELECT ${columns} FROM host WHERE ${condition}`, (rows) =>
      Option.map(Option.fromNullishOr(rows[0]), toHost)
    )

  /** By name. */
  const findNamed = (fqdns: ReadonlyArray<DomainName>) =>
    Effect.map(
      sql<HostRow>`SELECT ${columns} FROM host WHERE fqdn IN ${asList(sql, fqdns)}`,
      (rows): ReadonlyMap<DomainName, Host> => new Map(rows.map((row) => [row.fqdn, toHost(row)]))
    )

  const findAll = ({
    ids,
    names
  }: {
    readonly ids: ReadonlyArray<string>
    readonly names: ReadonlyArray<DomainName>
  }) =>
    Effect.map(
      sql<HostRow>`
        SELECT ${columns} FROM host WHERE fqdn IN ${asList(sql, names)}
        UNION SELECT ${columns} FROM host WHERE id IN ${asList(sql, ids)}`,
      (rows) => rows.map(toHost)
    )

  const countByState = Effect.map(
    sql<{ readonly zone: DomainName; readonly state: HostState; readonly hosts: number | bigint }>`
      SELECT zone, state, COUNT(*) AS hosts FROM host GROUP BY zone, state`,
    (rows) => rows.map((row) => ({ zone: row.zone, state: row.state, hosts: Number(row.hosts) }))
  )

  return {
    lockByName,
    hasVersion,
    write,
    countsOf,
    moveSeen,
    moveSeenOfFree,
    lockExpired,
    lockWithdrawable,
    lockRetirable,
    lockReleasable,
    countSilent,
    countGone,
    countOnline,
    findById: (id: string) => findOne(sql`id = ${id}`),
    findByName: (fqdn: DomainName) =>
      Effect.map(byName(sql, fqdn), (rows) => Option.map(Option.fromNullishOr(rows[0]), toHost)),
    findNamed,
    findAll,
    page: HostLists.make(sql).present,
    countByState
  }
}

export type HostRepo = ReturnType<typeof make>
