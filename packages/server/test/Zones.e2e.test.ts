/** Zones that come, change and go while the packaged server runs, with a real PowerDNS, by the command line as people call it. */
import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import * as PowerDns from "../../core/test/harness/PowerDns.ts"
import { waitUntil } from "../../core/test/harness/waitUntil.ts"
import * as Agent from "./harness/AgentClient.ts"
import * as Deployment from "./harness/Deployment.ts"
import * as PrismServer from "./harness/PrismServer.ts"

type Running = Effect.Success<ReturnType<typeof Deployment.start>>

const { adminToken, zone } = Deployment

const cli = ({ prism }: Running, ...args: ReadonlyArray<string>) =>
  PrismServer.run(args, {
    folder: prism.folder,
    environment: { PRISM_SERVER: prism.ready().http.url, PRISM_TOKEN: adminToken }
  })

/** The same, which must succeed; gives what it printed. */
const printed = Effect.fnUntraced(function* (running: Running, ...args: ReadonlyArray<string>) {
  const ended = yield* cli(running, ...args)
  assert.strictEqual(ended.code, 0, `${args.join(" ")}\n${ended.stdout}${ended.stderr}`)
  return ended.stdout.trimEnd()
})

const json = (running: Running, ...args: ReadonlyArray<string>) =>
  Effect.map(printed(running, ...args, "--json"), (text): any => JSON.parse(text))

const register = (running: Running, hostname: string, from: string) =>
  Effect.map(Agent.register(running.tcp(), hostname, { from }), ({ message, status }) => ({ status, message }))

const send = (running: Running, method: string, path: string, body?: unknown) =>
  Effect.promise(async () => {
    try {
      const response = await fetch(`${running.prism.ready().http.url}${path}`, {
        method,
        headers: { authorization: `Bearer ${adminToken}`, "content-type": "application/json" },
        ...(body !== undefined && { body: JSON.stringify(body) })
      })
      return response.status
    } catch {
      return undefined
    }
  })

const networks = "policy.networks=127.0.0.0/8"

describe("zones by the API", () => {
  it.live(
    "serve hosts, pointers and signatures as they come, follow their settings, stay over a restart, and go once they are empty",
    () =>
      Effect.gen(function* () {
        const running = yield* Deployment.start({ zones: [{ name: zone }] })
        assert.strictEqual((yield* register(running, "web-1", "127.0.0.11")).status, "success")

        // A zone for hosts.
        const tried = yield* printed(running, "zones", "create", "lab.test", "--set", networks, "--dry-run")
        assert.strictEqual(tried, "lab.test. would be a forward zone of Prism")
        yield* printed(running, "zones", "create", "lab.test", "--set", networks, "--reason", "a lab")
        assert.strictEqual((yield* register(running, "app.lab.test", "127.0.0.12")).status, "success")
        yield* running.untilDig("app.lab.test", "A", ["127.0.0.12"], "5 seconds")

        // A reverse zone, for hosts that are there already.
        const reverse = yield* printed(running, "zones", "create", "127.in-addr.arpa")
        assert.include(reverse, "2 names are looked at again")
        yield* running.untilDig("11.0.0.127.in-addr.arpa", "PTR", [`web-1.${zone}`], "5 seconds")
        yield* running.untilDig("12.0.0.127.in-addr.arpa", "PTR", ["app.lab.test"], "5 seconds")

        // A signed one.
        yield* printed(running, "zones", "create", "signed.test", "--set", "dnssec=true")
        const keys = yield* waitUntil(
          "it is signed",
          json(running, "zones", "dnssec", "signed.test"),
          ({ signed }) => signed,
          { within: "10 seconds" }
        )
        assert.isAbove(keys.keys[0].ds.length, 0)

        // Another TTL reaches records that are there.
        const before = yield* Effect.promise(() =>
          fetch(`${running.prism.ready().http.url}/v1/zones/lab.test`, {
            headers: { authorization: `Bearer ${adminToken}` }
          }).then((response) => response.headers.get("etag")!)
        )
        assert.strictEqual(
          yield* printed(running, "zones", "edit", "lab.test", "--set", "policy.ttlSeconds=120"),
          "lab.test. is changed; 1 name is looked at again"
        )
        yield* waitUntil(
          "its records have it",
          PowerDns.resolve(running.powerdns.dns, "app.lab.test", "A"),
          ({ ttlSeconds }) => ttlSeconds === 120
        )
        const late = yield* cli(
          running,
          "zones",
          "edit",
          "lab.test",
          "--set",
          "policy.ttlSeconds=9",
          "--if-match",
          before
        )
        assert.strictEqual(late.code, 1)
        assert.include(late.stderr, "policy.ttlSeconds: 60 is now 120")
        assert.include(late.stderr, "was changed meanwhile by test at ")
        const history = (yield* printed(running, "zones", "history", "lab.test"))
          .split("\n")
          .map((line) => line.split("\t"))
        assert.deepStrictEqual(
          history.map(([, event, by, , changes = ""]) => [event, by, changes]),
          [
            ["changed", "test", "policy.ttlSeconds: 60 to 120"],
            ["created", "test", ""]
          ]
        )

        // What the API set lies over the configuration, and is taken back.
        yield* printed(running, "zones", "edit", zone, "--set", "policy.hostsMax=5")
        assert.deepStrictEqual((yield* json(running, "zones", "show", zone)).overridden, ["/policy/hostsMax"])
        yield* printed(running, "zones", "edit", zone, "--unset", "policy.hostsMax")

        // As it was before the change.
        const created = history[1]![0]!
        const then = yield* json(running, "zones", "show", "lab.test", "--at", created)
        assert.strictEqual(then.policy.ttlSeconds, 60)

        yield* running.prism.kill("SIGTERM")
        yield* running.prism.restart
        const names = (yield* json(running, "zones", "list")).items.map(({ name }: { name: string }) => name)
        assert.deepStrictEqual(names, ["127.in-addr.arpa.", `${zone}.`, "lab.test.", "signed.test."])
        assert.strictEqual((yield* register(running, "db.lab.test", "127.0.0.13")).status, "success")
        yield* running.untilDig("13.0.0.127.in-addr.arpa", "PTR", ["db.lab.test"], "5 seconds")

        // It goes once nothing is in it.
        const inUse = yield* cli(running, "zones", "delete", "lab.test")
        assert.deepStrictEqual([inUse.code, inUse.stderr.trim()], [1, "prism-dns: lab.test. is in use: 2 hosts."])
        for (const host of ["app.lab.test", "db.lab.test"]) {
          yield* printed(running, "hosts", "release", host, "the lab closes")
        }
        yield* waitUntil("it is removed", cli(running, "zones", "delete", "lab.test"), ({ code }) => code === 0, {
          within: "10 seconds"
        })
        assert.deepStrictEqual(yield* running.dig("app.lab.test", "A"), [])
        const refused = yield* register(running, "new.lab.test", "127.0.0.14")
        // The name goes into the first zone now, as any that lies in no zone.
        assert.deepStrictEqual(refused.status, "success")
        yield* running.untilDig(`new.lab.test.${zone}`, "A", ["127.0.0.14"], "5 seconds")
        assert.isAbove((yield* running.dig("lab.test", "SOA")).length, 0)

        // A reverse zone may go while its pointers stand: they stay, and are written no more.
        yield* printed(running, "zones", "delete", "127.in-addr.arpa")
        assert.strictEqual((yield* register(running, "late", "127.0.0.15")).status, "success")
        yield* running.untilDig(`late.${zone}`, "A", ["127.0.0.15"], "5 seconds")
        assert.deepStrictEqual(yield* running.dig("15.0.0.127.in-addr.arpa", "PTR"), [])
        assert.deepStrictEqual(yield* running.dig("11.0.0.127.in-addr.arpa", "PTR"), [`web-1.${zone}`])
      }).pipe(Effect.scoped),
    120_000
  )

  it.live(
    "are all there, or not, when the server dies at any moment of their making; what was answered is kept and published",
    () =>
      Effect.gen(function* () {
        const running = yield* Deployment.start({ zones: [{ name: zone }] })
        const answered = new Set<string>()
        for (const [round, killAfter] of [0, 3, 9].entries()) {
          let answers = 0
          let killing: Promise<unknown> | undefined
          if (killAfter === 0) killing = Effect.runPromise(running.prism.kill("SIGKILL"))
          yield* Effect.forEach(
            Array.from({ length: 20 }, (_, i) => `crash-${round}-${i}.test`),
            Effect.fnUntraced(function* (name) {
              const status = yield* send(running, "POST", "/v1/zones", {
                name,
                policy: { networks: ["127.0.0.0/8"] }
              })
              if (status !== 201) return
              answered.add(name)
              answers += 1
              if (answers >= killAfter) killing ??= Effect.runPromise(running.prism.kill("SIGKILL"))
            }),
            { concurrency: 5, discard: true }
          )
          yield* Effect.promise(async () => await killing)
          yield* running.prism.restart
          const zones: ReadonlyArray<any> = (yield* json(running, "zones", "list")).items
          const names = new Set(zones.map(({ name }) => name))
          for (const name of answered) assert.include([...names], `${name}.`)
          for (const name of names) {
            const { items } = (yield* running.get(`/v1/zones/${name}/history`)) as { items: ReadonlyArray<any> }
            assert.deepStrictEqual(
              items.filter(({ validTo }) => validTo === undefined).map(({ event }) => event),
              ["created"]
            )
          }
        }
        assert.isAbove(answered.size, 10)
        const [some] = answered
        assert.strictEqual((yield* register(running, `web.${some}`, "127.0.0.21")).status, "success")
        yield* running.untilDig(`web.${some}`, "A", ["127.0.0.21"], "10 seconds")
        yield* waitUntil(
          "all are ready",
          json(running, "zones", "list"),
          ({ items }) => items.every(({ publication }: any) => publication.ready),
          { within: "20 seconds", every: "200 millis" }
        )
      }).pipe(Effect.scoped),
    120_000
  )
})
