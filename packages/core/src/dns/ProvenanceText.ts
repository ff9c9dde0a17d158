/** Where a host or a record comes from, in words: a line for each step, the oldest first. Pure. */
import type * as RRset from "../domain/RRset.ts"
import type { Claim, HostExplanation, NameChain, Obstacle, RecordExplanation, Step } from "./Provenance.ts"
import { forZoneFile } from "../domain/PlainText.ts"

const time = (millis: number): string => new Date(millis).toISOString()

const after = (millis: number): string =>
  millis < 1000 ? `${Math.max(0, Math.round(millis))} ms` : `${(millis / 1000).toFixed(1)} s`

const stepLines = (steps: ReadonlyArray<Step>): ReadonlyArray<string> => {
  const began = steps.find(({ step }) => step === "message")?.atMillis
  return steps.map(({ atMillis, cause, detail, peer, request, step }) => {
    const since =
      began !== undefined && atMillis !== undefined && (step === "applied" || step === "served") && atMillis >= began
        ? ` (${after(atMillis - began)} after the message)`
        : ""
    const more = [
      ...(step === "message" && peer !== undefined ? [`from ${peer}`] : []),
      ...(step === "message" && request !== undefined ? [`request ${request}`] : []),
      ...(step === "marked" && cause !== undefined ? [`cause ${cause}`] : [])
    ]
    const tail = more.length === 0 ? "" : `, ${more.join(", ")}`
    return `  ${step.padEnd(8)} ${atMillis === undefined ? "".padEnd(24) : time(atMillis)}  ${forZoneFile(`${detail}${tail}${since}`)}`
  })
}

const setLines = (sign: string, rrsets: ReadonlyArray<RRset.RRset>): ReadonlyArray<string> =>
  rrsets.flatMap(({ contents, name, ttlSeconds, type }) =>
    contents.map((content) => `  ${sign} ${name} ${ttlSeconds} ${type} ${forZoneFile(content)}`)
  )

const obstacleLines = (obstacles: ReadonlyArray<Obstacle>): ReadonlyArray<string> =>
  obstacles.length === 0
    ? ["  nothing stands in the way"]
    : obstacles.map(({ detail, kind, plan, sinceMillis }) => {
        const since = sinceMillis === undefined ? "" : `, since ${time(sinceMillis)}`
        return `  ${kind.padEnd(8)} ${forZoneFile(detail)}${plan === undefined ? "" : ` (plan ${plan})`}${since}`
      })

const isSame = (a: ReadonlyArray<RRset.RRset>, b: ReadonlyArray<RRset.RRset>): boolean =>
  setLines("", a).join("\n") === setLines("", b).join("\n")

const recordLines = ({ desired, published }: NameChain): ReadonlyArray<string> =>
  published !== undefined && isSame(desired, published)
    ? setLines("=", desired)
    : [...setLines("+", desired), ...setLines("-", published ?? [])]

const chainLines = (chain: NameChain): ReadonlyArray<string> => [
  `${chain.name} in ${chain.zone}`,
  ...recordLines(chain),
  ...stepLines(chain.steps),
  ...obstacleLines(chain.obstacles)
]

const levels = {
  accepted: "is in the registry and waits to be published",
  applied: "was taken by PowerDNS, and not every name server was seen to answer so yet",
  served: "is published as it should be"
} as const

/** One sentence. */
export const hostSummary = ({ names, version }: HostExplanation): string => {
  const since = time(version.fromMillis)
  if (version.event === "released") return `${version.fqdn} is no more: it was released at ${since}.`
  const own = names[0]
  const reached = own === undefined ? "" : `; its name ${levels[own.level]}`
  return `${version.fqdn} is ${version.state} at ${version.addresses.join(", ")} for ${version.owner}, since ${since} (${version.event})${reached}.`
}

const origins: Readonly<Record<RecordExplanation["origin"], (owner: string) => string>> = {
  host: (owner) => `is there because of the host ${owner}`,
  managed: (owner) => `is managed by people, by ${owner} last`,
  adopted: (owner) => `stood in PowerDNS and was adopted, by ${owner} last`,
  placeholder: () => "is a placeholder: something stands below the name, which would else be denied",
  foreign: () => "was made by someone else, and Prism does not touch it",
  ignored: () => "is ignored by a person's word",
  going: () => "is nobody's any more, and on its way out",
  none: () => "is not there, and nothing says that it should be"
}

/** One sentence. */
export const recordSummary = ({ level, name, origin, owner, type }: RecordExplanation): string => {
  const why = origins[origin](owner ?? "nobody")
  const isOurs = origin !== "foreign" && origin !== "ignored" && origin !== "none"
  return `The ${type} record of ${name} ${why}${isOurs ? `; the name ${levels[level]}` : ""}.`
}

const claimLines = (claims: ReadonlyArray<Claim>): ReadonlyArray<string> =>
  claims.map(
    ({ fqdn, reason, sinceMillis, state, wins }) =>
      `  ${wins ? "*" : " "} ${fqdn} (${state}, since ${time(sinceMillis)}): ${forZoneFile(reason)}`
  )

export const ofHost = (found: HostExplanation): string =>
  [
    hostSummary(found),
    "",
    ...stepLines(found.steps),
    ...found.names.flatMap((chain) => ["", ...chainLines(chain)])
  ].join("\n") + "\n"

export const ofRecord = (found: RecordExplanation): string =>
  [
    recordSummary(found),
    "",
    ...recordLines(found),
    ...(found.claims.length === 0 ? [] : ["", "hosts with a say in it:", ...claimLines(found.claims)]),
    "",
    ...stepLines(found.steps),
    ...obstacleLines(found.obstacles)
  ].join("\n") + "\n"
