/**
 * The HTTP contract, shared by the server, the command line and every other
 * client. What is served under it is in `server/http`; a field, a path or a
 * problem type that was released stays readable.
 */
import { HttpApi, OpenApi } from "effect/http-api"
import { Access } from "./Access.ts"
import { describe } from "./Document.ts"
import { Guards } from "./Guards.ts"
import { Hosts } from "./Hosts.ts"
import { Identities } from "./Identities.ts"
import { Plans } from "./Plans.ts"
import { Publications } from "./Publications.ts"
import { RequestCheck } from "./RequestCheck.ts"
import { StatusGroup } from "./Status.ts"
import { Tokens } from "./Tokens.ts"
import { WhoamiGroup } from "./Whoami.ts"
import { Zones } from "./Zones.ts"

export class Api extends HttpApi.make("prism-dns")
  .add(Hosts)
  .add(Zones)
  .add(Plans)
  .add(Publications)
  .add(Guards)
  .add(Tokens)
  .add(Identities)
  .add(Access)
  .add(WhoamiGroup)
  .add(StatusGroup)
  .middleware(RequestCheck)
  // A misspelt filter would otherwise silently give everything, a misspelt field silently do something else.
  .annotate(HttpApi.QueryParseOptions, { onExcessProperty: "error", errors: "all" })
  .annotate(HttpApi.PayloadParseOptions, { onExcessProperty: "error", errors: "all" })
  .annotateMerge(
    OpenApi.annotations({
      title: "Prism DNS",
      version: "1",
      description: "Every machine gets a name that is true. Errors are `application/problem+json` (RFC 9457).",
      transform: describe
    })
  ) {}
