/**
 * A real redis-server with the configuration and the access list of `deploy/`,
 * on a free port of 127.0.0.1.
 *
 * Promises: Prism's user has the rights that are given there and no more;
 * `kill` and `start` again on the same port; frozen it takes connections and
 * answers nothing; gone with the scope.
 */
import { Effect, type Scope } from "effect"
import * as ChildProcess from "node:child_process"
import * as Crypto from "node:crypto"
import * as Fs from "node:fs"
import { tmpdir } from "node:os"
import * as Path from "node:path"
import { freePort } from "./ports.ts"
import { environment, run } from "./Postgres.ts"
import { waitUntil } from "./waitUntil.ts"

export interface Options {
  /** Files in PEM: it then takes no connection without TLS. `ca` is whom redis-cli trusts. */
  readonly tls?: { readonly certificate: string; readonly key: string; readonly ca: string }
  /** Lines of its configuration, after those of `deploy/`. */
  readonly more?: ReadonlyArray<string>
}

export interface Redis {
  readonly port: number
  /** Of the user that Prism has, with the password. */
  readonly url: string
  readonly password: string
  readonly start: Effect.Effect<void>
  readonly kill: Effect.Effect<void>
  readonly freeze: Effect.Effect<void>
  readonly thaw: Effect.Effect<void>
  /** What redis-cli says to it, as a user who may do anything. */
  readonly ask: (...words: ReadonlyArray<string>) => Effect.Effect<string>
  /** The same as Prism's user; a refusal is what it says. */
  readonly askAsPrism: (...words: ReadonlyArray<string>) => Effect.Effect<string>
  /** The same as whom these arguments of redis-cli name, with another password; without one where it is empty. */
  readonly askAs: (
    user: ReadonlyArray<string>,
    password: string
  ) => (...words: ReadonlyArray<string>) => Effect.Effect<string>
}

const deployed = Path.resolve(import.meta.dirname, "../../../server/deploy/redis")
const password = "secret-of-redis"
const administrator = "administrator"

/** Where and as whom Prism finds it. */
export const urlOf = (address: string, port: number, scheme: "redis" | "rediss" = "redis") =>
  `${scheme}://prism:${password}@${address}:${port}`

/** As redis-cli takes the password: where nobody sees it. */
export const administration = {
  arguments: ["--user", administrator, "--no-auth-warning"],
  environment: { ...environment, REDISCLI_AUTH: password }
}

/** Writes the files of `deploy/` with an address of this machine and a password; gives the path of the configuration. */
export const configure = (
  folder: string,
  at: { readonly address: string; readonly port: number },
  options: Options = {}
): string => {
  const digest = Crypto.createHash("sha256").update(password).digest("hex")
  const list = Fs.readFileSync(Path.join(deployed, "users.acl"), "utf8")
  const allowed = list.replace("PUT-THE-SHA256-OF-ITS-PASSWORD-HERE", digest)
  if (allowed === list) throw new Error("users.acl has no place for the password")
  const users = Path.join(folder, "users.acl")
  Fs.writeFileSync(users, `${allowed}user ${administrator} on #${digest} allkeys allchannels +@all\n`)
  let text = Fs.readFileSync(Path.join(deployed, "redis.conf"), "utf8")
  const { tls } = options
  const replace = (from: string | RegExp, to: string) => {
    const before = text
    text = text.replace(from, to)
    if (text === before) throw new Error(`redis.conf has no ${String(from)}`)
  }
  replace("bind 192.0.2.40", `bind ${at.address}`)
  replace("/etc/redis/users.acl", users)
  replace("/var/lib/redis", folder)
  if (tls === undefined) {
    replace(/^port 0\ntls-port 6379$/m, `port ${at.port}\ntls-port 0`)
    replace(/^tls-cert-file .*\ntls-key-file .*\n/m, "")
  } else {
    replace("tls-port 6379", `tls-port ${at.port}`)
    replace("/etc/redis/tls/redis.crt", tls.certificate)
    replace("/etc/redis/tls/redis.key", tls.key)
  }
  const file = Path.join(folder, "redis.conf")
  Fs.writeFileSync(file, [text, ...(options.more ?? []), ""].join("\n"))
  return file
}

export const makeWith = Effect.fnUntraced(function* (options: Options): Effect.fn.Return<Redis, never, Scope.Scope> {
  const folder = yield* Effect.acquireRelease(
    Effect.sync(() => Fs.mkdtempSync(Path.join(tmpdir(), "prism-redis-"))),
    (folder) => Effect.sync(() => Fs.rmSync(folder, { recursive: true, force: true }))
  )
  const port = yield* freePort
  const file = configure(folder, { address: "127.0.0.1", port }, options)
  let child: ChildProcess.ChildProcess | undefined
  const killAtExit = () => void child?.kill("SIGKILL")
  yield* Effect.acquireRelease(
    Effect.sync(() => process.on("exit", killAtExit)),
    () => Effect.sync(() => process.off("exit", killAtExit))
  )
  const { tls } = options
  const where = ["-p", `${port}`, ...(tls === undefined ? [] : ["--tls", "--cacert", tls.ca])]
  const askAs: Redis["askAs"] =
    (user, password) =>
    (...words) => {
      const env = password === "" ? environment : { ...environment, REDISCLI_AUTH: password }
      return Effect.map(run("redis-cli", [...where, ...user, ...words], { env }), (said) => said.trim())
    }
  const ask = askAs(administration.arguments, password)
  const kill = Effect.callback<void>((resume) => {
    if (child === undefined || child.exitCode !== null || child.signalCode !== null) return resume(Effect.void)
    child.once("exit", () => resume(Effect.void))
    child.kill("SIGKILL")
  })
  const start = Effect.gen(function* () {
    child = ChildProcess.spawn("redis-server", [file], { env: environment, stdio: "ignore" })
    yield* waitUntil(`Redis answers on port ${port}`, ask("ping"), (said) => said === "PONG", { within: "10 seconds" })
  })
  yield* Effect.addFinalizer(() => kill)
  yield* start
  const signal = (name: NodeJS.Signals) => Effect.sync(() => void child?.kill(name))
  return {
    port,
    password,
    url: urlOf("127.0.0.1", port, tls === undefined ? "redis" : "rediss"),
    start,
    kill,
    freeze: signal("SIGSTOP"),
    thaw: signal("SIGCONT"),
    ask,
    askAsPrism: askAs(["--user", "prism", "--no-auth-warning"], password),
    askAs
  }
})

/** Without TLS. */
export const make: Effect.Effect<Redis, never, Scope.Scope> = makeWith({})
