/** The example application: its handlers over HTTP on MariaDB, both sides of every refusal, and a demo that can fail. */
import { spawn } from 'node:child_process'
import { createServer, type Server } from 'node:http'
import { once } from 'node:events'
import { readFile } from 'node:fs/promises'
import { resolve } from 'node:path'
import type { RowDataPacket } from 'mysql2/promise'
import supertest from 'supertest'
import { createApp, type ShopApp } from '../../example-app/app.js'
import { createDatabase, openPool } from '../../example-app/schema.js'
import { openStore, STORE_NAMES } from '../../example-app/stores.js'
import { migrate } from '../../lib/cli/migrate.js'
import { CREDIT } from '../../example-app/shop.js'
import { openDatabase, type TestDatabase } from '../support/database.js'

interface Seen {
  readonly customer: string
  readonly visits: number
  readonly cart: readonly { readonly line: string; readonly item: string }[]
  readonly spent: number
  readonly orders: number
}

describe('the shop', () => {
  let database: TestDatabase
  let pool: ReturnType<typeof openPool>
  let shop: ShopApp
  let server: Server
  const receipts: number[] = []

  beforeAll(async () => {
    database = await openDatabase()
    pool = openPool(await createDatabase(database.url, database.name))
    shop = createApp(pool)
    shop.app.on('receipt', (order: number) => receipts.push(order))
    const handle = shop.app.callback()
    server = createServer((req, res) => void handle(req, res)).listen(0, '127.0.0.1')
    await once(server, 'listening')
  })
  afterAll(async () => {
    await new Promise(done => server.close(done))
    await shop.tx.close()
    await pool.end()
    await database.close()
  })

  const visitor = () => supertest.agent(server)
  type Visitor = ReturnType<typeof visitor>
  const look = async (who: Visitor): Promise<Seen> => (await who.get('/').expect(200)).body as Seen
  const put = (who: Visitor, item: string) => who.post('/cart').send({ item })
  const rows = async (sql: string, values: unknown[] = []): Promise<RowDataPacket[]> => {
    const [found] = await database.pool.query<RowDataPacket[]>(sql, values)
    return found
  }
  const left = async (item: string): Promise<unknown> =>
    (await rows('SELECT n FROM stock WHERE item = ?', [item]))[0]?.['n']
  const balanceOf = async (owner: string): Promise<unknown> =>
    (await rows('SELECT balance FROM accounts WHERE owner = ?', [owner]))[0]?.['balance']

  test('a visit opens an account and is counted in the session', async () => {
    const who = visitor()
    const first = await look(who)
    expect(first).toMatchObject({ visits: 1, cart: [], spent: 0, orders: 0 })
    expect(await balanceOf(first.customer)).toBe(CREDIT)
    expect(await look(who)).toMatchObject({ visits: 2, customer: first.customer })
  })

  test('what is put into the cart is in the cart, and comes out of it', async () => {
    const who = visitor()
    const { body: tea } = await put(who, 'tea').expect(200)
    const { body: cake } = await put(who, 'cake').expect(200)
    expect((await look(who)).cart).toEqual([tea, cake])
    await who.delete('/cart/tea').expect(200, tea)
    await who.delete('/cart/tea').expect(404)
    expect((await look(who)).cart).toEqual([cake])
  })

  test('what the shop does not have does not get into the cart', async () => {
    const who = visitor()
    await look(who)
    await put(who, 'unicorn').expect(404)
    await who.post('/cart').send({}).expect(404)
    await database.pool.query("UPDATE stock SET n = 0 WHERE item = 'lamp'")
    await put(who, 'lamp').expect(409, 'sold out: lamp')
    expect((await look(who)).cart).toEqual([])
  })

  test('a checkout moves stock, money, cart and totals together, and the receipt goes out once', async () => {
    const who = visitor()
    const { customer } = await look(who)
    const before = [await left('tea'), await left('honey')].map(Number)
    for (const item of ['tea', 'honey', 'tea']) await put(who, item).expect(200)
    const { cart } = await look(who)
    const { body } = await who.post('/checkout').expect(200)
    const { order } = body as { order: number }

    expect(body).toEqual({ order, total: 350 + 650 + 350 })
    expect(await look(who)).toMatchObject({ cart: [], spent: 1350, orders: 1 })
    expect([await left('tea'), await left('honey')]).toEqual([before[0]! - 2, before[1]! - 1])
    expect(await balanceOf(customer)).toBe(CREDIT - 1350)
    expect(await rows('SELECT customer, total FROM orders WHERE id = ?', [order])).toEqual([
      { customer, total: 1350 },
    ])
    const lines = await rows('SELECT line, item FROM order_lines WHERE order_id = ?', [order])
    expect(new Set(lines)).toEqual(new Set(cart))
    expect(receipts.filter(id => id === order)).toEqual([order])
  })

  test('an empty cart cannot be checked out', async () => {
    const who = visitor()
    await look(who)
    await who.post('/checkout').expect(409, 'the cart is empty')
  })

  test('sold out at the checkout: 409, and neither side has changed', async () => {
    const who = visitor()
    await put(who, 'vinyl').expect(200)
    await put(who, 'tea').expect(200)
    await database.pool.query("UPDATE stock SET n = 0 WHERE item = 'vinyl'")
    const tea = await left('tea')
    const before = await look(who)
    await who.post('/checkout').expect(409, 'sold out: vinyl')
    expect(await look(who)).toMatchObject({ cart: before.cart, spent: 0, orders: 0 })
    expect([await left('tea'), await left('vinyl'), await balanceOf(before.customer)]).toEqual([
      tea,
      0,
      CREDIT,
    ])
    expect(await rows('SELECT id FROM orders WHERE customer = ?', [before.customer])).toEqual([])
  })

  test('a balance that is short: 402, and neither side has changed', async () => {
    const who = visitor()
    const { customer } = await look(who)
    await put(who, 'cup').expect(200)
    await database.pool.query('UPDATE accounts SET balance = 899 WHERE owner = ?', [customer])
    const cups = await left('cup')
    await who.post('/checkout').expect(402, 'the balance is short: 899 of 900')
    expect(await look(who)).toMatchObject({ cart: [{ item: 'cup' }], spent: 0, orders: 0 })
    expect([await left('cup'), await balanceOf(customer)]).toEqual([cups, 899])
  })

  test('two customers who pay for the last piece at once: one gets it, the other one is told', async () => {
    await database.pool.query("UPDATE stock SET n = 1 WHERE item = 'poster'")
    const both = [visitor(), visitor()]
    for (const who of both) await put(who, 'poster').expect(200)
    // Both have read that one is left when the row is let go of.
    const holder = await database.pool.getConnection()
    await holder.query('BEGIN')
    await holder.query("SELECT n FROM stock WHERE item = 'poster' FOR UPDATE")
    const paying = both.map(who => who.post('/checkout').then(({ status, text }) => ({ status, text })))
    await waiting(2)
    await holder.query('COMMIT')
    holder.release()
    const [winner, loser] = (await Promise.all(paying)).toSorted((a, b) => a.status - b.status)
    expect(winner?.status).toBe(200)
    expect(loser).toEqual({ status: 409, text: 'sold out: poster' })
    expect(await left('poster')).toBe(0)
    const carts = await Promise.all(both.map(async who => (await look(who)).cart.length))
    expect(carts.toSorted((a, b) => a - b)).toEqual([0, 1])
  })

  /** Resolves when so many UPDATEs of stock are on their way, none of which can pass the row's lock. */
  async function waiting(count: number): Promise<void> {
    const sql =
      "SELECT COUNT(*) AS n FROM information_schema.processlist WHERE db = ? AND info LIKE 'UPDATE stock%'"
    for (;;) {
      const [found] = await rows(sql, [database.name])
      if (Number(found?.['n']) >= count) return
    }
  }
})

test.each(STORE_NAMES)('the shop is open with its sessions in %s', async name => {
  const database = await openDatabase()
  const pool = openPool(await createDatabase(database.url, database.name))
  const { store, close } = await openStore(name)
  const { app, tx } = createApp(pool, store)
  const handle = app.callback()
  const server = createServer((req, res) => void handle(req, res)).listen(0, '127.0.0.1')
  await once(server, 'listening')
  try {
    const who = supertest.agent(server)
    await who.post('/cart').send({ item: 'tea' }).expect(200)
    await who.post('/checkout').expect(200)
    expect((await who.get('/').expect(200)).body).toMatchObject({ cart: [], orders: 1 })
  } finally {
    await new Promise(done => server.close(done))
    await tx.close()
    await close()
    await pool.end()
    await database.close()
  }
})

test('session-tx.sql is what `npx session-tx migrate --print` prints', async () => {
  const printed: string[] = []
  await migrate(['--print'], { say: line => printed.push(line), complain: () => {} })
  const file = await readFile(resolve(__dirname, '../../example-app/session-tx.sql'), 'utf8')
  expect(file.slice(file.indexOf('\n') + 1)).toBe(`${printed.join('\n')}\n`)
})

describe('npm run demo', () => {
  const root = resolve(__dirname, '../..')
  const demo = async (...args: string[]): Promise<{ code: unknown; out: string; progress: string }> => {
    const child = spawn(process.execPath, ['scripts/run.mjs', 'demo', ...args], {
      cwd: root,
      stdio: ['ignore', 'pipe', 'pipe'],
    })
    let [out, progress] = ['', '']
    child.stdout.on('data', chunk => (out += String(chunk)))
    child.stderr.on('data', chunk => (progress += String(chunk)))
    const [code] = (await once(child, 'close')) as [unknown]
    return { code, out, progress }
  }

  /** The cells of a row, from conflicts to errors. */
  const cellsOf = (label: string, table: string): readonly string[] => {
    const row = table.split('\n').find(line => line.startsWith(`│ ${label} `)) ?? ''
    return row
      .split('│')
      .slice(3, -1)
      .map(cell => cell.trim())
  }

  test('compares three applications in one table, and session-tx has lost nothing', async () => {
    const { code, out, progress } = await demo('--seconds', '2')
    expect(progress).toContain('session-tx')
    for (const column of ['req/s', 'conflicts', 're-runs', 'oversold', '(5xx)']) expect(out).toContain(column)
    expect(cellsOf('session-tx', out).slice(2, 6)).toEqual(['0', '0', '0', '0.00'])
    expect(out).toContain('BEGIN … COMMIT')
    expect(out).toContain('SELECT … FOR UPDATE')
    expect(out).toMatch(
      /session-tx lost nothing: .+ \((MariaDB|MySQL) [\d.]+, Node [\d.]+, \d+ cores?, 1 process, --store memory\)/,
    )
    expect(code).toBe(0)
  }, 120_000)

  test.each([
    ['four', '4', 'mysql'],
    ['two', '2', 'redis'],
  ])(
    'the same over %s processes, --processes %s --store %s',
    async (_, processes, store) => {
      const { code, out } = await demo('--seconds', '4', '--processes', processes, '--store', store)
      expect(cellsOf('session-tx', out).slice(2, 6)).toEqual(['0', '0', '0', '0.00'])
      expect(out).toContain(`${processes} processes, --store ${store})`)
      expect(out).toContain('session-tx lost nothing: ')
      expect(code).toBe(0)
    },
    120_000,
  )

  test.each([
    [['--seconds', 'soon'], "--seconds must be a number of more than 0 and at most 3600, got 'soon'"],
    [
      ['--processes', '4', '--store', 'memory'],
      "--processes 4 needs --store mysql or redis: memoryStore keeps a process's sessions to itself",
    ],
  ])(
    '%j is refused with a sentence',
    async (args, sentence) => {
      const { code, out, progress } = await demo(...args)
      expect(progress.trimEnd().split('\n').at(-1)).toBe(sentence)
      expect(out).toBe('')
      expect(code).toBe(2)
    },
    60_000,
  )
})
