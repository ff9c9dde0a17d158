/**
 * What a machine says of its network interfaces at one moment, as values.
 *
 * `os.networkInterfaces()` gives addresses of the interfaces that are up;
 * Linux says more in `/sys/class/net` (what kind of device, and those that are
 * down) and `/proc/net` (which IPv6 addresses are temporary or deprecated, and
 * where the default route leads). Elsewhere that part is absent.
 *
 * Promises: reading never fails and never takes long: what cannot be read is
 * absent, and no more than `linksMax` devices and `textBytesMax` of a table are
 * looked at. Leaves to others: what follows from it (`Selection`).
 */
import * as Fs from "node:fs"
import * as Os from "node:os"

/** Devices that are looked at. A busy Kubernetes node has some hundred. */
export const linksMax = 1024
/** Of a table in `/proc/net`. The default route stands near the top of its table. */
export const textBytesMax = 65_536
/** Looks after which devices are read again although no address has changed. */
export const looksPerLinks = 12

/** An address as the system lists it. */
export interface InterfaceAddress {
  readonly address: string
  /** `lo`, of the machine itself. */
  readonly internal: boolean
}

/** What Linux says of a device. */
export interface Link {
  /** The ARP type: 1 Ethernet, 772 loopback, 512 PPP, 65534 none, and 768 to 823 tunnels. */
  readonly type: number
  /** As `ip link` shows them in angle brackets; the bits are the kernel's. */
  readonly flags: number
  /** `up`, `down`, `unknown` (it does not say), `dormant`, `lowerlayerdown`… */
  readonly operstate: string
  /** `bridge`, `vlan`, `wlan`, `bond`, `vxlan`, `wireguard`…; plain Ethernet has none. */
  readonly devtype: string | undefined
  /** There is hardware, or what a hypervisor shows as such. */
  readonly physical: boolean
  /** A tun or tap: some program is at its other end. */
  readonly tun: boolean
  /** The devices that a bridge joins. */
  readonly ports: ReadonlyArray<string>
  /** The bridge, bond or VRF that it belongs to. */
  readonly master: string | undefined
}

/** An IPv6 address of an interface, with what Linux says of it. */
export interface Inet6 {
  readonly name: string
  /** 32 hexadecimal digits. */
  readonly hex: string
  readonly flags: number
}

export interface Snapshot {
  /** By name of the interface, in the system's order. */
  readonly interfaces: Readonly<Record<string, ReadonlyArray<InterfaceAddress>>>
  /** By name; undefined where the system does not say. */
  readonly links: Readonly<Record<string, Link>> | undefined
  readonly inet6: ReadonlyArray<Inet6>
  /** The interfaces that a default route leads to. */
  readonly defaultRoutes: ReadonlyArray<string>
}

/** A file of the system; empty when it cannot be read. Some of those below exist and cannot be read at all times. */
const text = (path: string): string => {
  let file: number | undefined
  try {
    file = Fs.openSync(path, "r")
    const buffer = Buffer.alloc(textBytesMax)
    let length = 0
    while (length < buffer.length) {
      const read = Fs.readSync(file, buffer, length, buffer.length - length, null)
      if (read === 0) break
      length += read
    }
    return buffer.toString("latin1", 0, length)
  } catch {
    return ""
  } finally {
    if (file !== undefined) Fs.closeSync(file)
  }
}

const names = (folder: string): ReadonlyArray<string> => {
  try {
    return Fs.readdirSync(folder).slice(0, linksMax)
  } catch {
    return []
  }
}

const nameOfLink = (path: string): string | undefined => {
  try {
    return Fs.readlinkSync(path).split("/").at(-1)
  } catch {
    return undefined
  }
}

/** Lines of a table, without one that its end was cut off. */
const lines = (table: string): ReadonlyArray<ReadonlyArray<string>> =>
  table
    .slice(0, table.lastIndexOf("\n") + 1)
    .split("\n")
    .map((line) => line.trim().split(/\s+/))

/** Reads `/proc/net/if_inet6`: address, index, prefix, scope, flags, name. */
export const parseInet6 = (table: string): ReadonlyArray<Inet6> =>
  lines(table).flatMap((fields) => {
    const [hex, , , , flags, name] = fields
    return hex !== undefined && /^[0-9a-f]{32}$/.test(hex) && flags !== undefined && name !== undefined
      ? [{ name, hex, flags: Number.parseInt(flags, 16) }]
      : []
  })

const routeUp = 0x1
const routeRejects = 0x200

/** Reads `/proc/net/route` and `/proc/net/ipv6_route`: the interfaces of default routes. */
export const parseDefaultRoutes = (ipv4: string, ipv6: string): ReadonlyArray<string> => {
  const isOpen = (flags: string | undefined) => {
    const bits = Number.parseInt(flags ?? "", 16)
    return (bits & routeUp) !== 0 && (bits & routeRejects) === 0
  }
  const found = [
    ...lines(ipv4).flatMap(([name, destination, , flags, , , , mask]) =>
      name !== undefined && destination === "00000000" && mask === "00000000" && isOpen(flags) ? [name] : []
    ),
    ...lines(ipv6).flatMap((fields) =>
      /^0{32}$/.test(fields[0] ?? "") && fields[1] === "00" && isOpen(fields[8]) ? [fields[9]!] : []
    )
  ]
  return [...new Set(found)].filter((name) => name !== "lo")
}

const readLink = (folder: string): Link => {
  const devtype = /^DEVTYPE=(.+)$/m.exec(text(`${folder}/uevent`))?.[1]
  return {
    type: Number.parseInt(text(`${folder}/type`), 10) || 0,
    flags: Number.parseInt(text(`${folder}/flags`), 16) || 0,
    operstate: text(`${folder}/operstate`).trim() || "unknown",
    devtype,
    physical: Fs.existsSync(`${folder}/device`),
    tun: Fs.existsSync(`${folder}/tun_flags`),
    ports: devtype === "bridge" ? names(`${folder}/brif`) : [],
    master: nameOfLink(`${folder}/master`)
  }
}

const readLinks = (): Snapshot["links"] => {
  const found = names("/sys/class/net").map((name) => [name, readLink(`/sys/class/net/${name}`)] as const)
  return found.length === 0 ? undefined : Object.fromEntries(found)
}

const readInterfaces = (): Snapshot["interfaces"] =>
  Object.fromEntries(
    Object.entries(Os.networkInterfaces()).map(([name, all]) => [
      name,
      (all ?? []).map(({ address, internal }) => ({ address, internal }))
    ])
  )

/**
 * A function that gives the present snapshot. Cheap enough for every few seconds: devices, of which there may be
 * hundreds, are read again only when addresses have changed, and at every twelfth look.
 */
export const makeReader = (): (() => Snapshot) => {
  const isLinux = process.platform === "linux"
  let seen = ""
  let looks = 0
  let links: Snapshot["links"]
  let defaultRoutes: ReadonlyArray<string> = []
  return () => {
    const interfaces = readInterfaces()
    const inet6 = isLinux ? text("/proc/net/if_inet6") : ""
    const now = `${JSON.stringify(interfaces)}\n${inet6}`
    if (isLinux && (now !== seen || ++looks >= looksPerLinks)) {
      links = readLinks()
      defaultRoutes = parseDefaultRoutes(text("/proc/net/route"), text("/proc/net/ipv6_route"))
      seen = now
      looks = 0
    }
    return { interfaces, links, inet6: parseInet6(inet6), defaultRoutes }
  }
}

/** The present snapshot. */
export const read = (): Snapshot => makeReader()()
