/** Where the HTTP side listens, once it does. */
import { Context } from "effect"

export class HttpAddress extends Context.Service<
  HttpAddress,
  {
    readonly host: string
    /** The real one, also when any free one was asked for. */
    readonly port: number
    /** For a client on this machine: `http://127.0.0.1:8081`. */
    readonly url: string
  }
>()("@prism-dns/server/http/HttpAddress") {}
