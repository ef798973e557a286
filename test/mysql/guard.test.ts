/**
 * What the guard asks of the server, seen from the wire: nothing for tables that it knows, one look-up for a name that it
 * does not, none of it out of order; and that what it refuses is never sent.
 */
import mysql, { type Pool } from 'mysql2/promise'
import { type SessionTx, sessionTx, type SessionTxOptions, type Tx } from '../../lib/index.js'
import type { Environment } from '../../lib/transaction/clock.js'
import { fakeEnvironment, promptly } from '../support/clock.js'
import { openDatabase, type TestDatabase } from '../support/database.js'
import { valueOf } from '../support/observing.js'
import { openProxy, type Proxy } from '../support/proxy.js'

let db: TestDatabase
let proxy: Proxy
let pool: Pool
const undo: (() => unknown)[] = []

beforeAll(async () => {
  db = await openDatabase({ connectionLimit: 2 })
  await db.pool.query('CREATE TABLE item (id INT PRIMARY KEY, n INT NOT NULL) ENGINE=InnoDB')
  await db.pool.query('CREATE PROCEDURE harmless() UPDATE item SET n = n + 1 WHERE id = 1')
})
afterAll(() => db.close())
beforeEach(async () => {
  await db.pool.query('REPLACE INTO item VALUES (1, 0), (2, 0)')
  proxy = await openProxy(db.url)
  pool = mysql.createPool({ uri: proxy.url, connectionLimit: 1, multipleStatements: true })
})
afterEach(async () => {
  for (const one of undo.splice(0).reverse()) await one()
  await pool.end()
  await proxy.close()
})

function start(options: SessionTxOptions = {}, environment: Environment = promptly): SessionTx {
  const tx = sessionTx({ pool, ...options }, environment)
  undo.push(() => tx.close())
  return tx
}

/** The commands that `work` sends, once everything is set up; the look-ups under a short name. */
async function commandsOf(tx: SessionTx, work: (inner: Tx) => Promise<unknown>): Promise<string[]> {
  await tx.run(inner => inner.query('UPDATE item SET n = n'))
  const from = proxy.commands.length
  await tx.run(work).catch(() => {})
  return proxy.commands
    .slice(from)
    .map(sql => (sql.includes('information_schema') ? `look up ${sql.match(/x'/g)?.length ?? 0} names` : sql))
}

const LOOK_UP = 'look up 2 names'

test('for tables that are known nothing is asked, however they are written', async () => {
  const sql = [
    'UPDATE item SET n = 1',
    'DELETE FROM item WHERE id = 9',
    'INSERT IGNORE INTO `item` VALUES (1, 1)',
  ]
  const sent = await commandsOf(start(), async inner => {
    for (const one of sql) await inner.query(one)
  })
  expect(sent).toEqual([...sql, 'COMMIT'])
})

test('a name that is no table’s is looked up once, and again after a minute', async () => {
  const environment = fakeEnvironment()
  const tx = start({}, environment)
  const write = async (inner: Tx): Promise<void> => {
    for (let turn = 0; turn < 3; turn++) await inner.query('DELETE FROM nowhere').catch(() => {})
  }
  const failing = ['DELETE FROM nowhere', 'DELETE FROM nowhere', 'DELETE FROM nowhere', 'COMMIT']
  expect(await commandsOf(tx, write)).toEqual([LOOK_UP, ...failing])
  expect(await commandsOf(tx, write)).toEqual(failing)
  environment.clock.advance(60_000)
  expect(await commandsOf(tx, write)).toContain(LOOK_UP)
})

test('what is refused is not sent, nor anything else for it', async () => {
  const sent = await commandsOf(start(), async inner => {
    for (const sql of ['COMMIT', 'BEGIN', 'TRUNCATE item', 'SELECT 1; COMMIT'])
      await inner.query(sql).catch(() => {})
  })
  expect(sent).toEqual([])
})

test('statements that were not waited for are sent in the order they came, though the first is looked into', async () => {
  const tx = start()
  await tx.run(inner => inner.query('UPDATE item SET n = n'))
  await db.pool.query('CREATE TABLE young (id INT PRIMARY KEY) ENGINE=InnoDB')
  undo.push(() => db.pool.query('DROP TABLE young'))
  const sql = [
    'INSERT INTO young VALUES (1)',
    'DELETE FROM young',
    'CALL harmless()',
    'UPDATE item SET n = 5',
  ]
  const sent = await commandsOf(tx, inner => Promise.all(sql.map(one => inner.query(one))))
  // The procedure comes before the first answer: that a transaction is open is not known yet.
  expect(sent).toEqual([LOOK_UP, ...sql.slice(0, 2), 'DO 0', ...sql.slice(2), 'COMMIT'])
})

test('a procedure as the first statement gets a transaction that is known to be open; later ones need none', async () => {
  const sent = await commandsOf(start(), async inner => {
    await inner.query('CALL harmless()')
    await inner.query('CALL harmless()')
  })
  expect(sent).toEqual(['START TRANSACTION', 'CALL harmless()', 'CALL harmless()', 'COMMIT'])
  expect(
    await commandsOf(start(), async inner => {
      await inner.query('SELECT n FROM item')
      await inner.query('CALL harmless()')
    }),
  ).toEqual(['SELECT n FROM item', 'CALL harmless()', 'COMMIT'])
})

test('after statements that opened none it is asked for first, and a savepoint is not forgotten for it', async () => {
  const sent = await commandsOf(start(), async inner => {
    await inner.query('SELECT 1')
    await inner.query('CALL harmless()')
  })
  expect(sent).toEqual(['SELECT 1', 'DO 0', 'START TRANSACTION', 'CALL harmless()', 'COMMIT'])
  const within = await commandsOf(start(), async inner => {
    await inner.query('SELECT 1')
    await inner.savepoint(() => inner.query('CALL harmless()'))
  })
  expect(within).toEqual(['SELECT 1', 'SAVEPOINT sessiontx_1', 'DO 0', 'CALL harmless()', 'COMMIT'])
})

test('a lost race asks for warnings only where a table exists that cannot roll back', async () => {
  const lose = async (inner: Tx): Promise<void> => {
    await inner.query('SELECT n FROM item WHERE id = 1')
    await db.admin.query(`UPDATE ${db.name}.item SET n = n + 1 WHERE id = 1`)
    await inner.query('UPDATE item SET n = 0 WHERE id = 1')
  }
  // A user who sees the tables of this test only, not those of others that run beside it.
  await db.admin.query(`CREATE USER ${db.name}`)
  undo.push(() => db.admin.query(`DROP USER ${db.name}`))
  await db.admin.query(`GRANT ALL ON ${db.name}.* TO ${db.name}`)
  await pool.end()
  const open = () => mysql.createPool({ uri: proxy.url, user: db.name, connectionLimit: 1 })
  pool = open()
  const retry = { retries: 0 }
  expect(await commandsOf(start({ retry }), lose)).not.toContain('SHOW WARNINGS')
  await undo.pop()?.()
  await db.pool.query('CREATE TABLE old (id INT) ENGINE=MyISAM')
  undo.push(() => db.pool.query('DROP TABLE old'))
  expect(await commandsOf(start({ retry }), lose)).toContain('SHOW WARNINGS')
})

test('the lexer reads as the server of the pool does: ANSI_QUOTES, NO_BACKSLASH_ESCAPES', async () => {
  await db.pool.query('CREATE TABLE old (id INT) ENGINE=MyISAM')
  undo.push(() => db.pool.query('DROP TABLE old'))
  const other = mysql.createPool({ uri: db.url, connectionLimit: 1, multipleStatements: true })
  other.on('connection', connection => {
    void connection.query("SET sql_mode = 'ANSI_QUOTES,NO_BACKSLASH_ESCAPES'")
  })
  undo.push(() => other.end())
  const tx = sessionTx({ pool: other }, promptly)
  undo.push(() => tx.close())
  await expect(tx.run(inner => inner.query('DELETE FROM "old"'))).rejects.toMatchObject({
    code: 'NOT_TRANSACTIONAL',
  })
  await expect(tx.run(inner => inner.query("SELECT 'a\\'; COMMIT; -- '"))).rejects.toMatchObject({
    code: 'TRANSACTION_CONTROL',
  })
  await tx.run(inner => inner.query('UPDATE "item" SET n = 3 WHERE id = 2'))
  expect(await valueOf(db, `SELECT n FROM ${db.name}.item WHERE id = 2`)).toBe(3)
})

test('a connection without a current schema: qualified names are judged, unqualified ones are the server’s business', async () => {
  await db.pool.query('CREATE TABLE old (id INT) ENGINE=MyISAM')
  undo.push(() => db.pool.query('DROP TABLE old'))
  const url = new URL(db.url)
  url.pathname = '/'
  const other = mysql.createPool({ uri: url.href, connectionLimit: 1 })
  undo.push(() => other.end())
  const tx = sessionTx({ pool: other }, promptly)
  undo.push(() => tx.close())
  const send = (sql: string) => tx.run(inner => inner.query(sql))
  await expect(send(`DELETE FROM ${db.name}.old`)).rejects.toMatchObject({ code: 'NOT_TRANSACTIONAL' })
  await expect(send('DELETE FROM old')).rejects.toMatchObject({ errno: 1046 })
  const used = tx.run(async inner => {
    await inner.query(`USE ${db.name}`)
    await inner.query('DELETE FROM old')
  })
  await expect(used).rejects.toMatchObject({ code: 'NOT_TRANSACTIONAL' })
  await expect(send(`USE ${db.name}; DELETE FROM old`)).rejects.toMatchObject({ code: 'NOT_TRANSACTIONAL' })
})
