/**
 * What we use of express-session and express-mysql-session. Not from @types: those of the first declare `req.session` of
 * every Express application, as ours do, and those of the second want a pool with callbacks, which the package has not
 * taken since its version 3, and bring a mysql2 of their own.
 */
declare module 'express-session' {
  import type { RequestHandler } from 'express'

  interface Options {
    readonly store: object
    readonly secret: readonly string[]
    readonly resave: boolean
    readonly saveUninitialized: boolean
  }
  function expressSession(options: Options): RequestHandler
  export = expressSession
}

declare module 'express-mysql-session' {
  import type { Pool } from 'mysql2/promise'

  interface Options {
    /** True: reading a session does not move its end. */
    readonly disableTouch?: boolean
    readonly schema?: { readonly tableName?: string }
  }
  type MySQLStore = new (
    options: Options,
    pool: Pool,
  ) => {
    /** Its table is there. */
    onReady(): Promise<void>
  }

  function withExpressSession(session: unknown): MySQLStore
  export = withExpressSession
}
