/**
 * The shop: what visitors do, as plain handlers that read, check and write. Cart, visits and totals are in the session;
 * stock, orders and accounts are rows. Nothing here knows that it runs in a transaction or that it may run again.
 */
import { randomUUID } from 'node:crypto'
import { Router, type RouterContext } from '@koa/router'
import type { DefaultState } from 'koa'
import type { SessionTxContext } from 'session-tx'
import { checkOut } from './checkout.js'

export interface CartLine {
  readonly line: string
  readonly item: string
}

declare module 'session-tx' {
  interface SessionData {
    customer?: string
    cart?: CartLine[]
    visits?: number
    spent?: number
    orders?: number
  }
}

/** What every customer has to spend, in cents. */
export const CREDIT = 1_000_000

export type Context = RouterContext<DefaultState, SessionTxContext>
export interface Stock {
  readonly item: string
  readonly price: number
  readonly n: number
}

/** @param lock ends the SELECTs whose rows are written later: '' here, FOR UPDATE in one of the compared applications */
export function shop({
  lock = '',
}: {
  readonly lock?: '' | 'FOR UPDATE'
} = {}): Router<DefaultState, SessionTxContext> {
  return new Router<DefaultState, SessionTxContext>()
    .get('/', look)
    .post('/cart', putIntoCart)
    .delete('/cart/:item', takeOutOfCart)
    .post('/checkout', ctx => checkOut(ctx, lock))
}

async function look(ctx: Context): Promise<void> {
  const { session, tx } = ctx
  session.customer ??= await openAccount(ctx)
  session.visits = (session.visits ?? 0) + 1
  const [shelves] = await tx.query<Stock[]>('SELECT item, price, n FROM stock ORDER BY item')
  const { customer, visits, cart = [], spent = 0, orders = 0 } = session
  ctx.body = { customer, visits, cart, spent, orders, shelves }
}

async function putIntoCart(ctx: Context): Promise<void> {
  const { session, tx } = ctx
  const { item } = ctx.request.body as { item?: unknown }
  const [[found]] = await tx.query<Stock[]>('SELECT item, price, n FROM stock WHERE item = ?', [String(item)])
  ctx.assert(found, 404, `no such item: ${String(item)}`)
  ctx.assert(found.n > 0, 409, `sold out: ${found.item}`)
  session.customer ??= await openAccount(ctx)
  const line: CartLine = { line: randomUUID(), item: found.item }
  ;(session.cart ??= []).push(line)
  ctx.body = line
}

async function takeOutOfCart(ctx: Context): Promise<void> {
  const { cart = [] } = ctx.session
  const place = cart.findIndex(({ item }) => item === ctx.params['item'])
  ctx.assert(place >= 0, 404, 'not in the cart')
  ;[ctx.body] = cart.splice(place, 1)
}

async function openAccount({ tx }: Context): Promise<string> {
  const owner = randomUUID()
  await tx.query('INSERT INTO accounts (owner, balance) VALUES (?, ?)', [owner, CREDIT])
  return owner
}
