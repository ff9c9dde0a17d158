/** The suite that the fake server passes, against the real one with a real PowerDNS. */
import { layer } from "@effect/vitest"
import { Context, Effect, Layer } from "effect"
import * as Deployment from "../../server/test/harness/Deployment.ts"
import * as ServerSuite from "./ServerSuite.ts"

const token = "agent-token-of-the-suite-0123456789"

class Running extends Context.Service<Running, ServerSuite.Server>()("@prism-dns/client-sdk/test/Running") {
  static readonly layer = Layer.effect(
    Running,
    Effect.map(
      Deployment.start({
        auth: {
          mode: "required",
          agentTokens: [{ name: "suite", token }],
          adminTokens: [{ name: "test", token: Deployment.adminToken }]
        }
      }),
      (deployment) =>
        Running.of({
          token,
          zone: `${Deployment.zone}.`,
          get address() {
            return deployment.tcp()
          }
        })
    )
  )
}

layer(Running.layer, { timeout: "60 seconds", excludeTestServices: true })((it) => {
  ServerSuite.suite("the real server", (title, body) =>
    it.effect(title, () => Effect.scoped(Effect.flatMap(Running, body)))
  )
})
