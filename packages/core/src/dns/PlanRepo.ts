/**
 * The statements of plans, each over a whole page of changes, and the hash that
 * says whether the changes are those that were shown.
 *
 * Belongs to `Plans`, which decides and holds the transactions; nothing here
 * decides anything.
 */
import { Effect, Option } from "effect"
import type { SqlClient } from "effect/sql"
import { hash as digest } from "node:crypto"
import * as Audit from "../audit/Entries.ts"
import type { DomainName } from "../domain/DomainName.ts"
import type * as RRset from "../domain/RRset.ts"
import { asList, asTable } from "../storage/Rows.ts"
import type { Cause } from "./Cause.ts"
import type { PlanAction, PlanKind, PlanState } from "../domain/Plan.ts"
import type { NewChange, Plan, PlanChange, PlanCounts } from "./Plans.ts"

/** The hash of no changes. */
export const emptyHash = "sha256:0000000000000000000000000000000000000000000000000000000000000000"

const fromRRset = (rrset: RRset.RRset | undefined): readonly [number, ReadonlyArray<string>] | null =>
  rrset === undefined ? null : [rrset.ttlSeconds, rrset.contents]

/** What a change says, in one text. Its place and its outcome are no part of it. */
export const canonical = (change: NewChange): string =>
  JSON.stringify([
    change.name,
    change.type,
    change.action,
    fromRRset(change.before),
    fromRRset(change.after),
    change.reason,
    change.cause
  ])

/** Goes on from `hash` by `changes`, so that a plan can grow without reading it all again. */
export const extendHash = (hash: string, changes: ReadonlyArray<NewChange>): string => {
  let current = hash
  for (const change of changes) current = `sha256:${digest("sha256", `${current}\n${canonical(change)}`)}`
  return current
}

export const noCounts: PlanCounts = {
  changes: 0,
  names: 0,
  deletedNames: 0,
  create: 0,
  update: 0,
  delete: 0,
  repair: 0,
  adopt: 0,
  release: 0,
  ignore: 0,
  unignore: 0,
  keep: 0
}

/** Counts `changes` on top; all changes of a name are among them. */
export const addCounts = (counts: PlanCounts, changes: ReadonlyArray<NewChange>): PlanCounts => {
  const sum: { -readonly [Key in keyof PlanCounts]: number } = { ...counts }
  const names = new Set<string>()
  const deleted = new Set<string>()
  for (const { action, name } of changes) {
    sum[action] += 1
    names.add(name)
    if (action === "delete") deleted.add(name)
  }
  sum.changes += changes.length
  sum.names += names.size
  sum.deletedNames += deleted.size
  return sum
}

/** While it is being written, nobody sees it. */
type StoredState = PlanState | "making"

interface PlanRow {
  readonly id: string
  readonly zone: DomainName
  readonly kind: PlanKind
  readonly state: PlanState
  readonly made_at: number | bigint
  readonly made_by: string
  readonly generation: number | bigint
  readonly hash: string
  readonly reason: string
  readonly counts: string
  readonly decided_at: number | bigint | null
  readonly decided_by: string | null
  readonly decided_reason: string | null
}

const toPlan = (row: PlanRow): Plan => ({
  id: row.id,
  zone: row.zone,
  kind: row.kind,
  state: row.state,
  madeAtMillis: Number(row.made_at),
  madeBy: row.made_by,
  generation: Number(row.generation),
  hash: row.hash,
  reason: row.reason,
  counts: { ...noCounts, ...(JSON.parse(row.counts) as Partial<PlanCounts>) },
  decidedAtMillis: row.decided_at === null ? undefined : Number(row.decided_at),
  decidedBy: row.decided_by ?? undefined,
  decidedReason: row.decided_reason ?? undefined
})

interface ChangeRow {
  readonly ordinal: number | bigint
  readonly name: DomainName
  readonly type: string
  readonly action: PlanAction
  readonly before: string | null
  readonly after: string | null
  readonly reason: string
  readonly cause: Cause
  readonly outcome: string | null
}

const toText = (rrset: RRset.RRset | undefined): string | null =>
  rrset === undefined ? null : JSON.stringify(fromRRset(rrset))

const toRRset = (name: DomainName, type: string, text: string | null): RRset.RRset | undefined => {
  if (text === null) return undefined
  const [ttlSeconds, contents] = JSON.parse(text) as [number, ReadonlyArray<string>]
  return { name, type, ttlSeconds, contents }
}

const toChange = (row: ChangeRow): PlanChange => ({
  ordinal: Number(row.ordinal),
  name: row.name,
  type: row.type,
  action: row.action,
  before: toRRset(row.name, row.type, row.before),
  after: toRRset(row.name, row.type, row.after),
  reason: row.reason,
  cause: row.cause,
  outcome: row.outcome ?? undefined
})

/** An entry of the audit log, of which the plan is the cause. */
export type AuditEntry = Pick<Audit.Entry, "action" | "subject" | "before" | "after" | "reason">

/** What the registry knows of a name that may be newer than a plan. */
export interface NameFacts {
  readonly mark: { readonly generation: number; readonly plan: string | undefined; readonly cause: string } | undefined
  /** Undefined: the name is not ours. */
  readonly published: { readonly generation: number; readonly pending: boolean } | undefined
}

export const make = (sql: SqlClient.SqlClient) => {
  const columns = sql.literal(
    "id, zone, kind, state, made_at, made_by, generation, hash, reason, counts, decided_at, decided_by, decided_reason"
  )
  const changeColumns = sql.literal("ordinal, name, type, action, before, after, reason, cause, outcome")
  const forUpdate = sql.literal(sql.onDialectOrElse({ pg: () => "FOR UPDATE", orElse: () => "" }))
  const visible = sql.literal("state <> 'making'")

  const first = (rows: ReadonlyArray<PlanRow>) => Option.map(Option.fromNullishOr(rows[0]), toPlan)

  const insert = (plan: Plan, state: StoredState) => sql`
    INSERT INTO plan (id, zone, kind, state, made_at, made_by, generation, hash, reason, counts)
    VALUES (${plan.id}, ${plan.zone}, ${plan.kind}, ${state}, ${plan.madeAtMillis}, ${plan.madeBy}, ${plan.generation},
      ${plan.hash}, ${plan.reason}, ${JSON.stringify(plan.counts)})`

  const update = (plan: Plan) => sql`
    UPDATE plan SET state = ${plan.state}, generation = ${plan.generation}, hash = ${plan.hash}, reason = ${plan.reason},
      counts = ${JSON.stringify(plan.counts)}, decided_at = ${plan.decidedAtMillis ?? null},
      decided_by = ${plan.decidedBy ?? null}, decided_reason = ${plan.decidedReason ?? null}
    WHERE id = ${plan.id}`

  const insertChanges = (plan: string, after: number, changes: ReadonlyArray<NewChange>) => sql`
    INSERT INTO plan_change (plan, ordinal, name, type, action, before, after, reason, cause)
    SELECT ${plan}, ordinal, name, type, action, before, after, reason, cause FROM ${asTable(
      sql,
      "r",
      {
        ordinal: "bigint",
        name: "text",
        type: "text",
        action: "text",
        before: "text",
        after: "text",
        reason: "text",
        cause: "text"
      },
      changes.map((change, i) => ({
        ordinal: after + i + 1,
        name: change.name,
        type: change.type,
        action: change.action,
        before: toText(change.before),
        after: toText(change.after),
        reason: change.reason,
        cause: change.cause
      }))
    )}`

  const find = (id: string) =>
    Effect.map(sql<PlanRow>`SELECT ${columns} FROM plan WHERE id = ${id} AND ${visible}`, first)

  /** Locked until the transaction ends. */
  const lock = (id: string) =>
    Effect.map(sql<PlanRow>`SELECT ${columns} FROM plan WHERE id = ${id} AND ${visible} ${forUpdate}`, first)

  const findOpen = (zone: DomainName, kind: PlanKind) =>
    Effect.map(
      sql<PlanRow>`
        SELECT ${columns} FROM plan WHERE zone = ${zone} AND kind = ${kind} AND state = 'open'
        ORDER BY made_at DESC, id DESC LIMIT 1`,
      first
    )

  const lockOpen = (zone: DomainName, kind: PlanKind) =>
    Effect.map(
      sql<PlanRow>`
        SELECT ${columns} FROM plan WHERE zone = ${zone} AND kind = ${kind} AND state = 'open'
        ORDER BY made_at DESC, id DESC LIMIT 1 ${forUpdate}`,
      first
    )

  const list = (options: {
    readonly zone?: DomainName | undefined
    readonly zones?: ReadonlyArray<DomainName> | undefined
    readonly kind?: PlanKind | undefined
    readonly state?: PlanState | undefined
    readonly limit: number
    readonly after?: string | undefined
  }) => {
    const conditions = [
      sql`${visible}`,
      ...(options.zone === undefined ? [] : [sql`zone = ${options.zone}`]),
      ...(options.zones === undefined ? [] : [sql`zone IN ${asList(sql, options.zones)}`]),
      ...(options.kind === undefined ? [] : [sql`kind = ${options.kind}`]),
      ...(options.state === undefined ? [] : [sql`state = ${options.state}`]),
      ...(options.after === undefined ? [] : [sql`id < ${options.after}`])
    ]
    return Effect.map(
      sql<PlanRow>`SELECT ${columns} FROM plan WHERE ${sql.and(conditions)} ORDER BY id DESC LIMIT ${options.limit}`,
      (rows) => rows.map(toPlan)
    )
  }

  const changes = (id: string, options: { readonly after?: number | undefined; readonly limit: number }) =>
    Effect.map(
      sql<ChangeRow>`
        SELECT ${changeColumns} FROM plan_change WHERE plan = ${id} AND ordinal > ${options.after ?? 0}
        ORDER BY ordinal LIMIT ${options.limit}`,
      (rows) => rows.map(toChange)
    )

  const openConditions = (id: string, only: Selection) =>
    sql.and([
      sql`plan = ${id}`,
      sql`outcome IS NULL`,
      ...(only.names === undefined ? [] : [sql`name IN ${asList(sql, only.names)}`]),
      ...(only.withoutDeletions === true ? [sql`action <> 'delete'`] : [])
    ])

  /** Changes without an outcome, behind `after` and not behind `last`. */
  const openChanges = (id: string, only: Selection, after: number, last: number, limit: number) =>
    Effect.map(
      sql<ChangeRow>`
        SELECT ${changeColumns} FROM plan_change
        WHERE ${openConditions(id, only)} AND ordinal > ${after} AND ordinal <= ${last}
        ORDER BY ordinal LIMIT ${limit}`,
      (rows) => rows.map(toChange)
    )

  const countOpen = (id: string) =>
    Effect.map(
      sql<{ readonly changes: number | bigint }>`
        SELECT COUNT(*) AS changes FROM plan_change WHERE plan = ${id} AND outcome IS NULL`,
      ([row]) => Number(row!.changes)
    )

  /** Names that would lose all their records. */
  const countOpenDeletions = (id: string, only: Selection) =>
    Effect.map(
      sql<{ readonly names: number | bigint }>`
        SELECT COUNT(DISTINCT name) AS names FROM plan_change WHERE ${openConditions(id, only)} AND action = 'delete'`,
      ([row]) => Number(row!.names)
    )

  /** Says of every change why it is left alone. */
  const leaveAlone = (id: string) => sql`UPDATE plan_change SET outcome = 'left alone: ' || reason WHERE plan = ${id}`

  const setOutcomes = Effect.fnUntraced(function* (
    id: string,
    outcomes: ReadonlyArray<{ readonly ordinal: number; readonly outcome: string }>
  ) {
    // Nearly all are the same word, and found by the key; a join with them all may be done the other way around.
    const applied = outcomes.filter(({ outcome }) => outcome === "applied").map(({ ordinal }) => ({ ordinal }))
    if (applied.length > 0) {
      yield* sql`
        UPDATE plan_change SET outcome = 'applied' WHERE plan = ${id} AND ordinal IN (
          SELECT ordinal FROM ${asTable(sql, "r", { ordinal: "bigint" }, applied)})`
    }
    const refused = outcomes.filter(({ outcome }) => outcome !== "applied")
    if (refused.length > 0) {
      yield* sql`
        UPDATE plan_change SET outcome = r.outcome
        FROM ${asTable(
          sql,
          "r",
          { ordinal: "bigint", outcome: "text" },
          refused.map(({ ordinal, outcome }) => ({ ordinal, outcome }))
        )} WHERE plan_change.plan = ${id} AND plan_change.ordinal = r.ordinal
          AND plan_change.ordinal BETWEEN ${refused[0]!.ordinal} AND ${refused.at(-1)!.ordinal}`
    }
  })

  /** Which of `names` the plan has already. */
  const namesAmong = (id: string, names: ReadonlyArray<DomainName>) =>
    Effect.map(
      // One probe of the index for each name: with statistics of before the plan grew, PostgreSQL joins the other way around.
      sql<{ readonly name: DomainName }>`
        SELECT r.name FROM ${asTable(
          sql,
          "r",
          { name: "text" },
          names.map((name) => ({ name }))
        )} WHERE (
          SELECT c.ordinal FROM plan_change c WHERE c.plan = ${id} AND c.name = r.name AND c.outcome IS NULL LIMIT 1
        ) IS NOT NULL`,
      (rows) => new Set(rows.map(({ name }) => name))
    )

  /** A mark at generation 0 only holds a place within the transaction. */
  const facts = Effect.fnUntraced(function* (zone: DomainName, names: ReadonlyArray<DomainName>) {
    const among = asList(sql, names)
    const marks = yield* sql<{
      readonly name: DomainName
      readonly generation: number | bigint
      readonly plan: string | null
      readonly cause: string
    }>`SELECT name, generation, plan, cause FROM outbox WHERE zone = ${zone} AND name IN ${among} AND generation > 0`
    const published = yield* sql<{
      readonly name: DomainName
      readonly generation: number | bigint
      readonly pending: number | bigint
    }>`
      SELECT name, generation, CASE WHEN sent IS NULL AND doubt_until IS NULL THEN 0 ELSE 1 END AS pending
      FROM published WHERE zone = ${zone} AND name IN ${among}`
    const found = new Map<DomainName, NameFacts>()
    for (const row of published) {
      found.set(row.name, {
        mark: undefined,
        published: { generation: Number(row.generation), pending: Number(row.pending) === 1 }
      })
    }
    for (const row of marks) {
      found.set(row.name, {
        published: found.get(row.name)?.published,
        mark: { generation: Number(row.generation), plan: row.plan ?? undefined, cause: row.cause }
      })
    }
    return found
  })

  /** The newest generation of a host of each of `names`, and whether one has records. */
  const hostsByName = (names: ReadonlyArray<string>) =>
    sql<HostRow>`
      SELECT fqdn AS place, generation, CASE WHEN withdrawn_since IS NULL AND state <> 'retired' THEN 1 ELSE 0 END AS live
      FROM host WHERE fqdn IN ${asList(sql, names)}`

  const hostsByAddress = (addresses: ReadonlyArray<string>) =>
    sql<HostRow>`
      SELECT a.address AS place, MAX(h.generation) AS generation,
        MAX(CASE WHEN h.withdrawn_since IS NULL AND h.state <> 'retired' THEN 1 ELSE 0 END) AS live
      FROM host_address a JOIN host h ON h.id = a.host_id
      WHERE a.address IN ${asList(sql, addresses)} GROUP BY a.address`

  const audit = (
    entries: ReadonlyArray<AuditEntry>,
    by: Audit.Actor,
    plan: Pick<Plan, "id" | "zone">,
    generation: number,
    nowMillis: number
  ) =>
    Audit.writeAll(
      sql,
      entries.map((entry) => ({ ...entry, actor: by, zone: plan.zone, cause: `plan:${plan.id}`, generation })),
      nowMillis
    )

  /** The ids of those that were open. */
  const supersede = (zone: DomainName, kind: PlanKind, except: string) =>
    Effect.map(
      sql<{ readonly id: string }>`
        UPDATE plan SET state = 'superseded'
        WHERE zone = ${zone} AND kind = ${kind} AND state = 'open' AND id <> ${except} RETURNING id`,
      (rows) => rows.map(({ id }) => id)
    )

  /** The ids of those that were begun before that time, and are not complete. */
  const unfinished = (beforeMillis: number) =>
    Effect.map(
      sql<{ readonly id: string }>`SELECT id FROM plan WHERE state = 'making' AND made_at < ${beforeMillis}`,
      (rows) => rows.map(({ id }) => id)
    )

  /** Decided plans beyond the newest `keep` of each zone. */
  const old = (keep: number, limit: number) =>
    Effect.map(
      sql<{ readonly id: string }>`
        SELECT id FROM (
          SELECT id, ROW_NUMBER() OVER (PARTITION BY zone ORDER BY id DESC) AS place FROM plan
          WHERE state NOT IN ('open', 'making')
        ) ranked WHERE place > ${keep} LIMIT ${limit}`,
      (rows) => rows.map(({ id }) => id)
    )

  /** Piece by piece: a plan may have a million changes. */
  const remove = Effect.fnUntraced(function* (id: string) {
    for (;;) {
      const [row] = yield* sql<{ readonly ordinal: number | bigint | null }>`
        SELECT MIN(ordinal) AS ordinal FROM plan_change WHERE plan = ${id}`
      if (row?.ordinal == null) break
      yield* sql`DELETE FROM plan_change WHERE plan = ${id} AND ordinal < ${Number(row.ordinal) + removedAtOnce}`
      yield* Effect.yieldNow
    }
    yield* sql`DELETE FROM plan WHERE id = ${id}`
  })

  return {
    insert,
    update,
    insertChanges,
    find,
    lock,
    findOpen,
    lockOpen,
    list,
    changes,
    openChanges,
    countOpen,
    countOpenDeletions,
    setOutcomes,
    leaveAlone,
    namesAmong,
    facts,
    hostsByName,
    hostsByAddress,
    audit,
    supersede,
    unfinished,
    old,
    remove
  }
}

/** Changes removed in one statement. */
const removedAtOnce = 10_000

export interface Selection {
  readonly names?: ReadonlyArray<DomainName> | undefined
  readonly withoutDeletions?: boolean | undefined
}

interface HostRow {
  readonly place: string
  readonly generation: number | bigint
  readonly live: number | bigint
}

/** What an entry says of a record set. */
export const auditView = (rrset: RRset.RRset | undefined) =>
  rrset === undefined ? undefined : { type: rrset.type, ttl: rrset.ttlSeconds, contents: rrset.contents }
