/** `prism-dns events`: what changed, and with `--follow` what changes. */
import type { Event, Gap } from "@prism-dns/core/api/Events"
import * as Contract from "@prism-dns/core/api/Events"
import * as EventStream from "@prism-dns/core/events/EventStream"
import { Clock, Console, Duration, Effect, Option, Result, Schema, Stream } from "effect"
import { Command, Flag } from "effect/cli"
import * as Kind from "../config/Kind.ts"
import * as Connection from "./Connection.ts"
import * as Failure from "./Failure.ts"
import * as Input from "./Input.ts"
import * as Output from "./Output.ts"

const several = (name: string, metavar: string, description: string) =>
  Flag.String(name).pipe(
    Flag.withDescription(`${description} May be given again, or several with commas.`),
    Flag.withMetavar(metavar),
    Flag.atLeast(0)
  )

/** Which events; the same for whoever follows. */
export const filterFlags = {
  zone: several("zone", "ZONE", "Only events in this zone."),
  kind: several("kind", "KIND", "Only events of this kind, such as host.created or host.*."),
  host: several("host", "NAME", "Only events about this full name.")
}

const given = (values: ReadonlyArray<string>) => values.flatMap((each) => each.split(",").map((text) => text.trim()))

const isKind: (text: string) => boolean = Schema.is(Contract.KindPattern)
const isSince: (text: string) => boolean = Schema.is(Contract.Since)

/** The flags as a filter, each checked. */
export const toFilter = Effect.fnUntraced(function* (input: {
  readonly zone: ReadonlyArray<string>
  readonly kind: ReadonlyArray<string>
  readonly host: ReadonlyArray<string>
}) {
  const kinds = given(input.kind)
  for (const kind of kinds) {
    if (!isKind(kind)) {
      return yield* new Failure.UsageWrong({
        detail: `'${kind}' is no kind of events; they are such as host.created, or a family of them: host.*`
      })
    }
  }
  const zones = yield* Effect.forEach(given(input.zone), Input.parseName)
  const hosts = yield* Effect.forEach(given(input.host), Input.parseName)
  return {
    ...(kinds.length > 0 && { kinds }),
    ...(zones.length > 0 && { zones }),
    ...(hosts.length > 0 && { hosts })
  }
})

/** An id, a time, or how long ago. */
export const parseSince = Effect.fnUntraced(function* (text: string) {
  if (isSince(text)) return text
  const ago = Kind.duration("0s", "36500d").parse(text)
  if (Result.isFailure(ago)) {
    return yield* new Failure.UsageWrong({
      detail: `--since: '${text}' is no event's id, no time such as 2026-11-23T10:48:00Z, and no duration such as 1h`
    })
  }
  return new Date((yield* Clock.currentTimeMillis) - Duration.toMillis(ago.success)).toISOString()
})

const line = (event: Event): string => {
  const cells = [
    event.at,
    String(event.id),
    event.kind,
    event.subject,
    event.actor,
    event.cause ?? "",
    event.reason ?? ""
  ].map(Output.harmless)
  if (!Output.isTerminal()) return cells.join("\t")
  const [at, id, kind, subject, actor, cause, reason] = cells
  const why = [cause, reason].filter((text) => text !== "").join(": ")
  return `${at}  ${id!.padStart(6)}  ${kind!.padEnd(20)}  ${subject}  by ${actor}${why === "" ? "" : `  (${why})`}`
}

/** What a person is told of events that are gone. */
export const gapText = ({ from, reason, to }: Gap): string =>
  reason === "retention"
    ? `events ${from} to ${to} are missing: the audit log keeps them no longer`
    : `events ${from} to ${to} are missing: the log ends before them, as after a restored backup`

/** Says when the connection is lost and when it is back, beside the output. */
export const sayState = (state: EventStream.StreamState) =>
  state._tag === "Connected"
    ? Effect.void
    : Output.note("the connection is lost, what happens meanwhile is not; trying again")

const show = (json: boolean) => (received: EventStream.Received) => {
  if (json) return Console.log(JSON.stringify(received._tag === "Event" ? received.event : { gap: received.gap }))
  if (received._tag === "Event") return Console.log(line(received.event))
  const text = gapText(received.gap)
  return Output.isTerminal()
    ? Console.log(`--- ${text} ---`)
    : Console.log(["", `${received.gap.from}-${received.gap.to}`, "gap", text].join("\t"))
}

export const events = Command.make(
  "events",
  {
    ...Connection.flags,
    json: Flag.Boolean("json").pipe(
      Flag.withDescription("Print each event as JSON on a line of its own."),
      Flag.withDefault(false)
    ),
    follow: Flag.Boolean("follow").pipe(
      Flag.withAlias("f"),
      Flag.withDescription("Go on with what happens from now on, until interrupted."),
      Flag.withDefault(false)
    ),
    since: Flag.String("since").pipe(
      Flag.withDescription(
        "Begin behind the event of this id, at a time, or so long ago (1h); 0 is the oldest kept. Default: now with --follow, else 0."
      ),
      Flag.withMetavar("ID|TIME|DURATION"),
      Flag.optional
    ),
    ...filterFlags
  },
  Effect.fn(function* (input) {
    const filter = yield* toFilter(input)
    const since = Option.isSome(input.since) ? yield* parseSince(input.since.value) : undefined
    yield* Connection.withClientForLong(input, (client) =>
      Effect.gen(function* () {
        // Asked first, so that a server that is not there is said at once.
        const head = yield* EventStream.head(client)
        yield* EventStream.make(client, {
          ...filter,
          since: since ?? (input.follow ? String(head) : "0"),
          until: input.follow ? undefined : head,
          onState: sayState
        }).pipe(Stream.runForEach(show(input.json)))
      })
    )
  })
).pipe(
  Command.withDescription("What changed, in order; with --follow also what changes, across restarts of the server."),
  Command.withExamples([
    { command: "prism-dns events --follow --kind 'host.*'", description: "Hosts as they come and go" },
    { command: "prism-dns events --since 1h --zone hosts.example.net --json", description: "The last hour of a zone" }
  ])
)
