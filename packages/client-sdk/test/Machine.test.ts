import { assert, describe, it } from "@effect/vitest"
import * as Machine from "../src/Machine.ts"

const settings: Machine.Settings = {
  connectMillis: 10_000,
  answerMillis: 5000,
  backoff: { baseMillis: 1000, capMillis: 30_000 }
}

/** An action in a few words: `open 1`, `set beat:1 45000`, `register 1 @1`. */
const say = (action: Machine.Action): string => {
  const timer = (timer: Machine.Timer) => ("link" in timer ? `${timer.name}:${timer.link}` : timer.name)
  switch (action._tag) {
    case "Set":
      return `set ${timer(action.timer)} ${action.millis}`
    case "Clear":
      return `clear ${timer(action.timer)}`
    case "Register":
    case "Update":
      return `${action._tag.toLowerCase()} ${action.link} @${action.revision}`
    case "Revert":
      return `revert ${action.refusal.code}`
    case "TellDisconnected":
      return `tell disconnected ${action.link} ${action.failures} ${action.retryInMillis}`
    case "TellConnected":
      return `tell connected ${action.link}`
    case "Disconnect":
      return `${action.how === "reset" ? "reset" : "disconnect"} ${action.link}`
    case "End":
      return action.how === "refused" ? `end refused ${action.failure.code}` : `end ${action.how}`
    default:
      return `${action._tag.toLowerCase()} ${action.link}`
  }
}

const refusal = (fields: Partial<Machine.Refusal> = {}): Machine.Refusal => ({
  of: "wish",
  code: "no",
  message: "because",
  retryable: false,
  retryAfterSeconds: undefined,
  closing: false,
  ...fields
})

const start: Machine.Input = { _tag: "Start" }
const connected = (link = 1): Machine.Input => ({ _tag: "Connected", link })
const welcomed = (link = 1): Machine.Input => ({ _tag: "Welcomed", link, beatMillis: 60_000 })
const accepted = (link = 1): Machine.Input => ({ _tag: "Accepted", link })
const lost = (link = 1): Machine.Input => ({ _tag: "Lost", link, reason: "cut" })
const refused = (fields: Partial<Machine.Refusal>, link = 1): Machine.Input => ({
  _tag: "Refused",
  link,
  refusal: refusal(fields)
})
const drain = (link = 1): Machine.Input => ({ _tag: "Drain", link, withinMillis: 10_000 })
const due = (name: Machine.Timer["name"], link = 1): Machine.Input => ({
  _tag: "Due",
  timer: name === "attempt" || name === "successor" ? { name } : { name, link }
})
const changed: Machine.Input = { _tag: "Changed" }
const release: Machine.Input = { _tag: "Release" }
const close: Machine.Input = { _tag: "Close" }
const woke: Machine.Input = { _tag: "Woke" }
const online = [start, connected(), welcomed(), accepted()]

/** Where the inputs lead to, and what the last one sets off. Clearing of timers is left out unless asked for. */
const run = (inputs: ReadonlyArray<Machine.Input>, random = 0.5, clears = false) => {
  let step: Machine.Step = { model: Machine.initial, actions: [] }
  for (const input of inputs) step = Machine.transition(step.model, input, settings, random)
  const said = step.actions.map(say).filter((text) => clears || !text.startsWith("clear "))
  return { model: step.model, state: Machine.stateOf(step.model), said }
}

describe("Machine", () => {
  it.each<[string, ReadonlyArray<Machine.Input>, string, ReadonlyArray<string>]>([
    ["starts with a connection at once", [start], "connecting", ["open 1", "set answer:1 10000"]],
    ["starts once", [start, start], "connecting", []],
    ["lets the server prove itself once connected", [start, connected()], "handshaking", ["set answer:1 5000"]],
    [
      "asks for the name once welcomed",
      [start, connected(), welcomed()],
      "registering",
      ["register 1 @1", "set answer:1 5000"]
    ],
    ["is online once accepted, and beats", online, "online", ["tell connected 1", "set beat:1 45000"]],
    ["beats when it is time", [...online, due("beat")], "online", ["beat 1", "set answer:1 5000"]],
    [
      "waits for the next beat when one is answered",
      [...online, due("beat"), { _tag: "BeatAnswered", link: 1 }],
      "online",
      ["set beat:1 57000"]
    ],
    [
      "takes a beat without an answer for a lost connection",
      [...online, due("beat"), due("answer")],
      "waiting",
      ["tell disconnected 1 1 500", "reset 1", "set attempt 500"]
    ],
    [
      "takes a handshake without an answer for a lost connection",
      [start, connected(), due("answer")],
      "waiting",
      ["tell disconnected 1 1 500", "reset 1", "set attempt 500"]
    ],
    [
      "goes where it is redirected to at once",
      [start, connected(), { _tag: "Redirected", link: 1 }],
      "connecting",
      ["disconnect 1", "open 2", "set answer:2 10000"]
    ],
    [
      "spreads the first attempt after a loss",
      [...online, lost()],
      "waiting",
      ["tell disconnected 1 1 500", "disconnect 1", "set attempt 500"]
    ],
    ["tries again when it is time", [start, lost(), due("attempt")], "connecting", ["open 2", "set answer:2 10000"]],
    [
      "waits longer with each failure",
      [start, lost(), due("attempt"), lost(2), due("attempt"), lost(3)],
      "waiting",
      ["tell disconnected 3 3 2000", "disconnect 3", "set attempt 2000"]
    ],
    ["passes over what a link says that is gone", [...online, lost(), accepted(), lost(), drain()], "waiting", []],
    [
      "registers anew after a restart of the server",
      [...online, lost(), due("attempt"), connected(2), welcomed(2)],
      "registering",
      ["register 2 @1", "set answer:2 5000"]
    ],
    [
      "waits as long as the server asks, and the jitter on top",
      [start, connected(), refused({ of: "handshake", retryable: true, retryAfterSeconds: 7, closing: true })],
      "waiting",
      ["tell disconnected 1 1 7500", "disconnect 1", "set attempt 7500"]
    ],
    [
      "waits as long as a server asks that turns the connection away",
      [start, { _tag: "Lost", link: 1, reason: "it is full", retryAfterSeconds: 5 }],
      "waiting",
      ["tell disconnected 1 1 5500", "disconnect 1", "set attempt 5500"]
    ],
    [
      "asks again on the same connection where a name is refused for now",
      [start, connected(), welcomed(), refused({ retryable: true, retryAfterSeconds: 3 })],
      "registering",
      ["set again:1 3500"]
    ],
    [
      "and does so when it is time",
      [start, connected(), welcomed(), refused({ retryable: true }), due("again")],
      "registering",
      ["register 1 @1", "set answer:1 5000"]
    ],
    [
      "ends where no retry helps",
      [start, connected(), welcomed(), refused({ code: "hostname-taken" })],
      "refused",
      ["disconnect 1", "end refused hostname-taken"]
    ],
    [
      "ends where the handshake is refused for good",
      [start, connected(), refused({ of: "handshake", code: "token-expired", closing: true })],
      "refused",
      ["disconnect 1", "end refused token-expired"]
    ],
    [
      "ends where its identity is revoked in a live session",
      [...online, refused({ of: "session", code: "identity-revoked", closing: true })],
      "refused",
      ["disconnect 1", "end refused identity-revoked"]
    ],
    [
      "registers again within a second where the lease is not known",
      [...online, { _tag: "LeaseUnknown", link: 1 }],
      "registering",
      ["set again:1 500"]
    ],
    [
      "registers again on the same connection then",
      [...online, { _tag: "LeaseUnknown", link: 1 }, due("again")],
      "registering",
      ["register 1 @1", "set answer:1 5000"]
    ],
    ["keeps its connection while the server drains", [...online, drain()], "draining", ["set successor 5000"]],
    [
      "beats on while the server drains",
      [...online, drain(), due("beat")],
      "draining",
      ["beat 1", "set answer:1 5000"]
    ],
    [
      "finds another server within the time it has",
      [...online, drain(), due("successor")],
      "draining",
      ["open 2", "set answer:2 10000"]
    ],
    [
      "leaves the old server only when the new one has accepted",
      [...online, drain(), due("successor"), connected(2), welcomed(2), accepted(2)],
      "online",
      ["tell connected 2", "set beat:2 45000", "disconnect 1"]
    ],
    [
      "stays with the old server while the new one cannot be had",
      [...online, drain(), due("successor"), lost(2)],
      "draining",
      ["tell disconnected 2 1 500", "disconnect 2", "set successor 500"]
    ],
    [
      "stays with the old server though the new one refuses for good",
      [...online, drain(), due("successor"), connected(2), refused({ of: "handshake", closing: true }, 2)],
      "draining",
      ["tell disconnected 2 1 500", "disconnect 2", "set successor 500"]
    ],
    [
      "goes on with the new connection where the old one ends early",
      [...online, drain(), due("successor"), connected(2), lost()],
      "handshaking",
      ["tell disconnected 1 1 undefined", "disconnect 1"]
    ],
    [
      "waits for an attempt where the old one ends before there is a new one",
      [...online, drain(), lost()],
      "waiting",
      ["tell disconnected 1 1 500", "disconnect 1", "set attempt 500"]
    ],
    ["tells a change at once", [...online, changed], "online", ["update 1 @2", "set answer:1 5000"]],
    ["tells one change at a time", [...online, changed, changed], "online", []],
    [
      "tells what came up meanwhile when the first is accepted",
      [...online, changed, changed, accepted()],
      "online",
      ["update 1 @3", "set answer:1 5000"]
    ],
    [
      "registers with a change that was under way when the connection ended",
      [...online, changed, lost(), due("attempt"), connected(2), welcomed(2)],
      "registering",
      ["register 2 @2", "set answer:2 5000"]
    ],
    ["takes a refused change back", [...online, changed, refused({ code: "no" })], "online", ["revert no"]],
    [
      "takes a change back that is refused after a reconnect, and registers as before",
      [...online, changed, lost(), due("attempt"), connected(2), welcomed(2), refused({ code: "no" }, 2)],
      "registering",
      ["revert no", "register 2 @1", "set answer:2 5000"]
    ],
    [
      "tells a change again that is refused for now",
      [...online, changed, refused({ retryable: true }), due("again")],
      "online",
      ["update 1 @2", "set answer:1 5000"]
    ],
    [
      "registers nothing elsewhere while the old server has not answered",
      [...online, drain(), changed, due("successor"), connected(2), welcomed(2)],
      "draining",
      ["set answer:2 1000"]
    ],
    [
      "waits for the old server no longer than a moment, takes back what was said there, and registers with the new one",
      [...online, drain(), changed, due("successor"), connected(2), welcomed(2), due("answer", 2)],
      "registering",
      ["tell disconnected 1 1 undefined", "reset 1", "register 2 @2", "set answer:2 5000"]
    ],
    [
      "registers with the new server once the old one has answered, and tells it all that came up since",
      [...online, drain(), changed, due("successor"), connected(2), welcomed(2), changed, accepted()],
      "draining",
      ["register 2 @3", "set answer:2 5000"]
    ],
    [
      "registers with the new server what the old one does not take now",
      [...online, drain(), changed, due("successor"), connected(2), welcomed(2), refused({ retryable: true })],
      "draining",
      ["set again:1 500", "register 2 @2", "set answer:2 5000"]
    ],
    [
      "registers with the new server once the old one is silent for too long, and takes back what was said there",
      [...online, drain(), changed, due("successor"), connected(2), welcomed(2), due("answer")],
      "registering",
      ["tell disconnected 1 1 undefined", "reset 1", "register 2 @2", "set answer:2 5000"]
    ],
    [
      "tells nothing to the old server while the new one registers",
      [...online, drain(), due("successor"), connected(2), welcomed(2), changed, release],
      "draining",
      []
    ],
    [
      "tells the new server what came up while it registered",
      [...online, drain(), due("successor"), connected(2), welcomed(2), changed, accepted(2)],
      "online",
      ["tell connected 2", "set beat:2 45000", "disconnect 1", "update 2 @2", "set answer:2 5000"]
    ],
    [
      "tells the old server what came up where the new one is lost before it has accepted",
      [...online, drain(), due("successor"), connected(2), welcomed(2), changed, lost(2)],
      "draining",
      ["tell disconnected 2 1 500", "disconnect 2", "set successor 500", "update 1 @2", "set answer:1 5000"]
    ],
    [
      "gives the name up at the new server once the old one has answered",
      [...online, drain(), changed, due("successor"), connected(2), welcomed(2), release, accepted(), accepted(2)],
      "online",
      ["tell connected 2", "set beat:2 45000", "disconnect 1", "release 2", "set answer:2 5000"]
    ],
    [
      "takes back a registration that is not answered in time where the name is given up meanwhile",
      [start, connected(), welcomed(), release, due("answer")],
      "released",
      ["reset 1", "end released"]
    ],
    ["gives the name up at once when it is online", [...online, release], "online", ["release 1", "set answer:1 5000"]],
    [
      "is released when the server says so",
      [...online, release, { _tag: "Released", link: 1 }],
      "released",
      ["disconnect 1", "end released"]
    ],
    ["gives nothing up that was never asked for", [start, release], "released", ["disconnect 1", "end released"]],
    ["looks for a server soon to give the name up", [...online, lost(), release], "waiting", ["set attempt 500"]],
    [
      "gives the name up once it is connected again",
      [...online, lost(), release, due("attempt"), connected(2), welcomed(2), accepted(2)],
      "online",
      ["tell connected 2", "set beat:2 45000", "release 2", "set answer:2 5000"]
    ],
    [
      "waits for the answer to its first registration before it gives the name up",
      [start, connected(), welcomed(), release],
      "registering",
      []
    ],
    [
      "counts a name as given up that is not its own any more",
      [...online, release, refused({ of: "release", code: "host-unknown" })],
      "released",
      ["disconnect 1", "end released"]
    ],
    [
      "counts a name as given up that somebody else has by now",
      [
        ...online,
        lost(),
        release,
        due("attempt"),
        connected(2),
        welcomed(2),
        refused({ code: "hostname-taken", retryable: true, retryAfterSeconds: 60 }, 2)
      ],
      "released",
      ["disconnect 2", "end released"]
    ],
    ["closes without a word", [...online, close], "closed", ["disconnect 1", "end closed"]],
    ["closes while it waits", [...online, lost(), close], "closed", ["end closed"]],
    [
      "closes both connections of a hand-over",
      [...online, drain(), due("successor"), close],
      "closed",
      ["disconnect 1", "disconnect 2", "end closed"]
    ],
    ["beats at once after a sleep", [...online, woke], "online", ["beat 1", "set answer:1 5000"]],
    ["ends a wait soon after a sleep", [...online, lost(), woke], "waiting", ["set attempt 500"]],
    ["takes nothing more once it is over", [...online, close, start, changed, release, woke], "closed", []]
  ])("%s", (_, inputs, state, said) => {
    const seen = run(inputs)
    assert.deepStrictEqual(
      { state: seen.state, said: seen.said },
      { state: state as typeof seen.state, said: [...said] }
    )
  })

  it("waits half a beat at the most, so that a server that is back has everyone within one", () => {
    let { model } = run(online)
    model = { ...model, beatMillis: 10_000 }
    for (let failures = 1; failures <= 20; failures++) {
      const link = model.current!.id
      const step = Machine.transition(model, lost(link), settings, 0.999_999)
      const wait = step.actions.find((action) => action._tag === "Set" && action.timer.name === "attempt")
      assert.isAtMost(wait?._tag === "Set" ? wait.millis : Number.NaN, 5000)
      model = Machine.transition(step.model, due("attempt"), settings, 0.5).model
    }
  })

  it("of a random run of anything that can happen, one connection counts, something is always due, and the end is the end", () => {
    // A generator of its own, so that a failing run can be run again.
    let seed = 42
    const random = () => {
      seed = (Math.imul(seed, 1_664_525) + 1_013_904_223) >>> 0
      return seed / 2 ** 32
    }
    const pick = <A>(all: ReadonlyArray<A>): A => all[Math.floor(random() * all.length)]!
    for (let round = 0; round < 300; round++) {
      let model = Machine.transition(Machine.initial, start, settings, random()).model
      const open = new Set([1])
      const timers = new Map<string, Machine.Timer>([["answer:1", { name: "answer", link: 1 }]])
      const key = (timer: Machine.Timer) => ("link" in timer ? `${timer.name}:${timer.link}` : timer.name)
      for (let i = 0; i < 200; i++) {
        const link = pick([model.current?.id ?? 0, model.next?.id ?? 0, model.links])
        const input = pick<Machine.Input>([
          connected(link),
          welcomed(link),
          welcomed(link),
          accepted(link),
          accepted(link),
          lost(link),
          { _tag: "Redirected", link },
          drain(link),
          changed,
          woke,
          { _tag: "Due", timer: pick([...timers.values()]) },
          { _tag: "Due", timer: pick([...timers.values()]) },
          { _tag: "BeatAnswered", link },
          { _tag: "LeaseUnknown", link },
          { _tag: "Released", link },
          refused(
            { of: pick(["handshake", "wish", "beat"]), retryable: random() < 0.9, closing: random() < 0.5 },
            link
          ),
          ...(random() < 0.02 ? [release, close] : [])
        ])
        if (input._tag === "Due") {
          if (input.timer === undefined) continue
          timers.delete(key(input.timer))
        }
        const before = model
        const step = Machine.transition(model, input, settings, random())
        model = step.model
        for (const action of step.actions) {
          if (action._tag === "Set") timers.set(key(action.timer), action.timer)
          if (action._tag === "Clear") timers.delete(key(action.timer))
          if (action._tag === "Open") open.add(action.link)
          if (action._tag === "Disconnect") assert.isTrue(open.delete(action.link), "closes what is open, once")
          if (action._tag === "Register" || action._tag === "Update" || action._tag === "Beat") {
            assert.isTrue(open.has(action.link), "speaks on what is open")
          }
          if (action._tag === "Register" || action._tag === "Update" || action._tag === "Release") {
            const other = [model.current, model.next].find((each) => each !== undefined && each.id !== action.link)
            assert.isTrue(other?.telling === undefined && other?.releasing !== true, "asks one server at a time")
          }
        }
        const links = [model.current, model.next].flatMap((each) => (each === undefined ? [] : [each.id]))
        assert.sameMembers([...open], links, "what is open is what is known")
        assert.isAtMost(model.held, model.wanted)
        if (before.phase !== "active") assert.strictEqual(model, before)
        const { current, draining, next, phase } = model
        if (phase !== "active") {
          assert.deepStrictEqual([...timers.keys()], [])
          continue
        }
        if (current === undefined) {
          assert.isUndefined(next, "a successor without a predecessor takes its place")
          assert.isTrue(timers.has("attempt"))
          continue
        }
        if (draining && next === undefined) assert.isTrue(timers.has("successor"))
        for (const { beating, id, stage, telling } of next === undefined ? [current] : [current, next]) {
          const isDue = (name: string) => timers.has(`${name}:${id}`)
          assert.isTrue(isDue("answer") || isDue("again") || (stage === "ready" && isDue("beat")), `${stage} of ${id}`)
          if (beating || (telling !== undefined && stage !== "connecting")) assert.isTrue(isDue("answer"))
        }
      }
    }
  })
})
