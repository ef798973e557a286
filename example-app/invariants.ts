/**
 * What must be true of the shop, whatever happened at once, and how much of it is not. Pure: compares what the clients
 * were told with what is in the sessions and in the rows.
 */
import type { CartLine } from './shop.js'

export interface ShopState {
  readonly stock: readonly { readonly item: string; readonly delivered: number; readonly n: number }[]
  readonly orders: readonly { readonly id: number; readonly customer: string; readonly total: number }[]
  readonly lines: readonly {
    readonly order_id: number
    readonly line: string
    readonly item: string
    readonly price: number
  }[]
  readonly balances: readonly { readonly owner: string; readonly balance: number }[]
  /** What every customer started with. */
  readonly credit: number
  readonly shoppers: readonly Shopper[]
}

/** One session, and what was answered to those who used it. */
export interface Shopper {
  readonly session: {
    readonly customer: string
    readonly visits: number
    readonly cart: readonly CartLine[]
    readonly spent: number
    readonly orders: number
  }
  readonly answered: {
    readonly visits: number
    /** Cart lines by id. */
    readonly added: readonly string[]
    readonly removed: readonly string[]
    readonly orders: readonly number[]
  }
}

export interface Losses {
  /** Visits and orders that the session does not know of, and lines that a lost update brought back into the cart. */
  readonly sessionUpdates: number
  readonly cartItems: number
  /** Pieces sold that were never delivered. */
  readonly oversold: number
  /** Cents that came from nowhere or went there. */
  readonly money: number
}

export function losses(state: ShopState): Losses {
  const { stock, orders, lines, balances, credit, shoppers } = state
  const places = placesOfLines(state)
  const missing = shoppers.map(({ session, answered }) => {
    const ordered = orders.filter(({ customer }) => customer === session.customer).length
    return Math.abs(answered.visits - session.visits) + Math.abs(ordered - session.orders)
  })
  const added = shoppers.flatMap(({ answered }) => answered.added)
  const oversold = stock.map(({ item, delivered }) => Math.max(0, soldOf(lines, item) - delivered))
  const customers = balances.filter(({ owner }) => !owner.startsWith('till-')).length
  const money = sum(balances.map(({ balance }) => balance)) - credit * customers
  return {
    sessionUpdates: sum(missing) + added.filter(line => (places.get(line) ?? 0) > 1).length,
    cartItems: added.filter(line => !places.has(line)).length,
    oversold: sum(oversold),
    money: Math.abs(money),
  }
}

/** The sentences that are not true, each with the figures; none is what one wants. */
export function brokenInvariants(state: ShopState): string[] {
  const { stock, orders, lines, shoppers } = state
  const { sessionUpdates, cartItems, oversold, money } = losses(state)
  const broken: string[] = []
  for (const { item, delivered, n } of stock) {
    const sold = soldOf(lines, item)
    if (delivered - n !== sold)
      broken.push(`stock sold = order lines: ${delivered - n} ${item} left the stock, ${sold} were ordered`)
    if (n < 0) broken.push(`never oversold: the stock of ${item} is ${n}`)
  }
  if (oversold > 0) broken.push(`never oversold: ${oversold} more were sold than delivered`)
  if (money !== 0) broken.push(`money is conserved: ${money} cents too many or too few`)
  for (const { session, answered } of shoppers) {
    const own = orders.filter(({ customer }) => customer === session.customer)
    const total = sum(own.map(order => order.total))
    if (session.spent !== total)
      broken.push(`session totals = order totals: spent ${session.spent}, ordered for ${total}`)
    const ids = own.map(({ id }) => id).sort((a, b) => a - b)
    const told = answered.orders.toSorted((a, b) => a - b)
    if (ids.join() !== told.join())
      broken.push(
        `an order is there if and only if its customer was told so: ${ids.length} are, told of ${told.length}`,
      )
  }
  for (const { id, total } of orders) {
    const priced = sum(lines.filter(line => line.order_id === id).map(({ price }) => price))
    if (priced !== total)
      broken.push(`an order's total = its lines: order ${id} has ${total}, its lines ${priced}`)
  }
  if (cartItems > 0) broken.push(`no cart item is lost: ${cartItems} are neither in the cart nor in an order`)
  if (sessionUpdates > 0) broken.push(`no session update is lost: ${sessionUpdates} are`)
  return broken
}

/** In how many places each line is: in its cart, in orders, or taken out by the customer. */
function placesOfLines({ lines, shoppers }: ShopState): Map<string, number> {
  const inCarts = shoppers.flatMap(({ session, answered }) => [
    ...session.cart.map(({ line }) => line),
    ...answered.removed,
  ])
  const places = new Map<string, number>()
  for (const line of [...inCarts, ...lines.map(one => one.line)])
    places.set(line, (places.get(line) ?? 0) + 1)
  return places
}

const soldOf = (lines: ShopState['lines'], item: string): number =>
  lines.filter(line => line.item === item).length
const sum = (numbers: readonly number[]): number => numbers.reduce((total, number) => total + number, 0)
