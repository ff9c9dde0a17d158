import { assert, layer } from "@effect/vitest"
import { Cluster } from "@prism-dns/core/cluster/Cluster"
import { Acknowledgements, type Outcome } from "@prism-dns/core/dns/Acknowledgements"
import { NameServers } from "@prism-dns/core/dns/NameServers"
import { Serving } from "@prism-dns/core/dns/Serving"
import { Zones } from "@prism-dns/core/dns/Zones"
import type { DomainName } from "@prism-dns/core/domain/DomainName"
import * as RRset from "@prism-dns/core/domain/RRset"
import { PowerDnsClient } from "@prism-dns/core/powerdns/PowerDnsClient"
import { type Node, PowerDnsNodes } from "@prism-dns/core/powerdns/PowerDnsNodes"
import * as PowerDnsProcess from "@prism-dns/core/powerdns/PowerDnsProcess"
import { Context, Effect, Layer, Redacted } from "effect"
import { SqlClient } from "effect/sql"
import { Postgres } from "../harness/Postgres.ts"
import * as PowerDns from "../harness/PowerDns.ts"
import { waitUntil } from "../harness/waitUntil.ts"
import * as T from "../layers.ts"
import * as FakeNodes from "./FakeNodes.ts"
import * as Unserved from "./unserved.ts"

const zone = T.forward.name

class Servers extends Context.Service<
  Servers,
  ReadonlyArray<Node & { readonly server: PowerDns.TestPowerDns["Service"] }>
>()("@prism-dns/core/test/Servers") {}

/** Two primaries on one database and a secondary that fetches from the first, all with their caches as they come. */
const servers = Layer.effect(
  Servers,
  Effect.gen(function* () {
    const one = yield* PowerDns.startServer(PowerDnsProcess.sqlite, { primary: "yes", "allow-axfr-ips": "127.0.0.0/8" })
    const two = yield* PowerDns.startServer(PowerDnsProcess.sqlite, {
      "gsqlite3-database": `${one.directory}/pdns.sqlite3`
    })
    const three = yield* PowerDns.startServer(PowerDnsProcess.lmdb, { secondary: "yes" })
    yield* createZone(one, { kind: "Master", nameservers: [`ns1.${zone}`], soa_edit_api: "INCREASE" })
    yield* createZone(three, { kind: "Slave", masters: [`${one.dns.host}:${one.dns.port}`] })
    yield* api(one, "PUT", `/zones/${zone}/metadata/ALSO-NOTIFY`, {
      metadata: [`${three.dns.host}:${three.dns.port}`]
    })
    const nodes = yield* Effect.forEach(
      [
        ["one", "primary", one],
        ["two", "primary", two],
        ["three", "secondary", three]
      ] as const,
      ([name, role, server]) =>
        Effect.map(PowerDns.clientOf(server, { node: name }), (client) => ({
          name,
          role,
          server,
          api: client,
          dns: server.dns
        }))
    )
    // The second would look for zones made by others only every five minutes.
    yield* Effect.orDie(nodes[1]!.api.flush(zone))
    return nodes
  })
)

/** What the client has no words for. */
const api = (server: PowerDns.TestPowerDns["Service"], method: string, path: string, body: unknown) =>
  Effect.promise(async () => {
    const response = await fetch(`${server.apiUrl}/api/v1/servers/localhost${path}`, {
      method,
      headers: { "x-api-key": Redacted.value(server.apiKey) },
      body: JSON.stringify(body)
    })
    assert.isBelow(response.status, 300, await response.text())
  })

const createZone = (server: PowerDns.TestPowerDns["Service"], settings: object) =>
  api(server, "POST", "/zones", { name: zone, nameservers: [], ...settings })

const serving = Layer.unwrap(
  Effect.map(Servers, (nodes) =>
    Serving.layer().pipe(
      Layer.provideMerge(
        Layer.mergeAll(
          PowerDnsNodes.layerOf(nodes),
          Layer.succeed(PowerDnsClient, nodes[0]!.api!),
          NameServers.layer,
          Acknowledgements.layer,
          Cluster.layerAlone,
          Zones.layer(T.zones),
          T.sqlite()
        )
      )
    )
  )
)

let generation = 1

/** Writes at the first node, by one PATCH, and waits until all of it is served, or for as long as said. */
const change = Effect.fnUntraced(function* (wanted: ReadonlyMap<DomainName, string | undefined>) {
  const client = yield* PowerDnsClient
  generation += 1
  const publications = Array.from(wanted, ([name, address]) => ({
    name,
    generation,
    rrsets: address === undefined ? [] : [RRset.make(name, "A", 60, [address])],
    types: ["A"]
  }))
  yield* client.patch(
    zone,
    publications.map(({ name, rrsets: [rrset] }) =>
      rrset === undefined ? { _tag: "Delete", name, type: "A" } : { _tag: "Replace", rrset }
    )
  )
  const tickets = yield* Unserved.publish(zone, publications, client.node)
  const { wait } = yield* Acknowledgements
  return Effect.forEach(tickets, (ticket) => wait(ticket, "served"))
})

const allServed = (outcomes: ReadonlyArray<Outcome>) =>
  assert.deepStrictEqual(new Set(outcomes.map(({ _tag }) => _tag)), new Set(["Served"]))

const dig = (node: Node, name: DomainName) =>
  Effect.map(PowerDns.resolve(node.dns, name, "A"), ({ data, rcode }) => (rcode === "NOERROR" ? data.join(" ") : rcode))

const digAll = (name: DomainName) =>
  Effect.flatMap(
    Servers,
    Effect.forEach((node) => dig(node, name))
  )

layer(servers, { timeout: "60 seconds", excludeTestServices: true })(
  "served, by real servers with their caches",
  (it) => {
    const test = <E>(
      name: string,
      body: Effect.Effect<void, E, Layer.Success<typeof serving> | Servers>,
      timeoutMillis = 30_000
    ) => it.effect(name, () => Effect.provide(body, Layer.fresh(serving)), timeoutMillis)

    test(
      "a missing name that was asked for before is served when no node says NXDOMAIN from its cache",
      Effect.gen(function* () {
        const web = T.nameOf("early")
        assert.deepStrictEqual((yield* digAll(web)).slice(0, 2), ["NXDOMAIN", "NXDOMAIN"])
        allServed(yield* yield* change(new Map([[web, "192.0.2.1"]])))
        assert.deepStrictEqual(yield* digAll(web), ["192.0.2.1", "192.0.2.1", "192.0.2.1"])
      })
    )

    test(
      "1,000 changes, each asked for at each node before it and right after it was served",
      Effect.gen(function* () {
        const nodes = yield* Servers
        const names = Array.from({ length: 100 }, (_, i) => T.nameOf(`h${i}`))
        for (let round = 0; round < 10; round++) {
          const wanted = new Map(
            names.map((name, i) => [name, (i + round) % 5 === 4 ? undefined : `192.0.${round}.${i}`])
          )
          // What is old is cached everywhere.
          yield* Effect.forEach(names, digAll, { concurrency: 4 })
          allServed(yield* yield* change(wanted))
          for (const node of nodes) {
            const seen = yield* Effect.forEach(names, (name) => dig(node, name), { concurrency: 4 })
            assert.deepStrictEqual(
              seen,
              names.map((name) => wanted.get(name) ?? "NXDOMAIN"),
              `${node.name} in round ${round}`
            )
          }
        }
        assert.deepStrictEqual(yield* Unserved.names, [])
      }),
      60_000
    )

    test(
      "a change that one node does not see because it is frozen or stopped is not served, and is when it is back",
      Effect.gen(function* () {
        const [, two] = yield* Servers
        const status = Effect.map(
          Effect.flatMap(Serving, ({ status }) => status),
          (all) => all[1]!
        )
        for (const [away, back] of [
          [two!.server.freeze, two!.server.thaw],
          [two!.server.stop, two!.server.start]
        ] as const) {
          const web = T.nameOf(`away-${generation}`)
          yield* dig(two!, web)
          yield* away
          const served = yield* Effect.forkChild(yield* change(new Map([[web, "192.0.2.1"]])), {
            startImmediately: true
          })
          const down = yield* waitUntil("the node is seen to be away", status, ({ up }) => !up)
          assert.deepInclude(down, { name: "two", unserved: 1 })
          assert.strictEqual(down.oldest?.name, web)
          assert.isUndefined(served.pollUnsafe())
          yield* back
          yield* waitUntil(
            "it is served",
            Effect.sync(() => served.pollUnsafe()),
            (exit) => exit !== undefined
          )
          assert.deepStrictEqual(yield* digAll(web), ["192.0.2.1", "192.0.2.1", "192.0.2.1"])
        }
      })
    )
  }
)

layer(Postgres.layer(), { timeout: "60 seconds", excludeTestServices: true })("served, on PostgreSQL", (it) => {
  it.effect("is written down at its generation, and what was left by an earlier process is asked for", () =>
    Effect.gen(function* () {
      const sql = yield* SqlClient.SqlClient
      const { nodes } = yield* FakeNodes.FakeNodes
      const [left, anew, newer] = ["left", "anew", "newer"].map(T.nameOf) as [DomainName, DomainName, DomainName]
      const publication = (name: DomainName) => ({
        name,
        generation: 5,
        rrsets: [RRset.make(name, "A", 60, ["192.0.2.1"])]
      })
      yield* Unserved.insert(zone, [left, newer].map(publication))
      yield* Effect.gen(function* () {
        const [ticket] = yield* Unserved.publish(zone, [publication(anew)], "one")
        yield* waitUntil(
          "the node was asked for what was left",
          Effect.sync(() => nodes[0]!.asked),
          (asked) => asked.includes(`${newer} A`)
        )
        yield* sql`UPDATE unserved SET generation = 6 WHERE name = ${newer}`
        for (const name of [left, anew, newer]) nodes[0]!.put(publication(name).rrsets[0]!)
        assert.strictEqual((yield* (yield* Acknowledgements).wait(ticket!, "served"))._tag, "Served")
        yield* waitUntil("the others are looked at", Unserved.names, (names) => names.join() === newer)
        const rows = yield* sql<{ readonly name: string; readonly served: boolean }>`
          SELECT name, served_at IS NOT NULL AS served FROM published ORDER BY name`
        assert.deepInclude(
          rows.map(({ name, served }) => `${name} ${served}`),
          `${anew} true`
        )
        assert.deepInclude(
          rows.map(({ name, served }) => `${name} ${served}`),
          `${left} true`
        )
      }).pipe(
        Effect.provide(
          Serving.layer().pipe(
            Layer.provideMerge(Layer.mergeAll(Acknowledgements.layer, Cluster.layerAlone, Zones.layer(T.zones)))
          )
        )
      )
    }).pipe(Effect.provide(Layer.mergeAll(FakeNodes.layer([{ name: "one" }]), T.postgres)))
  )
})
