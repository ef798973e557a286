/**
 * Leases: whose connection it is, in whose settings, and that nobody waits in vain or notices what we did
 * with it.
 */
import { createConnection, createPool, createPoolCluster, type Pool, type PoolOptions } from 'mysql2'
import mysqlPromise from 'mysql2/promise'
import { corePoolOf } from '../../lib/mysql/driver.js'
import { LeaseBroker, type Lease, type LeaseBrokerOptions } from '../../lib/mysql/lease/lease.js'
import type { Clock, Timer } from '../../lib/transaction/clock.js'
import { openDatabase, type TestDatabase } from '../support/database.js'

class FakeClock implements Clock {
  #now = 0
  readonly timers = new Set<{ at: number; fire: () => void }>()
  now(): number {
    return this.#now
  }
  wallNow(): number {
    return this.#now
  }
  after(delayMs: number, fire: () => void): Timer {
    const timer = { at: this.#now + delayMs, fire }
    this.timers.add(timer)
    return { cancel: () => void this.timers.delete(timer) }
  }
  advance(ms: number): void {
    this.#now += ms
    for (const timer of [...this.timers]) {
      if (timer.at <= this.#now && this.timers.delete(timer)) timer.fire()
    }
  }
}

const SETTINGS =
  'autocommit, @@tx_isolation, @@innodb_lock_wait_timeout, @@lock_wait_timeout, @@innodb_snapshot_isolation'
const READ = `SELECT @@${SETTINGS.replace('autocommit', 'autocommit AS a')}`
const ORIGINAL = [1, 'REPEATABLE-READ', 50, 86_400, 0]
const OURS = [0, 'REPEATABLE-READ', 2, 2, 1]

let db: TestDatabase
const undo: (() => unknown)[] = []

beforeAll(async () => {
  db = await openDatabase()
  await db.pool.query('CREATE TABLE acc (id INT PRIMARY KEY, n INT) ENGINE=InnoDB')
})
afterAll(() => db.close())
beforeEach(() => db.pool.query('REPLACE INTO acc VALUES (1, 0)'))
afterEach(async () => {
  for (const one of undo.splice(0).reverse()) await one()
})

function setUp(poolOptions: PoolOptions = {}, brokerOptions: Partial<LeaseBrokerOptions> = {}) {
  const pool = createPool({ uri: db.url, connectionLimit: 1, ...poolOptions })
  undo.push(() =>
    pool
      .promise()
      .end()
      .catch(() => {}),
  )
  return { pool, ...brokerOf(pool, brokerOptions) }
}

function brokerOf(pool: Pool, options: Partial<LeaseBrokerOptions> = {}) {
  const clock = new FakeClock()
  const made = new LeaseBroker(corePoolOf(pool), {
    isolation: 'snapshot',
    lockWaitMs: 1_500,
    clock,
    ...options,
  })
  undo.push(() => made.close())
  return { broker: made, clock }
}

function send(lease: Lease, sql: string): Promise<unknown> {
  return new Promise((resolve, reject) =>
    lease.connection.query(sql, (error, rows) => (error ? reject(error) : resolve(rows))),
  )
}

async function settingsOf(lease: Lease): Promise<unknown[]> {
  const [row] = (await send(lease, READ)) as object[]
  return Object.values(row ?? {})
}

/** The settings of every connection that the pool has, each asked while all the others are held. */
async function settingsInPool(pool: Pool, connections: number): Promise<unknown[][]> {
  const held = await Promise.all(Array.from({ length: connections }, () => pool.promise().getConnection()))
  const rows = await Promise.all(held.map(one => one.query({ sql: READ, rowsAsArray: true })))
  for (const one of held) one.release()
  return rows.map(([lines]) => (lines as unknown as unknown[][])[0] ?? [])
}

async function committed(): Promise<number> {
  const [[row]] = (await db.admin.query(`SELECT n FROM ${db.name}.acc WHERE id = 1`)) as unknown as [
    [{ n: number }],
  ]
  return row.n
}

/** Resolves when the pool says so; ask before it can. */
const once = (pool: Pool, event: 'release' | 'enqueue') =>
  new Promise<void>(resolve => pool.once(event, () => resolve()))
const threadOf = (lease: Lease) => lease.connection.threadId

describe('settings', () => {
  test('a lease has ours; rounded up to whole seconds', async () => {
    const { broker } = setUp()
    const lease = await broker.acquire(5_000)
    expect(await settingsOf(lease)).toEqual(OURS)
    expect(lease.server).toMatchObject({
      flavour: 'mariadb',
      snapshotIsolation: true,
      galera: false,
      rowSnapshot: true,
    })
    expect(lease.server.version).toMatch(/MariaDB/)
    lease.release()
  })

  test.each([
    ['read committed', 'READ-COMMITTED', 0, false],
    ['repeatable read', 'REPEATABLE-READ', 0, true],
    ['snapshot', 'REPEATABLE-READ', 1, true],
    ['serializable', 'SERIALIZABLE', 1, false],
  ] as const)('%s', async (isolation, level, snapshot, rowSnapshot) => {
    const { broker } = setUp({}, { isolation })
    const lease = await broker.acquire(5_000)
    expect(await settingsOf(lease)).toEqual([0, level, 2, 2, snapshot])
    expect(lease.server.rowSnapshot).toBe(rowSnapshot)
    lease.release()
  })

  test('after a second of idleness every connection in the pool has its own back', async () => {
    const { pool, broker, clock } = setUp({ connectionLimit: 3 })
    const leases = await Promise.all([1, 2, 3].map(() => broker.acquire(5_000)))
    for (const lease of leases) lease.release()
    clock.advance(999)
    const back = new Promise<void>(resolve => {
      let count = 0
      pool.on('release', () => ++count === 3 && resolve())
    })
    clock.advance(1)
    await back
    expect(clock.timers.size).toBe(0)
    expect(await settingsInPool(pool, 3)).toEqual([ORIGINAL, ORIGINAL, ORIGINAL])
  })

  test("so it has after close, also what the application set on 'connection'", async () => {
    const { pool, broker } = setUp({ connectionLimit: 2 })
    pool.on('connection', connection => {
      connection.query('SET SESSION innodb_lock_wait_timeout = 7, lock_wait_timeout = 8')
      connection.query("SET SESSION tx_isolation = 'READ-COMMITTED', innodb_snapshot_isolation = ON")
    })
    const [idle, used] = await Promise.all([broker.acquire(5_000), broker.acquire(5_000)])
    expect(await settingsOf(used as Lease)).toEqual(OURS)
    idle?.release()
    await broker.close()
    const back = once(pool, 'release')
    used?.release()
    await back
    const theirs = [1, 'READ-COMMITTED', 7, 8, 1]
    expect(await settingsInPool(pool, 2)).toEqual([theirs, theirs])
  })

  test('whatever the application configured for its own results does not disturb the set-up', async () => {
    const typeCast = () => 'nonsense'
    const { pool, broker } = setUp({
      typeCast,
      namedPlaceholders: true,
      nestTables: true,
      supportBigNumbers: true,
    } as PoolOptions)
    const lease = await broker.acquire(5_000)
    expect(lease.server.flavour).toBe('mariadb')
    lease.release()
    await broker.close()
    const plain = { nestTables: false, typeCast: (_: unknown, next: () => unknown) => next() }
    const [rows] = await pool.promise().query({ sql: READ, rowsAsArray: true, ...plain } as never)
    expect(rows).toEqual([ORIGINAL])
  })

  test('a transaction that somebody left open is not ours to commit', async () => {
    const { pool, broker } = setUp()
    await pool.promise().query('START TRANSACTION')
    await pool.promise().query('UPDATE acc SET n = 99')
    const lease = await broker.acquire(5_000)
    await send(lease, 'COMMIT')
    expect(await committed()).toBe(0)
    lease.release()
  })
})

describe("the application's own queries (acceptance 55)", () => {
  const update = (pool: Pool) => pool.promise().query('UPDATE acc SET n = n + 1 WHERE id = 1')

  test('one that needs the connection we keep idle is committed', async () => {
    const { pool, broker } = setUp()
    ;(await broker.acquire(5_000)).release()
    await update(pool)
    expect(await committed()).toBe(1)
    expect(await settingsInPool(pool, 1)).toEqual([ORIGINAL])
  })

  test('one that waited in the queue for a request of ours is committed', async () => {
    const { pool, broker } = setUp()
    const lease = await broker.acquire(5_000)
    const waits = once(pool, 'enqueue')
    const updated = update(pool)
    await waits
    await send(lease, 'UPDATE acc SET n = n + 10 WHERE id = 1')
    await send(lease, 'COMMIT')
    lease.release()
    await updated
    expect(await committed()).toBe(11)
  })

  test('one that waits is served before our next request', async () => {
    const { pool, broker } = setUp()
    const log: string[] = []
    const lease = await broker.acquire(5_000)
    const ours = ['a', 'b'].map(name =>
      broker.acquire(5_000).then(next => {
        log.push(name)
        next.release()
      }),
    )
    const theirs = update(pool).then(() => log.push('application'))
    lease.release()
    await Promise.all([...ours, theirs])
    expect(log).toEqual(['application', 'a', 'b'])
    expect(await committed()).toBe(1)
  })

  test('with many on both sides nobody waits in vain and every update is committed', async () => {
    const { pool, broker } = setUp({ connectionLimit: 3 })
    const ours = async () => {
      for (let i = 0; i < 20; i += 1) {
        const lease = await broker.acquire(10_000)
        await send(lease, 'UPDATE acc SET n = n + 1 WHERE id = 1')
        await send(lease, 'COMMIT')
        lease.release()
      }
    }
    const theirs = async () => {
      for (let i = 0; i < 20; i += 1) await update(pool)
    }
    await Promise.all([ours(), theirs(), ours(), theirs(), ours(), theirs(), ours()])
    expect(await committed()).toBe(140)
    await broker.close()
    expect(await settingsInPool(pool, 3)).toEqual([ORIGINAL, ORIGINAL, ORIGINAL])
  })

  test('with waitForConnections off a connection goes back after every request', async () => {
    const { pool, broker } = setUp({ waitForConnections: false })
    const lease = await broker.acquire(5_000)
    await expect(broker.acquire(5_000)).rejects.toMatchObject({ code: 'STORE_UNAVAILABLE' })
    const back = once(pool, 'release')
    lease.release()
    await back
    await update(pool)
    expect(await committed()).toBe(1)
  })

  test('a second broker on the same pool is a stranger like any other', async () => {
    const { pool, broker: first } = setUp()
    const { broker: second } = brokerOf(pool, { isolation: 'serializable' })
    ;(await first.acquire(5_000)).release()
    const lease = await second.acquire(5_000)
    expect(await settingsOf(lease)).toEqual([0, 'SERIALIZABLE', 2, 2, 1])
    const next = first.acquire(5_000)
    lease.release()
    const again = await next
    expect(await settingsOf(again)).toEqual(OURS)
    again.release()
  })
})

describe('between our own requests', () => {
  test('a released lease is the next one, without a word to the server and with one timer for all', async () => {
    const { broker, clock } = setUp()
    const first = await broker.acquire(5_000)
    const thread = threadOf(first)
    const count = async (lease: Lease) => {
      const [row] = (await send(lease, "SHOW SESSION STATUS LIKE 'Questions'")) as { Value: string }[]
      return Number(row?.Value)
    }
    const before = await count(first)
    first.release()
    for (let i = 0; i < 10; i += 1) (await broker.acquire(5_000)).release()
    const last = await broker.acquire(5_000)
    expect(threadOf(last)).toBe(thread)
    expect(await count(last)).toBe(before + 1)
    expect(clock.timers.size).toBe(1)
    last.release()
  })

  test('waiters are served in their order, and none of them queues in the pool', async () => {
    const { pool, broker } = setUp()
    const queued = jest.fn()
    pool.on('enqueue', queued)
    const lease = await broker.acquire(5_000)
    const log: number[] = []
    const all = [1, 2, 3, 4].map(n =>
      broker.acquire(5_000).then(next => {
        log.push(n)
        next.release()
      }),
    )
    lease.release()
    await Promise.all(all)
    expect(log).toEqual([1, 2, 3, 4])
    expect(queued).not.toHaveBeenCalled()
  })

  test('what ends twice ends once', async () => {
    const { broker } = setUp()
    const first = await broker.acquire(5_000)
    first.release()
    const second = await broker.acquire(5_000)
    first.release()
    first.destroy()
    const third = broker.acquire(5_000)
    expect(await settingsOf(second)).toEqual(OURS)
    second.release()
    ;(await third).release()
  })

  test('a destroyed one is never seen again, its locks neither', async () => {
    const { broker } = setUp()
    const dirty = await broker.acquire(5_000)
    await send(dirty, `SELECT GET_LOCK('${db.name}', 0)`)
    await send(dirty, 'UPDATE acc SET n = 5')
    const next = broker.acquire(5_000)
    dirty.destroy()
    const lease = await next
    expect(threadOf(lease)).not.toBe(threadOf(dirty))
    expect(await send(lease, `SELECT GET_LOCK('${db.name}', 5) AS got`)).toEqual([{ got: 1 }])
    expect(await committed()).toBe(0)
    lease.destroy()
  })
})

describe('waiting', () => {
  test('ends after waitMs with a sentence, and what comes later is not lost', async () => {
    const { pool, broker, clock } = setUp()
    const theirs = await pool.promise().getConnection()
    const waiting = broker.acquire(700)
    clock.advance(700)
    await expect(waiting).rejects.toMatchObject({
      code: 'STORE_UNAVAILABLE',
      message: expect.stringMatching(/700 ms.*connectionLimit 1/),
    })
    const back = once(pool, 'release')
    theirs.release()
    await back
    expect(await settingsInPool(pool, 1)).toEqual([ORIGINAL])
  })

  test('one who comes after it takes over what was asked for', async () => {
    const { pool, broker, clock } = setUp()
    const theirs = await pool.promise().getConnection()
    const queued = jest.fn()
    pool.on('enqueue', queued)
    const early = broker.acquire(700)
    clock.advance(700)
    await expect(early).rejects.toThrow('no connection within 700 ms')
    const late = broker.acquire(700)
    theirs.release()
    ;(await late).release()
    expect(queued).toHaveBeenCalledTimes(1)
    expect(clock.timers.size).toBe(1)
  })

  test('ends with the reason of its signal, before or meanwhile', async () => {
    const { pool, broker, clock } = setUp()
    await expect(broker.acquire(700, AbortSignal.abort('early'))).rejects.toBe('early')
    const theirs = await pool.promise().getConnection()
    const controller = new AbortController()
    const waiting = broker.acquire(700, controller.signal)
    controller.abort('late')
    await expect(waiting).rejects.toBe('late')
    expect(clock.timers.size).toBe(0)
    const back = once(pool, 'release')
    theirs.release()
    await back
  })

  test('ends at close', async () => {
    const { broker } = setUp()
    const lease = await broker.acquire(5_000)
    const waiting = broker.acquire(5_000)
    const [refused] = await Promise.all([waiting.catch((error: unknown) => error), broker.close()])
    expect(refused).toMatchObject({ code: 'STORE_UNAVAILABLE' })
    await expect(broker.acquire(5_000)).rejects.toMatchObject({ code: 'STORE_UNAVAILABLE' })
    lease.release()
  })
})

describe('when things break', () => {
  const killed = async (lease: Lease) => {
    const ended = new Promise<void>(resolve => lease.connection.once('end', () => resolve()))
    await db.admin.query(`KILL ${threadOf(lease)}`)
    await ended
  }

  test('a connection killed between requests is not noticed (acceptance 43)', async () => {
    const { broker } = setUp()
    const first = await broker.acquire(5_000)
    first.release()
    await killed(first)
    const second = await broker.acquire(5_000)
    expect(threadOf(second)).not.toBe(threadOf(first))
    expect(await settingsOf(second)).toEqual(OURS)
    second.release()
  })

  test('one killed inside a request is lost, and releasing it destroys it', async () => {
    const { broker } = setUp()
    const first = await broker.acquire(5_000)
    const next = broker.acquire(5_000)
    await killed(first)
    expect(first.lost).toBe(true)
    first.release()
    const second = await next
    expect(threadOf(second)).not.toBe(threadOf(first))
    second.release()
  })

  test('a server that is not trusted any more: its idle, used and free connections go, until a new one reaches it', async () => {
    const { pool, broker } = setUp({ connectionLimit: 4 })
    const [free, idle, used, bad] = await Promise.all([1, 2, 3, 4].map(() => broker.acquire(5_000)))
    if (free === undefined || idle === undefined || used === undefined || bad === undefined) throw new Error()
    const old = [free, idle, used, bad].map(threadOf)
    free.release()
    const waiting = pool.promise().getConnection()
    const theirs = await waiting
    theirs.release()
    expect(theirs.threadId).toBe(old[0])
    idle.release()
    bad.distrustServer()
    bad.destroy()
    used.release()
    const next = await Promise.all([1, 2, 3, 4].map(() => broker.acquire(5_000)))
    const [one] = next
    expect(next.map(threadOf).filter(thread => old.includes(thread))).toEqual([])
    for (const lease of next) lease.release()
    // The address still leads there: what is idle now is as good as anything.
    const again = await broker.acquire(5_000)
    expect(next.map(threadOf)).toContain(threadOf(again))
    expect(one?.lost).toBe(false)
    again.release()
  })

  test('one that died in the pool before anybody noticed is replaced', async () => {
    const { pool, broker } = setUp()
    const theirs = await pool.promise().getConnection()
    theirs.release()
    ;(theirs.connection as unknown as { stream: { destroy(): void } }).stream.destroy()
    const lease = await broker.acquire(5_000)
    expect(threadOf(lease)).not.toBe(theirs.threadId)
    lease.release()
  })

  test.each([
    ['a wrong password', { user: 'nobody_here', password: 'x' }, 1045],
    ['an unknown database', { database: 'nowhere_at_all' }, 1049],
  ])("%s is the driver's own error", async (_, options, errno) => {
    const { broker } = setUp(options)
    await expect(broker.acquire(5_000)).rejects.toMatchObject({ errno })
  })

  test('a server that is not there is STORE_UNAVAILABLE with the cause', async () => {
    const { broker } = setUp({ port: 1, host: '127.0.0.1' })
    await expect(broker.acquire(5_000)).rejects.toMatchObject({
      code: 'STORE_UNAVAILABLE',
      message: expect.stringContaining('ECONNREFUSED'),
      cause: { code: 'ECONNREFUSED' },
    })
  })

  test('a pool that the application ended', async () => {
    const { pool, broker } = setUp()
    const lease = await broker.acquire(5_000)
    lease.release()
    await pool.promise().end()
    await broker.close()
    const { broker: late } = brokerOf(pool)
    await expect(late.acquire(5_000)).rejects.toMatchObject({
      code: 'STORE_UNAVAILABLE',
      cause: { message: 'Pool is closed.' },
    })
  })

  test('a statement that runs can be ended from outside, though the pool is full', async () => {
    const { broker } = setUp()
    const lease = await broker.acquire(5_000)
    const sleeping = send(lease, 'SELECT SLEEP(30) AS interrupted')
    await until(async () => {
      const [rows] = await db.admin.query(
        'SELECT 1 FROM information_schema.PROCESSLIST WHERE ID = ? AND INFO LIKE ?',
        [threadOf(lease), '%SLEEP(30)%'],
      )
      return (rows as unknown[]).length === 1
    })
    expect(await broker.killQuery(lease)).toBe(true)
    expect(
      await sleeping.catch((error: { errno: number }) => [{ interrupted: error.errno === 1317 ? 1 : 0 }]),
    ).toEqual([{ interrupted: 1 }])
    lease.destroy()
  })

  test('there is nothing to end where the thread is gone', async () => {
    const { broker } = setUp()
    const lease = await broker.acquire(5_000)
    await killed(lease)
    expect(await broker.killQuery(lease)).toBe(false)
    lease.destroy()
  })
})

/** Asks until it is so; each answer of the server is the pause. */
async function until(isSo: () => Promise<boolean>): Promise<void> {
  while (!(await isSo()));
}

test('nothing stays on the pool or its connections after close', async () => {
  const { pool } = setUp({ connectionLimit: 2 })
  const theirs = await pool.promise().getConnection()
  const counts = () => [
    ...['enqueue', 'release', 'acquire', 'connection'].map(name => pool.listenerCount(name)),
    ...['error', 'end'].map(name => theirs.connection.listenerCount(name)),
  ]
  const before = counts()
  theirs.release()
  for (let i = 0; i < 12; i += 1) {
    const { broker: one } = brokerOf(pool)
    const leases = await Promise.all([one.acquire(5_000), one.acquire(5_000)])
    for (const lease of leases) lease.release()
    await one.close()
  }
  expect(counts()).toEqual(before)
})

test('which rows prove that the view is open', async () => {
  await db.pool.query('CREATE TABLE Engine_m (id INT) ENGINE=MyISAM')
  await db.pool.query('CREATE VIEW acc_view AS SELECT * FROM acc')
  await db.pool.query('CREATE SEQUENCE numbers')
  const { broker, clock, pool } = setUp()
  expect(broker.engines.opensView(db.name, 'acc')).toBe(false)
  ;(await broker.acquire(5_000)).release()
  const opens = (table: string, schema = db.name) => broker.engines.opensView(schema, table)
  expect(opens('acc')).toBe(true)
  expect(opens('ACC')).toBe(true)
  expect(['Engine_m', 'acc_view', 'numbers', 'seq_1_to_9', 'alias', ''].map(name => opens(name))).toEqual(
    Array(6).fill(false),
  )
  expect(opens('user', 'mysql')).toBe(false)
  expect(opens('TABLES', 'information_schema')).toBe(false)

  await db.pool.query('CREATE TABLE younger (id INT) ENGINE=InnoDB')
  expect(opens('younger')).toBe(false)
  clock.advance(60_000)
  await pool.promise().query('SELECT 1')
  ;(await broker.acquire(5_000)).release()
  expect(opens('younger')).toBe(true)
})

describe('a pool', () => {
  test('of either flavour is accepted', () => {
    const { pool } = setUp()
    expect(corePoolOf(pool)).toBe(pool)
    expect(corePoolOf(pool.promise())).toBe(pool)
  })

  test('is nothing else', async () => {
    const connection = createConnection({ uri: db.url })
    const cluster = createPoolCluster()
    const wrong: [unknown, RegExp][] = [
      [undefined, /got undefined$/],
      ['mysql://', /got a string$/],
      [{ host: 'localhost' }, /plain object/],
      [new Date(), /an instance of Date$/],
      [connection, /single Connection.*createPool/],
      [connection.promise(), /single Connection/],
      [cluster, /PoolCluster/],
      [mysqlPromise.createPoolCluster(), /PoolCluster/],
      [cluster.of('*'), /namespace of a PoolCluster/],
      [Promise.resolve(), /a promise: await it/],
      [{ getConnection() {}, query() {} }, /another driver/],
    ]
    for (const [pool, message] of wrong) {
      expect(() => corePoolOf(pool)).toThrow(
        expect.objectContaining({ code: 'MISCONFIGURED', message: expect.stringMatching(message) }),
      )
    }
    await connection.promise().end()
  })
})
