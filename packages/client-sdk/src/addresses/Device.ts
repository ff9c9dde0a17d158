/**
 * What kind of device a network interface is, as far as addresses are
 * concerned: does what it has belong to this machine in the eyes of others?
 *
 * Facts decide where Linux gives them; names do where it does not, and for
 * bridges, since one of Docker looks like any other. The name of a device that
 * is hardware never matters.
 */
import type { Link, Snapshot } from "./Snapshot.ts"

/**
 * `physical`: hardware · `joined`: a bond, a VLAN, a bridge with hardware in it · `virtual`: another Ethernet, such as
 * the one inside a container · `container`: between this machine and its own containers or virtual machines ·
 * `tunnel`: VPNs, overlays and other point-to-point links · `dummy`: leads nowhere · `unknown`: the system does not say.
 */
export type Kind = "physical" | "joined" | "virtual" | "unknown" | "loopback" | "container" | "tunnel" | "dummy"

/** Bits of the kernel's interface flags. */
const isUp = 0x1
const isPointToPoint = 0x10
const hasNoArp = 0x80

const ethernet = 1
const loopback = 772
/** IPv4 in IPv4, IPv6 in IPv6, IPv6 in IPv4, GRE in both, PPP, and what has no link layer at all: tun, WireGuard. */
const tunnelTypes: ReadonlySet<number> = new Set([512, 768, 769, 776, 778, 823, 65_534])
const tunnelDevices: ReadonlySet<string> = new Set(["vxlan", "geneve", "wireguard", "ppp"])
const joinedDevices: ReadonlySet<string> = new Set(["vlan", "bond", "team"])

const containerName = new RegExp(
  `^(?:${[
    "docker\\d+",
    "docker_gwbridge",
    "br-[0-9a-f]{12}",
    "podman\\d+",
    "cni.*",
    "nerdctl\\d+",
    "veth.*",
    "lxc.*",
    "lxdbr\\d+",
    "incusbr\\d+",
    "virbr\\d+(?:-nic)?",
    "vnet\\d+",
    "vmnet\\d+",
    "vboxnet\\d+",
    "cali.*",
    "cilium_.*",
    "flannel.*",
    "weave",
    "kube-.*",
    "cbr0",
    "azv.*",
    "bridge1\\d\\d", // macOS, of its virtual machines
    "vEthernet \\(.*" // Windows
  ].join("|")})$`
)
const tunnelName = /^(?:u?tun|tap|wg|ppp|ipsec|gre|sit|ip6tnl|tailscale|zt|vxlan)[\w.-]*$/

const kindByName = (name: string): Kind =>
  containerName.test(name) ? "container" : tunnelName.test(name) ? "tunnel" : "unknown"

const isHardware = (link: Link | undefined) =>
  link !== undefined && (link.physical || joinedDevices.has(link.devtype ?? ""))

const kindOfBridge = (name: string, link: Link, snapshot: Snapshot): Kind => {
  if (containerName.test(name)) return "container"
  // A bridge that hardware is in, or that leads to the world, is how this machine is reached.
  const leadsOut =
    link.ports.some((port) => isHardware(snapshot.links?.[port])) || snapshot.defaultRoutes.includes(name)
  return leadsOut ? "joined" : "container"
}

/** The kind of the interface `name` of a snapshot. */
export const kindOf = (name: string, snapshot: Snapshot): Kind => {
  if (snapshot.interfaces[name]?.some((address) => address.internal) === true) return "loopback"
  const link = snapshot.links?.[name]
  if (link === undefined) return kindByName(name)
  if (link.type === loopback) return "loopback"
  if (link.physical) return "physical"
  if (link.devtype === "bridge") return kindOfBridge(name, link, snapshot)
  if (joinedDevices.has(link.devtype ?? "")) return "joined"
  // One end of a pair, or a tap, whose other end a container or a virtual machine has.
  const isPort = link.master !== undefined && snapshot.links?.[link.master]?.devtype === "bridge"
  if (isPort) return "container"
  if (
    link.tun ||
    tunnelTypes.has(link.type) ||
    tunnelDevices.has(link.devtype ?? "") ||
    (link.flags & isPointToPoint) !== 0
  ) {
    return containerName.test(name) ? "container" : "tunnel"
  }
  if (link.type === ethernet && (link.flags & hasNoArp) !== 0) return "dummy"
  if (containerName.test(name)) return "container"
  return "virtual"
}

/** Whether an interface is known to be out of use. Where it does not say, it is in use. */
export const isDown = (link: Link | undefined): boolean =>
  link !== undefined && ((link.flags & isUp) === 0 || !["up", "unknown", "dormant"].includes(link.operstate))
