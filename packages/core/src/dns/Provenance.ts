/**
 * Where a record comes from: the chain from who said what, by way of the audit,
 * to what PowerDNS took and what each name server was seen to answer, with
 * times; and what stands in the way where it goes no further.
 *
 * Everything is read at the moment it is asked for, from what the registry keeps
 * anyway; nothing is computed for it ahead. What retention has taken from the
 * audit is missing from the chain and from nothing else. Leaves to others: words
 * for people (`dns/ProvenanceText`).
 */
import { Context, Effect, Layer, Option } from "effect"
import { SqlClient, type SqlError } from "effect/sql"
import type { DomainName } from "../domain/DomainName.ts"
import type { AckLevel, HostState } from "../domain/Host.ts"
import type * as RRset from "../domain/RRset.ts"
import * as Zone from "../domain/Zone.ts"
import { PowerDnsClient } from "../powerdns/PowerDnsClient.ts"
import * as Guards from "../registry/Guards.ts"
import { HostHistory, type HostReference, type HostVersion } from "../registry/HostHistory.ts"
import { asTable } from "../storage/Rows.ts"
import { DnsManager } from "./DnsManager.ts"
import * as NonTerminals from "./NonTerminals.ts"
import { never, Outbox } from "./Outbox.ts"
import { Ownership } from "./Ownership.ts"
import { knownTypes } from "./Publication.ts"
import { RecordSource } from "./RecordSource.ts"
import { Serving } from "./Serving.ts"
import { type RecordPlace, Zones } from "./Zones.ts"

/** One link of the chain. */
export interface Step {
  /**
   * - `who`: the principal, and how it came to be one. `message`: what it said. `audit`: the entry that keeps it.
   * - `marked`: it was to be published. `applied`: PowerDNS took it. `served`: a name server was seen to answer so.
   */
  readonly step: "who" | "message" | "audit" | "marked" | "applied" | "served"
  readonly atMillis: number | undefined
  /** A sentence. */
  readonly detail: string
  readonly actor?: string | undefined
  /** The address it spoke from. */
  readonly peer?: string | undefined
  /** The id of the API request. */
  readonly request?: string | undefined
  readonly cause?: string | undefined
  readonly generation?: number | undefined
  /** In the audit log; undefined while the entry waits to be sealed. */
  readonly position?: number | undefined
  readonly node?: string | undefined
}

/** Why it goes no further at the moment. */
export interface Obstacle {
  /**
   * - `waiting`: it is to be published shortly. `parked`: PowerDNS refused it. `held`: a plan waits for a person.
   * - `writer`: the zone cannot be written. `doubt`: a write without an answer may still come over it.
   * - `node`: a name server has not answered so yet. `guard`: a guard has tripped.
   * - `zone`: the zone is managed no more. `foreign`: someone else's records stand there.
   */
  readonly kind: "waiting" | "parked" | "held" | "writer" | "doubt" | "node" | "guard" | "zone" | "foreign"
  readonly detail: string
  readonly sinceMillis?: number | undefined
  readonly plan?: string | undefined
  readonly node?: string | undefined
}

/** How one name has come to be answered. */
export interface NameChain extends RecordPlace {
  /** What the registry wants there. */
  readonly desired: ReadonlyArray<RRset.RRset>
  /** What PowerDNS was last seen to take; undefined: nothing there is ours. */
  readonly published: ReadonlyArray<RRset.RRset> | undefined
  readonly level: AckLevel
  readonly steps: ReadonlyArray<Step>
  readonly obstacles: ReadonlyArray<Obstacle>
}

export interface HostExplanation {
  /** The newest version; `released`: there is no such host any more. */
  readonly version: HostVersion
  readonly steps: ReadonlyArray<Step>
  readonly names: ReadonlyArray<NameChain>
}

/** A host with a say in a record, the one that has it first. */
export interface Claim {
  readonly fqdn: DomainName
  readonly zone: DomainName
  readonly state: HostState
  /** Since when it has the address. */
  readonly sinceMillis: number
  /** Its records are not published. */
  readonly withdrawn: boolean
  readonly wins: boolean
  /** A sentence. */
  readonly reason: string
}

/**
 * - `host`: of a host. `managed`, `adopted`: of people. `placeholder`: something stands below.
 * - `foreign`: someone else's. `ignored`: left alone by a person's word. `going`: nobody's any more, and not gone yet.
 * - `none`: there is none, and none is to be.
 */
export type RecordOrigin = "host" | "managed" | "adopted" | "placeholder" | "foreign" | "ignored" | "going" | "none"

export interface RecordExplanation extends NameChain {
  readonly type: string
  readonly origin: RecordOrigin
  /** Whose it is: a host's name, or who manages it. */
  readonly owner: string | undefined
  readonly claims: ReadonlyArray<Claim>
}

export class Provenance extends Context.Service<
  Provenance,
  {
    /** Undefined: there never was one. */
    readonly host: (reference: HostReference) => Effect.Effect<HostExplanation | undefined, SqlError.SqlError>
    readonly record: (
      zone: Zone.Zone,
      name: DomainName,
      type: string
    ) => Effect.Effect<RecordExplanation, SqlError.SqlError>
  }
>()("@prism-dns/core/dns/Provenance") {
  static readonly layer = Layer.effect(
    Provenance,
    Effect.suspend(() => make)
  )
}

/** Entries of a name looked through for how it was published. */
const entriesLookedAt = 20

/** Reads under way at once for one explanation. */
const readsAtOnce = 4

/** Hosts with a claim to one address that are shown. */
const claimsShown = 20

interface EntryRow {
  readonly position: number | bigint | null
  readonly at: number | bigint
  readonly actor: string
  readonly peer: string | null
  readonly action: string
  readonly generation: number | bigint
  readonly reason: string | null
  readonly cause: string | null
  readonly request: string | null
}

interface PlaceRow {
  readonly zone: DomainName
  readonly name: DomainName
  readonly marked: number | bigint | null
  readonly cause: string | null
  readonly marked_at: number | bigint | null
  readonly parked_at: number | bigint | null
  readonly parked_reason: string | null
  readonly plan: string | null
  readonly unserved: number | bigint | null
  readonly applied_at: number | bigint | null
  readonly content: string | null
  readonly generation: number | bigint | null
  readonly published_at: number | bigint | null
  readonly served_at: number | bigint | null
  readonly served_nodes: string | null
  readonly doubt_until: number | bigint | null
}

const doubtSentence = (untilMillis: number): string =>
  untilMillis === never
    ? "a write of it had no answer and may still come, until a while after the zone takes another; then it is written once more"
    : `a write of it had no answer and may still come until ${new Date(untilMillis).toISOString()}; then it is written once more`

const optional = (value: number | bigint | null) => (value === null ? undefined : Number(value))

const make = Effect.gen(function* () {
  const sql = yield* SqlClient.SqlClient
  const zones = yield* Zones
  const source = yield* RecordSource
  const history = yield* HostHistory
  const serving = yield* Serving
  const manager = yield* DnsManager
  const outbox = yield* Outbox
  const ownership = yield* Ownership
  const powerdns = yield* PowerDnsClient
  const guards = Guards.make(sql)

  const entryColumns = "at, actor, peer, action, generation, reason, cause, request"

  /** The entries of a version, the sealed ones first. */
  const entriesOf = Effect.fnUntraced(function* (subject: string, generation: number) {
    const sealed = yield* sql<EntryRow>`
      SELECT position, ${sql.literal(entryColumns)} FROM audit_log
      WHERE subject = ${subject} AND generation = ${generation} ORDER BY position LIMIT 10`
    if (sealed.length > 0) return sealed
    // What has committed a moment ago is not sealed yet.
    return yield* sql<EntryRow>`
      SELECT NULL AS position, ${sql.literal(entryColumns)} FROM audit_entry
      WHERE subject = ${subject} AND generation = ${generation} ORDER BY sequence LIMIT 10`
  })

  /** The newest entries about how a name was published. */
  const publications = (name: DomainName) =>
    sql<EntryRow>`
      SELECT position, ${sql.literal(entryColumns)} FROM (
        SELECT position, ${sql.literal(entryColumns)} FROM audit_log
        WHERE subject = ${name} ORDER BY position DESC LIMIT ${entriesLookedAt}
      ) newest WHERE action = 'publication.applied' ORDER BY position DESC`

  /** How somebody came to be who it is. */
  const who = Effect.fnUntraced(function* (actor: string): Effect.fn.Return<Step, SqlError.SqlError> {
    const step = (detail: string, atMillis?: number): Step => ({ step: "who", atMillis, detail, actor })
    if (actor === "prism") return step("Prism itself, by what time or a look at PowerDNS has brought about")
    if (actor === "anonymous") return step("somebody without a token or key, who has proved nothing")
    const [identity] = yield* sql<{ readonly enrolled_by: string; readonly enrolled_at: number | bigint }>`
      SELECT enrolled_by, enrolled_at FROM identity WHERE id = ${actor}`
    if (identity !== undefined) {
      return step(`${actor}, an identity enrolled with the token ${identity.enrolled_by}`, Number(identity.enrolled_at))
    }
    const [token] = yield* sql<{ readonly created_by: string; readonly created_at: number | bigint }>`
      SELECT created_by, created_at FROM access_token WHERE name = ${actor}`
    if (token !== undefined) return step(`the token ${actor}, issued by ${token.created_by}`, Number(token.created_at))
    if (actor.startsWith("cert:")) return step(`${actor.slice(5)}, by a client certificate`)
    if (actor.startsWith("oidc:")) return step(`${actor.slice(5)}, by a token of the identity provider`)
    return step(`${actor}, a token of the configuration, or one that is no more`)
  })

  const said = (entry: EntryRow): string => {
    const by = entry.request === null ? "by the agents' protocol" : "by the API"
    if (entry.actor === "prism") return `${entry.action}, which nobody had to say`
    return `${entry.action}, said ${by}${entry.reason === null ? "" : `, because: ${entry.reason}`}`
  }

  /** Who said what, and where it is kept. */
  const origin = Effect.fnUntraced(function* (
    subject: string,
    generation: number,
    wanted: (action: string) => boolean
  ) {
    const entries = yield* entriesOf(subject, generation)
    const entry = entries.find(({ action }) => wanted(action))
    if (entry === undefined) return []
    const atMillis = Number(entry.at)
    const common = {
      atMillis,
      actor: entry.actor,
      peer: entry.peer ?? undefined,
      request: entry.request ?? undefined,
      cause: entry.cause ?? undefined,
      generation: Number(entry.generation)
    }
    const position = optional(entry.position)
    return [
      yield* who(entry.actor),
      { step: "message", detail: said(entry), ...common },
      {
        step: "audit",
        detail:
          position === undefined ? "kept in the audit, about to be sealed" : `kept in the audit as entry ${position}`,
        ...common,
        position
      }
    ] satisfies ReadonlyArray<Step>
  })

  const facts = (places: ReadonlyArray<RecordPlace>) =>
    sql<PlaceRow>`
      SELECT r.zone, r.name, o.generation AS marked, o.cause, o.marked_at, o.parked_at, o.parked_reason, o.plan,
        u.generation AS unserved, u.applied_at, p.content, p.generation, p.published_at, p.served_at, p.served_nodes,
        p.doubt_until
      FROM ${asTable(
        sql,
        "r",
        { zone: "text", name: "text" },
        places.map(({ name, zone }) => ({ zone, name }))
      )}
      LEFT JOIN outbox o ON o.zone = r.zone AND o.name = r.name
      LEFT JOIN unserved u ON u.zone = r.zone AND u.name = r.name
      LEFT JOIN published p ON p.zone = r.zone AND p.name = r.name`

  const stepsOf = Effect.fnUntraced(function* (row: PlaceRow | undefined, name: DomainName) {
    const steps: Array<Step> = []
    if (row === undefined) return steps
    const marked = optional(row.marked)
    if (marked !== undefined) {
      steps.push({
        step: "marked",
        atMillis: optional(row.marked_at),
        detail: `to be published at generation ${marked}`,
        generation: marked,
        cause: row.cause ?? undefined
      })
    }
    const appliedMillis = optional(row.published_at) ?? optional(row.applied_at)
    const generation = optional(row.generation) ?? optional(row.unserved)
    if (appliedMillis === undefined || generation === undefined || generation === 0) return steps
    const entries = yield* publications(name)
    const entry = entries.find(({ cause }) => cause === `generation:${generation}`)
    const position = entry === undefined ? undefined : optional(entry.position)
    steps.push({
      step: "applied",
      atMillis: appliedMillis,
      detail: `PowerDNS took it at generation ${generation}${position === undefined ? "" : `, audit entry ${position}`}`,
      generation,
      position
    })
    const servedMillis = optional(row.served_at)
    if (servedMillis === undefined) return steps
    const nodes = row.served_nodes === null ? [] : (JSON.parse(row.served_nodes) as ReadonlyArray<[string, number]>)
    for (const [node, atMillis] of nodes) {
      steps.push({ step: "served", atMillis, detail: `${node} was seen to answer so`, node, generation })
    }
    if (nodes.length === 0) {
      steps.push({
        step: "served",
        atMillis: servedMillis,
        detail: "every name server was seen to answer so",
        generation
      })
    }
    return steps
  })

  const obstaclesOf = Effect.fnUntraced(function* (row: PlaceRow | undefined, place: RecordPlace) {
    const obstacles: Array<Obstacle> = []
    if (zones.find(place.zone) === undefined) {
      obstacles.push({ kind: "zone", detail: `${place.zone} is not a zone that Prism manages any more` })
    }
    if (row !== undefined && row.marked !== null) {
      const sinceMillis = optional(row.parked_at) ?? optional(row.marked_at)
      if (row.plan !== null) {
        obstacles.push({
          kind: "held",
          detail: row.parked_reason ?? "a plan holds it back",
          sinceMillis,
          plan: row.plan
        })
      } else if (row.parked_at !== null) {
        obstacles.push({ kind: "parked", detail: row.parked_reason ?? "it was put aside", sinceMillis })
      } else {
        const error = (yield* manager.status).find(({ zone }) => zone === place.zone)?.error
        obstacles.push(
          error === undefined
            ? { kind: "waiting", detail: "it is to be published shortly", sinceMillis }
            : { kind: "writer", detail: error, sinceMillis }
        )
      }
    }
    if (row !== undefined && row.unserved !== null) {
      if (row.doubt_until !== null) {
        obstacles.push({ kind: "doubt", detail: doubtSentence(Number(row.doubt_until)) })
      }
      for (const node of yield* serving.status) {
        if (node.unserved === 0) continue
        const isThis = node.oldest?.zone === place.zone && node.oldest.name === place.name
        const seen = isThis && node.oldest?.answered !== undefined ? `: it answered ${node.oldest.answered}` : ""
        obstacles.push({
          kind: "node",
          detail: node.up
            ? `${node.name} was not seen to answer so yet${seen}`
            : `${node.name} does not answer, and has not been seen to have it`,
          sinceMillis: optional(row.applied_at),
          node: node.name
        })
      }
    }
    return obstacles
  })

  const contentOf = (name: DomainName, content: string): ReadonlyArray<RRset.RRset> =>
    (JSON.parse(content) as ReadonlyArray<[string, number, ReadonlyArray<string>]>).map(
      ([type, ttlSeconds, contents]) => ({ name, type, ttlSeconds, contents })
    )

  const chains = Effect.fnUntraced(function* (places: ReadonlyArray<RecordPlace>) {
    const rows = new Map((yield* facts(places)).map((row) => [`${row.zone} ${row.name}`, row]))
    return yield* Effect.forEach(
      places,
      Effect.fnUntraced(function* (place): Effect.fn.Return<NameChain, SqlError.SqlError> {
        const zone = zones.find(place.zone)
        const row = rows.get(`${place.zone} ${place.name}`)
        const desired = zone === undefined ? undefined : (yield* source.desired(zone, [place.name])).get(place.name)
        const isWaiting = row !== undefined && row.marked !== null
        return {
          zone: place.zone,
          name: place.name,
          desired: desired ?? [],
          published: row === undefined || row.content === null ? undefined : contentOf(place.name, row.content),
          level: isWaiting ? "accepted" : row !== undefined && row.unserved !== null ? "applied" : "served",
          steps: yield* stepsOf(row, place.name),
          obstacles: yield* obstaclesOf(row, place)
        }
      }),
      { concurrency: readsAtOnce }
    )
  })

  const guarded = Effect.fnUntraced(function* (state: HostState) {
    // Guards of the registry hold back what time does to hosts that are online.
    if (state !== "online") return []
    return (yield* guards.list)
      .filter(({ waiting }) => waiting)
      .map(({ detail, trippedAtMillis }): Obstacle => ({ kind: "guard", detail, sinceMillis: trippedAtMillis }))
  })

  const host: Provenance["Service"]["host"] = Effect.fn("Provenance.host")(function* (reference) {
    const found = yield* history.find(reference, Number.MAX_SAFE_INTEGER)
    if (Option.isNone(found)) return undefined
    const version = found.value
    const places = [{ zone: version.zone, name: version.fqdn }]
    for (const address of version.addresses) {
      const pointer = zones.placePointer(address)
      if (pointer !== undefined) places.push(pointer)
    }
    const [names, held, steps] = yield* Effect.all(
      [
        chains(places),
        guarded(version.state),
        origin(version.fqdn, version.generation, (action) => action.startsWith("host."))
      ],
      { concurrency: readsAtOnce }
    )
    return {
      version,
      steps,
      names: names.map((name, i) => (i === 0 ? { ...name, obstacles: [...name.obstacles, ...held] } : name))
    }
  })

  interface ClaimRow {
    readonly fqdn: DomainName
    readonly zone: DomainName
    readonly state: HostState
    readonly since: number | bigint
    readonly generation: number | bigint
    readonly withdrawn_since: number | bigint | null
  }

  /** In the order in which they have the address (`RecordSource`). */
  const claimsOf = (address: string) =>
    sql<ClaimRow>`
      SELECT h.fqdn, h.zone, h.state, a.since, h.generation, h.withdrawn_since
      FROM host_address a JOIN host h ON h.id = a.host_id WHERE a.address = ${address}
      ORDER BY CASE WHEN h.withdrawn_since IS NULL AND h.state <> 'retired' THEN 0 ELSE 1 END,
        CASE h.state WHEN 'online' THEN 0 ELSE 1 END, a.since DESC, h.generation DESC, h.fqdn
      LIMIT ${claimsShown}`

  const toClaim =
    (isPointer: boolean) =>
    (row: ClaimRow, i: number, all: ReadonlyArray<ClaimRow>): Claim => {
      const withdrawn = row.withdrawn_since !== null || row.state === "retired"
      const wins = i === 0 && !withdrawn
      const winner = all[0]!
      const why = (): string => {
        if (withdrawn) return `its records are withdrawn: it is ${row.state}`
        if (!isPointer) return `it has the name, and is ${row.state}`
        if (wins) {
          return all.length === 1
            ? "it alone has the address"
            : "it is online and claimed the address last, or comes before the others by that"
        }
        if (winner.state === "online" && row.state !== "online")
          return `it is ${row.state}, and ${winner.fqdn} is online`
        return `${winner.fqdn} claimed the address after it`
      }
      return {
        fqdn: row.fqdn,
        zone: row.zone,
        state: row.state,
        sinceMillis: Number(row.since),
        withdrawn,
        wins,
        reason: why()
      }
    }

  /** Whether records of the type are ours at the name: published, or sent and perhaps taken. */
  const isOurs = (zone: Zone.Zone, name: DomainName, type: string) =>
    Effect.map(outbox.published(zone.name, [name]), (published) => knownTypes(published.get(name)).has(type))

  /** What the record is of: who it belongs to, and since which generation. */
  const originOf = Effect.fnUntraced(function* (zone: Zone.Zone, name: DomainName, type: string, chain: NameChain) {
    const address = Zone.addressOfPointer(name, zone)
    const isHostType = Zone.isReverse(zone) ? type === "PTR" && address !== undefined : type === "A" || type === "AAAA"
    const claimRows = !isHostType
      ? []
      : address !== undefined
        ? yield* claimsOf(address)
        : yield* sql<ClaimRow>`
            SELECT fqdn, zone, state, first_seen AS since, generation, withdrawn_since FROM host WHERE fqdn = ${name}`
    const claims = claimRows.map(toClaim(address !== undefined))
    const wanted = chain.desired.find((rrset) => rrset.type === type)
    const [record] = yield* sql<{
      readonly owner: string
      readonly origin: "managed" | "adopted"
      readonly generation: number | bigint
    }>`
      SELECT owner, origin, generation FROM record WHERE zone = ${zone.name} AND name = ${name} AND type = ${type}`
    const winner = claims.findIndex(({ wins }) => wins)
    if (wanted !== undefined && winner >= 0) {
      const { fqdn, generation } = claimRows[winner]!
      const steps = yield* origin(fqdn, Number(generation), (action) => action.startsWith("host."))
      return { origin: "host" as const, owner: fqdn, claims, steps }
    }
    if (record !== undefined) {
      const steps = yield* origin(name, Number(record.generation), (action) => action.startsWith("record."))
      return { origin: record.origin, owner: record.owner, claims, steps }
    }
    const none = { owner: undefined, claims, steps: [] as ReadonlyArray<Step> }
    if (wanted !== undefined && NonTerminals.isPlaceholder(wanted)) return { origin: "placeholder" as const, ...none }
    if (ownership.isIgnored(zone.name, name)) return { origin: "ignored" as const, ...none }
    if (yield* isOurs(zone, name, type)) return { origin: "going" as const, ...none }
    const standing = yield* powerdns.rrsets(zone.name, [name]).pipe(
      Effect.timeout(lookMillisMax),
      Effect.orElseSucceed((): ReadonlyArray<RRset.RRset> => [])
    )
    const foreign = standing.find((rrset) => rrset.type === type)
    return foreign === undefined
      ? { origin: "none" as const, ...none }
      : { origin: "foreign" as const, ...none, published: [foreign] }
  })

  const record: Provenance["Service"]["record"] = Effect.fn("Provenance.record")(function* (zone, name, type) {
    const [chain] = yield* chains([{ zone: zone.name, name }])
    const found = yield* originOf(zone, name, type, chain!)
    // What was published meanwhile, before we looked, is ours, and noted by now: what was read before that is old.
    if (found.origin === "foreign" && (yield* isOurs(zone, name, type))) return yield* record(zone, name, type)
    const only = (rrsets: ReadonlyArray<RRset.RRset>) => rrsets.filter((rrset) => rrset.type === type)
    const published = "published" in found ? found.published : chain!.published && only(chain!.published)
    const hasSteps = found.origin !== "foreign" && found.origin !== "ignored" && found.origin !== "none"
    return {
      ...chain!,
      type,
      desired: only(chain!.desired),
      published: published?.length === 0 ? undefined : published,
      origin: found.origin,
      owner: found.owner,
      claims: found.claims,
      steps: [...found.steps, ...(hasSteps ? chain!.steps : [])],
      obstacles: [
        ...chain!.obstacles,
        ...(found.origin === "foreign"
          ? [{ kind: "foreign" as const, detail: "someone else made it; Prism does not touch it until it is adopted" }]
          : [])
      ]
    }
  })

  return Provenance.of({ host, record })
})

/** How long PowerDNS may take to say what stands at a name that is not ours, in milliseconds. */
const lookMillisMax = 2000
