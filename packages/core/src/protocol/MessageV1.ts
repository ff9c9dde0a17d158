/**
 * The messages of protocol 1.0, as deployed clients send and expect them.
 *
 * Released: every message that was ever understood stays understood.
 */
import { Result, Schema, SchemaIssue } from "effect"
import { type HostName, labelCharactersMax, nameCharactersMax, parseHostName } from "../domain/DomainName.ts"
import { type Fields, parseObject } from "./Payload.ts"

/** `2026-11-23T06:14:00.123456Z`: date, a literal T, time, 0 to 9 fraction digits; `Z`, an offset or no zone. */
const timestampPattern =
  /^\d{4}-(?:0[1-9]|1[0-2])-(?:0[1-9]|[12]\d|3[01])T(?:[01]\d|2[0-4]):[0-5]\d(?::(?:[0-5]\d|60)(?:\.\d{0,9})?)?(?:Z|[+-]\d{2}:?\d{2})?$/

const Timestamp = Schema.String.check(
  Schema.isPattern(timestampPattern, { message: "must be an ISO 8601 time with a literal T" })
)

const HostnameText = Schema.String.check(
  Schema.makeFilter((text: string) => {
    const result = parseHostName(text)
    return Result.isSuccess(result) ? undefined : result.failure.reason
  })
)

/** A registration, which is also the heartbeat. Fields that are not named here (`client_ip` among them) are ignored. */
export const Registration = Schema.Struct({
  version: Schema.Literal("1.0"),
  type: Schema.Literal("registration"),
  timestamp: Timestamp,
  hostname: HostnameText,
  auth_token: Schema.optionalKey(Schema.NullOr(Schema.String))
})

export interface RegistrationV1 {
  readonly hostname: HostName
  readonly authToken: string | undefined
}

/** Why a payload is no message. `code` is stable, `message` for people. */
export class MessageInvalid extends Schema.TaggedError<MessageInvalid>()("MessageInvalid", {
  code: Schema.Literals(["empty", "bad-utf8", "bad-json", "not-an-object", "unsupported-version", "invalid"]),
  message: Schema.String
}) {}

const decodeRegistration = Schema.decodeUnknownResult(Registration)
const issues = SchemaIssue.makeFormatterStandardSchemaV1()

const invalid = (code: MessageInvalid["code"], message: string) => Result.fail(new MessageInvalid({ code, message }))

/** Reads a frame's payload. */
export const decode = (payload: Uint8Array): Result.Result<RegistrationV1, MessageInvalid> => {
  const parsed = parseObject(payload)
  return Result.isSuccess(parsed) ? decodeObject(parsed.success) : invalid(parsed.failure.code, parsed.failure.message)
}

/** Reads what a frame's payload was parsed into. */
export const decodeObject = (value: Fields): Result.Result<RegistrationV1, MessageInvalid> => {
  const decoded = decodeRegistration(value)
  if (Result.isFailure(decoded)) return explain(value, decoded.failure)
  const { auth_token, hostname } = decoded.success
  return Result.succeed({ hostname: hostname.toLowerCase() as HostName, authToken: auth_token ?? undefined })
}

/** The first thing that is wrong, in the words of the protocol. */
const explain = (value: object, error: { readonly issue: SchemaIssue.Issue }): Result.Result<never, MessageInvalid> => {
  if ("version" in value && value.version !== "1.0") {
    return invalid("unsupported-version", 'version must be "1.0"')
  }
  const first = issues(error.issue).issues[0]
  const field = first?.path?.map(String).join(".") ?? ""
  if (field === "hostname") {
    return invalid(
      "invalid",
      `hostname must be 1 to ${nameCharactersMax} characters: dot-separated labels of 1 to ${labelCharactersMax} letters, digits and hyphens, no hyphen at a label's edge`
    )
  }
  return invalid("invalid", field === "" ? "the message is not a registration" : `${field}: ${first!.message}`)
}

export interface ResponseV1 {
  readonly status: "success" | "error"
  readonly message: string
  /** Fields beyond the four that every client knows, in this order behind them. */
  readonly more?: Readonly<Record<string, string | number | boolean>>
}

/** UTC with microseconds and `+00:00`, as deployed clients parse it. */
export const formatTimestamp = (millis: number): string => {
  if (millis !== formatted.millis) {
    formatted = { millis, text: `${new Date(millis).toISOString().slice(0, -1)}000+00:00` }
  }
  return formatted.text
}

/** The last one: many answers go out within a millisecond. */
let formatted = { millis: Number.NaN, text: "" }

/** The text of a response: compact JSON, the known keys first and in order. */
export const encodeResponse = (response: ResponseV1, nowMillis: number): string =>
  JSON.stringify({
    version: "1.0",
    type: "response",
    status: response.status,
    message: response.message,
    timestamp: formatTimestamp(nowMillis),
    ...response.more
  })
