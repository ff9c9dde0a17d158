/**
 * Loaded before a server that is measured: tells its memory and how many
 * sockets it holds when asked, and ends it when the one who asks is gone.
 */
import process from "node:process"

process.on("message", (message) => {
  if (message !== "memory") return
  // Gives free pages back to the system, too.
  globalThis.gc?.({ type: "major", execution: "sync", flavor: "last-resort" })
  const { heapUsed, rss } = process.memoryUsage()
  const sockets = process.getActiveResourcesInfo().filter((name) => name === "TCPSocketWrap").length
  process.send?.({ memory: { heapUsed, rss, sockets } })
})
process.once("disconnect", () => process.kill(process.pid, "SIGTERM"))
// The channel alone is no reason to stay.
process.channel?.unref()
