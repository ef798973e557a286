/** express-session's README where it was written for: `req.session` of Express 4 and 5. */
import { type CaseRequest, expressSessionCases } from '../support/express-session-cases.js'
import { expresses, serveExpress } from '../support/express-app.js'

describe.each(expresses)('%s', (_name, express) => {
  expressSessionCases((options, handler, environment) =>
    serveExpress({
      express,
      options,
      ...(environment === undefined ? {} : { environment }),
      below: (req, res, next) => {
        const send = (body: unknown): void => void res.json(body)
        handler(req as CaseRequest, { send, redirect: path => res.redirect(path) }, next)
      },
    }),
  )
})
