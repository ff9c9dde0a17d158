/**
 * What the TLS port is made of: the certificate and its key, and by whom
 * clients' certificates must be signed, read from files and read again when
 * these change or the process gets SIGHUP.
 *
 * Promises: TLS 1.3 only, and no session is resumed, so that every connection
 * is checked against what holds now; what is new in the files and cannot be
 * used changes nothing and is logged with what to do; a live connection whose
 * certificate was revoked or has run out is announced, and closed if the
 * announcement did not end it. Nothing of the key is ever logged. Leaves to
 * others: accepting connections (`Listener.ts`).
 */
import { Cause, Clock, Duration, Effect, Queue, Result } from "effect"
import { constants, randomBytes, X509Certificate } from "node:crypto"
import * as Fs from "node:fs"
import * as NodeTls from "node:tls"
import { principalName } from "@prism-dns/core/auth/Certificates"
import * as Proof from "@prism-dns/core/protocol/Proof"
import type { Revocation } from "@prism-dns/core/auth/Revocations"
import { CertificateUnusable } from "../ServerError.ts"
import * as ClientCertificates from "./ClientCertificates.ts"
import type { ClientCertificate, Tls } from "./Connection.ts"
import * as Crl from "./Crl.ts"
import * as TcpMetrics from "./TcpMetrics.ts"

/** What is asked of clients: nothing; a certificate that is good if they have one; a good certificate. */
export const clientCertificateModes = ["off", "optional", "required"] as const

export interface TlsOptions {
  /** Files in PEM. */
  readonly certificate: string
  readonly key: string
  /** The authorities whose certificates clients may bring, and no others. */
  readonly clientCa: string | undefined
  readonly clientCrl: string | undefined
  readonly clientCertificates: (typeof clientCertificateModes)[number]
  readonly clientName: ClientCertificates.NameSource
  /** How often the files are looked at. */
  readonly reloadInterval: Duration.Duration
  readonly handshakeTimeout: Duration.Duration
  /** Ends sessions by the name of their principal. */
  readonly announce: (revocation: Revocation) => void
}

/** A client certificate that does not hold. */
export interface Refused {
  readonly code: "certificate-missing" | "certificate-invalid" | "certificate-revoked"
  readonly message: string
}

export interface TlsPort {
  /** Listens to nothing: it is given connections (`emit("connection", socket)`), and tells of those that are secure. */
  readonly server: NodeTls.Server
  /** What a connection is handed on with, once its handshake is done; or why it is not. */
  readonly admit: (socket: NodeTls.TLSSocket) => Result.Result<Tls, Refused>
  /** Why a handshake failed, where that was the client's certificate. */
  readonly refusalOf: (error: NodeJS.ErrnoException, socket: NodeTls.TLSSocket) => Refused | undefined
}

/** A certificate is warned about when it runs out within this time. */
export const expiryWarningMillis = 14 * 86_400_000

/** How often it is warned about. */
const warningIntervalMillis = 86_400_000

/** How long a session has to end after it was announced that its certificate no longer holds. */
const endMillis = 1000

// --- Files ------------------------------------------------------------------------------------------------------

/** All that was read, and can be used. */
interface Material {
  readonly context: NodeTls.SecureContextOptions
  readonly certificate: X509Certificate
  readonly lists: ReadonlyArray<Crl.Crl>
}

const unusable = (setting: string, detail: string) => Result.fail(new CertificateUnusable({ setting, detail }))

const reasons: Readonly<Record<string, string>> = {
  ENOENT: "there is no such file",
  EACCES: "no permission to read it",
  EISDIR: "it is a folder"
}

const reasonOf = (error: unknown): string => {
  const code = error instanceof Error && "code" in error ? String(error.code) : ""
  return reasons[code] ?? (code === "" ? String(error) : code)
}

const readText = (setting: string, path: string): Result.Result<string, CertificateUnusable> => {
  try {
    return Result.succeed(Fs.readFileSync(path, "latin1"))
  } catch (error) {
    return unusable(setting, `its file cannot be read: ${reasonOf(error)}`)
  }
}

const blocksOf = (text: string, label: string): ReadonlyArray<string> =>
  text.match(new RegExp(`-----BEGIN ${label}-----[^-]+-----END ${label}-----`, "g")) ?? []

const derOf = (block: string): Uint8Array => Buffer.from(block.replace(/-----[^-]+-----/g, ""), "base64")

const readCertificates = (
  setting: string,
  path: string
): Result.Result<readonly [X509Certificate, ReadonlyArray<string>], CertificateUnusable> =>
  Result.flatMap(readText(setting, path), (text) => {
    const blocks = blocksOf(text, "CERTIFICATE")
    const [first] = blocks
    if (first === undefined) return unusable(setting, "the file holds no certificate in PEM (BEGIN CERTIFICATE)")
    try {
      const certificates = blocks.map((block) => new X509Certificate(block))
      return Result.succeed([certificates[0]!, blocks] as const)
    } catch {
      return unusable(setting, "the file holds a certificate that cannot be read; write it anew from its source")
    }
  })

const readLists = (
  path: string
): Result.Result<readonly [ReadonlyArray<Crl.Crl>, ReadonlyArray<string>], CertificateUnusable> =>
  Result.flatMap(readText("tls.clientCrl", path), (text) => {
    const blocks = blocksOf(text, "X509 CRL")
    const lists = blocks.map((block) => Crl.parse(derOf(block))).filter((list) => list !== undefined)
    if (blocks.length === 0) {
      return unusable(
        "tls.clientCrl",
        "the file holds no revocation list in PEM (BEGIN X509 CRL); openssl crl -inform DER makes one of another form"
      )
    }
    return lists.length < blocks.length
      ? unusable("tls.clientCrl", "the file holds a revocation list that cannot be read; fetch it anew")
      : Result.succeed([lists, blocks] as const)
  })

const read = (options: TlsOptions): Result.Result<Material, CertificateUnusable> =>
  Result.gen(function* () {
    const [certificate, chain] = yield* readCertificates("tls.certificate", options.certificate)
    const key = yield* readText("tls.key", options.key)
    if (/ENCRYPTED/.test(key)) {
      return yield* unusable("tls.key", "the key has a passphrase; write it without one, readable by this user only")
    }
    const ca = options.clientCa === undefined ? undefined : yield* readCertificates("tls.clientCa", options.clientCa)
    const crl = options.clientCrl === undefined ? undefined : yield* readLists(options.clientCrl)
    const context: NodeTls.SecureContextOptions = {
      cert: chain.join("\n"),
      key,
      minVersion: "TLSv1.3",
      maxVersion: "TLSv1.3",
      // No session is resumed: nothing is kept for it, and a certificate is looked at each time.
      secureOptions: constants.SSL_OP_NO_TICKET,
      ...(ca !== undefined && { ca: [...ca[1]] }),
      ...(crl !== undefined && { crl: [...crl[1]] })
    }
    try {
      NodeTls.createSecureContext(context)
    } catch (error) {
      return yield* unusable("tls.key", wordsOf(error))
    }
    return { context, certificate, lists: crl?.[0] ?? [] }
  })

/** OpenSSL's words may quote what it read; only its code is said. */
const wordsOf = (error: unknown): string => {
  const code = error instanceof Error && "code" in error ? String(error.code) : "unknown"
  return code.includes("KEY_VALUES_MISMATCH") || code.includes("KEY_TYPE_MISMATCH")
    ? "it is not the key of the certificate in tls.certificate; put both files of one pair in place"
    : `the file holds no key in PEM that OpenSSL takes (${code})`
}

/** Changes when a file is written, or another takes its place. */
const signatureOf = (options: TlsOptions): string =>
  [options.certificate, options.key, options.clientCa, options.clientCrl]
    .map((path) => {
      if (path === undefined) return ""
      try {
        const { ctimeMs, ino, mtimeMs, size } = Fs.statSync(path)
        return `${ino} ${mtimeMs} ${ctimeMs} ${size}`
      } catch (error) {
        return reasonOf(error)
      }
    })
    .join("\n")

// --- The port ---------------------------------------------------------------------------------------------------

/** A connection whose client has a certificate. */
interface Live {
  readonly certificate: ClientCertificate
  readonly holder: Crl.Holder | undefined
}

/**
 * RFC 9266, with its empty context. What still waits of a connection that is gone can prove nothing: it is bound to bytes
 * that nobody knows.
 */
const exporterOf = (socket: NodeTls.TLSSocket) => (): Uint8Array =>
  socket.destroyed
    ? randomBytes(Proof.exporterBytes)
    : socket.exportKeyingMaterial(Proof.exporterBytes, Proof.exporterLabel, Buffer.alloc(0))

const transport = (socket: NodeTls.TLSSocket, certificate: ClientCertificate | undefined): Tls => ({
  _tag: "Tls",
  exporter: exporterOf(socket),
  certificate
})

/** What the certificates of `options` make, for as long as the scope is open. */
export const make = Effect.fnUntraced(function* (options: TlsOptions) {
  const context = yield* Effect.context()
  const clock = yield* Clock.Clock
  const now = () => clock.currentTimeMillisUnsafe()
  const asks = options.clientCertificates !== "off"

  let signature = signatureOf(options)
  let material = yield* Effect.fromResult(read(options))
  const server = NodeTls.createServer({
    ...material.context,
    requestCert: asks,
    rejectUnauthorized: options.clientCertificates === "required",
    handshakeTimeout: Duration.toMillis(options.handshakeTimeout)
  })

  // --- Clients' certificates

  const live = new Map<NodeTls.TLSSocket, Live>()
  const forget = function (this: NodeTls.TLSSocket) {
    live.delete(this)
  }

  const admit = (socket: NodeTls.TLSSocket): Result.Result<Tls, Refused> => {
    const presented = asks ? socket.getPeerX509Certificate() : undefined
    if (presented === undefined) return Result.succeed(transport(socket, undefined))
    if (!socket.authorized) return Result.fail(refused(socket, presented))
    const certificate = ClientCertificates.read(presented, options.clientName)
    if (Result.isFailure(certificate)) {
      return Result.fail({
        code: "certificate-invalid",
        message: `the certificate ${shortened(presented)} names nobody: ${certificate.failure} (tls.clientName)`
      })
    }
    live.set(socket, { certificate: certificate.success, holder: Crl.holderOf(presented.raw) })
    socket.on("close", forget)
    return Result.succeed(transport(socket, certificate.success))
  }

  const refusalOf = (error: NodeJS.ErrnoException, socket: NodeTls.TLSSocket): Refused | undefined => {
    if (error.code === "ERR_SSL_PEER_DID_NOT_RETURN_A_CERTIFICATE") {
      return { code: "certificate-missing", message: "the client has no certificate (tls.clientCertificates)" }
    }
    // Where a good one is required Node has closed the connection by now, and says no more than this.
    return asks && codeOf(socket) !== undefined ? refused(socket, undefined) : undefined
  }

  /** Ends what is live and no longer holds. */
  const end = (socket: NodeTls.TLSSocket, { certificate }: Live, code: Refused["code"], reason: string) => {
    live.delete(socket)
    options.announce({
      principal: principalName(certificate.name),
      certificate: certificate.fingerprint,
      code,
      message: `the client certificate ${certificate.fingerprint.slice(0, 16)} ${reason}`
    })
    // Whatever the session makes of it, the connection was let in by this certificate.
    setTimeout(() => socket.destroy(), endMillis).unref()
  }

  const endWhatNoLongerHolds = () => {
    const nowMillis = now()
    for (const [socket, entry] of live) {
      if (entry.holder !== undefined && Crl.isRevoked(entry.holder, material.lists)) {
        end(socket, entry, "certificate-revoked", "was revoked")
      } else if (entry.certificate.expiresAtMillis <= nowMillis) {
        end(socket, entry, "certificate-invalid", "has expired")
      }
    }
  }

  // --- Our own

  const setExpiry = () =>
    TcpMetrics.tlsCertificateExpiry.updateUnsafe(Date.parse(material.certificate.validTo) / 1000, context)

  let warnedAtMillis = Number.NEGATIVE_INFINITY
  const warn = Effect.suspend(() => {
    const nowMillis = now()
    if (nowMillis - warnedAtMillis < warningIntervalMillis) return Effect.void
    const lines: Array<Effect.Effect<void>> = []
    const expiresAtMillis = Date.parse(material.certificate.validTo)
    const until = { until: new Date(expiresAtMillis).toISOString() }
    if (expiresAtMillis <= nowMillis) {
      lines.push(
        Effect.logError("the certificate of the TLS port has expired: put a new one in place").pipe(
          Effect.annotateLogs(until)
        )
      )
    } else if (expiresAtMillis - nowMillis < expiryWarningMillis) {
      lines.push(
        Effect.logWarning("the certificate of the TLS port runs out soon: put a new one in place").pipe(
          Effect.annotateLogs(until)
        )
      )
    }
    for (const { nextUpdateMillis } of material.lists) {
      if (nextUpdateMillis === undefined || nextUpdateMillis > nowMillis) continue
      lines.push(
        Effect.logError(
          "tls.clientCrl has run out, and no client certificate is taken until a new list is in place"
        ).pipe(Effect.annotateLogs({ until: new Date(nextUpdateMillis).toISOString() }))
      )
    }
    if (lines.length > 0) warnedAtMillis = nowMillis
    return Effect.all(lines, { discard: true })
  })

  const load = Effect.suspend(() => {
    const found = read(options)
    if (Result.isFailure(found)) {
      return Effect.logError("the new files for TLS cannot be used, those read before stay in force").pipe(
        Effect.annotateLogs({ reason: found.failure.message })
      )
    }
    material = found.success
    server.setSecureContext(material.context)
    setExpiry()
    warnedAtMillis = Number.NEGATIVE_INFINITY
    return Effect.logInfo("the files for TLS were read again").pipe(
      Effect.annotateLogs({
        fingerprint: ClientCertificates.fingerprintOf(material.certificate),
        until: new Date(Date.parse(material.certificate.validTo)).toISOString()
      })
    )
  })

  /** Looks at the files; reads them when they have changed, or when `asked`. */
  const look = (asked: boolean) =>
    Effect.gen(function* () {
      // Taken before they are read: what changes meanwhile is read the next time.
      const present = signatureOf(options)
      if (asked || present !== signature) {
        signature = present
        yield* load
      }
      endWhatNoLongerHolds()
      yield* warn
    }).pipe(
      // Whatever one look comes upon: the next one must come, or nothing revoked would end any more.
      Effect.catchDefect((defect) => Effect.logError("the files for TLS could not be looked at", Cause.die(defect)))
    )

  setExpiry()
  yield* warn
  const hangups = yield* Queue.sliding<void>(1)
  yield* Effect.acquireRelease(
    Effect.sync(() => {
      const noteHangup = () => void Queue.offerUnsafe(hangups, undefined)
      process.on("SIGHUP", noteHangup)
      return noteHangup
    }),
    (noteHangup) => Effect.sync(() => process.off("SIGHUP", noteHangup))
  )
  yield* Queue.take(hangups).pipe(
    Effect.timeoutOption(options.reloadInterval),
    Effect.flatMap((hangup) => look(hangup._tag === "Some")),
    Effect.forever,
    Effect.forkScoped
  )
  return { server, admit, refusalOf } satisfies TlsPort
})

const shortened = (certificate: X509Certificate): string => ClientCertificates.fingerprintOf(certificate).slice(0, 16)

/** Node says it as a string; its types do not know that it may be missing. */
const codeOf = (socket: NodeTls.TLSSocket): string | undefined => {
  const code: unknown = socket.authorizationError
  return typeof code === "string" ? code : undefined
}

/** OpenSSL's codes in words; what is not here is said by its code. */
const verifyWords: Readonly<Record<string, string>> = {
  CERT_HAS_EXPIRED: "has expired",
  CERT_NOT_YET_VALID: "is not valid yet",
  CERT_REVOKED: "was revoked",
  CRL_HAS_EXPIRED: "cannot be checked: the revocation list has run out",
  UNABLE_TO_GET_CRL: "cannot be checked: there is no revocation list of its authority",
  DEPTH_ZERO_SELF_SIGNED_CERT: "is signed by none of the authorities in tls.clientCa",
  SELF_SIGNED_CERT_IN_CHAIN: "is signed by none of the authorities in tls.clientCa",
  UNABLE_TO_GET_ISSUER_CERT: "is signed by none of the authorities in tls.clientCa",
  UNABLE_TO_GET_ISSUER_CERT_LOCALLY: "is signed by none of the authorities in tls.clientCa",
  UNABLE_TO_VERIFY_LEAF_SIGNATURE: "is signed by none of the authorities in tls.clientCa",
  INVALID_PURPOSE: "is not for clients"
}

const refused = (socket: NodeTls.TLSSocket, certificate: X509Certificate | undefined): Refused => {
  const code = codeOf(socket) ?? "unknown"
  const which =
    certificate === undefined ? "the client certificate" : `the client certificate ${shortened(certificate)}`
  return {
    code: code === "CERT_REVOKED" ? "certificate-revoked" : "certificate-invalid",
    message: `${which} ${verifyWords[code] ?? `does not hold: ${code}`}`
  }
}
