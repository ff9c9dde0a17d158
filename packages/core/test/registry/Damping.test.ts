import { assert, describe, it } from "@effect/vitest"
import type { DomainName } from "@prism-dns/core/domain/DomainName"
import * as Damping from "@prism-dns/core/registry/Damping"
import * as T from "../layers.ts"

const options = Damping.defaultOptions

/** One name as claims come in, and whether each was written. */
const name = () => {
  let flapping: Damping.Flapping | undefined
  let held = 1
  return {
    claim: (n: number, atSeconds: number): "written" | "refused" => {
      if (n === held) return "written"
      flapping = Damping.claim(
        flapping,
        T.forward.name,
        [T.addressOf(held)],
        [T.addressOf(n)],
        atSeconds * 1000,
        options
      )
      if (flapping.suppressed) return "refused"
      held = n
      return "written"
    },
    flapping: () => flapping!
  }
}

describe("damping", () => {
  it("stops a name that two machines claim in turn each half minute, for as long as they go on", () => {
    const web = name()
    const results: Array<string> = []
    for (let i = 0; i < 240; i++) results.push(web.claim(i % 2 === 0 ? 2 : 1, 30 * (i + 1)))
    const first = results.indexOf("refused")
    assert.isAbove(first, 20)
    assert.isBelow(first, 40)
    // From then on the name stays: its own machine's beats are no change, the other's are refused.
    assert.isFalse(results.slice(first).some((result, i) => result === "written" && i % 2 === 0))
  })

  it("ends within its time after the last claim, and exactly when it said", () => {
    const web = name()
    for (let i = 0; i < 240; i++) web.claim(i % 2 === 0 ? 2 : 1, 30 * (i + 1))
    const until = Damping.untilMillis(web.flapping(), options)
    const last = web.flapping().atMillis
    assert.isAtMost(until - last, options.suppressMillisMax)
    const names = Damping.make(options)
    names.set(new Map([[T.nameOf("web"), web.flapping()]]))
    assert.deepStrictEqual(names.sweep(until - 1000).ended, [])
    assert.deepStrictEqual([...names.suppressed().values()], [1])
    assert.deepStrictEqual(
      names.sweep(until + 1).ended.map((turned) => turned.name),
      [T.nameOf("web")]
    )
    assert.deepStrictEqual([...names.suppressed().values()], [0])
    assert.deepStrictEqual(names.sweep(until + 1).ended, [])
    assert.strictEqual(web.claim(web.flapping().had.length === 2 ? 2 : 3, until / 1000 + 1), "written")
  })

  it("never counts a host that moves to ever new addresses", () => {
    const web = name()
    for (let n = 2; n < 250; n++) assert.strictEqual(web.claim(n, n), "written")
    assert.strictEqual(web.flapping().penalty, 0)
    assert.isAtMost(web.flapping().had.length, options.addressesMax)
  })

  it("lets a host that moves to and fro now and then do so", () => {
    const web = name()
    for (let i = 0; i < 50; i++) assert.strictEqual(web.claim(i % 2 === 0 ? 2 : 1, 600 * i), "written")
  })

  it("leaves alone a host that speaks from one address and then from another, each minute", () => {
    const web = name()
    for (let i = 0; i < 1000; i++) assert.strictEqual(web.claim(i % 2 === 0 ? 2 : 1, 60 * i), "written")
  })

  it("takes a clock that goes back for no time at all", () => {
    const web = name()
    for (let i = 0; i < 30; i++) web.claim(i % 2 === 0 ? 2 : 1, 1000 - i)
    assert.isTrue(web.flapping().suppressed)
  })

  it("remembers so many names, the latest ones, and not for ever", () => {
    const names = Damping.make({ ...options, namesMax: 3 })
    const flapping = Damping.claim(undefined, T.forward.name, [T.addressOf(1)], [T.addressOf(2)], 0, options)
    const set = (hostname: string, suppressed: boolean) =>
      names.set(new Map<DomainName, Damping.Flapping>([[T.nameOf(hostname), { ...flapping, suppressed }]]))
    assert.strictEqual(set("a", true).started.length, 1)
    for (const hostname of ["b", "c"]) set(hostname, false)
    assert.strictEqual(set("d", false).ended[0]?.name, T.nameOf("a"))
    assert.strictEqual(names.size(), 3)
    assert.isUndefined(names.find(T.nameOf("a")))
    names.sweep(options.windowMillis + 1)
    assert.strictEqual(names.size(), 0)
  })
})
