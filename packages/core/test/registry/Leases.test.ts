import { assert, describe, it } from "@effect/vitest"
import type { Host } from "@prism-dns/core/domain/Host"
import { defaultPolicy } from "@prism-dns/core/domain/Zone"
import { anonymous, decide, type Wishes } from "@prism-dns/core/registry/Decision"
import * as Leases from "@prism-dns/core/registry/Leases"
import * as T from "../layers.ts"

const fleet = { name: "fleet", anonymous: false }

/** A host as it stands after its first registration at time 0. */
const hostOf = (hostname: string, addresses: ReadonlyArray<string>, owner = "fleet"): Host => {
  const decision = decide(undefined, T.registration(hostname, addresses, owner), {
    nowMillis: 0,
    generation: 1,
    newId: hostname,
    policy: defaultPolicy
  })
  if (decision._tag !== "Write") throw new Error("a new host is written")
  return decision.after
}

describe("a lease", () => {
  const web = hostOf("web", ["192.0.2.1", "2001:db8::1"])

  it("is renewed by its host itself as long as it is held at that generation", () => {
    const leases = Leases.make()
    assert.isFalse(leases.beat(web, 5))
    leases.hold(web, 0)
    assert.isTrue(leases.beat({ ...web }, 5))
    assert.deepStrictEqual(
      leases.unflushed().map(({ atMillis }) => atMillis),
      [5]
    )
    assert.isFalse(leases.beat({ ...web, generation: 2 }, 6))
    leases.hold({ ...web, generation: 2 }, 7)
    assert.isFalse(leases.beat(web, 8))
    // changed twice in one commit
    assert.isFalse(leases.beat({ ...web, generation: 2, addresses: [T.addressOf(9)] }, 8))
    assert.isFalse(leases.beat({ ...web, generation: 2, labels: { rack: "7" } }, 8))
    assert.isFalse(leases.beat({ ...web, generation: 2, owner: "others" }, 8))
    leases.drop(web.fqdn, 100)
    assert.isFalse(leases.beat({ ...web, generation: 2 }, 9))
  })

  it("is renewed only where nothing else is wished for than its host has", () => {
    const leases = Leases.make()
    const wished = { ...web, ttlSeconds: 30, labels: { rack: "7" } }
    leases.hold(wished, 0)
    const renew = (wishes?: Wishes) => leases.renew(web.fqdn, web.addresses, fleet, 5, wishes)
    assert.strictEqual(renew(), wished)
    assert.strictEqual(renew({ ttlSeconds: 30, labels: { rack: "7" } }), wished)
    assert.isUndefined(renew({ ttlSeconds: null }))
    assert.isUndefined(renew({ labels: {} }))
  })

  it("of an owner whose claims have passed to another is renewed by it only once it is the owner", () => {
    const leases = Leases.make()
    leases.hold(web, 0)
    const heir = { name: "i-heir", anonymous: false, actsFor: ["fleet"] }
    assert.isUndefined(leases.renew(web.fqdn, web.addresses, heir, 5))
    const inherited = { ...web, owner: "i-heir", generation: 2 }
    leases.hold(inherited, 6)
    assert.strictEqual(leases.renew(web.fqdn, web.addresses, heir, 7), inherited)
  })

  it("is renewed from memory by the same owner at the same addresses only", () => {
    const leases = Leases.make()
    assert.isUndefined(leases.renew(web.fqdn, web.addresses, fleet, 5))
    leases.hold(web, 0)
    assert.strictEqual(leases.renew(web.fqdn, [...web.addresses], fleet, 5), web)
    assert.isUndefined(leases.renew(T.nameOf("other"), web.addresses, fleet, 5))
    assert.isUndefined(leases.renew(web.fqdn, [T.addressOf(1)], fleet, 5))
    assert.isUndefined(leases.renew(web.fqdn, [T.addressOf(1), T.addressOf(2)], fleet, 5))
    assert.isUndefined(leases.renew(web.fqdn, web.addresses, { name: "others", anonymous: false }, 5))
    assert.isUndefined(leases.renew(web.fqdn, web.addresses, anonymous, 5))
  })

  it("of an anonymous host is renewed anonymously; a token that comes for it changes its owner, the long way", () => {
    const leases = Leases.make()
    const host = hostOf("web", ["192.0.2.1"], anonymous.name)
    leases.hold(host, 0)
    assert.strictEqual(leases.renew(host.fqdn, host.addresses, anonymous, 5), host)
    assert.isUndefined(leases.renew(host.fqdn, host.addresses, fleet, 5))
  })

  it("is to be flushed after each renewal, until it was, and not when another renewal came meanwhile", () => {
    const leases = Leases.make()
    leases.hold(web, 0)
    assert.deepStrictEqual(leases.unflushed(), [])
    leases.renew(web.fqdn, web.addresses, fleet, 5)
    const seen = leases.unflushed()
    assert.deepStrictEqual(seen, [{ fqdn: web.fqdn, id: web.id, generation: 1, atMillis: 5 }])
    leases.renew(web.fqdn, web.addresses, fleet, 9)
    leases.flushed(seen)
    assert.deepStrictEqual(
      leases.unflushed().map(({ atMillis }) => atMillis),
      [9]
    )
    leases.flushed(leases.unflushed())
    assert.deepStrictEqual(leases.unflushed(), [])
  })

  it("of which the database knows otherwise is forgotten, unless it was held anew meanwhile", () => {
    const leases = Leases.make()
    leases.hold(web, 0)
    leases.renew(web.fqdn, web.addresses, fleet, 5)
    const seen = leases.unflushed()
    const newer = { ...web, generation: 2 }
    leases.hold(newer, 6)
    leases.forget(seen)
    assert.strictEqual(leases.renew(web.fqdn, web.addresses, fleet, 7), newer)
    leases.forget(leases.unflushed())
    assert.isUndefined(leases.renew(web.fqdn, web.addresses, fleet, 8))
  })

  it("is dropped only when the host was not seen since, and can then not be renewed from memory", () => {
    const leases = Leases.make()
    leases.hold(web, 0)
    leases.renew(web.fqdn, web.addresses, fleet, 100)
    assert.isFalse(leases.drop(web.fqdn, 100))
    assert.strictEqual(leases.size(), 1)
    assert.isTrue(leases.drop(web.fqdn, 101))
    assert.strictEqual(leases.size(), 0)
    assert.isUndefined(leases.renew(web.fqdn, web.addresses, fleet, 102))
    assert.isTrue(leases.drop(web.fqdn, 0))
  })

  it("of a host that was given another name is renewed by the name it asks for, until it is dropped or forgotten", () => {
    const leases = Leases.make()
    const given = { ...hostOf("web-2", ["192.0.2.2"], "others"), hostname: web.hostname }
    const others = { name: "others", anonymous: false }
    leases.hold(web, 0)
    leases.hold(given, 0, web.fqdn)
    assert.strictEqual(leases.renew(web.fqdn, given.addresses, others, 5), given)
    assert.strictEqual(leases.renew(web.fqdn, web.addresses, fleet, 5), web)
    assert.isUndefined(leases.renew(web.fqdn, [T.addressOf(3)], others, 5))
    assert.isUndefined(leases.renew(web.fqdn, given.addresses, fleet, 5))
    leases.forget(leases.unflushed().filter(({ fqdn }) => fqdn === given.fqdn))
    assert.isUndefined(leases.renew(web.fqdn, given.addresses, others, 6))
    leases.hold(given, 0, web.fqdn)
    assert.isTrue(leases.drop(given.fqdn, 5))
    assert.isUndefined(leases.renew(web.fqdn, given.addresses, others, 7))
    // One that asks for its own name now is not found by the other any more.
    leases.hold(given, 0, web.fqdn)
    leases.hold(given, 0, given.fqdn)
    assert.isUndefined(leases.renew(web.fqdn, given.addresses, others, 8))
    assert.strictEqual(leases.renew(given.fqdn, given.addresses, others, 8), given)
  })

  it("that another server may have changed is not renewed, and what was seen of its host is still written", () => {
    const leases = Leases.make()
    leases.hold(web, 5)
    leases.outdated([web.fqdn, T.nameOf("unknown")])
    assert.isFalse(leases.beat(web, 6))
    assert.isUndefined(leases.renew(web.fqdn, web.addresses, fleet, 6))
    const seen = leases.unflushed()
    assert.deepStrictEqual(
      seen.map(({ atMillis }) => atMillis),
      [5]
    )
    leases.flushed(seen)
    assert.strictEqual(leases.size(), 0)
    // Held anew it is as good as any.
    leases.hold(web, 5)
    leases.outdated([web.fqdn])
    leases.hold(web, 7)
    assert.isTrue(leases.beat(web, 8))
    leases.flushed(leases.unflushed())
    leases.outdated([web.fqdn])
    assert.strictEqual(leases.size(), 0)
  })
})
