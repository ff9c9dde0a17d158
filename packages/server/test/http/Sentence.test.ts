import { assert, describe, it } from "@effect/vitest"
import { sentence } from "../../src/http/Sentence.ts"

describe("sentence", () => {
  it("begins with a capital and ends with a dot", () => {
    assert.strictEqual(sentence("the token is not valid"), "The token is not valid.")
    assert.strictEqual(sentence("refused"), "Refused.")
  })

  it("leaves a name, an address and a quoted word at the beginning as they are", () => {
    assert.strictEqual(sentence("web-1.a.test. is a host's"), "web-1.a.test. is a host's.")
    assert.strictEqual(sentence("fd00::1 is taken"), "fd00::1 is taken.")
    assert.strictEqual(sentence("oidc:ann has no role"), "oidc:ann has no role.")
    assert.strictEqual(sentence("'www' is reserved"), "'www' is reserved.")
  })

  it("puts no second dot behind a full name", () => {
    assert.strictEqual(sentence("nobody may write at a.test."), "Nobody may write at a.test.")
  })
})
