/**
 * Finds out where two sets of records differ without holding either.
 *
 * Names fall into buckets by a hash. Each bucket has the sum of the hashes of
 * its records, of one side added, of the other taken away, so that order does
 * not matter and a doubled record shows. Where the sums are zero both sides are
 * the same; only the names of the other buckets need to be looked at. Beside it
 * stands a filter of known names (Bloom, about 1 in 400 taken for known that is
 * not), which keeps names that nobody asked about out of the sums.
 *
 * Promises: memory by the number of buckets and names (18 MB for a million),
 * whatever the records; a difference stays unseen once in 2^64 times, and the
 * seed is not known to anyone who writes records. Pure but for its own state.
 */

/** Two numbers of 32 bits that nobody can guess. */
export interface Seed {
  readonly a: number
  readonly b: number
}

/** 2^18: at a million names four of them share one. */
export const bucketCount = 1 << 18

/** Bits of the filter for a name that is expected. */
const bitsPerName = 16
const probes = 4
/** 16 MB: enough for eight million names. */
const filterBitsMax = 1 << 27
const filterBitsMin = 1 << 16

export interface Digest {
  /** Puts a name into the filter. */
  readonly know: (name: string) => void
  /** False only for a name that was never put in. */
  readonly knows: (name: string) => boolean
  readonly bucketOf: (name: string) => number
  /** Counts a record on one side. */
  readonly add: (side: "desired" | "actual", name: string, type: string, ttlSeconds: number, content: string) => void
  /** Buckets whose sides differ, in order. */
  readonly differing: () => ReadonlyArray<number>
  /** Records counted in a bucket, both sides together. */
  readonly recordsIn: (bucket: number) => number
}

export const make = (seed: Seed, namesExpected: number): Digest => {
  const low = new Uint32Array(bucketCount)
  const high = new Uint32Array(bucketCount)
  const counts = new Uint32Array(bucketCount)
  let bits = filterBitsMin
  while (bits < namesExpected * bitsPerName && bits < filterBitsMax) bits *= 2
  const filter = new Uint32Array(bits / 32)

  let h1 = 0
  let h2 = 0
  const begin = () => {
    h1 = seed.a | 0
    h2 = seed.b | 0
  }
  const feed = (text: string) => {
    for (let i = 0; i < text.length; i++) {
      const c = text.charCodeAt(i)
      h1 = Math.imul(h1 ^ c, 2654435761)
      h2 = Math.imul(h2 ^ c, 1597334677)
    }
    // A border between two texts, so that what moves across it counts.
    h1 = Math.imul(h1 ^ 0x10000, 2654435761)
    h2 = Math.imul(h2 ^ 0x10000, 1597334677)
  }
  const mix = (x: number, y: number): number => {
    const once = Math.imul(x ^ (x >>> 16), 2246822507) ^ Math.imul(y ^ (y >>> 13), 3266489909)
    return (once ^ (once >>> 16)) >>> 0
  }
  const hashName = (name: string) => {
    begin()
    feed(name)
  }
  const bucket = () => mix(h1, h2) & (bucketCount - 1)

  return {
    know: (name) => {
      hashName(name)
      const first = mix(h1, h2)
      const step = mix(h2, h1) | 1
      for (let i = 0; i < probes; i++) {
        const bit = (first + Math.imul(i, step)) & (bits - 1)
        filter[bit >>> 5]! |= 1 << (bit & 31)
      }
    },
    knows: (name) => {
      hashName(name)
      const first = mix(h1, h2)
      const step = mix(h2, h1) | 1
      for (let i = 0; i < probes; i++) {
        const bit = (first + Math.imul(i, step)) & (bits - 1)
        if ((filter[bit >>> 5]! & (1 << (bit & 31))) === 0) return false
      }
      return true
    },
    bucketOf: (name) => {
      hashName(name)
      return bucket()
    },
    add: (side, name, type, ttlSeconds, content) => {
      hashName(name)
      const at = bucket()
      feed(type)
      feed(String(ttlSeconds))
      feed(content)
      const a = mix(h1, h2)
      const b = mix(h2, h1)
      const sign = side === "desired" ? 1 : -1
      const sum = low[at]! + sign * a
      // 64 bits in two halves: what leaves the lower one goes into the upper one.
      low[at] = sum
      high[at] = high[at]! + sign * b + Math.floor(sum / 0x1_0000_0000)
      counts[at]! += 1
    },
    differing: () => {
      const found: Array<number> = []
      for (let i = 0; i < bucketCount; i++) if (low[i] !== 0 || high[i] !== 0) found.push(i)
      return found
    },
    recordsIn: (at) => counts[at]!
  }
}
