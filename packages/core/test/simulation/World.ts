/**
 * Time, and the order of everything that happens, in one thread and by dice.
 *
 * Whatever is ready at the same moment runs in an order that the dice say;
 * when nothing is ready, time goes to the next timer. Work belongs to a `Life`,
 * one run of a process, or to nobody (the network, other machines, people): a
 * life that ends takes all of its work with it, without a finalizer and at any
 * point, as `kill -9` does; one that is paused finds its work when it wakes.
 *
 * Promises: reads no clock and no randomness of the machine. Leaves to others:
 * what the processes are.
 */
import { Clock, Context, Duration, Effect, Logger, Random, References, Scheduler } from "effect"
import type { LogLevel } from "effect"
import type { Dice } from "./Dice.ts"

/** One run of a process, from its start to its end. */
export interface Life {
  readonly name: string
  alive: boolean
  /** What it would have done since it was paused; undefined while it runs. */
  held: Array<() => void> | undefined
  /** How far its clock is off, in milliseconds. */
  clockOffsetMillis: number
}

interface Task {
  readonly life: Life | undefined
  readonly run: () => void
}

interface Timer extends Task {
  readonly atMillis: number
  readonly order: number
  cancelled: boolean
}

/** A moment has more to do than anything sensible could: something goes round and round. */
export class Spinning extends Error {}

/** Tasks in one moment at the most. */
const tasksMax = 200_000

/** Lines of a trace that are kept. */
const linesMax = 20_000

export interface WorldOptions {
  readonly dice: Dice
  /** Ready work in the order it came, or in any. */
  readonly order: "fifo" | "any"
  /** How likely a fiber gives way after any one step, as it does in production after 2048 of them. */
  readonly preemption: number
  readonly startMillis: number
}

export class World {
  readonly #dice: Dice
  readonly #options: WorldOptions
  readonly #ready: Array<Task> = []
  readonly #timers: Array<Timer> = []
  readonly #lines: Array<string> = []
  #order = 0
  nowMillis: number
  /** Called with what a life logs of a fault of its own. */
  onDefect: (text: string) => void = () => undefined

  constructor(options: WorldOptions) {
    this.#dice = options.dice
    this.#options = options
    this.nowMillis = options.startMillis
  }

  /** Adds a line to the trace, with the time since the start. */
  say(line: string): void {
    if (this.#lines.length >= linesMax) this.#lines.splice(0, linesMax >> 1, "(earlier lines are left out)")
    this.#lines.push(`${((this.nowMillis - this.#options.startMillis) / 1000).toFixed(3).padStart(10)} ${line}`)
  }

  get lines(): ReadonlyArray<string> {
    return this.#lines
  }

  /** Runs `run` now, after what else is to be done now or before it. */
  soon(life: Life | undefined, run: () => void): void {
    if (life?.alive !== false) this.#ready.push({ life, run })
  }

  /** Runs `run` in `millis`; returns what calls it off. */
  after(millis: number, life: Life | undefined, run: () => void): () => void {
    const timer: Timer = {
      life,
      run,
      atMillis: this.nowMillis + Math.max(0, Math.trunc(millis)),
      order: this.#order++,
      cancelled: false
    }
    this.#push(timer)
    return () => {
      timer.cancelled = true
    }
  }

  /** Goes on until nothing is left to do before `untilMillis`, and that is the time. */
  run(untilMillis: number): void {
    let tasks = 0
    while (true) {
      const task = this.#nextReady()
      if (task !== undefined) {
        if (++tasks > tasksMax) throw new Spinning(`more than ${tasksMax} steps at one moment`)
        this.#perform(task)
        continue
      }
      const first = this.#timers[0]
      if (first === undefined || first.atMillis > untilMillis) {
        this.nowMillis = untilMillis
        return
      }
      if (first.atMillis > this.nowMillis) tasks = 0
      this.nowMillis = first.atMillis
      while (this.#timers[0] !== undefined && this.#timers[0].atMillis <= this.nowMillis) {
        const timer = this.#pop()
        if (!timer.cancelled) {
          this.#ready.push({ life: timer.life, run: () => (timer.cancelled ? undefined : timer.run()) })
        }
      }
    }
  }

  #nextReady(): Task | undefined {
    const ready = this.#ready
    if (ready.length === 0) return undefined
    if (this.#options.order === "fifo") return ready.shift()
    const index = ready.length === 1 ? 0 : this.#dice.int(ready.length)
    const task = ready[index]!
    const last = ready.pop()!
    if (index < ready.length) ready[index] = last
    return task
  }

  #perform({ life, run }: Task): void {
    if (life === undefined) return run()
    if (!life.alive) return
    if (life.held === undefined) return run()
    life.held.push(run)
  }

  /** Nothing of `life` happens from now on until it is woken. */
  pause(life: Life): void {
    life.held ??= []
  }

  wake(life: Life): void {
    const held = life.held ?? []
    life.held = undefined
    for (const run of held) this.soon(life, run)
  }

  /** What a fiber of `life` gets from the machine: time, order, chance, a place to log to. */
  servicesFor(life: Life): Context.Context<never> {
    return Context.empty().pipe(
      Context.add(Scheduler.Scheduler, this.#schedulerFor(life)),
      Context.add(Clock.Clock, this.clockFor(life)),
      Context.add(Random.Random, {
        nextDoubleUnsafe: () => this.#dice.next(),
        nextIntUnsafe: () => Math.floor((this.#dice.next() - 0.5) * 2 * Number.MAX_SAFE_INTEGER)
      }),
      Context.add(References.TracerEnabled, false),
      Context.add(References.MinimumLogLevel, "Info" satisfies LogLevel.LogLevel),
      Context.add(Logger.CurrentLoggers, new Set([this.#loggerFor(life)]))
    )
  }

  #schedulerFor(life: Life): Scheduler.Scheduler {
    const { preemption } = this.#options
    const dispatcher: Scheduler.SchedulerDispatcher = {
      scheduleTask: (task) => this.soon(life, task),
      flush: () => undefined
    }
    return {
      executionMode: "async",
      shouldYield: (fiber) => fiber.currentOpCount >= 2048 || (preemption > 0 && this.#dice.chance(preemption)),
      makeDispatcher: () => dispatcher
    }
  }

  /** The clock of a life. Sleeps are rounded up to `coarseMillis`: a loop that ticks for nothing costs a simulation most. */
  clockFor(life: Life, coarseMillis = 1): Clock.Clock {
    const millis = () => this.nowMillis + life.clockOffsetMillis
    const nanos = () => BigInt(millis()) * 1_000_000n
    const monotonicNanos = () => BigInt(this.nowMillis) * 1_000_000n
    return {
      currentTimeMillisUnsafe: millis,
      currentTimeMillis: Effect.sync(millis),
      currentTimeNanosUnsafe: nanos,
      currentTimeNanos: Effect.sync(nanos),
      monotonicTimeNanosUnsafe: monotonicNanos,
      monotonicTimeNanos: Effect.sync(monotonicNanos),
      sleep: (duration) => {
        const wanted = Duration.toMillis(duration)
        if (wanted <= 0) return Effect.yieldNow
        if (!Number.isFinite(wanted)) return Effect.never
        return Effect.callback<void>((resume) => {
          const cancel = this.after(Math.max(coarseMillis, wanted), life, () => resume(Effect.void))
          return Effect.sync(cancel)
        })
      }
    }
  }

  #loggerFor(life: Life): Logger.Logger<unknown, void> {
    return Logger.make(({ cause, fiber, logLevel, message }) => {
      const notes = Object.entries(fiber.getRef(References.CurrentLogAnnotations))
        .map(([key, value]) => ` ${key}=${String(value)}`)
        .join("")
      const text = Array.isArray(message) ? message.map(String).join(" ") : String(message)
      const why = cause.reasons.map((reason) => (reason._tag === "Die" ? ` (${String(reason.defect)})` : "")).join("")
      this.say(`${life.name}: ${logLevel.toLowerCase()}: ${text}${notes}${why}`)
      if (why !== "" || text.includes("fault of the server")) this.onDefect(`${text}${why}`)
    })
  }

  // A heap of timers, the earliest first, those of one moment in the order they were set.

  #push(timer: Timer): void {
    const heap = this.#timers
    let index = heap.length
    heap.push(timer)
    while (index > 0) {
      const parent = (index - 1) >> 1
      if (!isBefore(timer, heap[parent]!)) break
      heap[index] = heap[parent]!
      index = parent
    }
    heap[index] = timer
  }

  #pop(): Timer {
    const heap = this.#timers
    const first = heap[0]!
    const last = heap.pop()!
    if (heap.length === 0) return first
    let index = 0
    while (true) {
      let child = index * 2 + 1
      if (child >= heap.length) break
      if (child + 1 < heap.length && isBefore(heap[child + 1]!, heap[child]!)) child += 1
      if (!isBefore(heap[child]!, last)) break
      heap[index] = heap[child]!
      index = child
    }
    heap[index] = last
    return first
  }
}

const isBefore = (a: Timer, b: Timer): boolean =>
  a.atMillis < b.atMillis || (a.atMillis === b.atMillis && a.order < b.order)
