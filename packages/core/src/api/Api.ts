/**
 * The HTTP contract, shared by the server, the command line and every other
 * client. What is served under it is in `server/http`; a field, a path or a
 * problem type that was released stays readable.
 */
import { Context, Option } from "effect"
import { HttpApi, OpenApi } from "effect/http-api"
import { Access } from "./Access.ts"
import { Audit } from "./Audit.ts"
import { type Requirement, Requires } from "./Authentication.ts"
import { describe } from "./Document.ts"
import { Events } from "./Events.ts"
import { Guards } from "./Guards.ts"
import { History } from "./History.ts"
import { HostChanges } from "./HostChanges.ts"
import { Hosts } from "./Hosts.ts"
import { Identities } from "./Identities.ts"
import { Plans } from "./Plans.ts"
import { Publications } from "./Publications.ts"
import { Records } from "./Records.ts"
import { RequestCheck } from "./RequestCheck.ts"
import { Roles } from "./Roles.ts"
import { StatusGroup } from "./Status.ts"
import { Tokens } from "./Tokens.ts"
import { Webhooks } from "./Webhooks.ts"
import { WhoamiGroup } from "./Whoami.ts"
import { Zones } from "./Zones.ts"

const contract = HttpApi.make("prism-dns")
  .add(Hosts)
  .add(History)
  .add(HostChanges)
  .add(Zones)
  .add(Records)
  .add(Plans)
  .add(Publications)
  .add(Guards)
  .add(Events)
  .add(Webhooks)
  .add(Audit)
  .add(Tokens)
  .add(Identities)
  .add(Roles)
  .add(Access)
  .add(WhoamiGroup)
  .add(StatusGroup)
  .middleware(RequestCheck)
  // A misspelt filter would otherwise silently give everything, a misspelt field silently do something else.
  .annotate(HttpApi.QueryParseOptions, { onExcessProperty: "error", errors: "all" })
  .annotate(HttpApi.PayloadParseOptions, { onExcessProperty: "error", errors: "all" })

/** What an operation requires, by its id in the document. */
const requirementOf = (operationId: string): Requirement | undefined => {
  for (const group of Object.values(contract.groups)) {
    for (const endpoint of Object.values(group.endpoints)) {
      if (`${group.identifier}.${endpoint.identifier}` === operationId) {
        return Option.getOrUndefined(Context.getOption(endpoint.annotations, Requires))
      }
    }
  }
  return undefined
}

export class Api extends contract.annotateMerge(
  OpenApi.annotations({
    title: "Prism DNS",
    version: "1",
    description:
      "Every machine gets a name that is true. Errors are `application/problem+json` (RFC 9457), and name their request, as " +
      "every answer does in `X-Request-Id`. `RateLimit` and `RateLimit-Policy` say how often one may ask.",
    transform: describe(requirementOf)
  })
) {}
