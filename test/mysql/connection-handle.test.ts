/**
 * `ctx.tx.connection()` as a connection: order, events, failures that nobody hears, savepoints as text, transactions on
 * several handles of one attempt, and what it does once the attempt has ended.
 */
import fc from 'fast-check'
import type { PoolConnection } from 'mysql2'
import type { RowDataPacket } from 'mysql2/promise'
import type { ConnectionHandle, KoaContext, SessionTxOptions } from '../../lib/index.js'
import type { Environment } from '../../lib/transaction/clock.js'
import { serveTx, type TxContext, type TxServed } from '../support/app.js'
import { deferred } from '../support/barrier.js'
import { fakeEnvironment, promptly } from '../support/clock.js'
import { openDatabase, type TestDatabase } from '../support/database.js'
import { nothingOpen } from '../support/observing.js'

let db: TestDatabase
const undo: (() => unknown)[] = []

beforeAll(async () => {
  db = await openDatabase({ connectionLimit: 2 })
  await db.pool.query('CREATE TABLE item (id INT PRIMARY KEY, n INT NOT NULL) ENGINE=InnoDB')
})
afterAll(() => db.close())
beforeEach(() => db.pool.query('DELETE FROM item'))
afterEach(async () => {
  for (const one of undo.splice(0).reverse()) await one()
  await nothingOpen(db)
})

async function start(
  handler: (ctx: TxContext) => unknown,
  options: SessionTxOptions<KoaContext> = {},
  environment: Environment = promptly,
): Promise<TxServed> {
  const served = await serveTx({
    environment,
    options: { pool: db.pool, ...options },
    below: async ctx => {
      if (ctx.path === '/session') ctx.body = { ...ctx.session }
      else await handler(ctx)
      ctx.body ??= 'done'
    },
  })
  undo.push(() => served.close())
  return served
}

const ids = async (): Promise<number[]> => {
  const [rows] = await db.admin.query<RowDataPacket[]>(`SELECT id FROM ${db.name}.item ORDER BY id`)
  return rows.map(row => row['id'] as number)
}
const insert = (id: number): string => `INSERT INTO item VALUES (${id}, 0)`
const promised = (ctx: TxContext): ReturnType<ConnectionHandle['promise']> => ctx.tx.connection().promise()

describe('as a connection', () => {
  test('statements that are not awaited are answered in the order in which they were sent', async () => {
    const { client } = await start(async ctx => {
      const connection = ctx.tx.connection()
      const answered: string[] = []
      await new Promise<void>(resolve => {
        const note = (what: string) => (): void => void answered.push(what)
        connection.query(insert(1), note('insert 1'))
        connection.query('BEGIN', note('begin'))
        connection.query(insert(2))
        connection.query(insert(3), note('insert 3'))
        connection.query('ROLLBACK', note('rollback'))
        connection.query('BEGIN')
        connection.execute('INSERT INTO item VALUES (?, 0)', [4], note('insert 4'))
        connection.query('COMMIT', note('commit'))
        connection.query({ sql: insert(5) }, () => resolve())
      })
      expect(answered).toEqual(['insert 1', 'begin', 'insert 3', 'rollback', 'insert 4', 'commit'])
    })
    await expect(client().get()).resolves.toMatchObject({ status: 200 })
    expect(await ids()).toEqual([1, 4, 5])
  })

  test('a command without a callback tells its listeners what mysql2 tells them', async () => {
    const { client } = await start(async ctx => {
      const connection = ctx.tx.connection()
      await connection.promise().query('INSERT INTO item VALUES (1, 10), (2, 20)')
      const told: unknown[] = []
      await new Promise(resolve => {
        connection
          .query('SELECT n FROM item ORDER BY id')
          .on('fields', (fields: { name: string }[]) => told.push(fields.map(({ name }) => name)))
          .on('result', row => told.push({ ...(row as object) }))
          .on('end', resolve)
      })
      expect(told).toEqual([['n'], { n: 10 }, { n: 20 }])
      const error = await new Promise(resolve => {
        connection.query('SELEKT').on('error', resolve)
      })
      expect(error).toMatchObject({ errno: 1064 })
    })
    await expect(client().get()).resolves.toMatchObject({ status: 200 })
  })

  test('awaited, it is the promise flavour, too', async () => {
    const { client } = await start(async ctx => {
      const connection = ctx.tx.connection()
      await connection.beginTransaction()
      await connection.execute('INSERT INTO item VALUES (?, 0)', [1])
      await connection.commit()
      const [rows] = await connection.query('SELECT id FROM item')
      expect(rows).toEqual([{ id: 1 }])
      const failing = async (): Promise<unknown> => connection.query('SELEKT')
      await expect(failing()).rejects.toMatchObject({ errno: 1064 })
    })
    await expect(client().get()).resolves.toMatchObject({ status: 200 })
    expect(await ids()).toEqual([1])
  })

  test('release, end and destroy do nothing, ping and connect succeed, and what would change the connection is refused', async () => {
    const { client } = await start(async ctx => {
      const connection = ctx.tx.connection()
      const flavour = connection.promise()
      connection.release()
      connection.destroy()
      flavour.release()
      await flavour.end()
      await new Promise<void>(resolve => connection.end(() => resolve()))
      await expect(flavour.ping()).resolves.toBe(true)
      await new Promise(resolve => connection.ping(resolve))
      await flavour.connect()
      expect(() => connection.changeUser()).toThrow(TypeError)
      await expect(flavour.prepare()).rejects.toThrow('execute() prepares by itself')
      await flavour.query(insert(1))
      expect(connection.threadId).toEqual(expect.any(Number))
      expect(connection.format('?? = ?', ['a', "it's"])).toBe("`a` = 'it\\'s'")
      expect(flavour.config).toMatchObject({ database: db.name })
    })
    await expect(client().get()).resolves.toMatchObject({ status: 200 })
    expect(await ids()).toEqual([1])
  })

  test('a statement that is asked for as a stream is not sent', async () => {
    const { client } = await start(async ctx => {
      const stream = ctx.tx.connection().query(insert(1)).stream()
      await expect(stream.toArray()).rejects.toThrow('a stream cannot be part of the transaction')
    })
    await expect(client().get()).resolves.toMatchObject({ status: 200 })
    expect(await ids()).toEqual([])
  })

  test('without a pool there is none', async () => {
    const { client, errors } = await start(ctx => void ctx.tx.connection(), { pool: undefined })
    await client().get()
    expect(errors).toMatchObject([{ code: 'MISCONFIGURED' }])
  })

  test('it types as the connection that a query builder wants', async () => {
    const { client } = await start(async ctx => {
      const connection = ctx.tx.connection<PoolConnection>()
      await connection.promise().query(insert(1))
    })
    await client().get()
    expect(await ids()).toEqual([1])
  })
})

describe('failures that nobody hears', () => {
  test('of a statement without a callback: nothing is stored', async () => {
    const { client, errors } = await start(async ctx => {
      await promised(ctx).query(insert(1))
      ctx.tx.connection().query('SELEKT')
    })
    await expect(client().get()).resolves.toMatchObject({ status: 500 })
    expect(errors).toMatchObject([{ errno: 1064 }])
    expect(await ids()).toEqual([])
  })

  test('of a statement whose callback is called when the handler has returned', async () => {
    let heard: unknown
    const { client, errors } = await start(async ctx => {
      await promised(ctx).query(insert(1))
      ctx.tx.connection().query('SELEKT', (error: unknown) => {
        heard = error
      })
    })
    await expect(client().get()).resolves.toMatchObject({ status: 500 })
    expect(errors).toEqual([heard])
    expect(await ids()).toEqual([])
  })

  test('of one that the handler did hear: the rest commits', async () => {
    const { client } = await start(async ctx => {
      await promised(ctx).query(insert(1))
      await new Promise(resolve => {
        ctx.tx.connection().query('SELEKT', resolve)
      })
    })
    await expect(client().get()).resolves.toMatchObject({ status: 200 })
    expect(await ids()).toEqual([1])
  })
})

describe('savepoints as text', () => {
  test('are gone back to, more than once, over both sides', async () => {
    const { client } = await start(async ctx => {
      const connection = promised(ctx)
      await connection.query(insert(1))
      ctx.session['a'] = 1
      await connection.query('SAVEPOINT `Here`')
      for (const id of [2, 3]) {
        await connection.query(insert(id))
        ctx.session['a'] = id
        await connection.query('rollback to here')
      }
      await connection.query(insert(4))
      await connection.query('RELEASE SAVEPOINT here')
      await expect(connection.query('ROLLBACK TO here')).rejects.toMatchObject({ errno: 1305 })
    })
    const ann = client()
    await expect(ann.get()).resolves.toMatchObject({ status: 200 })
    expect(await ids()).toEqual([1, 4])
    expect((await ann.get('/session')).json()).toEqual({ a: 1 })
  })

  test('BEGIN within BEGIN nests, and each end is the inner one’s', async () => {
    const { client } = await start(async ctx => {
      const connection = promised(ctx)
      await connection.beginTransaction()
      await connection.query(insert(1))
      await connection.beginTransaction()
      await connection.query(insert(2))
      await connection.rollback()
      await connection.query(insert(3))
      await connection.commit()
      await connection.rollback() // both have ended: nothing
    })
    await expect(client().get()).resolves.toMatchObject({ status: 200 })
    expect(await ids()).toEqual([1, 3])
  })

  test('a session that is first used inside of what is rolled back goes on after it', async () => {
    const { client } = await start(async ctx => {
      const connection = promised(ctx)
      await connection.beginTransaction()
      ctx.session['a'] = 1
      await connection.query(insert(1))
      await connection.rollback()
      ctx.session['b'] = 2
      await connection.query(insert(2))
    })
    const ann = client()
    await expect(ann.get()).resolves.toMatchObject({ status: 200 })
    expect(await ids()).toEqual([2])
    expect((await ann.get('/session')).json()).toEqual({ b: 2 })
  })

  test('within tx.savepoint(), and tx.savepoint() within a transaction', async () => {
    const { client } = await start(async ctx => {
      const connection = promised(ctx)
      const outer = ctx.tx.savepoint(async () => {
        await connection.beginTransaction()
        await connection.query(insert(1))
        await connection.commit()
        throw new Error('back')
      })
      await expect(outer).rejects.toThrow('back')
      await connection.beginTransaction()
      await connection.query(insert(2))
      const inner = ctx.tx.savepoint(async () => {
        await connection.query(insert(3))
        throw new Error('back')
      })
      await expect(inner).rejects.toThrow('back')
      await connection.commit()
    })
    await expect(client().get()).resolves.toMatchObject({ status: 200 })
    expect(await ids()).toEqual([2])
  })

  test('inside of BEGIN those from before it are out of reach', async () => {
    const { client } = await start(async ctx => {
      const connection = promised(ctx)
      await connection.query('SAVEPOINT a')
      await connection.query(insert(1))
      await connection.beginTransaction()
      await expect(connection.query('ROLLBACK TO a')).rejects.toMatchObject({ errno: 1305 })
      await connection.commit()
    })
    await expect(client().get()).resolves.toMatchObject({ status: 200 })
    expect(await ids()).toEqual([1])
  })

  test('going back is waited for, even if the handler did not: both sides are back', async () => {
    const { client } = await start(async ctx => {
      const connection = promised(ctx)
      await connection.query('SAVEPOINT a')
      await connection.query(insert(1))
      ctx.session['a'] = 1
      void connection.query('ROLLBACK TO a')
    })
    const ann = client()
    await expect(ann.get()).resolves.toMatchObject({ status: 200 })
    expect(await ids()).toEqual([])
    expect((await ann.get('/session')).json()).toEqual({})
  })

  test('ROLLBACK without BEGIN is refused, COMMIT without it does nothing', async () => {
    const { client, errors } = await start(async ctx => {
      const connection = promised(ctx)
      await connection.query(insert(1))
      await connection.commit()
      if (ctx.path === '/rollback') await connection.rollback()
    })
    await client().get('/rollback')
    expect(errors).toMatchObject([{ code: 'TRANSACTION_CONTROL', message: expect.stringContaining('doom') }])
    expect(await ids()).toEqual([])
    await client().get()
    expect(await ids()).toEqual([1])
  })

  test('a first transaction that takes no connection before its first statement', async () => {
    const { client } = await start(async ctx => {
      const connection = promised(ctx)
      await connection.beginTransaction()
      ctx.session['a'] = 1
      expect(connection.threadId).toBeNull()
      if (ctx.path === '/forget') return
      await connection.rollback()
    })
    const ann = client()
    await expect(ann.get()).resolves.toMatchObject({ status: 200 })
    expect((await ann.get('/session')).json()).toEqual({})
    await expect(ann.get('/forget')).resolves.toMatchObject({ status: 500 })
    expect((await ann.get('/session')).json()).toEqual({})
  })
})

test('whatever is begun, committed and rolled back in whatever order: session and rows say the same', async () => {
  let program: readonly Step[] = []
  const { client } = await start(async ctx => {
    ctx.body = await runProgram(ctx, program)
  })
  const checked = fc.asyncProperty(fc.array(step, { maxLength: 25 }), async steps => {
    program = closed(steps)
    await db.pool.query('DELETE FROM item')
    const ann = client()
    const answer = await ann.get()
    expect(answer).toMatchObject({ status: 200 })
    const kept = modelOf(program)
    expect(await ids()).toEqual(kept)
    expect(Object.keys((await ann.get('/session')).json<object>()).map(Number)).toEqual(kept)
  })
  await fc.assert(checked, { numRuns: 40 })
})

type Step =
  | readonly ['begin' | 'commit' | 'rollback' | 'write']
  | readonly ['savepoint' | 'release' | 'to', string]

const step: fc.Arbitrary<Step> = fc.oneof(
  fc.constantFrom<Step>(['begin'], ['commit'], ['rollback']),
  { arbitrary: fc.constant<Step>(['write']), weight: 3 },
  fc.tuple(
    fc.constantFrom('savepoint' as const, 'release' as const, 'to' as const),
    fc.constantFrom('a', 'b'),
  ),
)

/** With a first BEGIN, so that a ROLLBACK is never refused, and an end for each that is open. */
function closed(steps: readonly Step[]): Step[] {
  const open = steps.reduce((depth, [kind]) => {
    if (kind === 'begin') return depth + 1
    return kind === 'commit' || kind === 'rollback' ? Math.max(0, depth - 1) : depth
  }, 0)
  return [['begin'], ['commit'], ...steps, ...Array.from({ length: open }, (): Step => ['commit'])]
}

async function runProgram(ctx: TxContext, program: readonly Step[]): Promise<string> {
  const connection = promised(ctx)
  for (const [id, [kind, name]] of program.entries()) {
    if (kind === 'write') {
      await connection.query(insert(id))
      ctx.session[id] = true
    } else if (name === undefined) await connection.query(kind)
    else {
      const text = { savepoint: 'SAVEPOINT', release: 'RELEASE SAVEPOINT', to: 'ROLLBACK TO' }[kind as 'to']
      await connection.query(`${text} ${name}`).catch(error => expect(error).toMatchObject({ errno: 1305 }))
    }
  }
  return 'done'
}

/** What must be there in the end, by the rules of savepoints alone. */
function modelOf(program: readonly Step[]): number[] {
  let kept: number[] = []
  let levels: { name: string | undefined; kept: number[] }[] = []
  const lastBegin = (): number => levels.findLastIndex(({ name }) => name === undefined)
  for (const [id, [kind, name]] of program.entries()) {
    if (kind === 'write') kept = [...kept, id]
    else if (kind === 'begin' || kind === 'savepoint') levels.push({ name, kept })
    else {
      const found = levels.findLastIndex(level => level.name === name)
      if (found < 0 || found < lastBegin()) continue
      if (kind === 'rollback' || kind === 'to') kept = levels[found]?.kept ?? kept
      levels = levels.slice(0, kind === 'to' ? found + 1 : found)
    }
  }
  return kept
}

describe('transactions on several handles', () => {
  test('one on another handle, begun inside of the open one, would wait for ever: refused, and it is said how', async () => {
    const environment = fakeEnvironment()
    const waits = deferred()
    const { client } = await start(
      async ctx => {
        const [outer, inner] = [promised(ctx), promised(ctx)]
        await outer.beginTransaction()
        await outer.query(insert(1))
        const begun = inner.beginTransaction()
        waits.resolve()
        await expect(begun).rejects.toMatchObject({
          code: 'TRANSACTION_CONTROL',
          message: expect.stringContaining('Was it begun inside of the other?'),
        })
        await outer.commit()
        await inner.beginTransaction()
        await inner.query(insert(2))
        await inner.commit()
      },
      { acquireMs: 1_234 },
      environment,
    )
    const answer = client().get()
    await waits.promise
    await environment.clock.armed(delayMs => delayMs === 1_234)
    environment.clock.advance(1_234)
    await expect(answer).resolves.toMatchObject({ status: 200 })
    expect(await ids()).toEqual([1, 2])
  })

  test('one on the same handle, begun while a statement of the open one is on its way, is beside it, and waits', async () => {
    const environment = fakeEnvironment()
    const waits = deferred()
    const { client } = await start(
      async ctx => {
        const connection = promised(ctx)
        await connection.beginTransaction()
        const statement = connection.query(insert(1))
        const begun = connection.beginTransaction()
        await statement
        waits.resolve()
        await expect(begun).rejects.toMatchObject({ code: 'TRANSACTION_CONTROL' })
        await connection.commit()
      },
      { acquireMs: 1_234 },
      environment,
    )
    const answer = client().get()
    await waits.promise
    await environment.clock.armed(delayMs => delayMs === 1_234)
    environment.clock.advance(1_234)
    await expect(answer).resolves.toMatchObject({ status: 200 })
    expect(await ids()).toEqual([1])
  })

  test('a statement on another handle that a rollback takes back: nothing is stored, and it is said', async () => {
    const { client, errors } = await start(async ctx => {
      const [one, other] = [promised(ctx), promised(ctx)]
      await ctx.tx.query('SELECT n FROM item')
      const begun = one.beginTransaction()
      if (ctx.path !== '/at-once') await begun
      await other.query(ctx.path === '/read' ? 'SELECT n FROM item' : insert(1))
      await begun
      await one.rollback()
      await other.query(insert(2))
    })
    for (const path of ['/', '/at-once'])
      await expect(client().get(path)).resolves.toMatchObject({ status: 500 })
    expect(errors).toMatchObject([{ code: 'TRANSACTION_CONTROL' }, { code: 'TRANSACTION_CONTROL' }])
    expect(await ids()).toEqual([])
    await expect(client().get('/read')).resolves.toMatchObject({ status: 200 })
    expect(await ids()).toEqual([2])
  })

  test('many at once are served one after the other', async () => {
    const { client } = await start(async ctx => {
      const one = async (id: number): Promise<void> => {
        const connection = promised(ctx)
        await connection.beginTransaction()
        await connection.query(insert(id))
        await (id % 2 === 0 ? connection.rollback() : connection.commit())
      }
      await Promise.all([1, 2, 3, 4, 5, 6, 7].map(one))
    })
    await expect(client().get()).resolves.toMatchObject({ status: 200 })
    expect(await ids()).toEqual([1, 3, 5, 7])
  })
})

describe('when the attempt is over', () => {
  test('a handle that is still held is refused, and its ROLLBACK has nothing to do', async () => {
    const held: { handle?: ConnectionHandle } = {}
    const { client } = await start(async ctx => {
      held.handle = ctx.tx.connection()
      await held.handle.promise().query(insert(1))
      if (ctx.path === '/fail') throw new Error('no')
    })
    for (const path of ['/', '/fail']) {
      await client().get(path)
      const ended = held.handle!
      const late = ended.promise()
      await expect(late.query(insert(2))).rejects.toMatchObject({ code: 'TRANSACTION_CLOSED' })
      await expect(late.beginTransaction()).rejects.toMatchObject({ code: 'TRANSACTION_CLOSED' })
      await expect(late.ping()).rejects.toMatchObject({ code: 'TRANSACTION_CLOSED' })
      const error = await new Promise(resolve => {
        ended.query(insert(2), resolve)
      })
      expect(error).toMatchObject({ code: 'TRANSACTION_CLOSED' })
      const rollback = late.rollback()
      if (path === '/fail') await expect(rollback).resolves.toBeDefined()
      else await expect(rollback).rejects.toMatchObject({ code: 'TRANSACTION_CLOSED' })
    }
    expect(await ids()).toEqual([1])
  })

  test('one that waits for its turn is let go', async () => {
    const environment = fakeEnvironment()
    let waiting: Promise<unknown> = Promise.resolve()
    const { client, errors } = await start(
      async ctx => {
        const [one, other] = [promised(ctx), promised(ctx)]
        await one.beginTransaction()
        waiting = other.beginTransaction()
        waiting.catch(() => {})
        throw new Error('no')
      },
      { acquireMs: 1_234 },
      environment,
    )
    await client().get()
    expect(errors).toMatchObject([{ message: 'no' }])
    environment.clock.advance(1_234)
    await expect(waiting).rejects.toMatchObject({ code: 'TRANSACTION_CLOSED' })
  })
})
