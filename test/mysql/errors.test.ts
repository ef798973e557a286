/**
 * The table of database errors, against a real server where it can be made to fail, and as a function where
 * not.
 */
import type { PoolConnection } from 'mysql2/promise'
import { SessionTxError } from '../../lib/errors.js'
import {
  atCommit,
  classify,
  findDatabaseError,
  isAccessDenied,
  isUnavailable,
  type Flavour,
} from '../../lib/mysql/errors.js'
import { openDatabase, type TestDatabase } from '../support/database.js'
import { SEEN } from '../support/seen-errors.js'

describe('on a server', () => {
  let db: TestDatabase
  let one: PoolConnection
  let two: PoolConnection
  const failure = async (work: Promise<unknown>): Promise<unknown> =>
    work.then(
      () => undefined,
      (error: unknown) => error,
    )

  beforeAll(async () => {
    db = await openDatabase()
    await db.pool.query('CREATE TABLE acc (id INT PRIMARY KEY, n INT) ENGINE=InnoDB')
  })
  afterAll(() => db.close())
  beforeEach(async () => {
    await db.pool.query('REPLACE INTO acc VALUES (1, 0), (2, 0)')
    one = await db.pool.getConnection()
    two = await db.pool.getConnection()
  })
  afterEach(() => {
    one.destroy()
    two.destroy()
  })

  test.each(Object.entries(SEEN))('%s is really reported', async (errno, provoke) => {
    const error = await failure(provoke({ db, one, two }))
    expect(findDatabaseError(error)?.errno).toBe(Number(errno))
    expect(classify(error, 'mariadb', true)?.errno).toBe(Number(errno))
  })

  test('1020: the row was committed by another first; the message names the table', async () => {
    await one.query('SET SESSION innodb_snapshot_isolation = ON')
    await one.query('START TRANSACTION')
    await one.query('SELECT * FROM acc')
    await two.query('UPDATE acc SET n = n + 1 WHERE id = 1')
    const error = await failure(one.query('UPDATE acc SET n = n + 1 WHERE id = 1'))
    expect(classify(error, 'mariadb')).toEqual({
      kind: 'row',
      kindAtCommit: 'row',
      errno: 1020,
      rolledBack: 'transaction',
      atCommit: 'aborted',
      sticky: 'always',
      rerunsMax: undefined,
      unfit: 'nothing',
      table: 'acc',
    })
  })

  test('1213: a deadlock rolls back the whole transaction', async () => {
    await one.query('START TRANSACTION')
    await two.query('START TRANSACTION')
    await one.query('UPDATE acc SET n = 1 WHERE id = 1')
    await two.query('UPDATE acc SET n = 2 WHERE id = 2')
    const both = await Promise.all([
      failure(one.query('UPDATE acc SET n = 1 WHERE id = 2')),
      failure(two.query('UPDATE acc SET n = 2 WHERE id = 1')),
    ])
    const lost = both.filter(error => error !== undefined)
    expect(lost).toHaveLength(1)
    expect(classify(lost[0], 'mariadb')).toMatchObject({
      kind: 'deadlock',
      rolledBack: 'transaction',
      sticky: 'always',
    })
  })

  test('1205: not getting a lock undoes the statement only', async () => {
    await one.query('START TRANSACTION')
    await one.query('UPDATE acc SET n = 1 WHERE id = 1')
    const error = await failure(two.query('SELECT * FROM acc WHERE id = 1 FOR UPDATE NOWAIT'))
    expect(classify(error, 'mariadb')).toMatchObject({
      kind: 'lockWait',
      errno: 1205,
      rolledBack: 'statement',
      sticky: 'unlessNowait',
      rerunsMax: 2,
      atCommit: 'unknown',
    })
  })

  test('1062: a duplicate is a conflict only where the application says so', async () => {
    const error = await failure(one.query('INSERT INTO acc VALUES (1, 0)'))
    expect(classify(error, 'mariadb')).toBeUndefined()
    expect(classify(error, 'mariadb', true)).toMatchObject({ kind: 'duplicate', errno: 1062, rerunsMax: 1 })
  })

  test.each([
    ['a missing table', 'SELECT * FROM missing', 1146],
    ['an unknown database', 'USE nowhere_at_all', 1049],
    ['a mistake in the syntax', 'SELEC', 1064],
    ['a write in a transaction that is read-only', 'UPDATE acc SET n = 1', 1792],
  ])('%s is no conflict', async (_, sql, errno) => {
    if (errno === 1792) await one.query('START TRANSACTION READ ONLY')
    const error = await failure(one.query(sql))
    expect(findDatabaseError(error)?.errno).toBe(errno)
    expect(classify(error, 'mariadb', true)).toBeUndefined()
    expect(isUnavailable(error)).toBe(false)
  })

  test('a killed connection is lost; what comes after was never sent', async () => {
    const running = failure(one.query('SELECT SLEEP(20)'))
    await db.admin.query(`KILL ${one.threadId}`)
    const lost = await running
    expect(classify(lost, 'mariadb')).toMatchObject({
      kind: 'connection',
      unfit: 'connection',
      atCommit: 'unknown',
    })
    expect(atCommit(lost, 'mariadb')).toBe('unknown')
    const later = await failure(one.query('COMMIT'))
    expect(atCommit(later, 'mariadb')).toBe('neverSent')
    expect(classify(later, 'mariadb')?.kind).toBe('connection')
  })
})

describe('by number and flavour', () => {
  const numbered = (errno: number, message = 'm') =>
    Object.assign(new Error(message), { errno, sqlMessage: message })

  test.each<[number, Flavour, string | undefined]>([
    [1020, 'mariadb', 'row'],
    [1020, 'mysql', undefined],
    [1213, 'mysql', 'deadlock'],
    [3572, 'mysql', 'lockWait'],
    [3101, 'mysql', 'certification'],
    [3101, 'mariadb', undefined],
    [1614, 'mariadb', 'certification'],
    [9007, 'tidb', 'write'],
    [9007, 'mysql', undefined],
    [8028, 'tidb', 'definition'],
    [8028, 'mariadb', undefined],
    [1412, 'mariadb', 'definition'],
    [1047, 'galera', 'connection'],
    [1047, 'mariadb', undefined],
    [1836, 'mysql', 'connection'],
    [1927, 'mariadb', 'connection'],
    [1317, 'mariadb', undefined],
    [1969, 'mariadb', undefined],
    [3024, 'mysql', undefined],
    [1305, 'mariadb', undefined],
    [1045, 'mariadb', undefined],
  ])('%i on %s: %s', (errno, flavour, kind) => expect(classify(numbered(errno), flavour)?.kind).toBe(kind))

  test('1290 is a failover only if it says read-only', () => {
    expect(classify(numbered(1290, 'running with the --read-only option'), 'mysql')?.kind).toBe('connection')
    expect(classify(numbered(1290, 'running with the --secure-file-priv option'), 'mysql')).toBeUndefined()
  })

  test('a COMMIT that Galera refuses is a certification failure, and aborted', () => {
    expect(classify(numbered(1213), 'galera')).toMatchObject({
      kind: 'deadlock',
      kindAtCommit: 'certification',
    })
    expect(atCommit(numbered(1213), 'galera')).toBe('aborted')
  })

  test.each([[1205], [1317], [1053], [2013], [1180], [1062]])(
    '%i as the answer to COMMIT leaves it unknown',
    errno => expect(atCommit(numbered(errno), 'mariadb')).toBe('unknown'),
  )

  test('what is no error of a database leaves COMMIT unknown', () =>
    expect(atCommit('what?', 'mariadb')).toBe('unknown'))

  test.each([
    numbered(1040),
    numbered(1203),
    Object.assign(new AggregateError([], ''), { code: 'ECONNREFUSED' }),
    new Error('Queue limit reached.'),
    new Error('Queue limit reached.', { cause: new Error('else') }),
    new SessionTxError('STORE_UNAVAILABLE', 'no', { cause: new Error('No connections available.') }),
  ])('no transaction existed: %s', error => {
    expect(isUnavailable(error)).toBe(true)
    expect(classify(error, 'mariadb')).toBeUndefined()
  })

  test('a pool that was ended is not opened again', () => {
    expect(isUnavailable(new Error('Pool is closed.'))).toBe(false)
  })

  test.each([1044, 1045, 1049, 1698])('%i is for the operator', errno => {
    expect(isAccessDenied(numbered(errno))).toBe(true)
    expect(isUnavailable(numbered(errno))).toBe(false)
  })
})

describe('inside what query builders throw', () => {
  const deadlock = Object.assign(new Error('Deadlock found'), { errno: 1213 })

  test.each(['cause', 'original', 'parent', 'driverError'])('as %s', key => {
    const wrapped = Object.assign(new Error('Query failed'), { [key]: { message: 'again', [key]: deadlock } })
    expect(findDatabaseError(wrapped)).toBe(deadlock)
  })

  test('among errors', () => {
    expect(findDatabaseError(new AggregateError([new Error('a'), deadlock]))).toBe(deadlock)
  })

  test('the wrapped one, not the wrapper that copied its number', () => {
    expect(findDatabaseError(Object.assign(new Error('w'), { errno: 1213, original: deadlock }))).toBe(
      deadlock,
    )
  })

  test('the first one, not those that were attached to it later', () => {
    const first = Object.assign(new Error('Deadlock found'), { errno: 1213 })
    Object.assign(first, { errors: [Object.assign(new Error('SAVEPOINT does not exist'), { errno: 1305 })] })
    expect(findDatabaseError({ cause: first })).toBe(first)
  })

  test('a circle ends', () => {
    const circle = new Error('a')
    circle.cause = { cause: circle }
    expect(findDatabaseError(circle)).toBeUndefined()
  })

  test("another service's reset connection is not the database's", () => {
    const reset = Object.assign(new Error('read ECONNRESET'), { code: 'ECONNRESET', errno: -104 })
    expect(classify(new TypeError('fetch failed', { cause: reset }), 'mariadb')).toBeUndefined()
    expect(classify(Object.assign(reset, { fatal: true }), 'mariadb')?.kind).toBe('connection')
  })

  test('a time-out while connecting lost nothing; one while reading lost a connection', () => {
    const connecting = Object.assign(new Error('connect ETIMEDOUT'), {
      code: 'ETIMEDOUT',
      fatal: true,
      syscall: 'connect',
    })
    expect([isUnavailable(connecting), classify(connecting, 'mariadb')]).toEqual([true, undefined])
    const reading = Object.assign(new Error('read ETIMEDOUT'), {
      code: 'ETIMEDOUT',
      fatal: true,
      syscall: 'read',
    })
    expect([isUnavailable(reading), classify(reading, 'mariadb')?.kind]).toEqual([false, 'connection'])
  })
})
