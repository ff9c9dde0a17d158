/** `prism-dns whoami`: whom the server takes us for. */
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
              ["token of", answer.origin],
              ["expires", answer.expiresAt],
              ["speaks from", answer.peer]
            ])
      )
    )
  })
).pipe(Command.withDescription("Whom the server takes us for."))
