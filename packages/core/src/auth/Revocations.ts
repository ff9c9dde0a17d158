/**
 * Tells live sessions that their principal may not go on: its key or token was
 * revoked, its certificate is on the revocation list.
 *
 * In memory and of this process only: what is revoked is refused by the
 * database at the next hello in any case. To be announced after the commit.
 */
import { Context, Layer } from "effect"

export interface Revocation {
  /** The principal's name: whoever speaks in it is ended. */
  readonly principal: string
  /** Of a certificate, its fingerprint: whoever came with another of the same name goes on. */
  readonly certificate?: string
  /** Stable: `identity-revoked`, `token-revoked`, `token-expired`, `certificate-revoked`. */
  readonly code: string
  /** A sentence for people. */
  readonly message: string
}

export class Revocations extends Context.Service<
  Revocations,
  {
    readonly announce: (revocation: Revocation) => void
    /** Calls `listener` for each one from now on; the result takes it back. */
    readonly listen: (listener: (revocation: Revocation) => void) => () => void
  }
>()("@prism-dns/core/auth/Revocations") {
  static readonly layer: Layer.Layer<Revocations> = Layer.sync(Revocations, () => {
    const listeners = new Set<(revocation: Revocation) => void>()
    return Revocations.of({
      announce: (revocation) => listeners.forEach((listener) => listener(revocation)),
      listen: (listener) => {
        listeners.add(listener)
        return () => void listeners.delete(listener)
      }
    })
  })
}
