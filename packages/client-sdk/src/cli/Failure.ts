/**
 * The one place where a failure of `prism-agent` becomes what people read: a
 * sentence with the next step, and an exit code (0 ok, 1 failed, 2 wrong usage,
 * 78 bad configuration). What is not known here is a fault of ours and keeps
 * its cause.
 */
import { Cause, Exit, Predicate, type Runtime, Schema } from "effect"

export const exitCodes = { ok: 0, failed: 1, usage: 2, configuration: 78 } as const

/** Flags that do not go together, or values that are none. */
export class UsageWrong extends Schema.TaggedError<UsageWrong>()("UsageWrong", {
  problems: Schema.Array(Schema.String)
}) {}

/** The environment, a file or a folder says what cannot work. */
export class ConfigurationWrong extends Schema.TaggedError<ConfigurationWrong>()("ConfigurationWrong", {
  problems: Schema.Array(Schema.String)
}) {}

/** A server said no, and asking again does not help. `code` is the server's. */
export class Refused extends Schema.TaggedError<Refused>()("Refused", {
  host: Schema.String,
  code: Schema.String,
  detail: Schema.String
}) {}

/** `once`: the level was not reached in time. */
export class NotReached extends Schema.TaggedError<NotReached>()("NotReached", { detail: Schema.String }) {}

export interface Report {
  /** For stderr; without a line end. */
  readonly text: string
  readonly exitCode: number
}

const listed = (what: string, problems: ReadonlyArray<string>): string =>
  problems.length === 1
    ? `prism-agent: ${what}: ${problems[0]}`
    : `prism-agent: ${what}, ${problems.length} problems:\n${problems.map((line) => `  ${line}`).join("\n")}`

const isFailure = Schema.is(Schema.Union([UsageWrong, ConfigurationWrong, Refused, NotReached]))

/** What a person can do about a refusal, where that is known. */
const nextStep: Readonly<Record<string, string>> = {
  "token-missing": "Name a token by --token-file or PRISM_TOKEN.",
  "token-invalid": "Check the token: it is none of the server's.",
  "token-expired": "Ask for a new token (prism-dns tokens create).",
  "token-revoked": "Ask for a new token (prism-dns tokens create).",
  "token-used-up": "Ask for a new token (prism-dns tokens create).",
  "token-not-allowed":
    "It may not be for this use: --auth token sends it with every session, --auth key enrols a key with it.",
  "hostname-taken":
    "Take another name; or, if this machine is to have it, have it freed (prism-dns identities reset) or ask for a token that is marked for it (prism-dns tokens create --enrol --for).",
  "unsupported-version":
    "Is --server the port for agents (8080, or tls:// and 8443), and not that of the API or of something else?",
  "server-untrusted":
    "Name the authority of its certificate by --ca; where the certificate is for another name than that of --server, name it by --server-name.",
  "protocol-not-allowed": "Name a token by --token-file or PRISM_TOKEN, or a certificate by --cert and --key.",
  "quota-exceeded":
    "Give up names that are not needed any more, or have namesMax raised for it, or hostsMax of the zone.",
  "certificate-missing": "Name one by --cert and --key.",
  "certificate-invalid": "Have another certificate issued by an authority that the server trusts (tls.clientCa).",
  "certificate-revoked": "Have another certificate issued, if this machine is still to be trusted.",
  "identity-unknown": "Move key.json out of the state folder and start again with a token.",
  "identity-revoked":
    "Move key.json out of the state folder and start again with a new token, if this machine is still to be trusted."
}

/** `sentence`, with what to do about a refusal of this code behind it. */
export const withNextStep = (code: string, sentence: string): string => {
  const step = nextStep[code]
  return step === undefined ? sentence : `${sentence}. ${step}`
}

const describe = (error: unknown): Report | undefined => {
  if (!isFailure(error)) return undefined
  switch (error._tag) {
    case "UsageWrong":
      return { text: listed("wrong usage", error.problems), exitCode: exitCodes.usage }
    case "ConfigurationWrong":
      return { text: listed("bad configuration", error.problems), exitCode: exitCodes.configuration }
    case "Refused": {
      const sentence = `prism-agent: ${error.host} was refused (${error.code}): ${error.detail}`
      const text = error.code in nextStep ? withNextStep(error.code, sentence) : `${sentence}.`
      return { text, exitCode: exitCodes.failed }
    }
    case "NotReached":
      return { text: `prism-agent: ${error.detail}`, exitCode: exitCodes.failed }
  }
}

/** The first failure of a cause that people can do something about; else all of it, since the fault is ours. */
export const report = (cause: Cause.Cause<unknown>): Report => {
  for (const reason of cause.reasons) {
    const known = Cause.isFailReason(reason) ? describe(reason.error) : undefined
    if (known !== undefined) return known
  }
  return {
    text: `prism-agent: unexpected failure, please report it:\n${Cause.pretty(cause)}`,
    exitCode: exitCodes.failed
  }
}

/** The same for programs: a stable code and the sentence. */
export const toJson = (cause: Cause.Cause<unknown>): { readonly code: string; readonly message: string } => {
  const error = Cause.squash(cause)
  const message = report(cause).text.replace(/^prism-agent: /, "")
  if (!isFailure(error)) return { code: "failed", message }
  switch (error._tag) {
    case "UsageWrong":
      return { code: "wrong-usage", message }
    case "ConfigurationWrong":
      return { code: "bad-configuration", message }
    case "Refused":
      return { code: error.code, message: error.detail }
    case "NotReached":
      return { code: "not-reached", message }
  }
}

/** The exit code of the whole program. Interruption by SIGTERM or SIGINT is the normal end. */
export const teardown: Runtime.Teardown = (exit, onExit) => {
  if (Exit.isSuccess(exit) || Cause.hasInterruptsOnly(exit.cause)) return onExit(exitCodes.ok)
  const error = Cause.squash(exit.cause)
  if (Predicate.isTagged(error, "ShowHelp")) {
    const wrong = "errors" in error && Array.isArray(error.errors) && error.errors.length > 0
    return onExit(wrong ? exitCodes.usage : exitCodes.ok)
  }
  onExit(report(exit.cause).exitCode)
}
