/**
 * One attempt put together: a transaction with a session, a MySQL resource and the joint snapshot between them. All of
 * it is made on first use, so an attempt that touches nothing costs next to nothing. Knows no HTTP.
 */
import { SessionTxError } from '../errors.js'
import type { EscapeReason } from '../events.js'
import { ConnectionHandle } from '../mysql/handle/connection-handle.js'
import type { CorePool } from '../mysql/driver.js'
import type { Flavour } from '../mysql/errors.js'
import { MysqlResource } from '../mysql/resource.js'
import { DraftScope } from '../session/draft.js'
import { shownKey } from '../session/identity.js'
import { type Reservation, SessionResource } from '../session/resource.js'
import { assignSession, type SessionObject } from '../session/session-object.js'
import type { AttemptTransaction, OpenSession } from '../session/store.js'
import { WorkingCopy } from '../session/working-copy.js'
import type { Interrupt } from '../transaction/interrupt.js'
import { isPending } from '../transaction/resource.js'
import type { AttemptOrder } from '../transaction/retry.js'
import { Transaction, type TransactionState } from '../transaction/transaction.js'
import { recognise } from './conflicts.js'
import {
  type CookieChange,
  type JointParts,
  type JointRequest,
  keyOfSession,
  type RunningAttempt,
} from './request.js'
import { SessionSide } from './session-side.js'
import { JointSnapshot } from './snapshot.js'
import { tablesOf, ticketKey } from './ticket-keys.js'
import { Tx } from './tx.js'
import { ViewSnapshot } from './view-snapshot.js'

interface AttemptSetup {
  readonly parts: JointParts
  readonly request: JointRequest<unknown>
  readonly order: AttemptOrder
  readonly interrupt: Interrupt
  readonly id: () => string
  /** An earlier attempt of the request had the session open; if it is gone now, it died under the request. */
  readonly knewSession: boolean
  /** How many sessions had ended when the request began: one that ended later died under it, too. */
  readonly deathsBefore: number
  /** The request cannot run again: open session and rows at one instant. */
  readonly opensTogether: boolean
  /** Hears that an effect cannot be rolled back. */
  readonly life: { escaped(attempt: number, reason: EscapeReason, table: string | undefined): void }
}

const NONE: readonly string[] = Object.freeze([])

export class JointAttempt implements RunningAttempt {
  readonly #setup: AttemptSetup
  readonly transaction: Transaction
  readonly tx: Tx
  #session: SessionSide | undefined
  #mysql: MysqlResource | undefined
  #drafts: DraftScope | undefined
  /** What a shared store had of the session before the handler ran; an error waits until somebody wants the session. */
  #early: { readonly opened: OpenSession | undefined } | { readonly error: unknown } | undefined
  /** What was opened early has been given back; it can still be read. */
  #isEarlyReleased = false
  #isClosed = false

  constructor(setup: AttemptSetup) {
    this.#setup = setup
    const { parts, interrupt, order, request, id } = setup
    this.transaction = new Transaction({ id, clock: parts.environment.clock, interrupt })
    this.tx = new Tx({
      transaction: this.transaction,
      order,
      interrupt,
      retries: request.retries,
      // No getter: V8 gives every object literal with one a hidden class of its own, which keeps the whole attempt alive
      // until the next full collection (265 µs of processor time per untouched request, against 177).
      mysql: () => this.#mysqlSide(),
      workingCopy: () => this.#sessionSide().copy,
      connection: () => this.connectionTo(parts.pool),
    })
  }

  get state(): TransactionState {
    return this.transaction.state
  }
  get cookieChange(): CookieChange {
    return this.#session?.change ?? { kind: 'none' }
  }

  /** What kind of server its errors come from. */
  get flavour(): Flavour {
    const { parts, request } = this.#setup
    return parts.broker?.(request.isolation).server?.flavour ?? 'mariadb'
  }

  /** Names of tables whose rows it has locked, as far as is known. */
  get lockedTables(): readonly string[] {
    return this.#mysql?.lockedTables ?? NONE
  }

  /** Whose attempt this is. */
  get request(): JointRequest<unknown> {
    return this.#setup.request
  }

  get session(): SessionObject {
    return this.#sessionSide().object
  }
  /** `ctx.session = …`: null ends the session, an object replaces it. */
  set session(value: unknown) {
    assignSession(this.#sessionSide().copy, value)
  }

  get visibleSession(): SessionObject | null {
    if (this.state === 'active') return this.session
    if (this.#session === undefined && !this.#canOpenLate) return null
    const { copy, object } = this.#sessionSide()
    return copy.destroyed ? null : object
  }

  /** Without waiting for the store. */
  get #canOpenLate(): boolean {
    const { parts, request } = this.#setup
    if (parts.store.capability === 'local' || keyOfSession(request) === undefined) return true
    return this.#early !== undefined && 'opened' in this.#early
  }

  /** The session's side if the attempt used it. */
  get usedSession(): SessionSide | undefined {
    return this.#session
  }
  get knowsSession(): boolean {
    return this.#setup.knewSession || this.#session?.copy.opened !== undefined
  }

  #sessionSide(): SessionSide {
    this.#session ??= this.#openSession()
    return this.#session
  }

  /**
   * Of a shared store: looks for the session before the handler runs, since the handler's access is synchronous. Takes no
   * time if the store remembers it.
   */
  findSession(): Promise<void> | undefined {
    const { parts, request, opensTogether } = this.#setup
    const key = parts.store.capability === 'local' ? undefined : keyOfSession(request)
    if (key === undefined) return undefined
    const turn = this.#hasTurn(key) ? this.#ownTransaction() : undefined
    const found = parts.store.open(key, opensTogether, turn)
    if (!isPending(found)) {
      this.#early = { opened: found }
      return undefined
    }
    return found.then(
      opened => {
        this.#early = { opened }
        if (this.transaction.state !== 'active') this.#releaseUnused()
      },
      (error: unknown) => {
        if (this.transaction.conflict !== undefined) throw error
        this.#early = { error }
      },
    )
  }

  /** It lost a race for this session, and those that lost before it in this process are done. */
  #hasTurn(key: string): boolean {
    const { order, request } = this.#setup
    return !request.readOnly && order.ticketKeys.some(one => one.startsWith(ticketKey(shownKey(key), '')))
  }

  /**
   * Where other processes have the same sessions, their losers of a row wait for each other, too. First of all, since
   * what is read before the wait is old after it.
   */
  takeTurn(): Promise<void> | undefined {
    const { parts, order } = this.#setup
    if (parts.store.capability === 'local') return undefined
    const tables = tablesOf(order.ticketKeys)
    return tables.length === 0 ? undefined : this.#mysqlSide()?.takeTurn(tables)
  }

  /** The handler did not want it. */
  #releaseUnused(): void {
    if (this.#session !== undefined || this.#isEarlyReleased) return
    if (this.#early === undefined || !('opened' in this.#early)) return
    this.#isEarlyReleased = true
    this.#early.opened?.release()
  }

  #openSession(): SessionSide {
    const { parts, request, knewSession, deathsBefore } = this.#setup
    const id = request.sessionId()
    const key = keyOfSession(request)
    const knew = knewSession || (key !== undefined && parts.tombstones.has(key, deathsBefore))
    const opened = key === undefined ? undefined : this.#open(key, knew)
    const transaction = this.#ownTransaction()
    const drafts = new DraftScope()
    this.#drafts = drafts
    const copy = new WorkingCopy({
      store: parts.store.name,
      opened,
      id,
      bereaved: knew && opened === undefined,
      drafts,
      assertUsable: () => this.transaction.assertUsable(),
      assertWritable: () => this.#assertWritable(),
      merges: name => parts.resolvers.has(name),
      lose: conflict => this.transaction.lose(conflict),
    })
    const resource = new SessionResource({
      store: parts.store,
      copy,
      drafts,
      resolvers: parts.resolvers,
      sizeBytesMax: parts.sizeBytesMax,
      validatesReads: request.isolation === 'serializable',
      route: () => request.route(),
      reservation: name => this.#reservation(copy, name),
      ended: dead => parts.tombstones.add(dead),
      transaction,
    })
    if (this.transaction.state === 'active' && this.transaction.conflict === undefined)
      this.transaction.enlist(resource)
    else if (!this.#isEarlyReleased) opened?.release()
    if (this.#isClosed) this.#closeDrafts()
    return new SessionSide(copy, resource, parts.cookie, () => parts.environment.clock.wallNow())
  }

  /** Somebody who lost before has its turn; who cannot run again need not give way. */
  #reservation(copy: WorkingCopy, name: string): Reservation | undefined {
    const { parts, order, opensTogether } = this.#setup
    const { tickets } = parts
    if (tickets === undefined || tickets.isIdle || copy.opened === undefined || order.isLast) return undefined
    if (opensTogether && !order.opensTogether) return undefined
    const key = ticketKey(shownKey(copy.opened.key), name)
    if (!tickets.isTaken(key) || order.ticketKeys.includes(key)) return undefined
    return { by: tickets.holderOf(key) }
  }

  #open(key: string, known: boolean): OpenSession | undefined {
    const { store, events } = this.#setup.parts
    if (this.#early !== undefined && 'error' in this.#early) throw this.#early.error
    const opened = this.#early === undefined ? store.open(key) : this.#early.opened
    if (opened !== undefined && isPending(opened))
      throw new TypeError(`store '${store.name}' says that it is local, and opens sessions asynchronously`)
    if (opened === undefined && !known) events.emit('session:missed', { session: shownKey(key) })
    return opened
  }

  /** For a store whose sessions are rows of the same database; MySQL takes part from then on, without a connection. */
  #ownTransaction(): AttemptTransaction | undefined {
    const { capability } = this.#setup.parts.store
    if (capability === 'staged') return this.#announcing()
    if (capability !== 'same-connection') return undefined
    const mysql = this.#mysqlSide()
    if (mysql === undefined) return undefined
    const { transaction } = this
    if (transaction.state === 'active' && transaction.conflict === undefined && !transaction.has(mysql))
      transaction.enlist(mysql)
    return { isJoint: () => mysql.isUsed, begin: () => mysql.own() }
  }

  /** For a store that names what decides; MySQL takes part only if the handler wants it. */
  #announcing(): AttemptTransaction {
    return {
      isJoint: () => this.#mysql?.isUsed ?? false,
      begin: () => Promise.reject(new TypeError('a staged store has nothing to send to the database')),
      announce: () => this.#mysql?.announce(),
    }
  }

  #assertWritable(): void {
    this.transaction.assertUsable()
    if (this.#setup.request.readOnly)
      throw new SessionTxError('READ_ONLY', 'a read-only transaction cannot write to the session')
  }

  #mysqlSide(): MysqlResource | undefined {
    const { parts, request, opensTogether, life, order } = this.#setup
    const { broker } = parts
    if (broker === undefined || this.#mysql !== undefined) return this.#mysql
    const { transaction } = this
    const leases = broker(request.isolation)
    // A session that is read later must fit what is queried now, so it is opened before the first statement is sent.
    const torn = request.isolation !== 'read committed' && keyOfSession(request) !== undefined
    const copy = (): WorkingCopy | undefined => (torn ? this.#sessionSide().copy : undefined)
    const lose = (conflict: SessionTxError): void => transaction.lose(conflict)
    const hasNoTrigger = (schema: string, table: string): boolean =>
      leases.engines.hasNoTrigger(schema, table)
    const observer =
      parts.store.capability === 'same-connection'
        ? new ViewSnapshot({
            copy,
            opensTogether,
            hasNoTrigger,
            transaction: () => (this.#mysql ?? neverAsked()).own(),
            lose,
          })
        : new JointSnapshot({
            copy,
            opensTogether,
            opensView: (schema, table) => leases.engines.opensView(schema, table),
            hasNoTrigger,
            lose,
          })
    this.#mysql = new MysqlResource({
      broker: leases,
      acquireMs: parts.acquireMs,
      clock: parts.environment.clock,
      transaction,
      interrupt: this.#setup.interrupt,
      observer,
      readOnly: request.readOnly,
      nonTransactionalTables: parts.nonTransactionalTables,
      escaped: (reason, table) => life.escaped(order.attempt, reason, table),
      mark: () => {
        this.#sessionSide() // takes part from the start, as in tx.savepoint()
        return transaction.mark()
      },
      later: work => {
        const ended = parts.activity.begin()
        setImmediate(() => void work().finally(ended))
      },
      recognise: (error, flavour, moment) => recognise(error, flavour, parts.conflicts, moment),
    })
    return this.#mysql
  }

  /**
   * Waits for those who are in COMMIT with this session: MySQL may have told us of the winner (by freeing its row lock)
   * before its session was installed, and an attempt that starts in between would read the old value and lose again.
   */
  async afterWinner(): Promise<void> {
    const resume = this.#sessionSide().copy.opened?.pause()
    if (resume !== undefined) (isPending(resume) ? await resume : resume)()
  }

  /** What query builders get (mysql/handle/ambient-pool.ts asks, too); undefined if our rows are in another pool. */
  connectionTo(pool: CorePool | undefined): ConnectionHandle | undefined {
    const { parts, request } = this.#setup
    const mysql = pool === undefined || pool !== parts.pool ? undefined : this.#mysqlSide()
    if (mysql === undefined || pool === undefined) return undefined
    const { isolation } = request
    return new ConnectionHandle({
      mysql,
      pool,
      isolation,
      assertUsable: () => this.transaction.assertUsable(),
    })
  }

  /** Takes the connection now and opens session and rows at one instant. */
  async openTogether(): Promise<void> {
    await this.#mysqlSide()?.open()
  }

  /** From now on drafts can be read, for rendering, but not written. */
  close(): void {
    this.#isClosed = true
    this.#releaseUnused()
    this.#closeDrafts()
  }

  #closeDrafts(): void {
    this.#drafts?.close(() => this.transaction.closedError())
  }
}

function neverAsked(): never {
  throw new TypeError('a statement was sent before there was a database')
}
