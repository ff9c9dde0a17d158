/**
 * One `PowerDnsClient` over all primaries that share a database: one of them
 * takes the writes.
 *
 * Promises: writes go to one primary at a time, and to another only when nothing
 * can come of the last one any more: each request to it has ended, or so long ago
 * that PowerDNS has dropped it. A primary that is away is replaced by the next
 * that answers; the preferred one gets its place back once it has been well for a
 * while. Reads go where the writes go. Replicas and secondaries are never used.
 * Leaves to others: several databases (`PowerDnsDatabases`); repeating what
 * failed meanwhile (`DnsManager`), and a write that a server had taken before it
 * was stopped, and carries out when it runs again, hours later perhaps:
 * `lateWrites` names what may have come of it.
 */
import { Cause, Clock, Context, Effect, Exit, Layer, Metric, Option, PubSub, Stream } from "effect"
import type { DomainName } from "../domain/DomainName.ts"
import * as RRset from "../domain/RRset.ts"
import { PowerDnsClient } from "./PowerDnsClient.ts"
import { PowerDnsError, Unreachable } from "./PowerDnsError.ts"
import * as Metrics from "./PowerDnsMetrics.ts"
import { type Node, PowerDnsNodes } from "./PowerDnsNodes.ts"

export interface PowerDnsWriterOptions {
  /** How often each primary is asked whether it is there, in milliseconds. */
  readonly probeMillis: number
  /** How long it may take to say so. */
  readonly probeMillisMax: number
  /** The writer is replaced when this many calls failed in a row, ... */
  readonly failuresMax: number
  /** ... and it has not answered for this long. */
  readonly awayMillis: number
  /** A better primary takes over when it has answered each probe for this long. */
  readonly healthyMillis: number
  /**
   * How long after it began a call without an answer may still be carried out by a server that runs: the limit of a
   * request, and `readingMillis`. In any case `readingMillis` from its end.
   */
  readonly lateMillis: number
  /** PowerDNS reads a request within this time, or drops it. */
  readonly readingMillis: number
  /** How long a write waits for its turn while the writer changes, before it fails. */
  readonly waitMillisMax: number
}

export const defaultOptions: PowerDnsWriterOptions = {
  probeMillis: 1000,
  probeMillisMax: 2000,
  failuresMax: 3,
  awayMillis: 3000,
  healthyMillis: 30_000,
  lateMillis: 15_000,
  readingMillis: 5000,
  waitMillisMax: 1000
}

/** Writes without an answer that the server, now back, may have carried out late: over newer ones. */
export interface LateWrites {
  readonly node: string
  readonly zone: DomainName
  readonly names: ReadonlyArray<DomainName>
}

export interface WriterStatus {
  /** The primary that takes the writes. */
  readonly writer: string
  /** The primary that takes them when all is well. */
  readonly preferred: string
  /** Since when, in milliseconds since 1970; undefined: from the start. */
  readonly sinceMillis: number | undefined
  /** Until when writes are held back at least, since the last writer may still carry out one. */
  readonly heldUntilMillis: number | undefined
}

export class PowerDnsWriter extends Context.Service<
  PowerDnsWriter,
  {
    readonly status: Effect.Effect<WriterStatus>
    /** A subscription; what comes before it is missed. */
    readonly lateWrites: Stream.Stream<LateWrites>
  }
>()("@prism-dns/core/powerdns/PowerDnsWriter") {
  /** Takes the primaries in the order of `PowerDnsNodes`, the preferred one first. */
  static readonly layer = (
    options: Partial<PowerDnsWriterOptions> = {}
  ): Layer.Layer<PowerDnsClient | PowerDnsWriter, never, PowerDnsNodes> =>
    Layer.effectContext(
      Effect.gen(function* () {
        const { all } = yield* PowerDnsNodes
        const { client, writer } = yield* make(all, { ...defaultOptions, ...options })
        return Context.make(PowerDnsClient, client).pipe(Context.add(PowerDnsWriter, writer))
      })
    )
}

/** Names without an answer that are remembered for a node. */
const lateNamesMax = 100_000

/** How often a write looks whether it is its turn. */
const turnMillis = 10

interface Primary {
  readonly name: string
  readonly api: PowerDnsClient["Service"]
  /** Failed calls in a row. */
  failures: number
  failingSinceMillis: number | undefined
  /** Since when each probe was answered. */
  healthySinceMillis: number | undefined
  /** Writes under way. */
  writes: number
  /** Until when a write without an answer may still be carried out. */
  lateUntilMillis: number
  /** What was in the writes without an answer. */
  late: Map<DomainName, Set<DomainName>>
}

/** Over the primaries among `nodes`. Where there are several databases, `leads` says whether theirs takes the writes first. */
export const make = Effect.fnUntraced(function* (
  nodes: ReadonlyArray<Node>,
  options: PowerDnsWriterOptions,
  leads: () => boolean = () => true
) {
  const primaries = nodes.flatMap(({ api, name, role }): ReadonlyArray<Primary> =>
    role === "primary" && api !== undefined
      ? [
          {
            name,
            api,
            failures: 0,
            failingSinceMillis: undefined,
            healthySinceMillis: undefined,
            writes: 0,
            lateUntilMillis: 0,
            late: new Map()
          }
        ]
      : []
  )
  const [preferred] = primaries
  if (preferred === undefined) return yield* Effect.die(new Error("no primary among the nodes has an API"))
  let writer = preferred
  let sinceMillis: number | undefined
  const lateWrites = yield* PubSub.unbounded<LateWrites>()

  const gauge = Effect.suspend(() =>
    Effect.forEach(
      primaries,
      (each) =>
        Metric.update(Metric.withAttributes(Metrics.writer, { node: each.name }), leads() && each === writer ? 1 : 0),
      { discard: true }
    )
  )

  // -------------------------------------------------------------------------------------------------------------------
  // Who is there
  // -------------------------------------------------------------------------------------------------------------------

  const succeeded = (primary: Primary) => {
    primary.failures = 0
    primary.failingSinceMillis = undefined
  }

  const failed = (primary: Primary, nowMillis: number) => {
    primary.failures++
    primary.failingSinceMillis ??= nowMillis
    primary.healthySinceMillis = undefined
  }

  const observe = <A>(primary: Primary, exit: Exit.Exit<A, PowerDnsError>, nowMillis: number) => {
    if (Exit.isSuccess(exit)) return succeeded(primary)
    const error = Option.getOrUndefined(Cause.findErrorOption(exit.cause))
    if (error === undefined || error.reason._tag === "Withheld") return // interrupted, or not sent: says nothing
    if (isAbsence(error)) failed(primary, nowMillis)
    else succeeded(primary)
  }

  const switchTo = (next: Primary, nowMillis: number, why: string) => {
    const last = writer.name
    writer = next
    sinceMillis = nowMillis
    return Effect.logWarning("another PowerDNS takes the writes").pipe(
      Effect.annotateLogs({ writer: next.name, last, why }),
      Effect.andThen(gauge)
    )
  }

  const decide = Effect.gen(function* () {
    const nowMillis = yield* Clock.currentTimeMillis
    const isAway =
      writer.failures >= options.failuresMax &&
      writer.failingSinceMillis !== undefined &&
      nowMillis - writer.failingSinceMillis >= options.awayMillis
    if (isAway) {
      const next = primaries.find((each) => each !== writer && each.healthySinceMillis !== undefined)
      if (next !== undefined) yield* switchTo(next, nowMillis, "the last one does not answer")
      return
    }
    const better = primaries
      .slice(0, primaries.indexOf(writer))
      .find(
        ({ healthySinceMillis }) =>
          healthySinceMillis !== undefined && nowMillis - healthySinceMillis >= options.healthyMillis
      )
    if (better !== undefined) yield* switchTo(better, nowMillis, "it is preferred, and is well again")
  })

  /** What a server that is back had taken before, it carries out now. */
  const tellLate = Effect.fnUntraced(function* (primary: Primary) {
    const { late } = primary
    if (late.size === 0) return
    primary.late = new Map()
    yield* Effect.forEach(late, ([zone, names]) =>
      PubSub.publish(lateWrites, { node: primary.name, zone, names: [...names] })
    ).pipe(Effect.delay(options.readingMillis), Effect.forkIn(scope))
  })

  const scope = yield* Effect.scope

  const probe = Effect.fnUntraced(function* (primary: Primary) {
    const exit = yield* primary.api.server.pipe(
      Effect.timeoutOrElse({
        duration: options.probeMillisMax,
        orElse: () =>
          Effect.fail(
            new PowerDnsError({
              node: primary.name,
              operation: "server",
              reason: new Unreachable({ detail: `no answer within ${options.probeMillisMax} ms` })
            })
          )
      }),
      Effect.exit
    )
    const nowMillis = yield* Clock.currentTimeMillis
    observe(primary, exit, nowMillis)
    if (Exit.isSuccess(exit)) {
      primary.healthySinceMillis ??= nowMillis
      yield* tellLate(primary)
    } else {
      primary.healthySinceMillis = undefined
    }
    yield* decide
  })

  yield* gauge
  // With a single primary there is nothing to decide.
  if (primaries.length > 1) {
    for (const primary of primaries) {
      yield* probe(primary).pipe(Effect.andThen(Effect.sleep(options.probeMillis)), Effect.forever, Effect.forkScoped)
    }
  }

  // -------------------------------------------------------------------------------------------------------------------
  // Calls
  // -------------------------------------------------------------------------------------------------------------------

  const read = <A>(call: (api: PowerDnsClient["Service"]) => Effect.Effect<A, PowerDnsError>) =>
    Effect.suspend(() => {
      const primary = writer
      return Effect.onExit(call(primary.api), (exit) =>
        Effect.map(Clock.currentTimeMillis, (nowMillis) => observe(primary, exit, nowMillis))
      )
    })

  /** The primary, other than `primary`, of which a write may still come. */
  const inTheWay = (primary: Primary, nowMillis: number): Primary | undefined =>
    primaries.find((each) => each !== primary && (each.writes > 0 || each.lateUntilMillis > nowMillis))

  /** Gives the writer once it is its turn, with one write more under way; fails when that takes too long. */
  const takeTurn = Effect.fnUntraced(function* (operation: string) {
    const untilMillis = (yield* Clock.currentTimeMillis) + options.waitMillisMax
    while (true) {
      const nowMillis = yield* Clock.currentTimeMillis
      const primary = writer
      const last = inTheWay(primary, nowMillis)
      if (last === undefined) {
        primary.writes++
        return { primary, startMillis: nowMillis }
      }
      if (nowMillis >= untilMillis) {
        const left = Math.max(0, last.lateUntilMillis - nowMillis)
        const when = last.writes > 0 ? "once its requests have ended" : `in ${Math.ceil(left / 1000)} s`
        return yield* new PowerDnsError({
          node: primary.name,
          operation,
          reason: new Unreachable({
            detail: `it takes the writes from ${last.name}, but not before nothing can come of that any more: ${when}`
          })
        })
      }
      yield* Effect.sleep(turnMillis)
    }
  })

  const write = <A>(
    operation: string,
    call: (api: PowerDnsClient["Service"]) => Effect.Effect<A, PowerDnsError>,
    /** What may come late of it. */
    subject?: { readonly zone: DomainName; readonly names: Iterable<DomainName> }
  ): Effect.Effect<A, PowerDnsError> =>
    Effect.uninterruptibleMask((restore) =>
      Effect.flatMap(restore(takeTurn(operation)), ({ primary, startMillis }) =>
        Effect.onExit(restore(call(primary.api)), (exit) =>
          Effect.map(Clock.currentTimeMillis, (nowMillis) => {
            primary.writes--
            observe(primary, exit, nowMillis)
            if (!hasEnded(exit)) {
              primary.lateUntilMillis = Math.max(
                primary.lateUntilMillis,
                startMillis + options.lateMillis,
                nowMillis + options.readingMillis // a call may have waited long for a connection
              )
              if (subject !== undefined) remember(primary, subject.zone, subject.names)
            }
          })
        )
      )
    )

  const remember = (primary: Primary, zone: DomainName, names: Iterable<DomainName>) => {
    const noted = primary.late.get(zone) ?? new Set()
    for (const name of names) if (noted.size < lateNamesMax) noted.add(name)
    primary.late.set(zone, noted)
  }

  const client = PowerDnsClient.of({
    get node() {
      return writer.name
    },
    server: read((api) => api.server),
    serverConfiguration: read((api) => api.serverConfiguration),
    listZones: read((api) => api.listZones),
    findZone: (zone) => read((api) => api.findZone(zone)),
    rrsets: (zone, names, recordsAtLeast) => read((api) => api.rrsets(zone, names, recordsAtLeast)),
    exportZone: (zone) => read((api) => api.exportZone(zone)),
    records: (zone) => Stream.suspend(() => writer.api.records(zone)),
    zoneKeys: (zone) => read((api) => api.zoneKeys(zone)),
    getMetadata: (zone, kind) => read((api) => api.getMetadata(zone, kind)),
    flush: (name) => read((api) => api.flush(name)),
    notify: (zone) => read((api) => api.notify(zone)),
    axfrRetrieve: (zone) => read((api) => api.axfrRetrieve(zone)),
    createZone: (zone) => write("createZone", (api) => api.createZone(zone)),
    deleteZone: (zone) => write("deleteZone", (api) => api.deleteZone(zone)),
    configureZone: (zone, wanted) => write("configureZone", (api) => api.configureZone(zone, wanted)),
    patch: (zone, changes) =>
      changes.length === 0
        ? Effect.void
        : write("patch", (api) => api.patch(zone, changes), { zone, names: changes.map(RRset.changedName) }),
    rectify: (zone) => write("rectify", (api) => api.rectify(zone)),
    ensureTsigKey: (key) => write("ensureTsigKey", (api) => api.ensureTsigKey(key)),
    setMetadata: (zone, kind, values) => write("setMetadata", (api) => api.setMetadata(zone, kind, values))
  })

  return {
    client,
    /** Tells the metrics anew who writes. */
    report: gauge,
    writer: PowerDnsWriter.of({
      status: Effect.map(Clock.currentTimeMillis, (nowMillis) => {
        const heldUntilMillis = Math.max(
          0,
          ...primaries.filter((each) => each !== writer).map((each) => each.lateUntilMillis)
        )
        return {
          writer: writer.name,
          preferred: preferred.name,
          sinceMillis,
          heldUntilMillis: heldUntilMillis > nowMillis ? heldUntilMillis : undefined
        }
      }),
      lateWrites: Stream.fromPubSub(lateWrites)
    })
  }
})

/** An answer that says no is a sign of life, and a broken database is the others' too. */
export const isAbsence = (error: PowerDnsError): boolean =>
  error.reason._tag === "Unreachable" || error.reason._tag === "Uncertain"

/** True when a write is over, whatever came of it: it was answered, or never taken. */
const hasEnded = (exit: Exit.Exit<unknown, PowerDnsError>): boolean =>
  Exit.match(exit, {
    onSuccess: () => true,
    onFailure: (cause) =>
      Option.match(Cause.findErrorOption(cause), {
        onNone: () => false, // interrupted in its middle
        onSome: ({ reason }) => reason._tag !== "Uncertain"
      })
  })
