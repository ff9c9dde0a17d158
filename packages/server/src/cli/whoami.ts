/** `prism-dns whoami`: whom the server takes us for. */
import { describe } from "@prism-dns/core/auth/Permissions"
import { Effect } from "effect"
import { Command } from "effect/cli"
import * as Connection from "./Connection.ts"
import * as Output from "./Output.ts"

export const whoami = Command.make(
  "whoami",
  Connection.flags,
  Effect.fn(function* (input) {
    yield* Connection.withClient(input, (client) =>
      Effect.flatMap(client.whoami.get(), (answer) =>
        input.json
          ? Output.json(answer)
          : Output.fields([
              ["name", answer.name],
              ["role", answer.role],
              ["known by", answer.kind === "oidc" ? "the identity provider" : undefined],
              ["token of", answer.origin],
              ["expires", answer.expiresAt],
              ["speaks from", answer.peer],
              ["roles", answer.roles.length === 0 ? "none" : answer.roles.join(", ")],
              ["only in", answer.zones?.join(", ")],
              ["only names", answer.names?.join(", ")],
              ...answer.permissions.map((permission) => ["may", describe(permission)] as const)
            ])
      )
    )
  })
).pipe(Command.withDescription("Whom the server takes us for, and what we may do."))
