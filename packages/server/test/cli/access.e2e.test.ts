/** Tokens and identities, as people and machines use them: the packaged program against a real PowerDNS. */
import { assert, describe, it } from "@effect/vitest"
import type * as MessageV2 from "@prism-dns/core/protocol/MessageV2"
import * as Proof from "@prism-dns/core/protocol/Proof"
import { Effect, Fiber } from "effect"
import type { KeyObject } from "node:crypto"
import * as AgentV2 from "../harness/AgentV2.ts"
import * as Deployment from "../harness/Deployment.ts"
import * as PrismServer from "../harness/PrismServer.ts"

type Running = Effect.Success<ReturnType<typeof Deployment.start>>

const { adminToken, zone } = Deployment

const cli = Effect.fnUntraced(function* ({ prism }: Running, args: ReadonlyArray<string>, token: string = adminToken) {
  return yield* PrismServer.run(args, {
    folder: prism.folder,
    environment: { PRISM_SERVER: prism.ready().http.url, PRISM_TOKEN: token }
  })
})

/** What a command that must succeed printed. */
const printed = Effect.fnUntraced(function* (running: Running, ...args: ReadonlyArray<string>) {
  const ended = yield* cli(running, args)
  assert.strictEqual(ended.code, 0, `${args.join(" ")}\n${ended.stdout}${ended.stderr}`)
  return ended.stdout.trimEnd()
})

const json = (running: Running, ...args: ReadonlyArray<string>) =>
  Effect.map(printed(running, ...args, "--json"), (text): any => JSON.parse(text))

/** A session of a machine that proves its key; the last answer is a welcome or an error. */
const session = Effect.fnUntraced(function* (running: Running, key: KeyObject, from: string, token?: string) {
  const agent = yield* AgentV2.connect(running.tcp(), { from })
  const publicKey = Proof.exportPublicKey(key)
  const auth: MessageV2.Auth =
    token === undefined ? { method: "key", publicKey } : { method: "enrol", publicKey, token }
  const challenge = yield* agent.hello(auth)
  if (challenge.type !== "challenge") return { agent, answer: challenge }
  agent.prove(challenge, key, token === undefined ? "key" : "enrol")
  const [answer] = yield* agent.receive()
  return { agent, answer: answer! }
})

const codeOf = (answer: MessageV2.ServerMessage): string => (answer.type === "error" ? answer.code : answer.type)

const start = Deployment.start({
  auth: {
    mode: "required",
    adminTokens: [{ name: "test", token: adminToken }],
    agentTokens: [{ name: "fleet", token: "fleet-secret" }]
  }
})

describe("access, from the command line", () => {
  it.live(
    "a machine enrols, is rebuilt and gets its name back in both ways, while its name is never absent",
    () =>
      Effect.gen(function* () {
        const running = yield* start
        const name = `web-1.${zone}`
        const created = yield* cli(running, ["tokens", "create", "rack-7", "rack 7 is built", "--enrol"])
        assert.strictEqual(created.code, 0, created.stderr)
        assert.match(created.stdout, /^prism_[A-Za-z0-9_-]{43}\n$/)
        assert.match(created.stderr, /^The token rack-7 enrols one machine until .*\. Its text is shown this once\.\n$/)

        const [first, second, third] = [AgentV2.makeKey(), AgentV2.makeKey(), AgentV2.makeKey()] as const
        const one = yield* session(running, first, "127.0.0.11", created.stdout.trim())
        assert.strictEqual(codeOf(one.answer), "welcome")
        yield* one.agent.register("web-1")
        yield* running.untilDig(name, "A", ["127.0.0.11"], "10 seconds")
        const late = yield* session(running, second, "127.0.0.12", created.stdout.trim())
        assert.strictEqual(codeOf(late.answer), "token-used-up")

        let absent = 0
        const watch = yield* running.dig(name, "A").pipe(
          Effect.tap((addresses) => Effect.sync(() => void (absent += addresses.length === 0 ? 1 : 0))),
          Effect.delay("20 millis"),
          Effect.forever,
          Effect.forkChild
        )

        const { id } = (yield* json(running, "hosts", "show", name)).owner.startsWith("i-")
          ? (yield* json(running, "identities", "list")).items[0]
          : assert.fail("owned by nobody")
        const shown = yield* printed(running, "identities", "show", id)
        assert.include(shown, `holds\t${name}.`)
        assert.include(shown, `key\t${Proof.fingerprint(Proof.exportPublicKey(first))}`)

        // By an operator's word.
        assert.match(
          yield* printed(running, "identities", "reset", name, "its disk died"),
          new RegExp(`^${name}\\. is free of ${id}, which is revoked\\.`)
        )
        assert.strictEqual(codeOf((yield* one.agent.untilFinal).at(-1)!), "identity-revoked")
        const old = yield* session(running, first, "127.0.0.11")
        assert.strictEqual(codeOf(old.answer), "identity-revoked")
        const two = yield* session(running, second, "127.0.0.12", "fleet-secret")
        yield* two.agent.register("web-1")
        yield* running.untilDig(name, "A", ["127.0.0.12"], "10 seconds")

        // By a token that is marked for the name.
        const marked = yield* printed(
          running,
          "tokens",
          "create",
          "web-1-again",
          "its disk died again",
          "--enrol",
          "--for",
          name,
          "--expires",
          "1h"
        )
        const three = yield* session(running, third, "127.0.0.13", marked)
        yield* three.agent.register("web-1")
        yield* running.untilDig(name, "A", ["127.0.0.13"], "10 seconds")
        assert.strictEqual(codeOf((yield* session(running, second, "127.0.0.12")).answer), "identity-revoked")
        const other = yield* three.agent.register("web-2")
        assert.include(other.map(codeOf), "name-not-allowed")

        yield* Fiber.interrupt(watch)
        assert.strictEqual(absent, 0)
        const states = (yield* json(running, "identities", "list")).items.map((each: any) => each.state)
        assert.sameMembers(states, ["revoked", "revoked", "active"])
      }).pipe(Effect.scoped),
    60_000
  )

  it.live(
    "tokens are listed, made for people too, and revoked; what is wrong is one sentence",
    () =>
      Effect.gen(function* () {
        const running = yield* start
        const made = yield* json(running, "tokens", "create", "ann", "she is on call", "--admin", "--expires", "8h")
        assert.deepInclude(made, { name: "ann", role: "admin", allows: "bearer", state: "active" })
        const asAnn = yield* cli(running, ["whoami"], made.token)
        assert.match(asAnn.stdout, /^name\tann\nrole\tadmin\ntoken of\tregistry\nexpires\t.*\nspeaks from\t/)
        assert.deepInclude(yield* json(running, "whoami"), { name: "test", role: "admin", origin: "configuration" })

        const list = (yield* printed(running, "tokens", "list")).split("\n").map((line) => line.split("\t"))
        assert.deepStrictEqual(
          list.map(([token, role, allows, state]) => [token, role, allows, state]),
          [
            ["ann", "admin", "bearer", "active"],
            ["fleet", "agent", "both", "active"],
            ["test", "admin", "both", "active"]
          ]
        )
        const scoped = yield* json(
          running,
          "tokens",
          "create",
          "rack-8",
          "x",
          "--enrol",
          "--bearer",
          "--zone",
          zone,
          "--name-pattern",
          "web-*",
          "--network",
          "127.0.0.0/8",
          "--network",
          "192.0.2.7",
          "--names-max",
          "3",
          "--uses",
          "any"
        )
        assert.deepStrictEqual(scoped.grant, {
          zones: [`${zone}.`],
          names: ["web-*"],
          networks: ["127.0.0.0/8", "192.0.2.7/32"],
          namesMax: 3
        })
        assert.isFalse("usesMax" in scoped)

        assert.match(yield* printed(running, "tokens", "revoke", "ann", "her week is over"), /^ann is revoked;/)
        for (const [args, code, message, token] of [
          [["whoami"], 1, /does not take the token/, made.token],
          [["tokens", "create", "ann", "x"], 1, /A token is called ann already/],
          [["tokens", "create", "i-abcdefghijklmnop", "x"], 1, /which is an identity's/],
          [["tokens", "create", "b", "x", "--uses", "2"], 2, /--uses: only enrolments are counted/],
          [["tokens", "create", "b", "x", "--enrol", "--expires", "soon"], 2, /--expires: must be a duration/],
          [["tokens", "create", "b", "x", "--enrol", "--for", "web.elsewhere.test"], 1, /is not the name of a host/],
          [["tokens", "create", "b", " "], 2, /a reason has 1 to 500 characters/],
          [["tokens", "revoke", "fleet", "x"], 1, /stands in the configuration/],
          [["tokens", "revoke", "nobody", "x"], 1, /There is no token 'nobody'/],
          [["identities", "show", "nobody"], 1, /There is no identity 'nobody'/],
          [["identities", "revoke", "nobody", "x"], 1, /There is no identity 'nobody'/],
          [["identities", "reset", `web-1.${zone}`, "x"], 1, /There is no host/]
        ] as const) {
          const ended = yield* cli(running, args, token)
          assert.strictEqual(ended.code, code, `${args.join(" ")}\n${ended.stderr}`)
          assert.match(ended.stderr, message)
          assert.match(ended.stderr, /^prism-dns: .*\n$/, args.join(" "))
          assert.strictEqual(ended.stdout, "")
        }
        const { stderr, stdout } = running.prism.output()
        assert.notInclude(stdout + stderr, made.token)
      }).pipe(Effect.scoped),
    60_000
  )

  it.live(
    "a first start prints a token; by it roles are made, given and edited, and somebody sees what it may",
    () =>
      Effect.gen(function* () {
        const running = yield* Deployment.start({ auth: { mode: "off", adminTokens: [] } })
        const { stderr, stdout } = running.prism.output()
        const first = /^ {4}(prism_[A-Za-z0-9_-]{43})$/m.exec(stderr)?.[1] ?? ""
        assert.notStrictEqual(first, "")
        assert.strictEqual((stderr + stdout).split(first).length, 2)
        const as = (token: string, ...args: ReadonlyArray<string>) =>
          Effect.map(cli(running, args, token), (ended) => {
            assert.strictEqual(ended.code, 0, `${args.join(" ")}\n${ended.stdout}${ended.stderr}`)
            return ended.stdout.trimEnd()
          })
        const mayRead = `read:zones@${zone}`
        assert.strictEqual(
          yield* as(
            first,
            "roles",
            "create",
            "lab-dns",
            "the lab",
            "--allow",
            mayRead,
            "--allow",
            "*:records",
            "--dry-run"
          ),
          "lab-dns would be made."
        )
        yield* as(first, "roles", "create", "lab-dns", "the lab", "--allow", mayRead, "--allow", "*:records")
        const lab = yield* as(first, "tokens", "create", "lab", "the lab", "--role", "lab-dns", "--zone", zone)
        assert.match(
          yield* as(lab, "whoami"),
          /\nroles\tlab-dns\nonly in\t.*\nmay\tread zones in .*\nmay\tdo everything with records$/
        )
        assert.include(yield* as(lab, "zones", "list"), zone)
        assert.match((yield* cli(running, ["hosts", "list"], lab)).stderr, /^prism-dns: lab may not read hosts/)
        yield* as(
          first,
          "roles",
          "edit",
          "lab-dns",
          "hosts too",
          "--allow",
          `read:hosts@${zone}=web-*`,
          "--deny",
          mayRead
        )
        assert.strictEqual(yield* as(lab, "hosts", "list"), "")
        const explain = ["access", "explain", "--verb", "read", "--resource", "zones", "--zone", zone]
        assert.match(
          yield* as(first, ...explain, "--token-name", "lab"),
          /^role:lab-dns\tfailed\t\thas no permission to read zones$/m
        )
        yield* as(first, "tokens", "edit", "lab", "more", "--role", "viewer", "--expires", "1d")
        assert.match(yield* as(first, ...explain, "--token-name", "lab"), /^role:viewer\tpassed\t/m)
        assert.strictEqual(yield* as(first, "roles", "delete", "lab-dns", "it is closed"), "lab-dns is deleted.")
        const wrong = yield* cli(running, ["roles", "create", "x", "y", "--allow", "fly:hosts"], first)
        assert.deepStrictEqual([wrong.code, wrong.stdout], [2, ""])
      }).pipe(Effect.scoped),
    60_000
  )
})
