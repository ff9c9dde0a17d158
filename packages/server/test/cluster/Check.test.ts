/** The checker finds what is wrong: histories that were broken on purpose, one thing at a time. */
import { assert, describe, it } from "@effect/vitest"
import { check, type Rule, rules } from "./Check.ts"
import type { EndState, History, HostRow, Request, VersionRow } from "./History.ts"

const leaseMillis = 16_000
const host = "a-1.z1.prism.test"
const other = "a-2.z1.prism.test"

interface World {
  readonly history: { -readonly [K in keyof History]: Array<History[K][number]> }
  readonly end: { -readonly [K in keyof EndState]: Array<EndState[K][number]> }
}

const request = (
  askedMillis: number,
  addresses: ReadonlyArray<string>,
  generation: number | undefined,
  more: Partial<Request> = {}
): Request => ({
  host,
  kind: addresses.length === 0 ? "release" : "register",
  addresses,
  protocol: 2,
  instance: "prism-1",
  askedMillis,
  told:
    generation === undefined
      ? []
      : (["accepted", "applied", "served"] as const).map((level, i) => ({
          level,
          atMillis: askedMillis + 10 * (i + 1),
          generation,
          outcome: level === "accepted" ? "changed" : undefined
        })),
  refused: undefined,
  lostMillis: generation === undefined ? askedMillis + 5 : undefined,
  ...more
})

const version = (
  sequence: number,
  event: string,
  addresses: ReadonlyArray<string>,
  generation: number
): VersionRow => ({
  id: "1",
  host,
  sequence,
  event,
  addresses,
  state: event === "retired" ? "retired" : event === "offline" ? "offline" : "online",
  generation,
  isCurrent: false
})

/** A host that registered, moved, and was released and came back; another that registered. All of it is as it should be. */
const world = (): World => {
  const one: HostRow = {
    id: "1",
    host,
    zone: "z1.prism.test",
    addresses: ["10.60.0.3"],
    state: "online",
    generation: 7
  }
  const two: HostRow = { ...one, id: "2", host: other, addresses: ["10.60.1.1"], generation: 2 }
  const versions = [
    version(1, "created", ["10.60.0.1"], 1),
    { ...version(2, "created", two.addresses, 2), id: "2", host: other, isCurrent: true },
    version(3, "changed", ["10.60.0.2"], 3),
    version(4, "retired", ["10.60.0.2"], 5),
    { ...version(5, "returned", ["10.60.0.3"], 7), isCurrent: true }
  ]
  const served = () => ({
    node: "ns1",
    forward: new Map([one, two].map(({ addresses, host }) => [host, addresses])),
    reverse: new Map([one, two].map(({ addresses, host }) => [addresses[0]!, [host]]))
  })
  return {
    history: {
      requests: [
        request(0, ["10.60.0.1"], 1),
        { ...request(0, two.addresses, 2), host: other },
        request(1000, ["10.60.0.2"], 3),
        request(2000, [], 5),
        request(3000, ["10.60.0.3"], 7)
      ],
      away: [{ host, fromMillis: 1500, toMillis: 1900, why: "it was closed" }],
      polls: [
        { node: "ns1", host, askedMillis: 500, toldMillis: 501, addresses: ["10.60.0.1"] },
        { node: "ns1", host, askedMillis: 1005, toldMillis: 1006, addresses: ["10.60.0.1"] },
        { node: "ns1", host, askedMillis: 1006, toldMillis: 1007, addresses: ["10.60.0.2"] },
        { node: "ns1", host, askedMillis: 2500, toldMillis: 2501, addresses: [] },
        { node: "ns1", host, askedMillis: 3500, toldMillis: 3501, addresses: undefined }
      ],
      writes: [
        { server: "prism-1", node: "ns1", zone: "z1.prism.test", fromMillis: 10, toMillis: 20, status: 204 },
        { server: "prism-2", node: "ns1", zone: "60.10.in-addr.arpa", fromMillis: 15, toMillis: 25, status: 204 },
        { server: "prism-2", node: "ns2", zone: "z1.prism.test", fromMillis: 20, toMillis: 30, status: 204 }
      ]
    },
    end: {
      hosts: [one, two],
      versions,
      audit: versions.map(({ event, generation, host }) => ({ action: `host.${event}`, subject: host, generation })),
      chain: [],
      served: [served(), { ...served(), node: "ns2" }],
      doubled: []
    }
  }
}

const found = ({ end, history }: World): ReadonlyArray<Rule> => [
  ...new Set(check(history, end, { leaseMillis }).map(({ rule }) => rule))
]

/** What was broken, and the rules that are to say so. */
const broken: ReadonlyArray<readonly [string, (world: World) => void, ReadonlyArray<Rule>]> = [
  [
    "an acknowledged registration that is not in the registry",
    ({ end }) => {
      end.hosts.pop()
      end.versions.splice(1, 1)
      end.audit.splice(1, 1)
      end.served = end.served.map(({ forward, node, reverse }) => ({
        node,
        forward: new Map([...forward].filter(([name]) => name !== other)),
        reverse: new Map([...reverse!].filter(([address]) => address !== "10.60.1.1"))
      }))
    },
    ["lost"]
  ],
  [
    "an acknowledged move that was undone",
    ({ end, history }) => {
      history.requests.splice(3, 2)
      history.polls.splice(2)
      end.versions.splice(2)
      end.audit.splice(2)
      end.versions[0] = { ...end.versions[0]!, isCurrent: true }
      end.hosts[0] = { ...end.hosts[0]!, addresses: ["10.60.0.1"], generation: 1 }
      end.served = end.served.map((each) => ({
        ...each,
        forward: new Map([...each.forward, [host, ["10.60.0.1"]]]),
        reverse: undefined
      }))
    },
    ["lost"]
  ],
  [
    "a version that has other addresses than were acknowledged with its generation",
    ({ end }) => {
      end.versions[2] = { ...end.versions[2]!, addresses: ["10.60.0.9"] }
    },
    ["lost"]
  ],
  [
    "a released host that is back by itself",
    ({ history }) => {
      history.requests.pop()
    },
    ["resurrected"]
  ],
  [
    "an older request that was carried out over a newer one",
    ({ end, history }) => {
      // The move to .2 had no answer, the one to .3 had; afterwards .2 is written.
      history.requests[2] = request(1000, ["10.60.0.2"], undefined)
      end.versions[4] = { ...end.versions[4]!, isCurrent: false }
      end.versions.push({ ...version(6, "changed", ["10.60.0.2"], 9), isCurrent: true })
      end.audit.push({ action: "host.changed", subject: host, generation: 9 })
      end.hosts[0] = { ...end.hosts[0]!, addresses: ["10.60.0.2"], generation: 9 }
      end.served = end.served.map((each) => ({
        ...each,
        forward: new Map([...each.forward, [host, ["10.60.0.2"]]]),
        reverse: undefined
      }))
    },
    ["overtaken"]
  ],
  [
    "a host that expired though it was away for a moment only",
    ({ end }) => {
      end.versions.splice(2, 0, version(2.5, "offline", ["10.60.0.1"], 2.5))
      end.audit.push({ action: "host.offline", subject: host, generation: 2.5 })
    },
    ["expired"]
  ],
  [
    "a name that did not resolve for a moment",
    ({ history }) => {
      history.polls.push({ node: "ns2", host, askedMillis: 1200, toldMillis: 1201, addresses: [] })
    },
    ["withdrawn"]
  ],
  [
    "a name that resolved to what it had before",
    ({ history }) => {
      history.polls.push({ node: "ns2", host, askedMillis: 1200, toldMillis: 1201, addresses: ["10.60.0.1"] })
    },
    ["stale"]
  ],
  [
    "a name that resolved to an address nobody asked for",
    ({ history }) => {
      history.polls.push({ node: "ns2", host, askedMillis: 1200, toldMillis: 1201, addresses: ["10.60.9.9"] })
    },
    ["withdrawn"]
  ],
  [
    "a name that resolved to two of its addresses at once",
    ({ history }) => {
      history.polls.push({
        node: "ns2",
        host,
        askedMillis: 1200,
        toldMillis: 1201,
        addresses: ["10.60.0.1", "10.60.0.2"]
      })
    },
    ["withdrawn"]
  ],
  [
    "a host that is in the registry twice",
    ({ end }) => end.hosts.push({ ...end.hosts[1]!, id: "3" }),
    ["doubled", "diverged"]
  ],
  [
    "two hosts with one address",
    ({ end }) => {
      end.hosts[1] = { ...end.hosts[1]!, addresses: ["10.60.0.3"] }
      end.versions[1] = { ...end.versions[1]!, addresses: ["10.60.0.3"] }
    },
    ["doubled", "diverged", "lost"]
  ],
  [
    "a record that stands twice in PowerDNS's database",
    ({ end }) => end.doubled.push("a-1.z1.prism.test|A|10.60.0.3|2"),
    ["doubled"]
  ],
  [
    "a name that is answered with one address twice",
    ({ end }) => {
      end.served[0] = {
        ...end.served[0]!,
        forward: new Map([...end.served[0]!.forward, [host, ["10.60.0.3", "10.60.0.3"]]])
      }
    },
    ["doubled"]
  ],
  [
    "a name that one node still has though nobody has it",
    ({ end }) => {
      end.served[1] = {
        ...end.served[1]!,
        forward: new Map([...end.served[1]!.forward, ["a-9.z1.prism.test", ["10.60.9.9"]]])
      }
    },
    ["diverged"]
  ],
  [
    "an address that still has a name",
    ({ end }) => {
      end.served[1] = { ...end.served[1]!, reverse: new Map([...end.served[1]!.reverse!, ["10.60.0.2", [host]]]) }
    },
    ["diverged"]
  ],
  ["an audit entry that is missing", ({ end }) => end.audit.splice(2, 1), ["unaudited"]],
  ["an audit entry that is there twice", ({ end }) => end.audit.push(end.audit[2]!), ["overaudited"]],
  [
    "an audit entry for what never happened",
    ({ end }) => end.audit.push({ action: "host.changed", subject: host, generation: 99 }),
    ["overaudited"]
  ],
  ["a chain that does not hold", ({ end }) => end.chain.push("an entry was changed"), ["unsealed"]],
  [
    "two writers of one zone at once, at two nodes",
    ({ history }) => {
      history.writes[2] = { ...history.writes[2]!, fromMillis: 19.5 }
    },
    ["two-writers"]
  ],
  [
    "a row that is behind its history",
    ({ end }) => {
      end.hosts[0] = { ...end.hosts[0]!, generation: 3 }
    },
    ["lost"]
  ]
]

describe("the checker of histories", () => {
  it("has nothing to say of one in which all is well", () => {
    const { end, history } = world()
    assert.deepStrictEqual(check(history, end, { leaseMillis }), [])
  })

  for (const [what, spoil, expected] of broken) {
    it(`finds ${what}`, () => {
      const spoilt = world()
      spoil(spoilt)
      assert.sameMembers([...found(spoilt)], [...expected])
    })
  }

  it("can find what each of its rules is about", () => {
    assert.sameMembers([...new Set(broken.flatMap(([, , rules]) => rules))], [...rules])
  })

  it("does not hold an unanswered request against anybody, carried out or not", () => {
    const undone = world()
    undone.history.requests.push(request(4000, ["10.60.0.4"], undefined))
    assert.deepStrictEqual([...found(undone)], [])
    const done = world()
    done.history.requests[4] = request(3000, ["10.60.0.3"], undefined)
    assert.deepStrictEqual([...found(done)], [])
  })

  it("takes a host that was away for longer than its lease for gone", () => {
    const gone = world()
    gone.history.away.push({ host, fromMillis: 3100, toMillis: undefined, why: "it was closed" })
    gone.history.polls.push({ node: "ns1", host, askedMillis: 25_000, toldMillis: 25_001, addresses: [] })
    gone.end.versions[4] = { ...gone.end.versions[4]!, isCurrent: false }
    gone.end.versions.push({ ...version(6, "offline", ["10.60.0.3"], 8), isCurrent: true })
    gone.end.audit.push({ action: "host.offline", subject: host, generation: 8 })
    gone.end.hosts[0] = { ...gone.end.hosts[0]!, state: "offline", generation: 8 }
    gone.end.served = gone.end.served.map(({ forward, node, reverse }) => ({
      node,
      forward: new Map([...forward].filter(([name]) => name !== host)),
      reverse: new Map([...reverse!].filter(([address]) => address !== "10.60.0.3"))
    }))
    assert.deepStrictEqual([...found(gone)], [])
  })
})
