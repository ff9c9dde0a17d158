/** The OpenAPI document: it is sound, and takes nothing away that was released. */
import { assert, describe, it } from "@effect/vitest"
import { Api } from "@prism-dns/core/api/Api"
import { OpenApi } from "effect/http-api"
import * as ChildProcess from "node:child_process"
import * as Fs from "node:fs"
import * as Path from "node:path"
import { breaks } from "../../scripts/docs/Compatibility.ts"
import { root } from "./markdown.ts"

const document: any = OpenApi.fromApi(Api)

const released = JSON.parse(Fs.readFileSync(Path.join(root, "docs/test/released/openapi.json"), "utf8"))

/** What was taken away on purpose since the release, by how it begins, and why that is right. Emptied at each release. */
const agreed: ReadonlyArray<readonly [begins: string, why: string]> = [
  ["GET /v1/hosts 200.items[].", "Absent only in answers to `at=`, which nobody could ask for before."],
  ["GET /v1/hosts/{host} 200.", "The same."],
  ["GET /v1/zones 200.items[].publication: may be absent", "Only in answers to `at=`."],
  ["GET /v1/zones/{zone} 200.publication: may be absent", "The same."],
  ["POST /v1/tokens 201.token: may be absent", "Only in a dry run, which nobody could ask for before."],
  ["GET /v1/access:explain 200.", "Absent only where a permission is asked about, which nobody could before."],
  ["POST /v1/access:explain 200.", "The same."],
  ["GET /v1/zones 200.items[].publication: may be", "Only for a zone as of a time, which nobody could ask for before."],
  ["GET /v1/zones/{zone} 200.publication: may be", "The same."],
  [
    "GET /v1/whoami 200.role: may be absent",
    "Only for callers of a kind that there was not: roles of one's own, OIDC."
  ],
  ["GET /v1/whoami 200.origin: may be absent", "The same."]
]

/** A document of one operation. */
const of = (operation: object, schemas: object = {}) => ({
  paths: { "/v1/x": { post: { operationId: "x.y", responses: {}, ...operation } } },
  components: { schemas }
})

const body = (schema: object) => ({ requestBody: { content: { "application/json": { schema } } } })
const answer = (schema: object) => ({ responses: { "200": { content: { "application/json": { schema } } } } })
const object = (properties: object, required: ReadonlyArray<string> = []) => ({ type: "object", properties, required })
const text = { type: "string" }

describe("the OpenAPI document", () => {
  it("passes the linter", () => {
    const { status, stderr, stdout } = ChildProcess.spawnSync(
      process.execPath,
      [
        Path.join(root, "node_modules/.bin/redocly"),
        "lint",
        "docs/reference/openapi.json",
        "--config=docs/redocly.yaml",
        "--max-problems=1000"
      ],
      { cwd: root, encoding: "utf8", env: { ...process.env, REDOCLY_TELEMETRY: "off", NO_COLOR: "1" } }
    )
    assert.strictEqual(status, 0, `${stdout}\n${stderr}`)
    assert.notInclude(stdout + stderr, "warning")
  })

  it("says of every operation what it is, what it requires and how it may fail", () => {
    const ids = new Set<string>()
    for (const [path, item] of Object.entries<any>(document.paths)) {
      for (const [method, operation] of Object.entries<any>(item)) {
        const place = `${method} ${path}`
        assert.isString(operation.summary, place)
        assert.match(operation.operationId, /^[a-zA-Z]+\.[a-zA-Z]+$/, place)
        assert.isFalse(ids.has(operation.operationId), place)
        ids.add(operation.operationId)
        assert.match(operation["x-required-permission"], /^(?:anyone|[a-z]+ [a-z]+)$/, place)
        if (operation["x-required-permission"] !== "anyone") {
          assert.include(operation.description, `\`${operation["x-required-permission"]}\``, place)
        }
        assert.lengthOf(operation.tags, 1, place)
        assert.includeMembers(Object.keys(operation.responses), ["400", "401", "403", "429", "500", "503"], place)
        if (operation.requestBody !== undefined) {
          assert.includeMembers(Object.keys(operation.responses), ["413", "415"], place)
        }
        if (method === "post") assert.includeMembers(Object.keys(operation.responses), ["409", "422"], place)
      }
    }
  })

  it("names no secret in its examples", () => {
    assert.notMatch(JSON.stringify(document), /prism_[A-Za-z0-9]{8,}|"example[s]?":[^}]*(?:token|secret|Bearer )/i)
  })

  it("takes nothing away that was released", () => {
    const found = breaks(released, document)
    assert.deepStrictEqual(
      found.filter((each) => !agreed.some(([begins]) => each.startsWith(begins))),
      []
    )
    // What is agreed is so.
    assert.deepStrictEqual(
      agreed.filter(([begins]) => !found.some((each) => each.startsWith(begins))),
      []
    )
  })
})

describe("what breaks programs that are there", () => {
  it("is nothing where nothing changed, or where only something was added", () => {
    assert.deepStrictEqual(breaks(document, document), [])
    const before = of({ ...body(object({ a: text }, ["a"])), ...answer(object({ id: text }, ["id"])) })
    const after = of({
      parameters: [{ name: "dryRun", in: "query", required: false, schema: { type: "boolean" } }],
      ...body(object({ a: text, b: text }, ["a"])),
      ...answer(object({ id: text, more: text }, ["id", "more"]))
    })
    assert.deepStrictEqual(breaks(before, after), [])
  })

  it.each([
    ["a path", of({}), { ...of({}), paths: {} }, "POST /v1/x: is gone"],
    [
      "a parameter",
      of({ parameters: [{ name: "q", in: "query", required: false, schema: text }] }),
      of({}),
      "POST /v1/x query q: is gone"
    ],
    [
      "a parameter that must be given now",
      of({}),
      of({ parameters: [{ name: "q", in: "query", required: true, schema: text }] }),
      "POST /v1/x query q: must be given now"
    ],
    [
      "a field of an answer",
      of(answer(object({ id: text, zone: text }))),
      of(answer(object({ id: text }))),
      "POST /v1/x 200.zone: is gone"
    ],
    [
      "a field within a named object of a list",
      of(answer({ type: "array", items: { $ref: "#/components/schemas/Host" } }), {
        Host: object({ id: text, a: text })
      }),
      of(answer({ type: "array", items: { $ref: "#/components/schemas/Host" } }), { Host: object({ id: text }) }),
      "POST /v1/x 200[].a: is gone"
    ],
    [
      "a field of an answer that may be absent now",
      of(answer(object({ id: text }, ["id"]))),
      of(answer(object({ id: text }))),
      "POST /v1/x 200.id: may be absent now"
    ],
    [
      "a value of a request",
      of(body(object({ kind: { type: "string", enum: ["a", "b"] } }))),
      of(body(object({ kind: { type: "string", enum: ["a"] } }))),
      "POST /v1/x body.kind: the value b is gone"
    ],
    [
      "a field of a request that must be given now",
      of(body(object({ a: text }))),
      of(body(object({ a: text, b: text }, ["b"]))),
      "POST /v1/x body.b: must be given now"
    ],
    ["a body that must be given now", of({}), of(body(object({ a: text }))), "POST /v1/x body: must be given now"],
    [
      "a type",
      of(answer(object({ n: { type: "integer" } }))),
      of(answer(object({ n: text }))),
      "POST /v1/x 200.n: is no longer of type integer"
    ],
    ["an operation's id", of({}), of({ operationId: "x.z" }), "POST /v1/x: is called x.z now"]
  ])("is %s", (_, before, after, broken) => {
    assert.deepStrictEqual(breaks(before, after), [broken])
  })
})
