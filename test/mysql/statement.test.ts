/** What the text of a statement gives away; every doubt is on the safe side. */
import type { Dialect } from '../../lib/mysql/statement/lexer.js'
import { statementFacts as factsOf, type StatementFacts } from '../../lib/mysql/statement/facts.js'

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

describe('looks only at rows of one table, and locks them', () => {
  test.each([
    ['UPDATE t SET n = n + 1 WHERE id IN (1, 2)', 't'],
    ['UPDATE LOW_PRIORITY `t` AS x SET x.n = GREATEST(n, 1) ORDER BY id LIMIT 1', 't'],
    ['DELETE FROM s.t WHERE id = ?', 's.t'],
    ['INSERT INTO t (id, n) VALUES (1, 2), (3, 4) ON DUPLICATE KEY UPDATE n = VALUES(n)', 't'],
    ['INSERT IGNORE t VALUES (1, COALESCE(?, 0))', 't'],
    ['REPLACE INTO t SET id = 1, n = 2', 't'],
    ['SELECT n FROM t WHERE id = 1 ORDER BY id FOR UPDATE', 't'],
    ['select n from s.t where id = 1 lock in share mode', 's.t'],
    ['SELECT n FROM t WHERE id = 1 FOR UPDATE SKIP LOCKED', 't'],
  ])('%s', (sql, table) => {
    const { lockingOnly } = statementFacts(sql)
    expect([lockingOnly?.schema, lockingOnly?.name].filter(Boolean).join('.')).toBe(table)
  })

  test.each([
    ['a function that may be stored', 'UPDATE t SET n = peek() WHERE id = 1'],
    ['a function that may be stored', 'INSERT INTO t (id, n) VALUES (1, peek(2))'],
    ['a function that may be stored', 'SELECT peek(n) FROM t FOR UPDATE'],
    ['a subquery', 'UPDATE t SET n = (SELECT n FROM u) WHERE id = 1'],
    ['a subquery', 'DELETE FROM t WHERE id IN (SELECT id FROM u)'],
    ['a subquery', 'SELECT (SELECT n FROM u) FROM t FOR UPDATE'],
    ['rows of a SELECT', 'INSERT INTO t SELECT * FROM u'],
    ['rows of a SELECT', 'INSERT INTO t (id) (SELECT id FROM u)'],
    ['a second table', 'UPDATE t, u SET t.n = u.n WHERE t.id = u.id'],
    ['a second table', 'UPDATE t JOIN u ON t.id = u.id SET t.n = 1'],
    ['a second table', 'DELETE t FROM t, u WHERE t.id = u.id'],
    ['a second table', 'DELETE FROM t USING t, u WHERE t.id = u.id'],
    ['a second table', 'SELECT t.n FROM t, u FOR UPDATE'],
    ['a second table', 'SELECT t.n FROM t JOIN u ON t.id = u.id FOR UPDATE OF t'],
    ['what a CTE reads', 'WITH x AS (SELECT 1) SELECT * FROM t FOR UPDATE'],
    ['a view, as every SELECT that does not lock', 'SELECT n FROM t'],
    ['whatever else follows', 'UPDATE t SET n = 1; SELECT n FROM t'],
    ['what it calls', 'CALL p()'],
  ])('not where it reads %s: %s', (_, sql) => expect(statementFacts(sql).lockingOnly).toBeUndefined())
})

describe('certain to change no row', () => {
  test.each([
    'SELECT * FROM t WHERE id IN (1, 2) AND (a = 1 OR (b = 2))',
    'select count(*), max( a ), COALESCE (b, 0) from t group by (c)',
    'SELECT \'f(1)\', "g(1)" FROM t -- f(1)',
  ])('%s', sql => expect(statementFacts(sql).readsOnly).toBe(true))

  test.each([
    ['may call a stored function', 'SELECT f(1)'],
    ['may call a stored function', 'SELECT a FROM t WHERE b = my$f (a)'],
    ['may call one with a quoted name', 'SELECT `count`(1) FROM t'],
    ['may call one that is named like one of the server’s', 'SELECT shop.count(1), shop . max(a) FROM t'],
    ['moves a sequence', 'SELECT NEXTVAL(s)'],
    ['locks', 'SELECT a FROM t FOR UPDATE'],
    ['is something else', 'WITH x AS (SELECT 1) SELECT * FROM x'],
    ['is something else', 'UPDATE t SET a = 1'],
    ['is something else', 'CALL p()'],
  ])('is not one that %s: %s', (_, sql) => expect(statementFacts(sql).readsOnly).toBe(false))
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

describe('which tables are written', () => {
  const written = (sql: string): string[] =>
    statementFacts(sql).parts.flatMap(({ writes }) =>
      writes.map(({ schema, name }) => (schema === undefined ? name : `${schema}.${name}`)),
    )

  test.each([
    ['INSERT INTO Shop.`Item` VALUES (1)', ['Shop.Item']],
    ['INSERT INTO t PARTITION (p0) (a) VALUES (1)', ['t']],
    ['INSERT INTO `insert` SET `set` = 1', ['insert']],
    ['INSERT t VALUE (1)', ['t']],
    ['REPLACE DELAYED t SELECT * FROM u', ['t']],
    ["LOAD DATA LOCAL INFILE 'into table x' REPLACE INTO TABLE s.t FIELDS TERMINATED BY ','", ['s.t']],
    ["LOAD XML INFILE 'f' INTO TABLE t ROWS IDENTIFIED BY '<row>'", ['t']],
    ['UPDATE .t SET a = 1', ['t']],
    ["UPDATE t FOR PORTION OF p FROM '2000-01-01' TO '2001-01-01' SET a = 1", ['t']],
    ["DELETE FROM t FOR PORTION OF p FROM '2000-01-01' TO '2001-01-01'", ['t']],
    ['DELETE HISTORY FROM t BEFORE SYSTEM_TIME now()', ['t']],
    ['DELETE FROM t AS x WHERE x.a = 1', ['t']],
    ['UPDATE t x PARTITION (p0) SET x.a = 1', ['t']],
    ['WITH x AS (SELECT 1), y (a) AS (SELECT 2) UPDATE t JOIN x SET t.a = 1', ['t']],
    ['WITH RECURSIVE x AS (SELECT 1 UNION SELECT 2) DELETE t FROM t JOIN x', ['t']],
    ['UPDATE { OJ a LEFT JOIN b ON a.i = b.i } SET b.n = 1', ['b']],
    ['UPDATE s.t, u SET s.t.n = 1, u.n = (SELECT 1), s.t.m = CASE WHEN 1 THEN 2 ELSE 3 END', ['s.t', 'u']],
    ['UPDATE s1.t a, s2.t b SET b.n := 1 WHERE a.n IN (1, 2) ORDER BY 1', ['s2.t']],
    ['UPDATE t JOIN LATERAL (SELECT n FROM u) x SET t.n = x.n', ['t']],
    ['DELETE s.t FROM s.t JOIN u', ['s.t']],
    ['DELETE s.t FROM t JOIN u', ['t']],
    ['DELETE a, b FROM t a, u b, v', ['t', 'u']],
    ['DELETE FROM a.*, b.* USING t a JOIN u b', ['t', 'u']],
    ['SELECT 1; DELETE FROM t; UPDATE u SET a = 1', ['t', 'u']],
    ['PREPARE p FROM "DELETE FROM t"', []],
    ['SELECT * FROM t FOR UPDATE', []],
    ['EXPLAIN DELETE FROM t', []],
    ['DESC UPDATE t SET a = 1', []],
    ["INSERT INTO t VALUES ('x'); -- DELETE FROM u", ['t']],
    ['CREATE TEMPORARY TABLE x SELECT * FROM t', []],
  ])('%s: %j', (sql, tables) => expect(written(sql)).toEqual(tables))

  test.each([
    ['a column of which nobody says whose it is', 'UPDATE a JOIN b USING (i) SET n = 1', ['a', 'b']],
    ['a qualifier that is no table', 'UPDATE a, b SET c.n = 1', ['a', 'b']],
    ['a target that is no table', 'DELETE c FROM a JOIN b', ['a', 'b']],
  ])('%s may be of any: %s', (_, sql, tables) => expect(written(sql)).toEqual(tables))
})

test('temporary tables that come and go, and the schema in use', () => {
  const [made] = statementFacts('CREATE OR REPLACE TEMPORARY TABLE IF NOT EXISTS s.`T` (a int)').parts
  expect(made).toMatchObject({ effect: 'none', makesTemporary: { schema: 's', name: 'T' } })
  const [dropped] = statementFacts('DROP TEMPORARY TABLE IF EXISTS t, s.u').parts
  expect(dropped).toMatchObject({ dropsTemporary: [{ name: 't' }, { schema: 's', name: 'u' }] })
  expect(statementFacts('USE `Shop`').parts).toMatchObject([{ uses: 'Shop' }])
})

test('a text is examined once, unless it is so long that it will not come again', () => {
  expect(statementFacts('SELECT 1 FROM once')).toBe(statementFacts('SELECT 1 FROM once'))
  const long = `INSERT INTO t VALUES ('${"x\\'".repeat(400_000)}')`
  expect(statementFacts(long)).not.toBe(statementFacts(long))
  expect(statementFacts(long)).toMatchObject({ plainSelect: false, nowait: false, dirties: false })
})
