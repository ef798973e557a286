/**
 * Express's side of session-tx, for `app.use(tx)`, `router.use(tx)`, a route, and single handlers. Express is typed
 * structurally and never imported. Knows no SQL.
 *
 * What stands below us is run by us and not by Express's `next`: so it can run again, and an error comes to us before it
 * comes to error middleware, which is called once, by the original `next`, with the last error.
 */
import type { NotRerunnableReason } from '../events.js'
import type { ExpressHandler, ExpressNext, ExpressRequest, ExpressResponse } from './express-context.js'
import { type Below, ExpressPosition } from './express-position.js'
import { type ExpressSetup, ExpressTransaction, transactionOf, type Work } from './express-request.js'
import { Views } from './express-view.js'
import type { RouteOptions } from './http-setup.js'
import { warnOfLateOptions } from './late-options.js'

const views = new Views(transactionOf)

/** The middleware for `app.use(…)`: everything below it is one joint transaction per request, run again on conflict. */
export function expressMiddleware(setup: ExpressSetup): ExpressHandler {
  const position = new ExpressPosition(views)
  const warn = warnOfPosition()
  function sessionTx(req: ExpressRequest, res: ExpressResponse, next: ExpressNext): void {
    if (transactionOf(req) !== undefined || setup.skip?.(req, res) === true) {
      next()
      return
    }
    const below = position.of(req)
    const request = new ExpressTransaction(req, res, next, setup, {}, workOf(below, req, res, next))
    if (request.retries > 0) warn(below)
    void request.serve()
  }
  return position.mark(sessionTx)
}

function workOf(
  below: Below | undefined,
  req: ExpressRequest,
  res: ExpressResponse,
  next: ExpressNext,
): Work {
  if (below === undefined) {
    const cannot = (): NotRerunnableReason => 'position'
    return { call: () => next(), leave: undefined, pattern: '', canRunAgain: false, cannot }
  }
  const { leave, pattern, cannot: reason } = below
  const call: Work['call'] = done => below.run(req, res, done)
  return { call, leave, pattern, canRunAgain: reason === undefined, cannot: () => reason }
}

/** One handler as one joint transaction: for a route, or where `app.use` cannot find what stands below it. */
export function expressTransactional(
  setup: ExpressSetup,
  handler: ExpressHandler,
  options: RouteOptions,
): ExpressHandler {
  const position = new ExpressPosition(views)
  const warn = warnOfLateOptions(options, '(req, res)')
  function transactional(req: ExpressRequest, res: ExpressResponse, next: ExpressNext): unknown {
    if (transactionOf(req) !== undefined) {
      warn()
      return handler(req, res, next)
    }
    const below = position.of(req)
    let nextCalled = false
    const call: Work['call'] = done =>
      handler(req, res, error => {
        if (error) done(error)
        else if (below !== undefined) below.run(req, res, done)
        else {
          nextCalled = true
          next()
        }
      })
    const cannot = (): NotRerunnableReason | undefined => (nextCalled ? 'nextCalled' : undefined)
    const work: Work = {
      call,
      leave: below?.leave ?? 'route',
      pattern: below?.pattern ?? '',
      canRunAgain: true,
      cannot,
    }
    void new ExpressTransaction(req, res, next, setup, options, work).serve()
    return undefined
  }
  return position.mark(transactional)
}

/** Once for each of the two things that can be wrong with where it is mounted. */
function warnOfPosition(): (below: Below | undefined) => void {
  const warned = new Set<NotRerunnableReason>()
  return below => {
    const reason = below === undefined ? 'position' : below.cannot
    if (reason === undefined || warned.has(reason)) return
    warned.add(reason)
    const what =
      below === undefined
        ? 'session-tx cannot find what stands below it, so requests run once, a lost race is answered with 503, and what ' +
          'error middleware answers with a status below 500 is stored. It is probably wrapped in another function, ' +
          'called by hand, or mounted in several routers of one path'
        : 'session-tx is mounted under a path, so requests run once and a lost race is answered with 503'
    process.emitWarning(
      `${what}: mount it with app.use(tx) or router.use(tx), without a path, or wrap handlers: ` +
        'router.post(path, tx.transactional(handler)).',
      'SessionTxWarning',
    )
  }
}
