/**
 * Compiles the library to dist/ (ES modules and CommonJS) and the applications to .cache/build/, unless they are
 * up to date. The result appears in one step, so a run beside this one never sees half of it.
 */

import { createHash } from 'node:crypto'
import {
  cpSync,
  existsSync,
  mkdirSync,
  readFileSync,
  readdirSync,
  renameSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs'
import { join } from 'node:path'
import { withLock } from './lock.mjs'
import { runQuietly, say } from './processes.mjs'

const tsc = 'node_modules/typescript/bin/tsc'
const always = ['package.json', 'package-lock.json', 'tsconfig.json', 'scripts/build.mjs']

/** The library: lib/ → dist/esm and dist/cjs. */
export function build() {
  const inputs = [...always, 'tsconfig.esm.json', 'tsconfig.cjs.json', 'lib']
  return whenChanged('dist', inputs, async out => {
    say('building the library …')
    await compile('tsconfig.esm.json', join(out, 'esm'))
    await compile('tsconfig.cjs.json', join(out, 'cjs'))
    writeFileSync(join(out, 'cjs/package.json'), '{ "type": "commonjs" }\n')
    nameAsOthers(join(out, 'cjs'))
    // What browsers load is served as it is.
    for (const format of ['esm', 'cjs'])
      cpSync('lib/metrics/page/browser', join(out, format, 'metrics/page/browser'), { recursive: true })
  })
}

/** The applications: example-app/, bench/ and test/processes/ → .cache/build. Compiled against dist/: build() first. */
export function buildApps() {
  const inputs = [
    ...always,
    'tsconfig.apps.json',
    'lib',
    'example-app',
    'bench',
    'test/processes',
    'test/support/torture-app.ts',
  ]
  return whenChanged('.cache/build', inputs, async out => {
    say('compiling the applications …')
    await compile('tsconfig.apps.json', out)
    for (const folder of ['example-app', 'bench'].filter(name => existsSync(name))) {
      cpSync(folder, join(out, folder), { recursive: true, filter: file => !file.endsWith('.ts') })
    }
  })
}

const compile = (project, outDir) =>
  runQuietly(process.execPath, [tsc, '-p', project, '--outDir', outDir], {
    failure: `tsc -p ${project} failed`,
  })

/** `here.commonjs.js` → `here.js`: imports name the file that both formats have. */
function nameAsOthers(folder) {
  for (const file of walk(folder).filter(name => name.includes('.commonjs.')))
    renameSync(file, file.replace('.commonjs.', '.'))
}

/** Fills `target` by calling `fill(folder)`, if anything in `inputs` has changed since it was filled last. */
async function whenChanged(target, inputs, fill) {
  const stamp = `.cache/${target.replaceAll(/\W/g, '')}.stamp`
  const isCurrent = () =>
    existsSync(target) && existsSync(stamp) && readFileSync(stamp, 'utf8') === fingerprint(inputs)
  if (isCurrent()) return
  await withLock('build', async () => {
    if (isCurrent()) return
    const before = fingerprint(inputs)
    const fresh = `.cache/fresh.${process.pid}`
    const old = `.cache/old.${process.pid}`
    mkdirSync(fresh, { recursive: true })
    try {
      await fill(fresh)
      if (existsSync(target)) renameSync(target, old)
      renameSync(fresh, target)
      writeFileSync(stamp, before)
    } finally {
      rmSync(fresh, { recursive: true, force: true })
      rmSync(old, { recursive: true, force: true })
    }
  })
}

/** Names, sizes and times of all input files: cheap, and changes when any file is edited, added or removed. */
function fingerprint(inputs) {
  const hash = createHash('sha256')
  const files = inputs.flatMap(input => (existsSync(input) ? walk(input) : []))
  for (const file of files.sort()) {
    const { size, mtimeMs } = statSync(file)
    hash.update(`${file} ${size} ${mtimeMs}\n`)
  }
  return hash.digest('hex')
}

function walk(path) {
  if (!statSync(path).isDirectory()) return [path]
  return readdirSync(path, { recursive: true })
    .map(name => join(path, name))
    .filter(file => statSync(file).isFile())
}
