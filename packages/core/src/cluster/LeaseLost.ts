/** What stops whoever acts under a lease that has passed on. */
import { Schema } from "effect"

/** The lease has passed to another instance, or may have: what was to be done under it is not to be done. */
export class LeaseLost extends Schema.TaggedError<LeaseLost>()("LeaseLost", { lease: Schema.String }) {
  override get message(): string {
    return `this server does not hold ${this.lease} any more; the one that has it goes on`
  }
}
