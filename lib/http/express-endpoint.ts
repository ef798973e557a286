/**
 * Express's door to an endpoint that knows no framework: plain fields go in, plain fields come out. Knows neither what is
 * answered nor who may look.
 */
import type { ExpressHandler, ExpressRequest } from './express-context.js'
import { type Endpoint, sendStream, serving } from './endpoint-door.js'

/** Middleware that gives `endpoint` every request first; undefined: the request is not for it. */
export function expressEndpoint(endpoint: Endpoint<ExpressRequest>): ExpressHandler {
  return async function sessionTxMetrics(req, res, next) {
    const { method, socket, headers } = req
    const [path = '', query = ''] = req.url.split('?')
    const isServing = serving(socket)
    const { remoteAddress } = socket
    const answer = endpoint({ method, path, query, remoteAddress, headers, isServing, context: req })
    if (answer === undefined) {
      next()
      return
    }
    try {
      const { status, type, headers: more, body, stream } = await answer
      res.statusCode = status
      for (const [name, value] of Object.entries(more)) res.setHeader(name, value)
      res.setHeader('Content-Type', type)
      if (stream !== undefined) {
        sendStream(res, stream)
        return
      }
      res.setHeader('Content-Length', Buffer.byteLength(body))
      res.end(body)
    } catch (error) {
      next(error) // Express 4 does not look at what we return
    }
  }
}
