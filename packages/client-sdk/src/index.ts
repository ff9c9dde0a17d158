/**
 * Gives this process's machine a name in Prism DNS.
 *
 * `register` says once, by protocol 1.0, "this host is here, under this name";
 * the server publishes the address the connection came from. A registration is
 * also the heartbeat: say it again within the server's lease (by default each
 * 60 s) to keep the name.
 */
export { register, type Registration, RegistrationFailed, type RegisterOptions } from "./Registration.ts"
