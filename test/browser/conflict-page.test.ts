/** The conflict page in a real Chromium: live, under its policy, in the dark, on a phone, by keyboard, and without scripts. */
import Router from '@koa/router'
import express from 'express'
import type { Browser } from 'playwright-core'
import { sessionTx as forExpress } from '../../lib/express.js'
import { type KoaMiddleware, type SessionTxOptions, memoryStore } from '../../lib/index.js'
import { serve, serveTx, type TxContext, type TxMiddleware } from '../support/app.js'
import { Barrier } from '../support/barrier.js'
import { openBrowser, openPage } from '../support/browser.js'

let browser: Browser
const undo: (() => unknown)[] = []

beforeAll(async () => {
  browser = await openBrowser()
})
afterAll(() => browser.close())
afterEach(async () => {
  for (const one of undo.splice(0).reverse()) await one()
})

const SECRET = 'a value that nobody may see'

/** `/cart/:item` and `/checkout` change the same variable, and wait for each other in their first attempts. */
async function shop(options: SessionTxOptions = {}) {
  const barrier = new Barrier(2)
  const meet = async (ctx: TxContext): Promise<void> => {
    if (ctx.tx.attempt === 1 && ctx.query['alone'] === undefined) await barrier.arrive()
  }
  const router = new Router()
  router.post('/cart/:item', async context => {
    const ctx = context as unknown as TxContext
    ctx.session['cart'] = [SECRET] as never
    await meet(ctx)
    ctx.body = 'in the cart'
  })
  router.post('/checkout', async context => {
    const ctx = context as unknown as TxContext
    ctx.session['cart'] = []
    await meet(ctx)
    ctx.body = 'bought'
  })
  const mounted: { look?: KoaMiddleware } = {}
  const served = await serveTx({
    options: { store: memoryStore(), ...options },
    above: [(ctx, next) => mounted.look?.(ctx, next) as Promise<unknown>],
    below: router.routes() as unknown as TxMiddleware,
  })
  undo.push(() => served.close())
  mounted.look = served.tx.metrics()
  const client = served.client()
  await client.post('/cart/pear?alone')
  /** Two requests of one session, of which exactly one loses. */
  const race = (): Promise<unknown> => Promise.all([client.post('/cart/apple'), client.post('/checkout')])
  return { ...served, race, cookie: [...client.cookies.values()].join() }
}

test('a conflict appears on the open page without a reload, with both routes and what to do', async () => {
  const { url, race } = await shop()
  const { page, wrongs } = await openPage(browser, `${url}/_tx`)
  await page.getByText('Live', { exact: true }).waitFor()
  await page.getByText('Nothing conflicts. There is nothing to do.').waitFor()
  await race()
  await page.getByText(/^0? ?1 of the last 1 conflicts$/).waitFor()
  const row = await page.locator('[data-part=conflicts] tbody tr').innerText()
  expect(row).toMatch(/\/cart\/:item|\/checkout/)
  expect(row).toContain('run again')
  const advice = await page.locator('.advice li').innerText()
  expect(advice).toMatch(/^cart conflicts between .* in \d+ % of requests: split it/)
  expect(await page.locator('.matrix').innerText()).toContain('/checkout')
  expect(wrongs).toEqual([])
})

test('charts are drawn, and everything comes from the page’s own server', async () => {
  const { url, race } = await shop()
  await race()
  const { page, wrongs } = await openPage(browser, `${url}/_tx`)
  await page.locator('#chart-requests canvas').waitFor()
  await page.locator('#chart-commit canvas').waitFor()
  expect(wrongs).toEqual([])
})

test('neither a value nor an id of a session is on it', async () => {
  const { url, race, cookie } = await shop()
  await race()
  const { page } = await openPage(browser, `${url}/_tx?window=start`)
  await page.getByText('Live', { exact: true }).waitFor()
  const text = await page.content()
  expect(text).toContain('/checkout')
  expect(text).not.toContain(SECRET)
  expect(text).not.toContain(cookie)
})

test('the filter leaves what fits, at once and in the address', async () => {
  const { url, race } = await shop()
  await race()
  const { page } = await openPage(browser, `${url}/_tx?window=start`)
  await page.getByText('1 of the last 1 conflicts').waitFor()
  await page.getByLabel('Text').fill('no such route')
  await page.getByText('0 of the last 1 conflicts').waitFor()
  expect(new URL(page.url()).searchParams.get('filter')).toBe('no such route')
  await page.getByLabel('Text').fill('CART')
  await page.getByText('1 of the last 1 conflicts').waitFor()
  await page.getByLabel('Kind').selectOption('variable')
  await page.getByRole('link', { name: 'last hour' }).click()
  await page.getByRole('heading', { name: 'Figures, last hour' }).waitFor()
  expect(await page.getByLabel('Text').inputValue()).toBe('CART')
  expect(await page.getByLabel('Kind').inputValue()).toBe('variable')
})

test('paused, it stays as it is until it goes on', async () => {
  const { url, race } = await shop()
  const { page } = await openPage(browser, `${url}/_tx`)
  await page.getByText('Live', { exact: true }).waitFor()
  await page.getByRole('button', { name: 'Pause' }).click()
  await page.getByText('Paused').waitFor()
  await race()
  expect(await page.getByText('0 of the last 0 conflicts').isVisible()).toBe(true)
  await page.getByRole('button', { name: 'Go on' }).click()
  await page.getByText('1 of the last 1 conflicts').waitFor()
})

test.each(['light', 'dark'] as const)(
  '%s: text stands out from its ground by 4.5 to 1',
  async colorScheme => {
    const { url, race } = await shop()
    await race()
    const { page } = await openPage(browser, `${url}/_tx?window=start`, { colorScheme })
    await page.locator('.matrix').waitFor()
    const faint = (await page.evaluate(CONTRASTS)) as { seen: number; tooFaint: string[] }
    expect(faint.seen).toBeGreaterThan(20)
    expect(faint.tooFaint).toEqual([])
  },
)

test('on a phone nothing but tables is wider than the screen, and those scroll', async () => {
  const { url, race } = await shop()
  await race()
  const { page } = await openPage(browser, `${url}/_tx`, { viewport: { width: 360, height: 700 } })
  await page.locator('#chart-requests canvas').waitFor()
  const width = await page.evaluate('document.documentElement.scrollWidth')
  expect(width).toBe(360)
  const region = page.getByRole('region', { name: 'Last conflicts' }).last()
  const [inner, outer] = await region.evaluate(element => [
    (element as unknown as { scrollWidth: number }).scrollWidth,
    (element as unknown as { clientWidth: number }).clientWidth,
  ])
  expect(inner).toBeGreaterThan(outer ?? 0)
})

test('a keyboard reaches everything, in the order of the page', async () => {
  const { url } = await shop()
  const { page } = await openPage(browser, `${url}/_tx`)
  await page.getByText('Live', { exact: true }).waitFor()
  const reached: string[] = []
  for (let stop = 0; stop < 13; stop++) {
    await page.keyboard.press('Tab')
    reached.push(String(await page.evaluate(FOCUSED)))
  }
  expect(reached).toEqual([
    'Skip to the figures',
    'last minute',
    'last hour',
    'since start',
    'Pause',
    'Hottest',
    'Who lost to whom',
    'Attempts',
    'In doubt',
    'filter',
    'kind',
    'Last conflicts',
    'JSON',
  ])
})

test('every region, table and field has a name that a screen reader says', async () => {
  const { url, race } = await shop()
  await race()
  const { page } = await openPage(browser, `${url}/_tx?window=start`)
  await page.locator('.matrix').waitFor()
  const tree = await page.locator('body').ariaSnapshot()
  for (const role of ['region', 'table', 'searchbox', 'combobox', 'link', 'button', 'navigation'])
    expect(tree).not.toMatch(new RegExp(`- ${role}(:| *$)`, 'm'))
  expect(tree).toContain('- navigation "Window of time"')
  expect(tree).toContain('- table "Conflicts, newest first"')
  expect(tree).toContain('- status: Live')
})

test('without scripts it is whole, and reloads itself', async () => {
  const { url, race } = await shop()
  await race()
  const { page } = await openPage(browser, `${url}/_tx?window=start`, { javaScriptEnabled: false })
  await page.getByText('1 of the last 1 conflicts').waitFor()
  expect(await page.locator('meta[http-equiv=refresh]').getAttribute('content')).toBe('5')
  await page.getByLabel('Text').fill('nothing like that')
  await page.getByRole('button', { name: 'Filter' }).click()
  await page.getByText('0 of the last 1 conflicts').waitFor()
})

test('where events do not arrive, it reloads', async () => {
  const { url, race } = await shop()
  const { page } = await openPage(browser, 'data:text/html,<p>nothing yet')
  await page.route('**/_tx/live*', route => route.fulfill({ status: 503 }))
  await page.goto(`${url}/_tx?window=start`)
  await page.getByText('Reloads every 5 seconds').waitFor()
  await race()
  await page.getByText('1 of the last 1 conflicts').waitFor({ timeout: 15_000 })
})

test('an open page keeps no server from closing', async () => {
  const app = express()
  const tx = forExpress()
  app.use(tx.metrics())
  const served = await serve(app)
  undo.push(() => tx.close())
  const { page } = await openPage(browser, `${served.url}/_tx`)
  await page.getByText('Live', { exact: true }).waitFor()
  await served.closeGently()
})

test('Express: it is live, too', async () => {
  const app = express()
  const tx = forExpress()
  app.use(tx.metrics())
  app.use(tx)
  app.get('/', (_, res) => void res.send('hello'))
  const served = await serve(app)
  undo.push(
    () => tx.close(),
    () => served.close(),
  )
  const { page, wrongs } = await openPage(browser, `${served.url}/_tx`)
  await page.getByText('Live', { exact: true }).waitFor()
  await served.client().get('/')
  await page.getByText('1 committed of 1 requests').waitFor()
  expect(wrongs).toEqual([])
})

/** What has the focus: its text, its name in a form, or the heading that labels it. Runs in the page. */
const FOCUSED = `(() => {
  const one = document.activeElement
  const label = one.getAttribute('aria-labelledby')
  return one.name || (label ? document.getElementById(label).textContent : one.textContent)
})()`

/** Elements with text of their own whose contrast is too low. Runs in the page. Source of the formula: WCAG 2.2, 1.4.3. */
const CONTRASTS = `(() => {
  const parts = colour => (colour.match(/[\\d.]+/g) ?? []).map(Number)
  const luminance = colour => {
    const [r, g, b] = parts(colour).map(c => (c / 255 <= 0.04045 ? c / 255 / 12.92 : ((c / 255 + 0.055) / 1.055) ** 2.4))
    return 0.2126 * r + 0.7152 * g + 0.0722 * b
  }
  const ground = element => {
    for (let at = element; at; at = at.parentElement) {
      const colour = getComputedStyle(at).backgroundColor
      if (parts(colour)[3] !== 0) return colour
    }
    return 'rgb(255, 255, 255)'
  }
  let seen = 0
  const tooFaint = []
  for (const element of document.querySelectorAll('main *, header *, footer *')) {
    const own = [...element.childNodes].some(node => node.nodeType === 3 && node.textContent.trim() !== '')
    if (!own || !element.checkVisibility() || element.closest('select, input, button')) continue
    seen += 1
    const [a, b] = [luminance(getComputedStyle(element).color), luminance(ground(element))]
    const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05)
    if (ratio < 4.5) tooFaint.push(element.textContent.trim() + ' ' + ratio.toFixed(1))
  }
  return { seen, tooFaint }
})()`
