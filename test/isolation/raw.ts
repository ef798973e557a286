/** Schedules on the bare server: every item a row, each transaction a connection. Documents the server, not us. */
import mysql, { type Connection, type RowDataPacket } from 'mysql2/promise'
import { findDatabaseError } from '../../lib/mysql/errors.js'
import type { TestDatabase } from '../support/database.js'
import { type Outcome, type Party, play } from './player.js'
import { type Operation, type Schedule, type Seen, START, type Who } from './schedules.js'

class RawParty implements Party {
  readonly #connection: Connection
  readonly #onLoss: (errno: number | undefined) => void
  readonly seen: Seen[] = []
  committed = false

  constructor(connection: Connection, onLoss: (errno: number | undefined) => void) {
    this.#connection = connection
    this.#onLoss = onLoss
  }

  async perform(operation: Operation): Promise<boolean> {
    try {
      await this.#send(operation)
    } catch (error) {
      this.#onLoss(findDatabaseError(error)?.errno)
      await this.#connection.query('ROLLBACK')
      return false
    }
    return operation.does !== 'commit' && operation.does !== 'abort'
  }

  async #send(operation: Operation): Promise<void> {
    const connection = this.#connection
    const look = async (condition: string): Promise<void> => {
      const [rows] = await connection.query<RowDataPacket[]>(`SELECT name, n FROM item WHERE ${condition}`)
      this.seen.push(Object.fromEntries(rows.map(({ name, n }) => [name, n])))
    }
    switch (operation.does) {
      case 'read':
        return look(`name = '${operation.item}'`)
      case 'find':
        return look(operation.where.sql)
      case 'write':
        await connection.query('UPDATE item SET n = ? WHERE name = ?', [
          operation.to(this.seen),
          operation.item,
        ])
        return
      case 'insert':
        await connection.query('INSERT INTO item VALUES (?, ?)', [operation.item, operation.n])
        return
      case 'add to all':
        await connection.query('UPDATE item SET n = n + ?', [operation.n])
        return
      case 'delete':
        await connection.query(`DELETE FROM item WHERE ${operation.where.sql}`)
        return
      case 'commit':
        await connection.query('COMMIT')
        this.committed = true
        return
      case 'abort':
        await connection.query('ROLLBACK')
    }
  }
}

/** @param settings what each connection is set to */
export async function playRaw(db: TestDatabase, schedule: Schedule, settings: string): Promise<Outcome> {
  await reset(db, START)
  const parties = new Map<Who, RawParty>()
  const losses = new Set<string>()
  const connections: Connection[] = []
  try {
    for (const who of new Set(schedule.steps.map(([one]) => one))) {
      const connection = await mysql.createConnection(db.url)
      connections.push(connection)
      await connection.query(`SET SESSION autocommit = 0, SESSION innodb_lock_wait_timeout = 10, ${settings}`)
      parties.set(who, new RawParty(connection, errno => losses.add(String(errno))))
    }
    const { waited } = await play(db, schedule, who => parties.get(who) as RawParty)
    const committed = [...parties].filter(([, party]) => party.committed)
    const history = {
      seen: Object.fromEntries(committed.map(([who, { seen }]) => [who, seen])),
      left: await rowsLeft(db),
    }
    return { anomaly: schedule.anomaly(history), losses: [...losses], waited, history }
  } finally {
    for (const connection of connections) connection.destroy()
  }
}

export async function reset(db: TestDatabase, rows: Seen): Promise<void> {
  await db.pool.query('DELETE FROM item')
  for (const [name, n] of Object.entries(rows))
    await db.pool.query('INSERT INTO item VALUES (?, ?)', [name, n])
}

export async function rowsLeft(db: TestDatabase): Promise<Seen> {
  const [rows] = await db.pool.query<RowDataPacket[]>('SELECT name, n FROM item')
  return Object.fromEntries(rows.map(({ name, n }) => [name, n]))
}
