/**
 * Lets claims in: what `auth/Policy` grants, and no more often than the limits
 * say.
 *
 * A claim that would change something takes a permit of each rate that is kept
 * for it: for its principal, for its name, for the network it comes from, and
 * for all who prove nothing together. Who finds that it changed nothing after
 * all gives the permits back, so beats never count. In memory and of this
 * process only; the number of rates kept is bounded, and the one that was not
 * used for longest is forgotten first, which is as good as a full one.
 */
import { Clock, Context, Effect, Layer, Metric } from "effect"
import { IpNetwork, NetAddress } from "effect/net"
import { Zones } from "../dns/Zones.ts"
import type { DomainName } from "../domain/DomainName.ts"
import type { IpAddress } from "../domain/IpAddress.ts"
import * as AuthMetrics from "./AuthMetrics.ts"
import { Buckets } from "./Buckets.ts"
import * as Policy from "./Policy.ts"
import type { Principal } from "./Principal.ts"
import { SharedRates } from "./SharedRates.ts"
import { type Rate, TokenBucket } from "./TokenBucket.ts"

/** How often, and how many. */
export interface Limits {
  /** Changes of one key or client certificate: one machine, or a few names on it. */
  readonly identity: Rate
  /** Changes with one token, which a whole fleet may share. */
  readonly token: Rate
  /** Changes of one name, by one principal: nobody uses up the rate of somebody else's name. */
  readonly name: Rate
  /** Changes from one /24 of IPv4 or /64 of IPv6; a fleet behind one address is one such network. */
  readonly network: Rate
  /** Names of one key or client certificate whose grant says nothing else. */
  readonly namesPerIdentity: number
  /** Names of one token, and of all who prove nothing. */
  readonly namesPerToken: number
  /** Rates kept in memory, of each kind. */
  readonly bucketsMax: number
}

/** Far above what a fleet does that comes back as a whole; a registry takes about 4000 changes a second. */
export const defaultLimits: Limits = {
  identity: { ratePerSecond: 10, burst: 200 },
  token: { ratePerSecond: 2000, burst: 50_000 },
  name: { ratePerSecond: 2, burst: 120 },
  network: { ratePerSecond: 1000, burst: 20_000 },
  namesPerIdentity: 100,
  namesPerToken: 1_000_000,
  bucketsMax: 100_000
}

export interface AdmissionOptions {
  /** Default: those of `auth/Policy`. */
  readonly reservedNames?: ReadonlyArray<string>
  /** What is open to who proves nothing: one zone (undefined: the first for hosts), at a rate over all of them. `open`: all of it is. */
  readonly anonymous: "open" | (Rate & { readonly zone: DomainName | undefined })
  readonly limits?: Partial<Limits>
}

export class Admission extends Context.Service<
  Admission,
  {
    /** Whether a claim that may change something is let in, now. Takes from the rates when it is. */
    readonly admit: (principal: Principal, claim: Policy.Claim, nowMillis: number) => Policy.Verdict
    /** What the rules say of the claim, whatever the rates do; takes nothing. */
    readonly judge: (principal: Principal, claim: Policy.Claim) => Policy.Verdict
    /** Whether the claim is granted, whatever the rates say; takes nothing. */
    readonly isGranted: (principal: Principal, claim: Policy.Claim) => boolean
    /** The claim was admitted and changed nothing after all: it does not count. */
    readonly giveBack: (principal: Principal, claim: Policy.Claim) => void
    /** What each rule and each rate says of the claim at the moment; takes nothing. */
    readonly explain: (principal: Principal, claim: Policy.Claim) => ReadonlyArray<Policy.Explanation>
    /** Names that the principal may hold at once. */
    readonly hostsMax: (principal: Principal) => number
    /** The one zone for hosts that prove nothing; undefined: any. */
    readonly anonymousZone: DomainName | undefined
  }
>()("@prism-dns/core/auth/Admission") {
  static readonly layer = (options: AdmissionOptions): Layer.Layer<Admission, never, Zones> =>
    Layer.effect(Admission, make(options))
}

const make = Effect.fnUntraced(function* (options: AdmissionOptions) {
  const zones = yield* Zones
  const clock = yield* Clock.Clock
  const context = yield* Effect.context()
  const limits = { ...defaultLimits, ...options.limits }
  const { anonymous } = options
  const rules: Policy.Rules = {
    reservedNames: options.reservedNames ?? Policy.reservedNames,
    anonymousZone: anonymous === "open" ? undefined : (anonymous.zone ?? zones.forward[0])
  }
  const shared = yield* SharedRates
  const nowMillis = () => clock.currentTimeMillisUnsafe()
  const touchAnonymous = yield* shared.share("anonymous", nowMillis)
  const ofAnonymous =
    anonymous === "open"
      ? undefined
      : new TokenBucket(anonymous, nowMillis(), touchAnonymous && ((bucket) => touchAnonymous("all", bucket)))
  const ofKind = Effect.fnUntraced(function* (kind: string) {
    const metric = Metric.withAttributes(AuthMetrics.buckets, { kind })
    const touch = yield* shared.share(kind, nowMillis)
    return new Buckets(limits.bucketsMax, (size) => metric.updateUnsafe(size, context), touch)
  })
  const ofPrincipals = yield* ofKind("principal")
  const ofNames = yield* ofKind("name")
  const ofNetworks = yield* ofKind("network")

  /** The rates that a claim counts for, in the order in which they are asked. */
  const ratesOf = (principal: Principal, claim: Policy.Claim, nowMillis: number): ReadonlyArray<Counted> => {
    const counted: Array<Counted> = []
    if (principal.anonymous) {
      if (ofAnonymous !== undefined)
        counted.push({ rule: "rate-anonymous", whose: "hosts that prove nothing", bucket: ofAnonymous })
    } else {
      const rate = principal.kind === "token" ? limits.token : limits.identity
      counted.push({
        rule: "rate-principal",
        whose: principal.name,
        bucket: ofPrincipals.get(principal.name, rate, nowMillis)
      })
    }
    counted.push({
      rule: "rate-name",
      whose: claim.fqdn,
      bucket: ofNames.get(`${claim.fqdn} ${principal.name}`, limits.name, nowMillis)
    })
    if (claim.peer !== undefined) {
      const network = networkOf(claim.peer)
      counted.push({ rule: "rate-network", whose: network, bucket: ofNetworks.get(network, limits.network, nowMillis) })
    }
    return counted
  }

  const admit: Admission["Service"]["admit"] = (principal, claim, nowMillis) => {
    const verdict = Policy.decide(principal, claim, zones.find(claim.zone), rules)
    if (verdict._tag === "Refused") return verdict
    const rates = ratesOf(principal, claim, nowMillis)
    for (const [i, { bucket, rule, whose }] of rates.entries()) {
      const waitSeconds = bucket.take(nowMillis)
      if (waitSeconds === 0) continue
      for (const taken of rates.slice(0, i)) taken.bucket.giveBack()
      return {
        _tag: "Refused",
        rule,
        code: "rate-limited",
        message: `too many changes of ${whose}, try again later`,
        retryAfterSeconds: waitSeconds
      }
    }
    return verdict
  }

  const judge: Admission["Service"]["judge"] = (principal, claim) =>
    Policy.decide(principal, claim, zones.find(claim.zone), rules)

  return Admission.of({
    admit,
    judge,
    isGranted: (principal, claim) => Policy.decide(principal, claim, zones.find(claim.zone), rules)._tag === "Allowed",
    giveBack: (principal, claim) => {
      for (const { bucket } of ratesOf(principal, claim, clock.currentTimeMillisUnsafe())) bucket.giveBack()
    },
    explain: (principal, claim) => {
      const nowMillis = clock.currentTimeMillisUnsafe()
      return [
        ...Policy.explain(principal, claim, zones.find(claim.zone), rules),
        ...ratesOf(principal, claim, nowMillis).map(({ bucket, rule, whose }): Policy.Explanation => {
          const waitSeconds = bucket.waitSeconds(nowMillis)
          return waitSeconds === 0
            ? { rule, outcome: "passed", detail: `${whose}: a change is possible now` }
            : {
                rule,
                outcome: "failed",
                code: "rate-limited",
                detail: `${whose}: a change is possible in ${Math.ceil(waitSeconds)} s`
              }
        })
      ]
    },
    hostsMax: ({ grant, kind }) =>
      grant.namesMax ?? (kind === "key" || kind === "certificate" ? limits.namesPerIdentity : limits.namesPerToken),
    anonymousZone: rules.anonymousZone
  })
})

interface Counted {
  readonly rule: Policy.RuleName
  /** For the sentence. */
  readonly whose: string
  readonly bucket: TokenBucket
}

/** The network whose rate an address counts for: what one customer, or one machine, usually has. */
export const networkOf = (address: IpAddress): string => {
  const ip = NetAddress.ipFromStringUnsafe(address)
  return IpNetwork.format(IpNetwork.fromAddressUnsafe(ip, NetAddress.isIpv4Address(ip) ? 24 : 64))
}
