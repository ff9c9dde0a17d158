/** What a benchmark ran on: figures without it say nothing. */
import { spawnSync } from "node:child_process"
import * as Fs from "node:fs"
import * as Os from "node:os"

export interface Machine {
  readonly cpu: string
  readonly cores: number
  readonly memoryBytes: number
  readonly system: string
  readonly node: string
  /** The SQLite inside Node, which keeps the registry. */
  readonly sqlite: string
  /** Programs that a benchmark may use, as far as they are installed. */
  readonly powerdns: string | null
  readonly bind: string | null
  readonly postgres: string | null
  readonly knot: string | null
  readonly nsd: string | null
  readonly dnsperf: string | null
}

/** PATH of ordinary users lacks the folders of servers. */
export const searchPath = `${process.env["PATH"] ?? ""}:/usr/sbin:/usr/local/sbin:/opt/homebrew/sbin`

/** Folder of PostgreSQL's programs, of the newest version; empty where they are on the PATH. */
export const postgresPrograms = (): string => {
  const debian = "/usr/lib/postgresql"
  const versions = Fs.existsSync(debian) ? Fs.readdirSync(debian) : []
  const newest = versions
    .filter((version) => Fs.existsSync(`${debian}/${version}/bin/initdb`))
    .sort((a, b) => Number(b) - Number(a))[0]
  if (newest !== undefined) return `${debian}/${newest}/bin/`
  const fedora = Fs.existsSync("/usr") ? Fs.readdirSync("/usr").find((name) => name.startsWith("pgsql-")) : undefined
  return fedora === undefined ? "" : `/usr/${fedora}/bin/`
}

/** What `pattern` finds in what `program` says of itself, whatever its exit code; null when it is not installed. */
const ask = (program: string, argument: string, pattern: RegExp): string | null => {
  const { stderr, stdout } = spawnSync(program, [argument], {
    encoding: "utf8",
    env: { ...process.env, PATH: searchPath }
  })
  return pattern.exec(`${stdout}${stderr}`)?.[1] ?? null
}

export const describe = (): Machine => ({
  cpu: Os.cpus()[0]?.model.trim() ?? "unknown",
  cores: Os.availableParallelism(),
  memoryBytes: Os.totalmem(),
  system: `${Os.type()} ${Os.release()} ${Os.arch()}`,
  node: process.version,
  sqlite: process.versions["sqlite"] ?? "unknown",
  powerdns: ask("pdns_server", "--version", /(?:Server|version) ([\d.]+\S*)/),
  bind: ask("named", "-v", /BIND ([\d.]+\S*)/),
  postgres: ask(`${postgresPrograms()}postgres`, "--version", /PostgreSQL\) ([\d.]+)/),
  knot: ask("knotd", "--version", /version ([\d.]+)/),
  nsd: ask("nsd", "-v", /NSD version ([\d.]+)/),
  dnsperf: ask("dnsperf", "-h", /Version ([\d.]+)/)
})

/**
 * Files and connections that one process may have open. Node takes its limit up as far as it may by itself; Infinity
 * where there is none, or nobody tells.
 */
export const openFilesMax = (): number => {
  const { stdout } = spawnSync("sh", ["-c", "ulimit -H -n"], { encoding: "utf8" })
  const limit = Number.parseInt(stdout, 10)
  return Number.isInteger(limit) ? limit : Infinity
}

/** The cores of a server that is measured and of whoever sends to it; undefined where they cannot be told apart. */
export const pinnedCores = (): { readonly server: number; readonly load: number } | undefined => {
  const { stdout } = spawnSync("taskset", ["--cpu-list", "--pid", `${process.pid}`], { encoding: "utf8" })
  const [server, load] = cores(/: ([\d,-]+)\s*$/.exec(stdout ?? "")?.[1] ?? "")
  return server === undefined || load === undefined ? undefined : { server, load }
}

/** The first two of a list like `0,2-7`. */
const cores = (list: string): ReadonlyArray<number> =>
  list
    .split(",")
    .filter((part) => part !== "")
    .flatMap((part) => {
      const [first, last] = part.split("-").map(Number)
      return last === undefined || last === first ? [first!] : [first!, first! + 1]
    })
    .slice(0, 2)

const programs = [
  ["PostgreSQL", "postgres"],
  ["PowerDNS", "powerdns"],
  ["BIND", "bind"],
  ["Knot DNS", "knot"],
  ["NSD", "nsd"],
  ["dnsperf", "dnsperf"]
] as const

/** In one line, for people. */
export const line = (machine: Machine): string =>
  [
    `${machine.cpu}, ${machine.cores} cores`,
    `${(machine.memoryBytes / 2 ** 30).toFixed(1)} GiB`,
    machine.system,
    `Node ${machine.node}`,
    `SQLite ${machine.sqlite}`,
    ...programs.map(([name, version]) => `${name} ${machine[version] ?? "missing"}`)
  ].join(" · ")
