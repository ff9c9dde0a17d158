import { assert, describe, it } from "@effect/vitest"
import { Effect, Logger, Redacted, References } from "effect"
import * as Logging from "@prism-dns/core/logging/Logging"

/** The lines that `program` logs in `format`. */
const linesOf = (program: Effect.Effect<unknown>, format: (options: Logger.Options<unknown>) => string) =>
  Effect.gen(function* () {
    const lines: Array<string> = []
    const logger = Logger.make((options) => void lines.push(format(options)))
    yield* Effect.provide(program, Logger.layer([logger]))
    return lines
  })

describe("Logging", () => {
  it.effect("a line is one JSON object: time, level, msg, logger, annotations, and the fields of plain objects", () =>
    Effect.gen(function* () {
      const [line] = yield* linesOf(
        Effect.logWarning("zone", "created", { zone: "a.test.", count: 3n }).pipe(
          Effect.annotateLogs({ logger: "DnsManager", node: "one" })
        ),
        Logging.formatJson
      )
      assert.deepStrictEqual(JSON.parse(line!), {
        time: "1970-01-01T00:00:00.000Z",
        level: "warn",
        msg: "zone created",
        logger: "DnsManager",
        node: "one",
        zone: "a.test.",
        count: "3"
      })
    })
  )

  it.effect("a field may not pass itself off as the line's time, level or sentence", () =>
    Effect.gen(function* () {
      const [line] = yield* linesOf(Effect.logInfo("true", { msg: "false", level: "fatal" }), Logging.formatJson)
      assert.deepInclude(JSON.parse(line!), { msg: "true", level: "info", _msg: "false", _level: "fatal" })
    })
  )

  it.effect("a secret is never shown, and a line break never starts another line", () =>
    Effect.gen(function* () {
      const [line] = yield* linesOf(
        Effect.logInfo("from an agent: a\nb", { token: Redacted.make("hunter2"), cause: new Error("c\nd") }),
        Logging.formatJson
      )
      assert.notInclude(line!, "hunter2")
      assert.notInclude(line!, "\n")
      assert.include(JSON.parse(line!), { token: "<redacted>", cause: "c\nd" })
    })
  )

  it.effect("what comes from elsewhere steers no terminal and begins no line, in JSON and for people", () =>
    Effect.gen(function* () {
      const evil = "a\r\nb\u001b[2Jc\u009b31md\u007fe\u2028f\u202eg"
      const said = Effect.logInfo(evil, { field: evil })
      const [json] = yield* linesOf(said, Logging.formatJson)
      const [pretty] = yield* linesOf(said, Logging.formatPretty(false))
      for (const line of [json!, pretty!]) {
        for (const character of ["\r", "\n", "\u001b", "\u009b", "\u007f", "\u2028", "\u202e"]) {
          assert.notInclude(line, character)
        }
      }
      assert.include(JSON.parse(json!), { msg: evil, field: evil })
    })
  )

  it.effect("a cause becomes the field error", () =>
    Effect.gen(function* () {
      const failing = Effect.fail(new Error("disk full")).pipe(
        Effect.catchCause((cause) => Effect.logError("stopped", cause))
      )
      const [line] = yield* linesOf(failing, Logging.formatJson)
      const parsed = JSON.parse(line!) as { readonly msg: string; readonly error: string }
      assert.strictEqual(parsed.msg, "stopped")
      assert.include(parsed.error, "disk full")
    })
  )

  it.effect("each JSON line names the instance, a line for people does not", () =>
    Effect.gen(function* () {
      const annotations = (logFormat: "json" | "pretty") =>
        References.CurrentLogAnnotations.pipe(
          Effect.annotateLogs({ zone: "a.test." }),
          Effect.provide(Logging.layer({ logLevel: "Info", logFormat, instance: "prism-2" }))
        )
      assert.deepStrictEqual(yield* annotations("json"), { instance: "prism-2", zone: "a.test." })
      assert.deepStrictEqual(yield* annotations("pretty"), { zone: "a.test." })
    })
  )

  it.effect("for people, a line reads from left to right", () =>
    Effect.gen(function* () {
      const [line] = yield* linesOf(Effect.logInfo("running", { port: 8080 }), Logging.formatPretty(false))
      assert.strictEqual(line, "00:00:00.000 INFO  prism: running port=8080")
    })
  )

  it.effect("a level can be changed while the program runs", () =>
    Effect.gen(function* () {
      const level = new Logging.Level("Info")
      const written: Array<string> = []
      const write = process.stderr.write.bind(process.stderr)
      process.stderr.write = (text: string | Uint8Array) => written.push(String(text)) > 0
      yield* Effect.gen(function* () {
        yield* Effect.logDebug("one")
        level.current = "Debug"
        yield* Effect.logDebug("two")
        level.current = "Error"
        yield* Effect.logWarning("three")
      }).pipe(
        Effect.provide(Logging.layer({ logLevel: level, logFormat: "json" })),
        Effect.ensuring(Effect.sync(() => (process.stderr.write = write)))
      )
      assert.deepStrictEqual(
        written.map((line) => JSON.parse(line).msg),
        ["two"]
      )
    })
  )
})
