/**
 * Ports for programs that must be told theirs before they start.
 *
 * Promises: a port is free for TCP and UDP on 127.0.0.1 when given, is given
 * to nobody else on this machine who asks here, and is never the local end of
 * someone's connection: it lies below the range that systems take those from.
 * Whoever can listen on port 0 should do that instead.
 */
import { Effect } from "effect"
import { createSocket } from "node:dgram"
import * as Fs from "node:fs"
import { createServer } from "node:net"
import { tmpdir } from "node:os"
import * as Path from "node:path"

const lowest = 20_000
const highest = 32_700

const claims = Path.join(tmpdir(), `prism-test-ports-${process.getuid?.() ?? 0}`)
const claimed = new Set<string>()

/** A claim outlives its process only when that was killed; an hour later nobody uses it any more. */
const claimMillisMax = 3_600_000

const claim = (port: number): boolean => {
  const file = Path.join(claims, `${port}`)
  try {
    if (Date.now() - Fs.statSync(file).mtimeMs > claimMillisMax) Fs.rmSync(file, { force: true })
  } catch {
    // not claimed
  }
  try {
    Fs.writeFileSync(file, `${process.pid}`, { flag: "wx" })
  } catch {
    return false
  }
  if (claimed.size === 0) {
    process.once("exit", () => {
      for (const each of claimed) Fs.rmSync(each, { force: true })
    })
  }
  claimed.add(file)
  return true
}

const isFreeForTcp = (port: number) =>
  new Promise<boolean>((resolve) => {
    const server = createServer()
    server.once("error", () => resolve(false))
    server.listen(port, "127.0.0.1", () => server.close(() => resolve(true)))
  })

const isFreeForUdp = (port: number) =>
  new Promise<boolean>((resolve) => {
    const socket = createSocket("udp4")
    socket.once("error", () => {
      socket.close()
      resolve(false)
    })
    socket.bind(port, "127.0.0.1", () => socket.close(() => resolve(true)))
  })

/** One free port, claimed until this process ends. */
export const freePort: Effect.Effect<number> = Effect.promise(async () => {
  Fs.mkdirSync(claims, { recursive: true })
  for (let attempt = 0; attempt < 1000; attempt++) {
    const port = lowest + Math.floor(Math.random() * (highest - lowest))
    if (claim(port) && (await isFreeForTcp(port)) && (await isFreeForUdp(port))) return port
  }
  throw new Error(`no free port between ${lowest} and ${highest}`)
})

/** `count` different free ports. */
export const freePorts = (count: number): Effect.Effect<ReadonlyArray<number>> =>
  Effect.all(Array.from({ length: count }, () => freePort))
