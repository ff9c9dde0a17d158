import { layer } from "@effect/vitest"
import { Context, Effect, Layer } from "effect"
import { SqlClient } from "effect/sql"
import { Acknowledgements, type Ticket } from "@prism-dns/core/dns/Acknowledgements"
import * as FollowTickets from "@prism-dns/core/dns/FollowTickets"
import { Outbox } from "@prism-dns/core/dns/Outbox"
import { PowerDnsMemory } from "@prism-dns/core/powerdns/PowerDnsMemory"
import { Registry } from "@prism-dns/core/registry/Registry"
import { expect } from "vitest"
import { Postgres } from "../harness/Postgres.ts"
import { waitUntil } from "../harness/waitUntil.ts"
import * as T from "../layers.ts"
import * as Servers from "./servers.ts"

/** A server that takes registrations, and one that publishes them. */
const registering = (pollMillis: number) => FollowTickets.layer({ pollMillis }).pipe(Layer.provideMerge(T.registry()))
const publishing = FollowTickets.layer().pipe(
  Layer.provideMerge(T.publisher({ pollMillis: 600_000 })),
  Layer.provideMerge(PowerDnsMemory.layer())
)

/** Long enough that a test which needs it fails. */
const never = 600_000

const register = Effect.fnUntraced(function* (server: Context.Context<Registry>, n: number) {
  const { ticket } = yield* Context.get(server, Registry).register(T.registration(`h${n}`, `192.0.2.${n}`))
  return ticket!
})

const wait = (server: Context.Context<Acknowledgements>, ticket: Ticket, level: "applied" | "served") =>
  Context.get(server, Acknowledgements).wait(ticket, level).pipe(Effect.timeout("20 seconds"))

/** What a name server's answers come to: nothing is unserved, and each node is known to answer. */
const serve = Effect.fnUntraced(function* (
  server: Context.Context<SqlClient.SqlClient | Acknowledgements>,
  at: Ticket
) {
  const sql = Context.get(server, SqlClient.SqlClient)
  yield* sql`DELETE FROM unserved`
  yield* sql`UPDATE published SET served_at = 5, served_nodes = '[["ns1",4],["ns2",5]]'`
  for (const { name, zone } of at.places) {
    Context.get(server, Acknowledgements).settle(zone, name, 0, { _tag: "Served", atMillis: 5, nodes: [] })
  }
})

layer(Postgres.layer(), { timeout: "60 seconds", excludeTestServices: true })("two servers", (it) => {
  it.effect("what one registers the other publishes at once, and the one learns of it, at both levels", () =>
    Effect.gen(function* () {
      const { server } = yield* Servers.database
      const b = yield* server(publishing)
      const a = yield* server(registering(never))
      const ticket = yield* register(a, 1)
      expect(yield* wait(a, ticket, "applied")).toMatchObject({ _tag: "Applied" })
      yield* serve(b, ticket)
      expect(yield* wait(a, ticket, "served")).toEqual({
        _tag: "Served",
        atMillis: 5,
        nodes: [
          { node: "ns1", atMillis: 4 },
          { node: "ns2", atMillis: 5 }
        ]
      })
      yield* waitUntil(
        "none is open",
        Effect.sync(() => Context.get(a, Acknowledgements).size("served")),
        (n) => n === 0
      )
    }).pipe(Effect.scoped)
  )

  it.effect("a server that hears nothing learns of it by its own look", () =>
    Effect.gen(function* () {
      const { server } = yield* Servers.database
      const b = yield* server(publishing)
      const a = yield* server(registering(50), "deaf")
      const ticket = yield* register(a, 1)
      // The publisher hears nothing of it either.
      yield* Context.get(b, Outbox).wake([T.forward.name, T.reverse4.name])
      expect(yield* wait(a, ticket, "applied")).toMatchObject({ _tag: "Applied" })
      yield* serve(b, ticket)
      expect(yield* wait(a, ticket, "served")).toMatchObject({
        _tag: "Served",
        nodes: [{ node: "ns1" }, { node: "ns2" }]
      })
    }).pipe(Effect.scoped)
  )

  it.effect("a name that is parked ends the wait with the reason", () =>
    Effect.gen(function* () {
      const { server } = yield* Servers.database
      const b = yield* server(FollowTickets.layer().pipe(Layer.provideMerge(T.registry())))
      const a = yield* server(registering(never))
      const [outbox, acknowledgements] = [Context.get(b, Outbox), Context.get(b, Acknowledgements)]
      const ticket = yield* register(a, 1)
      const place = { zone: T.forward.name, name: T.nameOf("h1") }
      const [mark] = yield* outbox.due(place.zone, 10)
      yield* outbox.park(place.zone, [{ ...place, generation: mark!.generation, reason: "not so" }], 7)
      acknowledgements.settle(place.zone, place.name, mark!.generation, {
        _tag: "Parked",
        atMillis: 7,
        reason: "not so"
      })
      expect(yield* wait(a, ticket, "applied")).toMatchObject({ _tag: "Parked", reason: "not so" })
    }).pipe(Effect.scoped)
  )

  it.effect("a change that is not committed yet is not taken for one that is published", () =>
    Effect.gen(function* () {
      const { server } = yield* Servers.database
      const a = yield* server(registering(10))
      const acknowledgements = Context.get(a, Acknowledgements)
      const pending = acknowledgements.open([{ zone: T.forward.name, name: T.nameOf("pending") }], 1)
      const done = acknowledgements.open([{ zone: T.forward.name, name: T.nameOf("done") }], 1)
      acknowledgements.committed([done])
      yield* waitUntil(
        "the other one is looked up",
        Effect.sync(() => done.end),
        (end) => end?._tag === "Served"
      )
      expect(pending.applied).toBeUndefined()
      expect(pending.end).toBeUndefined()
    }).pipe(Effect.scoped)
  )

  it.effect("many open tickets of a zone are all settled", () =>
    Effect.gen(function* () {
      const { server } = yield* Servers.database
      yield* server(publishing)
      const a = yield* server(registering(1000))
      const tickets = yield* Effect.forEach(
        Array.from({ length: 200 }, (_, n) => n + 1),
        (n) => register(a, n),
        { concurrency: "unbounded" }
      )
      yield* Effect.forEach(tickets, (ticket) => wait(a, ticket, "applied"), { concurrency: "unbounded" })
      yield* waitUntil(
        "none is open",
        Effect.sync(() => Context.get(a, Acknowledgements).size()),
        (n) => n === 0
      )
    }).pipe(Effect.scoped)
  )
})
