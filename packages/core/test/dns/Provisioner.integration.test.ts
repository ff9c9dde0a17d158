import { assert, layer } from "@effect/vitest"
import { Context, Effect, Layer, Option, Redacted } from "effect"
import * as ChildProcess from "node:child_process"
import * as Fs from "node:fs"
import * as Path from "node:path"
import { Provisioner, type ProvisionerOptions } from "@prism-dns/core/dns/Provisioner"
import * as DomainName from "@prism-dns/core/domain/DomainName"
import * as Zone from "@prism-dns/core/domain/Zone"
import { PowerDnsClient, type TsigKey } from "@prism-dns/core/powerdns/PowerDnsClient"
import * as PowerDnsProcess from "@prism-dns/core/powerdns/PowerDnsProcess"
import { PowerDnsNodes, type Role } from "@prism-dns/core/powerdns/PowerDnsNodes"
import { freePorts } from "../harness/ports.ts"
import { Postgres } from "../harness/Postgres.ts"
import * as PowerDns from "../harness/PowerDns.ts"
import { waitUntil } from "../harness/waitUntil.ts"
import { disable, remove, replace } from "../powerdns/PowerDnsSuite.ts"

const catalog = DomainName.make("catalog.test")
const tsig: TsigKey = {
  name: DomainName.make("xfr"),
  algorithm: "hmac-sha256",
  secret: Redacted.make("kp4/24gyYsEzbuTVJRUMoqGFmN3LYgVDzJ/3oRSP7ys=")
}

const program = (name: string, args: ReadonlyArray<string>) =>
  Effect.callback<string>((resume) => {
    const child = ChildProcess.execFile(name, args, { encoding: "utf8", timeout: 20_000 }, (error, out, problems) =>
      // dig and delv say in their output what went wrong; only a program that is not there is a fault
      error !== null && "code" in error && error.code === "ENOENT"
        ? resume(Effect.die(error))
        : resume(Effect.succeed(`${out}${problems}`))
    )
    return Effect.sync(() => child.kill("SIGKILL"))
  })

const at = ({ dns }: PowerDns.TestPowerDns["Service"]) => [`@${dns.host}`, "-p", `${dns.port}`]

/** The records of a transfer, or what dig says instead. */
const transfer = (server: PowerDns.TestPowerDns["Service"], zone: string, key?: TsigKey) =>
  program("dig", [
    ...at(server),
    "axfr",
    zone,
    "+onesoa",
    "+nocmd",
    "+nostats",
    ...(key === undefined ? [] : ["-y", `${key.algorithm}:${key.name}:${Redacted.value(key.secret)}`])
  ])

type Backend = Exclude<PowerDns.BackendName, "pgsql"> | "pgsql"

const servers = Effect.fnUntraced(function* (
  backends: ReadonlyArray<readonly [string, Role, Backend]>,
  options: Partial<ProvisionerOptions["transfer"]> = {}
) {
  const backendOf = (name: Backend) =>
    name === "pgsql"
      ? PowerDns.pgsqlBackend
      : Effect.succeed(name === "lmdb" ? PowerDnsProcess.lmdb : PowerDnsProcess.sqlite)
  const nodes = yield* Effect.forEach(backends, ([name, role, backend]) =>
    Effect.gen(function* () {
      const server = yield* PowerDns.startServer(
        yield* backendOf(backend),
        role === "primary" ? { primary: "yes", "allow-axfr-ips": "" } : { secondary: "yes" }
      )
      const api = yield* PowerDns.clientOf(server, { node: name })
      return { name, role, server, api, dns: server.dns }
    })
  )
  const primary = nodes.find(({ role }) => role === "primary")!
  const context = yield* Layer.build(
    Provisioner.layer({ transfer: { tsig: undefined, catalog: undefined, ...options }, retryMillisMax: 500 }).pipe(
      Layer.provide(PowerDnsNodes.layerOf(nodes)),
      Layer.provide(Layer.succeed(PowerDnsClient, primary.api))
    )
  )
  return { provisioner: Context.get(context, Provisioner), primary, secondaries: nodes.filter((n) => n !== primary) }
})

const answer = (server: PowerDns.TestPowerDns["Service"], name: string) =>
  Effect.map(PowerDns.resolve(server.dns, name, "A"), ({ data, rcode }) => [rcode, ...data].join(" "))

let zoneCount = 0
const newZone = (options?: Parameters<typeof Zone.make>[1]) =>
  Zone.make(DomainName.make(`p${++zoneCount}.provisioner.test`), options)

/** What delv says of a name, by the trust in the zone's own key alone. */
const validated = Effect.fnUntraced(function* (
  server: PowerDns.TestPowerDns["Service"],
  provisioner: Provisioner["Service"],
  zone: Zone.Zone,
  name: string,
  type = "A"
) {
  const { keys } = yield* provisioner.dnssec(zone.name)
  const anchors = Path.join(server.directory, `${zone.name}anchors`)
  const key = keys[0]!.dnskey.split(" ")
  Fs.writeFileSync(
    anchors,
    `trust-anchors { "${zone.name}" static-key ${key.slice(0, 3).join(" ")} "${key.slice(3).join("")}"; };\n`
  )
  return yield* program("delv", [...at(server), "-a", anchors, `+root=${zone.name}`, name, type])
})

/** A name that exists, one that does not, and a type that does not, each with its proof. */
const checkSigned = Effect.fnUntraced(function* (
  server: PowerDns.TestPowerDns["Service"],
  provisioner: Provisioner["Service"],
  zone: Zone.Zone,
  present: string,
  absent: string
) {
  assert.match(yield* validated(server, provisioner, zone, present), /; fully validated[\s\S]*\sA\s/)
  assert.match(
    yield* validated(server, provisioner, zone, present, "AAAA"),
    /; negative response, fully validated[\s\S]*NXRRSET/
  )
  assert.match(
    yield* validated(server, provisioner, zone, absent),
    /; negative response, fully validated[\s\S]*NXDOMAIN/
  )
})

/** BIND as a secondary that knows nothing but where the catalog is, and the key. */
const startBind = Effect.fnUntraced(function* (primary: PowerDns.Dns, port: number) {
  const folder = yield* PowerDns.temporaryFolder("prism-bind-")
  const file = Path.join(folder, "named.conf")
  Fs.writeFileSync(
    file,
    `options {
  directory "${folder}"; pid-file none; session-keyfile none; listen-on port ${port} { 127.0.0.1; }; listen-on-v6 { none; };
  recursion no; notify no; dnssec-validation no;
  catalog-zones {
    zone "${catalog}" default-masters port ${primary.port} { ${primary.host} key "${tsig.name}"; } min-update-interval 1;
  };
};
controls { };
key "${tsig.name}" { algorithm ${tsig.algorithm}; secret "${Redacted.value(tsig.secret)}"; };
zone "${catalog}" { type secondary; file "catalog.db"; masters port ${primary.port} { ${primary.host} key "${tsig.name}"; }; };
`
  )
  yield* Effect.acquireRelease(
    Effect.sync(() => ChildProcess.spawn("named", ["-g", "-c", file], { stdio: "ignore" })),
    (child) =>
      Effect.callback<void>((resume) => {
        if (child.exitCode !== null || child.signalCode !== null) return resume(Effect.void)
        child.once("exit", () => resume(Effect.void))
        child.kill("SIGKILL")
      })
  )
  return { host: "127.0.0.1", port }
})

const options = { timeout: "90 seconds", excludeTestServices: true } as const

/**
 * Told before each look, until it has heard, as by `dns/Serving`: a NOTIFY that comes while the zone is fetched for the first
 * time is passed over, though what is fetched may be of before the change.
 */
const told = <A, E>(api: PowerDnsClient["Service"], { name }: Zone.Zone, look: Effect.Effect<A, E>) =>
  Effect.andThen(api.notify(name), look)

layer(Postgres.layer(), options)("zones on real servers", (it) => {
  for (const backend of ["sqlite", "lmdb", "pgsql"] as const) {
    it.effect(
      `a ${backend} primary gives a zone to a secondary by signed transfers, and each change within seconds`,
      () =>
        Effect.gen(function* () {
          const { primary, provisioner, secondaries } = yield* servers(
            [
              ["a", "primary", backend],
              ["s", "secondary", "sqlite"]
            ],
            { tsig }
          )
          const [{ api, server }] = secondaries as [(typeof secondaries)[number]]
          const zone = newZone()
          const web = DomainName.make(`web.${zone.name}`)
          yield* provisioner.ensure(zone)
          yield* waitUntil(
            "the zone is at the secondary",
            Effect.map(api.findZone(zone.name), Option.getOrThrow),
            ({ serial }) => serial > 0
          )
          for (const address of ["192.0.2.1", "192.0.2.2"]) {
            yield* primary.api.patch(zone.name, [replace(web, "A", [address])])
            yield* waitUntil(
              "the change is at the secondary",
              told(primary.api, zone, answer(server, web)),
              (text) => text === `NOERROR ${address}`,
              { within: "10 seconds", every: "1 second" }
            )
          }
          yield* primary.api.patch(zone.name, [disable(web, "A", ["192.0.2.2"])])
          yield* waitUntil(
            "a disabled set is gone there",
            told(primary.api, zone, answer(server, web)),
            (text) => text === "NXDOMAIN",
            { within: "10 seconds", every: "1 second" }
          )

          assert.match(yield* transfer(primary.server, zone.name, tsig), /\sSOA\s/)
          assert.match(yield* transfer(primary.server, zone.name), /Transfer failed/)
          const wrong = { ...tsig, secret: Redacted.make("AAAA24gyYsEzbuTVJRUMoqGFmN3LYgVDzJ/3oRSP7ys=") }
          assert.match(yield* transfer(primary.server, zone.name, wrong), /Transfer failed/)
        })
    )

    it.effect(`a ${backend} primary tells a consumer of new zones by its catalog, and the consumer fetches them`, () =>
      Effect.gen(function* () {
        const { primary, provisioner, secondaries } = yield* servers(
          [
            ["a", "primary", backend],
            ["s", "secondary", backend === "lmdb" ? "lmdb" : "sqlite"]
          ],
          { tsig, catalog }
        )
        const [{ server }] = secondaries as [(typeof secondaries)[number]]
        for (const zone of [newZone(), newZone({ dnssec: true })]) {
          yield* provisioner.ensure(zone)
          const web = DomainName.make(`web.${zone.name}`)
          yield* primary.api.patch(zone.name, [replace(web, "A", ["192.0.2.1"])])
          yield* waitUntil(
            "the zone and its change are at the consumer",
            told(primary.api, zone, answer(server, web)),
            (text) => text === "NOERROR 192.0.2.1",
            { within: "20 seconds", every: "1 second" }
          )
          if (zone.dnssec) yield* checkSigned(server, provisioner, zone, web, `no.${zone.name}`)
        }
        assert.deepStrictEqual(yield* provisioner.problems, [])
      })
    )

    it.effect(`a zone on ${backend} is signed when it is made or later, and stays valid through changes`, () =>
      Effect.gen(function* () {
        const { primary, provisioner } = yield* servers([["a", "primary", backend]])
        const { api, server } = primary
        for (const isLater of [false, true]) {
          const zone = newZone({ dnssec: !isLater })
          const name = (label: string) => DomainName.make(`${label}.${zone.name}`)
          yield* provisioner.ensure(zone)
          yield* api.patch(zone.name, [replace(name("one"), "A", ["192.0.2.1"])])
          if (isLater) {
            assert.isFalse((yield* provisioner.dnssec(zone.name)).signed)
            assert.strictEqual(yield* answer(server, name("one")), "NOERROR 192.0.2.1")
            yield* provisioner.ensure({ ...zone, dnssec: true })
          }
          yield* checkSigned(server, provisioner, zone, name("one"), name("two"))
          yield* api.patch(zone.name, [replace(name("two"), "A", ["192.0.2.2"]), remove(name("one"), "A")])
          yield* checkSigned(server, provisioner, zone, name("two"), name("one"))
          yield* api.patch(zone.name, [
            disable(name("two"), "A", ["192.0.2.2"]),
            replace(name("three"), "A", ["192.0.2.3"])
          ])
          yield* checkSigned(server, provisioner, zone, name("three"), name("two"))
          const dig = yield* program("dig", [...at(server), "+dnssec", "+norecurse", name("three"), "A"])
          assert.match(dig, /\sRRSIG\s+A 13 /)
          const { keys } = yield* provisioner.dnssec(zone.name)
          assert.match(keys[0]!.ds.join("\n"), /^\d+ 13 2 [0-9a-f]{64}$/m)
        }
      })
    )
  }

  it.effect("a BIND that has nothing but the catalog and the key follows: new zones, and each change", () =>
    Effect.gen(function* () {
      const server = yield* PowerDns.startServer(PowerDnsProcess.sqlite, {
        primary: "yes",
        "allow-axfr-ips": "",
        "xfr-cycle-interval": "1"
      })
      const api = yield* PowerDns.clientOf(server)
      const [port = 0] = yield* freePorts(1)
      const provisioner = yield* Layer.build(
        Provisioner.layer({ transfer: { tsig, catalog } }).pipe(
          Layer.provide(
            PowerDnsNodes.layerOf([
              { name: "a", role: "primary", api, dns: server.dns },
              { name: "bind", role: "secondary", api: undefined, dns: { host: "127.0.0.1", port } }
            ])
          ),
          Layer.provide(Layer.succeed(PowerDnsClient, api))
        )
      ).pipe(Effect.map(Context.get(Provisioner)))
      const zones = [newZone(), newZone({ dnssec: true })]
      yield* provisioner.ensure(zones[0]!)
      const bind = yield* startBind(server.dns, port)
      for (const zone of zones) {
        const web = DomainName.make(`web.${zone.name}`)
        yield* provisioner.ensure(zone)
        for (const address of ["192.0.2.1", "192.0.2.2"]) {
          yield* api.patch(zone.name, [replace(web, "A", [address])])
          yield* waitUntil(
            "the change is at BIND",
            told(
              api,
              zone,
              Effect.map(PowerDns.resolve(bind, web, "A"), ({ data }) => data.join())
            ),
            (text) => text === address,
            { within: "30 seconds", every: "1 second" }
          )
        }
        if (zone.dnssec) yield* checkSigned({ ...server, dns: bind }, provisioner, zone, web, `no.${zone.name}`)
      }
      assert.deepStrictEqual(yield* provisioner.problems, [])
    })
  )

  it.effect("a zone of a server that was told no SOA gets a proper one", () =>
    Effect.gen(function* () {
      const { primary, provisioner } = yield* servers([["a", "primary", "sqlite"]])
      const zone = newZone()
      const soa = Effect.map(primary.api.rrsets(zone.name, [zone.name]), (sets) =>
        sets.flatMap(({ contents, type }) => (type === "SOA" ? contents : [])).join()
      )
      yield* primary.api.createZone({ name: zone.name, kind: "Native", nameservers: zone.nameservers })
      const placeholder = `a.misconfigured.dns.server.invalid. hostmaster.${zone.name} 1 10800 3600 604800 3600`
      yield* primary.api.patch(zone.name, [replace(zone.name, "SOA", [placeholder], 3600)])
      assert.match(yield* soa, /misconfigured/)
      yield* provisioner.ensure(zone)
      assert.match(yield* soa, new RegExp(`^ns1\\.${zone.name} hostmaster\\.${zone.name} \\d+ 10800 3600 604800 60$`))
    })
  )

  it.effect("a new zone is at once at the other server of the database", () =>
    Effect.gen(function* () {
      const backend = yield* PowerDns.pgsqlBackend
      const nodes = yield* Effect.forEach(["a", "b"], (name) =>
        Effect.gen(function* () {
          const server = yield* PowerDns.startServer(backend)
          return {
            name,
            role: "primary" as const,
            server,
            api: yield* PowerDns.clientOf(server, { node: name }),
            dns: server.dns
          }
        })
      )
      const [a, b] = nodes as [(typeof nodes)[number], (typeof nodes)[number]]
      const provisioner = yield* Layer.build(
        Provisioner.layer().pipe(
          Layer.provide(PowerDnsNodes.layerOf(nodes)),
          Layer.provide(Layer.succeed(PowerDnsClient, a.api))
        )
      ).pipe(Effect.map(Context.get(Provisioner)))
      const zone = newZone()
      assert.strictEqual(yield* answer(b.server, `ns1.${zone.name}`), "REFUSED")
      yield* provisioner.ensure(zone)
      yield* waitUntil("the other one knows it", answer(b.server, `x.${zone.name}`), (text) => text === "NXDOMAIN")
    })
  )
})
