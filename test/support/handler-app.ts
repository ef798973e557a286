/**
 * An application whose handlers are given by path, and what tests of sessions do with it: shoppers with a session, other
 * tabs of theirs, a slow request in the middle of which something else happens.
 */
import { serveTx, type TxContext, type TxServed, type TxServing } from './app.js'
import { deferred, Gate } from './barrier.js'
import type { Answer, Client } from './client.js'

export type Handler = (ctx: TxContext) => unknown

export interface HandlerApp extends TxServed {
  readonly on: (path: string, handler: Handler) => void
  /** A client that has a session with these variables. */
  readonly shopper: (variables: Readonly<Record<string, unknown>>) => Promise<Client>
  readonly stored: (client: Client) => Promise<Record<string, unknown>>
}

/** It answers with what the handler returned and the number of the attempt. */
export async function handlerApp(
  options: TxServing['options'] = {},
  environment?: TxServing['environment'],
  above: TxServing['above'] = [],
): Promise<HandlerApp> {
  const handlers = new Map<string, Handler>()
  const served = await serveTx({
    options,
    above,
    ...(environment === undefined ? {} : { environment }),
    below: async ctx => {
      const result = await handlers.get(ctx.path)?.(ctx)
      ctx.body ??= { result, attempt: ctx.tx.attempt }
    },
  })
  handlers.set('/stored', ctx => {
    ctx.body = { ...ctx.session }
  })
  return {
    ...served,
    on: (path, handler) => void handlers.set(path, handler),
    stored: async client => (await client.get('/stored')).json(),
    shopper: async variables => {
      handlers.set('/start', ctx => Object.assign(ctx.session, variables))
      const client = served.client()
      const { status } = await client.post('/start')
      if (status !== 200) throw new Error(`no session could be started: ${status}`)
      return client
    },
  }
}

export const attemptOf = (answer: Answer): number => answer.json<{ attempt: number }>().attempt
export const resultOf = <T>(answer: Answer): T => answer.json<{ result: T }>().result

/** Another client with the same cookies, as another tab would be. */
export function tab({ client }: TxServed, { cookies }: Client): Client {
  const other = client()
  for (const [name, value] of cookies) other.cookies.set(name, value)
  return other
}

/** Runs `/slow`, whose handler stops at `pause` in its first attempt; meanwhile `other` happens from start to end. */
export async function meanwhile(
  { on }: HandlerApp,
  client: Client,
  slow: (ctx: TxContext, pause: () => Promise<void>) => unknown,
  other: () => Promise<unknown>,
): Promise<Answer> {
  const reached = deferred()
  const gate = new Gate()
  on('/slow', ctx =>
    slow(ctx, async () => {
      if (ctx.tx.attempt > 1) return
      reached.resolve()
      await gate.passed()
    }),
  )
  const answer = client.post('/slow')
  await reached.promise
  await other()
  gate.open()
  return answer
}
