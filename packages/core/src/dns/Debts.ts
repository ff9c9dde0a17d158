/**
 * What PowerDNS databases lack, where several of them are kept alike.
 *
 * A publication is taken by one database first. In the transaction that records
 * what it took stands, for each other one, a debt: the name, and the types that
 * may differ there. A debt says nothing of what the records are; whoever pays it
 * takes them from `published` at that moment, and clears it only at the
 * generation that was paid. Promises: each name once for each database, however
 * often it changes (no more than `unserved` has for a node that is away); what
 * was deleted meanwhile is not forgotten, nor by a restart; with one database
 * nothing is written. Leaves to others: paying (`dns/Copies`).
 */
import { Context, Effect, Layer, type Scope } from "effect"
import { SqlClient, type SqlError } from "effect/sql"
import type { DomainName } from "../domain/DomainName.ts"
import * as PowerDnsDatabases from "../powerdns/PowerDnsDatabases.ts"
import { asList, asTable, forRows, insertRows, lockOrder } from "../storage/Rows.ts"

/** A name at which a database may differ from what was published. */
export interface Debt {
  readonly name: DomainName
  /** Of the publication that made it. */
  readonly generation: number
  /** The types that may differ. */
  readonly types: ReadonlyArray<string>
  /** The name had nothing of ours before: what stands there may be someone else's, and nobody has looked yet. */
  readonly unseen: boolean
}

/**
 * Whether a record set of this type that stands there may be what Prism wrote before: a change of it has not come there
 * yet. Where nobody has looked since the name became ours, it is not known to be.
 */
export const mayBeOurs = (debt: Debt | undefined, type: string): boolean =>
  debt !== undefined && !debt.unseen && debt.types.includes(type)

export class Debts extends Context.Service<
  Debts,
  {
    /**
     * Each of `debtors` lacks this. Belongs into the transaction that records the publication. What a database lacks already
     * it goes on to lack.
     */
    readonly owe: (
      zone: DomainName,
      debtors: ReadonlyArray<string>,
      debts: ReadonlyArray<Debt>
    ) => Effect.Effect<void, SqlError.SqlError>
    /** To be called after that transaction: whoever pays looks at the zone. A lost call costs time, never truth. */
    readonly wake: (zone: DomainName) => void
    /** `f` is called with each zone that is woken, until the scope ends. */
    readonly onOwed: (f: (zone: DomainName) => void) => Effect.Effect<void, never, Scope.Scope>
    /** Those of `zones` of which the database lacks something. */
    readonly zonesOf: (
      debtor: string,
      zones: ReadonlyArray<DomainName>
    ) => Effect.Effect<ReadonlyArray<DomainName>, SqlError.SqlError>
    /** Up to `limit` of them, by name, beginning behind `after`. */
    readonly of: (
      debtor: string,
      zone: DomainName,
      after: DomainName | undefined,
      limit: number
    ) => Effect.Effect<ReadonlyArray<Debt>, SqlError.SqlError>
    /** Those of `names` that the database lacks. */
    readonly among: (
      debtor: string,
      zone: DomainName,
      names: ReadonlyArray<DomainName>
    ) => Effect.Effect<ReadonlyMap<DomainName, Debt>, SqlError.SqlError>
    /** It was looked at what stands at `names`, nothing that is not ours; or something of ours is about to be written there. */
    readonly seen: (
      debtor: string,
      zone: DomainName,
      names: ReadonlyArray<DomainName>
    ) => Effect.Effect<void, SqlError.SqlError>
    /** Paid, as far as the generation is still that one. */
    readonly clear: (
      debtor: string,
      zone: DomainName,
      debts: ReadonlyArray<Pick<Debt, "name" | "generation">>
    ) => Effect.Effect<void, SqlError.SqlError>
    /** Whether the database has had all that was published when it was seen first; the first one of a zone has. */
    readonly isKnown: (debtor: string, zone: DomainName) => Effect.Effect<boolean, SqlError.SqlError>
    readonly know: (debtor: string, zone: DomainName) => Effect.Effect<void, SqlError.SqlError>
  }
>()("@prism-dns/core/dns/Debts") {
  /**
   * A database that is not configured is filled anew when it comes back: meanwhile nobody keeps its debts. Those that it had
   * stay true; another server may have it configured at this moment.
   */
  static readonly layer = Layer.effect(
    Debts,
    Effect.gen(function* () {
      const sql = yield* SqlClient.SqlClient
      const databases = yield* PowerDnsDatabases.PowerDnsDatabases
      const configured = databases.all.map(({ name }) => name)
      if (configured.length > 1) yield* sql`DELETE FROM debtor WHERE name NOT IN ${asList(sql, configured)}`
      else yield* sql`DELETE FROM debtor`

      const bothTypes = sql.onDialectOrElse({
        pg: () => `(SELECT COALESCE(jsonb_agg(DISTINCT type), '[]')::text
          FROM jsonb_array_elements_text(debt.types::jsonb || excluded.types::jsonb) AS t (type))`,
        orElse: () => `(SELECT json_group_array(value) FROM (
          SELECT value FROM json_each(debt.types) UNION SELECT value FROM json_each(excluded.types)))`
      })
      // Rows are locked in the order in which `owe` writes them: two that pay and publish one zone would else wait for each other.
      const forUpdate = sql.literal(sql.onDialectOrElse({ pg: () => "FOR UPDATE", orElse: () => "" }))
      const listeners = new Set<(zone: DomainName) => void>()

      return Debts.of({
        owe: (zone, debtors, debts) => {
          if (debtors.length === 0 || debts.length === 0) return Effect.void
          const rows = debtors.flatMap((debtor) =>
            debts.map(({ generation, name, types, unseen }) => ({
              debtor,
              zone,
              name,
              generation,
              types: JSON.stringify(types),
              unseen: unseen ? 1 : 0
            }))
          )
          // Of one that stands nothing is read before: whoever pays may have looked at the name by then (`seen`).
          return Effect.asVoid(
            insertRows(
              sql,
              "debt",
              { debtor: "text", zone: "text", name: "text", generation: "bigint", types: "text", unseen: "bigint" },
              rows,
              {
                by: ["debtor", "name"],
                conflict: `ON CONFLICT (debtor, zone, name) DO UPDATE SET
                  generation = excluded.generation, types = ${bothTypes}`
              }
            )
          )
        },
        wake: (zone) => {
          for (const f of listeners) f(zone)
        },
        onOwed: (f) =>
          Effect.asVoid(
            Effect.acquireRelease(
              Effect.sync(() => listeners.add(f)),
              () => Effect.sync(() => listeners.delete(f))
            )
          ),
        zonesOf: (debtor, zones) =>
          Effect.map(
            sql<{ readonly zone: DomainName }>`
              SELECT r.zone FROM ${asTable(
                sql,
                "r",
                { zone: "text" },
                zones.map((zone) => ({ zone }))
              )}
              WHERE EXISTS (SELECT 1 FROM debt d WHERE d.debtor = ${debtor} AND d.zone = r.zone)`,
            (rows) => rows.map(({ zone }) => zone)
          ),
        of: (debtor, zone, after, limit) =>
          Effect.map(
            sql<DebtRow>`
              SELECT name, generation, types, unseen FROM debt
              WHERE debtor = ${debtor} AND zone = ${zone} AND name > ${after ?? ""} ORDER BY name LIMIT ${limit}`,
            (rows) => rows.map(toDebt)
          ),
        among: (debtor, zone, names) =>
          Effect.map(
            sql<DebtRow>`
              SELECT name, generation, types, unseen FROM debt
              WHERE debtor = ${debtor} AND zone = ${zone} AND name IN ${asList(sql, names)}`,
            (rows) => new Map(rows.map((row) => [row.name, toDebt(row)]))
          ),
        seen: (debtor, zone, names) =>
          names.length === 0
            ? Effect.void
            : Effect.asVoid(sql`
                WITH looked AS MATERIALIZED (
                  SELECT name FROM debt
                  WHERE debtor = ${debtor} AND zone = ${zone} AND unseen = 1 AND name IN ${asList(sql, names)}
                  ORDER BY ${lockOrder(sql, ["name"])} ${forUpdate})
                UPDATE debt SET unseen = 0
                WHERE debtor = ${debtor} AND zone = ${zone} AND name IN (SELECT name FROM looked)`),
        clear: (debtor, zone, debts) =>
          debts.length === 0
            ? Effect.void
            : Effect.asVoid(
                forRows(
                  sql,
                  { debtor: "text", zone: "text", name: "text", generation: "bigint" },
                  debts.map(({ generation, name }) => ({ debtor, zone, name, generation })),
                  {
                    all: (r) => sql`
                      WITH paid AS (
                        SELECT d.name FROM debt d JOIN ${r} ON d.name = r.name AND d.generation = r.generation
                        WHERE d.debtor = ${debtor} AND d.zone = ${zone} ORDER BY d.name COLLATE "C" FOR UPDATE OF d)
                      DELETE FROM debt USING paid
                      WHERE debt.debtor = ${debtor} AND debt.zone = ${zone} AND debt.name = paid.name`,
                    each: "DELETE FROM debt WHERE debtor = ?1 AND zone = ?2 AND name = ?3 AND generation = ?4"
                  }
                )
              ),
        isKnown: Effect.fnUntraced(function* (debtor, zone) {
          const rows = yield* sql<{ readonly name: string }>`SELECT name FROM debtor WHERE zone = ${zone}`
          return rows.some(({ name }) => name === debtor)
        }),
        know: (debtor, zone) =>
          Effect.asVoid(
            sql`INSERT INTO debtor (name, zone) SELECT name, zone FROM ${asTable(
              sql,
              "r",
              { name: "text", zone: "text" },
              [{ name: debtor, zone }]
            )} WHERE true ON CONFLICT DO NOTHING`
          )
      })
    })
  )
}

interface DebtRow {
  readonly name: DomainName
  readonly generation: number | bigint
  readonly types: string
  readonly unseen: number | bigint
}

const toDebt = (row: DebtRow): Debt => ({
  name: row.name,
  generation: Number(row.generation),
  types: JSON.parse(row.types) as ReadonlyArray<string>,
  unseen: Number(row.unseen) === 1
})
