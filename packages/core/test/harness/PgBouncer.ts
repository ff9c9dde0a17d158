/**
 * A real pgbouncer before a PostgreSQL of the harness. In transaction mode a
 * connection to it has a connection to PostgreSQL only while a transaction runs,
 * and another one for the next; in session mode it has one until it is closed.
 *
 * Promises: on a free port of 127.0.0.1, without password; few connections to
 * PostgreSQL unless more are asked for, so that they do change hands; gone with
 * the scope.
 */
import { Effect, type Scope } from "effect"
import * as ChildProcess from "node:child_process"
import * as Fs from "node:fs"
import { connect, type NetConnectOpts } from "node:net"
import { tmpdir } from "node:os"
import * as Path from "node:path"
import { freePort } from "./ports.ts"
import { environment, identity, user } from "./Postgres.ts"
import { waitUntil } from "./waitUntil.ts"

export interface PgBouncer {
  readonly host: string
  readonly port: number
  /** `postgres://prism@127.0.0.1:PORT/DATABASE` */
  readonly urlOf: (database: string) => string
  /** Has it speak to another PostgreSQL; those who are connected stay. */
  readonly moveTo: (target: { readonly host: string; readonly port: number }) => Effect.Effect<void>
  readonly kill: Effect.Effect<void>
}

const program = () => {
  const found = [...(process.env["PATH"] ?? "").split(":"), "/usr/sbin"].find((folder) =>
    Fs.existsSync(`${folder}/pgbouncer`)
  )
  if (found === undefined) {
    throw new Error(
      "pgbouncer is not installed. Debian/Ubuntu: apt-get install pgbouncer; macOS: brew install pgbouncer."
    )
  }
  return `${found}/pgbouncer`
}

const canConnect = (at: NetConnectOpts) =>
  Effect.callback<boolean>((resume) => {
    const socket = connect(at)
    socket.once("connect", () => resume(Effect.succeed(true)))
    socket.once("error", () => resume(Effect.succeed(false)))
    return Effect.sync(() => socket.destroy())
  })

/** Runs it with this file until the scope ends, and waits until it listens there. */
export const serve = Effect.fnUntraced(function* (
  file: string,
  at: { readonly host: string; readonly port: number } | { readonly path: string }
): Effect.fn.Return<{ readonly reload: Effect.Effect<void>; readonly kill: Effect.Effect<void> }, never, Scope.Scope> {
  const child = ChildProcess.spawn(program(), [file], {
    ...identity(),
    cwd: Path.dirname(file),
    env: environment,
    stdio: "ignore"
  })
  const isRunning = () => child.exitCode === null && child.signalCode === null
  const kill = Effect.callback<void>((resume) => {
    if (!isRunning()) return resume(Effect.void)
    child.once("exit", () => resume(Effect.void))
    child.kill("SIGKILL")
  })
  yield* Effect.addFinalizer(() => kill)
  const killAtExit = () => void child.kill("SIGKILL")
  yield* Effect.acquireRelease(
    Effect.sync(() => process.on("exit", killAtExit)),
    () => Effect.sync(() => process.off("exit", killAtExit))
  )
  const place = "path" in at ? at.path : `port ${at.port}`
  yield* waitUntil(`pgbouncer answers at ${place}`, canConnect(at), (answers) => answers, { within: "10 seconds" })
  return { reload: Effect.sync(() => void child.kill("SIGHUP")), kill }
})

export interface Options {
  /** For how long a connection to PostgreSQL is lent. Default transaction. */
  readonly mode?: "session" | "transaction"
  /** To PostgreSQL, for each database. Default 4. */
  readonly connections?: number
}

export const make = Effect.fnUntraced(function* (
  target: { readonly host: string; readonly port: number },
  options: Options = {}
): Effect.fn.Return<PgBouncer, never, Scope.Scope> {
  const as = identity()
  const folder = yield* Effect.acquireRelease(
    Effect.sync(() => Fs.mkdtempSync(Path.join(tmpdir(), "prism-pgbouncer-"))),
    (folder) => Effect.sync(() => Fs.rmSync(folder, { recursive: true, force: true }))
  )
  if (as.uid !== undefined) Fs.chownSync(folder, as.uid, as.gid!)
  const port = yield* freePort
  const configure = (to: { readonly host: string; readonly port: number }) => {
    Fs.writeFileSync(Path.join(folder, "users"), `"${user}" ""\n`)
    Fs.writeFileSync(
      Path.join(folder, "pgbouncer.ini"),
      `[databases]
* = host=${to.host} port=${to.port} user=${user}
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = ${port}
unix_socket_dir =
auth_type = any
auth_file = ${folder}/users
pool_mode = ${options.mode ?? "transaction"}
default_pool_size = ${options.connections ?? 4}
max_client_conn = 500
server_login_retry = 0.2
ignore_startup_parameters = extra_float_digits
logfile = ${folder}/log
`
    )
  }
  configure(target)
  const { kill, reload } = yield* serve(Path.join(folder, "pgbouncer.ini"), { host: "127.0.0.1", port })
  return {
    host: "127.0.0.1",
    port,
    urlOf: (database) => `postgres://${user}@127.0.0.1:${port}/${database}`,
    moveTo: (to) =>
      Effect.andThen(
        Effect.sync(() => configure(to)),
        reload
      ),
    kill
  }
})
