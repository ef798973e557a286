/**
 * Koa's door to the metrics endpoint. Knows neither what is answered nor who may look.
 */
import { createEndpoint, type MetricsOptions } from '../metrics/endpoint.js'
import type { Recorder } from '../metrics/recorder.js'
import type { KoaContext, KoaMiddleware } from './koa.js'

/** Middleware that answers the endpoint's addresses and lets everything else pass. */
export function koaMetrics(options: MetricsOptions<KoaContext>, recorder: Recorder): KoaMiddleware {
  const endpoint = createEndpoint(options, recorder, process.env['NODE_ENV'])
  return async function sessionTxMetrics(ctx, next) {
    const { req, method, path } = ctx
    const asked = endpoint({ method, path, remoteAddress: req.socket.remoteAddress, headers: req.headers, context: ctx })
    if (asked === undefined) return next()
    const { status, type, headers, body } = await asked
    ctx.status = status
    for (const [name, value] of Object.entries(headers)) ctx.res.setHeader(name, value)
    ctx.res.setHeader('Content-Type', type)
    ctx.body = body
    return undefined
  }
}
