import { assert, describe, it } from "@effect/vitest"
import * as Schedule from "./Schedule.ts"

const parts: Schedule.Parts = {
  servers: ["prism-1", "prism-2", "prism-3"],
  names: ["ns1", "ns2", "ns3"],
  redis: true,
  canCut: true
}
const millis = 15_000
const all = Array.from({ length: 1000 }, (_, seed) => Schedule.generate(seed, millis, parts))

describe("schedules of faults", () => {
  it("are the same for the same seed, and others for others", () => {
    assert.deepStrictEqual(Schedule.generate(7, millis, parts), all[7])
    assert.isAbove(new Set(all.map(({ steps }) => JSON.stringify(steps))).size, 990)
  })

  it("have at least one fault, one at a time for each part, and are over when their time is", () => {
    for (const { steps } of all) {
      assert.isAbove(steps.length, 0)
      for (const [i, { atMillis, fault, forMillis }] of steps.entries()) {
        assert.isAtLeast(atMillis, 0)
        assert.isAtMost(atMillis + forMillis, millis)
        for (const other of steps.slice(i + 1)) {
          assert.isAtLeast(other.atMillis, atMillis)
          if (other.fault.part === fault.part) assert.isAbove(other.atMillis, atMillis + forMillis)
        }
      }
    }
  })

  it("bring up every fault of every part, and two at once often", () => {
    const seen = new Set(all.flatMap(({ steps }) => steps.map(({ fault }) => `${fault.kind} ${fault.part}`)))
    for (const server of parts.servers) {
      for (const kind of ["kill", "stop", "freeze", "cut", "clock"]) assert.include(seen, `${kind} ${server}`)
    }
    for (const name of parts.names) for (const kind of ["kill", "freeze"]) assert.include(seen, `${kind} ${name}`)
    for (const part of ["postgres", "haproxy", "redis"]) assert.include(seen, `kill ${part}`)
    const together = all.filter(({ steps }) =>
      steps.some(({ atMillis }, i) => i > 0 && atMillis < steps[i - 1]!.atMillis + steps[i - 1]!.forMillis)
    )
    assert.isAbove(together.length, 500)
  })

  it("cut nothing where nothing can be cut, and leave a Redis alone that is not there", () => {
    for (let seed = 0; seed < 300; seed++) {
      const { steps } = Schedule.generate(seed, millis, { ...parts, canCut: false, redis: false })
      for (const { fault } of steps) {
        assert.notStrictEqual(fault.kind, "cut")
        assert.notStrictEqual(fault.part, "redis")
      }
    }
  })

  it("become smaller by steps left out, down to each of them alone", () => {
    for (const schedule of all.slice(0, 100)) {
      for (const smaller of Schedule.smaller(schedule)) {
        assert.isBelow(smaller.steps.length, schedule.steps.length)
        assert.isAbove(smaller.steps.length, 0)
        for (const step of smaller.steps) assert.include(schedule.steps, step)
      }
      const ones = new Set<Schedule.Step>()
      const visit = (one: Schedule.Schedule, depth: number): void => {
        if (one.steps.length === 1) ones.add(one.steps[0]!)
        else if (depth < 4) for (const each of Schedule.smaller(one).slice(0, 4)) visit(each, depth + 1)
      }
      if (schedule.steps.length <= 3) {
        visit(schedule, 0)
        assert.strictEqual(ones.size, schedule.steps.length)
      }
    }
  })
})
