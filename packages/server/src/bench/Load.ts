/** Starts load generators and tells them what to do; each is a process of its own. */
import { Effect } from "effect"
import { BenchFailed } from "./Benchmark.ts"
import type { Done, Failed, Job } from "./LoadGenerator.ts"
import { message, nodeArguments, spawn } from "./Workspace.ts"

export interface Load {
  /** Does the job and says what came of it; one at a time. */
  readonly perform: (job: Job) => Effect.Effect<Done, BenchFailed>
}

/** Longer than any part takes. */
const jobMillisMax = 1_800_000

const isResult = (value: unknown): value is Done | Failed =>
  typeof value === "object" && value !== null && "_tag" in value

export const start = Effect.fnUntraced(function* (folder: string, name: string, core?: number) {
  const child = yield* spawn(process.execPath, nodeArguments("LoadGenerator"), {
    folder,
    log: `${name}.log`,
    channel: true,
    core
  })
  yield* message(child, (value) => (value === "ready" ? true : undefined))
  const perform = (job: Job): Effect.Effect<Done, BenchFailed> =>
    Effect.suspend(() => {
      const result = message(child, (value) => (isResult(value) ? value : undefined))
      child.process.send(job)
      return result
    }).pipe(
      Effect.flatMap((result) =>
        result._tag === "Done" ? Effect.succeed(result) : Effect.fail(new BenchFailed({ detail: result.detail }))
      ),
      Effect.timeoutOrElse({
        duration: jobMillisMax,
        orElse: () =>
          Effect.fail(new BenchFailed({ detail: `${job._tag} was not done within ${jobMillisMax / 60_000} min` }))
      })
    )
  const load: Load = { perform }
  return load
})
