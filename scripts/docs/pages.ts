/** The pages that are made from the code, as they should be now: `npm run docs` writes them, a test compares them. */
import { Api } from "@prism-dns/core/api/Api"
import { OpenApi } from "effect/http-api"
import * as Path from "node:path"
import { settings } from "../../packages/server/src/Config.ts"
import * as ConfigurationPage from "../../packages/server/src/config/Reference.ts"
import { prismDns } from "../../packages/server/src/cli/prismDns.ts"
import * as Report from "../../packages/server/src/bench/Report.ts"
import { version } from "../../packages/server/src/Version.ts"
import * as CapacityPage from "./CapacityPage.ts"
import * as CommandPage from "./CommandPage.ts"
import * as HttpPage from "./HttpPage.ts"
import * as MetricsPage from "./MetricsPage.ts"

/** A file below the root of the repository, and what is to be in it. */
export interface Page {
  readonly path: string
  readonly content: string
}

const docs = Path.resolve(import.meta.dirname, "../../docs")

export const pages = async (): Promise<ReadonlyArray<Page>> => {
  const document = OpenApi.fromApi(Api)
  const commands = await CommandPage.collect(prismDns)
  return [
    { path: "docs/reference/configuration.md", content: ConfigurationPage.page(settings) },
    { path: "docs/reference/metrics.md", content: MetricsPage.page(await MetricsPage.declared()) },
    { path: "docs/reference/http.md", content: HttpPage.page(document) },
    { path: "docs/reference/commands.md", content: CommandPage.page("prism-dns", commands) },
    {
      path: "packages/server/man/prism-dns.1",
      content: CommandPage.manual(
        {
          name: "prism-dns",
          version,
          date: "2026-11-26",
          summary: "gives every machine a name that is true",
          seeAlso: "pdns_server(1), dig(1)"
        },
        commands
      )
    },
    { path: "docs/reference/capacity.md", content: CapacityPage.page() },
    { path: `docs/${Report.page}`, content: Report.render(Report.read(docs)) },
    { path: "docs/reference/openapi.json", content: `${JSON.stringify(document, null, 2)}\n` }
  ]
}
