/**
 * Bearer tokens, kept as SHA-256 hashes: the process forgets the text it was
 * given. A token has one role; an `admin` token is no `agent` token.
 *
 * Random tokens need no slow hash: there is nothing to guess.
 */
import { Context, Layer, Redacted } from "effect"
import { hash } from "node:crypto"

export type TokenRole = "agent" | "admin"

export interface TokenEntry {
  /** How its holder is called in the audit. */
  readonly name: string
  readonly token: Redacted.Redacted
  readonly role: TokenRole
}

/** Who holds a token. */
export interface TokenHolder {
  readonly name: string
  readonly role: TokenRole
}

export class Tokens extends Context.Service<
  Tokens,
  {
    /** The holder of `token` in this role, or undefined. */
    readonly verify: (token: string, role: TokenRole) => TokenHolder | undefined
  }
>()("@prism-dns/core/auth/Tokens") {
  static readonly layer = (entries: ReadonlyArray<TokenEntry>): Layer.Layer<Tokens> =>
    Layer.sync(Tokens, () => Tokens.of(make(entries)))
}

const make = (entries: ReadonlyArray<TokenEntry>): Tokens["Service"] => {
  // Looking a hash up by equality gives nothing away: an attacker cannot choose the hash's first bytes.
  const keyOf = (token: string, role: TokenRole) => `${role} ${hash("sha256", token, "base64")}`
  const holders = new Map<string, TokenHolder>(
    entries.map(({ name, role, token }) => [keyOf(Redacted.value(token), role), { name, role }])
  )
  return { verify: (token, role) => holders.get(keyOf(token, role)) }
}
