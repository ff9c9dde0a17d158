/**
 * The example session of `docs/reference/protocol.md`, played against a real
 * `TcpServer` whose time, nonces and random bytes are fixed: what the page says
 * that the server sends is what it sends, byte by byte.
 */
import { Refusals } from "@prism-dns/core/audit/Refusals"
import { Identities } from "@prism-dns/core/auth/Identities"
import * as Principal from "@prism-dns/core/auth/Principal"
import { TokenRefused } from "@prism-dns/core/auth/TokenRefused"
import { type ConfiguredToken, Tokens } from "@prism-dns/core/auth/Tokens"
import { type Acknowledgement, Acknowledgements } from "@prism-dns/core/dns/Acknowledgements"
import * as DomainName from "@prism-dns/core/domain/DomainName"
import { PowerDnsMemory } from "@prism-dns/core/powerdns/PowerDnsMemory"
import * as Proof from "@prism-dns/core/protocol/Proof"
import * as Wire from "@prism-dns/core/protocol/Wire"
import { Leases } from "@prism-dns/core/registry/Leases"
import { Clock, Duration, Effect, Layer, Redacted } from "effect"
import { SecureRandom } from "effect/crypto"
import { IpNetwork } from "effect/net"
import * as Crypto from "node:crypto"
import { Time, withTime } from "../../packages/core/test/layers.ts"
import { Drain } from "../../packages/server/src/Drain.ts"
import * as Agent from "../../packages/server/test/harness/AgentClient.ts"
import { address, server } from "../../packages/server/test/tcp/layers.ts"
import type { Block } from "./markdown.ts"

export const token = "the-token-of-rack-7"
const zone = DomainName.make("hosts.example.net")
const startMillis = Date.parse("2026-11-26T06:14:00Z")

/** Bytes that look random, and are the same in each run. */
const bytes = (name: string, size: number) => Crypto.createHash("sha256").update(name).digest().subarray(0, size)

/** The nonces of the server, in their order. */
export const nonce = (n: number): string => bytes(`nonce ${n}`, 32).toString("base64url")

/** Private keys of 32 bytes that anybody can make: in PKCS #8 (RFC 8410). */
export const key = (name: string): Crypto.KeyObject =>
  Crypto.createPrivateKey({
    key: Buffer.concat([Buffer.from("302e020100300506032b657004220420", "hex"), bytes(`key ${name}`, 32)]),
    format: "der",
    type: "pkcs8"
  })

const random = Layer.sync(SecureRandom.SecureRandom, () => {
  let drawn = 0
  return SecureRandom.make((size) => new Uint8Array(bytes(`random ${drawn++}`, size)))
})

const tokens: ReadonlyArray<ConfiguredToken> = [
  {
    name: "rack-7",
    token: Redacted.make(token),
    role: "agent",
    grant: { ...Principal.unlimited, networks: [IpNetwork.fromStringUnsafe("2001:db8::/32")] }
  }
]

/** Other servers, as the page has them. */
const others = {
  name: "eu",
  zones: [DomainName.make("eu.hosts.example.net")],
  servers: ["agents.eu.example.net:8080"]
}

const makeServer = () => {
  let nonces = 0
  return server(
    {
      mode: "optional",
      instance: "prism-1",
      drainDelay: Duration.seconds(3),
      makeNonce: () => nonce(nonces++)
    },
    "open",
    Refusals.layerNone,
    {
      zones: [zone],
      groups: [others],
      networks: [IpNetwork.fromStringUnsafe("2001:db8::/32")],
      tokens,
      random,
      ticketsMax: 1
    }
  )
}

/** Agents on the page have addresses for documentation; here they speak from loopback. */
const toLoopback = (text: string) => text.replaceAll("192.0.2.", "127.0.2.")
const toPage = (text: string) => text.replaceAll("127.0.2.", "192.0.2.")
const from = "127.0.2.7"

/** The frames of a block, a line each. */
export const lines = ({ text }: Block): ReadonlyArray<string> => text.split("\n")

export const isSession = ({ info }: Block): boolean => /^json (?:agent|server)\b/.test(info)

/** Raw texts of the frames that a client was sent. */
class Texts {
  readonly client: Agent.AgentClient
  constructor(client: Agent.AgentClient) {
    this.client = client
  }
  get next(): Effect.Effect<string, Error> {
    return Effect.map(this.client.receive(), ([answer]) => toPage(JSON.stringify(answer)))
  }
}

/** Plays the blocks in order; gives for each of the server what it really sent. */
export const play = (blocks: ReadonlyArray<Block>) =>
  Effect.gen(function* () {
    const time = yield* Time
    const memory = yield* PowerDnsMemory
    const acknowledgements = yield* Acknowledgements
    const identities = yield* Identities
    // How far changes come is said by the page.
    yield* memory.down
    const holder = (yield* Tokens).verify(token, "agent", "enrol")
    if (holder instanceof TokenRefused) return yield* holder
    yield* identities.enrol({ publicKey: Proof.exportPublicKey(key("3")), token: holder, peer: undefined })

    const hosts = new Set<string>()
    const settle = (outcome: Acknowledgement) => {
      for (const host of hosts) acknowledgements.settle(zone, DomainName.make(host), 1e9, outcome)
      const reverse = DomainName.make("127.in-addr.arpa")
      acknowledgements.settle(reverse, DomainName.make("7.2.0.127.in-addr.arpa"), 1e9, outcome)
    }
    const reach = Effect.fnUntraced(function* (_tag: "Applied" | "Served", afterMillis: number) {
      yield* time.jump(afterMillis)
      const atMillis = yield* Clock.currentTimeMillis
      const nodes = ["ns1", "ns2"].map((node, i) => ({ node, atMillis: atMillis - 20 * (1 - i) }))
      settle(_tag === "Applied" ? { _tag, atMillis } : { _tag, atMillis, nodes })
    })

    const connections = new Map<string, Texts>()
    const connectionOf = Effect.fnUntraced(function* (name: string, isHello: boolean) {
      if (isHello) connections.set(name, new Texts(yield* Agent.connect(yield* address, { from })))
      return connections.get(name)!
    })
    let identity = ""

    const sent: Array<ReadonlyArray<string>> = []
    for (const block of blocks) {
      const [, side, word = ""] = block.info.split(" ")
      const name = word === "other" || word === "redirected" ? word : "main"
      if (side === "agent") {
        yield* time.jump(1000)
        if (word === "lost") (yield* Leases).drop(DomainName.make("web-2.hosts.example.net"), Number.MAX_SAFE_INTEGER)
        for (const line of lines(block)) {
          const { client } = yield* connectionOf(name, line.startsWith('{"type":"hello"'))
          client.socket.write(Wire.encode(toLoopback(line)))
        }
        continue
      }
      const connection = yield* connectionOf(name, false)
      const received: Array<string> = []
      const expected = lines(block).length
      while (received.length < expected) {
        const isLast = received.length === expected - 1
        const first = received[0]?.startsWith('{"type":"ack"') ?? false
        if (isLast && word === "drain") yield* (yield* Drain).start
        if (isLast && word === "revoked") yield* identities.revoke(identity, { name: "ops", peer: undefined }, "lost")
        if (isLast && word === "parked") {
          settle({ _tag: "Parked", atMillis: 0, reason: "RRset web-2.hosts.example.net. IN A: not within its zone" })
        } else if (first) yield* received.length === 1 ? reach("Applied", 38) : reach("Served", 172)
        const text = yield* connection.next
        received.push(text)
        const { host, identity: who } = JSON.parse(text) as { host?: string; identity?: { name: string } }
        if (host !== undefined) hosts.add(host)
        if (who !== undefined && name === "main") identity = who.name
      }
      sent.push(received)
    }
    return sent
  }).pipe(Effect.scoped, Effect.provide(makeServer()), (effect) =>
    withTime(
      "still",
      Effect.flatMap(Time, (time) => Effect.andThen(time.set(startMillis), effect))
    )
  )
