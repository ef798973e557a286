/**
 * What all benchmarks print alike: where they ran, medians, ratios with their targets. Knows nothing of what was
 * measured. Speed is printed and judged, never asserted: the exit status does not depend on it.
 */
import { cpus } from 'node:os'
import type { Measured, Sample } from './alternation.js'
import type { SideName } from './sides.js'

export function print(line = ''): void {
  process.stdout.write(`${line}\n`)
}

export function printHeading(title: string, server?: string): void {
  print(title)
  print(heading(server))
}

/** Where and when: server, Node, processor, date. */
export function heading(server?: string): string {
  const cores = cpus()
  const processor = `${cores.length} cores (${cores[0]?.model.trim() ?? 'unknown'})`
  const versions = [...(server === undefined ? [] : [server]), `Node ${process.version}`, processor]
  return `${versions.join(' · ')} · ${new Date().toISOString().slice(0, 10)}`
}

export function median(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b)
  const middle = sorted.length / 2
  return ((sorted[Math.ceil(middle) - 1] ?? Number.NaN) + (sorted[Math.floor(middle)] ?? Number.NaN)) / 2
}

/** Makes a function of a share from 0 to 1: the value that so many do not exceed. */
export function percentile(values: readonly number[]): (share: number) => number {
  const sorted = [...values].sort((a, b) => a - b)
  return share => sorted[Math.ceil(share * sorted.length) - 1] ?? Number.NaN
}

/** Plain words in columns; the first is a text, the others are numbers. */
export function printTable(rows: readonly (readonly string[])[]): void {
  const widths = (rows[0] ?? []).map((_, column) => Math.max(...rows.map(row => row[column]?.length ?? 0)))
  const pad = (cell: string, column: number): string =>
    column === 0 ? cell.padEnd(widths[column] ?? 0) : cell.padStart(widths[column] ?? 0)
  for (const row of rows) print(`  ${row.map(pad).join('   ')}`)
}

export interface Side {
  readonly name: SideName
  readonly title: string
}

/** Medians of every side. */
export function printMedians({ samples }: Measured, sides: readonly Side[]): void {
  printTable([
    ['medians', 'requests/s', 'CPU per request'],
    ...sides.map(({ name, title }) => {
      const mine = samples.get(name) ?? []
      const perSecond = median(mine.map(({ requestsPerSecond }) => requestsPerSecond))
      const cpuMicros = median(mine.map(sample => sample.cpuMicros))
      return [title, perSecond.toFixed(0), `${cpuMicros.toFixed(1)} µs`]
    }),
  ])
}

export interface Ratios {
  /** Requests per second of `ours` in those of `theirs`. */
  readonly throughput: number
  /** Processor time per request of `theirs` in that of `ours`: above 1, ours is cheaper. */
  readonly cpu: number
  /** The median answer of `theirs` takes so many times as long as that of `ours`. */
  readonly p50: number
}

/** Medians of the ratios of each round: two turns that follow each other are disturbed alike. */
export function ratios(measured: Measured, ours: SideName, theirs: SideName): Ratios {
  const of = (value: (sample: Sample) => number): number => median(eachRatio(measured, ours, theirs, value))
  return {
    throughput: of(({ requestsPerSecond }) => requestsPerSecond),
    cpu: 1 / of(({ cpuMicros }) => cpuMicros),
    p50: 1 / of(({ p50Ms }) => p50Ms),
  }
}

/** One of each round, ours to theirs. */
export function eachRatio(
  { samples }: Measured,
  ours: SideName,
  theirs: SideName,
  value: (sample: Sample) => number,
): readonly number[] {
  return (samples.get(ours) ?? []).map((our, round) => {
    const their = samples.get(theirs)?.[round]
    return value(our) / (their === undefined ? Number.NaN : value(their))
  })
}

/** `met` or `missed`, in so many words. */
export function verdict(
  value: number,
  target: { readonly atLeast: number } | { readonly atMost: number },
): string {
  const [words, limit, isMet] =
    'atLeast' in target
      ? ['at least', target.atLeast, value >= target.atLeast]
      : ['at most', target.atMost, value <= target.atMost]
  return `${value.toFixed(2)}, target ${words} ${limit.toFixed(2)}: ${isMet ? 'met' : 'missed'}`
}
