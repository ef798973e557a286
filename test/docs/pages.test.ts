/** What holds of every page: links lead somewhere, commands exist, the place of the demo's table is kept. */
import { existsSync, readFileSync } from 'node:fs'
import { resolve } from 'node:path'
import { readSources } from '../support/source-file.js'
import {
  allPages,
  brokenLink,
  codesIn,
  localLinksOf,
  proseOf,
  readPage,
  root,
  rowsUnder,
} from './markdown.js'

const pages = allPages()
const named = pages.map(page => [page.name, page] as const)

test('there are the pages that a reader looks for', () => {
  const expected = ['ARCHITECTURE.md', 'CHANGELOG.md', 'CONTRIBUTING.md', 'README.md', 'SECURITY.md']
  const manual = [
    'errors',
    'express',
    'handlers-that-run-twice',
    'isolation',
    'metrics',
    'mysql',
    'options',
    'query-builders',
    'sessions',
    'transaction',
    'writing-a-store',
  ].map(name => `docs/${name}.md`)
  expect(pages.map(({ name }) => name)).toEqual(expect.arrayContaining([...expected, ...manual]))
})

test.each(named)('%s: every link within the project leads to a file and a heading', (_, page) => {
  expect(localLinksOf(page).flatMap(link => brokenLink(page, link) ?? [])).toEqual([])
})

test('a link that leads nowhere is found', () => {
  const page = {
    name: 'docs/none.md',
    text: '[a](options.md) [b](../lib/none.ts) [c](options.md#none) [d](options.md#everyday)',
  }
  expect(localLinksOf(page).flatMap(link => brokenLink(page, link) ?? [])).toEqual([
    'docs/none.md: ../lib/none.ts is no file',
    'docs/none.md: options.md#none is no heading',
  ])
})

test('every file that a comment in lib/ names is there', () => {
  const missing = [...readSources(resolve(root, 'lib'))].flatMap(([file, text]) => {
    const comments = text.match(/^\s*(?:\/?\*|\/\/).*$/gm)?.join('\n') ?? ''
    const paths = comments.match(/\b[a-z]+\/[\w/-]+(?:\.test)?\.ts\b/g) ?? []
    const isThere = (path: string): boolean =>
      [root, resolve(root, 'lib')].some(folder => existsSync(resolve(folder, path)))
    return paths.filter(path => !isThere(path)).map(path => `lib/${file} names ${path}`)
  })
  expect(missing).toEqual([])
})

test.each(named)('%s: every command it names is one', (_, page) => {
  const { scripts } = JSON.parse(readFileSync(resolve(root, 'package.json'), 'utf8')) as {
    scripts: Record<string, string>
  }
  const commands = [...page.text.matchAll(/npm (?:run (\w+)|(start|test)\b)/g)].map(
    ([, script, short]) => script ?? short ?? '',
  )
  expect(commands.filter(command => !(command in scripts))).toEqual([])
})

test.each(named)('%s: says it in plain words', (_, page) => {
  expect(proseOf(page).match(/[^\n]*\w!(?:\s|$)[^\n]*/g) ?? []).toEqual([])
})

test('README.md keeps a place for the table of the demo, empty or filled with a table', () => {
  const [, filled] =
    /<!-- demo table -->\n([\s\S]*?)<!-- \/demo table -->/.exec(readPage('README.md').text) ?? []
  expect(filled).toBeDefined()
  if (filled === '') return
  expect(filled).toMatch(/^\|[\s|:-]+\|$/m)
  expect(filled).toMatch(/MariaDB \d+\.\d+/)
})

test('README.md: every guarantee links to a test', () => {
  const rows = rowsUnder(readPage('README.md'), 'What is guaranteed, and the test that proves it')
  expect(rows.length).toBeGreaterThan(5)
  expect(rows.filter(([, proof = '']) => !/\]\(test\/[\w/-]+\.test\.ts\)/.test(proof))).toEqual([])
})

test('SECURITY.md: everything that is protected links to a test', () => {
  const rows = rowsUnder(readPage('SECURITY.md'), 'What is protected today')
  expect(rows.length).toBeGreaterThan(5)
  expect(rows.filter(row => !/\]\(test\/[\w/-]+\.test\.ts\)/.test(row.at(-1) ?? ''))).toEqual([])
})

test('CONTRIBUTING.md has the four commands and ten lines of philosophy', () => {
  const page = readPage('CONTRIBUTING.md')
  const commands = rowsUnder(page, 'Contributing').flatMap(([command = '']) => codesIn(command))
  expect(commands).toEqual(
    expect.arrayContaining(['npm test', 'npm run check', 'npm run demo', 'npm start', 'npm run bench']),
  )
  expect(page.text.match(/^\d+\. /gm)).toHaveLength(10)
})
