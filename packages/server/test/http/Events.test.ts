import { assert, describe, it } from "@effect/vitest"
import * as Client from "@prism-dns/core/api/Client"
import * as Audit from "@prism-dns/core/audit/Entries"
import * as EventStream from "@prism-dns/core/events/EventStream"
import * as NodeHttpClient from "@effect/platform-node/NodeHttpClient"
import { Effect, Fiber, Metric, Redacted, Stream } from "effect"
import { SqlClient } from "effect/sql"
import { waitUntil } from "../../../core/test/harness/waitUntil.ts"
import { Drain } from "../../src/Drain.ts"
import { HttpAddress } from "../../src/http/HttpAddress.ts"
import * as EventSource from "../harness/eventSource.ts"
import { adminToken, ask, otherZone, register, server, zone } from "./harness.ts"

const follow = Effect.fn(function* (
  query = "",
  options: { readonly lastEventId?: string | undefined; readonly token?: string } = {}
) {
  const { url } = yield* HttpAddress
  return yield* EventSource.open(`${url}/v1/events${query}`, { token: Redacted.value(adminToken), ...options })
})

const kinds = ({ blocks }: EventSource.EventSource) => blocks.map(({ event }) => event)
const subjects = ({ blocks }: EventSource.EventSource) => blocks.map(({ data }) => data.subject)

/** Waits until the stream has brought so many blocks. */
const until = (source: EventSource.EventSource, count: number) =>
  waitUntil(
    `${count} events have come`,
    Effect.sync(() => [...source.blocks]),
    (blocks) => blocks.length >= count
  )

/** Writes entries about hosts, one transaction each. */
const change = Effect.fn(function* (names: ReadonlyArray<string>, inZone = zone) {
  const sql = yield* SqlClient.SqlClient
  for (const name of names) {
    yield* Audit.write(sql, {
      actor: { name: "ann", peer: "192.0.2.1", request: "r-1" },
      action: "host.changed",
      zone: inZone,
      subject: `${name}.${inZone}`,
      before: { state: "online" },
      after: { state: "offline" },
      reason: "a test",
      cause: "api",
      atMillis: 1_700_000_000_000
    })
  }
})

const names = (from: number, to: number) => Array.from({ length: to - from + 1 }, (_, i) => `h-${from + i}`)

const test = (
  title: string,
  body: Effect.Effect<
    void,
    unknown,
    import("effect/Layer").Success<ReturnType<typeof server>> | import("effect").Scope.Scope
  >,
  options: Parameters<typeof server>[0] = {}
) =>
  it.live(title, () =>
    body.pipe(Effect.scoped, Effect.provide(server(options)), Effect.provideService(Metric.MetricRegistry, new Map()))
  )

describe("GET /v1/events", () => {
  test(
    "begins where the log ends, and brings each change as the audit has it",
    Effect.gen(function* () {
      yield* change(["before"])
      const source = yield* follow("?kind=host.changed")
      yield* waitUntil("it says where it is", Effect.sync(source.lastEventId), (id) => id !== undefined)
      assert.strictEqual(source.status, 200)
      assert.strictEqual(source.headers["content-type"], "text/event-stream")
      assert.strictEqual(source.headers["cache-control"], "no-store")
      const start = Number(source.lastEventId())
      yield* change(["web-1"])
      yield* until(source, 1)
      assert.deepStrictEqual(source.blocks, [
        {
          id: String(start + 1),
          event: "host.changed",
          data: {
            id: start + 1,
            kind: "host.changed",
            at: "2023-11-14T22:13:20.000Z",
            zone,
            subject: `web-1.${zone}`,
            generation: source.blocks[0]!.data.generation,
            before: { state: "online" },
            after: { state: "offline" },
            actor: "ann",
            reason: "a test",
            cause: "api",
            request: "r-1"
          }
        }
      ])
    })
  )

  test(
    "a registration is an event, and so is what PowerDNS was told for it",
    Effect.gen(function* () {
      const source = yield* follow()
      yield* register("web-1", "192.0.2.7")
      yield* until(source, 1)
      assert.strictEqual(source.blocks[0]!.event, "host.created")
      assert.strictEqual(source.blocks[0]!.data.subject, `web-1.${zone}`)
    })
  )

  test(
    "goes on exactly behind Last-Event-ID, which wins over since; 0 is the oldest event, and a time is one too",
    Effect.gen(function* () {
      yield* change(names(1, 5))
      const all = yield* follow("?since=0&kind=host.changed")
      yield* until(all, 5)
      const id = all.blocks[2]!.id
      const on = yield* follow("?since=0&kind=host.changed", { lastEventId: id })
      yield* until(on, 2)
      assert.deepStrictEqual(subjects(on), [`h-4.${zone}`, `h-5.${zone}`])
      const since = yield* follow(`?since=${id}&kind=host.changed`)
      yield* until(since, 2)
      assert.deepStrictEqual(subjects(since), subjects(on))
      const ofTime = yield* follow("?since=2023-11-14T22:13:20Z&kind=host.changed")
      yield* until(ofTime, 5)
      assert.deepStrictEqual(subjects(ofTime), subjects(all))
    })
  )

  test(
    "brings only what the filter asks for, and says how far it is all the same",
    Effect.gen(function* () {
      yield* change(["a", "b"])
      yield* change(["a"], otherZone)
      const ofZone = yield* follow(`?since=0&zone=${otherZone}&kind=host.*`)
      const ofHost = yield* follow(`?since=0&host=A.${zone}&kind=token.*,host.*`)
      const ofKind = yield* follow("?since=0&kind=host.created&kind=role.*")
      yield* until(ofZone, 1)
      yield* until(ofHost, 1)
      assert.deepStrictEqual(subjects(ofZone), [`a.${otherZone}`])
      assert.deepStrictEqual(subjects(ofHost), [`a.${zone}`])
      yield* waitUntil("all was looked at", Effect.sync(ofKind.lastEventId), (id) => Number(id) >= 3)
      assert.deepStrictEqual(kinds(ofKind), [])
    })
  )

  test(
    "what makes no sense is refused, each by its place",
    Effect.gen(function* () {
      for (const [path, place] of [
        ["/v1/events?since=yesterday", "query"],
        ["/v1/events?kind=host", "query"],
        ["/v1/events?kind=host.exploded", "query"],
        ["/v1/events?zone=a..b", "query"],
        ["/v1/events?hosts=a", "query"]
      ]) {
        const answer = yield* ask(path!)
        assert.strictEqual(answer.status, 400, path)
        assert.strictEqual(answer.json.errors[0].in, place)
      }
      assert.strictEqual((yield* ask("/v1/events", { headers: { "last-event-id": "-1" } })).status, 400)
      assert.strictEqual((yield* ask("/v1/events", { token: "nobody" })).status, 401)
    })
  )

  test(
    "what retention took is said before what comes after it, and not again",
    Effect.gen(function* () {
      const sql = yield* SqlClient.SqlClient
      yield* change(names(1, 6))
      const all = yield* follow("?since=0&kind=host.changed")
      yield* until(all, 6)
      const [first, , , fourth] = all.blocks.map(({ data }) => data.id as number)
      yield* sql`DELETE FROM audit_log WHERE position <= ${fourth!}`
      // What is in memory is there yet.
      all.close()
      yield* waitUntil("nobody follows", ask("/metrics"), ({ text }) => text.includes("prism_event_subscribers 0"))
      const late = yield* follow("?kind=host.changed", { lastEventId: String(first) })
      yield* until(late, 3)
      assert.deepStrictEqual(kinds(late), ["gap", "host.changed", "host.changed"])
      assert.deepStrictEqual(late.blocks[0]!.data, { from: first! + 1, to: fourth, reason: "retention" })
      const again = yield* follow("?kind=host.changed", { lastEventId: late.blocks[0]!.id })
      yield* until(again, 2)
      assert.deepStrictEqual(kinds(again), ["host.changed", "host.changed"])
    })
  )

  test(
    "says where it is while nothing happens",
    Effect.gen(function* () {
      const source = yield* follow("?kind=role.*")
      yield* change(["a"])
      yield* waitUntil("three heartbeats", Effect.sync(source.text), (text) => text.split(": ").length > 6)
      assert.match(source.text(), /^(?:: \d+\nid: \d+\nevent: position\n\n)+$/)
    }),
    { events: { heartbeat: "20 millis" } }
  )

  test(
    "ends when the server drains, and a new one ends at once",
    Effect.gen(function* () {
      const source = yield* follow()
      yield* (yield* Drain).start
      yield* waitUntil("it has ended", Effect.sync(source.hasEndedWell), (ended) => ended)
      const next = yield* follow("", { lastEventId: source.lastEventId() })
      yield* waitUntil("it has ended", Effect.sync(next.hasEndedWell), (ended) => ended)
      assert.strictEqual(next.headers.connection, "close")
    })
  )

  test(
    "ends when its caller's token is revoked, and goes on when another's is",
    Effect.gen(function* () {
      const issue = Effect.fn(function* (name: string) {
        const body = JSON.stringify({ name, role: "admin", allows: "bearer", reason: "a test" })
        const answer = yield* ask("/v1/tokens", {
          method: "POST",
          body,
          headers: { "content-type": "application/json" }
        })
        return answer.json.token as string
      })
      const one = yield* follow("", { token: yield* issue("one") })
      const other = yield* follow("?kind=host.changed", { token: yield* issue("other") })
      yield* ask("/v1/tokens/one/revoke", {
        method: "POST",
        body: JSON.stringify({ reason: "a test" }),
        headers: { "content-type": "application/json" }
      })
      yield* waitUntil("it has ended", Effect.sync(one.hasEndedWell), (ended) => ended)
      yield* change(["a"])
      yield* until(other, 1)
      assert.isFalse(other.hasEnded())
    }),
    { events: { recheck: "20 millis" } }
  )

  test(
    "there are as many as may be, and a place is free again when one leaves",
    Effect.gen(function* () {
      const first = yield* follow()
      yield* follow()
      const refused = yield* ask("/v1/events")
      assert.strictEqual(refused.status, 503)
      assert.strictEqual(refused.json.type, "urn:prism-dns:problem:too-many-subscribers")
      first.close()
      const third = yield* waitUntil("there is a place", follow(), ({ status }) => status === 200)
      yield* waitUntil("it is told where it is", Effect.sync(third.lastEventId), (id) => id !== undefined)
    }),
    { events: { subscribersMax: 2 } }
  )

  test(
    "what who does not read is sent is bounded by what a connection holds, however much there is",
    Effect.gen(function* () {
      const sql = yield* SqlClient.SqlClient
      const text = "x".repeat(100_000)
      const entry = { actor: Audit.prism, action: "host.changed" as const, zone, subject: `h.${zone}`, after: { text } }
      const events = 400
      for (let i = 0; i < events; i += 20) {
        yield* Audit.writeAll(
          sql,
          Array.from({ length: 20 }, () => entry),
          1
        )
      }
      const stalled = yield* follow("?since=0")
      stalled.pause()
      const sent = Effect.map(ask("/metrics"), (answer) =>
        Number(/prism_events_sent_total(?:\{\})? (\d+)/.exec(answer.text)?.[1] ?? 0)
      )
      let before = -1
      yield* waitUntil(
        "nothing more is sent",
        sent,
        (now) => {
          const isSettled = now > 0 && now === before
          before = now
          return isSettled
        },
        { every: "300 millis", within: "20 seconds" }
      )
      // Kernels hold some megabytes of a connection: by far not all that there is.
      assert.isBelow(before, events / 2)
    })
  )

  test(
    "who does not read is cut, and holds nobody up meanwhile",
    Effect.gen(function* () {
      const sql = yield* SqlClient.SqlClient
      const stalled = yield* follow("?since=0")
      stalled.pause()
      const reading = yield* follow("?kind=host.changed")
      const text = "x".repeat(100_000)
      for (let i = 1; i <= 100; i++) {
        const entry = { actor: Audit.prism, action: "host.changed" as const, zone, subject: `h-${i}.${zone}` }
        yield* Audit.write(sql, { ...entry, after: { text }, atMillis: 1 })
      }
      yield* until(reading, 100)
      const ended = /prism_event_streams_ended_total\{[^}]*reason="stalled"[^}]*\} 1/
      yield* waitUntil("it is cut", ask("/metrics"), (answer) => ended.test(answer.text), { within: "10 seconds" })
      assert.isFalse(reading.hasEnded())
    }),
    { events: { stalledAfter: "200 millis" } }
  )
})

describe("a stream of events", () => {
  const client = Effect.gen(function* () {
    const { url } = yield* HttpAddress
    return yield* Client.make({ baseUrl: url, token: adminToken })
  })

  test(
    "brings events and gaps, and ends where it was told to",
    Effect.gen(function* () {
      yield* change(names(1, 5))
      const api = yield* client
      const head = yield* waitUntil("all is sealed", EventStream.head(api), (position) => position >= 5)
      const seen = yield* Stream.runCollect(
        EventStream.make(api, { since: "0", until: head, kinds: ["host.*"], hosts: [`h-2.${zone}` as never] })
      )
      assert.deepStrictEqual(
        seen.map((each) => (each._tag === "Event" ? each.event.subject : each.gap)),
        [`h-2.${zone}`]
      )
    }).pipe(Effect.provide(NodeHttpClient.layerNodeHttp))
  )

  test(
    "fails when the token is not taken, and not before",
    Effect.gen(function* () {
      const { url } = yield* HttpAddress
      const api = yield* Client.make({ baseUrl: url, token: Redacted.make("nobody") })
      const error = yield* Effect.flip(Stream.runDrain(EventStream.make(api)))
      assert.strictEqual(error._tag, "TokenInvalid")
    }).pipe(Effect.provide(NodeHttpClient.layerNodeHttp))
  )

  test(
    "takes what is silent for lost, and comes back by itself",
    Effect.gen(function* () {
      const api = yield* client
      const states: Array<string> = []
      const following = yield* EventStream.make(api, {
        kinds: ["host.changed"],
        silenceMax: "300 millis",
        pauseMin: "10 millis",
        onState: ({ _tag }) => Effect.sync(() => void states.push(_tag))
      }).pipe(Stream.take(2), Stream.runCollect, Effect.forkScoped)
      yield* waitUntil(
        "it has come back",
        Effect.sync(() => states),
        (seen) => seen.length >= 3
      )
      yield* change(["a", "b"])
      assert.strictEqual((yield* Fiber.join(following)).length, 2)
      assert.deepStrictEqual(states.slice(0, 3), ["Connected", "Disconnected", "Connected"])
    }).pipe(Effect.provide(NodeHttpClient.layerNodeHttp))
  )
})
