/**
 * What we use of express-mysql-session. Not from @types: those want a pool with callbacks, which the package has not
 * taken since its version 3, and bring a mysql2 of their own.
 */
declare module 'express-mysql-session' {
  import type { Store } from 'express-session'
  import type { Pool } from 'mysql2/promise'

  interface Options {
    /** True: reading a session does not move its end. */
    readonly disableTouch?: boolean
    readonly schema?: { readonly tableName?: string }
  }
  type MySQLStore = new (
    options: Options,
    pool: Pool,
  ) => Store & {
    /** Its table is there. */
    onReady(): Promise<void>
  }

  function withExpressSession(session: unknown): MySQLStore
  export = withExpressSession
}
