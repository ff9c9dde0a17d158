/**
 * The package as it is published: built, packed, and installed into an empty
 * folder, without a registry.
 */
import * as ChildProcess from "node:child_process"
import * as Fs from "node:fs"
import * as Path from "node:path"

const root = Path.resolve(import.meta.dirname, "../../../..")

export const tsc = Path.join(root, "node_modules/.bin/tsc")

const run = (program: string, args: ReadonlyArray<string>, cwd: string): string =>
  ChildProcess.execFileSync(program, args, { cwd, encoding: "utf8", stdio: ["ignore", "pipe", "inherit"] })

/** What `npm pack` tells. */
export interface Packed {
  readonly tarball: string
  /** Installed. */
  readonly unpackedBytes: number
  readonly files: ReadonlyArray<string>
}

/** Builds it and packs it into `folder`. */
export const pack = (folder: string): Packed => {
  run(tsc, ["-b", "packages/client-sdk"], root)
  for (const script of ["bundle.ts", "bundleSdk.ts"]) {
    run(process.execPath, [Path.join(root, "scripts", script)], root)
  }
  const [told] = JSON.parse(
    run("npm", ["pack", "--json", "--pack-destination", folder], Path.join(root, "packages/client-sdk"))
  ) as ReadonlyArray<{
    readonly filename: string
    readonly unpackedSize: number
    readonly files: ReadonlyArray<{ readonly path: string }>
  }>
  return {
    tarball: Path.join(folder, told!.filename),
    unpackedBytes: told!.unpackedSize,
    files: told!.files.map(({ path }) => path)
  }
}

/** A project with nothing but the tarball installed; gives the packages that are there then. */
export const install = (tarball: string, project: string): ReadonlyArray<string> => {
  Fs.mkdirSync(project, { recursive: true })
  Fs.writeFileSync(Path.join(project, "package.json"), JSON.stringify({ private: true, type: "module" }))
  run("npm", ["install", "--offline", "--no-audit", "--no-fund", "--loglevel=error", tarball], project)
  const lock = JSON.parse(Fs.readFileSync(Path.join(project, "node_modules/.package-lock.json"), "utf8")) as {
    readonly packages: Readonly<Record<string, unknown>>
  }
  return Object.keys(lock.packages).map((path) => path.replace("node_modules/", ""))
}

export const has = (name: string): boolean => Fs.existsSync(Path.join(root, "node_modules", name))

/** Puts one of this repository's packages beside it, as if it were installed. */
export const link = (name: string, project: string): void =>
  Fs.symlinkSync(Path.join(root, "node_modules", name), Path.join(project, "node_modules", name))

/** What the compiler has against the files of a project, with every declaration checked; empty: nothing. */
export const typeErrors = (project: string, ...files: ReadonlyArray<string>): string => {
  const { status, stdout } = ChildProcess.spawnSync(
    tsc,
    ["--noEmit", "--strict", "--module", "nodenext", "--target", "es2022", "--skipLibCheck", "false", ...files],
    { cwd: project, encoding: "utf8" }
  )
  return status === 0 ? "" : stdout
}

/** The blocks of a page that are programs. */
export const programsOf = (page: string): ReadonlyArray<string> =>
  Array.from(Fs.readFileSync(Path.join(root, page), "utf8").matchAll(/^```ts\n(.*?)^```/gms), ([, text]) => text!)
