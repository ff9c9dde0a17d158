import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import * as HostFile from "../../src/cli/HostFile.ts"

describe("a file of hosts", () => {
  it.effect("as CSV has a row of heads; several addresses and labels stand in one cell, empty cells say nothing", () =>
    Effect.gen(function* () {
      const text =
        "hostname,addresses,labels,ttl,owner\r\n" +
        'web-1,10.0.0.1 2001:db8::1,role=web;note=a=b,60,\r\n\r\n"web,2",10.0.0.2,,,"o""ps"\n'
      assert.deepStrictEqual(yield* HostFile.read("hosts.csv", text), [
        {
          op: "register",
          hostname: "web-1",
          addresses: ["10.0.0.1", "2001:db8::1"],
          labels: { role: "web", note: "a=b" },
          ttlSeconds: 60
        },
        { op: "register", hostname: "web,2", addresses: ["10.0.0.2"], owner: 'o"ps' }
      ])
    })
  )

  it.effect("as JSON is a list, or an object with one; what names no operation registers", () =>
    Effect.gen(function* () {
      const retiring = { op: "retire", host: "b.test." }
      const items = [{ hostname: "a" }, retiring]
      const expected: ReadonlyArray<HostFile.Item> = [{ op: "register", hostname: "a" }, retiring]
      assert.deepStrictEqual(yield* HostFile.read("hosts.json", JSON.stringify(items)), expected)
      assert.deepStrictEqual(yield* HostFile.read("hosts.json", JSON.stringify({ items })), expected)
    })
  )

  it.effect("that is wrong is refused as a whole, and says why", () =>
    Effect.gen(function* () {
      for (const [path, text, why] of [
        ["a.csv", "", /nothing in it/],
        ["a.csv", "name,addresses\n", /'name'; columns are/],
        ["a.csv", "addresses\n10.0.0.1\n", /no column 'hostname'/],
        ["a.json", "{", /no JSON/],
        ["a.json", '"x"', /no list/]
      ] as const) {
        assert.match((yield* Effect.flip(HostFile.read(path, text))).detail, why)
      }
    })
  )
})
