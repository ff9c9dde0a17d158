/**
 * Events: entries of the audit log, as those see them who follow what changes.
 * Pure.
 *
 * An entry is turned into its JSON once, whoever reads it; beside it stands
 * what decides over who gets it. Leaves to others: reading the log (`Feed`),
 * and what an entry says (`audit/Entries`).
 */
import { resourceOf } from "../audit/Actions.ts"
import type { LogEntry } from "../audit/AuditLog.ts"
import type { Event } from "../api/Events.ts"
import { timestamp } from "../api/Values.ts"
import { allows, type Authority, type Place, type Resource } from "../auth/Permissions.ts"
import type { DomainName } from "../domain/DomainName.ts"

/** An event, ready to be sent. */
export interface Item {
  readonly id: number
  readonly atMillis: number
  readonly kind: string
  readonly zone: DomainName | undefined
  readonly subject: string
  /** `Event` of the contract, on one line. */
  readonly json: string
}

/** Which events somebody wants; undefined: any. */
export interface Filter {
  /** Kinds, or families of them: `host.*`. */
  readonly kinds?: ReadonlyArray<string> | undefined
  readonly zones?: ReadonlyArray<DomainName> | undefined
  /** Full names. */
  readonly hosts?: ReadonlyArray<DomainName> | undefined
}

/** The entry as the contract shows it. */
export const toEvent = (entry: LogEntry): Event => ({
  id: entry.position,
  kind: entry.action,
  at: timestamp(entry.atMillis),
  ...(entry.zone !== undefined && { zone: entry.zone as DomainName }),
  subject: entry.subject,
  generation: entry.generation,
  ...(entry.before !== undefined && { before: entry.before }),
  ...(entry.after !== undefined && { after: entry.after }),
  actor: entry.actor,
  ...(entry.reason !== undefined && { reason: entry.reason }),
  ...(entry.cause !== undefined && { cause: entry.cause }),
  ...(entry.request !== undefined && { request: entry.request }),
  ...(entry.result !== "done" && { result: entry.result })
})

export const toItem = (entry: LogEntry): Item => ({
  id: entry.position,
  atMillis: entry.atMillis,
  kind: entry.action,
  zone: entry.zone as DomainName | undefined,
  subject: entry.subject,
  json: JSON.stringify(toEvent(entry))
})

/** Of these resources, what an entry is about is a name within its zone. */
const named: ReadonlySet<Resource> = new Set<Resource>(["hosts", "records", "lua", "publications"])

/** Where an event happened. */
const placeOf = (resource: Resource, { subject, zone }: Item): Place =>
  zone === undefined ? {} : named.has(resource) ? { zone, name: subject as DomainName } : { zone }

/** Whether an event may be seen: it takes the right to events there, and the right to look at what it is about. */
export const isVisible = (authority: Authority, item: Item): boolean => {
  const resource = resourceOf(item.kind)
  const place = placeOf(resource, item)
  return allows(authority, "read", "events", place) && allows(authority, "read", resource, place)
}

const isOfKind = (pattern: string, kind: string): boolean =>
  pattern.endsWith(".*") ? kind.startsWith(pattern.slice(0, -1)) : kind === pattern

export const matches = ({ hosts, kinds, zones }: Filter, { kind, subject, zone }: Item): boolean =>
  (kinds === undefined || kinds.some((pattern) => isOfKind(pattern, kind))) &&
  (zones === undefined || (zone !== undefined && zones.includes(zone))) &&
  (hosts === undefined || hosts.some((host) => host === subject))
