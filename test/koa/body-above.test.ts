/** Bodies that session-tx cannot keep the ordinary way: parsed above into what cannot be copied, or sent over HTTP/2. */
import { once } from 'node:events'
import http2 from 'node:http2'
import type { AddressInfo } from 'node:net'
import Koa from 'koa'
import { sessionTx } from '../../lib/index.js'
import { serveTx, type TxContext } from '../support/app.js'

test('a body that something above parsed into what cannot be copied is served once, as without us', async () => {
  const served = await serveTx({
    above: [
      (ctx, next) => {
        Object.assign(ctx.request, { body: { parse: () => 'cannot be copied' } })
        return next()
      },
    ],
    below: ctx => {
      if (ctx.path === '/conflict') ctx.tx.conflict()
      ctx.body = 'fine'
    },
  })
  try {
    expect((await served.client().post('/')).text).toBe('fine')
    expect((await served.client().post('/conflict')).status).toBe(503)
    expect(served.tx.stats().refused).toEqual({ NOT_RERUNNABLE: 1 })
  } finally {
    await served.close()
  }
})

test('over HTTP/2 a body needs no header to be there; it is the same on each attempt', async () => {
  const app = new Koa()
  const tx = sessionTx()
  app.use(tx)
  app.use(async ctx => {
    const { tx: own, req } = ctx as unknown as TxContext
    let text = ''
    for await (const chunk of req) text += String(chunk)
    if (own.attempt === 1) own.conflict()
    ctx.body = `${own.attempt} ${text}`
  })
  const handle = app.callback()
  const server = http2.createServer((req, res) => void handle(req as never, res as never))
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  const client = http2.connect(`http://127.0.0.1:${(server.address() as AddressInfo).port}`)
  try {
    const request = client.request({ ':method': 'POST', ':path': '/' })
    request.end('hello')
    let answer = ''
    for await (const chunk of request) answer += String(chunk)
    expect(answer).toBe('2 hello')
  } finally {
    client.close()
    await once(client, 'close')
    server.close()
    await once(server, 'close')
    await tx.close()
  }
})
