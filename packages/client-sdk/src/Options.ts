/**
 * What a program says to the SDK, and what it hears from it: options, events,
 * the one error. Plain types that need no other package, so that they resolve
 * where nothing but this one is installed.
 */

/** How far a change has come: durable in the registry, taken by PowerDNS, answered by every name server. */
export type Level = "accepted" | "applied" | "served"

export const levels: ReadonlyArray<Level> = ["accepted", "applied", "served"]

/** True when `level` is `wanted` or beyond it. */
export const reaches = (level: Level | undefined, wanted: Level): boolean =>
  level !== undefined && levels.indexOf(level) >= levels.indexOf(wanted)

/** Where a registration stands. The last three are final. */
export type StateName =
  /** A connection is being made. */
  | "connecting"
  /** The server and the agent prove who they are. */
  | "handshaking"
  /** The name is asked for. */
  | "registering"
  /** The name is held, and beats keep it. */
  | "online"
  /** Nothing is connected; the next attempt has its moment. */
  | "waiting"
  /** The name is held at a server that is about to stop; another one is being found. */
  | "draining"
  /** The server said no, and asking again does not help. */
  | "refused"
  /** The name was given up. */
  | "released"
  /** The program closed it. The server keeps the name until its lease has passed. */
  | "closed"

export interface TlsOptions {
  /** Certificates of the authorities to trust, as PEM. Default: those of Node. */
  readonly ca?: string | Uint8Array | ReadonlyArray<string | Uint8Array> | undefined
  /** A client certificate as PEM, where it stands for the identity. */
  readonly cert?: string | Uint8Array | undefined
  /** Its private key as PEM. */
  readonly key?: string | Uint8Array | undefined
  /** The name that the server's certificate must have. Default: the host part of `server`. */
  readonly servername?: string | undefined
}

/** Takes a line for people. `fields` never hold a secret. */
export interface Logger {
  readonly debug?: ((message: string, fields?: Readonly<Record<string, unknown>>) => void) | undefined
  readonly info?: ((message: string, fields?: Readonly<Record<string, unknown>>) => void) | undefined
  readonly warn?: ((message: string, fields?: Readonly<Record<string, unknown>>) => void) | undefined
}

/** Waits and limits, in milliseconds; there is rarely a reason to change one. */
export interface Timing {
  /** How long a server may take to accept a connection. Default 10,000. */
  readonly connectMillis?: number | undefined
  /** How long it may take to answer. Past it the connection counts as dead. Default 10,000, at most one beat. */
  readonly answerMillis?: number | undefined
  /** The first reconnect comes at a random moment within this. It doubles with every failure. Default 1,000. */
  readonly backoffBaseMillis?: number | undefined
  /** Up to this, or half a beat where that is less. Default 30,000. */
  readonly backoffCapMillis?: number | undefined
  /** How often the clocks are compared, to notice that the machine slept. Default 5,000. */
  readonly clockCheckMillis?: number | undefined
}

/** Which interfaces' addresses to take. Loopback, link-local, containers' and tunnels' are left out unless named. */
export interface InterfaceOptions {
  /** Patterns of interface names (`*` any characters, `?` one): only these. */
  readonly include?: ReadonlyArray<string> | undefined
  /** Patterns of interfaces to leave out; stronger than `include`. */
  readonly exclude?: ReadonlyArray<string> | undefined
  /** The families wanted, the preferred one first. Default: IPv4, then IPv6. */
  readonly families?: ReadonlyArray<"ipv4" | "ipv6"> | undefined
  /** How many addresses at the most. Default 16. */
  readonly max?: number | undefined
}

export interface AgentOptions {
  /** Agents' port of the server: `HOST:PORT`, or `tls://HOST:PORT`. Several: when one is away, the next. */
  readonly server: string | ReadonlyArray<string>
  /** The name to have: letters, digits, hyphens. Default: this machine's host name, without its domain. */
  readonly hostname?: string | undefined
  /** Default: the server's first. */
  readonly zone?: string | undefined
  /** With `stateDir` it enrols a key, once. Without, it is sent with every session. */
  readonly token?: string | undefined
  /** Folder that keeps this machine's key. Made with rights for its owner alone. */
  readonly stateDir?: string | undefined
  /**
   * `observed`: the one that the server sees. `interfaces`: those of this machine that others can reach, as they change.
   * Or these. Default `observed`.
   */
  readonly addresses?: "observed" | "interfaces" | ReadonlyArray<string> | undefined
  /** Which ones, with `interfaces`. */
  readonly interfaces?: InterfaceOptions | undefined
  /** How long resolvers may keep the answer. The zone's policy bounds it; default: the zone's. */
  readonly ttlSeconds?: number | undefined
  readonly labels?: Readonly<Record<string, string>> | undefined
  /** The level that the server is told to name as the last one waited for. Default `accepted`. */
  readonly ack?: Level | undefined
  readonly tls?: TlsOptions | undefined
  readonly logger?: Logger | undefined
  /** Program and version for the server's log: `my-agent/1.2`. */
  readonly client?: string | undefined
  readonly timing?: Timing | undefined
}

/** What may be changed while a name is held. What is left out stays. */
export interface Changes {
  readonly addresses?: "observed" | ReadonlyArray<string> | undefined
  /** `null`: the zone's. */
  readonly ttlSeconds?: number | null | undefined
  readonly labels?: Readonly<Record<string, string>> | undefined
}

/** A change has come to a level. */
export interface Reached {
  /** The full name: `web-1.hosts.example.net.` */
  readonly host: string
  readonly addresses: ReadonlyArray<string>
  readonly level: Level
  /** From the server reading the request to the level being reached. */
  readonly millis: number
  /** When it was reached by the server's clock, RFC 3339. */
  readonly at: string
  /** With `served`: when each name server answered with it. */
  readonly nodes?: ReadonlyArray<{ readonly node: string; readonly at: string }> | undefined
}

export interface Connected {
  /** As it stands in the options. */
  readonly server: string
  /** Names the session in the server's log. */
  readonly session: string
  /** Who the server takes us for. */
  readonly identity: string
  /** The address that it sees. */
  readonly observedAddress: string
}

export interface Disconnected {
  readonly server: string
  readonly reason: string
  /** Failures in a row. */
  readonly failures: number
  /** When the next attempt is made; undefined when another connection stands already. */
  readonly retryInMillis: number | undefined
}

export interface Parked {
  readonly host: string
  /** Why PowerDNS does not have the records, in its own words. A person is needed. */
  readonly reason: string
}

export interface AddressChanged {
  readonly host: string
  readonly addresses: ReadonlyArray<string>
  readonly previous: ReadonlyArray<string>
}

export interface Notice {
  readonly code: string
  readonly message: string
}

/** How it stands at this moment. */
export interface Snapshot {
  readonly state: StateName
  /** The full name, once the server has said it. */
  readonly host: string | undefined
  readonly addresses: ReadonlyArray<string>
  /** The level that the newest accepted change has reached. */
  readonly level: Level | undefined
  /** What reached each level. */
  readonly reached: { readonly [L in Level]?: Reached }
  /** Who the server takes us for. */
  readonly identity: string | undefined
}

export interface StateChanged {
  readonly state: StateName
  readonly previous: StateName
}

/** Events by name, with what they carry. */
export interface Events {
  readonly accepted: Reached
  readonly applied: Reached
  readonly served: Reached
  readonly connected: Connected
  readonly disconnected: Disconnected
  readonly refused: RegistrationFailed
  readonly parked: Parked
  readonly address: AddressChanged
  readonly notice: Notice
  readonly state: StateChanged
}

export type EventName = keyof Events

/** An event as a value. */
export type AgentEvent = {
  readonly [Name in EventName]: { readonly type: Name; readonly data: Events[Name] }
}[EventName]

/** It cannot be had, and asking again does not help; or it was given up on before. */
export class RegistrationFailed extends Error {
  override readonly name = "RegistrationFailed"
  readonly _tag = "RegistrationFailed"
  /**
   * Stable. The server's own code, or one of the SDK's: `invalid` (options), `key-insecure`, `key-unreadable` (state
   * folder), `server-untrusted` (its certificate), `aborted`, `closed`, `released`, `timeout`, `busy`.
   */
  readonly code: string
  /** When to try again, in seconds; undefined when that does not help. */
  readonly retryAfterSeconds: number | undefined

  constructor(code: string, message: string, retryAfterSeconds?: number) {
    super(message)
    this.code = code
    this.retryAfterSeconds = retryAfterSeconds
  }
}
