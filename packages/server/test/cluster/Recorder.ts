/**
 * What each server said to each PowerDNS, and when: a proxy between the two
 * that passes bytes on as they come, and notes the writes of zones.
 *
 * It is the witness for "one writer at a time": what PowerDNS was asked to do
 * and was doing at which moment, whoever the servers think they are.
 */
import { Effect, type Scope } from "effect"
import * as Net from "node:net"
import type { Endpoint } from "./Agent.ts"
import { nowMillis, type Write } from "./History.ts"

const head = /^(PATCH|PUT|POST|DELETE) \/api\/v1\/servers\/localhost\/zones\/([^ /?]+)(\S*) HTTP/
const statusLine = /^HTTP\/1\.[01] (\d{3})/

/** Writes that are kept at the most. */
const writesMax = 1_000_000

/** `PRISM_CLUSTER_TRACE`: what was written is kept too. */
const keepsBodies = process.env["PRISM_CLUSTER_TRACE"] !== undefined

/** A proxy at `listen` to `target`; what `server` writes through it at `node` is put into `writes`. */
export const proxy = (options: {
  readonly server: string
  readonly node: string
  readonly listen: Endpoint
  readonly target: Endpoint
  readonly writes: Array<Write>
}): Effect.Effect<void, never, Scope.Scope> =>
  Effect.asVoid(
    Effect.acquireRelease(
      Effect.callback<{ readonly listener: Net.Server; readonly open: Set<Net.Socket> }>((resume) => {
        const open = new Set<Net.Socket>()
        const listener = Net.createServer({ noDelay: true }, (from) => pass(options, from, open))
        listener.listen(options.listen.port, options.listen.host, () => resume(Effect.succeed({ listener, open })))
        listener.once("error", (error) => resume(Effect.die(error)))
      }),
      ({ listener, open }) =>
        Effect.callback<void>((resume) => {
          listener.close(() => resume(Effect.void))
          for (const socket of open) socket.destroy()
        })
    )
  )

const pass = (
  { node, server, target, writes }: Parameters<typeof proxy>[0],
  from: Net.Socket,
  open: Set<Net.Socket>
): void => {
  const to = Net.connect({ ...target, noDelay: true })
  let write: Write | undefined
  let isFirst = true
  open.add(from).add(to)
  from.on("data", (chunk: Buffer) => {
    if (isFirst) {
      isFirst = false
      const [, method, zone, rest] = head.exec(chunk.subarray(0, 600).toString("latin1")) ?? []
      // Of the others none changes what the zone holds.
      if (method === "PATCH" && zone !== undefined && rest === "" && writes.length < writesMax) {
        write = {
          server,
          node,
          zone: decodeURIComponent(zone).replace(/\.$/, ""),
          fromMillis: nowMillis(),
          toMillis: undefined,
          status: undefined
        }
        writes.push(write)
      }
    }
    // PowerDNS begins with it when it has all of it.
    if (write !== undefined) {
      write.fromMillis = nowMillis()
      if (keepsBodies) write.body = (write.body ?? "") + chunk.toString("latin1")
    }
    if (!to.write(chunk)) from.pause()
  })
  to.on("drain", () => from.resume())
  to.on("data", (chunk: Buffer) => {
    if (write !== undefined && write.toMillis === undefined) {
      write.toMillis = nowMillis()
      write.status = Number(statusLine.exec(chunk.subarray(0, 20).toString("latin1"))?.[1])
    }
    if (!from.write(chunk)) to.pause()
  })
  from.on("drain", () => to.resume())
  from.on("end", () => to.end())
  to.on("end", () => from.end())
  for (const [socket, other] of [
    [from, to],
    [to, from]
  ] as const) {
    socket.on("error", () => other.destroy())
    socket.on("close", () => {
      open.delete(socket)
      other.destroy()
      if (socket === to && write !== undefined) write.toMillis ??= nowMillis()
    })
  }
}
