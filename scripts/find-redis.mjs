/** Finds a Redis server that runs: installed, else Debian's packages unpacked under .cache/redis. */

import { join } from 'node:path'
import { downloadPackages, libraryFolders } from './download-packages.mjs'
import { installed, isExecutable } from './find-program.mjs'
import { Sentence, capture } from './processes.mjs'

const packages = {
  name: 'redis',
  wanted: ['redis-server'],
  instead: 'install redis-server or set REDIS_URL',
}

/** @returns `{ server, env }`; undefined where none is installed and there is no apt */
export async function findRedis() {
  const server = installed('redis-server')
  const found = { server, env: {} }
  return server !== undefined && (await runs(found)) ? found : downloadRedis()
}

async function downloadRedis() {
  const tree = await downloadPackages(packages, folder => runs(unpackedIn(folder)))
  if (tree === undefined) return undefined
  const unpacked = unpackedIn(tree)
  if (await runs(unpacked)) return unpacked
  const { output } = await capture(unpacked.server, ['--version'], { env: unpacked.env })
  throw new Sentence(`the downloaded Redis does not run here: ${output.trim()}\n${packages.instead}`)
}

/** In Debian's package the server is a link to a file of redis-tools: the name it is called by decides what it is. */
function unpackedIn(tree) {
  return {
    server: join(tree, 'usr/bin/redis-server'),
    env: { LD_LIBRARY_PATH: libraryFolders(tree).join(':') },
  }
}

async function runs({ server, env }) {
  if (!isExecutable(server)) return false
  const { code, output } = await capture(server, ['--version'], { env })
  return code === 0 && /\bv=([6-9]|\d\d)\./.test(output)
}
