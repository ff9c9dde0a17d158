/** Handlers of what hosts and records were, and where they come from. */
import { Api } from "@prism-dns/core/api/Api"
import { Caller } from "@prism-dns/core/api/Authentication"
import type * as Contract from "@prism-dns/core/api/History"
import * as Page from "@prism-dns/core/api/Page"
import { RequestInvalid, ZoneNotFound } from "@prism-dns/core/api/Problems"
import { timestamp } from "@prism-dns/core/api/Values"
import { type NameChain, type Obstacle, Provenance, type Step } from "@prism-dns/core/dns/Provenance"
import type { Plan } from "@prism-dns/core/dns/Plans"
import { Restoration } from "@prism-dns/core/dns/Restoration"
import * as ProvenanceText from "@prism-dns/core/dns/ProvenanceText"
import { Zones } from "@prism-dns/core/dns/Zones"
import type { DomainName } from "@prism-dns/core/domain/DomainName"
import * as Name from "@prism-dns/core/domain/DomainName"
import type * as RRset from "@prism-dns/core/domain/RRset"
import {
  type Difference,
  Differences,
  hostFields,
  recordFields,
  type RecordVersion,
  type SetPlace
} from "@prism-dns/core/registry/Differences"
import {
  HostHistory,
  type HostVersion,
  type VersionChange,
  type VersionPlace
} from "@prism-dns/core/registry/HostHistory"
import { Clock, Effect, Option } from "effect"
import { HttpApiBuilder, HttpApiSchema } from "effect/http-api"
import { orUnavailable, orUnavailableForZone } from "./Answers.ts"
import * as Authorization from "./Authorization.ts"
import { fromReplica } from "./FromReplica.ts"
import { hostNotFound, referenceOf, toVersion } from "./Hosts.ts"
import { requireKnown } from "./KnownTimes.ts"
import { page, pageWith } from "./Pages.ts"
import { toPlan } from "./Plans.ts"

const toChange = (change: VersionChange, mayAudit: boolean): Contract.Change => ({
  actor: change.actor,
  ...(mayAudit && change.peer !== undefined && { peer: change.peer }),
  ...(change.reason !== undefined && { reason: change.reason }),
  ...(change.cause !== undefined && { cause: change.cause }),
  ...(change.request !== undefined && { request: change.request }),
  ...(change.position !== undefined && { position: change.position })
})

const toSet = ({ contents, ttlSeconds, type }: RRset.RRset) => ({ type, ttlSeconds, contents })

const toStep = ({ atMillis, detail, step, ...more }: Step): Contract.ExplainStep => ({
  step,
  ...(atMillis !== undefined && { at: timestamp(atMillis) }),
  detail,
  ...(more.actor !== undefined && { actor: more.actor }),
  ...(more.peer !== undefined && { peer: more.peer }),
  ...(more.request !== undefined && { request: more.request }),
  ...(more.cause !== undefined && { cause: more.cause }),
  ...(more.generation !== undefined && { generation: more.generation }),
  ...(more.position !== undefined && { position: more.position }),
  ...(more.node !== undefined && { node: more.node })
})

const toObstacle = ({ detail, kind, node, plan, sinceMillis }: Obstacle): Contract.Obstacle => ({
  kind,
  detail,
  ...(sinceMillis !== undefined && { since: timestamp(sinceMillis) }),
  ...(plan !== undefined && { plan }),
  ...(node !== undefined && { node })
})

const toChain = (chain: NameChain): Contract.NameChain => ({
  zone: chain.zone,
  name: chain.name,
  desired: chain.desired.map(toSet),
  ...(chain.published !== undefined && { published: chain.published.map(toSet) }),
  level: chain.level,
  steps: chain.steps.map(toStep),
  obstacles: chain.obstacles.map(toObstacle)
})

/** Addresses that people and machines spoke from are for those who may read the audit. */
const withoutPeers = (steps: ReadonlyArray<Step>): ReadonlyArray<Step> =>
  steps.map((step) => ({ ...step, peer: undefined }))

/** A guard is over all zones, and its words count hosts in them: who may not see it learns that there is one. */
const withoutGuards = <A extends Pick<NameChain, "obstacles">>(chain: A): A => ({
  ...chain,
  obstacles: chain.obstacles.map((obstacle) =>
    obstacle.kind === "guard" ? { ...obstacle, detail: "a guard that has tripped holds it back" } : obstacle
  )
})

const toRecordVersion = (version: RecordVersion): Contract.RecordVersion => ({
  ttlSeconds: version.ttlSeconds,
  contents: version.contents,
  owner: version.owner,
  origin: version.origin,
  generation: version.generation,
  validFrom: timestamp(version.fromMillis)
})

const changeOf = ({ after, before }: Difference<unknown>) =>
  before === undefined ? "created" : after === undefined ? "gone" : "changed"

const toHostDifference = ({ after, before }: Difference<HostVersion>): Contract.Difference => ({
  kind: "host",
  zone: (after ?? before)!.zone,
  name: (after ?? before)!.fqdn,
  change: changeOf({ after, before }),
  fields: before === undefined || after === undefined ? [] : hostFields(before, after),
  ...(before !== undefined && { before: toVersion(before) }),
  ...(after !== undefined && { after: toVersion(after) })
})

const toRecordDifference = ({ after, before }: Difference<RecordVersion>): Contract.Difference => ({
  kind: "record",
  zone: (after ?? before)!.zone,
  name: (after ?? before)!.name,
  type: (after ?? before)!.type,
  change: changeOf({ after, before }),
  fields: before === undefined || after === undefined ? [] : recordFields(before, after),
  ...(before !== undefined && { before: toRecordVersion(before) }),
  ...(after !== undefined && { after: toRecordVersion(after) })
})

/** Where a list of differences goes on: among the hosts, or among the records. */
const hostPlace = (name: string) => Page.cursorBehind(`hosts ${name}`)
const recordPlace = (place: SetPlace | undefined) =>
  Page.cursorBehind(place === undefined ? "records" : `records ${place.zone} ${place.name} ${place.type}`)

const differencePlace = (cursor: string | undefined) => {
  const [kind, first, name, type] = (cursor === undefined ? "" : (Page.placeBefore(cursor) ?? "")).split(" ")
  if (kind === "records") {
    const place =
      first === undefined || name === undefined || type === undefined
        ? undefined
        : { zone: first as DomainName, name: name as DomainName, type }
    return { isRecords: true as const, place }
  }
  return { isRecords: false as const, name: first as DomainName | undefined }
}

const cursorOf = ({ fromMillis, sequence }: VersionPlace): string => Page.cursorBehind(`${fromMillis}:${sequence}`)

const placeOf = (cursor: string): VersionPlace | undefined => {
  const match = /^(\d{1,15}):(\d{1,15})$/.exec(Page.placeBefore(cursor) ?? "")
  return match === null ? undefined : { fromMillis: Number(match[1]), sequence: Number(match[2]) }
}

export const layer = HttpApiBuilder.group(
  Api,
  "history",
  Effect.fnUntraced(function* (handlers) {
    const history = yield* HostHistory
    const provenance = yield* Provenance
    const zones = yield* Zones
    const differences = yield* Differences
    const restoration = yield* Restoration

    const restoreOptions = Effect.fnUntraced(function* (payload: Contract.RestoreRequest, dryRun = false) {
      const { name: by, peer, request } = yield* Caller
      return { atMillis: Date.parse(payload.at), reason: payload.reason, by, peer, request, dryRun }
    })

    const shownPlan = (plan: Plan, dryRun = false) => {
      const kept = plan.counts.changes > 0 && !dryRun
      return HttpApiSchema.withHeaders({
        body: { ...toPlan(plan), ...(dryRun && { dryRun: true as const }) },
        headers: kept ? { location: `/v1/plans/${plan.id}` } : {}
      })
    }

    const zoneNotFound = (zone: string) => new ZoneNotFound({ detail: `${zone} is not a zone that Prism manages.` })

    const timeUnknown = (detail: string) =>
      new RequestInvalid({ detail: `body at: ${detail}`, errors: [{ in: "body", pointer: "/at", detail }] })

    return handlers.handleAll({
      hostHistory: Effect.fn("http.History.hostHistory")(
        function* ({ params, query, request }) {
          const limit = query.limit ?? Page.limitDefault
          const reference = referenceOf(params.host)
          const scope = yield* Authorization.scope("read", "hosts")
          const found =
            reference === undefined
              ? []
              : yield* history.versions(reference, {
                  before: query.cursor === undefined ? undefined : placeOf(query.cursor),
                  limit: limit + 1
                })
          const visible = found.filter(({ fqdn, zone }) => scope.has({ zone, name: fqdn }))
          if (visible.length === 0 && query.cursor === undefined) return yield* hostNotFound(params.host)
          const changes = yield* history.changes(visible.slice(0, limit))
          const mayAudit = yield* Authorization.mayRead("audit", { zone: visible[0]?.zone, name: visible[0]?.fqdn })
          return page(request, visible, limit, {
            item: (version, i) => {
              const change = changes[i]
              return { ...toVersion(version), ...(change !== undefined && { change: toChange(change, mayAudit) }) }
            },
            cursor: ({ place }) => cursorOf(place),
            readTo: found.length > limit ? found.at(-1) : undefined
          })
        },
        fromReplica,
        orUnavailable
      ),

      explainHost: Effect.fn("http.History.explainHost")(function* ({ params, query }) {
        const reference = referenceOf(params.host)
        const whole = reference === undefined ? undefined : yield* provenance.host(reference)
        const place = whole && { zone: whole.version.zone, name: whole.version.fqdn }
        if (whole === undefined || !(yield* Authorization.mayRead("hosts", place!))) {
          return yield* hostNotFound(params.host)
        }
        const mayAudit = yield* Authorization.mayRead("audit", place!)
        const maySeeGuards = yield* Authorization.mayRead("guards", {})
        const found = {
          ...whole,
          steps: mayAudit ? whole.steps : withoutPeers(whole.steps),
          names: maySeeGuards ? whole.names : whole.names.map(withoutGuards)
        }
        if (query.format === "text") return ProvenanceText.ofHost(found)
        return {
          host: toVersion(found.version),
          summary: ProvenanceText.hostSummary(found),
          steps: found.steps.map(toStep),
          names: found.names.map(toChain)
        }
      }, orUnavailable),

      diff: Effect.fn("http.History.diff")(
        function* ({ query, request }) {
          const limit = query.limit ?? Page.limitDefault
          yield* requireKnown(history, "from", query.from)
          if (query.to !== undefined) yield* requireKnown(history, "to", query.to)
          const common = {
            fromMillis: Date.parse(query.from),
            toMillis: query.to === undefined ? yield* Clock.currentTimeMillis : Date.parse(query.to),
            zone: query.zone,
            prefix: query.q?.toLowerCase(),
            limit
          }
          const begin = differencePlace(query.cursor)
          const items: Array<Contract.Difference> = []
          if (!begin.isRecords && query.about !== "records") {
            const hosts = yield* Authorization.scope("read", "hosts")
            const found = yield* differences.hosts({ ...common, has: hosts.has }, begin.name)
            items.push(...found.items.map(toHostDifference))
            if (found.next !== undefined) return pageWith(request, items, hostPlace(found.next))
          }
          if (query.about === "hosts") return pageWith(request, items, undefined)
          if (items.length === limit) return pageWith(request, items, recordPlace(undefined))
          const records = yield* Authorization.scope("read", "records")
          const found = yield* differences.records(
            { ...common, has: records.has, limit: limit - items.length },
            begin.isRecords ? begin.place : undefined
          )
          items.push(...found.items.map(toRecordDifference))
          return pageWith(request, items, found.next === undefined ? undefined : recordPlace(found.next))
        },
        fromReplica,
        orUnavailable
      ),

      restoreHost: Effect.fn("http.History.restoreHost")(
        function* ({ params, payload, query: { dryRun } }) {
          const reference = referenceOf(params.host)
          // Whoever has the name now, or had it then.
          const found =
            reference === undefined ? Option.none() : yield* history.find(reference, Number.MAX_SAFE_INTEGER)
          const place = Option.map(found, ({ fqdn, zone }) => ({ zone, name: fqdn }))
          if (Option.isNone(place) || !(yield* Authorization.mayRead("hosts", place.value))) {
            return yield* hostNotFound(params.host)
          }
          const { name, zone } = place.value
          yield* Authorization.require("write", "plans", { zone })
          yield* Authorization.require("write", "hosts", place.value)
          yield* Authorization.require("write", "records", place.value)
          return shownPlan(yield* restoration.name(zone, name, yield* restoreOptions(payload, dryRun)), dryRun)
        },
        Effect.catchTags({
          RestoreZoneUnknown: ({ zone }) => Effect.fail(zoneNotFound(zone)),
          TimeUnknown: ({ message }) => Effect.fail(timeUnknown(message))
        }),
        orUnavailable
      ),

      restoreZone: Effect.fn("http.History.restoreZone")(
        function* ({ params, payload, query: { dryRun } }) {
          const { zone } = params
          if (zones.find(zone) === undefined || !(yield* Authorization.mayRead("plans", { zone }))) {
            return yield* zoneNotFound(zone)
          }
          for (const resource of ["plans", "hosts", "records"] as const) {
            yield* Authorization.require("write", resource, { zone })
          }
          return shownPlan(yield* restoration.zone(zone, yield* restoreOptions(payload, dryRun)), dryRun)
        },
        Effect.catchTags({
          RestoreZoneUnknown: ({ zone }) => Effect.fail(zoneNotFound(zone)),
          TimeUnknown: ({ message }) => Effect.fail(timeUnknown(message))
        }),
        orUnavailableForZone,
        // It reads the registry alone.
        Effect.catchTag("PowerDnsFailed", Effect.die)
      ),

      explainRecord: Effect.fn("http.History.explainRecord")(function* ({ params, query }) {
        const zone = zones.find(params.zone)
        const { name } = params
        const place = { zone: params.zone, name }
        if (
          zone === undefined ||
          !Name.isWithin(name, zone.name) ||
          !(yield* Authorization.mayRead("records", place))
        ) {
          return yield* new ZoneNotFound({ detail: `${name} lies in no zone ${params.zone} that there is.` })
        }
        const whole = yield* provenance.record(zone, name, params.type.toUpperCase())
        const mayAudit = yield* Authorization.mayRead("audit", place)
        // Which hosts have a say in it is seen by those who may see the hosts.
        const hosts = yield* Authorization.scope("read", "hosts")
        const found = {
          ...((yield* Authorization.mayRead("guards", {})) ? whole : withoutGuards(whole)),
          steps: mayAudit ? whole.steps : withoutPeers(whole.steps),
          claims: whole.claims.filter(({ fqdn, zone }) => hosts.has({ zone, name: fqdn }))
        }
        if (query.format === "text") return ProvenanceText.ofRecord(found)
        return {
          ...toChain(found),
          type: found.type,
          origin: found.origin,
          ...(found.owner !== undefined && { owner: found.owner }),
          summary: ProvenanceText.recordSummary(found),
          claims: found.claims.map(({ fqdn, reason, sinceMillis, state, wins, withdrawn }) => ({
            fqdn,
            state,
            since: timestamp(sinceMillis),
            withdrawn,
            wins,
            reason
          }))
        }
      }, orUnavailableForZone)
    })
  })
)
