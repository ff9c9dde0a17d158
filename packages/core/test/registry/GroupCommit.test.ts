import { assert, describe, it } from "@effect/vitest"
import { Deferred, Effect, Exit, Scope } from "effect"
import { TestClock } from "effect/testing"
import * as GroupCommit from "@prism-dns/core/registry/GroupCommit"

const options: GroupCommit.GroupCommitOptions = {
  batchMax: 3,
  gatherMillisMax: 40,
  waitingMax: 4,
  answerMillisMax: 10_000
}

/** One that waits, and what it was told. */
class Asking implements GroupCommit.Waiting {
  readonly life = 1
  readonly told: Array<string> = []
  readonly name: string
  isHere = true
  constructor(name: string) {
    this.name = name
  }
  readonly isWanted = () => this.isHere
  readonly resume: GroupCommit.Waiting["resume"] = (result) => {
    this.told.push(result._tag === "Failure" ? result.failure.detail : "done")
  }
}

/** Commits that are under way until `go` lets one through, in the life that `life` says. */
const setUp = Effect.gen(function* () {
  const scope = yield* Scope.make()
  const begun: Array<Array<string>> = []
  const ends: Array<string> = []
  let gate = Deferred.makeUnsafe<void>()
  const server = { life: 1 }
  const cluster = { life: () => server.life, proven: Effect.succeed(true) }
  const commits = yield* GroupCommit.make<Asking>(options, cluster, (batch) =>
    batch
      .attempt(batch.waiting, (wanted, last) =>
        Effect.gen(function* () {
          begun.push(wanted.map(({ name }) => name))
          yield* Deferred.await(gate)
          yield* last
          ends.push("committed")
          for (const { told } of wanted) told.push("committed")
        })
      )
      .pipe(
        Effect.catch((error) =>
          Effect.sync(() => {
            ends.push(error._tag)
            GroupCommit.refuse(batch.waiting, error.message)
          })
        )
      )
  ).pipe(Scope.provide(scope))
  /** Until all that can go on without the clock or the gate has. */
  const settle = Effect.repeat(Effect.yieldNow, { times: 50 })
  const ask = (...names: ReadonlyArray<string>) =>
    Effect.gen(function* () {
      const asking = names.map((name) => new Asking(name))
      asking.forEach(commits.wait)
      yield* settle
      return asking
    })
  const go = Effect.suspend(() => {
    const opened = gate
    gate = Deferred.makeUnsafe()
    return Effect.andThen(Deferred.succeed(opened, undefined), settle)
  })
  return { ask, begun, close: Scope.close(scope, Exit.void), ends, go, server, settle }
})

describe("a group commit", () => {
  it.effect("takes who comes while one is under way into the next, as many as one may hold", () =>
    Effect.gen(function* () {
      const { ask, begun, go } = yield* setUp
      const [first] = yield* ask("a")
      const others = yield* ask("b", "c", "d", "e")
      assert.deepStrictEqual(begun, [["a"]])
      yield* go
      assert.deepStrictEqual(begun, [["a"], ["b", "c", "d"]])
      assert.deepStrictEqual(first!.told, ["committed"])
      yield* go
      yield* go
      assert.deepStrictEqual(begun, [["a"], ["b", "c", "d"], ["e"]])
      assert.deepStrictEqual(
        others.map(({ told }) => told),
        others.map(() => ["committed"])
      )
    })
  )

  it.effect("refuses at once who finds too many waiting", () =>
    Effect.gen(function* () {
      const { ask } = yield* setUp
      yield* ask("a")
      const waiting = yield* ask("b", "c", "d", "e", "f")
      assert.deepStrictEqual(
        waiting.map(({ told }) => told),
        [[], [], [], [], ["more than 4 registrations are waiting already"]]
      )
    })
  )

  it.effect("tells who waits, and who comes, that the database is silent, and undoes what it answers then", () =>
    Effect.gen(function* () {
      const { ask, ends, go } = yield* setUp
      const [first] = yield* ask("a")
      yield* TestClock.adjust(options.answerMillisMax)
      const [later] = yield* ask("b")
      yield* TestClock.adjust(1000)
      const silent = "the database has not answered for 10 s"
      assert.deepStrictEqual(first!.told[0], silent)
      assert.deepStrictEqual(later!.told, [silent])
      yield* go
      assert.deepStrictEqual(ends, ["RegistryUnavailable"])
      const [next] = yield* ask("c")
      yield* go
      assert.deepStrictEqual(next!.told, ["committed"])
    })
  )

  it.effect("leaves out who has gone before its turn; and is undone where one goes while it is slow", () =>
    Effect.gen(function* () {
      const { ask, begun, ends, go } = yield* setUp
      yield* ask("a")
      const [gone] = yield* ask("b", "c")
      gone!.isHere = false
      yield* go
      assert.deepStrictEqual(begun, [["a"], ["c"]])
      assert.deepStrictEqual(gone!.told, ["whoever asked has gone"])
      yield* go
      const [going] = yield* ask("d")
      going!.isHere = false
      yield* go
      assert.deepStrictEqual(ends, ["committed", "committed", "committed"])
      const [slow] = yield* ask("e")
      yield* TestClock.adjust(options.answerMillisMax / 2)
      slow!.isHere = false
      yield* go
      assert.deepStrictEqual(ends.at(-1), "Overtaken")
    })
  )

  it.effect("does nothing that was asked in a former life of the server", () =>
    Effect.gen(function* () {
      const { ask, begun, ends, go, server } = yield* setUp
      yield* ask("a")
      const [next] = yield* ask("b")
      server.life = 2
      yield* go
      assert.deepStrictEqual(ends, ["RegistryUnavailable"])
      assert.deepStrictEqual(begun, [["a"]])
      assert.deepStrictEqual(next!.told, ["this server was out of touch with the others; ask again"])
    })
  )

  it.effect("answers who waits when the server stops: what is under way first", () =>
    Effect.gen(function* () {
      const { ask, close, go, settle } = yield* setUp
      const [first] = yield* ask("a")
      const [waiting] = yield* ask("b")
      yield* Effect.forkChild(close)
      yield* settle
      yield* go
      assert.deepStrictEqual(first!.told, ["committed"])
      assert.deepStrictEqual(waiting!.told, ["the server is stopping"])
      const [late] = yield* ask("c")
      assert.deepStrictEqual(late!.told, ["the server is stopping"])
    })
  )
})
