/**
 * What the registry would say of a registration now, without carrying it out:
 * whose the name is, and how many there are already.
 *
 * For people who ask why. It may be otherwise a moment later, and names that
 * several machines claim in turn (`registry/Damping`) are not looked at.
 */
import { Clock, Effect, Option } from "effect"
import type { SqlClient } from "effect/sql"
import type { Explanation } from "../auth/Policy.ts"
import type { Zone } from "../domain/Zone.ts"
import { hostConflicts } from "../dns/RecordChanges.ts"
import { decide, type Registration, takenByRecord } from "./Decision.ts"
import * as HostCounts from "./HostCounts.ts"
import * as HostRepo from "./HostRepo.ts"

export const make = (sql: SqlClient.SqlClient) => {
  const hosts = HostRepo.make(sql)

  return Effect.fn("Foresight.explain")(function* (registration: Registration, given: Zone) {
    const { policy } = given
    const { fqdn, registrant, zone } = registration
    const nowMillis = yield* Clock.currentTimeMillis
    const known = Option.getOrUndefined(yield* hosts.findByName(fqdn))
    const conflicts =
      known === undefined ? yield* hostConflicts(sql, { find: () => given }, [{ zone, name: fqdn }]) : new Map()
    const conflict = conflicts.get(fqdn)
    const decision = decide(known, registration, { nowMillis, generation: 0, newId: "", policy })
    const holder =
      known === undefined ? "nobody has the name" : `${known.owner} has the name, its host is ${known.state}`
    const owner: Explanation =
      conflict !== undefined
        ? {
            rule: "owner",
            outcome: "failed",
            code: "hostname-taken",
            detail: takenByRecord(fqdn, conflict).message
          }
        : decision._tag !== "Refuse"
          ? { rule: "owner", outcome: "passed", detail: holder }
          : policy.conflict === "suffix"
            ? { rule: "owner", outcome: "passed", detail: `${holder}; one with a number behind it is given` }
            : { rule: "owner", outcome: "failed", code: "hostname-taken", detail: decision.error.message }

    const counts = yield* hosts.countsOf([
      { kind: "zone", key: zone },
      { kind: "owner", key: registrant.name }
    ])
    const count = (kind: "zone" | "owner") => counts.find((each) => each.kind === kind)?.hosts ?? 0
    const tooMany =
      decision._tag === "Write"
        ? HostCounts.tally(counts).take(decision, { zone: policy.hostsMax, owner: registration.hostsMax })
        : undefined
    const quota: Explanation =
      tooMany === undefined
        ? {
            rule: "quota",
            outcome: "passed",
            detail:
              `${registrant.name} holds ${count("owner")} names of ${registration.hostsMax ?? "any number"}, ` +
              `${zone} ${count("zone")} of ${policy.hostsMax}`
          }
        : { rule: "quota", outcome: "failed", code: "quota-exceeded", detail: tooMany.message }
    return [owner, quota]
  })
}
