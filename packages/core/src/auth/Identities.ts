/**
 * Identities: keys that machines were enrolled with, and what each may claim.
 *
 * Promises: an enrolment counts its token, makes the identity, writes the audit
 * entry and, where the token is marked for a name, takes that name over, in one
 * transaction; an agent that lost the answer asks again and gets the same. A
 * key that was revoked or replaced is never taken again. Whoever speaks by what
 * is revoked is told after the commit (`Revocations`). When an identity was
 * last used is written in batches.
 *
 * Leaves to others: whether the agent holds the key (`protocol/Proof`), whether
 * its token is good (`Tokens`), and what it may claim (`auth/Policy`).
 */
import { Cause, Clock, Context, Effect, Layer, Metric, Schema } from "effect"
import { SecureRandom } from "effect/crypto"
import { SqlClient, type SqlError } from "effect/sql"
import * as Audit from "../audit/Entries.ts"
import * as Versions from "../cluster/Versions.ts"
import type { DomainName } from "../domain/DomainName.ts"
import type { Host } from "../domain/Host.ts"
import { fingerprint } from "../protocol/Proof.ts"
import * as HostRepo from "../registry/HostRepo.ts"
import { HostUnknown, Registry, RegistryUnavailable } from "../registry/Registry.ts"
import { Durability } from "../storage/Durability.ts"
import { againOnCollision, detailOf } from "../storage/SqlFailure.ts"
import * as Grants from "./Grants.ts"
import * as IdentityMetrics from "./IdentityMetrics.ts"
import * as IdentityRepo from "./IdentityRepo.ts"
import type { Identity, IdentityFilter } from "./IdentityRepo.ts"
import { anonymous, type Principal } from "./Principal.ts"
import { Revocations } from "./Revocations.ts"
import { type TokenHolder, TokenRefused, Tokens } from "./Tokens.ts"

export type { Identity, IdentityFilter, IdentityState } from "./IdentityRepo.ts"
export { identityStates } from "./IdentityRepo.ts"

/** The key is no good here. `code` is stable. */
export class IdentityRefused extends Schema.TaggedError<IdentityRefused>()("IdentityRefused", {
  code: Schema.Literals(["identity-unknown", "identity-revoked", "proof-invalid"]),
  message: Schema.String
}) {}

/** There is no identity of this id. */
export class IdentityUnknown extends Schema.TaggedError<IdentityUnknown>()("IdentityUnknown", { id: Schema.String }) {
  override get message(): string {
    return `there is no identity ${this.id}`
  }
}

/** The identity is revoked already. Nothing was changed. */
export class IdentityRevoked extends Schema.TaggedError<IdentityRevoked>()("IdentityRevoked", { id: Schema.String }) {
  override get message(): string {
    return `the identity ${this.id} is revoked already`
  }
}

export interface Enrolment {
  /** The key, proven by the agent. */
  readonly publicKey: string
  /** As `Tokens.verify` gave it for this use. */
  readonly token: TokenHolder
  /** The address the agent speaks from, for the audit. */
  readonly peer: string | undefined
}

/** What became of a name that was freed from its key. */
export interface Reset {
  readonly host: Host
  /** Who held it. */
  readonly formerOwner: string
  /** The identity of that owner, and how it is now: revoked, unless it holds other names. Undefined when it was none. */
  readonly identity: Identity | undefined
}

export interface IdentitiesOptions {
  /** How often last uses are written. */
  readonly flushMillis: number
  /** Last uses in one statement at the most. */
  readonly batchMax: number
  /** Last uses that may wait to be written; of more identities they are not noted. */
  readonly unflushedMax: number
}

export const defaultOptions: IdentitiesOptions = { flushMillis: 10_000, batchMax: 500, unflushedMax: 200_000 }

export class Identities extends Context.Service<
  Identities,
  {
    /**
     * Makes an identity of a key, by a token. The same key again is the same identity, and counts no second time. A token
     * that is marked for a name takes it over from whoever holds it.
     */
    readonly enrol: (
      enrolment: Enrolment
    ) => Effect.Effect<Principal, TokenRefused | IdentityRefused | RegistryUnavailable>
    /** Who holds this key, which was proven. */
    readonly authenticate: (publicKey: string) => Effect.Effect<Principal, IdentityRefused | RegistryUnavailable>
    /**
     * Replaces an identity's key by another, which the old one has signed and whose holder has proven it. `signedBy`: that
     * old one, which must still be its key: a session that proved it may have outlived it.
     */
    readonly rotate: (
      id: string,
      publicKey: string,
      actor: HostRepo.Actor,
      signedBy?: string
    ) => Effect.Effect<Identity, IdentityRefused | RegistryUnavailable>
    /** Revokes an identity for good; its sessions end, its hosts stay as their zone says. With `dryRun` it is only tried. */
    readonly revoke: (
      id: string,
      actor: HostRepo.Actor,
      reason: string,
      options?: { readonly dryRun: boolean }
    ) => Effect.Effect<Identity, IdentityUnknown | IdentityRevoked | RegistryUnavailable>
    /**
     * Frees a name from its key: whoever may claim it is its next holder, and until then its records stay. The identity
     * that held it is revoked, unless it holds other names. With `dryRun` it is only tried.
     */
    readonly reset: (
      fqdn: DomainName,
      actor: HostRepo.Actor,
      reason: string,
      options?: { readonly dryRun: boolean }
    ) => Effect.Effect<Reset, HostUnknown | RegistryUnavailable>
    readonly get: (id: string) => Effect.Effect<Identity, IdentityUnknown | SqlError.SqlError>
    /** In the order of their ids, behind `after`. */
    readonly list: (
      filter: IdentityFilter,
      page: { readonly after?: string | undefined; readonly limit: number }
    ) => Effect.Effect<ReadonlyArray<Identity>, SqlError.SqlError>
    /** Names of an identity's hosts, in order. */
    readonly hostsOf: (id: string, limit: number) => Effect.Effect<ReadonlyArray<DomainName>, SqlError.SqlError>
    /** How many hosts each of them has; those that have none are left out. */
    readonly countHosts: (ids: ReadonlyArray<string>) => Effect.Effect<ReadonlyMap<string, number>, SqlError.SqlError>
  }
>()("@prism-dns/core/auth/Identities") {
  static readonly layer = (options: Partial<IdentitiesOptions> = {}) =>
    Layer.effect(Identities, make({ ...defaultOptions, ...options }))
}

const base32 = "abcdefghijklmnopqrstuvwxyz234567"

/** `i-` and 80 random bits. */
const idOf = (bytes: Uint8Array): string => {
  let bits = 0n
  for (const byte of bytes) bits = (bits << 8n) | BigInt(byte)
  let text = ""
  for (let shift = 75n; shift >= 0n; shift -= 5n) text += base32[Number((bits >> shift) & 31n)]
  return `i-${text}`
}

/** The principal that an identity's key proves. */
export const principalOf = ({ enrolledBy, grant, id }: Identity): Principal => ({
  name: id,
  kind: "key",
  anonymous: false,
  actsFor: [enrolledBy],
  grant
})

const refusals = {
  unknown: () =>
    new IdentityRefused({
      code: "identity-unknown",
      message: "no identity has this key; a machine enrols its key with a token"
    }),
  revoked: (id: string) => new IdentityRefused({ code: "identity-revoked", message: `the identity ${id} was revoked` }),
  former: () =>
    new IdentityRefused({
      code: "identity-revoked",
      message: "this key was replaced by another, and is not taken again"
    })
}

const unavailable = (error: SqlError.SqlError) => Effect.fail(new RegistryUnavailable({ detail: detailOf(error) }))

/** What the audit says of an identity. */
const auditView = (identity: Identity) => ({
  key: fingerprint(identity.publicKey),
  enrolledBy: identity.enrolledBy,
  grant: Grants.toPlain(identity.grant)
})

/** Revocations of others are looked for that long before the last look: clocks differ, and commits take their time. */
const revokedMarginMillis = 600_000
/** Revocations of others that are told in one look, the newest first; the hello after refuses all of them. */
const revokedMax = 10_000

const make = Effect.fnUntraced(function* (options: IdentitiesOptions) {
  const sql = yield* SqlClient.SqlClient
  const repo = IdentityRepo.make(sql)
  const hosts = HostRepo.make(sql)
  const registry = yield* Registry
  const tokens = yield* Tokens
  const revocations = yield* Revocations
  const random = yield* SecureRandom.SecureRandom
  const bump = yield* Versions.bumpOf(sql, "access")
  const durability = yield* Durability
  /** When identities were last used that the database does not know of yet. */
  const used = new Map<string, number>()

  const counts = yield* repo.count
  const report = Effect.forEach(
    IdentityRepo.identityStates,
    (state) =>
      Effect.suspend(() => Metric.update(Metric.withAttributes(IdentityMetrics.identities, { state }), counts[state])),
    { discard: true }
  )
  yield* report

  let lookedMillis = yield* Clock.currentTimeMillis
  /** Ends what goes on here in the name of identities that other servers have revoked. That it is said twice harms nobody. */
  const followRevoked = Effect.gen(function* () {
    const nowMillis = yield* Clock.currentTimeMillis
    for (const id of yield* repo.revokedSince(lookedMillis - revokedMarginMillis, revokedMax)) {
      const { code, message } = refusals.revoked(id)
      revocations.announce({ principal: id, code, message })
    }
    Object.assign(counts, yield* repo.count)
    yield* report
    lookedMillis = nowMillis
  })
  yield* Versions.follow(sql, { topic: "access", reload: followRevoked })

  const transaction = <A, E>(effect: Effect.Effect<A, E | SqlError.SqlError>, dryRun = false) =>
    effect.pipe(
      dryRun ? Audit.undone(sql) : Audit.inTransaction(sql),
      // Another one enrolled the same key, or held the same rows, at the same moment: look again.
      againOnCollision,
      Effect.tap(() => durability.flush)
    )

  /** Revokes within the transaction around; undefined when it is revoked already, or no identity at all. */
  const revokeWithin = Effect.fnUntraced(function* (
    id: string,
    actor: HostRepo.Actor,
    reason: string,
    nowMillis: number
  ) {
    const revoked = yield* repo.revoke(id, reason, nowMillis)
    if (revoked === undefined) return undefined
    const entry = { atMillis: nowMillis, actor, subject: id, reason }
    yield* Audit.write(sql, { ...entry, action: "identity.revoked", before: auditView(revoked) })
    yield* sql.afterCommit(
      Effect.suspend(() => {
        counts.active--
        counts.revoked++
        const { code, message } = refusals.revoked(id)
        revocations.announce({ principal: id, code, message })
        return report
      })
    )
    yield* bump
    return revoked
  })

  /** Revokes the identity that a name was taken from, unless it holds others. */
  const revokeUnlessHolding = Effect.fnUntraced(function* (
    owner: string,
    actor: HostRepo.Actor,
    reason: string,
    nowMillis: number
  ) {
    const holdsOthers = (yield* repo.hostsOf(owner, 1)).length > 0
    if (!holdsOthers) yield* revokeWithin(owner, actor, reason, nowMillis)
  })

  /** Gives a name to `owner`, and revokes the identity that held it unless that holds other names. */
  const takeOver = Effect.fnUntraced(function* (
    fqdn: DomainName,
    owner: string,
    actor: HostRepo.Actor,
    reason: string,
    nowMillis: number
  ) {
    const [before] = yield* hosts.lockByName([fqdn])
    if (before === undefined) return yield* new HostUnknown({ fqdn })
    const host = before.owner === owner ? before : yield* registry.transfer(fqdn, owner, actor, reason)
    yield* revokeUnlessHolding(before.owner, actor, reason, nowMillis)
    return { host, formerOwner: before.owner }
  })

  /** The identity that this key has already; undefined when it has none. */
  const enrolledBefore = Effect.fnUntraced(function* ({ publicKey, token }: Enrolment) {
    const known = yield* repo.lockByKey(publicKey)
    if (known === undefined) return undefined
    if (known.revokedAtMillis !== undefined) return yield* refusals.revoked(known.id)
    if (known.enrolledBy !== token.name && token.host !== undefined) {
      return yield* new TokenRefused({
        code: "token-not-allowed",
        message: `the token ${token.name} gives ${token.host} to a new key, and this one is that of ${known.id}`
      })
    }
    return { identity: known, result: "repeated" }
  })

  const enrolWithin = Effect.fnUntraced(function* (enrolment: Enrolment) {
    const { peer, publicKey, token } = enrolment
    const nowMillis = yield* Clock.currentTimeMillis
    const before = yield* enrolledBefore(enrolment)
    if (before !== undefined) return before
    if (yield* repo.isFormer(publicKey)) return yield* refusals.former()
    const refusal = yield* tokens.countUse(token).pipe(
      Effect.as(undefined),
      Effect.catchTag("TokenRefused", (error) => Effect.succeed(error))
    )
    if (refusal !== undefined) {
      // What used it up may have been this very key, on another connection at the same moment.
      return (yield* enrolledBefore(enrolment)) ?? (yield* refusal)
    }
    const identity: Identity = {
      id: idOf(yield* random.randomBytes(10)),
      publicKey,
      grant: token.grant,
      enrolledBy: token.name,
      enrolledAtMillis: nowMillis,
      rotatedAtMillis: undefined,
      lastUsedMillis: undefined,
      revokedAtMillis: undefined,
      revokedReason: undefined
    }
    yield* repo.insert(identity)
    const actor = { name: token.name, peer }
    yield* Audit.write(sql, {
      atMillis: nowMillis,
      actor,
      action: "identity.enrolled",
      subject: identity.id,
      after: { ...auditView(identity), host: token.host }
    })
    yield* sql.afterCommit(
      Effect.suspend(() => {
        counts.active++
        return report
      })
    )
    if (token.host !== undefined) {
      const reason = `enrolled with ${token.name}, which is marked for the name`
      // A name that nobody holds is there for the taking.
      yield* takeOver(token.host, identity.id, actor, reason, nowMillis).pipe(
        Effect.catchTag("HostUnknown", () => Effect.void)
      )
    }
    return { identity, result: "enrolled" }
  })

  const countEnrolment = (result: string) =>
    Metric.update(Metric.withAttributes(IdentityMetrics.enrolments, { result }), 1)

  const note = (id: string, nowMillis: number) => {
    if (used.has(id) || used.size < options.unflushedMax) used.set(id, nowMillis)
  }

  const enrol: Identities["Service"]["enrol"] = Effect.fn("Identities.enrol")(
    function* (enrolment) {
      const { identity, result } = yield* transaction(enrolWithin(enrolment))
      note(identity.id, yield* Clock.currentTimeMillis)
      yield* countEnrolment(result)
      return principalOf(identity)
    },
    (effect) =>
      effect.pipe(
        Effect.catchTag("SqlError", unavailable),
        Effect.tapError((error) => countEnrolment(error._tag === "RegistryUnavailable" ? "unavailable" : error.code))
      )
  )

  const authenticate: Identities["Service"]["authenticate"] = Effect.fn("Identities.authenticate")(
    function* (publicKey) {
      const identity = yield* repo.findByKey(publicKey)
      if (identity === undefined) {
        return yield* (yield* repo.isFormer(publicKey)) ? refusals.former() : refusals.unknown()
      }
      if (identity.revokedAtMillis !== undefined) return yield* refusals.revoked(identity.id)
      note(identity.id, yield* Clock.currentTimeMillis)
      return principalOf(identity)
    },
    (effect) => Effect.catchTag(effect, "SqlError", unavailable)
  )

  const rotate: Identities["Service"]["rotate"] = Effect.fn("Identities.rotate")(
    function* (id, publicKey, actor, signedBy) {
      const nowMillis = yield* Clock.currentTimeMillis
      return yield* transaction(
        Effect.gen(function* () {
          const before = yield* repo.lock(id)
          if (before === undefined) return yield* refusals.unknown()
          if (before.revokedAtMillis !== undefined) return yield* refusals.revoked(id)
          if (before.publicKey === publicKey) return before
          if (signedBy !== undefined && signedBy !== before.publicKey) return yield* refusals.former()
          if (yield* repo.isFormer(publicKey)) return yield* refusals.former()
          const holder = yield* repo.findByKey(publicKey)
          if (holder !== undefined) {
            return yield* holder.revokedAtMillis === undefined
              ? new IdentityRefused({ code: "proof-invalid", message: "another identity has this key" })
              : refusals.revoked(holder.id)
          }
          const after = yield* repo.replaceKey(before, publicKey, nowMillis)
          yield* Audit.write(sql, {
            atMillis: nowMillis,
            actor,
            action: "identity.rotated",
            subject: id,
            before: { key: fingerprint(before.publicKey) },
            after: { key: fingerprint(publicKey) }
          })
          return after
        })
      )
    },
    (effect) => Effect.catchTag(effect, "SqlError", unavailable)
  )

  const revoke: Identities["Service"]["revoke"] = Effect.fn("Identities.revoke")(
    function* (id, actor, reason, { dryRun } = { dryRun: false }) {
      const nowMillis = yield* Clock.currentTimeMillis
      return yield* transaction(
        Effect.gen(function* () {
          const revoked = yield* revokeWithin(id, actor, reason, nowMillis)
          if (revoked !== undefined) return revoked
          return yield* (yield* repo.find(id)) === undefined ? new IdentityUnknown({ id }) : new IdentityRevoked({ id })
        }),
        dryRun
      )
    },
    (effect) => Effect.catchTag(effect, "SqlError", unavailable)
  )

  /** What a reset would come to. The registry keeps more of a host than rows, and has a way of its own to try. */
  const tryReset = Effect.fnUntraced(function* (fqdn: DomainName, actor: HostRepo.Actor, reason: string) {
    const nowMillis = yield* Clock.currentTimeMillis
    const edit = () => ({ owner: anonymous.name })
    const word = { event: "transferred", fqdn, actor, reason, edit } as const
    return yield* registry.tryOut([{ _tag: "Word", word }], ([tried]) =>
      Effect.gen(function* () {
        const { before, host } = yield* Effect.fromResult(tried!).pipe(
          // A transfer is refused for no other reason.
          Effect.catchIf((error) => error._tag !== "HostUnknown" && error._tag !== "RegistryUnavailable", Effect.die)
        )
        const formerOwner = (before ?? host).owner
        yield* revokeUnlessHolding(formerOwner, actor, reason, nowMillis)
        return { host, formerOwner, identity: yield* repo.find(formerOwner) }
      })
    )
  })

  const reset: Identities["Service"]["reset"] = Effect.fn("Identities.reset")(
    function* (fqdn, actor, reason, { dryRun } = { dryRun: false }) {
      if (dryRun) return yield* tryReset(fqdn, actor, reason)
      const nowMillis = yield* Clock.currentTimeMillis
      return yield* transaction(
        Effect.gen(function* () {
          const { formerOwner, host } = yield* takeOver(fqdn, anonymous.name, actor, reason, nowMillis)
          const identity = yield* repo.find(formerOwner)
          yield* Audit.write(sql, {
            atMillis: nowMillis,
            actor,
            action: "identity.reset",
            zone: host.zone,
            subject: fqdn,
            before: { owner: formerOwner },
            after: { owner: host.owner, revoked: identity?.revokedAtMillis !== undefined },
            reason
          })
          return { host, formerOwner, identity }
        })
      )
    },
    (effect) => Effect.catchTag(effect, "SqlError", unavailable)
  )

  /** What is known here is newer than what the database said of the last use. */
  const newest = (identity: Identity): Identity => {
    const known = used.get(identity.id)
    return known === undefined || known <= (identity.lastUsedMillis ?? 0)
      ? identity
      : { ...identity, lastUsedMillis: known }
  }

  const get: Identities["Service"]["get"] = Effect.fn("Identities.get")(function* (id) {
    const identity = yield* repo.find(id)
    return identity === undefined ? yield* new IdentityUnknown({ id }) : newest(identity)
  })

  const list: Identities["Service"]["list"] = Effect.fn("Identities.list")(function* (filter, { after = "", limit }) {
    return (yield* repo.list(filter, after, limit)).map(newest)
  })

  /** Writes when identities were last used. */
  const flush = Effect.fn("Identities.flush")(function* () {
    const seen = Array.from(used, ([id, at]) => ({ id, at }))
    for (let i = 0; i < seen.length; i += options.batchMax) {
      const batch = seen.slice(i, i + options.batchMax)
      yield* repo.flushUsed(batch)
      for (const { at, id } of batch) if (used.get(id) === at) used.delete(id)
    }
  })

  const guarded = flush().pipe(
    Effect.catch((error) =>
      Effect.logWarning("the flush of identities' last use failed, will try again").pipe(
        Effect.annotateLogs({ reason: detailOf(error) })
      )
    ),
    Effect.catchDefect((defect) =>
      Effect.logError("the flush of identities' last use failed, will try again", Cause.die(defect))
    )
  )

  yield* Effect.sleep(options.flushMillis).pipe(Effect.andThen(guarded), Effect.forever, Effect.forkScoped)
  // What was used last is known after a restart too.
  yield* Effect.addFinalizer(() => guarded)

  return Identities.of({
    enrol,
    authenticate,
    rotate,
    revoke,
    reset,
    get,
    list,
    hostsOf: repo.hostsOf,
    countHosts: repo.countHosts
  })
})
