/**
 * A zone's settings as plain values: as the API gives and takes them, and as the
 * database keeps them.
 *
 * What the API sets for a zone is an overlay: a part of the settings, laid over
 * what the configuration says of the zone, or over the defaults where it says
 * nothing. A change of it is a JSON merge patch (RFC 7396), in which `null`
 * takes a value of the overlay back. Pure.
 */
import { Duration, Result } from "effect"
import { IpNetwork } from "effect/net"
import type { DomainName } from "./DomainName.ts"
import * as Zone from "./Zone.ts"

export interface PolicySettings {
  readonly ttlSeconds: number
  readonly ttlSecondsMin: number
  readonly ttlSecondsMax: number
  /** Absent: every address that is not special. */
  readonly networks?: ReadonlyArray<string>
  readonly labelsMax?: number
  readonly hostsMax: number
  readonly whenOffline: "keep" | "withdraw"
  /** Absent where records are kept. */
  readonly withdrawAfterSeconds?: number
  readonly conflict: Zone.ConflictPolicy
  readonly retireAfterSeconds: number
  readonly holdForSeconds: number
  readonly deleteBudget: { readonly share: number; readonly min: number; readonly windowSeconds: number }
  readonly quarantineSeconds: number
}

export interface ZoneSettings {
  readonly dnssec: boolean
  readonly nameservers: ReadonlyArray<DomainName>
  readonly createIfMissing: boolean
  readonly policy: PolicySettings
  readonly reconciliation: { readonly intervalSeconds: number; readonly repair: boolean }
}

/** Some of the settings; in a patch, `null` is one that is taken back. */
export interface Overlay {
  readonly [field: string]: Json
}
type Json = string | number | boolean | null | ReadonlyArray<string> | Overlay

const isOverlay = (value: Json | undefined): value is Overlay =>
  typeof value === "object" && value !== null && !Array.isArray(value)

const policyOf = ({
  conflict,
  deleteBudget,
  holdFor,
  hostsMax,
  labelsMax,
  networks,
  quarantine,
  retireAfter,
  ttlSeconds,
  ttlSecondsMax,
  ttlSecondsMin,
  whenOffline
}: Zone.ZonePolicy): PolicySettings => ({
  ttlSeconds,
  ttlSecondsMin,
  ttlSecondsMax,
  ...(networks !== undefined && { networks: networks.map(IpNetwork.format) }),
  ...(labelsMax !== undefined && { labelsMax }),
  hostsMax,
  ...(whenOffline._tag === "Keep"
    ? { whenOffline: "keep" as const }
    : { whenOffline: "withdraw" as const, withdrawAfterSeconds: Duration.toSeconds(whenOffline.after) }),
  conflict,
  retireAfterSeconds: Duration.toSeconds(retireAfter),
  holdForSeconds: Duration.toSeconds(holdFor),
  deleteBudget: {
    share: deleteBudget.share,
    min: deleteBudget.min,
    windowSeconds: Duration.toSeconds(deleteBudget.window)
  },
  quarantineSeconds: Duration.toSeconds(quarantine)
})

/** Equal settings are equal as JSON text. */
export const settingsOf = ({
  createIfMissing,
  dnssec,
  nameservers,
  policy,
  reconciliation
}: Zone.Zone): ZoneSettings => ({
  dnssec,
  nameservers,
  createIfMissing,
  policy: policyOf(policy),
  reconciliation: { intervalSeconds: Duration.toSeconds(reconciliation.interval), repair: reconciliation.repair }
})

/** Where records are withdrawn and nobody says after how long. */
const withdrawAfterDefault = Duration.hours(1)

const toPolicy = (settings: PolicySettings): Zone.ZonePolicy => ({
  ttlSeconds: settings.ttlSeconds,
  ttlSecondsMin: settings.ttlSecondsMin,
  ttlSecondsMax: settings.ttlSecondsMax,
  networks:
    settings.networks === undefined || settings.networks.length === 0
      ? undefined
      : settings.networks.map((network) => Result.getOrThrow(IpNetwork.fromString(network))),
  labelsMax: settings.labelsMax,
  hostsMax: settings.hostsMax,
  whenOffline:
    settings.whenOffline === "keep"
      ? { _tag: "Keep" }
      : {
          _tag: "Withdraw",
          after:
            settings.withdrawAfterSeconds === undefined
              ? withdrawAfterDefault
              : Duration.seconds(settings.withdrawAfterSeconds)
        },
  conflict: settings.conflict,
  retireAfter: Duration.seconds(settings.retireAfterSeconds),
  holdFor: Duration.seconds(settings.holdForSeconds),
  deleteBudget: {
    share: settings.deleteBudget.share,
    min: settings.deleteBudget.min,
    window: Duration.seconds(settings.deleteBudget.windowSeconds)
  },
  quarantine: Duration.seconds(settings.quarantineSeconds)
})

/** The zone that these settings make. They have been checked: by the contract when they came, or by the configuration. */
export const toZone = (
  name: DomainName,
  settings: ZoneSettings,
  about: Pick<Zone.Zone, "generation" | "origin" | "overridden">
): Zone.Zone =>
  Zone.make(name, {
    ...about,
    dnssec: settings.dnssec,
    nameservers: settings.nameservers,
    createIfMissing: settings.createIfMissing,
    policy: toPolicy(settings.policy),
    reconciliation: {
      interval: Duration.seconds(settings.reconciliation.intervalSeconds),
      repair: settings.reconciliation.repair
    }
  })

/** `patch` on `overlay`; objects that say nothing any more are left out. */
export const patched = (overlay: Overlay, patch: Overlay): Overlay => {
  const result: { [field: string]: Json } = { ...overlay }
  for (const [field, value] of Object.entries(patch)) {
    if (value === null) delete result[field]
    else if (isOverlay(value)) {
      const before = result[field]
      const after = patched(isOverlay(before) ? before : {}, value)
      if (Object.keys(after).length === 0) delete result[field]
      else result[field] = after
    } else result[field] = value
  }
  return result
}

const laidOver = (base: Overlay, overlay: Overlay): Overlay => {
  const result: { [field: string]: Json } = { ...base }
  for (const [field, value] of Object.entries(overlay)) {
    const below = result[field]
    result[field] = isOverlay(value) && isOverlay(below) ? laidOver(below, value) : value
  }
  return result
}

/** `base` with an overlay on it, as a zone. */
export const overlaid = (
  base: Zone.Zone,
  overlay: Overlay,
  about: Pick<Zone.Zone, "generation" | "origin" | "overridden">
): Zone.Zone =>
  toZone(base.name, laidOver(settingsOf(base) as unknown as Overlay, overlay) as unknown as ZoneSettings, about)

/** JSON Pointers of all that an overlay says. */
export const pointersOf = (overlay: Overlay, at = ""): ReadonlyArray<string> =>
  Object.entries(overlay).flatMap(([field, value]) =>
    isOverlay(value) ? pointersOf(value, `${at}/${field}`) : [`${at}/${field}`]
  )
