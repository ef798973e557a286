/**
 * Koa's door to an endpoint that knows no framework: plain fields go in, plain fields come out. Knows neither what is
 * answered nor who may look.
 */
import { type Endpoint, sendStream, serving } from './endpoint-door.js'
import type { KoaContext, KoaMiddleware } from './koa-context.js'

/** Middleware that gives `endpoint` every request first; undefined: the request is not for it. */
export function koaEndpoint(endpoint: Endpoint<KoaContext>): KoaMiddleware {
  return async function sessionTxMetrics(ctx, next) {
    const { req, method, path } = ctx
    const { remoteAddress } = req.socket
    const [, query = ''] = (req.url ?? '').split('?')
    const isServing = serving(req.socket)
    const { headers: asked } = req
    const answer = endpoint({ method, path, query, remoteAddress, headers: asked, isServing, context: ctx })
    if (answer === undefined) return next()
    const { status, type, headers, body, stream } = await answer
    ctx.status = status
    for (const [name, value] of Object.entries(headers)) ctx.res.setHeader(name, value)
    ctx.res.setHeader('Content-Type', type)
    if (stream === undefined) ctx.body = body
    else {
      // Koa would tell the application's error handler of each page that is closed.
      ctx.respond = false
      sendStream(ctx.res, stream)
    }
    return undefined
  }
}
