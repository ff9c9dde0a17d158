/** Who may claim what, against the packaged server: each refusal has its code, its audit entry and its count, and changes nothing. */
import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import * as Path from "node:path"
import { DatabaseSync } from "node:sqlite"
import { audit } from "../../core/test/harness/audit.ts"
import { waitUntil } from "../../core/test/harness/waitUntil.ts"
import * as Agent from "./harness/AgentClient.ts"
import * as Deployment from "./harness/Deployment.ts"
import * as PrismServer from "./harness/PrismServer.ts"

const { adminToken, zone } = Deployment

const settings = {
  zones: [{ name: zone, networks: ["127.0.0.0/16"] }],
  auth: {
    mode: "required",
    agentTokens: [
      { name: "rack-7", token: "token-of-rack-7" },
      { name: "dbs", token: "token-of-dbs", names: ["db-#"] }
    ],
    adminTokens: [{ name: "test", token: adminToken }]
  }
}

interface Entry {
  readonly actor: string
  readonly peer: string
  readonly subject: string
  readonly reason: string
}

/** The audit of refusals, as the registry's file holds it. */
const refusals = (deployment: Effect.Success<ReturnType<typeof Deployment.start>>) =>
  Effect.sync(() => {
    using db = new DatabaseSync(Path.join(deployment.prism.folder, "prism.db"), { readOnly: true })
    return db
      .prepare(`SELECT actor, peer, subject, reason FROM ${audit} WHERE action = 'access.refused' ORDER BY sequence`)
      .all()
      .map((row) => ({ ...row }) as unknown as Entry)
  })

/** What is claimed, from where, by which token; the code it is refused with; and who it is in the audit, about what. */
const claims = [
  ["taken", "127.0.0.2", "token-of-dbs", "name-not-allowed", "dbs", `taken.${zone}.`],
  ["taken", "127.0.0.2", "no-token-of-ours", "token-invalid", "unknown", "taken"],
  ["taken", "127.0.0.2", undefined, "token-missing", "unknown", "taken"],
  ["wpad", "127.0.0.2", "token-of-rack-7", "name-reserved", "rack-7", `wpad.${zone}.`],
  ["stolen", "127.9.0.2", "token-of-rack-7", "address-not-allowed", "rack-7", `stolen.${zone}.`],
  ["db-1", "127.0.0.2", "token-of-dbs", "hostname-taken", "dbs", `db-1.${zone}.`]
] as const

describe("access", () => {
  it.live(
    "squatting, foreign addresses, reserved names, and wrong tokens are refused by their code, audited and counted, and change nothing",
    () =>
      Effect.gen(function* () {
        const deployment = yield* Deployment.start(settings)
        const { tcp } = deployment
        const mine = (hostname: string, from: string) =>
          Agent.register(tcp(), hostname, { from, fields: { auth_token: "token-of-rack-7" } })
        for (const [hostname, from] of [
          ["taken", "127.0.0.1"],
          ["db-1", "127.0.0.1"]
        ] as const) {
          assert.strictEqual((yield* mine(hostname, from)).status, "success")
          yield* deployment.untilDig(`${hostname}.${zone}`, "A", [from], "10 seconds")
        }
        for (const [hostname, from, token, code] of claims) {
          const fields = token === undefined ? {} : { auth_token: token }
          const answer = yield* Agent.register(tcp(), hostname, { from, fields })
          assert.deepStrictEqual([answer.status, answer.code], ["error", code], hostname)
        }

        const entries = yield* waitUntil(
          "all are in the audit",
          refusals(deployment),
          (all) => all.length === claims.length
        )
        assert.sameDeepMembers(
          entries.map(({ actor, peer, reason, subject }) => [
            actor,
            peer,
            subject,
            reason.slice(0, reason.indexOf(":"))
          ]),
          claims.map(([, from, , code, actor, subject]) => [actor, from, subject, code])
        )
        assert.notInclude(JSON.stringify(entries), "no-token-of-ours")
        for (const [, , , code] of claims) {
          assert.strictEqual(yield* deployment.metric(`prism_auth_failures_total{reason="${code}"}`), 1)
        }

        const hosts = (yield* deployment.get("/v1/hosts")) as {
          readonly items: ReadonlyArray<{ readonly fqdn: string; readonly addresses: ReadonlyArray<string> }>
        }
        assert.deepStrictEqual(
          hosts.items.map(({ addresses, fqdn }) => [fqdn, ...addresses]),
          [
            [`db-1.${zone}.`, "127.0.0.1"],
            [`taken.${zone}.`, "127.0.0.1"]
          ]
        )
        for (const name of ["wpad", "stolen"]) assert.isEmpty(yield* deployment.dig(`${name}.${zone}`, "A"))
      }).pipe(Effect.scoped),
    60_000
  )

  it.live("a refusal of the last moment is in the audit when the server has ended", () =>
    Effect.gen(function* () {
      const deployment = yield* Deployment.start(settings)
      yield* Agent.register(deployment.tcp(), "late", { from: "127.0.0.2" })
      assert.deepStrictEqual(yield* deployment.prism.kill("SIGTERM"), { code: 0, signal: null })
      assert.strictEqual((yield* refusals(deployment)).length, 1)
    }).pipe(Effect.scoped)
  )

  it.live("prism-dns access explain says which rule decides, for people, pipes and programs", () =>
    Effect.gen(function* () {
      const { prism } = yield* Deployment.start(settings)
      const explain = (...args: ReadonlyArray<string>) =>
        PrismServer.run(["access", "explain", ...args], {
          folder: prism.folder,
          environment: { PRISM_SERVER: prism.ready().http.url, PRISM_TOKEN: adminToken }
        })
      const piped = yield* explain("--token-name", "dbs", "web-1", "127.0.0.9")
      assert.strictEqual(piped.code, 0, piped.stderr)
      const lines = piped.stdout.trimEnd().split("\n")
      assert.include(
        lines,
        "grant-names\tfailed\tname-not-allowed\tdbs may not have the name 'web-1', only such as db-#; register one of those, or have its grant widened"
      )
      assert.strictEqual(lines.filter((line) => line.includes("\tfailed\t")).length, 1)

      const told = yield* explain("--principal", "rack-7", "web-1", "127.0.0.9", "--json")
      assert.deepInclude(JSON.parse(told.stdout), { allowed: true, host: `web-1.${zone}.`, peer: "127.0.0.9" })
      const stolen = yield* explain("--principal", "rack-7", "--peer", "127.0.0.1", "web-1", "127.0.0.9", "--json")
      assert.deepInclude(JSON.parse(stolen.stdout), { allowed: false, decidedBy: "own-addresses" })

      for (const [args, code, words] of [
        [["web-1", "127.0.0.9"], 2, /say who claims: --principal/],
        [["--principal", "rack-7", "web-1"], 2, /ADDRESS|address/],
        [["--principal", "rack-7", "web-1", "::ffff:127.0.0.9"], 2, /claim it as 127\.0\.0\.9/],
        [["--principal", "nobody", "web-1", "127.0.0.9"], 1, /neither an identity nor a token 'nobody'/]
      ] as const) {
        const ended = yield* explain(...args)
        assert.deepStrictEqual([ended.code, words.test(ended.stdout + ended.stderr)], [code, true], ended.stderr)
      }
    }).pipe(Effect.scoped)
  )
})
