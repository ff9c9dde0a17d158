/** Handlers of `/v1/hosts`. */
import { Api } from "@prism-dns/core/api/Api"
import * as EntityTag from "@prism-dns/core/api/EntityTag"
import type * as Contract from "@prism-dns/core/api/Hosts"
import * as Page from "@prism-dns/core/api/Page"
import { HostNotFound } from "@prism-dns/core/api/Problems"
import { timestamp } from "@prism-dns/core/api/Values"
import * as DomainName from "@prism-dns/core/domain/DomainName"
import { DnsManager } from "@prism-dns/core/dns/DnsManager"
import type { Host, Publication } from "@prism-dns/core/domain/Host"
import { HostHistory, type HostReference, type HostVersion } from "@prism-dns/core/registry/HostHistory"
import type { HostFilter, HostsFound } from "@prism-dns/core/registry/HostLists"
import { Registry } from "@prism-dns/core/registry/Registry"
import { Effect, Option, Result } from "effect"
import { HttpApiBuilder, HttpApiSchema } from "effect/http-api"
import { hash } from "node:crypto"
import { Presence } from "../Presence.ts"
import { orUnavailable } from "./Answers.ts"
import * as Authorization from "./Authorization.ts"
import { withTag } from "./Conditional.ts"
import { fromReplica } from "./FromReplica.ts"
import { requireKnown } from "./KnownTimes.ts"
import { pageWith } from "./Pages.ts"

export const toContract = (host: Host, publication: Publication): Contract.Host => ({
  id: host.id,
  fqdn: host.fqdn,
  hostname: host.hostname,
  zone: host.zone,
  addresses: host.addresses,
  labels: host.labels,
  ...(host.ttlSeconds !== undefined && { ttlSeconds: host.ttlSeconds }),
  lease: host.isStatic ? "none" : "renewed",
  state: host.state,
  generation: host.generation,
  owner: host.owner,
  firstSeen: timestamp(host.firstSeenMillis),
  lastSeen: timestamp(host.lastSeenMillis),
  publication: {
    level: publication.level,
    generation: publication.generation,
    at: timestamp(publication.atMillis),
    ...(publication.error !== undefined && { error: publication.error })
  }
})

/** A host's version is its generation; how far it has come, and when it was last seen, moves by itself. */
export const tagOf = ({ generation, lastSeen, publication: { at, error = "", level } }: Contract.Host): string =>
  EntityTag.make(generation, hash("sha1", `${level} ${at} ${lastSeen} ${error}`, "hex").slice(0, 16))

export const toVersion = (version: HostVersion): Contract.HostVersion => ({
  id: version.id,
  fqdn: version.fqdn,
  zone: version.zone,
  addresses: version.addresses,
  labels: version.labels,
  ...(version.ttlSeconds !== undefined && { ttlSeconds: version.ttlSeconds }),
  lease: version.isStatic ? "none" : "renewed",
  state: version.state,
  owner: version.owner,
  generation: version.generation,
  event: version.event,
  validFrom: timestamp(version.fromMillis),
  ...(version.toMillis !== undefined && { validTo: timestamp(version.toMillis) })
})

const idPattern = /^[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}$/i

/** What names a host: its id, or a full name; undefined when it can be neither. */
export const referenceOf = (text: string): HostReference | undefined =>
  idPattern.test(text)
    ? { _tag: "Id", id: text.toLowerCase() }
    : Result.match(DomainName.parse(text), {
        onFailure: () => undefined,
        onSuccess: (fqdn) => ({ _tag: "Name", fqdn })
      })

/** The host that `text` names by its id or its full name. */
const find = (registry: Registry["Service"], text: string) => {
  const reference = referenceOf(text)
  if (reference === undefined) return Effect.succeedNone
  return reference._tag === "Id" ? registry.findById(reference.id) : registry.findByName(reference.fqdn)
}

export const hostNotFound = (reference: string, at?: string) =>
  new HostNotFound({
    detail:
      at === undefined
        ? `There is no host '${reference}'; a host is asked for by its id or its full name, with its zone.`
        : `There was no host '${reference}' at ${at}, as far as the registry remembers.`
  })

/** `key=value`; a value may have a `=` in it. */
const labelOf = (text: string): readonly [string, string] => {
  const end = text.indexOf("=")
  return [text.slice(0, end), text.slice(end + 1)]
}

export const placeOf = ({ fqdn, zone }: Host | HostVersion) => ({ zone, name: fqdn })

const cursorOf = ({ next }: HostsFound<unknown>) => (next === undefined ? undefined : Page.cursorAfter(next))

/** Looks at hosts as callers may see them. */
export const looking = Effect.gen(function* () {
  const registry = yield* Registry
  const dns = yield* DnsManager

  /** What waits in a zone whose writer is held up waits for the reason that the writer has. */
  const publicationsOf = Effect.fnUntraced(function* (hosts: ReadonlyArray<Host>) {
    const publications = yield* registry.publications(hosts)
    const errors = new Map((yield* dns.status).map(({ error, zone }) => [zone, error]))
    return publications.map((publication, i): Publication => {
      const error = publication.level === "accepted" ? (publication.error ?? errors.get(hosts[i]!.zone)) : undefined
      return error === undefined ? publication : { ...publication, error }
    })
  })

  /** The host, unless the caller may not see it: then it is as if it were not there. */
  const getHost = Effect.fnUntraced(function* (reference: string) {
    const host = Option.getOrUndefined(yield* find(registry, reference))
    if (host === undefined || !(yield* Authorization.mayRead("hosts", placeOf(host)))) {
      return yield* hostNotFound(reference)
    }
    return host
  })

  const shown = Effect.fnUntraced(function* (host: Host) {
    const [publication] = yield* publicationsOf([host])
    return toContract(host, publication!)
  })

  return { publicationsOf, getHost, shown }
})

export const layer = HttpApiBuilder.group(
  Api,
  "hosts",
  Effect.fnUntraced(function* (handlers) {
    const registry = yield* Registry
    const history = yield* HostHistory
    const { getHost, publicationsOf, shown } = yield* looking
    const presence = yield* Presence

    return handlers.handleAll({
      list: Effect.fn("http.Hosts.list")(
        function* ({ query, request }) {
          const seen = yield* Authorization.scope("read", "hosts")
          const filter: HostFilter = {
            zone: query.zone,
            state: query.state,
            address: query.address,
            labels: query.label?.map(labelOf),
            prefix: query.q?.toLowerCase(),
            after: query.cursor === undefined ? undefined : Page.nameBefore(query.cursor),
            zones: seen.zones,
            has: seen.everyName ? undefined : seen.has,
            limit: query.limit ?? Page.limitDefault
          }
          if (query.at !== undefined) {
            yield* requireKnown(history, "at", query.at)
            const found = yield* history.list(filter, Date.parse(query.at))
            return pageWith(request, found.hosts.map(toVersion), cursorOf(found))
          }
          const found = yield* registry.page(filter)
          const publications = yield* publicationsOf(found.hosts)
          return pageWith(
            request,
            found.hosts.map((host, i) => toContract(host, publications[i]!)),
            cursorOf(found)
          )
        },
        fromReplica,
        orUnavailable
      ),

      get: Effect.fn("http.Hosts.get")(function* ({ params, query }) {
        if (query.at === undefined) {
          const host = yield* shown(yield* getHost(params.host))
          if (query.session !== true) return withTag(host, tagOf(host))
          const seat = yield* presence.find(DomainName.make(host.fqdn))
          const session = seat && { instance: seat.instance, since: timestamp(seat.sinceMillis) }
          // No tag: the session is not of the host's version.
          return HttpApiSchema.withHeaders({ body: { ...host, ...(session && { session }) }, headers: {} })
        }
        yield* requireKnown(history, "at", query.at)
        const reference = referenceOf(params.host)
        const found = reference === undefined ? Option.none() : yield* history.find(reference, Date.parse(query.at))
        if (Option.isNone(found) || !(yield* Authorization.mayRead("hosts", placeOf(found.value)))) {
          return yield* hostNotFound(params.host, query.at)
        }
        if (found.value.event === "released") {
          return yield* new HostNotFound({
            detail: `There was no host '${params.host}' at ${query.at}: it was released at ${timestamp(found.value.fromMillis)}.`
          })
        }
        return HttpApiSchema.withHeaders({ body: toVersion(found.value), headers: {} })
      }, orUnavailable)
    })
  })
)
