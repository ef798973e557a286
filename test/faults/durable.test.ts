/**
 * What the resolver has told survives a crash. InnoDB frees the locks of a commit before the commit is flushed, so the
 * resolver can see one that a crash would still undo; here the server is told not to flush the owner's at all.
 */
import mysql, { type Connection, type RowDataPacket } from 'mysql2'
import { COMMIT_TABLE_DDL, decideSlot, insertSlot } from '../../lib/mysql/commit-record/commit-table.js'
import type { CoreConnection } from '../../lib/mysql/driver.js'
import { settleOn } from '../../lib/mysql/commit-record/settle.js'
import { ownServer, type OwnServer } from '../support/own-server.js'

let server: OwnServer
beforeAll(async () => {
  server = await ownServer()
}, 120_000)
afterAll(() => server.close())

function connect(): Connection {
  const connection = mysql.createConnection(server.url)
  connection.on('error', () => {})
  return connection
}

const send = (connection: Connection, sql: string): Promise<unknown> =>
  new Promise((resolve, reject) => {
    connection.query(sql, (error, rows) => (error ? reject(error) : resolve(rows)))
  })

test.each([
  ['C', 'committed'],
  ['A', 'rolledBack'],
] as const)(
  '%s, told as %s, is there after kill -9 right after that',
  async (state, outcome) => {
    const slot = `slot-${state}`
    const owner = connect()
    await send(owner, COMMIT_TABLE_DDL)
    await send(owner, insertSlot(slot))
    await send(owner, 'SET GLOBAL innodb_flush_log_at_timeout = 1000')
    await send(owner, 'SET GLOBAL innodb_flush_log_at_trx_commit = 0')
    await send(owner, decideSlot(slot, 1, 'tx', state))
    await send(owner, 'SET GLOBAL innodb_flush_log_at_trx_commit = 1')

    const resolver = connect()
    const asCore = resolver as unknown as CoreConnection
    const verdict = await settleOn(asCore, { slot, seq: 1, txid: 'tx' }, [], () => 0)
    await server.kill()
    expect(verdict).toEqual({ outcome })
    for (const connection of [owner, resolver]) connection.destroy()

    await server.start()
    const looking = connect()
    const rows = (await send(
      looking,
      `SELECT seq, state FROM sessiontx_commits WHERE slot = '${slot}'`,
    )) as RowDataPacket[]
    looking.destroy()
    expect(rows).toEqual([{ seq: 1, state }])
  },
  60_000,
)
