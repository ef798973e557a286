/**
 * The shop: what visitors do, as plain handlers that read, check and write. Cart, visits and totals are in the session;
 * stock, orders and accounts are rows. Nothing here knows its framework, that it runs in a transaction, or that it may run
 * again.
 */
import { randomUUID } from 'node:crypto'
import { setTimeout as pause } from 'node:timers/promises'
import { checkOut } from './checkout.js'
import { type Handler, insist, type Visit } from './visit.js'

export interface CartLine {
  readonly line: string
  readonly item: string
}

declare module 'session-tx' {
  interface SessionData {
    customer?: string
    name?: string
    cart?: CartLine[]
    visits?: number
    spent?: number
    orders?: number
  }
}

/** What every customer has to spend, in cents. */
export const CREDIT = 1_000_000
/** Of pondering, which a visitor asks for to make a race that can be watched. */
const PONDER_MS_MAX = 1000
const NAME_LENGTH_MAX = 40

export interface Stock {
  readonly item: string
  readonly price: number
  readonly n: number
}

/** What a visitor sees. */
export interface Seen {
  readonly customer: string
  readonly name: string | undefined
  readonly visits: number
  readonly cart: readonly CartLine[]
  readonly spent: number
  readonly orders: number
  readonly shelves: readonly Stock[]
}

export interface Shop {
  readonly look: (visit: Visit) => Promise<Seen>
  readonly putIntoCart: Handler
  readonly takeOutOfCart: Handler
  readonly checkOut: Handler
  readonly logIn: Handler
}

/** @param lock ends the SELECTs whose rows are written later: '' here, FOR UPDATE in one of the compared applications */
export function shop(lock: '' | 'FOR UPDATE' = ''): Shop {
  return { look, putIntoCart, takeOutOfCart, checkOut: visit => checkOut(visit, lock), logIn }
}

async function look(visit: Visit): Promise<Seen> {
  const { session, tx } = visit
  session.customer ??= await openAccount(visit)
  session.visits = (session.visits ?? 0) + 1
  const [shelves] = await tx.query<Stock[]>('SELECT item, price, n FROM stock ORDER BY item')
  const { customer, name, visits, cart = [], spent = 0, orders = 0 } = session
  return { customer, name, visits, cart, spent, orders, shelves }
}

async function putIntoCart(visit: Visit): Promise<CartLine> {
  const { session, tx, sent } = visit
  const item = String(sent['item'])
  const [[found]] = await tx.query<Stock[]>('SELECT item, price, n FROM stock WHERE item = ?', [item])
  insist(found, 404, `no such item: ${item}`)
  insist(found.n > 0, 409, `sold out: ${found.item}`)
  session.customer ??= await openAccount(visit)
  const line: CartLine = { line: randomUUID(), item: found.item }
  ;(session.cart ??= []).push(line)
  const ponderMs = Math.min(Number(sent['ponderMs'] ?? 0), PONDER_MS_MAX)
  if (ponderMs > 0) await pause(ponderMs)
  return line
}

async function takeOutOfCart({ session, sent }: Visit): Promise<CartLine | undefined> {
  const { cart = [] } = session
  const place = cart.findIndex(({ item }) => item === sent['item'])
  insist(place >= 0, 404, 'not in the cart')
  return cart.splice(place, 1)[0]
}

/** There is no password: this shop trusts everybody. The session gets a new id, and the cart comes along. */
async function logIn({ session, sent }: Visit): Promise<unknown> {
  const name = typeof sent['name'] === 'string' ? sent['name'].trim() : ''
  insist(name !== '' && name.length <= NAME_LENGTH_MAX, 400, 'a name has 1 to 40 characters')
  await session.regenerate({ keep: ['customer', 'cart', 'visits', 'spent', 'orders'] })
  session.name = name
  return { name }
}

async function openAccount({ tx }: Visit): Promise<string> {
  const owner = randomUUID()
  await tx.query('INSERT INTO accounts (owner, balance) VALUES (?, ?)', [owner, CREDIT])
  return owner
}
