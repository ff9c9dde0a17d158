/**
 * Which server has whose session, by Redis: a key for each host that has one.
 *
 * Promises: told in batches, each `tellMillis`, and again each `againMillis`, so
 * that a Redis that was emptied knows all of it after that; what a server that
 * ended has told is forgotten after `keptMillis`. A host that has gone to another
 * server is that one's: what is taken back is only what this server has told.
 * Bounded by the sessions there are. Leaves to others: what a session is.
 */
import type { DomainName } from "@prism-dns/core/domain/DomainName"
import { Clock, Effect, Layer } from "effect"
import { Presence, type PresenceService } from "../Presence.ts"
import { RedisLink, script } from "./RedisLink.ts"

export interface PresenceOptions {
  /** Of all keys. */
  readonly prefix: string
  /** Names this server. */
  readonly instance: string
  readonly tellMillis?: number
  readonly againMillis?: number
  readonly keptMillis?: number
  /** Hosts in one script. */
  readonly batchMax?: number
  /** How long whoever asks waits. */
  readonly answerMillisMax?: number
}

const defaults = {
  tellMillis: 500,
  againMillis: 20_000,
  keptMillis: 60_000,
  batchMax: 500,
  answerMillisMax: 100
}

/** After how long they are kept and who tells it, for each host since when it is there; empty: it is not. A newer word of another stands. */
const tell = script(`
for i, key in ipairs(KEYS) do
  local since = ARGV[i + 2]
  local known = redis.call('GET', key)
  local was, who = string.match(known or '', '^(%d+) (.*)$')
  if since == '' then
    if who == ARGV[2] then redis.call('DEL', key) end
  elseif not was or who == ARGV[2] or tonumber(was) <= tonumber(since) then
    redis.call('SET', key, since .. ' ' .. ARGV[2], 'PX', ARGV[1])
  end
end
return #KEYS
`)

const ask = script("return redis.call('GET', KEYS[1])")

interface Seated {
  readonly session: object
  readonly sinceMillis: number
  /** By the monotonic clock; 0: never. */
  toldMillis: number
}

export const layer = (options: PresenceOptions) => Layer.effect(Presence, make(options))

const make = Effect.fnUntraced(function* (given: PresenceOptions) {
  const { againMillis, answerMillisMax, batchMax, instance, keptMillis, prefix, tellMillis } = { ...defaults, ...given }
  const link = yield* RedisLink
  const clock = yield* Clock.Clock
  const elapsed = () => Number(clock.monotonicTimeNanosUnsafe()) / 1e6
  const seated = new Map<DomainName, Seated>()
  /** Whose word is due before its time. */
  const due = new Set<DomainName>()
  let sweptMillis = elapsed()

  const keyOf = (fqdn: DomainName) => `${prefix}session:${fqdn}`

  const telling = Effect.gen(function* () {
    if (!link.isConnected()) return
    const now = elapsed()
    // Looked through a few times in that while: a word is not older than it when it is said again.
    if (now - sweptMillis > againMillis / 4) {
      sweptMillis = now
      for (const [fqdn, { toldMillis }] of seated) if (now - toldMillis > againMillis) due.add(fqdn)
    }
    const names = [...due]
    for (let i = 0; i < names.length; i += batchMax) {
      const some = names.slice(i, i + batchMax).map((fqdn) => ({ fqdn, seat: seated.get(fqdn) }))
      for (const { fqdn } of some) due.delete(fqdn)
      yield* link
        .run(
          "presence",
          tell,
          some.map(({ fqdn }) => keyOf(fqdn)),
          [`${keptMillis}`, instance, ...some.map(({ seat }) => (seat === undefined ? "" : `${seat.sinceMillis}`))]
        )
        .pipe(
          // Whoever has gone meanwhile is forgotten there by itself.
          Effect.tapError(() =>
            Effect.sync(() => {
              for (const { fqdn, seat } of some) if (seat !== undefined) due.add(fqdn)
            })
          )
        )
      for (const { seat } of some) if (seat !== undefined) seat.toldMillis = now
    }
  })

  yield* Effect.sleep(tellMillis).pipe(Effect.andThen(Effect.ignore(telling)), Effect.forever, Effect.forkScoped)

  const presence: PresenceService = {
    come: (fqdn, session, nowMillis) => {
      if (seated.get(fqdn)?.session === session) return
      seated.set(fqdn, { session, sinceMillis: Math.floor(nowMillis), toldMillis: 0 })
      due.add(fqdn)
    },
    go: (fqdn, session) => {
      if (seated.get(fqdn)?.session !== session) return
      seated.delete(fqdn)
      // While there is nobody to tell, it is forgotten there by itself.
      if (link.isConnected()) due.add(fqdn)
      else due.delete(fqdn)
    },
    find: (fqdn) =>
      link.run("presence", ask, [keyOf(fqdn)], []).pipe(
        Effect.map((said) => {
          const found = typeof said === "string" ? /^(\d{1,15}) (.+)$/s.exec(said) : null
          return found === null ? undefined : { sinceMillis: Number(found[1]), instance: found[2]! }
        }),
        Effect.timeoutOrElse({ duration: answerMillisMax, orElse: () => Effect.succeed(undefined) }),
        Effect.catch(() => Effect.succeed(undefined))
      )
  }
  return presence
})
