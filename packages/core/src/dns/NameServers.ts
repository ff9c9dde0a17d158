/**
 * Questions to name servers, one at a time or thousands a second.
 *
 * A question goes out over UDP, many at once on one socket for each server,
 * twice if need be, and over TCP when its answer does not fit. Promises: every
 * question ends, within its time; an answer counts only when it came from the
 * server asked, with the random id and the question we sent; contents are in the
 * text that `RRset` has, so that the two compare as strings. Leaves to others:
 * what an answer means, and asking again later.
 */
import dnsPacket from "dns-packet"
import { Clock, Context, Effect, Layer, Schema } from "effect"
import * as Dgram from "node:dgram"
import * as Net from "node:net"
import type { DomainName } from "../domain/DomainName.ts"
import type { DnsEndpoint } from "../powerdns/PowerDnsNodes.ts"
import * as RecordText from "./RecordText.ts"

export interface Answer {
  /** `NOERROR`, `NXDOMAIN`, `SERVFAIL`, `REFUSED`, … */
  readonly rcode: string
  readonly authoritative: boolean
  /** Of the records of the name and type asked for; undefined when there are none. */
  readonly ttlSeconds: number | undefined
  /** Their contents as `RecordText.canonical` gives them, sorted, each once. */
  readonly contents: ReadonlyArray<string>
  /** The name, or one above it, is delegated: where to ask on. */
  readonly referral?: Referral
}

/** Records as they stand in one section of an answer. */
interface Section {
  readonly ttlSeconds: number | undefined
  readonly contents: ReadonlyArray<string>
}

export interface Referral {
  /** It is the name asked for itself that is delegated. */
  readonly here: boolean
  readonly servers: Section
  /** Of the name and type asked for, as they are told along. */
  readonly addresses: Section
}

/**
 * - `silent`: nothing came in time.
 * - `unreachable`: the system says that nobody is there.
 * - `garbled`: what came is no answer to the question.
 * - `busy`: too many questions are under way; nothing was sent.
 */
export type NoAnswerReason = "silent" | "unreachable" | "garbled" | "busy"

/** A server gave no answer. Asking again later may help. */
export class NoAnswer extends Schema.TaggedError<NoAnswer>()("NoAnswer", {
  reason: Schema.Literals(["silent", "unreachable", "garbled", "busy"]),
  detail: Schema.String
}) {
  override get message(): string {
    return this.detail
  }
}

export interface NameServersOptions {
  /** How long an attempt waits, in milliseconds. */
  readonly timeoutMillis: number
  /** Attempts over UDP. */
  readonly attemptsMax: number
  /** Questions under way at once, over all servers. */
  readonly questionsMax: number
}

export const defaultOptions: NameServersOptions = { timeoutMillis: 500, attemptsMax: 2, questionsMax: 4096 }

export class NameServers extends Context.Service<
  NameServers,
  {
    /** Asks `server` for the records of `type` at `name`. */
    readonly ask: (server: DnsEndpoint, name: DomainName, type: string) => Effect.Effect<Answer, NoAnswer>
    /** The same without a fiber: `tell` is called once, later. */
    readonly askThen: (
      server: DnsEndpoint,
      name: DomainName,
      type: string,
      tell: (answer: Answer | NoAnswer) => void
    ) => void
  }
>()("@prism-dns/core/dns/NameServers") {
  static readonly layerWith = (options: Partial<NameServersOptions>): Layer.Layer<NameServers> =>
    Layer.effect(
      NameServers,
      Effect.suspend(() => make({ ...defaultOptions, ...options }))
    )

  static readonly layer: Layer.Layer<NameServers> = NameServers.layerWith({})

  /** Answers by `respond`; for tests. */
  static readonly layerOf = (
    respond: (server: DnsEndpoint, name: DomainName, type: string) => Effect.Effect<Answer, NoAnswer>
  ): Layer.Layer<NameServers> =>
    Layer.effect(
      NameServers,
      Effect.map(Effect.context(), (context) => {
        const run = Effect.runForkWith(context)
        return NameServers.of({
          ask: respond,
          askThen: (server, name, type, tell) =>
            void run(Effect.match(respond(server, name, type), { onFailure: tell, onSuccess: tell }))
        })
      })
    )
}

/** How often questions that have waited long enough are looked for, in milliseconds. */
const tickMillis = 50

interface Question {
  readonly id: number
  readonly peer: Peer
  readonly name: DomainName
  readonly type: string
  readonly bytes: Buffer
  readonly tell: (answer: Answer | NoAnswer) => void
  attempts: number
  deadlineMillis: number
}

/** A server with the socket on which it is asked; dropped when it was silent or gone, so that its name is looked up anew. */
interface Peer {
  readonly key: string
  readonly server: DnsEndpoint
  readonly socket: Dgram.Socket
  readonly questions: Map<number, Question>
  /** Sent once the socket is connected. */
  waiting: Array<Question> | undefined
}

const make = Effect.fnUntraced(function* (options: NameServersOptions) {
  const clock = yield* Clock.Clock
  /** Milliseconds of a clock that only goes on. */
  const elapsed = () => Number(clock.monotonicTimeNanosUnsafe()) / 1e6
  const peers = new Map<string, Peer>()
  const streams = new Set<Net.Socket>()
  /** In the order of their deadlines: each attempt has the same time. */
  const underWay = new Set<Question>()
  /** Those over TCP are counted too. */
  let open = 0
  let closed = false

  // Ids that nobody can foretell: some thousand are drawn at once.
  const ids = new Uint16Array(2048)
  let nextId = ids.length
  const drawId = (): number => {
    if (nextId === ids.length) {
      crypto.getRandomValues(ids)
      nextId = 0
    }
    return ids[nextId++]!
  }

  const end = (question: Question, outcome: Answer | NoAnswer): void => {
    if (question.peer.questions.get(question.id) === question) question.peer.questions.delete(question.id)
    underWay.delete(question)
    open -= 1
    question.tell(outcome)
  }

  const failure = ({ name, peer, type }: Question, reason: NoAnswerReason, why: string) =>
    new NoAnswer({ reason, detail: `${peer.server.host}:${peer.server.port} to ${name} ${type}: ${why}` })

  /** Lets go of a socket; what was asked on it is over. */
  const drop = (peer: Peer, reason: NoAnswerReason, why: string): void => {
    if (peers.get(peer.key) === peer) peers.delete(peer.key)
    closeQuietly(peer.socket)
    for (const question of peer.questions.values()) end(question, failure(question, reason, why))
  }

  const connect = (key: string, server: DnsEndpoint): Peer => {
    const family = Net.isIPv6(server.host) ? "udp6" : "udp4"
    const socket = Dgram.createSocket({ type: family, recvBufferSize: 1 << 20 })
    const peer: Peer = { key, server, socket, questions: new Map(), waiting: [] }
    peers.set(key, peer)
    socket.on("message", (message) => receive(peer, message))
    // Nobody listens there, or the way is blocked: the system says so for a connected socket.
    socket.on("error", (error) => drop(peer, "unreachable", error.message))
    socket.connect(server.port, server.host, (error?: Error) => {
      if (error !== undefined && error !== null) return drop(peer, "unreachable", error.message)
      const waiting = peer.waiting ?? []
      peer.waiting = undefined
      for (const question of waiting) if (underWay.has(question)) transmit(question)
    })
    return peer
  }

  const transmit = (question: Question): void => {
    const { peer } = question
    if (peer.waiting !== undefined) peer.waiting.push(question)
    else {
      try {
        peer.socket.send(question.bytes)
      } catch (error) {
        // The socket was closed since.
        end(question, failure(question, "unreachable", error instanceof Error ? error.message : String(error)))
      }
    }
  }

  const receive = (peer: Peer, message: Buffer): void => {
    if (message.length < 12) return
    const question = peer.questions.get(message.readUInt16BE(0))
    // Late, or not for us.
    if (question === undefined) return
    const read = readAnswer(message, question)
    // Something else under our id: the true answer may still come.
    if (read === undefined) return
    if (read !== "truncated") return end(question, read)
    peer.questions.delete(question.id)
    underWay.delete(question)
    askOverTcp(question)
  }

  const askOverTcp = (question: Question): void => {
    const { host, port } = question.peer.server
    const stream = Net.connect({ host, port, noDelay: true })
    streams.add(stream)
    let received = Buffer.alloc(0)
    let over = false
    const finish = (outcome: Answer | NoAnswer) => {
      if (over) return
      over = true
      clearTimeout(timer)
      stream.destroy()
      streams.delete(stream)
      end(question, outcome)
    }
    const timer = setTimeout(
      () => finish(failure(question, "silent", "no answer over TCP in time")),
      options.timeoutMillis * options.attemptsMax
    )
    stream.on("connect", () => {
      const length = Buffer.alloc(2)
      length.writeUInt16BE(question.bytes.length)
      stream.write(Buffer.concat([length, question.bytes]))
    })
    stream.on("data", (chunk: Buffer) => {
      received = Buffer.concat([received, chunk])
      if (received.length < 2 || received.length < 2 + received.readUInt16BE(0)) return
      const read = readAnswer(received.subarray(2, 2 + received.readUInt16BE(0)), question)
      finish(
        read === undefined || read === "truncated" ? failure(question, "garbled", "no answer to the question") : read
      )
    })
    stream.on("error", (error) => finish(failure(question, "unreachable", error.message)))
    stream.on("close", () => finish(failure(question, "unreachable", "the connection was closed")))
  }

  const askThen: NameServers["Service"]["askThen"] = (server, name, type, tell) => {
    if (closed || open >= options.questionsMax) {
      const why = closed ? "the server is stopping" : `more than ${options.questionsMax} questions are under way`
      return queueMicrotask(() => tell(new NoAnswer({ reason: "busy", detail: why })))
    }
    const key = `${server.host} ${server.port}`
    const peer = peers.get(key) ?? connect(key, server)
    let id = drawId()
    while (peer.questions.has(id)) id = drawId()
    const bytes = dnsPacket.encode({
      type: "query",
      id,
      questions: [{ type: type as dnsPacket.RecordType, name: name === "." ? "." : name.slice(0, -1) }]
    })
    const deadlineMillis = elapsed() + options.timeoutMillis
    const question: Question = { id, peer, name, type, bytes, tell, attempts: 1, deadlineMillis }
    peer.questions.set(id, question)
    underWay.add(question)
    open += 1
    transmit(question)
  }

  const expire = () => {
    const nowMillis = elapsed()
    for (const question of underWay) {
      if (question.deadlineMillis > nowMillis) break
      underWay.delete(question)
      if (question.attempts >= options.attemptsMax) {
        const { peer } = question
        end(question, failure(question, "silent", `no answer in ${question.attempts} attempts`))
        // Its address may have changed, and what comes late comes to nobody.
        if (peer.questions.size === 0) drop(peer, "silent", "no answer")
      } else {
        question.attempts += 1
        question.deadlineMillis = nowMillis + options.timeoutMillis
        underWay.add(question)
        transmit(question)
      }
    }
  }
  yield* Effect.sleep(tickMillis).pipe(Effect.andThen(Effect.sync(expire)), Effect.forever, Effect.forkScoped)

  yield* Effect.addFinalizer(() =>
    Effect.sync(() => {
      closed = true
      for (const peer of peers.values()) drop(peer, "silent", "the server is stopping")
      for (const stream of streams) stream.destroy()
    })
  )

  return NameServers.of({
    ask: (server, name, type) =>
      Effect.callback((resume) =>
        askThen(server, name, type, (answer) =>
          resume(answer instanceof NoAnswer ? Effect.fail(answer) : Effect.succeed(answer))
        )
      ),
    askThen
  })
})

const closeQuietly = (socket: Dgram.Socket): void => {
  socket.removeAllListeners("message")
  socket.removeAllListeners("error")
  // A name that is still being looked up may fail after that.
  socket.on("error", () => undefined)
  try {
    socket.close()
  } catch {
    // It was never opened.
  }
}

/** Undefined when `message` does not answer `question`. */
const readAnswer = (
  message: Buffer,
  { id, name, type }: Pick<Question, "id" | "name" | "type">
): Answer | "truncated" | undefined => {
  let packet: dnsPacket.DecodedPacket
  try {
    packet = dnsPacket.decode(message)
  } catch {
    return undefined
  }
  const [asked] = packet.questions ?? []
  if (packet.id !== id || packet.type !== "response" || asked === undefined) return undefined
  if (asked.type !== type || fullName(asked.name) !== name) return undefined
  if (packet.flag_tc) return "truncated"
  const answer = sectionOf(packet.answers, type, name)
  return {
    rcode: "rcode" in packet ? String(packet.rcode) : "",
    authoritative: packet.flag_aa,
    ...answer,
    ...(!packet.flag_aa && answer.contents.length === 0 && referralOf(packet, type, name))
  }
}

/** The records of one name and type. */
const sectionOf = (answers: ReadonlyArray<dnsPacket.Answer> | undefined, type: string, name: string): Section => {
  let ttlSeconds: number | undefined
  const contents: Array<string> = []
  for (const answer of answers ?? []) {
    if (answer.type !== type || fullName(answer.name) !== name) continue
    ttlSeconds = "ttl" in answer ? answer.ttl : undefined
    contents.push(RecordText.fromAnswer(answer))
  }
  return { ttlSeconds, contents: contents.length < 2 ? contents : [...new Set(contents)].sort() }
}

const referralOf = (
  { additionals, authorities }: dnsPacket.DecodedPacket,
  type: string,
  name: DomainName
): { readonly referral: Referral } | undefined => {
  const server = authorities?.find((each) => each.type === "NS")
  if (server === undefined) return undefined
  const delegated = fullName(server.name)
  return {
    referral: {
      here: delegated === name,
      servers: sectionOf(authorities, "NS", delegated),
      addresses: sectionOf(additionals, type, name)
    }
  }
}

/** As we write names: in lower case and with the dot at the end. */
const fullName = (name: string): string => (name === "." ? name : `${name.toLowerCase()}.`)
