/**
 * Two servers, and everything that can become of one of them: it is killed,
 * stands still, is cut off, has a wrong clock, is stopped. The other goes on.
 */
import { assert, describe, it } from "@effect/vitest"
import { Effect, Fiber } from "effect"
import type { Server } from "./Cluster.ts"
import { nowMillis } from "./History.ts"
import * as Trial from "./Trial.ts"

/** From a death to the other having all of it. */
const promisedMillis = 5000
/** Longer than the lease of an instance: it is declared dead meanwhile, and finds out when it runs again. */
const absenceMillis = Trial.isFull ? 30_000 : 8000

/** How much longer than a lease a host has to be silent before it expires, while other servers live. */
const silentMillis = 20_000

type Trial = Effect.Success<ReturnType<typeof Trial.begin>>

/** Does that to `victim`, and sees to it that what is promised of the other one holds; gives when it was done. */
const untilTakenOver = Effect.fnUntraced(function* (
  trial: Trial,
  victim: Server,
  act: Effect.Effect<void>,
  what: string,
  isSilent: boolean
) {
  const zones = yield* Trial.untilWriting(trial, victim.name)
  const since = nowMillis()
  yield* act
  const [sessions, written] = yield* Effect.all(
    [
      // Who is connected directly to what says nothing finds out by a beat that is not answered.
      Trial.untilElsewhere(trial, victim.name, ({ isDirect }) => !isSilent || !isDirect),
      Trial.untilWritten(trial, zones, victim.name, since)
    ],
    { concurrency: "unbounded" }
  )
  Trial.within(`${what}: sessions are on the other`, sessions, promisedMillis)
  Trial.within(`${what}: its ${zones.length} zones are written again`, written, promisedMillis)
  return since
})

/** The load goes on until so long after `since`. */
const until = (since: number, millis: number) => Effect.sleep(Math.max(0, since + millis - nowMillis()))

/** A server that is back has work again before something else happens. */
const untilBothWork = Effect.fnUntraced(function* (trial: Trial) {
  yield* trial.load.settled("60 seconds")
  yield* Trial.steady()
  for (const { name } of trial.cluster.servers) yield* Trial.untilWriting(trial, name)
})

describe("two servers", () => {
  it.live(
    "of which one is killed, stands still, or is cut off: the other has its sessions and zones within 5 s, and what was acknowledged stays",
    () =>
      Effect.gen(function* () {
        const trial = yield* Trial.begin({ servers: 2 })
        const { cluster } = trial
        const [one, two] = cluster.servers as [Server, Server]

        yield* untilBothWork(trial)
        yield* untilTakenOver(trial, one, one.kill, "killed", false)
        yield* one.start

        yield* untilBothWork(trial)
        yield* until(yield* untilTakenOver(trial, two, two.freeze, "frozen", true), absenceMillis)
        yield* two.thaw

        if (cluster.unable === undefined) {
          yield* untilBothWork(trial)
          yield* until(yield* untilTakenOver(trial, one, one.cut("everyone"), "cut off", true), absenceMillis)
          yield* one.heal
        } else Trial.say(`nothing is cut: ${cluster.unable}`)

        yield* untilBothWork(trial)
        yield* Trial.judge(trial)
      }).pipe(Effect.scoped),
    600_000
  )

  it.live(
    "of which one is cut off from the database alone, for longer than a lease of hosts: its sessions are sent to the other, and none of its hosts expires",
    () =>
      Effect.gen(function* () {
        const leaseMillis = 6000
        const trial = yield* Trial.begin(
          {
            servers: 2,
            // Silent for a lease, and for what other servers may not have written yet.
            settings: { leases: { beatInterval: "2s", grace: "2s" } }
          },
          // They beat each 4 s: one beat that is lost is more than this lease.
          { protocol1: 0 }
        )
        const { cluster, load } = trial
        if (cluster.unable !== undefined) return Trial.say(`nothing is cut: ${cluster.unable}`)
        const [one] = cluster.servers as [Server, Server]
        yield* untilBothWork(trial)
        const direct = load.agents.filter(({ isDirect }) => isDirect).length
        assert.isAbove(direct, 0)
        const since = nowMillis()
        yield* one.cut("postgres")
        // Also those that are connected directly, and that it goes on to answer.
        const away = yield* Trial.untilElsewhere(trial, one.name)
        Trial.within("cut off from the database: its sessions are on the other", away, leaseMillis)
        // Longer than the other waits before it takes hosts for silent.
        yield* until(since, 2 * leaseMillis + silentMillis)
        yield* one.heal
        yield* untilBothWork(trial)
        yield* Trial.judge(trial)
      }).pipe(Effect.scoped),
    600_000
  )

  it.live(
    "of which one has its clock an hour off: nobody loses a session",
    () =>
      Effect.gen(function* () {
        const trial = yield* Trial.begin({ servers: 2, clocks: true })
        const { cluster, load } = trial
        const [one] = cluster.servers as [Server, Server]

        yield* untilBothWork(trial)
        const ofSessions = new Set(load.agents.map(({ host }) => host))
        const lost = () => load.history.away.filter(({ host }) => ofSessions.has(host)).length
        const away = { sessions: lost(), all: load.history.away.length }
        for (const seconds of [3600, -3600, 0]) {
          yield* one.setClock(seconds)
          yield* Trial.steady()
        }
        assert.strictEqual(lost(), away.sessions, `hosts lost their sessions: ${Trial.whys(load, away.all)}`)

        yield* untilBothWork(trial)
        yield* Trial.judge(trial)
      }).pipe(Effect.scoped),
    600_000
  )

  it.live(
    "of which one is stopped: its zones are written by the other within 5 s, and no client sees an error",
    () =>
      Effect.gen(function* () {
        // As long as the sessions of one server take to get to the other, beside all else that goes on.
        const drainDelay = Trial.isFull ? { settings: { server: { drainDelay: "10s" } } } : {}
        const trial = yield* Trial.begin({ servers: 2, ...drainDelay })
        const { cluster, load } = trial
        const two = cluster.servers[1]!

        yield* untilBothWork(trial)
        const zones = yield* Trial.untilWriting(trial, two.name)
        const before = { requests: load.history.requests.length, errors: load.errors.length }
        const since = nowMillis()
        const stopping = yield* Effect.forkChild(two.stop)
        const written = yield* Trial.untilWritten(trial, zones, two.name, since)
        Trial.within("stopped: its zones are written again", written, promisedMillis)
        yield* Fiber.join(stopping)
        yield* load.settled()
        const direct = new Set(load.agents.filter(({ isDirect }) => isDirect).map(({ host }) => host))
        const unanswered = load.history.requests
          .slice(before.requests)
          .filter(({ isLeft, lostMillis, told }) => isLeft !== true && lostMillis !== undefined && told.length === 0)
        Trial.say(`stopped: ${unanswered.length} requests through HAProxy were cut off and asked again`)
        const ofDirect = unanswered.filter(({ host }) => direct.has(host))
        assert.strictEqual(ofDirect.length, 0, JSON.stringify({ since, ofDirect }, undefined, 1))
        const errors = load.errors.slice(before.errors).map((error) => ({
          ...error,
          requests: load.history.requests.filter(({ host }) => host === error.host).slice(-5)
        }))
        assert.strictEqual(errors.length, 0, JSON.stringify(errors, undefined, 1))
        yield* two.start

        yield* untilBothWork(trial)
        yield* Trial.judge(trial)
      }).pipe(Effect.scoped),
    600_000
  )
})
