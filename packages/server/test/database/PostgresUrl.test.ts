import { assert, describe, it } from "@effect/vitest"
import { Redacted, Result } from "effect"
import * as PostgresUrl from "../../src/database/PostgresUrl.ts"

const good = (text: string) => {
  const { hosts, url } = Result.getOrThrow(PostgresUrl.parse(text))
  return { hosts: hosts.map(PostgresUrl.nameOf), url: Redacted.value(url) }
}
const problem = (text: string) => Result.getOrThrow(Result.flip(PostgresUrl.parse(text)))

describe("the address of a PostgreSQL database", () => {
  it("of one server stays as it was written", () => {
    for (const [text, host] of [
      ["postgres://prism@db.example.net/prism", "db.example.net:5432"],
      ["postgresql://prism:p%40ss@db:6432/prism?sslmode=require", "db:6432"],
      ["postgres://prism@[2001:db8::1]:5433/prism", "[2001:db8::1]:5433"],
      ["postgres://localhost/prism?host=/run/postgresql", "/run/postgresql:5432"],
      ["postgres:///prism?host=/run/postgresql&port=5433", "/run/postgresql:5433"],
      ["postgres:///prism", "localhost:5432"],
      ["postgres://db/prism?target_session_attrs=any", "db:5432"]
    ] as const) {
      assert.deepStrictEqual(good(text), { hosts: [host], url: text })
    }
  })

  it("of several servers names each, with what is the same for all", () => {
    assert.deepStrictEqual(good("postgres://u:a@b:c@one:5433,two/prism?sslmode=verify-full"), {
      hosts: ["one:5433", "two:5432"],
      url: "postgres://u:a@b:c@one:5433/prism?sslmode=verify-full"
    })
    assert.deepStrictEqual(
      good("postgres://prism@[::1]:5433,[2001:db8::2]/prism?target_session_attrs=read-write&application_name=x"),
      { hosts: ["[::1]:5433", "[2001:db8::2]:5432"], url: "postgres://prism@[::1]:5433/prism?application_name=x" }
    )
    assert.deepStrictEqual(good("postgres://prism@/db?host=one,two,three&port=6432").hosts, [
      "one:6432",
      "two:6432",
      "three:6432"
    ])
    assert.deepStrictEqual(good("postgres:///db?host=/run/a,two&port=1,2"), {
      hosts: ["/run/a:1", "two:2"],
      url: "postgres://localhost/db?host=%2Frun%2Fa&port=1"
    })
  })

  it("that cannot be followed is refused, in words without its password", () => {
    const none = "has a port that is none (a / or @ in the password is written %2F, %40)"
    for (const [text, words] of [
      ["postgres://u:secret@a:1,b:99999/db", none],
      ["postgres://u:secret@a:x/db", none],
      ["postgres://u:secret@a:1:2/db", none],
      ["postgres://u:sec/ret@a/db", none],
      ["postgres://u:secret@[::1,b/db", "has a host that is none"],
      ["postgres://u:secret@a,a:5432/db", "names a:5432 twice"],
      ["postgres://u:secret@/db?host=a,b&port=1,2,3", "names 2 hosts and 3 ports"],
      ["postgres://u:secret@a,b,c,d,e,f,g,h,i/db", "names 9 hosts, more than 8"],
      [
        "postgres://u:secret@a,b/db?target_session_attrs=any",
        "has target_session_attrs=any, but the registry is written: leave it out, or make it read-write"
      ]
    ] as const) {
      assert.strictEqual(problem(text), words)
    }
  })
})
