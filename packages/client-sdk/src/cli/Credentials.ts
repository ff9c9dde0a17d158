/**
 * What the agent proves itself with: files and folders that the settings name,
 * read once.
 *
 * Promises: what cannot be read is bad configuration, said before anything is
 * connected; a token stands in no error. A key is used where there is one, or
 * where a token enrols it; nothing to prove with at all is a choice too, which
 * the server may allow.
 */
import { Effect, Redacted } from "effect"
import * as Crypto from "node:crypto"
import * as Fs from "node:fs"
import * as KeyStore from "../KeyStore.ts"
import type { AgentOptions } from "../Options.ts"
import { ConfigurationWrong } from "./Failure.ts"
import type { Settings } from "./Settings.ts"

export type Credentials = Pick<AgentOptions, "token" | "stateDir" | "tls">

/** More than any token or chain of certificates. */
const fileBytesMax = 1 << 20

const isRefusable = process.platform !== "win32"

const wrong = (problem: string) => Effect.fail(new ConfigurationWrong({ problems: [problem] }))

const read = (setting: string, path: string): Effect.Effect<string, ConfigurationWrong> =>
  Effect.try({
    try: () => {
      const { size } = Fs.statSync(path)
      if (size > fileBytesMax) throw new Error("it is too large")
      return Fs.readFileSync(path, "utf8")
    },
    catch: (error) =>
      new ConfigurationWrong({ problems: [`${setting}: ${path} cannot be read: ${(error as Error).message}`] })
  })

/** A secret that every user of the machine can read is none; it is used all the same, with a word about it. */
const warnIfOpen = (setting: string, path: string) =>
  Effect.suspend(() =>
    isRefusable && (Fs.statSync(path).mode & 0o007) !== 0
      ? Effect.logWarning(`${setting}: every user of this machine can get at ${path}; chmod o= would be better`)
      : Effect.void
  )

/** The token, wherever it is. An empty file is none: the unit has one when its credential is not there. */
const readToken = Effect.fnUntraced(function* ({ token, tokenFile }: Settings) {
  if (token !== undefined) return token
  if (tokenFile === undefined) return undefined
  const text = (yield* read("token-file", tokenFile)).trim()
  if (text === "") return undefined
  yield* warnIfOpen("token-file", tokenFile)
  return Redacted.make(text)
})

/** Whether a folder holds a key. One that cannot be read is no reason to go without. */
const hasKey = (folder: string): Effect.Effect<boolean, ConfigurationWrong> =>
  Effect.mapError(KeyStore.exists(folder), ({ message }) => new ConfigurationWrong({ problems: [message] }))

/** Certificates in PEM; what is none would be passed over, and then nothing is trusted, without a word. */
const readCertificates = Effect.fnUntraced(function* (setting: string, path: string) {
  const text = yield* read(setting, path)
  yield* Effect.try({
    try: () => new Crypto.X509Certificate(text),
    catch: () => new ConfigurationWrong({ problems: [`${setting}: ${path} holds no certificate in PEM`] })
  })
  return text
})

/** The client's certificate with its key. */
const readPair = Effect.fnUntraced(function* (certPath: string, keyPath: string) {
  const cert = yield* readCertificates("cert", certPath)
  const key = yield* read("key", keyPath)
  const isPair = yield* Effect.try({
    try: () => new Crypto.X509Certificate(cert).checkPrivateKey(Crypto.createPrivateKey(key)),
    catch: () =>
      new ConfigurationWrong({ problems: [`key: ${keyPath} holds no private key in PEM without a passphrase`] })
  })
  if (!isPair) return yield* wrong(`key: ${keyPath} is not the key of the certificate in ${certPath}`)
  return { cert, key }
})

/** Reads all of it. */
export const load = Effect.fnUntraced(function* (
  settings: Settings
): Effect.fn.Return<Credentials, ConfigurationWrong> {
  const { auth, state } = settings
  const token = yield* readToken(settings)
  const { ca, cert, key, serverName } = settings.tls
  const tls = {
    ...(ca === undefined ? {} : { ca: yield* readCertificates("ca", ca) }),
    ...(serverName === undefined ? {} : { servername: serverName })
  }
  const certificate = cert === undefined || key === undefined ? undefined : yield* readPair(cert, key)
  if (key !== undefined) yield* warnIfOpen("key", key)
  // A server may want to see a certificate whatever the agent is known by.
  const tlsWithCertificate = { ...tls, ...certificate }

  const byKey = (): Credentials => ({
    stateDir: state,
    tls: tlsWithCertificate,
    ...(token === undefined ? {} : { token: Redacted.value(token) })
  })
  switch (auth) {
    case "auto":
      if ((yield* hasKey(state)) || (token !== undefined && certificate === undefined)) return byKey()
      if (certificate !== undefined) return { tls: tlsWithCertificate }
      yield* Effect.logWarning(
        `there is no key in ${state} and no token: registering without proof, as far as the server allows it`
      )
      return { tls }
    case "key":
      if (token === undefined && !(yield* hasKey(state))) {
        return yield* wrong(`there is no key in ${state}; name a token that enrols one by --token-file or PRISM_TOKEN`)
      }
      return byKey()
    case "token":
      if (token === undefined)
        return yield* wrong("auth is token and there is none; --token-file or PRISM_TOKEN says it")
      return { tls, token: Redacted.value(token) }
    case "certificate":
      return { tls: tlsWithCertificate }
    case "anonymous":
      return { tls }
  }
})
