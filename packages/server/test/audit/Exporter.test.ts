import { assert, describe, it } from "@effect/vitest"
import { Cluster } from "@prism-dns/core/cluster/Cluster"
import { Signals } from "@prism-dns/core/cluster/Signals"
import * as AuditExport from "@prism-dns/core/audit/AuditExport"
import { AuditLog } from "@prism-dns/core/audit/AuditLog"
import * as Audit from "@prism-dns/core/audit/Entries"
import { Sealer } from "@prism-dns/core/audit/Sealer"
import { Effect, Layer } from "effect"
import { SqlClient } from "effect/sql"
import * as Dgram from "node:dgram"
import * as Fs from "node:fs"
import * as Net from "node:net"
import * as Os from "node:os"
import * as Path from "node:path"
import * as Tls from "node:tls"
import { waitUntil } from "../../../core/test/harness/waitUntil.ts"
import * as T from "../../../core/test/layers.ts"
import * as Exporter from "../../src/audit/Exporter.ts"
import type { TargetConfig } from "../../src/audit/TargetConfig.ts"
import { authority, type Pair } from "../harness/certificates.ts"

const database = Sealer.layer({ gatherMillis: 1 }).pipe(
  Layer.provideMerge(AuditLog.layer),
  Layer.provideMerge(Layer.merge(Cluster.layerAlone, Signals.layerNone)),
  Layer.provideMerge(T.sqlite())
)

const write = (...subjects: ReadonlyArray<string>) =>
  Effect.flatMap(SqlClient.SqlClient, (sql) =>
    Audit.writeAll(
      sql,
      subjects.map((subject) => ({
        actor: { name: 'ann "the ]admin\\', peer: undefined },
        action: "host.created",
        zone: "hosts.test.",
        subject,
        result: subject.startsWith("no") ? "refused" : "done"
      })),
      1_700_000_000_000
    )
  )

const exporter = (config: TargetConfig, options: Partial<Exporter.ExporterOptions> = {}) =>
  Exporter.layer([config], { host: "prism 1", retryMillisMin: 10, retryMillisMax: 20, ...options })

const position = Effect.flatMap(SqlClient.SqlClient, (sql) =>
  Effect.map(sql<{ readonly position: number }>`SELECT position FROM audit_export`, ([row]) => row?.position ?? 0)
)

/** Ends once the target is noted to have had entries up to there. */
const noted = (to: number) => waitUntil(`it is noted that ${to} have gone out`, position, (at) => at === to)

const folder = Effect.acquireRelease(
  Effect.sync(() => Fs.mkdtempSync(Path.join(Os.tmpdir(), "prism-audit-"))),
  (path) => Effect.sync(() => Fs.rmSync(path, { recursive: true, force: true }))
)

/** A syslog server over TCP, or TLS with `pair`: frames that came, and a way to break what is open. */
const collector = (port = 0, pair?: Pair) =>
  Effect.acquireRelease(
    Effect.callback<{
      readonly server: Net.Server
      readonly frames: () => ReadonlyArray<string>
      readonly cut: () => void
      /** Connections that broke off in the handshake. */
      readonly refused: () => number
      readonly connections: () => number
      readonly port: number
    }>((resume) => {
      const received: Array<Buffer> = []
      const sockets = new Set<Net.Socket>()
      let refused = 0
      let connections = 0
      const takes = (socket: Net.Socket) => {
        sockets.add(socket)
        let mine = Buffer.alloc(0)
        socket.on("error", () => undefined)
        socket.on("close", () => sockets.delete(socket))
        socket.on("data", (chunk) => {
          mine = Buffer.concat([mine, chunk])
          for (;;) {
            const space = mine.indexOf(" ")
            const length = Number(mine.subarray(0, space).toString())
            if (space < 0 || mine.length < space + 1 + length) return
            received.push(mine.subarray(space + 1, space + 1 + length))
            mine = mine.subarray(space + 1 + length)
          }
        })
      }
      const server =
        pair === undefined
          ? Net.createServer(takes)
          : Tls.createServer({ cert: Fs.readFileSync(pair.certificate), key: Fs.readFileSync(pair.key) }, takes)
      server.on("connection", () => (connections += 1))
      server.on("tlsClientError", () => (refused += 1))
      server.listen(port, "127.0.0.1", () => {
        const address = server.address() as Net.AddressInfo
        resume(
          Effect.succeed({
            server,
            port: address.port,
            frames: () => received.map((frame) => frame.toString()),
            cut: () => sockets.forEach((socket) => socket.destroy()),
            refused: () => refused,
            connections: () => connections
          })
        )
      })
    }),
    ({ cut, server }) =>
      Effect.callback<void>((resume) => {
        cut()
        server.close(() => resume(Effect.void))
      })
  )

const subjectOf = (frame: string): string => /subject="([^"]*)"/.exec(frame)![1]!

const test = <E>(
  name: string,
  body: Effect.Effect<void, E, Layer.Success<typeof database> | import("effect").Scope.Scope>
) => it.live(name, () => body.pipe(Effect.scoped, Effect.provide(Layer.fresh(database))))

describe("the export of the audit", () => {
  test(
    "to a file goes on where it was, also when the file was moved away, and each file verifies",
    Effect.gen(function* () {
      const path = Path.join(yield* folder, "audit.jsonl")
      const lines = Effect.sync(() => (Fs.existsSync(path) ? Fs.readFileSync(path, "utf8").trimEnd().split("\n") : []))
      const entries = Effect.map(lines, (all) => all.filter((line) => line.includes('"action"')).length)
      const verify = Effect.map(lines, (all) => {
        const reader = AuditExport.reader([], { grows: true })
        for (const line of all) reader.line(line)
        return reader.end()
      })
      const life = <A, E, R>(effect: Effect.Effect<A, E, R>) =>
        Effect.provide(effect, Layer.fresh(exporter({ _tag: "File", path }, { batchMax: 2 })))
      yield* write("a", "b", "c")
      yield* life(noted(3))
      assert.strictEqual(yield* entries, 3)
      yield* write("d")
      yield* life(noted(4))
      assert.strictEqual(yield* entries, 4)
      assert.deepStrictEqual([(yield* verify).findings, (yield* verify).broken], [[], undefined])
      Fs.renameSync(path, `${path}.1`)
      yield* write("e")
      yield* life(noted(5))
      const report = yield* verify
      assert.deepStrictEqual([report.findings, report.broken, report.entries], [[], undefined, 1])
      const changed = (yield* lines).map((line) => line.replace('"e"', '"f"'))
      Fs.writeFileSync(path, changed.join("\n"))
      assert.strictEqual((yield* verify).findings[0]!.what, "changed")
    })
  )

  test(
    "to a file that a crash has left with some entries written and not noted writes them once more, and it verifies",
    Effect.gen(function* () {
      const sql = yield* SqlClient.SqlClient
      const path = Path.join(yield* folder, "audit.jsonl")
      yield* write("a", "b", "c")
      yield* Effect.provide(noted(3), Layer.fresh(exporter({ _tag: "File", path })))
      yield* sql`UPDATE audit_export SET position = 1`
      yield* Effect.provide(noted(3), Layer.fresh(exporter({ _tag: "File", path })))
      const lines = Fs.readFileSync(path, "utf8").split("\n")
      assert.strictEqual(lines.filter((line) => line.includes('"action"')).length, 5)
      const reader = AuditExport.reader([], { grows: true })
      for (const line of lines) reader.line(line)
      const report = reader.end()
      assert.deepStrictEqual([report.findings, report.broken], [[], undefined])
    })
  )

  it.live(
    "to syslog over TLS sends only to a server whose certificate its authorities have signed, and for the name it is called by",
    Effect.fnUntraced(
      function* () {
        const ours = yield* authority("ours")
        const others = yield* authority("others")
        const pair = ours.issue("syslog", { alternativeNames: "IP:127.0.0.1,DNS:localhost", usage: "serverAuth" })
        const wrongName = ours.issue("else", { alternativeNames: "DNS:elsewhere.test", usage: "serverAuth" })
        const good = yield* collector(0, pair)
        const elsewhere = yield* collector(0, wrongName)
        const at = yield* folder
        const ca = Path.join(at, "ca.pem")
        const sending = (port: number, authorities: string | undefined) =>
          exporter({
            _tag: "Syslog",
            server: { protocol: "tls", host: "127.0.0.1", port },
            facility: "audit",
            ca: authorities
          })
        // By the authorities that Node knows.
        yield* Effect.gen(function* () {
          yield* write("a.hosts.test.")
          yield* waitUntil("it was tried and refused", Effect.sync(good.refused), (count) => count >= 2)
          assert.strictEqual(yield* position, 0)
        }).pipe(Effect.provide(sending(good.port, undefined)))
        // Signed by ours, for another name: the handshake is done, and nothing is sent over it.
        yield* Effect.gen(function* () {
          const tried = yield* Effect.sync(() => elsewhere.connections)
          yield* waitUntil("it was tried", Effect.sync(tried), (count) => count >= 2)
          assert.strictEqual(yield* position, 0)
        }).pipe(Effect.provide(sending(elsewhere.port, ours.certificate)))
        assert.deepStrictEqual(elsewhere.frames(), [])
        // The file is read for each connection: a new authority is taken without a restart.
        Fs.copyFileSync(others.certificate, ca)
        const before = good.refused()
        yield* Effect.gen(function* () {
          yield* write("b.hosts.test.")
          yield* waitUntil("it was refused again", Effect.sync(good.refused), (count) => count > before)
          assert.deepStrictEqual(good.frames(), [])
          Fs.copyFileSync(ours.certificate, ca)
          yield* waitUntil("both have come", Effect.sync(good.frames), (frames) => frames.length === 2)
          yield* noted(2)
        }).pipe(Effect.provide(sending(good.port, ca)))
        assert.include(good.frames()[0]!, "a.hosts.test.")
        assert.include(good.frames()[1]!, "b.hosts.test.")
      },
      Effect.scoped,
      Effect.provide(database)
    ),
    30_000
  )

  test(
    "to syslog over TCP sends messages of RFC 5424 with their lengths, what programs filter by as structured data",
    Effect.gen(function* () {
      const { frames, port } = yield* collector()
      yield* write("a", "no-b")
      const server = { protocol: "tcp", host: "127.0.0.1", port } as const
      yield* Effect.provide(
        waitUntil("both have come", Effect.sync(frames), (all) => all.length === 2),
        exporter({ _tag: "Syslog", server, facility: "audit", ca: undefined })
      )
      const [first, second] = frames()
      const match =
        /^<(\d+)>1 (\S+) (\S+) prism-dns - (\S+) \[prism@32473 ((?:\w+="(?:[^"\\\]]|\\.)*" ?)*)\] (.*)$/s.exec(first!)
      assert.isNotNull(match)
      assert.deepStrictEqual(match.slice(1, 5), ["109", "2023-11-14T22:13:20.000Z", "prism_1", "host.created"])
      assert.include(
        match[5]!,
        'position="1" actor="ann \\"the \\]admin\\\\" zone="hosts.test." subject="a" result="done"'
      )
      assert.deepInclude(JSON.parse(match[6]!), { position: 1, subject: "a", actor: 'ann "the ]admin\\' })
      assert.match(second!, /^<108>1 /)
    })
  )

  test(
    "to a server that is away loses nothing, and holds nobody up",
    Effect.gen(function* () {
      const port = yield* Effect.scoped(Effect.map(collector(), ({ port }) => port))
      const server = { protocol: "tcp", host: "127.0.0.1", port } as const
      yield* Effect.gen(function* () {
        yield* write("a", "b")
        yield* waitUntil(
          "they are sealed all the same",
          Effect.flatMap(AuditLog, ({ head }) => head),
          (head) => head.position === 2
        )
        const { frames } = yield* collector(port)
        yield* waitUntil("they come once it is there", Effect.sync(frames), (all) => all.length === 2)
        yield* noted(2)
      }).pipe(Effect.provide(exporter({ _tag: "Syslog", server, facility: "local0", ca: undefined })))
    })
  )

  test(
    "over a connection that breaks sends once more what may be lost, in order, and misses nothing",
    Effect.gen(function* () {
      const { cut, frames, port } = yield* collector()
      const server = { protocol: "tcp", host: "127.0.0.1", port } as const
      const names = Array.from({ length: 30 }, (_, i) => `h${i}`)
      yield* Effect.gen(function* () {
        for (const [i, name] of names.entries()) {
          yield* write(name)
          if (i % 7 === 6) {
            yield* waitUntil("it has come", Effect.sync(frames), (all) =>
              all.some((frame) => subjectOf(frame) === name)
            )
            cut()
          }
        }
        yield* waitUntil("the last has come", Effect.sync(frames), (all) =>
          all.some((frame) => subjectOf(frame) === names.at(-1))
        )
      }).pipe(Effect.provide(exporter({ _tag: "Syslog", server, facility: "audit", ca: undefined }, { batchMax: 3 })))
      const seen = [...new Set(frames().map(subjectOf))]
      assert.deepStrictEqual(seen, names)
    })
  )

  test(
    "over UDP is a datagram for each entry, and one that is too long keeps its structured data",
    Effect.gen(function* () {
      const received: Array<string> = []
      const socket = yield* Effect.acquireRelease(
        Effect.callback<Dgram.Socket>((resume) => {
          const made = Dgram.createSocket("udp4", (message) => void received.push(message.toString()))
          made.bind(0, "127.0.0.1", () => resume(Effect.succeed(made)))
        }),
        (made) => Effect.sync(() => made.close())
      )
      const sql = yield* SqlClient.SqlClient
      yield* write("a")
      yield* Audit.writeAll(
        sql,
        [{ actor: Audit.prism, action: "zone.changed", subject: "b", after: "x".repeat(10_000) }],
        1
      )
      const server = { protocol: "udp", host: "127.0.0.1", port: socket.address().port } as const
      yield* Effect.provide(
        waitUntil(
          "both have come",
          Effect.sync(() => received),
          (all) => all.length === 2
        ),
        exporter({ _tag: "Syslog", server, facility: "audit", ca: undefined })
      )
      assert.match(received[0]!, /"subject":"a"/)
      assert.match(received[1]!, /subject="b".*hash="[^"]+"\]$/)
    })
  )
})
