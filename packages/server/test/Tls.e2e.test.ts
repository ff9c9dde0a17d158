/** The whole server with TLS: what the ready file says, certificates that change, files that are wrong. */
import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import * as Fs from "node:fs"
import * as NodeTls from "node:tls"
import { freePorts } from "../../core/test/harness/ports.ts"
import { waitUntil } from "../../core/test/harness/waitUntil.ts"
import * as Agent from "./harness/AgentClient.ts"
import { AgentV2 } from "./harness/AgentV2.ts"
import { authority } from "./harness/certificates.ts"
import * as Deployment from "./harness/Deployment.ts"
import * as PrismServer from "./harness/PrismServer.ts"

/** The common name of the certificate that is shown. */
const shown = (to: { readonly host: string; readonly port: number }) =>
  Effect.callback<string | undefined, Error>((resume) => {
    const socket = NodeTls.connect({ ...to, rejectUnauthorized: false }, () => {
      const name = socket.getPeerCertificate().subject.CN
      socket.destroy()
      resume(Effect.succeed(Array.isArray(name) ? name[0] : name))
    })
    socket.once("error", (error) => resume(Effect.fail(error)))
  })

describe("a server with a certificate", () => {
  it.live("opens no port without TLS, serves a client certificate, and shows a new certificate after SIGHUP", () =>
    Effect.gen(function* () {
      const ca = yield* authority()
      const pair = ca.issue("first", { alternativeNames: "DNS:prism.test" })
      const [port] = yield* freePorts(1)
      const { prism, untilDig } = yield* Deployment.start({
        tcp: { host: "127.0.0.1" },
        tls: {
          host: "127.0.0.1",
          port,
          ...pair,
          clientCertificates: "required",
          clientCa: ca.certificate,
          reloadInterval: "1d"
        }
      })
      const { tcp, tls } = prism.ready() as { readonly tcp?: unknown; readonly tls?: { host: string; port: number } }
      assert.isUndefined(tcp)
      assert.deepStrictEqual(tls, { host: "127.0.0.1", port: port! })

      const mine = ca.issue("web-1")
      const socket = NodeTls.connect({
        ...tls!,
        servername: "prism.test",
        ca: Fs.readFileSync(ca.certificate),
        cert: Fs.readFileSync(mine.certificate),
        key: Fs.readFileSync(mine.key)
      })
      yield* Effect.addFinalizer(() => Effect.sync(() => socket.destroy()))
      const agent = new AgentV2(new Agent.AgentClient(socket))
      assert.deepInclude(yield* agent.hello({ method: "certificate" }), {
        type: "welcome",
        identity: { name: "cert:web-1", kind: "certificate" }
      })
      yield* agent.register("web-1")
      yield* untilDig("web-1.hosts.prism.test", "A", ["127.0.0.1"], "5 seconds")

      const second = ca.issue("second")
      Fs.copyFileSync(second.certificate, pair.certificate)
      Fs.copyFileSync(second.key, pair.key)
      process.kill(prism.pid(), "SIGHUP")
      yield* waitUntil("the new one is shown", shown(tls!), (name) => name === "second")
      assert.strictEqual((yield* agent.beat).at(-1)?.type, "beat")
      const { stderr } = prism.output()
      assert.include(stderr, "the files for TLS were read again")
      for (const line of Fs.readFileSync(pair.key, "utf8").split("\n").slice(1, 3)) assert.notInclude(stderr, line)
    }).pipe(Effect.scoped)
  )

  it.live("that cannot be used does not start: which setting, and what to do; 78", () =>
    Effect.gen(function* () {
      const ca = yield* authority()
      const [tls, http] = yield* freePorts(2)
      Fs.writeFileSync(
        `${ca.folder}/prism.yaml`,
        JSON.stringify({
          tls: {
            host: "127.0.0.1",
            port: tls,
            certificate: ca.issue("first").certificate,
            key: ca.issue("second").key
          },
          http: { port: http },
          storage: { url: "sqlite::memory:" },
          powerdns: { nodes: [{ api: "http://127.0.0.1:1", apiKey: "x", dns: "127.0.0.1:53" }] },
          zones: ["hosts.prism.test"]
        })
      )
      const ended = yield* PrismServer.run(["serve", "--config", "prism.yaml"], { folder: ca.folder })
      assert.strictEqual(ended.code, 78)
      assert.include(ended.stderr, "prism-dns: tls.key: it is not the key of the certificate in tls.certificate")
    }).pipe(Effect.scoped)
  )

  it.live("SIGHUP without TLS changes nothing", () =>
    Effect.gen(function* () {
      const { prism, tcp } = yield* Deployment.start()
      process.kill(prism.pid(), "SIGHUP")
      assert.strictEqual((yield* Agent.register(tcp(), "still-there")).status, "success")
    }).pipe(Effect.scoped)
  )
})
