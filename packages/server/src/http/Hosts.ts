/** Handlers of `/v1/hosts`. */
import { Api } from "@prism-dns/core/api/Api"
import type * as Contract from "@prism-dns/core/api/Hosts"
import * as Page from "@prism-dns/core/api/Page"
import { HostNotFound } from "@prism-dns/core/api/Problems"
import { timestamp } from "@prism-dns/core/api/Values"
import * as DomainName from "@prism-dns/core/domain/DomainName"
import { DnsManager } from "@prism-dns/core/dns/DnsManager"
import type { Host, Publication } from "@prism-dns/core/domain/Host"
import { Registry } from "@prism-dns/core/registry/Registry"
import { Effect, Option, Result } from "effect"
import { HttpApiBuilder } from "effect/http-api"
import { orUnavailable } from "./Answers.ts"
import { page } from "./Pages.ts"

const toContract = (host: Host, publication: Publication): Contract.Host => ({
  id: host.id,
  fqdn: host.fqdn,
  hostname: host.hostname,
  zone: host.zone,
  addresses: host.addresses,
  labels: host.labels,
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

    return handlers.handleAll({
      list: Effect.fn("http.Hosts.list")(function* ({ query, request }) {
        const limit = query.limit ?? Page.limitDefault
        const found = yield* registry.list({
          zone: query.zone,
          state: query.state,
          address: query.address,
          prefix: query.q?.toLowerCase(),
          after: query.cursor === undefined ? undefined : Page.nameBefore(query.cursor),
          limit: limit + 1 // one more tells whether there is a next page
        })
        const publications = yield* publicationsOf(found.slice(0, limit))
        return page(request, found, limit, {
          item: (host, i) => toContract(host, publications[i]!),
          cursor: ({ fqdn }) => Page.cursorAfter(fqdn)
        })
      }, orUnavailable),

      get: Effect.fn("http.Hosts.get")(
        function* ({ params }) {
          const host = yield* find(registry, params.host)
          if (Option.isNone(host)) return Option.none()
          const [publication] = yield* publicationsOf([host.value])
          return Option.some(toContract(host.value, publication!))
        },
        orUnavailable,
        (effect, { params }) =>
          Effect.flatMap(
            effect,
            Option.match({
              onNone: () =>
                Effect.fail(
                  new HostNotFound({
                    detail: `There is no host '${params.host}'; a host is asked for by its id or its full name, with its zone.`
                  })
                ),
              onSome: Effect.succeed
            })
          )
      )
    })
  })
)
