/**
 * The commit of one attempt over all its resources, in one function: the only place where the order of phases is
 * decided (the contract is resource.ts). Source: J. Gray, "Notes on Data Base Operating Systems", 1978; the one-phase
 * resource committing last is the "last resource" optimisation. Knows nothing of retries, sessions, databases or HTTP.
 */
import { attachError, conflictError, isSessionTxError, SessionTxError } from '../errors.js'
import type { Interrupt } from './interrupt.js'
import {
  type Decider,
  type Found,
  isPending,
  type MaybePromise,
  type OnePhaseResource,
  type Resource,
  type TwoPhaseResource,
} from './resource.js'

/** How a decision that was in doubt ended, and how long that took to find out. */
export type Settled =
  | { readonly kind: 'committed'; readonly lateErrors: readonly unknown[]; readonly doubtMs: number }
  | { readonly kind: 'rolledBack' | 'unknown'; readonly error: SessionTxError; readonly doubtMs: number }

/**
 * Three outcomes that a caller must treat differently. `error` says why it is not `committed`; `doubtMs` is there if
 * the decision was in doubt. Of an `unknown` one, `settling` resolves when it is known after all; without it, or if
 * it says `unknown` as well, nobody will ever know.
 */
export type Outcome =
  | { readonly kind: 'committed'; readonly lateErrors: readonly unknown[]; readonly doubtMs?: number }
  | { readonly kind: 'rolledBack'; readonly error: unknown; readonly doubtMs?: number }
  | {
      readonly kind: 'unknown'
      readonly error: SessionTxError
      readonly doubtMs?: number
      readonly settling?: Promise<Settled>
    }

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
  let last: OnePhaseResource | undefined
  const promisers: TwoPhaseResource[] = []
  for (const resource of resources) {
    if (resource.phases === 1) last = resource
    else promisers.push(resource)
  }
  let decider: Decider | undefined = last
  let decisionSent = false
  try {
    // Awaited only where there is something to wait for: an `await` of nothing makes two promises all the same.
    for (const resource of resources) {
      const settling = untilInterrupt(resource.settle?.(), limits)
      if (settling !== undefined) await settling
    }
    const alone = last === undefined || last.decides?.() === false ? whoDecidesAlone(promisers) : undefined
    decider = alone?.decider ?? last
    for (const resource of promisers) {
      const preparing = resource === alone?.resource ? undefined : untilInterrupt(resource.prepare(), limits)
      if (preparing !== undefined) await preparing
    }
    if (limits.interrupt.reason !== undefined) throw limits.interrupt.reason
    decisionSent = true
    if (decider !== undefined) await untilAnswered(decider.commit(), limits, () => decider?.abandon?.())
  } catch (error) {
    if (decider === undefined || !decisionSent || !isUnknown(error)) {
      await rollbackAll(resources, error, limits)
      return { kind: 'rolledBack', error }
    }

    // In doubt. Whatever is found out, the promises are kept or taken back by it, now or later.
    if (decider !== last && last !== undefined) await rollbackAll([last], error, limits)
    const inDoubt = decider
    const askedAt = limits.now()
    const conclude = async (found: Found | 'unknown'): Promise<Settled> => {
      const doubtMs = limits.now() - askedAt
      if (found === 'committed') return { kind: found, lateErrors: await install(promisers, limits), doubtMs }
      await rollbackAll(promisers, error, limits)
      return { kind: found, error: found === 'unknown' ? error : notCommitted(inDoubt, error), doubtMs }
    }
    const finding = findOut(decider, error)
    if (finding === undefined) {
      await rollbackAll(promisers, error, limits)
      return { kind: 'unknown', error }
    }
    const found = await inPatience(finding, limits)
    if (found !== undefined) return conclude(found)
    for (const resource of promisers) {
      try {
        resource.doubt?.()
      } catch (broken) {
        attachError(error, broken)
      }
    }
    return { kind: 'unknown', error, settling: finding.then(conclude) }
  }
  // It had nothing to decide, and ends with the others.
  const ending = last === undefined || decider === last ? promisers : [...promisers, last]
  return { kind: 'committed', lateErrors: await install(ending, limits) }
}

function whoDecidesAlone(
  promisers: readonly TwoPhaseResource[],
): { readonly resource: TwoPhaseResource; readonly decider: Decider } | undefined {
  for (const resource of promisers) {
    const decider = resource.alone?.()
    if (decider !== undefined) return { resource, decider }
  }
  return undefined
}

/** The decision stands, so nothing here fails the commit. */
async function install(resources: readonly Resource[], limits: CommitLimits): Promise<unknown[]> {
  const lateErrors: unknown[] = []
  for (const resource of resources) {
    try {
      const installing = untilAnswered(resource.commit(), limits)
      if (installing !== undefined) await installing
    } catch (error) {
      lateErrors.push(error)
    }
  }
  for (const resource of resources) {
    try {
      if (resource.phases === 2) resource.release?.()
    } catch (error) {
      lateErrors.push(error) // it broke its promise; the others let go all the same
    }
  }
  return lateErrors
}

function isUnknown(error: unknown): error is SessionTxError {
  return isSessionTxError(error) && error.code === 'COMMIT_UNKNOWN'
}

/** Never rejects: who cannot tell, after all, does not know. Undefined: there is no way to find out. */
function findOut(decider: Decider, doubt: SessionTxError): Promise<Found | 'unknown'> | undefined {
  const unknown = (error: unknown): 'unknown' => {
    attachError(doubt, error)
    return 'unknown'
  }
  try {
    const finding = decider.findOut?.()
    return finding === undefined ? undefined : Promise.resolve(finding).catch(unknown)
  } catch (error) {
    return Promise.resolve(unknown(error))
  }
}

/** Undefined if the request cannot wait that long. */
function inPatience<F>(finding: Promise<F>, limits: CommitLimits): Promise<F | undefined> {
  const late = new Error('not found out in time')
  return limits.within(finding, patienceMs(limits), () => late).catch(() => undefined)
}

function notCommitted({ name }: Decider, doubt: SessionTxError): SessionTxError {
  const message = `COMMIT of '${name}' was not answered; it has not committed and never will`
  return conflictError(message, { kind: 'connection', store: name }, doubt)
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
  const limitMs = patienceMs(limits)
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

function patienceMs({ interrupt, now }: CommitLimits): number {
  return Math.max(interrupt.deadlineAt - now(), PATIENCE.commitMsMin)
}
