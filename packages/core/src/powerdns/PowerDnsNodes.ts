/**
 * The PowerDNS nodes that serve the zones, each with its own client.
 *
 * Promises: the nodes stand in the order of the configuration, the preferred
 * primary first; one node's limits, repeats and circuit are not another's.
 * Leaves to others: who of them takes the writes (`PowerDnsWriter`), and what
 * they answer (`dns/Serving`).
 */
import { Context, type Duration, Effect, Layer, type Redacted } from "effect"
import type { HttpClient } from "effect/http"
import { PowerDnsClient } from "./PowerDnsClient.ts"
import type * as PowerDnsHttp from "./PowerDnsHttp.ts"

/**
 * - `primary`: may take writes; those with the same `database` share it.
 * - `replica`: has the primaries' data by a replication of its database; is asked and flushed, never written.
 * - `secondary`: fetches the zones by AXFR.
 */
export type Role = "primary" | "replica" | "secondary"

/** Where a node answers DNS. */
export interface DnsEndpoint {
  /** An IP address, or a name that the system resolves. */
  readonly host: string
  readonly port: number
}

export interface Node {
  /** Names the node in logs and metrics; each name once. */
  readonly name: string
  readonly role: Role
  /** Which of several databases a primary writes, or a replica copies. Undefined: the one that all others share. */
  readonly database?: string | undefined
  /** Undefined for a node that is only asked. */
  readonly api: PowerDnsClient["Service"] | undefined
  readonly dns: DnsEndpoint
}

export interface NodeOptions {
  readonly name: string
  readonly role: Role
  readonly database?: string | undefined
  readonly api: { readonly url: string; readonly key: Redacted.Redacted } | undefined
  readonly dns: DnsEndpoint
}

export interface Options extends Pick<PowerDnsHttp.Options, "writesMax" | "retry" | "breaker"> {
  /** The preferred primary first. */
  readonly nodes: ReadonlyArray<NodeOptions>
  /** Of each node: see `PowerDnsHttp.Options`. */
  readonly requestTimeout?: Duration.Input
  /** Of each node: see `PowerDnsHttp.Options`. */
  readonly connectionsMax?: number
}

/** What a database is called that nobody gave a name. */
export const unnamedDatabase = "default"

export const databaseOf = ({ database }: Pick<Node, "database">): string => database ?? unnamedDatabase

export class PowerDnsNodes extends Context.Service<
  PowerDnsNodes,
  {
    /** In the order of preference. */
    readonly all: ReadonlyArray<Node>
  }
>()("@prism-dns/core/powerdns/PowerDnsNodes") {
  /** A client for each node that has an API. */
  static readonly layer = ({ nodes, ...http }: Options): Layer.Layer<PowerDnsNodes, never, HttpClient.HttpClient> =>
    Layer.effect(
      PowerDnsNodes,
      Effect.map(
        Effect.forEach(nodes, ({ api, ...node }) =>
          api === undefined
            ? Effect.succeed<Node>({ ...node, api: undefined })
            : Effect.map(
                Layer.build(PowerDnsClient.layer({ ...http, node: node.name, url: api.url, apiKey: api.key })),
                (context): Node => ({ ...node, api: Context.get(context, PowerDnsClient) })
              )
        ),
        (all) => PowerDnsNodes.of({ all })
      )
    )

  /** Nodes that are there already. */
  static readonly layerOf = (all: ReadonlyArray<Node>): Layer.Layer<PowerDnsNodes> =>
    Layer.succeed(PowerDnsNodes, PowerDnsNodes.of({ all }))

  /** One primary with whatever `PowerDnsClient` is around; for tests, and for a server with a single node. */
  static readonly layerSingle = (dns: DnsEndpoint): Layer.Layer<PowerDnsNodes, never, PowerDnsClient> =>
    Layer.effect(
      PowerDnsNodes,
      Effect.map(PowerDnsClient, (api) => PowerDnsNodes.of({ all: [{ name: api.node, role: "primary", api, dns }] }))
    )
}
