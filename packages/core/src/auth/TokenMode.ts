/**
 * Who speaks by protocol 1.0: a decision over the message's token and the
 * configured mode. What the speaker may claim is decided by `auth/Policy`.
 */
import { Schema } from "effect"
import { anonymous, type Principal } from "./Principal.ts"
import { tokenCodes } from "./RefusalCode.ts"
import { TokenRefused } from "./TokenRefused.ts"
import type { Tokens } from "./Tokens.ts"

/** `required`: a valid token in every message. `optional`: without one only in a stated zone and rate. `off`: tokens are not looked at. */
export const tokenModes = ["off", "optional", "required"] as const
export type TokenMode = (typeof tokenModes)[number]

/** Nobody may speak like this. `code` is stable; a retry does not help. */
export class NotAllowed extends Schema.TaggedError<NotAllowed>()("NotAllowed", {
  code: Schema.Literals(tokenCodes),
  message: Schema.String
}) {}

/** Who is speaking, or why nobody may. */
export const identify = (
  mode: TokenMode,
  tokens: Tokens["Service"],
  token: string | undefined
): Principal | NotAllowed => {
  if (mode === "off") return anonymous
  if (token === undefined) {
    return mode === "optional"
      ? anonymous
      : new NotAllowed({ code: "token-missing", message: "auth_token is required" })
  }
  const holder = tokens.verify(token, "agent")
  return holder instanceof TokenRefused
    ? new NotAllowed({ code: holder.code, message: holder.message })
    : { name: holder.name, kind: "token", anonymous: false, actsFor: [], grant: holder.grant }
}
