/**
 * What can go wrong between us and a PowerDNS API, sorted once, with whether
 * the same request may succeed later.
 */
import { Schema } from "effect"

/** Nothing answered: refused, reset, no route, or the circuit is open because of it. The request was not taken. */
export class Unreachable extends Schema.TaggedClass<Unreachable>("prism/PowerDnsError/Unreachable")("Unreachable", {
  detail: Schema.String
}) {
  readonly retryable = true
}
/** No answer in time or a broken one: the request may have been taken, or may still be. */
export class Uncertain extends Schema.TaggedClass<Uncertain>("prism/PowerDnsError/Uncertain")("Uncertain", {
  detail: Schema.String
}) {
  readonly retryable = true
}
/** Answer 5xx: a locked or broken backend. */
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
/** Answer 404: no such zone (or server, or key). */
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
/** Answer 400, 405 or 413, or an answer we cannot read: the request itself is wrong, or too large for the body limit. */
export class Malformed extends Schema.TaggedClass<Malformed>("prism/PowerDnsError/Malformed")("Malformed", {
  status: Schema.Int,
  detail: Schema.String
}) {
  readonly retryable = false
}

export const Reason = Schema.Union([
  Unreachable,
  Uncertain,
  BackendFailed,
  Unauthorized,
  NotFound,
  Conflict,
  Refused,
  Malformed
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
