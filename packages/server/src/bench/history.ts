/**
 * Reading when there is much to read: a million hosts and ten million versions
 * of them in PostgreSQL, asked for by the API with every filter, of now and of
 * the past, at the first page, in the middle and at the end.
 *
 * What is asked for is filled in by SQL, as Prism would have written it. Beside
 * it, in the same run: a `node:http` server that answers with the same bytes as
 * a page of hosts, and the database asked for one host by its key.
 */
import * as Page from "@prism-dns/core/api/Page"
import type { DomainName } from "@prism-dns/core/domain/DomainName"
import { Effect, Schedule } from "effect"
import * as Http from "node:http"
import type { AddressInfo } from "node:net"
import { below, type Benchmark, BenchFailed, type Figure, figure, median, type Options, quantile } from "./Benchmark.ts"

import * as Postgres from "./Postgres.ts"
import * as Servers from "./Servers.ts"
import { progress, temporaryFolder, timed } from "./Workspace.ts"

const hostsByDefault = 1_000_000
const versionsOfEach = 10
const zonesMax = 20
/** Requests of each kind that are measured; the aim is for the slowest kind. */
const requestsOfEach = 60
const wantedSeconds = 0.05

/** Time between two versions of a host, and since the newest one. */
const dayMillis = 86_400_000

const zones = Array.from({ length: zonesMax }, (_, i) => `z${i}.prism.test`)
const reverse = "10.in-addr.arpa"

/** As `LargeZone` has it for one: nothing comes by itself. */
const quiet = {
  zones: [...zones, reverse].map((name) => ({
    name,
    networks: ["10.0.0.0/8"],
    reconcileInterval: "30d",
    retireAfter: "3650d",
    holdFor: "3650d"
  })),
  more: {
    leases: { beatInterval: "1d" },
    http: { port: 0, rateLimit: { reads: { ratePerSecond: 1_000_000, burst: 1_000_000 } } }
  }
}

/** Of host `i`, in SQL. */
const sqlOf = {
  name: `'host-' || lpad(i::text, 7, '0')`,
  zone: `'z' || (i % ${zonesMax}) || '.prism.test.'`,
  id: `'01900000-0000-7000-8000-' || lpad(to_hex(i), 12, '0')`,
  /** At its newest version, or the `back`-th before it. */
  address: (back: string) => `'10.' || ((i >> 16) & 255) || '.' || ((i >> 8) & 255) || '.' || ((i + ${back}) & 255)`,
  pointer: `(i & 255) || '.' || ((i >> 8) & 255) || '.' || ((i >> 16) & 255) || '.10.in-addr.arpa.'`,
  state: `CASE WHEN i % 50 = 0 THEN 'retired' WHEN i % 10 = 0 THEN 'offline' ELSE 'online' END`,
  role: `(ARRAY['web', 'db', 'cache', 'queue', 'batch'])[1 + i % 5]`,
  rack: `'r' || (i % 1000)`,
  site: `'s' || (i / 7 % 40)`
}
const fqdn = `${sqlOf.name} || '.' || ${sqlOf.zone}`
const labels = `'{"rack":"' || ${sqlOf.rack} || '","role":"' || ${sqlOf.role} || '","site":"' || ${sqlOf.site} || '"'
  || CASE WHEN i % 10000 = 7 THEN ',"canary":"yes"' ELSE '' END || '}'`

/** And the same here. */
const host = {
  name: (i: number) => `host-${String(i).padStart(7, "0")}.z${i % zonesMax}.prism.test.`,
  id: (i: number) => `01900000-0000-7000-8000-${i.toString(16).padStart(12, "0")}`,
  address: (i: number) => `10.${(i >> 16) & 255}.${(i >> 8) & 255}.${i & 255}`,
  pointer: (i: number) => `${i & 255}.${(i >> 8) & 255}.${(i >> 16) & 255}.10.in-addr.arpa.`
}

/** Tables that are filled without their indexes, which are made afterwards: row by row they would take most of the time. */
const largeTables = [
  "host",
  "host_address",
  "host_history",
  "host_name",
  "host_name_address",
  "host_name_label",
  "published",
  "audit_log"
]

/** Fills the tables of a registry that Prism has made; `versions` of each host, the newest of them what it is. */
export const fill = (hosts: number, versions: number, nowMillis: number): string => {
  const all = `generate_series(0, ${hosts - 1}) AS i`
  // Version `k` of `versions`: changes, and now and then it was away. The newest has the state that the host has.
  const back = `(${versions - 1} - k)`
  const began = `(${nowMillis} - ${back}::bigint * ${dayMillis} - i % 60000 - 1000)`
  const event = `CASE WHEN k = 0 THEN 'created' WHEN k = ${versions - 1} THEN
    CASE ${sqlOf.state} WHEN 'retired' THEN 'retired' WHEN 'offline' THEN 'offline' ELSE 'changed' END
    WHEN (k + i) % 3 = 0 THEN 'offline' ELSE 'changed' END`
  const state = `CASE WHEN k = ${versions - 1} THEN ${sqlOf.state} WHEN (k + i) % 3 = 0 AND k > 0 THEN 'offline' ELSE 'online' END`
  const tables = largeTables.map((table) => `'${table}'`).join(", ")
  return `
    CREATE TEMP TABLE kept AS SELECT indexname, indexdef FROM pg_indexes
      WHERE schemaname = 'public' AND tablename IN (${tables})
        AND indexname NOT IN (SELECT conname FROM pg_constraint WHERE conrelid::regclass::text IN (${tables}));
    DO $$ DECLARE r record; BEGIN FOR r IN SELECT * FROM kept LOOP EXECUTE 'DROP INDEX ' || r.indexname; END LOOP; END $$;
    INSERT INTO host (id, fqdn, hostname, zone, addresses, labels, owner, state, generation, first_seen, last_seen,
        offline_since, withdrawn_since, retired_since)
      SELECT ${sqlOf.id}, ${fqdn}, ${sqlOf.name}, ${sqlOf.zone}, '["' || ${sqlOf.address("0")} || '"]', ${labels},
        'fleet-' || (i % 100), ${sqlOf.state}, ${versions} + i, ${nowMillis} - ${versions}::bigint * ${dayMillis}, ${nowMillis},
        CASE WHEN i % 10 = 0 THEN ${nowMillis} END, CASE WHEN i % 10 = 0 THEN ${nowMillis} END,
        CASE WHEN i % 50 = 0 THEN ${nowMillis} END
      FROM ${all};
    INSERT INTO host_address (address, host_id, since) SELECT ${sqlOf.address("0")}, ${sqlOf.id}, ${nowMillis} FROM ${all};
    INSERT INTO host_history (host_id, fqdn, zone, event, addresses, labels, owner, state, generation, valid_from, valid_to)
      SELECT ${sqlOf.id}, ${fqdn}, ${sqlOf.zone}, ${event}, '["' || ${sqlOf.address(`${back} % 3`)} || '"]', ${labels},
        'fleet-' || (i % 100), ${state}, i + k + 1, ${began},
        CASE WHEN k < ${versions - 1} THEN ${began} + ${dayMillis} END
      FROM generate_series(0, ${versions - 1}) AS k, ${all};
    INSERT INTO host_name (fqdn, zone) SELECT ${fqdn}, ${sqlOf.zone} FROM ${all};
    INSERT INTO host_name_address (address, fqdn)
      SELECT DISTINCT ${sqlOf.address("k")}, ${fqdn} FROM ${all}, generate_series(0, 2) AS k;
    INSERT INTO host_name_label (label, fqdn)
      SELECT 'rack=' || ${sqlOf.rack}, ${fqdn} FROM ${all} UNION ALL SELECT 'role=' || ${sqlOf.role}, ${fqdn} FROM ${all}
      UNION ALL SELECT 'site=' || ${sqlOf.site}, ${fqdn} FROM ${all}
      UNION ALL SELECT 'canary=yes', ${fqdn} FROM ${all} WHERE i % 10000 = 7;
    INSERT INTO published (zone, name, content, present, generation, published_at, served_at, served_nodes)
      SELECT ${sqlOf.zone}, ${fqdn}, '[["A",60,["' || ${sqlOf.address("0")} || '"]]]', 1, ${versions} + i, ${nowMillis},
        ${nowMillis}, '[["bench",' || ${nowMillis} || ']]' FROM ${all} WHERE i % 10 <> 0;
    INSERT INTO published (zone, name, content, present, generation, published_at, served_at, served_nodes)
      SELECT '${reverse}.', ${sqlOf.pointer}, '[["PTR",60,["' || ${fqdn} || '"]]]', 1, ${versions} + i, ${nowMillis},
        ${nowMillis}, '[["bench",' || ${nowMillis} || ']]' FROM ${all} WHERE i % 10 <> 0;
    INSERT INTO audit_log (position, sequence, at, actor, peer, action, zone, subject, generation, after, cause, result, hash)
      SELECT i::bigint * 2 + k + 1 + (SELECT COALESCE(MAX(position), 0) FROM audit_log), i::bigint * 2 + k + 1,
        ${nowMillis} - ${hosts}::bigint + i, CASE k WHEN 0 THEN 'fleet-' || (i % 100) ELSE 'prism' END, '10.1.2.3',
        CASE WHEN k = 1 THEN 'publication.applied' ELSE 'host.changed' END, ${sqlOf.zone}, ${fqdn}, ${versions} + i,
        '{"addresses":["' || ${sqlOf.address("0")} || '"]}',
        CASE k WHEN 0 THEN 'registered' ELSE 'generation:' || (${versions} + i) END, 'done', md5(i::text)
      FROM ${all}, generate_series(0, 1) AS k;
    INSERT INTO audit_seal (last_position, first_position, at, hash)
      SELECT MAX(position), MIN(position), ${nowMillis}, 'bench' FROM audit_log
      ON CONFLICT DO NOTHING;
    INSERT INTO host_count (kind, key, hosts) SELECT 'zone', zone, COUNT(*) FROM host GROUP BY zone
      ON CONFLICT (kind, key) DO UPDATE SET hosts = excluded.hosts;
    SELECT setval('registry_generation', ${hosts + versions + 10});
    DO $$ DECLARE r record; BEGIN FOR r IN SELECT * FROM kept LOOP EXECUTE replace(r.indexdef, ' ON ONLY ', ' ON '); END LOOP; END $$;
    VACUUM ANALYZE; CHECKPOINT;`
}

/** One kind of request. */
interface Question {
  readonly name: string
  readonly path: (pick: () => number) => string
}

const at = (millis: number) => encodeURIComponent(new Date(millis).toISOString())

/** Where a list is looked at. */
const places = {
  first: () => "",
  middle: (pick: () => number) => `&cursor=${Page.cursorAfter(host.name(pick()) as DomainName)}`,
  last: (_: () => number, hosts: number) => `&cursor=${Page.cursorAfter(host.name(hosts - 60) as DomainName)}`
} as const

const filters: Readonly<Record<string, (i: number) => string>> = {
  all: () => "",
  zone: (i) => `zone=z${i % zonesMax}.prism.test`,
  state: () => "state=retired",
  zone_state: (i) => `zone=z${i % zonesMax}.prism.test&state=offline`,
  beginning: (i) => `q=host-${String(i).padStart(7, "0").slice(0, 4)}`,
  label_common: () => "label=role%3Dweb",
  label_rack: (i) => `label=rack%3Dr${i % 1000}`,
  label_rare: () => "label=canary%3Dyes",
  labels: (i) => `label=role%3Dweb&label=site%3Ds${i % 40}`,
  // No host has both: the whole of what is looked at is passed over.
  labels_none: () => "label=role%3Dweb&label=rack%3Dr1",
  label_zone: (i) => `label=site%3Ds${i % 40}&zone=z${i % zonesMax}.prism.test`,
  label_state: () => "label=role%3Dweb&state=retired",
  label_beginning: (i) => `label=role%3Dweb&q=host-${String(i).padStart(7, "0").slice(0, 4)}`,
  address: (i) => `address=${host.address(i)}`,
  address_state: (i) => `address=${host.address(i)}&state=online`,
  everything: (i) => `zone=z${i % zonesMax}.prism.test&state=online&label=role%3Dweb&label=site%3Ds${i % 40}&q=host-0`
}

const questions = (hosts: number, versions: number, nowMillis: number): ReadonlyArray<Question> => {
  const then = (i: number) => `at=${at(nowMillis - 1000 - (i % ((versions - 1) * dayMillis)))}`
  const lists = Object.entries(filters).flatMap(([name, filter]): ReadonlyArray<Question> =>
    Object.entries(places).flatMap(([place, cursor]) => [
      { name: `list_${name}_${place}`, path: (pick) => `/hosts?${filter(pick())}${cursor(pick, hosts)}` },
      {
        name: `then_${name}_${place}`,
        path: (pick) => `/hosts?${then(pick() * 1009)}&${filter(pick())}${cursor(pick, hosts)}`
      }
    ])
  )
  return [
    ...lists,
    { name: "get_name", path: (pick) => `/hosts/${host.name(pick())}` },
    { name: "get_id", path: (pick) => `/hosts/${host.id(pick())}` },
    { name: "get_then", path: (pick) => `/hosts/${host.name(pick())}?${then(pick() * 1009)}` },
    { name: "history", path: (pick) => `/hosts/${host.name(pick())}/history` },
    { name: "explain_host", path: (pick) => `/hosts/${host.name(pick())}/explain` },
    {
      name: "explain_record",
      path: (pick) => {
        const i = pick()
        return `/zones/z${i % zonesMax}.prism.test/records/${host.name(i)}/A/explain`
      }
    },
    { name: "explain_pointer", path: (pick) => `/zones/${reverse}/records/${host.pointer(pick())}/PTR/explain` }
  ]
}

const agent = new Http.Agent({ keepAlive: true, maxSockets: 1 })

/** Asks once, on a connection that is kept; seconds, and the answer. */
const ask = (url: string): Effect.Effect<{ readonly seconds: number; readonly body: string }, BenchFailed> =>
  Effect.callback((resume) => {
    const start = performance.now()
    const fail = (detail: string) => resume(Effect.fail(new BenchFailed({ detail: `${url}: ${detail}` })))
    const request = Http.get(url, { agent, headers: { authorization: `Bearer ${Servers.adminToken}` } }, (response) => {
      let body = ""
      response.setEncoding("utf8")
      response.on("data", (chunk: string) => (body += chunk))
      response.once("error", ({ message }) => fail(message))
      response.once("end", () => {
        if (response.statusCode !== 200) return fail(`${response.statusCode} ${body.slice(0, 300)}`)
        resume(Effect.succeed({ seconds: (performance.now() - start) / 1000, body }))
      })
    })
    request.once("error", ({ message }) => fail(message))
    return Effect.sync(() => void request.destroy())
  })

/** A server that answers each request with `body`. */
const bareServer = (body: string) =>
  Effect.acquireRelease(
    Effect.callback<Http.Server>((resume) => {
      const server = Http.createServer((_, response) => {
        response.writeHead(200, { "content-type": "application/json", "content-length": Buffer.byteLength(body) })
        response.end(body)
      })
      server.listen(0, "127.0.0.1", () => resume(Effect.succeed(server)))
    }),
    (server) => Effect.sync(() => void (server.closeAllConnections(), server.close()))
  )

/** The same picks in every run. */
const picker = (hosts: number) => {
  let state = 42
  return () => {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0
    return Math.floor((state / 2 ** 32) * hosts)
  }
}

const measure = Effect.fnUntraced(function* (question: Question, url: string, hosts: number, requests: number) {
  const pick = picker(hosts)
  const seconds: Array<number> = []
  let body = ""
  // The first ones find the statement not prepared.
  for (let i = -3; i < requests; i++) {
    const answer = yield* ask(`${url}${question.path(pick)}`)
    if (i >= 0) seconds.push(answer.seconds)
    body = answer.body
  }
  return { name: question.name, p50: quantile(seconds, 0.5), p95: quantile(seconds, 0.95), body }
})

const run = Effect.fnUntraced(function* (options: Options) {
  const hosts = options.hosts ?? hostsByDefault
  const versions = Math.max(2, Math.round((options.rows ?? hosts * versionsOfEach) / hosts))
  const folder = yield* temporaryFolder
  const powerDns = yield* Servers.powerDns(folder, "sqlite")
  const registry = yield* Postgres.forRegistry
  const prism = { folder, powerDns, storage: registry.url, profile: options.profile, ...quiet }
  // Prism makes its tables and its zones, and notes what their records were computed from.
  yield* Effect.scoped(
    Effect.andThen(
      Servers.prism(prism),
      Effect.repeat(registry.run("SELECT COUNT(*) FROM zone_fingerprint"), {
        until: (count) => Number(count.trim()) === zonesMax + 1,
        schedule: Schedule.spaced("200 millis")
      }).pipe(
        Effect.timeout("2 minutes"),
        Effect.mapError(() => new BenchFailed({ detail: "the zones were not made" }))
      )
    )
  )
  const nowMillis = Date.now()
  const filled = yield* timed(registry.run(fill(hosts, versions, nowMillis)))
  yield* progress(`${hosts} hosts with ${versions} versions each written and indexed in ${filled.toFixed(0)} s`)
  const server = yield* Servers.prism(prism)
  const url = `${server.httpUrl}/v1`
  const requests = options.seconds === undefined ? requestsOfEach : Math.max(5, options.seconds * 10)

  const results: Array<Effect.Success<ReturnType<typeof measure>>> = []
  for (const question of questions(hosts, versions, nowMillis)) {
    const result = yield* Effect.raceFirst(measure(question, url, hosts, requests), server.ended)
    results.push(result)
    yield* progress(
      `${result.name}: p50 ${(result.p50 * 1000).toFixed(1)} ms, p95 ${(result.p95 * 1000).toFixed(1)} ms`
    )
  }
  const page = results.find(({ name }) => name === "list_all_middle")!.body
  const bare = yield* bareServer(page)
  const yardstick = yield* measure(
    { name: "bare_http", path: () => "/" },
    `http://127.0.0.1:${(bare.address() as AddressInfo).port}`,
    hosts,
    requests
  )
  const rows = yield* registry.run(
    "SELECT COUNT(*) FROM host; SELECT COUNT(*) FROM host_history; SELECT pg_database_size(current_database())"
  )
  const [hostRows, historyRows, bytes] = rows.trim().split("\n").map(Number)

  const worst = results.reduce((a, b) => (b.p95 > a.p95 ? b : a))
  yield* progress(`the slowest: ${worst.name}`)
  // Of a list: over its first, middle and last pages; p95 of the slowest of them.
  const kinds = Map.groupBy(results, ({ name }) => name.replace(/_(?:first|middle|last)$/, ""))
  const figures: Record<string, Figure> = {
    hosts: figure("1", hostRows!),
    history_rows: figure("1", historyRows!),
    database: figure("B", bytes!),
    filled: figure("s", filled),
    worst_p95: figure("s", worst.p95),
    bare_http_p50: figure("s", yardstick.p50),
    bare_http_p95: figure("s", yardstick.p95)
  }
  for (const [name, some] of kinds) {
    figures[`${name}_p50`] = figure("s", median(some.map(({ p50 }) => p50)))
    figures[`${name}_p95`] = figure("s", Math.max(...some.map(({ p95 }) => p95)))
  }
  return { figures, ratios: {}, targets: { worst_p95: below(wantedSeconds, worst.p95) } }
})

export const history: Benchmark = {
  name: "history",
  description: `N hosts (${hostsByDefault}) with ten versions each in PostgreSQL: lists by every filter, of now and of the past, histories and explanations.`,
  backends: ["sqlite"],
  run
}
