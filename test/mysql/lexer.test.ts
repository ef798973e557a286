/** Where tokens end, as far as the server at hand cannot be asked: other servers, hostile lengths. */
import { type Dialect, lex } from '../../lib/mysql/statement/lexer.js'
import { statementFacts } from '../../lib/mysql/statement/facts.js'

const MARIADB: Dialect = { mariadb: true, version: 101_119, ansiQuotes: false, backslashEscapes: true }
const MYSQL: Dialect = { ...MARIADB, mariadb: false, version: 80_036 }

const texts = (sql: string, dialect = MARIADB): string[] => lex(sql, dialect).map(({ text }) => text)

test.each([
  ['/*!50700 a */ b', ['b'], ['a', 'b']],
  ['/*!80036 a */ b', ['b'], ['a', 'b']],
  ['/*!80037 a */ b', ['b'], ['b']],
  ['/*!50699 a */ b', ['a', 'b'], ['a', 'b']],
  ['/*!100000 a */ b', ['a', 'b'], ['b']],
  ['/*M! a */ b', ['a', 'b'], ['b']],
  ['/*M!101119 a */ b', ['a', 'b'], ['b']],
  ['/*M!101120 a */ b', ['b'], ['b']],
  ['/*! a */ b', ['a', 'b'], ['a', 'b']],
])('%s is code for MariaDB 10.11.19, MySQL 8.0.36: %j, %j', (sql, mariadb, mysql) => {
  expect(texts(sql)).toEqual(mariadb)
  expect(texts(sql, MYSQL)).toEqual(mysql)
})

test('words keep their case beside the lower one; names lose their quotes', () => {
  expect(lex('SELECT `a``b`.Straße FROM t$1', MARIADB)).toMatchObject([
    { kind: 'word', text: 'select', raw: 'SELECT' },
    { kind: 'name', text: 'a`b' },
    { kind: 'mark', text: '.' },
    { kind: 'word', text: 'straße', raw: 'Straße' },
    { kind: 'word', text: 'from' },
    { kind: 'word', text: 't$1' },
  ])
})

test('a no-break space belongs to a word, as the server sees it', () => {
  expect(texts('a\u00a0b c')).toEqual(['a\u00a0b', 'c'])
})

describe('takes time in proportion to its length', () => {
  const MEGABYTE = 1_000_000
  test.each([
    ['one literal', `SELECT '${"it''s ".repeat(MEGABYTE / 6)}'`],
    ['a quote that is never closed', `SELECT '${"\\'".repeat(MEGABYTE / 2)}`],
    ['a name that is never closed', `SELECT \`${'``'.repeat(MEGABYTE / 2)}`],
    ['a comment that is never closed', `SELECT /* ${'/* '.repeat(MEGABYTE / 3)}`],
    ['code that is passed over and never closed', `SELECT /*!99999 ${'/* */ '.repeat(MEGABYTE / 6)}`],
    ['open brackets', `SELECT ${'('.repeat(MEGABYTE)}`],
    ['commas and brackets', `SELECT ${',('.repeat(MEGABYTE / 2)}`],
    ['semicolons', ';'.repeat(MEGABYTE)],
    ['statements', 'DELETE FROM t;'.repeat(MEGABYTE / 14)],
    ['assignments', `UPDATE a, b SET ${'a.x = 1, '.repeat(MEGABYTE / 9)}`],
    ['tables', `UPDATE ${'a, '.repeat(MEGABYTE / 3)} b SET x = 1`],
    ['parts of a compound statement', `IF 1 ${'THEN DELETE FROM t '.repeat(MEGABYTE / 19)}`],
    ['dots', `DELETE FROM ${'.'.repeat(MEGABYTE)}`],
    ['analyzing', 'ANALYZE '.repeat(MEGABYTE / 8)],
    ['settings', `SET ${'STATEMENT '.repeat(MEGABYTE / 10)}`],
    ['executing', `EXECUTE IMMEDIATE ${"'a' ".repeat(MEGABYTE / 4)}`],
  ])('%s', (_, sql) => {
    const startMs = performance.now()
    statementFacts(sql, MARIADB)
    // Quadratic would be minutes; the machine may be busy.
    expect(performance.now() - startMs).toBeLessThan(8_000)
  })
})
