/**
 * The public entry for Express, 4.22 and 5: what differs from Koa. Stores, resolvers and all else are in the main entry,
 * which needs no framework. Nothing is decided here.
 */
import { assemble, type Carried } from './assembly.js'
import { expressMiddleware, expressTransactional } from './http/express.js'
import type { ExpressHandler, ExpressRequest, ExpressResponse } from './http/express-context.js'
import { expressEndpoint } from './http/express-endpoint.js'
import type { RouteOptions } from './http/http-setup.js'
import type { Session, SessionTxRequest } from './index.js'
import type { Tx } from './joint/tx.js'
import { createEndpoint, type MetricsOptions } from './metrics/endpoint.js'
import { checkRoute } from './option-rules.js'
import type { OptionsFor } from './options.js'
import type { RunOptions } from './run.js'
import type { Environment } from './transaction/clock.js'

/** `req.session`, `req.sessionID` and `req.tx` of Express's own request. */
declare global {
  namespace Express {
    interface Request extends SessionTxRequest {}
  }
}

/** As for Koa, but every callback gets `(req, res)`, `commitOnError` `(error, req, res)`. */
export type SessionTxOptions = OptionsFor<[req: ExpressRequest, res: ExpressResponse]>

export interface SessionTx extends ExpressHandler {}
export interface SessionTx extends Omit<Carried, 'run'> {
  run<T>(work: (tx: Tx, session: Session) => Promise<T> | T, options?: RunOptions): Promise<T>
  /**
   * One handler as one joint transaction, where `app.use(tx)` is too much or cannot see what stands below it.
   *
   * @example
   * app.post('/buy', tx.transactional(buy, { retries: 5 }))
   */
  transactional(handler: ExpressHandler, options?: RouteOptions): ExpressHandler
  /**
   * Answers `/_tx`, a page for people, `/_tx/stats.json` and `/_tx/metrics` (Prometheus). Mount it above the rest.
   * @throws MISCONFIGURED under NODE_ENV=production without `allow`
   */
  metrics(options?: MetricsOptions<ExpressRequest>): ExpressHandler
}

/**
 * Express middleware: every request below it is one joint transaction over its session and InnoDB, run again when another
 * request won the race. The answer is held until the commit.
 *
 * @param environment clock and randomness, for tests
 * @throws MISCONFIGURED for an unknown or bad option, with a sentence that names it
 *
 * @example
 * app.use(sessionTx({ pool: mysql.createPool({ uri }) }))
 */
export function sessionTx(options: SessionTxOptions = {}, environment?: Environment): SessionTx {
  const { setup, metrics, carried } = assemble<[req: ExpressRequest, res: ExpressResponse]>(
    options,
    environment,
  )
  return Object.assign(expressMiddleware(setup), carried, {
    transactional: (handler: ExpressHandler, route: RouteOptions = {}) => {
      checkRoute(handler, route)
      return expressTransactional(setup, handler, route)
    },
    metrics: (metricsOptions: MetricsOptions<ExpressRequest> = {}) =>
      expressEndpoint(createEndpoint(metricsOptions, metrics, process.env['NODE_ENV'])),
  }) as SessionTx
}

export type { ExpressHandler, ExpressNext, ExpressRequest, ExpressResponse } from './http/express-context.js'
