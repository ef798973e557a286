/**
 * What an attempt did to the request and the response is gone in the next one: each scenario dirties the first attempt,
 * and what the second one sees and what the client gets must equal a run that was never dirty.
 */
import { EventEmitter } from 'node:events'
import { PassThrough, Readable } from 'node:stream'
import onFinished from 'on-finished'
import { deferred } from '../support/barrier.js'
import { koas, serveTx, type TxContext, type TxMiddleware, type TxServed } from '../support/app.js'
import type { Answer } from '../support/client.js'

type Dirty = (ctx: TxContext) => unknown

const ON_REQUEST = Symbol('test.onRequest')

/** Loose enough for what handlers hang anywhere. */
function carrier(object: object): Record<PropertyKey, unknown> {
  return object as Record<PropertyKey, unknown>
}

const scenarios: Readonly<Record<string, Dirty>> = {
  'nothing at all': () => {},
  'a status': ctx => (ctx.status = 500),
  'a status message': ctx => {
    ctx.status = 418
    ctx.message = 'Teapot'
  },
  'a header': ctx => ctx.set('X-Dirty', 'yes'),
  'a header that was set above': ctx => ctx.set('X-Above', 'dirty'),
  'one more value of a header that was set above': ctx => ctx.append('Vary', 'Cookie'),
  'no header that was set above': ctx => ctx.remove('X-Above'),
  'no Date': ctx => (ctx.res.sendDate = false),
  'no Connection, Content-Length, Transfer-Encoding': ctx => {
    for (const name of ['Connection', 'Content-Length', 'Transfer-Encoding']) ctx.res.removeHeader(name)
  },
  'a cookie': ctx => void ctx.cookies.set('dirty', '1'),
  'a session': ctx => (ctx.session['dirty'] = 1),
  'a redirect': ctx => ctx.redirect('/elsewhere'),
  'an attachment': ctx => ctx.attachment('dirty.pdf'),
  'a content type': ctx => (ctx.type = 'image/png'),
  'a length': ctx => (ctx.length = 3),
  'an ETag and Last-Modified': ctx => {
    ctx.etag = 'dirty'
    ctx.lastModified = new Date(0)
  },
  'a text body': ctx => (ctx.body = '<b>dirty</b>'),
  'an object body': ctx => (ctx.body = { dirty: true }),
  'a buffer body': ctx => (ctx.body = Buffer.from('dirty')),
  'a null body': ctx => (ctx.body = null),
  'a stream body': ctx => (ctx.body = Readable.from(['dirty'])),
  'two stream bodies, one after the other': ctx => {
    ctx.body = new PassThrough()
    ctx.body = new PassThrough()
  },
  'a Blob body': ctx => (ctx.body = new Blob(['dirty'])),
  'a web stream body': ctx => (ctx.body = new ReadableStream()),
  'ctx.state': ctx => (ctx.state['dirty'] = 1),
  'what ctx.state had from above': ctx => {
    ctx.state['user'] = 'dirty'
    delete ctx.state['locale']
  },
  'another ctx.state': ctx => (ctx.state = { dirty: 1 }),
  'properties of ctx': ctx => {
    carrier(ctx)['dirty'] = 1
    carrier(ctx)['above'] = 'dirty'
  },
  'a property of ctx that was set above, deleted': ctx => delete carrier(ctx)['above'],
  'an accessor on ctx': ctx => Object.defineProperty(ctx, 'dirty', { get: () => 1, configurable: true }),
  'symbols on ctx, ctx.request, ctx.response': ctx => {
    for (const object of [ctx, ctx.request, ctx.response]) carrier(object)[Symbol('dirty')] = 1
  },
  'properties of ctx.request and ctx.response': ctx => {
    for (const object of [ctx.request, ctx.response]) carrier(object)['dirty'] = 1
  },
  'properties of req and res': ctx => {
    for (const object of [ctx.req, ctx.res]) carrier(object)['dirty'] = 1
  },
  'symbols on req and res': ctx => {
    for (const object of [ctx.req, ctx.res]) carrier(object)[Symbol('dirty')] = 1
  },
  'properties with an underscore on req and res': ctx => {
    for (const object of [ctx.req, ctx.res]) carrier(object)['_dirty'] = 1
  },
  'what was set above on req and res': ctx => {
    for (const object of [ctx.req, ctx.res]) {
      carrier(object)['above'] = 'dirty'
      carrier(object)[ON_REQUEST] = 'dirty'
    }
  },
  'request headers': ctx => {
    ctx.request.headers['x-dirty'] = '1'
    ctx.req.headers['user-agent'] = 'dirty'
    delete ctx.req.headers['accept']
  },
  'listeners of req': ctx => {
    ctx.req.on('close', () => {})
    ctx.req.once('aborted', () => {})
    ctx.req.on('dirty', () => {})
  },
  'listeners of res': ctx => {
    ctx.res.on('finish', () => ctx.res.emit('dirty'))
    ctx.res.once('close', () => {})
    ctx.res.prependListener('pipe', () => {})
  },
  'no listener that was added above': ctx => {
    ctx.res.removeAllListeners('finish')
    ctx.req.removeAllListeners('close')
  },
  'listeners through on-finished': ctx => {
    onFinished(ctx.res, () => (carrier(ctx)['finishedDirty'] = true))
  },
  'a rewritten url': ctx => (ctx.url = '/dirty?x=1'),
  'a rewritten path and query': ctx => {
    ctx.path = '/dirty'
    ctx.query = { dirty: '1' }
  },
  'a query that was only read': ctx => ctx.query['a'],
  'another method': ctx => (ctx.method = 'DELETE'),
  'ctx.respond = false': ctx => (ctx.respond = false),
  'an ip and what is parsed of the request': ctx => {
    ctx.request.ip = '6.6.6.6'
    return [ctx.URL, ctx.accepts('json'), ctx.ip]
  },
  'a time-out on the response': ctx => ctx.res.setTimeout(3_600_000, () => {}),
}

interface Seen {
  readonly view: unknown
  readonly answer: unknown
}

const names = (object: object): string[] => Reflect.ownKeys(object).map(String).sort()
const listeners = (emitter: EventEmitter): Record<string, number> =>
  Object.fromEntries(emitter.eventNames().map(name => [String(name), emitter.listenerCount(name)]))

/** Everything that a handler could notice of what ran before it. */
function view(ctx: TxContext): unknown {
  const { req, res, request, response } = ctx
  return {
    status: [ctx.status, ctx.message, res.statusCode, res.statusMessage],
    headers: { ...res.getHeaders() },
    sent: [res.sendDate, res.headersSent, res.writable],
    sticky: ['_removedConnection', '_removedContLen', '_removedTE'].map(name => carrier(res)[name]),
    body: [ctx.body, ctx.type, ctx.length],
    request: [ctx.url, ctx.originalUrl, ctx.path, ctx.querystring, { ...ctx.query }, ctx.method, ctx.ip],
    requestHeaders: { ...req.headers },
    state: { ...ctx.state },
    above: [
      carrier(ctx)['above'],
      ...[req, res].flatMap(object => [carrier(object)['above'], carrier(object)[ON_REQUEST]]),
    ],
    respond: ctx.respond,
    cookie: ctx.cookies.get('dirty'),
    session: Object.keys(ctx.session),
    own: {
      ctx: names(ctx),
      request: names(request),
      response: names(response),
      req: names(req),
      res: names(res),
    },
    listeners: { req: listeners(req), res: listeners(res) },
  }
}

const above: TxMiddleware = async (ctx, next) => {
  ctx.set('X-Above', 'above')
  ctx.set('Vary', ['Accept'])
  ctx.state['user'] = 'ann'
  ctx.state['locale'] = 'en'
  carrier(ctx)['above'] = 'above'
  for (const object of [ctx.req, ctx.res]) {
    carrier(object)['above'] = 'above'
    carrier(object)[ON_REQUEST] = 'above'
  }
  ctx.res.removeHeader('Transfer-Encoding')
  ctx.res.on('finish', () => {})
  ctx.req.on('close', () => {})
  await next()
}

function shown({ status, message, headers, text }: Answer): unknown {
  const { date, ...others } = headers
  return { status, message, headers: others, hasDate: date !== undefined, text }
}

describe.each(koas)('%s: what attempt 1 left is gone in attempt 2:', (_name, Koa) => {
  let served: TxServed
  let attempts = 0
  let clean: Seen
  let dirty: Dirty | undefined
  let views: unknown[] = []

  async function run(scenario: Dirty | undefined): Promise<Seen> {
    dirty = scenario
    attempts = 0
    views = []
    const answer = await served
      .client()
      .get('/path?a=1', { headers: { accept: 'text/html', 'user-agent': 'test' } })
    return { view: views.at(-1), answer: shown(answer) }
  }

  beforeAll(async () => {
    served = await serveTx({
      Koa,
      above: [above],
      below: async ctx => {
        attempts += 1
        // Waiting watches the client with one listener of our own; the clean run gets it by asking for the signal.
        expect(ctx.tx.signal.aborted).toBe(false)
        if (ctx.tx.attempt === 1 && dirty !== undefined) {
          await dirty(ctx)
          ctx.tx.conflict()
        }
        views.push(view(ctx))
        ctx.set('X-Attempt', 'the last')
        ctx.body = 'ok'
      },
    })
    clean = await run(undefined)
    expect(clean.answer).toMatchObject({ status: 200, text: 'ok', headers: { 'x-above': 'above' } })
  })
  afterAll(() => served.close())

  test.each(Object.entries(scenarios))('%s', async (_what, scenario) => {
    const seen = await run(scenario)
    expect(attempts).toBe(2)
    expect(seen.view).toEqual(clean.view)
    expect(seen.answer).toEqual(clean.answer)
  })
})

describe.each(koas)('%s: what attempt 1 started', (_name, Koa) => {
  let served: TxServed
  afterEach(() => served.close())

  test('a stream that errors after it was discarded disturbs neither the answer nor the process', async () => {
    const streams: Readable[] = []
    const erred = deferred()
    served = await serveTx({
      Koa,
      below: async ctx => {
        if (ctx.tx.attempt === 1) {
          const stream = new Readable({
            read() {},
            autoDestroy: false,
            destroy: (_error, done) => done(null),
          })
          streams.push(stream)
          ctx.body = stream
          ctx.tx.conflict()
        }
        const [stream] = streams
        expect(stream?.destroyed).toBe(true)
        ctx.set('X-Attempt', '2')
        setImmediate(() => {
          stream?.emit('error', new Error('late'))
          stream?.emit('error', new Error('later still'))
          erred.resolve()
        })
        await erred.promise
        ctx.body = 'ok'
      },
    })
    const answer = await served.client().get()
    expect(answer).toMatchObject({ status: 200, text: 'ok', headers: { 'x-attempt': '2' } })
    expect(served.errors).toEqual([])
  })

  test('a callback of on-finished does not fire, the one of the committed attempt fires once', async () => {
    const fired: number[] = []
    const finished = deferred()
    served = await serveTx({
      Koa,
      below: ctx => {
        const { attempt } = ctx.tx
        onFinished(ctx.res, () => {
          fired.push(attempt)
          if (attempt === 3) finished.resolve()
        })
        if (attempt < 3) ctx.tx.conflict()
        ctx.body = 'ok'
      },
    })
    expect((await served.client().get()).text).toBe('ok')
    await finished.promise
    expect(fired).toEqual([3])
  })

  test('a cookie of attempt 1 is not sent, a cookie of attempt 2 is', async () => {
    served = await serveTx({
      Koa,
      below: ctx => {
        ctx.cookies.set(`attempt-${ctx.tx.attempt}`, 'x')
        if (ctx.tx.attempt === 1) ctx.tx.conflict()
        ctx.body = 'ok'
      },
    })
    const client = served.client()
    await client.get()
    expect([...client.cookies.keys()]).toEqual(['attempt-2'])
  })

  test('listeners do not pile up: their number is the same after 100 re-runs', async () => {
    const counts: unknown[] = []
    served = await serveTx({
      Koa,
      options: { retry: { retries: 100 } },
      below: ctx => {
        counts.push({ req: listeners(ctx.req), res: listeners(ctx.res) })
        for (const emitter of [ctx.req, ctx.res]) {
          emitter.on('close', () => {})
          emitter.on('error', () => {})
        }
        onFinished(ctx.res, () => {})
        // Made on first use: our own listeners must not be lost, nor added again.
        expect(ctx.tx.signal.aborted).toBe(false)
        if (!ctx.tx.isLastAttempt) ctx.tx.conflict()
        ctx.body = ctx.tx.attempt
      },
    })
    expect((await served.client().get()).text).toBe('101')
    expect(counts).toHaveLength(101)
    expect(new Set(counts.slice(1).map(count => JSON.stringify(count))).size).toBe(1)
    // Beyond a clean request there is only the one that watches the client.
    const { res: first } = counts[0] as { res: Record<string, number> }
    const { res: last } = counts[100] as { res: Record<string, number> }
    expect(last['close']).toBeLessThanOrEqual((first['close'] ?? 0) + 1)
  })
})
