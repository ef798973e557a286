/**
 * The page's figures as HTML: requests by outcome, conflict ratio, wasted work, commit times, budget, queue, attempts.
 * Knows nothing of where the numbers come from or how often the page is made.
 */
import type { Span } from '../board/span.js'
import type { Stats } from '../stats.js'
import { type Html, html } from './html.js'

export function figures(span: Span, lengthMs: number, stats: Stats): Html {
  const { requests, conflicts, ended, wastedMs, usefulMs } = span
  const attempts = ended + span.reruns
  const { budget, tickets, sessions, inDoubt } = stats
  const perSecond = (count: number): string =>
    count === 0 ? '0' : ((1000 * count) / lengthMs).toPrecision(2)
  return html`<dl class="figures">
${figure('Goodput', `${plain(perSecond(requests.committed))} / s`, `${number(requests.committed)} committed of ${number(ended)} requests`)}
${figure('Rolled back', number(requests.rolledBack), 'an error, doom or a veto')}
${figure('Refused', number(requests.refused), 'a conflict ended the request', requests.refused > 0)}
${figure('Unknown', number(requests.unknown), 'COMMIT was not answered', requests.unknown > 0)}
${figure('Conflict ratio', percent(conflicts, attempts), `${number(conflicts)} of ${number(attempts)} attempts lost a race`)}
${figure('Wasted work', percent(wastedMs, wastedMs + usefulMs), `${duration(wastedMs)} in attempts that lost, ${duration(usefulMs)} in those that committed`)}
${figure('Commit, median', duration(span.commitMs(50)), `95 %: ${duration(span.commitMs(95))}, 99 %: ${duration(span.commitMs(99))}`)}
${figure('Budget, now', budget === null ? 'none' : number(Math.floor(budget.tokens)), budget === null ? 'retry.budget is false' : `of ${number(budget.capacity)} tokens for re-runs that sleep`, budget !== null && budget.tokens < 1)}
${figure('Queue, now', tickets === null ? 'none' : number(tickets.waiting), tickets === null ? 'retry.tickets is false' : `waiting; ${number(tickets.keys)} keys queued for or held`)}
${figure('Sessions, now', sessions.live === null ? 'unknown' : number(sessions.live), stats.store === null ? '' : `in ${stats.store.name}, ${stats.store.guarantee}`)}
${figure('In doubt, now', inDoubt === null ? 'no record' : number(inDoubt), inDoubt === null ? 'no commit record is kept' : 'COMMITs being settled', (inDoubt ?? 0) > 0)}
</dl>`
}

function figure(name: string, value: string, note: string, bad = false): Html {
  return html`<div class="${bad ? 'figure bad' : 'figure'}"><dt>${name}</dt><dd><strong>${value}</strong> <span>${note}</span></dd></div>`
}

const LABELS = ['1 attempt', '2 attempts', '3 attempts', '4 attempts', '5 and more']

/** Requests by attempts. The bar is decoration: the number beside it says the same. */
export function attemptsTable({ attempts, ended }: Span): Html {
  const rows = attempts.map(
    (count, place) =>
      html`<tr><th scope="row">${LABELS[place] ?? ''}</th><td>${number(count)}</td><td>${percent(count, ended)}</td><td class="bar"><meter min="0" max="${Math.max(1, ended)}" value="${count}" aria-hidden="true"></meter></td></tr>`,
  )
  return html`<table><caption>Requests by the number of their attempts</caption>
<thead><tr><th scope="col">attempts</th><th scope="col">requests</th><th scope="col">share</th><td></td></tr></thead>
<tbody>${rows}</tbody></table>`
}

export function number(value: number): string {
  return value.toLocaleString('en')
}

/** `toPrecision` without its exponent. */
function plain(text: string): string {
  return number(Number(text))
}

export function percent(part: number, whole: number): string {
  if (whole === 0) return '–'
  const value = (100 * part) / whole
  return `${value === 0 || value >= 10 ? value.toFixed(0) : value.toPrecision(2)} %`
}

export function duration(ms: number | undefined): string {
  if (ms === undefined) return '–'
  if (ms >= 60_000) return `${number(Math.round(ms / 6000) / 10)} min`
  if (ms >= 1000) return `${(ms / 1000).toFixed(1)} s`
  return `${ms === 0 || ms >= 10 ? ms.toFixed(0) : ms.toPrecision(2)} ms`
}
