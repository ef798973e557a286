/**
 * The contract between a transaction and what takes part in it. This file is the specification; implementations point
 * here and do not repeat it. Knows nothing of sessions, databases or HTTP.
 *
 * A resource is enlisted at most once per attempt and lives exactly as long as that attempt. The transaction calls it,
 * never the other way round, and never two methods at once.
 *
 * When it goes well, in this order over all resources:
 *
 *   settle      Wait for work still under way. Throw if a piece of it failed and nobody looked at the failure:
 *               nothing is committed then. Called in commits only; a rollback must cope with work under way itself.
 *   prepare     Two-phase resources only. Check that the attempt can commit, and hold whatever makes sure that it still
 *               can a moment later. Throwing refuses the commit. After it returned, `commit` must be able to succeed.
 *   commit      One-phase: decide. There is at most one such resource and it comes right after every prepare, so it is
 *               the single decision point. Throw COMMIT_UNKNOWN if the decision was sent and cannot be learned; any
 *               other throw promises that nothing was committed.
 *               Two-phase: make the prepared work visible. The decision has been made; a throw is reported and changes
 *               neither outcome nor answer, so do here only what cannot fail.
 *   release     Two-phase resources only. Let go of what prepare held; called after every commit, and must not fail.
 *
 * When it does not: `rollback`, on every enlisted resource, whatever phase it had reached (also when its own prepare
 * threw, and when its own commit threw), except on the one-phase resource that reported COMMIT_UNKNOWN. It undoes
 * everything, lets go of everything that prepare held (no release follows), and is bounded in time. A throw is
 * attached to the error that caused the rollback.
 *
 * A one-phase `commit` that is not answered in time (the deadline, two seconds at least) is given up as unknown:
 * `abandon` is called instead of anything else, to let go of what it holds without waiting for it.
 *
 * Savepoints: `savepoint` marks the present state and returns a function that goes back to it (called at most once,
 * and not at all when the part succeeds). A resource enlisted after a savepoint did nothing before it, so going back
 * calls its `rollback` and forgets it; it may be enlisted again. A resource without `savepoint` makes
 * `tx.savepoint()` fail before its function runs.
 */

export type MaybePromise<T> = T | Promise<T>

interface ResourceBase {
  /** Shown in errors and logs. */
  readonly name: string
  settle?(): MaybePromise<void>
  commit(): MaybePromise<void>
  rollback(): MaybePromise<void>
  savepoint?(): MaybePromise<() => MaybePromise<void>>
}

/** Decides alone: a database connection that knows COMMIT and ROLLBACK. */
export interface OnePhaseResource extends ResourceBase {
  readonly phases: 1
  abandon?(): void
}

/** Can promise before it commits. */
export interface TwoPhaseResource extends ResourceBase {
  readonly phases: 2
  prepare(): MaybePromise<void>
  release?(): void
}

export type Resource = OnePhaseResource | TwoPhaseResource

/** True where there is something to wait for; keeps the common synchronous case free of promises. */
export function isPending<T>(value: MaybePromise<T>): value is Promise<T> {
  return (
    typeof value === 'object' && value !== null && typeof (value as { then?: unknown }).then === 'function'
  )
}
