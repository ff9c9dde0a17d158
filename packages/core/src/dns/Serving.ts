/**
 * Finds out when every name server answers with what PowerDNS took, which is
 * when a change is `served`.
 *
 * After a publication the nodes that did not take the write drop the zone's
 * cached answers, secondaries are told to fetch, and then each node is asked
 * for the name until it answers with exactly what was published. Promises: a
 * name is served only after every configured node has said so itself, since its
 * latest publication; a node that does not answer delays no other, and is named;
 * what is not served yet stands in the table `unserved` and is asked on after a
 * restart; memory and questions are bounded. Leaves to others: writing
 * `unserved` (`dns/Outbox`, with the settlement), and who waits
 * (`dns/Acknowledgements`).
 */
import { Context, type Effect } from "effect"
import type { DomainName } from "../domain/DomainName.ts"
import type * as RRset from "../domain/RRset.ts"
import type { Role } from "../powerdns/PowerDnsNodes.ts"

/** What PowerDNS took of one name. */
export interface Publication {
  readonly name: DomainName
  readonly generation: number
  /** What a name server is to answer with; empty: nothing. */
  readonly rrsets: ReadonlyArray<RRset.RRset>
  /** Types that this may have changed, besides those of `rrsets`. Undefined: any of the zone's managed types. */
  readonly types?: ReadonlyArray<string>
}

export interface NodeStatus {
  readonly name: string
  readonly role: Role
  /** It answered when it was asked last. */
  readonly up: boolean
  /** Names it was not seen to answer as published, of those under way. */
  readonly unserved: number
  /** When it answered a question last; undefined before the first time. */
  readonly lastAnsweredMillis: number | undefined
  /** The one that waits longest for it. */
  readonly oldest:
    | {
        readonly zone: DomainName
        readonly name: DomainName
        readonly generation: number
        readonly publishedMillis: number
        /** What it answered, in words; undefined while it has not. */
        readonly answered: string | undefined
      }
    | undefined
}

export class Serving extends Context.Service<
  Serving,
  {
    /**
     * PowerDNS took these, and they stand in `unserved` (committed). `writtenBy` is the node that took them, if any was
     * written. A newer publication of a name replaces the expectation of an older one, and settles it when it is served.
     */
    readonly published: (
      zone: DomainName,
      publications: ReadonlyArray<Publication>,
      writtenBy: string | undefined
    ) => void
    readonly status: Effect.Effect<ReadonlyArray<NodeStatus>>
  }
>()("@prism-dns/core/dns/Serving") {}
