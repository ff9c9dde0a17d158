/**
 * A way to a server that breaks: each connection is reset after so many bytes
 * of the answer, wherever in it that is, until there were enough of them.
 */
import { Effect } from "effect"
import * as Net from "node:net"

export interface CuttingProxy {
  readonly url: string
  /** Connections that were reset so far. */
  readonly cuts: () => number
}

export const start = (
  target: { readonly host: string; readonly port: number },
  options: {
    /** Connections that are reset; later ones hold. */
    readonly cutsMax: number
    /** After how many bytes the next one is. */
    readonly bytes: () => number
  }
) =>
  Effect.acquireRelease(
    Effect.callback<CuttingProxy & { readonly close: () => void }>((resume) => {
      let cuts = 0
      const open = new Set<Net.Socket>()
      const server = Net.createServer((client) => {
        const upstream = Net.connect(target.port, target.host)
        const both = [client, upstream]
        for (const socket of both) {
          open.add(socket)
          socket.on("error", () => undefined)
          socket.on("close", () => {
            open.delete(socket)
            for (const each of both) each.destroy()
          })
        }
        client.on("data", (chunk) => upstream.write(chunk))
        let left = cuts < options.cutsMax ? options.bytes() : Infinity
        upstream.on("data", (chunk) => {
          if (chunk.length < left) {
            left -= chunk.length
            client.write(chunk)
            return
          }
          if (left <= 0) return
          const rest = chunk.subarray(0, left)
          left = 0
          if (cuts >= options.cutsMax) return
          cuts++
          // What is written so far has to arrive before the reset, which throws away what waits.
          client.write(rest, () => client.resetAndDestroy())
        })
      })
      server.listen(0, "127.0.0.1", () => {
        const { port } = server.address() as Net.AddressInfo
        resume(
          Effect.succeed({
            url: `http://127.0.0.1:${port}`,
            cuts: () => cuts,
            close: () => {
              for (const socket of open) socket.destroy()
              server.close()
            }
          })
        )
      })
    }),
    ({ close }) => Effect.sync(close)
  )
