/**
 * The rules of the tree as functions: sources in, sentences out, an empty list when the rule is kept. They know the
 * tree only through their arguments, so that architecture.test.ts can also feed each one an example that breaks it.
 */

import { dirname, join, normalize } from 'node:path/posix'
import { type SourceFile, type Sources, parseAll } from './source-file.js'

/** Files and folders of lib/, lowest first. A file imports its own folder or a lower rank. */
export const ranks: Readonly<Record<string, number>> = {
  'errors.ts': 0,
  'events.ts': 0,
  transaction: 1,
  session: 2,
  mysql: 2,
  store: 3,
  joint: 4,
  http: 5,
  metrics: 5,
  'assembly.ts': 6,
  'run.ts': 6,
  'options.ts': 6,
  'option-rules.ts': 6,
  'index.ts': 6,
  'express.ts': 6,
  testing: 6,
  cli: 6,
}

/** `from → to` with the reason why this one import may break a rule. */
export type Exemptions = Readonly<Record<string, string>>

export function missingHeaders(sources: Sources): string[] {
  return [...sources]
    .filter(([, text]) => !hasHeader(text))
    .map(([file]) => `${file} does not open with a sentence that says what it is`)
}

function hasHeader(text: string): boolean {
  const comment = /^(?:#!.*\n)?\s*(?:\/\*\*([\s\S]*?)\*\/|((?:[ \t]*\/\/[^\n]*\n)+))/.exec(text)
  const words = (comment?.[1] ?? comment?.[2] ?? '').replaceAll(/^[\s/*]+/gm, ' ').trim()
  return words.split(/\s+/).length >= 5 && /[.:;!?](\s|$)/.test(words)
}

/** @param used collects the exemptions that were needed */
export function upwardImports(sources: Sources, exempt: Exemptions = {}, used = new Set<string>()): string[] {
  const problems: string[] = []
  for (const [from, to] of edges(sources)) {
    const [lower, upper] = [rankOf(from), rankOf(to)]
    if (lower === undefined || upper === undefined) continue // unranked() names it
    if (upper < lower || sameFolder(from, to)) continue
    const edge = `${from} → ${to}`
    if (edge in exempt) used.add(edge)
    else problems.push(`${edge}: rank ${lower} may not import rank ${upper}`)
  }
  return problems
}

export function unranked(sources: Sources): string[] {
  return [...sources.keys()]
    .filter(file => rankOf(file) === undefined)
    .map(file => `${file} has no rank: its place is not in the table`)
}

const unitOf = (file: string): string => file.split('/')[0] ?? file
const rankOf = (file: string): number | undefined => ranks[unitOf(file)]

/** Files directly in lib/ share no folder in this sense, only a rank. */
function sameFolder(a: string, b: string): boolean {
  if (a.includes('/') !== b.includes('/')) return false
  return a.includes('/') ? unitOf(a) === unitOf(b) : rankOf(a) === rankOf(b)
}

/** Every import that leads to no file: a typing slip here would hide an edge from all other rules. */
export function brokenImports(sources: Sources): string[] {
  return [...edges(sources)]
    .filter(([, to]) => !sources.has(to))
    .map(([from, to]) => `${from} → ${to}: there is no such file`)
}

export function importCycles(sources: Sources): string[] {
  const next = new Map<string, string[]>()
  for (const [from, to] of edges(sources)) next.set(from, [...(next.get(from) ?? []), to])
  const cycles: string[] = []
  const done = new Set<string>()
  const visit = (file: string, path: readonly string[]): void => {
    const start = path.indexOf(file)
    if (start !== -1) cycles.push([...path.slice(start), file].join(' → '))
    if (start !== -1 || done.has(file)) return
    for (const to of next.get(file) ?? []) visit(to, [...path, file])
    done.add(file)
  }
  for (const file of sources.keys()) visit(file, [])
  return cycles
}

export function deadFiles(sources: Sources, entries: readonly string[]): string[] {
  const reached = new Set<string>()
  const all = [...edges(sources)]
  const visit = (file: string): void => {
    if (reached.has(file)) return
    reached.add(file)
    for (const [from, to] of all) if (from === file) visit(to)
  }
  entries.forEach(visit)
  return [...sources.keys()]
    .filter(file => !reached.has(file))
    .map(file => `${file} is reached from no entry`)
}

/** What lib/ types structurally, so that the application decides what is loaded, and in which version. */
const neverImported = ['mysql2', 'koa', 'express', 'redis', 'ioredis', '@redis/client']

export function forbiddenPackages(
  sources: Sources,
  exempt: Exemptions = {},
  used = new Set<string>(),
): string[] {
  return packageImports(sources).flatMap(({ from, name }) => {
    const edge = `${from} → ${name}`
    if (!neverImported.includes(name) || from.startsWith('cli/')) return []
    if (edge in exempt) used.add(edge)
    return edge in exempt ? [] : [`${edge}: ${name} is typed structurally and never imported`]
  })
}

export function undeclaredPackages(sources: Sources, dependencies: readonly string[]): string[] {
  return packageImports(sources)
    .filter(({ name }) => !neverImported.includes(name) && !dependencies.includes(name))
    .map(({ from, name }) => `${from} → ${name}: not among the dependencies`)
}

export function unusedDependencies(sources: Sources, dependencies: readonly string[]): string[] {
  const imported = new Set(packageImports(sources).map(({ name }) => name))
  return dependencies
    .filter(name => !imported.has(name))
    .map(name => `${name} is a dependency that lib/ never imports`)
}

const vague = /^(utils?|helpers?|common|core|misc|shared)$/

export function vagueFolders(sources: Sources): string[] {
  return [...sources.keys()]
    .filter(file =>
      dirname(file)
        .split('/')
        .some(folder => vague.test(folder)),
    )
    .map(file => `${file} is in a folder whose name says nothing`)
}

export function barrels(sources: Sources, entries: readonly string[]): string[] {
  return [...sources.keys()]
    .filter(file => /(^|\/)index\.ts$/.test(file) && !entries.includes(file))
    .map(file => `${file} is a barrel: import the file that is meant`)
}

export function starExports(sources: Sources): string[] {
  return [...parseAll(sources)]
    .filter(([, { exportsStar }]) => exportsStar)
    .map(([file]) => `${file} says export *: list the names`)
}

/**
 * Exports that nobody else needs. An entry's own exports are the public surface.
 *
 * @param users further files that count as users, such as the tests; their paths are relative to lib/
 */
export function unusedExports(sources: Sources, users: Sources, entries: readonly string[]): string[] {
  const usedNames = new Map<string, Set<string>>()
  for (const [file, { imports }] of [...parseAll(sources), ...parseAll(users)]) {
    for (const { specifier, names } of imports) {
      const target = resolve(file, specifier)
      if (target === undefined) continue
      const known = usedNames.get(target) ?? new Set()
      for (const name of names) known.add(name)
      usedNames.set(target, known)
    }
  }
  return [...parseAll(sources)].flatMap(([file, { exported }]) => {
    const used = usedNames.get(file) ?? new Set()
    if (entries.includes(file) || used.has('*')) return []
    return exported
      .filter(name => !used.has(name))
      .map(name => `${file} exports ${name}, which no other file uses`)
  })
}

export const lineCount = (text: string): number => text.split('\n').length - (text.endsWith('\n') ? 1 : 0)

export function longFiles(sources: Sources, linesMax: number): string[] {
  return [...sources]
    .map(([file, text]) => ({ file, lines: lineCount(text) }))
    .filter(({ lines }) => lines > linesMax)
    .map(({ file, lines }) => `${file} has ${lines} lines, more than ${linesMax}`)
}

/** For people to read: the longest files first. */
export function sizeTable(sources: Sources): string {
  const rows = [...sources]
    .map(([file, text]) => ({ file, lines: lineCount(text) }))
    .sort((a, b) => b.lines - a.lines)
  const total = rows.reduce((sum, { lines }) => sum + lines, 0)
  const line = (lines: number, name: string) => `${String(lines).padStart(6)}  ${name}\n`
  return (
    rows.map(({ lines, file }) => line(lines, file)).join('') + line(total, `in ${rows.length} files of lib/`)
  )
}

/** An exemption that nothing needs any more has outlived its reason. */
export function staleExemptions(exempt: Exemptions, used: ReadonlySet<string>): string[] {
  return Object.keys(exempt)
    .filter(edge => !used.has(edge))
    .map(edge => `the exemption "${edge}" is not needed`)
}

/** All imports between files, type-only ones included. */
function* edges(sources: Sources): Generator<readonly [from: string, to: string]> {
  for (const [from, { imports }] of parseAll(sources)) {
    for (const { specifier } of imports) {
      const to = resolve(from, specifier)
      if (to !== undefined) yield [from, to]
    }
  }
}

function packageImports(sources: Sources): { from: string; name: string }[] {
  const all = [...parseAll(sources)] satisfies [string, SourceFile][]
  return all.flatMap(([from, { imports }]) =>
    imports
      .filter(({ specifier }) => !specifier.startsWith('.') && !specifier.startsWith('node:'))
      .map(({ specifier }) => ({
        from,
        name: specifier
          .split('/')
          .slice(0, specifier.startsWith('@') ? 2 : 1)
          .join('/'),
      })),
  )
}

/** The file of lib/ that a specifier means; undefined for a package. */
function resolve(from: string, specifier: string): string | undefined {
  if (specifier === 'session-tx') return 'index.ts'
  if (specifier.startsWith('session-tx/')) return `${specifier.slice('session-tx/'.length)}/index.ts`
  if (!specifier.startsWith('.')) return undefined
  // A test's own path leads out of lib/ and its imports back into it.
  const path = normalize(join(dirname(from), specifier))
    .replace(/^\.\.\/lib\//, '')
    .replace(/\.js$/, '')
  return path.endsWith('.ts') ? path : `${path}.ts`
}
