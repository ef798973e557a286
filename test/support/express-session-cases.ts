/**
 * What express-session's README documents, member by member and option by option, as far as session-tx has an equivalent:
 * cases in the words of Express (`req`, `res`, callbacks), for whatever serves them. Where we differ, the sentence says so.
 */
import type { Session, SessionTxOptions } from '../../lib/index.js'
import type { Environment } from '../../lib/transaction/clock.js'
import type { Answer, Client } from './client.js'
import { fakeEnvironment } from './clock.js'
import { lasts, setCookie } from './set-cookie.js'

export interface CaseRequest {
  session: Session
  readonly sessionID: string
  readonly path: string
}
export interface CaseResponse {
  /** Answers with JSON. */
  send(body: unknown): void
  redirect(path: string): void
}
export type CaseHandler = (req: CaseRequest, res: CaseResponse, next: (error: unknown) => void) => void

export interface CaseServed {
  readonly client: () => Client
  /** What went to the framework's error handling. */
  readonly errors: readonly unknown[]
  readonly close: () => Promise<void>
}
/** Serves one handler, below `sessionTx(options)`. */
export type ServeCase = (
  options: SessionTxOptions<never>,
  handler: CaseHandler,
  environment?: Environment,
) => Promise<CaseServed>

const HOUR_MS = 3_600_000
const MINUTE_MS = 60_000

export function expressSessionCases(serve: ServeCase): void {
  const served: CaseServed[] = []
  afterEach(async () => {
    for (const app of served.splice(0)) await app.close()
  })

  interface App extends CaseServed {
    /** What the next requests do. */
    handle(handler: CaseHandler): void
    /** Answered by a client of its own, unless one is given. */
    run(handler: CaseHandler, client?: Client): Promise<Answer>
  }

  async function start(options: SessionTxOptions<never> = {}, environment?: Environment): Promise<App> {
    let now: CaseHandler = (_req, res) => res.send(null)
    const app = await serve(options, (req, res, next) => now(req, res, next), environment)
    served.push(app)
    const handle = (handler: CaseHandler): void => void (now = handler)
    const run = (handler: CaseHandler, client = app.client()): Promise<Answer> => {
      handle(handler)
      return client.get()
    }
    return { ...app, handle, run }
  }

  /** A client with a stored session. */
  async function visitor(app: App, variables: object = { n: 1 }): Promise<Client> {
    const client = app.client()
    await app.run((req, res) => {
      Object.assign(req.session, variables)
      res.send('ok')
    }, client)
    return client
  }
  const store: CaseHandler = (req, res) => {
    req.session['n'] = 1
    res.send('ok')
  }
  const show: CaseHandler = (req, res) => res.send(req.session)

  describe('option cookie', () => {
    test('by default: path /, HttpOnly, not persistent; SameSite=Lax is ours', async () => {
      const app = await start()
      const { attributes, lastsMs } = setCookie(await app.run(store)) ?? {}
      expect([attributes, lastsMs]).toEqual([{ path: '/', httponly: true, samesite: 'lax' }, undefined])
    })

    test.each([
      ['domain', 'example.com', 'domain', 'example.com'],
      ['httpOnly', false, 'httponly', undefined],
      ['partitioned', true, 'partitioned', true],
      ['path', '/shop', 'path', '/shop'],
      ['priority', 'low', 'priority', 'low'],
      ['priority', 'medium', 'priority', 'medium'],
      ['priority', 'high', 'priority', 'high'],
      ['sameSite', true, 'samesite', 'strict'],
      ['sameSite', false, 'samesite', undefined],
      ['sameSite', 'lax', 'samesite', 'lax'],
      ['sameSite', 'none', 'samesite', 'none'],
      ['sameSite', 'strict', 'samesite', 'strict'],
      ['secure', true, 'secure', true],
      ['secure', 'auto', 'secure', undefined],
    ] as const)('%s: %s', async (name, value, attribute, expected) => {
      const app = await start({ session: { cookie: { [name]: value } } })
      expect(setCookie(await app.run(store))?.attributes[attribute]).toBe(expected)
    })

    test('maxAge: Expires is that many milliseconds from now', async () => {
      const app = await start({ session: { cookie: { maxAge: HOUR_MS } } })
      expect(lasts(setCookie(await app.run(store)), HOUR_MS)).toBe(true)
    })

    test('expires is not an option, as it should not be: it fails at start-up', async () => {
      const cookie = { path: '/', expires: new Date() }
      await expect(start({ session: { cookie } })).rejects.toMatchObject({ code: 'MISCONFIGURED' })
    })
  })

  describe('other options', () => {
    test('name (session.name)', async () => {
      const app = await start({ session: { name: 'connect.sid' } })
      expect(setCookie(await app.run(store), 'connect.sid')).toBeDefined()
    })

    test('secret (keys): the first signs, all are believed, others are not', async () => {
      const keys = ['old']
      const app = await start({ keys })
      const client = await visitor(app)
      const isNew: CaseHandler = (req, res) => res.send(req.session.isNew)
      const signature = client.cookies.get('sid.sig')
      keys.unshift('new')
      expect((await app.run(isNew, client)).json()).toBe(false)
      expect(client.cookies.get('sid.sig')).not.toBe(signature)
      keys.pop()
      expect((await app.run(isNew, client)).json()).toBe(false)
      client.cookies.set('sid.sig', signature ?? '')
      expect((await app.run(isNew, client)).json()).toBe(true)
    })

    test('resave: false, always: a request that only reads sends no cookie', async () => {
      const app = await start()
      const client = await visitor(app)
      expect(setCookie(await app.run(show, client))).toBeUndefined()
    })

    test('rolling: the countdown of a maxAge begins anew with use, at most once per touchGranularityMs', async () => {
      const environment = fakeEnvironment()
      const session = { touchGranularityMs: MINUTE_MS, cookie: { maxAge: HOUR_MS } }
      const app = await start({ session }, environment)
      const client = await visitor(app)
      expect(setCookie(await app.run(show, client))).toBeUndefined()
      environment.clock.advance(MINUTE_MS)
      expect(lasts(setCookie(await app.run(show, client)), HOUR_MS)).toBe(true)
    })

    test('saveUninitialized: false, always: a new session without a variable sets no cookie', async () => {
      const app = await start()
      expect(setCookie(await app.run(show))).toBeUndefined()
    })

    test("unset: 'destroy', always: null ends the session", async () => {
      const app = await start()
      const client = await visitor(app)
      await app.run((req, res) => {
        Object.assign(req, { session: null })
        res.send('ok')
      }, client)
      expect(client.cookies.size).toBe(0)
      expect((await app.run(show, client)).json()).toEqual({})
    })
  })

  describe('req.session', () => {
    test('the example: counts views, and says how long the cookie lasts', async () => {
      const app = await start({ session: { cookie: { maxAge: MINUTE_MS } } })
      const client = app.client()
      app.handle((req, res) => {
        req.session['views'] = Number(req.session['views'] ?? 0) + 1
        res.send(
          `views: ${String(req.session['views'])}, expires in: ${Number(req.session.cookie.maxAge) / 1000}s`,
        )
      })
      expect((await client.get()).json()).toBe('views: 1, expires in: 60s')
      expect((await client.get()).json()).toBe('views: 2, expires in: 60s')
    })

    test('nested objects are fine: views by path', async () => {
      const app = await start()
      const client = app.client()
      app.handle((req, res) => {
        const views = (req.session['views'] ??= {}) as Record<string, number>
        views[req.path] = (views[req.path] ?? 0) + 1
        res.send(`you viewed this page ${String(views[req.path])} times`)
      })
      const seen: unknown[] = []
      for (const path of ['/foo', '/bar', '/foo']) seen.push((await client.get(path)).json())
      expect(seen).toEqual([1, 1, 2].map(n => `you viewed this page ${n} times`))
    })

    test('is serialised as its variables, without cookie and id', async () => {
      const app = await start()
      const client = await visitor(app, { n: 1, list: [1] })
      expect((await app.run(show, client)).json()).toEqual({ n: 1, list: [1] })
    })
  })

  describe('regenerate(callback)', () => {
    test('a new id and a new, empty session at req.session, when the callback is called', async () => {
      const app = await start()
      const client = await visitor(app)
      const before = client.cookies.get('sid')
      const answer = await app.run((req, res) => {
        const { session } = req
        session.regenerate(error => {
          const isAnother = req.session !== session
          req.session['user'] = 'ada'
          res.send([error ?? null, isAnother, Object.keys(req.session), req.sessionID])
        })
      }, client)
      const after = client.cookies.get('sid')
      expect(answer.json()).toEqual([null, true, ['user'], after])
      expect(after).not.toBe(before)
      expect((await app.run(show, client)).json()).toEqual({ user: 'ada' })
    })

    test('the object that it was called on still shows what was, to be taken over', async () => {
      const app = await start()
      const client = await visitor(app, { basket: ['a'], n: 1 })
      const answer = await app.run((req, res) => {
        const before = req.session
        const id = req.sessionID
        req.session['later'] = true
        before.regenerate(() => {
          for (const name in before) req.session[name] ??= before[name]
          res.send([before.id === id, before.id === req.sessionID])
        })
      }, client)
      expect(answer.json()).toEqual([true, false])
      expect((await app.run(show, client)).json()).toEqual({ basket: ['a'], n: 1, later: true })
    })

    test('and refuses to be changed: what is written there would be lost', async () => {
      const app = await start()
      const answer = await app.run((req, res) => {
        const before = req.session
        before.regenerate(() => {
          const codes = [
            () => Object.assign(before, { lost: 1 }),
            () => void before.destroy(),
            () => void before.regenerate(),
            () => void (before.maxAge = 1),
          ].map(change => {
            try {
              change()
              return 'accepted'
            } catch (error) {
              return (error as { code?: string }).code
            }
          })
          res.send(codes)
        })
      })
      expect(answer.json()).toEqual(Array.from({ length: 4 }, () => 'SESSION_DESTROYED'))
    })

    test('the callback is called later, and once', async () => {
      const app = await start()
      const answer = await app.run((req, res) => {
        const log: string[] = []
        req.session.regenerate(() => log.push('callback'))
        log.push('returned')
        setImmediate(() => res.send(log))
      })
      expect(answer.json()).toEqual(['returned', 'callback'])
    })

    test('a visitor with the old id finds nothing', async () => {
      const app = await start()
      const client = await visitor(app)
      const old = app.client()
      for (const [name, value] of client.cookies) old.cookies.set(name, value)
      await app.run((req, res) => req.session.regenerate(() => res.send('ok')), client)
      expect((await app.run(show, old)).json()).toEqual({})
    })
  })

  describe('destroy(callback)', () => {
    test('ends the session; it cannot be read any more when the callback is called', async () => {
      const app = await start()
      const client = await visitor(app)
      const answer = await app.run((req, res) => {
        req.session.destroy(error => {
          let code: unknown
          try {
            void req.session['n']
          } catch (refusal) {
            code = (refusal as { code?: string }).code
          }
          res.send([error ?? null, code])
        })
      }, client)
      expect(answer.json()).toEqual([null, 'SESSION_DESTROYED'])
      expect(client.cookies.size).toBe(0)
      expect((await app.run(show, client)).json()).toEqual({})
    })
  })

  describe('reload(callback)', () => {
    test('brings back what is stored; ours, what the request has seen from its start', async () => {
      const app = await start()
      const client = await visitor(app)
      const answer = await app.run((req, res) => {
        Object.assign(req.session, { n: 2, more: 1 })
        req.session.reload(error => res.send([error ?? null, req.session]))
      }, client)
      expect(answer.json()).toEqual([null, { n: 1 }])
    })

    test('a refusal is given to the callback', async () => {
      const app = await start({ readOnly: () => true })
      const answer = await app.run((req, res) =>
        req.session.reload(error => res.send((error as { code?: string }).code)),
      )
      expect(answer.json()).toBe('READ_ONLY')
    })
  })

  describe('save(callback)', () => {
    test('before a redirect: the next page sees it', async () => {
      const app = await start()
      const client = app.client()
      const answer = await app.run((req, res) => {
        req.session['n'] = 1
        req.session.save(() => res.redirect('/next'))
      }, client)
      expect([answer.status, answer.headers.location]).toEqual([302, '/next'])
      expect((await app.run(show, client)).json()).toEqual({ n: 1 })
    })

    test('is called by itself at the end of the response', async () => {
      const app = await start()
      expect((await app.run(show, await visitor(app))).json()).toEqual({ n: 1 })
    })

    test('joins the transaction: what failed afterwards is not stored, where express-session has stored it', async () => {
      const app = await start()
      const client = await visitor(app)
      const answer = await app.run((req, _res, next) => {
        req.session['n'] = 2
        req.session.save(() => next(new Error('no')))
      }, client)
      expect([answer.status, app.errors]).toMatchObject([500, [{ message: 'no' }]])
      expect((await app.run(show, client)).json()).toEqual({ n: 1 })
    })
  })

  describe('touch()', () => {
    test('counts as use: an idle session lives on', async () => {
      const environment = fakeEnvironment()
      const app = await start({ session: { idleMs: HOUR_MS, touchGranularityMs: 0 } }, environment)
      const client = await visitor(app)
      for (let visits = 0; visits < 3; visits++) {
        environment.clock.advance(HOUR_MS - 1)
        await app.run((req, res) => {
          req.session.touch()
          res.send('ok')
        }, client)
      }
      expect((await app.run(show, client)).json()).toEqual({ n: 1 })
    })
  })

  describe('req.session.id and req.sessionID', () => {
    test('are the same, and what the cookie carries', async () => {
      const app = await start()
      const client = await visitor(app)
      const answer = await app.run((req, res) => res.send([req.session.id, req.sessionID]), client)
      const sid = client.cookies.get('sid')
      expect(answer.json()).toEqual([sid, sid])
    })

    test('cannot be modified', async () => {
      const app = await start()
      const answer = await app.run((req, res) => {
        const changes = [
          () => Object.assign(req.session, { id: 'x' }),
          () => Object.assign(req, { sessionID: 'x' }),
        ]
        const before = req.sessionID
        for (const change of changes) expect(change).toThrow()
        res.send(req.sessionID === before)
      })
      expect(answer.json()).toBe(true)
    })
  })

  describe('req.session.cookie', () => {
    const cookieOf = async (change: CaseHandler, options: SessionTxOptions<never> = {}) => {
      const app = await start(options)
      const client = await visitor(app)
      return setCookie(await app.run(change, client))
    }

    test.each([
      ['maxAge', HOUR_MS, true],
      ['maxAge', null, false],
      ['httpOnly', false, false],
    ])('%s = %s, assigned by each request: the cookie is sent again: %s', async (name, value, again) => {
      const app = await start()
      const client = app.client()
      const assign: CaseHandler = (req, res) => {
        req.session['n'] = Number(req.session['n'] ?? 0) + 1
        Object.assign(req.session.cookie, { [name]: value })
        res.send('ok')
      }
      expect(setCookie(await app.run(assign, client))).toBeDefined()
      expect(setCookie(await app.run(assign, client)) !== undefined).toBe(again)
    })

    test.each([
      ['maxAge', (req: CaseRequest) => void (req.session.cookie.maxAge = HOUR_MS)],
      ['expires', (req: CaseRequest) => void (req.session.cookie.expires = new Date(Date.now() + HOUR_MS))],
    ])('%s, assigned, changes the cookie of this visitor', async (_, assign) => {
      const cookie = await cookieOf((req, res) => {
        assign(req)
        res.send('ok')
      })
      expect(lasts(cookie, HOUR_MS)).toBe(true)
    })

    test('expires, assigned, is sent to the second', async () => {
      const at = new Date(Math.ceil(Date.now() / 1000) * 1000 + 5 * HOUR_MS)
      const cookie = await cookieOf((req, res) => {
        req.session.cookie.expires = at
        res.send('ok')
      })
      expect(cookie?.attributes['expires']).toBe(at.toUTCString())
    })

    test('expires = false: only as long as the browser is open', async () => {
      const cookie = await cookieOf(
        (req, res) => {
          req.session.cookie.expires = false
          res.send('ok')
        },
        { session: { cookie: { maxAge: HOUR_MS } } },
      )
      expect(cookie).toMatchObject({ lastsMs: undefined })
    })

    test('maxAge = 0: the browser forgets it at once', async () => {
      const cookie = await cookieOf((req, res) => {
        req.session.cookie.maxAge = 0
        res.send('ok')
      })
      expect(cookie?.lastsMs).toBeLessThanOrEqual(0)
    })

    test('maxAge is kept with the session: per visitor, request after request', async () => {
      const app = await start()
      const [one, other] = [await visitor(app), await visitor(app)]
      await app.run((req, res) => {
        req.session.cookie.maxAge = HOUR_MS
        res.send('ok')
      }, one)
      const ages: unknown[] = []
      const age: CaseHandler = (req, res) => {
        const { maxAge, originalMaxAge, expires } = req.session.cookie
        res.send([maxAge, originalMaxAge, expires instanceof Date])
      }
      for (const client of [one, other, one]) ages.push((await app.run(age, client)).json())
      expect(ages).toEqual([
        [HOUR_MS, HOUR_MS, true],
        [null, null, false],
        [HOUR_MS, HOUR_MS, true],
      ])
    })

    test('originalMaxAge is what is configured', async () => {
      const app = await start({ session: { cookie: { maxAge: MINUTE_MS } } })
      const answer = await app.run((req, res) => res.send(req.session.cookie.originalMaxAge))
      expect(answer.json()).toBe(MINUTE_MS)
    })

    test.each([
      ['path', '/shop', 'path', '/shop'],
      ['domain', 'example.com', 'domain', 'example.com'],
      ['httpOnly', false, 'httponly', undefined],
      ['secure', true, 'secure', true],
      ['sameSite', 'strict', 'samesite', 'strict'],
      ['priority', 'high', 'priority', 'high'],
      ['partitioned', true, 'partitioned', true],
    ] as const)('%s, assigned %s, is sent, and kept', async (name, value, attribute, expected) => {
      const app = await start()
      const client = await visitor(app)
      const change: CaseHandler = (req, res) => {
        Object.assign(req.session.cookie, { [name]: value })
        res.send('ok')
      }
      expect(setCookie(await app.run(change, client))?.attributes[attribute]).toBe(expected)
      expect((await app.run((req, res) => res.send(req.session.cookie[name]), client)).json()).toBe(value)
      // What browsers know a cookie by has to be the same when it is taken away.
      const gone = setCookie(await app.run((req, res) => req.session.destroy(() => res.send('ok')), client))
      expect([gone?.value, gone?.attributes[attribute]]).toEqual(['', expected])
    })

    test('goes back to what is configured in the session that regenerate() starts', async () => {
      const app = await start()
      const client = await visitor(app)
      const answer = await app.run((req, res) => {
        req.session.cookie.maxAge = HOUR_MS
        req.session.regenerate(() => res.send(req.session.cookie.maxAge))
      }, client)
      expect([answer.json(), setCookie(answer)?.lastsMs]).toEqual([null, undefined])
    })

    test.each([
      ['a misspelt attribute', 'httponly', true],
      ['a path that is none', 'path', 'shop'],
      ['a value that no browser knows', 'sameSite', 'loose'],
      ['a date that is none', 'expires', new Date(Number.NaN)],
    ])('refuses %s', async (_, name, value) => {
      const app = await start()
      const answer = await app.run((req, res) => {
        expect(() => Object.assign(req.session.cookie, { [name]: value })).toThrow(TypeError)
        res.send('ok')
      })
      expect(answer.json()).toBe('ok')
    })

    test('refuses what browsers would drop without a word: SameSite=None that is not Secure', async () => {
      const app = await start({ session: { cookie: { secure: false } } })
      const answer = await app.run((req, res) => {
        expect(() => Object.assign(req.session.cookie, { sameSite: 'none' })).toThrow('secure')
        res.send(req.session.cookie.sameSite)
      })
      expect(answer.json()).toBe('lax')
    })

    test('is serialised as what it is now', async () => {
      const app = await start()
      const answer = await app.run((req, res) => {
        req.session.cookie.maxAge = HOUR_MS
        res.send(req.session.cookie)
      })
      expect(answer.json()).toMatchObject({
        originalMaxAge: HOUR_MS,
        path: '/',
        httpOnly: true,
        sameSite: 'lax',
      })
    })
  })

  test('the example of a login: regenerate, store the user, save, redirect; and of a logout', async () => {
    const app = await start()
    const client = await visitor(app, { basket: 1 })
    const ids = [client.cookies.get('sid')]
    const login = await app.run((req, res, next) => {
      req.session.regenerate(error => {
        if (error !== undefined) return next(error)
        req.session['user'] = 'ada'
        req.session.save(failure => (failure === undefined ? res.redirect('/') : next(failure)))
      })
    }, client)
    ids.push(client.cookies.get('sid'))
    expect([login.status, (await app.run(show, client)).json()]).toEqual([302, { user: 'ada' }])
    const logout = await app.run((req, res, next) => {
      req.session['user'] = null
      req.session.save(error => {
        if (error !== undefined) return next(error)
        req.session.regenerate(failure => (failure === undefined ? res.redirect('/') : next(failure)))
      })
    }, client)
    ids.push(client.cookies.get('sid'))
    expect([logout.status, (await app.run(show, client)).json()]).toEqual([302, {}])
    expect(new Set(ids).size).toBe(3)
  })
}
