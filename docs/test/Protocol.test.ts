/** `docs/reference/protocol.md`, run by the server's own code. */
import { assert, describe, it } from "@effect/vitest"
import * as MessageV1 from "@prism-dns/core/protocol/MessageV1"
import { Result } from "effect"
import * as Fs from "node:fs"
import * as Path from "node:path"
import { blocksOf, read, root } from "./markdown.ts"

const page = read("docs/reference/protocol.md")
const requests = blocksOf("json request")

/** Codes that the page explains, in its table. */
const explained = () => {
  const table = page.prose.slice(page.prose.indexOf("## Error codes"))
  return Array.from(table.matchAll(/^\| `([a-z0-9-]+)`/gm), ([, code]) => code!)
}

/** Codes that the server has: declared with the errors of core, and written where they are decided and answered. */
const known = () => {
  const text = [
    "server/src/tcp/ProtocolV1.ts",
    "server/src/tcp/TcpServer.ts",
    "core/src/auth/TokenMode.ts",
    "core/src/auth/Tokens.ts",
    "core/src/auth/Policy.ts",
    "core/src/auth/Admission.ts"
  ]
    .map((file) => Fs.readFileSync(Path.join(root, "packages", file), "utf8"))
    .join("\n")
  const listeners = Fs.readFileSync(Path.join(root, "packages/server/src/tcp/Connection.ts"), "utf8")
  const table = /const codes[^{]*\{([^}]*)\}/.exec(text)![1]!
  return new Set([
    ...MessageV1.MessageInvalid.fields.code.literals,
    ...Array.from(text.matchAll(/(?:(?:refused|error|failed)\(\s*|code: )"([a-z-]+)"/g), ([, code]) => code!),
    ...Array.from(table.matchAll(/: "([a-z-]+)"/g), ([, code]) => code!),
    ...Array.from(listeners.matchAll(/^ {2}\| "([a-z-]+)"$/gm), ([, code]) => code!)
  ])
}

describe("the page of protocol 1.0", () => {
  it.each(requests.map(({ info, place, text }) => [place, info.slice("json request ".length), text] as const))(
    "%s is %s",
    (_, expected, text) => {
      const outcome = Result.match(MessageV1.decode(new TextEncoder().encode(text)), {
        onSuccess: () => "accepted",
        onFailure: ({ code }) => `refused ${code}`
      })
      assert.strictEqual(outcome, expected)
    }
  )

  it.each(blocksOf("json answer").map(({ place, text }) => [place, text] as const))(
    "%s is an answer as the server writes it",
    (_, text) => {
      const { message, status, timestamp, type, version, ...more } = JSON.parse(text)
      assert.deepStrictEqual([version, type], ["1.0", "response"])
      assert.strictEqual(MessageV1.encodeResponse({ status, message, more }, Date.parse(timestamp)), text)
    }
  )

  it("explains every code that the server sends, and no other", () => {
    assert.deepStrictEqual(explained().sort(), [...known()].sort())
  })
})
