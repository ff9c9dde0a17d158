/**
 * Loaded before a server that is measured: tells its memory when asked, and
 * ends it when the one who asks is gone.
 */
import process from "node:process"

process.on("message", (message) => {
  if (message !== "memory") return
  globalThis.gc?.()
  const { heapUsed, rss } = process.memoryUsage()
  process.send?.({ memory: { heapUsed, rss } })
})
process.once("disconnect", () => process.kill(process.pid, "SIGTERM"))
// The channel alone is no reason to stay.
process.channel?.unref()
