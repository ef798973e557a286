/** The package as a user gets it: packed, installed in an empty folder, loaded in both module formats. */

import { execFile } from 'node:child_process'
import { mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join, resolve } from 'node:path'
import { promisify } from 'node:util'

const exec = promisify(execFile)
const root = resolve(__dirname, '..')
const entries = ['session-tx', 'session-tx/express', 'session-tx/testing']

let folder: string
let packed: string[]

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'session-tx-package-'))
  const pack = await npm(root, 'pack', '--json', '--pack-destination', folder)
  const [tarball] = JSON.parse(pack) as { filename: string; files: { path: string }[] }[]
  if (!tarball) throw new Error(`npm pack made nothing: ${pack}`)
  packed = tarball.files.map(file => file.path)

  const app = join(folder, 'app')
  await mkdir(app)
  await writeFile(join(app, 'package.json'), '{ "name": "app", "private": true }')
  await npm(app, 'install', join(folder, tarball.filename), '--prefer-offline')
}, 240_000)

afterAll(() => rm(folder, { recursive: true, force: true }))

test('nothing is packed but the build and what is there to read', () => {
  const allowed = /^(dist\/(esm|cjs)\/|docs\/|package\.json$|(README|LICENSE|CHANGELOG|ARCHITECTURE)(\.md)?$)/
  expect(packed.filter(path => !allowed.test(path))).toEqual([])
  expect(packed).toEqual(
    expect.arrayContaining(['LICENSE', 'dist/esm/index.js', 'dist/cjs/index.js', 'dist/cjs/package.json']),
  )
})

test('every file that "exports" names is packed', async () => {
  const { exports } = JSON.parse(await readFile(join(root, 'package.json'), 'utf8')) as { exports: unknown }
  const named = JSON.stringify(exports).match(/(?<="\.\/)[^"]+\.[^"]+(?=")/g) ?? []
  expect(named.length).toBeGreaterThan(0)
  expect(named.filter(path => !packed.includes(path))).toEqual([])
})

test.each(entries)(
  '%s: import and require load it without its peers and give the same names',
  async entry => {
    const imported = await namesOf([
      '--input-type=module',
      '-e',
      `import * as m from '${entry}'; ${print('m')}`,
    ])
    const required = await namesOf(['-e', print(`require('${entry}')`)])
    expect(required).toEqual(imported)
    expect(imported.length).toBeGreaterThan(0)
  },
)

test.each(['mts', 'cts'])(
  'its types need no types of any framework, also where declarations of libraries are checked (.%s)',
  async extension => {
    const app = join(folder, 'app')
    const program = entries
      .map((entry, place) => `import * as m${place} from '${entry}'; void m${place}\n`)
      .join('')
    const compilerOptions = {
      ...{ strict: true, noEmit: true, module: 'nodenext', target: 'es2023', skipLibCheck: false },
      ...{ typeRoots: [join(root, 'node_modules', '@types')], types: ['node'] },
    }
    const project = `tsconfig.${extension}.json`
    await writeFile(join(app, `program.${extension}`), program)
    await writeFile(join(app, project), JSON.stringify({ compilerOptions, files: [`program.${extension}`] }))
    const tsc = join(root, 'node_modules', '.bin', 'tsc')
    const compiled = exec(tsc, ['-p', project, '--pretty', 'false'], { cwd: app })
    await expect(compiled.catch((failure: { stdout: string }) => failure)).resolves.toMatchObject({
      stdout: '',
    })
  },
)

test('npx session-tx prints the tables, without mysql2', async () => {
  const { stdout } = await exec('npx', ['--no', 'session-tx', 'migrate'], {
    cwd: join(folder, 'app'),
    env: plainEnv(),
  })
  expect(stdout).toContain('CREATE TABLE IF NOT EXISTS sessiontx_commits')
  const applying = exec(
    'npx',
    ['--no', 'session-tx', 'migrate', '--apply', '--url', 'mysql://root@127.0.0.1/x'],
    {
      cwd: join(folder, 'app'),
      env: plainEnv(),
    },
  )
  await expect(applying).rejects.toMatchObject({
    code: 1,
    stderr: 'session-tx: mysql2 is not installed here: npm install mysql2\n',
  })
})

const print = (module: string) => `console.log(JSON.stringify(Object.keys(${module}).sort()))`

async function namesOf(args: string[]): Promise<string[]> {
  const { stdout } = await exec(process.execPath, args, { cwd: join(folder, 'app'), env: plainEnv() })
  const names = JSON.parse(stdout) as string[]
  return names.filter(name => name !== 'default' && name !== 'module.exports' && name !== '__esModule')
}

async function npm(cwd: string, ...args: string[]): Promise<string> {
  const quiet = ['--ignore-scripts', '--no-audit', '--no-fund', '--loglevel=error']
  const { stdout } = await exec('npm', [...args, ...quiet], { cwd, env: plainEnv(), maxBuffer: 2 ** 24 })
  return stdout
}

/** npm hands its own settings down to children; they would reach into the empty folder. */
function plainEnv(): NodeJS.ProcessEnv {
  const inherited = Object.entries(process.env).filter(
    ([name]) => !/^npm_(package|lifecycle|command|execpath|config_local_prefix)/.test(name),
  )
  return { ...Object.fromEntries(inherited), NODE_OPTIONS: '' }
}
