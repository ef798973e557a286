/**
 * The application's direct use of a pool is noticed once per use, and fails as callers of each flavour
 * expect.
 */
import { createPool, type Pool } from 'mysql2'
import { corePoolOf, type CorePool } from '../../lib/mysql/driver.js'
import { markOwnUse, watchPool } from '../../lib/mysql/stray-queries.js'
import { openDatabase, type TestDatabase } from '../support/database.js'

let db: TestDatabase
let pool: Pool
let core: CorePool
const refused = new Error('refused')

beforeAll(async () => {
  db = await openDatabase()
  pool = createPool({ uri: db.url, connectionLimit: 1 })
  core = corePoolOf(pool)
})
afterAll(async () => {
  await pool.promise().end()
  await db.close()
})

const methods = ['getConnection', 'query', 'execute'] as const

test('each use is heard of once, in either flavour', async () => {
  const log: string[] = []
  const unwatch = watchPool(core, method => {
    log.push(method)
    return 'allow'
  })
  await pool.promise().query('SELECT 1')
  await pool.promise().execute('SELECT 1')
  ;(await pool.promise().getConnection()).release()
  await new Promise(resolve => pool.query('SELECT 1', resolve))
  await new Promise(resolve => pool.query('SELECT 1').on('end', resolve))
  unwatch()
  await pool.promise().query('SELECT 1')
  expect(log).toEqual(['query', 'execute', 'getConnection', 'query', 'query'])
})

test('our own are not heard of', async () => {
  const unwatch = watchPool(core, () => refused)
  await new Promise<void>((resolve, reject) => {
    const answer = markOwnUse((error, connection) => {
      connection?.release()
      return error ? reject(error) : resolve()
    })
    core.getConnection(answer)
  })
  unwatch()
})

test('one that waited in the queue while its connection died is heard of once', async () => {
  const holder = await pool.promise().getConnection()
  const log: string[] = []
  const unwatch = watchPool(core, method => {
    log.push(method)
    return log.length > 1 ? refused : 'allow'
  })
  const queued = pool.promise().query('SELECT 1')
  holder.destroy()
  await queued
  unwatch()
  expect(log).toEqual(['query'])
})

test('what is refused fails as its callers expect, and takes no connection', async () => {
  const unwatch = watchPool(core, () => refused)
  const taken = jest.fn()
  pool.on('acquire', taken)
  await expect(pool.promise().query('SELECT 1')).rejects.toThrow('refused')
  await expect(pool.promise().execute('SELECT 1')).rejects.toThrow('refused')
  await expect(pool.promise().getConnection()).rejects.toThrow('refused')
  expect(await new Promise(resolve => pool.query('SELECT 1', resolve))).toBe(refused)
  expect(await new Promise(resolve => pool.execute('SELECT 1', [], resolve))).toBe(refused)
  expect(await new Promise(resolve => pool.getConnection(resolve))).toBe(refused)
  expect(await new Promise(resolve => pool.query('SELECT 1').on('error', resolve))).toBe(refused)
  expect(() => pool.execute('SELECT 1')).toThrow('refused')
  expect(taken).not.toHaveBeenCalled()
  pool.removeListener('acquire', taken)
  unwatch()
  await pool.promise().query('SELECT 1')
})

test('two watchers both hear, either can refuse, and the last one puts back what was there', async () => {
  const log: string[] = []
  const before = methods.map(name => [Object.getOwnPropertyDescriptor(pool, name), pool[name]])
  const first = watchPool(core, () => (log.push('first'), 'allow'))
  const second = watchPool(core, () => (log.push('second'), refused))
  await expect(pool.promise().query('SELECT 1')).rejects.toThrow('refused')
  first()
  first()
  await expect(pool.promise().query('SELECT 1')).rejects.toThrow('refused')
  second()
  expect(log).toEqual(['first', 'second', 'second'])
  expect(methods.map(name => [Object.getOwnPropertyDescriptor(pool, name), pool[name]])).toEqual(before)
})

test("another wrapper's method is put back as it was, and one that came later is left alone", async () => {
  const own = pool.query
  const traced = jest.fn(own)
  pool.query = traced as unknown as typeof own
  const unwatch = watchPool(core, () => 'allow')
  await pool.promise().query('SELECT 1')
  expect(traced).toHaveBeenCalledTimes(1)
  unwatch()
  expect(pool.query).toBe(traced)

  const heard = jest.fn(() => 'allow' as const)
  const again = watchPool(core, heard)
  const ours = pool.query
  const later = ((...args: unknown[]) => Reflect.apply(ours, pool, args)) as typeof own
  pool.query = later
  again()
  expect(pool.query).toBe(later)
  await pool.promise().query('SELECT 1')
  expect(heard).not.toHaveBeenCalled()
  Reflect.deleteProperty(pool, 'query')
})
