import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { X509Certificate } from "node:crypto"
import * as Fs from "node:fs"
import * as Crl from "../../src/tcp/Crl.ts"
import { authority } from "../harness/certificates.ts"

const derOf = (path: string): Uint8Array =>
  Buffer.from(Fs.readFileSync(path, "latin1").replace(/-----[^-]+-----/g, ""), "base64")

const holderOf = (path: string) => Crl.holderOf(new X509Certificate(Fs.readFileSync(path)).raw)

describe("a revocation list", () => {
  it.live("names the certificates that its authority has revoked, and no others", () =>
    Effect.gen(function* () {
      const ca = yield* authority()
      const other = yield* authority("Other Authority")
      const [revoked, good] = [ca.issue("revoked"), ca.issue("good")]
      const namesake = other.issue("revoked")
      assert.deepStrictEqual(Crl.parse(derOf(ca.list()))?.serials, new Set())
      ca.revoke(revoked)
      const list = Crl.parse(derOf(ca.list("20400101000000Z")))
      assert.isDefined(list)
      assert.strictEqual(list.nextUpdateMillis, Date.UTC(2040, 0, 1))
      const holders = [revoked, good, namesake].map((pair) => holderOf(pair.certificate)!)
      // The same number, of another authority.
      assert.strictEqual(holders[0]!.serial, holders[2]!.serial)
      assert.deepStrictEqual(
        holders.map((holder) => Crl.isRevoked(holder, [list])),
        [true, false, false]
      )
    }).pipe(Effect.scoped)
  )

  it.live("has the time of its next one in either form", () =>
    Effect.gen(function* () {
      const ca = yield* authority()
      assert.strictEqual(Crl.parse(derOf(ca.list("20550101000000Z")))?.nextUpdateMillis, Date.UTC(2055, 0, 1))
    }).pipe(Effect.scoped)
  )

  it.live("cut off anywhere is none, and so is a certificate", () =>
    Effect.gen(function* () {
      const ca = yield* authority()
      ca.revoke(ca.issue("revoked"))
      const der = derOf(ca.list())
      for (let end = 0; end < der.length; end++) assert.isUndefined(Crl.parse(der.subarray(0, end)))
      const certificate = derOf(ca.certificate)
      assert.isUndefined(Crl.parse(certificate))
      for (let end = 0; end < certificate.length; end++) assert.isUndefined(Crl.holderOf(certificate.subarray(0, end)))
    }).pipe(Effect.scoped)
  )
})
