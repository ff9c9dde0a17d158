/**
 * What instances share by Redis, where one is configured: it makes them count as
 * one, and is never needed. The server starts, and goes on, without it.
 */
import { Effect, Layer } from "effect"
import * as Fs from "node:fs"
import type { PrismConfig } from "../Config.ts"
import { CertificateUnusable } from "../ServerError.ts"
import { RedisLink } from "./RedisLink.ts"
import * as RedisPresence from "./RedisPresence.ts"
import * as RedisRates from "./RedisRates.ts"

const readCa = (path: string): Effect.Effect<string, CertificateUnusable> =>
  Effect.try({
    try: () => Fs.readFileSync(path, "utf8"),
    catch: (error) =>
      new CertificateUnusable({
        setting: "redis.ca",
        detail: `its file cannot be read: ${error instanceof Error && "code" in error ? String(error.code) : String(error)}`
      })
  })

/** `instance` names this server. */
export const layer = (
  config: NonNullable<PrismConfig["redis"]>,
  instance: string
): Layer.Layer<never, CertificateUnusable> =>
  Layer.unwrap(
    Effect.map(config.ca === undefined ? Effect.succeed(undefined) : readCa(config.ca), (ca) =>
      Layer.merge(
        RedisRates.layer({ prefix: config.prefix }),
        RedisPresence.layer({ prefix: config.prefix, instance })
      ).pipe(Layer.provide(RedisLink.layer({ url: config.url, ca }, `${config.prefix}trial`)))
    )
  )
