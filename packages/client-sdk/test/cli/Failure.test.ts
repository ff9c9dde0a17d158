import { assert, describe, it } from "@effect/vitest"
import { Cause } from "effect"
import * as Failure from "../../src/cli/Failure.ts"

const refused = (code: string) =>
  Failure.report(Cause.fail(new Failure.Refused({ host: "web-1", code, detail: "it says why" })))

describe("a refusal says what to do next", () => {
  it("ends as a sentence where nothing is known", () => {
    assert.strictEqual(refused("internal").text, "prism-agent: web-1 was refused (internal): it says why.")
    assert.strictEqual(Failure.withNextStep("internal", "it says why"), "it says why")
  })

  it.each([
    ["token-expired", "prism-dns tokens create"],
    ["token-revoked", "prism-dns tokens create"],
    ["token-used-up", "prism-dns tokens create"],
    ["hostname-taken", "prism-dns identities reset"],
    ["hostname-taken", "prism-dns tokens create --enrol --for"],
    ["unsupported-version", "8443"],
    ["server-untrusted", "--ca"],
    ["protocol-not-allowed", "--token-file"],
    ["quota-exceeded", "namesMax"],
    ["certificate-missing", "--cert"],
    ["certificate-invalid", "tls.clientCa"],
    ["certificate-revoked", "another certificate"],
    ["identity-revoked", "key.json"]
  ])("%s: %s", (code, step) => {
    const { exitCode, text } = refused(code)
    assert.include(text, `web-1 was refused (${code}): it says why. `)
    assert.include(text, step)
    assert.strictEqual(exitCode, 1)
  })
})
