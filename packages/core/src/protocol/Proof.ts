/**
 * Proof of a key: what an agent signs, and how it is checked. Ed25519
 * (RFC 8032), by `node:crypto`; keys and signatures as base64url on the wire.
 *
 * What is signed names its purpose, the server's nonce and the channel, so a
 * proof is good once, on one connection, for one purpose. On TLS the channel is
 * its exporter (RFC 9266, `tls-exporter`): a proof that someone relays over
 * another TLS connection fails. On plain TCP there is nothing to bind to, and
 * whoever stands in the middle can relay.
 */
import * as Crypto from "node:crypto"

/** What a proof is for. */
export type Purpose = "key" | "enrol" | "rotate" | "rotate-new"

export interface Claim {
  readonly purpose: Purpose
  /** The server's nonce of this connection, as it came. */
  readonly nonce: string
  /** The key that is proven; for `rotate` the new one that the old one vouches for. */
  readonly publicKey: string
  /** `channelBinding` of the TLS connection; undefined on plain TCP. */
  readonly channel: Uint8Array | undefined
}

/** Label and length of the TLS exporter that stands for a channel (RFC 9266, 2). */
export const exporterLabel = "EXPORTER-Channel-Binding"
export const exporterBytes = 32

const signedBytes = ({ channel, nonce, publicKey, purpose }: Claim): Uint8Array =>
  Buffer.from(
    [
      "prism-dns/2",
      purpose,
      nonce,
      publicKey,
      channel === undefined ? "plain" : Buffer.from(channel).toString("base64url")
    ].join("\n")
  )

/** The key object of a public key as it stands on the wire. Throws when it is none. */
export const importPublicKey = (publicKey: string): Crypto.KeyObject =>
  Crypto.createPublicKey({ key: { kty: "OKP", crv: "Ed25519", x: publicKey }, format: "jwk" })

/** A public key as it stands on the wire, of a private or public key object. */
export const exportPublicKey = (key: Crypto.KeyObject): string =>
  (key.type === "private" ? Crypto.createPublicKey(key) : key).export({ format: "jwk" }).x as string

/** The signature of a claim, as it stands on the wire. */
export const sign = (claim: Claim, privateKey: Crypto.KeyObject): string =>
  Crypto.sign(null, signedBytes(claim), privateKey).toString("base64url")

/** True when `signature` proves `claim` with `by`, by default the claim's own key. */
export const verify = (claim: Claim, signature: string, by: string = claim.publicKey): boolean => {
  try {
    return Crypto.verify(null, signedBytes(claim), importPublicKey(by), Buffer.from(signature, "base64url"))
  } catch {
    return false // no point on the curve
  }
}

/** A new nonce: 32 random bytes in base64url. */
export const makeNonce = (): string => Crypto.randomBytes(32).toString("base64url")

/** What people compare of a key: the first 16 characters of the SHA-256 of it, in hexadecimal. */
export const fingerprint = (publicKey: string): string =>
  Crypto.hash("sha256", Buffer.from(publicKey, "base64url"), "hex").slice(0, 16)
