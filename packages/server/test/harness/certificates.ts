/**
 * Certificates as a small authority makes them, by the openssl program: for
 * servers, for clients, lists of the revoked. Everything in one folder.
 */
import { Effect, type Scope } from "effect"
import * as ChildProcess from "node:child_process"
import * as Fs from "node:fs"
import * as Path from "node:path"
import { temporaryFolder } from "../../../core/test/harness/PowerDns.ts"

/** Paths of files in PEM. */
export interface Pair {
  readonly certificate: string
  readonly key: string
}

export interface IssueOptions {
  /** As openssl writes it. Default: the common name is `name`. */
  readonly subject?: string
  /** For example `DNS:web-1.example.net,URI:spiffe://example.net/web-1`. */
  readonly alternativeNames?: string
  /** Default: from now for two days. `[from, until]`, both as YYYYMMDDHHMMSSZ. */
  readonly valid?: readonly [string, string]
  /** Default: for servers and clients. */
  readonly usage?: "serverAuth" | "clientAuth" | "serverAuth,clientAuth"
}

export interface Authority {
  readonly folder: string
  /** Its own certificate. */
  readonly certificate: string
  /** A new pair of files; those of the same name before are overwritten. */
  readonly issue: (name: string, options?: IssueOptions) => Pair
  readonly revoke: (pair: Pair) => void
  /** Writes the list of what is revoked by now; gives its path. `until` as YYYYMMDDHHMMSSZ. */
  readonly list: (until?: string) => string
}

const openssl = (folder: string, command: "req" | "ca", args: ReadonlyArray<string>) => {
  const all = [command, "-config", "openssl.cnf", ...args]
  const { status, stderr } = ChildProcess.spawnSync("openssl", all, { cwd: folder, encoding: "utf8" })
  if (status !== 0) throw new Error(`openssl ${all.join(" ")}: ${stderr}`)
}

/** A new key, and a certificate or a request for one. */
const request = (folder: string, key: string, out: string, subject: string, more: ReadonlyArray<string>) => {
  const newKey = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout", key]
  openssl(folder, "req", [...newKey, "-out", out, "-subj", subject, ...more])
}

const asFlag = (extension: string): ReadonlyArray<string> => ["-addext", extension]

const settings = `
[ca]
default_ca = here
[here]
dir = .
database = index.txt
serial = serial
crlnumber = crlnumber
new_certs_dir = .
certificate = ca.crt
private_key = ca.key
default_md = sha256
default_days = 2
default_crl_days = 2
policy = any
unique_subject = no
copy_extensions = copy
[any]
countryName = optional
organizationName = optional
organizationalUnitName = optional
commonName = optional
[req]
distinguished_name = nothing
[nothing]
`

/** An authority called `name`. */
export const authority = (name = "Test Authority"): Effect.Effect<Authority, never, Scope.Scope> =>
  Effect.map(temporaryFolder("prism-ca-"), (folder) => {
    const path = (file: string) => Path.join(folder, file)
    Fs.writeFileSync(path("openssl.cnf"), settings)
    Fs.writeFileSync(path("index.txt"), "")
    Fs.writeFileSync(path("serial"), "1001")
    Fs.writeFileSync(path("crlnumber"), "01")
    const own = ["basicConstraints=critical,CA:true", "keyUsage=critical,keyCertSign,cRLSign"].flatMap(asFlag)
    request(folder, "ca.key", "ca.crt", `/CN=${name}`, ["-x509", "-days", "2", ...own])
    return {
      folder,
      certificate: path("ca.crt"),
      issue: (pairName, options = {}) => {
        const extensions = [
          "basicConstraints=CA:false",
          `extendedKeyUsage=${options.usage ?? "serverAuth,clientAuth"}`,
          ...(options.alternativeNames === undefined ? [] : [`subjectAltName=${options.alternativeNames}`])
        ]
        request(folder, `${pairName}.key`, `${pairName}.csr`, options.subject ?? `/CN=${pairName}`, [
          "-new",
          ...extensions.flatMap(asFlag)
        ])
        const valid = options.valid === undefined ? [] : ["-startdate", options.valid[0], "-enddate", options.valid[1]]
        openssl(folder, "ca", ["-batch", "-notext", "-in", `${pairName}.csr`, "-out", `${pairName}.crt`, ...valid])
        return { certificate: path(`${pairName}.crt`), key: path(`${pairName}.key`) }
      },
      revoke: (pair) => openssl(folder, "ca", ["-revoke", pair.certificate]),
      list: (until) => {
        openssl(folder, "ca", ["-gencrl", "-out", "ca.crl", ...(until === undefined ? [] : ["-crl_nextupdate", until])])
        return path("ca.crl")
      }
    }
  })
