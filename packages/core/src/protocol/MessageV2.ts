/**
 * The messages of protocol 2.0, for the server and for agents.
 *
 * Each side's frames are a closed union by `type`. A frame that is not one of
 * them is refused as a whole; fields that are not named here are ignored, so
 * that a later minor version may add some. Released: every message that was
 * ever understood stays understood.
 *
 * Leaves to others: frames (`Wire`), what is signed (`Proof`), the order of
 * messages (`server/tcp/SessionV2`, the SDK).
 */
import { Result, Schema, SchemaIssue } from "effect"
import { nameCharactersMax, parseHostName } from "../domain/DomainName.ts"
import { ackLevels } from "../domain/Host.ts"
import { type Fields, parseObject, type Unreadable } from "./Payload.ts"

export { parseObject, type Unreadable }

/** What `hello` and `welcome` say. */
export const version = "2.0"

/** Addresses of one host at the most. */
export const addressesMax = 16
/** Zones that a welcome names at the most: it has to fit into a frame. */
export const zonesMax = 100
/** Labels of one host at the most. */
export const labelsMax = 32
/** Characters of a label's key and of its value at the most. */
export const labelKeyCharactersMax = 63
export const labelValueCharactersMax = 255

// --- Values --------------------------------------------------------------------------------------------------------

/** Chosen by the agent; answers and what follows from the request carry it. */
const Id = Schema.Int.check(Schema.isBetween({ minimum: 0, maximum: Number.MAX_SAFE_INTEGER }))

const Hostname = Schema.String.check(
  Schema.makeFilter((text: string) => {
    const parsed = parseHostName(text)
    return Result.isSuccess(parsed) ? undefined : parsed.failure.reason
  })
)

const Name = Schema.String.check(Schema.isBetweenLength(1, nameCharactersMax + 1))

const AddressText = Schema.String.check(Schema.isBetweenLength(2, 45))

/** Undefined: the address the connection comes from. */
const Addresses = Schema.Array(AddressText).check(Schema.isBetweenLength(1, addressesMax))

export const TtlSeconds = Schema.Int.check(Schema.isBetween({ minimum: 1, maximum: 2_147_483_647 }))

const labelKeyPattern = /^[A-Za-z0-9](?:[A-Za-z0-9._/-]*[A-Za-z0-9])?$/
const LabelValue = Schema.String.check(Schema.isMaxLength(labelValueCharactersMax))

/** What is wrong with a host's labels; undefined: nothing. */
export const labelsProblem = (labels: Readonly<Record<string, string>> = {}): string | undefined => {
  const keys = Object.keys(labels)
  if (keys.length > labelsMax) return `a host has at most ${labelsMax} labels`
  const bad = keys.some((key) => key.length > labelKeyCharactersMax || !labelKeyPattern.test(key))
  return bad ? `a label's key is 1 to ${labelKeyCharactersMax} letters, digits and . _ / - between them` : undefined
}

// Keys are checked here: a record whose keys have a schema of their own drops those that do not fit, without a word.
export const Labels = Schema.Record(Schema.String, LabelValue).check(Schema.makeFilter(labelsProblem))

const AckLevel = Schema.Literals(ackLevels)

/**
 * An Ed25519 public key: 32 bytes in base64url without padding (RFC 8037). The two bits that are left over are zero: a key
 * has one text, or one that is taken no more would come back in another.
 */
const PublicKey = Schema.String.check(
  Schema.isPattern(/^[A-Za-z0-9_-]{42}[AEIMQUYcgkosw048]$/, { message: "is no Ed25519 public key" })
)
/** An Ed25519 signature: 64 bytes in base64url without padding. */
const Signature = Schema.String.check(Schema.isPattern(/^[A-Za-z0-9_-]{86}$/, { message: "is no Ed25519 signature" }))
const Token = Schema.String.check(Schema.isBetweenLength(1, 512))

// --- From the agent ------------------------------------------------------------------------------------------------

/** How an agent proves who it is. */
export const Auth = Schema.Union([
  /** By the key it was enrolled with; the server answers with a challenge. */
  Schema.Struct({ method: Schema.tag("key"), publicKey: PublicKey }),
  /** By a token that allows to enrol, and a key that it brings; the server answers with a challenge. */
  Schema.Struct({ method: Schema.tag("enrol"), publicKey: PublicKey, token: Token }),
  /** By a bearer token. */
  Schema.Struct({ method: Schema.tag("token"), token: Token }),
  /** By the client certificate of its TLS connection. */
  Schema.Struct({ method: Schema.tag("certificate") }),
  /** Not at all. */
  Schema.Struct({ method: Schema.tag("anonymous") })
])
export type Auth = typeof Auth.Type

/** The first frame of a session. */
export const Hello = Schema.Struct({
  type: Schema.tag("hello"),
  id: Id,
  version: Schema.String,
  /** Program and version, for logs: `prism-agent/0.1.0`. */
  client: Schema.optionalKey(Schema.String.check(Schema.isMaxLength(64))),
  /** What it will register, so that it is told at once when other servers serve that name: as in `register`. */
  hostname: Schema.optionalKey(Hostname),
  zone: Schema.optionalKey(Name),
  auth: Auth
})
export type Hello = typeof Hello.Type

/** The answer to a challenge. */
export const ProofFrame = Schema.Struct({ type: Schema.tag("proof"), id: Id, signature: Signature })

/** Registers a host. What is left out: the address observed, the zone's TTL, no labels. */
export const Register = Schema.Struct({
  type: Schema.tag("register"),
  id: Id,
  hostname: Hostname,
  zone: Schema.optionalKey(Name),
  addresses: Schema.optionalKey(Addresses),
  ttlSeconds: Schema.optionalKey(TtlSeconds),
  labels: Schema.optionalKey(Labels),
  /** The level the agent waits for; the frame that reaches it is `final`. Default `applied`. */
  ack: Schema.optionalKey(AckLevel)
})
export type Register = typeof Register.Type

/** Changes a host that this session has registered. What is left out stays. `addresses: "observed"`: the connection's. */
export const Update = Schema.Struct({
  type: Schema.tag("update"),
  id: Id,
  host: Name,
  addresses: Schema.optionalKey(Schema.Union([Addresses, Schema.Literal("observed")])),
  ttlSeconds: Schema.optionalKey(Schema.NullOr(TtlSeconds)),
  labels: Schema.optionalKey(Labels),
  ack: Schema.optionalKey(AckLevel)
})
export type Update = typeof Update.Type

/** Renews the leases of all hosts of the session. */
export const Heartbeat = Schema.Struct({ type: Schema.tag("heartbeat"), id: Id })

/** Gives a host up: its records are withdrawn at once, its name is free as its zone says. */
export const Release = Schema.Struct({
  type: Schema.tag("release"),
  id: Id,
  host: Name,
  ack: Schema.optionalKey(AckLevel)
})
export type Release = typeof Release.Type

/** Replaces the key of the session's identity: signed with the old key, and with the new one as proof that it is there. */
export const Rotate = Schema.Struct({
  type: Schema.tag("rotate"),
  id: Id,
  publicKey: PublicKey,
  signature: Signature,
  proof: Signature
})
export type Rotate = typeof Rotate.Type

export const AgentMessage = Schema.Union([Hello, ProofFrame, Register, Update, Heartbeat, Release, Rotate])
export type AgentMessage = typeof AgentMessage.Type

// --- From the server -----------------------------------------------------------------------------------------------

/** 32 random bytes in base64url, good for one proof on this connection. */
export const Challenge = Schema.Struct({
  type: Schema.tag("challenge"),
  id: Id,
  nonce: Schema.String.check(Schema.isPattern(/^[A-Za-z0-9_-]{43}$/))
})

export const Welcome = Schema.Struct({
  type: Schema.tag("welcome"),
  id: Id,
  version: Schema.String,
  /** Names the session in the server's logs. */
  session: Schema.String,
  server: Schema.Struct({ instance: Schema.String, version: Schema.String }),
  identity: Schema.Struct({ name: Schema.String, kind: Schema.Literals(["key", "certificate", "token", "anonymous"]) }),
  /** The address that the connection comes from. */
  observedAddress: Schema.String,
  /** How long a host is online after its last beat, and how often to beat. */
  lease: Schema.Struct({ durationSeconds: Schema.Finite, beatSeconds: Schema.Finite }),
  limits: Schema.Struct({
    frameBytesMax: Schema.Int,
    /** Requests under way at once; more wait. */
    pipelineMax: Schema.Int,
    addressesMax: Schema.Int,
    /** Hosts that one session may hold. */
    hostsMax: Schema.Int
  }),
  /** The zones that the agent may have hosts in, at most `zonesMax` of them; the first is meant where none is said. */
  zones: Schema.Array(Schema.String),
  /** The server's clock, RFC 3339. */
  time: Schema.String
})
export type Welcome = typeof Welcome.Type

/** A change has reached a level. Levels come in their order, each once; none is skipped. */
export const Ack = Schema.Struct({
  type: Schema.tag("ack"),
  /** Of the request. */
  id: Id,
  level: AckLevel,
  /** The full name; another than the one asked for where the zone's policy is `suffix`. */
  host: Schema.String,
  /** With `accepted`: what became of it. */
  outcome: Schema.optionalKey(Schema.Literals(["created", "changed", "returned", "renewed", "released"])),
  /** With `accepted`: as they are now. */
  addresses: Schema.optionalKey(Schema.Array(Schema.String)),
  ttlSeconds: Schema.optionalKey(Schema.Int),
  generation: Schema.Int,
  /** When it was reached, RFC 3339. */
  at: Schema.String,
  /** From the request being read to the level being reached; 0 when it was reached before. */
  elapsedMillis: Schema.Finite,
  /** The level that was asked for is reached; later ones still come. */
  final: Schema.optionalKey(Schema.Boolean),
  /** With `served`: when each name server answered with it. */
  nodes: Schema.optionalKey(Schema.Array(Schema.Struct({ node: Schema.String, at: Schema.String })))
})
export type Ack = typeof Ack.Type

/** A change stands in the registry, but PowerDNS refuses its records or someone else's are in the way; a person is needed. */
export const Parked = Schema.Struct({
  type: Schema.tag("parked"),
  id: Id,
  host: Schema.String,
  reason: Schema.String
})

/** Answers a heartbeat. Hosts whose lease is not known any more are named by `lease-unknown` before it. */
export const Beat = Schema.Struct({ type: Schema.tag("beat"), id: Id })

export const Rotated = Schema.Struct({ type: Schema.tag("rotated"), id: Id, publicKey: PublicKey })

/** A request was refused, or with `closing` the session ends. Nothing was changed. */
export const ErrorFrame = Schema.Struct({
  type: Schema.tag("error"),
  /** Of the request; absent when none stands behind it. */
  id: Schema.optionalKey(Id),
  /** Stable. */
  code: Schema.String,
  /** A sentence for people. */
  message: Schema.String,
  /** The same request may succeed later. */
  retryable: Schema.Boolean,
  /** When to try again, in seconds. */
  retryAfterSeconds: Schema.optionalKey(Schema.Finite),
  /** The server closes the connection behind this frame. */
  closing: Schema.optionalKey(Schema.Boolean)
})
export type ErrorFrame = typeof ErrorFrame.Type

/** The server is about to stop: connect elsewhere, at a random moment within `withinSeconds`. */
export const Drain = Schema.Struct({ type: Schema.tag("drain"), reason: Schema.String, withinSeconds: Schema.Finite })

/** Servers that a redirect names at the most. */
export const redirectServersMax = 16

/** In answer to `hello`: other servers serve the zone of that name. The connection is closed behind it. */
export const Redirect = Schema.Struct({
  type: Schema.tag("redirect"),
  id: Id,
  /** Where such a host belongs, and who serves that. */
  zone: Schema.String,
  group: Schema.String,
  /** `HOST:PORT` or `tls://HOST:PORT`, in order of preference. */
  servers: Schema.Array(Schema.String).check(Schema.isBetweenLength(1, redirectServersMax))
})
export type Redirect = typeof Redirect.Type

/** The server does not know the lease of this host any more: register it again. */
export const LeaseUnknown = Schema.Struct({ type: Schema.tag("lease-unknown"), host: Schema.String })

/** A word for the agent's log. */
export const Notice = Schema.Struct({ type: Schema.tag("notice"), code: Schema.String, message: Schema.String })

export const ServerMessage = Schema.Union([
  Challenge,
  Welcome,
  Ack,
  Parked,
  Beat,
  Rotated,
  ErrorFrame,
  Drain,
  Redirect,
  LeaseUnknown,
  Notice
])
export type ServerMessage = typeof ServerMessage.Type

// --- Text ----------------------------------------------------------------------------------------------------------

const issues = SchemaIssue.makeFormatterStandardSchemaV1()

const unreadable = (code: Unreadable["code"], message: string, id?: number) => Result.fail({ code, message, id })

/** Where the schema's own words would be long ones: what is none of several shapes. */
const sentences: Readonly<Record<string, string>> = {
  auth: `method must be one of ${Auth.members.map(({ fields }) => fields.method.schema.literal).join(", ")}`
}

const decoder = <A>(schema: Schema.Codec<A, unknown>, types: ReadonlySet<string>) => {
  const decode = Schema.decodeUnknownResult(schema)
  return (value: Fields): Result.Result<A, Unreadable> => {
    const { id, type } = value
    const known = Number.isSafeInteger(id) && (id as number) >= 0 ? (id as number) : undefined
    if (typeof type !== "string" || !types.has(type)) {
      return unreadable("invalid", `type must be one of ${[...types].join(", ")}`, known)
    }
    const decoded = decode(value)
    if (Result.isSuccess(decoded)) return Result.succeed(decoded.success)
    const first = issues(decoded.failure.issue).issues[0]
    const field = first?.path?.map(String).join(".") ?? ""
    const said = sentences[field] ?? first?.message
    return unreadable("invalid", field === "" ? `not a ${type}: ${said}` : `${field}: ${said}`, known)
  }
}

/** Types of what agents send. */
export const agentTypes: ReadonlySet<string> = new Set([
  "hello",
  "proof",
  "register",
  "update",
  "heartbeat",
  "release",
  "rotate"
])

/** Reads what an agent sent. Hostnames are as it wrote them. */
export const decodeAgentMessage = decoder<AgentMessage>(AgentMessage, agentTypes)

/** Types of what the server sends. */
export const serverTypes: ReadonlySet<string> = new Set([
  "challenge",
  "welcome",
  "ack",
  "parked",
  "beat",
  "rotated",
  "error",
  "drain",
  "redirect",
  "lease-unknown",
  "notice"
])

/** Reads what the server sent. A type that is not known is a failure with the code `invalid`: pass over it. */
export const decodeServerMessage = decoder<ServerMessage>(ServerMessage, serverTypes)

const heartbeatHead = Buffer.from(JSON.stringify({ type: "heartbeat", id: 0 }).slice(0, -2))
/** Digits that make no number beyond the safe ones. */
const plainDigitsMax = 15

/**
 * The id of a heartbeat that is written as `encodeText` writes it, from `start` to the end of `bytes`, without looking at
 * it any closer. Undefined for all else, a heartbeat in other words included: that is to be decoded. Almost everything
 * ever sent is such a heartbeat.
 */
export const plainHeartbeatId = (bytes: Uint8Array, start = 0): number | undefined => {
  const first = start + heartbeatHead.length
  const last = bytes.length - 1
  const digits = last - first
  if (digits < 1 || digits > plainDigitsMax || bytes[last] !== 0x7d) return undefined
  for (let i = start; i < first; i++) if (bytes[i] !== heartbeatHead[i - start]) return undefined
  // JSON knows no leading zeros.
  if (digits > 1 && bytes[first] === 0x30) return undefined
  let id = 0
  for (let i = first; i < last; i++) {
    const digit = bytes[i]! - 0x30
    if (digit < 0 || digit > 9) return undefined
    id = id * 10 + digit
  }
  return id
}

/** The text of a message, compact. */
export const encodeText = (message: AgentMessage | ServerMessage): string => JSON.stringify(message)
