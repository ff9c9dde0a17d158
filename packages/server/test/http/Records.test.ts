import { assert, describe, it } from "@effect/vitest"
import { PowerDnsClient } from "@prism-dns/core/powerdns/PowerDnsClient"
import { PowerDnsMemory } from "@prism-dns/core/powerdns/PowerDnsMemory"
import * as DomainName from "@prism-dns/core/domain/DomainName"
import { Effect, type Layer } from "effect"
import { waitUntil } from "../../../core/test/harness/waitUntil.ts"
import { type Answer, ask, otherZone, register, server, zone } from "./harness.ts"

const records = `/v1/zones/${zone}/records`
const at = (name: string, type: string) => `${records}/${name}.${zone}/${type}`

const send = (method: string, path: string, body?: unknown, headers: Readonly<Record<string, string>> = {}) =>
  ask(path, {
    method,
    headers: { ...(body !== undefined && { "content-type": "application/json" }), ...headers },
    ...(body !== undefined && { body: JSON.stringify(body) })
  })

const put = (name: string, type: string, contents: ReadonlyArray<string>, headers?: Readonly<Record<string, string>>) =>
  send("PUT", at(name, type), { contents }, headers)

const importFile = (text: string, query = "", inZone: string = zone) =>
  ask(`/v1/zones/${inZone}/import${query}`, { method: "POST", headers: { "content-type": "text/dns" }, body: text })

const apply = (answer: Answer) => send("POST", `/v1/plans/${answer.json.id}/apply`, {})

/** Contents in PowerDNS at a name. */
const held = (name: string) =>
  Effect.flatMap(PowerDnsClient, ({ rrsets }) =>
    Effect.map(rrsets(zone, [DomainName.make(`${name}.${zone}`)]), (sets) =>
      sets.flatMap(({ contents, type }) => contents.map((content) => `${type} ${content}`)).sort()
    )
  )

const test = <E>(name: string, body: Effect.Effect<void, E, Layer.Success<ReturnType<typeof server>>>) =>
  it.live(name, () => Effect.provide(body, server()))

describe("records by the API", () => {
  test(
    "keep their TTL when only their contents are changed, one by one and in a batch",
    Effect.gen(function* () {
      const made = yield* send("PUT", at("txt", "TXT"), { contents: ['"a"'], ttlSeconds: 1234 })
      assert.strictEqual(made.json.record.ttlSeconds, 1234, made.text)
      const items = [
        { name: `txt.${zone}`, type: "TXT", contents: ['"b"'] },
        { name: `new.${zone}`, type: "TXT", contents: ['"b"'] }
      ]
      const batch = yield* send("POST", `${records}:batch`, { items })
      assert.deepStrictEqual([batch.status, batch.json.changed], [200, 2], batch.text)
      const txt = yield* ask(at("txt", "TXT"))
      assert.deepStrictEqual([txt.json.ttlSeconds, txt.json.contents], [1234, ['"b"']])
      assert.strictEqual((yield* ask(at("new", "TXT"))).json.ttlSeconds, 60)
      const again = yield* send("PUT", at("txt", "TXT"), { contents: ['"c"'] }, { "if-match": "*" })
      assert.strictEqual(again.json.record.ttlSeconds, 1234, again.text)
    })
  )

  test(
    "are made, read, changed by their tag, and deleted; who comes late is told what changed",
    Effect.gen(function* () {
      const made = yield* send("PUT", `${at("www", "CNAME")}?waitFor=applied`, {
        contents: ["Web.Example."],
        reason: "shop"
      })
      assert.strictEqual(made.status, 200, made.text)
      assert.deepStrictEqual(
        [made.json.outcome, made.json.record.contents, made.json.record.publication.level],
        ["created", ["web.example."], "applied"]
      )
      assert.deepStrictEqual(yield* held("www"), ["CNAME web.example."])
      const first = made.headers.get("etag")!
      const read = yield* ask(at("www", "CNAME"))
      assert.deepStrictEqual([read.status, read.headers.get("etag"), read.json.changedBy], [200, first, "ops"])
      assert.strictEqual((yield* put("www", "CNAME", ["other.example."])).status, 428)
      assert.strictEqual((yield* put("www", "CNAME", ["x.example."], { "if-none-match": "*" })).status, 412)
      const changed = yield* put("www", "CNAME", ["other.example."], { "if-match": first })
      assert.deepStrictEqual([changed.status, changed.json.outcome], [200, "changed"])
      const late = yield* put("www", "CNAME", ["late.example."], { "if-match": first })
      assert.strictEqual(late.status, 412)
      assert.deepStrictEqual(
        [late.json.changedBy, late.json.changes],
        ["ops", [{ pointer: "/contents", before: ["web.example."], now: ["other.example."] }]]
      )
      assert.strictEqual((yield* send("DELETE", at("www", "CNAME"))).status, 428)
      const tag = changed.headers.get("etag")!
      const dry = yield* send("DELETE", `${at("www", "CNAME")}?dryRun=true`, undefined, { "if-match": tag })
      assert.deepStrictEqual(
        [dry.status, dry.json.dryRun, dry.json.publishes.map(({ action }: { action: string }) => action)],
        [200, true, ["delete"]]
      )
      const gone = yield* send("DELETE", at("www", "CNAME"), undefined, { "if-match": tag })
      assert.deepStrictEqual([gone.status, gone.json.outcome], [200, "deleted"])
      assert.strictEqual((yield* ask(at("www", "CNAME"))).status, 404)
      assert.strictEqual((yield* send("DELETE", at("never", "CNAME"))).status, 404)
    })
  )

  test(
    "are deleted, and hosts brought back, by a plan of somebody only who may do that without one",
    Effect.gen(function* () {
      const permissions = [
        { verb: "*", resource: "plans" },
        { verb: "read", resource: "*" },
        { verb: "write", resource: "records" }
      ]
      const issue = Effect.fn(function* (name: string, more: ReadonlyArray<object>) {
        const role = { name, description: "x", permissions: [...permissions, ...more], reason: "x" }
        assert.strictEqual((yield* send("POST", "/v1/roles", role)).status, 201)
        const issued = yield* send("POST", "/v1/tokens", { name, roles: [name], allows: "bearer", reason: "x" })
        return String(issued.json.token)
      })
      const applyAs = (token: string, plan: Answer, body: object = {}) =>
        send("POST", `/v1/plans/${plan.json.id}/apply`, body, { authorization: `Bearer ${token}` })
      const writer = yield* issue("writer", [])
      const keeper = yield* issue("keeper", [{ verb: "write", resource: "hosts" }])
      const deleter = yield* issue("deleter", [{ verb: "delete", resource: "records" }])

      yield* put("old", "TXT", ['"x"'])
      const pruned = yield* importFile(`new.${zone} 60 IN TXT "y"\n`, "?prune=true")
      assert.deepInclude(pruned.json.counts, { create: 1, delete: 1 })
      const refused = yield* applyAs(writer, pruned)
      assert.strictEqual(refused.status, 403, refused.text)
      assert.match(refused.json.detail, /may not delete records/)
      assert.strictEqual((yield* applyAs(writer, pruned, { withoutDeletions: true })).json.applied, 1)
      assert.strictEqual((yield* applyAs(deleter, pruned)).json.applied, 1)

      yield* register("gone", "192.0.2.7")
      const made = new Date().toISOString()
      const then = yield* waitUntil(
        "time goes on",
        Effect.sync(() => new Date().toISOString()),
        (now) => now > made
      )
      yield* send("POST", `/v1/hosts/gone.${zone}/release`, { reason: "x" })
      const plan = yield* send("POST", `/v1/hosts/gone.${zone}/restore`, { at: then, reason: "x" })
      assert.strictEqual(plan.json.counts.create, 1, plan.text)
      assert.match((yield* applyAs(writer, plan)).json.detail, /may not write hosts/)
      assert.strictEqual((yield* applyAs(keeper, plan)).json.applied, 1)
    })
  )

  test(
    "that are wrong or in the way of others are refused with what is wrong",
    Effect.gen(function* () {
      yield* register("web", "192.0.2.7")
      const wrong = yield* put("bad", "MX", ["mail.example."])
      assert.deepStrictEqual([wrong.status, wrong.json.errors[0].pointer], [400, "/contents"])
      assert.strictEqual((yield* send("PUT", at("x", "SOA"), { contents: ["x"] })).status, 400)
      const conflict = yield* put("web", "CNAME", ["x.example."])
      assert.deepStrictEqual([conflict.status, conflict.json.type], [409, "urn:prism-dns:problem:record-conflict"])
      const lua = yield* put("lua", "LUA", [`A "pickrandom({'192.0.2.1'})"`])
      assert.strictEqual(lua.status, 403)
      assert.match(lua.json.detail, /may not write lua/)
      assert.strictEqual(
        (yield* send("PUT", `/v1/zones/nowhere.test./records/a.nowhere.test./A`, { contents: ["192.0.2.1"] })).status,
        404
      )
    })
  )

  test(
    "are changed many at once, each with its own result",
    Effect.gen(function* () {
      const batch = yield* send("POST", `${records}:batch`, {
        items: [
          { name: `a.${zone}`, type: "A", contents: ["192.0.2.1"] },
          { name: `a.${zone}`, type: "CNAME", contents: ["b.example."] },
          { name: `b.${zone}`, type: "TXT", contents: ["x"] },
          { name: `c.${zone}`, type: "LUA", contents: [`A "x"`] },
          { name: `d.${zone}`, type: "A" },
          { name: `a.${zone}`, type: "A", contents: ["192.0.2.1"], ttlSeconds: 60 }
        ]
      })
      assert.strictEqual(batch.status, 200, batch.text)
      assert.deepStrictEqual(
        batch.json.items.map(({ outcome, problem }: any) => problem?.status ?? outcome),
        ["created", 409, "created", 403, 404, "unchanged"]
      )
      assert.deepStrictEqual([batch.json.changed, batch.json.unchanged, batch.json.refused], [2, 1, 3])
    })
  )

  const file = `
$TTL 1h
@   IN SOA ns1 hostmaster (1 7200 3600 1209600 300)
    IN NS  ns1.example.
    MX 10 mail
www 300 IN CNAME web.example.
txt TXT ( "one"
          "two" ) ; a comment
web A 192.0.2.200
odd HINFO "PC" "OS"
elsewhere.example. A 192.0.2.1
`

  test(
    "come from a zone file as a plan, which leaves out what is not people's, and go again into one",
    Effect.gen(function* () {
      yield* register("web", "192.0.2.7")
      const memory = yield* PowerDnsMemory
      yield* waitUntil("the host is there", held("web"), (lines) => lines.length === 1)
      const dry = yield* importFile(file, "?dryRun=true")
      assert.deepStrictEqual([dry.status, dry.json.dryRun, dry.json.counts.create], [201, true, 3])
      assert.strictEqual((yield* ask(`/v1/plans/${dry.json.id}`)).status, 404)
      const made = yield* importFile(file)
      assert.strictEqual(made.status, 201, made.text)
      assert.deepStrictEqual([made.json.kind, made.json.counts.create, made.json.leftOutCount], ["import", 3, 5])
      assert.deepStrictEqual(
        made.json.leftOut.map(({ name, reason, type }: any) => `${name} ${type} ${reason}`.slice(0, 60)),
        [
          "elsewhere.example. A elsewhere.example. does not lie in host",
          `${zone} NS the zone's own name servers are set up, and stay as they are`.slice(0, 60),
          `${zone} SOA SOA records are PowerDNS's to make`.slice(0, 60),
          `odd.${zone} HINFO HINFO is not a type that Prism manages`.slice(0, 60),
          `web.${zone} A a host has it`
        ]
      )
      const applied = yield* apply(made)
      assert.deepStrictEqual([applied.status, applied.json.applied], [200, 3], applied.text)
      yield* waitUntil("it is published", held("txt"), (lines) => lines.length === 1)
      assert.deepStrictEqual(yield* held("txt"), ['TXT "one" "two"'])
      assert.deepStrictEqual(
        yield* importFile(file).pipe(Effect.map(({ json }) => [json.counts.changes, json.same])),
        [0, 3]
      )

      yield* memory.put(zone, {
        name: DomainName.make(`hand.${zone}`),
        type: "TXT",
        ttlSeconds: 60,
        contents: ['"=1+1"']
      })
      const out = yield* ask(`/v1/zones/${zone}/export`)
      assert.strictEqual(out.headers.get("content-type"), "text/dns")
      const [, origin, soa, ...lines] = out.text.split("\n")
      // A file without these loads nowhere.
      assert.strictEqual(origin, `$ORIGIN ${zone}`)
      assert.match(soa!, /^hosts\.prism\.test\.\t3600\tIN\tSOA\tns1\.hosts\.prism\.test\. \S+ \d+ \d+ \d+ \d+ \d+$/)
      assert.deepStrictEqual(lines, [
        `${zone}\t3600\tIN\tNS\tns1.${zone}`,
        `${zone}\t3600\tIN\tMX\t10 mail.${zone}`,
        `txt.${zone}\t3600\tIN\tTXT\t"one" "two"`,
        `web.${zone}\t60\tIN\tA\t192.0.2.7`,
        `www.${zone}\t300\tIN\tCNAME\tweb.example.`,
        ""
      ])
      const withForeign = yield* ask(`/v1/zones/${zone}/export?foreign=true`)
      assert.strictEqual(withForeign.text.match(/\tSOA\t/g)?.length, 1)
      assert.strictEqual(withForeign.text.match(/\tNS\t/g)?.length, 1)
      assert.include(withForeign.text, `hand.${zone}\t60\tIN\tTXT\t"=1+1"`)
      const all = yield* ask(`/v1/zones/${zone}/export?format=json&foreign=true`)
      assert.includeMembers(
        all.json.recordSets.map(({ name, origin, type }: any) => `${name} ${type} ${origin}`),
        [`hand.${zone} TXT foreign`, `web.${zone} A host`, `www.${zone} CNAME managed`, `${zone} SOA foreign`]
      )
      const csv = yield* ask(`/v1/zones/${zone}/export?format=csv`)
      assert.include(csv.text, `txt.${zone},TXT,3600,"""one"" ""two""",managed\r\n`)

      // The same file elsewhere says the same.
      const other = yield* importFile(out.text.replaceAll(zone, otherZone), "", otherZone)
      assert.deepStrictEqual([other.json.counts.create, other.json.leftOutCount], [4, 2])

      const pruned = yield* importFile("www 300 CNAME web.example.\n", "?prune=true")
      assert.deepStrictEqual([pruned.json.counts.delete, pruned.json.counts.changes], [2, 2])
      yield* apply(pruned)
      yield* waitUntil("it is gone", held("txt"), (lines) => lines.length === 0)
      assert.deepStrictEqual(yield* held("www"), ["CNAME web.example."])
    })
  )

  test(
    "come from no zone file that is wrong, and from no server that is not named",
    Effect.gen(function* () {
      for (const [text, why] of [
        ["www A 192.0.2.300\n", /line 1: A '192.0.2.300'/],
        ["$GENERATE 1-10 h$ A 192.0.2.$\n", /line 1: \$GENERATE is not taken/],
        ["\n(www A\n", /line 2: a parenthesis is not closed/],
        ["www CH A 192.0.2.1\n", /class CH is not taken/]
      ] as const) {
        const answer = yield* importFile(text)
        assert.strictEqual(answer.status, 400)
        assert.match(answer.json.detail, why)
      }
      for (const target of ["127.0.0.1", "169.254.169.254:80", "localhost", "[::1]:53", "10.0.0.1"]) {
        const answer = yield* send("POST", `/v1/zones/${zone}/import`, { axfr: { server: target } })
        assert.deepStrictEqual([target, answer.status], [target, 400])
      }
    })
  )
})
