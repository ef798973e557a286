/** `session-tx doctor` on a real server: what it sees of it, and that it changes nothing. */
import mysql from 'mysql2/promise'
import { openDatabase, type TestDatabase } from '../support/database.js'
import { run } from './command.js'

let db: TestDatabase
beforeEach(async () => {
  db = await openDatabase({ connectionLimit: 1 })
})
afterEach(() => db.close())

const lineWith = (said: string, text: string): string =>
  said.split('\n').find(line => line.includes(text)) ?? `(no line with ${text})`

test('a server that is well: no problem, and what was looked at', async () => {
  await db.pool.query('CREATE TABLE item (id INT PRIMARY KEY) ENGINE=InnoDB')
  await run('migrate', '--apply', '--url', db.url)
  const { code, said, complained } = await run('doctor', '--url', db.url)
  expect([code, complained]).toEqual([0, ''])
  expect(lineWith(said, 'the server is')).toMatch(/^(ok|advice) +the server is (MariaDB|Galera) \d+\.\d+/)
  expect(lineWith(said, 'can roll back')).toMatch(/^ok +every table can roll back \(InnoDB: 4\)$/)
  expect(lineWith(said, 'trigger')).toMatch(/^ok +no table has a trigger$/)
  expect(lineWith(said, 'mysqlStore')).toMatch(/^ok +the tables of mysqlStore\(\) are there$/)
  expect(lineWith(said, 'commit record')).toMatch(/^ok +the table of the commit record is there$/)
  expect(lineWith(said, 'clocks')).toMatch(/ \d+ ms apart/)
  expect(lineWith(said, 'round trip')).toMatch(/takes \d+\.\d ms/)
  expect(said).toMatch(/\n0 problems, \d+ pieces? of advice$/)
})

test('tables that cannot roll back are a problem, each with its engine; tables of ours that are missing are advice', async () => {
  await db.pool.query('CREATE TABLE log (id INT PRIMARY KEY) ENGINE=MyISAM')
  await db.pool.query('CREATE TABLE cache (id INT PRIMARY KEY) ENGINE=MEMORY')
  const { code, said } = await run('doctor', '--url', db.url)
  expect(code).toBe(1)
  expect(lineWith(said, 'cannot roll back')).toMatch(
    /^problem .*: cache \(MEMORY\), log \(MyISAM\)\. ALTER TABLE/,
  )
  expect(lineWith(said, 'mysqlStore')).toMatch(
    /^advice +not there: sessions, sessions_times\. .*--only sessions/,
  )
  expect(lineWith(said, 'sessiontx_commits')).toMatch(/^advice +not there/)
  expect(said).toMatch(/\n1 problem, /)
})

test('a table with a trigger is named; who may not see triggers is told what that costs', async () => {
  await db.pool.query('CREATE TABLE watched (id INT PRIMARY KEY) ENGINE=InnoDB')
  await db.pool.query('CREATE TRIGGER looks BEFORE INSERT ON watched FOR EACH ROW SET @seen = 1')
  expect(lineWith((await run('doctor', '--url', db.url)).said, 'trigger')).toMatch(
    /^ok +triggers are on watched;/,
  )
  const name = `doctor_${process.pid}`
  await db.pool.query(`CREATE USER '${name}'@'%' IDENTIFIED BY 'x'`)
  try {
    await db.pool.query(
      `GRANT SELECT, INSERT, UPDATE, DELETE ON \`${db.name.replaceAll('_', '\\_')}\`.* TO '${name}'@'%'`,
    )
    const url = new URL(db.url)
    url.username = name
    url.password = 'x'
    expect(lineWith((await run('doctor', '--url', url.href)).said, 'TRIGGER')).toMatch(
      /^advice +this account lacks/,
    )
    await db.pool.query(`GRANT TRIGGER ON \`${db.name.replaceAll('_', '\\_')}\`.* TO '${name}'@'%'`)
    expect(lineWith((await run('doctor', '--url', url.href)).said, 'trigger')).toMatch(
      /^ok +triggers are on watched;/,
    )
  } finally {
    await db.pool.query(`DROP USER '${name}'@'%'`)
  }
})

test('more connections than the server lets in are a problem', async () => {
  const { code, said } = await run('doctor', '--url', db.url, '--connections', '50000', '--processes', '2')
  expect(code).toBe(1)
  expect(lineWith(said, 'connections of')).toMatch(/^problem +too many: 2 × 50000 connections/)
})

test('nothing is left behind: no connection, no table', async () => {
  await run('doctor', '--url', db.url)
  const admin = await mysql.createConnection({ uri: db.url })
  const [tables] = await admin.query('SHOW TABLES')
  expect(tables).toEqual([])
  await admin.end()
})

test.each([
  [['--url', 'nonsense'], '--url must be like'],
  [['--url', 'mysql://root@127.0.0.1'], '--url must name the database'],
  [['--url', 'mysql://root@127.0.0.1/x', '--processes', '0'], '--processes must be a whole number'],
  [['--colour'], "Unknown option '--colour'"],
])('%p is used wrongly: a sentence, how it is used, exit code 2', async (args, sentence) => {
  const { code, complained } = await run('doctor', ...args)
  expect(code).toBe(2)
  expect(complained).toContain(sentence)
  expect(complained).toContain('session-tx doctor --url')
})

test('a server that does not answer: exit code 1, a sentence, and no password in it', async () => {
  const { code, complained } = await run('doctor', '--url', 'mysql://root:secret@127.0.0.1:1/x')
  expect([code, complained]).toEqual([1, expect.stringContaining('ECONNREFUSED')])
  expect(complained).not.toContain('secret')
})
