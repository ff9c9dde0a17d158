/** `prism-dns hosts`: what registers, changes and gives up hosts. */
import type * as Contract from "@prism-dns/core/api/HostChanges"
import { leases } from "@prism-dns/core/api/Hosts"
import { ackLevels } from "@prism-dns/core/domain/Host"
import * as IpAddress from "@prism-dns/core/domain/IpAddress"
import { Console, Effect, Option, Result } from "effect"
import { Argument, Command, Flag } from "effect/cli"
import * as Fs from "node:fs"
import * as Connection from "./Connection.ts"
import * as Failure from "./Failure.ts"
import * as HostFile from "./HostFile.ts"
import * as Input from "./Input.ts"
import * as Output from "./Output.ts"

const optional = (name: string, metavar: string, description: string) =>
  Flag.String(name).pipe(Flag.withDescription(description), Flag.withMetavar(metavar), Flag.optional)

const several = (name: string, metavar: string, description: string) =>
  Flag.String(name).pipe(Flag.withDescription(description), Flag.withMetavar(metavar), Flag.atLeast(0))

const ttl = Flag.Int("ttl").pipe(
  Flag.withDescription("The TTL of its records, in seconds, within its zone's bounds."),
  Flag.withMetavar("SECONDS"),
  Flag.optional
)
const lease = Flag.Literals("lease", leases).pipe(
  Flag.withDescription("none: online until somebody says otherwise. renewed: for one lease after each registration."),
  Flag.optional
)
const reasonFlag = optional("reason", "REASON", "Why, in a sentence; it is kept in the audit.")
const waitFor = Flag.Literals("wait-for", ackLevels).pipe(
  Flag.withDescription("Wait until it has come so far, for 60 seconds at the most."),
  Flag.optional
)

const wrong = (detail: string) => Effect.fail(new Failure.UsageWrong({ detail }))

const parseAddress = (input: string) =>
  Result.match(IpAddress.parseClaimed(input), {
    onFailure: ({ message }) => wrong(`'${input}': ${message}`),
    onSuccess: Effect.succeed
  })

/** `key=value`; with `mayClear` a key alone, or with nothing behind it, takes the label away. */
const parseLabels = (pairs: ReadonlyArray<string>, mayClear: boolean) =>
  Effect.map(
    Effect.forEach(pairs, (pair): Effect.Effect<readonly [string, string | null], Failure.UsageWrong> => {
      const end = pair.indexOf("=")
      if (end > 0) return Effect.succeed([pair.slice(0, end), pair.slice(end + 1)])
      if (mayClear && end === -1 && pair !== "") return Effect.succeed([pair, null])
      return wrong(`--label: '${pair}' is to be such as role=web`)
    }),
    (entries) => Object.fromEntries(entries)
  )

const given = <A>(name: string, value: Option.Option<A>) => (Option.isSome(value) ? { [name]: value.value } : {})

const waiting = (level: Option.Option<(typeof ackLevels)[number]>) =>
  Option.isSome(level) ? { waitFor: level.value, waitSeconds: 60 } : {}

/** Records as a dry run shows them, one a line. */
const recordColumns: ReadonlyArray<Output.Column<Contract.RecordChange>> = [
  { head: "RECORD", cell: ({ name }) => name },
  { head: "TYPE", cell: ({ type }) => type },
  { head: "NOW", cell: ({ before }) => before?.contents.join(" ") },
  { head: "WOULD BE", cell: ({ after }) => after?.contents.join(" ") }
]

interface Shown {
  readonly fqdn: string
  readonly outcome: Contract.Outcome
  readonly addresses?: ReadonlyArray<string>
  readonly publication?: { readonly level: string; readonly error?: string }
  readonly dryRun?: true
  readonly records?: ReadonlyArray<Contract.RecordChange>
}

const outcomeText = ({ dryRun, outcome, publication }: Shown): string => {
  if (dryRun === true)
    return outcome === "unchanged" || outcome === "renewed" ? "would stay as it is" : `would be ${outcome}`
  const level = publication === undefined ? "" : `, ${publication.level}`
  const error = publication?.error === undefined ? "" : `: ${publication.error}`
  return `is ${outcome}${level}${error}`
}

const print = (json: boolean, answer: Shown) =>
  json
    ? Output.json(answer)
    : Effect.andThen(
        Console.log(Output.harmless(`${answer.fqdn} ${outcomeText(answer)}.`)),
        answer.records === undefined
          ? Effect.void
          : Output.rows(recordColumns, answer.records, "No record would change.")
      )

export const register = Command.make(
  "register",
  {
    ...Connection.flags,
    hostname: Argument.String("hostname").pipe(
      Argument.withDescription("What stands before the zone, or the full name."),
      Argument.withMetavar("HOSTNAME")
    ),
    addresses: Argument.String("address").pipe(
      Argument.withDescription("Its addresses, IPv4 and IPv6."),
      Argument.withMetavar("ADDRESS"),
      Argument.atLeast(0)
    ),
    zone: optional("zone", "ZONE", "Its zone. Default: the first that you may write."),
    label: several("label", "KEY=VALUE", "A label. Once or several times."),
    ttl,
    owner: optional("owner", "NAME", "Whose host it is to be. Default: yours."),
    lease,
    reason: reasonFlag,
    waitFor,
    dryRun: Input.dryRun
  },
  Effect.fn(function* (input) {
    const addresses = yield* Effect.forEach(input.addresses, parseAddress)
    const labels = yield* parseLabels(input.label, false)
    const payload = {
      hostname: input.hostname,
      ...(addresses.length > 0 && { addresses }),
      ...(Option.isSome(input.zone) && { zone: yield* Input.parseName(input.zone.value) }),
      ...(input.label.length > 0 && { labels: labels as Record<string, string> }),
      ...given("ttlSeconds", input.ttl),
      ...given("owner", input.owner),
      ...given("lease", input.lease),
      ...given("reason", input.reason),
      ...waiting(input.waitFor)
    }
    yield* Connection.withClient(input, ({ hostChanges }) =>
      Effect.flatMap(hostChanges.register({ payload, query: Input.dry(input) }), ({ body }) => print(input.json, body))
    )
  })
).pipe(Command.withDescription("Register a host, or renew it."))

export const edit = Command.make(
  "edit",
  {
    ...Connection.flags,
    host: Input.host,
    address: several("address", "ADDRESS", "Its addresses from now on. Once or several times."),
    label: several("label", "KEY=VALUE", "A label to set; KEY alone takes it away. Once or several times."),
    ttl,
    zoneTtl: Flag.Boolean("zone-ttl").pipe(Flag.withDescription("Use its zone's TTL again."), Flag.withDefault(false)),
    owner: optional("owner", "NAME", "Whose host it is to be."),
    lease,
    reason: reasonFlag,
    ifMatch: optional("if-match", "ETAG", "Only if it is still as it was at this ETag."),
    waitFor,
    dryRun: Input.dryRun
  },
  Effect.fn(function* (input) {
    const addresses = yield* Effect.forEach(input.address, parseAddress)
    if (input.zoneTtl && Option.isSome(input.ttl)) return yield* wrong("--ttl and --zone-ttl exclude each other")
    const payload = {
      ...(addresses.length > 0 && { addresses }),
      ...(input.label.length > 0 && { labels: yield* parseLabels(input.label, true) }),
      ...given("ttlSeconds", input.ttl),
      ...(input.zoneTtl && { ttlSeconds: null }),
      ...given("owner", input.owner),
      ...given("lease", input.lease),
      ...given("reason", input.reason),
      ...waiting(input.waitFor)
    }
    const headers = given("if-match", input.ifMatch)
    yield* Connection.withClient(input, ({ hostChanges }) =>
      Effect.flatMap(
        hostChanges.change({ params: { host: input.host }, payload, query: Input.dry(input), headers }),
        ({ body }) => print(input.json, body)
      )
    )
  })
).pipe(Command.withDescription("Change a host; what is not said stays."))

export const retire = Command.make(
  "retire",
  { ...Connection.flags, host: Input.host, reason: Input.reasonArgument, dryRun: Input.dryRun },
  Effect.fn(function* (input) {
    const reason = yield* Input.reason(input.reason)
    const asked = { params: { host: input.host }, payload: { reason }, query: Input.dry(input), headers: {} }
    yield* Connection.withClient(input, ({ hostChanges }) =>
      Effect.flatMap(hostChanges.retire(asked), ({ body }) =>
        input.json || input.dryRun
          ? print(input.json, body)
          : Console.log(`${body.fqdn} is retired: its records are withdrawn, its name is held.`)
      )
    )
  })
).pipe(Command.withDescription("Give a host up: its records go, its name is held for as long as its zone says."))

export const release = Command.make(
  "release",
  { ...Connection.flags, host: Input.host, reason: Input.reasonArgument, dryRun: Input.dryRun },
  Effect.fn(function* (input) {
    const reason = yield* Input.reason(input.reason)
    const asked = { params: { host: input.host }, payload: { reason }, query: Input.dry(input), headers: {} }
    yield* Connection.withClient(input, ({ hostChanges }) =>
      Effect.flatMap(hostChanges.release(asked), (host) =>
        input.json || input.dryRun
          ? print(input.json, host)
          : Console.log(`${host.fqdn} is released: its records go, its name is free.`)
      )
    )
  })
).pipe(Command.withDescription("Forget a host: its records go, its name is free."))

export const transfer = Command.make(
  "transfer",
  {
    ...Connection.flags,
    host: Input.host,
    owner: Argument.String("owner").pipe(
      Argument.withDescription("A token's name, an identity's id, or who calls the API."),
      Argument.withMetavar("OWNER")
    ),
    reason: Input.reasonArgument,
    dryRun: Input.dryRun
  },
  Effect.fn(function* (input) {
    const payload = { owner: input.owner, reason: yield* Input.reason(input.reason) }
    const asked = { params: { host: input.host }, payload, query: Input.dry(input), headers: {} }
    yield* Connection.withClient(input, ({ hostChanges }) =>
      Effect.flatMap(hostChanges.transfer(asked), ({ body }) => print(input.json, body))
    )
  })
).pipe(Command.withDescription("Give a host to another owner; its records stay."))

/** Items in one request: enough for speed, few enough that progress is seen. */
const importSize = 1000

/** Refused items that are named at the most. */
const refusalsShown = 20

const readFile = (path: string) =>
  Effect.try({
    try: () => Fs.readFileSync(path, "utf8"),
    catch: (error) => new Failure.FileUnusable({ path, detail: error instanceof Error ? error.message : String(error) })
  })

const importFile = Command.make(
  "import",
  {
    ...Connection.flags,
    file: Argument.String("file").pipe(
      Argument.withDescription("A file .json or .csv; - for JSON on the standard input."),
      Argument.withMetavar("FILE")
    ),
    reason: reasonFlag,
    waitFor,
    dryRun: Input.dryRun
  },
  Effect.fn(function* (input) {
    const items = yield* HostFile.read(input.file, yield* readFile(input.file === "-" ? "/dev/stdin" : input.file))
    yield* Connection.withClient(input, ({ hostChanges }) =>
      Effect.gen(function* () {
        const results: Array<Contract.BatchResult> = []
        for (let at = 0; at < items.length; at += importSize) {
          const payload = {
            items: items.slice(at, at + importSize),
            ...given("reason", input.reason),
            ...waiting(input.waitFor)
          }
          const answer = yield* hostChanges.batch({ payload, query: Input.dry(input) })
          results.push(...answer.results)
          if (items.length > importSize) yield* Output.note(`${results.length} of ${items.length}`)
        }
        const refused = results.flatMap(({ problem }, i) => (problem === undefined ? [] : [{ at: i + 1, problem }]))
        if (input.json)
          yield* Output.json({ results, succeeded: results.length - refused.length, failed: refused.length })
        else {
          const counts = Map.groupBy(results, ({ outcome }) => outcome ?? "refused")
          yield* Output.rows(
            [
              { head: "OUTCOME", cell: ([outcome]: readonly [string, number]) => outcome },
              { head: "HOSTS", cell: ([, count]: readonly [string, number]) => count }
            ],
            Array.from(counts, ([outcome, some]) => [outcome, some.length] as const),
            "There is nothing in it."
          )
          for (const { at, problem } of refused.slice(0, refusalsShown))
            yield* Output.note(`item ${at}: ${problem.detail}`)
        }
        if (refused.length > 0) {
          return yield* new Failure.RequestFailed({
            detail: `${refused.length} of ${results.length} items were refused`
          })
        }
      })
    )
  })
).pipe(Command.withDescription("Register, change, retire or release the hosts of a file, JSON or CSV."))

export { importFile as import_ }
