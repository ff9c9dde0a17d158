/**
 * Changes of many names as one PATCH. PowerDNS refuses a PATCH as a whole: what
 * it refuses is halved until the bad names stand alone, and the others go through.
 */
import { Effect } from "effect"
import type { DomainName } from "../domain/DomainName.ts"
import type { PowerDnsError } from "../powerdns/PowerDnsError.ts"

/** A name that cannot be published, and why. */
export interface Refusal {
  readonly name: DomainName
  readonly reason: string
}

/**
 * True when PowerDNS refuses what was sent, and not the sending: then some of it alone is to blame. The answer 400 says
 * that the body is too large, among other things.
 */
const isAboutContent = (reason: PowerDnsError["reason"]): boolean =>
  reason._tag === "Refused" || (reason._tag === "Malformed" && (reason.status === 400 || reason.status === 413))

/** Sends `names` by `patch`, in as many pieces as it takes. Gives those that were refused; fails where the sending failed. */
export const send = <N extends { readonly name: DomainName }>(
  names: ReadonlyArray<N>,
  patch: (names: ReadonlyArray<N>) => Effect.Effect<void, PowerDnsError>
): Effect.Effect<ReadonlyArray<Refusal>, PowerDnsError> =>
  patch(names).pipe(
    Effect.as<ReadonlyArray<Refusal>>([]),
    Effect.catchIf(
      ({ reason }) => isAboutContent(reason),
      (error) => {
        const [only] = names
        if (names.length === 1 && only !== undefined) {
          return Effect.succeed([{ name: only.name, reason: error.reason.detail }])
        }
        const middle = names.length >> 1
        return Effect.zipWith(
          send(names.slice(0, middle), patch),
          Effect.suspend(() => send(names.slice(middle), patch)),
          (first, second) => [...first, ...second]
        )
      }
    )
  )
