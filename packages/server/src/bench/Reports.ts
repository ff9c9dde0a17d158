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
