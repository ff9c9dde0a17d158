/**
 * The statements about zones: what the API has set for them, and what was in
 * force for them when.
 *
 * Belongs to `dns/Zones`, which reads, and `registry/ManagedZones`, which decides and
 * holds the transaction open. Whoever changes zones has the lock (`lock`) first,
 * so of any two changes the second one sees all of the first.
 */
import { Clock, Effect } from "effect"
import type { SqlClient } from "effect/sql"
import * as Audit from "../audit/Entries.ts"
import type { DomainName } from "../domain/DomainName.ts"
import type * as Zone from "../domain/Zone.ts"
import * as ZoneOf from "../domain/Zone.ts"
import { type Overlay, overlaid, pointersOf, settingsOf, type ZoneSettings } from "../domain/ZoneSettings.ts"
import * as Generation from "../storage/Generation.ts"

/** The actor of what follows from a changed configuration. */
export const configuration: Audit.Actor = { name: "configuration", peer: undefined }

/** A zone as it was in force: its settings, and where they were set. */
export interface Recorded extends ZoneSettings {
  readonly origin: Zone.Origin
  readonly overridden: ReadonlyArray<string>
}

export const recordedOf = (zone: Zone.Zone): Recorded => ({
  ...settingsOf(zone),
  origin: zone.origin,
  overridden: zone.overridden
})

export type ZoneEvent = "created" | "changed" | "deleted"

/** What was in force from one moment to another. */
export interface Version {
  readonly name: DomainName
  readonly event: ZoneEvent
  readonly settings: Recorded
  readonly actor: string
  readonly generation: number
  readonly fromMillis: number
  /** Undefined: it is in force. The same as `fromMillis` for a deletion. */
  readonly toMillis: number | undefined
}

interface HistoryRow {
  readonly name: DomainName
  readonly event: ZoneEvent
  readonly settings: string
  readonly actor: string
  readonly generation: number | bigint
  readonly valid_from: number | bigint
  readonly valid_to: number | bigint | null
}

const toVersion = (row: HistoryRow): Version => ({
  name: row.name,
  event: row.event,
  settings: JSON.parse(row.settings) as Recorded,
  actor: row.actor,
  generation: Number(row.generation),
  fromMillis: Number(row.valid_from),
  toMillis: row.valid_to === null ? undefined : Number(row.valid_to)
})

/** What the API has set for a zone: all of it, or in place of the configuration's. */
export interface Setting {
  readonly name: DomainName
  readonly origin: Zone.Origin
  readonly overlay: Overlay
}

/** What a start finds changed. */
interface Noted {
  readonly name: DomainName
  readonly event: ZoneEvent
  readonly before: Recorded | undefined
  readonly after: Recorded | undefined
}

/** Any number will do, as long as it stays. */
const zonesLock = 7_001_003

export const make = (sql: SqlClient.SqlClient, configured: ReadonlyArray<Zone.Zone>) => {
  const configuredByName = new Map(configured.map((zone) => [zone.name, zone]))

  /** Keeps other changes of zones out until the transaction ends. SQLite has one writer. */
  const lock = sql.onDialectOrElse({
    pg: () => Effect.asVoid(sql`SELECT pg_advisory_xact_lock(${zonesLock})`),
    orElse: () => Effect.void
  })

  /** Rises with each change of a zone. */
  const version = Effect.map(
    sql<{ readonly version: number | bigint | null }>`SELECT MAX(sequence) AS version FROM zone_history`,
    ([row]) => Number(row?.version ?? 0)
  )

  const settings = Effect.map(
    sql<{ readonly name: DomainName; readonly origin: Zone.Origin; readonly settings: string }>`
      SELECT name, origin, settings FROM zone_setting ORDER BY name`,
    (rows) =>
      rows.map(({ name, origin, settings }): Setting => ({ name, origin, overlay: JSON.parse(settings) as Overlay }))
  )

  /** The zone that the configuration and an overlay make together. */
  const zoneWith = (name: DomainName, overlay: Overlay, generation: number): Zone.Zone => {
    const base = configuredByName.get(name)
    return overlaid(base ?? ZoneOf.make(name), overlay, {
      generation,
      origin: base === undefined ? "api" : "configuration",
      overridden: base === undefined ? [] : pointersOf(overlay)
    })
  }

  /** All that are in force by these settings. What was set for a zone that is configured no more waits for its return. */
  const inForce = (
    set: ReadonlyArray<Setting>,
    generations: ReadonlyMap<DomainName, number>
  ): ReadonlyArray<Zone.Zone> => {
    const overlays = new Map(set.map(({ name, overlay }) => [name, overlay]))
    const made = set.filter(({ name, origin }) => origin === "api" && !configuredByName.has(name))
    return [...configured, ...made].map(({ name }) =>
      zoneWith(name, overlays.get(name) ?? {}, generations.get(name) ?? 0)
    )
  }

  const columns = sql.literal("name, event, settings, actor, generation, valid_from, valid_to")

  const current = Effect.map(
    sql<HistoryRow>`SELECT ${columns} FROM zone_history WHERE valid_to IS NULL ORDER BY name`,
    (rows) => rows.map(toVersion)
  )

  /** What is in force. The version is read first: what changes meanwhile makes the zones newer than it, never older. */
  const load = Effect.gen(function* () {
    const at = yield* version
    const generations = new Map((yield* current).map(({ generation, name }) => [name, generation]))
    return { version: at, zones: inForce(yield* settings, generations) }
  })

  /** Ends what was in force for a zone, and begins what is from now on; none ends before it began, even when the clock goes back. */
  const record = Effect.fnUntraced(function* (
    zone: { readonly name: DomainName; readonly event: ZoneEvent; readonly settings: Recorded },
    by: { readonly actor: string; readonly generation: number; readonly nowMillis: number }
  ) {
    const { actor, generation, nowMillis } = by
    const closed = yield* sql<{ readonly valid_to: number | bigint }>`
      UPDATE zone_history SET valid_to = CASE WHEN valid_from > ${nowMillis} THEN valid_from ELSE ${nowMillis} END
      WHERE name = ${zone.name} AND valid_to IS NULL RETURNING valid_to`
    const fromMillis = Number(closed[0]?.valid_to ?? nowMillis)
    yield* sql`
      INSERT INTO zone_history (name, event, settings, actor, generation, valid_from, valid_to)
      VALUES (${zone.name}, ${zone.event}, ${JSON.stringify(zone.settings)}, ${actor}, ${generation}, ${fromMillis},
        ${zone.event === "deleted" ? fromMillis : null})`
  })

  /** Writes down what the configuration of this start has changed. */
  const noteConfigured = Effect.gen(function* () {
    yield* lock
    const known = new Map((yield* current).map((version) => [version.name, version]))
    const zones = inForce(yield* settings, new Map())
    const changes = zones.flatMap((zone): ReadonlyArray<Noted> => {
      const before = known.get(zone.name)?.settings
      const after = recordedOf(zone)
      if (JSON.stringify(before) === JSON.stringify(after)) return []
      return [{ name: zone.name, event: before === undefined ? "created" : "changed", before, after }]
    })
    const names = new Set(zones.map(({ name }) => name))
    const gone = [...known.values()]
      .filter(({ name }) => !names.has(name))
      .map(({ name, settings }): Noted => ({ name, event: "deleted", before: settings, after: undefined }))
    const all = [...gone, ...changes]
    if (all.length === 0) return
    const generation = yield* Generation.next(sql)
    const nowMillis = yield* Clock.currentTimeMillis
    for (const { after, before, event, name } of all) {
      yield* record({ name, event, settings: (after ?? before)! }, { actor: configuration.name, generation, nowMillis })
    }
    yield* Audit.writeAll(
      sql,
      all.map(({ after, before, event, name }) => ({
        actor: configuration,
        action: `zone.${event}`,
        zone: name,
        subject: name,
        generation,
        before,
        after
      })),
      nowMillis
    )
  }).pipe(sql.withTransaction)

  return {
    lock,
    version,
    load,
    noteConfigured,
    record,
    zoneWith,

    findSetting: (name: DomainName) =>
      Effect.map(
        sql<{ readonly origin: Zone.Origin; readonly settings: string }>`
          SELECT origin, settings FROM zone_setting WHERE name = ${name}`,
        ([row]): Setting | undefined =>
          row === undefined ? undefined : { name, origin: row.origin, overlay: JSON.parse(row.settings) as Overlay }
      ),

    writeSetting: (
      { name, origin, overlay }: Setting,
      {
        actor,
        generation,
        nowMillis
      }: { readonly actor: string; readonly generation: number; readonly nowMillis: number }
    ) => sql`
      INSERT INTO zone_setting (name, origin, settings, generation, created_at, created_by, updated_at, updated_by)
      VALUES (${name}, ${origin}, ${JSON.stringify(overlay)}, ${generation}, ${nowMillis}, ${actor}, ${nowMillis}, ${actor})
      ON CONFLICT (name) DO UPDATE SET origin = excluded.origin, settings = excluded.settings, generation = excluded.generation,
        updated_at = excluded.updated_at, updated_by = excluded.updated_by`,

    removeSetting: (name: DomainName) => sql`DELETE FROM zone_setting WHERE name = ${name}`,

    /** What is in force for a zone, by its history. */
    findCurrent: (name: DomainName) =>
      Effect.map(
        sql<HistoryRow>`SELECT ${columns} FROM zone_history WHERE name = ${name} AND valid_to IS NULL`,
        ([row]) => (row === undefined ? undefined : toVersion(row))
      ),

    /** Versions of a zone, the newest first. */
    history: (name: DomainName, { before, limit }: { readonly before: number | undefined; readonly limit: number }) =>
      Effect.map(
        sql<HistoryRow & { readonly sequence: number | bigint }>`
          SELECT sequence, ${columns} FROM zone_history
          WHERE name = ${name} AND sequence < ${before ?? Number.MAX_SAFE_INTEGER} ORDER BY sequence DESC LIMIT ${limit}`,
        (rows) => rows.map((row) => ({ sequence: Number(row.sequence), ...toVersion(row) }))
      ),

    findVersion: (name: DomainName, generation: number) =>
      Effect.map(
        sql<HistoryRow>`
          SELECT ${columns} FROM zone_history WHERE name = ${name} AND generation = ${generation}
          ORDER BY sequence DESC LIMIT 1`,
        ([row]) => (row === undefined ? undefined : toVersion(row))
      ),

    findAt: (name: DomainName, atMillis: number) =>
      Effect.map(
        sql<HistoryRow>`
          SELECT ${columns} FROM zone_history
          WHERE name = ${name} AND valid_from <= ${atMillis} AND (valid_to IS NULL OR valid_to > ${atMillis})
          ORDER BY sequence DESC LIMIT 1`,
        ([row]) => (row === undefined ? undefined : toVersion(row))
      ),

    /** Of all zones that there were at a time, in the order of names. */
    listAt: (atMillis: number, { after, limit }: { readonly after: DomainName | undefined; readonly limit: number }) =>
      Effect.map(
        sql<HistoryRow>`
          SELECT ${columns} FROM zone_history
          WHERE valid_from <= ${atMillis} AND (valid_to IS NULL OR valid_to > ${atMillis}) AND name > ${after ?? ""}
          ORDER BY name, sequence LIMIT ${limit}`,
        (rows) => rows.map(toVersion)
      )
  }
}

export type ZoneRepo = ReturnType<typeof make>
