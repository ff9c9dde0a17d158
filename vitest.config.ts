import * as Os from "node:os"
import { defineConfig } from "vitest/config"

const clusters = "packages/server/test/cluster/**/*.e2e.test.ts"

/**
 * What must be running decides the project: nothing, one real program, the whole server as its own process, or several. The
 * limits are for tests that hang: none comes near, also on a machine with much else to do.
 */
const project = (name: string, suffix: string, timeoutMillis: number, isolate = true) => ({
  extends: true as const,
  test: {
    isolate,
    // What a passing test logs is nobody's concern.
    silent: "passed-only",
    name,
    include: [`packages/*/test/**/*.${suffix}.ts`, `docs/test/**/*.${suffix}.ts`],
    exclude:
      suffix === "test"
        ? ["**/*.integration.test.ts", "**/*.e2e.test.ts", "**/node_modules/**"]
        : [clusters, "**/node_modules/**"],
    testTimeout: timeoutMillis,
    hookTimeout: 120_000
  }
})

export default defineConfig({
  resolve: { conditions: ["@prism-dns/source"] },
  ssr: { resolve: { conditions: ["@prism-dns/source"] } },
  test: {
    // What a passing test logs is nobody's concern.
    silent: "passed-only",
    // Most of them wait for other processes: by default two cores would have one worker.
    maxWorkers: Math.max(2, Os.availableParallelism() - 1),
    projects: [
      // To load Effect anew for each of so many small files would take longer than the tests do.
      project("unit", "test", 60_000, false),
      project("integration", "integration.test", 120_000),
      project("e2e", "e2e.test", 240_000),
      {
        extends: true,
        // What a cluster promises has bounds of time: one at a time, and no output held back.
        test: { name: "cluster", include: [clusters], testTimeout: 300_000, hookTimeout: 60_000 }
      }
    ]
  }
})
