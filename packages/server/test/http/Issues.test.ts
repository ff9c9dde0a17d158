import { assert, describe, it } from "@effect/vitest"
import { Effect, Result, Schema } from "effect"
import { wrongs } from "../../src/http/Issues.ts"
import { ask, server, zone } from "./harness.ts"

const Inner = Schema.Struct({ port: Schema.Int }).annotate({ identifier: "InnerRequest" })
const Outer = Schema.Struct({
  name: Schema.String.annotate({ identifier: "NameOfOurs" }),
  state: Schema.optionalKey(Schema.Literals(["active", "paused"]).annotate({ identifier: "StateOfOurs" })),
  inner: Schema.optionalKey(Schema.Union([Inner, Schema.Null]).annotate({ identifier: "PerhapsInner" })),
  list: Schema.optionalKey(Schema.Array(Inner))
}).annotate({ identifier: "OuterRequest" })

const decode = Schema.decodeUnknownResult(Outer, { errors: "all", onExcessProperty: "error" })

const said = (value: unknown) => {
  const decoded = decode(value)
  if (Result.isSuccess(decoded)) return assert.fail("it fits")
  return wrongs(decoded.failure.issue).map(({ message, path }) => `${path.join(".")}: ${message}`)
}

describe("what is wrong with a value", () => {
  it("is said of its field and in words of JSON, not in names of ours", () => {
    assert.deepStrictEqual(said([]), [": Expected an object with fields"])
    assert.deepStrictEqual(said("x"), [": Expected an object with fields"])
    assert.deepStrictEqual(said({ name: 1 }), ["name: Expected text"])
    assert.deepStrictEqual(said({}), ["name: This field is missing"])
    assert.deepStrictEqual(said({ name: "a", nmae: 1 }), ["nmae: There is no such field"])
    assert.deepStrictEqual(said({ name: "a", state: "off" }), ['state: Expected "active" or "paused"'])
    assert.deepStrictEqual(said({ name: "a", inner: 7 }), ["inner: Expected an object with fields or null"])
    assert.deepStrictEqual(said({ name: "a", list: {} }), ["list: Expected a list"])
    assert.deepStrictEqual(said({ name: "a", list: [{ port: "1" }, 3] }), [
      "list.0.port: Expected a number",
      "list.1: Expected an object with fields"
    ])
  })

  it.live("names nothing of ours at any endpoint that takes a body", () =>
    Effect.gen(function* () {
      const document = (yield* ask("/openapi.json")).json
      const names = Object.keys(document.components.schemas)
      for (const [path, operations] of Object.entries<any>(document.paths)) {
        for (const [method, operation] of Object.entries<any>(operations)) {
          if (operation.requestBody === undefined) continue
          const at = path.replaceAll("{zone}", zone).replaceAll(/\{\w+\}/g, "x")
          for (const body of ["[]", "7", '"x"', "null", '{"items":[7],"name":7,"reason":{},"permissions":7}']) {
            const answer = yield* ask(at, {
              method: method.toUpperCase(),
              body,
              headers: { "content-type": "application/json" }
            })
            for (const name of names) {
              assert.notMatch(answer.text, new RegExp(`Expected ${name}\\b`), `${method} ${at} ${body}`)
            }
          }
        }
      }
    }).pipe(Effect.provide(server()))
  )
})
