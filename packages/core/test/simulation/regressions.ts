/**
 * Scenarios that once broke a rule, cut down to what matters and kept as
 * values: a seed would mean something else as soon as the generator changes.
 * The story of each stands in docs/internals/track-record.md.
 */
import type { Scenario, Settings } from "./Scenario.ts"

export interface Regression {
  /** What is right now, as a sentence. */
  readonly name: string
  readonly scenario: Scenario
}

const usual: Settings = {
  order: "fifo",
  preemption: 0,
  leaseMillis: 60000,
  beatMillis: 20000,
  sweepMillis: 20000,
  flushMillis: 20000,
  withdrawMillis: 90000,
  conflict: "take-over-if-expired",
  retireMillis: 86400000,
  holdMillis: 86400000,
  quarantineMillis: 0,
  budget: { min: 10, windowMillis: 300000 },
  massExpiryMin: 100,
  reconcileMillis: undefined,
  batchNamesMax: 500,
  doubtMillis: 15000,
  statementMillisMax: 0,
  lossShare: 0,
  powerdns: {
    nodes: ["p1"],
    backend: "lmdb",
    changesMax: 500,
    latencyMillisMax: 0,
    workMillisMax: 5,
    timeoutMillis: 10000
  }
}

export const regressions: ReadonlyArray<Regression> = [
  {
    name: "a write without an answer is doubted on after a restart",
    scenario: {
      seed: "63",
      settings: { ...usual, withdrawMillis: undefined, powerdns: { ...usual.powerdns, backend: "postgresql" } },
      agents: [
        { id: "h0/a", hostname: "h0", owner: "alice", addresses: ["192.0.2.147"] },
        { id: "h2/a", hostname: "h2", owner: "alice", addresses: ["192.0.2.113", "2001:db8::71"] }
      ],
      events: [
        { do: "on", agent: "h0/a", atMillis: 2913 },
        { do: "on", agent: "h2/a", atMillis: 4162 },
        { do: "powerdns slow", node: "p1", millis: 5000, byMillis: 14000, atMillis: 214491 },
        { do: "move", agent: "h0/a", addresses: ["2001:db8::8d"], atMillis: 214523 },
        { do: "restart", downMillis: 90000, atMillis: 234631 }
      ],
      endMillis: 294631
    }
  },
  {
    name: "a name at which only somebody else's record stood is not waited for to go",
    scenario: {
      seed: "407",
      settings: { ...usual, powerdns: { ...usual.powerdns, nodes: ["p1", "p2", "s1"] } },
      agents: [{ id: "h1/a", hostname: "h1", owner: "alice", addresses: ["192.0.2.5"] }],
      events: [
        { do: "foreign", hostname: "h1", atMillis: 48288 },
        { do: "on", agent: "h1/a", atMillis: 71611 },
        { do: "retire", hostname: "h1", atMillis: 121336 }
      ],
      endMillis: 181336
    }
  },
  {
    name: "deletions held back stand in a plan that a person can approve, also without quarantine",
    scenario: {
      seed: "held",
      settings: { ...usual, withdrawMillis: 0, budget: { min: 1, windowMillis: 300000 } },
      agents: [
        { id: "h0/a", hostname: "h0", owner: "alice", addresses: ["192.0.2.1"] },
        { id: "h1/a", hostname: "h1", owner: "alice", addresses: ["192.0.2.2"] },
        { id: "h2/a", hostname: "h2", owner: "alice", addresses: ["192.0.2.3"] }
      ],
      events: [
        { do: "on", agent: "h0/a", atMillis: 1000 },
        { do: "on", agent: "h1/a", atMillis: 1001 },
        { do: "on", agent: "h2/a", atMillis: 1002 },
        { do: "off", agent: "h0/a", atMillis: 5000 },
        { do: "off", agent: "h1/a", atMillis: 5000 }
      ],
      endMillis: 120000
    }
  },
  {
    name: "a name that keeps but a placeholder counts as deleted",
    scenario: {
      seed: "430",
      settings: { ...usual, budget: { min: 1, windowMillis: 300000 } },
      agents: [
        { id: "h0/b", hostname: "h0", owner: "bob", addresses: ["192.0.2.6"] },
        { id: "x.y.h1/a", hostname: "x.y.h1", owner: "alice", addresses: ["192.0.2.1"] },
        { id: "a.h0/a", hostname: "a.h0", owner: "alice", addresses: ["192.0.2.3"] }
      ],
      events: [
        { do: "on", agent: "h0/b", atMillis: 796 },
        { do: "on", agent: "x.y.h1/a", atMillis: 994 },
        { do: "on", agent: "a.h0/a", atMillis: 1684 },
        { do: "off", agent: "x.y.h1/a", atMillis: 6285 },
        { do: "off", agent: "h0/b", atMillis: 62000 }
      ],
      endMillis: 66285
    }
  },
  {
    name: "a deleted name is written once more without a person's word",
    scenario: {
      seed: "810",
      settings: {
        ...usual,
        order: "any",
        withdrawMillis: 0,
        conflict: "suffix",
        quarantineMillis: 60000,
        budget: { min: 1, windowMillis: 60000 },
        powerdns: { ...usual.powerdns, nodes: ["p1", "p2"], workMillisMax: 200 }
      },
      agents: [{ id: "h0/a", hostname: "h0", owner: "bob", addresses: ["192.0.2.31"] }],
      events: [
        { do: "on", agent: "h0/a", atMillis: 3305 },
        { do: "move", agent: "h0/a", addresses: ["192.0.2.34", "2001:db8::22"], atMillis: 12999 },
        { do: "move", agent: "h0/a", addresses: ["192.0.2.23"], atMillis: 70879 },
        { do: "powerdns down", node: "p1", millis: 5000, atMillis: 70924 }
      ],
      endMillis: 130924
    }
  },
  {
    name: "what was sent without an answer is undone when its name is deleted before it comes",
    scenario: {
      seed: "966",
      settings: {
        ...usual,
        order: "any",
        conflict: "suffix",
        holdMillis: 0,
        quarantineMillis: 60000,
        budget: { min: 10, windowMillis: 60000 },
        statementMillisMax: 5,
        withdrawMillis: undefined,
        powerdns: {
          ...usual.powerdns,
          nodes: ["p1", "p2", "s1"],
          backend: "sqlite",
          latencyMillisMax: 2,
          workMillisMax: 20
        }
      },
      agents: [
        { id: "h0/a", hostname: "h0", owner: "alice", addresses: ["192.0.2.41"] },
        { id: "h3/a", hostname: "h3", addresses: ["2001:db8::36"], owner: undefined },
        { id: "h3/b", hostname: "h3", addresses: ["192.0.2.55"], owner: undefined },
        { id: "h3/c", hostname: "h3", addresses: ["192.0.2.9"], owner: undefined }
      ],
      events: [
        { do: "on", agent: "h3/a", atMillis: 391 },
        { do: "on", agent: "h0/a", atMillis: 492 },
        { do: "on", agent: "h3/b", atMillis: 2102 },
        { do: "on", agent: "h3/c", atMillis: 3258 },
        { do: "move", agent: "h0/a", addresses: ["192.0.2.180"], atMillis: 17242 },
        { do: "move", agent: "h0/a", addresses: ["192.0.2.65"], atMillis: 17741 },
        { do: "powerdns slow", node: "p1", millis: 30000, byMillis: 14000, atMillis: 18191 },
        { do: "off", agent: "h3/a", atMillis: 19229 },
        { do: "move", agent: "h3/b", addresses: ["192.0.2.133"], atMillis: 43902 }
      ],
      endMillis: 103902
    }
  },
  {
    name: "a clock that goes back keeps no drift from being seen",
    scenario: {
      seed: "831",
      settings: {
        ...usual,
        retireMillis: 120000,
        quarantineMillis: 30000,
        budget: { min: 2, windowMillis: 300000 },
        reconcileMillis: 120000,
        powerdns: { ...usual.powerdns, nodes: ["p1", "p2"] }
      },
      agents: [{ id: "h2/a", hostname: "h2", addresses: ["2001:db8::c7"], owner: undefined }],
      events: [
        { do: "on", agent: "h2/a", atMillis: 2050 },
        { do: "clock", byMillis: -3600000, atMillis: 291277 },
        { do: "edit", hostname: "h2", contents: ["192.0.2.201"], atMillis: 291543 }
      ],
      endMillis: 351543
    }
  },
  {
    name: "a placeholder that a late write has left does not stay",
    scenario: {
      seed: "942",
      settings: {
        ...usual,
        leaseMillis: 45_000,
        beatMillis: 15_000,
        withdrawMillis: undefined,
        conflict: "reject",
        retireMillis: 240_000,
        holdMillis: 120_000,
        budget: { min: 2, windowMillis: 300_000 },
        powerdns: { ...usual.powerdns, nodes: ["p1", "p2"] }
      },
      agents: [
        { id: "h1/a", hostname: "h1", owner: "alice", addresses: ["2001:db8::35"] },
        { id: "x.y.h1/a", hostname: "x.y.h1", owner: "alice", addresses: ["192.0.2.23", "2001:db8::17"] }
      ],
      events: [
        { do: "on", agent: "x.y.h1/a", atMillis: 99 },
        { do: "on", agent: "h1/a", atMillis: 2238 },
        { do: "powerdns frozen", node: "p1", millis: 40_000, atMillis: 32_674 },
        { do: "retire", hostname: "h1", atMillis: 50_349 }
      ],
      endMillis: 110_349
    }
  },
  {
    name: "a host that one commit changes several times is held by the session that changed it last",
    scenario: {
      seed: "325",
      settings: {
        ...usual,
        order: "any",
        leaseMillis: 45_000,
        beatMillis: 15_000,
        withdrawMillis: 45_000,
        conflict: "take-over-if-same-owner",
        retireMillis: 120_000,
        budget: { min: 1, windowMillis: 60_000 },
        batchNamesMax: 1,
        powerdns: { ...usual.powerdns, nodes: ["p1", "p2"], latencyMillisMax: 2, workMillisMax: 200 }
      },
      agents: [
        {
          id: "a.h0/a",
          hostname: "a.h0",
          owner: undefined,
          addresses: ["192.0.2.92"],
          speaks: "2.0",
          wishes: { ttlSeconds: 5, labels: { rack: "3" } }
        },
        {
          id: "a.h0/b",
          hostname: "a.h0",
          owner: undefined,
          addresses: ["192.0.2.12"],
          speaks: "2.0",
          wishes: { ttlSeconds: 120, labels: {} }
        },
        { id: "a.h0/c", hostname: "a.h0", owner: undefined, addresses: ["192.0.2.115"] },
        {
          id: "x.y.h1/c",
          hostname: "x.y.h1",
          owner: "i-x.y.h1/c",
          actsFor: ["bob"],
          addresses: ["192.0.2.143", "2001:db8::8f"],
          speaks: "2.0",
          wishes: { ttlSeconds: 5, labels: {} }
        },
        {
          id: "h2/a",
          hostname: "h2",
          owner: "bob",
          addresses: ["2001:db8::26"],
          speaks: "2.0",
          wishes: { ttlSeconds: null, labels: {} }
        }
      ],
      events: [
        { do: "on", agent: "a.h0/b", atMillis: 142 },
        { do: "on", agent: "h2/a", atMillis: 752 },
        { do: "on", agent: "a.h0/c", atMillis: 2643 },
        { do: "on", agent: "x.y.h1/c", atMillis: 4599 },
        { do: "on", agent: "a.h0/a", atMillis: 4721 },
        { do: "pause", millis: 100_000, atMillis: 51_433 }
      ],
      endMillis: 120_000
    }
  },
  {
    // Never broken: here for what it is changed into, to see that it would be noticed.
    name: "what was accepted survives a power cut",
    scenario: {
      seed: "power",
      settings: { ...usual, powerCuts: true },
      agents: [{ id: "h0/a", hostname: "h0", owner: "alice", addresses: ["192.0.2.1"] }],
      events: [
        { do: "on", agent: "h0/a", atMillis: 1000 },
        { do: "off", agent: "h0/a", atMillis: 1400 },
        { do: "power cut", points: 1, downMillis: 1000, atMillis: 1500 }
      ],
      endMillis: 60_000
    }
  }
]
