/** The address of a Redis server. Parsed once, at the edge. */
import { Redacted, Result } from "effect"

export interface RedisUrl {
  /** With its password. */
  readonly url: Redacted.Redacted
  /** `HOST:PORT`, for people. */
  readonly name: string
  readonly tls: boolean
}

const example = "for example redis://:secret@cache.example.net:6379/0, or rediss:// for TLS"

/** From the text of the address, or a sentence that says what is wrong; it never carries the password. */
export const parse = (input: string): Result.Result<RedisUrl, string> => {
  const url = URL.parse(input)
  if (url === null || (url.protocol !== "redis:" && url.protocol !== "rediss:") || url.hostname === "") {
    return Result.fail(`is not the URL of a Redis server, ${example}`)
  }
  if (!/^(?:\/\d{0,4})?$/.test(url.pathname) || url.search !== "" || url.hash !== "") {
    return Result.fail("has something behind the host that is no number of a database")
  }
  try {
    decodeURIComponent(url.username + url.password)
  } catch {
    return Result.fail("has a password that cannot be read (a % in it is written %25)")
  }
  const port = url.port === "" ? 6379 : Number(url.port)
  return Result.succeed({
    url: Redacted.make(input),
    name: `${url.hostname}:${port}`,
    tls: url.protocol === "rediss:"
  })
}
