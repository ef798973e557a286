/** The request body is the same on each attempt, whoever reads it and wherever; above the limit the request runs once. */
import { bodyParser } from '@koa/bodyparser'
import { createHash } from 'node:crypto'
import { IncomingMessage } from 'node:http'
import { Socket } from 'node:net'
import { Readable } from 'node:stream'
import { hasBody, ReplayableRequest } from '../../lib/http/replayable-request.js'
import {
  koas,
  serveTx,
  type TxContext,
  type TxMiddleware,
  type TxServed,
  type TxServing,
} from '../support/app.js'
import { Gate } from '../support/barrier.js'
import { Chunks, type Sending } from '../support/client.js'

const LIMIT = 10_000
const json = { 'content-type': 'application/json' }

/** JSON of exactly so many bytes. */
function jsonOf(bytes: number): string {
  return JSON.stringify({ text: 'x'.repeat(bytes - '{"text":""}'.length) })
}
const digest = (data: string | Buffer): string => createHash('sha256').update(data).digest('hex')

/** Reads the whole body with nobody's help. */
async function raw(ctx: TxContext): Promise<string> {
  const chunks: Buffer[] = []
  for await (const chunk of ctx.req as AsyncIterable<Buffer>) chunks.push(chunk)
  return Buffer.concat(chunks).toString()
}

function byEvents(ctx: TxContext): Promise<string> {
  return new Promise((resolve, reject) => {
    let text = ''
    ctx.req.setEncoding('utf8')
    ctx.req.on('data', (chunk: string) => (text += chunk))
    ctx.req.on('end', () => resolve(text))
    ctx.req.on('error', reject)
  })
}

function byReadable(ctx: TxContext): Promise<string> {
  return new Promise(resolve => {
    const chunks: Buffer[] = []
    ctx.req.on('readable', () => {
      for (
        let chunk = ctx.req.read() as Buffer | null;
        chunk !== null;
        chunk = ctx.req.read() as Buffer | null
      ) {
        chunks.push(chunk)
      }
    })
    ctx.req.on('end', () => resolve(Buffer.concat(chunks).toString()))
  })
}

const lastWord = jsonOf(LIMIT)
const half = Math.floor(lastWord.length / 2)

const bodies: Readonly<Record<string, { readonly sending: Sending; readonly whole: string }>> = {
  '0 bytes': { sending: { body: '', headers: json }, whole: '' },
  '1 kB': { sending: { body: jsonOf(1_000), headers: json }, whole: jsonOf(1_000) },
  'exactly at the limit': { sending: { body: lastWord, headers: json }, whole: lastWord },
  'chunked, in three parts': {
    sending: { body: new Chunks('{"text":', '"abc', 'def"}'), headers: json },
    whole: '{"text":"abcdef"}',
  },
  'chunked, at the limit': {
    sending: { body: new Chunks(lastWord.slice(0, half), lastWord.slice(half)), headers: json },
    whole: lastWord,
  },
  'chunked and empty': {
    sending: { body: new Chunks(), headers: { ...json, 'transfer-encoding': 'chunked' } },
    whole: '',
  },
}

describe.each(koas)('%s', (_name, Koa) => {
  let served: TxServed
  afterEach(() => served.close())

  async function serving(given: Omit<TxServing, 'Koa'>): Promise<TxServed> {
    served = await serveTx({ Koa, ...given, options: { hold: { requestBytesMax: LIMIT }, ...given.options } })
    return served
  }

  describe.each(Object.entries(bodies))(
    'a body of %s is the same on each of 3 attempts',
    (_size, { sending, whole }) => {
      const expected = whole === '' ? {} : (JSON.parse(whole) as unknown)

      test.each(['below', 'above'])(
        'parsed by @koa/bodyparser %s session-tx, even if the handler changed it',
        async place => {
          const seen: unknown[] = []
          const rawBodies: unknown[] = []
          const parser = bodyParser() as TxMiddleware
          const handler: TxMiddleware = ctx => {
            const body = ctx.request.body as Record<string, unknown>
            seen.push(structuredClone(body))
            rawBodies.push(ctx.request.rawBody)
            delete body['text']
            body['dirty'] = { deep: true }
            if (ctx.tx.attempt === 2) ctx.request.body = 'dirty'
            if (ctx.tx.attempt < 3) ctx.tx.conflict()
            ctx.body = 'ok'
          }
          const { client } = await serving(
            place === 'below' ? { below: [parser, handler] } : { above: [parser], below: handler },
          )
          expect((await client().send('POST', '/', sending)).text).toBe('ok')
          expect(seen).toEqual([expected, expected, expected])
          expect(new Set(rawBodies).size).toBe(1)
        },
      )

      test.each([
        ['for await', raw],
        ["on('data')", byEvents],
        ["on('readable')", byReadable],
      ])('read by %s', async (_how, read) => {
        const seen: string[] = []
        const { client } = await serving({
          below: async ctx => {
            seen.push(digest(await read(ctx)))
            if (ctx.tx.attempt < 3) ctx.tx.conflict()
            ctx.body = 'ok'
          },
        })
        expect((await client().send('POST', '/', sending)).text).toBe('ok')
        expect(seen).toEqual(Array<string>(3).fill(digest(whole)))
      })
    },
  )

  test('attempt 1 read nothing of it, attempt 2 reads all', async () => {
    const { client } = await serving({
      below: async ctx => {
        if (ctx.tx.attempt === 1) ctx.tx.conflict()
        ctx.body = digest(await raw(ctx))
      },
    })
    expect((await client().post('/', lastWord)).text).toBe(digest(lastWord))
  })

  test('attempt 1 lost its race in the middle of it: attempt 2 starts when all of it has come', async () => {
    const lost = new Gate()
    const { client, tx } = await serving({
      below: async ctx => {
        if (ctx.tx.attempt === 1) {
          await new Promise(resolve => ctx.req.once('data', resolve))
          ctx.tx.conflict()
        }
        ctx.body = await raw(ctx)
      },
    })
    tx.on('rerun', () => lost.open())
    const { request, answer } = client().start('POST', '/', { body: new Chunks('first'), unfinished: true })
    await lost.passed()
    request.end(', last')
    expect((await answer).text).toBe('first, last')
  })

  test('the client goes away in the middle of it, after a lost race: no further attempt', async () => {
    const lost = new Gate()
    const refused = new Gate()
    let ran = 0
    const { client, tx } = await serving({
      below: async ctx => {
        ran += 1
        await new Promise(resolve => ctx.req.once('data', resolve))
        ctx.tx.conflict()
      },
    })
    tx.on('rerun', () => lost.open())
    tx.on('refused', () => refused.open())
    const { leave, answer } = client().start('POST', '/', { body: new Chunks('first'), unfinished: true })
    await lost.passed()
    leave()
    await expect(answer).rejects.toThrow('the client went away')
    await refused.passed()
    expect(ran).toBe(1)
  })

  test('a GET whose handler reads a body that is not there reads nothing, each time', async () => {
    const { client } = await serving({
      below: async ctx => {
        const text = await raw(ctx)
        if (ctx.tx.attempt < 3) ctx.tx.conflict()
        ctx.body = `[${text}]`
      },
    })
    expect((await client().get()).text).toBe('[]')
  })

  test('the body had arrived, unread, before session-tx saw the request', async () => {
    const arrived: TxMiddleware = async (ctx, next) => {
      ctx.req.on('readable', () => {})
      while (!ctx.req.complete) await new Promise(resolve => setImmediate(resolve))
      ctx.req.removeAllListeners('readable')
      await next()
    }
    const { client } = await serving({
      above: [arrived],
      below: async ctx => {
        const text = await raw(ctx)
        if (ctx.tx.attempt === 1) ctx.tx.conflict()
        ctx.body = text
      },
    })
    expect((await client().post('/', 'small but there')).text).toBe('small but there')
  })

  describe('above the limit', () => {
    const big = jsonOf(LIMIT + 1)

    test.each([
      ['with its length announced', big],
      ['chunked', new Chunks(big.slice(0, half), big.slice(half))],
    ])('%s: served whole, once; a conflict gives NOT_RERUNNABLE', async (_how, body) => {
      let ran = 0
      const { client, tx, errors } = await serving({
        below: async ctx => {
          ran += 1
          const text = await raw(ctx)
          if (ctx.path === '/conflict') ctx.tx.conflict()
          ctx.body = digest(text)
        },
      })
      expect((await client().post('/', body)).text).toBe(digest(big))
      const answer = await client().post('/conflict', body)
      expect(answer.status).toBe(503)
      expect(Number(answer.headers['retry-after'])).toBeGreaterThanOrEqual(1)
      expect(ran).toBe(2)
      expect(errors).toEqual([expect.objectContaining({ code: 'NOT_RERUNNABLE' })])
      expect(tx.stats()).toMatchObject({ notRerunnable: { body: 2 }, refused: { NOT_RERUNNABLE: 1 } })
    })

    test('chunked and not read before the conflict: NOT_RERUNNABLE, never a cut body', async () => {
      const seen: string[] = []
      const { client, errors } = await serving({
        below: async ctx => {
          if (ctx.tx.attempt === 1) ctx.tx.conflict()
          seen.push(await raw(ctx))
        },
      })
      const answer = await client().post('/', new Chunks(big.slice(0, half), big.slice(half)))
      expect(answer.status).toBe(503)
      expect(seen).toEqual([])
      expect(errors).toEqual([expect.objectContaining({ code: 'NOT_RERUNNABLE', cause: expect.anything() })])
    })
  })
})

describe('what the replay rests on', () => {
  test('a request without a body needs nothing of it', () => {
    const of = (headers: Record<string, string>): boolean =>
      hasBody(Object.assign(new IncomingMessage(new Socket()), { headers }))
    expect(of({})).toBe(false)
    expect(of({ 'content-length': '0' })).toBe(false)
    expect(of({ 'content-length': '1' })).toBe(true)
    expect(of({ 'transfer-encoding': 'chunked' })).toBe(true)
  })

  // Undocumented: if a Node version changes it, this says so before an application reads an empty body.
  test('Readable.ReadableState is a class, and a request with a fresh one can be read from the start', async () => {
    const { ReadableState } = Readable as unknown as { ReadableState?: new (...args: unknown[]) => object }
    expect(typeof ReadableState).toBe('function')
    const req = new IncomingMessage(new Socket())
    expect(req).toHaveProperty('_readableState', expect.any(ReadableState ?? Object))
    const replayable = new ReplayableRequest(req, 100)
    expect(Object.hasOwn(req, 'push')).toBe(true)
    req.push(Buffer.from('one'))
    req.push('two', 'utf8')
    req.push(null)
    for (let time = 1; time <= 3; time++) {
      const chunks: Buffer[] = []
      for await (const chunk of req as AsyncIterable<Buffer>) chunks.push(chunk)
      expect(Buffer.concat(chunks).toString()).toBe('onetwo')
      expect(req.readableEnded).toBe(true)
      expect(await replayable.rewind()).toBe(true)
      expect(req.readableEnded).toBe(false)
      expect(req.destroyed).toBe(false)
    }
    req.destroy()
  })
})
