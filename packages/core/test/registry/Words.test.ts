import { assert, describe, it } from "@effect/vitest"
import * as DomainName from "@prism-dns/core/domain/DomainName"
import type { Host } from "@prism-dns/core/domain/Host"
import * as IpAddress from "@prism-dns/core/domain/IpAddress"
import * as Words from "@prism-dns/core/registry/Words"
import { Result } from "effect"

const fqdn = DomainName.make("printer-1.hosts.prism.test")

const printer: Host = {
  id: "0195e4a2-0000-7000-8000-000000000001",
  fqdn,
  hostname: Result.getOrThrow(DomainName.parseHostName("printer-1")),
  zone: DomainName.make("hosts.prism.test"),
  addresses: [IpAddress.make("192.0.2.7")],
  labels: {},
  ttlSeconds: undefined,
  owner: "ops",
  isStatic: true,
  state: "online",
  generation: 7,
  firstSeenMillis: 1000,
  lastSeenMillis: 1000,
  offlineSinceMillis: undefined,
  withdrawnSinceMillis: undefined,
  retiredSinceMillis: undefined
}

const afterLease = (host: Host, isStatic: boolean) =>
  Result.getOrThrow(
    Words.decide(
      { event: "changed", fqdn, actor: { name: "ops", peer: undefined }, edit: () => ({ isStatic }) },
      host,
      9000
    )
  )

describe("a word about a host's lease", () => {
  it("begins the lease at that moment, not when the host was seen last", () => {
    assert.deepStrictEqual(afterLease(printer, false), { ...printer, isStatic: false, lastSeenMillis: 9000 })
    assert.isUndefined(afterLease(printer, true))
  })

  it("brings a host back that is to have none, unless it was given up", () => {
    const away: Host = {
      ...printer,
      isStatic: false,
      state: "offline",
      offlineSinceMillis: 2000,
      withdrawnSinceMillis: 3000
    }
    assert.deepStrictEqual(afterLease(away, true), printer)
    const retired: Host = { ...away, state: "retired", retiredSinceMillis: 4000 }
    assert.deepStrictEqual(afterLease(retired, true), { ...retired, isStatic: true })
  })
})

describe("a word of somebody who has a say in its own hosts", () => {
  it("is not taken of a host that has become another's by then", () => {
    const word = { event: "retired", fqdn, actor: { name: "ops", peer: undefined } } as const
    const hasSay = ({ owner }: Host) => owner === "ops"
    assert.isTrue(Result.isSuccess(Words.decide({ ...word, hasSay }, printer, 9000)))
    const refused = Words.decide({ ...word, hasSay }, { ...printer, owner: "rack-8" }, 9000)
    assert.strictEqual(Result.isFailure(refused) && refused.failure._tag, "HostMoved")
  })
})
