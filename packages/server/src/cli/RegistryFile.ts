/**
 * A registry in SQLite as a file: copied while the server works on it, and put
 * back while none does.
 *
 * Promises: a copy is true of one moment, is synced and checked before it has
 * its name, and is readable by its owner alone; putting one back never destroys
 * what was there before: that is moved aside. Leaves to others: PostgreSQL,
 * which has its own tools (docs/guides/backup.md).
 */
import { Effect, Schema } from "effect"
import * as Fs from "node:fs"
import * as Path from "node:path"
import { DatabaseSync } from "node:sqlite"
import { migrationsTable, newerThanKnown } from "../Database.ts"

/** The file cannot be copied or put back. `detail` says why, and what to do. */
export class RegistryFileUnusable extends Schema.TaggedError<RegistryFileUnusable>()("RegistryFileUnusable", {
  path: Schema.String,
  detail: Schema.String
}) {
  override get message(): string {
    return `${this.path}: ${this.detail}`
  }
}

/** What is in a registry's file. */
export interface Contents {
  readonly schema: number
  readonly hosts: number
  readonly bytes: number
}

const messageOf = (error: unknown): string => (error instanceof Error ? error.message : String(error))

const attempt = <A>(path: string, f: () => A): Effect.Effect<A, RegistryFileUnusable> =>
  Effect.try({
    try: f,
    catch: (error) =>
      error instanceof RegistryFileUnusable ? error : new RegistryFileUnusable({ path, detail: messageOf(error) })
  })

const numberOf = (db: DatabaseSync, statement: string): number => {
  const row = db.prepare(statement).get() as { readonly n: number | null } | undefined
  return row?.n ?? 0
}

/** Reads the file whole: that it is a registry, of a schema that we know, without a fault. */
const examine = (path: string): Contents => {
  if (!Fs.existsSync(path)) throw new RegistryFileUnusable({ path, detail: "there is no such file" })
  const db = new DatabaseSync(path, { readOnly: true })
  try {
    const check = db.prepare("PRAGMA integrity_check(1)").get() as { readonly integrity_check: string } | undefined
    if (check?.integrity_check !== "ok") {
      throw new RegistryFileUnusable({
        path,
        detail: `it is damaged: ${check?.integrity_check ?? "it cannot be read"}`
      })
    }
    const isRegistry =
      numberOf(
        db,
        `SELECT COUNT(*) AS n FROM sqlite_master WHERE type = 'table' AND name IN ('${migrationsTable}', 'host')`
      ) === 2
    if (!isRegistry)
      throw new RegistryFileUnusable({ path, detail: "it is a SQLite database, but no registry of Prism DNS" })
    const schema = numberOf(db, `SELECT MAX(migration_id) AS n FROM ${migrationsTable}`)
    return { schema, hosts: numberOf(db, "SELECT COUNT(*) AS n FROM host"), bytes: Fs.statSync(path).size }
  } finally {
    db.close()
  }
}

const sync = (path: string): void => {
  const file = Fs.openSync(path, "r")
  try {
    Fs.fsyncSync(file)
  } finally {
    Fs.closeSync(file)
  }
}

/** Creates `path` for its owner alone and empty, so that nobody else can have opened it before. */
const createPrivate = (path: string): void => Fs.closeSync(Fs.openSync(path, "wx", 0o600))

/**
 * Copies the registry at `source` to `target` as it is at this moment. The server may work on it meanwhile and is not
 * held up. A `target` that exists is left alone.
 */
export const copy = (source: string, target: string): Effect.Effect<Contents, RegistryFileUnusable> =>
  attempt(target, () => {
    if (!Fs.existsSync(source)) throw new RegistryFileUnusable({ path: source, detail: "there is no such registry" })
    if (Fs.existsSync(target)) {
      throw new RegistryFileUnusable({ path: target, detail: "it exists already; give a name that is free" })
    }
    const beside = `${target}.${process.pid}.tmp`
    createPrivate(beside)
    try {
      const db = new DatabaseSync(source, { readOnly: true, timeout: 10_000 })
      try {
        db.prepare("VACUUM INTO ?").run(beside)
      } finally {
        db.close()
      }
      const contents = examine(beside)
      sync(beside)
      // Unlike a rename, a link does not replace what has come to stand there meanwhile.
      Fs.linkSync(beside, target)
      sync(Path.dirname(Path.resolve(target)))
      return contents
    } finally {
      Fs.rmSync(beside, { force: true })
    }
  })

/** Held for as long as nobody else may work on the registry: the lock that the server takes (`Database`). */
const withLock = <A>(path: string, f: () => A): A => {
  const lock = new DatabaseSync(`${path}.lock`)
  try {
    try {
      lock.exec("BEGIN EXCLUSIVE")
    } catch {
      throw new RegistryFileUnusable({ path, detail: "a server works on it; stop that one first" })
    }
    return f()
  } finally {
    lock.close()
  }
}

/** What a registry consists of while it is in use. */
const partsOf = (path: string): ReadonlyArray<string> => [path, `${path}-wal`, `${path}-shm`]

export interface PutBack extends Contents {
  /** Where that is now what was there before; undefined: nothing was. */
  readonly movedTo: string | undefined
}

/** Puts the copy at `backup` in the place of the registry at `target`, which is moved aside when it may be (`replace`). */
export const putBack = (
  backup: string,
  target: string,
  options: { readonly replace: boolean; readonly nowMillis: number }
): Effect.Effect<PutBack, RegistryFileUnusable> =>
  attempt(target, () => {
    const contents = examine(backup)
    const newer = newerThanKnown(contents.schema)
    if (newer !== undefined) throw new RegistryFileUnusable({ path: backup, detail: newer })
    return withLock(target, () => {
      const isThere = Fs.existsSync(target)
      if (isThere && !options.replace) {
        throw new RegistryFileUnusable({
          path: target,
          detail: "there is a registry already; --replace moves it aside and puts the backup in its place"
        })
      }
      const beside = `${target}.${process.pid}.tmp`
      createPrivate(beside)
      try {
        Fs.copyFileSync(backup, beside)
        sync(beside)
        const aside = `${target}.before-${new Date(options.nowMillis).toISOString().replace(/[:.]/g, "-")}`
        if (isThere) {
          for (const part of partsOf(target)) {
            if (Fs.existsSync(part)) Fs.renameSync(part, part.replace(target, aside))
          }
        }
        Fs.renameSync(beside, target)
        sync(Path.dirname(Path.resolve(target)))
        return { ...contents, movedTo: isThere ? aside : undefined }
      } finally {
        Fs.rmSync(beside, { force: true })
      }
    })
  })
