/**
 * `GET /v1/hosts/{fqdn}` answered before the router: by far the most frequent
 * question, whose answer is often the same as a moment ago.
 *
 * Promises: the same answer as by the long way, header for header, with the
 * same permissions, rates and metrics, made by the same functions; anything
 * unusual about a request (a query, a body, an id in place of a name, a token
 * that is no good, a rate that is used up, a host that is not there or on its
 * way to the DNS, a server that drains) is left to that long way. Leaves to
 * others: how old an answer may be (`registry/HostReads`).
 */
import * as EntityTag from "@prism-dns/core/api/EntityTag"
import { HostView } from "@prism-dns/core/api/Hosts"
import { allows, type Place } from "@prism-dns/core/auth/Permissions"
import { Roles } from "@prism-dns/core/auth/Roles"
import { authorityOf } from "@prism-dns/core/auth/Standing"
import { type TokenHolder, TokenRefused, Tokens } from "@prism-dns/core/auth/Tokens"
import type { DomainName } from "@prism-dns/core/domain/DomainName"
import * as HostReads from "@prism-dns/core/registry/HostReads"
import { Clock, Duration, Effect, Layer, Schema } from "effect"
import type * as Http from "node:http"
import { Drain } from "../Drain.ts"
import { clientGone, measurement } from "./Answers.ts"
import * as Exchange from "./Exchange.ts"
import { placeOf, tagOf, toContract } from "./Hosts.ts"
import { RateLimits } from "./RateLimits.ts"
import * as RequestId from "./RequestId.ts"

export interface HostAnswersOptions {
  /** Answers that are kept. */
  readonly max: number
  /** How old one may be that another instance has changed since. */
  readonly ageMax: Duration.Duration
}

export const defaultOptions: HostAnswersOptions = {
  max: HostReads.defaultOptions.keptMax,
  ageMax: Duration.millis(HostReads.defaultOptions.ageMaxMillis)
}

/** Answers a request, now or a little later, or says false and has done nothing. */
type Answer = (request: Http.IncomingMessage, response: Http.ServerResponse) => boolean

/** Where the routes leave what is answered before them, while there are any. */
export class EarlyAnswers {
  answer: Answer | undefined = undefined
  /** The long way. */
  pass: (request: Http.IncomingMessage, response: Http.ServerResponse) => void = () => undefined

  /** What is answered here is no request to others who listen. */
  intercept(server: Http.Server): void {
    const emit = server.emit.bind(server)
    this.pass = (request, response) => void emit("request", request, response)
    server.emit = (event: string, ...args: ReadonlyArray<any>) =>
      (event === "request" && this.answer?.(args[0], args[1]) === true) || emit(event, ...args)
  }
}

const prefix = "/v1/hosts/"
const route = "/v1/hosts/:host"
const scheme = "Bearer "

const encode = Schema.encodeSync(HostView)

/** A full name in lower case; an id has no dot. */
const fullName = /^[a-z0-9-]+(?:\.[a-z0-9-]+)+\.?$/

const nameOf = (url: string): DomainName | undefined => {
  if (!url.startsWith(prefix)) return undefined
  const name = url.slice(prefix.length)
  if (name.length > 254 || !fullName.test(name)) return undefined
  return (name.endsWith(".") ? name : `${name}.`) as DomainName
}

/** What of a request's head matters here. */
interface Head {
  readonly token: string
  readonly requestId: string | undefined
  readonly ifNoneMatch: string | undefined
}

/**
 * Undefined where there is no token, where there is a body, and where one of these headers is there several times. Node has
 * the headers as they came, and by name only for who asks for them so.
 */
const headOf = ({ rawHeaders }: Http.IncomingMessage): Head | undefined => {
  let token: string | undefined
  let requestId: string | undefined
  let ifNoneMatch: string | undefined
  for (let i = 0; i < rawHeaders.length; i += 2) {
    const name = rawHeaders[i]!
    // Most are told apart by their length.
    if (name.length < 12 || name.length > 17) continue
    const value = rawHeaders[i + 1]!
    switch (name.toLowerCase()) {
      case "authorization":
        if (token !== undefined || !value.startsWith(scheme)) return undefined
        token = value.slice(scheme.length)
        break
      case RequestId.header:
        if (requestId !== undefined) return undefined
        requestId = value
        break
      case "if-none-match":
        if (ifNoneMatch !== undefined) return undefined
        ifNoneMatch = value
        break
      case "content-length":
      case "transfer-encoding":
        return undefined
    }
  }
  return token === undefined ? undefined : { token, requestId, ifNoneMatch }
}

interface Kept {
  readonly place: Place
  readonly tag: string
  /** As text: Node writes it together with the head. */
  readonly body: string
  readonly bytes: number
}

/** A request that could be answered here. */
interface Asked {
  readonly request: Http.IncomingMessage
  readonly response: Http.ServerResponse
  readonly head: Head
  readonly holder: TokenHolder
  readonly startNanos: bigint
}

export const layer = (early: EarlyAnswers, options: Partial<HostAnswersOptions> = {}) =>
  Layer.effectDiscard(
    Effect.gen(function* () {
      const { ageMax, max } = { ...defaultOptions, ...options }
      const tokens = yield* Tokens
      const roles = yield* Roles
      const limits = yield* RateLimits
      const drain = yield* Drain
      const clock = yield* Clock.Clock
      const context = yield* Effect.context()
      const measured = (status: number) => measurement(route, "GET", status)
      const whole = measured(200)
      const notModified = measured(304)
      const gone = measured(clientGone)
      const hosts = yield* HostReads.make(
        ({ host, publication }): Kept => {
          const shown = toContract(host, publication)
          const body = JSON.stringify(encode(shown))
          return { place: placeOf(host), tag: tagOf(shown), body, bytes: Buffer.byteLength(body) }
        },
        { keptMax: max, ageMaxMillis: Duration.toMillis(ageMax) }
      )

      const measure = (metric: typeof whole, startNanos: bigint): void =>
        metric.updateUnsafe(Number(clock.monotonicTimeNanosUnsafe() - startNanos) / 1e9, context)

      const give = ({ head, holder, response, startNanos }: Asked, found: Kept): boolean => {
        if (!allows(authorityOf(roles, holder), "read", "hosts", found.place)) return false
        const rates = limits.takeOpen("reads", holder.name, Number(startNanos) / 1e6)
        if (rates === undefined) return false

        const id = RequestId.given(head.requestId) ?? RequestId.make(clock.currentTimeMillisUnsafe())
        const common = { ...Exchange.headersOf(id), ...rates, etag: found.tag }
        if (head.ifNoneMatch !== undefined && EntityTag.isKnown(head.ifNoneMatch, found.tag)) {
          response.writeHead(304, common)
          response.end()
          measure(notModified, startNanos)
          return true
        }
        response.writeHead(200, { ...common, "content-type": "application/json", "content-length": found.bytes })
        response.end(found.body)
        measure(whole, startNanos)
        return true
      }

      /** What comes of it is an answer, or what the long way makes of it. */
      const attempt = (asked: Asked, f: () => boolean): boolean => {
        const { response } = asked
        try {
          return f()
        } catch {
          // The long way says what is wrong, unless half an answer is on its way already.
          if (response.headersSent) response.destroy()
          return response.headersSent
        }
      }

      const answerLater = (asked: Asked, found: Kept | undefined): void => {
        const { request, response, startNanos } = asked
        if (response.destroyed || request.socket.destroyed) measure(gone, startNanos)
        else if (found === undefined || !attempt(asked, () => give(asked, found))) early.pass(request, response)
      }

      const answer: Answer = (request, response) => {
        if (request.method !== "GET") return false
        const name = nameOf(request.url ?? "")
        if (name === undefined) return false
        const head = headOf(request)
        if (head === undefined || drain.isDraining()) return false
        const startNanos = clock.monotonicTimeNanosUnsafe()
        const holder = tokens.verifyAtApi(head.token)
        if (holder instanceof TokenRefused) return false
        const asked: Asked = { request, response, head, holder, startNanos }
        const nowMillis = Number(startNanos) / 1e6
        return attempt(asked, () => {
          const found = hosts.find(name, nowMillis)
          if (found !== undefined) return give(asked, found)
          // Who may ask for nothing more has nothing read for it.
          if (!limits.isOpen("reads", holder.name, nowMillis)) return false
          return hosts.read(name, nowMillis, (later) => answerLater(asked, later))
        })
      }

      yield* Effect.acquireRelease(
        Effect.sync(() => (early.answer = answer)),
        () => Effect.sync(() => (early.answer = undefined))
      )
    })
  )
