import { assert, describe, type Vitest } from "@effect/vitest"
import { Effect, Layer, Option, Result } from "effect"
import { SqlClient } from "effect/sql"
import { TestClock } from "effect/testing"
import { Acknowledgements } from "@prism-dns/core/dns/Acknowledgements"
import { ManagedRecords, type RecordChange } from "@prism-dns/core/dns/ManagedRecords"
import * as NonTerminals from "@prism-dns/core/dns/NonTerminals"
import { Outbox } from "@prism-dns/core/dns/Outbox"
import { Plans } from "@prism-dns/core/dns/Plans"
import { Reconciler } from "@prism-dns/core/dns/Reconciler"
import type { RecordType } from "@prism-dns/core/domain/RecordContent"
import type { DomainName } from "@prism-dns/core/domain/DomainName"
import * as Names from "@prism-dns/core/domain/DomainName"
import * as RRset from "@prism-dns/core/domain/RRset"
import { PowerDnsClient } from "@prism-dns/core/powerdns/PowerDnsClient"
import { Uncertain } from "@prism-dns/core/powerdns/PowerDnsError"
import { PowerDnsMemory } from "@prism-dns/core/powerdns/PowerDnsMemory"
import { Registry } from "@prism-dns/core/registry/Registry"
import { SecureRandom } from "effect/crypto"
import { waitUntil } from "../harness/waitUntil.ts"
import * as T from "../layers.ts"

const zone = T.forward
const actor = { name: "ann", peer: "198.51.100.7", request: "r-1" }

const parts = Layer.mergeAll(ManagedRecords.layer, Reconciler.layer()).pipe(
  Layer.provideMerge(T.publisher()),
  Layer.provideMerge(PowerDnsMemory.layer()),
  Layer.provide(SecureRandom.layerWebCrypto)
)

type Services = Layer.Success<typeof parts> | SqlClient.SqlClient

/** Lets everything run that is to happen within `seconds`. */
export const passByClock = (seconds: number) => TestClock.adjust(`${seconds} seconds`)

/** Waits until nothing is to be published. */
export const passForReal = () =>
  Effect.flatMap(Outbox, (outbox) =>
    waitUntil("all is published", Effect.orDie(outbox.list({ limit: 10 })), (marks) =>
      marks.every(({ parkedReason }) => parkedReason !== undefined)
    )
  )

const at = (name: string): DomainName => (name === "@" ? zone.name : Names.make(`${name}.${zone.name}`))

const set = (name: string, type: RecordType, ...contents: ReadonlyArray<string>) => ({
  name: at(name),
  type,
  after: { ttlSeconds: 300, contents }
})

const put = (...args: Parameters<typeof set>) =>
  Effect.flatMap(ManagedRecords, (records) => records.put(zone.name, set(...args), { actor }))

const remove = (name: string, type: RecordType) =>
  Effect.flatMap(ManagedRecords, (records) => records.remove(zone.name, { name: at(name), type }, { actor }))

const change = (changes: ReadonlyArray<RecordChange>, dryRun = false) =>
  Effect.flatMap(ManagedRecords, (records) => records.change(zone.name, changes, { actor, dryRun }))

const register = (...args: Parameters<typeof T.registration>) =>
  Effect.flatMap(Registry, (registry) => registry.register(T.registration(...args)))

/** Contents in PowerDNS, as `NAME TYPE content`, without the SOA. */
const held = Effect.flatMap(PowerDnsClient, (client) =>
  Effect.map(client.exportZone(zone.name), (rrsets) =>
    rrsets
      .filter(({ type }) => type !== "SOA")
      .flatMap(({ contents, name, type }) =>
        contents.map(
          (content) => `${name === zone.name ? "@" : name.slice(0, -zone.name.length - 1)} ${type} ${content}`
        )
      )
      .filter((line) => !line.startsWith("@ NS ns1."))
      .sort()
  )
)

const query = <Row extends object>(text: string) =>
  Effect.flatMap(SqlClient.SqlClient, (sql) => sql.unsafe<Row>(text)).pipe(Effect.orDie)

const reconcile = Effect.flatMap(Reconciler, (reconciler) => reconciler.run(zone.name, { by: "ann" }))

/** What records of people do, on any database. Each test gets a new one. */
export const suite = <R>(
  name: string,
  it: Pick<Vitest.MethodsNonLive<R>, "effect">,
  database: Layer.Layer<SqlClient.SqlClient, never, R>,
  pass: (seconds: number) => Effect.Effect<void, never, Outbox>
) =>
  describe(name, () => {
    const test = <E>(title: string, body: Effect.Effect<void, E, Services>) =>
      it.effect(title, () => Effect.provide(body, Layer.fresh(parts.pipe(Layer.provideMerge(database)))))

    test(
      "are published as any change, beside those of hosts, and go by a person's word at once",
      Effect.gen(function* () {
        yield* register("web", "192.0.2.7")
        yield* put("web", "TXT", "v=spf1 -all")
        yield* put("@", "MX", "10 Mail.Example.")
        yield* put("www", "CNAME", "web.hosts.test")
        yield* put("*.lab", "A", "192.0.2.99")
        yield* pass(1)
        assert.deepStrictEqual(yield* held, [
          "*.lab A 192.0.2.99",
          "@ MX 10 mail.example.",
          `lab TXT ${NonTerminals.placeholder(at("lab"), zone).contents[0]}`,
          "web A 192.0.2.7",
          'web TXT "v=spf1 -all"',
          "www CNAME web.hosts.test."
        ])
        assert.strictEqual((yield* reconcile).plan.counts.changes, 0)
        yield* remove("*.lab", "A")
        yield* remove("web", "TXT")
        yield* pass(1)
        assert.deepStrictEqual(yield* held, ["@ MX 10 mail.example.", "web A 192.0.2.7", "www CNAME web.hosts.test."])
      })
    )

    test(
      "of the same set are no change, and each change has its history and its entry in the audit",
      Effect.gen(function* () {
        const records = yield* ManagedRecords
        assert.strictEqual((yield* put("www", "TXT", "a"))._tag, "Changed")
        assert.strictEqual((yield* put("www", "TXT", '"a"'))._tag, "Unchanged")
        yield* put("www", "TXT", "b")
        yield* remove("www", "TXT")
        assert.isTrue(Option.isNone(yield* records.find(zone.name, at("www"), "TXT")))
        assert.deepStrictEqual(
          (yield* query<{ action: string; actor: string; request: string; before: string; after: string }>(
            "SELECT action, actor, request, before, after FROM audit_entry WHERE action LIKE 'record.%' ORDER BY sequence"
          )).map((row) => Object.values(row).map((value) => value ?? "-")),
          [
            ["record.created", "ann", "r-1", "-", '{"contents":["\\"a\\""],"ttl":300,"type":"TXT"}'],
            [
              "record.changed",
              "ann",
              "r-1",
              '{"contents":["\\"a\\""],"ttl":300,"type":"TXT"}',
              '{"contents":["\\"b\\""],"ttl":300,"type":"TXT"}'
            ],
            ["record.deleted", "ann", "r-1", '{"contents":["\\"b\\""],"ttl":300,"type":"TXT"}', "-"]
          ]
        )
        assert.deepStrictEqual(
          (yield* query<{ event: string }>("SELECT event FROM record_history ORDER BY sequence")).map(
            ({ event }) => event
          ),
          ["created", "changed", "deleted"]
        )
        const newest = Option.getOrThrow(yield* records.version(zone.name, at("www"), "TXT", "newest"))
        assert.deepStrictEqual([newest.event, newest.owner], ["deleted", "ann"])
      })
    )

    test(
      "are refused one by one where they may not stand, and the others of the same call go on",
      Effect.gen(function* () {
        yield* register("web", "192.0.2.7")
        const changes = [
          set("www", "CNAME", "web.hosts.test."),
          set("www", "TXT", "beside a CNAME"),
          set("web", "CNAME", "other.example."),
          set("web", "A", "192.0.2.8"),
          set("web", "TXT", "fine"),
          set("@", "CNAME", "x.example."),
          set("lab", "NS", "ns1.lab.hosts.test."),
          set("ns1.lab", "A", "192.0.2.53"),
          set("x.lab", "TXT", "hidden"),
          set("a.*", "TXT", "no wildcard"),
          { name: Names.make("elsewhere.example"), type: "TXT" as const, after: { ttlSeconds: 60, contents: ["x"] } },
          set("bad", "A", "192.0.2.300"),
          set("gap", "TXT", "something stands below this name"),
          { name: at("nothing"), type: "TXT" as const, after: undefined },
          { name: at("@"), type: "NS" as const, after: undefined }
        ]
        const { outcomes } = yield* change(changes)
        assert.deepStrictEqual(
          outcomes.map((outcome) => (outcome._tag === "Refused" ? outcome.error._tag : outcome._tag)),
          [
            "Changed",
            "RecordConflict",
            "RecordConflict",
            "RecordConflict",
            "Changed",
            "RecordInvalid",
            "Changed",
            "Changed",
            "RecordConflict",
            "RecordInvalid",
            "RecordInvalid",
            "RecordInvalid",
            "RecordConflict",
            "RecordNotFound",
            "RecordNotFound"
          ]
        )
        yield* pass(1)
        assert.deepStrictEqual(yield* held, [
          "lab NS ns1.lab.hosts.test.",
          "ns1.lab A 192.0.2.53",
          "web A 192.0.2.7",
          'web TXT "fine"',
          "www CNAME web.hosts.test."
        ])
      })
    )

    test(
      "keep hosts from their names, and from names below a delegation; a host that is there keeps them away",
      Effect.gen(function* () {
        yield* put("www", "CNAME", "web.example.")
        yield* put("lab", "NS", "ns.example.")
        yield* put("note", "TXT", "beside")
        for (const [name, why] of [
          ["www", /www.hosts.test. has a CNAME record that people manage; register another name/],
          ["x.lab", /x.lab.hosts.test. lies below lab.hosts.test., which is delegated/],
          ["lab", /lab.hosts.test. is delegated/]
        ] as const) {
          const error = yield* Effect.flip(register(name, "192.0.2.7"))
          assert.strictEqual(error._tag, "HostnameTaken")
          assert.match(error.message, why)
        }
        yield* register("note", "192.0.2.8")
        yield* register("deep.dc", "192.0.2.9")
        assert.match((yield* Effect.flip(put("note", "CNAME", "x.example."))).message, /stands alone/)
        assert.match(
          (yield* Effect.flip(put("dc", "NS", "ns.example."))).message,
          /deep.dc.hosts.test. would no longer/
        )
        assert.match((yield* Effect.flip(put("deep.dc", "ALIAS", "x.example."))).message, /is a host's/)
        yield* remove("www", "CNAME")
        yield* register("www", "192.0.2.10")
        yield* pass(1)
        assert.includeMembers(yield* held, ["www A 192.0.2.10", 'note TXT "beside"', "note A 192.0.2.8"])
      })
    )

    test(
      "are not written over what somebody else has in PowerDNS, which stays beside them where it may",
      Effect.gen(function* () {
        const memory = yield* PowerDnsMemory
        yield* register("first", "192.0.2.1")
        yield* pass(1)
        yield* memory.put(zone.name, RRset.make(at("old"), "TXT", 60, ['"by hand"']))
        yield* memory.put(zone.name, RRset.make(at("old"), "A", 60, ["203.0.113.1"]))
        assert.match(
          (yield* Effect.flip(put("old", "TXT", "mine"))).message,
          /that Prism did not make .*adopt it first/
        )
        // PowerDNS was away when it was asked: the publisher sees it.
        yield* memory.failNext(new Uncertain({ detail: "away" }), "rrsets")
        yield* put("old", "TXT", "mine")
        yield* pass(1)
        const [parked] = yield* (yield* Outbox).list({ limit: 5 })
        assert.match(parked?.parkedReason ?? "", /TXT record that Prism did not make/)
        yield* remove("old", "TXT")
        yield* put("old", "MX", "10 mx.example.")
        yield* pass(1)
        assert.includeMembers(yield* held, ['old TXT "by hand"', "old A 203.0.113.1", "old MX 10 mx.example."])
        assert.strictEqual((yield* reconcile).plan.counts.changes, 0)
        yield* remove("old", "MX")
        yield* pass(20)
        assert.includeMembers(yield* held, ['old TXT "by hand"', "old A 203.0.113.1"])
        assert.notInclude(yield* held, "old MX 10 mx.example.")
      })
    )

    test(
      "that drift are found by the reconciler, type by type, and put right",
      Effect.gen(function* () {
        const memory = yield* PowerDnsMemory
        yield* register("web", "192.0.2.7")
        yield* put("web", "TXT", "right")
        yield* put("mail", "MX", "10 mx.example.")
        yield* put("srv", "SRV", "0 0 443 web.hosts.test.")
        yield* pass(1)
        yield* memory.put(zone.name, RRset.make(at("web"), "TXT", 300, ['"wrong"']))
        yield* memory.put(zone.name, RRset.make(at("web"), "CAA", 300, ['0 issue "not ours"']))
        yield* memory.put(zone.name, RRset.make(at("mail"), "A", 300, ["203.0.113.1"]))
        yield* memory.remove(zone.name, at("srv"), "SRV")
        const plans = yield* Plans
        const { drift, plan } = yield* reconcile
        assert.deepStrictEqual([drift.missing, drift.different, drift.unexpected], [1, 1, 0])
        assert.sameMembers(
          (yield* plans.changes(plan.id, { limit: 10 })).map(({ action, name, type }) => `${action} ${name} ${type}`),
          [`create ${at("srv")} SRV`, `update ${at("web")} TXT`]
        )
        yield* plans.apply(plan.id, { by: "ann" })
        yield* pass(1)
        assert.deepStrictEqual(yield* held, [
          "mail A 203.0.113.1",
          "mail MX 10 mx.example.",
          "srv SRV 0 0 443 web.hosts.test.",
          "web A 192.0.2.7",
          'web CAA 0 issue "not ours"',
          'web TXT "right"'
        ])
        assert.strictEqual((yield* reconcile).plan.counts.changes, 0)
      })
    )

    test(
      "outlive a host at their name, and a write of it that had no answer leaves nothing of either behind",
      Effect.gen(function* () {
        const memory = yield* PowerDnsMemory
        const registry = yield* Registry
        yield* put("web", "TXT", "stays")
        yield* pass(1)
        yield* memory.applyThenTimeOut
        yield* register("web", "192.0.2.7")
        yield* pass(1)
        yield* registry.release(at("web"), actor, "test")
        yield* pass(40)
        assert.deepStrictEqual(yield* held, ['web TXT "stays"'])
        yield* memory.applyThenTimeOut
        yield* remove("web", "TXT")
        yield* pass(40)
        assert.deepStrictEqual(yield* held, [])
      })
    )

    test(
      "may take the place of each other in one call, the CNAME last; a dry run says what would become of it",
      Effect.gen(function* () {
        yield* put("www", "A", "192.0.2.1")
        yield* pass(1)
        const swap: ReadonlyArray<RecordChange> = [
          { name: at("www"), type: "A", after: undefined },
          set("www", "CNAME", "web.example.")
        ]
        const dry = yield* change(swap, true)
        assert.deepStrictEqual(
          dry.outcomes.map((outcome) => (outcome._tag === "Changed" ? outcome.event : outcome._tag)),
          ["deleted", "created"]
        )
        assert.deepStrictEqual(yield* held, ["www A 192.0.2.1"])
        assert.deepStrictEqual(yield* query("SELECT name FROM outbox"), [])
        yield* change(swap)
        yield* pass(1)
        assert.deepStrictEqual(yield* held, ["www CNAME web.example."])
      })
    )

    test(
      "are changed only where they are what the caller says they are",
      Effect.gen(function* () {
        const records = yield* ManagedRecords
        yield* put("www", "TXT", "a")
        const current = Option.getOrThrow(yield* records.find(zone.name, at("www"), "TXT"))
        const only = (generation: number) => ({
          ...set("www", "TXT", "b"),
          mayChange: (known: { readonly generation: number } | undefined) => known?.generation === generation
        })
        const error = yield* Effect.flip(records.put(zone.name, only(current.generation - 1), { actor }))
        assert.strictEqual(error._tag, "RecordMoved")
        yield* records.put(zone.name, only(current.generation), { actor })
      })
    )

    test(
      "are not taken for somebody else's where they were published at the moment they are changed again",
      Effect.gen(function* () {
        const memory = yield* PowerDnsMemory
        yield* register("first", "192.0.2.1")
        yield* pass(1)
        // Nothing is known of the name yet when PowerDNS is asked what stands there; then it is another's change, and out.
        yield* memory.beforeNext(
          Effect.orDie(Effect.andThen(put("www", "TXT", "a"), pass(1))).pipe(
            Effect.provide(yield* Effect.context<Services>())
          ),
          "rrsets"
        )
        const done = yield* put("www", "TXT", "b")
        assert.strictEqual(done._tag === "Changed" ? done.event : done._tag, "changed")
        yield* pass(1)
        assert.include(yield* held, 'www TXT "b"')
      })
    )

    test(
      "give the waiting caller their way to the DNS",
      Effect.gen(function* () {
        const acknowledgements = yield* Acknowledgements
        const done = yield* put("www", "TXT", "a")
        yield* pass(1)
        assert.strictEqual((yield* acknowledgements.wait(done.ticket))._tag, "Applied")
      })
    )

    test(
      "and hosts that want the same name at the same moment: one of them has it",
      Effect.gen(function* () {
        const names = Array.from({ length: 20 }, (_, i) => `n${i}`)
        const results = yield* Effect.forEach(
          names,
          (name, i) =>
            Effect.all(
              [Effect.result(register(name, `192.0.2.${i + 1}`)), Effect.result(put(name, "CNAME", "x.example."))],
              {
                concurrency: 2
              }
            ),
          { concurrency: "unbounded" }
        )
        for (const [host, record] of results) {
          assert.strictEqual(Number(Result.isSuccess(host)) + Number(Result.isSuccess(record)), 1)
        }
      })
    )
  })
