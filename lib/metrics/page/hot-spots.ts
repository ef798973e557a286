/**
 * Where it conflicts, as HTML: advice, the hottest names, and who lost to whom. Knows nothing of how names are counted.
 */
import { advice } from '../board/advice.js'
import type { Span } from '../board/span.js'
import { pairOf } from '../board/spot.js'
import type { Counted } from '../board/top-names.js'
import type { Stats } from '../stats.js'
import { number, percent } from './figures.js'
import { type Html, html, withCode } from './html.js'

const HOTTEST_MAX = 10
const MATRIX_MAX = 8

export function adviceList(span: Span, stats: Stats): Html {
  const all = advice(span, stats)
  if (all.length === 0) return html`<p>Nothing conflicts. There is nothing to do.</p>`
  return html`<ol class="advice">${all.map(({ sentence }) => html`<li>${withCode(sentence)}</li>`)}</ol>`
}

export function hottest(span: Span): Html {
  return html`<div class="columns">
${ranking('Session variables', span.names('variables').list(HOTTEST_MAX), span.conflicts)}
${ranking('Tables', span.names('tables').list(HOTTEST_MAX), span.conflicts)}
${ranking('Routes that lost', span.names('routes').list(HOTTEST_MAX), span.conflicts)}
</div>`
}

function ranking(title: string, names: readonly Counted[], conflicts: number): Html {
  if (names.length === 0) return html`<div><h3>${title}</h3><p>none</p></div>`
  const rows = names.map(
    ({ name, count }) =>
      html`<tr><th scope="row"><code>${name}</code></th><td>${number(count)}</td><td>${percent(count, conflicts)}</td></tr>`,
  )
  return html`<table><caption>${title}</caption>
<thead><tr><th scope="col">name</th><th scope="col">conflicts</th><th scope="col">share</th></tr></thead>
<tbody>${rows}</tbody></table>`
}

/** Rows lost, columns won; only the most frequent pairs. */
export function matrix(span: Span): Html {
  const pairs = span.names('pairs').list()
  if (pairs.length === 0) return html`<p>Nobody lost.</p>`
  const cells = new Map(pairs.map(({ name, count }) => [name, count]))
  const losers = unique(pairs.map(({ name }) => pairOf(name)[0]))
  const winners = unique(pairs.map(({ name }) => pairOf(name)[1]))
  const most = Math.max(...pairs.map(({ count }) => count))
  const rows = losers.map(loser => {
    const tds = winners.map(winner => {
      const count = cells.get(`${loser}\n${winner}`) ?? 0
      return html`<td class="${count === 0 ? 'heat0' : `heat${Math.ceil((4 * count) / most)}`}">${number(count)}</td>`
    })
    return html`<tr><th scope="row"><code>${loser}</code></th>${tds}</tr>`
  })
  return html`<table class="matrix"><caption>Rows lost to columns; InnoDB names no winner of a row</caption>
<thead><tr><th scope="col">lost</th>${winners.map(winner => html`<th scope="col"><code>${winner}</code></th>`)}</tr></thead>
<tbody>${rows}</tbody></table>`
}

function unique(names: readonly string[]): string[] {
  return [...new Set(names)].slice(0, MATRIX_MAX)
}
