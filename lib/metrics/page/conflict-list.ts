/**
 * The last conflicts and the COMMITs in doubt, as HTML, one row each. Names, versions and times only. Knows nothing of
 * who filters, or how.
 */
import type { Doubt } from '../board/board.js'
import type { RecentConflict } from '../stats.js'
import { duration } from './figures.js'
import { type Html, html } from './html.js'

export interface Filter {
  /** Part of a route, store, variable, table or decision, in any case; empty: all. */
  readonly text: string
  /** Kind of conflict; empty: all. */
  readonly kind: string
}

/** Newest first. */
export function conflictTable(recent: readonly RecentConflict[], filter: Filter): Html {
  const found = recent.filter(conflict => fits(conflict, filter)).reverse()
  const count = html`<p>${found.length} of the last ${recent.length} conflicts</p>`
  if (found.length === 0) return count
  const rows = found.map(
    conflict => html`<tr><td><time datetime="${conflict.time}">${clockTime(conflict.time)}</time></td>
<th scope="row"><code>${conflict.route}</code></th><td>${conflict.attempt}</td><td>${conflict.kind}</td><td>${conflict.store}</td>
<td><code>${conflict.variable ?? conflict.table ?? '–'}</code></td><td>${versions(conflict)}</td>
<td><code>${conflict.winner ?? '–'}</code></td><td>${conflict.decision === 'rerun' ? 'run again' : conflict.decision}</td>
<td>${duration(conflict.waitMs)}</td></tr>`,
  )
  const head = [
    'time (UTC)',
    'route',
    'attempt',
    'kind',
    'store',
    'lost',
    'version',
    'winner',
    'decision',
    'wait',
  ]
  return html`${count}<table><caption>Conflicts, newest first</caption>
<thead><tr>${head.map(name => html`<th scope="col">${name}</th>`)}</tr></thead><tbody>${rows}</tbody></table>`
}

function fits(conflict: RecentConflict, { text, kind }: Filter): boolean {
  if (kind !== '' && conflict.kind !== kind) return false
  const { route, store, variable, table, winner, decision } = conflict
  const words = [route, store, variable, table, winner, decision, conflict.kind]
  return words.some(word => word?.toLowerCase().includes(text.toLowerCase()))
}

function versions({ baseVersion, foundVersion }: RecentConflict): string {
  if (baseVersion === undefined) return '–'
  return foundVersion === undefined ? `${baseVersion}, gave way` : `${baseVersion} → ${foundVersion}`
}

export function doubtTable(doubts: readonly Doubt[]): Html {
  if (doubts.length === 0) return html`<p>No COMMIT was left unanswered.</p>`
  const rows = doubts.map(
    doubt => html`<tr><td><time datetime="${doubt.time}">${clockTime(doubt.time)}</time></td><th scope="row"><code>${doubt.id}</code></th>
<td><code>${doubt.route}</code></td><td>${doubt.outcome ?? 'not known yet'}</td><td>${duration(doubt.doubtMs)}</td></tr>`,
  )
  const head = ['time (UTC)', 'transaction', 'route', 'outcome', 'known after']
  return html`<table><caption>COMMITs that were not answered, newest first</caption>
<thead><tr>${head.map(name => html`<th scope="col">${name}</th>`)}</tr></thead><tbody>${rows}</tbody></table>`
}

function clockTime(iso: string): string {
  return iso.slice(11, 19)
}
