/**
 * Name servers in memory, with what spoils `served` in the world: a copy that
 * lags, an answer kept in a cache, silence.
 */
import type { DomainName } from "@prism-dns/core/domain/DomainName"
import type * as RRset from "@prism-dns/core/domain/RRset"
import { type Answer, NameServers, NoAnswer } from "@prism-dns/core/dns/NameServers"
import { PowerDnsClient } from "@prism-dns/core/powerdns/PowerDnsClient"
import { type Node, PowerDnsNodes, type Role } from "@prism-dns/core/powerdns/PowerDnsNodes"
import { Context, Effect, Layer } from "effect"

export class FakeNode {
  readonly node: Node
  /** What its database says. */
  readonly records = new Map<string, RRset.RRset>()
  /** What it answers until it is flushed. */
  readonly cache = new Map<string, Answer>()
  readonly flushes: Array<DomainName> = []
  readonly asked: Array<string> = []
  up = true
  authoritative = true
  /** False: its API is silent. */
  flushable = true

  constructor(name: string, role: Role, api: PowerDnsClient["Service"] | undefined, port: number) {
    this.node = { name, role, api, dns: { host: "fake", port } }
  }

  put(rrset: RRset.RRset): void {
    this.records.set(`${rrset.name} ${rrset.type}`, rrset)
  }

  remove(name: DomainName, type: string): void {
    this.records.delete(`${name} ${type}`)
  }

  answer(name: DomainName, type: string): Answer {
    const key = `${name} ${type}`
    const cached = this.cache.get(key)
    if (cached !== undefined) return cached
    const rrset = this.records.get(key)
    const exists = [...this.records.keys()].some((each) => each.startsWith(`${name} `))
    const answer: Answer = {
      rcode: exists ? "NOERROR" : "NXDOMAIN",
      authoritative: this.authoritative,
      ttlSeconds: rrset?.ttlSeconds,
      contents: rrset?.contents ?? []
    }
    this.cache.set(key, answer)
    return answer
  }
}

export interface NodeSpec {
  readonly name: string
  readonly role?: Role
  /** Default true. */
  readonly api?: boolean
}

/** The nodes, and how often a zone's secondaries were notified, by the first of them. */
export class FakeNodes extends Context.Service<
  FakeNodes,
  { readonly nodes: ReadonlyArray<FakeNode>; readonly notified: Array<DomainName> }
>()("@prism-dns/core/test/FakeNodes") {}

export const layer = (
  specs: ReadonlyArray<NodeSpec>
): Layer.Layer<FakeNodes | PowerDnsNodes | NameServers | PowerDnsClient> =>
  Layer.effectContext(
    Effect.gen(function* () {
      const nodes: Array<FakeNode> = []
      const notified: Array<DomainName> = []
      for (const [i, { api = true, name, role = "primary" }] of specs.entries()) {
        const client = Layer.mock(PowerDnsClient)({
          node: name,
          flush: (zone) =>
            Effect.suspend(() => {
              const self = nodes[i]!
              if (!self.up || !self.flushable) return Effect.never
              self.flushes.push(zone)
              self.cache.clear()
              return Effect.void
            }),
          notify: (zone) => Effect.sync(() => void notified.push(zone))
        })
        const service = Context.get(yield* Layer.build(client), PowerDnsClient)
        nodes.push(new FakeNode(name, role, api ? service : undefined, i))
      }
      const servers = yield* Layer.build(
        NameServers.layerOf((server, name, type) =>
          Effect.suspend(() => {
            const node = nodes[server.port]!
            if (!node.up) {
              return Effect.andThen(
                Effect.sleep(1000),
                Effect.fail(new NoAnswer({ reason: "silent", detail: `${node.node.name} is silent` }))
              )
            }
            node.asked.push(`${name} ${type}`)
            return Effect.delay(
              Effect.sync(() => node.answer(name, type)),
              1
            )
          })
        )
      )
      return servers.pipe(
        Context.add(FakeNodes, { nodes, notified }),
        Context.add(PowerDnsNodes, { all: nodes.map(({ node }) => node) }),
        Context.add(PowerDnsClient, nodes[0]!.node.api!)
      )
    })
  )
