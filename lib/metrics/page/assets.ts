/**
 * The files that the page loads, all from this package or from uPlot's: nothing of it comes from elsewhere. Read once,
 * when first asked for. Knows nothing of the page.
 */
import { readFileSync } from 'node:fs'
import { beside } from '../here.js'

const SCRIPT = 'text/javascript; charset=utf-8'
const STYLE = 'text/css; charset=utf-8'

/** By the name in the address: the type, and where the file is. */
const ASSETS = {
  'page.css': [STYLE, () => beside.resolve('./page/browser/page.css')],
  'page.js': [SCRIPT, () => beside.resolve('./page/browser/page.js')],
  'uplot.css': [STYLE, () => beside.resolve('uplot/dist/uPlot.min.css')],
  'uplot.js': [SCRIPT, () => beside.resolve('uplot/dist/uPlot.iife.min.js')],
} as const

type AssetName = keyof typeof ASSETS

export const ASSET_NAMES = Object.keys(ASSETS) as readonly AssetName[]

const read = new Map<AssetName, string>()

export function asset(name: AssetName): { readonly type: string; readonly body: string } {
  const [type, place] = ASSETS[name]
  const body = read.get(name) ?? readFileSync(place(), 'utf8')
  read.set(name, body)
  return { type, body }
}
