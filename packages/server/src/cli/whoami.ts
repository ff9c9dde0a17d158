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
              ["kind", answer.kind === "token" ? `token (${answer.role ?? "unknown"})` : answer.kind],
              ["roles", answer.roles.length === 0 ? "none" : answer.roles.join(", ")],
              ...answer.permissions.map((permission) => ["may", describe(permission)] as const),
              ["only in", answer.zones?.join(", ")],
              ["only names", answer.names?.join(", ")],
              ["token of", answer.origin],
              ["expires", answer.expiresAt],
              ["speaks from", answer.peer]
            ])
      )
    )
  })
).pipe(Command.withDescription("Whom the server takes us for, and what we may do."))
