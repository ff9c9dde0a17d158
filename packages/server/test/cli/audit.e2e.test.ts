/** The audit as people look at it: the packaged program, by the server, on an export, and on the database itself. */
import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import * as Fs from "node:fs"
import * as Path from "node:path"
import { DatabaseSync } from "node:sqlite"
import { waitUntil } from "../../../core/test/harness/waitUntil.ts"
import * as Agent from "../harness/AgentClient.ts"
import * as Deployment from "../harness/Deployment.ts"
import * as PrismServer from "../harness/PrismServer.ts"

const { adminToken, zone } = Deployment

describe("prism-dns audit", () => {
  it.live(
    "says who did what, and finds out who has been at the log, in each of its three ways",
    () =>
      Effect.gen(function* () {
        const running = yield* Deployment.start()
        const { folder } = running.prism
        const cli = (...args: ReadonlyArray<string>) =>
          PrismServer.run(["audit", ...args], {
            folder,
            environment: { PRISM_SERVER: running.prism.ready().http.url, PRISM_TOKEN: adminToken }
          })
        yield* waitUntil(
          "the host is registered",
          Agent.register(running.tcp(), "web-1", { from: "127.0.1.1" }),
          ({ status }) => status === "success"
        )
        yield* running.untilDig(`web-1.${zone}`, "A", ["127.0.1.1"], "10 seconds")
        const listed = yield* waitUntil(
          "its publication is sealed",
          cli("list", "--subject", `web-1.${zone}.`),
          ({ stdout }) => stdout.includes("publication.applied")
        )
        const lines = listed.stdout.trimEnd().split("\n").toReversed()
        assert.deepStrictEqual(
          lines.map((line) => line.split("\t")[3]),
          ["host.created", "publication.applied"]
        )
        const position = lines[0]!.split("\t")[0]!
        assert.match((yield* cli("show", position)).stdout, /action\thost\.created/)
        assert.strictEqual((yield* cli("show", "999999")).code, 1)
        assert.strictEqual((yield* cli("list", "--action", "host.eaten")).code, 2)

        const config = Fs.readdirSync(folder).find((name) => name.endsWith(".yaml"))!
        const exported = yield* cli("export", "--output", "audit.jsonl")
        assert.strictEqual(exported.code, 0, exported.stderr)
        const ways = [[], ["--file", "audit.jsonl"], ["--config", config]]
        const heads: Array<string> = []
        for (const way of ways) {
          const verified = yield* cli("verify", ...way)
          assert.strictEqual(verified.code, 0, `${way.join(" ")}: ${verified.stdout}${verified.stderr}`)
          heads.push(/\d+:[\w-]{43}/.exec(verified.stdout)![0])
        }
        assert.strictEqual((yield* cli("verify", "--anchor", heads[1]!)).code, 0)

        yield* running.prism.kill("SIGTERM")
        const registry = Fs.readdirSync(folder).find((name) => name.endsWith(".db"))!
        const db = new DatabaseSync(Path.join(folder, registry))
        db.prepare("UPDATE audit_log SET actor = 'nobody' WHERE position = ?").run(Number(position))
        db.close()
        const path = Path.join(folder, "audit.jsonl")
        const text = Fs.readFileSync(path, "utf8")
        Fs.writeFileSync(path, text.replace('"subject":"web-1', '"subject":"web-2'))
        yield* running.prism.restart
        for (const way of ways) {
          const verified = yield* cli("verify", ...way)
          assert.strictEqual(verified.code, 1, way.join(" "))
          assert.match(verified.stdout, new RegExp(`changed: entry ${position} `), way.join(" "))
        }
        const json = yield* cli("verify", "--json", "--config", config)
        assert.strictEqual(json.code, 1)
        assert.deepInclude(JSON.parse(json.stdout), { ok: false })
        assert.strictEqual((yield* cli("verify", "--anchor", "1:x")).code, 2)
      }).pipe(Effect.scoped),
    120_000
  )
})
