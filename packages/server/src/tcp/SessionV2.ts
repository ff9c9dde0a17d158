/**
 * One session of protocol 2.0: messages become answers, and levels that come
 * later are sent behind them.
 *
 * A plain state machine on an `AgentSession`, without a fiber of its own; only
 * a request that needs the database runs as an Effect. Promises: before the
 * welcome nothing but the handshake is looked at; each level of a change is
 * sent once, in order, the one that was asked for as `final`; a beat touches no
 * database; hosts of a session and changes it follows are bounded; when it
 * ends nothing waits for it any more.
 */
import type { Outcome as TicketOutcome, Ticket } from "@prism-dns/core/dns/Acknowledgements"
import type { Principal } from "@prism-dns/core/auth/Principal"
import { isRefusalCode } from "@prism-dns/core/auth/RefusalCode"
import type { DomainName } from "@prism-dns/core/domain/DomainName"
import type { AckLevel, Host } from "@prism-dns/core/domain/Host"
import * as Handshake from "@prism-dns/core/protocol/Handshake"
import * as MessageV2 from "@prism-dns/core/protocol/MessageV2"
import { type Fields, parseObject } from "@prism-dns/core/protocol/Payload"
import { isOneFrame, prefixBytes } from "@prism-dns/core/protocol/Wire"
import * as Proof from "@prism-dns/core/protocol/Proof"
import { Duration, Effect, Result } from "effect"
import { version } from "../Version.ts"
import type { AgentSession, Protocol, Refusal, Slot } from "./AgentSession.ts"
import * as Authentication from "./Authentication.ts"
import * as FramesV2 from "./FramesV2.ts"
import * as RequestsV2 from "./RequestsV2.ts"
import type { SessionOptions, Shared } from "./SharedV2.ts"

/** True for a first frame that is meant as protocol 2: its types are others than those of version 1. */
export const isMeant = (fields: Fields): boolean =>
  fields["version"] !== "1.0" && typeof fields["type"] === "string" && MessageV2.agentTypes.has(fields["type"])

/** A change whose levels are sent as they come. */
interface Following {
  readonly ticket: Ticket
  /** Else the ticket is there for this session alone. */
  readonly isChange: boolean
  readonly onApplied: (outcome: TicketOutcome) => void
  readonly onServed: (outcome: TicketOutcome) => void
}

/** The order of levels: an acknowledgement is final from the one that was asked for. */
const defaultLevel: AckLevel = "applied"

const noHosts: ReadonlyArray<Host> = []

export class SessionV2 implements Protocol {
  readonly outlivesConnection = false
  readonly #shared: Shared
  readonly #session: AgentSession
  #handshake: Handshake.State = Handshake.greeting
  #principal: Principal | undefined
  #expiresAtMillis = Number.POSITIVE_INFINITY
  /** Those that its beats renew. */
  #hosts: ReadonlyArray<Host> = noHosts
  /** Requests under way that may bring one more. */
  #adding = 0
  /** It was told to look for another server. */
  #isSentAway = false
  #following: Set<Following> | undefined

  constructor(shared: Shared, session: AgentSession) {
    this.#shared = shared
    this.#session = session
  }

  answer(payload: Uint8Array): string | undefined {
    const beatId = this.#handshake._tag === "Welcomed" ? MessageV2.plainHeartbeatId(payload) : undefined
    if (beatId !== undefined) return this.#beat(beatId)
    return this.take(parseObject(payload))
  }

  /** A heartbeat in the usual words that renews every lease: almost all that agents ever send. */
  answerAlone(chunk: Uint8Array): string | undefined {
    if (this.#handshake._tag !== "Welcomed" || !isOneFrame(chunk)) return undefined
    const id = MessageV2.plainHeartbeatId(chunk, prefixBytes)
    if (id === undefined) return undefined
    const nowMillis = this.#shared.now()
    if (nowMillis >= this.#expiresAtMillis) return undefined
    for (const host of this.#hosts) if (!this.#shared.beat(host, nowMillis)) return undefined
    this.#shared.countBeat()
    return FramesV2.beatText(id)
  }

  /** Answers a payload that was parsed already. */
  take(parsed: Result.Result<Fields, MessageV2.Unreadable>): string | undefined {
    if (Result.isFailure(parsed)) return this.#unreadable(parsed.failure)
    const fields = parsed.success
    if (this.#handshake._tag === "Welcomed" && this.#shared.now() >= this.#expiresAtMillis) return this.#expired()
    if (fields["type"] === "registration") return this.#turnAway(undefined, otherVersion)
    const message = MessageV2.decodeAgentMessage(fields)
    if (Result.isFailure(message)) return this.#unreadable(message.failure)
    const { id } = message.success
    if (message.success.type === "hello" && this.#handshake._tag === "Greeting") {
      const redirect = this.#redirect(message.success)
      if (redirect !== undefined) return redirect
    }
    const { state, step } = Handshake.receive(this.#handshake, message.success, this.#surroundings)
    this.#handshake = state
    switch (step._tag) {
      case "Challenge":
        return MessageV2.encodeText({ type: "challenge", id, nonce: step.nonce })
      case "Decide":
        return this.#decide(id, step.evidence)
      case "Take":
        return this.#take(step.message)
      case "Refuse":
        return this.#turnAway(id, step)
    }
  }

  get #surroundings(): Handshake.Surroundings {
    return { makeNonce: this.#shared.options.makeNonce, channel: () => channelOf(this.#session) }
  }

  refuse(reason: Refusal): string {
    const { leaseMillis, options } = this.#shared
    const refusal = FramesV2.refusals[reason]({ frameBytesMax: options.frameBytesMax, leaseMillis })
    this.#record(refusal.code, refusal.message, "")
    return FramesV2.closing(undefined, refusal)
  }

  closed(): void {
    if (this.#following !== undefined) {
      for (const following of this.#following) this.#stopFollowing(following)
      this.#following = undefined
    }
    // Whoever was welcomed is listed, however it ended.
    if (this.#principal !== undefined) this.#shared.sessions.remove(this, this.#principal)
    for (const { fqdn } of this.#hosts) this.#shared.presence.go(fqdn, this)
    this.#hosts = noHosts
  }

  /** The fingerprint of the client certificate of its connection. */
  get certificate(): string | undefined {
    const { transport } = this.#session
    return transport._tag === "Tls" ? transport.certificate?.fingerprint : undefined
  }

  /** Ends it from our side, at once: who speaks may not go on. */
  end(code: string, message: string): void {
    this.#record(code, message, this.#principal?.name ?? "")
    this.#session.terminate(FramesV2.closing(undefined, { code, message }))
  }

  get isLeaving(): boolean {
    return this.#isSentAway
  }

  /** Tells the agent to look for another server. */
  drain(): void {
    this.#isSentAway = true
    this.#session.push(this.#drainText)
  }

  /**
   * Whoever was sent to another server and ends its side has gone there, or was cut off by a load balancer and will go:
   * what it asks there is newer than what it waits for here.
   */
  get #isThere(): boolean {
    return this.#session.isHeard && !(this.#isSentAway && this.#session.hasPeerEnded)
  }

  get #drainText(): string {
    const withinSeconds = Duration.toSeconds(this.#shared.options.drainDelay)
    return MessageV2.encodeText({ type: "drain", reason: "the server is about to stop", withinSeconds })
  }

  #unreadable({ code, id, message }: MessageV2.Unreadable): string {
    if (this.#handshake._tag === "Welcomed") return FramesV2.errorText(id, RequestsV2.refused(code, message))
    this.#session.conclude()
    return FramesV2.closing(id, { code, message })
  }

  #expired(): string {
    return this.#turnAway(undefined, {
      ...(this.#principal?.kind === "certificate"
        ? { code: "certificate-invalid", message: "the certificate has run out" }
        : { code: "token-expired", message: "the token has run out" }),
      subject: this.#principal?.name ?? ""
    })
  }

  /** Ends the handshake; the connection goes with it. */
  #turnAway(id: number | undefined, { code, message, subject = "" }: Authentication.Unrecognised): string {
    this.#record(code, message, subject)
    this.#session.conclude()
    return FramesV2.closing(id, { code, message })
  }

  /**
   * Tells an agent whose name other servers serve where they are. Before it has proved anything: only they may know it. What
   * is said is what the configuration names for agents, and nothing of anybody.
   */
  #redirect({ hostname, id, zone }: MessageV2.Hello): string | undefined {
    if (hostname === undefined) return undefined
    const elsewhere = this.#shared.requests.elsewhere(hostname, zone)
    if (elsewhere === undefined) return undefined
    this.#shared.countRedirect(elsewhere.group.name)
    this.#session.conclude()
    return MessageV2.encodeText({
      type: "redirect",
      id,
      zone: elsewhere.zone,
      group: elsewhere.group.name,
      servers: elsewhere.group.servers
    })
  }

  #record(code: string, message: string, subject: string): void {
    this.#shared.recordRefusal(code, message, this.#principal?.name ?? "unknown", this.#session.peer, subject)
  }

  #decide(id: number, evidence: Handshake.Evidence): string | undefined {
    if (this.#session.peer === undefined) {
      return this.#turnAway(id, {
        code: "peer-unknown",
        message: "the connection was reset before its address could be read"
      })
    }
    // Messages that are sent behind a proof wait until it is known who sent them.
    const slot = this.#session.reserve(true)
    this.#ask(slot, id, evidence)
    return undefined
  }

  #ask(slot: Slot, id: number, evidence: Handshake.Evidence): void {
    const { sessions } = this.#shared
    const revoked = sessions.revocations()
    const outcome = this.#shared.authenticate(evidence, this.#session)
    if (!Effect.isEffect(outcome)) return this.#decided(slot, id, outcome)
    this.#shared.run(outcome, (value = unanswered) => {
      // Somebody was revoked after the database was asked: it may have been this one.
      if ("principal" in value && sessions.revocations() !== revoked && !this.#session.isClosed)
        this.#ask(slot, id, evidence)
      else this.#decided(slot, id, value)
    })
  }

  #decided(slot: Slot, id: number, outcome: Authentication.Outcome): void {
    const session = this.#session
    if (session.isClosed) return
    const holds = "principal" in outcome
    this.#handshake = Handshake.decided(this.#handshake, holds)
    if (!holds) return session.respond(slot, this.#turnAway(id, outcome))
    const { principal } = outcome
    this.#principal = principal
    this.#expiresAtMillis = outcome.expiresAtMillis
    if (session.isOpen) session.allowSilence(this.#shared.leaseMillis)
    this.#shared.sessions.add(this, principal)
    session.respond(slot, this.#welcome(id, principal))
    if (!this.#shared.sessions.isDraining()) return
    this.#isSentAway = true
    session.follow(slot, this.#drainText)
  }

  #welcome(id: number, principal: Principal): string {
    const { lease, ...options } = this.#shared.options
    return MessageV2.encodeText({
      type: "welcome",
      id,
      version: MessageV2.version,
      session: this.#shared.nextName(),
      server: { instance: options.instance, version },
      identity: { name: principal.name, kind: principal.kind },
      observedAddress: this.#session.peer ?? "",
      lease: {
        durationSeconds: Duration.toSeconds(lease.duration),
        beatSeconds: Duration.toSeconds(lease.beatInterval)
      },
      limits: {
        frameBytesMax: options.frameBytesMax,
        pipelineMax: options.pipelineMax,
        addressesMax: MessageV2.addressesMax,
        hostsMax: options.sessionHostsMax
      },
      zones: this.#shared.requests.zonesOf(principal).slice(0, MessageV2.zonesMax),
      time: isoTime(this.#shared.now())
    })
  }

  #beat(id: number): string {
    const nowMillis = this.#shared.now()
    if (nowMillis >= this.#expiresAtMillis) return this.#expired()
    for (const host of this.#hosts) if (!this.#shared.beat(host, nowMillis)) this.#lose(host)
    this.#shared.countBeat()
    return FramesV2.beatText(id)
  }

  #lose(host: Host): void {
    this.#hosts = this.#hosts.filter((each) => each !== host)
    this.#shared.presence.go(host.fqdn, this)
    this.#session.push(MessageV2.encodeText({ type: "lease-unknown", host: host.fqdn }))
  }

  #take(message: Handshake.Request): string | undefined {
    const { peer } = this.#session
    const principal = this.#principal
    // Whoever was welcomed has both.
    if (peer === undefined || principal === undefined) return FramesV2.errorText(message.id, internal)
    const asker: RequestsV2.Asker = {
      principal,
      peer,
      isThere: () => this.#isThere,
      generationOf: (fqdn) => this.#hosts.find((host) => host.fqdn === fqdn)?.generation
    }
    const readMillis = this.#shared.now()
    switch (message.type) {
      case "register":
        return (
          this.#refuseWhenFull(message) ?? this.#do(message, readMillis, this.#shared.requests.register(asker, message))
        )
      case "update":
        return (
          this.#refuseWhenFull(message) ??
          this.#do(message, readMillis, this.#shared.requests.update(asker, message, this.#hosts))
        )
      case "release":
        return this.#do(message, readMillis, this.#shared.requests.release(asker, message, this.#hosts))
      case "rotate":
        return this.#rotate(message, asker)
      case "heartbeat":
        return this.#beat(message.id)
    }
  }

  #rotate(message: MessageV2.Rotate, asker: RequestsV2.Asker): string | undefined {
    const { id, publicKey } = message
    const subject = Proof.fingerprint(publicKey)
    const refuse = ({ code, message }: { readonly code: string; readonly message: string }) => {
      this.#record(code, message, subject)
      return FramesV2.errorText(id, RequestsV2.refused(code, message))
    }
    const refusal = Handshake.refuseRotation(this.#handshake, message, this.#surroundings)
    if (refusal !== undefined) return refuse(refusal)
    const signedBy = this.#handshake._tag === "Welcomed" ? (this.#handshake.key?.publicKey ?? "") : ""
    // What is signed with the new key comes after it.
    const slot = this.#session.reserve(true)
    this.#shared.run(this.#shared.rotate(asker, publicKey, signedBy), (outcome = internal) => {
      if (outcome._tag === "Rotated") this.#handshake = Handshake.rotated(this.#handshake, publicKey)
      this.#session.respond(
        slot,
        outcome._tag === "Rotated"
          ? MessageV2.encodeText({ type: "rotated", id, publicKey })
          : isRefusalCode(outcome.code)
            ? refuse(outcome)
            : FramesV2.errorText(id, outcome)
      )
    })
    return undefined
  }

  #refuseWhenFull(message: MessageV2.Register | MessageV2.Update): string | undefined {
    const { sessionHostsMax } = this.#shared.options
    if (this.#hosts.length + this.#adding < sessionHostsMax || this.#isHeld(message)) return undefined
    return this.#refused(
      message,
      RequestsV2.refused("quota-exceeded", `a session holds at most ${sessionHostsMax} hosts`)
    )
  }

  /** Perhaps one that it has already, by the name it asked for. */
  #isHeld(message: MessageV2.Register | MessageV2.Update): boolean {
    const name = (message.type === "register" ? message.hostname : message.host).toLowerCase().replace(/\.$/, "")
    return this.#hosts.some((host) => host.hostname === name || host.fqdn === `${name}.`)
  }

  #do(
    message: MessageV2.Register | MessageV2.Update | MessageV2.Release,
    readMillis: number,
    request: RequestsV2.Refused | Effect.Effect<RequestsV2.Outcome>
  ): string | undefined {
    if (!Effect.isEffect(request)) return this.#refused(message, request)
    const slot = this.#session.reserve()
    const isAdding = message.type !== "release" && !this.#isHeld(message)
    if (isAdding) this.#adding += 1
    this.#shared.run(request, (outcome = internal) => {
      if (isAdding) this.#adding -= 1
      if (outcome._tag === "Done") this.#done(slot, message, readMillis, outcome)
      else this.#session.respond(slot, this.#refused(message, outcome))
    })
    return undefined
  }

  #refused(message: MessageV2.Register | MessageV2.Update | MessageV2.Release, refused: RequestsV2.Refused): string {
    const { code } = refused
    const failed = this.#session.isHeard ? "failed" : "abandoned"
    this.#shared.countRegistration(code === "unavailable" || code === "internal" ? failed : "refused")
    this.#record(
      code,
      refused.message,
      refused.subject ?? (message.type === "register" ? message.hostname : message.host)
    )
    return FramesV2.errorText(message.id, refused)
  }

  #done(
    slot: Slot,
    message: MessageV2.Register | MessageV2.Update | MessageV2.Release,
    readMillis: number,
    { host, isChange, outcome, ticket }: RequestsV2.Done
  ): void {
    const shared = this.#shared
    const nowMillis = shared.now()
    const others = this.#hosts.filter((each) => each.fqdn !== host.fqdn)
    this.#hosts = outcome === "released" ? others : [...others, host]
    if (outcome === "released" || this.#session.isClosed) shared.presence.go(host.fqdn, this)
    else shared.presence.come(host.fqdn, this, nowMillis)
    if (outcome !== "released") {
      shared.countRegistration(outcome)
      shared.observe("accepted", nowMillis - readMillis)
    }
    const wanted = message.ack ?? defaultLevel
    const ack = (level: AckLevel, atMillis: number, elapsedMillis: number): MessageV2.Ack => ({
      type: "ack",
      id: message.id,
      level,
      host: host.fqdn,
      ...(level === "accepted" ? { outcome, addresses: [...host.addresses], ttlSeconds: shared.ttlSeconds(host) } : {}),
      generation: host.generation,
      at: isoTime(atMillis),
      elapsedMillis: Math.max(0, elapsedMillis),
      ...(level === wanted ? { final: true } : {})
    })
    this.#session.respond(slot, MessageV2.encodeText(ack("accepted", nowMillis, nowMillis - readMillis)))
    if (ticket === undefined) return this.#session.follow(slot, MessageV2.encodeText(notFollowed(host.fqdn)))
    if (ticket.places.length === 0) {
      // There is nothing of it in the DNS that could change.
      for (const level of ["applied", "served"] as const) {
        this.#session.follow(slot, MessageV2.encodeText(ack(level, nowMillis, nowMillis - readMillis)))
      }
      return
    }
    // Also when the agent is gone by then: what takes longest must not be missing.
    if (isChange) {
      ticket.onApplied(({ _tag }) => _tag === "Applied" && shared.observe("applied", shared.now() - readMillis))
      ticket.onServed(({ _tag }) => _tag === "Served" && shared.observe("served", shared.now() - readMillis))
    }
    this.#follow(slot, message.id, host.fqdn, ticket, isChange, readMillis, ack)
  }

  /** Sends the levels that `ticket` is told of, behind the answer at `slot`. */
  #follow(
    slot: Slot,
    id: number,
    host: DomainName,
    ticket: Ticket,
    isChange: boolean,
    readMillis: number,
    ack: (level: AckLevel, atMillis: number, elapsedMillis: number) => MessageV2.Ack
  ): void {
    const shared = this.#shared
    const send = (message: MessageV2.ServerMessage) => this.#session.follow(slot, MessageV2.encodeText(message))
    const following: Following = {
      ticket,
      isChange,
      onApplied: (outcome) => {
        if (outcome._tag === "Applied" || outcome._tag === "Served") {
          send(ack("applied", outcome.atMillis, outcome.atMillis - readMillis))
        }
      },
      onServed: (outcome) => {
        this.#following?.delete(following)
        switch (outcome._tag) {
          case "Served":
            return send({
              ...ack("served", outcome.atMillis, outcome.atMillis - readMillis),
              nodes: outcome.nodes.map(({ atMillis, node }) => ({ node, at: isoTime(atMillis) }))
            })
          case "Parked":
            return send({ type: "parked", id, host, reason: outcome.reason })
          case "Forgotten":
            return send(notFollowed(host))
          case "Applied":
            return undefined
        }
      }
    }
    if (!this.#session.isOpen) return this.#stopFollowing(following)
    this.#following ??= new Set()
    if (this.#following.size >= followingMax(shared.options)) {
      const [oldest] = this.#following
      this.#stopFollowing(oldest!)
      this.#following.delete(oldest!)
      this.#session.push(MessageV2.encodeText(notFollowed(host)))
    }
    this.#following.add(following)
    ticket.onApplied(following.onApplied)
    ticket.onServed(following.onServed)
  }

  #stopFollowing({ isChange, onApplied, onServed, ticket }: Following): void {
    ticket.off(onApplied)
    ticket.off(onServed)
    if (!isChange) this.#shared.forget(ticket)
  }
}

/** Changes of one session that are followed at once; one more, and the oldest is followed no more. */
const followingMax = ({ pipelineMax, sessionHostsMax }: SessionOptions): number => pipelineMax + sessionHostsMax

const notFollowed = (host: DomainName): MessageV2.ServerMessage => ({
  type: "notice",
  code: "not-followed",
  message: `nobody will say how far a change of ${host} comes: too many are under way`
})

const otherVersion: Authentication.Unrecognised = {
  code: "protocol-not-allowed",
  message: "a session of protocol 2 takes no message of version 1"
}
const unanswered: Authentication.Unrecognised = { code: "internal", message: "the server failed to answer" }
const internal = RequestsV2.refused("internal", "the server failed to answer", undefined, true)

const channelOf = ({ transport }: AgentSession): Uint8Array | undefined =>
  transport._tag === "Tls" ? transport.exporter() : undefined

const isoTime = (millis: number): string => new Date(millis).toISOString()
