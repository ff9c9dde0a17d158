/**
 * Whoever wants what is not theirs: each is refused with its code, stands in
 * the audit, is counted, and has changed nothing. On the whole server and a real
 * PowerDNS, by bytes on the wire.
 */
import { assert, describe, it } from "@effect/vitest"
import * as Proof from "@prism-dns/core/protocol/Proof"
import * as Wire from "@prism-dns/core/protocol/Wire"
import { Effect, Redacted } from "effect"
import * as Path from "node:path"
import { DatabaseSync } from "node:sqlite"
import { audit } from "../../core/test/harness/audit.ts"
import { waitUntil } from "../../core/test/harness/waitUntil.ts"
import * as Agent from "./harness/AgentClient.ts"
import { connect, makeKey } from "./harness/AgentV2.ts"
import * as Deployment from "./harness/Deployment.ts"
import * as Headers from "./harness/proxyHeaders.ts"

const fleet = "token-of-the-fleet"
/** May have names that begin with lab-, in one of two zones, with addresses in 127.0.40.0/24. */
const lab = "token-of-the-lab"
const admin = Deployment.adminToken

const settings = {
  zones: [{ name: Deployment.zone }, { name: "other.prism.test" }, { name: "127.in-addr.arpa" }],
  tcp: { host: "127.0.0.1", port: 0, proxyFrom: ["127.0.8.0/24"] },
  auth: {
    mode: "required",
    agentTokens: [
      { name: "fleet", token: fleet },
      { name: "lab", token: lab, zones: [Deployment.zone], names: ["lab-*"], networks: ["127.0.40.0/24"] }
    ],
    adminTokens: [{ name: "test", token: admin }]
  }
}

const victim = "127.0.3.1"
const intruder = "127.0.3.66"
const fqdn = `web-1.${Deployment.zone}.`

type Running = Effect.Success<ReturnType<typeof Deployment.start>>

const post = ({ prism }: Running, path: string, body: object) =>
  Effect.promise(async () => {
    const response = await fetch(`${prism.ready().http.url}${path}`, {
      method: "POST",
      headers: { authorization: `Bearer ${admin}`, "content-type": "application/json" },
      body: JSON.stringify(body)
    })
    const text = await response.text()
    if (!response.ok) throw new Error(`POST ${path}: ${response.status} ${text}`)
    return JSON.parse(text) as Readonly<Record<string, unknown>>
  })

interface Entry {
  readonly actor: string
  readonly peer: string
  readonly subject: string
  readonly reason: string
}

/** The refusals that the registry's audit has by now. */
const audited = ({ prism }: Running): ReadonlyArray<Entry> => {
  const db = new DatabaseSync(Path.join(prism.folder, "prism.db"), { readOnly: true })
  try {
    return db
      .prepare(`SELECT actor, peer, subject, reason FROM ${audit} WHERE action = 'access.refused' ORDER BY sequence`)
      .all() as unknown as ReadonlyArray<Entry>
  } finally {
    db.close()
  }
}

/** Everything that must not change: all hosts, and what the DNS says of the victim. */
const truth = (deployment: Running) =>
  Effect.gen(function* () {
    const { items } = (yield* deployment.get("/v1/hosts")) as {
      readonly items: ReadonlyArray<Readonly<Record<string, unknown>>>
    }
    return {
      hosts: items.map((host) => ({ ...host, lastSeen: undefined, publication: undefined })),
      address: yield* deployment.dig(fqdn, "A"),
      pointer: yield* deployment.dig("1.3.0.127.in-addr.arpa.", "PTR")
    }
  })

/** Runs an attempt, which ends with the code it was told, and looks at what remains of it. */
const refused = Effect.fnUntraced(function* <E>(
  deployment: Running,
  code: string,
  attempt: Effect.Effect<string | undefined, E>,
  expected: Partial<Entry> = {}
) {
  const metric = `prism_auth_failures_total{reason="${code}"}`
  const before = yield* truth(deployment)
  const countedBefore = (yield* deployment.metric(metric)) ?? 0
  const auditedBefore = audited(deployment).length
  assert.strictEqual(yield* attempt, code)
  const entries = yield* waitUntil(
    `${code} is audited`,
    Effect.sync(() => audited(deployment).slice(auditedBefore)),
    (found) => found.length > 0,
    { within: "5 seconds" }
  )
  assert.lengthOf(entries, 1, JSON.stringify(entries))
  assert.isTrue(entries[0]!.reason.startsWith(`${code}: `), entries[0]!.reason)
  assert.deepInclude(entries[0]!, { peer: intruder, ...expected })
  for (const secret of [fleet, lab]) assert.notInclude(JSON.stringify(entries), secret)
  assert.strictEqual((yield* deployment.metric(metric)) ?? 0, countedBefore + 1, metric)
  assert.deepStrictEqual(yield* truth(deployment), before)
})

const codeOf = (message: { readonly type: string; readonly code?: unknown } | undefined) =>
  message?.type === "error" ? String(message.code) : JSON.stringify(message)

/** An agent that has enrolled a new key with this token. */
const enrolled = Effect.fnUntraced(function* (deployment: Running, token: string, from: string, key = makeKey()) {
  const agent = yield* connect(deployment.tcp(), { from })
  const challenge = yield* agent.hello({ method: "enrol", publicKey: Proof.exportPublicKey(key), token })
  assert.strictEqual(challenge.type, "challenge", JSON.stringify(challenge))
  if (challenge.type === "challenge") agent.prove(challenge, key, "enrol")
  const welcome = yield* agent.expect("welcome")
  return { agent, key, identity: welcome.identity.name }
})

/** What whoever enrols with this token is told. */
const enrolling = Effect.fnUntraced(function* (deployment: Running, token: string, from = intruder) {
  const key = makeKey()
  const agent = yield* connect(deployment.tcp(), { from })
  const first = yield* agent.hello({ method: "enrol", publicKey: Proof.exportPublicKey(key), token })
  if (first.type !== "challenge") return codeOf(first)
  agent.prove(first, key, "enrol")
  const [answer] = yield* agent.receive()
  return codeOf(answer)
}, Effect.scoped)

/** What a session with a bearer token is told about a registration. */
const registering = Effect.fnUntraced(function* (
  deployment: Running,
  token: string,
  hostname: string,
  fields: object = {}
) {
  const agent = yield* connect(deployment.tcp(), { from: intruder })
  const welcome = yield* agent.hello({ method: "token", token })
  if (welcome.type !== "welcome") return codeOf(welcome)
  return codeOf((yield* agent.register(hostname, fields)).at(-1))
}, Effect.scoped)

/** A deployment in which the victim has its name by its key. */
const withVictim = Effect.gen(function* () {
  const deployment = yield* Deployment.start(settings)
  const holder = yield* enrolled(deployment, fleet, victim)
  const acks = yield* holder.agent.register("web-1", { ack: "served" })
  assert.deepStrictEqual(
    acks.map((each) => (each.type === "ack" ? each.level : each.type)),
    ["accepted", "applied", "served"]
  )
  return { deployment, holder }
})

describe("what is not theirs", () => {
  it.live("names: squatted, reserved, too deep, outside the grant, in no zone of ours", () =>
    Effect.gen(function* () {
      const { deployment } = yield* withVictim
      const other = yield* enrolled(deployment, fleet, intruder)
      const asOther = (hostname: string, fields: object = {}) =>
        Effect.map(other.agent.register(hostname, fields), (messages) => codeOf(messages.at(-1)))
      const actor = other.identity
      yield* refused(deployment, "hostname-taken", asOther("web-1"), { actor })
      yield* refused(deployment, "hostname-taken", registering(deployment, fleet, "WEB-1"), { actor: "fleet" })
      yield* refused(deployment, "name-reserved", asOther("wpad"), { actor })
      yield* refused(deployment, "name-not-allowed", asOther("a.b"), { actor })
      yield* refused(deployment, "name-not-allowed", registering(deployment, lab, "web-2"), { actor: "lab" })
      const elsewhere = registering(deployment, lab, "lab-2", { zone: "other.prism.test" })
      yield* refused(deployment, "zone-not-allowed", elsewhere, { actor: "lab" })
    }).pipe(Effect.scoped)
  )

  it.live("addresses: the victim's, one beside the grant, a special one that the zone does not name", () =>
    Effect.gen(function* () {
      const { deployment } = yield* withVictim
      const claim = (token: string, hostname: string, addresses: ReadonlyArray<string>) =>
        registering(deployment, token, hostname, { addresses })
      yield* refused(deployment, "address-not-allowed", claim(fleet, "thief", [victim]), { actor: "fleet" })
      yield* refused(deployment, "address-not-allowed", claim(lab, "lab-1", ["127.0.40.7", victim]), { actor: "lab" })
      yield* refused(deployment, "address-not-allowed", claim(lab, "lab-1", ["::ffff:127.0.40.7"]), { actor: "lab" })
      const granted = yield* registering(deployment, lab, "lab-1", { addresses: ["127.0.40.7"] })
      assert.include(granted, '"final":true')
    }).pipe(Effect.scoped)
  )

  it.live("proofs: replayed, signed by another key, made for another purpose, of a key nobody enrolled", () =>
    Effect.gen(function* () {
      const { deployment, holder } = yield* withVictim
      const publicKey = Proof.exportPublicKey(holder.key)
      // What was heard on the wire: the holder's own proof for its own nonce.
      const heard = yield* Effect.gen(function* () {
        const agent = yield* connect(deployment.tcp(), { from: victim })
        const challenge = yield* agent.hello({ method: "key", publicKey })
        assert.isTrue(challenge.type === "challenge")
        const nonce = challenge.type === "challenge" ? challenge.nonce : ""
        const signature = Proof.sign({ purpose: "key", nonce, publicKey, channel: undefined }, holder.key)
        agent.send({ type: "proof", id: agent.nextId(), signature })
        yield* agent.expect("welcome")
        return signature
      }).pipe(Effect.scoped)

      const proving = (signature: (nonce: string) => string, key = publicKey) =>
        Effect.gen(function* () {
          const agent = yield* connect(deployment.tcp(), { from: intruder })
          const challenge = yield* agent.hello({ method: "key", publicKey: key })
          if (challenge.type !== "challenge") return codeOf(challenge)
          agent.send({ type: "proof", id: agent.nextId(), signature: signature(challenge.nonce) })
          const [answer] = yield* agent.receive()
          yield* agent.client.closed
          return codeOf(answer)
        }).pipe(Effect.scoped)

      const stranger = makeKey()
      const claim = (purpose: Proof.Purpose, nonce: string) => ({ purpose, nonce, publicKey, channel: undefined })
      yield* refused(
        deployment,
        "proof-invalid",
        proving(() => heard)
      )
      yield* refused(
        deployment,
        "proof-invalid",
        proving((nonce) => Proof.sign(claim("key", nonce), stranger))
      )
      yield* refused(
        deployment,
        "proof-invalid",
        proving((nonce) => Proof.sign(claim("enrol", nonce), holder.key))
      )
      const unknown = Proof.exportPublicKey(stranger)
      yield* refused(
        deployment,
        "identity-unknown",
        proving((nonce) => Proof.sign({ ...claim("key", nonce), publicKey: unknown }, stranger), unknown),
        { subject: Proof.fingerprint(unknown) }
      )
    }).pipe(Effect.scoped)
  )

  it.live("tokens: unknown, used up, past expiry, revoked, for another use, for another name", () =>
    Effect.gen(function* () {
      const { deployment } = yield* withVictim
      const issue = Effect.fnUntraced(function* (name: string, more: object) {
        const issued = yield* post(deployment, "/v1/tokens", { name, reason: "a test", allows: "enrol", ...more })
        return String(issued["token"])
      })
      yield* refused(deployment, "token-invalid", enrolling(deployment, "prism_guessed"))
      yield* refused(deployment, "token-not-allowed", enrolling(deployment, admin))

      const once = yield* issue("once", { usesMax: 1 })
      yield* enrolled(deployment, once, "127.0.3.2")
      yield* refused(deployment, "token-used-up", enrolling(deployment, once))

      const enrolOnly = yield* issue("enrol-only", {})
      yield* refused(deployment, "token-not-allowed", registering(deployment, enrolOnly, "x"))
      yield* post(deployment, "/v1/tokens/enrol-only/revoke", { reason: "a test" })
      yield* refused(deployment, "token-revoked", enrolling(deployment, enrolOnly))

      const expiresAt = new Date(Date.now() + 1500).toISOString()
      const short = yield* issue("short", { expiresAt })
      yield* waitUntil(
        "the token has run out",
        Effect.sync(() => Date.now()),
        (now) => now > Date.parse(expiresAt) + 50,
        { within: "5 seconds" }
      )
      yield* refused(deployment, "token-expired", enrolling(deployment, short))

      const marked = yield* issue("for-web-9", { host: `web-9.${Deployment.zone}` })
      const nine = yield* enrolled(deployment, marked, intruder)
      yield* refused(
        deployment,
        "name-not-allowed",
        Effect.map(nine.agent.register("web-8"), (messages) => codeOf(messages.at(-1))),
        { actor: nine.identity }
      )
    }).pipe(Effect.scoped)
  )

  it.live("a revoked key in a live session: ended at once, and refused from then on; its record stays", () =>
    Effect.gen(function* () {
      const { deployment, holder } = yield* withVictim
      const thief = yield* connect(deployment.tcp(), { from: intruder })
      const publicKey = Proof.exportPublicKey(holder.key)
      const challenge = yield* thief.hello({ method: "key", publicKey })
      if (challenge.type === "challenge") thief.prove(challenge, holder.key, "key")
      yield* thief.expect("welcome")
      yield* post(deployment, `/v1/identities/${holder.identity}/revoke`, { reason: "stolen" })
      for (const agent of [thief, holder.agent]) {
        assert.deepInclude(yield* agent.expect("error"), { code: "identity-revoked", closing: true })
        yield* agent.client.closed
      }
      const ended = yield* waitUntil(
        "the end of both sessions is audited",
        Effect.sync(() => audited(deployment)),
        (entries) => entries.length >= 2,
        { within: "5 seconds" }
      )
      assert.deepStrictEqual(ended.map(({ peer }) => peer).sort(), [victim, intruder])
      assert.isTrue(ended.every(({ actor, reason }) => actor === holder.identity && reason.startsWith("identity-rev")))
      const again = Effect.gen(function* () {
        const agent = yield* connect(deployment.tcp(), { from: intruder })
        const first = yield* agent.hello({ method: "key", publicKey })
        if (first.type !== "challenge") return codeOf(first)
        agent.prove(first, holder.key, "key")
        const [answer] = yield* agent.receive()
        return codeOf(answer)
      }).pipe(Effect.scoped)
      yield* refused(deployment, "identity-revoked", again)
      assert.deepStrictEqual(yield* deployment.dig(fqdn, "A"), [victim])
    }).pipe(Effect.scoped)
  )

  it.live("a forged PROXY header, of either version; one that is missing or wrong where it is due", () =>
    Effect.gen(function* () {
      const { deployment } = yield* withVictim
      const sending = (bytes: Uint8Array, from = intruder) =>
        Effect.gen(function* () {
          const client = yield* Agent.connect(deployment.tcp(), { from })
          client.socket.write(bytes)
          const [answer] = yield* client.receive()
          yield* client.closed
          return answer!.code
        }).pipe(Effect.scoped)
      const frame = Agent.frame("forged", { auth_token: fleet })
      const behind = (header: Uint8Array) => Buffer.concat([header, frame])
      yield* refused(deployment, "proxy-not-allowed", sending(behind(Headers.line(victim))))
      const forged = Headers.binary({ addresses: Headers.addresses(victim, "127.0.0.1") })
      yield* refused(deployment, "proxy-not-allowed", sending(behind(forged)))
      const balancer = "127.0.8.1"
      yield* refused(deployment, "proxy-missing", sending(frame, balancer), { peer: balancer })
      const broken = Buffer.from("PROXY TCP4 nonsense\r\n")
      yield* refused(deployment, "proxy-invalid", sending(behind(broken), balancer), { peer: balancer })
    }).pipe(Effect.scoped)
  )

  it.live("version 1 where it is off, with a token that is good", () =>
    Effect.gen(function* () {
      const deployment = yield* Deployment.start({ ...settings, tcp: { ...settings.tcp, protocol1: "off" } })
      yield* enrolled(deployment, fleet, victim)
      const downgrade = Effect.gen(function* () {
        const client = yield* Agent.connect(deployment.tcp(), { from: intruder })
        client.socket.write(Agent.frame("web-1", { auth_token: fleet }))
        const [answer] = yield* client.receive()
        return answer!.code
      }).pipe(Effect.scoped)
      yield* refused(deployment, "protocol-not-allowed", downgrade)
    }).pipe(Effect.scoped)
  )

  it.live("a good agent beside all that has its name as before, and nothing secret was logged", () =>
    Effect.gen(function* () {
      const { deployment, holder } = yield* withVictim
      yield* enrolling(deployment, `${fleet}-almost`)
      yield* registering(deployment, lab, "web-1")
      holder.agent.client.socket.write(Wire.encode("{}"))
      yield* holder.agent.expect("error")
      assert.deepStrictEqual(
        (yield* holder.agent.beat).map(({ type }) => type),
        ["beat"]
      )
      const { stderr, stdout } = deployment.prism.output()
      const key = Redacted.value(deployment.powerdns.apiKey)
      for (const secret of [fleet, lab, admin, key]) assert.notInclude(stdout + stderr, secret)
    }).pipe(Effect.scoped)
  )
})
