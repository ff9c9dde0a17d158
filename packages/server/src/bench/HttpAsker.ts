/** A process that asks a server the same question again and again (`HttpLoad`). */
import { Effect } from "effect"
import { BenchFailed } from "./Benchmark.ts"
import type { Job, Outcome } from "./HttpLoad.ts"
import { message, nodeArguments, spawn } from "./Workspace.ts"

const isRecord = (value: unknown): value is Readonly<Record<string, unknown>> =>
  typeof value === "object" && value !== null

export const start = Effect.fnUntraced(function* (folder: string, name: string) {
  const child = yield* spawn(process.execPath, nodeArguments("HttpLoad"), {
    folder,
    log: `${name}.log`,
    channel: true
  })
  yield* message(child, (value) => (value === "ready" ? true : undefined))
  return (job: Job): Effect.Effect<Outcome, BenchFailed> =>
    Effect.suspend(() => {
      const answer = message(child, (value) => (isRecord(value) ? value : undefined))
      child.process.send(job)
      return Effect.flatMap(answer, ({ failure, outcome }) =>
        failure === undefined
          ? Effect.succeed(outcome as Outcome)
          : Effect.fail(new BenchFailed({ detail: `the load could not be made: ${JSON.stringify(failure)}` }))
      )
    })
})

/** The whole request, as it goes out. */
export const get = (path: string, token?: string): string =>
  `GET ${path} HTTP/1.1\r\nhost: 127.0.0.1\r\n${token === undefined ? "" : `authorization: Bearer ${token}\r\n`}\r\n`
