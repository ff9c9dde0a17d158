/**
 * What the audit tells of, as a closed set of words: the actions of its entries,
 * which are also the kinds of events. Pure.
 *
 * Each belongs to one resource of the permissions: who may read that, where the
 * entry belongs, may see it as an event. The audit itself is seen by who may
 * read `audit`.
 */
import type { Resource } from "../auth/Permissions.ts"

/** In the order in which people are shown them. */
export const actions = [
  "host.created",
  "host.changed",
  "host.returned",
  "host.transferred",
  "host.offline",
  "host.withdrawn",
  "host.retired",
  "host.released",
  // What became of a name: its records were taken by PowerDNS, or were not, or it is to be tried once more.
  "publication.applied",
  "publication.parked",
  "publication.retried",
  // Managed records, by somebody's word.
  "record.created",
  "record.changed",
  "record.deleted",
  "record.adopted",
  "record.released",
  // What an applied plan orders.
  "record.create",
  "record.update",
  "record.delete",
  "record.adopt",
  "record.release",
  "record.ignore",
  "record.unignore",
  "zone.created",
  "zone.changed",
  "zone.deleted",
  "plan.made",
  "plan.extended",
  "plan.applied",
  "plan.rejected",
  "plan.superseded",
  "guard.tripped",
  "guard.allowed",
  "guard.lifted",
  "token.issued",
  "token.changed",
  "token.revoked",
  "identity.enrolled",
  "identity.rotated",
  "identity.reset",
  "identity.revoked",
  "role.created",
  "role.changed",
  "role.deleted",
  "access.refused",
  "webhook.created",
  "webhook.changed",
  "webhook.deleted",
  "webhook.replayed",
  "audit.pruned",
  "audit.exported"
] as const
export type Action = (typeof actions)[number]

const resources: Readonly<Record<string, Resource>> = {
  host: "hosts",
  publication: "publications",
  record: "records",
  zone: "zones",
  plan: "plans",
  guard: "guards"
}

/** Whose readers may see it as an event. What tells of access, and a word nobody knows any more, only readers of the audit may. */
export const resourceOf = (action: string): Resource => {
  const area = action.slice(0, Math.max(0, action.indexOf(".")))
  return Object.hasOwn(resources, area) ? resources[area]! : "audit"
}

/** The actions that `pattern` means: one, or with `.*` at its end all of its area; undefined when there is no such action. */
export const matching = (pattern: string): ReadonlyArray<Action> | undefined => {
  const found = pattern.endsWith(".*")
    ? actions.filter((action) => action.startsWith(pattern.slice(0, -1)))
    : actions.filter((action) => action === pattern)
  return found.length === 0 ? undefined : found
}
