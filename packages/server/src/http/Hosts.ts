/** Handlers of `/v1/hosts`. */
import { Api } from "@prism-dns/core/api/Api"
import { Caller } from "@prism-dns/core/api/Authentication"
import type * as Contract from "@prism-dns/core/api/Hosts"
import * as Page from "@prism-dns/core/api/Page"
import { HostNotFound, HostRetired, StorageUnavailable } from "@prism-dns/core/api/Problems"
import { timestamp } from "@prism-dns/core/api/Values"
import * as DomainName from "@prism-dns/core/domain/DomainName"
import { DnsManager } from "@prism-dns/core/dns/DnsManager"
import type { Host, Publication } from "@prism-dns/core/domain/Host"
import { Registry } from "@prism-dns/core/registry/Registry"
import { Effect, Option, Result } from "effect"
import { HttpApiBuilder } from "effect/http-api"
import { orUnavailable } from "./Answers.ts"
import * as Authorization from "./Authorization.ts"
import { narrowed, page } from "./Pages.ts"

const toContract = (host: Host, publication: Publication): Contract.Host => ({
  id: host.id,
  fqdn: host.fqdn,
  hostname: host.hostname,
  zone: host.zone,
  addresses: host.addresses,
  labels: host.labels,
  ...(host.ttlSeconds !== undefined && { ttlSeconds: host.ttlSeconds }),
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

const idPattern = /^[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}$/i

/** The host that `reference` names by its id or its full name. */
const find = (registry: Registry["Service"], reference: string) =>
  idPattern.test(reference)
    ? registry.findById(reference.toLowerCase())
    : Result.match(DomainName.parse(reference), {
        onFailure: () => Effect.succeedNone,
        onSuccess: registry.findByName
      })

const hostNotFound = (reference: string) =>
  new HostNotFound({
    detail: `There is no host '${reference}'; a host is asked for by its id or its full name, with its zone.`
  })

const placeOf = ({ fqdn, zone }: Host) => ({ zone, name: fqdn })

export const layer = HttpApiBuilder.group(
  Api,
  "hosts",
  Effect.fnUntraced(function* (handlers) {
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

    return handlers.handleAll({
      list: Effect.fn("http.Hosts.list")(function* ({ query, request }) {
        const limit = query.limit ?? Page.limitDefault
        const scope = yield* Authorization.scope("read", "hosts")
        const { found, readTo } = yield* narrowed(limit, {
          after: query.cursor === undefined ? undefined : Page.nameBefore(query.cursor),
          fetch: (after, limit) =>
            registry.list({
              zones: scope.zones,
              zone: query.zone,
              state: query.state,
              address: query.address,
              prefix: query.q?.toLowerCase(),
              after,
              limit
            }),
          placeOf: ({ fqdn }) => fqdn,
          keep: (host) => scope.has(placeOf(host))
        })
        const publications = yield* publicationsOf(found.slice(0, limit))
        return page(request, found, limit, {
          item: (host, i) => toContract(host, publications[i]!),
          cursor: ({ fqdn }) => Page.cursorAfter(fqdn),
          readTo
        })
      }, orUnavailable),

      get: Effect.fn("http.Hosts.get")(function* ({ params }) {
        return yield* shown(yield* getHost(params.host))
      }, orUnavailable),

      retire: Effect.fn("http.Hosts.retire")(
        function* ({ params, payload }) {
          const found = yield* getHost(params.host)
          yield* Authorization.require("delete", "hosts", placeOf(found))
          const { host } = yield* registry.retire(found.fqdn, yield* Caller, payload.reason)
          return yield* shown(host)
        },
        Effect.catchTags({
          HostUnknown: ({ fqdn }) => Effect.fail(hostNotFound(fqdn)),
          HostRetired: ({ message }) => Effect.fail(new HostRetired({ detail: `${message}.` })),
          RegistryUnavailable: ({ message }) => Effect.fail(new StorageUnavailable({ detail: message }))
        }),
        orUnavailable
      ),

      release: Effect.fn("http.Hosts.release")(
        function* ({ params, payload }) {
          const found = yield* getHost(params.host)
          yield* Authorization.require("delete", "hosts", placeOf(found))
          const { host } = yield* registry.release(found.fqdn, yield* Caller, payload.reason)
          return { id: host.id, fqdn: host.fqdn, generation: host.generation }
        },
        Effect.catchTags({
          HostUnknown: ({ fqdn }) => Effect.fail(hostNotFound(fqdn)),
          RegistryUnavailable: ({ message }) => Effect.fail(new StorageUnavailable({ detail: message }))
        }),
        orUnavailable
      )
    })
  })
)
