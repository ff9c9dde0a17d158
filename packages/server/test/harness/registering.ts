/** Hosts that register one after another while something goes wrong, and what they were told. */
import { Clock, Effect, Fiber } from "effect"
import * as Agent from "./AgentClient.ts"
import { waitUntil } from "../../../core/test/harness/waitUntil.ts"

const addressOf = (i: number) => `127.50.${i >> 7}.${1 + (i & 127)}`

/** Registers one host after another, from several agents at once, until it is told to stop; what was acknowledged, and when. */
export const registering = Effect.fnUntraced(function* (tcp: { readonly host: string; readonly port: number }) {
  const acknowledged = new Map<string, { readonly address: string; readonly atMillis: number }>()
  const refused: Array<string> = []
  let next = 0
  const load = { isStopped: false }
  const agent = Effect.gen(function* () {
    while (!load.isStopped) {
      const i = next++
      const name = `moved-${i}`
      const answer = yield* Effect.option(Agent.register(tcp, name, { from: addressOf(i) }))
      if (answer._tag === "None") refused.push(`${name}: no answer`)
      else if (answer.value.status === "success") {
        acknowledged.set(name, { address: addressOf(i), atMillis: yield* Clock.currentTimeMillis })
      } else refused.push(`${name}: ${answer.value.message}`)
      yield* Effect.yieldNow
    }
  })
  const fiber = yield* Effect.forkScoped(
    Effect.all(
      Array.from({ length: 8 }, () => agent),
      { concurrency: 8 }
    )
  )
  return {
    acknowledged,
    refused,
    /** Waits until so many were acknowledged. */
    some: (count: number) =>
      waitUntil(
        `${count} are registered`,
        Effect.sync(() => acknowledged.size),
        (size) => size >= count,
        { within: "30 seconds" }
      ),
    stop: Effect.suspend(() => {
      load.isStopped = true
      return Fiber.join(fiber)
    })
  }
})
