import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { SqlClient } from "effect/sql"
import { ask, otherZone, register, server, zone } from "./harness.ts"

const send = (
  method: string,
  path: string,
  body: unknown,
  more: { readonly token?: string; readonly match?: string } = {}
) =>
  ask(path, {
    method,
    ...(body !== undefined && { body: JSON.stringify(body) }),
    headers: {
      ...(body !== undefined && { "content-type": "application/json" }),
      ...(more.match !== undefined && { "if-match": more.match })
    },
    ...(more.token !== undefined && { token: more.token })
  })

const reason = "the test wants it"

/** The text of a new token. */
const tokenWith = Effect.fnUntraced(function* (
  name: string,
  roles: ReadonlyArray<string>,
  grant: { readonly zones?: ReadonlyArray<string>; readonly names?: ReadonlyArray<string> } = {}
) {
  const made = yield* send("POST", "/v1/tokens", { name, roles, allows: "bearer", grant, reason })
  assert.strictEqual(made.status, 201, made.text)
  return made.json.token as string
})

const dns = {
  name: "lab-dns",
  description: "Looks after records.",
  permissions: [{ verb: "read", resource: "hosts", zones: [zone] }],
  reason
}

describe("/v1/roles", () => {
  it.live("a role is made, seen, changed for live tokens at once, and deleted once nobody has it", () =>
    Effect.gen(function* () {
      yield* register("web-1", "192.0.2.1")
      const tried = yield* send("POST", "/v1/roles?dryRun=true", dns)
      assert.deepInclude(tried.json, { name: "lab-dns", dryRun: true })
      assert.strictEqual((yield* ask("/v1/roles/lab-dns")).status, 404)
      const made = yield* send("POST", "/v1/roles", dns)
      assert.deepStrictEqual([made.status, made.headers.get("location")], [201, "/v1/roles/lab-dns"])
      const again = yield* send("POST", "/v1/roles", dns)
      assert.deepStrictEqual([again.status, again.json.type], [409, "urn:prism-dns:problem:role-name-taken"])
      const list = yield* ask("/v1/roles")
      assert.includeMembers(
        list.json.items.map(({ name }: { name: string }) => name),
        ["admin", "agent", "auditor", "lab-dns", "operator", "viewer"]
      )

      const token = yield* tokenWith("ann", ["lab-dns"])
      assert.strictEqual((yield* ask("/v1/hosts", { token })).status, 200)
      assert.strictEqual((yield* ask("/v1/zones", { token })).status, 403)
      const match = made.headers.get("etag")!
      const permissions = [{ verb: "read", resource: "zones" }]
      const missing = yield* send("PATCH", "/v1/roles/lab-dns", { permissions, reason })
      assert.strictEqual(missing.status, 428)
      const changed = yield* send("PATCH", "/v1/roles/lab-dns", { permissions, reason }, { match })
      assert.strictEqual(changed.status, 200, changed.text)
      assert.strictEqual((yield* ask("/v1/hosts", { token })).status, 403)
      assert.strictEqual((yield* ask("/v1/zones", { token })).status, 200)
      const late = yield* send("PATCH", "/v1/roles/lab-dns", { description: "Another.", reason }, { match })
      assert.strictEqual(late.status, 412)
      assert.deepInclude(late.json, { changedBy: "ops", etag: changed.headers.get("etag") })
      assert.deepStrictEqual(
        late.json.changes.map(({ pointer }: { pointer: string }) => pointer),
        ["/permissions"]
      )

      const now = changed.headers.get("etag")!
      const used = yield* send("DELETE", "/v1/roles/lab-dns?reason=x", undefined, { match: now })
      assert.strictEqual(used.status, 409)
      assert.include(used.json.detail, "the token ann")
      yield* send("POST", "/v1/tokens/ann/revoke", { reason })
      assert.strictEqual((yield* send("DELETE", "/v1/roles/lab-dns?reason=x", undefined, { match: now })).status, 200)
      assert.strictEqual((yield* ask("/v1/roles/lab-dns")).status, 404)
      const entries = yield* (yield* SqlClient.SqlClient)`
        SELECT action FROM audit_entry WHERE subject = 'lab-dns'
        UNION ALL SELECT action FROM audit_log WHERE subject = 'lab-dns'`
      assert.sameMembers(
        entries.map(({ action }) => action),
        ["role.created", "role.changed", "role.deleted"]
      )
    }).pipe(Effect.provide(server()))
  )

  it.live("built-in ones stay as they are, and what is no role is said", () =>
    Effect.gen(function* () {
      const { headers } = yield* ask("/v1/roles/viewer")
      const match = headers.get("etag")!
      for (const [method, path, body] of [
        ["PATCH", "/v1/roles/viewer", { description: "x", reason }],
        ["DELETE", "/v1/roles/viewer?reason=x", undefined]
      ] as const) {
        const answer = yield* send(method, path, body, { match })
        assert.deepStrictEqual([answer.status, answer.json.type], [409, "urn:prism-dns:problem:role-built-in"])
      }
      for (const wrong of [
        { name: "Lab" },
        { name: "a/b" },
        { permissions: [{ verb: "fly", resource: "hosts" }] },
        { permissions: [{ verb: "read", resource: "hosts", names: ["_*_!"] }] },
        { permissions: [{ verb: "read", resource: "hosts", zones: [] }] }
      ]) {
        assert.strictEqual((yield* send("POST", "/v1/roles", { ...dns, ...wrong })).status, 400)
      }
      const unknown = yield* send("POST", "/v1/tokens", { name: "bo", roles: ["nobody"], allows: "bearer", reason })
      assert.deepStrictEqual([unknown.status, unknown.json.errors[0].pointer], [400, "/roles/0"])
    }).pipe(Effect.provide(server()))
  )

  it.live("nobody gives more than it has, by a token or a role, and nobody raises itself", () =>
    Effect.gen(function* () {
      yield* send("POST", "/v1/roles", {
        ...dns,
        name: "giver",
        permissions: [
          { verb: "*", resource: "tokens" },
          { verb: "*", resource: "roles", zones: [zone] },
          { verb: "read", resource: "hosts" }
        ]
      })
      const giver = yield* tokenWith("giver", ["giver"])
      const lab = yield* tokenWith("lab-admin", ["admin"], { zones: [zone] })
      const issue = (token: string, roles: ReadonlyArray<string>, grant: object = {}) =>
        Effect.map(
          send("POST", "/v1/tokens", { name: `t-${Math.random()}`, roles, allows: "bearer", grant, reason }, { token }),
          ({ status }) => status
        )
      assert.strictEqual(yield* issue(giver, ["viewer"]), 403)
      assert.strictEqual(yield* issue(giver, ["admin"]), 403)
      assert.strictEqual(yield* issue(giver, ["giver"]), 201)
      assert.strictEqual(yield* issue(lab, ["admin"]), 403)
      assert.strictEqual(yield* issue(lab, ["admin"], { zones: [otherZone] }), 403)
      assert.strictEqual(yield* issue(lab, ["admin"], { zones: [zone, otherZone] }), 403)
      assert.strictEqual(yield* issue(lab, ["operator", "auditor"], { zones: [zone], names: ["web-*"] }), 201)

      const role = (token: string, permissions: ReadonlyArray<object>) =>
        Effect.map(
          send("POST", "/v1/roles", { ...dns, name: `r-${crypto.randomUUID()}`, permissions }, { token }),
          ({ status }) => status
        )
      assert.strictEqual(yield* role(giver, [{ verb: "read", resource: "hosts" }]), 201)
      assert.strictEqual(yield* role(giver, [{ verb: "write", resource: "hosts", zones: [zone] }]), 403)
      assert.strictEqual(yield* role(lab, [{ verb: "*", resource: "*", zones: [zone] }]), 201)
      assert.strictEqual(yield* role(lab, [{ verb: "read", resource: "hosts" }]), 403)
      assert.strictEqual(yield* role(lab, [{ verb: "write", resource: "lua", zones: [zone] }]), 403)

      // Its own token, and the role that it has.
      const itself = yield* ask("/v1/tokens/giver")
      const raised = yield* send(
        "PATCH",
        "/v1/tokens/giver",
        { roles: ["admin"], reason },
        { token: giver, match: itself.headers.get("etag")! }
      )
      assert.strictEqual(raised.status, 403, raised.text)
      const own = yield* ask("/v1/roles/giver")
      const wider = { permissions: [{ verb: "*", resource: "*" }], reason }
      const widened = yield* send("PATCH", "/v1/roles/giver", wider, { token: giver, match: own.headers.get("etag")! })
      assert.strictEqual(widened.status, 403, widened.text)
      assert.strictEqual((yield* ask("/v1/whoami", { token: giver })).json.permissions.length, 3)
    }).pipe(Effect.provide(server()))
  )
})

describe("PATCH /v1/tokens/{token}", () => {
  it.live("changes roles, grant and end at once, by what was seen, and the text stays", () =>
    Effect.gen(function* () {
      yield* register("web-1", "192.0.2.1")
      yield* register("hidden-1", "198.51.100.1", otherZone)
      const token = yield* tokenWith("ann", ["viewer"])
      const names = Effect.map(ask("/v1/hosts", { token }), ({ json }) =>
        json.items?.map(({ fqdn }: { fqdn: string }) => fqdn.split(".")[0])
      )
      assert.sameMembers(yield* names, ["web-1", "hidden-1"])
      const match = (yield* ask("/v1/tokens/ann")).headers.get("etag")!
      assert.strictEqual((yield* send("PATCH", "/v1/tokens/ann", { roles: ["operator"], reason })).status, 428)
      const bound = { grant: { zones: [zone], names: ["web-*"] }, reason }
      const tried = yield* send("PATCH", "/v1/tokens/ann?dryRun=true", bound, { match })
      assert.deepInclude(tried.json, { dryRun: true, grant: { zones: [zone], names: ["web-*"], networks: [] } })
      assert.sameMembers(yield* names, ["web-1", "hidden-1"])
      const changed = yield* send("PATCH", "/v1/tokens/ann", bound, { match })
      assert.strictEqual(changed.status, 200, changed.text)
      assert.deepStrictEqual(yield* names, ["web-1"])
      const late = yield* send("PATCH", "/v1/tokens/ann", { expiresAt: null, reason }, { match })
      assert.strictEqual(late.status, 412)
      assert.include(late.json.changes.map(({ pointer }: { pointer: string }) => pointer).join(" "), "/grant")
      const now = changed.headers.get("etag")!
      for (const [body, pointer] of [
        [{ roles: ["agent"] }, "/roles"],
        [{ expiresAt: "2001-01-01T00:00:00Z" }, "/expiresAt"],
        [{ grant: { zones: ["elsewhere.test"] } }, "/grant/zones"]
      ] as const) {
        const wrong = yield* send("PATCH", "/v1/tokens/ann", { ...body, reason }, { match: now })
        assert.deepStrictEqual([wrong.status, wrong.json.errors[0].pointer], [400, pointer])
      }
      const configured = yield* send("PATCH", "/v1/tokens/rack-7", { expiresAt: null, reason }, { match: "*" })
      assert.strictEqual(configured.status, 409)
    }).pipe(Effect.provide(server()))
  )
})

describe("a token that is bound to names", () => {
  it.live("sees and changes those alone, and nothing of a zone as a whole", () =>
    Effect.gen(function* () {
      for (const [i, name] of ["web-1", "hidden-1", "hidden-2", "web-2"].entries()) {
        yield* register(name, `192.0.2.${i + 1}`)
      }
      const token = yield* tokenWith("web-team", ["operator"], { zones: [zone], names: ["web-*"] })
      for (const path of [
        "/v1/hosts",
        "/v1/hosts?limit=1",
        `/v1/zones/${zone}/records`,
        "/v1/publications",
        "/v1/zones",
        "/v1/status",
        "/v1/plans",
        "/v1/guards"
      ]) {
        const answer = yield* ask(path, { token })
        assert.strictEqual(answer.status, 200, `${path} ${answer.text}`)
        assert.notInclude(answer.text, "hidden", path)
        const { nextCursor = "" } = answer.json
        assert.notInclude(Buffer.from(nextCursor, "base64url").toString(), "hidden", path)
      }
      assert.deepStrictEqual((yield* ask("/v1/zones", { token })).json.items, [])
      assert.strictEqual((yield* ask(`/v1/zones/${zone}`, { token })).status, 404)
      assert.strictEqual((yield* ask(`/v1/hosts/hidden-1.${zone}`, { token })).status, 404)
      assert.strictEqual((yield* send("POST", `/v1/hosts/hidden-1.${zone}/release`, { reason }, { token })).status, 404)
      assert.strictEqual((yield* send("POST", `/v1/hosts/web-1.${zone}/release`, { reason }, { token })).status, 200)
    }).pipe(Effect.provide(server()))
  )
})

describe("access:explain with a verb", () => {
  it.live("says by which role somebody may do something, or why not", () =>
    Effect.gen(function* () {
      yield* tokenWith("lab", ["viewer", "operator"], { zones: [zone] })
      const explain = (query: string) => Effect.map(ask(`/v1/access:explain?${query}`), ({ json }) => json)
      const may = yield* explain(`principal=lab&verb=write&resource=records&zone=${zone}`)
      assert.deepInclude(may, {
        allowed: true,
        by: { role: "operator", permission: { verb: "*", resource: "records" } }
      })
      const bounds = yield* explain(`principal=lab&verb=read&resource=hosts&name=x.${otherZone}`)
      assert.deepInclude(bounds, { allowed: false, zone: otherZone })
      assert.include(bounds.detail, "bound to the zones")
      const none = yield* explain(`principal=lab&verb=write&resource=zones&zone=${zone}`)
      assert.include(none.detail, "no role of its allows it")
      const role = yield* explain("principal=role:auditor&verb=read&resource=audit")
      assert.deepInclude(role, { allowed: true, principal: { name: "auditor", kind: "role", roles: ["auditor"] } })
      assert.deepInclude(yield* explain("verb=delete&resource=lua"), { allowed: false })
      for (const wrong of ["verb=read", "resource=hosts", "verb=read&resource=hosts&hostname=x", "principal=lab"]) {
        assert.strictEqual((yield* explain(wrong)).status, 400, wrong)
      }
      assert.strictEqual((yield* explain("principal=role:nobody&verb=read&resource=hosts")).status, 404)
    }).pipe(Effect.provide(server()))
  )
})

describe("/v1/access:explain", () => {
  it.live("tells everyone what it may itself, and of others only who may read access", () =>
    Effect.gen(function* () {
      const token = yield* tokenWith("looker", ["viewer"])
      const asked = (query: string) => ask(`/v1/access:explain?${query}`, { token })
      const own = yield* asked("verb=write&resource=records")
      assert.strictEqual(own.status, 200, own.text)
      assert.deepInclude(own.json, { allowed: false, principal: { name: "looker", kind: "token", roles: ["viewer"] } })
      assert.strictEqual((yield* asked("principal=looker&verb=read&resource=hosts")).json.allowed, true)
      const body = { verb: "read", resource: "hosts" }
      assert.strictEqual((yield* send("POST", "/v1/access:explain", body, { token })).json.allowed, true)
      for (const other of [
        "principal=ops&verb=read&resource=hosts",
        "principal=role:admin&verb=read&resource=hosts",
        "principal=nobody&verb=read&resource=hosts",
        `principal=looker&hostname=web-1.${zone}&addresses=192.0.2.1`
      ]) {
        assert.strictEqual((yield* asked(other)).status, 403, other)
      }
    }).pipe(Effect.provide(server()))
  )

  it.live("tells who is bound to a zone of nobody elsewhere, not even that there is somebody", () =>
    Effect.gen(function* () {
      for (const [name, grantZone] of [
        ["theirs", otherZone],
        ["ours", zone]
      ] as const) {
        const made = yield* send("POST", "/v1/tokens", {
          name,
          allows: "bearer",
          grant: { zones: [grantZone] },
          reason
        })
        assert.strictEqual(made.status, 201, made.text)
      }
      const token = yield* tokenWith("lab-audit", ["auditor"], { zones: [zone] })
      const asked = (principal: string, hostname: string) =>
        Effect.map(
          ask(`/v1/access:explain?principal=${principal}&hostname=${hostname}&addresses=192.0.2.1`, { token }),
          ({ json, status }) => [status, String(json.detail).replaceAll(principal, "X")]
        )
      assert.strictEqual((yield* asked("ours", `web-1.${zone}`))[0], 200)
      for (const hostname of [`web-1.${zone}`, "web-1", `web-1.${otherZone}`]) {
        const absent = yield* asked("no-such", hostname)
        assert.notStrictEqual(absent[0], 200)
        for (const other of ["theirs", "ops"]) assert.deepStrictEqual(yield* asked(other, hostname), absent, hostname)
      }
    }).pipe(Effect.provide(server()))
  )
})
