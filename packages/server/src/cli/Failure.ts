/**
 * The one place where an expected failure becomes what people read: a sentence
 * with the next step, and an exit code (0 ok, 1 failed, 2 wrong usage, 78 bad
 * configuration). What is not known here is a fault of ours and keeps its
 * cause.
 */
import { PowerDnsMissing, PowerDnsStartFailed } from "@prism-dns/core/powerdns/PowerDnsProcess"
import { Cause, Exit, Predicate, type Runtime, Schema } from "effect"
import { ConfigInvalid } from "../Config.ts"
import { CertificateUnusable, ListenFailed, StorageUnavailable } from "../ServerError.ts"

export const exitCodes = { ok: 0, failed: 1, usage: 2, configuration: 78 } as const

/** PowerDNS answers, but does not take the API key. */
export class ApiKeyWrong extends Schema.TaggedError<ApiKeyWrong>()("ApiKeyWrong", {
  node: Schema.String,
  api: Schema.String
}) {}

/** A port that a flag chose is taken. */
export class PortTaken extends Schema.TaggedError<PortTaken>()("PortTaken", {
  port: Schema.Int,
  flag: Schema.String
}) {}

/** A file or folder that we need cannot be used. */
export class FileUnusable extends Schema.TaggedError<FileUnusable>()("FileUnusable", {
  path: Schema.String,
  detail: Schema.String
}) {}

/** An administrative command did not get what it asked the server for. `detail` is a sentence with the next step. */
export class RequestFailed extends Schema.TaggedError<RequestFailed>()("RequestFailed", { detail: Schema.String }) {}

/** A command was called in a way that cannot work. `detail` says what to do. */
export class UsageWrong extends Schema.TaggedError<UsageWrong>()("UsageWrong", { detail: Schema.String }) {}

/** A command did what it could, has said so, and that was not all. */
export class NotAll extends Schema.TaggedError<NotAll>()("NotAll", { detail: Schema.String }) {}

/** `prism-dns doctor` has found errors, and has said them. */
export class ErrorsFound extends Schema.TaggedError<ErrorsFound>()("ErrorsFound", {
  errors: Schema.Int
}) {}

export interface Report {
  /** For stderr; without a line end. */
  readonly text: string
  readonly exitCode: number
}

const failed = (text: string): Report => ({ text: `prism-dns: ${text}`, exitCode: exitCodes.failed })
const badConfiguration = (text: string): Report => ({ text: `prism-dns: ${text}`, exitCode: exitCodes.configuration })

/** Whether an error is one that people can do something about. */
export const isFailure = Schema.is(
  Schema.Union([
    ConfigInvalid,
    CertificateUnusable,
    ListenFailed,
    StorageUnavailable,
    PowerDnsMissing,
    PowerDnsStartFailed,
    ApiKeyWrong,
    PortTaken,
    FileUnusable,
    ErrorsFound,
    RequestFailed,
    UsageWrong,
    NotAll
  ])
)

/** What to tell people about an error, or undefined if it is none that is expected. */
export const describe = (error: unknown): Report | undefined => {
  if (!isFailure(error)) return undefined
  switch (error._tag) {
    case "ConfigInvalid":
      return {
        text:
          error.problems.length === 1
            ? `prism-dns: bad configuration: ${error.problems[0]}`
            : `prism-dns: bad configuration, ${error.problems.length} problems:\n${error.problems.map((line) => `  ${line}`).join("\n")}`,
        exitCode: exitCodes.configuration
      }
    case "ListenFailed": {
      const key = error.code === "EADDRNOTAVAIL" ? "host" : "port"
      const flag = `--${error.service}-${key}`
      return failed(
        `${error.message}. Choose another ${key} with ${flag} or ${error.service}.${key}` +
          (error.code === "EADDRINUSE"
            ? `, or stop the program that holds it (ss -lntp 'sport = :${error.port}').`
            : ".")
      )
    }
    case "CertificateUnusable":
      return badConfiguration(`${error.message}.`)
    case "PortTaken":
      return failed(
        `port ${error.port} is in use by another program. Choose another one with --${error.flag} (0 is any free one), ` +
          `or stop that program (ss -lntup 'sport = :${error.port}').`
      )
    case "StorageUnavailable":
      return failed(`${error.message}. Check storage.url (PRISM_STORAGE_URL), and that the database is up.`)
    case "PowerDnsMissing":
    case "PowerDnsStartFailed":
      return failed(error.message)
    case "ApiKeyWrong":
      return badConfiguration(
        `PowerDNS ${error.node} (${error.api}) refuses the API key. ` +
          `Set powerdns.nodes[].apiKey (or apiKeyFile) to the api-key of its pdns.conf.`
      )
    case "ErrorsFound":
      return failed(
        `doctor found ${error.errors === 1 ? "1 error" : `${error.errors} errors`}; each is listed with its fix.`
      )
    case "FileUnusable":
      return failed(`cannot use ${error.path}: ${error.detail}.`)
    case "RequestFailed":
    case "NotAll":
      return failed(error.detail)
    case "UsageWrong":
      return { text: `prism-dns: ${error.detail}`, exitCode: exitCodes.usage }
  }
}

/** The first failure of a cause that people can do something about; else all of it, since the fault is ours. */
export const report = (cause: Cause.Cause<unknown>): Report => {
  for (const reason of cause.reasons) {
    const known = Cause.isFailReason(reason) ? describe(reason.error) : undefined
    if (known !== undefined) return known
  }
  return failed(`unexpected failure, please report it:\n${Cause.pretty(cause)}`)
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
