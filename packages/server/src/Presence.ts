/**
 * Which server has the session of a host, as far as is known.
 *
 * A hint for people, which no decision depends on: it is told some time later,
 * and it may be missing. Where nothing is said of it, nobody knows.
 */
import { Context, Effect } from "effect"
import type { DomainName } from "@prism-dns/core/domain/DomainName"

/** Where a host's session is. */
export interface Seat {
  /** `server.instance` of its configuration. */
  readonly instance: string
  /** When it came there. */
  readonly sinceMillis: number
}

export interface PresenceService {
  /** A session of this server has the host. Told with the next batch. */
  readonly come: (fqdn: DomainName, session: object, nowMillis: number) => void
  /** It has it no more, unless another session has it now. */
  readonly go: (fqdn: DomainName, session: object) => void
  /** Undefined: not known. Waits for `answerMillisMax` at the longest. */
  readonly find: (fqdn: DomainName) => Effect.Effect<Seat | undefined>
}

const none: PresenceService = {
  come: () => undefined,
  go: () => undefined,
  find: () => Effect.succeed(undefined)
}

export class Presence extends Context.Reference<PresenceService>("@prism-dns/server/Presence", {
  defaultValue: () => none
}) {}
