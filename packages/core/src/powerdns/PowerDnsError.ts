/**
 * What can go wrong between us and a PowerDNS API, sorted once, with whether
 * the same request may succeed later.
 *
 * Promises: no error carries a request's headers or body. Leaves to others:
 * when to try again.
 */
import { Option, Schema } from "effect"

/** Nothing took the request: refused, no route, no free connection, or the circuit is open. */
export class Unreachable extends Schema.TaggedClass<Unreachable>("prism/PowerDnsError/Unreachable")("Unreachable", {
  detail: Schema.String
}) {
  readonly retryable = true
}
/**
 * No answer in time or a broken one. The request may have been taken, or may still be: a server that was stuck works
 * off what it had received, even after newer requests. So read back before you rely on either.
 */
export class Uncertain extends Schema.TaggedClass<Uncertain>("prism/PowerDnsError/Uncertain")("Uncertain", {
  detail: Schema.String
}) {
  readonly retryable = true
}
/** Answer 500, 503 or 429: a locked, broken or overloaded backend. */
export class BackendFailed extends Schema.TaggedClass<BackendFailed>("prism/PowerDnsError/BackendFailed")(
  "BackendFailed",
  { status: Schema.Int, detail: Schema.String }
) {
  readonly retryable = true
}
/** Answer 401 or 403: the API key is wrong. */
export class Unauthorized extends Schema.TaggedClass<Unauthorized>("prism/PowerDnsError/Unauthorized")("Unauthorized", {
  detail: Schema.String
}) {
  readonly retryable = false
}
/** Answer 404: no such zone. */
export class NotFound extends Schema.TaggedClass<NotFound>("prism/PowerDnsError/NotFound")("NotFound", {
  detail: Schema.String
}) {
  readonly retryable = false
}
/** Answer 409: it exists already. */
export class Conflict extends Schema.TaggedClass<Conflict>("prism/PowerDnsError/Conflict")("Conflict", {
  detail: Schema.String
}) {
  readonly retryable = false
}
/** Answer 422: PowerDNS refuses the content; `detail` is its own sentence. A refused PATCH has changed nothing. */
export class Refused extends Schema.TaggedClass<Refused>("prism/PowerDnsError/Refused")("Refused", {
  detail: Schema.String
}) {
  readonly retryable = false
}
/** Any other answer, or one we cannot read: the request is wrong or too large, or that server is no PowerDNS. */
export class Malformed extends Schema.TaggedClass<Malformed>("prism/PowerDnsError/Malformed")("Malformed", {
  status: Schema.Int,
  detail: Schema.String
}) {
  readonly retryable = false
}

/** This server may not write there any more (`WriteGuard`): nothing was sent. */
export class Withheld extends Schema.TaggedClass<Withheld>("prism/PowerDnsError/Withheld")("Withheld", {
  detail: Schema.String
}) {
  readonly retryable = true
}

export const Reason = Schema.Union([
  Unreachable,
  Uncertain,
  BackendFailed,
  Unauthorized,
  NotFound,
  Conflict,
  Refused,
  Malformed,
  Withheld
])
export type Reason = typeof Reason.Type

/** A call to a PowerDNS API failed. `operation` and `node` say which one; never carries the API key. */
export class PowerDnsError extends Schema.TaggedError<PowerDnsError>()("PowerDnsError", {
  node: Schema.String,
  operation: Schema.String,
  reason: Reason
}) {
  get retryable(): boolean {
    return this.reason.retryable
  }
  override get message(): string {
    return `PowerDNS ${this.node}, ${this.operation}: ${this.reason.detail}`
  }
}

// ---------------------------------------------------------------------------------------------------------------------
// Sorting
// ---------------------------------------------------------------------------------------------------------------------

/** Longest sentence of PowerDNS that we keep, in characters. */
const detailCharactersMax = 1000

const RefusalAnswer = Schema.decodeUnknownOption(
  Schema.fromJsonString(
    Schema.Struct({ error: Schema.String, errors: Schema.optionalKey(Schema.Array(Schema.String)) })
  )
)

/** PowerDNS's own sentence: errors come as JSON or as text, by version and by case. */
const sentence = (contentType: string, body: string): string => {
  const answer = contentType.includes("json") ? Option.getOrUndefined(RefusalAnswer(body)) : undefined
  const text = answer === undefined ? body.trim() : [answer.error, ...(answer.errors ?? [])].join("; ")
  return text.slice(0, detailCharactersMax)
}

/** Why an answer other than 2xx was given. */
export const fromAnswer = (status: number, contentType: string, body: string): Reason => {
  const detail = sentence(contentType, body) || "no text"
  if (status === 422) return new Refused({ detail })
  if (status === 401 || status === 403) return new Unauthorized({ detail: `the API key is wrong (${status})` })
  // A gateway before PowerDNS gave up on it: what PowerDNS did is unknown.
  if (status === 408 || status === 502 || status === 504)
    return new Uncertain({ detail: `status ${status}: ${detail}` })
  if (status === 429 || status >= 500) return new BackendFailed({ status, detail: `status ${status}: ${detail}` })
  // PowerDNS says these in plain text or JSON. Another server's page for "not found" must not pass for "no such zone".
  const isPowerDns = contentType.includes("json") || contentType.startsWith("text/plain")
  if (status === 404 && isPowerDns) return new NotFound({ detail })
  if (status === 409 && isPowerDns) return new Conflict({ detail })
  if (status === 400 || status === 413) {
    return new Malformed({
      status,
      detail: `status ${status}: ${detail} (or the body is above webserver-max-bodysize)`
    })
  }
  return new Malformed({ status, detail: `status ${status}, which PowerDNS does not give here: is this its address?` })
}

/** Codes of Node, its resolver and undici for connections that never came to be. */
const neverConnected = new Set([
  "ECONNREFUSED",
  "EHOSTUNREACH",
  "EHOSTDOWN",
  "ENETUNREACH",
  "ENETDOWN",
  "EADDRNOTAVAIL",
  "ENOTFOUND",
  "EAI_AGAIN",
  "EAI_FAIL",
  "EMFILE",
  "ENFILE",
  "UND_ERR_CONNECT_TIMEOUT"
])

/** Errors wrap each other: fetch in `cause`, attempts on several addresses in `errors`. */
const causes = function* (error: unknown): Generator<object> {
  let next = error
  for (let depth = 0; depth < 8 && typeof next === "object" && next !== null; depth++) {
    yield next
    if ("errors" in next && Array.isArray(next.errors)) for (const inner of next.errors) yield* causes(inner)
    next = "cause" in next ? next.cause : undefined
  }
}

/** Why there was no whole answer, by the transport's error (undici, fetch or `node:http`). */
export const fromTransport = (error: unknown): Reason => {
  const all = [...causes(error)]
  const codes = all.flatMap((cause) => ("code" in cause && typeof cause.code === "string" ? [cause.code] : []))
  const wasNotSent =
    all.some((cause) => cause instanceof Error && cause.message === "bad port") || // fetch refuses some numbers
    codes.some((code) => neverConnected.has(code) || code.startsWith("ERR_TLS") || code.startsWith("CERT_")) ||
    all.some((cause) => "syscall" in cause && cause.syscall === "connect") ||
    // undici states how far a broken connection had come
    all.some((cause) => {
      const socket = "socket" in cause ? cause.socket : undefined
      return typeof socket === "object" && socket !== null && "bytesWritten" in socket && socket.bytesWritten === 0
    })
  // Only codes and the innermost sentence: outer ones quote the request.
  const last = all.at(-1)
  const message = last instanceof Error ? last.message : ""
  const detail = [codes.at(-1), message].filter((part) => part !== undefined && part !== "").join(": ")
  return wasNotSent
    ? new Unreachable({ detail: `cannot connect (${detail || "no reason given"})` })
    : new Uncertain({ detail: `the connection broke before the answer (${detail || "no reason given"})` })
}
