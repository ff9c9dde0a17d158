/** What operators do from day to day, by the packaged command line, alike on SQLite and on PostgreSQL. */
import { assert, describe, it } from "@effect/vitest"
import { Effect, Layer } from "effect"
import * as ChildProcess from "node:child_process"
import * as Fs from "node:fs"
import * as Path from "node:path"
import { Postgres } from "../../../core/test/harness/Postgres.ts"
import { waitUntil } from "../../../core/test/harness/waitUntil.ts"
import * as Deployment from "../harness/Deployment.ts"
import * as PrismServer from "../harness/PrismServer.ts"

type Running = Effect.Success<ReturnType<typeof Deployment.start>>

const { adminToken, zone } = Deployment

const lab = "lab.prism.test."

const databases: ReadonlyArray<
  readonly [name: string, settings: Effect.Effect<{ readonly storage?: { readonly url: string } }, never, Postgres>]
> = [
  ["SQLite", Effect.succeed({})],
  [
    "PostgreSQL",
    Effect.gen(function* () {
      return { storage: { url: (yield* (yield* Postgres).createDatabase()).url } }
    })
  ]
]

for (const [database, settings] of databases) {
  describe(`the command line, with the registry in ${database}`, () => {
    const cli = Effect.fnUntraced(function* ({ prism }: Running, args: ReadonlyArray<string>, token = adminToken) {
      return yield* PrismServer.run(args, {
        folder: prism.folder,
        environment: { PRISM_SERVER: prism.ready().http.url, PRISM_TOKEN: token }
      })
    })

    const printed = Effect.fnUntraced(function* (running: Running, ...args: ReadonlyArray<string>) {
      const ended = yield* cli(running, args)
      assert.strictEqual(ended.code, 0, `${args.join(" ")}\n${ended.stdout}${ended.stderr}`)
      return ended.stdout.trimEnd()
    })

    const json = (running: Running, ...args: ReadonlyArray<string>) =>
      Effect.map(printed(running, ...args, "--json"), (text): any => JSON.parse(text))

    const test = (
      title: string,
      body: (running: Running) => Effect.Effect<void, unknown, import("effect").Scope.Scope>
    ) =>
      it.live(
        title,
        () =>
          Effect.flatMap(Effect.flatMap(settings, Deployment.start), body).pipe(
            Effect.scoped,
            Effect.provide(database === "SQLite" ? (Layer.empty as unknown as Layer.Layer<Postgres>) : Postgres.layer())
          ),
        120_000
      )

    test("sets up zones, roles and tokens, which see and may what they are given", (running) =>
      Effect.gen(function* () {
        yield* printed(running, "zones", "create", lab, "--set", "policy.ttlSeconds=30", "--reason", "a lab")
        yield* printed(running, "zones", "edit", lab, "--set", "policy.ttlSeconds=90")
        assert.strictEqual((yield* json(running, "zones", "show", lab)).policy.ttlSeconds, 90)
        assert.strictEqual((yield* printed(running, "zones", "history", lab)).split("\n").length, 2)

        const allow = [`read:zones@${lab}`, `*:records@${lab}`, `read:hosts@${lab}=web-*`]
        yield* printed(
          running,
          "roles",
          "create",
          "lab-dns",
          "of the lab",
          ...allow.flatMap((each) => ["--allow", each])
        )
        assert.include(yield* printed(running, "roles", "list"), "lab-dns\t")
        const { token } = yield* json(running, "tokens", "create", "lab-team", "of the lab", "--role", "lab-dns")
        const asLab = (...args: ReadonlyArray<string>) => cli(running, args, token)
        assert.strictEqual((yield* asLab("records", "set", lab, "www", "A", "127.0.0.9")).code, 0)
        assert.strictEqual((yield* asLab("records", "set", zone, "www", "A", "127.0.0.9")).code, 1)
        assert.notInclude((yield* asLab("zones", "list")).stdout, zone)

        // What it may itself it may ask; about others it may not.
        const own = yield* asLab("access", "explain", "--verb", "write", "--resource", "records", "--zone", lab)
        assert.strictEqual(own.code, 0, own.stderr)
        assert.include(own.stdout, "lab-dns")
        const other = yield* asLab(
          "access",
          "explain",
          "--principal",
          "test",
          "--verb",
          "write",
          "--resource",
          "records"
        )
        assert.strictEqual(other.code, 1)

        yield* printed(running, "tokens", "edit", "lab-team", "it looks only", "--role", "viewer")
        assert.strictEqual((yield* asLab("records", "set", lab, "www", "A", "127.0.0.8")).code, 1)
        assert.include((yield* asLab("whoami")).stdout, "viewer")
        yield* printed(running, "tokens", "revoke", "lab-team", "done")
        assert.strictEqual((yield* asLab("whoami")).code, 1)
        yield* printed(running, "roles", "delete", "lab-dns", "done")
        assert.notInclude(yield* printed(running, "roles", "list"), "lab-dns")

        assert.strictEqual((yield* cli(running, ["zones", "delete", lab, "--reason", "closed"])).code, 1)
        yield* printed(running, "records", "delete", lab, "www", "A", "--wait", "applied")
        yield* waitUntil(
          "the zone is empty and goes",
          cli(running, ["zones", "delete", lab, "--reason", "closed"]),
          ({ code }) => code === 0
        )
        assert.strictEqual((yield* cli(running, ["zones", "show", lab])).code, 1)
      }))

    test("keeps records, finds what was, and gives a zone out that loads elsewhere", (running) =>
      Effect.gen(function* () {
        yield* printed(running, "hosts", "register", "web-1", "127.0.0.11", "--wait-for", "applied")
        yield* printed(
          running,
          "records",
          "set",
          zone,
          "www",
          "CNAME",
          `web-1.${zone}.`,
          "--ttl",
          "300",
          "--wait",
          "applied"
        )
        const [then] = (yield* json(running, "hosts", "history", `web-1.${zone}`)).items
        yield* printed(running, "records", "set", zone, "@", "MX", `10 web-1.${zone}.`, "--wait", "applied")
        const between = (yield* json(running, "audit", "list", "--action", "record.created")).items
          .map((each: any) => each.at as string)
          .sort()
          .at(-1)!
        yield* printed(running, "records", "delete", zone, "www", "CNAME", "--wait", "applied")
        assert.notInclude(yield* printed(running, "records", "list", zone), `www.${zone}.`)
        assert.include(yield* printed(running, "records", "list", zone, "--at", between), `www.${zone}.\t300\tCNAME`)
        const wrong = yield* cli(running, ["records", "list", zone, "--at", between, "--ownership", "foreign"])
        assert.strictEqual(wrong.code, 2)
        assert.include(yield* printed(running, "diff", "--from", between, "--zone", zone), `www.${zone}.`)
        assert.include(
          yield* printed(running, "hosts", "show", `web-1.${zone}`, "--at", then.validFrom ?? between),
          "127.0.0.11"
        )

        yield* printed(running, "zones", "restore", zone, "a mistake", "--at", between)
        const [plan] = (yield* printed(running, "plan", "list", zone, "--open")).split("\t")
        assert.strictEqual(yield* printed(running, "plan", "apply", plan!, "--yes"), "1 applied, 0 refused")
        yield* running.untilDig(`www.${zone}`, "CNAME", [`web-1.${zone}`], "10 seconds")

        // What a server that loads it asks of any zone: its name servers have addresses.
        yield* printed(running, "records", "set", zone, "ns1", "A", "127.0.0.1")
        const file = Path.join(running.prism.folder, "exported.zone")
        Fs.writeFileSync(file, `${yield* printed(running, "export", zone)}\n`)
        const checked = ChildProcess.spawnSync("named-checkzone", ["-i", "local", zone, file], { encoding: "utf8" })
        assert.strictEqual(checked.status, 0, `${checked.stdout}${checked.stderr}${Fs.readFileSync(file, "utf8")}`)
        assert.match(checked.stdout, /loaded serial \d+\nOK/)
      }))

    test("tells what happened: audit, events and webhooks", (running) =>
      Effect.gen(function* () {
        yield* printed(running, "hosts", "register", "web-1", "127.0.0.11", "--wait-for", "applied")
        yield* printed(
          running,
          "webhooks",
          "create",
          "cmdb",
          "https://cmdb.example.net/hook",
          "it follows",
          "--kind",
          "host.*"
        )
        assert.include(yield* printed(running, "webhooks", "list"), "cmdb\t")
        yield* printed(running, "hosts", "retire", `web-1.${zone}`, "sold")
        const listed = yield* waitUntil(
          "the audit has it",
          printed(running, "audit", "list", "--subject", `web-1.${zone}.`),
          (text) => text.includes("host.retired")
        )
        assert.include(listed, "host.created")
        assert.include(yield* printed(running, "events", "--kind", "host.*"), "host.retired")
        assert.match(yield* printed(running, "audit", "verify"), /^\d+ entries/)
        assert.match(yield* printed(running, "hosts", "explain", `web-1.${zone}`), /retired/)
        assert.include(yield* printed(running, "status"), `zone\t${zone}.\t`)
      }))
  })
}
