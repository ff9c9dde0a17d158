/** Problems as they stand within an answer, where one of many things was refused. */
import * as Problems from "@prism-dns/core/api/Problems"
import { Schema } from "effect"
import type { Refusal } from "./HostRequests.ts"

/** A problem's body, as `application/problem+json` has it. */
export interface ProblemBody {
  readonly type: string
  readonly title: string
  readonly status: number
  readonly detail: string
  readonly [more: string]: unknown
}

const encoders = {
  RequestInvalid: Schema.encodeSync(Problems.RequestInvalidProblem),
  Forbidden: Schema.encodeSync(Problems.ForbiddenProblem),
  HostNotFound: Schema.encodeSync(Problems.HostNotFoundProblem),
  HostRetired: Schema.encodeSync(Problems.HostRetiredProblem),
  HostnameTaken: Schema.encodeSync(Problems.HostnameTakenProblem),
  QuotaExceeded: Schema.encodeSync(Problems.QuotaExceededProblem),
  ClaimRefused: Schema.encodeSync(Problems.ClaimRefusedProblem),
  PreconditionFailed: Schema.encodeSync(Problems.PreconditionFailedProblem),
  StorageUnavailable: Schema.encodeSync(Problems.StorageUnavailableProblem)
} as const

export const toProblem = (refusal: Refusal): ProblemBody => {
  const encode = encoders[refusal._tag] as (refusal: Refusal) => ProblemBody
  return encode(refusal)
}
