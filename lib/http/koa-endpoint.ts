/**
 * Koa's door to an endpoint that knows no framework: five plain fields go in, four come out. Knows neither what is
 * answered nor who may look.
 */
import type { IncomingHttpHeaders } from 'node:http'
import type { KoaContext, KoaMiddleware } from './koa-context.js'

interface Asked {
  readonly method: string
  readonly path: string
  readonly remoteAddress: string | undefined
  readonly headers: IncomingHttpHeaders
  readonly context: KoaContext
}

interface Answer {
  readonly status: number
  readonly type: string
  readonly headers: Readonly<Record<string, string>>
  readonly body: string
}

/** Middleware that gives `endpoint` every request first; undefined: the request is not for it. */
export function koaEndpoint(endpoint: (asked: Asked) => Promise<Answer> | undefined): KoaMiddleware {
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
