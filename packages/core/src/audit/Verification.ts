/**
 * Whether the audit log is as it was sealed. Pure: entries and seals in, in the
 * order of their positions, and out every place at which something is wrong, and
 * what it is.
 *
 * Promises: a byte that is another in any column of an entry, an entry that is
 * gone, was put in or stands elsewhere, and a seal that is gone or another one,
 * are each found. What is found says as closely as can be told what was done:
 * two entries that changed places are one finding, and so is one that was
 * removed with all behind it numbered anew. Memory is bounded whatever the log's
 * length. Leaves to others: reading (`audit/AuditCheck`, an export), and what
 * nobody can see from the log alone: whoever writes all of it anew from some
 * place on, or cuts off its end with the seals, is found only by a head that was
 * noted elsewhere before (`noted`).
 */
import { canonicalText, type EntryRow, hashOf, type LogRow, textOf } from "./Chain.ts"

/** The end of a batch, as it was sealed. */
export interface Seal {
  readonly firstPosition: number
  readonly lastPosition: number
  readonly atMillis: number
  readonly hash: string
}

/** A place in the log, and the hash of the entry there. */
export interface Point {
  readonly position: number
  readonly hash: string
}

/**
 * - `changed`: the entry is not what was sealed, or the hash of the one before is not.
 * - `removed`: entries are not there. `added`: an entry was put in.
 * - `swapped`: two entries have changed places.
 * - `seal-missing`: entries are covered by no seal. `seal-changed`: the seal is not that of its entries.
 * - `not-as-noted`: the entry is another than the one whose hash was noted.
 */
export const faults = [
  "changed",
  "removed",
  "added",
  "swapped",
  "seal-missing",
  "seal-changed",
  "not-as-noted"
] as const
export type Fault = (typeof faults)[number]

export interface Finding {
  readonly what: Fault
  readonly position: number
  /** The last position, where there is more than one; of a swap the other. */
  readonly to?: number
  /** A sentence. */
  readonly detail: string
}

export interface Report {
  /** Entries that were looked at. */
  readonly entries: number
  /** In the order of positions, `findingsMax` at the most. */
  readonly findings: ReadonlyArray<Finding>
  /** There is more than is named. */
  readonly more: boolean
  /** The last entry that was looked at; undefined: none. */
  readonly last: Point | undefined
}

/** Findings that are named at the most. */
export const findingsMax = 100

/** Entries that were removed or put in, with the others numbered anew, are told apart up to so many in a row. */
const shiftMax = 16

/** Hashes of the newest entries that are remembered, for seals. */
const rememberedMax = 1024

interface Suspect {
  readonly row: LogRow
  /** Its position as it was sealed. */
  readonly position: number
  /** What it should follow on. */
  readonly former: string | undefined
}

const isCanonical = (text: string | null): boolean => {
  if (text === null) return true
  try {
    return canonicalText(text) === text
  } catch {
    return false
  }
}

/** The hash of an entry at `position` behind `former`; undefined when its text is none that was ever sealed. */
const hashAt = (row: EntryRow, position: number, former: string): string | undefined =>
  isCanonical(row.before) && isCanonical(row.after) ? hashOf(former, textOf({ ...row, position })) : undefined

const range = (from: number, to: number) => (from === to ? { position: from } : { position: from, to })

const entriesFrom = (from: number, to: number): string => (from === to ? `entry ${from}` : `entries ${from} to ${to}`)

const notAsNoted = (position: number): string => `entry ${position} is another than the one that was noted`

export interface Verifier {
  /** The next entry. */
  readonly entry: (row: LogRow) => void
  /** The next seal, behind the entries that it covers. */
  readonly seal: (seal: Seal) => void
  /** All has been given: up to the end of the log (`complete`), or before an entry that `following` covers, if there is one. */
  readonly end: (options: { readonly complete: boolean; readonly following?: Seal | undefined }) => Report
}

/** Where to begin. Without a hash nothing is said of the first entry behind it but that it is there. */
export interface Start {
  readonly position: number
  readonly hash: string | undefined
}

/** Verifies what comes behind `start`, whose hash is taken for granted. */
export const make = (start: Start, noted: ReadonlyArray<Point> = []): Verifier => {
  const findings: Array<Finding> = noted
    .filter(({ hash, position }) => position === start.position && start.hash !== undefined && hash !== start.hash)
    .map(({ position }) => ({ what: "not-as-noted", position, detail: notAsNoted(position) }))
  const suspects: Array<Suspect> = []
  let more = false
  let entries = 0
  /** The position that comes next, as it stands in the log. */
  let next = start.position + 1
  /** What entries were sealed at, less where they stand. */
  let offset = 0
  /** Hashes that the next entry may follow on: as it stands there, as it should be, and as it was sealed. */
  let formers: ReadonlyArray<string> = start.hash === undefined ? [] : [start.hash]
  /** By the position as it was sealed. */
  const hashes = new Map<number, { readonly stored: string; readonly computed: string | undefined }>()
  let last: Point | undefined
  let sealedTo = start.position
  let hasSeal = false
  /** A seal that is not that of its entry, until the next entry says which of the two is wrong. */
  let doubted: Seal | undefined
  const early: Array<Seal> = []

  const find = (finding: Finding) => {
    if (findings.length < findingsMax) findings.push(finding)
    else more = true
  }

  const suspect = (found: Suspect) => {
    if (suspects.length < findingsMax) suspects.push(found)
    else more = true
  }

  const remember = (position: number, stored: string, computed: string | undefined) => {
    hashes.set(position, { stored, computed })
    if (hashes.size > rememberedMax) hashes.delete(hashes.keys().next().value!)
  }

  const storedAt = (position: number): string | undefined =>
    position === start.position ? start.hash : hashes.get(position)?.stored

  /** How many places the entry stands from where it was sealed, when others were removed or put in before it. */
  const shiftOf = (row: LogRow): number | undefined => {
    const at = Number(row.position) + offset
    if (suspects.length >= findingsMax) return undefined
    for (let shift = 1; shift <= shiftMax; shift++) {
      if (formers[0] !== undefined && hashAt(row, at + shift, formers[0]) === row.hash) return shift
      const former = storedAt(at - shift - 1)
      // A copy of an entry that stands where it was sealed has not moved.
      const isCopy = storedAt(at - shift) === row.hash
      if (former === undefined || isCopy || hashAt(row, at - shift, former) !== row.hash) continue
      // Where the entry that stands in its place belongs here, the two have changed places, and nothing was put in.
      const other = suspects.find(({ position }) => position === at - shift)
      const isSwap = shift > 1 && other !== undefined && hashAt(other.row, at, formers[0]!) === other.row.hash
      return isSwap ? undefined : -shift
    }
    return undefined
  }

  /** Says what was found to have been removed or put in just before `row`, and goes on from its new place. */
  const shifted = (row: LogRow, shift: number) => {
    const at = Number(row.position) + offset
    if (shift > 0) {
      // The entry before it is the first behind what is gone: nothing was wrong with it but its number.
      const first = suspects.at(-1)?.position === at - 1 ? suspects.pop()!.position : at
      const what = range(first, first + shift - 1)
      find({
        what: "removed",
        ...what,
        detail: `${entriesFrom(first, first + shift - 1)} removed, those behind numbered anew`
      })
    } else {
      const first = at + shift
      while (suspects.length > 0 && suspects.at(-1)!.position >= first && suspects.at(-1)!.position < at) suspects.pop()
      find({
        what: "added",
        ...range(first, at - 1),
        detail: `${entriesFrom(first, at - 1)} put in, those behind numbered anew`
      })
    }
    offset += shift
  }

  /** Whether `row` and the entry before it have changed places. */
  const changedPlaces = (row: LogRow): boolean => {
    const before = suspects.at(-1)
    const at = Number(row.position) + offset
    if (before?.position !== at - 1 || hashAt(before.row, at, row.hash) !== before.row.hash) return false
    suspects.pop()
    if (doubted?.hash === row.hash) doubted = undefined
    remember(at - 1, row.hash, undefined)
    remember(at, before.row.hash, undefined)
    find({ what: "swapped", position: at - 1, to: at, detail: `entries ${at - 1} and ${at} have changed places` })
    return true
  }

  /** The entry after a seal in doubt tells whether that or the entry before it was changed. */
  const settleDoubt = (follows: string | undefined) => {
    if (doubted === undefined) return
    const { hash, lastPosition } = doubted
    doubted = undefined
    if (follows === hash) {
      find({ what: "changed", position: lastPosition, detail: `entry ${lastPosition} is not the one that was sealed` })
    } else {
      find({
        what: "seal-changed",
        position: lastPosition,
        detail: `the seal of entry ${lastPosition} has another hash than the entry`
      })
    }
  }

  const checkSeal = (seal: Seal, known: { readonly stored: string; readonly computed: string | undefined }) => {
    if (seal.hash === known.stored || seal.hash === known.computed) return
    settleDoubt(undefined)
    doubted = seal
    formers = [...formers, seal.hash]
  }

  const entry: Verifier["entry"] = (row) => {
    entries += 1
    const stands = Number(row.position)
    if (stands < next) {
      find({ what: "swapped", position: stands, detail: `entry ${stands} stands out of order` })
      return
    }
    if (stands > next) {
      find({ what: "removed", ...range(next, stands - 1), detail: `${entriesFrom(next, stands - 1)} not there` })
      const sealed = early.findIndex(({ lastPosition }) => lastPosition === stands - 1 + offset)
      settleDoubt(undefined)
      formers = sealed < 0 ? [] : [early.splice(sealed, 1)[0]!.hash]
    }
    next = stands + 1
    let position = stands + offset
    let follows = formers.find((former) => hashAt(row, position, former) === row.hash)
    if (follows === undefined && formers.length > 0) {
      const shift = shiftOf(row)
      if (shift === undefined) suspect({ row, position, former: formers[0] })
      else {
        follows = shift > 0 ? formers[0] : storedAt(position + shift - 1)
        if (shift === -1 && changedPlaces(row)) {
          formers = [storedAt(position)!]
          last = { position: stands, hash: row.hash }
          return
        }
        shifted(row, shift)
        position = stands + offset
      }
    }
    settleDoubt(follows)
    const computed =
      follows !== undefined ? row.hash : formers[0] === undefined ? undefined : hashAt(row, position, formers[0])
    remember(position, row.hash, computed)
    formers = computed === undefined || computed === row.hash ? [row.hash] : [row.hash, computed]
    last = { position: stands, hash: row.hash }
    for (const point of noted) {
      if (point.position === stands && point.hash !== row.hash) {
        find({ what: "not-as-noted", position: stands, detail: notAsNoted(stands) })
      }
    }
    const waiting = early.findIndex(({ lastPosition }) => lastPosition === position)
    if (waiting >= 0) checkSeal(early.splice(waiting, 1)[0]!, { stored: row.hash, computed })
  }

  const seal: Verifier["seal"] = (given) => {
    const { firstPosition, lastPosition } = given
    if (firstPosition > sealedTo + 1) {
      find({
        what: "seal-missing",
        ...range(sealedTo + 1, firstPosition - 1),
        detail: `${entriesFrom(sealedTo + 1, firstPosition - 1)} covered by no seal`
      })
    } else if (lastPosition <= sealedTo || (hasSeal && firstPosition <= sealedTo)) {
      find({
        what: "seal-changed",
        position: lastPosition,
        detail: `the seal of entry ${lastPosition} covers what another one does`
      })
    }
    hasSeal = true
    sealedTo = Math.max(sealedTo, lastPosition)
    const known = hashes.get(lastPosition)
    if (known !== undefined) checkSeal(given, known)
    else if (early.length < rememberedMax) early.push(given)
  }

  /** Suspects that are as two entries would be that changed places; they are no suspects any more. */
  const findSwaps = () => {
    for (let i = 0; i < suspects.length; i++) {
      const one = suspects[i]!
      for (let j = i + 1; j < suspects.length; j++) {
        const other = suspects[j]!
        if (one.former === undefined || other.former === undefined) continue
        const here = hashAt(other.row, one.position, one.former)
        if (here === undefined) continue
        const contents = here === one.row.hash && hashAt(one.row, other.position, other.former) === other.row.hash
        const wholly = here === other.row.hash && hashAt(one.row, other.position, other.former) === one.row.hash
        if (!contents && !wholly) continue
        find({
          what: "swapped",
          position: one.position,
          to: other.position,
          detail: `entries ${one.position} and ${other.position} have changed places`
        })
        // What follows on each of the two is right once they stand where they were.
        const isExplained = ({ position, row }: Suspect) =>
          wholly &&
          ((position === one.position + 1 && hashAt(row, position, other.row.hash) === row.hash) ||
            (position === other.position + 1 && hashAt(row, position, one.row.hash) === row.hash))
        const rest = suspects.filter((each) => each !== one && each !== other && !isExplained(each))
        suspects.splice(0, suspects.length, ...rest)
        i = -1
        break
      }
    }
  }

  const end: Verifier["end"] = ({ complete, following }) => {
    const lastSealed = early.at(-1)
    const isCovered = !complete && following !== undefined && following.firstPosition <= sealedTo + 1
    if (lastSealed !== undefined && lastSealed.lastPosition - offset >= next) {
      const to = lastSealed.lastPosition - offset
      find({ what: "removed", ...range(next, to), detail: `${entriesFrom(next, to)} sealed and not there` })
    } else if (!isCovered && last !== undefined && last.position + offset > sealedTo) {
      const from = Math.max(sealedTo + 1, start.position + 1)
      const to = last.position + offset
      find({ what: "seal-missing", ...range(from, to), detail: `${entriesFrom(from, to)} covered by no seal` })
    }
    if (doubted !== undefined) {
      const { lastPosition } = doubted
      doubted = undefined
      find({
        what: "seal-changed",
        position: lastPosition,
        detail: `entry ${lastPosition} and its seal do not agree: one of the two was changed`
      })
    }
    for (const { position } of noted) {
      if (complete && position >= next) {
        find({
          what: "removed",
          ...range(next, position),
          detail: `the log ends before the entry ${position} that was noted`
        })
      }
    }
    findSwaps()
    for (const { position, row } of suspects) {
      const detail = `entry ${position} was changed, or the hash of the one before`
      find({ what: "changed", position: Math.min(position, Number(row.position)), detail })
    }
    suspects.length = 0
    return { entries, findings: findings.toSorted((a, b) => a.position - b.position), more, last }
  }

  return { entry, seal, end }
}
