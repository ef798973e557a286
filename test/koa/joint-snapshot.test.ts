/**
 * No request sees one side before a joint commit and the other side after it (acceptance 31). First what the server
 * does, then the rules of lib/joint/snapshot.ts one by one with everything in a fixed order, then every shape of reader
 * against writers that never stop.
 */
import mysql, { type Connection, type RowDataPacket } from 'mysql2/promise'
import { mysqlStore, type SessionStore, type TwoPhaseResource } from '../../lib/index.js'
import { sessionTables } from '../../lib/store/mysql-tables.js'
import { serveTx, type TxContext, type TxServed } from '../support/app.js'
import { type Deferred, deferred, Gate } from '../support/barrier.js'
import type { Answer, Client } from '../support/client.js'
import { openDatabase, type TestDatabase } from '../support/database.js'

type Handler = (ctx: TxContext) => Promise<unknown>
interface NumberRow extends RowDataPacket {
  readonly n: number
}

let database: TestDatabase
let served: TxServed
let writer: Client
let reader: Client
const handlers = new Map<string, Handler>()

function serveFrom(store: SessionStore | undefined): Promise<TxServed> {
  return serveTx({
    options: {
      pool: database.pool,
      retry: { retries: ctx => Number(ctx.req.headers['x-retries'] ?? 5) },
      ...(store === undefined ? {} : { store }),
    },
    below: async ctx => {
      ctx.body = { seen: await handlers.get(ctx.path.slice(1))?.(ctx), attempt: ctx.tx.attempt }
    },
  })
}

beforeAll(async () => {
  database = await openDatabase({ connectionLimit: 24 })
  const { pool } = database
  for (const table of ['pair', 'own', 'watched', 'copied']) {
    await pool.query(`CREATE TABLE ${table} (id INT PRIMARY KEY, n INT NOT NULL) ENGINE=InnoDB`)
    await pool.query(`INSERT INTO ${table} SELECT seq, 0 FROM seq_1_to_20`)
  }
  await pool.query(`CREATE TRIGGER looks BEFORE UPDATE ON watched FOR EACH ROW
    BEGIN DECLARE seen INT; SELECT n INTO seen FROM pair WHERE id = 1; SET NEW.n = NEW.n + seen; END`)
  await pool.query(`CREATE FUNCTION peek() RETURNS INT READS SQL DATA
    BEGIN DECLARE seen INT; SELECT n INTO seen FROM pair WHERE id = 1; RETURN seen; END`)
  served = await serveFrom(undefined)
  handlers.set('write', write)
  handlers.set('start', async ctx => {
    ctx.session['n'] = 0
    ctx.session['other'] = 0
    await ctx.tx.query('UPDATE pair SET n = 0')
  })
})

afterAll(async () => {
  await served.close()
  await database.close()
})

beforeEach(async () => {
  writer = served.client()
  expect((await writer.post('/start')).status).toBe(200)
  reader = served.client()
  for (const [name, value] of writer.cookies) reader.cookies.set(name, value)
})

/** The one writer: variable and row are equal whenever it has committed. */
async function write(ctx: TxContext): Promise<void> {
  const next = Number(ctx.session['n']) + 1
  ctx.session['n'] = next
  await ctx.tx.query('UPDATE pair SET n = ? WHERE id = 1', [next])
}

const session = (ctx: TxContext): number => Number(ctx.session['n'])

async function row(ctx: TxContext): Promise<number> {
  const [rows] = await ctx.tx.query<NumberRow[]>('SELECT n FROM pair WHERE id = 1')
  return rows[0]?.n ?? -1
}

/** Makes `/slow-write` a writer that stops between COMMIT and the install of its session. */
function slowWriter(): { readonly committed: Deferred<void>; readonly install: Gate } {
  const committed = deferred()
  const install = new Gate()
  const slowInstall: TwoPhaseResource = {
    name: 'slow install',
    phases: 2,
    prepare: () => {},
    commit: () => {
      committed.resolve()
      return install.passed()
    },
    rollback: () => {},
  }
  handlers.set('slow-write', ctx => {
    ctx.tx.enlist(slowInstall)
    return write(ctx)
  })
  return { committed, install }
}

async function commitOnce(): Promise<void> {
  expect((await writer.post('/write')).status).toBe(200)
}

interface Seen {
  readonly seen: { readonly session: number; readonly row: number }
  readonly attempt: number
}

/** What the handler saw in the attempt that was answered. */
function seenIn(answer: Answer): Seen {
  expect(answer.status).toBe(200)
  return answer.json<Seen>()
}

/** Runs a reader that stops at `pause` in its first attempt, and lets the writer commit there. */
async function interleaved(
  body: (ctx: TxContext, pause: () => Promise<void>) => Promise<{ session: number; row: number }>,
  sending: { readonly headers?: Record<string, string> } = {},
): Promise<Seen> {
  const reached = deferred()
  const go = new Gate()
  handlers.set('read', ctx =>
    body(ctx, async () => {
      if (ctx.tx.attempt > 1) return
      reached.resolve()
      await go.passed()
    }),
  )
  const answer = reader.get('/read', sending)
  await reached.promise
  await commitOnce()
  go.open()
  return seenIn(await answer)
}

describe('the server', () => {
  let one: Connection
  let two: Connection

  beforeAll(async () => {
    one = await mysql.createConnection(database.url)
    two = await mysql.createConnection(database.url)
    await one.query('SET autocommit = 0, SESSION innodb_snapshot_isolation = ON')
  })
  afterAll(async () => {
    await one.end()
    await two.end()
  })

  /** Whether the transaction still sees the state before a commit that came after the statement. */
  async function opensView(sql: string): Promise<boolean> {
    await two.query('UPDATE pair SET n = 0')
    await one.query('ROLLBACK')
    await one.query(sql)
    await two.query('UPDATE pair SET n = 7 WHERE id = 20')
    const [rows] = await one.query<NumberRow[]>('SELECT n FROM pair WHERE id = 20')
    await one.query('ROLLBACK')
    return rows[0]?.n === 0
  }

  test.each(['START TRANSACTION WITH CONSISTENT SNAPSHOT', 'SELECT n FROM own WHERE id = 1'])(
    'opens its view for certain with %s',
    async sql => {
      expect(await opensView(sql)).toBe(true)
    },
  )

  // Why nothing but a plain SELECT with a row in it is trusted, in either direction.
  test.each([
    ['an UPDATE', 'UPDATE own SET n = 1 WHERE id = 1', false],
    ['an UPDATE with a trigger that reads', 'UPDATE watched SET n = 1 WHERE id = 1', true],
    ['an UPDATE with a function that reads', 'UPDATE own SET n = peek() WHERE id = 1', true],
    ['an INSERT', 'INSERT INTO copied VALUES (100, 1)', false],
    ['an INSERT with a function that reads', 'INSERT INTO copied VALUES (100, peek())', true],
    ['a locking SELECT', 'SELECT n FROM own WHERE id = 1 FOR UPDATE', false],
    [
      'a locking SELECT with a subquery',
      'SELECT (SELECT n FROM pair WHERE id = 1) FROM own WHERE id = 1 FOR UPDATE',
      true,
    ],
    ['a locking SELECT with a function that reads', 'SELECT peek() FROM own WHERE id = 1 FOR UPDATE', true],
    ['a SELECT of no table', 'SELECT 1', false],
    ['a SELECT that cannot match', 'SELECT n FROM own WHERE 1 = 0', false],
    ['a SELECT that matches nothing', 'SELECT n FROM own WHERE id = 999', true],
  ])('with %s, opens it or not: %s → %s', async (_, sql, opens) => {
    expect(await opensView(sql)).toBe(opens)
  })
})

describe('rule 1: the session is seen as of the moment at which the first statement is sent', () => {
  test('not as of the start of the request', async () => {
    const found = await interleaved(async (ctx, pause) => {
      await pause()
      return { row: await row(ctx), session: session(ctx) }
    })
    expect(found).toEqual({ seen: { session: 1, row: 1 }, attempt: 1 })
  })

  test('also where another variable was read before', async () => {
    const found = await interleaved(async (ctx, pause) => {
      expect(ctx.session['other']).toBe(0)
      await pause()
      return { row: await row(ctx), session: session(ctx) }
    })
    expect(found).toEqual({ seen: { session: 1, row: 1 }, attempt: 1 })
  })

  test('a variable that was read before and has changed since: run again', async () => {
    const found = await interleaved(async (ctx, pause) => {
      const before = session(ctx)
      await pause()
      return { row: await row(ctx), session: before }
    })
    expect(found).toEqual({ seen: { session: 1, row: 1 }, attempt: 2 })
  })

  test('not as of the sending of a later statement', async () => {
    const found = await interleaved(async (ctx, pause) => {
      const before = await row(ctx)
      await pause()
      await ctx.tx.query('SELECT n FROM own WHERE id = 1')
      return { row: before, session: session(ctx) }
    })
    expect(found).toEqual({ seen: { session: 0, row: 0 }, attempt: 1 })
  })
})

describe('rule 2: until the view is known to be open', () => {
  test.each([
    ['SELECT 1', 'SELECT 1'],
    ['an UPDATE whose trigger has opened the view', 'UPDATE watched SET n = 1 WHERE id = 1'],
    ['an UPDATE whose function has opened the view', 'UPDATE own SET n = peek() WHERE id = 1'],
    [
      'a locking SELECT whose subquery has opened the view',
      'SELECT (SELECT n FROM pair WHERE id = 2) FROM own WHERE id = 1 FOR UPDATE',
    ],
    ['a SELECT that found nothing', 'SELECT n FROM own WHERE id = 999'],
  ])('%s first, a commit, then the row and the session: equal', async (_, sql) => {
    const found = await interleaved(async (ctx, pause) => {
      await ctx.tx.query(sql)
      await pause()
      return { row: await row(ctx), session: session(ctx) }
    })
    expect(found).toEqual({ seen: { session: 1, row: 1 }, attempt: 2 })
  })

  test.each([
    ['an UPDATE', 'UPDATE own SET n = n + 1 WHERE id = 1'],
    ['an INSERT', 'INSERT INTO copied (id, n) VALUES (200, 1)'],
    ['a locking SELECT', 'SELECT n FROM own WHERE id = 1 FOR UPDATE'],
  ])('%s of another row opens no view: both move on to the commit, and nothing is lost', async (_, sql) => {
    const found = await interleaved(async (ctx, pause) => {
      await ctx.tx.query(sql)
      await pause()
      return { row: await row(ctx), session: session(ctx) }
    })
    expect(found).toEqual({ seen: { session: 1, row: 1 }, attempt: 1 })
  })

  test('who may not see triggers cannot know that there is none: run again', async () => {
    const { admin, name, url } = database
    await admin.query(`CREATE USER ${name}`)
    await admin.query(`GRANT SELECT, INSERT, UPDATE, DELETE ON ${name}.* TO ${name}`)
    const theirs = new URL(url)
    Object.assign(theirs, { username: name, password: '' })
    const pool = mysql.createPool(theirs.href)
    const other = await serveTx({
      options: { pool },
      below: async ctx => {
        ctx.body = { seen: await handlers.get(ctx.path.slice(1))?.(ctx), attempt: ctx.tx.attempt }
      },
    })
    try {
      writer = other.client()
      expect((await writer.post('/start')).status).toBe(200)
      reader = other.client()
      for (const [cookie, value] of writer.cookies) reader.cookies.set(cookie, value)
      const found = await interleaved(async (ctx, pause) => {
        await ctx.tx.query('UPDATE own SET n = n + 1 WHERE id = 1')
        await pause()
        return { row: await row(ctx), session: session(ctx) }
      })
      expect(found).toEqual({ seen: { session: 1, row: 1 }, attempt: 2 })
    } finally {
      await other.close()
      await pool.end()
      await admin.query(`DROP USER ${name}`)
    }
  })

  test.each([
    ['SELECT 1', 'SELECT 1'],
    ['an UPDATE of another row', 'UPDATE own SET n = n + 1 WHERE id = 1'],
    ['an UPDATE whose trigger has opened the view', 'UPDATE watched SET n = 1 WHERE id = 1'],
    ['a SELECT that found nothing', 'SELECT n FROM own WHERE id = 999'],
  ])('%s first, a commit, another statement, then the session and the row: equal', async (_, sql) => {
    const found = await interleaved(async (ctx, pause) => {
      await ctx.tx.query(sql)
      await pause()
      await ctx.tx.query('SELECT 1')
      return { session: session(ctx), row: await row(ctx) }
    })
    expect(found.seen.session).toBe(found.seen.row)
    expect(found.attempt).toBeLessThanOrEqual(2)
  })

  test('a commit while the first statement is on its way: what was not read cannot be read any more', async () => {
    const lock = await database.pool.getConnection()
    await lock.query('SELECT GET_LOCK(?, 0)', [database.name])
    // On its way until the lock is free; it opens the view when it starts, before the commit.
    const sql = `SELECT n, GET_LOCK('${database.name}', 5) FROM pair WHERE id = 1`
    const sent = deferred()
    handlers.set('read', async ctx => {
      if (ctx.tx.attempt > 1) return { row: await row(ctx), session: session(ctx) }
      const answer = ctx.tx.query<NumberRow[]>(sql)
      sent.resolve()
      const [rows] = await answer
      return { row: rows[0]?.n, session: session(ctx) }
    })
    try {
      const answer = reader.get('/read')
      await sent.promise
      await waitedFor(database.admin, 'User lock')
      await commitOnce()
      await lock.query('SELECT RELEASE_LOCK(?)', [database.name])
      expect(seenIn(await answer)).toEqual({ seen: { session: 1, row: 1 }, attempt: 2 })
    } finally {
      lock.release()
    }
  })

  test('a commit after the view is open changes nothing that is seen, and costs nothing', async () => {
    const found = await interleaved(async (ctx, pause) => {
      const seen = await row(ctx)
      await pause()
      return { row: seen, session: session(ctx) }
    })
    expect(found).toEqual({ seen: { session: 0, row: 0 }, attempt: 1 })
  })

  test('a writer between COMMIT and install: its variable counts as changed', async () => {
    const { committed, install } = slowWriter()
    let seenFirst: unknown
    handlers.set('read', async ctx => {
      const seen = await row(ctx)
      if (ctx.tx.attempt === 1) {
        seenFirst = seen
        // The next attempt waits for the writer, which waits for us.
        setImmediate(() => install.open())
      }
      return { row: seen, session: session(ctx) }
    })
    const writing = writer.post('/slow-write')
    await committed.promise
    const found = seenIn(await reader.get('/read'))
    expect((await writing).status).toBe(200)
    expect(seenFirst).toBe(1)
    expect(found).toEqual({ seen: { session: 1, row: 1 }, attempt: 2 })
  })

  test('going back to a savepoint older than the view: both sides move on together', async () => {
    const found = await interleaved(async (ctx, pause) => {
      await ctx.tx.query('SELECT 1')
      await ctx.tx
        .savepoint(async () => {
          await row(ctx)
          throw new Error('back')
        })
        .catch(() => {})
      await pause()
      return { row: await row(ctx), session: session(ctx) }
    })
    expect(found.seen).toEqual({ session: 1, row: 1 })
  })

  test('going back to a savepoint younger than the view: both sides stay', async () => {
    const found = await interleaved(async (ctx, pause) => {
      await row(ctx)
      await ctx.tx
        .savepoint(async () => {
          await row(ctx)
          throw new Error('back')
        })
        .catch(() => {})
      await pause()
      return { row: await row(ctx), session: session(ctx) }
    })
    expect(found).toEqual({ seen: { session: 0, row: 0 }, attempt: 1 })
  })

  test('the connection was taken inside the savepoint: another one opens another view', async () => {
    const found = await interleaved(async (ctx, pause) => {
      await ctx.tx
        .savepoint(async () => {
          await row(ctx)
          throw new Error('back')
        })
        .catch(() => {})
      await pause()
      return { row: await row(ctx), session: session(ctx) }
    })
    expect(found).toEqual({ seen: { session: 1, row: 1 }, attempt: 1 })
  })
})

describe('rule 3: both are opened at one instant', () => {
  test('by the attempt after a snapshot conflict, so there is at most one, and it is outside of retries', async () => {
    const conflicts: unknown[] = []
    const stop = served.tx.on('conflict', ({ conflict }) => conflicts.push(conflict.kind))
    const [first, second] = [gated(), gated()]
    handlers.set('read', async ctx => {
      const stage = ctx.tx.attempt === 1 ? first : second
      const before = ctx.tx.attempt === 1 ? session(ctx) : undefined
      await stage.stop()
      const seen = await row(ctx)
      return { session: before ?? session(ctx), row: seen }
    })
    const answer = reader.get('/read', { headers: { 'x-retries': '1' } })
    await first.reached
    await commitOnce()
    first.go()
    // The second attempt has its view and its snapshot before the handler runs.
    await second.reached
    await commitOnce()
    second.go()
    expect(seenIn(await answer)).toEqual({ seen: { session: 1, row: 1 }, attempt: 2 })
    expect(conflicts).toEqual(['snapshot'])
    stop()
  })

  test('by the first statement of a request that may not run again', async () => {
    const found = await interleaved(
      async (ctx, pause) => {
        await ctx.tx.query('SELECT 1')
        await pause()
        return { session: session(ctx), row: await row(ctx) }
      },
      { headers: { 'x-retries': '0' } },
    )
    expect(found).toEqual({ seen: { session: 0, row: 0 }, attempt: 1 })
  })

  test('it waits for a writer between COMMIT and install, not the other way round', async () => {
    const { committed, install } = slowWriter()
    handlers.set('read', async ctx => {
      const query = row(ctx)
      // Time enough for the reader's own two statements, if it did not wait.
      for (let trip = 0; trip < 5; trip++) await database.admin.query('SELECT 1')
      install.open()
      return { row: await query, session: session(ctx) }
    })
    const writing = writer.post('/slow-write')
    await committed.promise
    const found = seenIn(await reader.get('/read', { headers: { 'x-retries': '0' } }))
    await writing
    expect(found).toEqual({ seen: { session: 1, row: 1 }, attempt: 1 })
  })

  test('a second statement waits for it, too: sent before it, it would be committed by it', async () => {
    const { committed, install } = slowWriter()
    handlers.set('read', async ctx => {
      const query = row(ctx)
      for (let trip = 0; trip < 5; trip++) await database.admin.query('SELECT 1')
      const update = ctx.tx.query('UPDATE own SET n = 99 WHERE id = 3')
      for (let trip = 0; trip < 5; trip++) await database.admin.query('SELECT 1')
      install.open()
      await Promise.all([query, update])
      ctx.throw(418)
    })
    const writing = writer.post('/slow-write')
    await committed.promise
    expect((await reader.get('/read', { headers: { 'x-retries': '0' } })).status).toBe(418)
    await writing
    const [rows] = await database.pool.query<NumberRow[]>('SELECT n FROM own WHERE id = 3')
    expect(rows[0]?.n).toBe(0)
  })
})

describe('rule 4: per level', () => {
  test('`serializable`: what was read and has changed since is noticed at the next answer', async () => {
    const strict = await serveTx({
      options: { pool: database.pool, isolation: 'serializable' },
      below: async ctx => {
        ctx.body = { seen: await handlers.get(ctx.path.slice(1))?.(ctx), attempt: ctx.tx.attempt }
      },
    })
    const outer = [served, writer, reader] as const
    try {
      served = strict
      writer = strict.client()
      await writer.post('/start')
      reader = strict.client()
      for (const [name, value] of writer.cookies) reader.cookies.set(name, value)
      const found = await interleaved(async (ctx, pause) => {
        const before = session(ctx)
        await pause()
        return { row: await row(ctx), session: before }
      })
      expect(found).toEqual({ seen: { session: 1, row: 1 }, attempt: 2 })
    } finally {
      ;[served, writer, reader] = outer
      await strict.close()
    }
  })

  test('`read committed` promises nothing: session before, row after', async () => {
    const loose = await serveTx({
      options: { pool: database.pool, isolation: 'read committed' },
      below: async ctx => {
        ctx.body = { seen: await handlers.get(ctx.path.slice(1))?.(ctx), attempt: ctx.tx.attempt }
      },
    })
    const outer = [served, writer, reader] as const
    try {
      served = loose
      writer = loose.client()
      await writer.post('/start')
      reader = loose.client()
      for (const [name, value] of writer.cookies) reader.cookies.set(name, value)
      const found = await interleaved(async (ctx, pause) => {
        const before = session(ctx)
        await pause()
        return { row: await row(ctx), session: before }
      })
      expect(found).toEqual({ seen: { session: 0, row: 1 }, attempt: 1 })
    } finally {
      ;[served, writer, reader] = outer
      await loose.close()
    }
  })
})

/** Where the sessions are, and how many attempts a reader may need at most. */
const STORES = [
  ['memoryStore', undefined, 2],
  ['mysqlStore, readers in another process than writers', () => mysqlStore(), 3],
] as const

describe.each(STORES)('under writers that never stop, %s', (_store, makeStore, attemptsMax) => {
  const others: TxServed[] = []

  beforeAll(async () => {
    if (makeStore === undefined) return
    for (const { ddl } of sessionTables('sessions')) await database.pool.query(ddl)
    for (let process = 0; process < 2; process++) others.push(await serveFrom(makeStore()))
  })
  afterAll(async () => {
    for (const other of others) await other.close()
  })
  beforeEach(async () => {
    const [first, second] = others
    if (first === undefined || second === undefined) return
    writer = first.client()
    expect((await writer.post('/start')).status).toBe(200)
    reader = second.client()
    for (const [name, value] of writer.cookies) reader.cookies.set(name, value)
  })

  const READS = 150
  const READERS = 3
  type Shape = (ctx: TxContext, own: number) => Promise<{ session: number; row: number }>

  const shapes: Readonly<Record<string, Shape>> = {
    'session first': async ctx => ({ session: session(ctx), row: await row(ctx) }),
    'row first': async ctx => {
      const seen = await row(ctx)
      return { row: seen, session: session(ctx) }
    },
    'session, UPDATE of another row, row': async (ctx, own) => {
      const before = session(ctx)
      await ctx.tx.query('UPDATE own SET n = n + 1 WHERE id = ?', [own])
      return { session: before, row: await row(ctx) }
    },
    'UPDATE of another row, session, row': async (ctx, own) => {
      await ctx.tx.query('UPDATE own SET n = n + 1 WHERE id = ?', [own])
      return { session: session(ctx), row: await row(ctx) }
    },
    'UPDATE whose trigger reads, a pause, session, row': async (ctx, own) => {
      await ctx.tx.query('UPDATE watched SET n = 0 WHERE id = ?', [own])
      await ctx.tx.query('SELECT SLEEP(0.005)')
      return { session: session(ctx), row: await row(ctx) }
    },
    'SELECT 1, session, row': async ctx => {
      await ctx.tx.query('SELECT 1')
      return { session: session(ctx), row: await row(ctx) }
    },
    'SELECT 1, row, session': async ctx => {
      await ctx.tx.query('SELECT 1')
      const seen = await row(ctx)
      return { row: seen, session: session(ctx) }
    },
    'a slow first statement that opens no view': async ctx => {
      await ctx.tx.query('SELECT SLEEP(0.02)')
      return { session: session(ctx), row: await row(ctx) }
    },
    'a slow first statement that opens the view when it starts': async ctx => {
      const [rows] = await ctx.tx.query<NumberRow[]>('SELECT n, SLEEP(0.02) FROM pair WHERE id = 1')
      return { row: rows[0]?.n ?? -1, session: session(ctx) }
    },
    'a SELECT that finds nothing, session, row': async ctx => {
      await ctx.tx.query('SELECT n FROM pair WHERE id = 999')
      return { session: session(ctx), row: await row(ctx) }
    },
    'a SELECT that finds nothing, row, session': async ctx => {
      await ctx.tx.query('SELECT n FROM pair WHERE id = 999')
      const seen = await row(ctx)
      return { row: seen, session: session(ctx) }
    },
    'after a savepoint rolled back': async ctx => {
      await ctx.tx
        .savepoint(async () => {
          await row(ctx)
          throw new Error('back')
        })
        .catch(back)
      return { session: session(ctx), row: await row(ctx) }
    },
    'session, then a savepoint rolled back, then row': async (ctx, own) => {
      await ctx.tx.query('UPDATE own SET n = n + 1 WHERE id = ?', [own])
      const before = session(ctx)
      await ctx.tx
        .savepoint(async () => {
          await row(ctx)
          throw new Error('back')
        })
        .catch(back)
      return { session: before, row: await row(ctx) }
    },
    'two statements in parallel first': async ctx => {
      const [seen] = await Promise.all([row(ctx), ctx.tx.query('SELECT n FROM own WHERE id = 1')])
      return { row: seen, session: session(ctx) }
    },
    'two statements in parallel first, the row second': async ctx => {
      const [, seen] = await Promise.all([ctx.tx.query('SELECT 1'), row(ctx)])
      return { row: seen, session: session(ctx) }
    },
  }

  async function storm(
    shape: Shape,
    sending: { headers?: Record<string, string> } = {},
    reads = READS,
  ): Promise<{ answers: Answer[]; commits: number }> {
    let running = true
    let commits = 0
    handlers.set('read', ctx => shape(ctx, Number(ctx.get('x-own'))))
    const writing = async (): Promise<void> => {
      while (running) {
        const { status } = await writer.post('/write')
        if (status === 200) commits += 1
      }
    }
    const answers: Answer[] = []
    const reading = async (own: number): Promise<void> => {
      const headers = { 'x-own': String(own), ...sending.headers }
      while (answers.length < reads) answers.push(await reader.get('/read', { headers }))
    }
    const writers = [writing(), writing()]
    await Promise.all(Array.from({ length: READERS }, (_, index) => reading(index + 1)))
    running = false
    await Promise.all(writers)
    return { answers, commits }
  }

  test.each(Object.entries(shapes))('%s: never unequal', async (_, shape) => {
    const { answers, commits } = await storm(shape)
    const all = answers.map(seenIn)
    expect(all.filter(({ seen }) => seen.session !== seen.row)).toEqual([])
    expect(Math.max(...all.map(({ attempt }) => attempt))).toBeLessThanOrEqual(attemptsMax)
    // Else there was no race.
    expect(commits).toBeGreaterThan(20)
    expect(new Set(all.map(({ seen }) => seen.row)).size).toBeGreaterThan(10)
  })

  // What was read before the view opens, or between two views, cannot be taken back: such a request is refused.
  const refusable = [
    'session first',
    'session, UPDATE of another row, row',
    'after a savepoint rolled back',
    'session, then a savepoint rolled back, then row',
  ]

  test.each(Object.entries(shapes))('%s, never to be run again: never unequal', async (name, shape) => {
    const { answers } = await storm(shape, { headers: { 'x-retries': '0' } }, 40)
    const refused = answers.filter(({ status }) => status === 503)
    if (!refusable.includes(name)) expect(refused).toEqual([])
    const all = answers.filter(answer => !refused.includes(answer)).map(seenIn)
    expect(all.filter(({ seen, attempt }) => seen.session !== seen.row || attempt !== 1)).toEqual([])
  })

  test('writers of different variables of one session: 1.00 attempts per commit', async () => {
    handlers.set('own', async ctx => {
      const name = `own${ctx.get('x-own')}`
      ctx.session[name] = Number(ctx.session[name] ?? 0) + 1
      await ctx.tx.query('UPDATE own SET n = n + 1 WHERE id = ?', [Number(ctx.get('x-own'))])
      await ctx.tx.query('SELECT n FROM own WHERE id = ?', [Number(ctx.get('x-own'))])
      return ctx.session[name]
    })
    const ROUNDS = 50
    const attempts: number[] = []
    const client = async (own: number): Promise<void> => {
      for (let round = 0; round < ROUNDS; round++) {
        const answer = await reader.post('/own', '', { headers: { 'x-own': String(own) } })
        expect(answer.status).toBe(200)
        attempts.push(answer.json<{ attempt: number }>().attempt)
      }
    }
    await Promise.all([11, 12, 13, 14].map(client))
    expect(attempts).toEqual(Array.from({ length: 4 * ROUNDS }, () => 1))
    handlers.set('read', async ctx => [11, 12, 13, 14].map(own => ctx.session[`own${own}`]))
    expect((await reader.get('/read')).json<{ seen: unknown }>().seen).toEqual([
      ROUNDS,
      ROUNDS,
      ROUNDS,
      ROUNDS,
    ])
  })
})

/** Swallows the error that sends a handler back to its savepoint, and no other. */
function back(error: unknown): void {
  if (!(error instanceof Error) || error.message !== 'back') throw error
}

/** A place in a handler where the test stops it. */
function gated(): { readonly reached: Promise<void>; stop(): Promise<void>; go(): void } {
  const reached = deferred()
  const gate = new Gate()
  return {
    reached: reached.promise,
    stop: () => {
      reached.resolve()
      return gate.passed()
    },
    go: () => gate.open(),
  }
}

/** Resolves when some connection waits in this state. */
async function waitedFor(admin: Connection, state: string): Promise<void> {
  for (;;) {
    const [rows] = await admin.query<RowDataPacket[]>(
      'SELECT 1 FROM information_schema.PROCESSLIST WHERE STATE = ? AND DB = ?',
      [state, database.name],
    )
    if (rows.length > 0) return
  }
}

test('a savepoint that began with a statement on its way keeps the view that its part opened', async () => {
  const reached = deferred()
  const gate = new Gate()
  handlers.set('read', async ctx => {
    const first = ctx.tx.query('UPDATE own SET n = n + 1 WHERE id = 2')
    await ctx.tx
      .savepoint(async () => {
        await ctx.tx.query('SELECT n FROM pair WHERE id = 1')
        throw new Error('go back')
      })
      .catch(() => {})
    await first
    if (ctx.tx.attempt === 1) {
      reached.resolve()
      await gate.passed()
    }
    const [rows] = await ctx.tx.query<NumberRow[]>('SELECT n FROM pair WHERE id = 1')
    return { session: Number(ctx.session['n']), row: rows[0]?.n }
  })
  const answer = reader.post('/read')
  await reached.promise
  expect((await writer.post('/write')).status).toBe(200)
  gate.open()
  const { seen } = (await answer).json<{ seen: { session: number; row: number } }>()
  expect(seen.session).toBe(seen.row)
})
