/**
 * Entity tags (RFC 9110 8.8.3) of what can be changed: a version, and behind it
 * whatever else the answer depends on.
 *
 * A tag is `"17"` or `"17-SUFFIX"`. `If-None-Match` compares the whole;
 * `If-Match` compares versions alone, so that what moves by itself (when a host
 * was last seen) stands in nobody's way.
 */

/** `version`: a generation. `rest`: what else shows, in letters, digits, `.` and `_`. */
export const make = (version: number | string, rest?: string): string =>
  rest === undefined ? `"${version}"` : `"${version}-${rest}"`

const tags = (header: string): ReadonlyArray<string> =>
  header
    .split(",")
    .map((tag) => tag.trim())
    .filter((tag) => tag !== "")

/** The version that a tag names. */
export const versionOf = (tag: string): string => tag.replace(/^W\//, "").replace(/^"|"$/g, "").split("-")[0]!

/** Whether `If-Match` lets a change of what is now at `version` through. */
export const matches = (ifMatch: string, version: number | string): boolean =>
  ifMatch.trim() === "*" || tags(ifMatch).some((tag) => !tag.startsWith("W/") && versionOf(tag) === String(version))

const opaque = (tag: string): string => tag.replace(/^W\//, "")

/** Whether `If-None-Match` says that the caller has this already. Weak comparison, as RFC 9110 13.1.2 says. */
export const isKnown = (ifNoneMatch: string, tag: string): boolean =>
  ifNoneMatch.trim() === "*" || tags(ifNoneMatch).some((each) => opaque(each) === opaque(tag))
