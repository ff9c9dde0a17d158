/**
 * The key of this machine: an Ed25519 key pair in a file of the state folder.
 *
 * Promises: the file is readable by its owner alone (0600, folder 0700), and
 * one that others can read is refused, not used; it is written beside, synced
 * and moved into place, so that a crash leaves the old one or the new one; of
 * two processes that make a key at the same moment both end up with the same.
 * The private key stands in no error. Leaves to others: what the key proves.
 */
import * as Proof from "@prism-dns/core/protocol/Proof"
import * as Effect from "effect/Effect"
import * as Crypto from "node:crypto"
import * as Fs from "node:fs"
import * as Path from "node:path"
import { RegistrationFailed } from "./Options.ts"

export interface Key {
  readonly publicKey: string
  /** Signs; cannot be printed. */
  readonly privateKey: Crypto.KeyObject
  /** Name of the identity it was enrolled as; undefined: no server has confirmed it yet. */
  readonly identity: string | undefined
  /** Where it was enrolled. */
  readonly server: string | undefined
  /** The key that shall replace it, kept before a server is asked: after a crash in between either may be the one that counts. */
  readonly next: NextKey | undefined
}

export type NextKey = Pick<Key, "publicKey" | "privateKey">

export const fileName = "key.json"

/** A file of ours is far below this. */
const fileBytesMax = 65_536

interface Stored {
  readonly version: 1
  readonly privateKey: string
  readonly publicKey: string
  readonly server?: string
  readonly identity?: string
  /** The private key of `next`. */
  readonly next?: string
}

const unreadable = (message: string) => new RegistrationFailed("key-unreadable", message)

const codeOf = (error: unknown): string =>
  error instanceof Error && "code" in error && typeof error.code === "string" ? error.code : "unknown error"

const checksModes = process.platform !== "win32"

const parsePrivateKey = (text: string): Crypto.KeyObject | undefined => {
  try {
    const key = Crypto.createPrivateKey({ key: Buffer.from(text, "base64url"), format: "der", type: "pkcs8" })
    return key.asymmetricKeyType === "ed25519" ? key : undefined
  } catch {
    return undefined
  }
}

const formatPrivateKey = (key: Crypto.KeyObject): string =>
  key.export({ format: "der", type: "pkcs8" }).toString("base64url")

const parse = (text: string, path: string): Key => {
  const refuse = (why: string) =>
    unreadable(`${path} ${why}; restore it, or move it away and enrol this machine again with a token`)
  let value: Partial<Record<keyof Stored, unknown>>
  try {
    value = JSON.parse(text) as Partial<Record<keyof Stored, unknown>>
  } catch {
    throw refuse("is not JSON")
  }
  if (typeof value !== "object" || value === null || value.version !== 1) throw refuse("is no key file of version 1")
  if (typeof value.privateKey !== "string") throw refuse("has no private key")
  const privateKey = parsePrivateKey(value.privateKey)
  if (privateKey === undefined) throw refuse("has a private key that cannot be read, or is not Ed25519")
  const publicKey = Proof.exportPublicKey(privateKey)
  if (value.publicKey !== publicKey) throw refuse("has a public key that is not that of its private key")
  return {
    publicKey,
    privateKey,
    identity: typeof value.identity === "string" ? value.identity : undefined,
    server: typeof value.server === "string" ? value.server : undefined,
    next: parseNext(value.next)
  }
}

const parseNext = (text: unknown): NextKey | undefined => {
  const privateKey = typeof text === "string" ? parsePrivateKey(text) : undefined
  return privateKey === undefined ? undefined : { privateKey, publicKey: Proof.exportPublicKey(privateKey) }
}

const format = ({ identity, next, privateKey, publicKey, server }: Key): string => {
  const stored: Stored = {
    version: 1,
    privateKey: formatPrivateKey(privateKey),
    publicKey,
    ...(server === undefined ? {} : { server }),
    ...(identity === undefined ? {} : { identity }),
    ...(next === undefined ? {} : { next: formatPrivateKey(next.privateKey) })
  }
  return `${JSON.stringify(stored, null, 2)}\n`
}

/** Reads a file that must be its owner's alone; undefined when there is none. */
const read = (path: string): Key | undefined => {
  let file: number
  try {
    file = Fs.openSync(path, Fs.constants.O_RDONLY | (Fs.constants.O_NOFOLLOW ?? 0))
  } catch (error) {
    if (codeOf(error) === "ENOENT") return undefined
    throw unreadable(`${path} cannot be read: ${codeOf(error)}`)
  }
  try {
    const { mode, size } = Fs.fstatSync(file)
    if (checksModes && (mode & 0o077) !== 0) {
      const shown = (mode & 0o777).toString(8).padStart(4, "0")
      throw new RegistrationFailed(
        "key-insecure",
        `${path} can be read or changed by others (mode ${shown}); if nobody has, run: chmod 600 '${path}'`
      )
    }
    if (size > fileBytesMax) throw unreadable(`${path} is too large for a key file`)
    return parse(Fs.readFileSync(file, "utf8"), path)
  } finally {
    Fs.closeSync(file)
  }
}

const syncFolder = (folder: string) => {
  if (!checksModes) return
  const handle = Fs.openSync(folder, "r")
  try {
    Fs.fsyncSync(handle)
  } finally {
    Fs.closeSync(handle)
  }
}

/** A whole file beside `path`, synced. */
const writeBeside = (path: string, text: string): string => {
  const beside = `${path}.${process.pid}.${Crypto.randomBytes(6).toString("hex")}`
  const file = Fs.openSync(beside, "wx", 0o600)
  try {
    Fs.writeFileSync(file, text)
    Fs.fsyncSync(file)
  } finally {
    Fs.closeSync(file)
  }
  return beside
}

/** Folder by folder: Node's own way never ends where a folder can be seen and nothing can be made in it, as in /proc. */
const makeFolder = (folder: string) => {
  const isThere = () => Fs.statSync(folder, { throwIfNoEntry: false })?.isDirectory() === true
  if (isThere()) return
  const parent = Path.dirname(folder)
  if (parent !== folder) makeFolder(parent)
  try {
    Fs.mkdirSync(folder, { mode: 0o700 })
  } catch (error) {
    if (!isThere()) throw error
  }
}

const prepare = (folder: string) => {
  makeFolder(Path.resolve(folder))
  const { mode } = Fs.statSync(folder)
  if (checksModes && (mode & 0o022) !== 0) {
    throw new RegistrationFailed(
      "key-insecure",
      `others may write into ${folder} (mode ${(mode & 0o777).toString(8).padStart(4, "0")}), and so replace the key in it; run: chmod 700 '${folder}'`
    )
  }
}

/** A new pair. */
export const generate = (): NextKey => {
  const { privateKey } = Crypto.generateKeyPairSync("ed25519")
  return { publicKey: Proof.exportPublicKey(privateKey), privateKey }
}

const make = (path: string): Key => {
  const key: Key = { ...generate(), identity: undefined, server: undefined, next: undefined }
  const beside = writeBeside(path, format(key))
  try {
    // Unlike a move, a link never replaces what another process has put there meanwhile.
    Fs.linkSync(beside, path)
  } catch (error) {
    if (codeOf(error) === "EEXIST") return read(path) ?? key
    throw error
  } finally {
    Fs.unlinkSync(beside)
  }
  syncFolder(Path.dirname(path))
  return key
}

/** Whether the folder has a key. One that cannot be looked into fails: it may have. */
export const exists = (folder: string): Effect.Effect<boolean, RegistrationFailed> =>
  attempt(folder, () => {
    try {
      Fs.statSync(Path.join(folder, fileName))
      return true
    } catch (error) {
      if (codeOf(error) === "ENOENT") return false
      throw error
    }
  })

const attempt = <A>(folder: string, act: () => A): Effect.Effect<A, RegistrationFailed> =>
  Effect.try({
    try: act,
    catch: (error) =>
      error instanceof RegistrationFailed
        ? error
        : unreadable(
            `the state folder ${folder} cannot be used (${codeOf(error)}); give it to the user who runs this, or name another one`
          )
  })

/** The key of the folder; made where there is none. */
export const load = (folder: string): Effect.Effect<Key, RegistrationFailed> =>
  attempt(folder, () => {
    prepare(folder)
    const path = Path.join(folder, fileName)
    return read(path) ?? make(path)
  })

/** Keeps the key as it now is: with the identity that a server has confirmed. */
export const save = (folder: string, key: Key): Effect.Effect<void, RegistrationFailed> =>
  attempt(folder, () => {
    const path = Path.join(folder, fileName)
    const beside = writeBeside(path, format(key))
    try {
      Fs.renameSync(beside, path)
    } catch (error) {
      Fs.unlinkSync(beside)
      throw error
    }
    syncFolder(folder)
  })
