/**
 * What it costs to stand in the stack: Koa with one empty asynchronous middleware, with koa-session there instead, and
 * with session-tx, whose handler touches nothing, reads a session variable, or changes one; no pool, no SQL. Judged by the
 * processor time of the server: requests per second are noisier than the difference.
 *
 * Bytes are what a request allocates in JavaScript's heap, counted in processes of their own (support/allocation.ts).
 * `--turns=60` for a longer run, `--side=emptyMiddleware --side=untouchedSessionTx` for the target alone.
 */
import { parseArgs } from 'node:util'
import { alternate, type Measured } from './support/alternation.js'
import { allocatedBytes } from './support/allocation.js'
import { intervalOf, verdictWithin } from './support/interval.js'
import { eachRatio, median, print, printHeading, printTable, type Side } from './support/report.js'
import type { SideName } from './support/sides.js'

const { values: options } = parseArgs({
  options: {
    turns: { type: 'string', default: '30' },
    'turn-ms': { type: 'string', default: '500' },
    side: { type: 'string', multiple: true },
  },
})

const CLIENTS = 16
const BASE = 'emptyMiddleware'
const UNTOUCHED = 'untouchedSessionTx'

const everySide: readonly Side[] = [
  { name: BASE, title: 'an empty middleware' },
  { name: UNTOUCHED, title: 'session-tx, untouched' },
  { name: 'readingSessionTx', title: 'session-tx, one variable read' },
  { name: 'sessionOnlyUnsigned', title: 'session-tx, one variable changed' },
  { name: 'untouchedKoaSession', title: 'koa-session, untouched' },
]
const sides = everySide.filter(({ name }) => options.side?.includes(name) ?? true)
const rounds = Number(options.turns)
const turnMs = Number(options['turn-ms'])

printHeading(`session-tx, cost of being there: ${rounds} alternations of ${turnMs} ms, ${CLIENTS} clients`)
const plan = { sides: sides.map(({ name }) => name), clients: CLIENTS, path: () => '/' }
const measured = await alternate({ ...plan, rounds, turnMs })
const bytes = await allocatedBytes(plan)

print()
printTable([
  ['medians', 'requests/s', 'CPU per request', 'to empty', 'allocated per request'],
  ...sides.map(({ name, title }) => rowOf(name, title, measured)),
])
if (isThere(BASE) && isThere(UNTOUCHED)) {
  const cpu = intervalOf(cpuRatios(UNTOUCHED, measured))
  print(`  CPU per request, session-tx untouched to empty: ${verdictWithin(cpu, 1.05)}`)
}

function rowOf(name: SideName, title: string, { samples }: Measured): string[] {
  const mine = samples.get(name) ?? []
  const perSecond = median(mine.map(({ requestsPerSecond }) => requestsPerSecond))
  const cpuMicros = median(mine.map(sample => sample.cpuMicros))
  const toBase = isThere(BASE) ? median(cpuRatios(name, measured)).toFixed(2) : ''
  const allocated = `${(bytes.get(name) ?? Number.NaN).toFixed(0)} bytes`
  return [title, perSecond.toFixed(0), `${cpuMicros.toFixed(1)} µs`, toBase, allocated]
}

function isThere(name: SideName): boolean {
  return sides.some(side => side.name === name)
}

function cpuRatios(name: SideName, all: Measured): readonly number[] {
  return eachRatio(all, name, BASE, ({ cpuMicros }) => cpuMicros)
}
