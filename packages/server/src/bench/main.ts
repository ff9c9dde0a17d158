/**
 * `./prism bench NAME`: runs one benchmark and prints its figures.
 *
 * `--json` prints one object that outside programs rely on: bench, machine,
 * figures, ratios, targets. What is going on is told on stderr.
 */
import * as NodeRuntime from "@effect/platform-node/NodeRuntime"
import { Effect, Schema } from "effect"
import * as Fs from "node:fs"
import { parseArgs } from "node:util"
import { beats } from "./beats.ts"
import { type Benchmark, backends, type Figure, type Options, type Result, type Target } from "./Benchmark.ts"
import { connections } from "./connections.ts"
import { enrol } from "./enrol.ts"
import { heartbeats } from "./heartbeats.ts"
import * as Machine from "./Machine.ts"
import { publish } from "./publish.ts"
import { reconcile } from "./reconcile.ts"
import { registrations } from "./registrations.ts"
  sdkSize
