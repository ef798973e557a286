/**
 * Every database error that we know, at the wire and through the whole middleware: what runs again, how often, on which
 * connection, and what is sent in between. The servers are fakes that speak mysql2's protocol: this proves how their
 * documented errors are read, not that they send them.
 */
import mysql, { type Pool } from 'mysql2/promise'
import type { ConflictKind } from '../../lib/errors.js'
import type { KoaContext, SessionTxOptions } from '../../lib/index.js'
import { classify, FLAVOURS, type Flavour } from '../../lib/mysql/errors.js'
import type { Environment } from '../../lib/transaction/clock.js'
import { serveTx, type TxContext, type TxServed } from '../support/app.js'
import { Barrier } from '../support/barrier.js'
import { fakeEnvironment, promptly } from '../support/clock.js'
import { type FakeServer, openFakeServer, type Trouble } from '../support/fake-server.js'

const undo: (() => unknown)[] = []
afterEach(async () => {
  for (const one of undo.splice(0).reverse()) await one()
})

interface Setup {
  readonly fake: FakeServer
  readonly served: TxServed
  readonly pool: Pool
  /** How often the handler ran. */
  readonly runs: () => number
  /** What was sent, without the set-up, since this was asked for the last time. */
  readonly sent: () => string[]
}

async function setUp(
  flavour: Flavour,
  handler: (ctx: TxContext) => unknown = twoStatements,
  options: SessionTxOptions<KoaContext> = {},
  environment: Environment = promptly,
): Promise<Setup> {
  const fake = await openFakeServer(flavour)
  undo.push(() => fake.close())
  const pool = mysql.createPool({ uri: fake.url, connectionLimit: 4 })
  undo.push(() => pool.end())
  let runs = 0
  const served = await serveTx({
    environment,
    options: { pool, ...options },
    below: async ctx => {
      if (ctx.path === '/session') return void (ctx.body = { ...ctx.session })
      runs += 1
      await handler(ctx)
    },
  })
  undo.push(() => served.close())
  const sent = (): string[] => fake.log.splice(0).filter(line => !/^\d+: SET /.test(line))
  return { fake, served, pool, runs: () => runs, sent }
}

async function twoStatements(ctx: TxContext): Promise<void> {
  ctx.session['n'] = ((ctx.session['n'] as number | undefined) ?? 0) + 1
  await ctx.tx.query('UPDATE first')
  await ctx.tx.query('UPDATE second')
  ctx.body = `attempt ${ctx.tx.attempt}`
}

/** The first statement that matches gets the trouble; later ones do not. */
function once(matches: RegExp, trouble: Trouble): FakeServer['script'] {
  let met = false
  return sql => {
    if (met || !matches.test(sql)) return undefined
    met = true
    return trouble
  }
}

const whole = (connection: number): string[] =>
  ['UPDATE first', 'UPDATE second', 'COMMIT'].map(sql => `${connection}: ${sql}`)

interface Expected {
  readonly errno: number
  readonly message?: string
  readonly flavours: readonly Flavour[]
  readonly kind: ConflictKind
  /** As the answer to COMMIT it is called something else. */
  readonly kindAtCommit?: ConflictKind
  /** What becomes of an attempt whose handler caught it. */
  readonly caught: 'run again' | 'kept'
  readonly connection: 'kept' | 'destroyed'
  readonly commit: 'run again' | 'unknown'
  /** With `retries: 9`. */
  readonly runsMax: number
}

const row = (
  errno: number,
  flavours: readonly Flavour[],
  kind: ConflictKind,
  rest: Partial<Expected> = {},
): Expected => ({
  errno,
  flavours,
  kind,
  caught: 'run again',
  connection: 'kept',
  commit: 'run again',
  runsMax: 10,
  ...rest,
})
const ambiguous = { commit: 'unknown' } as const
const gone = { ...ambiguous, connection: 'destroyed' } as const
const readOnly = 'The MySQL server is running with the --read-only option'

/** Written from the servers' documentation, not from the source. */
const EXPECTED: readonly Expected[] = [
  row(1213, ['mariadb', 'mysql', 'tidb'], 'deadlock'),
  row(1213, ['galera'], 'deadlock', { kindAtCommit: 'certification' }),
  row(1020, ['mariadb', 'galera'], 'row'),
  row(1205, FLAVOURS, 'lockWait', { ...ambiguous, runsMax: 3 }),
  row(3572, ['mysql', 'tidb', 'galera'], 'lockWait', { ...ambiguous, caught: 'kept' }),
  row(3101, ['mysql'], 'certification'),
  row(1614, FLAVOURS, 'certification'),
  row(1613, FLAVOURS, 'certification'),
  row(1402, FLAVOURS, 'certification'),
  row(9007, ['tidb'], 'write'),
  row(8002, ['tidb'], 'write'),
  row(8022, ['tidb'], 'write'),
  row(8028, ['tidb'], 'definition'),
  row(8147, ['tidb'], 'write'),
  row(1412, FLAVOURS, 'definition', ambiguous),
  row(1615, FLAVOURS, 'definition', ambiguous),
  row(1062, FLAVOURS, 'duplicate', { ...ambiguous, runsMax: 2 }),
  row(1047, ['galera'], 'connection', gone),
  row(1290, FLAVOURS, 'connection', { ...gone, message: readOnly }),
  row(1836, FLAVOURS, 'connection', gone),
  row(1053, FLAVOURS, 'connection', gone),
  row(1927, FLAVOURS, 'connection', gone),
  row(2006, FLAVOURS, 'connection', gone),
  row(2013, FLAVOURS, 'connection', gone),
]
/** One server of each row goes over the wire: the others differ in nothing that is read there. */
const cases = EXPECTED.map(one => {
  const flavour = one.flavours.includes('mysql') ? 'mysql' : (one.flavours[0] ?? 'mariadb')
  return [`${one.errno} of ${flavour}`, flavour, one] as const
})
const retry = { duplicateIsConflict: true }
const troubleOf = ({ errno, message }: Expected): Trouble =>
  message === undefined ? { errno } : { errno, message }

test('every number that the source calls a lost race is here, for exactly the servers it is one of', () => {
  const known: string[] = []
  for (let errno = 1000; errno < 20_000; errno++) {
    const error = Object.assign(new Error(readOnly), { errno })
    for (const flavour of FLAVOURS)
      if (classify(error, flavour, true) !== undefined) known.push(`${errno} of ${flavour}`)
  }
  const here = EXPECTED.flatMap(({ errno, flavours }) => flavours.map(flavour => `${errno} of ${flavour}`))
  expect(here.sort()).toEqual(known.sort())
})

describe.each(cases)('%s', (_, flavour, expected) => {
  const again = expected.connection === 'kept' ? 1 : 2

  test('as the answer to a statement: rolled back, run again, committed once', async () => {
    const { fake, served, runs, sent } = await setUp(flavour, twoStatements, { retry })
    fake.script = once(/second/, troubleOf(expected))
    const ann = served.client()
    await expect(ann.get('/')).resolves.toMatchObject({ status: 200, text: 'attempt 2' })
    expect(runs()).toBe(2)
    const rollback = expected.connection === 'kept' ? ['1: ROLLBACK'] : []
    expect(sent()).toEqual(['1: UPDATE first', '1: UPDATE second', ...rollback, ...whole(again)])
    expect(served.tx.stats().conflicts).toMatchObject({ total: 1, byKind: { [expected.kind]: 1 } })
    expect((await ann.get('/session')).json()).toEqual({ n: 1 })
    expect(fake.open).toBe(1)
  })

  test(`caught by a handler that answers 200: ${expected.caught}`, async () => {
    const swallow = async (ctx: TxContext): Promise<void> => {
      await ctx.tx.query('UPDATE first')
      await ctx.tx.query('UPDATE second').catch(() => {})
      ctx.body = `attempt ${ctx.tx.attempt}`
    }
    const { fake, served } = await setUp(flavour, swallow, { retry })
    fake.script = once(/second/, troubleOf(expected))
    const { text } = await served.client().get('/')
    expect(text).toBe(expected.caught === 'kept' ? 'attempt 1' : 'attempt 2')
  })

  test(`again and again: ${expected.runsMax} runs with \`retries: 9\``, async () => {
    const options = { retry: { ...retry, retries: 9 } }
    const { fake, served, runs } = await setUp(flavour, twoStatements, options)
    fake.script = sql => (/second/.test(sql) ? troubleOf(expected) : undefined)
    const ann = served.client()
    await expect(ann.get('/')).resolves.toMatchObject({ status: 503, headers: { 'retry-after': '1' } })
    expect(runs()).toBe(expected.runsMax)
    expect(served.errors).toMatchObject([{ code: 'RETRIES_EXHAUSTED', conflict: { kind: expected.kind } }])
    expect(fake.log.some(line => line.includes('COMMIT'))).toBe(false)
    expect((await ann.get('/session')).json()).toEqual({})
  })

  test(`as the answer to COMMIT: ${expected.commit}`, async () => {
    const { fake, served, runs, sent } = await setUp(flavour, twoStatements, { retry })
    fake.script = once(/COMMIT/, troubleOf(expected))
    const ann = served.client()
    const { status, text } = await ann.get('/')
    if (expected.commit === 'run again') {
      expect([status, text]).toEqual([200, 'attempt 2'])
      expect(sent()).toEqual([...whole(1), '1: ROLLBACK', ...whole(1)])
      const kind = expected.kindAtCommit ?? expected.kind
      expect(served.tx.stats().conflicts.byKind).toEqual({ [kind]: 1 })
      return
    }
    expect([status, runs()]).toEqual([503, 1])
    expect(served.errors).toMatchObject([{ code: 'COMMIT_UNKNOWN', cause: { errno: expected.errno } }])
    expect(sent()).toEqual(whole(1))
    expect((await ann.get('/session')).json()).toEqual({})
    // Whatever state it is in, nobody gets that connection any more.
    await ann.get('/')
    expect(sent()).toEqual(whole(2))
  })
})

describe('no lost race, whatever it looks like', () => {
  test.each<[string, Flavour, number, string]>([
    ['9001 is ProxySQL’s, and a time-out', 'mysql', 9001, 'no'],
    ['9007 is TiDB’s only', 'mysql', 9007, 'no'],
    ['1020 of MySQL is MyISAM’s', 'mysql', 1020, 'no'],
    ['3101 is Group Replication’s only', 'mariadb', 3101, 'no'],
    ['1047 without Galera is an unknown command', 'mariadb', 1047, 'no'],
    ['1290 has other options than read-only', 'mysql', 1290, 'running with the --secure-file-priv option'],
    ['1062 without `duplicateIsConflict`', 'mysql', 1062, 'no'],
    ['1792: a mistake of the application', 'mysql', 1792, 'no'],
    ['1317: interrupted', 'mysql', 1317, 'no'],
    ['1969: MariaDB’s time limit', 'mariadb', 1969, 'no'],
    ['3024: MySQL’s time limit', 'mysql', 3024, 'no'],
  ])('%s (%s, %i)', async (_, flavour, errno, message) => {
    const { fake, served, runs, sent } = await setUp(flavour)
    fake.script = once(/second/, { errno, message })
    await expect(served.client().get('/')).resolves.toMatchObject({ status: 500 })
    expect(runs()).toBe(1)
    expect(served.errors).toMatchObject([{ errno }])
    await served.client().get('/')
    expect(sent()).toEqual(['1: UPDATE first', '1: UPDATE second', '1: ROLLBACK', ...whole(1)])
  })

  test.each([1317, 1180, 1062, 9001])('%i as the answer to COMMIT: unknown, never run again', async errno => {
    const { fake, served, runs } = await setUp('mysql')
    fake.script = once(/COMMIT/, { errno })
    await expect(served.client().get('/')).resolves.toMatchObject({ status: 503 })
    expect([runs(), served.errors]).toMatchObject([1, [{ code: 'COMMIT_UNKNOWN' }]])
  })
})

describe('the connection breaks', () => {
  const waited = (served: TxServed): string[] => {
    const waits: string[] = []
    served.tx.on('rerun', ({ waitedFor }) => void waits.push(waitedFor))
    return waits
  }

  test.each<[string, RegExp, Trouble, string]>([
    ['at the first statement', /first/, 'hang up', 'nothing'],
    ['at the first statement, with last words (1927)', /first/, { lastWords: 1927 }, 'nothing'],
    ['at a later statement', /second/, 'hang up', 'backoff'],
    ['at a later statement, with last words (1053)', /second/, { lastWords: 1053 }, 'backoff'],
  ])('%s', async (_, matches, trouble, waitedFor) => {
    const { fake, served, sent } = await setUp('mysql', twoStatements, { retry: { retries: 1 } })
    fake.script = once(matches, trouble)
    const waits = waited(served)
    await expect(served.client().get('/')).resolves.toMatchObject({ text: 'attempt 2' })
    expect(waits).toEqual([waitedFor])
    expect(sent().slice(-3)).toEqual(whole(2))
    expect(fake.open).toBe(1)
  })

  test('at the first statement that is answered with an error, the next one that is lost is charged', async () => {
    const { fake, served } = await setUp('mysql', async ctx => {
      await ctx.tx.query('UPDATE wrong').catch(() => {})
      await ctx.tx.query('UPDATE second')
    })
    const breaks = once(/second/, 'hang up')
    fake.script = sql => (/wrong/.test(sql) ? { errno: 1146 } : breaks(sql, 1))
    const waits = waited(served)
    await served.client().get('/')
    expect(waits).toEqual(['backoff'])
  })

  test('at COMMIT: unknown, and the session keeps its old value', async () => {
    const { fake, served, runs } = await setUp('mysql')
    fake.script = once(/COMMIT/, 'hang up')
    const ann = served.client()
    await expect(ann.get('/')).resolves.toMatchObject({ status: 503 })
    expect([runs(), served.errors]).toMatchObject([1, [{ code: 'COMMIT_UNKNOWN' }]])
    expect((await ann.get('/session')).json()).toEqual({})
  })

  test('at ROLLBACK after a lost race: run again on another one', async () => {
    const { fake, served, sent } = await setUp('mysql')
    const broken = once(/ROLLBACK/, 'hang up')
    const lost = once(/second/, { errno: 1213 })
    fake.script = sql => lost(sql, 1) ?? broken(sql, 1)
    await expect(served.client().get('/')).resolves.toMatchObject({ text: 'attempt 2' })
    expect(sent()).toEqual(['1: UPDATE first', '1: UPDATE second', '1: ROLLBACK', ...whole(2)])
  })
})

describe('a failover', () => {
  test.each([
    ['1290', 1290, readOnly],
    ['1836', 1836, 'Running in read-only mode'],
  ])(
    '%s: every idle connection to the old primary is closed, and the next one is new',
    async (_, errno, message) => {
      const together = new Barrier(3)
      const { fake, served, sent } = await setUp('mysql', async ctx => {
        await ctx.tx.query(`UPDATE ${ctx.path.slice(1)}`)
        if (ctx.path === '/warm') await together.arrive()
        if (ctx.path === '/demoted' && ctx.tx.attempt === 1) await ctx.tx.query('UPDATE more')
        ctx.body = `attempt ${ctx.tx.attempt}`
      })
      await Promise.all([1, 2, 3].map(() => served.client().get('/warm')))
      expect(fake.open).toBe(3)
      sent()
      fake.script = once(/more/, { errno, message })
      await expect(served.client().get('/demoted')).resolves.toMatchObject({ text: 'attempt 2' })
      const [last = ''] = sent().slice(-1)
      expect(last).toBe('4: COMMIT')
      while (fake.open > 1) await new Promise(setImmediate)
      await served.client().get('/after')
      expect(sent()).toEqual(['4: UPDATE after', '4: COMMIT'])
    },
  )
})

describe('a server that lets nobody in', () => {
  test.each([
    [1040, 'Too many connections'],
    [1203, 'User already has more than max_user_connections active connections'],
    [1226, 'User has exceeded the max_user_connections resource'],
  ])('%i: waited for and tried again, and served when it does', async (errno, message) => {
    const environment = fakeEnvironment()
    const { fake, served, runs } = await setUp('mysql', twoStatements, {}, environment)
    fake.closed = { errno, message }
    const answer = served.client().get('/')
    await environment.clock.armed(delayMs => delayMs === 2.5)
    fake.closed = undefined
    environment.clock.advance(2.5)
    await expect(answer).resolves.toMatchObject({ text: 'attempt 2' })
    expect(runs()).toBe(2)
    expect(served.tx.stats().conflicts.byKind).toEqual({ unavailable: 1 })
  })

  test.each([1040, 1203, 1226])('%i for good: 503 STORE_UNAVAILABLE with Retry-After', async errno => {
    const { fake, served, runs } = await setUp('mysql')
    fake.closed = { errno, message: 'no' }
    const answer = await served.client().get('/')
    expect(answer).toMatchObject({ status: 503, headers: { 'retry-after': '1' } })
    expect(runs()).toBe(4)
    expect(served.errors).toMatchObject([{ code: 'STORE_UNAVAILABLE', cause: { errno } }])
  })

  test('a full pool that does not wait: tried again, then 503', async () => {
    const { fake, served, runs } = await setUp('mysql', twoStatements, {
      pool: limited('mysql://nobody@127.0.0.1:1/none'),
    })
    const answer = await served.client().get('/')
    expect([answer.status, runs(), fake.log]).toEqual([503, 4, []])
  })

  function limited(uri: string): Pool {
    const pool = mysql.createPool({ uri, connectionLimit: 1, waitForConnections: false })
    undo.push(() => pool.end())
    return pool
  }
})

describe('what a connection is set to, and back', () => {
  const level = (isolation: string): string => `SESSION transaction_isolation = '${isolation}'`
  const BEFORE = 'SET SESSION autocommit = 0, '
  const AFTER = ', SESSION innodb_lock_wait_timeout = 2, SESSION lock_wait_timeout = 2'
  const SNAPSHOT = ', SESSION innodb_snapshot_isolation = 1'

  test.each<[Flavour, SessionTxOptions['isolation'], string]>([
    ['mysql', 'read committed', level('READ-COMMITTED') + AFTER],
    ['mysql', 'repeatable read', level('REPEATABLE-READ') + AFTER],
    // Nothing there keeps the first committer of a row from being overwritten, so reads lock.
    ['mysql', 'snapshot', level('SERIALIZABLE') + AFTER],
    ['mysql', 'serializable', level('SERIALIZABLE') + AFTER],
    // The operator has it OFF globally: ours are ON all the same.
    ['mariadb', 'snapshot', level('REPEATABLE-READ') + AFTER + SNAPSHOT],
    ['mariadb', 'serializable', level('SERIALIZABLE') + AFTER + SNAPSHOT],
    ['mariadb', 'repeatable read', level('REPEATABLE-READ') + AFTER],
    [
      'galera',
      'snapshot',
      `${level('REPEATABLE-READ')}${AFTER}${SNAPSHOT}, SESSION wsrep_sync_wait = @@session.wsrep_sync_wait | 7`,
    ],
    ['tidb', 'snapshot', `${level('REPEATABLE-READ')}${AFTER}, SESSION tidb_txn_mode = 'optimistic'`],
  ])('%s, %s', async (flavour, isolation = 'snapshot', settings) => {
    const { fake, served } = await setUp(flavour, twoStatements, { isolation })
    await served.client().get('/')
    expect(fake.log[0]).toBe(`1: ${BEFORE}${settings}`)
    await served.tx.close()
    const restored = fake.log.at(-1) ?? ''
    expect(restored).toMatch(
      /^1: SET SESSION autocommit = 'ON', SESSION transaction_isolation = 'REPEATABLE-READ'/,
    )
    if (settings.includes(SNAPSHOT)) expect(restored).toContain("innodb_snapshot_isolation = 'OFF'")
    if (flavour === 'tidb') expect(restored).toContain("tidb_txn_mode = 'pessimistic'")
  })
})
