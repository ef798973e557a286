/** A request's life in Express: one transaction over session and rows, answered after the commit. */
import type { ErrorRequestHandler } from 'express'
import type { RowDataPacket } from 'mysql2/promise'
import { currentTx } from '../../lib/index.js'
import { deferred, Gate } from '../support/barrier.js'
import { openDatabase, type TestDatabase } from '../support/database.js'
import { type ExpressServed, type ExpressServing, expresses, serveExpress } from '../support/express-app.js'
import { nothingOpen } from '../support/observing.js'

let db: TestDatabase

beforeAll(async () => {
  db = await openDatabase()
  await db.pool.query('CREATE TABLE acc (id INT PRIMARY KEY, n INT NOT NULL) ENGINE=InnoDB')
})
afterAll(() => db.close())
beforeEach(async () => {
  await db.pool.query('REPLACE INTO acc VALUES (1, 0)')
})

async function row(): Promise<number | undefined> {
  const [rows] = await db.pool.query<(RowDataPacket & { n: number })[]>('SELECT n FROM acc WHERE id = 1')
  return rows[0]?.n
}

describe.each(expresses)('%s', (_name, express) => {
  let served: ExpressServed
  afterEach(() => served.close())

  async function serving(given: Omit<ExpressServing, 'express'>): Promise<ExpressServed> {
    served = await serveExpress({ express, ...given, options: { pool: db.pool, ...given.options } })
    return served
  }

  test('session and row are committed together, and the next request sees both', async () => {
    const { client, tx } = await serving({
      below: async (req, res) => {
        req.session['visits'] = Number(req.session['visits'] ?? 0) + 1
        await req.tx.execute('UPDATE acc SET n = n + 1 WHERE id = 1')
        res.json({ visits: req.session['visits'], id: req.sessionID === req.session.id })
      },
    })
    const visitor = client()
    expect((await visitor.get()).json()).toEqual({ visits: 1, id: true })
    expect((await visitor.get()).json()).toEqual({ visits: 2, id: true })
    expect(await row()).toBe(2)
    expect([...visitor.cookies.keys()]).toEqual(['sid'])
    expect(tx.stats()).toMatchObject({ requests: { committed: 2 }, attempts: { 1: 2 }, notRerunnable: {} })
  })

  test('nothing of the answer leaves before the commit', async () => {
    const log: string[] = []
    const { client, tx } = await serving({
      above: [
        (_req, res, next) => {
          const { end } = res
          res.end = ((...args: Parameters<typeof end>) => {
            log.push('end')
            return end.apply(res, args)
          }) as typeof end
          next()
        },
      ],
      below: async (req, res) => {
        await req.tx.execute('UPDATE acc SET n = n + 1 WHERE id = 1')
        req.tx.beforeCommit(() => void log.push('before commit'))
        res.send('ok')
        log.push('handler is done')
      },
    })
    tx.on('commit', () => log.push('committed'))
    expect((await client().get()).text).toBe('ok')
    expect(log).toEqual(['handler is done', 'before commit', 'committed', 'end'])
  })

  test('after-commit hooks run once, when the answer has left', async () => {
    const log: unknown[] = []
    const mailed = deferred()
    const { client } = await serving({
      below: (req, res) => {
        const { attempt } = req.tx
        req.session['a'] = attempt
        req.tx.afterCommit(() => {
          log.push(`mail of ${attempt}`, res.writableFinished)
          mailed.resolve()
        })
        if (attempt < 3) req.tx.conflict()
        res.send('ok')
      },
    })
    await client().get()
    await mailed.promise
    expect(log).toEqual(['mail of 3', true])
  })

  test('a GET that touches nothing takes no connection, sets no cookie, stores nothing', async () => {
    const { client, tx } = await serving({ below: (_req, res) => void res.send('hello') })
    const visitor = client()
    expect(await visitor.get()).toMatchObject({ status: 200, text: 'hello' })
    expect(visitor.cookies.size).toBe(0)
    expect(tx.stats().sessions.live).toBe(0)
  })

  test('an object taken from the session and answered with renders', async () => {
    const { client } = await serving({
      below: (req, res) => {
        const fruit = (req.session['fruit'] as string[] | undefined) ?? []
        fruit.push('apple')
        req.session['fruit'] = fruit
        res.json({ items: req.session['fruit'] })
      },
    })
    const visitor = client()
    await visitor.post()
    expect((await visitor.post()).json()).toEqual({ items: ['apple', 'apple'] })
  })

  test('an object taken from the session can still be read after the commit', async () => {
    const rendered = deferred<string>()
    const { client } = await serving({
      below: (req, res) => {
        const fruit = (req.session['fruit'] ??= { items: ['apple'] })
        res.on('finish', () => rendered.resolve(JSON.stringify(fruit)))
        res.send('ok')
      },
    })
    await client().post()
    expect(await rendered.promise).toBe('{"items":["apple"]}')
  })

  test('currentTx() and req.tx are the running attempt, also below a callback of an event', async () => {
    // As a parser that is fed by the socket: what it calls back runs in no transaction.
    const outside: (() => void)[] = []
    const timer = setInterval(() => outside.shift()?.(), 1)
    const { client } = await serving({
      build: (app, tx) => {
        app.use(tx)
        app.use(express.text())
        app.use((_req, _res, next) => void outside.push(next))
        app.post('/', (req, res) => void res.json([currentTx() === req.tx, req.tx.attempt, req.body]))
      },
    })
    expect((await client().post('/', 'hello', { headers: { 'content-type': 'text/plain' } })).json()).toEqual(
      [true, 1, 'hello'],
    )
    clearInterval(timer)
  })

  test('req.tx after the response is TRANSACTION_CLOSED, never a stray connection', async () => {
    const late = deferred<unknown>()
    const { client } = await serving({
      below: (req, res) => {
        const { tx } = req
        res.on('finish', () => {
          tx.query('SELECT 1').then(late.resolve, late.resolve)
        })
        res.send('ok')
      },
    })
    await client().get()
    expect(await late.promise).toMatchObject({ code: 'TRANSACTION_CLOSED' })
    await nothingOpen(db)
  })

  test('skip: req.tx and req.session are absent, nothing is counted', async () => {
    const { client, tx } = await serving({
      options: { skip: (req, res) => req.path.startsWith('/static') && !res.headersSent },
      below: (req, res) =>
        void res.json([req.tx === undefined, req.session === undefined, currentTx() === undefined]),
    })
    expect((await client().get('/static/a.css')).json()).toEqual([true, true, true])
    expect((await client().get('/')).json()).toEqual([false, false, false])
    expect(tx.stats().requests.committed).toBe(1)
  })

  test('the deadline rolls back, though the handler has not answered; what it answers later goes nowhere', async () => {
    const go = new Gate()
    const answered = deferred()
    const { client, errors } = await serving({
      options: { retry: { deadlineMs: 50 } },
      below: async (req, res) => {
        await req.tx.execute('UPDATE acc SET n = n + 1 WHERE id = 1')
        await go.passed()
        try {
          res.send('too late')
        } finally {
          answered.resolve()
        }
      },
    })
    const answer = await client().get()
    expect(answer).toMatchObject({ status: 503, text: 'error 503' })
    expect(errors).toEqual([expect.objectContaining({ code: 'DEADLINE' })])
    go.open()
    await answered.promise
    expect(await row()).toBe(0)
  })

  test('error middleware that takes its time is not overtaken by the handler that was given up', async () => {
    const given = deferred()
    const go = new Gate()
    const answered = deferred()
    const { client } = await serving({
      options: { retry: { deadlineMs: 50 } },
      build: (app, tx) => {
        app.use(tx)
        app.use(async (_req, res) => {
          await go.passed()
          res.send('too late')
          answered.resolve()
        })
        const page: ErrorRequestHandler = (_error, _req, res, _next) => {
          given.resolve()
          void answered.promise.then(() => {
            res.statusCode = 503
            res.end('the page')
          })
        }
        app.use(page)
      },
    })
    const answer = client().get()
    await given.promise
    go.open()
    expect(await answer).toMatchObject({ status: 503, text: 'the page' })
  })
})
