/**
 * Finds out when every name server answers with what PowerDNS took, which is
 * when a change is `served`.
 *
 * After a publication the nodes that did not take the write drop the zone's
 * cached answers, secondaries are told to fetch, and then each node is asked
 * for the name until it answers with exactly what was published. Promises: a
 * name is served only after every configured node has said so itself, since its
 * latest publication, and not while a write without an answer may still come over
 * that; a node that does not answer delays no other, and is named;
 * what is not served yet stands in the table `unserved` and is asked on after a
 * restart, and by the next server that writes the zone; memory and questions
 * are bounded. Leaves to others: writing `unserved` (`dns/Outbox`, with the settlement), and who waits
 * (`dns/Acknowledgements`).
 */
import { Cause, Clock, Context, Effect, FiberSet, Latch, Layer, Metric, type Scope } from "effect"
import { SqlClient } from "effect/sql"
import type { DomainName } from "../domain/DomainName.ts"
import type * as RRset from "../domain/RRset.ts"
import * as Serial from "../domain/Serial.ts"
import { PowerDnsClient } from "../powerdns/PowerDnsClient.ts"
import { type Node, PowerDnsNodes, type Role } from "../powerdns/PowerDnsNodes.ts"
import { asList } from "../storage/Rows.ts"
import { detailOf } from "../storage/SqlFailure.ts"
import { Acknowledgements } from "./Acknowledgements.ts"
import * as DnsMetrics from "./DnsMetrics.ts"
import * as Expectation from "./Expectation.ts"
import * as HeldZones from "./HeldZones.ts"
import { NameServers } from "./NameServers.ts"
import * as Outbox from "./Outbox.ts"
import { managedTypes } from "./RecordSource.ts"
import { ServingNode, type ServingNodeOptions } from "./ServingNode.ts"
import { Zones } from "./Zones.ts"

export interface ServingOptions extends ServingNodeOptions {
  /** Names in memory at once; more stay in the database until there is room. */
  readonly namesMax: number
  /** How often what is due is looked for while names are under way, in milliseconds. */
  readonly tickMillis: number
  /** How often the database is asked for names of which we were not told, in milliseconds. */
  readonly rescanMillis: number
  /** How long served names are gathered for one transaction, in milliseconds. */
  readonly commitMillis: number
  /** The longest that dropping caches may keep names from being asked, in milliseconds. */
  readonly flushMillisMax: number
  /** Between two NOTIFYs of a zone, in milliseconds. */
  readonly notifyMillis: number
  /** The same while secondaries do not come to answer as published, at the most: it doubles. */
  readonly notifyMillisMax: number
  /** Whether the process has more to do than it can; then questions wait for a while. Default: never. */
  readonly isCrowded: () => boolean
}

/** 100,000 names are about 60 MB with three nodes. */
export const defaultOptions: ServingOptions = {
  namesMax: 100_000,
  tickMillis: 5,
  rescanMillis: 30_000,
  commitMillis: 25,
  flushMillisMax: 1000,
  notifyMillis: 1000,
  notifyMillisMax: 30_000,
  asksMax: 64,
  flushesMax: 2,
  flushSpacingMillis: 20,
  flushAgainMillis: 50,
  retryMillisMin: 5,
  retryMillisMax: 1000,
  retriesPerSecond: 500,
  probeMillis: 1000,
  crowdedMillisMax: 2000,
  isCrowded: () => false
}

/** What PowerDNS took of one name, in the order in which it did. A lost one costs time, never truth: the table is read again now and then. */
export interface Publication {
  readonly name: DomainName
  readonly generation: number
  /** What a name server is to answer with; empty: nothing. */
  readonly rrsets: ReadonlyArray<RRset.RRset>
  /** Types that this may have changed, besides those of `rrsets`. Undefined: any of the zone's managed types. */
  readonly types?: ReadonlyArray<string>
  /**
   * A write of before may still come over it. Caches are dropped, secondaries told and nodes asked as ever, but what they
   * answer may be another thing in a moment, and so it is not served: that is for the publication that follows the doubt.
   */
  readonly inDoubt?: boolean
}

export interface NodeStatus {
  readonly name: string
  readonly role: Role
  /** It answered when it was asked last. */
  readonly up: boolean
  /** Names it was not seen to answer as published, of those under way. */
  readonly unserved: number
  /** When it answered a question last; undefined before the first time. */
  readonly lastAnsweredMillis: number | undefined
  /** The one that waits longest for it. */
  readonly oldest:
    | {
        readonly zone: DomainName
        readonly name: DomainName
        readonly generation: number
        readonly publishedMillis: number
        /** What it answered, in words; undefined while it has not. */
        readonly answered: string | undefined
      }
    | undefined
}

export class Serving extends Context.Service<
  Serving,
  {
    /**
     * PowerDNS took these, and they stand in `unserved` (committed). `writtenBy` is the node that took them, if any was
     * written. A newer publication of a name replaces the expectation of an older one, and settles it when it is served.
     */
    readonly published: (
      zone: DomainName,
      publications: ReadonlyArray<Publication>,
      writtenBy: string | undefined
    ) => void
    readonly status: Effect.Effect<ReadonlyArray<NodeStatus>>
    /** The same of some zones: as if there were no other names. */
    readonly statusOf: (isAbout: (zone: DomainName) => boolean) => Effect.Effect<ReadonlyArray<NodeStatus>>
    /** The latest serial of the zone that a secondary answers; undefined where none answers one. Takes a moment. */
    readonly secondarySerial: (zone: DomainName) => Effect.Effect<number | undefined>
    /**
     * `f` is called, ever more rarely, with a zone of which a secondary that answers still lacks something some time after
     * it was told; `isLong` once that has gone on for about a minute. Until the scope ends.
     */
    readonly onUnheard: (f: (zone: DomainName, isLong: boolean) => void) => Effect.Effect<void, never, Scope.Scope>
  }
>()("@prism-dns/core/dns/Serving") {
  static readonly layer = (options: Partial<ServingOptions> = {}) =>
    Layer.effect(Serving, make({ ...defaultOptions, ...options }))

  /** Finds out nothing; for tests in which no name server is asked. */
  static readonly layerNone: Layer.Layer<Serving> = Layer.succeed(
    Serving,
    Serving.of({
      published: () => undefined,
      status: Effect.succeed([]),
      statusOf: () => Effect.succeed([]),
      secondarySerial: () => Effect.undefined,
      onUnheard: () => Effect.void
    })
  )
}

/** A name that every node answers as published. */
interface Served {
  readonly expectation: Expectation.Expectation
  readonly version: number
  readonly generation: number
  /** It is asked for once more when the doubt is over, and nobody is told before. */
  readonly inDoubt: boolean
  readonly publishedMillis: number
  readonly atMillis: number
  readonly nodes: ReadonlyArray<{ readonly node: string; readonly atMillis: number }>
}

/** When the secondaries of a zone were told last, and when next. */
interface Notification {
  wanted: boolean
  /** Not before: what the primaries have cached is dropped first. */
  dueMillis: number
  lastMillis: number
  pauseMillis: number
}

const make = Effect.fnUntraced(function* (options: ServingOptions) {
  const sql = yield* SqlClient.SqlClient
  const zones = yield* Zones
  const { all } = yield* PowerDnsNodes
  const writer = yield* PowerDnsClient
  const nameServers = yield* NameServers
  const acknowledgements = yield* Acknowledgements
  const clock = yield* Clock.Clock
  const context = yield* Effect.context()
  const run = yield* FiberSet.makeRuntime()
  const now = () => clock.currentTimeMillisUnsafe()
  const elapsed = () => Number(clock.monotonicTimeNanosUnsafe()) / 1e6

  /** Zones that this server writes: whoever writes a zone asks for what is not served of it. */
  const writing = new Set<DomainName>()
  const names = new Map<DomainName, Map<DomainName, Expectation.Expectation>>()
  let size = 0
  /** There may be rows that are not in memory. */
  let isBehind = true
  let served: Array<Served> = []
  const notifications = new Map<DomainName, Notification>()
  const secondaries = all.filter(({ role }) => role === "secondary")
  const hasSecondaries = secondaries.length > 0
  const unheardBy = new Set<(zone: DomainName, isLong: boolean) => void>()

  /** Open while a node has something to do. */
  const working = yield* Latch.make(false)
  /** Open while the database has something to be told or asked. */
  const keeping = yield* Latch.make(true)

  const flush = (node: Node, zone: DomainName, done: () => void): void => {
    if (node.api === undefined) return done()
    void run(
      node.api.flush(zone).pipe(
        Effect.timeout(options.flushMillisMax),
        // The node is asked all the same: it may have nothing cached, and its answer tells.
        Effect.catch((error) =>
          Effect.logDebug("cached answers were not dropped").pipe(
            Effect.annotateLogs({ node: node.name, zone, reason: error.message })
          )
        ),
        Effect.ensuring(Effect.sync(done))
      )
    )
  }

  const onAnswered = (expectation: Expectation.Expectation): void => {
    if (expectation.remaining > 0) return
    const nodes = expectation.nodes.map(({ answeredMillis }, i) => ({ node: all[i]!.name, atMillis: answeredMillis }))
    const { generation, inDoubt, publishedMillis, version } = expectation
    served.push({ expectation, version, generation, inDoubt, publishedMillis, atMillis: now(), nodes })
    keeping.openUnsafe()
  }

  const onTurn = (node: ServingNode, why: string): void => {
    const fields = { node: node.node.name, unserved: node.unserved, reason: why }
    void run(
      Effect.annotateLogs(
        node.up
          ? Effect.logInfo("a name server answers again")
          : Effect.logWarning("a name server does not answer, what is published meanwhile is not served by it"),
        fields
      )
    )
  }

  const nodes = all.map(
    (node, index) =>
      new ServingNode(node, index, options, {
        nameServers,
        elapsed,
        now,
        isCrowded: options.isCrowded,
        flush,
        onAnswered,
        onTurn
      })
  )

  /** Takes the expectation of a name into memory. False when there is no room for another name. */
  const expect = (
    zone: DomainName,
    managed: ReadonlyArray<string>,
    publication: Publication,
    publishedMillis: number,
    writtenBy: string | undefined
  ): boolean => {
    let ofZone = names.get(zone)
    if (ofZone === undefined) names.set(zone, (ofZone = new Map()))
    const { generation, name, rrsets } = publication
    const wanted = Expectation.wanted(rrsets)
    const others = publication.types ?? managed
    let expectation = ofZone.get(name)
    if (expectation === undefined) {
      if (size >= options.namesMax) return false
      expectation = {
        zone,
        name,
        nodes: all.map((): Expectation.Progress => ({
          place: "answered",
          attempts: 0,
          answeredMillis: 0,
          seen: undefined
        })),
        generation,
        version: 0,
        wanted,
        types: Expectation.typesToAsk(wanted, others, managed),
        publishedMillis,
        remaining: all.length,
        inDoubt: publication.inDoubt === true,
        gone: false
      }
      ofZone.set(name, expectation)
      size += 1
    } else {
      const before = expectation.remaining === 0 ? [] : expectation.types
      expectation.generation = generation
      expectation.version += 1
      expectation.wanted = wanted
      expectation.types = Expectation.typesToAsk(wanted, [...before, ...others], managed)
      expectation.publishedMillis = publishedMillis
      expectation.remaining = all.length
      expectation.inDoubt = publication.inDoubt === true
    }
    for (const node of nodes) node.expect(expectation, node.node.name === writtenBy)
    return true
  }

  const published: Serving["Service"]["published"] = (zoneName, publications, writtenBy) => {
    const zone = zones.find(zoneName)
    if (zone === undefined || publications.length === 0) return
    if (!writing.has(zoneName)) return // they are found in the table when it is
    const nowMillis = now()
    const managed = managedTypes(zone)
    for (const publication of publications) {
      if (!expect(zoneName, managed, publication, nowMillis, writtenBy)) isBehind = true
    }
    if (hasSecondaries) wantNotification(zoneName, elapsed())
    for (const node of nodes) node.work()
    working.openUnsafe()
  }

  const forgetZone = (zone: DomainName): void => {
    const ofZone = names.get(zone)
    notifications.delete(zone)
    if (ofZone === undefined) return
    names.delete(zone)
    size -= ofZone.size
    served = served.filter(({ expectation }) => expectation.zone !== zone)
    for (const expectation of ofZone.values()) {
      expectation.gone = true
      for (const node of nodes) node.forget(expectation)
    }
  }

  const wantNotification = (zone: DomainName, nowMillis: number): void => {
    const known = notifications.get(zone)
    const dueMillis = nowMillis + options.flushSpacingMillis
    if (known === undefined) {
      const pauseMillis = options.notifyMillis
      notifications.set(zone, { wanted: true, dueMillis, lastMillis: -Infinity, pauseMillis })
    } else if (!known.wanted) {
      known.wanted = true
      known.dueMillis = dueMillis
      known.pauseMillis = options.notifyMillis
    }
  }

  /** Tells secondaries what has changed; again, ever more rarely, when one of them did not hear it. */
  const notify = (nowMillis: number): void => {
    for (const [zone, notification] of notifications) {
      const { dueMillis, lastMillis, pauseMillis, wanted } = notification
      if (wanted ? nowMillis < Math.max(dueMillis, lastMillis + pauseMillis) : nowMillis < lastMillis + pauseMillis) {
        continue
      }
      if (!wanted) {
        if (!secondariesLack(zone)) continue
        for (const f of unheardBy) f(zone, pauseMillis >= options.notifyMillisMax)
      }
      notification.pauseMillis = wanted ? options.notifyMillis : Math.min(2 * pauseMillis, options.notifyMillisMax)
      notification.wanted = false
      notification.lastMillis = nowMillis
      void run(
        Effect.catch(writer.notify(zone), (error) =>
          Effect.logDebug("secondaries were not notified").pipe(Effect.annotateLogs({ zone, reason: error.message }))
        )
      )
    }
  }

  const secondariesLack = (zone: DomainName): boolean =>
    nodes.some((node) => node.node.role === "secondary" && node.up && node.unservedOf(zone) > 0)

  const perNode = nodes.map((serving) => {
    const node = serving.node.name
    const questions = (result: string) => Metric.withAttributes(DnsMetrics.questionsTotal, { node, result })
    return {
      serving,
      unserved: Metric.withAttributes(DnsMetrics.nodeUnserved, { node }),
      answers: Metric.withAttributes(DnsMetrics.nodeAnswers, { node }),
      asPublished: questions("as-published"),
      stale: questions("stale"),
      noAnswer: questions("no-answer")
    }
  })

  const report = (): void => {
    for (const { answers, serving, unserved, ...results } of perNode) {
      unserved.updateUnsafe(serving.unserved, context)
      answers.updateUnsafe(serving.up ? 1 : 0, context)
      for (const result of ["asPublished", "stale", "noAnswer"] as const) {
        const count = serving.questions[result]
        if (count > 0) results[result].updateUnsafe(count, context)
        serving.questions[result] = 0
      }
    }
  }
  report()

  let reportedMillis = -Infinity
  const work = Effect.gen(function* () {
    yield* working.await
    const nowMillis = elapsed()
    for (const node of nodes) node.work()
    if (hasSecondaries) notify(nowMillis)
    if (!nodes.some((node) => node.busy) && !notifications.values().some(({ wanted }) => wanted)) {
      working.closeUnsafe()
      report()
    } else if (nowMillis - reportedMillis >= reportMillis) {
      reportedMillis = nowMillis
      report()
    }
    yield* Effect.sleep(options.tickMillis)
  })

  const forget = ({ expectation, version }: Served): void => {
    if (expectation.version !== version) return
    const ofZone = names.get(expectation.zone)
    if (ofZone?.delete(expectation.name) !== true) return
    size -= 1
    if (ofZone.size === 0) names.delete(expectation.zone)
  }

  const commit = Effect.gen(function* () {
    const batch = served.slice(0, commitMax)
    if (batch.length === 0) return
    const certain = batch.filter(({ inDoubt }) => !inDoubt)
    if (certain.length > 0) {
      yield* Outbox.writeServed(
        sql,
        certain.map(({ atMillis, expectation: { name, zone }, generation, nodes }) => ({
          zone,
          name,
          generation,
          atMillis,
          nodes: nodes.map(({ atMillis, node }) => [node, atMillis] as const)
        }))
      )
    }
    const done = new Set(batch)
    served = served.filter((each) => !done.has(each))
    for (const each of batch) forget(each)
    for (const { atMillis, expectation, generation, nodes, publishedMillis } of certain) {
      acknowledgements.settle(expectation.zone, expectation.name, generation, { _tag: "Served", atMillis, nodes })
      DnsMetrics.servedDuration.updateUnsafe(Math.max(0, atMillis - publishedMillis) / 1000, context)
    }
    DnsMetrics.servedTotal.updateUnsafe(certain.length, context)
  })

  /** Where the next page of rows begins. */
  let cursor: { readonly zone: string; readonly name: string } = { zone: "", name: "" }

  /**
   * Takes a page of rows that are not in memory. No served row is deleted meanwhile, and no name forgotten, so none comes
   * back that is done with; a name that is in memory is as we were told last, which is never older than the row.
   */
  const load = Effect.gen(function* () {
    if (cursor.zone === "" && cursor.name === "") isBehind = false
    if (writing.size === 0) {
      cursor = { zone: "", name: "" }
      return
    }
    const rows = yield* sql<UnservedRow>`
      SELECT u.zone, u.name, u.generation, u.content, u.applied_at, p.doubt_until
      FROM (
        SELECT zone, name, generation, content, applied_at FROM unserved
        WHERE (zone, name) > (${cursor.zone}, ${cursor.name}) AND zone IN ${asList(sql, [...writing])}
        ORDER BY zone, name LIMIT ${pageSize}) AS u
      LEFT JOIN published p ON p.zone = u.zone AND p.name = u.name
      ORDER BY u.zone, u.name`.pipe(Effect.tapError(() => Effect.sync(() => void (isBehind = true))))
    for (const row of rows) {
      const zone = zones.find(row.zone)
      // One that another writes by now, or that is managed no more, is not ours to ask for.
      if (zone === undefined || !writing.has(row.zone)) continue
      if (names.get(row.zone)?.has(row.name) !== true) {
        const rrsets = fromContent(row.name, row.content)
        const inDoubt = row.doubt_until !== null
        const publication = { name: row.name, generation: Number(row.generation), rrsets, inDoubt }
        if (!expect(row.zone, managedTypes(zone), publication, Number(row.applied_at), undefined)) {
          isBehind = true
          break
        }
        if (hasSecondaries) wantNotification(row.zone, elapsed())
      }
      cursor = { zone: row.zone, name: row.name }
    }
    if (rows.length < pageSize && size < options.namesMax) cursor = { zone: "", name: "" }
    if (rows.length > 0) working.openUnsafe()
  })

  let failedWith: string | undefined
  const keep = Effect.gen(function* () {
    yield* keeping.await
    keeping.closeUnsafe()
    yield* Effect.sleep(options.commitMillis)
    yield* commit
    const isMidway = cursor.zone !== "" || cursor.name !== ""
    if ((isBehind || isMidway) && size <= options.namesMax / 2) yield* load
    const isLoading = (isBehind || cursor.zone !== "" || cursor.name !== "") && size <= options.namesMax / 2
    if (served.length > 0 || isLoading) keeping.openUnsafe()
    if (failedWith !== undefined) {
      failedWith = undefined
      yield* Effect.logInfo("what is served is written down again")
    }
  }).pipe(
    Effect.catchCause((cause) => {
      if (Cause.hasInterruptsOnly(cause)) return Effect.failCause(cause)
      const reason = detailOf(Cause.squash(cause))
      keeping.openUnsafe()
      const isNew = failedWith !== reason
      failedWith = reason
      return Effect.andThen(
        isNew
          ? Effect.logWarning("what is served could not be written down, will try again").pipe(
              Effect.annotateLogs({ reason })
            )
          : Effect.void,
        Effect.sleep(failurePauseMillis)
      )
    })
  )

  const rescan = Effect.andThen(
    Effect.sleep(options.rescanMillis),
    Effect.sync(() => {
      isBehind = true
      keeping.openUnsafe()
    })
  )

  // What was published last in a zone that is managed no more, or that another server writes, is not ours to ask for.
  yield* HeldZones.whileHeld((zone) =>
    Effect.acquireUseRelease(
      Effect.sync(() => {
        writing.add(zone)
        isBehind = true
        keeping.openUnsafe()
      }),
      () => Effect.never,
      () =>
        Effect.sync(() => {
          writing.delete(zone)
          forgetZone(zone)
        })
    )
  )
  yield* Effect.forkScoped(Effect.forever(work))
  yield* Effect.forkScoped(Effect.forever(rescan))
  yield* Effect.forkScoped(Effect.forever(keep))

  /** For each node the name that waits longest for it. */
  const statusOf = (isAbout: (zone: DomainName) => boolean) =>
    Effect.sync(() => {
      const oldest: Array<Expectation.Expectation | undefined> = nodes.map(() => undefined)
      const zones = [...names.keys()].filter(isAbout)
      for (const ofZone of zones.map((zone) => names.get(zone)!)) {
        for (const expectation of ofZone.values()) {
          for (let i = 0; i < nodes.length; i++) {
            if (expectation.nodes[i]!.place === "answered") continue
            if ((oldest[i]?.publishedMillis ?? Infinity) > expectation.publishedMillis) oldest[i] = expectation
          }
        }
      }
      return nodes.map((node, i): NodeStatus => {
        const waiting = oldest[i]
        return {
          name: node.node.name,
          role: node.node.role,
          up: node.up,
          unserved: zones.reduce((sum, zone) => sum + node.unservedOf(zone), 0),
          lastAnsweredMillis: node.lastAnsweredMillis,
          oldest:
            waiting === undefined
              ? undefined
              : {
                  zone: waiting.zone,
                  name: waiting.name,
                  generation: waiting.generation,
                  publishedMillis: waiting.publishedMillis,
                  answered: waiting.nodes[i]!.seen
                }
        }
      })
    })

  const secondarySerial = (zone: DomainName) =>
    Effect.forEach(
      secondaries,
      ({ dns }) =>
        nameServers.ask(dns, zone, "SOA").pipe(
          Effect.map(({ contents: [soa] }) => Serial.ofSoa(soa)),
          Effect.catch(() => Effect.undefined)
        ),
      { concurrency: "unbounded" }
    ).pipe(Effect.map((serials) => Serial.latest(serials.filter((serial) => serial !== undefined))))

  return Serving.of({
    published,
    status: statusOf(() => true),
    statusOf,
    secondarySerial,
    onUnheard: (f) =>
      Effect.asVoid(
        Effect.acquireRelease(
          Effect.sync(() => unheardBy.add(f)),
          () => Effect.sync(() => unheardBy.delete(f))
        )
      )
  })
})

/** Rows written or read at once. */
const commitMax = 1000
const pageSize = 1000

const reportMillis = 1000
const failurePauseMillis = 1000

interface UnservedRow {
  readonly zone: DomainName
  readonly name: DomainName
  readonly generation: number | bigint
  readonly content: string
  readonly applied_at: number | bigint
  /** Null too where nothing of the name is ours any more. */
  readonly doubt_until: number | bigint | null
}

const fromContent = (name: DomainName, content: string): ReadonlyArray<RRset.RRset> =>
  (JSON.parse(content) as ReadonlyArray<[string, number, ReadonlyArray<string>]>).map(
    ([type, ttlSeconds, contents]) => ({ name, type, ttlSeconds, contents })
  )
