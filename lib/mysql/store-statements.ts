/**
 * The statements of a session store that keeps its rows in the application's database: the `StoreTransaction` of its
 * contract (session/store.ts, where each method is explained). Knows how they are sent and read, and no session.
 */
import type { OkPacket } from './driver.js'
import type { ServerFacts } from './lease/connection-settings.js'

type TextRows = readonly (readonly (string | null)[])[]

interface StoreStatementsSetup {
  readonly server: ServerFacts
  /** Sends one, and is answered rows of texts or an OK packet. */
  send(sql: string, writes: boolean): Promise<unknown>
}

/** Neither a quote nor a backslash, whose meaning depends on the SQL mode, nor anything but ASCII. */
const PLAIN = /^[\x20-\x26\x28-\x5b\x5d-\x7e]*$/

export class StoreStatements {
  readonly #setup: StoreStatementsSetup
  /**
   * A row that was changed since the read view answers 1020 to whoever locks it under snapshot isolation, and the
   * transaction is over. These compare versions themselves, and may go on.
   */
  readonly #current: string
  readonly locksAreLocal: boolean

  constructor(setup: StoreStatementsSetup) {
    this.#setup = setup
    this.locksAreLocal = setup.server.galera
    this.#current = setup.server.snapshotIsolation ? 'SET STATEMENT innodb_snapshot_isolation = OFF FOR ' : ''
  }

  literal(text: string): string {
    return PLAIN.test(text) ? `'${text}'` : `_utf8mb4 X'${Buffer.from(text, 'utf8').toString('hex')}'`
  }

  async select(sql: string): Promise<TextRows> {
    return (await this.#setup.send(sql, false)) as TextRows
  }

  async selectLocked(sql: string): Promise<TextRows> {
    return (await this.#setup.send(this.#current + sql, false)) as TextRows
  }

  async change(sql: string): Promise<{ readonly matched: number; readonly insertId: number }> {
    const ok = (await this.#setup.send(this.#current + sql, true)) as OkPacket
    // `affectedRows` counts what changed where the pool's flags say so; the text always says both.
    const [, matched] = /^Rows matched: (\d+)/.exec(ok.info) ?? []
    return { matched: matched === undefined ? ok.affectedRows : Number(matched), insertId: ok.insertId }
  }
}
