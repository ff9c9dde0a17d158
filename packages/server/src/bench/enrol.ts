/**
 * Enrolments by protocol 2.0: how many agents a second get an identity of their
 * own, each with a one-time token and a new Ed25519 key, on a connection of its
 * own; and how many come back with their key. Beside it, in the same run, what
 * neither can do without: the signatures, the connections and frames, the rows.
 */
import * as Proof from "@prism-dns/core/protocol/Proof"
import { Effect } from "effect"
import * as Crypto from "node:crypto"
import * as Fs from "node:fs"
import * as Path from "node:path"
import * as BareParts from "./BareParts.ts"
import { backendOf, type Benchmark, figure, median, type Options } from "./Benchmark.ts"
import * as Load from "./Load.ts"
import * as Servers from "./Servers.ts"
import { cpuSeconds, progress, temporaryFolder } from "./Workspace.ts"

const agentsByDefault = 2000
const atOnceMax = 100
/** Tokens that are being issued at once. */
const issuingMax = 8
/** Identities in one transaction, where they share them. */
const batchMax = 100

const cpuOf = (pid: number) => cpuSeconds(pid) ?? Number.NaN

const issueTokens = (server: Servers.Prism, count: number) =>
  Effect.forEach(
    Array.from({ length: count }, (_, i) => i),
    (i) =>
      Effect.map(
        Servers.post<{ readonly token: string }>(server, "/tokens", {
          name: `enrol-${i}`,
          role: "agent",
          allows: "enrol",
          usesMax: 1,
          reason: "bench"
        }),
        ({ token }) => token
      ),
    { concurrency: issuingMax }
  )

/** Seconds in which one thread checks as many signatures, keys already read. */
const verifyEach = (count: number) =>
  Effect.sync(() => {
    const { privateKey, publicKey } = Crypto.generateKeyPairSync("ed25519")
    const signed = Buffer.from(`prism-dns/2\nkey\n${Proof.makeNonce()}\n${Proof.exportPublicKey(publicKey)}\nplain`)
    const signature = Crypto.sign(null, signed, privateKey)
    const start = performance.now()
    for (let i = 0; i < count; i++) Crypto.verify(null, signed, publicKey, signature)
    return (performance.now() - start) / 1000
  })

const subfolder = (parent: string, name: string): string => {
  const folder = Path.join(parent, name)
  Fs.mkdirSync(folder, { recursive: true })
  return folder
}

const run = Effect.fnUntraced(function* (options: Options) {
  const agents = options.hosts ?? agentsByDefault
  const folder = yield* temporaryFolder

  const rounds = yield* Effect.forEach(
    Array.from({ length: options.rounds }, (_, i) => i + 1),
    Effect.fnUntraced(function* (round) {
      const own = subfolder(folder, `${round}`)
      const powerDns = yield* Servers.powerDns(own, backendOf(options))
      const server = yield* Servers.prism({
        folder: own,
        powerDns,
        profile: options.profile,
        zones: Servers.forwardOnly
      })
      const bare = yield* Servers.bare(subfolder(own, "bare"))
      const load = yield* Load.start(own, "load")
      yield* load.perform({ _tag: "Keys", first: 0, hosts: agents })
      const tokens = yield* issueTokens(server, agents)

      const target = { port: server.port, tls: undefined, atOnceMax }
      const cpuBefore = cpuOf(server.pid)
      const enrolled = yield* load.perform({ _tag: "Enrol", target, tokens })
      const cpuBetween = cpuOf(server.pid)
      const proven = yield* load.perform({ _tag: "Prove", target, bare: false })
      const cpuAfter = cpuOf(server.pid)

      const connections = yield* load.perform({ _tag: "Prove", target: { ...target, port: bare.port }, bare: true })
      const verified = yield* verifyEach(agents)
      const rowsEach = yield* BareParts.insertIdentities(server.registry, own, 1)
      const rowsShared = yield* BareParts.insertIdentities(server.registry, own, batchMax)
      yield* progress(
        `round ${round} of ${options.rounds}: ${Math.round(agents / enrolled.seconds)} enrolments/s, ${Math.round(agents / proven.seconds)} proofs/s`
      )
      return {
        enrolled: enrolled.seconds,
        proven: proven.seconds,
        enrolCpu: ((cpuBetween - cpuBefore) / agents) * 1e6,
        proveCpu: ((cpuAfter - cpuBetween) / agents) * 1e6,
        connections: connections.seconds,
        verified,
        rowsEach,
        rowsShared
      }
    }, Effect.scoped)
  )

  type Round = (typeof rounds)[number]
  const over = (f: (round: Round) => number) => rounds.map(f)
  const perSecond = (f: (round: Round) => number) =>
    figure(
      "1/s",
      over((round) => agents / f(round))
    )
  return {
    figures: {
      agents: figure("1", agents),
      prism_enrolments: perSecond(({ enrolled }) => enrolled),
      prism_enrolment_cpu: figure(
        "us",
        over(({ enrolCpu }) => enrolCpu)
      ),
      prism_proofs: perSecond(({ proven }) => proven),
      prism_proof_cpu: figure(
        "us",
        over(({ proveCpu }) => proveCpu)
      ),
      bare_verifications: perSecond(({ verified }) => verified),
      bare_connections: perSecond(({ connections }) => connections),
      bare_rows_each: perSecond(({ rowsEach }) => rowsEach),
      bare_rows_shared: perSecond(({ rowsShared }) => rowsShared)
    },
    ratios: {
      enrolments_over_bare_parts: median(
        over(({ connections, enrolled, rowsShared, verified }) => enrolled / (connections + rowsShared + verified))
      ),
      enrolments_over_bare_parts_each: median(
        over(({ connections, enrolled, rowsEach, verified }) => enrolled / (connections + rowsEach + verified))
      ),
      proofs_over_bare_parts: median(over(({ connections, proven, verified }) => proven / (connections + verified)))
    },
    targets: {}
  }
})

export const enrol: Benchmark = {
  name: "enrol",
  description: `N agents (${agentsByDefault}) enrol, each with a token and a key of its own, and come back with the key.`,
  backends: ["sqlite", "lmdb"],
  run
}
