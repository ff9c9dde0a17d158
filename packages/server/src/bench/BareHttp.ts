/** `node:http` and nothing else: answers every request with the JSON that its first argument names. */
import * as Fs from "node:fs"
import * as Http from "node:http"
import type * as Net from "node:net"

const body = Fs.readFileSync(process.argv[2]!, "utf8")
const bytes = Buffer.byteLength(body)

const server = Http.createServer((_, response) => {
  response.writeHead(200, { "content-type": "application/json", "content-length": bytes })
  response.end(body)
})
server.listen({ host: "127.0.0.1", port: 0, backlog: 4096 }, () =>
  process.send?.({ port: (server.address() as Net.AddressInfo).port })
)
process.on("disconnect", () => process.exit(0))
