/** Handlers of `/v1/publications`. */
import { Api } from "@prism-dns/core/api/Api"
import { Caller } from "@prism-dns/core/api/Authentication"
import * as Page from "@prism-dns/core/api/Page"
import type * as Contract from "@prism-dns/core/api/Publications"
import { timestamp } from "@prism-dns/core/api/Values"
import { DnsManager, type ZoneStatus } from "@prism-dns/core/dns/DnsManager"
import { Parked } from "@prism-dns/core/dns/Parked"
import { Outbox, type PendingPublication, type ZoneBacklog } from "@prism-dns/core/dns/Outbox"
import { Zones } from "@prism-dns/core/dns/Zones"
import { Effect } from "effect"
import { HttpApiBuilder } from "effect/http-api"
import { orUnavailable } from "./Answers.ts"
import * as Authorization from "./Authorization.ts"

export const toZonePublication = (status: ZoneStatus, backlog: ZoneBacklog | undefined): Contract.ZonePublication => ({
  zone: status.zone,
  pending: backlog?.pending ?? 0,
  parked: backlog?.parked ?? 0,
  ...(backlog?.oldestMillis !== undefined && { oldest: timestamp(backlog.oldestMillis) }),
  ...(backlog?.publishedAtMillis !== undefined && { lastPublished: timestamp(backlog.publishedAtMillis) }),
  ready: status.ready,
  ...(status.error !== undefined && { error: status.error })
})

const toItem = (pending: PendingPublication): Contract.PendingName => ({
  zone: pending.zone,
  name: pending.name,
  generation: pending.generation,
  markedAt: timestamp(pending.markedAtMillis),
  state: pending.parkedReason === undefined ? "pending" : "parked",
  ...(pending.parkedReason !== undefined && { reason: pending.parkedReason })
})

/** A zone that was taken out of the configuration has no writer any more; what it left behind is still to be seen. */
const withoutWriter = ({ zone }: ZoneBacklog): ZoneStatus => ({
  zone,
  writing: false,
  ready: false,
  error: "the zone is not configured any more, nothing publishes it"
})

/** Of every zone that is configured, and of those that are not any more and have left something behind. */
export const toZonePublications = (
  statuses: ReadonlyArray<ZoneStatus>,
  backlogs: ReadonlyArray<ZoneBacklog>
): ReadonlyArray<Contract.ZonePublication> => {
  const byZone = new Map(backlogs.map((backlog) => [backlog.zone, backlog]))
  const configured = new Set(statuses.map(({ zone }) => zone))
  const leftBehind = backlogs.filter(({ parked, pending, zone }) => !configured.has(zone) && pending + parked > 0)
  return [...statuses, ...leftBehind.map(withoutWriter)].map((status) =>
    toZonePublication(status, byZone.get(status.zone))
  )
}

export const layer = HttpApiBuilder.group(
  Api,
  "publications",
  Effect.fnUntraced(function* (handlers) {
    const outbox = yield* Outbox
    const manager = yield* DnsManager
    const parked = yield* Parked
    const zones = yield* Zones
    return handlers.handleAll({
      list: Effect.fn("http.Publications.list")(function* ({ query }) {
        const scope = yield* Authorization.scope("read", "publications")
        const pending = yield* outbox.list({
          zones: scope.zones,
          zone: query.zone,
          limit: query.limit ?? Page.limitDefault
        })
        const all = toZonePublications(yield* manager.status, yield* outbox.backlog)
        return {
          zones: all.filter(({ zone }) => scope.has({ zone }) && (query.zone === undefined || zone === query.zone)),
          items: pending.filter(({ name, zone }) => scope.has({ zone, name })).map(toItem)
        }
      }, orUnavailable),

      retry: Effect.fn("http.Publications.retry")(function* ({ payload = {}, query: { dryRun = false } }) {
        const { name, zone = name === undefined ? undefined : Authorization.placeOf(zones.all, name).zone } = payload
        yield* Authorization.require("write", "publications", { zone, name })
        const names = yield* parked.retry({ name, zone, actor: yield* Caller, dryRun })
        return { names, ...(dryRun && { dryRun: true as const }) }
      }, orUnavailable)
    })
  })
)
