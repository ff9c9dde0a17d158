import { assert, describe, it } from "@effect/vitest"
import { Arbitrary, Effect } from "effect"
import { IpNetwork } from "effect/net"
import * as IpAddress from "@prism-dns/core/domain/IpAddress"
import { integer, oneOf } from "../../../core/test/arbitraries.ts"
import * as Explanation from "../../src/addresses/Explanation.ts"
import { select, type SelectOptions } from "../../src/addresses/Selection.ts"
import type { Snapshot } from "../../src/addresses/Snapshot.ts"
import * as Machines from "./machines.ts"

/** `ADDRESS INTERFACE` by verdict. */
const verdicts = (snapshot: Snapshot, options?: SelectOptions): Record<string, ReadonlyArray<string>> => {
  const found: Record<string, Array<string>> = {}
  for (const { address, interface: name, verdict } of select(snapshot, options).considered) {
    ;(found[verdict] ??= []).push(address === undefined ? name : `${address} ${name}`)
  }
  return found
}

describe("the addresses of a machine", () => {
  it("a laptop has those of its wireless network, not the VPN's, Docker's, nor the temporary ones", () => {
    assert.deepStrictEqual(verdicts(Machines.laptop), {
      taken: ["192.168.1.23 wlp3s0", "2001:db8:1:2:e9f0:1122:3344:5566 wlp3s0"],
      loopback: ["127.0.0.1 lo", "::1 lo"],
      temporary: ["2001:db8:1:2:91aa:3f07:77e0:12cd wlp3s0"],
      deprecated: ["2001:db8:1:2:4c1d:9b22:5be1:70f3 wlp3s0"],
      "link-local": ["fe80::5e1f:8aff:fe03:77aa wlp3s0"],
      tunnel: [
        "10.8.0.6 tun0",
        "fe80::71c2:1b0e:9a55:1234 tun0",
        "100.101.102.103 tailscale0",
        "fd7a:115c:a1e0::6 tailscale0"
      ],
      container: ["172.17.0.1 docker0"],
      down: ["enp0s31f6"]
    })
  })

  it("a host of Docker has its own, not those of the networks between it and its containers", () => {
    assert.deepStrictEqual(verdicts(Machines.dockerHost), {
      taken: ["203.0.113.10 ens3"],
      loopback: ["127.0.0.1 lo", "::1 lo"],
      "link-local": ["fe80::f816:3eff:fe20:57c4 ens3"],
      container: [
        "172.18.0.1 br-5f1c2a9e7d34",
        "fe80::42:d4ff:fe6b:9f1c br-5f1c2a9e7d34",
        "fe80::b8a1:2ff:fe7d:9e10 vethab12c3d"
      ],
      down: ["docker0"]
    })
  })

  it("a Kubernetes node has its own, not those of pods, services and overlays", () => {
    assert.deepStrictEqual(verdicts(Machines.kubernetesNode), {
      taken: ["10.20.0.11 eth0"],
      loopback: ["127.0.0.1 lo", "::1 lo"],
      "link-local": ["fe80::4001:aff:fe14:b eth0"],
      container: [
        "10.244.3.0 flannel.1",
        "fe80::a8c0:3aff:fe4e:d532 flannel.1",
        "10.244.3.1 cni0",
        "fe80::3c7a:51ff:fe0a:6d8f cni0",
        "fe80::1c5b:a8ff:fe9e:7f21 veth1f2e3d4c"
      ],
      dummy: ["10.96.0.1 kube-ipvs0", "10.96.0.10 kube-ipvs0", "10.103.52.7 kube-ipvs0", "169.254.20.10 nodelocaldns"]
    })
  })

  it("a server with two families has both, the interface of the default route first", () => {
    assert.deepStrictEqual(verdicts(Machines.dualStackServer), {
      taken: [
        "198.51.100.5 bond0",
        "2001:db8:5::5 bond0",
        "10.0.0.5 eno3",
        "fd12:3456:789a::5 eno3",
        "192.168.20.5 bond0.20"
      ],
      loopback: ["127.0.0.1 lo", "::1 lo", "198.51.100.53 lo"],
      tentative: ["2001:db8:5::6 bond0"],
      conflict: ["2001:db8:5::7 bond0"],
      "link-local": ["fe80::ec4:7aff:fe01:1 bond0"],
      duplicate: ["10.0.0.5 bond0.20"],
      "no-address": ["eno1"],
      down: ["eno2"]
    })
  })

  it("a bridge that hardware is in is how a machine is reached", () => {
    assert.deepStrictEqual(verdicts(Machines.hypervisor), {
      taken: ["192.0.2.40 br0"],
      loopback: ["127.0.0.1 lo", "::1 lo"],
      "link-local": ["fe80::1e69:7aff:fe0b:5 br0"],
      container: ["192.168.122.1 virbr0", "fe80::fc54:ff:fe1e:2d3c vnet0"],
      "no-address": ["enp5s0"]
    })
  })

  it("inside a container it is the container's own", () => {
    assert.deepStrictEqual(select(Machines.container).addresses, [IpAddress.make("172.18.0.2")])
  })

  it("names of interfaces decide where the system says no more", () => {
    assert.deepStrictEqual(verdicts(Machines.mac), {
      taken: ["192.168.1.31 en0", "2001:db8:1:2:c5d:8e21:90ab:77f0 en0"],
      loopback: ["127.0.0.1 lo0", "::1 lo0", "fe80::1 lo0"],
      "link-local": ["fe80::1c8d:5a1f:33e7:41d2 en0", "fe80::a4c3:f0ff:fe8c:1d2e awdl0"],
      tunnel: ["10.66.0.4 utun3"],
      container: ["192.168.64.1 bridge100"]
    })
    assert.deepStrictEqual(select(Machines.windows).addresses, [IpAddress.make("192.0.2.77")])
  })

  it("the name of hardware says nothing", () => {
    const snapshot: Snapshot = {
      interfaces: { veth0: [{ address: "192.0.2.9", internal: false }] },
      links: { veth0: Machines.link({ physical: true }) },
      inet6: [],
      defaultRoutes: []
    }
    assert.deepStrictEqual(select(snapshot).addresses, [IpAddress.make("192.0.2.9")])
  })
})

describe("what may be asked for", () => {
  it("an interface that is named is taken whatever kind it is, and no other", () => {
    assert.deepStrictEqual(select(Machines.laptop, { include: ["tailscale?"] }).addresses, [
      IpAddress.make("100.101.102.103"),
      IpAddress.make("fd7a:115c:a1e0::6")
    ])
    assert.deepStrictEqual(select(Machines.laptop, { include: ["lo"] }).addresses, [
      IpAddress.make("127.0.0.1"),
      IpAddress.make("::1")
    ])
  })

  it("naming an interface does not make its link-local and temporary addresses fit", () => {
    assert.deepStrictEqual(select(Machines.laptop, { include: ["*"], exclude: ["t*", "docker*", "lo"] }).addresses, [
      IpAddress.make("192.168.1.23"),
      IpAddress.make("2001:db8:1:2:e9f0:1122:3344:5566")
    ])
    assert.deepStrictEqual(select(Machines.kubernetesNode, { include: ["nodelocaldns"] }).addresses, [])
  })

  it("an interface that is left out by name stays out though it is included too", () => {
    const { considered } = select(Machines.dockerHost, { include: ["ens3"], exclude: ["ens*"] })
    assert.deepStrictEqual(
      considered.filter((each) => each.interface === "ens3").map(({ verdict }) => verdict),
      ["excluded", "excluded"]
    )
  })

  it("a pattern is a pattern and no expression", () => {
    const snapshot: Snapshot = {
      interfaces: {
        "eth0.1": [{ address: "192.0.2.1", internal: false }],
        eth0x1: [{ address: "192.0.2.2", internal: false }]
      },
      links: undefined,
      inet6: [],
      defaultRoutes: []
    }
    assert.deepStrictEqual(select(snapshot, { include: ["eth0.1", "(.*)", "[a-z]*"] }).addresses, [
      IpAddress.make("192.0.2.1")
    ])
  })

  it("one family alone, or the other one first", () => {
    const of = (options: SelectOptions) => select(Machines.dualStackServer, options).addresses
    assert.deepStrictEqual(of({ families: ["ipv6"] }), [
      IpAddress.make("2001:db8:5::5"),
      IpAddress.make("fd12:3456:789a::5")
    ])
    assert.deepStrictEqual(of({ families: ["ipv6", "ipv4"], max: 2 }), [
      IpAddress.make("2001:db8:5::5"),
      IpAddress.make("198.51.100.5")
    ])
  })

  it("no more than are wanted, the best of them", () => {
    const { addresses, considered } = select(Machines.dualStackServer, { max: 1 })
    assert.deepStrictEqual(addresses, [IpAddress.make("198.51.100.5")])
    assert.strictEqual(considered.filter(({ verdict }) => verdict === "over-max").length, 5)
  })
})

describe("the table of reasons", () => {
  it("has a line for each address, those taken first and numbered", () => {
    assert.deepStrictEqual(Explanation.toTable(select(Machines.hypervisor)).split("\n"), [
      "#  ADDRESS                  INTERFACE  KIND       WHY",
      "1  192.0.2.40               br0        joined     taken: the default route leads through this interface",
      "-  127.0.0.1                lo         loopback   left out (loopback): it reaches nobody but this machine itself",
      "-  ::1                      lo         loopback   left out (loopback): it reaches nobody but this machine itself",
      "-  fe80::1e69:7aff:fe0b:5   br0        joined     left out (link-local): it is valid on its own link only",
      "-  192.168.122.1            virbr0     container  left out (container): it is for this machine's own containers and virtual machines",
      "-  fe80::fc54:ff:fe1e:2d3c  vnet0      container  left out (container): it is for this machine's own containers and virtual machines",
      "-  -                        enp5s0     physical   left out (no-address): the interface has no address"
    ])
  })

  it("the name of an interface cannot steer the terminal", () => {
    const snapshot: Snapshot = {
      interfaces: { "\u001b[2Jx": [{ address: "192.0.2.1", internal: false }] },
      links: undefined,
      inet6: [],
      defaultRoutes: []
    }
    assert.notInclude(Explanation.toTable(select(snapshot)), "\u001b")
  })
})

const names = ["lo", "eth0", "eth1", "docker0", "veth1", "tun0", "br0"] as const
const listed = [
  "127.0.0.1",
  "127.3.0.9",
  "169.254.7.7",
  "0.0.0.0",
  "224.0.0.5",
  "255.255.255.255",
  "10.0.0.1",
  "192.0.2.1",
  "::",
  "::1",
  "ff02::1",
  "fe80::1%eth0",
  "febf::1",
  "fd00::1",
  "2001:db8::1",
  "2001:DB8:0::1",
  "::ffff:192.0.2.1",
  "no address"
] as const

const randomLink = Arbitrary.map(
  Arbitrary.all([
    oneOf([1, 772, 65_534]),
    oneOf([0x1043, 0x1002, 0xc3, 0x10d1]),
    oneOf(["up", "down", "unknown"]),
    oneOf(["", "bridge", "vlan", "vxlan"]),
    oneOf([true, false])
  ] as const),
  ([type, flags, operstate, devtype, physical]) =>
    Machines.link({ type, flags, operstate, devtype: devtype === "" ? undefined : devtype, physical })
)

const randomInterface = Arbitrary.all([
  oneOf(names),
  Arbitrary.array(oneOf(listed), { minLength: 0, maxLength: 5 }),
  randomLink,
  integer(0, 0xff)
] as const)

/** Any machine, most of them absurd. */
const randomSnapshot: Arbitrary.Arbitrary<Snapshot> = Arbitrary.map(
  Arbitrary.all([
    Arbitrary.array(randomInterface, { minLength: 0, maxLength: 6 }),
    oneOf([true, false]),
    oneOf(names)
  ] as const),
  ([all, says, route]) => ({
    interfaces: Object.fromEntries(
      all.map(([name, addresses]) => [name, addresses.map((address) => ({ address, internal: name === "lo" }))])
    ),
    links: says ? Object.fromEntries(all.map(([name, , link]) => [name, link])) : undefined,
    inet6: says ? all.map(([name, , , flags]) => Machines.inet6(name, "2001:db8::1", flags)) : [],
    defaultRoutes: [route]
  })
)

const randomOptions: Arbitrary.Arbitrary<SelectOptions> = Arbitrary.map(
  Arbitrary.all([
    oneOf(["", "*", "eth*", "lo", "docker0"]),
    oneOf(["", "eth1", "t*"]),
    oneOf(["", "ipv4", "ipv6"]),
    integer(0, 20)
  ] as const),
  ([include, exclude, family, max]) => ({
    ...(include === "" ? {} : { include: [include] }),
    ...(exclude === "" ? {} : { exclude: [exclude] }),
    ...(family === "" ? {} : { families: [family] }),
    max
  })
)

const never = [
  "0.0.0.0/32",
  "255.255.255.255/32",
  "224.0.0.0/4",
  "169.254.0.0/16",
  "::/128",
  "ff00::/8",
  "fe80::/10"
].map(IpNetwork.fromStringUnsafe)

describe("of any machine", () => {
  it.effect.prop("every address is decided upon once", { snapshot: randomSnapshot, options: randomOptions }, (given) =>
    Effect.sync(() => {
      const { addresses, considered } = select(given.snapshot, given.options)
      assert.strictEqual(
        considered.filter(({ address }) => address !== undefined).length,
        Object.values(given.snapshot.interfaces).flat().length
      )
      assert.deepStrictEqual(
        considered.filter(({ verdict }) => verdict === "taken").map(({ address }) => address),
        [...addresses]
      )
    })
  )

  it.effect.prop(
    "what is taken is distinct, fit for others, and no more than asked for",
    {
      snapshot: randomSnapshot,
      options: randomOptions
    },
    ({ options, snapshot }) =>
      Effect.sync(() => {
        const { addresses, considered } = select(snapshot, options)
        assert.strictEqual(new Set(addresses).size, addresses.length)
        assert.isAtMost(addresses.length, Math.min(options.max ?? 16, 16))
        for (const address of addresses) {
          assert.strictEqual(IpAddress.make(address), address)
          assert.isFalse(
            never.some((network) => IpAddress.isWithin(address, network)),
            address
          )
        }
        for (const { interface: name, kind, verdict } of considered) {
          if (verdict !== "taken") continue
          assert.isFalse(options.exclude?.some((pattern) => name.startsWith(pattern.replace("*", ""))) === true, name)
          if (options.include === undefined) assert.notInclude(["loopback", "container", "tunnel", "dummy"], kind)
        }
      })
  )

  it.effect.prop(
    "the order in which the system lists interfaces decides nothing but the order",
    {
      snapshot: randomSnapshot,
      options: randomOptions
    },
    ({ options, snapshot }) =>
      Effect.sync(() => {
        const reversed = {
          ...snapshot,
          interfaces: Object.fromEntries(Object.entries(snapshot.interfaces).toReversed())
        }
        const all = { ...options, max: 16 }
        assert.deepStrictEqual([...select(reversed, all).addresses].sort(), [...select(snapshot, all).addresses].sort())
      })
  )

  it.effect.prop("one family gives what both give, without the other", { snapshot: randomSnapshot }, ({ snapshot }) =>
    Effect.sync(() => {
      assert.deepStrictEqual(
        select(snapshot, { families: ["ipv4"] }).addresses,
        select(snapshot).addresses.filter((address) => !address.includes(":"))
      )
    })
  )
})
