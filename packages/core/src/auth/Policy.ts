/**
 * Who may register by protocol 1.0: a decision over the message's token, the
 * configured mode and the rate left for those without one.
 */
import { Schema } from "effect"
import type { DomainName } from "../domain/DomainName.ts"
import { anonymous, type Registrant } from "../registry/Decision.ts"
import type { Tokens } from "./Tokens.ts"

/** `required`: a valid token in every message. `optional`: without one only in a stated zone and rate. `off`: tokens are not looked at. */
export const tokenModes = ["off", "optional", "required"] as const
export type TokenMode = (typeof tokenModes)[number]

export interface PolicyOptions {
  readonly mode: TokenMode
  readonly anonymous: {
    /** The only zone that hosts without a token may be in; undefined for the default zone. */
    readonly zone: DomainName | undefined
    /** Changes a second without a token, and how many may come at once. Beats that change nothing do not count. */
    readonly ratePerSecond: number
    readonly burst: number
  }
}

/** The registration is not allowed. `code` is stable; a retry helps only after `retryAfterSeconds`, if at all. */
export class NotAllowed extends Schema.TaggedError<NotAllowed>()("NotAllowed", {
  code: Schema.Literals(["token-missing", "token-invalid", "zone-not-allowed", "rate-limited"]),
  message: Schema.String,
  retryAfterSeconds: Schema.optionalKey(Schema.Finite)
}) {}

/** Who is speaking, or why nobody may. */
export const identify = (
  mode: TokenMode,
  tokens: Tokens["Service"],
  token: string | undefined
): Registrant | NotAllowed => {
  if (mode === "off") return anonymous
  if (token === undefined) {
    return mode === "optional"
      ? anonymous
      : new NotAllowed({ code: "token-missing", message: "auth_token is required" })
  }
  const holder = tokens.verify(token, "agent")
  return holder === undefined
    ? new NotAllowed({ code: "token-invalid", message: "auth_token is not valid" })
    : { name: holder.name, anonymous: false }
}

/** A rate with a burst: each permit taken comes back after 1 / `ratePerSecond`. */
export class TokenBucket {
  readonly #ratePerMilli: number
  readonly #burst: number
  #permits: number
  #atMillis: number

  constructor(ratePerSecond: number, burst: number, nowMillis: number) {
    this.#ratePerMilli = ratePerSecond / 1000
    this.#burst = burst
    this.#permits = burst
    this.#atMillis = nowMillis
  }

  /** Takes one permit; the seconds to wait when there is none, else 0. */
  take(nowMillis: number): number {
    // A clock that goes back gives nothing.
    const elapsed = Math.max(0, nowMillis - this.#atMillis)
    this.#atMillis = nowMillis
    this.#permits = Math.min(this.#burst, this.#permits + elapsed * this.#ratePerMilli)
    if (this.#permits >= 1) {
      this.#permits -= 1
      return 0
    }
    return (1 - this.#permits) / this.#ratePerMilli / 1000
  }

  /** Returns a permit that was taken and not needed. */
  giveBack(): void {
    this.#permits = Math.min(this.#burst, this.#permits + 1)
  }
}
