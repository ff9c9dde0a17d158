/** What a program wants of its name, checked as the server will check it. */
import { parseHostName } from "@prism-dns/core/domain/DomainName"
import * as Message from "@prism-dns/core/protocol/MessageV2"
import * as Result from "effect/Result"
import * as Os from "node:os"
import { type AgentOptions, type Changes, type Level, RegistrationFailed } from "./Options.ts"

export interface Wish {
  readonly hostname: string
  readonly zone: string | undefined
  readonly addresses: "observed" | ReadonlyArray<string>
  readonly ttlSeconds: number | undefined
  readonly labels: Readonly<Record<string, string>>
  readonly ack: Level
}

const invalid = (message: string) => new RegistrationFailed("invalid", message)

/** This machine's name without its domain. */
export const localHostname = (): string => Os.hostname().split(".")[0]!

/** The frame that asks for all of it. */
export const registerFrame = (wish: Wish, id: number): Message.Register => ({
  type: "register",
  id,
  hostname: wish.hostname,
  ack: wish.ack,
  ...(wish.zone === undefined ? {} : { zone: wish.zone }),
  ...(wish.addresses === "observed" ? {} : { addresses: wish.addresses }),
  ...(wish.ttlSeconds === undefined ? {} : { ttlSeconds: wish.ttlSeconds }),
  ...(Object.keys(wish.labels).length === 0 ? {} : { labels: wish.labels })
})

const isSame = (a: unknown, b: unknown): boolean => JSON.stringify(a) === JSON.stringify(b)

/** The frame that tells what `wish` differs in from what the server has. */
export const updateFrame = (wish: Wish, from: Wish, host: string, id: number): Message.Update => ({
  type: "update",
  id,
  host,
  ack: wish.ack,
  ...(isSame(wish.addresses, from.addresses) ? {} : { addresses: wish.addresses }),
  ...(wish.ttlSeconds === from.ttlSeconds ? {} : { ttlSeconds: wish.ttlSeconds ?? null }),
  ...(isSame(wish.labels, from.labels) ? {} : { labels: wish.labels })
})

/** Fails with `invalid`. */
const check = (wish: Wish): Wish => {
  const parsed = parseHostName(wish.hostname)
  if (Result.isFailure(parsed)) throw invalid(`hostname '${wish.hostname}': ${parsed.failure.reason}`)
  const frame = Message.decodeAgentMessage({ ...registerFrame(wish, 0) })
  if (Result.isFailure(frame)) throw invalid(frame.failure.message)
  return wish
}

/** Fails with `invalid`. `found`: the addresses of this machine's interfaces, where those are wanted. */
export const fromOptions = (options: AgentOptions, found: ReadonlyArray<string> = []): Wish =>
  check({
    hostname: options.hostname ?? localHostname(),
    zone: options.zone,
    addresses:
      options.addresses !== "interfaces" ? (options.addresses ?? "observed") : found.length > 0 ? found : "observed",
    ttlSeconds: options.ttlSeconds,
    labels: options.labels ?? {},
    ack: options.ack ?? "accepted"
  })

/** Fails with `invalid`. */
export const change = (wish: Wish, changes: Changes): Wish =>
  check({
    ...wish,
    addresses: changes.addresses ?? wish.addresses,
    ttlSeconds: changes.ttlSeconds === undefined ? wish.ttlSeconds : (changes.ttlSeconds ?? undefined),
    labels: changes.labels ?? wish.labels
  })
