/** Handlers of what hosts and records were, and where they come from. */
import { Api } from "@prism-dns/core/api/Api"
import type * as Contract from "@prism-dns/core/api/History"
import * as Page from "@prism-dns/core/api/Page"
import { ZoneNotFound } from "@prism-dns/core/api/Problems"
import { timestamp } from "@prism-dns/core/api/Values"
import { type NameChain, type Obstacle, Provenance, type Step } from "@prism-dns/core/dns/Provenance"
import * as ProvenanceText from "@prism-dns/core/dns/ProvenanceText"
import { Zones } from "@prism-dns/core/dns/Zones"
import * as Name from "@prism-dns/core/domain/DomainName"
import type * as RRset from "@prism-dns/core/domain/RRset"
import { HostHistory, type VersionChange, type VersionPlace } from "@prism-dns/core/registry/HostHistory"
import { Effect } from "effect"
import { HttpApiBuilder } from "effect/http-api"
import { orUnavailable, orUnavailableForZone } from "./Answers.ts"
import * as Authorization from "./Authorization.ts"
import { hostNotFound, referenceOf, toVersion } from "./Hosts.ts"
import { page } from "./Pages.ts"

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

    return handlers.handleAll({
      hostHistory: Effect.fn("http.History.hostHistory")(function* ({ params, query, request }) {
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
      }, orUnavailable),

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
