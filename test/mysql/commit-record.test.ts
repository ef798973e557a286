/**
 * The commit record, seen from the wire and from the table: what it adds to a transaction, and what is found out about
 * a COMMIT that is not answered. A proxy in front of the real server loses what is to be lost.
 */
import mysql, { type Pool } from 'mysql2/promise'
import { memoryStore, type SessionTx, sessionTx, type SessionTxOptions, type Tx } from '../../lib/index.js'
import { COMMIT_TABLE_DDL } from '../../lib/mysql/commit-record/commit-table.js'
import type { Environment } from '../../lib/transaction/clock.js'
import { deferred } from '../support/barrier.js'
import { fakeEnvironment, promptly } from '../support/clock.js'
import { openDatabase, type TestDatabase } from '../support/database.js'
import { nothingOpen, observedStore, valueOf } from '../support/observing.js'
import { type Accident, openProxy, type Proxy } from '../support/proxy.js'

let db: TestDatabase
let proxy: Proxy
let pool: Pool
const undo: (() => unknown)[] = []

beforeAll(async () => {
  db = await openDatabase({ connectionLimit: 2 })
  await db.pool.query('CREATE TABLE item (id INT PRIMARY KEY, n INT NOT NULL) ENGINE=InnoDB')
  await db.pool.query(COMMIT_TABLE_DDL)
})
afterAll(() => db.close())
beforeEach(async () => {
  await db.pool.query('REPLACE INTO item VALUES (1, 0), (2, 0)')
  proxy = await openProxy(db.url)
  pool = mysql.createPool({ uri: proxy.url, connectionLimit: 2 })
})
afterEach(async () => {
  for (const one of undo.splice(0).reverse()) await one()
  await pool.end()
  await proxy.close()
})

function start(options: SessionTxOptions = {}, environment: Environment = promptly): SessionTx {
  const tx = sessionTx({ pool, commitRecord: 'always', ...options }, environment)
  undo.push(() => tx.close())
  return tx
}

const row = (id = 1): Promise<unknown> => valueOf(db, `SELECT n FROM ${db.name}.item WHERE id = ?`, [id])
const slots = (): Promise<unknown> => valueOf(db, `SELECT COUNT(*) FROM ${db.name}.sessiontx_commits`)

/** The commands that `work` sends. */
async function commandsOf(work: () => Promise<unknown>): Promise<string[]> {
  const from = proxy.commands.length
  await work()
  return proxy.commands.slice(from)
}

/** Resolves when such a command has been sent. */
async function sent(matches: RegExp): Promise<void> {
  while (!proxy.commands.some(command => matches.test(command))) await new Promise(setImmediate)
}
const swept = (): Promise<void> => sent(/^SELECT slot, seq FROM sessiontx_commits/)

const add = (tx: Tx, n = 1): Promise<unknown> => tx.query('UPDATE item SET n = n + ? WHERE id = 1', [n])

/** Takes a connection, and is over when it is free again: a request that is rolled back waits for that. */
async function connect(tx: Tx): Promise<void> {
  await tx.query('SELECT 1')
  tx.doom()
}

/** A session with `n = 1`, how to read it again, and how to add to it and to the row; a connection is there by then. */
async function session(tx: SessionTx) {
  await tx.run(connect)
  const id = await tx.run((_, made) => {
    made['n'] = 1
    return made.id
  })
  const runs = { count: 0 }
  return {
    id,
    runs,
    read: () => tx.run((_, found) => found['n'], { sessionId: id }),
    both: () =>
      tx.run(
        async (inner, found) => {
          runs.count += 1
          found['n'] = Number(found['n']) + 1
          await add(inner)
        },
        { sessionId: id },
      ),
  }
}

describe('what it adds to a transaction', () => {
  const work = async (inner: Tx): Promise<void> => {
    await inner.query('SELECT n FROM item WHERE id = 1')
    await add(inner)
  }

  test('one command, right before COMMIT: N + 2 for a request that writes', async () => {
    const tx = start()
    await tx.run(work)
    await swept()
    expect(await commandsOf(() => tx.run(work))).toEqual([
      'SELECT n FROM item WHERE id = 1',
      'UPDATE item SET n = n + 1 WHERE id = 1',
      expect.stringMatching(
        /^UPDATE sessiontx_commits SET seq = 2, txid = '[\w-]+', state = 'C', .* AND seq = 1$/,
      ),
      'COMMIT',
    ])
  })

  test.each(['off', 'auto'] as const)(
    "none with '%s' and a memoryStore: N + 1, and no table is needed",
    async how => {
      const tx = start({ commitRecord: how })
      await tx.run(work)
      expect(await commandsOf(() => tx.run(work))).toHaveLength(3)
      expect(proxy.commands.filter(command => command.includes('sessiontx_commits'))).toEqual([])
      expect(tx.stats().inDoubt).toBeNull()
    },
  )

  test("with 'auto' it is there for what the store announces, and for nothing else", async () => {
    const store = { ...observedStore(memoryStore(), []), capability: 'staged' as const }
    const tx = start({ commitRecord: 'auto', store })
    await tx.run(work)
    await swept()
    expect(await commandsOf(() => tx.run(work))).toHaveLength(3)
    expect(tx.stats().inDoubt).toBe(0)
  })

  test.each([
    ['that only reads', 'SELECT COUNT(*), MAX(n) FROM item WHERE id IN (1, 2)', false],
    ['that reads with a lock', 'SELECT n FROM item FOR UPDATE', true],
    ['that calls what may be a stored function', 'SELECT changes_something(1)', true],
  ])('of a request %s', async (_, sql, recorded) => {
    await db.pool.query('CREATE FUNCTION IF NOT EXISTS changes_something(i INT) RETURNS INT RETURN i')
    const tx = start()
    await tx.run(inner => inner.query(sql))
    await swept()
    const sent = await commandsOf(() => tx.run(inner => inner.query(sql)))
    expect(sent.filter(command => command !== 'COMMIT')).toHaveLength(recorded ? 2 : 1)
  })

  test('a connection has one slot, which it keeps; close() drops the rows', async () => {
    const tx = start()
    for (let turn = 0; turn < 5; turn++) await tx.run(work)
    const made = proxy.commands.filter(command => command.startsWith('INSERT INTO sessiontx_commits'))
    expect(made).toHaveLength(1)
    expect(await slots()).toBe(1)
    expect(await valueOf(db, `SELECT CONCAT(seq, state) FROM ${db.name}.sessiontx_commits`)).toBe('5C')
    await tx.close()
    expect(await slots()).toBe(0)
  })
})

describe('COMMIT is not answered', () => {
  test.each<readonly [Accident, 'committed' | 'rolledBack']>([
    ['answer lost', 'committed'],
    ['command lost', 'rolledBack'],
    ['command late', 'rolledBack'], // the server has not heard that the client is gone, and holds the locks
    ['answer late', 'committed'],
    ['stuck', 'rolledBack'],
  ])('%s: found to be %s; the effect is there once and the session agrees', async (accident, outcome) => {
    const tx = start({ retry: { deadlineMs: 4_000 } })
    const { both, read, runs } = await session(tx)
    const settled: unknown[] = []
    tx.on('settled', event => settled.push(event))
    const happened = proxy.accident(/^COMMIT$/, accident)
    // Where nothing breaks, it takes the deadline to lose patience, and then there is no time to run again.
    const silent = accident === 'answer late' || accident === 'stuck'
    const late = silent && outcome === 'rolledBack'
    if (late) await expect(both()).rejects.toMatchObject({ code: 'DEADLINE' })
    else await both()
    await happened
    expect(await row()).toBe(late ? 0 : 1)
    await expect(read()).resolves.toBe(late ? 1 : 2)
    expect(runs.count).toBe(outcome === 'committed' || late ? 1 : 2)
    expect(settled).toEqual([expect.objectContaining({ outcome, late: false })])
    expect(tx.stats()).toMatchObject({
      requests: { unknown: 0 },
      inDoubt: 0,
      settled: { [outcome]: 1 },
      conflicts: { byKind: outcome === 'committed' ? {} : { connection: 1 } },
    })
    await nothingOpen(db)
    await both()
    expect(await row()).toBe(late ? 1 : 2)
  })

  test('it is still on its way: the resolver waits for it and learns that it committed', async () => {
    const tx = start()
    const { both, read, runs } = await session(tx)
    const asked = deferred()
    proxy.onCommand = command => {
      if (/^SELECT .* FOR UPDATE$/.test(command)) asked.resolve()
    }
    void proxy.accident(/^COMMIT$/, 'command late', asked.promise)
    await both()
    expect(runs.count).toBe(1)
    expect([await row(), await read()]).toEqual([1, 2])
  })

  test('after-commit hooks run once, of the attempt that committed', async () => {
    const tx = start()
    await session(tx)
    const mails: number[] = []
    void proxy.accident(/^COMMIT$/, 'command lost')
    await tx.run(async inner => {
      inner.afterCommit(() => mails.push(inner.attempt))
      await add(inner)
    })
    expect(mails).toEqual([2])
  })
})

describe('the commit record cannot be written', () => {
  test.each(['command lost', 'answer lost'] as const)(
    '%s: COMMIT is not sent, so the request runs again, and the slot is used again',
    async accident => {
      const tx = start()
      const { both, read, runs } = await session(tx)
      void proxy.accident(/^UPDATE sessiontx_commits/, accident)
      await both()
      expect(runs.count).toBe(2)
      expect([await row(), await read()]).toEqual([1, 2])
      expect(tx.stats()).toMatchObject({ settled: { committed: 0, rolledBack: 0 } })
      await tx.close()
      expect(await slots()).toBe(0)
    },
  )

  test.each([
    ['has been fenced', "UPDATE sessiontx_commits SET seq = seq + 1, state = 'A'"],
    ['has been dropped', 'DELETE FROM sessiontx_commits'],
  ])(
    'the slot %s meanwhile: nothing of the attempt commits, and the next one takes another',
    async (_, sql) => {
      const tx = start()
      const { both, read, runs } = await session(tx)
      await both()
      await db.pool.query(sql)
      await both()
      expect(runs.count).toBe(3)
      expect([await row(), await read()]).toEqual([2, 3])
      expect(tx.stats().conflicts.byKind).toEqual({ connection: 1 })
      const finals = proxy.commands
        .filter(command => /^(ROLLBACK|COMMIT|UPDATE sess)/.test(command))
        .slice(-8)
      expect(finals.indexOf('ROLLBACK')).toBeGreaterThan(-1)
    },
  )

  test('it took longer than anybody waits: COMMIT is not sent afterwards', async () => {
    const tx = start({ retry: { deadlineMs: 500 } })
    const { both, read } = await session(tx)
    await both()
    const holder = await db.pool.getConnection()
    await holder.query('BEGIN')
    await holder.query('SELECT * FROM sessiontx_commits FOR UPDATE')
    await expect(both()).rejects.toMatchObject({ code: 'DEADLINE' })
    await holder.query('ROLLBACK')
    holder.release()
    await nothingOpen(db)
    expect([await row(), await read()]).toEqual([1, 2])
    expect(tx.stats().requests.unknown).toBe(0)
  })
})

/** Nobody gets through from its COMMIT on; resolves when the server has ended the transaction that it belongs to. */
async function cutAtCommit(work: () => Promise<unknown>): Promise<{ readonly ended: Promise<unknown> }> {
  const isCut = deferred()
  proxy.onCommand = command => {
    if (command !== 'COMMIT') return
    proxy.cut(true)
    isCut.resolve()
  }
  const ended = work()
  ended.catch(() => {})
  await isCut.promise
  await nothingOpen(db)
  return { ended }
}

describe('the server has lost what it had committed', () => {
  let warnings: string[]
  beforeEach(() => {
    warnings = []
    const spy = jest
      .spyOn(process, 'emitWarning')
      .mockImplementation(text => void warnings.push(String(text)))
    undo.push(() => spy.mockRestore())
  })

  test('noticed by the next transaction of the connection: said aloud, and the request runs again', async () => {
    const tx = start()
    const lost = deferred<number>()
    tx.on('commitsLost', ({ transactions }) => lost.resolve(transactions))
    const { both } = await session(tx)
    for (let turn = 0; turn < 3; turn++) await both()
    await db.pool.query("UPDATE sessiontx_commits SET seq = 1, txid = 'of-old' WHERE seq = 3")
    await both()
    await expect(lost.promise).resolves.toBe(2)
    expect(warnings).toEqual([expect.stringContaining('lost at least 2 committed transaction(s)')])
    expect(tx.stats().commitsLost).toBe(2)
  })

  test('noticed while an unknown COMMIT is settled: it stays unknown, and is not run again', async () => {
    const tx = start()
    const { both, read, runs } = await session(tx)
    for (let turn = 0; turn < 3; turn++) await both()
    const failed = await cutAtCommit(both)
    await db.pool.query('UPDATE sessiontx_commits SET seq = 1')
    proxy.onCommand = () => {}
    proxy.cut(false)
    const error: unknown = await failed.ended.catch((thrown: unknown) => thrown)
    expect(error).toMatchObject({
      code: 'COMMIT_UNKNOWN',
      errors: [{ message: expect.stringContaining('is at 1') as string }],
    })
    expect(runs.count).toBe(4)
    await expect(read()).resolves.toBe(4)
    expect(tx.stats()).toMatchObject({ settled: { unknown: 1 }, commitsLost: 2, inDoubt: 0 })
    expect(warnings).toHaveLength(2)
  })

  test('the row is gone: it stays unknown, and says why', async () => {
    const tx = start()
    const { both } = await session(tx)
    await both()
    const failed = await cutAtCommit(both)
    await db.pool.query('DELETE FROM sessiontx_commits')
    proxy.onCommand = () => {}
    proxy.cut(false)
    await expect(failed.ended).rejects.toMatchObject({ code: 'COMMIT_UNKNOWN' })
    expect(warnings).toEqual([expect.stringContaining('which is not there any more')])
    expect(tx.stats().settled.unknown).toBe(1)
  })
})

describe('the table', () => {
  test('is not there: MISCONFIGURED names the command that makes it, and nothing makes it silently', async () => {
    await db.pool.query('RENAME TABLE sessiontx_commits TO away')
    undo.push(() => db.pool.query('RENAME TABLE away TO sessiontx_commits'))
    const tx = start()
    await expect(tx.run(inner => add(inner))).rejects.toMatchObject({
      code: 'MISCONFIGURED',
      message: expect.stringMatching(
        /needs the table sessiontx_commits: make it with `npx session-tx migrate/,
      ) as string,
    })
    expect(await row()).toBe(0)
    expect(await valueOf(db, `SHOW TABLES FROM ${db.name} LIKE 'sessiontx%'`)).toBeUndefined()
  })

  test('vanishes while it is used: MISCONFIGURED, and nothing is stored', async () => {
    const tx = start()
    const { both, read } = await session(tx)
    await both()
    await db.pool.query('RENAME TABLE sessiontx_commits TO away')
    undo.push(() => db.pool.query('RENAME TABLE away TO sessiontx_commits'))
    await expect(both()).rejects.toMatchObject({ code: 'MISCONFIGURED' })
    expect([await row(), await read()]).toEqual([1, 2])
  })

  test('may not be written: MISCONFIGURED names the privileges', async () => {
    const user = `u_${db.name}`
    await db.admin.query(`CREATE USER ${user}@'%'`)
    undo.push(() => db.admin.query(`DROP USER ${user}@'%'`))
    await db.admin.query(`GRANT SELECT, UPDATE ON ${db.name}.* TO ${user}@'%'`)
    const url = new URL(db.url)
    url.username = user
    url.password = ''
    const poor = mysql.createPool({ uri: url.href })
    undo.push(() => poor.end())
    const tx = start({ pool: poor })
    await expect(tx.run(inner => add(inner))).rejects.toMatchObject({
      code: 'MISCONFIGURED',
      message: expect.stringContaining('SELECT, INSERT, UPDATE and DELETE on sessiontx_commits') as string,
    })
  })
})

describe('slots', () => {
  test('of processes that ended without close() are dropped by the next one, an hour later', async () => {
    const insert = 'INSERT INTO sessiontx_commits VALUES (?, 7, ?, ?, UTC_TIMESTAMP() - INTERVAL ? MINUTE)'
    for (const minutes of [59, 61]) await db.pool.query(insert, [`old-${minutes}`, 'x', 'C', minutes])
    const tx = start()
    await tx.run(inner => add(inner))
    await sent(/^DELETE FROM sessiontx_commits/)
    await tx.close()
    expect(await valueOf(db, `SELECT GROUP_CONCAT(slot) FROM ${db.name}.sessiontx_commits`)).toBe('old-59')
    await db.pool.query('DELETE FROM sessiontx_commits')
  })

  test('that have rested for half of that are not relied on: the connection is set up anew', async () => {
    const refreshed = (): number =>
      proxy.commands.filter(command => command.startsWith('UPDATE sessiontx_commits SET seen_at')).length
    const environment = fakeEnvironment()
    const single = mysql.createPool({ uri: proxy.url, connectionLimit: 1 })
    undo.push(() => single.end())
    const tx = start({ pool: single }, environment)
    await tx.run(inner => add(inner))
    environment.clock.advance(20 * 60_000)
    await tx.run(inner => add(inner)) // says so itself
    environment.clock.advance(20 * 60_000)
    await tx.run(inner => add(inner))
    expect(refreshed()).toBe(0)
    environment.clock.advance(31 * 60_000)
    await tx.run(connect)
    await tx.run(inner => add(inner))
    expect(refreshed()).toBe(1)
    expect(await slots()).toBe(1)
    expect(await row()).toBe(4)
  })

  test('go with their connection and come with the next: as many rows as connections, not as requests', async () => {
    const tx = start()
    const work = async (inner: Tx): Promise<void> => {
      await inner.query("SELECT GET_LOCK('dirty', 0)") // such a connection is destroyed
      await add(inner)
    }
    for (let turn = 0; turn < 4; turn++) await tx.run(work)
    expect(await slots()).toBe(1)
    await Promise.all([1, 2, 3, 4, 5, 6].map(() => tx.run(work)))
    expect(await slots()).toBe(2)
  })
})
