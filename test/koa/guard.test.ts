/**
 * What a handler may not send inside its transaction, seen by an application: refused before it is sent, named, with both
 * sides unchanged; and what slips through a trigger or a procedure: noticed, counted, and never run again.
 */
import mysql from 'mysql2/promise'
import type { KoaContext, SessionTxOptions } from '../../lib/index.js'
import { serveTx, type TxContext, type TxServed } from '../support/app.js'
import { promptly } from '../support/clock.js'
import { openDatabase, type TestDatabase } from '../support/database.js'
import { isUnlocked, nothingOpen, valueOf } from '../support/observing.js'

let db: TestDatabase
const undo: (() => unknown)[] = []
/** What the process warned of in this test. */
let warnings: string[] = []

beforeAll(async () => {
  db = await openDatabase({ connectionLimit: 4 })
  for (const sql of [
    'CREATE TABLE item (id INT PRIMARY KEY, n INT NOT NULL) ENGINE=InnoDB',
    'CREATE TABLE audited (id INT) ENGINE=InnoDB',
    'CREATE TABLE old (id INT NOT NULL) ENGINE=MyISAM',
    'CREATE TABLE aria (id INT NOT NULL) ENGINE=Aria',
    'CREATE TABLE memory (id INT NOT NULL) ENGINE=MEMORY',
    'CREATE TABLE csv (id INT NOT NULL) ENGINE=CSV',
    'CREATE TABLE merged (id INT NOT NULL) ENGINE=MERGE UNION=(old) INSERT_METHOD=LAST',
    'CREATE TABLE log (id INT NOT NULL) ENGINE=MyISAM',
    'CREATE TRIGGER writes_log AFTER INSERT ON audited FOR EACH ROW INSERT INTO log VALUES (NEW.id)',
    'CREATE VIEW over_log AS SELECT id FROM log',
    'CREATE PROCEDURE harmless() UPDATE item SET n = n + 1 WHERE id = 1',
    'CREATE PROCEDURE commits() BEGIN UPDATE item SET n = n + 1 WHERE id = 1; COMMIT; END',
    'CREATE PROCEDURE ddl() BEGIN UPDATE item SET n = n + 1 WHERE id = 1; CREATE OR REPLACE TABLE made (id INT); END',
    "CREATE PROCEDURE commits_and_fails() BEGIN COMMIT; SIGNAL SQLSTATE '45000'; END",
    'CREATE PROCEDURE commits_and_shows() BEGIN COMMIT; SELECT 1; END',
  ])
    await db.pool.query(sql)
})
afterAll(() => db.close())
beforeEach(async () => {
  warnings = []
  const spy = jest.spyOn(process, 'emitWarning').mockImplementation(text => void warnings.push(String(text)))
  undo.push(() => spy.mockRestore())
  await db.pool.query('REPLACE INTO item VALUES (1, 0), (2, 0)')
  for (const table of ['old', 'log', 'audited']) await db.pool.query(`DELETE FROM ${table}`)
})
afterEach(async () => {
  for (const one of undo.splice(0).reverse()) await one()
})

type Handler = (ctx: TxContext) => unknown

async function start(
  routes: Record<string, Handler>,
  options: SessionTxOptions<KoaContext> = {},
): Promise<TxServed> {
  const all: Record<string, Handler> = { '/': ctx => (ctx.body = { ...ctx.session }), ...routes }
  const served = await serveTx({
    environment: promptly,
    options: { pool: db.pool, ...options },
    below: async ctx => {
      await all[ctx.path]?.(ctx)
    },
  })
  undo.push(() => served.close())
  return served
}

const row = (id = 1): Promise<unknown> => valueOf(db, `SELECT n FROM ${db.name}.item WHERE id = ?`, [id])
const count = (table: string): Promise<unknown> => valueOf(db, `SELECT COUNT(*) FROM ${db.name}.${table}`)
const elsewhere = (sql: string): Promise<unknown> => db.admin.query(sql.replaceAll('item', `${db.name}.item`))

/** Writes both sides, then sends what it must not, and goes on if `swallow`. */
function sending(sql: string, swallow: boolean, runs: number[] = []): Handler {
  return async ctx => {
    runs.push(ctx.tx.attempt)
    ctx.session['n'] = 1
    await ctx.tx.query('UPDATE item SET n = 7 WHERE id = 1')
    const sent = ctx.tx.query(sql)
    await (swallow ? sent.catch(() => {}) : sent)
    await ctx.tx.query('UPDATE item SET n = 7 WHERE id = 2')
    ctx.body = 'done'
  }
}

describe.each([
  ['lets the refusal pass', false],
  ['catches it and goes on', true],
])('a handler that %s', (_, swallow) => {
  test.each([
    ['BEGIN', 'TRANSACTION_CONTROL', /^BEGIN was not sent: .*ctx\.tx\.savepoint/],
    ['/* x */ start\ntransaction', 'TRANSACTION_CONTROL', /^START TRANSACTION was not sent/],
    ['COMMIT', 'TRANSACTION_CONTROL', /^COMMIT was not sent: .*when the handler returns/],
    ['ROLLBACK', 'TRANSACTION_CONTROL', /^ROLLBACK was not sent: .*ctx\.tx\.doom\(\)/],
    ['ROLLBACK TO SAVEPOINT x', 'TRANSACTION_CONTROL', /^ROLLBACK TO was not sent: .*ctx\.tx\.savepoint/],
    ['SAVEPOINT x', 'TRANSACTION_CONTROL', /^SAVEPOINT was not sent: .*ctx\.tx\.savepoint/],
    ['SET TRANSACTION READ ONLY', 'TRANSACTION_CONTROL', /^SET TRANSACTION was not sent: .*isolation/],
    ["XA START 'x'", 'TRANSACTION_CONTROL', /^XA START was not sent: .*enlist/],
    ['CREATE TABLE made (id INT)', 'IMPLICIT_COMMIT', /^CREATE TABLE was not sent: .*migration/],
    ['ALTER TABLE item ADD COLUMN more INT', 'IMPLICIT_COMMIT', /^ALTER TABLE was not sent/],
    ['TRUNCATE TABLE item', 'IMPLICIT_COMMIT', /^TRUNCATE was not sent: .*DELETE/],
    ['LOCK TABLES item WRITE', 'IMPLICIT_COMMIT', /^LOCK TABLES was not sent: .*FOR UPDATE/],
    ['SET @x = 1, autocommit = 1', 'IMPLICIT_COMMIT', /^SET autocommit was not sent/],
    ['GRANT SELECT ON *.* TO nobody', 'IMPLICIT_COMMIT', /^GRANT was not sent/],
  ])('sends %s: %s, both sides rolled back, no re-run', async (sql, code, message) => {
    const runs: number[] = []
    const { client, errors, tx } = await start({
      '/': sending(sql, swallow, runs),
      '/see': ctx => (ctx.body = { ...ctx.session }),
    })
    const ann = client()
    await expect(ann.get('/')).resolves.toMatchObject({ status: 500 })
    expect(errors).toMatchObject([{ code, message: expect.stringMatching(message) as string }])
    expect(runs).toEqual([1])
    expect([await row(1), await row(2)]).toEqual([0, 0])
    expect((await ann.get('/see')).json()).toEqual({})
    expect(tx.stats().requests).toMatchObject({ rolledBack: 1, committed: 1 })
    expect(tx.stats().escaped.total).toBe(0)
    await nothingOpen(db)
  })
})

test('commitOnError does not commit over a refused order to the transaction', async () => {
  const { client } = await start({ '/': sending('COMMIT', false) }, { commitOnError: () => true })
  await expect(client().get('/')).resolves.toMatchObject({ status: 500 })
  expect(await row()).toBe(0)
})

test('a refused statement in a savepoint ends the attempt, too', async () => {
  const { client, errors } = await start({
    '/': async ctx => {
      await ctx.tx.query('UPDATE item SET n = 7 WHERE id = 1')
      await ctx.tx.savepoint(() => ctx.tx.query('COMMIT')).catch(() => {})
    },
  })
  await expect(client().get('/')).resolves.toMatchObject({ status: 500 })
  expect(errors).toMatchObject([{ code: 'TRANSACTION_CONTROL' }])
  expect(await row()).toBe(0)
})

describe('a table that cannot roll back', () => {
  test.each([
    ['old', 'MyISAM'],
    ['aria', 'Aria'],
    ['memory', 'MEMORY'],
    ['csv', 'CSV'],
    ['merged', 'MRG_MyISAM'],
  ])('%s is not written: the refusal names it and its engine %s', async (table, engine) => {
    const { client, errors, tx } = await start({ '/': sending(`INSERT INTO ${table} VALUES (1)`, false) })
    const before = await count(table)
    await expect(client().get('/')).resolves.toMatchObject({ status: 500 })
    expect(errors).toMatchObject([
      {
        code: 'NOT_TRANSACTIONAL',
        message: expect.stringMatching(new RegExp(`'${db.name}\\.${table}'.*${engine}`)) as string,
      },
    ])
    expect(await count(table)).toBe(before)
    expect(await row()).toBe(0)
    expect(tx.stats().escaped.total).toBe(0)
  })

  test('caught, the refusal harms nothing, and the rest commits', async () => {
    const { client } = await start({ '/': sending('INSERT INTO old VALUES (1)', true) })
    await expect(client().get('/')).resolves.toMatchObject({ status: 200, text: 'done' })
    expect([await row(1), await row(2), await count('old')]).toEqual([7, 7, 0])
  })

  test('may be read, and named where it is not written', async () => {
    await db.pool.query('INSERT INTO old VALUES (5)')
    const { client } = await start({
      '/': async ctx => {
        await ctx.tx.query('SELECT id FROM old')
        await ctx.tx.query("SELECT 'INSERT INTO old VALUES (1)' AS old")
        await ctx.tx.query('UPDATE item JOIN old ON old.id = 5 SET item.n = old.id WHERE item.id = 1')
        await ctx.tx.query('INSERT INTO item (id, n) SELECT id, id FROM old')
        await ctx.tx.query('DELETE old FROM item AS old WHERE old.id = 2')
        await ctx.tx.execute('EXPLAIN DELETE FROM old')
      },
    })
    await expect(client().get('/')).resolves.toMatchObject({ status: 404 })
    expect([await row(1), await row(2), await row(5), await count('old')]).toEqual([5, undefined, 5, 1])
    await db.pool.query('DELETE FROM item WHERE id = 5')
  })

  test.each([
    'insert into `old` values (1)',
    'REPLACE INTO $.old VALUES (1)',
    'DELETE FROM `$` . `old`',
    'UPDATE item, old SET old.id = 5',
    'UPDATE item, old SET id = 5',
    '/* ; */ INSERT /*!INTO*/ old SELECT 1',
    "LOAD DATA LOCAL INFILE '/nowhere' INTO TABLE old",
    'INSERT INTO item2 VALUES (1); INSERT INTO old VALUES (1)',
    'USE $; DELETE FROM old',
  ])('%s is refused, prepared or not', async sql => {
    const text = sql.replaceAll('$', db.name)
    const { client, errors } = await start({
      '/query': ctx => ctx.tx.query(text),
      '/execute': ctx => ctx.tx.execute({ sql: text }),
    })
    await client().get('/query')
    await client().get('/execute')
    expect(errors).toMatchObject([{ code: 'NOT_TRANSACTIONAL' }, { code: 'NOT_TRANSACTIONAL' }])
  })

  test('is found in a name or a raw text that mysql2 puts into the statement', async () => {
    const { client, errors } = await start({
      '/name': ctx => ctx.tx.query('INSERT INTO ?? VALUES (?)', ['old', 1]),
      '/options': ctx => ctx.tx.query({ sql: 'DELETE FROM ??.??', values: [db.name, 'old'] }),
      '/raw': ctx => ctx.tx.query('DELETE FROM ?', [mysql.raw('old')]),
      '/control': ctx => ctx.tx.query('?', [mysql.raw('COMMIT')]),
      '/innodb': async ctx => {
        await ctx.tx.query('UPDATE ?? SET ? WHERE id = 1', ['item', { n: 5 }])
        await ctx.tx.query('SELECT ? AS text', ['x; DELETE FROM old'])
        ctx.body = 'done'
      },
    })
    for (const path of ['/name', '/options', '/raw', '/control']) await client().get(path)
    expect(errors.map(error => (error as { code: string }).code)).toEqual([
      ...Array<string>(3).fill('NOT_TRANSACTIONAL'),
      'TRANSACTION_CONTROL',
    ])
    await expect(client().get('/innodb')).resolves.toMatchObject({ status: 200 })
    expect([await row(), await count('old')]).toEqual([5, 0])
  })

  test('younger than the list of tables, it is looked up before it is written', async () => {
    const { client, errors } = await start({
      '/warm': ctx => ctx.tx.query('SELECT n FROM item'),
      '/': ctx => ctx.tx.query('INSERT INTO young VALUES (1)'),
    })
    await client().get('/warm')
    await db.pool.query('CREATE TABLE young (id INT) ENGINE=MyISAM')
    undo.push(() => db.pool.query('DROP TABLE young'))
    await client().get('/')
    expect(errors).toMatchObject([{ code: 'NOT_TRANSACTIONAL' }])
    expect(await count('young')).toBe(0)
    // And once it can roll back, it is written.
    await db.pool.query('ALTER TABLE young ENGINE=InnoDB')
    await client().get('/')
    expect(await count('young')).toBe(1)
  })

  test('of the attempt’s own connection is written: it is gone with it, and is no alarm', async () => {
    const { client, tx } = await start({
      '/': async ctx => {
        await ctx.tx.query('CREATE TEMPORARY TABLE old (id INT) ENGINE=MEMORY')
        await ctx.tx.query('INSERT INTO old VALUES (1), (2)')
        await ctx.tx.query('UPDATE item SET n = (SELECT COUNT(*) FROM old) WHERE id = 1')
        if (ctx.query['fail']) throw new Error('a bug')
      },
      '/dropped': async ctx => {
        await ctx.tx.query('CREATE TEMPORARY TABLE old (id INT) ENGINE=MEMORY')
        await ctx.tx.query('DROP TEMPORARY TABLE old')
        await ctx.tx.query('INSERT INTO old VALUES (1)')
      },
    })
    await client().get('/?fail=1')
    expect([await row(), await count('old')]).toEqual([0, 0])
    await client().get('/')
    expect([await row(), await count('old')]).toEqual([2, 0])
    expect(tx.stats().escaped.total).toBe(0)
    await expect(client().get('/dropped')).resolves.toMatchObject({ status: 500 })
  })
})

describe("nonTransactionalTables: 'warn'", () => {
  test('the statement is sent and counted; the request commits, and warns once per route', async () => {
    const heard: unknown[] = []
    const { client, tx } = await start(
      { '/': sending('INSERT INTO old VALUES (1)', false) },
      { nonTransactionalTables: 'warn' },
    )
    tx.on('escaped', event => heard.push(event))
    await expect(client().get('/')).resolves.toMatchObject({ status: 200 })
    await client().get('/')
    expect([await row(), await count('old')]).toEqual([7, 2])
    expect(heard).toMatchObject(
      Array(2).fill({ reason: 'nonTransactional', table: 'old', attempt: 1, route: '(unmatched)' }),
    )
    expect(tx.stats().escaped).toEqual({
      total: 2,
      byReason: { nonTransactional: 2 },
      byRoute: { '(unmatched)': 2 },
    })
    expect(tx.stats().notRerunnable).toEqual({ nonTransactional: 2 })
    expect(warnings).toMatchObject([expect.stringContaining("wrote to table 'old' that cannot roll back")])
  })

  test('after a lost race it is not run again: the row would be there twice', async () => {
    const { client, tx, errors } = await start(
      {
        '/': async ctx => {
          await ctx.tx.query('INSERT INTO old VALUES (1)')
          ctx.tx.conflict('as an example')
        },
      },
      { nonTransactionalTables: 'warn' },
    )
    await expect(client().get('/')).resolves.toMatchObject({ status: 503 })
    expect(errors).toMatchObject([
      { code: 'NOT_RERUNNABLE', message: expect.stringContaining('cannot roll back') as string },
    ])
    expect(await count('old')).toBe(1)
    expect(tx.stats()).toMatchObject({ refused: { NOT_RERUNNABLE: 1 }, escaped: { total: 1 } })
  })
})

describe('what a trigger or a view writes to a table that cannot roll back', () => {
  test.each(['INSERT INTO audited VALUES (1)', 'INSERT INTO over_log VALUES (1)'])(
    '%s: noticed when the request is rolled back',
    async sql => {
      const { client, tx, errors } = await start({
        '/': async ctx => {
          ctx.session['n'] = 1
          await ctx.tx.query(sql)
          throw new TypeError('a bug')
        },
      })
      await client().get('/')
      await client().get('/')
      expect(errors).toMatchObject(Array(2).fill({ message: 'a bug' }))
      expect([await count('log'), await count('audited')]).toEqual([2, 0])
      expect(tx.stats().escaped).toMatchObject({ total: 2, byReason: { nonTransactional: 2 } })
      expect(warnings).toHaveLength(1)
    },
  )

  test('after 1020, where the server has rolled back by itself: noticed, and not run again', async () => {
    const runs: number[] = []
    const { client, tx, errors } = await start({
      '/': async ctx => {
        runs.push(ctx.tx.attempt)
        await ctx.tx.query('INSERT INTO audited VALUES (1)')
        await ctx.tx.query('SELECT n FROM item WHERE id = 1')
        await elsewhere('UPDATE item SET n = n + 10 WHERE id = 1')
        await ctx.tx.query('UPDATE item SET n = n + 1 WHERE id = 1')
      },
    })
    await expect(client().get('/')).resolves.toMatchObject({ status: 503 })
    expect(errors).toMatchObject([{ code: 'NOT_RERUNNABLE', cause: { code: 'CONFLICT' } }])
    expect(runs).toEqual([1])
    expect([await row(), await count('log')]).toEqual([10, 1])
    expect(tx.stats()).toMatchObject({
      escaped: { total: 1 },
      refused: { NOT_RERUNNABLE: 1 },
      conflicts: { byKind: { row: 1 } },
    })
  })

  test('after a conflict of the session, too', async () => {
    const { client, errors } = await start({
      '/': async ctx => {
        await ctx.tx.query('INSERT INTO audited VALUES (1)')
        ctx.tx.conflict('as an example')
      },
    })
    await client().get('/')
    expect(errors).toMatchObject([{ code: 'NOT_RERUNNABLE' }])
    expect(await count('log')).toBe(1)
  })

  test('a temporary table that was made before it is none: the server warns, and nobody else does', async () => {
    const { client, tx } = await start({
      '/': async ctx => {
        await ctx.tx.query('CREATE TEMPORARY TABLE made (a INT) ENGINE=InnoDB')
        await ctx.tx.savepoint(() => Promise.reject(new Error('back'))).catch(() => {})
        if (ctx.tx.attempt === 1) ctx.tx.conflict('as an example')
        ctx.body = `attempt ${ctx.tx.attempt}`
      },
    })
    expect((await client().get('/')).text).toBe('attempt 2')
    expect(tx.stats().escaped.total).toBe(0)
  })

  test('at a savepoint that was gone back to', async () => {
    const { client, tx } = await start({
      '/': async ctx => {
        await ctx.tx.query('UPDATE item SET n = 7 WHERE id = 1')
        await ctx.tx
          .savepoint(async () => {
            await ctx.tx.query('INSERT INTO audited VALUES (1)')
            throw new Error('back')
          })
          .catch(() => {})
        ctx.body = 'done'
      },
    })
    await expect(client().get('/')).resolves.toMatchObject({ status: 200 })
    expect([await row(), await count('log'), await count('audited')]).toEqual([7, 1, 0])
    expect(tx.stats().escaped.total).toBe(1)
  })

  test('is no alarm when the request commits', async () => {
    const { client, tx } = await start({ '/': ctx => ctx.tx.query('INSERT INTO audited VALUES (1)') })
    await client().get('/')
    expect([await count('log'), tx.stats().escaped.total]).toEqual([1, 0])
  })
})

describe('a procedure that ends the transaction from within', () => {
  test.each([
    ['first of all', 'CALL commits()', []],
    ['after a statement that opened nothing', 'CALL commits()', ['SELECT 1']],
    ['after a read', 'CALL commits()', ['SELECT n FROM item']],
    ['after a write', 'CALL commits()', ['UPDATE item SET n = 7 WHERE id = 2']],
    ['by DDL', 'CALL ddl()', []],
    ['and fails afterwards', 'CALL commits_and_fails()', []],
    ['and answers with rows', 'CALL commits_and_shows()', []],
    [
      'from a text that is put together',
      "EXECUTE IMMEDIATE CONCAT('COMM', 'IT')",
      ['UPDATE item SET n = 7 WHERE id = 2'],
    ],
  ])('%s: IMPLICIT_COMMIT, an alarm, no re-run', async (_, call, before) => {
    for (const swallow of [false, true]) {
      const runs: number[] = []
      const { client, tx, errors } = await start({
        '/': async ctx => {
          runs.push(ctx.tx.attempt)
          ctx.session['n'] = 1
          for (const sql of before) await ctx.tx.query(sql)
          const called = ctx.tx.query(call)
          await (swallow ? called.catch(() => {}) : called)
          if (swallow) ctx.tx.conflict('it must not run again')
        },
        '/see': ctx => (ctx.body = { ...ctx.session }),
      })
      const ann = client()
      await expect(ann.get('/')).resolves.toMatchObject({ status: swallow ? 503 : 500 })
      expect(errors).toMatchObject([{ code: swallow ? 'NOT_RERUNNABLE' : 'IMPLICIT_COMMIT' }])
      expect(runs).toEqual([1])
      expect((await ann.get('/see')).json()).toEqual({})
      expect(tx.stats().escaped).toMatchObject({ total: 1, byReason: { implicitCommit: 1 } })
      await nothingOpen(db)
    }
  })

  test('one that does not is part of the transaction', async () => {
    const { client, tx } = await start({
      '/': async ctx => {
        await ctx.tx.query('CALL harmless()')
        if (ctx.query['fail']) throw new Error('a bug')
      },
    })
    await client().get('/?fail=1')
    expect(await row()).toBe(0)
    expect(await isUnlocked(db, 'item', 1)).toBe(true)
    await client().get('/')
    expect([await row(), tx.stats().escaped.total]).toEqual([1, 0])
  })
})
