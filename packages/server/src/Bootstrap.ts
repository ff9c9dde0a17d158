/**
 * The first administrator's token, of a server that nobody could administer
 * otherwise: made once, at a start where neither the configuration nor the
 * registry nor an identity provider lets an administrator in.
 *
 * Promises: its text is printed once, on stderr and in no log line, and written
 * to a file of its owner's alone only where one is asked for; it is a token as
 * any other, to be seen, changed and revoked, and its making is in the audit.
 */
import { unlimited } from "@prism-dns/core/auth/Principal"
import { Tokens } from "@prism-dns/core/auth/Tokens"
import { Effect, Layer, Redacted } from "effect"
import type { SqlError } from "effect/sql"
import * as Fs from "node:fs"
import type { OidcConfig } from "./OidcConfig.ts"
import { StorageUnavailable } from "./ServerError.ts"

export interface BootstrapOptions {
  readonly oidc: OidcConfig | undefined
  /** Where its text is also written. */
  readonly tokenFile: string | undefined
  /** Default: stderr. */
  readonly print?: ((text: string) => void) | undefined
}

const admin = "admin"

/** Names that are tried: one that a revoked token had is never given anew. */
const namesMax = 100

const block = (name: string, token: string, file: string | undefined): string => `
${"=".repeat(72)}
  Nobody could administer this server yet, so that it made a token: ${name}

    ${token}

  It may everything, and is shown this once${file === undefined ? "" : `; it is also in ${file}`}. Keep it where secrets are kept, or
  make others by it and revoke it:

    export PRISM_TOKEN=...
    prism-dns tokens create YOUR-NAME "who has it" --admin
    prism-dns tokens revoke ${name} "there is another one"
${"=".repeat(72)}
`

/** A new file that its owner alone may read; one that stands there goes. */
const writeSecret = (path: string, text: string) =>
  Effect.try({
    try: () => {
      Fs.rmSync(path, { force: true })
      Fs.writeFileSync(path, `${text}\n`, { flag: "wx", mode: 0o600 })
    },
    catch: (error) => (error instanceof Error ? error.message : String(error))
  })

/** Makes the token where one is needed. */
export const make = Effect.fnUntraced(function* ({
  oidc,
  print = (text) => void process.stderr.write(text),
  tokenFile
}: BootstrapOptions) {
  const tokens = yield* Tokens
  if (oidc?.roles.some(({ role }) => role === admin) === true || (yield* tokens.hasGood(admin))) return
  const issue = (
    n: number
  ): Effect.Effect<
    Effect.Success<ReturnType<typeof tokens.issue>> | undefined,
    Effect.Error<ReturnType<typeof tokens.issue>> | SqlError.SqlError
  > =>
    tokens
      .issue(
        { name: n === 1 ? "first-admin" : `first-admin-${n}`, role: admin, allows: "bearer", grant: unlimited },
        { name: "prism", peer: undefined },
        "nobody could administer this server yet"
      )
      .pipe(
        Effect.catchTag("TokenNameTaken", (taken) =>
          Effect.flatMap(tokens.hasGood(admin), (hasOne) => {
            // Another server, which started together with this one, has made it, and printed it.
            if (hasOne) return Effect.undefined
            return n < namesMax ? issue(n + 1) : Effect.fail(taken)
          })
        )
      )
  const made = yield* issue(1)
  if (made === undefined) return
  const text = Redacted.value(made.token)
  let file = tokenFile
  if (file !== undefined) {
    yield* writeSecret(file, text).pipe(
      Effect.catch((reason) => {
        file = undefined
        return Effect.logError("the first administrator's token could not be written to its file").pipe(
          Effect.annotateLogs({ file: tokenFile, reason })
        )
      })
    )
  }
  print(block(made.record.name, text, file))
  yield* Effect.logWarning("nobody could administer this server yet: a token was made and printed on stderr").pipe(
    Effect.annotateLogs({ token: made.record.name })
  )
})

export const layer = (options: BootstrapOptions) =>
  Layer.effectDiscard(
    make(options).pipe(
      Effect.catchTags({
        RegistryUnavailable: ({ message }) =>
          Effect.fail(new StorageUnavailable({ storage: "the registry", detail: message })),
        TokenNameTaken: ({ message }) =>
          Effect.fail(new StorageUnavailable({ storage: "the registry", detail: message })),
        TooManyTokens: ({ message }) =>
          Effect.fail(new StorageUnavailable({ storage: "the registry", detail: message })),
        TokenSpecInvalid: Effect.die
      })
    )
  )
