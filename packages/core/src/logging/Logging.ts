/**
 * Log lines on stderr: one JSON object each, or readable ones on a terminal.
 * The server and the agent have the same.
 *
 * A line has `time`, `level`, `msg`, `logger` and whatever was annotated.
 * Plain objects in a log call become fields; a cause becomes `error`. What
 * comes from elsewhere neither begins a line of its own nor steers a terminal.
 */
import { Array, Cause, Layer, Logger, LogLevel, Predicate, Redacted, References } from "effect"
import { forJson } from "../domain/PlainText.ts"

/** JSON lines or readable ones; `auto` is readable on a terminal. */
export const formats = ["auto", "json", "pretty"] as const
export type Format = (typeof formats)[number]

/** The annotation that says which part of the program speaks. */
export const loggerAnnotation = "logger"

interface Line {
  readonly time: string
  readonly level: string
  readonly msg: string
  readonly logger: string
  readonly fields: Readonly<Record<string, unknown>>
}

const isPlainObject = (value: unknown): value is Record<string, unknown> =>
  Predicate.isObject(value) &&
  (Object.getPrototypeOf(value) === Object.prototype || Object.getPrototypeOf(value) === null)

const showPart = (part: unknown): string =>
  typeof part === "string" ? part : part instanceof Error ? part.message : JSON.stringify(part, jsonSafe)

/** What JSON cannot say, it says in words; a secret says that it is one. */
const jsonSafe = (_key: string, value: unknown): unknown => {
  if (typeof value === "bigint") return value.toString()
  if (Redacted.isRedacted(value)) return "<redacted>"
  if (value instanceof Error) return value.message
  return value
}

const toLine = (options: Logger.Options<unknown>): Line => {
  const parts = Array.ensure(options.message)
  const fields: Record<string, unknown> = {}
  let logger = "prism"
  for (const [key, value] of Object.entries(options.fiber.getRef(References.CurrentLogAnnotations))) {
    if (key === loggerAnnotation) logger = String(value)
    else fields[key] = value
  }
  for (const [label, startedMillis] of options.fiber.getRef(References.CurrentLogSpans)) {
    fields[`${label}_ms`] = options.date.getTime() - startedMillis
  }
  for (const part of parts) if (isPlainObject(part)) Object.assign(fields, part)
  if (options.cause.reasons.length > 0) fields["error"] = Cause.pretty(options.cause)
  return {
    time: options.date.toISOString(),
    level: options.logLevel.toLowerCase(),
    msg: parts
      .filter((part) => !isPlainObject(part))
      .map(showPart)
      .join(" "),
    logger,
    fields
  }
}

const reserved = new Set(["time", "level", "msg", "logger"])

/** One line of JSON, without its line end. */
export const formatJson = (options: Logger.Options<unknown>): string => {
  const { fields, ...head } = toLine(options)
  const rest = Object.fromEntries(
    Object.entries(fields).map(([key, value]) => [reserved.has(key) ? `_${key}` : key, value])
  )
  // JSON has escapes of its own for the first 32; the others are as good inside a string.
  return forJson(JSON.stringify({ ...head, ...rest }, jsonSafe))
}

const colours: Readonly<Record<string, string>> = {
  warn: "\x1b[33m",
  error: "\x1b[31m",
  fatal: "\x1b[31;1m",
  debug: "\x1b[2m"
}

/** A line for people: local time, level, logger, sentence, fields. */
export const formatPretty =
  (coloured: boolean) =>
  (options: Logger.Options<unknown>): string => {
    const { fields, level, logger, msg, time } = toLine(options)
    const { error, ...others } = fields
    const shown = Object.entries(others).map(([key, value]) => ` ${key}=${forJson(showPart(value))}`)
    const cause = typeof error === "string" ? `\n  ${error.split("\n").map(forJson).join("\n  ")}` : ""
    const line = `${time.slice(11, 23)} ${level.toUpperCase().padEnd(5)} ${logger}: ${forJson(msg)}${shown.join("")}${cause}`
    const colour = colours[level]
    return coloured && colour !== undefined ? `${colour}${line}\x1b[0m` : line
  }

/** The least severe lines that are logged, to be changed while the process runs. */
export class Level {
  current: LogLevel.LogLevel

  constructor(initial: LogLevel.LogLevel) {
    this.current = initial
  }
}

const toStderr = (format: (options: Logger.Options<unknown>) => string, level: Level) =>
  Logger.make((options) => {
    if (!LogLevel.isGreaterThanOrEqualTo(options.logLevel, level.current)) return
    process.stderr.write(`${format(options)}\n`)
  })

/** Logs on stderr as configured, and nothing else. */
export const layer = (options: {
  /** A `Level` can be changed later; whatever is less severe is then made for nothing, so nothing on a hot path should be. */
  readonly logLevel: LogLevel.LogLevel | Level
  readonly logFormat: Format
  /** Names this process in JSON lines, which come together from several. */
  readonly instance?: string
}): Layer.Layer<never> => {
  const readable = options.logFormat === "pretty" || (options.logFormat === "auto" && process.stderr.isTTY)
  const coloured = process.stderr.isTTY && process.env["NO_COLOR"] === undefined
  const changes = options.logLevel instanceof Level
  const level = options.logLevel instanceof Level ? options.logLevel : new Level(options.logLevel)
  return Layer.mergeAll(
    Logger.layer([toStderr(readable ? formatPretty(coloured) : formatJson, level)]),
    Layer.succeed(References.MinimumLogLevel, changes ? "Trace" : level.current),
    readable || options.instance === undefined
      ? Layer.empty
      : Layer.succeed(References.CurrentLogAnnotations, { instance: options.instance })
  )
}
