/**
 * Bearer and enrolment tokens: those of the configuration, and those made at
 * run time. Kept as SHA-256 hashes: the process forgets the text it was given.
 * A token is for the agents' port and the API (`agent`), or for the API alone
 * (`admin`); what its holder may do there is said by its roles (`auth/Roles`).
 *
 * Promises: a token is checked from memory, which is read at start and follows
 * each change after its commit, in whatever order it hears of them; one that has run out by the clock, or was
 * revoked, is refused from that moment, and whoever speaks by it is told
 * (`Revocations`). Names are unique over both kinds, and never given anew. When
 * a token was last used is written in batches; enrolments are counted in their
 * own transaction. Random tokens need no slow hash: there is nothing to guess.
 *
 * Leaves to others: what a holder may do (`auth/Policy`), and what an enrolment
 * makes of it (`Identities`).
 */
import { Cause, Clock, Context, Effect, Layer, Redacted, Result, Schema } from "effect"
import { SecureRandom } from "effect/crypto"
import { Base64Url } from "effect/encoding"
import { SqlClient, type SqlError } from "effect/sql"
import { hash } from "node:crypto"
import * as Audit from "../audit/Entries.ts"
import * as Versions from "../cluster/Versions.ts"
import * as DomainName from "../domain/DomainName.ts"
import * as Zone from "../domain/Zone.ts"
import { Zones } from "../dns/Zones.ts"
import type { Actor } from "../registry/HostRepo.ts"
import { RegistryUnavailable } from "../registry/Registry.ts"
import { Durability } from "../storage/Durability.ts"
import * as Generation from "../storage/Generation.ts"
import { againOnCollision, detailOf } from "../storage/SqlFailure.ts"
import * as Grants from "./Grants.ts"
import * as NamedZones from "./NamedZones.ts"
import { type Grant, unlimited } from "./Principal.ts"
import { Revocations } from "./Revocations.ts"
import { isName, reservedFor } from "./TokenNames.ts"
import * as TokenRepo from "./TokenRepo.ts"
import type { TokenRecord, TokenRole, TokenUse } from "./TokenRepo.ts"
import { TokenRefused } from "./TokenRefused.ts"

export { TokenRefused } from "./TokenRefused.ts"
export type { TokenRecord, TokenRole, TokenUse } from "./TokenRepo.ts"

/** A token of the configuration: good for both uses, and for as long as it stands there. */
export interface ConfiguredToken {
  /** How its holder is called in the audit. */
  readonly name: string
  readonly token: Redacted.Redacted
  readonly role: TokenRole
  /** Default: the one called as `role`. */
  readonly roles?: ReadonlyArray<string> | undefined
  /** Undefined: any name, in any zone, at the address it comes from. */
  readonly grant?: Grant | undefined
}

/** Who holds a token. */
export interface TokenHolder {
  /** Undefined for a token of the configuration. */
  readonly id: string | undefined
  readonly name: string
  readonly role: TokenRole
  readonly roles: ReadonlyArray<string>
  readonly allows: TokenUse | "both"
  readonly grant: Grant
  /** The one name that it enrols for. */
  readonly host: DomainName.DomainName | undefined
  readonly expiresAtMillis: number | undefined
  readonly origin: "configuration" | "registry"
}

/** A token to be made. */
export interface TokenSpec {
  readonly name: string
  readonly role: TokenRole
  /** Default: the one called as `role`. */
  readonly roles?: ReadonlyArray<string> | undefined
  readonly allows: TokenUse | "both"
  readonly grant: Grant
  /** Enrols for this name alone, taking it over from whoever holds it; its grant is then that one name. */
  readonly host?: DomainName.DomainName | undefined
  /** Enrolments at the most; undefined: as many as one likes, with `host` one. */
  readonly usesMax?: number | undefined
  readonly expiresAtMillis?: number | undefined
}

/** There is no token of this name or id. */
export class TokenUnknown extends Schema.TaggedError<TokenUnknown>()("TokenUnknown", { reference: Schema.String }) {
  override get message(): string {
    return `there is no token ${this.reference}`
  }
}

/** Another token has the name, or had it. */
export class TokenNameTaken extends Schema.TaggedError<TokenNameTaken>()("TokenNameTaken", { name: Schema.String }) {
  override get message(): string {
    return `a token is called ${this.name} already, or was; a name is never given anew`
  }
}

/** The token is revoked already. Nothing was changed. */
export class TokenRevoked extends Schema.TaggedError<TokenRevoked>()("TokenRevoked", { name: Schema.String }) {
  override get message(): string {
    return `the token ${this.name} is revoked already`
  }
}

/** The token stands in the configuration, and only that can take it away. */
export class TokenConfigured extends Schema.TaggedError<TokenConfigured>()("TokenConfigured", { name: Schema.String }) {
  override get message(): string {
    return `the token ${this.name} stands in the configuration: take it out there, and start the server anew`
  }
}

/** A token such as this makes no sense. `field` is what is wrong about it. */
export class TokenSpecInvalid extends Schema.TaggedError<TokenSpecInvalid>()("TokenSpecInvalid", {
  field: Schema.String,
  message: Schema.String
}) {}

/** What may be changed about a token. */
export interface TokenChange {
  readonly roles?: ReadonlyArray<string> | undefined
  readonly grant?: Grant | undefined
  /** `null`: it does not run out any more. */
  readonly expiresAtMillis?: number | null | undefined
}

/** There are as many tokens as there may be. */
export class TooManyTokens extends Schema.TaggedError<TooManyTokens>()("TooManyTokens", { max: Schema.Int }) {
  override get message(): string {
    return `there are ${this.max} tokens already, which is the most; revoke those that nobody needs`
  }
}

export interface TokensOptions {
  /** How often last uses are written, and those told whose token has run out. */
  readonly flushMillis: number
  /** Last uses in one statement at the most. */
  readonly batchMax: number
  /** Tokens held in memory at the most: those that are good, and those that were until lately. */
  readonly tokensMax: number
  /** How long a token that is good no more is still known, so that it is refused for the right reason. */
  readonly rememberMillis: number
}

export const defaultOptions: TokensOptions = {
  flushMillis: 10_000,
  batchMax: 500,
  tokensMax: 100_000,
  rememberMillis: 30 * 24 * 3_600_000
}

export class Tokens extends Context.Service<
  Tokens,
  {
    /**
     * The holder of `text` in this role and for this use (default: `bearer`), or why there is none. Whether a token for
     * enrolment is used up is said by `countUse`: an agent that lost the answer may ask again.
     */
    readonly verify: (text: string, role: TokenRole, use?: TokenUse) => TokenHolder | TokenRefused
    /** The holder of `text` at the API, whatever its roles, or why there is none. */
    readonly verifyAtApi: (text: string) => TokenHolder | TokenRefused
    /** Counts one enrolment, within the caller's transaction; fails when the token allows none any more. */
    readonly countUse: (holder: TokenHolder) => Effect.Effect<void, TokenRefused | SqlError.SqlError>
    /** Makes a token. Its text is given here and nowhere else. */
    readonly issue: (
      spec: TokenSpec,
      actor: Actor,
      reason: string,
      options?: { readonly dryRun: boolean }
    ) => Effect.Effect<
      { readonly token: Redacted.Redacted; readonly record: TokenRecord },
      TokenNameTaken | TokenSpecInvalid | TooManyTokens | RegistryUnavailable
    >
    /** Revokes a token by its name or id; sessions that speak by it end. Identities that were enrolled with it stay. */
    readonly revoke: (
      reference: string,
      actor: Actor,
      reason: string,
      options?: { readonly dryRun: boolean }
    ) => Effect.Effect<TokenRecord, TokenUnknown | TokenRevoked | TokenConfigured | RegistryUnavailable>
    /**
     * Changes a token by its name or id. `check` is asked with what is there and what it is to be, in the transaction of the
     * change. Sessions that speak by the token end when its grant changes, and come back with the new one.
     */
    readonly change: <E, R>(
      reference: string,
      change: TokenChange,
      options: { readonly actor: Actor; readonly reason: string; readonly dryRun: boolean },
      check: (current: TokenRecord, after: TokenRecord) => Effect.Effect<void, E, R>
    ) => Effect.Effect<
      TokenRecord,
      TokenUnknown | TokenRevoked | TokenConfigured | TokenSpecInvalid | SqlError.SqlError | E,
      R
    >
    /** The token as a change of this generation left it, where the audit still knows: as its entries say it. */
    readonly at: (
      name: string,
      generation: number
    ) => Effect.Effect<Readonly<Record<string, unknown>> | undefined, SqlError.SqlError>
    /** Whether a token that is good has this role, at the API. */
    readonly hasGood: (role: string) => Effect.Effect<boolean, SqlError.SqlError>
    /** By name or id. */
    readonly find: (reference: string) => Effect.Effect<TokenRecord | undefined, SqlError.SqlError>
    /** In the order of their names, behind `after`. */
    readonly list: (page: {
      readonly after?: string | undefined
      readonly limit: number
    }) => Effect.Effect<ReadonlyArray<TokenRecord>, SqlError.SqlError>
  }
>()("@prism-dns/core/auth/Tokens") {
  /** Those of the configuration, and those of the database around. */
  static readonly layer = (configured: ReadonlyArray<ConfiguredToken>, options: Partial<TokensOptions> = {}) =>
    Layer.effect(Tokens, make(configured, { ...defaultOptions, ...options }))

  /** Those given and no others, without a database: none can be made or revoked. */
  static readonly layerStatic = (configured: ReadonlyArray<ConfiguredToken>): Layer.Layer<Tokens> =>
    Layer.effect(
      Tokens,
      Effect.map(Clock.Clock, (clock) => {
        const memory = makeMemory(clock, configured)
        const nobody = () => Effect.die(new Error("these tokens have no database"))
        return Tokens.of({
          verify: memory.verify,
          verifyAtApi: memory.verifyAtApi,
          hasGood: (role) => Effect.succeed(memory.hasConfigured(role)),
          change: nobody,
          at: nobody,
          countUse: (holder) => Effect.sync(() => memory.used(holder, clock.currentTimeMillisUnsafe())),
          issue: nobody,
          revoke: nobody,
          find: (reference) => Effect.succeed(memory.configured.find(({ name }) => name === reference)),
          list: ({ after = "", limit }) =>
            Effect.succeed(memory.configured.filter(({ name }) => name > after).slice(0, limit))
        })
      })
    )
}

/** What is true of a token now. */
export const stateOf = (record: TokenRecord, nowMillis: number): "active" | "revoked" | "expired" | "used-up" => {
  if (record.revokedAtMillis !== undefined) return "revoked"
  if (record.expiresAtMillis !== undefined && record.expiresAtMillis <= nowMillis) return "expired"
  if (record.allows === "enrol" && record.usesMax !== undefined && record.uses >= record.usesMax) return "used-up"
  return "active"
}

const isoTime = (millis: number): string => new Date(millis).toISOString()

const refusals = {
  invalid: () => new TokenRefused({ code: "token-invalid", message: "the token is not valid" }),
  revoked: (name: string) => new TokenRefused({ code: "token-revoked", message: `the token ${name} was revoked` }),
  expired: (name: string, atMillis: number) =>
    new TokenRefused({ code: "token-expired", message: `the token ${name} ran out at ${isoTime(atMillis)}` }),
  usedUp: (name: string) =>
    new TokenRefused({ code: "token-used-up", message: `the token ${name} has enrolled as many as it may` }),
  otherUse: (name: string, use: TokenUse) =>
    new TokenRefused({
      code: "token-not-allowed",
      message: use === "enrol" ? `the token ${name} is not for enrolment` : `the token ${name} is for enrolment only`
    }),
  otherRole: (name: string, role: TokenRole) =>
    new TokenRefused({
      code: "token-not-allowed",
      message: `the token ${name} is not one ${role === "agent" ? "for hosts" : "of an administrator"}`
    })
}

const whyNotGood = (record: TokenRecord, nowMillis: number): TokenRefused | undefined => {
  const { expiresAtMillis, name, revokedAtMillis } = record
  if (revokedAtMillis !== undefined) return refusals.revoked(name)
  return expiresAtMillis !== undefined && expiresAtMillis <= nowMillis
    ? refusals.expired(name, expiresAtMillis)
    : undefined
}

interface Held {
  record: TokenRecord
  holder: TokenHolder
  /** Those who speak by it were told that it ran out. */
  told: boolean
}

const holderOf = (record: TokenRecord): TokenHolder => {
  const { allows, expiresAtMillis, grant, host, id, name, origin, role, roles } = record
  return { id, name, role, roles, allows, grant, host, origin, expiresAtMillis }
}

const hashOf = (text: string): string => hash("sha256", text, "base64")

/** The tokens that are known, by the hash of their text. */
const makeMemory = (clock: Clock.Clock, configured: ReadonlyArray<ConfiguredToken>) => {
  // Looking a hash up by equality gives nothing away: an attacker cannot choose the hash's first bytes.
  const held = new Map<string, Held>()
  const byId = new Map<string, string>()
  const byName = new Map<string, Held>()
  /** Tokens of the database whose last use is not written yet. */
  const unflushed = new Set<Held>()

  const keyOf = (role: TokenRole, digest: string) => `${role} ${digest}`

  const add = (record: TokenRecord, digest: string) => {
    const { id, name, role } = record
    const token: Held = { record, holder: holderOf(record), told: false }
    const key = keyOf(role, digest)
    held.set(key, token)
    if (id === undefined) byName.set(name, token)
    else byId.set(id, key)
    return token
  }

  for (const { grant = unlimited, name, role, roles = [role], token } of configured) {
    const record: TokenRecord = {
      id: undefined,
      name,
      role,
      roles,
      allows: "both",
      grant,
      host: undefined,
      origin: "configuration",
      usesMax: undefined,
      uses: 0,
      createdAtMillis: undefined,
      createdBy: undefined,
      expiresAtMillis: undefined,
      lastUsedMillis: undefined,
      revokedAtMillis: undefined,
      revokedReason: undefined,
      generation: 0
    }
    add(record, hashOf(Redacted.value(token)))
  }

  const heldOf = ({ id, name }: { readonly id: string | undefined; readonly name: string }) =>
    id === undefined ? byName.get(name) : held.get(byId.get(id) ?? "")

  const touch = (token: Held, nowMillis: number) => {
    token.record = { ...token.record, lastUsedMillis: nowMillis }
    if (token.holder.id !== undefined) unflushed.add(token)
  }

  const verify: Tokens["Service"]["verify"] = (text, role, use = "bearer") => {
    const digest = hashOf(text)
    const token = held.get(keyOf(role, digest))
    if (token === undefined) {
      const other = held.get(keyOf(role === "agent" ? "admin" : "agent", digest))
      return other === undefined ? refusals.invalid() : refusals.otherRole(other.record.name, role)
    }
    return holderNow(token, use)
  }

  const verifyAtApi: Tokens["Service"]["verifyAtApi"] = (text) => {
    const digest = hashOf(text)
    const token = held.get(keyOf("admin", digest)) ?? held.get(keyOf("agent", digest))
    return token === undefined ? refusals.invalid() : holderNow(token, "bearer")
  }

  const holderNow = (token: Held, use: TokenUse): TokenHolder | TokenRefused => {
    const nowMillis = clock.currentTimeMillisUnsafe()
    const refusal = whyNotGood(token.record, nowMillis)
    if (refusal !== undefined) return refusal
    if (token.record.allows !== "both" && token.record.allows !== use) return refusals.otherUse(token.record.name, use)
    if (use === "bearer") touch(token, nowMillis)
    return token.holder
  }

  /** What is known here is newer than what the database said of the last use. */
  const newest = (record: TokenRecord): TokenRecord => {
    const known = heldOf(record)?.record.lastUsedMillis
    return known === undefined || known <= (record.lastUsedMillis ?? 0) ? record : { ...record, lastUsedMillis: known }
  }

  return {
    verify,
    verifyAtApi,
    hasConfigured: (role: string) =>
      [...byName.values()].some(({ record }) => record.role === "admin" && record.roles.includes(role)),
    add,
    newest,
    find: (record: TokenRecord): TokenRecord | undefined => heldOf(record)?.record,
    size: () => held.size,
    all: () => held.values(),
    isConfigured: (name: string) => byName.has(name),
    get configured(): ReadonlyArray<TokenRecord> {
      return [...byName.values()].map(({ record }) => record).sort((a, b) => (a.name < b.name ? -1 : 1))
    },
    /** An enrolment by it was counted. */
    used: (holder: TokenHolder, nowMillis: number) => {
      const token = heldOf(holder)
      if (token === undefined) return
      token.record = { ...token.record, uses: token.record.uses + 1, lastUsedMillis: nowMillis }
    },
    /**
     * What a change has made of it, also of one that may have been forgotten, or was told that it ran out. What is newer is
     * known already where changes are heard of in another order than that of their commits, and stays.
     */
    put: (record: TokenRecord, digest: string, isAnew = false) => {
      const token = heldOf(record) ?? add(record, digest)
      if (token.record.generation > record.generation && !isAnew) return
      token.record = newest(record)
      token.holder = holderOf(record)
      token.told = false
    },
    forget: ({ holder: { id } }: Held) => {
      if (id === undefined) return
      held.delete(byId.get(id) ?? "")
      byId.delete(id)
    },
    takeUnflushed: (): ReadonlyArray<Held> => {
      const taken = [...unflushed]
      unflushed.clear()
      return taken
    },
    putBack: (tokens: ReadonlyArray<Held>) => tokens.forEach((token) => unflushed.add(token))
  }
}

const unavailable = (error: SqlError.SqlError) => Effect.fail(new RegistryUnavailable({ detail: detailOf(error) }))

/** What the audit says of a token. */
const auditView = (record: TokenRecord) => ({
  id: record.id,
  role: record.role,
  roles: record.roles,
  allows: record.allows,
  grant: Grants.toPlain(record.grant),
  host: record.host,
  usesMax: record.usesMax,
  uses: record.uses,
  expiresAt: record.expiresAtMillis === undefined ? undefined : isoTime(record.expiresAtMillis)
})

const make = Effect.fnUntraced(function* (configured: ReadonlyArray<ConfiguredToken>, options: TokensOptions) {
  const sql = yield* SqlClient.SqlClient
  const repo = TokenRepo.make(sql)
  const zones = yield* Zones
  const revocations = yield* Revocations
  const random = yield* SecureRandom.SecureRandom
  const bump = yield* Versions.bumpOf(sql, "access")
  const durability = yield* Durability
  const memory = makeMemory(yield* Clock.Clock, configured)

  const startMillis = yield* Clock.currentTimeMillis
  for (const { hash, record } of yield* repo.recent(startMillis - options.rememberMillis)) {
    if (memory.isConfigured(record.name)) {
      yield* Effect.logWarning("a token of the registry is not taken: the configuration has one of the same name").pipe(
        Effect.annotateLogs({ token: record.name })
      )
      continue
    }
    memory.add(record, hash).told = whyNotGood(record, startMillis) !== undefined
  }

  const announceRevoked = (name: string) => {
    const { code, message } = refusals.revoked(name)
    revocations.announce({ principal: name, code, message })
  }
  const announceChanged = (before: TokenRecord, after: TokenRecord) => {
    if (Grants.encode(before.grant) === Grants.encode(after.grant)) return
    const message = `the grant of the token ${before.name} was changed, say hello again`
    revocations.announce({ principal: before.name, code: "unavailable", message })
  }

  /**
   * What other servers have made of tokens; who speaks by them here is told as if it had been done here. With `isAnew` what
   * the database does not know, or knows otherwise, is not kept, however new it says it is.
   */
  const read = Effect.fnUntraced(function* (isAnew: boolean) {
    const rows = yield* repo.recent((yield* Clock.currentTimeMillis) - options.rememberMillis)
    if (isAnew) {
      const there = new Set<string | undefined>(rows.map(({ record }) => record.id))
      for (const token of memory.all()) {
        const { holder, record } = token
        if (holder.id === undefined || there.has(holder.id)) continue
        memory.forget(token)
        if (record.revokedAtMillis === undefined) announceRevoked(record.name)
      }
    }
    for (const { hash, record } of rows) {
      if (memory.isConfigured(record.name)) continue
      const known = memory.find(record)
      if (
        known !== undefined &&
        (isAnew ? known.generation === record.generation : known.generation >= record.generation)
      ) {
        continue
      }
      memory.put(record, hash, isAnew)
      if (known === undefined) continue
      if (record.revokedAtMillis === undefined) announceChanged(known, record)
      else if (known.revokedAtMillis === undefined) announceRevoked(record.name)
    }
  })
  yield* Versions.follow(sql, { topic: "access", reload: read(false), anew: read(true) })

  const countUse: Tokens["Service"]["countUse"] = Effect.fn("Tokens.countUse")(function* (holder) {
    const nowMillis = yield* Clock.currentTimeMillis
    if (holder.id !== undefined && !(yield* repo.countUse(holder.id, nowMillis))) {
      const record = yield* repo.find(holder.id)
      if (record === undefined) return yield* refusals.invalid()
      return yield* whyNotGood(record, nowMillis) ?? refusals.usedUp(record.name)
    }
    yield* sql.afterCommit(Effect.sync(() => memory.used(holder, nowMillis)))
  })

  /** The grant of a token that is marked for one name: that name, and the networks it was given. */
  const grantOf = (spec: TokenSpec): Grant | TokenSpecInvalid => {
    const { grant, host } = spec
    if (host === undefined) return grant
    const zone = zones.zoneOf(host)
    const name = zone === undefined ? "" : host.slice(0, -zone.name.length - 1)
    if (zone === undefined || Result.isFailure(DomainName.parseHostName(name))) {
      return new TokenSpecInvalid({ field: "host", message: `${host} is not the name of a host in one of the zones` })
    }
    return { zones: [zone.name], names: [name], networks: grant.networks, namesMax: 1 }
  }

  const invalid = (field: string, message: string) => new TokenSpecInvalid({ field, message })

  /** Hosts have names in forward zones only; people look after the others too. */
  const zonesProblem = (role: TokenRole, grant: Grant): TokenSpecInvalid | undefined => {
    for (const name of grant.zones ?? []) {
      const zone = zones.find(name)
      if (zone === undefined || (role === "agent" && Zone.isReverse(zone))) {
        return invalid("grant/zones", `${name} is not one of the zones${role === "agent" ? " for hosts" : ""}`)
      }
    }
    return undefined
  }

  /** The same for the transaction that writes it: a zone may go at this moment. */
  const requireZones = Effect.fnUntraced(function* (grant: Grant) {
    const gone = yield* NamedZones.hold(sql, zones, grant.zones ?? [])
    if (gone !== undefined) return yield* invalid("grant/zones", `${gone} is not one of the zones any more`)
  })

  const rolesProblem = (role: TokenRole, roles: ReadonlyArray<string>): TokenSpecInvalid | undefined => {
    if ((role === "agent") === roles.includes("agent")) return undefined
    return invalid(
      "roles",
      role === "agent"
        ? "a token for hosts keeps the role agent; make another one that is for the API alone"
        : "a token for the API alone does not come to have the role agent; make another one for hosts"
    )
  }

  const problemOf = (spec: TokenSpec, nowMillis: number): TokenSpecInvalid | undefined => {
    const whose = reservedFor(spec.name)
    if (whose !== undefined) return invalid("name", `no token may be called ${spec.name}, which is ${whose}`)
    if (!isName(spec.name)) {
      return invalid("name", "a token's name has 1 to 128 letters, digits and . _ @ - between them")
    }
    if (spec.role === "admin" && spec.allows !== "bearer") {
      return invalid("allows", "a token for the API alone enrols nobody")
    }
    const problem = rolesProblem(spec.role, spec.roles ?? [spec.role]) ?? zonesProblem(spec.role, spec.grant)
    if (problem !== undefined) return problem
    if (spec.host !== undefined && spec.allows !== "enrol") {
      return invalid("host", "a token that is marked for a name is for enrolment")
    }
    if (spec.usesMax !== undefined && spec.allows === "bearer") {
      return invalid("usesMax", "only enrolments are counted, and this token enrols nobody")
    }
    if (spec.expiresAtMillis !== undefined && spec.expiresAtMillis <= nowMillis) {
      return invalid("expiresAt", "the token would have run out already")
    }
    return undefined
  }

  const issue: Tokens["Service"]["issue"] = Effect.fn("Tokens.issue")(
    function* (spec, actor, reason, { dryRun } = { dryRun: false }) {
      const nowMillis = yield* Clock.currentTimeMillis
      const problem = problemOf(spec, nowMillis)
      if (problem !== undefined) return yield* problem
      const grant = grantOf(spec)
      if (grant instanceof TokenSpecInvalid) return yield* grant
      if (memory.isConfigured(spec.name)) return yield* new TokenNameTaken({ name: spec.name })
      if (memory.size() >= options.tokensMax) return yield* new TooManyTokens({ max: options.tokensMax })
      const text = `prism_${Base64Url.encode(yield* random.randomBytes(32))}`
      const digest = hashOf(text)
      if (dryRun && (yield* repo.find(spec.name)) !== undefined) return yield* new TokenNameTaken({ name: spec.name })
      const record = {
        id: yield* random.uuidV7(),
        name: spec.name,
        role: spec.role,
        roles: spec.roles ?? [spec.role],
        allows: spec.allows,
        grant,
        host: spec.host,
        origin: "registry" as const,
        usesMax: spec.usesMax ?? (spec.host === undefined ? undefined : 1),
        uses: 0,
        createdAtMillis: nowMillis,
        createdBy: actor.name,
        expiresAtMillis: spec.expiresAtMillis,
        lastUsedMillis: undefined,
        revokedAtMillis: undefined,
        revokedReason: undefined,
        generation: 0
      }
      if (dryRun) return { token: Redacted.make(text), record }
      const made = yield* Effect.gen(function* () {
        const generation = yield* Generation.next(sql)
        const made = { ...record, generation }
        yield* repo.insert(made, digest)
        yield* requireZones(grant)
        const entry = { atMillis: nowMillis, actor, subject: record.name, reason, generation }
        yield* Audit.write(sql, { ...entry, action: "token.issued", after: auditView(record) })
        yield* sql.afterCommit(Effect.sync(() => memory.put(made, digest)))
        yield* bump
        return made
      }).pipe(
        sql.withTransaction,
        Effect.catchReason("SqlError", "UniqueViolation", () => Effect.fail(new TokenNameTaken({ name: spec.name }))),
        againOnCollision
      )
      yield* durability.flush
      return { token: Redacted.make(text), record: made }
    },
    (effect) => Effect.catchTag(effect, "SqlError", unavailable)
  )

  const revoke: Tokens["Service"]["revoke"] = Effect.fn("Tokens.revoke")(
    function* (reference, actor, reason, { dryRun } = { dryRun: false }) {
      if (memory.isConfigured(reference)) return yield* new TokenConfigured({ name: reference })
      const nowMillis = yield* Clock.currentTimeMillis
      const revoked = yield* Effect.gen(function* () {
        // The generation is taken behind the lock: it is to rise in the order of commits.
        const before = yield* repo.lock(reference)
        if (before === undefined) return yield* new TokenUnknown({ reference })
        if (dryRun) {
          if (before.revokedAtMillis !== undefined) return yield* new TokenRevoked({ name: before.name })
          return { ...before, revokedAtMillis: nowMillis, revokedReason: reason }
        }
        const generation = yield* Generation.next(sql)
        const after = yield* repo.revoke(before.id, reason, nowMillis, generation)
        if (after === undefined) return yield* new TokenRevoked({ name: before.name })
        const entry = { atMillis: nowMillis, actor, subject: before.name, reason, generation }
        yield* Audit.write(sql, { ...entry, action: "token.revoked", before: auditView(before) })
        yield* sql.afterCommit(
          Effect.sync(() => {
            memory.put(after.record, after.hash)
            announceRevoked(before.name)
          })
        )
        yield* bump
        return after.record
      }).pipe(sql.withTransaction, againOnCollision)
      yield* durability.flush
      return memory.newest(revoked)
    },
    (effect) => Effect.catchTag(effect, "SqlError", unavailable)
  )

  const change: Tokens["Service"]["change"] = (reference, changes, { actor, dryRun, reason }, check) =>
    Effect.gen(function* () {
      if (memory.isConfigured(reference)) return yield* new TokenConfigured({ name: reference })
      const nowMillis = yield* Clock.currentTimeMillis
      const changed = yield* Effect.gen(function* () {
        const before = yield* repo.lock(reference)
        if (before === undefined) return yield* new TokenUnknown({ reference })
        const { expiresAtMillis, grant = before.grant, roles = before.roles } = changes
        const wanted = {
          ...before,
          roles,
          grant,
          expiresAtMillis: expiresAtMillis === undefined ? before.expiresAtMillis : (expiresAtMillis ?? undefined)
        }
        yield* check(before, wanted)
        if (before.revokedAtMillis !== undefined) return yield* new TokenRevoked({ name: before.name })
        if (before.host !== undefined && changes.grant !== undefined) {
          return yield* invalid("grant", "a token that is marked for a name has that name as its grant")
        }
        const problem =
          rolesProblem(before.role, roles) ??
          zonesProblem(before.role, grant) ??
          (typeof expiresAtMillis === "number" && expiresAtMillis <= nowMillis
            ? invalid("expiresAt", "the token would have run out already; revoke it, if that is meant")
            : undefined)
        if (problem !== undefined) return yield* problem
        if (JSON.stringify(auditView(before)) === JSON.stringify(auditView(wanted)) || dryRun) return wanted
        const generation = yield* Generation.next(sql)
        const after = yield* repo.change({ ...wanted, generation })
        yield* requireZones(grant)
        const entry = { atMillis: nowMillis, actor, subject: before.name, reason, generation }
        const views = { before: auditView(before), after: auditView(after.record) }
        yield* Audit.write(sql, { ...entry, action: "token.changed", ...views })
        yield* sql.afterCommit(
          Effect.sync(() => {
            memory.put(after.record, after.hash)
            announceChanged(before, after.record)
          })
        )
        yield* bump
        return after.record
      }).pipe(sql.withTransaction, againOnCollision)
      yield* durability.flush
      return memory.newest(changed)
    }).pipe(Effect.withSpan("Tokens.change"))

  const at: Tokens["Service"]["at"] = Effect.fn("Tokens.at")(function* (name, generation) {
    const rows = yield* sql<{ readonly after: string | null }>`
      SELECT after FROM audit_log WHERE subject = ${name} AND generation = ${generation} AND action LIKE 'token.%'
      UNION ALL
      SELECT after FROM audit_entry WHERE subject = ${name} AND generation = ${generation} AND action LIKE 'token.%'`
    const after = rows[0]?.after
    return after === null || after === undefined ? undefined : JSON.parse(after)
  })

  const hasGood: Tokens["Service"]["hasGood"] = Effect.fn("Tokens.hasGood")(function* (role) {
    return memory.hasConfigured(role) || (yield* repo.hasGood(role, yield* Clock.currentTimeMillis))
  })

  const find: Tokens["Service"]["find"] = Effect.fn("Tokens.find")(function* (reference) {
    const own = memory.configured.find(({ name }) => name === reference)
    if (own !== undefined) return own
    const record = yield* repo.find(reference)
    return record === undefined ? undefined : memory.newest(record)
  })

  const list: Tokens["Service"]["list"] = Effect.fn("Tokens.list")(function* ({ after = "", limit }) {
    const made = yield* repo.list(after, limit)
    return [
      ...memory.configured.filter(({ name }) => name > after),
      ...made.filter(({ name }) => !memory.isConfigured(name)).map(memory.newest)
    ]
      .sort((a, b) => (a.name < b.name ? -1 : 1))
      .slice(0, limit)
  })

  /** Writes when tokens were last used. */
  const flush = Effect.fn("Tokens.flush")(function* () {
    const taken = memory.takeUnflushed()
    for (let i = 0; i < taken.length; i += options.batchMax) {
      const used = taken
        .slice(i, i + options.batchMax)
        .flatMap(({ holder, record }) =>
          holder.id === undefined || record.lastUsedMillis === undefined
            ? []
            : [{ id: holder.id, at: record.lastUsedMillis }]
        )
      yield* Effect.onError(repo.flushUsed(used), () => Effect.sync(() => memory.putBack(taken.slice(i))))
    }
  })

  /** Tells those whose token has run out, and forgets tokens that have been no good for long. */
  const sweep = Effect.gen(function* () {
    const nowMillis = yield* Clock.currentTimeMillis
    const longAgoMillis = nowMillis - options.rememberMillis
    for (const token of memory.all()) {
      const { expiresAtMillis, name, revokedAtMillis, uses, usesMax } = token.record
      if (!token.told && expiresAtMillis !== undefined && expiresAtMillis <= nowMillis) {
        token.told = true
        const { code, message } = refusals.expired(name, expiresAtMillis)
        if (revokedAtMillis === undefined) revocations.announce({ principal: name, code, message })
      }
      const isUsedUp = token.holder.allows === "enrol" && usesMax !== undefined && uses >= usesMax
      const lastGoodMillis = Math.min(
        revokedAtMillis ?? Infinity,
        expiresAtMillis ?? Infinity,
        (isUsedUp ? token.record.lastUsedMillis : undefined) ?? Infinity
      )
      if (lastGoodMillis <= longAgoMillis) memory.forget(token)
    }
  })

  const guarded = (effect: Effect.Effect<void, SqlError.SqlError>) =>
    effect.pipe(
      Effect.catch((error) =>
        Effect.logWarning("the flush of tokens' last use failed, will try again").pipe(
          Effect.annotateLogs({ reason: detailOf(error) })
        )
      ),
      Effect.catchDefect((defect) =>
        Effect.logError("the flush of tokens' last use failed, will try again", Cause.die(defect))
      )
    )

  yield* Effect.sleep(options.flushMillis).pipe(
    Effect.andThen(guarded(Effect.andThen(sweep, flush()))),
    Effect.forever,
    Effect.forkScoped
  )
  // What was used last is known after a restart too.
  yield* Effect.addFinalizer(() => guarded(flush()))

  return Tokens.of({
    verify: memory.verify,
    verifyAtApi: memory.verifyAtApi,
    countUse,
    issue,
    change,
    at,
    revoke,
    hasGood,
    find,
    list
  })
})
