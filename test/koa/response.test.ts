/** When the answer leaves, what a handler that writes to the socket itself gives up, and how errors reach the application. */
import { PassThrough, Readable } from 'node:stream'
import { createPool, type PoolOptions } from 'mysql2/promise'
import type { TwoPhaseResource } from '../../lib/index.js'
import {
  koas,
  serveTx,
  type TxContext,
  type TxMiddleware,
  type TxServed,
  type TxServing,
} from '../support/app.js'
import { Gate } from '../support/barrier.js'
import { openDatabase, type TestDatabase } from '../support/database.js'

let db: TestDatabase
const undo: (() => unknown)[] = []

beforeAll(async () => {
  db = await openDatabase()
  await db.pool.query('CREATE TABLE acc (id INT PRIMARY KEY, n INT NOT NULL) ENGINE=InnoDB')
})
afterAll(() => db.close())
afterEach(async () => {
  for (const one of undo.splice(0).reverse()) await one()
})

async function serving(given: TxServing): Promise<TxServed> {
  const served = await serveTx(given)
  undo.push(() => served.close())
  return served
}

/** Takes part in the commit and lets nobody past before `gate` is open. */
function slowToCommit(log: string[], gate: Gate): TwoPhaseResource {
  return {
    name: 'slow',
    phases: 2,
    prepare: () => void log.push('prepare'),
    commit: async () => {
      log.push('committing')
      await gate.passed()
      log.push('committed')
    },
    rollback: () => void log.push('rollback'),
  }
}

describe.each(koas)('%s: a streamed answer', (_name, Koa) => {
  test('leaves only after the commit, and only that of the attempt that committed', async () => {
    const log: string[] = []
    const [gate, committing] = [new Gate(), new Gate()]
    let response: TxContext['res'] | undefined
    const { client } = await serving({
      Koa,
      below: ctx => {
        const { attempt } = ctx.tx
        response = ctx.res
        let sent = false
        ctx.body = new Readable({
          read() {
            log.push(`read ${attempt}`)
            this.push(sent ? null : `stream ${attempt}`)
            sent = true
          },
        })
        if (attempt === 1) ctx.tx.conflict()
        ctx.tx.enlist(slowToCommit(log, gate))
        ctx.tx.beforeCommit(() => committing.open())
      },
    })
    const answered = client().get()
    await committing.passed()
    await new Promise(resolve => setImmediate(resolve))
    expect(log).toEqual(['prepare', 'committing'])
    expect(response?.headersSent).toBe(false)
    gate.open()
    expect((await answered).text).toBe('stream 2')
    expect(log.slice(0, 4)).toEqual(['prepare', 'committing', 'committed', 'read 2'])
    expect(log).not.toContain('read 1')
  })

  test('does not leave at all if the commit fails', async () => {
    const log: string[] = []
    const { client, errors } = await serving({
      Koa,
      below: ctx => {
        ctx.body = new PassThrough().end('secret')
        const failing = {
          ...slowToCommit(log, new Gate()),
          prepare: () => Promise.reject(new Error('cannot')),
        }
        ctx.tx.enlist(failing)
      },
    })
    expect(await client().get()).toMatchObject({ status: 500, text: 'Internal Server Error' })
    expect(errors).toEqual([new Error('cannot')])
  })

  /** As an error of the disk would: nobody has begun to read. */
  const breaking = (stream: Readable): Promise<void> =>
    new Promise(resolve => {
      stream.once('close', () => resolve())
      stream.destroy(Object.assign(new Error('no such file'), { code: 'ENOENT' }))
    })

  test('that fails before an attempt is run again disturbs neither the process nor the next attempt', async () => {
    const { client, errors, tx } = await serving({
      Koa,
      below: ctx => {
        const { attempt } = ctx.tx
        const stream = new Readable({ read() {} })
        ctx.body = attempt === 1 ? stream : 'good'
        ctx.tx.beforeCommit(async () => {
          if (attempt > 1) return
          await breaking(stream)
          ctx.tx.conflict()
        })
      },
    })
    expect(await client().get()).toMatchObject({ status: 200, text: 'good' })
    expect([errors, tx.stats().notRerunnable]).toEqual([[], {}])
  })

  test('that fails while the request is committed: the client gets no whole answer, the application its error', async () => {
    const { client, errors } = await serving({
      Koa,
      below: ctx => {
        ctx.session['n'] = 1
        const stream = new Readable({ read() {} })
        ctx.body = stream
        ctx.tx.beforeCommit(() => breaking(stream))
      },
    })
    const answer = await client()
      .get()
      .then(
        ({ status }) => status,
        (error: { code?: unknown }) => error.code,
      )
    // Koa 2 has the error before it has sent anything.
    expect([404, 'ECONNRESET']).toContain(answer)
    // Koa 3 tells of it twice: the stream has failed, and the response with it.
    expect(new Set(errors.map(error => (error as Error).message))).toEqual(new Set(['no such file']))
  })

  test('made of the session is read after the commit', async () => {
    const { client } = await serving({
      Koa,
      below: ctx => {
        ctx.session['basket'] = { apples: [1, 2] }
        if (ctx.path === '/stream') ctx.body = Readable.from([JSON.stringify(ctx.session['basket'])])
        else if (ctx.path === '/session') ctx.body = ctx.session
        else
          ctx.body = {
            nested: ctx.session['basket'],
            again: (ctx.session['basket'] as { apples: number[] }).apples,
          }
      },
    })
    expect((await client().get('/stream')).json()).toEqual({ apples: [1, 2] })
    expect((await client().get('/session')).json()).toEqual({ basket: { apples: [1, 2] } })
    expect((await client().get('/')).json()).toEqual({ nested: { apples: [1, 2] }, again: [1, 2] })
  })
})

describe.each(koas)('%s: a handler that wrote to the response itself', (_name, Koa) => {
  const writers: readonly (readonly [string, (ctx: TxContext) => unknown])[] = [
    ['res.write', ctx => ctx.res.write('a')],
    ['res.writeHead', ctx => ctx.res.writeHead(200)],
    ['res.flushHeaders', ctx => ctx.flushHeaders()],
    [
      'res.end, with ctx.respond = false',
      ctx => {
        ctx.respond = false
        ctx.res.end('a')
      },
    ],
  ]

  test.each(writers)('%s: commits as usual, and is counted as not re-runnable', async (_what, write) => {
    const { client, tx, errors } = await serving({
      Koa,
      below: ctx => {
        ctx.session['visits'] = 1
        ctx.status = 200
        write(ctx)
        if (!ctx.res.writableEnded) ctx.res.end('z')
        ctx.respond = false
      },
    })
    expect((await client().get()).status).toBe(200)
    expect(errors).toEqual([])
    expect(tx.stats()).toMatchObject({
      requests: { committed: 1 },
      notRerunnable: { responseStarted: 1 },
      sessions: { live: 1 },
    })
  })

  test.each(writers)(
    '%s, then loses a race: RESPONSE_STARTED, it is not run again, and nothing is stored',
    async (_what, write) => {
      let ran = 0
      const seen: unknown[] = []
      const { client, tx } = await serving({
        Koa,
        above: [
          async (ctx, next) => {
            await next().catch((error: unknown) => seen.push(error))
            if (!ctx.res.writableEnded) ctx.res.end()
            ctx.respond = false
          },
        ],
        below: ctx => {
          ran += 1
          ctx.session['visits'] = 1
          write(ctx)
          ctx.tx.conflict('too late')
        },
      })
      await client().get()
      expect(ran).toBe(1)
      expect(seen).toEqual([
        expect.objectContaining({
          code: 'RESPONSE_STARTED',
          cause: expect.objectContaining({ code: 'CONFLICT' }) as unknown,
        }),
      ])
      expect(tx.stats()).toMatchObject({
        refused: { RESPONSE_STARTED: 1 },
        notRerunnable: { responseStarted: 1 },
        sessions: { live: 0 },
      })
    },
  )
})

describe.each(koas)('%s: error middleware above', (_name, Koa) => {
  test('sees the final error once, and its own rendering is the answer', async () => {
    const seen: unknown[] = []
    let ran = 0
    const rendering: TxMiddleware = async (ctx, next) => {
      try {
        await next()
      } catch (error) {
        const { code, headers, status, expose } = error as {
          code: string
          headers: Record<string, string>
          status: number
          expose: boolean
        }
        seen.push([code, status, expose])
        ctx.status = status
        ctx.set(headers)
        ctx.body = 'Busy, please try again.'
      }
    }
    const { client, errors } = await serving({
      Koa,
      options: { retry: { retries: 2 } },
      above: [rendering],
      below: ctx => {
        ran += 1
        ctx.set('X-Dirty', 'yes')
        ctx.body = 'a draft'
        ctx.tx.conflict()
      },
    })
    const answer = await client().get()
    expect(answer).toMatchObject({ status: 503, text: 'Busy, please try again.' })
    expect(Number(answer.headers['retry-after'])).toBeGreaterThanOrEqual(1)
    expect(ran).toBe(3)
    expect(seen).toEqual([['RETRIES_EXHAUSTED', 503, false]])
    expect(errors).toEqual([])
  })

  test('without any, Koa answers 503 with Retry-After and tells the application once; no name or value gets out', async () => {
    const { client, errors } = await serving({
      Koa,
      below: ctx => {
        ctx.session['secretVariable'] = 'secret value'
        ctx.tx.conflict('secret reason')
      },
    })
    const answer = await client().get()
    expect(answer).toMatchObject({ status: 503, text: 'Service Unavailable' })
    expect(answer.headers['retry-after']).toBe('1')
    expect(answer.headers['set-cookie']).toBeUndefined()
    expect(errors).toHaveLength(1)
  })

  test('below session-tx it may answer for its own errors, but not for a lost race', async () => {
    const caught: unknown[] = []
    const { client } = await serving({
      Koa,
      below: [
        async (ctx, next) => {
          try {
            await next()
          } catch (error) {
            caught.push((error as { code?: string }).code)
            ctx.status = 200
            ctx.body = 'rendered below'
          }
        },
        ctx => {
          if (ctx.tx.attempt === 1) ctx.tx.conflict()
          ctx.body = 'ok'
        },
      ],
    })
    expect((await client().get()).text).toBe('ok')
    expect(caught).toEqual(['CONFLICT'])
  })
})

describe("the driver's own errors come through once:", () => {
  async function failing(options: PoolOptions, runs = 1, sql = 'SELECT 1') {
    const pool = createPool({ uri: db.url, connectionLimit: 1, ...options })
    undo.push(() => pool.end())
    let ran = 0
    const { client, errors, tx } = await serving({
      options: { pool },
      below: async ctx => {
        ran += 1
        ctx.session['visits'] = 1
        const [rows] = await ctx.tx.query(sql)
        ctx.body = rows
      },
    })
    const { status } = await client().get()
    const { sessions, retried } = tx.stats()
    expect({ ran, live: sessions.live, retried }).toEqual({ ran: runs, live: 0, retried: runs - 1 })
    expect(errors).toHaveLength(1)
    return { status, error: errors[0] }
  }

  function at(change: (url: URL) => void): PoolOptions {
    const url = new URL(db.url)
    change(url)
    return { uri: url.href }
  }

  test('1146, a missing table', async () => {
    const { status, error } = await failing({}, 1, 'SELECT * FROM nowhere')
    expect(status).toBe(500)
    expect(error).toMatchObject({ errno: 1146, code: 'ER_NO_SUCH_TABLE' })
  })

  test('1064, a syntax error', async () => {
    const { status, error } = await failing({}, 1, 'SELEKT 1')
    expect(status).toBe(500)
    expect(error).toMatchObject({ errno: 1064 })
  })

  test('1045, wrong credentials', async () => {
    const user = `u${db.name.slice(2)}`
    await db.admin.query(`CREATE USER ${user} IDENTIFIED BY 'right'`)
    undo.push(() => db.admin.query(`DROP USER ${user}`))
    const { status, error } = await failing(
      at(url => {
        url.username = user
        url.password = 'wrong'
      }),
    )
    expect(status).toBe(500)
    expect(error).toMatchObject({ errno: 1045 })
  })

  test('1049, an unknown database', async () => {
    const { status, error } = await failing(at(url => (url.pathname = '/nowhere_at_all')))
    expect(status).toBe(500)
    expect(error).toMatchObject({ errno: 1049 })
  })

  test("no server at all is looked for again, then 503 STORE_UNAVAILABLE, with the driver's error as cause", async () => {
    const { status, error } = await failing(
      at(url => (url.port = '1')),
      4,
    )
    expect(status).toBe(503)
    expect(error).toMatchObject({ code: 'STORE_UNAVAILABLE', cause: { code: 'ECONNREFUSED' } })
  })

  test('without a pool, ctx.tx.query is MISCONFIGURED and says what is missing', async () => {
    const { client, errors } = await serving({ below: ctx => ctx.tx.query('SELECT 1') })
    expect((await client().get()).status).toBe(500)
    expect(errors).toEqual([
      expect.objectContaining({ code: 'MISCONFIGURED', message: expect.stringContaining('pool') as string }),
    ])
  })
})
