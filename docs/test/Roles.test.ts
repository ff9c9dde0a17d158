import { assert, it } from "@effect/vitest"
import { builtInRoles, type Permission, resources, verbs } from "@prism-dns/core/auth/Permissions"
import * as Fs from "node:fs"
import * as Path from "node:path"

const page = Fs.readFileSync(Path.join(import.meta.dirname, "../guides/access.md"), "utf8")

/** Every permission by itself, as `VERB RESOURCE`. */
const singly = (permissions: ReadonlyArray<Permission>): ReadonlySet<string> =>
  new Set(
    permissions.flatMap(({ resource, verb }) =>
      (verb === "*" ? verbs : [verb]).flatMap((each) =>
        (resource === "*" ? resources.filter((one) => one !== "lua") : [resource]).map((one) => `${each} ${one}`)
      )
    )
  )

/** What a cell such as `read: zones, events; \\*: hosts` says. */
const written = (cell: string): ReadonlySet<string> =>
  new Set(
    cell.split("; ").flatMap((part) => {
      const [ofVerbs = "", ofResources = ""] = part.split(": ")
      const all =
        ofResources === "everything but lua" ? resources.filter((one) => one !== "lua") : ofResources.split(", ")
      return (ofVerbs === "\\*" ? verbs : ofVerbs.split(", ")).flatMap((verb) => all.map((one) => `${verb} ${one}`))
    })
  )

it("the table of built-in roles says what they allow", () => {
  const rows = new Map(
    [...page.matchAll(/^\| `([a-z]+)` \| ([^|]+) \| ([^|]+) \|$/gm)].map(([, name, may, why]) => [name!, [may!, why!]])
  )
  assert.sameMembers(
    [...rows.keys()],
    builtInRoles.map(({ name }) => name)
  )
  for (const { description, name, permissions } of builtInRoles) {
    const [may, why] = rows.get(name)!
    assert.deepStrictEqual([...written(may!)].sort(), [...singly(permissions)].sort(), name)
    assert.strictEqual(why, description)
  }
})
