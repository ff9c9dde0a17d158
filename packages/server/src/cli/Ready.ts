/**
 * The ready file: what other programs need to use a server that was started
 * for them, written once all of it answers.
 *
 * Promises: the file appears whole or not at all, with mode 0600, since it
 * holds keys; what it names answered a moment before. Leaves to others: what
 * is in it.
 */
import { Effect, Schedule } from "effect"
import * as Dns from "node:dns/promises"
import * as Fs from "node:fs"
import * as Net from "node:net"
import type { Endpoint } from "../Config.ts"
import { FileUnusable } from "./Failure.ts"

/** Released: outside programs read it. */
export interface Ready {
  readonly pid: number
  /** Where hosts register without TLS; not there where they have to use it. */
  readonly tcp?: Endpoint
  /** Where they register with TLS; not there where it is off. */
  readonly tls?: Endpoint
  readonly http: { readonly url: string }
  readonly dns: Endpoint
  readonly powerdns: { readonly url: string; readonly apiKey: string }
  readonly zones: ReadonlyArray<string>
  readonly adminToken?: string
  readonly agentToken?: string
}

/** Of a server that takes hosts without TLS. */
export type ReadyPlain = Ready & { readonly tcp: Endpoint }

const connects = (endpoint: Endpoint) =>
  Effect.callback<void, Error>((resume) => {
    const socket = Net.connect(endpoint.port, endpoint.host)
    socket.once("connect", () => {
      socket.destroy()
      resume(Effect.void)
    })
    socket.once("error", (error) => resume(Effect.fail(error)))
    return Effect.sync(() => socket.destroy())
  })

const answersHttp = (url: string, request: RequestInit = {}) =>
  Effect.tryPromise(async (signal) => {
    const response = await fetch(url, { ...request, signal })
    await response.arrayBuffer()
    if (!response.ok) throw new Error(`${url} answers ${response.status}`)
  })

const answersApi = ({ powerdns }: Ready, method: "GET" | "PUT", path: string) =>
  answersHttp(`${powerdns.url}/api/v1/servers/localhost${path}`, { method, headers: { "X-API-Key": powerdns.apiKey } })

/** A resolver that asks one server only, and once. */
export const resolverFor = async (endpoint: Endpoint): Promise<Dns.Resolver> => {
  const resolver = new Dns.Resolver({ timeout: 1000, tries: 1 })
  const { address } = await Dns.lookup(endpoint.host)
  resolver.setServers([`${address.includes(":") ? `[${address}]` : address}:${endpoint.port}`])
  return resolver
}

/**
 * Asks the API before the DNS, and has PowerDNS forget its answer when that is a refusal: a question that comes while
 * a zone is being made is refused, and PowerDNS would say so from its cache for a minute.
 */
const answersZone = (ready: Ready, zone: string) =>
  answersApi(ready, "GET", `/zones/${zone.replaceAll("/", "=2F")}?rrsets=false`).pipe(
    Effect.andThen(Effect.tryPromise(async () => (await resolverFor(ready.dns)).resolveSoa(zone.replace(/\.$/, "")))),
    Effect.tapError(() => answersApi(ready, "PUT", `/cache/flush?domain=${encodeURIComponent(zone)}`))
  )

const repeat = Schedule.min([Schedule.exponential("10 millis"), Schedule.spaced("500 millis")])

/** How long something may be silent before we say that we wait for it. */
const patience = "5 seconds"

/** Repeats a check until it succeeds, however long that takes, and says so when it takes long. */
export const until = (what: string, check: Effect.Effect<unknown, unknown>): Effect.Effect<void> =>
  Effect.suspend(() => {
    let last = "no answer"
    return check.pipe(
      Effect.timeout("2 seconds"),
      Effect.tapError((error) =>
        Effect.sync(() => {
          const cause = error instanceof Error && error.cause instanceof Error ? error.cause : error
          last = cause instanceof Error ? cause.message : String(cause)
        })
      ),
      Effect.retry(repeat),
      Effect.orDie, // the schedule has no end
      Effect.raceFirst(
        Effect.suspend(() => Effect.logWarning(`still waiting for ${what}: ${last}`)).pipe(
          Effect.delay(patience),
          Effect.forever
        )
      ),
      Effect.asVoid
    )
  })

/** Waits until everything named in `ready` answers. */
export const awaitAnswers = (ready: Ready): Effect.Effect<void> =>
  Effect.forEach(
    [
      ...(ready.tcp === undefined ? [] : [until("the agents' port", connects(ready.tcp))]),
      ...(ready.tls === undefined ? [] : [until("the agents' TLS port", connects(ready.tls))]),
      until("the API", answersHttp(`${ready.http.url}/livez`)),
      until("the API of PowerDNS", answersApi(ready, "GET", "")),
      ...ready.zones.map((zone) => until(`zone ${zone}`, answersZone(ready, zone)))
    ],
    (check) => check,
    { concurrency: 4, discard: true }
  )

const onDisk = (path: string, f: () => void): Effect.Effect<void, FileUnusable> =>
  Effect.try({
    try: f,
    catch: (error) => new FileUnusable({ path, detail: error instanceof Error ? error.message : String(error) })
  })

/** Removes what an earlier run left there: it would be taken for ours. */
export const remove = (path: string) => onDisk(path, () => Fs.rmSync(path, { force: true }))

/** Writes the file beside its place and moves it there. */
export const write = (path: string, ready: Ready) =>
  onDisk(path, () => {
    const temporary = `${path}.${process.pid}.tmp`
    Fs.rmSync(temporary, { force: true })
    Fs.writeFileSync(temporary, `${JSON.stringify(ready, null, 2)}\n`, { mode: 0o600 })
    Fs.renameSync(temporary, path)
  })
