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
 *               the single decision point. Throw COMMIT_UNKNOWN if the decision was sent and not answered; any other
 *               throw promises that nothing was committed.
 *               Two-phase: make the prepared work visible. The decision has been made; a throw is reported and changes
 *               neither outcome nor answer, so do here only what cannot fail.
 *   release     Two-phase resources only. Let go of what prepare held; called after every commit, and must not fail.
 *
 * Where nothing is to be decided by a one-phase resource (there is none, or its `decides` says that it changed nothing), a
 * two-phase resource may do so in one step: `alone` returns what commits in its place, under the rules of a one-phase
 * resource. `prepare` is not called on it then; `commit`, `release`, `rollback` and `doubt` are. The first one asked that
 * has something to decide does; the others prepare as ever.
 *
 * When it does not: `rollback`, on every enlisted resource, whatever phase it had reached (also when its own prepare
 * threw, and when its own commit threw), except on the one-phase resource whose decision is in doubt. It undoes
 * everything, lets go of everything that prepare held (no release follows), and is bounded in time. A throw is
 * attached to the error that caused the rollback.
 *
 * A decision in doubt: a one-phase `commit` threw COMMIT_UNKNOWN, or was not answered in time (the deadline, two
 * seconds at least). In the second case `abandon` is called first, to let go of what it holds without waiting for it;
 * a `commit` that goes on after it must not send the decision any more. Then, in both cases:
 *
 *   findOut     One-phase, once. Make the outcome known, by force if it is still open: after the answer `rolledBack`
 *               nothing of what was sent can ever commit. It may take as long as the database is away. Throw only if
 *               nobody will ever be able to tell. Left out, or undefined returned: there is no way to find out.
 *   doubt       Two-phase. Called when findOut has not answered within the request's patience. The request is
 *               answered COMMIT_UNKNOWN, but what prepare held stays held, perhaps for minutes, until `commit` and
 *               `release`, or `rollback`, are called as findOut says. Whoever else wants it is refused at once instead
 *               of waiting. Must not fail.
 *
 * Found out in time, the transaction goes on as if the decision had been answered.
 *
 * Savepoints: `savepoint` marks the present state and returns a function that goes back to it (called at most once,
 * and not at all when the part succeeds). A resource enlisted after a savepoint did nothing before it, so going back
 * calls its `rollback` and forgets it; it may be enlisted again. A resource without `savepoint` makes
 * `tx.savepoint()` fail before its function runs.
 */

export type MaybePromise<T> = T | Promise<T>

/** What became of a decision that was not answered. */
export type Found = 'committed' | 'rolledBack'

interface ResourceBase {
  /** Shown in errors and logs. */
  readonly name: string
  settle?(): MaybePromise<void>
  commit(): MaybePromise<void>
  rollback(): MaybePromise<void>
  savepoint?(): MaybePromise<() => MaybePromise<void>>
}

/** Decides: a database connection that knows COMMIT and ROLLBACK. */
export interface OnePhaseResource extends ResourceBase, Decider {
  readonly phases: 1
  /** False: nothing was changed. Left out: there is something. */
  decides?(): boolean
}

/** What the decision is sent to. */
export interface Decider {
  readonly name: string
  commit(): MaybePromise<void>
  abandon?(): void
  findOut?(): MaybePromise<Found> | undefined
}

/** Can promise before it commits. */
export interface TwoPhaseResource extends ResourceBase {
  readonly phases: 2
  prepare(): MaybePromise<void>
  alone?(): Decider | undefined
  release?(): void
  doubt?(): void
}

export type Resource = OnePhaseResource | TwoPhaseResource

/** True where there is something to wait for; keeps the common synchronous case free of promises. */
export function isPending<T>(value: MaybePromise<T>): value is Promise<T> {
  return (
    typeof value === 'object' && value !== null && typeof (value as { then?: unknown }).then === 'function'
  )
}
