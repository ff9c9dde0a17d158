/**
 * The address of a TCP peer, also when it has already reset the connection.
 *
 * A client that sends and closes with a reset is usually gone before its
 * connection is accepted. Its bytes can be read, but `getpeername` fails with
 * ENOTCONN, and Node throws away what `accept` said: `remoteAddress` is
 * undefined. Linux still knows: the socket option SO_PEERNAME answers in that
 * state. It is asked through `koffi`, only for such connections (some 8 µs);
 * without koffi, or elsewhere, the address stays unknown.
 *
 * See docs/decisions for why.
 */
import * as IpAddress from "@prism-dns/core/domain/IpAddress"
import { Effect, Result } from "effect"
import * as Net from "node:net"

/** Finds the peer of an accepted connection; undefined when nothing can tell. */
export type PeerAddress = (socket: Net.Socket) => IpAddress.IpAddress | undefined

// From the Linux headers: the same on every architecture Node runs on, except MIPS, PA-RISC and SPARC.
const SOL_SOCKET = 1
const SO_PEERNAME = 28
const AF_INET = 2
const AF_INET6 = 10

type Getsockopt = (fd: number, level: number, name: number, value: Uint8Array, length: [number]) => number

const loadGetsockopt = Effect.tryPromise(async (): Promise<Getsockopt> => {
  const { default: koffi } = await import("koffi")
  return koffi
    .load(null)
    .func("int getsockopt(int fd, int level, int name, _Out_ uint8_t *value, _Inout_ uint32_t *length)") as Getsockopt
})

const parse = (text: string | undefined): IpAddress.IpAddress | undefined => {
  if (text === undefined) return undefined
  // The kernel's own text of an IPv4 address is canonical.
  return Net.isIPv4(text) ? (text as IpAddress.IpAddress) : Result.getOrUndefined(IpAddress.fromPeer(text))
}

const fromSockaddr = (bytes: Uint8Array): IpAddress.IpAddress | undefined => {
  const family = new Uint16Array(bytes.buffer, bytes.byteOffset, 1)[0]
  if (family === AF_INET) return parse(bytes.subarray(4, 8).join("."))
  if (family !== AF_INET6) return undefined
  const view = new DataView(bytes.buffer, bytes.byteOffset)
  return parse(Array.from({ length: 8 }, (_, i) => view.getUint16(8 + i * 2).toString(16)).join(":"))
}

const fromKernel = (getsockopt: Getsockopt, socket: Net.Socket): IpAddress.IpAddress | undefined => {
  const handle = (socket as { readonly _handle?: { readonly fd?: number } | null })._handle
  if (handle?.fd === undefined || handle.fd < 0) return undefined
  // The kernel refuses a buffer longer than the address: a sockaddr_in6 is 28 bytes, a sockaddr_in 16.
  for (const length of [28, 16]) {
    const bytes = new Uint8Array(length)
    if (getsockopt(handle.fd, SOL_SOCKET, SO_PEERNAME, bytes, [length]) === 0) return fromSockaddr(bytes)
  }
  return undefined
}

/** The best this platform can do; says so once where that is less than everything. */
export const make: Effect.Effect<PeerAddress> = Effect.gen(function* () {
  const getsockopt = process.platform === "linux" ? yield* Effect.option(loadGetsockopt) : undefined
  if (getsockopt?._tag === "Some") {
    const { value } = getsockopt
    return (socket) => parse(socket.remoteAddress) ?? fromKernel(value, socket)
  }
  yield* Effect.logWarning(
    "the address of a client that resets its connection at once cannot be found here, and its registrations are refused (on Linux, install the optional package koffi)"
  )
  return (socket) => parse(socket.remoteAddress)
})
