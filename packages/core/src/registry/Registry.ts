/**
 * The host registry: what should be true of every host's name.
 *
 * A change of a host, its history row, its audit entry and the marks of the
 * names it touches commit together or not at all. Registrations share a commit
 * (`GroupCommit`): one transaction and one statement for each table, whatever
 * their number. A beat that changes nothing is answered from memory. When the
 * database is lost, all that waits is decided anew on the server that takes over,
 * also where the commit may have been done: registrations then turn out to be
 * renewals, and for what somebody said it is looked up.
 *
 * Leaves to others: whether the registrant may register at all (`auth/Policy`),
 * what becomes of leases that pass (`registry/Expiry`), and publishing
 * (`dns/DnsManager`).
 */
import { Cause, Clock, Context, Effect, Layer, Option, Result, Schedule, Schema } from "effect"
import { SecureRandom } from "effect/crypto"
import * as Metric from "effect/Metric"
import { SqlClient, SqlError } from "effect/sql"
import * as Audit from "../audit/Entries.ts"
import * as Turns from "../audit/Turns.ts"
import { Signals } from "../cluster/Signals.ts"
import type { DomainName } from "../domain/DomainName.ts"
import type { Host, HostState, Publication } from "../domain/Host.ts"
import { Asked } from "../cluster/Asked.ts"
import { Cluster } from "../cluster/Cluster.ts"
import { Acknowledgements, type Ticket } from "../dns/Acknowledgements.ts"
import { Outbox } from "../dns/Outbox.ts"
import { hostConflicts } from "../dns/RecordChanges.ts"
import { type RecordPlace, Zones, ZonesMoved } from "../dns/Zones.ts"
import { Durability } from "../storage/Durability.ts"
import { Failover } from "../storage/Failover.ts"
import * as Generation from "../storage/Generation.ts"
import * as Loss from "../storage/Loss.ts"
import { detailOf, isCollision } from "../storage/SqlFailure.ts"
import * as Together from "../storage/Together.ts"
import * as Zone from "../domain/Zone.ts"
import * as Damping from "./Damping.ts"
import {
  decide,
  decideSuffixed,
  HostnameFlapping,
  type HostnameTaken,
  type QuotaExceeded,
  ZoneGone,
  type Registration,
  suffixedNames,
  takenByRecord
} from "./Decision.ts"
import * as GroupCommit from "./GroupCommit.ts"
import { RegistryUnavailable } from "./GroupCommit.ts"
import * as HostCounts from "./HostCounts.ts"
import { placesOf } from "./HostRecords.ts"
import * as HostRepo from "./HostRepo.ts"
import { Leases, type Seen } from "./Leases.ts"
import * as Publications from "./Publications.ts"
import * as RegistryMetrics from "./RegistryMetrics.ts"
import * as Words from "./Words.ts"
import { HostMoved, type HostRetired, HostUnknown, type Word, type WordEvent } from "./Words.ts"

export { RegistryUnavailable } from "./GroupCommit.ts"
export { HostMoved, HostRetired, HostUnknown } from "./Words.ts"

/** Why a registration was not taken. */
export type RegisterError =
  | HostnameTaken
  | HostnameFlapping
  | QuotaExceeded
  | ZoneGone
  | HostMoved
  | RegistryUnavailable

/** What became of a host by somebody's word. */
export interface GivenUp {
  /** As it is now; a released host as it was last. */
  readonly host: Host
  /** Settles when its records are gone from the DNS. */
  readonly ticket: Ticket
}

/** Why a host was not changed by somebody's word. */
export type WordError = HostUnknown | HostMoved | HostRetired | RegistryUnavailable

/** What became of a host by somebody's word, and what it was before. */
export interface Changed extends GivenUp {
  readonly before: Host
  /** False where it was so already: nothing was written. */
  readonly changed: boolean
}

/** What somebody asks of the registry. */
export type Request =
  | { readonly _tag: "Register"; readonly registration: Registration }
  | { readonly _tag: "Word"; readonly word: Word }

/** What became of a request. */
export interface Handled {
  /** What the host was; undefined for a new one. */
  readonly before: Host | undefined
  readonly host: Host
  readonly outcome: Registered["outcome"] | WordEvent | "unchanged"
  /** Settles when the change reaches the DNS; undefined where nothing changes there. */
  readonly ticket: Ticket | undefined
}

export type HandledRequest = Result.Result<Handled, RegisterError | WordError>

const toHandled =
  (event: WordEvent) =>
  ({ before, changed, host, ticket }: Changed): Handled => ({
    before,
    host,
    outcome: changed ? event : "unchanged",
    // Another owner's records are the same.
    ticket: changed && event !== "transferred" ? ticket : undefined
  })

export interface Registered {
  readonly host: Host
  /** What the host was; undefined for a new one. */
  readonly before: Host | undefined
  readonly outcome: "created" | "changed" | "returned" | "renewed"
  /** What the host's addresses were; empty for a new host. */
  readonly previousAddresses: Host["addresses"]
  /** Settles when the change reaches the DNS; undefined for a renewal, which changes nothing there. */
  readonly ticket: Ticket | undefined
}

export interface RegistryOptions extends GroupCommit.GroupCommitOptions {
  /** Names that a zone of the policy `suffix` has to give beside the one asked for. */
  readonly suffixesMax: number
  /** How names that several machines claim in turn are damped. */
  readonly damping: Damping.DampingOptions
}

export const defaultOptions: RegistryOptions = {
  batchMax: 2000,
  gatherMillisMax: 40,
  waitingMax: 20_000,
  answerMillisMax: 10_000,
  suffixesMax: 8,
  damping: Damping.defaultOptions
}

/** Between two attempts to write while the database is lost, in milliseconds, more or less. */
const lossMillisBetween = 150

/** Hosts that others change while a batch is written, of which it is remembered. */
const changedMeanwhileMax = 10_000

/**
 * A host that comes to this server, and was seen last by what the database says so long ago, is written as seen at once and
 * not with the next flush, where there are other servers: in milliseconds.
 */
const seenMillisMax = 15_000

/** How often names that are damped no more are looked for, in milliseconds. */
const dampingSweepMillis = 5000

export class Registry extends Context.Service<
  Registry,
  {
    /**
     * Registers a host, or renews its lease. When it returns, the host is durable. The name may be another than the one
     * asked for where the zone's policy is `suffix`. `isWanted`: asked when its turn has come, and once more where the
     * database was slow; with false it is not decided, and fails as unavailable. What was given to a commit stays.
     */
    readonly register: (
      registration: Registration,
      isWanted?: () => boolean
    ) => Effect.Effect<Registered, RegisterError>
    /**
     * Gives a host up by somebody's word: its records are withdrawn, its name is held as the zone's policy says. One that
     * beats on comes back with its next beat.
     */
    readonly retire: (
      fqdn: DomainName,
      actor: HostRepo.Actor,
      reason: string
    ) => Effect.Effect<GivenUp, HostUnknown | HostRetired | RegistryUnavailable>
    /** Forgets a host by somebody's word, whatever its state: its records go, its name is free, its history stays. */
    readonly release: (
      fqdn: DomainName,
      actor: HostRepo.Actor,
      reason: string
    ) => Effect.Effect<GivenUp, HostUnknown | RegistryUnavailable>
    /**
     * Makes `owner` the owner of a host by somebody's word, whatever its state and its zone's policy; its records stay, its
     * lease is dropped. Within a transaction of the caller's it is done once that commits, which is also when it is durable.
     */
    readonly transfer: (
      fqdn: DomainName,
      owner: string,
      actor: HostRepo.Actor,
      reason: string
    ) => Effect.Effect<Host, HostUnknown | RegistryUnavailable>
    /**
     * Changes, retires, transfers or releases a host by somebody's word. Its lease is dropped: an agent that beats on says
     * anew what its host is. Changes that arrive while a commit is under way share the next one, as registrations do.
     * `isWanted`: as that of `register`; undefined: a word that counts also when whoever said it has gone.
     */
    readonly change: (word: Word, isWanted?: () => boolean) => Effect.Effect<Changed, WordError>
    /** Each of `requests`, those about one host in their order; in as few commits as hold them. */
    readonly requestAll: (requests: ReadonlyArray<Request>) => Effect.Effect<ReadonlyArray<HandledRequest>>
    /**
     * What would become of `requests`, one after another, by the same decisions and with the same failures; nothing is
     * changed. `look` is asked while all of it is in place, in a transaction that is then undone.
     */
    readonly tryOut: <A, E>(
      requests: ReadonlyArray<Request>,
      look: (tried: ReadonlyArray<HandledRequest>) => Effect.Effect<A, E>
    ) => Effect.Effect<A, E | RegistryUnavailable>
    /** Follows the present generation of `host` on its way to the DNS: for who has its lease, and changes nothing. */
    readonly follow: (host: Host) => Effect.Effect<Publications.Followed, SqlError.SqlError>
    readonly findById: (id: string) => Effect.Effect<Option.Option<Host>, SqlError.SqlError>
    readonly findByName: (fqdn: DomainName) => Effect.Effect<Option.Option<Host>, SqlError.SqlError>
    /** Those that there are of these ids and names, in no order. */
    readonly findAll: (of: {
      readonly ids: ReadonlyArray<string>
      readonly names: ReadonlyArray<DomainName>
    }) => Effect.Effect<ReadonlyArray<Host>, SqlError.SqlError>
    /** Hosts in the order of their names; a page may be short, and go on all the same. */
    readonly page: (filter: HostRepo.HostFilter) => Effect.Effect<HostRepo.HostsFound<Host>, SqlError.SqlError>
    /** The hosts of one page. */
    readonly list: (filter: HostRepo.HostFilter) => Effect.Effect<ReadonlyArray<Host>, SqlError.SqlError>
    /** How far the present generation of each of `hosts` has come, in the same order. */
    readonly publications: (hosts: ReadonlyArray<Host>) => Effect.Effect<ReadonlyArray<Publication>, SqlError.SqlError>
    readonly countByState: Effect.Effect<
      ReadonlyArray<{ readonly zone: DomainName; readonly state: HostState; readonly hosts: number }>,
      SqlError.SqlError
    >
  }
>()("@prism-dns/core/registry/Registry") {
  static readonly layer = (options: Partial<RegistryOptions> = {}) =>
    Layer.effect(Registry, make({ ...defaultOptions, ...options }))
}

/** A request that waits for its commit, and who is told what became of it. */
type Waiting = Claim | Spoken

interface Claim extends GroupCommit.Waiting {
  readonly _tag: "Register"
  readonly registration: Registration
  /** When it was asked; undefined: it counts whatever has become of the host since. */
  readonly asked?: AskedAt | undefined
  readonly resume: (result: Result.Result<Registered, RegisterError>) => void
}

interface AskedAt {
  /** By a clock that only goes on. */
  readonly elapsedMillis: number
  /** The highest generation that this server knew of; undefined: none yet. */
  readonly generation: number | undefined
}

interface Spoken extends GroupCommit.Waiting {
  readonly _tag: "Word"
  readonly word: Word
  readonly resume: (result: Result.Result<Changed, WordError>) => void
}

type Batch = GroupCommit.Batch<Waiting>

/** What an attempt to write words has come to, once it is committed. */
interface WordsWritten {
  readonly words: ReadonlyArray<Word>
  /** In the order of the words. */
  readonly answers: ReadonlyArray<Result.Result<Changed, HostUnknown | HostMoved | HostRetired>>
  readonly generation: number
  /** One of the hosts that it has changed. */
  readonly changedHost: DomainName
  readonly tickets: ReadonlyArray<Ticket>
  /** For when it has committed. */
  readonly tell: Effect.Effect<void>
}

const make = Effect.fnUntraced(function* (options: RegistryOptions) {
  const sql = yield* SqlClient.SqlClient
  const signals = yield* Signals
  const hosts = HostRepo.make(sql, signals)
  const zones = yield* Zones
  const cluster = yield* Cluster
  const outbox = yield* Outbox
  const leases = yield* Leases
  const acknowledgements = yield* Acknowledgements
  const random = yield* SecureRandom.SecureRandom
  const durability = yield* Durability
  const failover = yield* Failover
  const damped = Damping.make(options.damping)
  /**
   * Hosts that were changed by somebody's word since the present batch began, and the generation of that; or, of whatever
   * generation, by another server. What the batch has written of them is not held.
   */
  const changedMeanwhile = new Map<DomainName, number>()
  /** Another server may have changed any of them since the present batch began. */
  let anyChangedMeanwhile = false
  /** Another server wrote these hosts. Whoever does not hear of it finds out with the next flush of their beats. */
  yield* signals.listen("hosts", (names) => {
    if (names === "all") {
      anyChangedMeanwhile = true
      return leases.doubt("claims")
    }
    leases.outdated(names)
    for (const name of names) {
      if (changedMeanwhile.size < changedMeanwhileMax)
        changedMeanwhile.set(name as DomainName, Number.POSITIVE_INFINITY)
    }
  })

  // A server that took over may not have all that is held here.
  yield* Effect.acquireRelease(
    Effect.sync(() =>
      failover.onMoved(() => {
        anyChangedMeanwhile = true
        leases.doubt("all")
      })
    ),
    (stop) => Effect.sync(stop)
  )

  const suffixes = (registration: Registration): ReadonlyArray<DomainName> =>
    zones.find(registration.zone)?.policy.conflict === "suffix"
      ? suffixedNames(registration.fqdn, options.suffixesMax).filter((name) => registration.mayHave?.(name) ?? true)
      : []

  const clock = yield* Clock.Clock
  /** By a clock that only goes on: that of the day may be set meanwhile. */
  const elapsedMillis = () => Number(clock.monotonicTimeNanosUnsafe()) / 1e6
  /** The highest generation that this server has seen given out, since it started. */
  let generationSeen: number | undefined
  const nextGeneration = Effect.tap(Generation.next(sql), (generation) =>
    Effect.sync(() => {
      generationSeen = Math.max(generationSeen ?? 0, generation)
    })
  )

  /**
   * What was asked long ago of a host that was changed after that: whoever asked has perhaps gone to another server, and this
   * is older than what it asked there. A cut network takes the word of that away too, but delivers what was under way.
   */
  const isOvertaken = (asked: AskedAt | undefined, current: Host | undefined): boolean =>
    asked?.generation !== undefined &&
    current !== undefined &&
    current.generation > asked.generation &&
    commits.isSlow(asked.elapsedMillis) &&
    !cluster.isAlone()

  /** What is known of the zones and owners that may come to have a host more by `batch`. */
  const countsFor = (batch: ReadonlyArray<Pick<Claim, "registration">>, known: ReadonlyMap<DomainName, Host>) => {
    const moving = new Set<DomainName>()
    for (const { registration } of batch) {
      const { fqdn, registrant, zone } = registration
      const host = known.get(fqdn)
      const isMoving = host === undefined || host.owner !== registrant.name || host.zone !== zone
      if (isMoving || suffixes(registration).length > 0) moving.add(fqdn)
    }
    if (moving.size === 0) return Effect.succeed([])
    const keys = new Map<string, HostCounts.CountKey>()
    for (const { registration } of batch) {
      if (!moving.has(registration.fqdn)) continue
      const owner = registration.registrant.name
      keys.set(`zone ${registration.zone}`, { kind: "zone", key: registration.zone })
      keys.set(`owner ${owner}`, { kind: "owner", key: owner })
    }
    return hosts.countsOf([...keys.values()])
  }

  /** Where hosts may come to be that are not there yet. */
  const newPlaces = (batch: ReadonlyArray<Pick<Claim, "registration">>, known: ReadonlyMap<DomainName, Host>) =>
    batch.flatMap(({ registration }) =>
      [registration.fqdn, ...suffixes(registration)].flatMap((name) =>
        known.get(name)?.zone === registration.zone ? [] : [{ zone: registration.zone, name }]
      )
    )

  /**
   * Decides and writes registrations in one transaction. Their answers hold, and `tickets` settle, only once it has
   * committed. With `isTrial` it never will. `last` can undo it when its rows are held.
   */
  const writeClaims = Effect.fn("Registry.write")(
    function* (
      batch: ReadonlyArray<Pick<Claim, "registration" | "asked">>,
      tickets: Array<Ticket>,
      isTrial: boolean,
      last: Effect.Effect<void, RegistryUnavailable | GroupCommit.Overtaken> = Effect.void
    ) {
      const zonesVersion = zones.version
      const known = new Map<DomainName, Host>()
      const names = new Set<DomainName>()
      for (const { registration } of batch) {
        names.add(registration.fqdn)
        for (const name of suffixes(registration)) names.add(name)
      }
      for (const host of yield* hosts.lockByName([...names])) known.set(host.fqdn, host)
      const conflicts = yield* hostConflicts(sql, zones, newPlaces(batch, known))
      const tally = HostCounts.tally(yield* countsFor(batch, known))
      const nowMillis = yield* Clock.currentTimeMillis
      const generation = yield* nextGeneration
      const changes = new Map<DomainName, HostRepo.ActorChange>()
      const answers: Array<Result.Result<Registered, RegisterError>> = []
      const flappings = new Map<DomainName, Damping.Flapping>()
      const refusedZones: Array<DomainName> = []
      const askedFor = new Map<DomainName, DomainName>()
      const touched = new Map<string, RecordPlace>()
      const renewed: Array<Seen> = []

      // In order of arrival, each against what those before it left; a name that changes twice is written once.
      for (const { asked, registration } of batch) {
        const { fqdn, zone } = registration
        // It was placed before: the zone may have gone since, or one have come that the name belongs to.
        if (zones.zoneOf(fqdn)?.name !== zone) {
          answers.push(Result.fail(new ZoneGone({ fqdn, zone })))
          continue
        }
        const current = known.get(registration.fqdn)
        const policy = zones.find(registration.zone)?.policy ?? Zone.defaultPolicy
        const isSuffixed = policy.conflict === "suffix"
        const newId = current === undefined || isSuffixed ? yield* random.uuidV7() : ""
        const context = { nowMillis, generation, newId, policy }
        const free = (name: DomainName) => !conflicts.has(name)
        const conflict = conflicts.get(registration.fqdn)
        const decision =
          conflict !== undefined
            ? { _tag: "Refuse" as const, error: takenByRecord(registration.fqdn, conflict) }
            : isSuffixed
              ? decideSuffixed((name) => known.get(name), suffixes(registration).filter(free), registration, context)
              : decide(current, registration, context)
        switch (decision._tag) {
          case "Refuse": {
            answers.push(Result.fail(decision.error))
            break
          }
          case "Renew": {
            // While the row is locked, so that the host cannot expire in between; one that is written here is held later.
            if (!isTrial && !changes.has(decision.host.fqdn)) {
              const { fqdn, generation, id, lastSeenMillis } = decision.host
              leases.hold(decision.host, nowMillis, registration.fqdn)
              if (nowMillis - lastSeenMillis > seenMillisMax)
                renewed.push({ fqdn, id, generation, atMillis: nowMillis })
            }
            answers.push(
              Result.succeed({
                host: decision.host,
                before: decision.host,
                outcome: "renewed",
                previousAddresses: decision.host.addresses,
                ticket: undefined
              })
            )
            break
          }
          case "Write": {
            const { after, before, event } = decision
            // Only of what would be written: what was committed, and not heard of, is decided anew and found done.
            if (before !== undefined && registration.isExpected?.(before.generation) === false) {
              answers.push(Result.fail(new HostMoved({ fqdn: before.fqdn, generation: before.generation })))
              break
            }
            if (isOvertaken(asked, before)) {
              answers.push(Result.fail(new RegistryUnavailable({ detail: "the host was changed since it was asked" })))
              break
            }
            if (event === "changed" && before !== undefined && before.addresses.join() !== after.addresses.join()) {
              const flapping = Damping.claim(
                flappings.get(after.fqdn) ?? damped.find(after.fqdn),
                after.zone,
                before.addresses,
                after.addresses,
                nowMillis,
                options.damping
              )
              flappings.set(after.fqdn, flapping)
              if (flapping.suppressed) {
                const error = new HostnameFlapping({
                  fqdn: after.fqdn,
                  addresses: before.addresses,
                  claimed: after.addresses,
                  untilMillis: Damping.untilMillis(flapping, options.damping)
                })
                answers.push(Result.fail(error))
                refusedZones.push(after.zone)
                break
              }
            }
            const tooMany = tally.take({ before, after }, { zone: policy.hostsMax, owner: registration.hostsMax })
            if (tooMany !== undefined) {
              answers.push(Result.fail(tooMany))
              break
            }
            askedFor.set(after.fqdn, registration.fqdn)
            const earlier = changes.get(after.fqdn)
            known.set(after.fqdn, after)
            changes.set(after.fqdn, {
              event: earlier?.event ?? event,
              before: earlier === undefined ? before : earlier.before,
              after,
              actor: registration.actor ?? { name: registration.registrant.name, peer: registration.peer },
              reason: registration.reason
            })
            const places = placesOf(zones, before, after)
            for (const place of places) touched.set(`${place.zone} ${place.name}`, place)
            // What was left in a zone that is configured no more is settled by nobody: no answer waits for it.
            const ticket = acknowledgements.open(
              isTrial ? [] : places.filter(({ zone }) => zones.find(zone) !== undefined),
              generation
            )
            tickets.push(ticket)
            answers.push(
              Result.succeed({
                host: after,
                before,
                outcome: event === "created" || event === "changed" ? event : "returned",
                previousAddresses: before?.addresses ?? [],
                ticket
              })
            )
            break
          }
        }
      }

      // Whoever takes hosts offline may be another server, which does not know what this one has in memory.
      if (renewed.length > 0 && !cluster.isAlone()) yield* hosts.moveSeen(renewed, "wait")

      // In the order of names, as rows are locked: two servers that write the same names wait, but not for each other.
      const written = [...changes.values()].sort((a, b) => (a.after.fqdn < b.after.fqdn ? -1 : 1))
      const places = [...touched.values()]
      if (written.length > 0) {
        const counts = yield* hosts.write(written, nowMillis, "registered")
        if (tally.isExceededBy(counts)) return yield* new CountsMoved()
        yield* outbox.mark(places, generation, nowMillis, "registered")
        if (!isTrial) {
          yield* Turns.share(
            sql,
            written.map(({ after }) => after.zone)
          )
          yield* zones.verify(zonesVersion)
        }
      }
      yield* last
      return { answers, askedFor, flappings, nowMillis, places, refusedZones, tickets, written }
    },
    (effect) => Audit.inTransaction(sql)(effect)
  )

  const closeAll = (tickets: ReadonlyArray<Ticket>) => Effect.sync(() => tickets.forEach(acknowledgements.close))

  /** Another server took the same new name, or held the same rows, at the same moment: look again. */
  const againOnCollision = <A, E, R>(effect: Effect.Effect<A, E, R>) =>
    Effect.retry(effect, {
      while: (error) =>
        error instanceof ZonesMoved
          ? Effect.as(zones.reload, true)
          : Effect.succeed(
              error instanceof CountsMoved ||
                error instanceof GroupCommit.Overtaken ||
                (SqlError.isSqlError(error) && isCollision(error))
            ),
      times: 5,
      schedule: Schedule.jittered(Schedule.exponential(5))
    })

  /** Since when the database was lost, and nothing has been committed after; undefined: it is there. */
  let lostSinceMillis: number | undefined

  /**
   * The database was lost: its work is decided anew, on whichever server has taken over, for as long as one is likely to,
   * and not any more once those who wait were told that it takes too long.
   */
  const againOnLoss =
    (batch: Batch) =>
    <A, E, R>(effect: Effect.Effect<A, E, R>): Effect.Effect<A, E, R> =>
      effect.pipe(
        Effect.tap(() =>
          Effect.sync(() => {
            lostSinceMillis = undefined
          })
        ),
        Effect.retry({
          while: Effect.fnUntraced(function* (error: E) {
            if (!Loss.isLost(error)) return false
            const nowMillis = elapsedMillis()
            lostSinceMillis ??= nowMillis
            if (batch.isLate() || nowMillis - lostSinceMillis >= failover.patienceMillis) return false
            yield* Metric.update(RegistryMetrics.batchesRepeated, 1)
            return true
          }),
          schedule: Schedule.jittered(Schedule.spaced(lossMillisBetween))
        })
      )

  const answerClaims = Effect.fnUntraced(function* (asked: ReadonlyArray<Claim>, batch: Batch) {
    changedMeanwhile.clear()
    anyChangedMeanwhile = false
    let claims = asked
    const { answers, askedFor, flappings, nowMillis, places, refusedZones, tickets, written } = yield* batch
      .attempt(asked, (wanted, last) => {
        const tickets: Array<Ticket> = []
        claims = wanted
        return Effect.onError(writeClaims(wanted, tickets, false, last), () => closeAll(tickets))
      })
      .pipe(againOnCollision, againOnLoss(batch))
    if (written.length > 0) yield* Effect.onError(durability.flush, () => closeAll(tickets))
    acknowledgements.committed(tickets)
    for (const { after } of anyChangedMeanwhile ? [] : written) {
      if ((changedMeanwhile.get(after.fqdn) ?? 0) > after.generation) continue
      leases.hold(after, nowMillis, askedFor.get(after.fqdn))
    }
    if (batch.isLate()) yield* closeAll(tickets)
    answers.forEach((result, i) => claims[i]!.resume(result))
    yield* outbox.wake(new Set(places.map((place) => place.zone)))
    yield* Metric.update(RegistryMetrics.commitSize, claims.length)
    if (flappings.size > 0) yield* reportDamping(damped.set(flappings), refusedZones)
  })

  const answerWords = Effect.fnUntraced(function* (asked: ReadonlyArray<Spoken>, batch: Batch) {
    const attempts: Array<WordsWritten> = []
    const opened: Array<Array<Ticket>> = []
    /** The loss of an attempt's commit: it is what is said where no later attempt came to an end. */
    let uncertain: SqlError.SqlError | undefined
    const { answers, tell, tickets, words } = yield* batch
      .attempt(asked, (wanted, last) => {
        const tickets: Array<Ticket> = []
        opened.push(tickets)
        const words = wanted.map(({ word }) => word)
        return Effect.tapError(writeWords(words, tickets, false, last, attempts), (error) =>
          Effect.sync(() => {
            if (Loss.isLost(error) && Loss.isUncertain(error)) uncertain ??= error
          })
        )
      })
      .pipe(
        againOnCollision,
        againOnLoss(batch),
        Effect.mapError((error) => uncertain ?? error),
        Effect.onError(() => closeAll(opened.flat()))
      )
    yield* closeAll(opened.filter((others) => others !== tickets).flat())
    if (tickets.length > 0) yield* Effect.onError(durability.flush, () => closeAll(tickets))
    acknowledgements.committed(tickets)
    if (batch.isLate()) yield* closeAll(tickets)
    const speakers = new Map(asked.map((spoken) => [spoken.word, spoken]))
    answers.forEach((result, i) => speakers.get(words[i]!)!.resume(result))
    yield* Metric.update(RegistryMetrics.commitSize, words.length)
    yield* tell
  })

  const reportDamping = Effect.fnUntraced(function* (
    { ended, started }: Damping.Transitions,
    refusedZones: ReadonlyArray<DomainName> = []
  ) {
    for (const { flapping, name } of started) {
      yield* Effect.logWarning("a name is claimed in turn by several machines, it keeps its addresses for now").pipe(
        Effect.annotateLogs({
          host: name,
          addresses: flapping.had.map(({ addresses }) => addresses),
          until: new Date(Damping.untilMillis(flapping, options.damping)).toISOString()
        })
      )
    }
    for (const { name } of ended) {
      yield* Effect.logInfo("a name may change its addresses again").pipe(Effect.annotateLogs({ host: name }))
    }
    for (const [zone, refused] of Map.groupBy(refusedZones, (zone) => zone)) {
      yield* Metric.update(Metric.withAttributes(RegistryMetrics.registrationsDamped, { zone }), refused.length)
    }
    if (started.length + ended.length === 0) return
    for (const [zone, names] of damped.suppressed()) {
      yield* Metric.update(Metric.withAttributes(RegistryMetrics.namesDamped, { zone }), names)
    }
  })

  yield* Effect.sleep(dampingSweepMillis).pipe(
    Effect.andThen(Clock.currentTimeMillis),
    Effect.flatMap((nowMillis) => reportDamping(damped.sweep(nowMillis))),
    Effect.forever,
    Effect.forkScoped
  )

  /**
   * Hosts, locked, changed and written by somebody's words: words of one kind, each about another host. `tell` is for when
   * it has committed. With `isTrial` it never will. `last` can undo it when its rows are held. Of `attempts`, to which it
   * adds itself where it changes something, one may have been committed, though nobody heard of it: then that is what
   * became of the words. It is seen once the rows are held: the commit of one that is still under way is waited for.
   */
  const writeWords = Effect.fn("Registry.writeWords")(
    function* (
      words: ReadonlyArray<Word>,
      tickets: Array<Ticket>,
      isTrial: boolean,
      last: Effect.Effect<void, RegistryUnavailable | GroupCommit.Overtaken> = Effect.void,
      attempts: Array<WordsWritten> = []
    ) {
      const { event = "changed" } = words[0] ?? {}
      const found = yield* hosts.lockByName(words.map(({ fqdn }) => fqdn))
      for (const attempt of attempts) {
        if (!(yield* hosts.hasVersion(attempt.changedHost, event, attempt.generation))) continue
        // What was to tell others of it went with its connection.
        const names = attempt.words.map(({ fqdn }) => fqdn)
        yield* sql.afterCommit(Effect.sync(() => signals.send("hosts", names)))
        return attempt
      }
      const known = new Map(found.map((host) => [host.fqdn, host]))
      const nowMillis = yield* Clock.currentTimeMillis
      const generation = yield* nextGeneration
      const changes: Array<HostRepo.ActorChange> = []
      const marked: Array<RecordPlace> = []
      const answers: Array<Result.Result<Changed, HostUnknown | HostMoved | HostRetired>> = []
      for (const word of words) {
        const { actor, fqdn, reason } = word
        const before = known.get(fqdn)
        if (before === undefined) {
          answers.push(Result.fail(new HostUnknown({ fqdn })))
          continue
        }
        const decided = Words.decide(word, before, nowMillis)
        if (Result.isFailure(decided)) {
          answers.push(Result.fail(decided.failure))
          continue
        }
        if (decided.success === undefined) {
          const ticket = acknowledgements.open([], before.generation)
          answers.push(Result.succeed({ host: before, before, changed: false, ticket }))
          continue
        }
        const after: Host = { ...decided.success, generation }
        if (!isTrial) {
          // Beats from now on go the long way, and after us; what was written before is not held later.
          changedMeanwhile.set(fqdn, generation)
          leases.drop(fqdn, Number.MAX_SAFE_INTEGER)
        }
        // Whose records were withdrawn before keeps none; what is to be removed for good may still be there, disabled.
        const places =
          event === "transferred" && before.withdrawnSinceMillis !== undefined ? [] : placesOf(zones, before, after)
        const awaited =
          isTrial || event === "transferred" ? [] : places.filter(({ zone }) => zones.find(zone) !== undefined)
        const ticket = acknowledgements.open(awaited, generation)
        tickets.push(ticket)
        changes.push({ event, before, after, actor, reason })
        marked.push(...places)
        answers.push(Result.succeed({ host: after, before, changed: true, ticket }))
      }
      if (changes.length > 0) {
        const cause = causeOf[event]
        changes.sort((a, b) => (a.after.fqdn < b.after.fqdn ? -1 : 1))
        yield* hosts.write(changes, nowMillis, cause)
        yield* outbox.mark(marked, generation, nowMillis, cause)
      }
      yield* last
      const tell = Effect.gen(function* () {
        for (const { after } of changes) damped.forget(after.fqdn)
        if (marked.length > 0) yield* outbox.wake(new Set(marked.map(({ zone }) => zone)))
      })
      const written = { words, answers, generation, tell, tickets }
      const [first] = changes
      if (first !== undefined) attempts.push({ ...written, changedHost: first.after.fqdn })
      return written
    },
    (effect) => Audit.inTransaction(sql)(effect)
  )

  /** In which life of this server it is asked. */
  const asked = Effect.map(Asked, (asked) => asked?.life ?? cluster.life())

  const register: Registry["Service"]["register"] = (registration, isWanted) =>
    Effect.flatMap(asked, (life) =>
      Effect.callback((resume) =>
        commits.wait({
          _tag: "Register",
          registration,
          life,
          asked: { elapsedMillis: elapsedMillis(), generation: generationSeen },
          isWanted,
          resume: (result) => resume(Effect.fromResult(result))
        })
      )
    )

  const change: Registry["Service"]["change"] = (word, isWanted) =>
    Effect.flatMap(asked, (life) =>
      Effect.callback((resume) =>
        commits.wait({ _tag: "Word", word, life, isWanted, resume: (result) => resume(Effect.fromResult(result)) })
      )
    )

  const requestAll: Registry["Service"]["requestAll"] = (requests) =>
    Effect.flatMap(asked, (life) => handleAll(requests, life))

  const handleAll = (requests: ReadonlyArray<Request>, life: number): Effect.Effect<ReadonlyArray<HandledRequest>> =>
    Effect.callback((resume) => {
      const handled: Array<HandledRequest | undefined> = requests.map(() => undefined)
      let left = requests.length
      const put = (at: number, result: HandledRequest): void => {
        if (handled[at] !== undefined) return
        handled[at] = result
        left -= 1
        if (left === 0) resume(Effect.succeed(handled as ReadonlyArray<HandledRequest>))
      }
      if (left === 0) return resume(Effect.succeed([]))
      requests.forEach((request, at) => {
        if (request._tag === "Register") {
          const { registration } = request
          commits.wait({ _tag: "Register", registration, life, resume: (result) => put(at, result) })
        } else {
          const { word } = request
          commits.wait({
            _tag: "Word",
            word,
            life,
            resume: (result) => put(at, Result.map(result, toHandled(word.event)))
          })
        }
      })
    })

  /** Within a transaction of the caller's: it is safe, and others learn of it, once that commits. */
  const changeWithin = Effect.fnUntraced(function* (word: Word) {
    const tickets: Array<Ticket> = []
    const { answers, tell } = yield* Effect.onError(writeWords([word], tickets, false), () => closeAll(tickets))
    const changed = yield* Effect.fromResult(answers[0]!)
    const flush = Effect.catch(durability.flush, (error) =>
      Effect.logError("a change is not safe from a power cut yet").pipe(
        Effect.annotateLogs({ host: word.fqdn, reason: detailOf(error) })
      )
    )
    const committed = Effect.sync(() => acknowledgements.committed(tickets))
    if (changed.changed) yield* sql.afterCommit(Effect.andThen(flush, Effect.andThen(committed, tell)))
    return changed
  })

  const transfer: Registry["Service"]["transfer"] = Effect.fn("Registry.transfer")(
    function* (fqdn, owner, actor, reason) {
      const word: Word = { event: "transferred", fqdn, actor, reason, edit: () => ({ owner }) }
      const isInner = Option.isSome(yield* Effect.serviceOption(sql.transactionService))
      const { host } = yield* isInner ? changeWithin(word) : change(word)
      return host
    },
    Effect.catchTags({ SqlError: unavailable, Overtaken: Effect.die, HostMoved: Effect.die, HostRetired: Effect.die })
  )

  const retire: Registry["Service"]["retire"] = (fqdn, actor, reason) =>
    Effect.catchTag(change({ event: "retired", fqdn, actor, reason }), "HostMoved", Effect.die)

  const release: Registry["Service"]["release"] = (fqdn, actor, reason) =>
    Effect.catchTags(change({ event: "released", fqdn, actor, reason }), {
      HostMoved: Effect.die,
      HostRetired: Effect.die
    })

  const kindOf = (request: Request) =>
    request._tag === "Register"
      ? {
          kind: "register",
          names: [request.registration.fqdn, ...suffixes(request.registration)],
          single: false
        }
      : { kind: request.word.event, names: [request.word.fqdn], single: true }

  /** Writes requests of one kind, never to be committed, and notes what they came to. */
  const tryRun = Effect.fnUntraced(function* (
    run: ReadonlyArray<Request & { readonly at: number }>,
    tried: Array<HandledRequest>
  ) {
    const claims = run.filter((request) => request._tag === "Register")
    if (claims.length > 0) {
      const { answers } = yield* writeClaims(claims, [], true)
      answers.forEach((answer, i) => {
        tried[claims[i]!.at] = answer
      })
    }
    const words = run.filter((request) => request._tag === "Word")
    if (words.length > 0) {
      const { answers } = yield* writeWords(
        words.map(({ word }) => word),
        [],
        true
      )
      answers.forEach((answer, i) => {
        const { at, word } = words[i]!
        tried[at] = Result.map(answer, toHandled(word.event))
      })
    }
  })

  const tryOut = <A, E>(
    requests: ReadonlyArray<Request>,
    look: (tried: ReadonlyArray<HandledRequest>) => Effect.Effect<A, E>
  ): Effect.Effect<A, E | RegistryUnavailable> =>
    Effect.suspend(() => {
      const tried: Array<HandledRequest> = []
      const numbered = requests.map((request, at) => ({ ...request, at }))
      return Effect.gen(function* () {
        for (const { requests: run } of Words.runsOf(numbered, kindOf)) {
          for (let i = 0; i < run.length; i += options.batchMax) {
            yield* tryRun(run.slice(i, i + options.batchMax), tried)
          }
        }
        return yield* look(tried)
      })
    }).pipe(
      // Its entries are never written, and it has nobody's turn while it waits for rows.
      Audit.undone(sql),
      againOnCollision,
      Effect.catchIf(
        (error) => SqlError.isSqlError(error) || error instanceof CountsMoved,
        (error) => Effect.fail(new RegistryUnavailable({ detail: detailOf(error) }))
      )
    ) as Effect.Effect<A, E | RegistryUnavailable>

  const answerOrRefuse = (batch: Batch) =>
    Effect.forEach(
      Words.runsOf(batch.waiting, kindOf),
      ({ requests }) => {
        const claims = requests.filter((waiting) => waiting._tag === "Register")
        const spoken = requests.filter((waiting) => waiting._tag === "Word")
        const answered = claims.length > 0 ? answerClaims(claims, batch) : answerWords(spoken, batch)
        return Effect.catchCause(answered, (cause) => {
          const reason = detailOf(Cause.squash(cause))
          GroupCommit.refuse(requests, reason)
          return Effect.logError(
            claims.length > 0 ? "registrations could not be stored" : "changes of hosts could not be stored"
          ).pipe(Effect.annotateLogs({ registrations: requests.length, reason }))
        })
      },
      { discard: true }
    )

  const commits = yield* GroupCommit.make<Waiting>(options, cluster, answerOrRefuse)

  const lookUp = (names: ReadonlyArray<DomainName>) =>
    Effect.tapError(hosts.findNamed(names), (error) =>
      Effect.logWarning("hosts could not be looked up").pipe(
        Effect.annotateLogs({ hosts: names.length, reason: detailOf(error) })
      )
    )
  const findNamed = yield* Together.make(lookUp, findNamesMax)

  /** Within a transaction what it has written itself is seen too, and on its connection; else many who ask share a look. */
  const findByName: Registry["Service"]["findByName"] = Effect.fnUntraced(function* (fqdn) {
    if (Option.isSome(yield* Effect.serviceOption(sql.transactionService))) return yield* hosts.findByName(fqdn)
    return Option.fromNullishOr((yield* findNamed([fqdn])).get(fqdn))
  })

  const { follow, publications } = yield* Publications.make(sql, zones, acknowledgements)

  return Registry.of({
    register,
    retire,
    release,
    transfer,
    change,
    requestAll,
    tryOut,
    follow,
    findById: hosts.findById,
    findByName,
    findAll: hosts.findAll,
    page: hosts.page,
    list: (filter) => Effect.map(hosts.page(filter), ({ hosts }) => hosts),
    publications,
    countByState: hosts.countByState
  })
})

/** Names in one look of `findByName` at the most. */
const findNamesMax = 1000

/** Other servers have counted hosts meanwhile, and with ours there are too many: the batch is decided anew. */
class CountsMoved extends Schema.TaggedError<CountsMoved>()("CountsMoved", {}) {
  override get message(): string {
    return "other servers register hosts at the same time, and there are as many as there may be"
  }
}

/** Why names are looked at after a word. */
const causeOf = {
  changed: "registered",
  transferred: "transferred",
  retired: "released",
  released: "released"
} as const

const unavailable = (error: SqlError.SqlError) => new RegistryUnavailable({ detail: detailOf(error) })
