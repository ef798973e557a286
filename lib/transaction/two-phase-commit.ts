/**
 * The commit of one attempt over all its resources, in one function: the only place where the order of phases is
 * decided (the contract is resource.ts). Source: J. Gray, "Notes on Data Base Operating Systems", 1978; the one-phase
 * resource committing last is the "last resource" optimisation. Knows nothing of retries, sessions, databases or HTTP.
 */
import { attachError, isSessionTxError, SessionTxError } from '../errors.js'
import type { Interrupt } from './interrupt.js'
import {
  isPending,
  type MaybePromise,
  type OnePhaseResource,
  type Resource,
  type TwoPhaseResource,
} from './resource.js'

/** Three outcomes that a caller must treat differently. `error` says why it is not `committed`. */
export type Outcome =
  | { readonly kind: 'committed'; readonly lateErrors: readonly unknown[] }
  | { readonly kind: 'rolledBack'; readonly error: unknown }
  | { readonly kind: 'unknown'; readonly error: SessionTxError }

/** Bounds on the phases in which giving up early would be wrong, in milliseconds. */
export const PATIENCE = Object.freeze({ commitMsMin: 2_000, rollbackMsMax: 3_000 })

export interface CommitLimits {
  readonly interrupt: Interrupt
  /** Rejects with what `timeout` returns when `work` takes longer than `limitMs`. */
  within<T>(work: Promise<T>, limitMs: number, timeout: () => Error): Promise<T>
  now(): number
  readonly transactionId: () => string
}

/** Commits, or rolls back everything. Never throws. */
export async function twoPhaseCommit(resources: readonly Resource[], limits: CommitLimits): Promise<Outcome> {
  let decider: OnePhaseResource | undefined
  const promisers: TwoPhaseResource[] = []
  for (const resource of resources) {
    if (resource.phases === 1) decider = resource
    else promisers.push(resource)
  }
  try {
    // Awaited only where there is something to wait for: an `await` of nothing makes two promises all the same.
    for (const resource of resources) {
      const settling = untilInterrupt(resource.settle?.(), limits)
      if (settling !== undefined) await settling
    }
    for (const resource of promisers) {
      const preparing = untilInterrupt(resource.prepare(), limits)
      if (preparing !== undefined) await preparing
    }
    if (limits.interrupt.reason !== undefined) throw limits.interrupt.reason
    if (decider !== undefined) await untilAnswered(decider.commit(), limits, () => decider.abandon?.())
  } catch (error) {
    const unknown = isSessionTxError(error) && error.code === 'COMMIT_UNKNOWN'
    await rollbackAll(unknown ? promisers : resources, error, limits)
    return unknown ? { kind: 'unknown', error } : { kind: 'rolledBack', error }
  }
  const lateErrors: unknown[] = []
  for (const resource of promisers) {
    try {
      const installing = untilAnswered(resource.commit(), limits)
      if (installing !== undefined) await installing
    } catch (error) {
      lateErrors.push(error)
    }
  }
  for (const resource of promisers) {
    try {
      resource.release?.()
    } catch (error) {
      lateErrors.push(error) // it broke its promise; the decision stands, and the others let go all the same
    }
  }
  return { kind: 'committed', lateErrors }
}

/**
 * Undoes every resource, the last enlisted first; what fails is attached to the error that made it necessary. False if
 * anything failed.
 */
export async function rollbackAll(
  resources: readonly Resource[],
  reason: unknown,
  limits: CommitLimits,
): Promise<boolean> {
  let undone = true
  for (const resource of resources.toReversed()) {
    try {
      const work = resource.rollback()
      if (!isPending(work)) continue
      const timeout = () =>
        new Error(`rollback of '${resource.name}' took longer than ${PATIENCE.rollbackMsMax} ms`)
      await limits.within(work, PATIENCE.rollbackMsMax, timeout)
    } catch (error) {
      undone = false
      attachError(reason, error)
    }
  }
  return undone
}

/** Undefined where there is nothing to wait for, as in most phases of most commits. */
function untilInterrupt(
  work: MaybePromise<void> | undefined,
  limits: CommitLimits,
): Promise<void> | undefined {
  return work !== undefined && isPending(work) ? limits.interrupt.race(work) : undefined
}

/** A decision that is on its way is not cancelled by a deadline that passes meanwhile; it is only not waited for forever. */
function untilAnswered(
  work: MaybePromise<void>,
  limits: CommitLimits,
  abandon?: () => void,
): Promise<void> | undefined {
  if (!isPending(work)) return undefined
  const leftMs = limits.interrupt.deadlineAt - limits.now()
  const limitMs = Math.max(leftMs, PATIENCE.commitMsMin)
  return limits.within(work, limitMs, () => {
    const transactionId = limits.transactionId()
    const message = `COMMIT was not answered within ${Math.round(limitMs)} ms (transaction ${transactionId})`
    const unknown = new SessionTxError('COMMIT_UNKNOWN', message, { transactionId })
    try {
      abandon?.()
    } catch (error) {
      attachError(unknown, error) // thrown further, it would end the process: this is called by a timer
    }
    return unknown
  })
}
