/**
 * A strict reader of the Prometheus text format 0.0.4: throws at anything a scraper might refuse, or silently
 * misread. Source: https://prometheus.io/docs/instrumenting/exposition_formats/ Not a test itself.
 */

export interface Sample {
  readonly name: string
  readonly labels: Readonly<Record<string, string>>
  readonly value: number
}

export interface Family {
  readonly name: string
  readonly type: 'counter' | 'gauge' | 'histogram'
  readonly help: string
  readonly samples: Sample[]
}

export function readExposition(text: string): Map<string, Family> {
  if (!text.endsWith('\n')) throw new Error('the last line must end in a line feed')
  const families = new Map<string, Family>()
  let help: { readonly name: string; readonly text: string } | undefined
  let family: Family | undefined
  const seen = new Set<string>()
  for (const line of text.slice(0, -1).split('\n')) {
    if (line === '') continue
    const comment = /^# (HELP|TYPE) ([a-zA-Z_:][\w:]*) (.+)$/.exec(line)
    const [, keyword, name = '', rest = ''] = comment ?? []
    if (keyword === 'HELP') {
      if (families.has(name)) throw new Error(`HELP of ${name} twice`)
      help = { name, text: rest }
    } else if (keyword === 'TYPE') {
      if (help?.name !== name) throw new Error(`TYPE of ${name} without its HELP`)
      if (!isType(rest)) throw new Error(`unknown type ${rest}`)
      family = { name, type: rest, help: help.text, samples: [] }
      families.set(name, family)
      help = undefined
    } else {
      const sample = readSample(line)
      if (family === undefined || !belongs(sample.name, family)) throw new Error(`${line} stands alone`)
      const identity = JSON.stringify([sample.name, Object.entries(sample.labels)])
      if (seen.has(identity)) throw new Error(`${identity} twice`)
      seen.add(identity)
      family.samples.push(sample)
    }
  }
  for (const one of families.values()) checkFamily(one)
  return families
}

function isType(text: string): text is Family['type'] {
  return ['counter', 'gauge', 'histogram'].includes(text)
}

function belongs(name: string, family: Family): boolean {
  if (family.type !== 'histogram') return name === family.name
  return ['_bucket', '_sum', '_count'].some(suffix => name === family.name + suffix)
}

function readSample(line: string): Sample {
  const parts = /^([a-zA-Z_:][\w:]*)(?:\{(.*)\})? (-?\d+(?:\.\d+)?(?:e[+-]?\d+)?)$/.exec(line)
  if (parts === null) throw new Error(`not a sample: ${line}`)
  const [, name = '', labelText = '', value = ''] = parts
  const labels: [string, string][] = []
  const label = /([a-zA-Z_]\w*)="((?:[^"\\\n]|\\["\\n])*)"(,|$)/y
  while (label.lastIndex < labelText.length) {
    const found = label.exec(labelText)
    if (found === null) throw new Error(`bad labels: ${line}`)
    const [, key = '', escaped = ''] = found
    labels.push([key, escaped.replace(/\\(.)/g, (_, letter: string) => (letter === 'n' ? '\n' : letter))])
  }
  return { name, labels: Object.fromEntries(labels), value: Number(value) }
}

/**
 * Counters never fall below zero and say so by name; a histogram is cumulative and ends in +Inf, equal to its
 * count.
 */
function checkFamily({ name, type, samples }: Family): void {
  if (type === 'counter' && !name.endsWith('_total')) throw new Error(`counter ${name} must end in _total`)
  if (type !== 'counter' && name.endsWith('_total')) throw new Error(`${type} ${name} must not end in _total`)
  if (type === 'counter' && samples.some(sample => sample.value < 0)) throw new Error(`${name} is negative`)
  if (type !== 'histogram') return
  const buckets = samples.filter(sample => sample.name === `${name}_bucket`)
  const bounds = buckets.map(({ labels: { le } }) => (le === '+Inf' ? Infinity : Number(le)))
  if (bounds.at(-1) !== Infinity) throw new Error(`${name} has no +Inf bucket at its end`)
  for (const [index, bucket] of buckets.entries()) {
    const before = buckets[index - 1]
    if (before === undefined) continue
    if (!(bounds[index]! > bounds[index - 1]!)) throw new Error(`bounds of ${name} do not rise`)
    if (bucket.value < before.value) throw new Error(`buckets of ${name} are not cumulative`)
  }
  const count = samples.find(sample => sample.name === `${name}_count`)
  if (count?.value !== buckets.at(-1)?.value) throw new Error(`count of ${name} is not its +Inf bucket`)
  if (!samples.some(sample => sample.name === `${name}_sum`)) throw new Error(`${name} has no sum`)
}
