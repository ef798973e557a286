/** Runs the compiled benchmarks that are named, or all of them, one after the other. */

import { readdirSync } from 'node:fs'
import { Sentence, run, say, throwIfStopped } from './processes.mjs'

const folder = '.cache/build/bench'

/** A name is a file of bench/; everything from the first argument with a dash on goes to each benchmark. */
export function chooseBenchmarks(args) {
  const available = readdirSync('bench')
    .filter(file => file.endsWith('.ts'))
    .map(file => file.slice(0, -'.ts'.length))
  const dash = args.findIndex(arg => arg.startsWith('-'))
  const named = dash === -1 ? args : args.slice(0, dash)
  const options = dash === -1 ? [] : args.slice(dash)
  const unknown = named.find(name => !available.includes(name))
  if (unknown) throw new Sentence(`no benchmark ${unknown}: choose from ${available.join(', ')}`)
  return { names: named.length > 0 ? named : available, options }
}

/** Resolves to the worst exit code. */
export async function runBenchmarks({ names, options }) {
  let worst = 0
  for (const name of names) {
    throwIfStopped()
    say(`bench ${name}`)
    worst = Math.max(worst, await run(process.execPath, [`${folder}/${name}.js`, ...options]))
  }
  return worst
}
