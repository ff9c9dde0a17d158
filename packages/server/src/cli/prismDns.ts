/** `prism-dns` as the list of its commands: one file here for each. */
import { Command } from "effect/cli"
import { access } from "./access.ts"
import { audit } from "./audit.ts"
import { backup, restore } from "./backup.ts"
import { capacity } from "./capacity.ts"
import { config } from "./config.ts"
import { dev } from "./dev.ts"
import { doctor } from "./doctor.ts"
import { events } from "./events.ts"
import { guards } from "./guards.ts"
import { diff } from "./history.ts"
import { hosts } from "./hosts.ts"
import { identities } from "./identities.ts"
import { migrate } from "./migrate.ts"
import { plan } from "./plan.ts"
import { publications } from "./publications.ts"
import { records } from "./records.ts"
import { roles } from "./roles.ts"
import { serve } from "./serve.ts"
import { status } from "./status.ts"
import { tokens } from "./tokens.ts"
import { exportZone, importZone } from "./transfer.ts"
import { webhooks } from "./webhooks.ts"
import { whoami } from "./whoami.ts"
import { zones } from "./zones.ts"

export const prismDns = Command.make("prism-dns").pipe(
  Command.withDescription("Hosts register, and their names resolve."),
  Command.withSubcommands([
    dev,
    serve,
    config,
    migrate,
    backup,
    restore,
    doctor,
    capacity,
    status,
    zones,
    records,
    importZone,
    exportZone,
    plan,
    hosts,
    diff,
    events,
    webhooks,
    audit,
    publications,
    guards,
    tokens,
    roles,
    identities,
    access,
    whoami
  ])
)
