/**
 * What it costs to stand in the stack: Koa with one empty asynchronous middleware, and with session-tx there instead,
 * which the handler does not touch. Judged by the processor time of the server: requests per second are noisier than
 * the difference. `--turns=30` for a longer run.
 */
import { parseArgs } from 'node:util'
import { alternate } from './support/alternation.js'
import { print, printHeading, printMedians, ratios, type Side, verdict } from './support/report.js'

const { values: options } = parseArgs({
  options: {
    turns: { type: 'string', default: '16' },
    'turn-ms': { type: 'string', default: '1000' },
  },
})

const sides: readonly Side[] = [
  { name: 'untouchedSessionTx', title: 'session-tx, untouched' },
  { name: 'emptyMiddleware', title: 'an empty middleware' },
]
const rounds = Number(options.turns)
const turnMs = Number(options['turn-ms'])

printHeading(`session-tx, cost of being there: ${rounds} alternations of ${turnMs} ms, 16 clients`)
const measured = await alternate({
  sides: sides.map(({ name }) => name),
  clients: 16,
  path: () => '/',
  rounds,
  turnMs,
})
print()
printMedians(measured, sides)
const { throughput, cpu } = ratios(measured, 'untouchedSessionTx', 'emptyMiddleware')
print(`  CPU per request, session-tx to empty: ${verdict(1 / cpu, { atMost: 1.05 })}`)
print(`  requests/s, session-tx to empty: ${throughput.toFixed(2)}`)
