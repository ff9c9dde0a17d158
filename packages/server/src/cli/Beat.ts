/** One registration by protocol 1.0, as deployed clients send it; `dev` uses it to give itself a first host. */
import * as Wire from "@prism-dns/core/protocol/Wire"
import { Effect, Schema } from "effect"
import * as Net from "node:net"
import type { Endpoint } from "../Config.ts"

/** The server did not take the registration, or did not answer. */
export class BeatFailed extends Schema.TaggedError<BeatFailed>()("BeatFailed", { detail: Schema.String }) {
  override get message(): string {
    return `a registration failed: ${this.detail}`
  }
}

/** The text of a registration. Its time is not used by any server, so that a printed line stays good. */
export const message = (hostname: string, timestamp: string, token?: string): string =>
  JSON.stringify({ version: "1.0", type: "registration", timestamp, hostname, auth_token: token })

const Answer = Schema.decodeUnknownSync(
  Schema.fromJsonString(Schema.Struct({ status: Schema.String, message: Schema.String }))
)

/** Registers `hostname` with the address this connection comes from, and waits for the answer. */
export const send = (endpoint: Endpoint, hostname: string, token: string): Effect.Effect<void, BeatFailed> =>
  Effect.callback<void, BeatFailed>((resume) => {
    const failed = (detail: string) => resume(Effect.fail(new BeatFailed({ detail })))
    const decoder = new Wire.FrameDecoder()
    const socket = Net.connect(endpoint.port, endpoint.host, () => {
      socket.write(Wire.encode(message(hostname, new Date().toISOString(), token)))
    })
    socket.on("data", (chunk) => {
      for (const frame of decoder.push(chunk)) {
        if (frame._tag !== "Payload") return failed("the answer is no frame")
        try {
          const answer = Answer(Buffer.from(frame.bytes).toString("utf8"))
          if (answer.status === "success") resume(Effect.void)
          else failed(answer.message)
        } catch {
          failed("the answer is not understood")
        }
      }
    })
    socket.once("error", (error) => failed(error.message)).once("close", () => failed("the connection was closed"))
    return Effect.sync(() => socket.destroy())
  }).pipe(
    Effect.timeoutOrElse({
      duration: "10 seconds",
      orElse: () => Effect.fail(new BeatFailed({ detail: "no answer within 10 s" }))
    })
  )
