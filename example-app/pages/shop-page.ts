/** The shop's one page as HTML, and the files that it loads. Knows nothing of frameworks or sessions. */
import { readFile } from 'node:fs/promises'
import createError from 'http-errors'
import type { Seen, Stock } from '../shop.js'

const ASSETS: Readonly<Record<string, string>> = { 'shop.css': 'text/css', 'shop.js': 'text/javascript' }

/** @throws 404 */
export async function assetOf(name = ''): Promise<{ readonly type: string; readonly text: string }> {
  const type = Object.hasOwn(ASSETS, name) ? ASSETS[name] : undefined
  if (type === undefined) throw createError(404, 'no such file')
  return { type, text: await readFile(new URL(name, import.meta.url), 'utf8') }
}

export function shopPage({ name, visits, cart, spent, orders, shelves }: Seen, framework: string): string {
  const who =
    name === undefined
      ? `<form method="post" action="/login"><label>Your name <input name="name" maxlength="40" required></label> <button>Log in</button></form>`
      : `<form method="post" action="/logout"><span>Hello, ${escaped(name)}.</span> <button>Log out</button></form>`
  const lines = cart.map(
    ({ item }) => `<li>${escaped(item)} <form method="post" action="/cart/${encodeURIComponent(item)}/remove">
<button aria-label="Take ${escaped(item)} out of the cart">take out</button></form></li>`,
  )
  const content = lines.length === 0 ? '<p>It is empty.</p>' : `<ul id="lines">${lines.join('')}</ul>`
  return documentOf(
    'The shop',
    `<header><h1>The shop</h1><p>on ${framework}; visit ${visits} of this session</p>${who}</header>
<main>
<section aria-labelledby="cart"><h2 id="cart">Your cart</h2>${content}
<form method="post" action="/checkout"><button${lines.length === 0 ? ' disabled' : ''}>Check out</button></form>
<p>${orders} orders so far, ${money(spent)} spent.</p></section>
<section aria-labelledby="races"><h2 id="races">Races</h2>
<p>Watch them on the <a href="/_tx" target="_blank" rel="noopener">conflict page</a>, which is live.</p>
<p><button type="button" id="race">Two tabs race for the cart</button> <button type="button" id="storm">Start a storm</button></p>
<ol id="told" role="status" aria-live="polite"></ol></section>
<section aria-labelledby="shelves"><h2 id="shelves">Shelves</h2><table><thead><tr><th scope="col">item</th><th scope="col">price</th>
<th scope="col">left</th><td></td></tr></thead><tbody>${shelves.map(shelf).join('')}</tbody></table></section>
</main><script src="/assets/shop.js" defer></script>`,
  )
}

function shelf({ item, price, n }: Stock): string {
  const name = escaped(item)
  return `<tr><th scope="row">${name}</th><td>${money(price)}</td><td>${n}</td><td><form method="post" action="/cart">
<input type="hidden" name="item" value="${name}"><button aria-label="Put ${name} into the cart">into the cart</button></form></td></tr>`
}

/** For what was refused: nothing has changed. */
export function sorryPage(message: string): string {
  return documentOf(
    'Sorry',
    `<main><h1>Sorry</h1><p>${escaped(message)}</p><p><a href="/">Back to the shop</a></p></main>`,
  )
}

function documentOf(title: string, body: string): string {
  return `<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>${title}</title><link rel="icon" href="data:,"><link rel="stylesheet" href="/assets/shop.css"></head>
<body>${body}</body></html>
`
}

const money = (cents: number): string => (cents / 100).toFixed(2)

function escaped(text: string): string {
  return text.replaceAll(/[&<>"']/g, character => `&#${character.charCodeAt(0)};`)
}
