/**
 * What reading hosts of now and of the past promises, on whatever database: a registry with a past made by dice, compared
 * with snapshots that were taken as it came about.
 */
import { assert, describe } from "@effect/vitest"
import type { Vitest } from "@effect/vitest"
import { Effect, Layer, Option } from "effect"
import { SqlClient } from "effect/sql"
import type { DomainName } from "@prism-dns/core/domain/DomainName"
import * as Name from "@prism-dns/core/domain/DomainName"
import type { Host, HostState } from "@prism-dns/core/domain/Host"
import * as Zone from "@prism-dns/core/domain/Zone"
import { Differences } from "@prism-dns/core/registry/Differences"
import { HostHistory, type HostVersion } from "@prism-dns/core/registry/HostHistory"
import type { HostFilter, HostsFound } from "@prism-dns/core/registry/HostLists"
import { Registry } from "@prism-dns/core/registry/Registry"
import type { SqlError } from "effect/sql"
import * as T from "../layers.ts"

/** What of a host both its row and its history say. */
const essence = (host: Host | HostVersion) => ({
  id: host.id,
  fqdn: host.fqdn,
  zone: host.zone,
  addresses: host.addresses,
  labels: host.labels,
  ttlSeconds: host.ttlSeconds,
  owner: host.owner,
  isStatic: host.isStatic,
  state: host.state,
  generation: host.generation
})

/** The same numbers every time. */
const dice = (seed: number) => {
  let state = seed
  return (sides: number) => {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0
    return Math.floor((state / 2 ** 32) * sides)
  }
}

const lab = Zone.make(Name.make("lab.hosts.test"))
const ops = { name: "ops", peer: undefined }

interface Snapshot {
  readonly atMillis: number
  readonly hosts: ReadonlyArray<Host>
}

/** A registry's life, with what it was at each of its moments. */
const live = Effect.fnUntraced(function* (steps: number, stepMillis: number) {
  const registry = yield* Registry
  const time = yield* T.Time
  const roll = dice(7)
  const snapshots: Array<Snapshot> = []
  let nowMillis = 1_000_000
  for (let step = 0; step < steps; step++) {
    nowMillis += roll(3) * stepMillis
    yield* time.set(nowMillis)
    const n = roll(30)
    const zone = n % 3 === 0 ? lab.name : T.forward.name
    const fqdn = Name.make(`h${n}.${zone}`)
    const action = roll(10)
    if (action < 7) {
      yield* registry
        .register({
          ...T.registration(`h${n}`, `192.0.2.${roll(12)}`, roll(2) === 0 ? "fleet" : "racks"),
          fqdn,
          zone,
          ...(roll(2) === 0 && {
            labels: { role: roll(2) === 0 ? "web" : "db", ...(roll(3) === 0 && { 'odd"': 'a","role":"web' }) }
          })
        })
        .pipe(Effect.catchTag("HostnameTaken", () => Effect.void))
    } else if (action < 9) {
      yield* Effect.ignore(registry.retire(fqdn, ops, "dice"))
    } else {
      yield* Effect.ignore(registry.release(fqdn, ops, "dice"))
    }
    // What changes again at the same moment was never so for long enough to be seen.
    if (snapshots.at(-1)?.atMillis === nowMillis) snapshots.pop()
    snapshots.push({ atMillis: nowMillis, hosts: yield* registry.list({ limit: 1000 }) })
  }
  return snapshots
})

const filters: ReadonlyArray<Omit<HostFilter, "limit">> = [
  {},
  { zone: T.forward.name },
  { zone: lab.name, state: "online" },
  { state: "retired" },
  { state: "online", prefix: "h1" },
  { address: T.addressOf(3) },
  { address: T.addressOf(4), state: "online", zone: lab.name },
  { labels: [["role", "web"]] },
  { labels: [["role", "db"]], state: "retired" },
  { labels: [["role", "web"]], address: T.addressOf(5) },
  {
    labels: [
      ["role", "db"],
      ['odd"', 'a","role":"web']
    ]
  },
  { labels: [["role", "web"]], zone: lab.name, prefix: "h2" },
  { zones: [lab.name] },
  { zones: [lab.name, T.forward.name], state: "online" },
  { zones: [lab.name], zone: T.forward.name },
  { zones: [], labels: [["role", "web"]] },
  { zones: [lab.name, T.forward.name], labels: [["role", "web"]] },
  { has: ({ name }) => name.startsWith("h1") },
  { has: ({ name }) => name.startsWith("h2"), labels: [["role", "web"]] }
]

const fits =
  (filter: Omit<HostFilter, "limit">) =>
  (host: Host): boolean =>
    (filter.zone === undefined || host.zone === filter.zone) &&
    (filter.zones === undefined || filter.zones.includes(host.zone)) &&
    (filter.state === undefined || host.state === filter.state) &&
    (filter.address === undefined || host.addresses.includes(filter.address)) &&
    (filter.labels ?? []).every(([key, value]) => host.labels[key] === value) &&
    (filter.prefix === undefined || host.fqdn.startsWith(filter.prefix)) &&
    (filter.has === undefined || filter.has({ zone: host.zone, name: host.fqdn }))

/** All pages of a list, `size` at a time. */
const all = Effect.fnUntraced(function* <A extends Host | HostVersion>(
  read: (page: {
    readonly after?: DomainName
    readonly limit: number
  }) => Effect.Effect<HostsFound<A>, SqlError.SqlError>,
  size: number
) {
  const hosts: Array<A> = []
  for (let after: DomainName | undefined; ;) {
    const page: HostsFound<A> = yield* read({ limit: size, ...(after !== undefined && { after }) })
    assert.isAtMost(page.hosts.length, size)
    hosts.push(...page.hosts)
    if (page.next === undefined) return hosts
    after = page.next
  }
})

export const suite = <R>(
  name: string,
  it: Pick<Vitest.MethodsNonLive<R>, "effect">,
  database: Layer.Layer<SqlClient.SqlClient, never, R>,
  stepMillis = 500
) => {
  type Services = Registry | HostHistory | Differences | SqlClient.SqlClient | T.Time

  const test = <E>(name: string, body: Effect.Effect<void, E, Services>) =>
    it.effect(name, () =>
      T.withTime(
        "still",
        Effect.provide(
          body,
          Layer.merge(
            T.registry({ damping: { ...T.soonDamped, suppressAt: 1e9 } }, [...T.zones, lab]),
            Layer.merge(HostHistory.layer, Differences.layer)
          ).pipe(Layer.provideMerge(Layer.fresh(database)))
        )
      )
    )

  describe(name, () => {
    test(
      "any list by any filters is as it was at the time, page by page",
      Effect.gen(function* () {
        const registry = yield* Registry
        const history = yield* HostHistory
        const snapshots = yield* live(250, stepMillis)
        const last = snapshots.at(-1)!
        assert.isAbove(last.hosts.length, 15)
        for (const [i, filter] of filters.entries()) {
          const present = yield* all((page) => registry.page({ ...filter, ...page }), 1 + (i % 7))
          assert.deepStrictEqual(present, last.hosts.filter(fits(filter)), JSON.stringify(filter))
          for (const { atMillis, hosts } of snapshots.filter((_, each) => each % 5 === i % 5)) {
            const past = yield* all((page) => history.list({ ...filter, ...page }, atMillis), 3 + (i % 20))
            assert.deepStrictEqual(
              past.map(essence),
              hosts.filter(fits(filter)).map(essence),
              `${JSON.stringify(filter)} ${atMillis}`
            )
          }
        }
        assert.deepStrictEqual(yield* history.list({ limit: 10 }, snapshots[0]!.atMillis - 1), {
          hosts: [],
          next: undefined
        })
      })
    )

    test(
      "one host is as it was at the time, by its id and by its name, which another may have had",
      Effect.gen(function* () {
        const history = yield* HostHistory
        const snapshots = yield* live(250, stepMillis)
        const states = new Set<HostState | "none">()
        for (const { atMillis, hosts } of snapshots) {
          for (const n of [0, 1, 2]) {
            const fqdn = Name.make(`h${n}.${n % 3 === 0 ? lab.name : T.forward.name}`)
            const host = hosts.find((each) => each.fqdn === fqdn)
            const found = yield* history.find({ _tag: "Name", fqdn }, atMillis)
            const there = Option.filter(found, ({ event }) => event !== "released")
            assert.deepStrictEqual(Option.getOrUndefined(Option.map(there, essence)), host && essence(host))
            states.add(host?.state ?? "none")
            if (host === undefined) continue
            const byId = yield* history.find({ _tag: "Id", id: host.id }, atMillis)
            assert.deepStrictEqual(Option.map(byId, essence), Option.some(essence(host)))
          }
        }
        assert.sameMembers([...states], ["online", "retired", "none"])
      })
    )

    test(
      "versions come the newest first, page by page, and each begins where the one before ends",
      Effect.gen(function* () {
        const history = yield* HostHistory
        yield* live(250, stepMillis)
        const reference = { _tag: "Name", fqdn: Name.make(`h3.${lab.name}`) } as const
        const whole = yield* history.versions(reference, { limit: 1000 })
        assert.isAbove(whole.length, 5)
        const paged: typeof whole = []
        for (;;) {
          const page: typeof whole = yield* history.versions(reference, { limit: 2, before: paged.at(-1)?.place })
          ;(paged as Array<(typeof whole)[number]>).push(...page)
          if (page.length < 2) break
        }
        assert.deepStrictEqual(paged, whole)
        for (const [i, version] of whole.entries()) {
          const earlier = whole[i + 1]
          if (earlier === undefined || earlier.event === "released") assert.strictEqual(version.event, "created")
          else assert.strictEqual(earlier.toMillis, version.fromMillis)
        }
      })
    )

    test(
      "what differs between two times is what the lists of both times say, page by page",
      Effect.gen(function* () {
        const differences = yield* Differences
        const snapshots = yield* live(250, stepMillis)
        for (const [i, { atMillis, hosts }] of snapshots.entries()) {
          const earlier = snapshots[Math.floor(i / 3)]!
          const filter = {
            fromMillis: earlier.atMillis,
            toMillis: atMillis,
            zone: i % 2 === 0 ? undefined : lab.name,
            prefix: i % 5 === 0 ? "h1" : undefined,
            limit: 1 + (i % 4)
          }
          const found: Array<string> = []
          for (let after: DomainName | undefined; ;) {
            const page: Effect.Success<ReturnType<typeof differences.hosts>> = yield* differences.hosts(filter, after)
            for (const { after, before } of page.items)
              found.push(`${(after ?? before)!.fqdn} ${before?.state} ${after?.state}`)
            if (page.next === undefined) break
            after = page.next
          }
          const of = (some: ReadonlyArray<Host>, fqdn: DomainName) => some.find((each) => each.fqdn === fqdn)
          const names = [...new Set([...earlier.hosts, ...hosts].map(({ fqdn }) => fqdn))].sort()
          const expected = names.flatMap((fqdn) => {
            const before = of(earlier.hosts, fqdn)
            const after = of(hosts, fqdn)
            const isSame =
              before !== undefined &&
              after !== undefined &&
              JSON.stringify({ ...essence(before), generation: 0 }) ===
                JSON.stringify({ ...essence(after), generation: 0 })
            const isWanted =
              (filter.zone === undefined || (after ?? before)!.zone === filter.zone) &&
              (filter.prefix === undefined || fqdn.startsWith(filter.prefix))
            return isSame || !isWanted ? [] : [`${fqdn} ${before?.state} ${after?.state}`]
          })
          assert.deepStrictEqual(found, expected, JSON.stringify(filter))
        }
      })
    )

    test(
      "a list that few of many names fit goes on from where it looked last, and misses nothing",
      Effect.gen(function* () {
        const registry = yield* Registry
        const history = yield* HostHistory
        const sql = yield* SqlClient.SqlClient
        const names = Array.from({ length: 12_000 }, (_, i) => `n${String(i).padStart(5, "0")}`)
        yield* Effect.forEach(
          names,
          (name, i) =>
            registry.register({
              ...T.registration(name, "192.0.2.1", "fleet"),
              labels: { role: i % 5000 === 4999 ? "rare" : "web", all: "yes" }
            }),
          { concurrency: "unbounded", discard: true }
        )
        yield* sql`UPDATE host SET owner = 'moved'`
        const seen: Array<string> = []
        const lengths: Array<number> = []
        // Both labels stand in an index, and the other filter in none.
        for (let after: DomainName | undefined; ;) {
          const page: HostsFound<Host> = yield* registry.page({
            labels: [["all", "yes"]],
            zones: Array.from({ length: 70 }, (_, i) => Name.make(`z${i}.test`)),
            limit: 10,
            after: after ?? T.nameOf("n00010")
          })
          seen.push(...page.hosts.map(({ fqdn }) => fqdn))
          lengths.push(page.hosts.length)
          if (page.next === undefined) break
          after = page.next
        }
        assert.deepStrictEqual(seen, [])
        assert.deepStrictEqual(
          lengths,
          Array.from({ length: 12 }, () => 0)
        )
        const rare = yield* all(
          (page) =>
            registry.page({
              labels: [
                ["role", "rare"],
                ["all", "yes"]
              ],
              ...page
            }),
          1
        )
        assert.deepStrictEqual(
          rare.map(({ hostname }) => String(hostname)),
          ["n04999", "n09999"]
        )
        const retired = yield* history.list({ state: "retired", limit: 10 }, 2_000_000)
        assert.strictEqual(retired.hosts.length, 0)
        assert.strictEqual(retired.next, T.nameOf("n00999"))
        const past = yield* all((page) => history.list({ zone: T.forward.name, ...page }, 2_000_000), 1000)
        assert.strictEqual(past.length, 12_000)
      })
    )
  })
}
