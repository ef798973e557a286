/**
 * The page for people: a whole document that needs no script, in parts that a script may put in anew. What conflicts,
 * where, who won, what it costs, and what to do about it. Never a session's value or id. Knows nothing of HTTP.
 */
import { type Board, type Window, WINDOWS } from '../board/board.js'
import type { Span } from '../board/span.js'
import type { Recorder } from '../recorder.js'
import type { Stats } from '../stats.js'
import { conflictTable, doubtTable, type Filter } from './conflict-list.js'
import { attemptsTable, figures } from './figures.js'
import { adviceList, hottest, matrix } from './hot-spots.js'
import { type Html, html } from './html.js'

/** What the page shows, as its address says. */
interface View {
  readonly window: Window
  readonly filter: Filter
}

const FILTER_LENGTH_MAX = 100

export function viewOf(query: string): View {
  const params = new URLSearchParams(query)
  const asked = params.get('window')
  const text = (params.get('filter') ?? '').slice(0, FILTER_LENGTH_MAX)
  const kind = (params.get('kind') ?? '').slice(0, FILTER_LENGTH_MAX)
  return { window: WINDOWS.find(window => window === asked) ?? 'minute', filter: { text, kind } }
}

const PARTS = ['figures', 'attempts', 'advice', 'hottest', 'matrix', 'doubts', 'conflicts', 'kinds'] as const
type Part = (typeof PARTS)[number]

export class Page {
  readonly #recorder: Recorder
  readonly #board: Board

  constructor(recorder: Recorder, board: Board) {
    this.#recorder = recorder
    this.#board = board
  }

  /** @param base what addresses of files beside the page begin with: `''`, or a folder with its slash */
  document(view: View, base: string): string {
    const parts = this.#parts(view)
    return `<!doctype html>\n${layout(view, parts, this.#charts(view), base).toString()}\n`
  }

  /** Every part that can change, by name, as HTML; `charts` as JSON. */
  live(view: View): Record<string, string> {
    const parts = Object.entries(this.#parts(view)).map(([name, part]) => [name, part.toString()])
    return { ...Object.fromEntries(parts), charts: this.#charts(view) }
  }

  #parts({ window, filter }: View): Readonly<Record<Part, Html>> {
    const stats = this.#recorder.stats()
    const { span, lengthMs } = this.#board.window(window)
    return {
      figures: figures(span, lengthMs, stats),
      attempts: attemptsTable(span),
      advice: adviceList(span, stats),
      hottest: hottest(span),
      matrix: matrix(span),
      doubts: doubtTable(this.#board.doubts()),
      conflicts: conflictTable(stats.recent, filter),
      kinds: kindOptions(stats, filter.kind),
    }
  }

  /** Columns for the charts: times in seconds, then counts of each step. */
  #charts({ window }: View): string {
    const { stepMs, endsAt, spans } = this.#board.series(window)
    const last = Math.floor(endsAt / stepMs)
    const of = (value: (span: Span) => number): number[] =>
      spans.map(span => (span === undefined ? 0 : value(span)))
    return JSON.stringify({
      step: stepMs === 1000 ? 'second' : 'minute',
      times: spans.map((_, index) => ((last - spans.length + 1 + index) * stepMs) / 1000),
      committed: of(span => span.requests.committed),
      rolledBack: of(span => span.requests.rolledBack),
      refused: of(span => span.requests.refused + span.requests.unknown),
      conflicts: of(span => span.conflicts),
      commitMs: spans.map(span => span?.commitMs(95) ?? null),
    })
  }
}

function kindOptions({ conflicts }: Stats, chosen: string): Html {
  const kinds = Object.keys(conflicts.byKind)
  if (chosen !== '' && !kinds.includes(chosen)) kinds.push(chosen)
  const options = kinds.map(kind =>
    kind === chosen ? html`<option selected>${kind}</option>` : html`<option>${kind}</option>`,
  )
  return html`<option value="">every kind</option>${options}`
}

const WINDOW_NAMES: Readonly<Record<Window, string>> = {
  minute: 'last minute',
  hour: 'last hour',
  start: 'since start',
}

function layout(
  { window, filter }: View,
  parts: Readonly<Record<Part, Html>>,
  charts: string,
  base: string,
): Html {
  const tabs = WINDOWS.map(name => {
    const address = `?${new URLSearchParams({ window: name, filter: filter.text, kind: filter.kind }).toString()}`
    return name === window
      ? html`<a href="${address}" aria-current="page">${WINDOW_NAMES[name]}</a>`
      : html`<a href="${address}">${WINDOW_NAMES[name]}</a>`
  })
  const step = window === 'minute' ? 'second of the last minute' : 'minute of the last hour'
  return html`<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>session-tx: conflicts</title>
<link rel="icon" href="data:,">
<link rel="stylesheet" href="${base}uplot.css">
<link rel="stylesheet" href="${base}page.css">
<noscript><meta http-equiv="refresh" content="5"></noscript>
<script src="${base}uplot.js" defer></script>
<script src="${base}page.js" defer></script>
</head>
<body data-live="${base}live">
<a class="skip" href="#main">Skip to the figures</a>
<header>
<h1>session-tx</h1>
<nav aria-label="Window of time">${tabs}</nav>
<p class="state"><span role="status" id="state">Reloads every 5 seconds</span> <button type="button" id="pause" hidden>Pause</button></p>
</header>
<main id="main">
<section aria-labelledby="h-figures"><h2 id="h-figures">Figures, ${WINDOW_NAMES[window]}</h2><div data-part="figures">${parts.figures}</div></section>
<section aria-labelledby="h-advice"><h2 id="h-advice">What to do</h2><div data-part="advice">${parts.advice}</div></section>
<section aria-labelledby="h-charts" id="charts" data-charts="${charts}" hidden><h2 id="h-charts">By ${step}</h2>
<div class="columns"><figure><figcaption>requests and conflicts</figcaption><div class="chart" id="chart-requests" aria-hidden="true"></div></figure>
<figure><figcaption>commit time, 95 %, in ms</figcaption><div class="chart" id="chart-commit" aria-hidden="true"></div></figure></div></section>
<section aria-labelledby="h-hottest"><h2 id="h-hottest">Hottest</h2>${scrolling('h-hottest', 'hottest', parts.hottest)}</section>
<section aria-labelledby="h-matrix"><h2 id="h-matrix">Who lost to whom</h2>${scrolling('h-matrix', 'matrix', parts.matrix)}</section>
<section aria-labelledby="h-attempts"><h2 id="h-attempts">Attempts</h2>${scrolling('h-attempts', 'attempts', parts.attempts)}</section>
<section aria-labelledby="h-doubts"><h2 id="h-doubts">In doubt</h2>${scrolling('h-doubts', 'doubts', parts.doubts)}</section>
<section aria-labelledby="h-conflicts"><h2 id="h-conflicts">Last conflicts</h2>
<form id="filter" method="get"><input type="hidden" name="window" value="${window}">
<label>Text <input type="search" name="filter" value="${filter.text}" maxlength="${FILTER_LENGTH_MAX}" placeholder="route, variable, table …"></label>
<label>Kind <select name="kind" data-part="kinds">${parts.kinds}</select></label>
<button type="submit">Filter</button></form>
${scrolling('h-conflicts', 'conflicts', parts.conflicts)}</section>
</main>
<footer><p>No session’s value or id is on this page. The same as <a href="${base}stats.json">JSON</a> and for <a href="${base}metrics">Prometheus</a>.</p></footer>
</body>
</html>`
}

/** Wider than a phone: it scrolls by itself, and a keyboard can reach it. */
function scrolling(labelledBy: string, name: Part, part: Html): Html {
  return html`<div class="scroll" role="region" tabindex="0" aria-labelledby="${labelledBy}"><div data-part="${name}">${part}</div></div>`
}
