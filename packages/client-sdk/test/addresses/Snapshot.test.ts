import { assert, describe, it } from "@effect/vitest"
import * as Snapshot from "../../src/addresses/Snapshot.ts"
import { select } from "../../src/addresses/Selection.ts"

describe("the kernel's tables", () => {
  it("addresses of IPv6 with their flags", () => {
    const table = [
      "00000000000000000000000000000001 01 80 10 80       lo",
      "20010db800010002e9f0112233445566 03 40 00 00   wlp3s0",
      "20010db80001000291aa3f0777e012cd 03 40 00 01   wlp3s0",
      "fe800000000000005e1f8afffe0377aa 03 40 20 80   wlp3s0",
      "20010db8000100024c1d9b22 cut off"
    ].join("\n")
    assert.deepStrictEqual(Snapshot.parseInet6(table), [
      { name: "lo", hex: "00000000000000000000000000000001", flags: 0x80 },
      { name: "wlp3s0", hex: "20010db800010002e9f0112233445566", flags: 0 },
      { name: "wlp3s0", hex: "20010db80001000291aa3f0777e012cd", flags: 1 },
      { name: "wlp3s0", hex: "fe800000000000005e1f8afffe0377aa", flags: 0x80 }
    ])
    assert.deepStrictEqual(Snapshot.parseInet6(""), [])
  })

  it("default routes of both families, not those that reject, nor of other networks", () => {
    const ipv4 = [
      "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT",
      "tun0\t00000000\t0100080A\t0003\t0\t0\t50\t00000000\t0\t0\t0",
      "wlp3s0\t00000000\t0101A8C0\t0003\t0\t0\t600\t00000000\t0\t0\t0",
      "tun0\t00000000\t0100080A\t0003\t0\t0\t0\t00000080\t0\t0\t0",
      "wlp3s0\t0001A8C0\t00000000\t0001\t0\t0\t600\t00FFFFFF\t0\t0\t0",
      ""
    ].join("\n")
    const zeros = "0".repeat(32)
    const ipv6 = [
      `20010db8000100020000000000000000 40 ${zeros} 00 ${zeros} 00000100 00000001 00000000 00000001   wlp3s0`,
      `${zeros} 00 ${zeros} 00 fe800000000000000000000000000001 00000400 00000002 00000000 00450003     eth7`,
      `${zeros} 00 ${zeros} 00 ${zeros} ffffffff 00000001 00000000 00200200       lo`,
      ""
    ].join("\n")
    assert.deepStrictEqual(Snapshot.parseDefaultRoutes(ipv4, ipv6), ["tun0", "wlp3s0", "eth7"])
    assert.deepStrictEqual(Snapshot.parseDefaultRoutes("", ""), [])
  })
})

describe("this machine", () => {
  it("has a loopback interface, which is left out", () => {
    const { considered } = select(Snapshot.read())
    assert.includeDeepMembers(
      considered.map(({ address, verdict }) => [address, verdict]),
      [["127.0.0.1", "loopback"]]
    )
  })

  it("looks the same at every look", () => {
    const read = Snapshot.makeReader()
    const first = select(read())
    for (let i = 0; i < 2 * Snapshot.looksPerLinks; i++) assert.deepStrictEqual(select(read()), first)
  })
})
