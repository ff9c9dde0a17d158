/**
 * Handler of `/v1/events`: server-sent events from the feed.
 *
 * Promises: a client has at most one page in memory, and the node's buffer of
 * its connection; one that does not read is cut after `stalledAfter`. What the
 * caller may do is asked anew every few seconds: when that has changed, the
 * stream ends, and whoever comes back is told what it may see now. It ends too
 * when the server drains.
 */
import * as NodeHttpServerRequest from "@effect/platform-node/NodeHttpServerRequest"
import { Api } from "@prism-dns/core/api/Api"
import { Authorization, Caller } from "@prism-dns/core/api/Authentication"
import type { Gap } from "@prism-dns/core/api/Events"
import { TooManySubscribers } from "@prism-dns/core/api/Problems"
import { isVisible, type Item, matches } from "@prism-dns/core/events/Event"
import * as EventMetrics from "@prism-dns/core/events/EventMetrics"
import { Feed } from "@prism-dns/core/events/Feed"
import { detailOf } from "@prism-dns/core/storage/SqlFailure"
import { Cause, Clock, Duration, Effect, Exit, Metric, Predicate, Redacted, Stream } from "effect"
import { type HttpRouter, HttpServerRequest, HttpServerResponse } from "effect/http"
import { HttpApiBuilder } from "effect/http-api"
import { Drain } from "../Drain.ts"
import { orUnavailable } from "./Answers.ts"
import { IsCounted } from "./Gate.ts"

export interface EventsOptions {
  /** Clients that follow at once. */
  readonly subscribersMax: number
  /** How long a stream is silent at the most. */
  readonly heartbeat: Duration.Input
  /** How long a client may take no byte of what waits for it. */
  readonly stalledAfter: Duration.Input
  /** How often the caller's rights are asked for. */
  readonly recheck: Duration.Input
}

export const defaultOptions: EventsOptions = {
  subscribersMax: 1000,
  heartbeat: "15 seconds",
  stalledAfter: "1 minute",
  recheck: "3 seconds"
}

/** How often it is looked for clients that do not read. */
const watchInterval = "1 second"

type Ended = "client" | "drain" | "access" | "stalled" | "storage"

const ofItem = ({ id, json, kind }: Item): string => `id: ${id}\nevent: ${kind}\ndata: ${json}\n\n`
/** Whoever comes back with its id is not told again. */
const ofGap = (gap: Gap): string =>
  `id: ${gap.reason === "retention" ? gap.to : gap.from - 1}\nevent: gap\ndata: ${JSON.stringify(gap)}\n\n`
/** Has no data, so readers of server-sent events keep the id and pass nothing on. */
const ofPosition = (position: number): string => `: ${position}\nid: ${position}\nevent: position\n\n`

/** One client that follows. */
interface Subscriber {
  /** Since when it has something to read, by the clock; undefined: it has read all. */
  writingSinceMillis: number | undefined
  ended: Ended
  readonly cut: () => void
}

/** Ends the connection without waiting for who does not read. */
const cutOf = (request: HttpServerRequest.HttpServerRequest) => () => {
  // A request that came by no connection, as in tests without a port, has nothing to cut.
  if (typeof request.source === "object" && "socket" in request.source) {
    NodeHttpServerRequest.toIncomingMessage(request).socket.destroy()
  }
}

const sameRights = (a: Caller["Service"], b: Caller["Service"]): boolean =>
  a.name === b.name && JSON.stringify(a.authority) === JSON.stringify(b.authority)

export const layer = (given: Partial<EventsOptions> = {}) =>
  HttpApiBuilder.group(
    Api,
    "events",
    Effect.fnUntraced(function* (handlers) {
      const options = { ...defaultOptions, ...given }
      const feed = yield* Feed
      const drain = yield* Drain
      const authorization = yield* Authorization
      const heartbeatMillis = Duration.toMillis(options.heartbeat)
      const stalledMillis = Duration.toMillis(options.stalledAfter)
      const recheckMillis = Duration.toMillis(options.recheck)
      const subscribers = new Set<Subscriber>()

      const count = Effect.suspend(() => Metric.update(EventMetrics.subscribers, subscribers.size))

      yield* Effect.gen(function* () {
        const nowMillis = yield* Clock.currentTimeMillis
        for (const each of subscribers) {
          if (each.writingSinceMillis === undefined || nowMillis - each.writingSinceMillis < stalledMillis) continue
          each.ended = "stalled"
          each.cut()
        }
      }).pipe(Effect.delay(watchInterval), Effect.forever, Effect.forkScoped)

      /** A place among those who follow, until the request's scope ends. */
      const subscribe = Effect.fnUntraced(function* (request: HttpServerRequest.HttpServerRequest) {
        if (subscribers.size >= options.subscribersMax) {
          return yield* new TooManySubscribers({
            detail: `${options.subscribersMax} clients follow events here, as many as may (events.subscribersMax); try again later.`
          })
        }
        const subscriber: Subscriber = { writingSinceMillis: undefined, ended: "client", cut: cutOf(request) }
        yield* Effect.acquireRelease(
          Effect.andThen(
            Effect.sync(() => void subscribers.add(subscriber)),
            count
          ),
          () =>
            Effect.suspend(() => {
              subscribers.delete(subscriber)
              return Effect.andThen(
                count,
                Metric.update(Metric.withAttributes(EventMetrics.ended, { reason: subscriber.ended }), 1)
              )
            })
        )
        yield* feed.following
        return subscriber
      })

      const startOf = (lastEventId: string | undefined, since: string | undefined) => {
        // A browser that comes back still has `since` in its address.
        if (lastEventId !== undefined) return Effect.succeed(Number(lastEventId))
        if (since === undefined) return feed.head
        if (since === "0") return feed.beginning
        return /^\d+$/.test(since) ? Effect.succeed(Number(since)) : feed.before(Date.parse(since))
      }

      return handlers.handle(
        "stream",
        Effect.fn("http.Events.stream")(function* ({ endpoint, group, headers, query, request }) {
          const caller = yield* Caller
          const context = yield* Effect.context<
            HttpServerRequest.HttpServerRequest | HttpServerRequest.ParsedSearchParams | HttpRouter.RouteContext
          >()
          const credential = Redacted.make((request.headers["authorization"] ?? "").replace(/^bearer\s+/i, ""))
          const filter = { kinds: query.kind, zones: query.zone, hosts: query.host }
          const subscriber = yield* subscribe(request)
          let position = yield* orUnavailable(startOf(headers["last-event-id"], query.since))
          let checkedMillis = yield* Clock.currentTimeMillis
          let saidMillis = checkedMillis
          let saidPosition = position
          let hasCaughtUp = false
          let pending = ofPosition(position)

          /** Whether the caller is still who it was, with the rights it had. */
          const mayGoOn = Effect.gen(function* () {
            let now: Caller["Service"] | undefined
            const asked = Effect.map(Caller, (found) => {
              now = found
              return HttpServerResponse.empty()
            })
            const exit = yield* authorization
              .bearer(asked, { credential, endpoint, group })
              .pipe(Effect.scoped, Effect.provideContext(context), Effect.provideService(IsCounted, false), Effect.exit)
            if (Exit.isSuccess(exit)) return now !== undefined && sameRights(caller, now)
            // What cannot be asked just now is asked again.
            return !exit.cause.reasons.some(
              (reason) => Cause.isFailReason(reason) && !Predicate.isTagged(reason.error, "StorageUnavailable")
            )
          })

          const end = (reason: Ended) => {
            subscriber.ended = reason
            return Cause.done()
          }

          const take = (text: string, nowMillis: number) => {
            saidMillis = nowMillis
            subscriber.writingSinceMillis = nowMillis
            return [new TextEncoder().encode(text)] as const
          }

          const pull = Effect.gen(function* () {
            // Whoever asks for more has taken what there was.
            subscriber.writingSinceMillis = undefined
            while (true) {
              const nowMillis = yield* Clock.currentTimeMillis
              if (pending !== "") {
                const text = pending
                pending = ""
                return take(text, nowMillis)
              }
              if (drain.isDraining()) return yield* end("drain")
              if (nowMillis - checkedMillis >= recheckMillis) {
                if (!(yield* mayGoOn)) return yield* end("access")
                checkedMillis = nowMillis
              }
              const page = yield* feed.after(position)
              position = page.position
              const items = page.items.filter((item) => matches(filter, item) && isVisible(caller.authority, item))
              if (page.gap !== undefined) yield* Metric.update(EventMetrics.gaps, 1)
              const text = (page.gap === undefined ? "" : ofGap(page.gap)) + items.map(ofItem).join("")
              if (text !== "") {
                yield* Metric.update(EventMetrics.sent, items.length)
                saidPosition = items.at(-1)?.id ?? position
                return take(text, nowMillis)
              }
              if (page.items.length > 0) {
                yield* Effect.yieldNow
                continue
              }
              const silentMillis = nowMillis - saidMillis
              const isNews = !hasCaughtUp && saidPosition !== position
              hasCaughtUp = true
              if (isNews || silentMillis >= heartbeatMillis) return take(ofPosition(position), nowMillis)
              yield* Effect.raceFirst(feed.awaitBeyond(position), drain.awaitDrain).pipe(
                Effect.timeoutOption(
                  Math.min(heartbeatMillis - silentMillis, Math.max(1, recheckMillis - (nowMillis - checkedMillis)))
                )
              )
            }
          }).pipe(
            Effect.catchTag("SqlError", (error) =>
              Effect.logWarning("a stream of events ends, since the log could not be read").pipe(
                Effect.annotateLogs({ reason: detailOf(error) }),
                Effect.andThen(end("storage"))
              )
            )
          )

          return HttpServerResponse.stream(Stream.fromPull(Effect.succeed(pull)), {
            contentType: "text/event-stream",
            headers: {
              "cache-control": "no-store",
              // Else nginx gathers what is to be seen at once.
              "x-accel-buffering": "no"
            }
          })
        })
      )
    })
  )
