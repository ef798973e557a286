/**
 * Koa's door to an endpoint that knows no framework: five plain fields go in, four come out. Knows neither what is
 * answered nor who may look.
 */
import type { Endpoint } from './endpoint-door.js'
import type { KoaContext, KoaMiddleware } from './koa-context.js'

/** Middleware that gives `endpoint` every request first; undefined: the request is not for it. */
export function koaEndpoint(endpoint: Endpoint<KoaContext>): KoaMiddleware {
  return async function sessionTxMetrics(ctx, next) {
    const { req, method, path } = ctx
    const { remoteAddress } = req.socket
    const answer = endpoint({ method, path, remoteAddress, headers: req.headers, context: ctx })
    if (answer === undefined) return next()
    const { status, type, headers, body } = await answer
    ctx.status = status
    for (const [name, value] of Object.entries(headers)) ctx.res.setHeader(name, value)
    ctx.res.setHeader('Content-Type', type)
    ctx.body = body
    return undefined
  }
}
