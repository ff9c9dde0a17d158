/** What servers of a cluster tell each other about. */

/**
 * - `outbox`: zones that have marks. Words: zones.
 * - `published`: zones in which names were applied, served or parked. Words: zones.
 * - `hosts`: hosts that were written. Words: full names.
 * - `audit`: entries were committed, or sealed. No words.
 * - `zones`, `access`, `ownership`, `webhooks`, `guards`: what is kept of these in memory is to be read anew. No words.
 * - `leases`: a lease is free, or an instance came or went. No words.
 */
export const topics = [
  "outbox",
  "published",
  "hosts",
  "audit",
  "zones",
  "access",
  "ownership",
  "webhooks",
  "guards",
  "leases"
] as const
export type Topic = (typeof topics)[number]

/** What was heard: the words, or that any of them may have been missed. */
export type Heard = ReadonlySet<string> | "all"
