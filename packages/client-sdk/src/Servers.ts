/**
 * The servers an agent may speak to, in order of preference.
 *
 * Leaves to others: resolving. A name is handed to the connection as it is, so
 * that each attempt asks DNS anew and follows a server that has moved.
 */
import { RegistrationFailed } from "./Options.ts"

export interface Server {
  /** As it was given. */
  readonly text: string
  /** A name, or an address without brackets. */
  readonly host: string
  readonly port: number
  readonly tls: boolean
}

/** Servers in a list at the most. */
export const serversMax = 32

const form = /^(tls:\/\/|tcp:\/\/)?(?:\[([0-9A-Fa-f:.%a-z]+)\]|([^:/[\]\s]+)):(\d{1,5})$/

/** Fails with `invalid`. */
export const parseServer = (given: unknown): Server => {
  const text = String(given)
  const match = form.exec(text)
  const port = Number(match?.[4])
  if (match === null || port < 1 || port > 65_535) {
    throw new RegistrationFailed("invalid", `server must be HOST:PORT or tls://HOST:PORT, not '${text}'`)
  }
  return { text, host: match[2] ?? match[3]!, port, tls: match[1] === "tls://" }
}

/** Fails with `invalid`. */
export const parseServers = (given: string | ReadonlyArray<string>): ReadonlyArray<Server> => {
  const texts: ReadonlyArray<unknown> = typeof given === "string" ? [given] : Array.isArray(given) ? given : []
  if (texts.length === 0)
    throw new RegistrationFailed("invalid", "name at least one server: HOST:PORT or tls://HOST:PORT")
  if (texts.length > serversMax) throw new RegistrationFailed("invalid", `at most ${serversMax} servers`)
  return texts.map(parseServer)
}

/** Which one to try: the first one at first, then always the one after the last that was tried. */
export const nextIndex = (count: number, tried: number | undefined): number =>
  tried === undefined ? 0 : (tried + 1) % count

/**
 * The servers that a redirect names, where they may be followed; undefined: none of them. Whoever came by TLS is not led
 * to a connection without it.
 */
export const parseRedirect = (from: Server, texts: ReadonlyArray<string>): ReadonlyArray<Server> | undefined => {
  const servers = texts.slice(0, serversMax).flatMap((text) => {
    try {
      const server = parseServer(text)
      return from.tls && !server.tls ? [] : [server]
    } catch {
      return []
    }
  })
  return servers.length === 0 ? undefined : servers
}
