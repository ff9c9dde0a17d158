/** Handlers of plans. */
import { Api } from "@prism-dns/core/api/Api"
import { Caller } from "@prism-dns/core/api/Authentication"
import * as Page from "@prism-dns/core/api/Page"
import * as Contract from "@prism-dns/core/api/Plans"
import {
  DeleteBudgetExceeded,
  PlanAltered,
  PlanDecided,
  PlanNotFound,
  RequestInvalid,
  ZoneNotFound
} from "@prism-dns/core/api/Problems"
import { timestamp } from "@prism-dns/core/api/Values"
import { Adoption } from "@prism-dns/core/dns/Adoption"
import * as Plans from "@prism-dns/core/dns/Plans"
import * as PlanText from "@prism-dns/core/dns/PlanText"
import { Reconciler } from "@prism-dns/core/dns/Reconciler"
import { Zones } from "@prism-dns/core/dns/Zones"
import type { DomainName } from "@prism-dns/core/domain/DomainName"
import { hostType } from "@prism-dns/core/registry/HostRestore"
import type * as RRset from "@prism-dns/core/domain/RRset"
import type { PlanState } from "@prism-dns/core/domain/Plan"
import { Effect, Option, Stream } from "effect"
import { type HttpServerRequest, HttpServerResponse } from "effect/http"
import { HttpApiBuilder, HttpApiSchema } from "effect/http-api"
import { orUnavailable, orUnavailableForZone } from "./Answers.ts"
import * as Authorization from "./Authorization.ts"
import { narrowed, page } from "./Pages.ts"
import { toReconciliation } from "./Zones.ts"

export const toPlan = (plan: Plans.Plan): Contract.Plan => ({
  id: plan.id,
  zone: plan.zone,
  kind: plan.kind,
  state: plan.state,
  madeAt: timestamp(plan.madeAtMillis),
  madeBy: plan.madeBy,
  generation: plan.generation,
  hash: plan.hash,
  reason: plan.reason,
  counts: plan.counts,
  ...(plan.decidedAtMillis !== undefined && {
    decision: {
      at: timestamp(plan.decidedAtMillis),
      by: plan.decidedBy ?? "",
      ...(plan.decidedReason !== undefined && { reason: plan.decidedReason })
    }
  })
})

const toRecords = ({ contents, ttlSeconds }: RRset.RRset) => ({ ttlSeconds, contents })

const toChange = (change: Plans.PlanChange): Contract.PlanChange => ({
  ordinal: change.ordinal,
  name: change.name,
  type: change.type,
  action: change.action,
  ...(change.before !== undefined && { before: toRecords(change.before) }),
  ...(change.after !== undefined && { after: toRecords(change.after) }),
  reason: change.reason,
  cause: change.cause,
  ...(change.outcome !== undefined && { outcome: change.outcome })
})

const patternWrong = (detail: string) =>
  new RequestInvalid({ detail: `body pattern: ${detail}`, errors: [{ in: "body", pointer: "/pattern", detail }] })

const planNotFound = (id: string) => new PlanNotFound({ detail: `There is no plan '${id}'.` })

const planDecided = ({ id, state }: Plans.PlanNotOpen) =>
  new PlanDecided({ detail: `Plan ${id} is ${state} and stays so; make a new one.` })

export const layer = HttpApiBuilder.group(
  Api,
  "plans",
  Effect.fnUntraced(function* (handlers) {
    const plans = yield* Plans.Plans
    const reconciler = yield* Reconciler
    const adoption = yield* Adoption
    const zones = yield* Zones

    /** A zone whose plans the caller may not see is as if it were not there. */
    const knownZone = Effect.fnUntraced(function* (zone: DomainName) {
      if (zones.find(zone) === undefined || !(yield* Authorization.mayRead("plans", { zone }))) {
        return yield* new ZoneNotFound({ detail: `${zone} is not a zone that Prism manages.` })
      }
    })

    /** The plan, unless the caller may not see it: then it is as if it were not there. */
    const getPlan = Effect.fnUntraced(function* (id: string) {
      const plan = Option.getOrUndefined(yield* plans.find(id))
      return plan === undefined || !(yield* Authorization.mayRead("plans", { zone: plan.zone }))
        ? yield* planNotFound(id)
        : plan
    })

    const makePlan = Effect.fnUntraced(function* (zone: DomainName, request: Contract.PlanRequest, dryRun: boolean) {
      const { name: by, peer, request: id } = yield* Caller
      const { kind = "reconcile", pattern, undo } = request
      if (kind === "reconcile") {
        if (pattern !== undefined) return yield* patternWrong("a plan to reconcile is for the whole zone")
        const found = yield* reconciler.run(zone, { by, peer, request: id, dryRun })
        const { plan, ...reconciliation } = toReconciliation(found)
        return {
          plan: found.plan,
          reconciliation: { ...reconciliation, ...(plan !== undefined && !dryRun && { plan }) }
        }
      }
      if (pattern === undefined) return yield* patternWrong(`a plan to ${kind} says which names`)
      const reason = request.reason ?? `${by} asked to ${kind} ${pattern}`
      const asked = { zone, patterns: [pattern], by, peer, request: id, reason, dryRun }
      const plan = yield* kind === "adopt"
        ? adoption.adopt(asked)
        : kind === "release"
          ? adoption.release(asked)
          : adoption.ignore({ ...asked, undo })
      return { plan, reconciliation: undefined }
    })

    const listPlans = Effect.fnUntraced(function* (
      zone: DomainName | undefined,
      {
        cursor,
        limit = Page.limitDefault,
        state
      }: {
        readonly cursor?: string
        readonly limit?: number
        readonly state?: PlanState
      }
    ) {
      const scope = yield* Authorization.scope("read", "plans")
      return yield* narrowed(limit, {
        after: cursor === undefined ? undefined : Page.placeBefore(cursor),
        fetch: (after, limit) => plans.list({ zones: scope.zones, zone, state, after, limit }),
        placeOf: ({ id }) => id,
        keep: ({ zone }) => scope.has({ zone })
      })
    })

    const pageOfPlans = (
      request: HttpServerRequest.HttpServerRequest,
      limit: number | undefined,
      { found, readTo }: Effect.Success<ReturnType<typeof listPlans>>
    ) =>
      page(request, found, limit ?? Page.limitDefault, {
        item: toPlan,
        cursor: ({ id }) => Page.cursorBehind(id),
        readTo
      })

    /** Why changes of a plan were refused; some of them. */
    const refusalsOf = (id: string) =>
      Stream.paginate(0, (after) =>
        Effect.map(plans.changes(id, { after, limit: Page.limitMax }), (changes) => [
          changes.flatMap(({ name, outcome, type }) =>
            outcome === undefined || outcome === "applied" ? [] : [{ name, type, reason: outcome }]
          ),
          changes.length < Page.limitMax ? Option.none() : Option.some(changes.at(-1)!.ordinal)
        ])
      ).pipe(Stream.take(Plans.refusalsMax), Stream.runCollect)

    return handlers.handleAll({
      make: Effect.fn("http.Plans.make")(
        function* ({ params, payload = {}, query: { dryRun = false } }) {
          yield* knownZone(params.zone)
          yield* Authorization.require("write", "plans", { zone: params.zone })
          const { plan, reconciliation } = yield* makePlan(params.zone, payload, dryRun)
          const kept = plan.counts.changes > 0 && !dryRun
          return HttpApiSchema.withHeaders({
            body: {
              ...toPlan(plan),
              ...(reconciliation !== undefined && { reconciliation }),
              ...(dryRun && { dryRun: true as const })
            },
            headers: kept ? { location: `/v1/plans/${plan.id}` } : {}
          })
        },
        Effect.catchTags({
          ZoneUnknown: ({ zone }) =>
            Effect.fail(new ZoneNotFound({ detail: `${zone} is not a zone that Prism manages.` })),
          PatternInvalid: ({ message }) => Effect.fail(patternWrong(message)),
          TooManyNames: ({ message }) => Effect.fail(patternWrong(message))
        }),
        orUnavailableForZone
      ),

      list: Effect.fn("http.Plans.list")(function* ({ params, query, request }) {
        yield* knownZone(params.zone)
        return pageOfPlans(request, query.limit, yield* listPlans(params.zone, query))
      }, orUnavailable),

      listAll: Effect.fn("http.Plans.listAll")(function* ({ query, request }) {
        return pageOfPlans(request, query.limit, yield* listPlans(undefined, query))
      }, orUnavailable),

      get: Effect.fn("http.Plans.get")(function* ({ params, query }) {
        const plan = yield* getPlan(params.plan)
        const changes = yield* plans.changes(plan.id, { limit: Contract.changesShown })
        if (query.format === "text") return HttpServerResponse.text(PlanText.toText(plan, changes))
        if (query.format === "markdown") {
          return HttpServerResponse.text(PlanText.toMarkdown(plan, changes), { contentType: "text/markdown" })
        }
        return { ...toPlan(plan), changes: changes.map(toChange) }
      }, orUnavailable),

      changes: Effect.fn("http.Plans.changes")(function* ({ params, query, request }) {
        const { cursor, limit = Page.limitDefault } = query
        const plan = yield* getPlan(params.plan)
        const found = yield* plans.changes(plan.id, {
          after: cursor === undefined ? undefined : Page.numberBefore(cursor),
          limit: limit + 1
        })
        return page(request, found, limit, { item: toChange, cursor: ({ ordinal }) => Page.cursorBehind(ordinal) })
      }, orUnavailable),

      apply: Effect.fn("http.Plans.apply")(
        function* ({ params, payload = {}, query: { dryRun = false } }) {
          const { id, kind, zone } = yield* getPlan(params.plan)
          yield* Authorization.require("apply", "plans", { zone })
          if (Plans.changesRecords(kind)) {
            yield* Authorization.require("write", "records", { zone })
            if (yield* plans.concerns(id, { type: "LUA" })) yield* Authorization.require("write", "lua", { zone })
            if (payload.withoutDeletions !== true && (yield* plans.concerns(id, { action: "delete" }))) {
              yield* Authorization.require("delete", "records", { zone })
            }
            if (yield* plans.concerns(id, { type: hostType })) yield* Authorization.require("write", "hosts", { zone })
          }
          const { name: by, peer, request } = yield* Caller
          const done = yield* plans.apply(params.plan, { by, peer, request, ...payload, dryRun })
          const { applied, kept, plan, refusals, refused } = done
          const said = { plan: toPlan(plan), applied, refused, kept }
          if (dryRun) return { ...said, refusals, dryRun: true as const }
          return { ...said, refusals: refused + kept === 0 ? [] : yield* refusalsOf(plan.id) }
        },
        Effect.catchTags({
          PlanNotFound: (error) => Effect.fail("id" in error ? planNotFound(error.id) : error),
          PlanNotOpen: (error) => Effect.fail(planDecided(error)),
          PlanAltered: ({ message }) => Effect.fail(new PlanAltered({ detail: message })),
          DeleteBudgetExceeded: ({ deleted, detail, id, published, remaining, wanted, windowMillis, zone }) =>
            Effect.fail(
              new DeleteBudgetExceeded({
                detail,
                plan: id,
                zone,
                wanted,
                remaining,
                published,
                deleted,
                windowSeconds: windowMillis / 1000
              })
            )
        }),
        orUnavailableForZone
      ),

      reject: Effect.fn("http.Plans.reject")(
        function* ({ params, payload, query: { dryRun = false } }) {
          yield* Authorization.require("apply", "plans", { zone: (yield* getPlan(params.plan)).zone })
          const { name: by, peer, request } = yield* Caller
          const said = { by, peer, request, reason: payload.reason }
          const rejected = yield* plans.reject(params.plan, { ...said, dryRun })
          return { ...toPlan(rejected), ...(dryRun && { dryRun: true as const }) }
        },
        Effect.catchTags({
          PlanNotFound: (error) => Effect.fail("id" in error ? planNotFound(error.id) : error),
          PlanNotOpen: (error) => Effect.fail(planDecided(error))
        }),
        orUnavailable
      )
    })
  })
)
