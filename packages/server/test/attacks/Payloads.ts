/** Texts that would do harm where somebody took them for more than text. */

export interface Payload {
  readonly name: string
  readonly text: string
}

/** Stands in each, so that what came of it can be looked for. */
export const mark = "zqx"

export const payloads: ReadonlyArray<Payload> = [
  { name: "SQL: ends the string", text: `${mark}'; DROP TABLE host; --` },
  { name: "SQL: is always true", text: `${mark}' OR '1'='1` },
  { name: "SQL: another query", text: `${mark}') UNION SELECT hash, token FROM token --` },
  { name: "SQL: wildcards", text: `%_${mark}\\` },
  { name: "header: another one", text: `${mark}\r\nX-Injected: yes\r\nSet-Cookie: a=b` },
  { name: "header: another answer", text: `${mark}\r\n\r\nHTTP/1.1 200 OK\r\n\r\n{}` },
  {
    name: "log: another line",
    text: `${mark}\n{"time":"2026-01-01T00:00:00.000Z","level":"info","msg":"all is well"}`
  },
  { name: "terminal: clears the screen", text: `${mark}\u001b[2J\u001b]0;title\u0007\u009b31m` },
  { name: "text: turns direction", text: `${mark}\u202e\u2066\u2028\u2029` },
  { name: "text: NUL", text: `${mark}\u0000` },
  { name: "text: half a character", text: `${mark}\ud800` },
  { name: "DNS: more in the zone", text: `${mark}.hosts.prism.test. 60 IN A 192.0.2.66\n*` },
  { name: "DNS: escapes", text: `${mark}\\000\\.\\"` },
  { name: "path: upwards", text: `../../${mark}/..%2f..%5c` },
  { name: "page: a script", text: `<script>${mark}</script>` },
  { name: "object: its prototype", text: "__proto__" },
  { name: "number: not one", text: "1e999" },
  { name: "length", text: mark.repeat(3000) }
]

/** What may stand in a header at all: the rest is refused by whoever sends it. */
export const headerSafe = (text: string): string =>
  // oxlint-disable-next-line no-control-regex -- those are what is left out
  text.replace(/[^\t\u0020-\u007e\u0080-\u00ff]/g, " ").slice(0, 8000)
