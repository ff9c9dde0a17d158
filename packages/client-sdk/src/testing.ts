/// <reference lib="esnext.disposable" preserve="true" />
/**
 * A server for tests of programs that use the SDK: it speaks protocol 2 on a
 * real port of loopback, keeps hosts in memory, and does wrong what a test
 * asks for by name.
 *
 * What it is faithful in is kept by a suite that the real server passes too:
 * handshake with every way of proving, acknowledgements in their order, beats,
 * `lease-unknown`, update, release, refusals. It has no DNS: levels are reached
 * at once, or after the delays that are set.
 */
import * as Message from "@prism-dns/core/protocol/MessageV2"
import * as Proof from "@prism-dns/core/protocol/Proof"
import * as Wire from "@prism-dns/core/protocol/Wire"
import * as Result from "effect/Result"
import * as Crypto from "node:crypto"
import * as Net from "node:net"
import * as Tls from "node:tls"
import { type Level, levels } from "./Options.ts"

/** Kinds of frames that agents send. */
export type RequestType = "hello" | "proof" | "register" | "update" | "heartbeat" | "release" | "rotate"

export interface Refusal {
  readonly code: string
  /** Default: a sentence that says it is a test's. */
  readonly message?: string | undefined
  /** Default false. */
  readonly retryable?: boolean | undefined
  readonly retryAfterSeconds?: number | undefined
  /** Closes the connection behind it. Default false, with `hello` and `proof` true. */
  readonly closing?: boolean | undefined
}

export interface FakeToken {
  readonly token: string
  /** Default both. */
  readonly allows?: "bearer" | "enrol" | "both" | undefined
  /** Identities it may enrol; default as many as one likes. */
  readonly usesMax?: number | undefined
  readonly expired?: boolean | undefined
}

/** A host as the fake has it. */
export interface FakeHost {
  readonly host: string
  readonly addresses: ReadonlyArray<string>
  readonly ttlSeconds: number | undefined
  readonly labels: Readonly<Record<string, string>>
  readonly owner: string
  readonly generation: number
  readonly level: Level
  /** Sessions that hold its lease at this moment: one, in a hand-over two for a while, none when its agent is away. */
  readonly sessions: number
  /** How often it was left without one. */
  readonly gaps: number
}

export interface FakeServerOptions {
  /** Default `127.0.0.1`. */
  readonly host?: string | undefined
  /** Default: any free one. */
  readonly port?: number | undefined
  /** Default `hosts.prism.test`. */
  readonly zones?: ReadonlyArray<string> | undefined
  /** None: whoever brings no token is served as anonymous. Some: a token or an enrolled key is needed. */
  readonly tokens?: ReadonlyArray<FakeToken> | undefined
  /** Default 60. */
  readonly beatSeconds?: number | undefined
  /** Default 150. */
  readonly leaseSeconds?: number | undefined
  /** From `accepted` to `applied`, and from there to `served`. Default 0: at once. Undefined level: `stopAt`. */
  readonly levelMillis?: number | undefined
  /** No level beyond this is reached. Default `served`. */
  readonly stopAt?: Level | undefined
  /** With it, the port speaks TLS. Certificate and key as PEM. */
  readonly tls?: { readonly cert: string; readonly key: string; readonly clientCa?: string | undefined } | undefined
  /** Hosts and identities, where several servers share them. Default: its own. */
  readonly registry?: FakeRegistry | undefined
}

interface HostRecord {
  host: string
  addresses: ReadonlyArray<string>
  ttlSeconds: number | undefined
  labels: Readonly<Record<string, string>>
  owner: string
  generation: number
  level: Level
  gaps: number
  readonly holders: Set<Session>
}

/** What a registry holds. Not for those who use it: the types of it are not published. */
interface Kept {
  readonly records: Map<string, HostRecord>
  /** Names of identities by public key. */
  readonly identities: Map<string, { readonly name: string; readonly token: string }>
  readonly formerKeys: Set<string>
  readonly revoked: Set<string>
  /** By token. */
  readonly uses: Map<string, number>
}

const kept = new WeakMap<FakeRegistry, Kept>()

const keptBy = (registry: FakeRegistry): Kept => kept.get(registry)!

/** What outlives a restart of a fake server, and what several of them share. */
export class FakeRegistry {
  constructor() {
    kept.set(this, {
      records: new Map(),
      identities: new Map(),
      formerKeys: new Set(),
      revoked: new Set(),
      uses: new Map()
    })
  }

  get hosts(): ReadonlyArray<FakeHost> {
    return [...keptBy(this).records.values()].map(({ holders, ...record }) => ({ ...record, sessions: holders.size }))
  }
}

interface Session {
  readonly name: string
  readonly socket: Net.Socket
  readonly decoder: Wire.FrameDecoder
  readonly hosts: Map<string, HostRecord>
  state: "hello" | "proof" | "open" | "closed"
  auth: Message.Auth | undefined
  nonce: string
  /** Nothing is sent on it any more. */
  mute: boolean
  principal: { readonly name: string; readonly kind: Message.Welcome["identity"]["kind"] }
}

/** A frame that came. */
export interface Received {
  readonly type: RequestType
  readonly session: string
  readonly message: Readonly<Record<string, unknown>>
  readonly atMillis: number
}

/** Frames kept in `received`; older ones are dropped. */
const receivedMax = 100_000

const anonymous: Session["principal"] = { name: "anonymous", kind: "anonymous" }

export class FakeServer {
  readonly registry: FakeRegistry
  /** What came, in order. */
  readonly received: Array<Received> = []
  /** Connections accepted so far. */
  connections = 0
  readonly #options: FakeServerOptions
  readonly #sessions = new Set<Session>()
  readonly #refusals = new Map<RequestType, Array<Refusal>>()
  readonly #delays = new Map<RequestType, Array<number>>()
  readonly #cuts: Array<Level | RequestType> = []
  readonly #cutsInstead = new Set<RequestType>()
  readonly #silences = new Map<RequestType, number>()
  readonly #timers = new Set<NodeJS.Timeout>()
  /** Hosts whose lease a session shall be told is unknown. */
  readonly #forgotten = new Map<Session, ReadonlyArray<string>>()
  #answerMillis = 0
  #stopAt: Level
  #frozen = false
  #draining: number | undefined
  #server: Net.Server | undefined
  #port = 0
  #count = 0

  private constructor(options: FakeServerOptions) {
    this.#options = options
    this.#stopAt = options.stopAt ?? "served"
    this.registry = options.registry ?? new FakeRegistry()
  }

  /** Starts one; ready when the promise resolves. */
  static async start(options: FakeServerOptions = {}): Promise<FakeServer> {
    const server = new FakeServer(options)
    await server.#listen(options.port ?? 0)
    return server
  }

  /** For the SDK's `server`. */
  get address(): string {
    return `${this.#options.tls === undefined ? "" : "tls://"}${this.#host}:${this.#port}`
  }

  get #host(): string {
    return this.#options.host ?? "127.0.0.1"
  }

  get port(): number {
    return this.#port
  }

  get hosts(): ReadonlyArray<FakeHost> {
    return this.registry.hosts
  }

  /** Sessions past their handshake. */
  get sessions(): number {
    return [...this.#sessions].filter(({ state }) => state === "open").length
  }

  /** The host of that name, full or without its zone. */
  host(name: string): FakeHost | undefined {
    return this.hosts.find(({ host }) => host === name || host.startsWith(`${name}.`))
  }

  /** How many frames of a kind have come. */
  count(type: RequestType): number {
    return this.received.filter((each) => each.type === type).length
  }

  /** Resolves when `condition` holds; rejects after `withinMillis`. */
  async until(condition: (server: FakeServer) => boolean, withinMillis = 5000): Promise<void> {
    const end = performance.now() + withinMillis
    while (!condition(this)) {
      if (performance.now() > end) throw new Error(`the fake server waited ${withinMillis} ms in vain`)
      await new Promise((resolve) => setTimeout(resolve, 5))
    }
  }

  // --- Faults ---------------------------------------------------------------------------------------------------

  /** Refuses the next frame of that kind, `times` times. */
  refuseNext(type: RequestType, refusal: Refusal, times = 1): void {
    this.#refusals.set(type, [...(this.#refusals.get(type) ?? []), ...Array.from({ length: times }, () => refusal)])
  }

  /** Answers the next frame of that kind this late. */
  delayNext(type: RequestType, millis: number): void {
    this.#delays.set(type, [...(this.#delays.get(type) ?? []), millis])
  }

  /** Never answers the next `times` frames of that kind. */
  ignoreNext(type: RequestType, times = 1): void {
    this.#silences.set(type, (this.#silences.get(type) ?? 0) + times)
  }

  /** Answers everything this late from now on; 0 ends it. */
  answerLate(millis: number): void {
    this.#answerMillis = millis
  }

  /** Resets every connection, once. */
  cut(): void {
    for (const session of this.#sessions) reset(session.socket)
  }

  /** Resets the connection right behind the next acknowledgement of that level: it said so, and died. */
  cutAfterNext(level: Level): void {
    this.#cuts.push(level)
  }

  /** Resets the connection when the next frame of that kind has come, before anything is done about it. */
  cutOnNext(type: RequestType): void {
    this.#cuts.push(type)
  }

  /** Does what the next frame of that kind asks for, and resets the connection instead of answering. */
  cutAfter(type: RequestType): void {
    this.#cutsInstead.add(type)
  }

  /** Connections stay open and are accepted, and nothing is read or answered: half open, as when a cable is pulled. */
  freeze(): void {
    this.#frozen = true
    for (const { socket } of this.#sessions) socket.pause()
  }

  /** Goes on, with all that has come meanwhile. */
  thaw(): void {
    this.#frozen = false
    for (const { socket } of this.#sessions) socket.resume()
  }

  /** Tells every session, and every one to come, to go elsewhere. */
  drain(withinSeconds = 0): void {
    this.#draining = withinSeconds
    for (const session of this.#sessions) if (session.state === "open") this.#tellDrain(session)
  }

  undrain(): void {
    this.#draining = undefined
  }

  /** Forgets who holds what. Agents hear so with their next beat, or with `now` at once. */
  forgetLeases(now = false): void {
    for (const session of this.#sessions) {
      const hosts = [...session.hosts.values()]
      for (const record of hosts) letGo(record, session)
      session.hosts.clear()
      this.#forgotten.set(
        session,
        hosts.map(({ host }) => host)
      )
      if (now) this.#tellForgotten(session)
    }
  }

  /** Says that PowerDNS refuses the records of a host. */
  park(name: string, reason: string): void {
    for (const session of this.#sessions) {
      for (const record of session.hosts.values()) {
        if (record.host === name || record.host.startsWith(`${name}.`)) {
          this.#send(session, { type: "parked", id: 0, host: record.host, reason })
        }
      }
    }
  }

  /** A word for every agent. */
  notice(code: string, message: string): void {
    for (const session of this.#sessions) this.#send(session, { type: "notice", code, message })
  }

  /** Revokes the identity, ends its sessions, and takes its key no more. */
  revoke(identity: string): void {
    keptBy(this.registry).revoked.add(identity)
    for (const session of this.#sessions) {
      if (session.principal.name !== identity) continue
      this.#refuse(session, undefined, {
        code: "identity-revoked",
        message: "the identity was revoked",
        closing: true
      })
    }
  }

  /** No level beyond this is reached from now on. */
  stopAt(level: Level): void {
    this.#stopAt = level
  }

  /** Dies: every connection is reset and the port is closed. Hosts and identities stay. */
  async stop(): Promise<void> {
    const server = this.#server
    this.#server = undefined
    for (const timer of this.#timers) clearTimeout(timer)
    this.#timers.clear()
    const closed = server === undefined ? undefined : new Promise<void>((resolve) => server.close(() => resolve()))
    this.cut()
    await closed
  }

  /** Is there again, on the same port; as new, but for hosts and identities. */
  async restart(): Promise<void> {
    await this.stop()
    this.#frozen = false
    this.#draining = undefined
    await this.#listen(this.#port)
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.stop()
  }

  // --- The server -----------------------------------------------------------------------------------------------

  async #listen(port: number): Promise<void> {
    const { tls } = this.#options
    const accept = (socket: Net.Socket) => this.#accept(socket)
    const server =
      tls === undefined
        ? Net.createServer(accept)
        : Tls.createServer(
            {
              cert: tls.cert,
              key: tls.key,
              minVersion: "TLSv1.3",
              ...(tls.clientCa === undefined ? {} : { ca: tls.clientCa, requestCert: true, rejectUnauthorized: false })
            },
            accept
          )
    server.on("tlsClientError", () => undefined)
    await new Promise<void>((resolve, reject) => {
      server.once("error", reject)
      server.listen({ port, host: this.#host, backlog: 4096 }, () => resolve())
    })
    this.#server = server
    this.#port = (server.address() as Net.AddressInfo).port
  }

  #accept(socket: Net.Socket): void {
    this.connections += 1
    const session: Session = {
      name: `s${(this.#count += 1)}`,
      socket,
      decoder: new Wire.FrameDecoder(),
      hosts: new Map(),
      state: "hello",
      auth: undefined,
      nonce: "",
      mute: false,
      principal: anonymous
    }
    this.#sessions.add(session)
    socket.setNoDelay(true)
    socket.on("error", () => undefined)
    socket.on("close", () => {
      session.state = "closed"
      for (const record of session.hosts.values()) letGo(record, session)
      this.#sessions.delete(session)
      this.#forgotten.delete(session)
    })
    socket.on("data", (chunk) => {
      for (const frame of session.decoder.push(chunk)) {
        if (frame._tag === "TooLarge") {
          this.#refuse(session, undefined, { code: "too-large", message: "the frame is too large", closing: true })
        } else {
          this.#take(session, frame.bytes)
        }
      }
    })
    if (this.#frozen) socket.pause()
  }

  #take(session: Session, payload: Uint8Array): void {
    const value = Message.parseObject(payload)
    if (Result.isFailure(value)) return this.#refuse(session, undefined, value.failure)
    const decoded = Message.decodeAgentMessage(value.success)
    if (Result.isFailure(decoded)) return this.#refuse(session, decoded.failure.id, decoded.failure)
    const message = decoded.success
    this.received.push({
      type: message.type,
      session: session.name,
      message: value.success,
      atMillis: performance.now()
    })
    if (this.received.length > receivedMax) this.received.shift()
    const cut = this.#cuts.indexOf(message.type)
    if (cut >= 0) {
      this.#cuts.splice(cut, 1)
      reset(session.socket)
      return
    }
    const silence = this.#silences.get(message.type) ?? 0
    if (silence > 0) return void this.#silences.set(message.type, silence - 1)
    const refusal = this.#refusals.get(message.type)?.shift()
    if (this.#cutsInstead.delete(message.type)) {
      session.mute = true
      this.#answer(session, message)
      reset(session.socket)
      return
    }
    const act = () =>
      refusal === undefined
        ? this.#answer(session, message)
        : this.#refuse(session, message.id, {
            closing: message.type === "hello" || message.type === "proof",
            ...refusal,
            message: refusal.message ?? `refused by the test: ${refusal.code}`
          })
    this.#after((this.#delays.get(message.type)?.shift() ?? 0) + this.#answerMillis, act)
  }

  #after(millis: number, act: () => void): void {
    if (millis <= 0) return act()
    const timer = setTimeout(() => {
      this.#timers.delete(timer)
      act()
    }, millis)
    this.#timers.add(timer)
  }

  #send(session: Session, message: Message.ServerMessage): void {
    if (this.#frozen || session.mute || session.state === "closed" || !session.socket.writable) return
    session.socket.write(Wire.encode(Message.encodeText(message)))
  }

  #refuse(session: Session, id: number | undefined, refusal: Refusal): void {
    const { closing = false, code, message = code, retryable = false, retryAfterSeconds } = refusal
    this.#send(session, {
      type: "error",
      ...(id === undefined ? {} : { id }),
      code,
      message,
      retryable,
      ...(retryAfterSeconds === undefined ? {} : { retryAfterSeconds }),
      ...(closing ? { closing } : {})
    })
    if (closing) {
      session.state = "closed"
      session.socket.end()
    }
  }

  #answer(session: Session, message: Message.AgentMessage): void {
    if (session.state === "closed") return
    if (message.type === "hello") return this.#hello(session, message)
    if (message.type === "proof") return this.#proof(session, message)
    if (session.state !== "open") {
      return this.#refuse(session, message.id, {
        code: "protocol-not-allowed",
        message: `${message.type} before hello`,
        closing: true
      })
    }
    switch (message.type) {
      case "register":
        return this.#register(session, message)
      case "update":
        return this.#update(session, message)
      case "heartbeat":
        this.#tellForgotten(session)
        return this.#send(session, { type: "beat", id: message.id })
      case "release":
        return this.#release(session, message)
      case "rotate":
        return this.#rotate(session, message)
    }
  }

  #end(session: Session, id: number, code: string, message: string): void {
    this.#refuse(session, id, { code, message, closing: true })
  }

  /** The token, where it may be used so; else the session is ended. */
  #token(session: Session, id: number, text: string, use: "bearer" | "enrol"): FakeToken | undefined {
    const token = (this.#options.tokens ?? []).find((each) => each.token === text)
    if (token === undefined) this.#end(session, id, "token-invalid", "the token is not known")
    else if (token.expired === true) this.#end(session, id, "token-expired", "the token has expired")
    else if (token.allows !== undefined && token.allows !== "both" && token.allows !== use) {
      this.#end(session, id, "token-not-allowed", "the token is for another use")
    } else return token
    return undefined
  }

  #hello(session: Session, hello: Message.Hello): void {
    if (session.state !== "hello") {
      return this.#end(session, hello.id, "protocol-not-allowed", "hello comes once, and first")
    }
    if (hello.version.split(".")[0] !== "2") {
      return this.#end(session, hello.id, "unsupported-version", `version ${hello.version} is not spoken here`)
    }
    const { auth } = hello
    session.auth = auth
    switch (auth.method) {
      case "anonymous":
        if ((this.#options.tokens ?? []).length > 0) {
          return this.#end(session, hello.id, "token-missing", "a token is needed here")
        }
        return this.#welcome(session, hello.id, anonymous)
      case "token": {
        const token = this.#token(session, hello.id, auth.token, "bearer")
        if (token !== undefined) this.#welcome(session, hello.id, { name: tokenName(token), kind: "token" })
        return
      }
      case "certificate": {
        const { socket } = session
        const subject =
          socket instanceof Tls.TLSSocket && socket.authorized ? socket.getPeerCertificate().subject : undefined
        if (subject === undefined) {
          return this.#end(session, hello.id, "certificate-missing", "the connection has no client certificate")
        }
        return this.#welcome(session, hello.id, { name: `cert:${String(subject.CN)}`, kind: "certificate" })
      }
      case "key":
      case "enrol":
        session.state = "proof"
        session.nonce = Proof.makeNonce()
        return this.#send(session, { type: "challenge", id: hello.id, nonce: session.nonce })
    }
  }

  #proof(session: Session, proof: typeof Message.ProofFrame.Type): void {
    const { auth, nonce, socket } = session
    if (session.state !== "proof" || auth === undefined || !("publicKey" in auth)) {
      return this.#end(session, proof.id, "protocol-not-allowed", "nothing was asked")
    }
    const { publicKey } = auth
    const channel =
      socket instanceof Tls.TLSSocket
        ? new Uint8Array(socket.exportKeyingMaterial(Proof.exporterBytes, Proof.exporterLabel, Buffer.alloc(0)))
        : undefined
    const purpose = auth.method === "enrol" ? "enrol" : "key"
    if (!Proof.verify({ purpose, nonce, publicKey, channel }, proof.signature)) {
      return this.#end(session, proof.id, "proof-invalid", "the signature is not that of the key")
    }
    const { formerKeys, identities, revoked, uses } = keptBy(this.registry)
    const known = identities.get(publicKey)
    if (formerKeys.has(publicKey) || (known !== undefined && revoked.has(known.name))) {
      return this.#end(session, proof.id, "identity-revoked", "the key was revoked, or replaced")
    }
    if (known !== undefined && (auth.method === "key" || known.token === auth.token)) {
      return this.#welcome(session, proof.id, { name: known.name, kind: "key" })
    }
    if (auth.method === "key") {
      return this.#end(session, proof.id, "identity-unknown", "no identity has this key")
    }
    const token = this.#token(session, proof.id, auth.token, "enrol")
    if (token === undefined) return
    const used = uses.get(token.token) ?? 0
    if (token.usesMax !== undefined && used >= token.usesMax) {
      return this.#end(session, proof.id, "token-used-up", "the token has been used as often as it may")
    }
    uses.set(token.token, used + 1)
    const name = `i-${Array.from(Crypto.randomBytes(16), (byte) => "abcdefghijklmnopqrstuvwxyz234567"[byte % 32]).join("")}`
    identities.set(publicKey, { name, token: token.token })
    this.#welcome(session, proof.id, { name, kind: "key" })
  }

  #welcome(session: Session, id: number, principal: Session["principal"]): void {
    session.state = "open"
    session.principal = principal
    this.#send(session, {
      type: "welcome",
      id,
      version: Message.version,
      session: session.name,
      server: { instance: "fake", version: "0.0.0" },
      identity: principal,
      observedAddress: observed(session),
      lease: {
        durationSeconds: this.#options.leaseSeconds ?? 150,
        beatSeconds: this.#options.beatSeconds ?? 60
      },
      limits: {
        frameBytesMax: Wire.payloadBytesMax,
        pipelineMax: 32,
        addressesMax: Message.addressesMax,
        hostsMax: 64
      },
      zones: [...this.#zones],
      time: new Date().toISOString()
    })
    if (this.#draining !== undefined) this.#tellDrain(session)
  }

  get #zones(): ReadonlyArray<string> {
    return (this.#options.zones ?? ["hosts.prism.test"]).map((zone) => (zone.endsWith(".") ? zone : `${zone}.`))
  }

  #tellDrain(session: Session): void {
    this.#send(session, { type: "drain", reason: "the test drains it", withinSeconds: this.#draining ?? 0 })
  }

  #tellForgotten(session: Session): void {
    for (const host of this.#forgotten.get(session) ?? []) this.#send(session, { type: "lease-unknown", host })
    this.#forgotten.delete(session)
  }

  #register(session: Session, message: Message.Register): void {
    const zone = message.zone === undefined ? this.#zones[0]! : message.zone.replace(/\.?$/, ".")
    const name = message.hostname.toLowerCase()
    const host = `${name}.`.endsWith(`.${zone}`) ? `${name}.` : `${name}.${zone}`
    if (!this.#zones.includes(zone)) {
      return this.#refuse(session, message.id, { code: "zone-not-allowed", message: `there is no zone ${zone}` })
    }
    const { records } = keptBy(this.registry)
    const before = records.get(host)
    if (before !== undefined && before.owner !== session.principal.name && before.owner !== anonymous.name) {
      return this.#refuse(session, message.id, { code: "hostname-taken", message: `${host} belongs to someone else` })
    }
    const wanted = {
      addresses: message.addresses ?? [observed(session)],
      ttlSeconds: message.ttlSeconds,
      labels: message.labels ?? {}
    }
    const record: HostRecord = before ?? {
      host,
      ...wanted,
      owner: session.principal.name,
      generation: 0,
      level: "accepted",
      gaps: 0,
      holders: new Set()
    }
    const changed = before === undefined || !isSame(before, wanted)
    Object.assign(record, wanted, { owner: session.principal.name })
    records.set(host, record)
    record.holders.add(session)
    session.hosts.set(host, record)
    if (changed) record.generation += 1
    this.#acknowledge(session, message, record, before === undefined ? "created" : changed ? "changed" : "renewed")
  }

  #update(session: Session, message: Message.Update): void {
    const record = session.hosts.get(message.host)
    if (record === undefined) return this.#unheld(session, message.id, message.host)
    const wanted = {
      addresses:
        message.addresses === undefined
          ? record.addresses
          : message.addresses === "observed"
            ? [observed(session)]
            : message.addresses,
      ttlSeconds: message.ttlSeconds === undefined ? record.ttlSeconds : (message.ttlSeconds ?? undefined),
      labels: message.labels ?? record.labels
    }
    const changed = !isSame(record, wanted)
    Object.assign(record, wanted)
    if (changed) record.generation += 1
    this.#acknowledge(session, message, record, changed ? "changed" : "renewed")
  }

  #unheld(session: Session, id: number, host: string): void {
    this.#refuse(session, id, { code: "host-unknown", message: `this session has not registered ${host}` })
  }

  #release(session: Session, message: Message.Release): void {
    const record = session.hosts.get(message.host)
    if (record === undefined) return this.#unheld(session, message.id, message.host)
    record.generation += 1
    for (const holder of record.holders) holder.hosts.delete(record.host)
    record.holders.clear()
    keptBy(this.registry).records.delete(record.host)
    this.#acknowledge(session, message, record, "released")
  }

  #rotate(session: Session, message: Message.Rotate): void {
    const { auth, nonce, principal, socket } = session
    const old = auth !== undefined && "publicKey" in auth ? auth.publicKey : undefined
    const channel =
      socket instanceof Tls.TLSSocket
        ? new Uint8Array(socket.exportKeyingMaterial(Proof.exporterBytes, Proof.exporterLabel, Buffer.alloc(0)))
        : undefined
    const { publicKey } = message
    const valid =
      old !== undefined &&
      Proof.verify({ purpose: "rotate", nonce, publicKey, channel }, message.signature, old) &&
      Proof.verify({ purpose: "rotate-new", nonce, publicKey, channel }, message.proof)
    if (!valid)
      return this.#refuse(session, message.id, { code: "proof-invalid", message: "the signatures do not fit" })
    const { formerKeys, identities } = keptBy(this.registry)
    const identity = identities.get(old)
    if (identity === undefined) {
      return this.#refuse(session, message.id, {
        code: "identity-revoked",
        message: "this key was replaced by another"
      })
    }
    identities.delete(old)
    formerKeys.add(old)
    identities.set(publicKey, { name: principal.name, token: identity.token })
    session.auth = { method: "key", publicKey }
    this.#send(session, { type: "rotated", id: message.id, publicKey })
  }

  #acknowledge(
    session: Session,
    request: Message.Register | Message.Update | Message.Release,
    record: HostRecord,
    outcome: "created" | "changed" | "renewed" | "released"
  ): void {
    const began = performance.now()
    const { generation } = record
    const wanted = request.ack ?? "applied"
    const was = outcome === "renewed" ? record.level : "accepted"
    record.level = was
    const tell = (level: Level) => {
      if (record.generation !== generation) return
      if (levels.indexOf(level) > levels.indexOf(record.level)) record.level = level
      this.#send(session, {
        type: "ack",
        id: request.id,
        level,
        host: record.host,
        ...(level === "accepted"
          ? {
              outcome,
              addresses: record.addresses,
              ...(record.ttlSeconds === undefined ? {} : { ttlSeconds: record.ttlSeconds })
            }
          : {}),
        generation,
        at: new Date().toISOString(),
        elapsedMillis: Math.round(performance.now() - began),
        ...(level === wanted ? { final: true } : {}),
        ...(level === "served" ? { nodes: [{ node: "fake", at: new Date().toISOString() }] } : {})
      })
      const cut = this.#cuts.indexOf(level)
      if (cut >= 0) {
        this.#cuts.splice(cut, 1)
        // Behind what was written: the agent has read it when the connection ends.
        session.socket.end()
        session.state = "closed"
      }
    }
    const millis = this.#options.levelMillis ?? 0
    const isReached = (level: Level) =>
      levels.indexOf(level) <= Math.max(levels.indexOf(this.#stopAt), levels.indexOf(was))
    tell("accepted")
    const further = (level: Level, next: () => void) => {
      if (!isReached(level)) return
      this.#after(levels.indexOf(level) <= levels.indexOf(was) ? 0 : millis, () => {
        tell(level)
        next()
      })
    }
    further("applied", () => further("served", () => undefined))
  }
}

/** Ends a connection as a process that dies does. With TLS there is no way to reset it. */
const reset = (socket: Net.Socket): void => {
  if (socket instanceof Tls.TLSSocket) socket.destroy()
  else socket.resetAndDestroy()
}

const letGo = (record: HostRecord, session: Session): void => {
  if (record.holders.delete(session) && record.holders.size === 0) record.gaps += 1
}

const tokenName = (token: FakeToken): string => `token-${Crypto.hash("sha256", token.token, "hex").slice(0, 8)}`

const observed = ({ socket }: Session): string => (socket.remoteAddress ?? "127.0.0.1").replace(/^::ffff:/, "")

const isSame = (
  record: Pick<HostRecord, "addresses" | "labels" | "ttlSeconds">,
  wanted: Pick<HostRecord, "addresses" | "labels" | "ttlSeconds">
): boolean =>
  record.addresses.join() === wanted.addresses.join() &&
  record.ttlSeconds === wanted.ttlSeconds &&
  JSON.stringify(record.labels) === JSON.stringify(wanted.labels)
