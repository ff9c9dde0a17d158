/**
 * What reads bytes from outside, given bytes that are almost right. Each
 * subject throws when a rule is broken; what it throws names the rule.
 */
import * as MessageV1 from "@prism-dns/core/protocol/MessageV1"
import * as MessageV2 from "@prism-dns/core/protocol/MessageV2"
import { parseObject } from "@prism-dns/core/protocol/Payload"
import * as Proof from "@prism-dns/core/protocol/Proof"
import * as Wire from "@prism-dns/core/protocol/Wire"
import { Result } from "effect"
import type { Dice } from "../../../core/test/simulation/Dice.ts"
import * as Crl from "../../src/tcp/Crl.ts"
import * as ProxyHeader from "../../src/tcp/ProxyHeader.ts"
import * as Headers from "../harness/proxyHeaders.ts"
import { junk, mutate, reshape, split, value } from "./Mutations.ts"

const check = (rule: string, holds: boolean) => {
  if (!holds) throw new Error(rule)
}

const publicKey = "A".repeat(43)
const signature = "B".repeat(86)

/** A good message of each kind. */
export const messages: ReadonlyArray<Record<string, unknown>> = [
  { version: "1.0", type: "registration", hostname: "web-1", timestamp: "2026-11-23T06:14:00.123456Z" },
  {
    version: "1.0",
    type: "registration",
    hostname: "web-1.rack-7",
    client_ip: "unknown",
    timestamp: "2026-11-23T06:14:00+00:00",
    auth_token: "good"
  },
  { type: "hello", id: 1, version: "2.0", client: "fuzz/1", auth: { method: "anonymous" } },
  { type: "hello", id: 1, version: "2.0", auth: { method: "key", publicKey } },
  { type: "hello", id: 1, version: "2.0", auth: { method: "enrol", publicKey, token: "good" } },
  { type: "hello", id: 1, version: "2.0", auth: { method: "token", token: "good" } },
  { type: "hello", id: 1, version: "2.0", auth: { method: "certificate" } },
  { type: "proof", id: 2, signature },
  {
    type: "register",
    id: 3,
    hostname: "web-1",
    zone: "hosts.prism.test",
    addresses: ["192.0.2.1", "2001:db8::1"],
    ttlSeconds: 60,
    labels: { role: "web" },
    ack: "served"
  },
  { type: "update", id: 4, host: "web-1.hosts.prism.test.", addresses: "observed", ttlSeconds: null, labels: {} },
  { type: "heartbeat", id: 5 },
  { type: "release", id: 6, host: "web-1.hosts.prism.test.", ack: "accepted" },
  { type: "rotate", id: 7, publicKey, signature, proof: signature }
]

/** Whatever may be in a frame. */
const payload = (dice: Dice): Buffer => {
  switch (dice.int(5)) {
    case 0:
      return junk(dice, 200)
    case 1:
      return Buffer.from(JSON.stringify(value(dice)) ?? "")
    case 2:
      return Buffer.from(JSON.stringify(reshape(dice, dice.pick(messages))))
    default:
      return mutate(dice, Buffer.from(JSON.stringify(dice.pick(messages))))
  }
}

/** Some frames in a row, some of them wrong. */
export const frames = (dice: Dice): Buffer => {
  const parts = Array.from({ length: 1 + dice.int(3) }, () => {
    const bytes = payload(dice)
    const prefix = Buffer.alloc(4)
    prefix.writeUInt32BE(dice.chance(0.1) ? dice.int(0xffff_ffff) : bytes.length)
    return Buffer.concat([prefix, bytes])
  })
  const all = Buffer.concat(parts)
  return dice.chance(0.2) ? mutate(dice, all) : all
}

/** A header of the PROXY protocol, right or almost. */
export const proxyHeader = (dice: Dice): Buffer => {
  const octet = () => dice.pick([0, 1, 127, 192, 255])
  const header = dice.pick([
    () => Headers.line(`${octet()}.${octet()}.${octet()}.${octet()}`),
    () => Headers.line(`2001:db8::${dice.int(0xffff).toString(16)}`),
    () => Buffer.from(`PROXY UNKNOWN ${"x".repeat(dice.int(110))}\r\n`),
    () => Headers.binary({ checksum: dice.pick(["right", "wrong"]) }),
    () => Headers.binary({ versionAndCommand: dice.int(256), family: dice.int(256) }),
    () => Headers.binary({ family: 0x21, addresses: junk(dice, 40) }),
    () => Headers.binary({ extensions: [Headers.extension(dice.int(256), junk(dice, 60)), junk(dice, 5)] }),
    () => Headers.binary({ announced: dice.int(65_536) })
  ])()
  return dice.chance(0.7) ? mutate(dice, header) : header
}

const textOfFrame = (frame: Wire.Frame): string =>
  frame._tag === "Payload" ? Buffer.from(frame.bytes).toString("latin1") : `too large ${frame.announcedBytes}`

const checkFrames = (dice: Dice) => {
  const bytes = frames(dice)
  const whole = new Wire.FrameDecoder().push(bytes).map(textOfFrame)
  const decoder = new Wire.FrameDecoder()
  const pieces = split(dice, bytes).flatMap((piece) => {
    const found = decoder.push(piece).map(textOfFrame)
    check("no more is held than one frame", decoder.heldBytes <= Wire.prefixBytes + Wire.payloadBytesMax)
    return found
  })
  check("frames are the same however they are split", whole.join("\0") === pieces.join("\0"))
}

const hostname = /^[a-z0-9.-]{1,253}$/

const checkMessages = (dice: Dice) => {
  const bytes = payload(dice)
  const v1 = MessageV1.decode(bytes)
  if (Result.isSuccess(v1)) check("a name is a name", hostname.test(v1.success.hostname))
  else check("a refusal is short", v1.failure.message.length < 2000)
  const beat = MessageV2.plainHeartbeatId(bytes)
  const object = parseObject(bytes)
  if (Result.isFailure(object)) return check("what is no object is no beat", beat === undefined)
  const v2 = MessageV2.decodeAgentMessage(object.success)
  if (Result.isFailure(v2)) {
    check("a refusal is short", v2.failure.message.length < 2000)
    check("what is no message is no beat", beat === undefined)
  } else if (beat !== undefined) {
    check("a beat at a glance is the beat", v2.success.type === "heartbeat" && v2.success.id === beat)
  }
}

const wordOfReading = (reading: ProxyHeader.Reading, behind: ReadonlyArray<number>): string => {
  switch (reading._tag) {
    case "Complete":
      return JSON.stringify([reading.header, [...reading.rest, ...behind]])
    case "Invalid":
      return reading.reason
    default:
      return reading._tag
  }
}

const checkProxyHeaders = (dice: Dice) => {
  const bytes = Buffer.concat([proxyHeader(dice), junk(dice, 20)])
  const whole = wordOfReading(new ProxyHeader.ProxyHeaderReader().push(bytes), [])
  const reader = new ProxyHeader.ProxyHeaderReader()
  let reading: ProxyHeader.Reading = { _tag: "Incomplete" }
  const behind: Array<number> = []
  for (const piece of split(dice, bytes)) {
    if (reading._tag === "Incomplete") reading = reader.push(piece)
    else behind.push(...piece)
    check("no more is held than a header", reader.heldBytes <= ProxyHeader.headerBytesMax)
  }
  check("a header is the same however it is split", whole === wordOfReading(reading, behind))
}

const checkDer = (samples: ReadonlyArray<Uint8Array>) => (dice: Dice) => {
  const bytes = samples.length > 0 && dice.chance(0.8) ? mutate(dice, dice.pick(samples)) : junk(dice, 100)
  Crl.parse(bytes)
  Crl.holderOf(bytes)
}

const checkProofs = (dice: Dice) => {
  const text = (length: number) => (dice.chance(0.5) ? "A".repeat(length) : junk(dice, length).toString("base64url"))
  const claim = { purpose: "key", nonce: text(43), publicKey: text(43), channel: undefined } as const
  check("nobody signs by chance", !Proof.verify(claim, text(86)))
}

export type Subject = (dice: Dice) => void

/** Subjects by name, with how often each is tried. `der`: certificates and lists to begin with. */
export const subjects = (der: ReadonlyArray<Uint8Array>): ReadonlyArray<readonly [string, number, Subject]> => [
  ["frames", 0.3, checkFrames],
  ["messages", 0.35, checkMessages],
  ["proxy-headers", 0.25, checkProxyHeaders],
  ["der", 0.08, checkDer(der)],
  ["proofs", 0.02, checkProofs]
]
