/**
 * The checkout: a session and four tables change together. It reads, checks and writes what it computed, as one would
 * if nobody else were there; that nobody is, is the transaction's business. Only what cannot be taken back waits for the
 * commit.
 */
import { randomInt } from 'node:crypto'
import type { Stock } from './shop.js'
import { insist, type Visit } from './visit.js'

/** The shop's money lies in several tills, so that not every checkout has to wait for one row. */
const TILLS = 8

interface Account {
  readonly owner: string
  readonly balance: number
}
interface Inserted {
  readonly insertId: number
}

export async function checkOut({ session, tx, receipt }: Visit, lock: string): Promise<unknown> {
  const { customer = '', cart = [] } = session
  insist(cart.length > 0, 409, 'the cart is empty')

  const wanted = [...new Set(cart.map(({ item }) => item))]
  const shelves = `SELECT item, price, n FROM stock WHERE item IN (?) ORDER BY item ${lock}`
  const [stock] = await tx.query<Stock[]>(shelves, [wanted])
  const left = new Map(stock.map(({ item, n }) => [item, n - cart.filter(line => line.item === item).length]))
  for (const [item, n] of left) insist(n >= 0, 409, `sold out: ${item}`)
  const prices = new Map(stock.map(({ item, price }) => [item, price]))
  const total = cart.reduce((sum, { item }) => sum + (prices.get(item) ?? 0), 0)

  const till = `till-${randomInt(TILLS)}`
  const accounts = `SELECT owner, balance FROM accounts WHERE owner IN (?) ORDER BY owner ${lock}`
  const [rows] = await tx.query<Account[]>(accounts, [[customer, till]])
  const balances = new Map(rows.map(({ owner, balance }) => [owner, balance]))
  const own = balances.get(customer) ?? 0
  insist(own >= total, 402, `the balance is short: ${own} of ${total}`)

  const [{ insertId: order }] = await tx.query<Inserted>('INSERT INTO orders (customer, total) VALUES (?)', [
    [customer, total],
  ])
  const lines = cart.map(({ line, item }) => [order, line, item, prices.get(item)])
  await tx.query('INSERT INTO order_lines (order_id, line, item, price) VALUES ?', [lines])
  for (const [item, n] of left) await tx.query('UPDATE stock SET n = ? WHERE item = ?', [n, item])
  const settle = 'UPDATE accounts SET balance = ? WHERE owner = ?'
  await tx.query(settle, [own - total, customer])
  await tx.query(settle, [(balances.get(till) ?? 0) + total, till])

  session.cart = []
  session.spent = (session.spent ?? 0) + total
  session.orders = (session.orders ?? 0) + 1
  tx.afterCommit(() => receipt(order))
  return { order, total }
}
