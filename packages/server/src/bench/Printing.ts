/** Figures in words, the same on a terminal and on the page. */
import type { Figure, Target } from "./Benchmark.ts"

export const number = (value: number): string =>
  Math.abs(value) >= 1000 ? Math.round(value).toLocaleString("en-US") : String(Number(value.toPrecision(4)))

export const units: Readonly<Record<Figure["unit"], string>> = { s: "s", "1": "", "1/s": "/s", us: "µs", B: "B" }

/** A range where there were several rounds, or nothing. */
export const range = ({ max, min }: Figure): string =>
  min === undefined || max === undefined ? "" : `${number(min)} to ${number(max)}`

/** What was wanted of a target, and whether it was met. */
export const verdict = (target: Target | undefined): string =>
  target === undefined
    ? ""
    : `want ${target.atLeast === true ? "at least" : "below"} ${number(target.want)}: ${target.met ? "met" : "NOT MET"}`
