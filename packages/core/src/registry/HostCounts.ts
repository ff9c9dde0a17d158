/**
 * How many hosts zones and owners have, and how many they may: what a batch of
 * changes does to the counts, and which registration is one too many. Pure.
 *
 * The counts stand in the table `host_count`, which `HostRepo.write` keeps in
 * step with every change. A batch reads them without a lock, decides, and
 * compares with what its own writing returns: where another server has counted
 * meanwhile, and it is too many now, the batch begins anew.
 */
import type { Host } from "../domain/Host.ts"
import { QuotaExceeded } from "./Decision.ts"

/** What is counted: the hosts of a zone, or of an owner. */
export interface CountKey {
  readonly kind: "zone" | "owner"
  readonly key: string
}

export interface HostCount extends CountKey {
  readonly hosts: number
}

/** What a host is counted by before and after a change; undefined where there is none. */
export interface Counted {
  readonly before: Pick<Host, "zone" | "owner"> | undefined
  readonly after: Pick<Host, "zone" | "owner"> | undefined
}

const textOf = ({ key, kind }: CountKey): string => `${kind} ${key}`

const keysOf = (host: Pick<Host, "zone" | "owner">): ReadonlyArray<CountKey> => [
  { kind: "zone", key: host.zone },
  { kind: "owner", key: host.owner }
]

/** By how much the counts change, where they do, in the order of their keys. */
export const deltasOf = (changes: ReadonlyArray<Counted>): ReadonlyArray<HostCount> => {
  const deltas = new Map<string, HostCount>()
  const add = (count: CountKey, by: number) => {
    const text = textOf(count)
    deltas.set(text, { kind: count.kind, key: count.key, hosts: (deltas.get(text)?.hosts ?? 0) + by })
  }
  for (const { after, before } of changes) {
    if (before !== undefined && after !== undefined && before.zone === after.zone && before.owner === after.owner) {
      continue
    }
    if (before !== undefined) for (const count of keysOf(before)) add(count, -1)
    if (after !== undefined) for (const count of keysOf(after)) add(count, 1)
  }
  return Array.from(deltas)
    .sort(([a], [b]) => (a < b ? -1 : 1))
    .map(([, count]) => count)
    .filter(({ hosts }) => hosts !== 0)
}

/** How many hosts a registration may bring its zone and its owner to; undefined: any number. */
export interface Limits {
  readonly zoneMax: number
  readonly ownerMax: number | undefined
}

/** The counts while a batch is decided. */
export interface Tally {
  /** Counts a change, unless it would make too many: then why. */
  readonly take: (change: Counted & { readonly after: Host }, limits: Limits) => QuotaExceeded | undefined
  /** True when a count that was raised has come out above what was allowed. */
  readonly isExceededBy: (counts: ReadonlyArray<HostCount>) => boolean
}

/** `counts`: as they were read; what is not there is zero. */
export const tally = (counts: ReadonlyArray<HostCount>): Tally => {
  const hosts = new Map(counts.map((count) => [textOf(count), count.hosts]))
  const countOf = (count: CountKey) => hosts.get(textOf(count)) ?? 0
  /** Of the counts that were raised. */
  const allowed = new Map<string, number>()

  return {
    take: (change, { ownerMax, zoneMax }) => {
      const deltas = deltasOf([change])
      const maxOf = ({ kind }: CountKey) => (kind === "zone" ? zoneMax : ownerMax) ?? Infinity
      const full = deltas.find((count) => count.hosts > 0 && countOf(count) >= maxOf(count))
      if (full !== undefined) {
        const scope = full.kind === "zone" ? "zone" : "identity"
        return new QuotaExceeded({ scope, key: full.key, max: maxOf(full) })
      }
      for (const count of deltas) {
        const text = textOf(count)
        if (count.hosts > 0) allowed.set(text, Math.max(allowed.get(text) ?? 0, maxOf(count)))
        hosts.set(text, countOf(count) + count.hosts)
      }
      return undefined
    },
    isExceededBy: (written) => written.some((count) => count.hosts > (allowed.get(textOf(count)) ?? Infinity))
  }
}
