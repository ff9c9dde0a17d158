/**
 * Whether what clients were told is true: a history against the end state.
 *
 * Pure. It knows what the product promises and nothing of how it keeps that:
 *
 * - what was acknowledged is in the registry, unless something newer is;
 * - what was released stays released until it is registered anew;
 * - a host whose connection was never away longer than its lease does not
 *   expire, and once it was served its name always resolves;
 * - a name, an address and a record are there once;
 * - each change has one audit entry, and each entry its change;
 * - a zone has one writer at a time;
 * - PowerDNS holds what the registry says, at every node.
 *
 * A request without an answer may have been carried out, at any time after it
 * was asked: what is acknowledged later decides. `overtaken` tells of one that
 * was carried out after something newer had been acknowledged.
 */
import type { Away, EndState, History, Poll, Request, Told, VersionRow, Write } from "./History.ts"

export const rules = [
  /** An acknowledged change is not there. */
  "lost",
  /** A released host is back, and nobody has asked for it. */
  "resurrected",
  /** An older request was carried out over a newer one that had been acknowledged. */
  "overtaken",
  /** A host expired that was never away for long. */
  "expired",
  /** A name did not resolve, or not to an address it may have, though its host never went away. */
  "withdrawn",
  /** A name resolved to an address that it had before what it was served with. */
  "stale",
  /** Something is there twice. */
  "doubled",
  /** An audit entry is missing. */
  "unaudited",
  /** There are more audit entries than changes. */
  "overaudited",
  /** The audit log is not as it was sealed. */
  "unsealed",
  /** Two servers wrote one zone at once. */
  "two-writers",
  /** DNS does not say what the registry says. */
  "diverged"
] as const
export type Rule = (typeof rules)[number]

export interface Finding {
  readonly rule: Rule
  /** The host, zone or entry. */
  readonly subject: string
  /** A sentence. */
  readonly detail: string
}

export interface Settings {
  /** How long a host may be away without a trace. */
  readonly leaseMillis: number
}

/** Events that come about without anybody's asking; `retired` too, but after a month. */
const byThemselves = new Set(["offline", "withdrawn"])

const isOnlineAt = (version: VersionRow): boolean => version.state === "online" && version.event !== "released"

const same = (a: ReadonlyArray<string>, b: ReadonlyArray<string>) =>
  a.length === b.length && [...a].sort().join() === [...b].sort().join()

const acceptedOf = (request: Request): Told | undefined => request.told.find(({ level }) => level === "accepted")
const isTold = (request: Request): boolean => request.told.length > 0
const mayHaveBeenDone = (request: Request): boolean => request.refused === undefined

const groupBy = <A>(all: ReadonlyArray<A>, keyOf: (one: A) => string): Map<string, Array<A>> => {
  const groups = new Map<string, Array<A>>()
  for (const one of all) {
    const group = groups.get(keyOf(one))
    if (group === undefined) groups.set(keyOf(one), [one])
    else group.push(one)
  }
  return groups
}

const at = (millis: number, history: History): string => {
  const start = history.requests[0]?.askedMillis ?? millis
  return `${((millis - start) / 1000).toFixed(2)} s`
}

/** All that is wrong, by rule. */
export const check = (history: History, end: EndState, settings: Settings): ReadonlyArray<Finding> => {
  const requests = groupBy(history.requests, ({ host }) => host)
  const versions = groupBy(end.versions, ({ host }) => host)
  const rows = groupBy(end.hosts, ({ host }) => host)
  const away = groupBy(history.away, ({ host }) => host)
  const polls = groupBy(history.polls, ({ host }) => host)
  return [
    ...[...requests].flatMap(([host, asked]) => [
      ...checkRegistry(host, asked, versions.get(host) ?? [], history),
      ...checkExpiry(host, versions.get(host) ?? [], away.get(host) ?? [], settings),
      ...checkPolls(host, asked, polls.get(host) ?? [], away.get(host) ?? [], settings, history)
    ]),
    ...[...rows].flatMap(([host, all]): ReadonlyArray<Finding> =>
      all.length < 2 ? [] : [{ rule: "doubled", subject: host, detail: `it is in the registry ${all.length} times` }]
    ),
    ...end.doubled.map((subject): Finding => ({ rule: "doubled", subject, detail: "the record stands there twice" })),
    ...checkVersions(end),
    ...checkAudit(end),
    ...end.chain.map((detail): Finding => ({ rule: "unsealed", subject: "audit", detail })),
    ...checkWriters(history.writes, history),
    ...checkServed(end)
  ]
}

// --- What was acknowledged ----------------------------------------------------------------------------------------

/** The last version of a host, against the last request that was acknowledged, and those after it without an answer. */
const checkRegistry = (
  host: string,
  asked: ReadonlyArray<Request>,
  versions: ReadonlyArray<VersionRow>,
  history: History
): ReadonlyArray<Finding> => {
  const findings: Array<Finding> = []
  const last = asked.findLastIndex(isTold)
  const acknowledged = asked[last]
  // Each acknowledged change is a version, as it was told.
  for (const request of asked) {
    const accepted = acceptedOf(request)
    if (accepted?.generation === undefined || accepted.outcome === "renewed") continue
    const version = versions.find(({ generation }) => generation === accepted.generation)
    if (version === undefined) {
      findings.push({
        rule: "lost",
        subject: host,
        detail: `${wordsOf(request)} was acknowledged with generation ${accepted.generation} at ${at(accepted.atMillis, history)}, and there is no such version`
      })
    } else if (request.kind === "register" && !same(version.addresses, request.addresses)) {
      findings.push({
        rule: "lost",
        subject: host,
        detail: `generation ${accepted.generation} has ${version.addresses.join(" ")}, and ${wordsOf(request)} was acknowledged with it`
      })
    }
  }
  const current = versions.at(-1)
  const possible = asked.slice(Math.max(last, 0)).filter(mayHaveBeenDone)
  if (acknowledged === undefined && current === undefined) return findings
  const isOnline = current !== undefined && isOnlineAt(current)
  const fits = possible.some((request) =>
    request.kind === "release" ? !isOnline : isOnline && same(current.addresses, request.addresses)
  )
  if (fits || findings.length > 0) return findings
  if (current !== undefined && byThemselves.has(current.event)) return findings // what `checkExpiry` looks at
  const older = asked
    .slice(0, Math.max(last, 0))
    .some((request) => isOnline && same(current.addresses, request.addresses))
  const stands =
    current === undefined ? "nothing is known of it" : `it is ${current.state} at ${current.addresses.join(" ")}`
  const was =
    acknowledged === undefined
      ? "nothing was acknowledged"
      : `the last that was acknowledged is ${wordsOf(acknowledged)}`
  findings.push({
    rule:
      acknowledged?.kind === "release" && isOnline
        ? "resurrected"
        : isOnline && older && supersedes(current, acknowledged)
          ? "overtaken"
          : "lost",
    subject: host,
    detail: `${was} at ${at(acknowledged?.askedMillis ?? 0, history)}; ${stands}, by ${current?.event ?? "nothing"} with generation ${current?.generation ?? 0}`
  })
  return findings
}

/** Written after it. */
const supersedes = (version: VersionRow, request: Request | undefined): boolean => {
  const generation = request === undefined ? undefined : acceptedOf(request)?.generation
  return generation !== undefined && version.generation > generation
}

const wordsOf = ({ addresses, kind }: Request): string =>
  kind === "release" ? "a release" : `a registration at ${addresses.join(" ")}`

/** A host that was never away for as long as its lease has no reason to expire. */
const checkExpiry = (
  host: string,
  versions: ReadonlyArray<VersionRow>,
  away: ReadonlyArray<Away>,
  { leaseMillis }: Settings
): ReadonlyArray<Finding> => {
  const wasAway = away.some(({ fromMillis, toMillis }) => (toMillis ?? Infinity) - fromMillis >= leaseMillis)
  const expired = versions.find(({ event }) => byThemselves.has(event))
  return wasAway || expired === undefined
    ? []
    : [
        {
          rule: "expired",
          subject: host,
          detail: `it went ${expired.event} with generation ${expired.generation}, and was never away for ${leaseMillis} ms`
        }
      ]
}

// --- What was answered in between ----------------------------------------------------------------------------------

/**
 * Once a host was served, each answer has an address that was asked for at some time and that may still hold: one of the
 * last that was acknowledged as served, or of any asked later. No answer is empty, unless a release was asked for.
 */
const checkPolls = (
  host: string,
  asked: ReadonlyArray<Request>,
  polls: ReadonlyArray<Poll>,
  away: ReadonlyArray<Away>,
  { leaseMillis }: Settings,
  history: History
): ReadonlyArray<Finding> => {
  const findings: Array<Finding> = []
  for (const poll of polls) {
    if (poll.addresses === undefined) continue
    const wasAway = away.some(
      ({ fromMillis, toMillis }) =>
        fromMillis < poll.toldMillis && Math.min(toMillis ?? Infinity, poll.toldMillis) - fromMillis >= leaseMillis
    )
    if (wasAway) continue
    const settled = asked.findLastIndex((request) =>
      request.told.some(({ atMillis, level }) => level === "served" && atMillis <= poll.askedMillis)
    )
    if (settled < 0) continue
    const possible = asked
      .slice(settled)
      .filter((request) => mayHaveBeenDone(request) && request.askedMillis <= poll.toldMillis)
    const fits =
      poll.addresses.length === 0
        ? possible.some(({ kind }) => kind === "release")
        : possible.some((request) => request.kind === "register" && same(request.addresses, poll.addresses!))
    if (fits) continue
    const isOld = poll.addresses.length > 0 && asked.some(({ addresses }) => same(addresses, poll.addresses!))
    findings.push({
      rule: isOld ? "stale" : "withdrawn",
      subject: host,
      detail: `${poll.node} answered ${poll.addresses.join(" ") || "nothing"} at ${at(poll.askedMillis, history)}, when ${wordsOf(asked[settled]!)} had been served`
    })
  }
  // One of a rule tells enough of a host.
  return findings.filter(({ rule }, i) => findings.findIndex((each) => each.rule === rule) === i)
}

// --- History and audit ---------------------------------------------------------------------------------------------

const checkVersions = ({ hosts, versions }: EndState): ReadonlyArray<Finding> => {
  const findings: Array<Finding> = []
  const rows = new Map(hosts.map((host) => [host.id, host]))
  for (const [id, all] of groupBy(versions, ({ id }) => id)) {
    const generations = all.map(({ generation }) => generation)
    if (new Set(generations).size < generations.length) {
      findings.push({ rule: "doubled", subject: all[0]!.host, detail: "two versions of it have one generation" })
    }
    const row = rows.get(id)
    const current = all.filter(({ isCurrent }) => isCurrent)
    if (row !== undefined && (current.length !== 1 || current[0]!.generation !== row.generation)) {
      findings.push({
        rule: "lost",
        subject: row.host,
        detail: `its row has generation ${row.generation}, its history ${current.map(({ generation }) => generation).join(" ") || "none"}`
      })
    }
  }
  return findings
}

const entryOf = (host: string, event: string, generation: number) => `host.${event} ${host} ${generation}`

/** Exactly one entry for each version. */
const checkAudit = ({ audit, versions }: EndState): ReadonlyArray<Finding> => {
  const entries = new Map<string, number>()
  for (const { action, generation, subject } of audit) {
    const entry = `${action} ${subject} ${generation}`
    entries.set(entry, (entries.get(entry) ?? 0) + 1)
  }
  const findings: Array<Finding> = []
  for (const { event, generation, host } of versions) {
    const entry = entryOf(host, event, generation)
    const count = entries.get(entry) ?? 0
    entries.delete(entry)
    if (count === 0) findings.push({ rule: "unaudited", subject: host, detail: `${entry} has no entry` })
    if (count > 1) findings.push({ rule: "overaudited", subject: host, detail: `${entry} has ${count} entries` })
  }
  for (const entry of entries.keys()) {
    findings.push({
      rule: "overaudited",
      subject: entry.split(" ")[1]!,
      detail: `${entry} has an entry, and no version`
    })
  }
  return findings
}

// --- PowerDNS ------------------------------------------------------------------------------------------------------

/** No write of a zone begins while another server's is being carried out. */
const checkWriters = (writes: ReadonlyArray<Write>, history: History): ReadonlyArray<Finding> => {
  const findings: Array<Finding> = []
  for (const [zone, all] of groupBy(writes, ({ zone }) => zone)) {
    let latest: Write | undefined
    for (const write of [...all].sort((a, b) => a.fromMillis - b.fromMillis)) {
      const end = latest?.toMillis ?? latest?.fromMillis ?? 0
      if (latest !== undefined && latest.server !== write.server && write.fromMillis < end) {
        findings.push({
          rule: "two-writers",
          subject: zone,
          detail:
            `${write.server} wrote from ${at(write.fromMillis, history)} on, ` +
            `${latest.server} from ${at(latest.fromMillis, history)} to ${at(end, history)}`
        })
        break
      }
      if (latest === undefined || (write.toMillis ?? write.fromMillis) >= end) latest = write
    }
  }
  return findings
}

/** Every node answers what the registry says, no more and no less. */
const checkServed = ({ hosts, served }: EndState): ReadonlyArray<Finding> => {
  const findings: Array<Finding> = []
  const online = hosts.filter(({ state }) => state === "online")
  const holders = new Map<string, Array<string>>()
  for (const { addresses, host } of online) {
    for (const address of addresses) holders.set(address, [...(holders.get(address) ?? []), host])
  }
  for (const [address, all] of holders) {
    if (all.length > 1) findings.push({ rule: "doubled", subject: address, detail: `${all.join(" and ")} have it` })
  }
  const expected = new Map(online.map(({ addresses, host }) => [host, addresses]))
  for (const { forward, node, reverse } of served) {
    for (const name of new Set([...expected.keys(), ...forward.keys()])) {
      const wanted = expected.get(name) ?? []
      const found = forward.get(name) ?? []
      if (!same(wanted, found)) {
        findings.push({
          rule: found.length > new Set(found).size ? "doubled" : "diverged",
          subject: name,
          detail: `${node} answers ${found.join(" ") || "nothing"}, the registry says ${wanted.join(" ") || "nothing"}`
        })
      }
    }
    for (const address of reverse === undefined ? [] : new Set([...holders.keys(), ...reverse.keys()])) {
      const wanted = holders.get(address) ?? []
      const found = reverse?.get(address) ?? []
      if (!same(wanted, found)) {
        findings.push({
          rule: "diverged",
          subject: address,
          detail: `${node} answers ${found.join(" ") || "nothing"}, the registry says ${wanted.join(" ") || "nothing"}`
        })
      }
    }
  }
  return findings
}

/** For people: how many of each rule, and the first of them. */
export const describe = (findings: ReadonlyArray<Finding>, shown = 5): string =>
  [...groupBy(findings, ({ rule }) => rule)]
    .map(([rule, all]) =>
      [`${rule}: ${all.length}`, ...all.slice(0, shown).map(({ detail, subject }) => `  ${subject}: ${detail}`)].join(
        "\n"
      )
    )
    .join("\n")
