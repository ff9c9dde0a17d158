/** A receiver of webhooks that does as it is told, and checks signatures by itself. */
import { Effect } from "effect"
import { createHmac } from "node:crypto"
import * as Http from "node:http"
import type * as Net from "node:net"

export interface Received {
  readonly headers: Http.IncomingHttpHeaders
  readonly text: string
  readonly body: any
}

/** What is answered to the nth message, from 0; `hang`: nothing at all. */
export type Answer = number | { readonly status: number; readonly headers: Record<string, string> } | "hang"

export interface Receiver {
  readonly url: string
  /** All that came, whatever was answered. */
  readonly received: Array<Received>
  /** All that were taken, each once: those that came again behind each other count as one. */
  readonly taken: () => ReadonlyArray<Received>
  answer: (received: Received, nth: number) => Answer
}

/** Whether one of the signatures of a message is by `secret`; written from the specification, not from our code. */
export const isSignedBy = (secret: string, { headers, text }: Pick<Received, "headers" | "text">): boolean => {
  const key = Buffer.from(secret.slice("whsec_".length), "base64")
  const signed = `${String(headers["webhook-id"])}.${String(headers["webhook-timestamp"])}.${text}`
  const expected = `v1,${createHmac("sha256", key).update(signed).digest("base64")}`
  return String(headers["webhook-signature"]).split(" ").includes(expected)
}

export const start = Effect.acquireRelease(
  Effect.callback<Receiver & { readonly close: () => void }>((resume) => {
    const received: Array<Received> = []
    const accepted: Array<Received> = []
    const receiver = {
      url: "",
      received,
      taken: () => accepted.filter((each, i) => accepted[i - 1]?.headers["webhook-id"] !== each.headers["webhook-id"]),
      answer: (): Answer => 204
    } as Omit<Receiver, "url"> & { url: string }
    const server = Http.createServer((request, response) => {
      let text = ""
      request.setEncoding("utf8")
      request.on("data", (chunk: string) => (text += chunk))
      request.on("end", () => {
        const one = { headers: request.headers, text, body: JSON.parse(text) }
        received.push(one)
        const answer = receiver.answer(one, received.length - 1)
        if (answer === "hang") return
        const { headers, status } = typeof answer === "number" ? { status: answer, headers: {} } : answer
        if (status >= 200 && status < 300) accepted.push(one)
        response.writeHead(status, headers).end("not to be read by anybody")
      })
    })
    server.listen(0, "127.0.0.1", () => {
      receiver.url = `http://127.0.0.1:${(server.address() as Net.AddressInfo).port}/hook`
      resume(
        Effect.succeed(
          Object.assign(receiver, {
            close: () => {
              server.close()
              server.closeAllConnections()
            }
          })
        )
      )
    })
  }),
  ({ close }) => Effect.sync(close)
)
