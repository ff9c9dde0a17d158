/**
 * What `prism-dns doctor` does: asks each PowerDNS node and the registry's
 * database, and prints what is set up wrongly, and how to mend it. Changes
 * nothing.
 */
import { NodeHttpClient } from "@effect/platform-node"
import { NameServers } from "@prism-dns/core/dns/NameServers"
import * as Doctor from "@prism-dns/core/powerdns/Doctor"
import * as DoctorGather from "@prism-dns/core/powerdns/DoctorGather"
import { Console, Effect, Redacted } from "effect"
import type { PrismConfig } from "../Config.ts"
import * as DoctorRegistry from "./DoctorRegistry.ts"
import * as Failure from "./Failure.ts"

/** Asks everything that is configured. Ends also when nothing answers. */
export const examine = Effect.fnUntraced(function* (config: PrismConfig) {
  const { powerdns, storage, zones } = config
  const [nodes, registry] = yield* Effect.all(
    [DoctorGather.gather({ nodes: powerdns.nodes, zones }), DoctorRegistry.gather(storage)],
    { concurrency: "unbounded" }
  )
  return Doctor.diagnose({ zones, nodes, registry, batchNamesMax: powerdns.batchMax })
})

/** Texts that come from others may quote a secret: what we know as one never leaves. */
const redactor = (config: PrismConfig) => {
  const { auth, powerdns, storage } = config
  const secrets = [
    ...powerdns.nodes.flatMap(({ api }) => (api === undefined ? [] : [Redacted.value(api.key)])),
    ...(powerdns.transfer.tsig === undefined ? [] : [Redacted.value(powerdns.transfer.tsig.secret)]),
    ...[...auth.agentTokens, ...auth.adminTokens].map(({ token }) => Redacted.value(token)),
    ...[storage.url, storage.directUrl, storage.replica?.url].flatMap((url) =>
      url?._tag === "Postgres" ? passwordsOf(Redacted.value(url.url)) : []
    )
  ]
    // Shorter ones would take words out of sentences, and are none that could be kept.
    .filter((secret) => secret.length >= 6)
    .toSorted((a, b) => b.length - a.length)
  return (text: string) => secrets.reduce((left, secret) => left.replaceAll(secret, "<redacted>"), text)
}

const passwordsOf = (url: string): ReadonlyArray<string> => {
  const { password, searchParams } = new URL(url)
  return [password, decodeURIComponent(password), searchParams.get("password") ?? ""].filter((each) => each !== "")
}

// ---------------------------------------------------------------------------------------------------------------------
// Printing
// ---------------------------------------------------------------------------------------------------------------------

/** `--json`: stable; keys are only added. */
export const toJson = (findings: ReadonlyArray<Doctor.Finding>): string =>
  JSON.stringify(
    {
      version: 1,
      counts: Object.fromEntries(Doctor.severities.map((severity) => [severity, Doctor.count(findings, severity)])),
      findings
    },
    null,
    2
  )

const colours: Record<Doctor.Severity, number> = { error: 31, warning: 33, info: 36, ok: 32 }

/** For people: a table of what is to be said, each problem with its reason and its fix below it. */
export const toTable = (findings: ReadonlyArray<Doctor.Finding>, isColoured: boolean): string => {
  const rows = findings.map((finding) => ({
    finding,
    where: [finding.node, finding.zone].filter((part) => part !== undefined).join(" ") || "registry"
  }))
  const checkWidth = Math.max(...rows.map(({ finding }) => finding.check.length))
  const whereWidth = Math.max(...rows.map(({ where }) => where.length))
  const lines = rows.flatMap(({ finding: { check, fix, seen, severity, why }, where }) => {
    const word = severity.padEnd(8)
    const coloured = isColoured ? `\u001b[${colours[severity]}m${word}\u001b[0m` : word
    const head = `${coloured} ${check.padEnd(checkWidth)}  ${where.padEnd(whereWidth)}  ${seen}`
    return severity === "ok" || severity === "info"
      ? [head]
      : [head, `         why: ${why}`, ...(fix === undefined ? [] : [`         fix: ${fix}`])]
  })
  const counts = Doctor.severities.map((severity) => `${Doctor.count(findings, severity)} ${severity}`).join(", ")
  return [...lines, "", counts].join("\n")
}

/** Examines what `config` names, prints what was found, and fails when errors are among it. */
export const run = Effect.fnUntraced(
  function* (config: PrismConfig, isJson: boolean) {
    const redact = redactor(config)
    const findings = (yield* examine(config)).map((finding) => ({
      ...finding,
      seen: redact(finding.seen),
      ...(finding.fix !== undefined && { fix: redact(finding.fix) })
    }))
    const isColoured = process.stdout.isTTY && process.env["NO_COLOR"] === undefined
    yield* Console.log(isJson ? toJson(findings) : toTable(findings, isColoured))
    const errors = Doctor.count(findings, "error")
    if (errors > 0) yield* new Failure.ErrorsFound({ errors })
  },
  Effect.provide([NodeHttpClient.layerNodeHttp, NameServers.layerWith({ timeoutMillis: 1000 })])
)
