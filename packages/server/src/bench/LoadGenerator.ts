/**
 * Agents of protocol 2.0 by the thousand, as a process of its own: so that it
 * can have a core to itself, and open files that do not count against the
 * server's.
 *
 * Says `"ready"`, then does one `Job` after another, as it is told, and says
 * `Done` or `Failed` after each. Against the bare server, which answers
 * anything with the same bytes, any frame counts as the answer. Leaves to
 * others: who starts it (`Load`), what is to be measured.
 */
import * as MessageV2 from "@prism-dns/core/protocol/MessageV2"
import * as Proof from "@prism-dns/core/protocol/Proof"
import { encode, FrameDecoder } from "@prism-dns/core/protocol/Wire"
import { Result } from "effect"
import * as Crypto from "node:crypto"
import * as Fs from "node:fs"
import * as Net from "node:net"
import * as Tls from "node:tls"
import { address, hostname } from "./Agents.ts"

/** Where to, and how. */
export interface Target {
  readonly port: number
  /** The authority's certificate, a file in PEM; undefined: plain TCP. */
  readonly tls: { readonly authority: string } | undefined
  /** Connections that are being made at once. */
  readonly atOnceMax: number
}

export type Job =
  /** Makes a key for each of the hosts, kept until the end; answers with the public ones. */
  | { readonly _tag: "Keys"; readonly first: number; readonly hosts: number }
  /** Hosts `first` and on connect and say hello; done when all are welcomed. Their sessions stay open. */
  | {
      readonly _tag: "Open"
      readonly target: Target
      readonly first: number
      readonly hosts: number
      /** Whom they are: the bearers of a token, whoever has their key, or nobody, which only the bare server takes. */
      readonly as: { readonly token: string } | "key" | "bare"
    }
  /** Each open session registers its host; done when all are accepted. */
  | { readonly _tag: "Register"; readonly atOnceMax: number; readonly bare: boolean }
  /** Beats on all open sessions, for as long as that. Counts answers. */
  | { readonly _tag: "Beat"; readonly inFlight: number; readonly millis: number }
  /** Each host that has a key enrols with a token on a connection of its own: hello, challenge, proof, welcome. */
  | { readonly _tag: "Enrol"; readonly target: Target; readonly tokens: ReadonlyArray<string> }
  /** Each host that has a key comes back with it, on a connection of its own. To the bare server: the same frames. */
  | { readonly _tag: "Prove"; readonly target: Target; readonly bare: boolean }
  /** Ends all connections. */
  | { readonly _tag: "Close" }

export interface Done {
  readonly _tag: "Done"
  /** What was done: keys, connections, answers. */
  readonly count: number
  readonly seconds: number
  readonly publicKeys?: ReadonlyArray<string>
}

export interface Failed {
  readonly _tag: "Failed"
  readonly detail: string
}

// --- Frames --------------------------------------------------------------------------------------------------------

const helloId = 1
const proofId = 2
const registerId = 3
/** Of the first beat; ids have eight digits each, so that all frames are as long. */
const firstBeatId = 10_000_000

const frameOf = (message: MessageV2.AgentMessage): Uint8Array => encode(MessageV2.encodeText(message))

const hello = (auth: MessageV2.Auth): Uint8Array =>
  frameOf({ type: "hello", id: helloId, version: MessageV2.version, client: "prism-bench/1", auth })

const register = (host: number): Uint8Array =>
  frameOf({ type: "register", id: registerId, hostname: hostname(host), ack: "accepted" })

const beatText = (id: number): string => MessageV2.encodeText({ type: "heartbeat", id })
/** Prefix and text of a beat without its id, in characters of one byte each. */
const beatHead = Buffer.from(encode(beatText(firstBeatId)))
  .toString("latin1")
  .slice(0, -`${firstBeatId}}`.length)

/** What an answer to a beat looks like; from another server than ours it may be written differently. */
const answerFrame = encode(MessageV2.encodeText({ type: "beat", id: firstBeatId }))
const answerBytes = answerFrame.length
const markAt = Buffer.from(answerFrame).indexOf('"beat"')
const mark = answerFrame[markAt + 1]!

/** True when `chunk` is nothing but answers to beats, as far as a few bytes of each tell. */
const isBeats = (chunk: Uint8Array): boolean => {
  if (chunk.length % answerBytes !== 0) return false
  for (let at = 0; at < chunk.length; at += answerBytes) {
    if (chunk[at + 3] !== answerBytes - 4 || chunk[at + markAt + 1] !== mark) return false
  }
  return true
}

// --- One agent -----------------------------------------------------------------------------------------------------

class Agent {
  readonly socket: Net.Socket
  readonly #decoder = new FrameDecoder()
  /** Payloads as they come. Beats that are counted do not come here. */
  onPayload: (payload: Uint8Array) => void = ignore
  /** While beats are measured: that so many were answered. */
  onBeats: ((count: number) => void) | undefined
  /** The connection is closed, whoever closed it. */
  onClosed: (reason: string) => void = ignore
  #reason = "it was cut off"

  constructor(host: number, { port, tls }: Target, onConnected: () => void) {
    const to = { host: "127.0.0.1", port, localAddress: address(host), noDelay: true }
    this.socket =
      tls === undefined
        ? Net.connect(to, onConnected)
        : Tls.connect({ ...to, ca: authorityOf(tls.authority), minVersion: "TLSv1.3" }, onConnected)
    this.socket.on("data", (chunk: Buffer) => this.#receive(chunk))
    this.socket.on("error", (error) => (this.#reason = error.message))
    this.socket.on("close", () => this.onClosed(this.#reason))
  }

  /** What a proof is bound to. */
  get channel(): Uint8Array | undefined {
    return this.socket instanceof Tls.TLSSocket
      ? this.socket.exportKeyingMaterial(Proof.exporterBytes, Proof.exporterLabel, Buffer.alloc(0))
      : undefined
  }

  #receive(chunk: Buffer): void {
    if (this.onBeats !== undefined && !this.#decoder.isPartial && isBeats(chunk)) {
      return this.onBeats(chunk.length / answerBytes)
    }
    for (const frame of this.#decoder.push(chunk)) if (frame._tag === "Payload") this.onPayload(frame.bytes)
  }
}

const ignore = () => undefined

const authorities = new Map<string, Buffer>()
const authorityOf = (file: string): Buffer => {
  const known = authorities.get(file) ?? Fs.readFileSync(file)
  authorities.set(file, known)
  return known
}

/** What came, or what is wrong with it. */
const read = (payload: Uint8Array): MessageV2.ServerMessage | string => {
  const object = MessageV2.parseObject(payload)
  if (Result.isFailure(object)) return object.failure.message
  const message = MessageV2.decodeServerMessage(object.success)
  return Result.isSuccess(message) ? message.success : message.failure.message
}

const describe = (message: MessageV2.ServerMessage | string): string =>
  typeof message === "string" ? message : MessageV2.encodeText(message)

// --- What agents say -----------------------------------------------------------------------------------------------

const keys = new Map<number, { readonly privateKey: Crypto.KeyObject; readonly publicKey: string }>()

const keyOf = (host: number) => {
  const key = keys.get(host)
  if (key === undefined) throw new Error("it has no key")
  return key
}

/** What an agent says first, and what it answers until it is where it should be. */
interface Script {
  readonly begin: Uint8Array
  /** The next frame, `"done"`, or undefined to wait on; throws when the conversation has gone wrong. */
  readonly next: (payload: Uint8Array, agent: Agent) => Uint8Array | "done" | undefined
}

type WriteScript = (host: number) => Script

/** Hello, a proof where it is asked for, and welcome. */
const introduction =
  (authOf: (host: number) => MessageV2.Auth): WriteScript =>
  (host) => {
    const auth = authOf(host)
    return {
      begin: hello(auth),
      next: (payload, agent) => {
        const message = read(payload)
        if (typeof message === "object" && message.type === "welcome") return "done"
        if (typeof message === "object" && message.type === "challenge") {
          if (auth.method === "key" || auth.method === "enrol") return prove(auth.method, host, message.nonce, agent)
        }
        throw new Error(describe(message))
      }
    }
  }

const prove = (purpose: "key" | "enrol", host: number, nonce: string, agent: Agent): Uint8Array => {
  const { privateKey, publicKey } = keyOf(host)
  const signature = Proof.sign({ purpose, nonce, publicKey, channel: agent.channel }, privateKey)
  return frameOf({ type: "proof", id: proofId, signature })
}

const withKey = (host: number): MessageV2.Auth => ({ method: "key", publicKey: keyOf(host).publicKey })

const registration: WriteScript = (host) => ({
  begin: register(host),
  next: (payload) => {
    const message = read(payload)
    if (typeof message === "object" && message.type === "ack" && message.final === true) return "done"
    if (typeof message === "object" && (message.type === "ack" || message.type === "notice")) return undefined
    throw new Error(describe(message))
  }
})

/** Frames of the same length, each sent when anything answers the one before. */
const recital =
  (...frames: ReadonlyArray<Uint8Array>): WriteScript =>
  () => {
    let at = 0
    return { begin: frames[0]!, next: () => frames[++at] ?? "done" }
  }

const exampleKey = "A".repeat(43)
const bareProof = recital(
  hello({ method: "key", publicKey: exampleKey }),
  frameOf({ type: "proof", id: proofId, signature: "A".repeat(86) })
)
const bareRegistration = recital(register(0))

// --- Jobs ----------------------------------------------------------------------------------------------------------

/** Open connections, by their host. */
const open = new Map<number, Agent>()

const range = (first: number, count: number): ReadonlyArray<number> =>
  Array.from({ length: count }, (_, i) => first + i)

const closeAll = (): number => {
  const count = open.size
  for (const agent of open.values()) {
    agent.onClosed = ignore
    agent.onBeats = undefined
    agent.socket.destroy()
  }
  open.clear()
  return count
}

/** Begins with each of `hosts`, at most `atOnceMax` of them under way; the first that fails ends all connections. */
const each = (
  hosts: ReadonlyArray<number>,
  atOnceMax: number,
  begin: (host: number, finish: () => void, fail: (detail: string) => void) => void
): Promise<Done> =>
  new Promise((resolve, reject) => {
    const start = performance.now()
    let next = 0
    let done = 0
    const fail = (host: number) => (detail: string) => {
      closeAll()
      reject(new Error(`host ${host}: ${detail}`))
    }
    const finish = () => {
      done += 1
      if (next < hosts.length) beginNext()
      else if (done === hosts.length) {
        resolve({ _tag: "Done", count: done, seconds: (performance.now() - start) / 1000 })
      }
    }
    const beginNext = () => {
      const host = hosts[next++]!
      begin(host, finish, fail(host))
    }
    for (let i = 0; i < Math.min(atOnceMax, hosts.length); i++) beginNext()
  })

/** Says what the script says until it is done. */
const follow = (agent: Agent, script: Script, finish: () => void, fail: (detail: string) => void): void => {
  agent.onClosed = fail
  agent.onPayload = (payload) => {
    try {
      const answer = script.next(payload, agent)
      if (answer === undefined) return
      if (answer !== "done") return void agent.socket.write(answer)
    } catch (error) {
      return fail(error instanceof Error ? error.message : String(error))
    }
    agent.onPayload = ignore
    finish()
  }
  agent.socket.write(script.begin)
}

const openEach = (hosts: ReadonlyArray<number>, target: Target, write: WriteScript): Promise<Done> =>
  each(hosts, target.atOnceMax, (host, finish, fail) => {
    const agent = new Agent(host, target, () => follow(agent, write(host), finish, fail))
    agent.onClosed = fail
    open.set(host, agent)
  })

/** As `openEach`, but each connection is closed again when its script is done. */
const visitEach = (hosts: ReadonlyArray<number>, target: Target, write: WriteScript): Promise<Done> =>
  each(hosts, target.atOnceMax, (host, finish, fail) => {
    const agent = new Agent(host, target, () =>
      follow(
        agent,
        write(host),
        () => {
          agent.onClosed = ignore
          agent.socket.destroy()
          open.delete(host)
          finish()
        },
        fail
      )
    )
    agent.onClosed = fail
    open.set(host, agent)
  })

/** Keeps `inFlight` beats of each open connection unanswered, until the time is up and all are answered. */
const beat = (inFlight: number, millis: number): Promise<Done> =>
  new Promise((resolve, reject) => {
    const agents = [...open.values()]
    const start = performance.now()
    let id = firstBeatId
    let answers = 0
    let unanswered = agents.length * inFlight
    let stopping = false
    const timer = setTimeout(() => (stopping = true), millis)
    const end = (finish: () => void) => {
      clearTimeout(timer)
      for (const agent of agents) {
        agent.onBeats = undefined
        agent.onPayload = ignore
      }
      finish()
    }
    const send = (agent: Agent, count: number) => {
      let text = ""
      for (let i = 0; i < count; i++) text += `${beatHead}${id++}}`
      agent.socket.write(text, "latin1")
    }
    for (const agent of agents) {
      const answered = (count: number) => {
        answers += count
        if (!stopping) return send(agent, count)
        unanswered -= count
        if (unanswered > 0) return
        const seconds = (performance.now() - start) / 1000
        end(() => resolve({ _tag: "Done", count: answers, seconds }))
      }
      agent.onBeats = answered
      // An answer in other words than ours, or in two pieces; or that something is wrong.
      agent.onPayload = (payload) => {
        const message = read(payload)
        if (typeof message === "string" || message.type === "error" || message.type === "lease-unknown") {
          return end(() => reject(new Error(`a beat was answered by ${describe(message)}`)))
        }
        if (message.type === "beat") answered(1)
      }
      agent.onClosed = (reason) => end(() => reject(new Error(`in the middle of its beats: ${reason}`)))
      send(agent, inFlight)
    }
  })

const makeKeys = (hosts: ReadonlyArray<number>): Done => {
  const start = performance.now()
  for (const host of hosts) {
    const { privateKey } = Crypto.generateKeyPairSync("ed25519")
    keys.set(host, { privateKey, publicKey: Proof.exportPublicKey(privateKey) })
  }
  const seconds = (performance.now() - start) / 1000
  return { _tag: "Done", count: hosts.length, seconds, publicKeys: hosts.map((host) => keyOf(host).publicKey) }
}

/** Tokens go round, so that one may stand for all. */
const enrolment = (tokens: ReadonlyArray<string>): WriteScript => {
  const [first = 0] = keys.keys()
  return introduction((host) => ({
    method: "enrol",
    publicKey: keyOf(host).publicKey,
    token: tokens[(host - first) % tokens.length]!
  }))
}

const scriptAs = (as: Extract<Job, { readonly _tag: "Open" }>["as"]): WriteScript => {
  if (as === "bare") return bareProof
  if (as === "key") return introduction(withKey)
  return introduction(() => ({ method: "token", token: as.token }))
}

const perform = async (job: Job): Promise<Done> => {
  switch (job._tag) {
    case "Keys":
      return makeKeys(range(job.first, job.hosts))
    case "Open":
      return openEach(range(job.first, job.hosts), job.target, scriptAs(job.as))
    case "Register": {
      const write = job.bare ? bareRegistration : registration
      return each([...open.keys()], job.atOnceMax, (host, finish, fail) =>
        follow(open.get(host)!, write(host), finish, fail)
      )
    }
    case "Beat":
      return beat(job.inFlight, job.millis)
    case "Enrol":
      return visitEach([...keys.keys()], job.target, enrolment(job.tokens))
    case "Prove":
      return visitEach([...keys.keys()], job.target, job.bare ? bareProof : introduction(withKey))
    case "Close":
      return { _tag: "Done", count: closeAll(), seconds: 0 }
  }
}

process.on("message", (message) => {
  if (typeof message !== "object" || message === null || !("_tag" in message)) return
  perform(message as Job).then(
    (result) => process.send?.(result),
    (error: unknown) =>
      process.send?.({
        _tag: "Failed",
        detail: error instanceof Error ? error.message : String(error)
      } satisfies Failed)
  )
})
// The channel is what it is there for, also while no connection is open.
process.channel?.ref()
process.send?.("ready")
