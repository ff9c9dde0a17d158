/**
 * Gives this process a name in Prism DNS.
 *
 * `register` asks for the name and keeps it while the process lives: through
 * restarts of the server, a network that comes and goes, and a machine that
 * sleeps. What happens to it comes as events.
 *
 * Importing this costs next to nothing: the engine is loaded by the first
 * `register`. The same for programs on Effect: `@prism-dns/client-sdk/effect`.
 */
import type { RegisterOptions, Registration } from "./Registration.ts"

export {
  type AddressChanged,
  type AgentOptions,
  type Changes,
  type Connected,
  type Disconnected,
  type EventName,
  type Events,
  type InterfaceOptions,
  type Level,
  type Logger,
  type Notice,
  type Parked,
  type Reached,
  RegistrationFailed,
  type Snapshot,
  type StateChanged,
  type StateName,
  type Timing,
  type TlsOptions
} from "./Options.ts"
export type {
  RegisterOptions,
  Registration,
  ReleaseOptions,
  Signal,
  UpdateOptions,
  WaitOptions
} from "./Registration.ts"

/**
 * Registers this process and keeps its name. Resolves when the name has come to `waitFor`; a server that cannot be
 * reached is tried until it can be. Rejects with `RegistrationFailed` when asking again does not help.
 */
export const register = async (options: RegisterOptions): Promise<Registration> => {
  const engine = await import("./Registration.ts")
  return await engine.register(options)
}
