/**
 * Asks a DNS server for names in turn, evenly, for as long as a scope lasts,
 * and counts what came back.
 *
 * Promises: an answer counts as right only when it is NOERROR with exactly the
 * record expected. A question without an answer is asked again, as resolvers
 * do: a datagram that is lost on a busy machine is no absent name. After
 * `triesMax` it counts as unanswered.
 */
import { Effect, type Scope } from "effect"
import * as Dgram from "node:dgram"
import * as Resolution from "./Resolution.ts"
import type { Endpoint } from "./Servers.ts"

export interface Lookups {
  readonly asked: number
  readonly right: number
  /** Absent, another record, or a failure of the server. */
  readonly wrong: number
  readonly unanswered: number
  /** One that was not right. */
  readonly example: string | undefined
}

/** Until a question is asked again. */
const answerMillisMax = 2000
const triesMax = 3
const tickMillis = 10

/** Begins, and gives what reads the counters: first it waits for what is under way. */
export const start = (
  dns: Endpoint,
  expectations: ReadonlyArray<Resolution.Expectation>,
  perSecond: number
): Effect.Effect<Effect.Effect<Lookups>, never, Scope.Scope> =>
  Effect.map(
    Effect.acquireRelease(
      Effect.sync(() => {
        const questions = expectations.map(Resolution.encodeQuestion)
        const underWay = new Map<
          number,
          { readonly index: number; readonly sentMillis: number; readonly tries: number }
        >()
        let id = 0
        const socket = Dgram.createSocket("udp4")
        const startMillis = performance.now()
        const counts = { asked: 0, right: 0, wrong: 0, unanswered: 0, example: undefined as string | undefined }
        let stopping = false
        const settle = (key: number, what: "right" | "wrong" | "unanswered", detail: string) => {
          const { index } = underWay.get(key)!
          underWay.delete(key)
          counts[what] += 1
          if (what === "right") return
          counts.example ??= `${expectations[index]!.name} ${expectations[index]!.type}: ${detail}`
        }
        const send = (index: number, now: number, tries: number) => {
          const question = questions[index]!
          id = (id + 1) & 0xffff
          question.writeUInt16BE(id)
          underWay.set(id, { index, sentMillis: now, tries })
          socket.send(question)
        }
        const tick = () => {
          const now = performance.now()
          for (const [key, { index, sentMillis, tries }] of underWay) {
            if (now - sentMillis < answerMillisMax) break
            if (tries >= triesMax) {
              settle(key, "unanswered", "no answer")
              continue
            }
            underWay.delete(key)
            send(index, now, tries + 1)
          }
          if (stopping) return
          while (counts.asked < ((now - startMillis) * perSecond) / 1000) {
            send(counts.asked % questions.length, now, 1)
            counts.asked += 1
          }
        }
        socket.on("error", () => undefined) // what is not answered is counted
        socket.on("message", (packet) => {
          const key = packet.readUInt16BE(0)
          const asked = underWay.get(key)
          if (asked === undefined) return
          const isRight = Resolution.isRight(packet, questions[asked.index]!, expectations[asked.index]!)
          settle(
            key,
            isRight ? "right" : "wrong",
            `rcode ${packet.readUInt16BE(2) & 15}, ${packet.readUInt16BE(6)} records`
          )
        })
        let ticker: NodeJS.Timeout | undefined
        socket.connect(dns.port, dns.host, () => {
          ticker = setInterval(tick, tickMillis)
        })
        return {
          counts,
          underWay,
          stop: () => {
            stopping = true
          },
          close: () => {
            clearInterval(ticker)
            socket.close()
          }
        }
      }),
      ({ close }) => Effect.sync(close)
    ),
    ({ counts, stop, underWay }) =>
      Effect.gen(function* () {
        stop()
        while (underWay.size > 0) yield* Effect.sleep(tickMillis)
        return { ...counts }
      })
  )
