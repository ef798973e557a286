/** Error middleware in Express: it runs once, with the last error, at whatever depth it stands; nothing is stored. */
import type { ErrorRequestHandler, Request, RequestHandler, Response } from 'express'
import { deferred } from '../support/barrier.js'
import { type ExpressServed, type ExpressServing, expresses, serveExpress } from '../support/express-app.js'

type Build = NonNullable<ExpressServing['build']>

describe.each(expresses)('%s', (_name, express) => {
  let served: ExpressServed
  let log: unknown[]
  beforeEach(() => {
    log = []
  })
  afterEach(() => served.close())

  async function serving(build: Build, options: ExpressServing['options'] = {}): Promise<ExpressServed> {
    served = await serveExpress({ express, options, build })
    return served
  }

  const asText = (value: unknown): unknown =>
    value instanceof Error ? ((value as { code?: unknown }).code ?? value.message) : value

  /** Error middleware that says where it stands. */
  const page =
    (name: string): ErrorRequestHandler =>
    (error, _req, res, next) => {
      log.push([name, asText(error)])
      if (res.headersSent) next(error)
      else res.status((error as { status?: number }).status ?? 500).send(name)
    }
  const always: RequestHandler = req => {
    log.push(`attempt ${req.tx.attempt}`)
    req.session['dirty'] = 1
    req.tx.conflict()
  }
  const retries = { retry: { retries: 1 } }

  const depths: readonly (readonly [string, (fails: RequestHandler) => Build])[] = [
    ['behind the handler', fails => (app, tx) => void app.use(tx).use(fails).use(page('the page'))],
    [
      'in the router of the handler',
      fails => (app, tx) => {
        const router = express.Router()
        router.get('/x', fails).use(page('the page'))
        app.use(tx).use('/shop', router).use(page('not reached'))
      },
    ],
    [
      'in a router two levels down',
      fails => (app, tx) => {
        const [outer, inner] = [express.Router(), express.Router()]
        inner.get('/x', fails)
        inner.use(page('the page'))
        outer.use('/', inner)
        app.use(tx).use('/shop', outer).use(page('not reached'))
      },
    ],
    [
      'in the route of the handler',
      fails => (app, tx) =>
        void app
          .use(tx)
          .get('/shop/x', fails, page('the page') as unknown as RequestHandler)
          .use(page('not reached')),
    ],
    [
      'behind a router that has the transaction',
      fails => (app, tx) => {
        const router = express.Router()
        router.use(tx).get('/x', fails)
        app.use('/shop', router).use(page('the page'))
      },
    ],
    [
      'behind a route that has the transaction',
      fails => (app, tx) => void app.get('/shop/x', tx, fails).use(page('the page')),
    ],
    [
      'behind transactional()',
      fails => (app, tx) =>
        void app
          .get('/shop/x', tx.transactional(fails as Parameters<typeof tx.transactional>[0]))
          .use(page('the page')),
    ],
  ]

  describe.each(depths)('error middleware %s', (_where, build) => {
    test('sees a conflict once, when there is no further attempt', async () => {
      const { client, tx } = await serving(build(always), retries)
      const answer = await client().get('/shop/x')
      expect(answer).toMatchObject({ status: 503, text: 'the page' })
      expect(log).toEqual(['attempt 1', 'attempt 2', ['the page', 'RETRIES_EXHAUSTED']])
      expect(tx.stats()).toMatchObject({ requests: { refused: 1 }, sessions: { live: 0 }, notRerunnable: {} })
    })

    test('is not called for a conflict that a re-run makes good', async () => {
      const { client } = await serving(
        build((req, res) => {
          log.push(`attempt ${req.tx.attempt}`)
          if (req.tx.attempt === 1) req.tx.conflict()
          res.send('ok')
        }),
      )
      expect((await client().get('/shop/x')).text).toBe('ok')
      expect(log).toEqual(['attempt 1', 'attempt 2'])
    })

    const failures: readonly (readonly [string, RequestHandler])[] = [
      [
        'thrown',
        () => {
          throw new Error('mine')
        },
      ],
      ['rejected with', () => Promise.reject(new Error('mine'))],
      ['given to next()', (_req, _res, next) => next(new Error('mine'))],
      ['given to next() later', (_req, _res, next) => void setImmediate(() => next(new Error('mine')))],
    ]
    test.each(failures)(
      "sees the handler's own error, %s, once, and finds nothing stored",
      async (_how, fail) => {
        const { client, tx } = await serving(
          build((req, res, next) => {
            req.session['dirty'] = 1
            res.set('X-Handler', 'was here')
            return fail(req, res, next)
          }),
        )
        const answer = await client().get('/shop/x')
        expect(answer).toMatchObject({ status: 500, text: 'the page', headers: { 'x-handler': 'was here' } })
        expect(answer.headers['set-cookie']).toBeUndefined()
        expect(log).toEqual([['the page', 'mine']])
        expect(tx.stats()).toMatchObject({ requests: { rolledBack: 1 }, sessions: { live: 0 } })
      },
    )

    test('finds nothing of an answer that lost its race', async () => {
      const { client } = await serving(
        build((req, res) => {
          res.status(201).set('X-Dirty', 'yes').cookie('dirty', '1').send('dirty')
          try {
            req.tx.conflict()
          } catch {}
        }),
        retries,
      )
      const answer = await client().get('/shop/x')
      expect(answer).toMatchObject({ status: 503, text: 'the page' })
      expect(answer.headers).not.toHaveProperty('x-dirty')
      expect(answer.headers).not.toHaveProperty('set-cookie')
    })
  })

  test('of several, each may pass the error on, as without us', async () => {
    const passing: ErrorRequestHandler = (error, req, _res, next) => {
      log.push([req.baseUrl, req.url, asText(error)])
      next(new Error(`${String(asText(error))}, passed on`))
    }
    const { client } = await serving((app, tx) => {
      const router = express.Router()
      router.get('/x', (_req, _res, next) => next(new Error('mine')))
      router.use(passing, passing)
      app.use(tx).use('/shop', router).use(passing)
    })
    expect((await client().get('/shop/x')).status).toBe(500)
    expect(log).toEqual([
      ['/shop', '/x', 'mine'],
      ['/shop', '/x', 'mine, passed on'],
      ['', '/shop/x', 'mine, passed on, passed on'],
    ])
    expect(served.errors).toEqual([new Error('mine, passed on, passed on, passed on')])
  })

  test('error middleware that throws itself is followed by the next one', async () => {
    const { client } = await serving((app, tx) => {
      const router = express.Router()
      router.get('/x', () => {
        throw new Error('mine')
      })
      const broken: ErrorRequestHandler = (_error, _req, _res, _next) => {
        throw new Error('the page is broken')
      }
      router.use(broken, page('the next page'))
      app.use(tx).use(router)
    })
    expect((await client().get('/x')).text).toBe('the next page')
    expect(log).toEqual([['the next page', 'the page is broken']])
  })

  test('error middleware may go on without the error: what follows runs, outside of the transaction', async () => {
    const { client } = await serving((app, tx) => {
      const router = express.Router()
      router.get('/x', () => {
        throw new Error('mine')
      })
      const forgiving: ErrorRequestHandler = (_error, _req, _res, next) => next()
      router.use(forgiving)
      router.use((_req, res) => void res.send('as if nothing had happened'))
      app.use(tx).use(router)
    })
    expect((await client().get('/x')).text).toBe('as if nothing had happened')
  })

  test('above us, in the stack of an outer application, it sees the last error only', async () => {
    const { client } = await serving((app, tx) => {
      const inner = express()
      inner.use(tx)
      inner.get('/x', always)
      app.use('/shop', inner).use(page('the outer page'))
    }, retries)
    expect((await client().get('/shop/x')).text).toBe('the outer page')
    expect(log).toEqual(['attempt 1', 'attempt 2', ['the outer page', 'RETRIES_EXHAUSTED']])
  })

  test("without error middleware Express's own answer is given, with our headers", async () => {
    const silence = jest.spyOn(console, 'error').mockImplementation(() => {})
    const { client } = await serving((app, tx) => {
      app.set('env', 'test')
      app.use(tx).use(always)
    }, retries)
    // The application of the test has error middleware at its end; this one stands before it and passes on.
    const answer = await client().get('/')
    expect(answer.status).toBe(503)
    expect(answer.headers['retry-after']).toBe('1')
    silence.mockRestore()
  })

  test('what the handler does after its answer and throws at once is its failure: nothing is stored or answered', async () => {
    for (const fail of [
      (): void => {
        throw new Error('mine')
      },
      async (): Promise<void> => {
        throw new Error('mine')
      },
    ]) {
      log = []
      const { client, tx, close } = await serving((app, own) => {
        app.use(own)
        app.use((req, res) => {
          req.session['dirty'] = 1
          res.send('ok')
          return fail()
        })
        app.use(page('the page'))
      })
      expect(await client().get()).toMatchObject({ status: 500, text: 'the page' })
      expect(log).toEqual([['the page', 'mine']])
      expect(tx.stats().sessions.live).toBe(0)
      await close()
    }
  })

  test('half an answer, then an error: the client gets the error page, whole', async () => {
    const { client } = await serving((app, tx) => {
      app.use(tx)
      app.use((_req, res) => {
        res.write('half an ans')
        throw new Error('mine')
      })
      app.use(page('the page'))
    })
    expect(await client().get()).toMatchObject({ status: 500, text: 'the page' })
  })

  test('an error that comes after the answer has left goes to error middleware, as without us', async () => {
    const late = deferred<unknown>()
    const { client, tx } = await serving((app, own) => {
      app.use(own)
      app.use((req, res, next) => {
        req.session['kept'] = 1
        res.on('finish', () => next(new Error('late')))
        res.send('ok')
      })
      const seeing: ErrorRequestHandler = (error, _req, res, _next) =>
        late.resolve([asText(error), res.headersSent])
      app.use(seeing)
    })
    expect((await client().get()).text).toBe('ok')
    expect(await late.promise).toEqual(['late', true])
    expect(tx.stats().sessions.live).toBe(1)
  })

  test('error middleware cannot write to the session, and can by tx.run with its id', async () => {
    const app = await serving((server, tx) => {
      const remember: ErrorRequestHandler = async (error, req, res, _next) => {
        log.push(await Promise.resolve(asText(error)))
        try {
          req.session['message'] = 'directly'
        } catch (refusal) {
          log.push(asText(refusal))
        }
        const { sessionID: sessionId } = req
        await tx.run((_tx, session) => void (session['message'] = 'by run'), { sessionId })
        res.redirect('/')
      }
      server.use(tx)
      server.get('/', (req, res) => void res.json(req.session))
      server.post('/login', (req, res) => {
        req.session['user'] = 'ada'
        res.send('ok')
      })
      server.post('/it', (req, _res, next) => {
        req.session['half'] = true
        next(new Error('no'))
      })
      server.use(remember)
    })
    const visitor = app.client()
    await visitor.post('/login')
    expect((await visitor.post('/it')).status).toBe(302)
    expect(log).toEqual(['no', 'TRANSACTION_CLOSED'])
    expect((await visitor.get()).json()).toEqual({ user: 'ada', message: 'by run' })
  })

  test('called with what is no response, as socket.io does for a WebSocket: the error goes to next', async () => {
    const app = await serving((server, tx) => void server.use(tx))
    const request = { method: 'GET', url: '/socket.io/', headers: {}, on: () => {} } as unknown as Request
    const error = await new Promise(resolve => app.tx(request, {} as Response, resolve))
    expect(error).toMatchObject({ code: 'MISCONFIGURED', message: expect.stringContaining('tx.run') })
  })
})
