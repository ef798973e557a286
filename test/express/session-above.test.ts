/**
 * What listeners above session-tx (access logs) and error middleware see of `req.session` when the request is over. An
 * error thrown in a listener ends the process, so there must be none.
 */
import expressSession from 'express-session'
import type { ErrorRequestHandler, RequestHandler } from 'express'
import { legacyStore, memoryStore, type SessionTxOptions } from '../../lib/index.js'
import { type ExpressServed, expresses, serveExpress } from '../support/express-app.js'

const STORES: readonly (readonly [string, () => SessionTxOptions['store']])[] = [
  ['memoryStore', () => memoryStore()],
  ['legacyStore', () => legacyStore(new expressSession.MemoryStore())],
]
const cases = expresses.flatMap(([name, express]) =>
  STORES.map(([kind, store]) => [`${name}, ${kind}`, express, store] as const),
)

describe.each(cases)('%s', (_, express, store) => {
  let served: ExpressServed
  afterEach(() => served.close())

  /** What an access log and error middleware have seen, in order. */
  async function start(handler: RequestHandler): Promise<unknown[]> {
    const seen: unknown[] = []
    const see = (session: unknown): void => void seen.push(session === undefined ? undefined : { ...session })
    served = await serveExpress({
      express,
      options: { store: store() },
      above: [
        (req, res, next) => {
          res.on('finish', () => see(req.session))
          next()
        },
      ],
      build: (app, tx) => {
        app.use(tx)
        app.post('/login', (req, res) => {
          req.session['user'] = 'ada'
          res.send('ok')
        })
        app.post('/it', handler)
        const page: ErrorRequestHandler = (error, req, _res, next) => {
          see(req.session)
          next(error)
        }
        app.use(page)
      },
    })
    const client = served.client()
    await client.post('/login')
    seen.length = 0
    await client.post('/it')
    return seen
  }

  test('a request that did not use its session: both can read it', async () => {
    const seen = await start((_req, _res, next) => next(new Error('no')))
    expect(seen).toEqual([{ user: 'ada' }, { user: 'ada' }])
  })

  test('after destroy(callback) there is none, as in express-session', async () => {
    const seen = await start((req, res) => req.session.destroy(() => res.send('bye')))
    expect(seen).toEqual([undefined])
  })

  test('after destroy(callback) and an error, neither', async () => {
    const seen = await start((req, _res, next) => req.session.destroy(() => next(new Error('no'))))
    expect(seen).toEqual([undefined, undefined])
  })
})
