/**
 * Where a layer of Express's stacks is mounted: the pattern that metrics show, and whether Express trims the URL for it.
 * Express 5 keeps the pattern; of Express 4 only the regular expression is left. Knows no request.
 */
import type { Layer, Route } from './express-context.js'

/** Mounted without a path: the URL is as it was above. */
export function isAtRoot({ slash, regexp }: Layer): boolean {
  return slash === true || regexp?.fast_slash === true
}

/** As in `'/shops/:shop'`; empty for what is mounted without a path. Never a part of a URL. */
export function patternOf(layer: Layer): string {
  if (isAtRoot(layer)) return ''
  if (layer.rawPath !== undefined) return written(layer.rawPath)
  if (layer.regexp?.fast_star === true) return '*'
  return layer.regexp === undefined ? '' : readable(layer.regexp.source, layer.keys ?? [])
}

export function routePattern({ path }: Route): string {
  return written(path)
}

function written(path: unknown): string {
  if (Array.isArray(path)) return path.map(written).join('|')
  return typeof path === 'string' && path.length > 1 ? path.replace(/\/$/, '') : String(path)
}

/** What path-to-regexp 0.1 made of a string, back again as far as it goes; a user's own expression stays as it is. */
function readable(source: string, keys: readonly { readonly name: string | number }[]): string {
  let place = 0
  return source
    .replaceAll('\\/?(?=\\/|$)', '')
    .replaceAll(/\(\?:\\?\/?\([^()]+\)\)\??/g, () => `/:${String(keys[place++]?.name ?? '')}`)
    .replaceAll(/\\(.)/g, '$1')
    .replaceAll(/(^|\|)\^/g, '$1')
}
