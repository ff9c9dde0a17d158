import { assert, describe, it } from "@effect/vitest"
import * as IpAddress from "@prism-dns/core/domain/IpAddress"
import { Redacted, Result } from "effect"
import * as Settings from "../../src/cli/Settings.ts"
import { nothingGiven } from "../harness/settings.ts"

const server = { server: ["prism.example.net:8080"] }

const read = (
  flags: Partial<Settings.Given>,
  environment: Readonly<Record<string, string>> = {},
  machine = { home: "/home/ann", isRoot: false }
) => Settings.read({ ...nothingGiven, ...flags }, environment, machine)

const settings = (...args: Parameters<typeof read>): Settings.Settings => Result.getOrThrow(read(...args))

const problems = (...args: Parameters<typeof read>): Settings.Problems => {
  const result = read(...args)
  assert.isTrue(Result.isFailure(result))
  return Result.isFailure(result) ? result.failure : { flags: [], environment: [] }
}

describe("what the agent is told", () => {
  it("a server is enough", () => {
    assert.deepStrictEqual(settings(server), {
      servers: ["prism.example.net:8080"],
      hostnames: [],
      zone: undefined,
      addresses: { _tag: "Observed" },
      auth: "auto",
      token: undefined,
      tokenFile: undefined,
      state: "/home/ann/.local/state/prism-agent",
      ack: "applied",
      ttlSeconds: undefined,
      labels: undefined,
      tls: { ca: undefined, cert: undefined, key: undefined, serverName: undefined },
      releaseOnExit: false,
      explain: false,
      logLevel: undefined,
      logFormat: "auto"
    })
  })

  it("without a server it is wrong usage, unless addresses are to be explained", () => {
    assert.deepStrictEqual(problems({}), {
      flags: ["--server: name a server, HOST:PORT; PRISM_AGENT_SERVER says it too"],
      environment: []
    })
    assert.deepStrictEqual(settings({ explain: ["true"] }).addresses, { _tag: "Interfaces", options: {} })
  })

  it("a flag wins over the environment, which may list several with commas between", () => {
    const environment = {
      PRISM_AGENT_SERVER: "a.example.net:8080, tls://b.example.net:8443",
      PRISM_AGENT_HOSTNAME: "web-1,web-2",
      PRISM_AGENT_ACK: "served",
      PRISM_AGENT_RELEASE_ON_EXIT: "yes",
      PRISM_AGENT_TTL: "30",
      PRISM_AGENT_LABEL: "role=web,rack=7"
    }
    const ofEnvironment = settings({}, environment)
    assert.deepStrictEqual(ofEnvironment.servers, ["a.example.net:8080", "tls://b.example.net:8443"])
    assert.deepStrictEqual(ofEnvironment.hostnames, ["web-1", "web-2"])
    assert.deepStrictEqual(ofEnvironment.labels, { role: "web", rack: "7" })
    assert.include(ofEnvironment, { ack: "served", releaseOnExit: true, ttlSeconds: 30 })
    const ofBoth = settings(
      { ...server, ack: ["accepted"], "release-on-exit": ["false"], hostname: ["web-3"] },
      environment
    )
    assert.deepStrictEqual(ofBoth.servers, ["prism.example.net:8080"])
    assert.deepStrictEqual(ofBoth.hostnames, ["web-3"])
    assert.include(ofBoth, { ack: "accepted", releaseOnExit: false, ttlSeconds: 30 })
  })

  it("each setting has an environment variable of its name", () => {
    assert.strictEqual(Settings.variable("token-file"), "PRISM_AGENT_TOKEN_FILE")
    const variables = Object.keys(Settings.settings).map((name) => Settings.variable(name as Settings.Name))
    assert.strictEqual(new Set(variables).size, variables.length)
  })

  it("there is no flag for a secret", () => {
    assert.notInclude(Object.keys(Settings.settings), "token")
  })

  it("what is wrong in the environment is told from what is wrong in flags", () => {
    assert.deepStrictEqual(problems({ ...server, ack: ["soon"] }, { PRISM_AGENT_TTL: "long" }), {
      flags: ["--ack: 'soon' is none of accepted, applied, served"],
      environment: ["PRISM_AGENT_TTL: 'long' is no number of seconds"]
    })
  })

  it.each([
    [{ server: ["example.net"] }, "--server: 'example.net' is no HOST:PORT or tls://HOST:PORT"],
    [{ server: ["example.net:0"] }, "--server: 'example.net:0' is no HOST:PORT or tls://HOST:PORT"],
    [{ server: ["2001:db8::1:8080"] }, "--server: '2001:db8::1:8080' is no HOST:PORT or tls://HOST:PORT"],
    [
      { server: ["tcp://a.example.net:1"], tls: ["true"] },
      "--server: 'tcp://a.example.net:1' is without TLS, which --tls asks for"
    ],
    [{ ...server, hostname: ["web", "WEB"] }, "--hostname: a name is given twice"],
    [
      { ...server, hostname: Array.from({ length: 65 }, (_, i) => `web-${i}`) },
      "--hostname: one agent keeps at most 64 names"
    ],
    [{ ...server, ttl: ["0"] }, "--ttl: '0' is no number of seconds"],
    [{ ...server, ttl: ["2147483648"] }, "--ttl: '2147483648' is no number of seconds"],
    [{ ...server, label: ["web"] }, "--label: 'web' is no KEY=VALUE"],
    [{ ...server, address: ["192.0.2"] }, "--address: '192.0.2' is not an IP address"],
    [
      { ...server, address: ["192.0.2.1", "observed"] },
      "--address: observed, interfaces and addresses exclude each other"
    ],
    [
      { ...server, address: ["observed"], interfaces: ["eth0"] },
      "--address: observed, interfaces and addresses exclude each other"
    ],
    [
      { ...server, address: ["192.0.2.1"], interfaces: ["eth0"] },
      "--address: either addresses, or interfaces to take them from"
    ],
    [
      { ...server, address: Array.from({ length: 17 }, (_, i) => `192.0.2.${i}`) },
      "--address: a host has at most 16 addresses"
    ],
    [{ ...server, cert: ["c.pem"] }, "--cert: a certificate needs its key: --key is missing"],
    [{ ...server, key: ["k.pem"] }, "--key: a key needs its certificate: --cert is missing"],
    [{ ...server, auth: ["certificate"] }, "--auth: certificate needs --cert and --key"],
    [{ ...server, auth: ["password"] }, "--auth: 'password' is none of auto, key, token, certificate, anonymous"]
  ] satisfies ReadonlyArray<readonly [Partial<Settings.Given>, string]>)("%j is refused: %s", (flags, problem) => {
    assert.deepStrictEqual(problems(flags), { flags: [problem], environment: [] })
  })

  it("a host name that no host can have is refused with the reason", () => {
    const [problem] = problems({ ...server, hostname: ["-web"] }).flags
    assert.match(problem ?? "", /^--hostname: '-web': hostname must be/)
  })
})

describe("addresses", () => {
  const addresses = (flags: Partial<Settings.Given>) => settings({ ...server, ...flags }).addresses

  it("are what the server sees, those that are listed, or those of interfaces", () => {
    assert.deepStrictEqual(addresses({ address: ["observed"] }), { _tag: "Observed" })
    assert.deepStrictEqual(addresses({ address: ["192.0.2.7", "2001:DB8::7"] }), {
      _tag: "Listed",
      addresses: [IpAddress.make("192.0.2.7"), IpAddress.make("2001:db8::7")]
    })
    assert.deepStrictEqual(addresses({ address: ["interfaces"] }), { _tag: "Interfaces", options: {} })
  })

  it("patterns of interfaces take in or leave out", () => {
    assert.deepStrictEqual(addresses({ interfaces: ["en*", "!enp9*", "wlan0"], family: ["ipv6"] }), {
      _tag: "Interfaces",
      options: { include: ["en*", "wlan0"], exclude: ["enp9*"], families: ["ipv6"] }
    })
  })
})

describe("tls", () => {
  it("--tls holds for every server", () => {
    assert.deepStrictEqual(settings({ server: ["a.example.net:1", "tls://[2001:db8::1]:2"], tls: ["true"] }).servers, [
      "tls://a.example.net:1",
      "tls://[2001:db8::1]:2"
    ])
  })
})

describe("the token", () => {
  const token = (flags: Partial<Settings.Given>, environment: Readonly<Record<string, string>>) => {
    const { token, tokenFile } = settings({ ...server, ...flags }, environment)
    return token === undefined ? tokenFile : `= ${Redacted.value(token)}`
  }

  it("comes from a file or the environment, the agent's own variable before the common one, a flag before both", () => {
    assert.strictEqual(token({}, {}), undefined)
    assert.strictEqual(token({}, { PRISM_TOKEN: "a" }), "= a")
    assert.strictEqual(token({}, { PRISM_TOKEN: "a", PRISM_AGENT_TOKEN: "b" }), "= b")
    assert.strictEqual(token({}, { PRISM_TOKEN: "a\r\n", PRISM_AGENT_TOKEN: "\n" }), "= a")
    assert.strictEqual(token({}, { PRISM_TOKEN: "", PRISM_AGENT_TOKEN_FILE: "/f" }), "/f")
    assert.strictEqual(token({}, { PRISM_TOKEN_FILE: "/g" }), "/g")
    assert.strictEqual(token({}, { PRISM_TOKEN: "a", PRISM_AGENT_TOKEN_FILE: "/f" }), "= a")
    assert.strictEqual(token({ "token-file": ["/h"] }, { PRISM_TOKEN: "a" }), "/h")
  })

  it("is not printed", () => {
    assert.notInclude(JSON.stringify(settings(server, { PRISM_TOKEN: "hunter2" })), "hunter2")
  })
})

describe("the state folder", () => {
  const state = (environment: Readonly<Record<string, string>>, isRoot = false) =>
    settings(server, environment, { home: "/home/ann", isRoot }).state

  it("is the unit's, root's, the user's, or the one that is named", () => {
    assert.strictEqual(
      state({ STATE_DIRECTORY: "/var/lib/private/prism-agent:/var/lib/more" }, true),
      "/var/lib/private/prism-agent"
    )
    assert.strictEqual(state({ XDG_STATE_HOME: "/x" }, true), "/var/lib/prism-agent")
    assert.strictEqual(state({ XDG_STATE_HOME: "/x" }), "/x/prism-agent")
    assert.strictEqual(state({ XDG_STATE_HOME: "x" }), "/home/ann/.local/state/prism-agent")
    assert.strictEqual(state({ PRISM_AGENT_STATE: "here", STATE_DIRECTORY: "/s" }), "here")
  })
})
