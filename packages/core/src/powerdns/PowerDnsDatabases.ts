/**
 * The databases that primaries write, where not all of them share one: one of
 * them takes the writes first, and the others are copies that are kept in line
 * with it (`dns/Copies`).
 *
 * Promises: the `PowerDnsClient` here reads and writes the one that leads, the
 * first of the configuration if all is well, and notifies secondaries by it; when
 * none of its primaries answers, the next that does leads at once, since nothing
 * that still comes of the last one can reach another's records. The first one
 * leads again when it has been well for a while and lacks nothing. With one
 * database all of this is `PowerDnsWriter`. Leaves to others: who of the primaries of one database writes
 * it (`PowerDnsWriter`), and what a copy lacks (`dns/Debts`).
 */
import { Clock, Context, Effect, Exit, Layer, type Scope, Stream } from "effect"
import type { DomainName } from "../domain/DomainName.ts"
import { PowerDnsClient } from "./PowerDnsClient.ts"
import { databaseOf, type Node, PowerDnsNodes, unnamedDatabase } from "./PowerDnsNodes.ts"
import * as Writer from "./PowerDnsWriter.ts"
import { PowerDnsWriter, type PowerDnsWriterOptions } from "./PowerDnsWriter.ts"

export interface Database {
  readonly name: string
  /** Reads and writes this one, by whichever of its primaries takes the writes. */
  readonly client: PowerDnsClient["Service"]
  /** For how long each question to it was answered, in milliseconds; infinite where none went unanswered since the start. 0: it is away. */
  readonly wellMillis: (nowMillis: number) => number
  /** A request to it went unanswered. */
  readonly failed: () => void
  /** Zones of which it lacks something, as far as this server knows; while there are any it does not get the lead back. */
  readonly owing: Set<DomainName>
}

export class PowerDnsDatabases extends Context.Service<
  PowerDnsDatabases,
  {
    /** In the order of preference. */
    readonly all: readonly [Database, ...ReadonlyArray<Database>]
    /** The one that takes the writes first. */
    readonly leading: () => Database
    /** `f` is called each time another has come to lead, until the scope ends. */
    readonly onLead: (f: () => void) => Effect.Effect<void, never, Scope.Scope>
  }
>()("@prism-dns/core/powerdns/PowerDnsDatabases") {
  /** Over the primaries of `PowerDnsNodes`. */
  static readonly layer = (
    options: Partial<PowerDnsWriterOptions> = {}
  ): Layer.Layer<PowerDnsClient | PowerDnsWriter | PowerDnsDatabases, never, PowerDnsNodes> =>
    Layer.effectContext(
      Effect.map(make({ ...Writer.defaultOptions, ...options }), ({ client, databases, writer }) =>
        Context.make(PowerDnsClient, client).pipe(
          Context.add(PowerDnsWriter, writer),
          Context.add(PowerDnsDatabases, databases)
        )
      )
    )

  /** One database with whatever `PowerDnsClient` is around; for tests. */
  static readonly layerOne: Layer.Layer<PowerDnsDatabases, never, PowerDnsClient> = Layer.effect(
    PowerDnsDatabases,
    Effect.map(PowerDnsClient, (client) => {
      const one: Database = {
        name: unnamedDatabase,
        client,
        wellMillis: () => Infinity,
        failed: () => undefined,
        owing: new Set()
      }
      return PowerDnsDatabases.of({ all: [one], leading: () => one, onLead: () => Effect.void })
    })
  )
}

interface Group extends Database {
  readonly writer: PowerDnsWriter["Service"]
  readonly report: Effect.Effect<void>
  /** How long it may be away before another leads: where it has several primaries, one of them may take over first. */
  readonly awayMillis: number
  failures: number
  failingSinceMillis: number | undefined
  /** Undefined: it did not answer last. `-Infinity`: always. */
  wellSinceMillis: number | undefined
}

const make = Effect.fnUntraced(function* (options: PowerDnsWriterOptions) {
  const primaries = (yield* PowerDnsNodes).all.filter(({ api, role }) => role === "primary" && api !== undefined)
  const byDatabase = Map.groupBy(primaries, databaseOf)
  let leadingName = byDatabase.keys().next().value
  const groups = yield* Effect.forEach(byDatabase, ([name, nodes]) =>
    makeGroup(name, nodes, options, () => name === leadingName)
  )
  const [first, ...rest] = groups
  if (first === undefined) return yield* Effect.die(new Error("no primary among the nodes has an API"))
  let leading = first
  let sinceMillis: number | undefined
  const listeners = new Set<() => void>()
  const databases = PowerDnsDatabases.of({
    all: [first, ...rest],
    leading: () => leading,
    onLead: (f) =>
      Effect.asVoid(
        Effect.acquireRelease(
          Effect.sync(() => listeners.add(f)),
          () => Effect.sync(() => listeners.delete(f))
        )
      )
  })
  if (rest.length === 0) return { client: first.client, writer: first.writer, databases }

  const switchTo = Effect.fnUntraced(function* (next: Group, nowMillis: number, why: string) {
    const last = leading
    leading = next
    leadingName = next.name
    sinceMillis = nowMillis
    yield* Effect.logWarning("another PowerDNS database takes the writes first").pipe(
      Effect.annotateLogs({ database: next.name, last: last.name, why })
    )
    yield* Effect.forEach(groups, ({ report }) => report, { discard: true })
    for (const f of listeners) f()
  })

  const decide = Effect.fnUntraced(function* (nowMillis: number) {
    const { awayMillis, failingSinceMillis, failures } = leading
    const isAway =
      failures >= options.failuresMax &&
      failingSinceMillis !== undefined &&
      nowMillis - failingSinceMillis >= awayMillis
    if (isAway) {
      const next = groups.find((each) => each !== leading && each.wellSinceMillis !== undefined)
      if (next !== undefined) yield* switchTo(next, nowMillis, "no primary of the last one answers")
      return
    }
    const better = groups
      .slice(0, groups.indexOf(leading))
      .find((each) => each.wellMillis(nowMillis) >= options.healthyMillis && each.owing.size === 0)
    if (better !== undefined) yield* switchTo(better, nowMillis, "it is preferred, is well again, and lacks nothing")
  })

  const probe = Effect.fnUntraced(function* (group: Group) {
    const exit = yield* Effect.exit(
      group.client.server.pipe(
        Effect.as(true),
        Effect.catchIf(
          (error) => !Writer.isAbsence(error),
          () => Effect.succeed(true)
        ),
        Effect.timeout(options.probeMillisMax)
      )
    )
    const nowMillis = yield* Clock.currentTimeMillis
    if (Exit.isSuccess(exit)) {
      group.failures = 0
      group.failingSinceMillis = undefined
      group.wellSinceMillis ??= nowMillis
    } else {
      group.failures++
      group.failingSinceMillis ??= nowMillis
      group.wellSinceMillis = undefined
    }
    yield* decide(nowMillis)
  })
  for (const group of groups) {
    yield* probe(group).pipe(Effect.andThen(Effect.sleep(options.probeMillis)), Effect.forever, Effect.forkScoped)
  }

  return {
    databases,
    client: following(() => leading.client),
    writer: PowerDnsWriter.of({
      status: Effect.gen(function* () {
        const status = yield* leading.writer.status
        const { preferred } = yield* first.writer.status
        const since = [sinceMillis, status.sinceMillis].filter((millis) => millis !== undefined)
        return { ...status, preferred, sinceMillis: since.length === 0 ? undefined : Math.max(...since) }
      }),
      lateWrites: Stream.mergeAll(
        groups.map(({ writer }) => writer.lateWrites),
        { concurrency: "unbounded" }
      )
    })
  }
})

const makeGroup = Effect.fnUntraced(function* (
  name: string,
  nodes: ReadonlyArray<Node>,
  options: PowerDnsWriterOptions,
  leads: () => boolean
) {
  const { client, report, writer } = yield* Writer.make(nodes, options, leads)
  const group: Group = {
    name,
    client,
    writer,
    report,
    owing: new Set(),
    awayMillis: options.awayMillis * (nodes.length > 1 ? 2 : 1),
    failures: 0,
    failingSinceMillis: undefined,
    wellSinceMillis: -Infinity,
    wellMillis: (nowMillis) => (group.wellSinceMillis === undefined ? 0 : nowMillis - group.wellSinceMillis),
    failed: () => {
      group.wellSinceMillis = undefined
    }
  }
  return group
})

/** A client that is whichever `current` gives at each call. */
const following = (current: () => PowerDnsClient["Service"]): PowerDnsClient["Service"] => {
  const now = <A, E>(call: (client: PowerDnsClient["Service"]) => Effect.Effect<A, E>) =>
    Effect.suspend(() => call(current()))
  return PowerDnsClient.of({
    get node() {
      return current().node
    },
    server: now((client) => client.server),
    serverConfiguration: now((client) => client.serverConfiguration),
    listZones: now((client) => client.listZones),
    findZone: (zone) => now((client) => client.findZone(zone)),
    rrsets: (zone, names, recordsAtLeast) => now((client) => client.rrsets(zone, names, recordsAtLeast)),
    exportZone: (zone) => now((client) => client.exportZone(zone)),
    records: (zone) => Stream.suspend(() => current().records(zone)),
    zoneKeys: (zone) => now((client) => client.zoneKeys(zone)),
    getMetadata: (zone, kind) => now((client) => client.getMetadata(zone, kind)),
    setMetadata: (zone, kind, values) => now((client) => client.setMetadata(zone, kind, values)),
    flush: (name) => now((client) => client.flush(name)),
    notify: (zone) => now((client) => client.notify(zone)),
    axfrRetrieve: (zone) => now((client) => client.axfrRetrieve(zone)),
    createZone: (zone) => now((client) => client.createZone(zone)),
    deleteZone: (zone) => now((client) => client.deleteZone(zone)),
    configureZone: (zone, wanted) => now((client) => client.configureZone(zone, wanted)),
    patch: (zone, changes) => now((client) => client.patch(zone, changes)),
    rectify: (zone) => now((client) => client.rectify(zone)),
    ensureTsigKey: (key) => now((client) => client.ensureTsigKey(key))
  })
}
