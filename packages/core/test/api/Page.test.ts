import { assert, describe, it } from "@effect/vitest"
import { Base64Url } from "effect/encoding"
import { cursorAfter, nameBefore } from "../../src/api/Page.ts"
import * as DomainName from "../../src/domain/DomainName.ts"

describe("cursors", () => {
  it("give back the name they stand behind, and need no escaping in an address", () => {
    for (const name of [
      "a.test",
      "web-1.hosts.prism.test",
      `${"x".repeat(63)}.${"y".repeat(63)}.test`,
      "0/26.2.0.192.in-addr.arpa"
    ]) {
      const cursor = cursorAfter(DomainName.make(name))
      assert.strictEqual(nameBefore(cursor), `${name}.`)
      assert.strictEqual(encodeURIComponent(cursor), cursor)
    }
  })

  it("are refused when they are not ours", () => {
    for (const cursor of [
      "",
      "a.test.",
      "%",
      "bm9uc2Vuc2U",
      Base64Url.encode("n2:a.test."),
      Base64Url.encode("n1:"),
      Base64Url.encode("n1:a..b")
    ]) {
      assert.isUndefined(nameBefore(cursor), cursor)
    }
  })
})
