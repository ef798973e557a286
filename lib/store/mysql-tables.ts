/**
 * The tables of sessions in MySQL: their definitions, and the statements that are sent to them, as text. Knows nothing of
 * connections, caches or versions in memory.
 *
 * `sessions` has one row per variable and one, with an empty `variable`, for the session itself: whoever writes to a
 * session locks that row first, which keeps deadlocks out, and changes it only where locks do not do. `stamp` is drawn
 * anew by every commit and tells two states of a variable apart for ever; `version` counts, for people. Idle times are in
 * a table of their own: in the same row, an idle write of one request would answer 1020 to another's.
 */

export const SESSIONS_TABLE = 'sessions'

/** Marks the row of the session itself. */
export const EXISTENCE = ''

interface TableNames {
  readonly sessions: string
  readonly times: string
}

/** @param table a plain identifier, as {@link isTableName} says */
function tableNames(table: string): TableNames {
  return { sessions: `\`${table}\``, times: `\`${table}_times\`` }
}

/** At most 58 characters: MySQL allows 64, and another table's name is made of it. */
export function isTableName(table: unknown): table is string {
  return typeof table === 'string' && /^[A-Za-z_][\w$]{0,57}$/.test(table)
}

interface TableDefinition {
  readonly name: string
  readonly ddl: string
  readonly columns: readonly string[]
}

const ASCII = 'CHARACTER SET ascii COLLATE ascii_bin'

/** Unqualified: looked for in the database that the pool's connections have selected. */
export function sessionTables(table: string): readonly TableDefinition[] {
  const { sessions, times } = tableNames(table)
  return [
    {
      name: table,
      columns: ['session', 'variable', 'version', 'stamp', 'format', 'value', 'written_by', 'written_at'],
      ddl: `CREATE TABLE IF NOT EXISTS ${sessions} (
  session    VARCHAR(43) ${ASCII} NOT NULL COMMENT 'SHA-256 of the id in the cookie',
  variable   VARCHAR(255) ${ASCII} NOT NULL COMMENT 'empty: the session itself',
  version    BIGINT UNSIGNED NOT NULL COMMENT 'commits that wrote it',
  stamp      BIGINT UNSIGNED NOT NULL COMMENT 'drawn by the last of them',
  format     TINYINT UNSIGNED NOT NULL COMMENT 'how value is written',
  value      LONGTEXT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL COMMENT 'JSON',
  written_by VARCHAR(200) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL COMMENT 'route of the request',
  written_at DATETIME(3) NOT NULL COMMENT 'UTC',
  PRIMARY KEY (session, variable)
) ENGINE = InnoDB`,
    },
    {
      name: `${table}_times`,
      columns: ['session', 'created_at', 'touched_at', 'user'],
      ddl: `CREATE TABLE IF NOT EXISTS ${times} (
  session    VARCHAR(43) ${ASCII} NOT NULL,
  created_at DATETIME(3) NOT NULL COMMENT 'UTC',
  touched_at DATETIME(3) NOT NULL COMMENT 'UTC, idle time counts from here',
  user       VARCHAR(43) ${ASCII} NULL COMMENT 'SHA-256 of who session.userVariable names',
  PRIMARY KEY (session),
  KEY created_at (created_at),
  KEY touched_at (touched_at),
  KEY user (user)
) ENGINE = InnoDB`,
    },
  ]
}

/** A row that is to be there: texts are SQL already. */
export interface Row {
  readonly variable: string
  readonly version: number
  readonly format: number
  readonly value: string
}

export class SessionStatements {
  readonly #names: TableNames

  constructor(table: string) {
    this.#names = tableNames(table)
  }

  /** variable, version, stamp, written_by, age and idle time in µs (of the session's own row), format and value. */
  fetch(session: string, withValues: boolean): string {
    const { sessions, times } = this.#names
    const values = withValues ? ', s.format, CAST(s.value AS BINARY)' : ''
    return (
      `SELECT s.variable, s.version, s.stamp, CAST(s.written_by AS BINARY), ${ageOf('t.created_at')}, ` +
      `${ageOf('t.touched_at')}${values} FROM ${sessions} s LEFT JOIN ${times} t ` +
      `ON t.session = s.session AND s.variable = '' WHERE s.session = '${session}'`
    )
  }

  /** variable, version, stamp, written_by, format, value */
  look(session: string, variables: readonly string[] | 'all', suffix: '' | ' FOR UPDATE'): string {
    return (
      'SELECT variable, version, stamp, CAST(written_by AS BINARY), format, CAST(value AS BINARY) ' +
      `FROM ${this.#names.sessions} FORCE INDEX (PRIMARY) WHERE ${at(session, variables)}${suffix}`
    )
  }

  /** variable, stamp, version, written_by */
  stamps(
    session: string,
    variables: readonly string[] | 'all',
    suffix: '' | ' LOCK IN SHARE MODE' | ' FOR UPDATE',
  ): string {
    return (
      'SELECT variable, version, stamp, CAST(written_by AS BINARY) ' +
      `FROM ${this.#names.sessions} FORCE INDEX (PRIMARY) WHERE ${at(session, variables)}${suffix}`
    )
  }

  /**
   * Locks the session and everything named, in the order of the key, compares, and writes, in one statement. Matches
   * each row that has the stamp it must have; a row that must not be there is not matched, and makes the statement's
   * insert id 1.
   * @param stamps what must be there, undefined for whatever stamp; a variable of `variables` that is missing here must not be
   * @param marks of them those that are changed too, but in nothing that counts
   */
  compareAndSet(
    session: string,
    variables: readonly string[] | 'all',
    stamps: ReadonlyMap<string, string | undefined>,
    sets: readonly Row[],
    commit: { readonly stamp: string; readonly by: string },
    marks: readonly string[],
  ): string {
    const conditions = [...stamps].map(
      ([variable, stamp]) => `WHEN '${variable}' THEN ${stamp === undefined ? '1' : `stamp = ${stamp}`}`,
    )
    const condition = `CASE variable ${conditions.join(' ')} ELSE LAST_INSERT_ID(1) = 0 END`
    return `UPDATE ${this.#names.sessions} FORCE INDEX (PRIMARY) SET ${assign(sets, commit, marks)} WHERE ${at(session, variables)} AND ${condition}`
  }

  /** Of rows that are locked by now. */
  set(
    session: string,
    sets: readonly Row[],
    commit: { readonly stamp: string; readonly by: string },
  ): string {
    const variables = sets.map(({ variable }) => variable)
    return `UPDATE ${this.#names.sessions} FORCE INDEX (PRIMARY) SET ${assign(sets, commit, [])} WHERE ${at(session, variables)}`
  }

  /** Changes the session's own row, in nothing that counts. */
  mark(session: string): string {
    return `UPDATE ${this.#names.sessions} FORCE INDEX (PRIMARY) SET written_at = ${MARKED} WHERE ${at(session, [EXISTENCE])}`
  }

  insert(
    session: string,
    rows: readonly Row[],
    { stamp, by }: { readonly stamp: string; readonly by: string },
  ): string {
    const values = rows.map(
      ({ variable, version, format, value }) =>
        `('${session}', '${variable}', ${version}, ${stamp}, ${format}, ${value}, ${by}, UTC_TIMESTAMP(3))`,
    )
    return (
      `INSERT INTO ${this.#names.sessions} (session, variable, version, stamp, format, value, written_by, written_at) ` +
      `VALUES ${values.join(', ')}`
    )
  }

  insertTimes(session: string, user: string | undefined): string {
    return (
      `INSERT INTO ${this.#names.times} (session, created_at, touched_at, user) ` +
      `VALUES ('${session}', UTC_TIMESTAMP(3), UTC_TIMESTAMP(3), ${userText(user)})`
    )
  }

  setUser(session: string, user: string | undefined): string {
    return `UPDATE ${this.#names.times} FORCE INDEX (PRIMARY) SET user = ${userText(user)} WHERE session = '${session}'`
  }

  sessionsOf(user: string): string {
    return `SELECT session FROM ${this.#names.times} WHERE user = ${userText(user)}`
  }

  remove(session: string, variables: readonly string[] | 'all'): string {
    return removal(this.#names.sessions, at(session, variables))
  }
  removeTimes(session: string): string {
    return removal(this.#names.times, `session = '${session}'`)
  }

  /** Moves idle times forward, each `agoMs` before now, never back. */
  touch(sessions: ReadonlyMap<string, number>): string {
    const cases = [...sessions].map(
      ([session, agoMs]) => `WHEN '${session}' THEN ${Math.round(agoMs) * 1000}`,
    )
    const then = `UTC_TIMESTAMP(3) - INTERVAL CASE session ${cases.join(' ')} ELSE 0 END MICROSECOND`
    return `UPDATE ${this.#names.times} FORCE INDEX (PRIMARY) SET touched_at = GREATEST(touched_at, ${then}) WHERE session IN (${listed(sessions.keys())})`
  }

  /** Sessions that are well past their time; locked, so that none of them can be touched meanwhile. */
  expired(column: 'created_at' | 'touched_at', olderThanMs: number, atOnceMax: number): string {
    const limit = `UTC_TIMESTAMP(3) - INTERVAL ${Math.round(olderThanMs) * 1000} MICROSECOND`
    return `SELECT session FROM ${this.#names.times} FORCE INDEX (${column}) WHERE ${column} < ${limit} ORDER BY ${column} LIMIT ${atOnceMax} FOR UPDATE`
  }
  removeAll(sessions: readonly string[]): readonly string[] {
    const { sessions: variables, times } = this.#names
    return [variables, times].map(table => removal(table, `session IN (${listed(sessions)})`))
  }
}

/** Said as a join because only that takes an index hint: on a small table the server prefers to read, and lock, all of it. */
function removal(table: string, where: string): string {
  return `DELETE t FROM ${table} t FORCE INDEX (PRIMARY) WHERE ${where}`
}

function ageOf(column: string): string {
  return `TIMESTAMPDIFF(MICROSECOND, ${column}, UTC_TIMESTAMP(6))`
}

function at(session: string, variables: readonly string[] | 'all'): string {
  const where = `session = '${session}'`
  return variables === 'all' ? where : `${where} AND variable IN (${listed(variables)})`
}

function userText(user: string | undefined): string {
  return user === undefined ? 'NULL' : `'${user}'`
}

function listed(texts: Iterable<string>): string {
  return [...texts].map(text => `'${text}'`).join(', ')
}

/** Never what it was: a row that is set to what it has is not changed. */
const MARKED = 'GREATEST(UTC_TIMESTAMP(3), written_at + INTERVAL 1000 MICROSECOND)'

/** Nothing is changed where nothing is to be set: the rows are locked, and keep their version. */
function assign(
  sets: readonly Row[],
  { stamp, by }: { readonly stamp: string; readonly by: string },
  marks: readonly string[],
): string {
  const marked =
    marks.length === 0 ? 'written_at' : `IF(variable IN (${listed(marks)}), ${MARKED}, written_at)`
  if (sets.length === 0) return marks.length === 0 ? 'value = value' : `written_at = ${marked}`
  const byVariable = (column: string, of: (row: Row) => string | number): string =>
    `${column} = CASE variable ${sets.map(row => `WHEN '${row.variable}' THEN ${of(row)}`).join(' ')} ELSE ${column} END`
  const written = `variable IN (${listed(sets.map(({ variable }) => variable))})`
  return [
    byVariable('value', row => row.value),
    byVariable('format', row => row.format),
    byVariable('version', row => row.version),
    `stamp = IF(${written}, ${stamp}, stamp)`,
    `written_by = IF(${written}, ${by}, written_by)`,
    `written_at = IF(${written}, UTC_TIMESTAMP(3), ${marked})`,
  ].join(', ')
}
