/** The targets of `audit.export`, as the configuration says them. */
import type { Facility } from "@prism-dns/core/audit/Syslog"
import type { SyslogUrl } from "../config/Kind.ts"

export type TargetConfig =
  | { readonly _tag: "File"; readonly path: string }
  | {
      readonly _tag: "Syslog"
      readonly server: SyslogUrl
      readonly facility: Facility
      /** A file in PEM. */
      readonly ca: string | undefined
    }

/** How a target is called in the database, the log and metrics; another one is a new target. */
export const nameOf = (config: TargetConfig): string =>
  config._tag === "File"
    ? `file:${config.path}`
    : `syslog:${config.server.protocol}://${config.server.host}:${config.server.port}`
