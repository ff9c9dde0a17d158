/**
 * `GET /v1/hosts/{fqdn}` answered before the router: by far the most frequent
 * question, whose answer is often the same as a moment ago.
 *
 * Promises: the same answer as by the long way, header for header, with the
 * same permissions, rates and metrics, made by the same functions; anything
 * unusual about a request (a query, a body, an id in place of a name, a token
 * that is no good, a rate that is used up, a host that is not there or on its
 * way to the DNS, a server that drains) is left to that long way. Nothing here
 * waits. Leaves to others: how old an answer may be (`registry/HostReads`).
 */
import * as EntityTag from "@prism-dns/core/api/EntityTag"
import { HostView } from "@prism-dns/core/api/Hosts"
import { allows, type Place } from "@prism-dns/core/auth/Permissions"
import { Roles } from "@prism-dns/core/auth/Roles"
import { authorityOf } from "@prism-dns/core/auth/Standing"
import { TokenRefused, Tokens } from "@prism-dns/core/auth/Tokens"
import type { DomainName } from "@prism-dns/core/domain/DomainName"
import * as HostReads from "@prism-dns/core/registry/HostReads"
import { Clock, Effect, Layer, Schema } from "effect"
import type * as Http from "node:http"
import { Drain } from "../Drain.ts"
import { measurements } from "./Answers.ts"
import * as Exchange from "./Exchange.ts"
import { placeOf, tagOf, toContract } from "./Hosts.ts"
import { RateLimits } from "./RateLimits.ts"
import * as RequestId from "./RequestId.ts"

/** Answers a request, or says false and has done nothing. */
type Answer = (request: Http.IncomingMessage, response: Http.ServerResponse) => boolean

/** Where the routes leave what is answered before them, while there are any. */
export class EarlyAnswers {
  answer: Answer | undefined = undefined

  /** What is answered here is no request to others who listen. */
  intercept(server: Http.Server): void {
    const emit = server.emit.bind(server)
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

interface Kept {
  readonly place: Place
  readonly tag: string
  /** As text: Node writes it together with the head. */
  readonly body: string
  readonly bytes: number
}

export const layer = (early: EarlyAnswers) =>
  Layer.effectDiscard(
    Effect.gen(function* () {
      const tokens = yield* Tokens
      const roles = yield* Roles
      const limits = yield* RateLimits
      const drain = yield* Drain
      const clock = yield* Clock.Clock
      const context = yield* Effect.context()
      const measure = measurements()
      const read = yield* HostReads.make(({ host, publication }): Kept => {
        const shown = toContract(host, publication)
        const body = JSON.stringify(encode(shown))
        return { place: placeOf(host), tag: tagOf(shown), body, bytes: Buffer.byteLength(body) }
      })

      const answer: Answer = (request, response) => {
        const { headers, method, url = "" } = request
        if (method !== "GET") return false
        const name = nameOf(url)
        const { authorization } = headers
        if (name === undefined || authorization === undefined || !authorization.startsWith(scheme)) return false
        if ("content-length" in headers || "transfer-encoding" in headers || drain.isDraining()) return false
        const startNanos = clock.monotonicTimeNanosUnsafe()
        const holder = tokens.verifyAtApi(authorization.slice(scheme.length))
        if (holder instanceof TokenRefused) return false
        const found = read(name)
        if (found === undefined || !allows(authorityOf(roles, holder), "read", "hosts", found.place)) return false
        if (!limits.isOpen("reads", holder.name)) return false

        const rates = limits.take("reads", holder.name)
        const given = RequestId.given(headers[RequestId.header] as string | undefined)
        const common = {
          ...Exchange.headersOf(given ?? RequestId.make(clock.currentTimeMillisUnsafe())),
          ...rates.headers,
          etag: found.tag
        }
        const known = headers["if-none-match"]
        if (known !== undefined && EntityTag.isKnown(known, found.tag)) {
          response.writeHead(304, common)
          response.end()
        } else {
          response.writeHead(200, {
            ...common,
            "content-type": "application/json",
            "content-length": found.bytes
          })
          response.end(found.body)
        }
        measure(route, "GET", response.statusCode, Number(clock.monotonicTimeNanosUnsafe() - startNanos) / 1e9, context)
        return true
      }

      yield* Effect.acquireRelease(
        Effect.sync(() => {
          early.answer = (request, response) => {
            try {
              return answer(request, response)
            } catch {
              // The long way says what is wrong, unless half an answer is on its way already.
              if (response.headersSent) response.destroy()
              return response.headersSent
            }
          }
        }),
        () => Effect.sync(() => (early.answer = undefined))
      )
    })
  )
