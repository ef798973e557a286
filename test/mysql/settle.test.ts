/**
 * The forcing resolver in SQL: an owner with a transaction through a slot, and one who wants to know what became of it,
 * in every order. The owner's statements are those that decision.ts sends, one by one.
 */
import mysql, { type Connection } from 'mysql2'
import {
  COMMIT_TABLE_DDL,
  decideSlot,
  dropForsaken,
  insertSlot,
} from '../../lib/mysql/commit-record/commit-table.js'
import { detectServer, takeOver } from '../../lib/mysql/lease/connection-settings.js'
import type { CoreConnection } from '../../lib/mysql/driver.js'
import { settleOn, type Verdict, type Victim } from '../../lib/mysql/commit-record/settle.js'
import { openDatabase, type TestDatabase } from '../support/database.js'
import { valueOf } from '../support/observing.js'
import { openProxy } from '../support/proxy.js'

let db: TestDatabase
let slot: string
let slots = 0
const connections: Connection[] = []

beforeAll(async () => {
  db = await openDatabase({ connectionLimit: 2 })
  await db.pool.query(COMMIT_TABLE_DDL)
  await db.pool.query('CREATE TABLE item (id VARCHAR(20) PRIMARY KEY, n INT NOT NULL) ENGINE=InnoDB')
})
afterAll(() => db.close())
beforeEach(async () => {
  slot = `slot-${++slots}`
  await db.pool.query(insertSlot(slot))
  await db.pool.query('INSERT INTO item VALUES (?, 0)', [slot])
})
afterEach(async () => {
  for (const connection of connections.splice(0)) connection.destroy()
})

function connect(url = db.url): Connection {
  const connection = mysql.createConnection(url)
  connection.on('error', () => {})
  connections.push(connection)
  return connection
}

const send = (connection: Connection, sql: string): Promise<{ affectedRows: number; serverStatus: number }> =>
  new Promise((resolve, reject) => {
    connection.query(sql, (error, result) =>
      error ? reject(error) : resolve(result as unknown as { affectedRows: number; serverStatus: number }),
    )
  })

interface Owner {
  readonly connection: Connection
  readonly victim: Victim
  /** The handler's work, then the step of the record: how many rows it matched. */
  step(seq: number): Promise<number>
  commit(): Promise<unknown>
}

const asCore = (connection: Connection): CoreConnection => connection as unknown as CoreConnection

/** A connection as it is leased, at the level that notices the most. */
async function owner(url = db.url): Promise<Owner> {
  const connection = connect(url)
  const profile = await detectServer(asCore(connection), 'snapshot', 2_000)
  const { serverIdentity } = await takeOver(asCore(connection), profile)
  return {
    connection,
    victim: { threadId: connection.threadId, serverIdentity, since: 0 },
    step: async seq => {
      await send(connection, `UPDATE item SET n = n + 1 WHERE id = '${slot}'`)
      return (await send(connection, decideSlot(slot, seq, `tx-${seq}`, 'C'))).affectedRows
    },
    commit: () => send(connection, 'COMMIT'),
  }
}

const settle = (seq: number, victims: Victim[] = [], now = (): number => 0, url = db.url): Promise<Verdict> =>
  settleOn(asCore(connect(url)), { slot, seq, txid: `tx-${seq}` }, victims, now)

const effect = (): Promise<unknown> => valueOf(db, `SELECT n FROM ${db.name}.item WHERE id = ?`, [slot])
const record = (): Promise<unknown> =>
  valueOf(db, `SELECT CONCAT(seq, state) FROM ${db.name}.sessiontx_commits WHERE slot = ?`, [slot])

/** Resolves when a connection waits for a row lock. */
async function waiting(): Promise<void> {
  const sql =
    "SELECT COUNT(*) FROM information_schema.processlist WHERE DB = ? AND INFO LIKE 'SELECT % FOR UPDATE' AND STATE <> ''"
  while (Number(await valueOf(db, sql, [db.name])) === 0) await new Promise(setImmediate)
}

test('the owner has committed: committed', async () => {
  const one = await owner()
  expect(await one.step(1)).toBe(1)
  await one.commit()
  expect(await settle(1)).toEqual({ outcome: 'committed' })
  expect([await effect(), await record()]).toEqual([1, '1C'])
})

test('the owner is in flight: the resolver waits for it and learns that it committed', async () => {
  const one = await owner()
  await one.step(1)
  const settling = settle(1)
  await waiting()
  await one.commit()
  expect(await settling).toEqual({ outcome: 'committed' })
  expect(await effect()).toBe(1)
})

test('the owner is in flight and rolls back: the resolver closes the door behind it', async () => {
  const one = await owner()
  await one.step(1)
  const settling = settle(1)
  await waiting()
  await send(one.connection, 'ROLLBACK')
  expect(await settling).toEqual({ outcome: 'rolledBack' })
  expect([await effect(), await record()]).toEqual([0, '1A'])
})

test('the owner’s socket died before COMMIT: fenced, and asked again the answer is the same', async () => {
  const one = await owner()
  await one.step(1)
  one.connection.destroy()
  expect(await settle(1)).toEqual({ outcome: 'rolledBack' })
  expect(await settle(1)).toEqual({ outcome: 'rolledBack' })
  expect([await effect(), await record()]).toEqual([0, '1A'])
})

test.each(['before its view', 'after its view'])(
  'the fence comes first, %s: the owner’s step matches nothing or has lost, so it never commits',
  async when => {
    const one = await owner()
    if (when === 'after its view') await send(one.connection, 'SELECT n FROM item')
    expect(await settle(1)).toEqual({ outcome: 'rolledBack' })
    const step = one.step(1)
    // 1020: with snapshot isolation the row is younger than the transaction's view.
    if (when === 'after its view') await expect(step).rejects.toMatchObject({ errno: 1020 })
    else await expect(step).resolves.toBe(0)
    await send(one.connection, 'ROLLBACK')
    expect([await effect(), await record()]).toEqual([0, '1A'])
  },
)

test('any number of resolvers at once agree', async () => {
  const one = await owner()
  await one.step(1)
  const settling = Promise.all([1, 2, 3, 4].map(() => settle(1)))
  await waiting()
  one.connection.destroy()
  const verdicts = await settling
  expect(new Set(verdicts.map(({ outcome }) => outcome))).toEqual(new Set(['rolledBack']))
  expect([await effect(), await record()]).toEqual([0, '1A'])
})

describe('the owner’s connection is gone, and the server does not notice', () => {
  /** Its locks are held by a thread that waits for a command which never comes. */
  async function halfOpen(): Promise<Owner & { close(): Promise<void> }> {
    const proxy = await openProxy(db.url)
    const one = await owner(proxy.url)
    await one.step(1)
    void proxy.accident(/^COMMIT$/, 'command late')
    await expect(one.commit()).rejects.toMatchObject({ fatal: true })
    return { ...one, close: () => proxy.close() }
  }

  test('its thread is ended', async () => {
    const one = await halfOpen()
    expect(await settle(1, [one.victim])).toEqual({ outcome: 'rolledBack' })
    expect([await effect(), await record()]).toEqual([0, '1A'])
    await one.close()
  })

  test.each<readonly [string, (victim: Victim) => Victim[], number]>([
    ['there is nobody to end', () => [], 0],
    ['it was on another server', victim => [{ ...victim, serverIdentity: '["elsewhere"]' }], 0],
    ['the server was started since: the number is somebody else’s', victim => [victim], 365 * 86_400_000],
  ])('%s: nothing is killed, and nothing is known yet', async (_, changed, now) => {
    const one = await halfOpen()
    await expect(settle(1, changed(one.victim), () => now)).rejects.toMatchObject({ errno: 1205 })
    expect([await effect(), await record()]).toEqual([0, '0A'])
    await one.close()
    expect(await settle(1)).toEqual({ outcome: 'rolledBack' })
  })

  test('so is the thread of a try whose own COMMIT never arrived', async () => {
    const proxy = await openProxy(db.url)
    void proxy.accident(/^COMMIT$/, 'command late')
    const victims: Victim[] = []
    await expect(settle(1, victims, undefined, proxy.url)).rejects.toMatchObject({ fatal: true })
    expect(victims).toHaveLength(1)
    expect(await settle(1, victims)).toEqual({ outcome: 'rolledBack' })
    expect([await effect(), await record()]).toEqual([0, '1A'])
    await proxy.close()
  })
})

describe('a slot that tells nothing', () => {
  test('is not there', async () => {
    await db.pool.query('DELETE FROM sessiontx_commits WHERE slot = ?', [slot])
    expect(await settle(1)).toEqual({ outcome: 'unknown', seq: undefined })
    expect(await record()).toBeUndefined()
  })

  test.each([
    ['has moved on', 3],
    ['has gone back: the server has lost what it had committed', 1],
  ])('%s', async (_, found) => {
    await db.pool.query('UPDATE sessiontx_commits SET seq = ? WHERE slot = ?', [found, slot])
    const seq = found === 3 ? 2 : 3
    expect(await settle(seq)).toEqual({ outcome: 'unknown', seq: found })
    expect(await record()).toBe(`${found}A`)
  })

  test('has this number, but of another transaction: that one made the step, so this one never will', async () => {
    await db.pool.query("UPDATE sessiontx_commits SET seq = 1, txid = 'other', state = 'C' WHERE slot = ?", [
      slot,
    ])
    expect(await settle(1)).toEqual({ outcome: 'rolledBack' })
  })
})

describe('a forsaken slot is dropped', () => {
  const forsake = `UPDATE sessiontx_commits SET seen_at = '2001-01-01' WHERE slot = ?`

  test('and its owner, who lives after all, can never commit through it', async () => {
    await db.pool.query(forsake, [slot])
    const one = await owner()
    await db.pool.query(dropForsaken(slot, 0))
    expect(await one.step(1)).toBe(0)
    await send(one.connection, 'ROLLBACK')
    expect([await effect(), await record()]).toEqual([0, undefined])
  })

  test('but not from under a transaction in flight: that is waited for, and keeps it', async () => {
    await db.pool.query(forsake, [slot])
    const one = await owner()
    expect(await one.step(1)).toBe(1)
    const dropping = db.pool.query(dropForsaken(slot, 0))
    const sql = "SELECT COUNT(*) FROM information_schema.processlist WHERE DB = ? AND INFO LIKE 'DELETE%'"
    while (Number(await valueOf(db, sql, [db.name])) === 0) await new Promise(setImmediate)
    await one.commit()
    await dropping
    expect([await effect(), await record()]).toEqual([1, '1C'])
  })
})

test('a row that others touch costs its owner the transaction: why nothing but the owner says that it lives', async () => {
  const one = await owner()
  await send(one.connection, 'SELECT n FROM item')
  await db.pool.query('UPDATE sessiontx_commits SET seen_at = seen_at + INTERVAL 1 SECOND WHERE slot = ?', [
    slot,
  ])
  await expect(one.step(1)).rejects.toMatchObject({ errno: 1020 })
  const other = await owner()
  await send(other.connection, 'SELECT n FROM item')
  await db.pool.query(insertSlot(`${slot}-late`))
  await expect(send(other.connection, decideSlot(`${slot}-late`, 1, 'tx', 'C'))).rejects.toMatchObject({
    errno: 1020,
  })
})
