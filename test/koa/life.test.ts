/**
 * The life of a request on a real database: what happens in which order, and what is left when something goes wrong on
 * the way. Rows are looked at from a second connection, the session by the client's next request.
 */
import {
  memoryStore,
  type Resource,
  SessionTxError,
  type SessionTxOptions,
  type Tx,
} from '../../lib/index.js'
import type { KoaContext } from '../../lib/http/koa.js'
import { serveTx, type TxContext, type TxMiddleware, type TxServed } from '../support/app.js'
import { Barrier, deferred, Gate } from '../support/barrier.js'
import { openDatabase, type TestDatabase } from '../support/database.js'
import { isUnlocked, nothingOpen, observedStore, valueOf } from '../support/observing.js'
import { openProxy } from '../support/proxy.js'
import mysql from 'mysql2/promise'

let db: TestDatabase
const undo: (() => unknown)[] = []

beforeAll(async () => {
  db = await openDatabase({ connectionLimit: 4 })
  await db.pool.query('CREATE TABLE item (id INT PRIMARY KEY, n INT NOT NULL) ENGINE=InnoDB')
})
afterAll(() => db.close())
beforeEach(() => db.pool.query('REPLACE INTO item VALUES (1, 0), (2, 0), (3, 0), (4, 0), (5, 0)'))
afterEach(async () => {
  for (const one of undo.splice(0).reverse()) await one()
})

type Handler = (ctx: TxContext) => unknown
type Options = SessionTxOptions<KoaContext>

interface Starting {
  readonly options?: Options
  readonly above?: readonly TxMiddleware[]
}

/** One handler per path; `/` answers with the session's variables. */
async function start(routes: Record<string, Handler>, { options, above }: Starting = {}): Promise<TxServed> {
  const all: Record<string, Handler> = { '/': ctx => (ctx.body = { ...ctx.session }), ...routes }
  const served = await serveTx({
    options: { pool: db.pool, ...options },
    ...(above === undefined ? {} : { above }),
    below: async ctx => {
      await all[ctx.path]?.(ctx)
    },
  })
  undo.push(() => served.close())
  return served
}

/** A handler that writes both sides. */
async function writeBoth(ctx: TxContext, n = 1): Promise<void> {
  ctx.session['n'] = n
  await ctx.tx.query('UPDATE item SET n = ? WHERE id = 1', [n])
}

const row = (id = 1): Promise<unknown> => valueOf(db, `SELECT n FROM ${db.name}.item WHERE id = ?`, [id])

/** A two-phase resource of the application's own. */
function own(log: string[], overrides: Partial<Resource> = {}): Resource {
  const note = (phase: string) => (): void => void log.push(`${phase} ledger`)
  const resource = {
    name: 'ledger',
    phases: 2,
    prepare: note('prepare'),
    commit: note('commit'),
    release: note('release'),
    rollback: note('rollback'),
  }
  return { ...resource, ...overrides } as Resource
}

test('before-hooks, session prepare, COMMIT, session install, respond, after-hooks; nobody is called twice', async () => {
  const proxy = await openProxy(db.url)
  const pool = mysql.createPool({ uri: proxy.url, connectionLimit: 2 })
  undo.push(
    () => proxy.close(),
    () => pool.end(),
  )
  const log: string[] = []
  const ended = deferred()
  proxy.onCommand = command => {
    if (/^(?:COMMIT|ROLLBACK|UPDATE)/.test(command)) log.push(command.split(' ')[0] ?? '')
  }
  const above: TxMiddleware = async (ctx, next) => {
    ctx.res.prependOnceListener('finish', () => log.push('response finished'))
    await next()
    log.push('back above')
  }
  const { client } = await start(
    {
      '/both': async ctx => {
        log.push('handler')
        ctx.tx.beforeCommit(() => log.push('first before-hook'))
        ctx.tx.beforeCommit(async () => {
          await writeBoth(ctx)
          log.push('second before-hook')
        })
        ctx.tx.afterCommit(() => log.push('first after-hook'))
        ctx.tx.afterCommit(async () => {
          await Promise.resolve()
          log.push('second after-hook')
        })
        ctx.tx.afterCommit(() => ended.resolve())
        ctx.tx.afterRollback(() => log.push('after-rollback-hook'))
        ctx.session['n'] = 0
        ctx.body = 'ok'
      },
    },
    { options: { pool, store: observedStore(memoryStore(), log) }, above: [above] },
  )
  await expect(client().get('/both')).resolves.toMatchObject({ status: 200, text: 'ok' })
  await ended.promise
  expect(log).toEqual([
    'handler',
    'first before-hook',
    'UPDATE',
    'second before-hook',
    'prepare session',
    'COMMIT',
    'install session',
    'release session',
    'back above',
    'response finished',
    'first after-hook',
    'second after-hook',
  ])
  expect(await row()).toBe(1)
})

describe('a failing prepare', () => {
  const failing = () => {
    const log: string[] = []
    const tx: { used?: Tx; session?: TxContext['session'] } = {}
    const routes: Record<string, Handler> = {
      '/fail': async ctx => {
        tx.used = ctx.tx
        tx.session = ctx.session
        await writeBoth(ctx)
        ctx.tx.enlist(
          own(log, {
            prepare: () => {
              log.push('prepare ledger')
              throw new Error('the ledger is closed')
            },
          }),
        )
        ctx.tx.afterRollback(() => log.push('undone'))
      },
      '/write': async ctx => {
        await writeBoth(ctx, 7)
        ctx.body = 'written'
      },
    }
    return { log, tx, routes }
  }

  test('leaves neither row nor variable, and the connection is back with nothing open', async () => {
    const { log, routes } = failing()
    const { client, errors } = await start(routes)
    const ann = client()
    await ann.get('/write')
    await expect(ann.get('/fail')).resolves.toMatchObject({ status: 500 })
    expect(log).toEqual(['prepare ledger', 'rollback ledger', 'undone'])
    expect(errors).toEqual([new Error('the ledger is closed')])
    await nothingOpen(db)
    expect(await isUnlocked(db, 'item', 1)).toBe(true)
    expect(await row()).toBe(7)
    expect((await ann.get('/')).json()).toEqual({ n: 7 })
  })

  test('every further use is refused with the first error as cause, and the next request is clean', async () => {
    const { tx, routes } = failing()
    const { client, tx: middleware } = await start(routes, { options: { pool: db.pool } })
    const ann = client()
    await ann.get('/write')
    await ann.get('/fail')
    const cause: unknown = expect.objectContaining({ message: 'the ledger is closed' })
    const refused = { code: 'TRANSACTION_CLOSED', cause }
    await expect(tx.used?.query('UPDATE item SET n = 9')).rejects.toMatchObject(refused)
    await expect(tx.used?.execute('UPDATE item SET n = 9')).rejects.toMatchObject(refused)
    await expect(tx.used?.savepoint(() => {})).rejects.toMatchObject(refused)
    expect(() => tx.used?.afterCommit(() => {})).toThrow(expect.objectContaining(refused))
    expect(() => tx.used?.enlist(own([]))).toThrow(expect.objectContaining(refused))
    expect(() => tx.used?.conflict()).toThrow(expect.objectContaining(refused))
    expect(() => {
      if (tx.session !== undefined) tx.session['n'] = 9
    }).toThrow(expect.objectContaining(refused))
    await expect(ann.get('/write')).resolves.toMatchObject({ text: 'written' })
    expect(await row()).toBe(7)
    expect(middleware.stats().requests).toEqual({ committed: 2, rolledBack: 1, refused: 0, unknown: 0 })
  })
})

describe('doom', () => {
  test('the 200 is delivered, nothing is stored, there is neither hook nor re-run, and it is counted', async () => {
    let runs = 0
    const { client, tx } = await start({
      '/preview': async ctx => {
        runs += 1
        await writeBoth(ctx)
        ctx.tx.beforeCommit(() => {
          runs += 1
        })
        ctx.tx.doom('a preview')
        ctx.body = 'preview'
      },
    })
    const reasons: string[] = []
    tx.on('rollback', ({ reason }) => reasons.push(reason))
    const ann = client()
    await expect(ann.get('/preview')).resolves.toMatchObject({ status: 200, text: 'preview' })
    expect(runs).toBe(1)
    expect([...ann.cookies]).toEqual([])
    await nothingOpen(db)
    expect(await row()).toBe(0)
    expect(tx.stats().requests).toEqual({ committed: 0, rolledBack: 1, refused: 0, unknown: 0 })
    expect(reasons).toEqual(['doom'])
  })

  test('said by a before-commit hook, it holds all the same', async () => {
    const { client, tx } = await start({
      '/preview': async ctx => {
        await writeBoth(ctx)
        ctx.tx.beforeCommit(() => ctx.tx.doom())
        ctx.body = 'preview'
      },
    })
    await expect(client().get('/preview')).resolves.toMatchObject({ status: 200, text: 'preview' })
    expect(await row()).toBe(0)
    expect(tx.stats().requests.rolledBack).toBe(1)
  })

  test('it is stronger than commitOnError', async () => {
    const { client } = await start(
      {
        '/preview': async ctx => {
          await writeBoth(ctx)
          ctx.tx.doom()
          throw Object.assign(new Error('no'), { status: 400 })
        },
      },
      { options: { commitOnError: () => true } },
    )
    await expect(client().get('/preview')).resolves.toMatchObject({ status: 400 })
    expect(await row()).toBe(0)
  })
})

describe('hooks', () => {
  test('a throwing before-commit hook rolls back both, and nothing can commit afterwards', async () => {
    let used: Tx | undefined
    const late: unknown[] = []
    const { client } = await start({
      '/hook': async ctx => {
        used = ctx.tx
        await writeBoth(ctx)
        ctx.tx.beforeCommit(() => {
          throw new Error('no stock left')
        })
        ctx.tx.beforeCommit(() => late.push('hook behind it'))
        ctx.tx.afterCommit(() => late.push('mail'))
        ctx.body = 'ok'
      },
    })
    const ann = client()
    await expect(ann.get('/hook')).resolves.toMatchObject({ status: 500 })
    expect(await row()).toBe(0)
    expect([...ann.cookies]).toEqual([])
    await expect(used?.query('UPDATE item SET n = 9')).rejects.toMatchObject({
      code: 'TRANSACTION_CLOSED',
      cause: { message: 'no stock left' },
    })
    await nothingOpen(db)
    expect(late).toEqual([])
  })

  test('a before-commit hook whose savepoint could not be gone back to cannot commit, even if it says nothing', async () => {
    const log: string[] = []
    const { client } = await start({
      '/hook': async ctx => {
        await writeBoth(ctx)
        const back = (): never => {
          throw new Error('cannot go back')
        }
        ctx.tx.enlist(own(log, { savepoint: () => back }))
        ctx.tx.beforeCommit(async () => {
          await ctx.tx.savepoint(() => Promise.reject(new Error('the part failed'))).catch(() => {})
        })
      },
    })
    await expect(client().get('/hook')).resolves.toMatchObject({ status: 500 })
    expect(await row()).toBe(0)
    expect(log).toEqual(['rollback ledger'])
  })

  test('a throwing after-commit hook changes neither answer nor commit; later hooks run; it is counted', async () => {
    const ran = deferred()
    const { client, tx, errors } = await start({
      '/hook': async ctx => {
        await writeBoth(ctx)
        ctx.tx.afterCommit(() => Promise.reject(new Error('no mail server')))
        ctx.tx.afterCommit(() => {
          throw new Error('no printer')
        })
        ctx.tx.afterCommit(() => ran.resolve())
        ctx.body = 'ok'
      },
    })
    const ann = client()
    await expect(ann.get('/hook')).resolves.toMatchObject({ status: 200, text: 'ok' })
    await ran.promise
    expect(await row()).toBe(1)
    expect((await ann.get('/')).json()).toEqual({ n: 1 })
    expect(tx.stats()).toMatchObject({ hooksFailed: 2, requests: { committed: 2, rolledBack: 0 } })
    expect(errors).toEqual([new Error('no mail server'), new Error('no printer')])
  })

  test('they belong to their attempt: conflict on the first, commit on the second, exactly one mail', async () => {
    const log: string[] = []
    const sent = deferred()
    const { client } = await start({
      '/mail': async ctx => {
        const { attempt } = ctx.tx
        await writeBoth(ctx)
        ctx.tx.beforeCommit(() => log.push(`before ${attempt}`))
        ctx.tx.afterRollback(() => log.push(`undo ${attempt}`))
        ctx.tx.afterCommit(() => {
          log.push(`mail ${attempt}`)
          sent.resolve()
        })
        if (attempt === 1) ctx.tx.conflict()
        ctx.body = 'ok'
      },
    })
    await expect(client().get('/mail')).resolves.toMatchObject({ status: 200 })
    await sent.promise
    expect(log).toEqual(['undo 1', 'before 2', 'mail 2'])
  })

  test('afterCommit starts when the response has finished', async () => {
    const finished = deferred<boolean>()
    const { client } = await start({
      '/hook': ctx => {
        ctx.tx.afterCommit(() => finished.resolve(ctx.res.writableFinished))
        ctx.body = 'ok'
      },
    })
    await client().get('/hook')
    await expect(finished.promise).resolves.toBe(true)
  })

  test('afterCommit starts when the connection closed and nobody will read the response', async () => {
    const entered = deferred()
    const closed = deferred()
    const hook = deferred()
    const { client } = await start({
      '/hook': async ctx => {
        ctx.res.once('close', () => closed.resolve())
        entered.resolve()
        await closed.promise
        await writeBoth(ctx)
        ctx.tx.afterCommit(() => hook.resolve())
        ctx.body = 'nobody reads this'
      },
    })
    const started = client().start('GET', '/hook')
    await entered.promise
    started.leave()
    await expect(started.answer).rejects.toThrow('the client went away')
    await hook.promise
    expect(await row()).toBe(1)
  })

  test('the current transaction is none of theirs: they are outside', async () => {
    const { currentTx } = await import('../../lib/index.js')
    const seen = deferred<unknown>()
    const { client } = await start({
      '/hook': ctx => {
        expect(currentTx()).toBe(ctx.tx)
        ctx.tx.afterCommit(() => seen.resolve(currentTx()))
      },
    })
    await client().get('/hook')
    await expect(seen.promise).resolves.toBeUndefined()
  })

  test('close() waits for them', async () => {
    const gate = new Gate()
    const began = deferred()
    let ended = false
    const { client, tx } = await start({
      '/hook': ctx => {
        ctx.tx.afterCommit(async () => {
          began.resolve()
          await gate.passed()
          ended = true
        })
        ctx.body = 'ok'
      },
    })
    await client().get('/hook')
    await began.promise
    let closed = false
    const closing = tx.close().then(() => {
      closed = true
    })
    await new Promise(resolve => setImmediate(resolve))
    expect(closed).toBe(false)
    gate.open()
    await closing
    expect(ended).toBe(true)
  })

  test('run() waits for its own, resolves to the result of the attempt that committed, and none can fail it', async () => {
    const { tx } = await start({})
    const warned: string[] = []
    const warnings = jest
      .spyOn(process, 'emitWarning')
      .mockImplementation(text => void warned.push(String(text)))
    undo.push(() => warnings.mockRestore())
    const log: string[] = []
    const result = await tx.run(async (inner, session) => {
      session['n'] = 1
      await inner.query('UPDATE item SET n = n + 1 WHERE id = 1')
      inner.afterCommit(async () => {
        await new Promise(resolve => setImmediate(resolve))
        log.push(`hook ${inner.attempt}`)
        throw new Error('no mail server')
      })
      if (inner.attempt === 1) inner.conflict()
      return `result ${inner.attempt}`
    })
    expect(result).toBe('result 2')
    expect(log).toEqual(['hook 2'])
    expect(await row()).toBe(1)
    expect(warned.join()).toContain('no mail server')
    expect(tx.stats().hooksFailed).toBe(1)
  })
})

test('ctx.tx after the response: TRANSACTION_CLOSED, and never a stray connection', async () => {
  const late = deferred<unknown>()
  const { client, tx } = await start({
    '/late': async ctx => {
      await writeBoth(ctx)
      ctx.res.once('close', () => {
        ctx.tx.query('UPDATE item SET n = 99 WHERE id = 1').catch((error: unknown) => late.resolve(error))
      })
      ctx.body = 'ok'
    },
  })
  await client().get('/late')
  await expect(late.promise).resolves.toMatchObject({ code: 'TRANSACTION_CLOSED' })
  await nothingOpen(db)
  expect(await row()).toBe(1)
  expect(tx.stats().stray.total).toBe(0)
})

describe('savepoints', () => {
  test('a=1, row=1; the part throws after a=2, row=2; commit: a=1 and row=1 only', async () => {
    const { client } = await start({
      '/savepoint': async ctx => {
        await writeBoth(ctx, 1)
        ctx.session['list'] = ['kept']
        const part = ctx.tx.savepoint(async () => {
          await writeBoth(ctx, 2)
          ;(ctx.session['list'] as string[]).push('gone')
          ctx.session['gone'] = true
          throw new Error('the part failed')
        })
        await expect(part).rejects.toThrow('the part failed')
        expect(ctx.session['n']).toBe(1)
        ctx.body = 'ok'
      },
    })
    const ann = client()
    await expect(ann.get('/savepoint')).resolves.toMatchObject({ status: 200 })
    expect(await row()).toBe(1)
    expect((await ann.get('/')).json()).toEqual({ n: 1, list: ['kept'] })
  })

  test('they nest, and a database first used inside one is used again after it', async () => {
    const { client } = await start({
      '/savepoint': async ctx => {
        const first = ctx.tx.savepoint(async () => {
          await writeBoth(ctx, 5)
          throw new Error('all of it')
        })
        await expect(first).rejects.toThrow('all of it')
        await ctx.tx.savepoint(async () => {
          await writeBoth(ctx, 1)
          const inner = ctx.tx.savepoint(async () => {
            await writeBoth(ctx, 2)
            throw new Error('only this')
          })
          await expect(inner).rejects.toThrow('only this')
        })
        ctx.body = 'ok'
      },
    })
    const ann = client()
    await expect(ann.get('/savepoint')).resolves.toMatchObject({ status: 200 })
    expect(await row()).toBe(1)
    expect((await ann.get('/')).json()).toEqual({ n: 1 })
  })
})

describe('statements that nobody waits for', () => {
  test('one branch of Promise.all throws: the late query neither commits nor reaches a later request', async () => {
    const late = deferred<unknown>()
    const { client } = await start(
      {
        '/all': async ctx => {
          await writeBoth(ctx)
          const slow = async (): Promise<void> => {
            await ctx.tx.query('DO SLEEP(0.05)')
            await ctx.tx.query('UPDATE item SET n = 99 WHERE id = 1')
          }
          await Promise.all([
            slow().catch((error: unknown) => late.resolve(error)),
            Promise.reject(new Error('one branch')),
          ])
        },
        '/later': async ctx => {
          await writeBoth(ctx, 3)
          ctx.body = 'ok'
        },
      },
      { options: { pool: db.pool } },
    )
    const ann = client()
    await expect(ann.get('/all')).resolves.toMatchObject({ status: 500 })
    expect(await row()).toBe(0)
    await expect(ann.get('/later')).resolves.toMatchObject({ status: 200 })
    await expect(late.promise).resolves.toMatchObject({
      code: 'TRANSACTION_CLOSED',
      cause: { message: 'one branch' },
    })
    await nothingOpen(db)
    expect(await row()).toBe(3)
  })

  test('one that failed and was never awaited fails the attempt, and no unhandled rejection follows', async () => {
    const { client, errors } = await start({
      '/forgotten': async ctx => {
        await writeBoth(ctx)
        void ctx.tx.query('INSERT INTO nowhere VALUES (1)')
        ctx.body = 'ok'
      },
    })
    await expect(client().get('/forgotten')).resolves.toMatchObject({ status: 500 })
    expect(errors).toMatchObject([{ errno: 1146 }])
    expect(await row()).toBe(0)
    // A rejection that nobody heard would be reported by now, and fail this test.
    await new Promise(resolve => setImmediate(resolve))
  })

  test('one that failed and was heard fails nothing', async () => {
    const { client } = await start({
      '/heard': async ctx => {
        await writeBoth(ctx)
        ctx.tx.query('INSERT INTO nowhere VALUES (1)').catch(() => {})
        ctx.body = 'ok'
      },
    })
    await expect(client().get('/heard')).resolves.toMatchObject({ status: 200 })
    expect(await row()).toBe(1)
  })

  test('those in flight when the handler returns are waited for and committed', async () => {
    const { client } = await start({
      '/forgotten': ctx => {
        ctx.session['n'] = 1
        void ctx.tx.query('DO SLEEP(0.05)')
        void ctx.tx.query('UPDATE item SET n = 1 WHERE id = 1')
        void ctx.tx.execute('UPDATE item SET n = ? WHERE id = 2', [2])
        ctx.body = 'ok'
      },
    })
    await expect(client().get('/forgotten')).resolves.toMatchObject({ status: 200 })
    expect([await row(1), await row(2)]).toEqual([1, 2])
  })

  test('a deadlock heard by nobody but a catch, after the handler has returned: re-run, nothing partial', async () => {
    const both = new Barrier(2)
    let runs = 0
    const bump = 'UPDATE item SET n = n + 1 WHERE id = ?'
    /** The heavier of two transactions wins a deadlock in InnoDB, whoever closed the circle. */
    const heavy: Handler = async ctx => {
      runs += 1
      await ctx.tx.query(bump, [1])
      await ctx.tx.query('UPDATE item SET n = n + 1 WHERE id > 2')
      if (ctx.tx.attempt === 1) await both.arrive()
      await ctx.tx.query(bump, [2])
      ctx.body = 'ok'
    }
    const light: Handler = async ctx => {
      runs += 1
      ctx.session['attempt'] = ctx.tx.attempt
      await ctx.tx.query(bump, [2])
      if (ctx.tx.attempt === 1) await both.arrive()
      ctx.tx.query(bump, [1]).catch(() => {})
      ctx.body = 'ok'
    }
    const { client, tx } = await start({
      '/heavy': heavy,
      '/light': light,
    })
    const ann = client()
    const answers = await Promise.all([client().get('/heavy'), ann.get('/light')])
    expect(answers.map(({ status }) => status)).toEqual([200, 200])
    expect([await row(1), await row(2)]).toEqual([2, 2])
    expect(runs).toBe(3)
    expect((await ann.get('/')).json()).toEqual({ attempt: 2 })
    expect(tx.stats().conflicts.byKind).toEqual({ deadlock: 1 })
  })
})

describe('tx.enlist', () => {
  test('your own two-phase resource commits with both sides', async () => {
    const log: string[] = []
    const { client } = await start({
      '/own': async ctx => {
        ctx.tx.enlist(own(log))
        await writeBoth(ctx)
        ctx.body = 'ok'
      },
    })
    await expect(client().get('/own')).resolves.toMatchObject({ status: 200 })
    expect(log).toEqual(['prepare ledger', 'commit ledger', 'release ledger'])
    expect(await row()).toBe(1)
  })

  test('it is rolled back with both sides, and once more enlisted in the next attempt', async () => {
    const log: string[] = []
    const { client } = await start({
      '/own': async ctx => {
        ctx.tx.enlist(own(log))
        await writeBoth(ctx)
        if (ctx.tx.attempt === 1) ctx.tx.conflict()
      },
    })
    await client().get('/own')
    expect(log).toEqual(['rollback ledger', 'prepare ledger', 'commit ledger', 'release ledger'])
  })

  test('what fails after the decision changes neither outcome nor answer, and is reported', async () => {
    const failing = own([], { commit: () => Promise.reject(new Error('the disk is full')) })
    const { client, errors, tx } = await start({
      '/own': async ctx => {
        ctx.tx.enlist(failing)
        await writeBoth(ctx)
        ctx.body = 'ok'
      },
    })
    await expect(client().get('/own')).resolves.toMatchObject({ status: 200, text: 'ok' })
    expect(await row()).toBe(1)
    expect(errors).toEqual([new Error('the disk is full')])
    expect(tx.stats()).toMatchObject({ hooksFailed: 1, requests: { committed: 1 } })
  })

  test('a second resource that wants to decide alone is refused, and the request rolled back', async () => {
    const { client, errors } = await start({
      '/own': async ctx => {
        await writeBoth(ctx)
        ctx.tx.enlist({ name: 'queue', phases: 1, commit: () => {}, rollback: () => {} })
      },
    })
    await expect(client().get('/own')).resolves.toMatchObject({ status: 500 })
    expect(errors).toMatchObject([{ code: 'MISCONFIGURED' }])
    expect(await row()).toBe(0)
  })

  test('something that is no resource is a mistake, said at once', async () => {
    const { client, errors } = await start({
      // @ts-expect-error -- what JavaScript may pass
      '/own': ctx => ctx.tx.enlist({ name: 'half', phases: 2, commit: () => {} }),
    })
    await client().get('/own')
    expect(errors).toEqual([
      new TypeError('tx.enlist(resource) needs { name, phases: 1 or 2, prepare, commit, rollback }'),
    ])
  })
})

test('an error of ours that carries a database error, such as an unknown COMMIT, is no lost race', async () => {
  let ran = 0
  const lost = Object.assign(new Error('gone'), { code: 'PROTOCOL_CONNECTION_LOST', fatal: true })
  const served = await start({
    '/inner': () => {
      ran += 1
      throw new SessionTxError('COMMIT_UNKNOWN', 'of an inner transaction', { cause: lost })
    },
  })
  expect((await served.client().post('/inner')).status).toBe(503)
  expect(ran).toBe(1)
})

test('an after-commit hook may throw what is no Error: the later ones run, and nothing else notices', async () => {
  const log: string[] = []
  const served = await start({
    '/buy': async ctx => {
      await writeBoth(ctx)
      // oxlint-disable-next-line no-throw-literal, only-throw-error -- applications do
      ctx.tx.afterCommit(() => Promise.reject('boom' as unknown))
      ctx.tx.afterCommit(() => log.push('second'))
      ctx.body = 'bought'
    },
  })
  served.app.on('error', error => {
    throw error
  })
  expect((await served.client().post('/buy')).text).toBe('bought')
  await served.tx.close()
  expect(log).toEqual(['second'])
  expect(served.tx.stats()).toMatchObject({ hooksFailed: 1, requests: { committed: 1 } })
})

test('a cookie that cannot be written does not turn what is stored into a failure', async () => {
  const log: string[] = []
  const sign = (): never => {
    throw new Error('no key today')
  }
  const served = await start(
    {
      '/buy': async ctx => {
        await writeBoth(ctx, 7)
        ctx.tx.afterCommit(() => log.push('mail'))
        ctx.body = 'bought'
      },
    },
    { options: { keys: { sign, verify: () => false } } },
  )
  expect((await served.client().post('/buy')).status).toBe(200)
  await served.tx.close()
  expect(await row()).toBe(7)
  expect(log).toEqual(['mail'])
  expect(served.tx.stats()).toMatchObject({ hooksFailed: 1, requests: { committed: 1 } })
})
