/** The id of the request that is being answered: in its answer, in the log, and in the audit. */
import { Context } from "effect"

export const RequestId = Context.Reference<string>("@prism-dns/server/http/RequestId", { defaultValue: () => "" })
