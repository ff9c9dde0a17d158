import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import * as ChildProcess from "node:child_process"
import * as Fs from "node:fs"
import * as Path from "node:path"
import { temporaryFolder } from "../../core/test/harness/PowerDns.ts"
import * as KeyStore from "../src/KeyStore.ts"

const folder = Effect.map(temporaryFolder("prism-key-"), (path) => Path.join(path, "state"))

const mode = (path: string) => Fs.statSync(path).mode & 0o777

describe("the key of a machine", () => {
  it.effect("is made once, readable by its owner alone, and found again", () =>
    Effect.gen(function* () {
      const path = yield* folder
      const first = yield* KeyStore.load(path)
      const second = yield* KeyStore.load(path)
      assert.strictEqual(second.publicKey, first.publicKey)
      assert.deepStrictEqual([mode(path), mode(Path.join(path, "key.json"))], [0o700, 0o600])
      assert.deepStrictEqual(Fs.readdirSync(path), ["key.json"])
    })
  )

  it.effect("keeps the identity that a server has confirmed", () =>
    Effect.gen(function* () {
      const path = yield* folder
      const key = yield* KeyStore.load(path)
      yield* KeyStore.save(path, { ...key, identity: "i-abcdefghijklmnop", server: "prism.example.net:8080" })
      const again = yield* KeyStore.load(path)
      assert.deepInclude(again, {
        publicKey: key.publicKey,
        identity: "i-abcdefghijklmnop",
        server: "prism.example.net:8080"
      })
      assert.strictEqual(mode(Path.join(path, "key.json")), 0o600)
      const stored = JSON.parse(Fs.readFileSync(Path.join(path, "key.json"), "utf8")) as object
      assert.hasAllKeys(stored, ["version", "privateKey", "publicKey", "server", "identity"])
    })
  )

  it.effect.each([0o640, 0o604, 0o622, 0o644])(
    "that others can read or change (mode %o) is refused, with what to do",
    (bad) =>
      Effect.gen(function* () {
        const path = yield* folder
        yield* KeyStore.load(path)
        Fs.chmodSync(Path.join(path, "key.json"), bad)
        const failed = yield* Effect.flip(KeyStore.load(path))
        assert.strictEqual(failed.code, "key-insecure")
        assert.include(failed.message, "chmod 600")
      })
  )

  it.effect("in a folder that cannot be looked into is not taken for none", () =>
    Effect.gen(function* () {
      const path = yield* folder
      assert.isFalse(yield* KeyStore.exists(path))
      yield* KeyStore.load(path)
      assert.isTrue(yield* KeyStore.exists(path))
      const failed = yield* Effect.flip(KeyStore.exists(Path.join(path, KeyStore.fileName)))
      assert.strictEqual(failed.code, "key-unreadable")
      assert.include(failed.message, "name another one")
    })
  )

  it.effect("in a folder of which nothing can be made is refused, with what to do", () =>
    Effect.gen(function* () {
      const file = Path.join(yield* folder, "..", "file")
      Fs.writeFileSync(file, "")
      for (const path of [file, Path.join(file, "state"), "/proc/nobody/state"]) {
        const failed = yield* Effect.flip(KeyStore.load(path))
        assert.strictEqual(failed.code, "key-unreadable")
        assert.include(failed.message, "name another one")
      }
    })
  )

  it.effect("is made in folders that are not there yet, for their owner alone", () =>
    Effect.gen(function* () {
      const path = yield* folder
      yield* KeyStore.load(Path.join(path, "a", "b"))
      assert.deepStrictEqual([mode(path), mode(Path.join(path, "a", "b"))], [0o700, 0o700])
    })
  )

  it.effect("in a folder that others may write into is refused", () =>
    Effect.gen(function* () {
      const path = yield* folder
      Fs.mkdirSync(path)
      Fs.chmodSync(path, 0o777)
      assert.strictEqual((yield* Effect.flip(KeyStore.load(path))).code, "key-insecure")
    })
  )

  it.effect("that is a link is refused, wherever it leads", () =>
    Effect.gen(function* () {
      const path = yield* folder
      yield* KeyStore.load(path)
      Fs.renameSync(Path.join(path, "key.json"), Path.join(path, "elsewhere"))
      Fs.symlinkSync(Path.join(path, "elsewhere"), Path.join(path, "key.json"))
      assert.strictEqual((yield* Effect.flip(KeyStore.load(path))).code, "key-unreadable")
    })
  )

  it.effect.each<[string, string]>([
    ["nothing", ""],
    ["no JSON", "{"],
    ["null", "null"],
    ["another version", '{"version":2}'],
    ["no private key", '{"version":1}'],
    ["a private key that is none", '{"version":1,"privateKey":"AAAA"}']
  ])("of a file that holds %s is not made anew over it: a person looks", ([, text]) =>
    Effect.gen(function* () {
      const path = yield* folder
      yield* KeyStore.load(path)
      const file = Path.join(path, "key.json")
      Fs.writeFileSync(file, text)
      const failed = yield* Effect.flip(KeyStore.load(path))
      assert.strictEqual(failed.code, "key-unreadable")
      assert.include(failed.message, file)
      assert.strictEqual(Fs.readFileSync(file, "utf8"), text)
    })
  )

  it.effect("whose public part is not its own is refused", () =>
    Effect.gen(function* () {
      const path = yield* folder
      yield* KeyStore.load(path)
      const file = Path.join(path, "key.json")
      const stored = JSON.parse(Fs.readFileSync(file, "utf8")) as Record<string, unknown>
      Fs.writeFileSync(file, JSON.stringify({ ...stored, publicKey: "A".repeat(43) }))
      const failed = yield* Effect.flip(KeyStore.load(path))
      assert.strictEqual(failed.code, "key-unreadable")
      assert.notInclude(failed.message, String(stored["privateKey"]))
    })
  )

  it.live("that several processes make at the same moment is one key", () =>
    Effect.gen(function* () {
      const path = yield* folder
      const program = `import * as KeyStore from ${JSON.stringify(Path.resolve(import.meta.dirname, "../src/KeyStore.ts"))}
import { Effect } from "effect"
console.log((await Effect.runPromise(KeyStore.load(${JSON.stringify(path)}))).publicKey)`
      const keys = yield* Effect.forEach(
        Array.from({ length: 6 }),
        () =>
          Effect.callback<string>((resume) => {
            ChildProcess.execFile(
              process.execPath,
              ["--conditions=@prism-dns/source", "--input-type=module-typescript", "-e", program],
              { cwd: import.meta.dirname },
              (error, stdout) => resume(error === null ? Effect.succeed(stdout.trim()) : Effect.die(error))
            )
          }),
        { concurrency: "unbounded" }
      )
      assert.strictEqual(new Set(keys).size, 1)
      assert.deepStrictEqual(Fs.readdirSync(path), ["key.json"])
    })
  )
})
