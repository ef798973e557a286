/** What the text of a statement gives away; every doubt is on the safe side. */
import type { Dialect } from '../../lib/mysql/lexer.js'
import { statementFacts as factsOf, type StatementFacts } from '../../lib/mysql/statement.js'

const MARIADB: Dialect = { mariadb: true, version: 101_119, ansiQuotes: false, backslashEscapes: true }
const statementFacts = (sql: string): StatementFacts => factsOf(sql, MARIADB)

describe('a plain SELECT', () => {
  test.each([
    'SELECT * FROM t WHERE id = ?',
    '  (select 1 from t)',
    '/* why */ -- who\n# when\nSELECT a FROM t',
    "SELECT 'for update', \"into\", `into`, 'it''s; \\' into' FROM t",
    'SELECT a FROM t WHERE id IN (SELECT id FROM u);',
    'SELECT a FROM t -- for update',
  ])('%s', sql => expect(statementFacts(sql).plainSelect).toBe(true))

  test.each([
    ['locks', 'SELECT * FROM t FOR UPDATE'],
    ['locks', 'select * from t for\n share skip locked'],
    ['locks', 'SELECT * FROM t LOCK  IN SHARE MODE'],
    ['locks in a subquery', 'SELECT (SELECT a FROM t LIMIT 1 FOR UPDATE)'],
    ['locks in a comment that is code', 'SELECT * FROM t /*!50000 FOR UPDATE */'],
    ['locks in a comment that is code for MariaDB', 'SELECT * FROM t /*M!100100 FOR UPDATE*/'],
    ['stores', 'SELECT a INTO @a FROM t'],
    ['is followed by something else', 'SELECT 1; UPDATE t SET a = 1'],
    ['names no base table', 'SELECT * FROM (SELECT * FROM t) x'],
    ['names no base table', 'SELECT * FROM a JOIN ( (SELECT * FROM t) ) x'],
    ['is something else', 'WITH x AS (SELECT * FROM t) SELECT * FROM x'],
    ['is something else', 'UPDATE t SET a = 1'],
    ['is something else', 'SELECTED'],
    ['is something else', ''],
  ])('is not one that %s: %s', (_, sql) => expect(statementFacts(sql).plainSelect).toBe(false))
})

test.each([
  ['SELECT * FROM t FOR UPDATE NOWAIT', true],
  ['SELECT * FROM t FOR UPDATE WAIT 3', true],
  ['SELECT * FROM t FOR UPDATE SKIP LOCKED', true],
  ['ALTER TABLE t nowait ADD a int', true],
  ["SELECT * FROM t WHERE a = 'NOWAIT' FOR UPDATE", false],
  ['SELECT `nowait` FROM t', false],
])('%s refuses to wait: %s', (sql, nowait) => expect(statementFacts(sql).nowait).toBe(nowait))

describe('what may leave something behind', () => {
  test.each([
    "SELECT GET_LOCK('a', 1)",
    "INSERT INTO t VALUES (get_lock ('a', 1))",
    'LOCK TABLES t WRITE',
    'CREATE TEMPORARY TABLE x (a int)',
    'CREATE OR REPLACE TEMPORARY TABLE x (a int)',
    'SET SESSION sql_mode = 1',
    'SET @@global.x = 1',
    'SET NAMES utf8',
    'set autocommit = 1',
    'SET @x = 1',
    'SELECT @x := 1',
    'SELECT a INTO @x FROM t',
    "PREPARE p FROM 'SELECT 1'",
    'USE other',
    'HANDLER t OPEN',
    'FLUSH TABLES WITH READ LOCK',
    'CALL p()',
    '/* c */ SET @x = 1',
    'SELECT 1; SET @x = 1',
    '/*!40101 SET NAMES utf8 */',
  ])('%s', sql => expect(statementFacts(sql).dirties).toBe(true))

  test.each([
    'UPDATE t SET a = 1',
    "INSERT INTO t VALUES ('set @x := 1', 'GET_LOCK(1)')",
    'INSERT INTO t (`set`) VALUES (1) -- := ',
    'SELECT @x',
    'CREATE TABLE temporary_things (a int)',
    'DELETE FROM t',
  ])('but not %s', sql => expect(statementFacts(sql).dirties).toBe(false))
})

test('a text is examined once, unless it is so long that it will not come again', () => {
  expect(statementFacts('SELECT 1 FROM once')).toBe(statementFacts('SELECT 1 FROM once'))
  const long = `INSERT INTO t VALUES ('${"x\\'".repeat(400_000)}')`
  expect(statementFacts(long)).not.toBe(statementFacts(long))
  expect(statementFacts(long)).toMatchObject({ plainSelect: false, nowait: false, dirties: false })
})
