/** Counts what becomes of registrations, and measures how long they take to each level, for both protocols. */
import { Effect, Metric } from "effect"
import * as TcpMetrics from "./TcpMetrics.ts"

export const make = Effect.map(Effect.context(), (context) => {
  const results = memoize((result) => Metric.withAttributes(TcpMetrics.registrations, { result }))
  const levels = memoize((level) => Metric.withAttributes(TcpMetrics.registrationDuration, { level }))
  return {
    count: (result: string) => results(result).updateUnsafe(1, context),
    reached: (level: string, millis: number) => levels(level).updateUnsafe(millis / 1000, context)
  }
})

const memoize = <A>(f: (key: string) => A): ((key: string) => A) => {
  const known = new Map<string, A>()
  return (key) => {
    const value = known.get(key) ?? f(key)
    known.set(key, value)
    return value
  }
}
