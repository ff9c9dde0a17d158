/**
 * A host by its name, read beside the registry's own way: for who asks for one
 * host after another, thousands of times a second. What was made of it is kept.
 *
 * Promises: how many are kept is bounded, and so is how old they are.
 * - On a SQLite file, where a host is read at once: what was read is kept for as
 *   long as nothing at all has been committed and the zones are the same, so an
 *   answer is never older than the server's last commit.
 * - On PostgreSQL, where it takes a moment: the same for what this process
 *   commits. What other instances commit shows when they say so
 *   (`cluster/Signals`), and within `ageMaxMillis` of its commit where they are
 *   not heard. Who asks for a host that is being read waits for the same answer.
 *
 * Undefined is said where there is more to it, and then the registry is to be
 * asked: an unknown name, a host on its way to the DNS (its zone's writer knows
 * why it waits), a database that cannot be read.
 */
import { Effect, Exit, FiberSet, Metric } from "effect"
import { SqlClient, type SqlError } from "effect/sql"
import { Signals } from "../cluster/Signals.ts"
import * as Progress from "../dns/Progress.ts"
import { Zones } from "../dns/Zones.ts"
import type { DomainName } from "../domain/DomainName.ts"
import type { Host, Publication } from "../domain/Host.ts"
import { DirectReads } from "../storage/Sqlite.ts"
import { OwnWrites, type Writes } from "../storage/Writes.ts"
import { placesOf } from "./HostRecords.ts"
import * as HostRepo from "./HostRepo.ts"
import { toHost, type HostRow } from "./HostRows.ts"
import { publicationOf } from "./Publications.ts"
import * as RegistryMetrics from "./RegistryMetrics.ts"

/** A host as it stands in the database. */
export interface Read {
  readonly host: Host
  readonly publication: Publication
}

export interface HostReadsOptions {
  /** Answers that are kept; about 1 KB each. */
  readonly keptMax: number
  /** For how long, where others may write without being heard. */
  readonly ageMaxMillis: number
  /** Hosts that are read at one time, where that takes a moment; those beyond it go to the registry. */
  readonly readingMax: number
}

export const defaultOptions: HostReadsOptions = { keptMax: 10_000, ageMaxMillis: 1000, readingMax: 100 }

/** How long a host may take to be read, before the registry is asked instead. */
const readTimeout = "1 second"

export interface HostReads<A> {
  /** What is known of it at this time, by the monotonic clock; nothing waits. */
  readonly find: (fqdn: DomainName, nowMillis: number) => A | undefined
  /** Reads it, and says what came of it, once. False where that is not done here: `found` is then not called. */
  readonly read: (fqdn: DomainName, nowMillis: number, found: (answer: A | undefined) => void) => boolean
}

/** Reads hosts and keeps what `toAnswer` makes of them. */
export const make = Effect.fnUntraced(function* <A>(
  toAnswer: (read: Read) => A,
  options: Partial<HostReadsOptions> = {}
) {
  const { ageMaxMillis, keptMax, readingMax } = { ...defaultOptions, ...options }
  const direct = yield* DirectReads
  const writes = yield* OwnWrites
  const kept = yield* keeping<A>(keptMax)
  const answerOf = (read: Read): A | undefined => (read.publication.level === "accepted" ? undefined : toAnswer(read))
  if (direct !== undefined) return yield* atOnce(direct, kept, answerOf)
  return writes === undefined || ageMaxMillis === 0
    ? nothing
    : yield* inTime(writes, kept, answerOf, ageMaxMillis, readingMax)
})

const nothing: HostReads<never> = { find: () => undefined, read: () => false }

/** Answers by name, of which the oldest makes room, and what is counted of them. */
const keeping = Effect.fnUntraced(function* <A>(max: number) {
  const context = yield* Effect.context()
  const answers = new Map<DomainName, { readonly answer: A; readonly atMillis: number }>()
  const counts = { kept: 0, read: 0 }
  const registrations = [
    Metric.registerUnsafe(RegistryMetrics.hostReadsKept, context, {
      get: () => ({ value: answers.size }),
      update: () => undefined,
      modify: () => undefined
    }),
    ...(["kept", "read"] as const).map((from) =>
      Metric.registerUnsafe(Metric.withAttributes(RegistryMetrics.hostReads, { from }), context, {
        get: () => ({ count: counts[from], incremental: true }),
        update: () => undefined,
        modify: () => undefined
      })
    )
  ]
  yield* Effect.addFinalizer(() => Effect.sync(() => registrations.forEach((each) => each.remove())))
  return {
    counts,
    get: (fqdn: DomainName) => answers.get(fqdn),
    clear: () => answers.clear(),
    set: (fqdn: DomainName, answer: A, atMillis: number): void => {
      answers.delete(fqdn)
      if (answers.size >= max) answers.delete(answers.keys().next().value!)
      answers.set(fqdn, { answer, atMillis })
    }
  }
})

type Kept<A> = Effect.Success<ReturnType<typeof keeping<A>>>

const atOnce = Effect.fnUntraced(function* <A>(
  reads: DirectReads,
  kept: Kept<A>,
  answerOf: (read: Read) => A | undefined
) {
  const sql = yield* SqlClient.SqlClient
  const zones = yield* Zones
  let version = -1
  let zonesVersion = -1

  const read = (fqdn: DomainName): Read | undefined => {
    const [row] = reads.all(HostRepo.byName(sql, fqdn).compile()) as ReadonlyArray<HostRow>
    if (row === undefined) return undefined
    const host = toHost(row)
    const places = placesOf(zones, host)
    const rows = reads.all(Progress.statement(sql, places).compile()) as ReadonlyArray<Progress.ProgressRow>
    return { host, publication: publicationOf(host, places, Progress.fromRows(rows)) }
  }

  const find = (fqdn: DomainName, nowMillis: number): A | undefined => {
    // Asked before anything is read: what is read may be newer, and is then read again the next time.
    const now = reads.version()
    if (now !== version || zones.version !== zonesVersion) {
      kept.clear()
      version = now
      zonesVersion = zones.version
    }
    const known = kept.get(fqdn)
    if (known !== undefined) {
      kept.counts.kept += 1
      return known.answer
    }
    const found = read(fqdn)
    const answer = found === undefined ? undefined : answerOf(found)
    if (answer === undefined) return undefined
    kept.counts.read += 1
    kept.set(fqdn, answer, nowMillis)
    return answer
  }
  const result: HostReads<A> = { find, read: () => false }
  return result
})

/** What is read at the moment: it stands for all who ask before anything else is known to be committed. */
interface Reading<A> {
  readonly version: number
  readonly waiting: Array<(answer: A | undefined) => void>
}

const inTime = Effect.fnUntraced(function* <A>(
  writes: Writes,
  kept: Kept<A>,
  answerOf: (read: Read) => A | undefined,
  ageMaxMillis: number,
  readingMax: number
) {
  const sql = yield* SqlClient.SqlClient
  const zones = yield* Zones
  const signals = yield* Signals
  const run = yield* FiberSet.makeRuntime()
  const reading = new Map<DomainName, Reading<A>>()
  /** Questions to the database that are not answered; of one name there may be several, begun before and after a commit. */
  let underWay = 0
  let heard = 0
  let version = -1

  for (const topic of ["hosts", "published", "zones"] as const) yield* signals.listen(topic, () => (heard += 1))

  /** Drops what is kept where something was committed since; what is so now. */
  const current = (): number => {
    // Each of them only rises.
    const now = writes.count + heard + zones.version
    if (now !== version) kept.clear()
    return (version = now)
  }

  const fromDatabase = Effect.fnUntraced(function* (
    fqdn: DomainName
  ): Effect.fn.Return<A | undefined, SqlError.SqlError> {
    const [row] = yield* HostRepo.byName(sql, fqdn)
    if (row === undefined) return undefined
    const host = toHost(row)
    const places = placesOf(zones, host)
    return answerOf({ host, publication: publicationOf(host, places, yield* Progress.find(sql, places)) })
  })

  const find = (fqdn: DomainName, nowMillis: number): A | undefined => {
    current()
    const known = kept.get(fqdn)
    if (known === undefined || nowMillis - known.atMillis > ageMaxMillis) return undefined
    kept.counts.kept += 1
    return known.answer
  }

  const read = (fqdn: DomainName, nowMillis: number, found: (answer: A | undefined) => void): boolean => {
    const now = current()
    const known = reading.get(fqdn)
    // What was begun before a commit may not show it; who asks after it is told of it.
    if (known?.version === now) {
      known.waiting.push(found)
      return true
    }
    if (underWay >= readingMax) return false
    const own: Reading<A> = { version: now, waiting: [found] }
    reading.set(fqdn, own)
    underWay += 1
    run(
      Effect.onExit(Effect.timeout(fromDatabase(fqdn), readTimeout), (exit) =>
        Effect.sync(() => {
          underWay -= 1
          if (reading.get(fqdn) === own) reading.delete(fqdn)
          const answer = Exit.isSuccess(exit) ? exit.value : undefined
          if (answer !== undefined) {
            kept.counts.read += 1
            // As old as the question.
            if (current() === now) kept.set(fqdn, answer, nowMillis)
          }
          for (const each of own.waiting) each(answer)
        })
      ).pipe(Effect.ignore)
    )
    return true
  }
  const result: HostReads<A> = { find, read }
  return result
})
