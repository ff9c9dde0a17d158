/**
 * The whole way to names that resolve, for few and for many hosts, beside what
 * it cannot do without, and what one would use instead: one dynamic update for
 * each host and zone to BIND 9 and to Knot DNS, and one PATCH for each to
 * PowerDNS.
 *
 * Dynamic updates go over one kept socket for each zone, one after another and
 * with several in flight, of which the faster counts: hosts that come by
 * themselves do not wait for each other.
 */
import { Effect } from "effect"
import * as BareParts from "./BareParts.ts"
import {
  backendOf,
  below,
  type Benchmark,
  BenchFailed,
  type Figure,
  figure,
  median,
  type Options,
  type Target
} from "./Benchmark.ts"
import * as Bind from "./Bind.ts"
import * as Knot from "./Knot.ts"
import * as Registrations from "./registrations.ts"
import * as Rfc2136 from "./Rfc2136.ts"
import { progress, temporaryFolder } from "./Workspace.ts"

const sizesByDefault = [10_000, 100_000]
/** Hosts that updates and PATCHes are measured on at the most; for more it is calculated. */
const sampleMax = { updates: 20_000, patches: 1000 }
/** Updates of a zone without an answer. */
const inFlights = [1, 16] as const
const wanted = { parts: 1.5, instead: 0.5 }

const servers = { bind: Bind.start, knot: Knot.start } as const
type Name = keyof typeof servers

const updates = Effect.fnUntraced(function* (folder: string, name: Name, names: Registrations.Names, inFlight: number) {
  const { dns } = yield* servers[name](folder)
  return yield* Registrations.untilAllResolve(dns, names, Rfc2136.updateEach(dns, names, inFlight))
}, Effect.scoped)

const measure = Effect.fnUntraced(function* (folder: string, size: number, options: Options) {
  const backend = backendOf(options)
  const names = Registrations.namesOf(size)
  const say = (what: string, seconds: number) => progress(`${size} hosts: ${what} ${seconds.toFixed(2)} s`)
  const sub = (name: string) => Registrations.subfolder(folder, name)

  const whole = yield* Effect.scoped(Registrations.prism(sub("prism"), names, options))
  yield* say("Prism", whole.all)
  const connections = yield* Effect.scoped(Registrations.bareConnections(sub("bare"), size))
  const rows = yield* BareParts.insertRows(whole.registry, sub("rows"))
  const patches = yield* Effect.scoped(Registrations.barePatches(sub("patches"), names, backend))
  yield* say("bare parts", connections + rows + patches.written)
  const sample = Math.min(size, sampleMax.updates)
  const updated: Record<Name, Array<number>> = { bind: [], knot: [] }
  for (const name of ["bind", "knot"] as const) {
    for (const inFlight of inFlights) {
      const seconds = yield* updates(sub(`${name}-${inFlight}`), name, Registrations.first(names, sample), inFlight)
      yield* say(`${name}, updates of ${sample} hosts, ${inFlight} in flight,`, seconds)
      updated[name].push((seconds / sample) * size)
    }
  }
  const patchSample = Math.min(size, sampleMax.patches)
  const each = yield* Effect.scoped(
    Registrations.patchEach(sub("each"), Registrations.first(names, patchSample), backend)
  )
  yield* say(`a PATCH for each of ${patchSample}`, each)
  return {
    whole,
    connections,
    rows,
    patches: patches.written,
    parts: connections + rows + patches.written,
    ...updated,
    each: (each / patchSample) * size,
    sample,
    patchSample
  }
})

const run = Effect.fnUntraced(function* (options: Options) {
  const folder = yield* temporaryFolder
  const figures: Record<string, Figure> = {}
  const ratios: Record<string, number> = {}
  const targets: Record<string, Target> = {}
  for (const size of options.sizes ?? sizesByDefault) {
    const rounds = yield* Effect.forEach(
      Array.from({ length: options.rounds }, (_, i) => i + 1),
      (round) => measure(Registrations.subfolder(folder, `${size}-${round}`), size, options)
    )
    const [first] = rounds
    if (first === undefined) return yield* new BenchFailed({ detail: "no rounds" })
    type Round = typeof first
    const add = (name: string, unit: Figure["unit"], f: (round: Round) => number) =>
      (figures[`${name}_${size}`] = figure(unit, rounds.map(f)))
    add("prism", "s", ({ whole }) => whole.all)
    add("prism_hosts_per_second", "1/s", ({ whole }) => size / whole.all)
    add("prism_accepted", "s", ({ whole }) => whole.accepted)
    add("prism_applied", "s", ({ whole }) => whole.applied)
    add("prism_server_cpu_per_host", "us", ({ whole }) => (whole.serverCpu / size) * 1e6)
    add("prism_powerdns_cpu_per_host", "us", ({ whole }) => (whole.powerDnsCpu / size) * 1e6)
    add("bare_connections", "s", ({ connections }) => connections)
    add("bare_rows", "s", ({ rows }) => rows)
    add("bare_patches", "s", ({ patches }) => patches)
    add("bare_parts", "s", ({ parts }) => parts)
    const calculated = (sample: number) => (sample < size ? "_extrapolated" : "")
    for (const name of ["bind", "knot"] as const) {
      inFlights.forEach((inFlight, i) =>
        add(`${name}_updates_${inFlight}_in_flight${calculated(first.sample)}`, "s", (round) => round[name][i]!)
      )
    }
    add(`powerdns_patch_each${calculated(first.patchSample)}`, "s", ({ each }) => each)
    const ratio = (name: string, f: (round: Round) => number, want?: number) => {
      const value = median(rounds.map((round) => round.whole.all / f(round)))
      ratios[`${name}_${size}`] = value
      if (want !== undefined) targets[`${name}_${size}`] = below(want, value)
    }
    ratio("prism_over_bare_parts", ({ parts }) => parts, wanted.parts)
    ratio("prism_over_bind", ({ bind }) => Math.min(...bind), wanted.instead)
    ratio("prism_over_knot", ({ knot }) => Math.min(...knot), wanted.instead)
    ratio("prism_over_patch_each", ({ each }) => each)
  }
  return { figures, ratios, targets }
})

export const resolvable: Benchmark = {
  name: "resolvable",
  description: `${sizesByDefault.join(" and ")} hosts until all resolve, beside bare parts, dynamic updates to BIND 9 and Knot DNS, and one PATCH for each.`,
  backends: ["sqlite", "lmdb"],
  run
}
