/**
 * When sessions of the MySQL store were last used, and the end of those that nobody uses any more. Idle times are
 * gathered and written together, in an order of their own transaction, so that no request waits for one; what is past its
 * time is removed in small batches. Knows nothing of variables.
 */
import type { OwnTransaction, StoreDatabase } from '../session/store.js'
import type { Clock, Timer } from '../transaction/clock.js'
import type { SessionStatements } from './mysql-tables.js'

const FLUSH_AFTER_MS = 1_000
const TOUCHED_AT_ONCE_MAX = 500
const SWEEP_EVERY_MS = 60_000
const SWEPT_AT_ONCE_MAX = 100
const BATCHES_MAX = 50
/** Idle times of other processes may be under way; nobody is in a hurry. */
const WELL_PAST_MS = 60_000

interface TimesSetup {
  readonly clock: Clock
  readonly database: StoreDatabase
  readonly statements: SessionStatements
  /** Idle time after which a session has expired; false: never. */
  readonly idleMs: number | false
  readonly absoluteMs: number | false
}

export class MysqlTimes {
  readonly #setup: TimesSetup
  /** When each was touched, on the clock. */
  #touched = new Map<string, number>()
  #flushing: Promise<void> | undefined
  #flushTimer: Timer | undefined
  #sweepTimer: Timer | undefined
  #sweeping: Promise<void> | undefined
  #closed = false

  constructor(setup: TimesSetup) {
    this.#setup = setup
    if (setup.idleMs !== false || setup.absoluteMs !== false) this.#scheduleSweep()
  }

  /** Will be written soon. */
  touch(session: string, at: number): void {
    if (this.#closed) return // nobody will write it
    this.#touched.set(session, at)
    this.#flushTimer ??= this.#setup.clock.after(FLUSH_AFTER_MS, () => void this.flush())
  }

  /** Writes what has been gathered. What cannot be written is written with the next, unless it was touched again since. */
  async flush(): Promise<void> {
    this.#flushTimer?.cancel()
    this.#flushTimer = undefined
    while (this.#flushing !== undefined) await this.#flushing
    if (this.#touched.size === 0) return
    this.#flushing = this.#flushNow()
    await this.#flushing
    this.#flushing = undefined
  }

  async #flushNow(): Promise<void> {
    const touched = this.#touched
    this.#touched = new Map()
    // One order for all processes, so that they do not wait for each other in a circle.
    const sessions = [...touched.keys()].sort()
    while (sessions.length > 0) {
      const some = sessions.splice(0, TOUCHED_AT_ONCE_MAX)
      try {
        await this.#transact(async on => {
          const now = this.#setup.clock.now()
          const agoMs = new Map(some.map(session => [session, now - (touched.get(session) ?? now)]))
          await on.change(this.#setup.statements.touch(agoMs))
        })
      } catch {
        if (this.#closed) return // a connection that is away: the sessions are that much older
        for (const session of some) {
          const at = touched.get(session)
          if (at !== undefined && !this.#touched.has(session)) this.touch(session, at)
        }
      }
    }
  }

  #scheduleSweep(): void {
    this.#sweepTimer = this.#setup.clock.after(SWEEP_EVERY_MS, () => {
      const again = (): void => {
        if (!this.#closed) this.#scheduleSweep()
      }
      this.#sweeping = this.sweep().then(again, again) // what failed the next one does, or another process
    })
  }

  /** Removes what is well past its time. @returns how many sessions */
  async sweep(): Promise<number> {
    const { idleMs, absoluteMs } = this.#setup
    let removed = 0
    for (const [column, limitMs] of [
      ['touched_at', idleMs],
      ['created_at', absoluteMs],
    ] as const) {
      for (let batch = 0; limitMs !== false && batch < BATCHES_MAX && !this.#closed; batch++) {
        const count = await this.#sweepSome(column, limitMs + WELL_PAST_MS)
        removed += count
        if (count < SWEPT_AT_ONCE_MAX) break
      }
    }
    return removed
  }

  #sweepSome(column: 'touched_at' | 'created_at', olderThanMs: number): Promise<number> {
    const { statements } = this.#setup
    return this.#transact(async on => {
      const rows = await on.selectLocked(statements.expired(column, olderThanMs, SWEPT_AT_ONCE_MAX))
      const sessions = rows.map(([session]) => session ?? '')
      if (sessions.length > 0) for (const sql of statements.removeAll(sessions)) await on.change(sql)
      return sessions.length
    })
  }

  async #transact<T>(work: (on: OwnTransaction) => Promise<T>): Promise<T> {
    const on = await this.#setup.database.begin()
    try {
      const result = await work(on)
      await on.commit()
      return result
    } catch (error) {
      await on.rollback().catch(() => {}) // its connection is gone, and everything with it
      throw error
    }
  }

  /** Writes what is gathered, and stops. */
  async close(): Promise<void> {
    this.#closed = true
    this.#sweepTimer?.cancel()
    await this.#sweeping
    await this.flush()
  }
}
