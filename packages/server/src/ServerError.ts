/**
 * Why the server does not start, in words that name the setting to change.
 * `cli/Failure.ts` turns them into a sentence and an exit code.
 */
import { Schema } from "effect"

/** An address or port cannot be listened on. `code` is the system's: EADDRINUSE, EACCES, EADDRNOTAVAIL. */
export class ListenFailed extends Schema.TaggedError<ListenFailed>()("ListenFailed", {
  /** Also the configuration's section. */
  service: Schema.Literals(["tcp", "tls", "http"]),
  host: Schema.String,
  port: Schema.Int,
  code: Schema.String
}) {
  override get message(): string {
    const where = `${this.host.includes(":") ? `[${this.host}]` : this.host}:${this.port}`
    const reasons: Readonly<Record<string, string>> = {
      EADDRINUSE: "the port is in use by another program",
      EACCES: "this user may not open the port",
      EADDRNOTAVAIL: "this machine does not have the address"
    }
    return `cannot listen on ${where} (${this.service}): ${reasons[this.code] ?? this.code}`
  }
}

/** What TLS is configured with cannot be used. `detail` is a sentence with the next step; it has nothing of the key. */
export class CertificateUnusable extends Schema.TaggedError<CertificateUnusable>()("CertificateUnusable", {
  /** The setting that names the file. */
  setting: Schema.String,
  detail: Schema.String
}) {
  override get message(): string {
    return `${this.setting}: ${this.detail}`
  }
}

/** The registry's database cannot be opened. `detail` never carries its password. */
export class StorageUnavailable extends Schema.TaggedError<StorageUnavailable>()("StorageUnavailable", {
  /** `PostgreSQL at db.example.net:5432`, or the file. */
  storage: Schema.String,
  detail: Schema.String
}) {
  override get message(): string {
    return `cannot open the registry in ${this.storage}: ${this.detail}`
  }
}

export type ServerError = CertificateUnusable | ListenFailed | StorageUnavailable
