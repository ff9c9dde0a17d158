/** The packaged server beside a real Redis, which is killed. */
import { assert, it } from "@effect/vitest"
import { Effect } from "effect"
import * as Redis from "../../core/test/harness/Redis.ts"
import { waitUntil } from "../../core/test/harness/waitUntil.ts"
import * as Agent from "./harness/AgentClient.ts"
import * as AgentV2 from "./harness/AgentV2.ts"
import * as Deployment from "./harness/Deployment.ts"

it.live("a server tells Redis its rates and its sessions, and goes on as before when it is killed", () =>
  Effect.gen(function* () {
    const redis = yield* Redis.make
    const server = yield* Deployment.start({
      server: { instance: "one", drainDelay: "0s" },
      redis: { url: redis.url }
    })
    const says = (words: string) =>
      waitUntil(`it says '${words}'`, Effect.sync(server.prism.output), ({ stderr }) => stderr.includes(words))
    yield* says("Redis answers")

    const agent = yield* AgentV2.connect(server.tcp())
    yield* agent.hello({ method: "anonymous" })
    yield* agent.register("web-1")
    const path = `/v1/hosts/web-1.${Deployment.zone}?session=true`
    const host = (yield* waitUntil("its session is known", server.get(path), (found) =>
      Object.keys(found as object).includes("session")
    )) as { readonly session: { readonly instance: string } }
    assert.strictEqual(host.session.instance, "one")
    // One change is made up for in half a second, and then forgotten there: that it was told is counted.
    assert.match(String(yield* server.get("/metrics")), /^prism_redis_rates_exchanged_total [1-9]/m)

    yield* redis.kill
    yield* says("Redis does not answer")
    assert.strictEqual((yield* Agent.register(server.tcp(), "web-2")).status, "success")
    assert.notProperty(yield* server.get(path), "session")
    assert.notInclude(server.prism.output().stderr, redis.password)
  }).pipe(Effect.scoped)
)
