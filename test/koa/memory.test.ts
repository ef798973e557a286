/** What outlives a request must not keep it: with it live a session's values and a kept body. */
import v8 from 'node:v8'
import { runInNewContext } from 'node:vm'
import { serveTx } from '../support/app.js'
import { openDatabase } from '../support/database.js'

v8.setFlagsFromString('--expose-gc')
const collectGarbage = runInNewContext('gc') as () => void

test('a connection does not keep the request alive that opened it', async () => {
  const db = await openDatabase({ connectionLimit: 1 })
  const requests: WeakRef<object>[] = []
  const served = await serveTx({
    options: { pool: db.pool },
    below: async ctx => {
      requests.push(new WeakRef(ctx.req))
      await ctx.tx.query('SELECT 1')
      ctx.body = 'ok'
    },
  })
  try {
    for (let count = 0; count < 4; count++) await served.client().get()
    for (let turns = 0; turns < 20; turns++) await new Promise(resolve => setImmediate(resolve))
    collectGarbage()
    expect(requests.slice(0, -1).map(one => one.deref() !== undefined)).toEqual([false, false, false])
  } finally {
    await served.close()
    await db.close()
  }
})
