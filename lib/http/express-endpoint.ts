/**
 * Express's door to an endpoint that knows no framework: five plain fields go in, four come out. Knows neither what is
 * answered nor who may look.
 */
import type { ExpressHandler, ExpressRequest } from './express-context.js'
import type { Endpoint } from './endpoint-door.js'

/** Middleware that gives `endpoint` every request first; undefined: the request is not for it. */
export function expressEndpoint(endpoint: Endpoint<ExpressRequest>): ExpressHandler {
  return async function sessionTxMetrics(req, res, next) {
    const { method, socket, headers } = req
    const [path = ''] = req.url.split('?')
    const answer = endpoint({ method, path, remoteAddress: socket.remoteAddress, headers, context: req })
    if (answer === undefined) {
      next()
      return
    }
    try {
      const { status, type, headers: more, body } = await answer
      res.statusCode = status
      for (const [name, value] of Object.entries(more)) res.setHeader(name, value)
      res.setHeader('Content-Type', type)
      res.setHeader('Content-Length', Buffer.byteLength(body))
      res.end(body)
    } catch (error) {
      next(error) // Express 4 does not look at what we return
    }
  }
}
