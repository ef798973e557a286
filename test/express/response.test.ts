/**
 * The answer of a handler is held until the commit, and then leaves as it would have without us: byte for byte, status
 * line, headers and body, with compression, on-headers and on-finished above and below; also when an attempt before it
 * had answered and lost.
 */
import compression from 'compression'
import type { Express, Request, RequestHandler, Response } from 'express'
import { mkdtempSync, rmSync, utimesSync, writeFileSync } from 'node:fs'
import { connect } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { PassThrough, Readable } from 'node:stream'
import { pipeline } from 'node:stream/promises'
import onFinished from 'on-finished'
import onHeaders from 'on-headers'
import { sessionTx, type SessionTx } from '../../lib/express.js'
import { serve, type Served } from '../support/app.js'
import { deferred, Gate } from '../support/barrier.js'
import { bytesOf } from '../support/bytes.js'
import { promptly } from '../support/clock.js'
import {
  answeringErrors,
  type ExpressServed,
  type ExpressServing,
  expresses,
  serveExpress,
} from '../support/express-app.js'

const LONG = 'All work and no play makes Jack a dull boy.\n'.repeat(100)

let folder: string
let file: string
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), 'session-tx-'))
  file = join(folder, 'page.txt')
  writeFileSync(file, LONG)
  utimesSync(file, 1_000_000, 1_000_000)
  writeFileSync(join(folder, 'page.view'), 'Hello, NAME.')
})
afterAll(() => rmSync(folder, { recursive: true, force: true }))

type Answering = (req: Request, res: Response) => unknown

const answers: Readonly<Record<string, Answering>> = {
  'send(text)': (_req, res) => res.send('hello'),
  'send(long text)': (_req, res) => res.send(LONG),
  'send(buffer)': (_req, res) => res.send(Buffer.from(LONG)),
  'send(object)': (_req, res) => res.send({ hello: 'world' }),
  'send() of nothing': (_req, res) => res.send(),
  'send(empty text)': (_req, res) => res.send(''),
  'status and send': (_req, res) => res.status(201).send('made'),
  sendStatus: (_req, res) => res.sendStatus(404),
  '204': (_req, res) => res.status(204).end(),
  '204 with a body that must not be sent': (_req, res) => res.status(204).send('nothing of this'),
  '304': (_req, res) => res.status(304).end(),
  json: (_req, res) => res.json({ numbers: [1, 2, 3], text: LONG }),
  jsonp: (_req, res) => res.jsonp({ a: 1 }),
  redirect: (_req, res) => res.redirect('/elsewhere'),
  'redirect with a status': (_req, res) => res.redirect(301, '/elsewhere?a=ü'),
  cookies: (_req, res) =>
    res.cookie('a', '1').cookie('b', '2', { httpOnly: true }).clearCookie('c').send('ok'),
  headers: (_req, res) =>
    res
      .set({ 'X-One': '1', 'X-Two': ['2', 'zwei'] })
      .append('X-Two', 'deux')
      .vary('Cookie')
      .send('ok'),
  'removed headers': (_req, res) => {
    for (const name of ['X-Powered-By', 'Date', 'Connection']) res.removeHeader(name)
    res.send('ok')
  },
  format: (_req, res) =>
    res.format({ 'text/plain': () => res.send('text'), 'text/html': () => res.send('<b>html</b>') }),
  attachment: (_req, res) => res.attachment('a.txt').send('ok'),
  sendFile: (_req, res) => res.sendFile(file),
  'sendFile with a callback': (_req, res) =>
    res.sendFile(file, { maxAge: 1000, headers: { 'X-File': '1' } }, () => {}),
  download: (_req, res) => res.download(file, 'other.txt'),
  render: (_req, res) => res.render('page', { name: 'Ann' }),
  'render with a callback': (_req, res) =>
    res.render('page', { name: 'Ann' }, (_error, html) => void res.status(202).send(html)),
  'end(text)': (_req, res) => res.end('hello'),
  'end(text, encoding)': (_req, res) => res.end('68656c6c6f', 'hex'),
  'end() of nothing': (_req, res) => res.end(),
  'end(bytes)': (_req, res) => res.end(new Uint8Array([104, 105])),
  'write and end': (_req, res) => {
    res.write('one, ')
    res.write(Buffer.from('two, '))
    res.end('three')
  },
  'write and end, over several turns': async (_req, res) => {
    for (let part = 0; part < 5; part++) {
      res.write(`${part} ${LONG}`)
      await new Promise(resolve => setImmediate(resolve))
    }
    res.end()
  },
  'write with an encoding and a callback': (_req, res) => {
    // Compression forgets the callback, with us or without.
    res.write('aGVsbG8=', 'base64', () => {})
    res.end('!')
  },
  'write of memory that is used again after its callback': (_req, res) => {
    const memory = Buffer.from('first ')
    res.write(memory, () => memory.fill('x'))
    setImmediate(() => res.end('last'))
  },
  'end with a Content-Length': (_req, res) => {
    res.setHeader('Content-Length', 5)
    res.write('he')
    res.end('llo')
  },
  'writeHead and end': (_req, res) => res.writeHead(202, { 'X-Head': 'yes' }).end('hello'),
  'writeHead with a message': (_req, res) =>
    res.writeHead(200, 'Fine', { 'Content-Type': 'text/x' }).end('hello'),
  'writeHead with pairs': (_req, res) => res.writeHead(200, ['X-A', '1', 'X-B', '2']).end('hello'),
  'writeHead that sets a cookie': (_req, res) =>
    res.writeHead(200, { 'Set-Cookie': ['a=1', 'b=2'] }).end('hello'),
  'writeHead over headers that were set': (_req, res) => {
    res.setHeader('X-A', 'before')
    res.writeHead(200, { 'x-a': 'after', 'X-B': '2' })
    res.end('hello')
  },
  'a status message': (_req, res) => {
    res.statusMessage = 'As You Like It'
    res.end('hello')
  },
  'a status that is changed when it is too late': (_req, res) => {
    res.write('hello')
    res.statusCode = 500
    res.end()
  },
  trailers: (req, res) => {
    if (req.method === 'HEAD' || req.httpVersion === '1.0') return void res.end()
    res.setHeader('Trailer', 'X-Sum')
    res.write('hello')
    res.addTrailers({ 'X-Sum': '532' })
    res.end()
  },
  pipe: (_req, res) => Readable.from(['one ', 'two ', LONG]).pipe(res),
  'pipe of a slow stream': (_req, res) => {
    const slow = new PassThrough()
    slow.pipe(res)
    slow.write('one ')
    setImmediate(() => slow.end('two'))
  },
  pipeline: (_req, res) => pipeline(Readable.from([LONG, LONG]), res),
  'headers that are asked for too late': (_req, res) => {
    const seen: unknown[] = []
    res.write('a')
    for (const act of [
      () => res.setHeader('X-Late', '1'),
      () => res.removeHeader('X-Powered-By'),
      () => res.writeHead(500),
      () => res.appendHeader('X-Late', '1'),
    ]) {
      try {
        act()
        seen.push('taken')
      } catch (error) {
        seen.push((error as { code?: string }).code, (error as Error).message)
      }
    }
    seen.push(res.headersSent, res.writableEnded, res.writableFinished)
    res.end(JSON.stringify(seen))
  },
  'the state of the response after its end': (_req, res) => {
    res.setHeader('Content-Length', 40)
    res.write('x'.repeat(20))
    res.end('y'.repeat(20))
    const seen = [res.headersSent, res.writableEnded, res.finished]
    if (seen.includes(false)) throw new Error(`not ended: ${String(seen)}`)
  },
  'nothing: not found': (_req, res) => res.req.next?.(),
}

/** Not with neighbours: those above us that wait for the head are not told of one that is refused. */
const refused: Readonly<Record<string, Answering>> = {
  'what is wrong is refused in the words of Node': (_req, res) => {
    const seen: unknown[] = []
    for (const act of [
      () => res.writeHead(42),
      () => res.writeHead(200, 'bad\nmessage'),
      () => res.writeHead(200, { 'X-Bad': 'a\nb' }),
      () => res.write(null as never),
      () => res.write(5 as never),
      () => res.end(5 as never),
    ]) {
      try {
        act()
        seen.push('taken')
      } catch (error) {
        seen.push((error as { code?: string }).code, (error as Error).message)
      }
    }
    seen.push(res.headersSent, res.statusCode, res.statusMessage)
    res.statusMessage = 'OK'
    res.end(JSON.stringify(seen))
  },
}

/** What a client could send; `Accept-Encoding` makes compression work. */
const requests: Readonly<Record<string, string>> = {
  GET: 'GET /?callback=cb HTTP/1.1',
  'GET, compressed': 'GET /?callback=cb HTTP/1.1\r\nAccept-Encoding: gzip',
  HEAD: 'HEAD / HTTP/1.1',
  'GET of a range': 'GET / HTTP/1.1\r\nRange: bytes=5-20',
  'GET of what is known': `GET / HTTP/1.1\r\nIf-Modified-Since: ${new Date(2_000_000_000_000).toUTCString()}`,
  'GET by HTTP/1.0': 'GET / HTTP/1.0',
}

type Mount = (app: Express, tx: RequestHandler) => void

const noting: RequestHandler = (_req, res, next) => {
  onHeaders(res, function noteHeaders(this: Response) {
    this.setHeader('X-On-Headers', `${String(this.getHeader('X-On-Headers') ?? '')}${this.statusCode};`)
  })
  onFinished(res, () => {})
  next()
}
const placements: Readonly<Record<string, Mount>> = {
  'nothing else': (app, tx) => app.use(tx),
  'compression above': (app, tx) => app.use(compression({ threshold: 0 }), tx),
  'compression below': (app, tx) => app.use(tx, compression({ threshold: 0 })),
  'on-headers and on-finished above': (app, tx) => app.use(noting, tx),
  'on-headers and on-finished below': (app, tx) => app.use(tx, noting),
  'all of them above and below': (app, tx) => app.use(noting, compression(), tx, noting, compression()),
}

describe.each(expresses)('%s', (_name, express) => {
  describe.each(Object.entries(placements))('with %s, byte for byte:', (placed, mount) => {
    let running: Served[]
    let txs: SessionTx[]
    let now: Answering
    let urls: { readonly plain: string; readonly once: string; readonly again: string }

    async function build(tx: RequestHandler, handler: RequestHandler): Promise<string> {
      const app = express()
      app.set('views', folder)
      app.engine('view', (_path, given, done) => done(null, `Hello, ${(given as { name: string }).name}.`))
      app.set('view engine', 'view')
      mount(app, tx)
      app.use(handler)
      const served = await serve(app)
      running.push(served)
      return served.url
    }

    beforeAll(async () => {
      running = []
      // Every request of the second one runs again, and without a pause.
      const options = { retry: { budget: false } } as const
      txs = [sessionTx(options, promptly), sessionTx(options, promptly)]
      const [once, again] = txs as [SessionTx, SessionTx]
      urls = {
        plain: await build(
          (_req, _res, next) => next(),
          (req, res) => now(req, res),
        ),
        once: await build(once, (req, res) => now(req, res)),
        again: await build(again, async (req, res) => {
          if (req.tx.attempt === 1) {
            try {
              req.tx.conflict()
            } catch {}
            res.setHeader('X-Dirty', 'yes')
          }
          return now(req, res)
        }),
      }
    })
    afterAll(async () => {
      for (const { close } of running) await close()
      for (const tx of txs) await tx.close()
    })

    test.each(Object.entries(placed === 'nothing else' ? { ...answers, ...refused } : answers))(
      '%s',
      async (_answer, answering) => {
        now = answering
        for (const head of Object.values(requests)) {
          const expected = await bytesOf(urls.plain, head)
          expect(expected).toMatch(/^HTTP\/1\.1 \d{3} /)
          expect([head, await bytesOf(urls.once, head)]).toEqual([head, expected])
          expect([head, await bytesOf(urls.again, head)]).toEqual([head, expected])
        }
      },
    )
  })
})

describe.each(expresses)('%s: an answer that is held', (_name, express) => {
  let served: ExpressServed
  afterEach(() => served.close())

  async function serving(given: Omit<ExpressServing, 'express'>): Promise<ExpressServed> {
    served = await serveExpress({ express, ...given })
    return served
  }

  test('a stream leaves only after the commit', async () => {
    const log: string[] = []
    const { client, tx } = await serving({
      above: [
        (_req, res, next) => {
          const { write } = res
          res.write = ((...args: Parameters<typeof write>) => {
            log.push('bytes leave')
            return write.apply(res, args)
          }) as typeof write
          next()
        },
      ],
      below: (req, res) => {
        req.session['a'] = 1
        Readable.from(['one']).pipe(res)
      },
    })
    tx.on('commit', () => log.push('committed'))
    expect((await client().get()).text).toBe('one')
    expect(log).toEqual(['committed', 'bytes leave'])
  })

  test('the cookie of the session goes with it, whatever it was answered by', async () => {
    const { client } = await serving({
      options: { hold: { responseBytesMax: 10 } },
      below: (req, res) => {
        req.session['a'] = 1
        switch (req.path) {
          case '/head':
            return res.writeHead(200, { 'Set-Cookie': 'own=1', 'X-Own': '1' }).end('ok')
          case '/cookie':
            return res.cookie('own', '1').send('ok')
          case '/large':
            return res.cookie('own', '1').send('x'.repeat(100))
          case '/flush':
            res.cookie('own', '1').flushHeaders()
            return res.end('ok')
          default:
            return res.cookie('own', '1').redirect('/elsewhere')
        }
      },
    })
    for (const path of ['/head', '/cookie', '/large', '/flush', '/redirect']) {
      const visitor = client()
      await visitor.get(path)
      expect([path, [...visitor.cookies.keys()].sort()]).toEqual([path, ['own', 'sid']])
    }
  })

  test('larger than hold.responseBytesMax: committed where the limit is reached, and all of it arrives', async () => {
    const log: string[] = []
    const { client, tx } = await serving({
      options: { hold: { responseBytesMax: 10_000 } },
      below: async (req, res) => {
        req.session['a'] = 1
        await pipeline(
          Readable.from(
            (async function* parts() {
              for (let part = 0; part < 50; part++) {
                await new Promise(resolve => setImmediate(resolve))
                yield 'x'.repeat(1_000)
              }
              log.push('all is written')
            })(),
          ),
          res,
        )
      },
    })
    tx.on('commit', () => log.push('committed'))
    expect((await client().get()).text).toBe('x'.repeat(50_000))
    expect(log).toEqual(['committed', 'all is written'])
    expect(tx.stats()).toMatchObject({ notRerunnable: { responseBytes: 1 }, sessions: { live: 1 } })
  })

  test('an event stream is committed with its first event, and goes on', async () => {
    const received = new Gate()
    const { client, tx } = await serving({
      below: async (req, res) => {
        req.session['a'] = 1
        res.set('Content-Type', 'text/event-stream').write('data: 1\n\n')
        await received.passed()
        res.end('data: 2\n\n')
      },
    })
    const committed = deferred()
    tx.on('commit', () => committed.resolve())
    const { answer, request } = client().start('GET', '/')
    request.on('response', response => response.once('data', () => received.open()))
    await committed.promise
    expect((await answer).text).toBe('data: 1\n\ndata: 2\n\n')
    expect(tx.stats()).toMatchObject({ notRerunnable: { eventStream: 1 } })
  })

  test('events that are followed by a commit that fails: the client gets the error, nothing of them', async () => {
    const { client, tx, errors } = await serving({
      below: (req, res) => {
        try {
          req.tx.conflict()
        } catch {}
        res.writeHead(200, { 'Content-Type': 'text/event-stream' })
        res.write('data: 1\n\n')
      },
    })
    expect(await client().get()).toMatchObject({ status: 503, text: 'error 503' })
    expect(errors).toEqual([expect.objectContaining({ code: 'NOT_RERUNNABLE' })])
    expect(tx.stats()).toMatchObject({ refused: { NOT_RERUNNABLE: 1 } })
  })

  test('a handler that destroys the response stores nothing, and calls no error middleware', async () => {
    const { client, tx, errors } = await serving({
      below: (req, res) => {
        req.session['a'] = 1
        res.destroy()
      },
    })
    const rolledBack = deferred()
    tx.on('rollback', () => rolledBack.resolve())
    await expect(client().get()).rejects.toMatchObject({ code: 'ECONNRESET' })
    await rolledBack.promise
    expect(errors).toEqual([])
    expect(tx.stats().sessions.live).toBe(0)
  })

  test('a stream that fails in a pipeline: nothing is stored', async () => {
    const { client, tx } = await serving({
      below: (req, res) => {
        req.session['a'] = 1
        const failing = new Readable({
          read() {
            this.push('one')
            this.destroy(new Error('the disk'))
          },
        })
        pipeline(failing, res).catch(() => {})
      },
    })
    const rolledBack = deferred()
    tx.on('rollback', () => rolledBack.resolve())
    await expect(client().get()).rejects.toMatchObject({ code: 'ECONNRESET' })
    await rolledBack.promise
    expect(tx.stats().sessions.live).toBe(0)
  })

  test('a client that went away before the end of a large answer disturbs nobody', async () => {
    const closed = deferred()
    const { client, tx } = await serving({
      options: { hold: { responseBytesMax: 1_000 } },
      below: (req, res) => {
        req.session['a'] = 1
        res.on('close', () => closed.resolve())
        new Readable({
          read() {
            this.push('x'.repeat(10_000))
          },
        }).pipe(res)
      },
    })
    const { answer, request, leave } = client().start('GET', '/')
    request.on('response', response => response.once('data', () => leave()))
    await expect(answer).rejects.toThrow('the client went away')
    await closed.promise
    expect(tx.stats()).toMatchObject({ requests: { committed: 1 } })
  })

  test('on-finished and finish fire once, after the commit', async () => {
    const log: string[] = []
    const finished = deferred()
    const { client, tx } = await serving({
      above: [
        (_req, res, next) => {
          onFinished(res, () => log.push('above'))
          next()
        },
      ],
      below: (req, res) => {
        const { attempt } = req.tx
        onFinished(res, () => log.push(`below ${attempt}`))
        res.on('finish', () => {
          log.push(`finish ${attempt}`)
          finished.resolve()
        })
        res.end('ok', () => log.push(`end ${attempt}`))
        if (attempt === 1) {
          try {
            req.tx.conflict()
          } catch {}
        }
      },
    })
    tx.on('commit', () => log.push('committed'))
    await client().get()
    await finished.promise
    expect(log[0]).toBe('committed')
    expect(log.slice(1).sort()).toEqual(['above', 'below 2', 'end 2', 'finish 2'])
  })

  test('two answers on one connection, one after the other', async () => {
    const app = express()
    const tx = sessionTx({}, promptly)
    const errors: unknown[] = []
    app.use(tx).use((req, res) => {
      if (req.tx.attempt === 1) req.tx.conflict()
      res.send(req.url)
    })
    app.use(answeringErrors(errors))
    const plain = await serve(app)
    served = { ...plain, app, tx, errors, close: () => plain.close().then(() => tx.close()) }
    const { port } = new URL(plain.url)
    const text = await new Promise<string>((resolve, reject) => {
      let got = ''
      const socket = connect(Number(port), '127.0.0.1')
      socket.on('data', (chunk: Buffer) => (got += chunk.toString()))
      socket.on('error', reject)
      socket.on('close', () => resolve(got))
      // Both at once: the second is answered on a response that has no socket yet.
      socket.write(
        'GET /1 HTTP/1.1\r\nHost: a\r\n\r\nGET /2 HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n',
      )
    })
    expect(text.match(/\r\n\r\n\/\d/g)).toEqual(['\r\n\r\n/1', '\r\n\r\n/2'])
    expect(errors).toEqual([])
    expect(tx.stats().attempts).toEqual({ 2: 2 })
  })
})
