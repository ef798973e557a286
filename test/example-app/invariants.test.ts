/** The demo's checks: an honest state passes, and each way of lying about it is found. Pure. */
import { brokenInvariants, losses, type ShopState } from '../../example-app/invariants.js'

type Mutable<T> = T extends object ? { -readonly [Name in keyof T]: Mutable<T[Name]> } : T

/** Two customers, two orders, one line still in a cart and one taken out. */
function honest(): Mutable<ShopState> {
  return {
    credit: 1000,
    stock: [
      { item: 'tea', delivered: 10, n: 8 },
      { item: 'cup', delivered: 1, n: 0 },
    ],
    orders: [
      { id: 1, customer: 'ann', total: 400 },
      { id: 3, customer: 'bob', total: 100 },
    ],
    lines: [
      { order_id: 1, line: 'a', item: 'tea', price: 100 },
      { order_id: 1, line: 'b', item: 'cup', price: 300 },
      { order_id: 3, line: 'c', item: 'tea', price: 100 },
    ],
    balances: [
      { owner: 'ann', balance: 600 },
      { owner: 'bob', balance: 900 },
      { owner: 'till-0', balance: 400 },
      { owner: 'till-1', balance: 100 },
    ],
    shoppers: [
      {
        session: { customer: 'ann', visits: 2, cart: [{ line: 'd', item: 'tea' }], spent: 400, orders: 1 },
        answered: { visits: 2, added: ['a', 'b', 'd', 'e'], removed: ['e'], orders: [1] },
      },
      {
        session: { customer: 'bob', visits: 1, cart: [], spent: 100, orders: 1 },
        answered: { visits: 1, added: ['c'], removed: [], orders: [3] },
      },
    ],
  }
}

test('an honest shop breaks nothing and has lost nothing', () => {
  expect(brokenInvariants(honest())).toEqual([])
  expect(losses(honest())).toEqual({ sessionUpdates: 0, cartItems: 0, oversold: 0, money: 0 })
})

type Lie = (state: Mutable<ShopState>) => unknown

test.each<[string, Lie, RegExp]>([
  [
    'stock that left without an order',
    s => (s.stock[0]!.n = 7),
    /^stock sold = order lines: 3 tea left the stock, 2 were ordered/,
  ],
  ['a lost update of the stock', s => (s.stock[0]!.n = 9), /^stock sold = order lines: 1 tea/],
  ['less than nothing in stock', s => (s.stock[1]!.n = -1), /^never oversold: the stock of cup is -1/],
  ['more sold than delivered', s => s.lines.push({ ...s.lines[1]!, line: 'x' }), /^never oversold: 1 more/],
  ['money from nowhere', s => (s.balances[2]!.balance += 5), /^money is conserved: 5 cents/],
  ['money that is gone', s => (s.balances[0]!.balance -= 5), /^money is conserved: 5 cents/],
  [
    'a session that forgot what it spent',
    s => (s.shoppers[0]!.session.spent = 0),
    /^session totals = order totals: spent 0, ordered for 400/,
  ],
  [
    'a session that forgot an order',
    s => (s.shoppers[0]!.session.orders = 0),
    /^no session update is lost: 1/,
  ],
  [
    'a session that forgot a visit',
    s => (s.shoppers[0]!.session.visits = 1),
    /^no session update is lost: 1/,
  ],
  [
    'a session that counted a visit twice',
    s => (s.shoppers[1]!.session.visits = 2),
    /^no session update is lost: 1/,
  ],
  ['a cart that forgot a line', s => s.shoppers[0]!.session.cart.pop(), /^no cart item is lost: 1/],
  [
    'a line that was ordered and is in the cart again',
    s => s.shoppers[1]!.session.cart.push({ line: 'c', item: 'tea' }),
    /^no session update is lost: 1/,
  ],
  [
    'a line that was ordered twice',
    s => s.lines.push({ order_id: 3, line: 'a', item: 'tea', price: 0 }),
    /^no session update is lost: 1/,
  ],
  [
    'a line that came back after it was taken out',
    s => s.shoppers[0]!.session.cart.push({ line: 'e', item: 'tea' }),
    /^no session update is lost: 1/,
  ],
  [
    'an order that nobody was told of',
    s => s.shoppers[1]!.answered.orders.pop(),
    /^an order is there if and only if/,
  ],
  [
    'an order that a customer was told of and is not there',
    s => s.shoppers[1]!.answered.orders.push(9),
    /^an order is there if and only if/,
  ],
  [
    'an order whose lines cost something else',
    s => (s.orders[0]!.total = 401),
    /^an order's total = its lines: order 1/,
  ],
])('%s is found', (_, lie, sentence) => {
  const state = honest()
  lie(state)
  expect(brokenInvariants(state)).toContainEqual(expect.stringMatching(sentence))
})
