/**
 * A host by its name, read at once: for who asks for one host after another,
 * thousands of times a second.
 *
 * What was read is kept, for as long as nothing at all has been committed to
 * the database and the zones are the same: so an answer is never older than the
 * server's last commit, and nobody has to be told of changes. How many
 * are kept is bounded. Undefined is said where there is more to it, and then
 * the registry is to be asked: an unknown name, a host on its way to the DNS
 * (its zone's writer knows why it waits), a database that cannot be read at
 * once.
 */
import { Effect } from "effect"
import { SqlClient } from "effect/sql"
import * as Progress from "../dns/Progress.ts"
import { Zones } from "../dns/Zones.ts"
import type { DomainName } from "../domain/DomainName.ts"
import type { Host, Publication } from "../domain/Host.ts"
import { DirectReads } from "../storage/Sqlite.ts"
import { placesOf } from "./HostRecords.ts"
import * as HostRepo from "./HostRepo.ts"
import { toHost, type HostRow } from "./HostRows.ts"
import { publicationOf } from "./Registry.ts"

/** A host as it stands in the database. */
export interface Read {
  readonly host: Host
  readonly publication: Publication
}

/** Answers that are kept; about 1 KB each. */
export const keptMax = 10_000

/** Reads hosts and keeps what `toAnswer` makes of them. */
export const make = <A>(toAnswer: (read: Read) => A) =>
  Effect.gen(function* () {
    const reads = yield* DirectReads
    const sql = yield* SqlClient.SqlClient
    const zones = yield* Zones
    const kept = new Map<DomainName, A>()
    let version = -1
    let zonesVersion = -1

    const read = (fqdn: DomainName): Read | undefined => {
      const [row] = reads!.all(HostRepo.byName(sql, fqdn).compile()) as ReadonlyArray<HostRow>
      if (row === undefined) return undefined
      const host = toHost(row)
      const places = placesOf(zones, host)
      const rows = reads!.all(Progress.statement(sql, places).compile()) as ReadonlyArray<Progress.ProgressRow>
      return { host, publication: publicationOf(host, places, Progress.fromRows(rows)) }
    }

    return (fqdn: DomainName): A | undefined => {
      if (reads === undefined) return undefined
      // Asked before anything is read: what is read may be newer, and is then read again the next time.
      const now = reads.version()
      if (now !== version || zones.version !== zonesVersion) {
        kept.clear()
        version = now
        zonesVersion = zones.version
      }
      const known = kept.get(fqdn)
      if (known !== undefined) return known
      const found = read(fqdn)
      if (found === undefined || found.publication.level === "accepted") return undefined
      const answer = toAnswer(found)
      if (kept.size >= keptMax) kept.clear()
      kept.set(fqdn, answer)
      return answer
    }
  })
