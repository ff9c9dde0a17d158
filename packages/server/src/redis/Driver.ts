/**
 * What is used of the package `redis`, in a module of ours: `redis` is CommonJS,
 * whose names a bundle gives to a module that imports them by name, and not to
 * one that imports all of it when it is needed.
 */
export { createClient } from "redis"
