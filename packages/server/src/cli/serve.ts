/** `prism-dns serve`: the production server, which is loaded only here: commands that ask one start without it. */
import { Context, Duration, Effect, Layer, Option, Redacted } from "effect"
import { Command } from "effect/cli"
import type { NodeApi, PrismConfig } from "../Config.ts"
import * as Logging from "@prism-dns/core/logging/Logging"
import type { Running } from "../Server.ts"
import * as Failure from "./Failure.ts"
import * as Flags from "./flags.ts"
import * as Ready from "./Ready.ts"

/** How long a node may take to answer before we start without it. */
const preflightTimeout = "3 seconds"

/**
 * Asks each node once. A wrong key is a mistake that only a person can mend, so the server does not start; a node that
 * does not answer may come back, so it does.
 */
const preflight = (name: string, api: NodeApi) =>
  Effect.tryPromise((signal) =>
    fetch(`${api.url}/api/v1/servers/localhost`, {
      headers: { "X-API-Key": Redacted.value(api.key) },
      redirect: "manual", // else the key would go wherever the answer says
      signal
    })
  ).pipe(
    Effect.timeout(preflightTimeout),
    Effect.matchEffect({
      onFailure: () =>
        Effect.logWarning(
          `PowerDNS ${name} does not answer at ${api.url}; registrations are accepted and published once it does`
        ),
      onSuccess: (response) =>
        response.status === 401 || response.status === 403
          ? Effect.fail(new Failure.ApiKeyWrong({ node: name, api: api.url }))
          : Effect.void
    })
  )

const ready = (config: PrismConfig, running: Running["Service"]): Ready.Ready => {
  const { adminTokens, agentTokens } = config.auth
  return {
    pid: process.pid,
    ...(running.tcp !== undefined && { tcp: running.tcp }),
    ...(running.tls !== undefined && { tls: running.tls }),
    http: running.http,
    dns: config.powerdns.primaries[0].dns,
    powerdns: {
      url: config.powerdns.primaries[0].api.url,
      apiKey: Redacted.value(config.powerdns.primaries[0].api.key)
    },
    zones: config.zones.map((zone) => zone.name),
    ...(adminTokens[0] !== undefined && { adminToken: Redacted.value(adminTokens[0].token) }),
    ...(agentTokens[0] !== undefined && { agentToken: Redacted.value(agentTokens[0].token) })
  }
}

/** Beyond the time that the parts have to end in order. */
const endGraceMillis = 5000

/**
 * Ends the process when its parts do not: one that waits for a database which never answers would wait for ever. What
 * was answered with success is stored by then.
 */
const endInTime = (config: PrismConfig) =>
  Effect.sync(() => {
    const millis =
      Duration.toMillis(config.server.drainDelay) + Duration.toMillis(config.server.shutdownTimeout) + endGraceMillis
    setTimeout(() => {
      process.stderr.write(`prism-dns: the server did not end within ${millis / 1000} s and was stopped.\n`)
      process.exit(Failure.exitCodes.failed)
    }, millis).unref()
  })

/**
 * SIGHUP has the files of TLS read anew (`tcp/Tls.ts`), and of the configuration the log level; whatever else changed
 * there waits for the next start. It must not end the process, as it would by default.
 */
const heedHangup = (load: Effect.Effect<{ readonly config: PrismConfig }, Error>, level: Logging.Level) =>
  Effect.acquireRelease(
    Effect.map(Effect.context(), (context: Context.Context<never>) => {
      const reload = Effect.match(load, {
        onFailure: (error) => Effect.logWarning("the configuration is not read anew", { reason: error.message }),
        onSuccess: ({ config }) =>
          Effect.suspend(() => {
            const former = level.current
            level.current = config.server.logLevel
            return former === level.current
              ? Effect.void
              : Effect.logInfo("the log level has changed", {
                  from: former.toLowerCase(),
                  to: level.current.toLowerCase()
                })
          })
      }).pipe(Effect.flatten)
      const onHangup = () => void Effect.runForkWith(context)(reload)
      process.on("SIGHUP", onHangup)
      return onHangup
    }),
    (onHangup) => Effect.sync(() => process.off("SIGHUP", onHangup))
  )

const run = Effect.fnUntraced(function* (config: PrismConfig, readyFile: Option.Option<string>) {
  if (Option.isSome(readyFile)) yield* Ready.remove(readyFile.value)
  if (config.auth.mode === "required" && config.auth.agentTokens.length === 0) {
    yield* Effect.logWarning(
      "auth.mode is required and auth.agentTokens is empty: every registration is refused; name a token, or set auth.mode"
    )
  }
  yield* Effect.forEach(
    config.powerdns.nodes,
    ({ api, name }) => (api === undefined ? Effect.void : preflight(name, api)),
    { concurrency: "unbounded", discard: true }
  )
  const Server = yield* Effect.promise(() => import("../Server.ts"))
  const running = Context.get(yield* Layer.build(Server.layer(config)), Server.Running)
  yield* Effect.addFinalizer(() => endInTime(config))
  yield* Effect.logInfo("running", {
    ...(running.tcp !== undefined && { tcp: `${running.tcp.host}:${running.tcp.port}` }),
    ...(running.tls !== undefined && { tls: `${running.tls.host}:${running.tls.port}` }),
    http: running.http.url
  })
  if (Option.isSome(readyFile)) {
    const content = ready(config, running)
    yield* Ready.awaitAnswers(content)
    yield* Ready.write(readyFile.value, content)
  }
  return yield* Effect.never
}, Effect.scoped)

export const serve = Command.make(
  "serve",
  { config: Flags.configFile, readyFile: Flags.readyFile, flags: Flags.settingFlags() },
  Effect.fn(function* (input) {
    const { config } = yield* Flags.load(input)
    const level = new Logging.Level(config.server.logLevel)
    yield* heedHangup(Flags.load(input), level).pipe(
      Effect.andThen(run(config, input.readyFile)),
      Effect.scoped,
      Effect.provide(Logging.layer({ ...config.server, logLevel: level }))
    )
  })
).pipe(Command.withDescription("Run the server."))
