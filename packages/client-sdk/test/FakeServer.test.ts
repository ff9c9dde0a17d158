/** The suite that the real server passes, against the fake one. */
import { it } from "@effect/vitest"
import { FakeServer } from "@prism-dns/client-sdk/testing"
import { Effect } from "effect"
import * as ServerSuite from "./ServerSuite.ts"

const fake = Effect.map(
  Effect.acquireRelease(
    Effect.promise(() => FakeServer.start({ tokens: [{ token: "t" }] })),
    (server) => Effect.promise(() => server.stop())
  ),
  (server) => ({ address: { host: "127.0.0.1", port: server.port }, token: "t", zone: "hosts.prism.test." })
)

ServerSuite.suite("the fake server", (title, body) => it.live(title, () => Effect.flatMap(fake, body)))
