import { assert, describe, it } from "@effect/vitest"
import { Result } from "effect"
import * as Groups from "@prism-dns/core/cluster/Groups"
import * as DomainName from "@prism-dns/core/domain/DomainName"
import type { HostName } from "@prism-dns/core/domain/DomainName"
import * as IpAddress from "@prism-dns/core/domain/IpAddress"
import * as Zone from "@prism-dns/core/domain/Zone"
import * as Zones from "@prism-dns/core/dns/Zones"
import { hostName, ipv4, ipv6 } from "../arbitraries.ts"

const make = (...names: ReadonlyArray<string>) => Zones.make(names.map((name) => Zone.make(DomainName.make(name))))

const zones = make(
  "2.0.192.in-addr.arpa",
  "hosts.prism.test",
  "lab.test",
  "eu.lab.test",
  "64/26.2.0.192.in-addr.arpa",
  "192.in-addr.arpa",
  "8.b.d.0.1.0.0.2.ip6.arpa",
  "1.0.0.0.8.b.d.0.1.0.0.2.ip6.arpa"
)

const host = (hostname: string, zone?: string) => {
  const placed = zones.placeHost(hostname as HostName, zone === undefined ? undefined : DomainName.make(zone))
  return Result.isSuccess(placed) ? `${placed.success.name} in ${placed.success.zone}` : placed.failure.reason
}

describe("a host", () => {
  it.each([
    ["web-1", undefined, "web-1.hosts.prism.test. in hosts.prism.test."],
    ["web-1", "lab.test", "web-1.lab.test. in lab.test."],
    ["web-1.rack-7", undefined, "web-1.rack-7.hosts.prism.test. in hosts.prism.test."],
    // already a full name: not doubled
    ["web-1.hosts.prism.test", undefined, "web-1.hosts.prism.test. in hosts.prism.test."],
    ["web-1.lab.test", undefined, "web-1.lab.test. in lab.test."],
    ["web-1.lab.test", "hosts.prism.test", "web-1.lab.test. in lab.test."],
    ["web-1.eu.lab.test", undefined, "web-1.eu.lab.test. in eu.lab.test."],
    // only a whole label counts
    ["webhosts.prism.test", undefined, "webhosts.prism.test.hosts.prism.test. in hosts.prism.test."],
    // a name in a zone below the one asked for belongs to the one below: in the one above nobody would see it
    ["web-1.eu", "lab.test", "web-1.eu.lab.test. in eu.lab.test."]
  ])("%s with zone %s is placed as %s", (hostname, zone, expected) => {
    assert.strictEqual(host(hostname, zone), expected)
  })

  it.each([
    ["hosts.prism.test", undefined],
    ["lab.test", "hosts.prism.test"],
    ["eu", "lab.test"]
  ])("%s with zone %s is refused: it would be a zone itself", (hostname, zone) => {
    assert.strictEqual(host(hostname, zone), "hostname is the name of the zone itself")
  })

  it("whose whole name is too long is refused", () => {
    assert.match(host(["a".repeat(63), "b".repeat(63), "c".repeat(63), "d".repeat(55)].join(".")), /longer than 253/)
  })

  it("finds no place where there are only reverse zones", () => {
    assert.isTrue(Result.isFailure(make("10.in-addr.arpa").placeHost("web" as HostName)))
  })

  it.prop(
    "is placed below the zone it is said to be in, and placed again by its full name alike",
    { hostName },
    (o) => {
      const placed = zones.placeHost(o.hostName)
      if (Result.isFailure(placed)) return
      const { name, zone } = placed.success
      assert.isTrue(DomainName.isWithin(name, zone) && name !== zone)
      assert.deepStrictEqual(zones.placeHost(name.slice(0, -1) as HostName), placed)
    }
  )
})

describe("a pointer", () => {
  it.each([
    ["192.0.2.70", "70.64/26.2.0.192.in-addr.arpa. in 64/26.2.0.192.in-addr.arpa."],
    ["192.0.2.7", "7.2.0.192.in-addr.arpa. in 2.0.192.in-addr.arpa."],
    ["192.0.3.7", "7.3.0.192.in-addr.arpa. in 192.in-addr.arpa."],
    [
      "2001:db8:1::7",
      "7.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.1.0.0.0.8.b.d.0.1.0.0.2.ip6.arpa. in 1.0.0.0.8.b.d.0.1.0.0.2.ip6.arpa."
    ],
    [
      "2001:db8:2::7",
      "7.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.2.0.0.0.8.b.d.0.1.0.0.2.ip6.arpa. in 8.b.d.0.1.0.0.2.ip6.arpa."
    ]
  ])("of %s is %s", (address, expected) => {
    const place = zones.placePointer(IpAddress.make(address))
    assert.strictEqual(`${place?.name} in ${place?.zone}`, expected)
  })

  it("of an address in no configured network is nowhere", () => {
    assert.isUndefined(zones.placePointer(IpAddress.make("198.51.100.1")))
    assert.isUndefined(zones.placePointer(IpAddress.make("2001:db9::1")))
  })

  it.prop("leads back to its address", { v4: ipv4, v6: ipv6 }, ({ v4, v6 }) => {
    for (const address of [v4, v6, IpAddress.make(v4.replace(/^\d+/, "192"))]) {
      const place = zones.placePointer(address)
      if (place === undefined) continue
      assert.strictEqual(Zone.addressOfPointer(place.name, zones.find(place.zone)!), address)
    }
  })
})

describe("a host of other servers", () => {
  const groups = Groups.make([
    {
      name: "eu",
      zones: [DomainName.make("eu.hosts.prism.test"), DomainName.make("hosts.prism.test")],
      servers: ["eu-1.prism.test:8080", "eu-2.prism.test:8080"]
    },
    { name: "lab", zones: [DomainName.make("lab.test")], servers: ["tls://lab.prism.test:8443"] }
  ])
  const own = Zones.make(
    ["hosts.prism.test", "deep.eu.hosts.prism.test"].map((name) => Zone.make(DomainName.make(name))),
    groups
  )
  const where = (hostname: string, zone?: string) => {
    const found = own.elsewhere(hostname as HostName, zone === undefined ? undefined : DomainName.make(zone))
    return found === undefined ? "here" : `${found.zone} of ${found.group.name}`
  }

  it.each([
    ["web-1", undefined, "here"],
    ["web-1", "hosts.prism.test", "here"],
    ["web-1", "eu.hosts.prism.test", "eu.hosts.prism.test. of eu"],
    ["web-1.eu", undefined, "here"],
    ["web-1.eu", "hosts.prism.test", "eu.hosts.prism.test. of eu"],
    ["web-1.eu.hosts.prism.test", undefined, "eu.hosts.prism.test. of eu"],
    ["web-1.eu.hosts.prism.test", "lab.test", "eu.hosts.prism.test. of eu"],
    ["web-1.deep.eu.hosts.prism.test", undefined, "here"],
    ["web-1", "lab.test", "lab.test. of lab"],
    ["web-1.lab.test", undefined, "lab.test. of lab"],
    ["web-1", "nowhere.test", "here"]
  ])("%s in %s is %s", (hostname, zone, expected) => {
    assert.strictEqual(where(hostname, zone), expected)
  })

  it("has no place here, and is told where it has one", () => {
    const placed = own.placeHost("web-1.eu" as HostName)
    assert.strictEqual(
      Result.isFailure(placed) ? placed.failure.reason : "placed",
      "web-1.eu belongs to the zone eu.hosts.prism.test., which other servers serve (eu): connect to eu-1.prism.test:8080 or eu-2.prism.test:8080"
    )
  })
})
