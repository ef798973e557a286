/**
 * koa-compress and koa-static on Koa, above and below session-tx: what leaves is byte for byte what leaves without
 * session-tx, also when attempts before it had answered and lost.
 */
import compress from 'koa-compress'
import serveFiles from 'koa-static'
import { mkdtempSync, rmSync, utimesSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { Readable } from 'node:stream'
import { koas, serve, serveTx, type Served, type TxContext, type TxMiddleware } from '../support/app.js'
import { bytesOf } from '../support/bytes.js'

const LONG = 'All work and no play makes Jack a dull boy.\n'.repeat(100)

let folder: string
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), 'session-tx-'))
  writeFileSync(join(folder, 'page.txt'), LONG)
  writeFileSync(join(folder, 'index.html'), '<p>hello</p>')
  utimesSync(join(folder, 'page.txt'), 1_000_000, 1_000_000)
  utimesSync(join(folder, 'index.html'), 1_000_000, 1_000_000)
})
afterAll(() => rmSync(folder, { recursive: true, force: true }))

/** Compressed and not, short and long, by text, stream and object. */
const bodies: Readonly<Record<string, () => unknown>> = {
  '/text': () => LONG,
  '/short': () => 'short',
  '/object': () => ({ text: LONG }),
  '/stream': () => Readable.from([LONG.slice(0, 1_000), LONG.slice(1_000)]),
  '/buffer': () => Buffer.from(LONG),
  '/nothing': () => null,
}
function answering(ctx: Pick<TxContext, 'path' | 'body'>): void {
  const body = bodies[ctx.path]
  if (body !== undefined) ctx.body = body()
}
const compressing = (): TxMiddleware => compress({ threshold: 100, br: false }) as unknown as TxMiddleware
const files = (options: object = {}): TxMiddleware => serveFiles(folder, options) as TxMiddleware

const requests: readonly string[] = [
  ...Object.keys(bodies).flatMap(path => [
    `GET ${path} HTTP/1.1\r\nAccept-Encoding: gzip`,
    `GET ${path} HTTP/1.1`,
    `HEAD ${path} HTTP/1.1\r\nAccept-Encoding: gzip`,
  ]),
  'GET / HTTP/1.1\r\nAccept-Encoding: gzip',
  'GET /page.txt HTTP/1.1\r\nAccept-Encoding: gzip',
  'GET /page.txt HTTP/1.1\r\nIf-Modified-Since: Mon, 12 Jan 1970 13:46:40 GMT',
  'HEAD /page.txt HTTP/1.1',
  'GET /../page.txt HTTP/1.1',
  'GET /absent.txt HTTP/1.1',
]

/** Runs what stands below it, and then loses: the answer is there already. */
const losing: TxMiddleware = async (ctx, next) => {
  await next()
  if (ctx.tx.attempt < 3) ctx.tx.conflict()
}

const placements: Readonly<Record<string, (own: TxMiddleware[]) => [TxMiddleware[], TxMiddleware[]]>> = {
  'both above': own => [[compressing(), files()], own],
  'both below': own => [[], [...own, compressing(), files()]],
  'koa-compress above, koa-static below, after the handlers': own => [
    [compressing()],
    [...own, files({ defer: true })],
  ],
}

describe.each(koas)('%s', (_name, App) => {
  let running: Served[]
  beforeEach(() => {
    running = []
  })
  afterEach(async () => {
    for (const served of running) await served.close()
  })

  test.each(Object.entries(placements))('with %s, byte for byte', async (_placement, place) => {
    const plain = new App()
    for (const middleware of place([]).flat()) plain.use(middleware)
    plain.use(answering as TxMiddleware)
    const handle = plain.callback()
    running.push(await serve((req, res) => void handle(req, res)))
    for (const own of [[], [losing]]) {
      const [above, below] = place(own)
      running.push(await serveTx({ Koa: App, above, below: [...below, answering as TxMiddleware] }))
    }
    const [without, once, again] = running as [Served, Served, Served]
    for (const request of requests) {
      const expected = await bytesOf(without.url, request)
      expect(await bytesOf(once.url, request)).toBe(expected)
      expect(await bytesOf(again.url, request)).toBe(expected)
    }
    expect(await bytesOf(without.url, requests[0] ?? '')).toMatch(/Content-Encoding: gzip/)
    expect(await bytesOf(without.url, 'GET /page.txt HTTP/1.1')).toMatch(/All work/)
  })

  test('a file above is served without a transaction; below it is one that touches nothing', async () => {
    const above = await serveTx({ Koa: App, above: [files()], below: () => {} })
    const below = await serveTx({ Koa: App, below: files() })
    running.push(above, below)
    for (const { client } of [above, below]) expect((await client().get('/page.txt')).text).toBe(LONG)
    expect(above.tx.stats().requests.committed).toBe(0)
    expect(below.tx.stats()).toMatchObject({ requests: { committed: 1 }, sessions: { live: 0 } })
  })

  test('a handler that fails above a file that was found: an error page, and nothing stored', async () => {
    const failing: TxMiddleware = async (ctx, next) => {
      ctx.session['seen'] = true
      await next()
      throw new Error('broken')
    }
    const served = await serveTx({ Koa: App, below: [failing, compressing(), files()] })
    running.push(served)
    const answer = await served.client().get('/page.txt', { headers: { 'accept-encoding': 'gzip' } })
    expect([answer.status, answer.text]).toEqual([500, 'Internal Server Error'])
    expect(served.tx.stats().sessions).toMatchObject({ live: 0 })
  })
})
