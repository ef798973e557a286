/** `req.session`, `req.sessionID` and `req.tx` over real HTTP: who sees what, what is stored, which cookie leaves. */
import Keygrip from 'keygrip'
import type { Request, RequestHandler } from 'express'
import { Barrier, deferred, Gate } from '../support/barrier.js'
import type { Client } from '../support/client.js'
import { type ExpressServed, type ExpressServing, expresses, serveExpress } from '../support/express-app.js'
import { setCookie } from '../support/set-cookie.js'

describe.each(expresses)('%s', (_name, express) => {
  let served: ExpressServed
  afterEach(() => served.close())

  async function serving(given: Omit<ExpressServing, 'express'>): Promise<ExpressServed> {
    served = await serveExpress({ express, ...given })
    return served
  }

  /** An application of several pages; `/put` stores its query, `/` shows what is stored. */
  function pages(
    more: Readonly<Record<string, RequestHandler>> = {},
    options: ExpressServing['options'] = {},
  ): Promise<ExpressServed> {
    return serving({
      options,
      build: (app, tx) => {
        app.use(tx)
        app.get('/', (req, res) => void res.json(req.session))
        app.post('/put', (req, res) => {
          Object.assign(req.session, req.query)
          res.send('ok')
        })
        for (const [path, handler] of Object.entries(more)) app.post(path, handler)
      },
    })
  }

  /** The same visitor in another window. */
  function tab({ client }: ExpressServed, of: Client): Client {
    const other = client()
    for (const [name, value] of of.cookies) other.cookies.set(name, value)
    return other
  }

  test('overlapping requests that set different variables: both are kept, without a re-run', async () => {
    const both = new Barrier(2)
    const setting =
      (name: string): RequestHandler =>
      async (req, res) => {
        req.session[name] = 1
        await both.arrive()
        res.json(req.tx.attempt)
      }
    const app = await pages({ '/a': setting('a'), '/b': setting('b') })
    const visitor = app.client()
    await visitor.post('/put?n=0')
    const answers = await Promise.all([visitor.post('/a'), visitor.post('/b')])
    expect(answers.map(answer => answer.json())).toEqual([1, 1])
    expect((await visitor.get()).json()).toEqual({ n: '0', a: 1, b: 1 })
  })

  test('overlapping logins by callback, as with express-session: one id each, and the old one is dead', async () => {
    const both = new Barrier(2)
    const app = await pages({
      '/login': (req, res, next) => {
        req.session.regenerate(error => {
          if (error !== undefined) return next(error)
          req.session['user'] = 'ada'
          req.session.save(failure => {
            if (failure !== undefined) return next(failure)
            void both.arrive().then(() => res.json(req.sessionID === req.session.id))
          })
        })
      },
    })
    const one = app.client()
    await one.post('/put?n=0')
    const [other, old] = [tab(app, one), tab(app, one)]
    const answers = await Promise.all([one.post('/login'), other.post('/login')])
    expect(answers.map(answer => answer.json())).toEqual([true, true])
    expect((await one.get()).json()).toEqual({ user: 'ada' })
    expect((await other.get()).json()).toEqual({ user: 'ada' })
    expect((await old.get()).json()).toEqual({})
    expect(new Set([one, other, old].map(({ cookies }) => cookies.get('sid'))).size).toBe(3)
  })

  test('a slow request whose session was regenerated meanwhile runs again on an empty one: never stored, no cookie', async () => {
    const begun = new Gate()
    const go = new Gate()
    const seen: unknown[] = []
    const app = await pages({
      '/login': (req, res) => req.session.regenerate(() => res.send('ok')),
      '/slow': async (req, res) => {
        seen.push({ ...req.session })
        req.session['n'] = 1
        if (req.tx.attempt === 1) {
          begun.open()
          await go.passed()
        }
        res.send('ok')
      },
    })
    const visitor = app.client()
    await visitor.post('/put?n=0')
    const slow = tab(app, visitor).post('/slow')
    await begun.passed()
    await visitor.post('/login')
    go.open()
    expect((await slow).headers['set-cookie']).toBeUndefined()
    expect(seen).toEqual([{ n: '0' }, {}])
    expect((await visitor.get()).json()).toEqual({})
  })

  test('null ends a session, an object replaces it', async () => {
    const app = await pages({
      '/end': (req, res) => {
        req.session = null
        expect(() => req.session['n']).toThrow(
          expect.objectContaining({ code: 'SESSION_DESTROYED' }) as Error,
        )
        res.send('ok')
      },
      '/replace': (req, res) => {
        req.session = { other: true }
        res.send(req.sessionID)
      },
    })
    const visitor = app.client()
    await visitor.post('/put?n=0')
    expect((await visitor.post('/replace')).text).toBe(visitor.cookies.get('sid'))
    expect((await visitor.get()).json()).toEqual({ other: true })
    await visitor.post('/end')
    expect(visitor.cookies.size).toBe(0)
    expect((await visitor.get()).json()).toEqual({})
  })

  test('only data can be enumerated: of the session its variables, of the request none of our members', async () => {
    const names: string[] = []
    const app = await pages({
      '/names': (req, res) => {
        for (const name in req.session) names.push(name)
        for (const name in req) if (['session', 'sessionID', 'tx'].includes(name)) names.push(name)
        res.send('ok')
      },
    })
    const visitor = app.client()
    await visitor.post('/put?a=1&b=2')
    await visitor.post('/names')
    expect(names).toEqual(['a', 'b'])
  })

  test('work of a lost attempt that nobody waited for cannot write into the next', async () => {
    const late = deferred<unknown>()
    const go = new Gate()
    const app = await pages({
      '/careless': async (req, res) => {
        if (req.tx.attempt === 1) {
          void go
            .passed()
            .then(() => (req.session['late'] = true))
            .then(late.resolve, late.resolve)
          req.tx.conflict()
        }
        go.open()
        await late.promise
        res.send('ok')
      },
    })
    const visitor = app.client()
    await visitor.post('/put?n=0')
    expect((await visitor.post('/careless')).text).toBe('ok')
    expect(await late.promise).toMatchObject({ code: 'TRANSACTION_CLOSED' })
    expect((await visitor.get()).json()).toEqual({ n: '0' })
  })

  test('the cookie is Secure by itself behind a proxy that the application trusts', async () => {
    const app = await pages()
    const https = { headers: { 'x-forwarded-proto': 'https' } }
    const isSecure = async (): Promise<unknown> =>
      setCookie(await app.client().post('/put?n=0', undefined, https))?.attributes['secure'] ?? false
    expect(await isSecure()).toBe(false)
    app.app.set('trust proxy', true)
    expect(await isSecure()).toBe(true)
  })

  test('the cookie is signed with `keys`', async () => {
    const app = await pages({}, { keys: ['the key'] })
    const visitor = app.client()
    await visitor.post('/put?n=0')
    const sid = visitor.cookies.get('sid') ?? ''
    expect(visitor.cookies.get('sid.sig')).toBe(new Keygrip(['the key'], 'sha256').sign(`sid=${sid}`))
    visitor.cookies.set('sid.sig', 'forged')
    expect((await visitor.get()).json()).toEqual({})
  })

  describe('the decision', () => {
    async function outcome(
      handler: RequestHandler,
      options: ExpressServing['options'] = {},
    ): Promise<readonly [status: number, stored: unknown, runs: number]> {
      let runs = 0
      const app = await pages(
        {
          '/decide': (req, res, next) => {
            runs += 1
            req.session['n'] = 1
            return handler(req, res, next)
          },
        },
        options,
      )
      const visitor = app.client()
      await visitor.post('/put?n=0')
      const { status } = await visitor.post('/decide')
      const { n } = (await visitor.get()).json<{ n: unknown }>()
      return [status, n, runs]
    }

    test.each([200, 302, 404, 499])('a returned %d commits', async status => {
      expect(await outcome((_req, res) => res.status(status).end())).toEqual([status, 1, 1])
    })
    test('a returned 500 is delivered and rolled back', async () => {
      expect(await outcome((_req, res) => res.status(500).end())).toEqual([500, '0', 1])
    })
    test('veto decides otherwise, from (req, res)', async () => {
      const veto = (_req: unknown, res: { statusCode: number }): boolean => res.statusCode === 404
      expect(await outcome((_req, res) => res.status(404).end(), { veto })).toEqual([404, '0', 1])
      await served.close()
      expect(await outcome((_req, res) => res.status(500).end(), { veto })).toEqual([500, 1, 1])
    })
    test('a veto does not stop a re-run', async () => {
      const handler: RequestHandler = (req, res) => {
        if (req.tx.attempt === 1) {
          try {
            req.tx.conflict()
          } catch {
            res.status(500).end()
            return
          }
        }
        res.send('ok')
      }
      expect(await outcome(handler)).toEqual([200, 1, 2])
    })
    test('doom(): the answer is delivered, nothing is stored', async () => {
      const handler: RequestHandler = (req, res) => {
        req.tx.doom()
        res.send('ok')
      }
      expect(await outcome(handler)).toEqual([200, '0', 1])
    })
    test('a thrown error rolls back; commitOnError commits it, and its cookie leaves with the error page', async () => {
      const failing: RequestHandler = () => {
        throw Object.assign(new Error('wrong password'), { status: 401 })
      }
      expect(await outcome(failing)).toEqual([401, '0', 1])
      await served.close()
      const commitOnError = (error: unknown, req: { path: string }): boolean =>
        (error as { status?: number }).status === 401 && req.path === '/decide'
      expect(await outcome(failing, { commitOnError })).toEqual([401, 1, 1])
      const stranger = served.client()
      expect((await stranger.post('/decide')).status).toBe(401)
      expect((await stranger.get()).json()).toEqual({ n: 1 })
    })
    test('readOnly, from (req, res): writing is an error', async () => {
      const readOnly = (req: { path: string }): boolean => req.path === '/decide'
      const app = await pages(
        { '/decide': (req: Request, res) => void res.json((req.session['n'] = 1)) },
        { readOnly },
      )
      expect((await app.client().post('/decide')).status).toBe(500)
      expect(app.errors).toEqual([expect.objectContaining({ code: 'READ_ONLY' })])
    })
  })
})
