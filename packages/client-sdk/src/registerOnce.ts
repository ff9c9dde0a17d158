/** One registration by protocol 1.0, from the connection to the answer. */
import * as Wire from "@prism-dns/core/protocol/Wire"
import * as Net from "node:net"
import * as Os from "node:os"
import { RegistrationFailed } from "./Options.ts"

export interface RegisterOnceOptions {
  /** The agents' port of the server: `prism.example.net:8080`, or an IPv6 address in brackets. */
  readonly server: string
  /** The name to have: letters, digits and hyphens. Default: this machine's host name. */
  readonly hostname?: string | undefined
  /** A bearer token, where the server asks for one. */
  readonly token?: string | undefined
  /** The local address to come from, which is the address that gets the name. Default: what the system picks. */
  readonly localAddress?: string | undefined
  /** How long everything may take, in milliseconds. Default 10,000. */
  readonly timeoutMillis?: number | undefined
}

/** What the server said. */
export interface RegisteredOnce {
  /** The full name: `web-1.hosts.example.net.` */
  readonly host: string
  /** The address it has now. */
  readonly address: string
  /** `applied`: PowerDNS has the records. `accepted`: it will get them. Undefined: nothing had changed. */
  readonly level: "accepted" | "applied" | undefined
  /** A sentence for people. */
  readonly message: string
}

interface Response {
  readonly status?: unknown
  readonly message?: unknown
  readonly code?: unknown
  readonly host?: unknown
  readonly address?: unknown
  readonly level?: unknown
  readonly retryAfterSeconds?: unknown
}

const text = (value: unknown): string => (typeof value === "string" ? value : "")

const toRegistration = (payload: Uint8Array): RegisteredOnce => {
  let response: Response
  try {
    response = JSON.parse(new TextDecoder().decode(payload)) as Response
  } catch {
    throw new RegistrationFailed("protocol", "the answer is not JSON")
  }
  if (response.status !== "success") {
    throw new RegistrationFailed(
      text(response.code) || "refused",
      text(response.message),
      typeof response.retryAfterSeconds === "number" ? response.retryAfterSeconds : undefined
    )
  }
  return {
    host: text(response.host),
    address: text(response.address),
    level: response.level === "accepted" || response.level === "applied" ? response.level : undefined,
    message: text(response.message)
  }
}

const parseServer = (server: string): { readonly host: string; readonly port: number } => {
  const match = /^(?:\[([^\]]+)\]|([^:]+)):(\d{1,5})$/.exec(server)
  const port = Number(match?.[3])
  if (match === null || port > 65_535) {
    throw new RegistrationFailed("invalid", `server must be HOST:PORT, not '${server}'`)
  }
  return { host: match[1] ?? match[2]!, port }
}

/**
 * Registers a host, or renews its lease, and returns what the server answered. Rejects with `RegistrationFailed`.
 */
export const registerOnce = async (options: RegisterOnceOptions): Promise<RegisteredOnce> => {
  const { host, port } = parseServer(options.server)
  const message = JSON.stringify({
    version: "1.0",
    type: "registration",
    hostname: options.hostname ?? Os.hostname(),
    timestamp: new Date().toISOString(),
    auth_token: options.token
  })
  return await new Promise<RegisteredOnce>((resolve, reject) => {
    const decoder = new Wire.FrameDecoder()
    const socket = Net.connect({
      host,
      port,
      ...(options.localAddress === undefined ? {} : { localAddress: options.localAddress })
    })
    const timeoutMillis = options.timeoutMillis ?? 10_000
    const end = (settle: () => void) => {
      clearTimeout(timer)
      socket.destroy()
      settle()
    }
    const fail = (code: string, why: string) => end(() => reject(new RegistrationFailed(code, why)))
    const timer = setTimeout(() => fail("timeout", `no answer within ${timeoutMillis} ms`), timeoutMillis)
    socket.once("connect", () => socket.write(Wire.encode(message)))
    socket.once("error", (error) => fail("unreachable", `${options.server}: ${error.message}`))
    socket.once("close", () => fail("unreachable", `${options.server} closed the connection without an answer`))
    socket.on("data", (chunk) => {
      const [frame] = decoder.push(chunk)
      if (frame === undefined) return
      if (frame._tag === "TooLarge") return fail("protocol", "the answer is longer than a frame may be")
      end(() => {
        try {
          resolve(toRegistration(frame.bytes))
        } catch (error) {
          reject(error)
        }
      })
    })
  })
}
