/**
 * The contract of a session store. This file is the specification; stores point here, and the suite
 * `storeContract` in `session-tx/testing` checks it. Knows transactions; knows no back-end and no HTTP.
 *
 * A store keeps sessions under keys (the SHA-256 of the id in the cookie; it never sees the id). A session is a map of
 * variables; each variable has the version that the commit which wrote it gave it. Values are committed values: deeply
 * immutable, made by settling.ts, shared by reference between versions. A store hands them out as they are and never
 * changes one. What it reads back from somewhere else is not a committed value until `decodeValue` (store/codec.ts,
 * exported) made it one, from the text that `encodeValue` made of it.
 *
 * Every method may be asynchronous unless its type says otherwise. `capability` says how far its commit reaches:
 *   `local`            one process; the joint commit is: hold the keys, let MySQL COMMIT decide, swap a pointer.
 *   `same-connection`  the session rows are written on the request's own connection: one InnoDB commit.
 *   `best-effort`      writes before MySQL decides, and takes it back if need be: legacyStore, which does not keep all of
 *                      this contract.
 *   `staged`           writes are staged as intents, MySQL's commit record decides, and whoever meets an intent finishes
 *                      what a crash has left; without rows to decide with, one call of the store's commits alone.
 *
 * For `local` stores everything between `open` and `release` is written already and exported: a `LocalSession`
 * (store/local-session.ts) is one session with its versions, holds, claims, idle time and expiry. Such a store decides
 * where its LocalSessions lie and how they outlive the process; docs/writing-a-store.md writes one.
 *
 * A store that is not `local` is shared by processes, so what it has at hand may be old. It may hand that out all the
 * same: `claim` then gets what was read as well (`seen`) and finds out, in the request's own transaction, whether it
 * still holds. It loses if not, as `stale`.
 *
 * start     Called once by `sessionTx()` before anything else, with the settings that stores share.
 * open      The session under `key`, for one attempt, or undefined when there is none (never existed, destroyed,
 *           expired: told apart by the events that the store emits, `session:destroyed` once by the process that did
 *           it, `session:expired` once by whoever finds out). Throws STORE_UNAVAILABLE when the store cannot know, which
 *           is answered 503: never undefined instead, since that logs somebody out. Opening pins it: until `release` it is neither evicted nor expired (by this
 *           process). `fresh`: what is handed out must have been current after the call; asked for where the request
 *           cannot run again. `turn`, for `same-connection` and `staged` stores: the request lost a race for this session and is
 *           first in line here; nobody, of any process, may commit to the session until that transaction ends (`staged`:
 *           until the session is released, or for two seconds; whoever tries loses, unless it cannot run again).
 * create    The same for a session that does not exist yet; nothing is stored before its claim commits.
 * sessionsOf  Keys of the sessions whose `userVariable` names this user now (its value is hashed by user-key.ts, which is
 *           what a store keeps of it). May name one that is gone. Optional: without it nobody's sessions can be ended.
 * counts    For the metrics, and asked often: no I/O.
 * close     Stops timers. Called once.
 *
 * OpenSession.snapshot     The committed state now. It stays readable, unchanged, as long as somebody refers to it.
 * OpenSession.disturbance  What changed since that snapshot, or is held by a claim at this moment (its owner is in
 *                          COMMIT: the database may show its rows already while the session does not). Shared stores:
 *                          as far as this process knows; their claims find out the rest.
 * OpenSession.pause        Waits until nothing is held and lets nobody prepare until the returned function is called.
 *                          For opening session and rows at one instant: never hold it while waiting for a row lock.
 *                          `same-connection`: waits for nothing, since session and rows commit at one instant anyway.
 * OpenSession.catchUp      `staged` only: hears what others have committed, also what they have not published yet.
 * OpenSession.confirm      `staged` only: is the snapshot of now still what is stored? If so, it fits a read view that was
 *                          opened between the two, and what was read of it is not looked at again.
 * OpenSession.refresh      `same-connection` only: makes the next snapshot what a transaction's read view shows.
 * OpenSession.ended        The session was destroyed since, as far as the store knows: its id is not sent again.
 * OpenSession.touch        Moves the idle time, outside of the conflict domain, at most once per granularity.
 * OpenSession.claim        What an attempt wants to commit; `same-connection` stores get the way to the attempt's own
 *                          transaction with it, and use it in `prepare` alone. Its methods are called as resource.ts says:
 *   prepare    Hold every key written or validated, in one order for all claims; wait for claims that hold them (their
 *              owners are in COMMIT, which waits for nobody). Then compare versions with the base snapshot; where one
 *              differs, merge by `write.resolve` if it `resolves`, else throw what `write.conflict` makes.
 *              `same-connection`: send the writes; they are the last statements before COMMIT.
 *              `staged`: store the writes as intents, naming the decision that `transaction.announce` gives, which is what
 *              makes them true; where it gives none, only look.
 *   decide     `staged` only, instead of `prepare` and in place of the database: compare and commit in one. Throws
 *              COMMIT_UNKNOWN if it is not known whether it did, after `abandon` at the latest.
 *   findOut    `staged` only, after a decide that was not answered: makes known what became of it, by force.
 *   commit     Makes the writes visible, all at once. Must not fail for `local` and `same-connection`.
 *   release    Lets the held keys go.
 *   doubt      After prepare: the database did not answer COMMIT. What is held stays held until commit and release, or
 *              rollback, but nobody waits for it any more: whoever wants it, also by pause, gets STORE_UNAVAILABLE.
 *   rollback   From any point: forget the writes, stop waiting, let go.
 */
import type { SessionTxError } from '../errors.js'
import type { EventHub } from '../events.js'
import type { AnnouncedDecision, DecisionRecord } from '../transaction/announced-decision.js'
import type { Clock } from '../transaction/clock.js'
import type { MaybePromise } from '../transaction/resource.js'

// Registered: a store may have loaded the other build of this package.
/** The set of variable names, as something that can be read, held and changed. */
export const NAMES: unique symbol = Symbol.for('session-tx.names')
/** The session as a whole: destroyed or replaced. */
export const WHOLE: unique symbol = Symbol.for('session-tx.whole')
export type SessionPart = string | typeof NAMES | typeof WHOLE

export interface Settled {
  /** A committed value: deeply immutable. */
  readonly value: unknown
  /** Size of its encoded form. */
  readonly sizeBytes: number
}

export interface StoredVariable extends Settled {
  /** Number of the commit that wrote it, counted per session from 1. */
  readonly version: number
  /** Route of the transaction that wrote it. */
  readonly by: string
}

export interface SessionSnapshot {
  /** Number of the last commit it contains; 0 for a session not yet stored. */
  readonly version: number
  readonly sizeBytes: number
  get(name: string): StoredVariable | undefined
  names(): string[]
}

export interface Disturbance {
  /** Nothing at all changed and nothing is held. */
  readonly none: boolean
  /** True also for every variable when the session as a whole was destroyed or replaced. */
  has(part: SessionPart): boolean
}

/** What one attempt wants to commit to one session. */
export interface SessionWrite {
  readonly base: SessionSnapshot
  /** Route of the writer: a later loser is told who won. */
  readonly by: string
  /** New values; undefined removes the variable. */
  readonly writes: ReadonlyMap<string, Settled | undefined>
  /** Parts that were only read but must still be current. */
  readonly current: ReadonlySet<string | typeof NAMES>
  /** Parts that were read from `base`; empty for a `local` store, whose snapshots are never old. */
  readonly seen: ReadonlySet<string | typeof NAMES>
  /** Conflicts with every commit since `base`. */
  readonly replaces: boolean
  /** Ends the session. Never conflicts. */
  readonly destroys: boolean
  /** Whether a variable that somebody else committed meanwhile can be merged. */
  resolves(name: string): boolean
  /**
   * Merges it.
   * @throws whatever the resolver throws: then it is lost, with that as the cause
   */
  resolve(name: string, found: StoredVariable | undefined, mine: Settled | undefined): Settled | undefined
  /** Makes the error for parts that changed and cannot be merged; all of them at once. */
  conflict(lost: readonly LostPart[]): SessionTxError
}

export interface LostPart {
  readonly part: SessionPart
  readonly baseVersion: number
  /** Undefined: nobody has committed it yet, but it is somebody else's turn. */
  readonly foundVersion: number | undefined
  readonly winner: string | undefined
  /** True if the part was only read. */
  readonly onlyRead: boolean
  /** `base` may have been old from the start: nobody need have won a race. */
  readonly stale?: boolean
  /** What a resolver threw. */
  readonly cause?: unknown
}

export interface Claim {
  prepare(): MaybePromise<void>
  decide?(): Promise<void>
  abandon?(): void
  findOut?(): Promise<'committed' | 'rolledBack'>
  commit(): MaybePromise<void>
  release(): void
  doubt(): void
  rollback(): void
}

export interface OpenSession {
  readonly key: string
  readonly ended: boolean
  snapshot(): SessionSnapshot
  disturbance(since: SessionSnapshot): Disturbance
  pause(): MaybePromise<() => void>
  /** True if the idle time was moved. */
  touch(): boolean
  /** @param transaction the attempt's own; given to `same-connection` stores */
  claim(write: SessionWrite, transaction?: AttemptTransaction): Claim
  refresh?(transaction: StoreTransaction): Promise<void>
  /** `staged`: nobody else commits to it, as far as can be told: its snapshot need not be opened together with the rows'. */
  readonly isReserved?: boolean
  catchUp?(): Promise<void>
  confirm?(): Promise<boolean>
  /** Unpins. Called exactly once per open or create. */
  release(): void
}

/** Rows as texts. */
export type TextRows = readonly (readonly (string | null)[])[]

/** The transaction of an attempt, which a `same-connection` store may or may not need. */
export interface AttemptTransaction {
  /** The application has sent statements in it: its read view may be open. */
  isJoint(): boolean
  /** Takes a connection, if the attempt has none. */
  begin(): Promise<StoreTransaction>
  /** For `staged` stores: what will decide; undefined if the attempt has changed nothing in the database. */
  announce?(): AnnouncedDecision | undefined
}

/** A transaction in the application's database, as a `same-connection` store sees it. */
export interface StoreTransaction {
  /**
   * Others write on other nodes and see no lock (Galera): what must stay as it is until COMMIT has to be changed, since
   * only changes are compared with theirs.
   */
  readonly locksAreLocal: boolean
  /** A text as SQL, safe under every SQL mode and character set. */
  literal(text: string): string
  /** A plain SELECT: what the transaction's read view shows. */
  select(sql: string): Promise<TextRows>
  /** A SELECT that locks: the newest committed state, whatever the view. Never loses to the view (1020). */
  selectLocked(sql: string): Promise<TextRows>
  /** INSERT, UPDATE, DELETE; likewise. `matched`: also what was as wanted already. */
  change(sql: string): Promise<{ readonly matched: number; readonly insertId: number }>
}

/** Short transactions of a `same-connection` store's own. */
export interface StoreDatabase {
  /** @throws STORE_UNAVAILABLE when there is no connection to be had */
  begin(): Promise<OwnTransaction>
}

export interface OwnTransaction extends StoreTransaction {
  commit(): Promise<void>
  rollback(): Promise<void>
}

/** What `sessionTx()` tells its store. */
export interface StoreSettings {
  readonly clock: Clock
  readonly events: EventHub
  readonly idleMs: number | false
  readonly absoluteMs: number | false
  readonly touchGranularityMs: number
  /** The variable whose value names the user, if sessions are to be found by it. */
  readonly userVariable?: string | undefined
  /** For `same-connection` stores; undefined if no pool was configured. */
  readonly database?: StoreDatabase | undefined
  /** For `staged` stores; undefined if no pool was configured: then nothing is staged. */
  readonly decisions?: DecisionRecord | undefined
}

export interface StoreCounts {
  /** Sessions stored and not expired, as far as the store knows without looking at each. */
  readonly live: number
  readonly sizeBytes: number
}

export interface SessionStore {
  /** Shown in errors and metrics. */
  readonly name: string
  readonly capability: 'local' | 'same-connection' | 'staged' | 'best-effort'
  start(settings: StoreSettings): void
  open(key: string, fresh?: boolean, turn?: AttemptTransaction): MaybePromise<OpenSession | undefined>
  create(key: string): MaybePromise<OpenSession>
  sessionsOf?(user: string): MaybePromise<readonly string[]>
  counts(): StoreCounts
  close(): MaybePromise<void>
}
