/** Handlers of `/v1/access:explain`. */
import { Api } from "@prism-dns/core/api/Api"
import type * as Contract from "@prism-dns/core/api/Access"
import { PrincipalNotFound } from "@prism-dns/core/api/Problems"
import { type CertificateGrant, ownNameOnly } from "@prism-dns/core/auth/Certificates"
import * as Explainer from "@prism-dns/core/auth/Explainer"
import * as Grants from "@prism-dns/core/auth/Grants"
import { clampedTtl } from "@prism-dns/core/auth/Policy"
import { Zones } from "@prism-dns/core/dns/Zones"
import { Effect } from "effect"
import { HttpApiBuilder } from "effect/http-api"
import { orUnavailable } from "./Answers.ts"

export interface AccessOptions {
  /** What client certificates may claim. Default: their own name. */
  readonly certificates?: CertificateGrant | undefined
}

export const layer = ({ certificates = ownNameOnly }: AccessOptions = {}) =>
  HttpApiBuilder.group(
    Api,
    "access",
    Effect.fnUntraced(function* (handlers) {
      const explainer = yield* Explainer.make(certificates)
      const zones = yield* Zones

      const toExplained = ({ claim, decidedBy, namesMax, principal, rules }: Explainer.Answer): Contract.Explained => {
        const ttlSeconds = clampedTtl(claim, zones.find(claim.zone))
        return {
          principal: {
            name: principal.name,
            kind: principal.kind,
            grant: Grants.toPlain(principal.grant),
            ...(namesMax !== undefined && { namesMax })
          },
          host: claim.fqdn,
          zone: claim.zone,
          addresses: claim.addresses,
          ...(claim.peer !== undefined && { peer: claim.peer }),
          protocol: claim.protocol,
          allowed: decidedBy === undefined,
          ...(decidedBy !== undefined && { decidedBy: decidedBy.rule }),
          ...(decidedBy?.code !== undefined && { code: decidedBy.code }),
          detail: decidedBy?.detail ?? "the claim is allowed",
          ...(ttlSeconds !== undefined && { ttlSeconds }),
          rules
        }
      }

      const explain = (asked: Contract.ExplainRequest) =>
        explainer
          .explain({
            principal: asked.principal,
            name: asked.hostname,
            zone: asked.zone,
            addresses: asked.addresses,
            peer: asked.peer,
            protocol: asked.protocol ?? "2.0",
            ttlSeconds: asked.ttlSeconds
          })
          .pipe(
            Effect.map(toExplained),
            Effect.catchTag("PrincipalUnknown", ({ message }) =>
              Effect.fail(new PrincipalNotFound({ detail: `${message.charAt(0).toUpperCase()}${message.slice(1)}.` }))
            ),
            orUnavailable
          )

      return handlers.handleAll({
        explain: Effect.fn("http.Access.explain")(({ query }) => explain(query)),
        explainRequest: Effect.fn("http.Access.explain")(({ payload }) => explain(payload))
      })
    })
  )
