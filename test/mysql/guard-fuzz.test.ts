/**
 * Random statements against the server's own verdict: where literals, names and comments end, and which statements
 * commit or write a table that cannot roll back. `FUZZ_RUNS` makes it as long as one likes.
 */
import fc from 'fast-check'
import mysql, { type Connection, type FieldPacket, type RowDataPacket } from 'mysql2/promise'
import { type Dialect, lex } from '../../lib/mysql/statement/lexer.js'
import { statementFacts } from '../../lib/mysql/statement/facts.js'
import { openDatabase, type TestDatabase } from '../support/database.js'

const RUNS = Number(process.env['FUZZ_RUNS'] ?? 250)
const DIALECT: Dialect = { mariadb: true, version: 101_119, ansiQuotes: false, backslashEscapes: true }
jest.setTimeout(20_000 + RUNS * 60)

let db: TestDatabase
let connection: Connection

beforeAll(async () => {
  db = await openDatabase()
  connection = await mysql.createConnection({ uri: db.url, multipleStatements: true })
  await connection.query(`
    CREATE TABLE marker (id INT PRIMARY KEY AUTO_INCREMENT, n INT) ENGINE=InnoDB;
    CREATE TABLE gone (id INT) ENGINE=InnoDB;
    CREATE TABLE inno (id INT PRIMARY KEY AUTO_INCREMENT, n INT) ENGINE=InnoDB;
    CREATE TABLE \`in no\` LIKE inno;
    CREATE TABLE old (id INT PRIMARY KEY AUTO_INCREMENT, n INT) ENGINE=MyISAM;
    CREATE TABLE \`o\`\`l;d\` LIKE old;
    CREATE TABLE Aria (id INT PRIMARY KEY AUTO_INCREMENT, n INT) ENGINE=Aria;
    INSERT INTO inno VALUES (1, 1), (2, 2), (3, 3);
    INSERT INTO \`in no\` SELECT * FROM inno;
    SET autocommit = 0`)
})
afterAll(async () => {
  await connection.end()
  await db.close()
})

// ── where literals and names end ───────────────────────────────────────────────────────────────────────────────

const hostile = fc
  .array(
    fc.constantFrom(
      "'",
      '"',
      '`',
      '\\',
      '/*',
      '*/',
      '--',
      '-- ',
      '#',
      '\n',
      ';',
      '%',
      '_',
      '0',
      'n',
      'Z',
      'a',
      ' ',
    ),
    { maxLength: 8 },
  )
  .map(parts => parts.join(''))
const foreign = fc.constantFrom('', 'é', '\u00a0', '😀', '\u2028')

/** A literal as somebody could write it, whatever its value is then. */
const literal = (escapes: boolean, quotes: readonly string[]): fc.Arbitrary<string> =>
  fc.tuple(fc.constantFrom(...quotes), hostile, foreign).map(([quote, text, more]) => {
    let inner = (text + more).replaceAll(quote, quote + quote)
    // An odd backslash at the end would escape the closing quote.
    if (escapes && (/\\+$/.exec(inner)?.[0].length ?? 0) % 2 === 1) inner += '\\'
    // Behind an odd backslash one of a doubled quote is escaped, and the other would close.
    if (escapes)
      inner = inner.replace(/\\+(?=['"])/g, found => (found.length % 2 === 1 ? `${found}\\` : found))
    return quote + inner + quote
  })
const quotedName = (quotes: readonly string[]): fc.Arbitrary<string> =>
  fc
    .tuple(fc.constantFrom(...quotes), hostile, fc.constantFrom('', 'é', '\u00a0'))
    .map(([quote, text, more]) => `${quote}a${(text + more).replaceAll(quote, quote + quote)}z${quote}`)

const space = fc.constantFrom(
  ' ',
  '\n\t',
  '/**/',
  "/* ' */",
  '/* ` " -- */',
  '-- " \n',
  "# ' /* \n",
  '--\n',
  '/*! */',
  "/*!99999 , 5 /* ' */ */",
  '/*M! */',
  '/*!50000*/',
)

test.each([
  ['as it is by default', '', DIALECT],
  ['ANSI_QUOTES', 'ANSI_QUOTES', { ...DIALECT, ansiQuotes: true }],
  ['NO_BACKSLASH_ESCAPES', 'NO_BACKSLASH_ESCAPES', { ...DIALECT, backslashEscapes: false }],
  ['both', 'ANSI_QUOTES,NO_BACKSLASH_ESCAPES', { ...DIALECT, ansiQuotes: true, backslashEscapes: false }],
])('literals, names and comments end where the server says; SQL mode %s', async (_, mode, dialect) => {
  const before = await sqlMode()
  await connection.query(`SET sql_mode = '${mode}'`)
  const literals = literal(dialect.backslashEscapes, dialect.ansiQuotes ? ["'"] : ["'", '"'])
  const names = quotedName(dialect.ansiQuotes ? ['`', '"'] : ['`'])
  const columns = fc.array(fc.tuple(space, literals, space, names, space), { minLength: 1, maxLength: 4 })
  await fc.assert(
    fc.asyncProperty(columns, async parts => {
      const sql = `SELECT ${parts.map(part => part.join('')).join(',')}`
      const [rows, fields] = (await connection.query({ sql, rowsAsArray: true })) as unknown as [
        unknown[][],
        FieldPacket[],
      ]
      const tokens = lex(sql, dialect)
      expect(tokens.filter(({ kind }) => kind === 'string').map(({ text }) => text)).toEqual(rows[0])
      expect(tokens.filter(({ kind }) => kind === 'name').map(({ text }) => text)).toEqual(
        fields.map(({ name }) => name),
      )
      expect(tokens.filter(({ kind }) => kind === 'word').map(({ text }) => text)).toEqual(['select'])
    }),
    { numRuns: RUNS },
  )
  await connection.query('SET sql_mode = ?', [before])
})

async function sqlMode(): Promise<string> {
  const [rows] = await connection.query<RowDataPacket[]>('SELECT @@sql_mode AS mode')
  return rows[0]?.['mode'] as string
}

// ── what is refused ────────────────────────────────────────────────────────────────────────────────────────────

const OLD = ['old', 'o`l;d', 'Aria']
const TABLES = [...OLD, 'inno', 'in no']

/** `{w}` is written, `{r}` only read; `{a}` and `{b}` are their aliases. One space is a place for other space, except in a literal. */
const FORMS = [
  'INSERT INTO {w} ( n ) VALUES ( 7 )',
  'INSERT LOW_PRIORITY IGNORE INTO {w} SET n = 7',
  'INSERT HIGH_PRIORITY {w} VALUES ( 9 , 9 ) , ( 10 , 10 )',
  'INSERT INTO {w} ( n ) SELECT n FROM {r}',
  'INSERT INTO {w} ( n ) WITH c AS ( SELECT n FROM {r} ) SELECT n FROM c',
  "INSERT INTO {w} ( n ) VALUES ( LENGTH( '; DELETE FROM x' ) ) ON DUPLICATE KEY UPDATE n = 5",
  'INSERT INTO {w} ( n ) VALUES ( 7 ) RETURNING id',
  'REPLACE INTO {w} VALUES ( 1 , 9 )',
  'REPLACE {w} SELECT 1 , n + 10 FROM {r} LIMIT 1',
  'UPDATE {w} SET n = n + 1',
  'UPDATE LOW_PRIORITY IGNORE {w} AS {a} SET {a} . n = 5 WHERE {a} . id = 1',
  'UPDATE {w} {a} JOIN {r} {b} ON {a} . id = {b} . id SET {a} . n = {b} . n + 10',
  'UPDATE {r} {b} LEFT JOIN {w} {a} USING ( id ) SET {a} . n = 99',
  'UPDATE {r} {b} , {w} {a} SET {a} . n = IF( 1 , 99 , 98 ) WHERE {a} . id = {b} . id',
  'UPDATE ( {w} {a} CROSS JOIN ( SELECT MAX( n ) AS m FROM {r} ) {b} ) SET {a} . n = {b} . m + 5',
  'UPDATE {w} USE INDEX FOR JOIN ( PRIMARY ) JOIN {r} USING ( id ) SET {w} . n = 77',
  'UPDATE {w} SET n = ( SELECT MAX( n ) + 20 FROM {r} ) ORDER BY id LIMIT 2',
  'DELETE FROM {w}',
  'DELETE QUICK IGNORE FROM {w} WHERE id IN ( SELECT id FROM {r} )',
  'DELETE {a} FROM {w} {a} JOIN {r} {b} ON {a} . id = {b} . id',
  'DELETE {a} . * FROM {r} {b} , {w} AS {a} WHERE {a} . id = {b} . id',
  'DELETE FROM {a} USING {w} {a} INNER JOIN {r} {b} USING ( id )',
  'DELETE {w} FROM {w} JOIN {r} USING ( id )',
  'DELETE FROM {w} LIMIT 1',
  'DELETE FROM {w} RETURNING id',
  'ANALYZE UPDATE {w} SET n = n + 1',
  'ANALYZE FORMAT = JSON DELETE FROM {w}',
  'EXPLAIN UPDATE {w} SET n = n + 1',
  'SET STATEMENT max_statement_time = 5 , lock_wait_timeout = 5 FOR DELETE FROM {w}',
  'BEGIN NOT ATOMIC DELETE FROM {w} ; END',
  'IF 1 THEN DELETE FROM {w} ; END IF',
  'SELECT 1 ; DELETE FROM {w}',
  "EXECUTE IMMEDIATE 'DELETE FROM inno'",
  "EXECUTE IMMEDIATE 'DELETE FROM old'",
  "EXECUTE IMMEDIATE 'UPDATE `o``l;d` ' 'SET n = n + 1'",
  'SELECT n AS old , {b} . id FROM {r} {b} WHERE {b} . id = 1 FOR UPDATE',
  "SELECT 'DELETE FROM old' , `n` FROM {r}",
  'CREATE TEMPORARY TABLE IF NOT EXISTS passing AS SELECT * FROM {r}',
  'DROP TEMPORARY TABLE IF EXISTS passing',
  'TRUNCATE TABLE gone',
  'ALTER TABLE gone COMMENT "x"',
  'SET @@autocommit = 1',
  'SET @x = 5 , SESSION autocommit = ON',
  'SET autocommit = 0',
  'SET @autocommit = 1',
  'COMMIT',
  'START TRANSACTION READ ONLY',
  'DO 0 ; COMMIT',
]

interface Written {
  readonly sql: string
}

const gap = fc.oneof({ weight: 3, arbitrary: fc.constant(' ') }, { weight: 1, arbitrary: space })
const flags = fc.array(fc.boolean(), { minLength: 12, maxLength: 12 })

/** The same statement, written otherwise. */
const statement: fc.Arbitrary<Written> = fc
  .record({
    form: fc.constantFrom(...FORMS),
    w: fc.constantFrom(...TABLES),
    r: fc.constantFrom(...TABLES),
    a: fc.constantFrom('a', 'old', 'inno', '`from`', '`se``t`'),
    gaps: fc.array(gap, { minLength: 40, maxLength: 40 }),
    upper: fc.array(fc.nat({ max: 2 }), { minLength: 12, maxLength: 12 }),
    quoted: flags,
    qualified: flags,
    code: fc.constantFrom('', '/*!', '/*!50000', '/*M!', '/*M!100000 '),
    codeAt: fc.nat({ max: 5 }),
    tail: fc.constantFrom(
      '',
      ';',
      ' ;',
      ' -- ; COMMIT',
      ' # ; COMMIT',
      ' /* ; COMMIT */',
      ' /*!99999 ; COMMIT */',
    ),
  })
  .filter(({ w, r }) => w !== r)
  .map(({ form, w, r, a, gaps, upper, quoted, qualified, code, codeAt, tail }) => {
    let names = 0
    const nameOf = (table: string): string => {
      const turn = names++ % 12
      const bare = /^\w+$/.test(table) && quoted[turn] !== true
      const text = bare ? table : `\`${table.replaceAll('`', '``')}\``
      return qualified[turn] === true ? `${bare ? db.name : `\`${db.name}\``}.${text}` : text
    }
    const words = wordsOf(form).map((word, at) => {
      if (word === '{w}') return nameOf(w)
      if (word === '{r}') return nameOf(r)
      if (word === '{a}') return a
      if (word === '{b}') return 'b'
      const casing = /^[A-Z]{2,}$/.test(word) ? upper[at % 12] : 0
      const cased = casing === 1 ? word.toLowerCase() : casing === 2 ? mixed(word) : word
      return at === codeAt && code !== '' && /^\w+$/.test(word) ? `${code} ${cased} */` : cased
    })
    return { sql: words.map((word, at) => word + (gaps[at % 40] ?? ' ')).join('') + tail }
  })

/** What is in a literal stays together. */
const wordsOf = (form: string): string[] => form.match(/(?:'[^']*'|"[^"]*"|[^ '"]+)+/g) ?? []
const mixed = (word: string): string =>
  word.replace(/./g, (one, at: number) => (at % 2 ? one.toLowerCase() : one))

function isRefused(sql: string): boolean {
  return statementFacts(sql, DIALECT).parts.some(
    ({ effect, writes }) =>
      effect === 'commits' ||
      effect === 'controls' ||
      writes.some(({ schema, name }) => (schema ?? db.name) === db.name && OLD.includes(name)),
  )
}

/** Whether anything is left of it after ROLLBACK; undefined if the server did not run it. */
async function isLeft(sql: string): Promise<boolean | undefined> {
  await connection.query(
    OLD.map(table => `REPLACE INTO \`${table.replaceAll('`', '``')}\` VALUES (1, 1), (2, 2), (3, 3)`).join(
      ';',
    ),
  )
  const before = await contents()
  await connection.query('INSERT INTO marker (n) VALUES (1)')
  const ran = await connection.query(sql).then(
    () => true,
    (error: unknown) => error,
  )
  await connection.query('ROLLBACK; SET autocommit = 0')
  const after = await contents()
  const left = JSON.stringify(before) !== JSON.stringify(after)
  await connection.query(
    `${OLD.map(table => `DELETE FROM \`${table.replaceAll('`', '``')}\``).join(';')}; DELETE FROM marker; COMMIT`,
  )
  if (ran !== true) throw new Error(`${String(ran)}: ${sql}`)
  return left
}

async function contents(): Promise<unknown> {
  const sums = ['marker', ...OLD].map(
    table => `(SELECT CONCAT_WS('/', COUNT(*), SUM(n), SUM(id)) FROM \`${table.replaceAll('`', '``')}\`)`,
  )
  const [rows] = await connection.query<RowDataPacket[]>(
    `SELECT ${sums.map((sum, at) => `${sum} AS c${at}`).join(', ')}`,
  )
  return rows[0]
}

test('a statement is refused if and only if the server would have kept something of it after ROLLBACK', async () => {
  let refused = 0
  await fc.assert(
    fc.asyncProperty(statement, async ({ sql }) => {
      const left = await isLeft(sql)
      refused += left === true ? 1 : 0
      expect({ sql, refused: isRefused(sql) }).toEqual({ sql, refused: left })
    }),
    { numRuns: RUNS },
  )
  // Both happen, or this proves nothing.
  expect(refused).toBeGreaterThan(RUNS / 10)
  expect(refused).toBeLessThan(RUNS - RUNS / 10)
})
