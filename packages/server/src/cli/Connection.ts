/**
 * The way of an administrative command to the server's API: where it is, the
 * token, and what to tell people when a request does not succeed.
 *
 * Promises: the token never appears in an error; every failure of a request is
 * one sentence with the next step (`RequestFailed`).
 */
import * as NodeHttpClient from "@effect/platform-node/NodeHttpClient"
import * as Client from "@prism-dns/core/api/Client"
import * as Problems from "@prism-dns/core/api/Problems"
import { Duration, Effect, Option, Redacted, Schema, Stream } from "effect"
import { Flag } from "effect/cli"
import { HttpClient, HttpClientError } from "effect/http"
import * as Fs from "node:fs"
import * as Failure from "./Failure.ts"

export const defaultServer = "http://127.0.0.1:8081"

/** The flags of every command that asks a server. */
export const flags = {
  server: Flag.String("server").pipe(
    Flag.withDescription(`The server's HTTP address. Default: PRISM_SERVER, else ${defaultServer}.`),
    Flag.withMetavar("URL"),
    Flag.optional
  ),
  token: Flag.Redacted("token").pipe(
    Flag.withDescription(
      "A token for the API. Other users of this machine can read it in the list of processes: PRISM_TOKEN or --token-file is better."
    ),
    Flag.withMetavar("TOKEN"),
    Flag.optional
  ),
  tokenFile: Flag.String("token-file").pipe(
    Flag.withDescription("A file that holds the token. Default: PRISM_TOKEN_FILE, and the token of PRISM_TOKEN."),
    Flag.withMetavar("FILE"),
    Flag.optional
  ),
  json: Flag.Boolean("json").pipe(
    Flag.withDescription("Print what the API answered, as JSON."),
    Flag.withDefault(false)
  )
}

export interface Options {
  readonly server: Option.Option<string>
  readonly token: Option.Option<Redacted.Redacted>
  readonly tokenFile: Option.Option<string>
}

const fromEnvironment = (name: string): Option.Option<string> =>
  Option.filter(Option.fromUndefinedOr(process.env[name]), (value) => value !== "")

const readToken = (path: string): Effect.Effect<Redacted.Redacted, Failure.FileUnusable | Failure.UsageWrong> =>
  Effect.flatMap(
    Effect.try({
      try: () => Fs.readFileSync(path, "utf8").trim(),
      catch: (error) => new Failure.FileUnusable({ path, detail: (error as Error).message })
    }),
    (token) =>
      token === ""
        ? Effect.fail(new Failure.UsageWrong({ detail: `there is no token in ${path}` }))
        : Effect.succeed(Redacted.make(token))
  )

/** A flag wins over the environment, a token itself over a file that holds one. */
const findToken = Effect.fnUntraced(function* ({ token, tokenFile }: Options) {
  if (Option.isSome(token)) return token.value
  if (Option.isSome(tokenFile)) return yield* readToken(tokenFile.value)
  const fromVariable = fromEnvironment("PRISM_TOKEN")
  if (Option.isSome(fromVariable)) return Redacted.make(fromVariable.value)
  const file = fromEnvironment("PRISM_TOKEN_FILE")
  if (Option.isSome(file)) return yield* readToken(file.value)
  return yield* new Failure.UsageWrong({
    detail:
      "no token: set PRISM_TOKEN, or name a file by --token-file. It is one of the server's auth.adminTokens, or the one that its first start has printed; " +
      "prism-dns dev keeps its own in the file admin-token of its data folder"
  })
})

const findServer = Effect.fnUntraced(function* ({ server }: Options) {
  const text = Option.getOrElse(
    Option.orElse(server, () => fromEnvironment("PRISM_SERVER")),
    () => defaultServer
  )
  if (!URL.canParse(text) || !/^https?:\/\//.test(text)) {
    return yield* new Failure.UsageWrong({
      detail: `the server '${text}' is no URL; --server and PRISM_SERVER are such as ${defaultServer}`
    })
  }
  return text.replace(/\/+$/, "")
})

/** Reading and comparing a whole zone of a million names takes PowerDNS a while. */
const requestTimeout = Duration.minutes(10)

const isProblem = Schema.is(
  Schema.Union([
    Problems.HostNotFound,
    Problems.ZoneNotFound,
    Problems.Forbidden,
    Problems.PreconditionRequired,
    Problems.PreconditionFailed,
    Problems.TooManyZones,
    Problems.ZoneInUse,
    Problems.ZoneConfigured,
    Problems.ZoneOverlaps,
    Problems.ZoneExists,
    Problems.PlanNotFound,
    Problems.RecordNotFound,
    Problems.EntryNotFound,
    Problems.RecordConflict,
    Problems.PlanDecided,
    Problems.PlanAltered,
    Problems.DeleteBudgetExceeded,
    Problems.GuardNotTripped,
    Problems.HostRetired,
    Problems.HostnameTaken,
    Problems.QuotaExceeded,
    Problems.ClaimRefused,
    Problems.TokenNotFound,
    Problems.TokenNameTaken,
    Problems.TokenRevoked,
    Problems.TokenConfigured,
    Problems.TooManyTokens,
    Problems.IdentityNotFound,
    Problems.PrincipalNotFound,
    Problems.RoleNotFound,
    Problems.RoleNameTaken,
    Problems.RoleBuiltIn,
    Problems.RoleInUse,
    Problems.TooManyRoles,
    Problems.Forbidden,
    Problems.PreconditionFailed,
    Problems.PreconditionRequired,
    Problems.IdentityRevoked,
    Problems.RequestInvalid,
    Problems.TokenInvalid,
    Problems.RateLimited,
    Problems.TooManySubscribers,
    Problems.WebhookNotFound,
    Problems.WebhookNameTaken,
    Problems.TooManyWebhooks,
    Problems.StorageUnavailable,
    Problems.PowerDnsFailed
  ])
)

/** The innermost reason of a connection that did not come about, such as ECONNREFUSED. */
const reasonOf = (error: unknown): string => {
  if (!(error instanceof Error)) return String(error)
  if ("code" in error && typeof error.code === "string") return error.code
  return error.cause === undefined ? error.message : reasonOf(error.cause)
}

/** The sentence for whatever a call of the client failed with. */
export const explain = (error: unknown, server: string): Failure.RequestFailed => {
  const failed = (detail: string) => new Failure.RequestFailed({ detail })
  if (isProblem(error)) {
    switch (error._tag) {
      case "TokenInvalid":
        return failed(
          `${server} does not take the token. Set PRISM_TOKEN or --token-file to one of its auth.adminTokens, or to one that was made (prism-dns tokens create).`
        )
      case "DeleteBudgetExceeded":
        return failed(
          `${error.detail}. Look at it (prism-dns plan show), then apply it with --override-budget REASON, or reject it.`
        )
      case "PlanAltered":
        return failed(`${error.detail} Make another one: prism-dns plan make ZONE.`)
      default:
        return failed(error.detail)
    }
  }
  if (HttpClientError.isHttpClientError(error)) {
    const response = error.response
    return response === undefined
      ? failed(
          `cannot reach the server at ${server} (${reasonOf(error.cause ?? error)}). ` +
            "Is it running there? --server or PRISM_SERVER says where it is."
        )
      : failed(
          `${server} answered with ${response.status} and not as this version expects. Is it a Prism server, of the same version?`
        )
  }
  return failed(`${server} answered in a way that this version does not understand. Is it of the same version?`)
}

/** Runs `use` with a client of the server that the flags and the environment name. */
export const withClient = <A, E, R>(options: Options, use: (client: Client.Client) => Effect.Effect<A, E, R>) =>
  connected(options, (client, server) =>
    use(client).pipe(
      Effect.timeoutOrElse({
        duration: requestTimeout,
        orElse: () =>
          Effect.fail(
            new Failure.RequestFailed({
              detail: `${server} did not answer within ${Duration.format(requestTimeout)}; what was asked of it may still happen`
            })
          )
      })
    )
  )

/** The same, for what goes on until somebody ends it. */
export const withClientForLong = <A, E, R>(options: Options, use: (client: Client.Client) => Effect.Effect<A, E, R>) =>
  connected(options, use)

/** What stands at `path`, piece by piece as it comes. */
export const download = <E, R>(
  options: Options,
  path: string,
  write: (chunk: Uint8Array) => Effect.Effect<void, E, R>
) =>
  Effect.gen(function* () {
    const server = yield* findServer(options)
    const token = yield* findToken(options)
    const headers = { authorization: `Bearer ${Redacted.value(token)}` }
    yield* Effect.gen(function* () {
      const response = yield* HttpClient.get(`${server}${path}`, { headers })
      if (response.status !== 200) {
        const body = yield* Effect.orElseSucceed(response.json, () => undefined)
        return yield* refusedBy(server, response.status, body)
      }
      yield* Stream.runForEach(response.stream, write)
    }).pipe(Effect.mapError((error) => (Failure.isFailure(error) ? error : explain(error, server))))
  }).pipe(Effect.provide(NodeHttpClient.layerNodeHttp))

/** What the server said instead. */
const refusedBy = (server: string, status: number, body: unknown): Failure.RequestFailed => {
  const detail =
    typeof body === "object" && body !== null && "detail" in body && typeof body.detail === "string"
      ? body.detail
      : `${server} answered with ${status}`
  return new Failure.RequestFailed({ detail })
}

const connected = <A, E, R>(options: Options, use: (client: Client.Client, server: string) => Effect.Effect<A, E, R>) =>
  Effect.gen(function* () {
    const server = yield* findServer(options)
    const token = yield* findToken(options)
    const client = yield* Client.make({ baseUrl: server, token })
    return yield* use(client, server).pipe(
      Effect.mapError((error) => (Failure.isFailure(error) ? error : explain(error, server)))
    )
  }).pipe(Effect.provide(NodeHttpClient.layerNodeHttp))
