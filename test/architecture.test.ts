/** The tree is the architecture: this file proves it of lib/, and then that each of its rules can fail. */

import { readFileSync } from 'node:fs'
import { resolve } from 'node:path'
import * as rules from './support/architecture.js'
import { type Sources, readSources } from './support/source-file.js'

const root = resolve(__dirname, '..')
const everything = readSources(resolve(root, 'lib'))
/** `a.commonjs.ts` is compiled in the place of `a.ts` for one of the two builds: nobody imports it by its name. */
const isTwin = (file: string): boolean => file.endsWith('.commonjs.ts')
const lib: Sources = new Map([...everything].filter(([file]) => !isTwin(file)))
const tests = readSources(resolve(root, 'test'), resolve(root, 'lib'))
const entries = ['index.ts', 'express.ts', 'testing/index.ts', 'cli/bin.ts']
const linesMax = 400

const { dependencies } = JSON.parse(readFileSync(resolve(root, 'package.json'), 'utf8')) as {
  dependencies: Record<string, string>
}
const runtime = Object.keys(dependencies)

/** Imports that may break a rule, each with its reason. */
const exempt: rules.Exemptions = {}

describe('lib/', () => {
  beforeAll(() => process.stdout.write(`\n${rules.sizeTable(lib)}\n`))

  const used = new Set<string>()

  test('every file opens with a sentence that says what it is', () => none(rules.missingHeaders(lib)))
  test('what is there twice exports the same for both builds', () => {
    for (const twin of [...everything.keys()].filter(isTwin)) {
      const [own, other] = [twin, twin.replace('.commonjs', '')].map(file => everything.get(file) ?? '')
      const exported = (text = ''): string[] => text.match(/^export .*?(?= =)/gm) ?? []
      expect(exported(own)).toEqual(exported(other))
      expect(exported(own)).not.toEqual([])
    }
  })
  test('every file has a rank', () => none(rules.unranked(lib)))
  test('imports point into the own folder or down', () => none(rules.upwardImports(lib, exempt, used)))
  test('every import leads to a file', () => none(rules.brokenImports(lib)))
  test('no file imports itself over others', () => none(rules.importCycles(lib)))
  test('every file is reached from an entry', () => none(rules.deadFiles(lib, entries)))
  test('drivers and frameworks are never imported', () => none(rules.forbiddenPackages(lib, exempt, used)))
  test('no exemption has outlived its reason', () => none(rules.staleExemptions(exempt, used)))
  test('only declared dependencies are imported', () => none(rules.undeclaredPackages(lib, runtime)))
  test('every dependency is imported', () => none(rules.unusedDependencies(lib, runtime)))
  test('folders are named after what is in them', () => none(rules.vagueFolders(lib)))
  test('there is no barrel', () => none(rules.barrels(lib, entries)))
  test('exports are listed by name', () => none(rules.starExports(lib)))
  test('every export is used by another file', () => none(rules.unusedExports(lib, tests, entries)))
  test(`no file is longer than ${linesMax} lines`, () => none(rules.longFiles(lib, linesMax)))
})

describe('a tree that breaks a rule', () => {
  const tree = (files: Record<string, string>): Sources => new Map(Object.entries(files))

  test('a file without a header, or with one that says nothing', () => {
    const said = tree({
      'a.ts': '/** Says what it is, and what it is not. */',
      'b.ts': '// Two lines say\n// what this one is.\n',
    })
    const unsaid = tree({
      'c.ts': "import './a.js';\n/** Says what it is, but late. */",
      'd.ts': '/** A file. */',
      'e.ts': '',
    })
    none(rules.missingHeaders(said))
    named(rules.missingHeaders(unsaid), 'c.ts', 'd.ts', 'e.ts')
  })

  test.each([
    ['a value import', "import { b } from '../http/b.js'"],
    ['a type-only import', "import type { b } from '../http/b.js'"],
    ['an inline type import', "import { type b } from '../http/b.js'"],
    ['a re-export', "export { b } from '../http/b.js'"],
    ['a dynamic import', "const load = () => import('../http/b.js')"],
    ['an import in a type', "type B = import('../http/b.js').b"],
  ])('%s that points up', (_, text) => {
    named(rules.upwardImports(tree({ 'session/a.ts': text })), 'session/a.ts → http/b.ts')
  })

  test('an import of a neighbour of the same rank, and of an entry by its file or its name', () => {
    const down = tree({ 'http/a.ts': "import '../errors.js'; import './b.js'; import '../store/c.js'" })
    none(rules.upwardImports(down))
    named(
      rules.upwardImports(tree({ 'session/a.ts': "import '../mysql/b.js'" })),
      'session/a.ts → mysql/b.ts',
    )
    named(rules.upwardImports(tree({ 'errors.ts': "import './index.js'" })), 'errors.ts → index.ts')
    named(rules.upwardImports(tree({ 'http/a.ts': "import 'session-tx'" })), 'http/a.ts → index.ts')
  })

  test('an exemption that is needed is noted, one that is not is named', () => {
    const sources = tree({ 'session/a.ts': "import '../http/b.js'" })
    const exemptions = { 'session/a.ts → http/b.ts': 'because', 'session/a.ts → http/c.ts': 'because' }
    const used = new Set<string>()
    none(rules.upwardImports(sources, exemptions, used))
    named(rules.staleExemptions(exemptions, used), 'http/c.ts')
  })

  test('a folder without a rank', () => {
    named(
      rules.unranked(tree({ 'http/a.ts': '', 'kitchen/sink.ts': '', 'stray.ts': '' })),
      'kitchen/sink.ts',
      'stray.ts',
    )
  })

  test('an import that leads nowhere', () => {
    named(rules.brokenImports(tree({ 'http/a.ts': "import './b.js'" })), 'http/a.ts → http/b.ts')
  })

  test('a cycle, also one of types only', () => {
    const sources = tree({
      'a.ts': "import './b.js'",
      'b.ts': "import type { C } from './c.js'",
      'c.ts': "export type { B } from './b.js'",
    })
    expect(rules.importCycles(sources)).toEqual(['b.ts → c.ts → b.ts'])
  })

  test('a file that no entry reaches', () => {
    const sources = tree({
      'index.ts': "export { a } from './a.js'",
      'a.ts': '',
      'dead.ts': "import './a.js'",
    })
    named(rules.deadFiles(sources, ['index.ts']), 'dead.ts')
  })

  test('a driver or a framework, but not in the command line tool', () => {
    const sources = tree({
      'mysql/a.ts': "import type { Pool } from 'mysql2/promise'",
      'http/b.ts': "import Koa from 'koa'",
      'http/c.ts': "import 'koa-compose'",
      'cli/d.ts': "import 'mysql2'",
    })
    named(rules.forbiddenPackages(sources), 'mysql/a.ts → mysql2', 'http/b.ts → koa')
    none(rules.forbiddenPackages(sources, { 'mysql/a.ts → mysql2': 'because', 'http/b.ts → koa': 'because' }))
  })

  test('a package that is not declared, and one that is declared for nothing', () => {
    const sources = tree({ 'a.ts': "import 'node:fs'; import '@scope/one/deep'; import 'two'" })
    named(rules.undeclaredPackages(sources, ['two']), 'a.ts → @scope/one')
    named(rules.unusedDependencies(sources, ['@scope/one', 'three']), 'three')
  })

  test('a folder called after nothing', () => {
    named(
      rules.vagueFolders(tree({ 'http/utils/a.ts': '', 'core/b.ts': '', 'http/core.ts': '' })),
      'http/utils/a.ts',
      'core/b.ts',
    )
  })

  test('a barrel, and an export of everything', () => {
    const sources = tree({
      'index.ts': "export * from './http/a.js'",
      'http/index.ts': "export { a } from './a.js'",
    })
    named(rules.barrels(sources, ['index.ts']), 'http/index.ts')
    named(rules.starExports(sources), 'index.ts')
  })

  test('an export that nobody uses, whatever it is', () => {
    const sources = tree({
      'index.ts': "export { used } from './a.js'; import * as all from './c.js'",
      'a.ts':
        'export const used = 1, a = 2; export function b() {} export class C {} export interface D {} export type E = 1',
      'b.ts': "const f = 1; export { f as g }; import { type D } from './a.js'",
      'c.ts': 'export const whole = 1; export default 1',
    })
    const users = tree({ '../test/a.test.ts': "import { C } from '../lib/a'" })
    named(
      rules.unusedExports(sources, users, ['index.ts']),
      'exports a,',
      'exports b,',
      'exports E,',
      'exports g,',
    )
  })

  test('a file that is too long', () => {
    named(
      rules.longFiles(tree({ 'a.ts': '\n'.repeat(400), 'b.ts': '\n'.repeat(401) }), 400),
      'b.ts has 401 lines',
    )
  })
})

function none(problems: readonly string[]): void {
  expect(problems).toEqual([])
}

/** Exactly one problem for each offender, in this order, naming it. */
function named(problems: readonly string[], ...offenders: string[]): void {
  expect(problems).toEqual(offenders.map(offender => expect.stringContaining(offender)))
}
