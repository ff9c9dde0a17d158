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

/** Counts of each kind by their key. */
type ByKind = Readonly<Record<CountKey["kind"], Map<string, number>>>

const kinds = ["owner", "zone"] as const

const byKind = (): ByKind => ({ owner: new Map(), zone: new Map() })

const add = (counts: Map<string, number>, key: string, by: number) => counts.set(key, (counts.get(key) ?? 0) + by)

/** By how much the counts change, where they do, in the order of their keys. */
export const deltasOf = (changes: ReadonlyArray<Counted>): ReadonlyArray<HostCount> => {
  const deltas = byKind()
  for (const { after, before } of changes) {
    for (const kind of kinds) {
      if (before?.[kind] === after?.[kind]) continue
      if (before !== undefined) add(deltas[kind], before[kind], -1)
      if (after !== undefined) add(deltas[kind], after[kind], 1)
    }
  }
  return kinds.flatMap((kind) =>
    Array.from(deltas[kind], ([key, hosts]) => ({ kind, key, hosts }))
      .filter(({ hosts }) => hosts !== 0)
      .sort((a, b) => (a.key < b.key ? -1 : 1))
  )
}

/** How many hosts a registration may bring its zone and its owner to; undefined: any number. */
export interface Limits {
  readonly zone: number
  readonly owner: number | undefined
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
  const hosts = byKind()
  for (const count of counts) hosts[count.kind].set(count.key, count.hosts)
  /** Of the counts that were raised. */
  const allowed = byKind()

  return {
    take: ({ after, before }, limits) => {
      const changing = kinds.filter((kind) => before?.[kind] !== after[kind])
      for (const kind of changing) {
        const max = limits[kind] ?? Infinity
        if ((hosts[kind].get(after[kind]) ?? 0) < max) continue
        return new QuotaExceeded({ scope: kind === "zone" ? "zone" : "identity", key: after[kind], max })
      }
      for (const kind of changing) {
        add(hosts[kind], after[kind], 1)
        if (before !== undefined) add(hosts[kind], before[kind], -1)
        allowed[kind].set(after[kind], Math.max(allowed[kind].get(after[kind]) ?? 0, limits[kind] ?? Infinity))
      }
      return undefined
    },
    isExceededBy: (written) => written.some(({ hosts, key, kind }) => hosts > (allowed[kind].get(key) ?? Infinity))
  }
}
