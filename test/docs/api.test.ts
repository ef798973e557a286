/** docs/api.md against the declarations: every export of every entry, every member, every command. */
import { readFileSync } from 'node:fs'
import { resolve } from 'node:path'
import { sessionTx as expressSessionTx } from '../../lib/express.js'
import { sessionTx } from '../../lib/index.js'
import { run } from '../cli/command.js'
import { codesIn, readPage, root, rowsUnder } from './markdown.js'

const page = readPage('docs/api.md')
const sorted = (names: Iterable<string>): string[] => [...names].sort()
const listed = (heading: string): string[] =>
  rowsUnder(page, heading).flatMap(([names = '']) => codesIn(names))

/** Names that a module exports, types too: `export { a, type B } …` and `export function c`. */
function exportsOf(file: string): string[] {
  const text = readFileSync(resolve(root, file), 'utf8').replaceAll(/\/\*[\s\S]*?\*\/|\/\/.*/g, '')
  const lists = [...text.matchAll(/^export (?:type )?\{([^}]*)\}/gm)].flatMap(([, list = '']) =>
    list.split(',').map(name => name.trim().replace(/^type /, '')),
  )
  const declared = [
    ...text.matchAll(/^export (?:async )?(?:function|interface|type|const|class) (\w+)/gm),
  ].map(([, name = '']) => name)
  return sorted(new Set([...lists, ...declared].filter(name => name !== '')))
}

test.each([
  ['`session-tx`', 'lib/index.ts', 40],
  ['`session-tx/express`', 'lib/express.ts', 6],
  ['`session-tx/testing`', 'lib/testing/index.ts', 6],
])('%s: every export is listed, once, and nothing else', (heading, file, atLeast) => {
  const names = exportsOf(file)
  expect(names.length).toBeGreaterThan(atLeast)
  expect(sorted(listed(heading))).toEqual(names)
})

test.each([
  ['Koa', sessionTx],
  ['Express', expressSessionTx],
])('every member of what sessionTx() returns for %s is listed', async (_, create) => {
  const tx = create()
  const names = listed('What `sessionTx()` returns').map(name => name.replace(/\(.*/, ''))
  // By this the middleware finds itself in the stacks of Express; nobody else's business.
  const members = Object.keys(tx).filter(name => name !== 'isSessionTx')
  expect(sorted(names)).toEqual(sorted(members))
  await tx.close()
})

test('every command is listed', async () => {
  const { complained } = await run('none')
  const [, commands = ''] = /there is no command 'none'; there is (.*)/.exec(complained) ?? []
  expect(listed('`npx session-tx`')).toEqual(commands.split(', '))
})
