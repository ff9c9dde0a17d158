/** A certificate for 127.0.0.1 that vouches for itself, made by OpenSSL. */
import { Effect } from "effect"
import * as Path from "node:path"
import { run } from "./Workspace.ts"

/** Files in PEM. */
export interface Certificate {
  readonly certificate: string
  readonly key: string
}

export const make = Effect.fnUntraced(function* (folder: string) {
  const files: Certificate = { certificate: Path.join(folder, "tls.crt"), key: Path.join(folder, "tls.key") }
  yield* run(
    "openssl",
    "req -x509 -nodes -newkey ec -pkeyopt ec_paramgen_curve:P-256 -days 2 -subj /CN=prism-bench"
      .split(" ")
      .concat("-addext", "subjectAltName=IP:127.0.0.1", "-keyout", files.key, "-out", files.certificate),
    { folder }
  )
  return files
})
