/** The words of plans: what they are for, how they stand, and what their changes do. Shared with the HTTP contract. */

/**
 * - `reconcile`: repairs what differs from what should be.
 * - `adopt`: takes records over that stand in PowerDNS; `release`: gives them back. Neither writes to PowerDNS.
 * - `ignore`: says which names to leave alone, or no longer.
 * - `held-deletions`: deletions that the zone's budget did not allow.
 * - `import`: makes the records that people manage what a file or another server has.
 * - `restore`: makes them, and hosts that are not online, what they were.
 */
export const planKinds = ["reconcile", "adopt", "release", "ignore", "held-deletions", "import", "restore"] as const
export type PlanKind = (typeof planKinds)[number]

/** `superseded`: a newer plan has taken its place. */
export const planStates = ["open", "applied", "rejected", "superseded"] as const
export type PlanState = (typeof planStates)[number]

/**
 * - `create`, `update`: the name has records as they should be afterwards.
 * - `delete`: the name loses all its records of ours, and counts against the zone's budget.
 *   In a plan of a kind that changes what people manage (`changesRecords`), these three are about one record set, and no
 *   budget counts them.
 * - `repair`: records too many at a name that keeps others: doubled ones, ones with another TTL, a type too many.
 * - `adopt`, `release`: the name becomes ours, or no longer is.
 * - `ignore`, `unignore`: here `name` is the pattern, relative to the zone.
 * - `keep`: is left alone, with why.
 */
export const planActions = [
  "create",
  "update",
  "delete",
  "repair",
  "adopt",
  "release",
  "ignore",
  "unignore",
  "keep"
] as const
export type PlanAction = (typeof planActions)[number]
