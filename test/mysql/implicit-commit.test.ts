/**
 * What the text of a statement says about the transaction, against what MariaDB does: each statement runs inside a
 * transaction that has written a row, then everything is rolled back, and the row says whether it was committed before.
 */
import mysql, { type Connection } from 'mysql2/promise'
import type { Dialect } from '../../lib/mysql/statement/lexer.js'
import { statementFacts } from '../../lib/mysql/statement/facts.js'
import { openDatabase, type TestDatabase } from '../support/database.js'
import { valueOf } from '../support/observing.js'

const DIALECT: Dialect = { mariadb: true, version: 101_119, ansiQuotes: false, backslashEscapes: true }

let db: TestDatabase
let connection: Connection
let marker = 0
const undo: string[] = []

beforeAll(async () => {
  db = await openDatabase()
  connection = await mysql.createConnection({ uri: db.url, multipleStatements: true })
  const { name } = db
  undo.push(`DROP USER IF EXISTS u_${name}, v_${name}`, `DROP ROLE IF EXISTS r_${name}, s_${name}`)
  undo.push(`DROP SERVER IF EXISTS s_${name}`, `DROP DATABASE IF EXISTS x_${name}`)
  for (const sql of [
    'CREATE TABLE marker (id INT PRIMARY KEY) ENGINE=InnoDB',
    'CREATE TABLE item (id INT PRIMARY KEY, n INT NOT NULL) ENGINE=InnoDB',
    'INSERT INTO item VALUES (1, 1)',
    'CREATE TABLE gone (id INT) ENGINE=InnoDB',
    'CREATE TABLE old (id INT, KEY (id)) ENGINE=MyISAM',
    'CREATE EVENT ev ON SCHEDULE EVERY 1 DAY DISABLE DO SELECT 1',
    'CREATE FUNCTION fn() RETURNS INT RETURN 1',
    'CREATE PROCEDURE harmless() UPDATE item SET n = n',
    'CREATE PROCEDURE commits() COMMIT',
    'CREATE PROCEDURE ddl() TRUNCATE TABLE gone',
    'CREATE VIEW vi AS SELECT 1 AS one',
    'CREATE SEQUENCE sq',
    `CREATE USER u_${name}`,
    `CREATE ROLE r_${name}`,
    `CREATE SERVER s_${name} FOREIGN DATA WRAPPER mysql OPTIONS (HOST 'x')`,
    'CREATE TEMPORARY TABLE tmp (id INT)',
    'CREATE TEMPORARY TABLE tmp2 (id INT)',
  ])
    await connection.query(sql)
  await connection.query('SET autocommit = 0')
})
afterAll(async () => {
  await connection.end()
  for (const sql of undo) await db.admin.query(sql)
  await db.close()
})

/** Runs it after a row was written; true if that row is there after ROLLBACK. It may fail: some commit and then fail. */
async function commitsOnServer(sql: string): Promise<boolean> {
  marker += 1
  await connection.query('INSERT INTO marker VALUES (?)', [marker])
  await connection.query(sql.replaceAll('$', db.name)).catch(() => {})
  await connection.query('ROLLBACK')
  // Whatever it left behind, the next one begins as this one did.
  for (const tidy of ['UNLOCK TABLES', 'BACKUP UNLOCK', 'SET autocommit = 0, completion_type = 0'])
    await connection.query(tidy).catch(() => {})
  return (await valueOf(db, `SELECT COUNT(*) FROM ${db.name}.marker WHERE id = ?`, [marker])) === 1
}

const effectsOf = (sql: string): string[] => statementFacts(sql, DIALECT).parts.map(({ effect }) => effect)
const isRefused = (sql: string): boolean =>
  effectsOf(sql).some(effect => effect === 'commits' || effect === 'controls')

const lines = (text: string): string[] =>
  text
    .split('\n')
    .map(line => line.trim())
    .filter(line => line !== '')

describe('commits, and is refused', () => {
  test.each(
    lines(`
      ALTER TABLE item ADD COLUMN more INT
      ALTER TABLE nowhere ADD COLUMN more INT
      ALTER DATABASE $ CHARACTER SET utf8mb4
      ALTER EVENT ev COMMENT 'x'
      ALTER FUNCTION fn COMMENT 'x'
      ALTER PROCEDURE harmless COMMENT 'x'
      ALTER SERVER s_$ OPTIONS (USER 'x')
      ALTER VIEW vi AS SELECT 1 AS one
      ALTER USER u_$ IDENTIFIED BY 'x'
      ALTER SEQUENCE sq RESTART 5
      ALTER TABLE tmp ADD COLUMN more INT
      ANALYZE TABLE item
      ANALYZE LOCAL TABLE item
      ANALYZE NO_WRITE_TO_BINLOG TABLE item
      BACKUP LOCK item
      BACKUP UNLOCK
      CHECK TABLE item
      CHECK VIEW vi
      OPTIMIZE TABLE gone
      REPAIR TABLE old
      REPAIR VIEW vi
      RESET QUERY CACHE
      RESET SLAVE 'nowhere'
      FLUSH TABLE old
      FLUSH LOCAL STATUS
      FLUSH PRIVILEGES
      CREATE DATABASE x_$
      DROP DATABASE x_$
      CREATE EVENT e2 ON SCHEDULE EVERY 1 DAY DISABLE DO SELECT 1
      DROP EVENT e2
      CREATE FUNCTION f2() RETURNS INT RETURN 1
      DROP FUNCTION f2
      CREATE AGGREGATE FUNCTION nothing RETURNS INT SONAME 'nothing.so'
      CREATE PROCEDURE p2() SELECT 1
      CREATE OR REPLACE PROCEDURE p2() BEGIN SELECT 1; SELECT 2; END
      DROP PROCEDURE p2
      CREATE INDEX ix ON item (n)
      DROP INDEX ix ON item
      CREATE INDEX ix ON tmp (id)
      CREATE ROLE s_$
      DROP ROLE s_$
      DROP SERVER IF EXISTS nothing
      CREATE TABLE t2 (id INT)
      CREATE TABLE IF NOT EXISTS t2 (id INT)
      CREATE OR REPLACE TABLE t2 (id INT)
      CREATE TABLE t3 AS SELECT * FROM item
      CREATE TABLE t4 LIKE item
      RENAME TABLE t4 TO t5
      DROP TABLE IF EXISTS t2, t3, t5
      DROP TABLE IF EXISTS nothing
      DROP TABLE tmp2
      CREATE TRIGGER tr BEFORE INSERT ON gone FOR EACH ROW SET @x = 1
      DROP TRIGGER tr
      CREATE USER v_$
      RENAME USER v_$ TO w_$
      DROP USER w_$
      CREATE OR REPLACE ALGORITHM=MERGE DEFINER=CURRENT_USER SQL SECURITY DEFINER VIEW v2 AS SELECT 1
      DROP VIEW v2
      CREATE SEQUENCE s2
      DROP SEQUENCE s2
      CREATE TEMPORARY SEQUENCE ts
      GRANT SELECT ON $.* TO u_$
      REVOKE SELECT ON $.* FROM u_$
      GRANT r_$ TO u_$
      SET PASSWORD FOR u_$ = PASSWORD('x')
      SET DEFAULT ROLE r_$ FOR u_$
      INSTALL SONAME 'nothing'
      INSTALL PLUGIN nothing SONAME 'nothing.so'
      UNINSTALL PLUGIN nothing
      UNINSTALL SONAME 'nothing'
      TRUNCATE TABLE gone
      TRUNCATE gone
      TRUNCATE TABLE tmp
      LOCK TABLES item WRITE, marker WRITE
      LOCK TABLE item READ, marker READ
      SET autocommit = 1
      SET autocommit = ON
      SET AUTOCOMMIT=1
      set  @@autocommit=1
      SET @@session.autocommit = ON
      SET SESSION autocommit = TRUE
      SET LOCAL autocommit = 1
      SET @@local.autocommit = 1
      SET autocommit = DEFAULT
      SET autocommit := 1
      SET autocommit = (SELECT 1)
      SET autocommit = @@global.autocommit
      SET autocommit = 'ON'
      SET autocommit = 0 + 1
      SET \`autocommit\` = 1
      SET @@\`autocommit\` = 1
      SET @@session.\`AutoCommit\` = 1
      SET @x = 1, autocommit = 1
      SET @x = CONCAT('a', ','), SESSION sql_mode = @@sql_mode, autocommit = 1
      SET GLOBAL autocommit = 1, SESSION autocommit = 1
      SET @@global.autocommit = 1, autocommit = 1
      SET STATEMENT max_statement_time = 5 FOR TRUNCATE TABLE gone
      SET STATEMENT max_statement_time = 5, lock_wait_timeout = 5 FOR COMMIT
      EXECUTE IMMEDIATE 'TRUNCATE TABLE gone'
      EXECUTE IMMEDIATE 'COM' "MIT"
      BEGIN NOT ATOMIC COMMIT; END
      BEGIN NOT ATOMIC UPDATE item SET n = n; TRUNCATE TABLE gone; END
      BEGIN NOT ATOMIC BEGIN COMMIT; END; END
      BEGIN NOT ATOMIC again: LOOP COMMIT; LEAVE again; END LOOP; END
      IF 1 THEN COMMIT; END IF
      IF 0 THEN SELECT 1; ELSE TRUNCATE TABLE gone; END IF
      CASE 1 WHEN 1 THEN COMMIT; END CASE
      REPEAT COMMIT; UNTIL 1 END REPEAT
      FOR i IN 1..2 DO COMMIT; END FOR
      DO 0; TRUNCATE TABLE gone
      TRUNCATE TABLE gone;
      /* why */ TRUNCATE # gone
      /*! TRUNCATE TABLE gone */
      /*!50000TRUNCATE TABLE gone */
      /*!50699 TRUNCATE TABLE gone */
      /*!100000 TRUNCATE TABLE gone */
      /*M! TRUNCATE TABLE gone */
      /*M!50700 TRUNCATE TABLE gone */
      /*!TRUNCATE*//**/TABLE gone
      /*! TRUNCATE /* x */ TABLE gone */
      /*!99999 x */ TRUNCATE TABLE gone
      /*!99999 ' */ TRUNCATE TABLE gone
      /* ' */ TRUNCATE TABLE gone
      TRUNCATE TABLE gone --
      START TRANSACTION
      START TRANSACTION READ ONLY
      BEGIN
      BEGIN WORK
      COMMIT
      COMMIT WORK
      COMMIT AND CHAIN
    `).map(sql => (sql.endsWith('# gone') ? sql.replace('# gone', '# x\ngone') : sql)),
  )('%s', async sql => {
    expect(await commitsOnServer(sql)).toBe(true)
    expect(isRefused(sql)).toBe(true)
  })
})

describe('commits nothing, and is sent', () => {
  test.each(
    lines(`
      ANALYZE SELECT * FROM item
      ANALYZE UPDATE item SET n = n
      ANALYZE FORMAT=JSON UPDATE item SET n = n
      EXPLAIN UPDATE item SET n = n
      EXPLAIN EXTENDED SELECT * FROM item
      DESCRIBE item
      CHECKSUM TABLE item
      CREATE TEMPORARY TABLE tt (id INT)
      CREATE OR REPLACE TEMPORARY TABLE tt (id INT)
      CREATE TEMPORARY TABLE IF NOT EXISTS tt (id INT)
      CREATE TEMPORARY TABLE t7 AS SELECT * FROM item
      CREATE TEMPORARY TABLE t8 LIKE item
      DROP TEMPORARY TABLE IF EXISTS tt, t7, t8
      DROP TEMPORARY SEQUENCE IF EXISTS ts
      SET ROLE NONE
      SET autocommit = 0
      SET @@session.autocommit = OFF
      SET autocommit = FALSE
      SET GLOBAL autocommit = 1
      SET GLOBAL autocommit = 1, autocommit = 1
      SET @@global.autocommit = 1
      SET @autocommit = 1
      SET @x = 1
      SET NAMES utf8mb4
      SET SESSION sql_mode = @@sql_mode
      SET SESSION TRANSACTION ISOLATION LEVEL REPEATABLE READ
      SET tx_isolation = 'REPEATABLE-READ'
      SET STATEMENT max_statement_time = 5 FOR UPDATE item SET n = n
      HANDLER item OPEN
      HANDLER item CLOSE
      KILL QUERY 999999999
      HELP 'x'
      SHOW TABLES
      SHOW CREATE TABLE item
      SHOW WARNINGS
      USE $
      DO 1
      PURGE BINARY LOGS BEFORE '2000-01-01'
      PREPARE p FROM 'TRUNCATE TABLE gone'
      PREPARE p FROM 'SELECT 1'
      EXECUTE p
      DEALLOCATE PREPARE p
      DROP PREPARE p
      EXECUTE IMMEDIATE 'UPDATE item SET n = n'
      EXECUTE IMMEDIATE 'EXECUTE IMMEDIATE ''COMMIT'''
      BEGIN NOT ATOMIC UPDATE item SET n = n; END
      XA RECOVER
      (SELECT 1)
      VALUES (1)
      WITH x AS (SELECT 1) SELECT * FROM x
      SIGNAL SQLSTATE '45000'
      GET DIAGNOSTICS @c = ROW_COUNT
      INSERT INTO item SET id = 5, n = 5
      CALL harmless()
      /*!50700 TRUNCATE TABLE gone */
      /*!80000 TRUNCATE TABLE gone */
      /*!99999 TRUNCATE TABLE gone */
      /*!990000 TRUNCATE TABLE gone */
      /*M!990000 TRUNCATE TABLE gone */
      /* ! TRUNCATE TABLE gone */ DO 0
      /*m! TRUNCATE TABLE gone */ DO 0
      /*!99999 x /* y */ TRUNCATE TABLE gone */ DO 0
      /*! DO 0 /* x */ */
      SELECT 'x'; -- ; COMMIT
      SELECT 'a\\'; COMMIT; --'
      SELECT "a""; COMMIT; --"
      SELECT 1 AS \`a\\\`; -- \` ; COMMIT
    `),
  )('%s', async sql => {
    expect(await commitsOnServer(sql)).toBe(false)
    // The last of them has its COMMIT in a comment behind a name that ends where a literal would not.
    expect(isRefused(sql)).toBe(false)
  })
})

describe('is refused, though MariaDB 10.11 was seen not to commit', () => {
  test.each([
    ['MySQL 8 commits, by its manual', 'CACHE INDEX old IN DEFAULT'],
    ['MySQL 8 commits, by its manual', 'LOAD INDEX INTO CACHE old'],
    ['MySQL 8 commits, by its manual', "STOP SLAVE 'nowhere'"],
    ['MySQL 8 commits, by its manual', "START SLAVE 'nowhere'"],
    ['it commits what LOCK TABLES began', 'UNLOCK TABLES'],
    ['a branch that is not taken is not told from one that is', 'IF 0 THEN COMMIT; END IF'],
    ['a branch that is not taken is not told from one that is', 'WHILE 0 DO COMMIT; END WHILE'],
    ['it rolls back', 'ROLLBACK'],
    ['it rolls back', 'ROLLBACK WORK AND CHAIN'],
    ['it is an order to our transaction', 'SAVEPOINT s'],
    ['it is an order to our transaction', 'RELEASE SAVEPOINT s'],
    ['it is an order to our transaction', 'ROLLBACK TO SAVEPOINT s'],
    ['it is an order to our transaction', "XA START 'x'"],
    ['it is an order to our transaction', 'SET TRANSACTION READ ONLY'],
    ['it is a syntax error all the same', '/*! TRUNCATE TABLE gone # */'],
    ['it is a syntax error all the same', 'SET autocommit = 2'],
  ])('%s: %s', async (_, sql) => {
    expect(await commitsOnServer(sql)).toBe(false)
    expect(isRefused(sql)).toBe(true)
  })
})

describe('commits, and is sent: the text does not show it, so the second line must', () => {
  test.each(['CALL commits()', 'CALL ddl()', "EXECUTE IMMEDIATE CONCAT('COMM', 'IT')"])('%s', async sql => {
    expect(await commitsOnServer(sql)).toBe(true)
    expect(isRefused(sql)).toBe(false)
    expect(statementFacts(sql, DIALECT).hidden).toBe(true)
  })
})

/** By the manuals; here they would stop or change the server that other tests run on, or are not known to it. */
test.each([
  'SHUTDOWN',
  'RESTART',
  'RESET MASTER',
  'RESET REPLICA ALL',
  'STOP ALL SLAVES',
  'START REPLICA',
  'STOP GROUP_REPLICATION',
  "CHANGE MASTER TO MASTER_HOST = 'x'",
  "CHANGE REPLICATION SOURCE TO SOURCE_HOST = 'x'",
  'FLUSH TABLES WITH READ LOCK',
  'BACKUP STAGE START',
  'LOCK INSTANCE FOR BACKUP',
  'UNLOCK INSTANCE',
  "CLONE LOCAL DATA DIRECTORY '/x'",
  "IMPORT TABLE FROM 'x'",
  'ALTER INSTANCE RELOAD TLS',
  "INSTALL COMPONENT 'file://x'",
  'CREATE RESOURCE GROUP g TYPE = USER',
  "CREATE SPATIAL REFERENCE SYSTEM 4120 NAME 'x' DEFINITION 'y'",
  'DROP UNDO TABLESPACE x',
])('is refused without having been tried: %s', sql => expect(effectsOf(sql)).toEqual(['commits']))
