import { assert, describe, it } from "@effect/vitest"
import { Redacted } from "effect"
import * as PowerDnsSettings from "@prism-dns/core/powerdns/PowerDnsSettings"

const settings = {
  directory: "/data",
  socketDirectory: "/data",
  backend: PowerDnsSettings.sqlite,
  address: "127.0.0.1",
  dnsPort: 5300,
  apiPort: 8053,
  apiKey: Redacted.make("secret"),
  extra: {}
}

describe("the settings of a server of our own", () => {
  it("keep the API on, rectify off, and ask nobody for a version", () => {
    assert.deepInclude(PowerDnsSettings.entries(settings), {
      launch: "gsqlite3",
      api: "yes",
      "api-key": "secret",
      "default-api-rectify": "no",
      "security-poll-suffix": "",
      "webserver-port": "8053"
    })
  })

  it("on PostgreSQL take the zone's lock", () => {
    const backend = PowerDnsSettings.pgsql({ host: "/run/pg", port: 5432, user: "u", database: "d" })
    assert.deepInclude(PowerDnsSettings.entries({ ...settings, backend }), {
      "gpgsql-host": "/run/pg",
      "gpgsql-delete-rrset-query": "select pdns_delete_rrset($1,$2,$3)"
    })
  })

  it("give way to what the caller sets", () => {
    const entries = PowerDnsSettings.entries({ ...settings, extra: { "cache-ttl": "0", api: "no" } })
    assert.deepInclude(entries, { "cache-ttl": "0", api: "no" })
  })

  it("are written one per line", () => {
    assert.strictEqual(PowerDnsSettings.render({ a: "1", b: "" }), "a=1\nb=\n")
  })

  it("name the entry that the file cannot carry", () => {
    assert.isUndefined(PowerDnsSettings.unwritable(PowerDnsSettings.entries(settings)))
    for (const value of ["two\nlines", "a # b", " blank", "blank ", "goes on\\"]) {
      assert.strictEqual(PowerDnsSettings.unwritable({ fine: "x", "api-key": value }), "api-key")
    }
    assert.strictEqual(PowerDnsSettings.unwritable({ "no=key": "x" }), "no=key")
  })
})
