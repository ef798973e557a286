/**
 * Applications of Express 4 and 5 on a free port, with session-tx in them or without. `close()` ends the server first and
 * the middleware after it, as an application should.
 */
import express5, { type ErrorRequestHandler, type Express, type Request, type RequestHandler } from 'express'
import express4 from 'express4'
import { sessionTx, type SessionTx, type SessionTxOptions } from '../../lib/express.js'
import type { Environment } from '../../lib/transaction/clock.js'
import { type Served, serve } from './app.js'
import { promptly } from './clock.js'

export type ExpressModule = typeof express5
export type Options = SessionTxOptions

/** For `describe.each`. */
export const expresses: readonly (readonly [name: string, express: ExpressModule])[] = [
  ['Express 5', express5],
  ['Express 4', express4],
]

export interface ExpressServed extends Served {
  readonly app: Express
  readonly tx: SessionTx
  /** What came to the application's error middleware, in order. */
  readonly errors: unknown[]
}

export interface ExpressServing {
  readonly express: ExpressModule
  readonly options?: SessionTxOptions
  /** Real time without waiting between attempts, unless told otherwise. */
  readonly environment?: Environment
  readonly above?: readonly RequestHandler[]
  /** What stands below session-tx: one handler for all paths, or what is done with the application. */
  readonly below?: RequestHandler
  readonly build?: (app: Express, tx: SessionTx) => void
}

/** Answers as Express itself does, without its stack trace. */
export function answeringErrors(errors: unknown[]): ErrorRequestHandler {
  return (error: unknown, _req, res, next) => {
    errors.push(error)
    const { status = 500, headers = {} } = error as {
      readonly status?: number
      readonly headers?: Record<string, string>
    }
    if (res.headersSent) next(error)
    else res.status(status).set(headers).type('text').send(`error ${status}`)
  }
}

/** An application with session-tx in its stack, and error middleware at its end. */
export async function serveExpress({
  express,
  options,
  environment = promptly,
  above = [],
  below,
  build,
}: ExpressServing): Promise<ExpressServed> {
  const app = express()
  const errors: unknown[] = []
  const tx = sessionTx(options, environment)
  for (const middleware of above) app.use(middleware)
  if (build === undefined) app.use(tx)
  else build(app, tx)
  if (below !== undefined) app.use(below)
  app.use(answeringErrors(errors))
  const served = await serve(app)
  const close = async (): Promise<void> => {
    await served.close()
    await tx.close()
  }
  return { ...served, app, tx, errors, close }
}

/** Loses a race as long as `attempt` is less than `until`, then answers with the number of the attempt. */
export function losing(until: number): RequestHandler {
  return (req: Request, res) => {
    if (req.tx.attempt < until) req.tx.conflict()
    res.send(`attempt ${req.tx.attempt}`)
  }
}
