/**
 * Numbers from a seed: the same seed, the same numbers, on every machine.
 *
 * Each concern of a simulation (order of fibers, latencies, ids, what happens)
 * throws its own dice, so that one more throw here changes nothing there.
 */

export interface Dice {
  /** 0 up to, not including, 1. */
  readonly next: () => number
  /** A whole number from 0 up to, not including, `n`. */
  readonly int: (n: number) => number
  /** A whole number from `min` to `max`, both included. */
  readonly between: (min: number, max: number) => number
  readonly chance: (share: number) => boolean
  readonly pick: <A>(list: ReadonlyArray<A>) => A
}

/** Four words of state from a text (FNV-1a, with another start for each word). */
const stateOf = (seed: string): [number, number, number, number] => {
  const words = [0x811c9dc5, 0x9e3779b9, 0x85ebca6b, 0xc2b2ae35].map((start) => {
    let hash = start
    for (let i = 0; i < seed.length; i++) hash = Math.imul(hash ^ seed.charCodeAt(i), 0x01000193)
    return hash >>> 0
  })
  return words as [number, number, number, number]
}

/** The generator sfc32 (public domain, by Chris Doty-Humphrey). */
export const make = (seed: string): Dice => {
  let [a, b, c, d] = stateOf(seed)
  const next = () => {
    const t = (((a + b) | 0) + d) | 0
    d = (d + 1) | 0
    a = b ^ (b >>> 9)
    b = (c + (c << 3)) | 0
    c = ((c << 21) | (c >>> 11)) + t
    c |= 0
    return (t >>> 0) / 4294967296
  }
  for (let i = 0; i < 12; i++) next()
  const int = (n: number) => Math.floor(next() * n)
  return {
    next,
    int,
    between: (min, max) => min + int(max - min + 1),
    chance: (share) => next() < share,
    pick: (list) => list[int(list.length)]!
  }
}
