/** Who tries to get at the metrics of a real application, over sockets, in both frameworks, and what they get. */
import express from 'express'
import express4 from 'express4'
import Koa from 'koa'
import { sessionTx as forExpress } from '../../lib/express.js'
import { sessionTx } from '../../lib/index.js'
import { serve, type GentlyServed } from '../support/app.js'

const close: (() => Promise<unknown>)[] = []
afterEach(async () => {
  for (const one of close.splice(0).reverse()) await one()
})

interface Access {
  /** The one address that may look; undefined: only who is on this machine. */
  readonly ip?: string
  readonly trustsProxy?: boolean
}

async function koa({ ip, trustsProxy = false }: Access): Promise<GentlyServed> {
  const app = new Koa({ proxy: trustsProxy })
  const tx = sessionTx()
  // oxlint-disable-next-line typescript/no-explicit-any -- Koa's own context has `ip`
  app.use(tx.metrics(ip === undefined ? {} : { allow: (ctx: any) => ctx.ip === ip }))
  close.push(() => tx.close())
  const handle = app.callback()
  return serve((req, res) => void handle(req, res))
}

const expressOf =
  (make: typeof express) =>
  async ({ ip, trustsProxy = false }: Access): Promise<GentlyServed> => {
    const app = make()
    app.set('trust proxy', trustsProxy)
    const tx = forExpress()
    // oxlint-disable-next-line typescript/no-explicit-any -- Express's own request has `ip`
    app.use(tx.metrics(ip === undefined ? {} : { allow: (req: any) => req.ip === ip }))
    close.push(() => tx.close())
    return serve(app)
  }

const ADDRESSES = ['', '/', '/live', '/stats.json', '/metrics', '/page.js', '/uplot.css'].map(
  end => `/_tx${end}`,
)

describe.each([
  ['Koa', koa],
  ['Express 5', expressOf(express)],
  ['Express 4', expressOf(express4 as typeof express)],
])('%s', (_, start) => {
  const started = async (access: Access = {}): Promise<GentlyServed> => {
    const served = await start(access)
    close.push(() => served.close())
    return served
  }

  test.each([
    [{ 'x-forwarded-for': '127.0.0.1' }],
    [{ forwarded: 'for=127.0.0.1;host=localhost' }],
    [{ 'x-real-ip': '::1' }],
    [{ via: '1.1 localhost' }],
    [{ host: 'evil.example' }],
    [{ host: 'localhost.evil.example' }],
    [{ host: 'localhost@evil.example' }],
  ])('whoever sends %j gets in nowhere', async headers => {
    const client = (await started()).client()
    for (const address of ADDRESSES) {
      const refused = await client.get(address, { headers })
      expect([address, refused.status, refused.text]).toEqual([address, 404, 'Not Found'])
    }
  })

  test('another way to write an address leads nowhere, and other methods change nothing', async () => {
    const client = (await started()).client()
    const away = { host: 'evil.example' }
    for (const address of ['/_tx%2f', '/%5ftx', '/_TX', '/_tx/../_tx/stats.json', '/_tx;x', '/x/_tx'])
      expect((await client.get(address, { headers: away })).text).not.toContain('session-tx')
    expect((await client.post('/_tx/stats.json')).status).toBe(405)
    expect((await client.post('/_tx/stats.json', '', { headers: away })).status).toBe(404)
  })

  test('a forwarded address is believed only if the application trusts its proxy', async () => {
    const headers = { 'x-forwarded-for': '192.0.2.7' }
    const trusting = (await started({ ip: '192.0.2.7', trustsProxy: true })).client()
    expect((await trusting.get('/_tx/stats.json', { headers })).status).toBe(200)
    expect((await trusting.get('/_tx/stats.json')).status).toBe(404)
    const wary = (await started({ ip: '192.0.2.7' })).client()
    expect((await wary.get('/_tx/stats.json', { headers })).status).toBe(404)
  })

  test('who is on this machine gets in', async () => {
    const served = await started()
    for (const address of ADDRESSES.filter(each => each !== '/_tx/live'))
      expect([address, (await served.client().get(address)).status]).toEqual([address, 200])
  })

  test('live ends with its reader', async () => {
    const served = await started()
    const { request, answer, leave } = served.client().start('GET', '/_tx/live')
    const gone = answer.catch((error: unknown) => error)
    await new Promise<void>(resolve => {
      request.once('response', response => {
        expect(response.headers['content-type']).toBe('text/event-stream; charset=utf-8')
        response.once('data', () => resolve())
      })
    })
    leave()
    expect(await gone).toBeInstanceOf(Error)
    await served.closeGently()
  })
})
