/** Where session-tx is mounted in Express: what is above it runs once, what is below runs again; what cannot is served once and says why. */
import { createServer, request as httpRequest } from 'node:http'
import type { AddressInfo } from 'node:net'
import type { Express, Request, RequestHandler } from 'express'
import { currentTx } from '../../lib/index.js'
import { sessionTx, type SessionTx } from '../../lib/express.js'
import { type Served, serve } from '../support/app.js'
import { promptly } from '../support/clock.js'
import { answeringErrors, expresses, losing, type Options } from '../support/express-app.js'

let warned: jest.SpyInstance
const closing: (() => Promise<void>)[] = []

beforeEach(() => {
  warned = jest.spyOn(process, 'emitWarning').mockImplementation(() => {})
})
afterEach(async () => {
  warned.mockRestore()
  for (const close of closing.splice(0)) await close()
})

function middleware(options: Options = {}): SessionTx {
  const tx = sessionTx(options, promptly)
  closing.push(() => tx.close())
  return tx
}

interface Running extends Served {
  readonly errors: unknown[]
}

/** Any application at all, with error middleware at its end. */
async function serving(app: Express): Promise<Running> {
  const errors: unknown[] = []
  app.use(answeringErrors(errors))
  const served = await serve(app)
  closing.unshift(served.close)
  return { ...served, errors }
}

describe.each(expresses)('%s', (_name, express) => {
  let log: string[]
  beforeEach(() => {
    log = []
  })
  const logging =
    (name: string): RequestHandler =>
    (_req, _res, next) => {
      log.push(name)
      next()
    }
  const twice = losing(2)

  describe('it runs again what stands below it:', () => {
    test.each([0, 1, 3])('%d above: those run once', async count => {
      const app = express()
      const tx = middleware()
      const above = Array.from({ length: count }, (_, place) => `above ${place}`)
      for (const name of above) app.use(logging(name))
      app.use(tx, logging('first'))
      app.use(logging('second'), twice)
      const { client } = await serving(app)
      expect((await client().get()).text).toBe('attempt 2')
      expect(log).toEqual([...above, 'first', 'second', 'first', 'second'])
      expect(warned).not.toHaveBeenCalled()
    })

    test('routers and routes below match again, with their parameters, and name the route', async () => {
      const seen: unknown[] = []
      const app = express()
      const tx = middleware()
      const [shops, items] = [express.Router(), express.Router({ mergeParams: true })]
      items.param('item', (req, _res, next, item) => {
        ;(req as Request & { item?: number }).item = Number(item)
        next()
      })
      items.post('/:item', (req, res) => {
        const { item } = req as Request & { item?: number }
        seen.push([req.baseUrl, req.url, { ...req.params }, item, (req.route as { path: string }).path])
        ;(req.params as Record<string, string>)['item'] = 'dirty'
        if (req.tx.attempt < 3) req.tx.conflict()
        res.json(item)
      })
      shops.use('/:shop/items', items)
      app.use(tx).use('/shops', shops)
      const { client } = await serving(app)
      expect((await client().post('/shops/5/items/7?q=1')).text).toBe('7')
      const expected = ['/shops/5/items', '/7?q=1', { shop: '5', item: '7' }, 7, '/:item']
      expect(seen).toEqual([expected, expected, expected])
      expect((await client().post('/nowhere')).status).toBe(404)
      expect(tx.stats().conflicts.byRoute).toEqual({ '/shops/:shop/items/:item': 2 })
    })

    test('the route of what nothing answered is (unmatched), of several paths all of them', async () => {
      const routes: string[] = []
      const app = express()
      const tx = middleware()
      tx.on('commit', ({ route }) => routes.push(route))
      app.use(tx)
      app.get(['/a', '/b/:id'], (_req, res) => void res.send('ok'))
      app.get(/^\/c+$/, (_req, res) => void res.send('ok'))
      const { client } = await serving(app)
      for (const path of ['/a', '/b/1', '/ccc', '/d']) await client().get(path)
      expect(routes).toEqual(['/a|/b/:id', '/a|/b/:id', '/^\\/c+$/', '(unmatched)'])
    })

    test('a mounted application below', async () => {
      const app = express()
      const inner = express()
      inner.get('/x/:id', (req, res) => {
        log.push(`${req.baseUrl} ${req.app === inner}`)
        try {
          if (req.tx.attempt === 1) req.tx.conflict()
        } catch {}
        res.send(`attempt ${req.tx.attempt}`)
      })
      const tx = middleware()
      app.use(tx).use('/inner', inner).use(logging('outer'))
      const { client } = await serving(app)
      expect((await client().get('/inner/x/1')).text).toBe('attempt 2')
      expect(log).toEqual(['/inner true', '/inner true'])
      expect((await client().get('/inner/y')).status).toBe(404)
      expect(log.at(-1)).toBe('outer')
      expect(tx.stats().conflicts.byRoute).toEqual({ '/inner/x/:id': 1 })
    })

    test('in a mounted application: that application', async () => {
      const app = express()
      const inner = express()
      inner.use(logging('above'), middleware(), logging('below'), twice)
      app.use(logging('outer')).use('/inner', inner)
      const { client } = await serving(app)
      expect((await client().get('/inner/x')).text).toBe('attempt 2')
      expect(log).toEqual(['outer', 'above', 'below', 'below'])
      expect(warned).not.toHaveBeenCalled()
    })

    test('in a router: that router, wherever it is mounted; what follows the router is outside', async () => {
      const app = express()
      const router = express.Router()
      const tx = middleware()
      router.use(logging('above'), tx, logging('below'))
      router.get('/lose/:id', twice)
      app.use('/shops/:shop', router)
      app.use((req, res) => void res.json([req.url, req.baseUrl, currentTx() === undefined]))
      const { client } = await serving(app)
      expect((await client().get('/shops/5/lose/7')).text).toBe('attempt 2')
      expect(log).toEqual(['above', 'below', 'below'])
      expect((await client().get('/shops/5/other?q=1')).json()).toEqual(['/shops/5/other?q=1', '', true])
      expect(tx.stats()).toMatchObject({
        conflicts: { byRoute: { '/shops/:shop/lose/:id': 1 } },
        requests: { committed: 2 },
        notRerunnable: {},
      })
      expect(warned).not.toHaveBeenCalled()
    })

    test('one middleware in several routers of different paths knows in which it is', async () => {
      const app = express()
      const tx = middleware()
      for (const name of ['a', 'b']) {
        const router = express.Router()
        router.use(logging(`above in ${name}`), tx, logging(`below in ${name}`), twice)
        app.use(`/${name}/:id`, router)
      }
      const { client } = await serving(app)
      for (const path of ['/a/1/x', '/b/2/x']) expect((await client().get(path)).text).toBe('attempt 2')
      expect(log).toEqual([
        ...['above in a', 'below in a', 'below in a'],
        ...['above in b', 'below in b', 'below in b'],
      ])
    })

    test('in a route: the rest of the route', async () => {
      const app = express()
      const tx = middleware()
      app.get('/x/:id', logging('above'), tx, logging('below'), twice)
      app.get('/pass', tx, logging('passing'))
      app.get('/pass', (_req, res) => void res.json([currentTx() === undefined, log]))
      app.post('/x/:id', tx, (_req, res) => void res.send('another method'))
      const { client } = await serving(app)
      expect((await client().get('/x/1')).text).toBe('attempt 2')
      expect(log.splice(0)).toEqual(['above', 'below', 'below'])
      expect((await client().get('/pass')).json()).toEqual([true, ['passing']])
      expect((await client().post('/x/1')).text).toBe('another method')
      expect(tx.stats()).toMatchObject({ conflicts: { byRoute: { '/x/:id': 1 } }, notRerunnable: {} })
      expect(warned).not.toHaveBeenCalled()
    })

    test("next('route') and next('router') leave what they leave without us", async () => {
      const app = express()
      const router = express.Router()
      router.get('/x', (_req, _res, next) => next('route'), logging('not reached'))
      router.get('/x', (_req, _res, next) => next('router'), logging('not reached'))
      router.use(logging('not reached'))
      app.use(middleware()).use(router).use(logging('after the router'), twice)
      const { client } = await serving(app)
      expect((await client().get('/x')).text).toBe('attempt 2')
      expect(log).toEqual(['after the router', 'after the router'])
    })

    test('what was added after the first request runs, too', async () => {
      const app = express()
      const router = express.Router()
      app.use(middleware()).use('/in', router)
      const { client } = await serving(app)
      expect((await client().get('/in/x')).status).toBe(404)
      router.use('/x', logging('added'), twice)
      expect((await client().get('/in/x')).text).toBe('attempt 2')
      expect(log).toEqual(['added', 'added'])
    })

    test('wrapped by somebody who copies its properties, or keeps the original, it still knows its place', async () => {
      for (const mark of [
        (wrapper: RequestHandler, tx: SessionTx) => Object.assign(wrapper, tx),
        (wrapper: RequestHandler, tx: SessionTx) => Object.assign(wrapper, { __original: tx }),
      ]) {
        const app = express()
        const tx = middleware()
        app.use(mark((req, res, next) => tx(req, res, next), tx))
        app.use(twice)
        const { client } = await serving(app)
        expect((await client().get()).text).toBe('attempt 2')
      }
      expect(warned).not.toHaveBeenCalled()
    })

    test('the automatic answer to OPTIONS names the methods of all routes, above and below', async () => {
      const answers: unknown[] = []
      for (const with_ of [false, true]) {
        const app = express()
        app.get('/x', (_req, res) => void res.send('above'))
        if (with_) app.use(middleware())
        app.post('/x', (_req, res) => void res.send('below'))
        app.put('/y', (_req, res) => void res.send('other'))
        const { client } = await serving(app)
        for (const path of ['/x', '/y', '/z']) {
          const { status, headers, text } = await client().send('OPTIONS', path)
          answers.push([status, headers['allow'], text])
        }
      }
      expect(answers.slice(3)).toEqual(answers.slice(0, 3))
      expect(answers[0]).toEqual([200, expect.stringContaining('POST'), expect.stringContaining('GET')])
    })
  })

  describe('what cannot run again is served once and says why:', () => {
    interface Case {
      readonly reason: string
      readonly code?: string
      readonly mount: (app: Express, tx: SessionTx, handler: RequestHandler) => void
      readonly warns?: RegExp
    }
    const cases: Readonly<Record<string, Case>> = {
      'mounted under a path': {
        reason: 'mountPath',
        mount: (app, tx, handler) => app.use('/in', tx).use(handler),
        warns: /under a path.*without a path.*tx\.transactional\(handler\)/s,
      },
      'wrapped in a function that keeps nothing of it': {
        reason: 'position',
        mount: (app, tx, handler) => app.use((req, res, next) => tx(req, res, next)).use(handler),
        warns: /cannot find.*app\.use\(tx\).*tx\.transactional\(handler\)/s,
      },
      'called by hand, with no router': {
        reason: 'position',
        mount: (app, tx, handler) =>
          app.use((req, res, next) =>
            tx(req, res, error => (error === undefined ? void handler(req, res, next) : next(error))),
          ),
        warns: /cannot find/,
      },
      'mounted in two routers of one path': {
        reason: 'position',
        mount: (app, tx, handler) => {
          const [one, two] = [express.Router(), express.Router()]
          one.use((_req, _res, next) => next('router'), tx)
          two.use(tx, handler)
          app.use(one).use(two)
        },
        warns: /several routers of one path/,
      },
      'an answer larger than hold.responseBytesMax': {
        reason: 'responseBytes',
        mount: (app, tx, handler) =>
          app
            .use(tx)
            .use((_req, res, next) => {
              res.write('x'.repeat(1001))
              next()
            })
            .use(handler),
      },
      'flushHeaders()': {
        reason: 'responseStarted',
        code: 'RESPONSE_STARTED',
        mount: (app, tx, handler) =>
          app
            .use(tx)
            .use((_req, res, next) => {
              res.flushHeaders()
              next()
            })
            .use(handler),
      },
      'an event stream': {
        reason: 'eventStream',
        mount: (app, tx, handler) =>
          app
            .use(tx)
            .use((_req, res, next) => {
              res.writeHead(200, { 'Content-Type': 'text/event-stream' })
              next()
            })
            .use(handler),
      },
      'bytes that were written to the socket': {
        reason: 'responseStarted',
        code: 'RESPONSE_STARTED',
        mount: (app, tx, handler) =>
          app
            .use(tx)
            .use((req, _res, next) => {
              req.socket.write('HTTP/1.1 102 Processing\r\n\r\n')
              next()
            })
            .use(handler),
      },
    }

    test.each(Object.entries(cases))(
      '%s',
      async (_what, { reason, code = 'NOT_RERUNNABLE', mount, warns }) => {
        let ran = 0
        const app = express()
        const tx = middleware({ hold: { responseBytesMax: 1000 } })
        const told: unknown[] = []
        tx.on('notRerunnable', event => told.push(event.reason))
        const refused: unknown[] = []
        tx.on('refused', event => refused.push(event.code))
        mount(app, tx, (req, res) => {
          ran += 1
          req.session['visits'] = ran
          if (req.query['lose'] !== undefined) req.tx.conflict()
          res.end(`visits ${ran}`)
        })
        const { client } = await serving(app)
        const fine = await client().get('/in/x')
        expect(fine.status).toBe(200)
        expect(fine.text).toMatch(/visits 1$/)
        expect(ran).toBe(1)
        await client()
          .get('/in/x?lose')
          .catch(() => undefined) // a connection may be cut, as without us
        expect(ran).toBe(2)
        expect(told).toEqual([reason, reason])
        expect(refused).toEqual([code])
        expect(tx.stats()).toMatchObject({ notRerunnable: { [reason]: 2 }, sessions: { live: 1 } })
        expect(warned.mock.calls.map(([text]) => text as string)).toEqual(
          warns === undefined ? [] : [expect.stringMatching(warns)],
        )
      },
    )

    test('mounted under a path: what stands below sees the URL that it sees without us, and errors store nothing', async () => {
      const app = express()
      const tx = middleware()
      app.use('/in/:any', tx)
      app.use('/in/a', (req, _res, next) => {
        log.push(`${req.baseUrl} ${req.url}`)
        req.session['dirty'] = 1
        if (req.query['fail'] === undefined) next()
        else next(Object.assign(new Error('mine'), { status: 404 }))
      })
      app.use((req, res) => void res.send(`${req.baseUrl} ${req.url}`))
      const { client } = await serving(app)
      for (const path of ['/in/a', '/in/a/', '/in/a/x?y=1', '/in/a?y=1'])
        expect((await client().get(path)).text).toBe(` ${path}`)
      expect(log.splice(0)).toEqual(['/in/a /', '/in/a /', '/in/a /x?y=1', '/in/a /?y=1'])
      expect(tx.stats().sessions.live).toBe(4)
      expect(await client().get('/in/a/x?fail')).toMatchObject({ status: 404, text: 'error 404' })
      expect(tx.stats().sessions.live).toBe(4)
    })

    test('called bare, as (req, res, next) on a plain server: one transaction, one attempt', async () => {
      const tx = middleware()
      let ran = 0
      const served = await serve((req, res) => {
        void tx(req as never, res as never, error => {
          if (error !== undefined) {
            res.statusCode = (error as { status: number }).status
            res.end('refused')
            return
          }
          ran += 1
          const { session, tx: own } = req as Request
          session['visits'] = Number(session['visits'] ?? 0) + 1
          if (req.url === '/lose') {
            try {
              own.conflict()
            } catch {}
          }
          res.end(`visits ${String(session['visits'])}`)
        })
      })
      closing.unshift(served.close)
      const visitor = served.client()
      expect((await visitor.get('/')).text).toBe('visits 1')
      expect((await visitor.get('/')).text).toBe('visits 2')
      expect(await visitor.get('/lose')).toMatchObject({ status: 503, text: 'refused' })
      expect(ran).toBe(3)
      expect(tx.stats()).toMatchObject({
        notRerunnable: { position: 3 },
        requests: { committed: 2, refused: 1 },
      })
    })

    test('an upgraded connection: the handler has the socket', async () => {
      const app = express()
      const tx = middleware()
      app.use(tx)
      app.get('/ws', (req, _res) => {
        req.session['connected'] = true
        req.socket.end(
          'HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: test\r\n\r\nhello',
        )
      })
      const server = createServer(app)
      const { ServerResponse } = await import('node:http')
      server.on('upgrade', (req, socket) => {
        const res = new ServerResponse(req)
        res.assignSocket(socket as never)
        app(req as Request, res as never)
      })
      await new Promise<void>(resolve => server.listen(0, '127.0.0.1', resolve))
      closing.unshift(
        () =>
          new Promise(resolve => {
            server.close(() => resolve())
            server.closeAllConnections()
          }),
      )
      const { port } = server.address() as AddressInfo
      const headers = { connection: 'Upgrade', upgrade: 'test' }
      const text = await new Promise<string>((resolve, reject) => {
        const request = httpRequest({ port, host: '127.0.0.1', path: '/ws', headers, agent: false })
        request.on('error', reject)
        request.on('upgrade', (_response, socket, head) => {
          let got = head.toString()
          socket.on('data', (chunk: Buffer) => (got += chunk.toString()))
          socket.on('close', () => resolve(got))
        })
        request.end()
      })
      expect(text).toBe('hello')
      await tx.close()
      expect(tx.stats()).toMatchObject({ notRerunnable: { upgrade: 1 }, sessions: { live: 1 } })
    })

    test('with retries: 0 there is nothing to warn of', async () => {
      const app = express()
      const tx = middleware({ retry: { retries: 0 } })
      app.use((req, res, next) => tx(req, res, next)).use(twice)
      const { client } = await serving(app)
      expect((await client().get()).status).toBe(503)
      expect(warned).not.toHaveBeenCalled()
    })
  })

  describe('tx.transactional(handler) runs one handler again,', () => {
    test('on a route, with nothing mounted; what stands before it runs once', async () => {
      const app = express()
      const tx = middleware()
      app.get('/buy/:item', logging('before'), tx.transactional(twice))
      const { client } = await serving(app)
      expect((await client().get('/buy/7')).text).toBe('attempt 2')
      expect(log).toEqual(['before'])
      expect(tx.stats()).toMatchObject({ conflicts: { byRoute: { '/buy/:item': 1 } }, notRerunnable: {} })
    })

    test('with its own retries, and read-only', async () => {
      const app = express()
      const tx = middleware()
      app.get('/often', tx.transactional(losing(6), { retries: 5 }))
      app.get(
        '/read',
        tx.transactional(
          (req, res) => {
            ;(req as Request).session['a'] = 1
            res.end()
          },
          { readOnly: true },
        ),
      )
      const { client, errors } = await serving(app)
      expect((await client().get('/often')).text).toBe('attempt 6')
      expect((await client().get('/read')).status).toBe(500)
      expect(errors).toEqual([expect.objectContaining({ code: 'READ_ONLY' })])
    })

    test('which may call next(): the rest of the route is inside, and runs again with it', async () => {
      const app = express()
      const tx = middleware()
      app.get('/', tx.transactional(logging('handler')), logging('rest'), twice)
      app.get('/pass', tx.transactional(logging('passing')))
      app.get(
        '/fail',
        tx.transactional((_req, _res, next) => next(new Error('mine'))),
      )
      app.use((_req, res) => void res.json(currentTx() === undefined))
      const { client, errors } = await serving(app)
      expect((await client().get('/')).text).toBe('attempt 2')
      expect(log.splice(0)).toEqual(['handler', 'rest', 'handler', 'rest'])
      expect((await client().get('/pass')).text).toBe('true')
      expect((await client().get('/fail')).status).toBe(500)
      expect(errors).toEqual([new Error('mine')])
    })

    test('which may call next() where nobody knows what follows: inside, but a conflict after that is NOT_RERUNNABLE', async () => {
      const app = express()
      const tx = middleware()
      const hidden = tx.transactional((req, _res, next) => {
        const { tx: own } = req as Request
        log.push(`attempt ${own.attempt}`)
        if ((req as Request).query['early'] !== undefined && own.attempt === 1) own.conflict()
        next()
      })
      app.get(
        '/',
        (req, res, next) => void hidden(req, res, next),
        (req, res) => {
          log.push(`after, in ${currentTx()?.attempt}`)
          if (req.query['late'] !== undefined) {
            try {
              req.tx.conflict()
            } catch {}
          }
          res.send('ok')
        },
      )
      const { client, errors } = await serving(app)
      expect((await client().get('/')).text).toBe('ok')
      expect((await client().get('/?early')).text).toBe('ok')
      expect((await client().get('/?late')).status).toBe(503)
      expect(log).toEqual([
        ...['attempt 1', 'after, in 1'],
        ...['attempt 1', 'attempt 2', 'after, in 2'],
        ...['attempt 1', 'after, in 1'],
      ])
      expect(errors).toEqual([expect.objectContaining({ code: 'NOT_RERUNNABLE' })])
      expect(tx.stats()).toMatchObject({ notRerunnable: { nextCalled: 3 } })
    })

    test('below app.use(tx) it is simply the handler', async () => {
      const app = express()
      const tx = middleware()
      app.use(tx).get('/', tx.transactional(twice, { retries: 9 }))
      const { client } = await serving(app)
      expect((await client().get('/')).text).toBe('attempt 2')
      await client().get('/')
      expect(tx.stats().attempts).toEqual({ 2: 2 })
      expect(warned.mock.calls.map(([text]) => text as string)).toEqual([
        expect.stringMatching(/options of tx\.transactional\(\) \(retries\).* app\.use\(tx\).*\(req, res\)/),
      ])
    })

    test('and says at start-up what is wrong with its arguments', () => {
      const tx = middleware()
      expect(() => tx.transactional(() => {}, { retries: -1 })).toThrow(/retries.* must be a whole number/)
      expect(() => tx.transactional(undefined as never)).toThrow(/must be a function, got undefined/)
    })
  })

  test('mounted twice, the inner one is a no-op: one transaction, counted once', async () => {
    const app = express()
    const [outer, inner] = [middleware(), middleware()]
    const router = express.Router()
    router.use(outer, inner, twice)
    app.use(outer).use(inner).use(outer).use(router)
    const { client } = await serving(app)
    expect((await client().get()).text).toBe('attempt 2')
    expect(outer.stats().requests.committed).toBe(1)
    expect(inner.stats().requests.committed).toBe(0)
    expect(warned).not.toHaveBeenCalled()
  })
})
