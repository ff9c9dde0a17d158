/** What a listener knows of a connection that it has accepted, once header and handshake are done. */
import type { IpAddress } from "@prism-dns/core/domain/IpAddress"
import type * as Net from "node:net"

export interface Connection {
  /** Of TLS it is a `TLSSocket`: bytes in and out are those of the protocol. */
  readonly socket: Net.Socket
  /** The agent's address, behind a load balancer too; undefined when it reset before it could be read. */
  readonly peer: IpAddress | undefined
  readonly transport: Plain | Tls
}

export interface Plain {
  readonly _tag: "Plain"
}

export interface Tls {
  readonly _tag: "Tls"
  /** What proofs are bound to (RFC 9266, `tls-exporter`). */
  readonly exporter: () => Uint8Array
  /** The client's, verified against the configured authority; undefined when it brought none. */
  readonly certificate: ClientCertificate | undefined
}

export interface ClientCertificate {
  /** The subject, as the configuration reads it. */
  readonly name: string
  /** SHA-256 of the certificate, in hexadecimal. */
  readonly fingerprint: string
  readonly serial: string
  readonly expiresAtMillis: number
}

/**
 * Why a connection is not handed on. `timeout`: its header did not come in time; `not-tls`: it speaks the protocol without
 * TLS on the TLS port. The others are refusals of access.
 */
export type RefusalCode =
  | "proxy-not-allowed"
  | "proxy-missing"
  | "proxy-invalid"
  | "certificate-missing"
  | "certificate-invalid"
  | "certificate-revoked"
  | "timeout"
  | "not-tls"

/** What the listeners tell the server. */
export interface Hooks {
  /** A connection was accepted; false: it is over the limit, and the hook has turned it away. */
  readonly opened: (socket: Net.Socket) => boolean
  /**
   * Header or handshake is wrong: audited, counted, answered, closed. `peer` is who is really connected. Without `answer`
   * nothing can be said to the other end: it expects TLS, and that failed.
   */
  readonly refused: (
    socket: Net.Socket,
    code: RefusalCode,
    message: string,
    peer: IpAddress | undefined,
    answer: boolean
  ) => void
  readonly ready: (connection: Connection) => void
}
