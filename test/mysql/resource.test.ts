/**
 * InnoDB as a participant, seen from the wire: which commands a transaction sends, and what becomes of it and of its
 * connection when one is not answered. A proxy in front of the real server loses what is to be lost.
 */
import mysql, { type Pool, type RowDataPacket } from 'mysql2/promise'
import { type SessionTx, sessionTx, type SessionTxOptions, type Tx } from '../../lib/index.js'
import type { Environment } from '../../lib/transaction/clock.js'
import { COMMIT_TABLE_DDL } from '../../lib/mysql/commit-record/commit-table.js'
import { isSettled } from '../support/barrier.js'
import { fakeEnvironment, promptly } from '../support/clock.js'
import { openDatabase, type TestDatabase } from '../support/database.js'
import { nothingOpen, valueOf } from '../support/observing.js'
import { openProxy, type Proxy } from '../support/proxy.js'

let db: TestDatabase
let proxy: Proxy
let pool: Pool
const undo: (() => unknown)[] = []

beforeAll(async () => {
  db = await openDatabase({ connectionLimit: 2 })
  await db.pool.query('CREATE TABLE item (id INT PRIMARY KEY, n INT NOT NULL) ENGINE=InnoDB')
})
afterAll(() => db.close())
beforeEach(async () => {
  await db.pool.query('REPLACE INTO item VALUES (1, 0), (2, 0)')
  proxy = await openProxy(db.url)
  pool = mysql.createPool({ uri: proxy.url, connectionLimit: 1 })
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

const row = (id = 1): Promise<unknown> => valueOf(db, `SELECT n FROM ${db.name}.item WHERE id = ?`, [id])

/** The commands that `work` sends. */
async function commandsOf(work: () => Promise<unknown>): Promise<string[]> {
  const from = proxy.commands.length
  await work()
  return proxy.commands.slice(from)
}

const add = (tx: Tx, n = 1): Promise<unknown> => tx.query('UPDATE item SET n = n + ? WHERE id = 1', [n])

/** A session with `n = 1`, and how to read it again. */
async function session(tx: SessionTx) {
  const id = await tx.run((_, made) => {
    made['n'] = 1
    return made.id
  })
  return { id, read: () => tx.run((_, found) => found['n'], { sessionId: id }) }
}

describe('commands', () => {
  test('n statements are n + 1 commands on a leased connection: no BEGIN, one COMMIT', async () => {
    const tx = start()
    await tx.run(inner => add(inner))
    const sent = await commandsOf(() =>
      tx.run(async (inner, made) => {
        made['n'] = 1
        await inner.query('SELECT n FROM item WHERE id = 1')
        await add(inner)
        await inner.query('UPDATE item SET n = 5 WHERE id = 2')
      }),
    )
    expect(sent).toEqual([
      'SELECT n FROM item WHERE id = 1',
      'UPDATE item SET n = n + 1 WHERE id = 1',
      'UPDATE item SET n = 5 WHERE id = 2',
      'COMMIT',
    ])
  })

  test.each<[string, SessionTxOptions]>([
    ['by plain SELECTs', {}],
    ['with a commit record', { commitRecord: 'always' }],
    ['under serializable', { isolation: 'serializable' }],
  ])('one that only read rows %s does not wait for COMMIT, whatever becomes of it', async (_how, options) => {
    await db.pool.query(COMMIT_TABLE_DDL)
    const environment = fakeEnvironment()
    const tx = start(options, environment)
    await tx.run(inner => add(inner))
    const happened = proxy.accident(/^COMMIT$/, 'answer late')
    const sent = await commandsOf(() =>
      tx.run(async (inner, made) => {
        made['n'] = 1
        await inner.query('SELECT n FROM item WHERE id = 1')
        await inner.query('SELECT COUNT(*) FROM item')
      }),
    )
    const own = sent.filter(command => !/^SET|sessiontx_commits/.test(command)) // of the record, aside
    expect(own).toEqual(['SELECT n FROM item WHERE id = 1', 'SELECT COUNT(*) FROM item'])
    await happened
    expect(tx.stats()).toMatchObject({ requests: { committed: 2, unknown: 0 }, sessions: { live: 1 } })
    // Nobody gets that connection any more, and its place in the pool is free.
    environment.clock.advance(2_500)
    await tx.run(inner => add(inner))
    await nothingOpen(db)
  })

  test('close() waits for the end of one that only read rows', async () => {
    const tx = start()
    const sent = await commandsOf(async () => {
      await tx.run(inner => inner.query('SELECT n FROM item'))
      await tx.close()
    })
    expect(sent.slice(-3)).toEqual([
      'SELECT n FROM item',
      'COMMIT',
      expect.stringMatching(/^SET SESSION autocommit = 1/),
    ])
  })

  test('a transaction without SQL takes no connection at all', async () => {
    const tx = start()
    const sent = await commandsOf(async () => {
      const { read } = await session(tx)
      await expect(read()).resolves.toBe(1)
    })
    expect(sent).toEqual([])
    expect(proxy.connections).toBe(0)
  })

  test('one that throws sends ROLLBACK, and one that did not get to its first statement nothing', async () => {
    const tx = start()
    await tx.run(inner => add(inner))
    const bug = (): never => {
      throw new TypeError('a bug')
    }
    const thrown = tx.run(async inner => {
      await add(inner)
      bug()
    })
    expect(await commandsOf(() => expect(thrown).rejects.toThrow('a bug'))).toEqual([
      'UPDATE item SET n = n + 1 WHERE id = 1',
      'ROLLBACK',
    ])
    expect(await commandsOf(() => expect(tx.run(bug)).rejects.toThrow('a bug'))).toEqual([])
  })

  test('the next request gets the same connection as it is', async () => {
    const tx = start()
    const sent = await commandsOf(async () => {
      for (let turn = 0; turn < 5; turn++) await tx.run(inner => add(inner))
    })
    expect(sent.filter(command => command.startsWith('SET'))).toHaveLength(1)
    expect(sent.filter(command => command === 'COMMIT')).toHaveLength(5)
    expect(proxy.connections).toBe(1)
  })
})

describe('a connection that turns out to be dead', () => {
  const write = async (tx: Tx): Promise<void> => {
    await add(tx)
    await tx.query('UPDATE item SET n = n + 1 WHERE id = 2')
  }

  test('at the first statement: run again at once on a new connection, not charged to `retries`', async () => {
    const environment = fakeEnvironment()
    const tx = start({ retry: { retries: 1 } }, environment)
    const attempts: number[] = []
    tx.on('rerun', ({ waitedFor }) => void attempts.push(waitedFor === 'nothing' ? 0 : 1))
    await tx.run(write)
    const lost = proxy.accident(/WHERE id = 1/, 'command lost')
    await tx.run(write)
    await lost
    expect(attempts).toEqual([0])
    expect([await row(1), await row(2)]).toEqual([2, 2])
    expect(tx.stats()).toMatchObject({ retried: 1, conflicts: { byKind: { connection: 1 } } })
  })

  test('twice: the second one is charged and waited for, and a third one is too many', async () => {
    const tx = start({ retry: { retries: 1 } })
    const waits: string[] = []
    tx.on('rerun', ({ waitedFor }) => void waits.push(waitedFor))
    for (let time = 0; time < 3; time++) void proxy.accident(/WHERE id = 1/, 'command lost')
    await expect(tx.run(write)).rejects.toMatchObject({
      code: 'RETRIES_EXHAUSTED',
      cause: { conflict: { kind: 'connection' } },
    })
    expect(waits).toEqual(['nothing', 'backoff'])
    expect([await row(1), await row(2)]).toEqual([0, 0])
  })

  test.each(['command lost', 'answer lost'] as const)(
    'later (%s): charged, with back-off, and each effect once',
    async kind => {
      const tx = start({ retry: { retries: 1 } })
      const waits: string[] = []
      tx.on('rerun', ({ waitedFor }) => void waits.push(waitedFor))
      void proxy.accident(/WHERE id = 2/, kind)
      await tx.run(write)
      expect(waits).toEqual(['backoff'])
      expect([await row(1), await row(2)]).toEqual([1, 1])
      await nothingOpen(db)
    },
  )

  test('`retries: 0` runs once all the same', async () => {
    const tx = start({ retry: { retries: 0 } })
    void proxy.accident(/WHERE id = 1/, 'command lost')
    await expect(tx.run(write)).rejects.toMatchObject({ code: 'RETRIES_EXHAUSTED' })
  })
})

describe('COMMIT is not answered', () => {
  test.each([
    ['the connection breaks before its answer', 'answer lost', 6],
    ['the connection breaks before the server reads it', 'command lost', 0],
  ] as const)(
    '%s: COMMIT_UNKNOWN, not run again, the session keeps its value',
    async (_, accident, stored) => {
      const tx = start()
      const { id, read } = await session(tx)
      const happened = proxy.accident(/^COMMIT$/, accident)
      let runs = 0
      let used: Tx | undefined
      const events: string[] = []
      tx.on('unknown', ({ id: transaction }) => events.push(`unknown ${transaction}`))
      const failed = tx.run(
        async (inner, found) => {
          runs += 1
          used = inner
          found['n'] = 2
          inner.afterCommit(() => events.push('mail'))
          inner.afterRollback(() => events.push('undo'))
          await add(inner, 6)
        },
        { sessionId: id },
      )
      const error: unknown = await failed.catch((thrown: unknown) => thrown)
      await happened
      expect(error).toMatchObject({ code: 'COMMIT_UNKNOWN', status: 503, transactionId: used?.id })
      expect((error as Error).message).toContain(used?.id)
      expect(runs).toBe(1)
      expect(events).toEqual([`unknown ${used?.id}`])
      expect(tx.stats()).toMatchObject({
        requests: { unknown: 1, rolledBack: 0 },
        conflicts: { total: 0 },
        retried: 0,
      })
      await expect(used?.query('SELECT 1')).rejects.toMatchObject({
        code: 'TRANSACTION_CLOSED',
        cause: error,
      })

      // The session's keys are free again, and the pool has a place for a new connection.
      await nothingOpen(db)
      await expect(read()).resolves.toBe(1)
      expect(await row()).toBe(stored)
      await tx.run(inner => add(inner))
      expect(await row()).toBe(stored + 1)
    },
  )

  test('the server stays silent: given up after the deadline, and the connection is destroyed', async () => {
    const environment = fakeEnvironment()
    const tx = start({}, environment)
    const { id, read } = await session(tx)
    const happened = proxy.accident(/^COMMIT$/, 'answer late')
    const failed = tx.run(
      async (inner, found) => {
        found['n'] = 2
        await add(inner)
      },
      { sessionId: id },
    )
    failed.catch(() => {})
    await happened
    environment.clock.advance(10_000)
    await expect(failed).rejects.toMatchObject({
      code: 'COMMIT_UNKNOWN',
      transactionId: expect.any(String) as string,
    })
    await expect(read()).resolves.toBe(1)
    await expect(tx.run(inner => inner.query('SELECT 1'))).resolves.toBeDefined()
    expect(tx.stats().requests.unknown).toBe(1)
  })
})

describe('ROLLBACK is not answered', () => {
  test('the connection breaks: the request fails with its own error, and the place in the pool is free', async () => {
    const tx = start()
    const happened = proxy.accident(/^ROLLBACK$/, 'command lost')
    const failed = tx.run(async inner => {
      await add(inner)
      throw new TypeError('a bug')
    })
    await expect(failed).rejects.toThrow('a bug')
    await happened
    await nothingOpen(db)
    await tx.run(inner => add(inner))
    expect(await row()).toBe(1)
  })

  test('the server stays silent: bounded, and the connection is not kept for ever', async () => {
    const environment = fakeEnvironment()
    const tx = start({}, environment)
    const happened = proxy.accident(/^ROLLBACK$/, 'answer late')
    const failed = tx.run(async inner => {
      await add(inner)
      throw new TypeError('a bug')
    })
    failed.catch(() => {})
    await happened
    environment.clock.advance(3_000)
    await expect(failed).rejects.toThrow('a bug')
    await tx.run(inner => add(inner))
    expect(await row()).toBe(1)
  })
})

describe('the connection breaks under a transaction', () => {
  test.each(['command lost', 'answer lost'] as const)(
    '%s of a statement: the whole handler runs again',
    async accident => {
      const tx = start()
      const { id, read } = await session(tx)
      const happened = proxy.accident(/^UPDATE/, accident)
      let runs = 0
      await tx.run(
        async (inner, found) => {
          runs += 1
          found['n'] = (found['n'] as number) + 1
          await add(inner)
        },
        { sessionId: id },
      )
      await happened
      expect(runs).toBe(2)
      expect(await row()).toBe(1)
      await expect(read()).resolves.toBe(2)
      expect(tx.stats().conflicts.byKind).toEqual({ connection: 1 })
    },
  )

  test('swallowed by the handler, it runs again all the same', async () => {
    const tx = start()
    const happened = proxy.accident(/^UPDATE/, 'command lost')
    const result = await tx.run(async inner => {
      await add(inner).catch(() => {})
      return inner.attempt
    })
    await happened
    expect(result).toBe(2)
    expect(await row()).toBe(1)
  })

  test('killed between two requests, nobody notices', async () => {
    const tx = start()
    const id = await tx.run(async inner => {
      const [rows] = await inner.query<{ id: number }[]>('SELECT CONNECTION_ID() AS id')
      return rows[0]?.id
    })
    await db.admin.query(`KILL ${id}`)
    await tx.run(inner => add(inner))
    expect(await row()).toBe(1)
    expect(tx.stats().requests).toEqual({ committed: 2, rolledBack: 0, refused: 0, unknown: 0 })
  })

  test('at the deadline a statement that still runs is ended on the server, its locks with it', async () => {
    const environment = fakeEnvironment()
    const tx = start({}, environment)
    const failed = tx.run(async inner => {
      await add(inner)
      await inner.query('DO SLEEP(60)')
    })
    failed.catch(() => {})
    await new Promise<void>(resolve => {
      proxy.onCommand = command => {
        if (command.startsWith('DO SLEEP')) resolve()
      }
    })
    environment.clock.advance(10_000)
    await expect(failed).rejects.toMatchObject({ code: 'DEADLINE' })
    await nothingOpen(db)
    await tx.run(inner => add(inner))
    expect(await row()).toBe(1)
  })
})

describe('at the deadline', () => {
  /** Runs until a statement matches on the wire, then lets the deadline pass. */
  async function untilDeadline(matches: RegExp, work: (inner: Tx) => Promise<unknown>): Promise<void> {
    const environment = fakeEnvironment()
    const tx = start({}, environment)
    const onTheWire = new Promise<void>(resolve => {
      proxy.onCommand = command => {
        if (matches.test(command)) resolve()
      }
    })
    const failed = tx.run(work)
    failed.catch(() => {})
    await onTheWire
    environment.clock.advance(10_000)
    // Little by little: a KILL may overtake its statement, and is sent again then.
    while (!(await isSettled(failed))) {
      await db.admin.query('SELECT 1')
      environment.clock.advance(1)
    }
    await expect(failed).rejects.toMatchObject({ code: 'DEADLINE' })
    await nothingOpen(db)
    expect(await row()).toBe(0)
  }
  const withoutRepeated = (sent: readonly string[]): readonly string[] =>
    sent.filter((command, place) => command !== sent[place - 1])
  const connectionOf = async (): Promise<number> => {
    const [rows] = await pool.query<RowDataPacket[]>('SELECT CONNECTION_ID() AS id')
    return (rows[0] as { id: number }).id
  }

  test('the running statement is killed, then comes ROLLBACK, and the connection is used again', async () => {
    const before = await connectionOf()
    const sent = await commandsOf(() =>
      untilDeadline(/^DO SLEEP/, async inner => {
        await add(inner)
        await inner.query('DO SLEEP(60)')
      }),
    )
    const ends = sent.filter(command => /KILL|ROLLBACK|^COMMIT|QUIT/.test(command))
    expect(withoutRepeated(ends)).toEqual([`KILL QUERY ${before}`, 'ROLLBACK'])
    expect(await connectionOf()).toBe(before)
  })

  test('so are those that queue behind it, one after the other', async () => {
    const before = await connectionOf()
    const sent = await commandsOf(() =>
      untilDeadline(/^DO SLEEP/, inner =>
        Promise.all([add(inner), inner.query('DO SLEEP(60)'), inner.query('DO SLEEP(61)'), add(inner)]),
      ),
    )
    const ends = withoutRepeated(sent.filter(command => /KILL|ROLLBACK|^COMMIT|SLEEP/.test(command)))
    expect(ends.slice(0, 4)).toEqual([
      'DO SLEEP(60)',
      `KILL QUERY ${before}`,
      'DO SLEEP(61)',
      `KILL QUERY ${before}`,
    ])
    expect(ends.at(-1)).toBe('ROLLBACK')
    expect(await connectionOf()).toBe(before)
  })

  test('a COMMIT that was sent is not', async () => {
    const environment = fakeEnvironment()
    const tx = start({}, environment)
    proxy.onCommand = command => {
      if (command === 'COMMIT') environment.clock.advance(1_500)
    }
    const sent = await commandsOf(() =>
      tx.run(async inner => {
        await add(inner)
        environment.clock.advance(9_000)
      }),
    )
    expect(sent.filter(command => /KILL|ROLLBACK|COMMIT/.test(command))).toEqual(['COMMIT'])
    expect(await row()).toBe(1)
  })
})

describe('prepared statements', () => {
  test.each<[string, (tx: Tx, n: number) => Promise<unknown>]>([
    ['texts', (tx, n) => tx.execute(`SELECT ${n}, ? AS a`, [1])],
    [
      'texts with named placeholders',
      (tx, n) => tx.execute({ sql: `SELECT ${n}, :a AS a`, namedPlaceholders: true }, { a: 1 }),
    ],
    ['forms of rows', (tx, n) => tx.execute({ sql: `SELECT ${n}, ? AS a`, rowsAsArray: n % 2 === 0 }, [1])],
  ])('of many %s: at most 100 stay open on a connection', async (_what, executeOne) => {
    const tx = start()
    const sent = await commandsOf(() =>
      tx.run(async inner => {
        for (let n = 0; n < 150; n++) await executeOne(inner, n)
        // The latest is still there, the first has to be made again.
        await executeOne(inner, 149)
        await executeOne(inner, 0)
      }),
    )
    expect(sent.filter(command => /^SELECT \d+,/.test(command))).toHaveLength(151)
    // mysql2 3.24 says each of them twice.
    const closed = sent.filter(command => command === 'CLOSE STATEMENT').length
    expect(closed).toBeGreaterThanOrEqual(51)
  })
})

describe('savepoints', () => {
  test('are statements of ours, and a part that succeeds sends nothing more', async () => {
    const tx = start()
    await tx.run(inner => add(inner))
    const sent = await commandsOf(() =>
      tx.run(async inner => {
        await add(inner)
        await inner.savepoint(() => add(inner))
        await inner.savepoint(() => Promise.reject(new Error('no'))).catch(() => {})
      }),
    )
    expect(sent.filter(command => /SAVEPOINT/.test(command))).toEqual([
      'SAVEPOINT sessiontx_1',
      'SAVEPOINT sessiontx_2',
      'ROLLBACK TO SAVEPOINT sessiontx_2',
    ])
  })

  test('after a lost race nothing is sent back', async () => {
    const tx = start()
    await tx.run(inner => add(inner))
    const sent = await commandsOf(() =>
      tx.run(async inner => {
        await inner.query('SELECT n FROM item WHERE id = 1')
        if (inner.attempt === 1) await db.admin.query(`UPDATE ${db.name}.item SET n = n + 1 WHERE id = 1`)
        await inner.savepoint(() => add(inner)).catch(() => {})
      }),
    )
    expect(sent.filter(command => /ROLLBACK|COMMIT/.test(command))).toEqual(['ROLLBACK', 'COMMIT'])
    expect(await row()).toBe(3)
  })

  test('one that begins while the first statement is still getting its connection waits for it', async () => {
    const tx = start()
    await tx.run(async inner => {
      const [, part] = await Promise.allSettled([add(inner), inner.savepoint(() => add(inner))])
      expect(part.status).toBe('fulfilled')
    })
    expect(await row()).toBe(2)
  })
})

test('what a handler leaves on a connection is nobody else’s: it is destroyed', async () => {
  const tx = start()
  const idOf = async (statement: string): Promise<unknown> =>
    tx.run(async inner => {
      await inner.query(statement)
      const [rows] = await inner.query<{ id: number }[]>('SELECT CONNECTION_ID() AS id')
      return rows[0]?.id
    })
  const first = await idOf('SELECT 1')
  expect(await idOf("SELECT GET_LOCK('left', 0)")).toBe(first)
  expect(await idOf('SELECT 1')).not.toBe(first)
  expect(await valueOf(db, "SELECT IS_FREE_LOCK('left')")).toBe(1)
})
