/**
 * `/livez` and `/readyz`, for supervisors and load balancers.
 *
 * Alive is a matter of the process alone. Ready means that a registration
 * would be accepted: the database answers with the schema this program knows,
 * and the server is not draining. PowerDNS may be down: the answer then is
 * `degraded`, with status 200, since registrations are kept and published
 * later. A probe never waits for PowerDNS; it hears what was seen last.
 */
import { DnsManager } from "@prism-dns/core/dns/DnsManager"
import { PowerDnsClient } from "@prism-dns/core/powerdns/PowerDnsClient"
import { type Duration, Effect, Schedule } from "effect"
import { HttpRouter, HttpServerRequest, HttpServerResponse } from "effect/http"
import { SqlClient } from "effect/sql"
import { migrationsTable, schemaKnown } from "../Database.ts"
import { Drain } from "../Drain.ts"
import { inTime } from "./InTime.ts"

export interface HealthOptions {
  /** The table in which the migrator keeps its record. */
  readonly migrationsTable: string
  /** How long the database may take to answer a probe. */
  readonly storageTimeout: Duration.Input
  /** How often PowerDNS is asked whether it is there. */
  readonly powerdnsInterval: Duration.Input
}

export const defaultOptions: HealthOptions = {
  migrationsTable,
  storageTimeout: "2 seconds",
  powerdnsInterval: "5 seconds"
}

export interface Check {
  readonly name: string
  readonly state: "ok" | "degraded" | "failed"
  /** A sentence for people, where there is something to say. */
  readonly detail?: string
}

const storageCheck = (sql: SqlClient.SqlClient, options: HealthOptions): Effect.Effect<Check> =>
  sql<{ readonly latest: number | null }>`SELECT MAX(migration_id) AS latest FROM ${sql(options.migrationsTable)}`.pipe(
    inTime(options.storageTimeout, () => Effect.fail({ message: "no answer in time" })),
    Effect.map(([row]): Check => {
      const latest = row?.latest ?? 0
      return latest < schemaKnown
        ? { name: "storage", state: "failed", detail: `migration ${latest + 1} of ${schemaKnown} has not run` }
        : { name: "storage", state: "ok" }
    }),
    Effect.catch((error) =>
      Effect.as(Effect.logWarning("the registry's database does not answer a probe", error.message), {
        name: "storage",
        state: "failed" as const,
        // The reason goes to the log: this page is for everyone.
        detail: "the registry's database does not answer"
      })
    )
  )

const drainCheck = (drain: Drain["Service"]): Check =>
  drain.isDraining()
    ? { name: "drain", state: "failed", detail: "the server is draining" }
    : { name: "drain", state: "ok" }

/** What the checks come to, in one word. */
const verdict = (checks: ReadonlyArray<Check>): "ready" | "degraded" | "unready" =>
  checks.some(({ state }) => state === "failed")
    ? "unready"
    : checks.some(({ state }) => state === "degraded")
      ? "degraded"
      : "ready"

const report = (checks: ReadonlyArray<Check>, isVerbose: boolean): HttpServerResponse.HttpServerResponse => {
  const word = verdict(checks)
  const lines = isVerbose
    ? checks.map(({ detail, name, state }) => `${name}: ${state}${detail === undefined ? "" : ` (${detail})`}`)
    : []
  return HttpServerResponse.text([...lines, word, ""].join("\n"), {
    status: word === "unready" ? 503 : 200,
    headers: { "cache-control": "no-store" }
  })
}

export const layer = (options: Partial<HealthOptions> = {}) =>
  HttpRouter.use(
    Effect.fnUntraced(function* (router) {
      const settings = { ...defaultOptions, ...options }
      const sql = yield* SqlClient.SqlClient
      const drain = yield* Drain
      const manager = yield* DnsManager
      const powerdns = yield* PowerDnsClient

      let powerdnsError: string | undefined
      yield* powerdns.server.pipe(
        Effect.match({
          onFailure: (error) => {
            powerdnsError = error.message
          },
          onSuccess: () => {
            powerdnsError = undefined
          }
        }),
        Effect.repeat(Schedule.spaced(settings.powerdnsInterval)),
        Effect.forkScoped
      )
      const powerdnsCheck = Effect.map(manager.status, (zones): Check => {
        const detail = powerdnsError ?? zones.find(({ error }) => error !== undefined)?.error
        return detail === undefined
          ? { name: "powerdns", state: "ok" }
          : { name: "powerdns", state: "degraded", detail }
      })

      yield* router.add(
        "GET",
        "/livez",
        HttpServerResponse.text("alive\n", { headers: { "cache-control": "no-store" } })
      )
      yield* router.add(
        "GET",
        "/readyz",
        Effect.gen(function* () {
          const query = yield* HttpServerRequest.ParsedSearchParams
          const checks = [yield* storageCheck(sql, settings), drainCheck(drain), yield* powerdnsCheck]
          return report(checks, "verbose" in query)
        })
      )
    })
  )
