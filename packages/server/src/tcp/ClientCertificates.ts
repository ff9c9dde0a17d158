/**
 * From a client's certificate, which OpenSSL has verified, to what the server
 * knows of it: above all how its holder is called.
 */
import { Option, Result, Schema } from "effect"
import type { X509Certificate } from "node:crypto"
import type { ClientCertificate } from "./Connection.ts"

/** What of the certificate names its holder: its common name, or the first DNS name or URI of its alternative names. */
export const nameSources = ["cn", "dns", "uri"] as const
export type NameSource = (typeof nameSources)[number]

/** Longest name in characters; `cert:` and a name together fit where names of owners do. */
export const nameCharactersMax = 200

/** What of X509Certificate is looked at. */
export type Certificate = Pick<
  X509Certificate,
  "fingerprint256" | "serialNumber" | "subjectAltName" | "toLegacyObject" | "validTo"
>

/** What is known of a verified certificate, or a sentence that says why its holder has no name. */
export const read = (certificate: Certificate, source: NameSource): Result.Result<ClientCertificate, string> =>
  Result.map(nameOf(certificate, source), (name) => ({
    name,
    fingerprint: fingerprintOf(certificate),
    serial: certificate.serialNumber.toLowerCase(),
    expiresAtMillis: Date.parse(certificate.validTo)
  }))

/** SHA-256 of the certificate, in hexadecimal. */
export const fingerprintOf = (certificate: Pick<X509Certificate, "fingerprint256">): string =>
  certificate.fingerprint256.replaceAll(":", "").toLowerCase()

const words: Readonly<Record<NameSource, string>> = {
  cn: "common name",
  dns: "DNS name",
  uri: "URI"
}

const nameOf = (certificate: Certificate, source: NameSource): Result.Result<string, string> => {
  const names = source === "cn" ? commonNames(certificate) : alternativeNames(certificate, source)
  const name = names[0]
  if (name === undefined || name === "") return Result.fail(`its subject has no ${words[source]}`)
  // Of several common names, the one that is meant is a matter of taste.
  if (source === "cn" && names.length > 1) return Result.fail("its subject has several common names")
  if (name.length > nameCharactersMax) {
    return Result.fail(`its ${words[source]} is longer than ${nameCharactersMax} characters`)
  }
  return isPrintable(name)
    ? Result.succeed(name)
    : Result.fail(`its ${words[source]} has characters that are not printable ASCII`)
}

/** Letters that look like others, marks of direction and control characters have no place in the name of an owner. */
const isPrintable = (text: string): boolean => /^[!-~](?:[ -~]*[!-~])?$/.test(text)

const commonNames = (certificate: Certificate): ReadonlyArray<string> => {
  const name: unknown = certificate.toLegacyObject().subject?.CN
  return Array.isArray(name) ? name.map(String) : typeof name === "string" ? [name] : []
}

/** Node writes values in quotes, as JSON, when they could be taken for several. */
const alternativeNamePattern = /([^:,]+):("(?:[^"\\]|\\.)*"|[^,]*)(?:, |$)/g

const alternativeNames = (certificate: Certificate, source: "dns" | "uri"): ReadonlyArray<string> => {
  const kind = source === "dns" ? "DNS" : "URI"
  return [...(certificate.subjectAltName ?? "").matchAll(alternativeNamePattern)]
    .filter(([, found]) => found === kind)
    .map(([, , value]) => (value!.startsWith('"') ? unquote(value!) : value!))
}

/** Empty when it cannot be read: then it names nobody. */
const unquote = (text: string): string => Option.getOrElse(decodeText(text), () => "")
const decodeText = Schema.decodeUnknownOption(Schema.fromJsonString(Schema.String))
