/**
 * Following a machine's addresses: a look every few seconds, and word when what
 * would be registered has changed and has stayed so for a moment.
 *
 * Promises: a renewed DHCP lease or an interface that goes down and up within
 * the settling time is no change; one that never settles is passed on all the
 * same after `settleMaxMillis`. No address at all is never passed on: a machine
 * without a network cannot say so, and its name keeps what it had.
 *
 * No native modules, so the system is asked again and again; a look costs less
 * than a millisecond on a machine with few interfaces (`Snapshot.makeReader`).
 */
import { Clock, Duration, Effect } from "effect"
import { type Selection, select, type SelectOptions } from "./Selection.ts"
import * as Snapshot from "./Snapshot.ts"

export interface SettleOptions {
  /** How long a change must stand. */
  readonly settleMillis: number
  /** After this it is passed on though it changes still. */
  readonly settleMaxMillis: number
}

/** What is remembered between looks. */
export interface Settling {
  /** What was passed on last. */
  readonly told: string | undefined
  /** What differs from it, since when it is this, and since when there is a difference. */
  readonly pending: { readonly key: string; readonly sinceMillis: number; readonly unsettledMillis: number } | undefined
}

export const initial: Settling = { told: undefined, pending: undefined }

/** What becomes of a look at `nowMillis`, and whether what it saw is to be passed on. The first one is, at once. */
export const step = (
  state: Settling,
  { addresses }: Pick<Selection, "addresses">,
  nowMillis: number,
  options: SettleOptions
): { readonly state: Settling; readonly tell: boolean } => {
  if (addresses.length === 0) return { state: { told: state.told, pending: undefined }, tell: false }
  const key = addresses.join(" ")
  if (key === state.told) return { state: { told: key, pending: undefined }, tell: false }
  const told = { state: { told: key, pending: undefined }, tell: true }
  if (state.told === undefined) return told
  // A clock that was set back begins anew.
  const pending = state.pending !== undefined && state.pending.sinceMillis <= nowMillis ? state.pending : undefined
  const unsettledMillis = Math.min(pending?.unsettledMillis ?? nowMillis, nowMillis)
  if (nowMillis - unsettledMillis >= options.settleMaxMillis) return told
  const sinceMillis = pending?.key === key ? pending.sinceMillis : nowMillis
  if (nowMillis - sinceMillis >= options.settleMillis) return told
  return { state: { told: state.told, pending: { key, sinceMillis, unsettledMillis } }, tell: false }
}

export interface FollowOptions extends SelectOptions {
  /** Between looks. Default 5 s. */
  readonly every?: Duration.Input | undefined
  /** How long a change must stand. Default 3 s. */
  readonly settle?: Duration.Input | undefined
  /** After this a change that does not settle is passed on. Default 30 s. */
  readonly settleMax?: Duration.Input | undefined
  /** Gives the present snapshot. Default: the machine's. */
  readonly read?: (() => Snapshot.Snapshot) | undefined
}

/** While a change has not settled it is looked at more often. */
const pendingEvery = Duration.seconds(1)

/** What the machine has at this moment, decided upon. */
export const look = (options: FollowOptions = {}): Effect.Effect<Selection> =>
  Effect.sync(() => select((options.read ?? Snapshot.read)(), options))

/** Calls `tell` with the first selection that has an address, and with each change that has settled; never ends. */
export const follow = Effect.fnUntraced(function* <E, R>(
  options: FollowOptions,
  tell: (selection: Selection) => Effect.Effect<void, E, R>
) {
  const read = options.read ?? Snapshot.makeReader()
  const every = Duration.fromInputUnsafe(options.every ?? "5 seconds")
  const settleOptions = {
    settleMillis: Duration.toMillis(Duration.fromInputUnsafe(options.settle ?? "3 seconds")),
    settleMaxMillis: Duration.toMillis(Duration.fromInputUnsafe(options.settleMax ?? "30 seconds"))
  }
  let state = initial
  while (true) {
    const selection = select(read(), options)
    const next = step(state, selection, yield* Clock.currentTimeMillis, settleOptions)
    state = next.state
    if (next.tell) yield* tell(selection)
    yield* Effect.sleep(state.pending === undefined ? every : Duration.min(every, pendingEvery))
  }
})
