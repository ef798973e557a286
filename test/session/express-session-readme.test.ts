/** express-session's README on Koa: `req` and `res` are a thin dress over `ctx`, `req.session` is `ctx.session` itself. */
import { serveTx, type TxContext } from '../support/app.js'
import { type CaseRequest, type CaseResponse, expressSessionCases } from '../support/express-session-cases.js'

expressSessionCases((options, handler, environment) =>
  serveTx({
    options,
    ...(environment === undefined ? {} : { environment }),
    below: ctx =>
      new Promise<void>((answered, failed) => handler(requestOf(ctx), responseOf(ctx, answered), failed)),
  }),
)

function requestOf(ctx: TxContext): CaseRequest {
  return {
    get session() {
      return ctx.session
    },
    set session(value) {
      ctx.session = value
    },
    get sessionID() {
      return ctx.session.id
    },
    path: ctx.path,
  }
}

function responseOf(ctx: TxContext, answered: () => void): CaseResponse {
  return {
    send: body => {
      ctx.body = JSON.stringify(body)
      answered()
    },
    redirect: path => {
      ctx.redirect(path)
      answered()
    },
  }
}
