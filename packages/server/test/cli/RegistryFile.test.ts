import { assert, describe, it } from "@effect/vitest"
import { Effect, Layer } from "effect"
import * as Fs from "node:fs"
import { DatabaseSync } from "node:sqlite"
import { temporaryFolder } from "../../../core/test/harness/PowerDns.ts"
import * as RegistryFile from "../../src/cli/RegistryFile.ts"
import * as Database from "../../src/Database.ts"

const opened = (filename: string) =>
  Layer.build(Layer.fresh(Database.layer({ url: { _tag: "Sqlite", filename }, connectionsMax: 1 })))

const addHost = (db: DatabaseSync, name: string) =>
  db
    .prepare(
      `INSERT INTO host (id, fqdn, hostname, zone, addresses, labels, owner, state, generation, first_seen, last_seen)
       VALUES (?, ?, ?, 'hosts.prism.test.', '[]', '{}', 'nobody', 'online', 1, 1, 1)`
    )
    .run(name, `${name}.hosts.prism.test.`, name)

const setUp = Effect.gen(function* () {
  const folder = yield* temporaryFolder("prism-backup-")
  const registry = `${folder}/prism.db`
  yield* Effect.scoped(opened(registry))
  return { folder, registry, backup: `${folder}/backup.db` }
})

describe("a backup of a registry in SQLite", () => {
  it.live("is of one moment while the registry is written, and for its owner alone", () =>
    Effect.gen(function* () {
      const { backup, registry } = yield* setUp
      yield* opened(registry)
      const writer = new DatabaseSync(registry)
      writer.exec("PRAGMA journal_mode = WAL")
      addHost(writer, "a")
      writer.exec("BEGIN")
      addHost(writer, "half")
      const contents = yield* RegistryFile.copy(registry, backup)
      writer.exec("COMMIT")
      writer.close()
      assert.deepInclude(contents, { hosts: 1, schema: Database.schemaKnown })
      assert.strictEqual(Fs.statSync(backup).mode & 0o777, 0o600)
    }).pipe(Effect.scoped)
  )

  it.live("never takes the place of a file", () =>
    Effect.gen(function* () {
      const { backup, folder, registry } = yield* setUp
      Fs.writeFileSync(backup, "mine")
      const error = yield* Effect.flip(RegistryFile.copy(registry, backup))
      assert.include(error.message, "exists already")
      assert.strictEqual(Fs.readFileSync(backup, "utf8"), "mine")
      assert.deepStrictEqual(
        Fs.readdirSync(folder).filter((name) => name.endsWith(".tmp")),
        []
      )
    }).pipe(Effect.scoped)
  )

  it.live("is put back only where nothing is, or with what was there moved aside", () =>
    Effect.gen(function* () {
      const { backup, registry } = yield* setUp
      yield* RegistryFile.copy(registry, backup)
      const db = new DatabaseSync(registry)
      addHost(db, "later")
      db.close()
      const refused = yield* Effect.flip(RegistryFile.putBack(backup, registry, { replace: false, nowMillis: 0 }))
      assert.include(refused.message, "--replace")
      const done = yield* RegistryFile.putBack(backup, registry, { replace: true, nowMillis: 0 })
      assert.deepInclude(done, { hosts: 0, movedTo: `${registry}.before-1970-01-01T00-00-00-000Z` })
      const count = (path: string) => {
        const read = new DatabaseSync(path, { readOnly: true })
        try {
          return (read.prepare("SELECT COUNT(*) AS n FROM host").get() as { readonly n: number }).n
        } finally {
          read.close()
        }
      }
      assert.strictEqual(count(registry), 0)
      assert.strictEqual(count(done.movedTo!), 1)
      yield* opened(registry)
    }).pipe(Effect.scoped)
  )

  it.live("is not put back under a running server", () =>
    Effect.gen(function* () {
      const { backup, registry } = yield* setUp
      yield* RegistryFile.copy(registry, backup)
      yield* opened(registry)
      const error = yield* Effect.flip(RegistryFile.putBack(backup, registry, { replace: true, nowMillis: 0 }))
      assert.include(error.message, "a server works on it")
    }).pipe(Effect.scoped)
  )

  it.live("that is damaged, of a newer version, or no registry is refused, and nothing is moved", () =>
    Effect.gen(function* () {
      const { backup, folder, registry } = yield* setUp
      yield* RegistryFile.copy(registry, backup)
      const before = Fs.readFileSync(registry)
      const tried = (path: string) =>
        Effect.map(
          Effect.flip(RegistryFile.putBack(path, registry, { replace: true, nowMillis: 0 })),
          ({ message }) => message
        )

      const damaged = `${folder}/damaged.db`
      const bytes = Fs.readFileSync(backup)
      bytes.fill(0x5a, 4096, 4096 * 6)
      Fs.writeFileSync(damaged, bytes)
      assert.match(yield* tried(damaged), /damaged|malformed/)

      const newer = new DatabaseSync(backup)
      newer.exec(`INSERT INTO ${Database.migrationsTable} (migration_id, name) VALUES (9999, 'of_tomorrow')`)
      newer.close()
      assert.include(yield* tried(backup), "newer version")

      const other = `${folder}/other.db`
      new DatabaseSync(other).exec("CREATE TABLE t (a)")
      assert.include(yield* tried(other), "no registry of Prism DNS")
      assert.include(yield* tried(`${folder}/absent.db`), "no such file")
      Fs.writeFileSync(`${folder}/text`, "no database at all")
      assert.match(yield* tried(`${folder}/text`), /not a database/)
      assert.isTrue(before.equals(Fs.readFileSync(registry)))
    }).pipe(Effect.scoped)
  )
})
