/**
 * Posts one message to a webhook's address, and says what became of it.
 *
 * Promises: it is sent to public addresses, and beyond those only to networks
 * that the operator names; the address that was looked at is the one that is
 * connected to, whatever the name resolves to next; redirects are not followed;
 * of an answer its status is read and nothing is passed on. It ends within the
 * time it is given. A name that resolves slowly holds up nobody else.
 */
import { Context, Effect, Layer } from "effect"
import { IpNetwork } from "effect/net"
import * as Dns from "node:dns"
import * as Http from "node:http"
import * as Https from "node:https"
import type { LookupFunction } from "node:net"
import { specialNetworkOf } from "../auth/SpecialAddresses.ts"
import * as IpAddress from "../domain/IpAddress.ts"

export interface Post {
  readonly url: string
  readonly headers: Readonly<Record<string, string>>
  readonly body: string
  readonly timeoutMillis: number
}

export type Outcome =
  | { readonly _tag: "Delivered"; readonly status: number }
  | {
      readonly _tag: "Failed"
      /** A sentence for people; of the answer it has the status alone. */
      readonly detail: string
      readonly status?: number
      /** What the receiver asks to wait, in milliseconds. */
      readonly retryAfterMillis?: number
    }

export class WebhookSender extends Context.Service<
  WebhookSender,
  {
    readonly post: (post: Post) => Effect.Effect<Outcome>
    /** Why nothing may be sent there, as far as the address itself says; undefined: it may, or its name decides. */
    readonly refusalOf: (url: string) => string | undefined
  }
>()("@prism-dns/core/events/WebhookSender") {
  static readonly layer = (options: {
    readonly networks: ReadonlyArray<IpNetwork.IpNetwork>
  }): Layer.Layer<WebhookSender> => Layer.effect(WebhookSender, make(options))
}

/** Machines' own addresses that are not public. */
const privateNetworks = ["10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10", "fc00::/7"].map(
  IpNetwork.fromStringUnsafe
)

/** Why `address` is none to send to; undefined: it is. */
export const addressRefusal = (
  address: IpAddress.IpAddress,
  networks: ReadonlyArray<IpNetwork.IpNetwork>
): string | undefined => {
  if (networks.some((network) => IpAddress.isWithin(address, network))) return undefined
  const what = privateNetworks.some((network) => IpAddress.isWithin(address, network))
    ? "private"
    : specialNetworkOf(address)?.what
  return what === undefined ? undefined : `${address} is ${what}, and not in events.webhooks.networks`
}

/** An address that is written in a URL itself. */
const literalOf = (url: URL): IpAddress.IpAddress | undefined => {
  const parsed = IpAddress.parse(url.hostname.replace(/^\[|\]$/g, ""))
  return parsed._tag === "Success" ? parsed.success : undefined
}

/** What is left of an answer's body unread: it is thrown away, and the connection with it when there is more. */
const answerBytesMax = 64 * 1024

/** How long a connection that nobody uses is kept. */
const idleMillis = 30_000

/** Names that no server is asked for. */
const isLocal = (name: string): boolean => /(?:^|\.)localhost\.?$/.test(name)

class Refused extends Error {}

/** All addresses of a name, by queries of our own: the system's resolver would take a thread for as long as it waits. */
const resolveName = async (resolver: Dns.promises.Resolver, name: string): Promise<ReadonlyArray<string>> => {
  if (!isLocal(name)) {
    const found = await Promise.allSettled([resolver.resolve4(name), resolver.resolve6(name)])
    const addresses = found.flatMap((each) => (each.status === "fulfilled" ? each.value : []))
    if (addresses.length > 0) return addresses
    const late = found.find(
      (each) => each.status === "rejected" && /TIMEOUT|SERVFAIL/.test((each.reason as NodeJS.ErrnoException).code ?? "")
    )
    if (late?.status === "rejected") throw late.reason
  }
  // Names that only this machine knows, as those of its hosts file.
  return (await Dns.promises.lookup(name, { all: true })).map(({ address }) => address)
}

const make = Effect.fnUntraced(function* ({ networks }: { readonly networks: ReadonlyArray<IpNetwork.IpNetwork> }) {
  const agentOptions = { keepAlive: true, maxFreeSockets: 2, timeout: idleMillis }
  const agents = { "http:": new Http.Agent(agentOptions), "https:": new Https.Agent(agentOptions) }
  const resolver = new Dns.promises.Resolver({ timeout: 2000, tries: 2 })
  yield* Effect.addFinalizer(() =>
    Effect.sync(() => {
      resolver.cancel()
      agents["http:"].destroy()
      agents["https:"].destroy()
    })
  )

  /** Gives a connection the addresses that were looked at, and no others. */
  const lookup: LookupFunction = (hostname, options, callback) => {
    resolveName(resolver, hostname).then(
      (found) => {
        const addresses = found.map(IpAddress.make)
        const allowed = addresses.filter((address) => addressRefusal(address, networks) === undefined)
        const first = allowed[0]
        if (first === undefined) {
          const why = addresses.map((address) => addressRefusal(address, networks)).find((each) => each !== undefined)
          return callback(new Refused(`${hostname}: ${why ?? "it has no address"}`), "")
        }
        if (options.all !== true) return callback(null, first, first.includes(":") ? 6 : 4)
        return callback(
          null,
          allowed.map((address) => ({ address, family: address.includes(":") ? 6 : 4 }))
        )
      },
      (error: NodeJS.ErrnoException) => callback(error, "")
    )
  }

  const refusalOf = (text: string): string | undefined => {
    const literal = literalOf(new URL(text))
    return literal === undefined ? undefined : addressRefusal(literal, networks)
  }

  const exchange = (post: Post): Effect.Effect<Outcome> =>
    Effect.callback<Outcome>((resume) => {
      const { body, headers, url: text } = post
      const url = new URL(text)
      const refusal = refusalOf(text)
      if (refusal !== undefined) return resume(Effect.succeed({ _tag: "Failed", detail: refusal }))
      const isTls = url.protocol === "https:"
      const request = (isTls ? Https : Http).request(url, {
        method: "POST",
        agent: agents[isTls ? "https:" : "http:"],
        lookup,
        headers: {
          ...headers,
          "content-type": "application/json",
          "content-length": String(Buffer.byteLength(body)),
          "user-agent": "prism-dns"
        }
      })
      request.on("response", (response) => {
        let bytes = 0
        response.on("data", (chunk: Buffer) => {
          bytes += chunk.length
          if (bytes > answerBytesMax) response.destroy()
        })
        response.on("error", () => undefined)
        // By then the connection is free for the next message.
        response.on("close", () => resume(Effect.succeed(outcomeOf(response))))
      })
      request.on("error", (error: NodeJS.ErrnoException) => {
        // The receiver closed a connection that nobody used, just as we did.
        const isStale = request.reusedSocket && (error.code === "ECONNRESET" || error.code === "EPIPE")
        resume(isStale ? exchange(post) : Effect.succeed({ _tag: "Failed", detail: reasonOf(error) }))
      })
      request.end(body)
      return Effect.sync(() => request.destroy())
    })

  return WebhookSender.of({
    refusalOf,
    post: (post) =>
      Effect.timeoutOrElse(exchange(post), {
        duration: post.timeoutMillis,
        orElse: () =>
          Effect.succeed<Outcome>({ _tag: "Failed", detail: `no answer within ${post.timeoutMillis / 1000} s` })
      })
  })
})

const outcomeOf = ({ headers, statusCode: status = 0 }: Http.IncomingMessage): Outcome => {
  if (status >= 200 && status < 300) return { _tag: "Delivered", status }
  const what = status >= 300 && status < 400 ? `a redirect (${status}), which is not followed` : `status ${status}`
  const after = headers["retry-after"]
  return {
    _tag: "Failed",
    status,
    detail: `it answered with ${what}`,
    ...(after !== undefined && /^\d{1,6}$/.test(after) && { retryAfterMillis: Number(after) * 1000 })
  }
}

/** Of a connection that did not come about, or ended. */
const reasonOf = (error: NodeJS.ErrnoException): string => {
  if (error instanceof Refused) return error.message
  const first: unknown = error instanceof AggregateError ? error.errors[0] : undefined
  const inner = first instanceof Error ? (first as NodeJS.ErrnoException) : error
  return `it cannot be reached (${inner.code ?? inner.message})`
}
