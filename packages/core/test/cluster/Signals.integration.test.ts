import { layer } from "@effect/vitest"
import { Context, Effect, Exit, Layer, Redacted, Scope } from "effect"
import { SecureRandom } from "effect/crypto"
import { type Heard, Signals, type SignalsService, type Topic, topics } from "@prism-dns/core/cluster/Signals"
import type { SignalsOptions } from "@prism-dns/core/cluster/SignalsLine"
import * as Lines from "@prism-dns/core/cluster/SignalLine"
import * as SignalLine from "@prism-dns/server/SignalLine"
import { expect } from "vitest"
import * as PgBouncer from "../harness/PgBouncer.ts"
import { Postgres } from "../harness/Postgres.ts"
import { waitUntil } from "../harness/waitUntil.ts"

const quick: Partial<SignalsOptions> = {
  trialMillis: 50,
  answerMillisMax: 1000,
  retryMillisMin: 20,
  retryMillisMax: 100
}

/** One server's signals, all that it heard, and how often it opened a line. */
const server = Effect.fnUntraced(function* (url: string, options: Partial<SignalsOptions> = quick) {
  let lines = 0
  const counted = Layer.effect(
    Lines.SignalLine,
    Effect.map(Lines.SignalLine, ({ open }) =>
      Lines.SignalLine.of({ open: Effect.tap(open, () => Effect.sync(() => void (lines += 1))) })
    )
  )
  const at = Signals.layerPostgres(options).pipe(
    Layer.provide(counted),
    Layer.provide([SignalLine.layer(Redacted.make(url)), SecureRandom.layerWebCrypto]),
    Layer.fresh
  )
  const signals: SignalsService = Context.get(yield* Layer.build(at), Signals)
  const heard: Array<readonly [Topic, Heard]> = []
  for (const topic of topics) yield* signals.listen(topic, (words) => void heard.push([topic, words]))
  return { signals, heard, lines: () => lines }
})

const isHearing = ({ signals }: { readonly signals: SignalsService }) =>
  waitUntil("signals are heard", Effect.sync(signals.isHearing), (hears) => hears, { within: "20 seconds" })

const words = (heard: ReadonlyArray<readonly [Topic, Heard]>, topic: Topic) =>
  heard.flatMap(([each, words]) => (each === topic && words !== "all" ? [...words] : []))

layer(Postgres.layer(), { timeout: "60 seconds", excludeTestServices: true })("signals on PostgreSQL", (it) => {
  it.effect("what one server sends, the others hear, and itself does not", () =>
    Effect.gen(function* () {
      const { url } = yield* (yield* Postgres).createDatabase()
      const [a, b] = [yield* server(url), yield* server(url)]
      yield* Effect.all([isHearing(a), isHearing(b)])
      yield* Effect.sync(() => {
        a.heard.length = 0
        b.heard.length = 0
      })
      a.signals.send("outbox", ["one.test"])
      a.signals.send("outbox", ["two.test", "one.test"])
      a.signals.send("audit")
      a.signals.send("hosts", [])
      yield* waitUntil(
        "b has heard it",
        Effect.sync(() => b.heard.length),
        (n) => n >= 2
      )
      expect(words(b.heard, "outbox")).toEqual(["one.test", "two.test"])
      expect(b.heard).toContainEqual(["audit", "all"])
      expect(b.heard).toHaveLength(2)
      b.signals.send("leases")
      yield* waitUntil(
        "a has heard it",
        Effect.sync(() => a.heard.length),
        (n) => n >= 1
      )
      expect(a.heard).toEqual([["leases", "all"]])
    }).pipe(Effect.scoped)
  )

  it.effect("a thousand words come in several texts, and more than are gathered as all", () =>
    Effect.gen(function* () {
      const { url } = yield* (yield* Postgres).createDatabase()
      const [a, b] = [yield* server(url), yield* server(url)]
      yield* Effect.all([isHearing(a), isHearing(b)])
      b.heard.length = 0
      const names = Array.from({ length: 1000 }, (_, i) => `a-rather-long-name-of-a-host-${i}.hosts.test`)
      a.signals.send("hosts", names)
      yield* waitUntil(
        "b has heard them",
        Effect.sync(() => words(b.heard, "hosts").length),
        (n) => n >= 1000
      )
      expect(new Set(words(b.heard, "hosts"))).toEqual(new Set(names))
      expect(b.heard.length).toBeGreaterThan(1)
      b.heard.length = 0
      a.signals.send("hosts", [...names, "one-more.hosts.test"])
      yield* waitUntil(
        "b has heard of it",
        Effect.sync(() => b.heard.length),
        (n) => n >= 1
      )
      expect(b.heard).toEqual([["hosts", "all"]])
    }).pipe(Effect.scoped)
  )

  it.effect("a server that sends and ends at once is heard all the same", () =>
    Effect.gen(function* () {
      const { url } = yield* (yield* Postgres).createDatabase()
      const b = yield* server(url)
      const scope = yield* Scope.make()
      const a = yield* Scope.provide(server(url), scope)
      yield* Effect.all([isHearing(a), isHearing(b)])
      b.heard.length = 0
      a.signals.send("leases")
      yield* Scope.close(scope, Exit.void)
      yield* waitUntil(
        "b has heard it",
        Effect.sync(() => b.heard.length),
        (n) => n >= 1
      )
    }).pipe(Effect.scoped)
  )
})

layer(Postgres.layer(), { timeout: "60 seconds", excludeTestServices: true })("signals behind pgbouncer", (it) => {
  it.effect("are known not to be heard, though each statement of them succeeds", () =>
    Effect.gen(function* () {
      const postgres = yield* Postgres
      const { database, url } = yield* postgres.createDatabase()
      const pool = yield* PgBouncer.make({ host: "127.0.0.1", port: postgres.port })
      const behind = yield* server(pool.urlOf(database), { ...quick, answerMillisMax: 200 })
      const before = yield* server(url)
      yield* isHearing(before)
      // It has listened, and called, and was not answered.
      yield* waitUntil(
        "it has tried twice",
        Effect.sync(() => behind.lines()),
        (lines) => lines > 2
      )
      expect(behind.signals.isHearing()).toBe(false)
      expect(behind.heard).toEqual([])
      // Who hears, hears it.
      before.heard.length = 0
      behind.signals.send("outbox", ["from-behind.test"])
      yield* waitUntil(
        "it is heard",
        Effect.sync(() => words(before.heard, "outbox")),
        (all) => all.length > 0
      )
    }).pipe(Effect.scoped)
  )
})

layer(Postgres.layer(), { timeout: "60 seconds", excludeTestServices: true })("a database that goes away", (it) => {
  it.effect(
    "is known not to be heard; once it is back, what was sent meanwhile comes, and all may have been missed",
    () =>
      Effect.gen(function* () {
        const postgres = yield* Postgres
        const { url } = yield* postgres.createDatabase()
        const [a, b] = [yield* server(url), yield* server(url)]
        yield* Effect.all([isHearing(a), isHearing(b)])
        yield* postgres.stop("crash")
        yield* waitUntil(
          "nothing is heard",
          Effect.sync(() => a.signals.isHearing() || b.signals.isHearing()),
          (any) => !any
        )
        a.heard.length = 0
        b.heard.length = 0
        a.signals.send("outbox", ["meanwhile.test"])
        yield* postgres.start
        yield* Effect.all([isHearing(a), isHearing(b)])
        expect(a.heard.map(([topic]) => topic)).toEqual(expect.arrayContaining([...topics]))
        expect(b.heard.filter(([, words]) => words === "all").map(([topic]) => topic)).toEqual(
          expect.arrayContaining([...topics])
        )
        b.heard.length = 0
        a.signals.send("outbox", ["now.test"])
        yield* waitUntil(
          "b hears again",
          Effect.sync(() => words(b.heard, "outbox")),
          (all) => all.includes("now.test")
        )
      }).pipe(Effect.scoped)
  )

  it.effect("or stands still: the line is given up, and another one is opened when it goes on", () =>
    Effect.gen(function* () {
      const postgres = yield* Postgres
      const { url } = yield* postgres.createDatabase()
      const a = yield* server(url, { ...quick, answerMillisMax: 300 })
      yield* isHearing(a)
      yield* Effect.scoped(
        Effect.gen(function* () {
          yield* postgres.freeze
          yield* waitUntil("nothing is heard", Effect.sync(a.signals.isHearing), (hears) => !hears)
          a.heard.length = 0
        })
      )
      yield* isHearing(a)
      expect(a.heard.map(([topic]) => topic)).toEqual([...topics])
    }).pipe(Effect.scoped)
  )
})
