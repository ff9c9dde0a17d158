/**
 * `traceparent` (W3C Trace Context): of which trace a request is part. Prism
 * keeps it in its log lines; it makes no spans of its own.
 */

export interface TraceParent {
  readonly traceId: string
  /** Of the caller's span. */
  readonly spanId: string
}

const pattern = /^([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-[0-9a-f]{2}(-.*)?$/

/** Undefined where it says nothing that can be used; a later version may have more behind it. */
export const parse = (header: string | undefined): TraceParent | undefined => {
  if (header === undefined || header.length > 512) return undefined
  const [, version, traceId, spanId, rest] = pattern.exec(header) ?? []
  if (version === undefined || version === "ff" || (version === "00" && rest !== undefined)) return undefined
  if (/^0+$/.test(traceId!) || /^0+$/.test(spanId!)) return undefined
  return { traceId: traceId!, spanId: spanId! }
}
