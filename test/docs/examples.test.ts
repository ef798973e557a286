/** Every example of the manual compiles, and those that say so run and answer as the page says (see examples.ts). */
import { execFile } from 'node:child_process'
import { mkdir, rm, writeFile } from 'node:fs/promises'
import { resolve } from 'node:path'
import request from 'supertest'
import { openDatabase, type TestDatabase } from '../support/database.js'
import { asModule, exchangesOf, GIVEN_TYPES, programsOf, run } from './examples.js'
import { allPages, type Block, blocksOf, type Page, root } from './markdown.js'

const pages = allPages()

test('every block is of a language with a meaning', () => {
  const known = /^(?:ts|ts run|ts part|sql|http|sh|)$/ // without a language: a drawing
  const others = pages
    .flatMap(blocksOf)
    .map(({ page, line, language, marks }) => [page, line, [language, ...marks].join(' ')])
  expect(others.filter(([, , info]) => !known.test(String(info)))).toEqual([])
})

test('every TypeScript example compiles under our own strict rules', async () => {
  const blocks = pages.flatMap(programsOf)
  expect(blocks.length).toBeGreaterThan(10)
  expect(await compile(blocks)).toEqual([])
}, 120_000)

test('an example that does not compile is named with its page and line', async () => {
  const block = {
    page: 'docs/none.md',
    line: 10,
    language: 'ts',
    marks: [],
    code: 'const fine = 1\napp.use(tx.nothing())\n',
  }
  expect(await compile([block])).toEqual([expect.stringMatching(/^docs\/none\.md:11: .*'nothing'/)])
}, 120_000)

describe.each(pages.filter(hasRuns).map(page => [page.name, page] as const))('%s', (_, page) => {
  const blocks = blocksOf(page)
  let database: TestDatabase

  beforeAll(async () => {
    database = await openDatabase({ multipleStatements: true })
    for (const { language, code } of blocks) if (language === 'sql') await database.pool.query(code)
  })
  afterAll(() => database.close())

  const runs = blocks
    .map((block, place) => [block, blocks.slice(place + 1)] as const)
    .filter(([block]) => isRun(block))
  test.each(runs.map(([block, rest]) => [block.line, block, rest] as const))(
    'the example at line %d runs and is answered as written',
    async (_line, block, rest) => {
      const built = await run(block, database.url)
      try {
        const browser = request.agent(built.server)
        for (const { method, path, answer } of expectedAfter(rest)) {
          const { status, text } = await requestOf(browser, method, path)
          expect(`${method} ${path}: ${status} ${text}`.trim()).toBe(`${method} ${path}: ${answer}`)
        }
      } finally {
        await built.close()
      }
    },
  )
})

function hasRuns(page: Page): boolean {
  return blocksOf(page).some(isRun)
}

function isRun({ language, marks }: Block): boolean {
  return language === 'ts' && marks.includes('run')
}

/** The exchanges that follow a run, over SQL in between, up to the next example. */
function expectedAfter(rest: readonly Block[]): ReturnType<typeof exchangesOf> {
  const next = rest.findIndex(({ language }) => language === 'ts')
  const own = next < 0 ? rest : rest.slice(0, next)
  return own.filter(({ language }) => language === 'http').flatMap(exchangesOf)
}

function requestOf(browser: ReturnType<typeof request.agent>, method: string, path: string): request.Test {
  switch (method) {
    case 'GET':
      return browser.get(path)
    case 'POST':
      return browser.post(path)
    default:
      throw new Error(`no example says ${method} so far: add it here`)
  }
}

/** What the compiler says of these blocks, as `page:line: message`. */
async function compile(blocks: readonly Block[]): Promise<string[]> {
  // Inside of the checkout, because packages are looked for upwards from there.
  const folder = resolve(root, `.cache/docs-${process.pid}`)
  await mkdir(folder, { recursive: true })
  try {
    const compilerOptions = { types: ['node'], noUnusedLocals: false, noUnusedParameters: false }
    const config = { extends: '../../tsconfig.json', compilerOptions, include: ['*.ts'] }
    await writeFile(resolve(folder, 'tsconfig.json'), JSON.stringify(config))
    await writeFile(resolve(folder, 'given.ts'), GIVEN_TYPES)
    for (const [place, block] of blocks.entries())
      await writeFile(resolve(folder, `example${place}.ts`), asModule(block))
    return (await tsc(folder)).flatMap(line => {
      const [, place, at, message] = /example(\d+)\.ts\((\d+),\d+\): (.*)/.exec(line) ?? []
      const block = blocks[Number(place)]
      // The sources are compiled along; what is wrong with them is said by npm run check.
      return block === undefined ? [] : [`${block.page}:${block.line + Number(at) - 1}: ${message}`]
    })
  } finally {
    await rm(folder, { recursive: true, force: true })
  }
}

function tsc(folder: string): Promise<string[]> {
  const args = [resolve(root, 'node_modules/typescript/bin/tsc'), '--pretty', 'false', '-p', folder]
  return new Promise((done, fail) => {
    execFile(process.execPath, args, { cwd: root }, (error, stdout, stderr) => {
      const lines = stdout.split('\n').filter(line => line.includes('error TS'))
      if (error !== null && lines.length === 0) fail(new Error(`tsc failed: ${stdout}${stderr}`))
      else done(lines)
    })
  })
}
