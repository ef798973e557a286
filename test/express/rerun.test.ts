/** What runs again in Express, how often, and what the client sees of it; what an attempt left is gone in the next. */
import type { Request, RequestHandler, Response } from 'express'
import type { EventEmitter } from 'node:events'
import { PassThrough, Readable } from 'node:stream'
import type { RowDataPacket } from 'mysql2/promise'
import onFinished from 'on-finished'
import { sessionTx } from '../../lib/express.js'
import { Barrier, deferred, Gate } from '../support/barrier.js'
import type { Answer } from '../support/client.js'
import { openDatabase, type TestDatabase } from '../support/database.js'
import { type ExpressServed, type ExpressServing, expresses, serveExpress } from '../support/express-app.js'

let db: TestDatabase

beforeAll(async () => {
  db = await openDatabase()
  await db.pool.query('CREATE TABLE acc (id INT PRIMARY KEY, n INT NOT NULL) ENGINE=InnoDB')
})
afterAll(() => db.close())
beforeEach(async () => {
  await db.pool.query('REPLACE INTO acc VALUES (1, 0), (2, 0)')
})

type Row = RowDataPacket & { readonly n: number }

async function n(id: number): Promise<number | undefined> {
  const [rows] = await db.pool.query<Row[]>('SELECT n FROM acc WHERE id = ?', [id])
  return rows[0]?.n
}
const increment = (req: Request, id: number) => req.tx.execute('UPDATE acc SET n = n + 1 WHERE id = ?', [id])

describe.each(expresses)('%s', (_name, express) => {
  let served: ExpressServed
  let ran: number
  afterEach(() => served.close())

  async function serving({
    below,
    ...given
  }: Omit<ExpressServing, 'express' | 'build'>): Promise<ExpressServed> {
    ran = 0
    served = await serveExpress({
      express,
      ...given,
      options: { pool: db.pool, ...given.options },
      below: (req, res, next) => {
        ran += 1
        return below?.(req, res, next)
      },
    })
    return served
  }

  test('conflict, conflict, success: the handler ran 3 times, the client sees the third response only', async () => {
    const { client, tx, errors } = await serving({
      below: async (req, res) => {
        const { attempt, lastError, retries, isLastAttempt } = req.tx
        req.session['visits'] = Number(req.session['visits'] ?? 0) + 1
        await increment(req, 1)
        res.set(`X-Attempt-${attempt}`, 'here')
        if (attempt < 3) req.tx.conflict()
        res.json({
          attempt,
          retries,
          isLastAttempt,
          lastError: lastError?.code,
          visits: req.session['visits'],
        })
      },
    })
    const answer = await client().get()
    expect(answer.status).toBe(200)
    expect(answer.json()).toEqual({
      attempt: 3,
      retries: 3,
      isLastAttempt: false,
      lastError: 'CONFLICT',
      visits: 1,
    })
    expect(Object.keys(answer.headers).filter(name => name.startsWith('x-attempt'))).toEqual(['x-attempt-3'])
    expect(ran).toBe(3)
    expect(await n(1)).toBe(1)
    expect(errors).toEqual([])
    expect(tx.stats()).toMatchObject({ requests: { committed: 1 }, attempts: { 3: 1 }, retried: 2 })
  })

  test('always in conflict: ran 1 + retries times, 503 with Retry-After, both sides as before', async () => {
    const { client, tx, errors } = await serving({
      options: { retry: { retries: 2 } },
      below: async req => {
        req.session['visits'] = ran
        await increment(req, 1)
        req.tx.conflict('as always')
      },
    })
    const visitor = client()
    const answer = await visitor.get()
    expect(answer).toMatchObject({ status: 503, text: 'error 503' })
    expect(Number(answer.headers['retry-after'])).toBeGreaterThanOrEqual(1)
    expect(ran).toBe(3)
    expect(await n(1)).toBe(0)
    expect(visitor.cookies.size).toBe(0)
    expect(errors).toEqual([
      expect.objectContaining({
        code: 'RETRIES_EXHAUSTED',
        cause: expect.objectContaining({ code: 'CONFLICT' }),
      }),
    ])
    expect(tx.stats()).toMatchObject({
      exhausted: 1,
      refused: { RETRIES_EXHAUSTED: 1 },
      requests: { refused: 1 },
    })
  })

  test('retries: 0 runs once and says RETRIES_EXHAUSTED with the conflict as cause', async () => {
    const { client, errors, tx } = await serving({
      options: { retry: { retries: 0 } },
      below: req => req.tx.conflict(),
    })
    expect((await client().get()).status).toBe(503)
    expect(ran).toBe(1)
    expect(errors).toEqual([
      expect.objectContaining({
        code: 'RETRIES_EXHAUSTED',
        cause: expect.objectContaining({ code: 'CONFLICT' }),
      }),
    ])
    expect(tx.stats().notRerunnable).toEqual({})
  })

  test('retries can be decided per request, from (req, res)', async () => {
    const { client } = await serving({
      options: { retry: { retries: (req, res) => (req.method === 'POST' && !res.headersSent ? 0 : 1) } },
      below: req => req.tx.conflict(),
    })
    await client().post()
    expect(ran).toBe(1)
    await client().get()
    expect(ran).toBe(3)
  })

  test('1020: another request committed the row first; the handler runs again and sees it', async () => {
    const bothHaveRead = new Barrier(2)
    const { client, tx } = await serving({
      below: async (req, res) => {
        const [rows] = await req.tx.query<Row[]>('SELECT n FROM acc WHERE id = 1')
        if (req.tx.attempt === 1) await bothHaveRead.arrive()
        await req.tx.execute('UPDATE acc SET n = ? WHERE id = 1', [(rows[0]?.n ?? Number.NaN) + 1])
        res.send('ok')
      },
    })
    const answers = await Promise.all([client().get(), client().get()])
    expect(answers.map(({ status }) => status)).toEqual([200, 200])
    expect(await n(1)).toBe(2)
    expect(ran).toBe(3)
    expect(tx.stats().conflicts.byKind).toEqual({ row: 1 })
  })

  test('a conflict that the handler swallows and answers 200 to: run again, nothing partial committed', async () => {
    const { client } = await serving({
      below: async (req, res) => {
        await increment(req, 1)
        try {
          if (req.tx.attempt === 1) req.tx.conflict()
        } catch {}
        res.json({ attempt: req.tx.attempt })
      },
    })
    expect((await client().get()).json()).toEqual({ attempt: 2 })
    expect(await n(1)).toBe(1)
  })

  test('a conflict that shows only at the commit: what was answered already is thrown away', async () => {
    const { client, tx } = await serving({
      below: async (req, res) => {
        req.session['basket'] ??= ['apple']
        const basket = req.session['basket'] as string[]
        if (req.tx.attempt === 1 && req.path === '/add') {
          const { id: sessionId } = req.session
          await tx.run((_tx, session) => void (session['basket'] = ['pear']), { sessionId })
        }
        if (req.path === '/add') basket.push('plum')
        res.set(`X-Attempt-${req.tx.attempt}`, 'here').json(basket)
      },
    })
    const visitor = client()
    await visitor.get('/')
    const answer = await visitor.get('/add')
    expect(answer.json()).toEqual(['pear', 'plum'])
    expect(Object.keys(answer.headers).filter(name => name.startsWith('x-attempt'))).toEqual(['x-attempt-2'])
    expect(tx.stats().conflicts.byVariable).toEqual({ basket: 1 })
  })

  test("1062 is the handler's business: it runs once, and may catch it and go on", async () => {
    const { client } = await serving({
      below: async (req, res) => {
        const error = await req.tx.execute('INSERT INTO acc VALUES (1, 7)').then(
          () => undefined,
          (refused: { errno?: number }) => refused.errno,
        )
        await increment(req, 2)
        res.json(error)
      },
    })
    expect((await client().get()).text).toBe('1062')
    expect(ran).toBe(1)
    expect(await n(2)).toBe(1)
  })

  test('two requests increment one session variable and one row: re-run, and the result is serial', async () => {
    const bothHaveRead = new Barrier(2)
    const { client } = await serving({
      below: async (req, res) => {
        if (req.path === '/login') req.session['visits'] = 0
        else {
          const visits = Number(req.session['visits'])
          if (req.tx.attempt === 1) await bothHaveRead.arrive()
          req.session['visits'] = visits + 1
          await increment(req, 1)
        }
        res.json(req.session['visits'])
      },
    })
    const visitor = client()
    await visitor.get('/login')
    const answers = await Promise.all([visitor.get('/count'), visitor.get('/count')])
    expect(answers.map(({ text }) => text).sort()).toEqual(['1', '2'])
    expect(ran).toBe(4)
    expect(await n(1)).toBe(2)
  })

  test('waiting holds no connection and does not stop other requests', async () => {
    const lost = new Gate()
    const goOn = new Gate()
    const { client, tx } = await serving({
      below: async (req, res) => {
        await increment(req, req.path === '/slow' ? 1 : 2)
        if (req.path === '/slow' && req.tx.attempt === 1) {
          req.tx.afterRollback(async () => {
            lost.open()
            await goOn.passed()
          })
          req.tx.conflict()
        }
        res.send('ok')
      },
    })
    const slow = client().get('/slow')
    await lost.passed()
    expect((await client().get('/other')).text).toBe('ok')
    goOn.open()
    expect((await slow).text).toBe('ok')
    expect(tx.stats().requests.committed).toBe(2)
  })

  test('the client goes away while its request waits: no further attempt', async () => {
    const lost = new Gate()
    const goOn = new Gate()
    const refused = deferred()
    const gone = deferred()
    const { client, tx } = await serving({
      above: [
        (_req, res, next) => {
          res.on('close', () => gone.resolve())
          next()
        },
      ],
      below: req => {
        req.tx.afterRollback(async () => {
          lost.open()
          await goOn.passed()
        })
        req.tx.conflict()
      },
    })
    tx.on('refused', () => refused.resolve())
    const { answer, leave } = client().start('GET', '/')
    await lost.passed()
    leave()
    await expect(answer).rejects.toThrow('the client went away')
    await gone.promise
    goOn.open()
    await refused.promise
    expect(ran).toBe(1)
  })
})

test.each([-1, Number.NaN, 1.5, Infinity])('retries: %p fails at start-up with a sentence', retries => {
  expect(() => sessionTx({ retry: { retries } })).toThrow(/^`retry\.retries` must be .* got /)
})

// ── what attempt 1 left ────────────────────────────────────────────────────────────────────────────────────────────

type Dirty = (req: Request, res: Response) => unknown

const ON_REQUEST = Symbol('test.onRequest')

function carrier(object: object): Record<PropertyKey, unknown> {
  return object as Record<PropertyKey, unknown>
}

const scenarios: Readonly<Record<string, Dirty>> = {
  'nothing at all': () => {},
  'a status': (_req, res) => res.status(500),
  'a status message': (_req, res) => {
    res.statusCode = 418
    res.statusMessage = 'Teapot'
  },
  'a header': (_req, res) => res.set('X-Dirty', 'yes'),
  'a header that was set above': (_req, res) => res.set('X-Above', 'dirty'),
  'one more value of a header that was set above': (_req, res) => res.append('Vary', 'Cookie'),
  'no header that was set above': (_req, res) => res.removeHeader('X-Above'),
  'no Date': (_req, res) => (res.sendDate = false),
  'no Connection, Content-Length, Transfer-Encoding': (_req, res) => {
    for (const name of ['Connection', 'Content-Length', 'Transfer-Encoding']) res.removeHeader(name)
  },
  'a cookie': (_req, res) => res.cookie('dirty', '1'),
  'a session': req => (req.session['dirty'] = 1),
  'a whole answer': (_req, res) => res.status(201).set('X-Dirty', 'yes').send('dirty'),
  'a JSON answer': (_req, res) => res.json({ dirty: true }),
  'a redirect': (_req, res) => res.redirect('/elsewhere'),
  'a file': (_req, res) => res.sendFile(__filename),
  'a head and half a body': (_req, res) => {
    res.writeHead(201, 'Dirty', { 'X-Dirty': 'yes' })
    res.write('dirty')
  },
  trailers: (_req, res) => {
    res.write('dirty')
    res.addTrailers({ 'X-Dirty': 'yes' })
  },
  'a stream that is still piped': (_req, res) => Readable.from(['dirty', 'more']).pipe(res),
  'a stream without an end': (_req, res) => {
    const endless = new PassThrough()
    endless.write('dirty')
    endless.pipe(res)
  },
  'an attachment': (_req, res) => res.attachment('dirty.pdf'),
  'res.locals': (_req, res) => (res.locals['dirty'] = 1),
  'what res.locals had from above': (_req, res) => {
    res.locals['user'] = 'dirty'
    delete res.locals['locale']
  },
  'properties of req and res': (req, res) => {
    for (const object of [req, res]) carrier(object)['dirty'] = 1
  },
  'symbols on req and res': (req, res) => {
    for (const object of [req, res]) carrier(object)[Symbol('dirty')] = 1
  },
  'what was set above on req and res': (req, res) => {
    for (const object of [req, res]) {
      carrier(object)['above'] = 'dirty'
      carrier(object)[ON_REQUEST] = 'dirty'
    }
  },
  'wrappers around write, end, writeHead': (_req, res) => {
    for (const name of ['write', 'end', 'writeHead'] as const) {
      const prior = res[name] as (...args: unknown[]) => unknown
      carrier(res)[name] = (...args: unknown[]) => prior.call(res, `dirty${String(args[0])}`)
    }
  },
  'request headers': req => {
    req.headers['x-dirty'] = '1'
    req.headers['user-agent'] = 'dirty'
    delete req.headers['accept']
  },
  'listeners of req': req => {
    req.on('close', () => {})
    req.once('aborted', () => {})
    req.on('dirty', () => {})
  },
  'listeners of res': (_req, res) => {
    res.on('finish', () => res.emit('dirty'))
    res.once('close', () => {})
    res.prependListener('pipe', () => {})
  },
  'no listener that was added above': (req, res) => {
    res.removeAllListeners('finish')
    req.removeAllListeners('close')
  },
  'listeners through on-finished': (req, res) => {
    onFinished(res, () => (carrier(req)['finishedDirty'] = true))
  },
  'a rewritten url': req => (req.url = '/dirty?x=1'),
  'a changed query': req => ((req.query as Record<string, unknown>)['dirty'] = '1'),
  'changed parameters': req => ((req.params as Record<string, unknown>)['dirty'] = '1'),
  'another method': req => (req.method = 'DELETE'),
}

const names = (object: object): string[] => Reflect.ownKeys(object).map(String).sort()
const listeners = (emitter: EventEmitter): Record<string, number> =>
  Object.fromEntries(emitter.eventNames().map(name => [String(name), emitter.listenerCount(name)]))

/** Everything that a handler could notice of what ran before it. */
function view(req: Request, res: Response): unknown {
  return {
    status: [res.statusCode, res.statusMessage],
    headers: { ...res.getHeaders() },
    sent: [res.sendDate, res.headersSent, res.writable, res.writableEnded],
    sticky: ['_removedConnection', '_removedContLen', '_removedTE', '_trailer'].map(
      name => carrier(res)[name],
    ),
    request: [
      req.url,
      req.originalUrl,
      req.baseUrl,
      req.path,
      { ...req.query },
      { ...req.params },
      req.method,
    ],
    requestHeaders: { ...req.headers },
    locals: { ...res.locals },
    above: [req, res].flatMap(object => [carrier(object)['above'], carrier(object)[ON_REQUEST]]),
    session: Object.keys(req.session),
    own: { req: names(req), res: names(res) },
    listeners: { req: listeners(req), res: listeners(res) },
  }
}

const above: RequestHandler = (req, res, next) => {
  res.set('X-Above', 'above')
  res.set('Vary', 'Accept')
  res.locals['user'] = 'ann'
  res.locals['locale'] = 'en'
  for (const object of [req, res]) {
    carrier(object)['above'] = 'above'
    carrier(object)[ON_REQUEST] = 'above'
  }
  res.removeHeader('Transfer-Encoding')
  res.on('finish', () => {})
  req.on('close', () => {})
  next()
}

function shown({ status, message, headers, text }: Answer): unknown {
  const { date, ...others } = headers
  return { status, message, headers: others, hasDate: date !== undefined, text }
}

describe.each(expresses)('%s: what attempt 1 left is gone in attempt 2:', (_name, express) => {
  interface Seen {
    readonly view: unknown
    readonly answer: unknown
  }
  let served: ExpressServed
  let attempts = 0
  let clean: Seen
  let dirty: Dirty | undefined
  let views: unknown[] = []

  async function run(scenario: Dirty | undefined): Promise<Seen> {
    dirty = scenario
    attempts = 0
    views = []
    const headers = { accept: 'text/html', 'user-agent': 'test' }
    const answer = await served.client().get('/path?a=1', { headers })
    return { view: views.at(-1), answer: shown(answer) }
  }

  beforeAll(async () => {
    served = await serveExpress({
      express,
      above: [above],
      below: (req, res) => {
        attempts += 1
        // Waiting watches the client with one listener of our own; the clean run gets it by asking for the signal.
        expect(req.tx.signal.aborted).toBe(false)
        if (req.tx.attempt === 1 && dirty !== undefined) {
          try {
            req.tx.conflict()
          } catch (error) {
            dirty(req, res)
            throw error
          }
        }
        views.push(view(req, res))
        res.set('X-Attempt', 'the last')
        res.send('ok')
      },
    })
    clean = await run(undefined)
    expect(clean.answer).toMatchObject({ status: 200, text: 'ok', headers: { 'x-above': 'above' } })
  })
  afterAll(() => served.close())

  test.each(Object.entries(scenarios))('%s', async (_what, scenario) => {
    const seen = await run(scenario)
    expect(attempts).toBe(2)
    expect(seen.view).toEqual(clean.view)
    expect(seen.answer).toEqual(clean.answer)
  })
})

describe.each(expresses)('%s: what attempt 1 started', (_name, express) => {
  let served: ExpressServed
  afterEach(() => served.close())

  test('a stream that it piped is destroyed, and its late error disturbs nobody', async () => {
    const streams: Readable[] = []
    served = await serveExpress({
      express,
      below: async (req, res) => {
        if (req.tx.attempt === 1) {
          const stream = new PassThrough()
          stream.write('dirty')
          streams.push(stream.pipe(new PassThrough()))
          streams[0]?.pipe(res)
          req.tx.conflict()
        }
        expect(streams[0]?.destroyed).toBe(true)
        streams[0]?.emit('error', new Error('late'))
        res.send('ok')
      },
    })
    expect((await served.client().get()).text).toBe('ok')
    expect(served.errors).toEqual([])
  })

  test('what it still writes afterwards goes nowhere', async () => {
    const go = new Gate()
    const wrote = deferred()
    served = await serveExpress({
      express,
      below: async (req, res) => {
        if (req.tx.attempt === 1) {
          const { write, end } = res
          void go.passed().then(() => {
            write.call(res, 'dirty', 'utf8')
            res.write('dirty')
            end.call(res, 'dirty', 'utf8')
            wrote.resolve()
          })
          req.tx.conflict()
        }
        go.open()
        await wrote.promise
        res.send('ok')
      },
    })
    expect((await served.client().get()).text).toBe('ok')
  })

  test('a next() of it that comes late runs nothing', async () => {
    const go = new Gate()
    const log: string[] = []
    let late: () => void = () => {}
    served = await serveExpress({
      express,
      build: (app, tx) => {
        app.use(tx)
        app.use((req, _res, next) => {
          if (req.tx.attempt > 1) {
            next()
            return
          }
          const { tx: own } = req
          late = next
          void go.passed().then(() => late())
          own.conflict()
        })
        app.use(async (req, res) => {
          log.push(`handler ${req.tx.attempt}`)
          go.open()
          await new Promise(resolve => setImmediate(resolve))
          res.send('ok')
        })
      },
    })
    expect((await served.client().get()).text).toBe('ok')
    late()
    expect(log).toEqual(['handler 2'])
  })

  test('a callback of on-finished does not fire, the one of the committed attempt fires once', async () => {
    const fired: number[] = []
    const finished = deferred()
    served = await serveExpress({
      express,
      below: (req, res) => {
        const { attempt } = req.tx
        onFinished(res, () => {
          fired.push(attempt)
          if (attempt === 3) finished.resolve()
        })
        if (attempt < 3) req.tx.conflict()
        res.send('ok')
      },
    })
    expect((await served.client().get()).text).toBe('ok')
    await finished.promise
    expect(fired).toEqual([3])
  })

  test('listeners do not pile up: their number is the same after 100 re-runs', async () => {
    const counts: unknown[] = []
    served = await serveExpress({
      express,
      options: { retry: { retries: 100 } },
      below: (req, res) => {
        counts.push({ req: listeners(req), res: listeners(res), socket: listeners(req.socket) })
        for (const emitter of [req, res]) {
          emitter.on('close', () => {})
          emitter.on('error', () => {})
        }
        onFinished(res, () => {})
        expect(req.tx.signal.aborted).toBe(false)
        if (!req.tx.isLastAttempt) req.tx.conflict()
        res.json(req.tx.attempt)
      },
    })
    expect((await served.client().get()).text).toBe('101')
    expect(counts).toHaveLength(101)
    expect(new Set(counts.slice(1).map(count => JSON.stringify(count))).size).toBe(1)
    const { res: first } = counts[0] as { res: Record<string, number> }
    const { res: last } = counts[100] as { res: Record<string, number> }
    expect(last['close']).toBeLessThanOrEqual((first['close'] ?? 0) + 1)
  })
})

test.each(expresses)(
  '%s: retry.rehearse runs every handler twice; only the second answer leaves',
  async (_name, express) => {
    const served = await serveExpress({
      express,
      options: { retry: { rehearse: true } },
      below: (req, res) => {
        res.set(`X-${req.tx.attempt}`, 'here').send(`attempt ${req.tx.attempt}`)
      },
    })
    const answer = await served.client().get()
    expect([answer.text, answer.headers['x-1'], answer.headers['x-2']]).toEqual([
      'attempt 2',
      undefined,
      'here',
    ])
    await served.close()
  },
)
