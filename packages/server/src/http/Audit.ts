/** Handlers of `/v1/audit`. */
import { Api } from "@prism-dns/core/api/Api"
import type * as Contract from "@prism-dns/core/api/Audit"
import { Caller } from "@prism-dns/core/api/Authentication"
import * as Page from "@prism-dns/core/api/Page"
import { EntryNotFound } from "@prism-dns/core/api/Problems"
import { timestamp } from "@prism-dns/core/api/Values"
import { matching } from "@prism-dns/core/audit/Actions"
import * as AuditCheck from "@prism-dns/core/audit/AuditCheck"
import * as AuditExport from "@prism-dns/core/audit/AuditExport"
import { AuditLog, type LogEntry } from "@prism-dns/core/audit/AuditLog"
import * as Entries from "@prism-dns/core/audit/Entries"
import type { Scope } from "@prism-dns/core/auth/Permissions"
import type { DomainName } from "@prism-dns/core/domain/DomainName"
import { Clock, Effect, Stream } from "effect"
import { HttpServerResponse } from "effect/http"
import { HttpApiBuilder } from "effect/http-api"
import { SqlClient } from "effect/sql"
import { orUnavailable } from "./Answers.ts"
import * as Authorization from "./Authorization.ts"
import { fromReplica } from "./FromReplica.ts"
import { pageWith } from "./Pages.ts"

const toItem = ({ atMillis, ...entry }: LogEntry): Contract.Entry => {
  const given = Object.fromEntries(Object.entries(entry).filter(([, value]) => value !== undefined))
  return { ...given, at: timestamp(atMillis) } as Contract.Entry
}

const isSeen = (scope: Scope, { subject, zone }: LogEntry): boolean =>
  zone === undefined ? scope.everything : scope.has({ zone: zone as DomainName, name: subject as DomainName })

const toVerified = (checked: AuditCheck.Checked): Contract.Verified => ({
  ok: checked.findings.length === 0,
  from: checked.from,
  to: checked.to,
  entries: checked.entries,
  ...(checked.next !== undefined && { next: checked.next }),
  newest: checked.newest,
  ...(checked.last !== undefined && { last: checked.last }),
  findings: checked.findings,
  more: checked.more
})

const parseAnchor = (text: string) => {
  const colon = text.indexOf(":")
  return { position: Number(text.slice(0, colon)), hash: text.slice(colon + 1) }
}

export const layer = HttpApiBuilder.group(
  Api,
  "audit",
  Effect.fnUntraced(function* (handlers) {
    const sql = yield* SqlClient.SqlClient
    const log = yield* AuditLog
    const checks = AuditCheck.make(sql)

    return handlers.handleAll({
      list: Effect.fn("http.Audit.list")(
        function* ({ query, request }) {
          const { action, cursor, limit = Page.limitDefault, since, until, ...rest } = query
          const scope = yield* Authorization.scope("read", "audit")
          const page = yield* log.list(
            {
              ...rest,
              actions: action === undefined ? undefined : matching(action),
              sinceMillis: since === undefined ? undefined : Date.parse(since),
              untilMillis: until === undefined ? undefined : Date.parse(until),
              zones: scope.everything ? undefined : scope.zones
            },
            { before: cursor === undefined ? undefined : Page.numberBefore(cursor), limit }
          )
          const seen = page.entries.filter((entry) => isSeen(scope, entry))
          return pageWith(
            request,
            seen.map(toItem),
            page.before === undefined ? undefined : Page.cursorBehind(page.before)
          )
        },
        fromReplica,
        orUnavailable
      ),

      get: Effect.fn("http.Audit.get")(function* ({ params }) {
        const entry = yield* log.get(Number(params.position))
        const scope = yield* Authorization.scope("read", "audit")
        if (entry !== undefined && isSeen(scope, entry)) return toItem(entry)
        return yield* new EntryNotFound({ detail: `There is no entry ${params.position} in the audit.` })
      }, orUnavailable),

      verify: Effect.fn("http.Audit.verify")(
        function* ({ query: { anchor, from, to } }) {
          yield* Authorization.require("read", "audit")
          const noted = anchor === undefined ? [] : [parseAnchor(anchor)]
          return toVerified(yield* checks.check({ from, to, noted }))
        },
        fromReplica,
        orUnavailable
      ),

      export: Effect.fn("http.Audit.export")(function* ({ query }) {
        yield* Authorization.require("read", "audit")
        yield* Entries.write(sql, {
          atMillis: yield* Clock.currentTimeMillis,
          actor: yield* Caller,
          action: "audit.exported",
          subject: "audit",
          after: query
        })
        return HttpServerResponse.stream(
          // The answer has begun: it breaks off without an end, so that nobody takes a part for the whole.
          Stream.encodeText(Stream.orDie(AuditExport.lines(sql, query))),
          {
            contentType: "application/jsonl",
            headers: { "content-disposition": 'attachment; filename="prism-audit.jsonl"' }
          }
        )
      }, orUnavailable)
    })
  })
)
