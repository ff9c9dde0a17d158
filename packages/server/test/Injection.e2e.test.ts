/**
 * Texts that would do harm where somebody took them for more than text, at
 * every place of the HTTP contract that takes one: on the whole server, a real
 * PowerDNS and both of its databases' statements.
 */
import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import * as Http from "node:http"
import * as Path from "node:path"
import { DatabaseSync } from "node:sqlite"
import * as Agent from "./harness/AgentClient.ts"
import * as Deployment from "./harness/Deployment.ts"
import * as PrismServer from "./harness/PrismServer.ts"
import { headerSafe, mark, type Payload, payloads } from "./attacks/Payloads.ts"
import { type Attempt, type Place, places } from "./attacks/Walk.ts"

const admin = Deployment.adminToken
const victim = `web-1.${Deployment.zone}.`

/** Nothing here names the victim. */
const known = {
  zone: "absent.prism.test.",
  host: `absent.${Deployment.zone}`,
  fqdn: `absent.${Deployment.zone}`,
  hostname: "absent",
  name: "absent",
  addresses: "127.0.3.9",
  address: "127.0.3.9",
  peer: "127.0.3.9",
  plan: "absent",
  token: "absent",
  identity: "absent",
  reason: "a test",
  principal: "anonymous",
  url: "http://127.0.0.1:9/absent",
  type: "A"
}

interface Answer {
  readonly status: number
  readonly headers: Http.IncomingHttpHeaders
  readonly rawHeaders: ReadonlyArray<string>
  readonly text: string
}

const agent = new Http.Agent({ keepAlive: true, maxSockets: 4 })

/** Streams go on; the head of their answer is all that is looked at. */
const send = (url: string, { body, headers, method, path }: Attempt): Effect.Effect<Answer> =>
  Effect.callback((resume) => {
    const request = Http.request(
      `${url}${path}`,
      { method, agent, headers: { ...headers, authorization: `Bearer ${admin}` } },
      (response) => {
        let text = ""
        const done = () =>
          resume(
            Effect.succeed({
              status: response.statusCode!,
              headers: response.headers,
              rawHeaders: response.rawHeaders,
              text
            })
          )
        if (response.headers["content-type"]?.startsWith("text/event-stream") === true) {
          done()
          response.destroy()
          return
        }
        response.setEncoding("utf8").on("data", (chunk: string) => (text += chunk))
        response.on("end", done)
        response.on("error", (error) => resume(Effect.die(error)))
      }
    )
    request.on("error", (error) => resume(Effect.die(new Error(`${method} ${path.slice(0, 200)}: ${error.message}`))))
    request.end(body)
    return Effect.sync(() => request.destroy())
  })

type Running = Effect.Success<ReturnType<typeof Deployment.start>>

/** What must not change, whatever is sent. */
const truth = (deployment: Running) =>
  Effect.gen(function* () {
    const host = (yield* deployment.get(`/v1/hosts/${victim}`)) as Readonly<Record<string, unknown>>
    const db = new DatabaseSync(Path.join(deployment.prism.folder, "prism.db"), { readOnly: true })
    const tables = db.prepare("SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY name").all()
    const admins = db.prepare("SELECT count(*) AS n FROM access_token WHERE role = 'admin'").get()
    db.close()
    return {
      host: { ...host, lastSeen: undefined, publication: undefined },
      tables: tables.map(({ name }) => name),
      admins: admins?.["n"],
      address: yield* deployment.dig(victim, "A"),
      intruder: yield* deployment.dig(`${mark}.${Deployment.zone}.`, "A")
    }
  })

const judge = (attempt: Attempt, payload: Payload, { headers, rawHeaders, status, text }: Answer): void => {
  const what = `${attempt.place}, ${payload.name}: ${status} ${text.slice(0, 500)}`
  assert.isBelow(status, 500, what)
  assert.isUndefined(headers["x-injected"], what)
  assert.isUndefined(headers["set-cookie"], what)
  assert.isTrue(
    rawHeaders.every((each) => !/[\r\n]/.test(each)),
    what
  )
  const type = headers["content-type"] ?? ""
  assert.notInclude(type, "text/html", what)
  assert.strictEqual(headers["x-content-type-options"], "nosniff", what)
  if (type.includes("json")) {
    // Text that comes back is inside of a string. Of lines of JSON, each is one.
    for (const line of type.includes("jsonl") ? text.trimEnd().split("\n") : [text]) {
      assert.doesNotThrow(() => JSON.parse(line), what)
      // oxlint-disable-next-line no-control-regex -- those are what is looked for
      assert.notMatch(line, /[\u0000-\u001f]/, what)
    }
  }
  if (status >= 400 && attempt.method !== "HEAD") assert.strictEqual(type, "application/problem+json", what)
}

describe("texts that would do harm", () => {
  it.live(
    "do none at any place of the contract: no fault, no effect elsewhere, one line of log each, escaped where they come back",
    () =>
      Effect.gen(function* () {
        const rate = { ratePerSecond: 100_000, burst: 1_000_000 }
        const deployment = yield* Deployment.start({
          http: { port: 0, rateLimit: { reads: rate, changes: rate, failures: rate } }
        })
        const { url } = deployment.prism.ready().http
        yield* Agent.register(deployment.tcp(), "web-1", { from: "127.0.3.1" })
        yield* deployment.untilDig(victim, "A", ["127.0.3.1"], "5 seconds")
        const before = yield* truth(deployment)

        const document = (yield* deployment.get("/openapi.json")) as Readonly<Record<string, unknown>>
        const strange = places(document, known)
        // Once more with a zone that is there, so that what is taken is taken; but the zone itself is left as it is.
        const real = places(document, { ...known, zone: `${Deployment.zone}.` }).filter(
          ({ place }) => /\/(?:zones|hosts)\b/.test(place) && !/^(?:PATCH|DELETE) \/v1\/zones\/\{zone\} /.test(place)
        )
        const all = [...strange, ...real.filter(({ place }) => !place.includes(" header "))]
        assert.isAbove(strange.length, 100)
        assert.isAbove(real.length, 50)
        let sent = 0
        const attack = Effect.fnUntraced(function* ({ attempt, place }: Place, payload: Payload) {
          const text = place.includes(" header ") ? headerSafe(payload.text) : payload.text
          const made = attempt(text)
          judge(made, payload, yield* send(url, made))
          sent += 1
        })
        yield* Effect.forEach(
          all.flatMap((place) => payloads.map((payload) => [place, payload] as const)),
          ([place, payload]) => attack(place, payload),
          { concurrency: 4, discard: true }
        )
        assert.isAbove(sent, 2000)

        // What was taken comes back as text.
        for (const path of [
          "/v1/hosts",
          `/v1/zones/${Deployment.zone}/records`,
          "/v1/plans",
          "/v1/tokens",
          "/v1/roles"
        ]) {
          const made = { place: path, method: "GET", path: `${path}?limit=1000`, headers: {}, body: undefined }
          judge(made, { name: "what is there", text: "" }, yield* send(url, made))
        }
        const shown = yield* PrismServer.run(["hosts", "list", "--server", url], {
          folder: deployment.prism.folder,
          environment: { PRISM_TOKEN: admin }
        })
        assert.strictEqual(shown.code, 0, shown.stderr)
        // oxlint-disable-next-line no-control-regex -- those are what is looked for
        assert.notMatch(shown.stdout, /[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u2028\u2029\u202e]/)

        assert.deepStrictEqual(yield* truth(deployment), before)
        assert.deepStrictEqual(before.intruder, [])
        const { stderr } = deployment.prism.output()
        for (const line of stderr.split("\n").filter((each) => each !== "")) {
          // oxlint-disable-next-line no-control-regex -- those are what is looked for
          assert.notMatch(line, /[\u0000-\u001f\u007f-\u009f\u2028\u2029\u202e]/)
          const { level, msg, time } = JSON.parse(line) as Readonly<Record<string, unknown>>
          assert.isString(time)
          assert.isString(level)
          assert.notStrictEqual(msg, "all is well")
          assert.notInclude(["error", "fatal"], level as string, line)
        }
      }),
    300_000
  )
})
