/** `prism-dns import` and `prism-dns export`: whole zones in and out. */
import * as Contract from "@prism-dns/core/api/Records"
import { Console, Effect, Option } from "effect"
import { Argument, Command, Flag } from "effect/cli"
import * as Fs from "node:fs"
import * as Connection from "./Connection.ts"
import * as Failure from "./Failure.ts"
import * as Input from "./Input.ts"
import * as Output from "./Output.ts"
import { summary } from "./plan.ts"

/** What the API takes at the most. */
const fileBytesMax = 16 * 1_048_576

const readFile = (path: string): Effect.Effect<string, Failure.FileUnusable> =>
  Effect.try({
    try: () => {
      // 0 is the standard input.
      const text = Fs.readFileSync(path === "-" ? 0 : path, "utf8")
      if (Buffer.byteLength(text) > fileBytesMax) throw new Error(`it is larger than ${fileBytesMax} bytes`)
      return text
    },
    catch: (error) => new Failure.FileUnusable({ path, detail: (error as Error).message })
  })

export const importZone = Command.make(
  "import",
  {
    ...Connection.flags,
    dryRun: Input.dryRun,
    zone: Input.zone,
    file: Argument.String("file").pipe(
      Argument.withDescription("A zone file (RFC 1035); - is the standard input."),
      Argument.withMetavar("FILE"),
      Argument.optional
    ),
    axfr: Flag.String("axfr").pipe(
      Flag.withDescription(
        "Transfer the zone from this server instead: one of PowerDNS's nodes, or within powerdns.importFrom."
      ),
      Flag.withMetavar("ADDRESS[:PORT]"),
      Flag.optional
    ),
    prune: Flag.Boolean("prune").pipe(
      Flag.withDescription("Also delete managed records that are not in the file."),
      Flag.withDefault(false)
    )
  },
  Effect.fn(function* (input) {
    const zone = yield* Input.parseName(input.zone)
    if (Option.isSome(input.file) === Option.isSome(input.axfr)) {
      return yield* new Failure.UsageWrong({ detail: "give a file, or a server by --axfr" })
    }
    const payload = Option.isSome(input.axfr)
      ? { axfr: { server: input.axfr.value } }
      : yield* readFile(Option.getOrThrow(input.file))
    yield* Connection.withClient(input, ({ records }) =>
      Effect.gen(function* () {
        const query = { ...Input.dry(input), ...(input.prune && { prune: true }) }
        const { body: made } = yield* records.import({ params: { zone }, query, payload })
        if (input.json) return yield* Output.json(made)
        yield* Console.log(
          made.counts.changes === 0 ? `${zone} has it all already: nothing to do.` : `${made.id}\t${summary(made)}`
        )
        yield* Output.note(`${made.read} record sets read, ${made.same} of them here already`)
        for (const { name, reason, type } of made.leftOut) yield* Output.note(`left out: ${name} ${type}: ${reason}`)
        const more = made.leftOutCount - made.leftOut.length
        if (more > 0) yield* Output.note(`and ${more} more are left out`)
        if (made.counts.changes > 0 && made.dryRun !== true && Output.isTerminal()) {
          yield* Console.log(`Look at it: prism-dns plan show ${made.id}\nApply it: prism-dns plan apply ${made.id}`)
        }
      })
    )
  })
).pipe(
  Command.withDescription("Bring the records of a zone file, or of another server, in: makes a plan, to be applied."),
  Command.withExamples([
    { command: "prism-dns import example.net zone.txt", description: "What the file has and Prism has not" },
    { command: "prism-dns import example.net zone.txt --prune", description: "Exactly what the file has" }
  ])
)

export const exportZone = Command.make(
  "export",
  {
    ...Connection.flags,
    zone: Input.zone,
    format: Flag.Literals("format", Contract.exportFormats).pipe(
      Flag.withDescription("How to write it. Default: zonefile; --json is short for --format json."),
      Flag.withDefault("zonefile" as const)
    ),
    foreign: Flag.Boolean("foreign").pipe(
      Flag.withDescription("Also what others have in PowerDNS."),
      Flag.withDefault(false)
    ),
    output: Flag.String("output").pipe(
      Flag.withDescription("A file to write to. Default: the standard output."),
      Flag.withMetavar("FILE"),
      Flag.optional
    )
  },
  Effect.fn(function* (input) {
    const zone = yield* Input.parseName(input.zone)
    const format = input.json ? ("json" as const) : input.format
    yield* Connection.withClient(input, ({ records }) =>
      Effect.gen(function* () {
        const query = { format, ...(input.foreign && { foreign: true }) }
        const text = yield* records.export({ params: { zone }, query })
        if (Option.isNone(input.output)) {
          // Only a terminal obeys what stands in a record.
          return yield* Console.log(
            Output.isTerminal() ? Output.harmlessLines(text.trimEnd().replaceAll("\t", " ")) : text.trimEnd()
          )
        }
        const path = input.output.value
        yield* Effect.try({
          try: () => Fs.writeFileSync(path, text),
          catch: (error) => new Failure.FileUnusable({ path, detail: (error as Error).message })
        })
        yield* Output.note(`${zone} is in ${path}`)
      })
    )
  })
).pipe(Command.withDescription("A zone's records, of hosts and of people, as zone file, JSON or CSV."))
