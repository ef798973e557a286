/** The tables that session-tx can need in the application's database, each with what it is for. Connects to nothing. */
import { COMMIT_TABLE, COMMIT_TABLE_COLUMNS, COMMIT_TABLE_DDL } from '../mysql/commit-record/commit-table.js'

export interface Table {
  readonly name: string
  /** Which option needs it. */
  readonly purpose: string
  /** Creates it if it is not there. */
  readonly ddl: string
  /** A table of that name that lacks one of these is not ours, or of another version. */
  readonly columns: readonly string[]
}

export const TABLES: readonly Table[] = Object.freeze([
  {
    name: COMMIT_TABLE,
    purpose: "commit records, for commitRecord: 'always'",
    ddl: COMMIT_TABLE_DDL,
    columns: COMMIT_TABLE_COLUMNS,
  },
])
