import { assert, describe, it } from "@effect/vitest"
import { Duration } from "effect"
import type { DomainName } from "@prism-dns/core/domain/DomainName"
import { type Host, type HostState, hostStates } from "@prism-dns/core/domain/Host"
import { type ConflictPolicy, conflictPolicies, defaultPolicy } from "@prism-dns/core/domain/Zone"
import {
  type Context,
  decide,
  type Decision,
  decideSuffixed,
  type Registration,
  type Wishes,
  suffixedNames
} from "@prism-dns/core/registry/Decision"
import * as T from "../layers.ts"

const policyOf = (conflict: ConflictPolicy) => ({
  ...defaultPolicy,
  conflict,
  retireAfter: Duration.seconds(100),
  holdFor: Duration.seconds(50)
})

const contextOf = (conflict: ConflictPolicy, newId = "new"): Context => ({
  nowMillis: 500_000,
  generation: 9,
  newId,
  policy: policyOf(conflict)
})

const hostOf = (hostname: string, address: string, owner: string | undefined, state: HostState = "online"): Host => {
  const registration = T.registration(hostname, address, owner)
  return {
    id: hostname,
    fqdn: registration.fqdn,
    hostname: registration.hostname,
    zone: registration.zone,
    addresses: registration.addresses,
    labels: {},
    ttlSeconds: undefined,
    owner: registration.registrant.name,
    isStatic: false,
    state,
    generation: 1,
    firstSeenMillis: 0,
    lastSeenMillis: 0,
    offlineSinceMillis: state === "online" ? undefined : 1000,
    withdrawnSinceMillis: state === "online" ? undefined : 2000,
    retiredSinceMillis: state === "retired" ? 101_000 : undefined
  }
}

/** In a word: what a registration comes to. */
const wordOf = (decision: Decision): string =>
  decision._tag === "Write" ? decision.event : decision._tag === "Renew" ? "renewed" : "refused"

describe("who gets a name", () => {
  type Who = "owner, same address" | "owner, other address" | "another owner" | "nobody known"
  const registrations: Readonly<Record<Who, Registration>> = {
    "owner, same address": T.registration("web", "192.0.2.1", "fleet"),
    "owner, other address": T.registration("web", "192.0.2.2", "fleet"),
    "another owner": T.registration("web", "192.0.2.1", "others"),
    "nobody known": T.registration("web", "192.0.2.1")
  }
  const everywhere = (word: string): Record<ConflictPolicy, string> => ({
    reject: word,
    "take-over-if-expired": word,
    "take-over-if-same-owner": word,
    suffix: word
  })
  const expired = {
    ...everywhere("refused"),
    "take-over-if-expired": "returned",
    suffix: "returned"
  }
  const table: ReadonlyArray<[HostState, Who, Record<ConflictPolicy, string>]> = [
    ["online", "owner, same address", everywhere("renewed")],
    ["online", "owner, other address", { ...everywhere("changed"), reject: "refused" }],
    ["online", "another owner", everywhere("refused")],
    ["online", "nobody known", everywhere("refused")],
    ["offline", "owner, same address", everywhere("returned")],
    ["offline", "owner, other address", everywhere("returned")],
    ["offline", "another owner", expired],
    ["offline", "nobody known", expired],
    ["retired", "owner, same address", everywhere("returned")],
    ["retired", "owner, other address", everywhere("returned")],
    ["retired", "another owner", expired],
    ["retired", "nobody known", expired]
  ]
  for (const [state, who, expected] of table) {
    it(`whose host is ${state}: ${who}`, () => {
      for (const conflict of conflictPolicies) {
        const known = hostOf("web", "192.0.2.1", "fleet", state)
        assert.strictEqual(
          wordOf(decide(known, registrations[who], contextOf(conflict))),
          expected[conflict],
          `under ${conflict}`
        )
      }
    })
  }

  it("that nobody has proved to own: whoever has a token, under every policy and in every state", () => {
    for (const conflict of conflictPolicies) {
      for (const state of hostStates) {
        const known = hostOf("web", "192.0.2.9", undefined, state)
        const decision = decide(known, registrations["another owner"], contextOf(conflict))
        assert.strictEqual(wordOf(decision), state === "online" ? "changed" : "returned", `${conflict} ${state}`)
      }
    }
  })

  it("whose owner's claims have passed to who registers: as its owner, which it then is", () => {
    const heir = { name: "i-heir", anonymous: false, actsFor: ["fleet"] }
    for (const who of ["owner, same address", "owner, other address"] as const) {
      for (const conflict of conflictPolicies) {
        for (const state of hostStates) {
          const known = hostOf("web", "192.0.2.1", "fleet", state)
          const owner = wordOf(decide(known, registrations[who], contextOf(conflict)))
          const decision = decide(known, { ...registrations[who], registrant: heir }, contextOf(conflict))
          // to be its owner is a change
          assert.strictEqual(wordOf(decision), owner === "renewed" ? "changed" : owner, `${who} ${conflict} ${state}`)
          if (decision._tag === "Write") assert.strictEqual(decision.after.owner, heir.name)
          if (decision._tag === "Refuse") assert.isTrue(decision.error.sameOwner)
        }
      }
    }
    const others = decide(
      hostOf("web", "192.0.2.1", "others"),
      { ...registrations["owner, same address"], registrant: heir },
      contextOf("take-over-if-same-owner")
    )
    assert.strictEqual(wordOf(others), "refused")
  })

  it("leaves its wishes to the next registration that says none, unless another's machine has taken it", () => {
    const known = { ...hostOf("web", "192.0.2.1", "fleet", "offline"), labels: { rack: "7" }, ttlSeconds: 30 }
    const after = (who: Who, wishes: Wishes = {}) => {
      const decision = decide(known, { ...registrations[who], ...wishes }, contextOf("take-over-if-expired"))
      assert(decision._tag === "Write")
      return [decision.after.labels, decision.after.ttlSeconds]
    }
    assert.deepStrictEqual(after("owner, other address"), [{ rack: "7" }, 30])
    assert.deepStrictEqual(after("another owner"), [{}, undefined])
    assert.deepStrictEqual(after("owner, same address", { labels: {}, ttlSeconds: null }), [{}, undefined])
    assert.deepStrictEqual(after("another owner", { labels: { rack: "8" }, ttlSeconds: 90 }), [{ rack: "8" }, 90])
  })

  it("is renewed only where nothing else is wished for than the host has", () => {
    const known = { ...hostOf("web", "192.0.2.1", "fleet"), labels: { rack: "7", role: "web" }, ttlSeconds: 30 }
    const word = (wishes: Wishes) =>
      wordOf(decide(known, { ...registrations["owner, same address"], ...wishes }, contextOf("reject")))
    for (const same of [{}, { ttlSeconds: 30 }, { labels: { role: "web", rack: "7" } }]) {
      assert.strictEqual(word(same), "renewed", JSON.stringify(same))
    }
    for (const other of [
      { ttlSeconds: null },
      { ttlSeconds: 31 },
      { labels: {} },
      { labels: { rack: "7" } },
      { labels: { rack: "7", role: "db" } },
      { labels: { rack: "7", constructor: "web" } }
    ]) {
      assert.strictEqual(word(other), "changed", JSON.stringify(other))
    }
  })

  it("under reject: its owner's machine keeps it when it gets an address more, or loses one", () => {
    const known = hostOf("web", "192.0.2.1", "fleet")
    const more = T.registration("web", ["192.0.2.1", "192.0.2.2"], "fleet")
    assert.strictEqual(wordOf(decide(known, more, contextOf("reject"))), "changed")
    const both = { ...known, addresses: more.addresses }
    assert.strictEqual(wordOf(decide(both, registrations["owner, other address"], contextOf("reject"))), "changed")
  })

  it("nobody has: whoever asks first, under every policy", () => {
    for (const conflict of conflictPolicies) {
      for (const registration of Object.values(registrations)) {
        assert.strictEqual(wordOf(decide(undefined, registration, contextOf(conflict))), "created")
      }
    }
  })

  it("a host that comes back is online, and nothing is left of its absence", () => {
    for (const state of ["offline", "retired"] as const) {
      const decision = decide(
        hostOf("web", "192.0.2.1", "fleet", state),
        registrations["owner, same address"],
        contextOf("reject")
      )
      assert(decision._tag === "Write")
      const { offlineSinceMillis, retiredSinceMillis, withdrawnSinceMillis } = decision.after
      assert.strictEqual(decision.after.state, "online")
      assert.deepStrictEqual(
        [offlineSinceMillis, withdrawnSinceMillis, retiredSinceMillis],
        [undefined, undefined, undefined]
      )
    }
  })

  it("a refusal says what the holder's host is, and when its name is released", () => {
    const messages = (["online", "offline", "retired"] as const).map((state) => {
      const decision = decide(
        hostOf("web", "192.0.2.1", "fleet", state),
        registrations["another owner"],
        contextOf("reject")
      )
      assert(decision._tag === "Refuse")
      return [decision.error.state, decision.error.freeAtMillis, decision.error.message]
    })
    assert.deepStrictEqual(messages, [
      ["online", undefined, "web.hosts.test. is registered by another owner and its host is online"],
      [
        "offline",
        151_000,
        "web.hosts.test. is registered by another owner and its host is offline; the name is held until 1970-01-01T00:02:31.000Z at least"
      ],
      [
        "retired",
        151_000,
        "web.hosts.test. is registered by another owner and its host is retired; the name is held until 1970-01-01T00:02:31.000Z at least"
      ]
    ])
  })
})

describe("a suffix", () => {
  const given = (known: ReadonlyArray<Host>, registration: Registration, count = 3) => {
    const byName = new Map<DomainName, Host>(known.map((host) => [host.fqdn, host]))
    const candidates = suffixedNames(registration.fqdn, count)
    const decision = decideSuffixed((name) => byName.get(name), candidates, registration, contextOf("suffix"))
    const name =
      decision._tag === "Write" ? decision.after.fqdn : decision._tag === "Renew" ? decision.host.fqdn : "none"
    return `${wordOf(decision)} ${name.split(".")[0]}`
  }
  const web = hostOf("web", "192.0.2.1", "fleet")
  const asked = T.registration("web", "192.0.2.7", "others")

  it("is given only to whoever would be refused", () => {
    assert.strictEqual(given([], asked), "created web")
    assert.strictEqual(given([web], T.registration("web", "192.0.2.2", "fleet")), "changed web")
    assert.strictEqual(given([hostOf("web", "192.0.2.1", "fleet", "offline")], asked), "returned web")
    assert.strictEqual(given([web], asked), "created web-2")
  })

  it("is the lowest that no host is online at", () => {
    const two = hostOf("web-2", "192.0.2.2", "third")
    assert.strictEqual(given([web, two], asked), "created web-3")
    assert.strictEqual(given([web, { ...two, state: "offline" }], asked), "returned web-2")
    // A machine of the same owner at another address is another machine.
    assert.strictEqual(given([web, hostOf("web-2", "192.0.2.2", "others")], asked), "created web-3")
  })

  it("is kept by the machine that has it, also when the name itself is free again", () => {
    for (const state of hostStates) {
      const own = hostOf("web-3", "192.0.2.7", "others", state)
      const word = state === "online" ? "renewed" : "returned"
      assert.strictEqual(given([web, own], asked), `${word} web-3`)
      assert.strictEqual(given([own], asked), `${word} web-3`)
    }
    assert.strictEqual(given([web, hostOf("web-3", "192.0.2.8", "others", "offline")], asked), "returned web-3")
  })

  it("is not given when all of them are in use: the name is taken", () => {
    const all = [web, ...[2, 3, 4].map((n) => hostOf(`web-${n}`, `192.0.2.${n}`, "third"))]
    assert.strictEqual(given(all, asked), "refused none")
  })

  it("stands behind the first label, and never makes a name too long", () => {
    assert.deepStrictEqual(suffixedNames(T.nameOf("web.rack"), 2), [T.nameOf("web-2.rack"), T.nameOf("web-3.rack")])
    assert.deepStrictEqual(suffixedNames(T.nameOf("a".repeat(62)), 9), [])
    assert.strictEqual(suffixedNames(T.nameOf("a".repeat(61)), 9).length, 8)
  })
})
