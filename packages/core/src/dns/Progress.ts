/** How far names have come on their way to the DNS, in one look at the database. */
import { Effect } from "effect"
import type { SqlClient, SqlError } from "effect/sql"
import type { DomainName } from "../domain/DomainName.ts"
import { asTable } from "../storage/Rows.ts"
import * as Together from "../storage/Together.ts"
import type { Acknowledgement } from "./Acknowledgements.ts"
import type { RecordPlace } from "./Zones.ts"

export interface Progress {
  /** Of what is under way: of the mark, or else of what is not served yet; undefined when nothing is. */
  readonly generation: number | undefined
  /** Of the mark; undefined when there is none. */
  readonly markedGeneration: number | undefined
  /** Of what PowerDNS took last; undefined when nothing of it is published. */
  readonly publishedGeneration: number | undefined
  /** Since when it waits to be published; undefined when it does not. */
  readonly markedMillis: number | undefined
  readonly parkedReason: string | undefined
  /** PowerDNS took it, and not every name server was seen to answer so. */
  readonly unserved: boolean
  /** When PowerDNS took it; undefined when nothing of it is published, and nothing waits to be served. */
  readonly appliedMillis: number | undefined
  /** When every name server was seen to answer so; undefined before, and when nothing of it is published. */
  readonly servedMillis: number | undefined
  /** When each name server was seen to answer so. */
  readonly servedNodes: ReadonlyArray<{ readonly node: string; readonly atMillis: number }>
}

export interface ProgressRow {
  readonly zone: DomainName
  readonly name: DomainName
  readonly marked: number | bigint | null
  readonly marked_at: number | bigint | null
  readonly parked_reason: string | null
  readonly unserved: number | bigint | null
  readonly published_at: number | bigint | null
  readonly published_generation: number | bigint | null
  readonly served_at: number | bigint | null
  readonly served_nodes: string | null
}

const optional = (value: number | bigint | null) => (value === null ? undefined : Number(value))

const nodesOf = (text: string | null): Progress["servedNodes"] =>
  text === null
    ? []
    : (JSON.parse(text) as ReadonlyArray<[string, number]>).map(([node, atMillis]) => ({ node, atMillis }))

/** What a name has reached; undefined while it waits to be published. */
export const reached = (progress: Progress): Acknowledgement | undefined => {
  const { appliedMillis = 0, markedMillis, parkedReason, servedMillis, unserved } = progress
  if (parkedReason !== undefined) return { _tag: "Parked", atMillis: markedMillis ?? 0, reason: parkedReason }
  if (markedMillis !== undefined) return undefined
  if (unserved) return { _tag: "Applied", atMillis: appliedMillis }
  return { _tag: "Served", atMillis: servedMillis ?? appliedMillis, nodes: progress.servedNodes }
}

/**
 * Whether what was committed at `generation` is in the DNS: nothing waits there any more, or something newer than was
 * published since. Generations rise in the order in which they are given out, which is not always that of commits: one
 * that still waits itself is not.
 */
export const isApplied = ({ markedGeneration, publishedGeneration }: Progress, generation: number): boolean =>
  markedGeneration === undefined ||
  (markedGeneration > generation && publishedGeneration !== undefined && publishedGeneration >= generation)

/** Whether every name server answers with what was committed at `generation`. */
export const isServed = (progress: Progress, generation: number): boolean =>
  isApplied(progress, generation) &&
  !progress.unserved &&
  (progress.markedGeneration === undefined || progress.servedMillis !== undefined)

/** By zone and name, separated by a space. */
export const keyOf = ({ name, zone }: RecordPlace): string => `${zone} ${name}`

/** What asks for the progress of `places`. */
export const statement = (sql: SqlClient.SqlClient, places: ReadonlyArray<RecordPlace>) => sql<ProgressRow>`
  SELECT r.zone, r.name, o.generation AS marked, o.marked_at, o.parked_reason, u.generation AS unserved,
    COALESCE(p.published_at, u.applied_at) AS published_at, p.generation AS published_generation, p.served_at, p.served_nodes
  FROM ${asTable(
    sql,
    "r",
    { zone: "text", name: "text" },
    places.map(({ name, zone }) => ({ zone, name }))
  )}
  LEFT JOIN outbox o ON o.zone = r.zone AND o.name = r.name
  LEFT JOIN unserved u ON u.zone = r.zone AND u.name = r.name
  LEFT JOIN published p ON p.zone = r.zone AND p.name = r.name AND p.sent IS NULL`

/** What its rows say, by `keyOf`. */
export const fromRows = (rows: ReadonlyArray<ProgressRow>): ReadonlyMap<string, Progress> =>
  new Map(
    rows.map((row): [string, Progress] => [
      keyOf(row),
      {
        generation: optional(row.marked ?? row.unserved),
        markedGeneration: optional(row.marked),
        publishedGeneration: optional(row.published_generation),
        markedMillis: optional(row.marked_at),
        parkedReason: row.parked_reason ?? undefined,
        unserved: row.unserved !== null,
        appliedMillis: optional(row.published_at),
        servedMillis: optional(row.served_at),
        servedNodes: nodesOf(row.served_nodes)
      }
    ])
  )

/** The progress of each of `places`, by `keyOf`. */
export const find = (
  sql: SqlClient.SqlClient,
  places: ReadonlyArray<RecordPlace>
): Effect.Effect<ReadonlyMap<string, Progress>, SqlError.SqlError> =>
  places.length === 0 ? Effect.succeed(new Map()) : Effect.map(statement(sql, places), fromRows)

/** Names in one look of `together` at the most, more or less. */
const lookMax = 1000

/** `find` for many who look at the same time (`storage/Together`). What it gives knows others' places too. */
export const together = (sql: SqlClient.SqlClient) =>
  Effect.map(
    Together.make((places: ReadonlyArray<RecordPlace>) => find(sql, places), lookMax),
    (look) => (places: ReadonlyArray<RecordPlace>) => (places.length === 0 ? find(sql, places) : look(places))
  )
