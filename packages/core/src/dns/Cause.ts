/**
 * Why a name is to be looked at: what its mark and its planned change say.
 *
 * What a host or a person has said is a fact; everything else is a conclusion
 * of ours, and a deletion that follows from a conclusion is guarded: it counts
 * against the zone's budget and goes through quarantine.
 */

/** A plan that a person approved; the id stands behind it. */
export type PlanCause = `plan:${string}`

export type Cause =
  /** A host registered, moved, or came back. */
  | "registered"
  /** A host or a person gave the name up. */
  | "released"
  /** A lease passed: which host an address belongs to may have changed. */
  | "expired"
  /** A host stayed away for as long as its zone allows, or longer. */
  | "withdrawn"
  /** A host has another owner by somebody's word: its records are the same. */
  | "transferred"
  /** A person put, changed or deleted a record. */
  | "record"
  /** The zone's settings changed. */
  | "settings"
  /** A zone came or went, by a person's word or the configuration: the name's records are in another one. */
  | "moved"
  /** PowerDNS was seen to hold something else. */
  | "drift"
  /** A write ended without an answer. */
  | "doubt"
  /** Disabled records have been kept for long enough. */
  | "quarantine"
  | PlanCause

/** True when a deletion for this cause is a conclusion, not somebody's word. */
export const isInferred = (cause: Cause): boolean =>
  cause === "expired" ||
  cause === "withdrawn" ||
  cause === "transferred" ||
  cause === "settings" ||
  cause === "drift" ||
  cause === "doubt"

/**
 * True when it is no news to a name that is marked already: then the mark keeps its cause, which says whether a deletion is
 * a conclusion, and so guarded.
 */
export const isWeak = (cause: Cause): boolean =>
  cause === "transferred" || cause === "settings" || cause === "doubt" || cause === "quarantine"

/** Removals wait for new and changed names when PowerDNS cannot take all at once. */
export const urgencyOf = (cause: Cause): number => (cause === "withdrawn" || cause === "quarantine" ? 1 : 0)
