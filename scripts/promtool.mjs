/**
 * Checks the alert rules of docs/observability and the names of our metrics with Prometheus's own promtool: the one that
 * is installed, or in CI Debian's, unpacked under .cache/prometheus.
 */

import { spawnSync } from 'node:child_process'
import { join, resolve } from 'node:path'
import { pathToFileURL } from 'node:url'
import { downloadPackages } from './download-packages.mjs'
import { installed } from './find-program.mjs'
import { Sentence, capture, run, say } from './processes.mjs'

const packages = {
  name: 'prometheus',
  wanted: [],
  // A program of its own; what else the package wants is for the server's pages.
  alone: ['prometheus'],
  instead: 'install prometheus',
}
const folder = 'docs/observability'

/** @returns an exit code; 0 where there is no promtool, and need not be */
export async function checkAlerts() {
  const promtool = installed('promtool') ?? (process.env.CI ? await downloaded() : undefined)
  if (promtool === undefined) {
    say('no promtool found: the alert rules are not checked (install prometheus)')
    return 0
  }
  const rules = await run(promtool, ['check', 'rules', join(folder, 'alerts.yml')])
  const tests = await run(promtool, ['test', 'rules', join(folder, 'alerts.test.yml')])
  const names = await lint(promtool)
  return rules === 0 && tests === 0 && names === 0 ? 0 : 1
}

async function downloaded() {
  const within = tree => join(tree, 'usr/bin/promtool')
  const runs = async file => (await capture(file, ['--version']).catch(() => ({ code: 1 }))).code === 0
  const tree = await downloadPackages(packages, found => runs(within(found)))
  if (tree === undefined) throw new Sentence(`CI needs promtool: ${packages.instead}`)
  return within(tree)
}

/** Our metrics as they are before anything has happened: every name, type and help. */
async function lint(promtool) {
  const built = name => import(pathToFileURL(resolve('dist/esm', name)).href)
  const { sessionTx } = await built('index.js')
  const tx = sessionTx()
  const ctx = {
    method: 'GET',
    path: '/_tx/metrics',
    req: { url: '/_tx/metrics', headers: { host: 'localhost' }, socket: { remoteAddress: '127.0.0.1' } },
    res: { setHeader() {} },
  }
  await tx.metrics()(ctx, () => {})
  await tx.close()
  const { status, stdout, stderr } = spawnSync(promtool, ['check', 'metrics'], {
    input: ctx.body,
    encoding: 'utf8',
  })
  process.stderr.write(`${stdout}${stderr}`)
  return status
}
