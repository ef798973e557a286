/** The tables that session-tx can need in the application's database, each with what it is for. Connects to nothing. */
import { SESSIONS_TABLE, sessionTables } from '../store/mysql-tables.js'
import { COMMIT_TABLE, COMMIT_TABLE_COLUMNS, COMMIT_TABLE_DDL } from '../mysql/commit-record/commit-table.js'

export interface Table {
  readonly name: string
  readonly part: 'commits' | 'sessions'
  /** Which option needs it. */
  readonly purpose: string
  /** Creates it if it is not there. */
  readonly ddl: string
  /** A table of that name that lacks one of these is not ours, or of another version. */
  readonly columns: readonly string[]
}

/** @param sessions the `table` of mysqlStore */
export function tables(sessions: string = SESSIONS_TABLE): readonly Table[] {
  return [
    {
      name: COMMIT_TABLE,
      part: 'commits',
      purpose: "commit records, for commitRecord: 'always' and for redisStore",
      ddl: COMMIT_TABLE_DDL,
      columns: COMMIT_TABLE_COLUMNS,
    },
    ...sessionTables(sessions).map(table => ({
      ...table,
      part: 'sessions' as const,
      purpose: 'sessions, for store: mysqlStore()',
    })),
  ]
}
