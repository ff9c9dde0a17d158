/** Handlers of `/v1/zones`. */
import { Api } from "@prism-dns/core/api/Api"
import { Caller } from "@prism-dns/core/api/Authentication"
import * as EntityTag from "@prism-dns/core/api/EntityTag"
import * as Page from "@prism-dns/core/api/Page"
import {
  RequestInvalid,
  TooManyZones,
  ZoneConfigured,
  ZoneExists,
  ZoneInUse,
  ZoneNotFound,
  ZoneOverlaps
} from "@prism-dns/core/api/Problems"
import { timestamp } from "@prism-dns/core/api/Values"
import type * as Contract from "@prism-dns/core/api/Zones"
import { DnsManager } from "@prism-dns/core/dns/DnsManager"
import { Outbox } from "@prism-dns/core/dns/Outbox"
import { PastRecords } from "@prism-dns/core/dns/PastRecords"
import { Provisioner } from "@prism-dns/core/dns/Provisioner"
import { type Reconciliation, Reconciler } from "@prism-dns/core/dns/Reconciler"
import { type NameRecords, ZoneRecords } from "@prism-dns/core/dns/ZoneRecords"
import { Zones } from "@prism-dns/core/dns/Zones"
import type { DomainName } from "@prism-dns/core/domain/DomainName"
import * as Zone from "@prism-dns/core/domain/Zone"
import { settingsOf, type ZoneSettings } from "@prism-dns/core/domain/ZoneSettings"
import { HostHistory } from "@prism-dns/core/registry/HostHistory"
import { type Changed, ManagedZones, type Version, type ZoneInvalid } from "@prism-dns/core/registry/ManagedZones"
import { Effect } from "effect"
import { HttpApiBuilder } from "effect/http-api"
import { createHash } from "node:crypto"
import { orUnavailable, orUnavailableForZone } from "./Answers.ts"
import * as Authorization from "./Authorization.ts"
import { changedFields, requireMatch, withTag } from "./Conditional.ts"
import { requireKnown } from "./KnownTimes.ts"
import { narrowed, page, pageWith } from "./Pages.ts"
import { toZonePublication } from "./Publications.ts"
import { sentence } from "./Sentence.ts"

export const toReconciliation = (found: Reconciliation): Contract.Reconciliation => ({
  at: timestamp(found.startedAtMillis),
  seconds: found.millis / 1000,
  drift: found.drift,
  foreignNames: found.foreignNames,
  guards: found.guards,
  ...(found.plan.counts.changes > 0 && { plan: found.plan.id })
})

const kindOf = (name: DomainName): Contract.Zone["kind"] =>
  Zone.reverseNetwork(name) === undefined ? "forward" : "reverse"

/** A zone as of a time. */
const toZoneThen = ({ fromMillis, generation, name, settings, toMillis }: Version): Contract.Zone => ({
  name,
  kind: kindOf(name),
  generation,
  ...settings,
  validFrom: timestamp(fromMillis),
  ...(toMillis !== undefined && { validTo: timestamp(toMillis) })
})

/** What of a version people set. */
const settingsIn = ({ settings }: Version): ZoneSettings => {
  const { origin: _origin, overridden: _overridden, ...rest } = settings
  return rest
}

const toZoneVersion = (version: Version, before: Version | undefined): Contract.ZoneVersion => ({
  event: version.event,
  by: version.actor,
  generation: version.generation,
  validFrom: timestamp(version.fromMillis),
  ...(version.toMillis !== undefined && { validTo: timestamp(version.toMillis) }),
  changes:
    before === undefined || version.event !== "changed" ? [] : changedFields(settingsIn(before), settingsIn(version)),
  ...version.settings
})

/** Changes with all that a zone's answer shows. */
const tagOf = (zone: Contract.Zone): string =>
  EntityTag.make(
    zone.generation,
    createHash("sha256").update(JSON.stringify(zone)).digest("base64url").replaceAll("-", ".").slice(0, 12)
  )

const invalid = ({ message, pointer }: ZoneInvalid) =>
  new RequestInvalid({
    detail: `body ${pointer.slice(1)}: ${message}`,
    errors: [{ in: "body", pointer, detail: message }]
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
    const pastRecords = yield* PastRecords
    const history = yield* HostHistory
    const reconciler = yield* Reconciler
    const managed = yield* ManagedZones

    const shown = Effect.fnUntraced(function* (some: ReadonlyArray<Zone.Zone>) {
      const statuses = new Map((yield* manager.status).map((status) => [status.zone, status]))
      const backlogs = new Map((yield* outbox.backlog).map((backlog) => [backlog.zone, backlog]))
      const last = yield* reconciler.last
      return some.map((zone): Contract.Zone => {
        const found = last.get(zone.name)
        const settings = settingsOf(zone)
        return {
          name: zone.name,
          kind: kindOf(zone.name),
          generation: zone.generation,
          origin: zone.origin,
          overridden: zone.overridden,
          ...settings,
          publication: toZonePublication(
            statuses.get(zone.name) ?? { zone: zone.name, writing: false, ready: false, error: undefined },
            backlogs.get(zone.name)
          ),
          reconciliation: {
            ...settings.reconciliation,
            ...(found !== undefined && { last: toReconciliation(found) })
          }
        }
      })
    })

    const zoneNotFound = (name: DomainName, at?: string) =>
      new ZoneNotFound({
        detail:
          at === undefined
            ? `${name} is not a zone that Prism manages.`
            : `${name} was not a zone that Prism managed at ${at}, as far as it remembers.`
      })

    /** Fails as if the zone were not there unless the caller may see it. */
    const requireSeen = Effect.fnUntraced(function* (name: DomainName) {
      if (!(yield* Authorization.mayRead("zones", { zone: name }))) return yield* zoneNotFound(name)
    })

    /** The zone, unless the caller may not see it: then it is as if it were not there. */
    const getZone = Effect.fnUntraced(function* (name: DomainName) {
      yield* requireSeen(name)
      return zones.find(name) ?? (yield* zoneNotFound(name))
    })

    /** Holds the caller to the version it has seen, in the transaction of the change. */
    const matching =
      (request: Parameters<typeof requireMatch>[0]) =>
      ({ generation, name }: Zone.Zone) =>
        requireMatch(request, {
          version: generation,
          required: true,
          changesSince: Effect.fnUntraced(function* (seen) {
            const now = yield* managed.findCurrent(name)
            const before = /^\d{1,15}$/.test(seen) ? yield* managed.findVersion(name, Number(seen)) : undefined
            return {
              changes:
                now === undefined || before === undefined ? [] : changedFields(settingsIn(before), settingsIn(now)),
              changedBy: now?.actor,
              ...(now !== undefined && { changedAt: timestamp(now.fromMillis) })
            }
          })
        })

    const changed = Effect.fnUntraced(function* ({ after, namesMarked }: Changed, isDry: boolean) {
      const [zone] = yield* shown([after])
      const body: Contract.ZoneChanged = { ...zone!, namesMarked, ...(isDry && { dryRun: true }) }
      return { body, tag: tagOf(zone!) }
    })

    return handlers.handleAll({
      list: Effect.fn("http.Zones.list")(function* ({ query, request }) {
        const { at, cursor, limit = Page.limitDefault } = query
        const scope = yield* Authorization.scope("read", "zones")
        const after = cursor === undefined ? undefined : Page.nameBefore(cursor)
        const isSeen = ({ name }: { readonly name: DomainName }) => scope.has({ zone: name })
        const cursorOf = ({ name }: { readonly name: DomainName }) => Page.cursorAfter(name)
        if (at !== undefined) {
          const { found, readTo } = yield* narrowed(limit, {
            after,
            fetch: (after, limit) => managed.listAt(Date.parse(at), { after, limit }),
            placeOf: ({ name }) => name,
            keep: isSeen
          })
          return page(request, found, limit, { item: toZoneThen, cursor: cursorOf, readTo })
        }
        const found = zones.all
          .filter((zone) => isSeen(zone) && (after === undefined || zone.name > after))
          .sort((a, b) => (a.name < b.name ? -1 : 1))
          .slice(0, limit + 1)
        return page(request, yield* shown(found), limit, { item: (zone) => zone, cursor: cursorOf })
      }, orUnavailable),

      create: Effect.fn("http.Zones.create")(
        function* ({ payload, query }) {
          const { name, reason, ...settings } = payload
          const isDry = query.dryRun === true
          yield* Authorization.require("write", "zones", { zone: name })
          const done = yield* managed.create(name, settings, { actor: yield* Caller, reason, dryRun: isDry }).pipe(
            Effect.catchTag("ZoneOverlaps", (overlap) =>
              Effect.flatMap(Authorization.mayRead("hosts", { zone: overlap.other as DomainName }), (mayRead) => {
                const { examples, hosts, message, other, records } = overlap
                // Whoever may not look into the other zone learns no more than that there is something.
                return Effect.fail(
                  mayRead
                    ? new ZoneOverlaps({ detail: sentence(message), zone: other, hosts, records, examples })
                    : new ZoneOverlaps({
                        detail: `${name} would take over names of ${other}; release them there first.`,
                        zone: other,
                        hosts: 0,
                        records: 0,
                        examples: []
                      })
                )
              })
            )
          )
          const { body, tag } = yield* changed(done, isDry)
          return withTag(body, tag, { location: `/v1/zones/${encodeURIComponent(name.slice(0, -1))}` })
        },
        Effect.catchTags({
          ZoneExists: ({ message }) => Effect.fail(new ZoneExists({ detail: sentence(message) })),
          TooManyZones: ({ message }) => Effect.fail(new TooManyZones({ detail: sentence(message) })),
          ZoneInvalid: (error) => Effect.fail(invalid(error))
        }),
        orUnavailable
      ),

      get: Effect.fn("http.Zones.get")(function* ({ params, query }) {
        if (query.at === undefined) {
          const [zone] = yield* shown([yield* getZone(params.zone)])
          return withTag(zone!, tagOf(zone!))
        }
        yield* requireSeen(params.zone)
        const found = yield* managed.findAt(params.zone, Date.parse(query.at))
        if (found === undefined) return yield* zoneNotFound(params.zone, query.at)
        const zone = toZoneThen(found)
        return withTag(zone, tagOf(zone))
      }, orUnavailable),

      change: Effect.fn("http.Zones.change")(
        function* ({ headers, params, payload, query }) {
          const { reason, ...patch } = payload
          const isDry = query.dryRun === true
          const { name } = yield* getZone(params.zone)
          yield* Authorization.require("write", "zones", { zone: name })
          const done = yield* managed.change(name, patch, {
            actor: yield* Caller,
            reason,
            dryRun: isDry,
            check: matching({ headers })
          })
          const { body, tag } = yield* changed(done, isDry)
          return withTag(body, tag)
        },
        Effect.catchTags({
          ZoneUnknown: ({ zone }) => Effect.fail(new ZoneNotFound({ detail: `${zone} is managed no more.` })),
          ZoneInvalid: (error) => Effect.fail(invalid(error))
        }),
        orUnavailable
      ),

      remove: Effect.fn("http.Zones.remove")(
        function* ({ headers, params, query }) {
          const isDry = query.dryRun === true
          const { name } = yield* getZone(params.zone)
          yield* Authorization.require("delete", "zones", { zone: name })
          yield* managed.remove(name, {
            actor: yield* Caller,
            reason: query.reason,
            dryRun: isDry,
            check: matching({ headers })
          })
          return { name, powerdns: "kept" as const, ...(isDry && { dryRun: true as const }) }
        },
        Effect.catchTags({
          ZoneUnknown: ({ zone }) => Effect.fail(new ZoneNotFound({ detail: `${zone} is managed no more.` })),
          ZoneConfigured: ({ message }) => Effect.fail(new ZoneConfigured({ detail: sentence(message) })),
          ZoneInUse: ({ hosts, identities, message, publishedNames, records, roles, tokens }) =>
            Effect.fail(
              new ZoneInUse({ detail: sentence(message), hosts, records, publishedNames, tokens, identities, roles })
            )
        }),
        orUnavailable
      ),

      history: Effect.fn("http.Zones.history")(function* ({ params, query, request }) {
        const { cursor, limit = Page.limitDefault } = query
        yield* requireSeen(params.zone)
        // One more than the next page's first, to say what it changed.
        const found = yield* managed.history(params.zone, {
          before: cursor === undefined ? undefined : Page.numberBefore(cursor),
          limit: limit + 1
        })
        if (found.length === 0 && cursor === undefined) return yield* zoneNotFound(params.zone)
        return page(request, found, limit, {
          item: (version, i) => toZoneVersion(version, found[i + 1]),
          cursor: ({ sequence }) => Page.cursorBehind(sequence)
        })
      }, orUnavailable),

      records: Effect.fn("http.Zones.records")(function* ({ params, query, request }) {
        const { cursor, limit = Page.limitDefault, ownership = "managed" } = query
        const scope = yield* Authorization.scope("read", "records")
        const zone = params.zone
        const managed = zones.find(zone)
        if (managed === undefined || !scope.touches(zone)) return yield* zoneNotFound(zone)
        if (query.at !== undefined) {
          yield* requireKnown(history, "at", query.at)
          const past = yield* pastRecords.list(managed, Date.parse(query.at), {
            after: cursor === undefined ? undefined : Page.nameBefore(cursor),
            has: (name) => scope.has({ zone, name }),
            limit
          })
          return pageWith(
            request,
            past.names.map((each) => toNameRecords({ ...each, disabled: false })),
            past.next === undefined ? undefined : Page.cursorAfter(past.next)
          )
        }
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
