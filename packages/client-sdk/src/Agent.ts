/**
 * The engine: gives one name to this process and keeps it, whatever happens to
 * the network, the server or the machine.
 *
 * `make` starts it in a scope. What it does when is decided by `Machine`; this
 * module carries it out: connections and waits are fibers, and what they see
 * is dispatched, one input after the other. Time and randomness come from
 * `Clock` and `Random`, so a test can hold both still.
 *
 * Promises: it never fails once it runs, other than by `ended`; listeners are
 * called in order, and one that throws disturbs nobody; everyone who waits is
 * answered when it ends; after the scope nothing is left running. The one
 * thing that grows with use, those who wait, is bounded by `waitersMax`.
 */
import type * as Message from "@prism-dns/core/protocol/MessageV2"
import * as Cause from "effect/Cause"
import * as Clock from "effect/Clock"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as FiberMap from "effect/FiberMap"
import * as Random from "effect/Random"
import type * as Scope from "effect/Scope"
import * as Following from "./addresses/Following.ts"
import * as Connection from "./Connection.ts"
import * as KeyStore from "./KeyStore.ts"
import * as Machine from "./Machine.ts"
import {
  type AgentEvent,
  type AgentOptions,
  type Changes,
  type Level,
  levels as allLevels,
  type Reached,
  reaches,
  RegistrationFailed,
  type Snapshot,
  type StateName
} from "./Options.ts"
import * as Servers from "./Servers.ts"
import * as Session from "./Session.ts"
import * as Sleep from "./Sleep.ts"
import * as Wish from "./Wish.ts"

/** Redirects that are followed one after another; one more counts as a lost connection. */
export const redirectsMax = 3

/** Waits for a level or an update at once; more are refused with `busy`. */
export const waitersMax = 1000

export interface Agent {
  readonly snapshot: () => Snapshot
  /** Calls `listener` with every event from now on; returns what ends that. */
  readonly subscribe: (listener: (event: AgentEvent) => void) => () => void
  /** Waits until the name has come to `level`. */
  readonly waitFor: (level: Level) => Effect.Effect<Reached, RegistrationFailed>
  /** Changes what is wanted, and waits until that has come to `level`, by default `accepted`. */
  readonly update: (changes: Changes, level?: Level) => Effect.Effect<Reached, RegistrationFailed>
  /**
   * Gives the name up, and waits until the server has taken that, through reconnects if need be. Whoever stops waiting
   * closes the agent.
   */
  readonly release: Effect.Effect<void, RegistrationFailed>
  /** Ends it. The server keeps the name until its lease has passed. */
  readonly close: Effect.Effect<void>
  /** Replaces the key in the state folder by a new one, on the session that stands. */
  readonly rotateKey: Effect.Effect<void, RegistrationFailed>
  /** Waits for the end: given up, closed, or refused. */
  readonly ended: Effect.Effect<"released" | "closed", RegistrationFailed>
}

/** What the engine takes beside what programs say. */
export interface EngineOptions extends AgentOptions {
  /** Sockets do not keep the process running. Timers: by the `Clock` provided. */
  readonly unref?: boolean | undefined
  /** How the addresses of interfaces are read and followed, for tests. */
  readonly following?: Pick<Following.FollowOptions, "every" | "settle" | "read"> | undefined
}

interface Waiter {
  /** Of the change that is waited for; undefined until it is made. */
  revision: number | undefined
  readonly level: Level
  readonly done: Deferred.Deferred<Reached, RegistrationFailed>
}

/** What runs of a link. */
interface Line {
  readonly server: Servers.Server
  connection: Connection.Connection | undefined
  welcome: Message.Welcome | undefined
  /** What our key was proven on. */
  nonce: string | undefined
  nextId: number
  /** Requests without an answer. The machine has at most one of each kind under way. */
  readonly requests: Map<number, Machine.Refusal["of"]>
  /** What it was told last. */
  told: Wish.Wish | undefined
}

const defaultTiming = {
  connectMillis: 10_000,
  answerMillis: 10_000,
  backoffBaseMillis: 1000,
  backoffCapMillis: 30_000,
  clockCheckMillis: 5000
}

const clientByDefault = "prism-client-sdk"

const checked = <A>(act: () => A): Effect.Effect<A, RegistrationFailed> =>
  Effect.try({
    try: act,
    catch: (error) =>
      error instanceof RegistrationFailed ? error : new RegistrationFailed("invalid", "the options cannot be read")
  })

const timerKey = (timer: Machine.Timer): string => ("link" in timer ? `${timer.name}:${timer.link}` : timer.name)

/** Starts it. Ends with the scope, without giving the name up. */
export const make = Effect.fnUntraced(function* (
  options: EngineOptions
): Effect.fn.Return<Agent, RegistrationFailed, Scope.Scope> {
  const configured = yield* checked(() => Servers.parseServers(options.server))
  const { logger, stateDir } = options
  // What was read from a file, or a variable that was filled from one, ends with the file's line.
  const token = options.token?.trim()
  const following: Following.FollowOptions | undefined =
    options.addresses === "interfaces" ? { ...options.interfaces, ...options.following } : undefined
  const found = following === undefined ? [] : (yield* Following.look(following)).addresses
  if (following !== undefined && found.length === 0) {
    logger?.warn?.("no interface has an address that fits; until one has, the server's view counts")
  }
  const firstWish = yield* checked(() => Wish.fromOptions(options, found))
  const timing = { ...defaultTiming, ...options.timing }
  const settings: Machine.Settings = {
    connectMillis: timing.connectMillis ?? defaultTiming.connectMillis,
    answerMillis: timing.answerMillis ?? defaultTiming.answerMillis,
    backoff: {
      baseMillis: timing.backoffBaseMillis ?? defaultTiming.backoffBaseMillis,
      capMillis: timing.backoffCapMillis ?? defaultTiming.backoffCapMillis
    }
  }
  const hasCertificate = options.tls?.cert !== undefined && options.tls.key !== undefined
  let key = stateDir === undefined ? undefined : yield* KeyStore.load(stateDir)

  /** A replacement of the key was begun, and not finished. */
  let isUnsettled = key?.next !== undefined

  const random = yield* Random.Random
  const fibers = yield* FiberMap.make<string>()
  const start = yield* FiberMap.runtime(fibers)()
  const ended = yield* Deferred.make<"released" | "closed", RegistrationFailed>()

  let model = Machine.initial
  let wish = firstWish
  /** What the server accepted last. */
  let accepted: Wish.Wish | undefined
  let generation = -1
  let reached: Reached | undefined
  /** Of that generation, each level that was reached. */
  let levels: { [L in Level]?: Reached } = {}
  let addresses: ReadonlyArray<string> = []
  let identity: string | undefined
  /** Those of the options, or those that they have sent us to. */
  let servers = configured
  let redirects = 0
  /** Failures in a row when we were sent there. */
  let failuresBefore = 0
  let tried: number | undefined
  let state: StateName = "connecting"
  /** What whoever comes after the end is told. */
  let over: RegistrationFailed | undefined
  const lines = new Map<number, Line>()
  const listeners = new Set<(event: AgentEvent) => void>()
  const waiters = new Set<Waiter>()

  // Inputs that come up while one is carried out (a listener that changes something) wait for their turn.
  const inputs: Array<() => Machine.Input | undefined> = []
  let busy = false

  // --- Telling --------------------------------------------------------------------------------------------------

  const emit = (event: AgentEvent) => {
    for (const listener of Array.from(listeners)) {
      try {
        listener(event)
      } catch (error) {
        logger?.warn?.("a listener failed", { event: event.type, error: String(error) })
      }
    }
  }

  // Whoever is answered goes on at once, and may come back here: not before this step is done.
  const answers: Array<() => void> = []
  const answer = () => {
    if (busy) return
    for (let next = answers.shift(); next !== undefined; next = answers.shift()) next()
  }

  const settle = (waiter: Waiter, exit: Exit.Exit<Reached, RegistrationFailed>) => {
    waiters.delete(waiter)
    answers.push(() => Deferred.doneUnsafe(waiter.done, exit))
  }

  const settleReached = () => {
    if (reached === undefined) return
    for (const waiter of waiters) {
      const { level, revision } = waiter
      if (revision !== undefined && model.held >= revision && reaches(reached.level, level)) {
        settle(waiter, Exit.succeed(reached))
      }
    }
  }

  const settleAll = (why: RegistrationFailed) => {
    for (const waiter of waiters) settle(waiter, Exit.fail(why))
  }

  // --- Carrying out ---------------------------------------------------------------------------------------------

  const request = (link: number, of: Machine.Refusal["of"], frame: (id: number) => Message.AgentMessage) => {
    const line = lines.get(link)
    if (line?.connection === undefined) return
    const id = line.nextId++
    line.requests.set(id, of)
    line.connection.send(frame(id))
  }

  const sendTo = (others: ReadonlyArray<Servers.Server>) => {
    servers = others
    tried = undefined
    failuresBefore = model.failures
    if (others === configured) redirects = 0
  }

  const carryOut = (action: Machine.Action) => {
    switch (action._tag) {
      case "Open": {
        // Where we were sent to, nobody is there: those of the options know who is by now.
        if (servers !== configured && model.failures - failuresBefore >= 2 * servers.length) sendTo(configured)
        tried = Servers.nextIndex(servers.length, tried)
        const line: Line = {
          server: servers[tried]!,
          connection: undefined,
          welcome: undefined,
          nonce: undefined,
          nextId: Session.firstRequestId,
          requests: new Map(),
          told: undefined
        }
        lines.set(action.link, line)
        start(`link:${action.link}`, follow(action.link, line))
        return
      }
      case "Register": {
        const line = lines.get(action.link)
        if (line !== undefined) line.told = wish
        return request(action.link, "wish", (id) => Wish.registerFrame(wish, id))
      }
      case "Update": {
        const line = lines.get(action.link)
        if (line !== undefined) line.told = wish
        const from = accepted ?? wish
        return request(action.link, "wish", (id) => Wish.updateFrame(wish, from, reached?.host ?? "", id))
      }
      case "Beat":
        return request(action.link, "beat", (id) => ({ type: "heartbeat", id }))
      case "Release":
        return request(action.link, "release", (id) => ({ type: "release", id, host: reached?.host ?? "" }))
      case "Disconnect":
        if (action.how === "reset") lines.get(action.link)?.connection?.reset()
        lines.delete(action.link)
        return void Effect.runFork(FiberMap.remove(fibers, `link:${action.link}`))
      case "Set":
        return void start(
          timerKey(action.timer),
          Effect.andThen(
            Effect.sleep(action.millis),
            Effect.sync(() => dispatch({ _tag: "Due", timer: action.timer }))
          )
        )
      case "Clear":
        return void Effect.runFork(FiberMap.remove(fibers, timerKey(action.timer)))
      case "Revert": {
        wish = accepted ?? wish
        const { code, message, retryAfterSeconds } = action.refusal
        const why = new RegistrationFailed(code, message, retryAfterSeconds)
        logger?.warn?.("a change was refused; the name stays as it was", { code, message })
        for (const waiter of waiters) {
          if ((waiter.revision ?? 0) > model.held) settle(waiter, Exit.fail(why))
        }
        return
      }
      case "TellConnected": {
        const line = lines.get(action.link)
        if (line?.welcome === undefined) return
        const { identity, observedAddress, session } = line.welcome
        const data = { server: line.server.text, session, identity: identity.name, observedAddress }
        logger?.info?.("connected", data)
        return emit({ type: "connected", data })
      }
      case "TellDisconnected": {
        const data = {
          server: lines.get(action.link)?.server.text ?? "",
          reason: action.reason,
          failures: action.failures,
          retryInMillis: action.retryInMillis
        }
        logger?.warn?.("disconnected", data)
        return emit({ type: "disconnected", data })
      }
      case "End": {
        // Also what watches clocks and interfaces: nothing keeps the process running any more.
        Effect.runFork(FiberMap.clear(fibers))
        if (action.how === "refused") {
          logger?.warn?.("refused", { code: action.failure.code, message: action.failure.message })
          over = action.failure
          settleAll(over)
          emit({ type: "refused", data: action.failure })
          answers.push(() => Deferred.doneUnsafe(ended, Exit.fail(action.failure)))
          return
        }
        over = new RegistrationFailed(action.how, `the registration was ${action.how}`)
        settleAll(over)
        const { how } = action
        answers.push(() => Deferred.doneUnsafe(ended, Exit.succeed(how)))
        return
      }
    }
  }

  const dispatchWith = (make: () => Machine.Input | undefined) => {
    inputs.push(make)
    if (busy) return
    busy = true
    try {
      for (let next = inputs.shift(); next !== undefined; next = inputs.shift()) {
        const input = next()
        if (input === undefined) continue
        const step = Machine.transition(model, input, settings, random.nextDoubleUnsafe())
        model = step.model
        const previous = state
        state = Machine.stateOf(model)
        step.actions.forEach(carryOut)
        if (state !== previous) {
          logger?.debug?.("state", { state, previous })
          emit({ type: "state", data: { state, previous } })
        }
        settleReached()
      }
    } finally {
      busy = false
    }
    answer()
  }
  const dispatch = (input: Machine.Input) => dispatchWith(() => input)

  // --- A link ---------------------------------------------------------------------------------------------------

  const onAck = (link: number, line: Line, ack: Message.Ack) => {
    const of = line.requests.get(ack.id)
    if (ack.level === "accepted" && of === "release") {
      line.requests.delete(ack.id)
      return dispatch({ _tag: "Released", link })
    }
    if (ack.outcome === "released") return
    const previous = addresses
    if (ack.level === "accepted") {
      if (of !== "wish") return
      line.requests.delete(ack.id)
      accepted = line.told
      if (ack.addresses !== undefined) addresses = ack.addresses
    }
    const isNews =
      ack.generation > generation ||
      (ack.generation === generation && !reaches(reached?.level, ack.level)) ||
      reached?.host !== ack.host
    if (isNews) {
      if (ack.generation !== generation || reached?.host !== ack.host) levels = {}
      generation = ack.generation
      const data: Reached = {
        host: ack.host,
        addresses,
        level: ack.level,
        millis: ack.elapsedMillis,
        at: ack.at,
        ...(ack.nodes === undefined ? {} : { nodes: ack.nodes })
      }
      reached = data
      levels = { ...levels, [ack.level]: data }
      logger?.info?.(ack.level, { host: ack.host, addresses, millis: ack.elapsedMillis })
      emit({ type: ack.level, data })
      if (previous.length > 0 && previous.join() !== addresses.join()) {
        emit({ type: "address", data: { host: ack.host, addresses, previous } })
      }
    }
    if (ack.level === "accepted") return dispatch({ _tag: "Accepted", link })
    settleReached()
    answer()
  }

  const onError = (link: number, line: Line, frame: Message.ErrorFrame) => {
    const refusal = new RegistrationFailed(frame.code, frame.message, frame.retryAfterSeconds)
    if (frame.id !== undefined && settleRotation(link, Exit.fail(refusal), frame.id)) return
    const of = (frame.id === undefined ? undefined : line.requests.get(frame.id)) ?? "session"
    if (frame.id !== undefined) line.requests.delete(frame.id)
    if (of === "session" && frame.closing !== true) {
      logger?.warn?.("the server complains", { code: frame.code, message: frame.message })
      return emit({ type: "notice", data: { code: frame.code, message: frame.message } })
    }
    if (of === "wish" && frame.retryable) {
      logger?.warn?.("not now", {
        code: frame.code,
        message: frame.message,
        retryAfterSeconds: frame.retryAfterSeconds
      })
      emit({ type: "notice", data: { code: frame.code, message: frame.message } })
    }
    dispatch({ _tag: "Refused", link, refusal: refusalOf(of, frame) })
  }

  const onMessage = (link: number, line: Line, message: Message.ServerMessage) => {
    switch (message.type) {
      case "ack":
        return onAck(link, line, message)
      case "beat":
        line.requests.delete(message.id)
        return dispatch({ _tag: "BeatAnswered", link })
      case "error":
        return onError(link, line, message)
      case "drain":
        logger?.info?.("the server drains", { server: line.server.text, withinSeconds: message.withinSeconds })
        return dispatch({ _tag: "Drain", link, withinMillis: Math.max(message.withinSeconds, 0) * 1000 })
      case "rotated":
        return void settleRotation(link, Exit.void, message.id)
      case "lease-unknown":
        if (message.host === reached?.host) dispatch({ _tag: "LeaseUnknown", link })
        return
      case "parked":
        logger?.warn?.("parked", { host: message.host, reason: message.reason })
        return emit({ type: "parked", data: { host: message.host, reason: message.reason } })
      case "notice":
        logger?.info?.(message.message, { code: message.code })
        return emit({ type: "notice", data: { code: message.code, message: message.message } })
      default:
        return
    }
  }

  /** Keeps what `welcome` tells of our key; a folder that cannot be written only costs an enrolment later. */
  const noteIdentity = Effect.fnUntraced(function* (server: Servers.Server, welcome: Message.Welcome) {
    identity = welcome.identity.name
    if (stateDir === undefined || key === undefined || welcome.identity.kind !== "key") return
    if (key.identity === welcome.identity.name && !isUnsettled) return
    // The key that was to replace it is not the one that counts.
    isUnsettled = false
    key = { ...key, identity: welcome.identity.name, server: server.text, next: undefined }
    yield* Effect.catch(KeyStore.save(stateDir, key), (error) =>
      Effect.sync(() => logger?.warn?.("the identity could not be kept", { reason: error.message }))
    )
  })

  const follow = (link: number, line: Line): Effect.Effect<void> =>
    Effect.gen(function* () {
      const connection = yield* Connection.open(line.server, { tls: options.tls, unref: options.unref })
      line.connection = connection
      dispatch({ _tag: "Connected", link })
      const auth = Session.authOf({ key, token, certificate: hasCertificate && line.server.tls })
      const { nonce, welcome } = yield* Session.handshake(
        connection,
        auth,
        key,
        options.client ?? clientByDefault,
        wish
      )
      redirects = 0
      failuresBefore = 0
      line.welcome = welcome
      line.nonce = nonce
      yield* noteIdentity(line.server, welcome)
      dispatch({ _tag: "Welcomed", link, beatMillis: Math.max(welcome.lease.beatSeconds, 0.1) * 1000 })
      while (true) onMessage(link, line, yield* connection.receive)
    }).pipe(
      Effect.scoped,
      Effect.ensuring(Effect.sync(() => settleRotation(link, Exit.fail(unsettled)))),
      Effect.catchCause((cause) =>
        Effect.sync(() => {
          if (!Cause.hasInterruptsOnly(cause)) dispatch(inputOf(link, line.server, Cause.squash(cause)))
        })
      )
    )

  // --- Replacing the key ----------------------------------------------------------------------------------------

  let rotation:
    | { readonly link: number; readonly id: number; readonly done: Deferred.Deferred<void, RegistrationFailed> }
    | undefined

  const settleRotation = (link: number, exit: Exit.Exit<void, RegistrationFailed>, id = rotation?.id): boolean => {
    if (rotation?.link !== link || rotation.id !== id) return false
    const { done } = rotation
    rotation = undefined
    answers.push(() => Deferred.doneUnsafe(done, exit))
    answer()
    return true
  }

  /** Takes the key that stands in the folder, or the one that was to replace ours: one of both counts. */
  const hasOtherKey = (): boolean => {
    if (stateDir === undefined || key === undefined) return false
    const stored = Effect.runSyncExit(KeyStore.load(stateDir))
    if (Exit.isFailure(stored)) return false
    const { next } = stored.value
    if (stored.value.publicKey !== key.publicKey) key = stored.value
    else if (next === undefined) return false
    else {
      key = { ...key, ...next, next: undefined }
      Effect.runSyncExit(KeyStore.save(stateDir, key))
    }
    return true
  }

  const rotateKey = Effect.gen(function* () {
    if (over !== undefined) return yield* Effect.fail(over)
    if (stateDir === undefined || key === undefined) {
      return yield* Effect.fail(new RegistrationFailed("invalid", "there is no key to replace: no stateDir was given"))
    }
    const link = model.current?.stage === "ready" ? model.current.id : undefined
    const line = link === undefined ? undefined : lines.get(link)
    const busy = new RegistrationFailed(
      "busy",
      "no session stands at this moment, or the key is being replaced already",
      1
    )
    const isBusy = isUnsettled || rotation !== undefined
    if (link === undefined || line?.connection === undefined || line.nonce === undefined || isBusy) {
      return yield* Effect.fail(busy)
    }
    const former = key
    const stored = yield* KeyStore.load(stateDir)
    if (stored.publicKey !== former.publicKey || stored.next !== undefined) {
      // Another one that shares the folder has replaced it, or is about to: what it keeps there is not to be written over.
      isUnsettled = true
      dispatch({ _tag: "Lost", link, reason: "the key was replaced meanwhile" })
      return yield* Effect.fail(busy)
    }
    const next = KeyStore.generate()
    yield* KeyStore.save(stateDir, { ...former, next })
    isUnsettled = true
    const id = line.nextId++
    const done = Deferred.makeUnsafe<void, RegistrationFailed>()
    rotation = { link, id, done }
    line.connection.send(Session.rotateFrame(line.connection, { key: former, next, nonce: line.nonce }, id))
    yield* Effect.timeoutOrElse(Deferred.await(done), {
      duration: settings.answerMillis,
      orElse: () => Effect.fail(unsettled)
    }).pipe(
      Effect.onExit((exit) =>
        Effect.sync(() => {
          if (rotation?.id === id) rotation = undefined
          if (Exit.isSuccess(exit)) return
          const error = Cause.squash(exit.cause)
          // Whoever stops waiting has no answer either.
          const isAnswered = error instanceof RegistrationFailed && error !== unsettled
          if (error instanceof RegistrationFailed && !unsettledCodes.has(error.code)) {
            isUnsettled = false
            Effect.runSyncExit(KeyStore.save(stateDir, former))
          } else {
            // A second key beside these two would be one too many to find out about.
            dispatch({ _tag: "Lost", link, reason: unsettled.message, unanswered: !isAnswered })
          }
        })
      )
    )
    key = { ...former, ...next, next: undefined }
    isUnsettled = false
    yield* KeyStore.save(stateDir, key)
    logger?.info?.("the key was replaced", { identity })
  })

  const redirected = (link: number, server: Servers.Server, { frame, message }: Session.Redirected): Machine.Input => {
    const others = Servers.parseRedirect(server, frame.servers)
    redirects += 1
    if (others === undefined || redirects > redirectsMax) {
      sendTo(configured)
      return {
        _tag: "Lost",
        link,
        reason: others === undefined ? `${message}, none of which can be followed` : `${message}: redirected too often`
      }
    }
    logger?.info?.("redirected", { group: frame.group, zone: frame.zone, servers: others.map(({ text }) => text) })
    sendTo(others)
    return { _tag: "Redirected", link }
  }

  const inputOf = (link: number, server: Servers.Server, error: unknown): Machine.Input => {
    if (error instanceof Session.Redirected) return redirected(link, server, error)
    if (error instanceof Session.HandshakeRefused) {
      const { code } = error.frame
      if ((code === "identity-unknown" || code === "identity-revoked") && hasOtherKey()) {
        return { _tag: "Lost", link, reason: `${code}: the key was replaced meanwhile` }
      }
      if (code === "identity-unknown" && key?.identity !== undefined && token !== undefined) {
        // The server has lost what it knew of this key. The token may enrol it again.
        key = { ...key, identity: undefined }
        return { _tag: "Lost", link, reason: `${error.frame.code}: ${error.frame.message}` }
      }
      if (strangerCodes.has(code) && model.held > 0 && servers.length > 1) {
        // One of the others has known us: this server may be the one that is set up wrongly.
        return { _tag: "Lost", link, reason: `${code}: ${error.frame.message}` }
      }
      return { _tag: "Refused", link, refusal: refusalOf("handshake", error.frame) }
    }
    const reason = error instanceof Error ? error.message : String(error)
    // A first attempt that cannot be right is told at once. Later, or with other servers, it may be only this one.
    if (error instanceof Connection.ConnectionLost && model.held === 0 && servers.length === 1) {
      const code = error.untrusted
        ? "server-untrusted"
        : error.foreign
          ? (error.code ?? "unsupported-version")
          : undefined
      if (code !== undefined) {
        return {
          _tag: "Refused",
          link,
          refusal: {
            of: "handshake",
            code,
            message: reason,
            retryable: false,
            retryAfterSeconds: undefined,
            closing: true
          }
        }
      }
    }
    const retryAfterSeconds = error instanceof Connection.ConnectionLost ? error.retryAfterSeconds : undefined
    return { _tag: "Lost", link, reason, retryAfterSeconds }
  }

  // --- Sleep ----------------------------------------------------------------------------------------------------

  const clock = yield* Clock.Clock
  const look = (): Sleep.Reading => ({
    wallMillis: clock.currentTimeMillisUnsafe(),
    monotonicMillis: Number(clock.monotonicTimeNanosUnsafe() / 1000n) / 1000
  })
  const everyMillis = timing.clockCheckMillis ?? defaultTiming.clockCheckMillis
  const watchClocks = Effect.gen(function* () {
    let before = look()
    while (true) {
      yield* Effect.sleep(everyMillis)
      const now = look()
      const verdict = Sleep.judge(before, now, everyMillis)
      before = now
      if (verdict._tag === "Slept" || verdict._tag === "Stalled") {
        logger?.info?.("time has passed unseen", { verdict: verdict._tag, millis: verdict.millis })
        dispatch({ _tag: "Woke" })
      }
    }
  })

  // --- What programs call ---------------------------------------------------------------------------------------

  const wait = (level: Level, changes?: Changes): Effect.Effect<Reached, RegistrationFailed> =>
    Effect.suspend(() => {
      if (over !== undefined) return Effect.fail(over)
      if (!allLevels.includes(level)) {
        return Effect.fail(new RegistrationFailed("invalid", `a level is ${allLevels.join(", ")}, not '${level}'`))
      }
      if (waiters.size >= waitersMax) {
        return Effect.fail(new RegistrationFailed("busy", `more than ${waitersMax} wait already`))
      }
      const waiter: Waiter = { revision: changes === undefined ? 0 : undefined, level, done: Deferred.makeUnsafe() }
      waiters.add(waiter)
      if (changes === undefined) settleReached()
      else {
        dispatchWith(() => {
          wish = Wish.change(wish, changes)
          waiter.revision = model.wanted + 1
          return { _tag: "Changed" }
        })
      }
      answer()
      return Effect.onExit(Deferred.await(waiter.done), () => Effect.sync(() => waiters.delete(waiter)))
    })

  yield* Effect.addFinalizer(() => Effect.sync(() => dispatch({ _tag: "Close" })))
  start("clocks", watchClocks)
  dispatch({ _tag: "Start" })
  if (following !== undefined) {
    const tell = ({ addresses }: { readonly addresses: ReadonlyArray<string> }) =>
      Effect.sync(() => {
        if (addresses.join() === String(wish.addresses)) return
        logger?.info?.("the addresses of this machine have changed", { addresses })
        // The newest replaces one that still waits for a server.
        start(
          "addresses",
          Effect.catch(wait("accepted", { addresses }), ({ code, message }) =>
            Effect.sync(() => logger?.warn?.("the addresses were not taken", { code, message }))
          )
        )
      })
    start("interfaces", Following.follow(following, tell))
  }

  return {
    snapshot: () => ({ state, host: reached?.host, addresses, level: reached?.level, reached: levels, identity }),
    subscribe: (listener) => {
      // The same function may listen twice.
      const own = (event: AgentEvent) => listener(event)
      listeners.add(own)
      return () => void listeners.delete(own)
    },
    waitFor: (level) => wait(level),
    update: (changes, level = "accepted") =>
      // What is checked here fits any wish: each field is checked by itself.
      Effect.andThen(
        checked(() => Wish.change(wish, changes)),
        wait(level, changes)
      ),
    release: Effect.suspend(() => {
      dispatch({ _tag: "Release" })
      return Effect.asVoid(Deferred.await(ended))
    }).pipe(Effect.onInterrupt(() => Effect.sync(() => dispatch({ _tag: "Close" })))),
    close: Effect.sync(() => dispatch({ _tag: "Close" })),
    rotateKey,
    ended: Deferred.await(ended)
  }
})

/** Whichever key the server took: both are in the folder, and the next session finds out. */
const unsettled = new RegistrationFailed(
  "timeout",
  "the connection ended before the key was replaced; the next session finds out which one counts",
  1
)

/** What a server says that does not know us, or not how we speak. */
const strangerCodes: ReadonlySet<string> = new Set([
  "identity-unknown",
  "token-invalid",
  "protocol-not-allowed",
  "unsupported-version"
])

/** Whether a key was replaced is not said by any of these. */
const unsettledCodes: ReadonlySet<string> = new Set([
  unsettled.code,
  "unavailable",
  "internal",
  "identity-revoked",
  "identity-unknown"
])

const refusalOf = (of: Machine.Refusal["of"], frame: Message.ErrorFrame): Machine.Refusal => ({
  of,
  code: frame.code,
  message: frame.message,
  retryable: frame.retryable,
  retryAfterSeconds: frame.retryAfterSeconds,
  closing: frame.closing ?? false
})
