/**
 * Conditional changes (RFC 9110, 13.1): a change says by `If-Match` what it
 * starts from, so that nobody undoes what another did meanwhile.
 *
 * Promises: who is told 412 is told what changed, by whom and when. Called by
 * handlers, once they have what is there now, in the transaction of the change.
 * Leaves to others: 304, which every GET with an `ETag` has (`Answers`).
 */
import * as EntityTag from "@prism-dns/core/api/EntityTag"
import { type ChangedField, PreconditionFailed, PreconditionRequired } from "@prism-dns/core/api/Problems"
import { Effect } from "effect"
import { HttpApiSchema } from "effect/http-api"

/** What became of something since a version of it. */
export interface ChangesSince {
  readonly changes: ReadonlyArray<ChangedField>
  readonly changedBy?: string | undefined
  /** RFC 3339. */
  readonly changedAt?: string | undefined
}

export interface Current<E = never, R = never> {
  /** Of what is there now; undefined: nothing is. */
  readonly version: number | string | undefined
  /** Whether leaving out `If-Match` could undo another's change. */
  readonly required: boolean
  /** What differs between `version` and now; `version` is what the caller sent, which may never have been. */
  readonly changesSince: (version: string) => Effect.Effect<ChangesSince, E, R>
}

/** Fails with 412 where something else is there than the caller thinks, and with 428 where it does not say. */
export const requireMatch = <E = never, R = never>(
  request: { readonly headers: { readonly [name in "if-match" | "if-none-match"]?: string | undefined } },
  { changesSince, required, version }: Current<E, R>
): Effect.Effect<void, PreconditionFailed | PreconditionRequired | E, R> =>
  Effect.gen(function* () {
    const { "if-match": ifMatch, "if-none-match": ifNoneMatch } = request.headers
    if (ifNoneMatch?.trim() === "*" && version !== undefined) {
      return yield* new PreconditionFailed({
        detail: "If-None-Match says that there is nothing yet, and there is something; nothing was changed.",
        etag: EntityTag.make(version),
        changes: []
      })
    }
    if (ifMatch === undefined) {
      if (version === undefined || !required) return
      return yield* new PreconditionRequired({
        detail: `Say by If-Match what the change starts from: the ETag that you read. Now it is ${EntityTag.make(version)}.`
      })
    }
    if (version === undefined) {
      return yield* new PreconditionFailed({
        detail: "If-Match names something, and there is nothing any more; nothing was changed.",
        changes: []
      })
    }
    if (EntityTag.matches(ifMatch, version)) return
    const { changedAt, changedBy, changes } = yield* changesSince(EntityTag.versionOf(ifMatch.split(",")[0]!.trim()))
    return yield* new PreconditionFailed({
      detail:
        `It is not as ${ifMatch} any more: ${changedBy ?? "somebody"} changed it` +
        `${changedAt === undefined ? "" : ` at ${changedAt}`}. Nothing was changed now; look at it and try again with ${EntityTag.make(version)}.`,
      etag: EntityTag.make(version),
      ...(changedBy !== undefined && { changedBy }),
      ...(changedAt !== undefined && { changedAt }),
      changes
    })
  })

/** An answer with its tag, for an endpoint whose success is `WithHeaders(…, Values.etag)`; other headers may stand beside. */
export const withTag = <B, const H extends object = {}>(body: B, tag: string, headers?: H) =>
  HttpApiSchema.withHeaders({ body, headers: { ...(headers as H), etag: tag } })

/**
 * The fields in which two plain values differ, by JSON Pointer: objects are looked into, everything else is compared as
 * it is written. For `changesSince` of whoever keeps former versions.
 */
export const changedFields = (before: unknown, now: unknown, at = ""): ReadonlyArray<ChangedField> => {
  if (isObject(before) && isObject(now)) {
    return [...new Set([...Object.keys(before), ...Object.keys(now)])].flatMap((key) =>
      changedFields(before[key], now[key], `${at}/${key.replaceAll("~", "~0").replaceAll("/", "~1")}`)
    )
  }
  if (JSON.stringify(before) === JSON.stringify(now)) return []
  return [{ pointer: at, ...(before !== undefined && { before }), ...(now !== undefined && { now }) }]
}

const isObject = (value: unknown): value is Readonly<Record<string, unknown>> =>
  typeof value === "object" && value !== null && !Array.isArray(value)
