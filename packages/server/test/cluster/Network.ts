/**
 * Addresses for the machines of a cluster, and cuts between them.
 *
 * As root on Linux each Prism server has a network namespace of its own, joined
 * to the rest by a pair of virtual interfaces, and `cut` drops what it says and
 * hears: nothing is refused, nothing is reset, packets are gone. Everything else
 * lives outside, on addresses of its own. Elsewhere all have loopback addresses,
 * and `unable` says why nothing can be cut.
 *
 * Promises: gone with the scope, and what a killed run left behind is gone with
 * the next; two runs on one machine do not meet. Leaves to others: which
 * programs run where.
 */
import { Effect, type Scope } from "effect"
import * as ChildProcess from "node:child_process"
import * as Fs from "node:fs"
import { tmpdir } from "node:os"
import * as Path from "node:path"

/** Where a program runs. */
export interface Place {
  readonly address: string
  /** What its command begins with, to run there. */
  readonly command: ReadonlyArray<string>
  /** Where connections from the outside come from, as it sees them, unless they say otherwise. */
  readonly gateway: string
  readonly namespace: string | undefined
}

export interface Network {
  /** Why nothing can be cut; undefined: it can. */
  readonly unable: string | undefined
  /** The network that all are in. */
  readonly prefix: string
  /** The `n`-th address outside, from 1 on. */
  readonly outside: (n: number) => string
  /** A place of its own for the `n`-th server, from 1 on. */
  readonly place: (n: number) => Effect.Effect<Place, never, Scope.Scope>
  /** From now on nothing passes between the place and these addresses; without any: the whole outside. */
  readonly cut: (place: Place, from?: ReadonlyArray<string>) => Effect.Effect<void>
  /** All passes again. */
  readonly heal: (place: Place) => Effect.Effect<void>
}

/** Of 198.18.0.0/15, which is set aside for tests of networks: a /24 for each run at a time. */
const subnets = 250
/** Addresses of a subnet from here on are those of servers, four for each: the pair's ends are the second and third. */
const firstOfServers = 128
export const serversMax = (252 - firstOfServers) / 4

const claims = Path.join(tmpdir(), `prism-test-networks-${process.getuid?.() ?? 0}`)

const isAlive = (pid: number): boolean => {
  try {
    process.kill(pid, 0)
    return true
  } catch {
    return false
  }
}

const run = (program: string, ...args: ReadonlyArray<string>): string =>
  ChildProcess.execFileSync(program, args, { encoding: "utf8", stdio: ["ignore", "pipe", "pipe"] })

const quietly = (program: string, ...args: ReadonlyArray<string>): void => {
  ChildProcess.spawnSync(program, args, { stdio: "ignore" })
}

const namespaceOf = (subnet: number, n: number) => `prism-${subnet}-${n}`

const interfaceOf = (subnet: number, n: number) => `prism${subnet}-${n}`

/** A namespace takes its interface with it, but only when the last process in it has ended. */
const removePlace = (subnet: number, n: number) => {
  quietly("ip", "link", "del", interfaceOf(subnet, n))
  quietly("ip", "netns", "del", namespaceOf(subnet, n))
}

const clear = (subnet: number) => {
  for (let n = 1; n <= serversMax; n++) {
    if (Fs.existsSync(`/run/netns/${namespaceOf(subnet, n)}`)) removePlace(subnet, n)
  }
  quietly("ip", "route", "del", "local", `198.18.${subnet}.0/25`, "dev", "lo")
}

/** A subnet that nobody on this machine has; what is claimed by a process that is gone is taken over. */
const claimSubnet = (): number => {
  Fs.mkdirSync(claims, { recursive: true })
  for (let subnet = 1; subnet <= subnets; subnet++) {
    const file = Path.join(claims, `${subnet}`)
    if (Fs.existsSync(file) && !isAlive(Number(Fs.readFileSync(file, "utf8")))) {
      clear(subnet)
      Fs.rmSync(file, { force: true })
    }
    try {
      Fs.writeFileSync(file, `${process.pid}`, { flag: "wx" })
      return subnet
    } catch {
      // somebody else's
    }
  }
  throw new Error(`all ${subnets} networks for tests are taken; see ${claims}`)
}

const release = (subnet: number) => {
  clear(subnet)
  Fs.rmSync(Path.join(claims, `${subnet}`), { force: true })
}

/** Tried, not guessed: rights, kernel and programs all have to be there. */
const inability = (): string | undefined => {
  if (process.platform !== "linux") return "network namespaces are Linux's"
  if (process.getuid?.() !== 0) return "network namespaces need root"
  const probe = `prism-probe-${process.pid}`
  try {
    run("ip", "netns", "add", probe)
    run("ip", "netns", "exec", probe, "nft", "add", "table", "inet", "cut")
    return undefined
  } catch (error) {
    const said = error instanceof Error && "stderr" in error ? String(error.stderr).trim() : ""
    return `network namespaces do not work here: ${said === "" ? String(error) : said}`
  } finally {
    quietly("ip", "netns", "del", probe)
  }
}

const table = `
table inet cut {
  set away { type ipv4_addr; flags interval; }
  chain in { type filter hook input priority 0; policy accept; ip saddr @away drop; }
  chain out { type filter hook output priority 0; policy accept; ip daddr @away drop; }
}
`

export const make: Effect.Effect<Network, never, Scope.Scope> = Effect.gen(function* () {
  const unable = yield* Effect.sync(inability)
  if (unable !== undefined) return yield* onLoopback(unable)
  const subnet = yield* Effect.acquireRelease(Effect.sync(claimSubnet), (subnet) => Effect.sync(() => release(subnet)))
  const atExit = () => release(subnet)
  yield* Effect.acquireRelease(
    Effect.sync(() => process.on("exit", atExit)),
    () => Effect.sync(() => process.off("exit", atExit))
  )
  // The lower half are all addresses of this machine, without an interface for each.
  yield* Effect.sync(() => run("ip", "route", "add", "local", `198.18.${subnet}.0/25`, "dev", "lo"))

  const nft = (namespace: string, ...words: ReadonlyArray<string>) =>
    Effect.sync(() => void run("ip", "netns", "exec", namespace, "nft", words.join(" ")))

  return {
    unable: undefined,
    prefix: `198.18.${subnet}.0/24`,
    outside: (n) => `198.18.${subnet}.${n}`,
    place: (n) =>
      Effect.acquireRelease(
        Effect.sync((): Place => {
          const namespace = namespaceOf(subnet, n)
          const at = firstOfServers + 4 * (n - 1)
          const [gateway, address] = [`198.18.${subnet}.${at + 1}`, `198.18.${subnet}.${at + 2}`]
          const [ours, theirs] = [interfaceOf(subnet, n), "outside"]
          const ip = (words: string) => run("ip", ...words.split(" "))
          ip(`netns add ${namespace}`)
          ip(`link add ${ours} type veth peer name ${theirs} netns ${namespace}`)
          ip(`addr add ${gateway}/30 dev ${ours}`)
          ip(`link set ${ours} up`)
          ip(`-n ${namespace} addr add ${address}/30 dev ${theirs}`)
          ip(`-n ${namespace} link set lo up`)
          ip(`-n ${namespace} link set ${theirs} up`)
          ip(`-n ${namespace} route add default via ${gateway}`)
          ChildProcess.execFileSync("ip", ["netns", "exec", namespace, "nft", "-f", "-"], { input: table })
          return { address, gateway, namespace, command: ["ip", "netns", "exec", namespace] }
        }),
        () => Effect.sync(() => removePlace(subnet, n))
      ),
    cut: ({ namespace }, from = [`198.18.${subnet}.0/24`]) =>
      // Both its own address and the loopback's stay: a server speaks to itself.
      nft(namespace!, "add element inet cut away {", from.join(", "), "}"),
    heal: ({ namespace }) => nft(namespace!, "flush set inet cut away")
  }
})

const onLoopback = (unable: string) =>
  Effect.sync((): Network => {
    // Ports are told apart by who claims them, so addresses may be the same in two runs.
    const cannot = () => Effect.die(new Error(`nothing can be cut: ${unable}`))
    return {
      unable,
      prefix: "127.0.0.0/8",
      outside: (n) => `127.9.0.${n}`,
      place: (n) =>
        Effect.succeed({ address: `127.9.1.${n}`, gateway: "127.0.0.1", namespace: undefined, command: [] }),
      cut: cannot,
      heal: cannot
    }
  })
