import { assert, describe, it } from "@effect/vitest"
import { Result } from "effect"
import * as ClientCertificates from "../../src/tcp/ClientCertificates.ts"

interface Subject {
  readonly cn?: string | ReadonlyArray<string>
  readonly alternativeNames?: string
}

const certificate = ({ alternativeNames, cn }: Subject): ClientCertificates.Certificate =>
  ({
    fingerprint256: "AB:CD",
    serialNumber: "10AF",
    subjectAltName: alternativeNames,
    validTo: "Jan  1 00:00:00 2040 GMT",
    toLegacyObject: () => ({ subject: { CN: cn } })
  }) as ClientCertificates.Certificate

const nameOf = (subject: Subject, source: ClientCertificates.NameSource): string =>
  Result.match(ClientCertificates.read(certificate(subject), source), {
    onFailure: (reason) => `none: ${reason}`,
    onSuccess: ({ name }) => name
  })

const cases: Readonly<Record<string, readonly [Subject, ClientCertificates.NameSource, string]>> = {
  "the common name": [{ cn: "web-1" }, "cn", "web-1"],
  "a common name of words": [{ cn: "Build Agent 7" }, "cn", "Build Agent 7"],
  "no common name": [{}, "cn", "none: its subject has no common name"],
  "an empty one": [{ cn: "" }, "cn", "none: its subject has no common name"],
  "several common names": [{ cn: ["a", "b"] }, "cn", "none: its subject has several common names"],
  "one that is too long": [{ cn: "x".repeat(201) }, "cn", "none: its common name is longer than 200 characters"],
  "one with a control character": [
    { cn: "web-1\0.example.net" },
    "cn",
    "none: its common name has characters that are not printable ASCII"
  ],
  "one with a line end": [
    { cn: "web-1\nCN=other" },
    "cn",
    "none: its common name has characters that are not printable ASCII"
  ],
  "one with letters that look like others": [
    { cn: "wеb-1" },
    "cn",
    "none: its common name has characters that are not printable ASCII"
  ],
  "one with a blank at its end": [
    { cn: "web-1 " },
    "cn",
    "none: its common name has characters that are not printable ASCII"
  ],
  "the first DNS name": [{ alternativeNames: "IP Address:192.0.2.1, DNS:a.test, DNS:b.test" }, "dns", "a.test"],
  "the first URI": [{ alternativeNames: "DNS:a.test, URI:spiffe://a.test/x" }, "uri", "spiffe://a.test/x"],
  "a common name where a DNS name is asked for": [
    { cn: "web-1", alternativeNames: "URI:https://a.test" },
    "dns",
    "none: its subject has no DNS name"
  ],
  "a DNS name within a URI": [
    { alternativeNames: 'URI:"https://a.test/, DNS:victim.test"' },
    "dns",
    "none: its subject has no DNS name"
  ],
  "a URI with a comma": [{ alternativeNames: 'URI:"https://a.test/x,y"' }, "uri", "https://a.test/x,y"],
  "a URI in quotes that cannot be read": [
    { alternativeNames: String.raw`URI:"\x"` },
    "uri",
    "none: its subject has no URI"
  ]
}

describe("the holder of a client's certificate", () => {
  for (const [name, [subject, source, expected]] of Object.entries(cases)) {
    it(`${name}: ${expected}`, () => {
      assert.strictEqual(nameOf(subject, source), expected)
    })
  }

  it("is known by fingerprint and serial number too, until the certificate runs out", () => {
    assert.deepStrictEqual(Result.getOrThrow(ClientCertificates.read(certificate({ cn: "web-1" }), "cn")), {
      name: "web-1",
      fingerprint: "abcd",
      serial: "10af",
      expiresAtMillis: Date.UTC(2040, 0, 1)
    })
  })
})
