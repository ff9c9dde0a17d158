/**
 * What was asked and what was told, and when: the material that `Check` judges.
 * Plain values, so that a history can be kept, read by people, and written by hand.
 */

/** Times here are milliseconds since 1970 by one clock that only goes on. */
export const nowMillis = (): number => performance.timeOrigin + performance.now()

export type Level = "accepted" | "applied" | "served"

/** An answer that somebody was told. */
export interface Told {
  readonly level: Level
  readonly atMillis: number
  /** Protocol 1 does not say. */
  readonly generation: number | undefined
  /** With `accepted`: `created`, `changed`, `returned`, `renewed`, `released`. */
  readonly outcome: string | undefined
}

/** Something that was asked of a host, once. Those of one host stand in the order in which they were asked. */
export interface Request {
  /** Full name without the dot at the end. */
  readonly host: string
  readonly kind: "register" | "release"
  /** That the host is to have; empty: it is released. */
  readonly addresses: ReadonlyArray<string>
  readonly protocol: 1 | 2
  /** The server it was asked of, as that calls itself; undefined: it never said. */
  readonly instance: string | undefined
  readonly askedMillis: number
  readonly told: Array<Told>
  /** Refused, with this code: nothing was changed. */
  refused: { readonly code: string; readonly message: string; readonly atMillis: number } | undefined
  /** When the connection ended, or was given up, before all was told. */
  lostMillis: number | undefined
  /** It was the agent that went on to another session and did not wait for the rest. */
  isLeft?: boolean
}

/** A host was not connected from one time to another; undefined: until the end. */
export interface Away {
  readonly host: string
  readonly fromMillis: number
  toMillis: number | undefined
  /** What ended the connection, in words. */
  readonly why: string
}

/** What a name server said in between. */
export interface Poll {
  readonly node: string
  readonly host: string
  readonly askedMillis: number
  readonly toldMillis: number
  /** Sorted; undefined: no answer, or one without authority. */
  readonly addresses: ReadonlyArray<string> | undefined
}

/** A PATCH of a zone, as PowerDNS had it: from when it had all of it to when it had answered, or was left. */
export interface Write {
  readonly server: string
  readonly node: string
  readonly zone: string
  fromMillis: number
  toMillis: number | undefined
  /** Of the answer; undefined: there was none. */
  status: number | undefined
  /** The request as it was, for a trace. */
  body?: string
}

export interface History {
  readonly requests: ReadonlyArray<Request>
  readonly away: ReadonlyArray<Away>
  readonly polls: ReadonlyArray<Poll>
  readonly writes: ReadonlyArray<Write>
}

export interface HostRow {
  readonly id: string
  readonly host: string
  readonly zone: string
  readonly addresses: ReadonlyArray<string>
  readonly state: string
  readonly generation: number
}

export interface VersionRow {
  readonly id: string
  readonly host: string
  readonly sequence: number
  readonly event: string
  readonly addresses: ReadonlyArray<string>
  readonly state: string
  readonly generation: number
  readonly isCurrent: boolean
}

export interface AuditRow {
  readonly action: string
  readonly subject: string
  readonly generation: number
}

/** What a name server holds, by name. */
export interface Served {
  readonly node: string
  /** Data of A records, by host; a host that is not there has none. */
  readonly forward: ReadonlyMap<string, ReadonlyArray<string>>
  /** Names of PTR records, by address; undefined: that was not looked at. */
  readonly reverse: ReadonlyMap<string, ReadonlyArray<string>> | undefined
}

/** How it is when all is well again and nothing is under way. */
export interface EndState {
  readonly hosts: ReadonlyArray<HostRow>
  /** In the order of their sequence. */
  readonly versions: ReadonlyArray<VersionRow>
  /** Entries about hosts, sealed or not. */
  readonly audit: ReadonlyArray<AuditRow>
  /** What a verification of the sealed log found. */
  readonly chain: ReadonlyArray<string>
  readonly served: ReadonlyArray<Served>
  /** Records that stand more than once in PowerDNS's database. */
  readonly doubled: ReadonlyArray<string>
}
