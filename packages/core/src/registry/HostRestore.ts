/**
 * What becomes of a host that is to be again what it was. Pure, but for the
 * reading and writing at the end, inside the transaction of a plan.
 *
 * A host's own word stands: one that is online keeps what it says. For one that
 * is not, what it was is taken for its word again: it gets back its addresses,
 * labels, TTL and owner, and one that was released is there again. Nobody holds
 * a lease for it, so it is offline, its records answer as they did, and its
 * zone's policy takes its course from now on. Nothing is taken away: a host that
 * was not there yet stays.
 */
import { Effect } from "effect"
import { SecureRandom } from "effect/crypto"
import type { SqlClient } from "effect/sql"
import type { Actor } from "../audit/Entries.ts"
import type { SignalsService } from "../cluster/Signals.ts"
import type { PlanCause } from "../dns/Cause.ts"
import type { Outbox } from "../dns/Outbox.ts"
import { hostConflicts } from "../dns/RecordChanges.ts"
import type { Zones } from "../dns/Zones.ts"
import type { DomainName, HostName } from "../domain/DomainName.ts"
import type { Host } from "../domain/Host.ts"
import type { IpAddress } from "../domain/IpAddress.ts"
import type * as RRset from "../domain/RRset.ts"
import { placesOf } from "./HostRecords.ts"
import * as HostRepo from "./HostRepo.ts"
import type { HostVersion } from "./HostRows.ts"

/** Stands for a record type where a plan's change is about a host. */
export const hostType = "HOST"

/** What of a host is brought back. */
export interface Restored {
  readonly addresses: ReadonlyArray<IpAddress>
  readonly labels: Host["labels"]
  readonly ttlSeconds: number | undefined
  readonly owner: string
  readonly isStatic: boolean
  /** `online` only for one without a lease. */
  readonly state: "online" | "offline" | "retired"
  readonly withdrawn: boolean
}

/** What it is to be, by what it was. */
export const ofVersion = (then: HostVersion): Restored => ({
  addresses: then.addresses,
  labels: then.labels,
  ttlSeconds: then.ttlSeconds,
  owner: then.owner,
  isStatic: then.isStatic,
  state: then.state === "retired" ? "retired" : then.isStatic && then.state === "online" ? "online" : "offline",
  withdrawn: then.state === "retired" || then.event === "withdrawn"
})

const ofHost = (host: Host): Restored => ({
  addresses: host.addresses,
  labels: host.labels,
  ttlSeconds: host.ttlSeconds,
  owner: host.owner,
  isStatic: host.isStatic,
  state: host.state,
  withdrawn: host.withdrawnSinceMillis !== undefined
})

/** In lines that people read in a plan, in one order: `address 192.0.2.7`. */
const toLines = (restored: Restored): ReadonlyArray<string> => [
  `state ${restored.state}`,
  `owner ${restored.owner}`,
  ...restored.addresses.map((address) => `address ${address}`),
  ...(restored.ttlSeconds === undefined ? [] : [`ttl ${restored.ttlSeconds}`]),
  ...(restored.isStatic ? ["lease none"] : []),
  ...(restored.withdrawn ? ["records withdrawn"] : []),
  ...Object.entries(restored.labels)
    .sort(([a], [b]) => (a < b ? -1 : 1))
    .map(([key, value]) => `label ${key}=${value}`)
]

const fromLines = (lines: ReadonlyArray<string>): Restored => {
  const values = (word: string) =>
    lines.flatMap((line) => (line.startsWith(`${word} `) ? [line.slice(word.length + 1)] : []))
  const ttl = values("ttl")[0]
  return {
    state: (values("state")[0] ?? "offline") as Restored["state"],
    owner: values("owner")[0] ?? "",
    addresses: values("address") as ReadonlyArray<string> as ReadonlyArray<IpAddress>,
    ttlSeconds: ttl === undefined ? undefined : Number(ttl),
    isStatic: values("lease").includes("none"),
    withdrawn: values("records").includes("withdrawn"),
    labels: Object.fromEntries(
      values("label").map((label) => [label.slice(0, label.indexOf("=")), label.slice(label.indexOf("=") + 1)])
    )
  }
}

const asSet = (name: DomainName, restored: Restored): RRset.RRset => ({
  name,
  type: hostType,
  ttlSeconds: restored.ttlSeconds ?? 0,
  contents: toLines(restored)
})

export interface HostChange {
  readonly name: DomainName
  readonly type: typeof hostType
  /** `keep`: it stays as it is. */
  readonly action: "create" | "update" | "keep"
  readonly before: RRset.RRset | undefined
  readonly after: RRset.RRset | undefined
  /** A sentence. */
  readonly reason: string
}

const isSame = (a: Restored, b: Restored): boolean => toLines(a).join("\n") === toLines(b).join("\n")

/** The word of a host that is online stands; one without a lease has no word of its own. */
const keepsItsWord = (host: Host): boolean => host.state === "online" && !host.isStatic

/** What is to be done about a name, by what is there and what was; undefined: nothing. */
export const changeOf = (
  current: Host | undefined,
  then: HostVersion | undefined,
  at: string
): HostChange | undefined => {
  if (then === undefined) {
    return current === undefined
      ? undefined
      : {
          name: current.fqdn,
          type: hostType,
          action: "keep",
          before: asSet(current.fqdn, ofHost(current)),
          after: undefined,
          reason: `it was not there at ${at}, and stays: it is ${current.state}; retire or release it if it is to go`
        }
  }
  const wanted = ofVersion(then)
  const after = asSet(then.fqdn, wanted)
  const common = { name: then.fqdn, type: hostType, after } as const
  if (current === undefined) {
    return { ...common, action: "create", before: undefined, reason: `it was there at ${at}, and is no more` }
  }
  const is = ofHost(current)
  const before = asSet(current.fqdn, is)
  if (keepsItsWord(current)) {
    // Whether it was online then is no matter: it is now.
    const same = isSame(
      { ...is, state: "offline", withdrawn: false },
      { ...wanted, state: "offline", withdrawn: false }
    )
    return same
      ? undefined
      : { ...common, action: "keep", before, reason: "it is online and says otherwise: its own word stands" }
  }
  return isSame(is, wanted) ? undefined : { ...common, action: "update", before, reason: `it was otherwise at ${at}` }
}

/** What it is from now on. */
const restore = (
  current: Host | undefined,
  name: DomainName,
  zone: DomainName,
  wanted: Restored,
  context: { readonly nowMillis: number; readonly generation: number; readonly newId: string }
): Host => {
  const { generation, newId, nowMillis } = context
  const isAway = wanted.state !== "online"
  return {
    id: current?.id ?? newId,
    fqdn: name,
    hostname: current?.hostname ?? (name.slice(0, -zone.length - 1) as HostName),
    zone,
    addresses: wanted.addresses,
    labels: wanted.labels,
    ttlSeconds: wanted.ttlSeconds,
    owner: wanted.owner,
    isStatic: wanted.isStatic,
    state: wanted.state,
    generation,
    firstSeenMillis: current?.firstSeenMillis ?? nowMillis,
    lastSeenMillis: current?.lastSeenMillis ?? nowMillis,
    // Its zone's policy takes its course from now on, not from when it went.
    offlineSinceMillis: isAway ? nowMillis : undefined,
    withdrawnSinceMillis: wanted.withdrawn ? nowMillis : undefined,
    retiredSinceMillis: wanted.state === "retired" ? nowMillis : undefined
  }
}

export const make = (
  sql: SqlClient.SqlClient,
  zones: Zones["Service"],
  outbox: Pick<Outbox["Service"], "mark">,
  random: SecureRandom.SecureRandom["Service"],
  signals: SignalsService
) => {
  const hosts = HostRepo.make(sql, signals)

  /**
   * Carries out changes of hosts in the transaction around, which has seen to it that none comes meanwhile; gives why some
   * are refused, by name. Their audit entries are written here.
   */
  const apply = Effect.fnUntraced(function* (
    changes: ReadonlyArray<{
      readonly name: DomainName
      readonly action: string
      readonly after: RRset.RRset | undefined
      readonly reason: string
    }>,
    context: {
      readonly zone: DomainName
      readonly actor: Actor
      readonly generation: number
      readonly nowMillis: number
      /** What is newer was not looked at when it was decided. */
      readonly known: number
      readonly cause: PlanCause
      readonly reason: string
    }
  ) {
    const { actor, cause, generation, known, nowMillis, reason, zone } = context
    const refusals = new Map<DomainName, string>()
    const going = changes.flatMap(({ action, after, name, reason }) => {
      if (action !== "keep" && after !== undefined) return [{ name, wanted: fromLines(after.contents) }]
      refusals.set(name, `left alone: ${reason}`)
      return []
    })
    if (going.length === 0) return refusals
    const found = yield* hosts.lockByName(going.map(({ name }) => name))
    const current = new Map(found.map((host) => [host.fqdn, host]))
    const conflicts = yield* hostConflicts(
      sql,
      zones,
      going.filter(({ name }) => !current.has(name)).map(({ name }) => ({ zone, name }))
    )
    const written: Array<HostRepo.ActorChange> = []
    for (const { name, wanted } of going) {
      const before = current.get(name)
      if (before !== undefined && before.generation > known) {
        refusals.set(
          name,
          `it has changed since: generation ${before.generation}, and the plan knows of ${known}; make a new one`
        )
      } else if (before !== undefined && keepsItsWord(before)) {
        refusals.set(name, "it is online: its own word stands")
      } else if (zones.zoneOf(name)?.name !== zone) {
        refusals.set(name, `it belongs into ${zones.zoneOf(name)?.name ?? "no zone"} now`)
      } else if (conflicts.has(name)) {
        refusals.set(name, conflicts.get(name)!.reason)
      } else {
        const newId = before === undefined ? yield* random.uuidV7() : ""
        const after = restore(before, name, zone, wanted, { nowMillis, generation, newId })
        written.push({ event: before === undefined ? "created" : "changed", before, after, actor, reason })
      }
    }
    written.sort((a, b) => (a.after.fqdn < b.after.fqdn ? -1 : 1))
    if (written.length > 0) {
      yield* hosts.write(written, nowMillis, cause)
      const places = written.flatMap(({ after, before }) => placesOf(zones, before, after))
      yield* outbox.mark(places, generation, nowMillis, cause)
    }
    return refusals
  })

  return { apply }
}
