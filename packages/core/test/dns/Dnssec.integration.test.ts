/** A signed zone through 500 changes, judged by `delv` with no trust but the zone's own key. */
import { assert, describe, it } from "@effect/vitest"
import { Duration, Effect, Layer } from "effect"
import { SqlClient } from "effect/sql"
import * as ChildProcess from "node:child_process"
import * as Fs from "node:fs"
import { promisify } from "node:util"
import { Outbox } from "@prism-dns/core/dns/Outbox"
import { Provisioner } from "@prism-dns/core/dns/Provisioner"
import type { DomainName } from "@prism-dns/core/domain/DomainName"
import * as Names from "@prism-dns/core/domain/DomainName"
import * as Zone from "@prism-dns/core/domain/Zone"
import { Registry } from "@prism-dns/core/registry/Registry"
import * as Generation from "@prism-dns/core/storage/Generation"
import * as PowerDns from "../harness/PowerDns.ts"
import { waitUntil } from "../harness/waitUntil.ts"
import * as T from "../layers.ts"

const zone = Zone.make(Names.make("signed.test"), {
  dnssec: true,
  policy: { deleteBudget: { share: 1, min: 1000, window: Duration.hours(1) } }
})

const execFile = promisify(ChildProcess.execFile)

/** The same numbers in each run. */
const random = (seed: number) => () => {
  seed = (Math.imul(seed, 1_664_525) + 1_013_904_223) >>> 0
  return seed / 2 ** 32
}

/** Names of one, two and three labels; some stand above others. */
const pool: ReadonlyArray<string> = [
  ...Array.from({ length: 24 }, (_, i) => `h${i}`),
  ...Array.from({ length: 24 }, (_, i) => `h${i}.rack${i % 4}`),
  ...Array.from({ length: 24 }, (_, i) => `h${i}.row${i % 5}.dc${i % 2}`),
  "rack0",
  "row1.dc1",
  "dc0"
]

/** Names nobody has: beside, above and below those that exist. */
const strangers = ["nobody", "nobody.rack1", "nobody.row2.dc0", "below.h1", "deep.below.h2.rack2", "zz", "aa.dc1"]

describe("a signed zone", () => {
  it.live(
    "after 500 random changes has every name, every absence and every empty non-terminal validated",
    () =>
      Effect.gen(function* () {
        const sql = yield* SqlClient.SqlClient
        const registry = yield* Registry
        const outbox = yield* Outbox
        const { dns } = yield* PowerDns.TestPowerDns
        const next = random(7)
        const pick = <A>(list: ReadonlyArray<A>): A => list[Math.floor(next() * list.length)]!
        const nameOf = (hostname: string) => Names.make(`${hostname}.${zone.name}`)

        /** What each name should have: its addresses by type. */
        const expected = new Map<DomainName, { readonly a?: string; readonly aaaa?: string }>()
        for (let i = 0; i < 500; i++) {
          const hostname = pick(pool)
          const name = nameOf(hostname)
          if (next() < 0.7 || !expected.has(name)) {
            const a = next() < 0.7 ? `192.0.2.${1 + Math.floor(next() * 250)}` : undefined
            const aaaa = a === undefined || next() < 0.3 ? `2001:db8::${1 + Math.floor(next() * 250)}` : undefined
            yield* registry.register({
              ...T.registration(
                "unused",
                [a, aaaa].filter((each) => each !== undefined)
              ),
              fqdn: name,
              zone: zone.name
            })
            expected.set(name, { ...(a !== undefined && { a }), ...(aaaa !== undefined && { aaaa }) })
          } else {
            yield* sql`UPDATE host SET state = 'offline', offline_since = 1, withdrawn_since = 1 WHERE fqdn = ${name}`
            // by somebody's word it is deleted, by conclusion it is disabled
            const cause = next() < 0.5 ? "released" : "withdrawn"
            yield* outbox.mark([{ zone: zone.name, name }], yield* Generation.next(sql), 1, cause)
            yield* outbox.wake([zone.name])
            expected.delete(name)
          }
        }
        yield* waitUntil("all is published", outbox.list({ limit: 10 }), (marks) => marks.length === 0, {
          within: "30 seconds"
        })

        const provisioner = yield* Provisioner
        const { keys } = yield* provisioner.dnssec(zone.name)
        const [flags, protocol, algorithm, ...key] = keys[0]!.dnskey.split(" ")
        const anchors = `${yield* PowerDns.temporaryFolder("prism-delv-")}/anchors`
        Fs.writeFileSync(
          anchors,
          `trust-anchors { ${zone.name} static-key ${flags} ${protocol} ${algorithm} "${key.join("")}"; };\n`
        )
        const delv = (name: string, type: string) =>
          Effect.promise(async () => {
            const { stderr, stdout } = await execFile("delv", [
              `@${dns.host}`,
              "-p",
              `${dns.port}`,
              "-a",
              anchors,
              `+root=${zone.name}`,
              name,
              type
            ])
            return `${stdout}${stderr}`
          })

        const nonTerminals = new Set<DomainName>()
        for (const name of expected.keys()) {
          const labels = name.slice(0, -zone.name.length - 1).split(".")
          for (let i = 1; i < labels.length; i++) {
            const above = nameOf(labels.slice(i).join("."))
            if (!expected.has(above)) nonTerminals.add(above)
          }
        }
        assert.isAtLeast(expected.size, 30)
        assert.isAtLeast(nonTerminals.size, 5)

        const checks: Array<readonly [name: string, type: string, validated: string, what: RegExp]> = []
        const noData = /ncache nxrrset/
        const noName = /ncache nxdomain/
        for (const name of [...pool, ...strangers].map(nameOf)) {
          const records = expected.get(name)
          if (records === undefined && !nonTerminals.has(name)) {
            checks.push([name, "A", "negative response, fully validated", noName])
            continue
          }
          for (const type of ["A", "AAAA"] as const) {
            const content = type === "A" ? records?.a : records?.aaaa
            if (content === undefined) checks.push([name, type, "negative response, fully validated", noData])
            else checks.push([name, type, "; fully validated", new RegExp(`IN\\s+${type}\\s+${content}\\s`)])
          }
        }
        for (const name of nonTerminals) checks.push([name, "MX", "negative response, fully validated", noData])

        yield* Effect.forEach(
          checks,
          Effect.fnUntraced(function* ([name, type, validated, what]) {
            const answer = yield* delv(name, type)
            assert.include(answer, validated, `${name} ${type}`)
            assert.match(answer, what, `${name} ${type}`)
          }),
          { concurrency: 4, discard: true }
        )
      }).pipe(
        Effect.scoped,
        Effect.provide(
          T.publisher({ pollMillis: 100 }, [zone]).pipe(
            Layer.provideMerge(T.sqlite()),
            Layer.provideMerge(PowerDns.layer("sqlite"))
          )
        )
      ),
    60_000
  )
})
