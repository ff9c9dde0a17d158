/** Machines as they are found, written down: what the system says of them, nothing more. */
import type { Inet6, InterfaceAddress, Link, Snapshot } from "../../src/addresses/Snapshot.ts"

const running = 0x1043 // UP, BROADCAST, RUNNING, MULTICAST
const noCarrier = 0x1003

export const link = (fields: Partial<Link> = {}): Link => ({
  type: 1,
  flags: running,
  operstate: "up",
  devtype: undefined,
  physical: false,
  tun: false,
  ports: [],
  master: undefined,
  ...fields
})

const hardware = (fields: Partial<Link> = {}) => link({ physical: true, ...fields })
const bridge = (ports: ReadonlyArray<string>, fields: Partial<Link> = {}) =>
  link({ devtype: "bridge", ports, ...fields })
const lo = link({ type: 772, flags: 0x49, operstate: "unknown" })

const at = (...addresses: ReadonlyArray<string>): ReadonlyArray<InterfaceAddress> =>
  addresses.map((address) => ({ address, internal: false }))
const loopback: ReadonlyArray<InterfaceAddress> = ["127.0.0.1", "::1"].map((address) => ({ address, internal: true }))

/** `2001:db8::1` as the kernel's table has it. */
const hex = (address: string): string => {
  const [head = "", tail] = address.split("::")
  const before = head === "" ? [] : head.split(":")
  const after = tail === undefined || tail === "" ? [] : tail.split(":")
  const zeros = Array.from({ length: 8 - before.length - after.length }, () => "0")
  return [...before, ...zeros, ...after].map((group) => group.padStart(4, "0")).join("")
}

export const permanent = 0x80
export const dynamic = 0x00
export const temporary = 0x01
export const deprecated = 0x20
export const tentative = 0x40
export const conflict = 0x08

export const inet6 = (name: string, address: string, flags: number): Inet6 => ({ name, hex: hex(address), flags })

/** A laptop on wireless with a company's VPN that takes all traffic, IPv6 with privacy addresses, and an empty socket. */
export const laptop: Snapshot = {
  interfaces: {
    lo: loopback,
    wlp3s0: at(
      "192.168.1.23",
      "2001:db8:1:2:91aa:3f07:77e0:12cd",
      "2001:db8:1:2:4c1d:9b22:5be1:70f3",
      "2001:db8:1:2:e9f0:1122:3344:5566",
      "fe80::5e1f:8aff:fe03:77aa"
    ),
    tun0: at("10.8.0.6", "fe80::71c2:1b0e:9a55:1234"),
    tailscale0: at("100.101.102.103", "fd7a:115c:a1e0::6"),
    docker0: at("172.17.0.1")
  },
  links: {
    lo,
    enp0s31f6: hardware({ flags: noCarrier, operstate: "down" }),
    wlp3s0: hardware({ devtype: "wlan" }),
    tun0: link({ type: 65_534, flags: 0x10d1, operstate: "unknown", tun: true }),
    tailscale0: link({ type: 65_534, flags: 0x10d1, operstate: "unknown", tun: true }),
    docker0: bridge([])
  },
  inet6: [
    inet6("lo", "::1", permanent),
    inet6("wlp3s0", "2001:db8:1:2:91aa:3f07:77e0:12cd", temporary),
    inet6("wlp3s0", "2001:db8:1:2:4c1d:9b22:5be1:70f3", temporary | deprecated),
    inet6("wlp3s0", "2001:db8:1:2:e9f0:1122:3344:5566", dynamic),
    inet6("wlp3s0", "fe80::5e1f:8aff:fe03:77aa", permanent)
  ],
  defaultRoutes: ["tun0", "wlp3s0"]
}

/** A server that runs Docker with a network of its own, one container in it. */
export const dockerHost: Snapshot = {
  interfaces: {
    lo: loopback,
    ens3: at("203.0.113.10", "fe80::f816:3eff:fe20:57c4"),
    "br-5f1c2a9e7d34": at("172.18.0.1", "fe80::42:d4ff:fe6b:9f1c"),
    vethab12c3d: at("fe80::b8a1:2ff:fe7d:9e10")
  },
  links: {
    docker0: bridge([], { flags: noCarrier, operstate: "down" }),
    lo,
    ens3: hardware(),
    "br-5f1c2a9e7d34": bridge(["vethab12c3d"]),
    vethab12c3d: link({ master: "br-5f1c2a9e7d34" })
  },
  inet6: [],
  defaultRoutes: ["ens3"]
}

/** A Kubernetes node with flannel, kube-proxy in IPVS mode, the DNS cache of the node, and pods. */
export const kubernetesNode: Snapshot = {
  interfaces: {
    lo: loopback,
    eth0: at("10.20.0.11", "fe80::4001:aff:fe14:b"),
    "flannel.1": at("10.244.3.0", "fe80::a8c0:3aff:fe4e:d532"),
    cni0: at("10.244.3.1", "fe80::3c7a:51ff:fe0a:6d8f"),
    veth1f2e3d4c: at("fe80::1c5b:a8ff:fe9e:7f21"),
    "kube-ipvs0": at("10.96.0.1", "10.96.0.10", "10.103.52.7"),
    nodelocaldns: at("169.254.20.10")
  },
  links: {
    cni0: bridge(["veth1f2e3d4c"]),
    eth0: hardware(),
    "flannel.1": link({ devtype: "vxlan", operstate: "unknown" }),
    "kube-ipvs0": link({ flags: 0xc3, operstate: "unknown" }),
    lo,
    nodelocaldns: link({ flags: 0xc3, operstate: "unknown" }),
    veth1f2e3d4c: link({ master: "cni0" })
  },
  inet6: [],
  defaultRoutes: ["eth0"]
}

/** A server with two families, a bond with a VLAN on it, a second network, and an address that two interfaces have. */
export const dualStackServer: Snapshot = {
  interfaces: {
    lo: [...loopback, { address: "198.51.100.53", internal: true }],
    eno3: at("10.0.0.5", "fd12:3456:789a::5"),
    bond0: at("198.51.100.5", "2001:db8:5::5", "2001:db8:5::6", "2001:db8:5::7", "fe80::ec4:7aff:fe01:1"),
    "bond0.20": at("192.168.20.5", "10.0.0.5")
  },
  links: {
    lo,
    eno1: hardware({ master: "bond0" }),
    eno2: hardware({ master: "bond0", flags: noCarrier, operstate: "down" }),
    eno3: hardware(),
    bond0: link({ devtype: "bond" }),
    "bond0.20": link({ devtype: "vlan" })
  },
  inet6: [
    inet6("bond0", "2001:db8:5::5", permanent),
    inet6("bond0", "2001:db8:5::6", tentative),
    inet6("bond0", "2001:db8:5::7", permanent | conflict | tentative),
    inet6("eno3", "fd12:3456:789a::5", permanent)
  ],
  defaultRoutes: ["bond0"]
}

/** A machine for virtual machines: its hardware is in a bridge, and libvirt has a network of its own. */
export const hypervisor: Snapshot = {
  interfaces: {
    lo: loopback,
    br0: at("192.0.2.40", "fe80::1e69:7aff:fe0b:5"),
    virbr0: at("192.168.122.1"),
    vnet0: at("fe80::fc54:ff:fe1e:2d3c")
  },
  links: {
    lo,
    enp5s0: hardware({ master: "br0" }),
    br0: bridge(["enp5s0", "vnet0"]),
    virbr0: bridge(["vnet1"]),
    vnet0: link({ tun: true, master: "br0" })
  },
  inet6: [],
  defaultRoutes: ["br0"]
}

/** Inside a container: the other end of the pair is the host's. */
export const container: Snapshot = {
  interfaces: { lo: loopback, eth0: at("172.18.0.2") },
  links: { lo, eth0: link(), tunl0: link({ type: 768, flags: 0x80, operstate: "down" }) },
  inet6: [],
  defaultRoutes: ["eth0"]
}

/** A Mac: it says names and addresses, and no more. */
export const mac: Snapshot = {
  interfaces: {
    lo0: [...loopback, { address: "fe80::1", internal: true }],
    en0: at("fe80::1c8d:5a1f:33e7:41d2", "192.168.1.31", "2001:db8:1:2:c5d:8e21:90ab:77f0"),
    awdl0: at("fe80::a4c3:f0ff:fe8c:1d2e"),
    utun3: at("10.66.0.4"),
    bridge100: at("192.168.64.1")
  },
  links: undefined,
  inet6: [],
  defaultRoutes: []
}

/** Windows with its Linux beside it. */
export const windows: Snapshot = {
  interfaces: {
    Ethernet: at("192.0.2.77", "fe80::9d41:aa10:5cb3:1c77"),
    "vEthernet (WSL (Hyper-V firewall))": at("172.29.64.1"),
    "Loopback Pseudo-Interface 1": loopback
  },
  links: undefined,
  inet6: [],
  defaultRoutes: []
}

export const machines = {
  laptop,
  dockerHost,
  kubernetesNode,
  dualStackServer,
  hypervisor,
  container,
  mac,
  windows
}
