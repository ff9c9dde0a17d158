/** `docs/reference/protocol.md`, run by the server's own code. */
import { assert, describe, it } from "@effect/vitest"
import { refusalCodes } from "@prism-dns/core/auth/RefusalCode"
import * as MessageV1 from "@prism-dns/core/protocol/MessageV1"
import * as MessageV2 from "@prism-dns/core/protocol/MessageV2"
import { Effect, Result } from "effect"
import * as Crypto from "node:crypto"
import * as Fs from "node:fs"
import * as Path from "node:path"
import { blocksOf, read, root } from "./markdown.ts"
import { isSession, lines, play } from "./session.ts"

const page = read("docs/reference/protocol.md")
const requests = blocksOf("json request")

/** Codes that the page explains, in its table. */
const explained = () => {
  const table = page.prose.slice(page.prose.indexOf("## Error codes"))
  return Array.from(table.matchAll(/^\| `([a-z0-9-]+)`/gm), ([, code]) => code!)
}

/** Where codes are decided and answered. */
const sources = [
  "server/src/tcp/ProtocolV1.ts",
  "server/src/tcp/SessionV2.ts",
  "server/src/tcp/FramesV2.ts",
  "server/src/tcp/SharedV2.ts",
  "server/src/tcp/RequestsV2.ts",
  "server/src/tcp/Authentication.ts",
  "server/src/tcp/TcpServer.ts",
  "core/src/protocol/Handshake.ts",
  "core/src/auth/TokenMode.ts",
  "core/src/auth/Tokens.ts",
  "core/src/auth/Identities.ts",
  "core/src/auth/Policy.ts",
  "core/src/auth/Admission.ts"
]
  .map((file) => Fs.readFileSync(Path.join(root, "packages", file), "utf8"))
  .join("\n")

/** Codes of what is no error, but a word for the log. */
const notices = new Set(Array.from(sources.matchAll(/type: "notice",\s+code: "([a-z-]+)"/g), ([, code]) => code!))

/** Codes that the server has: declared in core, and written where they are decided and answered. */
const known = () => {
  const listeners = Fs.readFileSync(Path.join(root, "packages/server/src/tcp/Connection.ts"), "utf8")
  const table = /const codes[^{]*\{([^}]*)\}/.exec(sources)![1]!
  return new Set(
    [
      ...refusalCodes,
      ...MessageV1.MessageInvalid.fields.code.literals,
      ...Array.from(
        sources.matchAll(/(?:(?:refused|error|errorToAll|failed|refuse)\(\s*|code: )"([a-z-]+)"/g),
        ([, code]) => code!
      ),
      ...Array.from(table.matchAll(/: "([a-z-]+)"/g), ([, code]) => code!),
      ...Array.from(listeners.matchAll(/^ {2}\| "([a-z-]+)"$/gm), ([, code]) => code!)
    ].filter((code) => !notices.has(code))
  )
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
})

describe("the example session of protocol 2.0", () => {
  const blocks = page.blocks.filter(isSession)
  const ofSide = (side: string) => blocks.filter(({ info }) => info.startsWith(`json ${side}`))
  const typesOf = (side: string) =>
    new Set(
      ofSide(side)
        .flatMap(lines)
        .map((line) => (JSON.parse(line) as { type: string }).type)
    )

  it.live("is what the server says, frame by frame and byte by byte", () =>
    Effect.gen(function* () {
      assert.deepStrictEqual(yield* play(blocks), ofSide("server").map(lines))
    })
  )

  it.each(ofSide("agent").flatMap((block) => lines(block).map((line) => [block.place, line] as const)))(
    "%s is a message of an agent, as it is written",
    (_, line) => {
      const decoded = MessageV2.decodeAgentMessage(JSON.parse(line))
      assert.strictEqual(MessageV2.encodeText(Result.getOrThrow(decoded)), line)
    }
  )

  it.each(ofSide("server").flatMap((block) => lines(block).map((line) => [block.place, line] as const)))(
    "%s is a message of the server, as it is written",
    (_, line) => {
      const decoded = MessageV2.decodeServerMessage(JSON.parse(line))
      assert.strictEqual(MessageV2.encodeText(Result.getOrThrow(decoded)), line)
    }
  )

  it("has every message that there is", () => {
    assert.deepStrictEqual(typesOf("agent"), new Set(MessageV2.agentTypes))
    assert.deepStrictEqual(typesOf("server"), new Set(MessageV2.serverTypes))
    const methods = ofSide("agent")
      .flatMap(lines)
      .flatMap((line) => (JSON.parse(line) as { auth?: { method: string } }).auth?.method ?? [])
    assert.deepStrictEqual(new Set(methods), new Set(["key", "enrol", "token", "certificate", "anonymous"]))
  })

  it("signs the bytes that the page says", () => {
    const [hello, proof] = ofSide("agent")
      .slice(0, 2)
      .map((block) => JSON.parse(block.text) as { auth: { publicKey: string }; signature: string })
    const [signed] = page.blocks
      .filter(({ info }) => info === "json signed")
      .map(({ text }) => JSON.parse(text) as string)
    const key = Crypto.createPublicKey({ key: { kty: "OKP", crv: "Ed25519", x: hello!.auth.publicKey }, format: "jwk" })
    assert.isTrue(Crypto.verify(null, Buffer.from(signed!), key, Buffer.from(proof!.signature, "base64url")))
  })

  it("names every notice", () => {
    assert.isAbove(notices.size, 0)
    for (const code of notices) assert.include(page.prose, `\`${code}\``)
  })
})

describe("the table of codes", () => {
  it("explains every code that the server sends, and no other", () => {
    assert.deepStrictEqual(explained().sort(), [...known()].sort())
  })
})
