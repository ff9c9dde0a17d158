import { assert, describe, it } from "@effect/vitest"
import { Arbitrary, Effect } from "effect"
import * as Permissions from "@prism-dns/core/auth/Permissions"
import type { Authority, Permission, Place } from "@prism-dns/core/auth/Permissions"
import { isPatternWithin, matchesPattern } from "@prism-dns/core/auth/Principal"
import * as Rights from "@prism-dns/core/auth/Rights"
import type { DomainName } from "@prism-dns/core/domain/DomainName"
import { integer, oneOf } from "../arbitraries.ts"

const zoneNames = ["hosts.test.", "lab.hosts.test.", "2.0.192.in-addr.arpa."] as const
const below = ["web-1", "web-", "web-a.rack-7", "ns1", "ns", "db.rack-7", "rack-7"] as const
const patterns = ["web-*", "web-#", "*", "*.rack-7", "ns#", "ns*", "db.rack-7", "*-*"] as const
const verbs = Permissions.verbs
const resources = ["hosts", "records", "lua", "roles"] as const

// --- The same once more: what somebody may do, as a set of texts ----------------------------------------------------

/** Everything that there is: no zone, each zone as a whole, and each name in it. */
const everywhere: ReadonlyArray<{ readonly zone: string; readonly name: string }> = [
  { zone: "", name: "" },
  ...zoneNames.flatMap((zone) => ["", ...below].map((name) => ({ zone, name })))
]

const regular = (pattern: string): RegExp =>
  new RegExp(
    `^${pattern
      .split("")
      .map((character) => ({ "*": "[a-z0-9-]*", "#": "[0-9]+", ".": "\\." })[character] ?? character)
      .join("")}$`
  )

interface Bound {
  readonly zones?: ReadonlyArray<string> | undefined
  readonly names?: ReadonlyArray<string> | undefined
}

const placesWithin = ({ names, zones }: Bound) =>
  everywhere.filter(
    ({ name, zone }) =>
      (zones === undefined || zones.some((each) => each === zone)) &&
      (names === undefined || (name !== "" && names.some((pattern) => regular(pattern).test(name))))
  )

const key = (verb: string, resource: string, { name, zone }: { readonly zone: string; readonly name: string }) =>
  `${verb} ${resource} ${zone}|${name}`

/** What is held at all, one by one. */
const heldBy = ({ permissions, ...bound }: Authority): ReadonlySet<string> => {
  const reach = new Set(placesWithin(bound))
  const held = new Set<string>()
  for (const { resource, verb, ...narrower } of permissions) {
    for (const place of placesWithin(narrower)) {
      if (!reach.has(place)) continue
      for (const v of verb === "*" ? verbs : [verb]) {
        for (const r of resource === "*" ? resources.filter((each) => each !== "lua") : [resource])
          held.add(key(v, r, place))
      }
    }
  }
  return held
}

// --- Cases ---------------------------------------------------------------------------------------------------------

const some = <A extends string>(values: ReadonlyArray<A>): Arbitrary.Arbitrary<ReadonlyArray<A> | undefined> =>
  Arbitrary.map(
    Arbitrary.all([integer(0, 2), Arbitrary.array(oneOf(values), { minLength: 0, maxLength: 2 })] as const),
    ([kind, list]) => (kind === 0 ? undefined : list)
  )

const bounds = Arbitrary.all({
  zones: some(zoneNames as ReadonlyArray<string>),
  names: some(patterns as ReadonlyArray<string>)
}) as Arbitrary.Arbitrary<Permissions.Bounds>

const permission: Arbitrary.Arbitrary<Permission> = Arbitrary.map(
  Arbitrary.all([oneOf([...verbs, "*"]), oneOf([...resources, "*"]), bounds] as const),
  ([verb, resource, bound]) => ({ verb, resource, ...bound })
)

const authority: Arbitrary.Arbitrary<Authority> = Arbitrary.map(
  Arbitrary.all([Arbitrary.array(permission, { minLength: 0, maxLength: 3 }), bounds] as const),
  ([permissions, { names, zones }]) => ({ permissions, zones, names })
)

const placeOf = ({ name, zone }: { readonly zone: string; readonly name: string }): Place => ({
  ...(zone !== "" && { zone: zone as DomainName }),
  ...(name !== "" && { name: `${name}.${zone}` as DomainName })
})

const property = <A>(name: string, cases: Arbitrary.Arbitrary<A>, check: (value: A) => void) =>
  it.live(name, () =>
    Effect.gen(function* () {
      const result = yield* Arbitrary.checkEffect(
        cases,
        (value) =>
          Effect.sync(() => {
            check(value)
            return true
          }),
        { runs: 300 }
      )
      assert.isUndefined(Arbitrary.formatCheckFailure(result))
    })
  )

const questions = verbs.flatMap((verb) =>
  resources.flatMap((resource) => everywhere.map((at) => ({ verb, resource, at, place: placeOf(at) })))
)

describe("permissions", () => {
  property("allow what is in the set of all that is held, and nothing else", authority, (who) => {
    const held = heldBy(who)
    for (const { at, place, resource, verb } of questions) {
      assert.strictEqual(Permissions.allows(who, verb, resource, place), held.has(key(verb, resource, at)))
    }
    for (const verb of verbs) {
      for (const resource of resources) {
        const somewhere = questions.some(
          (each) => each.verb === verb && each.resource === resource && held.has(key(verb, resource, each.at))
        )
        if (somewhere) assert.isTrue(Permissions.allowsSomewhere(who, verb, resource))
      }
    }
  })

  property("the scope of a list has what is allowed, and leaves out no zone of it", authority, (who) => {
    const held = heldBy(who)
    for (const verb of verbs) {
      for (const resource of resources) {
        const scope = Permissions.scopeOf(who, verb, resource)
        assert.strictEqual(scope.everything, held.has(key(verb, resource, { zone: "", name: "" })))
        for (const at of everywhere) {
          const isHeld = held.has(key(verb, resource, at))
          assert.strictEqual(scope.has(placeOf(at)), isHeld)
          if (at.zone === "") continue
          const zone = at.zone as DomainName
          if (isHeld) assert.isTrue(scope.zones === undefined || scope.zones.includes(zone))
          if (isHeld) assert.isTrue(scope.touches(zone))
          const touched = scope.zones === undefined || scope.zones.includes(zone)
          if (scope.everyName && touched && scope.touches(zone)) assert.isTrue(isHeld)
        }
      }
    }
  })

  property(
    "nobody who gives only what lies within its own authority gives more than it has",
    Arbitrary.all([authority, authority, bounds] as const),
    ([outer, inner, bound]) => {
      const held = heldBy(outer)
      if (Permissions.contains(outer, inner)) for (const each of heldBy(inner)) assert.isTrue(held.has(each), each)
      // What is bound to a part of it lies within it.
      const part = {
        permissions: Permissions.boundTo(inner.permissions, bound),
        zones: inner.zones,
        names: inner.names
      }
      const within = heldBy({ ...inner, zones: undefined, names: undefined })
      const reach = new Set(placesWithin(bound))
      for (const each of heldBy(part)) assert.isTrue(within.has(each), each)
      for (const at of everywhere) {
        if (reach.has(at)) continue
        for (const verb of verbs)
          for (const resource of resources) {
            assert.isFalse(Permissions.allows(part, verb, resource, placeOf(at)))
          }
      }
      for (const verb of verbs) {
        for (const resource of resources) {
          if (!Permissions.allowsWithin(outer, verb, resource, bound)) continue
          for (const at of placesWithin(bound)) assert.isTrue(held.has(key(verb, resource, at)))
        }
      }
    }
  )

  property("an explanation comes to what is decided", authority, (who) => {
    for (const { place, resource, verb } of questions) {
      const right = Rights.explain({ verb, resource, place, roles: [{ name: "r", role: who }], bounds: who })
      assert.strictEqual(right.allowed, Permissions.allows(who, verb, resource, place))
      assert.strictEqual(right.allowed, right.by !== undefined)
    }
  })

  property(
    "a pattern that lies within another fits nothing that the other does not",
    Arbitrary.all([
      Arbitrary.map(Arbitrary.array(oneOf(["a", "1", "*", "#", "-", "."]), { minLength: 1, maxLength: 5 }), (all) =>
        all.join("")
      ),
      Arbitrary.map(Arbitrary.array(oneOf(["a", "1", "*", "#", "-", "."]), { minLength: 1, maxLength: 5 }), (all) =>
        all.join("")
      ),
      Arbitrary.map(Arbitrary.array(oneOf(["a", "1", "2", "-", "."]), { minLength: 1, maxLength: 6 }), (all) =>
        all.join("")
      )
    ] as const),
    ([inner, outer, name]) => {
      assert.isTrue(isPatternWithin(inner, inner))
      if (isPatternWithin(inner, outer) && matchesPattern(inner, name)) assert.isTrue(matchesPattern(outer, name))
    }
  )

  it("say what is usual about who gives what", () => {
    const admin = Permissions.builtInRoles.find(({ name }) => name === "admin")!
    const lab = { permissions: admin.permissions, zones: ["lab.test." as DomainName], names: undefined }
    const everything = { permissions: admin.permissions, zones: undefined, names: undefined }
    for (const { name, permissions } of Permissions.builtInRoles) {
      const wide = { permissions, zones: undefined, names: undefined }
      assert.isTrue(Permissions.contains(everything, wide), name)
      assert.isFalse(Permissions.contains(lab, wide), name)
      assert.isTrue(Permissions.contains(lab, { ...wide, zones: lab.zones, names: ["web-*"] }), name)
    }
    const lua: Authority = { permissions: [{ verb: "write", resource: "lua" }], zones: undefined, names: undefined }
    assert.isFalse(Permissions.contains(everything, lua))
    assert.isFalse(Permissions.allows(everything, "write", "lua", {}))
  })
})
