/** Koa with koa-session and a store outside of the process, as with Redis, but without the network. */
import Koa, { type DefaultState } from 'koa'
import koaSession from 'koa-session'

/** The same for all that are compared. */
export const keys = ['one key for all of them']

export interface Visits {
  visits?: number
}

/** As with Redis: an asynchronous store outside of the request that keeps sessions as text. */
function externalStore() {
  const texts = new Map<string, string>()
  return {
    async get(key: string): Promise<unknown> {
      const text = texts.get(key)
      return text === undefined ? undefined : JSON.parse(text)
    },
    async set(key: string, session: unknown): Promise<void> {
      texts.set(key, JSON.stringify(session))
    },
    async destroy(key: string): Promise<void> {
      texts.delete(key)
    },
  }
}

/** @param above middleware that the session is loaded and stored below of */
export function withKoaSession<Session extends object = Visits>(
  ...above: readonly Koa.Middleware[]
): Koa<DefaultState, { session: Session }> {
  const app = new Koa<DefaultState, { session: Session }>()
  app.keys = keys
  for (const middleware of above)
    app.use(middleware as unknown as Koa.Middleware<DefaultState, { session: Session }>)
  app.use(koaSession({ store: externalStore() }, app))
  return app
}
