/** Headers of the PROXY protocol, right and wrong, as balancers and forgers write them. */
import { crc32c } from "../../src/tcp/ProxyHeader.ts"

export const line = (source: string, destination = source.includes(":") ? "2001:db8::1" : "192.0.2.1"): Buffer =>
  Buffer.from(`PROXY ${source.includes(":") ? "TCP6" : "TCP4"} ${source} ${destination} 51000 8080\r\n`)

export const signature = Buffer.from("\r\n\r\n\0\r\nQUIT\n", "latin1")

export const extension = (type: number, value: Uint8Array): Buffer =>
  Buffer.concat([Buffer.from([type, value.length >>> 8, value.length & 255]), value])

/** Bytes of an address: four, or eight groups written out. */
const addressBytes = (address: string): Buffer =>
  address.includes(":")
    ? Buffer.from(
        address
          .split(":")
          .map((group) => group.padStart(4, "0"))
          .join(""),
        "hex"
      )
    : Buffer.from(address.split(".").map(Number))

export interface Binary {
  readonly versionAndCommand?: number
  readonly family?: number
  /** Both addresses and ports. */
  readonly addresses?: Uint8Array
  readonly extensions?: ReadonlyArray<Uint8Array>
  readonly checksum?: "right" | "wrong"
  /** What it says of its length. */
  readonly announced?: number
}

export const addresses = (source: string, destination: string): Buffer =>
  Buffer.concat([addressBytes(source), addressBytes(destination), Buffer.from([0xc7, 0x38, 0x1f, 0x90])])

export const binary = (header: Binary = {}): Buffer => {
  const rest = Buffer.concat([
    header.addresses ?? addresses("192.0.2.7", "192.0.2.1"),
    ...(header.extensions ?? []),
    ...(header.checksum === undefined ? [] : [extension(3, new Uint8Array(4))])
  ])
  const announced = header.announced ?? rest.length
  const bytes = Buffer.concat([
    signature,
    Buffer.from([header.versionAndCommand ?? 0x21, header.family ?? 0x11, announced >>> 8, announced & 255]),
    rest
  ])
  if (header.checksum !== undefined) {
    bytes.writeUInt32BE((crc32c(bytes) ^ (header.checksum === "right" ? 0 : 1)) >>> 0, bytes.length - 4)
  }
  return bytes
}
