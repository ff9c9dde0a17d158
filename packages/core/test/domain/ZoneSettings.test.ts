import { assert, describe, it } from "@effect/vitest"
import * as DomainName from "@prism-dns/core/domain/DomainName"
import * as Zone from "@prism-dns/core/domain/Zone"
import * as ZoneSettings from "@prism-dns/core/domain/ZoneSettings"
import { Duration, Result } from "effect"
import { IpNetwork } from "effect/net"

const about = { generation: 7, origin: "configuration", overridden: [] } as const
const name = DomainName.make("hosts.test")

const unusual = Zone.make(name, {
  ...about,
  dnssec: true,
  nameservers: [DomainName.make("ns.example.net")],
  createIfMissing: false,
  policy: {
    ttlSeconds: 5,
    ttlSecondsMin: 1,
    ttlSecondsMax: 9,
    networks: [Result.getOrThrow(IpNetwork.fromString("10.0.0.0/8"))],
    labelsMax: 3,
    hostsMax: 12,
    whenOffline: { _tag: "Keep" },
    conflict: "suffix",
    retireAfter: Duration.days(1),
    holdFor: Duration.zero,
    deleteBudget: { share: 0.5, min: 0, window: Duration.minutes(1) },
    quarantine: Duration.zero
  },
  reconciliation: { interval: Duration.seconds(90), repair: false }
})

describe("a zone's settings", () => {
  it.each([
    ["a zone as it is by default", Zone.make(name, about)],
    ["one in which everything is another", unusual],
    ["a reverse zone", Zone.make(DomainName.make("2.0.192.in-addr.arpa"), about)]
  ])("make the zone again that they are of: %s", (_, zone) => {
    const again = ZoneSettings.toZone(zone.name, ZoneSettings.settingsOf(zone), about)
    assert.deepStrictEqual(ZoneSettings.settingsOf(again), ZoneSettings.settingsOf(zone))
    assert.deepStrictEqual(JSON.parse(JSON.stringify(ZoneSettings.settingsOf(zone))), ZoneSettings.settingsOf(zone))
    assert.deepStrictEqual([again.network, again.policy.whenOffline], [zone.network, zone.policy.whenOffline])
  })

  it.each([
    [{}, { policy: { ttlSeconds: 3 } }, { policy: { ttlSeconds: 3 } }],
    [{ policy: { ttlSeconds: 3 } }, { policy: { hostsMax: 4 } }, { policy: { ttlSeconds: 3, hostsMax: 4 } }],
    [{ policy: { ttlSeconds: 3, hostsMax: 4 } }, { policy: { hostsMax: null } }, { policy: { ttlSeconds: 3 } }],
    // What says nothing any more is not there.
    [{ policy: { deleteBudget: { min: 1 } } }, { policy: { deleteBudget: { min: null } } }, {}],
    [{ policy: { ttlSeconds: 3 } }, { policy: null }, {}],
    [{}, { policy: { networks: null } }, {}],
    // A list is one value.
    [{ nameservers: ["a.", "b."] }, { nameservers: ["c."] }, { nameservers: ["c."] }]
  ] as const)("%j with %j on it is %j", (overlay, patch, expected) => {
    assert.deepStrictEqual(ZoneSettings.patched(overlay, patch), expected)
  })

  it("of the configuration hold where an overlay says nothing", () => {
    const overlay = { dnssec: false, policy: { whenOffline: "withdraw", deleteBudget: { share: 0.2 } } }
    const zone = ZoneSettings.overlaid(unusual, overlay, { ...about, overridden: ZoneSettings.pointersOf(overlay) })
    assert.deepStrictEqual(zone.overridden, ["/dnssec", "/policy/whenOffline", "/policy/deleteBudget/share"])
    assert.deepStrictEqual(
      [zone.dnssec, zone.policy.whenOffline._tag, zone.policy.deleteBudget.share, zone.policy.deleteBudget.min],
      [false, "Withdraw", 0.2, 0]
    )
    assert.deepStrictEqual([zone.policy.ttlSeconds, zone.nameservers], [5, unusual.nameservers])
  })
})
