/** `prism-dns backup` and `prism-dns restore`: the registry as a file. For SQLite; PostgreSQL has its own tools. */
import { Clock, Effect, Option } from "effect"
import { Argument, Command, Flag } from "effect/cli"
import type { PrismConfig } from "../Config.ts"
import * as PostgresUrl from "../database/PostgresUrl.ts"
import * as Failure from "./Failure.ts"
import * as Flags from "./flags.ts"
import * as Output from "./Output.ts"

const input = {
  config: Flags.configFile,
  storage: Flag.String("registry").pipe(
    Flag.withDescription("The registry's file. Default: that of storage.url in the configuration."),
    Flag.withMetavar("PATH"),
    Flag.optional
  ),
  json: Flag.Boolean("json").pipe(Flag.withDescription("Print what was done as JSON."), Flag.withDefault(false))
}

const fileOf = ({ storage }: PrismConfig) => {
  const { url } = storage
  if (url._tag === "Sqlite" && url.filename !== ":memory:") return Effect.succeed(url.filename)
  return Effect.fail(
    new Failure.UsageWrong({
      detail:
        url._tag === "Sqlite"
          ? "a registry in memory has no file"
          : `the registry is in ${PostgresUrl.describe(url)}, which has its own tools: ` +
            "pg_dump --format=custom --file=FILE URL while the server runs, and pg_restore (docs/guides/backup.md)"
    })
  )
}

/** The registry's file, by flag or by the configuration. */
const findFile = Effect.fnUntraced(function* (given: {
  readonly config: Option.Option<string>
  readonly storage: Option.Option<string>
}) {
  if (Option.isSome(given.storage)) return given.storage.value
  const { config } = yield* Flags.load({ config: given.config, flags: {} })
  return yield* fileOf(config)
})

const asFailure = <A, E, R>(effect: Effect.Effect<A, E, R>) =>
  Effect.mapError(effect, (error) =>
    error instanceof Object && "_tag" in error && error._tag === "RegistryFileUnusable" && "path" in error
      ? new Failure.RequestFailed({ detail: `${(error as unknown as Error).message}.` })
      : error
  )

const sizeOf = (bytes: number): string => `${(bytes / 1_048_576).toFixed(1)} MiB`

export const backup = Command.make(
  "backup",
  {
    ...input,
    to: Argument.String("file").pipe(Argument.withDescription("The backup's file. It must not exist yet."))
  },
  Effect.fn(function* ({ json, to, ...given }) {
    const source = yield* findFile(given)
    const RegistryFile = yield* Effect.promise(() => import("./RegistryFile.ts"))
    const contents = yield* asFailure(RegistryFile.copy(source, to))
    if (json) return yield* Output.json({ file: to, registry: source, ...contents })
    yield* Output.fields([
      ["backup", to],
      ["registry", source],
      ["size", sizeOf(contents.bytes)],
      ["hosts", contents.hosts],
      ["schema", contents.schema]
    ])
  })
).pipe(
  Command.withDescription(
    "Copy the registry to a file, as it is at this moment; the server may run. The file holds hashes of tokens and keys of webhooks: keep it as you keep those."
  )
)

export const restore = Command.make(
  "restore",
  {
    ...input,
    from: Argument.String("file").pipe(Argument.withDescription("The backup's file.")),
    replace: Flag.Boolean("replace").pipe(
      Flag.withDescription("Move a registry that is there aside."),
      Flag.withDefault(false)
    )
  },
  Effect.fn(function* ({ from, json, replace, ...given }) {
    const target = yield* findFile(given)
    const RegistryFile = yield* Effect.promise(() => import("./RegistryFile.ts"))
    const nowMillis = yield* Clock.currentTimeMillis
    const done = yield* asFailure(RegistryFile.putBack(from, target, { replace, nowMillis }))
    if (json) return yield* Output.json({ registry: target, file: from, ...done })
    yield* Output.fields([
      ["registry", target],
      ["from", from],
      ["hosts", done.hosts],
      ["schema", done.schema],
      ["what was there", done.movedTo]
    ])
    yield* Output.note("Start the server: hosts that came since then register again with their next beat.")
  })
).pipe(Command.withDescription("Put a backup in the registry's place; no server may run on it."))
