/**
 * Questions to name servers, many at once over one socket each, and whole zones
 * by AXFR.
 */
import dnsPacket from "dns-packet"
import { Effect, type Scope } from "effect"
import * as ChildProcess from "node:child_process"
import { createSocket } from "node:dgram"
import type { Endpoint } from "./Agent.ts"

/** How long an answer is waited for. */
const answerMillisMax = 1000

export interface Resolver {
  /** The A records, sorted; empty: there is none, says a server that should know; undefined: it does not say. */
  readonly ask: (name: string) => Promise<ReadonlyArray<string> | undefined>
}

/** Asks one name server; gone with the scope. */
export const resolver = (server: Endpoint): Effect.Effect<Resolver, never, Scope.Scope> =>
  Effect.gen(function* () {
    const waiting = new Map<number, (addresses: ReadonlyArray<string> | undefined) => void>()
    let last = 0
    const socket = yield* Effect.acquireRelease(
      Effect.sync(() => createSocket("udp4")),
      (socket) =>
        Effect.sync(() => {
          socket.close()
          for (const answer of waiting.values()) answer(undefined)
        })
    )
    // A port that nobody listens on any more; the question times out.
    socket.on("error", () => undefined)
    socket.on("message", (message) => {
      const packet = dnsPacket.decode(message)
      const rcode = "rcode" in packet ? String(packet.rcode) : ""
      const isAnswer = packet.flag_aa && (rcode === "NOERROR" || rcode === "NXDOMAIN")
      const addresses = (packet.answers ?? []).flatMap((answer) => (answer.type === "A" ? [answer.data] : []))
      waiting.get(packet.id ?? 0)?.(isAnswer ? addresses.sort() : undefined)
    })
    return {
      ask: (name) =>
        new Promise((resolve) => {
          const id = (last = (last + 1) & 0xffff)
          const timer = setTimeout(() => done(undefined), answerMillisMax)
          const done = (addresses: ReadonlyArray<string> | undefined) => {
            clearTimeout(timer)
            waiting.delete(id)
            resolve(addresses)
          }
          waiting.set(id, done)
          const query = dnsPacket.encode({ type: "query", id, questions: [{ type: "A", name }] })
          socket.send(query, server.port, server.host, (error) => {
            if (error !== null) done(undefined)
          })
        })
    }
  })

/** Lines of a zone file: all records of the zone as this server has it. */
export const transfer = (server: Endpoint, zone: string): Effect.Effect<ReadonlyArray<ReadonlyArray<string>>> =>
  Effect.callback((resume) => {
    const child = ChildProcess.execFile(
      "dig",
      [`@${server.host}`, "-p", `${server.port}`, "axfr", zone, "+onesoa", "+nocmd", "+nostats", "+nocomments"],
      { encoding: "utf8", timeout: 20_000, maxBuffer: 1 << 28 },
      (error, out) => {
        const lines = out
          .split("\n")
          .filter((line) => line !== "" && !line.startsWith(";"))
          .map((line) => line.split(/\s+/))
        resume(
          error === null && lines.length > 0
            ? Effect.succeed(lines)
            : Effect.die(new Error(`${zone} cannot be had from ${server.host}: ${error?.message ?? ""} ${out}`))
        )
      }
    )
    return Effect.sync(() => child.kill("SIGKILL"))
  })
