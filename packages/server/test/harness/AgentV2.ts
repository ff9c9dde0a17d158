/**
 * An agent of protocol 2 as tests need it: one frame at a time, over TCP, well
 * behaved or not. Every frame from the server is decoded by the schema.
 */
import * as MessageV2 from "@prism-dns/core/protocol/MessageV2"
import * as Proof from "@prism-dns/core/protocol/Proof"
import * as Wire from "@prism-dns/core/protocol/Wire"
import { Effect, Result } from "effect"
import * as Crypto from "node:crypto"
import * as AgentClient from "./AgentClient.ts"

type Of<Type extends MessageV2.ServerMessage["type"]> = Extract<MessageV2.ServerMessage, { readonly type: Type }>

export class AgentV2 {
  readonly client: AgentClient.AgentClient
  #id = 0

  constructor(client: AgentClient.AgentClient) {
    this.client = client
  }

  /** The next number of a request. */
  nextId(): number {
    this.#id += 1
    return this.#id
  }

  /** Sends what is given as it is. */
  send(...messages: ReadonlyArray<object>): void {
    this.client.socket.write(Wire.encodeAll(messages.map((message) => JSON.stringify(message))))
  }

  /** The next `count` messages. Fails when one is none, or the connection ends before. */
  receive(count = 1): Effect.Effect<ReadonlyArray<MessageV2.ServerMessage>, Error> {
    return Effect.flatMap(this.client.receive(count), (answers) =>
      Effect.forEach(answers, (answer) => {
        const decoded = MessageV2.decodeServerMessage({ ...answer })
        return Result.isSuccess(decoded)
          ? Effect.succeed(decoded.success)
          : Effect.fail(new Error(`${decoded.failure.message}: ${JSON.stringify(answer)}`))
      })
    )
  }

  /** The next message, which has to be of this type. */
  expect<Type extends MessageV2.ServerMessage["type"]>(type: Type): Effect.Effect<Of<Type>, Error> {
    return Effect.flatMap(this.receive(), ([message]) =>
      message!.type === type
        ? Effect.succeed(message as Of<Type>)
        : Effect.fail(new Error(`${JSON.stringify(message)} is no ${type}`))
    )
  }

  /** Says hello and waits for the answer. */
  hello(auth: MessageV2.Auth): Effect.Effect<MessageV2.ServerMessage, Error> {
    return Effect.suspend(() => {
      this.send({ type: "hello", id: this.nextId(), version: "2.0", client: "test/1", auth })
      return Effect.map(this.receive(), ([message]) => message!)
    })
  }

  /** Proves the key that the challenge is about. */
  prove(challenge: Of<"challenge">, key: Crypto.KeyObject, purpose: Proof.Purpose, channel?: Uint8Array) {
    const claim = { purpose, nonce: challenge.nonce, publicKey: Proof.exportPublicKey(key), channel }
    this.send({ type: "proof", id: this.nextId(), signature: Proof.sign(claim, key) })
  }

  /** Registers a host and waits for the acknowledgements up to the level that is asked for. */
  register(hostname: string, fields: object = {}): Effect.Effect<ReadonlyArray<MessageV2.ServerMessage>, Error> {
    return Effect.suspend(() => {
      this.send({ type: "register", id: this.nextId(), hostname, ...fields })
      return this.untilFinal
    })
  }

  /** Everything until an acknowledgement that is final, an error, or a change that is parked. */
  get untilFinal(): Effect.Effect<ReadonlyArray<MessageV2.ServerMessage>, Error> {
    const more: Effect.Effect<ReadonlyArray<MessageV2.ServerMessage>, Error> = Effect.flatMap(
      this.receive(),
      ([message]) =>
        message!.type === "error" || message!.type === "parked" || (message!.type === "ack" && message!.final === true)
          ? Effect.succeed([message!])
          : Effect.map(more, (rest) => [message!, ...rest])
    )
    return more
  }

  get beat(): Effect.Effect<ReadonlyArray<MessageV2.ServerMessage>, Error> {
    return Effect.suspend(() => {
      this.send({ type: "heartbeat", id: this.nextId() })
      const more: Effect.Effect<ReadonlyArray<MessageV2.ServerMessage>, Error> = Effect.flatMap(
        this.receive(),
        ([message]) =>
          message!.type === "beat" ? Effect.succeed([message]) : Effect.map(more, (rest) => [message!, ...rest])
      )
      return more
    })
  }
}

export const connect = (
  address: { readonly host: string; readonly port: number },
  options?: AgentClient.ConnectOptions
) => Effect.map(AgentClient.connect(address, options), (client) => new AgentV2(client))

export const makeKey = (): Crypto.KeyObject => Crypto.generateKeyPairSync("ed25519").privateKey
