import { assert, describe, it } from "@effect/vitest"
import { Schema } from "effect"
import { OpenApi } from "effect/http-api"
import { Api } from "../../src/api/Api.ts"
import * as Hosts from "../../src/api/Hosts.ts"
import {
  HostNotFound,
  HostNotFoundProblem,
  problems,
  RequestInvalid,
  RequestInvalidProblem,
  TokenInvalid,
  TokenInvalidProblem
} from "../../src/api/Problems.ts"
import { AddressInput, NameInput, timestamp } from "../../src/api/Values.ts"

const document: any = OpenApi.fromApi(Api)

describe("the contract", () => {
  it("names every error of every operation as problem+json", () => {
    for (const [path, item] of Object.entries<any>(document.paths)) {
      for (const [method, operation] of Object.entries<any>(item)) {
        const errors = Object.entries<any>(operation.responses).filter(([status]) => Number(status) >= 400)
        assert.includeMembers(
          errors.map(([status]) => status),
          ["400", "401", "503"],
          `${method} ${path}`
        )
        for (const [, response] of errors)
          assert.deepStrictEqual(Object.keys(response.content), ["application/problem+json"])
      }
    }
  })

  it("says what each parameter means, and asks for a token everywhere below /v1", () => {
    for (const [path, item] of Object.entries<any>(document.paths)) {
      for (const operation of Object.values<any>(item)) {
        for (const parameter of operation.parameters)
          assert.isString(parameter.description, `${path} ${parameter.name}`)
        assert.deepStrictEqual(operation.security, [{ bearer: [] }])
        assert.isTrue(path.startsWith("/v1/"))
      }
    }
    const limit = document.paths["/v1/hosts"].get.parameters.find((each: any) => each.name === "limit")
    assert.deepStrictEqual(limit.schema, { type: "integer", minimum: 1, maximum: 1000, default: 100 })
  })

  it("lets answers gain fields", () => {
    assert.notInclude(JSON.stringify(document), '"additionalProperties":false')
  })

  it("has the fields of a host that outsiders rely on", () => {
    assert.includeMembers(Object.keys(Hosts.Host.fields), [
      "id",
      "fqdn",
      "hostname",
      "zone",
      "addresses",
      "state",
      "generation",
      "owner",
      "firstSeen",
      "lastSeen",
      "publication"
    ])
  })
})

describe("problems", () => {
  it("have types and statuses of their own kind", () => {
    const all = Object.values(problems)
    assert.strictEqual(new Set(all.map(({ type }) => type)).size, all.length)
    for (const { status, title, type } of all) {
      assert.match(type, /^urn:prism-dns:problem:[a-z-]+$/)
      assert.isTrue(status >= 400 && status < 600)
      assert.notStrictEqual(title, "")
    }
  })

  it("are written as RFC 9457 says, and read back by the typed client", () => {
    const notFound = new HostNotFound({ detail: "no such host" })
    const body = Schema.encodeSync(HostNotFoundProblem)(notFound)
    assert.deepStrictEqual(body, { ...problems.hostNotFound, detail: "no such host" })
    assert.deepStrictEqual(Schema.decodeUnknownSync(HostNotFoundProblem)(body), notFound)

    const invalid = new RequestInvalid({ detail: "x", errors: [{ in: "query", pointer: "/limit", detail: "x" }] })
    const encoded = Schema.encodeSync(RequestInvalidProblem)(invalid)
    assert.deepStrictEqual(encoded.errors, invalid.errors)
    assert.deepStrictEqual(Schema.decodeUnknownSync(RequestInvalidProblem)(encoded), invalid)

    const token = Schema.encodeSync(TokenInvalidProblem)(new TokenInvalid({ detail: "no" }))
    assert.deepStrictEqual(token.headers, { "www-authenticate": 'Bearer realm="prism-dns"' })
  })
})

describe("values", () => {
  it("names and addresses come in any form and go on in one", () => {
    const name = Schema.decodeUnknownSync(NameInput)
    assert.strictEqual(name("WEB-1.Hosts.test"), name("web-1.hosts.test."))
    const address = Schema.decodeUnknownSync(AddressInput)
    assert.strictEqual(address("2001:DB8:0::1"), address("2001:db8::1"))
    assert.throws(() => name("a..b"))
    assert.throws(() => address("300.1.1.1"))
  })

  it("times are RFC 3339 in UTC", () => {
    assert.strictEqual(timestamp(0), "1970-01-01T00:00:00.000Z")
  })
})
