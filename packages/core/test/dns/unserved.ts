/** The rows of `unserved` and `published`, as the publisher leaves them; for tests without one. */
import { Acknowledgements } from "@prism-dns/core/dns/Acknowledgements"
import { type Publication, Serving } from "@prism-dns/core/dns/Serving"
import type { DomainName } from "@prism-dns/core/domain/DomainName"
import { Effect } from "effect"
import { SqlClient } from "effect/sql"

/** As `Outbox.settle` leaves it. */
export const insert = Effect.fnUntraced(function* (zone: DomainName, publications: ReadonlyArray<Publication>) {
  const sql = yield* SqlClient.SqlClient
  for (const { generation, inDoubt = false, name, rrsets } of publications) {
    const content = JSON.stringify(rrsets.map((each) => [each.type, each.ttlSeconds, each.contents]))
    yield* sql`
      INSERT INTO unserved (zone, name, generation, content, applied_at)
      VALUES (${zone}, ${name}, ${generation}, ${content}, 0)
      ON CONFLICT (zone, name) DO UPDATE SET generation = excluded.generation, content = excluded.content`
    yield* sql`
      INSERT INTO published (zone, name, content, present, generation, published_at, doubt_until)
      VALUES (${zone}, ${name}, ${content}, 1, ${generation}, 0, ${inDoubt ? 15_000 : null})
      ON CONFLICT (zone, name) DO UPDATE SET
        generation = excluded.generation, served_at = NULL, doubt_until = excluded.doubt_until`
  }
})

/** Publishes as the writer of the zone does, by way of the node `writtenBy`; each gets a ticket. */
export const publish = Effect.fnUntraced(function* (
  zone: DomainName,
  publications: ReadonlyArray<Publication>,
  writtenBy: string | undefined
) {
  const { open } = yield* Acknowledgements
  const tickets = publications.map(({ generation, name }) => open([{ zone, name }], generation))
  yield* insert(zone, publications)
  const serving = yield* Serving
  serving.published(zone, publications, writtenBy)
  return tickets
})

/** The names that wait, in their order. */
export const names = Effect.flatMap(SqlClient.SqlClient, (sql) =>
  Effect.map(sql<{ readonly name: string }>`SELECT name FROM unserved ORDER BY name`, (rows) =>
    rows.map(({ name }) => name)
  )
)
