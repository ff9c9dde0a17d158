/** Which records a host has a say in: the names to mark when it changes. Pure. */
import type { Host } from "../domain/Host.ts"
import type { RecordPlace, Zones } from "../dns/Zones.ts"

/** The host's own name, and the PTR names of its addresses as far as their reverse zones are configured. */
export const placesOf = (
  zones: Zones["Service"],
  ...hosts: ReadonlyArray<Host | undefined>
): ReadonlyArray<RecordPlace> => {
  const places = new Map<string, RecordPlace>()
  for (const host of hosts) {
    if (host === undefined) continue
    places.set(`${host.zone} ${host.fqdn}`, { zone: host.zone, name: host.fqdn })
    for (const address of host.addresses) {
      const pointer = zones.placePointer(address)
      if (pointer !== undefined) places.set(`${pointer.zone} ${pointer.name}`, pointer)
    }
  }
  return [...places.values()]
}
