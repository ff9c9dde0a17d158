/** SIGHUP, against the whole server. */
import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import * as Fs from "node:fs"
import * as Path from "node:path"
import { freePorts } from "../../core/test/harness/ports.ts"
import { waitUntil } from "../../core/test/harness/waitUntil.ts"
import * as PrismServer from "./harness/PrismServer.ts"

describe("SIGHUP", () => {
  it.live("reads the log level anew; a configuration that is wrong by then is said, and changes nothing", () =>
    Effect.gen(function* () {
      const [http, powerdns] = yield* freePorts(2)
      const server = yield* PrismServer.serve(
        {
          http: { port: http },
          powerdns: { nodes: [{ api: `http://127.0.0.1:${powerdns}`, apiKey: "x", dns: "127.0.0.1:53" }] },
          zones: [{ name: "hosts.prism.test" }],
          auth: { mode: "off" }
        },
        { awaitReady: false }
      )
      const said = (text: string) =>
        waitUntil(
          `the log says ${text}`,
          Effect.sync(() => server.output().stderr),
          (log) => log.includes(text),
          {
            within: "20 seconds"
          }
        )
      yield* said('"msg":"running"')
      const file = Path.join(server.folder, "prism.yaml")
      const settings = JSON.parse(Fs.readFileSync(file, "utf8"))
      const reload = (logLevel: string) => {
        Fs.writeFileSync(file, JSON.stringify({ ...settings, server: { ...settings.server, logLevel } }))
        process.kill(server.pid(), "SIGHUP")
      }
      reload("debug")
      yield* said('"from":"info","to":"debug"')
      reload("loud")
      yield* said("server.logLevel")
      reload("error")
      yield* waitUntil(
        "the level is taken over",
        Effect.promise(async () => (await fetch(`http://127.0.0.1:${http}/livez`)).status),
        (status) => status === 200
      )
      const { stderr } = server.output()
      assert.deepStrictEqual(yield* server.kill("SIGTERM"), { code: 0, signal: null })
      assert.notInclude(server.output().stderr.slice(stderr.length), "draining")
    })
  )
})
