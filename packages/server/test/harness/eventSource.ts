/**
 * A reader of server-sent events, as small as can be, so that nothing of ours
 * judges itself: bytes come in, whole blocks come out.
 */
import { Effect } from "effect"
import * as Http from "node:http"

export interface Block {
  readonly id: string | undefined
  readonly event: string
  readonly data: any
}

export interface EventSource {
  readonly status: number
  readonly headers: Http.IncomingHttpHeaders
  /** Whole blocks that have data, in order. */
  readonly blocks: ReadonlyArray<Block>
  /** All that came, as text. */
  readonly text: () => string
  /** The id of the last whole block, with data or without. */
  readonly lastEventId: () => string | undefined
  readonly hasEnded: () => boolean
  /** Whether it ended as an answer does, not by a connection that broke. */
  readonly hasEndedWell: () => boolean
  readonly pause: () => void
  readonly close: () => void
}

const parse = (text: string): Block => {
  let id: string | undefined
  let event = "message"
  let data = ""
  for (const line of text.split("\n")) {
    if (line.startsWith("id: ")) id = line.slice(4)
    if (line.startsWith("event: ")) event = line.slice(7)
    if (line.startsWith("data: ")) data += line.slice(6)
  }
  return { id, event, data: data === "" ? undefined : JSON.parse(data) }
}

/** Opens a stream; closed with the scope. */
export const open = (url: string, options: { readonly token: string; readonly lastEventId?: string | undefined }) =>
  Effect.acquireRelease(
    Effect.callback<EventSource, Error>((resume) => {
      const request = Http.get(url, {
        agent: false,
        headers: {
          authorization: `Bearer ${options.token}`,
          ...(options.lastEventId !== undefined && { "last-event-id": options.lastEventId })
        }
      })
      request.on("error", (error) => resume(Effect.fail(error)))
      request.on("response", (response) => {
        const blocks: Array<Block> = []
        let text = ""
        let rest = ""
        let lastEventId: string | undefined
        let hasEnded = false
        let hasEndedWell = false
        response.setEncoding("utf8")
        response.on("data", (chunk: string) => {
          text += chunk
          const parts = (rest + chunk).split("\n\n")
          rest = parts.pop()!
          for (const block of parts.map(parse)) {
            lastEventId = block.id ?? lastEventId
            if (block.data !== undefined) blocks.push(block)
          }
        })
        response.on("error", () => undefined)
        response.on("end", () => (hasEndedWell = true))
        response.on("close", () => (hasEnded = true))
        resume(
          Effect.succeed({
            status: response.statusCode ?? 0,
            headers: response.headers,
            blocks,
            text: () => text,
            lastEventId: () => lastEventId,
            hasEnded: () => hasEnded,
            hasEndedWell: () => hasEndedWell,
            pause: () => void response.pause(),
            close: () => void request.destroy()
          })
        )
      })
    }),
    (source) => Effect.sync(source.close)
  )
