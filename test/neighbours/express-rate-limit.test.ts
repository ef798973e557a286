/** express-rate-limit on Express, mounted as its README shows, above session-tx: it counts requests, not attempts. */
import { rateLimit, type Options } from 'express-rate-limit'
import type { RequestHandler } from 'express'
import { type ExpressServed, expresses, losing, serveExpress } from '../support/express-app.js'
import { setCookie } from '../support/set-cookie.js'

describe.each(expresses)('%s', (_name, express) => {
  let served: ExpressServed
  afterEach(() => served.close())

  async function serving(below: RequestHandler, more: Partial<Options> = {}): Promise<ExpressServed> {
    const limiter = rateLimit({
      windowMs: 15 * 60 * 1_000,
      limit: 3,
      standardHeaders: 'draft-7',
      legacyHeaders: false,
      ...more,
    })
    served = await serveExpress({ express, above: [limiter], below })
    return served
  }
  /** Of the next request, which counts as well. */
  async function remaining(): Promise<number> {
    const { headers } = await served.client().get('/')
    return Number(/remaining=(\d+)/.exec(String(headers['ratelimit']))?.[1])
  }

  test('a request of three attempts counts once, and its answer has the headers of the limiter', async () => {
    const { client } = await serving(losing(3))
    const answer = await client().get('/')
    expect(answer.text).toBe('attempt 3')
    expect(answer.headers['ratelimit']).toMatch(/limit=3, remaining=2/)
    expect(answer.headers['ratelimit-policy']).toBe('3;w=900')
    expect(await remaining()).toBe(1)
  })

  test('over the limit there is a 429, no transaction and no session', async () => {
    const { client, tx } = await serving((req, res) => {
      req.session['seen'] = true
      res.send('ok')
    })
    for (let request = 0; request < 3; request++) await client().get('/')
    const answer = await client().get('/')
    expect([answer.status, setCookie(answer)]).toEqual([429, undefined])
    expect(tx.stats()).toMatchObject({ requests: { committed: 3 }, sessions: { live: 3 } })
  })

  test('with skipFailedRequests: what failed in the end is not counted, what was run again and succeeded is', async () => {
    const { client } = await serving(
      (req, res) => {
        if (req.path === '/fails') throw new Error('broken')
        if (req.path === '/loses' || req.tx.attempt === 1) req.tx.conflict()
        res.send('ok')
      },
      { skipFailedRequests: true },
    )
    expect((await client().get('/fails')).status).toBe(500)
    expect((await client().get('/loses')).status).toBe(503)
    expect(await remaining()).toBe(2)
    expect(await remaining()).toBe(1)
  })
})
