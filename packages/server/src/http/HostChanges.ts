/**
 * Handlers of what changes hosts: registering, changing, giving up, one by one
 * and many at once.
 *
 * One request and a batch go the same way: read (`HostRequests`), handed to the
 * registry together, waited for together. A dry run goes it too, in a
 * transaction that is undone.
 */
import { Api } from "@prism-dns/core/api/Api"
import { Caller } from "@prism-dns/core/api/Authentication"
import * as Contract from "@prism-dns/core/api/HostChanges"
import type * as Hosts from "@prism-dns/core/api/Hosts"
import {
  type HostNotFound,
  type PreconditionFailed,
  type PreconditionRequired,
  StorageUnavailable
} from "@prism-dns/core/api/Problems"
import { timestamp } from "@prism-dns/core/api/Values"
import { allows } from "@prism-dns/core/auth/Permissions"
import type { Ticket } from "@prism-dns/core/dns/Acknowledgements"
import { RecordSource } from "@prism-dns/core/dns/RecordSource"
import { type RecordPlace, Zones } from "@prism-dns/core/dns/Zones"
import type { DomainName } from "@prism-dns/core/domain/DomainName"
import type { AckLevel, Host, Publication } from "@prism-dns/core/domain/Host"
import type * as RRset from "@prism-dns/core/domain/RRset"
import { HostHistory } from "@prism-dns/core/registry/HostHistory"
import { placesOf } from "@prism-dns/core/registry/HostRecords"
import * as LastChange from "@prism-dns/core/registry/LastChange"
import { type Handled, type HandledRequest, Registry } from "@prism-dns/core/registry/Registry"
import { Clock, Duration, Effect, Option, Result, Schema } from "effect"
import { HttpApiBuilder } from "effect/http-api"
import { SqlClient } from "effect/sql"
import * as RegistrationCounts from "../tcp/RegistrationCounts.ts"
import { invalidRequest, orUnavailable } from "./Answers.ts"
import { changedFields, requireMatch, withTag } from "./Conditional.ts"
import * as HostRequests from "./HostRequests.ts"
import type { Asked, Refusal } from "./HostRequests.ts"
import { hostNotFound, looking, placeOf, referenceOf, tagOf, toContract } from "./Hosts.ts"
import { toProblem } from "./ProblemBodies.ts"

type Asker = Caller["Service"]

/** How long an answer waits for what. */
interface Wait {
  readonly level: AckLevel
  readonly seconds: number
}

const waitOf = ({
  waitFor = "accepted",
  waitSeconds = Contract.waitSecondsDefault
}: Pick<Contract.RegisterRequest, "waitFor" | "waitSeconds">): Wait => ({ level: waitFor, seconds: waitSeconds })

const noWait: Wait = { level: "accepted", seconds: 0 }

/** What became of one request. */
interface Done {
  readonly handled: Handled
  readonly host: Hosts.Host
  /** What would be published; of a dry run. */
  readonly records?: ReadonlyArray<Contract.RecordChange>
}

/** A registration is one of these. */
const registeredAs = (outcome: Handled["outcome"]) => {
  if (outcome === "created" || outcome === "changed" || outcome === "returned") return outcome
  return "renewed"
}

const rank: Readonly<Record<AckLevel, number>> = { accepted: 0, applied: 1, served: 2 }

/** How far the ticket of a change has come; undefined when it does not know. */
const reachedBy = (ticket: Ticket | undefined, generation: number, nowMillis: number): Publication | undefined => {
  if (ticket === undefined || ticket.places.length === 0 || ticket.end?._tag === "Forgotten") return undefined
  const { applied, end } = ticket
  if (end?._tag === "Served") return { level: "served", generation, atMillis: end.atMillis }
  if (end?._tag === "Parked") return { level: "accepted", generation, atMillis: end.atMillis, error: end.reason }
  return applied === undefined
    ? { level: "accepted", generation, atMillis: nowMillis }
    : { level: "applied", generation, atMillis: applied.atMillis }
}

/** Waits until all of `tickets` have come to `level`, or to their ends. */
const awaitAll = (tickets: ReadonlyArray<Ticket>, level: "applied" | "served") =>
  Effect.callback<void>((resume) => {
    let left = tickets.length
    const listener = () => {
      left -= 1
      if (left === 0) resume(Effect.void)
    }
    if (left === 0) return resume(Effect.void)
    for (const ticket of tickets) {
      if (level === "applied") ticket.onApplied(listener)
      else ticket.onServed(listener)
    }
    return Effect.sync(() => tickets.forEach((ticket) => ticket.off(listener)))
  })

/** What an `If-Match` compares with: what people change of a host. */
const versionView = (host: Pick<Host, "addresses" | "labels" | "ttlSeconds" | "owner" | "state" | "isStatic">) => ({
  addresses: host.addresses,
  labels: host.labels,
  ttlSeconds: host.ttlSeconds,
  lease: host.isStatic ? "none" : "renewed",
  owner: host.owner,
  state: host.state
})

/** Versions of a host that are looked through for the one that somebody started from. */
const versionsMax = 200

/** Follows of hosts that a batch has found as they should be, at once. */
const followsAtOnce = 8

const decodeItem = Schema.decodeUnknownResult(Contract.BatchItem)
const strictly = { onExcessProperty: "error", errors: "all" } as const

export const layer = HttpApiBuilder.group(
  Api,
  "hostChanges",
  Effect.fnUntraced(function* (handlers) {
    const registry = yield* Registry
    const history = yield* HostHistory
    const source = yield* RecordSource
    const zones = yield* Zones
    const sql = yield* SqlClient.SqlClient
    const requests = yield* HostRequests.make
    const metrics = yield* RegistrationCounts.make
    const { getHost, publicationsOf } = yield* looking

    /** Who changed what since the version that somebody started from. */
    const changedMeanwhile = (
      fqdn: DomainName,
      ifMatch: string
    ): Effect.Effect<never, HostNotFound | PreconditionFailed | PreconditionRequired | StorageUnavailable> =>
      Effect.gen(function* () {
        const host = Option.getOrUndefined(yield* registry.findByName(fqdn))
        if (host === undefined) return yield* hostNotFound(fqdn)
        yield* requireMatch(
          { headers: { "if-match": ifMatch } },
          {
            version: host.generation,
            required: false,
            changesSince: Effect.fnUntraced(function* (version) {
              const versions = yield* history.versions({ _tag: "Id", id: host.id }, { limit: versionsMax })
              const before = versions.find(({ generation }) => String(generation) === version)
              const last = yield* LastChange.find(sql, fqdn, host.generation)
              return {
                changes: before === undefined ? [] : changedFields(versionView(before), versionView(host)),
                changedBy: last?.actor,
                changedAt: last === undefined ? undefined : timestamp(last.atMillis)
              }
            })
          }
        )
        // It was moved back meanwhile; whoever asks again will be let through.
        return yield* new StorageUnavailable({ detail: `${fqdn} is being changed at this moment; try again.` })
      }).pipe(orUnavailable)

    const refusalOf = (
      caller: Asker,
      { ifMatch = "", request }: Asked,
      error: Extract<HandledRequest, { readonly _tag: "Failure" }>["failure"]
    ): Effect.Effect<Refusal> => {
      const fqdn = request._tag === "Register" ? request.registration.fqdn : request.word.fqdn
      if (error._tag === "HostUnknown") return Effect.succeed(hostNotFound(fqdn))
      if (error._tag !== "HostMoved") return Effect.succeed(requests.explain(caller, fqdn, error))
      const lostSay = Effect.gen(function* () {
        const now = Option.getOrUndefined(yield* registry.findByName(fqdn))
        if (now === undefined || request._tag !== "Word") return
        const denied = requests.whyNoSay(caller, now, request.word.event)
        if (denied !== undefined) return yield* denied
      }).pipe(orUnavailable)
      return Effect.flip(Effect.andThen(lostSay, changedMeanwhile(fqdn, ifMatch))).pipe(
        Effect.map((refusal) =>
          refusal._tag === "PreconditionRequired" ? new StorageUnavailable({ detail: refusal.detail }) : refusal
        )
      )
    }

    /** Waits as `wait` says; gives how far each has come. */
    const publicationsAfter = Effect.fnUntraced(function* (handled: ReadonlyArray<Handled>, wait: Wait) {
      const tickets = handled.flatMap(({ ticket }) => ticket ?? [])
      if (wait.level !== "accepted") {
        // What was as it should be may still be on its way.
        const still = handled.filter(({ ticket }) => ticket === undefined).map(({ host }) => host)
        const reached = yield* orUnavailable(registry.publications(still))
        const behind = still.filter((_, i) => rank[reached[i]!.level] < rank[wait.level])
        const followed = yield* Effect.forEach(behind, (host) => orUnavailable(registry.follow(host)), {
          concurrency: followsAtOnce
        })
        const all = [...tickets, ...followed.map(({ ticket }) => ticket)].filter(({ places }) => places.length > 0)
        yield* Effect.timeoutOption(awaitAll(all, wait.level), Duration.seconds(wait.seconds))
      }
      const nowMillis = yield* Clock.currentTimeMillis
      const known = handled.map(({ host, ticket }) => reachedBy(ticket, host.generation, nowMillis))
      const unknown = handled.filter((_, i) => known[i] === undefined).map(({ host }) => host)
      const found = unknown.length === 0 ? [] : yield* orUnavailable(publicationsOf(unknown))
      let next = 0
      return known.map((publication) => publication ?? found[next++]!)
    })

    /** Measures registrations on their way, as those of both protocols. */
    const measure = (
      asked: ReadonlyArray<Asked>,
      handled: ReadonlyArray<HandledRequest>,
      startMillis: number,
      nowMillis: number
    ) => {
      handled.forEach((result, i) => {
        if (asked[i]!.request._tag !== "Register") return
        if (Result.isFailure(result)) {
          metrics.count(result.failure._tag === "RegistryUnavailable" ? "failed" : "refused")
          return
        }
        const { outcome, ticket } = result.success
        metrics.count(outcome)
        if (outcome === "renewed") return
        metrics.reached("accepted", nowMillis - startMillis)
        ticket?.onApplied((end) => {
          if (end._tag === "Applied") metrics.reached("applied", Math.max(0, end.atMillis - startMillis))
        })
        ticket?.onServed((end) => {
          if (end._tag === "Served") metrics.reached("served", Math.max(0, end.atMillis - startMillis))
        })
      })
    }

    /** Carries out what was asked, together, and waits for it together. */
    const carryOut = Effect.fnUntraced(function* (caller: Asker, asked: ReadonlyArray<Asked>, wait: Wait) {
      const startMillis = yield* Clock.currentTimeMillis
      const handled = yield* registry.requestAll(asked.map(({ request }) => request))
      measure(asked, handled, startMillis, yield* Clock.currentTimeMillis)
      handled.forEach((result, i) => {
        const isChange = Result.isSuccess(result)
          ? result.success.outcome !== "renewed" && result.success.outcome !== "unchanged"
          : result.failure._tag !== "RegistryUnavailable"
        if (!isChange) asked[i]!.giveBack()
      })
      const succeeded = handled.flatMap((result) => (Result.isSuccess(result) ? [result.success] : []))
      const publications = yield* publicationsAfter(succeeded, wait)
      let next = 0
      return yield* Effect.forEach(handled, (result, i): Effect.Effect<Result.Result<Done, Refusal>> => {
        if (Result.isFailure(result)) {
          return Effect.map(refusalOf(caller, asked[i]!, result.failure), (refusal) => Result.fail(refusal))
        }
        const done: Done = { handled: result.success, host: toContract(result.success.host, publications[next++]!) }
        return Effect.succeed(Result.succeed(done))
      })
    })

    const keyOf = ({ name, zone }: RecordPlace) => `${zone} ${name}`

    /** What should stand at `places` as the database is now. */
    const desiredAt = Effect.fnUntraced(function* (places: ReadonlyArray<RecordPlace>) {
      const records = new Map<string, ReadonlyArray<RRset.RRset>>()
      for (const [name, ofZone] of Map.groupBy(places, ({ zone }) => zone)) {
        const zone = zones.find(name)
        if (zone === undefined) continue
        const names = [...new Set(ofZone.map((place) => place.name))]
        for (const [at, rrsets] of yield* source.desired(zone, names)) records.set(`${name} ${at}`, rrsets)
      }
      return records
    })

    const recordChanges = (
      places: ReadonlyArray<RecordPlace>,
      before: ReadonlyMap<string, ReadonlyArray<RRset.RRset>>,
      after: ReadonlyMap<string, ReadonlyArray<RRset.RRset>>
    ): ReadonlyArray<Contract.RecordChange> =>
      places.flatMap((place) => {
        const [old, now] = [before.get(keyOf(place)) ?? [], after.get(keyOf(place)) ?? []]
        const types = [...new Set([...old, ...now].map(({ type }) => type))]
        return types.flatMap((type) => {
          const was = old.find((rrset) => rrset.type === type)
          const is = now.find((rrset) => rrset.type === type)
          const records = ({ contents, ttlSeconds }: RRset.RRset) => ({ ttlSeconds, contents })
          const change: Contract.RecordChange = {
            zone: place.zone,
            name: place.name,
            type,
            ...(was !== undefined && { before: records(was) }),
            ...(is !== undefined && { after: records(is) })
          }
          return JSON.stringify(change.before) === JSON.stringify(change.after) ? [] : [change]
        })
      })

    /** What would become of what was asked, and of the records; nothing is changed. */
    const tryOut = Effect.fnUntraced(function* (caller: Asker, asked: ReadonlyArray<Asked>) {
      for (const { giveBack } of asked) giveBack()
      const tried = yield* registry
        .tryOut(
          asked.map(({ request }) => request),
          Effect.fnUntraced(function* (handled) {
            const places = handled.map((result) =>
              Result.isSuccess(result) ? placesOf(zones, result.success.before, result.success.host) : []
            )
            const hosts = handled.flatMap((result) => (Result.isSuccess(result) ? [result.success.host] : []))
            return {
              handled,
              places,
              after: yield* desiredAt(places.flat()),
              publications: yield* registry.publications(hosts)
            }
          })
        )
        .pipe(
          Effect.catchTag("RegistryUnavailable", ({ message }) =>
            Effect.fail(new StorageUnavailable({ detail: message }))
          ),
          orUnavailable
        )
      const before = yield* orUnavailable(desiredAt(tried.places.flat()))
      let next = 0
      return yield* Effect.forEach(tried.handled, (result, i): Effect.Effect<Result.Result<Done, Refusal>> => {
        if (Result.isFailure(result)) {
          return Effect.map(refusalOf(caller, asked[i]!, result.failure), (refusal) => Result.fail(refusal))
        }
        const done: Done = {
          handled: result.success,
          host: toContract(result.success.host, tried.publications[next++]!),
          records: recordChanges(tried.places[i]!, before, tried.after)
        }
        return Effect.succeed(Result.succeed(done))
      })
    })

    const handle = (caller: Asker, asked: ReadonlyArray<Asked>, wait: Wait, dryRun: boolean | undefined) =>
      dryRun === true ? tryOut(caller, asked) : carryOut(caller, asked, wait)

    /** One request by itself. */
    const handleOne = Effect.fnUntraced(function* (
      read: Result.Result<Asked, Refusal>,
      wait: Wait,
      dryRun: boolean | undefined
    ) {
      const caller = yield* Caller
      const asked = yield* Effect.fromResult(read)
      const [result] = yield* handle(caller, [asked], wait, dryRun)
      return yield* Effect.fromResult(result!)
    })

    const triedMark = ({ records }: Done) => (records === undefined ? {} : { dryRun: true as const, records })

    const changed = (done: Done) =>
      withTag({ ...done.host, outcome: done.handled.outcome, ...triedMark(done) }, tagOf(done.host))

    const forgotten = (done: Done) => ({
      id: done.host.id,
      fqdn: done.host.fqdn,
      generation: done.host.generation,
      outcome: "released" as const,
      ...triedMark(done)
    })

    /** Items that are about a host name one that is there, and that the caller may see. */
    const findFor = Effect.fnUntraced(function* (caller: Asker, items: ReadonlyArray<Contract.BatchItem>) {
      const references = new Map(
        items.flatMap((item) => (item.op === "register" ? [] : [[item.host, referenceOf(item.host)] as const]))
      )
      const found = new Map<string, Host>()
      if (references.size === 0) return found
      const all = [...references.values()].flatMap((reference) => reference ?? [])
      const hosts = yield* orUnavailable(
        registry.findAll({
          ids: all.flatMap((reference) => (reference._tag === "Id" ? [reference.id] : [])),
          names: all.flatMap((reference) => (reference._tag === "Name" ? [reference.fqdn] : []))
        })
      )
      const known = new Map(hosts.flatMap((host) => [[host.id, host] as const, [host.fqdn as string, host] as const]))
      for (const [text, reference] of references) {
        if (reference === undefined) continue
        const host = known.get(reference._tag === "Id" ? reference.id : reference.fqdn)
        if (host !== undefined && allows(caller.authority, "read", "hosts", placeOf(host))) found.set(text, host)
      }
      return found
    })

    const readItem = (
      caller: Asker,
      item: Contract.BatchItem,
      found: ReadonlyMap<string, Host>,
      common: string | undefined
    ): Result.Result<Asked, Refusal> => {
      const reason = item.reason ?? common
      if (item.op === "register") return requests.register(caller, item, reason)
      const host = found.get(item.host)
      if (host === undefined) return Result.fail(hostNotFound(item.host))
      if (item.op === "change") return requests.change(caller, host, item, item.ifMatch, reason)
      const event = item.op === "retire" ? "retired" : "released"
      return requests.giveUp(caller, host, event, reason, item.ifMatch)
    }

    const toResult = (result: Result.Result<Done, Refusal>): Contract.BatchResult => {
      if (Result.isFailure(result)) {
        const problem = toProblem(result.failure)
        return { status: problem.status, problem }
      }
      const { handled, host, records } = result.success
      return {
        status: handled.outcome === "created" && records === undefined ? 201 : 200,
        outcome: handled.outcome,
        host,
        etag: tagOf(host),
        ...(records !== undefined && { records })
      }
    }

    return handlers.handleAll({
      register: Effect.fn("http.HostChanges.register")(function* ({ payload, query }) {
        const read = requests.register(yield* Caller, payload)
        const done = yield* handleOne(read, waitOf(payload), query.dryRun)
        const tag = tagOf(done.host)
        const outcome = registeredAs(done.handled.outcome)
        if (done.records !== undefined) {
          return withTag({ ...done.host, outcome, dryRun: true as const, records: done.records }, tag)
        }
        return outcome === "created"
          ? withTag({ ...done.host, outcome }, tag, { location: `/v1/hosts/${done.host.fqdn}` })
          : withTag({ ...done.host, outcome }, tag)
      }),

      batch: Effect.fn("http.HostChanges.batch")(function* ({ payload, query }) {
        const caller = yield* Caller
        const decoded = payload.items.map((item) => decodeItem(item, strictly))
        const found = yield* findFor(
          caller,
          decoded.flatMap((item) => (Result.isSuccess(item) ? [item.success] : []))
        )
        const read = decoded.map((item): Result.Result<Asked, Refusal> =>
          Result.isSuccess(item)
            ? readItem(caller, item.success, found, payload.reason)
            : Result.fail(invalidRequest("body", item.failure.issue))
        )
        const asked = read.flatMap((each) => (Result.isSuccess(each) ? [each.success] : []))
        const handled = yield* handle(caller, asked, waitOf(payload), query.dryRun)
        let next = 0
        const results = read.map((each) => toResult(Result.flatMap(each, () => handled[next++]!)))
        const levels = results.flatMap(({ host }) => host?.publication.level ?? [])
        const succeeded = levels.length
        return {
          results,
          succeeded,
          failed: results.length - succeeded,
          ...(succeeded > 0 &&
            query.dryRun !== true && { reached: levels.reduce((a, b) => (rank[a] <= rank[b] ? a : b)) }),
          ...(query.dryRun === true && { dryRun: true as const })
        }
      }),

      change: Effect.fn("http.HostChanges.change")(function* ({ headers, params, payload, query }) {
        const host = yield* orUnavailable(getHost(params.host))
        const read = requests.change(yield* Caller, host, payload, headers["if-match"])
        return changed(yield* handleOne(read, waitOf(payload), query.dryRun))
      }),

      remove: Effect.fn("http.HostChanges.remove")(function* ({ headers, params, query }) {
        const host = yield* orUnavailable(getHost(params.host))
        const event = query.release === true ? "released" : "retired"
        const read = requests.giveUp(yield* Caller, host, event, query.reason, headers["if-match"])
        return changed(yield* handleOne(read, noWait, query.dryRun))
      }),

      retire: Effect.fn("http.HostChanges.retire")(function* ({ headers, params, payload, query }) {
        const host = yield* orUnavailable(getHost(params.host))
        const read = requests.giveUp(yield* Caller, host, "retired", payload.reason, headers["if-match"])
        return changed(yield* handleOne(read, noWait, query.dryRun))
      }),

      release: Effect.fn("http.HostChanges.release")(function* ({ headers, params, payload, query }) {
        const host = yield* orUnavailable(getHost(params.host))
        const read = requests.giveUp(yield* Caller, host, "released", payload.reason, headers["if-match"])
        return forgotten(yield* handleOne(read, noWait, query.dryRun))
      }),

      transfer: Effect.fn("http.HostChanges.transfer")(function* ({ headers, params, payload, query }) {
        const host = yield* orUnavailable(getHost(params.host))
        const read = requests.change(yield* Caller, host, payload, headers["if-match"])
        return changed(yield* handleOne(read, noWait, query.dryRun))
      })
    })
  })
)
