/** What looking entries up promises, on whatever database. */
import { assert, type Vitest } from "@effect/vitest"
import { Effect, Layer, Metric } from "effect"
import { SqlClient } from "effect/sql"
import { AuditLog, type LogEntry } from "@prism-dns/core/audit/AuditLog"
import type { AuditFilter } from "@prism-dns/core/audit/AuditSearch"
import * as Audit from "@prism-dns/core/audit/Entries"
import { entry, sealAll } from "./SealerSuite.ts"

const total = 300
const startMillis = 1_700_000_000_000

/** Entries of every kind of combination, the times of some out of order. */
export const fill = Effect.gen(function* () {
  const sql = yield* SqlClient.SqlClient
  const actions = ["host.created", "host.changed", "publication.applied", "token.issued"] as const
  const entries = Array.from({ length: total }, (_, i) =>
    entry(`h${i % 11}`, {
      actor: { name: `actor-${i % 5}`, peer: undefined, request: i % 3 === 0 ? `r-${i % 9}` : undefined },
      action: actions[i % actions.length]!,
      zone: i % 7 === 0 ? undefined : `z${i % 3}.test.`,
      result: i % 13 === 0 ? "refused" : "done",
      atMillis: startMillis + i * 1000 - (i % 6) * 3000
    })
  )
  yield* Audit.writeAll(sql, entries, startMillis)
  yield* sealAll()
})

const matches =
  (filter: AuditFilter) =>
  (found: LogEntry): boolean =>
    (filter.zone === undefined || found.zone === filter.zone) &&
    (filter.actor === undefined || found.actor === filter.actor) &&
    (filter.actions === undefined || filter.actions.includes(found.action)) &&
    (filter.subject === undefined || found.subject === filter.subject) &&
    (filter.request === undefined || found.request === filter.request) &&
    (filter.result === undefined || found.result === filter.result) &&
    (filter.sinceMillis === undefined || found.atMillis >= filter.sinceMillis) &&
    (filter.untilMillis === undefined || found.atMillis <= filter.untilMillis) &&
    (filter.zones === undefined || (found.zone !== undefined && filter.zones.includes(found.zone)))

const values: { readonly [Key in keyof AuditFilter]: AuditFilter[Key] } = {
  zone: "z1.test.",
  actor: "actor-2",
  actions: ["host.created", "host.changed"],
  subject: "h4",
  request: "r-3",
  result: "refused",
  sinceMillis: startMillis + 100_000,
  untilMillis: startMillis + 200_000,
  zones: ["z1.test.", "z2.test."]
}

export const suite = <R>(
  name: string,
  it: Pick<Vitest.MethodsNonLive<R>, "effect">,
  database: Layer.Layer<SqlClient.SqlClient, never, R>
) => {
  const test = (title: string, body: Effect.Effect<void, unknown, SqlClient.SqlClient | AuditLog>) =>
    it.effect(`${name}: ${title}`, () =>
      Effect.andThen(fill, body).pipe(
        Effect.provide(Layer.fresh(AuditLog.layer.pipe(Layer.provideMerge(database)))),
        Effect.provideService(Metric.MetricRegistry, new Map())
      )
    )

  test(
    "any combination of filters gives the entries that match, the newest first, page by page",
    Effect.gen(function* () {
      const log = yield* AuditLog
      const all = (yield* log.after(0, total + 1)).toReversed()
      const keys = Object.keys(values) as Array<keyof AuditFilter>
      for (let mask = 0; mask < 1 << keys.length; mask++) {
        const filter: AuditFilter = Object.fromEntries(
          keys.filter((_, i) => (mask & (1 << i)) !== 0).map((key) => [key, values[key]])
        )
        const expected = all.filter(matches(filter)).map(({ position }) => position)
        const found: Array<number> = []
        let pages = 0
        for (let before: number | undefined = undefined; ;) {
          const page: Effect.Success<ReturnType<typeof log.list>> = yield* log.list(filter, { before, limit: 40 })
          found.push(...page.entries.map(({ position }) => position))
          assert.isAtMost(page.entries.length, 40)
          if (page.before === undefined) break
          before = page.before
          pages += 1
        }
        assert.deepStrictEqual(found, expected, JSON.stringify(filter))
        assert.isAtMost(pages, 9)
      }
    })
  )

  test(
    "no zones are no entries",
    Effect.gen(function* () {
      const log = yield* AuditLog
      assert.deepStrictEqual(yield* log.list({ zones: [] }, { limit: 10 }), { entries: [], before: undefined })
    })
  )
}
