import { assert, describe, it } from "@effect/vitest"
import * as ChildProcess from "node:child_process"
import * as Fs from "node:fs"
import { tmpdir } from "node:os"
import * as Path from "node:path"
import { afterEach, beforeEach } from "vitest"

const main = Path.join(import.meta.dirname, "../../src/bench/main.ts")

let folder = ""
beforeEach(() => {
  folder = Fs.mkdtempSync(Path.join(tmpdir(), "prism-bench-test-"))
  // PostgreSQL does not run as root, and has to get to its own folder.
  Fs.chmodSync(folder, 0o755)
})
afterEach(() => Fs.rmSync(folder, { recursive: true, force: true }))

interface Ended {
  readonly code: number | null
  readonly stdout: string
  readonly stderr: string
}

/** Runs `./prism bench` with a temp folder of its own; `onStderr` sees what it has said so far. */
const bench = (
  args: ReadonlyArray<string>,
  onStderr: (text: string, child: ChildProcess.ChildProcess) => void = () => undefined
) =>
  new Promise<Ended>((resolve, reject) => {
    const child = ChildProcess.spawn(process.execPath, ["--conditions=@prism-dns/source", main, ...args], {
      env: { ...process.env, TMPDIR: folder },
      stdio: ["ignore", "pipe", "pipe"]
    })
    let stdout = ""
    let stderr = ""
    child.stdout.on("data", (chunk: Buffer) => (stdout += chunk.toString()))
    child.stderr.on("data", (chunk: Buffer) => {
      stderr += chunk.toString()
      onStderr(stderr, child)
    })
    child.once("error", reject)
    child.once("close", (code) => resolve({ code, stdout, stderr }))
  })

interface Output {
  readonly bench: string
  readonly machine: Readonly<Record<string, unknown>>
  readonly figures: Readonly<Record<string, { readonly value: unknown; readonly unit: unknown }>>
  readonly ratios: Readonly<Record<string, unknown>>
  readonly targets: Readonly<
    Record<string, { readonly want: unknown; readonly got: unknown; readonly met: unknown; readonly atLeast?: unknown }>
  >
}

const isNumber = (value: unknown) => typeof value === "number" && Number.isFinite(value)

/** Runs a benchmark and checks that it gives the object that outside programs rely on. */
const output = async (name: string, ...args: ReadonlyArray<string>): Promise<Output> => {
  const ended = await bench([name, "--json", "--rounds", "1", ...args])
  assert.strictEqual(ended.code, 0, ended.stderr)
  const output = JSON.parse(ended.stdout) as Output
  assert.deepStrictEqual(Object.keys(output), ["bench", "machine", "figures", "ratios", "targets"])
  assert.strictEqual(output.bench, name)
  assert.include(output.machine, { node: process.version })
  for (const [figure, { unit, value }] of Object.entries(output.figures)) {
    assert.isTrue(isNumber(value), `${figure} is ${String(value)}`)
    assert.typeOf(unit, "string", figure)
  }
  for (const [ratio, value] of Object.entries(output.ratios)) assert.isTrue(isNumber(value), ratio)
  for (const [target, { atLeast, got, met, want }] of Object.entries(output.targets)) {
    assert.strictEqual(got, output.ratios[target] ?? output.figures[target]?.value, target)
    assert.strictEqual(met, atLeast === true ? Number(got) >= Number(want) : Number(got) < Number(want), target)
  }
  assert.deepStrictEqual(Fs.readdirSync(folder), [], "its folder is gone")
  return output
}

const positive = (output: Output, ...names: ReadonlyArray<string>) => {
  for (const name of names) assert.isAbove(Number(output.figures[name]?.value), 0, name)
}

describe("bench", () => {
  it("registrations measures the whole, its bare parts, and what one would use instead", async () => {
    const result = await output("registrations", "--hosts", "20")
    positive(result, "prism", "bare_connections", "bare_rows", "bare_patches", "bind_updates", "powerdns_patch_each")
    positive(result, "durable_sqlite", "durable_postgres")
    assert.deepStrictEqual(Object.keys(result.targets), [
      "durable_sqlite_over_bare_insert",
      "durable_postgres_over_bare_insert",
      "prism_over_bare_parts",
      "prism_over_bind"
    ])
  })

  it("registrations runs on PowerDNS's LMDB backend", async () => {
    positive(await output("registrations", "--hosts", "20", "--backend", "lmdb"), "prism")
  })

  it("heartbeats finds that beats write nothing", async () => {
    const result = await output("heartbeats", "--hosts", "5")
    positive(result, "prism_beats", "bare_beats", "prism_connection_per_beat", "bare_connection_per_beat")
    assert.include(result.targets["database_commits_per_beat"], { met: true })
  })

  it("connections measures the memory of each", async () => {
    positive(await output("connections", "--hosts", "2000"), "prism_heap", "bare_heap")
  })

  it("publish measures each backend and size beside bare PATCHes", async () => {
    const result = await output("publish", "--sizes", "1000", "--seconds", "1")
    const names = ["sqlite", "lmdb", "pgsql"].map((backend) => `${backend}_1000`)
    for (const name of names) positive(result, `prism_${name}`, `bare_${name}`)
    assert.deepStrictEqual(
      Object.keys(result.targets),
      names.map((name) => `prism_over_bare_${name}`)
    )
  }, 120_000)

  it("served-latency finds each change served, and every name server right", async () => {
    const args = ["--backend", "sqlite", "--hosts", "100", "--rates", "20", "--seconds", "2"]
    const result = await output("served-latency", ...args)
    positive(result, "applied_p99_20", "served_p99_20", "applied_p99_20_axfr", "served_p99_20_axfr")
    for (const name of ["20", "20_axfr"]) assert.include(result.figures[`wrong_after_served_${name}`], { value: 0 })
  }, 120_000)

  it("reconcile finds a zone in step without writing, and what was changed by hand", async () => {
    const result = await output("reconcile", "--sizes", "3000")
    positive(result, "prism_3000", "bare_export_3000", "bare_select_3000", "rss_peak_3000", "drift_plan_3000")
    assert.include(result.figures["writes_3000"], { value: 0 })
    assert.include(result.figures["drift_names_3000"], { value: 30 })
  })

  it("sessions measures the memory of each beyond its socket", async () => {
    const result = await output("sessions", "--sizes", "2000")
    positive(result, "prism_heap_2000", "bare_heap_2000", "prism_welcomed_2000", "prism_registered_2000")
    assert.include(result.figures["processes_2000"], { value: 1 })
    assert.deepStrictEqual(Object.keys(result.targets), ["rss_above_bare_2000"])
  }, 120_000)

  it("sessions does so over TLS", async () => {
    const result = await output("sessions", "--sizes", "500", "--tls")
    positive(result, "prism_heap_500_tls", "bare_heap_500_tls", "prism_welcomed_500_tls")
    assert.deepStrictEqual(Object.keys(result.targets), ["rss_above_bare_500_tls"])
  }, 120_000)

  it("sdk-size installs the SDK alone, and imports it", async () => {
    const result = await output("sdk-size")
    positive(result, "tarball", "import", "bare_node", "node_with_import")
    assert.include(result.figures["packages"], { value: 1 })
    assert.include(result.targets["installed"], { met: true })
    assert.deepStrictEqual(Object.keys(result.targets), ["installed", "packages", "import", "import_with_engine"])
  }, 120_000)

  it("beats measures what one core takes beside a bare loop, and finds that beats write nothing", async () => {
    const result = await output("beats", "--hosts", "20", "--seconds", "1")
    positive(result, "prism_beats", "bare_beats", "prism_beats_8_in_flight", "bare_beats_8_in_flight")
    assert.include(result.targets["database_commits_per_beat"], { met: true })
    assert.hasAllKeys(result.targets, ["prism_over_bare", "prism_over_bare_by_cpu", "database_commits_per_beat"])
  }, 120_000)

  it("enrol measures enrolments and proofs beside their parts", async () => {
    const result = await output("enrol", "--hosts", "50")
    positive(result, "prism_enrolments", "prism_proofs", "bare_verifications", "bare_connections", "bare_rows_each")
  }, 120_000)

  it("restart finds every agent back after a crash of the server, and no name absent meanwhile", async () => {
    const result = await output("restart", "--hosts", "50", "--seconds", "2")
    positive(result, "all_back", "reconnects_busiest_second", "lookups")
    assert.include(result.figures["sessions_after"], { value: 50 })
    assert.include(result.figures["online_after"], { value: 50 })
    assert.include(result.figures["lookups_failed"], { value: 0 })
    assert.include(result.targets["all_back_over_beat"], { met: true })
  }, 180_000)

  it("history asks for lists by every filter, of now and of the past, histories and explanations", async () => {
    const result = await output("history", "--hosts", "1000", "--rows", "5000", "--seconds", "1")
    positive(result, "list_all_p95", "then_labels_p50", "history_p95", "explain_host_p95", "bare_http_p95")
    assert.include(result.figures["hosts"], { value: 1000 })
    assert.include(result.figures["history_rows"], { value: 5000 })
    assert.deepStrictEqual(Object.keys(result.targets), ["worst_p95"])
  }, 180_000)

  it("resolvable stands beside dynamic updates to BIND and Knot DNS", async () => {
    const result = await output("resolvable", "--sizes", "200")
    positive(result, "prism_200", "bare_parts_200", "bind_updates_1_in_flight_200", "knot_updates_16_in_flight_200")
    positive(result, "powerdns_patch_each_200", "prism_server_cpu_per_host_200")
    assert.hasAllKeys(result.targets, ["prism_over_bare_parts_200", "prism_over_bind_200", "prism_over_knot_200"])
  }, 180_000)

  it("million registers hosts in several zones, and has each change of theirs served", async () => {
    const result = await output("million", "--hosts", "400", "--rates", "40", "--seconds", "1")
    positive(result, "database_400", "wal_bytes_per_change_400", "change_served_p95_400", "postgres_memory_400")
    positive(result, "server_cpu_per_registration_400", "powerdns_bytes_per_host_400")
  }, 180_000)

  it("cluster measures two servers on one database beside one", async () => {
    const result = await output("cluster", "--hosts", "200", "--seconds", "1")
    for (const name of ["registrations", "beats", "reads"]) {
      positive(result, `${name}_per_second_1`, `${name}_per_second_2`, `${name}_server_cpu_2`)
    }
    assert.hasAllKeys(result.targets, ["registrations_cpu_2_over_1", "beats_cpu_2_over_1", "reads_cpu_2_over_1"])
  }, 180_000)

  it("dnsperf asks PowerDNS as we set it up, as it comes, and NSD while records change", async () => {
    const args = ["--hosts", "300", "--seconds", "1", "--rates", "50", "--backend", "lmdb"]
    const result = await output("dnsperf", ...args)
    positive(result, "prism_publishes_lmdb", "prism_publishes_lmdb_patches", "stock_patch_each_lmdb", "nsd_reloaded")
    assert.deepStrictEqual(Object.keys(result.targets), ["prism_publishes_lmdb"])
  }, 180_000)

  it("ends all it started when it is interrupted in the middle", async () => {
    let interrupted = false
    const ended = await bench(["registrations", "--hosts", "3000"], (stderr, child) => {
      if (interrupted || !stderr.includes("round 1 of 3: Prism")) return
      interrupted = true
      child.kill("SIGINT")
    })
    assert.isTrue(interrupted)
    assert.notStrictEqual(ended.code, 0)
    assert.strictEqual(ended.stdout, "")
    assert.deepStrictEqual(Fs.readdirSync(folder), [])
    const processes = ChildProcess.execFileSync("ps", ["-eo", "args"], { encoding: "utf8" })
    assert.notInclude(processes, folder)
  }, 180_000)

  it("a report stores what a benchmark gave, and writes the page", async () => {
    const docs = Path.join(folder, "docs")
    const ended = await bench(["--report", "connections", "--quick", "--docs", docs])
    assert.strictEqual(ended.code, 0, ended.stderr)
    const stored = JSON.parse(Fs.readFileSync(Path.join(docs, "performance/connections.json"), "utf8")) as Output & {
      readonly quick: unknown
    }
    assert.strictEqual(stored.bench, "connections")
    assert.isTrue(stored.quick)
    const page = Fs.readFileSync(Path.join(docs, "performance.md"), "utf8")
    assert.include(page, "`./prism bench connections --rounds 1 --hosts 500`")
    for (const name of Object.keys(stored.figures)) assert.include(page, `| \`${name}\` |`)
    const unknown = await bench(["--report", "nothing", "--docs", docs])
    assert.strictEqual(unknown.code, 2)
  }, 180_000)

  it("lists what there is, and refuses what there is not", async () => {
    const list = await bench(["--list"])
    assert.strictEqual(list.code, 0)
    assert.deepStrictEqual(
      list.stdout
        .trim()
        .split("\n")
        .map((line) => line.split("\t")[0]),
      [
        "registrations",
        "resolvable",
        "api",
        "heartbeats",
        "connections",
        "publish",
        "served-latency",
        "reconcile",
        "sessions",
        "beats",
        "enrol",
        "restart",
        "sdk-size",
        "history",
        "million",
        "cluster",
        "dnsperf",
        "cli-start"
      ]
    )
    for (const args of [
      ["nothing"],
      [],
      ["registrations", "--hosts", "none"],
      ["heartbeats", "--colour"],
      ["heartbeats", "--backend", "pgsql"]
    ]) {
      const wrong = await bench(args)
      assert.strictEqual(wrong.code, 2, args.join(" "))
      assert.include(wrong.stderr, "Usage: ./prism bench NAME")
    }
  })
})
