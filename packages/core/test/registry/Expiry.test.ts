import { assert, describe, it } from "@effect/vitest"
import { type Context, Duration, Effect, Layer, Metric, Option } from "effect"
import { SqlClient } from "effect/sql"
import { TestClock } from "effect/testing"
import { Outbox } from "@prism-dns/core/dns/Outbox"
import type { HostState } from "@prism-dns/core/domain/Host"
import * as Zone from "@prism-dns/core/domain/Zone"
import * as Expiry from "@prism-dns/core/registry/Expiry"
import { Guards } from "@prism-dns/core/registry/Guards"
import { Leases } from "@prism-dns/core/registry/Leases"
import { Registry } from "@prism-dns/core/registry/Registry"
import * as RegistryMetrics from "@prism-dns/core/registry/RegistryMetrics"
import * as T from "../layers.ts"

const leaseSeconds = 150
const options: Partial<Expiry.ExpiryOptions> = {
  leaseMillis: leaseSeconds * 1000,
  sweepMillis: 5000,
  flushMillis: 10_000
}

const forwardWith = (whenOffline: Zone.OfflineAction) =>
  Zone.make(T.forward.name, { policy: { ttlSeconds: 60, whenOffline } })

const withdrawSeconds = 600
const afterAWhile = forwardWith({ _tag: "Withdraw", after: Duration.seconds(withdrawSeconds) })

/** One life of a server, on the database around. */
const life = (zone: Zone.Zone = afterAWhile, more: Partial<Expiry.ExpiryOptions> = {}) =>
  Layer.fresh(
    Expiry.layer({ ...options, ...more }).pipe(
      Layer.provideMerge(Guards.layer),
      Layer.provideMerge(T.registry({}, [zone, T.reverse4]))
    )
  )

type Services = Registry | Outbox | Leases | Guards | SqlClient.SqlClient | T.Time

const test = <E>(
  name: string,
  body: Effect.Effect<void, E, Services>,
  zone?: Zone.Zone,
  more?: Partial<Expiry.ExpiryOptions>
) =>
  it.effect(name, () => T.withTime("on", Effect.provide(body, life(zone, more).pipe(Layer.provideMerge(T.sqlite())))))

const register = (hostname: string, address = "192.0.2.1") =>
  Effect.flatMap(Registry, (registry) => registry.register(T.registration(hostname, address, "fleet")))

/** A beat as the session sends it: from memory where possible. */
const beat = Effect.fnUntraced(function* (hostname: string, address = "192.0.2.1") {
  const { addresses, fqdn, registrant } = T.registration(hostname, address, "fleet")
  const now = yield* Effect.clockWith((clock) => clock.currentTimeMillis)
  if ((yield* Leases).renew(fqdn, addresses, registrant, now) === undefined) yield* register(hostname, address)
})

const host = (hostname: string) =>
  Effect.flatMap(Registry, (registry) => Effect.map(registry.findByName(T.nameOf(hostname)), Option.getOrThrow))

const stateOf = (hostname: string): Effect.Effect<HostState, unknown, Registry> =>
  Effect.map(host(hostname), ({ state }) => state)

const pass = (seconds: number) => TestClock.adjust(`${seconds} seconds`)

const events = Effect.flatMap(SqlClient.SqlClient, (sql) =>
  Effect.map(sql<{ readonly event: string }>`SELECT event FROM host_history ORDER BY sequence`, (rows) =>
    rows.map(({ event }) => event)
  )
)

const clearMarks = Effect.flatMap(SqlClient.SqlClient, (sql) => sql`DELETE FROM outbox`)
const marked = Effect.flatMap(Outbox, (outbox) =>
  Effect.map(outbox.list({ limit: 100 }), (list) => list.map(({ name }) => name).sort())
)

const causes = Effect.flatMap(SqlClient.SqlClient, (sql) =>
  Effect.map(sql<{ readonly cause: string }>`SELECT DISTINCT cause FROM outbox`, (rows) =>
    rows.map(({ cause }) => cause)
  )
)

const trippedMetric = Effect.map(
  Metric.value(Metric.withAttributes(RegistryMetrics.guardTripped, { guard: "mass-expiry" })),
  ({ value }) => value
)

describe("a host without a lease", () => {
  const registerStatic = (hostname: string) =>
    Effect.flatMap(Registry, (registry) =>
      registry.register({ ...T.registration(hostname, "192.0.2.9", "fleet"), isStatic: true })
    )

  test(
    "is online however long nobody speaks of it, and is no part of a mass that vanishes",
    Effect.gen(function* () {
      yield* pass(leaseSeconds + 10)
      yield* registerStatic("printer")
      yield* register("web")
      yield* pass(10 * leaseSeconds)
      assert.strictEqual(yield* stateOf("printer"), "online")
      assert.strictEqual(yield* stateOf("web"), "offline")
      assert.deepStrictEqual(yield* events, ["created", "created", "offline", "withdrawn"])
    })
  )

  test(
    "has one as soon as an agent of its owner registers it, and none again when it is said so",
    Effect.gen(function* () {
      yield* pass(leaseSeconds + 10)
      yield* registerStatic("printer")
      assert.strictEqual((yield* registerStatic("printer")).outcome, "renewed")
      yield* beat("printer", "192.0.2.9")
      assert.isFalse((yield* host("printer")).isStatic)
      yield* pass(leaseSeconds + 10)
      assert.strictEqual(yield* stateOf("printer"), "offline")
      assert.strictEqual((yield* registerStatic("printer")).outcome, "returned")
      yield* pass(5 * leaseSeconds)
      assert.strictEqual(yield* stateOf("printer"), "online")
    })
  )
})

describe("a lease that passes", () => {
  test(
    "makes the host offline one lease after its last beat, within a sweep, and marks its records",
    Effect.gen(function* () {
      yield* pass(leaseSeconds + 10) // the grace of the start is over
      yield* register("web")
      yield* clearMarks
      yield* pass(leaseSeconds - 1)
      assert.strictEqual(yield* stateOf("web"), "online")
      yield* pass(7)
      const web = yield* host("web")
      assert.strictEqual(web.state, "offline")
      assert.isDefined(web.offlineSinceMillis)
      assert.isUndefined(web.withdrawnSinceMillis)
      assert.deepStrictEqual(yield* marked, [T.pointerOf("192.0.2.1"), T.nameOf("web")])
      assert.deepStrictEqual(yield* events, ["created", "offline"])
      assert.strictEqual((yield* Leases).size(), 0)
    })
  )

  test(
    "is written to the audit in Prism's own name",
    Effect.gen(function* () {
      const sql = yield* SqlClient.SqlClient
      yield* register("web")
      yield* pass(2 * leaseSeconds)
      const entries = yield* sql<{ readonly [key: string]: unknown }>`
        SELECT actor, peer, action FROM audit_entry ORDER BY sequence`
      assert.deepStrictEqual(
        entries.map((entry) => ({ ...entry })),
        [
          { actor: "fleet", peer: "198.51.100.1", action: "host.created" },
          { actor: "prism", peer: null, action: "host.offline" }
        ]
      )
    })
  )

  test(
    "never does while the host beats, and no beat writes a row of its own",
    Effect.gen(function* () {
      yield* register("web")
      for (let i = 0; i < 15; i++) {
        yield* pass(60)
        yield* beat("web")
      }
      assert.strictEqual(yield* stateOf("web"), "online")
      assert.deepStrictEqual(yield* events, ["created"])
    })
  )

  test(
    "of a thousand hosts at once turns each of them offline",
    Effect.gen(function* () {
      yield* Effect.forEach(
        Array.from({ length: 1001 }, (_, i) => `h${i}`),
        (name) => register(name),
        { concurrency: "unbounded" }
      )
      yield* pass(leaseSeconds + 20)
      const counts = yield* (yield* Registry).countByState
      assert.deepStrictEqual(
        counts.map(({ hosts, state }) => [state, hosts]),
        [["offline", 1001]]
      )
    }),
    afterAWhile,
    { massExpiryShare: 1 }
  )

  test(
    "spares those that beat at the last moment",
    Effect.gen(function* () {
      yield* pass(leaseSeconds + 10)
      yield* register("web")
      yield* register("db", "192.0.2.2")
      yield* pass(leaseSeconds - 2)
      yield* beat("web")
      yield* pass(10)
      assert.strictEqual(yield* stateOf("web"), "online")
      assert.strictEqual(yield* stateOf("db"), "offline")
      // and the one that is gone returns with its next beat
      yield* beat("db", "192.0.2.2")
      assert.strictEqual(yield* stateOf("db"), "online")
      assert.deepStrictEqual((yield* events).slice(-1), ["returned"])
    })
  )
})

describe("an offline host", () => {
  test(
    "is withdrawn when it has been away for as long as its zone allows, once",
    Effect.gen(function* () {
      yield* register("web")
      yield* pass(leaseSeconds + 10)
      assert.strictEqual(yield* stateOf("web"), "offline")
      yield* clearMarks
      yield* pass(withdrawSeconds - 20)
      assert.isUndefined((yield* host("web")).withdrawnSinceMillis)
      assert.deepStrictEqual(yield* marked, [])
      yield* pass(40)
      const web = yield* host("web")
      assert.isDefined(web.withdrawnSinceMillis)
      assert.strictEqual(web.state, "offline")
      assert.deepStrictEqual(yield* marked, [T.pointerOf("192.0.2.1"), T.nameOf("web")])
      yield* pass(withdrawSeconds)
      assert.deepStrictEqual(yield* events, ["created", "offline", "withdrawn"])
      yield* beat("web")
      const back = yield* host("web")
      assert.isUndefined(back.withdrawnSinceMillis)
      assert.isUndefined(back.offlineSinceMillis)
    })
  )

  test(
    "is withdrawn at once, in the same change, where the zone says so",
    Effect.gen(function* () {
      yield* register("web")
      yield* pass(leaseSeconds + 10)
      const web = yield* host("web")
      assert.strictEqual(web.state, "offline")
      assert.strictEqual(web.withdrawnSinceMillis, web.offlineSinceMillis)
      yield* pass(60)
      assert.deepStrictEqual(yield* events, ["created", "offline"])
    }),
    forwardWith({ _tag: "Withdraw", after: Duration.zero })
  )

  test(
    "keeps its records where the zone says so",
    Effect.gen(function* () {
      yield* register("web")
      yield* pass(1200)
      const web = yield* host("web")
      assert.strictEqual(web.state, "offline")
      assert.isUndefined(web.withdrawnSinceMillis)
    }),
    forwardWith({ _tag: "Keep" })
  )
})

describe("a host that stays away", () => {
  const zone = Zone.make(T.forward.name, {
    policy: {
      whenOffline: { _tag: "Keep" },
      retireAfter: Duration.seconds(1000),
      holdFor: Duration.seconds(500)
    }
  })

  test(
    "is retired though its records were kept, and released in the end; its name is free then, its history stays",
    Effect.gen(function* () {
      yield* register("web")
      yield* pass(leaseSeconds + 10)
      yield* pass(980)
      assert.strictEqual(yield* stateOf("web"), "offline")
      yield* clearMarks
      yield* pass(30)
      const retired = yield* host("web")
      assert.strictEqual(retired.state, "retired")
      assert.isDefined(retired.withdrawnSinceMillis)
      assert.isDefined(retired.retiredSinceMillis)
      assert.deepStrictEqual(yield* marked, [T.pointerOf("192.0.2.1"), T.nameOf("web")])
      assert.deepStrictEqual(yield* causes, ["withdrawn"])
      yield* clearMarks
      yield* pass(480)
      assert.strictEqual(yield* stateOf("web"), "retired")
      yield* pass(30)
      assert.isTrue(Option.isNone(yield* (yield* Registry).findByName(T.nameOf("web"))))
      assert.deepStrictEqual(yield* marked, [])
      assert.deepStrictEqual(yield* events, ["created", "offline", "retired", "released"])
      const created = yield* register("web")
      assert.strictEqual(created.outcome, "created")
      assert.notStrictEqual(created.host.id, retired.id)
    }),
    zone
  )

  test(
    "and comes back while its name is held is who it was, with its records",
    Effect.gen(function* () {
      const { host: before } = yield* register("web")
      yield* pass(leaseSeconds + 1020)
      assert.strictEqual(yield* stateOf("web"), "retired")
      yield* clearMarks
      yield* beat("web")
      const back = yield* host("web")
      assert.strictEqual(back.id, before.id)
      assert.deepStrictEqual(
        [back.state, back.retiredSinceMillis, back.withdrawnSinceMillis],
        ["online", undefined, undefined]
      )
      assert.deepStrictEqual(yield* marked, [T.pointerOf("192.0.2.1"), T.nameOf("web")])
      yield* pass(100)
      assert.deepStrictEqual(yield* events, ["created", "offline", "retired", "returned"])
    }),
    zone
  )
})

describe("hosts that vanish in masses", () => {
  const fleet = Array.from({ length: 40 }, (_, i) => `h${i}`)
  const registerFleet = Effect.forEach(fleet, (name) => register(name), { discard: true })
  const beats = (names: ReadonlyArray<string>) => Effect.forEach(names, (name) => beat(name), { discard: true })
  const online = Effect.flatMap(Registry, (registry) =>
    Effect.map(registry.list({ limit: 1000, state: "online" }), (list) => list.length)
  )
  const guards = Effect.flatMap(Guards, ({ list }) => list)
  const word = Effect.flatMap(Guards, (service) =>
    service.allow("mass-expiry", { name: "ada", peer: "192.0.2.99" }, "the data centre has burnt down")
  )
  /** Beats of `names` for some minutes. */
  const live = (names: ReadonlyArray<string>, minutes: number) =>
    Effect.forEach(Array.from({ length: minutes }), () => Effect.andThen(beats(names), pass(60)), { discard: true })

  test(
    "do not expire, and an alarm says so once; when they beat again it is over by itself",
    Effect.gen(function* () {
      yield* registerFleet
      yield* live(fleet.slice(20), 10)
      assert.strictEqual(yield* online, 40)
      const [guard] = yield* guards
      assert.isTrue(guard?.waiting)
      assert.match(guard.detail, /20 of 40 hosts have vanished within one lease, more than 15 %/)
      assert.deepStrictEqual(yield* guards, [guard])
      assert.strictEqual(yield* trippedMetric, 1)
      yield* live(fleet, 1)
      assert.deepStrictEqual(yield* guards, [])
      assert.strictEqual(yield* trippedMetric, 0)
      assert.strictEqual(yield* online, 40)
      // Few at a time do.
      yield* live(fleet.slice(5), 4)
      assert.strictEqual(yield* online, 35)
      assert.deepStrictEqual(yield* guards, [])
    })
  )

  test(
    "expire by a person's word, those that were seen last before it and no other; the word is in the audit",
    Effect.gen(function* () {
      const sql = yield* SqlClient.SqlClient
      yield* registerFleet
      assert.strictEqual((yield* Effect.flip(word))._tag, "GuardNotTripped")
      yield* live(fleet.slice(20), 5)
      yield* beats(fleet.slice(20))
      const allowed = yield* word
      assert.isFalse(allowed.waiting)
      // The others beat once more after the word, and vanish too.
      yield* pass(20)
      yield* beats(fleet.slice(20))
      yield* pass(leaseSeconds + 20)
      assert.strictEqual(yield* online, 20)
      const [again] = yield* guards
      assert.isTrue(again?.waiting)
      yield* pass(600)
      assert.strictEqual(yield* online, 20)
      yield* word
      yield* pass(20)
      assert.strictEqual(yield* online, 0)
      yield* pass(leaseSeconds + 20)
      assert.deepStrictEqual(yield* guards, [])
      const entries = yield* sql<{ readonly [key: string]: unknown }>`
        SELECT actor, peer, action, subject, reason FROM audit_entry WHERE action = 'guard.allowed' LIMIT 1`
      assert.deepStrictEqual(
        { ...entries[0] },
        {
          actor: "ada",
          peer: "192.0.2.99",
          action: "guard.allowed",
          subject: "mass-expiry",
          reason: "the data centre has burnt down"
        }
      )
    })
  )

  test(
    "a few at a time do not expire either, as soon as those of one lease are too many",
    Effect.gen(function* () {
      yield* registerFleet
      yield* live(fleet, 4)
      for (let i = 0; i < fleet.length; i++) {
        yield* beats(fleet.slice(i))
        yield* pass(5)
      }
      yield* pass(600)
      // 15 % of 40 are 6, and 9 may always.
      assert.isAtLeast(yield* online, 31)
      assert.isTrue((yield* guards)[0]?.waiting)
    })
  )

  test(
    "of which there are fewer than ten may be the whole fleet",
    Effect.gen(function* () {
      yield* Effect.forEach(fleet.slice(0, 9), (name) => register(name), { discard: true })
      yield* pass(2 * leaseSeconds)
      assert.strictEqual(yield* online, 0)
    })
  )

  for (const [what, aheadMillis] of [
    ["after a day", 24 * 3_600_000],
    ["by a clock that is an hour ahead", 3_600_000],
    ["by a clock that is an hour behind", -3_600_000]
  ] as const) {
    it.effect(`a restart ${what}, with all leases old, expires none that does not beat, and remembers its alarm`, () =>
      T.withTime(
        "on",
        Effect.gen(function* () {
          const time = yield* T.Time
          yield* pass(7200)
          yield* Effect.provide(Effect.andThen(registerFleet, live(fleet, 3)), life())
          yield* time.jump(aheadMillis)
          const written = Effect.map(events, (list) => list.length)
          const before = yield* written
          yield* Effect.gen(function* () {
            yield* pass(leaseSeconds + 600)
            assert.strictEqual(yield* online, 40)
            if (aheadMillis > 0) assert.isTrue((yield* guards)[0]?.waiting)
          }).pipe(Effect.provide(life()))
          yield* Effect.gen(function* () {
            yield* pass(10)
            if (aheadMillis > 0) assert.strictEqual(yield* trippedMetric, 1)
            // The agents find their way back.
            yield* live(fleet, 6)
            assert.strictEqual(yield* online, 40)
            assert.deepStrictEqual(yield* guards, [])
            assert.strictEqual(yield* written, before)
          }).pipe(Effect.provide(life()))
        }).pipe(Effect.provide(T.sqlite()))
      )
    )
  }

  test(
    "by a clock that jumps an hour ahead while we run: none expires that beats, and the others trip the guard",
    Effect.gen(function* () {
      yield* registerFleet
      yield* live(fleet, 4)
      yield* (yield* T.Time).jump(3_600_000)
      yield* live(fleet.slice(20), 10)
      assert.strictEqual(yield* online, 40)
      assert.isTrue((yield* guards)[0]?.waiting)
    })
  )
})

describe("our own silence is not theirs:", () => {
  it.effect("after a restart nothing expires for one lease, however long we were away", () =>
    T.withTime(
      "on",
      Effect.gen(function* () {
        yield* Effect.provide(register("web"), life())
        yield* pass(24 * 3600)
        yield* Effect.gen(function* () {
          yield* pass(leaseSeconds - 10)
          assert.strictEqual(yield* stateOf("web"), "online")
          yield* pass(20)
          assert.strictEqual(yield* stateOf("web"), "offline")
        }).pipe(Effect.provide(life()))
      }).pipe(Effect.provide(T.sqlite()))
    )
  )

  it.effect("after a restart a host that beats within the grace stays online", () =>
    T.withTime(
      "on",
      Effect.gen(function* () {
        yield* Effect.provide(register("web"), life())
        yield* pass(24 * 3600)
        yield* Effect.gen(function* () {
          yield* pass(leaseSeconds - 10)
          yield* beat("web")
          yield* pass(leaseSeconds - 10)
          assert.strictEqual(yield* stateOf("web"), "online")
          assert.deepStrictEqual(yield* events, ["created"])
          yield* pass(30)
          assert.strictEqual(yield* stateOf("web"), "offline")
        }).pipe(Effect.provide(life()))
      }).pipe(Effect.provide(T.sqlite()))
    )
  )

  for (const [what, millis] of [
    ["a pause of the process", 3_600_000],
    ["a clock that goes back", -3_600_000]
  ] as const) {
    test(
      `${what} gives everyone a lease from then on`,
      Effect.gen(function* () {
        yield* pass(leaseSeconds + 10)
        yield* register("web")
        yield* pass(60)
        yield* (yield* T.Time).jump(millis)
        yield* pass(leaseSeconds - 10)
        assert.strictEqual(yield* stateOf("web"), "online")
        if (millis < 0) return
        yield* pass(20)
        assert.strictEqual(yield* stateOf("web"), "offline")
      })
    )
  }

  test(
    "a host expires in the end though the clock went back",
    Effect.gen(function* () {
      yield* pass(300)
      yield* register("web")
      yield* pass(60)
      yield* (yield* T.Time).jump(-60_000)
      yield* pass(60 + 2 * leaseSeconds)
      assert.strictEqual(yield* stateOf("web"), "offline")
    })
  )

  for (const [what, beforeSeconds, awaySeconds] of [
    ["beyond the grace of the start", leaseSeconds - 20, 600],
    ["within the grace of the start", 10, leaseSeconds - 20]
  ] as const) {
    test(
      `a database that was away ${what} gives everyone a lease once it is back: nobody could renew`,
      Effect.gen(function* () {
        const sql = yield* SqlClient.SqlClient
        yield* register("web")
        yield* pass(beforeSeconds)
        // held by nobody in memory, as after a restart
        ;(yield* Leases).drop(T.nameOf("web"), Number.MAX_SAFE_INTEGER)
        yield* sql`ALTER TABLE host RENAME TO gone`
        yield* pass(awaySeconds)
        yield* sql`ALTER TABLE gone RENAME TO host`
        yield* pass(leaseSeconds - 20)
        assert.strictEqual(yield* stateOf("web"), "online")
        yield* pass(40)
        assert.strictEqual(yield* stateOf("web"), "offline")
      })
    )
  }
})

describe("a host that another server changed", () => {
  const twoServers = <E>(name: string, body: (other: Context.Context<Registry>) => Effect.Effect<void, E, Services>) =>
    test(
      name,
      Effect.gen(function* () {
        const database = Layer.succeed(SqlClient.SqlClient, yield* SqlClient.SqlClient)
        yield* body(yield* Layer.build(life().pipe(Layer.provide(database))))
      }).pipe(Effect.scoped)
    )

  twoServers("and that comes back to where we knew it is put right once its beats were to be written", (other) =>
    Effect.gen(function* () {
      yield* register("web", "192.0.2.1")
      yield* pass(5)
      yield* Effect.provide(register("web", "192.0.2.2"), other)
      yield* pass(5)
      yield* beat("web", "192.0.2.1")
      yield* pass(11)
      yield* beat("web", "192.0.2.1")
      assert.deepStrictEqual((yield* host("web")).addresses, [T.addressOf(1)])
      assert.deepStrictEqual(yield* events, ["created", "changed", "changed"])
    })
  )

  test(
    "to offline is online again once its beats were to be written",
    Effect.gen(function* () {
      const sql = yield* SqlClient.SqlClient
      yield* register("web")
      yield* sql`UPDATE host SET state = 'offline', offline_since = 1`
      yield* pass(5)
      yield* beat("web")
      yield* pass(11)
      yield* beat("web")
      assert.strictEqual(yield* stateOf("web"), "online")
      assert.deepStrictEqual(yield* events, ["created", "returned"])
    })
  )
})

describe("the loops that watch time", () => {
  test(
    "go on after a fault",
    Effect.gen(function* () {
      const sql = yield* SqlClient.SqlClient
      yield* pass(leaseSeconds + 10)
      yield* register("web")
      yield* sql`UPDATE host SET addresses = 'no JSON'`
      yield* pass(leaseSeconds + 10)
      yield* sql`UPDATE host SET addresses = '["192.0.2.1"]'`
      yield* pass(2 * leaseSeconds)
      assert.strictEqual(yield* stateOf("web"), "offline")
    })
  )
})

describe("last seen", () => {
  test(
    "is exact to within the flush interval",
    Effect.gen(function* () {
      yield* register("web")
      for (let i = 1; i <= 5; i++) {
        yield* pass(60)
        yield* beat("web")
        const now = yield* Effect.clockWith((clock) => clock.currentTimeMillis)
        yield* pass(11)
        assert.strictEqual((yield* host("web")).lastSeenMillis, now)
      }
      assert.deepStrictEqual((yield* Leases).unflushed(), [])
    })
  )

  it.effect("is known after a restart: it is flushed when we stop", () =>
    T.withTime(
      "on",
      Effect.gen(function* () {
        yield* Effect.gen(function* () {
          yield* register("web")
          yield* pass(25)
          yield* beat("web")
        }).pipe(Effect.provide(life()))
        assert.strictEqual((yield* Effect.provide(host("web"), life())).lastSeenMillis, 25_000)
      }).pipe(Effect.provide(T.sqlite()))
    )
  )

  test(
    "is flushed after a failure too, and never moves back",
    Effect.gen(function* () {
      const sql = yield* SqlClient.SqlClient
      yield* register("web")
      yield* pass(60)
      yield* beat("web")
      yield* sql`ALTER TABLE host RENAME TO gone`
      yield* pass(30)
      yield* sql`ALTER TABLE gone RENAME TO host`
      yield* pass(11)
      assert.strictEqual((yield* host("web")).lastSeenMillis, 60_000)
      yield* sql`UPDATE host SET last_seen = 100000`
      yield* beat("web")
      yield* pass(1)
      yield* sql`UPDATE host SET last_seen = 900000`
      yield* pass(11)
      assert.strictEqual((yield* host("web")).lastSeenMillis, 900_000)
    })
  )
})
