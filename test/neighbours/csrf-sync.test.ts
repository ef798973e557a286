/**
 * csrf-sync on Express, mounted as its README shows, below session-tx: its token is a session variable that it writes when
 * it is first asked for.
 */
import { csrfSync } from 'csrf-sync'
import type { Request } from 'express'
import { Barrier } from '../support/barrier.js'
import type { Answer, Client } from '../support/client.js'
import { type ExpressServed, expresses, serveExpress } from '../support/express-app.js'
import { setCookie } from '../support/set-cookie.js'

describe.each(expresses)('%s', (_name, express) => {
  let served: ExpressServed
  /** What happens before an answer. */
  let before: (req: Request) => Promise<void> | void

  beforeEach(async () => {
    before = () => {}
    const { csrfSynchronisedProtection, generateToken, revokeToken } = csrfSync()
    served = await serveExpress({
      express,
      build: (app, tx) => {
        app.use(tx)
        app.get('/csrf-token', async (req, res) => {
          const token = generateToken(req)
          await before(req)
          res.json({ token })
        })
        app.use(csrfSynchronisedProtection)
        app.post('/pay', async (req, res) => {
          req.session['paid'] = ((req.session['paid'] as number | undefined) ?? 0) + 1
          await before(req)
          res.json({ paid: req.session['paid'], attempt: req.tx.attempt })
        })
        app.post('/logout', (req, res) => {
          revokeToken(req)
          res.end()
        })
        app.post('/login', (req, res, next) => {
          req.session.regenerate(error => {
            if (error !== undefined) return next(error)
            req.session['user'] = 'ada'
            res.json({ token: req.csrfToken?.() })
          })
        })
      },
    })
  })
  afterEach(() => served.close())

  async function tokenOf(client: Client): Promise<string> {
    return (await client.get('/csrf-token')).json<{ token: string }>().token
  }
  function post(client: Client, path: string, token?: string): Promise<Answer> {
    return client.post(path, undefined, token === undefined ? {} : { headers: { 'x-csrf-token': token } })
  }
  function tab(of: Client): Client {
    const other = served.client()
    for (const [name, value] of of.cookies) other.cookies.set(name, value)
    return other
  }

  test('a request with the token of its session passes, one without it or with another is a 403', async () => {
    const client = served.client()
    const token = await tokenOf(client)
    expect((await post(client, '/pay', token)).json()).toEqual({ paid: 1, attempt: 1 })
    expect((await post(client, '/pay', token)).json()).toEqual({ paid: 2, attempt: 1 })
    expect((await post(client, '/pay')).status).toBe(403)
    expect((await post(client, '/pay', await tokenOf(served.client()))).status).toBe(403)
    expect((await post(served.client(), '/pay', token)).status).toBe(403)
    expect((await post(client, '/pay', token)).json()).toMatchObject({ paid: 3 })
  })

  test('a refused request stores nothing and sets no cookie', async () => {
    const answer = await post(served.client(), '/pay', 'guessed')
    expect([answer.status, setCookie(answer)]).toEqual([403, undefined])
    expect(served.tx.stats().sessions).toMatchObject({ live: 0 })
    expect(served.errors).toEqual([expect.objectContaining({ code: 'EBADCSRFTOKEN' })])
  })

  test('the page that asked for it first loses its race: the token that it was given is the one that counts', async () => {
    before = ({ tx }) => {
      if (tx.attempt < 3) tx.conflict()
    }
    const client = served.client()
    const token = await tokenOf(client)
    before = () => {}
    expect((await post(client, '/pay', token)).status).toBe(200)
  })

  test('a protected request that loses its race is checked again, and takes effect once', async () => {
    const client = served.client()
    const token = await tokenOf(client)
    before = ({ tx }) => {
      if (tx.attempt < 3) tx.conflict()
    }
    expect((await post(client, '/pay', token)).json()).toEqual({ paid: 1, attempt: 3 })
    before = () => {}
    expect((await post(client, '/pay', token)).json()).toEqual({ paid: 2, attempt: 1 })
  })

  test('two windows of one session that ask for it first, at the same time, are given the same', async () => {
    const client = served.client()
    const token = await tokenOf(client)
    await post(client, '/logout', token)
    const other = tab(client)
    const both = new Barrier(2)
    before = () => both.arrive()
    const tokens = await Promise.all([tokenOf(client), tokenOf(other)])
    before = () => {}
    expect(tokens[0]).toBe(tokens[1])
    expect(tokens[0]).not.toBe(token)
    expect((await post(other, '/pay', tokens[0])).status).toBe(200)
  })

  test('after a login the old token is worth nothing', async () => {
    const client = served.client()
    const token = await tokenOf(client)
    const answer = await post(client, '/login', token)
    const { token: next } = answer.json<{ token: string }>()
    expect((await post(client, '/pay', token)).status).toBe(403)
    expect((await post(client, '/pay', next)).status).toBe(200)
  })
})
