/** Why a token is not taken. Apart from `Tokens`, so that it can be known without a database. */
import { Schema } from "effect"
import { tokenCodes } from "./RefusalCode.ts"

/** The token is no good here. `code` is stable. */
export class TokenRefused extends Schema.TaggedError<TokenRefused>()("TokenRefused", {
  code: Schema.Literals(tokenCodes),
  message: Schema.String
}) {}
