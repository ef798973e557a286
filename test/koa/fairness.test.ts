/**
 * Nobody starves: a slow request among many quick ones on the same variable, and a crowd on one variable and one row.
 * Quick ones never pause on their own; how long the slow one takes is counted in commits of theirs, not in time.
 */
import type { RowDataPacket } from 'mysql2/promise'
import { serveTx, type TxContext, type TxServed } from '../support/app.js'
import { openDatabase, type TestDatabase } from '../support/database.js'
import { nothingOpen, valueOf } from '../support/observing.js'

let db: TestDatabase
let served: TxServed

beforeAll(async () => {
  db = await openDatabase({ connectionLimit: 16 })
  await db.pool.query('CREATE TABLE item (id INT PRIMARY KEY, n INT NOT NULL) ENGINE=InnoDB')
})
afterAll(() => db.close())
beforeEach(() => db.pool.query('REPLACE INTO item VALUES (1, 0)'))
afterEach(async () => {
  await served.close()
  await nothingOpen(db)
})

const addOne = ({ session }: TxContext): void => {
  session['n'] = Number(session['n'] ?? 0) + 1
}

test('a slow request among 50 writers of the same variable: it commits within its retries, each time, and so do they', async () => {
  const [WRITERS, SLOW, LASTS_COMMITS] = [50, 3, 50]
  let commits = 0
  served = await serveTx({
    below: async ctx => {
      addOne(ctx)
      // Between its read and its commit the others could commit fifty times, if they did not give way.
      const end = commits + LASTS_COMMITS
      for (let turns = 0; ctx.path === '/slow' && commits < end && turns < 200; turns++)
        await new Promise(resolve => setImmediate(resolve))
      ctx.body = String(ctx.tx.attempt)
    },
  })
  served.tx.on('commit', () => {
    commits += 1
  })
  const client = served.client()
  await client.get('/quick')

  let isOver = false
  const quick: number[] = []
  const refused: number[] = []
  const write = async (): Promise<void> => {
    for (let mine = 0; !isOver || mine === 0; mine++) {
      const { status, text } = await client.get('/quick')
      if (status === 200) quick.push(Number(text))
      else refused.push(status)
    }
  }
  const writers = Promise.all(Array.from({ length: WRITERS }, write))
  const slow: number[] = []
  for (let n = 0; n < SLOW; n++) {
    const { status, text } = await client.get('/slow')
    expect(status).toBe(200)
    slow.push(Number(text))
  }
  isOver = true
  await writers

  expect(refused).toEqual([])
  expect(Math.max(...slow)).toBeLessThanOrEqual(4)
  expect(quick.length).toBeGreaterThanOrEqual(WRITERS)
  const { requests, tickets } = served.tx.stats()
  expect(requests).toMatchObject({ committed: 1 + quick.length + SLOW, refused: 0 })
  expect(tickets).toEqual({ waiting: 0, keys: 0 })
})

test.each([
  ['the variable first', true],
  ['the row first', false],
])(
  'one hot variable and one hot row, %s, 16 clients: everybody commits, nobody waits for a lock in vain',
  async (_, variableFirst) => {
    const [CLIENTS, EACH] = [16, 10]
    served = await serveTx({
      options: { pool: db.pool },
      below: async ctx => {
        if (variableFirst) addOne(ctx)
        const [[row]] = await ctx.tx.query<RowDataPacket[]>('SELECT n FROM item WHERE id = 1')
        await ctx.tx.query('UPDATE item SET n = ? WHERE id = 1', [Number(row?.['n']) + 1])
        if (!variableFirst) addOne(ctx)
        ctx.body = String(ctx.session['n'])
      },
    })
    const client = served.client()
    expect((await client.get('/')).status).toBe(200)
    const statuses = new Set<number>()
    await Promise.all(
      Array.from({ length: CLIENTS }, async () => {
        for (let n = 0; n < EACH; n++) statuses.add((await client.get('/')).status)
      }),
    )
    const all = CLIENTS * EACH + 1
    const { conflicts, requests } = served.tx.stats()
    expect([...statuses]).toEqual([200])
    expect(requests).toMatchObject({ committed: all, refused: 0 })
    expect(conflicts.byKind).not.toHaveProperty('lockWait')
    expect(await valueOf(db, `SELECT n FROM ${db.name}.item WHERE id = 1`)).toBe(all)
    expect((await client.get('/')).text).toBe(String(all + 1))
  },
)
