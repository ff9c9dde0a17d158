/**
 * What people and programs say of hosts by their word, beside what hosts say of
 * themselves by registering: changes, retirements, releases, transfers. Pure.
 *
 * A word is decided over the host as it is, at the moment of its commit. Leaves
 * to others: who may say it (`server/http`), and carrying it out
 * (`registry/Registry`).
 */
import { Result, Schema } from "effect"
import type { Actor } from "../audit/Entries.ts"
import type { DomainName } from "../domain/DomainName.ts"
import type { Host } from "../domain/Host.ts"
import type { IpAddress } from "../domain/IpAddress.ts"
import { isSameVersion } from "./Decision.ts"

/** There is no host of this name. */
export class HostUnknown extends Schema.TaggedError<HostUnknown>()("HostUnknown", { fqdn: Schema.String }) {
  override get message(): string {
    return `there is no host ${this.fqdn}`
  }
}

/** The host is retired already. Nothing was changed. */
export class HostRetired extends Schema.TaggedError<HostRetired>()("HostRetired", { fqdn: Schema.String }) {
  override get message(): string {
    return `${this.fqdn} is retired already`
  }
}

/** The host is not as whoever spoke thinks. Nothing was changed. */
export class HostMoved extends Schema.TaggedError<HostMoved>()("HostMoved", {
  fqdn: Schema.String,
  /** As it is now. */
  generation: Schema.Finite
}) {
  override get message(): string {
    return `${this.fqdn} was changed meanwhile`
  }
}

export type WordEvent = "changed" | "transferred" | "retired" | "released"

/** What is to be true of a host; what is undefined stays as it is. */
export interface Edit {
  /** Sorted, each once, at least one. */
  readonly addresses?: ReadonlyArray<IpAddress> | undefined
  /** null: its zone's. */
  readonly ttlSeconds?: number | null | undefined
  /** All of its labels. */
  readonly labels?: Readonly<Record<string, string>> | undefined
  readonly owner?: string | undefined
  readonly isStatic?: boolean | undefined
}

export interface Word {
  readonly event: WordEvent
  readonly fqdn: DomainName
  readonly actor: Actor
  readonly reason?: string | undefined
  /** Of `changed` and `transferred`. */
  readonly edit?: ((host: Host) => Edit) | undefined
  /** Whether the host is as whoever speaks thinks, by its generation; undefined: whatever it is. */
  readonly isExpected?: ((generation: number) => boolean) | undefined
  /** Whether whoever speaks has a say in the host as it is by then; undefined: yes. */
  readonly hasSay?: ((host: Host) => boolean) | undefined
}

/** A lease begins when a host comes to have one; a host without one is online, unless it is given up. */
const withLease = (host: Host, isStatic: boolean, nowMillis: number): Host => {
  if (isStatic === host.isStatic) return host
  if (!isStatic) return { ...host, isStatic, lastSeenMillis: Math.max(nowMillis, host.lastSeenMillis) }
  return host.state === "retired"
    ? { ...host, isStatic }
    : { ...host, isStatic, state: "online", offlineSinceMillis: undefined, withdrawnSinceMillis: undefined }
}

const edited = (
  host: Host,
  { addresses, isStatic = host.isStatic, labels, owner, ttlSeconds }: Edit,
  nowMillis: number
): Host => ({
  ...withLease(host, isStatic, nowMillis),
  addresses: addresses ?? host.addresses,
  ttlSeconds: ttlSeconds === undefined ? host.ttlSeconds : (ttlSeconds ?? undefined),
  labels: labels ?? host.labels,
  owner: owner ?? host.owner
})

/** What becomes of `host`, at its old generation; undefined: it is so already. */
export const decide = (
  word: Word,
  host: Host,
  nowMillis: number
): Result.Result<Host | undefined, HostRetired | HostMoved> => {
  const { fqdn, generation } = host
  if (word.isExpected?.(generation) === false || word.hasSay?.(host) === false)
    return Result.fail(new HostMoved({ fqdn, generation }))
  switch (word.event) {
    case "released":
      return Result.succeed(host)
    case "retired":
      return host.state === "retired"
        ? Result.fail(new HostRetired({ fqdn }))
        : Result.succeed({
            ...host,
            state: "retired",
            offlineSinceMillis: host.offlineSinceMillis ?? nowMillis,
            withdrawnSinceMillis: host.withdrawnSinceMillis ?? nowMillis,
            retiredSinceMillis: nowMillis
          })
    case "changed":
    case "transferred": {
      const after = edited(host, word.edit?.(host) ?? {}, nowMillis)
      return Result.succeed(isSameVersion(host, after) ? undefined : after)
    }
  }
}

/** Requests of one kind that can share a transaction. */
export interface Run<A> {
  readonly kind: string
  readonly requests: ReadonlyArray<A>
}

/**
 * `requests` in as few runs as leave the order of those about one name: a run is of one kind, and one that was spoken of
 * before in another run, or in a run that is `single`, comes later.
 */
export const runsOf = <A>(
  requests: ReadonlyArray<A>,
  read: (request: A) => { readonly kind: string; readonly names: ReadonlyArray<string>; readonly single: boolean }
): ReadonlyArray<Run<A>> => {
  const runs: Array<{ readonly kind: string; readonly requests: Array<A> }> = []
  /** The first run that a request about a name may be in: for one of the same kind, and for others. */
  const first = new Map<string, { readonly run: number; readonly single: boolean }>()
  for (const request of requests) {
    const { kind, names, single } = read(request)
    let from = 0
    for (const name of names) {
      const last = first.get(name)
      if (last === undefined) continue
      const isShared = !single && !last.single && runs[last.run]!.kind === kind
      from = Math.max(from, isShared ? last.run : last.run + 1)
    }
    let at = from
    while (at < runs.length && runs[at]!.kind !== kind) at += 1
    if (at === runs.length) runs.push({ kind, requests: [] })
    runs[at]!.requests.push(request)
    for (const name of names) first.set(name, { run: at, single })
  }
  return runs
}
