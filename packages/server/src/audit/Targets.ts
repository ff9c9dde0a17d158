/**
 * Where the audit log is sent: a file, or a syslog server over TCP, TLS or UDP.
 *
 * A target takes entries and seals in order, and says once they are out of our
 * hands. For a file that is when they are on the disk. A syslog server answers
 * nothing: over a connection it is assumed that what was sent has arrived when
 * the connection has held for a while since (`settleMillis`). Leaves to others:
 * what has been sent already (`Exporter`).
 */
import { toLine } from "@prism-dns/core/audit/AuditExport"
import type { LogRow } from "@prism-dns/core/audit/Chain"
import * as Syslog from "@prism-dns/core/audit/Syslog"
import type { Seal } from "@prism-dns/core/audit/Verification"
import { Effect, Schema } from "effect"
import * as Dgram from "node:dgram"
import { open, readFile } from "node:fs/promises"
import * as Net from "node:net"
import * as Tls from "node:tls"
import type { SyslogUrl } from "../config/Kind.ts"

/** What goes out together, in order. */
export interface Batch {
  /** What the first entry follows on. */
  readonly start: { readonly position: number; readonly hash: string | undefined }
  readonly rows: ReadonlyArray<LogRow>
  readonly seals: ReadonlyArray<Seal>
}

export class TargetFailed extends Schema.TaggedError<TargetFailed>()("TargetFailed", { detail: Schema.String }) {
  override get message(): string {
    return this.detail
  }
}

export interface Target {
  /** How long a target has to stay well after a batch until that has arrived, in milliseconds. */
  readonly settleMillis: number
  readonly send: (batch: Batch) => Effect.Effect<void, TargetFailed>
  /** Gives up what is open. */
  readonly close: Effect.Effect<void>
  /** False when what was sent lately may be lost. */
  readonly isWell: () => boolean
}

const failed = (error: unknown) => new TargetFailed({ detail: error instanceof Error ? error.message : String(error) })

/** Lines of JSON as an export has them, at the end of a file. It is opened for each batch, so it may be moved away at any time. */
export const file = (path: string): Target => ({
  settleMillis: 0,
  isWell: () => true,
  close: Effect.void,
  send: ({ rows, seals, start }) =>
    Effect.tryPromise({
      try: async () => {
        const handle = await open(path, "a", 0o640)
        try {
          const { size } = await handle.stat()
          const lines: Array<string> = size === 0 ? [JSON.stringify({ start })] : []
          let given = 0
          const sealsBefore = (position: number) => {
            for (; given < seals.length && seals[given]!.lastPosition < position; given++) {
              const { atMillis, firstPosition, hash, lastPosition } = seals[given]!
              const at = new Date(atMillis).toISOString()
              lines.push(JSON.stringify({ seal: { at, firstPosition, hash, lastPosition } }))
            }
          }
          for (const row of rows) {
            sealsBefore(Number(row.position))
            lines.push(toLine(row))
          }
          sealsBefore(Number.MAX_SAFE_INTEGER)
          await handle.appendFile(`${lines.join("\n")}\n`)
          await handle.datasync()
        } finally {
          await handle.close()
        }
      },
      catch: failed
    })
})

/** How long a connection may take to come about, and a batch to go out. */
const timeoutMillis = 15_000

/** How long a connection has to hold until what was sent is taken to have arrived. */
const settleMillis = 2000

const overStream = (server: SyslogUrl, options: Syslog.SyslogOptions, ca: string | undefined): Target => {
  let socket: Net.Socket | undefined

  const connect = (authorities: string | undefined) =>
    new Promise<Net.Socket>((resolve, reject) => {
      const { host, port } = server
      const made =
        server.protocol === "tls"
          ? Tls.connect({
              host,
              port,
              ...(authorities !== undefined && { ca: authorities }),
              ...(Net.isIP(host) === 0 && { servername: host })
            })
          : Net.connect({ host, port })
      made.setTimeout(timeoutMillis, () => made.destroy(new Error(`no connection to ${host}:${port} in time`)))
      made.once("error", reject)
      made.once(server.protocol === "tls" ? "secureConnect" : "connect", () => {
        made.setTimeout(0)
        made.setKeepAlive(true, 10_000)
        // It has nothing to say to us; what it says all the same is let go.
        made.resume()
        made.on("error", () => made.destroy())
        made.on("end", () => made.destroy())
        made.on("close", () => {
          if (socket === made) socket = undefined
        })
        resolve(made)
      })
    })

  const write = (to: Net.Socket, text: string) =>
    new Promise<void>((resolve, reject) => {
      const timer = setTimeout(() => to.destroy(new Error("it takes nothing")), timeoutMillis)
      const gone = () => settle(new Error("the connection was closed"))
      const settle = (error: Error | null | undefined) => {
        clearTimeout(timer)
        to.off("close", gone)
        if (error == null) resolve()
        else reject(error)
      }
      to.once("close", gone)
      to.write(text, settle)
    })

  return {
    settleMillis,
    isWell: () => socket !== undefined && !socket.destroyed,
    close: Effect.sync(() => {
      socket?.destroy()
      socket = undefined
    }),
    send: ({ rows }) =>
      Effect.tryPromise({
        try: async () => {
          socket ??= await connect(ca === undefined ? undefined : await readFile(ca, "utf8"))
          await write(socket, rows.map((row) => Syslog.frame(Syslog.message(row, options))).join(""))
        },
        catch: failed
      })
  }
}

const overDatagrams = ({ host, port }: SyslogUrl, options: Syslog.SyslogOptions): Target => ({
  settleMillis: 0,
  isWell: () => true,
  close: Effect.void,
  send: ({ rows }) =>
    Effect.tryPromise({
      try: async () => {
        const socket = Dgram.createSocket(Net.isIPv6(host) ? "udp6" : "udp4")
        try {
          await new Promise<void>((resolve, reject) => {
            socket.once("error", reject)
            socket.connect(port, host, resolve)
          })
          for (const row of rows) {
            await new Promise<void>((resolve, reject) => {
              socket.send(Syslog.datagram(row, options), (error) => (error === null ? resolve() : reject(error)))
            })
          }
        } finally {
          socket.close()
        }
      },
      catch: failed
    })
})

/** `ca`: a file with the authorities in PEM that sign the server's certificate; undefined: those that Node knows. */
export const syslog = (server: SyslogUrl, options: Syslog.SyslogOptions, ca?: string): Target =>
  server.protocol === "udp" ? overDatagrams(server, options) : overStream(server, options, ca)
