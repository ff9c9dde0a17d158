/** Serials of zones, which go around: how they compare (RFC 1982), and where they stand in an SOA. */

/** True when serial `a` is not behind `b`. */
export const isUpToDate = (a: number, b: number): boolean => (a - b) >>> 0 < 0x8000_0000

export const next = (serial: number): number => (serial + 1) >>> 0

/** The one furthest ahead. */
export const latest = (serials: Iterable<number>): number | undefined => {
  let found: number | undefined
  for (const serial of serials) if (found === undefined || isUpToDate(serial, found)) found = serial
  return found
}

/** Fields of an SOA: name server, mailbox, serial, … */
const place = 2

/** Of the contents of an SOA record. */
export const ofSoa = (content: string | undefined): number | undefined => {
  const text = content?.split(" ")[place]
  return text === undefined ? undefined : Number(text)
}

export const inSoa = (content: string, serial: number): string => content.split(" ").with(place, `${serial}`).join(" ")
