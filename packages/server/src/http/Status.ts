/** Handler of `/v1/status`. */
import { Api } from "@prism-dns/core/api/Api"
import * as Contract from "@prism-dns/core/api/Status"
import { timestamp } from "@prism-dns/core/api/Values"
import { Cluster, type InstanceStatus, type LeaseStatus, zoneLease } from "@prism-dns/core/cluster/Cluster"
import { DnsManager } from "@prism-dns/core/dns/DnsManager"
import { Outbox } from "@prism-dns/core/dns/Outbox"
import { Plans } from "@prism-dns/core/dns/Plans"
import { Provisioner } from "@prism-dns/core/dns/Provisioner"
import { type NodeStatus, Serving } from "@prism-dns/core/dns/Serving"
import type { DomainName } from "@prism-dns/core/domain/DomainName"
import { type DnsEndpoint, PowerDnsNodes } from "@prism-dns/core/powerdns/PowerDnsNodes"
import { PowerDnsWriter, type WriterStatus } from "@prism-dns/core/powerdns/PowerDnsWriter"
import { Guards } from "@prism-dns/core/registry/Guards"
import { Clock, Effect } from "effect"
import { HttpApiBuilder } from "effect/http-api"
import { version } from "../Version.ts"
import { orUnavailable } from "./Answers.ts"
import * as Authorization from "./Authorization.ts"
import { toGuard } from "./Guards.ts"
import { toPlan } from "./Plans.ts"
import { toZonePublications } from "./Publications.ts"

export interface StatusOptions {
  /** What this process is called: `server.instance`. */
  readonly instance: string
}

const toEndpoint = ({ host, port }: DnsEndpoint): string =>
  host.includes(":") ? `[${host}]:${port}` : `${host}:${port}`

const toWriting = ({ heldUntilMillis, preferred, sinceMillis, writer }: WriterStatus): Contract.WritingNode => ({
  node: writer,
  preferred,
  ...(sinceMillis !== undefined && { since: timestamp(sinceMillis) }),
  ...(heldUntilMillis !== undefined && { heldUntil: timestamp(heldUntilMillis) })
})

const toInstance = (instance: InstanceStatus): Contract.Instance => ({
  id: instance.id,
  name: instance.name,
  state: instance.state,
  self: instance.isSelf,
  version: instance.version,
  startedAt: timestamp(instance.startedMillis),
  renewedAt: timestamp(instance.renewedMillis),
  sessions: instance.sessions
})

const toLease = ({ epoch, holder, name, sinceMillis }: LeaseStatus): Contract.Lease => ({
  name,
  epoch,
  ...(holder !== undefined && { holder: holder.name, holderId: holder.id }),
  since: timestamp(sinceMillis)
})

const toOldest = ({ answered, generation, name, publishedMillis, zone }: NonNullable<NodeStatus["oldest"]>) => ({
  zone,
  name,
  generation,
  since: timestamp(publishedMillis),
  ...(answered !== undefined && { answered })
})

export const layer = (options: StatusOptions) =>
  HttpApiBuilder.group(
    Api,
    "status",
    Effect.fnUntraced(function* (handlers) {
      const cluster = yield* Cluster
      const manager = yield* DnsManager
      const outbox = yield* Outbox
      const serving = yield* Serving
      const provisioner = yield* Provisioner
      const writer = yield* PowerDnsWriter
      const endpoints = new Map((yield* PowerDnsNodes).all.map(({ dns, name }) => [name, toEndpoint(dns)]))
      const plans = yield* Plans
      const guards = yield* Guards
      /** Where there is one server only. */
      const alone: Contract.Instance = {
        id: cluster.self.id,
        name: options.instance,
        state: "live",
        self: true,
        version,
        startedAt: timestamp(yield* Clock.currentTimeMillis)
      }

      return handlers.handleAll({
        get: Effect.fn("http.Status.get")(function* () {
          const writing = yield* writer.status
          const scope = yield* Authorization.scope("read", "status")
          const ofPlans = yield* Authorization.scope("read", "plans")
          const ofGuards = yield* Authorization.scope("read", "guards")
          const isSeen = ({ zone }: { readonly zone: DomainName }) => scope.has({ zone })
          const nodes = yield* scope.everything ? serving.status : serving.statusOf((zone) => scope.has({ zone }))
          const instances = yield* cluster.instances
          const leases = yield* cluster.leases
          const holders = new Map(leases.map(({ holder, name }) => [name, holder?.name]))
          const isLeaseSeen = ({ name }: LeaseStatus) =>
            scope.everything ||
            (name.startsWith("zone/") && scope.has({ zone: name.slice("zone/".length) as DomainName }))
          const statuses = yield* manager.status
          const written = new Set(statuses.flatMap(({ writing, zone }) => (writing ? [zone] : [])))
          return {
            instances: instances.length === 0 ? [alone] : instances.map(toInstance),
            leases: leases.filter(isLeaseSeen).map(toLease),
            zones: toZonePublications(statuses, yield* outbox.backlog)
              .filter(isSeen)
              .map((zone) => {
                const writer = written.has(zone.zone) ? options.instance : holders.get(zoneLease(zone.zone))
                return zone.ready && writer !== undefined ? { ...zone, writer } : zone
              }),
            nodes: nodes.map(({ lastAnsweredMillis, name, oldest, role, unserved, up }): Contract.NodeStatus => ({
              name,
              role,
              dns: endpoints.get(name) ?? "",
              up,
              writes: name === writing.writer,
              ...(lastAnsweredMillis !== undefined && { lastAnswered: timestamp(lastAnsweredMillis) }),
              unserved,
              ...(oldest !== undefined && { oldest: toOldest(oldest) })
            })),
            writing: toWriting(writing),
            problems: (yield* provisioner.problems).filter(isSeen),
            plans: (yield* plans.list({ zones: ofPlans.zones, state: "open", limit: Contract.plansShown }))
              .filter(({ zone }) => ofPlans.has({ zone }))
              .map(toPlan),
            guards: ofGuards.everything ? (yield* guards.list).map(toGuard) : []
          }
        }, orUnavailable)
      })
    })
  )
