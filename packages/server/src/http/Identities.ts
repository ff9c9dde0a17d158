/** Handlers of `/v1/identities`. */
import { Api } from "@prism-dns/core/api/Api"
import { Caller } from "@prism-dns/core/api/Authentication"
import * as Contract from "@prism-dns/core/api/Identities"
import * as Page from "@prism-dns/core/api/Page"
import { HostNotFound, IdentityNotFound, IdentityRevoked, StorageUnavailable } from "@prism-dns/core/api/Problems"
import { timestamp } from "@prism-dns/core/api/Values"
import * as Grants from "@prism-dns/core/auth/Grants"
import { Identities, type Identity } from "@prism-dns/core/auth/Identities"
import { Zones } from "@prism-dns/core/dns/Zones"
import { allowsWithin } from "@prism-dns/core/auth/Permissions"
import * as Proof from "@prism-dns/core/protocol/Proof"
import { Effect } from "effect"
import { HttpApiBuilder } from "effect/http-api"
import { orUnavailable } from "./Answers.ts"
import * as Authorization from "./Authorization.ts"
import { narrowed, page } from "./Pages.ts"

const stateOf = ({ revokedAtMillis }: Identity) => (revokedAtMillis === undefined ? "active" : "revoked")

const toIdentity = (identity: Identity, hosts: number): Contract.Identity => ({
  id: identity.id,
  state: stateOf(identity),
  publicKey: identity.publicKey,
  fingerprint: Proof.fingerprint(identity.publicKey),
  grant: Grants.toPlain(identity.grant),
  enrolledBy: identity.enrolledBy,
  enrolledAt: timestamp(identity.enrolledAtMillis),
  ...(identity.rotatedAtMillis !== undefined && { rotatedAt: timestamp(identity.rotatedAtMillis) }),
  ...(identity.lastUsedMillis !== undefined && { lastUsed: timestamp(identity.lastUsedMillis) }),
  ...(identity.revokedAtMillis !== undefined && {
    revoked: { at: timestamp(identity.revokedAtMillis), reason: identity.revokedReason ?? "" }
  }),
  hosts
})

const identityNotFound = (id: string) => new IdentityNotFound({ detail: `There is no identity '${id}'.` })

const nobodyHolds = (fqdn: string) => new HostNotFound({ detail: `There is no host '${fqdn}'; nobody holds the name.` })

export const layer = HttpApiBuilder.group(
  Api,
  "identities",
  Effect.fnUntraced(function* (handlers) {
    const identities = yield* Identities

    const zones = yield* Zones

    /** The identity, unless the caller may not see all that it may claim: then it is as if it were not there. */
    const getIdentity = Effect.fnUntraced(function* (id: string) {
      const identity = yield* identities.get(id)
      return (yield* Authorization.mayReadWithin("identities", identity.grant)) ? identity : yield* identityNotFound(id)
    })

    const shown = Effect.fnUntraced(function* (identity: Identity) {
      const hosts = yield* identities.countHosts([identity.id])
      return toIdentity(identity, hosts.get(identity.id) ?? 0)
    })

    return handlers.handleAll({
      list: Effect.fn("http.Identities.list")(function* ({ query, request }) {
        const { cursor, enrolledBy, limit = Page.limitDefault, state } = query
        const after = cursor === undefined ? undefined : Page.placeBefore(cursor)
        const { authority } = yield* Caller
        const { found, readTo } = yield* narrowed(limit, {
          after,
          fetch: (after, limit) => identities.list({ state, enrolledBy }, { after, limit }),
          placeOf: ({ id }) => id,
          keep: ({ grant }) => allowsWithin(authority, "read", "identities", grant)
        })
        const hosts = yield* identities.countHosts(found.map(({ id }) => id))
        return page(request, found, limit, {
          item: (identity) => toIdentity(identity, hosts.get(identity.id) ?? 0),
          cursor: ({ id }) => Page.cursorBehind(id),
          readTo
        })
      }, orUnavailable),

      get: Effect.fn("http.Identities.get")(
        function* ({ params }) {
          const identity = yield* getIdentity(params.identity)
          const names = yield* identities.hostsOf(identity.id, Contract.namesShown)
          return { ...(yield* shown(identity)), names }
        },
        Effect.catchTag("IdentityUnknown", ({ id }) => Effect.fail(identityNotFound(id))),
        orUnavailable
      ),

      revoke: Effect.fn("http.Identities.revoke")(
        function* ({ params, payload, query: { dryRun = false } }) {
          yield* Authorization.requireWithin("delete", "identities", (yield* getIdentity(params.identity)).grant)
          const revoked = yield* identities.revoke(params.identity, yield* Caller, payload.reason, { dryRun })
          return { ...(yield* shown(revoked)), ...(dryRun && { dryRun: true as const }) }
        },
        Effect.catchTags({
          IdentityUnknown: ({ id }) => Effect.fail(identityNotFound(id)),
          IdentityRevoked: ({ id }) =>
            Effect.fail(new IdentityRevoked({ detail: `The identity ${id} is revoked already.` })),
          RegistryUnavailable: ({ message }) => Effect.fail(new StorageUnavailable({ detail: message }))
        }),
        orUnavailable
      ),

      reset: Effect.fn("http.Identities.reset")(
        function* ({ payload, query: { dryRun = false } }) {
          const place = Authorization.placeOf(zones.all, payload.host)
          if (!(yield* Authorization.mayRead("identities", place))) return yield* nobodyHolds(payload.host)
          yield* Authorization.require("delete", "identities", place)
          const { formerOwner, host, identity } = yield* identities.reset(payload.host, yield* Caller, payload.reason, {
            dryRun
          })
          return {
            host: host.fqdn,
            formerOwner,
            ...(identity !== undefined && { identity: { id: identity.id, state: stateOf(identity) } as const }),
            ...(dryRun && { dryRun: true as const })
          }
        },
        Effect.catchTags({
          HostUnknown: ({ fqdn }) => Effect.fail(nobodyHolds(fqdn)),
          RegistryUnavailable: ({ message }) => Effect.fail(new StorageUnavailable({ detail: message }))
        }),
        orUnavailable
      )
    })
  })
)
