/**
 * What `./prism bench --report` runs, and what the page says of each beside its
 * figures. A benchmark stands here once for each set of options that is worth
 * a table of its own; the short form only shows that it can be run.
 */
export interface Reported {
  /** Names its stored result. */
  readonly id: string
  readonly bench: string
  /** Options of the run whose figures count. */
  readonly args: ReadonlyArray<string>
  /** Options of the short form, in place of those. */
  readonly quick: ReadonlyArray<string>
  /** What one has to know to read its figures. */
  readonly about: string
  /** Heading of `docs/internals/measurements.md` that says more: why it is so, and what got it there. */
  readonly explained?: string
}

const once = ["--rounds", "1"]
const few = [...once, "--hosts", "500"]

export const reported: ReadonlyArray<Reported> = [
  {
    id: "registrations",
    bench: "registrations",
    args: [],
    quick: few,
    about:
      "Hosts that nobody has heard of, each on its own connection and from its own address: connect, one frame of protocol 1.0, close. The clock stops when all names resolve, forward and reverse. `bare_…` are the parts it cannot do without, each done by nothing but a loop.",
    explained: "registrations-from-nothing-to-resolvable"
  },
  {
    id: "registrations-lmdb",
    bench: "registrations",
    args: ["--backend", "lmdb"],
    quick: [...few, "--backend", "lmdb"],
    about: "The same with PowerDNS on LMDB."
  },
  {
    id: "resolvable",
    bench: "resolvable",
    args: [...once, "--backend", "lmdb"],
    quick: [...once, "--sizes", "300", "--backend", "lmdb"],
    about:
      "The whole way as in `registrations`, for few and for many hosts, beside what one would use instead: one dynamic update (RFC 2136) for each host and zone to BIND 9 and to Knot DNS, over one kept socket for each zone, unsigned, one after another and with 16 in flight (the faster counts for the ratio); and one PATCH for each to PowerDNS. What is extrapolated was measured on 20,000 hosts (updates) and 1,000 (PATCHes).",
    explained: "resolvable-what-one-would-use-instead"
  },
  {
    id: "api",
    bench: "api",
    args: [],
    quick: [...few, "--seconds", "1"],
    about:
      "One host asked for over 64 kept connections, one request in flight on each, in turn with a bare `node:http` server that answers with the same JSON; and hosts registered by one call, until all are applied.",
    explained: "api-one-host-asked-for-and-10000-registered-by-one-call"
  },
  {
    id: "heartbeats",
    bench: "heartbeats",
    args: [],
    quick: [...once, "--hosts", "50", "--seconds", "1"],
    about: "Beats of protocol 1.0 from hosts that are known, nothing changed, beside a bare `node:net` server.",
    explained: "heartbeats-known-hosts-nothing-changed"
  },
  {
    id: "beats",
    bench: "beats",
    args: [],
    quick: [...once, "--hosts", "50", "--seconds", "1"],
    about:
      "Heartbeats of protocol 2.0 on sessions that stay open. The server has one core to itself, whoever sends the other; the bare loop after it reads the same frames and answers each with a fixed one of the same size.",
    explained: "beats-heartbeats-on-sessions-that-stay-open"
  },
  {
    id: "connections",
    bench: "connections",
    args: [],
    quick: few,
    about: "Memory of the server for each connection that is open and says nothing.",
    explained: "connections-open-and-idle"
  },
  {
    id: "sessions",
    bench: "sessions",
    args: [],
    quick: [...once, "--sizes", "500"],
    about:
      "A session has proved its key, registered one host, which is served, and is silent. Memory is resident, after full collections, beyond what the server had before; the bare server has had the same frames and answered each.",
    explained: "sessions-open-and-idle"
  },
  {
    id: "sessions-tls",
    bench: "sessions",
    args: ["--tls", "--sizes", "10000"],
    quick: [...once, "--tls", "--sizes", "500"],
    about: "The same over TLS 1.3."
  },
  {
    id: "enrol",
    bench: "enrol",
    args: [],
    quick: [...once, "--hosts", "50"],
    about: "Agents enrol, each with a one-time token and a new key; then each comes back once by its key.",
    explained: "enrol-a-key-for-each-machine"
  },
  {
    id: "restart",
    bench: "restart",
    args: [],
    quick: [...once, "--hosts", "50", "--seconds", "2"],
    about: "The server is killed under agents of the SDK and started again; DNS is asked for all names meanwhile.",
    explained: "restart-a-crash-of-the-server-under-agents-of-the-sdk"
  },
  {
    id: "publish",
    bench: "publish",
    args: ["--sizes", "1000,100000"],
    quick: [...once, "--sizes", "1000", "--backend", "sqlite", "--seconds", "1"],
    about:
      "Known hosts are moved in the registry of a running server; beside it the same PATCHes by nothing but a loop.",
    explained: "publish-changed-record-sets-a-second"
  },
  {
    id: "served-latency",
    bench: "served-latency",
    args: [],
    quick: [...once, "--hosts", "100", "--rates", "20", "--seconds", "2"],
    about:
      "Two PowerDNS on one database, and a secondary beside them for the figures that end in `_axfr`. Half of the changes are new hosts, half known ones that move, each sent when it is due.",
    explained: "served-latency-from-accepted-to-applied-and-to-served"
  },
  {
    id: "reconcile",
    bench: "reconcile",
    args: ["--sizes", "100000"],
    quick: [...once, "--sizes", "3000"],
    about: "The plan of a whole zone, in step and with names changed by hand.",
    explained: "reconcile-a-whole-zone"
  },
  {
    id: "history",
    bench: "history",
    args: [],
    quick: ["--hosts", "1000", "--rows", "5000", "--seconds", "1"],
    about:
      "Lists by every filter, of now and of the past, at their first page, in the middle and at the end; p95 is that of the slowest of the three.",
    explained: "history-reading-when-there-is-much-to-read"
  },
  {
    id: "million",
    bench: "million",
    args: ["--backend", "lmdb"],
    quick: ["--backend", "lmdb", "--hosts", "500", "--rates", "50", "--seconds", "1"],
    about:
      "Hosts by the API's batch call into PostgreSQL (durable, each commit synced) with PowerDNS behind it, eight zones, without pointers; then known hosts that get another address at an even rate, a few in a call. Accepted is from when a call was due to its answer; applied and served are from accepted. Processor time and bytes for each registration and change are what `prism-dns capacity` reckons with.",
    explained: "million-a-million-hosts"
  },
  {
    id: "cluster",
    bench: "cluster",
    args: [],
    quick: [...once, "--hosts", "500", "--seconds", "1"],
    about:
      "Two servers on one PostgreSQL beside one. All of it runs on the cores of one machine, with the database, PowerDNS and whoever asks: what each registration, beat and read costs in processor time is what says how it grows, and not how many there are in a second.",
    explained: "cluster-two-servers-beside-one"
  },
  {
    id: "dnsperf",
    bench: "dnsperf",
    args: [],
    quick: [...once, "--hosts", "500", "--seconds", "1", "--backend", "lmdb"],
    about:
      "`dnsperf` asks for names that are there while 500 changes a second are published: by Prism (`prism_publishes`), by a loop with ten PATCHes a second to a PowerDNS with our settings and to one as it comes (`…_looped`), by one PATCH for each change (`stock_patch_each`), and to NSD by a zone file that is read anew each second. `…_still`: nothing changes. `…_cpu` is the server's processor time for each answer, with what changes cost it; `…_changes` is how many changes a second it was given in fact: one that cannot do 500 has it easier.",
    explained: "dnsperf-questions-while-records-change"
  },
  {
    id: "sdk-size",
    bench: "sdk-size",
    args: [],
    quick: once,
    about: "The SDK's tarball installed alone into an empty folder, and imported in fresh processes.",
    explained: "sdk-size-what-the-sdk-costs-whoever-embeds-it"
  },
  {
    id: "cli-start",
    bench: "cli-start",
    args: [],
    quick: once,
    about: "The packaged command line from start to end, beside a Node that does nothing."
  }
]
