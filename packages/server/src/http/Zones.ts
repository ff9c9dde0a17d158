/** Handlers of `/v1/zones`. */
import { Api } from "@prism-dns/core/api/Api"
import * as Page from "@prism-dns/core/api/Page"
import { ZoneNotFound } from "@prism-dns/core/api/Problems"
import { timestamp } from "@prism-dns/core/api/Values"
import type * as Contract from "@prism-dns/core/api/Zones"
import { DnsManager } from "@prism-dns/core/dns/DnsManager"
import { Outbox } from "@prism-dns/core/dns/Outbox"
import { Provisioner } from "@prism-dns/core/dns/Provisioner"
import { type Reconciliation, Reconciler } from "@prism-dns/core/dns/Reconciler"
import { type NameRecords, ZoneRecords } from "@prism-dns/core/dns/ZoneRecords"
import { Zones } from "@prism-dns/core/dns/Zones"
import type { DomainName } from "@prism-dns/core/domain/DomainName"
import * as Zone from "@prism-dns/core/domain/Zone"
import { Duration, Effect } from "effect"
import { HttpApiBuilder } from "effect/http-api"
import { IpNetwork } from "effect/net"
import { orUnavailable, orUnavailableForZone } from "./Answers.ts"
import * as Authorization from "./Authorization.ts"
import { narrowed, page } from "./Pages.ts"
import { toZonePublication } from "./Publications.ts"

export const toReconciliation = (found: Reconciliation): Contract.Reconciliation => ({
  at: timestamp(found.startedAtMillis),
  seconds: found.millis / 1000,
  drift: found.drift,
  foreignNames: found.foreignNames,
  guards: found.guards,
  ...(found.plan.counts.changes > 0 && { plan: found.plan.id })
})

const toPolicy = ({
  conflict,
  deleteBudget,
  holdFor,
  hostsMax,
  labelsMax,
  networks,
  quarantine,
  retireAfter,
  ttlSeconds,
  ttlSecondsMax,
  ttlSecondsMin,
  whenOffline
}: Zone.ZonePolicy): Contract.ZonePolicy => ({
  ttlSeconds,
  ttlSecondsMin,
  ttlSecondsMax,
  ...(networks !== undefined && { networks: networks.map(IpNetwork.format) }),
  ...(labelsMax !== undefined && { labelsMax }),
  hostsMax,
  ...(whenOffline._tag === "Keep"
    ? { whenOffline: "keep" as const }
    : { whenOffline: "withdraw" as const, withdrawAfterSeconds: Duration.toSeconds(whenOffline.after) }),
  conflict,
  retireAfterSeconds: Duration.toSeconds(retireAfter),
  holdForSeconds: Duration.toSeconds(holdFor),
  deleteBudget: {
    share: deleteBudget.share,
    min: deleteBudget.min,
    windowSeconds: Duration.toSeconds(deleteBudget.window)
  },
  quarantineSeconds: Duration.toSeconds(quarantine)
})

const toNameRecords = ({ disabled, name, owner, rrsets }: NameRecords): Contract.NameRecords => ({
  name,
  owner,
  disabled,
  recordSets: rrsets.map(({ contents, ttlSeconds, type }) => ({ type, ttlSeconds, contents }))
})

export const layer = HttpApiBuilder.group(
  Api,
  "zones",
  Effect.fnUntraced(function* (handlers) {
    const zones = yield* Zones
    const outbox = yield* Outbox
    const manager = yield* DnsManager
    const provisioner = yield* Provisioner
    const zoneRecords = yield* ZoneRecords
    const reconciler = yield* Reconciler

    const shown = Effect.fnUntraced(function* (some: ReadonlyArray<Zone.Zone>) {
      const statuses = new Map((yield* manager.status).map((status) => [status.zone, status]))
      const backlogs = new Map((yield* outbox.backlog).map((backlog) => [backlog.zone, backlog]))
      const last = yield* reconciler.last
      return some.map((zone): Contract.Zone => {
        const found = last.get(zone.name)
        return {
          name: zone.name,
          kind: Zone.isReverse(zone) ? "reverse" : "forward",
          dnssec: zone.dnssec,
          nameservers: zone.nameservers,
          createIfMissing: zone.createIfMissing,
          policy: toPolicy(zone.policy),
          publication: toZonePublication(
            statuses.get(zone.name) ?? { zone: zone.name, ready: false, error: undefined },
            backlogs.get(zone.name)
          ),
          reconciliation: {
            intervalSeconds: Duration.toSeconds(zone.reconciliation.interval),
            repair: zone.reconciliation.repair,
            ...(found !== undefined && { last: toReconciliation(found) })
          }
        }
      })
    })

    const zoneNotFound = (name: DomainName) =>
      new ZoneNotFound({ detail: `${name} is not a zone of the configuration.` })

    /** The zone, unless the caller may not see it: then it is as if it were not there. */
    const getZone = Effect.fnUntraced(function* (name: DomainName) {
      const zone = zones.find(name)
      return zone === undefined || !(yield* Authorization.mayRead("zones", { zone: name }))
        ? yield* zoneNotFound(name)
        : zone
    })

    return handlers.handleAll({
      list: Effect.fn("http.Zones.list")(function* () {
        const scope = yield* Authorization.scope("read", "zones")
        return { items: yield* shown(zones.all.filter(({ name }) => scope.has({ zone: name }))) }
      }, orUnavailable),

      get: Effect.fn("http.Zones.get")(function* ({ params }) {
        const [zone] = yield* shown([yield* getZone(params.zone)])
        return zone!
      }, orUnavailable),

      records: Effect.fn("http.Zones.records")(function* ({ params, query, request }) {
        const { cursor, limit = Page.limitDefault, ownership = "managed" } = query
        const scope = yield* Authorization.scope("read", "records")
        const zone = params.zone
        if (zones.find(zone) === undefined || !scope.touches(zone)) return yield* zoneNotFound(zone)
        const { found, readTo } = yield* narrowed(limit, {
          after: cursor === undefined ? undefined : Page.nameBefore(cursor),
          fetch: (after, limit) => zoneRecords.list(zone, { ownership, after, limit }),
          placeOf: ({ name }) => name,
          keep: ({ name }) => scope.has({ zone, name })
        })
        return page(request, found, limit, {
          item: toNameRecords,
          cursor: (last) => Page.cursorAfter(last.name),
          readTo
        })
      }, orUnavailableForZone),

      dnssec: Effect.fn("http.Zones.dnssec")(function* ({ params }) {
        const { name } = yield* getZone(params.zone)
        return { zone: name, ...(yield* provisioner.dnssec(name)) }
      }, orUnavailableForZone)
    })
  })
)
