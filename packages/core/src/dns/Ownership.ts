/**
 * Whose a name is, and which names of a zone are left alone.
 *
 * Patterns are names with `*`, which stands for any characters, dots too, and
 * also for none: `*.lab`, `web-*`. They are matched within their zone, and the
 * apex has no pattern. Matching and classification are pure; the patterns a
 * zone ignores are kept in the database and, for whoever asks at each name, in
 * memory. Leaves to others: making and applying plans (`dns/Adoption`,
 * `dns/Plans`).
 */
import { Context, Effect, Layer, Schema } from "effect"
import { SqlClient, type SqlError } from "effect/sql"
import * as Versions from "../cluster/Versions.ts"
import type { DomainName } from "../domain/DomainName.ts"
import { lockOrder } from "../storage/Rows.ts"

/**
 * - `managed`: a host's, or a placeholder of ours.
 * - `adopted`: a record that stood there and that Prism has taken over.
 * - `foreign`: somebody else's; Prism does not touch it.
 * - `ignored`: Prism does not even look.
 */
export type Owner = "managed" | "adopted" | "foreign" | "ignored"

/** A pattern as people wrote it that can match no name of the zone. `reason` is a sentence for people. */
export class PatternInvalid extends Schema.TaggedError<PatternInvalid>()("PatternInvalid", {
  pattern: Schema.String,
  reason: Schema.String
}) {
  override get message(): string {
    return this.reason
  }
}

/** A pattern of names within one zone. */
export interface Pattern {
  /** In its one form: lower case, relative to the zone, without a trailing dot. */
  readonly text: string
  readonly matches: (name: DomainName) => boolean
}

export interface IgnoredPattern {
  readonly zone: DomainName
  readonly pattern: string
  readonly by: string
  readonly reason: string | undefined
  readonly atMillis: number
}

/** Patterns one zone may ignore. */
export const patternsMax = 1000

const patternShape =
  /^(?:[a-z0-9_*](?:[a-z0-9_*/-]{0,61}[a-z0-9_*])?)(?:\.[a-z0-9_*](?:[a-z0-9_*/-]{0,61}[a-z0-9_*])?)*$/

/**
 * Reads a name or pattern: relative to the zone, or with the zone's own name at its end. With `apex`, `@` or the zone's own
 * name stands for itself.
 */
export const parsePattern = (
  zone: DomainName,
  input: string,
  { apex = false }: { readonly apex?: boolean } = {}
): Effect.Effect<Pattern, PatternInvalid> => {
  const lower = input.trim().toLowerCase()
  const absolute = lower.endsWith(".") ? lower : `${lower}.`
  const text = absolute.endsWith(`.${zone}`) ? absolute.slice(0, -zone.length - 1) : lower
  const fail = (reason: string) => Effect.fail(new PatternInvalid({ pattern: input.slice(0, 300), reason }))
  if (apex && (absolute === zone || lower === "@")) {
    return Effect.succeed({ text: "@", matches: (name: DomainName) => name === zone })
  }
  if (absolute === zone) return fail("the zone's own name is not a pattern")
  if (text.endsWith(".")) return fail(`the pattern ends in a dot and is not within ${zone}`)
  if (text.length > 253) return fail("the pattern is longer than a name can be")
  if (!patternShape.test(text)) {
    return fail("a pattern is a name within the zone: labels of letters, digits, hyphens, and * for any characters")
  }
  return Effect.succeed(makePattern(zone, text))
}

/** A pattern from its one form. */
export const makePattern = (zone: DomainName, text: string): Pattern => {
  const suffix = `.${zone}`
  const within = (name: DomainName) => name.endsWith(suffix)
  if (!text.includes("*")) {
    const full = `${text}${suffix}`
    return { text, matches: (name) => name === full }
  }
  // One run of characters for each star, each as short as will do: linear in the name, whatever the pattern.
  const parts = text.split("*")
  const first = parts[0]!
  const last = parts.at(-1)!
  const middle = parts.slice(1, -1).filter((part) => part !== "")
  return {
    text,
    matches: (name) => {
      if (!within(name)) return false
      const end = name.length - suffix.length
      if (end < first.length + last.length) return false
      if (!name.startsWith(first) || !name.endsWith(`${last}${suffix}`)) return false
      let at = first.length
      for (const part of middle) {
        const found = name.indexOf(part, at)
        if (found < 0 || found + part.length > end - last.length) return false
        at = found + part.length
      }
      return true
    }
  }
}

/** What decides whose a name is. */
export interface Facts {
  readonly ignored: boolean
  /** Prism has written the name, or is about to. */
  readonly published: boolean
  /** A host or a placeholder gives the name records. */
  readonly desiredByHost: boolean
  /** A record that people manage stands at the name. */
  readonly record: boolean
}

export const classify = (facts: Facts): Owner => {
  if (facts.ignored) return "ignored"
  if (facts.desiredByHost) return "managed"
  if (facts.record) return "adopted"
  return facts.published ? "managed" : "foreign"
}

export class Ownership extends Context.Service<
  Ownership,
  {
    /** Whether the name is one that Prism leaves alone. From memory. */
    readonly isIgnored: (zone: DomainName, name: DomainName) => boolean
    /**
     * Those of `names` that Prism leaves alone, as the database has it, and will until the transaction around ends: whoever
     * takes a pattern of the zone back waits for it.
     */
    readonly holdIgnored: (
      zone: DomainName,
      names: ReadonlyArray<DomainName>
    ) => Effect.Effect<ReadonlySet<DomainName>, SqlError.SqlError>
    /** The patterns that a zone ignores, or all zones, in order. */
    readonly list: (zone?: DomainName) => Effect.Effect<ReadonlyArray<IgnoredPattern>, SqlError.SqlError>
    /** Reads the patterns again; to be called after a transaction has changed them. */
    readonly reload: Effect.Effect<void, SqlError.SqlError>
  }
>()("@prism-dns/core/dns/Ownership") {
  static readonly layer = Layer.effect(
    Ownership,
    Effect.gen(function* () {
      const sql = yield* SqlClient.SqlClient
      let patterns: ReadonlyMap<DomainName, ReadonlyArray<Pattern>> = new Map()

      const list: Ownership["Service"]["list"] = (zone) =>
        Effect.map(
          sql<IgnoredRow>`
            SELECT zone, pattern, actor, reason, at FROM ignored
            ${zone === undefined ? sql.literal("") : sql`WHERE zone = ${zone}`} ORDER BY zone, pattern`,
          (rows) => rows.map(toIgnored)
        )

      const forShare = sql.literal(sql.onDialectOrElse({ pg: () => "FOR SHARE", orElse: () => "" }))
      const holdIgnored: Ownership["Service"]["holdIgnored"] = (zone, names) =>
        Effect.map(
          sql<{ readonly pattern: string }>`
            SELECT pattern FROM ignored WHERE zone = ${zone} ORDER BY ${lockOrder(sql, ["pattern"])} ${forShare}`,
          (rows) => {
            const held = rows.map(({ pattern }) => makePattern(zone, pattern))
            return new Set(names.filter((name) => held.some(({ matches }) => matches(name))))
          }
        )

      const reload = Effect.map(list(), (rows) => {
        const read = new Map<DomainName, Array<Pattern>>()
        for (const { pattern, zone } of rows) {
          const others = read.get(zone)
          if (others === undefined) read.set(zone, [makePattern(zone, pattern)])
          else others.push(makePattern(zone, pattern))
        }
        patterns = read
      })

      yield* reload
      yield* Versions.follow(sql, { topic: "ownership", reload })
      return Ownership.of({
        isIgnored: (zone, name) => patterns.get(zone)?.some(({ matches }) => matches(name)) === true,
        holdIgnored,
        list,
        reload
      })
    })
  )
}

interface IgnoredRow {
  readonly zone: DomainName
  readonly pattern: string
  readonly actor: string
  readonly reason: string | null
  readonly at: number | bigint
}

const toIgnored = (row: IgnoredRow): IgnoredPattern => ({
  zone: row.zone,
  pattern: row.pattern,
  by: row.actor,
  reason: row.reason ?? undefined,
  atMillis: Number(row.at)
})
