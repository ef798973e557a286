/**
 * A real Chromium, one for each test file, and pages that remember what went wrong in them. The program is the one that
 * scripts/chromium.mjs found. Knows nothing of what is shown.
 */
import { type Browser, type BrowserContextOptions, chromium, type Page } from 'playwright-core'

const FLAGS = [
  '--no-sandbox', // as root, and in a container, there is none
  '--disable-gpu',
  '--disable-quic',
  '--no-first-run',
  '--disable-background-networking',
  '--disable-component-update',
  '--disable-sync',
]

export interface OpenPage {
  readonly page: Page
  /** Errors of scripts, of the console, and requests that went elsewhere than to the page's own server. */
  readonly wrongs: readonly string[]
}

export async function openBrowser(): Promise<Browser> {
  const { CHROMIUM_PATH, CHROMIUM_LIBRARIES } = process.env
  if (CHROMIUM_PATH === undefined) throw new Error('CHROMIUM_PATH is not set: run npm test')
  const env = Object.entries(process.env).filter((entry): entry is [string, string] => entry[1] !== undefined)
  return chromium.launch({
    executablePath: CHROMIUM_PATH,
    args: FLAGS,
    env: {
      ...Object.fromEntries(env),
      ...(CHROMIUM_LIBRARIES === undefined ? {} : { LD_LIBRARY_PATH: CHROMIUM_LIBRARIES }),
    },
  })
}

/** A page with cookies of its own. */
export async function openPage(
  browser: Browser,
  url: string,
  options: BrowserContextOptions = {},
): Promise<OpenPage> {
  const context = await browser.newContext(options)
  const page = await context.newPage()
  const wrongs: string[] = []
  page.on('pageerror', error => wrongs.push(`threw ${error.message}`))
  page.on('console', message => {
    if (message.type() === 'error') wrongs.push(`console: ${message.text()}`)
  })
  page.on('request', request => {
    const asked = request.url()
    if (!asked.startsWith('data:') && new URL(asked).origin !== new URL(url).origin)
      wrongs.push(`asked ${asked}`)
  })
  await page.goto(url)
  return { page, wrongs }
}
