/**
 * What is wrong inside a zone, from the text of `/zones/ZONE/export`: the same
 * record twice, more than one SOA, a CNAME beside other data.
 *
 * Promises: memory does not grow with the zone; it relies on PowerDNS's order,
 * in which a name's records stand together. Leaves to others: what the records
 * should be.
 */
import type { Sample, ZoneContent } from "./DoctorFacts.ts"

/** Named in a finding; the others are only counted. */
export const sampleMax = 5

const makeSample = () => {
  let count = 0
  const first: Array<string> = []
  return {
    add: (text: string) => {
      count++
      if (first.length < sampleMax) first.push(text)
    },
    end: (): Sample => ({ count, first })
  }
}

/** Types that may stand beside a CNAME (RFC 4034). */
const besideCname = new Set(["RRSIG", "NSEC", "NSEC3"])

const recordPattern = /^([^\t]+)\t\d+\tIN\t([A-Z0-9]+)\t(.*)$/

export const makeReader = () => {
  const duplicates = makeSample()
  const conflictingNames = makeSample()
  let rest = ""
  let records = 0
  let soaRecords = 0
  let hasPlaceholderSoa = false
  let name = ""
  /** Records of the present name, and how many of each type. */
  let seen = new Set<string>()
  let types = new Map<string, number>()

  const endName = () => {
    const cnames = types.get("CNAME") ?? 0
    const beside = [...types.keys()].filter((type) => type !== "CNAME" && !besideCname.has(type))
    if (cnames > 0 && beside.length > 0) conflictingNames.add(`${name} CNAME and ${beside.join(", ")}`)
    else if (cnames > 1) conflictingNames.add(`${name} ${cnames} CNAMEs`)
  }

  const line = (text: string) => {
    const match = recordPattern.exec(text)
    // The rest of a text with line ends in it, or an empty line.
    if (match === null) return
    const [, owner = "", type = "", content = ""] = match
    records++
    if (owner !== name) {
      endName()
      name = owner
      seen = new Set()
      types = new Map()
    }
    if (type === "SOA") {
      soaRecords++
      if (content.startsWith("a.misconfigured.")) hasPlaceholderSoa = true
    }
    const record = `${type} ${content}`
    // A doubled SOA has a finding of its own, and differs in its serial most times.
    if (seen.has(record) && type !== "SOA") duplicates.add(`${owner} ${record}`)
    seen.add(record)
    types.set(type, (types.get(type) ?? 0) + 1)
  }

  return {
    push: (text: string): void => {
      const lines = (rest + text).split("\n")
      rest = lines.pop()!
      for (const each of lines) line(each)
    },
    end: (): ZoneContent => {
      line(rest)
      endName()
      return {
        records,
        soaRecords,
        hasPlaceholderSoa,
        duplicates: duplicates.end(),
        conflictingNames: conflictingNames.end()
      }
    }
  }
}
