/**
 * What a registry promises, on whatever database: one suite for SQLite and
 * PostgreSQL. `database` gives each test a new, migrated database.
 */
import { assert, describe } from "@effect/vitest"
import type { Vitest } from "@effect/vitest"
import { Cause, Duration, Effect, Exit, Layer, Option, Stream } from "effect"
import { SqlClient } from "effect/sql"
import { Cluster } from "@prism-dns/core/cluster/Cluster"
import { Acknowledgements } from "@prism-dns/core/dns/Acknowledgements"
import { Outbox } from "@prism-dns/core/dns/Outbox"
import { RecordSource } from "@prism-dns/core/dns/RecordSource"
import { Zones } from "@prism-dns/core/dns/Zones"
import * as DomainName from "@prism-dns/core/domain/DomainName"
import type { Host } from "@prism-dns/core/domain/Host"
import type * as RRset from "@prism-dns/core/domain/RRset"
import * as Zone from "@prism-dns/core/domain/Zone"
import { anonymous, HostnameFlapping, type Wishes } from "@prism-dns/core/registry/Decision"
import * as Expiry from "@prism-dns/core/registry/Expiry"
import { Guards } from "@prism-dns/core/registry/Guards"
import { Leases } from "@prism-dns/core/registry/Leases"
import { HostMoved, type Registered, type RegisterError, Registry } from "@prism-dns/core/registry/Registry"
import * as T from "../layers.ts"

interface HistoryRow {
  readonly host_id: string
  readonly fqdn: string
  readonly event: string
  readonly addresses: string
  readonly generation: number | bigint
  readonly valid_from: number | bigint
  readonly valid_to: number | bigint | null
}

const history = (fqdn?: string) =>
  Effect.flatMap(SqlClient.SqlClient, (sql) =>
    Effect.map(
      sql<HistoryRow>`
        SELECT host_id, fqdn, event, addresses, generation, valid_from, valid_to FROM host_history
        WHERE ${fqdn === undefined ? sql`1 = 1` : sql`fqdn = ${fqdn}`} ORDER BY sequence`,
      (rows) =>
        rows.map((row) => ({
          ...row,
          generation: Number(row.generation),
          valid_from: Number(row.valid_from),
          valid_to: row.valid_to === null ? null : Number(row.valid_to)
        }))
    )
  )

/** All rows of the registry as text, to see that nothing was written. */
const everything = Effect.gen(function* () {
  const sql = yield* SqlClient.SqlClient
  const tables = ["host", "host_address", "host_count", "host_history", "audit_entry", "outbox"] as const
  const rows = yield* Effect.forEach(tables, (table) => sql`SELECT * FROM ${sql(table)} ORDER BY 1, 2`)
  return JSON.stringify(rows, (_, value: unknown) => (typeof value === "bigint" ? Number(value) : value))
})

/** From now on every statement that would write to `table` fails. */
const breakTable = Effect.fnUntraced(function* (table: string) {
  const sql = yield* SqlClient.SqlClient
  yield* sql.onDialectOrElse({
    pg: () =>
      Effect.andThen(
        sql.unsafe(
          "CREATE FUNCTION broken() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'broken on purpose'; END $$"
        ),
        sql.unsafe(`CREATE TRIGGER broken BEFORE INSERT OR UPDATE ON ${table} FOR EACH ROW EXECUTE FUNCTION broken()`)
      ),
    orElse: () =>
      sql.unsafe(`CREATE TRIGGER broken BEFORE INSERT ON ${table} BEGIN SELECT RAISE(ABORT, 'broken on purpose'); END`)
  })
})

/** From now on every transaction that writes to `table` fails, and only when it commits. */
const breakCommit = Effect.fnUntraced(function* (table: string) {
  const sql = yield* SqlClient.SqlClient
  yield* sql.onDialectOrElse({
    pg: () =>
      Effect.andThen(
        sql.unsafe(
          "CREATE FUNCTION broken() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'broken on purpose'; END $$"
        ),
        sql.unsafe(
          `CREATE CONSTRAINT TRIGGER broken AFTER INSERT OR UPDATE ON ${table} DEFERRABLE INITIALLY DEFERRED
           FOR EACH ROW EXECUTE FUNCTION broken()`
        )
      ),
    orElse: () =>
      Effect.andThen(
        sql.unsafe("CREATE TABLE broken_reference (id TEXT REFERENCES host (id) DEFERRABLE INITIALLY DEFERRED)"),
        sql.unsafe(
          `CREATE TRIGGER broken AFTER INSERT ON ${table} BEGIN INSERT INTO broken_reference VALUES ('nobody'); END`
        )
      )
  })
})

const mend = Effect.fnUntraced(function* (table: string) {
  const sql = yield* SqlClient.SqlClient
  yield* sql.onDialectOrElse({
    pg: () => Effect.andThen(sql.unsafe(`DROP TRIGGER broken ON ${table}`), sql.unsafe("DROP FUNCTION broken()")),
    orElse: () => sql.unsafe("DROP TRIGGER broken")
  })
})

const marks = Effect.flatMap(Outbox, (outbox) => outbox.list({ limit: 1000 }))
const markedNames = Effect.map(marks, (list) => list.map(({ name }) => name).sort())

/** Publishes everything that is due as the publisher would, without a server. */
const publishAll = Effect.gen(function* () {
  const outbox = yield* Outbox
  const source = yield* RecordSource
  for (const zone of T.zones) {
    const due = yield* outbox.due(zone.name, 10_000)
    const desired = yield* source.desired(
      zone,
      due.map(({ name }) => name)
    )
    yield* outbox.settle(
      zone,
      due.map(({ generation, name }) => ({ name, generation, rrsets: desired.get(name) ?? [] })),
      1234
    )
  }
})

const registerAll = (list: ReadonlyArray<Parameters<Registry["Service"]["register"]>[0]>) =>
  Effect.flatMap(Registry, (registry) =>
    Effect.forEach(list, (each) => registry.register(each), { concurrency: "unbounded" })
  )

export const suite = <R>(
  name: string,
  it: Pick<Vitest.MethodsNonLive<R>, "effect">,
  database: Layer.Layer<SqlClient.SqlClient, never, R>
) => {
  type Services =
    | Registry
    | Cluster
    | Zones
    | Outbox
    | Leases
    | Acknowledgements
    | RecordSource
    | SqlClient.SqlClient
    | T.Time

  const test = <E>(name: string, body: Effect.Effect<void, E, Services>) =>
    it.effect(name, () =>
      T.withTime(
        "still",
        Effect.gen(function* () {
          yield* (yield* T.Time).set(1_000_000)
          yield* Effect.provide(
            body,
            T.registry({ damping: T.soonDamped }).pipe(Layer.provideMerge(Layer.fresh(database)))
          )
        })
      )
    )

  describe(name, () => {
    describe("registering", () => {
      test(
        "a new host makes it online, at generation, times and owner of now",
        Effect.gen(function* () {
          const registry = yield* Registry
          const { host, outcome, previousAddresses, ticket } = yield* registry.register(
            T.registration("web", ["192.0.2.7", "2001:db8::7"], "fleet")
          )
          assert.strictEqual(outcome, "created")
          assert.deepStrictEqual(previousAddresses, [])
          assert.deepStrictEqual({ ...host, id: "", generation: 0 }, {
            id: "",
            fqdn: T.nameOf("web"),
            hostname: "web",
            zone: T.forward.name,
            addresses: [T.address("192.0.2.7"), T.address("2001:db8::7")],
            labels: {},
            ttlSeconds: undefined,
            owner: "fleet",
            isStatic: false,
            state: "online",
            generation: 0,
            firstSeenMillis: 1_000_000,
            lastSeenMillis: 1_000_000,
            offlineSinceMillis: undefined,
            withdrawnSinceMillis: undefined,
            retiredSinceMillis: undefined
          } as unknown as Host)
          assert.match(host.id, /^[0-9a-f-]{36}$/)
          assert.deepStrictEqual(yield* registry.findById(host.id), Option.some(host))
          assert.deepStrictEqual(yield* registry.findByName(host.fqdn), Option.some(host))
          const expected = [T.nameOf("web"), T.pointerOf("192.0.2.7"), T.pointerOf("2001:db8::7")].sort()
          assert.deepStrictEqual(yield* markedNames, expected)
          assert.deepStrictEqual(ticket?.places.map((place) => place.name).sort(), expected)
        })
      )

      test(
        "a host that nobody waits for any more when its turn comes writes nothing, and the others of its batch are registered",
        Effect.gen(function* () {
          const registry = yield* Registry
          const [gone, there] = yield* Effect.all(
            [
              Effect.flip(registry.register(T.registration("gone", ["192.0.2.7"]), () => false)),
              registry.register(T.registration("there", ["192.0.2.8"]), () => true)
            ],
            { concurrency: "unbounded" }
          )
          assert.strictEqual(gone._tag, "RegistryUnavailable")
          assert.strictEqual(there.outcome, "created")
          assert.isTrue(Option.isNone(yield* registry.findByName(T.nameOf("gone"))))
          assert.deepStrictEqual(yield* markedNames, [T.nameOf("there"), T.pointerOf("192.0.2.8")].sort())
          // One that is alone leaves nothing to write, and does not hold up who comes next.
          yield* Effect.flip(registry.register(T.registration("gone", ["192.0.2.7"]), () => false))
          assert.strictEqual((yield* registry.register(T.registration("gone", ["192.0.2.7"]))).outcome, "created")
        })
      )

      test(
        "what was decided by a host that is another by now, or is asked for by nobody, changes nothing",
        Effect.gen(function* () {
          const registry = yield* Registry
          const seen = (yield* registry.register(T.registration("a", "192.0.2.1"))).host
          const isExpected = (generation: number) => generation === seen.generation
          const retired = {
            event: "retired",
            fqdn: seen.fqdn,
            actor: { name: "ada", peer: "198.51.100.1" },
            isExpected
          } as const
          assert.strictEqual((yield* Effect.flip(registry.change(retired, () => false)))._tag, "RegistryUnavailable")
          const { host } = yield* registry.register({ ...T.registration("a", "192.0.2.2"), isExpected })
          const moved = new HostMoved({ fqdn: host.fqdn, generation: host.generation })
          assert.deepStrictEqual(yield* Effect.flip(registry.change(retired, () => true)), moved)
          const late = registry.register({ ...T.registration("a", "192.0.2.1"), isExpected })
          assert.deepStrictEqual(yield* Effect.flip(late), moved)
          assert.deepStrictEqual(yield* registry.findByName(host.fqdn), Option.some(host))
          // Of a host that is not there nothing can be expected.
          yield* registry.register({ ...T.registration("b", "192.0.2.3"), isExpected: () => false })
        })
      )

      test(
        "the same host again renews its lease, and writes nothing",
        Effect.gen(function* () {
          const registry = yield* Registry
          const first = yield* registry.register(T.registration("web", "192.0.2.7", "fleet"))
          const before = yield* everything
          yield* (yield* T.Time).jump(5000)
          const again = yield* registry.register(T.registration("web", "192.0.2.7", "fleet"))
          assert.strictEqual(again.outcome, "renewed")
          assert.isUndefined(again.ticket)
          assert.deepStrictEqual(again.host, first.host)
          assert.strictEqual(yield* everything, before)
          assert.deepStrictEqual((yield* Leases).unflushed(), [
            { fqdn: first.host.fqdn, id: first.host.id, generation: first.host.generation, atMillis: 1_005_000 }
          ])
        })
      )

      test(
        "a host whose name belongs to another zone since the configuration changed moves there with its records",
        Effect.gen(function* () {
          const source = yield* RecordSource
          const rack = Zone.make(DomainName.make("rack.hosts.test"))
          const before = T.registration("web.rack", "192.0.2.7", "fleet")
          const first = yield* Effect.flatMap(Registry, ({ register }) => register(before))
          yield* publishAll
          const sql = Layer.succeed(SqlClient.SqlClient, yield* SqlClient.SqlClient)
          const later = yield* Layer.build(Layer.fresh(T.registry({}, [...T.zones, rack])).pipe(Layer.provide(sql)))
          const moved = yield* Effect.provide(
            Effect.flatMap(Registry, ({ register }) => register({ ...before, zone: rack.name })),
            later
          )
          assert.strictEqual(moved.outcome, "changed")
          assert.strictEqual(moved.host.id, first.host.id)
          assert.strictEqual(moved.host.zone, rack.name)
          assert.deepStrictEqual(yield* (yield* Registry).findById(first.host.id), Option.some(moved.host))
          assert.sameMembers(
            (yield* marks).filter((mark) => mark.name === before.fqdn).map((mark) => mark.zone),
            [T.forward.name, rack.name]
          )
          assert.strictEqual((yield* source.desired(T.forward, [before.fqdn])).size, 0)
          assert.strictEqual((yield* source.desired(rack, [before.fqdn])).size, 1)
          // And back again when the zone is configured no more: what is left in it is nobody's to settle.
          const back = yield* Effect.flatMap(Registry, ({ register }) => register(before))
          assert.strictEqual(back.host.zone, T.forward.name)
          assert.isFalse(back.ticket?.places.some((place) => place.zone === rack.name))
        }).pipe(Effect.scoped)
      )

      test(
        "a host at another address changes it, and marks the old and the new pointer",
        Effect.gen(function* () {
          const registry = yield* Registry
          const first = yield* registry.register(T.registration("web", "192.0.2.7", "fleet"))
          yield* publishAll
          yield* (yield* T.Time).jump(5000)
          const moved = yield* registry.register(T.registration("web", "192.0.2.8", "fleet"))
          assert.strictEqual(moved.outcome, "changed")
          assert.deepStrictEqual(moved.previousAddresses, [T.addressOf(7)])
          assert.deepStrictEqual(moved.host, {
            ...first.host,
            addresses: [T.addressOf(8)],
            generation: moved.host.generation,
            lastSeenMillis: 1_005_000
          })
          assert.isAbove(moved.host.generation, first.host.generation)
          assert.deepStrictEqual(
            yield* markedNames,
            [T.nameOf("web"), T.pointerOf("192.0.2.7"), T.pointerOf("192.0.2.8")].sort()
          )
        })
      )

      test(
        "a host after it was offline returns it, with the same id and a new claim to its address",
        Effect.gen(function* () {
          const registry = yield* Registry
          const sql = yield* SqlClient.SqlClient
          const source = yield* RecordSource
          const { host } = yield* registry.register(T.registration("web", "192.0.2.7", "fleet"))
          yield* sql`UPDATE host SET state = 'offline', offline_since = 1, withdrawn_since = 2 WHERE id = ${host.id}`
          yield* (yield* T.Time).jump(1000)
          // meanwhile the address was another's
          yield* registry.register(T.registration("other", "192.0.2.7", "fleet"))
          yield* (yield* T.Time).jump(1000)
          const back = yield* registry.register(T.registration("web", "192.0.2.7", "fleet"))
          assert.strictEqual(back.outcome, "returned")
          assert.deepStrictEqual(back.host, { ...host, generation: back.host.generation, lastSeenMillis: 1_002_000 })
          const pointers = yield* source.desired(T.reverse4, [T.pointerOf("192.0.2.7")])
          assert.deepStrictEqual(pointers.get(T.pointerOf("192.0.2.7"))?.[0]?.contents, [T.nameOf("web")])
        })
      )

      test(
        "a name that another owner uses is refused and changes nothing; once its host is offline it may be had",
        Effect.gen(function* () {
          const registry = yield* Registry
          const sql = yield* SqlClient.SqlClient
          yield* registry.register(T.registration("web", "192.0.2.7", "fleet"))
          const before = yield* everything
          for (const owner of ["others", undefined]) {
            const error = yield* Effect.flip(registry.register(T.registration("web", "192.0.2.8", owner)))
            assert.strictEqual(error._tag, "HostnameTaken")
            assert.match(error.message, /web\.hosts\.test\. is registered by another owner/)
          }
          assert.strictEqual(yield* everything, before)
          yield* sql`UPDATE host SET state = 'offline', offline_since = 1`
          const taken = yield* registry.register(T.registration("web", "192.0.2.8", "others"))
          assert.strictEqual(taken.host.owner, "others")
        })
      )

      test(
        "a name that nobody has proved to own goes to who has a token, address or not",
        Effect.gen(function* () {
          const registry = yield* Registry
          const first = yield* registry.register(T.registration("web", "192.0.2.7"))
          assert.strictEqual(first.host.owner, anonymous.name)
          const taken = yield* registry.register(T.registration("web", "192.0.2.7", "fleet"))
          assert.strictEqual(taken.outcome, "changed")
          assert.strictEqual(taken.host.owner, "fleet")
          const error = yield* Effect.flip(registry.register(T.registration("web", "192.0.2.7")))
          assert.strictEqual(error._tag, "HostnameTaken")
        })
      )
    })

    describe("giving a host up", () => {
      const ada = { name: "ada", peer: "192.0.2.99" }

      test(
        "retires it by a person's word: its records are to go for that, its name is held, the reason is in the audit",
        Effect.gen(function* () {
          const registry = yield* Registry
          const sql = yield* SqlClient.SqlClient
          const source = yield* RecordSource
          const { host } = yield* registry.register(T.registration("web", "192.0.2.7", "fleet"))
          yield* publishAll
          yield* (yield* T.Time).jump(1000)
          const retired = yield* registry.retire(host.fqdn, ada, "sold")
          assert.deepStrictEqual(retired.host, {
            ...host,
            state: "retired",
            generation: retired.host.generation,
            offlineSinceMillis: 1_001_000,
            withdrawnSinceMillis: 1_001_000,
            retiredSinceMillis: 1_001_000
          })
          assert.isAbove(retired.host.generation, host.generation)
          assert.deepStrictEqual(yield* registry.findById(host.id), Option.some(retired.host))
          assert.deepStrictEqual(yield* markedNames, [T.nameOf("web"), T.pointerOf("192.0.2.7")].sort())
          assert.deepStrictEqual(retired.ticket.places.map(({ name }) => name).sort(), yield* markedNames)
          const causes = yield* sql<{ readonly cause: string }>`SELECT DISTINCT cause FROM outbox`
          assert.deepStrictEqual(
            causes.map(({ cause }) => cause),
            ["released"]
          )
          assert.strictEqual((yield* source.desired(T.forward, [host.fqdn])).size, 0)
          assert.strictEqual((yield* Leases).size(), 0)
          const [entry] = yield* sql<{ readonly [key: string]: unknown }>`
            SELECT actor, peer, action, subject, reason, cause FROM audit_entry ORDER BY sequence DESC LIMIT 1`
          assert.deepStrictEqual(
            { ...entry },
            {
              actor: "ada",
              peer: "192.0.2.99",
              action: "host.retired",
              subject: "web.hosts.test.",
              reason: "sold",
              cause: "released"
            }
          )
          const again = yield* Effect.flip(registry.retire(host.fqdn, ada, "sold"))
          assert.strictEqual(again._tag, "HostRetired")
          const back = yield* registry.register(T.registration("web", "192.0.2.7", "fleet"))
          assert.strictEqual(back.outcome, "returned")
          assert.strictEqual(back.host.id, host.id)
          assert.deepStrictEqual(yield* registry.findById(host.id), Option.some(back.host))
        })
      )

      test(
        "releases it by a person's word: nothing is left of it but its history, and its name is free",
        Effect.gen(function* () {
          const registry = yield* Registry
          const sql = yield* SqlClient.SqlClient
          const { host } = yield* registry.register(T.registration("web", "192.0.2.7", "fleet"))
          yield* (yield* T.Time).jump(1000)
          const released = yield* registry.release(host.fqdn, ada, "never was")
          assert.deepStrictEqual(released.host, { ...host, generation: released.host.generation })
          assert.deepStrictEqual(yield* registry.list({ limit: 10 }), [])
          assert.deepStrictEqual(yield* sql`SELECT * FROM host_address`, [])
          assert.deepStrictEqual(
            (yield* history()).map(({ event, valid_from, valid_to }) => [event, valid_from, valid_to]),
            [
              ["created", 1_000_000, 1_001_000],
              ["released", 1_001_000, 1_001_000]
            ]
          )
          const [entry] = yield* sql<{ readonly action: string; readonly after: string | null }>`
            SELECT action, after FROM audit_entry ORDER BY sequence DESC LIMIT 1`
          assert.deepStrictEqual([entry?.action, entry?.after], ["host.released", null])
          const unknown = yield* Effect.flip(registry.release(host.fqdn, ada, "never was"))
          assert.strictEqual(unknown._tag, "HostUnknown")
          const other = yield* registry.register(T.registration("web", "192.0.2.8", "others"))
          assert.strictEqual(other.outcome, "created")
          assert.notStrictEqual(other.host.id, host.id)
        })
      )

      test(
        "that cannot be stored leaves everything as it was, and no ticket",
        Effect.gen(function* () {
          const registry = yield* Registry
          const { host } = yield* registry.register(T.registration("web", "192.0.2.7", "fleet"))
          const before = yield* everything
          const tickets = (yield* Acknowledgements).size()
          yield* breakTable("audit_entry")
          for (const word of [registry.retire, registry.release]) {
            const error = yield* Effect.flip(word(host.fqdn, ada, "sold"))
            assert.strictEqual(error._tag, "RegistryUnavailable")
          }
          assert.strictEqual(yield* everything, before)
          assert.strictEqual((yield* Acknowledgements).size(), tickets)
          yield* mend("audit_entry")
          assert.strictEqual((yield* registry.retire(host.fqdn, ada, "sold")).host.state, "retired")
        })
      )
    })

    describe("transferring a host", () => {
      const ada = { name: "ada", peer: "192.0.2.99" }

      test(
        "makes it another owner's: its records stay, its lease is dropped, history and audit say so",
        Effect.gen(function* () {
          const registry = yield* Registry
          const leases = yield* Leases
          const sql = yield* SqlClient.SqlClient
          const { host } = yield* registry.register(T.registration("web", "192.0.2.7", "fleet"))
          yield* publishAll
          assert.isTrue(leases.beat(host, 1_000_001))
          const transferred = yield* registry.transfer(host.fqdn, "i-new", ada, "rebuilt")
          assert.deepStrictEqual(transferred, { ...host, owner: "i-new", generation: transferred.generation })
          assert.isAbove(transferred.generation, host.generation)
          assert.deepStrictEqual(yield* registry.findById(host.id), Option.some(transferred))
          assert.isFalse(leases.beat(host, 1_000_002))
          assert.deepStrictEqual(
            (yield* history()).map(({ event }) => event),
            ["created", "transferred"]
          )
          const [entry] = yield* sql<{ readonly [key: string]: unknown }>`
            SELECT actor, peer, action, subject, reason, cause FROM audit_entry ORDER BY sequence DESC LIMIT 1`
          assert.deepStrictEqual(
            { ...entry },
            {
              actor: "ada",
              peer: "192.0.2.99",
              action: "host.transferred",
              subject: host.fqdn,
              reason: "rebuilt",
              cause: "transferred"
            }
          )
          assert.strictEqual(
            (yield* Effect.flip(registry.register(T.registration("web", "192.0.2.7", "fleet"))))._tag,
            "HostnameTaken"
          )
          assert.strictEqual((yield* registry.register(T.registration("web", "192.0.2.8", "i-new"))).outcome, "changed")
        })
      )

      test(
        "to its owner changes nothing, and one that is not there is unknown",
        Effect.gen(function* () {
          const registry = yield* Registry
          const { host } = yield* registry.register(T.registration("web", "192.0.2.7", "fleet"))
          const before = yield* everything
          assert.deepStrictEqual(yield* registry.transfer(host.fqdn, "fleet", ada, "again"), host)
          const unknown = yield* Effect.flip(registry.transfer(T.nameOf("db"), "fleet", ada, "again"))
          assert.strictEqual(unknown._tag, "HostUnknown")
          assert.strictEqual(yield* everything, before)
        })
      )

      test(
        "leaves what its mark is to say: a removal that was concluded stays one",
        Effect.gen(function* () {
          const registry = yield* Registry
          const sql = yield* SqlClient.SqlClient
          const outbox = yield* Outbox
          const { host } = yield* registry.register(T.registration("web", "198.51.100.1", "fleet"))
          yield* publishAll
          yield* outbox.mark([{ zone: host.zone, name: host.fqdn }], host.generation, 5, "withdrawn")
          const transferred = yield* registry.transfer(host.fqdn, "others", ada, "sold")
          const marked = yield* sql<{ readonly cause: string; readonly generation: number | bigint }>`
            SELECT cause, generation FROM outbox`
          assert.deepStrictEqual(
            marked.map(({ cause, generation }) => [cause, Number(generation)]),
            [["withdrawn", transferred.generation]]
          )
        })
      )

      test(
        "within a transaction of the caller's is done when that commits, and not at all when it fails",
        Effect.gen(function* () {
          const registry = yield* Registry
          const outbox = yield* Outbox
          const sql = yield* SqlClient.SqlClient
          const { host } = yield* registry.register(T.registration("web", "192.0.2.7", "fleet"))
          yield* publishAll
          yield* outbox.awaitWake // for the registration
          const before = yield* everything
          const transfer = registry.transfer(host.fqdn, "i-new", ada, "rebuilt")
          const failed = yield* Effect.exit(
            sql.withTransaction(Effect.andThen(transfer, Effect.fail("changed its mind" as const)))
          )
          assert.isTrue(Exit.isFailure(failed))
          assert.strictEqual(yield* everything, before)
          const woken = yield* sql.withTransaction(
            Effect.gen(function* () {
              yield* transfer
              yield* sql`UPDATE host SET hostname = 'seen' WHERE id = ${host.id}`
              return yield* Effect.raceFirst(outbox.awaitWake, Effect.as(Effect.yieldNow, "not yet" as const))
            })
          )
          assert.strictEqual(woken, "not yet")
          assert.deepStrictEqual([...(yield* outbox.awaitWake)].sort(), [T.reverse4.name, T.forward.name].sort())
          const found = Option.getOrThrow(yield* registry.findById(host.id))
          assert.deepStrictEqual([String(found.hostname), found.owner], ["seen", "i-new"])
        })
      )

      test(
        "while a registration of it is being answered holds no lease of what it was",
        Effect.gen(function* () {
          const registry = yield* Registry
          const leases = yield* Leases
          const results = yield* Effect.all(
            [
              registry.register(T.registration("web", "192.0.2.7", "fleet")),
              Effect.retry(registry.transfer(T.nameOf("web"), "i-new", ada, "rebuilt"), {
                while: ({ _tag }) => _tag === "HostUnknown"
              })
            ] as const,
            { concurrency: "unbounded" }
          )
          assert.strictEqual(results[1].owner, "i-new")
          assert.isFalse(leases.beat(results[0].host, 1_000_001))
          assert.strictEqual(leases.size(), 0)
        })
      )
    })

    describe("changing a host by somebody's word", () => {
      const ops = { name: "ops", peer: "198.51.100.9", request: "r-1" }

      test(
        "changes what is said and keeps the rest; the old records are looked at too, and the lease is dropped",
        Effect.gen(function* () {
          const registry = yield* Registry
          const { host } = yield* registry.register({
            ...T.registration("web", ["192.0.2.7", "192.0.2.8"], "fleet"),
            labels: { rack: "7" },
            ttlSeconds: 90
          })
          yield* publishAll
          const {
            before,
            changed,
            host: after
          } = yield* registry.change({
            event: "changed",
            fqdn: host.fqdn,
            actor: ops,
            reason: "moved",
            edit: ({ labels }) => ({ addresses: [T.address("192.0.2.9")], labels: { ...labels, site: "north" } })
          })
          assert.isTrue(changed)
          assert.deepStrictEqual(before, host)
          assert.deepStrictEqual(after, {
            ...host,
            addresses: [T.address("192.0.2.9")],
            labels: { rack: "7", site: "north" },
            generation: after.generation
          })
          assert.isAbove(after.generation, host.generation)
          assert.deepStrictEqual(yield* registry.findByName(host.fqdn), Option.some(after))
          assert.deepStrictEqual(
            yield* markedNames,
            [T.nameOf("web"), ...["7", "8", "9"].map((n) => T.pointerOf(`192.0.2.${n}`))].sort()
          )
          assert.strictEqual((yield* Leases).size(), 0)
          assert.deepStrictEqual(
            (yield* history()).map(({ event }) => event),
            ["created", "changed"]
          )
        })
      )

      test(
        "writes nothing where it is so already, or where the host is not as whoever speaks thinks",
        Effect.gen(function* () {
          const registry = yield* Registry
          const { host } = yield* registry.register(T.registration("web", "192.0.2.7", "fleet"))
          const before = yield* everything
          const word = { event: "changed", fqdn: host.fqdn, actor: ops } as const
          const same = yield* registry.change({ ...word, edit: () => ({ owner: "fleet", labels: {} }) })
          assert.isFalse(same.changed)
          const moved = yield* Effect.flip(
            registry.change({
              ...word,
              edit: () => ({ owner: "other" }),
              isExpected: (generation) => generation === host.generation - 1
            })
          )
          assert.strictEqual(moved._tag, "HostMoved")
          const unknown = yield* Effect.flip(registry.change({ ...word, fqdn: T.nameOf("none") }))
          assert.strictEqual(unknown._tag, "HostUnknown")
          assert.strictEqual(yield* everything, before)
        })
      )

      test(
        "in company of registrations, of the same name too, is done in the order in which it was asked for",
        Effect.gen(function* () {
          const registry = yield* Registry
          const to = (address: string) => ({
            event: "changed" as const,
            fqdn: T.nameOf("web"),
            actor: ops,
            edit: () => ({ addresses: [T.address(address)] })
          })
          const other = (n: number) => registry.register(T.registration(`other-${n}`, T.addressOf(100 + n), "fleet"))
          const steps: ReadonlyArray<Effect.Effect<unknown, unknown>> = [
            registry.register(T.registration("web", "192.0.2.1", "fleet")),
            other(1),
            registry.change(to("192.0.2.2")),
            registry.change(to("192.0.2.3")),
            other(2),
            registry.retire(T.nameOf("web"), ops, "sold"),
            registry.register(T.registration("web", "192.0.2.4", "fleet")),
            registry.release(T.nameOf("other-1"), ops, "gone"),
            registry.change(to("192.0.2.5"))
          ]
          yield* Effect.all(steps, { concurrency: "unbounded" })
          const web = Option.getOrThrow(yield* registry.findByName(T.nameOf("web")))
          assert.deepStrictEqual(web.addresses, [T.address("192.0.2.5")])
          assert.strictEqual(web.state, "online")
          assert.deepStrictEqual(
            (yield* history(T.nameOf("web"))).map(({ addresses, event }) => `${event} ${addresses}`),
            [
              'created ["192.0.2.1"]',
              'changed ["192.0.2.2"]',
              'changed ["192.0.2.3"]',
              'retired ["192.0.2.3"]',
              'returned ["192.0.2.4"]',
              'changed ["192.0.2.5"]'
            ]
          )
          assert.isTrue(Option.isNone(yield* registry.findByName(T.nameOf("other-1"))))
        })
      )
    })

    describe("trying out", () => {
      const ops = { name: "ops", peer: undefined }

      test(
        "says what would become of each request, one after another, and what would be published; nothing is changed",
        Effect.gen(function* () {
          const registry = yield* Registry
          const source = yield* RecordSource
          const leases = yield* Leases
          yield* registry.register(T.registration("old", "192.0.2.1", "fleet"))
          const before = yield* everything
          const word = { actor: ops, reason: "test" }
          const tried = yield* registry.tryOut(
            [
              { _tag: "Register", registration: T.registration("new", "192.0.2.2", "fleet") },
              { _tag: "Register", registration: T.registration("old", "192.0.2.3", "other") },
              { _tag: "Word", word: { ...word, event: "released", fqdn: T.nameOf("old") } },
              { _tag: "Register", registration: T.registration("old", "192.0.2.3", "other") },
              { _tag: "Word", word: { ...word, event: "retired", fqdn: T.nameOf("none") } }
            ],
            (list) =>
              Effect.map(source.desired(T.forward, [T.nameOf("new"), T.nameOf("old")]), (records) => ({
                outcomes: list.map((each) => (each._tag === "Success" ? each.success.outcome : each.failure._tag)),
                records: [...records.values()].flat().flatMap(({ contents }) => contents)
              }))
          )
          assert.deepStrictEqual(tried, {
            outcomes: ["created", "HostnameTaken", "released", "created", "HostUnknown"],
            records: ["192.0.2.2", "192.0.2.3"]
          })
          assert.strictEqual(yield* everything, before)
          assert.strictEqual(leases.size(), 1)
          assert.strictEqual((yield* Acknowledgements).size(), 1)
        })
      )
    })

    describe("following a host", () => {
      const settled = { _tag: "Applied", atMillis: 7_000_000 } as const
      const served = { _tag: "Served", atMillis: 8_000_000, nodes: [] } as const

      test(
        "tells what it has reached at once and the rest when it comes, at whatever level it is met",
        Effect.gen(function* () {
          const registry = yield* Registry
          const acknowledgements = yield* Acknowledgements
          const sql = yield* SqlClient.SqlClient
          const { host } = yield* registry.register(T.registration("web", ["192.0.2.7", "2001:db8::7"], "fleet"))
          const follow = registry.follow(host)
          const settleAll = (outcome: typeof settled | typeof served, generation: number) => {
            for (const { name, zone } of accepted.ticket.places) {
              acknowledgements.settle(zone, name, generation, outcome)
            }
          }

          const accepted = yield* follow
          assert.strictEqual(accepted.publication.level, "accepted")
          assert.strictEqual(accepted.ticket.places.length, 3)
          assert.isUndefined(accepted.ticket.applied)
          settleAll(settled, host.generation - 1)
          assert.isUndefined(accepted.ticket.applied)
          settleAll(settled, host.generation)
          assert.deepStrictEqual(accepted.ticket.applied, settled)

          yield* publishAll
          const applied = yield* follow
          assert.strictEqual(applied.publication.level, "applied")
          assert.deepStrictEqual(applied.ticket.applied, { _tag: "Applied", atMillis: 1234 })
          assert.isUndefined(applied.ticket.end)
          settleAll(served, host.generation)
          assert.deepStrictEqual(applied.ticket.end, served)
          assert.deepStrictEqual(accepted.ticket.end, served)

          yield* sql`DELETE FROM unserved`
          yield* sql`UPDATE published SET served_at = 9000000`
          const both = yield* follow
          assert.deepStrictEqual(both.publication, {
            level: "served",
            generation: host.generation,
            atMillis: 9_000_000
          })
          assert.deepStrictEqual(both.ticket.end, { _tag: "Served", atMillis: 9_000_000, nodes: [] })
          assert.strictEqual(acknowledgements.size("served"), 0)
        })
      )

      test(
        "says that it is parked, and why",
        Effect.gen(function* () {
          const registry = yield* Registry
          const outbox = yield* Outbox
          const { host } = yield* registry.register(T.registration("web", "192.0.2.7", "fleet"))
          const due = yield* outbox.due(T.forward.name, 10)
          yield* outbox.park(
            T.forward.name,
            due.map((mark) => ({ ...mark, reason: "it said no" })),
            1
          )
          const { publication, ticket } = yield* registry.follow(host)
          assert.strictEqual(publication.error, "it said no")
          assert.strictEqual(ticket.end?._tag, "Parked")
        })
      )

      test(
        "settles with what is under way, also when another transaction has marked it at an older generation",
        Effect.gen(function* () {
          const registry = yield* Registry
          const outbox = yield* Outbox
          const acknowledgements = yield* Acknowledgements
          const { host } = yield* registry.register(T.registration("web", "192.0.2.7", "fleet"))
          yield* publishAll
          const pointer = { zone: T.reverse4.name, name: T.pointerOf("192.0.2.7") }
          yield* outbox.mark([pointer], host.generation - 1, 1_000_000, "registered")
          const { ticket } = yield* registry.follow(host)
          acknowledgements.settle(T.forward.name, host.fqdn, host.generation, served)
          acknowledgements.settle(pointer.zone, pointer.name, host.generation - 2, served)
          assert.isUndefined(ticket.end)
          acknowledgements.settle(pointer.zone, pointer.name, host.generation - 1, served)
          assert.deepStrictEqual(ticket.end, served)
        })
      )
    })

    describe("wishes", () => {
      test(
        "for labels and a TTL are kept until they are changed, and a change of them is one of the host",
        Effect.gen(function* () {
          const registry = yield* Registry
          const sql = yield* SqlClient.SqlClient
          const web = T.registration("web", "192.0.2.7", "fleet")
          const step = (wishes: Wishes) =>
            Effect.map(registry.register({ ...web, ...wishes }), ({ host: { labels, ttlSeconds }, outcome }) => [
              outcome,
              ttlSeconds,
              labels
            ])
          assert.deepStrictEqual(yield* step({ ttlSeconds: 30, labels: { role: "web" } }), [
            "created",
            30,
            { role: "web" }
          ])
          const labels = { role: "web", rack: "7" }
          assert.deepStrictEqual(yield* step({}), ["renewed", 30, { role: "web" }])
          assert.deepStrictEqual(yield* step({ labels }), ["changed", 30, labels])
          assert.deepStrictEqual(yield* step({ labels: { rack: "7", role: "web" }, ttlSeconds: 30 }), [
            "renewed",
            30,
            labels
          ])
          yield* publishAll
          assert.deepStrictEqual(yield* step({ ttlSeconds: null }), ["changed", undefined, labels])
          assert.deepStrictEqual(yield* markedNames, [T.nameOf("web"), T.pointerOf("192.0.2.7")].sort())
          assert.deepStrictEqual(yield* step({ labels: {} }), ["changed", undefined, {}])
          const rows = yield* sql<{ readonly labels: string; readonly ttl: number | bigint | null }>`
            SELECT labels, ttl FROM host_history ORDER BY sequence`
          assert.deepStrictEqual(
            rows.map(({ labels, ttl }) => [ttl === null ? null : Number(ttl), JSON.parse(labels)]),
            [
              [30, { role: "web" }],
              [30, labels],
              [null, labels],
              [null, {}]
            ]
          )
          const audit = yield* sql<{ readonly after: string }>`SELECT after FROM audit_entry ORDER BY sequence LIMIT 2`
          assert.deepStrictEqual(
            audit.map(({ after }) => {
              const view = JSON.parse(after)
              return [view.ttlSeconds, view.labels]
            }),
            [
              [30, { role: "web" }],
              [30, labels]
            ]
          )
        })
      )
    })

    describe("quotas", () => {
      /** What `host_count` says, and what a count of the hosts comes to. */
      const counts = Effect.gen(function* () {
        const sql = yield* SqlClient.SqlClient
        const toText = (row: { readonly kind: string; readonly key: string; readonly hosts: number | bigint }) =>
          `${row.kind} ${row.key} ${row.hosts}`
        const kept = yield* sql<{ readonly kind: string; readonly key: string; readonly hosts: number | bigint }>`
          SELECT kind, key, hosts FROM host_count`
        const counted = yield* sql<{ readonly kind: string; readonly key: string; readonly hosts: number | bigint }>`
          SELECT 'zone' AS kind, zone AS key, COUNT(*) AS hosts FROM host GROUP BY zone
          UNION ALL SELECT 'owner', owner, COUNT(*) FROM host GROUP BY owner`
        return { kept: kept.map(toText).sort(), counted: counted.map(toText).sort() }
      })
      const tagOf = (exit: Exit.Exit<Registered, RegisterError>) =>
        Exit.isSuccess(exit) ? exit.value.outcome : Option.getOrThrow(Cause.findErrorOption(exit.cause))._tag
      const ada = { name: "ada", peer: undefined }

      test(
        "let an identity have so many hosts and no more, in one batch as in several; what it has it may change",
        Effect.gen(function* () {
          const registry = yield* Registry
          const asked = (name: string, n: number) => ({ ...T.registration(name, `192.0.2.${n}`, "fleet"), hostsMax: 2 })
          const first = yield* registerAllExits([asked("a", 1), asked("b", 2), asked("c", 3)])
          assert.deepStrictEqual(first.map(tagOf), ["created", "created", "QuotaExceeded"])
          const error = yield* Effect.flip(registry.register(asked("d", 4)))
          assert(error._tag === "QuotaExceeded")
          assert.deepStrictEqual([error.scope, error.max], ["identity", 2])
          assert.strictEqual(error.message, "the identity fleet has as many hosts as it may have: 2")
          assert.strictEqual((yield* registry.register(asked("a", 9))).outcome, "changed")
          yield* registry.register(T.registration("e", "192.0.2.5", "others"))
          yield* registry.retire(T.nameOf("e"), ada, "gone")
          // one that it takes over would be its own
          assert.strictEqual((yield* Effect.flip(registry.register(asked("e", 5))))._tag, "QuotaExceeded")
          yield* registry.release(T.nameOf("a"), ada, "gone")
          assert.strictEqual((yield* registry.register(asked("e", 5))).outcome, "returned")
          const { counted, kept } = yield* counts
          assert.deepStrictEqual(kept, counted)
          assert.deepStrictEqual(kept, ["owner fleet 2", "zone hosts.test. 2"])
        })
      )

      test(
        "are counted with every change of what hosts there are and whose",
        Effect.gen(function* () {
          const registry = yield* Registry
          const sql = yield* SqlClient.SqlClient
          let state = 12345
          const random = (n: number) => {
            state = (Math.imul(state, 1103515245) + 12345) & 0x7fffffff
            return (state >>> 8) % n
          }
          const owners = ["fleet", "others", undefined] as const
          for (let i = 0; i < 80; i++) {
            const name = `h${random(6)}`
            const word = random(6)
            if (word === 0) yield* Effect.ignore(registry.retire(T.nameOf(name), ada, "test"))
            else if (word === 1) yield* Effect.ignore(registry.release(T.nameOf(name), ada, "test"))
            else if (word === 2) {
              yield* Effect.ignore(registry.transfer(T.nameOf(name), owners[random(2)]!, ada, "test"))
            } else {
              yield* registerAllExits(
                Array.from({ length: 1 + random(4) }, () =>
                  T.registration(`h${random(6)}`, `192.0.2.${1 + random(9)}`, owners[random(3)])
                )
              )
            }
            const { counted, kept } = yield* counts
            assert.deepStrictEqual(kept, counted, `after step ${i}`)
          }
          yield* sql`UPDATE host SET state = 'retired', retired_since = 1`
          const { sweep } = yield* Expiry.make({ leaseMillis: 0 })
          yield* (yield* T.Time).jump(Duration.toMillis("30 days"))
          yield* sweep
          yield* (yield* T.Time).jump(1000)
          yield* sweep
          assert.deepStrictEqual(yield* counts, { kept: [], counted: [] })
        })
      )
    })

    describe("time", () => {
      test(
        "turns hosts offline, retires and releases them, and a mass of them waits for a person's word",
        Effect.gen(function* () {
          const registry = yield* Registry
          const sql = Layer.succeed(SqlClient.SqlClient, yield* SqlClient.SqlClient)
          const time = yield* T.Time
          const zone = Zone.make(T.forward.name, {
            policy: {
              whenOffline: { _tag: "Withdraw", after: Duration.seconds(2) },
              retireAfter: Duration.seconds(4),
              holdFor: Duration.seconds(4)
            }
          })
          const { guards, sweep } = yield* Effect.gen(function* () {
            return {
              guards: yield* Guards,
              ...(yield* Expiry.make({ leaseMillis: 1000, sweepMillis: 5000 }))
            }
          }).pipe(
            Effect.provide(Layer.fresh(Layer.merge(T.shared([zone]), Guards.layer)).pipe(Layer.provideMerge(sql)))
          )
          const states = Effect.map(registry.list({ limit: 1000 }), (list) => [
            ...new Set(list.map(({ state, withdrawnSinceMillis }) => `${state} ${withdrawnSinceMillis !== undefined}`))
          ])
          yield* registerAll(Array.from({ length: 50 }, (_, i) => T.registration(`h${i}`, "192.0.2.1", "fleet")))
          yield* time.jump(2000)
          yield* sweep
          assert.deepStrictEqual(yield* states, ["online false"])
          const [guard] = yield* guards.list
          assert.match(guard!.detail, /^50 of 50 hosts/)
          assert.isTrue(guard?.waiting)
          assert.isFalse((yield* guards.allow("mass-expiry", { name: "ada", peer: undefined }, "true")).waiting)
          yield* sweep
          assert.deepStrictEqual(yield* states, ["offline false"])
          for (const expected of [["offline true"], ["retired true"], []]) {
            yield* time.jump(expected[0] === "offline true" ? 2000 : expected.length === 0 ? 4000 : 2000)
            yield* sweep
            assert.deepStrictEqual(yield* states, expected)
          }
          assert.deepStrictEqual(yield* guards.list, [])
          assert.deepStrictEqual(
            (yield* history(T.nameOf("h7"))).map(({ event }) => event),
            ["created", "offline", "withdrawn", "retired", "released"]
          )
        })
      )
    })

    describe("a zone of the policy suffix", () => {
      const zone = Zone.make(T.forward.name, { policy: { conflict: "suffix" } })
      const suffixed = <E>(name: string, body: Effect.Effect<void, E, Services>) =>
        test(
          name,
          Effect.gen(function* () {
            const sql = Layer.succeed(SqlClient.SqlClient, yield* SqlClient.SqlClient)
            yield* Effect.provide(
              body,
              Layer.fresh(T.registry({ suffixesMax: 3 }, [zone, T.reverse4])).pipe(Layer.provideMerge(sql))
            )
          })
        )
      const web = (n: number) => T.registration("web", `192.0.2.${n}`, `owner-${n}`)

      suffixed(
        "gives each of several machines in one batch a name of its own, as far as they go, and each keeps it",
        Effect.gen(function* () {
          const registry = yield* Registry
          const exits = yield* registerAllExits([1, 2, 3, 4, 5].map(web))
          const names = exits.map((exit) =>
            Exit.isSuccess(exit) ? String(exit.value.host.fqdn).split(".")[0] : "none"
          )
          assert.deepStrictEqual(names, ["web", "web-2", "web-3", "web-4", "none"])
          assert.deepStrictEqual(
            (yield* registry.list({ limit: 10 })).map(({ hostname }) => String(hostname)),
            ["web", "web", "web", "web"]
          )
          const before = yield* everything
          // From memory, as beats are; and by the database, as after a restart.
          const leases = yield* Leases
          for (const [i, name] of names.slice(0, 4).entries()) {
            const { addresses, fqdn, registrant } = web(i + 1)
            const renewed = leases.renew(fqdn, addresses, registrant, 1_000_001)
            assert.strictEqual(renewed?.fqdn, T.nameOf(name!))
            leases.drop(T.nameOf(name!), Number.MAX_SAFE_INTEGER)
            assert.isUndefined(leases.renew(fqdn, addresses, registrant, 1_000_002))
            const again = yield* registry.register(web(i + 1))
            assert.deepStrictEqual([again.outcome, again.host.fqdn], ["renewed", T.nameOf(name!)])
            assert.strictEqual(leases.renew(fqdn, addresses, registrant, 1_000_003)?.fqdn, T.nameOf(name!))
          }
          assert.strictEqual(yield* everything, before)
        })
      )

      suffixed(
        "gives nobody a name that is not granted to it",
        Effect.gen(function* () {
          const [first, second, third] = yield* registerAllExits([
            web(1),
            { ...web(2), mayHave: (name) => name === T.nameOf("web-3") },
            { ...web(3), mayHave: (name) => name === T.nameOf("web") }
          ])
          assert.isTrue(Exit.isSuccess(first!) && first.value.host.fqdn === T.nameOf("web"))
          assert.isTrue(Exit.isSuccess(second!) && second.value.host.fqdn === T.nameOf("web-3"))
          assert.isTrue(Exit.isFailure(third!))
        })
      )
    })

    describe("a name that two machines claim in turn", () => {
      const register = (n: number) =>
        Effect.flatMap(Registry, (registry) => registry.register(T.registration("web", `192.0.2.${n}`, "fleet")))
      /** Both beat every minute, half a minute apart. */
      const flap = Effect.fnUntraced(function* (times: number) {
        const outcomes: Array<string> = []
        for (let i = 0; i < times; i++) {
          yield* (yield* T.Time).jump(30_000)
          const exit = yield* Effect.exit(register((i % 2) + 1))
          outcomes.push(
            Exit.isSuccess(exit)
              ? exit.value.outcome
              : Cause.squash(exit.cause) instanceof HostnameFlapping
                ? "flapping"
                : "?"
          )
        }
        return outcomes
      })

      test(
        "keeps its addresses after a few changes, and no refused claim writes a row; it is renewed by whose it is",
        Effect.gen(function* () {
          const leases = yield* Leases
          assert.deepStrictEqual(yield* flap(6), ["created", "changed", "changed", "changed", "changed", "flapping"])
          const before = yield* everything
          assert.deepStrictEqual(
            yield* flap(40),
            Array.from({ length: 40 }, (_, i) => (i % 2 === 0 ? "renewed" : "flapping"))
          )
          assert.strictEqual(yield* everything, before)
          const error = yield* Effect.flip(register(2))
          assert(error._tag === "HostnameFlapping")
          assert.deepStrictEqual([error.addresses, error.claimed], [["192.0.2.1"], ["192.0.2.2"]])
          assert.isAbove(error.untilMillis, 1_000_000 + 46 * 30_000)
          assert.strictEqual(leases.size(), 1)
          // Another name is not concerned, and this one is free again in the end.
          const other = yield* (yield* Registry).register(T.registration("db", "192.0.2.2", "fleet"))
          assert.strictEqual(other.outcome, "created")
          yield* (yield* T.Time).set(error.untilMillis + 1)
          assert.strictEqual((yield* register(2)).outcome, "changed")
        })
      )

      test(
        "by all of its addresses together: what one of them has in common with another does not count, nor do wishes",
        Effect.gen(function* () {
          const registry = yield* Registry
          const time = yield* T.Time
          const step = Effect.fnUntraced(function* (addresses: ReadonlyArray<string>, rack: string) {
            yield* time.jump(30_000)
            const registration = { ...T.registration("web", addresses, "fleet"), labels: { rack } }
            return yield* Effect.match(registry.register(registration), {
              onSuccess: ({ outcome }): string => outcome,
              onFailure: ({ _tag }): string => _tag
            })
          })
          const both = ["192.0.2.1", "2001:db8::1"]
          yield* step(both, "0")
          for (let i = 1; i <= 20; i++) assert.strictEqual(yield* step(both, `${i % 2}`), "changed")
          const sets = [["192.0.2.1"], both, ["192.0.2.1"], both, ["192.0.2.1"]]
          const outcomes = yield* Effect.forEach(sets, (addresses) => step(addresses, "0"))
          assert.deepStrictEqual(outcomes, ["changed", "changed", "changed", "changed", "HostnameFlapping"])
        })
      )

      test(
        "goes to the other once its host is offline, damped or not",
        Effect.gen(function* () {
          const sql = yield* SqlClient.SqlClient
          assert.deepStrictEqual((yield* flap(6)).at(-1), "flapping")
          yield* sql`UPDATE host SET state = 'offline', offline_since = 1`
          const taken = yield* register(2)
          assert.strictEqual(taken.outcome, "returned")
          assert.deepStrictEqual(taken.host.addresses, [T.addressOf(2)])
        })
      )

      test(
        "is not counted twice when the commit fails",
        Effect.gen(function* () {
          assert.deepStrictEqual((yield* flap(4)).at(-1), "changed")
          yield* breakCommit("audit_entry")
          for (let i = 0; i < 5; i++) {
            const error = yield* Effect.flip(register(1))
            assert.strictEqual(error._tag, "RegistryUnavailable")
          }
          yield* mend("audit_entry")
          assert.strictEqual((yield* register(1)).outcome, "changed")
        })
      )
    })

    describe("a commit", () => {
      for (const table of ["host", "host_address", "host_history", "audit_entry", "outbox"]) {
        test(
          `that fails at ${table} leaves nothing, holds no lease and no ticket, and the next one works`,
          Effect.gen(function* () {
            const registry = yield* Registry
            yield* registry.register(T.registration("old", "192.0.2.1"))
            yield* publishAll
            ;(yield* Acknowledgements).settle(T.forward.name, T.nameOf("old"), 99, { _tag: "Applied", atMillis: 0 })
            ;(yield* Acknowledgements).settle(T.reverse4.name, T.pointerOf("192.0.2.1"), 99, {
              _tag: "Applied",
              atMillis: 0
            })
            const before = yield* everything
            yield* breakTable(table)
            const error = yield* Effect.flip(registry.register(T.registration("web", "192.0.2.7")))
            assert.strictEqual(error._tag, "RegistryUnavailable")
            assert.strictEqual(yield* everything, before)
            assert.strictEqual((yield* Leases).size(), 1)
            assert.strictEqual((yield* Acknowledgements).size(), 0)
            yield* mend(table)
            assert.strictEqual((yield* registry.register(T.registration("web", "192.0.2.7"))).outcome, "created")
          })
        )
      }

      test(
        "that fails at its very end leaves nothing, holds no lease and no ticket, and the next one works",
        Effect.gen(function* () {
          const registry = yield* Registry
          yield* breakCommit("outbox")
          // the second renews what the first would create, within the same commit
          const twice = yield* registerAllExits([
            T.registration("web", "192.0.2.7"),
            T.registration("web", "192.0.2.7"),
            T.registration("web", "192.0.2.7")
          ])
          for (const exit of twice) assert.isTrue(Exit.isFailure(exit), String(exit))
          assert.deepStrictEqual(yield* registry.list({ limit: 10 }), [])
          assert.strictEqual((yield* Leases).size(), 0)
          assert.strictEqual((yield* Acknowledgements).size(), 0)
          yield* mend("outbox")
          assert.strictEqual((yield* registry.register(T.registration("web", "192.0.2.7"))).outcome, "created")
        })
      )

      test(
        "is shared by registrations that arrive together",
        Effect.gen(function* () {
          const names = Array.from({ length: 200 }, (_, i) => `h${i}`)
          const results = yield* registerAll(names.map((name, i) => T.registration(name, `192.0.2.${i}`)))
          assert.strictEqual(results.length, 200)
          assert.isAtMost(new Set(results.map(({ host }) => host.generation)).size, 3)
          assert.strictEqual((yield* (yield* Registry).list({ limit: 1000 })).length, 200)
        })
      )

      test(
        "takes the same name several times, each against what the one before left",
        Effect.gen(function* () {
          const registry = yield* Registry
          const results = yield* registerAll([
            // alone in the first commit, so that the others share the second
            T.registration("first", "192.0.2.1"),
            T.registration("web", "192.0.2.7"),
            T.registration("web", "192.0.2.8"),
            T.registration("web", "192.0.2.8"),
            T.registration("web", "192.0.2.9", "fleet")
          ])
          assert.deepStrictEqual(
            results.map(({ outcome }) => outcome),
            ["created", "created", "changed", "renewed", "changed"]
          )
          assert.deepStrictEqual(
            results.map(({ previousAddresses }) => previousAddresses),
            [[], [], [T.addressOf(7)], [T.addressOf(8)], [T.addressOf(8)]]
          )
          const stored = Option.getOrThrow(yield* registry.findByName(T.nameOf("web")))
          assert.deepStrictEqual(stored, results[4]!.host)
          assert.isDefined((yield* Leases).renew(stored.fqdn, stored.addresses, { name: "fleet", anonymous: false }, 1))
        })
      )

      test(
        "marks the records of every ticket it opens, so that none waits for ever",
        Effect.gen(function* () {
          const acknowledgements = yield* Acknowledgements
          yield* registerAll([
            T.registration("first", "192.0.2.1"),
            T.registration("web", "192.0.2.7"),
            T.registration("web", "192.0.2.8"),
            T.registration("web", "192.0.2.9")
          ])
          for (const { generation, name, zone } of yield* marks) {
            acknowledgements.settle(zone, name, generation, { _tag: "Applied", atMillis: 0 })
          }
          assert.strictEqual(acknowledgements.size(), 0)
        })
      )
    })

    describe("the history", () => {
      test(
        "of a host has ranges without gap or overlap, also when the clock goes back, and one of them is open",
        Effect.gen(function* () {
          const registry = yield* Registry
          const time = yield* T.Time
          const steps = [100, 0, 5000, -3000, 0, -1, 10_000]
          yield* registry.register(T.registration("web", "192.0.2.1"))
          for (const [i, step] of steps.entries()) {
            yield* time.jump(step)
            yield* registry.register(T.registration("web", `192.0.2.${i + 2}`))
          }
          const rows = yield* history(T.nameOf("web"))
          assert.strictEqual(rows.length, steps.length + 1)
          for (const [i, row] of rows.entries()) {
            const next = rows[i + 1]
            assert.strictEqual(row.valid_to, next === undefined ? null : next.valid_from)
            if (row.valid_to !== null) assert.isAtLeast(row.valid_to, row.valid_from)
            if (next !== undefined) assert.isAbove(next.generation, row.generation)
          }
          assert.deepStrictEqual(
            rows.map(({ event }) => event),
            ["created", ...steps.map(() => "changed")]
          )
        })
      )

      test(
        "and the audit have one entry for each change that took effect, and none for what was refused or renewed",
        Effect.gen(function* () {
          const registry = yield* Registry
          const sql = yield* SqlClient.SqlClient
          yield* registry.register(T.registration("web", "192.0.2.1", "fleet"))
          yield* registry.register(T.registration("web", "192.0.2.1", "fleet"))
          yield* Effect.flip(registry.register(T.registration("web", "192.0.2.9", "others")))
          yield* registry.register(T.registration("web", "192.0.2.2", "fleet"))
          yield* registry.register(T.registration("db", "192.0.2.3"))
          const entries = yield* sql<{ readonly [key: string]: unknown }>`
            SELECT actor, peer, action, subject, generation, before, after FROM audit_entry ORDER BY sequence`
          const rows = yield* history()
          const view = (n: number, owner: string) =>
            JSON.stringify({ addresses: [`192.0.2.${n}`], owner, state: "online", withdrawn: false })
          assert.deepStrictEqual(
            entries.map((entry) => [entry["actor"], entry["peer"], entry["action"], entry["subject"]]),
            [
              ["fleet", "198.51.100.1", "host.created", T.nameOf("web")],
              ["fleet", "198.51.100.1", "host.changed", T.nameOf("web")],
              ["anonymous", "198.51.100.1", "host.created", T.nameOf("db")]
            ]
          )
          assert.deepStrictEqual(
            entries.map((entry) => [entry["before"], entry["after"]]),
            [
              [null, view(1, "fleet")],
              [view(1, "fleet"), view(2, "fleet")],
              [null, view(3, "anonymous")]
            ]
          )
          assert.deepStrictEqual(
            entries.map((entry) => Number(entry["generation"])),
            rows.map(({ generation }) => generation)
          )
        })
      )
    })

    describe("marks", () => {
      test(
        "of one name coalesce: it stands once, at the last generation, waiting since the first",
        Effect.gen(function* () {
          const registry = yield* Registry
          yield* registry.register(T.registration("web", "192.0.2.1"))
          yield* (yield* T.Time).jump(1000)
          const { host } = yield* registry.register(T.registration("web", "192.0.2.2"))
          const mark = (yield* marks).filter(({ name }) => name === host.fqdn)
          assert.deepStrictEqual(mark, [
            {
              zone: T.forward.name,
              name: host.fqdn,
              generation: host.generation,
              markedAtMillis: 1_000_000,
              parkedReason: undefined
            }
          ])
        })
      )

      test(
        "made while the name was being published survive the settlement at the older generation",
        Effect.gen(function* () {
          const registry = yield* Registry
          const outbox = yield* Outbox
          yield* registry.register(T.registration("web", "192.0.2.1"))
          const taken = yield* outbox.due(T.forward.name, 10)
          const { host } = yield* registry.register(T.registration("web", "192.0.2.2"))
          yield* outbox.settle(
            T.forward,
            taken.map((mark) => ({ ...mark, rrsets: [] })),
            1
          )
          assert.deepStrictEqual(
            (yield* outbox.due(T.forward.name, 10)).map(({ generation }) => generation),
            [host.generation]
          )
          yield* outbox.park(
            T.forward.name,
            taken.map((mark) => ({ ...mark, reason: "too old to matter" })),
            1
          )
          assert.strictEqual((yield* outbox.due(T.forward.name, 10)).length, 1)
        })
      )

      test(
        "that are parked leave the due list, say why, and come back with the next change",
        Effect.gen(function* () {
          const registry = yield* Registry
          const outbox = yield* Outbox
          const { host } = yield* registry.register(T.registration("web", "192.0.2.1"))
          const taken = yield* outbox.due(T.forward.name, 10)
          yield* outbox.park(
            T.forward.name,
            taken.map((mark) => ({ ...mark, reason: "it said 'no'" })),
            1
          )
          assert.deepStrictEqual(yield* outbox.due(T.forward.name, 10), [])
          assert.deepStrictEqual(yield* outbox.dueZones([T.forward.name, T.reverse4.name]), [T.reverse4.name])
          assert.deepStrictEqual(
            (yield* outbox.list({ zone: T.forward.name, limit: 10 })).map(({ parkedReason }) => parkedReason),
            ["it said 'no'"]
          )
          assert.deepStrictEqual(
            (yield* outbox.backlog).map(({ parked, pending, zone }) => [zone, pending, parked]),
            [
              [T.reverse4.name, 1, 0],
              [T.forward.name, 0, 1]
            ]
          )
          assert.deepStrictEqual(yield* registry.publications([host]), [
            { level: "accepted", generation: host.generation, atMillis: 1_000_000, error: "it said 'no'" }
          ])
          yield* (yield* T.Time).jump(500)
          const again = yield* registry.register(T.registration("web", "192.0.2.2"))
          assert.deepStrictEqual(yield* outbox.due(T.forward.name, 10), [
            { name: host.fqdn, generation: again.host.generation, markedAtMillis: 1_000_500, cause: "registered" }
          ])
        })
      )

      test(
        "are due the longest waiting first, and as many as asked for",
        Effect.gen(function* () {
          const registry = yield* Registry
          const outbox = yield* Outbox
          for (const name of ["c", "a", "b"]) {
            yield* registry.register(T.registration(name, "198.51.100.1"))
            yield* (yield* T.Time).jump(1)
          }
          assert.deepStrictEqual(
            (yield* outbox.due(T.forward.name, 2)).map(({ name }) => name),
            [T.nameOf("c"), T.nameOf("a")]
          )
        })
      )
    })

    describe("publications", () => {
      test(
        "say accepted while a record of the host is marked, applied once none is, and served when every server answers",
        Effect.gen(function* () {
          const registry = yield* Registry
          const outbox = yield* Outbox
          const { host: web } = yield* registry.register(T.registration("web", "192.0.2.1"))
          const { host: db } = yield* registry.register(T.registration("db", "198.51.100.2"))
          const due = yield* outbox.due(T.forward.name, 10)
          yield* outbox.settle(
            T.forward,
            due.map((mark) => ({ ...mark, rrsets: [{ name: mark.name, type: "A", ttlSeconds: 60, contents: ["x"] }] })),
            2_000_000
          )
          // the pointer of `web` is still to come
          assert.deepStrictEqual(yield* registry.publications([db, web]), [
            { level: "applied", generation: db.generation, atMillis: 2_000_000 },
            { level: "accepted", generation: web.generation, atMillis: 1_000_000 }
          ])
          yield* publishAll
          assert.strictEqual((yield* registry.publications([web]))[0]?.level, "applied")
          const sql = yield* SqlClient.SqlClient
          yield* sql`DELETE FROM unserved WHERE zone = ${T.forward.name}`
          yield* sql`UPDATE published SET served_at = 3000000 WHERE zone = ${T.forward.name}`
          assert.deepStrictEqual(
            (yield* registry.publications([db, web])).map(({ atMillis, level }) => [
              level,
              level === "served" && atMillis
            ]),
            [
              ["served", 3_000_000],
              ["applied", false]
            ]
          )
          assert.deepStrictEqual(yield* registry.publications([]), [])
        })
      )
    })

    describe("desired records", () => {
      /** The records of a zone as `NAME TTL TYPE CONTENT`, sorted; the same by name and as a whole. */
      const recordsOf = Effect.fnUntraced(function* (zone: Zone.Zone) {
        const source = yield* RecordSource
        const toTexts = (records: Iterable<RRset.RRset>) =>
          Array.from(records)
            .flatMap(({ contents, name, ttlSeconds, type }) =>
              contents.map((content) => `${name.split(".")[0]} ${ttlSeconds} ${type} ${content}`)
            )
            .sort()
        const all = (yield* Stream.runCollect(source.all(zone))).flatMap((page) => [...page.values()].flat())
        const named = yield* source.desired(
          zone,
          all.map(({ name }) => name)
        )
        assert.deepStrictEqual(toTexts([...named.values()].flat()), toTexts(all))
        return toTexts(all)
      })

      test(
        "of a host with several addresses are all of them, and for each address one pointer to the host that has it",
        Effect.gen(function* () {
          const registry = yield* Registry
          const time = yield* T.Time
          const { host } = yield* registry.register(
            T.registration("web", ["192.0.2.8", "192.0.2.7", "2001:db8::8", "2001:db8::7"], "fleet")
          )
          assert.deepStrictEqual(yield* recordsOf(T.forward), [
            "web 60 A 192.0.2.7",
            "web 60 A 192.0.2.8",
            "web 60 AAAA 2001:db8::7",
            "web 60 AAAA 2001:db8::8"
          ])
          assert.deepStrictEqual(yield* recordsOf(T.reverse4), [`7 60 PTR ${host.fqdn}`, `8 60 PTR ${host.fqdn}`])
          assert.deepStrictEqual(yield* recordsOf(T.reverse6), [`7 60 PTR ${host.fqdn}`, `8 60 PTR ${host.fqdn}`])
          yield* publishAll
          yield* time.jump(1000)
          // One of them moves to another machine, another goes.
          yield* registry.register(T.registration("db", "192.0.2.7", "fleet"))
          const moved = yield* registry.register(
            T.registration("web", ["192.0.2.8", "192.0.2.7", "2001:db8::8"], "fleet")
          )
          assert.strictEqual(moved.outcome, "changed")
          assert.deepStrictEqual(
            yield* markedNames,
            [
              T.nameOf("db"),
              T.nameOf("web"),
              ...["192.0.2.7", "192.0.2.8", "2001:db8::7", "2001:db8::8"].map(T.pointerOf)
            ].sort()
          )
          assert.deepStrictEqual(yield* recordsOf(T.reverse4), [`7 60 PTR ${T.nameOf("db")}`, `8 60 PTR ${host.fqdn}`])
          assert.deepStrictEqual(yield* recordsOf(T.reverse6), [`8 60 PTR ${host.fqdn}`])
          const sql = yield* SqlClient.SqlClient
          const held = yield* sql<{ readonly address: string }>`
            SELECT a.address FROM host_address a JOIN host h ON h.id = a.host_id WHERE h.fqdn = ${host.fqdn}`
          assert.sameMembers(
            held.map(({ address }) => address),
            [...moved.host.addresses]
          )
        })
      )

      test(
        "have the TTL that their host wishes for within the bounds of each zone, and else the zone's",
        Effect.gen(function* () {
          const registry = yield* Registry
          const wishing = (name: string, n: number, ttlSeconds: number | null) =>
            registry.register({ ...T.registration(name, [`192.0.2.${n}`, `2001:db8::${n}`], "fleet"), ttlSeconds })
          yield* wishing("none", 1, null)
          yield* wishing("some", 2, 120)
          yield* wishing("less", 3, 1)
          yield* wishing("more", 4, 1_000_000)
          assert.deepStrictEqual(
            (yield* recordsOf(T.forward)).filter((text) => text.includes(" A ")),
            ["less 30 A 192.0.2.3", "more 3600 A 192.0.2.4", "none 60 A 192.0.2.1", "some 120 A 192.0.2.2"]
          )
          assert.strictEqual((yield* recordsOf(T.forward)).length, 8)
          const pointers = ["1 60", "2 120", "3 30", "4 3600"]
          const words = ["none", "some", "less", "more"]
          for (const zone of [T.reverse4, T.reverse6]) {
            assert.deepStrictEqual(
              yield* recordsOf(zone),
              pointers.map((text, i) => `${text} PTR ${T.nameOf(words[i]!)}`)
            )
          }
          const narrow = Zone.make(T.reverse4.name, { policy: { ttlSecondsMin: 100, ttlSecondsMax: 200 } })
          assert.deepStrictEqual(
            (yield* recordsOf(narrow)).map((text) => text.split(" ")[1]),
            ["60", "120", "100", "200"]
          )
        })
      )

      test(
        "of a pointer are the host that claimed the address last among those online, and nothing once all are withdrawn",
        Effect.gen(function* () {
          const registry = yield* Registry
          const sql = yield* SqlClient.SqlClient
          const source = yield* RecordSource
          const pointer = Effect.map(
            source.desired(T.reverse4, [T.pointerOf("192.0.2.7")]),
            (records) => records.get(T.pointerOf("192.0.2.7"))?.[0]?.contents
          )
          yield* registry.register(T.registration("one", "192.0.2.7"))
          yield* (yield* T.Time).jump(1000)
          yield* registry.register(T.registration("two", "192.0.2.7"))
          assert.deepStrictEqual(yield* pointer, [T.nameOf("two")])
          yield* sql`UPDATE host SET state = 'offline', offline_since = 1 WHERE fqdn = ${T.nameOf("two")}`
          assert.deepStrictEqual(yield* pointer, [T.nameOf("one")])
          yield* sql`UPDATE host SET state = 'offline', offline_since = 1`
          assert.deepStrictEqual(yield* pointer, [T.nameOf("two")])
          yield* sql`UPDATE host SET withdrawn_since = 1 WHERE fqdn = ${T.nameOf("two")}`
          assert.deepStrictEqual(yield* pointer, [T.nameOf("one")])
          yield* sql`UPDATE host SET withdrawn_since = 1`
          assert.isUndefined(yield* pointer)
        })
      )
    })

    describe("listing", () => {
      test(
        "filters by zone, state, address and beginning of the name, and pages in the order of bytes",
        Effect.gen(function* () {
          const registry = yield* Registry
          const sql = yield* SqlClient.SqlClient
          const names = ["web-1", "web-10", "web-2", "web.rack", "db", "we", "x_"]
          yield* registerAll(names.map((name, i) => T.registration(name, `192.0.2.${i + 1}`)))
          yield* sql`UPDATE host SET state = 'offline', offline_since = 1 WHERE hostname = 'db'`
          const list = (filter: Omit<Parameters<Registry["Service"]["list"]>[0], "limit">, limit = 100) =>
            Effect.map(registry.list({ ...filter, limit }), (hosts) => hosts.map(({ hostname }) => String(hostname)))
          const sorted = ["db", "we", "web-1", "web-10", "web-2", "web.rack", "x_"]
          assert.deepStrictEqual(yield* list({}), sorted)
          assert.deepStrictEqual(yield* list({ zone: T.forward.name }), sorted)
          assert.deepStrictEqual(yield* list({ zone: T.reverse4.name }), [])
          assert.deepStrictEqual(yield* list({ state: "offline" }), ["db"])
          assert.deepStrictEqual(yield* list({ address: T.addressOf(2) }), ["web-10"])
          assert.deepStrictEqual(yield* list({ prefix: "web-1" }), ["web-1", "web-10"])
          assert.deepStrictEqual(yield* list({ prefix: "%" }), [])
          assert.deepStrictEqual(yield* list({ prefix: "web", state: "online", address: T.addressOf(3) }), ["web-2"])
          const paged: Array<string> = []
          let page: ReadonlyArray<string>
          do {
            const last = paged.at(-1)
            page = yield* list(last === undefined ? {} : { after: T.nameOf(last) }, 3)
            paged.push(...page)
          } while (page.length === 3)
          assert.deepStrictEqual(paged, sorted)
          assert.deepStrictEqual(
            (yield* registry.countByState).map((row) => `${row.zone} ${row.state} ${row.hosts}`).sort(),
            ["hosts.test. offline 1", "hosts.test. online 6"]
          )
        })
      )
    })

    describe("closing", () => {
      test(
        "answers everyone: what was taken is stored and said to be, the rest is told so",
        Effect.gen(function* () {
          const sql = yield* SqlClient.SqlClient
          const outcomes = yield* Effect.scoped(
            Effect.gen(function* () {
              const context = yield* Layer.build(
                Layer.fresh(T.registry({ batchMax: 10 })).pipe(Layer.provide(Layer.succeed(SqlClient.SqlClient, sql)))
              )
              return yield* Effect.forEach(
                Array.from({ length: 100 }, (_, i) => T.registration(`h${i}`, "192.0.2.1")),
                (each) =>
                  Effect.forkDetach(
                    Effect.provide(
                      Effect.flatMap(Registry, (r) => r.register(each)),
                      context
                    ),
                    {
                      startImmediately: true
                    }
                  ),
                { concurrency: 1 }
              ).pipe(Effect.tap(() => Effect.yieldNow))
            })
          )
          const exits = yield* Effect.forEach(outcomes, (fiber) =>
            Effect.callback<Exit.Exit<unknown, unknown>>((resume) => {
              fiber.addObserver((exit) => resume(Effect.succeed(exit)))
            })
          )
          const stored = (yield* (yield* Registry).list({ limit: 1000 })).length
          assert.strictEqual(exits.filter(Exit.isSuccess).length, stored)
          for (const exit of exits) {
            if (Exit.isSuccess(exit)) continue
            assert.match(String(Cause.squash(exit.cause)), /RegistryUnavailable/)
          }
        })
      )
    })
  })
}

const registerAllExits = (list: ReadonlyArray<Parameters<Registry["Service"]["register"]>[0]>) =>
  Effect.flatMap(Registry, (registry) =>
    Effect.forEach(list, (each) => Effect.exit(registry.register(each)), { concurrency: "unbounded" })
  )
