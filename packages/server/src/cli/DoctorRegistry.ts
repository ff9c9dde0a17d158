/**
 * What `prism-dns doctor` reads of the registry's database.
 *
 * Promises: only reads, in a transaction that cannot write; takes no lock that
 * a running server wants; ends in bounded time; makes no file and no table
 * that was not there. Leaves to others: judging (`core/powerdns/Doctor`).
 */
import type { IpAddress } from "@prism-dns/core/domain/IpAddress"
import type { RegistryFacts, RegistryState, Sample } from "@prism-dns/core/powerdns/DoctorFacts"
import { sampleMax } from "@prism-dns/core/powerdns/DoctorZoneContent"
import { migrations } from "@prism-dns/core/storage/Migrations"
import { detailOf } from "@prism-dns/core/storage/SqlFailure"
import { Clock, Duration, Effect, Fiber, Schema } from "effect"
import { SqlClient } from "effect/sql"
import * as Fs from "node:fs"
import { DatabaseSync } from "node:sqlite"
import type { PrismConfig } from "../Config.ts"
import { migrationsTable } from "../Database.ts"
import * as PostgresHosts from "../database/PostgresHosts.ts"
import * as PostgresUrl from "../database/PostgresUrl.ts"

/** How long the database may take for all of it. */
const defaultTimeLimit: Duration.Input = "10 seconds"
/** How long SQLite waits for a writer that holds the file whole, which a server never does for long. */
const busyMillisMax = 1000
/** Addresses of hosts that are compared with the reverse zones. */
const addressesMax = 200_000

const migrationKnown = Math.max(...Object.keys(migrations).map((key) => Number.parseInt(key, 10)))

/** A statement could not be read. `detail` is the database's sentence; it carries no password. */
class Unreadable extends Schema.TaggedError<Unreadable>()("Unreadable", { detail: Schema.String }) {}

type Row = Readonly<Record<string, unknown>>
/** Runs one statement of ours. */
type Query = (statement: string) => Effect.Effect<ReadonlyArray<Row>, Unreadable>

const number = (value: unknown): number => Number(value ?? 0)
const text = (value: unknown): string => (typeof value === "string" ? value : String(value))

const sample = (count: unknown, rows: ReadonlyArray<Row>, words: (row: Row) => string): Sample => ({
  count: number(count),
  first: rows.map(words)
})

const readState = Effect.fnUntraced(function* (query: Query): Effect.fn.Return<RegistryState, Unreadable> {
  const nowMillis = yield* Clock.currentTimeMillis
  const [waiting] = yield* query(
    "SELECT COUNT(*) AS names, MIN(marked_at) AS oldest FROM outbox WHERE parked_at IS NULL"
  )
  const [parked] = yield* query("SELECT COUNT(*) AS names FROM outbox WHERE parked_at IS NOT NULL")
  const parkedFirst = yield* query(
    `SELECT name, parked_reason FROM outbox WHERE parked_at IS NOT NULL ORDER BY parked_at LIMIT ${sampleMax}`
  )
  const [plans] = yield* query("SELECT COUNT(*) AS plans FROM plan WHERE state = 'open'")
  const plansFirst = yield* query(
    `SELECT id, zone, state, reason FROM plan WHERE state = 'open' ORDER BY made_at DESC LIMIT ${sampleMax}`
  )
  const guards = yield* query(
    "SELECT kind, zone, detail FROM guard WHERE allowed_before IS NULL OR allowed_before < tripped_at ORDER BY tripped_at LIMIT 100"
  )
  const addresses = yield* query(`SELECT DISTINCT address FROM host_address LIMIT ${addressesMax + 1}`)
  return {
    _tag: "Read",
    parked: sample(parked?.["names"], parkedFirst, (row) => `${text(row["name"])} (${text(row["parked_reason"])})`),
    pending: number(waiting?.["names"]),
    oldestPendingMillis: waiting?.["oldest"] == null ? 0 : Math.max(0, nowMillis - number(waiting["oldest"])),
    plansOpen: sample(
      plans?.["plans"],
      plansFirst,
      (row) => `${text(row["id"])} of ${text(row["zone"])}, ${text(row["state"])}`
    ),
    guards: guards.map((row) => ({ kind: text(row["kind"]), zone: text(row["zone"]), detail: text(row["detail"]) })),
    addresses: addresses.slice(0, addressesMax).map((row) => text(row["address"]) as IpAddress),
    addressesCut: addresses.length > addressesMax
  }
})

const read = Effect.fnUntraced(function* (storage: string, query: Query, clockAheadMillis: number | undefined) {
  const [row] = yield* query(`SELECT MAX(migration_id) AS latest FROM ${migrationsTable}`)
  const migration = number(row?.["latest"])
  const state =
    migration === migrationKnown
      ? yield* readState(query).pipe(Effect.catch(({ detail }) => Effect.succeed({ _tag: "Unread" as const, detail })))
      : undefined
  return { storage, _tag: "Answers", migration, migrationKnown, clockAheadMillis, state } satisfies RegistryFacts
})

const sqlite = Effect.fnUntraced(function* (filename: string): Effect.fn.Return<RegistryFacts> {
  if (filename === ":memory:") return { storage: filename, _tag: "None", detail: "is kept in the memory of the server" }
  if (!Fs.existsSync(filename)) {
    return { storage: filename, _tag: "None", detail: "is not there yet; the server makes it at its first start" }
  }
  const attempt = <A>(f: () => A) =>
    Effect.try({ try: f, catch: (error) => new Unreadable({ detail: detailOf(error) }) })
  return yield* Effect.acquireRelease(
    attempt(() => new DatabaseSync(filename, { readOnly: true, timeout: busyMillisMax })),
    (database) => Effect.sync(() => database.close())
  ).pipe(
    Effect.flatMap((database) =>
      read(filename, (statement) => attempt(() => database.prepare(statement).all() as ReadonlyArray<Row>), undefined)
    ),
    Effect.scoped,
    Effect.catch(({ detail }) => Effect.succeed<RegistryFacts>({ storage: filename, _tag: "Silent", detail }))
  )
})

/** Fails after the limit at once: a database that stands still does not let go of what was asked either. */
const within =
  (limit: Duration.Input) =>
  <A, E>(effect: Effect.Effect<A, E>): Effect.Effect<A, E | Unreadable> =>
    Effect.gen(function* () {
      const fiber = yield* Effect.forkDetach(effect)
      return yield* Fiber.join(fiber).pipe(
        Effect.timeoutOrElse({
          duration: limit,
          orElse: () =>
            Effect.forkDetach(Fiber.interrupt(fiber)).pipe(
              Effect.andThen(
                Effect.fail(
                  new Unreadable({
                    detail: `it does not answer within ${Duration.format(Duration.fromInputUnsafe(limit))}`
                  })
                )
              )
            )
        })
      )
    })

const postgres = (
  url: Extract<PrismConfig["storage"]["url"], { readonly _tag: "Postgres" }>,
  timeLimit: Duration.Input
): Effect.Effect<RegistryFacts> => {
  const storage = PostgresUrl.describe(url)
  return Effect.gen(function* () {
    const sql = yield* SqlClient.SqlClient
    const query: Query = (statement) =>
      sql.unsafe<Row>(statement).pipe(Effect.mapError((error) => new Unreadable({ detail: detailOf(error) })))
    const sentMillis = yield* Clock.currentTimeMillis
    const [row] = yield* query("SELECT (extract(epoch FROM clock_timestamp()) * 1000)::bigint AS now")
    const receivedMillis = yield* Clock.currentTimeMillis
    return yield* read(storage, query, number(row?.["now"]) - (sentMillis + receivedMillis) / 2).pipe(
      sql.withTransaction,
      Effect.provideService(SqlClient.BeginTransaction, "BEGIN ISOLATION LEVEL REPEATABLE READ, READ ONLY")
    )
  }).pipe(
    Effect.provide(PostgresHosts.clientOf(url, { maxConnections: 1, applicationName: "prism-dns doctor" })),
    within(timeLimit),
    Effect.catch((error) =>
      Effect.succeed<RegistryFacts>({
        storage,
        _tag: "Silent",
        detail: error._tag === "Unreadable" ? error.detail : detailOf(error)
      })
    )
  )
}

/** `timeLimit`: of PostgreSQL; default 10 s. */
export const gather = (
  { url }: PrismConfig["storage"],
  timeLimit: Duration.Input = defaultTimeLimit
): Effect.Effect<RegistryFacts> => (url._tag === "Sqlite" ? sqlite(url.filename) : postgres(url, timeLimit))
