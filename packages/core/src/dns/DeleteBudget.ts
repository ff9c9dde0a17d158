/**
 * How many names of a zone may lose their records by inference. Pure.
 *
 * A budget holds for any window of time: what was deleted within it counts. It
 * grows with the zone, and is never below its minimum. Leaves to others: what
 * counts as inferred (`dns/Cause`), and counting (`dns/Outbox`).
 */
import { Duration } from "effect"
import type { DeleteBudget } from "../domain/Zone.ts"

/** What a decision was made from, for people. */
export interface Figures {
  /** Names published in the zone. */
  readonly published: number
  /** Names deleted within the window. */
  readonly deleted: number
  /** Names that are to be deleted now. */
  readonly wanted: number
}

/** Names that may be deleted in any one window, when `published` names are published. */
export const allowed = (budget: DeleteBudget, published: number): number =>
  // A share is a decimal number that binary only comes near to: 0.29 of 100 are 29.
  Math.max(budget.min, Math.floor(budget.share * published + 1e-9))

/** Names that may still be deleted now; never below zero. */
export const remaining = (budget: DeleteBudget, published: number, deleted: number): number =>
  Math.max(0, allowed(budget, published) - deleted)

/** Why a deletion has to wait. */
export const sentence = (budget: DeleteBudget, { deleted, published, wanted }: Figures): string =>
  `${wanted} of ${published} published names would lose their records, the budget allows ${allowed(budget, published)} in ${Duration.format(budget.window)}` +
  (deleted === 0 ? "" : `, of which ${deleted} were used`)
