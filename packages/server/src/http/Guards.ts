/** Handlers of `/v1/guards`. */
import { Api } from "@prism-dns/core/api/Api"
import { Caller } from "@prism-dns/core/api/Authentication"
import type * as Contract from "@prism-dns/core/api/Guards"
import { GuardNotTripped } from "@prism-dns/core/api/Problems"
import { timestamp } from "@prism-dns/core/api/Values"
import { type Guard, Guards } from "@prism-dns/core/registry/Guards"
import { Effect } from "effect"
import { HttpApiBuilder } from "effect/http-api"
import { orUnavailable } from "./Answers.ts"
import * as Authorization from "./Authorization.ts"

export const toGuard = (guard: Guard): Contract.Guard => ({
  kind: guard.kind,
  trippedAt: timestamp(guard.trippedAtMillis),
  detail: guard.detail,
  waiting: guard.waiting,
  ...(guard.allowedBeforeMillis !== undefined && { allowedBefore: timestamp(guard.allowedBeforeMillis) })
})

export const layer = HttpApiBuilder.group(
  Api,
  "guards",
  Effect.fnUntraced(function* (handlers) {
    const guards = yield* Guards
    return handlers.handleAll({
      list: Effect.fn("http.Guards.list")(function* () {
        // A guard is over all zones, and its words count hosts in them.
        return { items: (yield* Authorization.mayRead("guards", {})) ? (yield* guards.list).map(toGuard) : [] }
      }, orUnavailable),

      allow: Effect.fn("http.Guards.allow")(
        function* ({ params, payload, query: { dryRun = false } }) {
          yield* Authorization.require("apply", "guards")
          const { name, peer } = yield* Caller
          const guard = yield* guards.allow(params.guard, { name, peer }, payload.reason, { dryRun })
          return { ...toGuard(guard), ...(dryRun && { dryRun: true as const }) }
        },
        Effect.catchTag("GuardNotTripped", ({ message }) =>
          Effect.fail(new GuardNotTripped({ detail: `There is nothing to allow: ${message}.` }))
        ),
        orUnavailable
      )
    })
  })
)
