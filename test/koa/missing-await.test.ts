/** The commonest mistakes with promises: the error names the symptom, the likely cause, and reaches who made them. */
import { isSessionTxError } from '../../lib/errors.js'
import { serveTx, type TxContext, type TxServed } from '../support/app.js'
import { deferred, Gate } from '../support/barrier.js'

let served: TxServed
afterEach(() => served.close())

const CAUSE =
  /^this attempt has ended \(committed\); .*An await is missing, or a middleware calls next\(\) without returning it/

async function failureOf(
  below: (ctx: TxContext, fail: (error: unknown) => void) => unknown,
): Promise<unknown> {
  const failure = deferred<unknown>()
  served = await serveTx({ below: async ctx => void (await below(ctx, failure.resolve)) })
  expect((await served.client().get('/')).status).toBe(200)
  return failure.promise
}

test('work that nobody awaited, and that writes to the session when the request is over', async () => {
  const over = new Gate()
  const failing = failureOf((ctx, fail) => {
    const late = async (): Promise<void> => {
      await over.passed()
      ctx.session['late'] = 1
    }
    void late().catch(fail)
    ctx.tx.afterCommit(() => over.open())
    ctx.body = 'done'
  })
  const error = await failing
  expect(isSessionTxError(error) && [error.code, error.message]).toEqual([
    'TRANSACTION_CLOSED',
    expect.stringMatching(CAUSE),
  ])
})

test('a middleware that calls next() without returning it: what stands below it runs on after the commit', async () => {
  const over = new Gate()
  const error = await failureOf((ctx, fail) => {
    const next = async (): Promise<void> => {
      await over.passed()
      ctx.session['below'] = 1
    }
    const middleware = (): void => {
      next().catch(fail)
    }
    ctx.tx.afterCommit(() => over.open())
    ctx.body = 'done'
    middleware()
  })
  expect(isSessionTxError(error) && [error.code, error.message]).toEqual([
    'TRANSACTION_CLOSED',
    expect.stringMatching(CAUSE),
  ])
})
