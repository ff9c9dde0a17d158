import { assert, describe, it } from "@effect/vitest"
import * as Audit from "@prism-dns/core/audit/Entries"
import * as Signing from "@prism-dns/core/events/WebhookSigning"
import { Effect, Metric } from "effect"
import { SqlClient } from "effect/sql"
import { audit } from "../../../core/test/harness/audit.ts"
import { waitUntil } from "../../../core/test/harness/waitUntil.ts"
import * as Receiver from "../harness/webhookReceiver.ts"
import { ask, otherZone, server, zone } from "./harness.ts"

const json = { "content-type": "application/json" }

const send = (method: string, path: string, body: object | undefined, more: { etag?: string; token?: string } = {}) =>
  ask(path, {
    method,
    headers: { ...json, ...(more.etag !== undefined && { "if-match": more.etag }) },
    ...(body !== undefined && { body: JSON.stringify(body) }),
    ...(more.token !== undefined && { token: more.token })
  })

const reason = "a test"

const create = Effect.fn(function* (url: string, more: object = {}, token?: string) {
  const answer = yield* send(
    "POST",
    "/v1/webhooks",
    { name: "cmdb", url, reason, ...more },
    token === undefined ? {} : { token }
  )
  assert.strictEqual(answer.status, 201, answer.text)
  return answer.json as { readonly id: string; readonly secret: string }
})

const get = Effect.fn(function* (name = "cmdb") {
  const answer = yield* ask(`/v1/webhooks/${name}`)
  assert.strictEqual(answer.status, 200, answer.text)
  return { webhook: answer.json, etag: answer.headers.get("etag")! }
})

const patch = Effect.fn(function* (change: object) {
  const { etag } = yield* get()
  const answer = yield* send("PATCH", "/v1/webhooks/cmdb", { reason, ...change }, { etag })
  assert.strictEqual(answer.status, 200, answer.text)
  return answer.json
})

/** Writes entries about hosts, one transaction each. */
const change = Effect.fn(function* (names: ReadonlyArray<string>, inZone = zone) {
  const sql = yield* SqlClient.SqlClient
  for (const name of names) {
    yield* Audit.write(sql, {
      actor: { name: "ann", peer: undefined },
      action: "host.changed",
      zone: inZone,
      subject: `${name}.${inZone}`,
      after: { state: "offline" },
      atMillis: 1_700_000_000_000
    })
  }
})

const hostEvents = { kinds: ["host.*"] }
const names = (from: number, to: number) => Array.from({ length: to - from + 1 }, (_, i) => `h-${from + i}`)
const subjects = (received: ReadonlyArray<Receiver.Received>) =>
  received.map(({ body }) => String(body.data.subject).split(".")[0])

const untilTaken = (receiver: Receiver.Receiver, expected: ReadonlyArray<string>) =>
  waitUntil(
    `${expected.length} messages are taken`,
    Effect.sync(() => subjects(receiver.taken())),
    (seen) => seen.length >= expected.length
  ).pipe(Effect.map((seen) => assert.deepStrictEqual(seen, [...expected])))

const untilState = (state: string) => waitUntil(`it is ${state}`, get(), ({ webhook }) => webhook.state === state)

const test = (
  title: string,
  body: Effect.Effect<
    void,
    unknown,
    import("effect/Layer").Success<ReturnType<typeof server>> | import("effect").Scope.Scope
  >
) =>
  it.live(title, () =>
    body.pipe(Effect.scoped, Effect.provide(server()), Effect.provideService(Metric.MetricRegistry, new Map()))
  )

describe("a webhook", () => {
  test(
    "gets each event by a message of its own, in order, signed; its secret is said once",
    Effect.gen(function* () {
      const receiver = yield* Receiver.start
      yield* change(["before"])
      const { secret } = yield* create(receiver.url, hostEvents)
      assert.match(secret, /^whsec_[A-Za-z0-9+/]{43}=$/)
      assert.notInclude((yield* ask("/v1/webhooks/cmdb")).text, "secret")
      assert.notInclude((yield* ask("/v1/webhooks")).text, "secret")
      const sql = yield* SqlClient.SqlClient
      const entries = yield* sql`SELECT action, after FROM ${sql.literal(audit)} WHERE subject = 'cmdb'`
      assert.strictEqual(entries.length, 1)
      assert.notInclude(JSON.stringify(entries), secret)
      yield* change(names(1, 30))
      yield* untilTaken(receiver, names(1, 30))
      for (const received of receiver.received) {
        assert.isTrue(Receiver.isSignedBy(secret, received))
        const { headers, text } = received
        assert.isTrue(Signing.verify(secret, headers, text, Date.now()))
        assert.isFalse(Signing.verify(secret, headers, text.replace("h-", "x-"), Date.now()))
        assert.isFalse(Signing.verify(secret, { ...headers, "webhook-id": "event_0" }, text, Date.now()))
        assert.isFalse(Signing.verify(secret, headers, text, Date.now() + 6 * 60_000))
        assert.isFalse(Signing.verify(Signing.toSecret(new Uint8Array(32)), headers, text, Date.now()))
      }
      const { body, headers } = receiver.received[0]!
      assert.strictEqual(headers["webhook-id"], `event_${body.data.id}`)
      assert.strictEqual(headers["content-type"], "application/json")
      assert.strictEqual(body.type, "host.changed")
      assert.strictEqual(body.timestamp, "2023-11-14T22:13:20.000Z")
      assert.strictEqual(body.data.actor, "ann")
      const { webhook } = yield* waitUntil("it is written", get(), (seen) => seen.webhook.position > 30)
      assert.strictEqual(webhook.attempts, 0)
    })
  )

  test(
    "that fails now and then gets every event in order all the same, by the same id each time",
    Effect.gen(function* () {
      const receiver = yield* Receiver.start
      receiver.answer = (_, nth) => (nth % 3 === 0 ? 500 : 204)
      yield* create(receiver.url, hostEvents)
      yield* change(names(1, 12))
      yield* untilTaken(receiver, names(1, 12))
      const [first, second] = receiver.received
      assert.strictEqual(first!.headers["webhook-id"], second!.headers["webhook-id"])
      assert.strictEqual(first!.text, second!.text)
    })
  )

  test(
    "that hangs is given up on after so many attempts, event by event; what was given up is kept, and sent again when asked for",
    Effect.gen(function* () {
      const receiver = yield* Receiver.start
      receiver.answer = ({ body }) => (/^h-[23]\./.test(body.data.subject) ? "hang" : 204)
      yield* create(receiver.url, hostEvents)
      yield* change(names(1, 5))
      yield* untilTaken(receiver, ["h-1", "h-4", "h-5"])
      const letters = (yield* ask("/v1/webhooks/cmdb/dead-letters")).json.items
      assert.deepStrictEqual(
        letters.map(({ attempts, error }: any) => [attempts, error]),
        [
          [3, "no answer within 0.3 s"],
          [3, "no answer within 0.3 s"]
        ]
      )
      receiver.answer = () => 204
      const tried = yield* send("POST", "/v1/webhooks/cmdb/replay?dryRun=true", { deadLetters: true, reason })
      assert.deepInclude(tried.json, { deadLetters: 2, dryRun: true })
      const replayed = yield* send("POST", "/v1/webhooks/cmdb/replay", { deadLetters: true, reason })
      assert.strictEqual(replayed.json.deadLetters, 2)
      yield* untilTaken(receiver, ["h-1", "h-4", "h-5", "h-2", "h-3"])
      yield* waitUntil(
        "no dead letter is left",
        ask("/v1/webhooks/cmdb/dead-letters"),
        (answer) => answer.json.items.length === 0
      )
    })
  )

  test(
    "sends no dead letter again that whoever changed it since may not see",
    Effect.gen(function* () {
      const receiver = yield* Receiver.start
      const other = yield* Receiver.start
      receiver.answer = ({ body }) => (String(body.data.subject).startsWith("h-2.") ? 503 : 204)
      yield* create(receiver.url, { ...hostEvents, zones: [zone] })
      yield* change(names(1, 3))
      yield* untilTaken(receiver, ["h-1", "h-3"])
      const permissions = ["webhooks", "events", "records"].map((resource) => ({ verb: "*", resource, zones: [zone] }))
      yield* send("POST", "/v1/roles", { name: "connector", description: "Runs webhooks.", permissions, reason })
      const issued = yield* send("POST", "/v1/tokens", {
        name: "narrow",
        roles: ["connector"],
        allows: "bearer",
        reason
      })
      assert.strictEqual(issued.status, 201, issued.text)
      const { token } = issued.json
      const { etag } = yield* get()
      const moved = yield* send("PATCH", "/v1/webhooks/cmdb", { url: other.url, reason }, { etag, token })
      assert.strictEqual(moved.status, 200, moved.text)
      yield* send("POST", "/v1/webhooks/cmdb/replay", { deadLetters: true, reason }, { token })
      yield* waitUntil(
        "the dead letter is looked at",
        Effect.map(ask("/v1/webhooks/cmdb/dead-letters"), ({ json }) => json.items),
        (items) =>
          items.length === 0 || items[0].error === "narrow, who changed the webhook last, may not see the event"
      )
      assert.deepStrictEqual(other.received, [])
    })
  )

  /** A token of its own by which a webhook is made, and its ETag. */
  const issue = Effect.fn(function* (name: string, more: object) {
    const made = yield* send("POST", "/v1/tokens", { name, allows: "bearer", reason, ...more })
    assert.strictEqual(made.status, 201, made.text)
    return made.json.token as string
  })

  const edit = Effect.fn(function* (path: string, body: object) {
    const etag = (yield* ask(path)).headers.get("etag")!
    const answer = yield* send("PATCH", path, { reason, ...body }, { etag })
    assert.strictEqual(answer.status, 200, answer.text)
  })

  test(
    "sends no more than whoever changed it last may see by now: a token that is narrowed, and a role, narrow it",
    Effect.gen(function* () {
      const receiver = yield* Receiver.start
      const permissions = [
        { verb: "read", resource: "events" },
        { verb: "read", resource: "hosts" },
        { verb: "*", resource: "webhooks" }
      ]
      const role = yield* send("POST", "/v1/roles", { name: "sender", description: "sends", permissions, reason })
      assert.strictEqual(role.status, 201, role.text)
      const token = yield* issue("cmdb-admin", { roles: ["sender"] })
      yield* create(receiver.url, hostEvents, token)
      yield* change(["h-1"])
      yield* change(["h-2"], otherZone)
      yield* untilTaken(receiver, ["h-1", "h-2"])
      yield* edit("/v1/roles/sender", {
        permissions: permissions.map((each) => (each.resource === "hosts" ? { ...each, zones: [zone] } : each))
      })
      yield* change(["h-3"], otherZone)
      yield* change(["h-4"])
      yield* untilTaken(receiver, ["h-1", "h-2", "h-4"])
      yield* edit("/v1/roles/sender", { permissions })
      yield* edit("/v1/tokens/cmdb-admin", { grant: { zones: [otherZone] } })
      yield* change(["h-5"])
      yield* change(["h-6"], otherZone)
      yield* untilTaken(receiver, ["h-1", "h-2", "h-4", "h-6"])
    })
  )

  test(
    "whose last editor has no right left is paused and says why, and goes on by the word of another",
    Effect.gen(function* () {
      const receiver = yield* Receiver.start
      const token = yield* issue("leaver", { roles: ["admin"] })
      yield* create(receiver.url, hostEvents, token)
      yield* change(["h-1"])
      yield* untilTaken(receiver, ["h-1"])
      const revoked = yield* send("POST", "/v1/tokens/leaver/revoke", { reason })
      assert.strictEqual(revoked.status, 200, revoked.text)
      yield* change(["h-2"])
      const { webhook } = yield* untilState("paused")
      assert.strictEqual(
        webhook.lastError,
        "paused: the token leaver was revoked, by whose word it sends; whoever changes it next gives it theirs"
      )
      assert.deepStrictEqual(subjects(receiver.taken()), ["h-1"])
      assert.match((yield* ask("/metrics")).text, /prism_webhook_pauses_total\{[^}]*reason="rights"[^}]*\} 1/)
      yield* patch({ state: "active" })
      yield* untilTaken(receiver, ["h-1", "h-2"])
    })
  )

  test(
    "whose last editor may see no events any more is paused",
    Effect.gen(function* () {
      const receiver = yield* Receiver.start
      const token = yield* issue("leaver", { roles: ["admin"] })
      yield* create(receiver.url, hostEvents, token)
      const hosts = [{ verb: "read", resource: "hosts" }]
      yield* send("POST", "/v1/roles", { name: "looker", description: "looks", permissions: hosts, reason })
      yield* edit("/v1/tokens/leaver", { roles: ["looker"] })
      const { webhook } = yield* untilState("paused")
      assert.include(webhook.lastError, "paused: leaver may see no events any more")
    })
  )

  test(
    "that gives up on too many events in a row is paused, says why, and goes on when it is made active",
    Effect.gen(function* () {
      const receiver = yield* Receiver.start
      receiver.answer = () => ({ status: 503, headers: { "retry-after": "0" } })
      yield* create(receiver.url, hostEvents)
      yield* change(names(1, 5))
      const { webhook } = yield* untilState("paused")
      assert.strictEqual(
        webhook.lastError,
        "paused: 3 events in a row were given up; the last time it answered with status 503"
      )
      assert.match((yield* ask("/metrics")).text, /prism_webhook_pauses_total\{[^}]*reason="dead-letters"[^}]*\} 1/)
      receiver.answer = () => 204
      yield* patch({ state: "active" })
      yield* untilTaken(receiver, ["h-4", "h-5"])
      const again = yield* send("POST", "/v1/webhooks/cmdb/replay", { since: "0", reason })
      assert.strictEqual(again.status, 200, again.text)
      yield* untilTaken(receiver, ["h-4", "h-5", ...names(1, 5)])
      assert.deepStrictEqual((yield* ask("/v1/webhooks/cmdb/dead-letters")).json.items, [])
    })
  )

  test(
    "whose receiver says that it is gone is paused at once, and loses nothing",
    Effect.gen(function* () {
      const receiver = yield* Receiver.start
      receiver.answer = () => 410
      yield* create(receiver.url, hostEvents)
      yield* change(names(1, 2))
      const { webhook } = yield* untilState("paused")
      assert.include(webhook.lastError, "410")
      assert.strictEqual(receiver.received.length, 1)
      receiver.answer = () => 204
      yield* patch({ state: "active" })
      yield* untilTaken(receiver, names(1, 2))
    })
  )

  test(
    "follows no redirect",
    Effect.gen(function* () {
      const receiver = yield* Receiver.start
      const other = yield* Receiver.start
      receiver.answer = (_, nth) => (nth === 0 ? { status: 307, headers: { location: other.url } } : 204)
      yield* create(receiver.url, hostEvents)
      yield* change(["h-1"])
      yield* untilTaken(receiver, ["h-1"])
      assert.strictEqual(other.received.length, 0)
    })
  )

  test(
    "that is slow holds up no other",
    Effect.gen(function* () {
      const slow = yield* Receiver.start
      const quick = yield* Receiver.start
      slow.answer = () => "hang"
      yield* create(slow.url, { name: "slow", ...hostEvents })
      yield* create(quick.url, hostEvents)
      yield* change(names(1, 20))
      yield* untilTaken(quick, names(1, 20))
      assert.isBelow(slow.received.length, 20)
    })
  )

  test(
    "sends what its filter asks for, and only what its maker may see",
    Effect.gen(function* () {
      const receiver = yield* Receiver.start
      const bounded = yield* Receiver.start
      yield* create(receiver.url, { kinds: ["host.changed"], zones: [otherZone] })
      const role = yield* send("POST", "/v1/roles", {
        name: "lab-hooks",
        description: "hooks of the lab",
        permissions: [
          { verb: "read", resource: "hosts", zones: [otherZone] },
          { verb: "read", resource: "events", zones: [otherZone] },
          { verb: "write", resource: "webhooks", zones: [otherZone] },
          { verb: "read", resource: "webhooks", zones: [otherZone] }
        ],
        reason
      })
      assert.strictEqual(role.status, 201, role.text)
      const issued = yield* send("POST", "/v1/tokens", {
        name: "lab",
        roles: ["lab-hooks"],
        allows: "bearer",
        reason
      })
      assert.strictEqual(issued.status, 201, issued.text)
      const token = issued.json.token as string
      const refused = yield* send("POST", "/v1/webhooks", { name: "lab", url: bounded.url, reason }, { token })
      assert.strictEqual(refused.status, 403, refused.text)
      yield* create(bounded.url, { name: "lab", zones: [otherZone] }, token)
      assert.strictEqual((yield* ask("/v1/webhooks/cmdb", { token })).status, 200)
      yield* change(["a"])
      yield* change(["b"], otherZone)
      yield* untilTaken(receiver, ["b"])
      yield* untilTaken(bounded, ["b"])
      const all = yield* create(receiver.url, { name: "all" })
      assert.strictEqual((yield* ask(`/v1/webhooks/${all.id}`, { token })).status, 404)
      assert.deepStrictEqual(
        (yield* ask("/v1/webhooks", { token })).json.items.map(({ name }: any) => name),
        ["cmdb", "lab"]
      )
    })
  )

  test(
    "is changed by If-Match: who comes too late is told what changed",
    Effect.gen(function* () {
      const receiver = yield* Receiver.start
      yield* create(receiver.url, hostEvents)
      const { etag } = yield* get()
      const without = yield* send("PATCH", "/v1/webhooks/cmdb", { state: "paused", reason })
      assert.strictEqual(without.status, 428)
      const dry = yield* send("PATCH", "/v1/webhooks/cmdb?dryRun=true", { state: "paused", reason }, { etag })
      assert.deepInclude(dry.json, { dryRun: true, state: "paused" })
      assert.strictEqual((yield* get()).webhook.state, "active")
      yield* patch({ state: "paused", kinds: null })
      const late = yield* send("DELETE", `/v1/webhooks/cmdb?reason=${encodeURIComponent(reason)}`, undefined, { etag })
      assert.strictEqual(late.status, 412)
      assert.deepStrictEqual(late.json.changes, [
        { pointer: "/kinds", before: ["host.*"] },
        { pointer: "/state", before: "active", now: "paused" }
      ])
      assert.strictEqual(late.json.changedBy, "ops")
      const now = yield* get()
      const removed = yield* send("DELETE", `/v1/webhooks/cmdb?reason=test`, undefined, { etag: now.etag })
      assert.strictEqual(removed.status, 200, removed.text)
      assert.strictEqual((yield* ask("/v1/webhooks/cmdb")).status, 404)
      assert.strictEqual((yield* ask("/v1/webhooks/cmdb/dead-letters")).status, 404)
    })
  )

  test(
    "whose secret is replaced signs by both for a day",
    Effect.gen(function* () {
      const receiver = yield* Receiver.start
      const { secret: former } = yield* create(receiver.url, hostEvents)
      const { secret } = yield* patch({ rotateSecret: true })
      assert.notStrictEqual(secret, former)
      yield* change(["h-1"])
      yield* untilTaken(receiver, ["h-1"])
      const [received] = receiver.received
      assert.isTrue(Receiver.isSignedBy(secret, received!))
      assert.isTrue(Receiver.isSignedBy(former, received!))
    })
  )

  test(
    "is tried by a message that is about nothing",
    Effect.gen(function* () {
      const receiver = yield* Receiver.start
      const { secret } = yield* create(receiver.url)
      yield* patch({ state: "paused" })
      const taken = yield* send("POST", "/v1/webhooks/cmdb/test", undefined)
      assert.deepInclude(taken.json, { delivered: true, status: 204 })
      const message = receiver.received.find(({ body }) => body.type === "test")!
      assert.isTrue(Receiver.isSignedBy(secret, message))
      receiver.answer = () => 500
      const refused = yield* send("POST", "/v1/webhooks/cmdb/test", undefined)
      assert.deepInclude(refused.json, { delivered: false, status: 500, detail: "It answered with status 500." })
    })
  )

  test(
    "is sent to no address that is not public and not allowed",
    Effect.gen(function* () {
      for (const url of [
        "http://127.0.0.2/x",
        "http://2130706434/x",
        "http://10.1.2.3/x",
        "http://192.168.0.1/x",
        "http://169.254.169.254/latest/meta-data/",
        "http://[fe80::1]/x",
        "http://[::ffff:10.0.0.1]/x",
        "http://[fd00::1]/x",
        "http://224.0.0.1/x",
        "http://0.0.0.0/x",
        "ftp://example.net/x",
        "https://user:secret@example.net/x",
        "https://example.net/x#y",
        "nonsense"
      ]) {
        const answer = yield* send("POST", "/v1/webhooks", { name: "bad", url, reason })
        assert.strictEqual(answer.status, 400, url)
        assert.strictEqual(answer.json.errors[0].pointer, "/url", url)
      }
      assert.deepStrictEqual((yield* ask("/v1/webhooks")).json.items, [])
    })
  )

  test(
    "has a name of its own, and makes sense",
    Effect.gen(function* () {
      const receiver = yield* Receiver.start
      const dry = yield* send("POST", "/v1/webhooks?dryRun=true", { name: "cmdb", url: receiver.url, reason })
      assert.strictEqual(dry.status, 201)
      assert.isUndefined(dry.json.secret)
      yield* create(receiver.url)
      const taken = yield* send("POST", "/v1/webhooks", { name: "cmdb", url: receiver.url, reason })
      assert.strictEqual(taken.json.type, "urn:prism-dns:problem:webhook-name-taken")
      const wrong = yield* send("POST", "/v1/webhooks", { name: "x", url: receiver.url, kinds: ["host"], reason })
      assert.strictEqual(wrong.status, 400)
      const both = yield* send("POST", "/v1/webhooks/cmdb/replay", { since: "0", deadLetters: true, reason })
      assert.strictEqual(both.status, 400)
    })
  )
})
