/**
 * Frames of protocol 2.0 that the server writes of itself: answers to beats,
 * errors, and what is said of bytes that are no message. Pure.
 */
import * as MessageV2 from "@prism-dns/core/protocol/MessageV2"
import type { Refusal } from "./AgentSession.ts"
import * as RequestsV2 from "./RequestsV2.ts"

/** What a session is held to. */
export interface Bounds {
  readonly frameBytesMax: number
  readonly leaseMillis: number
}

/** As `MessageV2.encodeText` writes it. */
export const beatText = (id: number): string => `{"type":"beat","id":${id}}`

/** Codes of what ends a connection that may be worth another. */
const retryableCodes: ReadonlySet<string> = new Set(["timeout", "internal", "peer-unknown", "unavailable", "capacity"])

/** An error behind which the connection is closed. */
export const closing = (
  id: number | undefined,
  { code, message }: { readonly code: string; readonly message: string },
  retryAfterSeconds?: number
): string => errorText(id, RequestsV2.refused(code, message, retryAfterSeconds, retryableCodes.has(code)), true)

export const errorText = (
  id: number | undefined,
  { code, message, retryAfterSeconds, retryable }: RequestsV2.Refused,
  isClosing = false
): string =>
  MessageV2.encodeText({
    type: "error",
    ...(id === undefined ? {} : { id }),
    code,
    message,
    retryable,
    ...(retryAfterSeconds === undefined ? {} : { retryAfterSeconds }),
    ...(isClosing ? { closing: true } : {})
  })

/** What is said of bytes that are no frame of ours, or of none. */
export const refusals: Readonly<
  Record<Refusal, (bounds: Bounds) => { readonly code: string; readonly message: string }>
> = {
  "too-large": ({ frameBytesMax }) => ({
    code: "too-large",
    message: `the frame is longer than ${frameBytesMax} bytes`
  }),
  http: () => ({ code: "not-prism", message: "these bytes are HTTP, not the Prism protocol" }),
  tls: () => ({ code: "not-prism", message: "these bytes are TLS, not the Prism protocol" }),
  proxy: () => ({
    code: "proxy-not-allowed",
    message: "a PROXY header comes first, and only from where it is allowed"
  }),
  timeout: ({ leaseMillis }) => ({ code: "timeout", message: `nothing was heard for ${leaseMillis / 1000} s` })
}
