import { describe, layer } from "@effect/vitest"
import * as Zone from "@prism-dns/core/domain/Zone"
import { Effect, Layer } from "effect"
import * as Fs from "node:fs"
import { tmpdir } from "node:os"
import * as Path from "node:path"
import { suite } from "./EarlyAnswersSuite.ts"
import { otherZone, reverseZone, server, servicesWith, zone } from "./harness.ts"

/** A database in a file: one in memory has no second connection to be read by. */
const onFile = Layer.unwrap(
  Effect.map(
    Effect.acquireRelease(
      Effect.sync(() => Fs.mkdtempSync(Path.join(tmpdir(), "prism-early-"))),
      (folder) => Effect.sync(() => Fs.rmSync(folder, { recursive: true }))
    ),
    (folder) =>
      server(
        {},
        servicesWith(
          [zone, otherZone, reverseZone].map((name) => Zone.make(name)),
          Path.join(folder, "prism.db")
        )
      )
  )
)

describe("a host that is asked for by its name, on a SQLite file", () => {
  layer(onFile, { excludeTestServices: true })((it) => suite(it))
})
