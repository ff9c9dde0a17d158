/**
 * `prism-agent once`: registers, waits for the level, says what came when.
 *
 * Ends with success only if every name has reached the level in time. What was
 * reached is printed as it comes, or with `json` as one object at the end, also
 * when it was not enough.
 */
import { Clock, Console, Deferred, Effect, Exit } from "effect"
import { type Level, levels, type Reached } from "../Options.ts"
import * as Credentials from "./Credentials.ts"
import * as Failure from "./Failure.ts"
import * as Names from "./Names.ts"
import type { Settings } from "./Settings.ts"

export interface Options {
  readonly json: boolean
  /** How long everything may take. */
  readonly timeoutSeconds: number
}

/** What has become of one name. */
interface Progress {
  readonly name: Names.Name
  readonly reached: Map<Level, Reached>
  /** Why it goes no further, as far as is known. */
  trouble: string | undefined
  /** PowerDNS does not take its records; only a person can help. */
  readonly parked: Deferred.Deferred<never, Failure.NotReached>
}

const milliseconds = (millis: number): string => `${Number(millis.toPrecision(3))} ms`

const watch = (name: Names.Name, reachedAny: (reached: Reached) => void): Progress => {
  const progress: Progress = {
    name,
    reached: new Map(),
    trouble: undefined,
    parked: Deferred.makeUnsafe()
  }
  name.agent.subscribe((event) => {
    switch (event.type) {
      case "accepted":
      case "applied":
      case "served":
        progress.reached.set(event.type, event.data)
        return reachedAny(event.data)
      case "disconnected":
        progress.trouble = `${event.data.server}: ${event.data.reason}`
        return
      case "notice":
        progress.trouble = Failure.withNextStep(event.data.code, `${event.data.code}: ${event.data.message}`)
        return
      case "parked": {
        progress.trouble = `its records were not taken: ${event.data.reason}`
        const detail = `${event.data.host} is accepted, but ${progress.trouble}`
        Deferred.doneUnsafe(progress.parked, Exit.fail(new Failure.NotReached({ detail })))
      }
    }
  })
  return progress
}

const levelOf = ({ reached }: Progress): Level | undefined => levels.findLast((level) => reached.has(level))

/** Released: outside programs read it. */
const toJson = (
  settings: Settings,
  all: ReadonlyArray<Progress>,
  exit: Exit.Exit<unknown, unknown>,
  elapsedMillis: number
) => ({
  reached: Exit.isSuccess(exit),
  level: settings.ack,
  elapsedMillis,
  hosts: all.map((progress) => {
    const level = levelOf(progress)
    const last = level === undefined ? undefined : progress.reached.get(level)
    return {
      hostname: progress.name.hostname,
      host: last?.host ?? null,
      addresses: last?.addresses ?? [],
      level: level ?? null,
      identity: progress.name.agent.snapshot().identity ?? null,
      levels: Object.fromEntries(
        [...progress.reached].map(([name, { at, millis, nodes }]) => [
          name,
          { millis, at, ...(nodes === undefined ? {} : { nodes }) }
        ])
      )
    }
  }),
  ...(Exit.isSuccess(exit) ? {} : { error: Failure.toJson(exit.cause) })
})

/** Registers as the settings say, and waits. */
export const run = Effect.fnUntraced(function* (settings: Settings, { json, timeoutSeconds }: Options) {
  const startMillis = yield* Clock.currentTimeMillis
  const all: Array<Progress> = []
  const write = Effect.runSyncWith(yield* Effect.context())
  const print = ({ addresses, host, level, millis }: Reached) => {
    if (!json) write(Console.log(`${level.padEnd(8)}  ${host}  ${addresses.join(",")}  ${milliseconds(millis)}`))
  }
  const wait = ({ name, parked }: Progress) =>
    Effect.mapError(name.agent.waitFor(settings.ack), Names.sort(name.hostname)).pipe(
      Effect.raceFirst(settings.ack === "accepted" ? Effect.never : Deferred.await(parked)),
      Effect.exit
    )
  const attempt = Effect.gen(function* () {
    const credentials = yield* Credentials.load(settings)
    yield* Names.open(settings, credentials, { opened: (name) => all.push(watch(name, print)) })
    const exits = yield* Effect.forEach(all, wait, { concurrency: "unbounded" })
    yield* exits.find(Exit.isFailure) ?? Effect.void
  })
  const tooLate = Effect.suspend(() => {
    const behind = all.find((progress) => !progress.reached.has(settings.ack))
    const name = behind === undefined ? "" : `${behind.name.hostname}: `
    const trouble = behind?.trouble === undefined ? "" : `; ${behind.trouble}`
    return Effect.fail(
      new Failure.NotReached({ detail: `${name}not ${settings.ack} within ${timeoutSeconds} s${trouble}` })
    )
  })
  const exit = yield* Effect.exit(
    Effect.timeoutOrElse(attempt, { duration: `${timeoutSeconds} seconds`, orElse: () => tooLate })
  )
  const elapsedMillis = (yield* Clock.currentTimeMillis) - startMillis
  if (json) yield* Console.log(JSON.stringify(toJson(settings, all, exit, elapsedMillis), null, 2))
  return yield* exit
})
