/** `session-tx migrate`: what it prints, what it creates, what it refuses, and with which exit code. */
import { tables as tablesOf } from '../../lib/cli/tables.js'
import { openDatabase, type TestDatabase } from '../support/database.js'
import { valueOf } from '../support/observing.js'
import { run } from './command.js'

let db: TestDatabase
beforeEach(async () => {
  db = await openDatabase({ connectionLimit: 1 })
})
afterEach(() => db.close())

const tables = (): Promise<unknown> =>
  valueOf(
    db,
    'SELECT GROUP_CONCAT(TABLE_NAME ORDER BY TABLE_NAME) FROM information_schema.TABLES WHERE TABLE_SCHEMA = ?',
    [db.name],
  )

const ALL = 'sessions,sessions_times,sessiontx_commits'

describe('printing', () => {
  test.each([[[]], [['--print']]])('%p prints SQL that creates every table, and nothing else', async args => {
    const { code, said, complained } = await run('migrate', ...args)
    expect([code, complained]).toEqual([0, ''])
    for (const { ddl, purpose } of tablesOf()) {
      expect(said).toContain(`-- ${purpose}\n`)
      expect(said).toContain(`${ddl};`)
    }
    for (const statement of said.split(';').filter(text => text.trim() !== '')) await db.pool.query(statement)
    expect(await tables()).toBe(ALL)
  })

  test('--only and --sessions choose tables and their names', async () => {
    const { said } = await run('migrate', '--only', 'sessions', '--sessions', 'web_logins')
    expect(said.match(/EXISTS `\w+`/g)).toEqual(['EXISTS `web_logins`', 'EXISTS `web_logins_times`'])
    const commits = await run('migrate', '--only', 'commits')
    expect(commits.said.match(/CREATE TABLE/g)).toHaveLength(1)
  })
})

describe('applying', () => {
  test('creates what is missing, says so, and the second time changes nothing', async () => {
    const first = await run('migrate', '--apply', '--url', db.url)
    expect(first).toEqual({
      code: 0,
      said:
        "created sessiontx_commits (commit records, for commitRecord: 'always' and for redisStore)\n" +
        'created sessions (sessions, for store: mysqlStore())\n' +
        'created sessions_times (sessions, for store: mysqlStore())',
      complained: '',
    })
    expect(await tables()).toBe(ALL)
    await db.pool.query("INSERT INTO sessiontx_commits VALUES ('kept', 1, 'x', 'C', NOW())")
    const second = await run('migrate', '--apply', '--url', db.url)
    expect(second.said.match(/is there already; nothing was changed/g)).toHaveLength(3)
    expect(await valueOf(db, `SELECT slot FROM ${db.name}.sessiontx_commits`)).toBe('kept')
  })

  test('the URL can come from MYSQL_URL', async () => {
    const before = process.env['MYSQL_URL']
    process.env['MYSQL_URL'] = db.url
    try {
      expect((await run('migrate', '--apply')).code).toBe(0)
    } finally {
      process.env['MYSQL_URL'] = before
    }
    expect(await tables()).toBe(ALL)
  })

  test.each([
    ['other columns', '(slot INT, state INT) ENGINE=InnoDB', 'has no column seq, txid, seen_at'],
    [
      'another engine',
      '(slot INT, seq INT, txid INT, state INT, seen_at INT) ENGINE=MyISAM',
      'its engine is MyISAM',
    ],
  ])('a table of that name with %s is left alone and complained of', async (_, definition, complaint) => {
    await db.pool.query(`CREATE TABLE sessiontx_commits ${definition}`)
    const { code, said, complained } = await run('migrate', '--apply', '--only', 'commits', '--url', db.url)
    expect([code, said]).toEqual([1, ''])
    expect(complained).toContain(complaint)
  })

  test('what the server refuses is a sentence', async () => {
    const url = new URL(db.url)
    url.pathname = '/not_there'
    const { code, complained } = await run('migrate', '--apply', '--url', url.href)
    expect(code).toBe(1)
    expect(complained).toMatch(/^session-tx: .*not_there/)
  })

  test('so is a server that does not answer', async () => {
    const { code, complained } = await run('migrate', '--apply', '--url', 'mysql://root@127.0.0.1:1/shop')
    expect(code).toBe(1)
    expect(complained).toMatch(/^session-tx: .*ECONNREFUSED/)
  })
})

describe('used wrongly: exit code 2, a sentence and the usage, and never a password', () => {
  test.each<readonly [string, readonly string[], RegExp]>([
    ['no such command', ['migrat'], /no command 'migrat'; there is migrate/],
    ['an inherited name', ['toString'], /no command 'toString'/],
    ['an unknown option', ['migrate', '--aply'], /--aply/],
    ['both', ['migrate', '--apply', '--print'], /choose one of --print and --apply/],
    ['no URL', ['migrate', '--apply', '--url', ''], /--apply needs --url mysql:/],
    [
      'no URL at all',
      ['migrate', '--apply', '--url', 'root:secret@localhost/shop'],
      /--url must be like mysql:/,
    ],
    [
      'another database',
      ['migrate', '--apply', '--url', 'postgres://root:secret@localhost/shop'],
      /--url must be like/,
    ],
    ['another part', ['migrate', '--only', 'all'], /--only must be sessions or commits/],
    ['no name of a table', ['migrate', '--sessions', 'a`b'], /--sessions must be a name/],
    [
      'no database in it',
      ['migrate', '--apply', '--url', 'mysql://root:secret@localhost'],
      /must name the database/,
    ],
  ])('%s', async (_, args, sentence) => {
    const { code, said, complained } = await run(...args)
    expect([code, said]).toEqual([2, ''])
    expect(complained).toMatch(sentence)
    expect(complained).toContain('session-tx migrate [--print]')
    expect(complained).not.toContain('secret')
  })

  test('asked for help it shows the usage', async () => {
    for (const args of [['--help'], ['migrate', '--help'], ['help']]) {
      const { code, said } = await run(...args)
      expect([code, said.includes('--apply --url')]).toEqual([0, true])
    }
    expect((await run()).code).toBe(2)
  })
})
