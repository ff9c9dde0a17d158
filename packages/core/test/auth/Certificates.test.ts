import { assert, describe, it } from "@effect/vitest"
import * as Certificates from "@prism-dns/core/auth/Certificates"
import * as DomainName from "@prism-dns/core/domain/DomainName"
import { hostName } from "../arbitraries.ts"

const hosts = DomainName.make("hosts.example.net")
const racks = DomainName.make("racks.hosts.example.net")
const zones = [hosts, racks]

interface Expected {
  readonly zones: ReadonlyArray<string> | undefined
  readonly names: ReadonlyArray<string>
}

const cases: Readonly<
  Record<string, readonly [name: string, grant: Partial<Certificates.CertificateGrant>, Expected]>
> = {
  "a short name is its own in each zone": ["web-1", {}, { zones: undefined, names: ["web-1"] }],
  "a name in a zone speaks for that zone": ["web-1.hosts.example.net", {}, { zones: [hosts], names: ["web-1"] }],
  "case means nothing": ["Web-1.Hosts.Example.Net", {}, { zones: [hosts], names: ["web-1"] }],
  "the longest zone counts": ["web-1.racks.hosts.example.net", {}, { zones: [racks], names: ["web-1"] }],
  "several labels below a zone are kept": ["a.b.hosts.example.net", {}, { zones: [hosts], names: ["a.b"] }],
  "a name of another domain is no shorter for it": [
    "web-1.other.test",
    {},
    { zones: undefined, names: ["web-1.other.test"] }
  ],
  "a zone itself names no host": ["hosts.example.net", {}, { zones: [hosts], names: [] }],
  "a wildcard names no host": ["*.hosts.example.net", {}, { zones: undefined, names: [] }],
  "a pattern's signs name no host": ["web-#", {}, { zones: undefined, names: [] }],
  "a URI names no host": ["spiffe://example.net/web-1", {}, { zones: undefined, names: [] }],
  "a URI claims by patterns of the configuration": [
    "spiffe://example.net/web-1",
    { names: ["{name}", "web-*"] },
    { zones: undefined, names: ["web-*"] }
  ],
  "a pattern may have the name within it": ["web-1", { names: ["{name}-*"] }, { zones: undefined, names: ["web-1-*"] }],
  "a zone that certificates may not have is none": [
    "web-1.hosts.example.net",
    { zones: [racks] },
    { zones: [], names: ["web-1"] }
  ],
  "zones of the configuration hold for a short name": [
    "web-1",
    { zones: [racks] },
    { zones: [racks], names: ["web-1"] }
  ]
}

describe("the principal of a certificate", () => {
  for (const [what, [name, grant, expected]] of Object.entries(cases)) {
    it(what, () => {
      const principal = Certificates.principalOf(name, { ...Certificates.ownNameOnly, ...grant }, zones)
      assert.deepInclude(principal, { name: `cert:${name}`, kind: "certificate", anonymous: false, actsFor: [] })
      assert.deepStrictEqual<Expected>(
        { zones: principal.grant.zones, names: principal.grant.names ?? ["any"] },
        expected
      )
    })
  }

  it.prop("of any host name claims at most that one name", { name: hostName }, ({ name }) => {
    const { grant } = Certificates.principalOf(name, Certificates.ownNameOnly, zones)
    assert.deepStrictEqual(grant.names, [name])
  })
})
