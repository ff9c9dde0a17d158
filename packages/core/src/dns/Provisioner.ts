/**
 * Sees to it that each zone exists at the PowerDNS servers, as publishing and
 * transfers need it.
 *
 * At the primaries, once for each database of theirs: the zone with its kind,
 * signatures, keys for transfers, place in the catalog and whom to notify. At
 * each secondary with an API: where to fetch it from and with which key. With
 * several databases secondaries fetch from the one that leads, which alone
 * notifies them and whose serial is raised above theirs; and none is signed, since
 * each would make keys of its own.
 *
 * Promises: `ensure` ends when the primary is ready to be written; what it finds
 * there of others' making stays, unless it keeps publishing or transfers from
 * working. Secondaries are seen to in the background, again and again until they
 * are as they should: one that is away holds up nobody, and `problems` names it.
 * Leaves to others: records, and secondaries without an API (they follow the
 * catalog, or are set up by hand).
 */
import { Context, Effect, FiberMap, Layer, Option, Schedule, Semaphore } from "effect"
import { lookup } from "node:dns/promises"
import { isIP } from "node:net"
import type { DomainName } from "../domain/DomainName.ts"
import * as RRset from "../domain/RRset.ts"
import * as Serial from "../domain/Serial.ts"
import type { Zone } from "../domain/Zone.ts"
import {
  missingSettings,
  PowerDnsClient,
  soaContent,
  soaTtlSeconds,
  type TsigKey,
  type ZoneInfo,
  type ZoneKey,
  type ZoneSettings
} from "../powerdns/PowerDnsClient.ts"
import { NotFound, PowerDnsError, Refused, Unreachable } from "../powerdns/PowerDnsError.ts"
import { databaseOf, type DnsEndpoint, type Node, PowerDnsNodes, unnamedDatabase } from "../powerdns/PowerDnsNodes.ts"

export interface ProvisionerOptions {
  /** How zones come to secondaries. */
  readonly transfer: {
    /** Signs transfers and NOTIFY; undefined: they are allowed by address, by the servers' own settings. */
    readonly tsig: TsigKey | undefined
    /** The catalog zone that tells secondaries which zones there are; undefined: each is set up by its API. */
    readonly catalog: DomainName | undefined
  }
  /** Longest pause before a secondary that is not ready is seen to again. Default 30 s. */
  readonly retryMillisMax?: number
}

/** What is not as it should be at a node, while publishing goes on. */
export interface Problem {
  readonly zone: DomainName
  readonly node: string
  readonly reason: string
}

/** The latest serial of a zone that a secondary answers. */
export interface SeenSerial {
  readonly serial: number
  /** The database that leads may not have counted it: the same serial there may stand for other records. */
  readonly isForeign: boolean
}

export interface ZoneSignature {
  readonly signed: boolean
  readonly keys: ReadonlyArray<ZoneKey>
}

export class Provisioner extends Context.Service<
  Provisioner,
  {
    /**
     * Makes the zone ready at the primaries; fails with `NotFound` when it is missing and not ours to create. Does
     * nothing where nothing is missing, at the cost of a few reads. Gives whether the zone was made, which is said once.
     * Its serial is raised above the one that was seen at secondaries, where they would not take it for newer. That is a
     * write: to be called by whoever writes the zone, between other writes.
     */
    readonly ensure: (zone: Zone, seen?: SeenSerial) => Effect.Effect<boolean, PowerDnsError>
    /**
     * Whether the zone may be written before `ensure` has seen to the rest, as where another server wrote it until a moment
     * ago. It costs one read.
     */
    readonly isWritable: (zone: Zone) => Effect.Effect<boolean, PowerDnsError>
    /** The same at a database that follows the one that leads, by `client`. */
    readonly ensureCopy: (zone: Zone, client: PowerDnsClient["Service"]) => Effect.Effect<boolean, PowerDnsError>
    /** What `problems` is to say of a zone at a node, or nothing any more. */
    readonly note: (zone: DomainName, node: string, reason: string | undefined) => Effect.Effect<void>
    /** Whether somebody fetches the zone and is to be told of changes (`PowerDnsClient.notify`). */
    readonly notifyNeeded: (zone: Zone) => boolean
    /** Whether the zone is signed, and by which keys; their DS records go to the parent zone. */
    readonly dnssec: (zone: DomainName) => Effect.Effect<ZoneSignature, PowerDnsError>
    /** Sees to the zone at secondaries no more. */
    readonly forget: (zone: DomainName) => Effect.Effect<void>
    readonly problems: Effect.Effect<ReadonlyArray<Problem>>
  }
>()("@prism-dns/core/dns/Provisioner") {
  static readonly layer = (
    options: ProvisionerOptions = { transfer: { tsig: undefined, catalog: undefined } }
  ): Layer.Layer<Provisioner, never, PowerDnsClient | PowerDnsNodes> => Layer.effect(Provisioner, make(options))
}

/** A member that the catalog has not brought by this attempt, some ten seconds later, is news. */
const newsAttempts = 8

/** The name server that PowerDNS writes into an SOA when nobody told it one. */
const placeholderServer = "a.misconfigured.dns.server.invalid."

/** A moment after a zone was made: whoever asked while it was being made was refused, and that is cached too. */
const flushAgainMillis = 50

const make = Effect.fnUntraced(function* ({ retryMillisMax = 30_000, transfer }: ProvisionerOptions) {
  const leading = yield* PowerDnsClient
  const nodes = (yield* PowerDnsNodes).all
  const scope = yield* Effect.scope
  const { tsig } = transfer
  const primaries = nodes.filter(({ role }) => role === "primary")
  const [preferred] = primaries
  const databases = new Map(primaries.map((node) => [node.name, databaseOf(node)]))
  const hasSeveral = new Set(databases.values()).size > 1
  /** Those that have the catalog: each database would give its members other names, and who follows would make each zone anew. */
  const cataloguers = primaries.filter((node) => databaseOf(node) === databaseOf(preferred ?? {}))
  const secondaries = nodes.filter(({ role }) => role === "secondary")
  const hasSecondaries = secondaries.length > 0
  const catalog = hasSecondaries ? transfer.catalog : undefined
  const primaryKeys = hasSecondaries && tsig !== undefined ? [tsig.name] : []

  type Client = PowerDnsClient["Service"]
  const databaseAt = (powerdns: Client): string => databases.get(powerdns.node) ?? unnamedDatabase
  /** Whether secondaries fetch from this one, of several databases. */
  const leads = (powerdns: Client): boolean => !hasSeveral || databaseAt(powerdns) === databaseAt(leading)
  /** Those from which secondaries fetch. */
  const sources = () => (hasSeveral ? primaries.filter((node) => databaseOf(node) === databaseAt(leading)) : primaries)
  const hasCatalog = (powerdns: Client): boolean =>
    !hasSeveral || cataloguers.some(({ name }) => name === powerdns.node)

  const problems = new Map<string, Problem>()
  /** Zones that were made in a database, and of which `ensure` has not said so yet: it may fail after that. */
  const made = new Set<string>()

  const note = Effect.fnUntraced(function* (zone: DomainName, node: string, reason: string) {
    const key = `${zone} ${node}`
    if (problems.get(key)?.reason === reason) return
    problems.set(key, { zone, node, reason })
    yield* Effect.logWarning("a zone is not yet as it should be at a node").pipe(
      Effect.annotateLogs({ zone, node, reason })
    )
  })

  const settle = (zone: DomainName, node: string) =>
    Effect.suspend(() =>
      problems.delete(`${zone} ${node}`)
        ? Effect.logInfo("a zone is as it should be at a node").pipe(Effect.annotateLogs({ zone, node }))
        : Effect.void
    )

  // -------------------------------------------------------------------------------------------------------------------
  // The primaries
  // -------------------------------------------------------------------------------------------------------------------

  const refuse = (node: string, detail: string) =>
    new PowerDnsError({ node, operation: "ensureZone", reason: new Refused({ detail }) })

  /** One zone of this kind, made if it is missing. Gives whether it was. */
  const ensureCreated = (create: Effect.Effect<void, PowerDnsError>): Effect.Effect<boolean, PowerDnsError> =>
    create.pipe(
      Effect.as(true),
      Effect.catchIf(
        ({ reason }) => reason._tag === "Conflict", // by another server of ours, in between
        () => Effect.succeed(false)
      )
    )

  /**
   * Tells the primary whom to notify: by its own means it knows but the zone's name servers. One that does not lead is told
   * not to: what it has may be older.
   */
  const ensureNotified = Effect.fnUntraced(function* (powerdns: Client, zone: DomainName, notifies: boolean) {
    const ours = yield* Effect.forEach(secondaries, ({ dns, name }) => address(name, dns))
    const found = yield* powerdns.getMetadata(zone, "ALSO-NOTIFY")
    const others = found.filter((each) => !ours.includes(each))
    const isRight = notifies ? ours.every((each) => found.includes(each)) : others.length === found.length
    if (!isRight) yield* powerdns.setMetadata(zone, "ALSO-NOTIFY", notifies ? [...others, ...ours] : others)
  })

  const ensureCatalog = Effect.fnUntraced(function* (powerdns: Client, catalog: DomainName) {
    const found = Option.getOrUndefined(yield* powerdns.findZone(catalog))
    if (found === undefined) {
      yield* ensureCreated(
        powerdns.createZone({ name: catalog, kind: "Producer", nameservers: [invalidServer], primaryKeys })
      )
    } else if (found.kind !== "Producer") {
      yield* refuse(powerdns.node, `the zone ${catalog} exists there and is no catalog (its kind is ${found.kind})`)
    } else {
      return yield* sideBySide(
        powerdns.configureZone(catalog, { primaryKeys }),
        ensureNotified(powerdns, catalog, true)
      )
    }
    yield* ensureNotified(powerdns, catalog, true)
  })

  /** What all zones share. Its failure keeps them from secondaries, not from being published. */
  const ensureShared = Effect.fnUntraced(function* (powerdns: Client) {
    if (hasSecondaries && tsig !== undefined) yield* powerdns.ensureTsigKey(tsig)
    if (catalog !== undefined && hasCatalog(powerdns)) yield* ensureCatalog(powerdns, catalog)
  })
  const sharedZone = transfer.catalog ?? ("." as DomainName)
  const sharedTurn = yield* Semaphore.make(1)
  const shared = (powerdns: Client) =>
    sharedTurn.withPermit(
      ensureShared(powerdns).pipe(
        Effect.matchEffect({
          onFailure: (error) =>
            // An unreachable server will fail the zone itself, with the same words.
            error.retryable ? Effect.fail(error) : Effect.as(note(sharedZone, error.node, error.reason.detail), false),
          onSuccess: () => Effect.as(settle(sharedZone, powerdns.node), true)
        })
      )
    )

  const ensureSoa = Effect.fnUntraced(function* (powerdns: Client, zone: Zone) {
    const soa = (yield* powerdns.rrsets(zone.name, [zone.name])).find(({ type }) => type === "SOA")
    const serial = Serial.ofSoa(soa?.contents[0])
    if (serial === undefined || soa?.contents[0]?.startsWith(`${placeholderServer} `) !== true) return
    const content = soaContent(zone.name, zone.nameservers, serial)
    yield* powerdns.patch(zone.name, [
      { _tag: "Replace", rrset: RRset.make(zone.name, "SOA", soa?.ttlSeconds ?? soaTtlSeconds, [content]) }
    ])
  })

  /** What secondaries fetch is not behind what they have: else they would not take it. */
  const ensureSerial = Effect.fnUntraced(function* (powerdns: Client, zone: DomainName, seen: SeenSerial) {
    const soa = (yield* powerdns.rrsets(zone, [zone])).find(({ type }) => type === "SOA")
    const content = soa?.contents[0]
    const serial = Serial.ofSoa(content)
    if (soa === undefined || content === undefined || serial === undefined) return
    if (Serial.isUpToDate(serial, seen.isForeign ? Serial.next(seen.serial) : seen.serial)) return
    // PowerDNS raises by one what it is sent.
    const sent = Serial.inSoa(content, seen.serial)
    yield* powerdns.patch(zone, [{ _tag: "Replace", rrset: RRset.make(zone, "SOA", soa.ttlSeconds, [sent]) }])
    yield* Effect.logInfo("the serial of a zone was raised above what secondaries have").pipe(
      Effect.annotateLogs({ zone, node: powerdns.node, serial, secondaries: seen.serial })
    )
    yield* flushEverywhere(zone).pipe(
      Effect.andThen(powerdns.notify(zone)),
      Effect.catch((error) =>
        Effect.logDebug("secondaries were not notified").pipe(Effect.annotateLogs({ zone, reason: error.message }))
      ),
      Effect.forkIn(scope)
    )
  })

  /** What publishing relies on, of the settings of a zone. */
  const writtenAs = (zone: Zone, found: ZoneInfo | undefined): ZoneSettings => ({
    ...(hasSecondaries && (found === undefined || found.kind === "Native") ? { kind: "Master" } : {}),
    // PowerDNS transfers no zone signed with NSEC3 narrow, whoever has signed it.
    ...(hasSecondaries && isSigned(zone, found) ? { dnssec: "chain" } : zone.dnssec ? { dnssec: "narrow" } : {})
  })

  const ensureAt = Effect.fn("Provisioner.ensure")(function* (zone: Zone, powerdns: Client, seen?: SeenSerial) {
    const [isShared, maybeFound] = yield* Effect.all(
      [hasSecondaries ? shared(powerdns) : Effect.succeed(false), powerdns.findZone(zone.name)],
      { concurrency: 2 }
    )
    const found = Option.getOrUndefined(maybeFound)
    const notified = hasSecondaries
      ? orNote(powerdns, zone.name, ensureNotified(powerdns, zone.name, leads(powerdns)))
      : Effect.void
    if (hasSeveral && isSigned(zone, found)) {
      return yield* refuse(
        powerdns.node,
        `the zone ${zone.name} is signed, and each of several databases would have keys of its own: that needs one database`
      )
    }
    const wanted: ZoneSettings = {
      ...writtenAs(zone, found),
      ...(catalog !== undefined && isShared && hasCatalog(powerdns) ? { catalog } : {}),
      ...(isShared ? { primaryKeys } : {})
    }
    if (found !== undefined) {
      if (!writableKinds.has(found.kind)) {
        return yield* refuse(powerdns.node, `the zone ${zone.name} is not written there: its kind is ${found.kind}`)
      }
      yield* sideBySide(Effect.andThen(powerdns.configureZone(zone.name, wanted), ensureSoa(powerdns, zone)), notified)
    } else if (zone.createIfMissing) {
      const { name, nameservers } = zone
      const isMade = yield* ensureCreated(powerdns.createZone({ kind: "Native", ...wanted, name, nameservers }))
      if (isMade) {
        made.add(`${databaseAt(powerdns)} ${name}`)
        yield* Effect.logInfo("zone created in PowerDNS").pipe(Effect.annotateLogs({ zone: name, node: powerdns.node }))
      } else yield* powerdns.configureZone(name, wanted)
      yield* flushEverywhere(name).pipe(
        Effect.andThen(Effect.delay(flushEverywhere(name), flushAgainMillis)),
        Effect.forkIn(scope)
      )
      yield* notified
    } else {
      return yield* new PowerDnsError({
        node: powerdns.node,
        operation: "ensureZone",
        reason: new NotFound({
          detail: `zone ${zone.name} does not exist there; create it, or set 'create: true' for the zone`
        })
      })
    }
    if (hasSecondaries) {
      if (seen !== undefined && leads(powerdns)) {
        yield* orNote(powerdns, zone.name, ensureSerial(powerdns, zone.name, seen))
      }
      if (leads(powerdns)) yield* startSecondaries(zone.name)
    }
    return made.delete(`${databaseAt(powerdns)} ${zone.name}`)
  })

  /** What only secondaries lack keeps nobody from publishing. */
  const orNote = (powerdns: Client, zone: DomainName, effect: Effect.Effect<void, PowerDnsError>) =>
    effect.pipe(
      Effect.andThen(settle(zone, powerdns.node)),
      Effect.catchIf(
        ({ reason }) => !reason.retryable || reason._tag === "Unreachable",
        (error) => note(zone, powerdns.node, error.reason.detail)
      )
    )

  /** Servers that share a database with the one that was written know a new zone only after a while, by themselves. */
  const flushEverywhere = (zone: DomainName) =>
    Effect.forEach(
      nodes.filter(({ role }) => role !== "secondary"),
      ({ api }) =>
        api === undefined
          ? Effect.void
          : Effect.catch(api.flush(zone), (error) =>
              Effect.logDebug("a new zone was not made known").pipe(
                Effect.annotateLogs({ zone, reason: error.message })
              )
            ),
      { concurrency: "unbounded", discard: true }
    )

  // -------------------------------------------------------------------------------------------------------------------
  // The secondaries
  // -------------------------------------------------------------------------------------------------------------------

  const isAhead = (serial: number, zone: DomainName) =>
    Effect.map(
      leading.findZone(zone),
      (found) => Option.isSome(found) && !Serial.isUpToDate(found.value.serial, serial)
    )

  /** A zone that is fetched: made, or brought to what it should be, and then fetched at once. */
  const ensureFetched = Effect.fnUntraced(function* (
    node: Node & { readonly api: PowerDnsClient["Service"] },
    name: DomainName,
    kind: "Slave" | "Consumer",
    settings: ZoneSettings,
    found: ZoneInfo | undefined
  ) {
    if (found === undefined) {
      yield* ensureCreated(node.api.createZone({ ...settings, name, kind, nameservers: [] }))
    } else if (found.kind !== kind) {
      return yield* refuse(node.name, `the zone ${name} exists there, and its kind is ${found.kind} instead of ${kind}`)
    } else {
      yield* node.api.configureZone(name, settings)
      if (found.serial > 0 && Object.keys(missingSettings(found, settings)).length === 0) return
      // By force it would go back to a lower serial. Where it lacks something, the primary's is raised.
      if (hasSeveral && found.serial > 0 && (yield* isAhead(found.serial, name))) return
    }
    yield* node.api.axfrRetrieve(name)
  })

  const ensureAtSecondary = Effect.fnUntraced(function* (
    node: Node & { readonly api: PowerDnsClient["Service"] },
    zone: DomainName
  ) {
    const { api } = node
    if (tsig !== undefined) yield* api.ensureTsigKey(tsig)
    const secondaryKeys = tsig === undefined ? {} : { secondaryKeys: [tsig.name] }
    const addressesOf = (of: ReadonlyArray<Node>) => Effect.forEach(of, ({ dns, name }) => address(name, dns))
    const masters = yield* addressesOf(sources())
    const found = Option.getOrUndefined(yield* api.findZone(zone))
    if (catalog === undefined) return yield* ensureFetched(node, zone, "Slave", { masters, ...secondaryKeys }, found)

    const foundCatalog = Option.getOrUndefined(yield* api.findZone(catalog))
    const catalogMasters = yield* addressesOf(cataloguers)
    yield* ensureFetched(node, catalog, "Consumer", { masters: catalogMasters, ...secondaryKeys }, foundCatalog)
    // The member has its masters from the catalog, but not the key; nor the database that leads instead of the first.
    const settings = { ...(hasSeveral ? { masters } : {}), ...secondaryKeys }
    if (found !== undefined) return yield* ensureFetched(node, zone, "Slave", settings, found)
    // The primary notices new members each minute only, but puts them into each transfer.
    yield* api.axfrRetrieve(catalog)
    yield* new PowerDnsError({
      node: node.name,
      operation: "ensureZone",
      reason: new NotFound({ detail: `the catalog ${catalog} has not brought the zone ${zone} there yet` })
    })
  })

  const working = yield* FiberMap.make<string>()
  const startSecondaries = (zone: DomainName) =>
    Effect.forEach(
      secondaries,
      (node) => {
        const { api, name } = node
        if (api === undefined) return Effect.void
        let attempts = 0
        const work = ensureAtSecondary({ ...node, api }, zone).pipe(
          Effect.tapError((error) => {
            attempts++
            const isOnItsWay = error.reason._tag === "NotFound" && attempts < newsAttempts
            return isOnItsWay ? Effect.void : note(zone, name, error.reason.detail)
          }),
          Effect.retry(
            Schedule.min([Schedule.exponential(100), Schedule.spaced(retryMillisMax)]).pipe(Schedule.jittered)
          ),
          Effect.andThen(settle(zone, name)),
          Effect.orDie // unreachable: the schedule never ends
        )
        // Another may have come to lead since: then it begins anew.
        return FiberMap.run(working, `${zone} ${name}`, work, { onlyIfMissing: !hasSeveral })
      },
      { discard: true }
    )

  return Provisioner.of({
    ensure: (zone, seen) => ensureAt(zone, leading, seen),
    ensureCopy: (zone, client) => ensureAt(zone, client),
    isWritable: Effect.fn("Provisioner.isWritable")(function* (zone: Zone) {
      const found = Option.getOrUndefined(yield* leading.findZone(zone.name))
      return (
        found !== undefined &&
        writableKinds.has(found.kind) &&
        !made.has(`${databaseAt(leading)} ${zone.name}`) &&
        !(hasSeveral && isSigned(zone, found)) &&
        Object.keys(missingSettings(found, writtenAs(zone, found))).length === 0
      )
    }),
    note: (zone, node, reason) => (reason === undefined ? settle(zone, node) : note(zone, node, reason)),
    notifyNeeded: () => hasSecondaries,
    dnssec: Effect.fn("Provisioner.dnssec")(function* (zone: DomainName) {
      const keys = yield* leading.zoneKeys(zone)
      return { signed: keys.some(({ active }) => active), keys }
    }),
    forget: Effect.fn("Provisioner.forget")(function* (zone) {
      for (const database of databases.values()) made.delete(`${database} ${zone}`)
      for (const { name } of [...secondaries, ...primaries]) {
        yield* FiberMap.remove(working, `${zone} ${name}`)
        problems.delete(`${zone} ${name}`)
      }
    }),
    problems: Effect.sync(() => [...problems.values()])
  })
})

/** Steps of which none needs another: whoever takes over a zone waits for all of them. */
const sideBySide = (...steps: ReadonlyArray<Effect.Effect<void, PowerDnsError>>) =>
  Effect.all(steps, { concurrency: "unbounded", discard: true })

const isSigned = (zone: Zone, found: ZoneInfo | undefined): boolean => zone.dnssec || found?.dnssec === true

/** The kinds of zone that may be written at a primary. */
const writableKinds: ReadonlySet<string> = new Set(["Native", "Master"])

/** The name server of a catalog zone (RFC 9432, 4.1): nobody resolves it. */
const invalidServer = "invalid." as DomainName

/** PowerDNS takes masters and those to notify by address only. */
const address = (node: string, { host, port }: DnsEndpoint): Effect.Effect<string, PowerDnsError> =>
  (isIP(host) !== 0
    ? Effect.succeed(host)
    : Effect.tryPromise({
        try: () => lookup(host).then((found) => found.address),
        catch: () =>
          new PowerDnsError({
            node,
            operation: "ensureZone",
            reason: new Unreachable({ detail: `the address of ${host} is not known` })
          })
      })
  ).pipe(Effect.map((ip) => (isIP(ip) === 6 ? `[${ip}]:${port}` : `${ip}:${port}`)))
