/**
 * The Chromium of the browser tests: the one that CHROMIUM_PATH names, or that is installed; in CI, where there is none,
 * Debian's, unpacked under .cache/chromium. Nothing of it runs in an application.
 */

import { existsSync, mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { downloadPackages, libraryFolders } from './download-packages.mjs'
import { installed } from './find-program.mjs'
import { Sentence, capture } from './processes.mjs'

const names = ['chromium', 'chromium-browser', 'google-chrome-stable', 'google-chrome']
const apps = [
  '/Applications/Google Chrome.app/Contents/MacOS/Google Chrome',
  '/Applications/Chromium.app/Contents/MacOS/Chromium',
]

const packages = {
  name: 'chromium',
  // A page without a font has no text to measure; on most servers there is none.
  wanted: ['chromium', 'fonts-dejavu-core'],
  instead: 'install chromium or set CHROMIUM_PATH',
}

/**
 * What tests need in their environment; undefined where there is none, and it need not be.
 * @throws Sentence CHROMIUM_PATH or, in CI, what was installed does not run
 */
export async function useChromium() {
  const named = process.env.CHROMIUM_PATH
  const found = named ?? names.map(installed).find(Boolean) ?? apps.find(existsSync)
  if (found !== undefined) {
    const environment = { CHROMIUM_PATH: found }
    const problem = await problemOf(environment)
    if (problem === undefined) return environment
    if (named !== undefined) throw new Sentence(`CHROMIUM_PATH does not run here: ${problem}`)
  }
  if (!process.env.CI) return undefined
  return downloadChromium()
}

async function downloadChromium() {
  const fits = async folder => (await problemOf(unpackedIn(folder))) === undefined
  const tree = await downloadPackages(packages, fits)
  if (tree === undefined) throw new Sentence(`CI needs a Chromium: ${packages.instead}`)
  const environment = unpackedIn(tree)
  const problem = await problemOf(environment)
  if (problem !== undefined) throw new Sentence(`the downloaded Chromium does not run here: ${problem}`)
  return environment
}

/** The program itself: Debian's /usr/bin/chromium is a script that looks for it under /usr/lib. */
function unpackedIn(tree) {
  const fonts = join(tree, 'etc/fonts')
  return {
    CHROMIUM_PATH: join(tree, 'usr/lib/chromium/chromium'),
    CHROMIUM_LIBRARIES: libraryFolders(tree).join(':'),
    XDG_DATA_HOME: join(tree, 'usr/share'),
    ...(existsSync(fonts) ? { FONTCONFIG_PATH: fonts } : {}),
  }
}

const startMsMax = 60_000

/** undefined: it has rendered a page. Headless and without a sandbox: as root, and in a container, there is none. */
async function problemOf({ CHROMIUM_PATH, CHROMIUM_LIBRARIES, ...fonts }) {
  const profile = mkdtempSync(join(tmpdir(), 'session-tx-chromium-'))
  const flags = [
    '--headless',
    '--no-sandbox',
    '--disable-gpu',
    '--no-first-run',
    '--disable-background-networking',
  ]
  try {
    const args = [...flags, `--user-data-dir=${profile}`, '--dump-dom', 'data:text/html,<p>it works']
    const env = { ...fonts, ...(CHROMIUM_LIBRARIES ? { LD_LIBRARY_PATH: CHROMIUM_LIBRARIES } : {}) }
    const { output } = await capture(CHROMIUM_PATH, args, { env, timeoutMs: startMsMax })
    return output.includes('<p>it works') ? undefined : output.trim().slice(-2000) || 'it shows nothing'
  } catch (error) {
    if (error instanceof Sentence) return error.message
    throw error
  } finally {
    rmSync(profile, { recursive: true, force: true, maxRetries: 10, retryDelay: 50 })
  }
}
