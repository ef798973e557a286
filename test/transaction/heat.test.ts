/** Where requests keep losing races, and for how long that is believed. */
import { Heat } from '../../lib/transaction/heat.js'

let now = 0
let heat: Heat
beforeEach(() => {
  now = 1_000
  heat = new Heat(() => now)
})

const PARTS = ['/cart', '#table/stock']
function lose(times: number, address = 'POST /cart/1', route = 'POST /cart/:item'): void {
  for (let n = 0; n < times; n++) heat.lost(address, route, PARTS)
}
const at = (address = 'POST /cart/1'): readonly string[] => heat.partsAt(address, false)

test('nobody has lost: nothing is asked', () => {
  expect(heat.isCold).toBe(true)
  heat.won('POST /cart/1', 'POST /cart/:item')
  expect(heat.isCold).toBe(true)
})

test('a few lost races say nothing; four of four do', () => {
  lose(3)
  expect([heat.isCold, at()]).toEqual([false, []])
  lose(1)
  expect(at()).toEqual(PARTS)
})

function win(times: number): void {
  for (let n = 0; n < times; n++) heat.won('POST /cart/1', 'POST /cart/:item')
}

test('half of the first attempts is enough, less is not', () => {
  lose(2)
  win(2)
  expect(at()).toEqual(PARTS)
  lose(1)
  win(3)
  expect(at()).toEqual([])
})

test('four times a second one races all the same, and what four of them tell is believed', () => {
  lose(4)
  now += 249
  expect(at()).toEqual(PARTS)
  now += 1
  expect([at(), at()]).toEqual([[], PARTS])
  now += 249
  expect(at()).toEqual(PARTS)
  now += 1
  expect([at(), at()]).toEqual([[], PARTS])
  lose(2)
  win(2)
  expect(at()).toEqual(PARTS)
  win(3)
  expect(at()).toEqual(PARTS)
  lose(1)
  expect(at()).toEqual([])
})

test('an address tells the route once a request there has lost, or won while others lost', () => {
  lose(4)
  expect(at('POST /cart/2')).toEqual([])
  heat.won('POST /cart/2', 'POST /cart/:item')
  expect(at('POST /cart/2')).toEqual(PARTS)
  expect(at('GET /cart/1')).toEqual([])
})

test('who has one attempt only queues for whatever was lost there at all', () => {
  lose(1)
  expect(heat.partsAt('POST /cart/1', true)).toEqual(PARTS)
  expect(heat.partsAt('POST /elsewhere', true)).toEqual([])
})

test('ten seconds without a lost race: all is forgotten', () => {
  lose(4)
  now += 9_999
  expect(heat.isCold).toBe(false)
  now += 1
  expect(heat.isCold).toBe(true)
  expect(heat.partsAt('POST /cart/1', true)).toEqual([])
})

test('memory is bounded: routes, addresses, and the parts of a route', () => {
  for (let n = 0; n < 10_000; n++) {
    heat.lost(`GET /${n}`, `GET /${n}`, [`/variable${n}`])
    heat.lost('GET /one', 'GET /one', [`/variable${n}`])
  }
  expect(heat.partsAt('GET /one', true)).toHaveLength(8)
  expect(heat.partsAt('GET /0', true)).toEqual([])
})
