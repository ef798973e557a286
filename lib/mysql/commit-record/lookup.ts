/**
 * Asks what became of transactions of any process, by their rows in the commit record, on one connection outside of the
 * pool's limit: who asks may hold one of the pool's, and so may everybody it waits for. All who ask at once are answered by
 * one statement. Knows nothing of sessions, nor how an open decision is forced (settle.ts).
 */
import { SessionTxError } from '../../errors.js'
import type { CoreConnection } from '../driver.js'
import { detectServer, takeOver } from '../lease/connection-settings.js'
import { okOf, rowsOf } from '../round-trip.js'
import { lookAtSlots } from './commit-table.js'
import type { Claimed } from './settle.js'

export type Fate = 'committed' | 'rolledBack' | 'open'

interface Question {
  readonly claimed: Claimed
  readonly resolve: (fate: Fate) => void
  readonly reject: (error: unknown) => void
}

const LOCK_WAIT_MS = 1_000

export class Lookup {
  readonly #connect: () => Promise<CoreConnection>
  #connecting: Promise<CoreConnection> | undefined
  #waiting: Question[] = []
  #isAsking = false
  #closed = false

  constructor(connect: () => Promise<CoreConnection>) {
    this.#connect = connect
  }

  /** @throws STORE_UNAVAILABLE */
  fateOf(claimed: Claimed): Promise<Fate> {
    return new Promise((resolve, reject) => {
      this.#waiting.push({ claimed, resolve, reject })
      if (!this.#isAsking) void this.#ask()
    })
  }

  async #ask(): Promise<void> {
    this.#isAsking = true
    await Promise.resolve()
    while (this.#waiting.length > 0) {
      const asked = this.#waiting.splice(0)
      try {
        const fates = await this.#answers(asked.map(({ claimed }) => claimed))
        for (const [place, { resolve }] of asked.entries()) resolve(fates[place] ?? 'open')
      } catch (cause) {
        this.#drop()
        const message = 'the commit record could not be asked: what became of a transaction is not known'
        for (const { reject } of asked) reject(new SessionTxError('STORE_UNAVAILABLE', message, { cause }))
      }
    }
    this.#isAsking = false
  }

  async #answers(asked: readonly Claimed[]): Promise<Fate[]> {
    if (this.#closed) throw new Error('close() was called')
    this.#connecting ??= this.#open()
    const connection = await this.#connecting
    const slots = new Map<string, readonly (string | null)[]>()
    for (const [slot, ...row] of await rowsOf(connection, lookAtSlots(asked.map(({ slot: id }) => id))))
      slots.set(slot ?? '', row)
    return asked.map(claimed => fateIn(slots.get(claimed.slot), claimed))
  }

  /** READ COMMITTED: each statement sees what is committed by then. */
  async #open(): Promise<CoreConnection> {
    const connection = await this.#connect()
    try {
      await takeOver(connection, await detectServer(connection, 'read committed', LOCK_WAIT_MS))
      await okOf(connection, 'SET SESSION autocommit = 1')
    } catch (error) {
      connection.destroy()
      throw error
    }
    return connection
  }

  #drop(): void {
    const connecting = this.#connecting
    this.#connecting = undefined
    connecting?.then(
      connection => connection.destroy(),
      () => {},
    )
  }

  close(): void {
    this.#closed = true
    this.#drop()
  }
}

/**
 * A row moves past a transaction only when nobody asks for it any more, or when another transaction took the number that
 * was announced for it; and it is dropped only when nobody asks. So whoever still asks then asks for one that never was.
 */
function fateIn(row: readonly (string | null)[] | undefined, { seq, txid }: Claimed): Fate {
  if (row === undefined) return 'rolledBack'
  const [found, last, state] = row
  if (Number(found) < seq) return 'open'
  return Number(found) === seq && last === txid && state === 'C' ? 'committed' : 'rolledBack'
}
