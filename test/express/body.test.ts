/** The request body is the same on each attempt, whoever reads it and wherever; above the limit the request runs once. */
import type { Request, RequestHandler } from 'express'
import multer from 'multer'
import { createHash } from 'node:crypto'
import { text } from 'node:stream/consumers'
import { Chunks, type Sending } from '../support/client.js'
import { type ExpressServed, type ExpressServing, expresses, serveExpress } from '../support/express-app.js'

const LIMIT = 10_000
const json = { 'content-type': 'application/json' }
const form = { 'content-type': 'application/x-www-form-urlencoded' }
const boundary = { 'content-type': 'multipart/form-data; boundary=---b' }

function digest(data: string | Buffer): string {
  return createHash('sha256').update(data).digest('hex')
}

function part(name: string, content: string, more = ''): string {
  return `-----b\r\nContent-Disposition: form-data; name="${name}"${more}\r\n\r\n${content}\r\n`
}
const multipart = [
  part('title', 'Holiday'),
  part('photo', 'x'.repeat(3_000), '; filename="a.txt"'),
  part('photo', 'y'.repeat(3_000), '; filename="b.txt"'),
  '-----b--\r\n',
]

/** A reader of the body, what is sent to it, and what its handler can tell of it. */
interface Reading {
  readonly sending: Sending
  readonly tells: (req: Request) => unknown
  readonly expected: unknown
  readonly dirties?: (req: Request) => void
}

function readings(express: ExpressServing['express']): Readonly<Record<string, [RequestHandler, Reading]>> {
  const list = { a: [1, 2, { b: 'three' }] }
  const parsed: Pick<Reading, 'tells' | 'dirties'> = {
    tells: req => structuredClone(req.body as unknown),
    dirties: req => void ((req.body as Record<string, unknown>)['a'] = 'dirty'),
  }
  const files: Pick<Reading, 'tells' | 'expected' | 'dirties'> = {
    tells: req => [
      { ...(req.body as object) },
      (req.files as Express.Multer.File[]).map(({ originalname, buffer }) => [
        originalname,
        digest(buffer),
        buffer.length,
      ]),
    ],
    expected: [
      { title: 'Holiday' },
      [
        ['a.txt', digest('x'.repeat(3_000)), 3_000],
        ['b.txt', digest('y'.repeat(3_000)), 3_000],
      ],
    ],
    dirties: req => void (req.files as unknown[]).pop(),
  }
  const upload = multer({ storage: multer.memoryStorage() }).array('photo')
  const whole = 'word '.repeat(1_000)
  return {
    'express.json': [express.json(), { sending: { body: list }, expected: list, ...parsed }],
    'express.json, of what comes chunked': [
      express.json(),
      { sending: { body: new Chunks('{"a":', '[1]', '}'), headers: json }, expected: { a: [1] }, ...parsed },
    ],
    'express.json, exactly at the limit': [
      express.json(),
      {
        sending: { body: JSON.stringify({ a: 'x'.repeat(LIMIT - 8) }), headers: json },
        expected: { a: 'x'.repeat(LIMIT - 8) },
        ...parsed,
      },
    ],
    'express.urlencoded': [
      express.urlencoded({ extended: true }),
      { sending: { body: 'a=1&b[c]=2', headers: form }, expected: { a: '1', b: { c: '2' } }, ...parsed },
    ],
    'express.raw': [
      express.raw({ type: () => true }),
      {
        sending: { body: Buffer.from(whole) },
        tells: req => (req.body as Buffer).toString('base64'),
        expected: Buffer.from(whole).toString('base64'),
        dirties: req => void (req.body as Buffer).fill(0),
      },
    ],
    'express.text': [
      express.text({ type: () => true }),
      { sending: { body: whole }, tells: req => req.body as unknown, expected: whole },
    ],
    multer: [upload, { sending: { body: multipart.join(''), headers: boundary }, ...files }],
    'multer, of what comes chunked': [
      upload,
      { sending: { body: new Chunks(...multipart), headers: boundary }, ...files },
    ],
  }
}

describe.each(expresses)('%s', (_name, express) => {
  let served: ExpressServed
  afterEach(() => served.close())

  async function serving(given: Omit<ExpressServing, 'express'>): Promise<ExpressServed> {
    const options = { hold: { requestBytesMax: LIMIT }, ...given.options }
    served = await serveExpress({ express, ...given, options })
    return served
  }

  describe.each(['below', 'above'])('a body that is parsed %s session-tx', place => {
    test.each(Object.entries(readings(express)))(
      'by %s is the same on each of 3 attempts, even if the handler changed it',
      async (_parser, [parser, { sending, tells, expected, dirties }]) => {
        const seen: unknown[] = []
        const { client } = await serving({
          build: (app, tx) => {
            if (place === 'above') app.use(parser)
            app.use(tx)
            if (place === 'below') app.use(parser)
          },
          below: (req, res) => {
            seen.push(tells(req))
            dirties?.(req)
            if (req.tx.attempt === 2) req.body = 'dirty'
            if (req.tx.attempt < 3) req.tx.conflict()
            res.send('ok')
          },
        })
        expect((await client().send('POST', '/', sending)).text).toBe('ok')
        expect(seen).toEqual([expected, expected, expected])
      },
    )
  })

  test('read by nobody but the handler: the same on each of 3 attempts', async () => {
    const seen: string[] = []
    const { client } = await serving({
      below: async (req, res) => {
        seen.push(await text(req))
        if (req.tx.attempt < 3) req.tx.conflict()
        res.send('ok')
      },
    })
    expect((await client().post('/', new Chunks('one, ', 'two'))).text).toBe('ok')
    expect(seen).toEqual(['one, two', 'one, two', 'one, two'])
  })

  test('piped into the answer: it comes back whole, once', async () => {
    const { client, tx } = await serving({
      below: (req, res) => {
        if (req.tx.attempt === 1) {
          try {
            req.tx.conflict()
          } catch {}
        }
        req.pipe(res)
      },
    })
    expect((await client().post('/', new Chunks('one, ', 'two'))).text).toBe('one, two')
    expect(tx.stats().attempts).toEqual({ 2: 1 })
  })

  test('on a route, below transactional(): the parser of the route stands above it and runs once', async () => {
    let parsed = 0
    const seen: unknown[] = []
    const parser = express.json({ verify: () => void (parsed += 1) })
    const { client } = await serving({
      build: (app, tx) =>
        app.post(
          '/',
          parser,
          tx.transactional((req, res) => {
            const body = (req as Request).body as { list: number[] }
            seen.push([...body.list])
            body.list.push(9)
            if ((req as Request).tx.attempt < 3) (req as Request).tx.conflict()
            res.end('ok')
          }),
        ),
    })
    expect((await client().post('/', { list: [1] })).text).toBe('ok')
    expect(parsed).toBe(1)
    expect(seen).toEqual([[1], [1], [1]])
  })

  test.each([
    ['with its length announced', 'x'.repeat(LIMIT + 1)],
    ['chunked', new Chunks('x'.repeat(LIMIT), 'x')],
  ])('above the limit, %s: served whole, once; a conflict gives NOT_RERUNNABLE', async (_how, body) => {
    let ran = 0
    const { client, tx, errors } = await serving({
      below: async (req, res) => {
        ran += 1
        const whole = await text(req)
        if (req.path === '/conflict') req.tx.conflict()
        res.send(digest(whole))
      },
    })
    expect((await client().post('/', body)).text).toBe(digest('x'.repeat(LIMIT + 1)))
    const answer = await client().post('/conflict', body)
    expect(answer.status).toBe(503)
    expect(Number(answer.headers['retry-after'])).toBeGreaterThanOrEqual(1)
    expect(ran).toBe(2)
    expect(errors).toEqual([expect.objectContaining({ code: 'NOT_RERUNNABLE' })])
    expect(tx.stats()).toMatchObject({ notRerunnable: { body: 2 }, refused: { NOT_RERUNNABLE: 1 } })
  })
})
