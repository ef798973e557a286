/** What the demo prints in the end: one table. Pure. */
import Table from 'cli-table3'
import { losses } from '../invariants.js'
import type { LoadResult } from './run.js'

const COLUMNS = [
  'req/s',
  'conflicts',
  're-runs',
  'lost session\nupdates',
  'lost cart\nitems',
  'oversold',
  'money\nmissing',
  'errors\n(5xx)',
]

export function tableOf(results: readonly { readonly label: string; readonly result: LoadResult }[]): string {
  const style = { head: [], border: [], 'padding-left': 1, 'padding-right': 1 }
  const table = new Table({
    head: ['', ...COLUMNS],
    colAligns: ['left', ...COLUMNS.map(() => 'right' as const)],
    style,
  })
  for (const { label, result } of results) {
    const { sessionUpdates, cartItems, oversold, money } = losses(result.state)
    const figures = [
      result.requestsPerSecond,
      result.conflicts,
      result.reruns,
      sessionUpdates,
      cartItems,
      oversold,
    ]
    table.push([label, ...figures.map(count), (money / 100).toFixed(2), count(errorsOf(result))])
  }
  return table.toString()
}

export function errorsOf({ statuses }: LoadResult): number {
  return [...statuses].reduce((sum, [status, count]) => (status >= 500 ? sum + count : sum), 0)
}

const count = (figure: number): string => Math.round(figure).toLocaleString('en')
