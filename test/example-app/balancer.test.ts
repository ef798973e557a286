/** The demo's balancer: each request to the next process, once; and what becomes of one whose process is gone. */
import { once } from 'node:events'
import { createServer, type RequestListener, type Server } from 'node:http'
import type { AddressInfo } from 'node:net'
import { Balancer } from '../../example-app/processes/balancer.js'
import { deferred } from '../support/barrier.js'
import { Chunks, Client } from '../support/client.js'

const open: (() => Promise<unknown>)[] = []
afterEach(async () => {
  for (const close of open.splice(0).reverse()) await close()
})

async function target(
  listener: RequestListener,
): Promise<{ readonly port: number; readonly server: Server }> {
  const server = createServer(listener).listen(0, '127.0.0.1')
  await once(server, 'listening')
  open.push(async () => {
    server.closeAllConnections()
    if (server.listening) await new Promise(resolve => server.close(resolve))
  })
  return { port: (server.address() as AddressInfo).port, server }
}

const named =
  (name: string): RequestListener =>
  (_, response) =>
    void response.end(name)

async function balanced(
  ...ports: number[]
): Promise<{ readonly balancer: Balancer; readonly client: Client }> {
  const balancer = await Balancer.open(ports)
  open.push(() => balancer.close())
  return { balancer, client: new Client(`http://127.0.0.1:${balancer.port}`) }
}

test('each request goes to the next one, whoever sends it', async () => {
  const [a, b] = [await target(named('a')), await target(named('b'))]
  const { client } = await balanced(a.port, b.port)
  const seen: string[] = []
  for (let turn = 0; turn < 4; turn++) seen.push((await client.get('/')).text)
  expect(seen).toEqual(['a', 'b', 'a', 'b'])
})

test('method, path, headers, body, status, cookies: passed on as they are', async () => {
  const { port } = await target((request, response) => {
    const chunks: Buffer[] = []
    request.on('data', (chunk: Buffer) => chunks.push(chunk))
    request.on('end', () => {
      const { method, url, headers } = request
      response.writeHead(418, 'A Teapot', [
        ['Set-Cookie', 'a=1'],
        ['Set-Cookie', 'b=2'],
      ])
      response.end(
        JSON.stringify({ method, url, mine: headers['x-mine'], body: Buffer.concat(chunks).toString() }),
      )
    })
  })
  const { client } = await balanced(port)
  const answer = await client.send('PUT', '/a/b?c=%20d', {
    headers: { 'X-Mine': 'Grüße' },
    body: new Chunks('one ', 'two'),
  })
  expect([answer.status, answer.message]).toEqual([418, 'A Teapot'])
  expect(answer.headers['set-cookie']).toEqual(['a=1', 'b=2'])
  expect(answer.json()).toEqual({ method: 'PUT', url: '/a/b?c=%20d', mine: 'Grüße', body: 'one two' })
})

test('where nobody listens nothing was received: the next one gets it, body and all', async () => {
  const gone = await target(named('gone'))
  gone.server.close()
  const b = await target((request, response) => request.pipe(response))
  const { client } = await balanced(gone.port, b.port)
  const answer = await client.post('/', 'the body')
  expect([answer.status, answer.text]).toEqual([200, 'the body'])
})

test('who ended after it got the request may have committed: 502, and nobody else gets it', async () => {
  let others = 0
  const a = await target(request => void request.socket.destroy())
  const b = await target((_, response) => {
    others += 1
    response.end('b')
  })
  const { client } = await balanced(a.port, b.port)
  expect((await client.post('/', 'x')).status).toBe(502)
  expect(others).toBe(0)
})

test('an answer that is cut off on the way is cut off for the client, too', async () => {
  const { port } = await target((_, response) => {
    response.writeHead(200, { 'Content-Length': '100' })
    response.write('half', () => response.destroy())
  })
  const { client } = await balanced(port)
  await expect(client.get('/')).rejects.toThrow('aborted')
})

test('nobody there: 502', async () => {
  const { client } = await balanced()
  expect((await client.get('/')).status).toBe(502)
})

test('who is taken out answers what it has, and gets nothing more', async () => {
  const [reached, go] = [deferred(), deferred()]
  const a = await target((_, response) => {
    reached.resolve()
    void go.promise.then(() => response.end('a, late'))
  })
  const b = await target(named('b'))
  const { balancer, client } = await balanced(a.port, b.port)
  const slow = client.get('/')
  await reached.promise
  let isOut = false
  const out = balancer.remove(a.port).then(() => (isOut = true))
  expect([(await client.get('/')).text, (await client.get('/')).text]).toEqual(['b', 'b'])
  expect(isOut).toBe(false)
  go.resolve()
  expect((await slow).text).toBe('a, late')
  await out
  await expect(balancer.remove(a.port)).rejects.toThrow(`nothing is sent to port ${a.port}`)
})
