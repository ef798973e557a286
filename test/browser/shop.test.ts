/** The example shop as a person uses it, in a real Chromium, on both frameworks; and its races on the conflict page. */
import { once } from 'node:events'
import { createServer, type RequestListener, type Server } from 'node:http'
import type { AddressInfo } from 'node:net'
import { Writable } from 'node:stream'
import { pino } from 'pino'
import type { Browser, Page } from 'playwright-core'
import { createApp } from '../../example-app/app.js'
import { createExpressApp } from '../../example-app/express-app.js'
import { logConflicts } from '../../example-app/log.js'
import { createDatabase, openPool } from '../../example-app/schema.js'
import { openBrowser, openPage } from '../support/browser.js'
import { openDatabase, type TestDatabase } from '../support/database.js'

let browser: Browser
let database: TestDatabase
let pool: ReturnType<typeof openPool>

beforeAll(async () => {
  browser = await openBrowser()
  database = await openDatabase()
  pool = openPool(await createDatabase(database.url, database.name))
})
afterAll(async () => {
  await browser.close()
  await pool.end()
  await database.close()
})

const koa = (): { tx: ReturnType<typeof createApp>['tx']; listener: RequestListener } => {
  const { app, tx } = createApp(pool)
  const handle = app.callback()
  return { tx, listener: (req, res) => void handle(req, res) }
}
const express = (): { tx: ReturnType<typeof createExpressApp>['tx']; listener: RequestListener } => {
  const { app, tx } = createExpressApp(pool)
  return { tx, listener: app as RequestListener }
}

describe.each([
  ['Koa', koa],
  ['Express', express],
])('the shop on %s', (framework, make) => {
  let server: Server
  let url: string
  let close: () => Promise<void>
  const logged: string[] = []

  beforeEach(async () => {
    const { tx, listener } = make()
    server = createServer(listener).listen(0, '127.0.0.1')
    await once(server, 'listening')
    url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`
    logged.length = 0
    const write = new Writable({
      write: (chunk, _, done) => {
        logged.push(String(chunk))
        done()
      },
    })
    logConflicts(tx, pino(write))
    close = () => tx.close()
  })
  afterEach(async () => {
    server.close()
    server.closeAllConnections()
    await close()
  })

  const cart = (page: Page) => page.locator('#lines > li')
  const put = (page: Page, item: string) =>
    page.getByRole('button', { name: `Put ${item} into the cart`, exact: true }).click()

  test('a visitor logs in with a cart, takes something out, checks out, and logs out', async () => {
    const { page, wrongs } = await openPage(browser, `${url}/`)
    await page.getByText(`on ${framework}; visit 1 of this session`).waitFor()
    await put(page, 'tea')
    await put(page, 'cake')
    await page.getByLabel('Your name').fill('<Ann>')
    await page.getByRole('button', { name: 'Log in' }).click()
    await page.getByText('Hello, <Ann>.').waitFor()
    expect(await cart(page).count()).toBe(2)
    await page.getByRole('button', { name: 'Take cake out of the cart' }).click()
    await page.getByRole('button', { name: 'Check out' }).click()
    await page.getByText('1 orders so far, 3.50 spent.').waitFor()
    await page.getByText('It is empty.').waitFor()
    await page.getByRole('button', { name: 'Log out' }).click()
    await page.getByText('visit 1 of this session').waitFor()
    await page.getByText('0 orders so far, 0.00 spent.').waitFor()
    expect(wrongs).toEqual([])
  })

  test('what is sold out is said on a page, and nothing has changed', async () => {
    const { page } = await openPage(browser, `${url}/`)
    await database.pool.query("UPDATE stock SET n = 1 WHERE item = 'lamp'")
    await put(page, 'lamp')
    await database.pool.query("UPDATE stock SET n = 0 WHERE item = 'lamp'")
    await page.getByRole('button', { name: 'Check out' }).click()
    await page.getByText('sold out: lamp').waitFor()
    await page.getByRole('link', { name: 'Back to the shop' }).click()
    expect(await cart(page).count()).toBe(1)
  })

  test('two tabs put into one cart at once: both lines are there, and the conflict appears on the open page', async () => {
    const { page, wrongs } = await openPage(browser, `${url}/`)
    const watching = await page.context().newPage()
    await watching.goto(`${url}/_tx`)
    await watching.getByText('Live', { exact: true }).waitFor()
    await page.getByRole('button', { name: 'Two tabs race for the cart' }).click()
    await page.getByText('ran 2 times').waitFor()
    await watching.getByText('1 of the last 1 conflicts').waitFor()
    const row = await watching.locator('[data-part=conflicts] tbody tr').innerText()
    expect(row).toMatch(/\/cart\s+1\s+variable\s+memory\s+cart\s/)
    await page.reload()
    expect((await cart(page).allInnerTexts()).map(text => text.split(' ')[0]).toSorted()).toEqual([
      'cake',
      'tea',
    ])
    await page.getByRole('button', { name: 'Check out' }).click()
    await page.getByText('1 orders so far, 6.25 spent.').waitFor()
    expect(logged.map(line => JSON.parse(line) as unknown)).toMatchObject([
      { level: 30, msg: 'lost a race, runs again', route: '/cart', variable: 'cart', winner: '/cart' },
    ])
    expect(wrongs).toEqual([])
  })

  test('a storm loses nothing, and the conflict page says what to do', async () => {
    const { page } = await openPage(browser, `${url}/`)
    await page.getByRole('button', { name: 'Start a storm' }).click()
    await page.getByText(/^Storm: 160 answers, \d+ after a re-run/).waitFor({ timeout: 60_000 })
    await page.goto(`${url}/_tx`)
    await page.locator('.advice li').first().waitFor()
    expect(await page.locator('.advice').innerText()).toMatch(/cart conflicts between/)
  }, 90_000)
})
