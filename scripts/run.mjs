/**
 * The one entry of every npm script: `node scripts/run.mjs <command> [arguments]`.
 * It may import only node: modules and files here that do likewise, because it runs before anything is installed.
 */

import { parseArgs } from 'node:util'
import { build, buildApps } from './build.mjs'
import { useChromium } from './chromium.mjs'
import { check } from './check.mjs'
import { stopServers, useDatabase, useGalera, useRedis, useRedisCluster } from './database.mjs'
import { install } from './install.mjs'
import { Sentence, Stopped, run, say } from './processes.mjs'
import { chooseBenchmarks, runBenchmarks } from './bench.mjs'
import { test } from './test.mjs'

/** Each answers with the exit code of what it ran. */
const commands = {
  async demo(args) {
    await setUp({ apps: true, database: true, redis: args.includes('redis') })
    return run(process.execPath, ['.cache/build/example-app/demo.js', ...args])
  },
  async start(args) {
    await setUp({ apps: true, database: true, redis: args.includes('redis') })
    return run(process.execPath, ['.cache/build/example-app/server.js', ...args])
  },
  async bench(args) {
    const chosen = chooseBenchmarks(args)
    await setUp({ apps: true, database: true, redis: true })
    return runBenchmarks(chosen)
  },
  async test(args) {
    await setUp({ database: true, redis: true })
    return test(args, await browser())
  },
  /** Random faults under load, and a long one without: `npm run test:faults -- --faults 500 --seed 42`, `… -- soak`. */
  async 'test-faults'(args) {
    const { files, env } = faultsOf(args)
    await setUp({ apps: true, database: true, redis: true })
    return run(process.execPath, ['node_modules/jest/bin/jest.js', ...files], { env })
  },
  async check() {
    await setUp({})
    return check()
  },
  async build() {
    await setUp({ build: true })
    return 0
  },
  /** For developers: any command with MYSQL_URL and REDIS_URL set, such as `with-db -- npx jest test/merge.test.ts`. */
  async 'with-db'(args) {
    const [command, ...rest] = args[0] === '--' ? args.slice(1) : args
    if (!command) throw new Sentence('with-db wants a command: node scripts/run.mjs with-db -- npx jest')
    await setUp({ apps: true, database: true, redis: true })
    return run(command, rest, { env: (await useChromium()) ?? {} })
  },
  /**
   * The same with three nodes of a Galera cluster: the first is MYSQL_URL, all of them are MYSQL_NODES. What the command
   * runs must not want one server: `with-galera -- npm run demo -- --store mysql --processes 3`.
   */
  async 'with-galera'(args) {
    const [command, ...rest] = args[0] === '--' ? args.slice(1) : args
    if (!command) throw new Sentence('with-galera wants a command: node scripts/run.mjs with-galera -- bash')
    await setUp({ apps: true })
    const nodes = await useGalera()
    return run(command, rest, { env: { MYSQL_URL: nodes[0], MYSQL_NODES: nodes.join(' ') } })
  },
  /**
   * The same with a Redis Cluster of three masters with a replica each: the first is REDIS_URL, all of them are
   * REDIS_NODES. `with-redis-cluster -- npm run demo -- --store redis --processes 3`
   */
  async 'with-redis-cluster'(args) {
    const [command, ...rest] = args[0] === '--' ? args.slice(1) : args
    if (!command)
      throw new Sentence(
        'with-redis-cluster wants a command: node scripts/run.mjs with-redis-cluster -- bash',
      )
    await setUp({ apps: true, database: true })
    const nodes = await useRedisCluster()
    return run(command, rest, { env: { REDIS_URL: nodes[0], REDIS_NODES: nodes.join(' ') } })
  },
}

const faultsUsage =
  'npm run test:faults -- [name of a file …] [--faults 500] [--seed 42] [--soak-seconds 600]'

/** Which files, and the environment variables that test/faults reads. */
function faultsOf(args) {
  const options = {
    faults: { type: 'string', default: '500' },
    seed: { type: 'string' },
    'soak-seconds': { type: 'string', default: '600' },
  }
  let parsed
  try {
    parsed = parseArgs({ args, options, allowPositionals: true })
  } catch (error) {
    throw new Sentence(`${error.message}\n${faultsUsage}`)
  }
  const { values, positionals } = parsed
  for (const [name, value] of Object.entries(values)) {
    if (!/^\d+$/.test(value ?? '0'))
      throw new Sentence(`--${name} must be a whole number, got '${String(value)}'`)
  }
  const files = positionals.length === 0 ? ['test/faults'] : positionals.map(name => `test/faults/${name}`)
  const { faults, seed, 'soak-seconds': seconds } = values
  return { files, env: { FAULTS: faults, FAULT_SEED: seed, SOAK_SECONDS: seconds, NODE_ENV: 'test' } }
}

/** What test() hears of the browser: its environment, or a sentence; a failure only where there must be one. */
async function browser() {
  try {
    const env = await useChromium()
    if (env === undefined)
      say('no Chromium found: the tests in test/browser do not run (install chromium, or set CHROMIUM_PATH)')
    return { env: env ?? {}, works: true }
  } catch (error) {
    if (!(error instanceof Sentence)) throw error
    say(`${error.message}\nthe tests in test/browser do not run: that counts as one failure`)
    return { env: { CHROMIUM_PATH: undefined }, works: false }
  }
}

/** Everything a command stands on; what is there already costs a few milliseconds. */
async function setUp({ build: wantsBuild = false, apps = false, database = false, redis = false }) {
  await install()
  if (wantsBuild || apps) await build()
  if (apps) await buildApps()
  if (database) process.env.MYSQL_URL = await useDatabase()
  if (redis) process.env.REDIS_URL = await useRedis()
}

async function main([name, ...args]) {
  const command = Object.hasOwn(commands, name ?? '') ? commands[name] : undefined
  if (!command) throw new Sentence(`no such command: choose one of ${Object.keys(commands).join(', ')}`)
  return command(args)
}

let code = 1
try {
  code = await main(process.argv.slice(2))
} catch (error) {
  if (error instanceof Stopped) code = error.exitCode
  else say(error instanceof Sentence ? error.message : error.stack)
} finally {
  await stopServers()
}
process.exitCode = code
